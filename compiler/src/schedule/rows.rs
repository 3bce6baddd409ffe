//! The schedule of definitions that share their rows: attention and normalisation, whatever they are called.
//!
//! A row kernel computes, for a vector of neighbouring rows (one a lane), everything its members need: virtual tensors that
//! are read more than once are staged in local arrays over their remaining dimensions, then the members are computed one
//! after the other, each from the stages, the stored tensors and the members before it. A softmax is three such members (maximum, sum, weighted sum), its
//! gradient some more; nothing here knows that.

use super::cost::{expr_cost, points};
use super::emit::{Scope, stored_elem};
use super::expand::View;
use super::{Facts, Planner, along, lanes};
use crate::ir::index::Sizes;
use crate::ir::{Atom, Clause, Expr, Index, Node, TensorId, VarId};
use crate::loops::{Kernel, Type};
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

/// A virtual or stored tensor at the kernel's row, dimension by dimension.
pub type Key = (TensorId, Vec<Part>);

/// What a row reads of a dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// One place.
    Fixed(Index),
    /// So many places, from this one on.
    Span(Index, usize),
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
        None => build(&mut planner.view, &facts, members),
    };
    planner.launch(kernel, tensors, site);
}

fn build(view: &mut View<'_>, facts: &Facts, members: &[Member]) -> (Kernel, Vec<TensorId>) {
    let first = &members[0];
    let sizes: Vec<usize> = first.rows.iter().map(|&v| view.size_of(v) as usize).collect();
    let lane_rows = lanes::choose(view, facts, members, &sizes);
    let lane_size: usize = lane_rows.iter().map(|&r| sizes[r]).product();
    let mut width = 1 << lane_size.min(facts.lanes).ilog2();

    // Kernel variables: the lane and the other rows.
    let lane = view.var("lane", lane_size);
    let names: Vec<String> = first.rows.iter().map(|&v| view.function.var(v).name.clone()).collect();
    let row_vars: Vec<Option<VarId>> =
        (0..sizes.len()).map(|r| (!lane_rows.contains(&r)).then(|| view.var(&names[r], sizes[r]))).collect();
    let mut rows: Vec<Index> = Vec::new();
    for (r, row) in row_vars.iter().enumerate() {
        rows.push(match row {
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
            let map: HashMap<VarId, &Index> = m.rows.iter().copied().zip(&rows).collect();
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
        let (stage, fits) = choose_stages(view, facts, lane, &roots, width, members);
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

    let view = &*view;
    let mut s = Scope::new(view.name(members[members.len() - 1].tensor), view, width as u8);
    s.lane_var = Some(lane);
    let tiles = lane_size.div_ceil(width);
    s.kernel.items = (tiles
        * row_vars.iter().enumerate().filter(|(_, v)| v.is_some()).map(|(r, _)| sizes[r]).product::<usize>())
        as u32;
    let mut rest = s.item();
    let (tile, left) = s.split_item(rest, tiles);
    rest = left;
    let start = s.tile_start(tile, width, lane_size);
    s.bind(lane, start);
    for (r, v) in row_vars.iter().enumerate().rev() {
        let Some(v) = v else { continue };
        let (value, left) = s.split_item(rest, sizes[r]);
        rest = left;
        s.bind(*v, value);
    }
    for step in &plan.steps {
        match step {
            Step::Stage(stage) => {
                let elem = match stored_elem(view.elem(stage.tensor)) {
                    crate::ir::Elem::U32 if view.elem(stage.tensor) == crate::ir::Elem::Bool => crate::ir::Elem::Bool,
                    other => other,
                };
                let lanes = if s.varies(&stage.body) { width as u8 } else { 1 };
                s.local(stage.tensor, Type { elem, lanes });
                let at: Vec<Index> = stage.vars.iter().map(|&v| v.into()).collect();
                s.sweep(&stage.vars, facts, &stage.body, &at, &mut |s, at, value| {
                    s.store_local(stage.tensor, at, value)
                });
            }
            Step::Member { tensor, inner, at, body, pin } => {
                s.sweep(inner, facts, body, at, &mut |s, at, value| {
                    let value = s.widen(value);
                    s.store(*tensor, at, value);
                    if let Some(pin) = pin {
                        s.pin(*pin, value);
                    }
                });
            }
        }
    }
    s.finish()
}

impl Scope<'_> {
    /// Evaluates `body` for all values of `vars`, several of the last one at a time, and gives each to `f` with its indices.
    fn sweep(
        &mut self,
        vars: &[VarId],
        facts: &Facts,
        body: &Expr,
        at: &[Index],
        f: &mut dyn FnMut(&mut Self, &[Index], crate::loops::ValueId),
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
        self.loops(outer, &mut |s| {
            s.for_loop(last, size.div_ceil(step), |s| {
                if step > 1 {
                    let counter = s.value_of(last);
                    let start = s.tile_start(counter, step, size);
                    s.bind(last, start);
                }
                let (mut bodies, mut places) = (Vec::new(), Vec::new());
                for n in 0..step {
                    let sub = |v: VarId| (v == last).then(|| Index::from(last).plus(n as i64));
                    bodies.push(body.subst_vars(&sub, s.view));
                    places.push(at.iter().map(|i| i.subst(&sub, s.view)).collect::<Vec<_>>());
                }
                for (value, at) in s.eval_many(&bodies).into_iter().zip(&places) {
                    f(s, at, value);
                }
            });
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

/// New variables for the spans of a key, and the indices that read it.
pub fn open(view: &mut View<'_>, key: &Key) -> (Vec<VarId>, Vec<Index>) {
    let mut vars = Vec::new();
    let mut at = Vec::new();
    for part in &key.1 {
        at.push(match part {
            Part::Fixed(i) => i.clone(),
            Part::Span(start, n) => {
                let v = view.var("s", *n);
                vars.push(v);
                start.add(&v.into())
            }
        });
    }
    (vars, at)
}

/// The key of a read whose every index is fixed in the row, or that plus a variable of its own, with those variables. What is fixed in the row are indices of
/// the kernel's row variables, which have values outside all loops.
pub fn key(view: &View<'_>, tensor: TensorId, at: &[Index]) -> Option<(Key, Vec<Index>)> {
    let shape = view.shape(tensor);
    let mut own: Vec<Index> = Vec::new();
    let mut parts = Vec::new();
    for (i, &n) in at.iter().zip(&shape) {
        // A stage is filled outside the guards of its readers.
        let (lo, hi) = i.range(view)?;
        if i.is_data() || lo < 0 || hi >= n as i64 {
            return None;
        }
        let mut moving = None;
        let mut start = Index::from(i.offset);
        for (atom, c) in &i.terms {
            let term = Index::atom(atom.clone());
            let mut fixed = true;
            term.visit_vars(&mut |v| fixed &= view.row_vars.contains(&v));
            match (fixed, atom, moving) {
                (true, ..) => start = start.add(&term.scale(*c)),
                (false, Atom::Var(v), None) if *c == 1 => moving = Some(*v),
                _ => return None,
            }
        }
        match moving {
            None => parts.push(Part::Fixed(i.clone())),
            Some(v) if own.contains(&v.into()) => return None,
            Some(v) => {
                own.push(v.into());
                parts.push(Part::Span(start, view.size_of(v) as usize));
            }
        }
    }
    (!own.is_empty()).then_some(((tensor, parts), own))
}

/// Which keys are worth a local array, and whether all of those fit.
fn choose_stages(
    view: &mut View<'_>,
    facts: &Facts,
    lane: VarId,
    roots: &[(Vec<VarId>, Expr)],
    width: usize,
    members: &[Member],
) -> (Vec<Key>, bool) {
    let mut evals: Vec<(Key, f64)> = Vec::new();
    let own: Vec<TensorId> = members.iter().map(|m| m.tensor).collect();
    for (inner, body) in roots {
        let times = points(&view.axes, &view.function, inner) as f64;
        count(view, body, times, &mut evals);
    }
    // Virtual tensors in reverse order of definition, so that readers are decided before what they read.
    let mut order: Vec<TensorId> = view.function.body.iter().rev().flat_map(|s| s.defines()).collect();
    order.retain(|&t| view.is_virtual(t));
    let mut chosen = Vec::new();
    let mut bytes = 0;
    let mut fits = true;
    for t in order {
        let mut n = 0;
        while let Some(p) = evals[n..].iter().position(|((tensor, _), _)| *tensor == t) {
            n += p;
            let (key, times) = evals[n].clone();
            n += 1;
            let (vars, at) = open(view, &key);
            let size = points(&view.axes, &view.function, &vars) as f64;
            let body = view.body_at(t, &at);
            let cost = deep_cost(view, &body);
            let ratio = times / size;
            let mut inner = times;
            if ratio > 1.01 && (ratio - 1.0) * cost > 2.0 * ratio + 2.0 {
                let need = size as usize * width * 4;
                if bytes + need <= facts.local_bytes {
                    bytes += need;
                    chosen.push(key);
                    inner = size;
                } else {
                    fits = false;
                }
            }
            count(view, &body, inner, &mut evals);
        }
    }
    // Stored tensors that the lanes would take apart again and again.
    for (key, times) in &evals {
        if view.is_virtual(key.0) || own.contains(&key.0) {
            continue;
        }
        let (vars, at) = open(view, key);
        let size = points(&view.axes, &view.function, &vars) as f64;
        let shape = view.shape(key.0);
        let address = at.iter().zip(&shape).fold(Index::default(), |s, (i, &n)| s.scale(n as i64).add(i)).fold();
        let apart = address.uses(lane) && address.coefficient(lane) != 1;
        let need = size as usize * width * 4;
        if apart && *times > 1.5 * size && bytes + need <= facts.local_bytes {
            bytes += need;
            chosen.push(key.clone());
        }
    }
    (chosen, fits)
}

/// Adds how often each key is read by an expression that is evaluated `times` times; reads that have no key are inlined.
fn count(view: &mut View<'_>, e: &Expr, times: f64, out: &mut Vec<(Key, f64)>) {
    match &*e.node {
        Node::Reduce(r) => {
            let n = points(&view.axes, &view.function, &r.vars) as f64;
            return count(view, &r.body, times * n, out);
        }
        Node::Read { tensor, at, .. } => match key(view, *tensor, at) {
            Some((key, _)) => match out.iter_mut().find(|(k, _)| *k == key) {
                Some((_, n)) => *n += times,
                None => out.push((key, times)),
            },
            None if view.is_virtual(*tensor) => {
                let body = view.body_at(*tensor, at);
                count(view, &body, times, out);
            }
            None => {}
        },
        _ => {}
    }
    e.for_each_child(&mut |c| count(view, c, times, out));
}

/// The cost of a body with everything virtual in it inlined.
fn deep_cost(view: &mut View<'_>, body: &Expr) -> f64 {
    let body = view.expand(body, &mut |_, _, _| None);
    expr_cost(&view.axes, &view.function, &body)
}
