//! What several tests of the language share.
#![allow(dead_code)] // each test binary uses a part of it

pub mod trees;

use foveate_dsl::ast::File;
use foveate_dsl::render::render;
use foveate_dsl::{SourceMap, parse};
use serde_json::Value;

/// A text that holds every construct of the language.
pub const EVERYTHING: &str = include_str!("everything.fov");

/// Reads a text that must have no errors.
pub fn read(text: &str) -> File {
    let (file, diagnostics) = parse(0, text);
    let mut sources = SourceMap::new();
    sources.add("test.fov", text);
    assert!(diagnostics.is_empty(), "{}\n{text}", render(&diagnostics, &sources, false));
    file
}

/// A tree without its spans.
pub fn without_spans(file: &File) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) if fields.len() == 3 && fields.contains_key("start") => *value = Value::Null,
            Value::Object(fields) => fields.values_mut().for_each(strip),
            Value::Array(parts) => parts.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(file).expect("a tree is plain data");
    strip(&mut value);
    value
}
