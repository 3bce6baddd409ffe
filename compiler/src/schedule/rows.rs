//! The schedule of definitions that share their rows: attention and normalisation, whatever they are called.
//!
//! A row kernel computes, for a vector of neighbouring rows (one a lane), everything its members need: virtual tensors that
//! are read more than once are staged in local arrays over their remaining dimensions, then the members are computed one
//! after the other, each from the stages, the stored tensors and the members before it. A softmax is three such members (maximum, sum, weighted sum), its
//! gradient some more; nothing here knows that.

use super::emit::{Scope, stored_elem};
use super::expand::View;
use super::keyed::Sum;
use super::stages::{self, Key, key, open};
use super::{Facts, Planner, along, lanes};
use crate::ir::index::Sizes;
use crate::ir::{Clause, Elem, Expr, Index, Node, TensorId, VarId};
use crate::loops::{Kernel, Type, ValueId};
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

/// A local array for the values of a key.
#[derive(Clone, Debug)]
struct Stage {
    tensor: TensorId,
    vars: Vec<VarId>,
    body: Expr,
}

enum Step {
    Stage(Stage),
    Member { tensor: TensorId, inner: Vec<VarId>, at: Vec<Index>, body: Expr, pin: Option<TensorId> },
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
    let mut width = 1 << lane_size.min(facts.lanes).ilog2();

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

    // Bodies over kernel variables; `inner` are the members' own variables.
    struct Local {
        tensor: TensorId,
        inner: Vec<VarId>,
        at: Vec<Index>,
        body: Expr,
    }
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

    // What to stage: narrower vectors if wide ones do not fit.
    let roots: Vec<(Vec<VarId>, Expr)> = locals.iter().map(|m| (m.inner.clone(), m.body.clone())).collect();
    let stage = loop {
        let (stage, fits) = stages::choose(view, facts, lane, &roots, width, members);
        if fits || width <= 4 {
            break stage;
        }
        width /= 2;
    };
    view.aligned_lane = lane_size.is_multiple_of(width).then_some(lane);

    // The steps in order: a stage stands before the first that reads it.
    let mut plan = Plan { stage, staged: HashMap::new(), steps: Vec::new(), done: HashMap::new() };
    for m in locals {
        let body = plan.expand(view, &m.body);
        let pin = m.inner.is_empty().then(|| view.function.new_tensor("row", view.elem(m.tensor), Vec::new(), None));
        if let Some(pin) = pin {
            plan.done.insert(m.tensor, (m.at.clone(), pin));
        }
        plan.steps.push(Step::Member { tensor: m.tensor, inner: m.inner, at: m.at, body, pin });
    }

    let rows = Rows {
        lane,
        lane_size,
        tiles: lane_size.div_ceil(width),
        outer: row_vars.iter().enumerate().filter_map(|(r, v)| Some(((*v)?, sizes[r], r))).collect(),
    };
    if let Some(sum) = &mut sum {
        sum.divide(view, members[0].tensor, &rows);
    }

    let view = &*view;
    let mut s = Scope::new(view.name(members[members.len() - 1].tensor), view, width as u8);
    s.lane_var = Some(lane);
    if let Some(sum) = sum {
        sum.emit(&mut s, &rows, &mut |s, put| emit(s, facts, &plan.steps, true, put));
        return s.finish();
    }
    s.kernel.items = (rows.tiles * rows.outer.iter().map(|o| o.1).product::<usize>()) as u32;
    let item = s.item();
    let (tile, mut rest) = s.split_item(item, rows.tiles);
    let start = s.tile_start(tile, width, lane_size);
    s.bind(lane, start);
    for &(v, size, _) in rows.outer.iter().rev() {
        let (value, left) = s.split_item(rest, size);
        rest = left;
        s.bind(v, value);
    }
    emit(&mut s, facts, &plan.steps, false, &mut |s, tensor, at, value| s.store(tensor, at, value));
    s.finish()
}

/// The rows of a kernel: those along the lanes, in so many tiles, and the others.
pub struct Rows {
    /// The variable along the lanes.
    pub lane: VarId,
    /// How many values it has.
    pub lane_size: usize,
    /// Vectors that cover them.
    pub tiles: usize,
    /// The other rows: variable, size, number among the members' rows.
    pub outer: Vec<(VarId, usize, usize)>,
}

/// What takes the value of a member at some indices.
pub type Put<'p> = &'p mut dyn FnMut(&mut Scope<'_>, TensorId, &[Index], ValueId);

/// Emits the steps; `put` takes the values of members, of every point just once if `once`.
fn emit(s: &mut Scope<'_>, facts: &Facts, steps: &[Step], once: bool, put: Put<'_>) {
    for step in steps {
        match step {
            Step::Stage(stage) => {
                let elem = match stored_elem(s.view.elem(stage.tensor)) {
                    Elem::U32 if s.view.elem(stage.tensor) == Elem::Bool => Elem::Bool,
                    other => other,
                };
                let lanes = if s.varies(&stage.body) { s.lanes } else { 1 };
                s.local(stage.tensor, Type { elem, lanes });
                let at: Vec<Index> = stage.vars.iter().map(|&v| v.into()).collect();
                s.sweep(&stage.vars, facts, &stage.body, &at, false, &mut |s, at, value| {
                    s.store_local(stage.tensor, at, value)
                });
            }
            Step::Member { tensor, inner, at, body, pin } => {
                s.sweep(inner, facts, body, at, once, &mut |s, at, value| {
                    let value = s.widen(value);
                    put(s, *tensor, at, value);
                    if let Some(pin) = pin {
                        s.pin(*pin, value);
                    }
                });
            }
        }
    }
}

impl Scope<'_> {
    /// Evaluates `body` for all values of `vars`, several of the last one at a time, and gives each to `f` with its indices; some twice,
    /// unless `once`.
    fn sweep(
        &mut self,
        vars: &[VarId],
        facts: &Facts,
        body: &Expr,
        at: &[Index],
        once: bool,
        f: &mut dyn FnMut(&mut Self, &[Index], ValueId),
    ) {
        let Some((&last, outer)) = vars.split_last() else {
            let value = self.eval(body);
            return f(self, at, value);
        };
        let size = self.view.size_of(last) as usize;
        let most = if matches!(&*body.node, Node::Reduce(_)) || along::has_reduce(body) {
            (facts.registers * 2 / 5).max(2)
        } else {
            2
        };
        // The widest step that wastes least.
        let step = (1..=size.min(most)).rev().min_by_key(|&n| size.div_ceil(n) * n * 4 + size.div_ceil(n)).unwrap_or(1);
        let mut points = |s: &mut Self, n: usize| {
            let (mut bodies, mut places) = (Vec::new(), Vec::new());
            for n in 0..n {
                let sub = |v: VarId| (v == last).then(|| Index::from(last).plus(n as i64));
                bodies.push(body.subst_vars(&sub, s.view));
                places.push(at.iter().map(|i| i.subst(&sub, s.view)).collect::<Vec<_>>());
            }
            for (value, at) in s.eval_many(&bodies).into_iter().zip(&places) {
                f(s, at, value);
            }
        };
        let (steps, rest) = if once { (size / step, size % step) } else { (size.div_ceil(step), 0) };
        self.loops(outer, &mut |s| {
            s.for_loop(last, steps, |s| {
                if step > 1 {
                    let counter = s.value_of(last);
                    let start = s.tile_start(counter, step, size);
                    s.bind(last, start);
                }
                points(s, step);
            });
            if rest > 0 {
                let start = s.int((steps * step) as i64);
                s.bind(last, start);
                points(s, rest);
            }
        });
    }
}

struct Plan {
    stage: Vec<Key>,
    staged: HashMap<Key, TensorId>,
    steps: Vec<Step>,
    /// Members without inner variables: where they stand, and the tensor that is pinned to their value.
    done: HashMap<TensorId, (Vec<Index>, TensorId)>,
}

impl Plan {
    /// Inlines what is virtual and reads stages for what is staged, adding the stages that are new.
    fn expand(&mut self, view: &mut View<'_>, body: &Expr) -> Expr {
        let mut this = std::mem::replace(
            self,
            Plan { stage: Vec::new(), staged: HashMap::new(), steps: Vec::new(), done: HashMap::new() },
        );
        let out = view.expand(body, &mut |view, tensor, at| this.hold(view, tensor, at));
        *self = this;
        out
    }

    fn hold(&mut self, view: &mut View<'_>, tensor: TensorId, at: &[Index]) -> Option<Expr> {
        if let Some((row, pin)) = self.done.get(&tensor)
            && row == at
        {
            return Some(Expr::read(view.elem(tensor), *pin, Vec::new()));
        }
        let (key, inner) = key(view, tensor, at)?;
        if !self.stage.contains(&key) {
            return None;
        }
        let array = match self.staged.get(&key) {
            Some(&t) => t,
            None => {
                let stage = self.new_stage(view, &key);
                let t = stage.tensor;
                self.staged.insert(key, t);
                self.steps.push(Step::Stage(stage));
                t
            }
        };
        Some(Expr::read(view.elem(tensor), array, inner))
    }

    fn new_stage(&mut self, view: &mut View<'_>, key: &Key) -> Stage {
        let (vars, at) = open(view, key);
        let dims = vars.iter().map(|&v| view.function.var(v).axis).collect();
        let name = format!("{}.stage", view.name(key.0));
        let tensor = view.function.new_tensor(name, view.elem(key.0), dims, None);
        let body = if view.is_virtual(key.0) {
            let body = view.body_at(key.0, &at);
            self.expand(view, &body)
        } else {
            Expr::read(view.elem(key.0), key.0, at)
        };
        Stage { tensor, vars, body }
    }
}
