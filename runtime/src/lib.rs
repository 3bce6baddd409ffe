//! Devices, planned execution, training, data sets and checkpoints.
//!
//! | module | holds |
//! |---|---|
//! | [`data`] | image data sets: reading, order of an epoch, augmentation, batches made ahead of their use |
//! | [`checkpoint`] | tensor files and resumable checkpoints, written whole or not at all |
//! | [`device`] | devices by name |
//! | [`plan`] | where buffers lie, and running a program again and again without allocating |
//! | [`init`] | initial values of parameters |
//! | [`rng`] | random numbers that are functions of their key |

pub mod checkpoint;
pub mod data;
pub mod device;
pub mod error;
pub mod init;
pub mod plan;
pub mod rng;

pub use error::Error;
