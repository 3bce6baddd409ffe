//! Rows that are too long to be staged whole are gone through strip by strip.
//!
//! A member that is a sum (or a maximum) over pairs is found from the strips of the row one after the other: every strip's stages are filled, and what its
//! sums give is added to what the strips before gave. Members that need each other's results cannot share a pass over the row, the others do: a
//! softmax takes two passes, one for the maximum and one for the rest, its gradient over queries another one, that over keys one in all.

use super::Facts;
use super::blocks::Block;
use super::emit::{I32, Scope};
use super::expand::View;
use super::groups::deep_reads;
use super::rows::Rows;
use super::steps::{Local, Plan, Step, Turned};
use super::sweep::Put;
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Clause, Elem, Expr, Index, Monoid, Node, Reduction, TensorId, VarId};
use crate::loops::{Op, Stmt, Type, ValueId};

/// Arrays of a strip's pairs that fit the local memory.
const ARRAYS: usize = 3;
/// Pairs of a row in a strip at most.
const LONGEST: usize = 256;
/// A strip may be that many times shorter if that divides the row evenly.
const SHORTER: usize = 4;

/// Steps that are done for every strip of the rows.
#[derive(Clone, Debug)]
pub struct Strip {
    /// A variable for the first place of a strip.
    pub start: VarId,
    /// Places of the row along the variable that is cut, and those of a strip.
    pub total: usize,
    /// Places of a strip.
    pub size: usize,
    /// The members' variables that run through a strip.
    pub vars: Vec<VarId>,
    /// What is done for each.
    pub steps: Vec<Step>,
}

/// Members that are computed in one pass over the rows.
pub struct Pass {
    /// The members over the places of a strip.
    pub members: Vec<Local>,
    /// The strips, without steps; `None` for members that are no sums over pairs.
    pub strip: Option<Strip>,
}

/// The members in passes over strips; `None` if none of them can be cut.
pub fn passes(view: &mut View<'_>, facts: &Facts, locals: &[Local], block: Block) -> Option<Vec<Pass>> {
    let longest = (facts.local_bytes / (ARRAYS * block.lanes() * 4)).clamp(1, LONGEST);
    let mut out: Vec<Pass> = Vec::new();
    for m in locals {
        let Some((total, rest)) = cut(view, m, longest) else {
            out.push(Pass { members: vec![m.clone()], strip: None });
            continue;
        };
        let joins = match out.last() {
            Some(Pass { members, strip: Some(strip) }) => {
                let before: Vec<TensorId> = members.iter().map(|m| m.tensor).collect();
                let clause = Clause { vars: Vec::new(), at: Vec::new(), body: m.body.clone() };
                strip.total == total && !deep_reads(view, &clause).iter().any(|(t, _)| before.contains(t))
            }
            _ => false,
        };
        if !joins {
            let size = size(total, rest, longest);
            let start = view.var("strip", total - size + 1);
            view.row_vars.push(start);
            let strip = Strip { start, total, size, vars: Vec::new(), steps: Vec::new() };
            out.push(Pass { members: Vec::new(), strip: Some(strip) });
        }
        let Some(Pass { members, strip: Some(strip) }) = out.last_mut() else { return None };
        let Node::Reduce(r) = &*m.body.node else { return None };
        let v = view.var("s", strip.size);
        strip.vars.push(v);
        let at = |w: VarId| (w == r.vars[0]).then(|| Index::from(strip.start).add(&v.into()));
        let reduction = Reduction {
            op: r.op,
            vars: std::iter::once(v).chain(r.vars[1..].iter().copied()).collect(),
            guard: r.guard.subst(&at, view),
            body: r.body.subst_vars(&at, view),
        };
        members.push(Local { body: Expr::new(m.body.elem, Node::Reduce(reduction)), ..m.clone() });
    }
    out.iter().any(|p| p.strip.is_some()).then_some(out)
}

/// The size of the variable that a member's row can be cut along, and that of the others.
fn cut(view: &View<'_>, m: &Local, longest: usize) -> Option<(usize, usize)> {
    let Node::Reduce(r) = &*m.body.node else { return None };
    let folds = matches!(r.op, Monoid::Sum | Monoid::Prod | Monoid::Max | Monoid::Min);
    if !folds || m.summed || !matches!(r.body.elem, Elem::F32 | Elem::F64) {
        return None;
    }
    let (&first, rest) = r.vars.split_first()?;
    let mut pairs = false;
    r.body.visit_reads(&mut |t, at| pairs |= view.is_virtual(t) && at.iter().any(|i| i.uses(first)));
    let sizes = |vars: &[VarId]| vars.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
    let (total, rest) = (sizes(&[first]), sizes(rest));
    (pairs && total * rest > longest && total > 1).then_some((total, rest))
}

/// Places of a strip: a divisor of the row, if one is of the right size.
fn size(total: usize, rest: usize, longest: usize) -> usize {
    let most = (longest / rest).clamp(1, total);
    let least = most.div_ceil(SHORTER);
    (least..=most).rev().find(|&n| total.is_multiple_of(n)).unwrap_or(total.div_ceil(total.div_ceil(most)))
}

impl Plan {
    /// Adds the members of a pass; false if one of them cannot be found strip by strip.
    pub fn pass(&mut self, view: &mut View<'_>, facts: &Facts, pass: &Pass, factor: bool) -> bool {
        self.open.clone_from(&pass.strip);
        for m in &pass.members {
            self.member(view, facts, m, factor);
        }
        let Some(strip) = self.open.take() else { return true };
        let fits = strip.steps.iter().all(|step| match step {
            Step::Member { inner, .. } => inner.is_empty(),
            Step::Turned(t) => t.outer.is_empty() && matches!(&*t.body.node, Node::Reduce(_)),
            _ => true,
        });
        self.forget(&strip);
        self.steps.push(Step::Strip(strip));
        fits
    }
}

impl Scope<'_> {
    /// Emits the steps of all strips.
    pub fn strips(&mut self, rows: &Rows, facts: &Facts, strip: &Strip, put: Put<'_>) {
        for step in &strip.steps {
            match step {
                Step::Member { tensor, body, pin: Some(pin), .. } => {
                    let ty = Type { elem: self.machine_elem(*tensor), lanes: self.lanes };
                    let array = self.local(*pin, ty);
                    self.sums.insert(*pin, array);
                    let neutral = self.neutral(body, ty.elem);
                    for v in 0..rows.block.vectors {
                        self.store_local(*pin, &[Index::from(v as i64)], neutral);
                    }
                }
                Step::Turned(turned) => {
                    let ty = Type { elem: self.machine_elem(turned.tensor), lanes: self.lanes };
                    let len = turned.accumulators(self.view, rows.block);
                    let array = self.array(turned.tensor, ty, len);
                    let neutral = self.neutral(&turned.body, ty.elem);
                    self.count(len, |s, n| s.push(Stmt::StoreLocal { local: array, index: n, value: neutral }));
                }
                _ => {}
            }
        }
        self.count(strip.total.div_ceil(strip.size), |s, n| {
            let start = s.tile_start(n, strip.size, strip.total);
            s.bind(strip.start, start);
            if !strip.total.is_multiple_of(strip.size) {
                // The last strip is shifted back to end with the row; what it shares with the one before is not added again.
                let size = s.int(strip.size as i64);
                let first = s.int_op(BinaryOp::Mul, n, size);
                let skip = s.int_op(BinaryOp::Sub, first, start);
                strip.vars.iter().for_each(|&v| s.start_at(v, Some(skip)));
            }
            s.steps(rows, facts, &strip.steps, put);
        });
        strip.vars.iter().for_each(|&v| self.start_at(v, None));
        for step in &strip.steps {
            match step {
                Step::Member { tensor, at, pin: Some(pin), .. } => {
                    for (v, &lane) in rows.lanes.iter().enumerate() {
                        let number = self.int(v as i64);
                        let value = self.load_array(*pin, number);
                        let sub = |w: VarId| (w == rows.lane).then(|| lane.into());
                        let at: Vec<Index> = at.iter().map(|i| i.subst(&sub, self.view)).collect();
                        put(self, *tensor, &at, value, v);
                    }
                    self.filled(*pin);
                }
                Step::Turned(turned) => self.turned_chunks(rows, turned, &mut |s, first| {
                    for (n, (_, at)) in s.turned_bodies(rows, turned).into_iter().enumerate() {
                        let n = s.int(n as i64);
                        let index = s.int_op(BinaryOp::Add, first, n);
                        let value = s.load_array(turned.tensor, index);
                        s.store(turned.tensor, &at, value);
                    }
                }),
                _ => {}
            }
        }
    }

    /// Adds what a strip gives of a turned member to what the strips before it gave.
    pub fn turned_strip(&mut self, rows: &Rows, turned: &Turned) {
        let Node::Reduce(r) = &*turned.body.node else { return };
        let op = super::emit::combine(r.op);
        self.turned_chunks(rows, turned, &mut |s, first| {
            let bodies: Vec<Expr> = s.turned_bodies(rows, turned).into_iter().map(|(body, _)| body).collect();
            for (n, value) in s.eval_many(&bodies).into_iter().enumerate() {
                let value = s.widen(value);
                let n = s.int(n as i64);
                let index = s.int_op(BinaryOp::Add, first, n);
                let before = s.load_array(turned.tensor, index);
                let value = s.binary(op, before, value);
                s.store_array(turned.tensor, index, value);
            }
        });
    }

    /// Adds what a strip gives of a member with one value a row to what the strips before it gave.
    pub fn folded(&mut self, pin: TensorId, body: &Expr, value: ValueId, vector: usize) -> ValueId {
        let Node::Reduce(r) = &*body.node else { return value };
        let number = self.int(vector as i64);
        let before = self.load_array(pin, number);
        self.binary(super::emit::combine(r.op), before, value)
    }

    fn neutral(&mut self, body: &Expr, elem: Elem) -> ValueId {
        let Node::Reduce(r) = &*body.node else { return self.op(Op::Item, I32) };
        let value = self.op(Op::Const(r.op.neutral().to_bits()), Type { elem, lanes: 1 });
        self.widen(value)
    }

    fn machine_elem(&self, tensor: TensorId) -> Elem {
        super::emit::stored_elem(self.view.elem(tensor))
    }
}
