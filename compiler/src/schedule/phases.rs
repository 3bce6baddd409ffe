//! Sums with strides, phase by phase.
//!
//! The gradient of a convolution with stride `m` collects, at an element `k` of its input, the taps `t` with `k + c - t` a multiple of `m`: in a loop over
//! all taps only every `m`-th counts, in each direction. Here the elements with the same remainder `p` of `k` by `m` become a clause of their own, over
//! `q` with `k = m q + p`; which taps count is then known, and the loop is over `u` with `t = m u + t0`.

use crate::ir::index::Index;
use crate::ir::{
    Atom, Axis, Clause, Definition, Expr, Function, Keep, Monoid, Node, Pred, Program, Reduction, Stmt, VarId,
    VarSizes, atom,
};

/// Sums of fewer points are left as they are: more clauses are more kernels.
const POINTS: usize = 32;
/// Clauses that a definition may become.
const CLAUSES: usize = 16;

/// Takes the definitions of every function apart by phases, where that shortens their sums.
pub fn split_phases(program: &mut Program) {
    for n in 0..program.functions.len() {
        let mut f = program.functions[n].clone();
        let mut body = std::mem::take(&mut f.body);
        for stmt in &mut body {
            if let Stmt::Define(d) = stmt
                && d.keep != Keep::Recompute
                && let [clause] = &d.clauses[..]
            {
                let clauses = by_phase(&mut program.axes, &mut f, clause.clone(), POINTS);
                if clauses.len() > 1 && clauses.len() <= CLAUSES {
                    *d = Definition { clauses, ..d.clone() };
                }
            }
        }
        f.body = body;
        program.functions[n] = f;
    }
}

/// The clause in phases of all its variables that have some in a sum of at least so many points.
fn by_phase(axes: &mut Vec<Axis>, f: &mut Function, clause: Clause, least: usize) -> Vec<Clause> {
    let Some((k, m)) = phased(axes, f, &clause, least) else { return vec![clause] };
    let size = axes[f.var(k).axis.index()].size;
    let mut out = Vec::new();
    for p in 0..size.min(m) {
        let name = f.var(k).name.clone();
        let q = f.new_var(&name, atom(axes, &name, (size - p).div_ceil(m)));
        let place = Index::from(q).scale(m as i64).plus(p as i64);
        let at = |v: VarId| (v == k).then(|| place.clone());
        let vars = clause.vars.iter().map(|&v| if v == k { q } else { v }).collect();
        let (to, body) = {
            let sizes = VarSizes { vars: &f.vars, axes };
            (clause.at.iter().map(|i| i.subst(&at, &sizes)).collect(), clause.body.subst_vars(&at, &sizes))
        };
        let body = in_strides(axes, f, &body);
        out.extend(by_phase(axes, f, Clause { vars, at: to, body }, 1));
    }
    out
}

/// A variable of the clause that decides, with one of a sum of so many points and a modulus, which points of the sum count.
fn phased(axes: &[Axis], f: &Function, clause: &Clause, least: usize) -> Option<(VarId, usize)> {
    let mut found = None;
    each_sum(&clause.body, &mut |r| {
        let points: usize = r.vars.iter().map(|&v| axes[f.var(v).axis.index()].size).product();
        if found.is_some() || points < least {
            return;
        }
        found = r.guard.conjuncts().into_iter().find_map(|p| {
            let (sum, m) = remainder(p)?;
            let once = |vars: &[VarId]| {
                let mut used = vars.iter().copied().filter(|&v| sum.coefficient(v) != 0);
                used.next().filter(|_| used.next().is_none())
            };
            let (k, t) = (once(&clause.vars)?, once(&r.vars)?);
            let others = sum.terms.iter().all(|(a, c)| *a == Atom::Var(k) || *a == Atom::Var(t) || c % m == 0);
            let sized = axes[f.var(k).axis.index()].size > 1;
            (others && sized && sum.coefficient(k).abs() == 1 && sum.coefficient(t).abs() == 1)
                .then_some((k, m as usize))
        });
    });
    found
}

/// The index of which a condition asks that it is a multiple, and of what.
fn remainder(p: &Pred) -> Option<(&Index, i64)> {
    let Pred::Zero(Index { terms, offset: 0 }) = p else { return None };
    match &terms[..] {
        [(Atom::Mod(sum, m), 1 | -1)] => Some((sum, *m)),
        _ => None,
    }
}

fn each_sum(e: &Expr, visit: &mut impl FnMut(&Reduction)) {
    if let Node::Reduce(r) = &*e.node
        && r.op == Monoid::Sum
    {
        visit(r);
    }
    e.for_each_child(&mut |c| each_sum(c, visit));
}

/// The expression with sums over just those values of a variable for which it has a known remainder, where a condition asks for that.
fn in_strides(axes: &mut Vec<Axis>, f: &mut Function, e: &Expr) -> Expr {
    let e = e.map_children(&mut |c| in_strides(axes, f, c));
    let Node::Reduce(r) = &*e.node else { return e };
    let mut found = None;
    if r.op == Monoid::Sum {
        let sizes = VarSizes { vars: &f.vars, axes };
        let never = |p: &&Pred| matches!(p, Pred::Zero(i) if i.range(&sizes).is_some_and(|(lo, hi)| lo > 0 || hi < 0));
        if r.guard.conjuncts().iter().any(never) {
            return Expr::constant(e.elem, 0.0);
        }
        found = r.guard.conjuncts().into_iter().find_map(|p| {
            let (sum, m) = remainder(p)?;
            let t = r.vars.iter().copied().find(|&t| sum.coefficient(t).abs() == 1)?;
            let alone = sum.terms.iter().all(|(a, c)| *a == Atom::Var(t) || c % m == 0);
            // sum = b t + c: a multiple of m where t = -b c, b being its own inverse.
            alone.then(|| (t, m as usize, (-sum.coefficient(t) * sum.offset).rem_euclid(m) as usize))
        });
    }
    let Some((t, m, first)) = found else { return e };
    let size = axes[f.var(t).axis.index()].size;
    if first >= size {
        return Expr::constant(e.elem, 0.0);
    }
    let steps = (size - first).div_ceil(m);
    let name = f.var(t).name.clone();
    let step = (steps > 1).then(|| f.new_var(&name, atom(axes, &name, steps)));
    let place = step.map_or(Index::default(), |u| Index::from(u).scale(m as i64)).plus(first as i64);
    let at = |v: VarId| (v == t).then(|| place.clone());
    let vars: Vec<VarId> = r.vars.iter().filter_map(|&v| if v == t { step } else { Some(v) }).collect();
    let sizes = VarSizes { vars: &f.vars, axes };
    let reduction =
        Reduction { op: r.op, vars, guard: r.guard.subst(&at, &sizes), body: r.body.subst_vars(&at, &sizes) };
    let e = if reduction.vars.is_empty() {
        match reduction.guard {
            Pred::True => reduction.body,
            guard => Expr::select(guard, reduction.body, Expr::constant(e.elem, 0.0)),
        }
    } else {
        Expr { elem: e.elem, node: Box::new(Node::Reduce(reduction)) }
    };
    // There may be another such condition.
    in_strides(axes, f, &e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Elem;
    use crate::testing::{Make, arguments, check_schedule, rd};

    /// What a convolution of this stride, with taps in two directions, gives back to its input of `n` by `n` elements with `c` channels.
    fn back(n: usize, c: usize, o: usize, taps: usize, stride: usize, pad: usize) -> Program {
        let out = (n + 2 * pad - taps) / stride + 1;
        let mut m = Make::new();
        let (g, w) = (m.input("g", &[out, out, o]), m.param("w", &[o, c, taps, taps]));
        let [y, x, i, k, u, v] = [n, n, c, o, taps, taps].map(|size| m.var(size));
        let from = |at: VarId, tap: VarId| Index::from(at).sub(&tap.into()).plus(pad as i64);
        let known = m.f.vars.clone();
        let sizes = VarSizes { vars: &known, axes: &m.program.axes };
        let place = |at, tap| from(at, tap).div(stride as i64, &sizes);
        let counts = |at, tap| Pred::Zero(from(at, tap).modulo(stride as i64, &sizes));
        let inside = |at, tap| Pred::within(&place(at, tap), 0, out as i64, &sizes);
        let guard = Pred::and([counts(y, u), inside(y, u), counts(x, v), inside(x, v)]);
        let read = Expr::read(Elem::F32, g, vec![place(y, u), place(x, v), k.into()]);
        let sum = Expr::sum(vec![k, u, v], guard, Expr::mul(read, rd(w, &[k, i, u, v])));
        // Something beside the sum that has the same variables.
        let body = Expr::add(sum, rd(w, &[k, i, u, v]).subst_vars(&|v| (v != i).then(Index::default), &sizes));
        let d = m.def("d", &[y, x, i], body);
        m.result(d);
        m.program()
    }

    fn clauses(program: &Program) -> Vec<Clause> {
        let mut program = program.clone();
        split_phases(&mut program);
        let Stmt::Define(d) = &program.entry().body[0] else { panic!("a definition") };
        d.clauses.clone()
    }

    #[test]
    fn the_gradients_of_strided_convolutions_agree() {
        for (n, c, o, taps, stride, pad) in
            [(8, 16, 8, 3, 2, 1), (7, 5, 9, 3, 2, 1), (9, 3, 40, 2, 3, 0), (13, 4, 8, 7, 4, 3), (5, 17, 4, 3, 1, 1)]
        {
            let program = back(n, c, o, taps, stride, pad);
            check_schedule(&program, &arguments(&program));
        }
    }

    #[test]
    fn every_point_of_a_sum_counts() {
        let clauses = clauses(&back(8, 16, 8, 3, 2, 1));
        assert_eq!(clauses.len(), 4);
        let mut taps = Vec::new();
        for c in &clauses {
            each_sum(&c.body, &mut |r| {
                assert!(r.guard.conjuncts().into_iter().all(|p| remainder(p).is_none()), "{:?}", r.guard);
                taps.push(r.vars.len() - 1);
            });
        }
        // A tap of three counts at even places, two at odd ones: two directions.
        assert_eq!(taps, [0, 1, 1, 2]);
    }

    #[test]
    fn what_has_no_stride_or_hardly_any_points_stays() {
        assert_eq!(clauses(&back(5, 17, 4, 3, 1, 1)).len(), 1);
        assert_eq!(clauses(&back(8, 4, 1, 3, 2, 1)).len(), 1);
    }

    #[test]
    fn a_phase_that_no_tap_meets_is_the_rest() {
        // A tap for every third element alone.
        let clauses = clauses(&back(9, 2, 64, 1, 3, 0));
        let mut sums = 0;
        clauses.iter().for_each(|c| each_sum(&c.body, &mut |_| sums += 1));
        assert_eq!((clauses.len(), sums), (5, 1));
    }
}
