//! Solving index equations: from "the points v with f(v) = k" to loops that visit just these.

use crate::ir::index::Sizes;
use crate::ir::{Atom, Axis, Expr, Function, Index, Pred, VarId, VarSizes, atom};

/// A set of points and a value at each: `sum(vars where guard) body`.
#[derive(Clone, Debug)]
pub struct Domain {
    /// The variables that are summed over.
    pub vars: Vec<VarId>,
    /// Which points take part.
    pub guard: Vec<Pred>,
    /// The value.
    pub body: Expr,
}

/// Where new variables come from.
pub struct Names<'a> {
    /// The program's axes.
    pub axes: &'a mut Vec<Axis>,
    /// The function.
    pub function: &'a mut Function,
}

impl Names<'_> {
    fn var(&mut self, name: &str, size: i64) -> VarId {
        let axis = atom(self.axes, name, size.max(1) as usize);
        self.function.new_var(name, axis)
    }
}

impl Sizes for Names<'_> {
    fn size_of(&self, var: VarId) -> i64 {
        VarSizes { vars: &self.function.vars, axes: self.axes }.size_of(var)
    }
}

/// Restricts the domain to the points where every equation is 0, with one variable fewer for every equation that can be solved. `None` if there are no
/// such points.
///
/// Solved are: sums in which one variable stands alone (the one whose loop would be longest goes; with a coefficient the remainder must be 0), mixed-radix sums
/// (`h * D + d`), quotient and remainder of one expression, cyclic shifts (`(v + s) mod n` of a `v` in `0..n`), and a quotient or remainder alone. What cannot be solved (a clamp, a value read from a tensor)
/// becomes a guard, and equations among the guards are used like the others.
pub fn restrict(mut d: Domain, mut equations: Vec<Index>, names: &mut Names<'_>) -> Option<Domain> {
    join_quotients(&mut equations, &mut d, names);
    while unwind(&mut equations, &mut d, names) {
        join_quotients(&mut equations, &mut d, names);
    }
    while let Some(e) = take_solvable(&mut equations, &d, names) {
        if let Some(c) = e.as_const() {
            if c != 0 {
                return None;
            }
            continue;
        }
        let range = e.range(names);
        if let Some((lo, hi)) = range
            && (lo > 0 || hi < 0)
        {
            return None;
        }
        if !step(&e, &mut d, &mut equations, names) && range != Some((0, 0)) {
            d.guard.push(Pred::Zero(e));
        }
    }
    // Equations among the guards: `label - n == 0` gives n.
    loop {
        let found = d.guard.iter().enumerate().find_map(|(n, g)| match g {
            Pred::Zero(e) => alone(e, &d.vars, names).filter(|(_, c)| c.abs() == 1).map(|_| n),
            _ => None,
        });
        let Some(n) = found else { break };
        let Pred::Zero(e) = d.guard.remove(n) else { break };
        let mut none = Vec::new();
        if !step(&e, &mut d, &mut none, names) {
            d.guard.push(Pred::Zero(e));
            break;
        }
    }
    d.guard.retain(|g| *g != Pred::True);
    Some(d)
}

/// The next equation, those with a unique solution first.
fn take_solvable(equations: &mut Vec<Index>, d: &Domain, names: &Names<'_>) -> Option<Index> {
    if equations.is_empty() {
        return None;
    }
    let rank = |e: &Index| {
        if radix(e, &d.vars, names).is_some() {
            0
        } else if alone(e, &d.vars, names).is_some() {
            1
        } else {
            2
        }
    };
    let n = (0..equations.len()).min_by_key(|&n| rank(&equations[n]))?;
    Some(equations.remove(n))
}

/// Uses one equation; false if it cannot be solved.
fn step(e: &Index, d: &mut Domain, equations: &mut Vec<Index>, names: &mut Names<'_>) -> bool {
    if let Some((chain, q)) = radix(e, &d.vars, names) {
        let base = chain[0].1;
        if base > 1 {
            d.guard.push(Pred::Zero(q.modulo(base, names)));
        }
        let (_, top, top_size) = *chain.last().expect("a chain has a variable");
        d.guard.push(Pred::within(&q, 0, top * top_size, names));
        let solution = digits(&chain, &q, names);
        substitute(d, equations, &solution, names);
        return true;
    }
    if let Some((v, c)) = alone(e, &d.vars, names) {
        let mut rest = e.clone();
        rest.add_term(Atom::Var(v), -c);
        let q = if c < 0 { rest } else { rest.scale(-1) };
        let c = c.abs();
        if c > 1 {
            d.guard.push(Pred::Zero(q.modulo(c, names)));
        }
        let x = q.div(c, names);
        d.guard.push(Pred::within(&x, 0, names.size_of(v), names));
        substitute(d, equations, &[(v, x)], names);
        return true;
    }
    // A quotient or remainder alone: what it leaves out becomes a variable.
    let open = e.terms.iter().find_map(|(a, k)| match a {
        Atom::Div(inner, c) if k.abs() == 1 && mentions(inner, &d.vars) => {
            Some((a.clone(), inner.clone(), *c, *k, true))
        }
        Atom::Mod(inner, c) if k.abs() == 1 && mentions(inner, &d.vars) => {
            Some((a.clone(), inner.clone(), *c, *k, false))
        }
        _ => None,
    });
    if let Some((atom, inner, c, k, quotient)) = open {
        let mut rest = e.clone();
        rest.add_term(atom, -k);
        let value = rest.scale(-k);
        let Some((lo, hi)) = inner.range(names) else { return false };
        if mentions(&value, &d.vars) || lo < 0 {
            return false;
        }
        let flat = if quotient {
            let r = names.var("rest", c);
            d.vars.push(r);
            value.scale(c).add(&r.into())
        } else {
            let r = names.var("round", hi / c + 1);
            d.vars.push(r);
            d.guard.push(Pred::within(&value, 0, c, names));
            Index::from(r).scale(c).add(&value)
        };
        equations.push(inner.sub(&flat));
        return true;
    }
    false
}

/// The variables of a mixed-radix sum that is `q`; a guard bounds the last one.
fn digits(chain: &[(VarId, i64, i64)], q: &Index, names: &Names<'_>) -> Vec<(VarId, Index)> {
    let digit = |(n, &(v, c, size)): (usize, &(VarId, i64, i64))| {
        let part = q.div(c, names);
        (v, if n + 1 == chain.len() { part } else { part.modulo(size, names) })
    };
    chain.iter().enumerate().map(digit).collect()
}

/// Turns one cyclic shift into a variable of its own: where `x` runs through numbers of `0..n`, each once, and an equation has `(x + s) mod n`, that is
/// a variable `u` of `0..n`, and `x` is `(u - s) mod n`. Gives whether there was one.
fn unwind(equations: &mut [Index], d: &mut Domain, names: &mut Names<'_>) -> bool {
    let shifts = |equations: &[Index], vars: &[VarId], names: &Names<'_>| {
        let mut out = Vec::new();
        equations.iter().for_each(|e| remainders(e, &mut |inner, n| out.push((inner.clone(), n))));
        out.retain(|(inner, n)| {
            radix(inner, vars, names).is_some_and(|(chain, _)| {
                let (_, top, size) = chain[chain.len() - 1];
                chain[0].1 == 1 && top * size <= *n
            })
        });
        out
    };
    let found = shifts(equations, &d.vars, names);
    for (inner, n) in &found {
        let u = names.var("turned", *n);
        let Some((chain, x)) = radix(&inner.sub(&u.into()), &d.vars, names) else { continue };
        let x = x.modulo(*n, names);
        let (_, top, size) = chain[chain.len() - 1];
        let guard = Pred::within(&x, 0, top * size, names);
        let solution: Vec<(VarId, Index)> = digits(&chain, &x, names);
        let f = |v: VarId| solution.iter().find(|(w, _)| *w == v).map(|(_, i)| i.clone());
        let named: Vec<Index> = equations.iter().map(|e| with_name(e, inner, *n, u, names)).collect();
        let turned: Vec<Index> = named.iter().map(|e| e.subst(&f, names)).collect();
        let mut vars = d.vars.clone();
        vars.push(u);
        // Where `x` stands in the equations otherwise too, nothing may be won.
        if shifts(&turned, &vars, names).len() >= found.len() {
            continue;
        }
        equations.clone_from_slice(&named);
        substitute(d, equations, &solution, names);
        d.vars.push(u);
        d.guard.push(guard);
        return true;
    }
    false
}

/// The index with `u` for every `inner mod n`.
fn with_name(i: &Index, inner: &Index, n: i64, u: VarId, names: &Names<'_>) -> Index {
    let mut out = Index::from(i.offset);
    for (a, k) in &i.terms {
        let part = match a {
            Atom::Mod(e, m) if **e == *inner && *m == n => u.into(),
            Atom::Mod(e, m) => with_name(e, inner, n, u, names).modulo(*m, names),
            Atom::Div(e, m) => with_name(e, inner, n, u, names).div(*m, names),
            Atom::Clamp(e, lo, hi) => with_name(e, inner, n, u, names).clamped(*lo, *hi, names),
            Atom::Var(_) | Atom::Data(_) => Index::atom(a.clone()),
        };
        out = out.add(&part.scale(*k));
    }
    out
}

/// Calls `f` for every `(e mod n)` in an index.
fn remainders(i: &Index, f: &mut dyn FnMut(&Index, i64)) {
    for (a, _) in &i.terms {
        match a {
            Atom::Mod(e, n) => {
                f(e, *n);
                remainders(e, f);
            }
            Atom::Div(e, _) | Atom::Clamp(e, ..) => remainders(e, f),
            Atom::Var(_) | Atom::Data(_) => {}
        }
    }
}

fn mentions(i: &Index, vars: &[VarId]) -> bool {
    vars.iter().any(|&v| i.uses(v))
}

fn substitute(d: &mut Domain, equations: &mut [Index], solution: &[(VarId, Index)], names: &Names<'_>) {
    let f = |v: VarId| solution.iter().find(|(w, _)| *w == v).map(|(_, i)| i.clone());
    d.vars.retain(|v| f(*v).is_none());
    d.guard.iter_mut().for_each(|g| *g = g.subst(&f, names));
    d.body = d.body.subst_vars(&f, names);
    equations.iter_mut().for_each(|e| *e = e.subst(&f, names));
}

/// `sum of c_n x_n = q` with `c_{n+1} = c_n * size_n`, smallest coefficient first, over all the variables of the equation (none of them nested in an atom): one solution at most.
fn radix(e: &Index, vars: &[VarId], names: &Names<'_>) -> Option<(Vec<(VarId, i64, i64)>, Index)> {
    let mut chain = Vec::new();
    let mut rest = Index::from(e.offset);
    for (a, c) in &e.terms {
        match a {
            Atom::Var(v) if vars.contains(v) => chain.push((*v, *c, names.size_of(*v))),
            other => {
                if mentions(&Index::atom(other.clone()), vars) {
                    return None;
                }
                rest.add_term(other.clone(), *c);
            }
        }
    }
    if chain.is_empty() {
        return None;
    }
    let sign = chain[0].1.signum();
    chain.iter_mut().for_each(|(_, c, _)| *c *= sign);
    // Variables of size one are always 0 and fit anywhere.
    chain.sort_by_key(|&(_, c, size)| (c, size));
    let fits = chain.iter().all(|&(_, c, _)| c > 0) && chain.windows(2).all(|w| w[1].1 == w[0].1 * w[0].2);
    fits.then(|| (chain, rest.scale(-sign)))
}

/// The variable to solve for: direct, not nested elsewhere in the equation; the largest, and of equals one without coefficient.
fn alone(e: &Index, vars: &[VarId], names: &Names<'_>) -> Option<(VarId, i64)> {
    e.terms
        .iter()
        .filter_map(|(a, c)| match a {
            Atom::Var(v) if vars.contains(v) => {
                let nested = e.terms.iter().any(|(b, _)| b != a && Index::atom(b.clone()).uses(*v));
                (!nested).then_some((*v, *c))
            }
            _ => None,
        })
        .max_by_key(|&(v, c)| (names.size_of(v), -c.abs()))
}

/// Replaces `e div c = p` and `e mod c = q` by `e = p c + q`.
fn join_quotients(equations: &mut Vec<Index>, d: &mut Domain, names: &Names<'_>) {
    loop {
        let mut found = None;
        'search: for (n, a) in equations.iter().enumerate() {
            for (atom, k) in &a.terms {
                let Atom::Div(inner, c) = atom else { continue };
                if k.abs() != 1 || !mentions(inner, &d.vars) {
                    continue;
                }
                let twin = Atom::Mod(inner.clone(), *c);
                for (m, b) in equations.iter().enumerate() {
                    if let Some((_, l)) = b.terms.iter().find(|(t, l)| *t == twin && l.abs() == 1)
                        && m != n
                    {
                        let value = |e: &Index, atom: &Atom, k: i64| {
                            let mut rest = e.clone();
                            rest.add_term(atom.clone(), -k);
                            rest.scale(-k)
                        };
                        let (p, q) = (value(a, atom, *k), value(b, &twin, *l));
                        if mentions(&p, &d.vars) || mentions(&q, &d.vars) {
                            continue;
                        }
                        found = Some((n, m, inner.sub(&p.scale(*c).add(&q)), Pred::within(&q, 0, *c, names)));
                        break 'search;
                    }
                }
            }
        }
        let Some((n, m, joined, guard)) = found else { return };
        equations.remove(n.max(m));
        equations.remove(n.min(m));
        equations.push(joined);
        d.guard.push(guard);
    }
}
