//! The golden cases at full size. Their files carry no weights: those come from a formula, and of a gradient only its L2 norm, its sum
//! and its first values are known (`tests/golden/README.md`).

use crate::golden::Case;
use foveate_runtime::checkpoint::{Data, Tensor, Tensors};
use foveate_runtime::verify::gradients;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// One for every architecture, with the bound on a gradient's first values in shares of its root mean square. Those of VVT are wider:
/// its guards jump.
pub const FULL_SIZE: [(Case, f64); 4] = [
    (model("simvit_micro", "models/simvit.fov", "SimVitMicroLoss"), 1e-4),
    (model("vvt_tiny", "models/vvt.fov", "VvtTinyLoss"), 1e-3),
    (model("spvit_s", "models/sp_vit.fov", "SpVitSLoss"), 1e-4),
    (model("sar_deit_tiny", "models/deit_sar.fov", "DeitSarTinyLoss"), 1e-4),
];

const fn model(name: &'static str, spec: &'static str, item: &'static str) -> Case {
    Case { folder: "models", name, spec, item, settings: "" }
}

/// What stands beside the tensors.
#[derive(Deserialize)]
struct Recipe {
    name: String,
    batch: usize,
    image: Vec<usize>,
    parameters: usize,
    init: Vec<Weight>,
    #[serde(default)]
    grad: BTreeMap<String, Statistics>,
}

/// A tensor of the state dict: values in [c - a, c + a).
#[derive(Deserialize)]
struct Weight {
    name: String,
    shape: Vec<usize>,
    a: f64,
    c: f64,
}

/// What is known of a gradient.
#[derive(Deserialize)]
struct Statistics {
    l2: f64,
    sum: f64,
    head: Vec<f64>,
}

/// Outputs in inference and training mode within the bounds of every case, gradients within those of their statistics.
pub fn passes(case: &Case, head_bound: f64) {
    let recipe = Recipe::of(case);
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let expanded = scratch.path().join("expanded.safetensors");
    recipe.expand(&case.file()).write(&expanded).expect("writable");

    let mut options = case.options("cpu");
    options.against = expanded;
    case.verify(&options);

    let names: Vec<String> = recipe.grad.keys().cloned().collect();
    let found = gradients(&options, &names).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), recipe.parameters, "{}", case.name);
    let all = recipe.grad.values().map(|s| s.l2 * s.l2).sum::<f64>().sqrt();
    let misses: Vec<String> = recipe.grad.iter().flat_map(|(n, s)| s.misses(n, &found[n], all, head_bound)).collect();
    assert!(misses.is_empty(), "{}:\n{}", case.name, misses.join("\n"));
}

/// The whole case: image, target, weights and outputs.
pub fn expand(case: &Case) -> Tensors {
    Recipe::of(case).expand(&case.file())
}

/// Image and weights of a case that has them are those of the formula.
pub fn has_formula(case: &Case) {
    let (recipe, stored) = (Recipe::of(case), Tensors::read(&case.file()).unwrap_or_else(|e| panic!("{e}")));
    let expanded = recipe.expand(&case.file());
    let mut compared = 0;
    for (key, tensor) in expanded.iter().filter(|(key, _)| key.starts_with("param/") || *key == "input/image") {
        assert_eq!(stored.get(key), Some(tensor), "{}: {key}", case.name);
        compared += usize::from(key.starts_with("param/"));
    }
    let all = stored.iter().filter(|(key, _)| key.starts_with("param/")).count();
    assert_eq!((compared, all), (recipe.init.len(), recipe.init.len()), "{}", case.name);
}

impl Recipe {
    fn of(case: &Case) -> Recipe {
        let text = std::fs::read(case.file().with_extension("json")).expect("the case has a recipe");
        serde_json::from_slice(&text).expect("the recipe is as described")
    }

    /// The whole case: image, target and outputs as stored, weights by the formula.
    fn expand(&self, stored: &Path) -> Tensors {
        let mut all = Tensors::read(stored).unwrap_or_else(|e| panic!("{e}"));
        let mut add = |key: String, name: &str, shape: Vec<usize>, a, c| {
            let data = Data::F32(formula(&format!("{}/{name}", self.name), shape.iter().product(), a, c));
            all.insert(key, Tensor { shape, data });
        };
        let image = [&[self.batch], &self.image[..]].concat();
        add("input/image".to_owned(), "image", image, 1.0, 0.0);
        for w in &self.init {
            add(format!("param/{}", w.name), &w.name, w.shape.clone(), w.a, w.c);
        }
        all
    }
}

impl Statistics {
    /// What of a gradient is out of its bounds. `all` is the norm of all gradients together: some are exactly zero.
    fn misses(&self, name: &str, found: &[f64], all: f64, head_bound: f64) -> Vec<String> {
        let (root, floor) = ((found.len() as f64).sqrt(), 1e-7 * all);
        let l2 = found.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut rows = vec![
            ("l2".to_owned(), self.l2, l2, 1e-4 * self.l2 + floor),
            ("sum".to_owned(), self.sum, found.iter().sum(), 1e-4 * self.l2 * root + floor * root),
        ];
        for (n, (expected, got)) in self.head.iter().zip(found).enumerate() {
            rows.push((format!("element {n}"), *expected, *got, head_bound * self.l2 / root + floor));
        }
        let within = |expected: f64, got: f64, bound: f64| (expected - got).abs() <= bound; // false for NaN
        rows.retain(|(_, expected, got, bound)| !within(*expected, *got, *bound));
        rows.iter().map(|(what, e, g, b)| format!("{name}, {what}: expected {e}, found {g}, bound {b:e}")).collect()
    }
}

/// `len` values in [c - a, c + a), from a counter hashed by the finaliser of SplitMix64; the key, hashed by FNV-1a, starts it.
fn formula(key: &str, len: usize, a: f64, c: f64) -> Vec<f32> {
    let start = key.bytes().fold(0xCBF2_9CE4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    (1..=len as u64)
        .map(|i| {
            let z = start.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let z = z ^ (z >> 31);
            (c + a * (2.0 * ((z >> 40) as f64 / f64::from(1 << 24)) - 1.0)) as f32
        })
        .collect()
}
