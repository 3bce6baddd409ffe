//! Linearisation: a sum over `j` of products that separate into finitely many functions of `i` times functions of `j` turns inside out.
//!
//! `o[i, e] = sum_j w(i, j) (sum_c f[i, c] g[j, c]) v[j, e]` with `w(i, j) = sum_r a_r(i) b_r(j)` becomes
//! `o[i, e] = sum_c f[i, c] sum_r a_r(i) S_r[c, e]`, `S_r[c, e] = sum_j b_r(j) g[j, c] v[j, e]`: the work is linear in the number of `j`.
//! Every set of output indices that separates from every set of the sum's variables is tried, and the cheapest is taken if it is cheaper than the sum
//! as written. The promise on rounding is a bound, not equal bits.

use super::separate::{Separate, Stopped, Term};
use super::{Cx, each_function, restrict, walk};
use crate::ir::{Clause, Expr, Monoid, Node, Pred, Program, Reduction, Stmt, TensorId, VarId};
use std::collections::HashSet;

/// The name under which it reports.
pub const NAME: &str = "linearise";

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut function);
}

fn function(cx: &mut Cx) {
    let mut at = 0;
    while at < cx.function.body.len() {
        if let Stmt::Define(d) = &cx.function.body[at] {
            let (tensor, clauses) = (d.tensor, d.clauses.clone());
            for (n, c) in clauses.iter().enumerate() {
                let Node::Reduce(r) = &*c.body.node else { continue };
                if r.op == Monoid::Sum && walk::is_float(c.body.elem) {
                    at += definition(cx, at, n, tensor, c, r);
                }
            }
        }
        at += 1;
    }
}

/// One way to separate a sum.
struct Plan {
    outer: Vec<VarId>,
    inner: Vec<VarId>,
    terms: Vec<Term>,
    cost: f64,
    quadratic: f64,
    /// Whether scores were opened.
    scores: bool,
}

/// Tries a clause; gives the number of definitions inserted before it.
fn definition(cx: &mut Cx, at: usize, clause: usize, tensor: TensorId, c: &Clause, r: &Reduction) -> usize {
    let (outs, ins): (Vec<VarId>, Vec<VarId>) = (
        c.vars.iter().copied().filter(|&v| cx.size(v) > 1 && (r.body.uses(v) || r.guard.uses(v))).collect(),
        r.vars.iter().copied().filter(|&v| cx.size(v) > 1).collect(),
    );
    let (mut best, mut stopped): (Option<Plan>, Option<Stopped>) = (None, None);
    let (products, pairs) = (restrict::outer_products(cx, true), restrict::outer_products(cx, false));
    // A layer applied to data by a parameter is no attention, and what does not hold for it needs no word.
    let data = restrict::data_tensors(cx.function);
    let mut layer = false;
    r.body.visit_reads(&mut |t, at| layer |= !data.contains(&t) && at.iter().any(|i| ins.iter().any(|&v| i.uses(v))));
    let made = (cx.function.vars.len(), cx.axes.len());
    for inner in subsets(&ins) {
        // What separates alone, then all of that together.
        let mut alone = Vec::new();
        let mut sets: Vec<Vec<VarId>> = outs.iter().map(|&v| vec![v]).collect();
        let mut n = 0;
        while n < sets.len() {
            let outer = sets[n].clone();
            n += 1;
            match attempt(cx, c, r, &outer, &inner, &products, &pairs) {
                Ok(plan) => {
                    if outer.len() == 1 {
                        alone.extend(&outer);
                    }
                    let better = |b: &Plan| {
                        plan.cost < b.cost
                            || (plan.cost == b.cost
                                && plan.inner.len() == b.inner.len()
                                && plan.outer.len() > b.outer.len())
                    };
                    if best.as_ref().is_none_or(better) {
                        best = Some(plan);
                    }
                }
                Err(s) if s.scores && inner.len() == ins.len() && stopped.is_none() => stopped = Some(s),
                Err(_) => {}
            }
            if n == outs.len() {
                sets.extend(subsets(&alone).into_iter().filter(|s| s.len() > 1));
            }
        }
    }
    match best {
        Some(plan) if plan.scores && plan.cost < plan.quadratic => emit(cx, at, clause, tensor, c, r, plan),
        other => {
            // What the attempts made is gone with them.
            cx.function.vars.truncate(made.0);
            cx.axes.truncate(made.1);
            let reason = match (other, stopped) {
                (Some(p), _) if p.scores => Some(format!(
                    "rank {} in {}, but {:.3e} products are no fewer than {:.3e} at this size",
                    p.terms.len(),
                    cx.names(&p.outer),
                    p.cost,
                    p.quadratic
                )),
                (_, Some(s)) => Some(s.reason),
                _ => None,
            };
            if let Some(reason) = reason.filter(|_| !layer) {
                cx.refused(NAME, tensor, reason);
            }
            0
        }
    }
}

/// All non-empty subsets of up to four variables, the largest first; of more, all of them and each alone.
fn subsets(vars: &[VarId]) -> Vec<Vec<VarId>> {
    if vars.len() > 4 {
        return std::iter::once(vars.to_vec()).chain(vars.iter().map(|&v| vec![v])).collect();
    }
    let mut out: Vec<Vec<VarId>> = (1u32..1 << vars.len())
        .map(|m| vars.iter().enumerate().filter(|(n, _)| m >> n & 1 == 1).map(|(_, v)| *v).collect())
        .collect();
    out.sort_by_key(|s| std::cmp::Reverse(s.len()));
    out
}

/// `products`: definitions that a schedule would not store; `pairs`: those that pair data with data, of whatever size.
fn attempt(
    cx: &mut Cx,
    c: &Clause,
    r: &Reduction,
    outer: &[VarId],
    inner: &[VarId],
    products: &HashSet<TensorId>,
    pairs: &HashSet<TensorId>,
) -> Result<Plan, Stopped> {
    let mut s = Separate { cx, outer: outer.to_vec(), inner: inner.to_vec(), opened: Vec::new(), pairs, depth: 0 };
    let stop = |reason: &str| Stopped { reason: reason.to_owned(), scores: false };
    if !s.uses_outer(&r.body) || !s.uses_inner(&r.body) {
        return Err(stop("nothing to separate"));
    }
    let terms = s.expand(&r.body);
    let opened = s.opened.clone();
    for p in r.guard.conjuncts() {
        if s.couples(p) {
            let scores = s.scores();
            return Err(Stopped { reason: "the mask couples the indices".to_owned(), scores });
        }
    }
    let mut terms = terms?;
    if r.guard != Pred::True || terms.iter().any(|t| !t.guards.is_empty()) {
        terms.iter_mut().flat_map(|t| &mut t.factors).for_each(|f| *f = s.cx.relaxed(f));
    }
    let rest: Vec<VarId> = r.vars.iter().copied().filter(|v| !inner.contains(v)).collect();
    for t in &mut terms {
        t.vars.extend(&rest);
        t.guards.extend(r.guard.conjuncts().into_iter().cloned());
    }
    // Every opened sum would be evaluated for every pair, unless it is stored for others anyway.
    let saved: f64 =
        opened.iter().filter(|(t, _)| products.contains(t) || readers(s.cx, *t) == 1).map(|(_, work)| work).sum();
    let all: Vec<VarId> = c.vars.iter().chain(&r.vars).copied().collect();
    let scores = s.scores();
    let quadratic = s.cx.points(&all) + saved;
    let mut cost = 0.0;
    for t in &terms {
        let parts = parts(t, inner, &c.vars);
        cost += s.cx.points(parts.dims.iter().chain(&parts.summed));
        cost += s.cx.points(c.vars.iter().chain(&parts.outer_vars));
    }
    Ok(Plan { outer: outer.to_vec(), inner: inner.to_vec(), terms, cost, quadratic, scores })
}

fn readers(cx: &Cx, t: TensorId) -> usize {
    let results = cx.function.results.iter().filter(|r| r.tensor == t).count();
    results + cx.function.body.iter().filter(|s| s.reads().contains(&t)).count()
}

/// A product's two sides.
struct Parts {
    /// Factors and guards of the inner sum.
    inner: Vec<Expr>,
    inner_guards: Vec<Pred>,
    /// The inner sum's variables: `j`, and channels that only it uses.
    summed: Vec<VarId>,
    /// Its free variables: those of the definition, then the channels shared with the outside.
    dims: Vec<VarId>,
    /// Factors, guards and variables of the outer contraction.
    outer: Vec<Expr>,
    outer_guards: Vec<Pred>,
    outer_vars: Vec<VarId>,
}

fn parts(t: &Term, inner: &[VarId], clause_vars: &[VarId]) -> Parts {
    let within = |f: &Expr| inner.iter().any(|&v| f.uses(v));
    let (ins, outs): (Vec<Expr>, Vec<Expr>) = t.factors.iter().cloned().partition(within);
    let own = |v: VarId| ins.iter().any(|f| f.uses(v));
    let outside = |v: VarId| outs.iter().any(|f| f.uses(v));
    // A guard goes inside if it is about j or about channels that only the inner side has.
    let (inner_guards, outer_guards): (Vec<Pred>, Vec<Pred>) =
        t.guards.iter().cloned().partition(|p| {
            inner.iter().any(|&v| p.uses(v)) || t.vars.iter().any(|&v| p.uses(v) && own(v) && !outside(v))
        });
    let guarded = |gs: &[Pred], v: VarId| gs.iter().any(|g| g.uses(v));
    let in_inner = |v: VarId| own(v) || guarded(&inner_guards, v);
    let in_outer = |v: VarId| outside(v) || guarded(&outer_guards, v);
    let shared: Vec<VarId> = t.vars.iter().copied().filter(|&v| in_inner(v) && in_outer(v)).collect();
    let only_inner = t.vars.iter().copied().filter(|&v| in_inner(v) && !in_outer(v));
    let summed = inner.iter().copied().chain(only_inner).collect();
    let dims = clause_vars.iter().copied().filter(|&v| in_inner(v)).chain(shared.iter().copied()).collect();
    let outer_vars = t.vars.iter().copied().filter(|&v| shared.contains(&v) || !in_inner(v)).collect();
    Parts { inner: ins, inner_guards, summed, dims, outer: outs, outer_guards, outer_vars }
}

/// Writes the plan down: inner sums as definitions, then the outer contraction.
fn emit(cx: &mut Cx, at: usize, clause: usize, tensor: TensorId, c: &Clause, r: &Reduction, plan: Plan) -> usize {
    let elem = r.body.elem;
    let name = cx.function.tensor(tensor).name.clone();
    let mut inserted = 0;
    // Terms that contract the same variables under the same guards share one sum.
    type Group = (Vec<VarId>, Vec<Pred>, Vec<(f64, Vec<Expr>)>);
    let mut groups: Vec<Group> = Vec::new();
    let mut sums: Vec<(Expr, Vec<VarId>, TensorId)> = Vec::new();
    for t in &plan.terms {
        let p = parts(t, &plan.inner, &c.vars);
        let body = walk::product(elem, &p.inner, &[], 1.0);
        let sum = Expr::sum(p.summed.clone(), Pred::and(p.inner_guards.clone()), body);
        let known = sums.iter().find(|(e, dims, _)| *e == sum && *dims == p.dims).map(|(.., id)| *id);
        let inner = known.unwrap_or_else(|| {
            let id = cx.outline(at + inserted, &format!("{name}.sum{}", sums.len()), &p.dims, &sum);
            inserted += 1;
            sums.push((sum, p.dims.clone(), id));
            id
        });
        let mut factors = p.outer;
        factors.push(Expr::read(elem, inner, p.dims.iter().map(|&v| v.into()).collect()));
        match groups.iter_mut().find(|(v, g, _)| *v == p.outer_vars && *g == p.outer_guards) {
            Some((.., list)) => list.push((t.coef, factors)),
            None => groups.push((p.outer_vars, p.outer_guards, vec![(t.coef, factors)])),
        }
    }
    let (rank, single) = (plan.terms.len(), groups.len() == 1);
    let mut total: Option<Expr> = None;
    for (n, (vars, guards, products)) in groups.into_iter().enumerate() {
        let body = sum_of_products(elem, products);
        let sum = cx.freshen(&Expr::sum(vars, Pred::and(guards), body));
        let part = if single || !matches!(&*sum.node, Node::Reduce(_)) {
            sum
        } else {
            let dims: Vec<VarId> = c.vars.iter().copied().filter(|&v| sum.uses(v)).collect();
            let id = cx.outline(at + inserted, &format!("{name}.part{n}"), &dims, &sum);
            inserted += 1;
            Expr::read(elem, id, dims.iter().map(|&v| v.into()).collect())
        };
        total = Some(match total {
            Some(t) => Expr::add(t, part),
            None => part,
        });
    }
    cx.set_body(at + inserted, clause, total.unwrap_or_else(|| Expr::constant(elem, 0.0)));
    let text = format!("linear, rank {rank} (in {})", cx.names(&plan.outer));
    cx.fired(
        NAME,
        tensor,
        format!(
            "{text}: sums over {} become free of {}, {:.3e} products instead of {:.3e}",
            cx.names(&plan.inner),
            cx.names(&plan.outer),
            plan.cost,
            plan.quadratic
        ),
    );
    let site = cx.site(tensor);
    cx.report.algorithm(site, text);
    inserted
}

/// `sum of coef * factors`, with the factors common to all products outside.
fn sum_of_products(elem: crate::ir::Elem, mut products: Vec<(f64, Vec<Expr>)>) -> Expr {
    let mut common = Vec::new();
    if products.len() > 1 {
        for f in products[0].1.clone() {
            if products.iter().all(|(_, fs)| fs.contains(&f)) {
                for (_, fs) in &mut products {
                    if let Some(n) = fs.iter().position(|o| *o == f) {
                        fs.remove(n);
                    }
                }
                common.push(f);
            }
        }
    }
    let coef = products[0].0;
    let shared = products.iter().all(|(c, _)| *c == coef);
    let mut sum: Option<Expr> = None;
    for (c, fs) in products {
        let c = if shared { 1.0 } else { c };
        let p = walk::product(elem, &fs, &[], 1.0);
        sum = Some(match sum {
            None if c == -1.0 => Expr::neg(p),
            None => Expr::mul(Expr::constant(elem, c), p),
            Some(s) if c == -1.0 => Expr::sub(s, p),
            Some(s) => Expr::add(s, Expr::mul(Expr::constant(elem, c), p)),
        });
    }
    let sum = sum.unwrap_or_else(|| Expr::constant(elem, 0.0));
    let scale = Expr::constant(elem, if shared { coef } else { 1.0 });
    common.into_iter().fold(Expr::mul(scale, sum), |a, f| Expr::mul(f, a))
}
