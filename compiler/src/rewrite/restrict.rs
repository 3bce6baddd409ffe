//! Row restriction: a definition that some reader only reads at a constant index of some dimensions gets a copy without these dimensions for
//! that reader, and the selection travels on through what the copy reads, also into called functions. Worth it where all readers are so, or where
//! the definition is an outer product of data (scores: every pair of rows), of which a schedule would rather not store the whole.

use super::{Cx, Report, inline, walk};
use crate::ir::{ArgRole, Clause, Definition, Expr, FnResult, FuncId, Function, Index, Node, Program, Stmt, TensorId};
use std::collections::{HashMap, HashSet};

/// The name under which it reports.
pub const NAME: &str = "row restriction";

/// Dimensions and the constants at which they are read.
type Rows = Vec<(usize, i64)>;

/// The pass.
pub fn run(program: &mut Program, report: &mut Report) {
    // Callers first, so that what they want of a callee's results is known when the callee's turn comes.
    let mut f = program.functions.len();
    while f > 0 {
        f -= 1;
        let mut cx = Cx { axes: &mut program.axes, function: &mut program.functions[f], report };
        restrict(&mut cx);
        f += into_calls(program, f, report);
    }
}

/// Reads of `tensor` in a statement as constant rows; `None` where it is used otherwise.
fn rows_of_reads(cx: &Cx, s: &Stmt) -> HashMap<TensorId, Option<Vec<Rows>>> {
    let mut out: HashMap<TensorId, Option<Vec<Rows>>> = HashMap::new();
    let mut define = |t: TensorId, at: &[Index]| {
        let rows = rows_of(cx, t, at);
        let entry = out.entry(t).or_insert_with(|| Some(Vec::new()));
        match entry {
            _ if rows.is_empty() => *entry = None,
            Some(list) => list.push(rows),
            None => {}
        }
    };
    match s {
        Stmt::Define(d) => {
            for c in &d.clauses {
                c.at.iter().for_each(|i| i.visit_reads(&mut define));
                c.body.visit_reads(&mut define);
            }
        }
        _ => s.reads().into_iter().for_each(|t| {
            out.insert(t, None);
        }),
    }
    out
}

/// The tensors that some use needs whole.
fn whole(cx: &Cx) -> HashSet<TensorId> {
    let mut out: HashSet<TensorId> = cx.function.results.iter().map(|r| r.tensor).collect();
    for s in &cx.function.body {
        out.extend(rows_of_reads(cx, s).into_iter().filter(|(_, rows)| rows.is_none()).map(|(t, _)| t));
    }
    out
}

fn restrict(cx: &mut Cx) {
    let mut copies: HashMap<(TensorId, Rows), Option<TensorId>> = HashMap::new();
    let mut at = cx.function.body.len();
    // Readers before what they read, so that the selection travels on through the copies.
    while at > 0 {
        at -= 1;
        let wanted: Vec<(TensorId, Vec<Rows>)> = rows_of_reads_any(cx, at);
        if wanted.is_empty() {
            continue;
        }
        let (whole, outer) = (whole(cx), outer_products(cx, true));
        let (mut inserted, mut replace) = (0, HashMap::new());
        for (tensor, lists) in wanted {
            for rows in lists {
                let key = (tensor, rows.clone());
                if !copies.contains_key(&key) {
                    let (copy, n) = copy(cx, tensor, &rows, &whole, &outer);
                    inserted += n;
                    copies.insert(key.clone(), copy);
                }
                if let Some(Some(copy)) = copies.get(&key) {
                    replace.insert(key, *copy);
                }
            }
        }
        at += inserted;
        if !replace.is_empty() {
            redirect(cx, at, &replace);
        }
    }
}

/// The reads of a statement with constant rows, even if it reads the same tensor otherwise too.
fn rows_of_reads_any(cx: &Cx, at: usize) -> Vec<(TensorId, Vec<Rows>)> {
    let Stmt::Define(d) = &cx.function.body[at] else { return Vec::new() };
    let mut out: Vec<(TensorId, Vec<Rows>)> = Vec::new();
    let mut add = |t: TensorId, at: &[Index]| {
        let rows = rows_of(cx, t, at);
        if !rows.is_empty() {
            match out.iter_mut().find(|(o, _)| *o == t) {
                Some((_, list)) if !list.contains(&rows) => list.push(rows),
                Some(_) => {}
                None => out.push((t, vec![rows])),
            }
        }
    };
    d.clauses.iter().for_each(|c| c.body.visit_reads(&mut add));
    out
}

/// The dimensions that a read fixes to a constant inside. Outside, the restricted copy would have to know that it is 0.
fn rows_of(cx: &Cx, t: TensorId, at: &[Index]) -> Rows {
    let shape = cx.shape(t);
    if at.len() != shape.len() {
        return Vec::new();
    }
    let constant =
        |(k, i): (usize, &Index)| i.as_const().filter(|&c| shape[k] > 1 && c >= 0 && c < shape[k]).map(|c| (k, c));
    at.iter().enumerate().filter_map(constant).collect()
}

/// Makes the restricted copy, if it pays; gives it and the number of statements inserted.
fn copy(
    cx: &mut Cx,
    tensor: TensorId,
    rows: &Rows,
    whole: &HashSet<TensorId>,
    outer: &HashSet<TensorId>,
) -> (Option<TensorId>, usize) {
    let Some(at) = cx.position(tensor) else { return (None, 0) };
    let Some(d) = cx.definition_at(at).cloned() else { return (None, 0) };
    let name = cx.function.tensor(tensor).name.clone();
    let place = rows.iter().map(|&(k, c)| row_text(cx, tensor, k, c)).collect::<Vec<_>>().join(", ");
    if whole.contains(&tensor) && !outer.contains(&tensor) {
        cx.refused(NAME, tensor, format!("read at {place}, but {name} is needed whole and stored anyway"));
        return (None, 0);
    }
    let Some(copy) = select(cx, &d, rows) else {
        cx.refused(NAME, tensor, format!("the rows of {name} are not separate clauses or variables"));
        return (None, 0);
    };
    let (new, old) = (cx.elements(copy.tensor), cx.elements(tensor));
    let id = copy.tensor;
    cx.function.body.insert(at + 1, Stmt::Define(copy));
    cx.fired(NAME, tensor, format!("only {place} is read: {new} elements instead of {old}"));
    let site = cx.site(tensor);
    cx.report.algorithm(site, format!("one row: only {place}"));
    (Some(id), 1)
}

/// ``row `Cls` of Tokens``, or `row 3 of Tokens`.
fn row_text(cx: &Cx, tensor: TensorId, k: usize, at: i64) -> String {
    let axis = &cx.axes[cx.function.tensor(tensor).dims[k].index()];
    let mut begin = 0;
    for (name, size) in &axis.pieces {
        if begin == at && *size == 1 {
            return format!("row `{name}` of {}", axis.name);
        }
        begin += *size as i64;
    }
    format!("row {at} of {}", axis.name)
}

/// The definition at constant rows, without those dimensions.
fn select(cx: &mut Cx, d: &Definition, rows: &Rows) -> Option<Definition> {
    let mut clauses = d.clauses.clone();
    for &(k, c) in rows {
        let current = Definition { tensor: d.tensor, clauses: clauses.clone(), keep: d.keep };
        let hits = inline::at_constant(cx, &current, k, c)?;
        clauses = hits
            .into_iter()
            .map(|(n, fixed)| {
                let clause = &current.clauses[n];
                let sizes = cx.sizes();
                let f = |v| fixed.iter().find(|(o, _)| *o == v).map(|(_, i)| i.clone());
                Clause {
                    vars: clause.vars.iter().copied().filter(|v| !fixed.iter().any(|(o, _)| o == v)).collect(),
                    at: clause.at.iter().map(|i| i.subst(&f, &sizes)).collect(),
                    body: clause.body.subst_vars(&f, &sizes),
                }
            })
            .collect();
    }
    let gone = |k: usize| rows.iter().any(|(r, _)| *r == k);
    let old = cx.function.tensor(d.tensor).clone();
    let dims = old.dims.iter().enumerate().filter(|(k, _)| !gone(*k)).map(|(_, d)| *d).collect();
    let places: Vec<String> = rows.iter().map(|(_, c)| c.to_string()).collect();
    let tensor = cx.function.new_tensor(format!("{}.at{}", old.name, places.join("_")), old.elem, dims, old.span);
    // Variables of their own.
    for clause in &mut clauses {
        let fresh: Vec<_> = clause.vars.iter().map(|&v| (v, cx.fresh(v))).collect();
        let body = cx.freshen(&clause.body);
        let sizes = cx.sizes();
        let f = |v| fresh.iter().find(|(o, _)| *o == v).map(|(_, n)| Index::from(*n));
        let mut k = 0;
        clause.at.retain(|_| {
            k += 1;
            !gone(k - 1)
        });
        clause.at = clause.at.iter().map(|i| i.subst(&f, &sizes)).collect();
        clause.body = body.subst_vars(&f, &sizes);
        clause.vars = fresh.iter().map(|(_, n)| *n).collect();
    }
    Some(Definition { tensor, clauses, keep: d.keep })
}

fn redirect(cx: &mut Cx, at: usize, replace: &HashMap<(TensorId, Rows), TensorId>) {
    let Stmt::Define(d) = &cx.function.body[at] else { return };
    let mut d = d.clone();
    for c in &mut d.clauses {
        c.body = walk::rewrite(&c.body, &mut |e| {
            let Node::Read { tensor, at, bounds } = &*e.node else { return e };
            let rows = rows_of(cx, *tensor, at);
            let Some(copy) = replace.get(&(*tensor, rows.clone())) else { return e };
            let at = at
                .iter()
                .enumerate()
                .filter(|(k, _)| !rows.iter().any(|(r, _)| r == k))
                .map(|(_, i)| i.clone())
                .collect();
            Expr::new(e.elem, Node::Read { tensor: *copy, at, bounds: *bounds })
        });
    }
    cx.function.body[at] = Stmt::Define(d);
}

/// Definitions each of whose elements pairs different elements of two or more data tensors, none of which has all of its indices; and pointwise
/// functions of such definitions. With `larger`, only those no smaller than their operands.
pub(crate) fn outer_products(cx: &Cx, larger: bool) -> HashSet<TensorId> {
    let data = data_tensors(cx.function);
    let mut outer = HashSet::new();
    for s in &cx.function.body {
        let Stmt::Define(d) = s else { continue };
        let is = |c: &Clause| {
            let vars: Vec<_> = c.vars.iter().filter(|&&v| cx.size(v) > 1).collect();
            let (mut partial, mut spanning) = (HashSet::new(), Vec::new());
            let mut largest: f64 = 0.0;
            c.body.visit_reads(&mut |t, at| {
                if !data.contains(&t) {
                    return;
                }
                let used: Vec<_> = vars.iter().filter(|&&&v| at.iter().any(|i| i.uses(v))).map(|v| **v).collect();
                if used.len() == vars.len() {
                    spanning.push(t);
                } else {
                    partial.insert(used);
                    largest = largest.max(cx.elements(t));
                }
            });
            match spanning.is_empty() {
                true => partial.len() >= 2 && (!larger || cx.elements(d.tensor) >= largest),
                false => spanning.iter().all(|t| outer.contains(t)),
            }
        };
        if d.clauses.iter().all(is) {
            outer.insert(d.tensor);
        }
    }
    outer
}

/// The tensors that depend on an input (not only on parameters).
pub(crate) fn data_tensors(f: &Function) -> HashSet<TensorId> {
    let mut out: HashSet<TensorId> =
        f.args.iter().filter(|a| !matches!(a.role, ArgRole::Param(_) | ArgRole::State(_))).map(|a| a.tensor).collect();
    for s in &f.body {
        if s.reads().iter().any(|t| out.contains(t)) {
            out.extend(s.defines());
        }
    }
    out
}

/// Selections of a call's result move into the callee: it gives the rows as a result of its own. Returns how many functions were inserted before `caller`.
fn into_calls(program: &mut Program, caller: usize, report: &mut Report) -> usize {
    let mut inserted = 0;
    let mut n = 0;
    while n < program.functions[caller + inserted].body.len() {
        let me = caller + inserted;
        n += 1;
        let Stmt::Call(call) = &program.functions[me].body[n - 1] else { continue };
        let call = call.clone();
        let mut plans: Vec<(usize, Rows)> = Vec::new();
        {
            let cx = Cx { axes: &mut program.axes, function: &mut program.functions[me], report };
            let needed_whole = whole(&cx);
            for (r, t) in call.results.iter().enumerate() {
                if needed_whole.contains(t) {
                    continue;
                }
                let mut rows: Vec<Rows> = Vec::new();
                for s in &cx.function.body {
                    if let Some(Some(list)) = rows_of_reads(&cx, s).remove(t) {
                        rows.extend(list);
                    }
                }
                rows.sort();
                rows.dedup();
                if let [one] = rows.as_slice() {
                    plans.push((r, one.clone()));
                }
            }
        }
        if plans.is_empty() {
            continue;
        }
        let callee = call.function;
        let shared = program
            .functions
            .iter()
            .flat_map(|f| &f.body)
            .filter(|s| matches!(s, Stmt::Call(c) if c.function == callee))
            .count()
            > 1;
        let target = if shared {
            inserted += 1;
            clone_function(program, callee)
        } else {
            callee
        };
        let me = caller + inserted;
        for (r, rows) in plans {
            restrict_result(program, target, r, &rows, report);
            // The caller's side: a tensor without these dimensions.
            let function = &mut program.functions[me];
            let old = call.results[r];
            let mut tensor = function.tensor(old).clone();
            let mut k = 0;
            tensor.dims.retain(|_| {
                k += 1;
                !rows.iter().any(|(d, _)| *d == k - 1)
            });
            function.tensors.push(tensor);
            let new = TensorId(function.tensors.len() as u32 - 1);
            if let Stmt::Call(c) = &mut function.body[n - 1] {
                c.function = target;
                c.results[r] = new;
            }
            let mut cx = Cx { axes: &mut program.axes, function, report };
            let replace = HashMap::from([((old, rows.clone()), new)]);
            (0..cx.function.body.len()).for_each(|at| redirect(&mut cx, at, &replace));
            cx.fired(NAME, old, "selected inside the called function".to_owned());
        }
    }
    inserted
}

/// A copy of a function, right behind it.
fn clone_function(program: &mut Program, f: FuncId) -> FuncId {
    let mut copy = program.functions[f.index()].clone();
    let mut name = format!("{}.rows", copy.name);
    while program.functions.iter().any(|o| o.name == name) {
        name.push('+');
    }
    copy.name = name;
    let at = f.index() + 1;
    program.functions.insert(at, copy);
    let shift = |id: &mut FuncId| {
        if id.index() >= at {
            id.0 += 1;
        }
    };
    shift(&mut program.entry);
    for function in &mut program.functions {
        for s in &mut function.body {
            if let Stmt::Call(c) = s {
                shift(&mut c.function);
            }
        }
    }
    FuncId(at as u32)
}

/// Makes result `r` of a function the rows of what it was.
fn restrict_result(program: &mut Program, f: FuncId, r: usize, rows: &Rows, report: &mut Report) {
    let function = &mut program.functions[f.index()];
    let FnResult { tensor: old, .. } = function.results[r];
    let mut cx = Cx { axes: &mut program.axes, function, report };
    let dims: Vec<_> = cx.function.tensor(old).dims.clone();
    let fixed = |k: usize| rows.iter().find(|(d, _)| *d == k).map(|(_, c)| *c);
    let (mut vars, mut at) = (Vec::new(), Vec::new());
    for (k, &axis) in dims.iter().enumerate() {
        match fixed(k) {
            Some(c) => at.push(Index::from(c)),
            None => {
                let v = cx.function.new_var(format!("r{k}"), axis);
                vars.push(v);
                at.push(v.into());
            }
        }
    }
    let tensor = cx.function.tensor(old).clone();
    let end = cx.function.body.len();
    let new = cx.outline(end, &tensor.name, &vars, &Expr::read(tensor.elem, old, at));
    cx.function.results[r].tensor = new;
}
