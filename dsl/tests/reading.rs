//! What the parser makes of a text: trees in a compact form, the corners of the grammar, and limits.

mod support;

use foveate_dsl::ast::*;
use foveate_dsl::parse;
use insta::assert_snapshot;
use support::{EVERYTHING, read};

/// An expression with all its brackets: `(+ a (sum [d] b))`.
fn show(expr: &Expr) -> String {
    let all = |parts: &[Expr]| parts.iter().map(show).collect::<Vec<_>>().join(" ");
    match &expr.kind {
        ExprKind::Int(value) => value.to_string(),
        ExprKind::Float(value) => format!("{value:?}"),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Str(value) => format!("{value:?}"),
        ExprKind::Dims(sizes) => format!("dims{sizes:?}"),
        ExprKind::List(parts) => format!("[{}]", all(parts)),
        ExprKind::Tuple(parts) => format!("(tuple {})", all(parts)),
        ExprKind::Path(path) => show_path(path),
        ExprKind::Call { callee, args } => {
            let arg = |arg: &Arg| {
                let name = arg.name.as_ref().map_or(String::new(), |name| format!("{}:", name.text));
                format!(" {name}{}", show(&arg.value))
            };
            format!("(call {}{})", show_path(callee), args.iter().map(arg).collect::<String>())
        }
        ExprKind::Read { base, indices } => format!("(read {} [{}])", show(base), all(indices)),
        ExprKind::Rest => "..".to_owned(),
        ExprKind::Unary { op, operand } => format!("({} {})", format!("{op:?}").to_lowercase(), show(operand)),
        ExprKind::Binary { op, left, right } => {
            format!("({} {} {})", format!("{op:?}").to_lowercase(), show(left), show(right))
        }
        ExprKind::If { cond, then, otherwise } => format!("(if {} {} {})", show(cond), show(then), show(otherwise)),
        ExprKind::Reduce { op, binders, filter, body } => {
            let binders: Vec<String> = binders.iter().map(show_binder).collect();
            let filter = filter.as_ref().map_or(String::new(), |filter| format!(" where {}", show(filter)));
            format!("({} [{}{filter}] {})", format!("{op:?}").to_lowercase(), binders.join(" "), show(body))
        }
        ExprKind::Normalise { op, over, body } => {
            let over: Vec<&str> = over.iter().map(|name| name.text.as_str()).collect();
            format!("({} [{}] {})", format!("{op:?}").to_lowercase(), over.join(" "), show(body))
        }
    }
}

fn show_path(path: &Path) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Computed(expr) => format!("{{{}}}", show(expr)),
    };
    let segments = path.segments.iter().map(|segment| segment.pieces.iter().map(piece).collect::<String>());
    segments.collect::<Vec<_>>().join(".")
}

fn show_binder(binder: &Binder) -> String {
    let axis = binder.axis.as_ref().map_or(String::new(), |axis| format!(":{}", show_axis(axis)));
    let domain = binder.domain.as_ref().map_or(String::new(), |domain| format!(" in {}", show(domain)));
    format!("{}{axis}{domain}", binder.name.text)
}

fn show_axis(axis: &AxisRef) -> String {
    match axis {
        AxisRef::Expr(expr) => show(expr),
        AxisRef::Merged(parts, _) => format!("merged({})", parts.iter().map(show_axis).collect::<Vec<_>>().join(" ")),
        AxisRef::Rest(_) => "..".to_owned(),
    }
}

fn show_index(index: &TargetIndex) -> String {
    match index {
        TargetIndex::Binder(binder) => show_binder(binder),
        TargetIndex::Merged(parts, _) => format!("({})", show_indices(parts)),
        TargetIndex::Rest(_) => "..".to_owned(),
    }
}

fn show_indices(indices: &[TargetIndex]) -> String {
    indices.iter().map(show_index).collect::<Vec<_>>().join(" ")
}

fn show_target(target: &Target) -> String {
    match &target.indices {
        None => target.name.text.clone(),
        Some(indices) => format!("{}[{}]", target.name.text, show_indices(indices)),
    }
}

fn show_statement(statement: &Stmt) -> String {
    let block = |body: &[Stmt]| format!("{{{}}}", body.iter().map(show_statement).collect::<Vec<_>>().join("; "));
    match statement {
        Stmt::Define { target, value, expose, .. } => {
            format!("{}{} = {}", if *expose { "expose " } else { "" }, show_target(target), show(value))
        }
        Stmt::DefineTuple { targets, value, .. } => {
            format!("({}) = {}", targets.iter().map(show_target).collect::<Vec<_>>().join(", "), show(value))
        }
        Stmt::Update { target, value, .. } => format!("update {} = {}", show_target(target), show(value)),
        Stmt::Expose { name, .. } => format!("expose {}", name.text),
        Stmt::Let { name, value, .. } => format!("let {} = {}", name.text, show(value)),
        Stmt::If { cond, then, otherwise, .. } => {
            format!("if {} {} else {}", show(cond), block(then), block(otherwise))
        }
        Stmt::For { var, lo, hi, body, .. } => format!("for {} {}..{} {}", var.text, show(lo), show(hi), block(body)),
        Stmt::Return { values, .. } => format!("return {}", values.iter().map(show).collect::<Vec<_>>().join(", ")),
    }
}

fn expr(text: &str) -> String {
    match read(&format!("foveate 1\nfn f() = {text}\n")).items.as_slice() {
        [Item::Function(function)] => show(&function.body),
        items => panic!("one function, not {items:?}"),
    }
}

/// The statements of a `forward`, one a line.
fn statements(text: &str) -> String {
    let file = read(&format!("foveate 1\nmodule M() {{ forward() -> [] {{\n{text}\n}} }}"));
    let Some(Item::Module(module)) = file.items.first() else { panic!("a module") };
    let Some(Member::Forward(forward)) = module.members.first() else { panic!("a forward") };
    forward.body.iter().map(show_statement).collect::<Vec<_>>().join("\n")
}

#[test]
fn operators_bind_by_strength() {
    assert_snapshot!(expr("a + b * c ^ d ^ -e - f"), @"(sub (add a (mul b (pow c (pow d (neg e))))) f)");
    assert_snapshot!(expr("-a ^ 2 * -b"), @"(mul (neg (pow a 2)) (neg b))");
    assert_snapshot!(expr("a div b / c % d"), @"(mod (div (floordiv a b) c) d)");
    assert_snapshot!(expr("not a == b and c or d"), @"(or (and (not (eq a b)) c) d)");
    assert_snapshot!(expr("if a then b else if c then d else e + 1"), @"(if a b (if c d (add e 1)))");
    assert_snapshot!(expr("a - (b - c) - d"), @"(sub (sub a (sub b c)) d)");
}

#[test]
fn a_reduction_takes_a_product() {
    assert_snapshot!(expr("c + sum(d) a * b + e"), @"(add (add c (sum [d] (mul a b))) e)");
    assert_snapshot!(expr("p * sum(d) q / r == 0"), @"(eq (mul p (sum [d] (div q r))) 0)");
    assert_snapshot!(expr("p * (sum(d) q) / r"), @"(div (mul p (sum [d] q)) r)");
    assert_snapshot!(expr("-max(i, j: G where i != j) mean(k in window(i, 3, pad: zero)) x[i, k]"),
        @"(neg (max [i j:G where (ne i j)] (mean [k in (call window i 3 pad:zero)] (read x [i k]))))");
    assert_snapshot!(expr("sum(j) softmax(j)(s[i, j]) * v[j]"),
        @"(sum [j] (mul (softmax [j] (read s [i j])) (read v [j])))");
    assert_snapshot!(expr("summary + sum + softmax"), @"(add (add summary sum) softmax)");
}

#[test]
fn operands_and_reads() {
    assert_snapshot!(expr("qk(x)[i, (2, h, d)][.., 0]"), @"(read (read (call qk x) [i (tuple 2 h d)]) [.. 0])");
    assert_snapshot!(expr("block{s}.{m + 1}.se_fc.0x(a: 14x14, 1e-4)"),
        @"(call block{s}.{(add m 1)}.se_fc.0x a:dims[14, 14] 0.0001)");
    assert_snapshot!(expr(r#"[1, 2.5, true, "a\"\n", []]"#), @r#"[1 2.5 true "a\"\n" []]"#);
    assert_snapshot!(expr("(a + b)[i.row] * loss[]"), @"(mul (read (add a b) [i.row]) (read loss []))");
}

#[test]
fn statements_need_no_terminator() {
    let text = "x = y (a, b[i, (h, d)]) = split(x) c = a\n-b let n = 3 if n{m = 1} else if k { } else { return x }
        for i in 0..n{ expose m } expose w[j in D, Cls, ..] = f update m[c] = s loss[] = x\n[0] return a, b";
    assert_snapshot!(statements(text), @r"
    x = y
    (a, b[i (h d)]) = (call split x)
    c = (sub a b)
    let n = 3
    if n {m = 1} else {if k {} else {return x}}
    for i 0..n {expose m}
    expose w[j in D Cls ..] = f
    update m[c] = s
    loss[] = (read x [0])
    return a, b
    ");
}

#[test]
fn an_axis_ends_where_a_member_named_x_begins() {
    let file = read(
        "foveate 1 module M(B) { axis A = B x x axis E = (B, 2) | B axis D = B x = Lin() x.0 = Lin() forward() -> [] { } }",
    );
    let Some(Item::Module(module)) = file.items.first() else { panic!("a module") };
    let axes = module.members.iter().filter_map(|member| match member {
        Member::Axis { def: AxisDef::Size(size), .. } => Some(format!("size {}", show(size))),
        Member::Axis { def: AxisDef::Product(of), .. } => {
            Some(format!("product {}", of.iter().map(show_axis).collect::<Vec<_>>().join(" ")))
        }
        Member::Axis { def: AxisDef::Sum(of), .. } => {
            Some(format!("sum {}", of.iter().map(show_axis).collect::<Vec<_>>().join(" ")))
        }
        _ => None,
    });
    assert_snapshot!(axes.collect::<Vec<_>>().join("; "), @"product B x; sum merged(B 2) B; size B");
    assert_eq!(module.members.len(), 6);
}

#[test]
fn a_whole_file() {
    let file = read(EVERYTHING);
    assert_eq!((file.imports.len(), file.items.len()), (2, 4));
    let Some(Item::Module(module)) = file.items.first() else { panic!("a module comes first") };
    assert_eq!(module.doc, "A learned spatial prior.\n\nWith an empty line.");
    let Some(Member::Forward(forward)) = module.members.last() else { panic!("`forward` comes last") };
    // Places are exact: no blanks or comments behind what they cover.
    let last = forward.body.last().map(Stmt::span).expect("a return");
    assert_eq!(&EVERYTHING[last.start as usize..last.end as usize], "return proj(y), loss");
}

#[test]
fn several_errors_are_found_and_the_rest_is_read() {
    let text = "foveate 1\nmodule A(C) {\n let a = = 3\n let b = 4\n forward(x[C]) -> [C] {\n  y = x +\n  z = 2 z\n  return x\n }\n}\nfn f(x) = )\nfn g(x) = x\n";
    let (file, diagnostics) = parse(0, text);
    assert_eq!(diagnostics.len(), 3, "{diagnostics:?}");
    let Some(Item::Module(module)) = file.items.first() else { panic!("the module is read") };
    assert_eq!(module.members.len(), 2);
    assert!(matches!(file.items.last(), Some(Item::Function(function)) if function.name.text == "g"));
}

#[test]
fn deep_texts_are_read_or_refused() {
    let nested = |open: &str, close: &str, times: usize| {
        let text = format!("foveate 1\nfn f(x) = {}x{}", open.repeat(times), close.repeat(times));
        parse(0, &text).1.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>()
    };
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("f(a: ", ")"),
        ("x[0, ", "]"),
        ("a{", "}"),
        ("softmax(j)(", ")"),
        ("sum(j in ", ") y"),
    ] {
        assert!(nested(open, close, 95).is_empty(), "{open}");
        assert_eq!(nested(open, close, 5000), ["E0006"], "{open}");
    }
    for prefix in ["-", "not ", "sum(j) ", "x ^ ", "if a then b else ", "x + "] {
        assert!(nested(prefix, "", 95).is_empty(), "{prefix}");
        assert_eq!(nested(prefix, "", 5000), ["E0006"], "{prefix}");
    }
    let arms =
        format!("foveate 1\nmodule M() {{ forward() -> [] {{ if a {{ }} {} }} }}", "else if a { } ".repeat(3000));
    assert_eq!(parse(0, &arms).1.len(), 1);
}
