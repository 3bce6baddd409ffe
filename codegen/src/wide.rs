//! Which buffers are arrays of vectors.
//!
//! Shading languages have no pointer to a vector inside an array of scalars. A buffer that a kernel takes in whole vectors, each at a multiple of its
//! lanes, is declared as an array of them: one access instead of one a lane. A single element is then a lane of the vector that it lies in, which
//! costs as much as the vector, and cannot be written: a buffer of which more elements are read one by one than in vectors, or any is written so,
//! is an array of scalars, and so is one with a vector that begins elsewhere.

use foveate_compiler::ir::Elem;
use foveate_compiler::loops::multiples::Multiples;
use foveate_compiler::loops::{Block, Buffer, Kernel, Op, Stmt, Type, ValueId};
use std::collections::HashMap;

/// Lanes of such a vector: what a shading language has at most.
pub const LANES: u8 = 4;
/// How often a loop runs of which that is not known.
const TRIPS: f64 = 8.0;

/// For every buffer, whether it is.
pub fn buffers(kernel: &Kernel) -> Vec<bool> {
    let accesses = vec![Accesses::default(); kernel.buffers.len()];
    let mut found = Found { kernel, multiples: Multiples::default(), constants: HashMap::new(), accesses, times: 1.0 };
    found.block(&kernel.body);
    let wide = |(buffer, a): (&Buffer, Accesses)| {
        let float = !matches!(buffer.elem, Elem::I32 | Elem::U32 | Elem::Bool);
        let whole = a.single == 0.0 || buffer.len.is_multiple_of(usize::from(LANES));
        float && whole && !a.others && a.vectors > a.single
    };
    kernel.buffers.iter().zip(found.accesses).map(wide).collect()
}

/// What a work item does with a buffer.
#[derive(Clone, Default)]
struct Accesses {
    /// Whether anything else happens to it.
    others: bool,
    /// How many whole vectors are read or written.
    vectors: f64,
    /// How many elements are read one by one.
    single: f64,
}

struct Found<'a> {
    kernel: &'a Kernel,
    multiples: Multiples,
    /// Scalar integers that are constant.
    constants: HashMap<ValueId, f64>,
    accesses: Vec<Accesses>,
    /// How often a work item gets here.
    times: f64,
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
                    Op::Load { buffer, index } => self.read(buffer.0, *index, ty),
                    Op::Gather { buffer, .. } => {
                        self.accesses[buffer.0 as usize].single += self.times * f64::from(ty.lanes);
                    }
                    _ if ty == (Type { elem: Elem::I32, lanes: 1 }) => {
                        self.multiples.note(*id, op);
                        if let Op::Const(bits) = op {
                            self.constants.insert(*id, f64::from_bits(*bits));
                        }
                    }
                    _ => {}
                }
            }
            Stmt::Store { buffer, index, value } => {
                let is_vector = self.is_vector(*index, self.kernel.values[value.0 as usize]);
                let accesses = &mut self.accesses[buffer.0 as usize];
                accesses.others |= !is_vector;
                accesses.vectors += self.times;
            }
            Stmt::Scatter { buffer, .. } => self.accesses[buffer.0 as usize].others = true,
            Stmt::For { lo, hi, body, .. } => {
                let trips = match (self.constants.get(lo), self.constants.get(hi)) {
                    (Some(lo), Some(hi)) => (hi - lo).max(0.0),
                    _ => TRIPS,
                };
                let outside = self.times;
                self.times *= trips;
                self.block(body);
                self.times = outside;
            }
            Stmt::DoWhile { body, .. } => self.block(body),
            Stmt::If { then, otherwise, .. } => {
                self.block(then);
                self.block(otherwise);
            }
            Stmt::Set(..) | Stmt::StoreLocal { .. } | Stmt::Prefetch { .. } => {}
        }
    }

    fn is_vector(&self, index: ValueId, ty: Type) -> bool {
        ty.lanes == LANES && self.multiples.of(index).is_multiple_of(u64::from(LANES))
    }

    fn read(&mut self, buffer: u32, index: ValueId, ty: Type) {
        let is_vector = self.is_vector(index, ty);
        let accesses = &mut self.accesses[buffer as usize];
        match ty.lanes {
            1 => accesses.single += self.times,
            _ => {
                accesses.others |= !is_vector;
                accesses.vectors += self.times;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foveate_compiler::ir::BinaryOp;
    use foveate_compiler::loops::BufferId;

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
    fn not_what_is_read_one_by_one_as_often() {
        assert_eq!(buffers(&copies(4.0, true)), [false, true, false]);
        // The vectors in a loop of four.
        let mut kernel = copies(4.0, true);
        let [lo, hi, var] = [5, 6, 7].map(ValueId);
        kernel.values.extend([kernel.values[0]; 3]);
        let body = kernel.body.drain(3..5).collect();
        kernel.body.insert(0, Stmt::Let(lo, Op::Const(0f64.to_bits())));
        kernel.body.insert(1, Stmt::Let(hi, Op::Const(4f64.to_bits())));
        kernel.body.push(Stmt::For { var, lo, hi, body });
        assert_eq!(buffers(&kernel), [true, true, false]);
    }

    #[test]
    fn not_what_is_written_one_by_one() {
        let mut kernel = copies(4.0, true);
        kernel.body.push(Stmt::Store { buffer: BufferId(1), index: ValueId(0), value: ValueId(4) });
        assert_eq!(buffers(&kernel), [false, false, false]);
    }
}
