//! Training and measuring on folders of image files, with weights from PyTorch.

mod common;

use common::{fails, succeeds};
use foveate_runtime::checkpoint::Tensors;
use image::{Rgb, RgbImage};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const RECIPE: &str = "tests/fixtures/torch/train.fov";
const WEIGHTS: &str = "tests/fixtures/torch/small.pth";

/// A data set of so many classes, with images of different sizes and both formats.
struct Set(tempfile::TempDir);

impl Set {
    fn new(classes: usize, train: usize, test: usize) -> Set {
        let set = Set(tempfile::tempdir().expect("a folder"));
        for class in 0..classes {
            for (half, count) in [("train", train), ("val", test)] {
                for n in 0..count {
                    let ending = if n % 2 == 0 { "png" } else { "jpg" };
                    let (width, height) = (10 + (class + 3 * n) as u32 % 7, 9 + n as u32 % 5);
                    let value =
                        |x: u32, y: u32, c: u32| (40 * class as u32 + 17 * x * (c + 1) + 29 * y + 5 * n as u32) as u8;
                    let image = RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|c| value(x, y, c))));
                    let path = set.path(&format!("{half}/c{class:03}/{n}.{ending}"));
                    fs::create_dir_all(path.parent().expect("a folder")).expect("written");
                    image.save(path).expect("written");
                }
            }
        }
        set
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(arguments)).expect("valid JSON")
}

#[test]
fn published_weights_are_measured_and_trained_on() {
    let set = Set::new(5, 4, 2);
    let data = set.text("");
    let found = json(&["eval", RECIPE, "--weights", WEIGHTS, "--data", &data, "--json"]);
    // The same as image by image.
    let images: Vec<String> =
        (0..5).flat_map(|c| [0, 1].map(|n| set.text(&format!("val/c{c:03}/{n}.{}", ["png", "jpg"][n])))).collect();
    let mut arguments = vec!["predict", "tests/fixtures/torch/small.fov", "--weights", WEIGHTS, "--json"];
    arguments.extend(images.iter().map(String::as_str));
    let one_by_one = json(&arguments);
    let classes = one_by_one.as_array().expect("predictions").iter().map(|p| p["classes"][0][0].as_u64());
    let mut confusion = vec![vec![0u64; 5]; 5];
    for (n, class) in classes.enumerate() {
        confusion[n / 2][class.expect("a class") as usize] += 1;
    }
    assert_eq!(found["confusion"], serde_json::json!(confusion));
    let right: u64 = (0..5).map(|c| confusion[c][c]).sum();
    assert_eq!(found["accuracy"].as_f64(), Some(right as f64 / 10.0));
    assert_eq!(found["top5"].as_f64(), Some(1.0));
    let text = succeeds(&["eval", RECIPE, "--weights", WEIGHTS, "--data", &data]);
    assert!(text.contains("of five guesses 100.00 %") && text.contains("How often a class"), "{text}");

    // Training begins there and says how long it waited.
    let out = set.text("out");
    let still = ["--set", "optimizer.lr=1e-30", "--set", "optimizer.weight_decay=0"];
    let train = ["train", RECIPE, "--data", &data, "--init", WEIGHTS, "--out", &out, "--json"];
    let outcome = json(&[&train[..], &still].concat());
    assert_eq!((outcome["steps"].as_u64(), outcome["epochs"].as_u64()), (Some(10), Some(2)));
    let metrics = fs::read_to_string(Path::new(&out).join("metrics.jsonl")).expect("readable");
    let lines: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).expect("valid JSON")).collect();
    let epochs: Vec<&Value> = lines.iter().filter(|l| l["kind"] == "epoch").collect();
    assert_eq!(epochs.len(), 2);
    assert!(epochs.iter().all(|e| e["waiting"].as_f64().is_some_and(|w| (0.0..=1.0).contains(&w))), "{epochs:?}");
    let report = fs::read_to_string(Path::new(&out).join("report.html")).expect("readable");
    assert!(report.contains("time spent waiting for images") && report.contains("Most confident mistakes"));
    // Nothing was learned at this rate, so what was given is measured; but for the running statistics.
    let trained = set.text("out/model.safetensors");
    let again = json(&["eval", RECIPE, "--weights", &trained, "--data", &data, "--json"]);
    assert_eq!(again["accuracy"], outcome["test_accuracy"]);
    let (given, kept) =
        (Tensors::read(Path::new("../tests/fixtures/torch/small.pth")), Tensors::read(Path::new(&trained)));
    let (given, kept) = (given.expect("readable"), kept.expect("readable"));
    assert_eq!(given.get("head.weight"), kept.get("head.weight"));
}

#[test]
fn there_may_be_many_classes() {
    let set = Set::new(260, 1, 1);
    let (data, out) = (set.text(""), set.text("out"));
    let sizes = ["--set", "classes=260", "--set", "data.classes=260", "--set", "batch=65", "--set", "epochs=1"];
    let train = ["train", RECIPE, "--data", &data, "--out", &out, "--init", WEIGHTS, "--leave", "head.*", "--json"];
    let outcome = json(&[&train[..], &sizes].concat());
    assert_eq!(outcome["steps"].as_u64(), Some(4));
    let weights = set.text("out/model.safetensors");
    let text = succeeds(&[&["eval", RECIPE, "--weights", &weights, "--data", &data][..], &sizes].concat());
    assert!(text.starts_with("accuracy") && text.lines().count() == 1, "{text}");
}

#[test]
fn what_is_wrong_with_a_folder_is_said() {
    let set = Set::new(5, 1, 1);
    let (data, out) = (set.text(""), set.text("out"));
    let train = ["train", RECIPE, "--data", &data, "--out", &out, "--json"];
    let eval = ["eval", RECIPE, "--weights", WEIGHTS, "--data", &data];
    let err = fails(&[&train[..], &["--set", "data.classes=4", "--set", "classes=4"]].concat());
    assert!(err.contains("train: expected 4 folders, one a class, found 5"), "{err}");
    let err = fails(&[&eval[..], &["--set", "data.format=idx"]].concat());
    assert!(err.contains("t10k-images-idx3-ubyte"), "{err}");
    let err = fails(&[&eval[..], &["--set", "data.mean=1,2"]].concat());
    assert!(err.contains("`data.mean`: expected a number, or a list of three"), "{err}");
    // A photograph that was cut short.
    let bad = set.path("train/c003/1.jpg");
    RgbImage::from_pixel(40, 30, Rgb([9, 99, 200])).save(&bad).expect("written");
    let whole = fs::read(&bad).expect("readable");
    fs::write(&bad, &whole[..whole.len() / 3]).expect("written");
    let err = fails(&train);
    assert!(err.contains("train/c003/1.jpg: expected a JPEG or PNG image"), "{err}");
    fs::remove_file(set.path("val/c001/0.png")).expect("removed");
    let err = fails(&eval);
    assert!(err.contains("val/c001: expected JPEG or PNG images of this class, found none"), "{err}");
    fs::rename(set.path("val/c004"), set.path("val/c009")).expect("renamed");
    RgbImage::new(9, 9).save(set.path("val/c001/0.png")).expect("written");
    let err = fails(&train);
    assert!(err.contains("`c004` where `c009` is found"), "{err}");
}

#[test]
fn a_case_may_be_a_file_of_pytorch() {
    let verify = ["verify", "tests/fixtures/torch/small.fov", "--against", "tests/fixtures/torch/case.pth", "--json"];
    let found = json(&verify);
    let rows = found["rows"].as_array().or(found.as_array()).expect("rows");
    assert!(rows.len() == 1 && rows[0]["pass"] == true, "{found}");
}
