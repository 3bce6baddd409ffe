//! What was decided about memory, in words: which pairs are never stored and what computes them, and which are stored and why.
//!
//! All of it is read off the plan: what is virtual, which definitions share a kernel, what they reduce over. Nothing here decides.

use super::expand::View;
use super::groups::deep_reads;
use super::storage::{Storage, data_dependent, is_plain};
use crate::ir::index::Sizes;
use crate::ir::{
    Clause, Definition, Expr, Function, Monoid, Node, Reduction, ResultRole, Stmt, TensorId, UnaryOp, VarId,
};
use crate::products::factors_of;
use serde::Serialize;

/// A decision, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// `function.definition`.
    pub site: String,
    /// Whether pairs are kept from memory by it; if not, it says why some are stored.
    pub fused: bool,
    /// What it comes to.
    pub text: String,
}

/// How definitions become a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Rows at a time, all of them in one kernel.
    Rows,
    /// Rows at a time, and what is found is added at a key.
    Key,
    /// Element by element.
    Elements,
}

/// Of a kernel that reads pairs which are stored nowhere.
pub fn of_kernel(view: &mut View<'_>, members: &[(TensorId, Clause)], how: How) -> Option<Decision> {
    let mut pairs: Vec<TensorId> = Vec::new();
    for (_, clause) in members {
        for (t, _) in deep_reads(view, clause) {
            if view.is_pair(t) && is_root(view, t) && !pairs.contains(&t) {
                pairs.push(t);
            }
        }
    }
    if pairs.is_empty() {
        return None;
    }
    let mut found: Vec<Found> = Vec::new();
    for (t, clause) in members {
        reductions(view, &clause.body, *t, &mut found);
    }
    // Whoever only looks at pairs one by one is the rest of what made them.
    if found.is_empty() {
        return None;
    }
    let what = list(&found.iter().map(|f| f.word).collect::<Vec<_>>());
    let over = list(&found.iter().map(|f| f.over.as_str()).collect::<Vec<_>>());
    let names: Vec<String> = pairs.iter().map(|&t| shape_text(view, t)).collect();
    let names = list(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let text = match how {
        How::Rows => {
            let begin = match softmax(view, &found) {
                Some(over) => format!("softmax over {over} fused"),
                None => "fused".to_owned(),
            };
            format!("{begin}: pairs {names} never stored; {what} over {over} in one kernel")
        }
        How::Key => format!("table by offset: pairs {names} never stored; row by row, each is added at its key"),
        How::Elements => format!("pairs {names} never stored; {what} over {over}, each pair computed where it is read"),
    };
    // Where the pairs end: in a weighted sum, as a rule.
    let of = found.iter().find(|f| f.word == WEIGHTED).or(found.last())?.of;
    Some(Decision { site: site(view, of), fused: true, text })
}

/// How many times larger than what is read of either operand tensors of pairs are that are worth a word.
const LARGER: usize = 4;

/// Of the tensors of pairs that a function stores.
pub fn stored(view: &mut View<'_>, storage: &Storage, function: &Function, out: &mut Vec<Decision>) {
    let data = data_dependent(function);
    for stmt in &function.body {
        let Stmt::Define(d) = stmt else { continue };
        if !storage.stored[d.tensor.index()] || !d.clauses.iter().any(|c| spans_pairs(view, d, c, &data)) {
            continue;
        }
        let Some(reason) = why_stored(function, d) else { continue };
        let text = format!("stored: {}, because {reason}", shape_text(view, d.tensor));
        out.push(Decision { site: site(view, d.tensor), fused: false, text });
    }
}

/// Whether what a clause is made of depends on the data and lacks now one, now another of its variables, and is smaller.
fn spans_pairs(view: &mut View<'_>, d: &Definition, clause: &Clause, data: &[bool]) -> bool {
    let own: usize = view.shape(d.tensor).iter().product();
    let vars: Vec<VarId> = clause.vars.iter().copied().filter(|&v| view.size_of(v) > 1).collect();
    let mut lacking: Vec<Vec<VarId>> = Vec::new();
    for (t, at) in deep_reads(view, clause) {
        if view.is_virtual(t) || !data.get(t.index()).copied().unwrap_or(false) {
            continue;
        }
        let lacks: Vec<VarId> = vars.iter().copied().filter(|&v| !at.iter().any(|i| i.uses(v))).collect();
        // Of a tensor that holds more than this operand, what is read.
        let mut used: Vec<VarId> = Vec::new();
        at.iter().for_each(|i| i.visit_vars(&mut |v| used.push(v)));
        used.sort_unstable();
        used.dedup();
        let read: usize = used.iter().map(|&v| view.size_of(v) as usize).product();
        let whole: usize = view.shape(t).iter().product();
        if lacks.is_empty() || own < LARGER * read.min(whole) {
            return false;
        }
        if !lacking.contains(&lacks) {
            lacking.push(lacks);
        }
    }
    lacking.len() > 1 && !vars.iter().any(|v| lacking.iter().all(|l| l.contains(v)))
}

/// Why such a tensor has memory; none where that is what was asked for (a gradient).
fn why_stored(function: &Function, d: &Definition) -> Option<String> {
    let t = d.tensor;
    if let Some(r) = function.results.iter().find(|r| r.tensor == t) {
        return match &r.role {
            ResultRole::Grad(_) => None,
            ResultRole::Exposed(name) => Some(format!("it is exposed as `{name}`")),
            _ => Some("it is a result".to_owned()),
        };
    }
    for stmt in &function.body {
        match stmt {
            Stmt::Call(c) if c.args.contains(&t) => return Some("it is handed to another function".to_owned()),
            Stmt::Components(c) if c.mask == t => return Some("its connected components are looked for".to_owned()),
            _ => {}
        }
    }
    if !is_plain(d) {
        return Some("it is defined by several clauses".to_owned());
    }
    Some(match &*d.clauses[0].body.node {
        Node::Reduce(r) => {
            format!("computing a {} again for every reader costs more than keeping it", word(r.op, false))
        }
        _ => "computing it again for every reader costs more than keeping it".to_owned(),
    })
}

const WEIGHTED: &str = "weighted sum";

/// A reduction of pairs.
struct Found {
    of: TensorId,
    word: &'static str,
    over: String,
    reduction: Reduction,
}

/// The reductions over pairs in an expression, with what is virtual looked into.
fn reductions(view: &mut View<'_>, e: &Expr, of: TensorId, out: &mut Vec<Found>) {
    match &*e.node {
        Node::Reduce(r) if leads_to_pair(view, &r.body) => {
            let mut names: Vec<String> = Vec::new();
            for &v in &r.vars {
                let name = view.function.var(v).name.split('.').next().unwrap_or_default().to_owned();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let weighted = r.op == Monoid::Sum && is_weighted(view, r);
            out.push(Found { of, word: word(r.op, weighted), over: names.join(", "), reduction: r.clone() });
        }
        Node::Read { tensor, at, .. } if view.is_virtual(*tensor) && !view.is_pair(*tensor) => {
            let body = view.body_at(*tensor, at);
            reductions(view, &body, of, out);
        }
        _ => e.for_each_child(&mut |c| reductions(view, c, of, out)),
    }
}

fn word(op: Monoid, weighted: bool) -> &'static str {
    match op {
        Monoid::Sum if weighted => WEIGHTED,
        Monoid::Sum => "sum",
        Monoid::Prod => "product",
        Monoid::Max => "maximum",
        Monoid::Min => "minimum",
        Monoid::Any => "any",
        Monoid::All => "all",
        Monoid::ArgMax => "place of the maximum",
        Monoid::ArgMin => "place of the minimum",
    }
}

/// Whether a sum over pairs has a factor of its own beside them that runs with what is summed over.
fn is_weighted(view: &mut View<'_>, r: &Reduction) -> bool {
    let mut factors = Vec::new();
    factors_of(&r.body, &mut factors);
    factors.into_iter().any(|f| {
        let mut reads = 0;
        f.visit_reads(&mut |_, _| reads += 1);
        reads > 0 && r.vars.iter().any(|&v| f.uses(v)) && !leads_to_pair(view, f)
    })
}

/// Whether an expression reads pairs, itself or through what is virtual.
fn leads_to_pair(view: &mut View<'_>, e: &Expr) -> bool {
    let mut reads = Vec::new();
    e.visit_reads(&mut |t, at| reads.push((t, at.to_vec())));
    reads.into_iter().any(|(t, at)| {
        view.is_pair(t)
            || (view.is_virtual(t) && {
                let body = view.body_at(t, &at);
                leads_to_pair(view, &body)
            })
    })
}

/// What a softmax runs over: a kernel has the maximum of pairs, and a sum of exponentials of what is left when it is taken off.
fn softmax(view: &mut View<'_>, found: &[Found]) -> Option<String> {
    let maximum = found.iter().find(|f| f.word == "maximum")?;
    let sum = found.iter().filter(|f| f.word == "sum" && f.over == maximum.over);
    let exponentials = sum.map(|f| f.reduction.body.clone()).any(|body| has_exp_of(view, &body, maximum.of));
    exponentials.then(|| maximum.over.clone())
}

/// Whether an expression has an exponential of something in which `t` is read.
fn has_exp_of(view: &mut View<'_>, e: &Expr, t: TensorId) -> bool {
    let mut any = false;
    match &*e.node {
        Node::Unary(UnaryOp::Exp, a) => a.visit_reads(&mut |r, _| any |= r == t),
        Node::Read { tensor, at, .. } if view.is_virtual(*tensor) && !is_root(view, *tensor) => {
            let body = view.body_at(*tensor, at);
            any |= has_exp_of(view, &body, t);
        }
        _ => {}
    }
    e.for_each_child(&mut |c| any |= has_exp_of(view, c, t));
    any
}

/// Whether pairs begin with it: it is a reduction.
fn is_root(view: &View<'_>, t: TensorId) -> bool {
    view.clause(t).is_some_and(|c| matches!(&*c.body.node, Node::Reduce(_)))
}

fn site(view: &View<'_>, t: TensorId) -> String {
    format!("{}.{}", view.function.name, view.name(t))
}

/// `score.sum[Batch 2, H 4, Gy 14, Gx 14, Gy 14, Gx 14]`.
fn shape_text(view: &View<'_>, t: TensorId) -> String {
    let dims = &view.function.tensor(t).dims;
    let dims: Vec<String> = dims
        .iter()
        .map(|d| &view.axes[d.index()])
        .filter(|a| a.size > 1)
        .map(|a| format!("{} {}", a.name, a.size))
        .collect();
    format!("{}[{}]", view.name(t), dims.join(", "))
}

/// `a`, `a and b`, `a, b and c`, each once.
fn list(parts: &[&str]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for part in parts {
        if !once.contains(part) {
            once.push(part);
        }
    }
    match once.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}
