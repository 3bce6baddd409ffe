//! Random indices, conditions and values at a point.

use super::{Draw, Known, Scope, World};
use crate::build::*;
use foveate_compiler::ir::*;

/// A dimension of size `n` at an index, and whether it may be outside.
pub fn index(d: &mut Draw, w: &World, scope: &Scope, n: usize) -> (Index, Bounds) {
    // A variable of the right size where there is one, else anything, guarded.
    let fitting: Vec<(VarId, usize)> = scope.vars.iter().filter(|(_, s)| *s <= n).copied().collect();
    let any = |d: &mut Draw| scope.vars[d.below(scope.vars.len())].0;
    match d.below(10) {
        0 => (Index::from(d.below(n) as i64), Bounds::Inside),
        1 => (minus(any(d), any(d)).plus(d.below(3) as i64), Bounds::Zero),
        2 => (Index::from(any(d)).scale(2).plus(-1), Bounds::Zero),
        3 => (Index::atom(Atom::Mod(Box::new(Index::from(any(d)).add(&any(d).into())), n as i64)), Bounds::Inside),
        4 => (Index::atom(Atom::Div(Box::new(any(d).into()), 2)), Bounds::Zero),
        5 => {
            let e = Index::from(any(d)).add(&any(d).into()).plus(-1);
            (Index::atom(Atom::Clamp(Box::new(e), 0, n as i64 - 1)), Bounds::Inside)
        }
        6 => match label(d, w, scope) {
            Some(i) if d.below(2) == 0 => (Index::atom(Atom::Clamp(Box::new(i), 0, n as i64 - 1)), Bounds::Inside),
            Some(i) => (i, Bounds::Zero),
            None => (Index::from(0), Bounds::Inside),
        },
        _ if fitting.is_empty() => (Index::from(0), Bounds::Inside),
        // At the end of the dimension: a piece of a sum axis.
        7 => {
            let (v, s) = d.of(&fitting);
            (Index::from(v).plus((n - s) as i64), Bounds::Inside)
        }
        _ => (d.of(&fitting).0.into(), Bounds::Inside),
    }
}

/// An index that is read from a tensor.
pub fn label(d: &mut Draw, w: &World, scope: &Scope) -> Option<Index> {
    let from: Vec<&Known> = w.labels.iter().filter(|t| !t.batched || scope.batch.is_some()).collect();
    if from.is_empty() {
        return None;
    }
    let t = d.of(&from);
    let mut at: Vec<Index> = scope.batch.filter(|_| t.batched).map(Index::from).into_iter().collect();
    for &n in &t.shape {
        let fitting: Vec<VarId> = scope.vars.iter().filter(|(_, s)| *s <= n).map(|(v, _)| *v).collect();
        at.push(if fitting.is_empty() { Index::from(0) } else { d.of(&fitting).into() });
    }
    Some(Index::atom(Atom::Data(Box::new(Expr::read(Elem::I32, t.id, at)))))
}

/// A condition on indices, which may be read from tensors.
pub fn pred(d: &mut Draw, w: &World, scope: &Scope) -> Pred {
    if scope.vars.is_empty() {
        return Pred::True;
    }
    let any = |d: &mut Draw| scope.vars[d.below(scope.vars.len())].0;
    match d.below(7) {
        0 => Pred::NonNeg(minus(any(d), any(d))),
        1 => Pred::And(vec![Pred::NonNeg(minus(any(d), any(d)).plus(1)), Pred::NonNeg(minus(any(d), any(d)).plus(1))]),
        2 => Pred::Zero(minus(any(d), any(d))),
        3 => Pred::Not(Box::new(pred(d, w, scope))),
        4 => match label(d, w, scope) {
            Some(i) => Pred::Zero(i.sub(&any(d).into())),
            None => Pred::NonNeg(Index::from(any(d)).plus(-1)),
        },
        5 => {
            let test = |p| Expr::new(Elem::Bool, Node::Test(p));
            let (a, b) = (test(pred(d, w, scope)), test(pred(d, w, scope)));
            let op = d.of(&[BinaryOp::And, BinaryOp::Or, BinaryOp::Xor]);
            Pred::Value(Expr::binary(op, a, Expr::unary(UnaryOp::Not, b)))
        }
        _ => Pred::Or(vec![Pred::NonNeg(Index::from(any(d)).plus(-1)), Pred::Zero(Index::from(any(d)))]),
    }
}

/// An element of some tensor.
pub fn read_any(d: &mut Draw, w: &World, scope: &Scope) -> Expr {
    let from: Vec<&Known> = w.floats.iter().filter(|t| !t.batched || scope.batch.is_some()).collect();
    if from.is_empty() {
        return num(0.5);
    }
    let t = d.of(&from);
    let mut at: Vec<Index> = scope.batch.filter(|_| t.batched).map(Index::from).into_iter().collect();
    let mut bounds = Bounds::Inside;
    for &n in &t.shape {
        if scope.vars.is_empty() {
            at.push(Index::from(0));
            continue;
        }
        let (i, b) = index(d, w, scope, n);
        at.push(i);
        if b == Bounds::Zero {
            bounds = Bounds::Zero;
        }
    }
    Expr::new(Elem::F64, Node::Read { tensor: t.id, at, bounds })
}

/// `1 + e^2`.
fn above_one(e: Expr) -> Expr {
    Expr::add(num(1.0), Expr::mul(e.clone(), e))
}

/// Operations that have poles or grow, of what is bounded or bounded away from them.
fn conditioned(d: &mut Draw, e: Expr) -> Expr {
    let u = Expr::unary;
    match d.below(9) {
        0 => exp(u(UnaryOp::Tanh, e)),
        1 => exp(Expr::neg(Expr::mul(e.clone(), e))),
        2 => u(UnaryOp::Log, above_one(e)),
        3 => u(UnaryOp::Sqrt, above_one(e)),
        4 => u(UnaryOp::Rsqrt, above_one(e)),
        5 => u(UnaryOp::Recip, above_one(e)),
        6 => u(UnaryOp::Erf, e),
        7 => u(UnaryOp::Sin, e),
        _ => Expr::mul(u(UnaryOp::Sign, e.clone()), e),
    }
}

/// Operations of two values, conditioned likewise.
fn conditioned_pair(d: &mut Draw, a: Expr, b: Expr) -> Expr {
    let tanh = |e| Expr::unary(UnaryOp::Tanh, e);
    match d.below(6) {
        0 => Expr::div(a, above_one(b)),
        1 => Expr::binary(BinaryOp::Max, a, b),
        2 => Expr::binary(BinaryOp::Min, a, b),
        3 => Expr::binary(BinaryOp::Pow, above_one(tanh(a)), num(d.of(&[0.5, 1.5, -1.0, 2.0]))),
        4 => Expr::binary(BinaryOp::Pow, above_one(tanh(a)), tanh(b)),
        _ => {
            let less = Expr::binary(d.of(&[BinaryOp::Lt, BinaryOp::Le]), a.clone(), b.clone());
            Expr::select(Pred::Value(less), a, b)
        }
    }
}

/// A value at a point.
pub fn expr(d: &mut Draw, w: &World, scope: &Scope, depth: usize) -> Expr {
    let leaf = depth == 0;
    let vars = &scope.vars;
    match d.below(if leaf { 4 } else { 17 }) {
        0 => num(d.of(&[0.0, 0.5, 1.0, -2.0])),
        1 if !vars.is_empty() => {
            let difference = value(minus(d.of(vars).0, d.of(vars).0));
            match d.below(4) {
                0 => match label(d, w, scope) {
                    Some(i) => value(i),
                    None => difference,
                },
                // A quarter away from where it jumps.
                1 => Expr::unary(UnaryOp::Floor, Expr::add(Expr::mul(num(0.5), difference), num(0.25))),
                _ => difference,
            }
        }
        1..=3 => read_any(d, w, scope),
        4 | 5 => Expr::add(expr(d, w, scope, depth - 1), expr(d, w, scope, depth - 1)),
        6 => Expr::sub(expr(d, w, scope, depth - 1), expr(d, w, scope, depth - 1)),
        7 | 8 => Expr::mul(expr(d, w, scope, depth - 1), expr(d, w, scope, depth - 1)),
        9 => {
            Expr::unary(d.of(&[UnaryOp::Cos, UnaryOp::Tanh, UnaryOp::Neg, UnaryOp::Abs]), expr(d, w, scope, depth - 1))
        }
        10 => relu(expr(d, w, scope, depth - 1)),
        11 | 12 => {
            let e = expr(d, w, scope, depth - 1);
            conditioned(d, e)
        }
        13 | 14 => {
            let (a, b) = (expr(d, w, scope, depth - 1), expr(d, w, scope, depth - 1));
            conditioned_pair(d, a, b)
        }
        _ if vars.is_empty() => num(1.5),
        _ => Expr::select(pred(d, w, scope), expr(d, w, scope, depth - 1), expr(d, w, scope, depth - 1)),
    }
}
