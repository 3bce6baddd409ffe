//! From expressions over kernel variables to loop IR.
//!
//! A [`Scope`] is one kernel under construction. Kernel variables are index variables (they live in a table of their own) bound to scalar values; one
//! of them may be the *lane variable*, whose value is its scalar plus the lane. Expressions are evaluated for many *points* at
//! once: the points differ by constants in their indices, so their loops are shared and their common subexpressions computed
//! once. That is all that register tiling is here.

mod exprs;
mod indices;
mod reduce;

pub(super) use reduce::combine;

use super::expand::View;
use crate::ir::{BinaryOp, Elem, Expr, Pred, TensorId, VarId, index::Sizes};
use crate::loops::{Block, Buffer, BufferId, Kernel, Local, LocalId, Op, RegId, Stmt, Type, ValueId};
use std::collections::{HashMap, HashSet};

/// A kernel under construction.
pub struct Scope<'a> {
    /// The function as the kernel sees it: tensors, kernel variables, what each tensor is.
    pub view: &'a View<'a>,
    /// The kernel so far; `body` is filled by [`Scope::finish`].
    pub kernel: Kernel,
    /// Vector width of the kernel.
    pub lanes: u8,
    /// The lane variable.
    pub lane_var: Option<VarId>,
    /// Other variables whose value is their scalar plus the lane.
    pub more_lanes: Vec<VarId>,
    /// Whether vectors run along the rows: then the lane variable changes, and sums without one get theirs.
    pub along: bool,
    /// Which buffer holds which tensor.
    buffers: HashMap<TensorId, BufferId>,
    /// Which local array holds which staged tensor.
    locals: HashMap<TensorId, LocalId>,
    /// Local arrays that are not written any more.
    filled: HashSet<LocalId>,
    /// Local arrays for partial results of tensors.
    pub(super) sums: HashMap<TensorId, LocalId>,
    /// Where loops over variables start, if not at zero.
    starts: HashMap<VarId, ValueId>,
    /// Tensors for the single lanes of local arrays of vectors.
    single: HashMap<TensorId, LocalId>,
    /// Tensors whose one value (at the kernel's row) is at hand.
    pinned: HashMap<TensorId, ValueId>,
    /// Scalar values of kernel variables.
    bound: HashMap<VarId, ValueId>,
    /// Known scalar integers.
    ints: HashMap<ValueId, i64>,
    /// Open blocks, innermost last.
    blocks: Vec<Open>,
    /// How far addresses may be outside because a guard above is not branched on.
    speculative: Speculation,
    /// Variables in the guards above, and those whose loops may end early.
    doubtful: Vec<VarId>,
    /// Conditions that are branched on around what is evaluated.
    assumed: Vec<Pred>,
    /// Variables of open loops that take all their values, one at a time.
    whole: Vec<VarId>,
}

/// What is known of the guards above an expression that is evaluated whether they hold or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Speculation {
    /// They hold.
    None,
    /// They hold in all lanes or in none: an address is right for the whole vector, or for no lane of it.
    Whole,
    /// They may hold in some lanes.
    Lanes,
}

/// A block being filled, with the values computed in it.
#[derive(Default)]
struct Open {
    block: Block,
    ops: HashMap<(Op, Type), ValueId>,
    /// By the variables in the guards above, which addresses may rely on.
    reductions: HashMap<(Vec<Expr>, Vec<VarId>), Vec<ValueId>>,
}

pub(crate) const I32: Type = Type { elem: Elem::I32, lanes: 1 };

impl<'a> Scope<'a> {
    /// An empty kernel.
    pub fn new(name: String, view: &'a View<'a>, lanes: u8) -> Scope<'a> {
        let kernel = Kernel {
            name,
            buffers: Vec::new(),
            locals: Vec::new(),
            values: Vec::new(),
            regs: Vec::new(),
            items: 1,
            body: Vec::new(),
        };
        Scope {
            view,
            kernel,
            lanes,
            lane_var: None,
            more_lanes: Vec::new(),
            along: false,
            buffers: HashMap::new(),
            locals: HashMap::new(),
            filled: HashSet::new(),
            sums: HashMap::new(),
            starts: HashMap::new(),
            single: HashMap::new(),
            pinned: HashMap::new(),
            bound: HashMap::new(),
            ints: HashMap::new(),
            blocks: vec![Open::default()],
            speculative: Speculation::None,
            doubtful: Vec::new(),
            assumed: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// The kernel and, in buffer order, the tensors it works on.
    pub fn finish(mut self) -> (Kernel, Vec<TensorId>) {
        debug_assert_eq!(self.blocks.len(), 1, "all blocks are closed");
        self.kernel.body = self.blocks.pop().expect("the outermost block").block;
        let mut tensors: Vec<(BufferId, TensorId)> = self.buffers.into_iter().map(|(t, b)| (b, t)).collect();
        tensors.sort();
        (self.kernel, tensors.into_iter().map(|(_, t)| t).collect())
    }

    /// The buffer of a stored tensor, made known to the kernel on first use.
    pub fn buffer(&mut self, tensor: TensorId) -> BufferId {
        if let Some(&b) = self.buffers.get(&tensor) {
            return b;
        }
        let id = BufferId(self.kernel.buffers.len() as u32);
        self.kernel.buffers.push(Buffer {
            name: self.view.name(tensor),
            elem: stored_elem(self.view.elem(tensor)),
            len: self.view.shape(tensor).iter().product(),
            written: false,
        });
        self.buffers.insert(tensor, id);
        id
    }

    /// The buffer of a tensor that the kernel writes.
    pub fn written(&mut self, tensor: TensorId) -> BufferId {
        let id = self.buffer(tensor);
        self.kernel.buffers[id.0 as usize].written = true;
        id
    }

    /// A local array for a staged tensor.
    pub fn local(&mut self, tensor: TensorId, ty: Type) -> LocalId {
        let id = LocalId(self.kernel.locals.len() as u32);
        let len = self.view.shape(tensor).iter().product::<usize>() as u32;
        self.kernel.locals.push(Local { name: self.view.name(tensor), ty, len: len.max(1) });
        self.locals.insert(tensor, id);
        id
    }

    /// From now on, the tensor's local array is only read.
    pub fn filled(&mut self, tensor: TensorId) {
        self.filled.insert(self.locals[&tensor]);
    }

    /// Gives a tensor the local array of another one.
    pub fn take_over(&mut self, from: TensorId, to: TensorId) {
        let array = self.locals[&from];
        self.locals.insert(to, array);
        self.filled.remove(&array);
        // What was loaded from it is not what will be there.
        let other =
            |op: &Op| !matches!(op, Op::LoadLocal { local, .. } | Op::LoadLane { local, .. } if *local == array);
        self.blocks.iter_mut().for_each(|open| open.ops.retain(|(op, _), _| other(op)));
    }

    /// From now on, `lanes` stands for the single lanes of the local array of a tensor; its last dimension goes through those of its last.
    pub fn single_lanes(&mut self, array: TensorId, lanes: TensorId) {
        self.single.insert(lanes, self.locals[&array]);
    }

    /// Whether a variable's value is its scalar plus the lane.
    pub(super) fn is_lane(&self, var: VarId) -> bool {
        self.lane_var == Some(var) || self.more_lanes.contains(&var)
    }

    /// A local array of `len` for partial results of a tensor.
    pub fn array(&mut self, tensor: TensorId, ty: Type, len: usize) -> LocalId {
        let id = LocalId(self.kernel.locals.len() as u32);
        let name = format!("{}.sums", self.view.name(tensor));
        self.kernel.locals.push(Local { name, ty, len: len as u32 });
        self.sums.insert(tensor, id);
        id
    }

    /// The partial result of that number.
    pub fn load_array(&mut self, tensor: TensorId, index: ValueId) -> ValueId {
        let local = self.sums[&tensor];
        let ty = self.kernel.locals[local.0 as usize].ty;
        self.op(Op::LoadLocal { local, index }, ty)
    }

    /// Stores the partial result of that number.
    pub fn store_array(&mut self, tensor: TensorId, index: ValueId, value: ValueId) {
        let local = self.sums[&tensor];
        self.push(Stmt::StoreLocal { local, index, value });
    }

    /// From now on, loops over a variable start there, or at zero again.
    pub fn start_at(&mut self, var: VarId, first: Option<ValueId>) {
        match first {
            Some(v) => self.starts.insert(var, v),
            None => self.starts.remove(&var),
        };
    }

    /// Whether loops over a variable start elsewhere than at zero.
    pub(super) fn is_shortened(&self, var: VarId) -> bool {
        self.starts.contains_key(&var)
    }

    /// From now on, reads of the tensor give this value.
    pub fn pin(&mut self, tensor: TensorId, value: ValueId) {
        self.pinned.insert(tensor, value);
    }

    /// Binds a kernel variable to a scalar.
    pub fn bind(&mut self, var: VarId, value: ValueId) {
        self.bound.insert(var, value);
    }

    /// The scalar value of a kernel variable.
    pub fn value_of(&self, var: VarId) -> ValueId {
        *self.bound.get(&var).expect("kernel variables are bound before use")
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> Type {
        self.kernel.values[value.0 as usize]
    }

    /// Emits an operation, or gives the value of an equal one that is visible.
    pub fn op(&mut self, op: Op, ty: Type) -> ValueId {
        let pure = match &op {
            Op::Get(_) => false,
            Op::LoadLocal { local, .. } | Op::LoadLane { local, .. } => self.filled.contains(local),
            Op::Load { buffer, .. } | Op::Gather { buffer, .. } => !self.kernel.buffers[buffer.0 as usize].written,
            _ => true,
        };
        if pure && let Some(v) = self.blocks.iter().rev().find_map(|open| open.ops.get(&(op.clone(), ty))) {
            return *v;
        }
        let id = ValueId(self.kernel.values.len() as u32);
        self.kernel.values.push(ty);
        let open = self.blocks.last_mut().expect("an open block");
        if pure {
            open.ops.insert((op.clone(), ty), id);
        }
        open.block.push(Stmt::Let(id, op));
        id
    }

    /// Emits a statement.
    pub fn push(&mut self, stmt: Stmt) {
        self.blocks.last_mut().expect("an open block").block.push(stmt);
    }

    /// Emits into a new block and gives it.
    pub fn block<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> (Block, R) {
        self.blocks.push(Open::default());
        let r = f(self);
        (self.blocks.pop().expect("the block just opened").block, r)
    }

    /// A new register with its first value.
    pub fn reg(&mut self, value: ValueId) -> RegId {
        let id = RegId(self.kernel.regs.len() as u32);
        self.kernel.regs.push(self.ty(value));
        self.push(Stmt::Set(id, value));
        id
    }

    /// `for var in 0..count`, `var` bound to the scalar `lo + step * counter`; a count of one is not a loop.
    pub fn for_loop(&mut self, var: VarId, count: usize, f: impl FnOnce(&mut Self)) {
        let lo = match self.starts.get(&var) {
            Some(&first) => first,
            None => self.int(0),
        };
        if count == 1 {
            self.bind(var, lo);
            f(self);
            return;
        }
        let hi = self.int(count as i64);
        let id = ValueId(self.kernel.values.len() as u32);
        self.kernel.values.push(I32);
        self.bind(var, id);
        let (body, ()) = self.block(f);
        self.push(Stmt::For { var: id, lo, hi, body });
    }

    /// `for var in 0..end`.
    pub fn for_until(&mut self, var: VarId, end: ValueId, f: impl FnOnce(&mut Self)) {
        let lo = self.int(0);
        let id = ValueId(self.kernel.values.len() as u32);
        self.kernel.values.push(I32);
        self.bind(var, id);
        self.doubtful.push(var);
        let (body, ()) = self.block(f);
        self.doubtful.pop();
        self.push(Stmt::For { var: id, lo, hi: end, body });
    }

    /// Emits the loops of these variables, each of which takes all its values.
    pub fn over<R>(&mut self, vars: impl IntoIterator<Item = VarId>, f: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.whole.len();
        self.whole.extend(vars);
        let result = f(self);
        self.whole.truncate(before);
        result
    }

    /// Emits under conditions of these predicates, of which some may not hold.
    fn under<'p, R>(&mut self, preds: impl IntoIterator<Item = &'p Pred>, f: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.doubtful.len();
        preds.into_iter().for_each(|p| p.visit_vars(&mut |v| self.doubtful.push(v)));
        let result = f(self);
        self.doubtful.truncate(before);
        result
    }

    /// What of a condition is not branched on already.
    fn unproven(&self, pred: &Pred) -> Pred {
        if self.assumed.is_empty() {
            return pred.clone();
        }
        Pred::and(pred.conjuncts().into_iter().filter(|p| !self.assumed.contains(p)).cloned())
    }

    /// `count` times, with a counter that is no variable.
    pub fn count(&mut self, count: usize, f: impl FnOnce(&mut Self, ValueId)) {
        let lo = self.int(0);
        if count == 1 {
            return f(self, lo);
        }
        let hi = self.int(count as i64);
        let var = ValueId(self.kernel.values.len() as u32);
        self.kernel.values.push(I32);
        let (body, ()) = self.block(|s| f(s, var));
        self.push(Stmt::For { var, lo, hi, body });
    }

    /// An index as one integer a lane.
    pub fn index_per_lane(&mut self, index: &crate::ir::Index) -> ValueId {
        let position = self.position(index);
        self.per_lane(position)
    }

    /// A scalar integer.
    pub fn int(&mut self, c: i64) -> ValueId {
        let v = self.op(Op::Const((c as f64).to_bits()), I32);
        self.ints.insert(v, c);
        v
    }

    /// An integer operation on scalars, folded where both are known.
    pub fn int_op(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> ValueId {
        let (ca, cb) = (self.ints.get(&a).copied(), self.ints.get(&b).copied());
        match (op, ca, cb) {
            (BinaryOp::Add, Some(x), Some(y)) => self.int(x + y),
            (BinaryOp::Sub, Some(x), Some(y)) => self.int(x - y),
            (BinaryOp::Mul, Some(x), Some(y)) => self.int(x * y),
            (BinaryOp::Div, Some(x), Some(y)) if y > 0 => self.int(x.div_euclid(y)),
            (BinaryOp::Min, Some(x), Some(y)) => self.int(x.min(y)),
            (BinaryOp::Max, Some(x), Some(y)) => self.int(x.max(y)),
            (BinaryOp::Add, Some(0), _) | (BinaryOp::Mul, Some(1), _) => b,
            (BinaryOp::Add | BinaryOp::Sub, _, Some(0)) | (BinaryOp::Mul | BinaryOp::Div, _, Some(1)) => a,
            (BinaryOp::Mul, _, Some(0)) | (BinaryOp::Mul, Some(0), _) => self.int(0),
            _ => self.op(Op::Binary(op, a, b), I32),
        }
    }

    /// The work item.
    pub fn item(&mut self) -> ValueId {
        self.op(Op::Item, I32)
    }
    /// Remainder and quotient by a known size.
    pub fn split_item(&mut self, rest: ValueId, size: usize) -> (ValueId, ValueId) {
        if size == 1 {
            return (self.int(0), rest);
        }
        let n = self.int(size as i64);
        let part = self.op(Op::Rem(rest, n), I32);
        let left = self.int_op(BinaryOp::Div, rest, n);
        (part, left)
    }
    /// Where a tile of `span` starts, the last one shifted back into `0..size`.
    pub fn tile_start(&mut self, tile: ValueId, span: usize, size: usize) -> ValueId {
        if span >= size {
            return self.int(0);
        }
        let n = self.int(span as i64);
        let start = self.int_op(BinaryOp::Mul, tile, n);
        if size.is_multiple_of(span) {
            return start;
        }
        let last = self.int((size - span) as i64);
        self.int_op(BinaryOp::Min, start, last)
    }

    /// The value with as many lanes as the kernel's vectors.
    pub fn widen(&mut self, value: ValueId) -> ValueId {
        let ty = self.ty(value);
        if ty.lanes == self.lanes { value } else { self.op(Op::Splat(value), Type { lanes: self.lanes, ..ty }) }
    }

    /// Both with the same number of lanes.
    pub fn same_lanes(&mut self, a: ValueId, b: ValueId) -> (ValueId, ValueId) {
        if self.ty(a).lanes == self.ty(b).lanes { (a, b) } else { (self.widen(a), self.widen(b)) }
    }

    /// A pointwise operation, scalars widened as needed.
    pub fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> ValueId {
        if self.ty(a) == I32 && self.ty(b) == I32 && !op.is_comparison() {
            return self.int_op(op, a, b);
        }
        let (a, b) = self.same_lanes(a, b);
        let ty = self.ty(a);
        let elem = if op.is_comparison() { Elem::Bool } else { ty.elem };
        self.op(Op::Binary(op, a, b), Type { elem, ..ty })
    }

    /// `cond ? a : b`, scalars widened as needed.
    pub fn select(&mut self, cond: ValueId, a: ValueId, b: ValueId) -> ValueId {
        if a == b {
            return a;
        }
        let wide = [cond, a, b].iter().any(|&v| self.ty(v).lanes > 1);
        let [c, a, b] = if wide { [self.widen(cond), self.widen(a), self.widen(b)] } else { [cond, a, b] };
        let ty = self.ty(a);
        self.op(Op::Select(c, a, b), ty)
    }
}

impl Sizes for Scope<'_> {
    fn size_of(&self, var: VarId) -> i64 {
        self.view.size_of(var)
    }
}

/// How elements are held in buffers: booleans as u32.
pub fn stored_elem(elem: Elem) -> Elem {
    match elem {
        Elem::Bool => Elem::U32,
        Elem::F64 => Elem::F32,
        other => other,
    }
}
