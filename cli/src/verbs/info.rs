//! `foveate info`: parameters, operations, memory and kernels of an item.

use super::explain::costs;
use crate::args::Info;
use crate::failure::Failure;
use crate::output::{self, Align, Table, bytes, si};
use crate::source::Item;
use foveate_compiler::explain::Explanation;
use serde::Serialize;

/// What `info` knows of an item.
#[derive(Serialize)]
struct Facts {
    parameters: usize,
    states: usize,
    inference_flops: f64,
    inference_memory: f64,
    training_flops: f64,
    training_memory: f64,
    inference_kernels: usize,
    training_kernels: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Tensor>,
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
    let elements = |shape: &Vec<usize>| shape.iter().product::<usize>();
    let tensors: Vec<Tensor> = [(&declared.params, "parameter"), (&declared.states, "state")]
        .into_iter()
        .flat_map(|(decls, kind)| {
            decls.iter().map(move |p| Tensor { name: p.name.clone(), shape: p.shape.clone(), kind, decays: p.decay })
        })
        .collect();
    let parameters = declared.params.iter().map(|p| elements(&p.shape)).sum();
    let states = declared.states.iter().map(|p| elements(&p.shape)).sum();
    let (forward, step) = (costs(&item, false)?, costs(&item, true)?);
    let flops = |e: &Explanation| e.kernels.iter().map(|k| k.flops * k.launches as f64).sum();
    let facts = Facts {
        parameters,
        states,
        inference_flops: flops(&forward),
        inference_memory: forward.memory.peak,
        training_flops: flops(&step),
        training_memory: step.memory.peak,
        inference_kernels: forward.kernels.len(),
        training_kernels: step.kernels.len(),
        tensors: if arguments.params { tensors } else { Vec::new() },
    };
    if arguments.json { output::say_json(&facts) } else { output::say(&text(&facts, arguments.batch)) }
}

fn text(facts: &Facts, batch: usize) -> String {
    let mut table = Table::new([("", Align::Left), ("", Align::Right)]);
    let images = if batch == 1 { "1 image".to_owned() } else { format!("{batch} images") };
    table.row(["parameters", &facts.parameters.to_string()]);
    table.row(["state", &facts.states.to_string()]);
    table.row([format!("inference of {images}"), format!("{}flop", si(facts.inference_flops))]);
    table.row(["    memory", &bytes(facts.inference_memory)]);
    table.row(["    kernels", &facts.inference_kernels.to_string()]);
    table.row([format!("forward and backward of {images}"), format!("{}flop", si(facts.training_flops))]);
    table.row(["    memory", &bytes(facts.training_memory)]);
    table.row(["    kernels", &facts.training_kernels.to_string()]);
    let mut out = table.render().trim_start().to_owned();
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
