//! Several long sums that are added up, as one sum over all their points.
//!
//! `y[n, c] = sum(o) a[n, o] v[c, o] + sum(o) b[n, o] w[c, o]` (the gradient of what several layers read) is
//! `sum(term, o) (if term == 0 then a[n, o] else b[n, o]) (if term == 0 then v[c, o] else w[c, o])`: one kernel, whose register tiles stay where they are from one term to
//! the next, where otherwise all but one of the sums would be stored and read again. A kernel writes the terms out, so that nothing is decided in its loops.

use super::expand::View;
use super::panel::POINTS;
use super::storage::collect_factors;
use crate::ir::index::Sizes;
use crate::ir::{Atom, BinaryOp, Expr, Index, Monoid, Node, Pred, Reduction, VarId};
use crate::rewrite::fold::Fold;

/// The most sums that become one.
pub const TERMS: usize = 8;

/// What sums must have in common: the sizes of their variables, and for every factor which of the result's variables it depends on.
pub type Form = (Vec<usize>, Vec<Vec<VarId>>);

/// The form of a sum of products with these sizes of variables, if it can be a term; all in terms of the variables of the result.
pub fn form(r: &Reduction, size: &dyn Fn(VarId) -> usize) -> Option<Form> {
    let sizes: Vec<usize> = r.vars.iter().map(|&v| size(v)).collect();
    let long = sizes.iter().product::<usize>() >= POINTS;
    if !long
        || r.op != Monoid::Sum
        || r.guard != Pred::True
        || !r.body.elem.is_float()
        || super::along::has_reduce(&r.body)
    {
        return None;
    }
    let mut factors: Vec<Vec<VarId>> = factors(r).into_iter().map(|(vars, _)| vars).collect();
    factors.sort_unstable();
    (factors.len() > 1).then_some((sizes, factors))
}

/// Products of the factors that depend on the same variables of the result.
fn factors(r: &Reduction) -> Vec<(Vec<VarId>, Expr)> {
    let mut all = Vec::new();
    collect_factors(&r.body, &mut all);
    let mut out: Vec<(Vec<VarId>, Expr)> = Vec::new();
    for f in all {
        let mut vars = Vec::new();
        f.visit_vars(&mut |v| vars.push(v));
        vars.retain(|v| !r.vars.contains(v));
        vars.sort_unstable();
        vars.dedup();
        match out.iter_mut().find(|(known, _)| *known == vars) {
            Some((_, product)) => *product = Expr::mul(product.clone(), f.clone()),
            None => out.push((vars, f.clone())),
        }
    }
    out
}

/// What is added up.
pub fn addends<'a>(e: &'a Expr, out: &mut Vec<&'a Expr>) {
    match &*e.node {
        Node::Binary(BinaryOp::Add, a, b) => {
            addends(a, out);
            addends(b, out);
        }
        _ => out.push(e),
    }
}

/// The body with the sums of one form among its addends as one sum.
pub fn sums(view: &mut View<'_>, body: &Expr) -> Expr {
    let mut all = Vec::new();
    addends(body, &mut all);
    let form_of = |view: &View<'_>, e: &Expr| match &*e.node {
        Node::Reduce(r) => form(r, &|v| view.size_of(v) as usize).map(|f| (f, r.clone())),
        _ => None,
    };
    let Some((form, first)) = all.iter().find_map(|e| form_of(view, e)) else { return body.clone() };
    let (mut terms, mut others): (Vec<Reduction>, Vec<Expr>) = (Vec::new(), Vec::new());
    for e in all {
        match form_of(view, e).filter(|(f, _)| *f == form && terms.len() < TERMS) {
            Some((_, r)) => terms.push(r),
            None => others.push(e.clone()),
        }
    }
    if terms.len() < 2 {
        return body.clone();
    }
    let term = view.var("term", terms.len());
    let names: Vec<String> = first.vars.iter().map(|&v| view.function.var(v).name.clone()).collect();
    let vars: Vec<VarId> = names.iter().zip(&form.0).map(|(name, &n)| view.var(name, n)).collect();
    let mut product: Option<Expr> = None;
    for role in &form.1 {
        let of_term = |r: &Reduction| {
            let f = factors(r).into_iter().find(|(known, _)| known == role).expect("terms have the same form").1;
            let place = |v| r.vars.iter().position(|&w| w == v).map(|n| Index::from(vars[n]));
            f.subst_vars(&place, view)
        };
        let last = of_term(&terms[terms.len() - 1]);
        let chosen = terms.iter().enumerate().rev().skip(1).fold(last, |other, (n, r)| {
            let here = Pred::Zero(Index::from(term).plus(-(n as i64)));
            Expr::select(here, of_term(r), other)
        });
        product = Some(match product {
            Some(p) => Expr::mul(p, chosen),
            None => chosen,
        });
    }
    let product = product.expect("a form has factors");
    let sum = Expr::sum(std::iter::once(term).chain(vars).collect(), Pred::True, product);
    others.into_iter().fold(sum, |all, e| Expr::add(e, all))
}

/// A variable of few values, and conditions that are about it alone: loops are written out for each value, where none of them is left.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The variable.
    pub var: VarId,
    conditions: Vec<Pred>,
}

impl Terms {
    /// Those of expressions that are points of one tile: the conditions that all of them have, if there are any. (What one point alone decides has to stay, since
    /// points are to have one form.)
    pub fn shared<'e>(var: VarId, points: impl IntoIterator<Item = &'e Expr>) -> Option<Terms> {
        let all = points.into_iter().map(|e| {
            let mut conditions = Vec::new();
            collect(e, var, &mut conditions);
            conditions
        });
        let conditions = all.reduce(|mut shared, own| {
            shared.retain(|p| own.contains(p));
            shared
        })?;
        (!conditions.is_empty()).then_some(Terms { var, conditions })
    }

    /// An expression where the variable has a value, without these conditions.
    pub fn at(&self, view: &View<'_>, e: &Expr, value: i64) -> Expr {
        let shape = |t| view.shape(t).iter().map(|&n| n as i64).collect();
        let fold = Fold { sizes: view, shape: &shape };
        let place = |v: VarId| (v == self.var).then(|| Index::from(value));
        self.decided(e, &|p| fold.pred(&p.subst(&place, view), &[]) == Pred::True).subst_vars(&place, view)
    }

    fn decided(&self, e: &Expr, holds: &dyn Fn(&Pred) -> bool) -> Expr {
        match &*e.node {
            Node::Select(p, a, b) if self.conditions.contains(p) => self.decided(if holds(p) { a } else { b }, holds),
            _ => e.map_children(&mut |c| self.decided(c, holds)),
        }
    }
}

/// The conditions in an expression that are about a variable alone.
fn collect(e: &Expr, var: VarId, out: &mut Vec<Pred>) {
    if let Node::Select(p, ..) = &*e.node
        && about(p, var)
    {
        out.push(p.clone());
    }
    e.for_each_child(&mut |c| collect(c, var, out));
}

fn about(p: &Pred, var: VarId) -> bool {
    let (mut alone, mut uses) = (!has_value(p), false);
    p.visit_vars(&mut |v| {
        alone &= v == var;
        uses |= v == var;
    });
    alone && uses
}

/// Whether a condition is about a value.
fn has_value(p: &Pred) -> bool {
    match p {
        Pred::True => false,
        Pred::Zero(i) | Pred::NonNeg(i) => i.terms.iter().any(|(a, _)| !matches!(a, Atom::Var(_))),
        Pred::Value(_) => true,
        Pred::Not(p) => has_value(p),
        Pred::And(ps) | Pred::Or(ps) => ps.iter().any(has_value),
    }
}
