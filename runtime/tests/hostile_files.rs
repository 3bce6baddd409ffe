//! Tensor files that would run code, exhaust memory or point anywhere: refused, each with a message that says what it is.

mod common;

use common::torch::{archive, dictionary, old, tensor, tensors};
use foveate_runtime::checkpoint::Tensors;
use std::path::{Path, PathBuf};

/// A directory for one test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a temporary directory"))
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// The tensors of a file of this content: their names and elements.
    fn read(&self, content: &[u8]) -> Vec<(String, Vec<f64>)> {
        let found = Tensors::of_bytes(Path::new("w.pth"), content).unwrap_or_else(|e| panic!("{e}"));
        found.iter().map(|(name, t)| (name.clone(), t.data.to_f64())).collect()
    }
    /// What is said of a file of this content.
    fn refused(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        let message = Tensors::of_bytes(&path, content).err().unwrap_or_else(|| panic!("{name} was read")).to_string();
        assert!(message.starts_with(&path.display().to_string()), "{message}");
        message
    }
}

#[test]
fn what_would_run_code_is_refused_and_not_run() {
    let place = Place::new();
    let mark = place.path("pwned");
    let call = format!("cposix\nsystem\n(S'touch {}'\ntR.", mark.display());
    for content in [archive(call.as_bytes(), b""), old(call.as_bytes()), call.clone().into_bytes()] {
        for name in ["evil.pth", "evil.pt", "evil.bin", "evil.safetensors"] {
            let message = place.refused(name, &content);
            assert!(!mark.exists());
            if !name.ends_with("safetensors") && content.len() > call.len() {
                assert!(
                    message.contains("a call of `posix.system`") && message.contains("nothing was run"),
                    "{message}"
                );
            }
        }
    }
    // A class that would be made and filled.
    let made = archive(b"\x80\x02csubprocess\nPopen\n)\x81}b.", b"");
    assert!(place.refused("evil.pth", &made).contains("`subprocess.Popen`"));
}

#[test]
fn sound_files_are_read() {
    let place = Place::new();
    let floats: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let path = place.path("w.pt");
    let pickle = tensors(&[("w".to_owned(), b"K\x00(K\x02K\x02t(K\x01K\x02t")]);
    std::fs::write(&path, archive(&pickle, &floats)).expect("writable");
    let read = Tensors::read(&path).expect("a sound file");
    let w = read.get("w").expect("its tensor");
    assert_eq!((&w.shape[..], w.data.to_f64()), (&[2, 2][..], vec![1.0, 3.0, 2.0, 4.0]));
}

#[test]
fn the_state_dict_is_found_in_its_wrapper() {
    let place = Place::new();
    let floats: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    // The names of the tensors are those of the places they stand at.
    let one = |name: &str, at: u8| dictionary(&[(name, tensor(&[&[b'K', at], &b"(K\x01t(K\x01t"[..]].concat()))]);
    let names = |value: &[u8]| -> Vec<String> {
        let content = archive(&[b"\x80\x02", value, b"."].concat(), &floats);
        place.read(&content).into_iter().map(|(name, _)| name).collect()
    };
    let top = ("best_acc1", tensor(b"K\x00))"));
    for (value, expected) in [
        // As PyTorch's example for ImageNet: a tensor stands beside the state dict.
        (dictionary(&[top.clone(), ("state_dict", one("w", 0)), ("epoch", b"K\x03".to_vec())]), "w"),
        (dictionary(&[("model_ema", one("ema", 1)), ("model", one("w", 0)), top.clone()]), "w"),
        (dictionary(&[("state_dict_ema", one("ema", 1)), ("state_dict", one("w", 0))]), "w"),
        (dictionary(&[("model_ema", one("ema", 1)), top.clone()]), "ema"),
        (dictionary(&[("state_dict_ema", one("ema", 1))]), "ema"),
        (dictionary(&[("module", one("w", 0))]), "w"),
        (dictionary(&[("checkpoint", dictionary(&[("model", one("w", 0)), top.clone()]))]), "w"),
        (dictionary(&[("model", dictionary(&[("state_dict", one("module.w", 0))]))]), "w"),
        // A wrapper without tensors is none.
        (
            dictionary(&[
                ("model", dictionary(&[("depth", b"K\x03".to_vec())])),
                ("w", tensor(b"K\x00(K\x01t(K\x01t")),
            ]),
            "w",
        ),
        (one("w", 0), "w"),
    ] {
        assert_eq!(names(&value), [expected], "{}", String::from_utf8_lossy(&value));
    }
    for (value, expected) in [
        (b"}".to_vec(), "found an empty dictionary"),
        (b"}K\x01K\x02s".to_vec(), "found entries whose names are no texts"),
        (dictionary(&[("epoch", b"K\x03".to_vec())]), "under `state_dict`, `model`"),
        (dictionary(&[("epoch", b"K\x03".to_vec())]), "found entries `epoch`"),
        (b"]".to_vec(), "expected a dictionary of tensors, found something else"),
        (
            dictionary(&[("w", tensor(b"K\x00(K\x01t(K\x01t")), ("w", tensor(b"K\x01(K\x01t(K\x01t"))]),
            "two tensors `w`",
        ),
        (dictionary(&[("model", b"}q\x00(X\x05\0\0\0modelh\x00u".to_vec())]), "found entries `model`"),
    ] {
        let message = place.refused("w.pth", &archive(&[b"\x80\x02", &value[..], b"."].concat(), &floats));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn parts_of_storages_are_honoured() {
    let place = Place::new();
    let floats: Vec<u8> = (0..8).flat_map(|x| (x as f32).to_le_bytes()).collect();
    let storage = [&8u64.to_le_bytes()[..], &floats].concat();
    let file = |part: &[u8]| {
        let mut value =
            b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
                .to_vec();
        value.extend(b"X\x01\0\0\x000X\x03\0\0\0cpuK\x08");
        value.extend(part);
        value.extend(b"tQK\x01(K\x02t(K\x01t\x89}tRs.");
        [&old(&value)[..old(&value).len() - 4], b"\x80\x02]X\x01\0\0\x000a.", &storage].concat()
    };
    assert_eq!(place.read(&file(b"N")), [("w".to_owned(), vec![1.0, 2.0])]);
    assert_eq!(place.read(&file(b"(X\x01\0\0\0vK\x04K\x04t")), [("w".to_owned(), vec![5.0, 6.0])]);
    for (part, expected) in [
        (&b"(X\x01\0\0\0vK\x04K\x02t"[..], "reaches beyond its storage of 2 elements"),
        (b"(X\x01\0\0\0vK\x04K\x05t", "its part of storage `0` reaches beyond it"),
        (b"(X\x01\0\0\0vJ\xff\xff\xff\xffK\x05t", "not described as PyTorch does"),
    ] {
        let message = place.refused("part.pth", &file(part));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn unread_elements_are_named() {
    let place = Place::new();
    let pickle = tensors(&[("w".to_owned(), b"K\x00(K\x02t(K\x01t")]);
    let as_type = |class: &str| {
        let text = String::from_utf8_lossy(&pickle).replace("FloatStorage", class);
        // The pickle has bytes beyond ASCII only in its first operation and its last ones.
        let mut bytes = b"\x80".to_vec();
        bytes.extend(text.chars().skip(1).map(|c| if c == '\u{fffd}' { 0x89 } else { c as u8 }));
        archive(&bytes, &[0; 16])
    };
    for class in ["ComplexFloatStorage", "QInt8Storage"] {
        let message = place.refused("w.pth", &as_type(class));
        assert!(message.contains(&format!("tensor `w`: elements of type `{class}`, which are not read")), "{message}");
    }
    let message = place.refused("w.pth", &as_type("LoudStorage"));
    assert!(message.contains("a call of `torch.LoudStorage`"), "{message}");
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let place = Place::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch");
    for name in ["small.pth", "small_old.pth", "kinds.safetensors"] {
        let whole = std::fs::read(fixtures.join(name)).expect("the fixture");
        for end in (0..whole.len()).step_by(37).chain([whole.len() - 1]) {
            place.refused(name, &whole[..end]);
        }
    }
    let whole = std::fs::read(fixtures.join("small_old.pth")).expect("the fixture");
    assert!(place.refused("cut.pth", &whole[..whole.len() - 3]).contains("it is truncated: storage `"));
    assert!(place.refused("cut.pth", &whole[..900]).contains("it is truncated: its pickle ends"));
}

#[test]
fn damaged_files_never_crash() {
    let place = Place::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch");
    for name in ["kinds.pt", "small_old.pth", "kinds.safetensors"] {
        let whole = std::fs::read(fixtures.join(name)).expect("the fixture");
        let path = place.path(name);
        for at in 0..whole.len() {
            let mut content = whole.clone();
            content[at] ^= 0xFF;
            let _ = Tensors::of_bytes(&path, &content);
        }
    }
}

#[test]
fn archives_that_would_grow_are_refused() {
    let place = Place::new();
    let pickle = tensors(&[("w".to_owned(), b"K\x00(K\x04t(K\x01t")]);
    let sound = archive(&pickle, &[0; 16]);
    let central = |content: &[u8]| content.windows(4).rposition(|w| w == b"PK\x01\x02").expect("a central directory");

    // Deflated, or so it says.
    let mut bomb = sound.clone();
    let at = central(&bomb);
    bomb[at + 10] = 8;
    bomb[at + 24..at + 28].copy_from_slice(&u32::MAX.to_le_bytes()[..]);
    bomb[at + 27] = 0x7F;
    let message = place.refused("bomb.pth", &bomb);
    assert!(message.contains("entry `archive/data/0` of its zip archive is compressed"), "{message}");

    // Stored, but of a size that is not there.
    let mut liar = sound;
    for field in [20, 24] {
        liar[at + field + 3] = 0x7F;
    }
    let message = place.refused("liar.pth", &liar);
    assert!(message.contains("overlap or reach beyond it") || message.contains("damaged"), "{message}");
}

#[test]
fn tensors_that_would_grow_are_refused() {
    let place = Place::new();
    // 2^30 x 2^30 elements, all of them the first one.
    let huge = tensors(&[("w".to_owned(), b"K\x00(J\x00\x00\x00\x40J\x00\x00\x00\x40t(K\x00K\x00t")]);
    let message = place.refused("huge.pth", &archive(&huge, &[0; 16]));
    assert!(
        message.contains("tensor `w`: shape [1073741824, 1073741824] needs far more than the file holds"),
        "{message}"
    );
    // Many tensors that share one storage.
    let many: Vec<(String, &[u8])> = (0..2000).map(|n| (n.to_string(), &b"K\x00(M\x00\x80t(K\x01t"[..])).collect();
    let message = place.refused("many.pth", &archive(&tensors(&many), &[0; 4 * 0x8000]));
    assert!(message.contains("needs far more than the file holds"), "{message}");
    // Beyond the end, and before the start.
    let beyond = tensors(&[("w".to_owned(), b"K\x02(K\x03t(K\x01t")]);
    let message = place.refused("beyond.pth", &archive(&beyond, &[0; 16]));
    assert!(message.contains("shape [3] reaches beyond its storage of 4 elements"), "{message}");
    let before = tensors(&[("w".to_owned(), b"J\xff\xff\xff\xff(K\x03t(K\x01t")]);
    assert!(place.refused("before.pth", &archive(&before, &[0; 16])).contains("no whole number"));
}

#[test]
fn tensors_of_absurd_rank_are_refused() {
    let place = Place::new();
    let list = |n: usize| [&b"("[..], &b"K\x01".repeat(n), b"t"].concat();
    for (rank, fine) in [(64, true), (65, false), (100_000, false)] {
        let at = [&b"K\x00"[..], &list(rank), &list(rank)].concat();
        let content = archive(&tensors(&[("w".to_owned(), &at)]), &[0; 16]);
        if fine {
            assert_eq!(place.read(&content), [("w".to_owned(), vec![0.0])]);
        } else {
            let message = place.refused("w.pth", &content);
            assert!(message.contains(&format!("it has {rank} dimensions; at most 64 are read")), "{message}");
        }
    }
    // No elements, and a product of sides that no number holds.
    let empty = tensors(&[("w".to_owned(), b"K\x00(K\x00J\0\0\0\x40J\0\0\0\x40J\0\0\0\x40t(K\x01K\x01K\x01K\x01t")]);
    assert_eq!(place.read(&archive(&empty, &[0; 16])), [("w".to_owned(), vec![])]);
}

#[test]
fn safetensors_that_point_anywhere_are_refused() {
    let place = Place::new();
    let file = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let entry = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let two = |a: String, b: String| format!("{{{a},{b}}}");
    for (what, content) in [
        ("overlap", file(&two(entry("a", "[4]", 0, 16), entry("b", "[4]", 8, 24)), 24)),
        ("beyond", file(&two(entry("a", "[4]", 0, 16), entry("b", "[4]", 16, 32)), 20)),
        ("backwards", file(&format!("{{{}}}", entry("a", "[4]", 16, 0)), 16)),
        ("wrong size", file(&format!("{{{}}}", entry("a", "[5]", 0, 16)), 16)),
        ("overflow", file(&format!("{{{}}}", entry("a", "[4294967296,4294967296,4]", 0, 16)), 16)),
        ("long header", [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
        ("hole", file(&format!("{{{}}}", entry("a", "[4]", 8, 24)), 24)),
    ] {
        let message = place.refused("w.safetensors", &content);
        assert!(message.contains("not a valid safetensors file"), "{what}: {message}");
    }
}
