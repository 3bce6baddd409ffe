//! The rows that one work item of a row kernel computes: a few vectors of neighbours.
//!
//! A value that all rows share is loaded once for all vectors of an item, so that several vectors make fewer loads of a sum's steps than one does. Where
//! the rows are no multiple of that, the vectors of an item overlap, rather than that one item has little to do.

use super::Facts;
use super::lanes::{self, Load};
use crate::ir::VarId;

/// Vectors of rows of an item at most: with two, a step of a sum makes about one load for two multiply-adds.
const VECTORS: usize = 2;
/// The same where rows are gone through strip by strip: what all rows share then comes from far away, once for an item.
const WIDE: usize = 4;
/// How many more lanes may be computed than with one vector an item.
const WASTE: f64 = 1.25;

/// The rows of a work item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Lanes of a vector.
    pub width: usize,
    /// Vectors of an item.
    pub vectors: usize,
    /// Different rows in them.
    pub rows: usize,
}

impl Block {
    /// Items of so many vectors for `size` rows, which are one vector at least.
    pub fn new(size: usize, width: usize, vectors: usize) -> Block {
        let most = (vectors * width).min(size);
        // Vectors that start at multiples of their width are worth more than equal items.
        let rows = if size.is_multiple_of(width) { most } else { size.div_ceil(size.div_ceil(most)).max(width) };
        Block { width, vectors: rows.div_ceil(width), rows }
    }

    /// Items that cover the rows.
    pub fn tiles(&self, size: usize) -> usize {
        size.div_ceil(self.rows)
    }

    /// Lanes of all vectors.
    pub fn lanes(&self) -> usize {
        self.vectors * self.width
    }

    /// How many rows a vector has to itself; the last may have fewer.
    pub fn own(&self) -> usize {
        self.rows.div_ceil(self.vectors)
    }

    /// The item's row in a vector's first lane.
    pub fn offset(&self, vector: usize) -> usize {
        (vector * self.own()).min(self.rows - self.width)
    }

    /// The lanes of a vector with rows of its own.
    pub fn own_lanes(&self, vector: usize) -> std::ops::Range<usize> {
        let (first, offset) = (vector * self.own(), self.offset(vector));
        first - offset..(first + self.own()).min(self.rows) - offset
    }

    /// Whether all vectors start at multiples of their width.
    pub fn aligned(&self, size: usize) -> bool {
        size.is_multiple_of(self.width) && self.rows.is_multiple_of(self.width)
    }
}

/// A block of more vectors than the widest candidate has, if that has several.
pub fn wider(candidate: Block, size: usize) -> Option<Block> {
    let wide = Block::new(size, candidate.width, WIDE);
    let computed = |b: Block| (b.tiles(size) * b.lanes()) as f64;
    let one = Block::new(size, candidate.width, 1);
    let pays = candidate.vectors > 1 && wide.vectors > candidate.vectors && computed(wide) <= WASTE * computed(one);
    pays.then_some(wide)
}

/// What an item may take, best first; there are `outer` times as many items as cover the rows along the lanes. Vectors narrower than the device's need less
/// memory for what is staged.
pub fn candidates(facts: &Facts, loads: &[Load], lanes: &[VarId], size: usize, outer: usize) -> Vec<Block> {
    let width = 1usize << size.min(facts.lanes).ilog2();
    if facts.lockstep {
        // Items side by side load what all rows share at the same time; what matters is that there are enough of them.
        let widths = (0..=width.ilog2()).rev().map(|n| 1 << n);
        let enough = widths.filter(|&w| w == 1 || outer * size.div_ceil(w) >= facts.units);
        return enough.map(|w| Block::new(size, w, 1)).collect();
    }
    let mut out = Vec::new();
    let one = Block::new(size, width, 1);
    let computed = |b: Block| (b.tiles(size) * b.lanes()) as f64;
    if lanes::shared(loads, lanes) {
        let several = Block::new(size, width, VECTORS);
        if several.vectors > 1 && computed(several) <= WASTE * computed(one) {
            out.push(several);
        }
    }
    out.push(one);
    let mut narrow = width / 2;
    while narrow >= 4 {
        out.push(Block::new(size, narrow, 1));
        narrow /= 2;
    }
    out
}
