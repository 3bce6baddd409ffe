//! Files, imports, items and members.

use super::doc::Doc;
use super::expressions::quoted;
use super::{Blank, Printer};
use crate::ast::*;

impl Printer<'_> {
    pub(super) fn file(&mut self, file: &File) -> Vec<Doc> {
        let mut out = Vec::new();
        let (start, end) = self.comments.version_line();
        self.comments.above(start, Blank::Never, &mut out);
        out.extend([Doc::HardLine, Doc::text(format!("foveate {}", file.version))]);
        let first_item = file.items.first().map_or(u32::MAX, |item| item.span().start);
        let first = file.imports.first().map_or(first_item, |import| import.span.start);
        self.comments.behind(end, first, &mut out);

        let blank = |position| if position == 0 { Blank::Force } else { Blank::Keep };
        let place = |import: &Import| (import.span.start, import.span.end);
        self.lines(&mut out, &file.imports, first_item, place, blank, Self::import);

        let items = &file.items;
        let blank = |position: usize| match position.checked_sub(1).map(|before| (&items[before], &items[position])) {
            Some((Item::Function(_), Item::Function(_))) => Blank::Keep,
            _ => Blank::Force,
        };
        let place = |item: &Item| (item.span().start, item.span().end);
        self.lines(&mut out, items, u32::MAX, place, blank, Self::item);
        self.comments.above(u32::MAX, Blank::Keep, &mut out);
        out
    }

    fn import(&mut self, import: &Import, out: &mut Vec<Doc>) {
        let mut parts = vec![Doc::text("import ")];
        for (position, name) in import.names.iter().enumerate() {
            if position > 0 {
                parts.push(Doc::text(","));
                self.comments.inside(name.span.start, &mut parts);
                parts.push(Doc::Line);
            }
            parts.push(Doc::text(name.text.clone()));
        }
        parts.push(Doc::text(match &import.source {
            ImportSource::Prelude => " from prelude".to_owned(),
            ImportSource::Path(path) => format!(" from {}", quoted(path)),
        }));
        out.push(Doc::group(vec![Doc::Indent(parts)]));
    }

    fn item(&mut self, item: &Item, out: &mut Vec<Doc>) {
        match item {
            Item::Module(module) => {
                self.doc(&module.doc, out);
                self.module(module, out);
            }
            Item::Function(function) => {
                self.doc(&function.doc, out);
                out.push(Doc::text(format!("fn {}", function.name.text)));
                let close = self.comments.close_after(function.name.span.end);
                self.names(&function.args, close, out);
                self.value(&function.body, out);
            }
            Item::Recipe(recipe) => {
                self.doc(&recipe.doc, out);
                out.push(Doc::text(format!("recipe {}", recipe.name.text)));
                // The tree does not say where a nested block ends.
                let ends = recipe.entries.iter().map(|entry| match &entry.value {
                    RecipeValue::Expr(value) => value.span.end,
                    RecipeValue::Block(_) => self.comments.close_after(entry.key.span.end) + 1,
                });
                let entries: Vec<(&RecipeEntry, u32)> = recipe.entries.iter().zip(ends).collect();
                let place = |(entry, end): &(&RecipeEntry, u32)| (entry.key.span.start, *end);
                let close = recipe.span.end.saturating_sub(1);
                self.block(out, &entries, close, place, |printer, (entry, _), out| printer.entry(entry, out));
            }
        }
    }

    /// Documentation, where it does not stand among the comments.
    fn doc(&mut self, doc: &str, out: &mut Vec<Doc>) {
        if !self.comments.has_text() && !doc.is_empty() {
            for line in doc.split('\n') {
                out.extend([Doc::text(format!("/// {line}").trim_end()), Doc::HardLine]);
            }
        }
    }

    fn entry(&mut self, entry: &RecipeEntry, out: &mut Vec<Doc>) {
        match &entry.value {
            RecipeValue::Expr(value) => {
                out.push(Doc::text(format!("{}: ", entry.key.text)));
                self.expr(value, out);
            }
            RecipeValue::Block(entries) => {
                out.push(Doc::text(format!("{} ", entry.key.text)));
                let close = self.comments.close_after(entry.key.span.end);
                self.entries(entries, close, out);
            }
        }
    }

    /// A block inside a recipe: on one line if it fits.
    fn entries(&mut self, entries: &[RecipeEntry], close: u32, out: &mut Vec<Doc>) {
        let mut inner = Vec::new();
        for (position, entry) in entries.iter().enumerate() {
            if position > 0 {
                inner.push(Doc::IfBroken("", ","));
            }
            self.comments.inside(entry.key.span.start, &mut inner);
            inner.push(Doc::Line);
            self.entry(entry, &mut inner);
        }
        self.comments.inside(close, &mut inner);
        if inner.is_empty() {
            out.push(Doc::text("{}"));
        } else {
            out.push(Doc::group(vec![Doc::text("{"), Doc::Indent(inner), Doc::Line, Doc::text("}")]));
        }
    }

    fn module(&mut self, module: &Module, out: &mut Vec<Doc>) {
        out.push(Doc::text(format!("{} {}", module.kind.keyword(), module.name.text)));
        let close = self.comments.close_after(module.name.span.end);
        self.list(
            out,
            ["(", ")"],
            &module.params,
            close,
            |param| param.name.span.start,
            |printer, param, out| {
                printer.param(param, out);
            },
        );
        self.members(&module.members, module.span.end.saturating_sub(1), out);
    }

    fn param(&mut self, param: &Param, out: &mut Vec<Doc>) {
        let words = |names: &[Name]| names.iter().map(|name| name.text.as_str()).collect::<Vec<_>>().join(", ");
        let ty = match &param.ty {
            ParamType::Infer => String::new(),
            ParamType::Tuple(names) => format!(": ({})", words(names)),
            ParamType::OneOf(names) => format!(": one_of({})", words(names)),
            ParamType::List => ": list".to_owned(),
            ParamType::Float => ": float".to_owned(),
            ParamType::Probability => ": probability".to_owned(),
            ParamType::Int => ": int".to_owned(),
            ParamType::Bool => ": bool".to_owned(),
        };
        out.push(Doc::text(format!("{}{ty}", param.name.text)));
        if let Some(default) = &param.default {
            self.value(default, out);
        }
    }

    /// A block of members; `close` is the place of its closing brace.
    fn members(&mut self, members: &[Member], close: u32, out: &mut Vec<Doc>) {
        self.block(out, members, close, |member| (member.span().start, member.span().end), Self::member);
    }

    fn member(&mut self, member: &Member, out: &mut Vec<Doc>) {
        match member {
            Member::Require { cond, .. } => {
                out.push(Doc::text("require "));
                self.expr(cond, out);
            }
            Member::Axis { name, def, .. } => {
                out.push(Doc::text(format!("axis {} = ", name.text)));
                match def {
                    AxisDef::Size(size) => self.expr(size, out),
                    AxisDef::Product(factors) => self.axes(factors, "x ", out),
                    AxisDef::Sum(summands) => self.axes(summands, "| ", out),
                }
            }
            Member::Index { names, axis, .. } => {
                let names: Vec<&str> = names.iter().map(|name| name.text.as_str()).collect();
                out.push(Doc::text(format!("index {}: ", names.join(", "))));
                self.axis(axis, out);
            }
            Member::Let { name, value, .. } => {
                out.push(Doc::text(format!("let {}", name.text)));
                self.value(value, out);
            }
            Member::Submodule { name, ctor, args, flat, span } => {
                if *flat {
                    out.push(Doc::text("flat "));
                }
                self.path(name, out);
                out.push(Doc::text(format!(" = {}", ctor.text)));
                self.args(args, span.end, out);
            }
            Member::Param { name, dims, init, no_decay, .. } => {
                self.variable(name, "param", dims, init, out);
                if *no_decay {
                    out.push(Doc::text(", no_decay"));
                }
            }
            Member::State { name, dims, init, .. } => self.variable(name, "state", dims, init, out),
            Member::If { cond, then, otherwise, span } => {
                out.push(Doc::text("if "));
                self.expr(cond, out);
                let close = self.comments.close_after(cond.span.end);
                self.members(then, close, out);
                match otherwise.as_slice() {
                    [] => {}
                    [next @ Member::If { .. }] => {
                        out.push(Doc::text(" else "));
                        self.member(next, out);
                    }
                    otherwise => {
                        out.push(Doc::text(" else"));
                        self.members(otherwise, span.end.saturating_sub(1), out);
                    }
                }
            }
            Member::For { var, lo, hi, body, span } => {
                self.loop_head(var, lo, hi, out);
                self.members(body, span.end.saturating_sub(1), out);
            }
            Member::Forward(forward) => self.forward(forward, out),
        }
    }

    fn variable(&mut self, name: &Path, word: &str, dims: &[AxisRef], init: &Expr, out: &mut Vec<Doc>) {
        self.path(name, out);
        out.push(Doc::text(format!(": {word}")));
        let close = self.comments.close_after(name.span.end);
        self.dims(dims, close, out);
        self.value(init, out);
    }

    /// The factors or summands of an axis.
    fn axes(&mut self, axes: &[AxisRef], sign: &str, out: &mut Vec<Doc>) {
        let mut parts = Vec::new();
        for (position, axis) in axes.iter().enumerate() {
            if position > 0 {
                self.comments.inside(axis.span().start, &mut parts);
                parts.extend([Doc::Line, Doc::text(sign)]);
            }
            self.axis(axis, &mut parts);
        }
        out.push(Doc::group(vec![Doc::Indent(parts)]));
    }
}
