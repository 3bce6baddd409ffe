//! Values, predicates and reductions of the index IR.

use super::index::{Index, Sizes};
use super::{TensorId, VarId};
use serde::{Deserialize, Serialize};

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Elem {
    F64,
    F32,
    Bf16,
    F16,
    I32,
    U32,
    Bool,
}

impl Elem {
    /// Bytes of an element on a device; a bool is stored as u32.
    pub fn bytes(self) -> usize {
        match self {
            Elem::F64 => 8,
            Elem::Bf16 | Elem::F16 => 2,
            Elem::F32 | Elem::I32 | Elem::U32 | Elem::Bool => 4,
        }
    }
    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Elem::F64 | Elem::F32 | Elem::Bf16 | Elem::F16)
    }
}

/// A value: every node knows its element type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expr {
    /// Its element type.
    pub elem: Elem,
    /// What it is.
    pub node: Box<Node>,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// A constant, as the bits of an f64.
    Const(u64),
    /// An index as a number.
    Index(Index),
    /// An element of a tensor, one index a dimension.
    Read {
        /// The tensor.
        tensor: TensorId,
        /// Where.
        at: Vec<Index>,
        /// What an index outside gives.
        bounds: Bounds,
    },
    /// A pointwise operation of one operand.
    Unary(UnaryOp, Expr),
    /// A pointwise operation of two operands of one element type (comparisons give bool).
    Binary(BinaryOp, Expr, Expr),
    /// One of two values; only the chosen one need be defined.
    Select(Pred, Expr, Expr),
    /// A predicate as a bool.
    Test(Pred),
    /// The operand, converted to this node's element type (float to integer rounds down; bool gives 0 or 1).
    Cast(Expr),
    /// The operand, without gradient.
    Stop(Expr),
    /// A number in [0, 1), see [`crate::ir::expr::random`].
    Random {
        /// `u32 [2]`: seed and step.
        key: TensorId,
        /// The place in the program.
        place: u32,
        /// The logical index, row-major over what the author gave.
        at: Index,
    },
    /// A reduction.
    Reduce(Reduction),
}

/// What a read outside its tensor gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bounds {
    /// It does not happen.
    Inside,
    /// Zero (false).
    Zero,
}

/// A reduction over a guarded domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reduction {
    /// What combines the values.
    pub op: Monoid,
    /// The variables it binds, outermost first.
    pub vars: Vec<VarId>,
    /// Which points of their domain take part. A guard `label - k == 0` with a value read from a tensor makes this a
    /// reduction by key.
    pub guard: Pred,
    /// The value at a point.
    pub body: Expr,
}

/// What combines values. Float sums accumulate in the element type of the body, in the order of the variables unless a schedule states another fixed order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Monoid {
    Sum,
    Prod,
    Max,
    Min,
    Any,
    All,
    /// The row-major position (over the reduction's variables) of the first greatest value, as i32; -1 over an empty domain.
    ArgMax,
    /// The same of the first smallest value.
    ArgMin,
}

/// Pointwise operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum UnaryOp {
    Neg,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Sin,
    Cos,
    Tanh,
    Erf,
    Abs,
    Sign,
    Floor,
    Recip,
    Not,
}

/// Pointwise operations of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Xor,
    Shr,
}

/// A predicate over index variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pred {
    /// Always (the empty conjunction is written so).
    True,
    /// The index is 0.
    Zero(Index),
    /// The index is at least 0.
    NonNeg(Index),
    /// A boolean value.
    Value(Expr),
    /// Not.
    Not(Box<Pred>),
    /// All of them.
    And(Vec<Pred>),
    /// At least one of them.
    Or(Vec<Pred>),
}

impl UnaryOp {
    /// The value, as the interpreter has it. `Sign(0)` is 0; `Recip` is 1/x; `Not` takes and gives 0 or 1.
    pub fn eval(self, x: f64) -> f64 {
        match self {
            UnaryOp::Neg => -x,
            UnaryOp::Exp => x.exp(),
            UnaryOp::Log => x.ln(),
            UnaryOp::Sqrt => x.sqrt(),
            UnaryOp::Rsqrt => 1.0 / x.sqrt(),
            UnaryOp::Sin => x.sin(),
            UnaryOp::Cos => x.cos(),
            UnaryOp::Tanh => x.tanh(),
            UnaryOp::Erf => libm::erf(x),
            UnaryOp::Abs => x.abs(),
            UnaryOp::Sign => {
                if x > 0.0 {
                    1.0
                } else if x < 0.0 {
                    -1.0
                } else {
                    0.0
                }
            }
            UnaryOp::Floor => x.floor(),
            UnaryOp::Recip => 1.0 / x,
            UnaryOp::Not => 1.0 - x,
        }
    }
}

impl BinaryOp {
    /// Whether it gives a bool whatever its operands are.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Eq | Ne | Lt | Le | Gt | Ge)
    }
    /// The value, as the interpreter has it (`And`, `Or`, `Xor` on bools as 0 and 1, on u32 bitwise).
    pub fn eval(self, a: f64, b: f64) -> f64 {
        let bit = |c: bool| if c { 1.0 } else { 0.0 };
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a / b,
            BinaryOp::Max => a.max(b),
            BinaryOp::Min => a.min(b),
            BinaryOp::Pow => a.powf(b),
            BinaryOp::Eq => bit(a == b),
            BinaryOp::Ne => bit(a != b),
            BinaryOp::Lt => bit(a < b),
            BinaryOp::Le => bit(a <= b),
            BinaryOp::Gt => bit(a > b),
            BinaryOp::Ge => bit(a >= b),
            BinaryOp::And => (a as u32 & b as u32) as f64,
            BinaryOp::Or => (a as u32 | b as u32) as f64,
            BinaryOp::Xor => (a as u32 ^ b as u32) as f64,
            BinaryOp::Shr => ((a as u32) >> (b as u32)) as f64,
        }
    }
}

/// The random number of a place and logical index under a key: 24 bits of a hash (three rounds of the murmur3 finaliser), so that interpreter, CPU and
/// GPU agree exactly. In [0, 1).
pub fn random(seed: u32, step: u32, place: u32, index: u32) -> f32 {
    let h = mix(mix(mix(seed ^ 0x9E37_79B9) ^ step) ^ place) ^ index;
    (mix(h) >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The murmur3 finaliser.
pub fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85EB_CA6B);
    h ^= h >> 13;
    h = h.wrapping_mul(0xC2B2_AE35);
    h ^ (h >> 16)
}

impl Pred {
    /// The conjunction, flattened, without what is trivially true. Parts that read tensors come last, and those that read at places which are read
    /// themselves after the others: where the ranges before them hold, what they read is inside.
    pub fn and(parts: impl IntoIterator<Item = Pred>) -> Pred {
        let mut out: Vec<Pred> = Vec::new();
        for p in parts {
            match p {
                Pred::True => {}
                Pred::And(inner) => out.extend(inner),
                other => out.push(other),
            }
        }
        out.sort_by_key(|p| {
            let mut reads = 0;
            p.visit_reads(&mut |_, at| reads = reads.max(1 + nesting(at)));
            reads
        });
        out.dedup();
        match out.len() {
            0 => Pred::True,
            1 => out.remove(0),
            _ => Pred::And(out),
        }
    }
    /// The parts of a conjunction.
    pub fn conjuncts(&self) -> Vec<&Pred> {
        match self {
            Pred::True => Vec::new(),
            Pred::And(parts) => parts.iter().collect(),
            other => vec![other],
        }
    }
    /// `lo <= index < hi`, leaving out what the ranges prove.
    pub fn within(index: &Index, lo: i64, hi: i64, sizes: &dyn Sizes) -> Pred {
        let range = index.range(sizes);
        let below = range.is_none_or(|(l, _)| l < lo).then(|| Pred::NonNeg(index.plus(-lo)));
        let above = range.is_none_or(|(_, h)| h >= hi).then(|| Pred::NonNeg(Index::from(hi - 1).sub(index)));
        Pred::and(below.into_iter().chain(above))
    }
}

/// How many reads deep the places are that are read: 0 for places without reads.
fn nesting(at: &[Index]) -> usize {
    let mut deepest = 0;
    at.iter().for_each(|i| i.visit_reads(&mut |_, at| deepest = deepest.max(1 + nesting(at))));
    deepest
}
