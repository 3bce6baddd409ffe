//! Expressions with other tensors and variables, and calls replaced by the callee's body.

use super::expr::{Expr, Node, Pred, Reduction};
use super::index::{Atom, Index};
use super::{Bounds, Call, Clause, Components, Definition, Function, Keep, Stmt, TensorId, VarId};

/// What tensors and variables become.
pub struct Renaming<'a> {
    /// The new tensor of an old one.
    pub tensor: &'a dyn Fn(TensorId) -> TensorId,
    /// The new variable of an old one, bound ones included.
    pub var: &'a dyn Fn(VarId) -> VarId,
}

impl Renaming<'_> {
    /// The expression in new names.
    pub fn expr(&self, e: &Expr) -> Expr {
        let node = match &*e.node {
            Node::Const(bits) => Node::Const(*bits),
            Node::Index(i) => Node::Index(self.index(i)),
            Node::Read { tensor, at, bounds } => Node::Read {
                tensor: (self.tensor)(*tensor),
                at: at.iter().map(|i| self.index(i)).collect(),
                bounds: *bounds,
            },
            Node::Unary(op, a) => Node::Unary(*op, self.expr(a)),
            Node::Binary(op, a, b) => Node::Binary(*op, self.expr(a), self.expr(b)),
            Node::Select(p, a, b) => Node::Select(self.pred(p), self.expr(a), self.expr(b)),
            Node::Test(p) => Node::Test(self.pred(p)),
            Node::Cast(a) => Node::Cast(self.expr(a)),
            Node::Stop(a) => Node::Stop(self.expr(a)),
            Node::Random { key, place, at } => {
                Node::Random { key: (self.tensor)(*key), place: *place, at: self.index(at) }
            }
            Node::Reduce(r) => Node::Reduce(Reduction {
                op: r.op,
                vars: r.vars.iter().map(|v| (self.var)(*v)).collect(),
                guard: self.pred(&r.guard),
                body: self.expr(&r.body),
            }),
        };
        Expr { elem: e.elem, node: Box::new(node) }
    }

    /// The index in new names.
    pub fn index(&self, i: &Index) -> Index {
        let mut out = Index::from(i.offset);
        for (atom, c) in &i.terms {
            let atom = match atom {
                Atom::Var(v) => Atom::Var((self.var)(*v)),
                Atom::Div(e, k) => Atom::Div(Box::new(self.index(e)), *k),
                Atom::Mod(e, k) => Atom::Mod(Box::new(self.index(e)), *k),
                Atom::Clamp(e, lo, hi) => Atom::Clamp(Box::new(self.index(e)), *lo, *hi),
                Atom::Data(e) => Atom::Data(Box::new(self.expr(e))),
            };
            out.add_term(atom, *c);
        }
        out
    }

    /// The predicate in new names.
    pub fn pred(&self, p: &Pred) -> Pred {
        match p {
            Pred::True => Pred::True,
            Pred::Zero(i) => Pred::Zero(self.index(i)),
            Pred::NonNeg(i) => Pred::NonNeg(self.index(i)),
            Pred::Value(e) => Pred::Value(self.expr(e)),
            Pred::Not(p) => Pred::Not(Box::new(self.pred(p))),
            Pred::And(ps) => Pred::And(ps.iter().map(|p| self.pred(p)).collect()),
            Pred::Or(ps) => Pred::Or(ps.iter().map(|p| self.pred(p)).collect()),
        }
    }

    /// The statement in new names.
    pub fn stmt(&self, s: &Stmt) -> Stmt {
        match s {
            Stmt::Define(d) => Stmt::Define(Definition {
                tensor: (self.tensor)(d.tensor),
                clauses: d.clauses.iter().map(|c| self.clause(c)).collect(),
                keep: d.keep,
            }),
            Stmt::Call(c) => Stmt::Call(Call {
                function: c.function,
                args: c.args.iter().map(|t| (self.tensor)(*t)).collect(),
                results: c.results.iter().map(|t| (self.tensor)(*t)).collect(),
                site: c.site.clone(),
            }),
            Stmt::Components(c) => Stmt::Components(Components {
                mask: (self.tensor)(c.mask),
                labels: (self.tensor)(c.labels),
                connectivity: c.connectivity,
            }),
        }
    }

    fn clause(&self, c: &Clause) -> Clause {
        Clause {
            vars: c.vars.iter().map(|v| (self.var)(*v)).collect(),
            at: c.at.iter().map(|i| self.index(i)).collect(),
            body: self.expr(&c.body),
        }
    }
}

/// The statements of a call's callee in the names of the caller, which gets the tensors and variables they need.
pub fn spliced(caller: &mut Function, callee: &Function, call: &Call) -> Vec<Stmt> {
    let mut tensors: Vec<Option<TensorId>> = vec![None; callee.tensors.len()];
    for (arg, tensor) in callee.args.iter().zip(&call.args) {
        tensors[arg.tensor.index()] = Some(*tensor);
    }
    // A result that is an argument, or a result twice, is copied at the end.
    let mut copies = Vec::new();
    for (result, tensor) in callee.results.iter().zip(&call.results) {
        match tensors[result.tensor.index()] {
            None => tensors[result.tensor.index()] = Some(*tensor),
            Some(source) => copies.push((source, *tensor)),
        }
    }
    let tensors: Vec<TensorId> = tensors
        .into_iter()
        .zip(&callee.tensors)
        .map(|(known, t)| match known {
            Some(known) => known,
            None => caller.new_tensor(format!("{}.{}", call.site, t.name), t.elem, t.dims.clone(), t.span),
        })
        .collect();
    let vars: Vec<VarId> = callee.vars.iter().map(|v| caller.new_var(v.name.clone(), v.axis)).collect();
    let renaming = Renaming { tensor: &|t| tensors[t.index()], var: &|v| vars[v.index()] };
    let mut body: Vec<Stmt> = callee.body.iter().map(|s| renaming.stmt(s)).collect();
    for stmt in &mut body {
        if let Stmt::Call(inner) = stmt {
            inner.site = format!("{}.{}", call.site, inner.site);
        }
    }
    for (source, tensor) in copies {
        let from = caller.tensor(source).clone();
        let vars: Vec<VarId> = from.dims.iter().map(|d| caller.new_var("i", *d)).collect();
        let at: Vec<Index> = vars.iter().map(|v| Index::from(*v)).collect();
        let read = Node::Read { tensor: source, at: at.clone(), bounds: Bounds::Inside };
        let clause = Clause { vars, at, body: Expr::new(from.elem, read) };
        body.push(Stmt::Define(Definition { tensor, clauses: vec![clause], keep: Keep::Auto }));
    }
    body
}
