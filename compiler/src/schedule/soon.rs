//! What is brought near because it is read soon: what a later tile reads first, asked for while one is computed that has sums.
//!
//! A tile of a window reads from many rows at the same time, more than a processor follows by itself, and what it computes from them takes so long that its
//! loads do not reach as far as the next one's.

use super::along::has_reduce;
use super::expand::View;
use super::loads::{Load, loads};
use crate::ir::index::Sizes;
use crate::ir::{Expr, Index, Node, TensorId, VarId};

/// How many tiles ahead: memory takes longer than one.
const TILES: i64 = 4;
/// What is read so many elements behind something else is near, for that was read a while ago.
const BEHIND: i64 = 4096;
/// Bytes.
const FAR: usize = 128 << 10;
/// The most hints of a tile: a window has some tens; hundreds, of a sum that shares nothing from tile to tile, take longer to compile than they bring.
const MOST: usize = 40;
/// The most lines that a tile reads of a tensor; of more it is not found out what comes first.
const WINDOW: usize = 160;
/// The most lines of a read in a sum.
const LINES: usize = 64;

/// Reads by their addresses; those of the first lane.
pub type Reads = Vec<(TensorId, Index)>;

/// What comes after a tile.
#[derive(Clone, Copy)]
pub struct Next {
    /// The variable in whose order tiles come, and how many of its values one has.
    pub step: (VarId, usize),
    /// The one that goes on when that one begins again.
    pub then: Option<(VarId, usize)>,
    /// How many tiles ahead something is asked for.
    pub tiles: i64,
    /// The elements behind something that was read in which others are still near.
    pub behind: i64,
}

impl Next {
    /// Of tiles that are computed quickly, in the order of these variables, the slowest first.
    pub fn tile(order: &[(VarId, usize)]) -> Option<Next> {
        let (&step, slower) = order.split_last()?;
        Some(Next { step, then: slower.last().copied(), tiles: TILES, behind: BEHIND })
    }
}

/// What a tile with sums asks for when it begins, of tensors that are far away. `values` is what it computes, `width` the lanes of a vector.
pub fn reads(view: &View<'_>, values: &[Expr], width: usize, next: Option<Next>) -> Reads {
    match next {
        Some(next) if values.iter().any(has_reduce) => after(view, values, width, next),
        _ => Reads::new(),
    }
}

/// What a later tile reads first.
pub fn after(view: &View<'_>, values: &[Expr], width: usize, next: Next) -> Reads {
    let mut windows: Vec<(TensorId, Vec<Index>)> = Vec::new();
    for e in values {
        let mut summed = Vec::new();
        collect_summed(e, &mut summed);
        for load in loads(view, e).into_iter().filter(|l| is_far(view, l.tensor) && !l.address.is_data()) {
            let Some(lines) = lines(view, &load, &summed, width) else { continue };
            let known = windows.iter().position(|(t, _)| *t == load.tensor);
            let window = known.unwrap_or_else(|| {
                windows.push((load.tensor, Vec::new()));
                windows.len() - 1
            });
            let window = &mut windows[window].1;
            for line in lines {
                if !window.contains(&line) {
                    window.push(line);
                }
            }
            if window.len() > WINDOW {
                return Reads::new();
            }
        }
    }
    let mut all = Reads::new();
    for (tensor, window) in windows {
        let goes = |a: &Index, (v, by): (VarId, usize)| a.coefficient(v) * by as i64;
        let by = goes(&window[0], next.step);
        if by <= 0 || window.iter().any(|a| goes(a, next.step) != by) {
            continue;
        }
        // What was elsewhere in the window before is near.
        let line = window[0].coefficient(next.step.0) * view.size_of(next.step.0);
        let then = next.then.map_or(0, |then| goes(&window[0], then));
        let before = |a: &Index, b: &Index| {
            let came = |n: i64| n < line || (then > 0 && n % then == 0);
            b.sub(a).as_const().is_some_and(|n| (by..next.behind).contains(&n) && came(n))
        };
        let firsts = window.iter().filter(|a| !window.iter().any(|b| before(a, b)));
        all.extend(firsts.map(|a| (tensor, a.plus(next.tiles * by))));
    }
    if all.len() > MOST { Reads::new() } else { all }
}

/// The addresses of a read, at every value of the summed variables, vector by vector along one that goes through memory; `None` if they are too many.
fn lines(view: &View<'_>, load: &Load, summed: &[VarId], width: usize) -> Option<Vec<Index>> {
    let mut all = vec![load.address.clone()];
    for &v in summed {
        if !all[0].uses(v) {
            continue;
        }
        let step = if load.address.coefficient(v) == 1 { width } else { 1 };
        let values: Vec<i64> = (0..view.size_of(v)).step_by(step).collect();
        if all.len() * values.len() > LINES {
            return None;
        }
        let at = |a: &Index, n: i64| a.subst(&|w| (w == v).then(|| Index::from(n)), view);
        all = all.iter().flat_map(|a| values.iter().map(move |&n| at(a, n))).collect();
    }
    Some(all)
}

/// The variables of all sums in an expression, those of sums in sums included.
fn collect_summed(e: &Expr, out: &mut Vec<VarId>) {
    if let Node::Reduce(r) = &*e.node {
        out.extend(&r.vars);
    }
    e.for_each_child(&mut |c| collect_summed(c, out));
}

/// Whether a tensor is too large for a cache of the core beside others.
pub fn is_far(view: &View<'_>, tensor: TensorId) -> bool {
    !view.is_virtual(tensor) && view.shape(tensor).iter().product::<usize>() * 4 > FAR
}
