//! Copies: a definition whose value at an index is an element of another tensor, a constant or an index is read through.

use super::inline::{self, resolve};
use super::{Cx, each_function, walk};
use crate::ir::{Bounds, Definition, Expr, Index, Keep, Node, Program, Stmt, TensorId};
use std::collections::HashMap;

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut function);
}

fn function(cx: &mut Cx) {
    let mut copies: HashMap<TensorId, Definition> = HashMap::new();
    let mut same: HashMap<TensorId, TensorId> = HashMap::new();
    for at in 0..cx.function.body.len() {
        rewrite_statement(cx, at, &copies, &same);
        let Stmt::Define(d) = &cx.function.body[at] else { continue };
        if d.keep == Keep::Save || !d.clauses.iter().any(|c| trivial(&c.body)) {
            continue;
        }
        let d = d.clone();
        if let Some(source) = identity(cx, &d) {
            same.insert(d.tensor, same.get(&source).copied().unwrap_or(source));
        }
        copies.insert(d.tensor, d);
    }
    // A result that only renames another definition is that definition.
    let args: Vec<TensorId> = cx.function.args.iter().map(|a| a.tensor).collect();
    for r in &mut cx.function.results {
        if let Some(source) = same.get(&r.tensor)
            && !args.contains(source)
        {
            r.tensor = *source;
        }
    }
}

/// Reads one definition through, in all statements after it.
pub(crate) fn forward_one(cx: &mut Cx, tensor: TensorId) {
    let Some(at) = cx.position(tensor) else { return };
    let Some(d) = cx.definition_at(at) else { return };
    if d.keep == Keep::Save {
        return;
    }
    let copies = HashMap::from([(tensor, d.clone())]);
    for later in at + 1..cx.function.body.len() {
        rewrite_statement(cx, later, &copies, &HashMap::new());
    }
}

fn rewrite_statement(
    cx: &mut Cx,
    at: usize,
    copies: &HashMap<TensorId, Definition>,
    same: &HashMap<TensorId, TensorId>,
) {
    if !cx.function.body[at].reads().iter().any(|t| copies.contains_key(t)) {
        return;
    }
    match &mut cx.function.body[at] {
        Stmt::Call(c) => c.args.iter_mut().for_each(|t| *t = *same.get(t).unwrap_or(t)),
        Stmt::Components(c) => c.mask = *same.get(&c.mask).unwrap_or(&c.mask),
        Stmt::Define(d) => {
            let mut d = d.clone();
            let (mut through, mut stayed) = (Vec::new(), 0);
            for c in &mut d.clauses {
                let mut f = |e: Expr| {
                    let Node::Read { tensor, at, bounds } = &*e.node else { return e };
                    let Some(copy) = copies.get(tensor) else { return e };
                    match value(cx, copy, at, *bounds) {
                        Some(v) => {
                            through.push(*tensor);
                            v
                        }
                        None => {
                            stayed += 1;
                            e
                        }
                    }
                };
                c.body = walk::rewrite(&c.body, &mut f);
                c.at = c.at.iter().map(|i| walk::rewrite_index(i, &mut f)).collect();
            }
            let tensor = d.tensor;
            cx.function.body[at] = Stmt::Define(d);
            through.sort();
            through.dedup();
            if !through.is_empty() {
                let names: Vec<&str> = through.iter().map(|t| cx.function.tensor(*t).name.as_str()).collect();
                let reason = format!("reads through {}", names.join(", "));
                cx.fired("forward copies", tensor, reason);
            }
        }
    }
}

/// Whether reading the value again costs no more than reading a copy of it.
fn trivial(e: &Expr) -> bool {
    match &*e.node {
        Node::Const(_) | Node::Index(_) => true,
        Node::Read { at, .. } => !at.iter().any(Index::is_data),
        _ => false,
    }
}

/// What a read of the copy is, if the clause it hits is known and trivial.
fn value(cx: &mut Cx, d: &Definition, at: &[Index], bounds: Bounds) -> Option<Expr> {
    let hit = resolve(cx, d, at, bounds)?;
    let clause = &d.clauses[hit.clause];
    if !trivial(&clause.body) {
        return None;
    }
    // Outside gives 0: the source's own rule says the same where the guarded dimensions are the source's.
    if bounds == Bounds::Zero
        && let Node::Read { tensor: source, at: from, .. } = &*clause.body.node
    {
        let (shape, source_shape) = (cx.shape(d.tensor), cx.shape(*source));
        let sizes = cx.sizes();
        let covered = clause.at.iter().zip(at).zip(&shape).all(|((own, index), &n)| {
            index.range(&sizes).is_some_and(|(lo, hi)| lo >= 0 && hi < n)
                || own
                    .as_var()
                    .is_some_and(|v| from.iter().zip(&source_shape).any(|(f, &m)| f.as_var() == Some(v) && m == n))
        });
        if covered && d.clauses.len() == 1 {
            let f = |v| hit.vars.iter().find(|(o, _)| *o == v).map(|(_, i)| i.clone());
            let at = from.iter().map(|i| i.subst(&f, &sizes)).collect();
            return Some(Expr::read_or_zero(clause.body.elem, *source, at));
        }
    }
    inline::inline(cx, d, at, bounds)
}

/// The tensor of which this is a copy, element by element.
fn identity(cx: &Cx, d: &Definition) -> Option<TensorId> {
    let [clause] = d.clauses.as_slice() else { return None };
    let Node::Read { tensor, at, .. } = &*clause.body.node else { return None };
    let plain = clause.at.iter().all(|i| i.as_var().is_some());
    (plain
        && *at == clause.at
        && cx.shape(*tensor) == cx.shape(d.tensor)
        && clause.body.elem == cx.function.tensor(d.tensor).elem)
        .then_some(*tensor)
}
