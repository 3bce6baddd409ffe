//! The demo's training step at small sizes: kernels against the interpreter, every loss and every gradient.

use foveate_compiler::check::Value;
use foveate_compiler::grad::Seeds;
use foveate_compiler::ir::{ArgRole, Elem, ResultRole};
use foveate_compiler::schedule::variants::Choices;
use foveate_runtime::checkpoint::Data;
use foveate_runtime::device::Device;
use foveate_runtime::driver::{Request, Source, Wrt};
use foveate_runtime::init;
use foveate_runtime::plan::{Bindings, Memory, Session};
use foveate_runtime::rng::Keyed;
use std::path::Path;

const BATCH: usize = 3;

/// All results of one training step.
fn step(device: &Device) -> Vec<(ResultRole, Vec<f64>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs/demo/fashion.fov");
    let source = Source::load(&path).expect("a correct spec");
    let settings = [("image", Value::Tuple(vec![Value::Int(12), Value::Int(16)])), ("fine", Value::Int(8))];
    let settings = settings.into_iter().chain([("coarse", Value::Int(16)), ("depth", Value::Int(1))]);
    let settings: Vec<(String, Value)> = settings.map(|(n, v)| (n.to_owned(), v)).collect();
    let losses = vec!["cross_entropy".to_owned(), "spatial_entropy".to_owned()];
    let request = Request {
        item: Some("FashionLoss"),
        settings: &settings,
        training: true,
        random: true,
        batch: BATCH,
        exposed: Vec::new(),
        gradients: Some((Seeds::Cotangents(losses), Wrt::Params)),
        choices: Choices::NONE,
    };
    let compiled = source.compile(&request, device.facts().as_ref()).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new(device.clone()).expect("memory");
    let session = Session::new(&mut memory, &compiled.program, compiled.graph.as_ref(), &Bindings::NONE)
        .unwrap_or_else(|e| panic!("{e}"));
    let entry = compiled.program.entry();
    for arg in &entry.args {
        let len = compiled.program.shape(entry, arg.tensor).iter().product::<usize>();
        let data = match &arg.role {
            ArgRole::Param(name) => {
                let decl = compiled.lowered.params.iter().find(|p| p.name == *name).expect("declared");
                // Away from 0 and 1, where errors hide.
                let mut values = init::values(decl.init, 5, name, len);
                let mut random = Keyed::new(&[6, len as u64]);
                values.iter_mut().for_each(|x| *x += 0.1 * random.normal() as f32);
                Data::F32(values)
            }
            ArgRole::Input(_) if entry.tensor(arg.tensor).elem == Elem::I32 => {
                Data::I64((0..len as i64).map(|n| (n * 3 + 1) % 10).collect())
            }
            ArgRole::Input(_) => {
                let mut random = Keyed::new(&[7]);
                Data::F32((0..len).map(|_| random.unit() as f32).collect())
            }
            ArgRole::Cotangent(name) => Data::F32(vec![if name == "cross_entropy" { 1.0 } else { 0.3 }; len]),
            ArgRole::Key => Data::I64(vec![1, 2]),
            ArgRole::State(_) | ArgRole::Saved(_) => continue,
        };
        memory.write(session.arg(&arg.role).expect("an argument"), &data).expect("fits");
    }
    session.run(&mut memory).unwrap_or_else(|e| panic!("{e}"));
    let read = |role: &ResultRole| {
        let (place, elem, _) = session.result(role).expect("a result");
        memory.read_f64(place, elem).expect("readable")
    };
    entry.results.iter().map(|r| (r.role.clone(), read(&r.role))).collect()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn gradients_are_those_of_the_interpreter() {
    let Ok(cpu) = Device::open("cpu") else { return };
    let (expected, got) = (step(&Device::Interpreter), step(&cpu));
    let grads = expected.iter().filter(|(r, _)| matches!(r, ResultRole::Grad(_)));
    let total = norm(grads.flat_map(|(_, v)| v.iter().copied()));
    assert!(total.is_finite() && total > 0.01, "{total}");
    let mut wrong = Vec::new();
    for ((role, a), (_, b)) in expected.iter().zip(&got) {
        let (size, distance) = (norm(a.iter().copied()), norm(a.iter().zip(b).map(|(a, b)| a - b)));
        let bound = if matches!(role, ResultRole::Grad(_)) { 1e-4 * size + 1e-6 * total } else { 1e-5 * size };
        if distance > bound || distance.is_nan() {
            wrong.push(format!("{role:?}: off by {distance:.2e} of {size:.2e}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn biases_norms_and_positions_do_not_decay() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs/demo/fashion.fov");
    let source = Source::load(&path).expect("a correct spec");
    let request = Request {
        item: Some("FashionNet"),
        settings: &[],
        training: false,
        random: true,
        batch: 1,
        exposed: Vec::new(),
        gradients: None,
        choices: Choices::NONE,
    };
    let lowered = source.lower(&request).unwrap_or_else(|e| panic!("{e}"));
    let count: usize = lowered.params.iter().map(|p| p.shape.iter().product::<usize>()).sum();
    assert!(count < 1_500_000, "{count}");
    for p in &lowered.params {
        let norm = p.name.contains("norm");
        let free = norm || p.name.ends_with("bias") || ["pos_embed", "cls_token"].contains(&p.name.as_str());
        if free || p.name.ends_with(".weight") {
            assert_eq!(p.decay, !free, "{}", p.name);
        }
    }
    assert!(lowered.params.iter().filter(|p| p.decay).count() > 20);
}
