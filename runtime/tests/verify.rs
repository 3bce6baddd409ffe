//! Items of the specs against the golden tensors, on the interpreter and on compiled kernels; and what is refused.

use foveate_compiler::check::Value;
use foveate_runtime::checkpoint::{Data, Tensor, Tensors};
use foveate_runtime::device::Device;
use foveate_runtime::verify::{Verification, VerifyOptions, verify};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden/ops").join(format!("{name}.safetensors"))
}

/// What `foveate verify SPEC:ITEM --against AGAINST --set ...` does.
fn options(spec: &str, item: &str, against: &Path, set: &str, device: &str) -> VerifyOptions {
    let setting = |s: &str| {
        let (name, value) = s.split_once('=').expect("NAME=VALUE");
        (name.to_owned(), Value::parse(value).expect("a value"))
    };
    VerifyOptions {
        spec: root().join("specs").join(spec),
        item: Some(item.to_owned()),
        against: against.to_owned(),
        settings: set.split_whitespace().map(setting).collect(),
        device: device.to_owned(),
        rtol: None,
        grad_rtol: None,
        only: None,
    }
}

fn passes(options: &VerifyOptions) -> Verification {
    let name = format!("{} on {}", options.against.display(), options.device);
    let found = verify(options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let missed: Vec<String> = found.rows.iter().filter(|r| !r.pass).map(|r| format!("{r:?}")).collect();
    assert!(found.pass && missed.is_empty(), "{name}:\n{}", missed.join("\n"));
    found
}

/// The golden files of modules and losses with the default bounds, on every device.
#[test]
fn golden_files() {
    let cases = include_str!("../../tests/golden/cases.txt").lines().filter_map(|line| line.strip_prefix("ops/"));
    for case in cases {
        let mut parts = case.splitn(3, ' ');
        let (Some(name), Some(item), set) = (parts.next(), parts.next(), parts.next().unwrap_or_default()) else {
            panic!("no case: {case}");
        };
        let (spec, item) = item.split_once(':').expect("FILE:ITEM");
        for device in ["interpreter", "cpu"] {
            if Device::open(device).is_err() {
                continue;
            }
            let found = passes(&options(spec, item, &golden(name), set, device));
            let has = |kind: &str| found.rows.iter().any(|r| r.tensor.starts_with(kind));
            assert!(has("output/") && has("grad/"), "{name}");
        }
    }
}

const MCSA: (&str, &str, &str) = ("attention/mcsa.fov", "CentralAttention", "H=2 grid=5x7");

fn message(against: &Path, set: &str) -> String {
    let o = options(MCSA.0, MCSA.1, against, set, "interpreter");
    verify(&o).err().map(|e| e.to_string()).unwrap_or_default()
}

/// A copy of a golden file, changed.
fn changed(change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let original = Tensors::read(&golden("central_5x7_k3")).expect("readable");
    let mut list: Vec<(String, Tensor)> = original.iter().map(|(n, t)| (n.clone(), t.clone())).collect();
    change(&mut list);
    let mut out = Tensors::default();
    for (name, tensor) in list {
        out.insert(name, tensor);
    }
    let path = dir.path().join("changed.safetensors");
    out.write(&path).expect("writable");
    (dir, path)
}

#[test]
fn wrong_numbers_miss() {
    let (_dir, path) = changed(|list| {
        for (name, tensor) in list {
            if let ("grad/x", Data::F32(data)) = (name.as_str(), &mut tensor.data) {
                data[3] += 1.0;
            }
        }
    });
    let found = verify(&options(MCSA.0, MCSA.1, &path, MCSA.2, "interpreter")).expect("comparable");
    let missed: Vec<&str> = found.rows.iter().filter(|r| !r.pass).map(|r| r.tensor.as_str()).collect();
    assert_eq!((found.pass, missed), (false, vec!["grad/x"]));
}

/// A spec and a file of tensors in a directory of their own.
fn place(text: &str, tensors: &[(&str, &[usize], Data)]) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (spec, path) = (dir.path().join("a.fov"), dir.path().join("a.safetensors"));
    std::fs::write(&spec, format!("foveate 1\n\n{text}")).expect("writable");
    let mut out = Tensors::default();
    for (name, shape, data) in tensors {
        out.insert((*name).to_owned(), Tensor { shape: shape.to_vec(), data: data.clone() });
    }
    out.write(&path).expect("writable");
    (dir, spec, path)
}

#[test]
fn nothing_is_dropped() {
    let text = "import DropPath, Dropout from prelude\n\nmodule M(C, p: float = 0.5) {\n    a = DropPath(0.5)\n    \
                b = Dropout(1, C, p / 2)\n    forward(x[C]) -> [C] {\n        z[n: 1, c] = 3.0 * a(x)[c]\n        \
                y[c] = b(z)[0, c]\n        return y\n    }\n}\n";
    let of = |v: &[f32]| Data::F32(v.to_vec());
    let (_dir, spec, path) = place(
        text,
        &[
            ("input/x", &[2, 2], of(&[1.0, 2.0, 3.0, 4.0])),
            ("output/y", &[2, 2], of(&[3.0, 6.0, 9.0, 12.0])),
            ("cotangent/y", &[2, 2], of(&[1.0; 4])),
            ("grad/x", &[2, 2], of(&[3.0; 4])),
        ],
    );
    for set in ["", "p=0.9"] {
        passes(&VerifyOptions { spec: spec.clone(), ..options("", "M", &path, set, "interpreter") });
    }
}

#[test]
fn labels_are_classes() {
    let text = "import CrossEntropy from prelude\n\nloss L(classes) {\n    ce = CrossEntropy(classes)\n    \
                forward(logits[classes], target: label[classes]) -> [] {\n        return ce(logits, target)\n    }\n}\n";
    let even = (2.0f32).ln();
    let mut labels = vec![
        (Data::I64(vec![0, 1, 1]), None),
        (Data::I64(vec![0, 1, 2]), Some("found 2 as element 2")),
        (Data::I64(vec![0, -1, 2]), Some("found -1 as element 1")),
        (Data::F32(vec![0.5, 1.0, 1.0]), Some("found 0.5 as element 0")),
        (Data::F32(vec![0.0, f32::NAN, 1.0]), Some("found NaN as element 1")),
    ];
    for (target, wrong) in labels.drain(..) {
        let tensors = [
            ("input/logits", &[3, 2][..], Data::F32(vec![1.0; 6])),
            ("input/target", &[3][..], target),
            ("output/loss", &[][..], Data::F32(vec![even])),
        ];
        let (_dir, spec, path) = place(text, &tensors);
        let found = verify(&VerifyOptions { spec, ..options("", "L", &path, "", "interpreter") });
        match wrong {
            None => assert!(found.expect("comparable").pass),
            Some(wrong) => {
                let text = found.err().map(|e| e.to_string()).unwrap_or_default();
                assert!(text.contains("`input/target`: expected labels from 0 to 1") && text.contains(wrong), "{text}");
            }
        }
    }
}

#[test]
fn wrong_tensors_are_told() {
    let (_dir, path) = changed(|list| list.retain(|(n, _)| n != "param/kv_proj.weight"));
    assert!(message(&path, MCSA.2).contains("kv_proj.weight"), "{}", message(&path, MCSA.2));
    let (_dir, path) = changed(|list| {
        let extra = Tensor { shape: vec![2], data: Data::F32(vec![1.0, 2.0]) };
        list.push(("param/extra".to_owned(), extra.clone()));
    });
    assert!(message(&path, MCSA.2).contains("extra"), "{}", message(&path, MCSA.2));
    let (_dir, path) = changed(|list| {
        let extra = Tensor { shape: vec![2], data: Data::F32(vec![1.0, 2.0]) };
        list.push(("output/z".to_owned(), extra));
    });
    let text = message(&path, MCSA.2);
    assert!(text.contains("`output/z`: the item has no such result") && text.contains("--only"), "{text}");
    let mut only = options(MCSA.0, MCSA.1, &path, MCSA.2, "interpreter");
    only.only = Some("y".to_owned());
    assert_eq!(verify(&only).map(|v| v.rows.len()).ok(), Some(1));
}

#[test]
fn wrong_sizes_are_told() {
    let path = golden("central_5x7_k3");
    let text = message(&path, "H=2 grid=5x7 C=12");
    assert!(text.contains("`C`") && text.contains("12"), "{text}");
    let text = message(&path, "H=2 grid=6x7");
    assert!(text.contains("input/x") && text.contains("expected shape"), "{text}");
    let text = message(&path, "H=2 gird=5x7");
    assert!(text.contains("gird"), "{text}");
    let nowhere = message(Path::new("no/such.safetensors"), MCSA.2);
    assert!(nowhere.contains("no/such.safetensors"), "{nowhere}");
}

#[test]
fn damaged_files_are_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("cut.safetensors");
    let whole = std::fs::read(golden("central_5x7_k3")).expect("readable");
    for len in [0, 7, 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).expect("writable");
        let text = message(&path, MCSA.2);
        assert!(text.contains("cut.safetensors"), "{len}: {text}");
    }
}
