//! `foveate convert`: tensors of any file that is read, as safetensors.

use crate::args::Convert;
use crate::failure::Failure;
use crate::{output, source};
use foveate_runtime::checkpoint::{self, Fitted};
use foveate_runtime::driver::{Request, Source};

/// Reads, checks if there is something to check against, writes.
pub fn run(arguments: &Convert) -> Result<(), Failure> {
    let (from, tensors) = checkpoint::read_model(&arguments.from)?;
    let fitted = match &arguments.item {
        Some(item) => {
            let source = Source::load(&item.file)?;
            let fit = arguments.fitting.fit();
            let kept = tensors.iter().filter(|(name, _)| !fit.leaves(name));
            let shapes: Vec<_> = kept.map(|(name, t)| (name.clone(), t.shape.clone())).collect();
            let name = item.item.as_deref();
            let settings = source.infer(name, &source::values(&arguments.settings.set)?, &[], &shapes)?;
            let lowered = source.lower(&Request::inference(name, &settings, 1))?;
            let decls: Vec<_> = lowered.params.into_iter().chain(lowered.states).collect();
            fit.apply(&from, tensors, &decls)?
        }
        None if arguments.fitting.is_set() => {
            return Err(Failure::new("--resample and --leave fit tensors to a model: name it with --for FILE:ITEM"));
        }
        None => Fitted { tensors, resampled: Vec::new(), left: Vec::new() },
    };
    fitted.tensors.write(&arguments.out)?;
    let elements: usize = fitted.tensors.iter().map(|(_, t)| t.data.len()).sum();
    if arguments.json {
        return output::say_json(&serde_json::json!({
            "tensors": fitted.tensors.len(),
            "elements": elements,
            "resampled": fitted.resampled,
            "left": fitted.left,
            "out": arguments.out,
        }));
    }
    let mut lines = fitted.describe(&from);
    lines.push(format!("{elements} numbers written to {}", arguments.out.display()));
    output::say(&lines.join("\n"))
}
