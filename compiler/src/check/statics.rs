//! Compile-time expressions: sizes, conditions, arguments of constructors.

use std::borrow::Cow;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{AxisRef, BinaryOp, Expr, ExprKind, Path, Piece, Span, UnaryOp};

use super::arguments::options_name;
use super::axes::Axis;
use super::elaborator::{Elaborator, MAX_ELEMENTS};
use super::report::{R, Reported, suggest};
use super::value::{Env, Static};

impl Elaborator<'_> {
    /// The value of a compile-time expression. `words` are the words that a bare name may be, where one is asked for.
    pub(crate) fn statics(&mut self, env: &Env, e: &Expr, words: &[&str]) -> R<Static> {
        self.step(e.span)?;
        match &e.kind {
            ExprKind::Int(n) => Ok(Static::int(*n)),
            ExprKind::Float(x) => Ok(Static::Float(*x)),
            ExprKind::Bool(b) => Ok(Static::Bool(*b)),
            ExprKind::Str(s) => Ok(Static::Str(s.clone())),
            ExprKind::Dims(sizes) => Ok(Static::Tuple(sizes.iter().map(|&n| Static::int(n)).collect())),
            ExprKind::List(parts) => self.all_statics(env, parts).map(Static::List),
            ExprKind::Tuple(parts) => self.all_statics(env, parts).map(Static::Tuple),
            ExprKind::Path(path) => self.static_name(env, path, words),
            ExprKind::Unary { op, operand } => {
                let value = self.statics(env, operand, &[])?;
                self.static_unary(*op, value, e.span)
            }
            ExprKind::Binary { op, left, right } => self.static_infix(env, *op, left, right, e.span),
            ExprKind::If { cond, then, otherwise } => {
                if self.condition(env, cond)? {
                    self.statics(env, then, words)
                } else {
                    self.statics(env, otherwise, words)
                }
            }
            ExprKind::Read { base, indices } => {
                let base = self.statics(env, base, &[])?;
                let [index] = indices.as_slice() else {
                    let d = Diagnostic::error("E0306", "a list or tuple is read with one position");
                    return self.fail(d.primary(e.span, ""));
                };
                let at = self.int(env, index)?;
                self.element(base, at, e.span)
            }
            ExprKind::Call { callee, args } => {
                let name = self.plain_name(callee)?;
                let mut values = Vec::new();
                for arg in args {
                    values.push(self.statics(env, &arg.value, &[])?);
                }
                match static_function(name, &values) {
                    Some(value) => Ok(value),
                    None => self.fail(
                        Diagnostic::error("E0306", format!("`{name}` is not a function of compile-time numbers"))
                            .primary(e.span, "this must be known at compile time"),
                    ),
                }
            }
            ExprKind::Rest | ExprKind::Reduce { .. } | ExprKind::Normalise { .. } => self.fail(
                Diagnostic::error("E0306", "this is not a compile-time expression")
                    .primary(e.span, "a size, condition or argument must be known at compile time"),
            ),
        }
    }

    fn all_statics(&mut self, env: &Env, parts: &[Expr]) -> R<Vec<Static>> {
        parts.iter().map(|part| self.statics(env, part, &[])).collect()
    }

    fn static_name(&mut self, env: &Env, path: &Path, words: &[&str]) -> R<Static> {
        let name = self.plain_name(path)?;
        if words.contains(&name) {
            return Ok(Static::Word(name.to_owned()));
        }
        if let Some(value) = env.get(name) {
            return Ok(value.clone());
        }
        match name {
            "training" => return Ok(Static::Bool(self.training())),
            "pi" => return Ok(Static::Float(std::f64::consts::PI)),
            "inf" => return Ok(Static::Float(f64::INFINITY)),
            _ => {}
        }
        if !words.is_empty() {
            let d = Diagnostic::error("E0305", format!("`{name}` is not one of the words that stand here"))
                .primary(path.span, format!("expected one of {}", words.join(", ")));
            return self.fail(suggest(d, name, words.iter().copied()));
        }
        if env.get(&failed_name(name)).is_some() {
            return Err(Reported);
        }
        let d = Diagnostic::error("E0101", format!("unknown compile-time name `{name}`")).primary(path.span, "");
        let d = suggest(d, name, env.names());
        self.fail(d)
    }

    fn static_infix(&mut self, env: &Env, op: BinaryOp, left: &Expr, right: &Expr, span: Span) -> R<Static> {
        // The right side of `and` and `or` counts only where the left side leaves it open.
        if let BinaryOp::And | BinaryOp::Or = op {
            let first = self.condition(env, left)?;
            return if first == (op == BinaryOp::Or) {
                Ok(Static::Bool(first))
            } else {
                self.condition(env, right).map(Static::Bool)
            };
        }
        // `form == product`: the unbound name is a word if the other side is one.
        if let BinaryOp::Eq | BinaryOp::Ne = op {
            for (known, other, swap) in [(left, right, false), (right, left, true)] {
                let Some(name) = bare_name(known) else { continue };
                let Some(Static::Word(_)) = env.get(name) else { continue };
                let words: Vec<&str> = match env.get(&options_name(name)) {
                    Some(Static::List(words)) => words
                        .iter()
                        .filter_map(|w| if let Static::Word(w) = w { Some(w.as_str()) } else { None })
                        .collect(),
                    _ => Vec::new(),
                };
                let a = self.statics(env, known, &[])?;
                let b = self.statics(env, other, &words)?;
                self.notice_comparison(op, known, other, &a, &b);
                return if swap {
                    self.static_binary(op, b, a, span, false)
                } else {
                    self.static_binary(op, a, b, span, false)
                };
            }
        }
        let a = self.statics(env, left, &[])?;
        let b = self.statics(env, right, &[])?;
        self.notice_comparison(op, left, right, &a, &b);
        self.static_binary(op, a, b, span, false)
    }

    /// `op value`.
    pub(crate) fn static_unary(&mut self, op: UnaryOp, value: Static, span: Span) -> R<Static> {
        let out = match (op, &value) {
            (UnaryOp::Neg, Static::Int(n, _)) => n.checked_neg().map(Static::int),
            (UnaryOp::Neg, Static::Float(x)) => Some(Static::Float(-x)),
            (UnaryOp::Not, Static::Bool(b)) => Some(Static::Bool(!b)),
            _ => None,
        };
        match out {
            Some(out) => Ok(out),
            None => self.fail(
                Diagnostic::error("E0305", format!("this operator does not take {}", value.kind()))
                    .primary(span, format!("the operand is {value}")),
            ),
        }
    }

    /// `a op b`. With `value`, the quotient of two integers that do not divide is a number and not an error.
    pub(crate) fn static_binary(&mut self, op: BinaryOp, a: Static, b: Static, span: Span, value: bool) -> R<Static> {
        use BinaryOp::*;
        if let (Static::Int(x, _), Static::Int(y, _)) = (&a, &b) {
            let (x, y) = (*x, *y);
            let out = match op {
                Add => x.checked_add(y),
                Sub => x.checked_sub(y),
                Mul => x.checked_mul(y),
                Pow if y >= 0 => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
                Pow => return Ok(Static::Float((x as f64).powf(y as f64))),
                Div | FloorDiv | Mod if y == 0 => {
                    return self.fail(
                        Diagnostic::error("E0303", "division by zero").primary(span, "the right operand is 0 here"),
                    );
                }
                Div if x % y != 0 && value => return Ok(Static::Float(x as f64 / y as f64)),
                Div if x % y != 0 => {
                    let d = Diagnostic::error("E0302", format!("`{}` is not exact: {x} / {y}", self.text(span)))
                        .primary(span, format!("{y} does not divide {x}"))
                        .help("sizes divide exactly; `div` rounds down");
                    return self.fail(d);
                }
                Div => x.checked_div(y),
                FloorDiv => {
                    Some(x.checked_div_euclid(y).map_or(0, |q| if y < 0 && x.rem_euclid(y) != 0 { q - 1 } else { q }))
                }
                Mod => x.checked_rem_euclid(y),
                Eq | Ne | Lt | Le | Gt | Ge => return Ok(Static::Bool(compare(op, x.cmp(&y)))),
                And | Or => None,
            };
            return match out {
                Some(n) => Ok(Static::int(n)),
                None if matches!(op, And | Or) => self.operands(op, &a, &b, span),
                None => self.fail(
                    Diagnostic::error("E0307", "this number is too large").primary(span, format!("from {x} and {y}")),
                ),
            };
        }
        if let (Some(x), Some(y)) = (a.as_number(), b.as_number()) {
            let out = match op {
                Add => x + y,
                Sub => x - y,
                Mul => x * y,
                Div => x / y,
                Pow => x.powf(y),
                FloorDiv => (x / y).floor(),
                Mod => x - y * (x / y).floor(),
                Eq => return Ok(Static::Bool(x == y)),
                Ne => return Ok(Static::Bool(x != y)),
                Lt => return Ok(Static::Bool(x < y)),
                Le => return Ok(Static::Bool(x <= y)),
                Gt => return Ok(Static::Bool(x > y)),
                Ge => return Ok(Static::Bool(x >= y)),
                And | Or => return self.operands(op, &a, &b, span),
            };
            return Ok(Static::Float(out));
        }
        match (op, &a, &b) {
            (And, Static::Bool(x), Static::Bool(y)) => Ok(Static::Bool(*x && *y)),
            (Or, Static::Bool(x), Static::Bool(y)) => Ok(Static::Bool(*x || *y)),
            (Eq, ..) if same_kind(&a, &b) => Ok(Static::Bool(a.value() == b.value())),
            (Ne, ..) if same_kind(&a, &b) => Ok(Static::Bool(a.value() != b.value())),
            _ => self.operands(op, &a, &b, span),
        }
    }

    fn operands<T>(&mut self, op: BinaryOp, a: &Static, b: &Static, span: Span) -> R<T> {
        let d = Diagnostic::error("E0305", format!("`{}` does not take {} and {}", symbol(op), a.kind(), b.kind()));
        self.fail(d.primary(span, format!("the operands are {a} and {b}")))
    }

    /// The element of a list or tuple.
    pub(crate) fn element(&mut self, base: Static, at: i64, span: Span) -> R<Static> {
        let (Static::List(parts) | Static::Tuple(parts)) = &base else {
            return self.fail(
                Diagnostic::error("E0305", format!("{} has no elements", base.kind()))
                    .primary(span, "expected a list or tuple"),
            );
        };
        match usize::try_from(at).ok().and_then(|n| parts.get(n)) {
            Some(part) => Ok(part.clone()),
            None => self.fail(
                Diagnostic::error("E0308", format!("position {at} of a list with {} elements", parts.len()))
                    .primary(span, format!("the list is {base}; positions count from 0")),
            ),
        }
    }

    /// A compile-time integer.
    pub(crate) fn int(&mut self, env: &Env, e: &Expr) -> R<i64> {
        match self.statics(env, e, &[])? {
            Static::Int(n, _) => Ok(n),
            other => self.fail(
                Diagnostic::error("E0305", format!("expected an integer, found {}", other.kind()))
                    .primary(e.span, format!("this is {other}")),
            ),
        }
    }

    /// A compile-time number.
    pub(crate) fn number(&mut self, env: &Env, e: &Expr) -> R<f64> {
        let value = self.statics(env, e, &[])?;
        match value.as_number() {
            Some(x) => Ok(x),
            None => self.fail(
                Diagnostic::error("E0305", format!("expected a number, found {}", value.kind()))
                    .primary(e.span, format!("this is {value}")),
            ),
        }
    }

    /// A compile-time condition.
    pub(crate) fn condition(&mut self, env: &Env, e: &Expr) -> R<bool> {
        match self.statics(env, e, &[])? {
            Static::Bool(b) => Ok(b),
            other => self.fail(
                Diagnostic::error("E0305", format!("expected a condition, found {}", other.kind()))
                    .primary(e.span, format!("this is {other}")),
            ),
        }
    }

    /// A size: at least 1 and small enough for an axis.
    pub(crate) fn size(&mut self, env: &Env, e: &Expr) -> R<usize> {
        let n = self.int(env, e)?;
        self.checked_size(n, e.span)
    }

    pub(crate) fn checked_size(&mut self, n: i64, span: Span) -> R<usize> {
        if n < 1 {
            let d = Diagnostic::error("E0304", format!("an axis has at least one element, this size is {n}"));
            return self.fail(d.primary(span, format!("`{}` = {n}", self.text(span))));
        }
        if n > MAX_ELEMENTS {
            let d = Diagnostic::error("E0307", format!("an axis of {n} elements is too large"));
            return self.fail(d.primary(span, format!("the most is {MAX_ELEMENTS}")));
        }
        Ok(n as usize)
    }

    /// The axis that stands in a shape, an annotation, a product or a sum.
    pub(crate) fn axis(&mut self, env: &Env, r: &AxisRef) -> R<Axis> {
        match r {
            AxisRef::Expr(e) => {
                let value = self.statics(env, e, &[])?;
                match value {
                    Static::Int(_, Some(axis)) => Ok(axis),
                    Static::Int(n, None) => {
                        let size = self.checked_size(n, e.span)?;
                        Ok(Axis::weak(&self.text(e.span), size))
                    }
                    Static::Tuple(parts) if parts.iter().all(|p| matches!(p, Static::Int(_, Some(_)))) => {
                        let axes = parts
                            .into_iter()
                            .filter_map(|p| if let Static::Int(_, a) = p { a } else { None })
                            .collect();
                        self.merge(axes, e.span)
                    }
                    other => self.fail(
                        Diagnostic::error("E0203", format!("expected an axis or a size, found {}", other.kind()))
                            .primary(e.span, format!("this is {other}")),
                    ),
                }
            }
            AxisRef::Merged(parts, span) => {
                let parts = parts.iter().map(|p| self.axis(env, p)).collect::<R<Vec<_>>>()?;
                self.merge(parts, *span)
            }
            AxisRef::Rest(span) => self.fail(
                Diagnostic::error("E0203", "`..` stands first in the shapes of `forward` and nowhere else")
                    .primary(*span, ""),
            ),
        }
    }

    /// The merge of axes, within the size limit.
    pub(crate) fn merge(&mut self, parts: Vec<Axis>, span: Span) -> R<Axis> {
        self.elements(parts.iter(), span)?;
        Ok(Axis::merged(parts))
    }

    /// What a `for` runs through.
    pub(crate) fn range(&mut self, env: &Env, lo: &Expr, hi: &Expr) -> R<std::ops::Range<i64>> {
        let (from, to) = (self.int(env, lo)?, self.int(env, hi)?);
        if to < from && to < 0 {
            let d = Diagnostic::error("E0301", format!("there is no range from {from} to {to}"));
            return self.fail(d.primary(hi.span, format!("this is {to}")));
        }
        Ok(from..to)
    }

    /// The number of elements of a shape; an error if it is too large for a tensor.
    pub(crate) fn elements<'x>(&mut self, axes: impl Iterator<Item = &'x Axis> + Clone, span: Span) -> R<i64> {
        self.elements_up_to(MAX_ELEMENTS, axes, span)
    }

    /// The same with another limit.
    pub(crate) fn elements_up_to<'x>(
        &mut self,
        most: i64,
        axes: impl Iterator<Item = &'x Axis> + Clone,
        span: Span,
    ) -> R<i64> {
        let total = axes.clone().fold(1_i64, |total, axis| total.saturating_mul(axis.size() as i64));
        if total > most {
            let text: Vec<String> = axes.map(Axis::to_string).collect();
            let d = Diagnostic::error("E0307", format!("this has more than {most} elements"));
            return self.fail(d.primary(span, format!("its axes are {}", text.join(", "))));
        }
        Ok(total)
    }

    /// The text of a dotted, possibly computed name.
    pub(crate) fn path_text<'p>(&mut self, env: &Env, path: &'p Path) -> R<Cow<'p, str>> {
        if let Some(name) = path.as_name() {
            return Ok(Cow::Borrowed(name));
        }
        let mut out = String::new();
        for (n, segment) in path.segments.iter().enumerate() {
            if n > 0 {
                out.push('.');
            }
            for piece in &segment.pieces {
                match piece {
                    Piece::Text(text) => out.push_str(text),
                    Piece::Computed(e) => match self.statics(env, e, &[])? {
                        Static::Int(n, _) => out.push_str(&n.to_string()),
                        Static::Word(w) => out.push_str(&w),
                        other => {
                            return self.fail(
                                Diagnostic::error(
                                    "E0305",
                                    format!("a name is computed from integers and words, not from {}", other.kind()),
                                )
                                .primary(e.span, ""),
                            );
                        }
                    },
                }
            }
        }
        Ok(Cow::Owned(out))
    }

    /// The name, of a path that must be a plain one.
    pub(crate) fn plain_name<'p>(&mut self, path: &'p Path) -> R<&'p str> {
        match path.as_name() {
            Some(name) => Ok(name),
            None => {
                let text = self.text(path.span);
                self.fail(
                    Diagnostic::error("E0306", format!("`{text}` is not a compile-time value"))
                        .primary(path.span, "a plain name is expected here"),
                )
            }
        }
    }

    /// The source text of a span on one line.
    pub(crate) fn text(&self, span: Span) -> String {
        let text = self.sources.snippet(span);
        if !text.contains(char::is_whitespace) {
            return text.to_owned();
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Counts a step of elaboration, so that no text keeps the compiler busy for ever.
    pub(crate) fn step(&mut self, span: Span) -> R<()> {
        self.steps(1, span)
    }

    /// Counts several steps.
    pub(crate) fn steps(&mut self, count: usize, span: Span) -> R<()> {
        self.steps_left = self.steps_left.saturating_sub(count);
        if self.steps_left == 0 {
            if !self.gave_up {
                self.gave_up = true;
                let d = Diagnostic::error("E0309", "this unrolls into too much").primary(span, "given up here");
                self.report(d.help("loops and functions are expanded at compile time; make their counts smaller"));
            }
            return Err(Reported);
        }
        Ok(())
    }
}

pub(crate) fn bare_name(e: &Expr) -> Option<&str> {
    match &e.kind {
        ExprKind::Path(path) => path.as_name(),
        _ => None,
    }
}

fn same_kind(a: &Static, b: &Static) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn compare(op: BinaryOp, order: std::cmp::Ordering) -> bool {
    match op {
        BinaryOp::Eq => order.is_eq(),
        BinaryOp::Ne => order.is_ne(),
        BinaryOp::Lt => order.is_lt(),
        BinaryOp::Le => order.is_le(),
        BinaryOp::Gt => order.is_gt(),
        _ => order.is_ge(),
    }
}

/// How an operator is written.
pub(crate) fn symbol(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::FloorDiv => "div",
        BinaryOp::Mod => "%",
        BinaryOp::Pow => "^",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::Ge => ">=",
        BinaryOp::And => "and",
        BinaryOp::Or => "or",
    }
}

/// A function of compile-time numbers.
pub(crate) fn static_function(name: &str, args: &[Static]) -> Option<Static> {
    let x: Vec<f64> = args.iter().map(Static::as_number).collect::<Option<_>>()?;
    if let ("maximum" | "minimum", [Static::Int(a, _), Static::Int(b, _)]) = (name, args) {
        return Some(Static::int(if name == "maximum" { *a.max(b) } else { *a.min(b) }));
    }
    if let ("clamp", [Static::Int(a, _), Static::Int(lo, _), Static::Int(hi, _)]) = (name, args) {
        return Some(Static::int((*a).max(*lo).min(*hi)));
    }
    if let ("abs", [Static::Int(a, _)]) = (name, args) {
        return a.checked_abs().map(Static::int);
    }
    let out = match (name, x.as_slice()) {
        ("exp", [x]) => x.exp(),
        ("log", [x]) => x.ln(),
        ("sqrt", [x]) => x.sqrt(),
        ("rsqrt", [x]) => 1.0 / x.sqrt(),
        ("sin", [x]) => x.sin(),
        ("cos", [x]) => x.cos(),
        ("tanh", [x]) => x.tanh(),
        ("erf", [x]) => libm::erf(*x),
        ("abs", [x]) => x.abs(),
        ("floor", [x]) => x.floor(),
        ("sign", [x]) => {
            if *x == 0.0 {
                0.0
            } else {
                x.signum()
            }
        }
        ("relu", [x]) => x.max(0.0),
        ("sigmoid", [x]) => 1.0 / (1.0 + (-x).exp()),
        ("stop", [x]) => *x,
        ("maximum", [a, b]) => a.max(*b),
        ("minimum", [a, b]) => a.min(*b),
        ("pow", [a, b]) => a.powf(*b),
        ("clamp", [x, lo, hi]) => x.max(*lo).min(*hi),
        _ => return None,
    };
    Some(Static::Float(out))
}

/// The hidden name that is bound where the value of a name could not be had.
pub(crate) fn failed_name(name: &str) -> String {
    format!("{name} failed")
}
