//! Random programs, their gradients included, through the schedules: kernels against the interpreter.

use crate::generate::{cases, program};
use crate::value::{self, is_tame};
use foveate_compiler::grad::differentiate;
use foveate_compiler::interp::{self, Array};
use foveate_compiler::ir::*;
use foveate_compiler::loops::digest::Digest;
use foveate_compiler::loops::eval::BufferData;
use foveate_compiler::rewrite::pipeline;
use foveate_compiler::schedule::variants::{Choices, Variant};
use foveate_compiler::schedule::{Facts, KernelGraph, host, schedule, schedule_chosen};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The gradient program with cotangents of all outputs and with respect to all arguments.
fn gradient(p: &Program) -> Program {
    let (seeds, wrt) = value::everything(p);
    let d = differentiate(p, &seeds, &wrt).expect("differentiable");
    verify::verify(&d).unwrap_or_else(|e| panic!("{e}\n{d}"));
    d
}

/// Runs the kernels for vectors of `lanes` and compares with the interpreter, with enough local memory and with little,
/// which then has few tensors a kernel, too, and with items that run in lockstep, more and fewer units than there are items, and pairs that
/// have memory or have none.
pub fn kernels_agree(p: &Program, lanes: usize) {
    let processor = Facts { lanes, local_bytes: 16 << 10, ..Facts::USUAL };
    let graphics = Facts { local_bytes: 4 << 10, registers: 16, lockstep: true, ..processor };
    for facts in [
        Facts { local_bytes: 24 * lanes, tensors: 5, ..processor },
        Facts { units: 1 << 15, pairs: 1 << 20, ..graphics },
        graphics,
        processor,
    ] {
        let graph = std::panic::catch_unwind(|| schedule(p, &facts))
            .unwrap_or_else(|_| panic!("scheduling for {lanes} lanes\n{p}"));
        graph_agrees(p, &graph, &facts);
    }
}

/// Every variant of every unit, and different ones beside each other.
fn variants_agree(p: &Program, facts: &Facts) {
    let units = |graph: &KernelGraph| {
        let mut units: Vec<Digest> = graph.launches.iter().filter_map(|l| l.chosen).map(|c| c.unit).collect();
        units.dedup();
        units
    };
    let default = schedule_chosen(p, facts, Choices::NONE);
    assert_eq!(default.kernels, schedule(p, facts).kernels, "asking for units changes nothing\n{p}");
    let mut mixed = Choices::default();
    for (n, unit) in units(&default).into_iter().enumerate() {
        mixed.choose(unit, Variant::OTHERS[n % Variant::OTHERS.len()]);
    }
    for choices in Variant::OTHERS.map(Choices::everywhere).iter().chain([&mixed]) {
        let graph = std::panic::catch_unwind(|| schedule_chosen(p, facts, choices))
            .unwrap_or_else(|_| panic!("scheduling as {choices:?}\n{p}"));
        assert_eq!(units(&graph), units(&default), "units are known whatever is chosen\n{p}");
        graph_agrees(p, &graph, facts);
    }
}

fn graph_agrees(p: &Program, graph: &KernelGraph, facts: &Facts) {
    let lanes = facts.lanes;
    let args = value::arguments(p, 3);
    let want = interp::run(p, &args).unwrap_or_else(|e| panic!("{e}\n{p}"));
    let arg = |role: &ArgRole| {
        let (_, a): &(ArgRole, Array) = args.iter().find(|(r, _)| r == role).expect("every argument has a value");
        let f = p.entry();
        let given = f.args.iter().find(|a| a.role == *role).expect("it is an argument");
        match f.tensor(given.tensor).elem {
            Elem::I32 => BufferData::I32(a.data.iter().map(|x| *x as i32).collect()),
            _ => BufferData::F32(a.data.iter().map(|x| *x as f32).collect()),
        }
    };
    for (roles, data) in host::run(graph, &arg).unwrap_or_else(|e| panic!("{e}\n{p}")) {
        let (_, expected) = want.iter().find(|(r, _)| *r == roles[0]).expect("every result has a buffer");
        let got: Vec<f64> = match data {
            BufferData::F32(v) => v.into_iter().map(f64::from).collect(),
            BufferData::I32(v) => v.into_iter().map(f64::from).collect(),
            BufferData::U32(v) => v.into_iter().map(f64::from).collect(),
        };
        let size: f64 = expected.data.iter().map(|x| x * x).sum::<f64>().sqrt();
        if !size.is_finite() || size > 1e6 {
            continue;
        }
        let error: f64 = expected.data.iter().zip(got).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        assert!(error <= 5e-4 * size + 5e-3, "{:?} at {lanes} lanes: error {error} of {size}\n{p}", roles[0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), failure_persistence: None, max_global_rejects: 100_000, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    #[test]
    fn kernels_give_what_the_interpreter_gives(seed in proptest::collection::vec(any::<u8>(), 40..400), lanes in 0u32..5) {
        let plain = program(&seed);
        prop_assume!(is_tame(&plain, &[3]));
        kernels_agree(&plain, 1 << lanes);
        let mut better = plain.clone();
        pipeline::run(&mut better, pipeline::BEFORE, pipeline::Options::default(), &mut |_, _| {}).expect("verifies");
        kernels_agree(&better, 1 << lanes);
        let mut derived = gradient(&better);
        kernels_agree(&derived, 1 << lanes);
        pipeline::run(&mut derived, pipeline::AFTER, pipeline::Options::default(), &mut |_, _| {}).expect("verifies");
        kernels_agree(&derived, 1 << lanes);
    }

    #[test]
    fn variants_give_what_the_interpreter_gives(seed in proptest::collection::vec(any::<u8>(), 40..400), lanes in 0u32..5) {
        let mut p = program(&seed);
        prop_assume!(is_tame(&p, &[3]));
        pipeline::run(&mut p, pipeline::BEFORE, pipeline::Options::default(), &mut |_, _| {}).expect("verifies");
        let mut p = gradient(&p);
        pipeline::run(&mut p, pipeline::AFTER, pipeline::Options::default(), &mut |_, _| {}).expect("verifies");
        for local_bytes in [40 << 10, 24 << lanes] {
            variants_agree(&p, &Facts { lanes: 1 << lanes, local_bytes, registers: 14, ..Facts::USUAL });
        }
    }

    #[test]
    fn gradients_agree_with_differences(seed in proptest::collection::vec(any::<u8>(), 40..400)) {
        let p = program(&seed);
        prop_assume!(is_tame(&p, &[5]));
        let d = gradient(&p);
        let args = value::arguments(&d, 5);
        let results = interp::run(&d, &args).unwrap_or_else(|e| panic!("{e}\n{p}\n{d}"));
        let scalar = |args: &[(ArgRole, Array)]| -> f64 {
            let results = interp::run(&p, args).expect("the program reads inside its tensors");
            results.iter().filter_map(|(role, value)| {
                let ResultRole::Output(name) = role else { return None };
                let (_, c) = args.iter().find(|(r, _)| *r == ArgRole::Cotangent(name.clone()))?;
                Some(value.data.iter().zip(&c.data).map(|(a, b)| a * b).sum::<f64>())
            }).sum()
        };
        for (n, a) in p.entry().args.iter().enumerate() {
            let (ArgRole::Param(name) | ArgRole::Input(name)) = &a.role else { continue };
            if p.entry().tensor(a.tensor).elem == Elem::I32 {
                continue;
            }
            let (_, grad) = results.iter().find(|(r, _)| *r == ResultRole::Grad(name.clone())).expect("a gradient");
            for e in (0..grad.data.len()).step_by(grad.data.len().div_ceil(4)) {
                let at = |delta: f64| {
                    let mut args = args.clone();
                    args[n].1.data[e] += delta;
                    scalar(&args)
                };
                // Kinks and steep places show as a difference between the two quotients; they are not compared.
                let (one, two) = ((at(1e-5) - at(-1e-5)) / 2e-5, (at(2e-5) - at(-2e-5)) / 4e-5);
                let (left, right) = ((at(0.0) - at(-1e-5)) / 1e-5, (at(1e-5) - at(0.0)) / 1e-5);
                let scale = 1.0 + one.abs();
                if !one.is_finite() || at(0.0).abs() > 1e4 || (one - two).abs() > 1e-6 * scale || (left - right).abs() > 1e-2 * scale {
                    continue;
                }
                prop_assert!((one - grad.data[e]).abs() <= 1e-4 * scale,
                    "d/d{name}[{e}]: {} by differences {one}\n{p}\n{d}", grad.data[e]);
            }
        }
    }
}
