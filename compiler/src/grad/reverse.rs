//! The reverse walk over one function.

use super::derivatives::{Partial, partials};
use super::solve::{Domain, Names, restrict};
use crate::ir::subst::freshen;
use crate::ir::{
    Axis, Clause, Definition, Elem, Expr, Function, Index, Keep, Monoid, Node, Pred, Reduction, Stmt, TensorId, VarId,
    VarSizes,
};
use std::collections::HashMap;

/// One read of a tensor, inside the definition of another: `sum(vars where guard) cotangent` over the points with `at = k` is what it contributes
/// to element `k` of the tensor's adjoint.
struct Site {
    vars: Vec<VarId>,
    guard: Pred,
    at: Vec<Index>,
    cotangent: Expr,
}

/// The state of the walk.
pub struct Reverse<'a> {
    /// The program's axes.
    pub axes: &'a mut Vec<Axis>,
    /// The function, with the adjoint definitions at its end.
    pub function: Function,
    /// Which tensors depend on something whose gradient is wanted.
    pub active: Vec<bool>,
    sites: HashMap<TensorId, Vec<Site>>,
    /// Whole tensors that are added to an adjoint: cotangents and what calls give.
    whole: HashMap<TensorId, Vec<TensorId>>,
    /// Constants that are added to an adjoint.
    constant: HashMap<TensorId, f64>,
}

fn is_float(elem: Elem) -> bool {
    matches!(elem, Elem::F64 | Elem::F32 | Elem::F16 | Elem::Bf16)
}

impl<'a> Reverse<'a> {
    /// A walk over `function`, of which the tensors in `wrt` are differentiated.
    pub fn new(axes: &'a mut Vec<Axis>, function: Function, wrt: &[TensorId]) -> Reverse<'a> {
        let mut active = vec![false; function.tensors.len()];
        wrt.iter().for_each(|t| active[t.index()] = is_float(function.tensor(*t).elem));
        for stmt in &function.body {
            let reached = stmt.reads().iter().any(|t| active[t.index()]);
            for t in stmt.defines() {
                active[t.index()] = reached && is_float(function.tensor(t).elem);
            }
        }
        Reverse { axes, function, active, sites: HashMap::new(), whole: HashMap::new(), constant: HashMap::new() }
    }

    /// Adds a tensor of the same shape to the adjoint of `tensor`.
    pub fn add_whole(&mut self, tensor: TensorId, cotangent: TensorId) {
        self.whole.entry(tensor).or_default().push(cotangent);
    }

    /// Adds a constant to every element of the adjoint of `tensor`.
    pub fn add_constant(&mut self, tensor: TensorId, value: f64) {
        *self.constant.entry(tensor).or_insert(0.0) += value;
    }

    /// Collects what a definition sends to the tensors it reads, given its own adjoint.
    pub fn define(&mut self, d: &Definition, adjoint: TensorId) {
        for clause in &d.clauses {
            let up = Expr::read(clause.body.elem, adjoint, clause.at.clone());
            let active = self.active.clone();
            let is_active = |t: TensorId| active.get(t.index()).copied().unwrap_or(false);
            match &*clause.body.node {
                Node::Reduce(r) => {
                    let guards = match r.op {
                        Monoid::Sum => r.guard.clone(),
                        Monoid::Max | Monoid::Min => self.attaining(d, clause, r),
                        Monoid::Prod => {
                            let others = self.product_of_others(d, clause, r);
                            let mut out = Vec::new();
                            partials(&r.body, None, Expr::mul(up, others), &is_active, &mut out);
                            self.add_sites(clause, &r.vars, &r.guard, out);
                            continue;
                        }
                        _ => continue,
                    };
                    let mut out = Vec::new();
                    partials(&r.body, None, up, &is_active, &mut out);
                    self.add_sites(clause, &r.vars, &guards, out);
                }
                _ => {
                    let mut out = Vec::new();
                    // Of several clauses, each gives a part of the tensor. What is made of less than there are results is as well computed again.
                    let mut large = false;
                    clause.body.visit_reads(&mut |t, _| large |= self.size(t) >= self.size(d.tensor));
                    let value = Expr::read(clause.body.elem, d.tensor, clause.at.clone());
                    let value = (d.clauses.len() == 1 && large).then_some(&value);
                    partials(&clause.body, value, up, &is_active, &mut out);
                    self.add_sites(clause, &[], &Pred::True, out);
                }
            }
        }
    }

    fn size(&self, t: TensorId) -> usize {
        self.function.tensor(t).dims.iter().map(|d| self.axes[d.index()].size).product()
    }

    fn add_sites(&mut self, clause: &Clause, inner: &[VarId], guard: &Pred, partials: Vec<Partial>) {
        for p in partials {
            let vars = clause.vars.iter().chain(inner).copied().collect();
            let site = Site { vars, guard: guard.clone(), at: p.at, cotangent: p.cotangent };
            self.sites.entry(p.tensor).or_default().push(site);
        }
    }

    /// The guard that only the first point with the extreme value passes.
    fn attaining(&mut self, d: &Definition, clause: &Clause, r: &Reduction) -> Pred {
        let op = if r.op == Monoid::Max { Monoid::ArgMax } else { Monoid::ArgMin };
        let body = Expr::new(Elem::I32, Node::Reduce(Reduction { op, ..r.clone() }));
        let name = format!("{}.where", self.function.tensor(d.tensor).name);
        let place = self.outline(&name, &clause.vars, &body);
        let read = Expr::read(Elem::I32, place, clause.vars.iter().map(|&v| v.into()).collect());
        let sizes = VarSizes { vars: &self.function.vars, axes: self.axes };
        let flat = r
            .vars
            .iter()
            .fold(Index::default(), |sum, &v| sum.scale(crate::ir::index::Sizes::size_of(&sizes, v)).add(&v.into()));
        let here = Pred::Zero(Index::atom(crate::ir::Atom::Data(Box::new(read))).sub(&flat));
        Pred::and([r.guard.clone(), here])
    }

    /// The product over all other points, for the derivative of a product.
    fn product_of_others(&mut self, d: &Definition, clause: &Clause, r: &Reduction) -> Expr {
        let twins: Vec<VarId> = r.vars.iter().map(|&v| self.twin(v)).collect();
        let sizes = VarSizes { vars: &self.function.vars, axes: self.axes };
        let f = |v: VarId| r.vars.iter().position(|w| *w == v).map(|n| Index::from(twins[n]));
        let (guard, body) = (r.guard.subst(&f, &sizes), r.body.subst_vars(&f, &sizes));
        let same = Pred::and(r.vars.iter().zip(&twins).map(|(&a, &b)| Pred::Zero(Index::from(a).sub(&b.into()))));
        let guard = Pred::and([guard, Pred::Not(Box::new(same))]);
        let elem = body.elem;
        let product = Expr::reduce(Monoid::Prod, twins, guard, body);
        let name = format!("{}.others", self.function.tensor(d.tensor).name);
        let vars: Vec<VarId> = clause.vars.iter().chain(&r.vars).copied().collect();
        let t = self.outline(&name, &vars, &product);
        Expr::read(elem, t, vars.iter().map(|&v| v.into()).collect())
    }

    fn twin(&mut self, v: VarId) -> VarId {
        let var = self.function.var(v).clone();
        self.function.new_var(var.name, var.axis)
    }

    /// `name[vars] = body` as a new definition at the end of the body, with variables of its own.
    fn outline(&mut self, name: &str, vars: &[VarId], body: &Expr) -> TensorId {
        let own: Vec<VarId> = vars.iter().map(|&v| self.twin(v)).collect();
        let body = self.fresh_copy(body, vars, &own.iter().map(|&v| v.into()).collect::<Vec<_>>());
        let dims = own.iter().map(|&v| self.function.var(v).axis).collect();
        let tensor = self.function.new_tensor(name, body.elem, dims, None);
        let clause = Clause { at: own.iter().map(|&v| v.into()).collect(), vars: own, body };
        self.function.body.push(Stmt::Define(Definition { tensor, clauses: vec![clause], keep: Keep::Auto }));
        tensor
    }

    /// The expression with bound variables of its own and `vars` replaced.
    fn fresh_copy(&mut self, e: &Expr, vars: &[VarId], to: &[Index]) -> Expr {
        let mut added = Vec::new();
        let base = self.function.vars.len() as u32;
        let e = {
            let old = &self.function.vars;
            let sizes = VarSizes { vars: old, axes: self.axes };
            let mut fresh = |v: VarId| {
                added.push(old[v.index()].clone());
                VarId(base + added.len() as u32 - 1)
            };
            freshen(e, &mut fresh, &sizes)
        };
        self.function.vars.extend(added);
        let sizes = VarSizes { vars: &self.function.vars, axes: self.axes };
        e.subst_vars(&|v| vars.iter().position(|w| *w == v).map(|n| to[n].clone()), &sizes)
    }

    /// Defines the adjoint of a tensor from everything that was collected; `None` if nothing reaches it. `pieces` are the clauses of its own
    /// definition: the adjoint is built along them, so that a concatenation's adjoint is one slice a piece.
    pub fn finish(&mut self, tensor: TensorId, pieces: Option<&[Clause]>) -> Option<TensorId> {
        let sites = self.sites.remove(&tensor).unwrap_or_default();
        let whole = self.whole.remove(&tensor).unwrap_or_default();
        let constant = self.constant.remove(&tensor);
        if sites.is_empty() && constant.is_none() {
            match whole.as_slice() {
                [] => return None,
                [one] => return Some(*one),
                _ => {}
            }
        }
        let ty = self.function.tensor(tensor).clone();
        let targets: Vec<(Vec<VarId>, Vec<Index>)> = match pieces {
            Some(pieces) if pieces.len() > 1 => pieces
                .iter()
                .map(|c| {
                    let own: Vec<VarId> = c.vars.iter().map(|&v| self.twin(v)).collect();
                    let sizes = VarSizes { vars: &self.function.vars, axes: self.axes };
                    let f = |v: VarId| c.vars.iter().position(|w| *w == v).map(|n| Index::from(own[n]));
                    let at = c.at.iter().map(|i| i.subst(&f, &sizes)).collect();
                    (own, at)
                })
                .collect(),
            _ => {
                let own: Vec<VarId> =
                    ty.dims.iter().enumerate().map(|(n, &d)| self.function.new_var(format!("k{n}"), d)).collect();
                let at = own.iter().map(|&v| v.into()).collect();
                vec![(own, at)]
            }
        };
        let name = format!("d.{}", ty.name);
        let mut clauses = Vec::new();
        for (vars, k) in targets {
            let mut terms: Vec<Expr> = Vec::new();
            if let Some(c) = constant {
                terms.push(Expr::constant(ty.elem, c));
            }
            terms.extend(whole.iter().map(|&t| Expr::read(ty.elem, t, k.clone())));
            let mut reductions = Vec::new();
            for site in &sites {
                match self.contribution(site, &k) {
                    Some(e) if matches!(&*e.node, Node::Reduce(_)) => reductions.push(e),
                    Some(e) => terms.push(e),
                    None => {}
                }
            }
            // A single reduction is the body; several stand in definitions of their own.
            let body = if terms.is_empty() && reductions.len() == 1 {
                reductions.remove(0)
            } else {
                for (n, e) in reductions.iter().enumerate() {
                    let part = self.outline(&format!("{name}.part{n}"), &vars, e);
                    terms.push(Expr::read(ty.elem, part, vars.iter().map(|&v| v.into()).collect()));
                }
                terms.into_iter().reduce(Expr::add).unwrap_or_else(|| Expr::constant(ty.elem, 0.0))
            };
            clauses.push(Clause { vars, at: k, body });
        }
        let adjoint = self.function.new_tensor(name, ty.elem, ty.dims.clone(), ty.span);
        self.function.body.push(Stmt::Define(Definition { tensor: adjoint, clauses, keep: Keep::Auto }));
        Some(adjoint)
    }

    /// What a read contributes to the element `k`.
    fn contribution(&mut self, site: &Site, k: &[Index]) -> Option<Expr> {
        let own: Vec<VarId> = site.vars.iter().map(|&v| self.twin(v)).collect();
        let to: Vec<Index> = own.iter().map(|&v| v.into()).collect();
        let body = self.fresh_copy(&site.cotangent, &site.vars, &to);
        let guard = self.fresh_copy(&Expr::new(Elem::Bool, Node::Test(site.guard.clone())), &site.vars, &to);
        let Node::Test(guard) = *guard.node else { unreachable!("a test stays a test") };
        let mut names = Names { axes: self.axes, function: &mut self.function };
        let f = |v: VarId| site.vars.iter().position(|w| *w == v).map(|n| to[n].clone());
        let equations: Vec<Index> = site.at.iter().zip(k).map(|(i, k)| i.subst(&f, &names).sub(k)).collect();
        let domain = Domain { vars: own, guard: guard.conjuncts().into_iter().cloned().collect(), body };
        let d = restrict(domain, equations, &mut names)?;
        Some(Expr::sum(d.vars, Pred::and(d.guard), d.body))
    }
}
