//! The same program gives the same bits again, on any number of threads.

use foveate_codegen::Device as Kernels;
use foveate_compiler::grad::Seeds;
use foveate_compiler::ir::ResultRole;
use foveate_compiler::schedule::variants::Choices;
use foveate_runtime::device::Device;
use foveate_runtime::driver::{Request, Source, Wrt};
use foveate_runtime::plan::{Bindings, Memory, Session};
use foveate_tests::golden::{CASES, Case, root};
use std::sync::Arc;

/// The bits of all outputs and gradients of a golden case, of the first and of the second run of one session.
fn bits(case: &Case, device: Device) -> [Vec<(ResultRole, Vec<u64>)>; 2] {
    let source = Source::load(&root().join("specs").join(case.spec)).unwrap_or_else(|e| panic!("{e}"));
    let (inputs, params, cotangents) = (case.tensors("input"), case.tensors("param"), case.tensors("cotangent"));
    let shapes = |tensors: &[(String, foveate_runtime::checkpoint::Tensor)]| -> Vec<(String, Vec<usize>)> {
        tensors.iter().map(|(n, t)| (n.clone(), t.shape.clone())).collect()
    };
    let settings = source.infer(Some(case.item), &case.values(), &shapes(&inputs), &shapes(&params));
    let settings = settings.unwrap_or_else(|e| panic!("{e}"));
    let outputs: Vec<String> = cotangents.iter().map(|(n, _)| n.clone()).collect();
    let request = Request {
        item: Some(case.item),
        settings: &settings,
        training: true,
        random: true,
        batch: inputs[0].1.shape[0],
        exposed: Vec::new(),
        gradients: Some((if outputs.is_empty() { Seeds::Loss } else { Seeds::Cotangents(outputs) }, Wrt::Params)),
        choices: Choices::NONE,
    };
    let compiled = source.compile(&request, device.facts().as_ref()).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new(device).expect("memory");
    let session = Session::new(&mut memory, &compiled.program, compiled.graph.as_ref(), &Bindings::NONE);
    let session = session.unwrap_or_else(|e| panic!("{e}"));
    use foveate_compiler::ir::ArgRole::{Cotangent, Input, Param};
    let inputs = inputs.into_iter().map(|(n, t)| (Input(n), t));
    let params = params.into_iter().map(|(n, t)| (Param(n), t));
    for (role, tensor) in inputs.chain(params).chain(cotangents.into_iter().map(|(n, t)| (Cotangent(n), t))) {
        if let Some(place) = session.arg(&role) {
            memory.write(place, &tensor.data).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    [1, 2].map(|_| {
        session.run(&mut memory).unwrap_or_else(|e| panic!("{e}"));
        let read = |role: &ResultRole| {
            let (place, elem, _) = session.result(role).expect("a result has a place");
            memory.read_f64(place, elem).expect("readable").into_iter().map(f64::to_bits).collect()
        };
        compiled.program.entry().results.iter().map(|r| (r.role.clone(), read(&r.role))).collect()
    })
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    for case in CASES.iter().copied() {
        let on = |threads| bits(&case, Device::Kernels(Arc::new(Kernels::processor(threads))));
        let [first, again] = on(1);
        for other in [vec![again], on(2).to_vec(), on(5).to_vec()].into_iter().flatten() {
            for ((role, a), (_, b)) in first.iter().zip(&other) {
                assert!(a == b, "{}: {role:?} has other bits", case.name);
            }
        }
    }
}
