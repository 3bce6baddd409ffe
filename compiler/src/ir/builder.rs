//! Short constructors of expressions, with the simplifications that keep derived programs small: constants fold, `0 + x`, `1 * x`,
//! `0 * x` (the IR's algebra is that of the reals) and double negation vanish.

use super::expr::{BinaryOp, Bounds, Elem, Expr, Monoid, Node, Pred, Reduction, UnaryOp};
use super::index::Index;
use super::{TensorId, VarId};

#[expect(clippy::should_implement_trait, reason = "constructors of nodes, which simplify; not operators on values")]
impl Expr {
    /// A node of the given element type.
    pub fn new(elem: Elem, node: Node) -> Expr {
        Expr { elem, node: Box::new(node) }
    }
    /// A constant.
    pub fn constant(elem: Elem, value: f64) -> Expr {
        Expr::new(elem, Node::Const(value.to_bits()))
    }
    /// The value, if a constant.
    pub fn as_const(&self) -> Option<f64> {
        match &*self.node {
            Node::Const(bits) => Some(f64::from_bits(*bits)),
            _ => None,
        }
    }
    /// An index as a number of the given type.
    pub fn index(elem: Elem, index: Index) -> Expr {
        match index.as_const() {
            Some(c) => Expr::constant(elem, c as f64),
            None => Expr::new(elem, Node::Index(index)),
        }
    }
    /// A read inside the tensor's bounds.
    pub fn read(elem: Elem, tensor: TensorId, at: Vec<Index>) -> Expr {
        Expr::new(elem, Node::Read { tensor, at, bounds: Bounds::Inside })
    }
    /// A read that gives 0 outside.
    pub fn read_or_zero(elem: Elem, tensor: TensorId, at: Vec<Index>) -> Expr {
        Expr::new(elem, Node::Read { tensor, at, bounds: Bounds::Zero })
    }
    /// `op(a)`.
    pub fn unary(op: UnaryOp, a: Expr) -> Expr {
        if let Some(x) = a.as_const() {
            return Expr::constant(a.elem, op.eval(x));
        }
        if let (UnaryOp::Neg, Node::Unary(UnaryOp::Neg, inner)) = (op, &*a.node) {
            return inner.clone();
        }
        Expr::new(a.elem, Node::Unary(op, a))
    }
    /// `op(a, b)`.
    pub fn binary(op: BinaryOp, a: Expr, b: Expr) -> Expr {
        let elem = if op.is_comparison() { Elem::Bool } else { a.elem };
        let (ca, cb) = (a.as_const(), b.as_const());
        match (op, ca, cb) {
            (_, Some(x), Some(y)) => return Expr::constant(elem, op.eval(x, y)),
            (BinaryOp::Add, Some(0.0), _) => return b,
            (BinaryOp::Add | BinaryOp::Sub, _, Some(0.0)) => return a,
            (BinaryOp::Sub, Some(0.0), _) => return Expr::unary(UnaryOp::Neg, b),
            (BinaryOp::Mul, Some(0.0), _) | (BinaryOp::Mul, _, Some(0.0)) => return Expr::constant(elem, 0.0),
            (BinaryOp::Mul, Some(1.0), _) => return b,
            (BinaryOp::Mul | BinaryOp::Div, _, Some(1.0)) => return a,
            (BinaryOp::Div, Some(0.0), _) => return Expr::constant(elem, 0.0),
            _ => {}
        }
        Expr::new(elem, Node::Binary(op, a, b))
    }
    /// `a + b`.
    pub fn add(a: Expr, b: Expr) -> Expr {
        Expr::binary(BinaryOp::Add, a, b)
    }
    /// `a - b`.
    pub fn sub(a: Expr, b: Expr) -> Expr {
        Expr::binary(BinaryOp::Sub, a, b)
    }
    /// `a * b`.
    pub fn mul(a: Expr, b: Expr) -> Expr {
        Expr::binary(BinaryOp::Mul, a, b)
    }
    /// `a / b`.
    pub fn div(a: Expr, b: Expr) -> Expr {
        Expr::binary(BinaryOp::Div, a, b)
    }
    /// `-a`.
    pub fn neg(a: Expr) -> Expr {
        Expr::unary(UnaryOp::Neg, a)
    }
    /// `a` where `p` holds, else `b`.
    pub fn select(p: Pred, a: Expr, b: Expr) -> Expr {
        if p == Pred::True || a == b {
            return a;
        }
        Expr::new(a.elem, Node::Select(p, a, b))
    }
    /// `a` in another element type.
    pub fn cast(elem: Elem, a: Expr) -> Expr {
        if a.elem == elem { a } else { Expr::new(elem, Node::Cast(a)) }
    }
    /// `a` without gradient.
    pub fn stop(a: Expr) -> Expr {
        Expr::new(a.elem, Node::Stop(a))
    }
    /// A reduction; without variables it is its body where the guard holds and the neutral element elsewhere.
    pub fn reduce(op: Monoid, vars: Vec<VarId>, guard: Pred, body: Expr) -> Expr {
        let arg = matches!(op, Monoid::ArgMax | Monoid::ArgMin);
        if !arg && vars.is_empty() {
            let neutral = Expr::constant(body.elem, op.neutral());
            return Expr::select(guard, body, neutral);
        }
        let elem = if arg { Elem::I32 } else { body.elem };
        Expr::new(elem, Node::Reduce(Reduction { op, vars, guard, body }))
    }
    /// A sum.
    pub fn sum(vars: Vec<VarId>, guard: Pred, body: Expr) -> Expr {
        Expr::reduce(Monoid::Sum, vars, guard, body)
    }
}

impl Monoid {
    /// What an empty domain gives.
    pub fn neutral(self) -> f64 {
        match self {
            Monoid::Sum | Monoid::Any => 0.0,
            Monoid::Prod | Monoid::All => 1.0,
            Monoid::Max => f64::NEG_INFINITY,
            Monoid::Min => f64::INFINITY,
            Monoid::ArgMax | Monoid::ArgMin => -1.0,
        }
    }
}
