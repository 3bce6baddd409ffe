//! What the next chunk takes along, brought near while the tiles of this one are computed.
//!
//! A chunk's rows and panels come from a cache that is shared, or from memory, and all multiply-adds would wait for them. There are more steps in the
//! tiles of a chunk than lines in the next one: at each point a tile brings one line of the next chunk's rows near, and one of its panel's, as long as there are any.

use super::kernel::Emitter;
use super::products::far_reads;
use super::rows::Part;
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Expr, Index, VarId};
use crate::loops::ValueId;
use crate::schedule::emit::Scope;
use crate::schedule::expand::View;
use crate::schedule::soon::Reads;

/// The fewest steps of an innermost loop in which it pays.
const STEPS: i64 = 16;

/// What is brought near, and when.
pub(super) struct Ahead {
    /// The variable that changes from chunk to chunk, and what stands for its next value.
    chunk: (VarId, VarId),
    rows: Lines,
    panel: Lines,
}

/// Lines of which a tile brings one near at each point.
struct Lines {
    reads: Reads,
    /// The number of the line, and how many there are at a point.
    vector: VarId,
    vectors: usize,
    /// The innermost variable, and what stands for it: 0 in tiles that have no line, which ask for the same one again and again.
    point: (VarId, VarId),
    /// Whether the tile at hand has one.
    wanted: VarId,
}

impl Lines {
    fn new(view: &mut View<'_>, (e, at): (&Expr, VarId), width: usize, vectors: usize, innermost: VarId) -> Lines {
        let points = view.size_of(innermost) as usize;
        let (vector, soon, wanted) = (view.var("line", vectors), view.var("soon", points), view.var("wanted", 2));
        let line = Index::from(at).add(&Index::from(vector).scale(width as i64));
        let e = e.subst_vars(
            &|v| match v {
                v if v == at => Some(line.clone()),
                v if v == innermost => Some(soon.into()),
                _ => None,
            },
            view,
        );
        Lines { reads: far_reads(view, &e), vector, vectors, point: (innermost, soon), wanted }
    }

    /// Binds the line of a tile of this number.
    fn bind(&self, s: &mut Scope<'_>, tile: ValueId) {
        if self.reads.is_empty() {
            return;
        }
        let (zero, one) = (s.int(0), s.int(1));
        let (all, last) = (s.int(self.vectors as i64), s.int(self.vectors as i64 - 1));
        let vector = s.int_op(BinaryOp::Min, tile, last);
        s.bind(self.vector, vector);
        let left = s.int_op(BinaryOp::Sub, all, tile);
        let left = s.int_op(BinaryOp::Max, left, zero);
        let wanted = s.int_op(BinaryOp::Min, left, one);
        s.bind(self.wanted, wanted);
    }

    fn bring(&self, s: &mut Scope<'_>) {
        if self.reads.is_empty() {
            return;
        }
        let point = s.int_op(BinaryOp::Mul, s.value_of(self.point.0), s.value_of(self.wanted));
        s.bind(self.point.1, point);
        self.reads.iter().for_each(|(tensor, address)| s.prefetch(*tensor, address));
    }
}

impl Ahead {
    /// For a panel's first vector along `lane` and a row's along `across`; `None` where nothing comes from far away, or there is no next chunk.
    pub fn new(
        view: &mut View<'_>,
        emitter: &Emitter,
        part: Part,
        (panel, lane): (&Expr, VarId),
        (row, across): (&Expr, VarId),
        (chunk, innermost): (VarId, VarId),
    ) -> Option<Ahead> {
        if view.size_of(innermost) < STEPS {
            return None;
        }
        let next = view.var("next", view.size_of(chunk) as usize);
        let of_next = |e: &Expr, view: &View<'_>| e.subst_vars(&|v| (v == chunk).then(|| next.into()), view);
        let (panel, row) = (of_next(panel, view), of_next(row, view));
        let width = emitter.width;
        let rows = Lines::new(view, (&row, across), width, part.span / width, innermost);
        let panel = Lines::new(view, (&panel, lane), width, emitter.vectors, innermost);
        let any = !rows.reads.is_empty() || !panel.reads.is_empty();
        any.then_some(Ahead { chunk: (chunk, next), rows, panel })
    }

    /// Binds what tile `counter` of panel `number` brings near; its rows begin at `first`.
    pub fn bind(
        &self,
        s: &mut Scope<'_>,
        each: usize,
        (number, counter): (ValueId, ValueId),
        (across, first): (VarId, ValueId),
    ) {
        let (one, last) = (s.int(1), s.int(s.view.size_of(self.chunk.0) - 1));
        let next = s.int_op(BinaryOp::Add, s.value_of(self.chunk.0), one);
        let next = s.int_op(BinaryOp::Min, next, last);
        s.bind(self.chunk.1, next);
        s.bind(across, first);
        let each = s.int(each as i64);
        let before = s.int_op(BinaryOp::Mul, number, each);
        let tile = s.int_op(BinaryOp::Add, before, counter);
        self.rows.bind(s, tile);
        self.panel.bind(s, counter);
    }

    /// At a point of the innermost loop.
    pub fn bring(&self, s: &mut Scope<'_>) {
        self.rows.bring(s);
        self.panel.bring(s);
    }
}
