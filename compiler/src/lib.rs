//! From a checked spec to loop nests: checker, index IR, reverse-mode differentiation, rewrites, schedules, and the interpreter
//! that is the oracle of them all. Nothing here knows a device.

pub mod check;
pub mod compile;
pub mod explain;
pub mod grad;
pub mod interp;
pub mod ir;
pub mod loops;
pub mod lower;
pub mod products;
pub mod rewrite;
pub mod schedule;
#[cfg(test)]
mod testing;
