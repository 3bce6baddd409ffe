//! The products of a register tile: a panel's vectors with what belongs to the unrolled variable.

use super::ahead::Ahead;
use super::kernel::{Emitter, Term, in_term, nest};
use super::rows::Part;
use crate::ir::{BinaryOp, Expr, Index, Pred, TensorId, VarId};
use crate::loops::{Op, RegId, Stmt, Type, ValueId};
use crate::schedule::assume::assume;
use crate::schedule::emit::Scope;
use crate::schedule::expand::View;
use crate::schedule::loads::{Load, loads};
use crate::schedule::soon::{Reads, is_far};

/// What an item holds of the factor that belongs to the unrolled variable.
pub(super) enum Own {
    /// Nothing: its elements are read where they are needed.
    Read(Read),
    /// Parts of rows in a local array, while those of the next chunk are brought near.
    Held(TensorId, Part, Option<Ahead>),
}

/// What is read of that factor in the innermost loop, and beside it.
pub(super) struct Read {
    /// The factor, an expression for each step.
    pub steps: Vec<Expr>,
    /// What scales the sum over the innermost variable, at each step.
    pub scales: Option<Vec<Expr>>,
    /// The factor at a row of the next tile, which is brought near.
    pub next: Option<Expr>,
}

impl Read {
    /// The same in the code of a term.
    pub fn in_term(&self, view: &View<'_>, term: Term) -> Read {
        let one = |e: &Expr| in_term(view, std::slice::from_ref(e), term).remove(0);
        Read {
            steps: in_term(view, &self.steps, term),
            scales: self.scales.as_ref().map(|all| in_term(view, all, term)),
            next: self.next.as_ref().map(one),
        }
    }
}

/// The innermost loop, and the number of its point.
type Innermost<'a> = (&'a [(VarId, usize, Option<ValueId>)], &'a Index);

impl Emitter {
    /// Adds the products of a tile with what is read, over the innermost variable.
    pub(super) fn add_read(
        &self,
        s: &mut Scope<'_>,
        read: &Read,
        (panel, number): (TensorId, VarId),
        (last, point): Innermost<'_>,
        regs: &[RegId],
    ) {
        let vector = s.kernel.regs[regs[0].0 as usize];
        let soon = read.next.as_ref().map(|e| far_reads(s.view, e)).unwrap_or_default();
        let sums = |s: &mut Scope<'_>, steps: &[Expr]| {
            let zero = self.zero(s, vector);
            let own: Option<Vec<RegId>> = read.scales.is_some().then(|| regs.iter().map(|_| s.reg(zero)).collect());
            nest(s, last, &mut |s| {
                soon.iter().for_each(|(tensor, address)| s.prefetch(*tensor, address));
                let mut element = |s: &mut Scope<'_>, n: usize| s.eval(&steps[n]);
                self.multiply_add(s, panel, &self.place(number, point), &mut element, own.as_deref().unwrap_or(regs));
            });
            if let (Some(scales), Some(own)) = (&read.scales, own) {
                self.add_scaled(s, scales, &own, regs);
            }
        };
        // Where all conditions hold, there are none.
        match self.unconditional(s.view, &read.steps) {
            None => sums(s, &read.steps),
            Some((pred, plain)) => {
                let cond = s.test(&pred);
                let (then, ()) = s.block(|s| sums(s, &plain));
                let (otherwise, ()) = s.block(|s| sums(s, &read.steps));
                s.push(Stmt::If { cond, then, otherwise });
            }
        }
    }

    /// The same with what is held.
    pub(super) fn add_held(
        &self,
        s: &mut Scope<'_>,
        (held, part, next): (TensorId, Part, Option<&Ahead>),
        (panel, number): (TensorId, VarId),
        (last, point): Innermost<'_>,
        ahead: ValueId,
        regs: &[RegId],
    ) {
        let place = self.element(s, part, ahead);
        nest(s, last, &mut |s| {
            next.iter().for_each(|next| next.bring(s));
            let row = s.uniform(&point.scale((self.apart(part) * self.width) as i64));
            let row = s.int_op(BinaryOp::Add, row, place);
            let mut element = |s: &mut Scope<'_>, n: usize| {
                let step = s.int(n as i64);
                let at = s.int_op(BinaryOp::Add, row, step);
                s.load_lane(held, at)
            };
            self.multiply_add(s, panel, &self.place(number, point), &mut element, regs);
        })
    }

    pub(super) fn zero(&self, s: &mut Scope<'_>, vector: Type) -> ValueId {
        let zero = s.op(Op::Const(0f64.to_bits()), Type { lanes: 1, ..vector });
        s.widen(zero)
    }

    /// The steps without the conditions in them, and those: conditions that stay the same in the innermost loop are better decided outside it.
    fn unconditional(&self, view: &View<'_>, steps: &[Expr]) -> Option<(Pred, Vec<Expr>)> {
        let innermost = match (self.chunks.inner.last(), self.chunks.split) {
            (Some(&v), _) => v,
            _ => return None,
        };
        let mut conditions = Vec::new();
        let plain = steps.iter().map(|e| assume(view, e, &|_| true, &mut conditions)).collect();
        let pred = Pred::and(conditions);
        (pred != Pred::True && !pred.uses(innermost)).then_some((pred, plain))
    }

    /// One point of the sum, for all sums of a tile, whose vectors of the panel begin at `point`. `own` gives the other factor at a step.
    fn multiply_add(
        &self,
        s: &mut Scope<'_>,
        panel: TensorId,
        point: &Index,
        own: &mut dyn FnMut(&mut Scope<'_>, usize) -> ValueId,
        regs: &[RegId],
    ) {
        let vector = s.kernel.regs[regs[0].0 as usize];
        let read = |m: usize| {
            let at = point.plus(m as i64);
            Expr::read(self.parts.panel.elem, panel, vec![at])
        };
        let right: Vec<ValueId> = (0..self.vectors).map(|m| s.eval(&read(m))).collect();
        for n in 0..self.unroll {
            let left = own(s, n);
            for (m, &right) in right.iter().enumerate() {
                let reg = regs[n * self.vectors + m];
                let sum = s.op(Op::Get(reg), vector);
                let sum = s.fma(left, right, sum);
                s.push(Stmt::Set(reg, sum));
            }
        }
    }

    /// Adds the sums over the last variable, scaled, to those over all.
    fn add_scaled(&self, s: &mut Scope<'_>, scales: &[Expr], from: &[RegId], to: &[RegId]) {
        let vector = s.kernel.regs[to[0].0 as usize];
        for (n, scale) in scales.iter().enumerate() {
            let scale = s.eval(scale);
            for m in n * self.vectors..(n + 1) * self.vectors {
                let (inner, sum) = (s.op(Op::Get(from[m]), vector), s.op(Op::Get(to[m]), vector));
                let sum = s.fma(scale, inner, sum);
                s.push(Stmt::Set(to[m], sum));
            }
        }
    }
}

/// What an expression reads of tensors so large that it comes from far away.
pub(super) fn far_reads(view: &View<'_>, e: &Expr) -> Reads {
    let far = |l: &Load| l.weight == 1.0 && is_far(view, l.tensor) && !l.address.is_data();
    loads(view, e).into_iter().filter(far).map(|l| (l.tensor, l.address)).collect()
}
