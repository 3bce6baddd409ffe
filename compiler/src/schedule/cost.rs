//! What expressions cost, in units of one multiply or one load.

use crate::ir::{Axis, BinaryOp, Expr, Function, Node, Pred, UnaryOp, VarId};

/// Number of points of a reduction's domain, guards not considered.
pub fn points(axes: &[Axis], function: &Function, vars: &[VarId]) -> usize {
    vars.iter().map(|&v| axes[function.var(v).axis.index()].size).product()
}

/// The cost of evaluating an expression once, reads as loads.
pub fn expr_cost(axes: &[Axis], function: &Function, e: &Expr) -> f64 {
    cost(axes, function, e, &|p| pred_cost(axes, function, p))
}

/// The same without conditions, which the lanes of a vector often share.
pub fn value_cost(axes: &[Axis], function: &Function, e: &Expr) -> f64 {
    cost(axes, function, e, &|_| 0.0)
}

fn cost(axes: &[Axis], function: &Function, e: &Expr, pred: &dyn Fn(&Pred) -> f64) -> f64 {
    let own = match &*e.node {
        Node::Const(_) | Node::Stop(_) => 0.0,
        Node::Index(_) => 0.5,
        Node::Read { .. } => 1.0,
        Node::Unary(op, _) => unary_cost(*op),
        Node::Binary(op, ..) => match op {
            BinaryOp::Div => 4.0,
            BinaryOp::Pow => 40.0,
            _ => 1.0,
        },
        Node::Select(p, ..) => 1.0 + pred(p),
        Node::Test(p) => pred(p),
        Node::Cast(_) => 0.5,
        Node::Random { .. } => 20.0,
        Node::Reduce(r) => {
            let inner = 1.0 + cost(axes, function, &r.body, pred) + pred(&r.guard);
            return points(axes, function, &r.vars) as f64 * inner;
        }
    };
    let mut sum = own;
    e.for_each_child(&mut |c| sum += cost(axes, function, c, pred));
    sum
}

fn unary_cost(op: UnaryOp) -> f64 {
    match op {
        UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Floor | UnaryOp::Not | UnaryOp::Sign => 1.0,
        UnaryOp::Sqrt | UnaryOp::Rsqrt | UnaryOp::Recip => 4.0,
        UnaryOp::Exp | UnaryOp::Log | UnaryOp::Sin | UnaryOp::Cos | UnaryOp::Tanh | UnaryOp::Erf => 10.0,
    }
}

fn pred_cost(axes: &[Axis], function: &Function, p: &Pred) -> f64 {
    match p {
        Pred::True => 0.0,
        Pred::Zero(_) | Pred::NonNeg(_) => 1.0,
        Pred::Value(e) => expr_cost(axes, function, e),
        Pred::Not(p) => pred_cost(axes, function, p),
        Pred::And(ps) | Pred::Or(ps) => ps.iter().map(|p| 1.0 + pred_cost(axes, function, p)).sum(),
    }
}
