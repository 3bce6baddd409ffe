//! Values and operations of the loop IR in CubeCL's IR.

use cubecl::ir::dialect::{bitwise, cmp, general, math, vector};
use cubecl::ir::pliron::attribute::boxed_attr_cast;
use cubecl::ir::pliron::builtin::op_interfaces::OneResultInterface;
use cubecl::ir::pliron::builtin::ops::ConstantOp;
use cubecl::ir::pliron::context::Context;
use cubecl::ir::pliron::r#type::TypeHandle;
use cubecl::ir::pliron::value::Value;
use cubecl::ir::types::VectorType;
use cubecl::ir::types::scalar::IndexType;
use cubecl::ir::{ConstantValue, ElemType, FloatKind, IntKind, Scope, UIntKind};
use foveate_compiler::ir::{BinaryOp, Elem, UnaryOp};
use foveate_compiler::loops::{Half, Type};

/// What the generated code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The processor. Scalar I32 values are then computed in 64 bits, the width of an address, so that address arithmetic folds into
    /// the accesses; their values are the same, since I32 arithmetic does not overflow. A pointer to an element may be read as
    /// a pointer to a vector, without alignment, which no other target may.
    pub host: bool,
}

/// Emits into a scope for a target.
#[derive(Clone, Copy)]
pub struct Emitter<'a> {
    pub scope: &'a Scope,
    pub target: Target,
}

/// Appends an operation made by `$new` and gives its result.
macro_rules! op {
    ($emitter:expr, $($new:ident)::+ $(, $arg:expr)*) => {{
        let op = $($new)::+::new($emitter.scope.ctx_mut() $(, $arg)*);
        $emitter.push(&op)
    }};
}
pub(crate) use op;

/// The CubeCL element type of values.
fn elem_type(ty: Type, target: Target) -> ElemType {
    match ty.elem {
        Elem::I32 if ty.lanes == 1 && target.host => ElemType::Int(IntKind::I64),
        Elem::Bool => ElemType::Bool,
        other => storage_elem(other),
    }
}

/// The CubeCL element type in a buffer.
pub fn storage_elem(elem: Elem) -> ElemType {
    match elem {
        Elem::I32 => ElemType::Int(IntKind::I32),
        Elem::U32 | Elem::Bool => ElemType::UInt(UIntKind::U32),
        _ => ElemType::Float(FloatKind::F32),
    }
}

/// `elem`, in vectors where there are several lanes.
pub fn vectorized(ctx: &Context, elem: ElemType, lanes: u8) -> TypeHandle {
    let scalar = elem.to_type(ctx);
    if lanes > 1 { VectorType::get(ctx, scalar, lanes as usize).into() } else { scalar }
}

impl<'a> Emitter<'a> {
    /// The same, at another place.
    pub fn at<'b>(&self, scope: &'b Scope) -> Emitter<'b> {
        Emitter { scope, target: self.target }
    }

    /// Appends an operation.
    pub fn push(&self, op: &dyn OneResultInterface) -> Value {
        self.scope.register_with_result(op)
    }

    /// The type of values.
    pub fn ty(&self, ty: Type) -> TypeHandle {
        vectorized(self.scope.ctx(), elem_type(ty, self.target), ty.lanes)
    }

    fn raw_constant(&self, value: ConstantValue, elem: ElemType) -> Value {
        let attribute = value.as_attribute(self.scope.ctx(), elem);
        let attribute = boxed_attr_cast(attribute).expect("constants of scalar types are typed attributes");
        op!(self, ConstantOp, attribute)
    }

    /// A scalar constant.
    pub fn constant(&self, value: f64, elem: Elem) -> Value {
        let ty = elem_type(Type { elem, lanes: 1 }, self.target);
        let float = !matches!(elem, Elem::I32 | Elem::U32 | Elem::Bool);
        if float && !self.target.host && !(value as f32).is_finite() {
            // WGSL cannot write them.
            let bits = u64::from((value as f32).to_bits());
            let bits = self.raw_constant(ConstantValue::UInt(bits), ElemType::UInt(UIntKind::U32));
            let ty = ty.to_type(self.scope.ctx());
            return op!(self, general::ReinterpretCastOp, ty, bits);
        }
        let value = match elem {
            Elem::I32 => ConstantValue::Int(value as i32 as i64),
            Elem::U32 => ConstantValue::UInt(value as u32 as u64),
            Elem::Bool => ConstantValue::Bool(value != 0.0),
            _ => ConstantValue::Float(value as f32 as f64),
        };
        self.raw_constant(value, ty)
    }

    /// A constant in every lane.
    pub fn filled(&self, value: f64, ty: Type) -> Value {
        self.splat(self.constant(value, ty.elem), ty)
    }

    /// A position in an array.
    pub fn index_constant(&self, value: usize) -> Value {
        self.scope.const_usize(value)
    }

    /// A scalar I32 as a position in an array.
    pub fn index(&self, value: Value) -> Value {
        let ty = IndexType::get(self.scope.ctx()).into();
        op!(self, general::CastOp, ty, value)
    }

    /// A position as a scalar I32.
    pub fn item_number(&self, index: Value) -> Value {
        let ty = self.ty(Type { elem: Elem::I32, lanes: 1 });
        op!(self, general::CastOp, ty, index)
    }

    /// Converts to a CubeCL element type.
    pub fn cast_to(&self, value: Value, elem: ElemType, lanes: u8) -> Value {
        let ty = vectorized(self.scope.ctx(), elem, lanes);
        op!(self, general::CastOp, ty, value)
    }

    /// A conversion of the loop IR.
    pub fn cast(&self, value: Value, from: Type, to: Elem) -> Value {
        if from.elem == to {
            return value;
        }
        // A bool is not made by truncating.
        if to == Elem::Bool {
            let zero = self.filled(0.0, from);
            return self.compare(BinaryOp::Ne, from.elem, value, zero);
        }
        self.cast_to(value, elem_type(Type { elem: to, lanes: from.lanes }, self.target), from.lanes)
    }

    /// A scalar in every lane of `ty`.
    pub fn splat(&self, scalar: Value, ty: Type) -> Value {
        if ty.lanes == 1 {
            return scalar;
        }
        let scalar = self.narrow(scalar, ty.elem);
        let ty = self.ty(ty);
        op!(self, vector::VectorBroadcastOp, ty, scalar)
    }

    /// A scalar as it is in vectors and buffers.
    pub fn narrow(&self, scalar: Value, elem: Elem) -> Value {
        if elem == Elem::I32 && self.target.host {
            self.cast_to(scalar, ElemType::Int(IntKind::I32), 1)
        } else {
            scalar
        }
    }

    /// A scalar from a vector or buffer as it is in computations.
    pub fn widen(&self, scalar: Value, elem: Elem) -> Value {
        if elem == Elem::I32 && self.target.host {
            self.cast_to(scalar, ElemType::Int(IntKind::I64), 1)
        } else {
            scalar
        }
    }

    /// A vector of CubeCL scalars.
    pub fn construct(&self, elem: ElemType, lanes: Vec<Value>) -> Value {
        let ty = vectorized(self.scope.ctx(), elem, lanes.len() as u8);
        let first = op!(self, vector::VectorBroadcastOp, ty, lanes[0]);
        (lanes.into_iter().enumerate().skip(1))
            .fold(first, |vector, (lane, value)| op!(self, vector::CompositeInsertOp, vector, value, lane))
    }

    /// One lane, as it is in vectors.
    pub fn raw_lane(&self, value: Value, lanes: u8, lane: u8) -> Value {
        if lanes == 1 { value } else { self.scope.extract_field(value, lane as usize) }
    }

    /// 0, 1, 2, ... in the lanes.
    pub fn lanes(&self, lanes: u8) -> Value {
        let elem = ElemType::Int(IntKind::I32);
        let scalars = (0..lanes).map(|i| self.raw_constant(ConstantValue::Int(i as i64), elem)).collect();
        if lanes == 1 { self.constant(0.0, Elem::I32) } else { self.construct(elem, scalars) }
    }

    /// One lane as a scalar.
    pub fn extract(&self, value: Value, ty: Type, lane: u8) -> Value {
        if ty.lanes == 1 { value } else { self.widen(self.raw_lane(value, ty.lanes, lane), ty.elem) }
    }

    /// The lanes of two vectors by turns.
    pub fn zip(&self, a: Value, b: Value, ty: Type, half: Half) -> Value {
        let from = if half == Half::First { 0 } else { ty.lanes / 2 };
        #[cfg(feature = "cpu")]
        if self.target.host && ty.elem == Elem::F32 {
            let lanes = (from..from + ty.lanes / 2).flat_map(|i| [i, ty.lanes + i]).map(i32::from);
            return self.shuffle(a, b, lanes.collect());
        }
        let lanes = (from..from + ty.lanes / 2)
            .flat_map(|i| [self.raw_lane(a, ty.lanes, i), self.raw_lane(b, ty.lanes, i)])
            .collect();
        self.construct(elem_type(ty, self.target), lanes)
    }

    /// All lanes combined, by halves.
    pub fn fold(&self, op: BinaryOp, mut value: Value, ty: Type) -> Value {
        let elem = elem_type(Type { lanes: 2, ..ty }, self.target);
        let mut lanes = ty.lanes;
        while lanes > 1 {
            let half = lanes / 2;
            let part = |from: u8| {
                let scalars = (from..from + half).map(|i| self.raw_lane(value, lanes, i)).collect::<Vec<_>>();
                if half == 1 { self.widen(scalars[0], ty.elem) } else { self.construct(elem, scalars) }
            };
            let (low, high) = (part(0), part(half));
            value = self.binary(op, Type { lanes: half, ..ty }, low, high);
            lanes = half;
        }
        value
    }

    /// `cond ? a : b`.
    pub fn select(&self, cond: Value, a: Value, b: Value) -> Value {
        op!(self, general::SelectOp, cond, a, b)
    }

    /// `a * b + c` with one rounding where the device has it.
    pub fn fma(&self, a: Value, b: Value, c: Value) -> Value {
        op!(self, math::FmaOp, a, b, c)
    }

    /// Remainder of non-negative integers.
    pub fn remainder(&self, elem: Elem, a: Value, b: Value) -> Value {
        if elem == Elem::I32 && !self.target.host {
            op!(self, math::SRemOp, a, b)
        } else {
            op!(self, math::URemOp, a, b)
        }
    }

    /// A pointwise operation of one operand.
    pub fn unary(&self, unary: UnaryOp, ty: Type, a: Value) -> Value {
        use UnaryOp::*;
        match unary {
            Not => op!(self, general::BoolNotOp, a),
            Neg if ty.elem == Elem::I32 => op!(self, math::SNegOp, a),
            Neg => op!(self, math::FNegOp, a),
            Abs if ty.elem == Elem::I32 => op!(self, math::SAbsOp, a),
            Abs => op!(self, math::FAbsOp, a),
            Sign => {
                let (zero, one, minus) = (self.filled(0.0, ty), self.filled(1.0, ty), self.filled(-1.0, ty));
                let below = self.select(self.compare(BinaryOp::Lt, ty.elem, a, zero), minus, zero);
                self.select(self.compare(BinaryOp::Gt, ty.elem, a, zero), one, below)
            }
            Sqrt => op!(self, math::SqrtOp, a),
            Rsqrt => op!(self, math::RsqrtOp, a),
            Floor => op!(self, math::FloorOp, a),
            Recip => op!(self, math::RecipOp, a),
            // The CPU's transcendental functions are polynomials on vectors but slow library calls on scalars.
            Exp | Log | Sin | Cos | Tanh if ty.lanes == 1 && self.target.host => {
                let vector = Type { lanes: 4, ..ty };
                let result = self.unary(unary, vector, self.splat(a, vector));
                self.raw_lane(result, 4, 0)
            }
            #[cfg(all(feature = "cpu", target_arch = "x86_64"))]
            Exp if self.has_avx512(ty) => self.exp(a, ty),
            Exp => op!(self, math::ExpOp, a),
            Log => op!(self, math::LogOp, a),
            Sin => op!(self, math::SinOp, a),
            Cos => op!(self, math::CosOp, a),
            Tanh => op!(self, math::TanhOp, a),
            #[cfg(all(feature = "cpu", target_arch = "x86_64"))]
            Erf if self.has_avx512(ty) => self.erf_of_pieces(a, ty),
            Erf => self.erf(a, ty),
        }
    }

    /// Whether the processor has AVX-512 and a type is a vector of that.
    #[cfg(all(feature = "cpu", target_arch = "x86_64"))]
    fn has_avx512(&self, ty: Type) -> bool {
        self.target.host && ty.lanes == 16 && is_x86_feature_detected!("avx512f")
    }

    /// A pointwise operation of two operands of type `ty`.
    pub fn binary(&self, binary: BinaryOp, ty: Type, a: Value, b: Value) -> Value {
        use BinaryOp::*;
        match (binary, ty.elem) {
            (Eq | Ne | Lt | Le | Gt | Ge, elem) => self.compare(binary, elem, a, b),
            (And, Elem::Bool) => op!(self, general::BoolAndOp, a, b),
            (Or, Elem::Bool) => op!(self, general::BoolOrOp, a, b),
            (Xor, Elem::Bool) => op!(self, cmp::BoolNotEqualOp, a, b),
            (And, _) => op!(self, bitwise::BitwiseAndOp, a, b),
            (Or, _) => op!(self, bitwise::BitwiseOrOp, a, b),
            (Xor, _) => op!(self, bitwise::BitwiseXorOp, a, b),
            (Shr, _) => op!(self, bitwise::ShiftRightOp, a, b),
            (Add, Elem::F32) => op!(self, math::FAddOp, a, b),
            (Sub, Elem::F32) => op!(self, math::FSubOp, a, b),
            (Mul, Elem::F32) => op!(self, math::FMulOp, a, b),
            (Div, Elem::F32) => op!(self, math::FDivOp, a, b),
            (Max, Elem::F32) => op!(self, cmp::FMaxOp, a, b),
            (Min, Elem::F32) => op!(self, cmp::FMinOp, a, b),
            (Pow, _) => op!(self, math::PowfOp, a, b),
            (Add, _) => op!(self, math::IAddOp, a, b),
            (Sub, _) => op!(self, math::ISubOp, a, b),
            (Mul, _) => op!(self, math::IMulOp, a, b),
            (Div, Elem::I32) if !self.target.host => op!(self, math::SDivOp, a, b),
            (Div, _) => op!(self, math::UDivOp, a, b),
            (Max, Elem::I32) => op!(self, cmp::SMaxOp, a, b),
            (Min, Elem::I32) => op!(self, cmp::SMinOp, a, b),
            (Max, _) => op!(self, cmp::UMaxOp, a, b),
            (Min, _) => op!(self, cmp::UMinOp, a, b),
        }
    }

    pub fn compare(&self, binary: BinaryOp, elem: Elem, a: Value, b: Value) -> Value {
        use BinaryOp::*;
        match (binary, elem) {
            (Eq, Elem::Bool) => op!(self, cmp::BoolEqualOp, a, b),
            (Ne, Elem::Bool) => op!(self, cmp::BoolNotEqualOp, a, b),
            (Eq, Elem::F32) => op!(self, cmp::FEqualOp, a, b),
            (Ne, Elem::F32) => op!(self, cmp::FNotEqualOp, a, b),
            (Lt, Elem::F32) => op!(self, cmp::FLessThanOp, a, b),
            (Le, Elem::F32) => op!(self, cmp::FLessThanOrEqualOp, a, b),
            (Gt, Elem::F32) => op!(self, cmp::FGreaterThanOp, a, b),
            (_, Elem::F32) => op!(self, cmp::FGreaterThanOrEqualOp, a, b),
            (Eq, _) => op!(self, cmp::IEqualOp, a, b),
            (Ne, _) => op!(self, cmp::INotEqualOp, a, b),
            (Lt, Elem::I32) => op!(self, cmp::SLessThanOp, a, b),
            (Le, Elem::I32) => op!(self, cmp::SLessThanOrEqualOp, a, b),
            (Gt, Elem::I32) => op!(self, cmp::SGreaterThanOp, a, b),
            (_, Elem::I32) => op!(self, cmp::SGreaterThanOrEqualOp, a, b),
            (Lt, _) => op!(self, cmp::ULessThanOp, a, b),
            (Le, _) => op!(self, cmp::ULessThanOrEqualOp, a, b),
            (Gt, _) => op!(self, cmp::UGreaterThanOp, a, b),
            _ => op!(self, cmp::UGreaterThanOrEqualOp, a, b),
        }
    }
}
