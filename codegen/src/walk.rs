//! The walk over a kernel's statements.

use crate::emit::{Emitter, Target, storage_elem, vectorized};
use crate::strides::Strides;
use crate::wide::LANES;
use cubecl::ir::dialect::branch::{ConditionOp, IfOp, RangeLoopOp, WhileOp};
#[cfg(feature = "wgpu")]
use cubecl::ir::dialect::cmp::ULessThanOp;
use cubecl::ir::dialect::general::{BuiltinAttr, ReadBuiltinOp};
#[cfg(feature = "cpu")]
use cubecl::ir::dialect::math::IAddOp;
use cubecl::ir::pliron::basic_block::BasicBlock;
use cubecl::ir::pliron::context::Ptr;
use cubecl::ir::pliron::value::Value;
use cubecl::ir::types::ArrayType;
use cubecl::ir::types::scalar::IndexType;
use cubecl::ir::{Builtin, OpInserter, Scope};
use cubecl::prelude::KernelBuilder;
#[cfg(feature = "cpu")]
use foveate_compiler::ir::BinaryOp;
use foveate_compiler::ir::Elem;
use foveate_compiler::loops::{Block, BufferId, Kernel, Op, Stmt, Type, ValueId};

/// Writes a whole verified kernel; its buffers become the builder's, in order. If `guarded`, it does nothing at positions that are not work items.
#[cfg(feature = "wgpu")]
pub fn kernel(builder: &mut KernelBuilder, kernel: &Kernel, target: Target, guarded: bool) {
    let wide = crate::wide::buffers(kernel);
    let buffers = buffers(builder, kernel, &wide);
    let emit = Emitter { scope: &builder.scope, target };
    let position = absolute_position(emit);
    let mut walk = Walk { wide, ..Walk::new(emit, kernel, buffers, position) };
    if !guarded {
        walk.block(emit, &kernel.body);
    } else {
        let items = emit.index_constant(kernel.items as usize);
        let inside = emit.push(&ULessThanOp::new(emit.scope.ctx_mut(), position, items));
        walk.branch(emit, inside, &kernel.body, &Vec::new());
    }
}

/// Writes verified kernels of which one is run at a time; their buffers become the builder's, kernel after kernel. One more follows with two u32: the first
/// work item, from which positions count, and the number of the kernel.
#[cfg(feature = "cpu")]
pub fn kernels<'k>(builder: &mut KernelBuilder, kernels: impl IntoIterator<Item = &'k Kernel>, target: Target) {
    let kernels: Vec<(&Kernel, Vec<Value>)> = kernels.into_iter().map(|k| (k, buffers(builder, k, &[]))).collect();
    let call = {
        let ty = storage_elem(Elem::U32).to_type(builder.scope.ctx());
        builder.buffer(ty)
    };
    let scope = &builder.scope;
    let emit = Emitter { scope, target };
    let of_call = |emit: Emitter<'_>, n| emit.load(emit.element(call, emit.index_constant(n)));
    let position = |emit: Emitter<'_>| {
        let first = emit.index(of_call(emit, 0));
        emit.push(&IAddOp::new(emit.scope.ctx_mut(), absolute_position(emit), first))
    };
    if let [(kernel, buffers)] = &kernels[..] {
        return Walk::new(emit, kernel, buffers.clone(), position(emit)).block(emit, &kernel.body);
    }
    let number = of_call(emit, 1);
    for (n, (kernel, buffers)) in kernels.into_iter().enumerate() {
        let wanted = emit.constant(n as f64, Elem::U32);
        let cond = emit.compare(BinaryOp::Eq, Elem::U32, number, wanted);
        let op = IfOp::new(scope.ctx_mut(), cond);
        let then = scope.child(OpInserter::new_at_block_end(op.then_block(scope.ctx())));
        let inside = emit.at(&then);
        Walk::new(inside, kernel, buffers, position(inside)).block(inside, &kernel.body);
        then.terminate_yield();
        scope.child(OpInserter::new_at_block_end(op.else_block(scope.ctx()))).terminate_yield();
        scope.register(&op);
    }
}

/// The buffers of a kernel as the builder's next ones; those that are `wide` as arrays of vectors.
fn buffers(builder: &mut KernelBuilder, kernel: &Kernel, wide: &[bool]) -> Vec<Value> {
    let lanes = |n: usize| if wide.get(n) == Some(&true) { LANES } else { 1 };
    let buffer = |(n, elem)| {
        let ty = vectorized(builder.scope.ctx(), storage_elem(elem), lanes(n));
        builder.buffer(ty)
    };
    kernel.buffers.iter().map(|b| b.elem).enumerate().map(buffer).collect()
}

fn absolute_position(emit: Emitter<'_>) -> Value {
    let ty = IndexType::get(emit.scope.ctx()).into();
    emit.push(&ReadBuiltinOp::new(emit.scope.ctx_mut(), ty, BuiltinAttr(Builtin::AbsolutePos)))
}

struct Walk<'a> {
    kernel: &'a Kernel,
    buffers: Vec<Value>,
    /// Pointers to the registers.
    regs: Vec<Value>,
    /// Pointers to the local arrays.
    locals: Vec<Value>,
    /// Which buffers are arrays of vectors; none, if there is nothing.
    wide: Vec<bool>,
    /// The work item as a position.
    position: Value,
    values: Vec<Option<Value>>,
    strides: Strides,
}

impl Walk<'_> {
    /// Declares the kernel's registers and arrays.
    fn new<'k>(emit: Emitter<'_>, kernel: &'k Kernel, buffers: Vec<Value>, position: Value) -> Walk<'k> {
        let scope = emit.scope;
        let regs = kernel.regs.iter().map(|ty| scope.create_local_mut(emit.ty(*ty), None)).collect();
        let locals = (kernel.locals.iter())
            .map(|l| scope.create_local_mut(ArrayType::get(scope.ctx(), emit.ty(l.ty), l.len as usize), None))
            .collect();
        let values = vec![None; kernel.values.len()];
        Walk { kernel, buffers, regs, locals, wide: Vec::new(), position, values, strides: Strides::default() }
    }

    fn value(&self, id: ValueId) -> Value {
        self.values[id.0 as usize].expect("verified kernels assign values before they use them")
    }

    fn is_wide(&self, buffer: BufferId) -> bool {
        self.wide.get(buffer.0 as usize) == Some(&true)
    }

    fn ty(&self, id: ValueId) -> Type {
        self.kernel.values[id.0 as usize]
    }

    fn block(&mut self, emit: Emitter<'_>, block: &Block) {
        for stmt in block {
            self.stmt(emit, stmt);
        }
    }

    /// Fills a basic block of a branch or loop, up to but without its terminator.
    fn inner(&mut self, emit: Emitter<'_>, at: Ptr<BasicBlock>, block: &Block) -> Scope {
        let scope = emit.scope.child(OpInserter::new_at_block_end(at));
        self.block(emit.at(&scope), block);
        scope
    }

    fn branch(&mut self, emit: Emitter<'_>, cond: Value, then: &Block, otherwise: &Block) {
        let scope = emit.scope;
        let op = IfOp::new(scope.ctx_mut(), cond);
        self.inner(emit, op.then_block(scope.ctx()), then).terminate_yield();
        self.inner(emit, op.else_block(scope.ctx()), otherwise).terminate_yield();
        scope.register(&op);
    }

    fn stmt(&mut self, emit: Emitter<'_>, stmt: &Stmt) {
        let scope = emit.scope;
        match stmt {
            Stmt::Let(id, op) => {
                self.strides.note(*id, self.ty(*id), op);
                let value = self.op(emit, op, self.ty(*id));
                self.values[id.0 as usize] = Some(value);
            }
            Stmt::Set(reg, value) => emit.store(self.regs[reg.0 as usize], self.value(*value)),
            Stmt::Store { buffer, index, value } => {
                let (array, index) = (self.buffers[buffer.0 as usize], self.value(*index));
                match self.is_wide(*buffer) {
                    true => emit.store(emit.vector_element(array, index, LANES), self.value(*value)),
                    false => emit.store_buffer(array, index, self.value(*value), self.ty(*value)),
                }
            }
            Stmt::Scatter { buffer, index, value } => {
                let ty = self.ty(*value);
                let positions = self.positions(emit, *index, ty.lanes);
                emit.store_each(self.buffers[buffer.0 as usize], positions, self.value(*value), ty);
            }
            Stmt::Prefetch { buffer, index } => {
                #[cfg(feature = "cpu")]
                if emit.target.host {
                    emit.prefetch(self.buffers[buffer.0 as usize], self.value(*index));
                }
                #[cfg(not(feature = "cpu"))]
                let _ = (buffer, index);
            }
            Stmt::StoreLocal { local, index, value } => {
                let position = emit.index(self.value(*index));
                let pointer = emit.element(self.locals[local.0 as usize], position);
                emit.store(pointer, self.value(*value));
            }
            Stmt::For { var, lo, hi, body } => {
                let step = emit.constant(1.0, Elem::I32);
                let op = RangeLoopOp::new(scope.ctx_mut(), self.value(*lo), self.value(*hi), step);
                self.values[var.0 as usize] = Some(op.iter_var(scope.ctx()));
                self.inner(emit, op.loop_body(scope.ctx()), body).terminate_yield();
                scope.register(&op);
            }
            Stmt::If { cond, then, otherwise } => self.branch(emit, self.value(*cond), then, otherwise),
            Stmt::DoWhile { body, again } => {
                let op = WhileOp::new(scope.ctx_mut());
                let before = self.inner(emit, op.before_block(scope.ctx()), body);
                let cond = emit.at(&before).load(self.regs[again.0 as usize]);
                before.register(&ConditionOp::new(scope.ctx_mut(), cond));
                self.inner(emit, op.after_block(scope.ctx()), &Vec::new()).terminate_yield();
                scope.register(&op);
            }
        }
    }

    /// The position of every lane.
    fn positions(&self, emit: Emitter<'_>, index: ValueId, lanes: u8) -> Vec<Value> {
        match self.strides.of(index) {
            Some((first, stride)) => emit.neighbours(self.value(first), lanes, stride),
            None => emit.positions(self.value(index), lanes),
        }
    }

    fn op(&mut self, emit: Emitter<'_>, op: &Op, ty: Type) -> Value {
        match op {
            Op::Item => emit.item_number(self.position),
            Op::Const(bits) => emit.constant(f64::from_bits(*bits), ty.elem),
            Op::Splat(a) => emit.splat(self.value(*a), ty),
            Op::Lanes => emit.lanes(ty.lanes),
            Op::Get(reg) => emit.load(self.regs[reg.0 as usize]),
            Op::Unary(op, a) => emit.unary(*op, ty, self.value(*a)),
            Op::Binary(op, a, b) => emit.binary(*op, self.ty(*a), self.value(*a), self.value(*b)),
            Op::Rem(a, b) => emit.remainder(ty.elem, self.value(*a), self.value(*b)),
            Op::Fma(a, b, c) => emit.fma(self.value(*a), self.value(*b), self.value(*c)),
            Op::Select(c, a, b) => emit.select(self.value(*c), self.value(*a), self.value(*b)),
            Op::Cast(a) => emit.cast(self.value(*a), self.ty(*a), ty.elem),
            Op::Load { buffer, index } => {
                let (array, index) = (self.buffers[buffer.0 as usize], self.value(*index));
                match self.is_wide(*buffer) {
                    true if ty.lanes == 1 => emit.lane_element(array, index, LANES),
                    true => emit.load(emit.vector_element(array, index, LANES)),
                    false => emit.load_buffer(array, index, ty),
                }
            }
            Op::Gather { buffer, index } => {
                let (array, positions) = (self.buffers[buffer.0 as usize], self.positions(emit, *index, ty.lanes));
                match self.is_wide(*buffer) {
                    true => {
                        let lanes = positions.into_iter().map(|at| emit.lane_element(array, at, LANES)).collect();
                        emit.lanes_together(lanes, ty)
                    }
                    false => emit.load_each(array, positions, ty),
                }
            }
            Op::LoadLocal { local, index } => {
                let position = emit.index(self.value(*index));
                emit.load(emit.element(self.locals[local.0 as usize], position))
            }
            Op::LoadLane { local, index } => {
                let array = &self.kernel.locals[local.0 as usize];
                emit.load_lane(self.locals[local.0 as usize], array, self.value(*index))
            }
            Op::Extract(a, lane) => emit.extract(self.value(*a), self.ty(*a), *lane),
            Op::Zip(a, b, half) => emit.zip(self.value(*a), self.value(*b), ty, *half),
            Op::Fold(op, a) => emit.fold(*op, self.value(*a), self.ty(*a)),
        }
    }
}
