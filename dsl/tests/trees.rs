//! The syntax trees of the four published systems, without places.

use serde_json::Value;
use std::path::Path;

/// The tree as lines: what is short stays on one.
fn show(value: &Value, indent: usize, out: &mut String) {
    let short = short(value);
    if short.len() + indent <= 120 {
        out.push_str(&short);
        return;
    }
    let pad = " ".repeat(indent + 2);
    let mut child = |label: &str, value: &Value| {
        out.push('\n');
        out.push_str(&pad);
        out.push_str(label);
        show(value, indent + 2, out);
    };
    match value {
        Value::Array(items) => items.iter().for_each(|v| child("- ", v)),
        Value::Object(fields) => {
            fields.iter().filter(|(_, v)| !is_empty(v)).for_each(|(k, v)| child(&format!("{k}: "), v));
        }
        other => out.push_str(&other.to_string()),
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(short).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, v)| !is_empty(v));
            format!("{{{}}}", fields.map(|(k, v)| format!("{k}: {}", short(v))).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// Takes the places out, and the wrapping of what then has one field.
fn plain(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(fields) => {
            let placed = fields.contains_key("span");
            let fields = fields.into_iter().filter(|(k, _)| k != "span" && k != "doc");
            let fields: serde_json::Map<String, Value> = fields.map(|(k, v)| (k, plain(v))).collect();
            match fields.iter().next() {
                Some(_) if placed && fields.len() == 1 => fields.into_iter().map(|(_, v)| v).next().unwrap_or_default(),
                _ => Value::Object(fields),
            }
        }
        other => other,
    }
}

#[test]
fn trees_of_the_four_systems() {
    for name in ["attention/sp_sa", "attention/mcsa", "attention/vicinity", "losses/spatial_entropy"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs").join(name).with_extension("fov");
        let text = std::fs::read_to_string(path).expect("readable");
        let (file, diagnostics) = foveate_dsl::parse(0, &text);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let mut out = String::new();
        show(&plain(serde_json::to_value(file).expect("serialises")), 0, &mut out);
        let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(name.replace('/', "_"), lines.join("\n"));
    }
}
