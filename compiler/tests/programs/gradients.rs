//! Rewriting before and after differentiation gives the gradients of the program as written.

use crate::algorithms::{Grid, grid, perceptron_of_offsets, vicinity};
use crate::build::*;
use crate::generate::{cases, program};
use foveate_compiler::grad::{Seeds, calls, differentiate, differentiate_saving};
use foveate_compiler::ir::*;
use foveate_compiler::rewrite::{Report, pipeline};
use proptest::prelude::*;

/// Gradients of all results with respect to all arguments, as written and by the rewritten program.
fn check(p: &Program) -> (Program, Report) {
    let names = |role: &ArgRole| match role {
        ArgRole::Param(n) | ArgRole::Input(n) => Some(n.clone()),
        _ => None,
    };
    let wrt: Vec<String> = p.entry().args.iter().filter_map(|a| names(&a.role)).collect();
    let results = p.entry().results.iter().filter_map(|r| match &r.role {
        ResultRole::Output(n) => Some(n.clone()),
        _ => None,
    });
    let seeds = Seeds::Cotangents(results.collect());
    let written = differentiate(p, &seeds, &wrt).expect("differentiable");
    let (before, first) = rewritten(p, pipeline::BEFORE);
    let gradient = differentiate(&before, &seeds, &wrt).expect("differentiable");
    let (after, second) = rewritten(&gradient, pipeline::AFTER);
    for seed in 0..2 {
        let (a, b) = (crate::value::run(&written, seed), crate::value::run(&after, seed));
        for ((name, x), (other, y)) in a.iter().zip(&b) {
            assert_eq!(name, other);
            let scale = x.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            for (x, y) in x.iter().zip(y) {
                assert!((x - y).abs() <= 1e-9 * scale, "{name}: {x} became {y}\n{first:#?}\n{second:#?}\n{after}");
            }
        }
    }
    (after, second)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), failure_persistence: None, ..ProptestConfig::default() })]
    /// What calls do not save is computed again: the gradients are the same numbers.
    #[test]
    fn of_calls_that_save_nothing(seed in proptest::collection::vec(any::<u8>(), 40..400)) {
        let p = program(&seed);
        prop_assume!(calls(&p) > 0 && crate::value::is_tame(&p, &[3]));
        let (seeds, wrt) = crate::value::everything(&p);
        let saving = differentiate(&p, &seeds, &wrt).expect("differentiable");
        for recomputed in 1..=calls(&p) {
            let again = differentiate_saving(&p, &seeds, &wrt, recomputed).expect("differentiable");
            prop_assert_eq!(crate::value::run(&saving, 3), crate::value::run(&again, 3));
        }
    }
}

/// The largest definition, in elements.
fn largest(p: &Program) -> (usize, String) {
    let f = p.entry();
    let all = f.body.iter().flat_map(|s| s.defines());
    all.map(|t| (p.shape(f, t).iter().product(), f.tensor(t).name.clone())).max().expect("something is defined")
}

#[test]
fn of_a_table() {
    let b = perceptron_of_offsets(3, 4);
    check(&b.program);
}

/// The linear form's gradient is linear.
#[test]
fn of_a_linear_form() {
    for product in [false, true] {
        let b = vicinity(5, 4, product);
        let (after, _) = check(&b.program);
        let (size, name) = largest(&after);
        assert!(size < 2 * 20 * 20, "{name} is quadratic: {after}");
    }
}

/// The most points of a reduction together with the elements it is done for.
fn most_work(p: &Program) -> usize {
    let size = |v: &VarId| p.size(p.entry().var(*v).axis);
    let work = |s: &Stmt| match s {
        Stmt::Define(d) => {
            let of = |c: &Clause| match &*c.body.node {
                Node::Reduce(r) => c.vars.iter().chain(&r.vars).map(size).product::<usize>(),
                _ => c.vars.iter().map(size).product::<usize>(),
            };
            d.clauses.iter().map(of).sum::<usize>()
        }
        _ => 0,
    };
    p.entry().body.iter().map(work).max().expect("something is defined")
}

fn sizes(b: &Build) -> VarSizes<'_> {
    VarSizes { vars: &b.program.entry().vars, axes: &b.program.axes }
}

/// The gradient of a cyclic shift is the shift back: nothing is tried.
#[test]
fn of_cyclic_shifts() {
    for (n, shift) in [(1, 3), (2, 1), (7, 3), (7, -2), (13, 12), (13, 30)] {
        // Whole, mirrored, and of fewer places than the circle has.
        for (sign, places) in [(1, n), (-1, n), (1, (n + 1) / 2), (-1, (n + 2) / 3)] {
            let mut b = Build::new();
            let (v, w) = (b.input("v", &[n as usize]), b.param("w", &[places as usize]));
            let i = b.var("i", places as usize);
            let at = Index::from(i).scale(sign).plus(shift).modulo(n, &sizes(&b));
            let y = b.define("y", &[i], Expr::mul(exp(read_at(v, vec![at])), read(w, &[i])));
            b.result(y);
            let (after, _) = check(&b.program);
            assert!(most_work(&after) <= n as usize, "{n}, {shift}, {sign}, {places}: {after}");
        }
    }
    // Windows of a shifted map, and back: digits of a shifted number.
    for (many, window, shift) in [(2, 4, 2), (3, 3, 1), (3, 2, 4), (1, 5, 2), (4, 1, 3)] {
        let n = many * window;
        let mut b = Build::new();
        let v = b.input("v", &[n as usize, 2]);
        let (m, i, g, c) =
            (b.var("m", many as usize), b.var("i", window as usize), b.var("g", n as usize), b.var("c", 2));
        let flat = Index::from(m).scale(window).add(&i.into()).plus(shift).modulo(n, &sizes(&b));
        let s = b.define("s", &[m, i, c], exp(read_at(v, vec![flat, c.into()])));
        let back = Index::from(g).plus(-shift).modulo(n, &sizes(&b));
        let at = vec![back.div(window, &sizes(&b)), back.modulo(window, &sizes(&b)), c.into()];
        let y = b.define("y", &[g, c], exp(read_at(s, at)));
        b.result(y);
        let (after, _) = check(&b.program);
        assert!(most_work(&after) <= 2 * n as usize, "{many} x {window}, {shift}: {after}");
    }
}

/// The gradient of a window is a window.
#[test]
fn of_windows() {
    let mut b = Build::new();
    let v = b.input("v", &[13]);
    let (i, j) = (b.var("i", 13), b.var("j", 13));
    let band = Pred::And(vec![Pred::NonNeg(minus(j, i).plus(1)), Pred::NonNeg(minus(i, j).plus(2))]);
    let y = b.define("y", &[i], Expr::sum(vec![j], band, exp(Expr::mul(read(v, &[j]), value(minus(j, i))))));
    b.result(y);
    check(&b.program);
    // A clamped window: which windows hold an element is found by trying.
    let mut b = Build::new();
    let (v, w) = (b.input("v", &[13]), b.param("w", &[3]));
    let (i, o) = (b.var("i", 13), b.var("o", 3));
    let start = Index::atom(Atom::Clamp(Box::new(Index::from(i).plus(-1)), 0, 10));
    let body = Expr::mul(exp(read_at(v, vec![start.add(&o.into())])), read(w, &[o]));
    let y = b.define("y", &[i], sum(&[o], body));
    b.result(y);
    let (_, report) = check(&b.program);
    assert!(
        report.entries.iter().any(|e| e.rewrite == "window" && e.fired && e.reason.contains("instead")),
        "{report:#?}"
    );
}

#[test]
fn of_softmax_attention_with_a_projection() {
    let Grid { mut b, h, i, j, d, e, q, k, v } = grid(2, 3, 3, 3);
    let pairs = [h, i[0], i[1], j[0], j[1]];
    let rows = [h, i[0], i[1]];
    let score = Expr::mul(read(q, &[h, i[0], i[1], d]), read(k, &[h, j[0], j[1], d]));
    let s = b.define("s", &pairs, sum(&[d], score));
    let m = b.define("m", &rows, Expr::stop(max(&j, read(s, &pairs))));
    let x = b.define("x", &pairs, exp(Expr::sub(read(s, &pairs), read(m, &rows))));
    let l = b.define("l", &rows, sum(&j, read(x, &pairs)));
    let p = b.define("p", &pairs, Expr::div(read(x, &pairs), read(l, &rows)));
    let y = sum(&j, Expr::mul(read(p, &pairs), read(v, &[h, j[0], j[1], e])));
    let merged = Index::from(h).scale(3).add(&e.into());
    let clause = Clause { vars: vec![h, i[0], i[1], e], at: vec![i[0].into(), i[1].into(), merged], body: y };
    let y = b.define_clauses("y", &[3, 3, 6], vec![clause]);
    let w = b.param("w", &[4, 6]);
    let (c, o) = (b.var("c", 6), b.var("o", 4));
    let z = sum(&[c], Expr::mul(read(y, &[i[0], i[1], c]), read(w, &[o, c])));
    let z = b.define("z", &[i[0], i[1], o], z);
    b.result(z);
    check(&b.program);
}

/// The gradient of one row of the scores touches one row of the queries.
#[test]
fn of_a_row() {
    let mut b = Build::new();
    let (q, k) = (b.input("q", &[7, 3]), b.input("k", &[7, 3]));
    let (i, j, d) = (b.var("i", 7), b.var("j", 7), b.var("d", 3));
    let s = b.define("s", &[i, j], sum(&[d], Expr::mul(read(q, &[i, d]), read(k, &[j, d]))));
    let p = b.var("p", 6);
    let y = b.define("y", &[p], exp(read_at(s, vec![0.into(), Index::from(p).plus(1)])));
    b.result(y);
    let (after, _) = check(&b.program);
    let reduced = |s: &Stmt| match s {
        Stmt::Define(d) => {
            let c = &d.clauses[0];
            let n: usize = c.vars.iter().map(|&v| after.size(after.entry().var(v).axis)).product();
            if matches!(&*c.body.node, Node::Reduce(_)) { n } else { 0 }
        }
        _ => 0,
    };
    // Sums for the row's scores, for its queries' gradient and for the keys'.
    assert!(after.entry().body.iter().all(|s| reduced(s) <= 7), "{after}");
}
