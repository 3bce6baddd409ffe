//! What tests of several stages share: programs made by hand, and gradients checked against finite differences.

use crate::grad::{Seeds, differentiate};
use crate::interp::{Array, run};
use crate::ir::*;
use crate::loops::eval::BufferData;
use crate::schedule::{Facts, host, schedule};

/// A program of one function under construction.
pub struct Make {
    /// Axes and functions so far.
    pub program: Program,
    /// The entry function.
    pub f: Function,
}

impl Make {
    /// An empty one.
    pub fn new() -> Make {
        let f = Function {
            name: "main".into(),
            tensors: vec![],
            vars: vec![],
            args: vec![],
            body: vec![],
            results: vec![],
        };
        Make { program: Program { axes: vec![], functions: vec![], entry: crate::ir::FuncId(0) }, f }
    }
    /// Axes of these sizes.
    pub fn dims(&mut self, shape: &[usize]) -> Vec<crate::ir::AxisId> {
        shape.iter().map(|&n| self.program.atom(&format!("A{n}"), n)).collect()
    }
    /// An f32 input.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> TensorId {
        let dims = self.dims(shape);
        let t = self.f.new_tensor(name, Elem::F32, dims, None);
        self.f.args.push(crate::ir::Arg { tensor: t, role: ArgRole::Input(name.into()) });
        t
    }
    /// An f32 parameter.
    pub fn param(&mut self, name: &str, shape: &[usize]) -> TensorId {
        let t = self.input(name, shape);
        self.f.args.last_mut().unwrap().role = ArgRole::Param(name.into());
        t
    }
    /// A variable over `0..n`.
    pub fn var(&mut self, n: usize) -> VarId {
        let a = self.program.atom(&format!("A{n}"), n);
        self.f.new_var("v", a)
    }
    /// A definition over the variables.
    pub fn def(&mut self, name: &str, vars: &[VarId], body: Expr) -> TensorId {
        let dims = vars.iter().map(|&v| self.f.var(v).axis).collect();
        let t = self.f.new_tensor(name, body.elem, dims, None);
        let at = vars.iter().map(|&v| v.into()).collect();
        let clause = Clause { vars: vars.to_vec(), at, body };
        self.f.body.push(Stmt::Define(Definition { tensor: t, clauses: vec![clause], keep: Keep::Auto }));
        t
    }
    /// Makes a tensor a result of its name.
    pub fn result(&mut self, t: TensorId) {
        let name = self.f.tensor(t).name.clone();
        self.f.results.push(crate::ir::FnResult { tensor: t, role: ResultRole::Output(name) });
    }
    /// The finished program.
    pub fn program(mut self) -> Program {
        self.program.functions.push(self.f);
        self.program
    }
}

/// A read at variables.
pub fn rd(t: TensorId, at: &[VarId]) -> Expr {
    Expr::read(Elem::F32, t, at.iter().map(|&v| v.into()).collect())
}

/// Reproducible numbers in -1..1.
pub fn fill(n: usize, seed: u32) -> Vec<f32> {
    (0..n).map(|i| crate::ir::expr::random(seed, 1, 2, i as u32) * 2.0 - 1.0).collect()
}

/// Softmax attention over a grid; gives the result and the probabilities.
pub fn attention(m: &mut Make, b: usize, n: (usize, usize), h: usize, d: usize) -> (TensorId, TensorId) {
    let shape = [b, n.0, n.1, h, d];
    let (q, k, v) = (m.input("q", &shape), m.input("k", &shape), m.input("v", &shape));
    let new = |m: &mut Make| (m.var(b), m.var(h), m.var(n.0), m.var(n.1), m.var(n.0), m.var(n.1));
    let (vb, vh, iy, ix, jy, jx) = new(m);
    let vd = m.var(d);
    let dot = Expr::mul(rd(q, &[vb, iy, ix, vh, vd]), rd(k, &[vb, jy, jx, vh, vd]));
    let dot = m.def("dot", &[vb, vh, iy, ix, jy, jx], Expr::sum(vec![vd], Pred::True, dot));
    let scaled = Expr::mul(rd(dot, &[vb, vh, iy, ix, jy, jx]), Expr::constant(Elem::F32, 1.0 / (d as f64).sqrt()));
    let s = m.def("score", &[vb, vh, iy, ix, jy, jx], scaled);
    let at = [vb, vh, iy, ix, jy, jx];
    let max = m.def("max", &at[..4], Expr::reduce(Monoid::Max, vec![jy, jx], Pred::True, rd(s, &at)));
    let e = Expr::unary(UnaryOp::Exp, Expr::sub(rd(s, &at), rd(max, &at[..4])));
    let e = m.def("e", &at, e);
    let l = m.def("l", &at[..4], Expr::sum(vec![jy, jx], Pred::True, rd(e, &at)));
    let p = m.def("p", &at, Expr::div(rd(e, &at), rd(l, &at[..4])));
    let body = Expr::mul(rd(p, &at), rd(v, &[vb, jy, jx, vh, vd]));
    let y = m.def("y", &[vb, iy, ix, vh, vd], Expr::sum(vec![jy, jx], Pred::True, body));
    (y, p)
}

/// Numbers for every argument of a program.
pub fn arguments(program: &Program) -> Vec<(ArgRole, Array)> {
    let f = program.entry();
    f.args
        .iter()
        .enumerate()
        .map(|(n, a)| {
            let shape = program.shape(f, a.tensor);
            let len = shape.iter().product();
            let data = fill(len, n as u32 + 7).into_iter().map(f64::from).collect();
            (a.role.clone(), Array { shape, data })
        })
        .collect()
}

/// Checks the gradients of all float arguments for random cotangents of all outputs, at up to 12 elements each.
pub fn check_gradients(program: &Program) {
    verify::verify(program).unwrap_or_else(|e| panic!("{e}\n{program}"));
    let f = program.entry();
    let outputs: Vec<String> = f
        .results
        .iter()
        .filter_map(|r| match &r.role {
            ResultRole::Output(n) => Some(n.clone()),
            _ => None,
        })
        .collect();
    let wrt: Vec<String> = f
        .args
        .iter()
        .filter_map(|a| match &a.role {
            ArgRole::Param(n) | ArgRole::Input(n) if f.tensor(a.tensor).elem == Elem::F32 => Some(n.clone()),
            _ => None,
        })
        .collect();
    let derived = differentiate(program, &Seeds::Cotangents(outputs.clone()), &wrt).expect("differentiable");
    verify::verify(&derived).unwrap_or_else(|e| panic!("{e}\n{derived}"));
    let args = arguments(&derived);
    let results = run(&derived, &args).unwrap_or_else(|e| panic!("{e}\n{derived}"));
    check_schedule(&derived, &args);
    let scalar = |args: &[(ArgRole, Array)]| -> f64 {
        run(program, args)
            .expect("the program runs")
            .iter()
            .filter_map(|(role, value)| {
                let ResultRole::Output(name) = role else { return None };
                let (_, c) = args.iter().find(|(r, _)| *r == ArgRole::Cotangent(name.clone()))?;
                Some(value.data.iter().zip(&c.data).map(|(a, b)| a * b).sum::<f64>())
            })
            .sum()
    };
    for (n, a) in f.args.iter().enumerate() {
        let (ArgRole::Param(name) | ArgRole::Input(name)) = &a.role else { continue };
        let Some((_, grad)) = results.iter().find(|(r, _)| *r == ResultRole::Grad(name.clone())) else { continue };
        let len = grad.data.len();
        for e in (0..len).step_by(len.div_ceil(12)) {
            let h = 1e-5;
            let at = |delta: f64| {
                let mut args = args.clone();
                args[n].1.data[e] += delta;
                scalar(&args)
            };
            let numeric = (at(h) - at(-h)) / (2.0 * h);
            let got = grad.data[e];
            assert!(
                (numeric - got).abs() < 1e-6 * (1.0 + numeric.abs()),
                "d/d{name}[{e}]: {got}, by differences {numeric}\n{derived}"
            );
        }
    }
}

/// Checks that the program's kernels, for vectors of several widths, give what the interpreter gives.
pub fn check_schedule(program: &Program, args: &[(ArgRole, Array)]) {
    let want = run(program, args).unwrap_or_else(|e| panic!("{e}\n{program}"));
    let processor = |(lanes, local_bytes)| Facts { lanes, local_bytes, ..Facts::USUAL };
    let graphics = |(units, pairs)| {
        let processor = Facts { lanes: 4, local_bytes: 4096, registers: 16, ..Facts::USUAL };
        Facts { units, pairs, lockstep: true, ..processor }
    };
    // With little local memory, long rows are gone through strip by strip.
    let processors = [(16, 49152), (8, 1024), (4, 49152), (4, 256), (1, 49152), (1, 64)].map(processor);
    for facts in processors.into_iter().chain([(8, 0), (1 << 15, 1 << 20)].map(graphics)) {
        let g = schedule(program, &facts);
        let arg = |role: &ArgRole| {
            let (_, a) = args.iter().find(|(r, _)| r == role).expect("every argument has a value");
            let elem =
                program.entry().args.iter().find(|a| a.role == *role).map(|a| program.entry().tensor(a.tensor).elem);
            match elem {
                Some(Elem::I32) => BufferData::I32(a.data.iter().map(|x| *x as i32).collect()),
                Some(Elem::U32 | Elem::Bool) => BufferData::U32(a.data.iter().map(|x| *x as u32).collect()),
                _ => BufferData::F32(a.data.iter().map(|x| *x as f32).collect()),
            }
        };
        for (roles, data) in host::run(&g, &arg).unwrap_or_else(|e| panic!("{e}")) {
            let (_, expected) = want.iter().find(|(r, _)| *r == roles[0]).expect("every result has a buffer");
            let got: Vec<f64> = match data {
                BufferData::F32(v) => v.into_iter().map(f64::from).collect(),
                BufferData::I32(v) => v.into_iter().map(f64::from).collect(),
                BufferData::U32(v) => v.into_iter().map(f64::from).collect(),
            };
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
            let size = norm(&mut expected.data.iter().copied());
            let error = norm(&mut expected.data.iter().zip(&got).map(|(a, b)| a - b));
            assert!(error <= 2e-5 * size + 1e-5, "{:?} with {facts:?}: error {error} of {size}\n{program}", roles[0]);
        }
    }
}
