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
//! that rounding shows. It gets as many partial results as one of the summed indices has values. If another sum goes along the rows of what it reads anyway
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
fn set_free(program: &mut Program, f: &mut Function, d: &Definition) -> Option<(Definition, Definition)> {
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
    Some(move_to_result(program, f, d, &[(moved, size(moved))], at))
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

/// Moves summed variables of a long sum to the result, in front: as many parts of it as [`moved`] has values, or more than half of that, which follow one
/// another in memory if they can. Threads that keep to their part of every kernel's items then add up what they have made. In lockstep it is that
/// variable, whichever it is.
fn spread(program: &mut Program, f: &mut Function, d: &Definition, lockstep: bool) -> Option<(Definition, Definition)> {
    let one = moved(program, f, d, lockstep)?;
    let Node::Reduce(r) = &*d.clauses[0].body.node else { return None };
    let size = |v: VarId| program.axes[f.var(v).axis.index()].size;
    // The outermost variables, and of the first that would be too many parts as many as are missing.
    let (mut parts, mut all) = (Vec::new(), 1);
    for v in outermost(r) {
        let fits = (1..=size(one) / all).rev().find(|&n| size(v).is_multiple_of(n)).unwrap_or(1);
        if fits > 1 {
            parts.push((v, fits));
            all *= fits;
        }
        if fits < size(v) {
            break;
        }
    }
    if lockstep || 2 * all <= size(one) {
        parts = vec![(one, size(one))];
    }
    Some(move_to_result(program, f, d, &parts, 0))
}

/// The summed variables in the order of memory, as far as what is read tells.
fn outermost(r: &Reduction) -> Vec<VarId> {
    let mut vars: Vec<(usize, VarId)> = r.vars.iter().map(|&v| (usize::MAX, v)).collect();
    r.body.visit_reads(&mut |_, at| {
        for (place, v) in &mut vars {
            *place = at.iter().position(|i| i.uses(*v)).map_or(*place, |n| n.min(*place));
        }
    });
    vars.sort_by_key(|(place, _)| *place);
    vars.into_iter().map(|(_, v)| v).collect()
}

/// A summed variable with as many values as a long sum gets partial results, if it is to have some: the one that leaves the shortest chains in both steps.
/// Where there are too many results for that, each made of what it shares with others, the one with most values for which what is stored in between
/// stays small beside what is read: the parts of a large sum are more work items, each of which can take longer pieces of memory.
/// In lockstep, sums to few results are shortened so, too: there are to be items for all units.
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

/// A sum in two steps: over what is left of some variables, for each part of them (a number that becomes index number `at` of the partial results),
/// then over all parts. `parts` has the variables, the slowest first, with the number of parts of each.
fn move_to_result(
    program: &mut Program,
    f: &mut Function,
    d: &Definition,
    parts: &[(VarId, usize)],
    at: usize,
) -> (Definition, Definition) {
    let clause = &d.clauses[0];
    let Node::Reduce(r) = &*clause.body.node else { unreachable!("only sums are split") };
    let size = |program: &Program, f: &Function, v: VarId| program.axes[f.var(v).axis.index()].size;
    let axis = match *parts {
        [(v, n)] if n == size(program, f, v) => f.var(v).axis,
        _ => atom(&mut program.axes, "part", parts.iter().map(|(_, n)| n).product()),
    };
    let (part, q) = (f.new_var("part", axis), f.new_var("partial", axis));
    let mut inner = r.vars.clone();
    let mut places: Vec<(VarId, Index)> = Vec::new();
    let mut slower = Index::from(part);
    for &(v, n) in parts.iter().rev() {
        let sizes = VarSizes { vars: &f.vars, axes: &program.axes };
        let number = slower.modulo(n as i64, &sizes);
        slower = slower.div(n as i64, &sizes);
        let each = size(program, f, v) / n;
        if each == 1 {
            inner.retain(|&w| w != v);
            places.push((v, number));
        } else {
            let step = atom(&mut program.axes, "step", each);
            let within = f.new_var(f.var(v).name.clone(), step);
            inner.iter_mut().filter(|w| **w == v).for_each(|w| *w = within);
            places.push((v, number.scale(each as i64).add(&within.into())));
        }
    }
    let sizes = VarSizes { vars: &f.vars, axes: &program.axes };
    let sub = |w| places.iter().find(|(v, _)| *v == w).map(|(_, place)| place.clone());
    let (guard, body) = (r.guard.subst(&sub, &sizes), r.body.subst_vars(&sub, &sizes));
    let elem = body.elem;
    let (mut vars, mut from) = (clause.vars.clone(), clause.vars.iter().map(|&v| v.into()).collect::<Vec<Index>>());
    vars.insert(at, part);
    from.insert(at, q.into());
    let dims = vars.iter().map(|&v| f.var(v).axis).collect();
    let partial = f.new_tensor(format!("{}.partial", f.tensor(d.tensor).name), elem, dims, f.tensor(d.tensor).span);
    let first =
        Clause { at: vars.iter().map(|&v| v.into()).collect(), vars, body: Expr::reduce(r.op, inner, guard, body) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Elem;
    use crate::testing::{Make, arguments, check_schedule};
    use std::collections::BTreeMap;

    /// The gradient of a bias: the sum of all rows of a batch of grids, whose variables are summed in the order given.
    fn bias([b, gy, gx]: [usize; 3], c: usize, order: [usize; 3]) -> Program {
        let mut m = Make::new();
        let x = m.input("x", &[b, gy, gx, c]);
        let [p, row, col, j] = [b, gy, gx, c].map(|size| m.var(size));
        let body = Expr::read(Elem::F32, x, [p, row, col, j].map(Index::from).to_vec());
        let y = m.def("y", &[j], Expr::sum(order.map(|n| [p, row, col][n]).to_vec(), Pred::True, body));
        m.result(y);
        m.program()
    }

    /// How many parts there are, and how many points of `x` each of them has; panics if a part's points are not side by side.
    fn parts(program: &Program, facts: &Facts, [_, gy, gx]: [usize; 3]) -> (usize, usize) {
        let mut program = program.clone();
        split_long_reductions(&mut program, facts);
        let f = program.entry();
        let Some(Stmt::Define(d)) = f.body.first() else { panic!("a definition") };
        let clause = &d.clauses[0];
        let Node::Reduce(r) = &*clause.body.node else { panic!("a sum") };
        let Node::Read { at, .. } = &*r.body.node else { panic!("an element") };
        let place = at[0].scale((gy * gx) as i64).add(&at[1].scale(gx as i64)).add(&at[2]);
        let size = |v: VarId| program.axes[f.var(v).axis.index()].size;
        let vars: Vec<VarId> = clause.vars[..1].iter().chain(&r.vars).copied().collect();
        let sizes = VarSizes { vars: &f.vars, axes: &program.axes };
        let mut places: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        for n in 0..vars.iter().map(|&v| size(v)).product() {
            let mut rest = n;
            let mut values = BTreeMap::new();
            for &v in vars.iter().rev() {
                values.insert(v, (rest % size(v)) as i64);
                rest /= size(v);
            }
            let known = place.subst(&|v| values.get(&v).map(|&n| Index::from(n)), &sizes);
            places.entry(values[&vars[0]] as usize).or_default().push(known.as_const().expect("a number"));
        }
        let each = places[&0].len();
        for (part, mut found) in places.clone() {
            found.sort_unstable();
            let begin = (part * each) as i64;
            assert!(found.into_iter().eq(begin..begin + each as i64), "part {part}");
        }
        (places.len(), each)
    }

    #[test]
    fn parts_follow_one_another_in_memory() {
        for (shape, expected) in [
            // All images, and a part of the rows of each; a part of the images.
            ([4, 28, 28], (28, 112)),
            ([4, 56, 56], (56, 224)),
            ([96, 7, 7], (96, 49)),
            ([99, 1, 41], (33, 123)),
            // Less than there might be, but more than half of it.
            ([5, 28, 28], (20, 196)),
        ] {
            for order in [[0, 1, 2], [2, 1, 0]] {
                let program = bias(shape, 19, order);
                assert_eq!(parts(&program, &Facts::USUAL, shape), expected, "{shape:?}");
                check_schedule(&program, &arguments(&program));
            }
        }
        // Where that would be too few, and where items run in lockstep, one variable.
        let lockstep = Facts { lockstep: true, ..Facts::USUAL };
        for (shape, facts) in [([3, 37, 31], Facts::USUAL), ([4, 28, 28], lockstep)] {
            let mut program = bias(shape, 19, [0, 1, 2]);
            split_long_reductions(&mut program, &facts);
            let Some(Stmt::Define(d)) = program.entry().body.first() else { panic!("a definition") };
            let parts = program.axes[program.entry().var(d.clauses[0].vars[0]).axis.index()].size;
            assert_eq!(parts, if facts.lockstep { 28 } else { 37 });
            check_schedule(&program, &arguments(&program));
        }
    }
}
