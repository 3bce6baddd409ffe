//! What the reads of a definition cost, with one variable or another along the lanes.
//!
//! A read that all lanes share is a broadcast, neighbouring elements are one load, anything else is a load a lane, unless a copy of the tensor with its dimensions permuted makes it one.

use super::cost::expr_cost;
use super::expand::View;
use super::{Facts, join};
use crate::ir::index::Sizes;
use crate::ir::{Atom, BinaryOp, Bounds, Clause, Expr, Index, Node, Pred, TensorId, VarId};

/// What it costs to copy an element to where it is read from then on.
const COPY: f64 = 16.0;

/// Bytes of a tensor from which on its elements are not near when they are read.
pub const AWAY: usize = 2 << 20;

/// Whether a tensor's elements are not near when they are read.
pub fn is_away(view: &View<'_>, tensor: TensorId) -> bool {
    view.shape(tensor).iter().product::<usize>() * 4 > AWAY
}

/// A read in the body, with how often it happens for a point of the result.
pub struct Load {
    pub tensor: TensorId,
    pub at: Vec<Index>,
    pub address: Index,
    pub weight: f64,
    /// The variables of the conditions under which it is wanted.
    under: Vec<VarId>,
    /// Its share of a factor of a sum: of the terms of a sum each has its own, and what is added up to make one is computed once for all products that it is in.
    share: f64,
}

/// How much a clause does.
#[derive(Clone, Copy)]
pub struct Work {
    /// The elements it defines.
    pub points: f64,
    /// The cost of all.
    pub cost: f64,
}

impl Work {
    /// That of a clause with this body.
    pub fn of(view: &View<'_>, clause: &Clause, body: &Expr) -> Work {
        let points = clause.vars.iter().map(|&v| view.size_of(v) as f64).product();
        Work { points, cost: expr_cost(&view.axes, &view.function, body) * points }
    }
}

impl Load {
    /// Whether it depends on a variable.
    pub fn uses(&self, v: VarId) -> bool {
        self.address.uses(v) || self.under.contains(&v)
    }
    /// Whether neighbouring values of a variable read neighbouring elements, all or none of them.
    pub fn runs_along(&self, v: VarId) -> bool {
        lane_cost(self, v).0 == 1.0
    }
}

/// All reads, weighted by the points of those reductions around them on which they depend.
pub fn loads(view: &View<'_>, body: &Expr) -> Vec<Load> {
    // What is decided by values changes no address: under such a condition lanes may be loaded that it leaves out.
    fn places(p: &Pred, out: &mut Vec<VarId>) {
        match p {
            Pred::True | Pred::Value(_) => {}
            Pred::Zero(i) | Pred::NonNeg(i) => i.visit_vars(&mut |v| out.push(v)),
            Pred::Not(p) => places(p, out),
            Pred::And(ps) | Pred::Or(ps) => ps.iter().for_each(|p| places(p, out)),
        }
    }
    fn walk(view: &View<'_>, e: &Expr, around: &[&[VarId]], under: &[VarId], out: &mut Vec<Load>) {
        let with = |p: &Pred| {
            let mut all = under.to_vec();
            places(p, &mut all);
            all
        };
        match &*e.node {
            Node::Read { tensor, at, bounds } => {
                let shape = view.shape(*tensor);
                let under = match bounds {
                    Bounds::Inside => under.to_vec(),
                    Bounds::Zero => {
                        with(&Pred::and(at.iter().zip(&shape).map(|(i, &n)| Pred::within(i, 0, n as i64, view))))
                    }
                };
                let (at, address) = (at.to_vec(), view.address(*tensor, at));
                let mut load = Load { tensor: *tensor, at, address, weight: 1.0, under, share: 1.0 };
                let vars = around.iter().filter(|vars| vars.iter().any(|&v| load.uses(v))).copied().flatten();
                load.weight = vars.map(|&v| view.size_of(v) as f64).product();
                out.push(load);
            }
            Node::Reduce(r) => {
                let around: Vec<&[VarId]> = around.iter().copied().chain([&r.vars[..]]).collect();
                return walk(view, &r.body, &around, &with(&r.guard), out);
            }
            Node::Select(p, a, b) => {
                let under = with(p);
                walk(view, a, around, &under, out);
                return walk(view, b, around, &under, out);
            }
            Node::Binary(BinaryOp::Mul, a, b) if !around.is_empty() => {
                for (part, share) in [a, b].into_iter().flat_map(|f| parts(f, around)) {
                    let first = out.len();
                    walk(view, part, around, under, out);
                    out[first..].iter_mut().for_each(|l| l.share *= share);
                }
                return;
            }
            _ => {}
        }
        e.for_each_child(&mut |c| walk(view, c, around, under, out));
    }
    /// What a factor consists of, with shares: a choice by summed variables alone of what is chosen, a sum of what is added up.
    fn parts<'e>(e: &'e Expr, around: &[&[VarId]]) -> Vec<(&'e Expr, f64)> {
        let summed = |a: &Atom| matches!(a, Atom::Var(v) if around.iter().any(|vars| vars.contains(v)));
        let mut chosen = vec![e];
        while let Node::Select(Pred::Zero(i), a, b) = &*chosen[chosen.len() - 1].node
            && i.terms.iter().all(|(a, _)| summed(a))
        {
            chosen.pop();
            chosen.extend([a, b]);
        }
        let mut out = Vec::new();
        for &e in &chosen {
            let mut all = Vec::new();
            join::addends(e, &mut all);
            let share = 1.0 / (chosen.len() * all.len()) as f64;
            out.extend(all.into_iter().map(|e| (e, share)));
        }
        out
    }
    let mut out = Vec::new();
    walk(view, body, &[], &[], &mut out);
    out
}

/// What a read costs when `v` runs along the lanes; `None` if a permuted copy would make it one load.
pub fn lane_cost(load: &Load, v: VarId) -> (f64, bool) {
    let direct = load.address.coefficient(v);
    let nested = load.address.terms.iter().any(|(a, _)| !matches!(a, Atom::Var(_)) && Index::atom(a.clone()).uses(v));
    match (direct, nested) {
        (0, false) => (0.3, false),
        (1, false) if !load.under.contains(&v) => (1.0, false),
        _ => {
            // One dimension is the variable itself: a copy with that dimension last helps.
            let bare = load.at.iter().filter(|i| i.uses(v)).count() == 1
                && load.at.iter().any(|i| i.as_var() == Some(v))
                && !load.under.contains(&v);
            (10.0, bare)
        }
    }
}

/// Whether a copy of so many elements is cheap beside the work.
pub fn is_cheap_to_copy(elements: f64, work: Work) -> bool {
    elements * COPY <= work.cost
}

/// What a read costs from a permuted copy of its tensor, with its share of making the copy; `None` if that is not small beside the work.
pub fn copied_cost(view: &View<'_>, load: &Load, work: Work) -> Option<f64> {
    let size = view.shape(load.tensor).iter().product::<usize>() as f64;
    let times = load.weight * work.points / size;
    (load.weight >= 8.0 && is_cheap_to_copy(size, work) && times >= 2.0).then_some(1.0 + COPY / times)
}

/// Whether most of what is done is to take apart, or put together, vectors in inner loops, with this variable along the lanes.
pub fn taken_apart(view: &View<'_>, loads: &[Load], lane: VarId, work: Work) -> bool {
    let heaviest = loads.iter().map(|l| l.weight).fold(1.0, f64::max);
    loads.iter().any(|l| {
        let (cost, copyable) = lane_cost(l, lane);
        l.weight == heaviest && heaviest >= 8.0 && cost > 1.0 && !(copyable && copied_cost(view, l, work).is_some())
    })
}

pub fn choose_lane(
    view: &View<'_>,
    facts: &Facts,
    tensor: TensorId,
    clause: &Clause,
    loads: &[Load],
    work: Work,
) -> Option<VarId> {
    let heaviest = loads.iter().map(|l| l.weight).fold(1.0, f64::max);
    let address = view.address(tensor, &clause.at);
    let mut best: Option<(f64, VarId)> = None;
    for &v in clause.vars.iter().rev() {
        let size = view.size_of(v) as usize;
        if size == 1 {
            continue;
        }
        let store = if address.coefficient(v) == 1 { 1.0 } else { 8.0 };
        let mut cost = store / heaviest;
        for l in loads {
            let (c, copyable) = lane_cost(l, v);
            let c = if copyable { copied_cost(view, l, work).map_or(c, |copied| copied.min(c)) } else { c };
            cost += c * l.share * l.weight / heaviest;
        }
        // Flattening makes short innermost dimensions long enough.
        let run: usize = if Some(&v) == clause.vars.last() {
            clause.vars.iter().map(|&v| view.size_of(v) as usize).product()
        } else {
            size
        };
        let used = pow2(run.min(facts.lanes)).max(1);
        let cost = cost * facts.lanes as f64 / used as f64;
        if best.is_none_or(|(c, _)| cost < c * 0.999) {
            best = Some((cost, v));
        }
    }
    best.map(|(_, v)| v)
}

/// The largest power of two that is no larger.
pub fn pow2(n: usize) -> usize {
    if n == 0 { 1 } else { 1 << n.ilog2() }
}

/// The lane variable with those before it, until a vector is full, and how many elements they have.
pub fn lane_group(view: &View<'_>, facts: &Facts, clause: &Clause, lane: VarId) -> (Vec<VarId>, usize) {
    let mut group = vec![lane];
    let mut size = view.size_of(lane) as usize;
    let mut p = clause.vars.iter().position(|&v| v == lane).expect("the lane variable is one of the clause's");
    while size < facts.lanes && p > 0 {
        p -= 1;
        group.insert(0, clause.vars[p]);
        size *= view.size_of(clause.vars[p]) as usize;
    }
    (group, size)
}

/// The lane variable with as many of those before it as make what is loaded cheapest: a short vector of neighbours beats a long one that is put together.
pub fn cheapest_group(
    view: &View<'_>,
    facts: &Facts,
    clause: &Clause,
    lane: VarId,
    loads: &[Load],
) -> (Vec<VarId>, usize) {
    let heaviest = loads.iter().map(|l| l.weight).fold(1.0, f64::max);
    let (all, _) = lane_group(view, facts, clause, lane);
    let mut best: Option<(f64, Vec<VarId>, usize)> = None;
    for n in 1..=all.len() {
        let group = &all[all.len() - n..];
        let size = group.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
        let loaded: f64 = loads.iter().map(|l| (2.0 + group_cost(view, l, group)) * l.weight / heaviest).sum();
        let cost = loaded / pow2(size.min(facts.lanes)) as f64;
        if best.as_ref().is_none_or(|(least, ..)| cost <= *least) {
            best = Some((cost, group.to_vec(), size));
        }
    }
    best.map(|(_, group, size)| (group, size)).expect("there is the lane variable alone")
}

/// What a read costs with these variables, flattened, along the lanes.
fn group_cost(view: &View<'_>, load: &Load, group: &[VarId]) -> f64 {
    let (&lane, outer) = group.split_last().expect("there is a lane variable");
    let (cost, _) = lane_cost(load, lane);
    let mut below = view.size_of(lane);
    for &v in outer.iter().rev() {
        let step = if cost == 1.0 { below } else { 0 };
        if load.under.contains(&v) || load.address.coefficient(v) != step || (step == 0 && load.address.uses(v)) {
            return cost.max(10.0);
        }
        below *= view.size_of(v);
    }
    cost
}

/// What a vector of an expression costs to load, with the last of these variables along the lanes.
pub fn panel_cost(view: &View<'_>, e: &Expr, lanes: &[VarId]) -> f64 {
    let Some(&lane) = lanes.last() else { return 1.0 };
    loads(view, e).iter().map(|l| lane_cost(l, lane).0 * l.weight).sum()
}
