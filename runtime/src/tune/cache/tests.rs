//! Files that are as they should be, and files that are not.

use super::*;
use crate::rng::Keyed;
use std::fs;

fn device() -> (Device, Facts) {
    (Device::Loops, Device::Loops.facts().expect("it runs kernels"))
}

fn open(directory: &Path) -> (Cache, Option<String>) {
    let (device, facts) = device();
    Cache::open(Some(directory), &device, &facts)
}

fn entry(variant: Variant, us: f64) -> Entry {
    Entry { variant, default_us: 2.0 * us, us, tried: true }
}

fn program(name: &str) -> Digest {
    Digest::of(&("program", name))
}

/// For each name a unit, and a program.
fn found(names: &[&str]) -> Found {
    let unit = |name: &&str| (Digest::of(*name), entry(Variant::HalfLanes, name.len() as f64));
    Found { units: names.iter().map(unit).collect(), programs: names.iter().map(|name| program(name)).collect() }
}

/// A directory with a file of one entry, and the file.
fn written() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut cache, warning) = open(&dir.path().join("deep"));
    assert_eq!(warning, None, "no file is no reason for a word");
    assert_eq!(cache.add(found(&["a"])), None);
    let path = cache.path().expect("a path").to_owned();
    (dir, path)
}

fn knows(path: &Path, name: &str) -> bool {
    let (cache, warning) = open(path.parent().expect("a directory"));
    assert_eq!(warning, None);
    let known = cache.get(Digest::of(name)).is_some();
    assert_eq!(cache.has_program(program(name)), known);
    known
}

#[test]
fn what_was_found_is_there_again() {
    let (_dir, path) = written();
    let (cache, _) = open(path.parent().expect("a directory"));
    assert_eq!(cache.get(Digest::of("a")), Some(&entry(Variant::HalfLanes, 1.0)));
    assert_eq!(cache.get(Digest::of("b")), None);
}

#[test]
fn what_others_found_meanwhile_stays() {
    let (_dir, path) = written();
    let directory = path.parent().expect("a directory");
    let [(mut one, _), (mut other, _)] = [open(directory), open(directory)];
    assert_eq!(one.add(found(&["one"])), None);
    assert_eq!(other.add(found(&["other"])), None);
    assert!(["a", "one", "other"].iter().all(|name| knows(&path, name)));
    assert!(other.get(Digest::of("one")).is_some(), "and is known from then on");
}

#[test]
fn without_a_directory_nothing_is_kept() {
    let (device, facts) = device();
    let (mut cache, warning) = Cache::open(None, &device, &facts);
    assert_eq!((warning, cache.path()), (None, None));
    assert_eq!(cache.add(found(&["a"])), None);
    assert!(cache.get(Digest::of("a")).is_some());
}

#[test]
fn devices_do_not_share_a_file() {
    let (_dir, path) = written();
    let directory = path.parent().expect("a directory");
    let (device, facts) = device();
    let (cache, warning) = Cache::open(Some(directory), &device, &Facts { units: 5, ..facts });
    assert!(warning.is_none() && cache.get(Digest::of("a")).is_none() && cache.path() != Some(&path));
}

/// Opening it warns and knows nothing; what is found then replaces it.
fn is_replaced(content: &[u8], because: &str) {
    let (_dir, path) = written();
    fs::write(&path, content).expect("writable");
    let (mut cache, warning) = open(path.parent().expect("a directory"));
    let warning = warning.unwrap_or_else(|| panic!("{because}: no warning"));
    assert!(warning.contains(because) && warning.contains(&path.display().to_string()), "{because}: {warning}");
    assert!(cache.get(Digest::of("a")).is_none());
    assert_eq!(cache.add(found(&["b"])), None);
    assert!(knows(&path, "b") && !knows(&path, "a"));
}

#[test]
fn what_is_no_cache_is_replaced() {
    let (_dir, path) = written();
    let good: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    let with = |key: &str, value: Value| {
        let mut other = good.clone();
        other[key] = value;
        other.to_string().into_bytes()
    };
    is_replaced(&with("version", json!(2)), "expected 1 as `version`, found 2");
    is_replaced(&with("version", json!(1e300)), "expected 1 as `version`");
    is_replaced(&with("version", json!("1")), "expected 1 as `version`");
    is_replaced(&with("format", json!(null)), "as `format`, found null");
    is_replaced(&with("device", json!({ "name": "cpu" })), "as `device`, found");
    is_replaced(&with("units", json!([1, 2])), "expected an object of units");
    is_replaced(&with("units", json!(7)), "expected an object of units");
    is_replaced(&with("programs", json!({})), "expected a list of programs");
    is_replaced(b"{}", "as `format`, found nothing");
    is_replaced(b"[]", "as `format`, found nothing");
    is_replaced(b"", "not valid JSON");
    is_replaced("[".repeat(100_000).as_bytes(), "not valid JSON");
    is_replaced(&[0xff; 300], "not valid JSON");
}

#[test]
fn a_file_cut_short_anywhere_is_replaced() {
    let (_dir, path) = written();
    let whole = fs::read(&path).expect("readable");
    // What is cut off at the very end is white space.
    let end = whole.iter().rposition(|b| !b.is_ascii_whitespace()).expect("something");
    for length in (0..=end).step_by(13).chain([end]) {
        is_replaced(&whole[..length], "not valid JSON");
    }
}

#[test]
fn random_damage_never_fails() {
    let (_dir, path) = written();
    let whole = fs::read(&path).expect("readable");
    let mut random = Keyed::new(&[7]);
    for _ in 0..150 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(4) {
            let place = random.below(bytes.len() as u64) as usize;
            bytes[place] = random.below(256) as u8;
        }
        fs::write(&path, &bytes).expect("writable");
        let (mut cache, _) = open(path.parent().expect("a directory"));
        assert_eq!(cache.add(found(&["b"])), None);
        assert!(knows(&path, "b"));
        fs::remove_file(&path).expect("it was written");
    }
}

#[test]
fn entries_that_make_no_sense_are_passed_over() {
    let (_dir, path) = written();
    let mut content: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    let key = |name: &str| Digest::of(name).to_string();
    let good = json!({ "variant": "half-local", "default_us": 2.0, "us": 1.0, "tried": true, "more": [] });
    let with = |name: &str, value: Value| {
        let mut other = good.clone();
        other[name] = value;
        other
    };
    content["programs"] = json!(["no digest", 7, program("good").to_string()]);
    content["units"] = json!({
        key("good"): good,
        "no digest": good,
        key("number"): 5,
        key("array"): [good],
        key("variant"): with("variant", json!("quarter-moon")),
        key("no variant"): with("variant", json!({})),
        key("text"): with("us", json!("fast")),
        key("negative"): with("us", json!(-1.0)),
        key("huge"): with("us", json!(1e300)),
        key("tried"): with("tried", json!(1)),
        key("large"): with("default_us", json!(u64::MAX)),
    });
    // Numbers that no float holds make a file that is not JSON to us, which is damage.
    let text = content.to_string();
    fs::write(&path, &text).expect("writable");
    let (mut cache, warning) = open(path.parent().expect("a directory"));
    assert_eq!(warning, None);
    assert_eq!(cache.known.units.keys().copied().collect::<Vec<_>>(), [Digest::of("good")]);
    assert_eq!(cache.known.programs, [program("good")].into());
    assert_eq!(cache.add(found(&["b"])), None);
    assert!(knows(&path, "good") && knows(&path, "b") && !knows(&path, "huge"));
    is_replaced(text.replace("1e+300", "1e+999").as_bytes(), "not valid JSON");
}

#[test]
fn what_cannot_be_read_or_written_is_said() {
    // A file where the directory should be.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("writable");
    let (mut cache, warning) = open(&file);
    assert!(warning.is_some_and(|w| w.starts_with("cannot read ")));
    let warning = cache.add(found(&["a"])).expect("a warning");
    assert!(warning.starts_with("what was tuned is not kept: cannot ") && warning.contains(DIRECTORY), "{warning}");
    assert!(cache.get(Digest::of("a")).is_some(), "it serves this run");

    // A directory where the file should be.
    let (_dir, path) = written();
    fs::remove_file(&path).expect("it was written");
    fs::create_dir(&path).expect("writable");
    let (mut cache, warning) = open(path.parent().expect("a directory"));
    assert!(warning.is_some_and(|w| w.starts_with("cannot read ")));
    assert!(cache.add(found(&["a"])).is_some());
}
