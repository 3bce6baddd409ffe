//! Devices, planned execution, training, data sets and checkpoints.
//!
//! | module | holds |
//! |---|---|
//! | [`data`] | image data sets: reading, order of an epoch, augmentation, batches made ahead of their use |
//! | [`checkpoint`] | tensor files and resumable checkpoints, written whole or not at all |
//! | [`device`] | devices by name |
//! | [`driver`] | from a spec file to a scheduled program |
//! | [`plan`] | where buffers lie, and running a program again and again without allocating |
//! | [`predict`] | a model on images, with pictures of what it exposes |
//! | [`picture`], [`maps`] | pictures in and out; attention maps as pictures |
//! | [`init`] | initial values of parameters |
//! | [`tune`] | finding better schedules by measuring, and keeping what was found |
//! | [`train`] | training and evaluation of recipes |
//! | [`report`] | the report of a training run |
//! | [`verify`] | an item against the tensors of a file |
//! | [`rng`] | random numbers that are functions of their key |

pub mod bench;
pub mod checkpoint;
pub mod data;
pub mod device;
pub mod driver;
pub mod error;
pub mod init;
pub mod maps;
pub mod picture;
pub mod plan;
pub mod predict;
pub mod report;
pub mod rng;
pub mod train;
pub mod tune;
pub mod verify;

pub use error::Error;
