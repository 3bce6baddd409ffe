//! Files as `torch.save` lays them out, made by hand.

use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The zip form with this pickle and this storage `0`.
pub fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in [("archive/data.pkl", pickle), ("archive/data/0", storage)] {
        zip.start_file(name, stored).expect("an entry");
        zip.write_all(content).expect("an entry");
    }
    zip.finish().expect("an archive").into_inner()
}

/// The older form with this pickle as its value, without storages.
pub fn old(pickle: &[u8]) -> Vec<u8> {
    let start = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    [start, pickle, b"\x80\x02]."].concat()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Operations that give a tensor in storage `0` of floats, with this offset, shape and strides.
pub fn tensor(place: &[u8]) -> Vec<u8> {
    let storage =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ";
    [storage, place, b"\x89}tR"].concat()
}

/// Operations that give a dictionary of what other operations give.
pub fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let each: Vec<u8> = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"}(", &each[..], b"u"].concat()
}

/// The pickle of a dictionary of tensors, by names with offset, shape and strides.
pub fn tensors(of: &[(String, &[u8])]) -> Vec<u8> {
    let entries: Vec<(&str, Vec<u8>)> = of.iter().map(|(name, place)| (name.as_str(), tensor(place))).collect();
    [b"\x80\x02", &dictionary(&entries)[..], b"."].concat()
}
