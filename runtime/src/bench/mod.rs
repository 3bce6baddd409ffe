//! How fast a program runs and what memory it takes, launch by launch if wanted, beside what the machine could do.

mod ceilings;
mod tensors;

pub use ceilings::{Ceilings, ceilings};
pub(crate) use tensors::fill;

use crate::checkpoint::Data;
use crate::device::Device;
use crate::driver::{Request, Saving, Source, gradient};
use crate::error::Result;
use crate::plan::{ALIGN, ArenaId, Bindings, Layout, Memory, Session};
use crate::train::{Optimizer, OptimizerSettings, update_programs, vector_bytes};
use crate::tune::{TuneOptions, Tuner, Tuning};
use foveate_compiler::check::Value;
use foveate_compiler::ir::{ArgRole, ResultRole};
use foveate_compiler::loops::work::{Work, work};
use foveate_compiler::lower::Lowered;
use foveate_compiler::schedule::variants::Choices;
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
    /// What the tensors may take at most, in bytes; blocks are computed again in the backward to keep to it.
    pub memory: Option<usize>,
    /// A device's name.
    pub device: String,
    /// Seconds to measure for.
    pub seconds: f64,
    /// Whether every launch is measured too.
    pub launches: bool,
    /// Find better schedules first.
    pub tune: Option<TuneOptions>,
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
    /// Seconds from the spec to the end of the first run, without those of tuning.
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
    /// How a memory budget was kept.
    pub saving: Option<Saving>,
    /// All that was allocated on the device.
    pub device_bytes: usize,
    /// The most memory the process ever had; 0 where the system does not tell.
    pub peak_bytes: usize,
    /// By kernel, if asked for, the longest first.
    pub by_kernel: Vec<KernelTime>,
    /// What tuning came to, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// How the program was scheduled.
    #[serde(skip)]
    pub choices: Choices,
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
    /// The kernels' names and work.
    kernels: Vec<(String, Work)>,
    /// The kernel of each launch.
    launches: Vec<usize>,
    optimizer: Option<Optimizer>,
    saving: Option<Saving>,
    state_bytes: usize,
    choices: Choices,
    tuning: Option<Tuning>,
}

/// The update rule of a measured step.
fn adamw() -> OptimizerSettings {
    let arguments = [("lr", 1e-4), ("weight_decay", 0.05), ("beta1", 0.9), ("beta2", 0.999), ("eps", 1e-8)];
    let arguments: BTreeMap<String, f64> = arguments.map(|(n, v)| (n.to_owned(), v)).into();
    OptimizerSettings { rule: "AdamW".to_owned(), arguments, clip: None }
}

fn layout(lowered: &Lowered) -> Layout {
    Layout::new(lowered.params.iter().map(|p| (p.name.as_str(), p.shape.as_slice())))
}

/// Measures.
pub fn bench(options: &BenchOptions) -> Result<Measurement> {
    let start = Instant::now();
    let (mut bench, batch) = Bench::new(options)?;
    let tuned_s = bench.tuning.as_ref().map_or(0.0, |t| t.seconds);
    let derive_s = start.elapsed().as_secs_f64() - tuned_s;
    bench.run(1)?;
    let start_s = start.elapsed().as_secs_f64() - tuned_s;
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
        kernels: bench.kernels.len(),
        launches: bench.session.launches(),
        flops: total.0,
        bytes: total.1,
        state_bytes: bench.state_bytes,
        saving: bench.saving,
        device_bytes: bench.memory.bytes(),
        peak_bytes,
        by_kernel,
        tuning: bench.tuning,
        choices: bench.choices,
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
        let facts = device.facts();
        let rule = adamw();
        let compile = |request: &Request<'_>| match options.memory {
            None => source.compile(request, facts.as_ref()),
            Some(budget) => source.compile_within(request, facts.as_ref(), budget, &|lowered| match options.part {
                Part::Step => vector_bytes(&source, &rule, &device, request.choices, layout(lowered).len),
                _ => Ok(0),
            }),
        };
        let (mut choices, mut tuning) = (Choices::default(), None);
        if let Some(tune) = &options.tune {
            let mut tuner = Tuner::new(&device, tune)?;
            let compiled = compile(&request)?;
            tuner.tune(&compiled, &compiled.program.entry().name)?;
            if options.part == Part::Step {
                for update in update_programs(&source, &rule, &device, layout(&compiled.lowered).len.max(ALIGN))? {
                    tuner.tune(&update, &update.program.entry().name)?;
                }
            }
            let (chosen, found) = tuner.finish();
            (choices, tuning) = (chosen, Some(found));
        }
        let compiled = compile(&Request { choices: &choices, ..request })?;
        let decls = || compiled.lowered.params.iter();
        let params = layout(&compiled.lowered);
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
        fill(&mut memory, &session, &compiled, given.as_ref())?;
        let mut optimizer = None;
        if let (Part::Step, Some(grads)) = (options.part, grads) {
            let mut mask = vec![0.0; memory.len(param_arena)];
            for (entry, decl) in params.entries.iter().zip(decls()) {
                mask[entry.offset..entry.offset + entry.len].fill(f32::from(u8::from(decl.decay)));
            }
            optimizer = Some(Optimizer::new(&source, &rule, &mut memory, param_arena, grads, mask, &choices)?);
        }
        let copies = match options.part {
            Part::Inference => 1,
            Part::Gradients => 2,
            Part::Step => 4,
        };
        let (mut kernels, mut launches) = (Vec::new(), Vec::new());
        if let Some(graph) = &compiled.graph {
            kernels.extend(graph.kernels.iter().map(|k| (k.name.clone(), work(k))));
            launches.extend(graph.launches.iter().map(|l| l.kernel));
        }
        let state_bytes = 4 * params.len * copies;
        let saving = compiled.saving;
        let bench = Bench { memory, session, kernels, launches, optimizer, saving, state_bytes, choices, tuning };
        Ok((bench, batch))
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
        let each = self.launches.iter().map(|&kernel| &self.kernels[kernel].1);
        each.fold((0.0, 0.0), |(f, b), w| (f + w.flops, b + w.bytes))
    }

    /// Measures every launch of the program, in a few runs of their own.
    fn by_kernel(&mut self) -> Result<Vec<KernelTime>> {
        if self.launches.is_empty() {
            return Ok(Vec::new());
        }
        let runs = self.session.measure(&mut self.memory, LEAST)?;
        let mut out: Vec<KernelTime> = (self.kernels.iter().enumerate())
            .map(|(kernel, (name, _))| KernelTime {
                kernel,
                name: name.clone(),
                launches: 0,
                ms: 0.0,
                flops: 0.0,
                bytes: 0.0,
            })
            .collect();
        for (n, &kernel) in self.launches.iter().enumerate() {
            let mut of_runs: Vec<f64> = runs.iter().map(|times| 1e3 * times[n]).collect();
            of_runs.sort_by(f64::total_cmp);
            let work = &self.kernels[kernel].1;
            let row = &mut out[kernel];
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
