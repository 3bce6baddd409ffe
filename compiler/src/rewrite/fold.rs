//! Constant folding and guards: what ranges and enclosing guards prove, disappears.

use super::{Cx, each_function, walk};
use crate::ir::{BinaryOp, Bounds, Elem, Expr, Index, Monoid, Node, Pred, Program, Stmt, UnaryOp, index::Sizes};

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut function);
}

fn function(cx: &mut Cx) {
    for at in 0..cx.function.body.len() {
        let Stmt::Define(d) = &cx.function.body[at] else { continue };
        let tensor = d.tensor;
        let (mut bodies, mut dropped) = (Vec::new(), (0, 0));
        for c in &d.clauses {
            let shape = |t: crate::ir::TensorId| cx.shape(t);
            let fold = Fold { sizes: &cx.sizes(), shape: &shape };
            let new = fold.expr(&c.body, &[]);
            let (old, now) = (guards(&c.body), guards(&new));
            dropped.0 += old;
            dropped.1 += now;
            bodies.push(new);
        }
        if dropped.1 < dropped.0 {
            cx.fired(
                "prune guards",
                tensor,
                format!("ranges prove {} of {} conditions", dropped.0 - dropped.1, dropped.0),
            );
        }
        for (c, body) in bodies.into_iter().enumerate() {
            cx.set_body(at, c, body);
        }
        drop_constants(cx, at);
    }
}

/// A variable of one value that only takes part in a merged index is no variable: `64 g + o` with one `g` is `o`.
fn drop_constants(cx: &mut Cx, at: usize) {
    let Stmt::Define(mut d) = cx.function.body[at].clone() else { return };
    for c in &mut d.clauses {
        let single = |v: &crate::ir::VarId| cx.sizes().size_of(*v) == 1 && !c.at.iter().any(|i| i.as_var() == Some(*v));
        let gone: Vec<crate::ir::VarId> = c.vars.iter().copied().filter(single).collect();
        let zero = |v: crate::ir::VarId| gone.contains(&v).then(Index::default);
        c.at = c.at.iter().map(|i| i.subst(&zero, &cx.sizes())).collect();
        c.body = c.body.subst_vars(&zero, &cx.sizes());
        c.vars.retain(|v| !gone.contains(v));
    }
    cx.function.body[at] = Stmt::Define(d);
}

/// The number of conditions that are tested, explicitly or by a read that may fall outside.
fn guards(e: &Expr) -> usize {
    fn pred(p: &Pred) -> usize {
        match p {
            Pred::True => 0,
            Pred::Zero(_) | Pred::NonNeg(_) | Pred::Value(_) => 1,
            Pred::Not(p) => pred(p),
            Pred::And(ps) | Pred::Or(ps) => ps.iter().map(pred).sum(),
        }
    }
    let mut n = match &*e.node {
        Node::Select(p, ..) | Node::Test(p) => pred(p),
        Node::Reduce(r) => pred(&r.guard),
        Node::Read { bounds: Bounds::Zero, .. } => 1,
        _ => 0,
    };
    e.for_each_child(&mut |c| n += guards(c));
    n
}

/// Never.
pub fn never() -> Pred {
    Pred::Or(Vec::new())
}

/// Whether a predicate is the empty disjunction.
pub fn is_never(p: &Pred) -> bool {
    matches!(p, Pred::Or(ps) if ps.is_empty())
}

/// Folds expressions and predicates under what is known of variables and tensors.
pub struct Fold<'a> {
    /// Variable sizes.
    pub sizes: &'a dyn Sizes,
    /// Tensor shapes.
    pub shape: &'a dyn Fn(crate::ir::TensorId) -> Vec<i64>,
}

impl Fold<'_> {
    fn index(&self, i: &Index) -> Index {
        i.subst(&|_| None, self.sizes)
    }

    /// The expression, given that all of `known` hold.
    pub fn expr(&self, e: &Expr, known: &[Pred]) -> Expr {
        match &*e.node {
            Node::Const(_) => e.clone(),
            Node::Index(i) => Expr::index(e.elem, self.index(i)),
            Node::Read { tensor, at, bounds } => {
                let at: Vec<Index> = at.iter().map(|i| self.index(i)).collect();
                let mut bounds = *bounds;
                if bounds == Bounds::Zero {
                    let shape = (self.shape)(*tensor);
                    let inside = Pred::and(at.iter().zip(&shape).map(|(i, &n)| Pred::within(i, 0, n, self.sizes)));
                    match self.pred(&inside, known) {
                        Pred::True => bounds = Bounds::Inside,
                        p if is_never(&p) => return Expr::constant(e.elem, 0.0),
                        _ => {}
                    }
                }
                Expr::new(e.elem, Node::Read { tensor: *tensor, at, bounds })
            }
            Node::Random { key, place, at } => {
                Expr::new(e.elem, Node::Random { key: *key, place: *place, at: self.index(at) })
            }
            Node::Unary(op, a) => Expr::unary(*op, self.expr(a, known)),
            Node::Binary(op, a, b) => binary(e.elem, *op, self.expr(a, known), self.expr(b, known)),
            Node::Select(p, a, b) => {
                let p = self.pred(p, known);
                if is_never(&p) {
                    return self.expr(b, known);
                }
                let a = self.expr(a, &self.with(known, &p));
                if p == Pred::True {
                    return a;
                }
                let b = self.expr(b, &self.with(known, &self.not(&p)));
                // What is 0 stands last.
                let zero = |e: &Expr| e.as_const() == Some(0.0);
                if zero(&a) && !zero(&b) { Expr::select(self.not(&p), b, a) } else { Expr::select(p, a, b) }
            }
            Node::Test(p) => match self.pred(p, known) {
                Pred::True => Expr::constant(Elem::Bool, 1.0),
                p if is_never(&p) => Expr::constant(Elem::Bool, 0.0),
                Pred::Value(e) => e,
                p => Expr::new(Elem::Bool, Node::Test(p)),
            },
            Node::Cast(a) => {
                let a = self.expr(a, known);
                match (a.as_const(), &*a.node) {
                    (Some(x), _) if walk::is_float(e.elem) => Expr::constant(e.elem, x),
                    (Some(x), _) if e.elem != Elem::Bool => Expr::constant(e.elem, x.floor()),
                    (None, Node::Index(i)) if e.elem != Elem::Bool => Expr::index(e.elem, i.clone()),
                    _ => Expr::cast(e.elem, a),
                }
            }
            Node::Stop(a) => {
                let a = self.expr(a, known);
                match &*a.node {
                    Node::Const(_) | Node::Index(_) | Node::Stop(_) => a,
                    _ => Expr::stop(a),
                }
            }
            Node::Reduce(r) => self.reduction(e, r, known),
        }
    }

    fn reduction(&self, e: &Expr, r: &crate::ir::Reduction, known: &[Pred]) -> Expr {
        let known: Vec<Pred> = known.iter().filter(|p| !r.vars.iter().any(|&v| p.uses(v))).cloned().collect();
        let mut guard = self.pred(&r.guard, &known);
        let arg = matches!(r.op, Monoid::ArgMax | Monoid::ArgMin);
        if is_never(&guard) {
            return Expr::constant(e.elem, r.op.neutral());
        }
        let mut body = self.expr(&r.body, &self.with(&known, &guard));
        // What a condition makes neutral need not take part.
        while let (false, Some((p, inner))) = (arg, neutral_outside(r.op, &body)) {
            guard = self.pred(&Pred::and([guard, p]), &known);
            if is_never(&guard) {
                return Expr::constant(e.elem, r.op.neutral());
            }
            body = self.expr(&inner, &self.with(&known, &guard));
        }
        if r.op == Monoid::Sum && body.as_const() == Some(0.0) {
            return body;
        }
        let mut vars = r.vars.clone();
        if !arg {
            let idle: Vec<_> = vars.iter().copied().filter(|&v| !body.uses(v) && !guard.uses(v)).collect();
            let times: f64 = idle.iter().map(|&v| self.sizes.size_of(v) as f64).product();
            match r.op {
                Monoid::Sum if walk::is_float(body.elem) => body = Expr::mul(Expr::constant(body.elem, times), body),
                Monoid::Sum | Monoid::Prod => return Expr::reduce(r.op, vars, guard, body),
                _ => {}
            }
            vars.retain(|v| !idle.contains(v));
        }
        Expr::reduce(r.op, vars, guard, body)
    }

    fn with(&self, known: &[Pred], p: &Pred) -> Vec<Pred> {
        known.iter().cloned().chain(p.conjuncts().into_iter().cloned()).collect()
    }

    /// The negation.
    fn not(&self, p: &Pred) -> Pred {
        match p {
            Pred::True => never(),
            Pred::NonNeg(i) => Pred::NonNeg(i.scale(-1).plus(-1)),
            Pred::Not(p) => (**p).clone(),
            Pred::Or(ps) => Pred::and(ps.iter().map(|p| self.not(p))),
            p => Pred::Not(Box::new(p.clone())),
        }
    }

    /// The predicate, given that all of `known` hold.
    pub fn pred(&self, p: &Pred, known: &[Pred]) -> Pred {
        match p {
            Pred::True => Pred::True,
            Pred::Zero(i) => {
                let i = self.index(i);
                let negative = i.scale(-1);
                if i.as_const() == Some(0)
                    || known.iter().any(|k| *k == Pred::Zero(i.clone()) || *k == Pred::Zero(negative.clone()))
                {
                    return Pred::True;
                }
                let (lo, hi) = (self.below(&i, known), self.below(&negative, known));
                match (lo, hi) {
                    // lo: a proven lower bound of i; hi: of -i
                    (Some(lo), _) if lo > 0 => never(),
                    (_, Some(hi)) if hi > 0 => never(),
                    _ => Pred::Zero(i),
                }
            }
            Pred::NonNeg(i) => {
                let i = self.index(i);
                if self.below(&i, known).is_some_and(|lo| lo >= 0) {
                    return Pred::True;
                }
                if self.below(&i.scale(-1), known).is_some_and(|lo| lo > 0) {
                    return never();
                }
                Pred::NonNeg(self.coarse(i))
            }
            Pred::Value(e) => self.value(&self.expr(e, known), known),
            Pred::Not(p) => {
                let inner = self.pred(p, known);
                let not = self.not(&inner);
                if known.contains(&not) || known.contains(&inner) {
                    return if known.contains(&not) { Pred::True } else { never() };
                }
                not
            }
            Pred::And(ps) => {
                let mut kept: Vec<Pred> = ps.clone();
                // Each part under all the others that stay: forwards, then backwards.
                for reverse in [false, true] {
                    let order: Vec<usize> =
                        if reverse { (0..kept.len()).rev().collect() } else { (0..kept.len()).collect() };
                    let mut seen = known.to_vec();
                    for n in order {
                        kept[n] = self.pred(&kept[n], &seen);
                        if is_never(&kept[n]) {
                            return never();
                        }
                        seen.extend(kept[n].conjuncts().into_iter().cloned());
                    }
                }
                Pred::and(kept)
            }
            Pred::Or(ps) => {
                let mut out = Vec::new();
                for p in ps {
                    match self.pred(p, known) {
                        Pred::True => return Pred::True,
                        Pred::Or(inner) => out.extend(inner),
                        p => out.push(p),
                    }
                }
                out.dedup();
                if out.len() == 1 { out.remove(0) } else { Pred::Or(out) }
            }
        }
    }

    /// `g a + b >= 0` with `0 <= b < g` is `a >= 0`.
    fn coarse(&self, i: Index) -> Index {
        for (_, g) in i.terms.iter().map(|(a, c)| (a, c.abs())).filter(|(_, g)| *g > 1) {
            let whole = i.div(g, self.sizes);
            let nested = whole.terms.iter().any(|(a, _)| matches!(a, crate::ir::Atom::Div(..)));
            if !nested && !whole.terms.is_empty() {
                return whole;
            }
        }
        i
    }

    /// A proven lower bound of the index: by ranges, or as a known non-negative index plus something bounded.
    fn below(&self, i: &Index, known: &[Pred]) -> Option<i64> {
        let own = i.range(self.sizes).map(|(lo, _)| lo);
        let from = |k: &Index| i.sub(k).range(self.sizes).map(|(lo, _)| lo);
        let given = known.iter().filter_map(|k| match k {
            Pred::NonNeg(k) => from(k),
            Pred::Zero(k) => from(k).max(from(&k.scale(-1))),
            _ => None,
        });
        given.chain(own).max()
    }

    /// A boolean value as a predicate: comparisons of indices become predicates on indices.
    fn value(&self, e: &Expr, known: &[Pred]) -> Pred {
        if let Some(x) = e.as_const() {
            return if x != 0.0 { Pred::True } else { never() };
        }
        let p = match &*e.node {
            Node::Test(p) => return self.pred(p, known),
            Node::Unary(UnaryOp::Not, a) => return self.pred(&Pred::Not(Box::new(Pred::Value(a.clone()))), known),
            Node::Binary(BinaryOp::And, a, b) => {
                return self.pred(&Pred::And(vec![Pred::Value(a.clone()), Pred::Value(b.clone())]), known);
            }
            Node::Binary(BinaryOp::Or, a, b) => {
                return self.pred(&Pred::Or(vec![Pred::Value(a.clone()), Pred::Value(b.clone())]), known);
            }
            Node::Binary(op, a, b) if op.is_comparison() => compare(*op, a, b),
            _ => None,
        };
        match p {
            Some(p) => self.pred(&p, known),
            None if known.contains(&Pred::Value(e.clone())) => Pred::True,
            None => Pred::Value(e.clone()),
        }
    }
}

/// `body = select(p, inner, neutral)`, also as a factor of a sum's body.
fn neutral_outside(op: Monoid, body: &Expr) -> Option<(Pred, Expr)> {
    if let Node::Select(p, a, b) = &*body.node
        && b.as_const() == Some(op.neutral())
    {
        return Some((p.clone(), a.clone()));
    }
    if op != Monoid::Sum {
        return None;
    }
    match &*body.node {
        Node::Binary(BinaryOp::Mul, a, b) => {
            if let Some((p, a)) = neutral_outside(op, a) {
                return Some((p, Expr::mul(a, b.clone())));
            }
            neutral_outside(op, b).map(|(p, b)| (p, Expr::mul(a.clone(), b)))
        }
        Node::Binary(BinaryOp::Div, a, b) => neutral_outside(op, a).map(|(p, a)| (p, Expr::div(a, b.clone()))),
        Node::Unary(UnaryOp::Neg, a) => neutral_outside(op, a).map(|(p, a)| (p, Expr::neg(a))),
        _ => None,
    }
}

fn binary(elem: Elem, op: BinaryOp, a: Expr, b: Expr) -> Expr {
    // Sums and integer multiples of indices are indices.
    if let (Node::Index(_), _) | (_, Node::Index(_)) = (&*a.node, &*b.node)
        && let (Some(x), Some(y)) = (as_index(&a), as_index(&b))
    {
        let joined = match op {
            BinaryOp::Add => Some(x.add(&y)),
            BinaryOp::Sub => Some(x.sub(&y)),
            BinaryOp::Mul => match (x.as_const(), y.as_const()) {
                (Some(c), _) => Some(y.scale(c)),
                (_, Some(c)) => Some(x.scale(c)),
                _ => None,
            },
            _ => None,
        };
        if let Some(i) = joined {
            return Expr::index(elem, i);
        }
    }
    Expr::binary(op, a, b)
}

/// An expression that is an integer index, as one.
pub fn as_index(e: &Expr) -> Option<Index> {
    match &*e.node {
        Node::Index(i) => Some(i.clone()),
        Node::Const(_) => {
            let x = e.as_const()?;
            (x.fract() == 0.0 && x.abs() < 1e15).then(|| Index::from(x as i64))
        }
        Node::Binary(BinaryOp::Add, a, b) => Some(as_index(a)?.add(&as_index(b)?)),
        Node::Binary(BinaryOp::Sub, a, b) => Some(as_index(a)?.sub(&as_index(b)?)),
        Node::Unary(UnaryOp::Neg, a) => Some(as_index(a)?.scale(-1)),
        Node::Cast(a) => as_index(a),
        _ => None,
    }
}

/// A comparison of indices, or of an index's distance from another, as a predicate.
fn compare(op: BinaryOp, a: &Expr, b: &Expr) -> Option<Pred> {
    use BinaryOp::*;
    let not = |p: Pred| Pred::Not(Box::new(p));
    match op {
        Gt => return compare(Lt, b, a),
        Ge => return compare(Le, b, a),
        Ne => return compare(Eq, a, b).map(not),
        _ => {}
    }
    // a <= b + slack
    let slack = if op == Lt { -1 } else { 0 };
    if let (Some(x), Some(y)) = (as_index(a), as_index(b)) {
        return Some(match op {
            Eq => Pred::Zero(x.sub(&y)),
            _ => Pred::NonNeg(y.sub(&x).plus(slack)),
        });
    }
    let distance = |e: &Expr| match &*e.node {
        Node::Unary(UnaryOp::Abs, inner) => as_index(inner),
        _ => None,
    };
    match (op, distance(a), as_index(b), as_index(a), distance(b)) {
        (Lt | Le, Some(x), Some(y), ..) => {
            let y = y.plus(slack);
            Some(Pred::And(vec![Pred::NonNeg(y.sub(&x)), Pred::NonNeg(y.add(&x))]))
        }
        (Lt | Le, _, _, Some(x), Some(y)) => {
            let x = x.plus(-slack);
            Some(Pred::Or(vec![Pred::NonNeg(y.sub(&x)), Pred::NonNeg(y.scale(-1).sub(&x))]))
        }
        _ => None,
    }
}
