//! Emits the steps of a row kernel: loops over their variables, several points at a time.

use super::Facts;
use super::along;
use super::emit::{Scope, stored_elem};
use super::rows::Rows;
use super::steps::{Stage, Step, Turned, TurnedStage, points};
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Elem, Expr, Index, TensorId, VarId};
use crate::loops::{Type, ValueId};

/// What takes the value of a member at some indices, for the vector of that number.
pub type Put<'p> = &'p mut dyn FnMut(&mut Scope<'_>, TensorId, &[Index], ValueId, usize);

impl Scope<'_> {
    /// Binds what stands for the rows to the rows of a tile.
    pub fn bind_rows(&mut self, rows: &Rows, tile: ValueId) {
        let start = self.tile_start(tile, rows.block.rows, rows.lane_size);
        self.bind(rows.lane, start);
        for (n, &lane) in rows.lanes.iter().enumerate() {
            let offset = self.int(rows.block.offset(n) as i64);
            let first = self.int_op(BinaryOp::Add, start, offset);
            self.bind(lane, first);
        }
    }

    /// Binds the rows that are not along the lanes to the parts of a number, the last one changing fastest.
    pub fn bind_outer(&mut self, mut number: ValueId, outer: &[&(VarId, usize, usize)]) {
        for &&(v, size, _) in outer.iter().rev() {
            let (value, left) = self.split_item(number, size);
            number = left;
            self.bind(v, value);
        }
    }

    /// Emits the steps; `put` takes the values of members.
    pub fn steps(&mut self, rows: &Rows, facts: &Facts, steps: &[Step], put: Put<'_>) {
        for step in steps {
            match step {
                Step::Stage(stage) => self.stage(rows, facts, stage),
                Step::Member { at, body, pin: Some(pin), fold: Some(fold), .. } => {
                    let sweep = Sweep { vars: &[], body, at, once: false, few: false, vectors: rows.block.vectors };
                    self.sweep(rows, facts, &sweep, &mut |s, _, value, vector| {
                        let value = s.widen(value);
                        s.folded(*pin, body, fold, value, vector);
                    });
                }
                Step::Member { tensor, inner, at, body, pin, summed, .. } => {
                    if let Some(pin) = pin {
                        self.local(*pin, Type { elem: local_elem(self.view.elem(*tensor)), lanes: self.lanes });
                    }
                    let sweep =
                        Sweep { vars: inner, body, at, once: *summed, few: *summed, vectors: rows.block.vectors };
                    self.sweep(rows, facts, &sweep, &mut |s, at, value, vector| {
                        let value = s.widen(value);
                        put(s, *tensor, at, value, vector);
                        if let Some(pin) = pin {
                            s.store_local(*pin, &[Index::from(vector as i64)], value);
                        }
                    });
                    pin.iter().for_each(|pin| self.filled(*pin));
                }
                Step::Turned(turned) if turned.fold.is_some() => self.turned_strip(rows, turned),
                Step::Turned(turned) => self.turned_chunks(rows, turned, &mut |s, _| s.turned_points(rows, turned)),
                Step::Strip(strip) => self.strips(rows, facts, strip, put),
            }
        }
    }

    fn stage(&mut self, rows: &Rows, facts: &Facts, stage: &Stage) {
        let lanes = if stage.varies { self.lanes } else { 1 };
        let ty = Type { elem: local_elem(self.view.elem(stage.tensor)), lanes };
        if stage.array == stage.tensor {
            self.local(stage.tensor, ty);
        } else {
            self.take_over(stage.array, stage.tensor);
        }
        let mut at: Vec<Index> = stage.vars.iter().map(|&v| v.into()).collect();
        if stage.varies {
            at.push(rows.vec.into());
        }
        let vectors = if stage.varies { rows.block.vectors } else { 1 };
        if let Some(turned) = &stage.turned {
            self.turned_stage(rows, stage, turned, &at);
        } else {
            let sweep = Sweep { vars: &stage.vars, body: &stage.body, at: &at, once: stage.once, few: false, vectors };
            self.sweep(rows, facts, &sweep, &mut |s, at, value, _| s.store_local(stage.tensor, at, value));
        }
        self.filled(stage.tensor);
    }

    /// Fills a stage by squares: a vector along its last variable for each of a vector's rows, then with rows and columns changed.
    fn turned_stage(&mut self, rows: &Rows, stage: &Stage, turned: &TurnedStage, at: &[Index]) {
        let Some((&last, outer)) = stage.vars.split_last() else { return };
        let (size, width, vectors) = (self.view.size_of(last) as usize, rows.block.width, rows.block.vectors);
        let row = |s: &Self, k: usize| {
            let sub = |v: VarId| match v {
                v if v == rows.lane => Some(Index::from(turned.row).plus(k as i64)),
                v if v == last => Some(turned.along.into()),
                _ => None,
            };
            stage.body.subst_vars(&sub, s.view)
        };
        let bodies: Vec<Expr> = (0..width).map(|k| row(self, k)).collect();
        let before = (self.lane_var, std::mem::take(&mut self.more_lanes), self.along);
        self.loops(outer, &mut |s| {
            s.count(size.div_ceil(width), |s, n| {
                let start = s.tile_start(n, width, size);
                s.bind(turned.along, start);
                s.count(vectors, |s, n| {
                    s.bind(rows.vec, n);
                    let offset = s.offset(rows, n);
                    let first = s.int_op(BinaryOp::Add, s.value_of(rows.lane), offset);
                    s.bind(turned.row, first);
                    (s.lane_var, s.along) = (Some(turned.along), size.is_multiple_of(width));
                    let columns = s.square(&bodies);
                    (s.lane_var, s.along) = (before.0, before.2);
                    for (k, value) in columns.into_iter().enumerate() {
                        let place = |v: VarId| (v == last).then(|| Index::from(turned.along).plus(k as i64));
                        let at: Vec<Index> = at.iter().map(|i| i.subst(&place, s.view)).collect();
                        s.store_local(stage.tensor, &at, value);
                    }
                });
            });
        });
        self.more_lanes = before.1;
    }

    /// Evaluates a body for all values of its variables, several of the last one at a time, and for all vectors of an item; gives each to `f` with its
    /// indices and the number of the vector.
    fn sweep(
        &mut self,
        rows: &Rows,
        facts: &Facts,
        sweep: &Sweep<'_>,
        f: &mut dyn FnMut(&mut Self, &[Index], ValueId, usize),
    ) {
        let last = sweep.vars.last().copied();
        let mut points_of = |s: &mut Self, n: usize| {
            let (mut bodies, mut places) = (Vec::new(), Vec::new());
            for n in 0..n {
                for vector in 0..sweep.vectors {
                    let sub = |v: VarId| match v {
                        v if Some(v) == last => (n > 0).then(|| Index::from(v).plus(n as i64)),
                        v if v == rows.lane => Some(rows.lanes[vector].into()),
                        v if v == rows.vec => Some(Index::from(vector as i64)),
                        _ => None,
                    };
                    bodies.push(sweep.body.subst_vars(&sub, s.view));
                    let at: Vec<Index> = sweep.at.iter().map(|i| i.subst(&sub, s.view)).collect();
                    places.push((at, vector));
                }
            }
            for (value, (at, vector)) in s.eval_many(&bodies).into_iter().zip(&places) {
                f(s, at, value, *vector);
            }
        };
        let Some((&last, outer)) = sweep.vars.split_last() else { return points_of(self, 1) };
        let size = self.view.size_of(last) as usize;
        let sums = along::has_reduce(sweep.body);
        let most = if sweep.few && !sums { 1 } else { points(facts, rows.block, sums) };
        // The widest step that wastes least.
        let step = (1..=size.min(most)).rev().min_by_key(|&n| size.div_ceil(n) * n * 4 + size.div_ceil(n)).unwrap_or(1);
        let (steps, rest) = if sweep.once { (size / step, size % step) } else { (size.div_ceil(step), 0) };
        self.loops(outer, &mut |s| {
            s.for_loop(last, steps, |s| {
                if step > 1 {
                    let counter = s.value_of(last);
                    let start = s.tile_start(counter, step, size);
                    s.bind(last, start);
                }
                points_of(s, step);
            });
            if rest > 0 {
                let start = s.int((steps * step) as i64);
                s.bind(last, start);
                points_of(s, rest);
            }
        });
    }

    /// Goes through the elements of a turned member, those together that are computed together; `f` gets the number of the first of them.
    pub fn turned_chunks(&mut self, rows: &Rows, turned: &Turned, f: &mut dyn FnMut(&mut Self, ValueId)) {
        let before = (self.lane_var, std::mem::take(&mut self.more_lanes), self.along);
        self.lane_var = Some(turned.vectors[0]);
        self.more_lanes = turned.vectors[1..].to_vec();
        let size = self.view.size_of(turned.along) as usize;
        // All vectors then start at multiples of their width.
        self.along = size.is_multiple_of(rows.block.width);
        for (array, lanes) in &turned.lanes {
            self.single_lanes(*array, *lanes);
        }
        self.loops(&turned.outer, &mut |s| {
            let (block, count) = (rows.block, turned.rows.len());
            let steps = block.own().div_ceil(count);
            s.count(steps * block.vectors, |s, n| {
                let (step, vector) = s.split_item(n, steps);
                let (lane, row) = s.own_lane(rows, vector, step, count);
                for (k, (&own, &place)) in turned.rows.iter().zip(&turned.places).enumerate() {
                    let k = s.int(k as i64);
                    let value = s.int_op(BinaryOp::Add, row, k);
                    s.bind(own, value);
                    let value = s.int_op(BinaryOp::Add, lane, k);
                    s.bind(place, value);
                }
                let last = turned.offsets[turned.offsets.len() - 1];
                let span = last + rows.block.width;
                let spans = size.div_ceil(span);
                s.count(spans, |s, m| {
                    let first = s.tile_start(m, span, size);
                    for (&vector, &offset) in turned.vectors.iter().zip(&turned.offsets) {
                        let offset = s.int(offset as i64);
                        let value = s.int_op(BinaryOp::Add, first, offset);
                        s.bind(vector, value);
                    }
                    let (spans, points) = (s.int(spans as i64), s.int((count * turned.vectors.len()) as i64));
                    let number = s.int_op(BinaryOp::Mul, n, spans);
                    let number = s.int_op(BinaryOp::Add, number, m);
                    let number = s.int_op(BinaryOp::Mul, number, points);
                    f(s, number);
                });
            });
        });
        (self.lane_var, self.more_lanes, self.along) = before;
    }

    /// The item's row in the first lane of the vector of that number.
    fn offset(&mut self, rows: &Rows, vector: ValueId) -> ValueId {
        let block = rows.block;
        let (own, last) = (self.int(block.own() as i64), self.int((block.rows - block.width) as i64));
        let offset = self.int_op(BinaryOp::Mul, vector, own);
        if block.rows == block.own() * block.vectors && block.own() == block.width {
            return offset;
        }
        self.int_op(BinaryOp::Min, offset, last)
    }

    /// The first of the rows of a vector's own that a step does, `count` each: its lane among those of all vectors, and the row. The last step ends with
    /// the vector's lanes.
    fn own_lane(&mut self, rows: &Rows, vector: ValueId, step: ValueId, count: usize) -> (ValueId, ValueId) {
        let block = rows.block;
        let own = block.own();
        let times = |s: &mut Self, v: ValueId, n: usize| {
            let n = s.int(n as i64);
            s.int_op(BinaryOp::Mul, v, n)
        };
        let (first, step) = (self.offset(rows, vector), times(self, step, count));
        let whole = own.is_multiple_of(count) && block.rows == own * block.vectors;
        let lane = if block.rows == block.lanes() {
            step
        } else {
            let before = times(self, vector, own);
            let before = self.int_op(BinaryOp::Sub, before, first);
            self.int_op(BinaryOp::Add, before, step)
        };
        let last = self.int((block.width - count) as i64);
        let lane = if whole { lane } else { self.int_op(BinaryOp::Min, lane, last) };
        let base = times(self, vector, block.width);
        let place = self.int_op(BinaryOp::Add, base, lane);
        let row = self.int_op(BinaryOp::Add, first, lane);
        let start = self.value_of(rows.lane);
        (place, self.int_op(BinaryOp::Add, start, row))
    }

    /// The elements of a turned member that are computed together: their bodies, and where they are.
    pub fn turned_bodies(&self, rows: &Rows, turned: &Turned, body: &Expr) -> Vec<(Expr, Vec<Index>)> {
        let mut out = Vec::new();
        for (&row, &place) in turned.rows.iter().zip(&turned.places) {
            for &vector in &turned.vectors {
                let sub = |v: VarId| match v {
                    v if v == rows.lane => Some(row.into()),
                    v if v == turned.place => Some(place.into()),
                    v if v == turned.along => Some(vector.into()),
                    _ => None,
                };
                let at = turned.at.iter().map(|i| i.subst(&sub, self.view)).collect();
                out.push((body.subst_vars(&sub, self.view), at));
            }
        }
        out
    }

    fn turned_points(&mut self, rows: &Rows, turned: &Turned) {
        let (bodies, places): (Vec<Expr>, Vec<Vec<Index>>) =
            self.turned_bodies(rows, turned, &turned.body).into_iter().unzip();
        for (value, at) in self.eval_many(&bodies).into_iter().zip(&places) {
            let value = self.widen(value);
            self.store(turned.tensor, at, value);
        }
    }
}

/// A body to evaluate, and where.
struct Sweep<'a> {
    vars: &'a [VarId],
    body: &'a Expr,
    at: &'a [Index],
    /// Whether every point is to be evaluated just once.
    once: bool,
    /// Whether what is done with a value takes many instructions.
    few: bool,
    /// How many of an item's vectors differ.
    vectors: usize,
}

/// How an element is held in a local array.
fn local_elem(elem: Elem) -> Elem {
    if elem == Elem::Bool { Elem::Bool } else { stored_elem(elem) }
}
