//! Attention maps as pictures.
//!
//! What a value shows is read off its axes, and off nothing else:
//!
//! | the value's last axes | picture |
//! |---|---|
//! | a grid | a map over the image |
//! | tokens and tokens, a token beside a grid | the row of that token over the grid: a class token's map |
//! | a grid and the same grid | a map over offsets: the mean over all pairs of places that lie so far apart |
//!
//! Whole numbers are labels: every label has a colour. All other axes, heads above all, give one panel an index, which stands above it.
//! Under a panel stands its scale, from its smallest to its largest value. Maps lie over the brightness of the image and not over its
//! colours, which would be taken for theirs.

use crate::error::Result;
use crate::picture::{self, text};
use foveate_compiler::check::Piece;
use image::imageops::FilterType;
use image::{Rgb, RgbImage};
use serde::Serialize;
use std::path::Path;

/// Side of a panel, in pixels.
const PANEL: u32 = 224;
/// White between panels.
const GAP: u32 = 6;
/// Height of the lines above and under a panel.
const LINE: u32 = text::HEIGHT + 8;
/// Panels in a row.
const ROW: usize = 6;
/// Panels of a picture; further ones are left out.
const MOST: usize = 48;
const WHITE: Rgb<u8> = Rgb([255; 3]);
/// How much of the image shows through a map.
const IMAGE: f64 = 0.4;

/// What the panels of a picture are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Maps over the image.
    Image,
    /// Maps over offsets.
    Offsets,
    /// Labels over the image.
    Labels,
}

/// The maps of one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Maps {
    /// What they are.
    pub kind: Kind,
    /// Rows and columns.
    pub grid: (usize, usize),
    /// One a panel, row-major.
    pub panels: Vec<Vec<f64>>,
    /// The index of each along the other axes: the head. Empty where there is only one.
    pub names: Vec<String>,
}

impl Maps {
    /// Those of a value with these dimensions (without the batch) and elements; none if its axes have no grid to show.
    pub fn of(dims: &[Vec<Piece>], whole: bool, data: &[f64]) -> Option<Maps> {
        let (last, outer) = dims.split_last()?;
        let grid = one_grid(last)?;
        let (keys, places) = (length(last), grid.0 * grid.1);
        let start = before_grid(last);
        let paired = outer.last().is_some_and(|d| one_grid(d) == Some(grid) && d == last);
        if !paired {
            let kind = if whole { Kind::Labels } else { Kind::Image };
            let panels = data.chunks_exact(keys).map(|row| row[start..start + places].to_vec());
            return Some(Maps { kind, grid, panels: panels.take(MOST).collect(), names: names(outer) });
        }
        let names = names(&outer[..outer.len() - 1]);
        let squares = data.chunks_exact(keys * keys).take(MOST);
        if let Some(token) = single_token(last) {
            let row = |square: &[f64]| square[token * keys + start..][..places].to_vec();
            return Some(Maps { kind: Kind::Image, grid, panels: squares.map(row).collect(), names });
        }
        if keys != places {
            return None;
        }
        let panels = squares.map(|square| by_offset(square, grid)).collect();
        Some(Maps { kind: Kind::Offsets, grid: (2 * grid.0 - 1, 2 * grid.1 - 1), panels, names })
    }

    /// The picture: panels side by side, the image first where they lie over it. Each panel's colours run from its smallest value (dark
    /// violet) to its largest (yellow).
    pub fn picture(&self, image: &RgbImage) -> RgbImage {
        let image = image::imageops::resize(image, PANEL, PANEL, FilterType::CatmullRom);
        let grey = brightness(&image);
        let none = String::new();
        let named = self.panels.iter().zip(self.names.iter().chain(std::iter::repeat(&none)));
        let mut cells: Vec<RgbImage> =
            named.map(|(panel, name)| self.cell(&self.panel(panel, &grey), name, Some(panel))).collect();
        if self.kind != Kind::Offsets {
            cells.insert(0, self.cell(&image, "", None));
        }
        let columns = cells.len().min(ROW + usize::from(self.kind != Kind::Offsets)).max(1) as u32;
        let rows = (cells.len() as u32).div_ceil(columns);
        let side = |n: u32, each: u32| n * (each + GAP) - GAP.min(n * GAP);
        let height = PANEL + 2 * LINE;
        let mut out = RgbImage::from_pixel(side(columns, PANEL), side(rows, height), WHITE);
        for (n, cell) in cells.iter().enumerate() {
            let (x, y) = (n as u32 % columns, n as u32 / columns);
            image::imageops::replace(&mut out, cell, i64::from(x * (PANEL + GAP)), i64::from(y * (height + GAP)));
        }
        out
    }

    /// A panel with its name above it and the scale of its values under it.
    fn cell(&self, panel: &RgbImage, name: &str, values: Option<&[f64]>) -> RgbImage {
        const BLACK: Rgb<u8> = Rgb([0; 3]);
        let mut out = RgbImage::from_pixel(PANEL, PANEL + 2 * LINE, WHITE);
        image::imageops::replace(&mut out, panel, 0, i64::from(LINE));
        let margin = (LINE - text::HEIGHT) / 2;
        text::write(&mut out, ((PANEL - text::width(name).min(PANEL)) / 2, margin), name, BLACK);
        let Some((least, most)) = values.filter(|_| self.kind != Kind::Labels).map(range) else { return out };
        let (low, high) = (text::short(least), text::short(most));
        let line = PANEL + LINE + margin;
        text::write(&mut out, (0, line), &low, BLACK);
        text::write(&mut out, (PANEL.saturating_sub(text::width(&high)), line), &high, BLACK);
        let (start, end) = (text::width(&low) + GAP, PANEL.saturating_sub(text::width(&high) + GAP));
        for x in start..end {
            let share = f64::from(x - start) / f64::from((end - start).max(2) - 1);
            (line..line + text::HEIGHT).for_each(|y| out.put_pixel(x, y, Rgb(colour(share))));
        }
        out
    }

    fn panel(&self, values: &[f64], under: &RgbImage) -> RgbImage {
        let (least, most) = range(values);
        let span = if most > least { most - least } else { 1.0 };
        RgbImage::from_fn(PANEL, PANEL, |x, y| {
            let place = |at: u32, n: usize| (f64::from(at) + 0.5) / f64::from(PANEL) * n as f64;
            let (row, column) = (place(y, self.grid.0), place(x, self.grid.1));
            let under = under.get_pixel(x, y);
            match self.kind {
                Kind::Offsets => Rgb(colour((values[row as usize * self.grid.1 + column as usize] - least) / span)),
                Kind::Image => blend(colour((self.between(values, row, column) - least) / span), under, IMAGE),
                Kind::Labels => match values[row as usize * self.grid.1 + column as usize] {
                    label if label < 0.0 => blend([20; 3], under, 0.5),
                    label => blend(label_colour(values, label), under, 0.3),
                },
            }
        })
    }

    /// The value between cells, bilinear; cells have their value in their middle.
    fn between(&self, values: &[f64], row: f64, column: f64) -> f64 {
        let part = |at: f64, n: usize| {
            let at = (at - 0.5).clamp(0.0, n as f64 - 1.0);
            let low = at as usize;
            (low, (low + 1).min(n - 1), at - low as f64)
        };
        let ((r0, r1, fr), (c0, c1, fc)) = (part(row, self.grid.0), part(column, self.grid.1));
        let at = |r: usize, c: usize| values[r * self.grid.1 + c];
        let line = |r: usize| at(r, c0) * (1.0 - fc) + at(r, c1) * fc;
        line(r0) * (1.0 - fr) + line(r1) * fr
    }

    /// The smallest and largest value of every panel.
    pub fn ranges(&self) -> Vec<(f64, f64)> {
        self.panels.iter().map(|p| range(p)).collect()
    }

    /// Writes the picture.
    pub fn write(&self, path: &Path, image: &RgbImage) -> Result<()> {
        picture::write(path, &self.picture(image))
    }
}

/// The indices along all of these dimensions, the last one the fastest.
fn names(outer: &[Vec<Piece>]) -> Vec<String> {
    let mut out = vec![String::new()];
    for n in outer.iter().map(|d| length(d)) {
        let more = |name: &String| {
            let start = if name.is_empty() { String::new() } else { format!("{name},") };
            (0..n.min(MOST)).map(move |i| format!("{start}{i}")).collect::<Vec<_>>()
        };
        out = out.iter().flat_map(more).take(MOST).collect();
    }
    out
}

/// The brightness of an image without its colours, its ends brought nearer so that no map disappears in black or white.
fn brightness(image: &RgbImage) -> RgbImage {
    let grey = |pixel: &Rgb<u8>| {
        let [r, g, b] = pixel.0.map(f64::from);
        // The weights of ITU-R BT.601, as in JPEG.
        Rgb([(30.0 + 0.8 * (0.299 * r + 0.587 * g + 0.114 * b)) as u8; 3])
    };
    RgbImage::from_fn(image.width(), image.height(), |x, y| grey(image.get_pixel(x, y)))
}

fn length(pieces: &[Piece]) -> usize {
    pieces.iter().map(|p| p.len).sum()
}

/// The grid of a dimension that has exactly one.
fn one_grid(pieces: &[Piece]) -> Option<(usize, usize)> {
    let mut grids = pieces.iter().filter_map(|p| p.grid);
    grids.next().filter(|_| grids.next().is_none())
}

/// Where the grid begins.
fn before_grid(pieces: &[Piece]) -> usize {
    pieces.iter().take_while(|p| p.grid.is_none()).map(|p| p.len).sum()
}

/// The place of the only token beside the grid.
fn single_token(pieces: &[Piece]) -> Option<usize> {
    match pieces {
        [Piece { len: 1, grid: None }, Piece { grid: Some(_), .. }] => Some(0),
        [Piece { len, grid: Some(_) }, Piece { len: 1, grid: None }] => Some(*len),
        _ => None,
    }
}

/// The mean of `square[i, j]` over all pairs with the same offset from i to j; the offset of nothing stands in the middle.
fn by_offset(square: &[f64], grid: (usize, usize)) -> Vec<f64> {
    let (rows, columns) = (2 * grid.0 - 1, 2 * grid.1 - 1);
    let (mut sums, mut counts) = (vec![0.0; rows * columns], vec![0.0; rows * columns]);
    let places = grid.0 * grid.1;
    for i in 0..places {
        for j in 0..places {
            let dy = j / grid.1 + grid.0 - 1 - i / grid.1;
            let dx = j % grid.1 + grid.1 - 1 - i % grid.1;
            sums[dy * columns + dx] += square[i * places + j];
            counts[dy * columns + dx] += 1.0;
        }
    }
    sums.iter().zip(&counts).map(|(s, n)| s / n).collect()
}

/// The smallest and largest finite value; 0 and 0 if there are none.
fn range(values: &[f64]) -> (f64, f64) {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let (least, most) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    if least <= most { (least, most) } else { (0.0, 0.0) }
}

/// From dark violet over green to yellow: even in lightness, and told apart by the colour-blind (nine points of the map "viridis").
fn colour(share: f64) -> [u8; 3] {
    const POINTS: [[u8; 3]; 9] = [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ];
    let at = if share.is_finite() { share.clamp(0.0, 1.0) * 8.0 } else { 0.0 };
    let low = (at as usize).min(7);
    mix(POINTS[low + 1], POINTS[low], at - low as f64)
}

/// The colour of a label: by its number among those of the panel, so that neighbours differ.
fn label_colour(values: &[f64], label: f64) -> [u8; 3] {
    const COLOURS: [[u8; 3]; 8] = [
        [230, 85, 13],
        [49, 130, 189],
        [49, 163, 84],
        [240, 200, 40],
        [140, 90, 190],
        [230, 110, 170],
        [90, 200, 200],
        [150, 110, 70],
    ];
    let mut smaller: Vec<f64> = values.iter().copied().filter(|&v| v >= 0.0 && v < label).collect();
    smaller.sort_by(f64::total_cmp);
    smaller.dedup();
    COLOURS[smaller.len() % COLOURS.len()]
}

/// `share` of the first and the rest of the second.
fn mix(a: [u8; 3], b: [u8; 3], share: f64) -> [u8; 3] {
    std::array::from_fn(|c| (share * f64::from(a[c]) + (1.0 - share) * f64::from(b[c])).round() as u8)
}

fn blend(over: [u8; 3], image: &Rgb<u8>, share: f64) -> Rgb<u8> {
    Rgb(mix(image.0, over, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(len: usize) -> Vec<Piece> {
        vec![Piece { len, grid: None }]
    }
    fn grid(rows: usize, columns: usize) -> Piece {
        Piece { len: rows * columns, grid: Some((rows, columns)) }
    }

    #[test]
    fn axes_say_what_is_shown() {
        let count = |n: usize| (0..n).map(|x| x as f64).collect::<Vec<_>>();
        let maps = Maps::of(&[plain(3), vec![grid(2, 2)]], false, &count(12)).expect("maps");
        assert_eq!((maps.kind, maps.grid, maps.panels.len()), (Kind::Image, (2, 2), 3));
        assert_eq!(maps.panels[1], [4.0, 5.0, 6.0, 7.0]);
        assert_eq!(Maps::of(&[vec![grid(2, 2)]], true, &count(4)).expect("maps").kind, Kind::Labels);
        // The class token's row, whether it stands before or behind the grid.
        let tokens = vec![plain(1)[0], grid(1, 2)];
        let maps = Maps::of(&[plain(2), tokens.clone(), tokens], false, &count(18)).expect("maps");
        assert_eq!(maps.panels, [[1.0, 2.0], [10.0, 11.0]]);
        let tokens = vec![grid(1, 2), plain(1)[0]];
        assert_eq!(Maps::of(&[tokens.clone(), tokens], false, &count(9)).expect("maps").panels, [[6.0, 7.0]]);
        for dims in [vec![plain(4)], vec![vec![grid(2, 2)], plain(3)], vec![]] {
            assert_eq!(Maps::of(&dims, false, &count(12)), None);
        }
    }

    #[test]
    fn a_function_of_offsets_is_shown_as_it_is() {
        let (rows, columns) = (2usize, 3usize);
        let places = rows * columns;
        let f = |dy: i64, dx: i64| (10 * dy + dx) as f64;
        let at = |p: usize| ((p / columns) as i64, (p % columns) as i64);
        let square: Vec<f64> = (0..places * places)
            .map(|n| (at(n / places), at(n % places)))
            .map(|((iy, ix), (jy, jx))| f(jy - iy, jx - ix))
            .collect();
        let maps = Maps::of(&[vec![grid(rows, columns)], vec![grid(rows, columns)]], false, &square).expect("maps");
        assert_eq!((maps.kind, maps.grid), (Kind::Offsets, (3, 5)));
        let expected: Vec<f64> = (-1..=1).flat_map(|dy| (-2..=2).map(move |dx| f(dy, dx))).collect();
        assert_eq!(maps.panels, [expected]);
    }

    #[test]
    fn panels_have_names() {
        let count = |n: usize| (0..n).map(|x| x as f64).collect::<Vec<_>>();
        let names = |dims: &[Vec<Piece>], n: usize| Maps::of(dims, false, &count(n)).expect("maps").names;
        assert_eq!(names(&[vec![grid(2, 2)]], 4), [""]);
        assert_eq!(names(&[plain(3), vec![grid(1, 2)]], 6), ["0", "1", "2"]);
        assert_eq!(names(&[plain(2), plain(2), vec![grid(1, 2)], vec![grid(1, 2)]], 16), ["0,0", "0,1", "1,0", "1,1"]);
    }

    #[test]
    fn panels_stand_side_by_side() {
        let image = RgbImage::from_pixel(30, 20, Rgb([200, 100, 50]));
        let panels = vec![vec![0.0, 1.0, 2.0, f64::NAN]; 7];
        let maps = Maps { kind: Kind::Image, grid: (2, 2), panels, names: names(&[plain(7)]) };
        let picture = maps.picture(&image);
        let height = PANEL + 2 * LINE;
        assert_eq!((picture.width(), picture.height()), (7 * (PANEL + GAP) - GAP, 2 * (height + GAP) - GAP));
        assert_eq!(picture.get_pixel(5, LINE + 5), &Rgb([200, 100, 50]));
        // The first panel has its number above it and its scale under it.
        let start = PANEL + GAP;
        let line = |y: u32| (start..start + PANEL).map(move |x| (x, y));
        assert!(line(LINE / 2).any(|(x, y)| picture.get_pixel(x, y) == &Rgb([0; 3])));
        assert!(line(PANEL + LINE * 3 / 2).any(|(x, y)| picture.get_pixel(x, y) == &Rgb(colour(0.0))));
        assert_eq!(colour(0.0), [68, 1, 84]);
        assert_eq!((colour(1.0), colour(2.0)), ([253, 231, 37], [253, 231, 37]));
        assert_ne!(label_colour(&[0.0, 5.0, -1.0], 0.0), label_colour(&[0.0, 5.0, -1.0], 5.0));
    }

    #[test]
    fn the_images_colours_are_not_those_of_the_map() {
        // Half red, half green, of one brightness: the map over them is the same.
        let image = RgbImage::from_fn(20, 20, |x, _| if x < 10 { Rgb([200, 0, 0]) } else { Rgb([0, 102, 0]) });
        let maps = Maps { kind: Kind::Image, grid: (1, 2), panels: vec![vec![1.0, 1.0]], names: vec![String::new()] };
        let picture = maps.picture(&image);
        let at = |x: u32| picture.get_pixel(PANEL + GAP + x, LINE + PANEL / 2).0;
        assert!(
            at(20).iter().zip(at(PANEL - 20)).all(|(a, b)| a.abs_diff(b) <= 1),
            "{:?} {:?}",
            at(20),
            at(PANEL - 20)
        );
    }
}
