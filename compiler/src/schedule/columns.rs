//! The schedule of long sums down the columns of memory: the gradients of depthwise weights, of biases and scales.
//!
//! `w[c, t] = sum(p) a[p, c] * b[p + t, c]` finds a row of many `c` side by side at each of very many points `p`. A register tile would take a few
//! elements of every row, one row after the other: a jump through memory at each point, which no machine foresees. Here a work item goes along the
//! rows, a few points at a time, so that memory is read in order; what it adds up waits in a local array, all `t` of a vector of `c` one after the
//! other. Items take parts of the points, and a second kernel adds what they found; the order of the additions depends on no device. Sums over the same
//! points that read something in common (the gradients of a convolution's weight and bias, of a norm's scale and shift) go down the columns together.

use super::along::{collect_reductions, has_reduce, replace_reduction};
use super::assume::assume;
use super::emit::Scope;
use super::expand::View;
use super::loads::{Load, Work, choose_lane, lane_group, loads, pow2};
use super::soon::{self, Next};
use super::{Facts, Planner, tile};
use crate::ir::index::Sizes;
use crate::ir::{
    BinaryOp, Clause, Definition, Elem, Expr, Index, Monoid, Node, Pred, Reduction, TensorId, VarId, atom,
};
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
/// What was read so many elements ahead of something else, a few rows of points ago, is still near.
const BEHIND: i64 = 1 << 17;
/// How many times more is read than partial results are written.
const SHARE: usize = 8;

/// A sum, and which of its result's variables are written out.
#[derive(Clone)]
struct Sum {
    reduction: Reduction,
    taps: Vec<VarId>,
}

/// Sums down the same columns, and how their kernel goes about it.
#[derive(Clone)]
pub struct Columns {
    sums: Vec<Sum>,
    /// What runs along the lanes.
    lane: VarId,
    size: usize,
    width: usize,
    /// The results' variables that are not written out.
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
    let clause = Clause { body: body.clone(), ..clause.clone() };
    launch(planner, &columns, &[(tensor, clause)], site);
    true
}

/// Schedules definitions that were found to be sums down the same columns: together, or by themselves if what a kernel may use has become less since.
pub fn schedule_together(planner: &mut Planner<'_>, definitions: &[&Definition], site: &str) {
    let facts = planner.facts.clone();
    let mut all: Option<Columns> = None;
    let mut members = Vec::new();
    for d in definitions {
        let found = whole_sum(&mut planner.view, &facts, d);
        let joined = found.and_then(|(columns, clause)| match &all {
            None => Some((columns, clause)),
            Some(first) => first.with(&planner.view, &facts, &columns, &clause),
        });
        let Some((columns, clause)) = joined else {
            return definitions.iter().for_each(|d| tile::schedule(planner, d.tensor, &d.clauses[0], site));
        };
        all = Some(columns);
        members.push((d.tensor, clause));
    }
    if let Some(columns) = all {
        launch(planner, &columns, &members, site);
    }
}

/// A definition that is nothing but a sum down columns, with its clause written out.
pub fn whole_sum(view: &mut View<'_>, facts: &Facts, d: &Definition) -> Option<(Columns, Clause)> {
    let [clause] = &d.clauses[..] else { return None };
    if !facts.has_near_memory() || !matches!(&*clause.body.node, Node::Reduce(_)) {
        return None;
    }
    let body = view.expand(&clause.body, &mut |_, _, _| None);
    let body = tile::without_single(view, &body);
    let Node::Reduce(sum) = &*body.node else { return None };
    let reads = loads(view, &body);
    let work = Work::of(view, clause, &body);
    let lane = choose_lane(view, facts, d.tensor, clause, &reads, work)?;
    let columns = recognise(view, facts, clause, sum, lane)?;
    Some((columns, Clause { body, ..clause.clone() }))
}

/// Whether sums over so many points to a row of so many results are worth a kernel that goes along the rows.
pub fn pays(facts: &Facts, points: usize, row: usize) -> bool {
    let width = pow2(row.min(facts.lanes));
    facts.has_near_memory() && points >= POINTS && row > VECTORS * width && points * row * 4 >= FAR * facts.local_bytes
}

/// Launches the kernel of sums, and those of what becomes of them: the results of the parts added up, with what is around them.
fn launch(planner: &mut Planner<'_>, columns: &Columns, members: &[(TensorId, Clause)], site: &str) {
    let view = &mut planner.view;
    if columns.parts == 1 && members.iter().all(|(_, c)| matches!(&*c.body.node, Node::Reduce(_))) {
        let results: Vec<_> = members.iter().map(|(t, clause)| (*t, clause.clone())).collect();
        let (kernel, tensors) = columns.emit(view, &results, &|_, at| at.to_vec());
        return planner.launch(kernel, tensors, site);
    }
    // Partial results, or the sums that something is around: a row for each part, the lanes last.
    let part = atom(&mut view.axes, "part", columns.parts);
    let number = view.function.new_var("part", part);
    let with = |part: &Index, at: &[Index]| [part.clone()].into_iter().chain(at.iter().cloned()).collect();
    let (mut partials, mut seconds) = (Vec::new(), Vec::new());
    for ((tensor, clause), sum) in members.iter().zip(&columns.sums) {
        let order: Vec<VarId> =
            clause.vars.iter().copied().filter(|&v| v != columns.lane).chain([columns.lane]).collect();
        let dims = [part].into_iter().chain(order.iter().map(|&v| view.function.var(v).axis)).collect();
        let name = format!("{}.parts", view.name(*tensor));
        let partial = view.function.new_tensor(name, Elem::F32, dims, None);
        let own = Clause { at: order.iter().map(|&v| v.into()).collect(), ..clause.clone() };
        let read = |part: &Index| Expr::read(Elem::F32, partial, with(part, &own.at));
        let whole = match columns.parts {
            1 => read(&0.into()),
            _ => Expr::reduce(Monoid::Sum, vec![number], Pred::True, read(&number.into())),
        };
        let body = replace_reduction(&clause.body, &sum.reduction, &whole);
        seconds.push((*tensor, Clause { body, ..clause.clone() }));
        partials.push((partial, own));
    }
    let (kernel, tensors) = columns.emit(view, &partials, &with);
    planner.launch(kernel, tensors, site);
    seconds.iter().for_each(|(tensor, clause)| tile::schedule(planner, *tensor, clause, site));
}

fn recognise(view: &View<'_>, facts: &Facts, clause: &Clause, sum: &Reduction, lane: VarId) -> Option<Columns> {
    if sum.op != Monoid::Sum || !sum.body.elem.is_float() || has_reduce(&sum.body) || sum.guard.uses(lane) {
        return None;
    }
    let (&last, points) = sum.vars.split_last()?;
    let (group, size) = lane_group(view, facts, clause, lane);
    let width = pow2(size.min(facts.lanes));
    let reads = loads(view, &sum.body);
    if group != [lane] || !reads.iter().all(|l| !l.uses(lane) || l.runs_along(lane)) {
        return None;
    }
    let count = |vars: &[VarId]| vars.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
    let all = count(&sum.vars);
    let mut outer: Vec<VarId> = clause.vars.iter().copied().filter(|&v| v != lane).collect();
    // In something that is read every point has a row of its own, or every result and point.
    let rows = reads.iter().filter(|l| l.uses(lane) && sum.vars.iter().all(|&v| l.uses(v)));
    let results = |l: &Load| count(&outer.iter().copied().filter(|&v| l.uses(v)).collect::<Vec<_>>());
    let most = rows.map(results).min()?;
    if all < POINTS || !pays(facts, all * most, size) {
        return None;
    }
    let mut taps = Vec::new();
    while let Some(&v) = outer.last()
        && count(&taps) * view.size_of(v) as usize <= TAPS
    {
        taps.insert(0, v);
        outer.pop();
    }
    // What results share of the rows a register tile reads once for all of them.
    if reads.iter().any(|l| l.uses(lane) && outer.iter().any(|&v| view.size_of(v) > 1 && !l.uses(v))) {
        return None;
    }
    let sums = vec![Sum { reduction: sum.clone(), taps }];
    let points = points.to_vec();
    let columns = Columns { sums, lane, size, width, outer, points, last, steps: 1, each: 1, lane_parts: 1, parts: 1 };
    Some(columns.divided(view, facts))
}

impl Columns {
    /// The numbers of steps, vectors and parts for its sums.
    fn divided(self, view: &View<'_>, facts: &Facts) -> Columns {
        let count = |vars: &[VarId]| vars.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
        let sums: usize = self.sums.iter().map(|sum| count(&sum.taps)).sum();
        let most = (WRITTEN_OUT / sums).clamp(1, STEPS);
        let long = view.size_of(self.last) as usize;
        // As many as leave no rest, or the smallest one.
        let steps = (most.div_ceil(2)..=most.min(long)).rev().min_by_key(|&n| long.div_ceil(n) * n).unwrap_or(long);
        let tiles = self.size.div_ceil(self.width);
        let room = (facts.local_bytes / 3 / (sums * self.width * 4)).max(1);
        let lane_parts = tiles.div_ceil(room);
        let items = ITEMS / (count(&self.outer) * lane_parts);
        let (rows, blocks) = (count(&self.points) * long, count(&self.points) * long.div_ceil(steps));
        let parts = items.min(rows / (sums * SHARE)).min(blocks).max(1);
        Columns { steps, each: tiles.div_ceil(lane_parts), lane_parts, parts, ..self }
    }

    /// With the sum of another one, its clause in this one's variables, if it goes down the same columns and reads an element that this one reads.
    pub fn with(&self, view: &View<'_>, facts: &Facts, other: &Columns, clause: &Clause) -> Option<(Columns, Clause)> {
        let [sum] = &other.sums[..] else { return None };
        let vars =
            |c: &Columns| -> Vec<VarId> { c.outer.iter().chain(&c.points).copied().chain([c.last, c.lane]).collect() };
        let (mine, others) = (vars(self), vars(other));
        let alike = mine.len() == others.len()
            && self.outer.len() == other.outer.len()
            && mine.iter().zip(&others).all(|(&a, &b)| view.size_of(a) == view.size_of(b));
        let taps = |sum: &Sum| sum.taps.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
        if !alike || self.sums.iter().map(taps).sum::<usize>() + taps(sum) > TAPS {
            return None;
        }
        let f = |v: VarId| others.iter().position(|&w| w == v).map(|n| mine[n].into());
        let renamed = |v: &VarId| others.iter().position(|w| w == v).map_or(*v, |n| mine[n]);
        let reduction = Reduction {
            vars: sum.reduction.vars.iter().map(renamed).collect(),
            guard: sum.reduction.guard.subst(&f, view),
            body: sum.reduction.body.subst_vars(&f, view),
            ..sum.reduction
        };
        let known: Vec<Load> = self.sums.iter().flat_map(|sum| loads(view, &sum.reduction.body)).collect();
        let shared = |l: &Load| known.iter().any(|k| k.tensor == l.tensor && k.address == l.address);
        if !loads(view, &reduction.body).iter().any(|l| l.uses(self.lane) && shared(l)) {
            return None;
        }
        let at = clause.at.iter().map(|i| i.subst(&f, view)).collect();
        let body = Expr::new(reduction.body.elem, Node::Reduce(reduction.clone()));
        let clause = Clause { vars: clause.vars.iter().map(renamed).collect(), at, body };
        let mut sums = self.sums.clone();
        sums.push(Sum { reduction, taps: sum.taps.clone() });
        Some((Columns { sums, ..self.clone() }.divided(view, facts), clause))
    }

    /// The kernel that stores each part's sums at `place(part, at)`, `at` being those of the results' clauses.
    fn emit(
        &self,
        view: &mut View<'_>,
        results: &[(TensorId, Clause)],
        place: &dyn Fn(&Index, &[Index]) -> Vec<Index>,
    ) -> (Kernel, Vec<TensorId>) {
        let size = |view: &View<'_>, v: VarId| view.size_of(v) as usize;
        let long = size(view, self.last);
        let exact = long.is_multiple_of(self.steps);
        let lane = view.var("lane", self.size - self.width + 1);
        let step = view.var("step", if exact { long - self.steps + 1 } else { long });
        let part = view.var("part", self.parts);
        view.aligned_lane = self.size.is_multiple_of(self.width).then_some(lane);

        // The values of the written-out variables, one tap after the other.
        let tap = |view: &View<'_>, taps: &[VarId], v: VarId, n: usize| {
            let k = taps.iter().position(|&t| t == v)?;
            let below: usize = taps[k + 1..].iter().map(|&t| size(view, t)).product();
            Some(Index::from((n / below % size(view, v)) as i64))
        };
        let taps = |view: &View<'_>, sum: &Sum| sum.taps.iter().map(|&v| size(view, v)).product::<usize>();
        // Of every step, of every sum, a term for each tap.
        let mut terms: Vec<Vec<Vec<Reduction>>> = Vec::new();
        for s in 0..self.steps {
            let at = Index::from(step).plus(s as i64);
            let of = |sum: &Sum| {
                let one = |n: usize| {
                    let f = |v: VarId| match v {
                        v if v == self.last => Some(at.clone()),
                        v if v == self.lane => Some(lane.into()),
                        v => tap(view, &sum.taps, v, n),
                    };
                    let guard = sum.reduction.guard.subst(&f, view);
                    let inside = if exact { Pred::True } else { Pred::within(&at, 0, long as i64, view) };
                    let body = sum.reduction.body.subst_vars(&f, view);
                    Reduction { op: Monoid::Sum, vars: Vec::new(), guard: Pred::and([inside, guard]), body }
                };
                (0..taps(view, sum)).map(one).collect()
            };
            terms.push(self.sums.iter().map(of).collect());
        }
        // Where all conditions hold that the lanes share, which is nearly everywhere, nothing else is asked at every vector.
        let mut conditions = Vec::new();
        let mut plain = terms.clone();
        for r in plain.iter_mut().flatten().flatten() {
            *r = self.unconditional(view, r, lane, &mut conditions);
        }
        let conditions = Pred::and(conditions);
        let values: Vec<Expr> = terms.iter().flatten().flatten().map(|r| r.body.clone()).collect();
        let then = self.points.last().map(|&v| (v, 1));
        let next = Next { step: (step, self.steps), then, tiles: 1, behind: BEHIND };
        let soon = soon::after(view, &values, self.width, next);
        let mut stores: Vec<(TensorId, Vec<Index>)> = Vec::new();
        for (sum, (tensor, clause)) in self.sums.iter().zip(results) {
            for n in 0..taps(view, sum) {
                let f = |v: VarId| if v == self.lane { Some(lane.into()) } else { tap(view, &sum.taps, v, n) };
                let at: Vec<Index> = clause.at.iter().map(|i| i.subst(&f, view)).collect();
                stores.push((*tensor, place(&part.into(), &at)));
            }
        }
        let sums = stores.len();
        let held = atom(&mut view.axes, "sums", self.each * sums);
        let held = view.function.new_tensor("sums", Elem::F32, vec![held], None);

        let name = view.name(results[0].0);
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
        let add = |s: &mut Scope<'_>, terms: &[Vec<Vec<Reduction>>]| {
            row(s, &mut |s, places| {
                soon.iter().for_each(|(tensor, address)| s.prefetch(*tensor, address));
                let before: Vec<ValueId> = places.iter().map(|&at| s.load_local_at(held, at)).collect();
                let regs: Vec<_> = before.into_iter().map(|value| s.reg(value)).collect();
                for terms in terms {
                    let mut regs = &regs[..];
                    for terms in terms {
                        let (own, others) = regs.split_at(terms.len());
                        s.accumulate_under(&terms.iter().collect::<Vec<_>>(), own, &[]);
                        regs = others;
                    }
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
            for (&from, (tensor, to)) in places.iter().zip(&stores) {
                let value = s.load_local_at(held, from);
                s.store(*tensor, to, value);
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
    fn sums_over_the_same_points_go_together() {
        // The gradients of a depthwise convolution's weight and bias, of a norm's scale and shift.
        for (b, (gy, gx), c) in [(5, (29, 17), 131), (4, (28, 28), 144), (3, (37, 31), 200)] {
            let mut m = Make::new();
            let (x, z) = (m.input("x", &[b, gy, gx, c]), m.input("z", &[b, gy, gx, c]));
            let mean = m.input("mean", &[b, gy, gx]);
            let mut point = || [b, gy, gx, c].map(|size| m.var(size));
            let [first, second, third, fourth] = [point(), point(), point(), point()];
            let at = |[p, row, col, j]: [VarId; 4]| vec![p.into(), row.into(), col.into(), j.into()];
            let whole = |x, vars| Expr::read(Elem::F32, x, at(vars));
            let sum = |[p, row, col, _]: [VarId; 4], body| Expr::sum(vec![p, row, col], Pred::True, body);

            let [p, row, col, j] = first;
            let (u, v) = (m.var(3), m.var(3));
            let place = |a: VarId, b: VarId| Index::from(a).add(&b.into()).plus(-1);
            let shifted = Expr::read_or_zero(Elem::F32, x, vec![p.into(), place(row, u), place(col, v), j.into()]);
            let weight = m.def("weight", &[j, u, v], sum(first, Expr::mul(whole(z, first), shifted)));
            let bias = m.def("bias", &[second[3]], sum(second, whole(z, second)));
            let [p, row, col, j] = third;
            let centred = Expr::sub(whole(x, third), rd(mean, &[p, row, col]));
            let scale = m.def("scale", &[j], sum(third, Expr::mul(whole(x, third), centred)));
            let shift = m.def("shift", &[fourth[3]], sum(fourth, whole(x, fourth)));
            [weight, bias, scale, shift].into_iter().for_each(|t| m.result(t));
            let program = m.program();
            let facts = Facts { lanes: 16, local_bytes: 48 << 10, registers: 29, ..Facts::USUAL };
            let graph = schedule(&program, &facts);
            let held: Vec<_> = graph.kernels.iter().filter(|k| k.locals.iter().any(|l| l.name == "sums")).collect();
            let text: String = graph.kernels.iter().map(|k| k.to_string()).collect();
            assert_eq!(held.len(), 2, "{text}");
            assert!(held.iter().all(|k| k.to_string().matches("  out b").count() == 2), "{text}");
            check_schedule(&program, &arguments(&program));
        }
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
