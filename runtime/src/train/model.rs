//! The programs of a training run and the memory they share.

use super::optimizer::vector_bytes;
use super::settings::{ItemCall, Settings};
use crate::checkpoint::{Data, Fit, Fitted, Tensor, Tensors};
use crate::data::Batch;
use crate::device::Device;
use crate::driver::{Compiled, Request, Saving, Source, Wrt};
use crate::error::{Error, Result};
use crate::init;
use crate::plan::{ALIGN, ArenaId, Bindings, Layout, Memory, Place, Session};
use foveate_compiler::check::ParamDecl;
use foveate_compiler::grad::Seeds;
use foveate_compiler::ir::{ArgRole, Program, ResultRole};
use foveate_compiler::schedule::variants::Choices;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

/// A model in a device's memory, with the programs that train and run it, one a batch size.
pub struct Model<'a> {
    source: &'a Source,
    settings: &'a Settings,
    /// How units are scheduled, in all programs.
    choices: &'a Choices,
    /// All memory.
    pub memory: Memory,
    /// Parameters in their arena; gradients and moments have the same layout.
    pub params: Layout,
    /// States in their arena.
    pub states: Layout,
    /// Declarations of parameters and states.
    pub decls: Vec<ParamDecl>,
    /// The parameters' arena.
    pub param_arena: ArenaId,
    state_arena: ArenaId,
    training: Option<Training>,
    steps: HashMap<(usize, Vec<String>), Bound>,
    inference: Option<Bound>,
    /// Number of distinct kernels and of launches of the program that was compiled first.
    pub kernels: (usize, usize),
    /// Bytes of its temporaries.
    pub scratch_bytes: usize,
    /// The stages of its compilation with their times.
    pub stages: Vec<(&'static str, Duration)>,
    /// What the tensors of a training step may take, in bytes.
    budget: Option<usize>,
    /// What was done about that.
    pub saving: Option<Saving>,
}

/// Memory that only training needs.
#[derive(Clone, Copy)]
struct Training {
    grads: ArenaId,
    /// The losses, one at each multiple of [`ALIGN`].
    losses: ArenaId,
    /// Their weights, likewise.
    weights: ArenaId,
}

/// A bound program with the places of what goes in and out.
struct Bound {
    session: Session,
    image: Place,
    target: Option<Place>,
    key: Option<Place>,
    logits: Place,
    classes: usize,
}

/// What a step gave.
#[derive(Clone, Debug, PartialEq)]
pub struct StepResult {
    /// Each loss, unweighted.
    pub losses: BTreeMap<String, f64>,
    /// The weighted sum of those that took part.
    pub loss: f64,
    /// Images classified rightly.
    pub right: usize,
    /// Losses that were left out since they are not finite.
    pub left_out: Vec<String>,
}

impl<'a> Model<'a> {
    /// Compiles the training program for a full batch and makes memory for the model; parameters and states have their initial values.
    /// With a budget, all tensors of a training step together take no more bytes than that. All programs are scheduled as chosen.
    pub fn for_training(
        source: &'a Source,
        settings: &'a Settings,
        device: &Device,
        budget: Option<usize>,
        choices: &'a Choices,
    ) -> Result<Model<'a>> {
        let losses = losses(settings);
        let compiled = compile_step(source, settings, device, settings.batch, &losses, budget, choices)?;
        let mut model = Model::with_memory(source, settings, device, &compiled, choices)?;
        model.budget = budget;
        let scalars = losses.len() * ALIGN;
        model.training = Some(Training {
            grads: model.memory.add(model.params.len)?,
            losses: model.memory.add(scalars)?,
            weights: model.memory.add(scalars)?,
        });
        let step = model.bind(&compiled, settings.batch)?;
        model.count(&compiled, &step);
        model.steps.insert((settings.batch, losses), step);
        Ok(model)
    }

    /// A model to run and not to train.
    pub fn for_inference(source: &'a Source, settings: &'a Settings, device: &Device) -> Result<Model<'a>> {
        let batch = settings.batch;
        let compiled = compile_inference(source, &settings.model, device, batch, Choices::NONE)?;
        let mut model = Model::with_memory(source, settings, device, &compiled, Choices::NONE)?;
        let program = model.bind(&compiled, batch)?;
        model.count(&compiled, &program);
        model.inference = Some(program);
        Ok(model)
    }

    fn with_memory(
        source: &'a Source,
        settings: &'a Settings,
        device: &Device,
        compiled: &Compiled,
        choices: &'a Choices,
    ) -> Result<Model<'a>> {
        let (params, states) = (layout(&compiled.lowered.params), layout(&compiled.lowered.states));
        let decls = compiled.lowered.params.iter().chain(&compiled.lowered.states).cloned().collect();
        let mut memory = Memory::new(device.clone())?;
        let param_arena = memory.add(params.len)?;
        let state_arena = memory.add(states.len)?;
        let mut model = Model {
            source,
            settings,
            choices,
            memory,
            params,
            states,
            decls,
            param_arena,
            state_arena,
            training: None,
            steps: HashMap::new(),
            inference: None,
            kernels: (0, 0),
            scratch_bytes: 0,
            stages: compiled.stages.clone(),
            budget: None,
            saving: compiled.saving,
        };
        model.initialise()?;
        Ok(model)
    }

    fn count(&mut self, compiled: &Compiled, program: &Bound) {
        let distinct = compiled.graph.as_ref().map_or(0, |g| g.kernels.len());
        self.kernels = (distinct, program.session.launches());
        self.scratch_bytes = program.session.scratch_bytes();
    }

    /// The gradients' arena, of a model that trains.
    pub fn grad_arena(&self) -> Option<ArenaId> {
        self.training.map(|t| t.grads)
    }
    /// Number of trained numbers.
    pub fn parameter_count(&self) -> usize {
        self.params.entries.iter().map(|e| e.len).sum()
    }
    /// 1 for each element that weight decay applies to, 0 for the others and for padding.
    pub fn decay_mask(&self) -> Vec<f32> {
        let mut mask = vec![0.0; self.memory.len(self.param_arena)];
        for e in &self.params.entries {
            if self.decls.iter().any(|d| d.name == e.name && d.decay) {
                mask[e.offset..e.offset + e.len].fill(1.0);
            }
        }
        mask
    }

    fn initialise(&mut self) -> Result<()> {
        for (layout, arena) in [(&self.params, self.param_arena), (&self.states, self.state_arena)] {
            for e in &layout.entries {
                let Some(decl) = self.decls.iter().find(|d| d.name == e.name) else { continue };
                let values = init::values(decl.init, self.settings.seed, &e.name, e.len);
                self.memory.write(e.place(arena), &Data::F32(values))?;
            }
        }
        Ok(())
    }

    /// Parameters and states under their names.
    pub fn tensors(&self) -> Result<Tensors> {
        let mut out = Tensors::default();
        for (layout, arena) in [(&self.params, self.param_arena), (&self.states, self.state_arena)] {
            read_arena(&self.memory, layout, arena, "", &mut out)?;
        }
        Ok(out)
    }
    /// Takes parameters and states from tensors; `path` is where they come from, for errors. Those that are left keep their values.
    pub fn load(&mut self, path: &Path, tensors: Tensors, fit: &Fit) -> Result<Fitted> {
        let fitted = fit.apply(path, tensors, &self.decls)?;
        for (layout, arena) in [(&self.params, self.param_arena), (&self.states, self.state_arena)] {
            write_arena(&mut self.memory, layout, arena, "", &fitted.tensors)?;
        }
        Ok(fitted)
    }

    /// Forward and backward of one batch. Gradients are in their arena afterwards and states have advanced.
    ///
    /// An auxiliary loss (any but the first) that is not finite is left out: the step is done again without it.
    pub fn step(&mut self, batch: &Batch, step: u64, weights: &[f64]) -> Result<StepResult> {
        let names: Vec<String> = self.settings.weights.iter().map(|(n, _)| n.clone()).collect();
        let mut result = self.attempt(batch, step, weights, &names)?;
        let main = result.losses[&names[0]];
        if !main.is_finite() {
            return Err(Error::Device(format!(
                "training stops at step {}: the loss `{}` is {main}; a lower learning rate may help",
                step + 1,
                names[0]
            )));
        }
        let finite: Vec<String> = names.iter().filter(|n| result.losses[*n].is_finite()).cloned().collect();
        if finite.len() < names.len() {
            let again = self.attempt(batch, step, weights, &finite)?;
            result.loss = again.loss;
            result.right = again.right;
            result.left_out = names.iter().filter(|n| !finite.contains(n)).cloned().collect();
        }
        let key = (batch.labels.len(), finite);
        self.steps[&key].session.advance(&mut self.memory)?;
        Ok(result)
    }

    /// One run of the program that differentiates these losses.
    fn attempt(&mut self, batch: &Batch, step: u64, weights: &[f64], losses: &[String]) -> Result<StepResult> {
        let key = (batch.labels.len(), losses.to_vec());
        if !self.steps.contains_key(&key) {
            let compiled = compile_step(
                self.source,
                self.settings,
                self.memory.device(),
                key.0,
                losses,
                self.budget,
                self.choices,
            )?;
            let program = self.bind(&compiled, key.0)?;
            self.steps.insert(key.clone(), program);
        }
        let training =
            self.training.ok_or_else(|| Error::Setting("this model was made to run, not to train".to_owned()))?;
        let program = &self.steps[&key];
        let memory = &mut self.memory;
        let mut seeds = vec![0.0; memory.len(training.weights)];
        weights.iter().enumerate().for_each(|(n, w)| seeds[n * ALIGN] = *w as f32);
        memory.write(memory.whole(training.weights), &Data::F32(seeds))?;
        program.feed(memory, batch, self.settings.seed, step)?;
        program.session.run(memory)?;
        let values = memory.read_f32(memory.whole(training.losses))?;
        let all: BTreeMap<String, f64> = (self.settings.weights.iter().enumerate())
            .map(|(n, (name, _))| (name.clone(), f64::from(values[n * ALIGN])))
            .collect();
        let loss = (self.settings.weights.iter().zip(weights))
            .filter(|((name, _), _)| losses.contains(name))
            .map(|((name, _), w)| w * all[name])
            .sum();
        let logits = memory.read_f32(program.logits)?;
        let right = (logits.chunks_exact(program.classes).zip(&batch.labels))
            .filter(|(row, label)| largest(row) == **label as usize)
            .count();
        Ok(StepResult { losses: all, loss, right, left_out: Vec::new() })
    }

    /// The logits of a batch in inference mode, and the number of classes. One program serves all batches: those with fewer images than a
    /// full one are filled up with zeros.
    pub fn infer(&mut self, batch: &Batch) -> Result<(Vec<f32>, usize)> {
        let (size, given) = (self.settings.batch, batch.labels.len());
        let program = match self.inference.take() {
            Some(program) => program,
            None => {
                let compiled =
                    compile_inference(self.source, &self.settings.model, self.memory.device(), size, self.choices)?;
                self.bind(&compiled, size)?
            }
        };
        let mut full = Batch { images: batch.images.clone(), labels: batch.labels.clone() };
        full.images.resize(batch.images.len() / given.max(1) * size, 0.0);
        full.labels.resize(size, 0);
        let logits = program.infer(&mut self.memory, &full, self.settings.seed);
        let classes = program.classes;
        self.inference = Some(program);
        let mut logits = logits?;
        logits.truncate(given * classes);
        Ok((logits, classes))
    }

    /// Binds a program to the model's memory and finds its inputs and its logits.
    fn bind(&mut self, compiled: &Compiled, batch: usize) -> Result<Bound> {
        let item = &compiled.program.entry().name;
        for decl in compiled.lowered.params.iter().chain(&compiled.lowered.states) {
            if !self.decls.iter().any(|d| d.name == decl.name && d.shape == decl.shape) {
                return Err(Error::Setting(format!(
                    "`{item}` has `{}` of shape {:?}, which `{}` lacks: the model and the loss must share their parameters (use `flat`)",
                    decl.name, decl.shape, self.settings.loss.name
                )));
            }
        }
        let (params, states, weights) = (&self.params, &self.states, &self.settings.weights);
        let (param_arena, state_arena, training) = (self.param_arena, self.state_arena, self.training);
        let slot = |arena: Option<ArenaId>, name: &String| {
            let n = weights.iter().position(|(w, _)| w == name)?;
            Some(Place { arena: arena?, offset: n * ALIGN, len: 1 })
        };
        let args = |role: &ArgRole| match role {
            ArgRole::Param(n) => params.get(n).map(|e| e.place(param_arena)),
            ArgRole::State(n) => states.get(n).map(|e| e.place(state_arena)),
            ArgRole::Cotangent(n) => slot(training.map(|t| t.weights), n),
            _ => None,
        };
        let results = |role: &ResultRole| match role {
            ResultRole::Grad(n) => params.get(n).and_then(|e| Some(e.place(training?.grads))),
            ResultRole::Output(n) => slot(training.map(|t| t.losses), n),
            _ => None,
        };
        let bindings = Bindings { args: &args, results: &results };
        let (image, target) = find_inputs(compiled, self.settings)?;
        let logits = find_logits(&compiled.program, batch, self.settings)?;
        let session = Session::new(&mut self.memory, &compiled.program, compiled.graph.as_ref(), &bindings)?;
        let lost = || Error::Setting(format!("`{item}` does not use its images, or gives no logits"));
        let input = |name: String| session.arg(&ArgRole::Input(name));
        Ok(Bound {
            image: input(image).ok_or_else(lost)?,
            target: target.and_then(input),
            key: session.arg(&ArgRole::Key),
            logits: session.result(&ResultRole::Output(logits)).ok_or_else(lost)?.0,
            classes: self.settings.data.layout.classes,
            session,
        })
    }
}

impl Bound {
    fn infer(&self, memory: &mut Memory, batch: &Batch, seed: u64) -> Result<Vec<f32>> {
        self.feed(memory, batch, seed, 0)?;
        self.session.run(memory)?;
        memory.read_f32(self.logits)
    }
    fn feed(&self, memory: &mut Memory, batch: &Batch, seed: u64, step: u64) -> Result<()> {
        memory.write(self.image, &Data::F32(batch.images.clone()))?;
        if let Some(target) = self.target {
            memory.write(target, &Data::I64(batch.labels.iter().map(|&l| i64::from(l)).collect()))?;
        }
        if let Some(key) = self.key {
            memory.write(key, &Data::I64(vec![(seed & 0xFFFF_FFFF) as i64, (step & 0xFFFF_FFFF) as i64]))?;
        }
        Ok(())
    }
}

/// The names of a recipe's losses.
pub(super) fn losses(settings: &Settings) -> Vec<String> {
    settings.weights.iter().map(|(n, _)| n.clone()).collect()
}

pub(super) fn layout(decls: &[ParamDecl]) -> Layout {
    Layout::new(decls.iter().map(|p| (p.name.as_str(), p.shape.as_slice())))
}

/// Compiles the program that gives a recipe's losses and their gradients.
pub(super) fn compile_step(
    source: &Source,
    settings: &Settings,
    device: &Device,
    batch: usize,
    losses: &[String],
    budget: Option<usize>,
    choices: &Choices,
) -> Result<Compiled> {
    let request = Request {
        item: Some(&settings.loss.name),
        settings: &settings.loss.arguments,
        training: true,
        random: true,
        batch,
        exposed: Vec::new(),
        gradients: Some((Seeds::Cotangents(losses.to_vec()), Wrt::Params)),
        choices,
    };
    let facts = device.facts();
    match budget {
        None => source.compile(&request, facts.as_ref()),
        Some(budget) => source.compile_within(&request, facts.as_ref(), budget, &|lowered| {
            vector_bytes(source, &settings.optimizer, device, choices, layout(&lowered.params).len)
        }),
    }
}

fn compile_inference(
    source: &Source,
    model: &ItemCall,
    device: &Device,
    batch: usize,
    choices: &Choices,
) -> Result<Compiled> {
    let request = Request {
        item: Some(&model.name),
        settings: &model.arguments,
        training: false,
        random: true,
        batch,
        exposed: Vec::new(),
        gradients: None,
        choices,
    };
    source.compile(&request, device.facts().as_ref())
}

/// The inputs that take the images and the classes.
fn find_inputs(compiled: &Compiled, settings: &Settings) -> Result<(String, Option<String>)> {
    let item = &compiled.program.entry().name;
    let d = &settings.data.layout;
    let (mut image, mut target) = (None, None);
    for input in &compiled.lowered.inputs {
        let len: usize = input.shape.iter().product();
        match input.label_classes {
            Some(classes) if classes == d.classes && input.shape.is_empty() => target = Some(input.name.clone()),
            None if len == d.channels() * d.rows * d.cols => image = Some(input.name.clone()),
            _ => {
                return Err(Error::Setting(format!(
                    "the input `{}` of `{item}`, of shape {:?}, takes neither {} images of {}x{} nor labels of {} classes",
                    input.name,
                    input.shape,
                    if d.channels() == 1 { "grey" } else { "colour" },
                    d.rows,
                    d.cols,
                    d.classes
                )));
            }
        }
    }
    let image = image.ok_or_else(|| Error::Setting(format!("`{item}` has no input for images")))?;
    Ok((image, target))
}

/// The result that has a number for each class of each image. Losses must be scalars.
fn find_logits(program: &Program, batch: usize, settings: &Settings) -> Result<String> {
    let entry = program.entry();
    let mut logits = None;
    for r in &entry.results {
        let ResultRole::Output(name) = &r.role else { continue };
        let shape = program.shape(entry, r.tensor);
        if settings.weights.iter().any(|(w, _)| w == name) && !shape.is_empty() {
            return Err(Error::Setting(format!(
                "the loss `{name}` of `{}` has shape {shape:?}: expected a scalar",
                entry.name
            )));
        }
        if shape == [batch, settings.data.layout.classes] && logits.is_none() {
            logits = Some(name.clone());
        }
    }
    logits.ok_or_else(|| {
        let message = format!(
            "`{}` has no result with a number for each of {} classes",
            entry.name, settings.data.layout.classes
        );
        Error::Setting(message)
    })
}

/// The position of the largest number; the first of equal ones.
pub fn largest(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (n, &x)| if x > row[best] { n } else { best })
}

/// Reads the tensors of an arena; `suffix` is appended to their names.
pub fn read_arena(memory: &Memory, layout: &Layout, arena: ArenaId, suffix: &str, out: &mut Tensors) -> Result<()> {
    if layout.len == 0 {
        return Ok(());
    }
    let all = memory.read_f32(Place { arena, offset: 0, len: layout.len })?;
    for e in &layout.entries {
        let data = Data::F32(all[e.offset..e.offset + e.len].to_vec());
        out.insert(format!("{}{suffix}", e.name), Tensor { shape: e.shape.clone(), data });
    }
    Ok(())
}

/// Writes the tensors of an arena from those of a file that has been checked. Counters that the file lacks stay as they are.
pub fn write_arena(memory: &mut Memory, layout: &Layout, arena: ArenaId, suffix: &str, from: &Tensors) -> Result<()> {
    for e in &layout.entries {
        if let Some(t) = from.get(&format!("{}{suffix}", e.name)) {
            memory.write(e.place(arena), &t.data)?;
        }
    }
    Ok(())
}
