//! The derivation of a program as data: what `explain` shows and what tests of derivations assert.

use crate::ir::{Function, Program, Stmt};
use crate::loops::work::work;
use crate::rewrite::{Algorithm, Entry, Report};
use crate::schedule::variants::Variant;
use crate::schedule::{BufferRole, Facts, KernelGraph};
use serde::Serialize;

/// How a program came about, and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// By definition, the algorithm that a rewrite chose for it.
    pub algorithm: Vec<Algorithm>,
    /// Rewrites that fired or were refused, with reasons.
    pub rewrites: Vec<Entry>,
    /// The kernels, in the order of their first launch.
    pub kernels: Vec<KernelCost>,
    /// Memory beside arguments and results.
    pub memory: Memory,
}

/// A kernel and what a launch of it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelCost {
    /// What it computes.
    pub name: String,
    /// Where it is launched.
    pub sites: Vec<String>,
    /// Number of launches.
    pub launches: usize,
    /// Work items a launch.
    pub items: u32,
    /// Floating-point operations a launch.
    pub flops: f64,
    /// Bytes of its buffers, each once.
    pub bytes: f64,
    /// What a launch takes at least on the device's nominal roofline, in microseconds.
    pub estimate_us: f64,
    /// What binds that estimate: `compute` or `memory`.
    pub bound: &'static str,
    /// The variant that it was scheduled with, if not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<&'static str>,
    /// What a launch took, in microseconds, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_us: Option<f64>,
}

/// Memory beside arguments and results, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// If every definition of the program as written were stored.
    pub naive: f64,
    /// The largest definition of the program as written.
    pub naive_largest: f64,
    /// All temporaries of the kernel graph.
    pub temporaries: f64,
    /// Of those, what lives at the same time at most.
    pub peak: f64,
}

/// Clock and memory bandwidth of a nominal unit of a device, for estimates: 2.5 GHz with two fused multiply-adds a lane and cycle,
/// and 10 GB/s. Real machines differ by a small factor; the order of kernels by cost rarely does.
const CYCLES: f64 = 2.5e9;
const FMA_PER_CYCLE: f64 = 2.0;
const BANDWIDTH: f64 = 10e9;

/// The name under which decisions about memory stand among the rewrites.
pub const FUSION: &str = "fusion";

/// Explains. `written` is the program before any rewrite (differentiated, if the graph is that of a gradient).
pub fn explain(written: &Program, report: &Report, graph: &KernelGraph, facts: &Facts) -> Explanation {
    let peak_flops = facts.lanes as f64 * facts.units as f64 * 2.0 * FMA_PER_CYCLE * CYCLES;
    let bandwidth = facts.units as f64 * BANDWIDTH;
    let mut kernels: Vec<KernelCost> = graph
        .kernels
        .iter()
        .map(|kernel| {
            let work = work(kernel);
            let (compute, memory) = (work.flops / peak_flops, work.bytes / bandwidth);
            KernelCost {
                name: kernel.name.clone(),
                sites: Vec::new(),
                launches: 0,
                items: kernel.items,
                flops: work.flops,
                bytes: work.bytes,
                estimate_us: compute.max(memory) * 1e6,
                bound: if compute >= memory { "compute" } else { "memory" },
                variant: None,
                measured_us: None,
            }
        })
        .collect();
    for launch in &graph.launches {
        kernels[launch.kernel].launches += 1;
        kernels[launch.kernel].sites.push(launch.site.clone());
        // A kernel that comes about in both ways is not the default's alone.
        let variant = launch.chosen.map(|c| c.variant).filter(|v| *v != Variant::Default);
        kernels[launch.kernel].variant = kernels[launch.kernel].variant.or(variant.map(Variant::name));
    }
    let sizes = definitions(written);
    let (mut algorithm, mut rewrites) = (report.algorithms.clone(), report.entries.clone());
    for d in &graph.decisions {
        if d.fused {
            algorithm.push(Algorithm { site: d.site.clone(), text: d.text.clone() });
        }
        let (site, reason) = (d.site.clone(), d.text.clone());
        rewrites.push(Entry { rewrite: FUSION, site, fired: d.fused, reason });
    }
    Explanation {
        algorithm,
        rewrites,
        kernels,
        memory: Memory {
            naive: sizes.iter().sum(),
            naive_largest: sizes.iter().copied().fold(0.0, f64::max),
            temporaries: graph.buffers.iter().filter(|b| b.role == BufferRole::Temporary).map(size).sum(),
            peak: peak(graph),
        },
    }
}

fn size(buffer: &crate::schedule::GraphBuffer) -> f64 {
    buffer.shape.iter().map(|&n| n as f64).product::<f64>() * buffer.elem.bytes() as f64
}

/// Bytes of every definition of the program, once a call of its function.
fn definitions(program: &Program) -> Vec<f64> {
    fn of(program: &Program, function: &Function, out: &mut Vec<f64>) {
        for stmt in &function.body {
            match stmt {
                Stmt::Call(call) => of(program, &program.functions[call.function.index()], out),
                _ => {
                    for t in stmt.defines() {
                        let tensor = function.tensor(t);
                        let elements: f64 = tensor.dims.iter().map(|&d| program.size(d) as f64).product();
                        out.push(elements * tensor.elem.bytes() as f64);
                    }
                }
            }
        }
    }
    let mut out = Vec::new();
    of(program, program.entry(), &mut out);
    out
}

/// The most bytes of temporaries that live at the same time.
fn peak(graph: &KernelGraph) -> f64 {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; graph.buffers.len()];
    for (time, launch) in graph.launches.iter().enumerate() {
        for &buffer in &launch.buffers {
            let life = lives[buffer].get_or_insert((time, time));
            life.1 = time;
        }
    }
    let mut change = vec![0.0; graph.launches.len() + 1];
    for (buffer, life) in graph.buffers.iter().zip(lives) {
        if let (BufferRole::Temporary, Some((first, last))) = (&buffer.role, life) {
            change[first] += size(buffer);
            change[last + 1] -= size(buffer);
        }
    }
    let mut now = 0.0;
    change.iter().fold(0.0, |most: f64, c| {
        now += c;
        most.max(now)
    })
}
