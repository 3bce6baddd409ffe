//! Vectors of positions whose lanes lie at a constant distance from one another.
//!
//! The loop IR has no such thing: it computes one integer a lane. Here those that are `v + c * lane` are found, so that an access gets one scalar
//! position and constant distances, which machines have in their addresses.

use foveate_compiler::ir::{BinaryOp, Elem};
use foveate_compiler::loops::{Op, Type, ValueId};
use std::collections::HashMap;

/// What is known of an integer value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// A scalar constant, or a vector of it.
    Const(i64),
    /// A vector of a scalar value.
    Splat(ValueId),
    /// A vector of multiples of the lane's number.
    Lanes(i64),
    /// The sum of a scalar value and such multiples.
    Strided(ValueId, i64),
}

/// What is known of the values so far.
#[derive(Default)]
pub struct Strides {
    known: HashMap<ValueId, Known>,
}

impl Strides {
    /// Looks at a value's definition.
    pub fn note(&mut self, value: ValueId, ty: Type, op: &Op) {
        if ty.elem != Elem::I32 {
            return;
        }
        let of = |v: &ValueId| self.known.get(v).copied();
        let known = match op {
            Op::Const(bits) => Some(Known::Const(f64::from_bits(*bits) as i64)),
            Op::Lanes => Some(Known::Lanes(1)),
            Op::Splat(v) => of(v).filter(|k| matches!(k, Known::Const(_))).or(Some(Known::Splat(*v))),
            Op::Binary(BinaryOp::Mul, a, b) => match (of(a), of(b)) {
                (Some(Known::Lanes(s)), Some(Known::Const(c))) | (Some(Known::Const(c)), Some(Known::Lanes(s))) => {
                    Some(Known::Lanes(s * c))
                }
                _ => None,
            },
            Op::Binary(BinaryOp::Add, a, b) => match (of(a), of(b)) {
                (Some(Known::Lanes(s)), Some(Known::Splat(v))) | (Some(Known::Splat(v)), Some(Known::Lanes(s))) => {
                    Some(Known::Strided(v, s))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some(known) = known {
            self.known.insert(value, known);
        }
    }

    /// The first lane's position and the distance of the others, if a vector of positions is of that kind.
    pub fn of(&self, positions: ValueId) -> Option<(ValueId, i64)> {
        match self.known.get(&positions) {
            Some(Known::Strided(v, stride)) => Some((*v, *stride)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_scalar_and_multiples_of_the_lane() {
        let (scalar, vector) = (Type { elem: Elem::I32, lanes: 1 }, Type { elem: Elem::I32, lanes: 8 });
        let [v, lanes, c, cs, step, vs, sum, twice] = [0, 1, 2, 3, 4, 5, 6, 7].map(ValueId);
        let mut s = Strides::default();
        s.note(lanes, vector, &Op::Lanes);
        s.note(c, scalar, &Op::Const(48f64.to_bits()));
        s.note(cs, vector, &Op::Splat(c));
        s.note(step, vector, &Op::Binary(BinaryOp::Mul, lanes, cs));
        s.note(vs, vector, &Op::Splat(v));
        s.note(sum, vector, &Op::Binary(BinaryOp::Add, step, vs));
        s.note(twice, vector, &Op::Binary(BinaryOp::Add, sum, vs));
        assert_eq!(s.of(sum), Some((v, 48)));
        assert_eq!(s.of(twice), None);
        assert_eq!(s.of(vs), None);
    }
}
