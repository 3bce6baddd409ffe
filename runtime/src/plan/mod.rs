//! Planned execution: where every buffer lies, and running a program there again and again without allocating.
//!
//! Memory is a few [arenas](Memory). Parameters, gradients and moments each fill one, so that the optimiser is one kernel over all of
//! them; temporaries of all programs share one, in which those that do not live at the same time overlap.

mod copy;
mod in_place;
mod liveness;
mod memory;
mod session;
mod temporaries;

pub(crate) use in_place::replaces;
pub use liveness::{Interval, pack};
pub use memory::{ALIGN, ArenaId, Memory, Place};
pub use session::{Bindings, Session};
pub use temporaries::scratch_bytes;

/// Named tensors one after the other in an arena, each at a multiple of [`ALIGN`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// Name, shape and place in the arena (in elements), in order.
    pub entries: Vec<Entry>,
    /// Elements of the whole, with padding.
    pub len: usize,
}

/// One tensor of a [`Layout`].
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Where it begins, in elements.
    pub offset: usize,
    /// How many elements it has.
    pub len: usize,
}

impl Layout {
    /// Lays tensors out in the order given.
    pub fn new<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Layout {
        let mut out = Layout::default();
        for (name, shape) in tensors {
            let len = shape.iter().product();
            out.entries.push(Entry { name: name.to_owned(), shape: shape.to_vec(), offset: out.len, len });
            out.len += usize::next_multiple_of(len, ALIGN);
        }
        out
    }
    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }
}

impl Entry {
    /// Its place in an arena that has this layout.
    pub fn place(&self, arena: ArenaId) -> Place {
        Place { arena, offset: self.offset, len: self.len }
    }
}
