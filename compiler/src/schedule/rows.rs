//! The schedule of definitions that share their rows: attention and normalisation, whatever they are called.
//!
//! A row kernel computes, for a vector of neighbouring rows (one a lane), everything its members need: virtual tensors that
//! are read more than once are staged in local arrays over their remaining dimensions, then the members are computed one
//! after the other, each from the stages, the stored tensors and the members before it. A softmax is three such members (maximum, sum, weighted sum), its
//! gradient some more; nothing here knows that.

use super::blocks::{self, Block};
use super::emit::Scope;
use super::expand::View;
use super::keyed::Sum;
use super::steps::{Local, Plan};
use super::{Facts, Planner, along, lanes, share, stages};
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
}

/// The kernel of a group.
pub fn schedule(planner: &mut Planner<'_>, members: &[Member], site: &str) {
    let facts = planner.facts.clone();
    let along = along::width(&mut planner.view, &facts, members);
    let (kernel, tensors) = match along {
        Some(width) => along::build(&mut planner.view, members, width),
        None => {
            let lane_rows = lane_rows(&mut planner.view, &facts, members);
            build(&mut planner.view, &facts, members, &lane_rows, None)
        }
    };
    planner.launch(kernel, tensors, site);
}

/// Which rows of the members run along the lanes.
pub fn lane_rows(view: &mut View<'_>, facts: &Facts, members: &[Member]) -> Vec<usize> {
    let sizes: Vec<usize> = members[0].rows.iter().map(|&v| view.size_of(v) as usize).collect();
    lanes::choose(view, facts, members, &sizes)
}

/// The kernel of members with these rows along the lanes; with `sum`, that of its partial results.
pub fn build(
    view: &mut View<'_>,
    facts: &Facts,
    members: &[Member],
    lane_rows: &[usize],
    mut sum: Option<&mut Sum>,
) -> (Kernel, Vec<TensorId>) {
    let first = &members[0];
    let sizes: Vec<usize> = first.rows.iter().map(|&v| view.size_of(v) as usize).collect();
    let lane_size: usize = lane_rows.iter().map(|&r| sizes[r]).product();
    let candidates = {
        let loads = lanes::loads(view, members, &first.rows);
        let lanes: Vec<VarId> = lane_rows.iter().map(|&r| first.rows[r]).collect();
        blocks::candidates(facts, &loads, &lanes, lane_size)
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
            }
        })
        .collect();

    let mut plan = plan(view, facts, members, &locals, lane, &candidates, sum.is_none());
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
    if let Some(sum) = &mut sum {
        sum.divide(view, members[0].tensor, &rows);
    }

    let view = &*view;
    let mut s = Scope::new(view.name(members[members.len() - 1].tensor), view, block.width as u8);
    s.lane_var = Some(rows.lanes[0]);
    s.more_lanes = rows.lanes[1..].to_vec();
    if let Some(sum) = sum {
        sum.emit(&mut s, &rows, &mut |s, put| s.steps(&rows, facts, &plan.steps, true, put));
        return s.finish();
    }
    s.kernel.items = (rows.tiles * rows.outer.iter().map(|o| o.1).product::<usize>()) as u32;
    let item = s.item();
    let (tile, mut rest) = s.split_item(item, rows.tiles);
    s.bind_rows(&rows, tile);
    for &(v, size, _) in rows.outer.iter().rev() {
        let (value, left) = s.split_item(rest, size);
        rest = left;
        s.bind(v, value);
    }
    s.steps(&rows, facts, &plan.steps, false, &mut |s, tensor, at, value, _| s.store(tensor, at, value));
    s.finish()
}

/// The steps for the first candidate whose stages fit, fewer and narrower vectors needing less memory.
fn plan(
    view: &mut View<'_>,
    facts: &Facts,
    members: &[Member],
    locals: &[Local],
    lane: VarId,
    candidates: &[Block],
    turn: bool,
) -> Plan {
    let roots: Vec<(Vec<VarId>, Expr)> = locals.iter().map(|m| (m.inner.clone(), m.body.clone())).collect();
    let generous = share::generous(facts);
    let mut out = None;
    for &block in candidates {
        for (asked, more) in [(&generous, 2), (&generous, 1), (&generous, 0), (facts, 1), (facts, 0)] {
            let (stage, fits) = stages::choose(view, asked, lane, &roots, block, members, more > 1);
            let last = more == 0 && asked.local_bytes == facts.local_bytes;
            if !fits && !last {
                continue;
            }
            let vec = view.var("vector", block.vectors);
            let mut plan = Plan::new(lane, vec, block, stage);
            for m in locals {
                plan.member(view, facts, m, turn, more > 0);
            }
            let bytes = share::share(view, &mut plan.steps.clone(), block, vec);
            if fits && bytes <= facts.local_bytes {
                return plan;
            }
            if bytes <= facts.local_bytes {
                out = Some(plan);
            }
        }
    }
    out.expect("a row kernel has a vector of rows")
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
