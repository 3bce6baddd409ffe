//! Devices, planned execution, training, data sets and checkpoints.
//!
//! | module | holds |
//! |---|---|
//! | [`data`] | image data sets: reading, order of an epoch, augmentation, batches made ahead of their use |
//! | [`checkpoint`] | tensor files and resumable checkpoints, written whole or not at all |
//! | [`init`] | initial values of parameters |
//! | [`rng`] | random numbers that are functions of their key |

pub mod checkpoint;
pub mod data;
pub mod error;
pub mod init;
pub mod rng;

pub use error::Error;
