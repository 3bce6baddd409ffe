//! `forward` and its statements, shapes and left sides.

use pest::iterators::Pair;

use super::cursor::Cursor;
use super::items::Builder;
use super::{MAX_NESTING, Rule};
use crate::ast::*;
use crate::diagnostic::Diagnostic;

impl Builder<'_> {
    pub(super) fn forward(&mut self, mut parts: Cursor<'_>, at: Span) -> Forward {
        let mut inputs = Vec::new();
        let mut list = self.cursor(parts.take(Rule::inputs));
        while let Some(pair) = list.maybe(Rule::input) {
            inputs.push(self.input(pair));
        }
        let mut results = Vec::new();
        let mut list = self.cursor(parts.take(Rule::results));
        while let Some(pair) = list.maybe(Rule::result) {
            let span = self.span(&pair);
            let mut parts = self.cursor(pair);
            let name = if parts.peek() == Some(Rule::name) { Some(parts.name()) } else { None };
            results.push(ResultDecl { name, dims: self.dims(parts.take(Rule::dims)), span });
        }
        let body = self.block(parts.take(Rule::block));
        Forward { inputs, results, body, span: at }
    }

    fn input(&mut self, pair: Pair<'_, Rule>) -> Input {
        let mut parts = self.cursor(pair);
        let name = parts.name();
        let shape = parts.maybe(Rule::dims);
        let label_of = parts.next().map(|pair| self.axis_ref(pair));
        if shape.is_none() && label_of.is_none() {
            self.diagnostics.push(
                Diagnostic::error("E0016", format!("the input `{}` has no shape", name.text))
                    .primary(name.span, "expected `[` and its axes after this")
                    .help(format!("write `{0}[Grid, C]` with its axes, or `{0}[]` for a scalar", name.text)),
            );
        }
        Input { name, dims: shape.map_or(Vec::new(), |pair| self.dims(pair)), label_of }
    }

    /// A shape: axes in brackets.
    pub(super) fn dims(&mut self, pair: Pair<'_, Rule>) -> Vec<AxisRef> {
        let mut dims = Vec::new();
        let mut parts = self.cursor(pair);
        while let Some(pair) = parts.next() {
            dims.push(match pair.as_rule() {
                Rule::rest => AxisRef::Rest(self.span(&pair)),
                _ => self.axis_ref(pair),
            });
        }
        dims
    }

    /// An axis is written as an expression; a tuple of axes is a merged one.
    pub(super) fn axis_ref(&mut self, pair: Pair<'_, Rule>) -> AxisRef {
        merge_tuples(self.expr(pair))
    }

    fn block(&mut self, pair: Pair<'_, Rule>) -> Vec<Stmt> {
        let mut statements = Vec::new();
        let mut parts = self.cursor(pair);
        while let Some(pair) = parts.next() {
            statements.push(self.statement(pair));
        }
        statements
    }

    fn statement(&mut self, pair: Pair<'_, Rule>) -> Stmt {
        let span = self.span(&pair);
        let rule = pair.as_rule();
        let mut parts = self.cursor(pair);
        match rule {
            Rule::let_value => {
                let name = parts.name();
                Stmt::Let { name, value: self.expr(parts.any()), span }
            }
            Rule::if_stmt => self.if_stmt(parts, span),
            Rule::for_stmt => {
                let var = parts.name();
                parts.take(Rule::kw_in);
                let (lo, hi) = (self.expr(parts.any()), self.expr(parts.any()));
                Stmt::For { var, lo, hi, body: self.block(parts.take(Rule::block)), span }
            }
            Rule::return_stmt => {
                let mut values = Vec::new();
                while let Some(pair) = parts.next() {
                    values.push(self.expr(pair));
                }
                Stmt::Return { values, span }
            }
            Rule::expose => self.expose(parts, span),
            Rule::update => {
                let target = self.target(parts.take(Rule::target));
                Stmt::Update { target, value: self.expr(parts.any()), span }
            }
            Rule::tuple_def => {
                let mut targets = Vec::new();
                while let Some(pair) = parts.maybe(Rule::target) {
                    targets.push(self.target(pair));
                }
                Stmt::DefineTuple { targets, value: self.expr(parts.any()), span }
            }
            _ => {
                let target = self.target(parts.take(Rule::target));
                Stmt::Define { target, value: self.expr(parts.any()), expose: false, span }
            }
        }
    }

    fn expose(&mut self, mut parts: Cursor<'_>, span: Span) -> Stmt {
        let target = self.target(parts.take(Rule::target));
        match parts.next() {
            Some(value) => Stmt::Define { target, value: self.expr(value), expose: true, span },
            None => {
                if target.indices.is_some() {
                    self.diagnostics.push(
                        Diagnostic::error("E0001", format!("`expose {}[...]` has no `=`", target.name.text))
                            .primary(target.span, "expected a name alone, or a definition")
                            .help(format!(
                                "write `expose {0}` for a name that is defined elsewhere, or `expose {0}[...] = ...`",
                                target.name.text
                            )),
                    );
                }
                Stmt::Expose { name: target.name, span }
            }
        }
    }

    fn if_stmt(&mut self, mut parts: Cursor<'_>, at: Span) -> Stmt {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        while let Some(pair) = parts.next() {
            match pair.as_rule() {
                Rule::kw_else => {}
                Rule::block => otherwise = self.block(pair),
                _ => {
                    let start = self.span(&pair);
                    let cond = self.expr(pair);
                    arms.push((cond, self.block(parts.take(Rule::block)), start));
                }
            }
        }
        self.limit_chain(&mut arms, at);
        let mut result = None;
        for (cond, then, start) in arms.into_iter().rev() {
            if let Some(next) = result.take() {
                otherwise = vec![next];
            }
            let otherwise = std::mem::take(&mut otherwise);
            result = Some(Stmt::If { cond, then, otherwise, span: Span { start: start.start, ..at } });
        }
        let mut result = result.expect("an `if` has a condition");
        if let Stmt::If { span, .. } = &mut result {
            *span = at;
        }
        result
    }

    /// Cuts an `else if` chain that would make too deep a tree, and says so.
    pub(super) fn limit_chain<T>(&mut self, arms: &mut Vec<T>, at: Span) {
        if arms.len() > MAX_NESTING {
            let message = format!("this `if` has {} conditions; at most {MAX_NESTING} are read", arms.len());
            self.diagnostics
                .push(Diagnostic::error("E0006", message).primary(at, "").help("split it into several `if`s"));
            arms.truncate(MAX_NESTING);
        }
    }

    fn target(&mut self, pair: Pair<'_, Rule>) -> Target {
        let span = self.span(&pair);
        let mut parts = self.cursor(pair);
        let name = parts.name();
        let indices = parts.maybe(Rule::target_indices).map(|pair| self.target_indices(pair));
        Target { name, indices, span }
    }

    fn target_indices(&mut self, pair: Pair<'_, Rule>) -> Vec<TargetIndex> {
        let mut indices = Vec::new();
        let mut parts = self.cursor(pair);
        while let Some(pair) = parts.next() {
            let span = self.span(&pair);
            indices.push(match pair.as_rule() {
                Rule::rest => TargetIndex::Rest(span),
                Rule::merged_target => TargetIndex::Merged(self.target_indices(pair), span),
                _ => TargetIndex::Binder(self.binder(pair).0),
            });
        }
        indices
    }

    /// A binder, and how deep the expressions in it are.
    pub(super) fn binder(&mut self, pair: Pair<'_, Rule>) -> (Binder, usize) {
        let mut parts = self.cursor(pair);
        let name = parts.name();
        let (mut axis, mut domain, mut depth) = (None, None, 0);
        if parts.peek() == Some(Rule::expr) {
            let (expr, axis_depth) = self.expr_depth(parts.any());
            axis = Some(merge_tuples(expr));
            depth = axis_depth;
        }
        if parts.maybe(Rule::kw_in).is_some() {
            let (expr, domain_depth) = self.expr_depth(parts.any());
            domain = Some(expr);
            depth = depth.max(domain_depth);
        }
        (Binder { name, axis, domain }, depth)
    }
}

fn merge_tuples(expr: Expr) -> AxisRef {
    match expr.kind {
        ExprKind::Tuple(parts) => AxisRef::Merged(parts.into_iter().map(merge_tuples).collect(), expr.span),
        kind => AxisRef::Expr(Expr { kind, span: expr.span }),
    }
}
