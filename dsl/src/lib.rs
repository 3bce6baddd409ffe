//! The Foveate spec language: grammar, syntax tree, diagnostics and formatter.
pub mod ast;
pub mod codes;
pub mod diagnostic;
pub mod parse;
pub mod render;

pub use diagnostic::{Diagnostic, Severity, SourceMap};
pub use parse::parse;
