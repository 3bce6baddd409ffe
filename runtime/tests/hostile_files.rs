//! Tensor files that would run code, exhaust memory or point anywhere: refused, each with a message that says what it is.

use foveate_runtime::checkpoint::Tensors;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A directory for one test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a temporary directory"))
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// What is said of a file of this content.
    fn refused(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("writable");
        let message = Tensors::read(&path).err().unwrap_or_else(|| panic!("{name} was read")).to_string();
        assert!(message.starts_with(&path.display().to_string()), "{message}");
        message
    }
}

/// A file as `torch.save` lays it out, with this pickle and this storage `0`.
fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in [("archive/data.pkl", pickle), ("archive/data/0", storage)] {
        zip.start_file(name, stored).expect("an entry");
        zip.write_all(content).expect("an entry");
    }
    zip.finish().expect("an archive").into_inner()
}

/// The older form with this pickle as its value.
fn old(pickle: &[u8]) -> Vec<u8> {
    let start = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    [start, pickle, b"\x80\x02]."].concat()
}

/// The pickle of a dictionary of tensors: names with offset, shape and strides, all in storage `0` of floats.
fn tensors(of: &[(String, &[u8])]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (name, place) in of {
        out.push(b'X');
        out.extend((name.len() as u32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ");
        out.extend(*place);
        out.extend(b"\x89}tR");
    }
    out.extend(b"u.");
    out
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
            std::fs::write(&path, content).expect("writable");
            let _ = Tensors::read(&path);
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
    assert!(message.contains("claims") || message.contains("damaged"), "{message}");
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
