//! What training is refused for ends with a message and exit code 1, every time: nothing is still compiling when the process ends.

mod common;

use common::fails;
use std::fs;
use std::path::Path;

const RECIPE: &str = "specs/demo/fashion.fov";
/// How often each is tried: what goes wrong at exit goes wrong only sometimes.
const TIMES: usize = 4;

#[test]
fn bad_input_ends_training_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).display().to_string();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/fashion-mnist");
    let data = place("data");
    fs::create_dir(&data).expect("a folder");
    for entry in fs::read_dir(&bundled).expect("the bundled data") {
        let path = entry.expect("an entry").path();
        let content = fs::read(&path).expect("read");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let kept = if name.starts_with("train-images") { content.len() / 2 } else { content.len() };
        fs::write(Path::new(&data).join(name), &content[..kept]).expect("written");
    }
    let out = place("out");
    // Tensors of another item: they can be held against the model only after its kernels are on their way.
    let foreign = "tests/golden/ops/central_5x7_k3.safetensors";
    for (given, said) in [
        (["--data", data.as_str()], "train-images-idx3-ubyte.gz"),
        (["--init", "/no/such/weights"], "/no/such/weights"),
        (["--init", foreign], "missing `"),
    ] {
        for _ in 0..TIMES {
            let err = fails(&[&["train", RECIPE, "--out", &out], &given[..]].concat());
            assert!(err.contains(said), "{err}");
        }
    }
    assert!(fs::read_dir(&out).expect("a folder").next().is_none(), "nothing is written");
}
