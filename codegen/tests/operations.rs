//! Every operation of the loop IR on a device, against the evaluator.

mod common;

use common::*;
use foveate_codegen::{Backend, Device};
use foveate_compiler::ir::{BinaryOp, Elem, UnaryOp};
use foveate_compiler::loops::eval::BufferData;
use foveate_compiler::loops::{Half, Op, Stmt};

fn device() -> Device {
    let backend = Backend::available().pop().expect("a build has a device");
    Device::open(backend).expect("the device opens")
}

fn widths(device: &Device) -> Vec<u8> {
    let lanes = device.facts().lanes as u8;
    if lanes > 4 { vec![1, 4, lanes] } else { vec![1, lanes] }
}

/// `y = op(x)` over `n` elements, `lanes` at a time, from an offset that no vector alignment has.
fn pointwise(
    lanes: u8,
    n: u32,
    op: impl Fn(&mut Build, foveate_compiler::loops::ValueId) -> foveate_compiler::loops::ValueId,
) -> foveate_compiler::loops::Kernel {
    let mut b = Build::new("pointwise", n);
    let len = n as usize * lanes as usize + 1;
    let x = b.buffer("x", Elem::F32, len, false);
    let y = b.buffer("y", Elem::F32, len, true);
    let item = b.item();
    let width = b.int(lanes as i32);
    let one = b.int(1);
    let at = b.bin(BinaryOp::Mul, item, width);
    let at = b.bin(BinaryOp::Add, at, one);
    let v = b.load(x, at, lanes);
    let r = op(&mut b, v);
    b.store(y, at, r);
    b.done()
}

#[test]
fn pointwise_operations() {
    let device = device();
    for lanes in widths(&device) {
        let n = 37u32;
        let len = n as usize * lanes as usize + 1;
        use UnaryOp::*;
        for (op, positive, tolerance) in [
            (Neg, false, 0.0),
            (Exp, false, 2e-6),
            (Log, true, 2e-6),
            (Sqrt, true, 1e-6),
            (Rsqrt, true, 2e-6),
            (Sin, false, 2e-6),
            (Cos, false, 2e-6),
            (Tanh, false, 1e-6),
            (Erf, false, 4e-7),
            (Abs, false, 0.0),
            (Sign, false, 0.0),
            (Floor, false, 0.0),
            (Recip, true, 1e-6),
        ] {
            let kernel = pointwise(lanes, n, |b, v| {
                let v = if positive { b.un(Abs, v) } else { v };
                b.un(op, v)
            });
            compare(&device, &kernel, &[noise(len, 6.0), BufferData::zeros(Elem::F32, len)], tolerance);
        }
        use BinaryOp::*;
        for op in [Add, Sub, Mul, Div, Max, Min, Pow, Eq, Ne, Lt, Le, Gt, Ge] {
            let kernel = pointwise(lanes, n, |b, v| {
                let c = b.float(0.75);
                let c = b.splat(c, lanes);
                let v = if op == Pow { b.un(Abs, v) } else { v };
                let r = b.bin(op, v, c);
                let f = ty(Elem::F32, lanes);
                if op.is_comparison() { b.op(f, Op::Cast(r)) } else { b.op(f, Op::Fma(r, c, v)) }
            });
            compare(&device, &kernel, &[noise(len, 3.0), BufferData::zeros(Elem::F32, len)], 2e-6);
        }
    }
}

/// What the processor makes of numbers of all sizes, each with what it is exactly.
#[cfg(feature = "cpu")]
fn of_all_sizes(op: UnaryOp, x: &[f32], check: impl Fn(f32, f32, u8)) {
    let device = Device::open(Backend::Cpu).expect("the device opens");
    for lanes in widths(&device) {
        let n = x.len().div_ceil(lanes as usize);
        let mut data = vec![f32::NAN; n * lanes as usize + 1];
        data[1..=x.len()].copy_from_slice(x);
        let kernel = pointwise(lanes, n as u32, |b, v| b.un(op, v));
        let buffers = [BufferData::F32(data.clone()), BufferData::zeros(Elem::F32, data.len())];
        let got = run_on(&device, &kernel, &buffers).unwrap();
        let BufferData::F32(got) = &got[1] else { panic!("floats") };
        assert!(got[x.len() + 1..].iter().all(|y| y.is_nan()));
        x.iter().zip(&got[1..]).for_each(|(&x, &y)| check(x, y, lanes));
    }
}

/// What a float's exponential comes to where it is nothing, one, or infinite; between, to a few units in the last place.
#[cfg(feature = "cpu")]
#[test]
fn exponentials_of_all_sizes() {
    let ends = [
        f32::NEG_INFINITY,
        -1e30,
        -200.0,
        -104.0,
        -88.0,
        -87.4,
        -87.3,
        -1e-9,
        -0.0,
        0.0,
        88.7,
        88.8,
        1e30,
        f32::INFINITY,
    ];
    let x: Vec<f32> = ends.into_iter().chain((-8700..8870).map(|n| n as f32 / 100.0)).collect();
    of_all_sizes(UnaryOp::Exp, &x, |x, y, lanes| {
        let want = f64::from(x).exp();
        let most = f64::from(f32::MAX);
        let close = (f64::from(y) - want).abs() <= 4e-7 * want + f64::from(f32::MIN_POSITIVE);
        assert!(close || (want > most && y == f32::INFINITY), "exp({x}) is {want}, {lanes} lanes give {y}");
    });
}

/// The error function keeps its relative precision down to the smallest numbers, is odd, and never leaves -1 to 1.
#[cfg(feature = "cpu")]
#[test]
fn error_functions_of_all_sizes() {
    let ends = [0.0, 1e-37, 1e-20, 1e-9, 3.79, 3.8, 3.81, 3.874, 3.876, 4.0, 10.0, 1e30, f32::INFINITY];
    let x: Vec<f32> = ends.into_iter().chain((0..40_000).map(|n| n as f32 * 1.03e-4)).flat_map(|x| [x, -x]).collect();
    of_all_sizes(UnaryOp::Erf, &x, |x, y, lanes| {
        let want = libm::erf(f64::from(x));
        let close = (f64::from(y) - want).abs() <= 3e-7 * want.abs() && y.abs() <= 1.0;
        assert!(close, "erf({x}) is {want}, {lanes} lanes give {y}");
    });
}

#[test]
fn integers_and_bools() {
    let device = device();
    for lanes in widths(&device) {
        let items = 29;
        let len = items as usize * lanes as usize;
        let mut b = Build::new("integers", items);
        let ints = b.buffer("ints", Elem::I32, len, true);
        let words = b.buffer("words", Elem::U32, len, true);
        let flags = b.buffer("flags", Elem::Bool, len, true);
        let floats = b.buffer("floats", Elem::F32, len, true);
        let (i, u, t, f) = (ty(Elem::I32, lanes), ty(Elem::U32, lanes), ty(Elem::Bool, lanes), ty(Elem::F32, lanes));
        let item = b.item();
        let width = b.int(lanes as i32);
        let at = b.bin(BinaryOp::Mul, item, width);
        let base = b.splat(at, lanes);
        let lane = b.op(i, Op::Lanes);
        let index = b.bin(BinaryOp::Add, base, lane);
        let seven = b.int(7);
        let seven = b.splat(seven, lanes);
        let div = b.bin(BinaryOp::Div, index, seven);
        let rem = b.op(i, Op::Rem(index, seven));
        let mix = b.bin(BinaryOp::Mul, div, rem);
        let minus = b.bin(BinaryOp::Sub, rem, mix);
        let abs = b.un(UnaryOp::Abs, minus);
        let sign = b.un(UnaryOp::Sign, minus);
        let neg = b.un(UnaryOp::Neg, sign);
        let most = b.bin(BinaryOp::Max, abs, neg);
        let least = b.bin(BinaryOp::Min, minus, most);
        let old = b.load(ints, at, lanes);
        let sum = b.bin(BinaryOp::Add, least, old);
        b.store(ints, at, sum);
        // murmur3's steps wrap.
        let h = b.op(u, Op::Cast(index));
        let by = b.op(U32, Op::Const(16f64.to_bits()));
        let by = b.splat(by, lanes);
        let shifted = b.bin(BinaryOp::Shr, h, by);
        let h = b.bin(BinaryOp::Xor, h, shifted);
        let c = b.op(U32, Op::Const((0x85EB_CA6Bu32 as f64).to_bits()));
        let c = b.splat(c, lanes);
        let h = b.bin(BinaryOp::Mul, h, c);
        let or = b.bin(BinaryOp::Or, h, by);
        let and = b.bin(BinaryOp::And, or, c);
        let h = b.bin(BinaryOp::Add, and, h);
        b.store(words, at, h);
        let odd = b.bin(BinaryOp::Lt, h, c);
        let big = b.bin(BinaryOp::Gt, index, seven);
        let both = b.bin(BinaryOp::And, odd, big);
        let either = b.bin(BinaryOp::Or, odd, big);
        let differ = b.bin(BinaryOp::Xor, both, either);
        let not = b.un(UnaryOp::Not, differ);
        let read = b.load(flags, at, lanes);
        let flag = b.op(t, Op::Select(read, not, both));
        b.store(flags, at, flag);
        let as_float = b.op(f, Op::Cast(h));
        let scale = b.float(1e-6);
        let scale = b.splat(scale, lanes);
        let x = b.bin(BinaryOp::Mul, as_float, scale);
        let back = b.op(i, Op::Cast(x));
        let x2 = b.op(f, Op::Cast(back));
        let flag_number = b.op(f, Op::Cast(flag));
        let y = b.bin(BinaryOp::Add, x2, flag_number);
        b.store(floats, at, y);
        let kernel = b.done();
        let data = [
            BufferData::I32((0..len as i32).map(|i| i - 20).collect()),
            BufferData::zeros(Elem::U32, len),
            BufferData::U32((0..len as u32).map(|i| i % 2).collect()),
            BufferData::zeros(Elem::F32, len),
        ];
        compare(&device, &kernel, &data, 1e-6);
    }
}

/// Registers, locals, nested loops, branches and repetition.
#[test]
fn control_flow() {
    let device = device();
    for lanes in widths(&device) {
        let items = 21;
        let n = 8;
        let len = items as usize * lanes as usize;
        let mut b = Build::new("control", items);
        let x = b.buffer("x", Elem::F32, len + n, false);
        let y = b.buffer("y", Elem::F32, len, true);
        let count = b.buffer("count", Elem::I32, items as usize, true);
        let f = ty(Elem::F32, lanes);
        let local = b.local(f, n as u32);
        let acc = b.reg(f);
        let steps = b.reg(I32);
        let again = b.reg(BOOL);
        let item = b.item();
        let width = b.int(lanes as i32);
        let at = b.bin(BinaryOp::Mul, item, width);
        let (zero, one, size) = (b.int(0), b.int(1), b.int(n as i32));
        b.for_(zero, size, |b, i| {
            let from = b.bin(BinaryOp::Add, at, i);
            let v = b.load(x, from, lanes);
            b.push(Stmt::StoreLocal { local, index: i, value: v });
        });
        let start = b.float(0.0);
        let start = b.splat(start, lanes);
        b.set(acc, start);
        b.for_(zero, size, |b, i| {
            b.for_(i, size, |b, j| {
                let p = b.op(f, Op::LoadLocal { local, index: i });
                let q = b.op(f, Op::LoadLocal { local, index: j });
                let a = b.get(acc);
                let four = b.int(4);
                let near = b.bin(BinaryOp::Lt, j, four);
                b.if_(
                    near,
                    |b| {
                        let r = b.op(f, Op::Fma(p, q, a));
                        b.set(acc, r);
                    },
                    |b| {
                        let r = b.bin(BinaryOp::Sub, a, q);
                        b.set(acc, r);
                    },
                );
            });
        });
        // Counts down from the item, halving.
        b.set(steps, zero);
        let rest = b.reg(I32);
        b.set(rest, item);
        b.do_while(again, |b| {
            let s = b.get(steps);
            let s = b.bin(BinaryOp::Add, s, one);
            b.set(steps, s);
            let r = b.get(rest);
            let two = b.int(2);
            let r = b.bin(BinaryOp::Div, r, two);
            b.set(rest, r);
            let more = b.bin(BinaryOp::Gt, r, zero);
            b.set(again, more);
        });
        let a = b.get(acc);
        b.store(y, at, a);
        let s = b.get(steps);
        b.store(count, item, s);
        let kernel = b.done();
        let data =
            [noise(len + n, 1.0), BufferData::zeros(Elem::F32, len), BufferData::zeros(Elem::I32, items as usize)];
        compare(&device, &kernel, &data, 1e-5);
    }
}

#[test]
fn lanes_move() {
    let device = device();
    for lanes in widths(&device) {
        let items = 19;
        let len = items as usize * lanes as usize;
        let mut b = Build::new("moves", items);
        let x = b.buffer("x", Elem::F32, len, false);
        let perm = b.buffer("perm", Elem::I32, len, false);
        let y = b.buffer("y", Elem::F32, len, true);
        let folds = b.buffer("folds", Elem::F32, items as usize * 4, true);
        let greatest = b.buffer("greatest", Elem::I32, items as usize, true);
        let (f, i) = (ty(Elem::F32, lanes), ty(Elem::I32, lanes));
        let item = b.item();
        let width = b.int(lanes as i32);
        let at = b.bin(BinaryOp::Mul, item, width);
        let index = b.load(perm, at, lanes);
        let v = b.op(f, Op::Gather { buffer: x, index });
        let base = b.splat(at, lanes);
        let lane = b.op(i, Op::Lanes);
        let own = b.bin(BinaryOp::Add, base, lane);
        let last = b.int(len as i32 - 1);
        let last = b.splat(last, lanes);
        let mirrored = b.bin(BinaryOp::Sub, last, own);
        b.push(Stmt::Scatter { buffer: y, index: mirrored, value: v });
        let four = b.int(4);
        let out = b.bin(BinaryOp::Mul, item, four);
        for (k, op) in [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Max, BinaryOp::Min].into_iter().enumerate() {
            let r = b.op(F32, Op::Fold(op, v));
            let k = b.int(k as i32);
            let to = b.bin(BinaryOp::Add, out, k);
            b.store(folds, to, r);
        }
        let top = b.op(I32, Op::Fold(BinaryOp::Max, index));
        let first = b.op(I32, Op::Extract(index, lanes - 1));
        let both = b.bin(BinaryOp::Add, top, first);
        b.store(greatest, item, both);
        let kernel = b.done();
        let data = [
            noise(len, 2.0),
            BufferData::I32((0..len as i32).map(|i| (i * 7 + 3) % len as i32).collect()),
            BufferData::zeros(Elem::F32, len),
            BufferData::zeros(Elem::F32, items as usize * 4),
            BufferData::zeros(Elem::I32, items as usize),
        ];
        compare(&device, &kernel, &data, 1e-6);
    }
}

#[test]
fn infinities_and_nan() {
    let device = device();
    for lanes in widths(&device) {
        let kernel = pointwise(lanes, 3, |b, v| {
            let low = b.float(f64::NEG_INFINITY);
            let low = b.splat(low, lanes);
            let most = b.bin(BinaryOp::Max, v, low);
            let zero = b.un(UnaryOp::Exp, low);
            let nan = b.float(f64::NAN);
            let nan = b.splat(nan, lanes);
            let clean = b.bin(BinaryOp::Eq, nan, nan);
            let sum = b.bin(BinaryOp::Add, most, zero);
            let f = ty(Elem::F32, lanes);
            let r = b.op(f, Op::Select(clean, nan, sum));
            let up = b.float(f64::INFINITY);
            let up = b.splat(up, lanes);
            let below = b.bin(BinaryOp::Lt, r, up);
            b.op(f, Op::Select(below, r, low))
        });
        let len = 3 * lanes as usize + 1;
        compare(&device, &kernel, &[noise(len, 2.0), BufferData::zeros(Elem::F32, len)], 0.0);
    }
}

#[test]
fn many_items_and_slices() {
    let device = device();
    // More than one row of a GPU's grid.
    let items = 64 * 65_535 + 100;
    let mut b = Build::new("many", items);
    let y = b.buffer("y", Elem::I32, items as usize, true);
    let item = b.item();
    b.store(y, item, item);
    let kernel = b.done();
    let compiled = device.compile(&kernel).unwrap();
    let whole = device.allocate(items as usize * 4 + 512);
    let part = whole.slice(256, items as usize * 4).unwrap();
    device.upload(&whole, &vec![0xFF; whole.bytes()]).unwrap();
    device.launch(&compiled, &[&part]).unwrap();
    let got = of_bytes(Elem::I32, &device.download(&part).unwrap());
    assert_eq!(got, BufferData::I32((0..items as i32).collect()));
    let all = device.download(&whole).unwrap();
    assert!(all[..256].iter().chain(&all[256 + items as usize * 4..]).all(|b| *b == 0xFF));
    assert!(whole.slice(4, 4).is_err() && whole.slice(256, whole.bytes()).is_err());
}

#[test]
fn wrong_arguments_are_errors() {
    let device = device();
    let kernel = pointwise(1, 3, |_, v| v);
    let compiled = device.compile(&kernel).unwrap();
    let small = device.allocate(4);
    let error = device.launch(&compiled, &[&small, &small]).unwrap_err();
    assert_eq!(error, "kernel `pointwise`: buffer `x` needs 4 elements of F32, given 4 bytes");
    assert!(device.launch(&compiled, &[&small]).unwrap_err().contains("takes 2 buffers, 1 given"));
    assert!(device.upload(&small, &[0; 8]).is_err());
    assert!("gpu".parse::<Backend>().is_err());
}

/// Vectors go into local arrays, single lanes come out in another order.
#[test]
fn lanes_of_local_arrays() {
    let device = device();
    for lanes in widths(&device) {
        let (items, n) = (5, 3);
        let len = items as usize * lanes as usize * n;
        let mut b = Build::new("lanes", items);
        let x = b.buffer("x", Elem::F32, len, false);
        let y = b.buffer("y", Elem::F32, len, true);
        let z = b.buffer("z", Elem::I32, len, true);
        let (f, i, t) = (ty(Elem::F32, lanes), ty(Elem::I32, lanes), ty(Elem::Bool, lanes));
        let (floats, ints, bools) = (b.local(f, n as u32), b.local(i, n as u32), b.local(t, n as u32));
        let item = b.item();
        let (zero, count, width) = (b.int(0), b.int(n as i32), b.int(lanes as i32));
        let size = b.int((lanes as usize * n) as i32);
        let first = b.bin(BinaryOp::Mul, item, size);
        b.for_(zero, count, |b, k| {
            let at = b.bin(BinaryOp::Mul, k, width);
            let at = b.bin(BinaryOp::Add, at, first);
            let v = b.load(x, at, lanes);
            b.push(Stmt::StoreLocal { local: floats, index: k, value: v });
            let base = b.splat(at, lanes);
            let lane = b.op(i, Op::Lanes);
            let own = b.bin(BinaryOp::Add, base, lane);
            b.push(Stmt::StoreLocal { local: ints, index: k, value: own });
            let nothing = b.float(0.0);
            let nothing = b.splat(nothing, lanes);
            let positive = b.bin(BinaryOp::Gt, v, nothing);
            b.push(Stmt::StoreLocal { local: bools, index: k, value: positive });
        });
        b.for_(zero, size, |b, k| {
            let one = b.int(1);
            let back = b.bin(BinaryOp::Sub, size, k);
            let back = b.bin(BinaryOp::Sub, back, one);
            let to = b.bin(BinaryOp::Add, first, k);
            let v = b.op(F32, Op::LoadLane { local: floats, index: back });
            b.store(y, to, v);
            let v = b.op(I32, Op::LoadLane { local: ints, index: back });
            let p = b.op(BOOL, Op::LoadLane { local: bools, index: k });
            let other = b.op(I32, Op::Select(p, v, k));
            b.store(z, to, other);
        });
        let data = [noise(len, 1.0), BufferData::zeros(Elem::F32, len), BufferData::zeros(Elem::I32, len)];
        compare(&device, &b.done(), &data, 0.0);
    }
}

/// A square of as many vectors as they have lanes changes rows for columns.
#[test]
fn zips_transpose() {
    let device = device();
    for lanes in widths(&device).into_iter().filter(|&n| n > 1) {
        let items = 3;
        let len = items as usize * lanes as usize * lanes as usize;
        let mut b = Build::new("transpose", items);
        let x = b.buffer("x", Elem::F32, len, false);
        let y = b.buffer("y", Elem::F32, len, true);
        let f = ty(Elem::F32, lanes);
        let item = b.item();
        let size = b.int(lanes as i32 * lanes as i32);
        let first = b.bin(BinaryOp::Mul, item, size);
        let places: Vec<_> = (0..lanes)
            .map(|n| {
                let n = b.int(n as i32 * lanes as i32);
                b.bin(BinaryOp::Add, first, n)
            })
            .collect();
        let mut rows: Vec<_> = places.iter().map(|&at| b.load(x, at, lanes)).collect();
        for _ in 0..lanes.ilog2() {
            let (low, high) = rows.split_at(lanes as usize / 2);
            let pairs: Vec<_> = low.iter().copied().zip(high.iter().copied()).collect();
            rows = pairs
                .into_iter()
                .flat_map(|(p, q)| [Half::First, Half::Second].map(|half| b.op(f, Op::Zip(p, q, half))))
                .collect();
        }
        places.iter().zip(&rows).for_each(|(&at, &row)| b.store(y, at, row));
        let data = [noise(len, 1.0), BufferData::zeros(Elem::F32, len)];
        let kernel = b.done();
        compare(&device, &kernel, &data, 0.0);
        let mut run = data.clone();
        foveate_compiler::loops::eval::run(&kernel, &mut run).unwrap();
        let (x, y, n) = (data[0].as_f32().unwrap(), run[1].as_f32().unwrap(), lanes as usize);
        for at in 0..n * n {
            assert_eq!(y[at], x[at % n * n + at / n]);
        }
    }
}
