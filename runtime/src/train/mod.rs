//! Training and evaluation of a recipe.
//!
//! A run is a function of spec, settings, data and device: order, augmentation, dropout and initial values are keyed by the seed and by
//! where they are used, so a run that is stopped and resumed ends with the bits of one that was not.

mod evaluate;
pub mod metrics;
mod model;
mod optimizer;
mod previous;
mod profile;
mod progress;
mod run;
pub mod schedule;
mod settings;
mod tuning;

pub use evaluate::Evaluation;
pub use optimizer::Optimizer;
pub(crate) use optimizer::{programs as update_programs, vector_bytes};
pub use profile::{Profile, profile};
pub use run::train;
pub use settings::{DataSettings, ItemCall, OptimizerSettings, Settings};

use crate::checkpoint::{self, Fit};
use crate::data::{Loader, Split};
use crate::device::Device;
use crate::driver::Source;
use crate::error::Result;
use crate::tune::{TuneOptions, Tuning};
use foveate_compiler::check::Value;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// What to train, and where to.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The spec file.
    pub spec: PathBuf,
    /// Its recipe; `None` if it has only one.
    pub recipe: Option<String>,
    /// Settings that override the recipe's: `epochs`, `batch`, `optimizer.lr`, or an argument of the model (`depth`).
    pub settings: Vec<(String, Value)>,
    /// The data set's directory, instead of the recipe's.
    pub data: Option<PathBuf>,
    /// A device's name, see [`crate::device::NAMES`].
    pub device: String,
    /// Where checkpoints, metrics and the report go; made if it is not there. What an earlier run left there is moved to `previous` in it.
    pub out: PathBuf,
    /// Go on from the newest checkpoint in `out`.
    pub resume: bool,
    /// Values to begin with, and how they are made to fit; a file or a checkpoint. A run that is resumed has its own.
    pub init: Option<(PathBuf, Fit)>,
    /// What the tensors of a training step may take at most, in bytes; blocks are computed again in the backward to keep to it.
    pub memory: Option<usize>,
    /// Find better schedules first. A run that is resumed goes on with those it has.
    pub tune: Option<TuneOptions>,
    /// Stop after so many steps in all, and save.
    pub max_steps: Option<u64>,
    /// Print nothing.
    pub quiet: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The report; none if the run stopped before its first evaluation.
    pub report: Option<PathBuf>,
    /// The trained tensors, if training came to its end.
    pub weights: Option<PathBuf>,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Steps in all.
    pub steps: u64,
    /// Whole epochs in all.
    pub epochs: usize,
    /// Steps of this run.
    pub steps_now: u64,
    /// Share of the test images classified rightly, at the last evaluation of this run.
    pub test_accuracy: Option<f64>,
    /// Cross-entropy on the test images.
    pub test_loss: Option<f64>,
    /// Number of trained numbers.
    pub parameters: usize,
    /// Seconds of training, those of resumed runs together.
    pub seconds: f64,
    /// Seconds from the call to the end of the first step of this run.
    pub first_step_seconds: f64,
    /// Whether a person stopped it before its end.
    pub interrupted: bool,
    /// What tuning came to, if there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
}

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The spec file.
    pub spec: PathBuf,
    /// Its recipe, which names the model and the data; `None` if it has only one.
    pub recipe: Option<String>,
    /// Settings that override the recipe's.
    pub settings: Vec<(String, Value)>,
    /// A safetensors or PyTorch file, a checkpoint, or a training run's directory.
    pub weights: PathBuf,
    /// How its tensors are made to fit.
    pub fit: Fit,
    /// The data set's directory, instead of the recipe's.
    pub data: Option<PathBuf>,
    /// A device's name.
    pub device: String,
}

/// Runs a trained model over the test images.
pub fn eval(options: &EvalOptions) -> Result<Evaluation> {
    let source = Source::load(&options.spec)?;
    let settings = Settings::resolve(&source, &options.spec, options.recipe.as_deref(), &options.settings)?;
    let device = Device::open(&options.device)?;
    let (path, tensors) = checkpoint::read_model(&options.weights)?;
    let directory = options.data.as_ref().unwrap_or(&settings.data.path);
    let data = settings.data.layout.read(directory, Split::Test)?;
    let mut model = model::Model::for_inference(&source, &settings, &device)?;
    model.load(&path, tensors, &options.fit)?.complete()?;
    let loader = Loader {
        data: Arc::new(data),
        norm: settings.data.normalisation.clone(),
        batch: settings.batch,
        seed: settings.seed,
        augment: None,
    };
    evaluate::evaluate(&mut model, &loader)
}
