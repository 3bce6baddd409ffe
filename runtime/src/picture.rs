//! Pictures: photographs read and cut to a model's size, and pixels written as PNG.

use crate::checkpoint::atomic;
use crate::error::{Error, Result};
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use std::io::Cursor;
use std::path::Path;

/// Longest side of a photograph that is read, and the most memory that decoding one may take.
const LONGEST: u32 = 20_000;
const DECODING: u64 = 1 << 30;

/// Reads a JPEG or PNG, upright as its metadata says.
pub fn read(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let bad = |e: image::ImageError| Error::file(path, format!("expected a JPEG or PNG image: {e}"));
    let mut reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(Error::io("read", path))?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) =
        (Some(LONGEST), Some(LONGEST), Some(DECODING));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(bad)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(bad)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// The middle of a picture as models are evaluated: the shorter side resized to `1 / crop` of the wanted one by cubic convolution, then the
/// middle `rows x cols` cut out.
pub fn middle(image: &RgbImage, rows: u32, cols: u32, crop: f64) -> RgbImage {
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    let scale = (f64::from(cols) / width).max(f64::from(rows) / height) / crop;
    let side = |length: f64, least: u32| ((length * scale).round() as u32).max(least);
    let (width, height) = (side(width, cols), side(height, rows));
    let resized = image::imageops::resize(image, width, height, FilterType::CatmullRom);
    image::imageops::crop_imm(&resized, (width - cols) / 2, (height - rows) / 2, cols, rows).to_image()
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
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("bomb.png");
        let mut png = png(&RgbImage::new(1, 1));
        png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]); // 65,536 x 65,536 pixels
        std::fs::write(&path, png).expect("writable");
        assert!(read(&path).is_err());
    }
}
