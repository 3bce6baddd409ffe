//! Simple augmentation: horizontal flips and shifts with zero fill.

use super::dataset::{Dataset, Normalisation};
use crate::rng::{Keyed, hash_bytes};

/// What may happen to a training image.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Augment {
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Largest shift in each direction, in pixels.
    pub shift: usize,
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
}

/// Image `n` of the data set, changed, then normalised; what moved in from outside has brightness 0 before normalisation.
/// `out` holds one image.
pub fn prepare(data: &Dataset, n: usize, change: Change, norm: Normalisation, out: &mut [f32]) {
    let image = data.image(n);
    let scale = |p: u8| (f32::from(p) / 255.0 - norm.mean) / norm.std;
    let (rows, cols) = (data.rows as isize, data.cols as isize);
    for c in 0..data.channels {
        for y in 0..data.rows {
            for x in 0..data.cols {
                let (from_y, shifted) = (y as isize - change.down, x as isize - change.right);
                let from_x = if change.flip { cols - 1 - shifted } else { shifted };
                let inside = (0..rows).contains(&from_y) && (0..cols).contains(&from_x);
                let pixel =
                    if inside { image[(c * data.rows + from_y as usize) * data.cols + from_x as usize] } else { 0 };
                out[(c * data.rows + y) * data.cols + x] = scale(pixel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_and_shifts() {
        let data = Dataset { pixels: vec![1, 2, 3, 4, 5, 6], labels: vec![0], channels: 1, rows: 2, cols: 3 };
        let norm = Normalisation { mean: 0.0, std: 1.0 / 255.0 };
        let run = |flip, down, right| {
            let mut out = [0.0; 6];
            prepare(&data, 0, Change { flip, down, right }, norm, &mut out);
            out.map(|x| x.round() as i32)
        };
        assert_eq!(run(false, 0, 0), [1, 2, 3, 4, 5, 6]);
        assert_eq!(run(true, 0, 0), [3, 2, 1, 6, 5, 4]);
        assert_eq!(run(false, 1, -1), [0, 0, 0, 2, 3, 0]);
        assert_eq!(run(true, 0, 1), [0, 3, 2, 0, 6, 5]);
    }

    #[test]
    fn changes_are_keyed_and_spread() {
        let a = Augment { flip: 0.5, shift: 2 };
        assert_eq!(a.change(1, 2, 3), a.change(1, 2, 3));
        let changes: Vec<Change> = (0..400).map(|n| a.change(1, 0, n)).collect();
        assert!(changes.iter().all(|c| c.down.abs() <= 2 && c.right.abs() <= 2));
        let flips = changes.iter().filter(|c| c.flip).count();
        assert!((150..250).contains(&flips), "{flips}");
        assert!(changes.iter().any(|c| c.down == 2) && changes.iter().any(|c| c.right == -2));
        assert_ne!(changes, (0..400).map(|n| a.change(1, 1, n)).collect::<Vec<_>>());
        assert_eq!(Augment::default().change(5, 6, 7), Change::default());
    }
}
