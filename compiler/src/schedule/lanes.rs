//! Which rows of a row kernel run along the lanes.

use super::Facts;
use super::cost::points;
use super::expand::View;
use super::rows::Member;
use super::stages::{Key, key, open};
use crate::ir::index::Sizes;
use crate::ir::{Expr, Index, Node, TensorId, VarId};
use std::collections::HashMap;

/// What a value costs that all lanes share: it is loaded once and spread.
const SHARED: f64 = 0.5;
/// What a vector of neighbouring elements costs.
const LOADED: f64 = 1.0;
/// What a vector costs whose elements lie apart.
const GATHERED: f64 = 16.0;

/// A read of a stored tensor by the members, with virtual tensors between them computed where they are read.
pub struct Load {
    /// Its row-major position.
    address: Index,
    /// How often it happens in a row.
    times: f64,
    /// How many different elements a row reads.
    distinct: f64,
    /// Whether it can be kept in a local array.
    kept: bool,
}

/// The rows (consecutive ones, by number) whose flattened index is the lane: those for which the members' loads cost least, and of equals the
/// most.
pub fn choose(view: &mut View<'_>, facts: &Facts, members: &[Member], sizes: &[usize]) -> Vec<usize> {
    best(view, facts, members, sizes).map_or_else(|| vec![sizes.len() - 1], |(_, _, run)| run)
}

/// What the loads of a row cost in a kernel with a row in every lane.
pub fn row_cost(view: &mut View<'_>, facts: &Facts, members: &[Member], sizes: &[usize]) -> f64 {
    best(view, facts, members, sizes).map_or(f64::INFINITY, |(cost, ..)| cost / facts.lanes as f64)
}

/// Whether most loads are of values that all rows along the lanes share.
pub fn shared(loads: &[Load], lanes: &[VarId]) -> bool {
    let (mut shared, mut own) = (0.0, 0.0);
    for l in loads {
        if lanes.iter().any(|&v| l.address.uses(v)) {
            own += if l.kept { l.distinct } else { l.times };
        } else {
            shared += l.times;
        }
    }
    shared > own
}

/// Whether elements lie next to one another along a variable.
pub fn contiguous(address: &Index, v: VarId) -> bool {
    address.coefficient(v) == 1 && !address.sub(&Index::from(v)).uses(v)
}

/// What a load costs with a variable (or none) along the lanes.
pub fn load_cost(address: &Index, lane: Option<VarId>) -> f64 {
    match lane {
        Some(v) if address.uses(v) => {
            if contiguous(address, v) {
                LOADED
            } else {
                GATHERED
            }
        }
        _ => SHARED,
    }
}

fn best(view: &mut View<'_>, facts: &Facts, members: &[Member], sizes: &[usize]) -> Option<(f64, usize, Vec<usize>)> {
    let rows = members[0].rows.clone();
    let loads = loads(view, members, &rows);
    let order = |r: usize| members[0].clause.vars.iter().position(|&v| v == rows[r]);
    let mut best: Option<(f64, usize, Vec<usize>)> = None;
    for start in 0..sizes.len() {
        let mut run = Vec::new();
        for r in start..sizes.len() {
            if r > start && order(r) != order(r - 1).map(|p| p + 1) {
                break;
            }
            run.push(r);
            let size: usize = run.iter().map(|&r| sizes[r]).product();
            let width = 1 << size.min(facts.lanes).ilog2();
            // Vectors a full one's worth of rows takes, with those that overlap.
            let waste = (size.div_ceil(width) * facts.lanes) as f64 / size as f64;
            let lanes: Vec<VarId> = run.iter().map(|&r| rows[r]).collect();
            let cost = waste * loads.iter().map(|l| cost(l, &lanes)).sum::<f64>();
            let better = best.as_ref().is_none_or(|(c, s, _)| cost < c * 0.99 || (cost < c * 1.01 && size > *s));
            if better {
                best = Some((cost, size, run.clone()));
            }
        }
    }
    best
}

fn cost(l: &Load, lanes: &[VarId]) -> f64 {
    if !lanes.iter().any(|&v| l.address.uses(v)) {
        return SHARED * l.times;
    }
    let Some((&last, outer)) = lanes.split_last() else { return 0.0 };
    let plain = l.address.coefficient(last) == 1 && outer.iter().all(|&v| !l.address.uses(v));
    match (plain, l.kept) {
        (true, _) => LOADED * l.times,
        (false, true) => GATHERED * l.distinct + LOADED * l.times,
        (false, false) => GATHERED * l.times,
    }
}

/// All loads of the members.
pub fn loads(view: &mut View<'_>, members: &[Member], rows: &[VarId]) -> Vec<Load> {
    let own: Vec<TensorId> = members.iter().map(|m| m.tensor).collect();
    let before = std::mem::replace(&mut view.row_vars, rows.to_vec());
    let mut found = Found { own, loads: Vec::new(), pending: Vec::new() };
    for m in members {
        let map: HashMap<VarId, Index> = m.rows.iter().copied().zip(rows.iter().map(|&v| v.into())).collect();
        let body = m.clause.body.subst_vars(&|v| map.get(&v).cloned(), view);
        let inner: Vec<VarId> = m.clause.vars.iter().copied().filter(|v| !m.rows.contains(v)).collect();
        let times = points(&view.axes, &view.function, &inner) as f64;
        found.walk(view, &body, times);
    }
    // Readers of virtual tensors before what those read.
    let mut virtuals: Vec<TensorId> = view.function.body.iter().rev().flat_map(|s| s.defines()).collect();
    virtuals.retain(|&t| view.is_virtual(t));
    for t in virtuals {
        while let Some(n) = found.pending.iter().position(|((tensor, _), _)| *tensor == t) {
            let (key, times) = found.pending.swap_remove(n);
            let (vars, at) = open(view, &key);
            let size = points(&view.axes, &view.function, &vars) as f64;
            let body = view.body_at(t, &at);
            found.walk(view, &body, times.min(size));
        }
    }
    view.row_vars = before;
    found.loads
}

struct Found {
    own: Vec<TensorId>,
    loads: Vec<Load>,
    /// Virtual tensors that are read, at a row, and how often.
    pending: Vec<(Key, f64)>,
}

impl Found {
    fn walk(&mut self, view: &mut View<'_>, e: &Expr, times: f64) {
        match &*e.node {
            Node::Reduce(r) => {
                let n = points(&view.axes, &view.function, &r.vars) as f64;
                return self.walk(view, &r.body, times * n);
            }
            Node::Read { tensor, at, .. } => match key(view, *tensor, at) {
                Some((key, _)) if view.is_virtual(*tensor) => match self.pending.iter_mut().find(|(k, _)| *k == key) {
                    Some((_, n)) => *n += times,
                    None => self.pending.push((key, times)),
                },
                None if view.is_virtual(*tensor) => {
                    let body = view.body_at(*tensor, at);
                    self.walk(view, &body, times);
                }
                kept if !self.own.contains(tensor) => {
                    let address = view.address(*tensor, at);
                    let mut vars = Vec::new();
                    at.iter().for_each(|i| i.visit_vars(&mut |v| vars.push(v)));
                    vars.sort_unstable();
                    vars.dedup();
                    vars.retain(|v| !view.row_vars.contains(v));
                    let distinct = vars.iter().map(|&v| view.size_of(v) as f64).product::<f64>().min(times);
                    self.loads.push(Load { address, times, distinct, kept: kept.is_some() });
                }
                _ => {}
            },
            _ => {}
        }
        e.for_each_child(&mut |c| self.walk(view, c, times));
    }
}
