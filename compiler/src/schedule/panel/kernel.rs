//! The kernel of a contraction: what an item keeps in local arrays, and its loops.

use super::ahead::Ahead;
use super::products::{Own, Read};
use super::rows::Part;
use super::{Chunks, Contraction, WRITTEN_OUT};
use crate::ir::index::Sizes;
use crate::ir::{BinaryOp, Clause, Expr, Index, Node, TensorId, VarId, atom};
use crate::loops::{Kernel, Op, Type, ValueId};
use crate::schedule::emit::{Scope, stored_elem};
use crate::schedule::expand::View;
use crate::schedule::join::Terms;
use crate::schedule::tile::{self, Place};

/// Floats of a line of the cache.
const LINE: i64 = 16;

/// A contraction with all that was decided about its kernel.
pub(super) struct Emitter {
    pub parts: Contraction,
    pub chunks: Chunks,
    /// A summed variable for each of whose values the loops are written out.
    pub terms: Option<VarId>,
    /// The lane variables, flattened row-major.
    pub group: Vec<VarId>,
    /// Result variables that the panel depends on.
    pub fixed: Vec<VarId>,
    /// Others that it depends on, and the other factor does not: an item may have panels for several of their values.
    pub alike: Vec<VarId>,
    /// Result variables that it does not depend on, the unrolled one apart.
    pub free: Vec<VarId>,
    /// Elements along the lanes.
    pub size: usize,
    pub width: usize,
    pub vectors: usize,
    pub unroll: usize,

    /// Register tiles of a panel, over all items.
    pub tiles: usize,
    /// Register tiles an item.
    pub each: usize,
    /// Whether the panel is filled in squares.
    pub squares: bool,
    /// What an item takes along of the factor that belongs to the unrolled variable, if it does.
    pub rows: Option<Part>,
}

/// The variables of a chunk's points with how often their loops run: a number, or a value where the last block is shorter.
pub(super) type Loops = Vec<(VarId, usize, Option<ValueId>)>;

impl Emitter {
    /// The kernel and its tensors, in buffer order.
    pub fn emit(&self, view: &mut View<'_>, tensor: TensorId, clause: &Clause) -> (Kernel, Vec<TensorId>) {
        let Emitter { parts, chunks, vectors, unroll, width, .. } = self;
        let (vectors, unroll, width, panels) = (*vectors, *unroll, *width, self.panels());
        let span = width * vectors;
        let lane = view.var("lane", tile::lane_range(self.size, width, vectors));
        view.aligned_lane = self.size.is_multiple_of(span).then_some(lane);
        let long = view.size_of(parts.unrolled) as usize;
        let base = view.var("tile", long - unroll + 1);
        let split = chunks.split.map(|(v, block, blocks)| {
            (v, block, view.var("block", blocks), view.var(&view.function.var(v).name.clone(), block))
        });
        let panel_tensor = local_array(view, "panel", panels * chunks.points * vectors);
        let panel_var = view.var("panel", panels);
        let across = view.var("across", long - width + 1);
        let rows = self.rows.map(|part| {
            let len = chunks.points * self.apart(part) * (part.span / part.piece);
            (part, local_array(view, "rows", len))
        });
        let sums_tensor = (!chunks.whole()).then(|| local_array(view, "sums", panels * self.each * unroll * vectors));

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
        let mut own = match rows {
            Some((part, held)) => Own::Held(held, part, None),
            None => {
                let steps = |e: &Expr| (0..unroll).map(|n| chunked(view, &at(view, e, 0, n))).collect();
                Own::Read(Read { steps: steps(&parts.own), scales: parts.scale.as_ref().map(steps), next: None })
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
        let innermost = chunks.inner.last().copied().or(split.map(|(.., within)| within));
        let squares = innermost.filter(|_| self.squares).map(|v| {
            let size = view.size_of(v) as usize;
            (view.var("square", size.div_ceil(width)), view.var("along", size - width + 1))
        });
        // While a tile is computed, the rows of the next one are brought near: at every step a line of another row, so that it is all of them in as many
        // steps as a line has elements.
        if let (Own::Read(read), Some(v)) = (&mut own, innermost)
            && view.size_of(v) >= 2 * LINE
        {
            let row = Index::from(base).plus(unroll as i64).add(&Index::from(v).modulo(LINE, view));
            let next = parts.own.subst_vars(&|w| (w == parts.unrolled).then(|| row.clone()), view);
            read.next = Some(chunked(view, &next));
        }
        let chunk = split.map(|(_, _, number, _)| number).or(chunks.outer.last().copied());
        if let (Own::Held(_, part, ahead), Some(v), Some(chunk)) = (&mut own, innermost, chunk) {
            *ahead = Ahead::new(view, self, *part, (&panel[0], lane), (&row, across), (chunk, v));
        }
        let name = view.name(tensor);
        let view = &*view;
        let mut s = Scope::new(name, view, width as u8);
        s.lane_var = Some(lane);
        let lane_tiles = self.size.div_ceil(span);
        let all_panels = lane_tiles * self.alike.iter().map(|&v| view.size_of(v) as usize).product::<usize>();
        let groups = all_panels.div_ceil(panels);
        let parts_of_panel = match self.rows {
            Some(part) => long.div_ceil(part.span),
            None => self.tiles.div_ceil(self.each),
        };
        let fixed_items: usize = self.fixed.iter().map(|&v| view.size_of(v) as usize).product();
        s.kernel.items = (groups * fixed_items * parts_of_panel) as u32;
        // Panels one after the other, so that what the tiles read stays near.
        let item = s.item();
        let (number, rest) = s.split_item(item, groups);
        let group = s.tile_start(number, panels, all_panels);
        let bind_panel = |s: &mut Scope<'_>, number: ValueId| {
            s.bind(panel_var, number);
            let place = s.int_op(BinaryOp::Add, group, number);
            let (tile, place) = s.split_item(place, lane_tiles);
            bind_digits(s, &self.alike, place);
            let start = s.tile_start(tile, span, self.size);
            s.bind(lane, start);
        };
        let (number, rest) = s.split_item(rest, parts_of_panel);
        let first = match self.rows {
            Some(part) => s.tile_start(number, part.span, long),
            None => s.tile_start(number, self.each, self.tiles),
        };
        bind_digits(&mut s, &self.fixed, rest);

        let vector = Type { elem: stored_elem(parts.own.elem), lanes: width as u8 };
        s.local(panel_tensor, vector);
        if let Some((_, held)) = rows {
            s.local(held, vector);
        }
        if let Some(t) = sums_tensor {
            s.local(t, vector);
            let zero = self.zero(&mut s, vector);
            s.count(panels * self.each * unroll * vectors, |s, at| s.store_local_at(t, at, zero));
        }
        let mut loops: Loops = Vec::new();
        let (between, within) = match self.terms {
            Some(v) if chunks.outer.contains(&v) => (Some(v), None),
            other => (None, other),
        };
        let others = |v: &&VarId| self.terms != Some(**v);
        chunks.outer.iter().filter(others).for_each(|&v| loops.push((v, view.size_of(v) as usize, None)));
        if let Some((.., number, _)) = split {
            loops.push((number, view.size_of(number) as usize, None));
        }
        let exact: Vec<VarId> = chunks.outer.iter().chain(&chunks.inner).copied().collect();
        s.over(exact, |s| {
            each_term(s, between, &mut |s, outside| {
                around(s, &loops, &mut |s| {
                    let mut inside: Loops = Vec::new();
                    if let Some((v, block, number, within)) = split {
                        inside.push((within, block, self.shorter(s, v, block, number)));
                    }
                    chunks.inner.iter().for_each(|&v| inside.push((v, view.size_of(v) as usize, None)));
                    // Without the variable that is written out.
                    let loops: Loops = inside.iter().filter(|(v, ..)| others(&v)).cloned().collect();
                    each_term(s, within, &mut |s, term| {
                        let panel = in_term(view, &panel, outside.or(term));
                        match squares {
                            Some(square) => s.count(panels, |s, number| {
                                bind_panel(s, number);
                                self.fill_in_squares(s, (panel_tensor, panel_var), &panel, (&inside, &loops), square);
                            }),
                            None => nest(s, &loops, &mut |s| {
                                let at = self.place(panel_var, &self.point(&inside));
                                for number in 0..panels {
                                    let number = s.int(number as i64);
                                    bind_panel(s, number);
                                    let values = s.eval_many(&panel);
                                    for (m, value) in values.into_iter().enumerate() {
                                        s.store_local(panel_tensor, &[at.plus(m as i64)], value);
                                    }
                                }
                            }),
                        }
                    });
                    if let Some((part, held)) = rows {
                        s.lane_var = Some(across);
                        nest(s, &inside, &mut |s| {
                            let at = self.point(&inside).scale(self.apart(part) as i64);
                            for n in 0..part.span / width {
                                let ahead = s.int((n * width) as i64);
                                let start = s.int_op(BinaryOp::Add, first, ahead);
                                s.bind(across, start);
                                let value = s.eval(&row);
                                s.store_local(held, &[at.plus(self.held(part, n) as i64)], value);
                            }
                        });
                        s.lane_var = Some(lane);
                    }
                    s.count(panels, |s, number| {
                        bind_panel(s, number);
                        s.count(self.each, |s, counter| {
                            let ahead = self.bind_tile(s, first, counter, base, long);
                            let offset = self.offset(s, number, counter);
                            if let Own::Held(_, _, Some(next)) = &own {
                                next.bind(s, self.each, (number, counter), (across, first));
                            }
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
                            let (outer, last) = loops.split_at(loops.len() - 1);
                            let point = self.point(&inside);
                            each_term(s, within, &mut |s, term| {
                                let panel = (panel_tensor, panel_var);
                                around(s, outer, &mut |s| match &own {
                                    Own::Held(held, part, next) => {
                                        let held = (*held, *part, next.as_ref());
                                        self.add_held(s, held, panel, (last, &point), ahead, &regs)
                                    }
                                    Own::Read(read) => {
                                        let read = read.in_term(view, outside.or(term));
                                        self.add_read(s, &read, panel, (last, &point), &regs)
                                    }
                                })
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
                                    self.load_ahead(s, &results);
                                    for (&reg, result) in regs.iter().zip(&results) {
                                        let value = s.op(Op::Get(reg), vector);
                                        self.finish(s, tensor, value, result);
                                    }
                                }
                            }
                        })
                    });
                })
            })
        });
        if let Some(t) = sums_tensor {
            s.count(panels, |s, number| {
                bind_panel(s, number);
                s.count(self.each, |s, counter| {
                    self.bind_tile(s, first, counter, base, long);
                    self.load_ahead(s, &results);
                    let offset = self.offset(s, number, counter);
                    for (n, result) in results.iter().enumerate() {
                        let n = s.int(n as i64);
                        let at = s.int_op(BinaryOp::Add, offset, n);
                        let value = s.load_local_at(t, at);
                        self.finish(s, tensor, value, result);
                    }
                })
            });
        }
        s.finish()
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
    pub(super) fn point(&self, inside: &Loops) -> Index {
        inside.iter().fold(Index::default(), |sum, (v, size, _)| sum.scale(*size as i64).add(&(*v).into()))
    }

    /// Binds the variables of a register tile; gives how far into the rows that are held it begins.
    fn bind_tile(&self, s: &mut Scope<'_>, first: ValueId, counter: ValueId, base: VarId, long: usize) -> ValueId {
        if let Some(part) = self.rows {
            let ahead = s.tile_start(counter, self.unroll, part.span);
            let start = s.int_op(BinaryOp::Add, first, ahead);
            s.bind(base, start);
            return ahead;
        }
        let number = s.int_op(BinaryOp::Add, first, counter);
        let (tile, rest) = s.split_item(number, long.div_ceil(self.unroll));
        let start = s.tile_start(tile, self.unroll, long);
        s.bind(base, start);
        bind_digits(s, &self.free, rest);
        s.int(0)
    }

    /// Loads what the results of a tile need beside their sums, all of it before any of them is finished: it comes from far away, and the loads wait
    /// together.
    fn load_ahead(&self, s: &mut Scope<'_>, results: &[(Expr, Vec<Index>)]) {
        fn reads(e: &Expr, out: &mut Vec<Expr>) {
            match &*e.node {
                Node::Read { .. } => out.push(e.clone()),
                // What is under a condition, or read for each point of a sum, is left for later.
                Node::Select(..) | Node::Reduce(_) => {}
                _ => e.for_each_child(&mut |c| reads(c, out)),
            }
        }
        let mut all = Vec::new();
        results.iter().for_each(|(around, _)| reads(around, &mut all));
        all.retain(|e| !matches!(&*e.node, Node::Read { tensor, .. } if *tensor == self.parts.sum));
        all.iter().for_each(|e| {
            s.eval(e);
        });
    }

    /// What is around the sum, stored.
    fn finish(&self, s: &mut Scope<'_>, tensor: TensorId, sum: ValueId, (around, to): &(Expr, Vec<Index>)) {
        s.pin(self.parts.sum, sum);
        let value = s.eval(around);
        s.store(tensor, to, value);
    }
}

/// A summed variable that is written out, and its value in the code under way.
pub(super) type Term = Option<(VarId, i64)>;

/// Code for each value of a variable, if there is one.
fn each_term(s: &mut Scope<'_>, terms: Option<VarId>, f: &mut dyn FnMut(&mut Scope<'_>, Term)) {
    let Some(v) = terms else { return f(s, None) };
    for k in 0..s.view.size_of(v) {
        let value = s.int(k);
        s.bind(v, value);
        f(s, Some((v, k)));
    }
}

/// Points of a tile in the code of a term.
pub(super) fn in_term(view: &View<'_>, points: &[Expr], term: Term) -> Vec<Expr> {
    match term.and_then(|(v, k)| Some((Terms::shared(v, points)?, k))) {
        Some((terms, k)) => points.iter().map(|e| terms.at(view, e, k)).collect(),
        None => points.to_vec(),
    }
}

/// Binds variables to the digits of a number, the last of them to the lowest; gives what is left.
fn bind_digits(s: &mut Scope<'_>, vars: &[VarId], number: ValueId) -> ValueId {
    vars.iter().rev().fold(number, |rest, &v| {
        let (value, left) = s.split_item(rest, s.view.size_of(v) as usize);
        s.bind(v, value);
        left
    })
}

/// Nested loops with others inside them.
pub(super) fn around(s: &mut Scope<'_>, loops: &[(VarId, usize, Option<ValueId>)], f: &mut dyn FnMut(&mut Scope<'_>)) {
    match loops {
        [] => f(s),
        [(v, size, None), rest @ ..] => s.for_loop(*v, *size, |s| around(s, rest, f)),
        [(v, _, Some(end)), rest @ ..] => s.for_until(*v, *end, |s| around(s, rest, f)),
    }
}

/// Nested loops; a short innermost one is written out.
pub(super) fn nest(s: &mut Scope<'_>, loops: &[(VarId, usize, Option<ValueId>)], f: &mut dyn FnMut(&mut Scope<'_>)) {
    match loops {
        [] => f(s),
        [(v, size, None)] if *size as i64 <= WRITTEN_OUT => {
            for n in 0..*size {
                let value = s.int(n as i64);
                s.bind(*v, value);
                f(s);
            }
        }
        [outer, rest @ ..] => around(s, std::slice::from_ref(outer), &mut |s| nest(s, rest, f)),
    }
}

/// A local array of vectors.
fn local_array(view: &mut View<'_>, name: &str, len: usize) -> TensorId {
    let axis = atom(&mut view.axes, name, len);
    view.function.new_tensor(name, crate::ir::Elem::F32, vec![axis], None)
}
