//! No specs, no files and no settings make a verb panic or run away that runs kernels or reads weights and data: it succeeds, or says what is wrong
//! and exits with 1.

mod common;
#[allow(dead_code)]
#[path = "common/damage.rs"]
mod damage;

use common::command;
use damage::{copy, damage, damage_text, damages};
use image::{Rgb, RgbImage};
use proptest::prelude::*;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The longest that a run may take.
const LIMIT: Duration = Duration::from_secs(100);

/// A folder with specs, weights, tensors to compare with, images and both kinds of data set.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let place = Place(tempfile::tempdir().expect("a folder"));
        copy(&root.join("specs/attention"), &place.path("specs/attention"));
        copy(&root.join("tests/fixtures/torch"), &place.path("tests/fixtures/torch"));
        let golden = "central_5x7_k3.safetensors";
        fs::copy(root.join("tests/golden/ops").join(golden), place.path("golden.safetensors")).expect("copied");
        let picture = RgbImage::from_fn(9, 8, |x, y| Rgb([20 * x as u8, 30 * y as u8, (x + y) as u8]));
        for half in ["train", "val"] {
            for class in 0..5 {
                let folder = place.path(&format!("images/{half}/c{class}"));
                fs::create_dir_all(&folder).expect("a folder");
                picture.save(folder.join("0.png")).expect("written");
                picture.save(folder.join("1.jpg")).expect("written");
            }
        }
        // Eight images of one channel and their labels, as IDX files.
        let idx = place.path("idx");
        fs::create_dir(&idx).expect("a folder");
        for half in ["train", "t10k"] {
            let mut images = vec![0, 0, 8, 3, 0, 0, 0, 8, 0, 0, 0, 28, 0, 0, 0, 28];
            images.extend((0..8 * 28 * 28).map(|n| (n % 251) as u8));
            fs::write(idx.join(format!("{half}-images-idx3-ubyte")), images).expect("written");
            let labels = [0, 0, 8, 1, 0, 0, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7];
            fs::write(idx.join(format!("{half}-labels-idx1-ubyte")), labels).expect("written");
        }
        place
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// Runs the command with `@name` standing for a file of the folder.
    fn run(&self, line: &str, settings: &[String]) -> Result<(), TestCaseError> {
        let folder = format!("{}/", self.0.path().display());
        let words: Vec<String> = line.split(' ').map(|word| word.replace('@', &folder)).collect();
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        let mut child =
            command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
        let mut pipes = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            pipes.0.read_to_string(&mut text).map(|_| text)
        });
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            pipes.1.read_to_string(&mut text).map(|_| text)
        });
        let start = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().expect("it runs") {
                break status.code();
            }
            if start.elapsed() > LIMIT {
                child.kill().expect("it runs");
                child.wait().expect("it ended");
                return Err(TestCaseError::fail(format!("{arguments:?} runs and runs")));
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        let text =
            |thread: std::thread::JoinHandle<std::io::Result<String>>| thread.join().expect("read").expect("UTF-8");
        let (out, err) = (text(out), text(err));
        // 2 is for what is no setting at all, such as `C=`.
        prop_assert!(matches!(code, Some(0..=2)) && !err.contains("panicked"), "{arguments:?}: {code:?} {err}");
        prop_assert!(code == Some(0) || !(out.is_empty() && err.is_empty()), "{arguments:?} fails without a word");
        prop_assert!(!err.contains("internal error"), "{arguments:?}: {err}");
        Ok(())
    }
}

/// Every verb that runs kernels or reads weights and data; what it reads comes with it.
const RUNS: &[(&str, &[&str])] = &[
    (
        "verify @tests/fixtures/torch/small.fov --against @tests/fixtures/torch/case.pth",
        &["tests/fixtures/torch/small.fov", "tests/fixtures/torch/case.pth", "specs/attention/full.fov"],
    ),
    (
        "verify @specs/attention/mcsa.fov --against @golden.safetensors --set H=2 --set grid=5x7 --set k=3",
        &["specs/attention/mcsa.fov", "golden.safetensors"],
    ),
    (
        "verify @specs/attention/mcsa.fov --against @golden.safetensors --device interpreter --set H=2 --set grid=5x7 --set k=3",
        &["specs/attention/mcsa.fov", "golden.safetensors"],
    ),
    (
        "predict @tests/fixtures/torch/small.fov --weights @tests/fixtures/torch/small.pth --maps @maps @images/val/c0/0.png",
        &["tests/fixtures/torch/small.fov", "tests/fixtures/torch/small.pth", "images/val/c0/0.png"],
    ),
    (
        "eval @tests/fixtures/torch/train.fov --weights @tests/fixtures/torch/small.safetensors --data @images",
        &["tests/fixtures/torch/train.fov", "tests/fixtures/torch/small.safetensors", "images/val/c2/1.jpg"],
    ),
    (
        "train @tests/fixtures/torch/train.fov --data @images --out @out --set epochs=1",
        &["tests/fixtures/torch/train.fov", "tests/fixtures/torch/small.fov", "images/train/c1/1.jpg"],
    ),
    (
        "train @tests/fixtures/torch/train.fov --data @images --out @out --init @tests/fixtures/torch/small_old.pth --set epochs=1",
        &["tests/fixtures/torch/train.fov", "tests/fixtures/torch/small_old.pth"],
    ),
    (
        "eval specs/demo/fashion.fov --weights @tests/fixtures/torch/small.pth --data @idx",
        &["idx/t10k-images-idx3-ubyte", "idx/t10k-labels-idx1-ubyte"],
    ),
    (
        "convert @tests/fixtures/torch/small.pth -o @converted.safetensors --for @tests/fixtures/torch/small.fov --resample",
        &["tests/fixtures/torch/small.pth", "tests/fixtures/torch/small.fov"],
    ),
    ("convert @tests/fixtures/torch/kinds.pt -o @converted.safetensors", &["tests/fixtures/torch/kinds.pt"]),
    ("bench @tests/fixtures/torch/small.fov --seconds 0 --batch 2", &["tests/fixtures/torch/small.fov"]),
    (
        "bench @tests/fixtures/torch/train.fov:SmallLoss --seconds 0 --batch 2 --part step",
        &["specs/attention/full.fov"],
    ),
];

fn settings() -> impl Strategy<Value = Vec<String>> {
    let names = vec![
        "C",
        "H",
        "image",
        "classes",
        "grid",
        "k",
        "batch",
        "seed",
        "clip",
        "precision",
        "optimizer.lr",
        "optimizer.beta1",
        "optimizer.eps",
        "data.classes",
        "data.image",
        "data.mean",
        "data.format",
        "data.path",
        "augment.flip",
        "augment.area",
        "augment.shift",
        "schedule.warmup_epochs",
        "schedule.final_lr",
        "weights.loss",
        "nothing",
        "a.b.c",
    ];
    let values = prop_oneof![
        4 => (1i64..14).prop_map(|n| n.to_string()),
        2 => prop::sample::select(vec!["0", "-1", "97", "0.5", "-1e300", "1e-320", "nan", "inf", "true", "sum", "x", "", "1,2,3"])
            .prop_map(str::to_owned),
        1 => prop::sample::select(vec!["9223372036854775807", "-9223372036854775808", "4294967296", "1000000007"])
            .prop_map(str::to_owned),
        2 => (0i64..12, 0i64..12).prop_map(|(a, b)| format!("{a}x{b}")),
        1 => prop::sample::select(vec!["1x1", "3x3x3", "2147483648x2147483648", "-1x3"]).prop_map(str::to_owned),
    ];
    prop::collection::vec(
        (prop::sample::select(names), values).prop_map(|(name, value)| format!("{name}={value}")),
        1..4,
    )
}

/// `PROPTEST_CASES`, or as many as usual.
fn config(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn no_damage_to_a_file_makes_a_verb_panic(
        run in prop::sample::select(RUNS.to_vec()),
        which in any::<prop::sample::Index>(),
        damages in damages(),
        empty in 0usize..20,
    ) {
        let place = Place::new();
        let (line, files) = run;
        let file = place.path(files[which.index(files.len())]);
        if empty == 0 {
            fs::write(&file, "").expect("written");
        } else if file.extension().is_some_and(|e| e == "fov") {
            damage_text(&file, &damages);
        } else {
            let mut bytes = fs::read(&file).expect("read");
            damage(&mut bytes, &damages);
            fs::write(&file, bytes).expect("written");
        }
        place.run(line, &[])?;
    }

    #[test]
    fn no_settings_make_a_run_panic(run in prop::sample::select(RUNS.to_vec()), settings in settings()) {
        Place::new().run(run.0, &settings)?;
    }
}

/// What is not there, or something else than a file.
#[test]
fn no_missing_file_makes_a_verb_panic() {
    for (line, files) in RUNS {
        for file in *files {
            let place = Place::new();
            fs::remove_file(place.path(file)).expect("removed");
            place.run(line, &[]).expect("it says what is missing");
            fs::create_dir(place.path(file)).expect("a folder");
            place.run(line, &[]).expect("it says what is wrong");
        }
    }
}
