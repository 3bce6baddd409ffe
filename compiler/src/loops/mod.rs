//! The loop IR: what a kernel does, for any device.
//!
//! # Semantics
//! A [`Kernel`] is run for every work item `0..items`, in any order and in parallel; items write disjoint elements, or equal values to
//! the same ones. Inside, statements run in order. Values ([`ValueId`]) are assigned once, in the block where they are visible or
//! an enclosing one; registers ([`RegId`]) can be overwritten. A value has a [`Type`]: an element type and a number of lanes; lanes are the device's
//! vector lanes, and most kernels compute `width` neighbouring results at once, one a lane.
//!
//! Buffers are flat, in device memory; locals are arrays of vectors, private to a work item. Index arithmetic is I32. **Nothing checks bounds**: a
//! kernel is only correct if every access is inside; the scheduler emits guards where it cannot prove that, and the evaluator in
//! [`eval`] checks every access.
//!
//! Floating-point operations are those of the device in the order written; `Fma` is one rounding where the device has it.

pub mod digest;
pub mod display;
pub mod eval;
pub mod in_place;
pub mod multiples;
pub mod neighbours;
pub mod verify;
pub mod work;

use crate::ir::{BinaryOp, Elem, UnaryOp};

/// A value: assigned once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);
/// A register: can be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegId(pub u32);
/// A buffer argument of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);
/// A local array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalId(pub u32);

/// Element type and number of lanes (1: a scalar). Lanes are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Type {
    pub elem: Elem,
    pub lanes: u8,
}

/// A kernel. Equal kernels (name apart) are compiled once: `Eq` and `Hash` are structural and complete.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// What it computes, for people.
    pub name: String,
    /// Its arguments.
    pub buffers: Vec<Buffer>,
    /// Local arrays.
    pub locals: Vec<Local>,
    /// Types of the values, by id.
    pub values: Vec<Type>,
    /// Types of the registers, by id.
    pub regs: Vec<Type>,
    /// Number of work items.
    pub items: u32,
    /// What one item does.
    pub body: Block,
}

impl Kernel {
    /// The kernel without the names in it, which do not change what it does.
    pub fn nameless(&self) -> Kernel {
        let mut kernel = self.clone();
        kernel.name.clear();
        kernel.buffers.iter_mut().for_each(|b| b.name.clear());
        kernel.locals.iter_mut().for_each(|l| l.name.clear());
        kernel
    }
}

/// A buffer argument.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// For people.
    pub name: String,
    /// Element type (bool is stored as u32).
    pub elem: Elem,
    /// Number of elements.
    pub len: usize,
    /// Whether the kernel writes it (it may then read it too, what it wrote itself).
    pub written: bool,
}

/// A local array of `len` vectors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Local {
    pub name: String,
    pub ty: Type,
    pub len: u32,
}

/// Statements in order.
pub type Block = Vec<Stmt>;

/// A statement.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stmt {
    /// `value = op`.
    Let(ValueId, Op),
    /// `register = value`.
    Set(RegId, ValueId),
    /// Stores `value` (its lanes) at `index..index + lanes` (scalar I32).
    Store { buffer: BufferId, index: ValueId, value: ValueId },
    /// Stores each lane at its own index (I32 vector of as many lanes).
    Scatter { buffer: BufferId, index: ValueId, value: ValueId },
    /// Stores a vector at a local array's position (scalar I32).
    StoreLocal { local: LocalId, index: ValueId, value: ValueId },
    /// A hint that the element at `index` (scalar I32) will be read soon; it may lie outside the buffer.
    Prefetch { buffer: BufferId, index: ValueId },
    /// `for var in lo..hi`; `var` is a scalar I32.
    For { var: ValueId, lo: ValueId, hi: ValueId, body: Block },
    /// Runs `then` if the scalar bool holds, else `otherwise`.
    If { cond: ValueId, then: Block, otherwise: Block },
    /// Runs `body`, then again as long as the scalar bool register holds.
    DoWhile { body: Block, again: RegId },
}

/// What gives a value. Operands have the result's lanes unless said otherwise.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The work item, scalar I32.
    Item,
    /// A scalar constant: the bits of an f64, in the value's element type.
    Const(u64),
    /// A scalar in every lane.
    Splat(ValueId),
    /// 0, 1, 2, ... in the lanes, I32.
    Lanes,
    /// A register's value.
    Get(RegId),
    /// A pointwise operation.
    Unary(UnaryOp, ValueId),
    /// A pointwise operation; comparisons give bool; U32 arithmetic wraps; on I32 `Div` rounds toward zero and is only used with non-negative operands.
    Binary(BinaryOp, ValueId, ValueId),
    /// Remainder of non-negative I32.
    Rem(ValueId, ValueId),
    /// `a * b + c` with one rounding.
    Fma(ValueId, ValueId, ValueId),
    /// `cond ? a : b`; cond has the same lanes.
    Select(ValueId, ValueId, ValueId),
    /// To another element type (float to integer truncates toward zero, of values that fit).
    Cast(ValueId),
    /// `lanes` neighbouring elements from `index` (scalar I32); no alignment is promised.
    Load { buffer: BufferId, index: ValueId },
    /// An element a lane, at its own index (I32 vector).
    Gather { buffer: BufferId, index: ValueId },
    /// A vector of a local array (index scalar I32).
    LoadLocal { local: LocalId, index: ValueId },
    /// One lane of a local array, as a scalar: number `index` (scalar I32) of its elements, the lanes of vector 0 first, then those of
    /// vector 1.
    LoadLane { local: LocalId, index: ValueId },
    /// One lane of a vector, as a scalar.
    Extract(ValueId, u8),
    /// The lanes of two vectors by turns, `a0 b0 a1 b1 ...`: those of their first halves, or of their second halves.
    Zip(ValueId, ValueId, Half),
    /// The lanes combined in a fixed order (a tree by halves), as a scalar: Add, Mul, Max or Min.
    Fold(BinaryOp, ValueId),
}

/// A half of the lanes of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// Those that come first.
    First,
    /// The others.
    Second,
}

impl Op {
    /// The same on other operands.
    pub fn with(&self, of: &mut dyn FnMut(ValueId) -> ValueId) -> Op {
        match self {
            Op::Item | Op::Const(_) | Op::Lanes | Op::Get(_) => self.clone(),
            Op::Splat(a) => Op::Splat(of(*a)),
            Op::Unary(op, a) => Op::Unary(*op, of(*a)),
            Op::Cast(a) => Op::Cast(of(*a)),
            Op::Extract(a, lane) => Op::Extract(of(*a), *lane),
            Op::Fold(op, a) => Op::Fold(*op, of(*a)),
            Op::Load { buffer, index } => Op::Load { buffer: *buffer, index: of(*index) },
            Op::Gather { buffer, index } => Op::Gather { buffer: *buffer, index: of(*index) },
            Op::LoadLocal { local, index } => Op::LoadLocal { local: *local, index: of(*index) },
            Op::LoadLane { local, index } => Op::LoadLane { local: *local, index: of(*index) },
            Op::Binary(op, a, b) => Op::Binary(*op, of(*a), of(*b)),
            Op::Rem(a, b) => Op::Rem(of(*a), of(*b)),
            Op::Zip(a, b, half) => Op::Zip(of(*a), of(*b), *half),
            Op::Fma(a, b, c) => Op::Fma(of(*a), of(*b), of(*c)),
            Op::Select(c, a, b) => Op::Select(of(*c), of(*a), of(*b)),
        }
    }

    /// The values that it takes.
    pub fn operands(&self) -> Vec<ValueId> {
        let mut out = Vec::new();
        self.with(&mut |v| {
            out.push(v);
            v
        });
        out
    }
}
