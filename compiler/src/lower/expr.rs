//! Expressions of `forward` at one point of their index domain.

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{BinaryOp as AstOp, Expr as Ast, ExprKind, Path, Piece, Span, Stmt, UnaryOp as AstUnary};

use super::builder::View;
use super::index::{At, IndexVal};
use crate::check::axes::{Axis, shape};
use crate::check::elaborator::Elaborator;
use crate::check::report::{R, Reported, suggest};
use crate::check::statics::{bare_name, symbol};
use crate::check::value::Static;
use crate::ir::{BinaryOp, Elem, Expr, Index, Node, Pred, UnaryOp};

/// The value of an expression at a point.
#[derive(Clone, Debug)]
pub(crate) enum Val {
    /// Known at compile time.
    Static(Static),
    /// An index, or arithmetic on indices.
    Index(IndexVal),
    /// The absolute value of index arithmetic; compared, it stays a predicate of indices.
    Abs(Index),
    /// A number.
    Num(Expr),
    /// A truth value.
    Pred(Pred),
}

impl Val {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Val::Static(s) => s.kind(),
            Val::Index(_) => "an index",
            Val::Abs(_) | Val::Num(_) => "a number",
            Val::Pred(_) => "a truth value",
        }
    }
}

impl<'a> Elaborator<'a> {
    /// The value of an expression.
    pub(crate) fn value(&mut self, e: &'a Ast) -> R<Val> {
        self.step(e.span)?;
        match &e.kind {
            ExprKind::Int(n) => Ok(Val::Static(Static::int(*n))),
            ExprKind::Float(x) => Ok(Val::Static(Static::Float(*x))),
            ExprKind::Bool(b) => Ok(Val::Static(Static::Bool(*b))),
            ExprKind::Str(_) | ExprKind::List(_) | ExprKind::Dims(_) => {
                let env = self.frame.env.clone();
                self.statics(&env, e, &[]).map(Val::Static)
            }
            ExprKind::Path(path) => self.path_value(path),
            ExprKind::Call { callee, args } => self.call_value(e, callee, args),
            ExprKind::Read { base, indices } => self.read_value(e, base, indices),
            ExprKind::Unary { op, operand } => {
                let value = self.value(operand)?;
                self.unary(*op, value, e.span)
            }
            ExprKind::Binary { op, left, right } => self.infix(e, *op, left, right),
            ExprKind::If { cond, then, otherwise } => self.choice(cond, then, otherwise),
            ExprKind::Reduce { op, binders, filter, body } => {
                self.reduction(*op, binders, filter.as_deref(), body, e.span)
            }
            ExprKind::Normalise { op, over, body } => self.normalised(*op, over, body, e.span),
            ExprKind::Tuple(_) => self.fail(
                Diagnostic::error("E0207", "a tuple is not a number")
                    .primary(e.span, "tuples merge or split an axis, in the brackets of a read or on the left"),
            ),
            ExprKind::Rest => {
                self.fail(Diagnostic::error("E0213", "`..` stands in the brackets of a read").primary(e.span, ""))
            }
        }
    }

    /// A value that must be a number.
    pub(crate) fn scalar(&mut self, e: &'a Ast) -> R<Expr> {
        let value = self.value(e)?;
        self.number_of(value, e.span)
    }

    /// A value that must be a condition.
    pub(crate) fn pred(&mut self, e: &'a Ast) -> R<Pred> {
        let value = self.value(e)?;
        self.pred_of(value, e.span)
    }

    /// The value as a float.
    pub(crate) fn number_of(&mut self, value: Val, span: Span) -> R<Expr> {
        match value {
            Val::Num(e) => Ok(e),
            Val::Static(s) => match s.as_number() {
                Some(x) => Ok(Expr::constant(Elem::F32, x)),
                None => self.fail(
                    Diagnostic::error("E0207", format!("expected a number, found {}", s.kind()))
                        .primary(span, format!("this is {s}")),
                ),
            },
            Val::Abs(index) => Ok(Expr::unary(UnaryOp::Abs, Expr::index(Elem::F32, index))),
            Val::Index(iv) => {
                let index = self.integer(&iv, span)?;
                Ok(Expr::index(Elem::F32, index))
            }
            Val::Pred(_) => self.fail(
                Diagnostic::error("E0207", "expected a number, found a truth value")
                    .primary(span, "")
                    .help("write `if ... then 1 else 0`"),
            ),
        }
    }

    pub(crate) fn pred_of(&mut self, value: Val, span: Span) -> R<Pred> {
        match value {
            Val::Pred(p) => Ok(p),
            Val::Static(Static::Bool(true)) => Ok(Pred::True),
            Val::Static(Static::Bool(false)) => Ok(Pred::Not(Box::new(Pred::True))),
            other => self.fail(
                Diagnostic::error("E0207", format!("expected a condition, found {}", other.kind())).primary(span, ""),
            ),
        }
    }

    /// The integer that an index is in arithmetic.
    pub(crate) fn integer(&mut self, iv: &IndexVal, span: Span) -> R<Index> {
        match iv.comps.as_slice() {
            [one] => Ok(one.index.clone()),
            _ => {
                let axis = iv.axis.as_ref().map_or(String::new(), Axis::to_string);
                let d = Diagnostic::error("E0206", "an index of a product axis is not a number")
                    .primary(span, format!("this is an index of {axis}"));
                self.fail(d.help("use its factors, `.row` and `.col`"))
            }
        }
    }

    fn path_value(&mut self, path: &'a Path) -> R<Val> {
        if let Some(values) = &self.frame.arguments {
            let found = path.as_name().and_then(|name| values.iter().find(|(n, _)| n == name));
            if let Some((_, value)) = found {
                return Ok(value.clone());
            }
            return match path.as_name() {
                Some("pi") => Ok(Val::Static(Static::Float(std::f64::consts::PI))),
                Some("inf") => Ok(Val::Static(Static::Float(f64::INFINITY))),
                _ => {
                    let names: Vec<String> = values.iter().map(|(n, _)| n.clone()).collect();
                    let name = self.text(path.span);
                    let d = Diagnostic::error("E0101", format!("unknown name `{name}` in a function"))
                        .primary(path.span, "a function sees its own arguments only");
                    self.fail(suggest(d, &name, names.iter().map(String::as_str)))
                }
            };
        }
        if let Some(name) = path.as_name() {
            if let Some(bound) = self.frame.bound(name) {
                return Ok(Val::Index(bound.value.clone()));
            }
        } else if let [first, rest @ ..] = path.segments.as_slice() {
            let head = match first.pieces.as_slice() {
                [Piece::Text(text)] => self.frame.bound(text).map(|b| (text.clone(), b.value.clone())),
                _ => None,
            };
            if let Some((mut name, mut value)) = head {
                for segment in rest {
                    let [Piece::Text(which)] = segment.pieces.as_slice() else {
                        return self.fail(
                            Diagnostic::error("E0206", "a factor is named by a word or number")
                                .primary(segment.span, ""),
                        );
                    };
                    value = self.component(&name, &value, which, path.span)?;
                    name = format!("{name}.{which}");
                }
                return Ok(Val::Index(value));
            }
        }
        let env = self.frame.env.clone();
        let name = self.path_text(&env, path)?;
        if let Some(view) = self.find_view(&name) {
            let view = view?;
            return self.whole_read(&view, &name, path.span);
        }
        if let Some(value) = path.as_name().and_then(|n| env.get(n)) {
            return Ok(Val::Static(value.clone()));
        }
        match &*name {
            "training" => Ok(Val::Static(Static::Bool(self.training()))),
            "pi" => Ok(Val::Static(Static::Float(std::f64::consts::PI))),
            "inf" => Ok(Val::Static(Static::Float(f64::INFINITY))),
            _ => self.unknown(&name, path.span),
        }
    }

    /// The value of a tensor that is named without indices.
    pub(crate) fn whole_read(&mut self, view: &View, name: &str, span: Span) -> R<Val> {
        if view.dims.is_empty() {
            return self.read(view, name, Vec::new(), span);
        }
        let Some(whole) = self.frame.whole.clone() else {
            let d = Diagnostic::error("E0208", format!("`{name}` is a whole tensor where one number is asked"))
                .primary(span, format!("its shape is {}", shape(&view.dims)));
            return self.fail(d.help("give it indices, or define the result without indices too"));
        };
        let dims: Vec<Axis> = whole.iter().filter_map(|iv| iv.axis.clone()).collect();
        if dims.len() != view.dims.len() || !dims.iter().zip(&*view.dims).all(|(a, b)| a.matches(b)) {
            let d = Diagnostic::error("E0204", "the shapes of whole tensors differ")
                .primary(span, format!("`{name}` is {}", shape(&view.dims)))
                .note(format!("the others are {}", shape(&dims)));
            return self.fail(d.help("whole tensors combine element by element: shapes are equal, or [] for a number"));
        }
        let at = whole.into_iter().map(|iv| At::Index(iv, span)).collect();
        self.read(view, name, at, span)
    }

    /// Where `forward` defines a name after a place in it.
    fn defined_later(&self, name: &str, span: Span) -> Option<Span> {
        let forward = self.frame.instance.as_ref()?.forward?;
        let targets = forward.body.iter().flat_map(|stmt| match stmt {
            Stmt::Define { target, .. } => std::slice::from_ref(target),
            Stmt::DefineTuple { targets, .. } => targets.as_slice(),
            _ => &[],
        });
        let mut names = targets.map(|t| &t.name);
        names.find(|n| n.text == name && n.span.file == span.file && n.span.start > span.start).map(|n| n.span)
    }

    pub(crate) fn unknown<T>(&mut self, name: &str, span: Span) -> R<T> {
        let mut names: Vec<String> = self.frame.tensors.iter().map(|(n, _)| n.clone()).collect();
        names.extend(self.frame.scope.iter().map(|b| b.name.clone()));
        names.extend(self.frame.env.names().map(str::to_owned));
        if let Some(instance) = &self.frame.instance {
            names.extend(instance.slots.iter().map(|(n, _)| n.clone()));
            for (n, sub) in &instance.submodules {
                names.push(n.clone());
                names.extend(sub.instance.slots.iter().map(|(slot, _)| format!("{n}.{slot}")));
            }
        }
        let mut d = Diagnostic::error("E0101", format!("unknown name `{name}`"));
        // Its parts have its name before a dot.
        if self.frame.defining.split('.').next() == Some(name) {
            let d = d.primary(span, "this is what is being defined");
            return self.fail(d.help(
                "a definition cannot refer to itself: give each step a name of its own, or write it as a reduction over what comes before",
            ));
        }
        d = d.primary(span, "");
        if let Some(later) = self.defined_later(name, span) {
            let d = d.secondary(later, "this is defined only here");
            return self.fail(d.help("a definition sees those above it: move it up"));
        }
        if let Some((head, rest)) = name.rsplit_once('.') {
            let called = self.frame.submodule(head).is_some();
            if called {
                d = d.note(format!("`{head}` has no parameter `{rest}` and has exposed nothing of that name so far"));
            }
        }
        let d = suggest(d, name, names.iter().map(String::as_str));
        self.fail(d)
    }

    fn read_value(&mut self, e: &'a Ast, base: &'a Ast, indices: &'a [Ast]) -> R<Val> {
        if self.frame.arguments.is_some() {
            return self.fail(Diagnostic::error("E0208", "a function has numbers and no tensors").primary(e.span, ""));
        }
        // A compile-time list, unless a tensor has the name.
        if let Some(name) = bare_name(base) {
            let hidden = self.find_view(name).is_some();
            if !hidden && matches!(self.frame.env.get(name), Some(Static::List(_) | Static::Tuple(_))) {
                let env = self.frame.env.clone();
                return self.statics(&env, e, &[]).map(Val::Static);
            }
        }
        let view = self.tensor(base)?;
        let name = self.text(base.span);
        let at = self.positions(indices)?;
        self.read(&view, &name, at, e.span)
    }

    fn unary(&mut self, op: AstUnary, value: Val, span: Span) -> R<Val> {
        match (op, value) {
            (op, Val::Static(s)) => self.static_unary(op, s, span).map(Val::Static),
            (AstUnary::Neg, Val::Index(iv)) => {
                let index = self.integer(&iv, span)?;
                Ok(Val::Index(IndexVal::computed(index.scale(-1))))
            }
            (AstUnary::Neg, value) => Ok(Val::Num(Expr::neg(self.number_of(value, span)?))),
            (AstUnary::Not, value) => Ok(Val::Pred(not(self.pred_of(value, span)?))),
        }
    }

    fn choice(&mut self, cond: &'a Ast, then: &'a Ast, otherwise: &'a Ast) -> R<Val> {
        let guard = match self.value(cond)? {
            Val::Static(Static::Bool(c)) => return self.value(if c { then } else { otherwise }),
            other => self.pred_of(other, cond.span)?,
        };
        let (a, b) = (self.value(then), self.value(otherwise));
        let (a, b) = (a?, b?);
        if let (Val::Pred(_) | Val::Static(Static::Bool(_)), Val::Pred(_) | Val::Static(Static::Bool(_))) = (&a, &b) {
            let (a, b) = (self.pred_of(a, then.span)?, self.pred_of(b, otherwise.span)?);
            let first = Pred::and([guard.clone(), a]);
            return Ok(Val::Pred(Pred::Or(vec![first, Pred::and([not(guard), b])])));
        }
        let (a, b) = (self.number_of(a, then.span)?, self.number_of(b, otherwise.span)?);
        Ok(Val::Num(Expr::select(guard, a, b)))
    }

    fn infix(&mut self, e: &'a Ast, op: AstOp, left: &'a Ast, right: &'a Ast) -> R<Val> {
        use AstOp::*;
        // Words are compared at compile time.
        let word = |x: &Elaborator<'_>, e: &Ast| {
            x.frame.arguments.is_none()
                && bare_name(e).is_some_and(|n| matches!(x.frame.env.get(n), Some(Static::Word(_))))
        };
        if matches!(op, Eq | Ne) && (word(self, left) || word(self, right)) {
            let env = self.frame.env.clone();
            return self.statics(&env, e, &[]).map(Val::Static);
        }
        if let And | Or = op {
            let a = self.value(left)?;
            if let Val::Static(Static::Bool(known)) = a {
                return if known == (op == Or) { Ok(Val::Static(Static::Bool(known))) } else { self.value(right) };
            }
            let a = self.pred_of(a, left.span)?;
            return Ok(match self.value(right)? {
                Val::Static(Static::Bool(known)) if known == (op == Or) => Val::Static(Static::Bool(known)),
                Val::Static(Static::Bool(_)) => Val::Pred(a),
                b => {
                    let b = self.pred_of(b, right.span)?;
                    Val::Pred(if op == And { Pred::and([a, b]) } else { Pred::Or(vec![a, b]) })
                }
            });
        }
        let (a, b) = (self.value(left), self.value(right));
        let (a, b) = (a?, b?);
        match (&a, &b) {
            (Val::Static(a), Val::Static(b)) => {
                self.notice_comparison(op, left, right, a, b);
                self.static_binary(op, a.clone(), b.clone(), e.span, true).map(Val::Static)
            }
            _ if matches!(op, Eq | Ne | Lt | Le | Gt | Ge) => self.comparison(e, op, left, right, a, b),
            (Val::Index(_) | Val::Static(Static::Int(..)), Val::Index(_) | Val::Static(Static::Int(..))) => {
                match self.index_arithmetic(e, op, &a, &b, left.span, right.span)? {
                    Some(index) => Ok(Val::Index(IndexVal::computed(index))),
                    None => self.number_arithmetic(op, a, b, left.span, right.span, e.span),
                }
            }
            _ => self.number_arithmetic(op, a, b, left.span, right.span, e.span),
        }
    }

    fn index_of(&mut self, value: &Val, span: Span) -> R<Index> {
        match value {
            Val::Index(iv) => self.integer(iv, span),
            Val::Static(Static::Int(n, _)) => Ok(Index::from(*n)),
            other => self.fail(
                Diagnostic::error("E0205", format!("expected an index, found {}", other.kind())).primary(span, ""),
            ),
        }
    }

    /// Arithmetic that stays an index; none for what makes it a plain number.
    fn index_arithmetic(&mut self, e: &Ast, op: AstOp, a: &Val, b: &Val, left: Span, right: Span) -> R<Option<Index>> {
        if op == AstOp::Sub {
            self.same_axis(e, op, a, b)?;
        }
        let (x, y) = (self.index_of(a, left)?, self.index_of(b, right)?);
        let (cx, cy) = (x.as_const(), y.as_const());
        let out = match (op, cx, cy) {
            (AstOp::Add, ..) => x.add(&y),
            (AstOp::Sub, ..) => x.sub(&y),
            (AstOp::Mul, _, Some(c)) => {
                self.small(&x, c, e.span)?;
                x.scale(c)
            }
            (AstOp::Mul, Some(c), _) => {
                self.small(&y, c, e.span)?;
                y.scale(c)
            }
            (AstOp::FloorDiv, _, Some(c)) if c > 0 => x.div(c, &self.sizes()),
            (AstOp::Mod, _, Some(c)) if c > 0 => x.modulo(c, &self.sizes()),
            (AstOp::FloorDiv | AstOp::Mod, ..) => {
                let d = Diagnostic::error("E0303", format!("`{}` of an index is by a size above 0", symbol(op)));
                return self.fail(d.primary(right, ""));
            }
            _ => return Ok(None),
        };
        self.small(&out, 1, e.span)?;
        Ok(Some(out.fold()))
    }

    fn number_arithmetic(&mut self, op: AstOp, a: Val, b: Val, left: Span, right: Span, span: Span) -> R<Val> {
        if let (AstOp::Pow, Val::Static(Static::Int(n, _))) = (op, &b) {
            let x = self.number_of(a, left)?;
            return Ok(Val::Num(self.power(x, *n, span)));
        }
        let (x, y) = (self.number_of(a, left)?, self.number_of(b, right)?);
        Ok(Val::Num(match op {
            AstOp::Add => Expr::add(x, y),
            AstOp::Sub => Expr::sub(x, y),
            AstOp::Mul => Expr::mul(x, y),
            AstOp::Div => Expr::div(x, y),
            AstOp::Pow => Expr::binary(BinaryOp::Pow, x, y),
            AstOp::FloorDiv => Expr::unary(UnaryOp::Floor, Expr::div(x, y)),
            AstOp::Mod => {
                let x = self.shared(x, "remainder", span);
                let whole = Expr::unary(UnaryOp::Floor, Expr::div(x.clone(), y.clone()));
                Expr::sub(x, Expr::mul(y, whole))
            }
            _ => {
                return self.fail(
                    Diagnostic::error("E0207", format!("`{}` is not for numbers", symbol(op))).primary(span, ""),
                );
            }
        }))
    }

    /// `x^n` by multiplication.
    fn power(&mut self, x: Expr, n: i64, span: Span) -> Expr {
        let elem = x.elem;
        if n.unsigned_abs() > 8 {
            return Expr::binary(BinaryOp::Pow, x, Expr::constant(elem, n as f64));
        }
        let x = if n.unsigned_abs() > 1 { self.shared(x, "power", span) } else { x };
        let product = (0..n.unsigned_abs()).fold(Expr::constant(elem, 1.0), |p, _| Expr::mul(p, x.clone()));
        if n < 0 { Expr::unary(UnaryOp::Recip, product) } else { product }
    }

    /// The expression, as a tensor of its own if it is too large to be written several times.
    pub(crate) fn shared(&mut self, e: Expr, name: &str, span: Span) -> Expr {
        if weight(&e, 64) < 64 { e } else { self.hoist(e, name, span) }
    }

    /// Indices of different axes are not compared or subtracted.
    fn same_axis(&mut self, e: &Ast, op: AstOp, a: &Val, b: &Val) -> R<()> {
        let (Val::Index(x), Val::Index(y)) = (a, b) else { return Ok(()) };
        let (Some(p), Some(q)) = (&x.axis, &y.axis) else { return Ok(()) };
        if x.component != y.component
            || p.matches(q)
            || p.is_batch()
            || q.is_batch()
            || (op == AstOp::Sub && !x.component)
        {
            return Ok(());
        }
        let d = Diagnostic::error("E0217", format!("`{}` of indices of different axes", symbol(op)))
            .primary(e.span, format!("one is of {p}, the other of {q}"));
        self.fail(
            d.help("indices of two axes have nothing to do with each other; scale or shift one of them if they have"),
        )
    }

    fn comparison(&mut self, e: &Ast, op: AstOp, left: &Ast, right: &Ast, a: Val, b: Val) -> R<Val> {
        self.same_axis(e, op, &a, &b)?;
        let integral = |v: &Val| matches!(v, Val::Index(_) | Val::Abs(_) | Val::Static(Static::Int(..)));
        if !integral(&a) || !integral(&b) {
            let (x, y) = (self.number_of(a, left.span)?, self.number_of(b, right.span)?);
            let op = match op {
                AstOp::Eq => BinaryOp::Eq,
                AstOp::Ne => BinaryOp::Ne,
                AstOp::Lt => BinaryOp::Lt,
                AstOp::Le => BinaryOp::Le,
                AstOp::Gt => BinaryOp::Gt,
                _ => BinaryOp::Ge,
            };
            return Ok(Val::Pred(Pred::Value(Expr::binary(op, x, y))));
        }
        // |x| < y is -y < x < y; |x| on the right is turned round first.
        let (a, b, op) = match (&a, &b) {
            (Val::Index(_) | Val::Static(_), Val::Abs(_)) => (b, a, turned(op)),
            _ => (a, b, op),
        };
        if let Val::Abs(x) = &a {
            let y = match &b {
                Val::Abs(_) => None,
                other => Some(self.index_of(other, right.span)?),
            };
            let Some(y) = y else {
                let (x, y) = (self.number_of(a, left.span)?, self.number_of(b, right.span)?);
                let _ = (&x, &y);
                let op = match op {
                    AstOp::Eq => BinaryOp::Eq,
                    AstOp::Ne => BinaryOp::Ne,
                    AstOp::Lt => BinaryOp::Lt,
                    AstOp::Le => BinaryOp::Le,
                    AstOp::Gt => BinaryOp::Gt,
                    _ => BinaryOp::Ge,
                };
                return Ok(Val::Pred(Pred::Value(Expr::binary(op, x, y))));
            };
            let minus = x.scale(-1);
            let both = |op| Pred::and([compare(op, x, &y), compare(op, &minus, &y)]);
            return Ok(Val::Pred(match op {
                AstOp::Lt | AstOp::Le => both(op),
                AstOp::Gt => not(both(AstOp::Le)),
                AstOp::Ge => not(both(AstOp::Lt)),
                AstOp::Eq => Pred::and([both(AstOp::Le), not(both(AstOp::Lt))]),
                _ => not(Pred::and([both(AstOp::Le), not(both(AstOp::Lt))])),
            }));
        }
        let flat = |v: &Val| matches!(v, Val::Index(iv) if iv.comps.len() > 1);
        if flat(&a) || flat(&b) {
            return self.product_comparison(op, &a, &b, left.span, right.span);
        }
        let (x, y) = (self.index_of(&a, left.span)?, self.index_of(&b, right.span)?);
        Ok(Val::Pred(self.decided(compare(op, &x, &y))))
    }

    /// Equality of indices of product axes, factor by factor or, with a label, as positions.
    fn product_comparison(&mut self, op: AstOp, a: &Val, b: &Val, left: Span, right: Span) -> R<Val> {
        let (Val::Index(x), Val::Index(y)) = (a, b) else {
            self.index_of(a, left)?;
            self.index_of(b, right)?;
            return Err(Reported);
        };
        let equality = matches!(op, AstOp::Eq | AstOp::Ne);
        let equal = if equality && x.comps.len() == y.comps.len() {
            Pred::and(x.comps.iter().zip(&y.comps).map(|(a, b)| compare(AstOp::Eq, &a.index, &b.index)))
        } else if x.window.is_none() && y.window.is_none() {
            let (x, y) = (self.flat(x), self.flat(y));
            return Ok(Val::Pred(self.decided(compare(op, &x, &y))));
        } else {
            self.integer(x, left)?;
            self.integer(y, right)?;
            return Err(Reported);
        };
        Ok(Val::Pred(if op == AstOp::Eq { equal } else { not(equal) }))
    }

    /// The predicate, or `True` where ranges prove it.
    fn decided(&self, p: Pred) -> Pred {
        p.subst(&|_| None, &self.sizes())
    }
}

/// The predicate `x op y`.
fn compare(op: AstOp, x: &Index, y: &Index) -> Pred {
    let difference = x.sub(y);
    match op {
        AstOp::Eq => Pred::Zero(difference),
        AstOp::Ne => Pred::Not(Box::new(Pred::Zero(difference))),
        AstOp::Lt => Pred::NonNeg(difference.scale(-1).plus(-1)),
        AstOp::Le => Pred::NonNeg(difference.scale(-1)),
        AstOp::Gt => Pred::NonNeg(difference.plus(-1)),
        _ => Pred::NonNeg(difference),
    }
}

fn turned(op: AstOp) -> AstOp {
    match op {
        AstOp::Lt => AstOp::Gt,
        AstOp::Le => AstOp::Ge,
        AstOp::Gt => AstOp::Lt,
        AstOp::Ge => AstOp::Le,
        other => other,
    }
}

/// The negation.
pub(crate) fn not(p: Pred) -> Pred {
    match p {
        Pred::Not(inner) => *inner,
        other => Pred::Not(Box::new(other)),
    }
}

/// The number of nodes, counted up to a limit.
fn weight(e: &Expr, limit: usize) -> usize {
    let mut total = 1;
    if let Node::Reduce(_) = &*e.node {
        return limit;
    }
    e.for_each_child(&mut |c| {
        if total < limit {
            total += weight(c, limit - total);
        }
    });
    total
}
