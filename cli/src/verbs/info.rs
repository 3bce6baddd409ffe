//! `foveate info`: parameters, multiply-adds, memory and kernels of an item, layer by layer.

use super::explain::costs;
use crate::args::Info;
use crate::failure::Failure;
use crate::output::{self, Align, Table, bytes, si};
use crate::source::{self, Item};
use foveate_compiler::explain::Explanation;
use foveate_compiler::products::{Product, products};
use foveate_compiler::schedule::variants::Choices;
use serde::Serialize;

/// What `info` knows of an item.
#[derive(Serialize)]
struct Facts {
    parameters: usize,
    states: usize,
    multiply_adds: f64,
    inference_flops: f64,
    inference_memory: f64,
    training_flops: f64,
    training_memory: f64,
    inference_kernels: usize,
    training_kernels: usize,
    layers: Vec<Layer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Tensor>,
}

/// A module instance with the parameters that are its own, and the products that read them; or one that has products without parameters.
#[derive(Serialize)]
struct Layer {
    name: String,
    parameters: usize,
    states: usize,
    multiply_adds: f64,
}

/// A parameter or state.
#[derive(Serialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    kind: &'static str,
    decays: bool,
}

/// Shows the numbers of one batch.
pub fn run(arguments: &Info) -> Result<(), Failure> {
    let item = Item::load(&arguments.target, arguments.batch)?;
    let declared = item.with(true, |source, request| source.lower(request))?;
    let tensors: Vec<Tensor> = [(&declared.params, "parameter"), (&declared.states, "state")]
        .into_iter()
        .flat_map(|(decls, kind)| {
            decls.iter().map(move |p| Tensor { name: p.name.clone(), shape: p.shape.clone(), kind, decays: p.decay })
        })
        .collect();
    let facts = source::facts();
    let cost = |training| costs(&item, training, &facts, None, Choices::NONE).map(|(explanation, _)| explanation);
    let (forward, step) = (cost(false)?, cost(true)?);
    let facts_of_device = source::facts();
    let rewritten = item.with(false, |source, request| source.compile(request, Some(&facts_of_device)))?;
    let layers = layers(&tensors, &products(&rewritten.program));
    let flops = |e: &Explanation| e.kernels.iter().map(|k| k.flops * k.launches as f64).sum();
    let facts = Facts {
        parameters: layers.iter().map(|l| l.parameters).sum(),
        states: layers.iter().map(|l| l.states).sum(),
        multiply_adds: layers.iter().map(|l| l.multiply_adds).sum(),
        inference_flops: flops(&forward),
        inference_memory: forward.memory.peak,
        training_flops: flops(&step),
        training_memory: step.memory.peak,
        inference_kernels: forward.kernels.len(),
        training_kernels: step.kernels.len(),
        layers: if arguments.layers || arguments.json { layers } else { outer(layers) },
        tensors: if arguments.params { tensors } else { Vec::new() },
    };
    if arguments.json { output::say_json(&facts) } else { output::say(&text(&facts, arguments.batch)) }
}

/// The layers in the order of their parameters; products without any come after the last layer of their module.
fn layers(tensors: &[Tensor], products: &[Product]) -> Vec<Layer> {
    let mut out: Vec<Layer> = Vec::new();
    fn at<'l>(out: &'l mut Vec<Layer>, name: &str) -> &'l mut Layer {
        let place = out.iter().position(|l| l.name == name).unwrap_or_else(|| {
            let within = |l: &Layer| l.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
            let place = out.iter().rposition(within).map_or(out.len(), |n| n + 1);
            out.insert(place, Layer { name: name.to_owned(), parameters: 0, states: 0, multiply_adds: 0.0 });
            place
        });
        &mut out[place]
    }
    let owner = |name: &str| name.rsplit_once('.').map_or(String::new(), |(module, _)| module.to_owned());
    for t in tensors {
        let layer = at(&mut out, &owner(&t.name));
        let elements: usize = t.shape.iter().product();
        *(if t.kind == "state" { &mut layer.states } else { &mut layer.parameters }) += elements;
    }
    let known: Vec<String> = out.iter().map(|l| l.name.clone()).collect();
    let is_module = |path: &str| {
        let within = |name: &String| name.strip_prefix(path).is_some_and(|r| r.is_empty() || r.starts_with('.'));
        known.iter().any(within)
    };
    for p in products {
        let name = match &p.parameter {
            Some(parameter) => owner(parameter),
            None => {
                // Submodules that lend their names (`flat`) are in a definition's path, but not in those of parameters.
                let parts: Vec<&str> = p.definition.split('.').collect();
                let paths = (1..parts.len()).rev().flat_map(|end| (0..end).map(move |start| (start, end)));
                let path = paths.map(|(start, end)| parts[start..end].join(".")).find(|path| is_module(path));
                path.unwrap_or_default()
            }
        };
        at(&mut out, &name).multiply_adds += p.multiply_adds;
    }
    out
}

/// The direct parts of a model: `block1.0.attn.q_proj` and its like all count as `block1.0`.
fn outer(layers: Vec<Layer>) -> Vec<Layer> {
    let mut out: Vec<Layer> = Vec::new();
    for layer in layers {
        let mut parts = layer.name.split('.');
        let first = parts.next().unwrap_or_default().to_owned();
        let numbers = parts.take_while(|part| part.bytes().all(|b| b.is_ascii_digit()));
        let name = numbers.fold(first, |name, number| format!("{name}.{number}"));
        match out.iter_mut().find(|l| l.name == name) {
            Some(l) => {
                l.parameters += layer.parameters;
                l.states += layer.states;
                l.multiply_adds += layer.multiply_adds;
            }
            None => out.push(Layer { name, ..layer }),
        }
    }
    out
}

fn text(facts: &Facts, batch: usize) -> String {
    let mut table = Table::new([("", Align::Left), ("", Align::Right)]);
    let images = if batch == 1 { "1 image".to_owned() } else { format!("{batch} images") };
    table.row(["parameters", &facts.parameters.to_string()]);
    table.row(["state", &facts.states.to_string()]);
    table.row([format!("inference of {images}"), format!("{}flop", si(facts.inference_flops))]);
    table.row(["    multiply-adds of products and convolutions", &si(facts.multiply_adds)]);
    table.row(["    activation memory", &bytes(facts.inference_memory)]);
    table.row(["    kernels", &facts.inference_kernels.to_string()]);
    table.row([format!("forward and backward of {images}"), format!("{}flop", si(facts.training_flops))]);
    table.row(["    activation memory", &bytes(facts.training_memory)]);
    table.row(["    kernels", &facts.training_kernels.to_string()]);
    let mut out = table.render().trim_start().to_owned();
    let mut table = Table::new([
        ("layer", Align::Left),
        ("parameters", Align::Right),
        ("multiply-adds", Align::Right),
        ("share", Align::Right),
    ]);
    for l in &facts.layers {
        let name = if l.name.is_empty() { "(the item itself)" } else { &l.name };
        let share = if facts.multiply_adds > 0.0 { 100.0 * l.multiply_adds / facts.multiply_adds } else { 0.0 };
        table.row([name.to_owned(), l.parameters.to_string(), si(l.multiply_adds), format!("{share:.1} %")]);
    }
    out += &format!("\n{}", table.render());
    if !facts.tensors.is_empty() {
        let heads = ["name", "shape", "kind", "decays"].map(|head| (head, Align::Left));
        let mut table = Table::new(heads);
        for t in &facts.tensors {
            let decays = if t.decays { "yes" } else { "no" };
            table.row([t.name.clone(), format!("{:?}", t.shape), t.kind.to_owned(), decays.to_owned()]);
        }
        out += &format!("\n{}", table.render());
    }
    out
}
