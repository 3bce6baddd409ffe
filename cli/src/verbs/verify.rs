//! `foveate verify`: the same numbers as another implementation?

use crate::args::Verify;
use crate::failure::Failure;
use crate::output::{self, Align, Table};
use crate::source;
use foveate_runtime::verify::{VerifyOptions, verify};

/// Runs the item on the file's tensors and shows a row a tensor; fails if any misses its bound.
pub fn run(arguments: &Verify) -> Result<(), Failure> {
    let found = verify(&VerifyOptions {
        spec: arguments.target.item.file.clone(),
        item: arguments.target.item.item.clone(),
        against: arguments.against.clone(),
        settings: source::values(&arguments.target.settings.set)?,
        device: arguments.device.name().to_owned(),
        rtol: arguments.rtol,
        grad_rtol: arguments.grad_rtol,
        only: arguments.only.clone(),
    })?;
    if arguments.json {
        output::say_json(&found)?;
    } else {
        let mut table = Table::new([
            ("tensor", Align::Left),
            ("relative error", Align::Right),
            ("largest error", Align::Right),
            ("bound", Align::Right),
            ("verdict", Align::Left),
        ]);
        for row in &found.rows {
            table.row([
                row.tensor.clone(),
                format!("{:.2e}", row.error),
                format!("{:.2e}", row.max_error),
                format!("{:.0e}", row.bound),
                if row.pass { "ok" } else { "MISSES" }.to_owned(),
            ]);
        }
        output::say(&table.render())?;
    }
    if found.pass {
        return Ok(());
    }
    let missed = found.rows.iter().filter(|row| !row.pass).count();
    let device = arguments.device.name();
    Err(Failure::new(format!("{missed} of {} tensors miss their bound on {device}", found.rows.len())))
}
