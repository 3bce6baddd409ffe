//! `foveate fmt`: canonical formatting, in place or as a check.

use crate::args::Fmt;
use crate::failure::{self, Failure};
use crate::{output, source};
use foveate_dsl::SourceMap;
use std::path::Path;

/// Formats every file; a file that does not parse stays as it is.
pub fn run(arguments: &Fmt) -> Result<(), Failure> {
    let mut different = Vec::new();
    let mut failed = false;
    for path in &arguments.files {
        match one(path, arguments.check) {
            Ok(true) => different.push(path.display().to_string()),
            Ok(false) => {}
            Err(failure) => {
                failure.report();
                failed = true;
            }
        }
    }
    let verb = if arguments.check { "not in canonical format" } else { "formatted" };
    if arguments.json {
        output::say_json(&serde_json::json!({ "different": different }))?;
    } else {
        output::say(&different.iter().map(|path| format!("{path}: {verb}\n")).collect::<String>())?;
    }
    if failed || (arguments.check && !different.is_empty()) { Err(Failure::Reported) } else { Ok(()) }
}

/// Whether the file was not in canonical format; rewrites it unless `check`.
fn one(path: &Path, check: bool) -> Result<bool, Failure> {
    let text = source::read(path)?;
    let formatted = match foveate_dsl::format(&text) {
        Ok(formatted) => formatted,
        Err(diagnostics) => {
            let mut sources = SourceMap::new();
            sources.add(path.display().to_string(), text);
            failure::diagnose(&diagnostics, &sources)?;
            return Ok(false);
        }
    };
    if formatted == text {
        return Ok(false);
    }
    if !check {
        source::replace(path, &formatted)?;
    }
    Ok(true)
}
