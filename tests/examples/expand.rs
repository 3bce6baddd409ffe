//! Writes a golden case of full size as one file, weights and all: `expand CASE OUT.safetensors`.

use foveate_tests::full_size::{FULL_SIZE, expand};
use std::path::Path;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, out] = arguments.as_slice() else { return Err("usage: expand CASE OUT.safetensors".to_owned()) };
    let names = || FULL_SIZE.map(|(case, _)| case.name).join(", ");
    let found = FULL_SIZE.iter().find(|(case, _)| case.name == name);
    let (case, _) = found.ok_or_else(|| format!("no case `{name}`; there are {}", names()))?;
    expand(case).write(Path::new(out)).map_err(|e| e.to_string())
}
