//! `foveate eval`: a checkpoint on the test images.

use crate::args::Eval;
use crate::failure::Failure;
use crate::output::{self, Align, Table};
use crate::source;
use foveate_runtime::train::{EvalOptions, Evaluation, eval};

/// Evaluates, and shows loss, accuracy and which classes are taken for which.
pub fn run(arguments: &Eval) -> Result<(), Failure> {
    let found = eval(&EvalOptions {
        spec: arguments.item.file.clone(),
        recipe: arguments.item.item.clone(),
        settings: source::values(&arguments.settings.set)?,
        weights: arguments.weights.clone(),
        fit: arguments.fitting.fit(),
        data: arguments.data.clone(),
        device: arguments.device.name().to_owned(),
    })?;
    if arguments.json {
        return output::say_json(&serde_json::json!({
            "accuracy": found.accuracy,
            "top5": found.top5,
            "loss": found.loss,
            "images_per_second": found.images_per_second,
            "waiting": found.waiting,
            "confusion": found.confusion,
        }));
    }
    output::say(&text(&found))
}

/// Most classes that are shown against each other.
const CLASSES: usize = 40;

fn text(found: &Evaluation) -> String {
    let mut out = format!(
        "accuracy {:.2} %, of five guesses {:.2} %, cross-entropy {:.4}, {:.0} images/s",
        100.0 * found.accuracy,
        100.0 * found.top5,
        found.loss,
        found.images_per_second
    );
    if found.confusion.is_empty() || found.confusion.len() > CLASSES {
        return out;
    }
    let classes: Vec<String> = (0..found.confusion.len()).map(|class| class.to_string()).collect();
    let heads = std::iter::once(("class", Align::Right)).chain(classes.iter().map(|c| (c.as_str(), Align::Right)));
    let mut table = Table::new(heads);
    for (class, row) in found.confusion.iter().enumerate() {
        table.row(std::iter::once(class.to_string()).chain(row.iter().map(usize::to_string)));
    }
    out += &format!("\n\nHow often a class (row) was taken for another (column)\n{}", table.render());
    out
}
