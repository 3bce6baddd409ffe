//! Sums of a pair tensor by a key: the gradient of a table that is read by offset, whatever the offset is of.
//!
//! `y[h, o] = sum(b, i) p[b, h, i, i + o]` reads a pair tensor along its diagonals. Computed that way round, nothing that a row of `p` needs is
//! shared by its elements. Instead every work item goes through rows of `p` one vector after the other, as the readers of its rows do, and
//! adds what it finds at `(i, j)` to its own partial result at the key `j - i`; a second kernel adds the partial results. For one `j`, rows
//! that are neighbours have different keys, so the lanes of a vector never add to the same place. Where other definitions read the same pairs at the same
//! rows, the sum is one more member of their kernel.

use super::Facts;
use super::emit::{I32, Scope};
use super::expand::View;
use super::groups::deep_reads;
use super::rows::{Member, Rows};
use super::sweep::Put;
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Clause, Elem, Expr, Index, Monoid, Node, Pred, Reduction, TensorId, VarId};
use crate::loops::{Op, Stmt, Type, ValueId};

/// Work items: enough for any device's units, and not dependent on them, so that the additions have one order.
const ITEMS: usize = 64;
/// The same where so many of them run in lockstep that those are few.
const LOCKSTEP_ITEMS: usize = 4096;

/// A sum by key.
#[derive(Clone, Debug)]
pub struct Sum {
    /// The definition as it was.
    pub clause: Clause,
    /// Which dimensions of the result are rows of the pair tensor: the variables. The others are keys.
    rows: Vec<Option<VarId>>,
    /// Sizes of the result's dimensions.
    shape: Vec<usize>,
    /// Elements that vectors are made of at most.
    lanes: usize,
}

/// How sums are divided among work items: each has one part of the rows that are summed, for one value of those that are not.
pub struct Parts<'m> {
    /// The sums' members, and the partial results of each: one row of keys a work item.
    sums: Vec<(&'m Member, &'m Sum, TensorId)>,
    /// Numbers of the members' rows that the results have.
    kept: Vec<usize>,
    /// What divides the rows.
    parts: usize,
}

/// The sum with the places of the pair tensor for variables instead of the keys, if it is one by key.
pub fn recognise(view: &mut View<'_>, facts: &Facts, tensor: TensorId, clause: &Clause) -> Option<Member> {
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
        clause: clause.clone(),
        rows: clause.vars.iter().map(|v| rows.contains(v).then_some(*v)).collect(),
        shape: view.shape(tensor),
        lanes: facts.lanes,
    };
    Some(Member { tensor, clause: Clause { vars, at, body }, rows, sum: Some(sum) })
}

impl Sum {
    /// Numbers of a member's rows that the result has.
    pub fn kept(&self, member: &Member) -> Vec<usize> {
        (0..member.rows.len()).filter(|&r| self.rows.contains(&Some(member.rows[r]))).collect()
    }

    /// Whether neighbouring rows along the lanes have different keys: each of them moves a key that no other one moves.
    pub fn separates(&self, member: &Member, lane_rows: &[usize]) -> bool {
        let lanes: Vec<VarId> = lane_rows.iter().map(|&r| member.rows[r]).collect();
        let keys = || self.rows.iter().zip(&member.clause.at).filter(|(row, _)| row.is_none()).map(|(_, i)| i);
        !self.rows.iter().flatten().any(|r| lanes.contains(r))
            && lanes
                .iter()
                .all(|&v| keys().any(|i| i.coefficient(v).abs() == 1 && lanes.iter().all(|&w| w == v || !i.uses(w))))
    }

    /// Elements of a work item's partial result, with what fills its last vector up.
    fn keys(&self) -> usize {
        let keys = self.rows.iter().zip(&self.shape).filter(|(row, _)| row.is_none());
        keys.map(|(_, n)| n).product::<usize>().next_multiple_of(self.lanes)
    }

    /// The place of a result among the keys.
    fn key(&self, at: &[Index]) -> Index {
        let keys = self.rows.iter().zip(at).zip(&self.shape).filter(|((row, _), _)| row.is_none());
        keys.fold(Index::default(), |sum, ((_, i), &n)| sum.scale(n as i64).add(i))
    }
}

impl<'m> Parts<'m> {
    /// Divides the rows of a kernel, and makes tensors for partial results; `None` if no member is a sum by key. All sums keep the same rows.
    pub fn new(view: &mut View<'_>, facts: &Facts, members: &'m [Member], rows: &Rows) -> Option<Parts<'m>> {
        let sums: Vec<(&Member, &Sum)> = members.iter().filter_map(|m| Some((m, m.sum.as_ref()?))).collect();
        let (first, sum) = sums.first()?;
        let mut out = Parts { sums: Vec::new(), kept: sum.kept(first), parts: 1 };
        let results = out.points(rows, true);
        let items = if facts.lockstep { LOCKSTEP_ITEMS } else { ITEMS };
        out.parts = items.div_ceil(results).min(rows.tiles * out.points(rows, false));
        for (member, sum) in sums {
            let dims = [("item", results * out.parts), ("key", sum.keys())].map(|(name, n)| {
                let v = view.var(name, n);
                view.function.var(v).axis
            });
            let name = format!("{}.parts", view.name(member.tensor));
            let partial = view.function.new_tensor(name, Elem::F32, dims.to_vec(), None);
            out.sums.push((member, sum, partial));
        }
        Some(out)
    }

    /// The rows beside those along the lanes that the results have, or those that they have not.
    fn outer<'r>(&self, rows: &'r Rows, kept: bool) -> Vec<&'r (VarId, usize, usize)> {
        rows.outer.iter().filter(|o| self.kept.contains(&o.2) == kept).collect()
    }

    fn points(&self, rows: &Rows, kept: bool) -> usize {
        self.outer(rows, kept).iter().map(|o| o.1).product()
    }

    /// Emits a kernel; `body` emits what is done for a tile of rows and gives the values of all members to what it is told.
    pub fn emit(&self, s: &mut Scope<'_>, rows: &Rows, body: &mut dyn FnMut(&mut Scope<'_>, Put<'_>)) {
        let width = s.lanes as usize;
        let item = s.item();
        let zero = s.op(Op::Const(0f64.to_bits()), Type { elem: Elem::F32, lanes: 1 });
        let zero = s.widen(zero);
        // Where the item's keys begin. Zeros to begin with.
        let mut firsts = Vec::new();
        for &(_, sum, partial) in &self.sums {
            s.kernel.items = s.view.shape(partial)[0] as u32;
            let (buffer, length) = (s.written(partial), s.int(sum.keys() as i64));
            let first = s.int_op(BinaryOp::Mul, item, length);
            s.count(sum.keys() / width, |s, n| {
                let step = s.int(width as i64);
                let offset = s.int_op(BinaryOp::Mul, n, step);
                let index = s.int_op(BinaryOp::Add, first, offset);
                s.push(Stmt::Store { buffer, index, value: zero });
            });
            firsts.push((buffer, first));
        }

        let (part, rest) = s.split_item(item, self.parts);
        s.bind_outer(rest, &self.outer(rows, true));
        let all = rows.tiles * self.points(rows, false);
        let chunk = all.div_ceil(self.parts);
        let start = s.int(chunk as i64);
        let start = s.int_op(BinaryOp::Mul, part, start);
        s.count(chunk, |s, n| {
            let n = s.int_op(BinaryOp::Add, start, n);
            let mut vector = |s: &mut Scope<'_>| {
                let (tile, rest) = s.split_item(n, rows.tiles);
                s.bind_outer(rest, &self.outer(rows, false));
                s.bind_rows(rows, tile);
                let own: Vec<Option<ValueId>> = (0..rows.block.vectors).map(|v| own_lanes(s, tile, rows, v)).collect();
                body(s, &mut |s, tensor, at, value, vector| {
                    let Some(n) = self.sums.iter().position(|(m, ..)| m.tensor == tensor) else {
                        return s.store(tensor, at, value);
                    };
                    let (buffer, first) = firsts[n];
                    let key = self.sums[n].1.key(at);
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

    /// The sums of the partial results, by what they define.
    pub fn second(&self, view: &mut View<'_>) -> Vec<(TensorId, Clause)> {
        let mut out = Vec::new();
        for &(member, sum, partial) in &self.sums {
            let (clause, elem) = (&sum.clause, view.elem(partial));
            let part = view.var("part", self.parts);
            let at: Vec<Index> = clause.vars.iter().map(|&v| v.into()).collect();
            // In the order of the rows, as work items are numbered.
            let number = |row: &Option<VarId>| row.and_then(|v| member.rows.iter().position(|&r| r == v));
            let mut kept: Vec<(usize, &Index, usize)> = (sum.rows.iter().zip(&at).zip(&sum.shape))
                .filter_map(|((row, i), &n)| Some((number(row)?, i, n)))
                .collect();
            kept.sort_by_key(|k| k.0);
            let item = kept.iter().fold(Index::default(), |sum, (_, i, n)| sum.scale(*n as i64).add(i));
            let item = item.scale(self.parts as i64).add(&part.into());
            let body = Expr::read(elem, partial, vec![item, sum.key(&at)]);
            let sum = Reduction { op: Monoid::Sum, vars: vec![part], guard: Pred::True, body };
            let body = Expr::new(elem, Node::Reduce(sum));
            out.push((member.tensor, Clause { vars: clause.vars.clone(), at: clause.at.clone(), body }));
        }
        out
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
