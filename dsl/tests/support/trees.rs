//! Random syntax trees, of the kind that a text can have.

use foveate_dsl::ast::*;

/// Turns a sequence of bytes into decisions; when they run out every decision is the first choice, which is always
/// the simplest, so that shorter sequences make smaller trees.
pub struct Trees<'b> {
    bytes: std::slice::Iter<'b, u8>,
    depth: u32,
}

const NAMES: &[&str] = &[
    "a", "x", "sum", "summary", "param", "state", "label", "flat", "model", "loss", "e1", "_b", "softmax", "iffy",
    "from", "C", "Grid", "window", "prelude", "no_decay", "order", "divide",
];
const WORDS: &[&str] = &["0", "fc", "if", "12a", "row", "e5", "_"];
const TEXTS: &[&str] = &["", "a/b.fov", "// no comment", "\"\\", "line\nbreak\ttab", "größer × 2", " { ["];
const DOCS: &[&str] = &["", "One line.", "Two\nlines.", "With\n\n  indented empty line", "/ slash"];
const FLOATS: &[f64] = &[0.5, 0.0, 1.0, 1e-4, 1e16, 6.02e23, 1e-8, 123456.789, f64::MAX, f64::MIN_POSITIVE];
const INTS: &[i64] = &[0, 1, 2, 14, 4096, i64::MAX];

impl<'b> Trees<'b> {
    pub fn new(bytes: &'b [u8]) -> Trees<'b> {
        Trees { bytes: bytes.iter(), depth: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        self.bytes.next().map_or(0, |&byte| byte as usize % n)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 1
    }

    fn many<T>(&mut self, least: usize, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = least + self.below(most - least + 1);
        (0..count).map(|_| one(self)).collect()
    }

    fn maybe<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flip() { Some(one(self)) } else { None }
    }

    fn name(&mut self) -> Name {
        Name { text: self.pick(NAMES).to_owned(), span: Span::default() }
    }

    pub fn file(&mut self) -> File {
        let imports = self.many(0, 2, |t| Import {
            names: t.many(1, 3, Self::name),
            source: if t.flip() { ImportSource::Path(t.pick(TEXTS).to_owned()) } else { ImportSource::Prelude },
            span: Span::default(),
        });
        File { version: 1, imports, items: self.many(1, 3, Self::item) }
    }

    fn item(&mut self) -> Item {
        let (doc, name, span) = (self.pick(DOCS).to_owned(), self.name(), Span::default());
        match self.below(3) {
            0 => Item::Function(ScalarFn { doc, name, args: self.many(0, 3, Self::name), body: self.expr(), span }),
            1 => Item::Recipe(Recipe { doc, name, entries: self.many(0, 4, Self::entry), span }),
            _ => {
                let kinds = [ModuleKind::Module, ModuleKind::Model, ModuleKind::Loss, ModuleKind::Optimizer];
                let kind = self.pick(&kinds);
                let params = self.many(0, 3, Self::param);
                let mut members = self.many(0, 6, Self::member);
                members.push(Member::Forward(self.forward()));
                Item::Module(Module { doc, kind, name, params, members, span })
            }
        }
    }

    fn entry(&mut self) -> RecipeEntry {
        let key = if self.flip() { self.pick(&["if", "data", "for"]) } else { self.pick(NAMES) };
        let key = Name { text: key.to_owned(), span: Span::default() };
        self.depth += 1;
        let nested = self.depth < 3 && self.flip();
        let value =
            if nested { RecipeValue::Block(self.many(0, 3, Self::entry)) } else { RecipeValue::Expr(self.expr()) };
        self.depth -= 1;
        RecipeEntry { key, value }
    }

    fn param(&mut self) -> Param {
        let name = self.name();
        let ty = match self.below(8) {
            0 => ParamType::Infer,
            1 => ParamType::Tuple(self.many(1, 3, Self::name)),
            2 => ParamType::OneOf(self.many(1, 3, Self::name)),
            3 => ParamType::List,
            4 => ParamType::Float,
            5 => ParamType::Int,
            6 => ParamType::Probability,
            _ => ParamType::Bool,
        };
        Param { name, ty, default: self.maybe(Self::expr) }
    }

    fn member(&mut self) -> Member {
        let span = Span::default();
        self.depth += 1;
        let choices = if self.depth < 4 { 10 } else { 8 };
        let member = match self.below(choices) {
            0 => Member::Require { cond: self.expr(), span },
            1 => {
                let name = self.name();
                let def = match self.below(3) {
                    0 => AxisDef::Size(self.expr()),
                    1 => AxisDef::Product(self.many(2, 3, Self::axis)),
                    _ => AxisDef::Sum(self.many(2, 3, Self::axis)),
                };
                Member::Axis { name, def, span }
            }
            2 => Member::Index { names: self.many(1, 3, Self::name), axis: self.axis(), span },
            3 => Member::Let { name: self.name(), value: self.expr(), span },
            4 | 5 => {
                let (name, ctor, args) = (self.path(), self.name(), self.many(0, 3, Self::arg));
                Member::Submodule { name, ctor, args, flat: self.flip(), span }
            }
            6 => {
                let (name, dims, init) = (self.path(), self.dims(), self.expr());
                Member::Param { name, dims, init, no_decay: self.flip(), span }
            }
            7 => Member::State { name: self.path(), dims: self.dims(), init: self.expr(), span },
            8 => {
                let (cond, then) = (self.expr(), self.many(0, 2, Self::member));
                Member::If { cond, then, otherwise: self.many(0, 2, Self::member), span }
            }
            _ => {
                let (var, lo, hi) = (self.name(), self.expr(), self.expr());
                Member::For { var, lo, hi, body: self.many(0, 2, Self::member), span }
            }
        };
        self.depth -= 1;
        member
    }

    fn forward(&mut self) -> Forward {
        let inputs = self.many(0, 3, |t| Input { name: t.name(), dims: t.dims(), label_of: t.maybe(Self::axis) });
        let results =
            self.many(1, 3, |t| ResultDecl { name: t.maybe(Self::name), dims: t.dims(), span: Span::default() });
        Forward { inputs, results, body: self.many(0, 6, Self::statement), span: Span::default() }
    }

    fn statement(&mut self) -> Stmt {
        let span = Span::default();
        self.depth += 1;
        let choices = if self.depth < 4 { 9 } else { 7 };
        let statement = match self.below(choices) {
            0 | 1 => Stmt::Define { target: self.target(), value: self.expr(), expose: self.flip(), span },
            2 => Stmt::DefineTuple { targets: self.many(1, 3, Self::target), value: self.expr(), span },
            3 => Stmt::Update { target: self.target(), value: self.expr(), span },
            4 => Stmt::Expose { name: self.name(), span },
            5 => Stmt::Let { name: self.name(), value: self.expr(), span },
            6 => Stmt::Return { values: self.many(1, 3, Self::expr), span },
            7 => {
                let (cond, then) = (self.expr(), self.many(0, 2, Self::statement));
                Stmt::If { cond, then, otherwise: self.many(0, 2, Self::statement), span }
            }
            _ => {
                let (var, lo, hi) = (self.name(), self.expr(), self.expr());
                Stmt::For { var, lo, hi, body: self.many(0, 2, Self::statement), span }
            }
        };
        self.depth -= 1;
        statement
    }

    fn target(&mut self) -> Target {
        Target { name: self.name(), indices: self.maybe(|t| t.many(0, 3, Self::target_index)), span: Span::default() }
    }

    fn target_index(&mut self) -> TargetIndex {
        self.depth += 1;
        let index = match self.below(4) {
            2 => TargetIndex::Rest(Span::default()),
            3 if self.depth < 5 => TargetIndex::Merged(self.many(2, 3, Self::target_index), Span::default()),
            _ => TargetIndex::Binder(self.binder()),
        };
        self.depth -= 1;
        index
    }

    fn binder(&mut self) -> Binder {
        Binder { name: self.name(), axis: self.maybe(Self::axis), domain: self.maybe(Self::expr) }
    }

    fn dims(&mut self) -> Vec<AxisRef> {
        self.many(0, 3, |t| if t.below(4) == 3 { AxisRef::Rest(Span::default()) } else { t.axis() })
    }

    fn axis(&mut self) -> AxisRef {
        self.depth += 1;
        let axis = if self.depth < 6 && self.below(4) == 3 {
            AxisRef::Merged(self.many(2, 3, Self::axis), Span::default())
        } else {
            let expr = self.expr();
            // A tuple in the place of an axis is a merged axis.
            let tuple = matches!(expr.kind, ExprKind::Tuple(_));
            AxisRef::Expr(if tuple { expression(ExprKind::Int(1)) } else { expr })
        };
        self.depth -= 1;
        axis
    }

    fn arg(&mut self) -> Arg {
        Arg { name: self.maybe(Self::name), value: self.expr() }
    }

    fn path(&mut self) -> Path {
        let first = self.pick(NAMES).to_owned();
        let mut segments = vec![self.segment(Some(first))];
        segments.extend(self.many(0, 2, |t| t.segment(None)));
        Path { segments, span: Span::default() }
    }

    fn segment(&mut self, first: Option<String>) -> Segment {
        let mut pieces: Vec<Piece> = first.map(Piece::Text).into_iter().collect();
        if pieces.is_empty() && !self.flip() {
            pieces.push(Piece::Text(self.pick(WORDS).to_owned()));
        }
        for _ in 0..self.below(3) {
            match pieces.last() {
                Some(Piece::Computed(_)) if self.flip() => pieces.push(Piece::Text(self.pick(WORDS).to_owned())),
                _ => pieces.push(Piece::Computed(self.expr())),
            }
        }
        if pieces.is_empty() {
            pieces.push(Piece::Text("0".to_owned()));
        }
        Segment { pieces, span: Span::default() }
    }

    pub fn expr(&mut self) -> Expr {
        self.depth += 1;
        let choices = if self.depth < 8 { 20 } else { 7 };
        let kind = match self.below(choices) {
            0 => ExprKind::Path(Path {
                segments: vec![Segment { pieces: vec![Piece::Text("a".to_owned())], span: Span::default() }],
                span: Span::default(),
            }),
            1 => ExprKind::Int(self.pick(INTS)),
            2 => ExprKind::Float(self.pick(FLOATS)),
            3 => ExprKind::Bool(self.flip()),
            4 => ExprKind::Str(self.pick(TEXTS).to_owned()),
            5 => ExprKind::Dims(self.many(2, 3, |t| t.pick(INTS))),
            6 => ExprKind::Int(7),
            7 => ExprKind::Path(self.path()),
            8 => ExprKind::List(self.many(0, 3, Self::expr)),
            9 => ExprKind::Tuple(self.many(2, 3, Self::expr)),
            10 => self.call(),
            11 => {
                let base = Box::new(self.expr());
                let rest = || expression(ExprKind::Rest);
                ExprKind::Read { base, indices: self.many(0, 3, |t| if t.below(4) == 3 { rest() } else { t.expr() }) }
            }
            12 => {
                let op = if self.flip() { UnaryOp::Not } else { UnaryOp::Neg };
                ExprKind::Unary { op, operand: Box::new(self.expr()) }
            }
            13..=16 => {
                use BinaryOp::*;
                let op = self.pick(&[Add, Sub, Mul, Div, FloorDiv, Mod, Pow, Eq, Ne, Lt, Le, Gt, Ge, And, Or]);
                ExprKind::Binary { op, left: Box::new(self.expr()), right: Box::new(self.expr()) }
            }
            17 => {
                let (cond, then) = (Box::new(self.expr()), Box::new(self.expr()));
                ExprKind::If { cond, then, otherwise: Box::new(self.expr()) }
            }
            18 => {
                use ReduceOp::*;
                let op = self.pick(&[Sum, Mean, Prod, Max, Min, Any, All, Logsumexp, Argmax, Argmin]);
                let (binders, filter) = (self.many(1, 3, Self::binder), self.maybe(Self::expr).map(Box::new));
                ExprKind::Reduce { op, binders, filter, body: Box::new(self.expr()) }
            }
            _ => {
                let op = if self.flip() { NormaliseOp::LogSoftmax } else { NormaliseOp::Softmax };
                ExprKind::Normalise { op, over: self.many(1, 2, Self::name), body: Box::new(self.expr()) }
            }
        };
        self.depth -= 1;
        expression(kind)
    }

    fn call(&mut self) -> ExprKind {
        let callee = self.path();
        let args = self.many(0, 3, Self::arg);
        // Directly before a bracket these words are reductions and normalisers.
        if matches!(callee.as_name(), Some("sum" | "softmax")) {
            return ExprKind::Path(callee);
        }
        ExprKind::Call { callee, args }
    }
}

fn expression(kind: ExprKind) -> Expr {
    Expr { kind, span: Span::default() }
}
