//! Whole-pipeline tests: what they share.
//!
//! | module | holds |
//! |---|---|
//! | [`golden`] | the items that have golden tensors, and their verification on a device |

pub mod golden;
