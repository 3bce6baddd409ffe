//! Whether a recipe of a file sets rightly what it may set.

use std::rc::Rc;

use foveate_dsl::ast::{self, Expr, ExprKind, ModuleKind, RecipeEntry, RecipeValue, Span};
use foveate_dsl::{Diagnostic, SourceMap};

use super::covered::Covered;
use super::elaborator::Elaborator;
use super::known::Known;
use super::recipe::constant;
use super::recipe_keys::{Kind, SETTINGS, Setting, WEIGHT, forward_of};
use super::report::suggest;
use super::spec::{Spec, prelude_names};
use super::value::Env;
use crate::ir::ResultRole;
use crate::lower::LowerOptions;

/// Everything that is wrong with a recipe.
pub(crate) fn check<'a>(
    spec: &'a Spec,
    sources: &'a SourceMap,
    recipe: &'a ast::Recipe,
    covered: &Covered,
    known: &Rc<Known<'a>>,
) -> Vec<Diagnostic> {
    let mut checker = Checker {
        spec,
        sources,
        recipe,
        covered,
        known: Rc::clone(known),
        found: Vec::new(),
        model: None,
        weights: Vec::new(),
        loss: None,
        out: Vec::new(),
    };
    checker.entries("", &recipe.entries);
    // After the loss, which it is a part of as a rule.
    if let Some(model) = checker.model {
        checker.item("model", ModuleKind::Model, model);
    }
    checker.missing();
    checker.weights_name_losses();
    checker.out
}

/// What a recipe's loss gives.
struct LossResults<'a> {
    name: &'a str,
    span: Span,
    /// Results with their number of axes.
    results: Vec<(String, usize)>,
}

struct Checker<'a, 'c> {
    spec: &'a Spec,
    sources: &'a SourceMap,
    recipe: &'a ast::Recipe,
    covered: &'c Covered,
    known: Rc<Known<'a>>,
    /// The keys that are set.
    found: Vec<String>,
    /// The model, which is looked at last.
    model: Option<&'a Expr>,
    /// The losses that have a weight.
    weights: Vec<&'a ast::Name>,
    /// The results of the loss.
    loss: Option<LossResults<'a>>,
    out: Vec<Diagnostic>,
}

impl<'a> Checker<'a, '_> {
    fn entries(&mut self, prefix: &str, entries: &'a [RecipeEntry]) {
        for (n, entry) in entries.iter().enumerate() {
            if let Some(first) = entries[..n].iter().find(|e| e.key.text == entry.key.text) {
                let d = Diagnostic::error("E0415", format!("`{}{}` is set twice", prefix, entry.key.text));
                self.out.push(d.primary(entry.key.span, "again here").secondary(first.key.span, "first here"));
                continue;
            }
            let key = format!("{prefix}{}", entry.key.text);
            if prefix == "weights." {
                self.weight(entry);
                continue;
            }
            match &entry.value {
                RecipeValue::Block(inner)
                    if key == "weights" || SETTINGS.iter().any(|s| s.key.starts_with(&format!("{key}."))) =>
                {
                    self.entries(&format!("{key}."), inner);
                }
                RecipeValue::Block(_) if SETTINGS.iter().any(|s| s.key == key) => {
                    let d = Diagnostic::error("E0417", format!("`{key}` is one value and no block"));
                    self.out.push(d.primary(entry.key.span, "").help(format!("write `{key}: VALUE`")));
                }
                RecipeValue::Expr(e) if SETTINGS.iter().any(|s| s.key == key) => self.value(SETTINGS, &key, &key, e),
                _ => self.unknown(prefix, &entry.key, SETTINGS),
            }
            self.found.push(key);
        }
    }

    fn weight(&mut self, entry: &'a RecipeEntry) {
        self.weights.push(&entry.key);
        match &entry.value {
            RecipeValue::Expr(e) => self.value(WEIGHT, "peak", &format!("weights.{}", entry.key.text), e),
            RecipeValue::Block(fields) => {
                for field in fields {
                    let key = field.key.text.as_str();
                    match &field.value {
                        RecipeValue::Expr(e) if WEIGHT.iter().any(|s| s.key == key) => self.value(WEIGHT, key, key, e),
                        _ => self.unknown("", &field.key, WEIGHT),
                    }
                }
            }
        }
    }

    fn unknown(&mut self, prefix: &str, key: &ast::Name, settings: &[Setting]) {
        let mut known: Vec<&str> = settings
            .iter()
            .filter_map(|s| s.key.strip_prefix(prefix))
            .map(|k| k.split('.').next().unwrap_or_default())
            .collect();
        if prefix.is_empty() && settings.len() == SETTINGS.len() {
            known.push("weights");
        }
        known.dedup();
        let place = prefix.trim_end_matches('.');
        let of = if place.is_empty() { "a recipe".to_owned() } else { format!("`{place}`") };
        let mut d = Diagnostic::error("E0416", format!("{of} has no setting `{}`", key.text)).primary(key.span, "");
        d = suggest(d, &key.text, known.iter().copied());
        self.out.push(d.note(format!("it has {}", known.join(", "))));
    }

    fn value(&mut self, settings: &[Setting], key: &str, shown: &str, e: &'a Expr) {
        let Some(setting) = settings.iter().find(|s| s.key == key) else { return };
        match setting.kind {
            Kind::Item(ModuleKind::Model) => {
                self.model = Some(e);
                return;
            }
            Kind::Item(kind) => {
                self.item(shown, kind, e);
                return;
            }
            _ => {}
        }
        let value = match constant(e) {
            Ok(value) => value,
            Err(d) => {
                self.out.push(*d);
                return;
            }
        };
        if !setting.accepts(&value) {
            let d = Diagnostic::error("E0417", format!("`{shown}` must be {}, found `{value}`", setting.expected()));
            self.out.push(d.primary(e.span, ""));
        }
    }

    /// An item with constant arguments.
    fn item(&mut self, key: &str, kind: ModuleKind, e: &'a Expr) {
        let (name, args): (Option<&str>, &[ast::Arg]) = match &e.kind {
            ExprKind::Call { callee, args } => (callee.as_name(), args),
            ExprKind::Path(path) => (path.as_name(), &[]),
            _ => (None, &[]),
        };
        let Some(name) = name else {
            let d = Diagnostic::error("E0417", format!("`{key}` must be an item with its arguments"));
            self.out.push(d.primary(e.span, "").help("such as `Net(depth: 4)`"));
            return;
        };
        let mut ok = true;
        for arg in args {
            if arg.name.is_none() {
                let d = Diagnostic::error("E0415", "the arguments of a recipe's items have names");
                self.out.push(d.primary(arg.value.span, "").help("such as `depth: 4`"));
                ok = false;
            } else if let Err(d) = constant(&arg.value) {
                self.out.push(*d);
                ok = false;
            }
        }
        if kind == ModuleKind::Optimizer {
            self.optimizer(name, args, e.span);
            return;
        }
        let root = self.spec.root();
        let found = self.spec.module(root, name);
        let Some((r, module)) = found.filter(|(_, m)| m.kind == kind) else {
            let word = if kind == ModuleKind::Loss { "loss" } else { "model" };
            let d = match found {
                Some(_) => Diagnostic::error("E0401", format!("`{name}` is no {word}"))
                    .primary(e.span, format!("`{key}` is a {word}")),
                None => {
                    let names = self
                        .spec
                        .file(root)
                        .names
                        .keys()
                        .filter(|n| self.spec.module(root, n).is_some_and(|(_, m)| m.kind == kind));
                    let d = Diagnostic::error("E0101", format!("unknown {word} `{name}`")).primary(e.span, "");
                    suggest(d, name, names.map(String::as_str))
                }
            };
            self.out.push(d);
            return;
        };
        if !ok {
            return;
        }
        let options = LowerOptions { training: true, random: true, batch: 2, exposed: Vec::new() };
        let mut elaborator = Elaborator::sampling(self.spec, self.sources, true, options.batch, &self.known);
        if let Some(forward) = forward_of(module) {
            self.images(key, e.span, &forward.inputs, kind);
        }
        let given = elaborator.given(module, args, &Env::default());
        let arguments = given.and_then(|given| elaborator.bound(r, module, given, e.span));
        if kind == ModuleKind::Model && arguments.is_ok_and(|arguments| self.covered.has(true, r, &arguments)) {
            return;
        }
        let lowered = elaborator.recipe_item(r, module, args, e.span, &options);
        if let Some(lowered) = lowered.ok().filter(|_| kind == ModuleKind::Loss) {
            let entry = lowered.program.entry();
            let rank = |name: &String| {
                let of = |role: &ResultRole| matches!(role, ResultRole::Output(n) if n == name);
                let tensor = entry.results.iter().find(|r| of(&r.role)).map(|r| entry.tensor(r.tensor).dims.len());
                (name.clone(), tensor.unwrap_or(0))
            };
            let results = lowered.results.iter().map(rank).collect();
            self.loss = Some(LossResults { name: &module.name.text, span: module.name.span, results });
        }
        self.covered.add(&mut elaborator);
        let mut seen: Vec<(&str, Option<Span>)> = self.out.iter().map(|d| (d.code, d.span())).collect();
        for d in elaborator.diagnostics {
            if !seen.contains(&(d.code, d.span())) {
                seen.push((d.code, d.span()));
                self.out.push(d);
            }
        }
    }

    /// What is trained takes images and labels, what is evaluated images.
    fn images(&mut self, key: &str, span: Span, inputs: &[ast::Input], kind: ModuleKind) {
        let labels = inputs.iter().filter(|i| i.label_of.is_some()).count();
        if inputs.len() - labels != 1 || labels != usize::from(kind == ModuleKind::Loss) {
            let expected =
                if kind == ModuleKind::Loss { "one input of pixels and one label" } else { "one input of pixels" };
            let names: Vec<String> = inputs.iter().map(|i| i.name.text.clone()).collect();
            let d = Diagnostic::error(
                "E0417",
                format!("the `{key}` of a recipe takes {expected}, found {}", names.join(", ")),
            );
            self.out.push(d.primary(span, ""));
        }
    }

    fn optimizer(&mut self, name: &str, args: &[ast::Arg], span: Span) {
        let Some(scalars) = self.spec.optimizer_arguments(name) else {
            let d = Diagnostic::error("E0101", format!("unknown optimizer `{name}`")).primary(span, "");
            let mut names = prelude_names();
            names.extend(self.spec.file(self.spec.root()).names.keys().cloned());
            names.sort();
            self.out.push(suggest(d, name, names.iter().map(String::as_str)));
            return;
        };
        for arg in args {
            let Some(arg_name) = &arg.name else { continue };
            if !scalars.contains(&arg_name.text) {
                let d = Diagnostic::error("E0403", format!("`{name}` has no argument `{}`", arg_name.text))
                    .primary(arg_name.span, "");
                let d = suggest(d, &arg_name.text, scalars.iter().map(String::as_str));
                self.out.push(d.note(format!("it has {}", scalars.join(", "))));
            } else if let Some(value) = constant(&arg.value).ok().filter(|v| v.as_number().is_none()) {
                let d = Diagnostic::error("E0417", format!("`{}` must be a number, found `{value}`", arg_name.text));
                self.out.push(d.primary(arg.value.span, ""));
            }
        }
        let lr = args.iter().any(|a| a.name.as_ref().is_some_and(|n| n.text == "lr"));
        if !lr && scalars.iter().any(|s| s == "lr") {
            let d = Diagnostic::error("E0418", format!("`{name}` needs a learning rate")).primary(span, "");
            self.out.push(d.help(format!("write `{name}(lr: 1e-3)`")));
        }
    }

    fn missing(&mut self) {
        let lacking = SETTINGS.iter().filter(|s| s.needed && !self.found.iter().any(|k| k == s.key));
        let names: Vec<String> = lacking.map(|s| format!("`{}`", s.key)).collect();
        if !names.is_empty() {
            let d = Diagnostic::error(
                "E0418",
                format!("the recipe `{}` lacks {}", self.recipe.name.text, names.join(", ")),
            );
            self.out.push(d.primary(self.recipe.name.span, ""));
        }
    }

    /// Every weight is that of a scalar result of the loss.
    fn weights_name_losses(&mut self) {
        let Some(LossResults { name: loss, span, results }) = &self.loss else { return };
        let scalars: Vec<&str> = results.iter().filter(|(_, rank)| *rank == 0).map(|(n, _)| n.as_str()).collect();
        for name in &self.weights {
            match results.iter().find(|(n, _)| *n == name.text) {
                Some((_, 0)) => {}
                Some(_) => {
                    let d =
                        Diagnostic::error("E0223", format!("the result `{}` of `{loss}` is not a scalar", name.text));
                    self.out.push(
                        d.primary(name.span, "only a scalar has a weight")
                            .secondary(*span, "its results are declared here"),
                    );
                }
                None => {
                    let d = Diagnostic::error("E0101", format!("`{loss}` has no result `{}`", name.text))
                        .primary(name.span, "");
                    let d = suggest(d, &name.text, scalars.iter().copied());
                    self.out.push(d.note(format!("its scalar results are {}", scalars.join(", "))));
                }
            }
        }
        if self.weights.is_empty() && !scalars.contains(&"loss") {
            let d = Diagnostic::error("E0418", format!("`{loss}` has no result `loss`, so its results need weights"));
            self.out.push(
                d.primary(self.recipe.name.span, "")
                    .help(format!("write `weights {{ {}: 1 }}`", scalars.first().unwrap_or(&"loss"))),
            );
        }
    }
}
