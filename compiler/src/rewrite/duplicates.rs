//! Definitions that say the same, up to the names of their variables, become one; so do equal calls.

use super::{Cx, each_function, walk};
use crate::ir::{ArgRole, Definition, Expr, FuncId, Index, Node, Program, Reduction, Stmt, TensorId, VarId};
use std::collections::{HashMap, HashSet};

/// Work from which a value that some definition has is read from it.
const COSTLY: f64 = 4.0;

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    // A callee that draws random numbers gives others at every site.
    let random: HashSet<FuncId> = program
        .functions
        .iter()
        .enumerate()
        .filter(|(_, f)| f.args.iter().any(|a| a.role == ArgRole::Key))
        .map(|(n, _)| FuncId(n as u32))
        .collect();
    each_function(program, report, &mut |cx| function(cx, &random));
}

type Key = (Vec<i64>, Vec<(Vec<Index>, Vec<i64>, Expr)>);

fn function(cx: &mut Cx, random: &HashSet<FuncId>) {
    let mut seen: HashMap<Key, TensorId> = HashMap::new();
    let mut calls: HashMap<(FuncId, Vec<TensorId>), Vec<TensorId>> = HashMap::new();
    let mut same: HashMap<TensorId, TensorId> = HashMap::new();
    let mut values: HashMap<(Vec<i64>, Expr), (TensorId, Vec<usize>)> = HashMap::new();
    for at in 0..cx.function.body.len() {
        rename(&mut cx.function.body[at], &same);
        reuse(cx, at, &values);
        match &cx.function.body[at] {
            Stmt::Define(d) => {
                let (d, tensor) = (d.clone(), d.tensor);
                let key = (
                    cx.shape(tensor),
                    d.clauses.iter().map(|c| canonical(cx, &c.vars, &c.at, &c.body)).collect::<Vec<_>>(),
                );
                match seen.get(&key) {
                    Some(&first) if cx.function.tensor(first).elem == cx.function.tensor(tensor).elem => {
                        same.insert(tensor, first);
                        let reason = format!("equals {}", cx.function.tensor(first).name);
                        cx.fired("common definition", tensor, reason);
                    }
                    _ => {
                        if let Some((value, order)) = value_of(cx, &d) {
                            values.entry(value).or_insert((tensor, order));
                        }
                        seen.insert(key, tensor);
                    }
                }
            }
            Stmt::Call(c) if !random.contains(&c.function) => {
                let results = c.results.clone();
                match calls.get(&(c.function, c.args.clone())) {
                    Some(first) => same.extend(results.into_iter().zip(first.iter().copied())),
                    None => {
                        calls.insert((c.function, c.args.clone()), results);
                    }
                }
            }
            _ => {}
        }
    }
    // Results keep tensors of their own only where they differ.
    for r in &mut cx.function.results {
        r.tensor = *same.get(&r.tensor).unwrap_or(&r.tensor);
    }
}

/// An expression with its free variables numbered by first occurrence, their sizes, and the variables in that order.
fn numbered(cx: &Cx, e: &Expr) -> ((Vec<i64>, Expr), Vec<VarId>) {
    let vars = walk::free_vars(e);
    let base = cx.function.vars.len() as u32;
    let sizes: Vec<i64> = vars.iter().map(|&v| cx.size(v)).collect();
    let all = |v: VarId| if v.0 < base { cx.size(v) } else { sizes[(v.0 - base) as usize] };
    let f = |v: VarId| vars.iter().position(|&o| o == v).map(|n| Index::from(VarId(base + n as u32)));
    let e = e.subst_vars(&f, &all);
    ((sizes, e), vars)
}

/// The value of a pointwise definition over its own variables, and for each dimension the number of its variable.
fn value_of(cx: &Cx, d: &Definition) -> Option<((Vec<i64>, Expr), Vec<usize>)> {
    let [clause] = d.clauses.as_slice() else { return None };
    if walk::has_reduction(&clause.body) || walk::work(&clause.body, &cx.sizes()) < COSTLY {
        return None;
    }
    let (value, vars) = numbered(cx, &clause.body);
    let place = |i: &Index| i.as_var().and_then(|v| vars.iter().position(|&o| o == v));
    let order: Option<Vec<usize>> = clause.at.iter().map(place).collect();
    order.filter(|o| o.len() == vars.len()).map(|o| (value, o))
}

/// Reads from earlier definitions what a definition would compute again.
fn reuse(cx: &mut Cx, at: usize, values: &HashMap<(Vec<i64>, Expr), (TensorId, Vec<usize>)>) {
    let Some(d) = cx.definition_at(at) else { return };
    let mut d = d.clone();
    let mut used = Vec::new();
    for c in &mut d.clauses {
        let whole = c.body.clone();
        c.body = walk::rewrite(&whole, &mut |e| {
            // The body itself is for whole definitions to compare.
            if e == whole || walk::has_reduction(&e) || walk::work(&e, &cx.sizes()) < COSTLY {
                return e;
            }
            let (value, vars) = numbered(cx, &e);
            let Some((t, order)) = values.get(&value) else { return e };
            if cx.function.tensor(*t).elem != e.elem {
                return e;
            }
            used.push(*t);
            Expr::read(e.elem, *t, order.iter().map(|&n| vars[n].into()).collect())
        });
    }
    if let Some(&t) = used.first() {
        let (tensor, reason) = (d.tensor, format!("reads {}", cx.function.tensor(t).name));
        cx.function.body[at] = Stmt::Define(d);
        cx.fired("common subexpression", tensor, reason);
    }
}

fn rename(s: &mut Stmt, same: &HashMap<TensorId, TensorId>) {
    let new = |t: TensorId| *same.get(&t).unwrap_or(&t);
    if !s.reads().iter().any(|t| same.contains_key(t)) {
        return;
    }
    match s {
        Stmt::Define(d) => {
            let mut f = |mut e: Expr| {
                if let Node::Read { tensor, .. } = &mut *e.node {
                    *tensor = new(*tensor);
                }
                e
            };
            for c in &mut d.clauses {
                c.body = walk::rewrite(&c.body, &mut f);
                c.at = c.at.iter().map(|i| walk::rewrite_index(i, &mut f)).collect();
            }
        }
        Stmt::Call(c) => c.args.iter_mut().for_each(|t| *t = new(*t)),
        Stmt::Components(c) => c.mask = new(c.mask),
    }
}

/// The clause with its variables renamed in the order in which they are bound, and their sizes.
fn canonical(cx: &Cx, vars: &[VarId], at: &[Index], body: &Expr) -> (Vec<Index>, Vec<i64>, Expr) {
    let mut order: Vec<VarId> = Vec::new();
    at.iter().for_each(|i| {
        i.visit_vars(&mut |v| {
            if vars.contains(&v) && !order.contains(&v) {
                order.push(v)
            }
        })
    });
    order.extend(vars.iter().filter(|v| !order.contains(v)).copied().collect::<Vec<_>>());
    // Canonical names start above all that the function uses.
    let base = cx.function.vars.len() as u32;
    let mut sizes: Vec<i64> = order.iter().map(|&v| cx.size(v)).collect();
    let names: Vec<(VarId, Index)> =
        order.iter().enumerate().map(|(n, &v)| (v, Index::from(VarId(base + n as u32)))).collect();
    let all = |v: VarId| if v.0 < base { cx.size(v) } else { sizes[(v.0 - base) as usize] };
    let f = |v: VarId| names.iter().find(|(o, _)| *o == v).map(|(_, i)| i.clone());
    let at = at.iter().map(|i| i.subst(&f, &all)).collect();
    let body = body.subst_vars(&f, &all);
    let body = rename_bound(cx, &body, base, &mut sizes);
    (at, sizes, body)
}

fn rename_bound(cx: &Cx, e: &Expr, base: u32, sizes: &mut Vec<i64>) -> Expr {
    match &*e.node {
        Node::Reduce(r) => {
            let mut names: Vec<(VarId, Index)> = Vec::new();
            for &v in &r.vars {
                names.push((v, Index::from(VarId(base + sizes.len() as u32))));
                sizes.push(cx.size(v));
            }
            let known = sizes.clone();
            let all = |v: VarId| if v.0 < base { cx.size(v) } else { known[(v.0 - base) as usize] };
            let f = |v: VarId| names.iter().find(|(o, _)| *o == v).map(|(_, i)| i.clone());
            let body = r.body.subst_vars(&f, &all);
            let guard = r.guard.subst(&f, &all);
            let vars = names.iter().filter_map(|(_, i)| i.as_var()).collect();
            let body = rename_bound(cx, &body, base, sizes);
            Expr { elem: e.elem, node: Box::new(Node::Reduce(Reduction { op: r.op, vars, guard, body })) }
        }
        _ => e.map_children(&mut |c| rename_bound(cx, c, base, sizes)),
    }
}
