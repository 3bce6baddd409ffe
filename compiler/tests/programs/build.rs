//! Programs of one function, written by hand, and whether rewriting keeps their values.

use foveate_compiler::ir::*;
use foveate_compiler::rewrite::{Pass, Report, pipeline};

/// A program under construction.
pub struct Build {
    pub program: Program,
}

impl Build {
    pub fn new() -> Build {
        let f = Function {
            name: "main".to_owned(),
            tensors: Vec::new(),
            vars: Vec::new(),
            args: Vec::new(),
            body: Vec::new(),
            results: Vec::new(),
        };
        Build { program: Program { axes: Vec::new(), functions: vec![f], entry: FuncId(0) } }
    }
    pub fn function(&mut self) -> &mut Function {
        &mut self.program.functions[0]
    }
    pub fn var(&mut self, name: &str, size: usize) -> VarId {
        let axis = self.program.atom(name, size);
        self.function().new_var(name, axis)
    }
    fn tensor(&mut self, name: &str, shape: &[usize]) -> TensorId {
        let dims = shape.iter().map(|&n| self.program.atom(&format!("N{n}"), n)).collect();
        self.function().new_tensor(name, Elem::F64, dims, None)
    }
    pub fn input(&mut self, name: &str, shape: &[usize]) -> TensorId {
        let tensor = self.tensor(name, shape);
        self.function().args.push(Arg { tensor, role: ArgRole::Input(name.to_owned()) });
        tensor
    }
    pub fn param(&mut self, name: &str, shape: &[usize]) -> TensorId {
        let tensor = self.tensor(name, shape);
        self.function().args.push(Arg { tensor, role: ArgRole::Param(name.to_owned()) });
        tensor
    }
    /// `name[vars] = body`.
    pub fn define(&mut self, name: &str, vars: &[VarId], body: Expr) -> TensorId {
        let dims = vars.iter().map(|&v| self.program.functions[0].var(v).axis).collect();
        let tensor = self.function().new_tensor(name, body.elem, dims, None);
        self.clauses(tensor, vec![Clause { vars: vars.to_vec(), at: at(vars), body }]);
        tensor
    }
    /// A definition by clauses over dimensions of these sizes.
    pub fn define_clauses(&mut self, name: &str, shape: &[usize], clauses: Vec<Clause>) -> TensorId {
        let tensor = self.tensor(name, shape);
        self.clauses(tensor, clauses);
        tensor
    }
    /// The definition of a tensor by clauses.
    pub fn clauses(&mut self, tensor: TensorId, clauses: Vec<Clause>) {
        self.function().body.push(Stmt::Define(Definition { tensor, clauses, keep: Keep::Auto }));
    }
    pub fn result(&mut self, tensor: TensorId) {
        let name = self.function().tensor(tensor).name.clone();
        self.function().results.push(FnResult { tensor, role: ResultRole::Output(name) });
    }
}

pub fn at(vars: &[VarId]) -> Vec<Index> {
    vars.iter().map(|&v| v.into()).collect()
}
pub fn read(t: TensorId, vars: &[VarId]) -> Expr {
    Expr::read(Elem::F64, t, at(vars))
}
pub fn read_at(t: TensorId, at: Vec<Index>) -> Expr {
    Expr::read(Elem::F64, t, at)
}
pub fn num(x: f64) -> Expr {
    Expr::constant(Elem::F64, x)
}
pub fn value(i: Index) -> Expr {
    Expr::index(Elem::F64, i)
}
pub fn minus(a: VarId, b: VarId) -> Index {
    Index::from(a).sub(&b.into())
}
pub fn sum(vars: &[VarId], body: Expr) -> Expr {
    Expr::sum(vars.to_vec(), Pred::True, body)
}
pub fn max(vars: &[VarId], body: Expr) -> Expr {
    Expr::reduce(Monoid::Max, vars.to_vec(), Pred::True, body)
}
pub fn exp(a: Expr) -> Expr {
    Expr::unary(UnaryOp::Exp, a)
}
pub fn relu(a: Expr) -> Expr {
    Expr::binary(BinaryOp::Max, a, num(0.0))
}
pub fn cos(a: Expr) -> Expr {
    Expr::unary(UnaryOp::Cos, a)
}
pub fn abs(a: Expr) -> Expr {
    Expr::unary(UnaryOp::Abs, a)
}

/// Runs passes on a copy, checks that all results keep their values on inputs from `seed`, and gives the copy and the report.
pub fn rewritten(before: &Program, passes: &[Pass]) -> (Program, Report) {
    let mut after = before.clone();
    let report = pipeline::run(&mut after, passes, pipeline::Options::default(), &mut |_, _| {}).expect("verifies");
    let agree = |after: &Program| {
        for seed in 0..2 {
            let (a, b) = (crate::value::run(before, seed), crate::value::run(after, seed));
            assert_eq!(a.len(), b.len());
            for ((name, x), (_, y)) in a.iter().zip(&b) {
                assert_eq!(x.len(), y.len(), "{name}");
                for (n, (x, y)) in x.iter().zip(y).enumerate() {
                    let same = (x - y).abs() <= 1e-9 * (1.0 + x.abs()) || (x.is_nan() && y.is_nan()) || x == y;
                    assert!(same, "{name}[{n}]: {x} became {y}");
                }
            }
        }
    };
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| agree(&after))).is_err() {
        // Which pass it was.
        let mut step = before.clone();
        for pass in passes {
            let was = step.clone();
            let mut report = Report::default();
            (pass.run)(&mut step, &mut report);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| agree(&step))).is_err() {
                panic!("after `{}`: {report:#?}\nbefore it: {was}\nafter it: {step}", pass.name);
            }
        }
        panic!("the passes together change values, and none of them alone");
    }
    (after, report)
}

/// One pass by itself.
pub fn alone(name: &'static str, run: fn(&mut Program, &mut Report)) -> Vec<Pass> {
    vec![Pass { name, description: "", run }]
}

/// The definition of a name in the entry function.
pub fn shapes_of(p: &Program, name: &str) -> Vec<Vec<usize>> {
    let f = p.entry();
    f.body.iter().flat_map(|s| s.defines()).filter(|&t| f.tensor(t).name == name).map(|t| p.shape(f, t)).collect()
}
