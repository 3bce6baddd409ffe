//! The loop IR as text, for people and snapshots. Scalar constants are written where they are used.

use super::{Block, BufferId, Half, Kernel, LocalId, Op, RegId, Stmt, Type, ValueId};
use crate::ir::{BinaryOp, Elem, UnaryOp};
use std::fmt::{self, Display, Formatter, Write};

impl Display for ValueId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl Display for RegId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl Display for Type {
    /// `f32` for a scalar, `f32x16` for a vector.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(elem_name(self.elem))?;
        if self.lanes != 1 {
            write!(f, "x{}", self.lanes)?;
        }
        Ok(())
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {} for {} items", self.name, self.items)?;
        for (i, b) in self.buffers.iter().enumerate() {
            let access = if b.written { "out" } else { "in" };
            writeln!(f, "  {access} b{i}.{}: {}[{}]", b.name, elem_name(b.elem), b.len)?;
        }
        for (i, l) in self.locals.iter().enumerate() {
            writeln!(f, "  local l{i}.{}: {}[{}]", l.name, l.ty, l.len)?;
        }
        for (i, ty) in self.regs.iter().enumerate() {
            writeln!(f, "  reg r{i}: {ty}")?;
        }
        let mut constants = vec![None; self.values.len()];
        collect_constants(&self.body, &mut constants);
        Text { kernel: self, constants }.block(f, &self.body, 1)
    }
}

/// The constants of a block and those inside it.
fn collect_constants(block: &Block, out: &mut [Option<f64>]) {
    for stmt in block {
        match stmt {
            Stmt::Let(v, Op::Const(bits)) => {
                if let Some(slot) = out.get_mut(v.0 as usize) {
                    *slot = Some(f64::from_bits(*bits));
                }
            }
            Stmt::For { body, .. } | Stmt::DoWhile { body, .. } => collect_constants(body, out),
            Stmt::If { then, otherwise, .. } => {
                collect_constants(then, out);
                collect_constants(otherwise, out);
            }
            _ => {}
        }
    }
}

/// The name of an element type.
pub(super) fn elem_name(elem: Elem) -> &'static str {
    match elem {
        Elem::F64 => "f64",
        Elem::F32 => "f32",
        Elem::Bf16 => "bf16",
        Elem::F16 => "f16",
        Elem::I32 => "i32",
        Elem::U32 => "u32",
        Elem::Bool => "bool",
    }
}

/// The name of a pointwise operation.
fn unary_name(op: UnaryOp) -> &'static str {
    match op {
        UnaryOp::Neg => "neg",
        UnaryOp::Exp => "exp",
        UnaryOp::Log => "log",
        UnaryOp::Sqrt => "sqrt",
        UnaryOp::Rsqrt => "rsqrt",
        UnaryOp::Sin => "sin",
        UnaryOp::Cos => "cos",
        UnaryOp::Tanh => "tanh",
        UnaryOp::Erf => "erf",
        UnaryOp::Abs => "abs",
        UnaryOp::Sign => "sign",
        UnaryOp::Floor => "floor",
        UnaryOp::Recip => "recip",
        UnaryOp::Not => "not",
    }
}

/// The sign of an operation, or its name where it is written as a call.
fn binary_text(op: BinaryOp) -> Result<&'static str, &'static str> {
    match op {
        BinaryOp::Add => Ok("+"),
        BinaryOp::Sub => Ok("-"),
        BinaryOp::Mul => Ok("*"),
        BinaryOp::Div => Ok("/"),
        BinaryOp::Max => Err("max"),
        BinaryOp::Min => Err("min"),
        BinaryOp::Pow => Err("pow"),
        BinaryOp::Eq => Ok("=="),
        BinaryOp::Ne => Ok("!="),
        BinaryOp::Lt => Ok("<"),
        BinaryOp::Le => Ok("<="),
        BinaryOp::Gt => Ok(">"),
        BinaryOp::Ge => Ok(">="),
        BinaryOp::And => Ok("&"),
        BinaryOp::Or => Ok("|"),
        BinaryOp::Xor => Ok("^"),
        BinaryOp::Shr => Ok(">>"),
    }
}

struct Text<'a> {
    kernel: &'a Kernel,
    constants: Vec<Option<f64>>,
}

impl Text<'_> {
    fn block(&self, f: &mut Formatter<'_>, block: &Block, depth: usize) -> fmt::Result {
        for stmt in block {
            if !matches!(stmt, Stmt::Let(v, Op::Const(_)) if self.constants.get(v.0 as usize).is_some()) {
                self.stmt(f, stmt, depth)?;
            }
        }
        Ok(())
    }

    fn stmt(&self, f: &mut Formatter<'_>, stmt: &Stmt, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        match stmt {
            Stmt::Let(v, op) => {
                let ty = self.kernel.values.get(v.0 as usize).map_or("?".to_owned(), Type::to_string);
                writeln!(f, "{pad}{v}: {ty} = {}", self.op(op))
            }
            Stmt::Set(r, v) => writeln!(f, "{pad}{r} = {}", self.value(*v)),
            Stmt::Store { buffer, index, value } => {
                writeln!(f, "{pad}{}[{}] = {}", self.buffer(*buffer), self.value(*index), self.value(*value))
            }
            Stmt::Scatter { buffer, index, value } => {
                writeln!(f, "{pad}{}[each {}] = {}", self.buffer(*buffer), self.value(*index), self.value(*value))
            }
            Stmt::Prefetch { buffer, index } => {
                writeln!(f, "{pad}prefetch {}[{}]", self.buffer(*buffer), self.value(*index))
            }
            Stmt::StoreLocal { local, index, value } => {
                writeln!(f, "{pad}{}[{}] = {}", self.local(*local), self.value(*index), self.value(*value))
            }
            Stmt::For { var, lo, hi, body } => {
                writeln!(f, "{pad}for {var} in {}..{} {{", self.value(*lo), self.value(*hi))?;
                self.block(f, body, depth + 1)?;
                writeln!(f, "{pad}}}")
            }
            Stmt::If { cond, then, otherwise } => {
                writeln!(f, "{pad}if {} {{", self.value(*cond))?;
                self.block(f, then, depth + 1)?;
                if !otherwise.is_empty() {
                    writeln!(f, "{pad}}} else {{")?;
                    self.block(f, otherwise, depth + 1)?;
                }
                writeln!(f, "{pad}}}")
            }
            Stmt::DoWhile { body, again } => {
                writeln!(f, "{pad}do {{")?;
                self.block(f, body, depth + 1)?;
                writeln!(f, "{pad}}} while {again}")
            }
        }
    }

    fn op(&self, op: &Op) -> String {
        let v = |id: &ValueId| self.value(*id);
        match op {
            Op::Item => "item".to_owned(),
            Op::Const(bits) => format!("{}", f64::from_bits(*bits)),
            Op::Splat(a) => format!("splat {}", v(a)),
            Op::Lanes => "lanes".to_owned(),
            Op::Get(r) => r.to_string(),
            Op::Unary(op, a) => format!("{}({})", unary_name(*op), v(a)),
            Op::Binary(op, a, b) => match binary_text(*op) {
                Ok(sign) => format!("{} {sign} {}", v(a), v(b)),
                Err(name) => format!("{name}({}, {})", v(a), v(b)),
            },
            Op::Rem(a, b) => format!("{} % {}", v(a), v(b)),
            Op::Fma(a, b, c) => format!("fma({}, {}, {})", v(a), v(b), v(c)),
            Op::Select(c, a, b) => format!("select({}, {}, {})", v(c), v(a), v(b)),
            Op::Cast(a) => format!("cast {}", v(a)),
            Op::Load { buffer, index } => format!("{}[{}]", self.buffer(*buffer), v(index)),
            Op::Gather { buffer, index } => format!("{}[each {}]", self.buffer(*buffer), v(index)),
            Op::LoadLocal { local, index } => format!("{}[{}]", self.local(*local), v(index)),
            Op::Zip(a, b, Half::First) => format!("zip {}, {} first", v(a), v(b)),
            Op::Zip(a, b, Half::Second) => format!("zip {}, {} second", v(a), v(b)),
            Op::LoadLane { local, index } => format!("{}[lane {}]", self.local(*local), v(index)),
            Op::Extract(a, lane) => format!("{}.{lane}", v(a)),
            Op::Fold(op, a) => format!("fold {} {}", binary_text(*op).unwrap_or_else(|name| name), v(a)),
        }
    }

    fn value(&self, id: ValueId) -> String {
        match self.constants.get(id.0 as usize) {
            Some(Some(c)) => {
                let mut text = String::new();
                let _ = write!(text, "{c}");
                text
            }
            _ => id.to_string(),
        }
    }

    fn buffer(&self, id: BufferId) -> String {
        let name = self.kernel.buffers.get(id.0 as usize).map_or("?", |b| &b.name);
        format!("b{}.{name}", id.0)
    }

    fn local(&self, id: LocalId) -> String {
        let name = self.kernel.locals.get(id.0 as usize).map_or("?", |l| &l.name);
        format!("l{}.{name}", id.0)
    }
}
