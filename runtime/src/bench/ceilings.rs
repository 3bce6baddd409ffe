//! What a device can do at best: two kernels that do nothing else.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::plan::{Memory, Place};
use foveate_compiler::ir::{BinaryOp, Elem};
use foveate_compiler::loops::{Block, Buffer, BufferId, Kernel, Op, RegId, Stmt, Type, ValueId};
use serde::Serialize;
use std::time::Instant;

/// Independent sums of a work item: more than the latency of a multiply-add times how many begin a cycle, and few enough for registers.
const CHAINS: u32 = 12;
/// Multiply-adds of each.
const STEPS: usize = 200_000;
/// Elements of each of the two vectors that pass through memory: together many times what caches hold.
const ELEMENTS: usize = 48 << 20;
/// Vectors that a work item moves.
const CHUNK: usize = 4096;
/// Runs; the best counts.
const RUNS: usize = 7;

/// What a device can do at best, measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceilings {
    /// Floating-point operations a second of independent fused multiply-adds in registers; each counts two.
    pub flops: f64,
    /// Bytes a second of `y = a x + y` over vectors larger than all caches: two read, one written.
    pub bandwidth: f64,
}

/// Measures a device that runs kernels.
pub fn ceilings(device: &Device) -> Result<Ceilings> {
    let facts = device.facts().ok_or_else(|| Error::Device("the interpreter runs no kernels".to_owned()))?;
    let (lanes, items) = (facts.lanes, 8 * facts.units);
    let flops = f64::from(CHAINS) * (STEPS * lanes * items * 2) as f64;
    let moved = (ELEMENTS / (lanes * CHUNK) * lanes * CHUNK * 3 * 4) as f64;
    Ok(Ceilings {
        flops: flops / best(device, &multiply_adds(lanes, items))?,
        bandwidth: moved / best(device, &stream(lanes))?,
    })
}

/// Seconds of the fastest run.
fn best(device: &Device, kernel: &Kernel) -> Result<f64> {
    let mut memory = Memory::new(device.clone())?;
    let mut places: Vec<Place> = Vec::new();
    for buffer in &kernel.buffers {
        let arena = memory.add(buffer.len)?;
        places.push(Place { arena, offset: 0, len: buffer.len });
    }
    let kernel = device.compile(kernel)?;
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let begin = Instant::now();
        memory.launch(&kernel, &places)?;
        device.sync()?;
        best = best.min(begin.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Statements with the values that they define.
#[derive(Default)]
struct Code {
    values: Vec<Type>,
    body: Block,
}

impl Code {
    fn value(&mut self, elem: Elem, lanes: usize) -> ValueId {
        self.values.push(Type { elem, lanes: lanes as u8 });
        ValueId(self.values.len() as u32 - 1)
    }
    fn put(&mut self, elem: Elem, lanes: usize, op: Op) -> ValueId {
        let value = self.value(elem, lanes);
        self.body.push(Stmt::Let(value, op));
        value
    }
    fn int(&mut self, n: usize) -> ValueId {
        self.put(Elem::I32, 1, Op::Const((n as f64).to_bits()))
    }
    fn times(&mut self, value: ValueId, n: usize) -> ValueId {
        let n = self.int(n);
        self.put(Elem::I32, 1, Op::Binary(BinaryOp::Mul, value, n))
    }
    /// A loop from 0; `body` is given the loop's variable.
    fn repeat(&mut self, n: usize, body: impl FnOnce(&mut Code, ValueId)) {
        let (lo, hi) = (self.int(0), self.int(n));
        let var = self.value(Elem::I32, 1);
        let outer = std::mem::take(&mut self.body);
        body(self, var);
        let body = std::mem::replace(&mut self.body, outer);
        self.body.push(Stmt::For { var, lo, hi, body });
    }
    fn kernel(self, name: &str, buffers: Vec<Buffer>, regs: Vec<Type>, items: usize) -> Kernel {
        let (values, body) = (self.values, self.body);
        Kernel { name: name.to_owned(), buffers, locals: Vec::new(), values, regs, items: items as u32, body }
    }
}

fn buffer(name: &str, len: usize, written: bool) -> Buffer {
    Buffer { name: name.to_owned(), elem: Elem::F32, len, written }
}

fn multiply_adds(lanes: usize, items: usize) -> Kernel {
    let mut code = Code::default();
    let zero = code.int(0);
    let [a, b] = [0, 1].map(|n| code.put(Elem::F32, lanes, Op::Load { buffer: BufferId(n), index: zero }));
    for chain in 0..CHAINS {
        code.body.push(Stmt::Set(RegId(chain), b));
    }
    code.repeat(STEPS, |code, _| {
        for chain in (0..CHAINS).map(RegId) {
            let sum = code.put(Elem::F32, lanes, Op::Get(chain));
            let next = code.put(Elem::F32, lanes, Op::Fma(sum, a, b));
            code.body.push(Stmt::Set(chain, next));
        }
    });
    let mut total = code.put(Elem::F32, lanes, Op::Get(RegId(0)));
    for chain in 1..CHAINS {
        let sum = code.put(Elem::F32, lanes, Op::Get(RegId(chain)));
        total = code.put(Elem::F32, lanes, Op::Binary(BinaryOp::Add, total, sum));
    }
    let item = code.put(Elem::I32, 1, Op::Item);
    let index = code.times(item, lanes);
    code.body.push(Stmt::Store { buffer: BufferId(2), index, value: total });
    let buffers = vec![buffer("a", lanes, false), buffer("b", lanes, false), buffer("y", lanes * items, true)];
    let regs = vec![Type { elem: Elem::F32, lanes: lanes as u8 }; CHAINS as usize];
    code.kernel("multiply-adds", buffers, regs, items)
}

fn stream(lanes: usize) -> Kernel {
    let mut code = Code::default();
    let zero = code.int(0);
    let a = code.put(Elem::F32, lanes, Op::Load { buffer: BufferId(0), index: zero });
    let item = code.put(Elem::I32, 1, Op::Item);
    let first = code.times(item, lanes * CHUNK);
    code.repeat(CHUNK, |code, n| {
        let offset = code.times(n, lanes);
        let index = code.put(Elem::I32, 1, Op::Binary(BinaryOp::Add, first, offset));
        let x = code.put(Elem::F32, lanes, Op::Load { buffer: BufferId(1), index });
        let y = code.put(Elem::F32, lanes, Op::Load { buffer: BufferId(2), index });
        let value = code.put(Elem::F32, lanes, Op::Fma(a, x, y));
        code.body.push(Stmt::Store { buffer: BufferId(2), index, value });
    });
    let items = ELEMENTS / (lanes * CHUNK);
    let len = items * lanes * CHUNK;
    let buffers = vec![buffer("a", lanes, false), buffer("x", len, false), buffer("y", len, true)];
    code.kernel("stream", buffers, Vec::new(), items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use foveate_compiler::loops::verify::verify;

    #[test]
    fn kernels_are_correct() {
        for kernel in [multiply_adds(8, 2), stream(8)] {
            verify(&kernel).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        }
    }
}
