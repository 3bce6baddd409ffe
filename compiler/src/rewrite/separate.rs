//! Separation of variables: an expression as a finite sum of products in which no factor uses variables of both of two sets.
//!
//! Finite rank is closed under sums and products. The generators are functions of one set alone, cosines and sines of sums
//! (`cos(a + b) = cos a cos b - sin a sin b`), exponentials of sums, powers with a small natural exponent, and sums over further variables (channels),
//! which join the product. Reads of definitions that mix the sets are opened.

use super::{Cx, inline, walk};
use crate::ir::{BinaryOp, Bounds, Elem, Expr, Index, Monoid, Node, Pred, TensorId, UnaryOp, VarId};
use std::collections::HashSet;

/// One product: `sum over vars where guards of coef * factors`.
#[derive(Clone)]
pub(crate) struct Term {
    pub coef: f64,
    pub factors: Vec<Expr>,
    pub vars: Vec<VarId>,
    pub guards: Vec<Pred>,
}

/// Why there is no separation.
#[derive(Clone, Debug)]
pub(crate) struct Stopped {
    /// In words.
    pub reason: String,
    /// Whether scores were opened: products of data over further variables, below or beside what stopped it.
    pub scores: bool,
}

/// The state of one attempt.
pub(crate) struct Separate<'a, 'b> {
    pub cx: &'a mut Cx<'b>,
    /// The one set: the output's indices to free from the sum.
    pub outer: Vec<VarId>,
    /// The other: the sum's variables.
    pub inner: Vec<VarId>,
    /// Definitions with a sum that were opened, each with its number of products.
    pub opened: Vec<(TensorId, f64)>,
    /// Definitions that pair data with data.
    pub pairs: &'a HashSet<TensorId>,
    pub depth: usize,
}

const MAX_TERMS: usize = 64;
const MAX_DEPTH: usize = 12;

impl Separate<'_, '_> {
    pub fn uses_outer(&self, e: &Expr) -> bool {
        self.outer.iter().any(|&v| e.uses(v))
    }
    pub fn uses_inner(&self, e: &Expr) -> bool {
        self.inner.iter().any(|&v| e.uses(v))
    }
    fn mixes(&self, e: &Expr) -> bool {
        self.uses_outer(e) && self.uses_inner(e)
    }
    /// Whether a predicate couples the sets.
    pub fn couples(&self, p: &Pred) -> bool {
        self.outer.iter().any(|&v| p.uses(v)) && self.inner.iter().any(|&v| p.uses(v))
    }
    /// Whether scores were opened.
    pub fn scores(&self) -> bool {
        self.opened.iter().any(|(t, _)| self.pairs.contains(t))
    }
    fn stop<T>(&self, reason: impl Into<String>) -> Result<T, Stopped> {
        Err(Stopped { reason: reason.into(), scores: self.scores() })
    }
    fn one(&self, e: &Expr) -> Vec<Term> {
        match e.as_const() {
            Some(c) => vec![Term { coef: c, factors: Vec::new(), vars: Vec::new(), guards: Vec::new() }],
            None => vec![Term { coef: 1.0, factors: vec![e.clone()], vars: Vec::new(), guards: Vec::new() }],
        }
    }

    /// The expression as a sum of separated products.
    pub fn expand(&mut self, e: &Expr) -> Result<Vec<Term>, Stopped> {
        if !self.mixes(e) {
            return Ok(self.one(e));
        }
        match &*e.node {
            Node::Index(i) => self.index(e.elem, i),
            Node::Read { tensor, at, bounds } => self.read(*tensor, at, *bounds),
            Node::Unary(op, a) => self.unary(*op, a),
            Node::Binary(op, a, b) => self.binary(*op, a, b),
            Node::Cast(a)
                if walk::is_float(e.elem) && (walk::is_float(a.elem) || matches!(&*a.node, Node::Index(_))) =>
            {
                let elem = e.elem;
                let mut terms = self.expand(a)?;
                terms.iter_mut().flat_map(|t| &mut t.factors).for_each(|f| *f = Expr::cast(elem, f.clone()));
                Ok(terms)
            }
            Node::Stop(a) => {
                let mut terms = self.expand(a)?;
                terms.iter_mut().flat_map(|t| &mut t.factors).for_each(|f| *f = Expr::stop(f.clone()));
                Ok(terms)
            }
            Node::Reduce(r) if r.op == Monoid::Sum => {
                if self.couples(&r.guard) {
                    return self.stop("a condition couples the indices of an inner sum");
                }
                let mut terms = self.expand(&r.body)?;
                for t in &mut terms {
                    t.vars.extend(&r.vars);
                    if r.guard != Pred::True {
                        t.guards.push(r.guard.clone());
                    }
                }
                Ok(terms)
            }
            Node::Reduce(r) => self.stop(format!("a {:?} lies between the products", r.op).to_lowercase()),
            Node::Select(..) => self.stop("a condition couples the indices"),
            Node::Cast(_) => self.stop("a conversion lies between the products"),
            Node::Random { .. } => self.stop("a random number for every pair of indices"),
            Node::Const(_) | Node::Test(_) => self.stop("a test couples the indices"),
        }
    }

    fn index(&mut self, elem: Elem, i: &Index) -> Result<Vec<Term>, Stopped> {
        let (mut outer, mut inner) = (Index::from(i.offset), Index::default());
        for (a, c) in &i.terms {
            let atom = Index::atom(a.clone());
            let uses = |vars: &[VarId]| vars.iter().any(|&v| atom.uses(v));
            match (uses(&self.outer), uses(&self.inner)) {
                (true, true) => return self.stop("a division, clamp or read inside an index mixes the indices"),
                (_, true) => inner.add_term(a.clone(), *c),
                _ => outer.add_term(a.clone(), *c),
            }
        }
        let mut out = Vec::new();
        for part in [outer, inner] {
            if part == Index::default() {
                continue;
            }
            // With a sign of its own, so that both sides of a difference have the same functions.
            let negative = part.terms.first().is_some_and(|(_, c)| *c < 0);
            let part = if negative { part.scale(-1) } else { part };
            let mut terms = self.one(&Expr::index(elem, part));
            terms.iter_mut().for_each(|t| t.coef *= if negative { -1.0 } else { 1.0 });
            out.extend(terms);
        }
        Ok(out)
    }

    fn read(&mut self, tensor: TensorId, at: &[Index], bounds: Bounds) -> Result<Vec<Term>, Stopped> {
        let name = self.cx.function.tensor(tensor).name.clone();
        let definition = self.cx.position(tensor).and_then(|p| self.cx.definition_at(p)).cloned();
        let Some(d) = definition else {
            let of = |i: &Index, vars: &[VarId]| vars.iter().any(|&v| i.uses(v));
            let one = at.iter().any(|i| of(i, &self.outer) && of(i, &self.inner));
            let reason = format!("{name} is read at an index that mixes both sides");
            // At separate indices it is an operand like any matrix, and nothing worth a word.
            return Err(Stopped { reason, scores: one && self.scores() });
        };
        if self.depth >= MAX_DEPTH {
            return self.stop(format!("{name} is nested too deeply"));
        }
        let Some(body) = inline::inline(self.cx, &d, at, bounds) else {
            return self.stop(format!("{name} has several clauses"));
        };
        if let Node::Reduce(r) = &*body.node {
            let work = self.cx.elements(tensor) * self.cx.points(&r.vars);
            if !self.opened.iter().any(|(t, _)| *t == tensor) {
                self.opened.push((tensor, work));
            }
        }
        self.depth += 1;
        let terms = self.expand(&body);
        self.depth -= 1;
        terms
    }

    fn unary(&mut self, op: UnaryOp, a: &Expr) -> Result<Vec<Term>, Stopped> {
        match op {
            UnaryOp::Neg => {
                let mut terms = self.expand(a)?;
                terms.iter_mut().for_each(|t| t.coef = -t.coef);
                Ok(terms)
            }
            UnaryOp::Cos | UnaryOp::Sin | UnaryOp::Exp => {
                let (x, y) = self.halves(a, op)?;
                // Apart from each other, what a softmax keeps at most 1 overflows.
                if op == UnaryOp::Exp && (self.reads_greatest(&x) || self.reads_greatest(&y)) {
                    return self.stop("an exponential relative to the greatest value lies between the products");
                }
                let term = |coef: f64, f: Expr, g: Expr| Term {
                    coef,
                    factors: vec![f, g],
                    vars: Vec::new(),
                    guards: Vec::new(),
                };
                let (cos, sin) =
                    (|e: &Expr| Expr::unary(UnaryOp::Cos, e.clone()), |e: &Expr| Expr::unary(UnaryOp::Sin, e.clone()));
                // cos(-y) = cos y and sin(-y) = -sin y
                let (y, flip) = match walk::negated(&y) {
                    Some(y) if op != UnaryOp::Exp => (y, -1.0),
                    _ => (y, 1.0),
                };
                Ok(match op {
                    UnaryOp::Cos => vec![term(1.0, cos(&x), cos(&y)), term(-flip, sin(&x), sin(&y))],
                    UnaryOp::Sin => vec![term(1.0, sin(&x), cos(&y)), term(flip, cos(&x), sin(&y))],
                    _ => vec![term(1.0, Expr::unary(op, x), Expr::unary(op, y))],
                })
            }
            _ => {
                // Look below, so that the reason says whether products are there.
                let _ = self.expand(a);
                self.stop(between(&format!("{op:?}").to_lowercase()))
            }
        }
    }

    /// Whether a greatest value is read.
    fn reads_greatest(&self, e: &Expr) -> bool {
        let is_greatest = |t: TensorId| {
            let definition = self.cx.position(t).and_then(|p| self.cx.definition_at(p));
            definition.is_some_and(|d| {
                d.clauses.iter().any(|c| matches!(&*c.body.node, Node::Reduce(r) if r.op == Monoid::Max))
            })
        };
        let mut found = false;
        e.visit_reads(&mut |t, _| found |= is_greatest(t));
        found
    }

    /// `a = x + y`, `x` without inner and `y` without outer variables.
    fn halves(&mut self, a: &Expr, op: UnaryOp) -> Result<(Expr, Expr), Stopped> {
        let name = format!("{op:?}").to_lowercase();
        let terms = match self.expand(a) {
            Ok(terms) => terms,
            // The outermost function is what a reader will recognise.
            Err(s) if s.scores => return self.stop(between(&name)),
            Err(s) => return Err(s),
        };
        let (mut x, mut y) = (Expr::constant(a.elem, 0.0), Expr::constant(a.elem, 0.0));
        for t in terms {
            let (inner, outer): (Vec<_>, Vec<_>) = t.factors.iter().cloned().partition(|f| self.uses_inner(f));
            let mixed = !inner.is_empty() && outer.iter().any(|f| self.uses_outer(f));
            if mixed || !t.vars.is_empty() {
                return self.stop(between(&name));
            }
            let whole = t.factors.iter().cloned().fold(Expr::constant(a.elem, t.coef), Expr::mul);
            if inner.is_empty() { x = Expr::add(x, whole) } else { y = Expr::add(y, whole) }
        }
        Ok((x, y))
    }

    fn binary(&mut self, op: BinaryOp, a: &Expr, b: &Expr) -> Result<Vec<Term>, Stopped> {
        match op {
            BinaryOp::Add | BinaryOp::Sub => {
                let (mut terms, mut right) = self.both(a, b)?;
                if op == BinaryOp::Sub {
                    right.iter_mut().for_each(|t| t.coef = -t.coef);
                }
                terms.extend(right);
                self.bounded(terms)
            }
            BinaryOp::Mul => {
                let (left, right) = self.both(a, b)?;
                self.times(&left, &right)
            }
            BinaryOp::Div => {
                if self.mixes(b) {
                    let _ = self.expand(a);
                    let _ = self.expand(b);
                    return self.stop("a division by what mixes the indices lies between the products");
                }
                let mut terms = self.expand(a)?;
                for t in &mut terms {
                    match b.as_const() {
                        Some(c) => t.coef /= c,
                        None => t.factors.push(Expr::unary(UnaryOp::Recip, b.clone())),
                    }
                }
                Ok(terms)
            }
            BinaryOp::Pow => match b.as_const() {
                Some(n) if n.fract() == 0.0 && (1.0..=4.0).contains(&n) => {
                    let mut out = self.expand(a)?;
                    for _ in 1..n as usize {
                        // Expanded anew, so that inner sums have variables of their own.
                        let next = self.expand(a)?;
                        out = self.times(&out, &next)?;
                    }
                    Ok(out)
                }
                _ => self.stop(between("power")),
            },
            _ => {
                let _ = self.expand(a);
                let _ = self.expand(b);
                self.stop(between(&format!("{op:?}").to_lowercase()))
            }
        }
    }

    /// Two operands. Both are looked at even if the first fails: what they open tells whether scores are involved.
    fn both(&mut self, a: &Expr, b: &Expr) -> Result<(Vec<Term>, Vec<Term>), Stopped> {
        let (left, right) = (self.expand(a), self.expand(b));
        let scores = self.scores();
        let told = |s: Stopped| Stopped { scores: s.scores || scores, ..s };
        Ok((left.map_err(told)?, right.map_err(told)?))
    }

    fn times(&mut self, left: &[Term], right: &[Term]) -> Result<Vec<Term>, Stopped> {
        let mut out = Vec::new();
        for l in left {
            for r in right {
                if l.vars.iter().any(|v| r.vars.contains(v)) {
                    return self.stop("two sums share their variables");
                }
                out.push(Term {
                    coef: l.coef * r.coef,
                    factors: [l.factors.clone(), r.factors.clone()].concat(),
                    vars: [l.vars.clone(), r.vars.clone()].concat(),
                    guards: [l.guards.clone(), r.guards.clone()].concat(),
                });
            }
        }
        self.bounded(out)
    }

    fn bounded(&self, terms: Vec<Term>) -> Result<Vec<Term>, Stopped> {
        if terms.len() > MAX_TERMS {
            return self.stop(format!("its rank is more than {MAX_TERMS}"));
        }
        Ok(terms)
    }
}

fn between(what: &str) -> String {
    format!("{what} of the score lies between the products")
}
