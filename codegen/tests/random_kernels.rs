//! Random kernels give the same on a device as in the evaluator.

mod common;

use common::*;
use foveate_codegen::{Backend, Device};
use foveate_compiler::ir::{BinaryOp, Elem, UnaryOp};
use foveate_compiler::loops::eval::BufferData;
use foveate_compiler::loops::{BufferId, Half, Kernel, LocalId, Op, RegId, Stmt, ValueId};
use proptest::prelude::*;

/// Values of one shape that are visible, of a kind each.
#[derive(Clone, Default)]
struct Pool {
    /// Floats that device and evaluator agree on to the bit, so that comparing them is safe.
    exact: Vec<ValueId>,
    /// Floats that may differ by rounding.
    rounded: Vec<ValueId>,
    /// Vectors of indices inside the buffers.
    indices: Vec<ValueId>,
    words: Vec<ValueId>,
    bools: Vec<ValueId>,
}

/// Makes a kernel out of a list of choices.
struct Maker<'a> {
    b: Build,
    choices: &'a mut dyn Iterator<Item = u32>,
    lanes: u8,
    x: BufferId,
    table: BufferId,
    len: i32,
    local: LocalId,
    acc: RegId,
}

const LOCAL: i32 = 5;

impl Maker<'_> {
    fn choose(&mut self, n: usize) -> usize {
        self.choices.next().unwrap_or(0) as usize % n
    }

    fn pick(&mut self, from: &[ValueId]) -> ValueId {
        let i = self.choose(from.len());
        from[i]
    }

    fn constant(&mut self, x: f64) -> ValueId {
        let c = self.b.float(x);
        self.b.splat(c, self.lanes)
    }

    /// Keeps rounding differences from growing.
    fn clamp(&mut self, v: ValueId) -> ValueId {
        let (low, high) = (self.constant(-4.0), self.constant(4.0));
        let v = self.b.bin(BinaryOp::Max, v, low);
        self.b.bin(BinaryOp::Min, v, high)
    }

    /// A scalar index from which a whole vector can be loaded.
    fn start(&mut self, pool: &Pool) -> ValueId {
        let v = self.pick(&pool.indices);
        let lane = self.choose(self.lanes as usize) as u8;
        let at = self.b.op(I32, Op::Extract(v, lane));
        let most = self.b.int(self.len - self.lanes as i32);
        self.b.bin(BinaryOp::Min, at, most)
    }

    fn statement(&mut self, pool: &mut Pool, depth: usize) {
        let (f, t) = (ty(Elem::F32, self.lanes), ty(Elem::Bool, self.lanes));
        let (i, u) = (ty(Elem::I32, self.lanes), ty(Elem::U32, self.lanes));
        match self.choose(15) {
            0 => {
                let at = self.start(pool);
                // A hint may look anywhere.
                let distance = [0, 1 << 24, -(1 << 24)][self.choose(3)];
                let distance = self.b.int(distance);
                let ahead = self.b.bin(BinaryOp::Add, at, distance);
                self.b.push(Stmt::Prefetch { buffer: self.x, index: ahead });
                let v = self.b.load(self.x, at, self.lanes);
                pool.exact.push(v);
            }
            1 => {
                let index = self.pick(&pool.indices);
                let v = self.b.op(f, Op::Gather { buffer: self.x, index });
                pool.exact.push(v);
            }
            2 => {
                let index = self.pick(&pool.indices);
                let v = self.b.op(i, Op::Gather { buffer: self.table, index });
                pool.indices.push(v);
            }
            3 => {
                let (p, q) = (self.pick(&pool.exact), self.pick(&pool.exact));
                let op = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Max, BinaryOp::Min][self.choose(5)];
                let v = self.b.bin(op, p, q);
                let v = self.clamp(v);
                pool.exact.push(v);
            }
            4 => {
                let (p, q, r) = (self.pick(&pool.exact), self.pick(&pool.rounded), self.pick(&pool.exact));
                let v = self.b.op(f, Op::Fma(p, q, r));
                let v = self.clamp(v);
                pool.rounded.push(v);
            }
            5 => {
                let p = self.pick(&pool.rounded);
                use UnaryOp::*;
                let op = [Exp, Sin, Cos, Tanh, Erf, Abs, Neg][self.choose(7)];
                let v = self.b.un(op, p);
                let v = self.clamp(v);
                pool.rounded.push(v);
            }
            6 => {
                let (p, q) = (self.pick(&pool.exact), self.pick(&pool.exact));
                use BinaryOp::*;
                let op = [Lt, Le, Gt, Ge, Eq, Ne][self.choose(6)];
                let v = self.b.bin(op, p, q);
                pool.bools.push(v);
            }
            7 => {
                let (p, q) = (self.pick(&pool.bools), self.pick(&pool.bools));
                let op = [BinaryOp::And, BinaryOp::Or, BinaryOp::Xor][self.choose(3)];
                let v = self.b.bin(op, p, q);
                let v = if self.choose(2) == 0 { v } else { self.b.un(UnaryOp::Not, v) };
                pool.bools.push(v);
            }
            8 => {
                let (c, p, q) = (self.pick(&pool.bools), self.pick(&pool.rounded), self.pick(&pool.exact));
                let v = self.b.op(f, Op::Select(c, p, q));
                pool.rounded.push(v);
            }
            9 => {
                let (p, q) = (self.pick(&pool.words), self.pick(&pool.words));
                use BinaryOp::*;
                let op = [Add, Sub, Mul, Xor, And, Or][self.choose(6)];
                let v = self.b.bin(op, p, q);
                pool.words.push(v);
                let high = self.b.op(U32, Op::Const(8f64.to_bits()));
                let high = self.b.splat(high, self.lanes);
                let v = self.b.bin(Shr, v, high);
                let v = self.b.op(f, Op::Cast(v));
                let scale = self.constant(1.0 / 16_777_216.0);
                let v = self.b.bin(Mul, v, scale);
                pool.exact.push(v);
            }
            10 => {
                let c = self.pick(&pool.indices);
                let n = self.choose(9) as i32 + 1;
                let n = self.b.int(n);
                let n = self.b.splat(n, self.lanes);
                let v = if self.choose(2) == 0 { self.b.op(i, Op::Rem(c, n)) } else { self.b.bin(BinaryOp::Div, c, n) };
                pool.indices.push(v);
                let w = self.b.op(u, Op::Cast(v));
                pool.words.push(w);
                let truth = self.b.op(t, Op::Cast(v));
                pool.bools.push(truth);
            }
            11 => {
                let v = self.pick(&pool.exact);
                let op = [BinaryOp::Add, BinaryOp::Max, BinaryOp::Min][self.choose(3)];
                let v = self.b.op(F32, Op::Fold(op, v));
                let v = self.b.splat(v, self.lanes);
                let v = self.clamp(v);
                pool.exact.push(v);
            }
            12 if self.lanes > 1 => {
                let (p, q) = (self.pick(&pool.exact), self.pick(&pool.exact));
                let half = [Half::First, Half::Second][self.choose(2)];
                let v = self.b.op(f, Op::Zip(p, q, half));
                pool.exact.push(v);
                let (p, q) = (self.pick(&pool.indices), self.pick(&pool.indices));
                let v = self.b.op(i, Op::Zip(p, q, half));
                pool.indices.push(v);
            }
            13 if depth < 3 => {
                let n = self.choose(4) as i32 + 1;
                let (lo, hi) = (self.b.int(0), self.b.int(n));
                self.for_loop(pool, lo, hi, depth);
            }
            _ if depth < 3 => {
                let c = self.pick(&pool.bools);
                let c = self.b.op(BOOL, Op::Extract(c, 0));
                let p = self.pick(&pool.rounded);
                let acc = self.acc;
                self.b.if_(
                    c,
                    |b| {
                        let old = b.get(acc);
                        let new = b.bin(BinaryOp::Add, old, p);
                        b.set(acc, new);
                    },
                    |b| b.set(acc, p),
                );
                let v = self.b.get(acc);
                let v = self.clamp(v);
                self.b.set(acc, v);
            }
            _ => {}
        }
    }

    fn for_loop(&mut self, pool: &Pool, lo: ValueId, hi: ValueId, depth: usize) {
        let count = 1 + self.choose(4);
        let mut inner = pool.clone();
        // The builder is moved into the loop's body and back.
        let mut outer = std::mem::replace(&mut self.b, Build::new("", 0));
        outer.for_(lo, hi, |b, var| {
            std::mem::swap(&mut self.b, b);
            let slots = self.b.int(LOCAL);
            let slot = self.b.op(I32, Op::Rem(var, slots));
            let value = self.pick(&inner.exact);
            self.b.push(Stmt::StoreLocal { local: self.local, index: slot, value });
            let wide = self.b.splat(var, self.lanes);
            inner.indices.push(wide);
            for _ in 0..count {
                self.statement(&mut inner, depth + 1);
            }
            let kept = self.b.op(ty(Elem::F32, self.lanes), Op::LoadLocal { local: self.local, index: slot });
            // One lane of the same vector, which differs from turn to turn.
            let width = self.b.int(self.lanes as i32);
            let lane = self.b.op(I32, Op::Rem(var, width));
            let first = self.b.bin(BinaryOp::Mul, slot, width);
            let place = self.b.bin(BinaryOp::Add, first, lane);
            let one = self.b.op(F32, Op::LoadLane { local: self.local, index: place });
            let one = self.b.splat(one, self.lanes);
            let kept = self.b.bin(BinaryOp::Sub, kept, one);
            let old = self.b.get(self.acc);
            let p = self.pick(&inner.rounded);
            let new = self.b.op(ty(Elem::F32, self.lanes), Op::Fma(kept, p, old));
            let new = self.clamp(new);
            self.b.set(self.acc, new);
            std::mem::swap(&mut self.b, b);
        });
        self.b = outer;
    }
}

fn kernel(lanes: u8, items: u32, statements: usize, choices: &[u32]) -> (Kernel, Vec<BufferData>) {
    let len = items as i32 * lanes as i32 + 13;
    let out = items as usize * lanes as usize;
    let mut b = Build::new("random", items);
    let x = b.buffer("x", Elem::F32, len as usize, false);
    let table = b.buffer("table", Elem::I32, len as usize, false);
    let y = b.buffer("y", Elem::F32, out, true);
    let z = b.buffer("z", Elem::F32, out, true);
    let f = ty(Elem::F32, lanes);
    let (local, acc) = (b.local(f, LOCAL as u32), b.reg(f));
    let item = b.item();
    let width = b.int(lanes as i32);
    let at = b.bin(BinaryOp::Mul, item, width);
    let base = b.splat(at, lanes);
    let lane = b.op(ty(Elem::I32, lanes), Op::Lanes);
    let own = b.bin(BinaryOp::Add, base, lane);
    let first = b.load(x, at, lanes);
    let word = b.op(ty(Elem::U32, lanes), Op::Cast(own));
    let zero = b.float(0.0);
    let zero = b.splat(zero, lanes);
    let positive = b.bin(BinaryOp::Gt, first, zero);
    b.set(acc, zero);
    let mut pool =
        Pool { exact: vec![first], rounded: vec![first], indices: vec![own], words: vec![word], bools: vec![positive] };
    let mut choices = choices.iter().copied();
    let mut maker = Maker { b, choices: &mut choices, lanes, x, table, len, local, acc };
    for _ in 0..statements {
        maker.statement(&mut pool, 0);
    }
    let mut b = maker.b;
    let last = pool.rounded[pool.rounded.len() - 1];
    let total = b.get(acc);
    let sum = b.bin(BinaryOp::Add, total, last);
    b.store(y, at, sum);
    let end = b.int(out as i32 - 1);
    let end = b.splat(end, lanes);
    let mirrored = b.bin(BinaryOp::Sub, end, own);
    b.push(Stmt::Scatter { buffer: z, index: mirrored, value: pool.exact[pool.exact.len() - 1] });
    let data = vec![
        noise(len as usize, 2.0),
        BufferData::I32((0..len).map(|i| (i * 5 + 2) % len).collect()),
        BufferData::zeros(Elem::F32, out),
        BufferData::zeros(Elem::F32, out),
    ];
    (b.done(), data)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn device_and_evaluator_agree(
        width in 0usize..3,
        items in 1u32..20,
        statements in 1usize..14,
        choices in proptest::collection::vec(any::<u32>(), 120),
    ) {
        let backend = Backend::available().pop().expect("a build has a device");
        let device = Device::open(backend).expect("the device opens");
        let widest = device.facts().lanes as u8;
        let lanes = [1, widest.min(4), widest][width];
        let (kernel, data) = kernel(lanes, items, statements, &choices);
        compare(&device, &kernel, &data, 2e-4);
    }
}
