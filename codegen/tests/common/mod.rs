//! A small builder of kernels, and the comparison of a device with the evaluator.
#![allow(dead_code, missing_docs)]

use foveate_codegen::Device;
use foveate_compiler::ir::{BinaryOp, Elem, UnaryOp};
use foveate_compiler::loops::eval::{self, BufferData};
use foveate_compiler::loops::{Block, Buffer, BufferId, Kernel, Local, LocalId, Op, RegId, Stmt, Type, ValueId};

pub const fn ty(elem: Elem, lanes: u8) -> Type {
    Type { elem, lanes }
}
pub const F32: Type = ty(Elem::F32, 1);
pub const I32: Type = ty(Elem::I32, 1);
pub const U32: Type = ty(Elem::U32, 1);
pub const BOOL: Type = ty(Elem::Bool, 1);

/// Builds a kernel; statements go to the innermost open block.
pub struct Build {
    pub kernel: Kernel,
    open: Vec<Block>,
}

impl Build {
    pub fn new(name: &str, items: u32) -> Build {
        let kernel = Kernel {
            name: name.into(),
            buffers: vec![],
            locals: vec![],
            values: vec![],
            regs: vec![],
            items,
            body: vec![],
        };
        Build { kernel, open: vec![vec![]] }
    }
    pub fn done(mut self) -> Kernel {
        assert_eq!(self.open.len(), 1);
        self.kernel.body = self.open.pop().unwrap();
        self.kernel
    }
    pub fn buffer(&mut self, name: &str, elem: Elem, len: usize, written: bool) -> BufferId {
        self.kernel.buffers.push(Buffer { name: name.into(), elem, len, written });
        BufferId(self.kernel.buffers.len() as u32 - 1)
    }
    pub fn local(&mut self, ty: Type, len: u32) -> LocalId {
        self.kernel.locals.push(Local { name: "l".into(), ty, len });
        LocalId(self.kernel.locals.len() as u32 - 1)
    }
    pub fn reg(&mut self, ty: Type) -> RegId {
        self.kernel.regs.push(ty);
        RegId(self.kernel.regs.len() as u32 - 1)
    }
    pub fn push(&mut self, stmt: Stmt) {
        self.open.last_mut().unwrap().push(stmt);
    }
    fn new_value(&mut self, ty: Type) -> ValueId {
        self.kernel.values.push(ty);
        ValueId(self.kernel.values.len() as u32 - 1)
    }
    pub fn ty(&self, v: ValueId) -> Type {
        self.kernel.values[v.0 as usize]
    }
    pub fn op(&mut self, ty: Type, op: Op) -> ValueId {
        let v = self.new_value(ty);
        self.push(Stmt::Let(v, op));
        v
    }
    pub fn item(&mut self) -> ValueId {
        self.op(I32, Op::Item)
    }
    pub fn int(&mut self, i: i32) -> ValueId {
        self.op(I32, Op::Const((i as f64).to_bits()))
    }
    pub fn float(&mut self, x: f64) -> ValueId {
        self.op(F32, Op::Const(x.to_bits()))
    }
    pub fn splat(&mut self, v: ValueId, lanes: u8) -> ValueId {
        let elem = self.ty(v).elem;
        if lanes == 1 { v } else { self.op(ty(elem, lanes), Op::Splat(v)) }
    }
    pub fn bin(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> ValueId {
        let t = self.ty(a);
        let t = if op.is_comparison() { Type { elem: Elem::Bool, ..t } } else { t };
        self.op(t, Op::Binary(op, a, b))
    }
    pub fn un(&mut self, op: UnaryOp, a: ValueId) -> ValueId {
        let t = self.ty(a);
        self.op(t, Op::Unary(op, a))
    }
    pub fn load(&mut self, buffer: BufferId, index: ValueId, lanes: u8) -> ValueId {
        let elem = self.kernel.buffers[buffer.0 as usize].elem;
        self.op(ty(elem, lanes), Op::Load { buffer, index })
    }
    pub fn store(&mut self, buffer: BufferId, index: ValueId, value: ValueId) {
        self.push(Stmt::Store { buffer, index, value });
    }
    pub fn get(&mut self, reg: RegId) -> ValueId {
        let t = self.kernel.regs[reg.0 as usize];
        self.op(t, Op::Get(reg))
    }
    pub fn set(&mut self, reg: RegId, v: ValueId) {
        self.push(Stmt::Set(reg, v));
    }
    pub fn for_(&mut self, lo: ValueId, hi: ValueId, body: impl FnOnce(&mut Build, ValueId)) {
        let var = self.new_value(I32);
        self.open.push(vec![]);
        body(self, var);
        let body = self.open.pop().unwrap();
        self.push(Stmt::For { var, lo, hi, body });
    }
    pub fn if_(&mut self, cond: ValueId, then: impl FnOnce(&mut Build), otherwise: impl FnOnce(&mut Build)) {
        self.open.push(vec![]);
        then(self);
        let t = self.open.pop().unwrap();
        self.open.push(vec![]);
        otherwise(self);
        let otherwise = self.open.pop().unwrap();
        self.push(Stmt::If { cond, then: t, otherwise });
    }
    pub fn do_while(&mut self, again: RegId, body: impl FnOnce(&mut Build)) {
        self.open.push(vec![]);
        body(self);
        let body = self.open.pop().unwrap();
        self.push(Stmt::DoWhile { body, again });
    }
}

pub fn bytes(data: &BufferData) -> Vec<u8> {
    match data {
        BufferData::F32(v) => v.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        BufferData::I32(v) => v.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        BufferData::U32(v) => v.iter().flat_map(|x| x.to_ne_bytes()).collect(),
    }
}

fn words(bytes: &[u8]) -> Vec<[u8; 4]> {
    bytes.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect()
}

pub fn of_bytes(elem: Elem, bytes: &[u8]) -> BufferData {
    let words = words(bytes);
    match elem {
        Elem::F32 => BufferData::F32(words.into_iter().map(f32::from_ne_bytes).collect()),
        Elem::I32 => BufferData::I32(words.into_iter().map(i32::from_ne_bytes).collect()),
        _ => BufferData::U32(words.into_iter().map(u32::from_ne_bytes).collect()),
    }
}

/// Runs a kernel on a device.
pub fn run_on(device: &Device, kernel: &Kernel, data: &[BufferData]) -> Result<Vec<BufferData>, String> {
    let compiled = device.compile(kernel)?;
    let handles = data
        .iter()
        .map(|d| {
            let h = device.allocate(d.len() * 4);
            if !d.is_empty() {
                device.upload(&h, &bytes(d))?;
            }
            Ok(h)
        })
        .collect::<Result<Vec<_>, String>>()?;
    device.launch(&compiled, &handles.iter().collect::<Vec<_>>())?;
    handles.iter().zip(&kernel.buffers).map(|(h, b)| Ok(of_bytes(b.elem, &device.download(h)?))).collect()
}

/// Runs a kernel on a device and in the evaluator and compares all buffers: integers exactly, floats to `tolerance` (relative, or absolute below 1).
pub fn compare(device: &Device, kernel: &Kernel, data: &[BufferData], tolerance: f32) {
    let mut want = data.to_vec();
    eval::run(kernel, &mut want).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    let got = run_on(device, kernel, data).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    for (b, (want, got)) in want.iter().zip(&got).enumerate() {
        match (want, got) {
            (BufferData::F32(want), BufferData::F32(got)) => {
                for (i, (w, g)) in want.iter().zip(got).enumerate() {
                    let same = w == g || (w.is_nan() && g.is_nan());
                    let close = (w - g).abs() <= tolerance * w.abs().max(1.0);
                    assert!(same || close, "buffer {b}, element {i}: device {g}, evaluator {w}\n{kernel}");
                }
            }
            (want, got) => assert_eq!(want, got, "buffer {b}\n{kernel}"),
        }
    }
}

/// Evenly spread, irregular numbers in -range..range.
pub fn noise(len: usize, range: f32) -> BufferData {
    let mut state = 0x2545_F491u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    BufferData::F32((0..len).map(|_| next() * range).collect())
}
