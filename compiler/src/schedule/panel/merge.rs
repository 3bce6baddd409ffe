//! Variables that stand for one place only together are one variable: rows and columns of tokens, heads and channels of a feature.
//!
//! A tile along one of fourteen columns covers them in steps of seven or ends with half a step; along all tokens of a batch almost any step fits.

use crate::ir::index::Sizes;
use crate::ir::{Bounds, Clause, Expr, Index, Node, Reduction, TensorId, VarId};
use crate::schedule::expand::View;
use std::collections::HashMap;

/// A definition with as few variables as may be, those of `keep` apart.
pub fn results(view: &mut View<'_>, tensor: TensorId, clause: &Clause, body: &Expr, keep: &[VarId]) -> (Clause, Expr) {
    let mut clause = Clause { body: body.clone(), ..clause.clone() };
    // Those with one value are 0; the body has been told already.
    let single: Vec<VarId> =
        clause.vars.iter().copied().filter(|v| view.size_of(*v) == 1 && !keep.contains(v)).collect();
    let zero = |v: VarId| single.contains(&v).then(Index::default);
    clause.at = clause.at.iter().map(|i| i.subst(&zero, view)).collect();
    clause.vars.retain(|v| !single.contains(v));
    while let Some((n, m)) = pair(&clause.vars, |a, b| {
        let to = view.address(tensor, &clause.at);
        !keep.contains(&a) && !keep.contains(&b) && strides_match(view, &to, a, b) && alike(view, &clause.body, a, b)
    }) {
        let (outer, inner) = (clause.vars[n], clause.vars[m]);
        let (merged, map) = merge(view, outer, inner);
        let f = |v: VarId| map.get(&v).cloned();
        clause.at = clause.at.iter().map(|i| i.subst(&f, view)).collect();
        clause.body = clause.body.subst_vars(&f, view);
        clause.vars[m] = merged;
        clause.vars.remove(n);
    }
    let body = clause.body.clone();
    (clause, body)
}

/// A reduction over as few variables as may be; those of its guard stay.
pub fn summed(view: &mut View<'_>, r: &Reduction) -> Reduction {
    let mut r = r.clone();
    while let Some((n, m)) = pair(&r.vars, |a, b| !r.guard.uses(a) && !r.guard.uses(b) && alike(view, &r.body, a, b)) {
        let (outer, inner) = (r.vars[n], r.vars[m]);
        let (merged, map) = merge(view, outer, inner);
        let f = |v: VarId| map.get(&v).cloned();
        r.body = r.body.subst_vars(&f, view);
        r.vars[m] = merged;
        r.vars.remove(n);
    }
    r
}

/// The first neighbours that are alike, by their places.
fn pair(vars: &[VarId], alike: impl Fn(VarId, VarId) -> bool) -> Option<(usize, usize)> {
    (1..vars.len()).map(|m| (m - 1, m)).find(|&(n, m)| alike(vars[n], vars[m]))
}

/// One variable for two, and what they are in terms of it.
fn merge(view: &mut View<'_>, outer: VarId, inner: VarId) -> (VarId, HashMap<VarId, Index>) {
    let size = view.size_of(inner);
    let name = view.function.var(inner).name.clone();
    let merged = view.var(&name, (view.size_of(outer) * size) as usize);
    let at = Index::from(merged);
    let (quotient, remainder) = (at.div(size, &*view), at.modulo(size, &*view));
    (merged, HashMap::from([(outer, quotient), (inner, remainder)]))
}

/// Whether a step of the outer one is as far as all steps of the inner one.
fn strides_match(view: &View<'_>, at: &Index, outer: VarId, inner: VarId) -> bool {
    let plain = |v: VarId| at.sub(&Index::from(v).scale(at.coefficient(v)));
    let rest = plain(outer).sub(&Index::from(inner).scale(at.coefficient(inner)));
    !rest.uses(outer) && !rest.uses(inner) && at.coefficient(outer) == at.coefficient(inner) * view.size_of(inner)
}

/// Whether an expression has the two variables in the positions of its reads alone, and there together.
fn alike(view: &View<'_>, e: &Expr, outer: VarId, inner: VarId) -> bool {
    let absent = |i: &Index| !i.uses(outer) && !i.uses(inner);
    let own = match &*e.node {
        Node::Read { tensor, at, bounds } => match at.iter().all(absent) {
            true => true,
            false => *bounds == Bounds::Inside && strides_match(view, &view.address(*tensor, at), outer, inner),
        },
        Node::Index(i) => absent(i),
        Node::Random { at, .. } => absent(at),
        Node::Select(p, ..) | Node::Test(p) => !p.uses(outer) && !p.uses(inner),
        Node::Reduce(r) => !r.guard.uses(outer) && !r.guard.uses(inner),
        _ => true,
    };
    let mut all = own;
    e.for_each_child(&mut |c| all = all && alike(view, c, outer, inner));
    all
}
