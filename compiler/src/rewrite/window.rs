//! Windows: a reduction variable that conditions tie to within a band around another index runs over the band only.
//!
//! If the guard of a reduction over `j` holds only where `lo <= j - s i <= hi`, then `j = s i + lo + o` with `o` in `0..hi - lo + 1`, guarded where that leaves the axis.

use super::fold::{self, Fold};
use super::{Cx, each_function, inline, walk};
use crate::ir::narrow::bounds_under;
use crate::ir::{Atom, BinaryOp, Expr, Index, Monoid, Node, Pred, Program, Reduction, Stmt, TensorId, VarId};

/// The name under which it reports.
pub const NAME: &str = "window";

/// Tells the windows that the author wrote.
pub fn tell(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut |cx| {
        for at in 0..cx.function.body.len() {
            let Some(d) = cx.definition_at(at).cloned() else { continue };
            for c in &d.clauses {
                let Node::Reduce(r) = &*c.body.node else { continue };
                if let Some(text) = written(cx, &c.vars, r) {
                    cx.fired(NAME, d.tensor, format!("{text}, as written"));
                    let site = cx.site(d.tensor);
                    cx.report.algorithm(site, text);
                }
            }
        }
    });
}

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut function);
}

fn function(cx: &mut Cx) {
    for at in 0..cx.function.body.len() {
        let Stmt::Define(d) = &cx.function.body[at] else { continue };
        let d = d.clone();
        for (n, c) in d.clauses.iter().enumerate() {
            let Node::Reduce(r) = &*c.body.node else { continue };
            if matches!(r.op, Monoid::ArgMax | Monoid::ArgMin) {
                continue;
            }
            let mut r = r.clone();
            let mut widths = Vec::new();
            while let Some((next, o)) = narrow(cx, &c.vars, &r) {
                widths.push(o);
                r = next;
            }
            if !widths.is_empty() {
                let sizes: Vec<i64> = widths.iter().map(|&o| cx.size(o)).collect();
                let text = window_text(&sizes);
                cx.fired(NAME, d.tensor, format!("{text} instead of the whole axis"));
                let site = cx.site(d.tensor);
                cx.report.algorithm(site, text);
                let body = Expr { elem: c.body.elem, node: Box::new(Node::Reduce(r)) };
                cx.set_body(at, n, body);
            } else {
                refuse(cx, d.tensor, &c.vars, &r);
            }
        }
    }
}

fn window_text(sizes: &[i64]) -> String {
    let sides: Vec<String> = sizes.iter().map(|s| s.to_string()).collect();
    let total: i64 = sizes.iter().product();
    if sizes.len() > 1 { format!("window of {total} ({})", sides.join(" x ")) } else { format!("window of {total}") }
}

/// How many definitions are looked through for where a body can differ from 0: a gradient of normalised weights has four.
const DEPTH: usize = 5;

/// Where the body can differ from 0, as far as the definitions that it reads say so.
fn support(cx: &mut Cx, e: &Expr, depth: usize) -> Pred {
    match &*e.node {
        Node::Select(p, a, b) if b.as_const() == Some(0.0) => Pred::and([p.clone(), support(cx, a, depth)]),
        Node::Binary(BinaryOp::Mul, a, b) => Pred::and([support(cx, a, depth), support(cx, b, depth)]),
        Node::Binary(BinaryOp::Add | BinaryOp::Sub, a, b) => {
            let (a, b) = (support(cx, a, depth), support(cx, b, depth));
            Pred::and(a.conjuncts().into_iter().filter(|p| b.conjuncts().contains(p)).cloned())
        }
        Node::Binary(BinaryOp::Div, a, _) => support(cx, a, depth),
        Node::Unary(crate::ir::UnaryOp::Neg, a) => support(cx, a, depth),
        Node::Reduce(r) if r.op == Monoid::Sum => {
            let all = Pred::and([r.guard.clone(), support(cx, &r.body, depth)]);
            Pred::and(all.conjuncts().into_iter().filter(|p| !r.vars.iter().any(|&v| p.uses(v))).cloned())
        }
        Node::Read { tensor, at, bounds } if depth < DEPTH => {
            let d = cx.position(*tensor).and_then(|p| cx.definition_at(p)).cloned();
            let Some(d) = d.filter(|d| d.clauses.len() == 1) else {
                return Pred::True;
            };
            match inline::inline(cx, &d, at, *bounds) {
                Some(body) => support(cx, &body, depth + 1),
                None => Pred::True,
            }
        }
        _ => Pred::True,
    }
}

/// Replaces one variable by an offset; gives the offset variable.
fn narrow(cx: &mut Cx, outer: &[VarId], r: &Reduction) -> Option<(Reduction, VarId)> {
    let made = cx.function.vars.len();
    let support = if r.op == Monoid::Sum { support(cx, &r.body, 0) } else { Pred::True };
    let shape = |t| cx.shape(t);
    let fold = Fold { sizes: &cx.sizes(), shape: &shape };
    // Conditions on values say nothing about a band.
    let support = fold.pred(&support, &[]);
    let support = Pred::and(support.conjuncts().into_iter().filter(|p| !reads(p)).cloned());
    let guard = fold.pred(&Pred::and([r.guard.clone(), support]), &[]);
    for &j in &r.vars {
        let n = cx.size(j);
        for &i in outer.iter().filter(|&&i| guard.uses(i) && guard.uses(j)) {
            for s in slopes(&guard, i, j) {
                let distance = Index::from(j).sub(&Index::from(i).scale(s));
                let Some((lo, hi)) = bounds_under(&distance, &guard, &cx.sizes()) else { continue };
                let width = hi - lo + 1;
                if 4 * width > 3 * n {
                    continue;
                }
                let name = format!("{}.offset", cx.function.var(j).name);
                let o = cx.fresh_sized(&name, width);
                let place = Index::from(i).scale(s).add(&o.into()).plus(lo);
                let sizes = cx.sizes();
                let f = |v: VarId| (v == j).then(|| place.clone());
                let guard = Pred::and([Pred::within(&place, 0, n, &sizes), guard.subst(&f, &sizes)]);
                let body = r.body.subst_vars(&f, &sizes);
                let shape = |t| cx.shape(t);
                let guard = Fold { sizes: &sizes, shape: &shape }.pred(&guard, &[]);
                if fold::is_never(&guard) {
                    continue;
                }
                let vars = r.vars.iter().map(|&v| if v == j { o } else { v }).collect();
                return Some((Reduction { op: r.op, vars, guard, body }, o));
            }
        }
    }
    cx.function.vars.truncate(made);
    None
}

fn reads(p: &Pred) -> bool {
    let mut any = false;
    p.visit_reads(&mut |_, _| any = true);
    any
}

/// Candidates for `s` in `j - s i`, from the conditions that tie the two; 1 where they do so through a clamp or division.
fn slopes(guard: &Pred, i: VarId, j: VarId) -> Vec<i64> {
    let mut out = vec![1];
    walk::visit_pred_indices(guard, &mut |x| {
        let (a, b) = (x.coefficient(i), x.coefficient(j));
        if b.abs() == 1 && a != 0 && !out.contains(&(-a * b)) {
            out.push(-a * b);
        }
    });
    out
}

/// A reduction that is a window as the author wrote it: reads at an outer index plus a reduction variable of fewer elements than the
/// dimension has.
fn written(cx: &Cx, outer: &[VarId], r: &Reduction) -> Option<String> {
    let mut tied: Vec<VarId> = Vec::new();
    r.body.visit_reads(&mut |t, at| {
        for (index, &size) in at.iter().zip(&cx.shape(t)) {
            // A window that shifts inward starts at a clamped index.
            let mut around = Vec::new();
            for (a, _) in index.terms.iter().filter(|(_, c)| *c > 0) {
                match a {
                    Atom::Var(v) => around.push(*v),
                    Atom::Clamp(e, ..) => e.visit_vars(&mut |v| around.push(v)),
                    _ => {}
                }
            }
            for &v in r.vars.iter().filter(|v| index.coefficient(**v) > 0 && cx.size(**v) < size) {
                // In a merged axis the outer index steps over all of the inner's range.
                let step = index.coefficient(v) * cx.size(v);
                let near = outer.iter().any(|o| around.contains(o) && index.coefficient(*o) < step);
                if near && !tied.contains(&v) {
                    tied.push(v);
                }
            }
        }
    });
    let sizes: Vec<i64> = r.vars.iter().filter(|v| tied.contains(v)).map(|&v| cx.size(v)).collect();
    (!sizes.is_empty()).then(|| window_text(&sizes))
}

fn refuse(cx: &mut Cx, tensor: TensorId, outer: &[VarId], r: &Reduction) {
    let tied = |j: VarId| outer.iter().any(|&i| r.guard.conjuncts().iter().any(|p| p.uses(i) && p.uses(j)));
    if let Some(&j) = r.vars.iter().find(|&&j| tied(j)) {
        let name = cx.function.var(j).name.clone();
        cx.refused(NAME, tensor, format!("the conditions leave most of {name}'s axis"));
    }
}
