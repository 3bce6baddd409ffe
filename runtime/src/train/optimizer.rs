//! The optimiser: one update rule of a spec, compiled like any other program and run over all parameters at once.
//!
//! # Which arguments a rule has
//! Vectors: `p` (parameters), `g` (gradients), `decay` (1 where weight decay applies); every other one is a moment, zero at first. The
//! result `X2` is the next value of `X`. Scalars: `lr`, `wd` (the recipe's `weight_decay`), `scale` (of the gradient, for clipping),
//! `bias1` and `bias2` (1 - beta1^t and 1 - beta2^t at step t, from 1), and the recipe's arguments by their names.

use super::settings::OptimizerSettings;
use crate::checkpoint::Data;
use crate::device::Device;
use crate::driver::{Compiled, Request, Source};
use crate::error::{Error, Result};
use crate::plan::{ALIGN, ArenaId, Bindings, Memory, Place, Session, replaces};
use foveate_compiler::check::{Spec, Value};
use foveate_compiler::ir::{ArgRole, Elem, Program, ResultRole};
use foveate_compiler::schedule::variants::Choices;
use foveate_dsl::SourceMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Adds to the norm that the clipping factor divides by, as PyTorch does.
const CLIP_EPSILON: f64 = 1e-6;
/// What computes the norm.
const NORM: &str = "SquaredNorm";

/// An update rule bound to the arenas of parameters and gradients.
pub struct Optimizer {
    rule: Session,
    settings: OptimizerSettings,
    /// Vectors that the rule gives anew: the value's arena, and the spare one that receives the next value if that cannot take its place at once.
    updated: Vec<(ArenaId, Option<ArenaId>)>,
    /// Moments by name.
    pub moments: Vec<(String, ArenaId)>,
    scalars: Vec<String>,
    scalar_arena: ArenaId,
    norm: Option<Session>,
}

/// What one update was.
pub struct Update {
    /// L2 norm of the whole gradient before clipping, if it was computed.
    pub grad_norm: Option<f64>,
}

/// Compiles an update rule for vectors of `len` elements: of the spec, or else of the prelude.
fn compile(source: &Source, device: &Device, choices: &Choices, name: &str, len: usize) -> Result<Compiled> {
    let size = [("N".to_owned(), Value::Int(len as i64))];
    let request = Request { training: true, choices, ..Request::inference(Some(name), &size, 1) };
    let facts = device.facts();
    if source.spec.item(Some(name)).is_ok() {
        source.compile(&request, facts.as_ref())
    } else {
        prelude(name)?.compile(&request, facts.as_ref())
    }
}

/// The programs of a rule for vectors of `len` elements, scheduled by default.
pub(crate) fn programs(
    source: &Source,
    settings: &OptimizerSettings,
    device: &Device,
    len: usize,
) -> Result<Vec<Compiled>> {
    let names = std::iter::once(settings.rule.as_str()).chain(settings.clip.map(|_| NORM));
    names.map(|name| compile(source, device, Choices::NONE, name, len)).collect()
}

/// Whether the next value of a vector may be written where its value is.
fn in_place(compiled: &Compiled, device: &Device, next: &ResultRole, value: &str) -> bool {
    let works = device.works_in_place();
    compiled.graph.as_ref().is_some_and(|g| works && replaces(g, next, &ArgRole::Input(value.to_owned())))
}

/// Bytes that a rule's vectors take beside parameters and gradients of `len` elements each.
pub(crate) fn vector_bytes(
    source: &Source,
    settings: &OptimizerSettings,
    device: &Device,
    choices: &Choices,
    len: usize,
) -> Result<usize> {
    let compiled = compile(source, device, choices, &settings.rule, len)?;
    let own = inputs(&compiled.program).0.iter().filter(|name| !matches!(name.as_str(), "p" | "g")).count();
    let spare = compiled.program.entry().results.iter().filter(|r| match &r.role {
        ResultRole::Output(name) => {
            name.strip_suffix('2').is_some_and(|value| !in_place(&compiled, device, &r.role, value))
        }
        _ => false,
    });
    Ok(4 * len * (own + spare.count()))
}

impl Optimizer {
    /// Compiles the rule for arenas of `params` and `grads`; `decay` has a 1 or 0 an element.
    pub fn new(
        source: &Source,
        settings: &OptimizerSettings,
        memory: &mut Memory,
        params: ArenaId,
        grads: ArenaId,
        decay: Vec<f32>,
        choices: &Choices,
    ) -> Result<Optimizer> {
        let len = memory.len(params);
        let whole = |arena| Place { arena, offset: 0, len };
        let compiled = compile(source, memory.device(), choices, &settings.rule, len)?;
        let (vectors, scalars) = inputs(&compiled.program);

        let decay = Data::F32(decay);
        let mut arenas: HashMap<String, ArenaId> = HashMap::new();
        let mut moments = Vec::new();
        for name in vectors {
            let arena = match name.as_str() {
                "p" => params,
                "g" => grads,
                "decay" => {
                    let arena = memory.add(len)?;
                    memory.write(whole(arena), &decay)?;
                    arena
                }
                _ => {
                    let arena = memory.add(len)?;
                    moments.push((name.clone(), arena));
                    arena
                }
            };
            arenas.insert(name, arena);
        }
        drop(decay);
        let mut updated = Vec::new();
        let mut next: HashMap<String, ArenaId> = HashMap::new();
        for result in &compiled.program.entry().results {
            let ResultRole::Output(name) = &result.role else { continue };
            let Some((of, &value)) = name.strip_suffix('2').and_then(|n| arenas.get_key_value(n)) else {
                return Err(Error::Setting(format!(
                    "optimizer `{}`: the result `{name}` is the next value of no argument (`p2` would be that of `p`)",
                    settings.rule
                )));
            };
            let same = in_place(&compiled, memory.device(), &result.role, of);
            let spare = if same { None } else { Some(memory.add(len)?) };
            updated.push((value, spare));
            next.insert(name.clone(), spare.unwrap_or(value));
        }
        for name in &scalars {
            if settings.scalar(name, 1, 0.0, 1.0).is_none() {
                return Err(Error::Setting(format!(
                    "optimizer `{}` needs a value for `{name}`: give it in the recipe, as `optimizer: {}({name}: ...)`",
                    settings.rule, settings.rule
                )));
            }
        }
        let scalar_arena = memory.add(scalars.len() * ALIGN)?;
        let args = |role: &ArgRole| match role {
            ArgRole::Input(name) => arenas.get(name).map(|&a| whole(a)).or_else(|| {
                let n = scalars.iter().position(|s| s == name)?;
                Some(Place { arena: scalar_arena, offset: n * ALIGN, len: 1 })
            }),
            _ => None,
        };
        let results = |role: &ResultRole| match role {
            ResultRole::Output(name) => next.get(name).map(|&a| whole(a)),
            _ => None,
        };
        let bindings = Bindings { args: &args, results: &results };
        let rule = Session::new(memory, &compiled.program, compiled.graph.as_ref(), &bindings)?;

        let norm = match settings.clip {
            None => None,
            Some(_) => {
                let compiled = compile(source, memory.device(), choices, NORM, len)?;
                let args = |role: &ArgRole| (*role == ArgRole::Input("g".into())).then(|| whole(grads));
                let bindings = Bindings { args: &args, ..Bindings::NONE };
                Some(Session::new(memory, &compiled.program, compiled.graph.as_ref(), &bindings)?)
            }
        };
        Ok(Optimizer { rule, settings: settings.clone(), updated, moments, scalars, scalar_arena, norm })
    }

    /// Updates the parameters from the gradients; `step` counts from 1. Fails if the gradient's norm is not finite.
    pub fn update(&self, memory: &mut Memory, step: u64, lr: f64) -> Result<Update> {
        let mut grad_norm = None;
        let mut scale = 1.0;
        if let (Some(norm), Some(clip)) = (&self.norm, self.settings.clip) {
            norm.run(memory)?;
            let total = ResultRole::Output("total".to_owned());
            let (place, elem, _) =
                norm.result(&total).ok_or_else(|| Error::Setting(format!("`{NORM}` must have the result `total`")))?;
            let value = memory.read_f64(place, elem)?[0].sqrt();
            if !value.is_finite() {
                return Err(Error::Device(format!(
                    "training stops at step {step}: the norm of the gradient is {value}; a lower learning rate may help"
                )));
            }
            scale = (clip / (value + CLIP_EPSILON)).min(1.0);
            grad_norm = Some(value);
        }
        let mut values = vec![0.0; memory.len(self.scalar_arena)];
        for (n, name) in self.scalars.iter().enumerate() {
            values[n * ALIGN] = self.settings.scalar(name, step, lr, scale).unwrap_or(0.0) as f32;
        }
        memory.write(memory.whole(self.scalar_arena), &Data::F32(values))?;
        self.rule.run(memory)?;
        for &(value, spare) in &self.updated {
            if let Some(spare) = spare {
                memory.swap(value, spare);
            }
            memory.round_to_f32(value);
        }
        Ok(Update { grad_norm })
    }
}

impl OptimizerSettings {
    /// The value of a rule's scalar argument at a step, if there is one.
    fn scalar(&self, name: &str, step: u64, lr: f64, scale: f64) -> Option<f64> {
        let beta = |name: &str| self.arguments.get(name).map(|b| 1.0 - libm::pow(*b, step as f64));
        match name {
            "lr" => Some(lr),
            "scale" => Some(scale),
            "wd" => Some(self.arguments.get("weight_decay").copied().unwrap_or(0.0)),
            "bias1" => beta("beta1"),
            "bias2" => beta("beta2"),
            _ => self.arguments.get(name).copied(),
        }
    }
}

/// The inputs of a rule: vectors and scalars.
fn inputs(program: &Program) -> (Vec<String>, Vec<String>) {
    let entry = program.entry();
    let (mut vectors, mut scalars) = (Vec::new(), Vec::new());
    for arg in &entry.args {
        if let ArgRole::Input(name) = &arg.role {
            debug_assert_eq!(entry.tensor(arg.tensor).elem, Elem::F32);
            let list = if entry.tensor(arg.tensor).dims.is_empty() { &mut scalars } else { &mut vectors };
            list.push(name.clone());
        }
    }
    (vectors, scalars)
}

/// A spec that has an item of the prelude and nothing else.
fn prelude(name: &str) -> Result<Source> {
    let path = Path::new("prelude.fov");
    let text = format!("foveate 1\n\nimport {name} from prelude\n");
    let files: HashMap<PathBuf, String> = HashMap::from([(path.to_owned(), text)]);
    let mut sources = SourceMap::new();
    match Spec::load_from(path, &files, &mut sources) {
        Ok(spec) => Ok(Source { spec, sources }),
        Err(_) => Err(Error::Setting(format!("no optimizer `{name}` in the spec or in the prelude"))),
    }
}
