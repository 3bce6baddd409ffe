//! Programs made by hand and at random: what rewrites must fire and must not, and that values stay through rewrites, differentiation and schedules.

mod algorithms;
mod build;
mod generate;
mod gradients;
mod kernels;
mod random;
mod regroup;
mod simplify;
mod value;
