//! Walking and substituting expressions.

use super::expr::{Expr, Node, Pred, Reduction};
use super::index::{Index, Sizes};
use super::{TensorId, VarId};

impl Expr {
    /// Calls `f` on every direct operand (reduction bodies and select branches included; predicates not).
    pub fn for_each_child(&self, f: &mut dyn FnMut(&Expr)) {
        match &*self.node {
            Node::Const(_) | Node::Index(_) | Node::Read { .. } | Node::Random { .. } | Node::Test(_) => {}
            Node::Unary(_, a) | Node::Cast(a) | Node::Stop(a) => f(a),
            Node::Binary(_, a, b) | Node::Select(_, a, b) => {
                f(a);
                f(b);
            }
            Node::Reduce(r) => f(&r.body),
        }
    }

    /// The same expression with every direct operand replaced.
    pub fn map_children(&self, f: &mut dyn FnMut(&Expr) -> Expr) -> Expr {
        let node = match &*self.node {
            n @ (Node::Const(_) | Node::Index(_) | Node::Read { .. } | Node::Random { .. } | Node::Test(_)) => {
                n.clone()
            }
            Node::Unary(op, a) => Node::Unary(*op, f(a)),
            Node::Cast(a) => Node::Cast(f(a)),
            Node::Stop(a) => Node::Stop(f(a)),
            Node::Binary(op, a, b) => Node::Binary(*op, f(a), f(b)),
            Node::Select(p, a, b) => Node::Select(p.clone(), f(a), f(b)),
            Node::Reduce(r) => {
                Node::Reduce(Reduction { op: r.op, vars: r.vars.clone(), guard: r.guard.clone(), body: f(&r.body) })
            }
        };
        Expr { elem: self.elem, node: Box::new(node) }
    }

    /// Calls `f` for every read of a tensor, also in indices, predicates and random keys.
    pub fn visit_reads(&self, f: &mut dyn FnMut(TensorId, &[Index])) {
        match &*self.node {
            Node::Read { tensor, at, .. } => {
                f(*tensor, at);
                at.iter().for_each(|i| i.visit_reads(f));
            }
            Node::Index(i) => i.visit_reads(f),
            Node::Random { key, at, .. } => {
                f(*key, &[]);
                at.visit_reads(f);
            }
            Node::Select(p, ..) | Node::Test(p) => p.visit_reads(f),
            Node::Reduce(r) => r.guard.visit_reads(f),
            _ => {}
        }
        self.for_each_child(&mut |c| c.visit_reads(f));
    }

    /// Calls `f` for every free variable occurrence.
    pub fn visit_vars(&self, f: &mut dyn FnMut(VarId)) {
        match &*self.node {
            Node::Read { at, .. } => at.iter().for_each(|i| i.visit_vars(f)),
            Node::Index(i) | Node::Random { at: i, .. } => i.visit_vars(f),
            Node::Select(p, ..) | Node::Test(p) => p.visit_vars(f),
            Node::Reduce(r) => {
                let mut free = |v: VarId| {
                    if !r.vars.contains(&v) {
                        f(v)
                    }
                };
                r.guard.visit_vars(&mut free);
                r.body.visit_vars(&mut free);
                return;
            }
            _ => {}
        }
        self.for_each_child(&mut |c| c.visit_vars(f));
    }

    /// Whether the variable occurs free.
    pub fn uses(&self, var: VarId) -> bool {
        let mut found = false;
        self.visit_vars(&mut |v| found |= v == var);
        found
    }

    /// Replaces free variables by indices. The replacements must not mention variables that a reduction inside binds: rename
    /// those first ([`freshen`]).
    pub fn subst_vars(&self, f: &dyn Fn(VarId) -> Option<Index>, sizes: &dyn Sizes) -> Expr {
        let node = match &*self.node {
            Node::Read { tensor, at, bounds } => {
                Node::Read { tensor: *tensor, at: at.iter().map(|i| i.subst(f, sizes)).collect(), bounds: *bounds }
            }
            Node::Index(i) => Node::Index(i.subst(f, sizes)),
            Node::Random { key, place, at } => Node::Random { key: *key, place: *place, at: at.subst(f, sizes) },
            Node::Test(p) => Node::Test(p.subst(f, sizes)),
            Node::Select(p, a, b) => Node::Select(p.subst(f, sizes), a.subst_vars(f, sizes), b.subst_vars(f, sizes)),
            Node::Reduce(r) => {
                let inner = |v: VarId| if r.vars.contains(&v) { None } else { f(v) };
                Node::Reduce(Reduction {
                    op: r.op,
                    vars: r.vars.clone(),
                    guard: r.guard.subst(&inner, sizes),
                    body: r.body.subst_vars(&inner, sizes),
                })
            }
            _ => return self.map_children(&mut |c| c.subst_vars(f, sizes)),
        };
        Expr { elem: self.elem, node: Box::new(node) }
    }

    /// Replaces every read for which `f` gives an expression (asked innermost first, with the read's indices already rewritten).
    pub fn map_reads(&self, f: &mut dyn FnMut(&Expr, TensorId, &[Index]) -> Option<Expr>) -> Expr {
        let out = self.map_children(&mut |c| c.map_reads(f));
        match &*out.node {
            Node::Read { tensor, at, .. } => f(&out, *tensor, at).unwrap_or(out),
            _ => out,
        }
    }
}

impl Pred {
    /// Replaces free variables.
    pub fn subst(&self, f: &dyn Fn(VarId) -> Option<Index>, sizes: &dyn Sizes) -> Pred {
        match self {
            Pred::True => Pred::True,
            Pred::Zero(i) => {
                let i = i.subst(f, sizes);
                match i.as_const() {
                    Some(0) => Pred::True,
                    _ => Pred::Zero(i),
                }
            }
            Pred::NonNeg(i) => {
                let i = i.subst(f, sizes);
                match i.range(sizes) {
                    Some((lo, _)) if lo >= 0 => Pred::True,
                    _ => Pred::NonNeg(i),
                }
            }
            Pred::Value(e) => Pred::Value(e.subst_vars(f, sizes)),
            Pred::Not(p) => Pred::Not(Box::new(p.subst(f, sizes))),
            Pred::And(ps) => Pred::and(ps.iter().map(|p| p.subst(f, sizes))),
            Pred::Or(ps) => Pred::Or(ps.iter().map(|p| p.subst(f, sizes)).collect()),
        }
    }

    /// Calls `f` for every free variable occurrence.
    pub fn visit_vars(&self, f: &mut dyn FnMut(VarId)) {
        match self {
            Pred::True => {}
            Pred::Zero(i) | Pred::NonNeg(i) => i.visit_vars(f),
            Pred::Value(e) => e.visit_vars(f),
            Pred::Not(p) => p.visit_vars(f),
            Pred::And(ps) | Pred::Or(ps) => ps.iter().for_each(|p| p.visit_vars(f)),
        }
    }

    /// Calls `f` for every read.
    pub fn visit_reads(&self, f: &mut dyn FnMut(TensorId, &[Index])) {
        match self {
            Pred::True => {}
            Pred::Zero(i) | Pred::NonNeg(i) => i.visit_reads(f),
            Pred::Value(e) => e.visit_reads(f),
            Pred::Not(p) => p.visit_reads(f),
            Pred::And(ps) | Pred::Or(ps) => ps.iter().for_each(|p| p.visit_reads(f)),
        }
    }

    /// Whether the variable occurs free.
    pub fn uses(&self, var: VarId) -> bool {
        let mut found = false;
        self.visit_vars(&mut |v| found |= v == var);
        found
    }
}

/// The expression with every variable that a reduction inside binds replaced by a new one, made by `fresh` from the old. Needed
/// before an expression is put where its own bound variables may be in scope.
pub fn freshen(expr: &Expr, fresh: &mut dyn FnMut(VarId) -> VarId, sizes: &dyn Sizes) -> Expr {
    match &*expr.node {
        Node::Reduce(r) => {
            let renamed: Vec<(VarId, VarId)> = r.vars.iter().map(|&v| (v, fresh(v))).collect();
            let f = |v: VarId| renamed.iter().find(|(old, _)| *old == v).map(|(_, new)| Index::from(*new));
            let all = |v: VarId| {
                renamed
                    .iter()
                    .find(|(_, new)| *new == v)
                    .map_or_else(|| sizes.size_of(v), |(old, _)| sizes.size_of(*old))
            };
            let body = r.body.subst_vars(&f, &all);
            let node = Node::Reduce(Reduction {
                op: r.op,
                vars: renamed.iter().map(|(_, new)| *new).collect(),
                guard: r.guard.subst(&f, &all),
                body: freshen(&body, fresh, &all),
            });
            Expr { elem: expr.elem, node: Box::new(node) }
        }
        _ => expr.map_children(&mut |c| freshen(c, fresh, sizes)),
    }
}
