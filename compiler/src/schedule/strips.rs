//! Rows that are too long to be staged whole are gone through strip by strip.
//!
//! A member that is a sum (or a maximum) over pairs is found from the strips of the row one after the other: every strip's stages are filled, and what its
//! sums give is added to what the strips before gave. Members that need each other's results cannot share a pass over the row, the others do. A sum of
//! exponentials of differences to a maximum need not wait for it: they are taken to the largest so far, and where that grows from one strip to the next,
//! what was summed is multiplied by the exponential of the difference. So a softmax takes one pass, and its gradient over queries another one, that over
//! keys one in all.

use super::Facts;
use super::blocks::Block;
use super::emit::{I32, Scope};
use super::expand::View;
use super::groups::deep_reads;
use super::rows::Rows;
use super::steps::{Local, Plan, Step, Turned};
use super::sweep::Put;
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Clause, Elem, Expr, Index, Monoid, Node, Pred, Reduction, TensorId, UnaryOp, VarId};
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

/// How a member is put together from what strips give.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// What stands for what all strips give, and the member's value made of that, if it is something else.
    pub end: Option<(TensorId, Expr)>,
    /// The maximum that what is summed is relative to; in a plan, what stands for the factor by which it shrinks.
    pub base: Option<TensorId>,
    /// Whether others are relative to this one.
    pub grows: bool,
    /// Then, in a plan: what stands for the factor by which those shrink.
    pub shrink: Option<TensorId>,
}

/// Members that are computed in one pass over the rows.
pub struct Pass {
    /// The members over the places of a strip.
    pub members: Vec<Local>,
    /// The strips, without steps; `None` for members that are no sums over pairs.
    pub strip: Option<Strip>,
}

/// The strips that may fit, the longest first, by the most pairs of a row in one.
pub fn lengths(facts: &Facts, block: Block) -> impl Iterator<Item = usize> {
    let longest = (facts.local_bytes / (ARRAYS * block.lanes() * 4)).clamp(1, LONGEST);
    (0..3).map(move |n| longest >> n).filter(|&n| n > 0)
}

/// The members in passes over strips of so many pairs at most; `None` if none of them can be cut.
pub fn passes(view: &mut View<'_>, locals: &[Local], longest: usize) -> Option<Vec<Pass>> {
    let mut out: Vec<Pass> = Vec::new();
    for m in locals {
        let mut m = m.clone();
        let end = opened(view, &mut m);
        let Some((total, rest)) = cut(view, &m, longest) else {
            // As it was.
            let m = locals.iter().find(|l| l.tensor == m.tensor)?.clone();
            out.push(Pass { members: vec![m], strip: None });
            continue;
        };
        let Node::Reduce(r) = &*m.body.node else { return None };
        let joins = match out.last_mut() {
            Some(Pass { members, strip: Some(strip) }) if strip.total == total => joins(view, r, members),
            _ => None,
        };
        let fold = Fold { end, base: joins.flatten(), ..Fold::default() };
        if joins.is_none() {
            let size = size(total, rest, longest);
            let start = view.var("strip", total - size + 1);
            view.row_vars.push(start);
            let strip = Strip { start, total, size, vars: Vec::new(), steps: Vec::new() };
            out.push(Pass { members: Vec::new(), strip: Some(strip) });
        }
        let Some(Pass { members, strip: Some(strip) }) = out.last_mut() else { return None };
        let v = view.var("s", strip.size);
        strip.vars.push(v);
        let at = |w: VarId| (w == r.vars[0]).then(|| Index::from(strip.start).add(&v.into()));
        let reduction = Reduction {
            op: r.op,
            vars: std::iter::once(v).chain(r.vars[1..].iter().copied()).collect(),
            guard: r.guard.subst(&at, view),
            body: r.body.subst_vars(&at, view),
        };
        let body = Expr::new(m.body.elem, Node::Reduce(reduction));
        members.push(Local { body, fold: Some(fold), ..m });
    }
    out.iter().any(|p| p.strip.is_some()).then_some(out)
}

/// Takes the one reduction that a member's value is made of for its body, and gives what stands for it in the value.
fn opened(view: &mut View<'_>, m: &mut Local) -> Option<(TensorId, Expr)> {
    let mut found: Vec<(TensorId, Vec<Index>)> = Vec::new();
    m.body.visit_reads(&mut |t, at| {
        let sum = view.clause(t).is_some_and(|c| matches!(&*c.body.node, Node::Reduce(_))) && !view.is_pair(t);
        if sum && !found.iter().any(|(u, other)| *u == t && other == at) {
            found.push((t, at.to_vec()));
        }
    });
    let [(sum, at)] = &found[..] else { return None };
    if matches!(&*m.body.node, Node::Reduce(_)) {
        return None;
    }
    let hole = view.function.new_tensor("strips", view.elem(*sum), Vec::new(), None);
    let end =
        m.body.map_reads(&mut |e, t, other| (t == *sum && other == at).then(|| Expr::read(e.elem, hole, Vec::new())));
    m.body = view.body_at(*sum, at);
    Some((hole, end))
}

/// Whether a reduction can share a pass with these members, and the one of them that what it sums is relative to.
fn joins(view: &mut View<'_>, r: &Reduction, members: &mut [Local]) -> Option<Option<TensorId>> {
    let of = |view: &mut View<'_>, e: &Expr| {
        let clause = Clause { vars: Vec::new(), at: Vec::new(), body: e.clone() };
        deep_reads(view, &clause)
    };
    let whole = Expr::select(r.guard.clone(), r.body.clone(), r.body.clone());
    let reads: Vec<TensorId> = of(view, &r.body).into_iter().chain(of(view, &whole)).map(|(t, _)| t).collect();
    let mut needed = members.iter_mut().filter(|m| reads.contains(&m.tensor));
    let Some(base) = needed.next() else { return Some(None) };
    let grows = matches!(&*base.body.node, Node::Reduce(b) if b.op == Monoid::Max && b.body.elem == Elem::F32);
    let plain = base.inner.is_empty() && base.fold.as_ref().is_some_and(|f| f.end.is_none());
    let sum = r.op == Monoid::Sum && r.guard == Pred::True;
    if needed.next().is_some() || !grows || !plain || !sum || relative(view, &r.body, base) != Some(true) {
        return None;
    }
    base.fold.iter_mut().for_each(|f| f.grows = true);
    Some(Some(base.tensor))
}

/// Whether a value is a multiple of the exponential of a difference to a maximum (or has nothing to do with it); `None` if it is anything else.
fn relative(view: &mut View<'_>, e: &Expr, base: &Local) -> Option<bool> {
    match &*e.node {
        Node::Read { tensor, .. } if *tensor == base.tensor => None,
        Node::Read { tensor, at, .. } if view.is_virtual(*tensor) => {
            let body = view.body_at(*tensor, at);
            relative(view, &body, base)
        }
        Node::Stop(a) => relative(view, a, base),
        Node::Unary(UnaryOp::Exp, a) if is_difference(view, a, base) => Some(true),
        Node::Unary(UnaryOp::Neg, a) => relative(view, a, base),
        Node::Binary(BinaryOp::Mul, a, b) => match (relative(view, a, base)?, relative(view, b, base)?) {
            (true, true) => None,
            (a, b) => Some(a || b),
        },
        Node::Binary(BinaryOp::Div, a, b) => {
            let a = relative(view, a, base)?;
            (relative(view, b, base) == Some(false)).then_some(a)
        }
        _ => {
            let clause = Clause { vars: Vec::new(), at: Vec::new(), body: e.clone() };
            (!deep_reads(view, &clause).iter().any(|(t, _)| *t == base.tensor)).then_some(false)
        }
    }
}

/// Whether a value is the difference of something to a maximum.
fn is_difference(view: &mut View<'_>, e: &Expr, base: &Local) -> bool {
    let Node::Binary(BinaryOp::Sub, a, b) = &*e.node else { return false };
    let mut b = b;
    while let Node::Stop(inner) = &*b.node {
        b = inner;
    }
    let found = matches!(&*b.node, Node::Read { tensor, at, .. } if *tensor == base.tensor && *at == base.at);
    found && relative(view, a, base) == Some(false)
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
                Step::Member { tensor, body, pin: Some(pin), fold: Some(fold), .. } => {
                    let ty = Type { elem: self.machine_elem(*tensor), lanes: self.lanes };
                    for t in [Some(*pin), fold.shrink].into_iter().flatten() {
                        let array = self.local(t, ty);
                        self.sums.insert(t, array);
                    }
                    let neutral =
                        if fold.grows { self.vector(f32::MIN.into(), ty.elem) } else { self.neutral(body, ty.elem) };
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
                Step::Member { tensor, at, pin: Some(pin), fold: Some(fold), .. } => {
                    for (v, &lane) in rows.lanes.iter().enumerate() {
                        let number = self.int(v as i64);
                        let mut value = self.load_array(*pin, number);
                        let sub = |w: VarId| match w {
                            w if w == rows.lane => Some(lane.into()),
                            w if w == rows.vec => Some(Index::from(v as i64)),
                            _ => None,
                        };
                        let at: Vec<Index> = at.iter().map(|i| i.subst(&sub, self.view)).collect();
                        if let Some((hole, end)) = &fold.end {
                            value = self.ended(*hole, &end.subst_vars(&sub, self.view), value);
                            self.store_array(*pin, number, value);
                        }
                        put(self, *tensor, &at, value, v);
                    }
                    self.filled(*pin);
                }
                Step::Turned(turned) => self.turned_chunks(rows, turned, &mut |s, first| {
                    let end = turned.fold.as_ref().and_then(|f| f.end.as_ref());
                    let body = end.map_or(&turned.body, |(_, end)| end);
                    for (n, (body, at)) in s.turned_bodies(rows, turned, body).into_iter().enumerate() {
                        let n = s.int(n as i64);
                        let index = s.int_op(BinaryOp::Add, first, n);
                        let value = s.load_array(turned.tensor, index);
                        let value = end.map_or(value, |(hole, _)| s.ended(*hole, &body, value));
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
        let base = turned.fold.as_ref().and_then(|f| f.base);
        self.turned_chunks(rows, turned, &mut |s, first| {
            let bodies = s.turned_bodies(rows, turned, &turned.body);
            let bodies: Vec<Expr> = bodies.into_iter().map(|(body, _)| body).collect();
            for (n, value) in s.eval_many(&bodies).into_iter().enumerate() {
                let value = s.widen(value);
                let place = turned.places[n / turned.vectors.len()];
                let n = s.int(n as i64);
                let index = s.int_op(BinaryOp::Add, first, n);
                let before = s.load_array(turned.tensor, index);
                let value = match base {
                    Some(shrink) => {
                        let factor = s.eval(&Expr::read(Elem::F32, shrink, vec![place.into()]));
                        s.fma(before, factor, value)
                    }
                    None => s.binary(op, before, value),
                };
                s.store_array(turned.tensor, index, value);
            }
        });
    }

    /// Adds what a strip gives of a member with one value a row to what the strips before it gave.
    pub fn folded(&mut self, pin: TensorId, body: &Expr, fold: &Fold, value: ValueId, vector: usize) {
        let Node::Reduce(r) = &*body.node else { return };
        let number = self.int(vector as i64);
        let before = self.load_array(pin, number);
        let sum = match fold.base {
            Some(shrink) => {
                let factor = self.load_array(shrink, number);
                self.fma(before, factor, value)
            }
            None => self.binary(super::emit::combine(r.op), before, value),
        };
        self.store_array(pin, number, sum);
        if let Some(shrink) = fold.shrink {
            let difference = self.binary(BinaryOp::Sub, before, sum);
            let ty = self.ty(difference);
            let factor = self.op(Op::Unary(UnaryOp::Exp, difference), ty);
            self.store_array(shrink, number, factor);
        }
    }

    /// A member's value, made of what all strips give.
    fn ended(&mut self, hole: TensorId, end: &Expr, value: ValueId) -> ValueId {
        self.pin(hole, value);
        let value = self.eval(end);
        self.widen(value)
    }

    fn neutral(&mut self, body: &Expr, elem: Elem) -> ValueId {
        let Node::Reduce(r) = &*body.node else { return self.op(Op::Item, I32) };
        self.vector(r.op.neutral(), elem)
    }

    fn vector(&mut self, value: f64, elem: Elem) -> ValueId {
        let value = self.op(Op::Const(value.to_bits()), Type { elem, lanes: 1 });
        self.widen(value)
    }

    fn machine_elem(&self, tensor: TensorId) -> Elem {
        super::emit::stored_elem(self.view.elem(tensor))
    }
}
