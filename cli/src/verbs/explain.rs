//! `foveate explain`: how the program was derived, and what it costs.

use crate::args::Explain;
use crate::failure::Failure;
use crate::output::{self, Align, Table, bytes, si};
use crate::source::{self, Item};
use foveate_compiler::explain::{Explanation, explain};

/// Explains the training step of an item, or its inference.
pub fn run(arguments: &Explain) -> Result<(), Failure> {
    let item = Item::load(&arguments.target, arguments.batch)?;
    let explanation = costs(&item, !arguments.inference)?;
    if arguments.json { output::say_json(&explanation) } else { output::say(&text(&explanation)) }
}

/// The derivation of an item's program.
pub fn costs(item: &Item, training: bool) -> Result<Explanation, Failure> {
    let facts = source::facts();
    item.with(training, |source, request| {
        let written = source.compile(request, None)?;
        let compiled = source.compile(request, Some(&facts))?;
        let graph = compiled.graph.as_ref().expect("programs are scheduled when there are facts");
        Ok(explain(&written.program, &compiled.report, graph, &facts))
    })
}

/// The explanation for people.
fn text(e: &Explanation) -> String {
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
    let mut table = Table::new([
        ("kernel", Align::Left),
        ("launches", Align::Right),
        ("items", Align::Right),
        ("flops", Align::Right),
        ("bytes", Align::Right),
        ("at least", Align::Right),
        ("bound by", Align::Left),
    ]);
    let (mut flops, mut moved, mut time) = (0.0, 0.0, 0.0);
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
        ]);
    }
    let launches: usize = e.kernels.iter().map(|k| k.launches).sum();
    table.row([
        format!("{} kernels", e.kernels.len()),
        launches.to_string(),
        String::new(),
        si(flops),
        bytes(moved),
        format!("{time:.1} us"),
        String::new(),
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
    out
}
