//! One half of a data set, whichever way it is stored.

use super::augment::{Augment, Change, prepare};
use super::dataset::{Dataset, Normalisation, Split};
use super::folder::Folder;
use crate::error::Result;
use std::path::Path;

/// How a data set is stored and what its images become.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Layout {
    /// The format.
    pub format: Format,
    /// Height of an image.
    pub rows: usize,
    /// Width of an image.
    pub cols: usize,
    /// Number of classes.
    pub classes: usize,
    /// Share of the shorter side that is cut out of an image file to measure with.
    pub crop: f64,
}

/// What is in the data set's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Four IDX files of grey images of one size.
    Idx,
    /// A folder a class of JPEG and PNG files.
    Folder,
}

impl Layout {
    /// Colour channels of an image.
    pub fn channels(&self) -> usize {
        match self.format {
            Format::Idx => 1,
            Format::Folder => 3,
        }
    }
    /// Reads one half.
    pub fn read(&self, directory: &Path, split: Split) -> Result<Images> {
        Ok(match self.format {
            Format::Idx => Images::Memory(Dataset::read_idx(directory, split, self.rows, self.cols, self.classes)?),
            Format::Folder => {
                Images::Folder(Folder::read(directory, split, (self.rows, self.cols), self.crop, self.classes)?)
            }
        })
    }
    /// Reads both halves, to learn from and to measure with.
    pub fn read_both(&self, directory: &Path) -> Result<(Images, Images)> {
        let (train, test) = (self.read(directory, Split::Train)?, self.read(directory, Split::Test)?);
        if let (Images::Folder(train), Images::Folder(test)) = (&train, &test) {
            train.agrees(test)?;
        }
        Ok((train, test))
    }
}

/// Images with their labels.
#[derive(Clone, Debug)]
pub enum Images {
    /// All in memory.
    Memory(Dataset),
    /// Files, decoded when they are needed.
    Folder(Folder),
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> usize {
        match self {
            Images::Memory(d) => d.len(),
            Images::Folder(f) => f.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Colour channels, height and width of an image.
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Images::Memory(d) => [d.channels, d.rows, d.cols],
            Images::Folder(f) => [3, f.rows, f.cols],
        }
    }
    /// The class of image `n`, which must exist.
    pub fn label(&self, n: usize) -> u32 {
        match self {
            Images::Memory(d) => u32::from(d.labels[n]),
            Images::Folder(f) => f.label(n),
        }
    }
    /// Image `n`, which must exist, as one measures with it: channels, rows, columns.
    pub fn image(&self, n: usize) -> Result<Vec<u8>> {
        match self {
            Images::Memory(d) => Ok(d.image(n).to_vec()),
            Images::Folder(f) => f.image(n, None),
        }
    }

    /// Image `n` as a model takes it, into `out`. With `augment` it is changed as `(seed, epoch)` says.
    pub fn prepare(
        &self,
        n: usize,
        augment: Option<(&Augment, u64, usize)>,
        norm: &Normalisation,
        out: &mut [f32],
    ) -> Result<()> {
        let change = augment.map_or(Change::default(), |(a, seed, epoch)| a.change(seed, epoch, n));
        match self {
            Images::Memory(d) => prepare(d.image(n), self.shape(), change, norm, out),
            Images::Folder(f) => {
                let cut = augment.and_then(|(a, seed, epoch)| a.cut(seed, epoch, n));
                prepare(&f.image(n, cut)?, self.shape(), change, norm, out);
            }
        }
        Ok(())
    }
}
