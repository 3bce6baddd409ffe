//! A recipe with everything resolved: what the file says, what the command line overrides, and defaults.

use super::schedule::{Decay, LearningRate, Weight};
use crate::data::{Augment, Format, Layout, Normalisation};
use crate::driver::Source;
use crate::error::{Error, Result};
use crate::predict::{MEAN, STD};
use foveate_compiler::check::{Entry, EntryValue, Value};
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

/// Keys that a recipe may have, apart from the losses' names under `weights` and the optimizer's arguments.
const KEYS: [&str; 19] = [
    "model",
    "loss",
    "data.format",
    "data.path",
    "data.image",
    "data.classes",
    "data.mean",
    "data.std",
    "data.crop",
    "epochs",
    "batch",
    "seed",
    "optimizer",
    "clip",
    "schedule.warmup_epochs",
    "schedule.final_lr",
    "augment.flip",
    "augment.shift",
    "augment.area",
];

impl Settings {
    /// Resolves a recipe of a spec; `None` if it has only one. `overrides` are keys of the recipe (`epochs`, `optimizer.lr`) or arguments of
    /// its model and its loss (`depth`).
    pub fn resolve(
        source: &Source,
        spec_path: &Path,
        recipe: Option<&str>,
        overrides: &[(String, Value)],
    ) -> Result<Settings> {
        let recipe = source.spec.recipe(recipe).map_err(|d| source.error(&[*d]))?;
        let mut flat = Flat { recipe: recipe.name.clone(), entries: Vec::new() };
        flat.add("", &recipe.entries);
        flat.check_keys()?;
        let mut model = flat.item("model")?;
        let mut loss = flat.item("loss")?;
        let parameters = |item: &ItemCall| source.spec.arguments(Some(&item.name)).map_err(|d| source.error(&[*d]));
        let (of_model, of_loss) = (parameters(&model)?, parameters(&loss)?);
        for (name, value) in overrides {
            if is_key(name) {
                flat.set(name, EntryValue::Value(value.clone()));
                continue;
            }
            let mut taken = false;
            for (item, names) in [(&mut model, &of_model), (&mut loss, &of_loss)] {
                if names.contains(name) {
                    item.arguments.retain(|(n, _)| n != name);
                    item.arguments.push((name.clone(), value.clone()));
                    taken = true;
                }
            }
            if !taken {
                return Err(Error::Setting(format!(
                    "`{name}` is neither a setting of recipe `{}` ({}, `weights.LOSS`, `optimizer.ARGUMENT`) nor an argument of `{}` ({}) or `{}` ({})",
                    flat.recipe,
                    KEYS.join(", "),
                    model.name,
                    of_model.join(", "),
                    loss.name,
                    of_loss.join(", ")
                )));
            }
        }

        let format = match flat.word("data.format")?.as_deref() {
            None | Some("idx") => Format::Idx,
            Some("folder") => Format::Folder,
            Some(other) => return Err(flat.wrong("data.format", "`idx` or `folder`", &format!("`{other}`"))),
        };
        let directory = spec_path.parent().unwrap_or(Path::new(""));
        let path = flat.word("data.path")?.ok_or_else(|| flat.lacks("data.path", "a directory in quotes"))?;
        let (rows, cols) = flat.image()?;
        let optimizer = flat.optimizer()?;
        let peak = *optimizer.arguments.get("lr").ok_or_else(|| flat.lacks("optimizer.lr", "a learning rate"))?;
        let colours = format == Format::Folder;
        let mean = flat.numbers("data.mean", if colours { &MEAN } else { &[0.0] }, f64::NEG_INFINITY)?;
        let std = flat.numbers("data.std", if colours { &STD } else { &[1.0] }, f64::MIN_POSITIVE)?;
        let layout = Layout {
            format,
            rows,
            cols,
            classes: flat.count("data.classes", None, 65536)?,
            crop: flat.number("data.crop", 0.875, f64::MIN_POSITIVE, 1.0)?,
        };
        if mean.len().max(std.len()) > layout.channels() {
            let found = format!("{} numbers", mean.len().max(std.len()));
            return Err(flat.wrong("data.mean or data.std", "one number for grey images", &found));
        }
        let area = match flat.get("augment.area") {
            None => None,
            Some(_) => Some(flat.number("augment.area", 1.0, f64::MIN_POSITIVE, 1.0)?),
        };
        Ok(Settings {
            data: DataSettings { path: directory.join(path), layout, normalisation: Normalisation { mean, std } },
            epochs: flat.count("epochs", None, 1 << 20)?,
            batch: flat.count("batch", None, 1 << 20)?,
            seed: flat.number("seed", 0.0, 0.0, f64::from(u32::MAX))? as u64,
            lr: LearningRate {
                peak,
                last: flat.number("schedule.final_lr", 0.0, 0.0, f64::INFINITY)?,
                warmup_epochs: flat.number("schedule.warmup_epochs", 0.0, 0.0, f64::INFINITY)?,
            },
            weights: flat.weights()?,
            augment: Augment {
                flip: flat.number("augment.flip", 0.0, 0.0, 1.0)?,
                shift: flat.number("augment.shift", 0.0, 0.0, 1e4)? as usize,
                area,
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

fn is_key(name: &str) -> bool {
    KEYS.contains(&name) || name.starts_with("weights.") || name.starts_with("optimizer.")
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
    fn check_keys(&self) -> Result<()> {
        match self.entries.iter().find(|(k, _)| !is_key(k)) {
            None => Ok(()),
            Some((key, _)) => Err(Error::Setting(format!(
                "recipe `{}` has no setting `{key}`; there are {} and `weights.LOSS`",
                self.recipe,
                KEYS.join(", ")
            ))),
        }
    }
    fn lacks(&self, key: &str, expected: &str) -> Error {
        Error::Setting(format!("recipe `{}` lacks `{key}`: expected {expected}", self.recipe))
    }
    fn wrong(&self, key: &str, expected: &str, found: &str) -> Error {
        Error::Setting(format!("recipe `{}`: `{key}`: expected {expected}, found {found}", self.recipe))
    }
    fn value(&self, key: &str) -> Option<&Value> {
        match self.get(key) {
            Some(EntryValue::Value(v)) => Some(v),
            _ => None,
        }
    }
    fn number(&self, key: &str, default: f64, lo: f64, hi: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match self.value(key).and_then(Value::as_number).filter(|x| (lo..=hi).contains(x)) {
            Some(x) => Ok(x),
            None => Err(self.wrong(key, &format!("a number from {lo} to {hi}"), &text(value))),
        }
    }
    /// One number, or a list of three: for each channel of colours.
    fn numbers(&self, key: &str, default: &[f64], lo: f64) -> Result<Vec<f32>> {
        let narrow = |all: &[f64]| all.iter().map(|&x| x as f32).collect();
        let Some(value) = self.get(key) else { return Ok(narrow(default)) };
        let all = match self.value(key) {
            Some(Value::List(parts) | Value::Tuple(parts)) if parts.len() == 3 => {
                parts.iter().map(Value::as_number).collect::<Option<Vec<f64>>>()
            }
            Some(one) => one.as_number().map(|x| vec![x]),
            None => None,
        };
        let all = all.filter(|all| all.iter().all(|&x| x >= lo && x.is_finite()));
        all.map(|all| narrow(&all)).ok_or_else(|| self.wrong(key, "a number or a list of three", &text(value)))
    }
    fn count(&self, key: &str, default: Option<usize>, most: usize) -> Result<usize> {
        let expected = format!("an integer from 1 to {most}");
        match (self.get(key), default) {
            (None, Some(n)) => Ok(n),
            (None, None) => Err(self.lacks(key, &expected)),
            (Some(v), _) => match self.value(key).and_then(Value::as_int) {
                Some(n) if n >= 1 && n as u64 <= most as u64 => Ok(n as usize),
                _ => Err(self.wrong(key, &expected, &text(v))),
            },
        }
    }
    fn word(&self, key: &str) -> Result<Option<String>> {
        match (self.get(key), self.value(key)) {
            (None, _) => Ok(None),
            (_, Some(Value::Word(w) | Value::Str(w))) => Ok(Some(w.clone())),
            (Some(v), _) => Err(self.wrong(key, "a word or a text in quotes", &text(v))),
        }
    }
    fn image(&self) -> Result<(usize, usize)> {
        let found = self.get("data.image").ok_or_else(|| self.lacks("data.image", "a size such as 28x28"))?;
        if let Some(Value::Tuple(parts)) = self.value("data.image")
            && let [Value::Int(rows @ 1..=65536), Value::Int(cols @ 1..=65536)] = parts[..]
        {
            return Ok((rows as usize, cols as usize));
        }
        Err(self.wrong("data.image", "a size such as 28x28", &text(found)))
    }
    fn item(&self, key: &str) -> Result<ItemCall> {
        match self.get(key) {
            None => Err(self.lacks(key, "an item with its arguments, such as `Net(depth: 4)`")),
            Some(EntryValue::Call { name, args }) => {
                let mut arguments = Vec::new();
                for (argument, value) in args {
                    match argument {
                        Some(n) => arguments.push((n.clone(), value.clone())),
                        None => {
                            let found = format!("`{value}` without a name");
                            return Err(self.wrong(key, "named arguments, such as `depth: 4`", &found));
                        }
                    }
                }
                Ok(ItemCall { name: name.clone(), arguments })
            }
            Some(EntryValue::Value(Value::Word(name))) => Ok(ItemCall { name: name.clone(), arguments: Vec::new() }),
            Some(other) => Err(self.wrong(key, "an item with its arguments", &text(other))),
        }
    }
    fn optimizer(&self) -> Result<OptimizerSettings> {
        let call = self.item("optimizer")?;
        let mut arguments = BTreeMap::new();
        let given = call.arguments.iter().map(|(n, v)| (n.clone(), v));
        let overriding = self.entries.iter().filter_map(|(k, v)| match (k.strip_prefix("optimizer."), v) {
            (Some(name), EntryValue::Value(v)) => Some((name.to_owned(), v)),
            _ => None,
        });
        for (name, value) in given.chain(overriding) {
            let key = format!("optimizer.{name}");
            let number = value.as_number().ok_or_else(|| self.wrong(&key, "a number", &value.to_string()))?;
            arguments.insert(name, number);
        }
        let clip = match self.get("clip") {
            None => None,
            Some(_) => Some(self.number("clip", 0.0, f64::MIN_POSITIVE, f64::INFINITY)?),
        };
        Ok(OptimizerSettings { rule: call.name, arguments, clip })
    }
    fn weights(&self) -> Result<Vec<(String, Weight)>> {
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
                "peak" => weight.peak = self.number(key, 1.0, f64::NEG_INFINITY, f64::INFINITY)?,
                "warmup_epochs" => weight.warmup_epochs = self.number(key, 0.0, 0.0, f64::INFINITY)?,
                "decay" => {
                    weight.decay = match self.word(key)?.as_deref() {
                        Some("cosine") => Decay::Cosine,
                        Some("constant") => Decay::Constant,
                        found => return Err(self.wrong(key, "`cosine` or `constant`", found.unwrap_or("nothing"))),
                    }
                }
                _ => {
                    let message = "there are `peak`, `warmup_epochs` and `decay`";
                    return Err(Error::Setting(format!("recipe `{}` has no setting `{key}`; {message}", self.recipe)));
                }
            }
        }
        if out.is_empty() {
            out.push(("loss".to_owned(), Weight::constant(1.0)));
        }
        Ok(out)
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
