//! Expressions, axes, paths and arguments.

use super::Printer;
use super::doc::Doc;
use crate::ast::*;
use crate::parse::expressions::strength;

impl Printer<'_> {
    /// An expression where any may stand.
    pub(super) fn expr(&mut self, expr: &Expr, out: &mut Vec<Doc>) {
        self.operand(expr, strength::IF, strength::IF, out);
    }

    /// An expression as an operand: `least` is how tightly it must bind to need no brackets, `next` how tightly the
    /// operator after it binds (a reduction takes all that binds as tightly as a product).
    fn operand(&mut self, expr: &Expr, least: u8, next: u8, out: &mut Vec<Doc>) {
        if needs_brackets(expr, least, next) {
            self.bracketed(expr, out);
        } else {
            self.bare(expr, next, out);
        }
    }

    fn bracketed(&mut self, expr: &Expr, out: &mut Vec<Doc>) {
        let mut inner = vec![Doc::SoftLine];
        self.bare(expr, strength::IF, &mut inner);
        self.comments.inside(expr.span.end, &mut inner);
        out.push(Doc::group(vec![Doc::text("("), Doc::Indent(inner), Doc::SoftLine, Doc::text(")")]));
    }

    fn bare(&mut self, expr: &Expr, next: u8, out: &mut Vec<Doc>) {
        let end = expr.span.end;
        match &expr.kind {
            ExprKind::Int(value) => out.push(Doc::text(value.to_string())),
            ExprKind::Float(value) => {
                let written = self.comments.number(expr.span).map_or_else(|| format!("{value:?}"), str::to_owned);
                out.push(Doc::text(written));
            }
            ExprKind::Bool(value) => out.push(Doc::text(value.to_string())),
            ExprKind::Str(value) => out.push(Doc::text(quoted(value))),
            ExprKind::Dims(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(i64::to_string).collect();
                out.push(Doc::text(sizes.join("x")));
            }
            ExprKind::List(parts) => self.expressions(["[", "]"], parts, end, out),
            ExprKind::Tuple(parts) => self.expressions(["(", ")"], parts, end, out),
            ExprKind::Path(path) => self.path(path, out),
            ExprKind::Call { callee, args } => {
                self.path(callee, out);
                self.args(args, end, out);
            }
            ExprKind::Read { base, indices } => {
                let postfix = matches!(
                    base.kind,
                    ExprKind::Path(_)
                        | ExprKind::Call { .. }
                        | ExprKind::Read { .. }
                        | ExprKind::Normalise { .. }
                        | ExprKind::Tuple(_)
                );
                if postfix {
                    self.bare(base, strength::IF, out)
                } else {
                    self.bracketed(base, out)
                }
                self.expressions(["[", "]"], indices, end, out);
            }
            ExprKind::Rest => out.push(Doc::text("..")),
            ExprKind::Unary { op: UnaryOp::Neg, operand } => {
                out.push(Doc::text("-"));
                self.operand(operand, strength::NEGATE, next, out);
            }
            ExprKind::Unary { op: UnaryOp::Not, operand } => {
                out.push(Doc::text("not "));
                self.operand(operand, strength::NOT, next, out);
            }
            ExprKind::Binary { op, left, right } => {
                let mut parts = Vec::new();
                let mut tail = Vec::new();
                self.chain(*op, left, right, next, &mut parts, &mut tail);
                parts.push(Doc::Indent(tail));
                out.push(Doc::group(parts));
            }
            ExprKind::If { cond, then, otherwise } => {
                let mut parts = vec![Doc::text("if ")];
                self.expr(cond, &mut parts);
                let mut tail = Vec::new();
                for (word, branch) in [("then ", then), ("else ", otherwise)] {
                    self.comments.inside(branch.span.start, &mut tail);
                    tail.extend([Doc::Line, Doc::text(word)]);
                    self.expr(branch, &mut tail);
                }
                parts.push(Doc::Indent(tail));
                out.push(Doc::group(parts));
            }
            ExprKind::Reduce { op, binders, filter, body } => {
                out.push(Doc::text(reduction(*op)));
                self.binders(binders, filter.as_deref(), body.span.start, out);
                out.push(Doc::text(" "));
                if starts_with_minus(body, strength::PRODUCT, next) {
                    self.bracketed(body, out);
                } else {
                    self.operand(body, strength::PRODUCT, next, out);
                }
            }
            ExprKind::Normalise { op, over, body } => {
                out.push(Doc::text(match op {
                    NormaliseOp::Softmax => "softmax",
                    NormaliseOp::LogSoftmax => "log_softmax",
                }));
                self.names(over, body.span.start, out);
                self.list(
                    out,
                    ["(", ")"],
                    &[body.as_ref()],
                    end,
                    |body| body.span.start,
                    |printer, body, out| {
                        printer.expr(body, out);
                    },
                );
            }
        }
    }

    /// Operators of one strength that follow one another break together: the first operand goes to `first`, the rest
    /// with their operators to `tail`.
    fn chain(&mut self, op: BinaryOp, left: &Expr, right: &Expr, next: u8, first: &mut Vec<Doc>, tail: &mut Vec<Doc>) {
        let own = strength::of(op);
        let (left_least, right_least) = operand_strengths(op);
        match &left.kind {
            ExprKind::Binary { op: inner, left, right } if strength::of(*inner) == own && left_least == own => {
                self.chain(*inner, left, right, own, first, tail);
            }
            _ => self.operand(left, left_least, own, first),
        }
        self.comments.inside(right.span.start, tail);
        tail.extend([Doc::Line, Doc::text(format!("{} ", sign(op)))]);
        let reduction = matches!(right.kind, ExprKind::Reduce { .. }) && op == BinaryOp::Pow;
        if reduction { self.bracketed(right, tail) } else { self.operand(right, right_least, next, tail) }
    }

    fn expressions(&mut self, brackets: [&str; 2], parts: &[Expr], close: u32, out: &mut Vec<Doc>) {
        self.list(out, brackets, parts, close, |part| part.span.start, |printer, part, out| printer.expr(part, out));
    }

    /// Arguments in brackets; `close` is where they end.
    pub(super) fn args(&mut self, args: &[Arg], close: u32, out: &mut Vec<Doc>) {
        let start = |arg: &Arg| arg.name.as_ref().map_or(arg.value.span, |name| name.span).start;
        self.list(out, ["(", ")"], args, close, start, |printer, arg, out| {
            if let Some(name) = &arg.name {
                out.push(Doc::text(format!("{}: ", name.text)));
            }
            printer.expr(&arg.value, out);
        });
    }

    /// The group of a reduction; `close` is a place behind it, before anything that follows.
    fn binders(&mut self, binders: &[Binder], filter: Option<&Expr>, close: u32, out: &mut Vec<Doc>) {
        let Some(filter) = filter else {
            self.list(out, ["(", ")"], binders, close, |binder| binder.name.span.start, Self::binder);
            return;
        };
        let mut inner = Vec::new();
        for (position, binder) in binders.iter().enumerate() {
            if position > 0 {
                inner.push(Doc::text(","));
            }
            self.comments.inside(binder.name.span.start, &mut inner);
            inner.push(if position > 0 { Doc::Line } else { Doc::SoftLine });
            self.binder(binder, &mut inner);
        }
        self.comments.inside(filter.span.start, &mut inner);
        inner.extend([Doc::Line, Doc::text("where ")]);
        self.expr(filter, &mut inner);
        self.comments.inside(close, &mut inner);
        out.push(Doc::group(vec![Doc::text("("), Doc::Indent(inner), Doc::SoftLine, Doc::text(")")]));
    }

    /// `i`, `i: Axis` or `j in DOMAIN`.
    pub(super) fn binder(&mut self, binder: &Binder, out: &mut Vec<Doc>) {
        out.push(Doc::text(binder.name.text.clone()));
        if let Some(axis) = &binder.axis {
            out.push(Doc::text(": "));
            self.axis(axis, out);
        }
        if let Some(domain) = &binder.domain {
            out.push(Doc::text(" in "));
            self.expr(domain, out);
        }
    }

    /// An axis; a merged one is a tuple.
    pub(super) fn axis(&mut self, axis: &AxisRef, out: &mut Vec<Doc>) {
        match axis {
            AxisRef::Expr(expr) => self.expr(expr, out),
            AxisRef::Merged(parts, span) => {
                self.list(out, ["(", ")"], parts, span.end, |part| part.span().start, Self::axis);
            }
            AxisRef::Rest(_) => out.push(Doc::text("..")),
        }
    }

    /// Axes in square brackets; `close` is where they end.
    pub(super) fn dims(&mut self, dims: &[AxisRef], close: u32, out: &mut Vec<Doc>) {
        self.list(out, ["[", "]"], dims, close, |axis| axis.span().start, Self::axis);
    }

    /// Names in round brackets; `close` is where they end.
    pub(super) fn names(&mut self, names: &[Name], close: u32, out: &mut Vec<Doc>) {
        self.list(
            out,
            ["(", ")"],
            names,
            close,
            |name| name.span.start,
            |_, name, out| {
                out.push(Doc::text(name.text.clone()));
            },
        );
    }

    pub(super) fn path(&mut self, path: &Path, out: &mut Vec<Doc>) {
        for (position, segment) in path.segments.iter().enumerate() {
            if position > 0 {
                out.push(Doc::text("."));
            }
            for piece in &segment.pieces {
                match piece {
                    Piece::Text(text) => out.push(Doc::text(text.clone())),
                    Piece::Computed(expr) => {
                        out.push(Doc::text("{"));
                        self.operand(expr, strength::IF + 1, strength::IF, out);
                        out.push(Doc::text("}"));
                    }
                }
            }
        }
    }
}

/// How tightly the left and the right operand must bind to need no brackets.
fn operand_strengths(op: BinaryOp) -> (u8, u8) {
    let own = strength::of(op);
    match op {
        BinaryOp::Pow => (strength::ATOM, strength::NEGATE),
        _ if own == strength::COMPARE => (own + 1, own + 1),
        _ => (own, own + 1),
    }
}

/// See [`Printer::operand`].
fn needs_brackets(expr: &Expr, least: u8, next: u8) -> bool {
    match &expr.kind {
        ExprKind::If { .. } => least > strength::IF,
        ExprKind::Unary { op: UnaryOp::Not, .. } => least > strength::NOT,
        ExprKind::Unary { op: UnaryOp::Neg, .. } => least > strength::NEGATE,
        ExprKind::Binary { op, .. } => least > strength::of(*op),
        ExprKind::Reduce { .. } => least > strength::NEGATE || next >= strength::PRODUCT,
        _ => false,
    }
}

/// Whether the text of an operand begins with a minus sign.
fn starts_with_minus(expr: &Expr, least: u8, next: u8) -> bool {
    if needs_brackets(expr, least, next) {
        return false;
    }
    match &expr.kind {
        ExprKind::Unary { op, .. } => *op == UnaryOp::Neg,
        ExprKind::Binary { op, left, .. } => starts_with_minus(left, operand_strengths(*op).0, strength::of(*op)),
        ExprKind::Int(value) => *value < 0,
        ExprKind::Float(value) => value.is_sign_negative(),
        _ => false,
    }
}

/// A string literal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' => out.extend(['\\', character]),
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

fn sign(op: BinaryOp) -> &'static str {
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

fn reduction(op: ReduceOp) -> &'static str {
    match op {
        ReduceOp::Sum => "sum",
        ReduceOp::Mean => "mean",
        ReduceOp::Prod => "prod",
        ReduceOp::Max => "max",
        ReduceOp::Min => "min",
        ReduceOp::Any => "any",
        ReduceOp::All => "all",
        ReduceOp::Logsumexp => "logsumexp",
        ReduceOp::Argmax => "argmax",
        ReduceOp::Argmin => "argmin",
    }
}
