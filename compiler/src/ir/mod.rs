//! The index IR: pure comprehensions.
//!
//! # Semantics
//! A [`Program`] is a list of functions, one of them the entry. A [`Function`] takes tensors (parameters, inputs,
//! states, the random key) and gives tensors. Its body is a list of [`Stmt`]s in dependency order, each of which defines
//! tensors that were not defined before; nothing is ever overwritten.
//!
//! * A tensor is a total function from its dimensions (each an [`Axis`], `0..size`) to values of one [`Elem`].
//!   Product axes of the language are several dimensions here, merged axes too; a sum axis is one dimension whose axis lists
//!   its pieces in order. The batch is an ordinary dimension, always the first.
//! * A [`Definition`] gives a tensor by [`Clause`]s. A clause binds variables, each over an axis; for all their values the element at
//!   `at` is `body`. Clauses of one definition write disjoint elements and together all of them.
//! * Defining a tensor says nothing about storing it. The scheduler decides.
//! * An [`Index`] is a quasi-affine integer expression (see [`index`]). A [`Pred`] is built from comparisons of those.
//! * A read at an index outside the tensor is an error of the program unless the read says [`Bounds::Zero`]: then it gives 0.
//! * A reduction owns its domain: its variables, each over an axis, restricted by a guard. An empty sum is 0, an empty maximum
//!   minus infinity. Reads under a guard (of a reduction or a select) need only be in range where the guard holds.
//! * Random numbers are a function of the key tensor (seed and step), the place in the program and the logical index.
//!
//! There is no node for softmax, convolution, matrix product or attention: they are comprehensions like any other.

pub mod builder;
pub mod display;
pub mod expr;
pub mod index;
pub mod narrow;
pub mod normalise;
pub mod rename;
pub mod subst;
pub mod verify;

pub use expr::{BinaryOp, Bounds, Elem, Expr, Monoid, Node, Pred, Reduction, UnaryOp};
pub use index::{Atom, Index};

use foveate_dsl::ast::Span;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl $name {
            /// The id as an index into its table.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}
id!(
    /// An axis of the program.
    AxisId, "axis"
);
id!(
    /// A tensor of one function.
    TensorId, "t"
);
id!(
    /// An index variable of one function.
    VarId, "v"
);
id!(
    /// A function of the program.
    FuncId, "fn"
);

/// A whole program: what `lower` makes and every later pass takes and gives.
#[derive(Clone, Debug)]
pub struct Program {
    /// All axes; sizes are bound (the batch's too).
    pub axes: Vec<Axis>,
    /// All functions; callees come before callers.
    pub functions: Vec<Function>,
    /// Where execution starts.
    pub entry: FuncId,
}

/// An index set `0..size` with a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// For people: `Gy`, `D`, `Batch`.
    pub name: String,
    /// Number of elements, at least 1.
    pub size: usize,
    /// For a sum axis, the pieces in order: name and number of elements. Empty for an atom.
    pub pieces: Vec<(String, usize)>,
}

/// A function: tensors in, tensors out.
#[derive(Clone, Debug)]
pub struct Function {
    /// For people; distinct in the program.
    pub name: String,
    /// All tensors: arguments and what statements define.
    pub tensors: Vec<Tensor>,
    /// All index variables.
    pub vars: Vec<Var>,
    /// The arguments in call order.
    pub args: Vec<Arg>,
    /// The body, in dependency order.
    pub body: Vec<Stmt>,
    /// What the function gives, in order.
    pub results: Vec<FnResult>,
}

/// A tensor's type and origin.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// For people; need not be distinct.
    pub name: String,
    /// Element type.
    pub elem: Elem,
    /// Its dimensions, row-major.
    pub dims: Vec<AxisId>,
    /// Where the author wrote it.
    pub span: Option<Span>,
}

/// An index variable: `0..size` of its axis.
#[derive(Clone, Debug)]
pub struct Var {
    /// For people: `i.row`.
    pub name: String,
    /// What it ranges over.
    pub axis: AxisId,
}

/// An argument of a function.
#[derive(Clone, Debug)]
pub struct Arg {
    /// The tensor that stands for it in the body.
    pub tensor: TensorId,
    /// What it is.
    pub role: ArgRole,
}

/// What an argument is. In functions other than the entry, names are relative to the callee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgRole {
    /// A trainable parameter, by its full name.
    Param(String),
    /// State, by its full name.
    State(String),
    /// An input of `forward`.
    Input(String),
    /// The random key: `u32 [2]`, seed and step (hashed with the call site in callees).
    Key,
    /// A cotangent of the result of that name (differentiated programs only).
    Cotangent(String),
    /// A value that the forward function saved (backward functions only).
    Saved(String),
}

/// A result of a function.
#[derive(Clone, Debug)]
pub struct FnResult {
    /// The tensor.
    pub tensor: TensorId,
    /// What it is.
    pub role: ResultRole,
}

/// What a result is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultRole {
    /// A result of `forward` (`y`, `loss`, ...).
    Output(String),
    /// A definition that the author exposed.
    Exposed(String),
    /// The next value of the state of that name.
    NextState(String),
    /// The gradient with respect to the parameter or input of that name.
    Grad(String),
    /// A value kept for the backward function.
    Saved(String),
}

/// A statement.
#[derive(Clone, Debug)]
pub enum Stmt {
    /// A comprehension.
    Define(Definition),
    /// Runs another function.
    Call(Call),
    /// Labels connected components.
    Components(Components),
}

/// `tensor[at] = body`, by clauses.
#[derive(Clone, Debug)]
pub struct Definition {
    /// What is defined.
    pub tensor: TensorId,
    /// Its pieces; one for all but sum axes.
    pub clauses: Vec<Clause>,
    /// Whether the value should be kept for the backward pass.
    pub keep: Keep,
}

/// One piece of a definition.
#[derive(Clone, Debug)]
pub struct Clause {
    /// The variables it binds.
    pub vars: Vec<VarId>,
    /// The element they define: injective in the variables, one index a dimension.
    pub at: Vec<Index>,
    /// Its value.
    pub body: Expr,
}

/// Save or recompute for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// The compiler decides.
    #[default]
    Auto,
    /// Store it.
    Save,
    /// Compute it again.
    Recompute,
}

/// A call: `results = function(args)`.
#[derive(Clone, Debug)]
pub struct Call {
    /// The callee.
    pub function: FuncId,
    /// One tensor an argument.
    pub args: Vec<TensorId>,
    /// One new tensor a result.
    pub results: Vec<TensorId>,
    /// For people: which instance this is (`block1.0`).
    pub site: String,
}

/// `labels = components(mask)`: for every map over the last two dimensions, the label (i32) of a cell is the smallest row-major
/// position of its component; -1 where the mask is false. No gradient.
#[derive(Clone, Debug)]
pub struct Components {
    /// Boolean, at least two dimensions.
    pub mask: TensorId,
    /// i32, the same dimensions.
    pub labels: TensorId,
    /// 4 or 8.
    pub connectivity: u8,
}

impl Program {
    /// The entry function.
    pub fn entry(&self) -> &Function {
        &self.functions[self.entry.index()]
    }
    /// Size of an axis.
    pub fn size(&self, axis: AxisId) -> usize {
        self.axes[axis.index()].size
    }
    /// Shape of a tensor.
    pub fn shape(&self, function: &Function, tensor: TensorId) -> Vec<usize> {
        function.tensor(tensor).dims.iter().map(|&d| self.size(d)).collect()
    }
    /// A new atom axis, or the existing one of that name and size.
    pub fn atom(&mut self, name: &str, size: usize) -> AxisId {
        atom(&mut self.axes, name, size)
    }
}

/// A new atom in `axes`, or the existing one of that name and size.
pub fn atom(axes: &mut Vec<Axis>, name: &str, size: usize) -> AxisId {
    let found = axes.iter().position(|a| a.name == name && a.size == size && a.pieces.is_empty());
    AxisId(found.unwrap_or_else(|| {
        axes.push(Axis { name: name.to_owned(), size, pieces: Vec::new() });
        axes.len() - 1
    }) as u32)
}

impl Function {
    /// The tensor's type.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.index()]
    }
    /// The variable's axis.
    pub fn var(&self, id: VarId) -> &Var {
        &self.vars[id.index()]
    }
    /// Adds a tensor.
    pub fn new_tensor(
        &mut self,
        name: impl Into<String>,
        elem: Elem,
        dims: Vec<AxisId>,
        span: Option<Span>,
    ) -> TensorId {
        self.tensors.push(Tensor { name: name.into(), elem, dims, span });
        TensorId(self.tensors.len() as u32 - 1)
    }
    /// Adds a variable.
    pub fn new_var(&mut self, name: impl Into<String>, axis: AxisId) -> VarId {
        self.vars.push(Var { name: name.into(), axis });
        VarId(self.vars.len() as u32 - 1)
    }
    /// The definition of a tensor, if a comprehension gives it.
    pub fn definition(&self, tensor: TensorId) -> Option<&Definition> {
        self.body.iter().find_map(|s| match s {
            Stmt::Define(d) if d.tensor == tensor => Some(d),
            _ => None,
        })
    }
}

impl Stmt {
    /// The tensors it defines.
    pub fn defines(&self) -> Vec<TensorId> {
        match self {
            Stmt::Define(d) => vec![d.tensor],
            Stmt::Call(c) => c.results.clone(),
            Stmt::Components(c) => vec![c.labels],
        }
    }
    /// The tensors it reads, each once.
    pub fn reads(&self) -> Vec<TensorId> {
        let mut out = Vec::new();
        let mut add = |t: TensorId| {
            if !out.contains(&t) {
                out.push(t)
            }
        };
        match self {
            Stmt::Define(d) => {
                for c in &d.clauses {
                    c.at.iter().for_each(|i| i.visit_reads(&mut |t, _| add(t)));
                    c.body.visit_reads(&mut |t, _| add(t));
                }
            }
            Stmt::Call(c) => c.args.iter().for_each(|&t| add(t)),
            Stmt::Components(c) => add(c.mask),
        }
        out
    }
}

/// The sizes of a function's variables.
pub struct VarSizes<'a> {
    /// The function's variables.
    pub vars: &'a [Var],
    /// The program's axes.
    pub axes: &'a [Axis],
}

impl index::Sizes for VarSizes<'_> {
    fn size_of(&self, var: VarId) -> i64 {
        self.axes[self.vars[var.index()].axis.index()].size as i64
    }
}
