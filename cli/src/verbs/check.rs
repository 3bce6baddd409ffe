//! `foveate check`: parse and check, and say everything that is wrong.

use crate::args::Check;
use crate::failure::{self, Failure};
use crate::{output, source};
use foveate_compiler::check::{self, Spec};
use foveate_dsl::{SourceMap, render};

/// Checks every file; one bad file does not hide the others.
pub fn run(arguments: &Check) -> Result<(), Failure> {
    let mut failed = false;
    let mut found = Vec::new();
    for path in &arguments.files {
        // What cannot be read at all has no place in a text.
        if let Err(failure) = source::read(path) {
            failure.report();
            failed = true;
            continue;
        }
        let mut sources = SourceMap::new();
        let diagnostics = match Spec::load(path, &mut sources) {
            Ok(spec) => check::check(&spec, &sources),
            Err(diagnostics) => diagnostics,
        };
        if arguments.json {
            found.extend(render::to_json(&diagnostics, &sources));
        }
        failed |= failure::diagnose(&diagnostics, &sources).is_err();
    }
    if arguments.json {
        output::say_json(&found)?;
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}
