//! `foveate train`: a recipe, from initial values or from a checkpoint.

use crate::args::Train;
use crate::failure::Failure;
use crate::{output, source};
use foveate_runtime::train::{TrainOptions, train};
use std::path::{Path, PathBuf};

/// Trains, and says what came of it and where it lies.
pub fn run(arguments: &Train) -> Result<(), Failure> {
    let name = arguments.item.item.as_deref().or(arguments.item.file.file_stem().and_then(|stem| stem.to_str()));
    if arguments.init.is_none() && arguments.fitting.is_set() {
        return Err(Failure::new("--resample and --leave fit weights to the model: name them with --init FILE"));
    }
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("out").join(name.unwrap_or("run")));
    let outcome = train(&TrainOptions {
        spec: arguments.item.file.clone(),
        recipe: arguments.item.item.clone(),
        settings: source::values(&arguments.settings.set)?,
        data: arguments.data.clone(),
        device: arguments.device.name().to_owned(),
        out,
        resume: arguments.resume,
        init: arguments.init.clone().map(|path| (path, arguments.fitting.fit())),
        memory: arguments.memory.map(|m| m.0),
        tune: source::tune(arguments.tune, arguments.json),
        max_steps: None,
        quiet: arguments.json,
    })?;
    if arguments.json {
        return output::say_json(&outcome);
    }
    let mut text = String::new();
    if let (Some(accuracy), false) = (outcome.test_accuracy, outcome.interrupted) {
        text += &format!(
            "test accuracy {:.2} % after {} epochs and {:.0} s of training; {:.1} s to the first step\n",
            100.0 * accuracy,
            outcome.epochs,
            outcome.seconds,
            outcome.first_step_seconds
        );
    }
    let named: [(&str, &Option<PathBuf>); 3] =
        [("report", &outcome.report), ("weights", &outcome.weights), ("checkpoint", &outcome.checkpoint)];
    for (what, path) in named {
        if let Some(path) = path {
            text += &format!("{what:<10} {}\n", path.display());
        }
    }
    output::say(&text)
}
