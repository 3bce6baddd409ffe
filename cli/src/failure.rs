//! How a verb fails: a message for people on standard error, exit code 1.

use foveate_dsl::{Diagnostic, SourceMap};
use std::fmt::Display;
use std::path::Path;

/// Why a verb did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Everything has been said already; only the exit code is left.
    Reported,
    /// One message.
    Message(String),
    /// Diagnostics, rendered.
    Diagnostics(String),
    /// Nobody reads standard output any more; not worth a word.
    Closed,
}

impl Failure {
    /// A failure with a message: what is wrong, where, and what to do.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure::Message(message.into())
    }

    /// A failure to read or write `path`.
    pub fn io(doing: &str, path: &Path, error: impl Display) -> Failure {
        Failure::Message(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// Says what is to be said.
    pub fn report(&self) {
        match self {
            Failure::Message(message) => crate::output::complain(&format!("error: {message}\n")),
            Failure::Diagnostics(text) => crate::output::complain(&format!("{text}\n")),
            Failure::Reported | Failure::Closed => {}
        }
    }
}

impl From<foveate_runtime::Error> for Failure {
    fn from(error: foveate_runtime::Error) -> Failure {
        match error {
            foveate_runtime::Error::Spec(text) => Failure::Diagnostics(text),
            other => Failure::Message(other.to_string()),
        }
    }
}

/// Shows diagnostics on standard error; fails if one of them is an error.
pub fn diagnose(diagnostics: &[Diagnostic], sources: &SourceMap) -> Result<(), Failure> {
    if !diagnostics.is_empty() {
        let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
        crate::output::complain(&foveate_dsl::render::render(diagnostics, sources, color));
    }
    if diagnostics.iter().any(Diagnostic::is_error) { Err(Failure::Reported) } else { Ok(()) }
}
