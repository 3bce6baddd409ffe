//! The exponential and the error function in vectors of AVX-512, with instructions that CubeCL has no operations for.

use crate::emit::{Emitter, op, storage_elem, vectorized};
use cubecl::ir::dialect::general::ReinterpretCastOp;
use cubecl::ir::pliron::builtin::attributes::IntegerAttr;
use cubecl::ir::pliron::builtin::op_interfaces::OneResultInterface;
use cubecl::ir::pliron::builtin::types::{FP32Type, IntegerType, Signedness};
use cubecl::ir::pliron::utils::apint::{APInt, bw};
use cubecl::ir::pliron::value::Value;
use foveate_compiler::ir::{BinaryOp, Elem, UnaryOp};
use foveate_compiler::loops::Type;
use pliron_llvm::ops::{CallIntrinsicOp, ConstantOp};
use pliron_llvm::types::{FuncType, VectorType, VectorTypeKind};
use std::f64::consts::{FRAC_2_SQRT_PI, PI};
use std::sync::LazyLock;

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

/// A float of this size has no places after the point: added to another one, that is rounded to a whole number, which the lowest places then are.
const WHOLE: f64 = 1.5 * (1u64 << 23) as f64;

/// How wide the pieces are in which vectors of AVX-512 have the error function, one for each lane of a table.
const ERF_PIECE: f64 = 0.25;
/// Their number, the lanes of a table, and the terms of their polynomials.
const PIECES: usize = 16;
const PIECE_TERMS: usize = 5;
/// The coefficients of all pieces, those of the lowest power first: of the polynomials that have the right values at Chebyshev's points, where the error
/// comes near the least that it can be.
static ERF_PIECES: LazyLock<[[f64; PIECES]; PIECE_TERMS]> = LazyLock::new(|| {
    let mut tables = [[0.0; PIECES]; PIECE_TERMS];
    for piece in 0..PIECES {
        let of = |r: f64| {
            let x = piece as f64 * ERF_PIECE + r;
            if x == 0.0 { FRAC_2_SQRT_PI } else { libm::erf(x) / x }
        };
        for (table, c) in tables.iter_mut().zip(through(of, ERF_PIECE / 2.0)) {
            table[piece] = c;
        }
    }
    tables
});

/// The polynomial that has a function's values at Chebyshev's points of `-end..end`, its lowest coefficient first.
fn through(of: impl Fn(f64) -> f64, end: f64) -> [f64; PIECE_TERMS] {
    let points: [f64; PIECE_TERMS] =
        std::array::from_fn(|k| end * libm::cos(PI * (k as f64 + 0.5) / PIECE_TERMS as f64));
    // Newton's divided differences, then from the innermost bracket outwards.
    let mut differences = points.map(of);
    for step in 1..PIECE_TERMS {
        for k in (step..PIECE_TERMS).rev() {
            differences[k] = (differences[k] - differences[k - 1]) / (points[k] - points[k - step]);
        }
    }
    let mut polynomial = [0.0; PIECE_TERMS];
    for (point, difference) in points.into_iter().zip(differences).rev() {
        for k in (0..PIECE_TERMS).rev() {
            polynomial[k] = if k > 0 { polynomial[k - 1] } else { difference } - point * polynomial[k];
        }
    }
    polynomial
}

impl Emitter<'_> {
    /// The exponential of a vector of AVX-512, with a relative error of at most 8e-8: `2^n p(r)` with `x = n ln 2 + r`. What would be subnormal is 0. The
    /// processor's instruction that multiplies by `2^n`, and overflows as it should, leaves half of the work of CubeCL's.
    pub fn exp(&self, x: Value, ty: Type) -> Value {
        let filled = |c: f64| self.filled(c, ty);
        let below = self.compare(BinaryOp::Lt, ty.elem, x, filled(EXP_LEAST));
        let inside = self.at_most(self.select(below, filled(EXP_LEAST), x), EXP_MOST, ty);
        let whole = filled(WHOLE);
        let rounded = self.fma(inside, filled(std::f64::consts::LOG2_E), whole);
        let n = self.binary(BinaryOp::Sub, ty, rounded, whole);
        let r = LN_2.iter().fold(inside, |r, &part| self.fma(n, filled(-part), r));
        let scaled = self.scaled(self.polynomial(&EXP, r, ty), n, ty);
        self.select(below, filled(0.0), scaled)
    }

    /// The error function of a vector of AVX-512 as `x P(r)`, with a relative error of at most 3e-7: `P` is of the piece that `x` lies in, of degree 4, and `r`
    /// is how far `x` is from its middle. Looking up a coefficient of each lane's piece takes one instruction, and a third of the
    /// multiply-adds of one polynomial for all are left.
    pub fn erf_of_pieces(&self, x: Value, ty: Type) -> Value {
        let filled = |c: f64| self.filled(c, ty);
        let end = (PIECES as f64 - 0.5) * ERF_PIECE;
        // From the end on `P` stays what it is there, and `x P` is 1 or more.
        let size = self.at_most(self.unary(UnaryOp::Abs, ty, x), end * (1.0 - 1e-6), ty);
        let whole = filled(WHOLE);
        let rounded = self.fma(size, filled(1.0 / ERF_PIECE), whole);
        let piece = self.binary(BinaryOp::Sub, ty, rounded, whole);
        let r = self.fma(piece, filled(-ERF_PIECE), size);
        // The lowest places of `rounded` are the number of the piece.
        let term = |k: usize| self.looked_up(&ERF_PIECES[k], rounded);
        let p = (0..PIECE_TERMS - 1).rev().fold(term(PIECE_TERMS - 1), |sum, k| self.fma(sum, r, term(k)));
        self.within_one(self.binary(BinaryOp::Mul, ty, x, p), ty)
    }

    /// `a 2^n` in a vector of AVX-512, of a whole `n`.
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

    /// From a table of 16 floats, for each lane of a vector of AVX-512, the one whose number the lowest four bits of the lane are.
    fn looked_up(&self, table: &[f64; PIECES], at: Value) -> Value {
        let elem = storage_elem(Elem::F32);
        let table = self.construct(elem, table.iter().map(|&c| self.constant(c, Elem::F32)).collect());
        let ints = vectorized(self.scope.ctx(), storage_elem(Elem::I32), 16);
        let at = op!(self, ReinterpretCastOp, ints, at);
        let ctx = self.scope.ctx_mut();
        let (float, int) = (FP32Type::get(ctx).into(), IntegerType::get(ctx, 32, Signedness::Signless).into());
        let [floats, ints] = [float, int].map(|elem| VectorType::get(ctx, elem, 16, VectorTypeKind::Fixed).into());
        let ty = FuncType::get(ctx, floats, vec![floats, ints], false);
        let name = "llvm.x86.avx512.permvar.sf.512".into();
        let found = self.push(&CallIntrinsicOp::new(ctx, name, ty, vec![table, at]));
        let ty = vectorized(self.scope.ctx(), elem, 16);
        op!(self, ReinterpretCastOp, ty, found)
    }
}
