//! The IDX format of MNIST and its relatives, plain or compressed with gzip.
//!
//! A header of four bytes (two zeros, an element type, the number of dimensions), then the dimensions as big-endian u32, then the elements.
//! Only unsigned bytes (type 8) are read: images and labels have no others. Format: Y. LeCun, "The MNIST database of handwritten digits".

use crate::error::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// An array of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its elements, row-major.
    pub bytes: Vec<u8>,
}

/// Reads a file of `rank` dimensions and at most `limit` elements.
///
/// Memory grows with what the file holds, not with what its header claims. Offsets in errors are those of the decompressed content.
pub fn read(path: &Path, rank: usize, limit: usize) -> Result<Array> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut reader: Box<dyn Read> = match path.extension() {
        Some(e) if e == "gz" => Box::new(MultiGzDecoder::new(BufReader::new(file))),
        _ => Box::new(BufReader::new(file)),
    };
    let bad = |message: String| Error::file(path, message);

    let mut header = Vec::new();
    let length = 4 + 4 * rank;
    take(&mut reader, length, &mut header, path)?;
    if header.len() < length {
        return Err(bad(format!(
            "the file ends at offset {} inside the IDX header of {length} bytes: it is truncated",
            header.len()
        )));
    }
    if header[..2] != [0, 0] {
        return Err(bad(format!(
            "not an IDX file: expected two zero bytes at offset 0, found {:02x} {:02x}",
            header[0], header[1]
        )));
    }
    if header[2] != 0x08 {
        return Err(bad(format!(
            "expected elements of type 0x08 (unsigned bytes) at offset 2, found type {:#04x}",
            header[2]
        )));
    }
    if usize::from(header[3]) != rank {
        return Err(bad(format!("expected {rank} dimensions at offset 3, found {}", header[3])));
    }
    let dims: Vec<usize> =
        header[4..].chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]) as usize).collect();
    let elements = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= limit).ok_or_else(|| {
        bad(format!("the dimensions {dims:?} at offset 4 ask for more than the {limit} elements that are read"))
    })?;
    if elements == 0 {
        return Err(bad(format!("the dimensions {dims:?} at offset 4 hold no element")));
    }

    let mut bytes = Vec::new();
    take(&mut reader, elements, &mut bytes, path)?;
    if bytes.len() < elements {
        return Err(bad(format!(
            "the file ends at offset {}: expected {elements} elements for dimensions {dims:?}, found {}: it is truncated",
            length + bytes.len(),
            bytes.len()
        )));
    }
    let mut excess = Vec::new();
    take(&mut reader, 1, &mut excess, path)?;
    if !excess.is_empty() {
        return Err(bad(format!(
            "the file goes on at offset {}: expected its end after {elements} elements for dimensions {dims:?}",
            length + elements
        )));
    }
    Ok(Array { dims, bytes })
}

/// Appends up to `n` bytes; fewer only at the end of the content.
fn take(reader: &mut dyn Read, n: usize, into: &mut Vec<u8>, path: &Path) -> Result<()> {
    let before = into.len();
    match reader.take(n as u64).read_to_end(into) {
        Ok(_) => Ok(()),
        // A gzip stream that stops early is a truncated file: the caller sees how much there was.
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData) => {
            Err(Error::file(path, format!("damaged gzip data after offset {}: {e}", into.len() - before)))
        }
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn idx(rank: u8, dims: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, rank];
        dims.iter().for_each(|d| out.extend(d.to_be_bytes()));
        out.extend(bytes);
        out
    }
    fn attempt(name: &str, content: &[u8], rank: usize) -> std::result::Result<Array, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("a writable file");
        read(&path, rank, 1000).map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
    }
    fn gz(content: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        e.write_all(content).expect("memory takes everything");
        e.finish().expect("memory takes everything")
    }

    #[test]
    fn reads_plain_and_compressed() {
        let content = idx(3, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let expected = Array { dims: vec![2, 1, 3], bytes: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(attempt("a", &content, 3), Ok(expected.clone()));
        assert_eq!(attempt("a.gz", &gz(&content), 3), Ok(expected));
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("a", vec![0, 0, 8], "a: the file ends at offset 3 inside the IDX header of 8 bytes: it is truncated"),
            (
                "a",
                idx(1, &[5], &[1, 2]),
                "a: the file ends at offset 10: expected 5 elements for dimensions [5], found 2: it is truncated",
            ),
            (
                "a",
                idx(1, &[1], &[1, 2]),
                "a: the file goes on at offset 9: expected its end after 1 elements for dimensions [1]",
            ),
            ("a", idx(3, &[1], &[1]), "a: expected 1 dimensions at offset 3, found 3"),
            (
                "a",
                idx(1, &[u32::MAX], &[1]),
                "a: the dimensions [4294967295] at offset 4 ask for more than the 1000 elements that are read",
            ),
            ("a", idx(1, &[0], &[]), "a: the dimensions [0] at offset 4 hold no element"),
            ("a", b"PNG.....".to_vec(), "a: not an IDX file: expected two zero bytes at offset 0, found 50 4e"),
            (
                "a",
                vec![0, 0, 13, 1, 0, 0, 0, 1],
                "a: expected elements of type 0x08 (unsigned bytes) at offset 2, found type 0x0d",
            ),
        ];
        for (name, content, message) in cases {
            assert_eq!(attempt(name, &content, 1), Err(message.to_owned()));
        }
    }

    #[test]
    fn truncated_and_damaged_gzip() {
        let whole = gz(&idx(1, &[500], &(0..500).map(|i| (i * i % 251) as u8).collect::<Vec<_>>()));
        let message = attempt("a.gz", &whole[..whole.len() / 2], 1).unwrap_err();
        assert!(message.contains("truncated"), "{message}");
        let message = attempt("a.gz", b"not gzip at all", 1).unwrap_err();
        assert!(message.contains("damaged gzip data"), "{message}");
    }

    proptest::proptest! {
        #[test]
        fn no_content_panics(content in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = attempt("a", &content, 1);
            let _ = attempt("a.gz", &content, 3);
        }
    }
}
