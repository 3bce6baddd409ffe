//! Definitions that belong together.

use super::points::{expr, label, pred, read_any};
use super::{Draw, Known, Scope, World, plain};
use crate::build::*;
use foveate_compiler::ir::*;

/// Which points of a row take part: never none.
fn row_guard(d: &mut Draw, outer: &Scope, row: &[(VarId, usize)]) -> Pred {
    let (r, n) = row[0];
    let same = outer.vars.iter().find(|(_, m)| *m == n);
    match (d.below(5), same, outer.vars.first()) {
        (0, Some((a, _)), _) => Pred::And(vec![Pred::NonNeg(minus(r, *a).plus(1)), Pred::NonNeg(minus(*a, r).plus(1))]),
        (1, Some((a, _)), _) => Pred::NonNeg(minus(*a, r)),
        (2, _, Some((a, _))) => Pred::Or(vec![Pred::NonNeg(minus(*a, r)), Pred::Zero(r.into())]),
        _ => Pred::True,
    }
}

/// A softmax over rows and a weighted sum: maximum, exponential of the difference, sum, quotient, sum.
pub fn softmax(d: &mut Draw, w: &mut World, name: &str) {
    let outer = w.scope(d, 2);
    let count = 1 + d.below(2);
    let row = w.vars(d, "r", count);
    let pairs = outer.with(&row);
    let inner: Vec<VarId> = row.iter().map(|(v, _)| *v).collect();
    let guard = row_guard(d, &outer, &row);
    let score = match d.below(3) {
        0 => Expr::mul(num(2.0), Expr::unary(UnaryOp::Tanh, expr(d, w, &pairs, 2))),
        // A sum of products that is bounded: of what has rows, and of what has columns.
        kind => {
            let s = w.vars(d, "s", 1);
            let columns = Scope { batch: outer.batch, vars: row.clone() }.with(&s);
            let q = read_any(d, w, &outer.with(&s));
            let k = read_any(d, w, &columns);
            let product = Expr::mul(q, if kind == 1 { k } else { Expr::unary(UnaryOp::Cos, k) });
            sum(&[s[0].0], Expr::unary(UnaryOp::Tanh, product))
        }
    };
    let s = w.define(&format!("{name}.score"), &pairs, score);
    let (all, rows) = (pairs.all(), outer.all());
    let m = Expr::reduce(Monoid::Max, inner.clone(), guard.clone(), read(s, &all));
    let m = w.define(&format!("{name}.max"), &outer, m);
    // The result does not depend on what is subtracted: it may go without gradient.
    let stopped = d.below(2) == 0;
    let shift = if stopped { Expr::stop(read(m, &rows)) } else { read(m, &rows) };
    let difference = Expr::sub(read(s, &all), shift);
    let e = w.b.define(&format!("{name}.exp"), &all, exp(difference));
    let total = w.b.define(&format!("{name}.sum"), &rows, Expr::sum(inner.clone(), guard.clone(), read(e, &all)));
    if d.below(4) == 0 {
        let log = Expr::add(Expr::unary(UnaryOp::Log, read(total, &rows)), read(m, &rows));
        if !stopped {
            w.define(&format!("{name}.log"), &outer, log);
        }
    }
    let p = w.b.define(&format!("{name}.p"), &all, Expr::div(read(e, &all), read(total, &rows)));
    if d.below(4) == 0 && guard == Pred::True {
        w.floats.push(Known { id: p, shape: pairs.shape(), batched: pairs.batch.is_some() });
    }
    let count = d.below(2);
    let columns = w.vars(d, "c", count);
    let weighed = outer.with(&columns).with(&row);
    let body = Expr::mul(read(p, &all), read_any(d, w, &weighed));
    w.define(name, &outer.with(&columns), Expr::sum(inner, guard, body));
}

/// A greatest or smallest value of a row together with its place.
pub fn extremes(d: &mut Draw, w: &mut World, name: &str) {
    let outer = w.scope(d, 2);
    let count = 1 + d.below(2);
    let row = w.vars(d, "r", count);
    let guard = row_guard(d, &outer, &row);
    let inner: Vec<VarId> = row.iter().map(|(v, _)| *v).collect();
    let body = expr(d, w, &outer.with(&row), 2);
    let (value, place) = d.of(&[(Monoid::Max, Monoid::ArgMax), (Monoid::Min, Monoid::ArgMin)]);
    w.define(name, &outer, Expr::reduce(value, inner.clone(), guard.clone(), body.clone()));
    w.define(&format!("{name}.place"), &outer, Expr::reduce(place, inner, guard, body));
}

/// A definition by two clauses, the pieces of a sum axis.
pub fn pieces(d: &mut Draw, w: &mut World, name: &str) {
    let outer = w.scope(d, 1);
    let pieces = w.vars(d, "p", 2);
    let sizes: Vec<usize> = pieces.iter().map(|(_, n)| *n).collect();
    let mut clauses = Vec::new();
    for (&piece, start) in pieces.iter().zip([0, sizes[0]]) {
        // A definition has variables of its own in each clause.
        let own = |w: &mut World, v: VarId| {
            let var = w.b.function().var(v).clone();
            w.b.function().new_var(var.name, var.axis)
        };
        let batch = outer.batch.map(|v| own(w, v));
        let vars = outer.vars.iter().map(|&(v, n)| (own(w, v), n)).collect::<Vec<_>>();
        let scope = Scope { batch, vars }.with(&[piece]);
        let body = if d.below(2) == 0 {
            let r = w.vars(d, "r", 1);
            sum(&[r[0].0], expr(d, w, &scope.with(&r), 2))
        } else {
            expr(d, w, &scope, 2)
        };
        let mut place = at(&scope.all());
        let last = place.len() - 1;
        place[last] = Index::from(piece.0).plus(start as i64);
        clauses.push(Clause { vars: scope.all(), at: place, body });
    }
    let mut shape = outer.shape();
    shape.push(sizes[0] + sizes[1]);
    let batched = outer.batch.is_some();
    let id = w.tensor(name, Elem::F64, batched, &shape);
    let axis = AxisId(w.b.program.axes.len() as u32);
    let named = ["First", "Second"].iter().zip(&sizes).map(|(n, s)| ((*n).to_owned(), *s)).collect();
    w.b.program.axes.push(Axis { name: format!("Sum{}", axis.0), size: sizes[0] + sizes[1], pieces: named });
    *w.b.function().tensors[id.index()].dims.last_mut().expect("it has the pieces") = axis;
    w.b.clauses(id, clauses);
    w.floats.push(Known { id, shape, batched });
}

/// A sum by a key that is read from a tensor.
pub fn by_key(d: &mut Draw, w: &mut World, name: &str) {
    let outer = w.scope(d, 1);
    let row = w.vars(d, "r", 2);
    let key = w.vars(d, "k", 1);
    let Some(at) = label(d, w, &outer.with(&row)) else { return plain(d, w, name) };
    let all = outer.with(&key).with(&row);
    let mut guard = Pred::Zero(at.sub(&key[0].0.into()));
    if d.below(3) == 0 {
        guard = Pred::and([pred(d, w, &all), guard]);
    }
    let body = expr(d, w, &outer.with(&row), 2);
    let inner = row.iter().map(|(v, _)| *v).collect();
    w.define(name, &outer.with(&key), Expr::sum(inner, guard, body));
}
