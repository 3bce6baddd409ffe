//! `forward` and its statements.

use super::Printer;
use super::doc::Doc;
use crate::ast::*;

impl Printer<'_> {
    pub(super) fn forward(&mut self, forward: &Forward, out: &mut Vec<Doc>) {
        out.push(Doc::text("forward"));
        let close = self.comments.close_after(forward.span.start);
        self.list(out, ["(", ")"], &forward.inputs, close, |input| input.name.span.start, Self::input);
        out.push(Doc::text(" -> "));
        match forward.results.as_slice() {
            [result] => self.result(result, out),
            results => {
                let close = results.last().map_or(0, |last| self.comments.close_after(last.span.end));
                self.list(out, ["(", ")"], results, close, |result| result.span.start, Self::result);
            }
        }
        self.statements(&forward.body, forward.span.end.saturating_sub(1), out);
    }

    fn input(&mut self, input: &Input, out: &mut Vec<Doc>) {
        out.push(Doc::text(input.name.text.clone()));
        if !input.dims.is_empty() || input.label_of.is_none() {
            let close = self.comments.close_after(input.name.span.end);
            self.dims(&input.dims, close, out);
        }
        if let Some(axis) = &input.label_of {
            out.push(Doc::text(": label["));
            self.axis(axis, out);
            out.push(Doc::text("]"));
        }
    }

    fn result(&mut self, result: &ResultDecl, out: &mut Vec<Doc>) {
        if let Some(name) = &result.name {
            out.push(Doc::text(name.text.clone()));
        }
        self.dims(&result.dims, result.span.end, out);
    }

    /// A block of statements; `close` is the place of its closing brace.
    fn statements(&mut self, body: &[Stmt], close: u32, out: &mut Vec<Doc>) {
        self.block(out, body, close, |statement| (statement.span().start, statement.span().end), Self::statement);
    }

    fn statement(&mut self, statement: &Stmt, out: &mut Vec<Doc>) {
        match statement {
            Stmt::Define { target, value, expose, .. } => {
                if *expose {
                    out.push(Doc::text("expose "));
                }
                self.target(target, out);
                self.value(value, out);
            }
            Stmt::DefineTuple { targets, value, .. } => {
                let close = targets.last().map_or(0, |last| self.comments.close_after(last.span.end));
                self.list(out, ["(", ")"], targets, close, |target| target.span.start, Self::target);
                self.value(value, out);
            }
            Stmt::Update { target, value, .. } => {
                out.push(Doc::text("update "));
                self.target(target, out);
                self.value(value, out);
            }
            Stmt::Expose { name, .. } => out.push(Doc::text(format!("expose {}", name.text))),
            Stmt::Let { name, value, .. } => {
                out.push(Doc::text(format!("let {}", name.text)));
                self.value(value, out);
            }
            Stmt::If { cond, then, otherwise, span } => {
                out.push(Doc::text("if "));
                self.expr(cond, out);
                let close = self.comments.close_after(cond.span.end);
                self.statements(then, close, out);
                match otherwise.as_slice() {
                    [] => {}
                    [next @ Stmt::If { .. }] => {
                        out.push(Doc::text(" else "));
                        self.statement(next, out);
                    }
                    otherwise => {
                        out.push(Doc::text(" else"));
                        self.statements(otherwise, span.end.saturating_sub(1), out);
                    }
                }
            }
            Stmt::For { var, lo, hi, body, span } => {
                self.loop_head(var, lo, hi, out);
                self.statements(body, span.end.saturating_sub(1), out);
            }
            Stmt::Return { values, .. } => {
                let mut parts = vec![Doc::text("return ")];
                for (position, value) in values.iter().enumerate() {
                    if position > 0 {
                        parts.push(Doc::text(","));
                        self.comments.inside(value.span.start, &mut parts);
                        parts.push(Doc::Line);
                    }
                    self.expr(value, &mut parts);
                }
                out.push(Doc::group(vec![Doc::Indent(parts)]));
            }
        }
    }

    /// ` = value` at the end of a statement or member.
    pub(super) fn value(&mut self, value: &Expr, out: &mut Vec<Doc>) {
        out.push(Doc::text(" = "));
        self.expr(value, out);
    }

    /// `for m in lo..hi`.
    pub(super) fn loop_head(&mut self, var: &Name, lo: &Expr, hi: &Expr, out: &mut Vec<Doc>) {
        out.push(Doc::text(format!("for {} in ", var.text)));
        self.expr(lo, out);
        out.push(Doc::text(".."));
        self.expr(hi, out);
    }

    fn target(&mut self, target: &Target, out: &mut Vec<Doc>) {
        out.push(Doc::text(target.name.text.clone()));
        if let Some(indices) = &target.indices {
            self.list(out, ["[", "]"], indices, target.span.end, index_start, Self::target_index);
        }
    }

    fn target_index(&mut self, index: &TargetIndex, out: &mut Vec<Doc>) {
        match index {
            TargetIndex::Binder(binder) => self.binder(binder, out),
            TargetIndex::Merged(parts, span) => {
                self.list(out, ["(", ")"], parts, span.end, index_start, Self::target_index);
            }
            TargetIndex::Rest(_) => out.push(Doc::text("..")),
        }
    }
}

fn index_start(index: &TargetIndex) -> u32 {
    match index {
        TargetIndex::Binder(binder) => binder.name.span.start,
        TargetIndex::Merged(_, span) | TargetIndex::Rest(span) => span.start,
    }
}
