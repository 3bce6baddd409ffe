//! Training a small model on small images: it learns, and it can be stopped and resumed without a bit of difference.

mod common;

use common::{Place, devices, newest, run};
use foveate_runtime::checkpoint::{Checkpoint, Fit, Tensors};
use foveate_runtime::train::{EvalOptions, TrainOptions, eval};

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
            fit: Fit::default(),
            data: None,
            device: device.to_owned(),
        };
        let evaluation = eval(&options).expect("a trained model");
        assert_eq!(Some(evaluation.accuracy), whole.test_accuracy, "{device}");
    }
}

#[test]
fn begins_with_given_weights() {
    let place = Place::new("logits[c]^2");
    let after = |steps, name: &str| TrainOptions { max_steps: Some(steps), ..place.options("loops", name) };
    run(&after(3, "first"));
    let first = newest(&place.out("first"));
    let init = Some((place.out("first"), Fit::default()));
    run(&TrainOptions { init: init.clone(), ..after(0, "second") });
    assert_eq!(newest(&place.out("second")).model, first.model);
    // But for what is left.
    let fit = Fit { leave: vec!["last.*".to_owned()], ..Fit::default() };
    run(&TrainOptions { init: init.map(|(path, _)| (path, fit)), ..after(0, "third") });
    let third = newest(&place.out("third"));
    for (name, tensor) in first.model.iter() {
        assert_eq!(third.model.get(name) == Some(tensor), !name.starts_with("last."), "{name}");
    }
}

#[test]
fn a_new_run_moves_an_earlier_one_away() {
    let place = Place::new("logits[c]^2");
    let after = |steps| TrainOptions { max_steps: Some(steps), ..place.options("loops", "out") };
    let out = place.out("out");
    run(&after(9));
    let first = newest(&out);
    let outcome = run(&after(2));
    let second = newest(&out);
    assert_eq!((first.state.step, second.state.step), (9, 2));
    assert_eq!(Checkpoint::load(&outcome.checkpoint.expect("saved")).expect("still there"), second);
    assert_eq!(newest(&out.join("previous")), first);
    // Going on is with the new one.
    assert_eq!(run(&TrainOptions { resume: true, ..after(3) }).steps, 3);
    assert_eq!(newest(&out.join("previous")), first);
    // A third run replaces what was kept of the first one.
    run(&after(1));
    assert_eq!((newest(&out).state.step, newest(&out.join("previous")).state.step), (1, 3));
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
fn a_step_is_that_of_adamw() {
    let place = Place::new("logits[c]^2");
    let after = |steps| TrainOptions { max_steps: Some(steps), ..place.options("interpreter", "out") };
    run(&after(0));
    let start = newest(&place.out("out"));
    run(&after(1));
    let (end, text) = (newest(&place.out("out")), std::fs::read_to_string(place.out("out/metrics.jsonl")));
    let step: serde_json::Value =
        serde_json::from_str(text.expect("readable").lines().next().expect("a step")).expect("JSON");
    let (lr, grad_norm) = (step["lr"].as_f64().expect("a number"), step["grad_norm"].as_f64().expect("a number"));
    let (wd, beta1, beta2, eps) = (0.01, 0.9, 0.999, 1e-8);
    let mut squares = 0.0;
    for (name, before) in start.model.iter() {
        let of = |from: &Tensors, name: &str| from.get(name).expect("a tensor").data.to_f64();
        let (m, v) = (of(&end.optimizer, &format!("{name}.m")), of(&end.optimizer, &format!("{name}.v")));
        // Weights decay; biases do not.
        let decay = if name.ends_with(".weight") { wd } else { 0.0 };
        for (((p, got), m), v) in before.data.to_f64().iter().zip(of(&end.model, name)).zip(m).zip(v) {
            let g = m / (1.0 - beta1);
            squares += g * g;
            // 1 - beta2 is what is left of f32 precision.
            assert!((v - (1.0 - beta2) * g * g).abs() <= 1e-4 * v.abs() + 1e-12, "{name}");
            let expected = p - lr * decay * p - lr * g / (g.abs() + eps);
            assert!((got - expected).abs() < 1e-6, "{name}: {got} for {expected}");
        }
    }
    // The gradient was clipped to a norm of 1.
    assert!(grad_norm > 0.0 && (squares.sqrt() - grad_norm.min(1.0)).abs() < 1e-4, "{grad_norm} {squares}");
}
