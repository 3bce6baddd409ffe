//! Row kernels whose vectors run along the row.
//!
//! A normalisation reads and writes rows of neighbouring elements. With a row in every lane each load would fetch elements that lie apart; here a work item
//! is one row, vectors run along the last index of every sum and of every member, and a sum ends by combining the lanes in a fixed order. Where a row is but one
//! value, an item has some neighbours: they read the same things (a query, for all keys of its window).

use super::emit::Scope;
use super::expand::View;
use super::rows::Member;
use super::soon::{self, Next};
use super::{Facts, lanes};
use crate::ir::index::Sizes;
use crate::ir::{Elem, Expr, Index, Monoid, Node, Reduction, TensorId, VarId};
use crate::loops::Kernel;
use std::collections::HashMap;

/// What combining the lanes of a vector costs, in loads.
const FOLD: f64 = 8.0;
/// Rows of one value that an item has at most.
const TOGETHER: usize = 16;
/// And how many of a long line of them.
const OF_LINE: usize = 8;
/// What finding one's row costs.
const ROW: f64 = 16.0;

/// The vector width with which the members are better computed along their rows; `None` if a row in every lane is better.
pub fn width(view: &mut View<'_>, facts: &Facts, members: &[Member]) -> Option<usize> {
    let sizes: Vec<usize> = members[0].rows.iter().map(|&v| view.size_of(v) as usize).collect();
    let bodies: Vec<Expr> = members.iter().map(|m| view.expand(&m.clause.body, &mut |_, _, _| None)).collect();
    let mut width = facts.lanes;
    while width >= 4 {
        let mut walk = Walk { view, width, cost: ROW, vectors: false };
        let fits = members.iter().zip(&bodies).all(|(m, body)| {
            let inner: Vec<VarId> = m.clause.vars.iter().copied().filter(|v| !m.rows.contains(v)).collect();
            let points: i64 = inner.iter().map(|&v| walk.view.size_of(v)).product();
            match inner.last() {
                None => walk.expr(body, None, 1.0),
                Some(&v) => walk.lane(v).is_some() && walk.expr(body, Some(v), points as f64 / width as f64),
            }
        });
        if fits {
            let (cost, vectors) = (walk.cost, walk.vectors);
            return (vectors && cost < lanes::row_cost(view, facts, members, &sizes)).then_some(width);
        }
        width /= 2;
    }
    None
}

/// Whether the lanes of a sum of this kind can be combined.
fn folds(r: &Reduction) -> bool {
    let op = matches!(r.op, Monoid::Sum | Monoid::Prod | Monoid::Max | Monoid::Min);
    op && !matches!(r.body.elem, Elem::Bool) && !r.vars.is_empty() && !has_reduce(&r.body)
}

/// The reductions of an expression that stand in no other.
pub(super) fn collect_reductions(e: &Expr, out: &mut Vec<Reduction>) {
    match &*e.node {
        Node::Reduce(r) => out.push(r.clone()),
        _ => e.for_each_child(&mut |c| collect_reductions(c, out)),
    }
}

/// An expression with another in the place of one of those.
pub(super) fn replace_reduction(e: &Expr, reduction: &Reduction, by: &Expr) -> Expr {
    match &*e.node {
        Node::Reduce(r) if r == reduction => by.clone(),
        Node::Reduce(_) => e.clone(),
        _ => e.map_children(&mut |c| replace_reduction(c, reduction, by)),
    }
}

/// Whether anything is reduced in an expression.
pub(super) fn has_reduce(e: &Expr) -> bool {
    let mut found = matches!(&*e.node, Node::Reduce(_));
    e.for_each_child(&mut |c| found |= has_reduce(c));
    found
}

/// Adds up what a row's loads cost.
struct Walk<'v, 'a> {
    view: &'v View<'a>,
    width: usize,
    cost: f64,
    /// Whether anything runs along the row.
    vectors: bool,
}

impl Walk<'_, '_> {
    /// The variable, if it can run along the lanes.
    fn lane(&mut self, v: VarId) -> Option<VarId> {
        let whole = (self.view.size_of(v) as usize).is_multiple_of(self.width);
        self.vectors |= whole;
        whole.then_some(v)
    }

    /// Adds the loads of an expression; false if the width does not fit it.
    fn expr(&mut self, e: &Expr, lane: Option<VarId>, times: f64) -> bool {
        match &*e.node {
            Node::Reduce(r) => {
                let points = times * r.vars.iter().map(|&v| self.view.size_of(v) as f64).product::<f64>();
                match (lane, r.vars.last()) {
                    (None, Some(&last)) if folds(r) => {
                        self.cost += FOLD * times;
                        let width = self.width as f64;
                        self.lane(last).is_some_and(|v| self.expr(&r.body, Some(v), points / width))
                    }
                    _ => self.expr(&r.body, lane, points),
                }
            }
            Node::Read { tensor, at, .. } => {
                self.cost += times * lanes::load_cost(&self.view.address(*tensor, at), lane);
                true
            }
            _ => {
                let mut fits = true;
                e.for_each_child(&mut |c| fits = fits && self.expr(c, lane, times));
                fits
            }
        }
    }
}

/// The kernel of the members, a row to an item.
pub fn build(view: &mut View<'_>, facts: &Facts, members: &[Member], width: usize) -> (Kernel, Vec<TensorId>) {
    let first = &members[0];
    let sizes: Vec<usize> = first.rows.iter().map(|&v| view.size_of(v) as usize).collect();
    let names: Vec<String> = first.rows.iter().map(|&v| view.function.var(v).name.clone()).collect();
    let rows: Vec<VarId> = names.iter().zip(&sizes).map(|(name, &n)| view.var(name, n)).collect();
    view.row_vars.clone_from(&rows);
    view.aligned_lane = None;

    struct Step {
        tensor: TensorId,
        inner: Vec<VarId>,
        at: Vec<Index>,
        body: Expr,
        pin: Option<TensorId>,
    }
    // Members without indices of their own: where they stand, and the tensor that is pinned to their value.
    let mut done: HashMap<TensorId, (Vec<Index>, TensorId)> = HashMap::new();
    let mut steps = Vec::new();
    for m in members {
        let map: HashMap<VarId, Index> = m.rows.iter().copied().zip(rows.iter().map(|&v| v.into())).collect();
        let f = |v: VarId| map.get(&v).cloned();
        let at: Vec<Index> = m.clause.at.iter().map(|i| i.subst(&f, view)).collect();
        let body = m.clause.body.subst_vars(&f, view);
        let body = view.expand(&body, &mut |view, tensor, at| match done.get(&tensor) {
            Some((row, pin)) if row == at => Some(Expr::read(view.elem(tensor), *pin, Vec::new())),
            _ => None,
        });
        let inner: Vec<VarId> = m.clause.vars.iter().copied().filter(|v| !m.rows.contains(v)).collect();
        let pin = inner.is_empty().then(|| view.function.new_tensor("row", view.elem(m.tensor), Vec::new(), None));
        if let Some(pin) = pin {
            done.insert(m.tensor, (at.clone(), pin));
        }
        steps.push(Step { tensor: m.tensor, inner, at, body, pin });
    }

    // Rows that an item has whole, and the first of a tile of the line before them.
    let alone = matches!(&steps[..], [step] if step.inner.is_empty());
    let line = if alone { Line::of(view, &rows, &sizes) } else { Line::NONE };
    let (outer, inner) = rows.split_at(rows.len() - line.whole);
    let (outer_sizes, inner_sizes) = sizes.split_at(rows.len() - line.whole);
    let tiled = line.tile.map(|(n, base)| (outer[outer.len() - 1], n, base));

    let view = &*view;
    let mut s = Scope::new(view.name(members[members.len() - 1].tensor), view, width as u8);
    s.along = true;
    let mut rest = s.item();
    let mut items = 1;
    for (&v, &size) in outer.iter().zip(outer_sizes).rev() {
        let tile = tiled.filter(|t| t.0 == v);
        let count = tile.map_or(size, |(_, n, _)| size.div_ceil(n));
        let (value, left) = s.split_item(rest, count);
        (rest, items) = (left, items * count);
        match tile {
            Some((_, n, base)) => {
                let start = s.tile_start(value, n, size);
                s.bind(base, start);
            }
            None => s.bind(v, value),
        }
    }
    s.kernel.items = items as u32;
    for step in &steps {
        let Some((&last, outer)) = step.inner.split_last() else {
            let mut points: Vec<HashMap<VarId, Index>> = match tiled {
                Some((v, n, base)) => (0..n).map(|k| [(v, Index::from(base).plus(k as i64))].into()).collect(),
                None => vec![HashMap::new()],
            };
            for (&v, &size) in inner.iter().zip(inner_sizes) {
                let with =
                    |p: &HashMap<VarId, Index>, k| p.iter().map(|(v, i)| (*v, i.clone())).chain([(v, k)]).collect();
                let all = |p: HashMap<VarId, Index>| (0..size as i64).map(move |k| with(&p, k.into()));
                points = points.into_iter().flat_map(all).collect();
            }
            let at = |p: &HashMap<VarId, Index>| step.body.subst_vars(&|v| p.get(&v).cloned(), view);
            let values: Vec<Expr> = points.iter().map(at).collect();
            if alone && !facts.lockstep {
                let of = |&v: &VarId| tiled.filter(|t| t.0 == v).map_or((v, 1), |(_, n, base)| (base, n));
                let order: Vec<(VarId, usize)> = outer.iter().map(of).collect();
                let soon = soon::reads(view, &values, width, Next::tile(&order));
                soon.iter().for_each(|(tensor, address)| s.prefetch(*tensor, address));
            }
            let values = s.eval_many(&values);
            for (value, p) in values.into_iter().zip(&points) {
                let at: Vec<Index> = step.at.iter().map(|i| i.subst(&|v| p.get(&v).cloned(), view)).collect();
                s.store(step.tensor, &at, value);
                if let Some(pin) = step.pin {
                    s.pin(pin, value);
                }
            }
            continue;
        };
        s.loops(outer, &mut |s| {
            s.vectors(last, |s| {
                let value = s.eval(&step.body);
                s.store(step.tensor, &step.at, value);
            });
        });
    }
    s.finish()
}

/// The rows that an item has.
struct Line {
    /// How many of the last row variables it has whole.
    whole: usize,
    /// How many steps of the one before them, and the variable for the first one.
    tile: Option<(usize, VarId)>,
}

impl Line {
    /// One row.
    const NONE: Line = Line { whole: 0, tile: None };

    /// As many as may be.
    fn of(view: &mut View<'_>, rows: &[VarId], sizes: &[usize]) -> Line {
        let (mut whole, mut count) = (0, 1);
        while whole < rows.len() && count * sizes[rows.len() - 1 - whole] <= TOGETHER {
            count *= sizes[rows.len() - 1 - whole];
            whole += 1;
        }
        let steps = (OF_LINE / count).min(rows.len().checked_sub(whole + 1).map_or(1, |r| sizes[r]));
        let tile = (steps > 1).then(|| (steps, view.var("first", sizes[rows.len() - 1 - whole] - steps + 1)));
        Line { whole, tile }
    }
}

impl Scope<'_> {
    /// Whether a reduction's lanes are to be combined: it is the first thing in the row that runs along it.
    pub(super) fn runs_along(&self, r: &Reduction) -> bool {
        self.along && self.lane_var.is_none() && folds(r)
    }

    /// A loop over a variable in whole vectors; its size is a multiple of the width.
    pub(super) fn vectors(&mut self, var: VarId, f: impl FnOnce(&mut Self)) {
        let steps = self.view.size_of(var) as usize / self.lanes as usize;
        self.for_loop(var, steps, |s| s.vector_at(var, f));
    }

    /// The vector whose number the variable is bound to.
    pub(super) fn vector_at(&mut self, var: VarId, f: impl FnOnce(&mut Self)) {
        let (width, size) = (self.lanes as usize, self.view.size_of(var) as usize);
        let number = self.value_of(var);
        let start = self.tile_start(number, width, size);
        self.bind(var, start);
        self.lane_var = Some(var);
        f(self);
        self.lane_var = None;
    }
}

#[cfg(test)]
mod tests {
    use crate::ir::{Elem, Expr, Index, Pred};
    use crate::schedule::{Facts, schedule};
    use crate::testing::{Make, arguments, check_schedule, rd};

    /// The products of each element of a line with those around it.
    #[test]
    fn the_products_of_a_window_share_an_item() {
        for (n, k, d) in [(20, 3, 32), (7, 5, 16), (11, 1, 64), (3, 17, 16)] {
            let mut m = Make::new();
            let (q, key) = (m.input("q", &[n, d]), m.input("key", &[n, d]));
            let [i, t, e] = [n, k, d].map(|size| m.var(size));
            let place = Index::from(i).add(&t.into()).plus(-(k as i64 / 2));
            let body = Expr::mul(rd(q, &[i, e]), Expr::read_or_zero(Elem::F32, key, vec![place, e.into()]));
            let s = m.def("s", &[i, t], Expr::sum(vec![e], Pred::True, body));
            m.result(s);
            let program = m.program();
            check_schedule(&program, &arguments(&program));
            let graph = schedule(&program, &Facts { lanes: 16, local_bytes: 49152, ..Facts::USUAL });
            assert!((graph.kernels[0].items as usize) < n * k, "{}", graph.kernels[0]);
        }
    }
}
