//! Calls: each function that is differentiated becomes a forward and a backward.

use super::reverse::Reverse;
use crate::ir::index::goes_through;
use crate::ir::{
    Arg, ArgRole, Axis, BinaryOp, Call, Clause, Definition, Elem, Expr, FnResult, FuncId, Function, Index, Keep,
    Monoid, Node, ResultRole, Stmt, TensorId, VarId, VarSizes,
};
use std::collections::HashMap;

/// A function's two halves.
#[derive(Clone, Debug)]
struct Halves {
    forward: FuncId,
    backward: FuncId,
    /// How many values the forward saves (its last results, the backward's arguments after the original ones).
    saved: usize,
    /// Which arguments get a gradient, in order of the backward's results.
    grads: Vec<usize>,
    /// Which results take a cotangent, in order of the backward's arguments after the saved.
    seeds: Vec<usize>,
}

/// All functions of the new program: the originals, then halves as they are made.
pub struct Variants {
    functions: Vec<Function>,
    /// By function, and whether its forward saves what the backward needs.
    halves: HashMap<(FuncId, bool), Halves>,
}

fn is_float(elem: Elem) -> bool {
    matches!(elem, Elem::F64 | Elem::F32 | Elem::F16 | Elem::Bf16)
}

impl Variants {
    /// The program's callees.
    pub fn new(functions: Vec<Function>) -> Variants {
        Variants { functions, halves: HashMap::new() }
    }

    /// All functions, callees first.
    pub fn into_functions(self) -> Vec<Function> {
        self.functions
    }

    /// Makes every call on an active path one of the forward half; the first `recomputed` calls save nothing.
    pub fn save_in_calls(&mut self, walk: &mut Reverse<'_>, recomputed: usize) {
        let mut calls = 0;
        for n in 0..walk.function.body.len() {
            let Stmt::Call(c) = walk.function.body[n].clone() else { continue };
            calls += 1;
            if !c.results.iter().any(|t| walk.active[t.index()]) {
                continue;
            }
            let h = self.halves(c.function, calls > recomputed, walk.axes);
            let forward = &self.functions[h.forward.index()];
            let extra = forward.results.len() - c.results.len();
            let mut results = c.results.clone();
            for r in &forward.results[forward.results.len() - extra..] {
                let ty = forward.tensor(r.tensor);
                let name = format!("{}.{}", c.site, ty.name);
                results.push(walk.function.new_tensor(name, ty.elem, ty.dims.clone(), None));
                walk.active.push(false);
            }
            walk.function.body[n] = Stmt::Call(Call { function: h.forward, results, ..c });
        }
    }

    /// Walks the function's original statements backward; seeds have been added. Gives the adjoints of `targets`, arguments of the function.
    ///
    /// Each is defined when nothing is left to add to it, so that what it is found from need not be kept any longer.
    pub fn walk(&mut self, walk: &mut Reverse<'_>, targets: &[TensorId]) -> Vec<TensorId> {
        let body = walk.function.body.clone();
        let first_read = |t: &TensorId| body.iter().position(|stmt| stmt.reads().contains(t)).unwrap_or(body.len());
        let first: Vec<usize> = targets.iter().map(first_read).collect();
        let mut adjoints: Vec<Option<TensorId>> = vec![None; targets.len()];
        for (n, stmt) in body.iter().enumerate().rev() {
            match stmt {
                Stmt::Define(d) if walk.active[d.tensor.index()] => {
                    if let Some(adjoint) = walk.finish(d.tensor, Some(&d.clauses)) {
                        walk.define(d, adjoint);
                    }
                }
                Stmt::Call(c) if c.results.iter().any(|t| walk.active[t.index()]) => self.call(walk, c),
                _ => {}
            }
            for (k, &target) in targets.iter().enumerate().filter(|&(k, _)| first[k] == n) {
                adjoints[k] = walk.finish(target, None);
            }
        }
        // What nothing reads is a result itself, or has no gradient.
        let mut adjoint = |(&target, found): (&TensorId, Option<TensorId>)| {
            found.or_else(|| walk.finish(target, None)).unwrap_or_else(|| zeros(walk, target))
        };
        targets.iter().zip(adjoints).map(&mut adjoint).collect()
    }

    fn call(&mut self, walk: &mut Reverse<'_>, c: &Call) {
        let Some(h) = self.halves.values().find(|h| h.forward == c.function).cloned() else { return };
        let adjoints: Vec<Option<TensorId>> = h.seeds.iter().map(|&n| walk.finish(c.results[n], None)).collect();
        if adjoints.iter().all(Option::is_none) {
            return;
        }
        let mut args = c.args.clone();
        args.extend(&c.results[c.results.len() - h.saved..]);
        for (&n, adjoint) in h.seeds.iter().zip(adjoints) {
            args.push(adjoint.unwrap_or_else(|| zeros(walk, c.results[n])));
        }
        let mut results = Vec::new();
        for &n in &h.grads {
            let ty = walk.function.tensor(c.args[n]).clone();
            results.push(walk.function.new_tensor(format!("d.{}", ty.name), ty.elem, ty.dims, None));
        }
        for (&n, &t) in h.grads.iter().zip(&results) {
            if walk.active[c.args[n].index()] {
                walk.add_whole(c.args[n], t);
            }
        }
        let site = format!("{} backward", c.site);
        walk.function.body.push(Stmt::Call(Call { function: h.backward, args, results, site }));
    }

    /// The halves of a function, made when first asked for; `save` tells whether the forward saves more than the author wants saved.
    fn halves(&mut self, function: FuncId, save: bool, axes: &mut Vec<Axis>) -> Halves {
        if let Some(h) = self.halves.get(&(function, save)) {
            return h.clone();
        }
        let f = self.functions[function.index()].clone();
        let differentiable =
            |a: &Arg| matches!(a.role, ArgRole::Param(_) | ArgRole::Input(_)) && is_float(f.tensor(a.tensor).elem);
        let grads: Vec<usize> = (0..f.args.len()).filter(|&n| differentiable(&f.args[n])).collect();
        let wrt: Vec<TensorId> = grads.iter().map(|&n| f.args[n].tensor).collect();
        let mut walk = Reverse::new(axes, f.clone(), &wrt);
        self.save_in_calls(&mut walk, 0);
        let forward_body = walk.function.body.clone();
        let seeds: Vec<usize> = (0..f.results.len())
            .filter(|&n| {
                let r = &f.results[n];
                walk.active[r.tensor.index()] && !matches!(r.role, ResultRole::NextState(_))
            })
            .collect();
        let mut cotangents = Vec::new();
        for &n in &seeds {
            let ty = walk.function.tensor(f.results[n].tensor).clone();
            let t = walk.function.new_tensor(format!("cotangent.{}", ty.name), ty.elem, ty.dims, None);
            walk.add_whole(f.results[n].tensor, t);
            cotangents.push((format!("{n}"), t));
        }
        let gradients = self.walk(&mut walk, &wrt);
        let both = walk.function;
        let backward_body = both.body[forward_body.len()..].to_vec();

        let saved = saved(axes, &both, &forward_body, &backward_body, &gradients, save);
        let again_name = if save { "" } else { "#again" };
        let name = format!("{}.forward{again_name}", f.name);
        let mut forward = Function { name, body: forward_body.clone(), ..both.clone() };
        forward.results = f.results.clone();
        forward
            .results
            .extend(saved.iter().map(|&t| FnResult { tensor: t, role: ResultRole::Saved(name_of(&both, t)) }));

        let mut known: Vec<TensorId> = f.args.iter().map(|a| a.tensor).chain(saved.iter().copied()).collect();
        known.extend(cotangents.iter().map(|(_, t)| *t));
        let mut body = again(&forward_body, &backward_body, &gradients, &known);
        body.extend(backward_body);
        let mut args = f.args.clone();
        args.extend(saved.iter().map(|&t| Arg { tensor: t, role: ArgRole::Saved(name_of(&both, t)) }));
        args.extend(cotangents.into_iter().map(|(n, t)| Arg { tensor: t, role: ArgRole::Cotangent(n) }));
        let results = grads
            .iter()
            .zip(&gradients)
            .map(|(&n, &t)| {
                let name = match &f.args[n].role {
                    ArgRole::Param(name) | ArgRole::Input(name) => name.clone(),
                    _ => String::new(),
                };
                FnResult { tensor: t, role: ResultRole::Grad(name) }
            })
            .collect();
        let backward = Function { name: format!("{}.backward{again_name}", f.name), args, body, results, ..both };

        self.functions.push(forward);
        self.functions.push(backward);
        let n = self.functions.len() as u32;
        let h = Halves { forward: FuncId(n - 2), backward: FuncId(n - 1), saved: saved.len(), grads, seeds };
        self.halves.insert((function, save), h.clone());
        h
    }
}

fn name_of(f: &Function, t: TensorId) -> String {
    format!("{}.{}", f.tensor(t).name, t.0)
}

/// Points of a sum with a parameter that take longer to compute again than its result takes to be read, by far: a value of 4 bytes for twice as many operations.
const LONG: usize = 32;

/// What the backward reads of the forward and is kept: results of calls, of labelling, of reductions no larger than the largest argument or result, of
/// long sums with a parameter (their results grow no faster than what they are made of, as a product of two computed tensors may), and what the author
/// wants saved. Without `save`, what the author wants saved alone.
fn saved(
    axes: &[Axis],
    f: &Function,
    forward: &[Stmt],
    backward: &[Stmt],
    gradients: &[TensorId],
    save: bool,
) -> Vec<TensorId> {
    let size = |t: TensorId| f.tensor(t).dims.iter().map(|d| axes[d.index()].size).product::<usize>();
    let ends = f.args.iter().map(|a| a.tensor).chain(f.results.iter().map(|r| r.tensor));
    let largest = ends.map(size).max().unwrap_or(0);
    let keep = |stmt: &Stmt| match stmt {
        Stmt::Define(d) => match d.keep {
            Keep::Save => true,
            Keep::Recompute => false,
            Keep::Auto => {
                let costly = d.clauses.len() > 1 || matches!(&*d.clauses[0].body.node, Node::Reduce(_));
                save && costly && (size(d.tensor) <= largest || is_long_sum_with_parameter(axes, f, d))
            }
        },
        Stmt::Call(_) | Stmt::Components(_) => save,
    };
    let kept = |t: &TensorId| forward.iter().any(|stmt| stmt.defines().contains(t) && keep(stmt));
    let mut out = Vec::new();
    let mut wanted: Vec<TensorId> = backward.iter().flat_map(Stmt::reads).chain(gradients.iter().copied()).collect();
    for stmt in forward.iter().rev() {
        let defined: Vec<TensorId> = stmt.defines().into_iter().filter(|t| wanted.contains(t)).collect();
        if defined.is_empty() {
            continue;
        }
        // What is made of a kept sum alone is kept in its place: nothing is left to compute again.
        if keep(stmt) || (save && completes_kept(axes, f, forward, stmt, &|t| !wanted.contains(&t), &kept)) {
            out.extend(defined);
        } else {
            wanted.extend(stmt.reads());
        }
    }
    out.reverse();
    out
}

/// Whether a definition finishes something that is kept, directly or by way of others, all of which are `free` to be left out.
fn completes_kept(
    axes: &[Axis],
    f: &Function,
    forward: &[Stmt],
    stmt: &Stmt,
    free: &dyn Fn(TensorId) -> bool,
    kept: &dyn Fn(&TensorId) -> bool,
) -> bool {
    let Stmt::Define(d) = stmt else { return false };
    completes(axes, f, d).is_some_and(|t| {
        let again = |stmt: &&Stmt| stmt.defines().contains(&t);
        free(t)
            && (kept(&t)
                || forward.iter().find(again).is_some_and(|stmt| completes_kept(axes, f, forward, stmt, free, kept)))
    })
}

/// The one computed tensor of the same size that a definition reads at each of its points, there alone and in order, if nothing is summed.
fn completes(axes: &[Axis], f: &Function, d: &Definition) -> Option<TensorId> {
    fn walk(e: &Expr, visit: &mut impl FnMut(&Expr)) {
        visit(e);
        e.for_each_child(&mut |c| walk(c, visit));
    }
    let [clause] = &d.clauses[..] else { return None };
    let shape = |t: TensorId| f.tensor(t).dims.iter().map(|d| axes[d.index()].size).collect::<Vec<_>>();
    let size = shape(d.tensor).iter().product::<usize>();
    let computed = |t: TensorId| f.args.iter().all(|a| a.tensor != t) && shape(t).iter().product::<usize>() == size;
    let sizes = VarSizes { vars: &f.vars, axes };
    let in_order = |t: TensorId, at: &[Index]| goes_through(at, &shape(t), &clause.vars, &sizes);
    let mut found = Vec::new();
    let mut pointwise = d.keep == Keep::Auto && in_order(d.tensor, &clause.at);
    walk(&clause.body, &mut |e| match &*e.node {
        Node::Read { tensor, at, .. } if computed(*tensor) => {
            pointwise &= in_order(*tensor, at);
            found.push(*tensor);
        }
        Node::Reduce(_) => pointwise = false,
        _ => {}
    });
    found.dedup();
    (pointwise && found.len() == 1).then(|| found[0])
}

fn is_long_sum_with_parameter(axes: &[Axis], f: &Function, d: &Definition) -> bool {
    let is_param = |t: &TensorId| f.args.iter().any(|a| a.tensor == *t && matches!(a.role, ArgRole::Param(_)));
    fn reads_as_factor(e: &Expr, is_param: &impl Fn(&TensorId) -> bool) -> bool {
        match &*e.node {
            Node::Read { tensor, .. } => is_param(tensor),
            Node::Binary(BinaryOp::Mul, a, b) => reads_as_factor(a, is_param) || reads_as_factor(b, is_param),
            _ => false,
        }
    }
    let [Clause { body, .. }] = &d.clauses[..] else { return false };
    let Node::Reduce(r) = &*body.node else { return false };
    let points = r.vars.iter().map(|&v| axes[f.var(v).axis.index()].size).product::<usize>();
    r.op == Monoid::Sum && points >= LONG && reads_as_factor(&r.body, &is_param)
}

/// The forward's statements that the backward has to run again.
fn again(forward: &[Stmt], backward: &[Stmt], gradients: &[TensorId], known: &[TensorId]) -> Vec<Stmt> {
    let mut wanted: Vec<TensorId> = backward.iter().flat_map(Stmt::reads).chain(gradients.iter().copied()).collect();
    let mut out = Vec::new();
    for stmt in forward.iter().rev() {
        if stmt.defines().iter().any(|t| wanted.contains(t) && !known.contains(t)) {
            wanted.extend(stmt.reads());
            out.push(stmt.clone());
        }
    }
    out.reverse();
    out
}

/// A tensor of zeros like another.
fn zeros(walk: &mut Reverse<'_>, like: TensorId) -> TensorId {
    let ty = walk.function.tensor(like).clone();
    let t = walk.function.new_tensor(format!("zero.{}", ty.name), ty.elem, ty.dims.clone(), None);
    let vars: Vec<VarId> = ty.dims.iter().map(|&d| walk.function.new_var("z", d)).collect();
    let clause = Clause { at: vars.iter().map(|&v| v.into()).collect(), vars, body: Expr::constant(ty.elem, 0.0) };
    walk.function.body.push(Stmt::Define(Definition { tensor: t, clauses: vec![clause], keep: Keep::Auto }));
    t
}
