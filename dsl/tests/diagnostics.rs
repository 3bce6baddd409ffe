//! File tests of syntax diagnostics: each `diagnostics/NAME.fov` beside the messages it must give, `NAME.txt`.
//!
//! With `BLESS=1` in the environment the messages are written instead of compared.

use std::fs;
use std::path::{Path, PathBuf};

use foveate_dsl::codes::CODES;
use foveate_dsl::render::{render, to_json};
use foveate_dsl::{Diagnostic, SourceMap, parse};

fn specs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let entries = fs::read_dir(folder).expect("the folder is part of the crate");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "fov"));
    paths.sort();
    paths
}

fn diagnose(path: &Path) -> (Vec<Diagnostic>, SourceMap) {
    let name = path.file_name().expect("a file has a name").to_string_lossy();
    let text = fs::read_to_string(path).expect("specs are UTF-8");
    let mut sources = SourceMap::new();
    let file = sources.add(name, text.as_str());
    (parse(file, &text).1, sources)
}

#[test]
fn messages_are_as_expected() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for path in specs() {
        let (diagnostics, sources) = diagnose(&path);
        let found = render(&diagnostics, &sources, false);
        let expected_path = path.with_extension("txt");
        if bless {
            fs::write(&expected_path, &found).expect("the folder is writable");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if expected != found {
            wrong.push(format!("{}: expected\n{expected}\nfound\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\n(BLESS=1 accepts what was found)", wrong.join("\n"));
}

#[test]
fn every_syntax_code_has_a_test() {
    let found: Vec<&str> = specs().iter().flat_map(|path| diagnose(path).0).map(|diagnostic| diagnostic.code).collect();
    for info in CODES.iter().filter(|info| info.code.starts_with("E00")) {
        assert!(found.contains(&info.code), "no file in tests/diagnostics gives {}", info.code);
    }
}

#[test]
fn data_has_the_places_of_the_text() {
    let mut sources = SourceMap::new();
    let text = "foveate 1\n// größer\nfn f(x) = \"é\" × x\n";
    let file = sources.add("f.fov", text);
    let data = to_json(&parse(file, text).1, &sources);
    assert_eq!(data.len(), 1);
    assert_eq!((data[0].code.as_str(), data[0].file.as_str()), ("E0003", "f.fov"));
    assert_eq!((data[0].line, data[0].column, data[0].end_line, data[0].end_column), (3, 15, 3, 16));
    let json = serde_json::to_value(&data).expect("plain data");
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["labels"][0]["primary"], true);
}
