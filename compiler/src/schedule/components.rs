//! The kernel that labels connected components: one work item a map, sweeps that carry the smallest label forward and backward
//! until nothing changes. A label is the smallest row-major position of its component, -1 where the mask is false.

use super::expand::View;
use crate::ir::{BinaryOp, Components, Elem, TensorId};
use crate::loops::{Buffer, BufferId, Kernel, Op, RegId, Stmt, Type, ValueId};

const I: Type = Type { elem: Elem::I32, lanes: 1 };
const B: Type = Type { elem: Elem::Bool, lanes: 1 };

struct Build {
    kernel: Kernel,
    block: Vec<Stmt>,
}

impl Build {
    fn value(&mut self, op: Op, ty: Type) -> ValueId {
        let id = ValueId(self.kernel.values.len() as u32);
        self.kernel.values.push(ty);
        self.block.push(Stmt::Let(id, op));
        id
    }
    fn int(&mut self, c: i64) -> ValueId {
        self.value(Op::Const((c as f64).to_bits()), I)
    }
    fn bin(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> ValueId {
        self.value(Op::Binary(op, a, b), if op.is_comparison() { B } else { self.kernel.values[a.0 as usize] })
    }
    fn plus(&mut self, a: ValueId, c: i64) -> ValueId {
        let c = self.int(c);
        self.bin(BinaryOp::Add, a, c)
    }
    fn reg(&mut self, ty: Type) -> RegId {
        self.kernel.regs.push(ty);
        RegId(self.kernel.regs.len() as u32 - 1)
    }
    fn count(&mut self, n: i64, f: impl FnOnce(&mut Self, ValueId)) {
        let (lo, hi) = (self.int(0), self.int(n));
        let var = ValueId(self.kernel.values.len() as u32);
        self.kernel.values.push(I);
        let body = self.nested(|b| f(b, var));
        self.block.push(Stmt::For { var, lo, hi, body });
    }
    fn nested(&mut self, f: impl FnOnce(&mut Self)) -> Vec<Stmt> {
        let outer = std::mem::take(&mut self.block);
        f(self);
        std::mem::replace(&mut self.block, outer)
    }
    fn when(&mut self, cond: ValueId, f: impl FnOnce(&mut Self)) {
        let then = self.nested(f);
        self.block.push(Stmt::If { cond, then, otherwise: Vec::new() });
    }
}

const MASK: BufferId = BufferId(0);
const LABELS: BufferId = BufferId(1);

/// The kernel and its buffers.
pub fn kernel(view: &View<'_>, c: &Components) -> (Kernel, Vec<TensorId>) {
    let shape = view.shape(c.mask);
    let len: usize = shape.iter().product();
    let (width, height) = match shape.as_slice() {
        [.., h, w] => (*w, *h),
        [w] => (*w, 1),
        [] => (1, 1),
    };
    let cells = width * height;
    let buffer = |t: TensorId, elem, written| Buffer { name: view.name(t), elem, len, written };
    let kernel = Kernel {
        name: view.name(c.labels),
        buffers: vec![buffer(c.mask, Elem::U32, false), buffer(c.labels, Elem::I32, true)],
        locals: Vec::new(),
        values: Vec::new(),
        regs: Vec::new(),
        items: (len / cells) as u32,
        body: Vec::new(),
    };
    let mut b = Build { kernel, block: Vec::new() };
    let item = b.value(Op::Item, I);
    let size = b.int(cells as i64);
    let base = b.bin(BinaryOp::Mul, item, size);
    b.count(cells as i64, |b, p| {
        let index = b.bin(BinaryOp::Add, base, p);
        let on = b.value(Op::Load { buffer: MASK, index }, Type { elem: Elem::U32, lanes: 1 });
        let zero = b.value(Op::Const(0f64.to_bits()), Type { elem: Elem::U32, lanes: 1 });
        let on = b.bin(BinaryOp::Ne, on, zero);
        let none = b.int(-1);
        let value = b.value(Op::Select(on, p, none), I);
        b.block.push(Stmt::Store { buffer: LABELS, index, value });
    });
    let changed = b.reg(B);
    let body = b.nested(|b| {
        let no = b.value(Op::Const(0f64.to_bits()), B);
        b.block.push(Stmt::Set(changed, no));
        sweep(b, base, width as i64, height as i64, c.connectivity, false, changed);
        sweep(b, base, width as i64, height as i64, c.connectivity, true, changed);
    });
    b.block.push(Stmt::DoWhile { body, again: changed });
    b.kernel.body = b.block;
    (b.kernel, vec![c.mask, c.labels])
}

/// One pass over the map; every cell takes the smallest label among itself and its neighbours.
fn sweep(b: &mut Build, base: ValueId, width: i64, height: i64, connectivity: u8, backward: bool, changed: RegId) {
    let label = b.reg(I);
    b.count(height, |b, r| {
        let y = if backward { reversed(b, r, height) } else { r };
        b.count(width, |b, s| {
            let x = if backward { reversed(b, s, width) } else { s };
            let w = b.int(width);
            let row = b.bin(BinaryOp::Mul, y, w);
            let p = b.bin(BinaryOp::Add, row, x);
            let index = b.bin(BinaryOp::Add, base, p);
            let own = b.value(Op::Load { buffer: LABELS, index }, I);
            let zero = b.int(0);
            let on = b.bin(BinaryOp::Ge, own, zero);
            b.when(on, |b| {
                b.block.push(Stmt::Set(label, own));
                for (dy, dx) in neighbours(connectivity) {
                    let (ny, nx) = (b.plus(y, dy), b.plus(x, dx));
                    let inside = within(b, ny, dy, height);
                    let inside_x = within(b, nx, dx, width);
                    let inside = b.bin(BinaryOp::And, inside, inside_x);
                    b.when(inside, |b| {
                        let index = b.plus(index, dy * width + dx);
                        let other = b.value(Op::Load { buffer: LABELS, index }, I);
                        let zero = b.int(0);
                        let on = b.bin(BinaryOp::Ge, other, zero);
                        let best = b.value(Op::Get(label), I);
                        let less = b.bin(BinaryOp::Lt, other, best);
                        let take = b.bin(BinaryOp::And, on, less);
                        let value = b.value(Op::Select(take, other, best), I);
                        b.block.push(Stmt::Set(label, value));
                    });
                }
                let best = b.value(Op::Get(label), I);
                let less = b.bin(BinaryOp::Lt, best, own);
                b.when(less, |b| {
                    b.block.push(Stmt::Store { buffer: LABELS, index, value: best });
                    let yes = b.value(Op::Const(1f64.to_bits()), B);
                    b.block.push(Stmt::Set(changed, yes));
                });
            });
        });
    });
}

fn reversed(b: &mut Build, v: ValueId, n: i64) -> ValueId {
    let last = b.int(n - 1);
    b.bin(BinaryOp::Sub, last, v)
}

/// Whether a neighbour's coordinate, `step` away, is in `0..n`.
fn within(b: &mut Build, v: ValueId, step: i64, n: i64) -> ValueId {
    match step {
        -1 => {
            let zero = b.int(0);
            b.bin(BinaryOp::Ge, v, zero)
        }
        1 => {
            let n = b.int(n);
            b.bin(BinaryOp::Lt, v, n)
        }
        _ => b.value(Op::Const(1f64.to_bits()), B),
    }
}

fn neighbours(connectivity: u8) -> Vec<(i64, i64)> {
    (-1..=1)
        .flat_map(|dy| (-1..=1).map(move |dx| (dy, dx)))
        .filter(|&(dy, dx)| (dy, dx) != (0, 0) && (connectivity == 8 || dy == 0 || dx == 0))
        .collect()
}
