//! Every spec of the repository passes the check without a word.

use std::path::{Path, PathBuf};

use foveate_compiler::check::{Spec, check};
use foveate_dsl::SourceMap;
use foveate_dsl::render::render;

fn specs(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            specs(&path, out);
        } else if path.extension().is_some_and(|e| e == "fov") {
            out.push(path);
        }
    }
}

#[test]
fn the_specs_are_right() {
    let mut paths = Vec::new();
    specs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs"), &mut paths);
    paths.sort();
    assert!(paths.len() > 15);
    for path in paths {
        let mut sources = SourceMap::new();
        let spec = Spec::load(&path, &mut sources).unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
        let start = std::time::Instant::now();
        let found = check(&spec, &sources);
        if std::env::var_os("SHOW").is_some() {
            println!("{:?} {}", start.elapsed(), path.display());
        }
        assert!(found.is_empty(), "{}", render(&found, &sources, false));
    }
}
