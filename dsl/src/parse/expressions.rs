//! Expressions: the grammar gives flat sequences; here they become trees by binding strength.

use pest::iterators::Pair;

use super::cursor::Cursor;
use super::items::Builder;
use super::{MAX_DEPTH, MAX_NESTING, Rule};
use crate::ast::*;
use crate::diagnostic::Diagnostic;

/// Binding strengths, loose to tight; what `x if c` and reductions take is everything at least this tight.
pub(crate) mod strength {
    use crate::ast::BinaryOp;

    /// `if c then a else b`.
    pub(crate) const IF: u8 = 0;
    /// `not`.
    pub(crate) const NOT: u8 = 3;
    /// Comparisons.
    pub(crate) const COMPARE: u8 = 4;
    /// Sums, and what a reduction is seen as from outside.
    pub(crate) const SUM: u8 = 5;
    /// Products, and what a reduction takes.
    pub(crate) const PRODUCT: u8 = 6;
    /// Unary minus.
    pub(crate) const NEGATE: u8 = 7;
    /// Powers.
    pub(crate) const POWER: u8 = 8;
    /// Names, numbers, reads, calls, brackets.
    pub(crate) const ATOM: u8 = 9;

    /// The strength of an infix operator.
    pub(crate) fn of(op: BinaryOp) -> u8 {
        match op {
            BinaryOp::Or => 1,
            BinaryOp::And => 2,
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => COMPARE,
            BinaryOp::Add | BinaryOp::Sub => SUM,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Mod => PRODUCT,
            BinaryOp::Pow => POWER,
        }
    }
}

/// An expression with the depth of its tree.
type Deep = (Expr, usize);

impl Builder<'_> {
    pub(super) fn expr(&mut self, pair: Pair<'_, Rule>) -> Expr {
        self.expr_depth(pair).0
    }

    /// An `expr` or `static_expr`, with the depth of its tree.
    pub(super) fn expr_depth(&mut self, pair: Pair<'_, Rule>) -> Deep {
        let mut parts = self.cursor(pair);
        match parts.maybe(Rule::if_expr) {
            Some(pair) => {
                let span = self.span(&pair);
                let mut parts = self.cursor(pair);
                let (cond, d0) = self.expr_depth(parts.any());
                let (then, d1) = self.expr_depth(parts.any());
                parts.take(Rule::kw_else);
                let (otherwise, d2) = self.expr_depth(parts.any());
                let (cond, then, otherwise) = (Box::new(cond), Box::new(then), Box::new(otherwise));
                self.deep(ExprKind::If { cond, then, otherwise }, span, d0.max(d1).max(d2))
            }
            None => self.climb(&mut parts, 0),
        }
    }

    /// One more level over parts of this depth; too deep a tree is reported once and cut.
    fn deep(&mut self, kind: ExprKind, span: Span, parts_depth: usize) -> Deep {
        if parts_depth < MAX_DEPTH {
            return (Expr { kind, span }, parts_depth + 1);
        }
        let end = Span { start: span.end.saturating_sub(1).max(span.start), ..span };
        self.too_deep(end, format!("this expression nests more than {MAX_DEPTH} operations"));
        (Expr { kind: ExprKind::Int(0), span }, 1)
    }

    /// Reports, once for an item, that an expression is too deep.
    fn too_deep(&mut self, at: Span, message: String) {
        if !std::mem::replace(&mut self.found_too_deep, true) {
            self.diagnostics.push(
                Diagnostic::error("E0006", message)
                    .primary(at, "one too many")
                    .help("define a part of it under a name of its own"),
            );
        }
    }

    /// Everything from here that binds at least as tightly as `least`.
    fn climb(&mut self, parts: &mut Cursor<'_>, least: u8) -> Deep {
        let mut left = self.prefixed(parts, least);
        let mut compared = false;
        while parts.peek() == Some(Rule::infix) {
            let op = binary_op(parts.peek_str());
            let tightness = strength::of(op);
            if tightness < least {
                break;
            }
            let sign = parts.any();
            if tightness == strength::COMPARE && std::mem::replace(&mut compared, true) {
                self.diagnostics.push(
                    Diagnostic::error("E0015", "comparisons do not chain")
                        .primary(self.span(&sign), "second comparison")
                        .help("join two comparisons with `and`: `a < b and b < c`"),
                );
            }
            // Powers associate to the right and take a minus sign; everything else associates to the left.
            let right = match op {
                BinaryOp::Pow if self.open_prefixes < MAX_NESTING => {
                    self.open_prefixes += 1;
                    let right = self.climb(parts, strength::NEGATE);
                    self.open_prefixes -= 1;
                    right
                }
                BinaryOp::Pow => {
                    self.too_deep(self.span(&sign), format!("more than {MAX_NESTING} powers in one another"));
                    self.climb(parts, strength::ATOM)
                }
                _ => self.climb(parts, tightness + 1),
            };
            let span = left.0.span.to(right.0.span);
            let depth = left.1.max(right.1);
            let kind = ExprKind::Binary { op, left: Box::new(left.0), right: Box::new(right.0) };
            left = self.deep(kind, span, depth);
        }
        left
    }

    /// An operand with its prefixes.
    fn prefixed(&mut self, parts: &mut Cursor<'_>, least: u8) -> Deep {
        let Some(rule @ (Rule::neg | Rule::kw_not | Rule::reduce_head)) = parts.peek() else {
            return self.operand(parts);
        };
        let prefix = parts.any();
        let start = self.span(&prefix);
        if self.open_prefixes == MAX_NESTING {
            self.too_deep(start, format!("more than {MAX_NESTING} prefixes and reductions in one another"));
            while matches!(parts.peek(), Some(Rule::neg | Rule::kw_not | Rule::reduce_head)) {
                parts.any();
            }
            return self.operand(parts);
        }
        self.open_prefixes += 1;
        let value = match rule {
            Rule::neg => {
                let (operand, depth) = self.climb(parts, strength::NEGATE);
                let span = start.to(operand.span);
                self.deep(ExprKind::Unary { op: UnaryOp::Neg, operand: Box::new(operand) }, span, depth)
            }
            Rule::kw_not => {
                if least > strength::NOT {
                    self.diagnostics.push(
                        Diagnostic::error("E0015", "`not` binds more loosely than the operator before it")
                            .primary(start, "needs brackets here")
                            .help("write `(not ...)`"),
                    );
                }
                let (operand, depth) = self.climb(parts, strength::NOT);
                let span = start.to(operand.span);
                self.deep(ExprKind::Unary { op: UnaryOp::Not, operand: Box::new(operand) }, span, depth)
            }
            _ => self.reduction(prefix, parts),
        };
        self.open_prefixes -= 1;
        value
    }

    fn reduction(&mut self, head: Pair<'_, Rule>, parts: &mut Cursor<'_>) -> Deep {
        let start = self.span(&head);
        let written = head.as_str().to_owned();
        let mut head = self.cursor(head);
        let op = reduce_op(head.take(Rule::reduce_op).as_str());
        let mut group = self.cursor(head.take(Rule::binder_group));
        let (mut binders, mut depth) = (Vec::new(), 0);
        while let Some(pair) = group.maybe(Rule::binder) {
            let (binder, binder_depth) = self.binder(pair);
            binders.push(binder);
            depth = depth.max(binder_depth);
        }
        let filter = group.maybe(Rule::kw_where).is_some().then(|| {
            let (filter, filter_depth) = self.expr_depth(group.any());
            depth = depth.max(filter_depth);
            Box::new(filter)
        });
        if parts.peek() == Some(Rule::neg) {
            let minus = self.span(&parts.any());
            self.diagnostics.push(
                Diagnostic::error("E0009", "a reduction's body does not start with a minus sign")
                    .primary(minus, "")
                    .secondary(start, "the reduction")
                    .help(format!("write `-{written} ...`, or put the body in brackets: `{written} (-...)`")),
            );
        }
        let (body, body_depth) = self.climb(parts, strength::PRODUCT);
        let span = start.to(body.span);
        let kind = ExprKind::Reduce { op, binders, filter, body: Box::new(body) };
        self.deep(kind, span, depth.max(body_depth))
    }

    /// An operand with the reads that follow it.
    fn operand(&mut self, parts: &mut Cursor<'_>) -> Deep {
        let pair = parts.any();
        let mut base = self.atom(pair);
        while let Some(group) = parts.maybe(Rule::indices) {
            let span = base.0.span.to(self.span(&group));
            let (mut indices, mut depth) = (Vec::new(), base.1);
            let mut group = self.cursor(group);
            while let Some(pair) = group.next() {
                if pair.as_rule() == Rule::rest {
                    indices.push(Expr { kind: ExprKind::Rest, span: self.span(&pair) });
                } else {
                    let (index, index_depth) = self.expr_depth(pair);
                    indices.push(index);
                    depth = depth.max(index_depth);
                }
            }
            base = self.deep(ExprKind::Read { base: Box::new(base.0), indices }, span, depth);
        }
        base
    }

    fn atom(&mut self, pair: Pair<'_, Rule>) -> Deep {
        let span = self.span(&pair);
        let text = pair.as_str();
        let kind = match pair.as_rule() {
            Rule::int => ExprKind::Int(self.integer(text, span)),
            Rule::float => ExprKind::Float(self.float(text, span)),
            Rule::sizes => ExprKind::Dims(text.split('x').map(|part| self.integer(part, span)).collect()),
            Rule::boolean => ExprKind::Bool(text == "true"),
            Rule::string => ExprKind::Str(self.string(&pair)),
            Rule::list => {
                let (parts, depth) = self.expressions(pair);
                return self.deep(ExprKind::List(parts), span, depth);
            }
            Rule::paren => {
                let (mut parts, depth) = self.expressions(pair);
                if parts.len() == 1 {
                    // The brackets are part of the place, so that a message about the expression shows all of it.
                    let expr = parts.remove(0);
                    return (Expr { kind: expr.kind, span }, depth);
                }
                return self.deep(ExprKind::Tuple(parts), span, depth);
            }
            Rule::normalise => {
                let mut parts = self.cursor(pair);
                let mut head = self.cursor(parts.take(Rule::normalise_head));
                let op = match head.take(Rule::normalise_op).as_str() {
                    "softmax" => NormaliseOp::Softmax,
                    _ => NormaliseOp::LogSoftmax,
                };
                let over = self.cursor(head.take(Rule::name_group)).names();
                let (body, depth) = self.expr_depth(parts.any());
                return self.deep(ExprKind::Normalise { op, over, body: Box::new(body) }, span, depth);
            }
            _ => {
                let mut parts = self.cursor(pair);
                let (path, path_depth) = self.path(parts.take(Rule::path));
                let Some(args) = parts.maybe(Rule::args) else {
                    return self.deep(ExprKind::Path(path), span, path_depth);
                };
                let (args, depth) = self.args(args);
                return self.deep(ExprKind::Call { callee: path, args }, span, depth.max(path_depth));
            }
        };
        (Expr { kind, span }, 1)
    }

    fn expressions(&mut self, pair: Pair<'_, Rule>) -> (Vec<Expr>, usize) {
        let (mut all, mut depth) = (Vec::new(), 0);
        let mut parts = self.cursor(pair);
        while let Some(pair) = parts.next() {
            let (expr, expr_depth) = self.expr_depth(pair);
            all.push(expr);
            depth = depth.max(expr_depth);
        }
        (all, depth)
    }

    /// The arguments of a call or constructor, and the depth of the deepest.
    pub(super) fn args(&mut self, pair: Pair<'_, Rule>) -> (Vec<Arg>, usize) {
        let (mut args, mut depth) = (Vec::new(), 0);
        let mut list = self.cursor(pair);
        while let Some(pair) = list.maybe(Rule::arg) {
            let mut parts = self.cursor(pair);
            let name = if parts.peek() == Some(Rule::name) { Some(parts.name()) } else { None };
            let (value, value_depth) = self.expr_depth(parts.any());
            args.push(Arg { name, value });
            depth = depth.max(value_depth);
        }
        (args, depth)
    }

    /// A path, and the depth of the deepest computed piece.
    pub(super) fn path(&mut self, pair: Pair<'_, Rule>) -> (Path, usize) {
        let span = self.span(&pair);
        let (mut segments, mut depth) = (Vec::new(), 0);
        let mut parts = self.cursor(pair);
        while let Some(pair) = parts.next() {
            let span = self.span(&pair);
            let mut pieces = Vec::new();
            let mut parts = self.cursor(pair);
            while let Some(pair) = parts.next() {
                if pair.as_rule() == Rule::computed {
                    let inner = self.cursor(pair).take(Rule::static_expr);
                    let (expr, expr_depth) = self.expr_depth(inner);
                    pieces.push(Piece::Computed(expr));
                    depth = depth.max(expr_depth);
                } else {
                    pieces.push(Piece::Text(pair.as_str().to_owned()));
                }
            }
            segments.push(Segment { pieces, span });
        }
        (Path { segments, span }, depth)
    }

    fn integer(&mut self, text: &str, span: Span) -> i64 {
        text.parse().unwrap_or_else(|_| {
            self.diagnostics.push(
                Diagnostic::error("E0007", format!("the number {text} is too large"))
                    .primary(span, format!("integers go up to {}", i64::MAX))
                    .help("write it as a floating-point number, such as 1e20"),
            );
            0
        })
    }

    fn float(&mut self, text: &str, span: Span) -> f64 {
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => value,
            _ => {
                self.diagnostics.push(
                    Diagnostic::error("E0007", format!("the number {text} is too large"))
                        .primary(span, "larger than any double-precision number")
                        .help("write `inf` for infinity"),
                );
                0.0
            }
        }
    }

    /// The value of a string literal.
    pub(super) fn string(&mut self, pair: &Pair<'_, Rule>) -> String {
        let text = pair.as_str();
        let mut value = String::with_capacity(text.len());
        let mut characters = text[1..text.len() - 1].char_indices();
        while let Some((at, character)) = characters.next() {
            if character != '\\' {
                value.push(character);
                continue;
            }
            match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(escaped @ ('"' | '\\')) => value.push(escaped),
                escaped => {
                    let start = self.span(pair).start + 1 + at as u32;
                    let length = 1 + escaped.map_or(0, char::len_utf8) as u32;
                    self.diagnostics.push(
                        Diagnostic::error("E0008", "this escape is not known")
                            .primary(Span { file: self.file_id, start, end: start + length }, "")
                            .help("known are \\n, \\t, \\\" and \\\\; write a backslash as \\\\"),
                    );
                }
            }
        }
        value
    }
}

fn binary_op(text: &str) -> BinaryOp {
    match text {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" => BinaryOp::Mul,
        "/" => BinaryOp::Div,
        "div" => BinaryOp::FloorDiv,
        "%" => BinaryOp::Mod,
        "^" => BinaryOp::Pow,
        "==" => BinaryOp::Eq,
        "!=" => BinaryOp::Ne,
        "<" => BinaryOp::Lt,
        "<=" => BinaryOp::Le,
        ">" => BinaryOp::Gt,
        ">=" => BinaryOp::Ge,
        "and" => BinaryOp::And,
        _ => BinaryOp::Or,
    }
}

fn reduce_op(text: &str) -> ReduceOp {
    match text {
        "sum" => ReduceOp::Sum,
        "mean" => ReduceOp::Mean,
        "prod" => ReduceOp::Prod,
        "max" => ReduceOp::Max,
        "min" => ReduceOp::Min,
        "any" => ReduceOp::Any,
        "all" => ReduceOp::All,
        "logsumexp" => ReduceOp::Logsumexp,
        "argmax" => ReduceOp::Argmax,
        _ => ReduceOp::Argmin,
    }
}
