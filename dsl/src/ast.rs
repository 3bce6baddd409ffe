//! The syntax tree of a spec file.
//!
//! The tree is what the author wrote and nothing more: names are unresolved, sizes are expressions,
//! and whether a path means an index component, a parameter or a submodule is for the checker to say.
//! Every node carries the [`Span`] of its text. Comments are not in the tree; the formatter takes them
//! from the token stream by position.

use serde::{Deserialize, Serialize};

/// A half-open range of bytes in one source file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// Which file of the source map.
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The smallest span that covers both; the file is that of `self`.
    pub fn to(self, other: Span) -> Span {
        Span { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A name as written, with its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Name {
    /// The identifier.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// The language version of the first line (`foveate 1`).
    pub version: u32,
    /// `import A, B from "path.fov"` and `import A from prelude`.
    pub imports: Vec<Import>,
    /// Modules, functions and recipes in the order of the text.
    pub items: Vec<Item>,
}

/// One import line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Import {
    /// The imported item names.
    pub names: Vec<Name>,
    /// Where from.
    pub source: ImportSource,
    /// The whole line.
    pub span: Span,
}

/// Where an import comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ImportSource {
    /// The library that ships with the compiler.
    Prelude,
    /// A file, relative to the importing one.
    Path(String),
}

/// A top-level item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// `module`, `model`, `loss` or `optimizer`.
    Module(Module),
    /// `fn name(a, b) = expr`: a pure scalar function, inlined where it is used.
    Function(ScalarFn),
    /// `recipe name { key: value ... }`.
    Recipe(Recipe),
}

/// What kind of module an item is; the body has the same form for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleKind {
    /// A building block.
    Module,
    /// A whole network, trainable by a recipe.
    Model,
    /// A scalar objective; averaged over the batch unless it names the batch.
    Loss,
    /// An update rule of one parameter element; never batched.
    Optimizer,
}

impl ModuleKind {
    /// The word that such an item begins with.
    pub fn keyword(self) -> &'static str {
        match self {
            ModuleKind::Module => "module",
            ModuleKind::Model => "model",
            ModuleKind::Loss => "loss",
            ModuleKind::Optimizer => "optimizer",
        }
    }
}

/// `module Name(params) { members }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// Text of the `///` lines above, without the slashes.
    pub doc: String,
    /// The keyword.
    pub kind: ModuleKind,
    /// The item's name.
    pub name: Name,
    /// Compile-time parameters.
    pub params: Vec<Param>,
    /// Declarations and the `forward`.
    pub members: Vec<Member>,
    /// The whole item.
    pub span: Span,
}

/// A compile-time parameter of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// Its name.
    pub name: Name,
    /// What values it takes.
    pub ty: ParamType,
    /// Value when the argument is left out.
    pub default: Option<Expr>,
}

/// What values a compile-time parameter takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ParamType {
    /// No annotation: an integer, or whatever kind the default has.
    Infer,
    /// `: (Gy, Gx)`: a pair (or longer tuple) of sizes; the parts get these names.
    Tuple(Vec<Name>),
    /// `: one_of(sum, product)`: one of a set of words.
    OneOf(Vec<Name>),
    /// `: list`: a list of integers.
    List,
    /// `: float`.
    Float,
    /// `: probability`: a number from 0 to 1; at 0 what is random does not happen.
    Probability,
    /// `: int`.
    Int,
    /// `: bool`.
    Bool,
}

/// `fn gelu(x) = ...`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalarFn {
    /// Documentation comment.
    pub doc: String,
    /// Its name.
    pub name: Name,
    /// Scalar arguments.
    pub args: Vec<Name>,
    /// The body.
    pub body: Expr,
    /// The whole item.
    pub span: Span,
}

/// `recipe fashion { model: FashionNet(depth: 4); data: idx("path") ... }`: nested `key: value` pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Documentation comment.
    pub doc: String,
    /// Its name.
    pub name: Name,
    /// Its settings.
    pub entries: Vec<RecipeEntry>,
    /// The whole item.
    pub span: Span,
}

/// One `key: value` line of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeEntry {
    /// The key.
    pub key: Name,
    /// A static expression (number, word, string, list, tuple, call) or a nested block.
    pub value: RecipeValue,
}

/// The value of a recipe entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RecipeValue {
    /// `key: expr`.
    Expr(Expr),
    /// `key { ... }`.
    Block(Vec<RecipeEntry>),
}

/// A declaration in a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the form above each variant names its fields
pub enum Member {
    /// `require expr`.
    Require { cond: Expr, span: Span },
    /// `axis Grid = Gy x Gx`, `axis Tokens = Cls | Grid`, `axis D = C / H`.
    Axis { name: Name, def: AxisDef, span: Span },
    /// `index i, j: Grid`: what a bare index name ranges over.
    Index { names: Vec<Name>, axis: AxisRef, span: Span },
    /// `let n = 2 * C`: a compile-time value.
    Let { name: Name, value: Expr, span: Span },
    /// `qk = Linear(C, 2 * C)`; the name may be computed: `block{s}.{m} = Block(...)`. With `flat` in front, its parameters keep
    /// their own names, without this one as prefix.
    Submodule { name: Path, ctor: Name, args: Vec<Arg>, flat: bool, span: Span },
    /// `w2: param[C, 1] = zeros` or `b2: param[H] = ones, no_decay`.
    Param { name: Path, dims: Vec<AxisRef>, init: Expr, no_decay: bool, span: Span },
    /// `running_mean: state[C] = zeros`: carried from step to step, no gradient.
    State { name: Path, dims: Vec<AxisRef>, init: Expr, span: Span },
    /// `if cond { members } else { members }`, decided at compile time.
    If { cond: Expr, then: Vec<Member>, otherwise: Vec<Member>, span: Span },
    /// `for m in 0..depth { members }`, unrolled at compile time.
    For { var: Name, lo: Expr, hi: Expr, body: Vec<Member>, span: Span },
    /// `forward(x[Grid, C]) -> [Grid, C] { ... }`.
    Forward(Forward),
}

/// The definition of an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AxisDef {
    /// A size expression: an atom.
    Size(Expr),
    /// `A x B (x C)`.
    Product(Vec<AxisRef>),
    /// `A | B (| C)`.
    Sum(Vec<AxisRef>),
}

/// An axis where one is expected: in shapes, annotations, products and sums.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AxisRef {
    /// A declared axis, a size parameter, or any size expression (`2 * C`, `1`, `kernel`).
    Expr(Expr),
    /// `(H, D)`: a merged axis, row-major.
    Merged(Vec<AxisRef>, Span),
    /// `..`: any number of leading axes (only first in `forward` shapes).
    Rest(Span),
}

/// A `forward` with its signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// The inputs.
    pub inputs: Vec<Input>,
    /// The results; a single unnamed one is called `y` (in a loss: `loss`).
    pub results: Vec<ResultDecl>,
    /// The statements.
    pub body: Vec<Stmt>,
    /// The whole member.
    pub span: Span,
}

/// An input of `forward`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: Name,
    /// Its shape (without the batch).
    pub dims: Vec<AxisRef>,
    /// `target: label[classes]` holds an index into `classes` (shape []); plain inputs hold floats.
    pub label_of: Option<AxisRef>,
}

/// A result of `forward`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultDecl {
    /// Its name, if given.
    pub name: Option<Name>,
    /// Its shape (without the batch).
    pub dims: Vec<AxisRef>,
    /// Where it is declared.
    pub span: Span,
}

/// A statement of `forward`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the form above each variant names its fields
pub enum Stmt {
    /// `s[h, i, j] = expr`, or without indices for a whole tensor; clauses over a sum axis repeat the name.
    Define { target: Target, value: Expr, expose: bool, span: Span },
    /// `(q[i, h, d], k[i, h, d]) = qk(x)[i, (2, h, d)]`, or `(a, b) = split(x)` for several results.
    DefineTuple { targets: Vec<Target>, value: Expr, span: Span },
    /// `update running_mean[c] = expr`: the state's value after this step (training only).
    Update { target: Target, value: Expr, span: Span },
    /// `expose score` makes a definition readable by enclosing modules and by `verify`.
    Expose { name: Name, span: Span },
    /// `let n = ...` (compile-time).
    Let { name: Name, value: Expr, span: Span },
    /// Compile-time choice.
    If { cond: Expr, then: Vec<Stmt>, otherwise: Vec<Stmt>, span: Span },
    /// Compile-time repetition.
    For { var: Name, lo: Expr, hi: Expr, body: Vec<Stmt>, span: Span },
    /// `return a` or `return a, b`.
    Return { values: Vec<Expr>, span: Span },
}

/// The left side of a definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What is defined (for `update`, a state).
    pub name: Name,
    /// `None`: a whole tensor. `Some(vec![])`: written `loss[]`, a scalar.
    pub indices: Option<Vec<TargetIndex>>,
    /// The whole left side.
    pub span: Span,
}

/// One position on the left side of a definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TargetIndex {
    /// `i`, `i: Grid`, `j in window(i, 3, 3, pad: zero)`, or the name of a summand of size 1 (`Cls`).
    Binder(Binder),
    /// `(h, d)`: the axis is merged from these.
    Merged(Vec<TargetIndex>, Span),
    /// `..`: the leading axes of a rank-polymorphic `forward`.
    Rest(Span),
}

/// An index that is bound: on a left side or by a reduction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binder {
    /// The index's name.
    pub name: Name,
    /// `: Grid` or `: 0..k` is written as an axis.
    pub axis: Option<AxisRef>,
    /// `in window(i, 3, 3, pad: zero, stride: 1, dilation: 1)` or another domain call.
    pub domain: Option<Expr>,
}

/// An expression; static and tensor expressions share one grammar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the form above each variant names its fields
pub enum ExprKind {
    /// `14`.
    Int(i64),
    /// `1e-4`.
    Float(f64),
    /// `true`, `false`.
    Bool(bool),
    /// `"text"` (recipes, `require` messages).
    Str(String),
    /// `14x14`: a tuple of sizes.
    Dims(Vec<i64>),
    /// `[16, 24, 32]`.
    List(Vec<Expr>),
    /// `(a, b)`: a tuple of indices in a read, or of values.
    Tuple(Vec<Expr>),
    /// A possibly dotted and computed name: `x`, `i.row`, `w1.weight`, `se_fc.0`, `block{s}.{m}.attn`.
    Path(Path),
    /// `f(x, bias: b)`: a submodule or function; what it is decides the checker.
    Call { callee: Path, args: Vec<Arg> },
    /// `base[i, (h, d), 0]`: a read. `..` is [`ExprKind::Rest`].
    Read { base: Box<Expr>, indices: Vec<Expr> },
    /// `..` inside a read.
    Rest,
    /// `-x`, `not x`.
    Unary { op: UnaryOp, operand: Box<Expr> },
    /// `a + b` and so on.
    Binary { op: BinaryOp, left: Box<Expr>, right: Box<Expr> },
    /// `if c then a else b`.
    If { cond: Box<Expr>, then: Box<Expr>, otherwise: Box<Expr> },
    /// `sum(j, d where cond) body`: any of the named reductions.
    Reduce { op: ReduceOp, binders: Vec<Binder>, filter: Option<Box<Expr>>, body: Box<Expr> },
    /// `softmax(j)(expr)`: the value at the enclosing `j`, normalised over j's domain.
    Normalise { op: NormaliseOp, over: Vec<Name>, body: Box<Expr> },
}

/// A dotted name whose parts may be computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// The parts between the dots.
    pub segments: Vec<Segment>,
    /// The whole path.
    pub span: Span,
}

/// One part of a path: literal text and computed pieces in turn (`block{s}` is text then expression).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The pieces in order.
    pub pieces: Vec<Piece>,
    /// The part's place.
    pub span: Span,
}

/// A piece of a path segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Piece {
    /// Letters and digits as they stand.
    Text(String),
    /// `{expr}`: the value of a static integer expression.
    Computed(Expr),
}

impl Path {
    /// The name, if the path is one plain segment.
    pub fn as_name(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [Segment { pieces, .. }] => match pieces.as_slice() {
                [Piece::Text(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }
}

/// An argument of a call or constructor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arg {
    /// `name: value`, or positional.
    pub name: Option<Name>,
    /// Its value.
    pub value: Expr,
}

/// Prefix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum UnaryOp {
    Neg,
    Not,
}

/// Infix operators. `Div` is true division on values and exact division on sizes; `FloorDiv` is `div`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
}

/// Named reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ReduceOp {
    Sum,
    Mean,
    Prod,
    Max,
    Min,
    Any,
    All,
    Logsumexp,
    Argmax,
    Argmin,
}

/// Named normalisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum NormaliseOp {
    Softmax,
    LogSoftmax,
}

impl Item {
    /// The place of the whole item.
    pub fn span(&self) -> Span {
        match self {
            Item::Module(module) => module.span,
            Item::Function(function) => function.span,
            Item::Recipe(recipe) => recipe.span,
        }
    }
}

impl Member {
    /// The place of the whole member.
    pub fn span(&self) -> Span {
        match self {
            Member::Require { span, .. }
            | Member::Axis { span, .. }
            | Member::Index { span, .. }
            | Member::Let { span, .. }
            | Member::Submodule { span, .. }
            | Member::Param { span, .. }
            | Member::State { span, .. }
            | Member::If { span, .. }
            | Member::For { span, .. } => *span,
            Member::Forward(forward) => forward.span,
        }
    }
}

impl Stmt {
    /// The place of the whole statement.
    pub fn span(&self) -> Span {
        match self {
            Stmt::Define { span, .. }
            | Stmt::DefineTuple { span, .. }
            | Stmt::Update { span, .. }
            | Stmt::Expose { span, .. }
            | Stmt::Let { span, .. }
            | Stmt::If { span, .. }
            | Stmt::For { span, .. }
            | Stmt::Return { span, .. } => *span,
        }
    }
}

impl AxisRef {
    /// The place of the axis.
    pub fn span(&self) -> Span {
        match self {
            AxisRef::Expr(expr) => expr.span,
            AxisRef::Merged(_, span) | AxisRef::Rest(span) => *span,
        }
    }
}
