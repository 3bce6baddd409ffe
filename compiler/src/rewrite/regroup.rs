//! Regrouping: values of a short index of a sum are summed first, where what belongs to them has fewer indices than the sum.
//!
//! `y[i, j, m] = sum(t, e) f[i, j, t] q[i, j, e] s[t, e, m]`, where `f` at 0 and 1 depends on `i` alone, has
//! `sum(e) q[i, j, e] (f[i, 0] s[0, e, m] + f[i, 1] s[1, e, m])` in it: what is in brackets is the same for all `j`, and there is one product for both values
//! where there were two. Values are put together that have the same in common with the index left out (`j`, here nothing); that stays outside the brackets. A new short
//! index, the group, takes the place of the old one. The promise on rounding is a bound, not equal bits.

use super::fold::Fold;
use super::{Cx, each_function, inline, walk};
use crate::ir::{Bounds, Clause, Expr, Index, Monoid, Node, Pred, Program, Reduction, Stmt, TensorId, VarId};
use std::collections::HashMap;

/// The name under which it reports.
pub const NAME: &str = "regroup";

/// The most values of a short index.
const SHORT: i64 = 8;
/// The fewest values of an index that is worth leaving out.
const LONG: i64 = 8;
/// Products that take as long as one in brackets, whose factors are read once each.
const FILL: f64 = 4.0;
/// The share of the products that may be left.
const LEFT: f64 = 0.85;

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut |cx| {
        for at in 0..cx.function.body.len() {
            let Some(d) = cx.definition_at(at).cloned() else { continue };
            for (n, c) in d.clauses.iter().enumerate() {
                let Node::Reduce(r) = &*c.body.node else { continue };
                if r.op == Monoid::Sum && walk::is_float(c.body.elem) && r.guard == Pred::True {
                    clause(cx, at, n, d.tensor, c, r);
                }
            }
        }
    });
}

/// Values of the short index: factors that they have in common and that depend on the index left out, and for each of them the others.
struct Group {
    common: Vec<Expr>,
    own: Vec<Vec<Expr>>,
}

/// Tries a clause.
fn clause(cx: &mut Cx, at: usize, n: usize, tensor: TensorId, c: &Clause, r: &Reduction) {
    let (factors, divisors, sign) = walk::factors(&r.body);
    if !divisors.is_empty() {
        return;
    }
    let short: Vec<VarId> = r.vars.iter().copied().filter(|&v| (2..=SHORT).contains(&cx.size(v))).collect();
    if short.is_empty() {
        return;
    }
    let unused = unused_dimensions(cx);
    for t in short {
        let (with, others): (Vec<Expr>, Vec<Expr>) = factors.iter().cloned().partition(|f| f.uses(t));
        if with.len() < 2 || others.is_empty() {
            continue;
        }
        let rest: Vec<VarId> = r.vars.iter().copied().filter(|&v| v != t).collect();
        let values: Vec<Vec<Expr>> = (0..cx.size(t)).map(|k| at_value(cx, &with, t, k, &unused)).collect();
        let left_out = |v: &VarId| cx.size(*v) >= LONG && others.iter().any(|f| f.uses(*v));
        let candidates: Vec<VarId> = c.vars.iter().copied().filter(left_out).collect();
        // Of equals the last: what is in brackets then serves what lies side by side.
        let best = candidates.into_iter().rev().map(|u| (u, group(&values, u))).min_by_key(|(_, groups)| groups.len());
        let Some((u, groups)) = best else { continue };
        let before = cx.points(c.vars.iter().chain(&r.vars));
        let after = cost(cx, c, &rest, &groups);
        if rest.is_empty() || groups.len() as i64 == cx.size(t) {
            continue;
        }
        let (over, left) = (cx.names(&[t]), cx.names(&[u]));
        let text = format!("{} values of {over} are {} where {left} is left out", cx.size(t), groups.len());
        if after > LEFT * before {
            let many = format!("{text}, but {after:.3e} products are not clearly fewer than {before:.3e} at this size");
            cx.refused(NAME, tensor, many);
            continue;
        }
        write(cx, at, n, c, &rest, (&others, sign), groups);
        cx.fired(NAME, tensor, format!("{text}: {after:.3e} products instead of {before:.3e}"));
        return;
    }
}

/// Products of a sum of these groups, with what the factor costs that has the brackets in it.
fn cost(cx: &Cx, c: &Clause, rest: &[VarId], groups: &[Group]) -> f64 {
    let mut vars: Vec<VarId> = groups.iter().flat_map(|g| &g.own).flatten().flat_map(walk::free_vars).collect();
    vars.sort_unstable();
    vars.dedup();
    let values: usize = groups.iter().map(|g| g.own.len()).sum();
    groups.len() as f64 * cx.points(c.vars.iter().chain(rest)) + FILL * values as f64 * cx.points(&vars)
}

/// Values of the short index by what they have in common with an index; `values` are their factors.
fn group(values: &[Vec<Expr>], left_out: VarId) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for factors in values {
        let (common, own): (Vec<Expr>, Vec<Expr>) = factors.iter().cloned().partition(|f| f.uses(left_out));
        match groups.iter_mut().find(|g| g.common == common) {
            Some(g) => g.own.push(own),
            None => groups.push(Group { common, own: vec![own] }),
        }
    }
    groups
}

/// Writes the sum down, over a variable for the group.
fn write(
    cx: &mut Cx,
    at: usize,
    n: usize,
    c: &Clause,
    rest: &[VarId],
    (others, sign): (&[Expr], f64),
    groups: Vec<Group>,
) {
    let elem = c.body.elem;
    let product = |fs: &[Expr]| walk::product(elem, fs, &[], 1.0);
    let group = (groups.len() > 1).then(|| cx.fresh_sized("group", groups.len() as i64));
    // The last one where no other is.
    let chosen = |of: &dyn Fn(&Group) -> Expr| {
        let numbered = groups.iter().enumerate().rev();
        let with = |other: Option<Expr>, (k, g): (usize, &Group)| match (other, group) {
            (Some(other), Some(v)) => Some(Expr::select(Pred::Zero(Index::from(v).plus(-(k as i64))), of(g), other)),
            _ => Some(of(g)),
        };
        numbered.fold(None, with).expect("a short index has values")
    };
    let mut factors = others.to_vec();
    if groups.iter().any(|g| !g.common.is_empty()) {
        factors.push(chosen(&|g| product(&g.common)));
    }
    let bracket = |g: &Group| g.own.iter().map(|fs| product(fs)).reduce(Expr::add);
    factors.push(chosen(&|g| bracket(g).expect("a group has values")));
    let vars = group.into_iter().chain(rest.iter().copied()).collect();
    let sum = cx.freshen(&Expr::sum(vars, Pred::True, walk::product(elem, &factors, &[], sign)));
    cx.set_body(at, n, sum);
}

/// Factors at a value of a variable, taken apart as far as that value allows, and without indices on which they do not depend.
fn at_value(cx: &mut Cx, factors: &[Expr], t: VarId, k: i64, unused: &HashMap<TensorId, Vec<bool>>) -> Vec<Expr> {
    let mut out = Vec::new();
    for f in factors {
        let f = cx.subst(f, &[(t, Index::from(k))]);
        let opened = opened(cx, &f, unused);
        out.extend(walk::factors(&opened).0);
    }
    out
}

/// A read of a pointwise definition as a product of reads and choices among some, if at its indices it is one.
fn opened(cx: &mut Cx, e: &Expr, unused: &HashMap<TensorId, Vec<bool>>) -> Expr {
    let inside = match &*e.node {
        Node::Read { tensor, at, bounds: Bounds::Inside } => {
            let d = cx.position(*tensor).and_then(|p| cx.definition_at(p)).cloned();
            let pointwise = d.filter(|d| d.clauses.iter().all(|c| !walk::has_reduction(&c.body)));
            pointwise.and_then(|d| inline::inline(cx, &d, at, Bounds::Inside))
        }
        _ => None,
    };
    let folded = inside.map(|body| {
        let (shape, sizes) = (|t| cx.shape(t), cx.sizes());
        Fold { sizes: &sizes, shape: &shape }.expr(&body, &[])
    });
    match folded.map(|f| (walk::factors(&f), f)) {
        Some(((factors, divisors, sign), f)) if divisors.is_empty() && sign > 0.0 && factors.iter().all(is_chosen) => {
            narrowed(&f, unused)
        }
        _ => narrowed(e, unused),
    }
}

/// Whether an expression is a read or chosen among some by indices.
fn is_chosen(e: &Expr) -> bool {
    match &*e.node {
        Node::Read { bounds, .. } => *bounds == Bounds::Inside,
        Node::Select(Pred::Zero(_) | Pred::NonNeg(_), a, b) => is_chosen(a) && is_chosen(b),
        _ => false,
    }
}

/// The expression with 0 for every index on which the read tensor does not depend.
fn narrowed(e: &Expr, unused: &HashMap<TensorId, Vec<bool>>) -> Expr {
    walk::rewrite(e, &mut |mut e| {
        if let Node::Read { tensor, at, bounds: Bounds::Inside } = &mut *e.node
            && let Some(unused) = unused.get(tensor)
        {
            at.iter_mut().zip(unused).filter(|(_, unused)| **unused).for_each(|(i, _)| *i = Index::default());
        }
        e
    })
}

/// For definitions by one clause, the dimensions on which they do not depend, if there are any.
fn unused_dimensions(cx: &Cx) -> HashMap<TensorId, Vec<bool>> {
    let mut out = HashMap::new();
    for s in &cx.function.body {
        let Stmt::Define(d) = s else { continue };
        let [c] = d.clauses.as_slice() else { continue };
        if c.at.len() != c.vars.len() || c.at.iter().zip(&c.vars).any(|(i, v)| i.as_var() != Some(*v)) {
            continue;
        }
        let body = narrowed(&c.body, &out);
        let unused: Vec<bool> = c.vars.iter().map(|&v| cx.size(v) > 1 && !body.uses(v)).collect();
        if unused.contains(&true) {
            out.insert(d.tensor, unused);
        }
    }
    out
}
