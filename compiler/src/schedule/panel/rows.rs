//! How much an item holds where rows are taken along: of the lanes so many panels, of the rows such a part.
//!
//! At every summed point an item takes its elements of both factors along, and multiplies each of the one by each of the other: the larger its part
//! of the result, the less is taken along for each of them. Against that, its sums go to memory and come back between chunks of points, what a register
//! tile reads of a chunk is to stay in the nearest cache, and there are to be items for all units.

use super::{Chunks, TILES};
use crate::ir::VarId;
use crate::schedule::expand::View;
use crate::schedule::tile;

/// Cycles to take a vector along: as many as a cache near the core needs to hand it over, and one that is shared.
pub(super) const NEAR: f64 = 4.0;
const FAR: f64 = 9.0;
/// Cycles of a vector of multiply-adds.
pub(super) const MULTIPLY: f64 = 0.6;
/// Cycles for a vector of sums to be brought and put back.
const SUMS: f64 = 4.0;
/// What the last items add while other units wait for them, in items.
const UNEVEN: f64 = 0.1;
/// The most elements of a row.
const MOST: usize = 512;

/// What one item has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Panels, of lanes side by side.
    pub panels: usize,
    /// Elements of each row.
    pub span: usize,
    /// Elements of a register tile.
    pub unroll: usize,
    /// Elements of a row that lie together: those of all summed points follow one another before the next come, and no register tile has parts of two.
    pub piece: usize,
}

/// What there is to do, and with what.
pub struct Task<'a> {
    /// The summed variables.
    pub vars: &'a [VarId],
    /// Panels over the lanes.
    pub panels: usize,
    /// Lanes of a vector, vectors of a panel.
    pub tile: (usize, usize),
    /// Elements of a row, and the most of them that a register tile has.
    pub rows: (usize, usize),
    /// Items for each part of the result.
    pub others: usize,
    /// What a vector of the panel costs to load, beside one as it is.
    pub cost: f64,
    /// Whether the factors lie in a cache that is shared.
    pub far: bool,
    /// Units that run at the same time.
    pub units: usize,
    /// Bytes for what is taken along, and as many again for sums.
    pub room: usize,
    /// Bytes of it that are in the nearest cache.
    pub near: usize,
}

impl Task<'_> {
    /// The part with which all is done soonest, and its chunks of points.
    pub fn part(&self, view: &View<'_>) -> Option<(Part, Chunks)> {
        let (long, most) = self.rows;
        let mut best: Option<(f64, Part, Chunks)> = None;
        for panels in (1..=self.panels).filter(|n| self.panels.is_multiple_of(*n)) {
            for unroll in (1..=most).rev() {
                let parts = 1..=(long / (TILES * unroll)).max(1);
                let mut spans: Vec<usize> = parts.map(|n| self.span(long.div_ceil(n), unroll)).collect();
                spans.retain(|n| (unroll..=MOST).contains(n));
                spans.dedup();
                for span in spans {
                    let part = Part { panels, span, unroll, piece: self.piece(span, unroll) };
                    if let Some((cost, chunks)) = self.cost(view, part)
                        && best.as_ref().is_none_or(|(least, ..)| cost < *least)
                    {
                        best = Some((cost, part, chunks));
                    }
                }
            }
        }
        best.map(|(_, part, chunks)| (part, chunks))
    }

    /// The fewest elements that are whole vectors and whole register tiles.
    fn together(&self, unroll: usize) -> usize {
        let width = self.tile.0;
        (1..=width).map(|n| n * unroll).find(|n| n.is_multiple_of(width)).unwrap_or(unroll * width)
    }

    /// A part of a row of about so many elements.
    fn span(&self, elements: usize, unroll: usize) -> usize {
        let rounded = [self.together(unroll), self.tile.0].map(|n| elements.next_multiple_of(n));
        rounded.into_iter().find(|&n| n <= self.rows.0).unwrap_or(self.rows.0)
    }

    fn piece(&self, span: usize, unroll: usize) -> usize {
        let together = self.together(unroll);
        if span.is_multiple_of(together) { together } else { span }
    }

    /// Cycles for each summed point with such parts, and their chunks.
    fn cost(&self, view: &View<'_>, part: Part) -> Option<(f64, Chunks)> {
        let (width, vectors) = self.tile;
        let lanes = part.panels * vectors * width;
        // What a tile reads of a chunk is one panel and one piece.
        let held = (lanes + part.span) * 4;
        let read = (vectors * width + part.piece) * 4;
        let bytes = held.max(read * self.room / self.near);
        let chunks = Chunks::new(view, self.vars, bytes, (self.room, self.room))?;
        let sums = if chunks.whole() { 0.0 } else { SUMS / chunks.points as f64 };
        if !chunks.whole() && lanes * part.span * 4 > self.room {
            return None;
        }
        let vector = |n: usize| n as f64 / width as f64;
        let take = if self.far { FAR } else { NEAR };
        let taken = take * (vector(lanes) * self.cost.max(1.0) + vector(part.span));
        // Computed with overlap, as the last tile of a part is, at the price of the tile beside that of the largest.
        let computed = part.span.next_multiple_of(part.unroll) as f64;
        let price = tile::price(vectors, part.unroll) / tile::price(vectors, self.rows.1);
        let point = taken + vector(lanes) * computed * (MULTIPLY * price + sums);
        let items = self.panels / part.panels * self.others * self.rows.0.div_ceil(part.span);
        Some(((items.div_ceil(self.units) as f64 + UNEVEN) * point, chunks))
    }
}
