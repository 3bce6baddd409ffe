//! Operations of LLVM for which CubeCL has none, on the processor.

use crate::emit::{Emitter, op, storage_elem, vectorized};
use cubecl::ir::dialect::general::ReinterpretCastOp;
use cubecl::ir::pliron::builtin::attributes::IntegerAttr;
use cubecl::ir::pliron::builtin::op_interfaces::OneResultInterface;
use cubecl::ir::pliron::builtin::types::{FP32Type, IntegerType, Signedness};
use cubecl::ir::pliron::op::Op;
use cubecl::ir::pliron::operation::Operation;
use cubecl::ir::pliron::utils::apint::{APInt, bw};
use cubecl::ir::pliron::value::Value;
use foveate_compiler::ir::Elem;
use pliron_llvm::attributes::ShuffleVectorMaskAttr;
use pliron_llvm::ops::{CallIntrinsicOp, ConstantOp, ShuffleVectorOp};
use pliron_llvm::types::{FuncType, PointerType, VectorType, VectorTypeKind, VoidType};

impl Emitter<'_> {
    /// Has the line of the element at a position of a buffer brought into a cache of the core; the element may lie outside. Not into the nearest one: rows that
    /// are a multiple of a page apart share few of its places, and would drive each other out.
    pub fn prefetch(&self, buffer: Value, index: Value) {
        let element = self.element(buffer, self.index(index));
        let ctx = self.scope.ctx_mut();
        let int = IntegerType::get(ctx, 32, Signedness::Signless);
        // For reading, in the cache after the nearest one, as data.
        let flags = [0, 2, 1].map(|flag| {
            let attribute = IntegerAttr::new(int, APInt::from_u32(flag, bw(32)));
            let op = ConstantOp::new(self.scope.ctx_mut(), Box::new(attribute));
            self.scope.register(&op);
            op.get_result(self.scope.ctx())
        });
        let ctx = self.scope.ctx_mut();
        let (pointer, void) = (PointerType::get(ctx, 0), VoidType::get(ctx));
        let ty = FuncType::get(ctx, void.into(), vec![pointer.into(), int.into(), int.into(), int.into()], false);
        let operands = std::iter::once(element).chain(flags).collect();
        self.scope.register(&CallIntrinsicOp::new(ctx, "llvm.prefetch.p0".into(), ty, operands));
    }

    /// A vector of floats from the lanes of two, those of the second counted on from those of the first. Taken apart and put together lane by lane it
    /// would be one shuffle only as long as LLVM does not look through several of them.
    pub fn shuffle(&self, a: Value, b: Value, lanes: Vec<i32>) -> Value {
        let ctx = self.scope.ctx_mut();
        let count = lanes.len();
        let elem = FP32Type::get(ctx).into();
        let vector = VectorType::get(ctx, elem, count as u32, VectorTypeKind::Fixed).into();
        // The operands become vectors of LLVM before the operation is looked at; its constructor would ask for them now.
        let op = Operation::new(ctx, ShuffleVectorOp::get_concrete_op_info(), vec![vector], vec![a, b], Vec::new(), 0);
        let op = Operation::get_op::<ShuffleVectorOp>(op, ctx).expect("an operation of the kind that was just made");
        op.set_attr_llvm_shuffle_vector_mask(ctx, ShuffleVectorMaskAttr(lanes));
        let shuffled = self.push(&op);
        let ty = vectorized(self.scope.ctx(), storage_elem(Elem::F32), count as u8);
        op!(self, ReinterpretCastOp, ty, shuffled)
    }
}
