//! Files that `torch.save` wrote (`tests/fixtures/torch/make.py`): every tensor as PyTorch has it, and a network with PyTorch's numbers.

use foveate_runtime::checkpoint::{Data, Tensors};
use foveate_runtime::verify::{VerifyOptions, verify};
use foveate_tests::golden::root;
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/torch").join(name)
}

fn read(name: &str) -> Tensors {
    Tensors::read(&fixture(name)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn tensors_of_all_kinds() {
    let (found, expected) = (read("kinds.pt"), read("kinds.safetensors"));
    assert_eq!(found.len(), 12);
    assert_eq!(found, expected);
}

#[test]
fn a_network_gives_the_same_numbers() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let against = scratch.path().join("all.safetensors");
    for weights in ["small.pth", "small_old.pth", "example.pth", "example_old4.pth"] {
        let mut all = read("small.safetensors");
        for (name, tensor) in read(weights) {
            assert_eq!(name.ends_with("num_batches_tracked"), matches!(tensor.data, Data::I64(_)));
            all.insert(format!("param/{name}"), tensor);
        }
        all.write(&against).expect("writable");
        for device in ["interpreter", "cpu"] {
            let options = VerifyOptions {
                spec: fixture("small.fov"),
                item: None,
                against: against.clone(),
                settings: Vec::new(),
                device: device.to_owned(),
                rtol: Some(1e-5),
                grad_rtol: None,
                only: None,
            };
            let found = verify(&options).unwrap_or_else(|e| panic!("{weights} on {device}: {e}"));
            assert!(found.pass && found.rows.len() == 1, "{weights} on {device}: {:?}", found.rows);
        }
    }
}
