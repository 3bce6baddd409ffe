//! The specs of the four systems against golden tensors, outputs and gradients: the program as written on the interpreter, the derived program on the
//! interpreter, and its kernels on the host.

use std::collections::HashMap;
use std::path::Path;

use foveate_compiler::check::{Spec, Value};
use foveate_compiler::compile::{Gradient, derive};
use foveate_compiler::grad::{Seeds, differentiate};
use foveate_compiler::interp::{self, Array};
use foveate_compiler::ir::{ArgRole, Elem, Program, ResultRole, Stmt, normalise, verify};
use foveate_compiler::loops::eval::BufferData;
use foveate_compiler::lower::{LowerOptions, lower};
use foveate_compiler::schedule::{Facts, host, schedule};
use foveate_dsl::{SourceMap, render::render};
use safetensors::SafeTensors;

type Tensors = HashMap<String, (Vec<usize>, Vec<f64>)>;

fn load(name: &str) -> Tensors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/golden/ops/{name}.safetensors"));
    let bytes = std::fs::read(path).expect("the golden file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let read = |view: &safetensors::tensor::TensorView<'_>| {
        view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
    };
    tensors.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), read(&view)))).collect()
}

fn norm<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Compares results with `output/*` and `grad/*`; gradients have an absolute floor relative to all gradients together.
fn compare(what: &str, golden: &Tensors, results: &[(ResultRole, Vec<f64>)], bound: f64, grad_bound: f64) {
    let all = norm(golden.iter().filter(|(k, _)| k.starts_with("grad/")).flat_map(|(_, (_, v))| v));
    let mut compared = 0;
    for (role, found) in results {
        let key = match role {
            ResultRole::Output(n) => format!("output/{n}"),
            ResultRole::Grad(n) => format!("grad/{n}"),
            _ => continue,
        };
        let (_, want) = golden.get(&key).unwrap_or_else(|| panic!("{what}: no {key}"));
        assert_eq!(want.len(), found.len(), "{what}: {key}");
        let error = norm(&want.iter().zip(found).map(|(a, b)| a - b).collect::<Vec<_>>());
        let allowed = if key.starts_with("grad") { grad_bound * norm(want) + 1e-7 * all } else { bound * norm(want) };
        assert!(error <= allowed, "{what}: {key}: error {error:e}, allowed {allowed:e}");
        compared += 1;
    }
    let wanted = golden.keys().filter(|k| k.starts_with("output/") || k.starts_with("grad/")).count();
    assert_eq!(compared, wanted, "{what}");
}

fn arguments(program: &Program, golden: &Tensors) -> Vec<(ArgRole, Array)> {
    let entry = program.entry();
    let value = |role: &ArgRole| match role {
        ArgRole::Param(n) => format!("param/{n}"),
        ArgRole::Input(n) => format!("input/{n}"),
        ArgRole::Cotangent(n) => format!("cotangent/{n}"),
        other => panic!("unexpected argument {other:?}"),
    };
    entry
        .args
        .iter()
        .map(|a| {
            let key = value(&a.role);
            let (_, data) = golden.get(&key).unwrap_or_else(|| panic!("no {key}"));
            (a.role.clone(), Array { shape: program.shape(entry, a.tensor), data: data.clone() })
        })
        .collect()
}

fn check(spec: &str, item: &str, name: &str, settings: &str) {
    let golden = load(name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = SourceMap::new();
    let loaded = Spec::load(&root.join("specs").join(spec), &mut sources);
    let loaded = loaded.unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
    let setting = |setting: &str| {
        let (name, value) = setting.split_once('=').expect("NAME=VALUE");
        (name.to_owned(), Value::parse(value).expect("a value"))
    };
    let mut settings: Vec<(String, Value)> = settings.split_whitespace().map(setting).collect();
    let batch = match golden.get("input/x") {
        Some((shape, _)) => {
            settings.push(("C".to_owned(), Value::Int(shape[2] as i64)));
            shape[0]
        }
        None => golden["input/score"].0[0],
    };
    let options = LowerOptions { training: true, random: true, batch, exposed: Vec::new() };
    let lowered = lower(&loaded, Some(item), &settings, &options, &sources);
    let program = lowered.unwrap_or_else(|d| panic!("{}", render(&d, &sources, false))).program;
    verify::verify(&program).unwrap_or_else(|e| panic!("{e}\n{program}"));
    for stmt in program.functions.iter().flat_map(|f| &f.body) {
        if let Stmt::Define(d) = stmt {
            assert!(d.clauses.iter().all(|c| normalise::is_normal(&c.body)), "{program}");
        }
    }

    let seeds = if golden.contains_key("cotangent/y") { Seeds::Cotangents(vec!["y".to_owned()]) } else { Seeds::Loss };
    let wrt: Vec<String> = golden.keys().filter_map(|k| k.strip_prefix("grad/").map(str::to_owned)).collect();
    let plain = differentiate(&program, &seeds, &wrt).expect("differentiable");
    verify::verify(&plain).unwrap_or_else(|e| panic!("{e}\n{plain}"));
    let run = |p: &Program| -> Vec<(ResultRole, Vec<f64>)> {
        let results = interp::run(p, &arguments(p, &golden)).unwrap_or_else(|e| panic!("{e}\n{p}"));
        results.into_iter().map(|(role, a)| (role, a.data)).collect()
    };
    compare(&format!("{name}, as written"), &golden, &run(&plain), 1e-6, 1e-6);

    let gradient = Gradient { seeds, wrt, recomputed: 0 };
    let derived = derive(program, Some(&gradient), &mut |_, _| {}).expect("derives").program;
    compare(&format!("{name}, derived"), &golden, &run(&derived), 1e-6, 1e-6);

    // With little local memory, rows are gone through strip by strip.
    for (lanes, local_bytes) in [(16, 49152), (4, 49152), (8, 6000)] {
        let graph = schedule(&derived, &Facts { lanes, local_bytes, ..Facts::USUAL });
        let args = arguments(&derived, &golden);
        let entry = derived.entry();
        let arg = |role: &ArgRole| {
            let (_, a) = args.iter().find(|(r, _)| r == role).expect("every argument has a value");
            let tensor = entry.args.iter().find(|a| a.role == *role).expect("an argument").tensor;
            assert_eq!(entry.tensor(tensor).elem, Elem::F32);
            BufferData::F32(a.data.iter().map(|x| *x as f32).collect())
        };
        let mut results = Vec::new();
        for (roles, data) in host::run(&graph, &arg).unwrap_or_else(|e| panic!("{e}")) {
            let data: Vec<f64> = data.as_f32().expect("floats").iter().map(|x| f64::from(*x)).collect();
            results.extend(roles.into_iter().map(|r| (r, data.clone())));
        }
        compare(&format!("{name}, kernels at {lanes} lanes"), &golden, &results, 1e-5, 1e-4);
    }
}

/// The cases of a spec.
fn all(spec: &str) {
    let mut found = 0;
    for case in include_str!("../../tests/golden/cases.txt").lines().filter_map(|line| line.strip_prefix("ops/")) {
        let mut parts = case.splitn(3, ' ');
        let (Some(name), Some(item), settings) = (parts.next(), parts.next(), parts.next().unwrap_or_default()) else {
            panic!("no case: {case}");
        };
        if let Some(item) = item.strip_prefix(spec).and_then(|rest| rest.strip_prefix(':')) {
            check(spec, item, name, settings);
            found += 1;
        }
    }
    assert!(found > 0, "no case is of {spec}");
}

#[test]
fn spatial_prior_attention() {
    all("attention/sp_sa.fov");
}

#[test]
fn central_attention() {
    all("attention/mcsa.fov");
}

#[test]
fn vicinity_attention() {
    all("attention/vicinity.fov");
}

#[test]
fn spatial_entropy() {
    all("losses/spatial_entropy.fov");
}
