//! What is derived from the specs, asserted: which algorithm, how much memory and work, at which sizes, and that values stay.

mod derive;
mod sizes;
mod snapshots;
mod systems;
mod variants;
