//! A function as its kernels see it: virtual definitions inlined, new variables and staged tensors added.

use super::places::{self, Place};
use super::storage::Storage;
use crate::ir::index::{Index, Sizes};
use crate::ir::subst::freshen;
use crate::ir::{
    self, Axis, Bounds, Clause, Elem, Expr, Function, Node, Pred, Program, Stmt, TensorId, VarId, VarSizes,
};
use std::collections::HashMap;

/// One function under scheduling.
pub struct View<'a> {
    /// The program's axes and those that kernels add.
    pub axes: Vec<Axis>,
    /// The function; kernels add variables and tensors.
    pub function: Function,
    /// What is stored.
    pub storage: &'a Storage,
    /// The clause of every virtual definition.
    clauses: HashMap<TensorId, Clause>,
    /// Bodies already instantiated: equal reads inline to equal expressions, which are then evaluated once.
    bodies: HashMap<(TensorId, Vec<Index>), Expr>,
    /// What is a part of another tensor.
    pub places: HashMap<TensorId, Place>,
    /// The kernel's lane variable, if its vectors start at multiples of their width.
    pub aligned_lane: Option<VarId>,
    /// The variables that are fixed in a row of the kernel under construction.
    pub row_vars: Vec<VarId>,
}

impl<'a> View<'a> {
    /// The function as it is.
    pub fn new(program: &Program, function: &Function, storage: &'a Storage) -> View<'a> {
        let mut clauses = HashMap::new();
        for stmt in &function.body {
            if let Stmt::Define(d) = stmt
                && !storage.stored[d.tensor.index()]
            {
                clauses.insert(d.tensor, d.clauses[0].clone());
            }
        }
        View {
            axes: program.axes.clone(),
            function: function.clone(),
            storage,
            clauses,
            bodies: HashMap::new(),
            places: places::find(program, function, storage),
            aligned_lane: None,
            row_vars: Vec::new(),
        }
    }

    /// A tensor's name.
    pub fn name(&self, t: TensorId) -> String {
        self.function.tensor(t).name.clone()
    }
    /// A tensor's element type.
    pub fn elem(&self, t: TensorId) -> Elem {
        self.function.tensor(t).elem
    }
    /// A tensor's shape.
    pub fn shape(&self, t: TensorId) -> Vec<usize> {
        self.function.tensor(t).dims.iter().map(|d| self.axes[d.index()].size).collect()
    }
    /// The row-major position of an element; of a part, in what it is a part of.
    pub fn address(&self, t: TensorId, at: &[Index]) -> Index {
        let row_major = |t: TensorId, at: &[Index]| {
            at.iter().zip(self.shape(t)).fold(Index::default(), |sum, (i, n)| sum.scale(n as i64).add(i)).fold()
        };
        match self.places.get(&t) {
            Some(place) => {
                let mut at = at.to_vec();
                at[place.dim] = at[place.dim].plus(place.from);
                row_major(place.whole, &at)
            }
            None => row_major(t, at),
        }
    }
    /// The tensor that has an element's memory: itself, or what it is a part of.
    pub fn holder(&self, t: TensorId) -> TensorId {
        self.places.get(&t).map_or(t, |place| place.whole)
    }
    /// Whether the tensor is put together by the kernels of its parts.
    pub fn is_of_parts(&self, t: TensorId) -> bool {
        self.places.values().any(|place| place.whole == t)
    }
    /// A new variable over `0..size`.
    pub fn var(&mut self, name: &str, size: usize) -> VarId {
        let axis = ir::atom(&mut self.axes, name, size);
        self.function.new_var(name, axis)
    }
    /// Whether the tensor is computed by its readers.
    pub fn is_virtual(&self, t: TensorId) -> bool {
        self.clauses.contains_key(&t)
    }
    /// The clause of a virtual definition.
    pub fn clause(&self, t: TensorId) -> Option<&Clause> {
        self.clauses.get(&t)
    }
    /// Whether it is a pair tensor.
    pub fn is_pair(&self, t: TensorId) -> bool {
        self.storage.pair.get(t.index()).copied().unwrap_or(false)
    }
    /// The body of a virtual definition at the given indices, with bound variables of its own.
    pub fn body_at(&mut self, t: TensorId, at: &[Index]) -> Expr {
        if let Some(body) = self.bodies.get(&(t, at.to_vec())) {
            return body.clone();
        }
        let clause = self.clauses[&t].clone();
        let mut body = {
            let mut added = Vec::new();
            let base = self.function.vars.len() as u32;
            let vars = &self.function.vars;
            let sizes = VarSizes { vars, axes: &self.axes };
            let body = freshen(
                &clause.body,
                &mut |old| {
                    added.push(vars[old.index()].clone());
                    VarId(base + added.len() as u32 - 1)
                },
                &sizes,
            );
            self.function.vars.extend(added);
            body
        };
        let map: HashMap<VarId, &Index> = clause.vars.iter().copied().zip(at).collect();
        body = body.subst_vars(&|v| map.get(&v).map(|i| (*i).clone()), self);
        self.bodies.insert((t, at.to_vec()), body.clone());
        body
    }

    /// The expression with reads of virtual tensors inlined, except those that `hold` replaces by reads of held tensors.
    pub fn expand(&mut self, e: &Expr, hold: &mut dyn FnMut(&mut Self, TensorId, &[Index]) -> Option<Expr>) -> Expr {
        let indices = |view: &mut Self,
                       hold: &mut dyn FnMut(&mut Self, TensorId, &[Index]) -> Option<Expr>,
                       at: &[Index]|
         -> Vec<Index> { at.iter().map(|i| view.expand_index(i, hold)).collect() };
        match &*e.node {
            Node::Read { tensor, at, bounds } => {
                let at = indices(self, hold, at);
                let guard = match bounds {
                    Bounds::Inside => Pred::True,
                    Bounds::Zero => {
                        let shape = self.shape(*tensor);
                        Pred::and(at.iter().zip(&shape).map(|(i, &n)| Pred::within(i, 0, n as i64, self)))
                    }
                };
                let value = if let Some(held) = hold(self, *tensor, &at) {
                    held
                } else if self.is_virtual(*tensor) {
                    let body = self.body_at(*tensor, &at);
                    self.expand(&body, hold)
                } else {
                    return Expr::new(e.elem, Node::Read { tensor: *tensor, at, bounds: *bounds });
                };
                Expr::select(guard, value, Expr::constant(e.elem, 0.0))
            }
            Node::Index(i) => Expr::new(e.elem, Node::Index(self.expand_index(i, hold))),
            Node::Random { key, place, at } => {
                Expr::new(e.elem, Node::Random { key: *key, place: *place, at: self.expand_index(at, hold) })
            }
            Node::Test(p) => Expr::new(e.elem, Node::Test(self.expand_pred(p, hold))),
            Node::Select(p, a, b) => {
                let (p, a, b) = (self.expand_pred(p, hold), self.expand(a, hold), self.expand(b, hold));
                Expr::new(e.elem, Node::Select(p, a, b))
            }
            Node::Reduce(r) => {
                let (guard, body) = (self.expand_pred(&r.guard, hold), self.expand(&r.body, hold));
                Expr::new(e.elem, Node::Reduce(ir::Reduction { op: r.op, vars: r.vars.clone(), guard, body }))
            }
            // A sum that is scaled afterwards stays a plain fused multiply-add loop.
            _ => {
                let mut children = Vec::new();
                e.for_each_child(&mut |c| children.push(c.clone()));
                let mut done = children.iter().map(|c| self.expand(c, hold)).collect::<Vec<_>>().into_iter();
                e.map_children(&mut |_| done.next().expect("as many children as before"))
            }
        }
    }

    fn expand_index(
        &mut self,
        i: &Index,
        hold: &mut dyn FnMut(&mut Self, TensorId, &[Index]) -> Option<Expr>,
    ) -> Index {
        if !i.is_data() {
            return i.clone();
        }
        let mut out = Index::from(i.offset);
        for (a, c) in &i.terms {
            let e = match a {
                ir::Atom::Var(v) => Index::from(*v),
                ir::Atom::Div(e, k) => self.expand_index(e, hold).div(*k, self),
                ir::Atom::Mod(e, k) => self.expand_index(e, hold).modulo(*k, self),
                ir::Atom::Clamp(e, lo, hi) => self.expand_index(e, hold).clamped(*lo, *hi, self),
                ir::Atom::Data(e) => Index::atom(ir::Atom::Data(Box::new(self.expand(e, hold)))),
            };
            out = out.add(&e.scale(*c));
        }
        out
    }

    fn expand_pred(&mut self, p: &Pred, hold: &mut dyn FnMut(&mut Self, TensorId, &[Index]) -> Option<Expr>) -> Pred {
        match p {
            Pred::True => Pred::True,
            Pred::Zero(i) => Pred::Zero(self.expand_index(i, hold)),
            Pred::NonNeg(i) => Pred::NonNeg(self.expand_index(i, hold)),
            Pred::Value(e) => Pred::Value(self.expand(e, hold)),
            Pred::Not(p) => Pred::Not(Box::new(self.expand_pred(p, hold))),
            Pred::And(ps) => Pred::And(ps.iter().map(|p| self.expand_pred(p, hold)).collect()),
            Pred::Or(ps) => Pred::Or(ps.iter().map(|p| self.expand_pred(p, hold)).collect()),
        }
    }
}

impl Sizes for View<'_> {
    fn size_of(&self, var: VarId) -> i64 {
        self.axes[self.function.var(var).axis.index()].size as i64
    }
}
