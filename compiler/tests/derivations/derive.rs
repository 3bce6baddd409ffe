//! Specs derived and scheduled, with what the tests ask of the outcome.

use foveate_compiler::check::{Spec, Value};
use foveate_compiler::compile::{self, Gradient};
use foveate_compiler::explain::{Explanation, explain};
use foveate_compiler::grad::{Seeds, differentiate};
use foveate_compiler::interp::{self, Array};
use foveate_compiler::ir::{ArgRole, Elem, Program, ResultRole};
use foveate_compiler::loops::eval::BufferData;
use foveate_compiler::lower::{LowerOptions, lower};
use foveate_compiler::rewrite::Report;
use foveate_compiler::schedule::{BufferRole, Facts, GraphBuffer, KernelGraph, host, schedule};
use foveate_dsl::{SourceMap, render::render};
use std::path::Path;

/// The device that schedules are made for.
pub const FACTS: Facts = Facts { local_bytes: 48 << 10, ..Facts::USUAL };

/// An item of a spec, with settings written `NAME=VALUE` with spaces between them.
#[derive(Clone, Debug)]
pub struct Case {
    pub file: &'static str,
    pub item: &'static str,
    pub settings: String,
    pub batch: usize,
}

pub fn case(file: &'static str, item: &'static str, settings: &str) -> Case {
    Case { file, item, settings: settings.to_owned(), batch: 2 }
}

/// A case, forward and backward, on its way to kernels.
pub struct Derived {
    /// As written, differentiated.
    pub written: Program,
    /// After all rewrites.
    pub program: Program,
    pub report: Report,
    pub graph: KernelGraph,
}

impl Case {
    /// As written.
    pub fn program(&self) -> Program {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs");
        let mut sources = SourceMap::new();
        let spec = Spec::load(&root.join(self.file), &mut sources);
        let spec = spec.unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
        let setting = |s: &str| {
            let (name, value) = s.split_once('=').expect("written as NAME=VALUE");
            (name.to_owned(), Value::parse(value).expect("a value"))
        };
        let settings: Vec<(String, Value)> = self.settings.split_whitespace().map(setting).collect();
        let options = LowerOptions { training: true, random: true, batch: self.batch, exposed: Vec::new() };
        let lowered = lower(&spec, Some(self.item), &settings, &options, &sources);
        lowered.unwrap_or_else(|d| panic!("{}", render(&d, &sources, false))).program
    }

    /// Derives the gradient with respect to everything.
    pub fn derive(&self) -> Derived {
        self.watched(&mut |_, _| {})
    }

    /// The same; `watch` sees every stage.
    pub fn watched(&self, watch: &mut dyn FnMut(&str, &Program)) -> Derived {
        let program = self.program();
        let gradient = everything(&program);
        let derivation = compile::derive(program.clone(), Some(&gradient), watch);
        let derivation = derivation.unwrap_or_else(|e| panic!("{self:?}: {e}"));
        let graph = schedule(&derivation.program, &FACTS);
        let written = differentiate(&program, &gradient.seeds, &gradient.wrt).expect("differentiable");
        Derived { written, program: derivation.program, report: derivation.report, graph }
    }
}

/// The gradient of the loss, or of all results, with respect to every parameter and input that has one.
fn everything(program: &Program) -> Gradient {
    let f = program.entry();
    let outputs: Vec<String> = f.results.iter().filter_map(|r| output(&r.role)).collect();
    let seeds = if outputs == ["loss"] { Seeds::Loss } else { Seeds::Cotangents(outputs) };
    let wrt = f.args.iter().filter(|a| f.tensor(a.tensor).elem == Elem::F32).filter_map(|a| match &a.role {
        ArgRole::Param(n) | ArgRole::Input(n) => Some(n.clone()),
        _ => None,
    });
    Gradient { seeds, wrt: wrt.collect(), recomputed: 0 }
}

fn output(role: &ResultRole) -> Option<String> {
    match role {
        ResultRole::Output(n) => Some(n.clone()),
        _ => None,
    }
}

impl Derived {
    pub fn explanation(&self) -> Explanation {
        explain(&self.written, &self.report, &self.graph, &FACTS)
    }

    /// The algorithm of a definition, if a rewrite chose one.
    pub fn algorithms(&self, definition: &str) -> Vec<&str> {
        let of = |site: &str| site.rsplit('.').next() == Some(definition);
        self.report.algorithms.iter().filter(|a| of(&a.site)).map(|a| a.text.as_str()).collect()
    }

    /// What `explain --json` says of a definition under a name: whether it fired, and why. The definition's name may be given by its end.
    pub fn told(&self, name: &str, definition: &str) -> Vec<(bool, String)> {
        let json = serde_json::to_value(self.explanation()).expect("JSON");
        let entries = json["rewrites"].as_array().expect("a list").clone();
        let of = |e: &serde_json::Value| {
            let site = e["site"].as_str().expect("a text");
            e["name"] == name && (site.ends_with(&format!(".{definition}")))
        };
        let read = |e: &serde_json::Value| (e["fired"] == true, e["reason"].as_str().expect("a text").to_owned());
        entries.iter().filter(|e| of(e)).map(read).collect()
    }

    pub fn temporaries(&self) -> impl Iterator<Item = &GraphBuffer> {
        self.graph.buffers.iter().filter(|b| b.role == BufferRole::Temporary)
    }

    /// Floating-point operations of all launches.
    pub fn flops(&self) -> f64 {
        self.explanation().kernels.iter().map(|k| k.flops * k.launches as f64).sum()
    }

    /// Asserts that no temporary has a dimension for each of `dims` (sizes of a pair of tokens).
    pub fn stores_no(&self, dims: &[usize]) {
        for b in self.temporaries() {
            let mut left = b.shape.clone();
            let all = dims.iter().all(|d| left.iter().position(|l| l == d).map(|at| left.remove(at)).is_some());
            assert!(!all, "{}{:?} is stored\n{}", b.name, b.shape, self.program);
        }
    }

    /// Asserts that the program as written, the derived program and its kernels agree on numbers in -1..1.
    pub fn agrees(&self, what: &str) {
        let args = arguments(&self.written);
        let want = interp::run(&self.written, &args).unwrap_or_else(|e| panic!("{what}: {e}"));
        let derived = interp::run(&self.program, &args).unwrap_or_else(|e| panic!("{what}: {e}\n{}", self.program));
        let derived = derived.into_iter().map(|(r, a)| (r, a.data));
        let arg = |role: &ArgRole| {
            let (_, a) = args.iter().find(|(r, _)| r == role).expect("every argument has a value");
            BufferData::F32(a.data.iter().map(|x| *x as f32).collect())
        };
        let buffers = host::run(&self.graph, &arg).unwrap_or_else(|e| panic!("{what}: {e}"));
        let kernels = buffers.into_iter().flat_map(|(roles, data)| {
            let data: Vec<f64> = data.as_f32().expect("floats").iter().map(|x| f64::from(*x)).collect();
            roles.into_iter().map(move |r| (r, data.clone()))
        });
        let all = norm(want.iter().flat_map(|(_, a)| &a.data));
        let compare = |stage: &str, role: &ResultRole, found: &[f64], bound: f64| {
            let (_, want) = want.iter().find(|(r, _)| r == role).expect("a result of the program as written");
            let error = norm(&want.data.iter().zip(found).map(|(a, b)| a - b).collect::<Vec<_>>());
            let allowed = bound * (norm(&want.data) + 1e-3 * all) + 1e-6 * (want.data.len() as f64).sqrt();
            assert!(error <= allowed, "{what}, {stage}: {role:?}: error {error:e}, allowed {allowed:e}");
        };
        derived.for_each(|(role, found)| compare("derived", &role, &found, 1e-8));
        kernels.for_each(|(role, found)| compare("kernels", &role, &found, 2e-4));
    }
}

fn norm<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn arguments(program: &Program) -> Vec<(ArgRole, Array)> {
    let f = program.entry();
    let value = |n: usize, role: &ArgRole, shape: Vec<usize>| {
        let mut state = 0x9E37_79B9_7F4A_7C15u64 ^ ((n as u64 + 1) << 32);
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
        };
        // As they are in f32, so that all stages compute from the same numbers.
        let data = (0..shape.iter().product()).map(|_| f64::from(draw() as f32)).collect();
        (role.clone(), Array { shape, data })
    };
    f.args.iter().enumerate().map(|(n, a)| value(n, &a.role, program.shape(f, a.tensor))).collect()
}
