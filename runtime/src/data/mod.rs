//! Image data sets for classification: reading them, the order of an epoch, augmentation, and batches made ahead of their use.
//!
//! What an image becomes in an epoch is a function of (seed, epoch, image), and where it stands one of (seed, epoch), so that training can
//! go on from any batch of any epoch with the same numbers.

pub mod augment;
pub mod dataset;
pub mod folder;
pub mod idx;
pub mod images;
pub mod loader;

pub use augment::Augment;
pub use dataset::{Dataset, Normalisation, Split};
pub use folder::Folder;
pub use images::{Format, Images, Layout};
pub use loader::{Batch, Feed, Loader};
