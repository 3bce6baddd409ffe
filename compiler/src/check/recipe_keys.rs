//! What a recipe may set: every key with the kind of its value.

use foveate_dsl::ast::{self, ModuleKind};

use super::spec::{Spec, prelude_item};
use super::value::Value;
use crate::lower::forward::result_name;

/// What kind of value a setting has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// An item with arguments.
    Item(ModuleKind),
    /// A number within these bounds.
    Number(f64, f64),
    /// One such number, or a list of three: for each channel of colours.
    Numbers(f64, f64),
    /// An integer within these bounds.
    Count(i64, i64),
    /// Height and width.
    Image,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A path in quotes.
    Path,
}

/// A setting by its dotted key.
#[derive(Debug)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    pub(super) kind: Kind,
    /// Whether a recipe must have it.
    pub needed: bool,
}

const fn setting(key: &'static str, kind: Kind, needed: bool) -> Setting {
    Setting { key, kind, needed }
}

const ANY: Kind = Kind::Number(0.0, f64::INFINITY);

/// Every setting but the losses' names under `weights` and the rule's arguments under `optimizer`.
pub const SETTINGS: &[Setting] = &[
    setting("model", Kind::Item(ModuleKind::Model), true),
    setting("loss", Kind::Item(ModuleKind::Loss), true),
    setting("data.format", Kind::Word(&["idx", "folder"]), false),
    setting("data.path", Kind::Path, true),
    setting("data.image", Kind::Image, true),
    setting("data.classes", Kind::Count(1, 65536), true),
    setting("data.mean", Kind::Numbers(f64::NEG_INFINITY, f64::INFINITY), false),
    setting("data.std", Kind::Numbers(f64::MIN_POSITIVE, f64::INFINITY), false),
    setting("data.crop", Kind::Number(f64::MIN_POSITIVE, 1.0), false),
    setting("epochs", Kind::Count(1, 1 << 20), true),
    setting("batch", Kind::Count(1, 1 << 20), true),
    setting("seed", Kind::Count(0, u32::MAX as i64), false),
    setting("optimizer", Kind::Item(ModuleKind::Optimizer), true),
    setting("clip", Kind::Number(f64::MIN_POSITIVE, f64::INFINITY), false),
    setting("schedule.warmup_epochs", ANY, false),
    setting("schedule.final_lr", ANY, false),
    setting("augment.flip", Kind::Number(0.0, 1.0), false),
    setting("augment.shift", Kind::Count(0, 10_000), false),
    setting("augment.area", Kind::Number(f64::MIN_POSITIVE, 1.0), false),
];

/// The fields of a loss's weight that has a schedule of its own; a weight that is a number is its `peak`.
pub const WEIGHT: &[Setting] = &[
    setting("peak", Kind::Number(f64::NEG_INFINITY, f64::INFINITY), false),
    setting("warmup_epochs", ANY, false),
    setting("decay", Kind::Word(&["cosine", "constant"]), false),
];

impl Setting {
    /// What it is set to, in words.
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Item(kind) => format!("{} with its arguments, such as `Net(depth: 4)`", a_kind(kind)),
            Kind::Number(lo, hi) => number_text(lo, hi),
            Kind::Numbers(lo, hi) => format!("{}, or a list of three", number_text(lo, hi)),
            Kind::Count(lo, hi) => format!("an integer from {lo} to {hi}"),
            Kind::Image => "height and width, such as `28x28`".to_owned(),
            Kind::Word(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" or "),
            Kind::Path => "a path in quotes".to_owned(),
        }
    }

    /// Whether it may be set to this value.
    pub fn accepts(&self, value: &Value) -> bool {
        match self.kind {
            Kind::Number(lo, hi) => value.as_number().is_some_and(|x| (lo..=hi).contains(&x)),
            Kind::Numbers(lo, hi) => {
                let each = |v: &Value| v.as_number().is_some_and(|x| (lo..=hi).contains(&x));
                match value {
                    Value::List(parts) | Value::Tuple(parts) => parts.len() == 3 && parts.iter().all(each),
                    one => each(one),
                }
            }
            Kind::Count(lo, hi) => value.as_int().is_some_and(|n| (lo..=hi).contains(&n)),
            Kind::Image => {
                let side = |v: &Value| v.as_int().is_some_and(|n| (1..=65536).contains(&n));
                matches!(value, Value::Tuple(parts) if parts.len() == 2 && parts.iter().all(side))
            }
            Kind::Word(words) => matches!(value, Value::Word(w) | Value::Str(w) if words.contains(&w.as_str())),
            Kind::Path => matches!(value, Value::Str(_)),
            Kind::Item(_) => matches!(value, Value::Word(_)),
        }
    }

    /// The keyword of the item that it names, if it does: `model`, `loss` or `optimizer`.
    pub fn item_keyword(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Item(kind) => Some(kind.keyword()),
            _ => None,
        }
    }
}

fn a_kind(kind: ModuleKind) -> String {
    let article = if kind == ModuleKind::Optimizer { "an" } else { "a" };
    format!("{article} {}", kind.keyword())
}

fn number_text(lo: f64, hi: f64) -> String {
    match (lo.is_finite() && lo != f64::MIN_POSITIVE, hi.is_finite()) {
        (true, true) => format!("a number from {lo} to {hi}"),
        (true, false) => format!("a number of at least {lo}"),
        (false, true) if lo == f64::MIN_POSITIVE => format!("a number above 0 and at most {hi}"),
        _ if lo == f64::MIN_POSITIVE => "a number above 0".to_owned(),
        _ => "a number".to_owned(),
    }
}

impl Spec {
    /// The arguments that a recipe may give an optimizer of the file or of the prelude: the scalars of its rule, without those that
    /// follow from the step, and with weight decay under its usual name. `None` if there is no such optimizer.
    pub fn optimizer_arguments(&self, name: &str) -> Option<Vec<String>> {
        let own = self.module(self.root(), name).map(|(_, m)| m.clone());
        let module = own.or_else(|| prelude_item(name)).filter(|m| m.kind == ModuleKind::Optimizer)?;
        let follows = |input: &str| matches!(input, "scale" | "bias1" | "bias2");
        let scalars = (forward_of(&module).into_iter().flat_map(|f| &f.inputs))
            .filter(|i| i.dims.is_empty() && i.label_of.is_none() && !follows(&i.name.text))
            .map(|i| if i.name.text == "wd" { "weight_decay".to_owned() } else { i.name.text.clone() });
        Some(scalars.collect())
    }
}

impl Spec {
    /// The names of the results that an item declares; names are looked up as in [`Spec::item`]. Empty where it declares none.
    pub fn results(&self, item: Option<&str>) -> Vec<String> {
        let Ok(found) = self.find(item) else { return Vec::new() };
        let ast::Item::Module(module) = self.ast_item(found) else { return Vec::new() };
        let results = forward_of(module).into_iter().flat_map(|f| &f.results);
        results.map(|r| result_name(module.kind, r.name.as_ref())).collect()
    }
}

pub(super) fn forward_of(module: &ast::Module) -> Option<&ast::Forward> {
    module.members.iter().find_map(|m| if let ast::Member::Forward(f) = m { Some(f) } else { None })
}
