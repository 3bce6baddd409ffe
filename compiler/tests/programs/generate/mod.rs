//! Random programs.
//!
//! A list of bytes is a list of choices, so that proptest shrinks it. Values stay in ranges where f32 and difference quotients say something: what has
//! poles or grows is applied to what is bounded.

mod calls;
mod groups;
mod points;

use crate::build::*;
use foveate_compiler::ir::*;
use points::{expr, pred};

/// How many random programs are tried: `PROPTEST_CASES`, or as many as usual.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Draws numbers from a list.
pub struct Draw<'a> {
    from: &'a [u8],
    at: usize,
}

impl Draw<'_> {
    fn below(&mut self, n: usize) -> usize {
        let x = self.from.get(self.at).copied().unwrap_or(0) as usize;
        self.at += 1;
        x % n
    }
    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const SIZES: [usize; 4] = [1, 3, 4, 6];

/// A tensor that may be read: the sizes of its dimensions but the batch.
#[derive(Clone)]
struct Known {
    id: TensorId,
    shape: Vec<usize>,
    batched: bool,
}

/// The variables that are bound: the batch's and the others, with their sizes.
#[derive(Clone, Default)]
struct Scope {
    batch: Option<VarId>,
    vars: Vec<(VarId, usize)>,
}

impl Scope {
    /// All of them, the batch first.
    fn all(&self) -> Vec<VarId> {
        self.batch.into_iter().chain(self.vars.iter().map(|(v, _)| *v)).collect()
    }
    fn shape(&self) -> Vec<usize> {
        self.vars.iter().map(|(_, n)| *n).collect()
    }
    /// With more variables.
    fn with(&self, more: &[(VarId, usize)]) -> Scope {
        Scope { batch: self.batch, vars: [&self.vars, more].concat() }
    }
}

/// A function under construction.
struct World {
    b: Build,
    /// The size of the batch, if there is one.
    batch: Option<usize>,
    floats: Vec<Known>,
    /// Tensors of i32.
    labels: Vec<Known>,
    /// Functions that are called; they come before this one.
    callees: Vec<Function>,
}

impl World {
    fn new(axes: Vec<Axis>, batch: Option<usize>) -> World {
        let mut b = Build::new();
        b.program.axes = axes;
        World { b, batch, floats: Vec::new(), labels: Vec::new(), callees: Vec::new() }
    }
    fn known(&mut self, elem: Elem) -> &mut Vec<Known> {
        if elem == Elem::I32 { &mut self.labels } else { &mut self.floats }
    }
    /// A new tensor over the batch, if asked for, and dimensions of these sizes.
    fn tensor(&mut self, name: &str, elem: Elem, batched: bool, shape: &[usize]) -> TensorId {
        let program = &mut self.b.program;
        let batch = self.batch.filter(|_| batched).map(|n| program.atom("Batch", n));
        let dims = shape.iter().map(|&n| program.atom(&format!("N{n}"), n)).collect::<Vec<_>>();
        let dims = batch.into_iter().chain(dims).collect();
        self.b.function().new_tensor(name, elem, dims, None)
    }
    /// A new argument, which may be read.
    fn argument(&mut self, role: ArgRole, elem: Elem, shape: &[usize]) -> TensorId {
        let batched = self.batch.is_some() && matches!(role, ArgRole::Input(_));
        let (ArgRole::Input(name) | ArgRole::Param(name)) = &role else { unreachable!("inputs and parameters") };
        let id = self.tensor(name, elem, batched, shape);
        self.b.function().args.push(Arg { tensor: id, role });
        self.known(elem).push(Known { id, shape: shape.to_vec(), batched });
        id
    }
    /// New variables, each of one of a few sizes.
    fn vars(&mut self, d: &mut Draw, letter: &str, count: usize) -> Vec<(VarId, usize)> {
        let new = |k| {
            let size = d.of(&SIZES);
            (self.b.var(&format!("{letter}{k}"), size), size)
        };
        (0..count).map(new).collect()
    }
    /// Variables of a definition: that of the batch, if there is one, but for now and then, and up to `most` others.
    fn scope(&mut self, d: &mut Draw, most: usize) -> Scope {
        let batch = self.batch.filter(|_| d.below(4) > 0).map(|n| self.b.var("Batch", n));
        let count = d.below(most + 1);
        Scope { batch, vars: self.vars(d, "a", count) }
    }
    /// `name[scope] = body`, which may be read from now on.
    fn define(&mut self, name: &str, scope: &Scope, body: Expr) -> TensorId {
        let elem = body.elem;
        let id = self.b.define(name, &scope.all(), body);
        self.known(elem).push(Known { id, shape: scope.shape(), batched: scope.batch.is_some() });
        id
    }
    /// Makes what was defined last, of floats and of labels, results.
    fn give_last(&mut self) {
        let last: Vec<TensorId> =
            [self.floats.last(), self.labels.last()].into_iter().flatten().map(|k| k.id).collect();
        for id in last {
            let f = self.b.function();
            let defined = f.body.iter().flat_map(Stmt::defines).any(|t| t == id);
            if defined && f.results.iter().all(|r| r.tensor != id) {
                self.b.result(id);
            }
        }
    }
}

/// One definition by itself: pointwise, or a reduction.
fn plain(d: &mut Draw, w: &mut World, name: &str) {
    let outer = w.scope(d, 3);
    let mut all = outer.clone();
    let reduce = d.below(3) > 0;
    let mut inner = Vec::new();
    if reduce {
        let count = 1 + d.below(2);
        let vars = w.vars(d, "r", count);
        inner.extend(vars.iter().map(|(v, _)| *v));
        all = all.with(&vars);
        // Now and then a sum over the batch.
        if outer.batch.is_none()
            && let Some(n) = w.batch
            && d.below(2) == 0
        {
            let b = w.b.var("Batch", n);
            inner.push(b);
            all.batch = Some(b);
        }
    }
    let mut body = expr(d, w, &all, 3);
    if reduce {
        let op = d.of(&[Monoid::Sum, Monoid::Sum, Monoid::Sum, Monoid::Prod, Monoid::Min, Monoid::Max]);
        // The minimum of nothing is infinite, and the IR's algebra is that of the reals.
        let whole = matches!(op, Monoid::Min | Monoid::Max) || d.below(2) == 0;
        let guard = if whole { Pred::True } else { pred(d, w, &all) };
        body = Expr::reduce(op, inner, guard, body);
    }
    // Now and then the last two dimensions are merged into one.
    if let ([first @ .., (a, m), (c, n)], 0) = (outer.vars.as_slice(), d.below(4)) {
        let shape: Vec<usize> = first.iter().map(|(_, n)| *n).chain([m * n]).collect();
        let merged = Index::from(*a).scale(*n as i64).add(&(*c).into());
        let place = outer.batch.into_iter().chain(first.iter().map(|(v, _)| *v)).map(Index::from).chain([merged]);
        let batched = outer.batch.is_some();
        let id = w.tensor(name, Elem::F64, batched, &shape);
        w.b.clauses(id, vec![Clause { vars: outer.all(), at: place.collect(), body }]);
        w.floats.push(Known { id, shape, batched });
    } else {
        w.define(name, &outer, body);
    }
}

/// A definition, or a few that belong together.
fn definitions(d: &mut Draw, w: &mut World, name: &str, outermost: bool) {
    match d.below(12) {
        0 | 1 => groups::softmax(d, w, name),
        2 => groups::pieces(d, w, name),
        3 => groups::extremes(d, w, name),
        4 => groups::by_key(d, w, name),
        5 if outermost => calls::repeated(d, w, name),
        _ => plain(d, w, name),
    }
}

/// The program that a list of choices makes.
pub fn program(seed: &[u8]) -> Program {
    let mut d = Draw { from: seed, at: 0 };
    let batch = [None, None, Some(2), Some(3)][d.below(4)];
    let mut w = World::new(Vec::new(), batch);
    for (n, name) in ["x", "y", "z"].iter().enumerate() {
        let shape: Vec<usize> = (0..1 + n % 3).map(|_| d.of(&SIZES)).collect();
        let role = if n == 2 { ArgRole::Param } else { ArgRole::Input };
        w.argument(role((*name).to_owned()), Elem::F64, &shape);
    }
    if d.below(2) == 0 {
        let shape: Vec<usize> = (0..1 + d.below(2)).map(|_| d.of(&SIZES)).collect();
        w.argument(ArgRole::Input("label".to_owned()), Elem::I32, &shape);
    }
    let count = 3 + d.below(5);
    for n in 0..count {
        definitions(&mut d, &mut w, &format!("d{n}"), true);
        if d.below(3) == 0 || n + 1 == count {
            w.give_last();
        }
    }
    let World { b, mut callees, .. } = w;
    let mut program = b.program;
    callees.append(&mut program.functions);
    program.entry = FuncId(callees.len() as u32 - 1);
    program.functions = callees;
    program
}
