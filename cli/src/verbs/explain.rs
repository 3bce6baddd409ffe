//! `foveate explain`: how the program was derived, and what it costs.

use crate::args::Explain;
use crate::failure::Failure;
use crate::output::{self, Align, Table, bytes, count, si};
use crate::source::{self, Item};
use foveate_compiler::explain::{Explanation, explain};
use foveate_compiler::schedule::Facts;
use foveate_compiler::schedule::variants::Choices;
use foveate_runtime::bench::{BenchOptions, Measurement, Part, bench};
use foveate_runtime::driver::{Request, Saving};
use foveate_runtime::tune::Tuning;
use serde::Serialize;

/// Explains the training step of an item, or its inference.
pub fn run(arguments: &Explain) -> Result<(), Failure> {
    let item = Item::load(&arguments.target, arguments.batch)?;
    let facts = source::facts_of(arguments.device, arguments.measure, "explain")?;
    let budget = arguments.memory.map(|m| m.0);
    let measured = arguments.measure.then(|| measure(arguments)).transpose()?;
    let choices = measured.as_ref().map_or(Choices::NONE, |m| &m.choices);
    let (mut explanation, saving) = costs(&item, !arguments.inference, &facts, budget, choices)?;
    if let Some(measured) = &measured {
        for time in measured.by_kernel.iter().filter(|time| time.launches > 0) {
            explanation.kernels[time.kernel].measured_us = Some(1e3 * time.ms / time.launches as f64);
        }
    }
    let explained = Explained { explanation, saving, tuning: measured.and_then(|m| m.tuning) };
    if arguments.json { output::say_json(&explained) } else { output::say(&text(&explained)) }
}

/// Seconds for which a program is measured.
const SECONDS: f64 = 1.0;

/// Runs the program: the times of its kernels, and how it is scheduled where that is tuned.
fn measure(arguments: &Explain) -> Result<Measurement, Failure> {
    Ok(bench(&BenchOptions {
        spec: arguments.target.item.file.clone(),
        item: arguments.target.item.item.clone(),
        settings: source::values(&arguments.target.settings.set)?,
        against: None,
        batch: arguments.batch,
        memory: arguments.memory.map(|m| m.0),
        part: if arguments.inference { Part::Inference } else { Part::Gradients },
        device: arguments.device.name().to_owned(),
        seconds: SECONDS,
        launches: true,
        tune: source::tune(arguments.tune, arguments.json),
    })?)
}

/// The derivation of an item's program, and how a memory budget was kept.
pub fn costs(
    item: &Item,
    training: bool,
    facts: &Facts,
    budget: Option<usize>,
    choices: &Choices,
) -> Result<(Explanation, Option<Saving>), Failure> {
    item.with(training, |source, request| {
        let request = &Request { choices, ..request.clone() };
        let written = source.compile(request, None)?;
        let compiled = match budget {
            None => source.compile(request, Some(facts))?,
            Some(budget) => source.compile_within(request, Some(facts), budget, &|_| Ok(0))?,
        };
        let graph = compiled.graph.as_ref().expect("programs are scheduled when there are facts");
        Ok((explain(&written.program, &compiled.report, graph, facts), compiled.saving))
    })
}

/// An explanation with what was done about memory and schedules.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    #[serde(skip_serializing_if = "Option::is_none")]
    saving: Option<Saving>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tuning: Option<Tuning>,
}

/// The explanation for people.
fn text(explained: &Explained) -> String {
    let e = &explained.explanation;
    let mut out = String::new();
    if !e.algorithm.is_empty() {
        let mut table = Table::new([("definition", Align::Left), ("algorithm", Align::Left)]);
        for a in &e.algorithm {
            table.row([&a.site, &a.text]);
        }
        out += &format!("Algorithm\n{}\n", table.render());
    }
    for (title, fired) in [("Rewrites that fired", true), ("Rewrites that did not fire", false)] {
        let mut table = Table::new([("rewrite", Align::Left), ("definition", Align::Left), ("reason", Align::Left)]);
        let mut any = false;
        for r in e.rewrites.iter().filter(|r| r.fired == fired) {
            table.row([r.rewrite, &r.site, &r.reason]);
            any = true;
        }
        if any {
            out += &format!("{title}\n{}\n", table.render());
        }
    }
    let measured = e.kernels.iter().any(|k| k.measured_us.is_some());
    let columns = [
        ("kernel", Align::Left),
        ("launches", Align::Right),
        ("items", Align::Right),
        ("flops", Align::Right),
        ("bytes", Align::Right),
        ("at least", Align::Right),
        ("bound by", Align::Left),
    ];
    let tuned = e.kernels.iter().any(|k| k.variant.is_some());
    let times = measured.then_some(("measured", Align::Right));
    let variants = tuned.then_some(("schedule", Align::Left));
    let mut table = Table::new(columns.into_iter().chain(times).chain(variants));
    let (mut flops, mut moved, mut time, mut spent) = (0.0, 0.0, 0.0, 0.0);
    for k in &e.kernels {
        let launches = k.launches as f64;
        flops += k.flops * launches;
        moved += k.bytes * launches;
        time += k.estimate_us * launches;
        table.row([
            k.name.clone(),
            k.launches.to_string(),
            k.items.to_string(),
            si(k.flops),
            bytes(k.bytes),
            format!("{:.1} us", k.estimate_us),
            k.bound.to_owned(),
            k.measured_us.map_or(String::new(), |us| format!("{us:.1} us")),
            k.variant.unwrap_or_default().to_owned(),
        ]);
        spent += k.measured_us.unwrap_or(0.0) * launches;
    }
    let launches: usize = e.kernels.iter().map(|k| k.launches).sum();
    table.row([
        count(e.kernels.len(), "kernel"),
        launches.to_string(),
        String::new(),
        si(flops),
        bytes(moved),
        format!("{time:.1} us"),
        String::new(),
        if measured { format!("{spent:.1} us") } else { String::new() },
    ]);
    out += &format!("Kernels (a launch each; the last line is the whole program)\n{}\n", table.render());
    let m = &e.memory;
    out += &format!(
        "Memory beside arguments and results\n{} at once at most; all temporaries {}; every definition stored as written {}, the largest {}\n",
        bytes(m.peak),
        bytes(m.temporaries),
        bytes(m.naive),
        bytes(m.naive_largest),
    );
    if let Some(tuning) = &explained.tuning {
        out += &format!("{tuning}\n");
    }
    if let Some(saving) = &explained.saving {
        out += &format!("{saving}\n");
    }
    out
}
