//! Bounds of an index under a guard: exact where few enough points can be tried, by intervals otherwise.

use super::index::{Atom, Index, Sizes};
use super::{Pred, VarId};

/// More points than this are not tried one by one.
const MAX_POINTS: i64 = 1 << 16;

impl Index {
    /// The value at a point; `None` if data-dependent.
    pub fn at(&self, value: &dyn Fn(VarId) -> i64) -> Option<i64> {
        let mut out = self.offset;
        for (a, c) in &self.terms {
            out += c * match a {
                Atom::Var(v) => value(*v),
                Atom::Div(e, k) => e.at(value)?.div_euclid(*k),
                Atom::Mod(e, k) => e.at(value)?.rem_euclid(*k),
                Atom::Clamp(e, lo, hi) => e.at(value)?.clamp(*lo, *hi),
                Atom::Data(_) => return None,
            };
        }
        Some(out)
    }
}

impl Pred {
    /// The truth at a point; `None` if data-dependent.
    pub fn at(&self, value: &dyn Fn(VarId) -> i64) -> Option<bool> {
        Some(match self {
            Pred::True => true,
            Pred::Zero(i) => i.at(value)? == 0,
            Pred::NonNeg(i) => i.at(value)? >= 0,
            Pred::Value(_) => return None,
            Pred::Not(p) => !p.at(value)?,
            Pred::And(ps) => {
                for p in ps {
                    if !p.at(value)? {
                        return Some(false);
                    }
                }
                true
            }
            Pred::Or(ps) => {
                for p in ps {
                    if p.at(value)? {
                        return Some(true);
                    }
                }
                false
            }
        })
    }
}

/// Inclusive bounds of `index` over the points at which `guard` holds; `None` if unknown or if there is no such point. Only conditions on the index's own
/// variables are tried point by point.
pub fn bounds_under(index: &Index, guard: &Pred, sizes: &dyn Sizes) -> Option<(i64, i64)> {
    let (mut lo, mut hi) = index.range(sizes)?;
    for p in guard.conjuncts() {
        let conditions: Vec<Index> = match p {
            Pred::NonNeg(i) => vec![i.clone()],
            Pred::Zero(i) => vec![i.clone(), i.scale(-1)],
            _ => continue,
        };
        for i in conditions {
            // index = i - (i - index) >= -(i - index), and index <= i + index.
            if let Some((_, most)) = i.sub(index).range(sizes) {
                lo = lo.max(-most);
            }
            if let Some((_, most)) = i.add(index).range(sizes) {
                hi = hi.min(most);
            }
        }
    }
    let mut vars = Vec::new();
    index.visit_vars(&mut |v| {
        if !vars.contains(&v) {
            vars.push(v)
        }
    });
    let points = vars.iter().try_fold(1i64, |n, &v| n.checked_mul(sizes.size_of(v)).filter(|&n| n <= MAX_POINTS));
    let own: Vec<&Pred> = guard
        .conjuncts()
        .into_iter()
        .filter(|p| {
            let mut all = true;
            p.visit_vars(&mut |v| all &= vars.contains(&v));
            all
        })
        .collect();
    if points.is_none() || own.is_empty() {
        return (lo <= hi).then_some((lo, hi));
    }
    let mut point = vec![0i64; vars.len()];
    let mut found: Option<(i64, i64)> = None;
    loop {
        let value = |v: VarId| vars.iter().position(|o| *o == v).map_or(0, |n| point[n]);
        if own.iter().all(|p| p.at(&value) != Some(false)) {
            let x = index.at(&value)?;
            found = Some(found.map_or((x, x), |(l, h)| (l.min(x), h.max(x))));
        }
        let Some(next) = (0..vars.len()).rev().find(|&n| point[n] + 1 < sizes.size_of(vars[n])) else { break };
        point[next] += 1;
        point[next + 1..].iter_mut().for_each(|p| *p = 0);
    }
    let (l, h) = found?;
    (l.max(lo) <= h.min(hi)).then_some((l.max(lo), h.min(hi)))
}
