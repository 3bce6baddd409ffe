//! The function that is being built: its tensors, parameters and statements.

use std::rc::Rc;

use foveate_dsl::ast::Span;
use rustc_hash::FxHashMap;

use crate::check::ParamDecl;
use crate::check::axes::Axis;
use crate::check::elaborator::Elaborator;
use crate::ir::{
    Arg, ArgRole, AxisId, BinaryOp, Clause, Definition, Elem, Expr, Function, Index, Keep, Node, Pred, Stmt, TensorId,
    VarId, VarSizes,
};

/// A tensor as the author sees it: its logical axes over the axes that store it, position by position.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub tensor: TensorId,
    pub elem: Elem,
    /// Whether the batch is its first dimension.
    pub batched: bool,
    /// The axes it has by its type.
    pub dims: Rc<[Axis]>,
    /// The axes that it is stored with; of the same sizes as `dims`.
    pub store: Rc<[Axis]>,
    /// For integers: the axis that its values are indices of.
    pub label: Option<Axis>,
}

/// The function being built.
pub(crate) struct Builder {
    pub function: Function,
    /// Parameters and states by full name.
    pub slots: FxHashMap<String, TensorId>,
    pub params: Vec<ParamDecl>,
    pub states: Vec<ParamDecl>,
    key: Option<TensorId>,
    places: u32,
    /// Exposed values by path.
    pub exposed: Vec<(String, View)>,
    /// New values of states by full name, with the places that say so.
    pub next_states: Vec<(String, TensorId, Span)>,
    /// How often each submodule was called.
    pub calls: FxHashMap<String, u32>,
}

impl Default for Builder {
    fn default() -> Builder {
        let function = Function {
            name: String::new(),
            tensors: Vec::new(),
            vars: Vec::new(),
            args: Vec::new(),
            body: Vec::new(),
            results: Vec::new(),
        };
        Builder {
            function,
            slots: FxHashMap::default(),
            params: Vec::new(),
            states: Vec::new(),
            key: None,
            places: 0,
            exposed: Vec::new(),
            next_states: Vec::new(),
            calls: FxHashMap::default(),
        }
    }
}

impl Builder {
    /// Adds a parameter or state as an argument.
    pub fn declare(&mut self, decl: ParamDecl, dims: Vec<AxisId>, state: bool) {
        let tensor = self.function.new_tensor(decl.name.clone(), Elem::F32, dims, Some(decl.span));
        let role = if state { ArgRole::State(decl.name.clone()) } else { ArgRole::Param(decl.name.clone()) };
        self.function.args.push(Arg { tensor, role });
        self.slots.insert(decl.name.clone(), tensor);
        if state { self.states.push(decl) } else { self.params.push(decl) }
    }
    /// The next place of a random number.
    pub fn place(&mut self) -> u32 {
        self.places += 1;
        self.places - 1
    }
}

impl Elaborator<'_> {
    /// The sizes of the variables of the function being built.
    pub(crate) fn sizes(&self) -> VarSizes<'_> {
        VarSizes { vars: &self.builder.function.vars, axes: &self.axes }
    }

    /// The tensor that holds seed and step; made an argument at its first use.
    pub(crate) fn key(&mut self) -> TensorId {
        if let Some(key) = self.builder.key {
            return key;
        }
        let axis = self.dim(&Axis::atom("Key", None, 2, u32::MAX - 1, u32::MAX - 1));
        let tensor = self.builder.function.new_tensor("key", Elem::U32, vec![axis], None);
        self.builder.function.args.push(Arg { tensor, role: ArgRole::Key });
        self.builder.key = Some(tensor);
        tensor
    }

    /// The key of a callee: the seed mixed with a hash of the call's place.
    pub(crate) fn derived_key(&mut self, site: &str) -> TensorId {
        let key = self.key();
        let axis = self.builder.function.tensor(key).dims[0];
        let var = self.builder.function.new_var("k", axis);
        let read = |n: i64| Expr::read(Elem::U32, key, vec![Index::from(n)]);
        let hash = site.bytes().fold(0x811C_9DC5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let mixed = Expr::binary(BinaryOp::Xor, read(0), Expr::constant(Elem::U32, f64::from(hash)));
        let body = Expr::select(Pred::Zero(Index::from(var)), mixed, read(1));
        let tensor = self.builder.function.new_tensor(format!("{site}.key"), Elem::U32, vec![axis], None);
        self.define(tensor, vec![Clause { vars: vec![var], at: vec![Index::from(var)], body }]);
        tensor
    }

    /// Adds a definition, where a program is asked for.
    pub(crate) fn define(&mut self, tensor: TensorId, clauses: Vec<Clause>) {
        if self.sampling {
            return;
        }
        self.builder.function.body.push(Stmt::Define(Definition { tensor, clauses, keep: Keep::Auto }));
    }

    /// Gives an expression a tensor of its own, over the variables that it uses, and returns the read of it. Reads and
    /// constants are returned as they are.
    pub(crate) fn hoist(&mut self, expr: Expr, name: &str, span: Span) -> Expr {
        if matches!(&*expr.node, Node::Read { .. } | Node::Const(_)) {
            return expr;
        }
        let vars = self.free_vars(&expr);
        let dims = vars.iter().map(|v| self.builder.function.var(*v).axis).collect();
        let tensor = self.builder.function.new_tensor(name, expr.elem, dims, Some(span));
        if !self.sampling {
            let fresh = self.copies(&vars);
            let body = self.renamed(&expr, &vars, &fresh);
            let at = fresh.iter().map(|v| Index::from(*v)).collect();
            self.define(tensor, vec![Clause { vars: fresh, at, body }]);
        }
        Expr::read(expr.elem, tensor, vars.iter().map(|v| Index::from(*v)).collect())
    }

    /// The free variables, the batch first, then in the order in which they were made.
    pub(crate) fn free_vars(&mut self, expr: &Expr) -> Vec<VarId> {
        let mut vars = Vec::new();
        expr.visit_vars(&mut |v| vars.push(v));
        vars.sort();
        vars.dedup();
        let batch = self.batch.clone();
        let batch = self.dim(&batch);
        vars.sort_by_key(|v| self.builder.function.var(*v).axis != batch);
        vars
    }

    /// New variables like the given ones.
    pub(crate) fn copies(&mut self, vars: &[VarId]) -> Vec<VarId> {
        let function = &mut self.builder.function;
        vars.iter()
            .map(|v| {
                let var = function.var(*v).clone();
                function.new_var(var.name, var.axis)
            })
            .collect()
    }

    /// The expression with variables renamed.
    pub(crate) fn renamed(&self, expr: &Expr, from: &[VarId], to: &[VarId]) -> Expr {
        let f = |v: VarId| from.iter().position(|f| *f == v).map(|n| Index::from(to[n]));
        expr.subst_vars(&f, &self.sizes())
    }

    /// The predicate with variables renamed.
    pub(crate) fn renamed_pred(&self, pred: &Pred, from: &[VarId], to: &[VarId]) -> Pred {
        let f = |v: VarId| from.iter().position(|f| *f == v).map(|n| Index::from(to[n]));
        pred.subst(&f, &self.sizes())
    }
}
