//! Named rewrites of the index IR, each with a precondition that is checked on the definition itself, and an audit trail of
//! what fired, what did not and why. No rule knows a variant: each is a property of comprehensions.
//!
//! Rules take and give programs whose clause bodies are pointwise or one reduction at the top with a pointwise body;
//! definitions imply no storage, so factoring one out is free.

pub mod dead;
pub mod duplicates;
pub mod fold;
pub mod forward;
pub mod hoist;
pub mod inline;
pub mod linearise;
pub mod narrow;
pub mod pipeline;
pub mod regroup;
pub mod relative;
pub mod restrict;
mod separate;
pub mod split;
pub mod walk;
pub mod window;

use crate::ir::{
    self, Axis, Bounds, Clause, Definition, Expr, Function, Index, Node, Pred, Program, Stmt, TensorId, VarId, VarSizes,
};
use serde::Serialize;

/// A rewrite of a whole program.
#[derive(Clone, Copy)]
pub struct Pass {
    /// Its name in reports and on the command line.
    pub name: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Runs it.
    pub run: fn(&mut Program, &mut Report),
}

/// What the rewrites did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// In order, each once.
    pub entries: Vec<Entry>,
    /// What the derivation amounts to, by definition.
    pub algorithms: Vec<Algorithm>,
}

/// One application, or refusal, of a rewrite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Its name.
    #[serde(rename = "name")]
    pub rewrite: &'static str,
    /// `function.definition`.
    pub site: String,
    /// Whether it was applied.
    pub fired: bool,
    /// What was gained, or what stopped it.
    pub reason: String,
}

/// The algorithm by which a definition is computed, where a rewrite chose one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Algorithm {
    /// `function.definition`.
    pub site: String,
    /// For people: `offset table (2*14-1)(2*14-1) for each h`, `linear, rank 4`, `window of 9 (3 x 3)`.
    pub text: String,
}

impl Report {
    fn push(&mut self, rewrite: &'static str, site: String, fired: bool, reason: String) {
        let entry = Entry { rewrite, site, fired, reason };
        if !self.entries.contains(&entry) {
            self.entries.push(entry);
        }
    }
    fn algorithm(&mut self, site: String, text: String) {
        let algorithm = Algorithm { site, text };
        if !self.algorithms.contains(&algorithm) {
            self.algorithms.push(algorithm);
        }
    }
    /// Whether the rewrite was applied at a site that ends in `.definition`.
    pub fn fired(&self, rewrite: &str, definition: &str) -> bool {
        self.entries.iter().any(|e| {
            e.fired && e.rewrite == rewrite && e.site.rsplit('.').next().is_some_and(|last| last == definition)
        })
    }
}

/// One function under rewriting.
pub(crate) struct Cx<'a> {
    pub axes: &'a mut Vec<Axis>,
    pub function: &'a mut Function,
    pub report: &'a mut Report,
}

/// Runs `f` on every function.
pub(crate) fn each_function(program: &mut Program, report: &mut Report, f: &mut dyn FnMut(&mut Cx)) {
    let axes = &mut program.axes;
    for function in &mut program.functions {
        f(&mut Cx { axes, function, report });
    }
}

impl Cx<'_> {
    /// The sizes of all variables.
    pub fn sizes(&self) -> VarSizes<'_> {
        VarSizes { vars: &self.function.vars, axes: self.axes }
    }
    /// The size of a variable.
    pub fn size(&self, var: VarId) -> i64 {
        self.axes[self.function.var(var).axis.index()].size as i64
    }
    /// The number of points of the variables' domain.
    pub fn points<'v>(&self, vars: impl IntoIterator<Item = &'v VarId>) -> f64 {
        vars.into_iter().map(|&v| self.size(v) as f64).product()
    }
    /// The number of elements of a tensor.
    pub fn elements(&self, tensor: TensorId) -> f64 {
        self.function.tensor(tensor).dims.iter().map(|d| self.axes[d.index()].size as f64).product()
    }
    /// The sizes of a tensor's dimensions.
    pub fn shape(&self, tensor: TensorId) -> Vec<i64> {
        self.function.tensor(tensor).dims.iter().map(|d| self.axes[d.index()].size as i64).collect()
    }
    /// Where, for the report.
    pub fn site(&self, tensor: TensorId) -> String {
        format!("{}.{}", self.function.name, self.function.tensor(tensor).name)
    }
    /// Records an application.
    pub fn fired(&mut self, rewrite: &'static str, tensor: TensorId, reason: String) {
        let site = self.site(tensor);
        self.report.push(rewrite, site, true, reason);
    }
    /// Records a refusal.
    pub fn refused(&mut self, rewrite: &'static str, tensor: TensorId, reason: String) {
        let site = self.site(tensor);
        self.report.push(rewrite, site, false, reason);
    }
    /// A variable over the same axis.
    pub fn fresh(&mut self, like: VarId) -> VarId {
        let var = self.function.var(like).clone();
        self.function.new_var(var.name, var.axis)
    }
    /// A variable over a new atom.
    pub fn fresh_sized(&mut self, name: &str, size: i64) -> VarId {
        let axis = ir::atom(self.axes, name, size as usize);
        self.function.new_var(name, axis)
    }
    /// The expression with all bound variables replaced by new ones.
    pub fn freshen(&mut self, e: &Expr) -> Expr {
        let mut bound = Vec::new();
        walk::bound_vars(e, &mut bound);
        if bound.is_empty() {
            return e.clone();
        }
        let mut new: Vec<VarId> = bound.iter().map(|&v| self.fresh(v)).collect();
        new.reverse();
        let mut next = |_: VarId| new.pop().expect("one new variable was made for each binding");
        ir::subst::freshen(e, &mut next, &self.sizes())
    }
    /// Substitutes variables.
    pub fn subst(&self, e: &Expr, pairs: &[(VarId, Index)]) -> Expr {
        let f = |v: VarId| pairs.iter().find(|(old, _)| *old == v).map(|(_, new)| new.clone());
        e.subst_vars(&f, &self.sizes())
    }
    /// Makes `name[vars] = body` a definition of its own before statement `at` and gives its tensor, whose dimensions are `vars` in order. Bound variables of
    /// the new definition are its own.
    pub fn outline(&mut self, at: usize, name: &str, vars: &[VarId], body: &Expr) -> TensorId {
        let body = self.freshen(body);
        let own: Vec<VarId> = vars.iter().map(|&v| self.fresh(v)).collect();
        let pairs: Vec<(VarId, Index)> = vars.iter().copied().zip(own.iter().map(|&v| v.into())).collect();
        let body = self.subst(&body, &pairs);
        let dims = vars.iter().map(|&v| self.function.var(v).axis).collect();
        let tensor = self.function.new_tensor(name, body.elem, dims, None);
        let clause = Clause { at: own.iter().map(|&v| v.into()).collect(), vars: own, body };
        let define = Stmt::Define(Definition { tensor, clauses: vec![clause], keep: Default::default() });
        self.function.body.insert(at, define);
        tensor
    }
    /// The expression for use outside the guards under which it stood: reads that ranges do not place inside their tensor give 0 outside.
    pub fn relaxed(&self, e: &Expr) -> Expr {
        walk::rewrite(e, &mut |e| self.relaxed_read(e))
    }
    /// The same for a condition.
    pub fn relaxed_pred(&self, p: &Pred) -> Pred {
        walk::rewrite_pred(p, &mut |e| self.relaxed_read(e))
    }
    fn relaxed_read(&self, mut e: Expr) -> Expr {
        if let Node::Read { tensor, at, bounds } = &mut *e.node {
            let (shape, sizes) = (self.shape(*tensor), self.sizes());
            let inside = at.iter().zip(&shape).all(|(i, &n)| Pred::within(i, 0, n, &sizes) == Pred::True);
            if !inside {
                *bounds = Bounds::Zero;
            }
        }
        e
    }
    /// The definition at a statement.
    pub fn definition_at(&self, at: usize) -> Option<&Definition> {
        match &self.function.body[at] {
            Stmt::Define(d) => Some(d),
            _ => None,
        }
    }
    /// The statement that defines a tensor.
    pub fn position(&self, tensor: TensorId) -> Option<usize> {
        self.function.body.iter().position(|s| s.defines().contains(&tensor))
    }
    /// Replaces the body of a clause.
    pub fn set_body(&mut self, at: usize, clause: usize, body: Expr) {
        if let Stmt::Define(d) = &mut self.function.body[at] {
            d.clauses[clause].body = body;
        }
    }
    /// Variable names, for people.
    pub fn names(&self, vars: &[VarId]) -> String {
        vars.iter().map(|&v| self.function.var(v).name.as_str()).collect::<Vec<_>>().join(", ")
    }
}
