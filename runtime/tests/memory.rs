//! Files that would exhaust memory: how much is really allocated while they are read, counted by the allocator.

mod common;

use common::torch::{archive, dictionary, tensors};
use foveate_runtime::checkpoint::Tensors;
use foveate_runtime::picture;
use image::{Rgb, RgbImage};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, which counts.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn grows(by: usize) {
    MOST.fetch_max(NOW.fetch_add(by, Relaxed) + by, Relaxed);
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grows(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there at once.
        grows(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` has allocated at most at a time, beside what was there before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let out = work();
    (out, MOST.load(Relaxed) - before)
}

const MB: usize = 1 << 20;

/// What is said of a tensor file, or the tensors in it; and the most memory that it took.
fn load(path: &Path, content: &[u8]) -> (Result<Tensors, String>, usize) {
    std::fs::write(path, content).expect("writable");
    peak(|| Tensors::read(path).map_err(|e| e.to_string()))
}

/// A zip archive of one big storage, which further entries claim too.
fn overlapping(storage: usize, entries: usize) -> Vec<u8> {
    let names: Vec<String> = (0..entries).map(|n| n.to_string()).collect();
    let one = |key: &str| {
        let mut value = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n".to_vec();
        value.extend([b"X", &(key.len() as u32).to_le_bytes()[..], key.as_bytes()].concat());
        value.extend(b"X\x03\0\0\0cpuK\x04tQK\x00(K\x01t(K\x01t\x89}tR");
        value
    };
    let tensors: Vec<(&str, Vec<u8>)> = names.iter().map(|n| (n.as_str(), one(n))).collect();
    let pickle = [b"\x80\x02", &dictionary(&tensors)[..], b"."].concat();
    let sound = archive(&pickle, &vec![0; storage]);
    // The last entry of the central directory, again under other names.
    let end = sound.windows(4).rposition(|w| w == b"PK\x05\x06").expect("the end");
    let entry = sound[..end].windows(4).rposition(|w| w == b"PK\x01\x02").expect("an entry");
    let length = |n: usize| u16::try_from(n).expect("short").to_le_bytes();
    let mut out = sound[..end].to_vec();
    for key in &names[1..] {
        let name = format!("archive/data/{key}");
        let mut header = sound[entry..entry + 46].to_vec();
        header[28..30].copy_from_slice(&length(name.len()));
        header[30..32].copy_from_slice(&[0; 2]);
        out.extend(header);
        out.extend(name.as_bytes());
    }
    let start = u32::from_le_bytes(sound[end + 16..end + 20].try_into().expect("four bytes")) as usize;
    let mut last = sound[end..].to_vec();
    for at in [8, 10] {
        last[at..at + 2].copy_from_slice(&length(entries + 1));
    }
    last[12..16].copy_from_slice(&u32::try_from(out.len() - start).expect("short").to_le_bytes());
    out.extend(last);
    out
}

/// One test, since what is counted is the whole process's.
#[test]
fn memory_is_bounded_by_the_file() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("w.pth");

    // A sound file takes itself and its tensors.
    let floats = |n: usize| [&b"K\x00(J"[..], &(n as u32).to_le_bytes(), b"t(K\x01t"].concat();
    let (found, most) = load(&path, &archive(&tensors(&[("w".to_owned(), &floats(MB))]), &vec![0; 4 * MB]));
    assert_eq!(found.expect("sound").len(), 1);
    assert!(most < 9 * MB, "{most}");

    // Entries that lie on each other are refused, without a copy of any.
    let (found, most) = load(&path, &overlapping(2 * MB, 100));
    let message = found.expect_err("refused");
    assert!(message.contains("entries of its zip archive overlap"), "{message}");
    assert!(most < 4 * MB, "{most}");

    // Views of one storage count as often as they occur, and with the bytes that they take when widened.
    let pickle = |count: usize, of: &str| {
        let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let place = floats(2 * MB);
        let all: Vec<(String, &[u8])> = names.into_iter().map(|name| (name, &place[..])).collect();
        let mut pickle = tensors(&all);
        while let Some(at) = pickle.windows(12).position(|w| w == b"FloatStorage") {
            pickle.splice(at..at + 12, of.bytes());
        }
        pickle
    };
    let (found, most) = load(&path, &archive(&pickle(1, "CharStorage"), &vec![0; 2 * MB]));
    assert_eq!(found.expect("sound").len(), 1);
    assert!(most < 9 * 2 * MB + 2 * MB, "{most}");
    let (found, most) = load(&path, &archive(&pickle(4, "CharStorage"), &vec![0; 2 * MB]));
    let message = found.expect_err("refused");
    assert!(message.contains("needs far more than the file holds"), "{message}");
    assert!(most < 9 * 2 * MB + 2 * MB, "{most}");

    // Pickles that put together more and more of nothing.
    for (what, pickle) in [
        ("tuples", [vec![b')'], b"\x85\x94".repeat(2 * MB), b"}.".to_vec()].concat()),
        ("lists", [b"]Na".repeat(MB), b"}.".to_vec()].concat()),
        ("values", [b"(".to_vec(), b"N".repeat(3 * MB), b"t}.".to_vec()].concat()),
        ("names", [b"ctorch\nFloatStorage\n0".repeat(150_000), b"}.".to_vec()].concat()),
        (
            "copies",
            [
                &b"ccollections\nOrderedDict\nq\x00]("[..],
                &b"NN\x86".repeat(100_000),
                b"eq\x01",
                &b"h\x00h\x01\x85R".repeat(100_000),
                b".",
            ]
            .concat(),
        ),
        ("marked", [b"N".repeat(MB - 1), b"0".repeat(MB - 1), b"(t".repeat(300_000), b"}.".to_vec()].concat()),
        ("dimensions", tensors(&[("w".to_owned(), &[&b"K\x00("[..], &b"K\x01".repeat(MB), b"t(K\x01t"].concat())])),
    ] {
        let (found, most) = load(&path, &archive(&pickle, &[0; 16]));
        assert!(found.is_err(), "{what}");
        assert!(most < 200 * MB, "{what}: {most}");
    }

    // A picture of extreme proportions is not blown up to be cut.
    for (width, height) in [(1, 20_000), (20_000, 1)] {
        let path = place.path().join("thin.png");
        picture::write(&path, &RgbImage::from_pixel(width, height, Rgb([9; 3]))).expect("writable");
        let (cut, most) = peak(|| picture::middle(&picture::read(&path).expect("sound"), 224, 224, 0.875));
        assert_eq!(cut.dimensions(), (224, 224));
        assert!(most < 2 * MB, "{most}");
    }
}
