//! A data set in memory: images of one size and their labels.

use super::idx;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Bytes of pixels that are read at most, against files that claim absurd sizes.
const PIXEL_LIMIT: usize = 4 << 30;

/// Images and labels. An image is `channels x rows x cols` bytes.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Pixels of all images, one after the other.
    pub pixels: Vec<u8>,
    /// A class an image.
    pub labels: Vec<u8>,
    /// Colour channels.
    pub channels: usize,
    /// Height.
    pub rows: usize,
    /// Width.
    pub cols: usize,
}

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// To learn from.
    Train,
    /// To measure with.
    Test,
}

/// `(pixel / 255 - mean) / std`, with one mean and deviation for all channels or one for each.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Normalisation {
    /// Mean brightness, in 0..1.
    pub mean: Vec<f32>,
    /// Standard deviation of brightness; positive.
    pub std: Vec<f32>,
}

impl Normalisation {
    /// Mean and deviation of a channel.
    pub fn of(&self, channel: usize) -> (f32, f32) {
        (self.mean[channel % self.mean.len()], self.std[channel % self.std.len()])
    }
}

impl Dataset {
    /// Reads `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (or `t10k-...`), plain or `.gz`, from a directory.
    ///
    /// Images must be `rows x cols` and labels below `classes`.
    pub fn read_idx(directory: &Path, split: Split, rows: usize, cols: usize, classes: usize) -> Result<Dataset> {
        let prefix = match split {
            Split::Train => "train",
            Split::Test => "t10k",
        };
        let image_path = find(directory, &format!("{prefix}-images-idx3-ubyte"))?;
        let label_path = find(directory, &format!("{prefix}-labels-idx1-ubyte"))?;
        let images = idx::read(&image_path, 3, PIXEL_LIMIT)?;
        let labels = idx::read(&label_path, 1, PIXEL_LIMIT)?;
        if images.dims[1..] != [rows, cols] {
            return Err(Error::file(
                &image_path,
                format!(
                    "expected images of {rows}x{cols}, found {}x{} (dimensions at offset 8)",
                    images.dims[1], images.dims[2]
                ),
            ));
        }
        if images.dims[0] != labels.dims[0] {
            return Err(Error::file(
                &label_path,
                format!(
                    "expected {} labels, one an image of {}, found {}",
                    images.dims[0],
                    image_path.display(),
                    labels.dims[0]
                ),
            ));
        }
        if let Some(n) = labels.bytes.iter().position(|&l| usize::from(l) >= classes) {
            return Err(Error::file(
                &label_path,
                format!("expected labels below {classes}, found {} at offset {}", labels.bytes[n], 8 + n),
            ));
        }
        Ok(Dataset { pixels: images.bytes, labels: labels.bytes, channels: 1, rows, cols })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
    /// Bytes of an image.
    pub fn image_len(&self) -> usize {
        self.channels * self.rows * self.cols
    }
    /// The pixels of image `n`, which must exist.
    pub fn image(&self, n: usize) -> &[u8] {
        &self.pixels[n * self.image_len()..(n + 1) * self.image_len()]
    }
}

/// `name` or `name.gz` in the directory.
fn find(directory: &Path, name: &str) -> Result<PathBuf> {
    if !directory.is_dir() {
        return Err(Error::file(
            directory,
            "expected a directory with the data set, found none (give one with --data)",
        ));
    }
    [directory.join(name), directory.join(format!("{name}.gz"))]
        .into_iter()
        .find(|p| p.is_file())
        .ok_or_else(|| Error::file(directory, format!("expected {name} or {name}.gz in this directory, found neither")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, images: (u32, u32, u32), labels: &[u8]) {
        let mut content = vec![0, 0, 8, 3];
        [images.0, images.1, images.2].iter().for_each(|d| content.extend(d.to_be_bytes()));
        content.extend((0..images.0 * images.1 * images.2).map(|i| i as u8));
        std::fs::write(dir.join("t10k-images-idx3-ubyte"), content).expect("writable");
        let mut content = vec![0, 0, 8, 1];
        content.extend((labels.len() as u32).to_be_bytes());
        content.extend(labels);
        std::fs::write(dir.join("t10k-labels-idx1-ubyte"), content).expect("writable");
    }
    fn read(dir: &Path) -> std::result::Result<Dataset, String> {
        Dataset::read_idx(dir, Split::Test, 2, 3, 10)
            .map_err(|e| e.to_string().replace(&format!("{}/", dir.display()), ""))
    }

    #[test]
    fn reads_and_checks() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let missing = read(dir.path()).unwrap_err();
        assert!(missing.contains("t10k-images-idx3-ubyte.gz in this directory, found neither"), "{missing}");
        write(dir.path(), (2, 2, 3), &[1, 9]);
        let d = read(dir.path()).expect("a good data set");
        assert_eq!((d.len(), d.image(1), d.labels[1]), (2, &[6, 7, 8, 9, 10, 11][..], 9));
        write(dir.path(), (2, 2, 3), &[1, 10]);
        let m = read(dir.path()).unwrap_err();
        assert_eq!(m, "t10k-labels-idx1-ubyte: expected labels below 10, found 10 at offset 9");
        write(dir.path(), (2, 2, 3), &[1]);
        assert!(read(dir.path()).unwrap_err().contains("expected 2 labels"));
        write(dir.path(), (2, 3, 3), &[1, 2]);
        let m = read(dir.path()).unwrap_err();
        assert_eq!(m, "t10k-images-idx3-ubyte: expected images of 2x3, found 3x3 (dimensions at offset 8)");
    }
}
