//! What a row kernel does, in order: stages are filled, members computed.
//!
//! Bodies are written for one row, the kernel variable `lane`, and stages have a last dimension for the item's vectors, read at the variable `vec`.
//! A step is done for all rows of an item at once, a row in every lane, unless it is *turned*: then vectors run along the last variable of its own
//! and rows are gone through one by one, taken out of the lanes of what is staged.

use super::blocks::Block;
use super::expand::View;
use super::stages::{Key, key, open};
use super::storage::collect_factors;
use super::strips::{Fold, Strip};
use super::{Facts, along, lanes};
use crate::ir::index::Sizes;
use crate::ir::{Elem, Expr, Index, Monoid, Node, Pred, Reduction, TensorId, VarId};
use std::collections::HashMap;

/// A member with so many elements in a row has the common factors of their sums staged.
const MANY: usize = 4;

/// What it costs to change rows for columns, in loads for a vector.
const TURN: f64 = 4.0;

/// A local array for the values of a key.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What stands for it: the key's own dimensions, and the item's vectors if it differs between rows.
    pub tensor: TensorId,
    /// Variables for the key's own dimensions.
    pub vars: Vec<VarId>,
    /// The value there.
    pub body: Expr,
    /// Whether it differs between rows.
    pub varies: bool,
    /// The stage whose array it has; its own, or one that is not read any more.
    pub array: TensorId,
    /// Whether no place may be filled twice.
    pub once: bool,
    /// If vectors run along its last variable.
    pub turned: Option<TurnedStage>,
}

/// A stage that is computed with vectors along its last variable; squares of elements then change rows for columns.
#[derive(Clone, Debug)]
pub struct TurnedStage {
    /// What stands for the last variable.
    pub along: VarId,
    /// What stands for the kernel's row: the first of a square's.
    pub row: VarId,
}

/// Something that a row kernel does.
#[derive(Clone, Debug)]
pub enum Step {
    /// Fills a local array.
    Stage(Stage),
    /// Computes a member, with a row in every lane.
    Member {
        /// What it defines.
        tensor: TensorId,
        /// Its own variables.
        inner: Vec<VarId>,
        /// The element.
        at: Vec<Index>,
        /// The element's value.
        body: Expr,
        /// What stands for the value in the members after it, if it has no variables of its own.
        pin: Option<TensorId>,
        /// Whether its values are added up, so that each must be given just once.
        summed: bool,
        /// How it is put together, if it is found strip by strip.
        fold: Option<Fold>,
    },
    /// Computes a member, with vectors along its last variable.
    Turned(Turned),
    /// Does steps for every strip of the rows.
    Strip(Strip),
}

/// A member with vectors along its last variable.
#[derive(Clone, Debug)]
pub struct Turned {
    /// What it defines.
    pub tensor: TensorId,
    /// Its own variables but the last.
    pub outer: Vec<VarId>,
    /// The last one.
    pub along: VarId,
    /// What stands for the last one in each vector.
    pub vectors: Vec<VarId>,
    /// How far it is from the first vector to each.
    pub offsets: Vec<usize>,
    /// What stands for the kernel's row in each of the rows that are computed together.
    pub rows: Vec<VarId>,
    /// Where the lanes of staged values have the row.
    pub place: VarId,
    /// The same for each of the rows that are computed together.
    pub places: Vec<VarId>,
    /// The element.
    pub at: Vec<Index>,
    /// The element's value.
    pub body: Expr,
    /// The lanes of local arrays, by what stands for them.
    pub lanes: Vec<(TensorId, TensorId)>,
    /// How it is put together, if it is found strip by strip.
    pub fold: Option<Fold>,
}

impl Turned {
    /// Vectors of the elements that are computed together, and how often that is done in an item.
    pub fn accumulators(&self, view: &View<'_>, block: Block) -> usize {
        let (rows, vectors) = (self.rows.len(), self.vectors.len());
        let span = self.offsets[vectors - 1] + block.width;
        let steps = block.own().div_ceil(rows) * block.vectors * (view.size_of(self.along) as usize).div_ceil(span);
        steps * rows * vectors
    }
}

/// A member over the kernel's variables.
#[derive(Clone, Debug)]
pub struct Local {
    /// What it defines.
    pub tensor: TensorId,
    /// Its own variables.
    pub inner: Vec<VarId>,
    /// The element.
    pub at: Vec<Index>,
    /// The element's value.
    pub body: Expr,
    /// Whether its values are added up by key.
    pub summed: bool,
    /// How it is put together, if it is found strip by strip.
    pub fold: Option<Fold>,
}

/// The steps of a kernel as they are found.
#[derive(Clone)]
pub struct Plan {
    /// The variables of a row and of an item's vectors.
    pub lane: VarId,
    /// The variable that numbers an item's vectors.
    pub vec: VarId,
    /// An item's rows.
    pub block: Block,
    /// What is staged.
    pub stage: Vec<Key>,
    /// The steps so far; a stage stands before the first that reads it.
    pub steps: Vec<Step>,
    staged: HashMap<Key, TensorId>,
    /// The strip that steps are added to.
    pub open: Option<Strip>,
    /// Local arrays that differ between its strips.
    stripped: Vec<TensorId>,
    /// By maxima that grow from strip to strip: what stands for the factor by which what is relative to them then shrinks.
    shrinks: HashMap<TensorId, TensorId>,
    /// The last variable of a member that may be turned.
    along: Option<VarId>,
    /// All local arrays.
    arrays: Vec<TensorId>,
    /// Local arrays that differ between rows, with what stands for their single lanes.
    varying: HashMap<TensorId, Option<TensorId>>,
    /// Members without inner variables: where they stand, and what stands for their value.
    done: HashMap<TensorId, (Vec<Index>, TensorId)>,
}

impl Plan {
    /// No steps yet.
    pub fn new(lane: VarId, vec: VarId, block: Block, stage: Vec<Key>) -> Plan {
        Plan {
            lane,
            vec,
            block,
            stage,
            steps: Vec::new(),
            staged: HashMap::new(),
            open: None,
            stripped: Vec::new(),
            shrinks: HashMap::new(),
            along: None,
            arrays: Vec::new(),
            varying: HashMap::new(),
            done: HashMap::new(),
        }
    }

    /// Adds a member, turned if that is cheaper; `factor`: whether common factors may be staged.
    pub fn member(&mut self, view: &mut View<'_>, facts: &Facts, member: &Local, factor: bool) {
        let Local { tensor, inner, at, body, summed, mut fold } = member.clone();
        let expand = |this: &mut Self, view: &mut View<'_>| {
            let body = this.expand(view, &body);
            let many = factor && points_of(view, &inner) >= MANY;
            if many { this.factored(view, &inner, &body) } else { body }
        };
        if !summed && let Some(&last) = inner.last() {
            // What is stored along its last variable is then better than what is staged, a row in every lane.
            let before = self.clone();
            self.along = Some(last);
            let body = expand(self, view);
            self.along = None;
            let of = Local { body, ..member.clone() };
            if let Some(turned) = self.turned(view, facts, &of) {
                self.push(Step::Turned(turned));
                return;
            }
            *self = before;
        }
        let body = expand(self, view);
        if let Some(fold) = &mut fold {
            self.fold(view, fold);
        }
        let pin = (inner.is_empty() && !summed).then(|| {
            let axis = view.function.var(self.vec).axis;
            view.function.new_tensor("row", view.elem(tensor), vec![axis], None)
        });
        if let Some(pin) = pin {
            self.done.insert(tensor, (at.clone(), pin));
            self.varying.insert(pin, None);
            // Until a strip's pass is over, what is there changes from strip to strip.
            if fold.is_some() {
                self.stripped.push(pin);
            }
        }
        if let Some(Fold { shrink: Some(shrink), .. }) = fold {
            self.shrinks.insert(tensor, shrink);
            self.varying.insert(shrink, None);
        }
        self.push(Step::Member { tensor, inner, at, body, pin, summed, fold });
    }

    /// How a member is put together, with what is staged and pinned; nothing is staged for that.
    fn fold(&mut self, view: &mut View<'_>, fold: &mut Fold) {
        if let Some((_, end)) = &mut fold.end {
            let stage = std::mem::take(&mut self.stage);
            *end = self.expand(view, end);
            self.stage = stage;
        }
        if let Some(base) = &mut fold.base {
            *base = self.shrinks[base];
        }
        if fold.grows {
            let axis = view.function.var(self.vec).axis;
            fold.shrink = Some(view.function.new_tensor("shrink", Elem::F32, vec![axis], None));
        }
    }

    fn push(&mut self, step: Step) {
        self.open.as_mut().map_or(&mut self.steps, |strip| &mut strip.steps).push(step);
    }

    /// Forgets the stages of a strip that has all its steps.
    pub fn forget(&mut self, strip: &Strip) {
        debug_assert!(self.open.is_none(), "the strip of {:?} is closed", strip.start);
        let stripped = std::mem::take(&mut self.stripped);
        self.staged.retain(|_, t| !stripped.contains(t));
    }

    /// Inlines what is virtual and reads stages for what is staged, adding the stages that are new.
    fn expand(&mut self, view: &mut View<'_>, body: &Expr) -> Expr {
        let mut this = std::mem::replace(self, Plan::new(self.lane, self.vec, self.block, Vec::new()));
        let out = view.expand(body, &mut |view, tensor, at| this.hold(view, tensor, at));
        *self = this;
        out
    }

    fn hold(&mut self, view: &mut View<'_>, tensor: TensorId, at: &[Index]) -> Option<Expr> {
        if let Some((row, pin)) = self.done.get(&tensor)
            && row == at
        {
            return Some(Expr::read(view.elem(tensor), *pin, vec![self.vec.into()]));
        }
        let (key, mut inner) = key(view, tensor, at)?;
        let along = |v: VarId| !view.is_virtual(tensor) && inner.iter().any(|i| i.uses(v));
        if !self.stage.contains(&key) || self.along.is_some_and(along) {
            return None;
        }
        let array = match self.staged.get(&key) {
            Some(&t) => t,
            None => {
                let t = self.new_stage(view, &key);
                self.staged.insert(key, t);
                t
            }
        };
        if self.varying.contains_key(&array) {
            inner.push(self.vec.into());
        }
        Some(Expr::read(view.elem(tensor), array, inner))
    }

    fn new_stage(&mut self, view: &mut View<'_>, key: &Key) -> TensorId {
        let member = self.along.take();
        let (vars, at) = open(view, key);
        let body = if view.is_virtual(key.0) {
            let body = view.body_at(key.0, &at);
            self.expand(view, &body)
        } else {
            Expr::read(view.elem(key.0), key.0, at)
        };
        self.along = member;
        let name = format!("{}.stage", view.name(key.0));
        self.add_stage(view, &name, view.elem(key.0), vars, body)
    }

    /// A step that fills a local array, after those so far; gives what stands for the array.
    fn add_stage(&mut self, view: &mut View<'_>, name: &str, elem: Elem, vars: Vec<VarId>, body: Expr) -> TensorId {
        let varies = self.varies(&body);
        let turned = if varies { self.turned_stage(view, &vars, &body) } else { None };
        let own = vars.iter().copied().chain(varies.then_some(self.vec));
        let dims = own.map(|v| view.function.var(v).axis).collect();
        let tensor = view.function.new_tensor(name, elem, dims, None);
        self.arrays.push(tensor);
        if varies {
            self.varying.insert(tensor, None);
        }
        // What all strips have in common stands before them.
        let mut of_strip = self.open.as_ref().is_some_and(|strip| body.uses(strip.start));
        body.visit_reads(&mut |t, _| of_strip |= self.stripped.contains(&t));
        let step = Step::Stage(Stage { tensor, vars, body, varies, array: tensor, once: false, turned });
        if of_strip {
            self.stripped.push(tensor);
            self.push(step);
        } else {
            self.steps.push(step);
        }
        tensor
    }

    /// A body whose sums have one staged factor for all of their factors that do not depend on the member's own variables: those would be multiplied
    /// again for each of its elements.
    fn factored(&mut self, view: &mut View<'_>, inner: &[VarId], e: &Expr) -> Expr {
        let Node::Reduce(r) = &*e.node else { return e.map_children(&mut |c| self.factored(view, inner, c)) };
        let mut factors = Vec::new();
        collect_factors(&r.body, &mut factors);
        let own = |f: &&Expr| inner.iter().any(|&v| f.uses(v));
        let (own, common): (Vec<&Expr>, Vec<&Expr>) = factors.into_iter().partition(own);
        let plain = |f: &&Expr| matches!(&*f.node, Node::Read { .. } | Node::Const(_));
        if r.op != Monoid::Sum
            || r.guard != Pred::True
            || own.is_empty()
            || (common.len() < 2 && common.iter().all(plain))
            || !r.vars.iter().all(|&v| common.iter().any(|f| f.uses(v)))
        {
            return e.clone();
        }
        let product = common.into_iter().cloned().reduce(Expr::mul).expect("there are some");
        let sizes: Vec<usize> = r.vars.iter().map(|&v| view.size_of(v) as usize).collect();
        let vars: Vec<VarId> = sizes.iter().map(|&n| view.var("s", n)).collect();
        let map: HashMap<VarId, VarId> = r.vars.iter().copied().zip(vars.iter().copied()).collect();
        let body = product.subst_vars(&|v| map.get(&v).map(|&v| v.into()), view);
        let stage = self.add_stage(view, "factor", e.elem, vars, body);
        let mut at: Vec<Index> = r.vars.iter().map(|&v| v.into()).collect();
        if self.varying.contains_key(&stage) {
            at.push(self.vec.into());
        }
        let read = Expr::read(e.elem, stage, at);
        let body = own.into_iter().cloned().fold(read, Expr::mul);
        Expr::new(e.elem, Node::Reduce(Reduction { op: r.op, vars: r.vars.clone(), guard: Pred::True, body }))
    }

    /// Whether a body differs between rows.
    fn varies(&self, body: &Expr) -> bool {
        let mut found = body.uses(self.lane);
        body.visit_reads(&mut |t, _| found |= self.varying.contains_key(&t));
        found
    }

    /// What a stage needs to be filled along its last variable, if that makes fewer loads.
    fn turned_stage(&self, view: &mut View<'_>, vars: &[VarId], body: &Expr) -> Option<TurnedStage> {
        let (&along, width) = (vars.last()?, self.block.width);
        let size = view.size_of(along) as usize;
        if width < 2 || size < width || body.elem != Elem::F32 || along::has_reduce(body) {
            return None;
        }
        let (mut turned, mut lanes) = (TURN, 0.0);
        for r in self.reads(view, body, 1.0) {
            if r.held {
                return None;
            }
            let row = r.address.uses(self.lane);
            let load = |v| lanes::load_cost(&r.address, Some(v));
            turned += load(along) / if row { 1.0 } else { width as f64 };
            lanes += if row { load(self.lane) } else { 1.0 / self.block.vectors as f64 };
        }
        let lane = view.size_of(self.lane) as usize;
        (turned < lanes).then(|| TurnedStage { along: view.var("along", size), row: view.var("row", lane) })
    }

    /// The member with vectors along its last variable, if that can be done and costs less.
    fn turned(&mut self, view: &mut View<'_>, facts: &Facts, of: &Local) -> Option<Turned> {
        let Local { tensor, inner, at, body, fold, .. } = of;
        let (&along, outer) = inner.split_last()?;
        let (size, width) = (view.size_of(along) as usize, self.block.width);
        if size < width {
            return None;
        }
        let shape = Shape::of(facts, self.block, size, along::has_reduce(body));
        let reads = self.reads(view, body, 1.0);
        let stores = view.address(*tensor, at);
        let turned = self.turned_cost(&reads, &stores, along, &shape)?;
        if turned >= self.lanes_cost(&reads, &stores, along, facts, body) {
            return None;
        }

        let place = view.var("place", self.block.lanes());
        let mut views = Vec::new();
        let mut fold = fold.clone();
        fold.iter_mut().for_each(|fold| self.fold(view, fold));
        let mut single = |view: &mut View<'_>, t: TensorId, at: &[Index]| {
            let lanes = self.single_lanes(view, t)?;
            if !views.contains(&(t, lanes)) {
                views.push((t, lanes));
            }
            let mut at = at.to_vec();
            *at.last_mut()? = place.into();
            Some(Expr::read(view.elem(t), lanes, at))
        };
        let body = view.expand(body, &mut single);
        if let Some(fold) = &mut fold {
            if let Some((_, end)) = &mut fold.end {
                *end = view.expand(end, &mut single);
            }
            if let Some(base) = &mut fold.base {
                let read = single(view, *base, &[place.into()])?;
                read.visit_reads(&mut |t, _| *base = t);
            }
        }
        let row = view.size_of(self.lane) as usize;
        Some(Turned {
            tensor: *tensor,
            outer: outer.to_vec(),
            along,
            vectors: (0..shape.vectors).map(|_| view.var("along", size)).collect(),
            offsets: (0..shape.vectors).map(|n| (n * width).min(shape.span - width)).collect(),
            rows: (0..shape.rows).map(|_| view.var("row", row)).collect(),
            place,
            places: (0..shape.rows).map(|_| view.var("place", self.block.lanes())).collect(),
            at: at.to_vec(),
            body,
            lanes: views,
            fold,
        })
    }

    /// What stands for the single lanes of a local array that differs between rows.
    fn single_lanes(&mut self, view: &mut View<'_>, array: TensorId) -> Option<TensorId> {
        let lanes = self.varying.get_mut(&array)?;
        if lanes.is_none() {
            let mut dims = view.function.tensor(array).dims.clone();
            let place = view.var("place", self.block.lanes());
            *dims.last_mut()? = view.function.var(place).axis;
            *lanes = Some(view.function.new_tensor(view.name(array), view.elem(array), dims, None));
        }
        *lanes
    }

    fn reads(&self, view: &View<'_>, e: &Expr, times: f64) -> Vec<Read> {
        let mut out = Vec::new();
        match &*e.node {
            Node::Reduce(r) => {
                let n: f64 = r.vars.iter().map(|&v| view.size_of(v) as f64).product();
                return self.reads(view, &r.body, times * n);
            }
            Node::Read { tensor, at, .. } => out.push(Read {
                address: view.address(*tensor, at),
                staged: self.varying.contains_key(tensor),
                held: self.arrays.contains(tensor),
                times,
            }),
            _ => {}
        }
        e.for_each_child(&mut |c| out.extend(self.reads(view, c, times)));
        out
    }

    /// The loads and stores for a vector's worth of elements, vectors running along a variable; `None` if that cannot be done.
    fn turned_cost(&self, reads: &[Read], stores: &Index, along: VarId, shape: &Shape) -> Option<f64> {
        let (rows, vectors) = (shape.rows as f64, shape.vectors as f64);
        let mut cost = lanes::load_cost(stores, Some(along)).max(1.0);
        for r in reads {
            let (row, own) = (r.staged || r.address.uses(self.lane), r.address.uses(along));
            if r.held && own {
                return None;
            }
            let load = if own { lanes::load_cost(&r.address, Some(along)) } else { 1.0 };
            cost += r.times * load / if row { 1.0 } else { rows } / if own { 1.0 } else { vectors };
        }
        Some(cost * shape.waste)
    }

    /// The same with a row in every lane.
    fn lanes_cost(&self, reads: &[Read], stores: &Index, along: VarId, facts: &Facts, body: &Expr) -> f64 {
        let (points, vectors) = (points(facts, self.block, along::has_reduce(body)) as f64, self.block.vectors as f64);
        let mut cost = lanes::load_cost(stores, Some(self.lane)).max(1.0);
        for r in reads {
            let (row, own) = (r.staged || r.address.uses(self.lane), r.address.uses(along));
            let load = if row && !r.staged { lanes::load_cost(&r.address, Some(self.lane)) } else { 1.0 };
            cost += r.times * load / if row { 1.0 } else { vectors } / if own { 1.0 } else { points };
        }
        cost * self.block.lanes() as f64 / self.block.rows as f64
    }
}

/// Number of points of some variables.
fn points_of(view: &View<'_>, vars: &[VarId]) -> usize {
    vars.iter().map(|&v| view.size_of(v) as usize).product()
}

/// A read in a body, and how often it happens.
struct Read {
    address: Index,
    /// Whether it is of a local array that differs between rows, or of any.
    staged: bool,
    held: bool,
    times: f64,
}

/// Points of a step's last variable that are computed together, for each vector of an item.
pub fn points(facts: &Facts, block: Block, sums: bool) -> usize {
    match (sums, block.vectors) {
        (false, _) => 2,
        (true, 1) => (facts.registers * 2 / 5).max(2),
        (true, n) => (facts.registers.saturating_sub(n + 1) / n).max(2),
    }
}

/// How many rows and vectors of a turned member are computed together.
struct Shape {
    rows: usize,
    vectors: usize,
    /// Elements that the vectors cover.
    span: usize,
    /// Elements that are computed for each that is needed.
    waste: f64,
}

impl Shape {
    fn of(facts: &Facts, block: Block, size: usize, sums: bool) -> Shape {
        let needed = size.div_ceil(block.width);
        let mut best: Option<(f64, Shape)> = None;
        for vectors in 1..=needed.min(8) {
            for rows in 1..=block.own().min(16) {
                if rows * vectors + vectors + 2 > facts.registers.max(4) {
                    break;
                }
                if !sums && rows * vectors > 4 {
                    break;
                }
                let of_rows = (block.own().div_ceil(rows) * rows * block.vectors) as f64 / block.rows as f64;
                let of_vectors = (needed.div_ceil(vectors) * vectors * block.width) as f64 / size as f64;
                let waste = of_rows * of_vectors;
                // A vector is more often far away than what is staged.
                let loads = (rows as f64 + 2.0 * vectors as f64) / (rows * vectors) as f64;
                // A multiply-add takes as long as two loads at hand, but has to wait for its own last one.
                let few = if sums { (8.0 / (rows * vectors) as f64).max(1.0) } else { 1.0 };
                let cost = waste * (1.0 + 0.2 * loads).max(loads * 1.2) * few;
                if best.as_ref().is_none_or(|(c, _)| cost < *c) {
                    best = Some((cost, Shape { rows, vectors, span: (vectors * block.width).min(size), waste }));
                }
            }
        }
        best.map_or(Shape { rows: 1, vectors: 1, span: block.width, waste: 1.0 }, |(_, shape)| shape)
    }
}
