//! A small model, a small data set of bright rows, and runs on them.
#![allow(dead_code)] // every test file uses its part of it

pub mod torch;

use foveate_compiler::check::Value;
use foveate_runtime::checkpoint::{Checkpoint, latest};
use foveate_runtime::device::Device;
use foveate_runtime::train::{Outcome, TrainOptions, train};
use std::path::{Path, PathBuf};

const SPEC: &str = r#"foveate 1

import Linear, CrossEntropy, AdamW from prelude

model Net(image: (Iy, Ix) = 4x4, classes = 3, hidden = 8) {
    axis Pixels = Iy x Ix
    index i: Pixels

    first = Linear(Iy * Ix, hidden)
    last = Linear(hidden, classes)

    forward(image[1, Iy, Ix]) -> (logits[classes]) {
        x[i] = image[0, i.row, i.col] - 0.5
        return last(relu(first(x)))
    }
}

loss NetLoss(image: (Iy, Ix) = 4x4, classes = 3, hidden = 8) {
    flat net = Net(image, classes, hidden)
    ce = CrossEntropy(classes, 0.1)
    index c: classes

    forward(image[1, Iy, Ix], target: label[classes]) -> (logits[classes], cross_entropy[], size[]) {
        logits = net(image)
        size[] = sum(c) EXTRA
        return logits, ce(logits, target), size
    }
}

recipe tiny {
    model: Net()
    loss: NetLoss()
    data { format: idx, path: "data", image: 4x4, classes: 3 }
    epochs: 4
    batch: 16
    seed: 3
    optimizer: AdamW(lr: 3e-2, weight_decay: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8)
    clip: 1.0
    schedule { warmup_epochs: 1, final_lr: 1e-4 }
    weights { cross_entropy: 1, size { peak: 0.001, warmup_epochs: 1, decay: cosine } }
    augment { flip: 0.5, shift: 1 }
}
"#;

/// A directory with a spec and a data set.
pub struct Place {
    path: PathBuf,
    /// Removes it at the end.
    _dir: Option<tempfile::TempDir>,
}

impl Place {
    /// A spec whose auxiliary loss is the sum of `extra`, and a data set of bright rows: the class says which.
    pub fn new(extra: &str) -> Place {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tiny.fov"), SPEC.replace("EXTRA", extra)).expect("writable");
        std::fs::create_dir(dir.path().join("data")).expect("writable");
        for (name, n) in [("train", 88u32), ("t10k", 30)] {
            let mut images = vec![0, 0, 8, 3];
            [n, 4, 4].iter().for_each(|d: &u32| images.extend(d.to_be_bytes()));
            let mut labels = vec![0, 0, 8, 1];
            labels.extend(n.to_be_bytes());
            for k in 0..n {
                labels.push((k % 3) as u8);
                for y in 0..4 {
                    images.extend(
                        (0..4).map(
                            |x| if y == k % 3 { 200 + (k * 7 + x) as u8 % 50 } else { (k * 13 + x * 5) as u8 % 60 },
                        ),
                    );
                }
            }
            std::fs::write(dir.path().join(format!("data/{name}-images-idx3-ubyte")), images).expect("writable");
            std::fs::write(dir.path().join(format!("data/{name}-labels-idx1-ubyte")), labels).expect("writable");
        }
        Place { path: dir.path().to_owned(), _dir: Some(dir) }
    }
    /// One that another process made and removes.
    pub fn at(path: PathBuf) -> Place {
        Place { path, _dir: None }
    }
    /// The directory.
    pub fn root(&self) -> &Path {
        &self.path
    }
    pub fn out(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
    pub fn options(&self, device: &str, out: &str) -> TrainOptions {
        TrainOptions {
            spec: self.path.join("tiny.fov"),
            recipe: None,
            settings: vec![("augment.shift".to_owned(), Value::Int(0))],
            data: None,
            device: device.to_owned(),
            out: self.out(out),
            resume: false,
            init: None,
            memory: None,
            tune: None,
            max_steps: None,
            quiet: true,
        }
    }
}

/// Trains; panics with the message if that fails.
pub fn run(options: &TrainOptions) -> Outcome {
    train(options).unwrap_or_else(|e| panic!("{e}"))
}

/// The newest checkpoint of an output directory.
pub fn newest(out: &Path) -> Checkpoint {
    let path = latest(&out.join("checkpoints")).expect("readable").expect("there is a checkpoint");
    Checkpoint::load(&path).expect("readable")
}

/// The devices that this build and machine have.
pub fn devices() -> Vec<&'static str> {
    ["interpreter", "loops", "cpu"].into_iter().filter(|d| Device::open(d).is_ok()).collect()
}
