//! Warnings about names that nothing mentions.

use std::collections::HashMap;

use foveate_dsl::ast::{self, Member, Module, Path, Span, Stmt};
use foveate_dsl::{Diagnostic, SourceMap};

use super::spec::Spec;

/// Imports that nothing in the file mentions, and arguments, parameters, states, submodules and definitions that nothing in their
/// module mentions.
pub(crate) fn warnings(spec: &Spec, bodies: &Bodies<'_>) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let file = spec.file(spec.root());
    for name in file.tree.imports.iter().flat_map(|import| &import.names) {
        if !bodies.iter().any(|words| words.contains_key(name.text.as_str())) {
            let d = Diagnostic::warning("E0108", format!("`{}` is imported and not used", name.text));
            out.push(d.primary(name.span, "nothing in this file mentions it"));
        }
    }
    for (item, words) in file.tree.items.iter().zip(bodies) {
        if let ast::Item::Module(module) = item {
            declarations(module, &mut |what, name, span| {
                if words.get(name).is_none_or(|n| *n < 2) {
                    let d = Diagnostic::warning("E0109", format!("the {what} `{name}` is not used"));
                    out.push(d.primary(span, format!("nothing in `{}` mentions it", module.name.text)));
                }
            });
        }
    }
    out
}

/// Whether an item of the file mentions a name.
pub(crate) fn is_mentioned(bodies: &Bodies<'_>, name: &str) -> bool {
    bodies.iter().any(|words| words.contains_key(name))
}

/// The words of every item of a file, and how often each stands there.
pub(crate) type Bodies<'t> = Vec<HashMap<&'t str, usize>>;

/// The words of the items of the file.
pub(crate) fn bodies<'t>(spec: &Spec, sources: &'t SourceMap) -> Bodies<'t> {
    spec.root_items().iter().map(|item| mentions(sources.snippet(item.span()))).collect()
}

/// How often each word of a text stands in it, comments apart.
fn mentions(text: &str) -> HashMap<&str, usize> {
    let mut out = HashMap::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        for word in code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| !w.is_empty()) {
            *out.entry(word).or_default() += 1;
        }
    }
    out
}

/// Names that a module gives and that it should use itself. Exposed values are used by others, and names in several parts or
/// computed ones are mentioned in many ways.
fn declarations(module: &Module, f: &mut dyn FnMut(&str, &str, Span)) {
    for param in &module.params {
        match &param.ty {
            // Of a tuple, the whole or a part is used.
            ast::ParamType::Tuple(_) => {}
            _ => f("argument", &param.name.text, param.name.span),
        }
    }
    members(&module.members, f);
}

fn members(list: &[Member], f: &mut dyn FnMut(&str, &str, Span)) {
    let plain = |what: &str, path: &Path, f: &mut dyn FnMut(&str, &str, Span)| {
        if let Some(name) = path.as_name() {
            f(what, name, path.span);
        }
    };
    for member in list {
        match member {
            Member::Param { name, .. } => plain("parameter", name, f),
            Member::State { name, .. } => plain("state", name, f),
            Member::Submodule { name, .. } => plain("submodule", name, f),
            Member::If { then, otherwise, .. } => {
                members(then, f);
                members(otherwise, f);
            }
            Member::For { body, .. } => members(body, f),
            Member::Forward(forward) => statements(&forward.body, f),
            _ => {}
        }
    }
}

fn statements(list: &[Stmt], f: &mut dyn FnMut(&str, &str, Span)) {
    for stmt in list {
        match stmt {
            Stmt::Define { target, expose: false, .. } => f("definition", &target.name.text, target.name.span),
            Stmt::DefineTuple { targets, .. } => {
                targets.iter().for_each(|t| f("definition", &t.name.text, t.name.span));
            }
            Stmt::If { then, otherwise, .. } => {
                statements(then, f);
                statements(otherwise, f);
            }
            Stmt::For { body, .. } => statements(body, f),
            _ => {}
        }
    }
}
