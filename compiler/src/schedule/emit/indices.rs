//! Index expressions and predicates as loop IR values.

use super::{I32, Scope, Speculation};
use crate::ir::index::{Atom, Index};
use crate::ir::{BinaryOp, Elem, Pred};
use crate::loops::{Op, Type, ValueId};

/// An integer whose dependence on the lane is known.
#[derive(Clone, Copy, Debug)]
pub enum Position {
    /// The same in every lane.
    Uniform(ValueId),
    /// `scalar + stride * lane`, stride not 0.
    Strided(ValueId, i64),
    /// Any, one a lane.
    Varying(ValueId),
}

impl Scope<'_> {
    /// The value of an index over kernel variables.
    pub fn position(&mut self, index: &Index) -> Position {
        let mut scalars: Vec<(ValueId, i64)> = Vec::new();
        let mut stride = 0;
        let mut varying: Option<ValueId> = None;
        for (atom, c) in &index.terms {
            match self.atom(atom) {
                Position::Uniform(v) => scalars.push((v, *c)),
                Position::Strided(v, s) => {
                    scalars.push((v, *c));
                    stride += s * c;
                }
                Position::Varying(v) => {
                    let factor = self.int(*c);
                    let v = if *c == 1 { v } else { self.binary(BinaryOp::Mul, v, factor) };
                    varying = Some(match varying {
                        Some(sum) => self.binary(BinaryOp::Add, sum, v),
                        None => v,
                    });
                }
            }
        }
        // What is known longest comes first and the constant last: the points of a tile have all but that in common.
        scalars.sort_unstable();
        let mut scalar = self.int(0);
        for (v, c) in scalars {
            scalar = self.add_scaled(scalar, v, c);
        }
        let offset = self.int(index.offset);
        let scalar = self.int_op(BinaryOp::Add, scalar, offset);
        match (varying, stride) {
            (None, 0) => Position::Uniform(scalar),
            (None, s) => Position::Strided(scalar, s),
            (Some(v), s) => {
                let base = if s == 0 { Position::Uniform(scalar) } else { Position::Strided(scalar, s) };
                let base = self.per_lane(base);
                Position::Varying(self.binary(BinaryOp::Add, base, v))
            }
        }
    }

    /// `sum + c * v` on scalars.
    fn add_scaled(&mut self, sum: ValueId, v: ValueId, c: i64) -> ValueId {
        let factor = self.int(c.abs());
        let product = self.int_op(BinaryOp::Mul, v, factor);
        self.int_op(if c < 0 { BinaryOp::Sub } else { BinaryOp::Add }, sum, product)
    }

    /// The position as one integer a lane.
    pub fn per_lane(&mut self, position: Position) -> ValueId {
        match position {
            Position::Uniform(v) => self.widen(v),
            Position::Varying(v) => v,
            Position::Strided(v, s) => {
                let lane = self.op(Op::Lanes, Type { elem: Elem::I32, lanes: self.lanes });
                let factor = self.int(s);
                let step = if s == 1 { lane } else { self.binary(BinaryOp::Mul, lane, factor) };
                self.binary(BinaryOp::Add, step, v)
            }
        }
    }

    /// The position as a value: a scalar where it is the same in every lane.
    pub fn flatten(&mut self, position: Position) -> ValueId {
        match position {
            Position::Uniform(v) => v,
            other => self.per_lane(other),
        }
    }

    fn atom(&mut self, atom: &Atom) -> Position {
        match atom {
            Atom::Var(v) => {
                let value = *self.bound.get(v).expect("kernel variables are bound before use");
                if self.is_lane(*v) { Position::Strided(value, 1) } else { Position::Uniform(value) }
            }
            Atom::Data(e) => {
                let value = self.eval(e);
                let lanes = self.ty(value).lanes;
                let value = match self.ty(value).elem {
                    Elem::I32 => value,
                    _ => self.op(Op::Cast(value), Type { elem: Elem::I32, lanes }),
                };
                if lanes == 1 { Position::Uniform(value) } else { Position::Varying(value) }
            }
            Atom::Div(e, c) => self.division(e, *c, false),
            Atom::Mod(e, c) => self.division(e, *c, true),
            Atom::Clamp(e, lo, hi) => {
                let inner = self.position(e);
                let uniform = matches!(inner, Position::Uniform(_));
                let v = self.flatten(inner);
                let (lo, hi) = (self.int(*lo), self.int(*hi));
                let v = self.binary(BinaryOp::Max, v, lo);
                let v = self.binary(BinaryOp::Min, v, hi);
                if uniform { Position::Uniform(v) } else { Position::Varying(v) }
            }
        }
    }

    /// Floor division and remainder; the operand is shifted by a multiple of `c` so that it is not negative.
    fn division(&mut self, e: &Index, c: i64, remainder: bool) -> Position {
        let low = e.range(self).map_or(i64::from(i32::MIN / 4), |(lo, _)| lo);
        let shift = if low < 0 { (-low + c - 1) / c } else { 0 };
        let inner = self.position(&e.plus(shift * c));
        // Lanes that start at a multiple of the width and stay within one period keep their stride.
        if let Position::Strided(v, 1) = inner
            && c % i64::from(self.lanes) == 0
            && (self.along || (self.lane_var.is_some() && self.view.aligned_lane == self.lane_var))
            && let Some(lane) = self.lane_var.iter().chain(&self.more_lanes).find(|&&v| e.uses(v))
            && aligned(e, *lane, self.lanes)
        {
            let v = self.quotient(v, c, shift, remainder);
            return if remainder { Position::Strided(v, 1) } else { Position::Uniform(v) };
        }
        match inner {
            Position::Uniform(v) => Position::Uniform(self.quotient(v, c, shift, remainder)),
            other => {
                let v = self.per_lane(other);
                Position::Varying(self.quotient(v, c, shift, remainder))
            }
        }
    }

    fn quotient(&mut self, v: ValueId, c: i64, shift: i64, remainder: bool) -> ValueId {
        let by = self.int(c);
        if remainder {
            let (v, by) = self.same_lanes(v, by);
            let ty = self.ty(v);
            return self.op(Op::Rem(v, by), ty);
        }
        let q = self.binary(BinaryOp::Div, v, by);
        let back = self.int(shift);
        if shift == 0 { q } else { self.binary(BinaryOp::Sub, q, back) }
    }

    /// The truth of a predicate: a bool, scalar where it is the same in every lane.
    pub fn test(&mut self, pred: &Pred) -> ValueId {
        let truth = Type { elem: Elem::Bool, lanes: 1 };
        match pred {
            Pred::True => self.op(Op::Const(1f64.to_bits()), truth),
            Pred::Zero(i) => self.compare(BinaryOp::Eq, i),
            Pred::NonNeg(i) => self.compare(BinaryOp::Ge, i),
            Pred::Value(e) => self.eval(e),
            Pred::Not(p) => {
                let v = self.test(p);
                let ty = self.ty(v);
                self.op(Op::Unary(crate::ir::UnaryOp::Not, v), ty)
            }
            Pred::And(ps) => self.join(ps, BinaryOp::And, 1.0),
            Pred::Or(ps) => self.join(ps, BinaryOp::Or, 0.0),
        }
    }

    fn join(&mut self, preds: &[Pred], op: BinaryOp, empty: f64) -> ValueId {
        let mut out = None;
        let was = self.speculative;
        for (n, p) in preds.iter().enumerate() {
            let v = self.under(&preds[..n], |s| s.test(p));
            out = Some(match out {
                Some(sum) => self.binary(op, sum, v),
                None => v,
            });
            // All parts are evaluated, so those after the first may look where it does not hold.
            self.speculative = self.speculative.max(self.doubt(v));
        }
        self.speculative = was;
        out.unwrap_or_else(|| self.op(Op::Const(empty.to_bits()), Type { elem: Elem::Bool, lanes: 1 }))
    }

    /// The speculation under a condition that is not branched on.
    pub(super) fn doubt(&self, cond: ValueId) -> Speculation {
        if self.ty(cond).lanes > 1 { Speculation::Lanes } else { Speculation::Whole }
    }

    fn compare(&mut self, op: BinaryOp, index: &Index) -> ValueId {
        let p = self.position(index);
        let v = self.flatten(p);
        let zero = self.op(Op::Const(0f64.to_bits()), I32);
        self.binary(op, v, zero)
    }
}

/// Whether the part of an index beside the lane variable is a multiple of the width.
fn aligned(index: &Index, lane: crate::ir::VarId, lanes: u8) -> bool {
    let lanes = i64::from(lanes);
    index.offset % lanes == 0
        && index.coefficient(lane) == 1
        && index.terms.iter().all(|(a, c)| *a == Atom::Var(lane) || c % lanes == 0)
}
