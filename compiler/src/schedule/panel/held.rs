//! What is where in an item's local arrays, and how a panel comes into its.

use super::kernel::{Emitter, Loops, around};
use super::rows::Part;
use crate::ir::{BinaryOp, Expr, Index, TensorId, VarId};
use crate::loops::{Op, ValueId};
use crate::schedule::emit::{I32, Scope};

impl Emitter {
    /// Where the vectors of a point are in the array of panels.
    pub(super) fn place(&self, panel: VarId, point: &Index) -> Index {
        let number = if self.panels() == 1 { Index::default() } else { panel.into() };
        number.scale(self.chunks.points as i64).add(point).scale(self.vectors as i64)
    }

    /// Where the sums of a tile of a panel begin.
    pub(super) fn offset(&self, s: &mut Scope<'_>, panel: ValueId, tile: ValueId) -> ValueId {
        let (each, sums) = (s.int(self.each as i64), s.int((self.unroll * self.vectors) as i64));
        let before = s.int_op(BinaryOp::Mul, panel, each);
        let number = s.int_op(BinaryOp::Add, before, tile);
        s.int_op(BinaryOp::Mul, number, sums)
    }

    /// Panels an item.
    pub(super) fn panels(&self) -> usize {
        self.rows.map_or(1, |part| part.panels)
    }

    /// How many vectors the pieces of successive points are apart. Whole parts of rows an odd number: their elements then do not fall on the same few places of
    /// a cache.
    pub(super) fn apart(&self, part: Part) -> usize {
        let vectors = part.piece / self.width;
        if part.piece == part.span { vectors | 1 } else { vectors }
    }

    /// Where the vector of that number of the first point's row is.
    pub(super) fn held(&self, part: Part, vector: usize) -> usize {
        let vectors = part.piece / self.width;
        vector / vectors * self.chunks.points * self.apart(part) + vector % vectors
    }

    /// Where the element so far into the first point's row is.
    pub(super) fn element(&self, s: &mut Scope<'_>, part: Part, ahead: ValueId) -> ValueId {
        if part.piece == part.span {
            return ahead;
        }
        let piece = s.int(part.piece as i64);
        let next = s.int((self.chunks.points * self.apart(part) * self.width) as i64);
        let number = s.int_op(BinaryOp::Div, ahead, piece);
        let before = s.int_op(BinaryOp::Mul, number, next);
        let within = s.op(Op::Rem(ahead, piece), I32);
        s.int_op(BinaryOp::Add, before, within)
    }

    /// Evaluates the panel in vectors along the innermost of `loops`, which are those over the points `inside` a chunk, and changes rows for columns. `square`
    /// and `along` are the kernel's variables for the number of a square and for its first point, `number` the one for the number of the panel in its array.
    pub(super) fn fill_in_squares(
        &self,
        s: &mut Scope<'_>,
        (array, number): (TensorId, VarId),
        panel: &[Expr],
        (inside, loops): (&Loops, &Loops),
        (square, along): (VarId, VarId),
    ) {
        let (width, lane) = (self.width, s.lane_var);
        let Some((&(innermost, size, end), outer)) = loops.split_last() else { return };
        around(s, outer, &mut |s| {
            let end = end.map(|end| {
                let width = s.int(width as i64);
                s.int_op(BinaryOp::Div, end, width)
            });
            around(s, &[(square, size.div_ceil(width), end)], &mut |s| {
                let start = s.tile_start(s.value_of(square), width, size);
                s.bind(along, start);
                for (m, e) in panel.iter().enumerate() {
                    let row = |n: usize| {
                        let place = |v: VarId| match v {
                            v if v == innermost => Some(along.into()),
                            v if Some(v) == lane => Some(Index::from(v).plus(n as i64)),
                            _ => None,
                        };
                        e.subst_vars(&place, s.view)
                    };
                    let rows: Vec<Expr> = (0..width).map(row).collect();
                    s.lane_var = Some(along);
                    let columns = s.square(&rows);
                    s.lane_var = lane;
                    for (n, value) in columns.into_iter().enumerate() {
                        let first = Index::from(along).plus(n as i64);
                        let at = self.point(inside).subst(&|v| (v == innermost).then(|| first.clone()), s.view);
                        s.store_local(array, &[self.place(number, &at).plus(m as i64)], value);
                    }
                }
            });
        });
    }
}
