//! Splitting variables: one that is read through `c / D` and `c % D` becomes a pair `(h, d)` with `c = h D + d`, so that divisions vanish.

use super::{Cx, each_function, walk};
use crate::ir::{Atom, Clause, Expr, Index, Node, Pred, Program, Reduction, Stmt, VarId};

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut function);
}

fn function(cx: &mut Cx) {
    for at in 0..cx.function.body.len() {
        let Stmt::Define(d) = &cx.function.body[at] else { continue };
        let mut d = d.clone();
        let mut changed = false;
        for c in &mut d.clauses {
            while let Some(new) = split_clause(cx, c) {
                cx.fired("split variables", d.tensor, new.1);
                *c = new.0;
                changed = true;
            }
            while let Some((body, reason)) = split_bound(cx, &c.body) {
                cx.fired("split variables", d.tensor, reason);
                c.body = body;
                changed = true;
            }
        }
        if changed {
            cx.function.body[at] = Stmt::Define(d);
        }
    }
}

/// Calls its argument on every index of a clause or reduction.
type Visit<'a> = &'a dyn Fn(&mut dyn FnMut(&Index));

/// The divisor by which some index divides the variable, the smallest first.
fn divisor(cx: &Cx, v: VarId, visit: Visit) -> Option<i64> {
    let n = cx.size(v);
    let mut found: Option<i64> = None;
    visit(&mut |i| {
        divisions(i, &mut |inner, k| {
            let alone = inner.terms.len() == 1 && inner.coefficient(v) == 1 && inner.offset % k == 0;
            if alone && k < n && n % k == 0 && found.is_none_or(|f| k < f) {
                found = Some(k);
            }
        })
    });
    found
}

/// Calls `f` on every division and modulo.
fn divisions(i: &Index, f: &mut dyn FnMut(&Index, i64)) {
    for (a, _) in &i.terms {
        match a {
            Atom::Var(_) => {}
            Atom::Div(e, k) | Atom::Mod(e, k) => {
                f(e, *k);
                divisions(e, f);
            }
            Atom::Clamp(e, ..) => divisions(e, f),
            Atom::Data(e) => walk::visit_indices(e, &mut |i| divisions(i, f)),
        }
    }
}

/// `v = h k + d`: the new variables and the index.
fn pair(cx: &mut Cx, v: VarId, k: i64) -> (VarId, VarId, Index) {
    let name = cx.function.var(v).name.clone();
    let h = cx.fresh_sized(&format!("{name}.outer"), cx.size(v) / k);
    let d = cx.fresh_sized(&format!("{name}.inner"), k);
    (h, d, Index::from(h).scale(k).add(&d.into()))
}

fn reason(cx: &Cx, v: VarId, k: i64) -> String {
    format!("{} = {} * {k} + inner", cx.function.var(v).name, cx.size(v) / k)
}

fn split_clause(cx: &mut Cx, c: &Clause) -> Option<(Clause, String)> {
    let (v, k) = c.vars.iter().find_map(|&v| {
        divisor(cx, v, &|f| {
            walk::visit_indices(&c.body, f);
            c.at.iter().for_each(f);
        })
        .map(|k| (v, k))
    })?;
    let why = reason(cx, v, k);
    let (h, d, index) = pair(cx, v, k);
    let sizes = cx.sizes();
    let f = |o: VarId| (o == v).then(|| index.clone());
    let vars = c.vars.iter().flat_map(|&o| if o == v { vec![h, d] } else { vec![o] }).collect();
    let at = c.at.iter().map(|i| i.subst(&f, &sizes)).collect();
    Some((Clause { vars, at, body: c.body.subst_vars(&f, &sizes) }, why))
}

/// Splits a variable of the first reduction that has one to split. The position that `argmax` gives is row-major over the variables, so the pair keeps it.
fn split_bound(cx: &mut Cx, e: &Expr) -> Option<(Expr, String)> {
    if let Node::Reduce(r) = &*e.node {
        let found = r.vars.iter().find_map(|&v| {
            divisor(cx, v, &|f| {
                walk::visit_indices(&r.body, f);
                walk::visit_pred_indices(&r.guard, f);
            })
            .map(|k| (v, k))
        });
        if let Some((v, k)) = found {
            let why = reason(cx, v, k);
            let (h, d, index) = pair(cx, v, k);
            let sizes = cx.sizes();
            let f = |o: VarId| (o == v).then(|| index.clone());
            let vars = r.vars.iter().flat_map(|&o| if o == v { vec![h, d] } else { vec![o] }).collect();
            let guard: Pred = r.guard.subst(&f, &sizes);
            let body = r.body.subst_vars(&f, &sizes);
            let node = Node::Reduce(Reduction { op: r.op, vars, guard, body });
            return Some((Expr { elem: e.elem, node: Box::new(node) }, why));
        }
    }
    let mut out = None;
    let new = e.map_children(&mut |c| {
        if out.is_none()
            && let Some((e, why)) = split_bound(cx, c)
        {
            out = Some(why);
            return e;
        }
        c.clone()
    });
    out.map(|why| (new, why))
}
