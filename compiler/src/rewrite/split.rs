//! Splitting variables: one that is read through `c / D` and `c % D` becomes a pair `(h, d)` with `c = h D + d`, so that divisions vanish;
//! a dimension that is written as `h D + d` becomes two.

use super::{Cx, each_function, walk};
use crate::ir::{Atom, Clause, Definition, Expr, Index, Node, Pred, Program, Reduction, Stmt, VarId};

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
            cx.function.body[at] = Stmt::Define(d.clone());
        }
        split_dimensions(cx, at, d);
    }
}

/// A dimension that a definition's clause merges from several variables becomes one dimension for each: the same elements in the same order. Later reads divide, and
/// are split in their turn. Results and what calls take or give keep their shapes.
fn split_dimensions(cx: &mut Cx, at: usize, mut d: Definition) {
    let shared = cx.function.results.iter().any(|r| r.tensor == d.tensor)
        || cx.function.body.iter().any(|s| !matches!(s, Stmt::Define(_)) && s.reads().contains(&d.tensor));
    let [clause] = d.clauses.as_mut_slice() else { return };
    let Some(merged): Option<Vec<Vec<VarId>>> = clause.at.iter().map(|i| parts(cx, i)).collect() else { return };
    if shared || merged.iter().all(|vars| vars.len() == 1) {
        return;
    }
    let old = cx.function.tensor(d.tensor).clone();
    let covers = |(vars, axis): (&Vec<VarId>, &crate::ir::AxisId)| {
        cx.points(vars) == cx.axes[axis.index()].size as f64 && !vars.is_empty()
    };
    if !merged.iter().zip(&old.dims).all(covers) {
        return;
    }
    let vars: Vec<VarId> = merged.iter().flatten().copied().collect();
    let dims = vars.iter().map(|&v| cx.function.var(v).axis).collect();
    let tensor = cx.function.new_tensor(old.name.clone(), old.elem, dims, old.span);
    clause.at = vars.iter().map(|&v| v.into()).collect();
    let was = std::mem::replace(&mut d.tensor, tensor);
    cx.function.body[at] = Stmt::Define(d);
    cx.fired("split dimensions", tensor, format!("stored over {}", cx.names(&vars)));
    for later in at + 1..cx.function.body.len() {
        if !cx.function.body[later].reads().contains(&was) {
            continue;
        }
        let Stmt::Define(reader) = &cx.function.body[later] else { continue };
        let mut reader = reader.clone();
        let sizes = cx.sizes();
        let mut f = |e: Expr| {
            let Node::Read { tensor: t, at, bounds } = &*e.node else { return e };
            if *t != was {
                return e;
            }
            let mut place = Vec::new();
            for (i, vars) in at.iter().zip(&merged) {
                let mut step: i64 = vars.iter().map(|&v| cx.size(v)).product();
                for (n, &v) in vars.iter().enumerate() {
                    step /= cx.size(v);
                    let whole = i.div(step, &sizes);
                    // The outermost keeps what tells a read outside.
                    place.push(if n == 0 { whole } else { whole.modulo(cx.size(v), &sizes) });
                }
            }
            Expr::new(e.elem, Node::Read { tensor, at: place, bounds: *bounds })
        };
        for c in &mut reader.clauses {
            c.body = walk::rewrite(&c.body, &mut f);
            c.at = c.at.iter().map(|i| walk::rewrite_index(i, &mut f)).collect();
        }
        cx.function.body[later] = Stmt::Define(reader);
    }
}

/// The variables of a row-major merge, outermost first.
fn parts(cx: &Cx, i: &Index) -> Option<Vec<VarId>> {
    let mut terms: Vec<(VarId, i64)> = Vec::new();
    for (a, k) in &i.terms {
        match a {
            Atom::Var(v) => terms.push((*v, *k)),
            _ => return None,
        }
    }
    terms.sort_by_key(|(_, k)| *k);
    let mut span = 1;
    for &(v, k) in &terms {
        if k != span {
            return None;
        }
        span *= cx.size(v);
    }
    (i.offset == 0).then(|| terms.iter().rev().map(|(v, _)| *v).collect())
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
