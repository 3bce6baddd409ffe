//! Which buffers are arrays of vectors.
//!
//! Shading languages have no pointer to a vector inside an array of scalars. A buffer of which a kernel only ever takes whole vectors, each at a multiple of its
//! lanes, is declared as an array of them: one access instead of one a lane.

use foveate_compiler::ir::{BinaryOp, Elem};
use foveate_compiler::loops::{Block, Kernel, Op, Stmt, Type, ValueId};
use std::collections::HashMap;

/// Lanes of such a vector: what a shading language has at most.
pub const LANES: u8 = 4;

/// For every buffer, whether it is.
pub fn buffers(kernel: &Kernel) -> Vec<bool> {
    let float = |elem| !matches!(elem, Elem::I32 | Elem::U32 | Elem::Bool);
    let wide = kernel.buffers.iter().map(|b| float(b.elem)).collect();
    let mut found = Found { kernel, factors: HashMap::new(), wide, used: vec![false; kernel.buffers.len()] };
    found.block(&kernel.body);
    found.wide.iter().zip(found.used).map(|(&wide, used)| wide && used).collect()
}

struct Found<'a> {
    kernel: &'a Kernel,
    /// What scalar integers are multiples of; 0 is a multiple of everything.
    factors: HashMap<ValueId, u64>,
    wide: Vec<bool>,
    used: Vec<bool>,
}

impl Found<'_> {
    fn block(&mut self, block: &Block) {
        block.iter().for_each(|s| self.stmt(s));
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Let(id, op) => {
                let ty = self.kernel.values[id.0 as usize];
                match op {
                    Op::Load { buffer, index } => self.access(buffer.0, *index, ty),
                    Op::Gather { buffer, .. } => self.wide[buffer.0 as usize] = false,
                    _ if ty == (Type { elem: Elem::I32, lanes: 1 }) => {
                        let factor = self.factor(op);
                        self.factors.insert(*id, factor);
                    }
                    _ => {}
                }
            }
            Stmt::Store { buffer, index, value } => {
                self.access(buffer.0, *index, self.kernel.values[value.0 as usize]);
            }
            Stmt::Scatter { buffer, .. } => self.wide[buffer.0 as usize] = false,
            Stmt::For { body, .. } | Stmt::DoWhile { body, .. } => self.block(body),
            Stmt::If { then, otherwise, .. } => {
                self.block(then);
                self.block(otherwise);
            }
            Stmt::Set(..) | Stmt::StoreLocal { .. } | Stmt::Prefetch { .. } => {}
        }
    }

    fn access(&mut self, buffer: u32, index: ValueId, ty: Type) {
        let n = buffer as usize;
        self.wide[n] &= ty.lanes == LANES && self.of(index).is_multiple_of(u64::from(LANES));
        self.used[n] = true;
    }

    fn of(&self, value: ValueId) -> u64 {
        self.factors.get(&value).copied().unwrap_or(1)
    }

    /// What the result is a multiple of.
    fn factor(&self, op: &Op) -> u64 {
        match op {
            Op::Const(bits) => (f64::from_bits(*bits) as i64).unsigned_abs(),
            Op::Binary(BinaryOp::Mul, a, b) => self.of(*a).checked_mul(self.of(*b)).unwrap_or(1),
            Op::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Min | BinaryOp::Max, a, b)
            | Op::Rem(a, b)
            | Op::Select(_, a, b) => common(self.of(*a), self.of(*b)),
            _ => 1,
        }
    }
}

/// The greatest common divisor.
fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foveate_compiler::loops::{Buffer, BufferId};

    /// A kernel that copies vectors of four at `step` times its item, and with `scalar` reads an element of the first buffer by itself, too.
    fn copies(step: f64, scalar: bool) -> Kernel {
        let (int, vector) = (Type { elem: Elem::I32, lanes: 1 }, Type { elem: Elem::F32, lanes: 4 });
        let [item, by, at, value, one] = [0, 1, 2, 3, 4].map(ValueId);
        let mut body = vec![
            Stmt::Let(item, Op::Item),
            Stmt::Let(by, Op::Const(step.to_bits())),
            Stmt::Let(at, Op::Binary(BinaryOp::Mul, item, by)),
            Stmt::Let(value, Op::Load { buffer: BufferId(0), index: at }),
            Stmt::Store { buffer: BufferId(1), index: at, value },
        ];
        if scalar {
            body.push(Stmt::Let(one, Op::Load { buffer: BufferId(0), index: item }));
        }
        let buffer = |name: &str, written| Buffer { name: name.to_owned(), elem: Elem::F32, len: 64, written };
        Kernel {
            name: "copy".to_owned(),
            buffers: vec![buffer("from", false), buffer("to", true), buffer("unused", false)],
            locals: Vec::new(),
            regs: Vec::new(),
            values: vec![int, int, int, vector, Type { lanes: 1, ..vector }],
            items: 8,
            body,
        }
    }

    #[test]
    fn whole_vectors_at_multiples_of_their_lanes() {
        assert_eq!(buffers(&copies(8.0, false)), [true, true, false]);
        assert_eq!(buffers(&copies(6.0, false)), [false, false, false]);
    }

    #[test]
    fn not_what_is_read_one_by_one_too() {
        assert_eq!(buffers(&copies(4.0, true)), [false, true, false]);
    }
}
