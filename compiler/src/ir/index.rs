//! Quasi-affine integer expressions over index variables, kept in one normal form.
//!
//! An [`Index`] is `offset + sum of coefficient * atom`; an [`Atom`] is a variable, a floor division, a modulo or a clamp of another index, or an integer
//! read from a tensor. Terms are sorted, coefficients non-zero, every atom occurs once: so equal normal forms mean equal
//! values, and `==` is a (sound, not complete) test of equality. Division and modulo are by positive constants and round down.

use super::expr::Expr;
use super::{TensorId, VarId};

/// `offset + sum of coefficient * atom`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Index {
    /// Sorted by atom; coefficients are not zero.
    pub terms: Vec<(Atom, i64)>,
    /// The constant part.
    pub offset: i64,
}

/// What an index is a linear combination of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A variable.
    Var(VarId),
    /// Floor division by a positive constant.
    Div(Box<Index>, i64),
    /// Remainder of the floor division by a positive constant, in `0..c`.
    Mod(Box<Index>, i64),
    /// Clamp into `lo..=hi`.
    Clamp(Box<Index>, i64, i64),
    /// The value of an i32 expression (a label read from a tensor).
    Data(Box<Expr>),
}

/// Gives the number of elements of a variable's axis; variables range over `0..size`.
pub trait Sizes {
    /// The size.
    fn size_of(&self, var: VarId) -> i64;
}

impl<F: Fn(VarId) -> i64> Sizes for F {
    fn size_of(&self, var: VarId) -> i64 {
        self(var)
    }
}

impl From<VarId> for Index {
    fn from(v: VarId) -> Index {
        Index::atom(Atom::Var(v))
    }
}

impl From<i64> for Index {
    fn from(offset: i64) -> Index {
        Index { terms: Vec::new(), offset }
    }
}

impl Index {
    /// One atom.
    pub fn atom(atom: Atom) -> Index {
        Index { terms: vec![(atom, 1)], offset: 0 }
    }
    /// The value, if constant.
    pub fn as_const(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.offset)
    }
    /// The variable, if the index is exactly one.
    pub fn as_var(&self) -> Option<VarId> {
        match (self.terms.as_slice(), self.offset) {
            ([(Atom::Var(v), 1)], 0) => Some(*v),
            _ => None,
        }
    }
    /// `self + other`.
    pub fn add(&self, other: &Index) -> Index {
        let mut out = self.clone();
        out.offset += other.offset;
        for (a, c) in &other.terms {
            out.add_term(a.clone(), *c);
        }
        out
    }
    /// `self - other`.
    pub fn sub(&self, other: &Index) -> Index {
        self.add(&other.scale(-1))
    }
    /// `self + c`.
    pub fn plus(&self, c: i64) -> Index {
        Index { terms: self.terms.clone(), offset: self.offset + c }
    }
    /// `c * self`.
    pub fn scale(&self, c: i64) -> Index {
        if c == 0 {
            return Index::default();
        }
        Index { terms: self.terms.iter().map(|(a, k)| (a.clone(), k * c)).collect(), offset: self.offset * c }
    }
    /// Adds `c * atom`, keeping the normal form.
    pub fn add_term(&mut self, atom: Atom, c: i64) {
        match self.terms.binary_search_by(|(a, _)| a.cmp(&atom)) {
            Ok(p) => {
                self.terms[p].1 += c;
                if self.terms[p].1 == 0 {
                    self.terms.remove(p);
                }
            }
            Err(p) if c != 0 => self.terms.insert(p, (atom, c)),
            Err(_) => {}
        }
    }
    /// Floor division by `c > 0`, simplified with what is known of the variables' ranges.
    pub fn div(&self, c: i64, sizes: &dyn Sizes) -> Index {
        debug_assert!(c > 0);
        if c == 1 {
            return self.clone();
        }
        let (whole, rest) = self.split(c);
        if let Some((lo, hi)) = rest.range(sizes)
            && lo.div_euclid(c) == hi.div_euclid(c)
        {
            return whole.plus(lo.div_euclid(c));
        }
        // floor((floor(e / k) + o) / c) = floor((e + o k) / (k c))
        if let [(Atom::Div(e, k), 1)] = rest.terms.as_slice() {
            return whole.add(&e.plus(rest.offset * k).div(k * c, sizes));
        }
        // floor((g a + b) / c) = floor(a / (c / g)) where g divides c and 0 <= b < g
        if let Some((g, a, _)) = rest.radix(c, sizes) {
            return whole.add(&a.div(c / g, sizes));
        }
        whole.add(&Index::atom(Atom::Div(Box::new(rest), c)))
    }
    /// Remainder of the floor division by `c > 0`.
    pub fn modulo(&self, c: i64, sizes: &dyn Sizes) -> Index {
        debug_assert!(c > 0);
        if c == 1 {
            return Index::default();
        }
        let (_, rest) = self.split(c);
        if let Some((lo, hi)) = rest.range(sizes)
            && lo.div_euclid(c) == hi.div_euclid(c)
        {
            return rest.plus(-lo.div_euclid(c) * c);
        }
        if let Some((g, a, b)) = rest.radix(c, sizes) {
            return a.modulo(c / g, sizes).scale(g).add(&b);
        }
        // k (e mod n) = k e - k n (e div n)
        let nested = rest.terms.iter().find_map(|(a, k)| match a {
            Atom::Mod(e, n) if (k * n) % c == 0 => Some((a.clone(), *k, e.clone())),
            _ => None,
        });
        if let Some((atom, k, e)) = nested {
            let mut plain = rest.add(&e.scale(k));
            plain.add_term(atom, -k);
            return plain.modulo(c, sizes);
        }
        Index::atom(Atom::Mod(Box::new(rest), c))
    }
    /// `self = g a + b` with a divisor `1 < g < c` of `c` and `0 <= b < g`: the mixed-radix form of merged variables.
    fn radix(&self, c: i64, sizes: &dyn Sizes) -> Option<(i64, Index, Index)> {
        self.terms.iter().map(|(_, k)| gcd(k.abs(), c)).filter(|&g| g > 1 && g < c).find_map(|g| {
            let (a, b) = self.split(g);
            let (lo, hi) = b.range(sizes)?;
            (lo >= 0 && hi < g && !a.terms.is_empty()).then_some((g, a, b))
        })
    }
    /// Clamp into `lo..=hi`.
    pub fn clamped(&self, lo: i64, hi: i64, sizes: &dyn Sizes) -> Index {
        match self.range(sizes) {
            Some((a, b)) if a >= lo && b <= hi => self.clone(),
            Some((_, b)) if b <= lo => Index::from(lo),
            Some((a, _)) if a >= hi => Index::from(hi),
            _ => Index::atom(Atom::Clamp(Box::new(self.clone()), lo, hi)),
        }
    }
    /// `self = c * whole + rest` with the multiples of `c` in `whole` and `rest`'s offset in `0..c`; pairs
    /// `k * (e / m)` and `(e % m)` that make up `e` are left to [`Index::fold`].
    fn split(&self, c: i64) -> (Index, Index) {
        let mut whole = Index::from(self.offset.div_euclid(c));
        let mut rest = Index::from(self.offset.rem_euclid(c));
        for (a, k) in &self.terms {
            if k % c == 0 {
                whole.add_term(a.clone(), k / c);
            } else {
                rest.add_term(a.clone(), *k);
            }
        }
        (whole, rest)
    }
    /// Replaces `c m (e / m) + c (e % m)` by `c e` until nothing changes.
    pub fn fold(&self) -> Index {
        let mut out = self.clone();
        loop {
            let found = out.terms.iter().find_map(|(a, k)| match a {
                Atom::Mod(e, m) => {
                    let div = quotient(e, *m);
                    out.terms.iter().any(|(b, l)| *b == div && *l == k * m).then(|| (e.clone(), div, *m, *k))
                }
                _ => None,
            });
            let Some((e, div, m, k)) = found else { return out };
            out.add_term(Atom::Mod(e.clone(), m), -k);
            out.add_term(div, -k * m);
            out = out.add(&e.scale(k));
        }
    }
    /// Inclusive bounds, if known (data-dependent atoms have none).
    pub fn range(&self, sizes: &dyn Sizes) -> Option<(i64, i64)> {
        let (mut lo, mut hi) = (self.offset, self.offset);
        for (a, c) in &self.terms {
            let (l, h) = a.range(sizes)?;
            if *c > 0 {
                lo += c * l;
                hi += c * h;
            } else {
                lo += c * h;
                hi += c * l;
            }
        }
        Some((lo, hi))
    }
    /// Replaces variables; `f` gives `None` for those that stay. Data-dependent atoms are substituted too.
    pub fn subst(&self, f: &dyn Fn(VarId) -> Option<Index>, sizes: &dyn Sizes) -> Index {
        let mut out = Index::from(self.offset);
        for (a, c) in &self.terms {
            let e = match a {
                Atom::Var(v) => f(*v).unwrap_or_else(|| Index::from(*v)),
                Atom::Div(e, k) => e.subst(f, sizes).div(*k, sizes),
                Atom::Mod(e, k) => e.subst(f, sizes).modulo(*k, sizes),
                Atom::Clamp(e, lo, hi) => e.subst(f, sizes).clamped(*lo, *hi, sizes),
                Atom::Data(e) => Index::atom(Atom::Data(Box::new(e.subst_vars(f, sizes)))),
            };
            out = out.add(&e.scale(*c));
        }
        out.fold()
    }
    /// Calls `f` for every variable that occurs (also inside nested and data-dependent atoms, free ones only).
    pub fn visit_vars(&self, f: &mut dyn FnMut(VarId)) {
        for (a, _) in &self.terms {
            match a {
                Atom::Var(v) => f(*v),
                Atom::Div(e, _) | Atom::Mod(e, _) | Atom::Clamp(e, ..) => e.visit_vars(f),
                Atom::Data(e) => e.visit_vars(f),
            }
        }
    }
    /// Whether the variable occurs.
    pub fn uses(&self, var: VarId) -> bool {
        let mut found = false;
        self.visit_vars(&mut |v| found |= v == var);
        found
    }
    /// Calls `f` for every read inside data-dependent atoms.
    pub fn visit_reads(&self, f: &mut dyn FnMut(TensorId, &[Index])) {
        for (a, _) in &self.terms {
            match a {
                Atom::Var(_) => {}
                Atom::Div(e, _) | Atom::Mod(e, _) | Atom::Clamp(e, ..) => e.visit_reads(f),
                Atom::Data(e) => e.visit_reads(f),
            }
        }
    }
    /// Whether a value is read from a tensor anywhere in it.
    pub fn is_data(&self) -> bool {
        let mut found = false;
        self.visit_reads(&mut |_, _| found = true);
        found
    }
    /// The coefficient of a variable as a direct term (0 if none).
    pub fn coefficient(&self, var: VarId) -> i64 {
        self.terms.iter().find(|(a, _)| *a == Atom::Var(var)).map_or(0, |(_, c)| *c)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Atom {
    /// Inclusive bounds, if known.
    pub fn range(&self, sizes: &dyn Sizes) -> Option<(i64, i64)> {
        match self {
            Atom::Var(v) => Some((0, sizes.size_of(*v) - 1)),
            Atom::Div(e, c) => e.range(sizes).map(|(l, h)| (l.div_euclid(*c), h.div_euclid(*c))),
            Atom::Mod(_, c) => Some((0, c - 1)),
            Atom::Clamp(e, lo, hi) => match e.range(sizes) {
                Some((l, h)) => Some((l.clamp(*lo, *hi), h.clamp(*lo, *hi))),
                None => Some((*lo, *hi)),
            },
            Atom::Data(_) => None,
        }
    }
}

/// `e / m` as it is written: `(x / k + c) / m` is `(x + c k) / (k m)`.
fn quotient(e: &Index, m: i64) -> Atom {
    match e.terms.as_slice() {
        [(Atom::Div(x, k), 1)] => Atom::Div(Box::new(x.plus(e.offset * k)), k * m),
        _ => Atom::Div(Box::new(e.clone()), m),
    }
}

/// Whether the place `at` in a tensor of these dimensions, as `vars` go through all their values, goes through all its elements, once and in their order
/// in memory.
pub fn goes_through(at: &[Index], dims: &[usize], vars: &[VarId], sizes: &dyn Sizes) -> bool {
    let varies = |v: &VarId| sizes.size_of(*v) > 1;
    let mut seen: Vec<VarId> = Vec::new();
    for (index, &dim) in at.iter().zip(dims) {
        let mut terms: Vec<(i64, VarId)> = Vec::new();
        for (atom, k) in &index.terms {
            match atom {
                Atom::Var(v) if varies(v) => terms.push((*k, *v)),
                Atom::Var(_) => {}
                _ => return false,
            }
        }
        terms.sort_by_key(|&(k, _)| -k);
        let mut stride = 1;
        for &(k, v) in terms.iter().rev() {
            if k != stride {
                return false;
            }
            stride *= sizes.size_of(v);
        }
        if index.offset != 0 || stride != dim as i64 {
            return false;
        }
        seen.extend(terms.iter().map(|&(_, v)| v));
    }
    seen.iter().eq(vars.iter().filter(|v| varies(v)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_through_a_tensor_is_in_order_and_whole() {
        let sizes = |v: VarId| [5, 2, 3, 1][v.0 as usize];
        let [a, b, c, one] = [0, 1, 2, 3].map(VarId);
        let v = |v: VarId| Index::from(v);
        let merged = v(b).scale(3).add(&v(c));
        assert!(goes_through(&[v(a), v(b)], &[5, 2], &[a, b], &sizes));
        assert!(goes_through(&[v(a), 0.into(), merged.clone()], &[5, 1, 6], &[a, b, c, one], &sizes));
        assert!(goes_through(&[v(a), v(one), merged.clone()], &[5, 1, 6], &[a, b, c], &sizes));
        assert!(!goes_through(&[v(b), v(a)], &[2, 5], &[a, b], &sizes), "in another order");
        assert!(!goes_through(&[v(a), merged.clone()], &[5, 7], &[a, b, c], &sizes), "a part");
        assert!(!goes_through(&[merged.plus(1)], &[6], &[b, c], &sizes));
        assert!(!goes_through(&[v(b).add(&v(c))], &[4], &[b, c], &sizes));
        assert!(!goes_through(&[merged], &[6], &[a, b, c], &sizes), "several times");
    }

    struct One(i64);
    impl Sizes for One {
        fn size_of(&self, _: VarId) -> i64 {
            self.0
        }
    }

    /// A place in a line, taken apart by the sizes of a grid and put together again.
    #[test]
    fn a_place_taken_apart_is_a_place() {
        for sizes in [&[4, 14, 14][..], &[2, 3, 5, 7], &[3, 1, 6], &[5, 4]] {
            let all = One(sizes.iter().product());
            for offset in [0, 1, 13, 20, 41] {
                let place = Index::from(VarId(0)).plus(offset);
                let (mut rest, mut stride, mut flat) = (place.clone(), 1, Index::default());
                for (n, &size) in sizes.iter().enumerate().rev() {
                    let digit = if n == 0 { rest.clone() } else { rest.modulo(size, &all) };
                    rest = rest.div(size, &all);
                    flat = flat.add(&digit.scale(stride));
                    stride *= size;
                }
                assert_eq!(flat.fold(), place, "{sizes:?} + {offset}");
            }
        }
    }
}
