//! What holds of the project's own files: their length, that nothing is left undone, that the stages are general, and how specs are written.

use foveate_tests::golden::root;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a file may have.
const LONGEST: usize = 600;

/// Names of variants and modules that no stage may know.
const VARIANTS: [&str; 18] = [
    "sp_sa",
    "spsa",
    "spatial_prior",
    "spatialprior",
    "mcsa",
    "central_attention",
    "centralattention",
    "vicinity",
    "spatial_entropy",
    "spatial entropy",
    "spatialentropy",
    "swin",
    "alibi",
    "simvit",
    "vvt",
    "sp_vit",
    "sp-vit",
    "deit",
];

/// All files under a folder with one of these endings; folders that are hidden or hold what a build makes are left out.
fn files(under: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under).expect("a readable folder").map(|e| e.expect("a readable entry").path()) {
        let name = entry.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if entry.is_dir() {
            if !name.starts_with('.') && !["target", "out", "node_modules"].contains(&name) {
                found.extend(files(&entry, endings));
            }
        } else if entry.extension().and_then(|e| e.to_str()).is_some_and(|e| endings.contains(&e)) {
            found.push(entry);
        }
    }
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The lines of the files in which something is found, for a message.
fn places(paths: &[PathBuf], finds: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        for (number, line) in text(path).lines().enumerate().filter(|(_, line)| finds(line)) {
            found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
        }
    }
    found
}

#[test]
fn files_are_short() {
    let paths = files(&root(), &["rs", "fov", "md", "sh", "py", "toml", "pest"]);
    assert!(paths.len() > 50, "{paths:?}");
    let long = paths.iter().map(|p| (p, text(p).lines().count())).filter(|(_, lines)| *lines > LONGEST);
    let long: Vec<String> = long.map(|(p, lines)| format!("{}: {lines} lines", p.display())).collect();
    assert!(long.is_empty(), "more than {LONGEST} lines:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_undone() {
    // In two parts each, so that this file does not hold them.
    let marks = [("TO", "DO"), ("FIX", "ME"), ("to", "do!("), ("unimplemented", "!(")].map(|(a, b)| format!("{a}{b}"));
    let paths = files(&root(), &["rs", "fov", "md", "sh", "py", "toml", "pest"]);
    let found = places(&paths, |line| marks.iter().any(|m| line.contains(m.as_str())));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn stages_know_no_variant() {
    for stage in ["compiler", "codegen", "runtime"] {
        let found = places(&files(&root().join(stage).join("src"), &["rs"]), |line| {
            let line = line.to_lowercase();
            VARIANTS.iter().any(|v| line.contains(v))
        });
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn the_golden_bounds_are_written_down() {
    let page = text(&root().join("tests/golden/README.md"));
    for bound in ["1e-5", "1e-4", "1e-6", "1e-7 G"] {
        assert!(page.contains(bound), "tests/golden/README.md does not name the bound {bound}");
    }
    use foveate_tests::full_size::FULL_SIZE;
    use foveate_tests::golden::{CASES, MODELS};
    let cases: Vec<_> = CASES.iter().chain(MODELS.iter()).chain(FULL_SIZE.iter().map(|(case, _)| case)).collect();
    for case in &cases {
        assert!(page.contains(case.name) && page.contains(case.settings), "tests/golden/README.md lacks {}", case.name);
        assert!(case.file().exists(), "{}", case.file().display());
    }
    let stored = files(&root().join("tests/golden"), &["safetensors"]).len();
    assert_eq!(stored, cases.len(), "every golden file has a case");
}

#[test]
fn specs_are_in_the_canonical_format() {
    let specs = files(&root().join("specs"), &["fov"]);
    assert!(specs.len() > 20);
    for spec in specs {
        let text = text(&spec);
        let formatted = foveate_dsl::format(&text).unwrap_or_else(|d| panic!("{}: {d:?}", spec.display()));
        assert_eq!(formatted, text, "{}: `foveate fmt` changes it", spec.display());
    }
}

/// A documentation comment of a spec names the year of a publication; the general parts of the prelude have none.
#[test]
fn specs_name_their_papers() {
    let year = |line: &str| {
        let digits = |word: &str| word.len() == 4 && (word.starts_with("19") || word.starts_with("20"));
        line.trim_start().starts_with("///") && line.split(|c: char| !c.is_ascii_digit()).any(digits)
    };
    for folder in ["attention", "losses"] {
        for spec in files(&root().join("specs").join(folder), &["fov"]) {
            assert!(text(&spec).lines().any(year), "{}: no comment names the paper", spec.display());
        }
    }
}
