//! How fast generated kernels run and how long they take to compile: a register-tiled matrix product written in loop IR.

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use foveate_codegen::{Backend, Device};
use foveate_compiler::ir::{BinaryOp, Elem, UnaryOp};
use foveate_compiler::loops::{Kernel, Op};
use std::time::Instant;

/// `c[m, n] = a[m, k] b[k, n]`: an item is a tile of `rows` x `vectors` vectors, k innermost.
fn matmul(m: usize, n: usize, k: usize, rows: usize, vectors: usize, lanes: usize) -> Kernel {
    let width = vectors * lanes;
    let (down, across) = (m / rows, n / width);
    let mut b = Build::new("matmul", (down * across) as u32);
    let pa = b.buffer("a", Elem::F32, m * k, false);
    let pb = b.buffer("b", Elem::F32, k * n, false);
    let pc = b.buffer("c", Elem::F32, m * n, true);
    let v = ty(Elem::F32, lanes as u8);
    let item = b.item();
    // Row blocks inside column panels.
    let count = b.int(down as i32);
    let panel = b.bin(BinaryOp::Div, item, count);
    let block = b.op(I32, Op::Rem(item, count));
    let c = b.int(rows as i32);
    let row = b.bin(BinaryOp::Mul, block, c);
    let c = b.int(width as i32);
    let column = b.bin(BinaryOp::Mul, panel, c);
    let acc = (0..rows * vectors).map(|_| b.reg(v)).collect::<Vec<_>>();
    let zero = b.float(0.0);
    let zero = b.splat(zero, lanes as u8);
    acc.iter().for_each(|r| b.set(*r, zero));
    let depth = b.int(k as i32);
    let line = b.int(n as i32);
    let starts = (0..rows)
        .map(|r| {
            let c = b.int(r as i32);
            let at = b.bin(BinaryOp::Add, row, c);
            b.bin(BinaryOp::Mul, at, depth)
        })
        .collect::<Vec<_>>();
    let none = b.int(0);
    b.for_(none, depth, |b, i| {
        let at = b.bin(BinaryOp::Mul, i, line);
        let at = b.bin(BinaryOp::Add, at, column);
        let right = (0..vectors)
            .map(|j| {
                let c = b.int((j * lanes) as i32);
                let at = b.bin(BinaryOp::Add, at, c);
                b.load(pb, at, lanes as u8)
            })
            .collect::<Vec<_>>();
        for r in 0..rows {
            let at = b.bin(BinaryOp::Add, starts[r], i);
            let x = b.load(pa, at, 1);
            let x = b.splat(x, lanes as u8);
            for (j, y) in right.iter().enumerate() {
                let old = b.get(acc[r * vectors + j]);
                let new = b.op(v, Op::Fma(x, *y, old));
                b.set(acc[r * vectors + j], new);
            }
        }
    });
    for r in 0..rows {
        let c = b.int(r as i32);
        let at = b.bin(BinaryOp::Add, row, c);
        let at = b.bin(BinaryOp::Mul, at, line);
        let at = b.bin(BinaryOp::Add, at, column);
        for j in 0..vectors {
            let c = b.int((j * lanes) as i32);
            let at = b.bin(BinaryOp::Add, at, c);
            let value = b.get(acc[r * vectors + j]);
            b.store(pc, at, value);
        }
    }
    b.done()
}

/// Processor time of this process, on Linux; elsewhere 0. On a busy machine it says more than the clock.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat
        .rsplit(')')
        .next()
        .map_or(0.0, |rest| rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum());
    ticks / 100.0
}

fn main() -> Result<(), String> {
    let only_compile = std::env::args().any(|a| a == "compile");
    let backend = Backend::available().into_iter().next().ok_or("this build has no device")?;
    let device = Device::open(backend)?;
    let lanes = device.facts().lanes;
    println!("device {}: {:?}", backend.name(), device.facts());
    let small = matmul(16, 6 * lanes, 20, 8, 3, lanes);
    compare(&device, &small, &[noise(320, 1.0), noise(120 * lanes, 1.0), noise(96 * lanes, 0.0)], 1e-5);
    if only_compile {
        return compile(&device, lanes);
    }
    println!("     m     n     k   tile   first launch ms   best ms   GFLOP/s   GFLOP/CPU second");
    for (m, n, k) in [(1568, 384, 1536), (1568, 384, 384), (1568, 1152, 384), (1568, 1536, 384)] {
        for (rows, vectors) in [(8, 3), (8, 2), (14, 1), (4, 6)] {
            if n % (vectors * lanes) != 0 {
                continue;
            }
            let kernel = matmul(m, n, k, rows, vectors, lanes);
            let buffers = [noise(m * k, 1.0), noise(k * n, 1.0), noise(m * n, 0.0)];
            let handles = buffers
                .iter()
                .map(|d| {
                    let h = device.allocate(d.len() * 4);
                    device.upload(&h, &bytes(d)).map(|()| h)
                })
                .collect::<Result<Vec<_>, _>>()?;
            let handles = handles.iter().collect::<Vec<_>>();
            let start = Instant::now();
            let compiled = device.compile(&kernel)?;
            device.launch(&compiled, &handles)?;
            device.sync()?;
            let first = start.elapsed().as_secs_f64() * 1e3;
            let mut best = f64::INFINITY;
            let before = cpu_seconds();
            for _ in 0..20 {
                let start = Instant::now();
                for _ in 0..4 {
                    device.launch(&compiled, &handles)?;
                }
                device.sync()?;
                best = best.min(start.elapsed().as_secs_f64() * 1e3 / 4.0);
            }
            let flops = 2.0 * (m * n * k) as f64 * 1e-9;
            let (rate, per_core) = (flops / best * 1e3, flops * 80.0 / (cpu_seconds() - before));
            println!("{m:>6}{n:>6}{k:>6}{rows:>4}x{vectors:<3}{first:>16.1}{best:>10.3}{rate:>10.0}{per_core:>20.0}");
        }
    }
    compile(&device, lanes)
}

/// Compiles kernels that differ in a size, each of about 200 operations in three loops.
fn compile(device: &Device, lanes: usize) -> Result<(), String> {
    let kernels = (0..16).map(|i| medium(100 + i, lanes as u8)).collect::<Vec<_>>();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let compiled = kernels.iter().map(|k| device.compile(k)).collect::<Result<Vec<_>, _>>()?;
    let handed_over = start.elapsed().as_secs_f64() * 1e3;
    let buffers = [device.allocate(400 * lanes * 4), device.allocate(400 * lanes * 4)];
    for kernel in &compiled {
        device.launch(kernel, &buffers.iter().collect::<Vec<_>>())?;
    }
    device.sync()?;
    let all = start.elapsed().as_secs_f64() * 1e3;
    let each = (cpu_seconds() - cpu) * 1e3 / 16.0;
    println!(
        "16 kernels of 200 operations: handed over in {handed_over:.0} ms, compiled and run after {all:.0} ms, {each:.0} ms of processor time each"
    );
    Ok(())
}

/// Three nested loops around chains of pointwise operations.
fn medium(n: i32, lanes: u8) -> Kernel {
    let v = ty(Elem::F32, lanes);
    let mut b = Build::new("medium", 2);
    let len = 400 * lanes as usize;
    let (x, y) = (b.buffer("x", Elem::F32, len, false), b.buffer("y", Elem::F32, len, true));
    let item = b.item();
    let (zero, size, inner, width) = (b.int(0), b.int(n), b.int(7), b.int(lanes as i32));
    b.for_(zero, size, |b, i| {
        let acc = b.reg(v);
        let start = b.float(0.5);
        let start = b.splat(start, lanes);
        b.set(acc, start);
        b.for_(zero, inner, |b, j| {
            b.for_(zero, inner, |b, k| {
                let at = b.bin(BinaryOp::Add, j, k);
                let at = b.bin(BinaryOp::Add, at, i);
                let at = b.bin(BinaryOp::Mul, at, width);
                let mut value = b.load(x, at, lanes);
                for step in 0..40 {
                    let c = b.float(0.01 * step as f64);
                    let c = b.splat(c, lanes);
                    value = match step % 8 {
                        0 => b.un(UnaryOp::Exp, value),
                        1 => b.bin(BinaryOp::Max, value, c),
                        2 => b.un(UnaryOp::Tanh, value),
                        3 => {
                            let low = b.bin(BinaryOp::Lt, value, c);
                            b.op(v, Op::Select(low, c, value))
                        }
                        4 => b.op(v, Op::Fma(value, c, value)),
                        5 => b.bin(BinaryOp::Div, value, c),
                        6 => b.bin(BinaryOp::Sub, value, c),
                        _ => b.bin(BinaryOp::Mul, value, value),
                    };
                }
                let old = b.get(acc);
                let new = b.bin(BinaryOp::Add, old, value);
                b.set(acc, new);
            });
        });
        let at = b.bin(BinaryOp::Mul, i, width);
        let two = b.int(2);
        let mine = b.op(I32, Op::Rem(i, two));
        let own = b.bin(BinaryOp::Eq, mine, item);
        let total = b.get(acc);
        b.if_(own, |b| b.store(y, at, total), |_| ());
    });
    b.done()
}
