//! Small grey or colour pictures as PNG, and as data inside a page.

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use std::io::Write;

/// A PNG of 8-bit pixels: `channels` planes (1: grey, 3: red, green, blue) of `rows x cols`, one after the other.
pub fn encode(planes: &[u8], channels: usize, rows: usize, cols: usize) -> Vec<u8> {
    let mut raw = Vec::with_capacity(rows * (cols * channels + 1));
    for y in 0..rows {
        raw.push(0); // no filter
        for x in 0..cols {
            raw.extend((0..channels).map(|c| planes[(c * rows + y) * cols + x]));
        }
    }
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&raw).expect("memory takes everything");
    let packed = zlib.finish().expect("memory takes everything");
    let mut header = Vec::new();
    header.extend((cols as u32).to_be_bytes());
    header.extend((rows as u32).to_be_bytes());
    header.extend([8, if channels == 3 { 2 } else { 0 }, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header), (b"IDAT", &packed), (b"IEND", &Vec::new())] {
        out.extend((data.len() as u32).to_be_bytes());
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(data);
        out.extend(kind);
        out.extend(data);
        out.extend(crc.sum().to_be_bytes());
    }
    out
}

/// A `data:` address of a PNG.
pub fn data_uri(png: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("data:image/png;base64,");
    for chunk in png.chunks(3) {
        let bits = chunk.iter().fold(0u32, |b, &x| b << 8 | u32::from(x)) << (8 * (3 - chunk.len()));
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            out.push(if n > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        assert_eq!(data_uri(b"Man"), "data:image/png;base64,TWFu");
        assert_eq!(data_uri(b"Ma"), "data:image/png;base64,TWE=");
        assert_eq!(data_uri(b"M"), "data:image/png;base64,TQ==");
    }

    #[test]
    fn the_chunks_are_whole() {
        let png = encode(&[0, 128, 255, 1, 2, 3], 1, 2, 3);
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!(&png[12..16], b"IHDR");
        assert_eq!(&png[png.len() - 12..], [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xAE, 0x42, 0x60, 0x82]);
    }
}
