//! Long reductions to few results, in two steps.
//!
//! A sum over everything has one result and would be one work item with one chain of additions. Here it becomes a tensor of partial results, each
//! over every `PARTIALS`-th point, and a short reduction of those: the first step has vectors and work items enough, and the order of
//! the additions is still fixed.
//!
//! A sum whose conditions tie all longer indices of its result to summed ones (a gradient collected by offset) has no index for a vector to run
//! along. If one of the summed indices is free of that, it becomes one of the partial results.
//!
//! A long sum to some results (a bias's gradient, the statistics of a channel) has vectors, but few work items, and chains of additions so long
//! that rounding shows. One of the summed indices becomes an index of the partial results. If another sum goes along the rows of what it reads anyway
//! ([`columns`](super::columns)), it goes with that one instead.

use super::{Facts, columns};
use crate::ir::index::Index;
use crate::ir::{
    Clause, Definition, Expr, Function, Keep, Monoid, Node, Pred, Program, Reduction, Stmt, TensorId, VarId, VarSizes,
    atom,
};

/// Number of partial results.
const PARTIALS: usize = 256;
/// Reductions shorter than this stay as they are.
const LONG: usize = 16 * PARTIALS;
/// So do reductions with more results than this.
const FEW: usize = 8;
/// A sum to more results than those is long from so many points on.
const CHAIN: usize = 1024;
/// And if it has so many points a result: what is stored in between stays small beside what is read.
const POINTS: usize = 4;
/// Or if so many times more elements are read than there are partial results.
const SHARE: usize = 8;
/// Elements that fill a vector well enough.
const VECTOR: usize = 8;

/// Where items run in lockstep, a sum to fewer results than these leaves many of them idle (a register tile takes a dozen results), and is long from so many
/// points on.
const IDLE: [(usize, usize); 2] = [(1 << 14, 64), (1 << 20, 128)];
/// Partial results that are stored for that at most.
const IDLE_PARTIALS: usize = 1 << 24;

/// Splits the long reductions of every function.
pub fn split_long_reductions(program: &mut Program, facts: &Facts) {
    for n in 0..program.functions.len() {
        let mut f = program.functions[n].clone();
        let body = std::mem::take(&mut f.body);
        for stmt in &body {
            match stmt {
                Stmt::Define(d) if !goes_along(program, &f, facts, d, &body) => {
                    let steps = split(program, &mut f, d)
                        .or_else(|| set_free(program, &mut f, d))
                        .or_else(|| spread(program, &mut f, d, facts.lockstep));
                    match steps {
                        Some((partial, rest)) => f.body.extend([Stmt::Define(partial), Stmt::Define(rest)]),
                        None => f.body.push(stmt.clone()),
                    }
                }
                _ => f.body.push(stmt.clone()),
            }
        }
        program.functions[n] = f;
    }
}

fn split(program: &mut Program, f: &mut Function, d: &Definition) -> Option<(Definition, Definition)> {
    let [clause] = d.clauses.as_slice() else { return None };
    let Node::Reduce(r) = &*clause.body.node else { return None };
    if matches!(r.op, Monoid::ArgMax | Monoid::ArgMin) {
        return None;
    }
    let size = |f: &Function, v| program.axes[f.var(v).axis.index()].size;
    let results: usize = clause.vars.iter().map(|&v| size(f, v)).product();
    let (k, &longest) = r.vars.iter().enumerate().max_by_key(|(_, v)| size(f, **v))?;
    let n = size(f, longest);
    if results > FEW || n < LONG {
        return None;
    }
    let partials = atom(&mut program.axes, "partial", PARTIALS);
    let steps = atom(&mut program.axes, "step", n.div_ceil(PARTIALS));
    let (p, s) = (f.new_var("partial", partials), f.new_var("step", steps));
    let place = Index::from(s).scale(PARTIALS as i64).add(&p.into());
    let vars = f.vars.clone();
    let sizes = VarSizes { vars: &vars, axes: &program.axes };
    let sub = |v| (v == longest).then(|| place.clone());
    let guard = Pred::and([Pred::within(&place, 0, n as i64, &sizes), r.guard.subst(&sub, &sizes)]);
    let body = r.body.subst_vars(&sub, &sizes);
    let mut inner = r.vars.clone();
    inner[k] = s;
    let elem = body.elem;

    let name = format!("{}.partial", f.tensor(d.tensor).name);
    let mut dims: Vec<_> = clause.vars.iter().map(|&v| f.var(v).axis).collect();
    dims.push(partials);
    let partial = f.new_tensor(name, elem, dims, f.tensor(d.tensor).span);
    let mut at_vars = clause.vars.clone();
    at_vars.push(p);
    let first = Clause {
        at: at_vars.iter().map(|&v| v.into()).collect(),
        vars: at_vars.clone(),
        body: Expr::new(elem, Node::Reduce(Reduction { op: r.op, vars: inner, guard, body })),
    };
    let q = f.new_var("partial", partials);
    let mut from: Vec<Index> = clause.vars.iter().map(|&v| v.into()).collect();
    from.push(q.into());
    let second = Clause {
        vars: clause.vars.clone(),
        at: clause.at.clone(),
        body: Expr::reduce(r.op, vec![q], Pred::True, Expr::read(elem, partial, from)),
    };
    Some((
        Definition { tensor: partial, clauses: vec![first], keep: Keep::Auto },
        Definition { tensor: d.tensor, clauses: vec![second], keep: d.keep },
    ))
}

/// Moves a summed variable that no condition and no shifted index mentions to the result, if the result has no such variable.
fn set_free(program: &Program, f: &mut Function, d: &Definition) -> Option<(Definition, Definition)> {
    let [clause] = d.clauses.as_slice() else { return None };
    let Node::Reduce(r) = &*clause.body.node else { return None };
    if r.op != Monoid::Sum || r.vars.len() < 2 || r.guard == Pred::True {
        return None;
    }
    let size = |v: VarId| program.axes[f.var(v).axis.index()].size;
    let free = |v: VarId| {
        let mut free = !r.guard.uses(v);
        r.body.visit_reads(&mut |_, at| free &= at.iter().all(|i| !i.uses(v) || i.as_var() == Some(v)));
        free && size(v) >= VECTOR
    };
    if clause.vars.iter().any(|&v| free(v)) {
        return None;
    }
    let moved = r.vars.iter().copied().filter(|&v| free(v)).max_by_key(|&v| size(v))?;
    let at = clause.vars.len();
    Some(move_to_result(f, d, moved, at))
}

/// Whether a sum to a row of results reads what another one reads, which stays whole to go along rows of memory, at the same points: it goes along.
fn goes_along(program: &Program, f: &Function, facts: &Facts, d: &Definition, body: &[Stmt]) -> bool {
    let Some((clause, r)) = whole_sum(d) else { return false };
    let size = |v: VarId| program.axes[f.var(v).axis.index()].size;
    let points: usize = r.vars.iter().map(|&v| size(v)).product();
    let [lane] = clause.vars[..] else { return false };
    if !columns::pays(facts, points, size(lane)) {
        return false;
    }
    body.iter().any(|stmt| {
        let Stmt::Define(other) = stmt else { return false };
        let Some((own, s)) = whole_sum(other) else { return false };
        let same = |v: VarId, w: VarId| match r.vars.iter().position(|&x| x == v) {
            Some(n) => s.vars.get(n) == Some(&w),
            None => v == lane && own.vars.contains(&w),
        };
        let common = reads(&r.body).iter().any(|(t, at)| {
            let own = reads(&s.body);
            let same_place = |from: &[Index]| {
                let all = at.iter().zip(from).all(|(a, b)| a.as_var().zip(b.as_var()).is_some_and(|(a, b)| same(a, b)));
                all && at.last().and_then(Index::as_var) == Some(lane)
            };
            own.iter().any(|(u, from)| t == u && same_place(from))
        });
        let results: usize = own.vars.iter().map(|&v| size(v)).product();
        let alike = s.vars.len() == r.vars.len() && s.vars.iter().zip(&r.vars).all(|(&a, &b)| size(a) == size(b));
        alike && common && results > size(lane) && moved(program, f, other, facts.lockstep).is_none()
    })
}

/// The clause and the sum of a definition that is nothing else, without conditions.
fn whole_sum(d: &Definition) -> Option<(&Clause, &Reduction)> {
    let [clause] = d.clauses.as_slice() else { return None };
    match &*clause.body.node {
        Node::Reduce(r) if r.op == Monoid::Sum && r.guard == Pred::True => Some((clause, r)),
        _ => None,
    }
}

fn reads(e: &Expr) -> Vec<(TensorId, Vec<Index>)> {
    let mut all = Vec::new();
    e.visit_reads(&mut |t, at| all.push((t, at.to_vec())));
    all
}

/// Moves one of the summed variables of a long sum to the result, in front: the one that leaves the shortest chains in both steps. Where there are
/// too many results for that, each made of what it shares with others, the one with most values for which what is stored in between stays small
/// beside what is read: the parts of a large sum are more work items, each of which can take longer pieces of memory.
/// In lockstep, sums to few results are shortened so, too: there are to be items for all units.
fn spread(program: &Program, f: &mut Function, d: &Definition, lockstep: bool) -> Option<(Definition, Definition)> {
    let moved = moved(program, f, d, lockstep)?;
    Some(move_to_result(f, d, moved, 0))
}

/// The variable that [`spread`] moves, if it moves one.
fn moved(program: &Program, f: &Function, d: &Definition, lockstep: bool) -> Option<VarId> {
    let [clause] = d.clauses.as_slice() else { return None };
    let Node::Reduce(r) = &*clause.body.node else { return None };
    if r.op != Monoid::Sum || r.vars.len() < 2 {
        return None;
    }
    let size = |v: VarId| program.axes[f.var(v).axis.index()].size;
    let results: usize = clause.vars.iter().map(|&v| size(v)).product();
    let points: usize = r.vars.iter().map(|&v| size(v)).product();
    let idle = lockstep && IDLE.iter().any(|&(few, long)| results < few && points >= long);
    if points < CHAIN && !idle {
        return None;
    }
    let candidates = r.vars.iter().copied().filter(|&v| size(v) > 1);
    // Elements that are read, whether all reads leave out some index of the result, and whether any does.
    let (mut read, mut shared, mut taps) = (0, true, false);
    r.body.visit_reads(&mut |_, at| {
        let mut used: Vec<VarId> = Vec::new();
        at.iter().for_each(|i| i.visit_vars(&mut |v| used.push(v)));
        used.sort_unstable();
        used.dedup();
        read += used.iter().map(|&v| size(v)).product::<usize>();
        let left_out = clause.vars.iter().any(|&v| size(v) > 1 && !used.contains(&v));
        shared &= left_out;
        taps |= left_out;
    });
    // Many sums down columns with some taps: rows of memory are best read whole, for all of them (the gradient of a depthwise convolution).
    if taps && !shared && results >= CHAIN && !idle {
        return None;
    }
    let longer = |v: VarId| size(v).max(points / size(v));
    let shortest = |most: usize| {
        let shorter = candidates.clone().filter(|&v| longer(v) < points && size(v) * results <= most);
        shorter.min_by_key(|&v| (longer(v), size(v)))
    };
    if points >= POINTS * results {
        return shortest(usize::MAX);
    }
    if idle && let Some(moved) = shortest(IDLE_PARTIALS) {
        return Some(moved);
    }
    if !shared {
        return None;
    }
    candidates.filter(|&v| size(v) * results * SHARE <= read).max_by_key(|&v| size(v))
}

/// A sum in two steps: over all variables but one, for each value of that one (which becomes index number `at` of the partial results), then over it.
fn move_to_result(f: &mut Function, d: &Definition, moved: VarId, at: usize) -> (Definition, Definition) {
    let clause = &d.clauses[0];
    let Node::Reduce(r) = &*clause.body.node else { unreachable!("only sums are split") };
    let (elem, inner) = (r.body.elem, r.vars.iter().copied().filter(|&v| v != moved).collect());
    let mut vars = clause.vars.clone();
    vars.insert(at, moved);
    let dims = vars.iter().map(|&v| f.var(v).axis).collect();
    let partial = f.new_tensor(format!("{}.partial", f.tensor(d.tensor).name), elem, dims, f.tensor(d.tensor).span);
    let q = f.new_var("partial", f.var(moved).axis);
    let mut from: Vec<Index> = clause.vars.iter().map(|&v| v.into()).collect();
    from.insert(at, q.into());
    let body = Expr::reduce(r.op, inner, r.guard.clone(), r.body.clone());
    let first = Clause { at: vars.iter().map(|&v| v.into()).collect(), vars, body };
    let second = Clause {
        vars: clause.vars.clone(),
        at: clause.at.clone(),
        body: Expr::reduce(r.op, vec![q], Pred::True, Expr::read(elem, partial, from)),
    };
    (
        Definition { tensor: partial, clauses: vec![first], keep: Keep::Auto },
        Definition { tensor: d.tensor, clauses: vec![second], keep: d.keep },
    )
}
