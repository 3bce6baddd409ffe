//! What can go wrong outside the compiler, in words for the person at the command line.

use std::fmt;
use std::path::{Path, PathBuf};

/// An error of the runtime. Its text names the place, what was expected and what was found.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused something.
    Io {
        /// What was being done: `read`, `write`, `create`.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in it.
        message: String,
    },
    /// Tensors of a file do not fit those of a model.
    Tensors {
        /// Where they come from.
        path: PathBuf,
        /// One line a tensor.
        problems: Vec<String>,
    },
    /// The spec has errors; rendered for a terminal.
    Spec(String),
    /// A setting or an argument has no sense.
    Setting(String),
    /// A device is missing, or failed.
    Device(String),
}

/// Results of the runtime.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An operating-system error, for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { action, path: path.as_ref().to_owned(), source }
    }
    /// A file that is not what it should be.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Error {
        Error::File { path: path.as_ref().to_owned(), message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { action, path, source } => write!(f, "cannot {action} {}: {source}", path.display()),
            Error::File { path, message } => write!(f, "{}: {message}", path.display()),
            Error::Tensors { path, problems } => {
                write!(f, "{}: the tensors do not fit", path.display())?;
                problems.iter().try_for_each(|p| write!(f, "\n  {p}"))
            }
            Error::Spec(m) | Error::Setting(m) | Error::Device(m) => f.write_str(m),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
