//! The schedules of a training run.

use super::model::{compile_step, layout, losses};
use super::optimizer;
use super::settings::Settings;
use crate::device::Device;
use crate::driver::Source;
use crate::error::Result;
use crate::plan::ALIGN;
use crate::tune::{TuneOptions, Tuner, Tuning};
use foveate_compiler::schedule::variants::Choices;

/// Tunes what every step runs: the step of a full batch, and the update. The other programs of a run (the last, smaller batch of an epoch,
/// evaluation) take what was found for units that they share with it; they run too seldom to be worth the time.
pub fn tune(
    source: &Source,
    settings: &Settings,
    device: &Device,
    budget: Option<usize>,
    options: &TuneOptions,
) -> Result<(Choices, Tuning)> {
    let mut tuner = Tuner::new(device, options)?;
    let step = compile_step(source, settings, device, settings.batch, &losses(settings), budget, Choices::NONE)?;
    tuner.tune(&step, &settings.loss.name)?;
    // As long as the arenas that the rule will be bound to.
    let len = layout(&step.lowered.params).len.max(ALIGN);
    for program in optimizer::programs(source, &settings.optimizer, device, len)? {
        tuner.tune(&program, &program.program.entry().name)?;
    }
    Ok(tuner.finish())
}
