//! Values of a program on pseudo-random inputs.

use foveate_compiler::grad::Seeds;
use foveate_compiler::interp::{self, Array};
use foveate_compiler::ir::{ArgRole, FnResult, Program, ResultRole, Stmt, TensorId};

/// Numbers in -1..1 for every argument.
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
        let data = (0..shape.iter().product()).map(|_| draw()).collect();
        args.push((a.role.clone(), Array { shape, data }));
    }
    args
}

/// The results by name; inputs are in -1..1.
pub fn run(p: &Program, seed: u64) -> Vec<(String, Vec<f64>)> {
    let results = interp::run(p, &arguments(p, seed)).expect("the program reads inside its tensors");
    results.into_iter().map(|(role, a)| (format!("{role:?}"), a.data)).collect()
}

/// Cotangents of all outputs, and the names of all arguments.
pub fn everything(p: &Program) -> (Seeds, Vec<String>) {
    let f = p.entry();
    let outputs = f.results.iter().filter_map(|r| match &r.role {
        ResultRole::Output(n) => Some(n.clone()),
        _ => None,
    });
    let args = f.args.iter().filter_map(|a| match &a.role {
        ArgRole::Param(n) | ArgRole::Input(n) => Some(n.clone()),
        _ => None,
    });
    (Seeds::Cotangents(outputs.collect()), args.collect())
}

/// Whether all values on the way are of moderate size: products of products grow until neither f32 nor a difference quotient says anything.
pub fn is_tame(p: &Program) -> bool {
    let mut all = p.clone();
    let f = &mut all.functions[0];
    let tensors: Vec<TensorId> = f.body.iter().flat_map(Stmt::defines).collect();
    f.results =
        tensors.iter().map(|&tensor| FnResult { tensor, role: ResultRole::Output(tensor.to_string()) }).collect();
    run(&all, 5).iter().all(|(_, values)| values.iter().all(|x| x.abs() < 1e3))
}
