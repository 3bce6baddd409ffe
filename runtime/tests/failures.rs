//! What a run is refused for: the message says what and where, and nothing is half-written.

mod common;

use common::{Place, run};
use foveate_compiler::check::Value;
use foveate_runtime::checkpoint::Fit;
use foveate_runtime::checkpoint::{Checkpoint, Data, Tensor, Tensors, latest};
use foveate_runtime::train::{EvalOptions, TrainOptions, eval, train};
use std::path::{Path, PathBuf};

fn message(options: &TrainOptions) -> String {
    train(options).err().map(|e| e.to_string()).unwrap_or_default()
}

/// One step on the checked evaluator.
fn short(place: &Place) -> TrainOptions {
    TrainOptions { max_steps: Some(1), ..place.options("loops", "out") }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("readable");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
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

#[test]
fn damaged_data_is_told() {
    let place = Place::new("logits[c]^2");
    let file = place.out("data/train-images-idx3-ubyte");
    let whole = std::fs::read(&file).expect("readable");
    for len in [0, 3, 15, whole.len() - 1] {
        std::fs::write(&file, &whole[..len]).expect("writable");
        let text = message(&short(&place));
        assert!(text.contains("train-images-idx3-ubyte"), "{len}: {text}");
        assert!(!place.out("out/checkpoints").exists(), "{len}");
    }
    std::fs::remove_file(&file).expect("removable");
    let text = message(&short(&place));
    assert!(text.contains("train-images-idx3-ubyte") && text.contains("data"), "{text}");
}

#[test]
fn spec_errors_are_told() {
    let place = Place::new("logitz[c]^2");
    let text = message(&short(&place));
    assert!(text.contains("logitz") && text.contains("tiny.fov"), "{text}");
    assert!(names(&place.out("out")).is_empty());
    let nowhere = TrainOptions { spec: place.out("none.fov"), ..short(&place) };
    assert!(message(&nowhere).contains("none.fov"), "{}", message(&nowhere));
    let recipe = TrainOptions { recipe: Some("large".to_owned()), ..short(&place) };
    let text = message(&recipe);
    assert!(text.contains("`large`") && text.contains("`tiny`"), "{text}");
}

/// Changes the tensors of the newest checkpoint's file.
fn change(checkpoint: &Path, file: &str, change: impl FnOnce(&mut Vec<(String, Tensor)>)) {
    let path = checkpoint.join(file);
    let mut list: Vec<(String, Tensor)> =
        Tensors::read(&path).expect("readable").iter().map(|(n, t)| (n.clone(), t.clone())).collect();
    change(&mut list);
    let mut out = Tensors::default();
    for (name, tensor) in list {
        out.insert(name, tensor);
    }
    out.write(&path).expect("writable");
}

#[test]
fn wrong_tensors_are_told() {
    let place = Place::new("logits[c]^2");
    let resume = TrainOptions { resume: true, max_steps: Some(2), ..short(&place) };
    let newest_path = || -> PathBuf { latest(&place.out("out/checkpoints")).expect("readable").expect("one") };

    run(&short(&place));
    change(&newest_path(), "model.safetensors", |list| {
        list.retain(|(n, _)| n != "first.bias");
        list.push(("third.bias".to_owned(), Tensor { shape: vec![1], data: Data::F32(vec![0.0]) }));
        for (name, tensor) in list.iter_mut().filter(|(n, _)| n == "last.bias") {
            assert_eq!(name, "last.bias");
            *tensor = Tensor { shape: vec![4], data: Data::F32(vec![0.0; 4]) };
        }
    });
    let text = message(&resume);
    for part in ["first.bias", "third.bias", "last.bias", "[3]", "[4]", "model"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let weights = EvalOptions {
        spec: place.out("tiny.fov"),
        recipe: None,
        settings: Vec::new(),
        weights: place.out("out/checkpoints"),
        data: None,
        fit: Fit::default(),
        device: "loops".to_owned(),
    };
    let text = eval(&weights).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(text.contains("first.bias") && text.contains("third.bias"), "{text}");

    run(&short(&place));
    change(&newest_path(), "optimizer.safetensors", |list| list.retain(|(n, _)| n != "first.bias.m"));
    assert!(message(&resume).contains("first.bias.m"), "{}", message(&resume));

    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        run(&short(&place));
        let path = newest_path().join(file);
        let whole = std::fs::read(&path).expect("readable");
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("writable");
        let text = message(&resume);
        assert!(text.contains(file), "{file}: {text}");
    }
}

/// Runs where tests may mount a file system (in containers as root); elsewhere there is no disk to fill.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_older_checkpoint() {
    let place = Place::new("logits[c]^2");
    let out = place.out("out");
    std::fs::create_dir(&out).expect("writable");
    let command = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).arg(&out).output();
        output.is_ok_and(|o| o.status.success())
    };
    if !command("mount", &["-t", "tmpfs", "-o", "size=128k", "tmpfs"]) {
        return;
    }
    let first = train(&short(&place)).map(|o| o.steps);
    let kept = names(&out.join("checkpoints"));
    std::fs::write(out.join("ballast"), vec![0; 1 << 20]).expect_err("the disk fills up");
    let text = message(&TrainOptions { resume: true, max_steps: Some(2), ..short(&place) });
    let left = names(&out.join("checkpoints"));
    let readable = latest(&out.join("checkpoints")).ok().flatten().is_some_and(|p| Checkpoint::load(&p).is_ok());
    assert!(command("umount", &[]));
    assert_eq!(first.ok(), Some(1));
    assert!(text.contains("No space left on device") && text.contains("out"), "{text}");
    assert_eq!((left, readable), (kept, true));
}

#[test]
fn training_that_diverges_stops() {
    let place = Place::new("logits[c]^2");
    let mut options = TrainOptions { max_steps: Some(20), ..short(&place) };
    options.settings.push(("optimizer.lr".to_owned(), Value::Float(1e30)));
    let text = message(&options);
    assert!(text.contains("training stops at step") && text.contains("a lower learning rate may help"), "{text}");
    assert!(!place.out("out/checkpoints").exists());
}

#[test]
fn settings_are_checked() {
    let place = Place::new("logits[c]^2");
    let with = |name: &str, value: Value| {
        let mut options = short(&place);
        options.settings.push((name.to_owned(), value));
        message(&options)
    };
    for (name, value) in [
        ("epochs", Value::Int(0)),
        ("batch", Value::Word("many".to_owned())),
        ("augment.flip", Value::Float(2.0)),
        ("data.image", Value::Int(4)),
        ("optimizer.eps", Value::Bool(true)),
        ("weights.size.decay", Value::Word("linear".to_owned())),
    ] {
        let text = with(name, value);
        assert!(text.contains(&format!("`{name}`")) && text.contains("expected"), "{name}: {text}");
    }
    let text = with("data.classes", Value::Int(4));
    assert!(text.contains("label") || text.contains("4 classes"), "{text}");
    let mut options = short(&place);
    options.settings.push(("optimizer".to_owned(), Value::Word("Sgd".to_owned())));
    options.settings.push(("optimizer.lr".to_owned(), Value::Float(0.1)));
    assert!(message(&options).contains("no optimizer `Sgd`"), "{}", message(&options));
    for (name, value, said) in [
        ("optimizer.foo", Value::Float(1.0), "optimizer `AdamW` has no argument `foo`; it has lr, weight_decay"),
        ("loss", Value::Word("Foo".to_owned()), "has no module, model, loss or optimizer `Foo`"),
        ("loss", Value::Word("Net".to_owned()), "`loss`: expected a loss, found the model `Net`"),
        ("model", Value::Word("NetLoss".to_owned()), "`model`: expected a model, found the loss `NetLoss`"),
        ("clip", Value::Int(0), "`clip`: expected a number above 0, found `0`"),
        ("data.path", Value::Bool(true), "`data.path`: expected a path in quotes, found `true`"),
        ("data.path", Value::Word("nowhere".to_owned()), "nowhere: expected a directory"),
        ("data.path", Value::Str("./elsewhere".to_owned()), "./elsewhere: expected a directory"),
        ("weights.size.speed", Value::Int(1), "there are peak, warmup_epochs, decay"),
        ("weights.nothing", Value::Int(1), "`NetLoss` has no result `nothing`; its results are "),
        ("weights.siez", Value::Int(1), "did you mean `size`?"),
        ("weights.size.peek", Value::Int(1), "did you mean `peak`?"),
        ("optimizer.esp", Value::Float(1.0), "did you mean `eps`?"),
        ("epoch", Value::Int(1), "did you mean `epochs`?"),
        ("augment.flp", Value::Int(1), "did you mean `augment.flip`?"),
    ] {
        let text = with(name, value);
        assert!(text.contains(said), "{name}: {text}");
    }
    assert!(!place.out("out/checkpoints").exists());
}

#[test]
fn settings_replace_what_the_recipe_says() {
    let place = Place::new("logits[c]^2");
    let spec = place.out("tiny.fov");
    let text = std::fs::read_to_string(&spec).expect("readable").replace("loss: NetLoss()", "loss: NoLoss(hidden: 3)");
    std::fs::write(&spec, text).expect("writable");
    std::fs::rename(place.out("data"), place.out("moved")).expect("renamed");
    let mut options = short(&place);
    assert!(message(&options).contains("`NoLoss`"), "{}", message(&options));
    options.settings.push(("loss".to_owned(), Value::Word("NetLoss".to_owned())));
    options.settings.push(("data.path".to_owned(), Value::Str(place.out("moved").display().to_string())));
    assert_eq!(run(&options).steps, 1);
}
