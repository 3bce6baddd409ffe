//! Runs a kernel on the host, item after item, and checks what a device does not: that every access is inside its buffer, that locals are
//! written before they are read, that integer operands are in their domain, and that no item depends on another. Schedules are tested with it.

mod pointwise;

use super::{Block, Half, Kernel, LocalId, Op, RegId, Stmt, Type, ValueId};
use crate::ir::Elem;
use pointwise::{Pointwise, Slot, binary, cast, constant, fma, remainder, select, unary};

/// The contents of a buffer; bools are `U32` 0 and 1.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum BufferData {
    F32(Vec<f32>),
    I32(Vec<i32>),
    U32(Vec<u32>),
}

impl BufferData {
    /// `len` zeros.
    pub fn zeros(elem: Elem, len: usize) -> BufferData {
        match elem {
            Elem::I32 => BufferData::I32(vec![0; len]),
            Elem::U32 | Elem::Bool => BufferData::U32(vec![0; len]),
            _ => BufferData::F32(vec![0.0; len]),
        }
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            BufferData::F32(v) => v.len(),
            BufferData::I32(v) => v.len(),
            BufferData::U32(v) => v.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            BufferData::F32(v) => Some(v),
            _ => None,
        }
    }
    fn holds(&self, elem: Elem) -> bool {
        matches!(
            (self, elem),
            (BufferData::F32(_), Elem::F32)
                | (BufferData::I32(_), Elem::I32)
                | (BufferData::U32(_), Elem::U32 | Elem::Bool)
        )
    }
    /// The elements' bits, taken out.
    fn take_bits(&mut self) -> Vec<u32> {
        match self {
            BufferData::F32(v) => v.iter().map(|x| x.to_bits()).collect(),
            BufferData::I32(v) => v.iter().map(|x| *x as u32).collect(),
            BufferData::U32(v) => std::mem::take(v),
        }
    }
    fn put_bits(&mut self, bits: Vec<u32>) {
        match self {
            BufferData::F32(v) => *v = bits.into_iter().map(f32::from_bits).collect(),
            BufferData::I32(v) => *v = bits.into_iter().map(|x| x as i32).collect(),
            BufferData::U32(v) => *v = bits,
        }
    }
}

/// Runs every work item of a verified kernel. `buffers` are those of the kernel, in its order.
///
/// Errors name the kernel, the item and the access: one outside its buffer or local, a local read before it is written, an element
/// that two items write differently, or that one item writes and another reads, I32 overflow, or a division of I32 whose operands are not
/// a non-negative and a positive number. The contents of written buffers after an error are those reached by then.
pub fn run(kernel: &Kernel, buffers: &mut [BufferData]) -> Result<(), String> {
    super::verify::verify(kernel)?;
    let fail = |e: String| format!("kernel `{}`: {e}", kernel.name);
    if buffers.len() != kernel.buffers.len() {
        return Err(fail(format!("{} buffers given, expected {}", buffers.len(), kernel.buffers.len())));
    }
    for (i, (given, want)) in buffers.iter().zip(&kernel.buffers).enumerate() {
        if !given.holds(want.elem) || given.len() != want.len {
            return Err(fail(format!(
                "buffer b{i}.{} has {} elements, expected {} of {:?}",
                want.name,
                given.len(),
                want.len,
                want.elem
            )));
        }
    }
    let layout = Layout::new(kernel);
    let code = layout.block(&kernel.body);
    let mut machine = Machine {
        kernel,
        memory: vec![0; layout.size],
        written: kernel.locals.iter().map(|l| vec![0; l.len as usize]).collect(),
        buffers: buffers.iter_mut().map(BufferData::take_bits).collect(),
        owners: kernel
            .buffers
            .iter()
            .map(|b| if b.written { vec![Owner::default(); b.len] } else { Vec::new() })
            .collect(),
        item: 0,
    };
    let mut outcome = Ok(());
    for item in 1..=kernel.items {
        machine.item = item;
        outcome = machine.block(&code).map_err(|e| fail(format!("item {}: {e}", item - 1)));
        if outcome.is_err() {
            break;
        }
    }
    for (data, bits) in buffers.iter_mut().zip(machine.buffers) {
        data.put_bits(bits);
    }
    outcome
}

/// Who wrote and who read an element of a written buffer: an item plus one; 0 is nobody.
#[derive(Clone, Copy, Default)]
struct Owner {
    writer: u32,
    /// The first item that read what it had not written itself.
    reader: u32,
    /// Whether another item read it too.
    shared: bool,
}

/// A statement with everything looked up.
enum Code {
    Nothing,
    Item { dst: Slot },
    Const { dst: Slot, bits: u32 },
    Splat { dst: Slot, a: Slot, lanes: usize },
    Lanes { dst: Slot, lanes: usize },
    Copy { dst: Slot, a: Slot, lanes: usize },
    Pointwise { dst: Slot, args: [Slot; 3], lanes: usize, run: Pointwise, value: ValueId },
    Zip { dst: Slot, a: Slot, b: Slot, lanes: usize, from: usize },
    Fold { dst: Slot, a: Slot, lanes: usize, run: Pointwise, scratch: Slot, value: ValueId },
    Load { dst: Slot, buffer: usize, index: Slot, lanes: usize },
    Gather { dst: Slot, buffer: usize, index: Slot, lanes: usize },
    LoadLocal { dst: Slot, local: usize, base: Slot, index: Slot, lanes: usize },
    LoadLane { dst: Slot, local: usize, base: Slot, index: Slot, lanes: usize },
    Store { buffer: usize, index: Slot, value: Slot, lanes: usize },
    Scatter { buffer: usize, index: Slot, value: Slot, lanes: usize },
    StoreLocal { local: usize, base: Slot, index: Slot, value: Slot, lanes: usize },
    For { var: Slot, lo: Slot, hi: Slot, body: Vec<Code> },
    If { cond: Slot, then: Vec<Code>, otherwise: Vec<Code> },
    DoWhile { body: Vec<Code>, again: Slot },
}

/// Where values, registers and locals live: one word a lane.
struct Layout<'a> {
    kernel: &'a Kernel,
    values: Vec<Slot>,
    regs: Vec<Slot>,
    locals: Vec<Slot>,
    /// Scratch for folds.
    scratch: Slot,
    size: usize,
}

impl<'a> Layout<'a> {
    fn new(kernel: &'a Kernel) -> Layout<'a> {
        let mut size = 0;
        let mut place = |words: usize| {
            let at = size;
            size += words;
            at
        };
        let values = kernel.values.iter().map(|t| place(t.lanes as usize)).collect();
        let regs = kernel.regs.iter().map(|t| place(t.lanes as usize)).collect();
        let locals = kernel.locals.iter().map(|l| place(l.len as usize * l.ty.lanes as usize)).collect();
        let scratch = place(u8::MAX as usize);
        Layout { kernel, values, regs, locals, scratch, size }
    }

    fn at(&self, v: ValueId) -> Slot {
        self.values[v.0 as usize]
    }
    fn reg(&self, r: RegId) -> Slot {
        self.regs[r.0 as usize]
    }
    fn local(&self, l: LocalId) -> (usize, Slot) {
        (l.0 as usize, self.locals[l.0 as usize])
    }
    fn ty(&self, v: ValueId) -> Type {
        self.kernel.values[v.0 as usize]
    }
    fn lanes(&self, v: ValueId) -> usize {
        self.ty(v).lanes as usize
    }

    fn block(&self, block: &Block) -> Vec<Code> {
        block.iter().map(|s| self.stmt(s)).collect()
    }

    fn stmt(&self, stmt: &Stmt) -> Code {
        match stmt {
            Stmt::Let(v, op) => self.op(*v, op),
            Stmt::Set(r, v) => Code::Copy { dst: self.reg(*r), a: self.at(*v), lanes: self.lanes(*v) },
            Stmt::Store { buffer, index, value } => Code::Store {
                buffer: buffer.0 as usize,
                index: self.at(*index),
                value: self.at(*value),
                lanes: self.lanes(*value),
            },
            Stmt::Scatter { buffer, index, value } => Code::Scatter {
                buffer: buffer.0 as usize,
                index: self.at(*index),
                value: self.at(*value),
                lanes: self.lanes(*value),
            },
            Stmt::Prefetch { .. } => Code::Nothing,
            Stmt::StoreLocal { local, index, value } => {
                let (local, base) = self.local(*local);
                let lanes = self.lanes(*value);
                Code::StoreLocal { local, base, index: self.at(*index), value: self.at(*value), lanes }
            }
            Stmt::For { var, lo, hi, body } => {
                Code::For { var: self.at(*var), lo: self.at(*lo), hi: self.at(*hi), body: self.block(body) }
            }
            Stmt::If { cond, then, otherwise } => {
                Code::If { cond: self.at(*cond), then: self.block(then), otherwise: self.block(otherwise) }
            }
            Stmt::DoWhile { body, again } => Code::DoWhile { body: self.block(body), again: self.reg(*again) },
        }
    }

    fn op(&self, value: ValueId, op: &Op) -> Code {
        let (dst, lanes, elem) = (self.at(value), self.lanes(value), self.ty(value).elem);
        let pointwise = |args: &[ValueId], run: Pointwise| {
            let mut slots = [0; 3];
            slots.iter_mut().zip(args).for_each(|(s, a)| *s = self.at(*a));
            Code::Pointwise { dst, args: slots, lanes, run, value }
        };
        match op {
            Op::Item => Code::Item { dst },
            Op::Const(bits) => Code::Const { dst, bits: constant(f64::from_bits(*bits), elem) },
            Op::Splat(a) => Code::Splat { dst, a: self.at(*a), lanes },
            Op::Lanes => Code::Lanes { dst, lanes },
            Op::Get(r) => Code::Copy { dst, a: self.reg(*r), lanes },
            Op::Unary(op, a) => pointwise(&[*a], unary(*op, elem)),
            Op::Binary(op, a, b) => pointwise(&[*a, *b], binary(*op, self.ty(*a).elem)),
            Op::Rem(a, b) => pointwise(&[*a, *b], remainder(elem)),
            Op::Fma(a, b, c) => pointwise(&[*a, *b, *c], fma()),
            Op::Select(c, a, b) => pointwise(&[*c, *a, *b], select()),
            Op::Cast(a) => pointwise(&[*a], cast(self.ty(*a).elem, elem)),
            Op::Load { buffer, index } => Code::Load { dst, buffer: buffer.0 as usize, index: self.at(*index), lanes },
            Op::Gather { buffer, index } => {
                Code::Gather { dst, buffer: buffer.0 as usize, index: self.at(*index), lanes }
            }
            Op::LoadLocal { local, index } => {
                let (local, base) = self.local(*local);
                Code::LoadLocal { dst, local, base, index: self.at(*index), lanes }
            }
            Op::LoadLane { local, index } => {
                let lanes = self.kernel.locals[local.0 as usize].ty.lanes as usize;
                let (local, base) = self.local(*local);
                Code::LoadLane { dst, local, base, index: self.at(*index), lanes }
            }
            Op::Extract(a, lane) => Code::Copy { dst, a: self.at(*a) + *lane as usize, lanes: 1 },
            Op::Zip(a, b, half) => {
                let from = if *half == Half::First { 0 } else { lanes / 2 };
                Code::Zip { dst, a: self.at(*a), b: self.at(*b), lanes, from }
            }
            Op::Fold(op, a) => {
                let run = binary(*op, elem);
                Code::Fold { dst, a: self.at(*a), lanes: self.lanes(*a), run, scratch: self.scratch, value }
            }
        }
    }
}

struct Machine<'a> {
    kernel: &'a Kernel,
    memory: Vec<u32>,
    /// The item (plus one) that wrote each position of a local last.
    written: Vec<Vec<u32>>,
    buffers: Vec<Vec<u32>>,
    owners: Vec<Vec<Owner>>,
    /// The running item plus one.
    item: u32,
}

impl Machine<'_> {
    fn block(&mut self, code: &[Code]) -> Result<(), String> {
        code.iter().try_for_each(|c| self.step(c))
    }

    fn int(&self, at: Slot) -> i32 {
        self.memory[at] as i32
    }

    fn step(&mut self, code: &Code) -> Result<(), String> {
        match code {
            Code::Item { dst } => self.memory[*dst] = self.item - 1,
            Code::Const { dst, bits } => self.memory[*dst] = *bits,
            Code::Splat { dst, a, lanes } => {
                let x = self.memory[*a];
                self.memory[*dst..*dst + lanes].fill(x);
            }
            Code::Lanes { dst, lanes } => (0..*lanes).for_each(|i| self.memory[dst + i] = i as u32),
            Code::Nothing => {}
            Code::Copy { dst, a, lanes } => self.memory.copy_within(*a..*a + lanes, *dst),
            Code::Pointwise { dst, args, lanes, run, value } => {
                run(&mut self.memory, *dst, *args, *lanes).map_err(|e| format!("{value}: {e}"))?
            }
            Code::Zip { dst, a, b, lanes, from } => {
                for i in 0..lanes / 2 {
                    self.memory[dst + 2 * i] = self.memory[a + from + i];
                    self.memory[dst + 2 * i + 1] = self.memory[b + from + i];
                }
            }
            Code::Fold { dst, a, lanes, run, scratch, value } => {
                self.memory.copy_within(*a..*a + lanes, *scratch);
                let mut half = lanes / 2;
                while half > 0 {
                    run(&mut self.memory, *scratch, [*scratch, scratch + half, 0], half)
                        .map_err(|e| format!("{value}: {e}"))?;
                    half /= 2;
                }
                self.memory[*dst] = self.memory[*scratch];
            }
            Code::Load { dst, buffer, index, lanes } => {
                let from = self.range(*buffer, *index, *lanes)?;
                for i in 0..*lanes {
                    self.read_mark(*buffer, from + i)?;
                }
                self.memory[*dst..*dst + lanes].copy_from_slice(&self.buffers[*buffer][from..from + lanes]);
            }
            Code::Gather { dst, buffer, index, lanes } => {
                for i in 0..*lanes {
                    let from = self.range(*buffer, index + i, 1)?;
                    self.read_mark(*buffer, from)?;
                    self.memory[dst + i] = self.buffers[*buffer][from];
                }
            }
            Code::LoadLocal { dst, local, base, index, lanes } => {
                let at = self.local(*local, self.int(*index))?;
                self.local_written(*local, at)?;
                self.memory.copy_within(base + at * lanes..base + (at + 1) * lanes, *dst);
            }
            Code::LoadLane { dst, local, base, index, lanes } => {
                let element = self.int(*index);
                let at = self.local(*local, element.div_euclid(*lanes as i32))?;
                self.local_written(*local, at)?;
                self.memory[*dst] = self.memory[base + element as usize];
            }
            Code::StoreLocal { local, base, index, value, lanes } => {
                let at = self.local(*local, self.int(*index))?;
                self.written[*local][at] = self.item;
                self.memory.copy_within(*value..*value + lanes, base + at * lanes);
            }
            Code::Store { buffer, index, value, lanes } => {
                let to = self.range(*buffer, *index, *lanes)?;
                for i in 0..*lanes {
                    self.write(*buffer, to + i, value + i)?;
                }
            }
            Code::Scatter { buffer, index, value, lanes } => {
                for i in 0..*lanes {
                    let to = self.range(*buffer, index + i, 1)?;
                    self.write(*buffer, to, value + i)?;
                }
            }
            Code::For { var, lo, hi, body } => {
                for i in self.int(*lo)..self.int(*hi) {
                    self.memory[*var] = i as u32;
                    self.block(body)?;
                }
            }
            Code::If { cond, then, otherwise } => self.block(if self.memory[*cond] != 0 { then } else { otherwise })?,
            Code::DoWhile { body, again } => loop {
                self.block(body)?;
                if self.memory[*again] == 0 {
                    break;
                }
            },
        }
        Ok(())
    }

    fn local_name(&self, local: usize) -> String {
        format!("local l{local}.{}", self.kernel.locals[local].name)
    }

    fn buffer_name(&self, buffer: usize) -> String {
        format!("buffer b{buffer}.{}", self.kernel.buffers[buffer].name)
    }

    /// Where an access of `lanes` elements begins, if it is inside.
    fn range(&self, buffer: usize, index: Slot, lanes: usize) -> Result<usize, String> {
        let (at, len) = (self.int(index), self.buffers[buffer].len());
        if at >= 0 && at as usize + lanes <= len {
            return Ok(at as usize);
        }
        let end = at as i64 + lanes as i64;
        Err(format!("access {at}..{end} is outside {}, which has {len} elements", self.buffer_name(buffer)))
    }

    fn local_written(&self, local: usize, at: usize) -> Result<(), String> {
        if self.written[local][at] == self.item {
            return Ok(());
        }
        Err(format!("{} is read at {at} before it is written", self.local_name(local)))
    }

    fn local(&self, local: usize, at: i32) -> Result<usize, String> {
        let len = self.written[local].len();
        if at >= 0 && (at as usize) < len {
            return Ok(at as usize);
        }
        Err(format!("position {at} is outside {}, which has {len}", self.local_name(local)))
    }

    /// Notes a read; an element that another item wrote is an error.
    fn read_mark(&mut self, buffer: usize, at: usize) -> Result<(), String> {
        let Some(owner) = self.owners[buffer].get_mut(at) else { return Ok(()) };
        if owner.writer == 0 {
            if owner.reader == 0 {
                owner.reader = self.item;
            }
            owner.shared |= owner.reader != self.item;
        } else if owner.writer != self.item {
            let writer = owner.writer - 1;
            return Err(format!("reads element {at} of {}, which item {writer} wrote", self.buffer_name(buffer)));
        }
        Ok(())
    }

    fn write(&mut self, buffer: usize, at: usize, value: Slot) -> Result<(), String> {
        let new = self.memory[value];
        let old = self.buffers[buffer][at];
        let owner = &mut self.owners[buffer][at];
        let Owner { writer, reader, shared } = *owner;
        if shared || (reader != 0 && reader != self.item) {
            let name = self.buffer_name(buffer);
            return Err(format!("writes element {at} of {name}, which another item reads"));
        }
        if writer != 0 && writer != self.item && old != new {
            let (name, writer) = (self.buffer_name(buffer), writer - 1);
            return Err(format!("writes element {at} of {name}, where item {writer} wrote another value"));
        }
        owner.writer = self.item;
        self.buffers[buffer][at] = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::BinaryOp;
    use crate::loops::{Buffer, BufferId, Local};

    const I: Type = Type { elem: Elem::I32, lanes: 1 };
    const V: Type = Type { elem: Elem::F32, lanes: 4 };

    fn v(i: u32) -> ValueId {
        ValueId(i)
    }
    fn int(i: i32) -> Op {
        Op::Const((i as f64).to_bits())
    }

    /// `y[stride * item .. + 4] = x[.. same] * x`, with a local in between.
    fn square(stride: i32, items: u32) -> Kernel {
        let (x, y) = (BufferId(0), BufferId(1));
        let buffer = |name: &str, written| Buffer { name: name.into(), elem: Elem::F32, len: 16, written };
        Kernel {
            name: "square".into(),
            buffers: vec![buffer("x", false), buffer("y", true)],
            locals: vec![Local { name: "t".into(), ty: V, len: 2 }],
            values: vec![I, I, I, V, V, V, I],
            regs: vec![],
            items,
            body: vec![
                Stmt::Let(v(0), Op::Item),
                Stmt::Let(v(1), int(stride)),
                Stmt::Let(v(2), Op::Binary(BinaryOp::Mul, v(0), v(1))),
                Stmt::Let(v(6), int(1)),
                Stmt::Let(v(3), Op::Load { buffer: x, index: v(2) }),
                Stmt::Let(v(4), Op::Binary(BinaryOp::Mul, v(3), v(3))),
                Stmt::StoreLocal { local: LocalId(0), index: v(6), value: v(4) },
                Stmt::Let(v(5), Op::LoadLocal { local: LocalId(0), index: v(6) }),
                Stmt::Store { buffer: y, index: v(2), value: v(5) },
            ],
        }
    }

    fn buffers() -> Vec<BufferData> {
        vec![BufferData::F32((0..16).map(|i| i as f32).collect()), BufferData::zeros(Elem::F32, 16)]
    }

    #[test]
    fn runs_every_item() {
        let mut data = buffers();
        run(&square(4, 4), &mut data).unwrap();
        assert_eq!(data[1], BufferData::F32((0..16).map(|i| (i * i) as f32).collect()));
        // Overlapping items write equal values.
        run(&square(3, 5), &mut data).unwrap();
    }

    #[test]
    fn reports_accesses_outside() {
        let error = run(&square(4, 5), &mut buffers()).unwrap_err();
        assert_eq!(error, "kernel `square`: item 4: access 16..20 is outside buffer b0.x, which has 16 elements");
    }

    #[test]
    fn reports_conflicting_items() {
        let mut kernel = square(3, 2);
        let unit = v(7);
        kernel.values.extend([Type { elem: Elem::F32, lanes: 1 }, V, V]);
        kernel.body.splice(
            7..7,
            [
                Stmt::Let(unit, Op::Cast(v(0))),
                Stmt::Let(v(8), Op::Splat(unit)),
                Stmt::Let(v(9), Op::Binary(BinaryOp::Add, v(8), v(4))),
                Stmt::StoreLocal { local: LocalId(0), index: v(6), value: v(9) },
            ],
        );
        let error = run(&kernel, &mut buffers()).unwrap_err();
        assert!(error.contains("where item 0 wrote another value"), "{error}");
    }

    #[test]
    fn reports_locals_read_before_written() {
        let mut kernel = square(4, 4);
        kernel.body.remove(6);
        let error = run(&kernel, &mut buffers()).unwrap_err();
        assert!(error.contains("local l0.t is read at 1 before it is written"), "{error}");
    }

    /// `y[item] = lane number item + 1 of a local array of one vector`.
    #[test]
    fn reads_single_lanes_of_locals() {
        let mut kernel = square(0, 3);
        let (at, element) = (v(7), v(8));
        kernel.values.extend([I, Type { elem: Elem::F32, lanes: 1 }]);
        kernel.body.truncate(7);
        kernel.body.extend([
            Stmt::Let(at, Op::Binary(BinaryOp::Add, v(0), v(6))),
            Stmt::Let(element, Op::LoadLane { local: LocalId(0), index: at }),
            Stmt::Store { buffer: BufferId(1), index: v(0), value: element },
        ]);
        kernel.locals[0].len = 1;
        let Stmt::Let(_, op) = &mut kernel.body[3] else { panic!("{:?}", kernel.body[3]) };
        *op = int(0);
        let mut data = buffers();
        run(&kernel, &mut data).unwrap();
        assert_eq!(data[1].as_f32().unwrap()[..3], [0.0, 1.0, 4.0], "\n{kernel}");
        kernel.items = 5;
        let error = run(&kernel, &mut data).unwrap_err();
        assert!(error.contains("position 1 is outside local l0.t, which has 1"), "{error}");
    }

    #[test]
    fn verify_rejects_values_out_of_scope() {
        let mut kernel = square(4, 4);
        let last = kernel.body.pop().unwrap();
        let tail = kernel.body.split_off(4);
        kernel.values.push(I);
        kernel.body.push(Stmt::For { var: v(7), lo: v(1), hi: v(6), body: tail });
        kernel.body.push(last);
        let error = super::super::verify::verify(&kernel).unwrap_err();
        assert!(error.contains("v5 is used where it is not visible"), "{error}");
    }

    #[test]
    fn prints_readably() {
        let text = square(4, 4).to_string();
        assert!(text.starts_with("kernel square for 4 items\n  in b0.x: f32[16]\n  out b1.y: f32[16]\n"), "{text}");
        assert!(text.contains("v2: i32 = v0 * 4\n") && text.contains("b1.y[v2] = v5\n"), "{text}");
    }
}
