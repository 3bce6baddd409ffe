//! The schedule of definitions that share their rows: attention and normalisation, whatever they are called.
//!
//! A row kernel computes, for a vector of neighbouring rows (one a lane), everything its members need: virtual tensors that
//! are read more than once are staged in local arrays over their remaining dimensions, then the members are computed one
//! after the other, each from the stages, the stored tensors and the members before it. A softmax is three such members (maximum, sum, weighted sum), its
//! gradient some more; nothing here knows that.

use super::blocks::{self, Block};
use super::emit::Scope;
use super::expand::View;
use super::keyed::{Parts, Sum};
use super::steps::{Local, Plan};
use super::strips::{self, Pass};
use super::{Facts, Planner, along, lanes, share, stages, tile};
use crate::ir::index::Sizes;
use crate::ir::{Clause, Expr, Index, TensorId, VarId};
use crate::loops::Kernel;
use std::collections::HashMap;

/// A member of a row kernel: a stored tensor, its clause, and which of its variables are the rows.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it defines.
    pub tensor: TensorId,
    /// How.
    pub clause: Clause,
    /// Its row variables, in the group's row order.
    pub rows: Vec<VarId>,
    /// If its values are added up by key.
    pub sum: Option<Sum>,
}

/// The kernels of a group: one, if sums by key can be members like the others.
pub fn schedule(planner: &mut Planner<'_>, members: &[Member], site: &str) {
    let facts = planner.facts.clone();
    let view = &mut planner.view;
    let (sums, plain): (Vec<Member>, Vec<Member>) = members.iter().cloned().partition(|m| m.sum.is_some());
    if sums.is_empty() {
        let along = along::width(view, &facts, members);
        let (kernel, tensors) = match along {
            Some(width) => along::build(view, &facts, members, width),
            None => {
                let lane_rows = lane_rows(view, &facts, members);
                let built = build(view, &facts, members, &lane_rows, false);
                let (kernel, tensors, _) = built.expect("stages that do not fit are left out");
                (kernel, tensors)
            }
        };
        planner.launch(kernel, tensors, site);
        return;
    }
    let rows = lane_rows(view, &facts, if plain.is_empty() { &sums } else { &plain });
    let kept = |m: &Member| m.sum.as_ref().map(|s| s.kept(m));
    let alike = sums.iter().all(|m| kept(m) == kept(&sums[0]));
    let separate = sums.iter().all(|m| m.sum.as_ref().is_some_and(|s| s.separates(m, &rows)));
    let alone = members.len() == 1;
    let built = if alike && separate { build(view, &facts, members, &rows, !alone) } else { None };
    match built {
        Some((kernel, tensors, seconds)) => {
            planner.launch(kernel, tensors, site);
            for (tensor, clause) in seconds {
                let name = planner.view.name(tensor);
                tile::schedule(planner, tensor, &clause, &name);
            }
        }
        None if alone => {
            let clause = sums[0].sum.as_ref().expect("a sum").clause.clone();
            tile::schedule(planner, sums[0].tensor, &clause, site);
        }
        None => {
            let names: Vec<String> = plain.iter().map(|m| planner.view.name(m.tensor)).collect();
            if !plain.is_empty() {
                schedule(planner, &plain, &names.join(", "));
            }
            for m in &sums {
                let name = planner.view.name(m.tensor);
                schedule(planner, std::slice::from_ref(m), &name);
            }
        }
    }
}

/// Which rows of the members run along the lanes.
fn lane_rows(view: &mut View<'_>, facts: &Facts, members: &[Member]) -> Vec<usize> {
    let sizes: Vec<usize> = members[0].rows.iter().map(|&v| view.size_of(v) as usize).collect();
    lanes::choose(view, facts, members, &sizes)
}

/// A kernel, its tensors, and what is left to do for its sums by key.
type Built = (Kernel, Vec<TensorId>, Vec<(TensorId, Clause)>);

/// The kernel of members with these rows along the lanes; with `fit`, only if all fits that should be staged.
fn build(view: &mut View<'_>, facts: &Facts, members: &[Member], lane_rows: &[usize], fit: bool) -> Option<Built> {
    let first = &members[0];
    let sizes: Vec<usize> = first.rows.iter().map(|&v| view.size_of(v) as usize).collect();
    let lane_size: usize = lane_rows.iter().map(|&r| sizes[r]).product();
    let candidates = {
        let loads = lanes::loads(view, members, &first.rows);
        let lanes: Vec<VarId> = lane_rows.iter().map(|&r| first.rows[r]).collect();
        blocks::candidates(facts, &loads, &lanes, lane_size, sizes.iter().product::<usize>() / lane_size)
    };

    // Kernel variables: the lane and the other rows.
    let lane = view.var("lane", lane_size);
    let names: Vec<String> = first.rows.iter().map(|&v| view.function.var(v).name.clone()).collect();
    let row_vars: Vec<Option<VarId>> =
        (0..sizes.len()).map(|r| (!lane_rows.contains(&r)).then(|| view.var(&names[r], sizes[r]))).collect();
    let mut row_indices: Vec<Index> = Vec::new();
    for (r, row) in row_vars.iter().enumerate() {
        row_indices.push(match row {
            Some(v) => (*v).into(),
            None => {
                let k = lane_rows.iter().position(|&l| l == r).expect("a row is a lane or not");
                let below: usize = lane_rows[k + 1..].iter().map(|&l| sizes[l]).product();
                let q = Index::from(lane).div(below as i64, view);
                if k == 0 { q } else { q.modulo(sizes[r] as i64, view) }
            }
        });
    }

    view.row_vars = row_vars.iter().flatten().copied().chain([lane]).collect();

    let locals: Vec<Local> = members
        .iter()
        .map(|m| {
            let map: HashMap<VarId, &Index> = m.rows.iter().copied().zip(&row_indices).collect();
            let f = |v: VarId| map.get(&v).map(|i| (*i).clone());
            Local {
                tensor: m.tensor,
                inner: m.clause.vars.iter().copied().filter(|v| !m.rows.contains(v)).collect(),
                at: m.clause.at.iter().map(|i| i.subst(&f, view)).collect(),
                body: m.clause.body.subst_vars(&f, view),
                summed: m.sum.is_some(),
                fold: None,
            }
        })
        .collect();

    let mut plan = plan(view, facts, members, &locals, lane, &candidates, fit)?;
    let block = plan.block;
    let lanes: Vec<VarId> = (0..block.vectors).map(|_| view.var("lane", lane_size)).collect();
    view.aligned_lane = block.aligned(lane_size).then_some(lanes[0]);
    share::share(view, &mut plan.steps, block, plan.vec);
    let rows = Rows {
        lane,
        lanes,
        vec: plan.vec,
        lane_size,
        block,
        tiles: block.tiles(lane_size),
        outer: row_vars.iter().enumerate().filter_map(|(r, v)| Some(((*v)?, sizes[r], r))).collect(),
    };
    let parts = Parts::new(view, facts, members, &rows);
    let seconds = parts.as_ref().map_or_else(Vec::new, |p| p.second(view));

    let view = &*view;
    let mut s = Scope::new(view.name(members[members.len() - 1].tensor), view, block.width as u8);
    s.lane_var = Some(rows.lanes[0]);
    s.more_lanes = rows.lanes[1..].to_vec();
    match parts {
        Some(parts) => parts.emit(&mut s, &rows, &mut |s, put| s.steps(&rows, facts, &plan.steps, put)),
        None => {
            s.kernel.items = (rows.tiles * rows.outer.iter().map(|o| o.1).product::<usize>()) as u32;
            let item = s.item();
            let (tile, rest) = s.split_item(item, rows.tiles);
            s.bind_rows(&rows, tile);
            s.bind_outer(rest, &rows.outer.iter().collect::<Vec<_>>());
            s.steps(&rows, facts, &plan.steps, &mut |s, tensor, at, value, _| s.store(tensor, at, value));
        }
    }
    let (kernel, tensors) = s.finish();
    Some((kernel, tensors, seconds))
}

/// The steps for the first candidate whose stages fit, fewer and narrower vectors needing less memory; with `fit`, `None` if there is none of the full width.
fn plan(
    view: &mut View<'_>,
    facts: &Facts,
    members: &[Member],
    locals: &[Local],
    lane: VarId,
    candidates: &[Block],
    fit: bool,
) -> Option<Plan> {
    let generous = share::generous(facts);
    let mut out = None;
    let row_vars = view.row_vars.clone();
    // The rows as they are, then strip by strip, of which a wider block is better.
    let mut tries: Vec<(Block, Option<usize>)> = Vec::new();
    for &block in candidates.iter().take_while(|b| !fit || b.width == candidates[0].width) {
        tries.push((block, None));
        let size = view.size_of(lane) as usize;
        let wider = if tries.len() == 1 { blocks::wider(block, size) } else { None };
        for block in wider.into_iter().chain([block]).filter(|_| !fit) {
            tries.extend(strips::lengths(facts, block).map(|n| (block, Some(n))));
        }
    }
    for (block, strip) in tries {
        let passes = match strip {
            None => Some(vec![Pass { members: locals.to_vec(), strip: None }]),
            Some(longest) => strips::passes(view, locals, longest),
        };
        if let Some(passes) = passes {
            let all = passes.iter().flat_map(|p| &p.members);
            let roots: Vec<(Vec<VarId>, Expr)> = all.map(|m| (m.inner.clone(), m.body.clone())).collect();
            for (asked, more) in [(&generous, 2), (&generous, 1), (&generous, 0), (facts, 1), (facts, 0)] {
                let (stage, fits) = stages::choose(view, asked, lane, &roots, block, members, more > 1);
                let last = more == 0 && asked.local_bytes == facts.local_bytes;
                if !fits && !last {
                    continue;
                }
                let vec = view.var("vector", block.vectors);
                let mut plan = Plan::new(lane, vec, block, stage);
                let done = passes.iter().all(|p| plan.pass(view, facts, p, more > 0));
                let bytes = share::share(view, &mut plan.steps.clone(), block, vec);
                if fits && done && bytes <= facts.local_bytes {
                    return Some(plan);
                }
                if !fit && done && bytes <= facts.local_bytes {
                    out.get_or_insert(plan);
                }
            }
        }
        view.row_vars.clone_from(&row_vars);
    }
    out
}

/// The rows of a kernel: those along the lanes, in so many tiles, and the others.
pub struct Rows {
    /// The variable of a row, in bodies. It is bound to an item's first row.
    pub lane: VarId,
    /// What stands for it in each of an item's vectors.
    pub lanes: Vec<VarId>,
    /// The variable that numbers those vectors, in bodies.
    pub vec: VarId,
    /// How many rows there are along the lanes.
    pub lane_size: usize,
    /// An item's rows.
    pub block: Block,
    /// Items that cover the rows along the lanes.
    pub tiles: usize,
    /// The other rows: variable, size, number among the members' rows.
    pub outer: Vec<(VarId, usize, usize)>,
}
