//! Random programs on the processor: compiled kernels, of the program as it is and of what the rewrites make of it, under the usual and under other
//! schedules, give what the interpreter gives, and the same bits every time.

#[allow(dead_code)]
#[path = "../../compiler/tests/programs/build.rs"]
mod build;
#[path = "../../compiler/tests/programs/generate/mod.rs"]
mod generate;
#[allow(dead_code)]
#[path = "../../compiler/tests/programs/value.rs"]
mod value;

use foveate_compiler::grad::differentiate;
use foveate_compiler::interp;
use foveate_compiler::ir::{Elem, Program, ResultRole};
use foveate_compiler::rewrite::pipeline;
use foveate_compiler::schedule::schedule_chosen;
use foveate_compiler::schedule::variants::{Choices, Variant};
use foveate_runtime::checkpoint::Data;
use foveate_runtime::device::Device;
use foveate_runtime::plan::{Bindings, Memory, Session};
use proptest::prelude::*;
use std::sync::OnceLock;

/// All results of a program's kernels.
fn on_device(device: &Device, program: &Program, choices: &Choices) -> Vec<(ResultRole, Vec<f64>)> {
    let facts = device.facts().expect("kernels are scheduled for it");
    let graph = schedule_chosen(program, &facts, choices);
    let mut memory = Memory::new(device.clone()).expect("memory");
    let session = Session::new(&mut memory, program, Some(&graph), &Bindings::NONE);
    let session = session.unwrap_or_else(|e| panic!("{e}\n{program}"));
    for (role, value) in value::arguments(program, 3) {
        let place = session.arg(&role).expect("every argument has a place");
        let whole =
            program.entry().args.iter().any(|a| a.role == role && program.entry().tensor(a.tensor).elem == Elem::I32);
        let data =
            if whole { Data::I64(value.data.iter().map(|x| *x as i64).collect()) } else { Data::F64(value.data) };
        memory.write(place, &data).expect("the sizes agree");
    }
    session.run(&mut memory).unwrap_or_else(|e| panic!("{e}\n{program}"));
    let read = |role: &ResultRole| {
        let (place, elem, _) = session.result(role).expect("every result has a place");
        memory.read_f64(place, elem).expect("readable")
    };
    program.entry().results.iter().map(|r| (r.role.clone(), read(&r.role))).collect()
}

fn processor() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| Device::open("cpu").expect("this build has the processor")).clone()
}

fn agree(program: &Program, choices: &Choices) {
    let want = interp::run(program, &value::arguments(program, 3)).unwrap_or_else(|e| panic!("{e}\n{program}"));
    let got = on_device(&processor(), program, choices);
    for ((role, want), (_, got)) in want.iter().zip(&got) {
        let size = want.data.iter().map(|x| x * x).sum::<f64>().sqrt();
        if !size.is_finite() || size > 1e6 {
            continue;
        }
        let error = want.data.iter().zip(got).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        assert!(error <= 1e-4 * size + 1e-3, "{role:?}: error {error} of {size}\n{program}");
    }
    let bits = |results: &[(ResultRole, Vec<f64>)]| -> Vec<u64> {
        results.iter().flat_map(|(_, v)| v.iter().map(|x| x.to_bits())).collect()
    };
    assert_eq!(bits(&on_device(&processor(), program, choices)), bits(&got), "not the same bits again\n{program}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: generate::cases(12), max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn kernels_give_what_the_interpreter_gives(seed in proptest::collection::vec(any::<u8>(), 40..400)) {
        let plain = generate::program(&seed);
        prop_assume!(value::is_tame(&plain, &[3]));
        agree(&plain, Choices::NONE);
        let mut better = plain;
        pipeline::run(&mut better, pipeline::BEFORE, pipeline::Options::default(), &mut |_, _| {}).expect("verifies");
        agree(&better, Choices::NONE);
        let (seeds, wrt) = value::everything(&better);
        let mut gradient = differentiate(&better, &seeds, &wrt).expect("differentiable");
        pipeline::run(&mut gradient, pipeline::AFTER, pipeline::Options::default(), &mut |_, _| {}).expect("verifies");
        agree(&gradient, Choices::NONE);
        agree(&gradient, &Choices::everywhere(Variant::OTHERS[seed.len() % Variant::OTHERS.len()]));
    }
}
