//! The derivatives of pointwise operations, as a table, and their reverse-mode walk through one expression.

use crate::ir::{BinaryOp, Elem, Expr, Index, Node, Pred, TensorId, UnaryOp};

/// `d op(x) / dx`; `None` where it is 0 everywhere.
fn unary(op: UnaryOp, x: &Expr) -> Option<Expr> {
    let c = |v: f64| Expr::constant(x.elem, v);
    let f = |op: UnaryOp| Expr::unary(op, x.clone());
    Some(match op {
        UnaryOp::Neg => c(-1.0),
        UnaryOp::Exp => f(UnaryOp::Exp),
        UnaryOp::Log => Expr::div(c(1.0), x.clone()),
        UnaryOp::Sqrt => Expr::div(c(0.5), f(UnaryOp::Sqrt)),
        UnaryOp::Rsqrt => Expr::mul(c(-0.5), Expr::div(f(UnaryOp::Rsqrt), x.clone())),
        UnaryOp::Sin => f(UnaryOp::Cos),
        UnaryOp::Cos => Expr::neg(f(UnaryOp::Sin)),
        UnaryOp::Tanh => Expr::sub(c(1.0), Expr::mul(f(UnaryOp::Tanh), f(UnaryOp::Tanh))),
        UnaryOp::Erf => {
            let square = Expr::mul(x.clone(), x.clone());
            Expr::mul(c(std::f64::consts::FRAC_2_SQRT_PI), Expr::unary(UnaryOp::Exp, Expr::neg(square)))
        }
        UnaryOp::Abs => f(UnaryOp::Sign),
        UnaryOp::Recip => Expr::neg(Expr::mul(f(UnaryOp::Recip), f(UnaryOp::Recip))),
        UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Not => return None,
    })
}

fn holds(op: BinaryOp, a: &Expr, b: &Expr) -> Pred {
    Pred::Value(Expr::binary(op, a.clone(), b.clone()))
}

/// What reaches the two operands of a binary operation when `up` reaches its result; `None` for nothing.
///
/// A maximum with a constant passes nothing at the tie (so that relu'(0) = 0); of two values the tie is split in halves. The first is where the
/// maximum is more than the constant: where it is known as `value`, the operand is not needed any more.
fn binary(op: BinaryOp, a: &Expr, b: &Expr, up: &Expr, value: Option<&Expr>) -> (Option<Expr>, Option<Expr>) {
    let up = up.clone();
    let zero = || Expr::constant(up.elem, 0.0);
    match op {
        BinaryOp::Add => (Some(up.clone()), Some(up)),
        BinaryOp::Sub => (Some(up.clone()), Some(Expr::neg(up))),
        BinaryOp::Mul => (Some(Expr::mul(up.clone(), b.clone())), Some(Expr::mul(up, a.clone()))),
        BinaryOp::Div => {
            let to_a = Expr::div(up.clone(), b.clone());
            let to_b = Expr::neg(Expr::div(Expr::mul(up, a.clone()), Expr::mul(b.clone(), b.clone())));
            (Some(to_a), Some(to_b))
        }
        BinaryOp::Max | BinaryOp::Min => {
            let wins = if op == BinaryOp::Max { BinaryOp::Gt } else { BinaryOp::Lt };
            let share = |x: &Expr, y: &Expr| {
                let tie = if a.as_const().is_some() || b.as_const().is_some() {
                    zero()
                } else {
                    let half = Expr::mul(Expr::constant(up.elem, 0.5), up.clone());
                    Expr::select(holds(BinaryOp::Eq, x, y), half, zero())
                };
                let x = if y.as_const().is_some() { value.unwrap_or(x) } else { x };
                Some(Expr::select(holds(wins, x, y), up.clone(), tie))
            };
            (share(a, b), share(b, a))
        }
        BinaryOp::Pow => {
            let one_less = Expr::sub(b.clone(), Expr::constant(b.elem, 1.0));
            let to_a = Expr::mul(b.clone(), Expr::binary(BinaryOp::Pow, a.clone(), one_less));
            let to_b = b.as_const().is_none().then(|| {
                let power = Expr::binary(BinaryOp::Pow, a.clone(), b.clone());
                Expr::mul(up.clone(), Expr::mul(power, Expr::unary(UnaryOp::Log, a.clone())))
            });
            (Some(Expr::mul(up.clone(), to_a)), to_b)
        }
        _ => (None, None),
    }
}

fn is_float(elem: Elem) -> bool {
    matches!(elem, Elem::F64 | Elem::F32 | Elem::F16 | Elem::Bf16)
}

/// One read and what reaches it.
pub struct Partial {
    /// The tensor.
    pub tensor: TensorId,
    /// Where it is read.
    pub at: Vec<Index>,
    /// The cotangent of this read.
    pub cotangent: Expr,
}

/// Everything that reaches reads of float tensors for which `active` holds, when `up` reaches the pointwise expression. Equal reads are listed once.
///
/// What stands under a condition reaches its reads under the same condition as a whole: the factors of a cotangent may be out of range elsewhere.
///
/// `value`, if there is one, reads what the expression comes to.
pub fn partials(e: &Expr, value: Option<&Expr>, up: Expr, active: &dyn Fn(TensorId) -> bool, out: &mut Vec<Partial>) {
    walk(e, value, up, &Pred::True, active, out);
}

fn walk(
    e: &Expr,
    value: Option<&Expr>,
    up: Expr,
    given: &Pred,
    active: &dyn Fn(TensorId) -> bool,
    out: &mut Vec<Partial>,
) {
    if !is_float(e.elem) || up.as_const() == Some(0.0) || !touches(e, active) {
        return;
    }
    match &*e.node {
        Node::Read { tensor, at, .. } => {
            let cotangent = Expr::select(given.clone(), up, Expr::constant(e.elem, 0.0));
            match out.iter_mut().find(|p| p.tensor == *tensor && p.at == *at) {
                Some(p) => p.cotangent = Expr::add(p.cotangent.clone(), cotangent),
                None => out.push(Partial { tensor: *tensor, at: at.clone(), cotangent }),
            }
        }
        Node::Unary(op, x) => {
            if let Some(d) = unary(*op, x) {
                walk(x, None, Expr::mul(up, d), given, active, out);
            }
        }
        Node::Binary(op, a, b) => {
            let (to_a, to_b) = binary(*op, a, b, &up, value);
            if let Some(up) = to_a {
                walk(a, None, up, given, active, out);
            }
            if let Some(up) = to_b {
                walk(b, None, up, given, active, out);
            }
        }
        Node::Select(p, a, b) => {
            walk(a, None, up.clone(), &Pred::and([given.clone(), p.clone()]), active, out);
            walk(b, None, up, &Pred::and([given.clone(), Pred::Not(Box::new(p.clone()))]), active, out);
        }
        Node::Cast(a) if is_float(a.elem) => walk(a, None, Expr::cast(a.elem, up), given, active, out),
        _ => {}
    }
}

/// Whether the expression reads an active tensor outside `stop`.
fn touches(e: &Expr, active: &dyn Fn(TensorId) -> bool) -> bool {
    match &*e.node {
        Node::Read { tensor, .. } => active(*tensor),
        Node::Stop(_) => false,
        _ => {
            let mut found = false;
            e.for_each_child(&mut |c| found = found || touches(c, active));
            found
        }
    }
}
