//! Tuning: what is found is kept and used again, a run goes on with the schedules it began with, and nothing fails with the cache.

mod common;

use common::{Place, newest, run};
use foveate_runtime::bench::{BenchOptions, Measurement, Part, bench};
use foveate_runtime::device::Device;
use foveate_runtime::train::{TrainOptions, train};
use foveate_runtime::tune::TuneOptions;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The devices that have kernels.
fn devices() -> Vec<&'static str> {
    ["loops", "cpu"].into_iter().filter(|d| Device::open(d).is_ok()).collect()
}

fn tune(cache: &Path) -> Option<TuneOptions> {
    Some(TuneOptions { cache: Some(cache.to_owned()), quiet: true })
}

/// The only file of a directory.
fn file(cache: &Path) -> PathBuf {
    let mut files = fs::read_dir(cache).expect("a directory").map(|e| e.expect("an entry").path());
    let first = files.next().expect("a file");
    assert_eq!(files.next(), None);
    first
}

/// Says of all units of a cache that this variant is the best.
fn choose_for_all(cache: &Path, variant: &str) {
    let path = file(cache);
    let mut content: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    let units = content["units"].as_object_mut().expect("units");
    assert!(!units.is_empty());
    units.values_mut().for_each(|unit| unit["variant"] = variant.into());
    fs::write(&path, content.to_string()).expect("writable");
}

fn measure(place: &Place, device: &str, part: Part, cache: Option<&Path>) -> Measurement {
    let options = BenchOptions {
        spec: place.out("tiny.fov"),
        item: Some("NetLoss".to_owned()),
        settings: Vec::new(),
        against: None,
        batch: 8,
        part,
        memory: None,
        device: device.to_owned(),
        seconds: 0.0,
        launches: true,
        tune: cache.and_then(tune),
    };
    bench(&options).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn what_was_found_is_used_again() {
    for device in devices() {
        let place = Place::new("logits[c]^2");
        let cache = place.out("cache");
        for part in [Part::Inference, Part::Gradients, Part::Step] {
            let tuned = |n| {
                let measured = measure(&place, device, part, Some(&cache));
                measured.tuning.unwrap_or_else(|| panic!("{device} {part:?} {n}"))
            };
            let (first, second) = (tuned(1), tuned(2));
            assert!(first.measured > 0 && first.units >= first.measured, "{first:?}");
            assert_eq!((second.measured, second.units), (0, first.units), "{second:?}");
            assert_eq!((first.variants, first.chosen), (second.variants, second.chosen));
            assert!(first.warnings.is_empty() && second.warnings.is_empty());
            assert!(second.tuned_ms <= second.default_ms);
        }
        choose_for_all(&cache, "half-registers");
        let measured = measure(&place, device, Part::Step, Some(&cache));
        let tuning = measured.tuning.expect("it was tuned");
        assert_eq!(tuning.chosen, tuning.units);
        // Without the word the cache is not even looked at.
        assert!(measure(&place, device, Part::Step, None).choices.is_empty());
    }
}

#[test]
fn a_tuned_run_goes_on_exactly() {
    for device in devices() {
        let place = Place::new("logits[c]^2");
        let cache = place.out("cache");
        let options = |out: &str| TrainOptions { tune: tune(&cache), ..place.options(device, out) };
        run(&TrainOptions { max_steps: Some(0), ..options("first") });
        choose_for_all(&cache, "half-lanes");
        let whole = run(&options("whole"));
        assert!(whole.tuning.is_some_and(|t| t.measured == 0 && t.chosen == t.units));
        run(&TrainOptions { max_steps: Some(9), ..options("parts") });
        // What is found elsewhere meanwhile, or lost, is nothing to this run.
        choose_for_all(&cache, "more-items");
        let resumed = run(&TrainOptions { resume: true, tune: None, max_steps: Some(12), ..options("parts") });
        assert!(resumed.tuning.is_none());
        fs::remove_dir_all(&cache).expect("it is there");
        assert_eq!(run(&TrainOptions { resume: true, ..options("parts") }).steps, 24);
        assert!(!cache.exists(), "a resumed run does not tune");

        let (a, b) = (newest(&place.out("whole")), newest(&place.out("parts")));
        assert!(!a.state.choices.is_empty());
        assert_eq!((a.state.choices, a.model, a.optimizer), (b.state.choices, b.model, b.optimizer), "{device}");
    }
}

#[test]
fn a_run_that_is_not_tuned_says_nothing_of_it() {
    let place = Place::new("logits[c]^2");
    let outcome = run(&TrainOptions { max_steps: Some(1), ..place.options("loops", "out") });
    let state = fs::read_to_string(outcome.checkpoint.expect("saved").join("state.json")).expect("readable");
    assert!(!state.contains("choices"), "{state}");
}

#[test]
fn a_checkpoint_with_a_choice_that_is_unknown_is_refused() {
    let place = Place::new("logits[c]^2");
    let cache = place.out("cache");
    let options = TrainOptions { tune: tune(&cache), max_steps: Some(0), ..place.options("loops", "out") };
    run(&options);
    choose_for_all(&cache, "half-lanes");
    let path = run(&options).checkpoint.expect("saved").join("state.json");
    let state = fs::read_to_string(&path).expect("readable").replace("half-lanes", "quarter-moon");
    fs::write(&path, state).expect("writable");
    let error = train(&TrainOptions { resume: true, ..options }).expect_err("it cannot go on exactly");
    assert!(error.to_string().contains("quarter-moon"), "{error}");
}

#[test]
fn nothing_fails_with_the_cache() {
    let place = Place::new("logits[c]^2");
    let cache = place.out("cache");
    let options = TrainOptions { tune: tune(&cache), max_steps: Some(1), ..place.options("loops", "out") };
    run(&options);
    let path = file(&cache);
    let warnings = |options: &TrainOptions| run(options).tuning.expect("it was tuned").warnings;
    for damage in [&b"{\"format\": 3"[..], &[0xfe; 64], b""] {
        fs::write(&path, damage).expect("writable");
        let found = warnings(&options);
        assert!(found.len() == 1 && found[0].contains(&path.display().to_string()), "{found:?}");
        assert!(warnings(&options).is_empty(), "it was replaced");
    }
    // A file where the directory should be: nothing can be read or kept.
    let nowhere = TrainOptions { tune: tune(&place.out("tiny.fov")), ..options.clone() };
    assert!(warnings(&nowhere).iter().any(|w| w.contains("what was tuned is not kept")));
    let none = TuneOptions { cache: None, quiet: true };
    assert!(warnings(&TrainOptions { tune: Some(none), ..options })[0].contains("FOVEATE_CACHE"));
}

#[test]
fn the_interpreter_has_nothing_to_tune() {
    let place = Place::new("logits[c]^2");
    let options = TrainOptions { tune: tune(&place.out("cache")), ..place.options("interpreter", "out") };
    let error = train(&options).expect_err("it has no kernels").to_string();
    assert!(error.contains("interpreter") && error.contains("--tune"), "{error}");
}
