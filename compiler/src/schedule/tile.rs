//! The schedule of one definition by itself: register tiles.
//!
//! One variable of the result runs along the lanes, in up to four vectors; for a contraction a second one is unrolled, so that what is loaded for
//! one point serves the others. Both are chosen by what the reads of the inner loop cost: a read that all lanes share is a broadcast, neighbouring elements
//! are one load, anything else is a load a lane. A tensor that is read across its rows is copied once with its dimensions permuted, if that is cheap beside the work; so is a large
//! result that its lanes would be stored across.
//! Lanes that share nothing gain nothing from further vectors: their tiles are one vector wide.
//! Sizes that are no multiple of a tile are covered by tiles that overlap: what is computed twice is stored twice with the same bits.

use super::along::has_reduce;
use super::copies::{by_way_of_copy, copies, put_apart, relayout};
use super::cost::{expr_cost, value_cost};
use super::emit::Scope;
use super::expand::View;
use super::loads::{Load, Work, cheapest_group, choose_lane, loads, pow2, taken_apart};
use super::passes::Member;
use super::rows;
use super::soon::{self, Next};
use super::{Facts, Planner, along, columns, join, panel, turn};
use crate::ir::index::Sizes;
use crate::ir::{Clause, Expr, Index, TensorId, VarId};
use crate::loops::{Kernel, ValueId};
use std::collections::HashMap;

/// The cost of a result, conditions aside, under which it is memory that takes the time.
const LIGHT: f64 = 96.0;

/// The most unrolled steps of a tile whose lanes share nothing. The processor works on so few results at a time anyway, and with more of them what is around
/// the sums no longer fits the registers.
const OWN_STEPS: usize = 8;

/// Neighbouring elements that are in one line of memory.
const ACROSS: usize = 16;

/// The shape of a tile.
struct Tile {
    /// The result's variables that run along the lanes, flattened row-major.
    lane: Vec<VarId>,
    /// Lanes of a vector.
    width: usize,
    /// Vectors along the lane variables.
    vectors: usize,
    /// The unrolled variable and how far.
    unrolled: Option<(VarId, usize)>,
    /// Another short one that is unrolled as a whole.
    beside: Option<VarId>,
}

/// The kernel of one clause of a definition.
pub fn schedule(planner: &mut Planner<'_>, tensor: TensorId, clause: &Clause, site: &str) {
    let facts = planner.facts.clone();
    let body = planner.view.expand(&clause.body, &mut |_, _, _| None);
    let body = without_single(&planner.view, &body);
    let body = if facts.has_near_memory() { join::sums(&mut planner.view, &body) } else { body };
    if let Some((kernel, tensors)) = turn::schedule(&mut planner.view, &facts, tensor, clause, &body) {
        return planner.launch(kernel, tensors, site);
    }
    let reads = loads(&planner.view, &body);
    let work = Work::of(&planner.view, clause, &body);
    let lane = choose_lane(&planner.view, &facts, tensor, clause, &reads, work);
    if let Some(v) = lane
        && taken_apart(&planner.view, &reads, v, work)
    {
        let rows = clause.vars.clone();
        let clause = Clause { body: body.clone(), ..clause.clone() };
        let members = [rows::Member { tensor, clause, rows, sum: None }];
        if let Some(width) = along::width(&mut planner.view, &facts, &members) {
            let (kernel, tensors) = along::build(&mut planner.view, &facts, &members, width);
            return planner.launch(kernel, tensors, site);
        }
    }
    if let Some(v) = lane
        && columns::schedule(planner, tensor, clause, &body, v, site)
    {
        return;
    }
    if let Some(dim) = lane.and_then(|v| put_apart(&planner.view, tensor, clause, v, &reads, work)) {
        return by_way_of_copy(planner, (tensor, clause), &body, dim, site);
    }
    let panels = |planner: &mut Planner<'_>, body: &Expr, copies: &[(TensorId, usize)]| {
        lane.and_then(|lane| panel::schedule(&mut planner.view, &facts, (tensor, clause), body, lane, copies))
    };
    let copies = lane.map(|v| copies(&planner.view, v, &reads, work)).unwrap_or_default();
    if let Some((kernel, tensors)) = panels(planner, &body, &copies) {
        return planner.launch(kernel, tensors, site);
    }
    let body = match lane {
        Some(v) => relayout(planner, &body, v, copies, site),
        None => body,
    };
    if let Some((kernel, tensors)) = panels(planner, &body, &[]) {
        return planner.launch(kernel, tensors, site);
    }
    let reads = loads(&planner.view, &body);
    let tile = shape(&mut planner.view, &facts, (tensor, clause), lane, &reads, &body);
    // Nothing comes after it.
    let member = Member { tensor, clause: Clause { body, ..clause.clone() }, held: tensor, stored: true };
    let (kernel, tensors) = emit(&mut planner.view, &facts, &[member], &tile);
    planner.launch(kernel, tensors, site);
}

/// One kernel for the members of a pass.
pub fn schedule_together(planner: &mut Planner<'_>, mut members: Vec<Member>, site: &str) {
    let facts = planner.facts.clone();
    let lane = members[0].clause.vars.last().copied();
    for m in &mut members {
        let body = without_single(&planner.view, &m.clause.body);
        let reads = loads(&planner.view, &body);
        let work = Work::of(&planner.view, &m.clause, &body);
        m.clause.body = match lane {
            Some(v) => {
                let copies = copies(&planner.view, v, &reads, work);
                relayout(planner, &body, v, copies, site)
            }
            None => body,
        };
    }
    let (first, clause) = (members[0].tensor, &members[0].clause);
    let reads: Vec<Load> = members.iter().flat_map(|m| loads(&planner.view, &m.clause.body)).collect();
    let tile = shape(&mut planner.view, &facts, (first, clause), lane, &reads, &clause.body);
    let (kernel, tensors) = emit(&mut planner.view, &facts, &members, &tile);
    planner.launch(kernel, tensors, site);
}

/// What can only be 0 is no part of an index: `64 g + o` with one group is `o`.
pub fn without_single(view: &View<'_>, e: &Expr) -> Expr {
    e.subst_vars(&|v| (view.size_of(v) == 1).then(Index::default), view)
}

fn shape(
    view: &mut View<'_>,
    facts: &Facts,
    (tensor, clause): (TensorId, &Clause),
    lane: Option<VarId>,
    loads: &[Load],
    body: &Expr,
) -> Tile {
    let Some(lane) = lane else { return Tile { lane: Vec::new(), width: 1, vectors: 1, unrolled: None, beside: None } };
    let (group, size) = cheapest_group(view, facts, clause, lane, loads);
    let width = pow2(size.min(facts.lanes));
    let heavy = loads.iter().map(|l| l.weight).fold(1.0, f64::max) >= 4.0;
    let contraction = heavy && has_reduce(body);
    // The unrolled variable: the one that most of the inner loop's reads do not depend on.
    let mut unrolled: Option<(f64, VarId)> = None;
    if contraction {
        for &v in clause.vars.iter().filter(|v| !group.contains(v)) {
            if view.size_of(v) < 2 {
                continue;
            }
            let shared: f64 =
                loads.iter().filter(|l| l.weight >= 4.0 && !l.at.iter().any(|i| i.uses(v))).map(|l| l.weight).sum();
            let lane_shared: bool = loads.iter().any(|l| {
                l.weight >= 4.0
                    && !l.at.iter().any(|i| i.uses(v))
                    && group.iter().any(|&g| l.at.iter().any(|i| i.uses(g)))
            });
            let score = shared + if lane_shared { shared } else { 0.0 } + view.size_of(v) as f64 * 1e-6;
            if shared > 0.0 && unrolled.is_none_or(|(s, _)| score > s) {
                unrolled = Some((score, v));
            }
        }
    }
    // What the lanes take apart, neighbours along another variable take from the same lines of memory.
    if !contraction
        && let Some(v) = across(view, tensor, clause, &group, loads)
        && view.size_of(v) >= 4
    {
        let step = (view.size_of(v) as usize).min(ACROSS);
        return Tile { lane: group, width, vectors: 1, unrolled: Some((v, step)), beside: None };
    }
    let unroll_size = unrolled.map_or(1, |(_, v)| view.size_of(v) as usize);
    let (mut vectors, unroll) = match unrolled {
        // More vectors would lie between those of neighbouring items.
        _ if facts.lockstep => {
            let others = clause.vars.iter().filter(|v| !group.contains(v) && unrolled.is_none_or(|(_, u)| u != **v));
            let others: usize = others.map(|&v| view.size_of(v) as usize).product();
            (1, lockstep_steps(facts, others * size.div_ceil(width), unroll_size))
        }
        // More vectors would have their own loads of everything.
        Some(_) if lanes_share_nothing(&group, loads) => (1, own_steps(facts, unroll_size)),
        _ => register_tile(facts, size, width, unroll_size, contraction),
    };
    // A short variable that is all unrolled leaves room for another one that shares the same reads.
    let mut beside = None;
    if let Some((_, v)) = unrolled
        && unroll == unroll_size
    {
        let shared = |w: VarId| loads.iter().any(|l| l.weight >= 4.0 && !l.uses(v) && !l.uses(w));
        let fits = |w: VarId| {
            let size = view.size_of(w) as usize;
            size > 1 && unroll * size + size + 2 <= facts.registers
        };
        let others = clause.vars.iter().copied().filter(|w| *w != v && !group.contains(w));
        beside = others.rev().find(|&w| fits(w) && shared(w));
        if let Some(w) = beside {
            vectors = vectors.min((facts.registers / (unroll * view.size_of(w) as usize + 1)).max(1));
        }
    }
    let unrolled = unrolled.filter(|_| unroll > 1).map(|(_, v)| (v, unroll));
    Tile { lane: group, width, vectors, unrolled, beside }
}

/// A variable of the result along which what the lanes take apart, or put apart, goes through memory.
fn across(view: &View<'_>, tensor: TensorId, clause: &Clause, group: &[VarId], loads: &[Load]) -> Option<VarId> {
    let lane = *group.last()?;
    let to = view.address(tensor, &clause.at);
    let all = loads.iter().map(|l| &l.address).chain([&to]);
    let apart = all.filter(|a| a.uses(lane) && a.coefficient(lane) != 1);
    let along = |a: &Index| clause.vars.iter().copied().find(|v| !group.contains(v) && a.coefficient(*v) == 1);
    apart.filter_map(along).next()
}

/// Vectors along the lanes and unrolled steps of a register tile, for so many elements along the lanes and so many steps.
pub fn register_tile(
    facts: &Facts,
    size: usize,
    width: usize,
    unroll_size: usize,
    contraction: bool,
) -> (usize, usize) {
    // A line of lanes that few vectors cover is one tile, whose last vector may overlap the one before it.
    let most = size.div_ceil(width);
    let most = if most <= 4 { most } else { size / width };
    let mut best = (f64::INFINITY, 1, 1);
    for vectors in 1..=most.min(4) {
        for unroll in 1..=unroll_size.min(if contraction { 14 } else { 1 }) {
            let registers = unroll * vectors + vectors + 1;
            if registers > facts.registers.max(6) || (!contraction && vectors > 4) {
                continue;
            }
            // Work done, with overlap, for every useful vector of results.
            let covered = (size.div_ceil(width * vectors) * width * vectors) as f64 / size as f64;
            let covered = covered * (unroll_size.div_ceil(unroll) * unroll) as f64 / unroll_size as f64;
            // Four independent chains hide the latency of a multiply-add.
            let chains = (4.0 / (unroll * vectors) as f64).max(1.0);
            let cost = covered * price(vectors, unroll) * if contraction { chains } else { 1.0 };
            if cost < best.0 - 1e-9 {
                best = (cost, vectors, unroll);
            }
        }
    }
    (best.1, best.2)
}

/// What a vector of results costs in a register tile of so many vectors and steps, loads and the loop's own instructions included.
pub fn price(vectors: usize, unroll: usize) -> f64 {
    1.0 + 0.6 * (unroll + vectors + 2) as f64 / (unroll * vectors) as f64
}

/// Unrolled steps of a register tile where items run in lockstep, `others` of them for each tile of so many steps: as many as leave items for all units, or
/// nearly so if they fill vectors: what lies side by side is then read as vectors.
fn lockstep_steps(facts: &Facts, others: usize, size: usize) -> usize {
    let computed = |n: usize| size.div_ceil(n) * n;
    let most = size.min(facts.registers / 2);
    let steps = (1..=most).rev().filter(|&n| computed(n) * 8 <= size * 9);
    let enough = |n: &usize| others * size.div_ceil(*n) >= facts.units;
    let nearly = |n: &usize| n.is_multiple_of(facts.lanes) && others * size.div_ceil(*n) * 4 >= facts.units * 3;
    let few = most.min(4);
    if let Some(vectors) = steps.clone().find(nearly) {
        return vectors;
    }
    steps.clone().find(enough).or_else(|| steps.into_iter().find(|&n| n <= few)).unwrap_or(few).max(1)
}

/// The values of the lane variable in the first vector of a tile.
pub fn lane_range(size: usize, width: usize, vectors: usize) -> usize {
    if vectors * width > size { width } else { size - (vectors - 1) * width }
}

/// Where the vectors and unrolled steps of a tile stand.
pub struct Place<'a> {
    /// The kernel's variable along the lanes.
    pub lane: Option<VarId>,
    /// The result's variables that run along the lanes, flattened row-major.
    pub group: &'a [VarId],
    /// Lanes of a vector.
    pub width: usize,
    /// The unrolled variable and the kernel's variable for its first step.
    pub unrolled: Option<(VarId, VarId)>,
}

impl Place<'_> {
    /// What the result's variables are at vector `m` and unrolled step `n`.
    pub fn at(&self, view: &View<'_>, m: usize, n: usize) -> HashMap<VarId, Index> {
        let mut map = HashMap::new();
        if let Some(lane) = self.lane {
            let size: usize = self.group.iter().map(|&v| view.size_of(v) as usize).product();
            let flat = Index::from(lane).plus((m * self.width).min(size - self.width) as i64);
            let mut below = 1i64;
            for (k, &v) in self.group.iter().enumerate().rev() {
                let size = view.size_of(v);
                let q = flat.div(below, view);
                map.insert(v, if k == 0 { q } else { q.modulo(size, view) });
                below *= size;
            }
        }
        if let Some((v, base)) = self.unrolled {
            map.insert(v, Index::from(base).plus(n as i64));
        }
        map
    }
}

/// Whether the lanes share nothing that is loaded most often.
fn lanes_share_nothing(group: &[VarId], loads: &[Load]) -> bool {
    let heaviest = loads.iter().map(|l| l.weight).fold(1.0, f64::max);
    let Some(lane) = group.last() else { return false };
    loads.iter().filter(|l| l.weight == heaviest).all(|l| l.address.coefficient(*lane) == 1)
}

/// Unrolled steps of a tile whose lanes share nothing: the sums and what is around them fit the registers, and neighbours share most of a window.
fn own_steps(facts: &Facts, size: usize) -> usize {
    let most = size.min(OWN_STEPS).min(facts.registers / 2).max(1);
    let cost = |n: usize| (size.div_ceil(n) * (n + 2)) as f64;
    (1..=most).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(1)
}

/// The kernel of clauses with the same variables.
fn emit(view: &mut View<'_>, facts: &Facts, members: &[Member], tile: &Tile) -> (Kernel, Vec<TensorId>) {
    let vars = &members[0].clause.vars;
    let lane_size: usize = tile.lane.iter().map(|&v| view.size_of(v) as usize).product();
    let span = tile.width * tile.vectors;
    let lane = (!tile.lane.is_empty()).then(|| view.var("lane", lane_range(lane_size, tile.width, tile.vectors)));
    view.aligned_lane = lane.filter(|_| lane_size.is_multiple_of(span));
    let unrolled = tile.unrolled.map(|(v, n)| (v, n, view.var("tile", view.size_of(v) as usize - n + 1)));

    let place = Place { lane, group: &tile.lane, width: tile.width, unrolled: unrolled.map(|(v, _, base)| (v, base)) };
    let steps = unrolled.map_or(1, |(_, n, _)| n);
    let mut points: Vec<HashMap<VarId, Index>> = Vec::new();
    let besides = tile.beside.map_or(1, |w| view.size_of(w) as usize);
    for (n, k) in (0..steps).flat_map(|n| (0..besides).map(move |k| (n, k))) {
        for m in 0..tile.vectors {
            let mut map = place.at(view, m, n);
            map.extend(tile.beside.map(|w| (w, Index::from(k as i64))));
            points.push(map);
        }
    }

    // Items run over the tiles and the other variables; short ones take a loop over some of those.
    let mut outer: Vec<VarId> = vars
        .iter()
        .copied()
        .filter(|v| !tile.lane.contains(v) && unrolled.is_none_or(|(u, ..)| u != *v) && tile.beside != Some(*v))
        .collect();
    // Where memory is gone through in order, the tiles of the unrolled variable come where it does.
    let before_unrolled =
        unrolled.map_or(0, |(u, ..)| vars.iter().take_while(|v| **v != u).filter(|v| outer.contains(v)).count());
    let lane_tiles = lane_size.div_ceil(span);
    let unroll_tiles = unrolled.map_or(1, |(v, n, _)| (view.size_of(v) as usize).div_ceil(n));
    let mut items: usize =
        outer.iter().map(|&v| view.size_of(v) as usize).product::<usize>() * lane_tiles * unroll_tiles;
    let each: f64 = members.iter().map(|m| expr_cost(&view.axes, &view.function, &m.clause.body)).sum();
    let values: f64 = members.iter().map(|m| value_cost(&view.axes, &view.function, &m.clause.body)).sum();
    let mut cost = each * points.len() as f64;
    let mut serial = Vec::new();
    // Where little is done for a result, items go through memory in order; where much is, they stay with what their lanes need.
    // In lockstep, it is the items side by side that go through memory in order.
    let own_lanes = || {
        let loads: Vec<Load> = members.iter().flat_map(|m| loads(view, &m.clause.body)).collect();
        lanes_share_nothing(&tile.lane, &loads)
    };
    let ordered = lane_tiles > 1 && (facts.lockstep || values < LIGHT || own_lanes());
    let tile_var = ordered.then(|| view.var("tiles", lane_tiles));
    let in_order = tile_var.is_some();
    if let Some(v) = tile_var {
        outer.push(v);
    }
    while !facts.lockstep
        && cost < 512.0
        && let Some(&v) = outer.last()
    {
        let size = view.size_of(v) as usize;
        if items / size < facts.units * 8 {
            break;
        }
        items /= size;
        cost *= size as f64;
        serial.insert(0, v);
        outer.pop();
    }

    let name = view.name(members[members.len() - 1].tensor);
    let view = &*view;
    let mut s = Scope::new(name, view, tile.width as u8);
    s.lane_var = lane;
    s.kernel.items = items as u32;
    let item = s.item();
    let mut rest = item;
    if let Some((v, n, base)) = unrolled.filter(|_| !in_order) {
        let (tile_index, left) = s.split_item(rest, unroll_tiles);
        rest = left;
        let start = s.tile_start(tile_index, n, view.size_of(v) as usize);
        s.bind(base, start);
    }
    let tile_of_unrolled = |s: &mut Scope<'_>, rest: &mut ValueId| {
        if let Some((v, n, base)) = unrolled.filter(|_| in_order) {
            let (number, left) = s.split_item(*rest, unroll_tiles);
            *rest = left;
            let start = s.tile_start(number, n, view.size_of(v) as usize);
            s.bind(base, start);
        }
    };
    if outer.len() <= before_unrolled {
        tile_of_unrolled(&mut s, &mut rest);
    }
    for (n, &v) in outer.iter().enumerate().rev() {
        let (value, left) = s.split_item(rest, view.size_of(v) as usize);
        rest = left;
        s.bind(v, value);
        if n == before_unrolled {
            tile_of_unrolled(&mut s, &mut rest);
        }
    }
    if let Some(lane) = lane
        && !in_order
    {
        let start = s.tile_start(rest, span, lane_size);
        s.bind(lane, start);
    }
    // The variables in the order of the tiles, the slowest first.
    let mut order: Vec<(VarId, usize)> = outer.iter().map(|&v| (v, 1)).collect();
    if let Some((_, n, base)) = unrolled {
        let at = if in_order { before_unrolled.min(order.len()) } else { order.len() };
        order.insert(at, (base, n));
    }
    order.extend(serial.iter().map(|&v| (v, 1)));
    if let (Some(lane), Some(tiles)) = (lane, tile_var) {
        order.iter_mut().filter(|(v, _)| *v == tiles).for_each(|o| *o = (lane, span));
    }
    let body = |m: &Member, map: &HashMap<VarId, Index>| m.clause.body.subst_vars(&|v| map.get(&v).cloned(), view);
    let mut soon = soon::Reads::new();
    if !facts.lockstep {
        let values: Vec<Expr> = members.iter().flat_map(|m| points.iter().map(|map| body(m, map))).collect();
        soon = soon::reads(view, &values, tile.width, Next::tile(&order));
        soon.retain(|(t, _)| members.iter().all(|m| m.held != *t));
    }
    s.loops(&serial, &mut |s| {
        if let (Some(lane), Some(v)) = (lane, tile_var) {
            let start = s.value_of(v);
            let start = s.tile_start(start, span, lane_size);
            s.bind(lane, start);
        }
        soon.iter().for_each(|(tensor, address)| s.prefetch(*tensor, address));
        // All values before the first store: a result may take the place of what another one reads.
        let values: Vec<Vec<ValueId>> = match members {
            [m] => vec![s.eval_many(&points.iter().map(|map| body(m, map)).collect::<Vec<Expr>>())],
            _ => {
                // A sum at all points together, before the others.
                let mut sum = |m: &Member| s.eval_many(&points.iter().map(|map| body(m, map)).collect::<Vec<Expr>>());
                let sums: Vec<Option<Vec<ValueId>>> =
                    members.iter().map(|m| has_reduce(&m.clause.body).then(|| sum(m))).collect();
                let mut found = vec![Vec::new(); members.len()];
                for (n, map) in points.iter().enumerate() {
                    for ((m, sums), found) in members.iter().zip(&sums).zip(&mut found) {
                        let value = match sums {
                            Some(values) => values[n],
                            None => s.eval(&body(m, map)),
                        };
                        s.pin(m.held, value);
                        found.push(value);
                    }
                }
                found
            }
        };
        for (m, values) in members.iter().zip(values).filter(|(m, _)| m.stored) {
            for (value, map) in values.into_iter().zip(&points) {
                let at: Vec<Index> = m.clause.at.iter().map(|i| i.subst(&|v| map.get(&v).cloned(), view)).collect();
                s.store(m.tensor, &at, value);
            }
        }
    });
    s.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_lockstep_there_are_items_for_all_units() {
        let facts = Facts { lanes: 4, units: 4096, registers: 16, lockstep: true, ..Facts::USUAL };
        assert_eq!(lockstep_steps(&facts, 96, 1568), 8);
        assert_eq!(lockstep_steps(&facts, 16, 1568), 8);
        assert_eq!(lockstep_steps(&facts, 12, 1568), 4);
        // Too few for that: what is loaded is still shared.
        assert_eq!(lockstep_steps(&facts, 1, 64), 4);
        assert_eq!(lockstep_steps(&facts, 1, 3), 3);
        assert_eq!(lockstep_steps(&facts, 4096, 1), 1);
    }

    #[test]
    fn steps_of_lanes_that_share_nothing_cover_a_window_evenly() {
        let steps = [56, 28, 14, 7, 5, 1].map(|n| own_steps(&Facts::USUAL, n));
        assert_eq!(steps, [8, 7, 7, 7, 5, 1]);
        for registers in [1, 6, 14, 28] {
            let facts = Facts { registers, ..Facts::USUAL };
            let most = |n: usize| OWN_STEPS.min(n).min(registers / 2).max(1);
            assert!((1..=300).all(|n| (1..=most(n)).contains(&own_steps(&facts, n))));
        }
    }
}
