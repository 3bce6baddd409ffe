//! From a spec file to a scheduled program: the stages in their order, with their times.

use crate::checkpoint::Data;
use crate::error::{Error, Result};
use crate::plan::{ALIGN, scratch_bytes};
use crate::rng::hash_bytes;
use foveate_compiler::check::{Spec, Value};
use foveate_compiler::compile::{Gradient, derive};
use foveate_compiler::grad::{self, Seeds};
use foveate_compiler::ir::{Program, ResultRole};
use foveate_compiler::loops::work::work;
use foveate_compiler::lower::{LowerOptions, Lowered, lower};
use foveate_compiler::rewrite::Report;
use foveate_compiler::schedule::variants::Choices;
use foveate_compiler::schedule::{Facts, KernelGraph, schedule, schedule_chosen, too_large};
use foveate_dsl::{Diagnostic, SourceMap, render};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// A spec with the texts of all its files, for diagnostics.
pub struct Source {
    /// The spec.
    pub spec: Spec,
    /// The texts it came from.
    pub sources: SourceMap,
}

/// What is to be compiled.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The item; `None` if the file has only one.
    pub item: Option<&'a str>,
    /// Its arguments.
    pub settings: &'a [(String, Value)],
    /// Training mode, or inference.
    pub training: bool,
    /// Whether what is random is so; if not, every parameter of kind `probability` is 0.
    pub random: bool,
    /// Images a batch.
    pub batch: usize,
    /// Exposed values that the program gives besides its results.
    pub exposed: Vec<String>,
    /// What is differentiated, with respect to which parameters and inputs; `None` for results only.
    pub gradients: Option<(Seeds, Wrt)>,
    /// How its units are scheduled, where that was tuned.
    pub choices: &'a Choices,
}

impl<'a> Request<'a> {
    /// An item's results in inference mode.
    pub fn inference(item: Option<&'a str>, settings: &'a [(String, Value)], batch: usize) -> Request<'a> {
        Request {
            item,
            settings,
            training: false,
            random: true,
            batch,
            exposed: Vec::new(),
            gradients: None,
            choices: Choices::NONE,
        }
    }
}

/// With respect to what is differentiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrt {
    /// All parameters.
    Params,
    /// These parameters and inputs.
    Names(Vec<String>),
}

/// A compiled program with how it came about.
pub struct Compiled {
    /// The item as lowered, before any rewrite.
    pub lowered: Lowered,
    /// The program that runs.
    pub program: Program,
    /// Its schedule, if facts of a device were given.
    pub graph: Option<KernelGraph>,
    /// What the rewrites did.
    pub report: Report,
    /// Time of each stage.
    pub stages: Vec<(&'static str, Duration)>,
    /// How it was made to fit a memory budget, if one was given.
    pub saving: Option<Saving>,
    /// How many of its calls might save nothing for the backward.
    calls: usize,
}

/// A memory budget, and what was done to keep it. All figures are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Saving {
    /// What the tensors may take.
    pub budget: usize,
    /// What they would take if all that the backward needs were saved.
    pub saving_all: usize,
    /// What they take.
    pub bytes: usize,
    /// How many calls of repeated blocks save nothing, those that run first: the backward computes them again.
    pub recomputed: usize,
    /// Of how many.
    pub calls: usize,
    /// Floating-point operations of the program over those if all were saved.
    pub work: f64,
}

impl std::fmt::Display for Saving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        write!(f, "tensors take {:.1} MiB of the {:.1} MiB that they may", mib(self.bytes), mib(self.budget))?;
        if self.recomputed == 0 {
            return write!(f, ": all that the backward needs is kept");
        }
        write!(
            f,
            "; keeping all would take {:.1} MiB, so {} of {} blocks are computed again in the backward, {:.0} % more work",
            mib(self.saving_all),
            self.recomputed,
            self.calls,
            100.0 * (self.work - 1.0)
        )
    }
}

impl Compiled {
    /// Bytes of its tensors on a device: arguments, results and temporaries.
    fn bytes(&self) -> usize {
        let entry = self.program.entry();
        let tensors = entry.args.iter().map(|a| a.tensor).chain(entry.results.iter().map(|r| r.tensor));
        let size = |t| self.program.shape(entry, t).iter().product::<usize>().next_multiple_of(ALIGN) * 4;
        tensors.map(size).sum::<usize>() + self.graph.as_ref().map_or(0, scratch_bytes)
    }

    /// Has its temporaries lie as close as they can, wherever that is.
    fn pack_tightly(&mut self) {
        self.graph.iter_mut().for_each(|graph| graph.threads = 1);
    }

    /// Floating-point operations of a run.
    fn flops(&self) -> f64 {
        let Some(graph) = &self.graph else { return 0.0 };
        let each: Vec<f64> = graph.kernels.iter().map(|k| work(k).flops).collect();
        graph.launches.iter().map(|l| each[l.kernel]).sum()
    }

    /// Says which element of an input of labels is no class, if there is one.
    pub(crate) fn check_labels(&self, input: &str, data: &Data) -> std::result::Result<(), String> {
        let classes = self.lowered.inputs.iter().find(|i| i.name == input).and_then(|i| i.label_classes);
        classes.map_or(Ok(()), |classes| data.check_labels(classes))
    }
}

impl Source {
    /// Reads a spec and all that it imports.
    pub fn load(path: &Path) -> Result<Source> {
        let mut sources = SourceMap::new();
        match Spec::load(path, &mut sources) {
            Ok(spec) => Ok(Source { spec, sources }),
            Err(diagnostics) => Err(spec_error(&diagnostics, &sources)),
        }
    }
    /// An error of this spec.
    pub fn error(&self, diagnostics: &[Diagnostic]) -> Error {
        spec_error(diagnostics, &self.sources)
    }
    /// A hash of the texts of all files, as hexadecimal digits.
    pub fn hash(&self) -> String {
        let files = self.sources.files().iter();
        let hash = files.fold(0, |h: u64, f| h.rotate_left(7) ^ hash_bytes(f.text.as_bytes()));
        format!("{hash:016x}")
    }

    /// The item's arguments: those given, and the whole lengths of axes that follow from the shapes of inputs and parameters.
    pub fn infer(
        &self,
        item: Option<&str>,
        settings: &[(String, Value)],
        inputs: &[(String, Vec<usize>)],
        params: &[(String, Vec<usize>)],
    ) -> Result<Vec<(String, Value)>> {
        self.spec.infer(item, settings, inputs, params).map_err(|d| self.error(&[*d]))
    }

    /// Lowers an item to the index IR.
    pub fn lower(&self, request: &Request<'_>) -> Result<Lowered> {
        let options = LowerOptions {
            training: request.training,
            random: request.random,
            batch: request.batch,
            exposed: request.exposed.clone(),
        };
        lower(&self.spec, request.item, request.settings, &options, &self.sources).map_err(|d| self.error(&d))
    }

    /// Compiles an item for a device with these facts: lower, rewrite, differentiate, rewrite again, schedule. Without facts the program
    /// is for the interpreter: lowered and differentiated as written, with no rewrite.
    pub fn compile(&self, request: &Request<'_>, facts: Option<&Facts>) -> Result<Compiled> {
        self.compile_watched(request, facts, &mut |_, _| {})
    }

    /// Like [`Source::compile`]; `watch` sees the program after every stage and pass.
    pub fn compile_watched(
        &self,
        request: &Request<'_>,
        facts: Option<&Facts>,
        watch: &mut dyn FnMut(&str, &Program),
    ) -> Result<Compiled> {
        self.compile_saving(request, facts, 0, watch)
    }

    /// Like [`Source::compile`], with tensors that take no more than `budget` bytes: those of the program and `others`, which is told what
    /// was lowered. Where they take more, temporaries lie as close as they can; and where that is not enough, blocks that occur several times are computed
    /// again in the backward, as few as will do.
    ///
    /// # Errors
    /// As [`Source::compile`]; and a budget that is too small, with what is needed at least.
    pub fn compile_within(
        &self,
        request: &Request<'_>,
        facts: Option<&Facts>,
        budget: usize,
        others: &dyn Fn(&Lowered) -> Result<usize>,
    ) -> Result<Compiled> {
        let mut best = self.compile(request, facts)?;
        if best.graph.is_none() {
            let message = "a memory budget needs a device with kernels: the interpreter keeps everything it computes";
            return Err(Error::Setting(message.to_owned()));
        }
        let others = others(&best.lowered)?;
        if best.bytes() + others > budget {
            best.pack_tightly();
        }
        let (saving_all, all_work) = (best.bytes() + others, best.flops());
        let (mut bytes, mut recomputed, calls) = (saving_all, 0, best.calls);
        if bytes > budget && calls > 0 {
            // More calls that save nothing take less memory: the least number is searched for by halves.
            let (mut too_few, mut enough) = (0, calls + 1);
            while enough - too_few > 1 {
                let tried = if enough > calls { calls } else { usize::midpoint(too_few, enough) };
                let mut compiled = self.compile_saving(request, facts, tried, &mut |_, _| {})?;
                compiled.pack_tightly();
                let takes = compiled.bytes() + others;
                if takes <= budget || takes < bytes && bytes > budget {
                    (bytes, recomputed, best) = (takes, tried, compiled);
                }
                if takes <= budget {
                    enough = tried;
                } else if tried == calls {
                    break;
                } else {
                    too_few = tried;
                }
            }
        }
        if bytes > budget {
            let mib = |bytes: usize| (bytes as f64 / f64::from(1 << 20)).ceil();
            let again = if recomputed > 0 { ", with all repeated blocks computed again in the backward" } else { "" };
            return Err(Error::Setting(format!(
                "the tensors of a step need {} MiB at least{again}; the budget is {} MiB: raise --memory, or take fewer images a batch (now {})",
                mib(bytes),
                budget >> 20,
                request.batch
            )));
        }
        best.saving = Some(Saving { budget, saving_all, bytes, recomputed, calls, work: best.flops() / all_work });
        Ok(best)
    }

    /// Compiles with so many calls that save nothing.
    fn compile_saving(
        &self,
        request: &Request<'_>,
        facts: Option<&Facts>,
        recomputed: usize,
        watch: &mut dyn FnMut(&str, &Program),
    ) -> Result<Compiled> {
        let mut stages = Vec::new();
        let mut clock = Instant::now();
        let mut lap = |name: &'static str, stages: &mut Vec<(&'static str, Duration)>| {
            stages.push((name, clock.elapsed()));
            clock = Instant::now();
        };
        let lowered = self.lower(request)?;
        lap("lower", &mut stages);
        let gradient = request.gradients.as_ref().map(|(seeds, wrt)| Gradient {
            seeds: seeds.clone(),
            wrt: match wrt {
                Wrt::Params => lowered.params.iter().map(|p| p.name.clone()).collect(),
                Wrt::Names(names) => names.clone(),
            },
            recomputed,
        });
        let Some(facts) = facts else {
            let program = match &gradient {
                None => lowered.program.clone(),
                Some(g) => grad::differentiate(&lowered.program, &g.seeds, &g.wrt).map_err(Error::Setting)?,
            };
            lap("differentiate", &mut stages);
            let report = Report::default();
            return Ok(Compiled { lowered, program, graph: None, report, stages, saving: None, calls: 0 });
        };
        let derivation = derive(lowered.program.clone(), gradient.as_ref(), watch).map_err(Error::Setting)?;
        lap("rewrite and differentiate", &mut stages);
        if let Some(what) = too_large(&derivation.program, facts) {
            return Err(Error::Setting(what));
        }
        let graph = match request.choices.is_empty() {
            true => schedule(&derivation.program, facts),
            false => schedule_chosen(&derivation.program, facts, request.choices),
        };
        lap("schedule", &mut stages);
        let (program, report, calls) = (derivation.program, derivation.report, derivation.calls);
        Ok(Compiled { lowered, program, graph: Some(graph), report, stages, saving: None, calls })
    }
}

/// What training an item differentiates: `loss`, or its scalars, or else all its results; with respect to its parameters, and to its
/// inputs where it has no scalar result (a building block) or no parameters.
pub fn gradient(item: &Lowered) -> (Seeds, Wrt) {
    let entry = item.program.entry();
    let scalar = |name: &&String| {
        let result = entry.results.iter().find(|r| r.role == ResultRole::Output((*name).clone()));
        result.is_some_and(|r| entry.tensor(r.tensor).dims.is_empty())
    };
    let scalars: Vec<String> = item.results.iter().filter(scalar).cloned().collect();
    let block = scalars.is_empty();
    let seeds = if item.results.iter().any(|name| name == "loss") {
        Seeds::Loss
    } else {
        Seeds::Cotangents(if block { item.results.clone() } else { scalars })
    };
    let mut wrt: Vec<String> = item.params.iter().map(|p| p.name.clone()).collect();
    if block || wrt.is_empty() {
        wrt.extend(item.inputs.iter().filter(|i| i.label_classes.is_none()).map(|i| i.name.clone()));
    }
    (seeds, Wrt::Names(wrt))
}

fn spec_error(diagnostics: &[Diagnostic], sources: &SourceMap) -> Error {
    Error::Spec(render::render(diagnostics, sources, false).trim_end().to_owned())
}
