//! Where the time of a training step goes.

use super::TrainOptions;
use super::evaluate::timed;
use super::model::Model;
use super::optimizer::Optimizer;
use super::settings::Settings;
use crate::data::{Loader, Split};
use crate::device::Device;
use crate::driver::Source;
use crate::error::{Error, Result};
use foveate_compiler::schedule::variants::Choices;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Steps that are measured, after one that compiles and one that warms up.
const STEPS: usize = 5;

/// Where the time of a training step goes.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// Seconds of each stage up to the first step, and of that step, which waits for the kernels' compilation.
    pub stages: Vec<(String, f64)>,
    /// Milliseconds of a step.
    pub step_ms: f64,
    /// Images a second at that rate.
    pub images_per_second: f64,
    /// Milliseconds of a step in which there was nothing to do but wait for images.
    pub waiting_ms: f64,
}

/// Measures a recipe's training step on its first batches. Nothing is written.
pub fn profile(options: &TrainOptions) -> Result<Profile> {
    let mut stages = Vec::new();
    let mut clock = Instant::now();
    let mut lap = |name: &str, stages: &mut Vec<(String, f64)>| {
        stages.push((name.to_owned(), clock.elapsed().as_secs_f64()));
        clock = Instant::now();
    };
    let source = Source::load(&options.spec)?;
    let settings = Settings::resolve(&source, &options.spec, options.recipe.as_deref(), &options.settings)?;
    let device = Device::open(&options.device)?;
    lap("read the spec", &mut stages);
    let directory = options.data.as_ref().unwrap_or(&settings.data.path);
    let data = settings.data.layout.read(directory, Split::Train)?;
    let loader = Loader {
        data: Arc::new(data),
        norm: settings.data.normalisation.clone(),
        batch: settings.batch,
        seed: settings.seed,
        augment: Some(settings.augment),
    };
    lap("read the data", &mut stages);
    let mut model = Model::for_training(&source, &settings, &device, options.memory, Choices::NONE)?;
    stages.extend(model.stages.iter().map(|(name, t)| ((*name).to_owned(), t.as_secs_f64())));
    let within: f64 = model.stages.iter().map(|(_, t)| t.as_secs_f64()).sum();
    lap("make memory, begin to compile kernels", &mut stages);
    if let Some(last) = stages.last_mut() {
        last.1 -= within;
    }
    let grads = model.grad_arena().ok_or_else(|| Error::Device("the model has no memory for gradients".to_owned()))?;
    let (params, decay) = (model.param_arena, model.decay_mask());
    let optimizer =
        Optimizer::new(&source, &settings.optimizer, &mut model.memory, params, grads, decay, Choices::NONE)?;
    lap("compile the optimizer", &mut stages);

    let weights: Vec<f64> = settings.weights.iter().map(|(_, w)| w.peak).collect();
    let mut feed = loader.start(0, 0);
    let (mut images, mut waited) = (0, 0.0);
    let mut measured = Instant::now();
    for step in 0..STEPS + 2 {
        if step == 2 {
            measured = Instant::now();
            (images, waited) = (0, 0.0);
        }
        let Some(batch) = timed(&mut waited, || feed.next_batch())? else { break };
        model.step(&batch, step as u64, &weights)?;
        optimizer.update(&mut model.memory, step as u64 + 1, settings.lr.peak)?;
        images += batch.labels.len();
        feed.give_back(batch);
        if step == 0 {
            lap("first step", &mut stages);
        }
    }
    let seconds = measured.elapsed().as_secs_f64();
    Ok(Profile {
        stages,
        step_ms: 1e3 * seconds / STEPS as f64,
        images_per_second: images as f64 / seconds,
        waiting_ms: 1e3 * waited / STEPS as f64,
    })
}
