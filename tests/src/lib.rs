//! Whole-pipeline tests: what they share.
//!
//! | module | holds |
//! |---|---|
//! | [`full_size`] | the golden cases whose weights come from a formula |
//! | [`golden`] | the items that have golden tensors, and their verification on a device |

pub mod full_size;
pub mod golden;
