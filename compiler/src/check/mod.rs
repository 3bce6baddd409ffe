//! Checking: names, index types, shapes, constraints, and the modules of a spec with concrete sizes.
//!
//! Checking and lowering are one walk, the `elaborator`: a module is instantiated with integers for its sizes, and
//! every statement is checked while its index IR is made. What only holds by chance for some sizes is found because
//! [`check`] elaborates every item at two sets of sample sizes that are unlike each other.

mod arguments;
pub(crate) mod axes;
mod covered;
pub(crate) mod crossing;
pub(crate) mod elaborator;
mod infer;
pub(crate) mod instance;
pub(crate) mod known;
mod names;
mod rates;
mod recipe;
mod recipe_keys;
mod recipe_settings;
pub(crate) mod report;
mod samples;
mod shared;
pub(crate) mod spec;
pub(crate) mod statics;
mod unused;
pub(crate) mod value;

pub use instance::{Init, ParamDecl, Piece};
pub use recipe::{Entry, EntryValue, Recipe};
pub use recipe_keys::{SETTINGS, Setting, WEIGHT};
pub use report::closest;
pub use samples::check;
pub use spec::{Disk, Files, ItemInfo, Spec};
pub use value::Value;
