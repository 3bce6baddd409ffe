//! Neighbouring elements read as one vector.
//!
//! Where work items run in lockstep, each often walks along memory one element at a time: the lanes of a register tile are along another
//! variable, or there are none. Every element is then a load of its own, and each step of a loop waits for those of the step before. Here innermost loops are
//! written out for as many steps as a vector has lanes, whose loads wait together, and loads of one block whose places differ by constants become one of a
//! vector, where that begins at a multiple of its lanes. No operation changes its order, so results are the same bits.

use super::multiples::Multiples;
use super::{Block, BufferId, Kernel, Op, Stmt, Type, ValueId};
use crate::ir::{BinaryOp, Elem};
use std::collections::HashMap;

/// Statements that a loop's body may have when it is written out.
const MOST: usize = 768;
/// Rounds that are left of a loop at least, if none of its loads goes from neighbour to neighbour.
const ROUNDS: i64 = 2;

const INT: Type = Type { elem: Elem::I32, lanes: 1 };

/// A kernel with loops whose steps are written out, and whose loads of neighbours are loads of vectors of so many lanes.
pub fn join_loads(kernel: Kernel, lanes: u8) -> Kernel {
    let loops = kernel.body.iter().any(|s| !matches!(s, Stmt::Let(..) | Stmt::Set(..) | Stmt::Store { .. }));
    if lanes < 2 || !loops {
        return kernel;
    }
    let mut join = Join { lanes, kernel, forms: HashMap::new(), multiples: Multiples::default() };
    let body = std::mem::take(&mut join.kernel.body);
    let written_out = join.write_out(body);
    let joined = join.join(written_out);
    join.kernel.body = joined;
    remove_unused(&mut join.kernel);
    join.kernel
}

/// A sum of integers times constants, and a constant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Form {
    /// Sorted by value; no factor is 0.
    terms: Vec<(ValueId, i64)>,
    offset: i64,
}

impl Form {
    fn plus(&self, other: &Form, factor: i64) -> Form {
        let mut terms = self.terms.clone();
        for &(value, f) in &other.terms {
            match terms.binary_search_by_key(&value, |t| t.0) {
                Ok(n) => terms[n].1 += f * factor,
                Err(n) => terms.insert(n, (value, f * factor)),
            }
        }
        terms.retain(|t| t.1 != 0);
        Form { terms, offset: self.offset + other.offset * factor }
    }
}

struct Join {
    lanes: u8,
    kernel: Kernel,
    /// Of scalar integers.
    forms: HashMap<ValueId, Form>,
    multiples: Multiples,
}

impl Join {
    fn ty(&self, value: ValueId) -> Type {
        self.kernel.values[value.0 as usize]
    }

    fn fresh(&mut self, ty: Type) -> ValueId {
        self.kernel.values.push(ty);
        ValueId(self.kernel.values.len() as u32 - 1)
    }

    fn form(&self, value: ValueId) -> Form {
        self.forms.get(&value).cloned().unwrap_or(Form { terms: vec![(value, 1)], offset: 0 })
    }

    fn note(&mut self, value: ValueId, op: &Op) {
        if self.ty(value) != INT {
            return;
        }
        self.multiples.note(value, op);
        let constant = |form: &Form| form.terms.is_empty().then_some(form.offset);
        let form = match op {
            Op::Const(bits) => Form { terms: Vec::new(), offset: f64::from_bits(*bits) as i64 },
            Op::Lanes => Form::default(),
            Op::Splat(a) => self.form(*a),
            Op::Binary(BinaryOp::Add, a, b) => self.form(*a).plus(&self.form(*b), 1),
            Op::Binary(BinaryOp::Sub, a, b) => self.form(*a).plus(&self.form(*b), -1),
            Op::Binary(BinaryOp::Mul, a, b) => {
                let (a, b) = (self.form(*a), self.form(*b));
                match (constant(&a), constant(&b)) {
                    (_, Some(c)) => Form::default().plus(&a, c),
                    (Some(c), _) => Form::default().plus(&b, c),
                    _ => return,
                }
            }
            _ => return,
        };
        self.forms.insert(value, form);
    }

    /// Whether a vector may begin at `form` but for its constant.
    fn aligned(&self, terms: &[(ValueId, i64)]) -> bool {
        let lanes = u64::from(self.lanes);
        terms.iter().all(|(v, factor)| {
            let [factor, multiple] = [factor.unsigned_abs(), self.multiples.of(*v)].map(|n| n % lanes);
            (factor * multiple).is_multiple_of(lanes)
        })
    }

    /// The buffer and the place of a load that may become a lane of a vector.
    fn single(&self, value: ValueId, op: &Op) -> Option<(BufferId, ValueId)> {
        let (Op::Load { buffer, index } | Op::Gather { buffer, index }) = op else { return None };
        let of = &self.kernel.buffers[buffer.0 as usize];
        let ty = Type { elem: Elem::F32, lanes: 1 };
        let fits = self.ty(value) == ty && of.elem == Elem::F32 && !of.written;
        (fits && of.len.is_multiple_of(usize::from(self.lanes))).then_some((*buffer, *index))
    }

    /// Writes out the innermost loops that load something.
    fn write_out(&mut self, block: Block) -> Block {
        let mut out = Vec::new();
        for stmt in block {
            match stmt {
                Stmt::For { var, lo, hi, body } => match self.loads(var, lo, hi, &body) {
                    Some((first, count)) => self.steps(var, first, count, &body, &mut out),
                    None => {
                        let body = self.write_out(body);
                        out.push(Stmt::For { var, lo, hi, body });
                    }
                },
                Stmt::If { cond, then, otherwise } => {
                    let (then, otherwise) = (self.write_out(then), self.write_out(otherwise));
                    out.push(Stmt::If { cond, then, otherwise });
                }
                Stmt::DoWhile { body, again } => {
                    let body = self.write_out(body);
                    out.push(Stmt::DoWhile { body, again });
                }
                Stmt::Let(value, op) => {
                    self.note(value, &op);
                    out.push(Stmt::Let(value, op));
                }
                other => out.push(other),
            }
        }
        out
    }

    /// The first value and the number of steps of an innermost loop that loads something, if they are enough for that.
    fn loads(&mut self, var: ValueId, lo: ValueId, hi: ValueId, body: &Block) -> Option<(i64, i64)> {
        let constant = |form: Form| form.terms.is_empty().then_some(form.offset);
        let (first, end) = (constant(self.form(lo))?, constant(self.form(hi))?);
        let lanes = i64::from(self.lanes);
        let innermost = |s: &Stmt| !matches!(s, Stmt::For { .. } | Stmt::If { .. } | Stmt::DoWhile { .. });
        if end - first < lanes || body.len() * usize::from(self.lanes) > MOST || !body.iter().all(innermost) {
            return None;
        }
        let (mut loads, mut walks) = (false, false);
        for stmt in body {
            let Stmt::Let(value, op) = stmt else { continue };
            self.note(*value, op);
            loads |= matches!(op, Op::Load { .. } | Op::Gather { .. });
            let Some((_, index)) = self.single(*value, op) else { continue };
            let mut form = self.form(index);
            let at = form.terms.iter().position(|t| *t == (var, 1));
            walks |= at.is_some_and(|n| {
                form.terms.remove(n);
                (form.offset + first) % lanes == 0 && self.aligned(&form.terms)
            });
        }
        (walks || loads && end - first >= ROUNDS * lanes).then_some((first, end - first))
    }

    /// Emits the steps of a loop, as many at a time as a vector has lanes.
    fn steps(&mut self, var: ValueId, first: i64, count: i64, body: &Block, out: &mut Block) {
        let lanes = i64::from(self.lanes);
        let rounds = count / lanes;
        if rounds > 1 {
            let mut inside = Inside::default();
            let [lo, hi] = [0, rounds].map(|c| self.integer(c, out));
            let round = self.fresh(INT);
            let width = inside.int(self, lanes);
            let mut base = inside.op(self, Op::Binary(BinaryOp::Mul, round, width), INT);
            if first != 0 {
                let first = inside.int(self, first);
                base = inside.op(self, Op::Binary(BinaryOp::Add, base, first), INT);
            }
            for step in 0..lanes {
                let at = inside.plus(self, base, step);
                inside.copy(self, var, at, body);
            }
            out.push(Stmt::For { var: round, lo, hi, body: inside.block });
        }
        let mut rest = Inside::default();
        for step in if rounds > 1 { rounds * lanes } else { 0 }..count {
            let at = rest.int(self, first + step);
            rest.copy(self, var, at, body);
        }
        out.append(&mut rest.block);
    }

    fn integer(&mut self, c: i64, out: &mut Block) -> ValueId {
        let (value, op) = (self.fresh(INT), Op::Const((c as f64).to_bits()));
        self.note(value, &op);
        out.push(Stmt::Let(value, op));
        value
    }

    /// Joins the loads of every block.
    fn join(&mut self, block: Block) -> Block {
        let mut groups: HashMap<(BufferId, Form), Group> = HashMap::new();
        let mut place: HashMap<ValueId, (BufferId, Form, u8)> = HashMap::new();
        for stmt in &block {
            let Stmt::Let(value, op) = stmt else { continue };
            let Some((buffer, index)) = self.single(*value, op) else { continue };
            let mut form = self.form(index);
            if !self.aligned(&form.terms) {
                continue;
            }
            let lane = form.offset.rem_euclid(i64::from(self.lanes));
            form.offset -= lane;
            let begins = lane == 0 && self.multiples.of(index).is_multiple_of(u64::from(self.lanes));
            let group = groups.entry((buffer, form.clone())).or_insert(Group { begins, loads: 0, vector: None });
            // What comes before the lane that the vector is addressed by stays as it is.
            if group.begins {
                group.loads += 1;
                place.insert(*value, (buffer, form, lane as u8));
            }
        }
        let mut out = Vec::with_capacity(block.len());
        for stmt in block {
            match stmt {
                Stmt::Let(value, op) => {
                    let place = place.remove(&value);
                    let lane = place.and_then(|(buffer, form, lane)| {
                        let group = groups.get_mut(&(buffer, form)).filter(|g| g.loads > 1)?;
                        let vector = *group.vector.get_or_insert_with(|| {
                            let vector = self.fresh(Type { elem: Elem::F32, lanes: self.lanes });
                            let (Op::Load { index, .. } | Op::Gather { index, .. }) = op else {
                                unreachable!("loads were noted")
                            };
                            out.push(Stmt::Let(vector, Op::Load { buffer, index }));
                            vector
                        });
                        Some(Op::Extract(vector, lane))
                    });
                    out.push(Stmt::Let(value, lane.unwrap_or(op)));
                }
                Stmt::For { var, lo, hi, body } => {
                    let body = self.join(body);
                    out.push(Stmt::For { var, lo, hi, body });
                }
                Stmt::If { cond, then, otherwise } => {
                    let (then, otherwise) = (self.join(then), self.join(otherwise));
                    out.push(Stmt::If { cond, then, otherwise });
                }
                Stmt::DoWhile { body, again } => {
                    let body = self.join(body);
                    out.push(Stmt::DoWhile { body, again });
                }
                other => out.push(other),
            }
        }
        out
    }
}

/// Loads of one block that are lanes of one vector.
struct Group {
    /// Whether the first of them is where the vector begins.
    begins: bool,
    loads: usize,
    vector: Option<ValueId>,
}

/// Steps of a loop being written out.
#[derive(Default)]
struct Inside {
    block: Block,
    /// What was computed in it already.
    known: HashMap<(Op, Type), ValueId>,
}

impl Inside {
    /// Emits an operation, or gives the value of an equal one.
    fn op(&mut self, join: &mut Join, op: Op, ty: Type) -> ValueId {
        let same = match &op {
            Op::Const(_) | Op::Binary(..) | Op::Rem(..) | Op::Splat(_) | Op::Lanes => true,
            Op::Load { buffer, .. } | Op::Gather { buffer, .. } => !join.kernel.buffers[buffer.0 as usize].written,
            _ => false,
        };
        if same && let Some(&value) = self.known.get(&(op.clone(), ty)) {
            return value;
        }
        let value = join.fresh(ty);
        join.note(value, &op);
        if same {
            self.known.insert((op.clone(), ty), value);
        }
        self.block.push(Stmt::Let(value, op));
        value
    }

    fn int(&mut self, join: &mut Join, c: i64) -> ValueId {
        self.op(join, Op::Const((c as f64).to_bits()), INT)
    }

    fn plus(&mut self, join: &mut Join, value: ValueId, c: i64) -> ValueId {
        if c == 0 {
            return value;
        }
        let c = self.int(join, c);
        self.op(join, Op::Binary(BinaryOp::Add, value, c), INT)
    }

    /// The body of a loop without control flow where its variable is `at`.
    fn copy(&mut self, join: &mut Join, var: ValueId, at: ValueId, body: &Block) {
        let mut renamed = HashMap::from([(var, at)]);
        for stmt in body {
            let of = |v: &ValueId| renamed.get(v).copied().unwrap_or(*v);
            match stmt {
                Stmt::Let(value, op) => {
                    let op = op.with(&mut |v| of(&v));
                    let copied = self.op(join, op, join.ty(*value));
                    renamed.insert(*value, copied);
                }
                Stmt::Set(reg, value) => self.block.push(Stmt::Set(*reg, of(value))),
                Stmt::Store { buffer, index, value } => {
                    self.block.push(Stmt::Store { buffer: *buffer, index: of(index), value: of(value) });
                }
                Stmt::Scatter { buffer, index, value } => {
                    self.block.push(Stmt::Scatter { buffer: *buffer, index: of(index), value: of(value) });
                }
                Stmt::StoreLocal { local, index, value } => {
                    self.block.push(Stmt::StoreLocal { local: *local, index: of(index), value: of(value) });
                }
                Stmt::Prefetch { buffer, index } => {
                    self.block.push(Stmt::Prefetch { buffer: *buffer, index: of(index) });
                }
                Stmt::For { .. } | Stmt::If { .. } | Stmt::DoWhile { .. } => {
                    unreachable!("only innermost loops are written out")
                }
            }
        }
    }
}

/// Removes the operations whose value nothing takes.
fn remove_unused(kernel: &mut Kernel) {
    let mut used = vec![false; kernel.values.len()];
    let mut body = std::mem::take(&mut kernel.body);
    keep_used(&mut body, &mut used);
    kernel.body = body;
}

/// Goes backwards: what takes a value comes after it.
fn keep_used(block: &mut Block, used: &mut [bool]) {
    let mut kept = Vec::with_capacity(block.len());
    let take = |v: ValueId, used: &mut [bool]| used[v.0 as usize] = true;
    while let Some(mut stmt) = block.pop() {
        match &mut stmt {
            Stmt::Let(value, op) => {
                if !used[value.0 as usize] {
                    continue;
                }
                op.operands().into_iter().for_each(|v| take(v, used));
            }
            Stmt::Set(_, value) => take(*value, used),
            Stmt::Store { index, value, .. }
            | Stmt::Scatter { index, value, .. }
            | Stmt::StoreLocal { index, value, .. } => {
                take(*index, used);
                take(*value, used);
            }
            Stmt::Prefetch { index, .. } => take(*index, used),
            Stmt::For { lo, hi, body, .. } => {
                keep_used(body, used);
                take(*lo, used);
                take(*hi, used);
            }
            Stmt::If { cond, then, otherwise } => {
                keep_used(then, used);
                keep_used(otherwise, used);
                take(*cond, used);
            }
            Stmt::DoWhile { body, .. } => keep_used(body, used),
        }
        kept.push(stmt);
    }
    kept.reverse();
    *block = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loops::eval::{BufferData, run};
    use crate::loops::verify::verify;
    use crate::loops::{Buffer, RegId};

    /// y[i] = sum(j in first..end) x[stride i + j] w[j], for 5 items.
    fn products(stride: usize, first: usize, end: usize) -> Kernel {
        let float = Type { elem: Elem::F32, lanes: 1 };
        let buffer = |name: &str, len, written| Buffer { name: name.into(), elem: Elem::F32, len, written };
        let [item, step, lo, hi, zero, j, row, place, x, w, before, after, sum] =
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map(ValueId);
        let constant = |c: usize| Op::Const((c as f64).to_bits());
        let load = |buffer, index| Op::Load { buffer: BufferId(buffer), index };
        let body = vec![
            Stmt::Let(row, Op::Binary(BinaryOp::Mul, item, step)),
            Stmt::Let(place, Op::Binary(BinaryOp::Add, row, j)),
            Stmt::Let(x, load(0, place)),
            Stmt::Let(w, load(1, j)),
            Stmt::Let(before, Op::Get(RegId(0))),
            Stmt::Let(after, Op::Fma(x, w, before)),
            Stmt::Set(RegId(0), after),
        ];
        let body = vec![
            Stmt::Let(item, Op::Item),
            Stmt::Let(step, constant(stride)),
            Stmt::Let(lo, constant(first)),
            Stmt::Let(hi, constant(end)),
            Stmt::Let(zero, constant(0)),
            Stmt::Set(RegId(0), zero),
            Stmt::For { var: j, lo, hi, body },
            Stmt::Let(sum, Op::Get(RegId(0))),
            Stmt::Store { buffer: BufferId(2), index: item, value: sum },
        ];
        let int = |n: usize| vec![INT; n];
        Kernel {
            name: "products".into(),
            buffers: vec![
                buffer("x", 5 * stride, false),
                buffer("w", end.next_multiple_of(4), false),
                buffer("y", 5, true),
            ],
            locals: vec![],
            values: [int(4), vec![float], int(3), vec![float; 5]].concat(),
            regs: vec![float],
            items: 5,
            body,
        }
    }

    /// What it computes, and how many loads it has of either kind.
    fn outcome(kernel: &Kernel) -> (Vec<f32>, usize, usize) {
        verify(kernel).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        let data = |b: &Buffer| BufferData::F32((0..b.len).map(|n| ((n * 7 + 3) % 11) as f32 * 0.37 - 1.0).collect());
        let mut buffers: Vec<BufferData> = kernel.buffers.iter().map(data).collect();
        run(kernel, &mut buffers).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        fn count(kernel: &Kernel, block: &Block, found: &mut [usize; 2]) {
            for stmt in block {
                match stmt {
                    Stmt::Let(v, Op::Load { .. }) => found[usize::from(kernel.values[v.0 as usize].lanes > 1)] += 1,
                    Stmt::For { body, .. } => count(kernel, body, found),
                    _ => {}
                }
            }
        }
        let mut found = [0; 2];
        count(kernel, &kernel.body, &mut found);
        (buffers[2].as_f32().expect("floats").to_vec(), found[0], found[1])
    }

    #[test]
    fn walks_become_vectors_and_values_stay() {
        // Rounds and what is left of them; one round alone; none.
        for (first, end, vectors) in [(0, 10, 4), (4, 20, 2), (0, 7, 4), (0, 4, 2), (0, 3, 0), (1, 8, 0)] {
            let before = products(20, first, end);
            let (want, ..) = outcome(&before);
            let (got, single, joined) = outcome(&join_loads(before, 4));
            assert_eq!(got, want, "{first}..{end}: the same bits");
            assert_eq!((joined, single == 0), (vectors, vectors > 0), "{first}..{end}");
        }
    }

    #[test]
    fn a_vector_begins_at_a_multiple_of_its_lanes() {
        let before = products(18, 0, 16);
        let (want, ..) = outcome(&before);
        let (got, single, joined) = outcome(&join_loads(before, 4));
        assert_eq!(got, want);
        // Rows of 18 begin elsewhere, the weights do not.
        assert_eq!((single, joined), (4, 1));
    }
}
