//! The Foveate spec language: grammar, syntax tree, diagnostics and formatter.
pub mod ast;
