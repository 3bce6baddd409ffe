//! Values of a program on pseudo-random inputs.

use foveate_compiler::grad::Seeds;
use foveate_compiler::interp::{self, Array};
use foveate_compiler::ir::*;

/// Numbers in -1..1 for every argument, and 0 to 5 where it holds integers.
pub fn arguments(p: &Program, seed: u64) -> Vec<(ArgRole, Array)> {
    let f = p.entry();
    let mut args = Vec::new();
    for (n, a) in f.args.iter().enumerate() {
        let shape = p.shape(f, a.tensor);
        let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ ((n as u64 + 1) << 32);
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
        };
        let whole = f.tensor(a.tensor).elem == Elem::I32;
        let number = |x: f64| if whole { (x * 3.0 + 3.0).floor() } else { x };
        let data = (0..shape.iter().product()).map(|_| number(draw())).collect();
        args.push((a.role.clone(), Array { shape, data }));
    }
    args
}

/// The results by name; inputs are in -1..1.
pub fn run(p: &Program, seed: u64) -> Vec<(String, Vec<f64>)> {
    let results = interp::run(p, &arguments(p, seed)).expect("the program reads inside its tensors");
    results.into_iter().map(|(role, a)| (format!("{role:?}"), a.data)).collect()
}

/// Cotangents of all float outputs, and the names of all float arguments.
pub fn everything(p: &Program) -> (Seeds, Vec<String>) {
    let f = p.entry();
    let float = |t: TensorId| f.tensor(t).elem != Elem::I32;
    let outputs = f.results.iter().filter(|r| float(r.tensor)).filter_map(|r| match &r.role {
        ResultRole::Output(n) => Some(n.clone()),
        _ => None,
    });
    let args = f.args.iter().filter(|a| float(a.tensor)).filter_map(|a| match &a.role {
        ArgRole::Param(n) | ArgRole::Input(n) => Some(n.clone()),
        _ => None,
    });
    (Seeds::Cotangents(outputs.collect()), args.collect())
}

/// Whether all values on the way are of moderate size for inputs from these seeds, and the greatest and smallest of each row apart from the next ones: products of
/// products grow until neither f32 nor a difference quotient says anything, and rounding decides about what is nearly equal.
pub fn is_tame(p: &Program, seeds: &[u64]) -> bool {
    let mut all = p.clone();
    for n in 0..all.functions.len() {
        add_rivals(&mut all, n);
        give_all(&mut all, n);
    }
    let fine = |(name, values): &(String, Vec<f64>)| {
        let most = if name.contains(RIVALS) { 1.0 } else { 1e3 };
        values.iter().all(|x| x.abs() < most)
    };
    seeds.iter().all(|&seed| run(&all, seed).iter().all(fine))
}

const RIVALS: &str = "rivals";

/// Counts, for every extreme value of a function, the points that have nearly this value and not the same.
fn add_rivals(p: &mut Program, n: usize) {
    let f = &mut p.functions[n];
    for stmt in f.body.clone() {
        let Stmt::Define(d) = stmt else { continue };
        for c in d.clauses {
            let Node::Reduce(r) = *c.body.node else { continue };
            let op = match r.op {
                Monoid::Max | Monoid::ArgMax => Monoid::Max,
                Monoid::Min | Monoid::ArgMin => Monoid::Min,
                _ => continue,
            };
            let mut define = |name: &str, body: Expr| {
                let dims = c.vars.iter().map(|&v| f.var(v).axis).collect();
                let tensor = f.new_tensor(name, Elem::F64, dims, None);
                let at: Vec<Index> = c.vars.iter().map(|&v| v.into()).collect();
                let clauses = vec![Clause { vars: c.vars.clone(), at: at.clone(), body }];
                f.body.push(Stmt::Define(Definition { tensor, clauses, keep: Keep::Auto }));
                Expr::read(Elem::F64, tensor, at)
            };
            let best = define("best", Expr::reduce(op, r.vars.clone(), r.guard.clone(), r.body.clone()));
            let number = |x| Expr::constant(Elem::F64, x);
            let apart = Expr::unary(UnaryOp::Abs, Expr::sub(r.body.clone(), best.clone()));
            let near = Expr::mul(number(1e-3), Expr::add(number(1.0), Expr::unary(UnaryOp::Abs, best)));
            let is = |op, a: &Expr, b: Expr| Pred::Value(Expr::binary(op, a.clone(), b));
            let rival = Pred::and([is(BinaryOp::Gt, &apart, number(0.0)), is(BinaryOp::Lt, &apart, near)]);
            // The guard comes first: what the body reads may be outside elsewhere.
            let one = Expr::select(rival, number(1.0), number(0.0));
            define(RIVALS, Expr::sum(r.vars.clone(), r.guard.clone(), one));
        }
    }
}

/// Makes everything that a function defines a result, for its callers too.
fn give_all(p: &mut Program, n: usize) {
    let f = &p.functions[n];
    let made: Vec<TensorId> = f.body.iter().flat_map(Stmt::defines).collect();
    let types: Vec<Tensor> = made.iter().map(|&t| f.tensor(t).clone()).collect();
    let role = |t: TensorId, ty: &Tensor| ResultRole::Output(format!("{}.{t}", ty.name));
    let results = made.iter().zip(&types).map(|(&tensor, ty)| FnResult { tensor, role: role(tensor, ty) });
    p.functions[n].results.extend(results);
    for caller in &mut p.functions[n + 1..] {
        let mut body = std::mem::take(&mut caller.body);
        for stmt in &mut body {
            let Stmt::Call(call) = stmt else { continue };
            if call.function.index() == n {
                let new = |ty: &Tensor| caller.new_tensor(&ty.name, ty.elem, ty.dims.clone(), None);
                call.results.extend(types.iter().map(new));
            }
        }
        caller.body = body;
    }
}
