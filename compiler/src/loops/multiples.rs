//! What integers are multiples of.

use super::{Op, ValueId};
use crate::ir::BinaryOp;
use std::collections::HashMap;

/// What the scalar integers that it was told of are multiples of.
#[derive(Default)]
pub struct Multiples {
    /// 0 is a multiple of everything.
    factors: HashMap<ValueId, u64>,
}

impl Multiples {
    /// Looks at the definition of a scalar integer, after those of its operands.
    pub fn note(&mut self, value: ValueId, op: &Op) {
        let factor = match op {
            Op::Const(bits) => (f64::from_bits(*bits) as i64).unsigned_abs(),
            // The only lane of a scalar.
            Op::Lanes => 0,
            Op::Binary(BinaryOp::Mul, a, b) => self.of(*a).checked_mul(self.of(*b)).unwrap_or(1),
            Op::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Min | BinaryOp::Max, a, b)
            | Op::Rem(a, b)
            | Op::Select(_, a, b) => common(self.of(*a), self.of(*b)),
            _ => 1,
        };
        self.factors.insert(value, factor);
    }

    /// The largest number known that a value is a multiple of; 0 if it is 0.
    pub fn of(&self, value: ValueId) -> u64 {
        self.factors.get(&value).copied().unwrap_or(1)
    }
}

/// The greatest common divisor.
fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}
