//! Simple augmentation: horizontal flips, shifts with zero fill, and parts of image files cut out at random.

use super::dataset::Normalisation;
use crate::picture::Part;
use crate::rng::{Keyed, hash_bytes};

/// What may happen to a training image.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Augment {
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Largest shift in each direction, in pixels.
    pub shift: usize,
    /// The least share of an image file's area that is cut out at random and resized; without one the middle is taken.
    pub area: Option<f64>,
}

/// What happens to one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Mirrored left to right.
    pub flip: bool,
    /// Moved down by so many pixels.
    pub down: isize,
    /// Moved right by so many pixels.
    pub right: isize,
}

impl Augment {
    /// What happens to image `image` in epoch `epoch`.
    pub fn change(&self, seed: u64, epoch: usize, image: usize) -> Change {
        let mut random = Keyed::new(&[seed, hash_bytes(b"augment"), epoch as u64, image as u64]);
        let flip = random.unit() < self.flip;
        let mut offset = || random.below(2 * self.shift as u64 + 1) as isize - self.shift as isize;
        Change { flip, down: offset(), right: offset() }
    }
    /// What is cut out of the file of image `image` in epoch `epoch`; none for its middle.
    pub fn cut(&self, seed: u64, epoch: usize, image: usize) -> Option<Cut> {
        let key = Keyed::new(&[seed, hash_bytes(b"cut"), epoch as u64, image as u64]).bits();
        self.area.map(|area| Cut { area, seed: key })
    }
}

/// A part of an image that is cut out at random, as torchvision's `RandomResizedCrop` does: a share of the area between `area` and 1, with
/// sides in a ratio between 3 : 4 and 4 : 3; if ten attempts do not fit the image, as much of its middle as has such a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// The least share of the area.
    pub area: f64,
    /// Of the random numbers.
    pub seed: u64,
}

impl Cut {
    /// The part of an image of these sides.
    pub fn part(&self, width: u32, height: u32) -> Part {
        const LEAST: f64 = 3.0 / 4.0;
        const MOST: f64 = 4.0 / 3.0;
        let mut random = Keyed::new(&[self.seed, hash_bytes(b"cut")]);
        let (w, h) = (f64::from(width), f64::from(height));
        for _ in 0..10 {
            let area = w * h * (self.area + (1.0 - self.area) * random.unit());
            let (low, high) = (libm::log(LEAST), libm::log(MOST));
            let ratio = libm::exp(low + (high - low) * random.unit());
            let (cut_w, cut_h) = ((area * ratio).sqrt().round() as u32, (area / ratio).sqrt().round() as u32);
            if (1..=width).contains(&cut_w) && (1..=height).contains(&cut_h) {
                let mut start = |room: u32| random.below(u64::from(room) + 1) as u32;
                return Part { x: start(width - cut_w), y: start(height - cut_h), width: cut_w, height: cut_h };
            }
        }
        let ratio = (w / h).clamp(LEAST, MOST);
        let cut_w = ((h * ratio).round() as u32).clamp(1, width);
        let cut_h = ((w / ratio).round() as u32).clamp(1, height);
        Part { x: (width - cut_w) / 2, y: (height - cut_h) / 2, width: cut_w, height: cut_h }
    }
}

/// An image of `channels x rows x cols` bytes, changed, then normalised; what moved in from outside has brightness 0 before
/// normalisation. `out` holds one image.
pub fn prepare(
    image: &[u8],
    [channels, height, width]: [usize; 3],
    change: Change,
    norm: &Normalisation,
    out: &mut [f32],
) {
    let (rows, cols) = (height as isize, width as isize);
    for c in 0..channels {
        let (mean, std) = norm.of(c);
        let scale = |p: u8| (f32::from(p) / 255.0 - mean) / std;
        for y in 0..height {
            for x in 0..width {
                let (from_y, shifted) = (y as isize - change.down, x as isize - change.right);
                let from_x = if change.flip { cols - 1 - shifted } else { shifted };
                let inside = (0..rows).contains(&from_y) && (0..cols).contains(&from_x);
                let pixel = if inside { image[(c * height + from_y as usize) * width + from_x as usize] } else { 0 };
                out[(c * height + y) * width + x] = scale(pixel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_and_shifts() {
        let norm = Normalisation { mean: vec![0.0], std: vec![1.0 / 255.0] };
        let run = |flip, down, right| {
            let mut out = [0.0; 6];
            prepare(&[1, 2, 3, 4, 5, 6], [1, 2, 3], Change { flip, down, right }, &norm, &mut out);
            out.map(|x| x.round() as i32)
        };
        assert_eq!(run(false, 0, 0), [1, 2, 3, 4, 5, 6]);
        assert_eq!(run(true, 0, 0), [3, 2, 1, 6, 5, 4]);
        assert_eq!(run(false, 1, -1), [0, 0, 0, 2, 3, 0]);
        assert_eq!(run(true, 0, 1), [0, 3, 2, 0, 6, 5]);
    }

    #[test]
    fn changes_are_keyed_and_spread() {
        let a = Augment { flip: 0.5, shift: 2, area: None };
        assert_eq!(a.change(1, 2, 3), a.change(1, 2, 3));
        let changes: Vec<Change> = (0..400).map(|n| a.change(1, 0, n)).collect();
        assert!(changes.iter().all(|c| c.down.abs() <= 2 && c.right.abs() <= 2));
        let flips = changes.iter().filter(|c| c.flip).count();
        assert!((150..250).contains(&flips), "{flips}");
        assert!(changes.iter().any(|c| c.down == 2) && changes.iter().any(|c| c.right == -2));
        assert_ne!(changes, (0..400).map(|n| a.change(1, 1, n)).collect::<Vec<_>>());
        assert_eq!(Augment::default().change(5, 6, 7), Change::default());
    }

    #[test]
    fn parts_are_cut_out_at_random() {
        let augment = Augment { area: Some(0.08), ..Augment::default() };
        let parts: Vec<Part> = (0..400).map(|n| augment.cut(1, 2, n).expect("cut").part(200, 100)).collect();
        for p in &parts {
            let ratio = f64::from(p.width) / f64::from(p.height);
            assert!(p.x + p.width <= 200 && p.y + p.height <= 100 && (0.7..1.4).contains(&ratio), "{p:?}");
        }
        let share = |p: &Part| f64::from(p.width * p.height) / 20_000.0;
        assert!(parts.iter().all(|p| share(p) > 0.07) && parts.iter().any(|p| share(p) < 0.15));
        assert!(
            parts.iter().any(|p| share(p) > 0.4) && parts.iter().any(|p| p.x > 100) && parts.iter().any(|p| p.y > 50)
        );
        assert_eq!(augment.cut(1, 2, 3), augment.cut(1, 2, 3));
        assert_ne!(augment.cut(1, 2, 3), augment.cut(1, 3, 3));
        // No such part fits: the middle of it.
        assert_eq!(Cut { area: 1.0, seed: 1 }.part(900, 3), Part { x: 448, y: 0, width: 4, height: 3 });
        assert_eq!(Cut { area: 1.0, seed: 1 }.part(1, 1), Part::whole(1, 1));
        assert_eq!(Augment::default().cut(1, 2, 3), None);
    }
}
