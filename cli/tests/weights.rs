//! Weights from elsewhere, and what a model makes of images with them.

mod common;

use common::{fails, foveate, succeeds};
use image::{Rgb, RgbImage};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const SMALL: &str = "tests/fixtures/torch/small.fov";
const WEIGHTS: &str = "tests/fixtures/torch/small.pth";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder with a JPEG and a PNG of the same photograph-like picture.
fn pictures() -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = RgbImage::from_fn(40, 30, |x, y| Rgb([(6 * x) as u8, (8 * y) as u8, (3 * (x + y)) as u8]));
    let paths = ["leaf.jpg", "leaf.png"].map(|n| folder.path().join(n));
    for path in &paths {
        picture.save(path).expect("written");
    }
    let [jpeg, png] = paths.map(|p| p.display().to_string());
    (folder, jpeg, png)
}

#[test]
fn predict_ranks_classes_and_draws_maps() {
    let (folder, jpeg, png) = pictures();
    let maps = folder.path().join("maps").display().to_string();
    let base = ["predict", SMALL, "--weights", WEIGHTS];
    let text = succeeds(&[&base[..], &[&jpeg, "--top", "2"]].concat());
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("probability") && text.contains(" %"), "{text}");

    let found = succeeds(&[&base[..], &[&jpeg, &png, "--maps", &maps, "--json"]].concat());
    let found: Value = serde_json::from_str(&found).expect("valid JSON");
    let (of_jpeg, of_png) = (&found[0], &found[1]);
    assert_eq!(of_jpeg["classes"].as_array().expect("classes").len(), 5);
    // The same picture, but for what JPEG loses.
    assert_eq!(of_jpeg["classes"][0][0], of_png["classes"][0][0]);
    let p = |found: &Value| found["classes"][0][1].as_f64().expect("a number");
    assert!((p(of_jpeg) - p(of_png)).abs() < 0.05);
    let total: f64 = of_png["classes"].as_array().expect("classes").iter().map(|c| c[1].as_f64().unwrap_or(0.0)).sum();
    assert!((total - 1.0).abs() < 1e-6);

    // Two images of one name have a folder each; the class token's row has a panel a head, beside the image.
    for (found, name) in [(of_jpeg, "leaf"), (of_png, "leaf-2")] {
        let map = &found["maps"][0];
        assert_eq!((map["value"].as_str(), map["kind"].as_str()), (Some("attn.score"), Some("image")));
        let file = Path::new(&maps).join(name).join("attn.score.png");
        assert_eq!(map["file"].as_str(), file.to_str());
        let picture = image::open(&file).expect("a picture");
        assert_eq!((picture.width(), picture.height()), (3 * 224 + 2 * 6, 224 + 2 * 18));
    }
}

#[test]
fn predict_goes_on_where_there_is_nothing_to_draw() {
    let (folder, jpeg, _) = pictures();
    // The same network, exposing nothing.
    let spec = fs::read_to_string(root().join(SMALL)).expect("readable");
    let attention = root().join("specs/attention/full.fov");
    let full = fs::read_to_string(&attention).expect("readable").replace("expose ", "");
    assert!(spec.contains("attention/full.fov"), "{spec}");
    fs::write(folder.path().join("full.fov"), full).expect("written");
    let at = spec.find('"').expect("a path");
    let end = at + 1 + spec[at + 1..].find('"').expect("its end");
    let plain = folder.path().join("plain.fov");
    fs::write(&plain, format!("{}\"full.fov{}", &spec[..at], &spec[end..])).expect("written");
    let plain = plain.display().to_string();
    let maps = folder.path().join("maps").display().to_string();
    let ran = foveate(&["predict", &plain, "--weights", WEIGHTS, &jpeg, "--maps", &maps]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("probability") && ran.err.contains("warning: no maps are drawn"), "{}", ran.err);
}

#[test]
fn predict_says_what_is_wrong() {
    let (folder, jpeg, _) = pictures();
    let text = folder.path().join("text.png");
    fs::write(&text, "no picture").expect("written");
    let (text, missing) = (text.display().to_string(), folder.path().join("missing.jpg").display().to_string());
    let base = ["predict", SMALL, "--weights", WEIGHTS];
    for (arguments, expected) in [
        (&[&text[..]][..], "text.png: expected a JPEG or PNG image"),
        (&[&missing], "missing.jpg"),
        (&[&jpeg, "--crop", "2"], "the crop must lie in (0, 1]"),
        (&[&jpeg, "--mean", "1,2"], "expected one mean or one for each of 3 channels, found 2"),
        (&[&jpeg, "--maps", "m", "--only", "x*"], "no exposed value matches `x*`; the model exposes `attn.score`"),
        (&[&jpeg, "--labels", &missing], "missing.jpg"),
    ] {
        let err = fails(&[&base[..], arguments].concat());
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
    let err = fails(&["predict", "specs/attention/full.fov", "--weights", WEIGHTS, &jpeg]);
    assert!(err.contains("full.fov") || err.contains("SelfAttention"), "{err}");
}

#[test]
fn convert_writes_what_torch_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("small.safetensors").display().to_string();
    let text = succeeds(&["convert", WEIGHTS, "-o", &out, "--for", SMALL]);
    assert!(text.contains(&out), "{text}");
    // Both files mean the same model.
    let (_pictures, jpeg, _) = pictures();
    let of = |weights: &str| succeeds(&["predict", SMALL, "--weights", weights, &jpeg, "--json"]);
    assert_eq!(of(WEIGHTS), of(&out));

    // Another resolution, another number of classes.
    let larger = ["convert", WEIGHTS, "-o", &out, "--for", SMALL, "--set", "image=12"];
    let err = fails(&larger);
    assert!(err.contains("`pos_embed`") && err.contains("--resample"), "{err}");
    let larger = [&larger[..], &["--set", "classes=7"]].concat();
    let err = fails(&larger);
    assert!(err.contains("`classes` is set to 7, but is 5 in parameter `head.weight`"), "{err}");
    let fitted = succeeds(&[&larger[..], &["--resample", "--leave", "head.*", "--json"]].concat());
    let fitted: Value = serde_json::from_str(&fitted).expect("valid JSON");
    assert_eq!(fitted["left"], serde_json::json!(["head.weight", "head.bias"]));
    assert_eq!(fitted["resampled"], serde_json::json!(["`pos_embed` from 4 x 4 to 6 x 6"]));
    // A head without values is none to predict with.
    let err = fails(&["predict", SMALL, "--weights", WEIGHTS, "--leave", "head.*", &jpeg]);
    assert!(err.contains("`head.weight` is left without a value"), "{err}");
}

#[test]
fn hostile_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = fs::read(root().join(WEIGHTS)).expect("readable");
    let cut = folder.path().join("cut.pth");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("written");
    // Protocol 2: os.system("touch ran").
    let run = folder.path().join("run.pt");
    fs::write(&run, b"\x80\x02cos\nsystem\nq\x00X\x09\x00\x00\x00touch ranq\x01\x85q\x02Rq\x03.").expect("written");
    for file in [&cut, &run] {
        let out = folder.path().join("out.safetensors");
        let name = file.display().to_string();
        let err = fails(&["convert", &name, "-o", &out.display().to_string()]);
        assert!(err.contains(&name), "{err}");
        assert!(!out.exists() && !root().join("ran").exists());
    }
}
