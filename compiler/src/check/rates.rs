//! Numbers with a fraction among arguments: rates, which differ from block to block.
//!
//! Modules do little with a rate at compile time but ask whether it is above 0 or below 1. So one that was looked at for a rate need not be
//! looked at again for another on the same side of both, as long as it asked for no more than that; whether it did is watched here.

use foveate_dsl::ast::{BinaryOp, Expr, ExprKind};

use super::elaborator::Elaborator;
use super::instance::collect_names;
use super::statics::bare_name;
use super::value::{Env, Static};

/// On which side of 0 and 1 a rate is.
pub(super) fn band(x: f64) -> &'static str {
    match x {
        _ if x < 0.0 => "below 0",
        0.0 => "0",
        _ if x < 1.0 => "between",
        1.0 => "1",
        _ => "above 1",
    }
}

impl Elaborator<'_> {
    /// Takes notice of a comparison that tells more of a rate than its band.
    pub(crate) fn notice_comparison(&mut self, op: BinaryOp, left: &Expr, right: &Expr, a: &Static, b: &Static) {
        use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
        if !matches!(op, Eq | Ne | Lt | Le | Gt | Ge) || !(a.has_rate() || b.has_rate()) {
            return;
        }
        // A name in a function stands for whatever it is called with.
        let by_name = self.frame.arguments.is_none();
        let of_band = |name: &Expr, bound: &Expr| by_name && bare_name(name).is_some() && is_0_or_1(bound);
        self.exact |= !of_band(left, right) && !of_band(right, left);
    }

    /// Takes notice of a rate that is computed from others: what is asked of it is more than the bands of those.
    pub(crate) fn notice_computed(&mut self, env: &Env, e: &Expr, value: &Static) {
        if !value.has_rate() || bare_name(e).is_some() {
            return;
        }
        let mut computed = false;
        collect_names(e, &mut |name| computed |= env.get(name).is_some_and(Static::has_rate));
        self.exact |= computed;
    }
}

fn is_0_or_1(e: &Expr) -> bool {
    match e.kind {
        ExprKind::Int(n) => n == 0 || n == 1,
        ExprKind::Float(x) => x == 0.0 || x == 1.0,
        _ => false,
    }
}
