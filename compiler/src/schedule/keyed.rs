//! Sums of a pair tensor by a key: the gradient of a table that is read by offset, whatever the offset is of.
//!
//! `y[h, o] = sum(b, i) p[b, h, i, i + o]` reads a pair tensor along its diagonals. Computed that way round, nothing that a row of `p` needs is
//! shared by its elements. Instead every work item goes through rows of `p` one vector after the other, as the readers of its rows do, and
//! adds what it finds at `(i, j)` to its own partial result at the key `j - i`; a second kernel adds the partial results. For one `j`, rows
//! that are neighbours have different keys, so the lanes of a vector never add to the same place.

use super::emit::{I32, Scope};
use super::expand::View;
use super::groups::deep_reads;
use super::rows::{self, Member, Rows};
use super::sweep::Put;
use super::{Planner, tile};
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Clause, Elem, Expr, Index, Monoid, Node, Pred, Reduction, TensorId, VarId};
use crate::loops::{Op, Stmt, Type, ValueId};

/// Work items: enough for any device's units, and not dependent on them, so that the additions have one order.
const ITEMS: usize = 64;

/// A sum by key, and how it is divided among work items.
pub struct Sum {
    /// Which dimensions of the result are rows of the pair tensor: those rows' numbers. The others are keys.
    rows: Vec<Option<usize>>,
    /// Sizes of the result's dimensions.
    shape: Vec<usize>,
    /// Elements that vectors are made of at most.
    lanes: usize,
    /// What divides the rows, once that is known.
    parts: usize,
    /// The partial results: one row of keys a work item.
    partial: Option<TensorId>,
}

/// Schedules a definition if it is such a sum; gives whether it is.
pub fn schedule(planner: &mut Planner<'_>, tensor: TensorId, clause: &Clause, site: &str) -> bool {
    let facts = planner.facts.clone();
    let view = &mut planner.view;
    let Some((member, mut sum)) = recognise(view, tensor, clause) else { return false };
    sum.lanes = facts.lanes;
    let members = [member];
    let lane_rows = rows::lane_rows(view, &facts, &members);
    if !sum.separates(&members[0], &lane_rows) {
        return false;
    }
    let (kernel, tensors) = rows::build(view, &facts, &members, &lane_rows, Some(&mut sum));
    let second = sum.second(view, clause);
    planner.launch(kernel, tensors, site);
    tile::schedule(planner, tensor, &second, site);
    true
}

/// The sum with the places of the pair tensor for variables instead of the keys.
fn recognise(view: &mut View<'_>, tensor: TensorId, clause: &Clause) -> Option<(Member, Sum)> {
    let Node::Reduce(r) = &*clause.body.node else { return None };
    if r.op != Monoid::Sum || !r.body.elem.is_float() {
        return None;
    }
    let (pair, at) = deep_reads(view, clause).into_iter().find(|(t, _)| view.is_pair(*t))?;
    let shape = view.shape(pair);
    let rows: Vec<VarId> = at.iter().filter_map(Index::as_var).collect();
    let mut inner = Vec::new();
    let mut keys: Vec<(VarId, Index)> = Vec::new();
    for (i, &n) in at.iter().zip(&shape) {
        if i.as_var().is_some() {
            continue;
        }
        // i = c k + rest, c = 1 or -1, so that k = c (j - rest).
        let mut used = clause.vars.iter().copied().filter(|&v| i.uses(v) && !rows.contains(&v));
        let key = used.next()?;
        let c = i.coefficient(key);
        let rest = i.sub(&Index::from(key).scale(c));
        if used.next().is_some() || c.abs() != 1 || rest.uses(key) || keys.iter().any(|(k, _)| *k == key) {
            return None;
        }
        let j = view.var("j", n);
        let place = Index::from(j).sub(&rest).scale(c);
        let (lo, hi) = place.range(view)?;
        if lo < 0 || hi >= view.size_of(key) {
            return None;
        }
        inner.push(j);
        keys.push((key, place));
    }
    let known = |v: &VarId| rows.contains(v) || keys.iter().any(|(k, _)| k == v);
    let distinct = rows.iter().enumerate().all(|(n, v)| !rows[..n].contains(v));
    if keys.is_empty() || !distinct || !clause.vars.iter().chain(&r.vars).all(known) {
        return None;
    }
    let map = |v: VarId| keys.iter().find(|(k, _)| *k == v).map(|(_, place)| place.clone());
    let (guard, body) = (r.guard.subst(&map, view), r.body.subst_vars(&map, view));
    let body = Expr::select(guard, body, Expr::constant(r.body.elem, 0.0));
    let vars = rows.iter().chain(&inner).copied().collect();
    let at = clause.vars.iter().map(|&v| map(v).unwrap_or_else(|| v.into())).collect();
    let sum = Sum {
        rows: clause.vars.iter().map(|v| rows.iter().position(|r| r == v)).collect(),
        shape: view.shape(tensor),
        lanes: 1,
        parts: 1,
        partial: None,
    };
    Some((Member { tensor, clause: Clause { vars, at, body }, rows }, sum))
}

impl Sum {
    /// Whether neighbouring rows along the lanes have different keys: each of them moves a key that no other one moves.
    fn separates(&self, member: &Member, lane_rows: &[usize]) -> bool {
        let lanes: Vec<VarId> = lane_rows.iter().map(|&r| member.rows[r]).collect();
        let keys = || self.rows.iter().zip(&member.clause.at).filter(|(row, _)| row.is_none()).map(|(_, i)| i);
        !self.rows.iter().flatten().any(|r| lane_rows.contains(r))
            && lanes
                .iter()
                .all(|&v| keys().any(|i| i.coefficient(v).abs() == 1 && lanes.iter().all(|&w| w == v || !i.uses(w))))
    }

    /// Elements of a work item's partial result, with what fills its last vector up.
    fn keys(&self) -> usize {
        let keys = self.rows.iter().zip(&self.shape).filter(|(row, _)| row.is_none());
        keys.map(|(_, n)| n).product::<usize>().next_multiple_of(self.lanes)
    }

    /// The rows, of those that are not along the lanes, that the result has.
    fn kept(&self, row: usize) -> bool {
        self.rows.contains(&Some(row))
    }

    /// Divides the rows that are summed, and makes the tensor of partial results.
    pub fn divide(&mut self, view: &mut View<'_>, tensor: TensorId, rows: &Rows) {
        let results: usize = rows.outer.iter().filter(|o| self.kept(o.2)).map(|o| o.1).product();
        self.parts = ITEMS.div_ceil(results).min(rows.tiles * self.summed(rows));
        let dims = [("item", results * self.parts), ("key", self.keys())].map(|(name, n)| {
            let v = view.var(name, n);
            view.function.var(v).axis
        });
        let name = format!("{}.parts", view.name(tensor));
        self.partial = Some(view.function.new_tensor(name, Elem::F32, dims.to_vec(), None));
    }

    fn summed(&self, rows: &Rows) -> usize {
        rows.outer.iter().filter(|o| !self.kept(o.2)).map(|o| o.1).product()
    }

    /// Emits the kernel; `body` emits what is done for a vector of rows and gives the values to what it is told.
    pub fn emit(&self, s: &mut Scope<'_>, rows: &Rows, body: &mut dyn FnMut(&mut Scope<'_>, Put<'_>)) {
        let Some(partial) = self.partial else { return };
        let (keys, width) = (self.keys(), s.lanes as usize);
        let shape = s.view.shape(partial);
        s.kernel.items = shape[0] as u32;
        let buffer = s.written(partial);
        let item = s.item();
        let length = s.int(keys as i64);
        let first = s.int_op(BinaryOp::Mul, item, length);

        // Zeros to begin with.
        let zero = s.op(Op::Const(0f64.to_bits()), Type { elem: Elem::F32, lanes: 1 });
        let zero = s.widen(zero);
        s.count(keys / width, |s, n| {
            let step = s.int(width as i64);
            let offset = s.int_op(BinaryOp::Mul, n, step);
            let index = s.int_op(BinaryOp::Add, first, offset);
            s.push(Stmt::Store { buffer, index, value: zero });
        });

        let (part, mut rest) = s.split_item(item, self.parts);
        for &(v, size, _) in rows.outer.iter().rev().filter(|o| self.kept(o.2)) {
            let (value, left) = s.split_item(rest, size);
            rest = left;
            s.bind(v, value);
        }
        let all = rows.tiles * self.summed(rows);
        let chunk = all.div_ceil(self.parts);
        let start = s.int(chunk as i64);
        let start = s.int_op(BinaryOp::Mul, part, start);
        s.count(chunk, |s, n| {
            let n = s.int_op(BinaryOp::Add, start, n);
            let mut vector = |s: &mut Scope<'_>| {
                let (tile, mut rest) = s.split_item(n, rows.tiles);
                for &(v, size, _) in rows.outer.iter().rev().filter(|o| !self.kept(o.2)) {
                    let (value, left) = s.split_item(rest, size);
                    rest = left;
                    s.bind(v, value);
                }
                s.bind_rows(rows, tile);
                let own: Vec<Option<ValueId>> = (0..rows.block.vectors).map(|v| own_lanes(s, tile, rows, v)).collect();
                body(s, &mut |s, _, at, value, vector| {
                    let key = self.key(at);
                    let index = s.index_per_lane(&key);
                    let index = s.binary(BinaryOp::Add, index, first);
                    let value = match own[vector] {
                        Some(own) => s.select(own, value, zero),
                        None => value,
                    };
                    let ty = s.ty(value);
                    let before = s.op(Op::Gather { buffer, index }, ty);
                    let value = s.binary(BinaryOp::Add, before, value);
                    s.push(Stmt::Scatter { buffer, index, value });
                });
            };
            if all.is_multiple_of(self.parts) {
                return vector(s);
            }
            let end = s.int(all as i64);
            let cond = s.binary(BinaryOp::Lt, n, end);
            let (then, ()) = s.block(vector);
            s.push(Stmt::If { cond, then, otherwise: Vec::new() });
        });
    }

    /// The place of a result among the keys.
    fn key(&self, at: &[Index]) -> Index {
        let keys = self.rows.iter().zip(at).zip(&self.shape).filter(|((row, _), _)| row.is_none());
        keys.fold(Index::default(), |sum, ((_, i), &n)| sum.scale(n as i64).add(i))
    }

    /// The sum of the partial results.
    fn second(&self, view: &mut View<'_>, clause: &Clause) -> Clause {
        let Some(partial) = self.partial else { return clause.clone() };
        let elem = view.elem(partial);
        let part = view.var("part", self.parts);
        let at: Vec<Index> = clause.vars.iter().map(|&v| v.into()).collect();
        // In the order of the rows, as work items are numbered.
        let mut kept: Vec<(usize, &Index, usize)> =
            self.rows.iter().zip(&at).zip(&self.shape).filter_map(|((row, i), &n)| Some(((*row)?, i, n))).collect();
        kept.sort_by_key(|k| k.0);
        let item = kept.iter().fold(Index::default(), |sum, (_, i, n)| sum.scale(*n as i64).add(i));
        let item = item.scale(self.parts as i64).add(&part.into());
        let read = Expr::read(elem, partial, vec![item, self.key(&at)]);
        let body = Expr::new(
            elem,
            Node::Reduce(Reduction { op: Monoid::Sum, vars: vec![part], guard: Pred::True, body: read }),
        );
        Clause { vars: clause.vars.clone(), at: clause.at.clone(), body }
    }
}

/// The lanes of a tile's vector with rows that no tile before and no other vector has; `None` if that is all of them. The last tile is shifted back to
/// end with the rows.
fn own_lanes(s: &mut Scope<'_>, tile: ValueId, rows: &Rows, vector: usize) -> Option<ValueId> {
    let block = rows.block;
    let lanes = s.op(Op::Lanes, Type { lanes: s.lanes, ..I32 });
    let mut conditions = Vec::new();
    if !rows.lane_size.is_multiple_of(block.rows) {
        let size = s.int(block.rows as i64);
        let first = s.int_op(BinaryOp::Mul, tile, size);
        let start = s.value_of(rows.lanes[vector]);
        let place = s.binary(BinaryOp::Add, lanes, start);
        conditions.push(s.binary(BinaryOp::Ge, place, first));
    }
    let own = block.own_lanes(vector);
    for (op, bound) in [(BinaryOp::Ge, own.start), (BinaryOp::Lt, own.end)] {
        if bound > 0 && bound < block.width {
            let bound = s.int(bound as i64);
            conditions.push(s.binary(op, lanes, bound));
        }
    }
    conditions.into_iter().reduce(|a, b| s.binary(BinaryOp::And, a, b))
}
