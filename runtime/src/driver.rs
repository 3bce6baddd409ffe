//! From a spec file to a scheduled program: the stages in their order, with their times.

use crate::checkpoint::Data;
use crate::error::{Error, Result};
use crate::rng::hash_bytes;
use foveate_compiler::check::{Spec, Value};
use foveate_compiler::compile::{Gradient, derive};
use foveate_compiler::grad::{self, Seeds};
use foveate_compiler::ir::{Program, ResultRole};
use foveate_compiler::lower::{LowerOptions, Lowered, lower};
use foveate_compiler::rewrite::Report;
use foveate_compiler::schedule::{Facts, KernelGraph, schedule, too_large};
use foveate_dsl::{Diagnostic, SourceMap, render};
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
}

impl<'a> Request<'a> {
    /// An item's results in inference mode.
    pub fn inference(item: Option<&'a str>, settings: &'a [(String, Value)], batch: usize) -> Request<'a> {
        Request { item, settings, training: false, random: true, batch, exposed: Vec::new(), gradients: None }
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
}

impl Compiled {
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
        });
        let Some(facts) = facts else {
            let program = match &gradient {
                None => lowered.program.clone(),
                Some(g) => grad::differentiate(&lowered.program, &g.seeds, &g.wrt).map_err(Error::Setting)?,
            };
            lap("differentiate", &mut stages);
            let report = Report::default();
            return Ok(Compiled { lowered, program, graph: None, report, stages });
        };
        let derivation = derive(lowered.program.clone(), gradient.as_ref(), watch).map_err(Error::Setting)?;
        lap("rewrite and differentiate", &mut stages);
        if let Some(what) = too_large(&derivation.program) {
            return Err(Error::Setting(what));
        }
        let graph = schedule(&derivation.program, facts);
        lap("schedule", &mut stages);
        let (program, report) = (derivation.program, derivation.report);
        Ok(Compiled { lowered, program, graph: Some(graph), report, stages })
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
