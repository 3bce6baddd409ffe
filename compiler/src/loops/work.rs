//! How much a kernel does: floating-point operations and memory traffic, counted from its loops.

use super::{Block, Kernel, Op, Stmt, ValueId};
use crate::ir::{BinaryOp, Elem};
use std::collections::HashMap;

/// What one launch of a kernel does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations; a fused multiply-add counts as two, every other pointwise operation as one.
    pub flops: f64,
    /// Bytes of its buffers, each counted once: the least that a cold cache has to move.
    pub bytes: f64,
    /// Bytes that its loads and stores move to and from registers.
    pub traffic: f64,
}

/// Counts. Loop bounds that depend on other loops are taken at the middle of those, which is exact for sums over triangles and bands up to
/// rounding; of two branches the dearer one counts.
pub fn work(kernel: &Kernel) -> Work {
    let mut counter = Counter { kernel, known: HashMap::new() };
    let mut total = counter.block(&kernel.body);
    let items = f64::from(kernel.items);
    total.flops *= items;
    total.traffic *= items;
    total.bytes = kernel.buffers.iter().map(|b| b.len as f64 * b.elem.bytes() as f64).sum();
    total
}

struct Counter<'a> {
    kernel: &'a Kernel,
    /// The usual value of scalar integers.
    known: HashMap<ValueId, f64>,
}

impl Counter<'_> {
    fn block(&mut self, block: &Block) -> Work {
        let mut sum = Work::default();
        for stmt in block {
            add(&mut sum, self.stmt(stmt), 1.0);
        }
        sum
    }

    fn stmt(&mut self, stmt: &Stmt) -> Work {
        let mut out = Work::default();
        match stmt {
            Stmt::Let(value, op) => {
                let ty = self.kernel.values[value.0 as usize];
                let lanes = f64::from(ty.lanes);
                let float = ty.elem.is_float();
                match op {
                    Op::Unary(..) | Op::Binary(..) if float => out.flops = lanes,
                    Op::Fma(..) if float => out.flops = 2.0 * lanes,
                    Op::Fold(_, of) if float => {
                        out.flops = f64::from(self.kernel.values[of.0 as usize].lanes) - 1.0;
                    }
                    Op::Load { .. } | Op::Gather { .. } => out.traffic = lanes * ty.elem.bytes() as f64,
                    _ => {}
                }
                if ty.lanes == 1
                    && !float
                    && let Some(x) = self.usual(ty.elem, op)
                {
                    self.known.insert(*value, x);
                }
            }
            Stmt::Store { value, .. } | Stmt::Scatter { value, .. } => {
                let ty = self.kernel.values[value.0 as usize];
                out.traffic = f64::from(ty.lanes) * ty.elem.bytes() as f64;
            }
            Stmt::Set(..) | Stmt::StoreLocal { .. } | Stmt::Prefetch { .. } => {}
            Stmt::For { var, lo, hi, body } => {
                let range = (self.known.get(lo).copied(), self.known.get(hi).copied());
                let trips = match range {
                    (Some(lo), Some(hi)) => {
                        self.known.insert(*var, (lo + hi - 1.0) / 2.0);
                        (hi - lo).max(0.0)
                    }
                    _ => 1.0,
                };
                let inner = self.block(body);
                add(&mut out, inner, trips);
            }
            Stmt::If { then, otherwise, .. } => {
                let (a, b) = (self.block(then), self.block(otherwise));
                out = if a.flops + a.traffic >= b.flops + b.traffic { a } else { b };
            }
            Stmt::DoWhile { body, .. } => out = self.block(body),
        }
        out
    }

    /// The usual value of a scalar integer, if its operands' are known.
    fn usual(&self, elem: Elem, op: &Op) -> Option<f64> {
        let of = |v: &ValueId| self.known.get(v).copied();
        Some(match op {
            Op::Item => (f64::from(self.kernel.items) - 1.0) / 2.0,
            Op::Const(bits) if elem == Elem::I32 => f64::from_bits(*bits),
            Op::Binary(op, a, b) => {
                let (a, b) = (of(a)?, of(b)?);
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div if b != 0.0 => (a / b).floor(),
                    BinaryOp::Max => a.max(b),
                    BinaryOp::Min => a.min(b),
                    _ => return None,
                }
            }
            // Remainders run evenly through their range.
            Op::Rem(a, b) => {
                let (a, b) = (of(a)?, of(b)?);
                if a < b { a } else { (b - 1.0) / 2.0 }
            }
            Op::Select(_, a, b) => (of(a)? + of(b)?) / 2.0,
            _ => return None,
        })
    }
}

fn add(sum: &mut Work, more: Work, times: f64) {
    sum.flops += more.flops * times;
    sum.traffic += more.traffic * times;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loops::{Buffer, BufferId, Type};

    /// For every one of 4 items: for i in 0..10, a fused multiply-add of 8 lanes of a loaded vector.
    #[test]
    fn loops_multiply() {
        let scalar = Type { elem: Elem::I32, lanes: 1 };
        let vector = Type { elem: Elem::F32, lanes: 8 };
        let [lo, hi, i, x, y] = [0, 1, 2, 3, 4].map(ValueId);
        let buffer = Buffer { name: "x".into(), elem: Elem::F32, len: 100, written: true };
        let body = vec![
            Stmt::Let(x, Op::Load { buffer: BufferId(0), index: i }),
            Stmt::Let(y, Op::Fma(x, x, x)),
            Stmt::Store { buffer: BufferId(0), index: i, value: y },
        ];
        let kernel = Kernel {
            name: "k".into(),
            buffers: vec![buffer],
            locals: vec![],
            values: vec![scalar, scalar, scalar, vector, vector],
            regs: vec![],
            items: 4,
            body: vec![
                Stmt::Let(lo, Op::Const(0f64.to_bits())),
                Stmt::Let(hi, Op::Const(10f64.to_bits())),
                Stmt::For { var: i, lo, hi, body },
            ],
        };
        let work = work(&kernel);
        assert_eq!(work, Work { flops: 4.0 * 10.0 * 16.0, bytes: 400.0, traffic: 4.0 * 10.0 * 64.0 });
    }
}
