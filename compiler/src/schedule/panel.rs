//! The schedule of contractions: sums of products in which one factor belongs to the lanes and the other to an unrolled index.
//!
//! A work item goes through many register tiles with one *panel*: the lane factor at all summed points, evaluated once, kept vector by vector in a
//! local array. Whatever an element of it costs to get (a transposed weight, a padded border, a product of several tensors) is paid once, and the
//! inner loop reads neighbouring vectors. A sum too long for the local array is done in chunks; between them the tiles keep their sums in a second
//! local array. The order of the additions is that of the summed indices, whatever the chunks.
//!
//! Where the other factor's neighbours along the unrolled variable lie side by side, going down its summed points one element at a time would wait for
//! memory at each. Then the item takes its part of every row of it along, vector by vector, into a third local array.

use super::Facts;
use super::emit::{Scope, stored_elem};
use super::expand::View;
use super::tile::{self, Place};
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Bounds, Clause, Expr, Index, Monoid, Node, Pred, Reduction, TensorId, VarId, atom};
use crate::loops::{Kernel, Op, RegId, Stmt, Type, ValueId};

/// Where a work item has less private memory than this, it is not in a fast cache.
const LEAST: usize = 32 << 10;
/// Register tiles that a panel serves at least.
const TILES: usize = 4;
/// Bytes of the unrolled factor that an item goes through, so that all panels find them in a cache near the core.
const NEAR: usize = 1 << 20;
/// Items a unit, so that units that are slower or come late matter little.
const ITEMS: usize = 8;
/// Inner loops of no more steps than this are written out.
const WRITTEN_OUT: i64 = 8;
/// The fewest summed points for which a panel is made.
const POINTS: usize = 8;

/// A sum of products, taken apart.
struct Contraction {
    /// The summed variables.
    vars: Vec<VarId>,
    /// The product of the factors that the unrolled variable leaves alone.
    panel: Expr,
    /// The product of the others, the same in all lanes.
    own: Expr,
    /// The unrolled variable.
    unrolled: VarId,
    /// The whole body, with a read of `sum` in the sum's place.
    around: Expr,
    /// Stands for the finished sum.
    sum: TensorId,
}

/// The summed points, in the order in which they are added: chunks, and what is in one.
struct Chunks {
    /// Variables that only change between chunks.
    outer: Vec<VarId>,
    /// The variable of which a chunk has a block: itself, the block's length, the number of blocks.
    split: Option<(VarId, usize, usize)>,
    /// Variables that a chunk has whole.
    inner: Vec<VarId>,
    /// Points of a chunk.
    points: usize,
}

/// The kernel of a clause whose body is one contraction with something pointwise around it; `None` if it is not, or if panels do not pay.
pub fn schedule(
    view: &mut View<'_>,
    facts: &Facts,
    tensor: TensorId,
    clause: &Clause,
    body: &Expr,
    lane: VarId,
) -> Option<(Kernel, Vec<TensorId>)> {
    if facts.local_bytes < LEAST {
        return None;
    }
    let (group, size) = tile::lane_group(view, facts, clause, lane);
    let width = tile::pow2(size.min(facts.lanes));
    let mut parts = recognise(view, clause, body, &group)?;
    let long = view.size_of(parts.unrolled) as usize;
    let (vectors, unroll) = tile::register_tile(facts, size, width, long, true);
    if unroll < 2 {
        return None;
    }
    parts.order(view);
    let vector_bytes = width * 4;
    let sums = unroll * vectors * vector_bytes;
    let chunks = Chunks::new(view, &parts.vars, vectors * vector_bytes, facts.local_bytes)?;
    let rows = parts.in_rows(view, long, width);

    // Other variables of the result: those that the panel depends on make items, the others more tiles.
    let others = clause.vars.iter().copied().filter(|v| !group.contains(v) && *v != parts.unrolled);
    let (fixed, free): (Vec<VarId>, Vec<VarId>) = others.partition(|&v| parts.panel.uses(v));
    let unroll_tiles = long.div_ceil(unroll);
    let tiles = free.iter().map(|&v| view.size_of(v) as usize).product::<usize>() * unroll_tiles;
    let panels = fixed.iter().map(|&v| view.size_of(v) as usize).product::<usize>() * size.div_ceil(width * vectors);
    let all_points: usize = parts.vars.iter().map(|&v| view.size_of(v) as usize).product();
    let cost = tile::panel_cost(view, &parts.panel, &group);
    let least = TILES.max((32.0 * cost / unroll as f64).ceil() as usize);
    let mut most = (NEAR / (unroll * all_points * 4)).max(least);
    if !chunks.whole() {
        most = most.min(facts.local_bytes * 2 / 3 / sums);
    }
    let rows = rows && free.is_empty();
    if rows {
        // As far as rows fit, and the sums.
        most = most.min(facts.local_bytes / 3 / chunks.points / unroll);
    }
    if tiles < least || most < least {
        return None;
    }
    // Enough items for all units, as long as a panel still serves enough tiles.
    let wanted = tiles.div_ceil((facts.units * ITEMS).div_ceil(panels));
    let each = wanted.max(least).min(most).min(tiles);
    let mut each = tiles.div_ceil(tiles.div_ceil(each));
    let span = if rows { part_of_row(long, width, each * unroll) } else { 0 };
    if rows {
        each = span.div_ceil(unroll);
    }
    let rows = rows.then_some(span);
    let emitter = Emitter { parts, chunks, group, fixed, free, size, width, vectors, unroll, tiles, each, rows };
    Some(emitter.emit(view, tensor, clause))
}

/// How much of a row an item takes along: whole vectors, no more than about `most` elements, such that few are taken along twice.
fn part_of_row(long: usize, width: usize, most: usize) -> usize {
    let fewest = long.div_ceil(most.next_multiple_of(width));
    let span = |parts: usize| long.div_ceil(parts).next_multiple_of(width);
    (fewest..fewest + 4).map(span).min_by_key(|&span| (long.div_ceil(span) * span, usize::MAX - span)).unwrap_or(long)
}

/// Takes a body apart if it is a contraction for these lanes.
fn recognise(view: &mut View<'_>, clause: &Clause, body: &Expr, lanes: &[VarId]) -> Option<Contraction> {
    let mut sums = Vec::new();
    collect_reductions(body, &mut sums);
    let [r] = sums.as_slice() else { return None };
    if r.op != Monoid::Sum || !r.body.elem.is_float() || super::along::has_reduce(&r.body) {
        return None;
    }
    if r.vars.iter().map(|&v| view.size_of(v) as usize).product::<usize>() < POINTS {
        return None;
    }
    let (mut guard, mut product) = (r.guard.clone(), r.body.clone());
    while let Node::Select(p, value, zero) = &*product.node.clone()
        && matches!(&*zero.node, Node::Const(0))
    {
        guard = Pred::and([guard, p.clone()]);
        product = value.clone();
    }
    let mut factors = Vec::new();
    super::storage::collect_factors(&product, &mut factors);
    let in_lanes = |e: &Expr| lanes.iter().any(|&v| e.uses(v));
    let (mut panel, rest): (Vec<&Expr>, Vec<&Expr>) = factors.into_iter().partition(|f| in_lanes(f));
    let unrolled = clause.vars.iter().copied().filter(|&v| {
        let alone = !lanes.contains(&v) && !panel.iter().any(|f| f.uses(v));
        alone && view.size_of(v) > 1 && rest.iter().any(|f| f.uses(v))
    });
    // A long one, and of those the one that goes through memory fastest.
    let unrolled = unrolled.enumerate().max_by_key(|&(n, v)| (view.size_of(v).min(8), n)).map(|(_, v)| v)?;
    let (own, neither): (Vec<&Expr>, Vec<&Expr>) = rest.into_iter().partition(|f| f.uses(unrolled));
    // What belongs to the panel's place in the result anyway is part of it; what changes from tile to tile is not.
    let free = |v: &VarId| !lanes.contains(v) && !panel.iter().any(|f| f.uses(*v));
    let between: Vec<VarId> = clause.vars.iter().copied().filter(free).collect();
    let (others, fixed): (Vec<&Expr>, Vec<&Expr>) =
        neither.into_iter().partition(|f| between.iter().any(|&v| f.uses(v)));
    let own: Vec<Expr> = own.into_iter().chain(others).cloned().collect();
    panel.extend(fixed);
    let panel: Vec<Expr> = panel.into_iter().cloned().collect();
    let (mut panel, mut own) = (multiply(panel)?, multiply(own)?);
    if guard != Pred::True {
        let varies = lanes.iter().any(|&v| guard.uses(v));
        if varies && between.iter().any(|&v| guard.uses(v)) {
            return None;
        }
        let target = if varies { &mut panel } else { &mut own };
        *target = Expr::select(guard, target.clone(), Expr::constant(target.elem, 0.0));
    }
    let sum = view.function.new_tensor("sum", r.body.elem, Vec::new(), None);
    let around = replace_reduction(body, &Expr::read(r.body.elem, sum, Vec::new()));
    Some(Contraction { vars: r.vars.clone(), panel, own, unrolled, around, sum })
}

fn collect_reductions(e: &Expr, out: &mut Vec<Reduction>) {
    match &*e.node {
        Node::Reduce(r) => out.push(r.clone()),
        _ => e.for_each_child(&mut |c| collect_reductions(c, out)),
    }
}

fn replace_reduction(e: &Expr, by: &Expr) -> Expr {
    match &*e.node {
        Node::Reduce(_) => by.clone(),
        _ => e.map_children(&mut |c| replace_reduction(c, by)),
    }
}

fn multiply(factors: Vec<Expr>) -> Option<Expr> {
    factors.into_iter().reduce(Expr::mul)
}

impl Contraction {
    /// Puts the summed variable last along which the other factor goes through memory.
    fn order(&mut self, view: &View<'_>) {
        let loads = tile::loads(view, &self.own);
        let along = |v: &VarId| loads.iter().any(|l| l.runs_along(*v)) && view.size_of(*v) > WRITTEN_OUT;
        if let Some(n) = self.vars.iter().rposition(along) {
            let v = self.vars.remove(n);
            self.vars.push(v);
        }
    }

    /// Whether vectors of the other factor can run along the unrolled variable, and its elements at successive points lie apart.
    fn in_rows(&self, view: &View<'_>, long: usize, width: usize) -> bool {
        let last = *self.vars.last().expect("a sum of several points has variables");
        let loads = tile::loads(view, &self.own);
        let along = loads.iter().all(|l| !l.uses(self.unrolled) || l.runs_along(self.unrolled));
        let apart = loads.iter().any(|l| l.runs_along(self.unrolled) && l.uses(last) && !l.runs_along(last));
        along && apart && long.is_multiple_of(width)
    }
}

impl Chunks {
    /// `bytes` a point in `local` bytes of memory; `None` if a chunk would be too short.
    fn new(view: &View<'_>, vars: &[VarId], bytes: usize, local: usize) -> Option<Chunks> {
        let size = |v: VarId| view.size_of(v) as usize;
        let all: usize = vars.iter().map(|&v| size(v)).product();
        if all * bytes <= local {
            return Some(Chunks { outer: Vec::new(), split: None, inner: vars.to_vec(), points: all });
        }
        // Near enough for every step; the sums and what is taken along lie further away.
        let room = local / 3 / bytes;
        let (mut points, mut k) = (1, vars.len());
        while k > 0 && points * size(vars[k - 1]) <= room {
            k -= 1;
            points *= size(vars[k]);
        }
        let (mut outer, mut split) = (vars[..k].to_vec(), None);
        let most = room / points.max(1);
        if k > 0 && most >= 2 {
            let v = outer.pop().expect("a variable that does not fit");
            let blocks = size(v).div_ceil(most);
            let block = size(v).div_ceil(blocks);
            split = Some((v, block, size(v).div_ceil(block)));
            points *= block;
        }
        (points >= POINTS * 2).then(|| Chunks { outer, split, inner: vars[k..].to_vec(), points })
    }

    /// Whether all points are one chunk.
    fn whole(&self) -> bool {
        self.outer.is_empty() && self.split.is_none()
    }
}

struct Emitter {
    parts: Contraction,
    chunks: Chunks,
    /// The lane variables, flattened row-major.
    group: Vec<VarId>,
    /// Result variables that the panel depends on.
    fixed: Vec<VarId>,
    /// Result variables that it does not depend on, the unrolled one apart.
    free: Vec<VarId>,
    /// Elements along the lanes.
    size: usize,
    width: usize,
    vectors: usize,
    unroll: usize,
    /// Register tiles of a panel, over all items.
    tiles: usize,
    /// Register tiles an item.
    each: usize,
    /// How many elements along the unrolled variable an item takes along, if it does.
    rows: Option<usize>,
}

/// What an item holds of the factor that belongs to the unrolled variable.
enum Own {
    /// Nothing: its elements are read where they are needed, an expression for each step. If all conditions in them hold, the second ones serve.
    Read(Vec<Expr>, Option<(Pred, Vec<Expr>)>),
    /// Rows of so many elements, in a local array.
    Held(TensorId, usize),
}

/// The variables of a chunk's points with how often their loops run: a number, or a value where the last block is shorter.
type Loops = Vec<(VarId, usize, Option<ValueId>)>;

impl Emitter {
    fn emit(&self, view: &mut View<'_>, tensor: TensorId, clause: &Clause) -> (Kernel, Vec<TensorId>) {
        let Emitter { parts, chunks, vectors, unroll, width, .. } = self;
        let (vectors, unroll, width) = (*vectors, *unroll, *width);
        let span = width * vectors;
        let lane = view.var("lane", self.size - (vectors - 1) * width);
        view.aligned_lane = self.size.is_multiple_of(span).then_some(lane);
        let long = view.size_of(parts.unrolled) as usize;
        let base = view.var("tile", long - unroll + 1);
        let split = chunks.split.map(|(v, block, blocks)| {
            (v, block, view.var("block", blocks), view.var(&view.function.var(v).name.clone(), block))
        });
        let panel_tensor = local_array(view, "panel", chunks.points * vectors);
        let across = view.var("across", long - width + 1);
        let rows = self.rows.map(|span| (span, local_array(view, "rows", chunks.points * span / width)));
        let sums_tensor = (!chunks.whole()).then(|| local_array(view, "sums", self.each * unroll * vectors));

        // Expressions at vector `m` and unrolled step `n`, over kernel variables.
        let place = Place { lane: Some(lane), group: &self.group, width, unrolled: Some((parts.unrolled, base)) };
        let chunked = |view: &View<'_>, e: &Expr| match split {
            Some((v, block, number, within)) => {
                let at = Index::from(number).scale(block as i64).add(&within.into());
                e.subst_vars(&|w| (w == v).then(|| at.clone()), view)
            }
            None => e.clone(),
        };
        let at = |view: &View<'_>, e: &Expr, m: usize, n: usize| {
            let map = place.at(view, m, n);
            e.subst_vars(&|v| map.get(&v).cloned(), view)
        };
        let panel: Vec<Expr> = (0..vectors).map(|m| chunked(view, &at(view, &parts.panel, m, 0))).collect();
        let own = match rows {
            Some((span, held)) => Own::Held(held, span),
            None => {
                let steps: Vec<Expr> = (0..unroll).map(|n| chunked(view, &at(view, &parts.own, 0, n))).collect();
                let plain = self.unconditional(view, &steps);
                Own::Read(steps, plain)
            }
        };
        let row = parts.own.subst_vars(&|v| (v == parts.unrolled).then(|| across.into()), view);
        let row = chunked(view, &row);
        let mut results = Vec::new();
        for n in 0..unroll {
            for m in 0..vectors {
                let map = place.at(view, m, n);
                let f = |v: VarId| map.get(&v).cloned();
                let to: Vec<Index> = clause.at.iter().map(|i| i.subst(&f, view)).collect();
                results.push((parts.around.subst_vars(&f, view), to));
            }
        }
        let name = view.name(tensor);
        let view = &*view;
        let mut s = Scope::new(name, view, width as u8);
        s.lane_var = Some(lane);
        let lane_tiles = self.size.div_ceil(span);
        let parts_of_panel = match self.rows {
            Some(span) => long.div_ceil(span),
            None => self.tiles.div_ceil(self.each),
        };
        let fixed_items: usize = self.fixed.iter().map(|&v| view.size_of(v) as usize).product();
        s.kernel.items = (lane_tiles * fixed_items * parts_of_panel) as u32;
        // Panels one after the other, so that what the tiles read stays near.
        let item = s.item();
        let (number, mut rest) = s.split_item(item, lane_tiles);
        let start = s.tile_start(number, span, self.size);
        s.bind(lane, start);
        for &v in self.fixed.iter().rev() {
            let (value, left) = s.split_item(rest, view.size_of(v) as usize);
            s.bind(v, value);
            rest = left;
        }
        let first = match self.rows {
            Some(span) => s.tile_start(rest, span, long),
            None => s.tile_start(rest, self.each, self.tiles),
        };

        let vector = Type { elem: stored_elem(parts.own.elem), lanes: width as u8 };
        s.local(panel_tensor, vector);
        if let Some((_, held)) = rows {
            s.local(held, vector);
        }
        if let Some(t) = sums_tensor {
            s.local(t, vector);
            let zero = self.zero(&mut s, vector);
            s.count(self.each * unroll * vectors, |s, at| s.store_local_at(t, at, zero));
        }
        let mut loops: Loops = Vec::new();
        chunks.outer.iter().for_each(|&v| loops.push((v, view.size_of(v) as usize, None)));
        if let Some((.., number, _)) = split {
            loops.push((number, view.size_of(number) as usize, None));
        }
        let exact: Vec<VarId> = chunks.outer.iter().chain(&chunks.inner).copied().collect();
        s.over(exact, |s| {
            nest(s, &loops, &mut |s| {
                let mut inside: Loops = Vec::new();
                if let Some((v, block, number, within)) = split {
                    inside.push((within, block, self.shorter(s, v, block, number)));
                }
                chunks.inner.iter().for_each(|&v| inside.push((v, view.size_of(v) as usize, None)));
                nest(s, &inside, &mut |s| {
                    let values = s.eval_many(&panel);
                    let at = self.point(&inside);
                    for (m, value) in values.into_iter().enumerate() {
                        s.store_local(panel_tensor, &[at.scale(vectors as i64).plus(m as i64)], value);
                    }
                });
                if let Some((span, held)) = rows {
                    s.lane_var = Some(across);
                    nest(s, &inside, &mut |s| {
                        let at = self.point(&inside).scale((span / width) as i64);
                        for n in 0..span / width {
                            let ahead = s.int((n * width) as i64);
                            let start = s.int_op(BinaryOp::Add, first, ahead);
                            s.bind(across, start);
                            let value = s.eval(&row);
                            s.store_local(held, &[at.plus(n as i64)], value);
                        }
                    });
                    s.lane_var = Some(lane);
                }
                s.count(self.each, |s, counter| {
                    let ahead = self.bind_tile(s, first, counter, base, long);
                    let offset = s.int((unroll * vectors) as i64);
                    let offset = s.int_op(BinaryOp::Mul, counter, offset);
                    let mut regs = Vec::new();
                    for n in 0..unroll * vectors {
                        let value = match sums_tensor {
                            Some(t) => {
                                let n = s.int(n as i64);
                                let at = s.int_op(BinaryOp::Add, offset, n);
                                s.load_local_at(t, at)
                            }
                            None => self.zero(s, vector),
                        };
                        regs.push(s.reg(value));
                    }
                    let (outer, last) = inside.split_at(inside.len() - 1);
                    let point = self.point(&inside);
                    nest(s, outer, &mut |s| match &own {
                        Own::Held(held, span) => nest(s, last, &mut |s| {
                            let row = s.uniform(&point.scale(*span as i64));
                            let row = s.int_op(BinaryOp::Add, row, ahead);
                            let mut element = |s: &mut Scope<'_>, n: usize| {
                                let step = s.int(n as i64);
                                let at = s.int_op(BinaryOp::Add, row, step);
                                s.load_lane(*held, at)
                            };
                            self.multiply_add(s, panel_tensor, &point, &mut element, &regs);
                        }),
                        Own::Read(steps, plain) => {
                            let sums = |s: &mut Scope<'_>, steps: &[Expr]| {
                                nest(s, last, &mut |s| {
                                    let mut element = |s: &mut Scope<'_>, n: usize| s.eval(&steps[n]);
                                    self.multiply_add(s, panel_tensor, &point, &mut element, &regs);
                                })
                            };
                            match plain {
                                None => sums(s, steps),
                                Some((pred, plain)) => {
                                    let cond = s.test(pred);
                                    let (then, ()) = s.block(|s| sums(s, plain));
                                    let (otherwise, ()) = s.block(|s| sums(s, steps));
                                    s.push(Stmt::If { cond, then, otherwise });
                                }
                            }
                        }
                    });
                    match sums_tensor {
                        Some(t) => {
                            for (n, &reg) in regs.iter().enumerate() {
                                let n = s.int(n as i64);
                                let at = s.int_op(BinaryOp::Add, offset, n);
                                let value = s.op(Op::Get(reg), vector);
                                s.store_local_at(t, at, value);
                            }
                        }
                        None => {
                            for (&reg, result) in regs.iter().zip(&results) {
                                let value = s.op(Op::Get(reg), vector);
                                self.finish(s, tensor, value, result);
                            }
                        }
                    }
                });
            })
        });
        if let Some(t) = sums_tensor {
            s.count(self.each, |s, counter| {
                self.bind_tile(s, first, counter, base, long);
                let offset = s.int((unroll * vectors) as i64);
                let offset = s.int_op(BinaryOp::Mul, counter, offset);
                for (n, result) in results.iter().enumerate() {
                    let n = s.int(n as i64);
                    let at = s.int_op(BinaryOp::Add, offset, n);
                    let value = s.load_local_at(t, at);
                    self.finish(s, tensor, value, result);
                }
            });
        }
        s.finish()
    }

    fn zero(&self, s: &mut Scope<'_>, vector: Type) -> ValueId {
        let zero = s.op(Op::Const(0f64.to_bits()), Type { lanes: 1, ..vector });
        s.widen(zero)
    }

    /// How many points of the block there are, if not all blocks have the same number.
    fn shorter(&self, s: &mut Scope<'_>, v: VarId, block: usize, number: VarId) -> Option<ValueId> {
        let size = s.view.size_of(v);
        if size % block as i64 == 0 {
            return None;
        }
        let (size, block) = (s.int(size), s.int(block as i64));
        let start = s.int_op(BinaryOp::Mul, s.value_of(number), block);
        let left = s.int_op(BinaryOp::Sub, size, start);
        Some(s.int_op(BinaryOp::Min, left, block))
    }

    /// The number of a chunk's point.
    fn point(&self, inside: &Loops) -> Index {
        inside.iter().fold(Index::default(), |sum, (v, size, _)| sum.scale(*size as i64).add(&(*v).into()))
    }

    /// Binds the variables of a register tile; gives how far into the rows that are held it begins.
    fn bind_tile(&self, s: &mut Scope<'_>, first: ValueId, counter: ValueId, base: VarId, long: usize) -> ValueId {
        if let Some(span) = self.rows {
            let ahead = s.tile_start(counter, self.unroll, span);
            let start = s.int_op(BinaryOp::Add, first, ahead);
            s.bind(base, start);
            return ahead;
        }
        let number = s.int_op(BinaryOp::Add, first, counter);
        let (tile, mut rest) = s.split_item(number, long.div_ceil(self.unroll));
        let start = s.tile_start(tile, self.unroll, long);
        s.bind(base, start);
        for &v in self.free.iter().rev() {
            let (value, left) = s.split_item(rest, s.view.size_of(v) as usize);
            s.bind(v, value);
            rest = left;
        }
        s.int(0)
    }

    /// The steps without the conditions in them, and those: conditions that stay the same in the innermost loop are better decided outside it.
    fn unconditional(&self, view: &View<'_>, steps: &[Expr]) -> Option<(Pred, Vec<Expr>)> {
        let innermost = match (self.chunks.inner.last(), self.chunks.split) {
            (Some(&v), _) => v,
            _ => return None,
        };
        let mut conditions = Vec::new();
        let plain = steps.iter().map(|e| assume(view, e, &mut conditions)).collect();
        let pred = Pred::and(conditions);
        (pred != Pred::True && !pred.uses(innermost)).then_some((pred, plain))
    }

    /// One point of the sum, for all sums of a tile. `own` gives the other factor at a step.
    fn multiply_add(
        &self,
        s: &mut Scope<'_>,
        panel: TensorId,
        point: &Index,
        own: &mut dyn FnMut(&mut Scope<'_>, usize) -> ValueId,
        regs: &[RegId],
    ) {
        let vector = s.kernel.regs[regs[0].0 as usize];
        let read = |m: usize| {
            let at = point.scale(self.vectors as i64).plus(m as i64);
            Expr::read(self.parts.panel.elem, panel, vec![at])
        };
        let right: Vec<ValueId> = (0..self.vectors).map(|m| s.eval(&read(m))).collect();
        for n in 0..self.unroll {
            let left = own(s, n);
            for (m, &right) in right.iter().enumerate() {
                let reg = regs[n * self.vectors + m];
                let sum = s.op(Op::Get(reg), vector);
                let sum = s.fma(left, right, sum);
                s.push(Stmt::Set(reg, sum));
            }
        }
    }

    /// What is around the sum, stored.
    fn finish(&self, s: &mut Scope<'_>, tensor: TensorId, sum: ValueId, (around, to): &(Expr, Vec<Index>)) {
        s.pin(self.parts.sum, sum);
        let value = s.eval(around);
        s.store(tensor, to, value);
    }
}

/// The expression where all its conditions hold, which are listed: selects take the first branch, reads are inside.
fn assume(view: &View<'_>, e: &Expr, conditions: &mut Vec<Pred>) -> Expr {
    match &*e.node {
        Node::Select(p, a, _) => {
            conditions.push(p.clone());
            assume(view, a, conditions)
        }
        Node::Read { tensor, at, bounds: Bounds::Zero } => {
            let shape = view.shape(*tensor);
            conditions.extend(at.iter().zip(&shape).map(|(i, &n)| Pred::within(i, 0, n as i64, view)));
            Expr::new(e.elem, Node::Read { tensor: *tensor, at: at.clone(), bounds: Bounds::Inside })
        }
        _ => e.map_children(&mut |c| assume(view, c, conditions)),
    }
}

/// Nested loops; a short innermost one is written out.
fn nest(s: &mut Scope<'_>, loops: &[(VarId, usize, Option<ValueId>)], f: &mut dyn FnMut(&mut Scope<'_>)) {
    match loops {
        [] => f(s),
        [(v, size, None)] if *size as i64 <= WRITTEN_OUT => {
            for n in 0..*size {
                let value = s.int(n as i64);
                s.bind(*v, value);
                f(s);
            }
        }
        [(v, size, None), rest @ ..] => s.for_loop(*v, *size, |s| nest(s, rest, f)),
        [(v, _, Some(end)), rest @ ..] => s.for_until(*v, *end, |s| nest(s, rest, f)),
    }
}

/// A local array of vectors.
fn local_array(view: &mut View<'_>, name: &str, len: usize) -> TensorId {
    let axis = atom(&mut view.axes, name, len);
    view.function.new_tensor(name, crate::ir::Elem::F32, vec![axis], None)
}
