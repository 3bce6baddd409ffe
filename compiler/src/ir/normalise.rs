//! The normal form of definitions: a clause's body is either pointwise, or one reduction of a pointwise body.

use std::collections::HashMap;

use super::expr::{Bounds, Elem, Expr, Node, Pred, Reduction};
use super::index::{Atom, Index};
use super::{Axis, Clause, Definition, Function, Keep, Program, Stmt, VarId, VarSizes};

/// Gives every reduction inside another expression a definition of its own, over the variables that it uses: the batch first, then
/// those of the clause in their order, then those of the reductions around it.
pub fn normalise(program: &mut Program) {
    let axes = &program.axes;
    for function in &mut program.functions {
        let body = std::mem::take(&mut function.body);
        for stmt in body {
            let Stmt::Define(mut d) = stmt else {
                function.body.push(stmt);
                continue;
            };
            let name = function.tensor(d.tensor).name.clone();
            for clause in &mut d.clauses {
                if is_normal(&clause.body) {
                    continue;
                }
                let mut split = Split { function, axes, name: &name, scope: clause.vars.clone(), done: HashMap::new() };
                clause.body = split.top(&clause.body);
            }
            function.body.push(Stmt::Define(d));
        }
    }
}

/// Whether a body has the normal form.
pub fn is_normal(body: &Expr) -> bool {
    match &*body.node {
        Node::Reduce(r) => !has_reduction(&r.body) && !pred_has_reduction(&r.guard),
        _ => !has_reduction(body),
    }
}

struct Split<'a> {
    function: &'a mut Function,
    axes: &'a [Axis],
    name: &'a str,
    /// The variables in scope, outermost first.
    scope: Vec<VarId>,
    /// What equal reductions of the same clause became.
    done: HashMap<Expr, Expr>,
}

impl Split<'_> {
    fn top(&mut self, e: &Expr) -> Expr {
        match &*e.node {
            Node::Reduce(r) => self.reduction(e.elem, r),
            _ => self.inner(e),
        }
    }

    /// The reduction with a pointwise body.
    fn reduction(&mut self, elem: Elem, r: &Reduction) -> Expr {
        let depth = self.scope.len();
        self.scope.extend(&r.vars);
        let guard = self.pred(&r.guard);
        let body = self.inner(&r.body);
        self.scope.truncate(depth);
        Expr::new(elem, Node::Reduce(Reduction { op: r.op, vars: r.vars.clone(), guard, body }))
    }

    /// A pointwise expression; reductions become reads.
    fn inner(&mut self, e: &Expr) -> Expr {
        let node = match &*e.node {
            Node::Reduce(r) => {
                if let Some(read) = self.done.get(e) {
                    return read.clone();
                }
                let reduction = self.reduction(e.elem, r);
                let read = self.outline(reduction, op_name(r));
                self.done.insert(e.clone(), read.clone());
                return read;
            }
            Node::Index(i) => Node::Index(self.index(i)),
            Node::Read { tensor, at, bounds } => {
                Node::Read { tensor: *tensor, at: at.iter().map(|i| self.index(i)).collect(), bounds: *bounds }
            }
            Node::Random { key, place, at } => Node::Random { key: *key, place: *place, at: self.index(at) },
            Node::Select(p, a, b) => Node::Select(self.pred(p), self.inner(a), self.inner(b)),
            Node::Test(p) => Node::Test(self.pred(p)),
            _ => return e.map_children(&mut |c| self.inner(c)),
        };
        Expr { elem: e.elem, node: Box::new(node) }
    }

    fn pred(&mut self, p: &Pred) -> Pred {
        match p {
            Pred::True => Pred::True,
            Pred::Zero(i) => Pred::Zero(self.index(i)),
            Pred::NonNeg(i) => Pred::NonNeg(self.index(i)),
            Pred::Value(e) => Pred::Value(self.inner(e)),
            Pred::Not(p) => Pred::Not(Box::new(self.pred(p))),
            Pred::And(ps) => Pred::And(ps.iter().map(|p| self.pred(p)).collect()),
            Pred::Or(ps) => Pred::Or(ps.iter().map(|p| self.pred(p)).collect()),
        }
    }

    fn index(&mut self, i: &Index) -> Index {
        if !i.is_data() {
            return i.clone();
        }
        let mut out = Index::from(i.offset);
        for (atom, c) in &i.terms {
            let atom = match atom {
                Atom::Var(v) => Atom::Var(*v),
                Atom::Div(e, k) => Atom::Div(Box::new(self.index(e)), *k),
                Atom::Mod(e, k) => Atom::Mod(Box::new(self.index(e)), *k),
                Atom::Clamp(e, lo, hi) => Atom::Clamp(Box::new(self.index(e)), *lo, *hi),
                Atom::Data(e) => Atom::Data(Box::new(self.inner(e))),
            };
            out.add_term(atom, *c);
        }
        out
    }

    /// Defines a tensor by a reduction and returns the read of it.
    fn outline(&mut self, reduction: Expr, op: &str) -> Expr {
        let is_batch = |f: &Function, v: VarId| self.axes[f.var(v).axis.index()].name == "Batch";
        let mut vars: Vec<VarId> = self.scope.iter().copied().filter(|v| reduction.uses(*v)).collect();
        vars.sort_by_key(|v| !is_batch(self.function, *v));
        let fresh: Vec<VarId> = vars
            .iter()
            .map(|v| {
                let var = self.function.var(*v).clone();
                self.function.new_var(var.name, var.axis)
            })
            .collect();
        let dims = vars.iter().map(|v| self.function.var(*v).axis).collect();
        let tensor = self.function.new_tensor(format!("{}.{op}", self.name), reduction.elem, dims, None);
        let sizes = VarSizes { vars: &self.function.vars, axes: self.axes };
        let f = |v: VarId| vars.iter().position(|w| *w == v).map(|n| Index::from(fresh[n]));
        // What stood under a guard or a choice is now asked for everywhere.
        let body =
            relaxed(&reduction.subst_vars(&f, &sizes), &|t| self.function.tensor(t).dims.clone(), self.axes, &sizes);
        let at = fresh.iter().map(|v| Index::from(*v)).collect();
        let elem = reduction.elem;
        let clause = Clause { vars: fresh, at, body };
        self.function.body.push(Stmt::Define(Definition { tensor, clauses: vec![clause], keep: Keep::Auto }));
        Expr::read(elem, tensor, vars.iter().map(|v| Index::from(*v)).collect())
    }
}

/// The expression with reads that ranges do not prove to be inside giving 0 outside. Reads under the reduction's own guard stay.
fn relaxed(e: &Expr, dims: &dyn Fn(super::TensorId) -> Vec<super::AxisId>, axes: &[Axis], sizes: &VarSizes) -> Expr {
    if let Node::Reduce(r) = &*e.node
        && r.guard != Pred::True
    {
        return e.clone();
    }
    if let Node::Select(..) = &*e.node {
        return e.clone();
    }
    if let Node::Read { tensor, at, bounds: Bounds::Inside } = &*e.node {
        let inside = at
            .iter()
            .zip(dims(*tensor))
            .all(|(i, d)| i.range(sizes).is_some_and(|(lo, hi)| lo >= 0 && hi < axes[d.index()].size as i64));
        return if inside { e.clone() } else { Expr::read_or_zero(e.elem, *tensor, at.clone()) };
    }
    e.map_children(&mut |c| relaxed(c, dims, axes, sizes))
}

fn op_name(r: &Reduction) -> &'static str {
    use super::Monoid::*;
    match r.op {
        Sum => "sum",
        Prod => "prod",
        Max => "max",
        Min => "min",
        Any => "any",
        All => "all",
        ArgMax => "argmax",
        ArgMin => "argmin",
    }
}

fn has_reduction(e: &Expr) -> bool {
    let mut found = match &*e.node {
        Node::Reduce(_) => true,
        Node::Index(i) | Node::Random { at: i, .. } => index_has_reduction(i),
        Node::Read { at, .. } => at.iter().any(index_has_reduction),
        Node::Select(p, ..) | Node::Test(p) => pred_has_reduction(p),
        _ => false,
    };
    e.for_each_child(&mut |c| found = found || has_reduction(c));
    found
}

fn pred_has_reduction(p: &Pred) -> bool {
    match p {
        Pred::True => false,
        Pred::Zero(i) | Pred::NonNeg(i) => index_has_reduction(i),
        Pred::Value(e) => has_reduction(e),
        Pred::Not(p) => pred_has_reduction(p),
        Pred::And(ps) | Pred::Or(ps) => ps.iter().any(pred_has_reduction),
    }
}

fn index_has_reduction(i: &Index) -> bool {
    i.terms.iter().any(|(atom, _)| match atom {
        Atom::Var(_) => false,
        Atom::Div(e, _) | Atom::Mod(e, _) | Atom::Clamp(e, ..) => index_has_reduction(e),
        Atom::Data(e) => has_reduction(e),
    })
}
