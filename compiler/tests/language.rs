//! Every form of the language, small enough to be computed by hand: text, inputs, and what the interpreter gives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use foveate_compiler::check::{Spec, Value};
use foveate_compiler::interp::{self, Array};
use foveate_compiler::ir::{ArgRole, Program, ResultRole, verify};
use foveate_compiler::lower::{LowerOptions, Lowered, lower};
use foveate_dsl::{SourceMap, render::render};

type Given<'t> = &'t [(&'t str, &'t [f64])];

fn lowered(text: &str, settings: &[(&str, &str)], options: &LowerOptions) -> Lowered {
    let files = HashMap::from([(PathBuf::from("a.fov"), format!("foveate 1\n\n{text}"))]);
    let mut sources = SourceMap::new();
    let spec = Spec::load_from(Path::new("a.fov"), &files, &mut sources);
    let spec = spec.unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
    let settings: Vec<_> = settings.iter().map(|(n, v)| ((*n).to_owned(), Value::parse(v).expect("a value"))).collect();
    let main = spec.items().into_iter().rfind(|i| i.keyword != "fn").map(|i| i.name);
    let out = lower(&spec, main.as_deref(), &settings, options, &sources);
    let out = out.unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
    verify::verify(&out.program).unwrap_or_else(|e| panic!("{e}\n{}", out.program));
    out
}

/// All results by name. Arguments that are not given are 0, except that the key is `[seed, step]`.
fn results(program: &Program, given: Given<'_>) -> HashMap<String, Vec<f64>> {
    let entry = program.entry();
    let args: Vec<(ArgRole, Array)> = (entry.args.iter())
        .map(|a| {
            let name = match &a.role {
                ArgRole::Input(n) | ArgRole::Param(n) | ArgRole::State(n) => n.as_str(),
                _ => "key",
            };
            let shape = program.shape(entry, a.tensor);
            let size: usize = shape.iter().product();
            let data = match given.iter().find(|(n, _)| *n == name) {
                Some((_, data)) => data.to_vec(),
                None => vec![0.0; size],
            };
            assert_eq!(data.len(), size, "{name}: {shape:?}");
            (a.role.clone(), Array { shape, data })
        })
        .collect();
    let found = interp::run(program, &args).unwrap_or_else(|e| panic!("{e}\n{program}"));
    let name = |role: ResultRole| match role {
        ResultRole::Output(n) | ResultRole::Exposed(n) | ResultRole::NextState(n) => n,
        other => format!("{other:?}"),
    };
    found.into_iter().map(|(role, a)| (name(role), a.data)).collect()
}

fn mode(training: bool, batch: usize) -> LowerOptions {
    LowerOptions { training, random: true, batch, exposed: Vec::new() }
}

fn close(found: &[f64], expected: &[f64]) {
    let same = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b.abs().max(1.0) || a == b;
    assert!(
        found.len() == expected.len() && found.iter().zip(expected).all(same),
        "found {found:?}\nexpected {expected:?}"
    );
}

/// The result `y` of the last module of a text, in inference, for one image.
fn gives(text: &str, settings: &[(&str, &str)], given: Given<'_>, y: &[f64]) {
    let out = results(&lowered(text, settings, &mode(false, 1)).program, given);
    close(&out["y"], y);
}

/// A module `M` with this input, result and body.
fn body(header: &str, signature: &str, body: &str) -> String {
    format!("module M({header}) {{\n forward{signature} {{\n{body}\n}}\n}}\n")
}

fn with(header: &str, members: &str, signature: &str, body: &str) -> String {
    format!("module M({header}) {{\n{members}\n forward{signature} {{\n{body}\n}}\n}}\n")
}

const X6: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

#[test]
fn reductions() {
    let rows = |expr: &str, y: &[f64]| {
        gives(
            &body("N, C", "(x[N, C]) -> [N]", &format!("y[n] = {expr}\nreturn y")),
            &[("N", "2"), ("C", "3")],
            &[("x", X6)],
            y,
        );
    };
    rows("sum(c) x[n, c]", &[6.0, 15.0]);
    rows("mean(c) x[n, c]", &[2.0, 5.0]);
    rows("prod(c) x[n, c]", &[6.0, 120.0]);
    rows("max(c) x[n, c]", &[3.0, 6.0]);
    rows("min(c) x[n, c]", &[1.0, 4.0]);
    rows("if any(c) (x[n, c] > 5) then 1 else 0", &[0.0, 1.0]);
    rows("if all(c) (x[n, c] > 3) then 1 else 0", &[0.0, 1.0]);
    rows(
        "logsumexp(c) x[n, c]",
        &[3.0 + (1.0 + (-1.0f64).exp() + (-2.0f64).exp()).ln(), 6.0 + (1.0 + (-1.0f64).exp() + (-2.0f64).exp()).ln()],
    );
    rows("sum(c where c != 1) x[n, c]", &[4.0, 10.0]);
    rows("mean(c where c < 2) x[n, c]", &[1.5, 4.5]);
    rows("max(c where c > 5) x[n, c]", &[f64::NEG_INFINITY; 2]);
    rows("sum(c where c > 5) x[n, c]", &[0.0; 2]);
    rows("1 + sum(c) 2 * x[n, c] - 3", &[10.0, 28.0]);
    rows("sum(k: N, c) x[k, c] / x[n, 0]", &[21.0, 5.25]);
    rows("sum(c) c * x[n, c]", &[8.0, 17.0]);
}

#[test]
fn labels() {
    let text = body(
        "N, C",
        "(x[N, C]) -> [N]",
        "best[n] = argmax(c) x[n, c]\nworst[n] = argmin(c) x[n, c]\ny[n] = 10 * best[n] + worst[n] + x[n, best[n]]\nreturn y",
    );
    gives(&text, &[("N", "2"), ("C", "3")], &[("x", &[1.0, 9.0, 3.0, 4.0, 5.0, 2.0])], &[19.0, 17.0]);
    let text = body("C", "(x[C], t: label[C]) -> [C]", "y[c] = if c == t then x[t] else 0\nreturn y");
    gives(&text, &[("C", "3")], &[("x", &[1.0, 2.0, 3.0]), ("t", &[2.0])], &[0.0, 0.0, 3.0]);
}

#[test]
fn segments() {
    // By label: the sum over those with this label.
    let text = with(
        "N, K",
        "index i: N",
        "(x[N], seg[N]) -> [K]",
        "of[i] = argmax(k) (if seg[i] == k then 1 else 0)\ny[k] = sum(i where of[i] == k) x[i]\nreturn y",
    );
    gives(
        &text,
        &[("N", "4"), ("K", "3")],
        &[("x", &[1.0, 2.0, 4.0, 8.0]), ("seg", &[2.0, 0.0, 2.0, 1.0])],
        &[2.0, 8.0, 5.0],
    );
}

#[test]
fn components_of_a_mask() {
    let text = |connectivity: u32| {
        with(
            "grid: (Gy, Gx)",
            "axis Grid = Gy x Gx\nindex p, n: Grid\naxis One = 1",
            "(x[Grid]) -> [Grid]",
            &format!(
                "mask[o: One, p] = x[p] > 0\nlabel = components(mask, connectivity: {connectivity})\ny[n] = sum(p where label[0, p] == n) x[p]\nreturn y"
            ),
        )
    };
    let x = &[1.0, 0.0, 4.0, 0.0, 2.0, 0.0, 8.0, 0.0, 0.0];
    gives(&text(8), &[("grid", "3x3")], &[("x", x)], &[15.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    gives(&text(4), &[("grid", "3x3")], &[("x", x)], &[1.0, 0.0, 4.0, 0.0, 2.0, 0.0, 8.0, 0.0, 0.0]);
}

#[test]
fn normalisers() {
    let e = |x: f64| x.exp();
    let text = body("C", "(x[C]) -> [C]", "y[c] = softmax(c)(x[c])\nreturn y");
    let total = e(1.0) + e(2.0) + e(3.0);
    gives(&text, &[("C", "3")], &[("x", &[1.0, 2.0, 3.0])], &[e(1.0) / total, e(2.0) / total, e(3.0) / total]);
    let text = body("C", "(x[C]) -> [C]", "y[c] = log_softmax(c)(x[c])\nreturn y");
    gives(&text, &[("C", "3")], &[("x", &[1.0, 2.0, 3.0])], &[1.0 - total.ln(), 2.0 - total.ln(), 3.0 - total.ln()]);
    // Within a reduction, over what takes part; a row with nothing in it is 0.
    let text =
        with("N", "index i, j: N", "(x[N]) -> [N]", "y[i] = sum(j where j < i) softmax(j)(x[j]) * x[j]\nreturn y");
    let two = (e(1.0) + 2.0 * e(2.0)) / (e(1.0) + e(2.0));
    gives(&text, &[("N", "3")], &[("x", &[1.0, 2.0, 3.0])], &[0.0, 1.0, two]);
}

#[test]
fn windows() {
    let text = |window: &str, value: &str| {
        with("N", "index i, j: N", "(x[N]) -> [N]", &format!("y[i] = sum(j in window(i, {window})) {value}\nreturn y"))
    };
    let x: &[f64] = &[1.0, 2.0, 4.0, 8.0];
    let run = |window: &str, value: &str, y: &[f64]| gives(&text(window, value), &[("N", "4")], &[("x", x)], y);
    run("3, pad: zero", "x[j]", &[3.0, 7.0, 14.0, 12.0]);
    run("3, pad: mask", "x[j]", &[3.0, 7.0, 14.0, 12.0]);
    run("3, pad: clamp", "x[j]", &[7.0, 7.0, 14.0, 14.0]);
    // Phantom positions count under `zero`, keep their places, and do not count under `mask`.
    run("3, pad: zero", "1", &[3.0, 3.0, 3.0, 3.0]);
    run("3, pad: mask", "1", &[2.0, 3.0, 3.0, 2.0]);
    run("3, pad: zero", "j", &[0.0, 3.0, 6.0, 9.0]);
    run("3, pad: zero", "(x[j] + 1)", &[6.0, 10.0, 17.0, 15.0]);
    run("3, pad: zero, dilation: 2", "x[j]", &[5.0, 10.0, 5.0, 10.0]);
    run("2, pad: zero, offset: 0", "x[j]", &[3.0, 6.0, 12.0, 8.0]);
    run("2, pad: mask, offset: -1", "x[j]", &[1.0, 3.0, 6.0, 12.0]);
    let strided = with(
        "N, M",
        "index i: M\nindex j: N",
        "(x[N]) -> [M]",
        "y[i] = sum(j in window(i, 3, pad: zero, stride: 2)) x[j]\nreturn y",
    );
    gives(&strided, &[("N", "4"), ("M", "2")], &[("x", x)], &[3.0, 14.0]);
    let grid = with(
        "grid: (Gy, Gx)",
        "axis Grid = Gy x Gx\nindex i, j: Grid",
        "(x[Grid]) -> [Grid]",
        "s[i, j in window(i, 3, 3, pad: mask)] = x[j] * (j.col - i.col)\ny[i] = sum(j in window(i, 3, 3, pad: mask)) s[i, j]\nreturn y",
    );
    gives(&grid, &[("grid", "2x3")], &[("x", X6)], &[7.0, 4.0, -7.0, 7.0, 4.0, -7.0]);
}

#[test]
fn products_sums_and_merges() {
    let grid = with(
        "grid: (Gy, Gx)",
        "axis Grid = Gy x Gx\nindex p: Grid",
        "(x[Grid]) -> [Grid]",
        "y[p] = x[(p.row, Gx - 1 - p.col)] + 100 * p.row + 10 * p.col\nreturn y",
    );
    gives(&grid, &[("grid", "2x3")], &[("x", X6)], &[3.0, 12.0, 21.0, 106.0, 115.0, 124.0]);
    let cube = with(
        "",
        "axis A = 2\naxis B = 1\naxis D = 2\naxis Cube = A x B x D\nindex p: Cube",
        "(x[Cube]) -> [Cube]",
        "y[p] = 100 * p.0 + 10 * p.1 + p.2 + x[p]\nreturn y",
    );
    gives(&cube, &[], &[("x", &[0.0; 4])], &[0.0, 1.0, 100.0, 101.0]);
    let tokens = with(
        "grid: (Gy, Gx)",
        "axis Grid = Gy x Gx\naxis Tokens = Cls | Grid | Reg\nindex p: Grid\nindex t: Tokens\nk: param[2] = zeros",
        "(x[Grid]) -> [Tokens]",
        "z[Cls] = k[0]\nz[p] = x[p] + p.row\nz[Reg] = k[1]\ny[t] = z[t] + 10 * z[Cls] + 100 * z[Reg]\nreturn y",
    );
    gives(&tokens, &[("grid", "2x1")], &[("x", &[1.0, 2.0]), ("k", &[7.0, 9.0])], &[977.0, 971.0, 973.0, 979.0]);
    let heads = with(
        "C, H",
        "require C % H == 0\naxis D = C / H",
        "(x[C]) -> [C]",
        "q[h, d] = x[(h, d)]\ny[(d, h)] = q[h, d]\nreturn y",
    );
    gives(&heads, &[("C", "6"), ("H", "2")], &[("x", X6)], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let split = body("C", "(x[2 * C]) -> [C]", "(a[c], b[c]) = x[(2, c)]\ny[c] = a[c] - b[c]\nreturn y");
    gives(&split, &[("C", "3")], &[("x", X6)], &[-3.0, -3.0, -3.0]);
}

#[test]
fn reads() {
    let text = |expr: &str| with("N", "index i: N", "(x[N]) -> [N]", &format!("y[i] = {expr}\nreturn y"));
    let run = |expr: &str, y: &[f64]| gives(&text(expr), &[("N", "4")], &[("x", &[1.0, 2.0, 4.0, 8.0])], y);
    run("x[i + 1]", &[2.0, 4.0, 8.0, 0.0]);
    run("x[i - 2] + 1", &[1.0, 1.0, 2.0, 3.0]);
    run("x[N - 1 - i]", &[8.0, 4.0, 2.0, 1.0]);
    run("x[clamp(i + 1, 0, 3)]", &[2.0, 4.0, 8.0, 8.0]);
    run("x[i div 2]", &[1.0, 1.0, 2.0, 2.0]);
    run("x[(i + 3) % 4]", &[8.0, 1.0, 2.0, 4.0]);
    run("x[0] * i", &[0.0, 1.0, 2.0, 3.0]);
    run("if abs(i - 2) < 2 and not (i == 1) then x[i] else -1", &[-1.0, -1.0, 4.0, 8.0]);
    run("x[i] ^ 2 div 3 + 7 % 4", &[3.0, 4.0, 8.0, 24.0]);
    run("-x[i] ^ 2", &[-1.0, -4.0, -16.0, -64.0]);
    run("maximum(x[i], 3) - minimum(x[i], 3) + clamp(x[i], 2, 4)", &[4.0, 3.0, 5.0, 9.0]);
    run("sign(x[i] - 2) + floor(x[i] / 3) + pow(x[i], 0.0)", &[0.0, 1.0, 3.0, 4.0]);
}

#[test]
fn whole_tensors() {
    let text = body(
        "N, C",
        "(x[N, C], s[]) -> [N, C]",
        "a = 2 * x + s\nb = if s > 0 then a else x\ny = relu(b - 6) / 2\nreturn y",
    );
    gives(&text, &[("N", "2"), ("C", "3")], &[("x", X6), ("s", &[1.0])], &[0.0, 0.0, 0.5, 1.5, 2.5, 3.5]);
}

#[test]
fn modules_functions_and_loops() {
    let text = "
fn half(x) = x / 2
fn mix(a, b) = half(a) + b * b

module Scale(C, by: float = 2.0, first = true) {
    w: param[C] = ones
    if first {
        b: param[C] = zeros
    }
    forward(x[.., C]) -> [.., C] {
        if first {
            expose inside[.., c] = by * x[.., c]
            y[.., c] = inside[.., c] * w[c] + b[c]
            return y
        } else {
            y[.., c] = mix(x[.., c], w[c])
            return y
        }
    }
}

module Block(C, n = 1) {
    for m in 0..n {
        s{m}.part = Scale(C, by: m + 1)
    }
    forward(x[.., C]) -> [.., C] {
        for m in 0..n {
            x = s{m}.part(x)
        }
        return x
    }
}

module M(C, N) {
    let twice = 2 * N
    a = Block(C, 2)
    b = Block(C, 2)
    last = Scale(C, first: false)
    forward(x[N, C]) -> ([N, C], seen[N, C], n[]) {
        z = b(a(x))
        seen = b.s1.part.inside
        n[] = twice
        return last(z), seen, n
    }
}
";
    let out = lowered(text, &[("C", "1"), ("N", "2")], &mode(false, 1));
    let names: Vec<&str> = out.params.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names[..4], ["a.s0.part.w", "a.s0.part.b", "a.s1.part.w", "a.s1.part.b"]);
    let found = results(
        &out.program,
        &[
            ("x", &[1.0, 2.0]),
            ("a.s0.part.w", &[1.0]),
            ("a.s1.part.w", &[3.0]),
            ("b.s0.part.w", &[1.0]),
            ("b.s1.part.w", &[1.0]),
            ("b.s0.part.b", &[5.0]),
            ("last.w", &[2.0]),
        ],
    );
    // a: x * 1, * 2 * 3; b: + 5, * 2; last: half + 4.
    close(&found["seen"], &[22.0, 34.0]);
    close(&found["y"], &[15.0, 21.0]);
    close(&found["n"], &[4.0]);
}

#[test]
fn lists_words_and_compile_time_choices() {
    let text = "
module M(dims: list = [2, 3], form: one_of(sum, product) = sum, deep = false, shift: float = 0.5) {
    let n = dims[1]
    let k = if form == product then 10 else 20
    require n == 3 and (deep or k >= 10)
    axis A = n
    w: param[A] = constant(shift * 2)
    forward(x[A]) -> [A] {
        if form == product {
            y[a] = k * x[a] * w[a]
        } else if deep {
            y[a] = x[a]
        } else {
            y[a] = k + x[a] + w[a]
        }
        return y
    }
}
";
    let given: Given<'_> = &[("x", &[1.0, 2.0, 3.0]), ("w", &[1.0, 1.0, 1.0])];
    gives(text, &[], given, &[22.0, 23.0, 24.0]);
    gives(text, &[("form", "product")], given, &[10.0, 20.0, 30.0]);
    gives(text, &[("deep", "true"), ("dims", "5,3")], given, &[1.0, 2.0, 3.0]);
}

#[test]
fn batches_losses_and_states() {
    let text = "
loss L(C) {
    mean: state[C] = zeros
    forward(x[C]) -> (each[C], loss[], whole[]) {
        centre[c] = mean(b: Batch) x[b, c]
        update mean[c] = 0.5 * mean[c] + 0.5 * centre[c]
        each[c] = x[c] - centre[c]
        loss[] = sum(c) x[c]
        whole[] = max(b: Batch, c) x[b, c]
        return each, loss, whole
    }
}
";
    let given: Given<'_> = &[("x", &[1.0, 2.0, 3.0, 6.0]), ("mean", &[10.0, 20.0])];
    let found = results(&lowered(text, &[("C", "2")], &mode(true, 2)).program, given);
    close(&found["each"], &[-1.0, -2.0, 1.0, 2.0]);
    close(&found["loss"], &[6.0]);
    close(&found["whole"], &[6.0]);
    close(&found["mean"], &[6.0, 12.0]);
    // Inference leaves the state alone.
    let found = results(&lowered(text, &[("C", "2")], &mode(false, 2)).program, given);
    assert!(!found.contains_key("mean"));
}

#[test]
fn states_inside_repeated_blocks() {
    let text = "
module Count(C) {
    n: state[1] = zeros
    w: param[C] = ones
    inner = Add(C)
    forward(x[C]) -> [C] {
        update n[i: 1] = n[i] + 1
        return inner(x)
    }
}
module Add(C) {
    forward(x[C]) -> [C] {
        y[c] = x[c] + 1
        return y
    }
}
module M(C) {
    a = Count(C)
    b = Count(C)
    forward(x[C]) -> [C] {
        return b(a(x))
    }
}
";
    let out = lowered(text, &[("C", "1")], &mode(true, 1));
    let found = results(&out.program, &[("x", &[1.0]), ("a.n", &[3.0]), ("b.n", &[5.0])]);
    close(&found["y"], &[3.0]);
    close(&found["a.n"], &[4.0]);
    close(&found["b.n"], &[6.0]);
}

#[test]
fn splits_count_anywhere() {
    for (counting, y) in
        [("2, h, d", [1.0, 2.0, 3.0, 4.0]), ("h, 2, d", [1.0, 2.0, 5.0, 6.0]), ("h, d, 2", [1.0, 3.0, 5.0, 7.0])]
    {
        let text = format!(
            "module M(H, D, C) {{\n forward(x[C]) -> [H, D] {{\n (a[h, d], b[h, d]) = x[({counting})]\n \
             return a\n}}\n}}\n"
        );
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        gives(&text, &[("H", "2"), ("D", "2"), ("C", "8")], &[("x", &x)], &y);
    }
}

#[test]
fn random_numbers_are_keyed() {
    let text = "import Dropout, DropPath from prelude\nmodule M(N, C) {\n a = Dropout(N, C, 0.5)\n b = Dropout(N, C, 0.5)\n forward(x[N, C]) -> (y[N, C], z[N, C]) {\n return a(x), b(x)\n}\n}\n";
    let program = lowered(text, &[("N", "4"), ("C", "8")], &mode(true, 2)).program;
    let x = vec![1.0; 64];
    let run = |seed: f64, step: f64| results(&program, &[("x", &x), ("key", &[seed, step])]);
    let first = run(1.0, 0.0);
    assert_eq!(first, run(1.0, 0.0));
    assert_ne!(first["y"], run(2.0, 0.0)["y"]);
    assert_ne!(first["y"], run(1.0, 1.0)["y"]);
    assert_ne!(first["y"], first["z"]);
    assert_ne!(first["y"][..32], first["y"][32..], "each image has its own");
    assert!(first["y"].iter().all(|v| *v == 0.0 || *v == 2.0));
    let kept = first["y"].iter().filter(|v| **v != 0.0).count();
    assert!((16..48).contains(&kept));
    // Without training, or at rate 0, nothing happens and nothing random is asked for.
    let still = lowered(text, &[("N", "4"), ("C", "8")], &mode(false, 2)).program;
    close(&results(&still, &[("x", &x)])["y"], &x);
    let path = "import DropPath from prelude\nmodule M(N) {\n d = DropPath(0.5)\n forward(x[N]) -> [N] {\n return d(x)\n}\n}\n";
    let program = lowered(path, &[("N", "4")], &mode(true, 16)).program;
    let found = &results(&program, &[("x", &[1.0; 64]), ("key", &[3.0, 0.0])])["y"];
    assert!(found.chunks(4).all(|image| image.iter().all(|v| *v == image[0])), "{found:?}");
    assert!(found.contains(&0.0) && found.contains(&2.0));
}

#[test]
fn probabilities_are_0_where_nothing_may_be_random() {
    // Fixed, computed, handed on through a list and a submodule, of a module of one's own: whatever the names are.
    let text = "
import DropPath, Dropout from prelude
module Noise(C, strength: probability) {
    forward(x[C]) -> [C] {
        y[c] = x[c] + (if uniform(c) < strength then 1.0 else 0.0)
        return y
    }
}
module Inner(C, rates: list = [0.1, 0.2], backdrop = 3) {
    a = DropPath(rates[0])
    b = Dropout(1, C, rates[1] / 2)
    c = Noise(C, 0.9)
    forward(x[C]) -> [C] {
        z[n: 1, c] = c(a(x))[c] + backdrop
        y[c] = b(z)[0, c]
        return y
    }
}
module M(C, p: float = 0.5) {
    inner = Inner(C, [p, 0.4])
    d = DropPath(p)
    forward(x[C]) -> [C] {
        return d(inner(x))
    }
}
";
    let mode = |random| LowerOptions { training: true, random, batch: 2, exposed: Vec::new() };
    let random = |program: &Program| program.to_string().matches("random").count();
    assert!(random(&lowered(text, &[("C", "2")], &mode(true)).program) >= 4);
    for settings in [vec![("C", "2")], vec![("C", "2"), ("p", "0.7")]] {
        let still = lowered(text, &settings, &mode(false)).program;
        assert!(random(&still) <= 1, "only the noise still asks, in vain: {still}");
        close(&results(&still, &[("x", &[1.0, 2.0, 3.0, 4.0])])["y"], &[4.0, 5.0, 6.0, 7.0]);
    }
}

#[test]
fn exposed_values_are_results_on_demand() {
    let text = "
module Inner(C) {
    lin = Add(C)
    forward(x[C]) -> [C] {
        expose double[c] = 2 * x[c]
        return lin(double)
    }
}
module Add(C) {
    forward(x[C]) -> [C] {
        y[c] = x[c] + 1
        return y
    }
}
model M(C) {
    one = Inner(C)
    two = Inner(C)
    forward(x[C]) -> logits[C] {
        return two(one(x))
    }
}
";
    let mut options = mode(false, 1);
    options.exposed = vec!["two.double".to_owned()];
    let out = lowered(text, &[("C", "1")], &options);
    assert_eq!(out.exposed.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["one.double", "two.double"]);
    let found = results(&out.program, &[("x", &[3.0])]);
    close(&found["two.double"], &[14.0]);
    close(&found["logits"], &[15.0]);
    assert!(!found.contains_key("one.double"));
}

#[test]
fn blocks_are_lowered_once() {
    let text = "import Linear, LayerNorm, Mlp from prelude
module Block(C) {
    norm = LayerNorm(C)
    mlp = Mlp(C, 2 * C)
    forward(x[.., C]) -> [.., C] {
        return x + mlp(norm(x))
    }
}
model M(C, N, depth) {
    for m in 0..depth {
        blocks.{m} = Block(C)
    }
    forward(x[N, C]) -> logits[N, C] {
        for m in 0..depth {
            x = blocks.{m}(x)
        }
        return x
    }
}
";
    let count = |depth: &str| {
        lowered(text, &[("C", "4"), ("N", "3"), ("depth", depth)], &mode(true, 2)).program.functions.len()
    };
    assert_eq!(count("2"), count("24"));
    assert_eq!(lowered(text, &[("C", "4"), ("N", "3"), ("depth", "24")], &mode(true, 2)).params.len(), 24 * 6);
}

#[test]
fn scalar_optimizers() {
    let text =
        "optimizer Sgd(N) {\n forward(p[N], g[N], lr[]) -> p2[N] {\n p2[n] = p[n] - lr * g[n]\n return p2\n}\n}\n";
    let found = results(
        &lowered(text, &[("N", "2")], &mode(true, 1)).program,
        &[("p", &[1.0, 2.0]), ("g", &[10.0, 20.0]), ("lr", &[0.1])],
    );
    close(&found["p2"], &[0.0, 0.0]);
}
