//! What a read of a definition is worth: the clause that gives the element, with its variables solved for.

use super::Cx;
use crate::ir::{Atom, Bounds, Definition, Expr, Index, Pred, VarId};

/// A clause of a definition at a read's indices.
pub(crate) struct Resolved {
    /// Which clause.
    pub clause: usize,
    /// Its variables in terms of the read's.
    pub vars: Vec<(VarId, Index)>,
    /// Where the read is inside the tensor (and 0 elsewhere).
    pub inside: Pred,
}

/// Finds the one clause that the read hits wherever it is inside the tensor, if ranges say so.
pub(crate) fn resolve(cx: &Cx, d: &Definition, at: &[Index], bounds: Bounds) -> Option<Resolved> {
    let sizes = cx.sizes();
    let shape = cx.shape(d.tensor);
    if at.len() != shape.len() {
        return None;
    }
    let inside = match bounds {
        Bounds::Inside => Pred::True,
        Bounds::Zero => Pred::and(at.iter().zip(&shape).map(|(i, &n)| Pred::within(i, 0, n, &sizes))),
    };
    let mut hit = None;
    for (c, clause) in d.clauses.iter().enumerate() {
        match solve(cx, &clause.at, &clause.vars, at)? {
            Solution::Never => {}
            Solution::Always(vars) => hit = Some(Resolved { clause: c, vars, inside: inside.clone() }),
            Solution::Sometimes(vars) if d.clauses.len() == 1 => {
                hit = Some(Resolved { clause: c, vars, inside: inside.clone() })
            }
            Solution::Sometimes(_) => return None,
        }
    }
    hit
}

enum Solution {
    Never,
    Sometimes(Vec<(VarId, Index)>),
    Always(Vec<(VarId, Index)>),
}

/// Solves `pattern(vars) = at`; `None` where the pattern has no known inverse.
fn solve(cx: &Cx, pattern: &[Index], vars: &[VarId], at: &[Index]) -> Option<Solution> {
    let sizes = cx.sizes();
    let (mut out, mut sure): (Vec<(VarId, Index)>, bool) = (Vec::new(), true);
    for (p, e) in pattern.iter().zip(at) {
        let mut terms: Vec<(VarId, i64)> = Vec::new();
        for (a, k) in &p.terms {
            match a {
                Atom::Var(v) if *k > 0 => terms.push((*v, *k)),
                _ => return None,
            }
        }
        terms.sort_by_key(|(_, k)| *k);
        let rest = e.plus(-p.offset);
        let mut span = 1;
        for &(v, k) in &terms {
            if k != span || out.iter().any(|(o, _)| *o == v) {
                return None;
            }
            span *= cx.size(v);
        }
        match rest.range(&sizes) {
            Some((lo, hi)) if hi < 0 || lo >= span => return Some(Solution::Never),
            Some((lo, hi)) if lo >= 0 && hi < span => {}
            _ => sure = false,
        }
        for (n, &(v, k)) in terms.iter().enumerate() {
            let whole = rest.div(k, &sizes);
            let last = n + 1 == terms.len();
            out.push((v, if last { whole } else { whole.modulo(cx.size(v), &sizes) }));
        }
    }
    if vars.iter().any(|v| !out.iter().any(|(o, _)| o == v)) {
        return None;
    }
    Some(if sure { Solution::Always(out) } else { Solution::Sometimes(out) })
}

/// The value of the read as an expression: the clause's body at these indices, 0 outside where the read says so.
pub(crate) fn inline(cx: &mut Cx, d: &Definition, at: &[Index], bounds: Bounds) -> Option<Expr> {
    let resolved = resolve(cx, d, at, bounds)?;
    let body = cx.freshen(&d.clauses[resolved.clause].body);
    let body = cx.subst(&body, &resolved.vars);
    let zero = Expr::constant(body.elem, 0.0);
    Some(Expr::select(resolved.inside, body, zero))
}

/// Variables and their values.
type Fixed = Vec<(VarId, Index)>;

/// The clauses of a definition at which dimension `dim` is the constant `c`, without that dimension: for each its index, the
/// values of the variables that this fixes, and `None` where the clause's index has no known inverse.
pub(crate) fn at_constant(cx: &Cx, d: &Definition, dim: usize, c: i64) -> Option<Vec<(usize, Fixed)>> {
    let mut out = Vec::new();
    for (n, clause) in d.clauses.iter().enumerate() {
        let pattern = std::slice::from_ref(&clause.at[dim]);
        let own: Vec<VarId> = clause.vars.iter().copied().filter(|&v| clause.at[dim].uses(v)).collect();
        match solve(cx, pattern, &own, &[Index::from(c)])? {
            Solution::Never => {}
            Solution::Always(vars) | Solution::Sometimes(vars) => out.push((n, vars)),
        }
    }
    Some(out)
}
