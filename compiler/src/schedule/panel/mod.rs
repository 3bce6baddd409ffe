//! The schedule of contractions: sums of products in which one factor belongs to the lanes and the other to an unrolled index.
//!
//! A work item goes through many register tiles with one *panel*: the lane factor at all summed points, evaluated once, kept vector by vector in a
//! local array. Whatever an element of it costs to get (a transposed weight, a padded border, a product of several tensors) is paid once, and the
//! inner loop reads neighbouring vectors. A sum too long for the local array is done in chunks; between them the tiles keep their sums in a second
//! local array. The order of the additions is that of the summed indices, whatever the chunks.
//!
//! Where the other factor's neighbours along the unrolled variable lie side by side, going down its summed points one element at a time would wait for
//! memory at each. Then the item takes its part of every row of it along, vector by vector, into a third local array, for several panels ([`rows`]).

mod ahead;
mod held;
mod kernel;
mod merge;
mod products;
mod rows;
#[cfg(test)]
mod tests;
mod tiles;

use super::Facts;
use super::along::{collect_reductions, has_reduce, replace_reduction};
use super::expand::View;
use super::join::{self, Terms};
use super::{loads, tile, turn};
use crate::ir::index::Sizes;
use crate::ir::{Clause, Expr, Monoid, Node, Pred, Reduction, TensorId, VarId};
use crate::loops::Kernel;
use kernel::Emitter;

/// Register tiles that a panel serves at least.
const TILES: usize = 4;
/// Bytes of the unrolled factor that an item goes through, so that all panels find them in a cache near the core.
const NEAR: usize = 1 << 20;
/// What a vector of a panel costs where rows are changed for columns in registers, beside one that is loaded as it is.
const SQUARE: f64 = 2.0;
/// Inner loops of no more steps than this are written out.
const WRITTEN_OUT: i64 = 8;
/// An unrolled variable of so many values has tiles enough for a panel.
const LONG: i64 = 32;
/// The fewest summed points for which a panel is made.
pub const POINTS: usize = 8;
/// Points of other sums that may stand beside it in the result.
const BESIDE: usize = 8;

/// A sum of products, taken apart.
struct Contraction {
    /// The summed variables.
    vars: Vec<VarId>,
    /// The product of the factors that the unrolled variable leaves alone.
    panel: Expr,
    /// The product of the others, the same in all lanes.
    own: Expr,
    /// Of those, the product of the ones that the last summed variable leaves alone: what is summed over that one is scaled by it.
    scale: Option<Expr>,
    /// The unrolled variable.
    unrolled: VarId,
    /// The whole body, with a read of `sum` in the sum's place.
    around: Expr,
    /// Stands for the finished sum.
    sum: TensorId,
}

/// The summed points, in the order in which they are added: chunks, and what is in one.
struct Chunks {
    /// Variables that only change between chunks.
    outer: Vec<VarId>,
    /// The variable of which a chunk has a block: itself, the block's length, the number of blocks.
    split: Option<(VarId, usize, usize)>,
    /// Variables that a chunk has whole.
    inner: Vec<VarId>,
    /// Points of a chunk.
    points: usize,
}

/// The kernel of a clause whose body is one contraction with something pointwise around it; `None` if it is not, or if panels do not pay, or if
/// they would from one of the copies that can be made (tensors, with the dimension that is then last).
pub fn schedule(
    view: &mut View<'_>,
    facts: &Facts,
    (tensor, clause): (TensorId, &Clause),
    body: &Expr,
    lane: VarId,
    copies: &[(TensorId, usize)],
) -> Option<(Kernel, Vec<TensorId>)> {
    if !facts.has_near_memory() {
        return None;
    }
    let (group, size) = loads::lane_group(view, facts, clause, lane);
    let width = loads::pow2(size.min(facts.lanes));
    let (clause, body) = &merge::results(view, tensor, clause, body, &group);
    let mut parts = recognise(view, clause, body, &group)?;
    let long = view.size_of(parts.unrolled) as usize;
    parts.order(view);
    if parts.is_scattered(view, copies) {
        return None;
    }
    parts.take_scale(view);
    // What is scaled has registers of its own.
    let registers = if parts.scale.is_some() { facts.registers / 2 } else { facts.registers };
    let facts = &Facts { registers, ..facts.clone() };
    let (vectors, unroll) = tile::register_tile(facts, size, width, long, true);
    if unroll < 2 {
        return None;
    }

    // Other variables of the result: those that the panel depends on make items, the others more tiles.
    let others = clause.vars.iter().copied().filter(|v| !group.contains(v) && *v != parts.unrolled);
    let (mut fixed, free): (Vec<VarId>, Vec<VarId>) = others.partition(|&v| parts.panel.uses(v));
    let values = |vars: &[VarId]| vars.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
    let tiles = values(&free) * long.div_ceil(unroll);
    let (cost, once) = parts.cost(view, &group);
    let least = |cost: f64| TILES.max((32.0 * cost / unroll as f64).ceil() as usize);
    if tiles < least(once) {
        return None;
    }
    let along = size.div_ceil(width * vectors);
    let in_rows = parts.scale.is_none() && free.is_empty() && parts.in_rows(view, long, width);
    // Panels that differ in these alone have the same rows.
    let mut alike = Vec::new();
    if in_rows {
        (fixed, alike) = fixed.into_iter().partition(|&v| parts.own.uses(v));
    }
    let others = values(&fixed);
    let (rows, unroll, chunks, each, squares) = if in_rows {
        let (vars, tile, rows) = (&parts.vars, (width, vectors), (long, unroll));
        let far = values(&parts.vars) * (long + size) * 4 > loads::AWAY;
        let (units, room, near) = (facts.units, 2 * facts.local_bytes, facts.local_bytes / 2);
        let panels = values(&alike) * along;
        let task = rows::Task { vars, panels, tile, rows, others, cost, far, units, room, near };
        let (part, chunks) = task.part(view)?;
        let squares = parts.in_squares(view, &chunks, &group, width);
        (Some(part), part.unroll, chunks, part.span.div_ceil(part.unroll), squares)
    } else {
        let bytes = vectors * width * 4;
        let chunks = Chunks::new(view, &parts.vars, bytes, (facts.local_bytes, facts.local_bytes / 3))?;
        let squares = parts.in_squares(view, &chunks, &group, width);
        let (cost, once) = if squares { (SQUARE, SQUARE) } else { (cost, once) };
        let least = least(once).min(tiles);
        // What is read where it is needed should stay near until the last panel has seen it. So should what all panels together read and write of the
        // result's rows.
        let beside =
            1 + loads::loads(view, &parts.around).iter().filter(|l| l.uses(parts.unrolled) && l.uses(lane)).count();
        let panels = others * along;
        let result = if panels > 1 { beside * size } else { 0 };
        let mut most = (NEAR / (unroll * (values(&parts.vars) + result) * 4)).max(least);
        if !chunks.whole() {
            most = most.min(facts.local_bytes * 2 / 3 / (unroll * bytes));
        }
        if most < least {
            return None;
        }
        let task = tiles::Task { tiles, least, most, panels, unroll, cost, units: facts.units };
        (None, unroll, chunks, task.each(), squares)
    };
    let whole = |v: &VarId| chunks.outer.contains(v) || chunks.inner.contains(v);
    let terms = parts.terms(view).filter(|v| !in_rows && whole(v));
    let emitter = Emitter {
        parts,
        chunks,
        terms,
        group,
        fixed,
        alike,
        free,
        size,
        width,
        vectors,
        unroll,
        tiles,
        each,
        squares,
        rows,
    };
    Some(emitter.emit(view, tensor, clause))
}

/// Takes a body apart if it is a contraction for these lanes with something pointwise, or short sums, around it.
fn recognise(view: &mut View<'_>, clause: &Clause, body: &Expr, lanes: &[VarId]) -> Option<Contraction> {
    let mut sums = Vec::new();
    collect_reductions(body, &mut sums);
    let points = |r: &Reduction| r.vars.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
    // The longest; short ones are computed where it is finished.
    let r = sums.iter().max_by_key(|r| points(r))?.clone();
    if sums.iter().filter(|s| **s != r).map(&points).sum::<usize>() > BESIDE {
        return None;
    }
    if r.op != Monoid::Sum || !r.body.elem.is_float() || has_reduce(&r.body) {
        return None;
    }
    if points(&r) < POINTS {
        return None;
    }
    let merged = merge::summed(view, &r);
    let (mut guard, mut product) = (merged.guard, merged.body);
    while let Node::Select(p, value, zero) = &*product.node.clone()
        && matches!(&*zero.node, Node::Const(0))
    {
        guard = Pred::and([guard, p.clone()]);
        product = value.clone();
    }
    let mut factors = Vec::new();
    super::storage::collect_factors(&product, &mut factors);
    let in_lanes = |e: &Expr| lanes.iter().any(|&v| e.uses(v));
    let (mut panel, rest): (Vec<&Expr>, Vec<&Expr>) = factors.into_iter().partition(|f| in_lanes(f));
    let unrolled = clause.vars.iter().copied().filter(|&v| {
        let alone = !lanes.contains(&v) && !panel.iter().any(|f| f.uses(v));
        alone && view.size_of(v) > 1 && rest.iter().any(|f| f.uses(v))
    });
    // A long one, and of those the one that goes through memory fastest.
    let unrolled = unrolled.enumerate().max_by_key(|&(n, v)| (view.size_of(v).min(8), n)).map(|(_, v)| v)?;
    let (own, neither): (Vec<&Expr>, Vec<&Expr>) = rest.into_iter().partition(|f| f.uses(unrolled));
    // What belongs to the panel's place in the result anyway is part of it. What changes from tile to tile is too, with a panel for each of its
    // values, if a panel then still serves tiles enough.
    let free = |v: &VarId| !lanes.contains(v) && !panel.iter().any(|f| f.uses(*v));
    let between: Vec<VarId> = clause.vars.iter().copied().filter(free).collect();
    let own_panels = view.size_of(unrolled) >= LONG;
    let (others, fixed): (Vec<&Expr>, Vec<&Expr>) =
        neither.into_iter().partition(|f| !own_panels && between.iter().any(|&v| f.uses(v)));
    let own: Vec<Expr> = own.into_iter().chain(others).cloned().collect();
    panel.extend(fixed);
    let panel: Vec<Expr> = panel.into_iter().cloned().collect();
    let (mut panel, mut own) = (multiply(panel)?, multiply(own)?);
    if guard != Pred::True {
        let varies = lanes.iter().any(|&v| guard.uses(v));
        if varies && between.iter().any(|&v| guard.uses(v)) {
            return None;
        }
        let target = if varies { &mut panel } else { &mut own };
        *target = Expr::select(guard, target.clone(), Expr::constant(target.elem, 0.0));
    }
    let sum = view.function.new_tensor("sum", r.body.elem, Vec::new(), None);
    let around = replace_reduction(body, &r, &Expr::read(r.body.elem, sum, Vec::new()));
    Some(Contraction { vars: merged.vars, panel, own, scale: None, unrolled, around, sum })
}

fn multiply(factors: Vec<Expr>) -> Option<Expr> {
    factors.into_iter().reduce(Expr::mul)
}

impl Contraction {
    /// A summed variable of few values of which conditions in the factors speak: what is summed for each of them is written out.
    fn terms(&self, view: &View<'_>) -> Option<VarId> {
        let first = *self.vars.first()?;
        let few = self.vars.len() > 1 && view.size_of(first) <= join::TERMS as i64;
        let decides = |e: &Expr| Terms::shared(first, [e]).is_some();
        (few && (decides(&self.panel) || decides(&self.own))).then_some(first)
    }

    /// What a vector of a panel costs to load, and that without what is the same in any case: what is added up to make one is added up for every tile, if not
    /// for all together.
    fn cost(&self, view: &View<'_>, lanes: &[VarId]) -> (f64, f64) {
        let of = |panel: &Expr| {
            let (mut factors, mut once) = (Vec::new(), 0.0);
            super::storage::collect_factors(panel, &mut factors);
            for f in factors {
                let mut addends = Vec::new();
                join::addends(f, &mut addends);
                once += loads::panel_cost(view, f, lanes) / addends.len() as f64;
            }
            (loads::panel_cost(view, panel, lanes), once)
        };
        let terms = self.terms(view).and_then(|v| Terms::shared(v, [&self.panel]));
        let Some(terms) = terms else { return of(&self.panel) };
        let n = view.size_of(terms.var);
        let all = (0..n).map(|k| of(&terms.at(view, &self.panel, k)));
        let (cost, once) = all.fold((0.0, 0.0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        (cost / n as f64, once / n as f64)
    }

    /// Puts the summed variable last along which the other factor goes through memory.
    fn order(&mut self, view: &View<'_>) {
        let loads = loads::loads(view, &self.own);
        let along = |v: &VarId| loads.iter().any(|l| l.runs_along(*v)) && view.size_of(*v) > WRITTEN_OUT;
        if let Some(n) = self.vars.iter().rposition(along) {
            let v = self.vars.remove(n);
            self.vars.push(v);
        }
    }

    /// Whether a panel would be put together from single elements, each out of another line of memory, of tensors of which there can be copies (of
    /// these, with those dimensions last).
    fn is_scattered(&self, view: &View<'_>, copies: &[(TensorId, usize)]) -> bool {
        let Some(&last) = self.vars.last() else { return false };
        let copied = |t: TensorId| copies.iter().any(|(copied, _)| *copied == t);
        loads::loads(view, &self.panel)
            .iter()
            .any(|l| copied(l.tensor) && loads::is_away(view, l.tensor) && !l.runs_along(last))
    }

    /// Whether a panel is filled in squares: what it reads lies side by side along the last summed variable and not along the lanes, and whole squares cover
    /// every chunk.
    fn in_squares(&self, view: &View<'_>, chunks: &Chunks, lanes: &[VarId], width: usize) -> bool {
        let (Some(&last), Some(&lane)) = (self.vars.last(), lanes.last()) else { return false };
        let size = view.size_of(last) as usize;
        let whole = match chunks.split.filter(|_| chunks.inner.is_empty()) {
            Some((_, block, _)) => size.is_multiple_of(width) && block.is_multiple_of(width),
            None => chunks.inner.last() == Some(&last) && size >= width,
        };
        let reads = loads::loads(view, &self.panel);
        whole && width >= turn::LANES && !has_reduce(&self.panel) && turn::turns(&reads, last, lane)
    }

    /// Takes the factors that the last summed variable leaves alone out of the sum over it, if it is long.
    fn take_scale(&mut self, view: &View<'_>) {
        let (Some(&last), true) = (self.vars.last(), self.vars.len() > 1) else { return };
        if view.size_of(last) <= WRITTEN_OUT {
            return;
        }
        let mut factors = Vec::new();
        super::storage::collect_factors(&self.own, &mut factors);
        let (inner, outer): (Vec<&Expr>, Vec<&Expr>) = factors.into_iter().partition(|f| f.uses(last));
        let (inner, outer) = (inner.into_iter().cloned().collect(), outer.into_iter().cloned().collect());
        if let (Some(inner), Some(outer)) = (multiply(inner), multiply(outer)) {
            (self.own, self.scale) = (inner, Some(outer));
        }
    }

    /// Whether vectors of the other factor can run along the unrolled variable, and its elements at successive points lie apart.
    fn in_rows(&self, view: &View<'_>, long: usize, width: usize) -> bool {
        let last = *self.vars.last().expect("a sum of several points has variables");
        let loads = loads::loads(view, &self.own);
        let along = loads.iter().all(|l| !l.uses(self.unrolled) || l.runs_along(self.unrolled));
        let apart = loads.iter().any(|l| l.runs_along(self.unrolled) && l.uses(last) && !l.runs_along(last));
        along && apart && long.is_multiple_of(width)
    }
}

impl Chunks {
    /// `bytes` a point in so many of memory: for all points, or for those of a chunk; `None` if a chunk would be too short.
    fn new(view: &View<'_>, vars: &[VarId], bytes: usize, (local, room): (usize, usize)) -> Option<Chunks> {
        let size = |v: VarId| view.size_of(v) as usize;
        let all: usize = vars.iter().map(|&v| size(v)).product();
        if all * bytes <= local {
            return Some(Chunks { outer: Vec::new(), split: None, inner: vars.to_vec(), points: all });
        }
        let room = room / bytes;
        let (mut points, mut k) = (1, vars.len());
        while k > 0 && points * size(vars[k - 1]) <= room {
            k -= 1;
            points *= size(vars[k]);
        }
        let (mut outer, mut split) = (vars[..k].to_vec(), None);
        let most = room / points.max(1);
        if k > 0 && most >= 2 {
            let v = outer.pop().expect("a variable that does not fit");
            let blocks = size(v).div_ceil(most);
            let block = size(v).div_ceil(blocks);
            split = Some((v, block, size(v).div_ceil(block)));
            points *= block;
        }
        (points >= POINTS * 2).then(|| Chunks { outer, split, inner: vars[k..].to_vec(), points })
    }

    /// Whether all points are one chunk.
    fn whole(&self) -> bool {
        self.outer.is_empty() && self.split.is_none()
    }
}
