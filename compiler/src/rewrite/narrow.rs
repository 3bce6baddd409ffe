//! Narrowing: a sum that conditions make 0 outside a part of one of its definition's indices is computed over that part only, and read as 0 elsewhere.
//! (The gradient of a slice is such a sum: what the slice does not cover gets nothing.)

use super::fold::{self, Fold};
use super::{Cx, each_function};
use crate::ir::narrow::bounds_under;
use crate::ir::{Expr, Index, Monoid, Node, Pred, Program, Reduction, TensorId, VarId};

/// The name under which it reports.
pub const NAME: &str = "narrow";

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut |cx| {
        let mut at = 0;
        while at < cx.function.body.len() {
            let Some(d) = cx.definition_at(at).cloned() else {
                at += 1;
                continue;
            };
            for (n, c) in d.clauses.iter().enumerate() {
                let Node::Reduce(r) = &*c.body.node else { continue };
                if let Some(read) = narrow(cx, at, d.tensor, &c.vars, r) {
                    at += 1;
                    cx.set_body(at, n, read);
                }
            }
            at += 1;
        }
    });
}

/// Outlines the part that is not 0; gives the read of it.
fn narrow(cx: &mut Cx, at: usize, tensor: TensorId, outer: &[VarId], r: &Reduction) -> Option<Expr> {
    if r.op != Monoid::Sum {
        return None;
    }
    let mut vars: Vec<VarId> = outer.iter().copied().filter(|&v| r.body.uses(v) || r.guard.uses(v)).collect();
    let (mut guard, mut body) = (r.guard.clone(), r.body.clone());
    let mut place: Vec<Index> = vars.iter().map(|&v| v.into()).collect();
    let mut told = Vec::new();
    for n in 0..vars.len() {
        let (v, size) = (vars[n], cx.size(vars[n]));
        let own = Pred::and(guard.conjuncts().into_iter().filter(|p| only(p, v)).cloned());
        if own == Pred::True {
            continue;
        }
        let Some((lo, hi)) = bounds_under(&v.into(), &own, &cx.sizes()) else { continue };
        let part = hi - lo + 1;
        if 4 * part > 3 * size {
            continue;
        }
        let name = cx.function.var(v).name.clone();
        let new = cx.fresh_sized(&name, part);
        let moved = Index::from(new).plus(lo);
        let sizes = cx.sizes();
        let f = |o: VarId| (o == v).then(|| moved.clone());
        let shape = |t| cx.shape(t);
        let fold = Fold { sizes: &sizes, shape: &shape };
        guard = fold.pred(&guard.subst(&f, &sizes), &[]);
        body = body.subst_vars(&f, &sizes);
        if fold::is_never(&guard) {
            return None;
        }
        vars[n] = new;
        place[n] = Index::from(v).plus(-lo);
        told.push(format!("{name} in {lo}..{}", hi + 1));
    }
    if told.is_empty() {
        return None;
    }
    let sum = Expr::sum(r.vars.clone(), guard, body);
    let name = cx.function.tensor(tensor).name.clone();
    let part = cx.outline(at, &format!("{name}.part"), &vars, &sum);
    cx.fired(NAME, tensor, format!("0 but for {}", told.join(", ")));
    Some(Expr::read_or_zero(sum.elem, part, place))
}

/// Whether the variable is the only one of a condition, and no value is read.
fn only(p: &Pred, v: VarId) -> bool {
    let (mut vars, mut data) = (0, false);
    p.visit_vars(&mut |o| vars = if o == v && vars >= 0 { vars + 1 } else { -1 });
    p.visit_reads(&mut |_, _| data = true);
    vars > 0 && !data && !matches!(p, Pred::Value(_))
}
