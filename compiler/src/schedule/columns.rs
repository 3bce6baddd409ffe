//! The schedule of long sums down the columns of memory: the gradients of depthwise weights, of biases and scales.
//!
//! `w[c, t] = sum(p) a[p, c] * b[p + t, c]` finds a row of many `c` side by side at each of very many points `p`. A register tile would take a few
//! elements of every row, one row after the other: a jump through memory at each point, which no machine foresees. Here a work item goes along the
//! rows, a few points at a time, so that memory is read in order; what it adds up waits in a local array, all `t` of a vector of `c` one after the
//! other. Items take parts of the points, and a second kernel adds what they found; the order of the additions depends on no device.

use super::along::{collect_reductions, has_reduce, replace_reduction};
use super::assume::assume;
use super::emit::Scope;
use super::expand::View;
use super::loads::{Load, lane_group, loads, pow2};
use super::tile;
use super::{Facts, Planner};
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Clause, Elem, Expr, Index, Monoid, Node, Pred, Reduction, TensorId, VarId, atom};
use crate::loops::{Kernel, Op, Stmt, Type, ValueId};

/// Sums of a vector of the lanes that are computed together at most.
const TAPS: usize = 16;
/// Sums and points that are written out at most.
const WRITTEN_OUT: usize = 40;
/// Points at a time at most.
const STEPS: usize = 8;
/// The fewest points for which this pays, and how many times more than such memory holds is read.
const POINTS: usize = 64;
const FAR: usize = 10;
/// A row has more vectors than this: fewer are a register tile's.
const VECTORS: usize = 4;
/// Work items: enough for any device's units, and not dependent on them.
const ITEMS: usize = 64;
/// How many times more is read than partial results are written.
const SHARE: usize = 8;

/// A sum down the columns, and how its kernel goes about it.
struct Columns {
    sum: Reduction,
    /// What runs along the lanes.
    lane: VarId,
    size: usize,
    width: usize,
    /// The result's variables that are written out.
    taps: Vec<VarId>,
    /// The others.
    outer: Vec<VarId>,
    /// The summed variables but the last one.
    points: Vec<VarId>,
    /// The last summed variable, and how many of its values are taken at a time.
    last: VarId,
    steps: usize,
    /// Vectors of a row that an item takes, and in how many parts that divides a row.
    each: usize,
    lane_parts: usize,
    /// Among how many items the points are divided.
    parts: usize,
}

/// Schedules a clause whose body is such a sum, with something pointwise around it or not; false if it is not, or if it does not pay.
pub fn schedule(
    planner: &mut Planner<'_>,
    tensor: TensorId,
    clause: &Clause,
    body: &Expr,
    lane: VarId,
    site: &str,
) -> bool {
    let facts = planner.facts.clone();
    let mut sums = Vec::new();
    collect_reductions(body, &mut sums);
    sums.dedup();
    let [sum] = &sums[..] else { return false };
    let Some(columns) = recognise(&planner.view, &facts, clause, sum, lane) else { return false };
    let view = &mut planner.view;
    let alone = matches!(&*body.node, Node::Reduce(_));
    if columns.parts == 1 && alone {
        let (kernel, tensors) = columns.emit(view, tensor, &|_, at| at.to_vec(), clause);
        planner.launch(kernel, tensors, site);
        return true;
    }
    // Partial results, or the sums that something is around: a row for each part, the lanes last.
    let part = atom(&mut view.axes, "part", columns.parts);
    let order: Vec<VarId> = clause.vars.iter().copied().filter(|&v| v != lane).chain([lane]).collect();
    let dims = [part].into_iter().chain(order.iter().map(|&v| view.function.var(v).axis)).collect();
    let name = format!("{}.parts", view.name(tensor));
    let partial = view.function.new_tensor(name, Elem::F32, dims, None);
    let own = Clause { at: order.iter().map(|&v| v.into()).collect(), ..clause.clone() };
    let with = |part: &Index, at: &[Index]| [part.clone()].into_iter().chain(at.iter().cloned()).collect();
    let (kernel, tensors) = columns.emit(view, partial, &with, &own);
    let number = view.function.new_var("part", part);
    let read = |part: &Index| Expr::read(Elem::F32, partial, with(part, &own.at));
    let whole = match columns.parts {
        1 => read(&0.into()),
        _ => Expr::reduce(Monoid::Sum, vec![number], Pred::True, read(&number.into())),
    };
    let second = Clause { body: replace_reduction(body, sum, &whole), ..clause.clone() };
    planner.launch(kernel, tensors, site);
    tile::schedule(planner, tensor, &second, site);
    true
}

fn recognise(view: &View<'_>, facts: &Facts, clause: &Clause, sum: &Reduction, lane: VarId) -> Option<Columns> {
    if sum.op != Monoid::Sum || !sum.body.elem.is_float() || has_reduce(&sum.body) || sum.guard.uses(lane) {
        return None;
    }
    let (&last, points) = sum.vars.split_last()?;
    let (group, size) = lane_group(view, facts, clause, lane);
    let width = pow2(size.min(facts.lanes));
    let reads = loads(view, &sum.body);
    if group != [lane] || size <= VECTORS * width || !reads.iter().all(|l| !l.uses(lane) || l.runs_along(lane)) {
        return None;
    }
    let count = |vars: &[VarId]| vars.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
    let all = count(&sum.vars);
    let bytes = all * size * 4;
    let mut others: Vec<VarId> = clause.vars.iter().copied().filter(|&v| v != lane).collect();
    // In something that is read every point has a row of its own, or every result and point.
    let rows = reads.iter().filter(|l| l.uses(lane) && sum.vars.iter().all(|&v| l.uses(v)));
    let results = |l: &Load| count(&others.iter().copied().filter(|&v| l.uses(v)).collect::<Vec<_>>());
    let most = rows.map(results).min()?;
    if all < POINTS || !facts.has_near_memory() || bytes * most < FAR * facts.local_bytes {
        return None;
    }
    let mut taps = Vec::new();
    while let Some(&v) = others.last()
        && count(&taps) * view.size_of(v) as usize <= TAPS
    {
        taps.insert(0, v);
        others.pop();
    }
    // What results share of the rows a register tile reads once for all of them.
    if reads.iter().any(|l| l.uses(lane) && others.iter().any(|&v| view.size_of(v) > 1 && !l.uses(v))) {
        return None;
    }
    let sums = count(&taps);
    let most = (WRITTEN_OUT / sums).clamp(1, STEPS);
    let long = view.size_of(last) as usize;
    // As many as leave no rest, or the smallest one.
    let steps = (most.div_ceil(2)..=most.min(long)).rev().min_by_key(|&n| long.div_ceil(n) * n).unwrap_or(long);
    let tiles = size.div_ceil(width);
    let room = (facts.local_bytes / 3 / (sums * width * 4)).max(1);
    let lane_parts = tiles.div_ceil(room);
    let items = ITEMS / (count(&others) * lane_parts);
    let blocks = count(points) * long.div_ceil(steps);
    let parts = items.min(bytes / (sums * size * 4 * SHARE)).min(blocks).max(1);
    Some(Columns {
        sum: sum.clone(),
        lane,
        size,
        width,
        taps,
        outer: others,
        points: points.to_vec(),
        last,
        steps,
        each: tiles.div_ceil(lane_parts),
        lane_parts,
        parts,
    })
}

impl Columns {
    /// The kernel that stores each part's sums at `place(part, at)`, `at` being the clause's.
    fn emit(
        &self,
        view: &mut View<'_>,
        tensor: TensorId,
        place: &dyn Fn(&Index, &[Index]) -> Vec<Index>,
        clause: &Clause,
    ) -> (Kernel, Vec<TensorId>) {
        let size = |view: &View<'_>, v: VarId| view.size_of(v) as usize;
        let long = size(view, self.last);
        let exact = long.is_multiple_of(self.steps);
        let lane = view.var("lane", self.size - self.width + 1);
        let step = view.var("step", if exact { long - self.steps + 1 } else { long });
        let part = view.var("part", self.parts);
        view.aligned_lane = self.size.is_multiple_of(self.width).then_some(lane);
        let sums: usize = self.taps.iter().map(|&v| size(view, v)).product();

        // The values of the written-out variables, one tap after the other.
        let tap = |view: &View<'_>, v: VarId, n: usize| {
            let k = self.taps.iter().position(|&t| t == v)?;
            let below: usize = self.taps[k + 1..].iter().map(|&t| size(view, t)).product();
            Some(Index::from((n / below % size(view, v)) as i64))
        };
        let mut terms = Vec::new();
        for s in 0..self.steps {
            let at = Index::from(step).plus(s as i64);
            let reductions = (0..sums).map(|n| {
                let f = |v: VarId| match v {
                    v if v == self.last => Some(at.clone()),
                    v if v == self.lane => Some(lane.into()),
                    v => tap(view, v, n),
                };
                let guard = self.sum.guard.subst(&f, view);
                let inside = if exact { Pred::True } else { Pred::within(&at, 0, long as i64, view) };
                let body = self.sum.body.subst_vars(&f, view);
                Reduction { op: Monoid::Sum, vars: Vec::new(), guard: Pred::and([inside, guard]), body }
            });
            terms.push(reductions.collect::<Vec<_>>());
        }
        // Where all conditions hold that the lanes share, which is nearly everywhere, nothing else is asked at every vector.
        let mut conditions = Vec::new();
        let plain: Vec<Vec<Reduction>> = (terms.iter())
            .map(|terms| terms.iter().map(|r| self.unconditional(view, r, lane, &mut conditions)).collect())
            .collect();
        let conditions = Pred::and(conditions);
        let stores: Vec<Vec<Index>> = (0..sums)
            .map(|n| {
                let f = |v: VarId| if v == self.lane { Some(lane.into()) } else { tap(view, v, n) };
                let at: Vec<Index> = clause.at.iter().map(|i| i.subst(&f, view)).collect();
                place(&part.into(), &at)
            })
            .collect();
        let held = atom(&mut view.axes, "sums", self.each * sums);
        let held = view.function.new_tensor("sums", Elem::F32, vec![held], None);

        let name = view.name(tensor);
        let view = &*view;
        let mut s = Scope::new(name, view, self.width as u8);
        s.lane_var = Some(lane);
        let vector = Type { elem: Elem::F32, lanes: self.width as u8 };
        s.local(held, vector);
        let outer: usize = self.outer.iter().map(|&v| size(view, v)).product();
        s.kernel.items = (self.lane_parts * outer * self.parts) as u32;
        let item = s.item();
        let (row_part, mut rest) = s.split_item(item, self.lane_parts);
        let tiles = self.size.div_ceil(self.width);
        let first = s.tile_start(row_part, self.each, tiles);
        for &v in self.outer.iter().rev() {
            let (value, left) = s.split_item(rest, size(view, v));
            s.bind(v, value);
            rest = left;
        }
        s.bind(part, rest);
        let zero = s.op(Op::Const(0f64.to_bits()), Type { lanes: 1, ..vector });
        let zero = s.widen(zero);
        s.count(self.each * sums, |s, at| s.store_local_at(held, at, zero));
        let row = |s: &mut Scope<'_>, f: &mut dyn FnMut(&mut Scope<'_>, &[ValueId])| {
            s.count(self.each, |s, counter| {
                let number = s.int_op(BinaryOp::Add, first, counter);
                let start = s.tile_start(number, self.width, self.size);
                s.bind(lane, start);
                let offset = s.int(sums as i64);
                let offset = s.int_op(BinaryOp::Mul, counter, offset);
                let places: Vec<ValueId> = (0..sums)
                    .map(|n| {
                        let n = s.int(n as i64);
                        s.int_op(BinaryOp::Add, offset, n)
                    })
                    .collect();
                f(s, &places);
            });
        };
        let add = |s: &mut Scope<'_>, terms: &[Vec<Reduction>]| {
            row(s, &mut |s, places| {
                let before: Vec<ValueId> = places.iter().map(|&at| s.load_local_at(held, at)).collect();
                let regs: Vec<_> = before.into_iter().map(|value| s.reg(value)).collect();
                for terms in terms {
                    s.accumulate_under(&terms.iter().collect::<Vec<_>>(), &regs, &[]);
                }
                for (&at, &reg) in places.iter().zip(&regs) {
                    let value = s.op(Op::Get(reg), vector);
                    s.store_local_at(held, at, value);
                }
            });
        };
        let blocks = long.div_ceil(self.steps);
        let all = blocks * self.points.iter().map(|&v| size(view, v)).product::<usize>();
        let chunk = all.div_ceil(self.parts);
        let length = s.int(chunk as i64);
        let begin = s.int_op(BinaryOp::Mul, rest, length);
        s.count(chunk, |s, n| {
            let n = s.int_op(BinaryOp::Add, begin, n);
            let block = |s: &mut Scope<'_>| {
                let (block, mut rest) = s.split_item(n, blocks);
                let steps = s.int(self.steps as i64);
                let start = s.int_op(BinaryOp::Mul, block, steps);
                s.bind(step, start);
                for &v in self.points.iter().rev() {
                    let (value, left) = s.split_item(rest, size(view, v));
                    s.bind(v, value);
                    rest = left;
                }
                if conditions == Pred::True {
                    return add(s, &terms);
                }
                let cond = s.test(&conditions);
                let (then, ()) = s.block(|s| add(s, &plain));
                let (otherwise, ()) = s.block(|s| add(s, &terms));
                s.push(Stmt::If { cond, then, otherwise });
            };
            if all.is_multiple_of(self.parts) {
                return block(s);
            }
            let end = s.int(all as i64);
            let cond = s.binary(BinaryOp::Lt, n, end);
            let (then, ()) = s.block(block);
            s.push(Stmt::If { cond, then, otherwise: Vec::new() });
        });
        row(&mut s, &mut |s, places| {
            for (&from, to) in places.iter().zip(&stores) {
                let value = s.load_local_at(held, from);
                s.store(tensor, to, value);
            }
        });
        s.finish()
    }

    /// A term without the conditions that the lanes share, which are listed.
    fn unconditional(&self, view: &View<'_>, r: &Reduction, lane: VarId, conditions: &mut Vec<Pred>) -> Reduction {
        let shared = |p: &Pred| !p.uses(lane);
        conditions.push(r.guard.clone());
        let body = assume(view, &r.body, &shared, conditions);
        Reduction { op: r.op, vars: Vec::new(), guard: Pred::True, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Program, UnaryOp};
    use crate::schedule::schedule;
    use crate::testing::{Make, arguments, check_schedule, rd};

    /// The gradient of a depthwise convolution's weights, with something applied to what is read.
    fn depthwise(b: usize, (gy, gx): (usize, usize), c: usize, kernel: usize, relu: bool) -> Program {
        let mut m = Make::new();
        let (x, z) = (m.input("x", &[b, gy, gx, c]), m.input("z", &[b, gy, gx, c]));
        let [p, row, col, j, u, v] = [b, gy, gx, c, kernel, kernel].map(|size| m.var(size));
        let place = |a: VarId, b: VarId| Index::from(a).add(&b.into()).plus(-(kernel as i64 / 2));
        let at = vec![p.into(), place(row, u), place(col, v), j.into()];
        let mut read = Expr::read_or_zero(Elem::F32, x, at);
        let other = rd(z, &[p, row, col, j]);
        if relu {
            // A condition of every lane's own.
            let positive = Pred::Value(Expr::binary(BinaryOp::Gt, other.clone(), Expr::constant(Elem::F32, 0.0)));
            read = Expr::select(positive, read, Expr::constant(Elem::F32, 0.25));
        }
        let body = Expr::mul(other, read);
        let y = m.def("y", &[j, u, v], Expr::sum(vec![p, row, col], Pred::True, body));
        m.result(y);
        m.program()
    }

    /// Checks a program's schedule, and whether its sums wait in local arrays.
    fn holds(program: &Program, expected: bool) {
        let facts = Facts { lanes: 16, local_bytes: 48 << 10, registers: 29, ..Facts::USUAL };
        let graph = schedule(program, &facts);
        let held = graph.kernels.iter().any(|k| k.locals.iter().any(|l| l.name == "sums"));
        assert_eq!(held, expected, "{}", graph.kernels.iter().map(|k| k.to_string()).collect::<String>());
        check_schedule(program, &arguments(program));
    }

    #[test]
    fn depthwise_weights() {
        // Rows that are no multiple of a vector, grids that are no multiple of the steps, more sums than are held at a time.
        for (b, grid, c, kernel, relu) in [
            (3, (29, 17), 100, 3, false),
            (1, (13, 14), 700, 3, false),
            (1, (13, 14), 700, 3, true),
            (2, (1, 97), 651, 1, false),
            (1, (23, 8), 673, 5, true),
        ] {
            holds(&depthwise(b, grid, c, kernel, relu), kernel < 5);
        }
        holds(&depthwise(1, (9, 9), 100, 3, false), false);
    }

    #[test]
    fn a_sum_of_one_variable_under_a_guard() {
        let (n, c) = (1531, 83);
        let mut m = Make::new();
        let (x, w) = (m.input("x", &[n, c]), m.input("w", &[n]));
        let (i, j) = (m.var(n), m.var(c));
        let body = Expr::mul(Expr::unary(UnaryOp::Tanh, rd(x, &[i, j])), rd(w, &[i]));
        let y = m.def("y", &[j], Expr::sum(vec![i], Pred::NonNeg(Index::from(i).plus(-7)), body));
        m.result(y);
        holds(&m.program(), true);
    }

    #[test]
    fn what_results_share_is_no_such_sum() {
        let (n, o, c) = (1500, 40, 96);
        let mut m = Make::new();
        let (x, z) = (m.input("x", &[n, c]), m.input("z", &[n, o]));
        let [i, j, k] = [o, c, n].map(|size| m.var(size));
        let y = m.def("y", &[i, j], Expr::sum(vec![k], Pred::True, Expr::mul(rd(x, &[k, j]), rd(z, &[k, i]))));
        m.result(y);
        let facts = Facts { lanes: 16, local_bytes: 48 << 10, registers: 29, ..Facts::USUAL };
        let graph = schedule(&m.program(), &facts);
        assert!(graph.kernels.iter().all(|k| !k.name.ends_with(".parts")));
    }
}
