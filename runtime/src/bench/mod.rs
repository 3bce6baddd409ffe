//! How fast a program runs and what memory it takes, launch by launch if wanted, beside what the machine could do.

mod ceilings;
mod tensors;

pub use ceilings::{Ceilings, ceilings};

use crate::checkpoint::Data;
use crate::device::Device;
use crate::driver::{Compiled, Request, Source, gradient};
use crate::error::Result;
use crate::plan::{ArenaId, Bindings, Layout, Memory, Session};
use crate::train::{Optimizer, OptimizerSettings};
use foveate_compiler::check::Value;
use foveate_compiler::ir::{ArgRole, ResultRole};
use foveate_compiler::loops::work::work;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use tensors::Given;

/// Runs that are measured at least.
const LEAST: usize = 5;
/// Runs before that: caches, and pages that were never touched.
const WARM: usize = 2;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The results, in inference mode.
    Inference,
    /// Results and gradients, in training mode.
    Gradients,
    /// The same, and an AdamW update of all parameters.
    Step,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The spec file.
    pub spec: PathBuf,
    /// The item; `None` if the file has only one.
    pub item: Option<String>,
    /// Its arguments.
    pub settings: Vec<(String, Value)>,
    /// Inputs and parameters, as `verify` takes them; random ones if there is no such file.
    pub against: Option<PathBuf>,
    /// Images a batch; that of the tensors, if there are tensors.
    pub batch: usize,
    /// What is measured.
    pub part: Part,
    /// A device's name.
    pub device: String,
    /// Seconds to measure for.
    pub seconds: f64,
    /// Whether every launch is measured too.
    pub launches: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What it is.
    pub part: Part,
    /// Images a batch.
    pub batch: usize,
    /// Milliseconds of each run.
    pub runs: Vec<f64>,
    /// Their median.
    pub median_ms: f64,
    /// The quarter of the runs that were fastest took no longer.
    pub low_ms: f64,
    /// Three quarters took no longer.
    pub high_ms: f64,
    /// Seconds from the spec to the end of the first run.
    pub start_s: f64,
    /// Of those, until the kernels were known: reading, checking, rewriting, scheduling.
    pub derive_s: f64,
    /// Distinct kernels.
    pub kernels: usize,
    /// Launches a run.
    pub launches: usize,
    /// Floating-point operations of a run, as its kernels do them; a fused multiply-add counts two.
    pub flops: f64,
    /// Bytes of the buffers of all launches.
    pub bytes: f64,
    /// What parameters take, and in training their gradients and the optimiser's moments.
    pub state_bytes: usize,
    /// All that was allocated on the device.
    pub device_bytes: usize,
    /// The most memory the process ever had; 0 where the system does not tell.
    pub peak_bytes: usize,
    /// By kernel, if asked for, the longest first.
    pub by_kernel: Vec<KernelTime>,
}

/// A kernel's share of a run.
#[derive(Clone, Debug, Serialize)]
pub struct KernelTime {
    /// Its number in the program's schedule.
    pub kernel: usize,
    /// What it computes.
    pub name: String,
    /// Launches a run.
    pub launches: usize,
    /// Milliseconds of all of them.
    pub ms: f64,
    /// Their floating-point operations.
    pub flops: f64,
    /// Their buffers' bytes.
    pub bytes: f64,
}

/// A program with everything that it runs on.
struct Bench {
    memory: Memory,
    session: Session,
    compiled: Compiled,
    optimizer: Option<Optimizer>,
    state_bytes: usize,
}

/// Measures.
pub fn bench(options: &BenchOptions) -> Result<Measurement> {
    let start = Instant::now();
    let (mut bench, batch) = Bench::new(options)?;
    let derive_s = start.elapsed().as_secs_f64();
    bench.run(1)?;
    let start_s = start.elapsed().as_secs_f64();
    for step in 0..WARM {
        bench.run(step as u64 + 2)?;
    }
    let mut runs = Vec::new();
    let clock = Instant::now();
    while runs.len() < LEAST || clock.elapsed().as_secs_f64() < options.seconds {
        let begin = Instant::now();
        bench.run((runs.len() + WARM) as u64 + 2)?;
        runs.push(1e3 * begin.elapsed().as_secs_f64());
    }
    let peak_bytes = peak_memory();
    let by_kernel = if options.launches { bench.by_kernel()? } else { Vec::new() };
    let mut sorted = runs.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let total = bench.work();
    Ok(Measurement {
        part: options.part,
        batch,
        median_ms: at(0.5),
        low_ms: at(0.25),
        high_ms: at(0.75),
        runs,
        start_s,
        derive_s,
        kernels: bench.compiled.graph.as_ref().map_or(0, |g| g.kernels.len()),
        launches: bench.session.launches(),
        flops: total.0,
        bytes: total.1,
        state_bytes: bench.state_bytes,
        device_bytes: bench.memory.bytes(),
        peak_bytes,
        by_kernel,
    })
}

impl Bench {
    fn new(options: &BenchOptions) -> Result<(Bench, usize)> {
        let source = Source::load(&options.spec)?;
        let device = Device::open(&options.device)?;
        let item = options.item.as_deref();
        let given = options.against.as_deref().map(Given::read).transpose()?;
        let (settings, batch) = match &given {
            Some(g) => (source.infer(item, &options.settings, &g.shapes("input/"), &g.shapes("param/"))?, g.batch()),
            None => (options.settings.clone(), options.batch),
        };
        let mut request = Request::inference(item, &settings, batch);
        request.training = options.part != Part::Inference;
        if request.training {
            request.gradients = Some(gradient(&source.lower(&request)?));
        }
        let compiled = source.compile(&request, device.facts().as_ref())?;
        let decls = || compiled.lowered.params.iter();
        let params = Layout::new(decls().map(|p| (p.name.as_str(), p.shape.as_slice())));
        let mut memory = Memory::new(device)?;
        let param_arena = memory.add(params.len)?;
        let grads = if request.training { Some(memory.add(params.len)?) } else { None };
        let session = {
            let place = |name: &String, arena: Option<ArenaId>| Some(params.get(name)?.place(arena?));
            let args = |role: &ArgRole| match role {
                ArgRole::Param(name) => place(name, Some(param_arena)),
                _ => None,
            };
            let results = |role: &ResultRole| match role {
                ResultRole::Grad(name) => place(name, grads),
                _ => None,
            };
            let bindings = Bindings { args: &args, results: &results };
            Session::new(&mut memory, &compiled.program, compiled.graph.as_ref(), &bindings)?
        };
        tensors::fill(&mut memory, &session, &compiled, given.as_ref())?;
        let mut optimizer = None;
        if let (Part::Step, Some(grads)) = (options.part, grads) {
            let mut mask = vec![0.0; memory.len(param_arena)];
            for (entry, decl) in params.entries.iter().zip(decls()) {
                mask[entry.offset..entry.offset + entry.len].fill(f32::from(u8::from(decl.decay)));
            }
            let arguments = [("lr", 1e-4), ("weight_decay", 0.05), ("beta1", 0.9), ("beta2", 0.999), ("eps", 1e-8)];
            let arguments: BTreeMap<String, f64> = arguments.map(|(n, v)| (n.to_owned(), v)).into();
            let settings = OptimizerSettings { rule: "AdamW".to_owned(), arguments, clip: None };
            optimizer = Some(Optimizer::new(&source, &settings, &mut memory, param_arena, grads, mask)?);
        }
        let copies = match options.part {
            Part::Inference => 1,
            Part::Gradients => 2,
            Part::Step => 4,
        };
        Ok((Bench { memory, session, compiled, optimizer, state_bytes: 4 * params.len * copies }, batch))
    }

    fn run(&mut self, step: u64) -> Result<()> {
        self.session.run(&mut self.memory)?;
        self.session.advance(&mut self.memory)?;
        if let Some(optimizer) = &self.optimizer {
            optimizer.update(&mut self.memory, step, 1e-4)?;
        }
        self.memory.device().sync()
    }

    /// Floating-point operations and bytes of a run.
    fn work(&self) -> (f64, f64) {
        let Some(graph) = &self.compiled.graph else { return (0.0, 0.0) };
        let each: Vec<_> = graph.kernels.iter().map(work).collect();
        graph.launches.iter().map(|l| &each[l.kernel]).fold((0.0, 0.0), |(f, b), w| (f + w.flops, b + w.bytes))
    }

    /// Measures every launch of the program, in a few runs of their own.
    fn by_kernel(&mut self) -> Result<Vec<KernelTime>> {
        let Some(graph) = &self.compiled.graph else { return Ok(Vec::new()) };
        self.memory.measure();
        for _ in 0..LEAST {
            self.session.run(&mut self.memory)?;
        }
        let times = self.memory.measured();
        let mut out: Vec<KernelTime> = graph
            .kernels
            .iter()
            .enumerate()
            .map(|(kernel, k)| KernelTime {
                kernel,
                name: k.name.clone(),
                launches: 0,
                ms: 0.0,
                flops: 0.0,
                bytes: 0.0,
            })
            .collect();
        // A run launches what the graph says, in its order, and then copies of results.
        let per_run = times.len() / LEAST;
        for (n, launch) in graph.launches.iter().enumerate() {
            let mut of_runs: Vec<f64> =
                times.iter().skip(n).step_by(per_run).map(|(_, t)| 1e3 * t.as_secs_f64()).collect();
            of_runs.sort_by(f64::total_cmp);
            let work = work(&graph.kernels[launch.kernel]);
            let row = &mut out[launch.kernel];
            row.launches += 1;
            row.ms += of_runs[of_runs.len() / 2];
            row.flops += work.flops;
            row.bytes += work.bytes;
        }
        out.sort_by(|a, b| b.ms.total_cmp(&a.ms).then_with(|| a.name.cmp(&b.name)));
        Ok(out)
    }
}

/// The most memory this process has had, in bytes; 0 where the system does not tell.
pub fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Inputs of a benchmark: whole elements as they are, others as 32-bit floats.
fn as_data(values: Vec<f64>, whole: bool) -> Data {
    if whole {
        Data::I64(values.into_iter().map(|v| v as i64).collect())
    } else {
        Data::F32(values.into_iter().map(|v| v as f32).collect())
    }
}
