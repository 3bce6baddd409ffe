//! The Foveate spec language: grammar, syntax tree, diagnostics and formatter.
pub mod ast;
pub mod codes;
pub mod diagnostic;
pub mod render;
