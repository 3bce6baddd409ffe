//! Whether a kernel is well formed: every value assigned once and visible where it is used, registers set before they are
//! read, types agreeing, buffers and locals existing. Bounds are not checked here (see [`super::eval`]).

use super::display::elem_name;
use super::{Block, BufferId, Kernel, LocalId, Op, RegId, Stmt, Type, ValueId};
use crate::ir::{BinaryOp, Elem, UnaryOp};

const I32: Type = Type { elem: Elem::I32, lanes: 1 };
const BOOL: Type = Type { elem: Elem::Bool, lanes: 1 };

/// Checks a kernel; the error names the kernel, the statement and what is wrong with it.
pub fn verify(kernel: &Kernel) -> Result<(), String> {
    let fail = |e: String| format!("kernel `{}`: {e}", kernel.name);
    for (what, i, ty) in (kernel.values.iter().enumerate().map(|(i, t)| ("value v", i, t)))
        .chain(kernel.regs.iter().enumerate().map(|(i, t)| ("register r", i, t)))
        .chain(kernel.locals.iter().enumerate().map(|(i, l)| ("local l", i, &l.ty)))
    {
        if !ty.lanes.is_power_of_two() {
            return Err(fail(format!("{what}{i} has {} lanes, expected a power of two", ty.lanes)));
        }
        check_elem(ty.elem).map_err(|e| fail(format!("{what}{i}: {e}")))?;
    }
    for (i, b) in kernel.buffers.iter().enumerate() {
        check_elem(b.elem).map_err(|e| fail(format!("buffer b{i}: {e}")))?;
        if i32::try_from(b.len).is_err() {
            return Err(fail(format!("buffer b{i} has {} elements, more than an i32 index reaches", b.len)));
        }
    }
    if i32::try_from(kernel.items).is_err() {
        return Err(fail(format!("{} work items, more than an i32 counts", kernel.items)));
    }
    let mut checker = Checker {
        kernel,
        assigned: vec![false; kernel.values.len()],
        visible: vec![false; kernel.values.len()],
        set: vec![false; kernel.regs.len()],
    };
    checker.block(&kernel.body).map_err(fail)
}

fn check_elem(elem: Elem) -> Result<(), String> {
    match elem {
        Elem::F32 | Elem::I32 | Elem::U32 | Elem::Bool => Ok(()),
        other => {
            Err(format!("element type {} is not one a kernel has; expected f32, i32, u32 or bool", elem_name(other)))
        }
    }
}

struct Checker<'a> {
    kernel: &'a Kernel,
    /// Assigned anywhere so far.
    assigned: Vec<bool>,
    /// In scope here.
    visible: Vec<bool>,
    /// Registers certainly set here.
    set: Vec<bool>,
}

impl Checker<'_> {
    /// Checks statements in a scope of their own.
    fn block(&mut self, block: &Block) -> Result<(), String> {
        let mut declared = Vec::new();
        for stmt in block {
            self.stmt(stmt, &mut declared).map_err(|e| match stmt {
                // Inner blocks have named their own statement.
                Stmt::For { .. } | Stmt::If { .. } | Stmt::DoWhile { .. } => e,
                other => format!("{e}, in {other:?}"),
            })?;
        }
        for v in declared {
            self.visible[v as usize] = false;
        }
        Ok(())
    }

    fn declare(&mut self, v: ValueId, declared: &mut Vec<u32>) -> Result<Type, String> {
        let ty = *self.kernel.values.get(v.0 as usize).ok_or_else(|| format!("{v} does not exist"))?;
        if std::mem::replace(&mut self.assigned[v.0 as usize], true) {
            return Err(format!("{v} is assigned twice"));
        }
        self.visible[v.0 as usize] = true;
        declared.push(v.0);
        Ok(ty)
    }

    fn stmt(&mut self, stmt: &Stmt, declared: &mut Vec<u32>) -> Result<(), String> {
        match stmt {
            Stmt::Let(v, op) => {
                let want = self.kernel.values.get(v.0 as usize).ok_or_else(|| format!("{v} does not exist"))?;
                self.op(op, *want)?;
                self.declare(*v, declared)?;
            }
            Stmt::Set(r, v) => {
                let want = self.reg(*r)?;
                self.expect(*v, want)?;
                self.set[r.0 as usize] = true;
            }
            Stmt::Store { buffer, index, value } => {
                let elem = self.buffer(*buffer, true)?;
                self.expect(*index, I32)?;
                let ty = self.ty(*value)?;
                self.same("stored element type", ty.elem, elem)?;
            }
            Stmt::Scatter { buffer, index, value } => {
                let elem = self.buffer(*buffer, true)?;
                let ty = self.ty(*value)?;
                self.same("stored element type", ty.elem, elem)?;
                self.expect(*index, Type { elem: Elem::I32, lanes: ty.lanes })?;
            }
            Stmt::Prefetch { buffer, index } => {
                self.buffer(*buffer, false)?;
                self.expect(*index, I32)?;
            }
            Stmt::StoreLocal { local, index, value } => {
                let ty = self.local(*local)?;
                self.expect(*index, I32)?;
                self.expect(*value, ty)?;
            }
            Stmt::For { var, lo, hi, body } => {
                self.expect(*lo, I32)?;
                self.expect(*hi, I32)?;
                let mut inner = Vec::new();
                let ty = self.declare(*var, &mut inner)?;
                if ty != I32 {
                    return Err(format!("loop variable {var} has type {ty}, expected i32"));
                }
                let before = self.set.clone();
                self.block(body)?;
                // The loop may run no time at all.
                self.set = before;
                self.visible[var.0 as usize] = false;
            }
            Stmt::If { cond, then, otherwise } => {
                self.expect(*cond, BOOL)?;
                let before = self.set.clone();
                self.block(then)?;
                let after_then = std::mem::replace(&mut self.set, before);
                self.block(otherwise)?;
                for (a, b) in self.set.iter_mut().zip(after_then) {
                    *a &= b;
                }
            }
            Stmt::DoWhile { body, again } => {
                self.block(body)?;
                let ty = self.reg(*again)?;
                if ty != BOOL || !self.set[again.0 as usize] {
                    return Err(format!("{again} repeats a loop: it must be a bool that the body has set"));
                }
            }
        }
        Ok(())
    }

    fn op(&self, op: &Op, want: Type) -> Result<(), String> {
        let scalar = Type { lanes: 1, ..want };
        match op {
            Op::Item => self.result(want, I32),
            Op::Const(bits) => {
                if want.lanes != 1 {
                    return Err(format!("a constant is a scalar, here {want}"));
                }
                let c = f64::from_bits(*bits);
                let fits = match want.elem {
                    Elem::I32 => c == (c as i32) as f64,
                    Elem::U32 => c == (c as u32) as f64,
                    Elem::Bool => c == 0.0 || c == 1.0,
                    _ => true,
                };
                if fits { Ok(()) } else { Err(format!("constant {c} is no {want}")) }
            }
            Op::Splat(a) => self.expect(*a, scalar),
            Op::Lanes => self.same("type of the lane numbers", want.elem, Elem::I32),
            Op::Get(r) => {
                let ty = self.reg(*r)?;
                if !self.set[r.0 as usize] {
                    return Err(format!("{r} may be read before it is set"));
                }
                self.result(want, ty)
            }
            Op::Unary(op, a) => {
                self.expect(*a, want)?;
                let legal = match op {
                    UnaryOp::Not => want.elem == Elem::Bool,
                    UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign => matches!(want.elem, Elem::F32 | Elem::I32),
                    _ => want.elem == Elem::F32,
                };
                if legal { Ok(()) } else { Err(format!("{op:?} of {want}")) }
            }
            Op::Binary(op, a, b) => {
                let ty = self.ty(*a)?;
                self.expect(*b, ty)?;
                self.result(want, if op.is_comparison() { Type { elem: Elem::Bool, ..ty } } else { ty })?;
                let legal = match op {
                    BinaryOp::Eq | BinaryOp::Ne => true,
                    BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => matches!(ty.elem, Elem::Bool | Elem::U32),
                    BinaryOp::Shr => ty.elem == Elem::U32,
                    BinaryOp::Pow => ty.elem == Elem::F32,
                    _ => ty.elem != Elem::Bool,
                };
                if legal { Ok(()) } else { Err(format!("{op:?} of {ty}")) }
            }
            Op::Rem(a, b) => {
                self.expect(*a, want)?;
                self.expect(*b, want)?;
                if matches!(want.elem, Elem::I32 | Elem::U32) { Ok(()) } else { Err(format!("remainder of {want}")) }
            }
            Op::Fma(a, b, c) => {
                [a, b, c].iter().try_for_each(|v| self.expect(**v, want))?;
                self.same("element type of fma", want.elem, Elem::F32)
            }
            Op::Select(c, a, b) => {
                self.expect(*c, Type { elem: Elem::Bool, ..want })?;
                self.expect(*a, want)?;
                self.expect(*b, want)
            }
            Op::Cast(a) => {
                let ty = self.ty(*a)?;
                self.result(want, Type { elem: want.elem, ..ty })
            }
            Op::Load { buffer, index } => {
                self.same("loaded element type", want.elem, self.buffer(*buffer, false)?)?;
                self.expect(*index, I32)
            }
            Op::Gather { buffer, index } => {
                self.same("loaded element type", want.elem, self.buffer(*buffer, false)?)?;
                self.expect(*index, Type { elem: Elem::I32, ..want })
            }
            Op::LoadLocal { local, index } => {
                self.result(want, self.local(*local)?)?;
                self.expect(*index, I32)
            }
            Op::LoadLane { local, index } => {
                self.result(want, Type { lanes: 1, ..self.local(*local)? })?;
                self.expect(*index, I32)
            }
            Op::Extract(a, lane) => {
                let ty = self.ty(*a)?;
                if *lane >= ty.lanes {
                    return Err(format!("lane {lane} of {a}, which has {}", ty.lanes));
                }
                self.result(want, Type { lanes: 1, ..ty })
            }
            Op::Zip(a, b, _) => {
                [a, b].iter().try_for_each(|v| self.expect(**v, want))?;
                if want.lanes > 1 { Ok(()) } else { Err("zip of scalars".into()) }
            }
            Op::Fold(op, a) => {
                let ty = self.ty(*a)?;
                self.result(want, Type { lanes: 1, ..ty })?;
                let legal = match op {
                    BinaryOp::Add | BinaryOp::Mul | BinaryOp::Max | BinaryOp::Min => ty.elem != Elem::Bool,
                    BinaryOp::And | BinaryOp::Or => matches!(ty.elem, Elem::Bool | Elem::U32),
                    _ => false,
                };
                if legal { Ok(()) } else { Err(format!("fold of {ty} by {op:?}")) }
            }
        }
    }

    fn ty(&self, v: ValueId) -> Result<Type, String> {
        let ty = self.kernel.values.get(v.0 as usize).ok_or_else(|| format!("{v} does not exist"))?;
        if self.visible[v.0 as usize] { Ok(*ty) } else { Err(format!("{v} is used where it is not visible")) }
    }

    fn expect(&self, v: ValueId, want: Type) -> Result<(), String> {
        let ty = self.ty(v)?;
        if ty == want { Ok(()) } else { Err(format!("{v} has type {ty}, expected {want}")) }
    }

    fn result(&self, declared: Type, is: Type) -> Result<(), String> {
        if declared == is { Ok(()) } else { Err(format!("the value is declared {declared}, but it is {is}")) }
    }

    fn same(&self, what: &str, found: Elem, want: Elem) -> Result<(), String> {
        if found == want {
            Ok(())
        } else {
            Err(format!("{what} is {}, expected {}", elem_name(found), elem_name(want)))
        }
    }

    fn reg(&self, r: RegId) -> Result<Type, String> {
        self.kernel.regs.get(r.0 as usize).copied().ok_or_else(|| format!("register {r} does not exist"))
    }

    fn buffer(&self, b: BufferId, write: bool) -> Result<Elem, String> {
        let buffer = self.kernel.buffers.get(b.0 as usize).ok_or_else(|| format!("buffer b{} does not exist", b.0))?;
        if write && !buffer.written {
            return Err(format!("buffer b{}.{} is stored to but not marked as written", b.0, buffer.name));
        }
        Ok(buffer.elem)
    }

    fn local(&self, l: LocalId) -> Result<Type, String> {
        self.kernel.locals.get(l.0 as usize).map(|l| l.ty).ok_or_else(|| format!("local l{} does not exist", l.0))
    }
}
