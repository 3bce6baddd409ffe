//! Checking without sizes: every item of a file is elaborated at sample values of its arguments.
//!
//! An argument without a default gets sizes that meet the constraints, found by trying. One run has the defaults, in inference;
//! another, in training, has rates above 0; one more has other sizes, and there is one, in training, for every other word and truth
//! value that an argument may be. What holds only by chance for some sizes, or is wrong in a branch that the defaults do not take, is
//! found so. What went through as part of another item is not looked at again.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;

use foveate_dsl::ast::{self, Expr, ExprKind, Module, ParamType, Span};
use foveate_dsl::{Diagnostic, SourceMap};

use super::covered::Covered;
use super::elaborator::{Elaborator, MAX_STEPS};
use super::known::Known;
use super::recipe_settings;
use super::spec::{ItemRef, Spec};
use super::unused;
use super::value::Value;
use crate::lower::{LowerOptions, REST, on_a_large_stack};

/// How many sets of values are tried before a module counts as one whose constraints are not met.
const TRIALS: usize = 96;

/// The errors that other sizes may not have.
const OF_SIZES: [&str; 8] = ["E0215", "E0301", "E0302", "E0303", "E0304", "E0308", "E0310", "E0311"];

/// Sizes to try for what divides other sizes, and for what does not.
const SMALL: [i64; 6] = [2, 3, 1, 4, 6, 8];
const LARGE: [i64; 16] = [12, 24, 36, 48, 60, 72, 6, 5, 7, 3, 9, 16, 32, 64, 224, 1];

type Settings = Vec<(String, Value)>;

/// Everything that is wrong with the items of a file, and what is doubtful: modules, models, losses and optimizers at sample sizes,
/// functions, recipes with the items they name. Errors come in the order of the text.
pub fn check(spec: &Spec, sources: &SourceMap) -> Vec<Diagnostic> {
    on_a_large_stack(|| {
        let mut out = Findings::default();
        let covered = Covered::default();
        let known = Rc::default();
        // Items hold those above them, as a rule.
        for (item, tree) in spec.root_items().iter().enumerate().rev() {
            let r = ItemRef { file: spec.root(), item };
            let steps_left = Cell::new(MAX_STEPS);
            match tree {
                ast::Item::Module(module) => {
                    Samples { spec, sources, r, module, steps_left: &steps_left, covered: &covered, known: &known }
                        .run(&mut out)
                }
                ast::Item::Function(function) => out.add(function_body(spec, sources, r, function, &steps_left)),
                ast::Item::Recipe(recipe) => out.add(recipe_settings::check(spec, sources, recipe, &covered, &known)),
            }
        }
        // What an error keeps from being used, or nothing uses, may be wrong too.
        let wrong = out.diagnostics.iter().any(Diagnostic::is_error);
        let bodies = unused::bodies(spec, sources);
        for (name, r) in spec.imported() {
            if !wrong && unused::is_mentioned(&bodies, name) {
                continue;
            }
            let steps_left = Cell::new(MAX_STEPS);
            let mut more = Findings::default();
            match spec.ast_item(r) {
                ast::Item::Module(module) => {
                    Samples { spec, sources, r, module, steps_left: &steps_left, covered: &covered, known: &known }
                        .run(&mut more)
                }
                ast::Item::Function(function) => more.add(function_body(spec, sources, r, function, &steps_left)),
                ast::Item::Recipe(_) => {}
            }
            more.diagnostics.retain(Diagnostic::is_error);
            out.add(more.diagnostics);
        }
        // A name that an error keeps from being used is no news.
        if !out.diagnostics.iter().any(Diagnostic::is_error) {
            out.add(unused::warnings(spec, &bodies));
        }
        let mut diagnostics = out.diagnostics;
        diagnostics.sort_by_key(|d| d.span().map(|s| (s.file, s.start)));
        diagnostics
    })
}

/// Diagnostics, each code once a place.
#[derive(Default)]
struct Findings {
    diagnostics: Vec<Diagnostic>,
    seen: HashSet<(&'static str, Option<Span>)>,
}

impl Findings {
    fn add(&mut self, diagnostics: Vec<Diagnostic>) {
        for d in diagnostics {
            if self.seen.insert((d.code, d.span())) {
                self.diagnostics.push(d);
            }
        }
    }
}

/// The body of a function at numbers.
fn function_body(
    spec: &Spec,
    sources: &SourceMap,
    r: ItemRef,
    function: &ast::ScalarFn,
    steps_left: &Cell<usize>,
) -> Vec<Diagnostic> {
    let mut elaborator = Elaborator::new(spec, sources, true, 1);
    elaborator.steps_left = steps_left.get();
    if elaborator.steps_left == 0 {
        return Vec::new();
    }
    elaborator.function_alone(r, function);
    steps_left.set(elaborator.steps_left);
    elaborator.diagnostics
}

/// The runs of one module.
struct Samples<'a, 's> {
    spec: &'a Spec,
    sources: &'a SourceMap,
    r: ItemRef,
    module: &'a Module,
    /// How many steps all runs of the item have left; without any, further runs say nothing.
    steps_left: &'s Cell<usize>,
    covered: &'s Covered,
    known: &'s Rc<Known<'a>>,
}

impl Samples<'_, '_> {
    fn run(&self, out: &mut Findings) {
        let Some(first) = self.search(&Settings::new(), 0, out) else { return };
        for param in &self.module.params {
            for value in self.others(param) {
                let mut settings = first.clone();
                set(&mut settings, &param.name.text, value);
                let found = self.elaborate(&settings, true);
                // Sizes that this value does not allow say nothing.
                if !found.iter().any(of_sizes) {
                    out.add(found);
                }
            }
        }
        let mut rates = first.clone();
        for param in &self.module.params {
            let zero = |e: &Expr| matches!(e.kind, ExprKind::Float(x) if x == 0.0);
            if param.default.as_ref().is_some_and(zero) {
                set(&mut rates, &param.name.text, Value::Float(0.25));
            }
        }
        out.add(self.elaborate(&rates, true));
        if self.module.params.iter().any(|p| p.default.is_none()) {
            let mut more = Findings::default();
            if self.search(&first, 1, &mut more).is_some() {
                out.add(more.diagnostics);
            }
        }
    }

    /// Elaborates for one mode: what is wrong.
    fn elaborate(&self, settings: &Settings, training: bool) -> Vec<Diagnostic> {
        let options = LowerOptions { training, random: true, batch: 2, exposed: Vec::new() };
        let mut elaborator = Elaborator::sampling(self.spec, self.sources, training, options.batch, self.known);
        elaborator.steps_left = self.steps_left.get();
        if elaborator.steps_left == 0 {
            return Vec::new();
        }
        let given = elaborator.settings(self.module, settings);
        let arguments = given.and_then(|g| elaborator.bound(self.r, self.module, g, self.module.name.span));
        if arguments.is_ok_and(|arguments| self.covered.has(training, self.r, &arguments)) {
            return Vec::new();
        }
        // What is wrong is among the diagnostics.
        let _ = elaborator.item(self.r, settings, &options);
        self.steps_left.set(elaborator.steps_left);
        self.covered.add(&mut elaborator);
        let sample: Vec<String> = (settings.iter())
            .filter(|(name, _)| self.module.params.iter().any(|p| p.name.text == *name && p.default.is_none()))
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let of_shapes = |code: &str| code.starts_with("E03") || matches!(code, "E0201" | "E0202" | "E0204" | "E0215");
        let mut found = elaborator.diagnostics;
        for d in found.iter_mut().filter(|d| of_shapes(d.code) && !sample.is_empty()) {
            d.notes.push(format!("seen at the sample values {}", sample.join(", ")));
        }
        found
    }

    /// Settings that meet all constraints; says what else is wrong in inference. Where there are none, says what is wrong whatever
    /// the sizes.
    fn search(&self, before: &Settings, seed: u64, out: &mut Findings) -> Option<Settings> {
        let small = self.divisors();
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9).wrapping_add(17));
        let mut always: Option<Vec<Diagnostic>> = None;
        let mut best: Option<Tried> = None;
        for trial in 0..TRIALS {
            let settings = self.sample(trial + usize::from(seed > 0), &small, &mut dice);
            if settings == *before {
                continue;
            }
            let inference = self.elaborate(&settings, false);
            let wrong = inference.iter().filter(|d| of_sizes(d)).count();
            if wrong == 0 {
                out.add(inference);
                return Some(settings);
            }
            // The last note is the sample itself.
            let facts = |d: &Diagnostic| d.notes.split_last().map(|(_, notes)| notes.to_vec());
            let same =
                |d: &Diagnostic| inference.iter().any(|e| (e.code, e.span(), facts(e)) == (d.code, d.span(), facts(d)));
            match &mut always {
                Some(always) => always.retain(|d| same(d)),
                None => always = Some(inference.clone()),
            }
            if best.as_ref().is_none_or(|b| wrong < b.inference.iter().filter(|d| of_sizes(d)).count()) {
                best = Some(Tried { settings, inference });
            }
            // What does not depend on the arguments is settled by the first try.
            if self.module.params.iter().all(|p| p.default.is_some()) {
                break;
            }
        }
        let best = best?;
        let always = always.unwrap_or_default();
        if always.iter().any(of_sizes) || self.module.params.iter().all(|p| p.default.is_some()) {
            out.add(best.inference);
            return None;
        }
        let tried: Vec<String> =
            best.settings.iter().filter(|(n, _)| n != REST).map(|(n, v)| format!("{n} = {v}")).collect();
        let mut d = Diagnostic::warning(
            "E0311",
            format!("no sample sizes for `{}` meet its constraints", self.module.name.text),
        )
        .primary(self.module.name.span, format!("tried {} sets, among them {}", TRIALS, tried.join(", ")));
        let (sizes, others): (Vec<_>, Vec<_>) = best.inference.into_iter().partition(of_sizes);
        if let Some(span) = sizes.first().and_then(Diagnostic::span) {
            d = d.secondary(span, "this fails there");
        }
        out.add(vec![d.help("give arguments a default that meets them")]);
        out.add(others);
        None
    }

    /// Values for the arguments without default.
    fn sample(&self, trial: usize, small: &HashSet<String>, dice: &mut Dice) -> Settings {
        let mut settings = vec![(
            REST.to_owned(),
            if trial.is_multiple_of(2) { Value::Int(2) } else { Value::Tuple(vec![Value::Int(3), Value::Int(2)]) },
        )];
        let mut at = 0;
        let mut size = |name: &str| {
            let pool: &[i64] = if small.contains(name) { &SMALL } else { &LARGE };
            at += 1;
            let n = if trial < 2 { (at - 1 + trial) % pool.len().min(6) } else { dice.below(pool.len()) };
            Value::Int(pool[n])
        };
        for param in self.module.params.iter().filter(|p| p.default.is_none()) {
            let name = &param.name.text;
            let value = match &param.ty {
                ParamType::Infer | ParamType::Int => size(name),
                ParamType::Tuple(parts) => Value::Tuple(parts.iter().map(|p| size(&p.text)).collect()),
                ParamType::OneOf(words) => words.first().map_or(Value::Int(0), |w| Value::Word(w.text.clone())),
                ParamType::List => Value::List((0..=trial % 5).map(|_| size(name)).collect()),
                ParamType::Float | ParamType::Probability => Value::Float(0.5),
                ParamType::Bool => Value::Bool(true),
            };
            settings.push((name.clone(), value));
        }
        settings
    }

    /// The other words and truth values that an argument may be.
    fn others(&self, param: &ast::Param) -> Vec<Value> {
        let default = param.default.as_ref().map(|d| &d.kind);
        match (&param.ty, default) {
            (ParamType::OneOf(words), default) => {
                let own = match default {
                    Some(ExprKind::Path(p)) => p.as_name(),
                    _ => words.first().map(|w| w.text.as_str()),
                };
                words.iter().filter(|w| Some(w.text.as_str()) != own).map(|w| Value::Word(w.text.clone())).collect()
            }
            (ParamType::Bool, None) => vec![Value::Bool(false)],
            (_, Some(ExprKind::Bool(b))) => vec![Value::Bool(!b)],
            _ => Vec::new(),
        }
    }

    /// The names of arguments that something is divided by, here or in a submodule that they are handed to. They matter for what has no
    /// default.
    fn divisors(&self) -> HashSet<String> {
        if self.module.params.iter().all(|p| p.default.is_some()) {
            return HashSet::new();
        }
        super::infer::divisors_of(self.spec, self.r)
    }
}

struct Tried {
    settings: Settings,
    /// What is wrong in inference.
    inference: Vec<Diagnostic>,
}

fn of_sizes(d: &Diagnostic) -> bool {
    OF_SIZES.contains(&d.code)
}

fn set(settings: &mut Settings, name: &str, value: Value) {
    settings.retain(|(n, _)| n != name);
    settings.push((name.to_owned(), value));
}

/// Numbers that look random and are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}
