//! Pictures: photographs read and cut to a model's size, and pixels written as PNG.

mod resize;
pub mod text;

use crate::checkpoint::atomic;
use crate::error::{Error, Result};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
pub use resize::{Part, resize};
use std::io::Cursor;
use std::path::Path;

/// Longest side of a photograph that is read.
const LONGEST: u32 = 20_000;
/// Most bytes of its pixels as they come out of the file: 178 million pixels of three bytes.
const DECODED: u64 = 512 << 20;

/// Reads a JPEG or PNG, upright as its metadata says. Its size is checked before anything is decoded.
pub fn read(path: &Path) -> Result<RgbImage> {
    decode(path, &std::fs::read(path).map_err(Error::io("read", path))?)
}

/// The image in a file's content; `path` is only for errors.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<RgbImage> {
    let bad = |e: image::ImageError| Error::file(path, format!("expected a JPEG or PNG image: {e}"));
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(Error::io("read", path))?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) = (Some(LONGEST), Some(LONGEST), Some(DECODED));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(bad)?;
    let ((width, height), needed) = (decoder.dimensions(), decoder.total_bytes());
    if needed > DECODED {
        return Err(Error::file(
            path,
            format!("an image of {width} x {height} pixels takes {needed} bytes; at most {DECODED} are read"),
        ));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(bad)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// The middle of a picture as models are evaluated: the shorter side resized to `1 / crop` of the wanted one by cubic convolution, then the
/// middle `rows x cols` cut out, rounded as torchvision's `Resize` and `CenterCrop` do. `crop` lies in (0, 1].
///
/// Only what is cut out is computed, so that a picture of extreme proportions takes no more memory than another.
pub fn middle(image: &RgbImage, rows: u32, cols: u32, crop: f64) -> RgbImage {
    let (width, height) = image.dimensions();
    let scaled = |side: u32| (f64::from(side) / crop) as u64; // rounded down
    let other = |side: u64, long: u32, short: u32| side * u64::from(long) / u64::from(short);
    // Which side is the shorter one, compared with what is wanted of it.
    let (w, h) = if u64::from(width) * u64::from(rows) <= u64::from(height) * u64::from(cols) {
        (scaled(cols), other(scaled(cols), height, width))
    } else {
        (other(scaled(rows), width, height), scaled(rows))
    };
    let fit = |side: u64, least: u32| u32::try_from(side).unwrap_or(u32::MAX).max(least);
    let (w, h) = (fit(w, cols), fit(h, rows));
    let start = |side: u32, part: u32| (f64::from(side - part) / 2.0).round_ties_even() as u32;
    let cut = Part { x: start(w, cols), y: start(h, rows), width: cols, height: rows };
    resize(image, Part::whole(width, height), (w, h), cut)
}

/// Pixels as a model takes them: `channels` planes (1: luminance, 3: red, green, blue) of values in 0 to 1, less the mean, over the deviation.
pub fn planes(image: &RgbImage, channels: usize, mean: &[f64], std: &[f64]) -> Vec<f32> {
    let value = |pixel: &Rgb<u8>, c: usize| {
        let [r, g, b] = pixel.0.map(f64::from);
        // The weights of ITU-R BT.601, as in JPEG.
        let v = if channels == 1 { 0.299 * r + 0.587 * g + 0.114 * b } else { [r, g, b][c] };
        ((v / 255.0 - mean[c % mean.len()]) / std[c % std.len()]) as f32
    };
    (0..channels).flat_map(|c| image.pixels().map(move |p| value(p, c))).collect()
}

/// A PNG.
pub fn png(image: &RgbImage) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, ImageFormat::Png).expect("memory takes every picture");
    out.into_inner()
}

/// Writes a PNG, whole or not at all.
pub fn write(path: &Path, image: &RgbImage) -> Result<()> {
    atomic::write_file(path, &png(image))
}

/// A PNG of 8-bit pixels: `channels` planes (1: grey, 3: red, green, blue) of `rows x cols`, one after the other.
pub fn of_planes(planes: &[u8], channels: usize, rows: usize, cols: usize) -> Vec<u8> {
    let image = RgbImage::from_fn(cols as u32, rows as u32, |x, y| {
        let at = |c: usize| planes[((c % channels) * rows + y as usize) * cols + x as usize];
        Rgb([at(0), at(1), at(2)])
    });
    png(&image)
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
    fn the_middle_is_cut_out() {
        // Left half black, right half white, with a red frame that the cut leaves out.
        let image = RgbImage::from_fn(80, 40, |x, y| match (x, y) {
            (0..=20 | 60.., _) => Rgb([255, 0, 0]),
            (21..=39, _) => Rgb([0, 0, 0]),
            _ => Rgb([255, 255, 255]),
        });
        let cut = middle(&image, 16, 16, 0.5);
        assert_eq!((cut.width(), cut.height()), (16, 16));
        assert_eq!((cut.get_pixel(2, 8), cut.get_pixel(13, 8)), (&Rgb([0, 0, 0]), &Rgb([255, 255, 255])));
        let values = planes(&cut, 3, &[0.5], &[0.25]);
        assert_eq!((values.len(), values[2], values[13]), (3 * 256, -2.0, 2.0));
        assert!((planes(&cut, 1, &[0.0], &[1.0])[13] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn sides_are_rounded_as_torchvision_does() {
        // The left and upper ends of what is cut out, by a ramp over columns and rows; torchvision: Resize(256), CenterCrop(224).
        for ((width, height), (w, h), (left, top)) in [
            ((500, 375), (341, 256), (58, 16)), // 341.33; 58.5 to the even number
            ((375, 500), (256, 341), (16, 58)),
            ((333, 499), (256, 383), (16, 80)), // 383.6; 79.5 to the even number
            ((224, 224), (256, 256), (16, 16)),
        ] {
            let image =
                RgbImage::from_fn(width, height, |x, y| Rgb([(x % 256) as u8, (y % 256) as u8, (x / 2 + y / 2) as u8]));
            let whole = resize(&image, Part::whole(width, height), (w, h), Part::whole(w, h));
            let expected = image::imageops::crop_imm(&whole, left, top, 224, 224).to_image();
            assert!(middle(&image, 224, 224, 0.875) == expected, "{width} x {height}");
        }
        // No crop, and sides that are not alike.
        let image = RgbImage::from_pixel(30, 20, Rgb([7, 8, 9]));
        assert_eq!(middle(&image, 20, 30, 1.0), image);
        assert_eq!(middle(&image, 9, 40, 0.7).dimensions(), (40, 9));
        assert_eq!(middle(&image, 1, 1, 1e-9).dimensions(), (1, 1));
    }

    #[test]
    fn extreme_proportions_are_fine() {
        for (width, height) in [(1, 20_000), (20_000, 1), (1, 1)] {
            let cut = middle(&RgbImage::from_pixel(width, height, Rgb([9; 3])), 224, 224, 0.875);
            assert!(cut.dimensions() == (224, 224) && cut.pixels().all(|p| *p == Rgb([9; 3])));
        }
    }

    #[test]
    fn pictures_come_back_and_other_files_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("p.png");
        let image = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 7]));
        write(&path, &image).expect("writable");
        assert_eq!(read(&path).expect("readable"), image);
        let whole = std::fs::read(&path).expect("readable");
        for content in [&whole[..whole.len() / 2], b"GIF89a", b""] {
            std::fs::write(&path, content).expect("writable");
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains("p.png: expected a JPEG or PNG image"), "{message}");
        }
    }

    #[test]
    fn pictures_larger_than_memory_are_refused() {
        let png = png(&RgbImage::new(1, 1));
        let said = |width: u32, height: u32, depth: [u8; 2]| {
            let mut bomb = png.clone();
            bomb[16..20].copy_from_slice(&width.to_be_bytes());
            bomb[20..24].copy_from_slice(&height.to_be_bytes());
            bomb[24..26].copy_from_slice(&depth);
            // The checksum, which the decoder looks at.
            let mut crc = flate2::Crc::new();
            crc.update(&bomb[12..29]);
            bomb[29..33].copy_from_slice(&crc.sum().to_be_bytes());
            decode(Path::new("bomb.png"), &bomb).unwrap_err().to_string()
        };
        assert!(said(65_536, 65_536, [8, 2]).contains("bomb.png: expected a JPEG or PNG image"));
        let message = said(14_000, 14_000, [16, 6]);
        assert!(
            message.contains("an image of 14000 x 14000 pixels takes 1568000000 bytes; at most 536870912 are read"),
            "{message}"
        );
    }
}
