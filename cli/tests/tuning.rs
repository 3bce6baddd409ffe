//! `--tune` as a user meets it.

mod common;

use common::command;
use serde_json::Value;
use std::fs;
use std::path::Path;

const ITEM: [&str; 7] = ["specs/attention/full.fov", "--set", "C=12", "--set", "H=3", "--set", "N=7"];

/// Runs the command with a cache of its own: exit code, standard output and standard error.
fn run(cache: &Path, verb: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let arguments: Vec<&str> = [verb].iter().chain(&ITEM).chain(more).copied().collect();
    let output = command(&arguments).env("FOVEATE_CACHE", cache).output().expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn json(cache: &Path, verb: &str, more: &[&str]) -> Value {
    let (code, out, err) = run(cache, verb, &[more, &["--json"]].concat());
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).expect("JSON")
}

#[test]
fn what_is_tuned_is_said_kept_and_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let bench = ["--part", "gradients", "--batch", "1", "--seconds", "0"];
    assert_eq!(json(&cache, "bench", &bench)["tuning"], Value::Null);
    assert!(!cache.exists(), "without --tune the cache is left alone");

    let (code, out, err) = run(&cache, "bench", &[&bench[..], &["--tune"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("\ntuning: ") && out.contains(" units, "), "{out}");
    assert!(err.contains("tuning "), "it says what it does: {err}");
    let again = json(&cache, "bench", &[&bench[..], &["--tune"]].concat());
    assert_eq!(again["tuning"]["measured"], 0);
    assert!(again["tuning"]["units"].as_u64() > Some(0));

    // Another schedule for everything, which `explain` then shows.
    let file = fs::read_dir(&cache).expect("a folder").next().expect("a file").expect("an entry").path();
    let mut content: Value = serde_json::from_slice(&fs::read(&file).expect("readable")).expect("JSON");
    let units = content["units"].as_object_mut().expect("units");
    units.values_mut().for_each(|unit| unit["variant"] = "half-lanes".into());
    fs::write(&file, content.to_string()).expect("writable");
    let explained = json(&cache, "explain", &["--measure", "--tune"]);
    let kernels = explained["kernels"].as_array().expect("kernels");
    assert!(kernels.iter().all(|k| k["variant"] == "half-lanes" && k["measured_us"].as_f64() > Some(0.0)));
    assert_eq!(explained["tuning"]["variants"]["half-lanes"], explained["tuning"]["units"]);
    let (_, text, _) = run(&cache, "explain", &["--measure", "--tune"]);
    assert!(text.contains("schedule\n") && text.contains("  half-lanes\n"), "{text}");
    let plain = json(&cache, "explain", &["--measure"]);
    assert!(plain["kernels"].as_array().expect("kernels").iter().all(|k| k.get("variant").is_none()));
}

#[test]
fn a_damaged_cache_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = ["--part", "inference", "--batch", "1", "--seconds", "0", "--tune"];
    assert_eq!(run(folder.path(), "bench", &bench).0, Some(0));
    let file = fs::read_dir(folder.path()).expect("a folder").next().expect("a file").expect("an entry").path();
    fs::write(&file, "{\"version\": 99999999999999999999").expect("writable");
    let (code, _, err) = run(folder.path(), "bench", &bench);
    assert!(code == Some(0) && err.contains("warning: ") && err.contains(&file.display().to_string()), "{err}");
    let (code, _, err) = run(folder.path(), "bench", &bench);
    assert!(code == Some(0) && !err.contains("warning"), "it was replaced: {err}");
    // There is no directory to make where a file is.
    let (code, _, err) = run(&file, "bench", &bench);
    assert!(code == Some(0) && err.contains("what was tuned is not kept"), "{err}");
}

#[test]
fn what_cannot_be_tuned_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(run(folder.path(), "explain", &["--tune"]).0, Some(2), "only what is measured is tuned");
    let (code, _, err) = run(folder.path(), "bench", &["--tune", "--device", "interpreter"]);
    assert!(code == Some(1) && err.contains("nothing to tune") && err.contains("--tune"), "{err}");
}
