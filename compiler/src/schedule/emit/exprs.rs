//! Values: reads, pointwise operations and reductions, for many points at once.

use super::indices::Position;
use super::{Scope, Speculation, stored_elem};
use crate::ir::expr::mix;
use crate::ir::index::Sizes;
use crate::ir::{Atom, BinaryOp, Bounds, Elem, Expr, Index, Node, Pred, Reduction, TensorId, UnaryOp};
use crate::loops::{Op, Stmt, Type, ValueId};
use crate::schedule::along::has_reduce;

impl Scope<'_> {
    /// The value of one expression.
    pub fn eval(&mut self, expr: &Expr) -> ValueId {
        self.eval_many(std::slice::from_ref(expr)).remove(0)
    }

    /// The values of expressions of the same form (they differ in indices only). All reads are of stored or held tensors.
    pub fn eval_many(&mut self, exprs: &[Expr]) -> Vec<ValueId> {
        let children =
            |pick: fn(&Node) -> &Expr| -> Vec<Expr> { exprs.iter().map(|e| pick(&e.node).clone()).collect() };
        let elem = machine_elem(exprs[0].elem);
        match &*exprs[0].node {
            Node::Const(bits) => {
                let v = self.op(Op::Const(*bits), Type { elem, lanes: 1 });
                vec![v; exprs.len()]
            }
            Node::Unary(op, _) => {
                let operands = self.eval_many(&children(first));
                operands.into_iter().map(|v| self.unary(*op, v)).collect()
            }
            Node::Cast(_) => {
                let operands = self.eval_many(&children(first));
                operands.into_iter().map(|v| self.cast(v, elem)).collect()
            }
            Node::Stop(_) => self.eval_many(&children(first)),
            Node::Binary(op, a, _) => {
                // a * b + c in one rounding.
                if matches!(op, BinaryOp::Add)
                    && elem == Elem::F32
                    && matches!(&*a.node, Node::Binary(BinaryOp::Mul, ..))
                {
                    let products = children(first);
                    let left: Vec<Expr> = products.iter().map(|p| first(&p.node).clone()).collect();
                    let right: Vec<Expr> = products.iter().map(|p| second(&p.node).clone()).collect();
                    let (left, right) = (self.eval_many(&left), self.eval_many(&right));
                    let added = self.eval_many(&children(second));
                    return (0..exprs.len()).map(|i| self.fma(left[i], right[i], added[i])).collect();
                }
                if let Some(inverse) = exact_inverse(&exprs[0])
                    && elem == Elem::F32
                    && exprs.iter().all(|e| exact_inverse(e) == Some(inverse))
                {
                    let inverse = self.op(Op::Const(inverse.to_bits()), Type { elem, lanes: 1 });
                    let left = self.eval_many(&children(first));
                    return left.into_iter().map(|v| self.binary(BinaryOp::Mul, v, inverse)).collect();
                }
                // Sums first: what else was loaded would have to wait in registers that they need.
                let (left, right) = if has_reduce(&children(second)[0]) {
                    let right = self.eval_many(&children(second));
                    (self.eval_many(&children(first)), right)
                } else {
                    let left = self.eval_many(&children(first));
                    (left, self.eval_many(&children(second)))
                };
                if *op == BinaryOp::Div && elem == Elem::F32 {
                    return self.quotients(&left, &right);
                }
                left.into_iter().zip(right).map(|(a, b)| self.binary(*op, a, b)).collect()
            }
            Node::Select(..) => {
                let preds: Vec<Pred> = exprs.iter().map(|e| self.unproven(pred(&e.node))).collect();
                if preds.iter().all(|p| *p == Pred::True) {
                    return self.eval_many(&children(first));
                }
                let conds: Vec<ValueId> = preds.iter().map(|p| self.test(p)).collect();
                let was = self.speculative;
                self.speculative = conds.iter().fold(was, |worst, &c| worst.max(self.doubt(c)));
                let (yes, no) = self.under(&preds, |s| (s.eval_many(&children(first)), s.eval_many(&children(second))));
                self.speculative = was;
                (0..exprs.len()).map(|i| self.select(conds[i], yes[i], no[i])).collect()
            }
            Node::Test(_) => exprs.iter().map(|e| self.test(pred(&e.node))).collect(),
            Node::Index(_) => exprs.iter().map(|e| self.index_value(e, elem)).collect(),
            Node::Read { .. } => exprs.iter().map(|e| self.read(e)).collect(),
            Node::Random { .. } => exprs.iter().map(|e| self.random(e)).collect(),
            Node::Reduce(_) => {
                let key = (exprs.to_vec(), self.doubtful.clone());
                if let Some(known) = self.blocks.iter().rev().find_map(|open| open.reductions.get(&key)) {
                    return known.clone();
                }
                let reductions: Vec<&Reduction> = exprs
                    .iter()
                    .map(|e| match &*e.node {
                        Node::Reduce(r) => r,
                        _ => unreachable!("points have the same form"),
                    })
                    .collect();
                let values = self.over(reductions[0].vars.clone(), |s| s.reduce(&reductions));
                self.blocks.last_mut().expect("an open block").reductions.insert(key, values.clone());
                values
            }
        }
    }

    fn index_value(&mut self, expr: &Expr, elem: Elem) -> ValueId {
        let Node::Index(index) = &*expr.node else { unreachable!("points have the same form") };
        let p = self.position(index);
        let v = self.flatten(p);
        self.cast(v, elem)
    }

    /// Quotients. A divisor that several have in common, or all lanes of one, is inverted once; the product with that differs from the quotient by a rounding.
    fn quotients(&mut self, left: &[ValueId], right: &[ValueId]) -> Vec<ValueId> {
        let mut out = Vec::new();
        for (&a, &b) in left.iter().zip(right) {
            let lanes = |s: &Self, v| s.ty(v).lanes;
            let shared = right.iter().filter(|&&r| r == b).count() > 1 || lanes(self, b) < lanes(self, a);
            out.push(if shared {
                let ty = self.ty(b);
                let one = self.op(Op::Const(1f64.to_bits()), Type { lanes: 1, ..ty });
                let inverse = self.binary(BinaryOp::Div, one, b);
                self.binary(BinaryOp::Mul, a, inverse)
            } else {
                self.binary(BinaryOp::Div, a, b)
            });
        }
        out
    }

    /// `a * b + c`.
    pub fn fma(&mut self, a: ValueId, b: ValueId, c: ValueId) -> ValueId {
        let wide = [a, b, c].iter().any(|&v| self.ty(v).lanes > 1);
        let [a, b, c] = if wide { [self.widen(a), self.widen(b), self.widen(c)] } else { [a, b, c] };
        let ty = self.ty(c);
        self.op(Op::Fma(a, b, c), ty)
    }

    fn unary(&mut self, op: UnaryOp, v: ValueId) -> ValueId {
        let ty = self.ty(v);
        self.op(Op::Unary(op, v), ty)
    }

    /// To another element type; truth is "not zero", and floats round down to integers.
    pub fn cast(&mut self, v: ValueId, elem: Elem) -> ValueId {
        let ty = self.ty(v);
        if ty.elem == elem {
            return v;
        }
        if elem == Elem::Bool {
            let zero = self.op(Op::Const(0f64.to_bits()), Type { elem: ty.elem, lanes: 1 });
            return self.binary(BinaryOp::Ne, v, zero);
        }
        let v = match (ty.elem, elem) {
            (Elem::F32 | Elem::F16 | Elem::Bf16, Elem::I32 | Elem::U32) => self.unary(UnaryOp::Floor, v),
            _ => v,
        };
        self.op(Op::Cast(v), Type { elem, ..ty })
    }

    fn read(&mut self, expr: &Expr) -> ValueId {
        let Node::Read { tensor, at, bounds } = &*expr.node else { unreachable!("points have the same form") };
        if let Some(&v) = self.pinned.get(tensor) {
            return v;
        }
        let elem = machine_elem(expr.elem);
        let shape = self.view.shape(*tensor);
        let guard = match bounds {
            Bounds::Inside => Pred::True,
            Bounds::Zero => self.unproven(&self.inside(*tensor, at)),
        };
        let at = &self.inside_rows(*tensor, at, &shape);
        let address = self.view.address(*tensor, at);
        let len = shape.iter().product::<usize>() as i64;
        let proven = address.range(self).is_some_and(|(lo, hi)| lo >= 0 && hi < len);
        // Whether the place may be outside, and if so, in how many lanes.
        let own = match &guard {
            Pred::True => Speculation::None,
            varies if self.pred_varies(varies) => Speculation::Lanes,
            _ => Speculation::Whole,
        };
        let above = if proven { Speculation::None } else { self.speculative };
        let data = if address.is_data() { Speculation::Lanes } else { Speculation::None };
        let doubt = own.max(above).max(data);
        let checked = doubt != Speculation::None;
        let value = if let Some(&local) = self.single.get(tensor) {
            let Position::Uniform(mut index) = self.position(&address) else {
                unreachable!("lanes are taken one by one")
            };
            if checked {
                index = self.clamp_address(index, len - 1);
            }
            let ty = self.kernel.locals[local.0 as usize].ty;
            self.op(Op::LoadLane { local, index }, Type { lanes: 1, ..ty })
        } else if let Some(&local) = self.locals.get(tensor) {
            let p = self.position(&address);
            let Position::Uniform(mut index) = p else { unreachable!("local arrays are indexed by uniform positions") };
            if checked {
                index = self.clamp_address(index, len - 1);
            }
            let ty = self.kernel.locals[local.0 as usize].ty;
            self.op(Op::LoadLocal { local, index }, ty)
        } else {
            // Where nothing else is in doubt, the guard tells when the place is inside. Of what the kernel writes, the middle is another item's.
            let alone = own == Speculation::Whole && above.max(data) == Speculation::None;
            let decides = alone && !self.is_written(*tensor);
            self.under([&guard], |s| s.load(*tensor, &address, doubt, decides.then_some(&guard), len, elem))
        };
        if guard == Pred::True {
            return value;
        }
        let cond = self.test(&guard);
        let zero = self.op(Op::Const(0f64.to_bits()), Type { elem: self.ty(value).elem, lanes: 1 });
        self.select(cond, value, zero)
    }

    /// That indices are inside a tensor.
    pub(super) fn inside(&self, tensor: TensorId, at: &[Index]) -> Pred {
        let shape = self.view.shape(tensor);
        Pred::and(at.iter().zip(&shape).map(|(i, &n)| Pred::within(i, 0, n as i64, self)))
    }

    /// The indices of a read as they may be used where its guards do not hold: what this kernel writes is read in its own rows only, since another item
    /// may be writing the others.
    fn inside_rows(&self, tensor: TensorId, at: &[Index], shape: &[usize]) -> Vec<Index> {
        if !self.is_written(tensor) {
            return at.to_vec();
        }
        at.iter().zip(shape).map(|(i, &n)| i.clamped(0, n as i64 - 1, self)).collect()
    }

    /// Whether the kernel has stored some of a tensor.
    fn is_written(&self, tensor: TensorId) -> bool {
        self.buffers.get(&tensor).is_some_and(|b| self.kernel.buffers[b.0 as usize].written)
    }

    /// Elements of a tensor at an address that may be outside, as far as there is doubt; `guard`, if there is one, holds where it is inside.
    fn load(
        &mut self,
        tensor: TensorId,
        address: &Index,
        doubt: Speculation,
        guard: Option<&Pred>,
        len: i64,
        elem: Elem,
    ) -> ValueId {
        let buffer = self.buffer(tensor);
        let stored = stored_elem(self.view.elem(tensor));
        let lanes = self.lanes;
        let checked = doubt != Speculation::None;
        let kept = match guard {
            Some(guard) => self.chosen_inside(address, guard, len),
            None if doubt == Speculation::Whole => self.kept_inside(address, len),
            None => None,
        };
        let checked = checked && kept.is_none();
        let position = match kept {
            Some(position) => position,
            None => self.position(address),
        };
        let value = match position {
            Position::Uniform(index) => {
                let index = if checked { self.clamp_address(index, len - 1) } else { index };
                self.op(Op::Load { buffer, index }, Type { elem: stored, lanes: 1 })
            }
            // A guard that differs between lanes may leave part of a vector outside: then each lane looks for itself.
            Position::Strided(index, 1) if doubt != Speculation::Lanes && len >= i64::from(lanes) => {
                let index = if checked { self.clamp_address(index, len - i64::from(lanes)) } else { index };
                self.op(Op::Load { buffer, index }, Type { elem: stored, lanes })
            }
            other => {
                let mut index = self.per_lane(other);
                if checked {
                    index = self.clamp_address(index, len - 1);
                }
                self.op(Op::Gather { buffer, index }, Type { elem: stored, lanes })
            }
        };
        self.cast(value, elem)
    }

    /// The position of an address whose guards hold in all lanes or in none, moved inside where they do not: only the part that the guards
    /// depend on is, so that it leaves the loops over everything else. `None` if the rest alone may be outside.
    fn kept_inside(&mut self, address: &Index, len: i64) -> Option<Position> {
        let own = self.beyond_doubt(address);
        // The range counts every lane.
        let (_, most) = own.range(self)?;
        let last = len - 1 - most;
        let guarded = address.sub(&own);
        if last < 0 || own.terms.is_empty() {
            return None;
        }
        let Position::Uniform(v) = self.position(&guarded) else { return None };
        let inside = self.clamp_address(v, last);
        Some(match self.position(&own) {
            Position::Uniform(at) => Position::Uniform(self.int_op(BinaryOp::Add, inside, at)),
            Position::Strided(at, 1) => Position::Strided(self.int_op(BinaryOp::Add, inside, at), 1),
            _ => return None,
        })
    }

    /// The position of an address that is right where a guard holds, and somewhere inside where it does not: of everything but the constant and what the
    /// guard does not depend on, one choice does for all reads around one place.
    fn chosen_inside(&mut self, address: &Index, guard: &Pred, len: i64) -> Option<Position> {
        let own = self.beyond_doubt(address);
        let (_, most) = own.range(self)?;
        let offset = address.offset;
        let guarded = address.sub(&own).plus(-offset);
        let (position, lanes) = match self.position(&guarded) {
            Position::Uniform(v) => (v, 1),
            Position::Strided(v, 1) => (v, i64::from(self.lanes)),
            _ => return None,
        };
        // What the rest adds to it stays inside.
        let (first, last) = (-offset, len - most - lanes - offset);
        if first > last {
            return None;
        }
        // In the middle nearly all offsets do, and where vectors begin.
        let middle = len / 2 - len / 2 % i64::from(self.lanes);
        let (cond, elsewhere) = (self.test(guard), self.int(middle.clamp(first, last)));
        let chosen = self.select(cond, position, elsewhere);
        let strided = |v| if lanes > 1 { Position::Strided(v, 1) } else { Position::Uniform(v) };
        let at = match self.position(&own.plus(offset)) {
            Position::Uniform(rest) => strided(self.int_op(BinaryOp::Add, chosen, rest)),
            Position::Strided(rest, 1) if lanes == 1 => Position::Strided(self.int_op(BinaryOp::Add, chosen, rest), 1),
            _ => return None,
        };
        Some(at)
    }

    /// The part of an address that loops inside go over, which no guard depends on.
    fn beyond_doubt(&self, address: &Index) -> Index {
        let mut own = Index::default();
        for (atom, c) in &address.terms {
            match atom {
                Atom::Var(v) if *c > 0 && self.whole.contains(v) && !self.doubtful.contains(v) => {
                    own.add_term(atom.clone(), *c)
                }
                _ => {}
            }
        }
        own
    }

    fn clamp_address(&mut self, index: ValueId, last: i64) -> ValueId {
        let (zero, last) = (self.int(0), self.int(last));
        let v = self.binary(BinaryOp::Max, index, zero);
        self.binary(BinaryOp::Min, v, last)
    }

    /// Stores a value at a tensor's element; the lanes go where the address sends them.
    pub fn store(&mut self, tensor: TensorId, at: &[Index], value: ValueId) {
        let buffer = self.written(self.view.holder(tensor));
        let value = self.cast(value, stored_elem(self.view.elem(tensor)));
        let address = self.view.address(tensor, at);
        match self.position(&address) {
            Position::Uniform(index) => self.push(Stmt::Store { buffer, index, value }),
            Position::Strided(index, 1) => {
                let value = self.widen(value);
                self.push(Stmt::Store { buffer, index, value });
            }
            other => {
                let index = self.per_lane(other);
                let value = self.widen(value);
                self.push(Stmt::Scatter { buffer, index, value });
            }
        }
    }

    /// Has the element at an address of a tensor brought near that will be read soon; with lanes, the first of them. As it is but a hint, nothing happens
    /// where the address is not known yet.
    pub fn prefetch(&mut self, tensor: TensorId, address: &Index) {
        let mut known = true;
        address.visit_vars(&mut |v| known &= self.bound.contains_key(&v));
        if !known {
            return;
        }
        let buffer = self.buffer(tensor);
        if let Position::Uniform(index) | Position::Strided(index, _) = self.position(address) {
            self.push(Stmt::Prefetch { buffer, index });
        }
    }

    /// Stores a vector in a local array.
    pub fn store_local(&mut self, tensor: TensorId, at: &[Index], value: ValueId) {
        let local = self.locals[&tensor];
        let address = self.view.address(tensor, at);
        let Position::Uniform(index) = self.position(&address) else {
            unreachable!("local arrays are indexed by uniform positions")
        };
        let ty = self.kernel.locals[local.0 as usize].ty;
        let value = if ty.lanes > 1 { self.widen(value) } else { value };
        self.push(Stmt::StoreLocal { local, index, value });
    }

    /// Stores a vector at a position of a local array.
    pub fn store_local_at(&mut self, tensor: TensorId, index: ValueId, value: ValueId) {
        self.push(Stmt::StoreLocal { local: self.locals[&tensor], index, value });
    }

    /// The vector at a position of a local array.
    pub fn load_local_at(&mut self, tensor: TensorId, index: ValueId) -> ValueId {
        let local = self.locals[&tensor];
        let ty = self.kernel.locals[local.0 as usize].ty;
        self.op(Op::LoadLocal { local, index }, ty)
    }

    /// One lane of a local array, counted over all its vectors.
    pub fn load_lane(&mut self, tensor: TensorId, index: ValueId) -> ValueId {
        let local = self.locals[&tensor];
        let ty = self.kernel.locals[local.0 as usize].ty;
        self.op(Op::LoadLane { local, index }, Type { lanes: 1, ..ty })
    }

    /// The value of an index that is the same in every lane.
    pub fn uniform(&mut self, index: &Index) -> ValueId {
        match self.position(index) {
            Position::Uniform(v) => v,
            _ => unreachable!("a position in a local array is the same in every lane"),
        }
    }

    /// The counter-based hash of [`crate::ir::expr::random`].
    fn random(&mut self, expr: &Expr) -> ValueId {
        let Node::Random { key, place, at } = &*expr.node else { unreachable!("points have the same form") };
        let u32_scalar = Type { elem: Elem::U32, lanes: 1 };
        let seed = self.load(*key, &Index::from(0), Speculation::None, None, 2, Elem::U32);
        let step = self.load(*key, &Index::from(1), Speculation::None, None, 2, Elem::U32);
        let golden = self.op(Op::Const(f64::from(0x9E37_79B9u32).to_bits()), u32_scalar);
        let place = self.op(Op::Const(f64::from(*place).to_bits()), u32_scalar);
        let h = self.binary(BinaryOp::Xor, seed, golden);
        let h = self.mix(h);
        let h = self.binary(BinaryOp::Xor, h, step);
        let h = self.mix(h);
        let h = self.binary(BinaryOp::Xor, h, place);
        let h = self.mix(h);
        let p = self.position(at);
        let index = self.flatten(p);
        let lanes = self.ty(index).lanes;
        let index = self.op(Op::Cast(index), Type { elem: Elem::U32, lanes });
        let h = self.binary(BinaryOp::Xor, h, index);
        let h = self.mix(h);
        let eight = self.op(Op::Const(8f64.to_bits()), u32_scalar);
        let h = self.binary(BinaryOp::Shr, h, eight);
        let unit = self.cast(h, Elem::F32);
        let scale = self.op(Op::Const((1.0 / 16_777_216.0f64).to_bits()), Type { elem: Elem::F32, lanes: 1 });
        self.binary(BinaryOp::Mul, unit, scale)
    }

    /// [`mix`], on lanes.
    fn mix(&mut self, h: ValueId) -> ValueId {
        debug_assert_eq!(mix(0), 0);
        let scalar = Type { elem: Elem::U32, lanes: 1 };
        let mut h = h;
        for (shift, factor) in [(16, Some(0x85EB_CA6Bu32)), (13, Some(0xC2B2_AE35)), (16, None)] {
            let by = self.op(Op::Const(f64::from(shift).to_bits()), scalar);
            let shifted = self.binary(BinaryOp::Shr, h, by);
            h = self.binary(BinaryOp::Xor, h, shifted);
            if let Some(factor) = factor {
                let factor = self.op(Op::Const(f64::from(factor).to_bits()), scalar);
                h = self.binary(BinaryOp::Mul, h, factor);
            }
        }
        h
    }

    /// Whether a value over kernel variables differs between lanes. Held tensors always count as if they did.
    pub fn varies(&self, expr: &Expr) -> bool {
        let mut found = self.lane_var.iter().chain(&self.more_lanes).any(|&l| expr.uses(l));
        expr.visit_reads(&mut |t, _| {
            found |= self.locals.get(&t).is_some_and(|l| self.kernel.locals[l.0 as usize].ty.lanes > 1);
            found |= self.pinned.get(&t).is_some_and(|&v| self.ty(v).lanes > 1);
        });
        found
    }

    pub(super) fn pred_varies(&self, pred: &Pred) -> bool {
        pred != &Pred::True && self.varies(&Expr::new(Elem::Bool, Node::Test(pred.clone())))
    }

    /// Nested loops over whole variables.
    pub fn loops(&mut self, vars: &[crate::ir::VarId], f: &mut dyn FnMut(&mut Self)) {
        match vars.split_first() {
            None => f(self),
            Some((&v, rest)) => {
                let count = self.view.size_of(v) as usize;
                self.for_loop(v, count, |s| s.loops(rest, f));
            }
        }
    }
}

/// For a division by a power of two, what to multiply by for the same bits.
fn exact_inverse(e: &Expr) -> Option<f64> {
    let Node::Binary(BinaryOp::Div, _, by) = &*e.node else { return None };
    let Node::Const(bits) = &*by.node else { return None };
    let inverse = 1.0 / f64::from_bits(*bits);
    let power = (-64..=64).any(|k| inverse.abs() == 2f64.powi(k));
    power.then_some(inverse)
}

/// Kernels compute in f32 where the program says f64: the interpreter alone has more.
pub(super) fn machine_elem(elem: Elem) -> Elem {
    if elem == Elem::F64 { Elem::F32 } else { elem }
}

pub(super) fn first(node: &Node) -> &Expr {
    match node {
        Node::Unary(_, a) | Node::Cast(a) | Node::Stop(a) | Node::Binary(_, a, _) | Node::Select(_, a, _) => a,
        _ => unreachable!("points have the same form"),
    }
}

pub(super) fn second(node: &Node) -> &Expr {
    match node {
        Node::Binary(_, _, b) | Node::Select(_, _, b) => b,
        _ => unreachable!("points have the same form"),
    }
}

fn pred(node: &Node) -> &Pred {
    match node {
        Node::Select(p, ..) | Node::Test(p) => p,
        _ => unreachable!("points have the same form"),
    }
}
