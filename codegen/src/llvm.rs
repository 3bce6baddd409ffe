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
use foveate_compiler::ir::{BinaryOp, Elem};
use foveate_compiler::loops::Type;
use pliron_llvm::attributes::ShuffleVectorMaskAttr;
use pliron_llvm::ops::{CallIntrinsicOp, ConstantOp, ShuffleVectorOp};
use pliron_llvm::types::{FuncType, PointerType, VectorType, VectorTypeKind, VoidType};

/// Below this an exponential is 0, and above that infinite.
const EXP_LEAST: f64 = -87.336;
const EXP_MOST: f64 = 89.0;
/// The logarithm of 2 in two parts, of which a float's multiples of the first are exact.
const LN_2: [f64; 2] = [0.693359375, -2.12194440e-4];
/// Coefficients of the exponential between `-ln 2 / 2` and `ln 2 / 2`, lowest first, with the least largest relative error (3e-9, before rounding) of those
/// that begin with `1 + r`.
const EXP: [f64; 7] = [
    1.0,
    1.0,
    0.49999993432001993,
    0.1666652039778942,
    0.04166839080860718,
    0.008368745225373172,
    0.0013814539000057383,
];

impl Emitter<'_> {
    /// Has the line of the element at a position of a buffer brought into the nearest cache; the element may lie outside.
    pub fn prefetch(&self, buffer: Value, index: Value) {
        let element = self.element(buffer, self.index(index));
        let ctx = self.scope.ctx_mut();
        let int = IntegerType::get(ctx, 32, Signedness::Signless);
        // For reading, in the nearest cache, as data.
        let flags = [0, 3, 1].map(|flag| {
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

    /// The exponential of a vector of AVX-512, with a relative error of at most 8e-8: `2^n p(r)` with `x = n ln 2 + r`. What would be subnormal is 0. The
    /// processor's instruction that multiplies by `2^n`, and overflows as it should, leaves half of the work of CubeCL's.
    #[cfg(target_arch = "x86_64")]
    pub fn exp(&self, x: Value, ty: Type) -> Value {
        let filled = |c: f64| self.filled(c, ty);
        let below = self.compare(BinaryOp::Lt, ty.elem, x, filled(EXP_LEAST));
        let inside = self.select(below, filled(EXP_LEAST), x);
        let inside =
            self.select(self.compare(BinaryOp::Gt, ty.elem, inside, filled(EXP_MOST)), filled(EXP_MOST), inside);
        // A float of this size has no places after the point.
        let whole = filled(1.5 * (1u64 << 23) as f64);
        let rounded = self.fma(inside, filled(std::f64::consts::LOG2_E), whole);
        let n = self.binary(BinaryOp::Sub, ty, rounded, whole);
        let r = LN_2.iter().fold(inside, |r, &part| self.fma(n, filled(-part), r));
        let (&last, rest) = EXP.split_last().expect("a polynomial has coefficients");
        let p = rest.iter().rev().fold(filled(last), |sum, &c| self.fma(sum, r, filled(c)));
        let scaled = self.scaled(p, n, ty);
        self.select(below, filled(0.0), scaled)
    }

    /// `a 2^n` in a vector of AVX-512, of a whole `n`.
    #[cfg(target_arch = "x86_64")]
    fn scaled(&self, a: Value, n: Value, ty: Type) -> Value {
        let constant = |bits: u32, value: u32| {
            let int = IntegerType::get(self.scope.ctx_mut(), bits, Signedness::Signless);
            let attribute = IntegerAttr::new(int, APInt::from_u32(value, bw(bits as usize)));
            let op = ConstantOp::new(self.scope.ctx_mut(), Box::new(attribute));
            self.scope.register(&op);
            (int, op.get_result(self.scope.ctx()))
        };
        // All lanes, rounded as everything is.
        let ((mask, all), (mode, current)) = (constant(16, 0xffff), constant(32, 4));
        let ctx = self.scope.ctx_mut();
        let elem = FP32Type::get(ctx).into();
        let vector = VectorType::get(ctx, elem, ty.lanes.into(), VectorTypeKind::Fixed).into();
        let types = vec![vector, vector, vector, mask.into(), mode.into()];
        let ty_of = FuncType::get(ctx, vector, types, false);
        let name = "llvm.x86.avx512.mask.scalef.ps.512".into();
        let scaled = self.push(&CallIntrinsicOp::new(ctx, name, ty_of, vec![a, n, a, all, current]));
        let ty = vectorized(self.scope.ctx(), storage_elem(Elem::F32), ty.lanes);
        op!(self, ReinterpretCastOp, ty, scaled)
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
