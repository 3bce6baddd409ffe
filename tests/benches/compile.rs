//! How long the compiler takes: checking the demo and the file with the most models, stages one by one, and from the demo's spec to its
//! first training step.
//!
//! Figures to stay below: 10 ms for a check, of the largest file too, and 6 s to the first step. The last is measured once, since kernels
//! that were compiled stay so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foveate_compiler::check::{Spec, check};
use foveate_compiler::lower::{LowerOptions, lower};
use foveate_dsl::{Diagnostic, SourceMap};
use foveate_runtime::train::{TrainOptions, profile};

/// The command's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// All stages are measured on it.
const SPEC: &str = "specs/demo/fashion.fov";

/// Six whole architectures with their objectives in one file.
const LARGEST: &str = "specs/models/simvit.fov";

const RUNS: usize = 31;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs it several times; prints median and spread.
fn measure<T>(what: &str, limit: Option<Duration>, mut run: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(run());
            start.elapsed()
        })
        .collect();
    times.sort();
    let ms = |t: Duration| t.as_secs_f64() * 1e3;
    let verdict = limit.map_or(String::new(), |l| format!("  (to stay below: {:.0} ms)", ms(l)));
    println!("{what:<44} {:8.2} ms  {:8.2} to {:.2}{verdict}", ms(times[RUNS / 2]), ms(times[0]), ms(times[RUNS - 1]));
}

fn load(spec: &str) -> (Spec, SourceMap) {
    let mut sources = SourceMap::new();
    let spec = Spec::load(&root().join(spec), &mut sources);
    (spec.unwrap_or_else(|found| panic!("{found:?}")), sources)
}

fn main() {
    // `cargo test` runs benches too, and asks them to be quick.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let checked = |path: &str| {
        let (spec, sources) = load(path);
        let found = check(&spec, &sources);
        assert!(!found.iter().any(Diagnostic::is_error), "{found:?}");
    };
    measure("read and check the demo's spec", Some(Duration::from_millis(10)), || checked(SPEC));
    measure("  read it with its imports", None, || load(SPEC));
    let (spec, sources) = load(SPEC);
    let options = LowerOptions { training: true, random: true, batch: 64, exposed: Vec::new() };
    measure("  lower its loss for training", None, || {
        lower(&spec, Some("FashionLoss"), &[], &options, &sources).map(|l| l.params.len()).ok()
    });

    measure("read and check six models with objectives", Some(Duration::from_millis(10)), || checked(LARGEST));

    let options = TrainOptions {
        spec: root().join(SPEC),
        recipe: None,
        settings: Vec::new(),
        data: None,
        device: "cpu".to_owned(),
        out: PathBuf::new(),
        resume: false,
        init: None,
        memory: None,
        tune: None,
        max_steps: None,
        quiet: true,
    };
    match profile(&options) {
        Ok(found) => {
            let total: f64 = found.stages.iter().map(|(_, seconds)| seconds).sum();
            println!("from spec to first training step {:20.2} s  (to stay below: 6 s)", total);
            for (stage, seconds) in &found.stages {
                println!("  {stage:<42} {seconds:8.2} s");
            }
            println!("a step after that {:32.0} ms, {:.0} images a second", found.step_ms, found.images_per_second);
        }
        Err(error) => println!("from spec to first training step: {error}"),
    }
}
