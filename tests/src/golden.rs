//! The golden tensors: which item each file is for, with which arguments.

use foveate_compiler::check::Value;
use foveate_runtime::checkpoint::{Tensor, Tensors};
use foveate_runtime::verify::{Verification, VerifyOptions, verify};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

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

/// The cases of a folder, from `tests/golden/cases.txt`.
fn cases(folder: &str) -> Vec<Case> {
    let lines = include_str!("../golden/cases.txt").lines().filter(|line| !line.starts_with('#'));
    let case = |line: &'static str| {
        let mut parts = line.splitn(3, ' ');
        let (file, item) = (parts.next()?.split_once('/')?, parts.next()?.split_once(':')?);
        let settings = parts.next().unwrap_or_default();
        Some(Case { folder: file.0, name: file.1, spec: item.0, item: item.1, settings })
    };
    let all = lines.map(|line| case(line).unwrap_or_else(|| panic!("no golden case: {line}")));
    all.filter(|case| case.folder == folder).collect()
}

/// Some for every attention module and loss.
pub static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| cases("ops"));

/// One for every architecture, small: inference, training and all gradients of the objective.
pub static MODELS: LazyLock<Vec<Case>> = LazyLock::new(|| cases("models"));

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
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
