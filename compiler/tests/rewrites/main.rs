//! Rewrites: what must fire, what must not, and that values stay.

mod algorithms;
mod build;
mod random;
mod simplify;
mod value;
