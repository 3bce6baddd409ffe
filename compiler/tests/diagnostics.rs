//! File tests of the checker's diagnostics: each `diagnostics/NAME.fov` beside the messages it must give, `NAME.txt`.
//!
//! A file is checked at sample sizes. One that starts with `// set NAME=VALUE ...` is lowered with these settings, and one that starts with
//! `// tensors KEY=SIZES ...` has its arguments inferred from the shapes of `input/NAME` and `param/NAME`; of one that starts with
//! `// recipe NAME` that recipe is asked for. With `BLESS=1` in the environment the messages are written instead of compared.

use std::fs;
use std::path::{Path, PathBuf};

use foveate_compiler::check::{Files, Spec, Value, check};
use foveate_compiler::lower::{LowerOptions, lower};
use foveate_dsl::codes::CODES;
use foveate_dsl::render::render;
use foveate_dsl::{Diagnostic, SourceMap};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics")
}

/// The folder as if it were the current one, so that messages have short paths.
struct Folder;

impl Files for Folder {
    fn read(&self, path: &Path) -> Result<String, String> {
        fs::read_to_string(folder().join(path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            kind => kind.to_string(),
        })
    }
}

fn cases() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("the folder is part of the crate");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".fov"));
    names.sort();
    names
}

fn pairs<'t>(text: &'t str, start: &str) -> Option<Vec<(&'t str, &'t str)>> {
    let line = text.lines().next()?.strip_prefix(start)?;
    Some(line.split_whitespace().map(|pair| pair.split_once('=').expect("NAME=VALUE")).collect())
}

fn diagnose(name: &str) -> (Vec<Diagnostic>, SourceMap) {
    let mut sources = SourceMap::new();
    let spec = match Spec::load_from(Path::new(name), &Folder, &mut sources) {
        Ok(spec) => spec,
        Err(diagnostics) => return (diagnostics, sources),
    };
    let text = Folder.read(Path::new(name)).expect("it was read before");
    let options = LowerOptions { training: true, random: true, batch: 2, exposed: Vec::new() };
    let found = if let Some(settings) = pairs(&text, "// set ") {
        let value = |v| Value::parse(v).expect("a value");
        let settings: Vec<_> = settings.into_iter().map(|(n, v)| (n.to_owned(), value(v))).collect();
        let item = settings.iter().find(|(n, _)| n == "item").map(|(_, v)| v.to_string());
        let settings: Vec<_> = settings.into_iter().filter(|(n, _)| n != "item").collect();
        lower(&spec, item.as_deref(), &settings, &options, &sources).err().unwrap_or_default()
    } else if let Some(tensors) = pairs(&text, "// tensors ") {
        let of = |kind: &str| -> Vec<(String, Vec<usize>)> {
            let own = tensors.iter().filter_map(|(key, sizes)| key.strip_prefix(kind).map(|name| (name, sizes)));
            own.map(|(name, sizes)| {
                let sizes = sizes.split(',').map(|s| s.parse().expect("a size"));
                (name.to_owned(), sizes.collect())
            })
            .collect()
        };
        spec.infer(None, &[], &of("input/"), &of("param/")).err().map(|d| vec![*d]).unwrap_or_default()
    } else if let Some(name) = text.lines().next().and_then(|line| line.strip_prefix("// recipe ")) {
        spec.recipe(Some(name)).err().map(|d| vec![*d]).unwrap_or_default()
    } else {
        check(&spec, &sources)
    };
    (found, sources)
}

#[test]
fn messages_are_as_expected() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for name in cases() {
        let (diagnostics, sources) = diagnose(&name);
        let found = render(&diagnostics, &sources, false);
        let path = folder().join(&name).with_extension("txt");
        if bless {
            fs::write(&path, &found).expect("the folder is writable");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected != found || found.is_empty() {
            wrong.push(format!("{name}: expected\n{expected}\nfound\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n(BLESS=1 accepts what was found)", wrong.join("\n"));
}

#[test]
fn every_code_has_a_test() {
    let found: Vec<&str> = cases().iter().flat_map(|name| diagnose(name).0).map(|diagnostic| diagnostic.code).collect();
    // Those of syntax have their tests beside the parser.
    let missing: Vec<&str> =
        CODES.iter().map(|info| info.code).filter(|code| !code.starts_with("E00") && !found.contains(code)).collect();
    assert!(missing.is_empty(), "no file in tests/diagnostics gives {}", missing.join(", "));
}

#[test]
fn every_diagnostic_has_a_place_and_a_known_code() {
    for name in cases() {
        for d in diagnose(&name).0 {
            assert!(CODES.iter().any(|info| info.code == d.code), "{name}: {} is not registered", d.code);
            assert!(d.span().is_some(), "{name}: `{}` has no place", d.message);
        }
    }
}
