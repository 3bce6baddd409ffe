//! Resizing by cubic convolution over as many pixels as the scale asks for, to the same bytes as Pillow's `Image.resize(..., BICUBIC)`,
//! with which the published models are trained and evaluated. Only what is cut out of the result is computed.

use image::{Rgb, RgbImage};

/// Pixels of an image: the first column and row, then how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Part {
    /// All of an image of these sides.
    pub fn whole(width: u32, height: u32) -> Part {
        Part { x: 0, y: 0, width, height }
    }
}

/// Resizes the part `from` of an image, of which nothing beyond counts, to `width x height`, and gives the part `cut` of that. Parts must
/// lie in what they are parts of, and no side may be 0. Memory is that of the result and of a strip of the image that is as wide as it.
pub fn resize(image: &RgbImage, from: Part, (width, height): (u32, u32), cut: Part) -> RgbImage {
    let columns = taps(from.width, width, cut.x, cut.width);
    let rows = taps(from.height, height, cut.y, cut.height);
    let first = rows.iter().map(|t| t.first).min().unwrap_or(0);
    let end = rows.iter().map(|t| t.first + t.weights.len()).max().unwrap_or(0);
    let strip = RgbImage::from_fn(cut.width, (end - first) as u32, |x, y| {
        let tap = &columns[x as usize];
        let row = from.y + y + first as u32;
        sum(tap, |n| image.get_pixel(from.x + n as u32, row))
    });
    RgbImage::from_fn(cut.width, cut.height, |x, y| sum(&rows[y as usize], |n| strip.get_pixel(x, (n - first) as u32)))
}

/// Fractional bits of a weight.
const BITS: u32 = 22;

/// The pixels of one side that a new one is made of.
struct Tap {
    first: usize,
    weights: Vec<i32>,
}

fn sum<'a>(tap: &Tap, at: impl Fn(usize) -> &'a Rgb<u8>) -> Rgb<u8> {
    let mut total = [1i32 << (BITS - 1); 3];
    for (n, weight) in tap.weights.iter().enumerate() {
        let pixel = at(tap.first + n).0;
        for c in 0..3 {
            total[c] += weight * i32::from(pixel[c]);
        }
    }
    Rgb(total.map(|t| (t >> BITS).clamp(0, 255) as u8))
}

/// Those of the new pixels from `first` on, `count` of them, of a side that goes from `from` pixels to `to`.
fn taps(from: u32, to: u32, first: u32, count: u32) -> Vec<Tap> {
    let scale = f64::from(from) / f64::from(to);
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let tap = |n: u32| {
        let middle = (f64::from(n) + 0.5) * scale;
        let low = ((middle - support + 0.5).max(0.0)) as usize;
        let high = ((middle + support + 0.5).min(f64::from(from))) as usize;
        let weights: Vec<f64> = (low..high).map(|x| cubic((x as f64 - middle + 0.5) / stretch)).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |w: &f64| (w / total * f64::from(1 << BITS)).round() as i32;
        Tap { first: low, weights: weights.iter().map(fixed).collect() }
    };
    (first..first + count).map(tap).collect()
}

/// Cubic convolution (Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981) with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(width: u32, height: u32) -> RgbImage {
        let value = |x: u32, y: u32, c: u32| ((x * x + 7 * y + 31 * c + x * y) % 256) as u8;
        RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|c| value(x, y, c))))
    }

    /// FNV-1a.
    fn hash(image: &RgbImage) -> u32 {
        image.as_raw().iter().fold(0x811C_9DC5, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
    }

    #[test]
    fn the_bytes_are_those_of_pillow() {
        // Image.frombytes("RGB", (37, 23), pattern).resize(size, Image.BICUBIC, box), Pillow 13
        for ((from, to), expected) in [
            ((Part::whole(37, 23), (16, 9)), 23_804_971),
            ((Part::whole(37, 23), (80, 61)), 2_061_745_459),
            ((Part::whole(37, 23), (5, 64)), 734_384_381),
            ((Part { x: 3, y: 5, width: 20, height: 11 }, (12, 12)), 2_303_829_146),
        ] {
            let found = resize(&pattern(37, 23), from, to, Part::whole(to.0, to.1));
            assert_eq!(hash(&found), expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn a_part_is_cut_out_of_the_whole() {
        let image = pattern(50, 40);
        let all = resize(&image, Part::whole(50, 40), (31, 77), Part::whole(31, 77));
        let cut = Part { x: 4, y: 20, width: 13, height: 9 };
        let part = resize(&image, Part::whole(50, 40), (31, 77), cut);
        assert_eq!(part, image::imageops::crop_imm(&all, cut.x, cut.y, cut.width, cut.height).to_image());
        assert_eq!(resize(&image, Part::whole(50, 40), (50, 40), Part::whole(50, 40)), image);
    }
}
