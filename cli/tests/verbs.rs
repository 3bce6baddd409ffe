//! What scripts rely on: exit codes, JSON, and files that are whole.

mod common;

use common::{command, fails, foveate, succeeds};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(arguments)).expect("valid JSON")
}

/// Every spec of the repository, from its root.
fn specs() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    let mut folders = vec![root.join("specs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "fov") {
                found.push(path.strip_prefix(&root).expect("below the root").display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn specs_check_and_are_formatted() {
    let specs = specs();
    let with = |verb: &[&'static str]| {
        let arguments: Vec<&str> = verb.iter().copied().chain(specs.iter().map(String::as_str)).collect();
        succeeds(&arguments)
    };
    with(&["check"]);
    with(&["fmt", "--check"]);
    let found: Value = serde_json::from_str(&with(&["check", "--json"])).expect("valid JSON");
    assert!(found.to_string().len() < 10_000);
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["bogus"][..],
        &["check"],
        &["emit", "specs/attention/full.fov", "--target", "x", "-o", "y"],
        &["train", "--nope"],
    ] {
        assert_eq!(foveate(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn help_is_given_for_every_verb() {
    for verb in
        ["check", "fmt", "explain", "emit", "verify", "info", "bench", "train", "eval", "convert", "predict", "devices"]
    {
        let help = succeeds(&[verb, "--help"]);
        assert!(help.contains("Usage: foveate"), "{help}");
        assert!(verb == "devices" || help.contains("Example: foveate"), "{verb} has no example");
    }
}

#[test]
fn bench_measures() {
    let item = ["bench", "specs/attention/full.fov", "--set", "C=12", "--set", "H=3", "--set", "N=7", "--seconds", "0"];
    for part in ["inference", "gradients", "step"] {
        let found = json(&[&item[..], &["--part", part, "--kernels", "--json"]].concat());
        assert_eq!((found["part"].as_str(), found["batch"].as_u64()), (Some(part), Some(8)));
        let runs = found["runs"].as_array().expect("runs");
        assert!(runs.len() >= 5 && found["median_ms"].as_f64() > Some(0.0) && found["flops"].as_f64() > Some(0.0));
        let launches = found["by_kernel"].as_array().expect("kernels").iter().map(|k| k["launches"].as_u64());
        assert_eq!(launches.sum::<Option<u64>>(), found["launches"].as_u64());
    }
    let golden = "tests/golden/ops/sp_sa_14x14.safetensors";
    let item = ["bench", "specs/attention/sp_sa.fov", "--set", "H=6", "--set", "grid=14x14", "--set", "qkv_bias=true"];
    let text = succeeds(&[&item[..], &["--against", golden, "--seconds", "0"]].concat());
    assert!(text.contains("the median of"), "{text}");
    let err = fails(&["bench", "specs/attention/full.fov", "--set", "C=12", "--set", "H=3", "--against", golden]);
    assert!(err.contains("E0"), "{err}");
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let unknown = write(
        "unknown.fov",
        "foveate 1\n\nmodule M(C) {\n    forward(x[C]) -> [C] {\n        y[c: C] = xx[c]\n        return y\n    }\n}\n",
    );
    let err = fails(&["check", &unknown]);
    assert!(err.contains("unknown.fov:5:") && err.contains("`xx`") && err.contains("did you mean `x`"), "{err}");

    let shape = write(
        "shape.fov",
        "foveate 1\n\nmodule M(A, B) {\n    forward(x[A], z[B]) -> [A] {\n        y[a: A] = x[a] + z[a]\n        return y\n    }\n}\n",
    );
    let err = fails(&["check", &shape]);
    assert!(err.contains("shape.fov:5:") && err.contains('A') && err.contains('B'), "{err}");

    let both = fails(&["check", &unknown, &shape]);
    assert!(both.contains("unknown.fov:5:") && both.contains("shape.fov:5:"), "all files are reported: {both}");

    let found = foveate(&["check", "--json", &unknown]);
    assert_eq!(found.code, Some(1));
    let found: Value = serde_json::from_str(&found.out).expect("valid JSON");
    let text = found.to_string();
    assert!(text.contains("\"line\":5") && text.contains("\"code\":\"E"), "{text}");

    let err = fails(&["check", "no/such.fov"]);
    assert!(err.contains("no/such.fov"), "{err}");
    let err = fails(&["explain", "specs/attention/full.fov", "--set", "C=65", "--set", "H=4", "--set", "N=5"]);
    assert!(err.contains("C % H == 0") && err.contains("C = 65"), "{err}");
    let err = fails(&["explain", "specs/attention/vicinity.fov", "--set", "C=8"]);
    assert!(err.contains("VicinityAttentionQuadratic"), "{err}");
}

#[test]
fn small_slips_are_forgiven_or_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("marked.fov");
    let text = "\u{feff}foveate 1\n\nmodule M(C) {\n    forward(x[C]) -> [C] {\n        y[c: C] = x[c]\n        return y\n    }\n}\n";
    fs::write(&path, text).expect("written");
    succeeds(&["check", &path.display().to_string()]);
    succeeds(&["fmt", "--check", &path.display().to_string()]);
    let err = fails(&["info", "specs/demo/fashion.fov:FashionNet", "--set", "depth=-1"]);
    assert!(err.contains("E0301") && err.contains("this is -1"), "{err}");
}

#[test]
fn formatting_changes_a_file_only_when_it_parses() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.fov");
    let name = path.display().to_string();
    let loose = "foveate 1\nmodule   M(C){ // kept\n forward(x[C])->[C]{ y[c:C]=x[c]*2.0\n return y } }\n";
    fs::write(&path, loose).expect("written");
    let ran = foveate(&["fmt", "--check", &name]);
    assert!(ran.code == Some(1) && ran.out.contains("m.fov"), "{}{}", ran.out, ran.err);
    assert_eq!(fs::read_to_string(&path).expect("read"), loose);
    succeeds(&["fmt", &name]);
    let formatted = fs::read_to_string(&path).expect("read");
    assert!(formatted.contains("// kept") && formatted.contains("y[c: C] = x[c] * 2.0"), "{formatted}");
    succeeds(&["fmt", "--check", &name]);

    let broken = "foveate 1\nmodule M(C) { forward(x[C] -> [C] { return x } }\n";
    fs::write(&path, broken).expect("written");
    fails(&["fmt", &name]);
    assert_eq!(fs::read_to_string(&path).expect("read"), broken);
}

#[test]
fn explanations_have_what_scripts_read() {
    let found =
        json(&["explain", "specs/attention/sp_sa.fov", "--set", "C=16", "--set", "H=2", "--set", "grid=5x3", "--json"]);
    assert!(!found["algorithm"].as_array().expect("a list").is_empty());
    let rewrites = found["rewrites"].as_array().expect("a list");
    assert!(rewrites.iter().any(|r| r["fired"] == true) && rewrites.iter().any(|r| r["fired"] == false));
    assert!(rewrites.iter().all(|r| r["name"].is_string() && r["site"].is_string() && r["reason"].is_string()));
    let kernels = found["kernels"].as_array().expect("a list");
    assert!(kernels.iter().all(|k| k["name"].is_string() && k["flops"].is_number() && k["bytes"].is_number()));
    assert!(found["memory"].is_object());
    assert!(json(&["info", "specs/demo/fashion.fov:FashionNet", "--json"])["parameters"].is_number());
    assert!(json(&["devices", "--json"]).as_array().expect("a list").iter().any(|d| d["name"] == "cpu"));
}

#[test]
fn explanations_can_be_measured() {
    let item = ["explain", "specs/attention/full.fov", "--set", "C=8", "--set", "H=2", "--set", "N=7", "--measure"];
    let found = json(&[&item[..], &["--json"]].concat());
    let kernels = found["kernels"].as_array().expect("a list");
    assert!(kernels.iter().all(|k| k["measured_us"].as_f64().is_some_and(|us| us > 0.0)), "{kernels:?}");
    assert!(kernels.iter().all(|k| k["bound"] == "compute" || k["bound"] == "memory"));
    let err = fails(&[&item[..], &["--device", "interpreter"]].concat());
    assert!(err.contains("no kernels"), "{err}");
    let plain =
        json(&["explain", "specs/attention/full.fov", "--set", "C=8", "--set", "H=2", "--set", "N=7", "--json"]);
    assert!(plain["kernels"][0].get("measured_us").is_none());
    let fused = plain["rewrites"].as_array().expect("a list").iter().filter(|r| r["name"] == "fusion");
    assert!(fused.map(|r| r["reason"].to_string()).any(|r| r.contains("softmax over j fused")), "{plain}");
}

#[test]
fn a_closed_pipe_is_quiet() {
    let mut child =
        command(&["explain", "specs/attention/sp_sa.fov", "--set", "C=16", "--set", "H=2", "--set", "grid=5x3"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
    drop(child.stdout.take());
    let ran = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
}

#[test]
fn stages_are_written_to_a_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("a/b");
    let name = out.display().to_string();
    for (target, extension) in [("ir", "ir"), ("loops", "loops")] {
        let settings = ["--set", "C=8", "--set", "H=2", "--set", "grid=1x7"];
        let arguments =
            [&["emit", "specs/attention/mcsa.fov", "--target", target, "-o", &name], &settings[..]].concat();
        let told = succeeds(&arguments);
        assert!(told.lines().count() > 3);
        for line in told.lines() {
            assert!(line.ends_with(extension), "{line}");
            assert!(!fs::read_to_string(line).expect("the file it names").is_empty());
        }
    }
    let item = ["emit", "specs/attention/mcsa.fov", "--set", "C=8", "--set", "H=2", "--set", "grid=1x7", "-o", &name];
    let all = succeeds(&[&item[..], &["--target", "loops"]].concat()).lines().count();
    let some = succeeds(&[&item[..], &["--target", "loops", "--kernel", "weight"]].concat());
    assert!(some.lines().count() < all && some.lines().all(|line| line.contains("weight")), "{some}");
    let err = fails(&[&item[..], &["--target", "loops", "--kernel", "nothing"]].concat());
    assert!(err.contains("no kernel has `nothing`") && err.contains("d.proj.weight"), "{err}");
    fails(&[&item[..], &["--target", "ir", "--kernel", "weight"]].concat());
    let err = fails(&[&item[..], &["--target", "loops", "--device", "interpreter"]].concat());
    assert!(err.contains("no kernels to emit"), "{err}");
    fails(&[&item[..], &["--target", "ir", "--device", "interpreter"]].concat());
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let err = fails(&[
        "emit",
        "specs/attention/mcsa.fov",
        "--target",
        "ir",
        "-o",
        &file.display().to_string(),
        "--set",
        "C=8",
        "--set",
        "H=2",
        "--set",
        "grid=1x7",
    ]);
    assert!(err.contains("file"), "{err}");
}

#[test]
fn golden_tensors_verify_by_command() {
    let golden = "tests/golden/ops/central_5x7_k3.safetensors";
    let settings = ["--set", "H=2", "--set", "grid=5x7"];
    for device in ["interpreter", "cpu"] {
        let arguments = [
            &["verify", "specs/attention/mcsa.fov:CentralAttention", "--against", golden, "--device", device],
            &settings[..],
        ]
        .concat();
        let told = succeeds(&arguments);
        assert!(told.contains("output/y") && told.contains("grad/x") && !told.contains("MISSES"), "{told}");
    }
    let strict =
        [&["verify", "specs/attention/mcsa.fov", "--against", golden, "--rtol", "1e-30"], &settings[..]].concat();
    let ran = foveate(&strict);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("MISSES"), "{}", ran.out);

    let err = fails(&["verify", "specs/attention/full.fov", "--against", golden, "--set", "H=2"]);
    assert!(err.contains("missing `qkv.weight`") && err.contains("extra `q_proj.weight`"), "{err}");
    let cut = tempfile::NamedTempFile::new().expect("a file");
    let whole = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(golden)).expect("read");
    fs::write(cut.path(), &whole[..whole.len() / 2]).expect("written");
    let err = fails(&[
        "verify",
        "specs/attention/mcsa.fov",
        "--against",
        &cut.path().display().to_string(),
        "--set",
        "H=2",
        "--set",
        "grid=5x7",
    ]);
    assert!(err.contains("safetensors"), "{err}");
}
