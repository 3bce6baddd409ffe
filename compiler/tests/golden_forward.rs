//! The specs of the four systems against golden tensors: lowered, run by the interpreter, compared.

use std::collections::HashMap;
use std::path::Path;

use foveate_compiler::check::{Spec, Value};
use foveate_compiler::interp::{self, Array};
use foveate_compiler::ir::{ArgRole, ResultRole, normalise, verify};
use foveate_compiler::lower::{LowerOptions, lower};
use foveate_dsl::{SourceMap, render::render};
use safetensors::SafeTensors;

fn check(spec: &str, item: &str, golden: &str, batch: usize, settings: &[(&str, &str)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = SourceMap::new();
    let loaded = Spec::load(&root.join("specs").join(spec), &mut sources);
    let loaded = loaded.unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
    let settings: Vec<(String, Value)> =
        settings.iter().map(|(n, v)| ((*n).to_owned(), Value::parse(v).expect("a value"))).collect();
    let options = LowerOptions { training: true, batch, exposed: Vec::new() };
    let lowered = lower(&loaded, Some(item), &settings, &options, &sources);
    let lowered = lowered.unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
    let program = lowered.program;
    verify::verify(&program).unwrap_or_else(|e| panic!("{e}\n{program}"));
    for function in &program.functions {
        for stmt in &function.body {
            if let foveate_compiler::ir::Stmt::Define(d) = stmt {
                assert!(d.clauses.iter().all(|c| normalise::is_normal(&c.body)), "{program}");
            }
        }
    }

    let bytes = std::fs::read(root.join("tests/golden/ops").join(golden)).expect("the golden file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let data: HashMap<String, Vec<f64>> = tensors
        .iter()
        .map(|(name, view)| {
            let values = view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            (name.to_owned(), values.collect())
        })
        .collect();
    let entry = program.entry();
    let args: Vec<(ArgRole, Array)> = entry
        .args
        .iter()
        .map(|a| {
            let key = match &a.role {
                ArgRole::Param(n) => format!("param/{n}"),
                ArgRole::Input(n) => format!("input/{n}"),
                other => panic!("unexpected argument {other:?}"),
            };
            let shape = program.shape(entry, a.tensor);
            let data = data.get(&key).unwrap_or_else(|| panic!("no {key}")).clone();
            assert_eq!(shape.iter().product::<usize>(), data.len(), "{key}");
            (a.role.clone(), Array { shape, data })
        })
        .collect();
    let results = interp::run(&program, &args).unwrap_or_else(|e| panic!("{e}\n{program}"));
    for (role, found) in results {
        let ResultRole::Output(name) = role else { continue };
        let want = &data[&format!("output/{name}")];
        assert_eq!(want.len(), found.data.len());
        let norm = want.iter().map(|x| x * x).sum::<f64>().sqrt();
        let error = want.iter().zip(&found.data).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt() / norm;
        assert!(error < 1e-6, "{golden} {name}: relative error {error}\n{program}");
    }
}

#[test]
fn spatial_prior_attention() {
    check(
        "attention/sp_sa.fov",
        "SpatialPriorAttention",
        "sp_sa_5x5.safetensors",
        batch("sp_sa_5x5"),
        &[("C", &channels("sp_sa_5x5")), ("H", "3"), ("grid", "5x5")],
    );
}

#[test]
fn central_attention() {
    for (name, heads, grid, k) in [("central_5x7_k3", "2", "5x7", "3"), ("central_6x6_k5", "4", "6x6", "5")] {
        check(
            "attention/mcsa.fov",
            "CentralAttention",
            &format!("{name}.safetensors"),
            batch(name),
            &[("C", &channels(name)), ("H", heads), ("grid", grid), ("k", k)],
        );
    }
}

#[test]
fn vicinity_attention() {
    for (name, form) in [("vicinity_sum_4x6", "sum"), ("vicinity_prod_4x6", "product")] {
        check(
            "attention/vicinity.fov",
            "VicinityAttention",
            &format!("{name}.safetensors"),
            batch(name),
            &[("C", &channels(name)), ("H", "2"), ("grid", "4x6"), ("form", form)],
        );
    }
}

#[test]
fn spatial_entropy() {
    for name in ["spatial_entropy_noise", "spatial_entropy_smooth"] {
        let shape = shape(name, "input/score");
        let heads = shape[1].to_string();
        check(
            "losses/spatial_entropy.fov",
            "SpatialEntropy",
            &format!("{name}.safetensors"),
            shape[0],
            &[("H", &heads), ("grid", "14x14")],
        );
    }
}

fn shape(name: &str, tensor: &str) -> Vec<usize> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/golden/ops/{name}.safetensors"));
    let bytes = std::fs::read(path).expect("the golden file");
    SafeTensors::deserialize(&bytes).expect("safetensors").tensor(tensor).expect("the tensor").shape().to_vec()
}

fn batch(name: &str) -> usize {
    shape(name, "input/x")[0]
}

fn channels(name: &str) -> String {
    shape(name, "input/x")[2].to_string()
}
