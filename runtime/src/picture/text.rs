//! Numbers in pictures.

use image::{Rgb, RgbImage};

/// Pixels of a picture for one of a character.
const SCALE: u32 = 2;
/// Height of a line of text, in pixels.
pub const HEIGHT: u32 = 5 * SCALE;

/// Characters of 3 x 5 pixels; each digit is a row, the leftmost pixel being its highest bit.
const GLYPHS: [(char, [u8; 5]); 14] = [
    ('0', [7, 5, 5, 5, 7]),
    ('1', [2, 6, 2, 2, 7]),
    ('2', [7, 1, 7, 4, 7]),
    ('3', [7, 1, 3, 1, 7]),
    ('4', [5, 5, 7, 1, 1]),
    ('5', [7, 4, 7, 1, 7]),
    ('6', [7, 4, 7, 5, 7]),
    ('7', [7, 1, 2, 2, 2]),
    ('8', [7, 5, 7, 5, 7]),
    ('9', [7, 5, 7, 1, 7]),
    ('-', [0, 0, 7, 0, 0]),
    ('.', [0, 0, 0, 0, 2]),
    (',', [0, 0, 0, 2, 4]),
    ('e', [0, 7, 7, 4, 7]),
];

/// Width of a text in pixels.
pub fn width(text: &str) -> u32 {
    (4 * text.chars().count() as u32).saturating_sub(1) * SCALE
}

/// Writes digits and the signs of numbers; other characters stay empty. `(x, y)` is the upper left corner.
pub fn write(image: &mut RgbImage, (x, y): (u32, u32), text: &str, colour: Rgb<u8>) {
    for (n, character) in text.chars().enumerate() {
        let Some((_, rows)) = GLYPHS.iter().find(|(c, _)| *c == character) else { continue };
        for (row, bits) in rows.iter().enumerate() {
            for column in (0..3).filter(|column| bits >> (2 - column) & 1 == 1) {
                let corner = (x + (4 * n as u32 + column) * SCALE, y + row as u32 * SCALE);
                for (dx, dy) in (0..SCALE).flat_map(|dy| (0..SCALE).map(move |dx| (dx, dy))) {
                    if let Some(pixel) = image.get_pixel_mut_checked(corner.0 + dx, corner.1 + dy) {
                        *pixel = colour;
                    }
                }
            }
        }
    }
}

/// A number with three significant digits.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.1e}");
    }
    let digits = (2 - size.log10().floor() as i32).max(0) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, -1.0, 12.345, -123_456.0, 0.012_345, 1.0e-7, 99_999.0].map(short);
        assert_eq!(texts, ["0", "-1.00", "12.3", "-1.2e5", "0.0123", "1.0e-7", "99999"]);
    }

    #[test]
    fn characters_have_pixels() {
        let mut image = RgbImage::new(40, 12);
        write(&mut image, (2, 1), "-1", Rgb([255; 3]));
        let text: Vec<String> = (0..6)
            .map(|y| (0..9).map(|x| if image.get_pixel(2 + 2 * x, 1 + 2 * y).0[0] > 0 { '#' } else { ' ' }).collect())
            .collect();
        assert_eq!(text, ["     #   ", "    ##   ", "###  #   ", "     #   ", "    ###  ", "         "]);
        assert_eq!(width("-1"), 14);
        // Beyond the edge there is nothing to write on.
        write(&mut image, (36, 8), "888", Rgb([255; 3]));
    }
}
