//! The evaluator's pointwise operations, chosen once for an operation and an element type. Lanes are 32-bit words.

use crate::ir::{BinaryOp, Elem, UnaryOp};

/// A place in the evaluator's memory.
pub type Slot = usize;
/// An operation on the lanes at `[Slot; 3]` (those it uses), into the lanes at the first slot.
pub type Pointwise = fn(&mut [u32], Slot, [Slot; 3], usize) -> Result<(), &'static str>;

const OVERFLOW: &str = "i32 overflow";
const DOMAIN: &str = "i32 division needs a non-negative and a positive operand";

/// A word as a lane of an element type, and back.
trait Lane: Copy {
    fn get(bits: u32) -> Self;
    fn bits(self) -> u32;
}
impl Lane for f32 {
    fn get(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
    fn bits(self) -> u32 {
        self.to_bits()
    }
}
impl Lane for i32 {
    fn get(bits: u32) -> i32 {
        bits as i32
    }
    fn bits(self) -> u32 {
        self as u32
    }
}
impl Lane for u32 {
    fn get(bits: u32) -> u32 {
        bits
    }
    fn bits(self) -> u32 {
        self
    }
}
impl Lane for bool {
    fn get(bits: u32) -> bool {
        bits != 0
    }
    fn bits(self) -> u32 {
        self as u32
    }
}

/// An operation that always has a value.
macro_rules! total {
    (|$($x:ident : $t:ty),+| $body:expr) => {
        |m, dst, args, lanes| {
            for i in 0..lanes {
                let mut operands = args.iter();
                $(let $x = <$t as Lane>::get(m[operands.next().map_or(0, |a| *a) + i]);)+
                m[dst + i] = Lane::bits($body);
            }
            Ok(())
        }
    };
}

/// An operation that fails for some operands.
macro_rules! partial {
    ($error:expr, |$($x:ident : $t:ty),+| $body:expr) => {
        |m, dst, args, lanes| {
            for i in 0..lanes {
                let mut operands = args.iter();
                $(let $x = <$t as Lane>::get(m[operands.next().map_or(0, |a| *a) + i]);)+
                m[dst + i] = Lane::bits(($body).ok_or($error)?);
            }
            Ok(())
        }
    };
}

/// What verified kernels do not contain.
const ILLEGAL: Pointwise = |_, _, _, _| Err("an operation that the element type does not have");

/// A constant's word.
pub fn constant(value: f64, elem: Elem) -> u32 {
    match elem {
        Elem::I32 => value as i32 as u32,
        Elem::U32 => value as u32,
        Elem::Bool => (value != 0.0) as u32,
        _ => (value as f32).to_bits(),
    }
}

/// `a * b + c` with one rounding.
pub const fn fma() -> Pointwise {
    total!(|a: f32, b: f32, c: f32| a.mul_add(b, c))
}

/// `cond ? a : b`.
pub const fn select() -> Pointwise {
    total!(|c: bool, a: u32, b: u32| if c { a } else { b })
}

/// Remainder of integers.
pub fn remainder(elem: Elem) -> Pointwise {
    match elem {
        Elem::I32 => partial!(DOMAIN, |a: i32, b: i32| (a >= 0 && b > 0).then(|| a % b)),
        _ => partial!("division by zero", |a: u32, b: u32| a.checked_rem(b)),
    }
}

/// An operation of one operand.
pub fn unary(op: UnaryOp, elem: Elem) -> Pointwise {
    match (op, elem) {
        (UnaryOp::Not, _) => total!(|a: bool| !a),
        (UnaryOp::Neg, Elem::I32) => partial!(OVERFLOW, |a: i32| a.checked_neg()),
        (UnaryOp::Abs, Elem::I32) => partial!(OVERFLOW, |a: i32| a.checked_abs()),
        (UnaryOp::Sign, Elem::I32) => total!(|a: i32| a.signum()),
        (UnaryOp::Neg, _) => total!(|a: f32| -a),
        (UnaryOp::Abs, _) => total!(|a: f32| a.abs()),
        (UnaryOp::Sign, _) => total!(|a: f32| UnaryOp::Sign.eval(a as f64) as f32),
        (UnaryOp::Exp, _) => total!(|a: f32| a.exp()),
        (UnaryOp::Log, _) => total!(|a: f32| a.ln()),
        (UnaryOp::Sqrt, _) => total!(|a: f32| a.sqrt()),
        (UnaryOp::Rsqrt, _) => total!(|a: f32| 1.0 / a.sqrt()),
        (UnaryOp::Sin, _) => total!(|a: f32| a.sin()),
        (UnaryOp::Cos, _) => total!(|a: f32| a.cos()),
        (UnaryOp::Tanh, _) => total!(|a: f32| a.tanh()),
        (UnaryOp::Erf, _) => total!(|a: f32| libm::erf(a as f64) as f32),
        (UnaryOp::Floor, _) => total!(|a: f32| a.floor()),
        (UnaryOp::Recip, _) => total!(|a: f32| 1.0 / a),
    }
}

/// An operation of two operands of `elem`.
pub fn binary(op: BinaryOp, elem: Elem) -> Pointwise {
    use BinaryOp::*;
    match (op, elem) {
        (And, _) => total!(|a: u32, b: u32| a & b),
        (Or, _) => total!(|a: u32, b: u32| a | b),
        (Xor, _) => total!(|a: u32, b: u32| a ^ b),
        (Shr, _) => partial!("a shift by 32 or more", |a: u32, b: u32| a.checked_shr(b)),
        (Eq, Elem::F32) => total!(|a: f32, b: f32| a == b),
        (Ne, Elem::F32) => total!(|a: f32, b: f32| a != b),
        (Eq, _) => total!(|a: u32, b: u32| a == b),
        (Ne, _) => total!(|a: u32, b: u32| a != b),
        (_, Elem::F32) => match op {
            Add => total!(|a: f32, b: f32| a + b),
            Sub => total!(|a: f32, b: f32| a - b),
            Mul => total!(|a: f32, b: f32| a * b),
            Div => total!(|a: f32, b: f32| a / b),
            Max => total!(|a: f32, b: f32| a.max(b)),
            Min => total!(|a: f32, b: f32| a.min(b)),
            Pow => total!(|a: f32, b: f32| a.powf(b)),
            Lt => total!(|a: f32, b: f32| a < b),
            Le => total!(|a: f32, b: f32| a <= b),
            Gt => total!(|a: f32, b: f32| a > b),
            _ => total!(|a: f32, b: f32| a >= b),
        },
        (_, Elem::I32) => match op {
            Add => partial!(OVERFLOW, |a: i32, b: i32| a.checked_add(b)),
            Sub => partial!(OVERFLOW, |a: i32, b: i32| a.checked_sub(b)),
            Mul => partial!(OVERFLOW, |a: i32, b: i32| a.checked_mul(b)),
            Div => partial!(DOMAIN, |a: i32, b: i32| (a >= 0 && b > 0).then(|| a / b)),
            Max => total!(|a: i32, b: i32| a.max(b)),
            Min => total!(|a: i32, b: i32| a.min(b)),
            Lt => total!(|a: i32, b: i32| a < b),
            Le => total!(|a: i32, b: i32| a <= b),
            Gt => total!(|a: i32, b: i32| a > b),
            Ge => total!(|a: i32, b: i32| a >= b),
            _ => ILLEGAL,
        },
        (_, Elem::U32) => match op {
            Add => total!(|a: u32, b: u32| a.wrapping_add(b)),
            Sub => total!(|a: u32, b: u32| a.wrapping_sub(b)),
            Mul => total!(|a: u32, b: u32| a.wrapping_mul(b)),
            Div => partial!("division by zero", |a: u32, b: u32| a.checked_div(b)),
            Max => total!(|a: u32, b: u32| a.max(b)),
            Min => total!(|a: u32, b: u32| a.min(b)),
            Lt => total!(|a: u32, b: u32| a < b),
            Le => total!(|a: u32, b: u32| a <= b),
            Gt => total!(|a: u32, b: u32| a > b),
            Ge => total!(|a: u32, b: u32| a >= b),
            _ => ILLEGAL,
        },
        _ => ILLEGAL,
    }
}

/// A conversion; floats to integers truncate toward zero.
pub fn cast(from: Elem, to: Elem) -> Pointwise {
    match (from, to) {
        (Elem::F32, Elem::I32) => total!(|a: f32| a as i32),
        (Elem::F32, Elem::U32) => total!(|a: f32| a as u32),
        (Elem::F32, Elem::Bool) => total!(|a: f32| a != 0.0),
        (Elem::I32, Elem::F32) => total!(|a: i32| a as f32),
        (Elem::U32, Elem::F32) => total!(|a: u32| a as f32),
        (Elem::Bool, Elem::F32) => total!(|a: bool| a as u32 as f32),
        (_, Elem::Bool) => total!(|a: u32| a != 0),
        _ => total!(|a: u32| a),
    }
}
