//! Relative tables: what depends on two index variables only through their difference is evaluated once per difference.
//!
//! An expression is invariant under a simultaneous shift of `u` and `v` if substituting `u + s` and `v + s` gives an
//! expression without `s`. Then it is a function of `v - u` and takes `n_u + n_v - 1` values for each such pair: it becomes a definition
//! over `delta = v - u + n_u - 1`, read where it stood. Definitions are visited in order and read through at once, so that a table's readers
//! can become tables themselves.

use super::{Cx, each_function, forward, walk};
use crate::ir::{Expr, Index, Node, Pred, Program, Stmt, VarId};

/// The name under which it reports.
pub const NAME: &str = "relative table";

/// The pass.
pub fn run(program: &mut Program, report: &mut super::Report) {
    each_function(program, report, &mut function);
}

fn function(cx: &mut Cx) {
    let mut at = 0;
    while at < cx.function.body.len() {
        let Stmt::Define(d) = &cx.function.body[at] else {
            at += 1;
            continue;
        };
        let (d, mut whole) = (d.clone(), false);
        for (n, c) in d.clauses.iter().enumerate() {
            let mut walk = Walk { cx, at, tensor: d.tensor, tables: 0 };
            let body = match walk.whole(&c.body, &c.vars) {
                Some(read) => read,
                None => walk.visit(&c.body, &c.vars, &[]),
            };
            let tables = walk.tables;
            at += tables;
            if tables > 0 {
                whole |= matches!(&*body.node, Node::Read { .. });
                cx.set_body(at, n, body);
            } else {
                refuse(cx, d.tensor, &c.vars, &c.body);
            }
        }
        if whole {
            forward::forward_one(cx, d.tensor);
        }
        at += 1;
    }
}

struct Walk<'a, 'b> {
    cx: &'a mut Cx<'b>,
    at: usize,
    tensor: crate::ir::TensorId,
    tables: usize,
}

impl Walk<'_, '_> {
    /// A whole body: worth a table as soon as it is more than a read, since the definition itself is read through.
    fn whole(&mut self, e: &Expr, scope: &[VarId]) -> Option<Expr> {
        let least = if matches!(&*e.node, Node::Select(..)) { 2.0 } else { 1.0 };
        if walk::work(e, &self.cx.sizes()) < least { None } else { self.table(e, scope, &[]) }
    }

    /// Replaces maximal subexpressions that have a table; `scope` are the variables around, `guards` what holds there.
    fn visit(&mut self, e: &Expr, scope: &[VarId], guards: &[Pred]) -> Expr {
        if walk::work(e, &self.cx.sizes()) >= 2.0
            && let Some(read) = self.table(e, scope, guards)
        {
            return read;
        }
        let with = |p: &Pred| guards.iter().cloned().chain(p.conjuncts().into_iter().cloned()).collect::<Vec<_>>();
        match &*e.node {
            Node::Select(p, a, b) => {
                let a = self.visit(a, scope, &with(p));
                let b = self.visit(b, scope, &with(&Pred::Not(Box::new(p.clone()))));
                Expr::select(p.clone(), a, b)
            }
            Node::Reduce(r) => {
                let scope: Vec<VarId> = scope.iter().chain(&r.vars).copied().collect();
                let guards = with(&r.guard);
                e.map_children(&mut |c| self.visit(c, &scope, &guards))
            }
            _ => e.map_children(&mut |c| self.visit(c, scope, guards)),
        }
    }

    fn table(&mut self, e: &Expr, scope: &[VarId], guards: &[Pred]) -> Option<Expr> {
        let mut free = walk::free_vars(e);
        if !free.iter().all(|v| scope.contains(v)) {
            return None;
        }
        free.sort_by_key(|v| scope.iter().position(|s| s == v));
        let mut body = self.cx.freshen(e);
        let mut guard: Vec<Pred> = guards.to_vec();
        let mut vars = free.clone();
        let mut at: Vec<Index> = free.iter().map(|&v| v.into()).collect();
        let mut shape = String::new();
        let mut used: Vec<VarId> = Vec::new();
        for (n, &u) in free.iter().enumerate() {
            for &v in &free[n + 1..] {
                let (nu, nv) = (self.cx.size(u), self.cx.size(v));
                if nu < 2 || nv < 2 || used.contains(&u) || used.contains(&v) || !invariant(self.cx, e, u, v) {
                    continue;
                }
                let name = format!("{}-{}", self.cx.function.var(v).name, self.cx.function.var(u).name);
                let delta = self.cx.fresh_sized(&name, nu + nv - 1);
                let pairs = [(v, Index::from(u).add(&delta.into()).plus(1 - nu))];
                let new = self.cx.subst(&body, &pairs);
                if new.uses(u) {
                    continue;
                }
                body = new;
                let sizes = self.cx.sizes();
                let f = |o: VarId| pairs.iter().find(|(p, _)| *p == o).map(|(_, i)| i.clone());
                guard = guard.iter().map(|p| p.subst(&f, &sizes)).collect();
                let place = vars.iter().position(|&o| o == v)?;
                vars[place] = delta;
                at[place] = Index::from(v).sub(&u.into()).plus(nu - 1);
                let gone = vars.iter().position(|&o| o == u)?;
                vars.remove(gone);
                at.remove(gone);
                used.extend([u, v]);
                shape += &if nu == nv { format!("(2*{nu}-1)") } else { format!("({nu}+{nv}-1)") };
            }
        }
        let (table, full) = (self.cx.points(&vars), self.cx.points(&free));
        if used.is_empty() || table >= full {
            return None;
        }
        let body = self.guarded(body, &vars, &guard);
        let own = self.cx.function.tensor(self.tensor).name.clone();
        let tensor = self.cx.outline(self.at, &format!("{own}.offsets"), &vars, &body);
        self.at += 1;
        self.tables += 1;
        let rest: Vec<VarId> = free.iter().copied().filter(|v| !used.contains(v)).collect();
        let each = if rest.is_empty() { String::new() } else { format!(" for each {}", self.cx.names(&rest)) };
        let text = format!("offset table {shape}{each}");
        let reason = format!("{text}: {table} values instead of {full}");
        self.cx.fired(NAME, self.tensor, reason);
        let site = self.cx.site(self.tensor);
        self.cx.report.algorithm(site, text);
        Some(Expr::read(e.elem, tensor, at))
    }

    /// The table's body where some pair of indices has that difference and the guards hold; elsewhere it must be defined but is not used.
    fn guarded(&self, body: Expr, vars: &[VarId], guards: &[Pred]) -> Expr {
        if guards.is_empty() {
            return body;
        }
        let known = |p: &&Pred| {
            let mut all = true;
            p.visit_vars(&mut |v| all &= vars.contains(&v));
            all
        };
        let kept = Pred::and(guards.iter().filter(known).cloned());
        let body = self.cx.relaxed(&body);
        match &*body.node {
            Node::Reduce(r) => Expr::reduce(r.op, r.vars.clone(), Pred::and([kept, r.guard.clone()]), r.body.clone()),
            _ => Expr::select(kept, body.clone(), Expr::constant(body.elem, 0.0)),
        }
    }
}

/// Whether the expression has the same value after `u` and `v` are shifted by the same amount.
pub(crate) fn invariant(cx: &Cx, e: &Expr, u: VarId, v: VarId) -> bool {
    // A variable beyond the function's own; its range reaches both ways, so that no range proves what only holds without it.
    const SHIFT: i64 = 1 << 40;
    let s = VarId(cx.function.vars.len() as u32);
    let sizes = |o: VarId| if o == s { 2 * SHIFT } else { cx.size(o) };
    let f = |o: VarId| (o == u || o == v).then(|| Index::from(o).add(&s.into()).plus(-SHIFT));
    !e.subst_vars(&f, &sizes).uses(s)
}

/// Reports what stops a definition over two indices of one axis from being a table.
fn refuse(cx: &mut Cx, tensor: crate::ir::TensorId, vars: &[VarId], body: &Expr) {
    if walk::work(body, &cx.sizes()) < 2.0 {
        return;
    }
    for (n, &u) in vars.iter().enumerate() {
        for &v in &vars[n + 1..] {
            let same = cx.function.var(u).axis == cx.function.var(v).axis;
            if !same || cx.size(u) < 2 || !body.uses(u) || !body.uses(v) {
                continue;
            }
            let mut culprit = None;
            visit_leaves(body, &mut |e| {
                if culprit.is_none() && (e.uses(u) || e.uses(v)) && !invariant(cx, e, u, v) {
                    culprit = Some(match &*e.node {
                        Node::Read { tensor, .. } => {
                            let used = if e.uses(u) { u } else { v };
                            let (t, name) = (&cx.function.tensor(*tensor).name, &cx.function.var(used).name);
                            format!("reads {t} at {name} itself, not only at a difference")
                        }
                        _ => format!("uses {} itself, not only a difference", cx.names(&[u, v])),
                    });
                }
            });
            if let Some(reason) = culprit {
                cx.refused(NAME, tensor, reason);
                return;
            }
        }
    }
}

fn visit_leaves(e: &Expr, f: &mut dyn FnMut(&Expr)) {
    if matches!(&*e.node, Node::Read { .. } | Node::Index(_) | Node::Test(_)) {
        f(e);
    }
    e.for_each_child(&mut |c| visit_leaves(c, f));
}
