//! One form: folding, copies, duplicates, dead code, split variables.

use crate::build::*;
use foveate_compiler::ir::*;
use foveate_compiler::rewrite::{dead, duplicates, fold, forward, split};

fn count(p: &Program) -> usize {
    p.functions.iter().map(|f| f.body.len()).sum()
}

#[test]
fn copies_are_read_through_with_their_guards() {
    let mut b = Build::new();
    let x = b.input("x", &[7]);
    let (i, o) = (b.var("i", 7), b.var("o", 3));
    let copy = b.define("copy", &[i], read(x, &[i]));
    let turned = b.define("turned", &[i], read_at(x, vec![Index::from(i).scale(-1).plus(6)]));
    let place = Index::from(i).add(&o.into()).plus(-1);
    let y = b.define(
        "y",
        &[i, o],
        Expr::add(
            Expr::read_or_zero(Elem::F64, copy, vec![place.clone()]),
            Expr::read_or_zero(Elem::F64, turned, vec![place]),
        ),
    );
    b.result(y);
    let mut passes = alone("forward", forward::run);
    passes.extend(alone("dead", dead::run));
    let (after, _) = rewritten(&b.program, &passes);
    assert_eq!(count(&after), 1);
}

#[test]
fn a_piece_of_a_sum_axis_is_a_view() {
    let mut b = Build::new();
    let (cls, x) = (b.param("cls", &[2]), b.input("x", &[6, 2]));
    let (p, c, p2, c2) = (b.var("p", 6), b.var("c", 2), b.var("p", 6), b.var("c", 2));
    let clauses = vec![
        Clause { vars: vec![c], at: vec![0.into(), c.into()], body: read(cls, &[c]) },
        Clause { vars: vec![p, c2], at: vec![Index::from(p).plus(1), c2.into()], body: read(x, &[p, c2]) },
    ];
    let tokens = b.define_clauses("tokens", &[7, 2], clauses);
    let first = b.define("first", &[c], read_at(tokens, vec![0.into(), c.into()]));
    let rest = b.define("rest", &[p2, c], exp(read_at(tokens, vec![Index::from(p2).plus(1), c.into()])));
    b.result(first);
    b.result(rest);
    let mut passes = alone("forward", forward::run);
    passes.extend(alone("dead", dead::run));
    let (after, _) = rewritten(&b.program, &passes);
    assert_eq!(count(&after), 2);
}

#[test]
fn definitions_equal_up_to_names_become_one() {
    let mut b = Build::new();
    let x = b.input("x", &[5, 3]);
    let mut both = Vec::new();
    for n in 0..2 {
        let (i, c) = (b.var(&format!("i{n}"), 5), b.var(&format!("c{n}"), 3));
        both.push(b.define(&format!("s{n}"), &[i], sum(&[c], exp(read(x, &[i, c])))));
    }
    let i = b.var("i", 5);
    let y = b.define("y", &[i], Expr::mul(read(both[0], &[i]), read(both[1], &[i])));
    b.result(y);
    let mut passes = alone("duplicates", duplicates::run);
    passes.extend(alone("dead", dead::run));
    let (after, report) = rewritten(&b.program, &passes);
    assert_eq!(count(&after), 2, "{report:#?}");
    // A different size is a different definition.
    let mut b = Build::new();
    let x = b.input("x", &[5, 3]);
    for n in [2, 3] {
        let (i, c) = (b.var("i", 5), b.var("c", n));
        let t = b.define(&format!("s{n}"), &[i], sum(&[c], read(x, &[i, c])));
        b.result(t);
    }
    let (_, report) = rewritten(&b.program, &alone("duplicates", duplicates::run));
    assert!(report.entries.is_empty(), "{report:#?}");
}

#[test]
fn divided_variables_split() {
    let mut b = Build::new();
    let (x, w) = (b.input("x", &[4, 6]), b.param("w", &[24, 5]));
    let (i, j, c, o) = (b.var("i", 4), b.var("j", 6), b.var("c", 24), b.var("o", 5));
    let merged = Index::from(i).scale(6).add(&j.into());
    let both = vec![Clause { vars: vec![i, j], at: vec![merged], body: exp(read(x, &[i, j])) }];
    let e = b.define_clauses("e", &[24], both);
    // Reading it back by a merged variable divides.
    let d = |k: i64| Index::atom(Atom::Div(Box::new(c.into()), k));
    let m = |k: i64| Index::atom(Atom::Mod(Box::new(c.into()), k));
    let body = Expr::mul(Expr::mul(read_at(x, vec![d(6), m(6)]), read(w, &[c, o])), read(e, &[c]));
    let y = b.define("y", &[o], sum(&[c], body));
    b.result(y);
    let z = b.define("z", &[c], relu(read_at(x, vec![d(6), m(6)])));
    b.result(z);
    let (after, report) = rewritten(&b.program, &alone("split", split::run));
    assert!(report.fired("split variables", "y") && report.fired("split variables", "z"), "{report:#?}");
    let f = after.entry();
    for s in &f.body {
        let Stmt::Define(d) = s else { continue };
        for c in &d.clauses {
            c.body.visit_reads(&mut |_, at| {
                let whole = at.iter().all(|i| i.terms.iter().all(|(a, _)| matches!(a, Atom::Var(_))));
                assert!(whole, "a division is left");
            });
        }
    }
}

/// Heads merged by the author for a projection: stored by head, and the projection sums over heads and channels.
#[test]
fn merged_dimensions_split() {
    let mut b = Build::new();
    let (x, w) = (b.input("x", &[5, 2, 3]), b.param("w", &[4, 6]));
    let (i, h, d, c, o) = (b.var("i", 5), b.var("h", 2), b.var("d", 3), b.var("c", 6), b.var("o", 4));
    let merged = Index::from(h).scale(3).add(&d.into());
    let clause = Clause { vars: vec![h, i, d], at: vec![i.into(), merged], body: exp(read(x, &[i, h, d])) };
    let y = b.define_clauses("y", &[5, 6], vec![clause]);
    let z = b.define("z", &[i, o], sum(&[c], Expr::mul(read(y, &[i, c]), read(w, &[o, c]))));
    let shifted = Expr::read_or_zero(Elem::F64, y, vec![i.into(), Index::from(c).plus(-2)]);
    let s = b.define("s", &[i, c], shifted);
    b.result(z);
    b.result(s);
    let (after, report) = rewritten(&b.program, &alone("split", split::run));
    assert!(report.fired("split dimensions", "y") && report.fired("split variables", "z"), "{report:#?}");
    assert_eq!(shapes_of(&after, "y"), vec![vec![5, 2, 3]]);
}

#[test]
fn nested_divisions_split_twice() {
    let mut b = Build::new();
    let x = b.input("x", &[3, 2, 4]);
    let c = b.var("c", 24);
    let at = vec![
        Index::atom(Atom::Div(Box::new(c.into()), 8)),
        Index::atom(Atom::Mod(Box::new(Index::atom(Atom::Div(Box::new(c.into()), 4))), 2)),
        Index::atom(Atom::Mod(Box::new(c.into()), 4)),
    ];
    let y = b.define("y", &[c], read_at(x, at));
    b.result(y);
    let (after, report) = rewritten(&b.program, &alone("split", split::run));
    assert_eq!(report.entries.len(), 2, "{report:#?}");
    let Stmt::Define(d) = &after.entry().body[0] else { panic!("a definition") };
    assert_eq!(d.clauses[0].vars.len(), 3);
}

#[test]
fn ranges_prove_guards() {
    let mut b = Build::new();
    let x = b.input("x", &[7]);
    let (i, j) = (b.var("i", 5), b.var("j", 5));
    let inside = Expr::read_or_zero(Elem::F64, x, vec![Index::from(i).plus(1)]);
    let guard = Pred::And(vec![
        Pred::NonNeg(minus(i, j)),
        Pred::NonNeg(minus(i, j).plus(2)),           // follows from the first
        Pred::NonNeg(Index::from(4).sub(&i.into())), // the range
    ]);
    let y = b.define("y", &[i], Expr::sum(vec![j], guard, inside));
    b.result(y);
    let (after, report) = rewritten(&b.program, &alone("fold", fold::run));
    assert!(report.fired("prune guards", "y"), "{report:#?}");
    let Stmt::Define(d) = &after.entry().body[0] else { panic!("a definition") };
    let Node::Reduce(r) = &*d.clauses[0].body.node else { panic!("a sum") };
    assert_eq!(r.guard, Pred::NonNeg(minus(i, j)));
    let mut zero = false;
    walk(&r.body, &mut |e| zero |= matches!(&*e.node, Node::Read { bounds: Bounds::Zero, .. }));
    assert!(!zero);
}

fn walk(e: &Expr, f: &mut dyn FnMut(&Expr)) {
    f(e);
    e.for_each_child(&mut |c| walk(c, f));
}

#[test]
fn conditions_move_into_the_domain() {
    let mut b = Build::new();
    let x = b.input("x", &[6]);
    let (i, j) = (b.var("i", 6), b.var("j", 6));
    let e = Expr::new(Elem::Bool, Node::Binary(BinaryOp::Le, value(j.into()), value(i.into())));
    let body = Expr::mul(num(2.0), Expr::select(Pred::Value(e), read(x, &[j]), num(0.0)));
    let y = b.define("y", &[i], sum(&[j], body));
    let n = b.var("n", 3);
    let z = b.define("z", &[i], sum(&[n], read(x, &[i])));
    b.result(y);
    b.result(z);
    let (after, _) = rewritten(&b.program, &alone("fold", fold::run));
    let Stmt::Define(d) = &after.entry().body[0] else { panic!("a definition") };
    let Node::Reduce(r) = &*d.clauses[0].body.node else { panic!("a sum") };
    assert_eq!(r.guard, Pred::NonNeg(minus(i, j)));
    let Stmt::Define(d) = &after.entry().body[1] else { panic!("a definition") };
    assert!(matches!(&*d.clauses[0].body.node, Node::Binary(BinaryOp::Mul, ..)), "the sum of equal terms is a product");
}

#[test]
fn what_a_definition_has_is_read_from_it() {
    let mut b = Build::new();
    let (x, y) = (b.input("x", &[5, 3]), b.input("y", &[5]));
    let (i, c, k, o) = (b.var("i", 5), b.var("c", 3), b.var("k", 5), b.var("o", 3));
    let term = |i: VarId, c: VarId| exp(Expr::sub(read(x, &[i, c]), read(y, &[i])));
    let e = b.define("e", &[c, i], term(i, c));
    let z = b.define("z", &[k], sum(&[o], Expr::mul(term(k, o), read(y, &[k]))));
    b.result(e);
    b.result(z);
    let (after, report) = rewritten(&b.program, &alone("duplicates", duplicates::run));
    assert!(report.fired("common subexpression", "z"), "{report:#?}");
    let mut found = false;
    after.entry().body[1].reads().iter().for_each(|t| found |= *t == e);
    assert!(found);
}
