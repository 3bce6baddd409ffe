//! Rows become columns: definitions whose result runs through memory along one variable, and what they read along another.
//!
//! With either along the lanes, the other side is taken apart element by element. Here a work item has a square: it evaluates vectors along what is read,
//! changes rows for columns in registers, and stores vectors along the result.

use super::Facts;
use super::along::has_reduce;
use super::emit::{Scope, stored_elem};
use super::expand::View;
use super::loads::{Load, loads};
use crate::ir::index::Sizes;
use crate::ir::{Clause, Elem, Expr, Index, TensorId, VarId};
use crate::loops::{Half, Kernel, Op, Type, ValueId};

/// The fewest lanes of a square: smaller ones are as fast element by element.
pub const LANES: usize = 4;

/// Whether all that is read can be read in vectors along `read`, and something cannot along `written`.
pub fn turns(reads: &[Load], read: VarId, written: VarId) -> bool {
    let along = |l: &Load| !l.uses(read) || l.runs_along(read);
    let apart = |l: &Load| l.uses(read) && l.uses(written) && !l.runs_along(written);
    reads.iter().all(along) && reads.iter().any(apart)
}

/// The kernel of a clause without sums in squares; `None` if nothing is gained so.
pub fn schedule(
    view: &mut View<'_>,
    facts: &Facts,
    tensor: TensorId,
    clause: &Clause,
    body: &Expr,
) -> Option<(Kernel, Vec<TensorId>)> {
    let width = facts.lanes;
    if width < LANES || body.elem != Elem::F32 || has_reduce(body) {
        return None;
    }
    let to = view.address(tensor, &clause.at);
    let long = |v: &VarId| view.size_of(*v) as usize >= width;
    let written = clause.vars.iter().copied().filter(long).find(|&v| to.coefficient(v) == 1)?;
    let reads = loads(view, body);
    let read = clause.vars.iter().copied().filter(long).find(|&v| v != written && turns(&reads, v, written))?;

    let (down, across) = (view.size_of(written) as usize, view.size_of(read) as usize);
    let (row, column) = (view.var("row", down - width + 1), view.var("column", across - width + 1));
    view.aligned_lane = None;
    let view = &*view;
    let mut s = Scope::new(view.name(tensor), view, width as u8);
    let item = s.item();
    let (number, rest) = s.split_item(item, across.div_ceil(width));
    let start = s.tile_start(number, width, across);
    s.bind(column, start);
    let (number, mut rest) = s.split_item(rest, down.div_ceil(width));
    let start = s.tile_start(number, width, down);
    s.bind(row, start);
    let mut items = across.div_ceil(width) * down.div_ceil(width);
    for &v in clause.vars.iter().rev().filter(|v| **v != read && **v != written) {
        let (value, left) = s.split_item(rest, view.size_of(v) as usize);
        s.bind(v, value);
        rest = left;
        items *= view.size_of(v) as usize;
    }
    s.kernel.items = items as u32;
    let place = |rows: usize, columns: usize| {
        move |v: VarId| match v {
            v if v == written => Some(Index::from(row).plus(rows as i64)),
            v if v == read => Some(Index::from(column).plus(columns as i64)),
            _ => None,
        }
    };
    let bodies: Vec<Expr> = (0..width).map(|n| body.subst_vars(&place(n, 0), view)).collect();
    s.lane_var = Some(column);
    let columns = s.square(&bodies);
    s.lane_var = Some(row);
    for (n, value) in columns.into_iter().enumerate() {
        let at: Vec<Index> = clause.at.iter().map(|i| i.subst(&place(0, n), view)).collect();
        s.store(tensor, &at, value);
    }
    Some(s.finish())
}

impl Scope<'_> {
    /// The columns of a square whose rows are the values of these expressions, as many as there are lanes. Every round zips the vectors of the first half
    /// with those of the second.
    pub fn square(&mut self, rows: &[Expr]) -> Vec<ValueId> {
        let ty = Type { elem: stored_elem(rows[0].elem), lanes: self.lanes };
        let mut vectors: Vec<ValueId> = rows
            .iter()
            .map(|e| {
                let value = self.eval(e);
                self.widen(value)
            })
            .collect();
        for _ in 0..vectors.len().ilog2() {
            let (low, high) = vectors.split_at(vectors.len() / 2);
            let mut zipped = Vec::with_capacity(vectors.len());
            for (&a, &b) in low.iter().zip(high) {
                zipped.push(self.op(Op::Zip(a, b, Half::First), ty));
                zipped.push(self.op(Op::Zip(a, b, Half::Second), ty));
            }
            vectors = zipped;
        }
        vectors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::UnaryOp;
    use crate::schedule::schedule as kernels;
    use crate::testing::{Make, arguments, check_schedule, rd};

    const FACTS: Facts = Facts { lanes: 16, local_bytes: 48 << 10, registers: 29, ..Facts::USUAL };

    #[test]
    fn rows_become_columns_in_squares() {
        for (b, n, c) in [(1, 16, 16), (3, 17, 40), (2, 64, 31), (5, 100, 48)] {
            let mut m = Make::new();
            let (x, z) = (m.input("x", &[b, n, c]), m.input("z", &[c]));
            let [p, i, j] = [b, n, c].map(|size| m.var(size));
            let value = Expr::add(Expr::unary(UnaryOp::Tanh, rd(x, &[p, i, j])), rd(z, &[j]));
            let y = m.def("y", &[p, j, i], value);
            m.result(y);
            let program = m.program();
            let text = kernels(&program, &FACTS).kernels[0].to_string();
            assert!(text.contains("zip") && !text.contains("[each"), "{text}");
            check_schedule(&program, &arguments(&program));
        }
    }

    #[test]
    fn short_ones_and_those_in_order_are_left_alone() {
        for (n, c, turned) in [(8, 40, true), (40, 8, true), (32, 32, false)] {
            let mut m = Make::new();
            let x = m.input("x", &[n, c]);
            let (i, j) = (m.var(n), m.var(c));
            let y = m.def("y", &if turned { [j, i] } else { [i, j] }, Expr::unary(UnaryOp::Exp, rd(x, &[i, j])));
            m.result(y);
            let program = m.program();
            let text = kernels(&program, &FACTS).kernels[0].to_string();
            assert!(!text.contains("zip"), "{text}");
            check_schedule(&program, &arguments(&program));
        }
    }
}
