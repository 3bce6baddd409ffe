//! Values of a short index that are summed first.

use crate::build::*;
use crate::kernels::kernels_agree;
use foveate_compiler::ir::*;
use foveate_compiler::rewrite::{pipeline, regroup};

/// How the features of a place come about.
#[derive(Clone, Copy, PartialEq)]
enum Features {
    /// Two of its row, two of its column.
    Either,
    /// Products of one of its row and one of its column.
    Both,
    /// Any four.
    Any,
}

/// `y[i, j, m] = sum(t, e) f[i, j, t] q[i, j, e] s[t, e, m]`, with definitions for what is of rows and columns that have all indices.
fn weighed(features: Features, [rows, columns, inner, outer]: [usize; 4]) -> Program {
    let mut b = Build::new();
    let (q, s) = (b.input("q", &[rows, columns, inner]), b.input("s", &[4, inner, outer]));
    let (x, y, any) = (b.input("x", &[rows]), b.input("y", &[columns]), b.input("any", &[rows, columns, 4]));
    let mut of = |name: &str, t: TensorId, row: bool, double: bool| {
        let (i, j) = (b.var("i", rows), b.var("j", columns));
        let place = read(t, &[if row { i } else { j }]);
        let place = if double { Expr::mul(num(2.0), place) } else { place };
        b.define(name, &[i, j], cos(place))
    };
    let parts =
        [of("a0", x, true, false), of("a1", x, true, true), of("b0", y, false, false), of("b1", y, false, true)];
    let (i, j, t) = (b.var("i", rows), b.var("j", columns), b.var("t", 4));
    let is = |n: i64| Pred::Zero(Index::from(t).plus(-n));
    let early = Pred::NonNeg(Index::from(t).scale(-1).plus(1));
    let here = |n: usize| read(parts[n], &[i, j]);
    let feature = match features {
        Features::Either => {
            let (rows, columns) = (Expr::select(is(0), here(0), here(1)), Expr::select(is(2), here(2), here(3)));
            Expr::select(early, rows, columns)
        }
        Features::Both => {
            let even = Pred::Zero(Index::atom(Atom::Mod(Box::new(t.into()), 2)));
            Expr::mul(Expr::select(early, here(0), here(1)), Expr::select(even, here(2), here(3)))
        }
        Features::Any => read(any, &[i, j, t]),
    };
    let f = b.define("f", &[i, j, t], feature);
    let (i, j, t) = (b.var("i", rows), b.var("j", columns), b.var("t", 4));
    let (e, m) = (b.var("e", inner), b.var("m", outer));
    let body = Expr::mul(Expr::mul(read(f, &[i, j, t]), read(q, &[i, j, e])), read(s, &[t, e, m]));
    let y = b.define("z", &[i, j, m], sum(&[t, e], body));
    b.result(y);
    b.program
}

#[test]
fn values_with_fewer_indices_are_summed_first() {
    for (features, sizes, what) in [
        (Features::Either, [3, 67, 9, 5], "4 values of t are 3 where j is left out"),
        (Features::Both, [2, 41, 5, 7], "2 values of t.outer are 1 where j is left out"),
        (Features::Both, [40, 8, 8, 16], "2 values of t.inner are 1 where i is left out"),
    ] {
        let program = weighed(features, sizes);
        let (after, report) = rewritten(&program, pipeline::AFTER);
        assert!(report.fired(regroup::NAME, "z"), "{report:#?}");
        assert!(report.entries.iter().any(|e| e.fired && e.reason.starts_with(what)), "{report:#?}");
        kernels_agree(&after, 16);
        kernels_agree(&after, 4);
    }
}

#[test]
fn but_not_where_that_is_no_less() {
    // Too few columns for what a row's brackets cost; nothing in common; no place to leave out.
    for (features, sizes) in
        [(Features::Either, [3, 9, 9, 5]), (Features::Any, [3, 67, 9, 5]), (Features::Either, [3, 7, 64, 64])]
    {
        let (_, report) = rewritten(&weighed(features, sizes), pipeline::AFTER);
        assert!(!report.fired(regroup::NAME, "z"), "{report:#?}");
    }
}
