//! A recipe with everything resolved: what the file says, what the command line overrides, and defaults.

use super::schedule::{Decay, LearningRate, Weight};
use crate::data::{Augment, Format, Layout, Normalisation};
use crate::driver::Source;
use crate::error::{Error, Result};
use crate::predict::{MEAN, STD};
use foveate_compiler::check::{Entry, EntryValue, SETTINGS, Setting, Value, WEIGHT, closest};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An item with its arguments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ItemCall {
    /// The item's name.
    pub name: String,
    /// Its arguments by name.
    #[serde(serialize_with = "as_texts")]
    pub arguments: Vec<(String, Value)>,
}

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataSettings {
    /// The directory; relative ones in a recipe are relative to the spec file.
    #[serde(skip)]
    pub path: PathBuf,
    /// How it is stored, and what its images are.
    #[serde(flatten)]
    pub layout: Layout,
    /// What is taken out of the brightness (0 to 1) of a pixel; by default nothing of grey images, and ImageNet's of colours.
    pub normalisation: Normalisation,
}

/// The update rule and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizerSettings {
    /// The optimizer's name.
    pub rule: String,
    /// Its arguments by name, the learning rate among them.
    pub arguments: BTreeMap<String, f64>,
    /// The L2 norm that the whole gradient is clipped to.
    pub clip: Option<f64>,
}

/// All settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The recipe's name.
    pub recipe: String,
    /// What is evaluated.
    pub model: ItemCall,
    /// What is trained.
    pub loss: ItemCall,
    /// The images.
    pub data: DataSettings,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Of everything random; below 2^32.
    pub seed: u64,
    /// The update rule.
    pub optimizer: OptimizerSettings,
    /// The learning rate over the run.
    pub lr: LearningRate,
    /// The losses and their weights over the run; the first is the main one.
    pub weights: Vec<(String, Weight)>,
    /// What happens to training images.
    pub augment: Augment,
}

impl Settings {
    /// Resolves a recipe of a spec; `None` if it has only one. `overrides` are keys of the recipe (`epochs`, `optimizer.lr`) or arguments of
    /// its model and its loss (`depth`); the keys are set first.
    pub fn resolve(
        source: &Source,
        spec_path: &Path,
        recipe: Option<&str>,
        overrides: &[(String, Value)],
    ) -> Result<Settings> {
        let recipe = source.spec.recipe(recipe).map_err(|d| source.error(&[*d]))?;
        let mut flat = Flat { recipe: recipe.name.clone(), entries: Vec::new() };
        flat.add("", &recipe.entries);
        let (keys, arguments): (Vec<_>, Vec<_>) = overrides.iter().partition(|(name, _)| is_key(name));
        for (name, value) in &keys {
            let value = match value {
                // Quotes do not come through a shell.
                Value::Word(path) if name == "data.path" => Value::Str(path.clone()),
                value => value.clone(),
            };
            flat.set(name, EntryValue::Value(value));
        }
        flat.check()?;
        let mut model = flat.item("model", source)?;
        let mut loss = flat.item("loss", source)?;
        let parameters = |item: &ItemCall| source.spec.arguments(Some(&item.name)).map_err(|d| source.error(&[*d]));
        let (of_model, of_loss) = (parameters(&model)?, parameters(&loss)?);
        for (name, value) in arguments {
            let mut taken = false;
            for (item, names) in [(&mut model, &of_model), (&mut loss, &of_loss)] {
                if names.contains(name) {
                    item.arguments.retain(|(n, _)| n != name);
                    item.arguments.push((name.clone(), value.clone()));
                    taken = true;
                }
            }
            if !taken {
                let arguments = of_model.iter().chain(&of_loss).map(String::as_str);
                let meant = did_you_mean(name, SETTINGS.iter().map(|s| s.key).chain(arguments));
                return Err(Error::Setting(format!(
                    "`{name}` is neither a setting of recipe `{}` ({}, `weights.LOSS`, `optimizer.ARGUMENT`) nor an argument of `{}` ({}) or `{}` ({}){meant}",
                    flat.recipe,
                    keys_text(),
                    model.name,
                    of_model.join(", "),
                    loss.name,
                    of_loss.join(", ")
                )));
            }
        }

        let results = source.spec.results(Some(&loss.name));
        for (key, _) in &flat.entries {
            let Some(rest) = key.strip_prefix("weights.") else { continue };
            let result = rest.split('.').next().unwrap_or(rest);
            if !results.iter().any(|r| r == result) {
                let there = results.join(", ");
                let meant = did_you_mean(result, results.iter().map(String::as_str));
                let message =
                    format!("`{key}`: `{}` has no result `{result}`; its results are {there}{meant}", loss.name);
                return Err(Error::Setting(message));
            }
        }

        // A path of the recipe is relative to the spec, one of the command line to where it is given.
        let given = keys.iter().any(|(name, _)| name == "data.path");
        let directory = if given { Path::new("") } else { spec_path.parent().unwrap_or(Path::new("")) };
        let optimizer = flat.optimizer(source)?;
        let peak = *optimizer.arguments.get("lr").ok_or_else(|| flat.lacks("optimizer.lr", "a learning rate"))?;
        let (rows, cols) = flat.image();
        let colours = flat.word("data.format") == Some("folder");
        let mean = flat.numbers("data.mean", if colours { &MEAN } else { &[0.0] });
        let std = flat.numbers("data.std", if colours { &STD } else { &[1.0] });
        let layout = Layout {
            format: if colours { Format::Folder } else { Format::Idx },
            rows,
            cols,
            classes: flat.count("data.classes"),
            crop: flat.number("data.crop", 0.875),
        };
        if mean.len().max(std.len()) > layout.channels() {
            let found = format!("{} numbers", mean.len().max(std.len()));
            return Err(flat.wrong("data.mean or data.std", "one number for grey images", &found));
        }
        Ok(Settings {
            data: DataSettings {
                path: directory.join(flat.word("data.path").unwrap_or_default()),
                layout,
                normalisation: Normalisation { mean, std },
            },
            epochs: flat.count("epochs"),
            batch: flat.count("batch"),
            seed: flat.number("seed", 0.0) as u64,
            lr: LearningRate {
                peak,
                last: flat.number("schedule.final_lr", 0.0),
                warmup_epochs: flat.number("schedule.warmup_epochs", 0.0),
            },
            weights: flat.weights(),
            augment: Augment {
                flip: flat.number("augment.flip", 0.0),
                shift: flat.number("augment.shift", 0.0) as usize,
                area: flat.get("augment.area").map(|_| flat.number("augment.area", 1.0)),
            },
            recipe: flat.recipe.clone(),
            optimizer,
            model,
            loss,
        })
    }

    /// The settings as JSON, for reports and checkpoints. The data's directory is left out: it may move.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("settings have only string keys")
    }
}

/// The setting of a key; of a loss's weight by its field.
fn setting(key: &str) -> Option<&'static Setting> {
    match key.strip_prefix("weights.") {
        Some(rest) => {
            let (_, field) = rest.split_once('.').unwrap_or((rest, "peak"));
            WEIGHT.iter().find(|s| s.key == field)
        }
        None => SETTINGS.iter().find(|s| s.key == key),
    }
}

fn is_key(name: &str) -> bool {
    SETTINGS.iter().any(|s| s.key == name) || name.starts_with("weights.") || name.starts_with("optimizer.")
}

/// What may be meant by a name that is not there, to end a message with.
fn did_you_mean<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    closest(name, names).map_or(String::new(), |meant| format!("; did you mean `{meant}`?"))
}

fn keys_text() -> String {
    SETTINGS.iter().map(|s| s.key).collect::<Vec<_>>().join(", ")
}

/// The entries of a recipe under dotted keys.
struct Flat {
    recipe: String,
    entries: Vec<(String, EntryValue)>,
}

impl Flat {
    fn add(&mut self, prefix: &str, entries: &[Entry]) {
        for e in entries {
            let key = format!("{prefix}{}", e.key);
            match &e.value {
                EntryValue::Block(inner) => self.add(&format!("{key}."), inner),
                other => self.entries.push((key, other.clone())),
            }
        }
    }
    fn set(&mut self, key: &str, value: EntryValue) {
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }
    fn get(&self, key: &str) -> Option<&EntryValue> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }
    fn value(&self, key: &str) -> Option<&Value> {
        match self.get(key) {
            Some(EntryValue::Value(v)) => Some(v),
            _ => None,
        }
    }

    /// Sees that every key is one and has a value of its kind, and that none is lacking.
    fn check(&self) -> Result<()> {
        for (key, value) in &self.entries {
            if key.starts_with("optimizer.") {
                continue;
            }
            let Some(setting) = setting(key) else {
                let fields = WEIGHT.iter().map(|s| s.key).collect::<Vec<_>>().join(", ");
                let there =
                    if key.starts_with("weights.") { fields } else { format!("{} and `weights.LOSS`", keys_text()) };
                let meant = match key.rsplit_once('.') {
                    Some((_, field)) if key.starts_with("weights.") => {
                        did_you_mean(field, WEIGHT.iter().map(|s| s.key))
                    }
                    _ => did_you_mean(key, SETTINGS.iter().map(|s| s.key)),
                };
                let message = format!("recipe `{}` has no setting `{key}`; there are {there}{meant}", self.recipe);
                return Err(Error::Setting(message));
            };
            let ok = match value {
                EntryValue::Value(v) => setting.accepts(v),
                EntryValue::Call { .. } => setting.item_keyword().is_some(),
                EntryValue::Block(_) => false,
            };
            if !ok {
                return Err(self.wrong(key, &setting.expected(), &text(value)));
            }
        }
        match SETTINGS.iter().find(|s| s.needed && self.get(s.key).is_none()) {
            Some(s) => Err(self.lacks(s.key, &s.expected())),
            None => Ok(()),
        }
    }
    fn lacks(&self, key: &str, expected: &str) -> Error {
        Error::Setting(format!("recipe `{}` lacks `{key}`: expected {expected}", self.recipe))
    }
    fn wrong(&self, key: &str, expected: &str, found: &str) -> Error {
        Error::Setting(format!("recipe `{}`: `{key}`: expected {expected}, found {found}", self.recipe))
    }

    // What follows reads what has been checked.

    fn number(&self, key: &str, default: f64) -> f64 {
        self.value(key).and_then(Value::as_number).unwrap_or(default)
    }
    fn count(&self, key: &str) -> usize {
        self.value(key).and_then(Value::as_int).map_or(0, |n| n as usize)
    }
    fn word(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(Value::Word(w) | Value::Str(w)) => Some(w),
            _ => None,
        }
    }
    /// One number, or a list of three: for each channel of colours.
    fn numbers(&self, key: &str, default: &[f64]) -> Vec<f32> {
        let narrow = |all: &[f64]| all.iter().map(|&x| x as f32).collect();
        match self.value(key) {
            Some(Value::List(parts) | Value::Tuple(parts)) => {
                narrow(&parts.iter().filter_map(Value::as_number).collect::<Vec<f64>>())
            }
            Some(one) => narrow(&[one.as_number().unwrap_or_default()]),
            None => narrow(default),
        }
    }
    fn image(&self) -> (usize, usize) {
        match self.value("data.image") {
            Some(Value::Tuple(parts)) => match parts[..] {
                [Value::Int(rows), Value::Int(cols)] => (rows as usize, cols as usize),
                _ => (0, 0),
            },
            _ => (0, 0),
        }
    }
    fn call(&self, key: &str) -> Result<ItemCall> {
        let mut arguments = Vec::new();
        let name = match self.get(key) {
            Some(EntryValue::Call { name, args }) => {
                for (argument, value) in args {
                    let Some(argument) = argument else {
                        let found = format!("`{value}` without a name");
                        return Err(self.wrong(key, "named arguments, such as `depth: 4`", &found));
                    };
                    arguments.push((argument.clone(), value.clone()));
                }
                name.clone()
            }
            _ => self.word(key).unwrap_or_default().to_owned(),
        };
        Ok(ItemCall { name, arguments })
    }
    /// The model or the loss, which is one.
    fn item(&self, key: &str, source: &Source) -> Result<ItemCall> {
        let call = self.call(key)?;
        let found = source.spec.item(Some(&call.name)).map_err(|d| source.error(&[*d]))?;
        match setting(key).and_then(Setting::item_keyword) {
            Some(wanted) if wanted != found.keyword => {
                Err(self.wrong(key, &format!("a {wanted}"), &format!("the {} `{}`", found.keyword, call.name)))
            }
            _ => Ok(call),
        }
    }
    fn optimizer(&self, source: &Source) -> Result<OptimizerSettings> {
        let call = self.call("optimizer")?;
        let known = source
            .spec
            .optimizer_arguments(&call.name)
            .ok_or_else(|| Error::Setting(format!("no optimizer `{}` in the spec or in the prelude", call.name)))?;
        let mut arguments = BTreeMap::new();
        let given = call.arguments.iter().map(|(n, v)| (n.as_str(), v));
        let overriding = self.entries.iter().filter_map(|(k, v)| match (k.strip_prefix("optimizer."), v) {
            (Some(name), EntryValue::Value(v)) => Some((name, v)),
            _ => None,
        });
        for (name, value) in given.chain(overriding) {
            let key = format!("optimizer.{name}");
            if !known.iter().any(|k| k == name) {
                let meant = did_you_mean(name, known.iter().map(String::as_str));
                let message =
                    format!("optimizer `{}` has no argument `{name}`; it has {}{meant}", call.name, known.join(", "));
                return Err(Error::Setting(message));
            }
            let number = value.as_number().ok_or_else(|| self.wrong(&key, "a number", &format!("`{value}`")))?;
            arguments.insert(name.to_owned(), number);
        }
        let clip = self.value("clip").and_then(Value::as_number);
        Ok(OptimizerSettings { rule: call.name, arguments, clip })
    }
    fn weights(&self) -> Vec<(String, Weight)> {
        let mut out: Vec<(String, Weight)> = Vec::new();
        for (key, _) in &self.entries {
            let Some(rest) = key.strip_prefix("weights.") else { continue };
            let (name, field) = rest.split_once('.').unwrap_or((rest, "peak"));
            let at = out.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                out.push((name.to_owned(), Weight::constant(1.0)));
                out.len() - 1
            });
            let weight = &mut out[at].1;
            match field {
                "warmup_epochs" => weight.warmup_epochs = self.number(key, 0.0),
                "decay" if self.word(key) == Some("cosine") => weight.decay = Decay::Cosine,
                "decay" => weight.decay = Decay::Constant,
                _ => weight.peak = self.number(key, 1.0),
            }
        }
        if out.is_empty() {
            out.push(("loss".to_owned(), Weight::constant(1.0)));
        }
        out
    }
}

fn text(value: &EntryValue) -> String {
    match value {
        EntryValue::Value(v) => format!("`{v}`"),
        EntryValue::Call { name, .. } => format!("`{name}(...)`"),
        EntryValue::Block(_) => "a block".to_owned(),
    }
}

fn as_texts<S: Serializer>(arguments: &[(String, Value)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(arguments.iter().map(|(n, v)| (n, v.to_string())))
}
