//! The golden tensors: which item each file is for, with which arguments.

use foveate_compiler::check::Value;
use foveate_runtime::checkpoint::{Tensor, Tensors};
use foveate_runtime::verify::{Verification, VerifyOptions, verify};
use std::path::{Path, PathBuf};

/// A file of golden tensors and the item that must give them.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The folder in `tests/golden`: `ops` or `models`.
    pub folder: &'static str,
    /// The file's name there, without its ending.
    pub name: &'static str,
    /// The spec, from `specs`.
    pub spec: &'static str,
    /// The item.
    pub item: &'static str,
    /// Its arguments, `NAME=VALUE` with spaces between them; lengths of axes are inferred.
    pub settings: &'static str,
}

const fn case(name: &'static str, spec: &'static str, item: &'static str, settings: &'static str) -> Case {
    Case { folder: "ops", name, spec, item, settings }
}

const fn model(name: &'static str, spec: &'static str, item: &'static str, settings: &'static str) -> Case {
    Case { folder: "models", name, spec, item, settings }
}

const SP_SA: (&str, &str) = ("attention/sp_sa.fov", "SpatialPriorAttention");
const MCSA: (&str, &str) = ("attention/mcsa.fov", "CentralAttention");
const VICINITY: (&str, &str) = ("attention/vicinity.fov", "VicinityAttention");
const ENTROPY: (&str, &str) = ("losses/spatial_entropy.fov", "SpatialEntropy");

/// One for every attention module and loss.
pub const CASES: [Case; 10] = [
    case("sp_sa_5x5", SP_SA.0, SP_SA.1, "H=3 grid=5x5"),
    case("sp_sa_14x14", SP_SA.0, SP_SA.1, "H=6 grid=14x14 qkv_bias=true"),
    case("central_5x7_k3", MCSA.0, MCSA.1, "H=2 grid=5x7 k=3"),
    case("central_6x6_k5", MCSA.0, MCSA.1, "H=4 grid=6x6 k=5"),
    case("central_14x14_k3", MCSA.0, MCSA.1, "H=2 grid=14x14 k=3"),
    case("vicinity_sum_4x6", VICINITY.0, VICINITY.1, "H=2 grid=4x6 form=sum"),
    case("vicinity_prod_4x6", VICINITY.0, VICINITY.1, "H=2 grid=4x6 form=product"),
    case("vicinity_sum_14x14", VICINITY.0, VICINITY.1, "H=2 grid=14x14 form=sum r=2"),
    case("spatial_entropy_noise", ENTROPY.0, ENTROPY.1, "H=3 grid=14x14"),
    case("spatial_entropy_smooth", ENTROPY.0, ENTROPY.1, "H=3 grid=14x14"),
];

/// One for every architecture, small: inference, training and all gradients of the objective.
pub const MODELS: [Case; 4] = [
    model(
        "tiny_simvit",
        "models/simvit.fov",
        "SimVitLoss",
        "image=32 classes=10 dims=16,24,32,40 heads=1,2,2,4 mlp_ratios=4,4,2,2 depths=1,2,1,1",
    ),
    model(
        "tiny_vvt",
        "models/vvt.fov",
        "VvtLoss",
        "image=32 classes=10 dims=16,24,32,40 heads=1,1,2,2 mlp_ratios=4,4,2,2 depths=1,1,2,1",
    ),
    model(
        "tiny_spvit",
        "models/sp_vit.fov",
        "SpVitLoss",
        "image=64 classes=10 C=36 depth=3 H=3 mlp_ratio=3 skip_lam=2 sp_layers=2",
    ),
    model("tiny_sar", "models/deit_sar.fov", "DeitSarLoss", "image=224 classes=10 C=24 depth=2 H=3 mlp_ratio=2"),
];

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The case of a name; panics if there is none.
pub fn named(name: &str) -> Case {
    *CASES.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no golden case `{name}`"))
}

impl Case {
    /// The file of golden tensors.
    pub fn file(&self) -> PathBuf {
        root().join("tests/golden").join(self.folder).join(format!("{}.safetensors", self.name))
    }

    /// The arguments as values.
    pub fn values(&self) -> Vec<(String, Value)> {
        let value = |setting: &str| {
            let (name, value) = setting.split_once('=').expect("cases are written as NAME=VALUE");
            (name.to_owned(), Value::parse(value).expect("cases have values that parse"))
        };
        self.settings.split_whitespace().map(value).collect()
    }

    /// The tensors of one kind: `input`, `param`, `output`, `cotangent` or `grad`, by their names without it.
    pub fn tensors(&self, kind: &str) -> Vec<(String, Tensor)> {
        let all = Tensors::read(&self.file()).unwrap_or_else(|e| panic!("{e}"));
        let of_kind = |(key, tensor): (&String, &Tensor)| {
            let name = key.strip_prefix(kind)?.strip_prefix('/')?;
            Some((name.to_owned(), tensor.clone()))
        };
        all.iter().filter_map(of_kind).collect()
    }

    /// How to compare on a device, with the bounds of `tests/golden/README.md`.
    pub fn options(&self, device: &str) -> VerifyOptions {
        let bound = if device == "interpreter" { (1e-6, 1e-6) } else { (1e-5, 1e-4) };
        VerifyOptions {
            spec: root().join("specs").join(self.spec),
            item: Some(self.item.to_owned()),
            against: self.file(),
            settings: self.values(),
            device: device.to_owned(),
            rtol: Some(bound.0),
            grad_rtol: Some(bound.1),
            only: None,
        }
    }

    /// Compares; panics with the rows that miss.
    pub fn verify(&self, options: &VerifyOptions) -> Verification {
        let (name, device) = (self.name, &options.device);
        let found = verify(options).unwrap_or_else(|e| panic!("{name} on {device}: {e}"));
        let missed: Vec<String> = found.rows.iter().filter(|r| !r.pass).map(|r| format!("{r:?}")).collect();
        assert!(missed.is_empty(), "{name} on {device}:\n{}", missed.join("\n"));
        found
    }

    /// Compares outputs and gradients on a device.
    pub fn passes_on(&self, device: &str) -> Verification {
        let found = self.verify(&self.options(device));
        for kind in ["output/", "grad/"] {
            assert!(found.rows.iter().any(|r| r.tensor.starts_with(kind)), "{} has no {kind}", self.name);
        }
        found
    }
}
