//! Training a small model on small images: it learns, it can be stopped and resumed without a bit of difference, and mistakes are told.

use foveate_compiler::check::Value;
use foveate_runtime::checkpoint::{Checkpoint, latest};
use foveate_runtime::device::Device;
use foveate_runtime::train::{EvalOptions, Outcome, TrainOptions, eval, train};
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

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A spec whose auxiliary loss is the sum of `extra`, and a data set of bright rows: the class says which.
    fn new(extra: &str) -> Place {
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
        Place { dir }
    }
    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn options(&self, device: &str, out: &str) -> TrainOptions {
        TrainOptions {
            spec: self.dir.path().join("tiny.fov"),
            recipe: None,
            settings: vec![("augment.shift".to_owned(), Value::Int(0))],
            data: None,
            device: device.to_owned(),
            out: self.out(out),
            resume: false,
            max_steps: None,
            quiet: true,
        }
    }
}

fn run(options: &TrainOptions) -> Outcome {
    train(options).unwrap_or_else(|e| panic!("{e}"))
}

fn newest(out: &Path) -> Checkpoint {
    let path = latest(&out.join("checkpoints")).expect("readable").expect("there is a checkpoint");
    Checkpoint::load(&path).expect("readable")
}

fn devices() -> Vec<&'static str> {
    ["interpreter", "loops", "cpu"].into_iter().filter(|d| Device::open(d).is_ok()).collect()
}

#[test]
fn learns_and_goes_on_exactly() {
    for device in devices() {
        let place = Place::new("logits[c]^2");
        let whole = run(&place.options(device, "whole"));
        assert_eq!((whole.steps, whole.epochs, whole.interrupted), (24, 4, false));
        assert!(whole.test_accuracy > Some(0.9), "{device}: {:?}", whole.test_accuracy);

        // Stopped in the middle of an epoch, at the end of one, and then run to the end.
        for (n, stop) in [(0, Some(9)), (1, Some(12)), (2, None)] {
            let part = TrainOptions { resume: n > 0, max_steps: stop, ..place.options(device, "parts") };
            let outcome = run(&part);
            assert_eq!(outcome.steps, stop.unwrap_or(24));
        }
        let (a, b) = (newest(&place.out("whole")), newest(&place.out("parts")));
        assert_eq!(a.model, b.model, "{device}");
        assert_eq!(a.optimizer, b.optimizer, "{device}");
        assert_eq!((a.state.step, a.state.epoch), (b.state.step, b.state.epoch));
        let losses = |c: &Checkpoint| c.state.history.iter().map(|e| e["loss"].clone()).collect::<Vec<_>>();
        assert_eq!(losses(&a), losses(&b), "{device}");

        for name in
            ["report.html", "loss.svg", "accuracy.svg", "learning_rate.svg", "metrics.jsonl", "model.safetensors"]
        {
            assert!(place.out("parts").join(name).is_file(), "{name}");
        }
        let steps = std::fs::read_to_string(place.out("parts").join("metrics.jsonl")).expect("readable");
        assert_eq!(steps.lines().count(), 24 + 4);

        let options = EvalOptions {
            spec: place.out("tiny.fov"),
            recipe: Some("tiny".to_owned()),
            settings: Vec::new(),
            weights: place.out("parts").join("model.safetensors"),
            data: None,
            device: device.to_owned(),
        };
        let evaluation = eval(&options).expect("a trained model");
        assert_eq!(Some(evaluation.accuracy), whole.test_accuracy, "{device}");
    }
}

#[test]
fn a_loss_that_is_not_finite_is_left_out() {
    // Infinite in every step: training goes on as if only the first loss were there.
    let place = Place::new("log(0.0 * logits[c]^2)");
    let outcome = run(&place.options("loops", "out"));
    assert!(outcome.test_accuracy > Some(0.9), "{:?}", outcome.test_accuracy);
    let text = std::fs::read_to_string(place.out("out/metrics.jsonl")).expect("readable");
    assert!(text.lines().next().is_some_and(|l| l.contains("\"size\":null")), "{text}");
}

#[test]
fn mistakes_are_told() {
    let place = Place::new("logits[c]^2");
    let message = |o: &TrainOptions| train(o).err().map(|e| e.to_string()).unwrap_or_default();
    let good = TrainOptions { max_steps: Some(1), ..place.options("loops", "out") };

    let resume = TrainOptions { resume: true, ..good.clone() };
    assert!(message(&resume).contains("there is no checkpoint to resume from"), "{}", message(&resume));
    run(&good);
    let mut other = resume.clone();
    other.settings.push(("epochs".to_owned(), Value::Int(9)));
    assert!(message(&other).contains("was 4 in the checkpoint and is 9 now"), "{}", message(&other));

    let nowhere = TrainOptions { data: Some(place.out("none")), ..good.clone() };
    assert!(message(&nowhere).contains("expected a directory with the data set"), "{}", message(&nowhere));
    let unknown = TrainOptions { settings: vec![("epocs".to_owned(), Value::Int(9))], ..good.clone() };
    assert!(message(&unknown).contains("epocs"), "{}", message(&unknown));
    let file = TrainOptions { out: place.out("tiny.fov"), ..good.clone() };
    assert!(message(&file).contains("cannot create"), "{}", message(&file));
    let device = TrainOptions { device: "abacus".to_owned(), ..good };
    assert!(message(&device).contains("no device `abacus`"), "{}", message(&device));
}
