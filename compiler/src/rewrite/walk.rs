//! Walking expressions to the bottom: also inside predicates and data-dependent indices, which [`crate::ir::subst`]'s maps leave alone.

use crate::ir::{Atom, BinaryOp, Elem, Expr, Index, Node, Pred, Reduction, UnaryOp, VarId, index::Sizes};

/// The expression rebuilt from the leaves up; `f` may replace every (rebuilt) subexpression.
pub fn rewrite(e: &Expr, f: &mut dyn FnMut(Expr) -> Expr) -> Expr {
    let node = match &*e.node {
        Node::Const(bits) => Node::Const(*bits),
        Node::Index(i) => Node::Index(rewrite_index(i, f)),
        Node::Read { tensor, at, bounds } => {
            Node::Read { tensor: *tensor, at: at.iter().map(|i| rewrite_index(i, f)).collect(), bounds: *bounds }
        }
        Node::Random { key, place, at } => Node::Random { key: *key, place: *place, at: rewrite_index(at, f) },
        Node::Test(p) => Node::Test(rewrite_pred(p, f)),
        Node::Unary(op, a) => Node::Unary(*op, rewrite(a, f)),
        Node::Cast(a) => Node::Cast(rewrite(a, f)),
        Node::Stop(a) => Node::Stop(rewrite(a, f)),
        Node::Binary(op, a, b) => Node::Binary(*op, rewrite(a, f), rewrite(b, f)),
        Node::Select(p, a, b) => Node::Select(rewrite_pred(p, f), rewrite(a, f), rewrite(b, f)),
        Node::Reduce(r) => Node::Reduce(Reduction {
            op: r.op,
            vars: r.vars.clone(),
            guard: rewrite_pred(&r.guard, f),
            body: rewrite(&r.body, f),
        }),
    };
    f(Expr { elem: e.elem, node: Box::new(node) })
}

/// The same for the values inside a predicate.
pub fn rewrite_pred(p: &Pred, f: &mut dyn FnMut(Expr) -> Expr) -> Pred {
    match p {
        Pred::True => Pred::True,
        Pred::Zero(i) => Pred::Zero(rewrite_index(i, f)),
        Pred::NonNeg(i) => Pred::NonNeg(rewrite_index(i, f)),
        Pred::Value(e) => Pred::Value(rewrite(e, f)),
        Pred::Not(p) => Pred::Not(Box::new(rewrite_pred(p, f))),
        Pred::And(ps) => Pred::and(ps.iter().map(|p| rewrite_pred(p, f)).collect::<Vec<_>>()),
        Pred::Or(ps) => Pred::Or(ps.iter().map(|p| rewrite_pred(p, f)).collect()),
    }
}

/// The same for the values inside an index; a value that became an index or a constant joins the index itself.
pub fn rewrite_index(i: &Index, f: &mut dyn FnMut(Expr) -> Expr) -> Index {
    if !has_data(i) {
        return i.clone();
    }
    let mut out = Index::from(i.offset);
    for (a, c) in &i.terms {
        let atom = match a {
            Atom::Var(v) => Atom::Var(*v),
            Atom::Div(e, k) => Atom::Div(Box::new(rewrite_index(e, f)), *k),
            Atom::Mod(e, k) => Atom::Mod(Box::new(rewrite_index(e, f)), *k),
            Atom::Clamp(e, lo, hi) => Atom::Clamp(Box::new(rewrite_index(e, f)), *lo, *hi),
            Atom::Data(e) => {
                let e = rewrite(e, f);
                match (&*e.node, e.as_const()) {
                    (Node::Index(inner), _) => {
                        out = out.add(&inner.scale(*c));
                        continue;
                    }
                    (_, Some(x)) => {
                        out = out.plus(x.floor() as i64 * c);
                        continue;
                    }
                    _ => Atom::Data(Box::new(e)),
                }
            }
        };
        out.add_term(atom, *c);
    }
    out
}

fn has_data(i: &Index) -> bool {
    i.terms.iter().any(|(a, _)| match a {
        Atom::Var(_) => false,
        Atom::Div(e, _) | Atom::Mod(e, _) | Atom::Clamp(e, ..) => has_data(e),
        Atom::Data(_) => true,
    })
}

/// The free variables, in order of first occurrence.
pub fn free_vars(e: &Expr) -> Vec<VarId> {
    let mut out = Vec::new();
    e.visit_vars(&mut |v| {
        if !out.contains(&v) {
            out.push(v)
        }
    });
    out
}

/// The variables that reductions inside bind, in the order in which [`crate::ir::subst::freshen`] meets them.
pub fn bound_vars(e: &Expr, out: &mut Vec<VarId>) {
    if let Node::Reduce(r) = &*e.node {
        out.extend(&r.vars);
    }
    e.for_each_child(&mut |c| bound_vars(c, out));
}

/// Calls `f` on every index of the expression.
pub fn visit_indices(e: &Expr, f: &mut dyn FnMut(&Index)) {
    match &*e.node {
        Node::Index(i) | Node::Random { at: i, .. } => f(i),
        Node::Read { at, .. } => at.iter().for_each(&mut *f),
        Node::Test(p) | Node::Select(p, ..) => visit_pred_indices(p, f),
        Node::Reduce(r) => visit_pred_indices(&r.guard, f),
        _ => {}
    }
    e.for_each_child(&mut |c| visit_indices(c, f));
}

/// Calls `f` on every index of the predicate.
pub fn visit_pred_indices(p: &Pred, f: &mut dyn FnMut(&Index)) {
    match p {
        Pred::True => {}
        Pred::Zero(i) | Pred::NonNeg(i) => f(i),
        Pred::Value(e) => visit_indices(e, f),
        Pred::Not(p) => visit_pred_indices(p, f),
        Pred::And(ps) | Pred::Or(ps) => ps.iter().for_each(|p| visit_pred_indices(p, f)),
    }
}

/// Whether a reduction occurs inside.
pub fn has_reduction(e: &Expr) -> bool {
    let mut found = matches!(&*e.node, Node::Reduce(_));
    e.for_each_child(&mut |c| found |= has_reduction(c));
    found
}

/// Rough work of one evaluation: 1 for an addition, 4 for a division, 8 for a transcendental function; reads and affine indices are free.
pub fn work(e: &Expr, sizes: &dyn Sizes) -> f64 {
    let own = match &*e.node {
        Node::Const(_) | Node::Stop(_) => 0.0,
        Node::Index(i) => index_work(i, sizes),
        Node::Read { at, .. } => at.iter().map(|i| index_work(i, sizes)).sum(),
        Node::Unary(op, _) => match op {
            UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Not => 1.0,
            UnaryOp::Recip => 4.0,
            _ => 8.0,
        },
        Node::Binary(BinaryOp::Div, _, b) if b.as_const().is_none() => 4.0,
        Node::Binary(BinaryOp::Pow, ..) | Node::Random { .. } => 8.0,
        Node::Binary(..) | Node::Select(..) | Node::Test(_) | Node::Cast(_) => 1.0,
        Node::Reduce(r) => {
            let n: f64 = r.vars.iter().map(|&v| sizes.size_of(v) as f64).product();
            return n * (1.0 + work(&r.body, sizes));
        }
    };
    let mut total = own;
    e.for_each_child(&mut |c| total += work(c, sizes));
    total
}

fn index_work(i: &Index, sizes: &dyn Sizes) -> f64 {
    i.terms
        .iter()
        .map(|(a, _)| match a {
            Atom::Var(_) => 0.0,
            Atom::Div(e, _) | Atom::Mod(e, _) | Atom::Clamp(e, ..) => index_work(e, sizes),
            Atom::Data(e) => work(e, sizes),
        })
        .sum()
}

/// Whether the element type is a float.
pub fn is_float(elem: Elem) -> bool {
    matches!(elem, Elem::F64 | Elem::F32 | Elem::Bf16 | Elem::F16)
}

/// `-e`, if `e` is written as a negation or a product with a negative constant.
pub fn negated(e: &Expr) -> Option<Expr> {
    match &*e.node {
        Node::Const(_) => e.as_const().filter(|x| *x < 0.0).map(|x| Expr::constant(e.elem, -x)),
        Node::Unary(UnaryOp::Neg, a) => Some(a.clone()),
        Node::Binary(BinaryOp::Mul, a, b) => match negated(a) {
            Some(a) => Some(Expr::mul(a, b.clone())),
            None => negated(b).map(|b| Expr::mul(a.clone(), b)),
        },
        _ => None,
    }
}

/// The product as numerator and denominator factors: `a * b / c * -d` gives `([a, b, d], [c], -1)`.
pub fn factors(e: &Expr) -> (Vec<Expr>, Vec<Expr>, f64) {
    match &*e.node {
        Node::Binary(BinaryOp::Mul, a, b) => {
            let ((mut n, mut d, s), (n2, d2, s2)) = (factors(a), factors(b));
            n.extend(n2);
            d.extend(d2);
            (n, d, s * s2)
        }
        Node::Binary(BinaryOp::Div, a, b) => {
            let ((mut n, mut d, s), (n2, d2, s2)) = (factors(a), factors(b));
            n.extend(d2);
            d.extend(n2);
            (n, d, s * s2)
        }
        Node::Unary(UnaryOp::Neg, a) => {
            let (n, d, s) = factors(a);
            (n, d, -s)
        }
        _ => (vec![e.clone()], Vec::new(), 1.0),
    }
}

/// The product of factors over the product of divisors, with a sign.
pub fn product(elem: Elem, numerator: &[Expr], denominator: &[Expr], sign: f64) -> Expr {
    let mul = |es: &[Expr]| es.iter().cloned().reduce(Expr::mul);
    let top = mul(numerator).unwrap_or_else(|| Expr::constant(elem, 1.0));
    let all = match mul(denominator) {
        Some(d) => Expr::div(top, d),
        None => top,
    };
    if sign < 0.0 { Expr::neg(all) } else { all }
}
