//! The Foveate spec language: grammar, syntax tree, diagnostics and formatter.
pub mod ast;
pub mod codes;
pub mod diagnostic;
mod excerpt;
pub mod format;
pub mod parse;
pub mod render;

pub use diagnostic::{Diagnostic, Severity, SourceMap};
pub use format::format;
pub use parse::parse;
