//! Functions of floats that are made of polynomials, on all devices.

use crate::emit::Emitter;
use cubecl::ir::pliron::value::Value;
use foveate_compiler::ir::BinaryOp;
use foveate_compiler::loops::Type;

/// Where the error function of a float is 1.
const ERF_END: f64 = 3.8;
/// Coefficients of `P` in `erf(x) = x P(t)` up to there, with `t = 2 (x / ERF_END)^2 - 1`, lowest first: the least largest relative error (7e-8,
/// before rounding) that a polynomial of this degree can have. In powers of `t` terms do not cancel, and without a division it takes less
/// time than a quotient of two polynomials of degree 5.
const ERF: [f64; 15] = [
    0.372107618476,
    -0.185641292815,
    0.137739820465,
    -0.111182433796,
    0.0908260233832,
    -0.072545454088,
    0.0551085724327,
    -0.0388198382898,
    0.0265081126157,
    -0.0185622599753,
    0.0102767535658,
    -0.0030923368591,
    0.00208687788454,
    -0.00276698547396,
    0.00111471397163,
];

impl Emitter<'_> {
    /// The error function as `x P(t)`, with a relative error of at most 3e-7. Devices have it as an exponential with a fixed absolute error, if at
    /// all: twice the work, and nothing left of it near 0.
    pub fn erf(&self, x: Value, ty: Type) -> Value {
        let product = |a: Value, b: Value| self.binary(BinaryOp::Mul, ty, a, b);
        // From the end on `P` stays what it is there, and `x P` is 1 or more.
        let scale = self.filled(2.0 / (ERF_END * ERF_END), ty);
        let t = self.at_most(self.fma(product(x, x), scale, self.filled(-1.0, ty)), 1.0, ty);
        self.within_one(product(x, self.polynomial(&ERF, t, ty)), ty)
    }

    /// A value, or the bound if that is less.
    pub fn at_most(&self, value: Value, bound: f64, ty: Type) -> Value {
        let bound = self.filled(bound, ty);
        self.select(self.compare(BinaryOp::Gt, ty.elem, value, bound), bound, value)
    }

    /// A value between -1 and 1.
    pub fn within_one(&self, value: Value, ty: Type) -> Value {
        let (value, low) = (self.at_most(value, 1.0, ty), self.filled(-1.0, ty));
        self.select(self.compare(BinaryOp::Lt, ty.elem, value, low), low, value)
    }

    /// A polynomial, its lowest coefficient first.
    pub fn polynomial(&self, coefficients: &[f64], t: Value, ty: Type) -> Value {
        let (&last, rest) = coefficients.split_last().expect("a polynomial has coefficients");
        rest.iter().rev().fold(self.filled(last, ty), |sum, &c| self.fma(sum, t, self.filled(c, ty)))
    }
}
