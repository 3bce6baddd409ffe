//! The elaborator: one walk that checks a module with concrete sizes and lowers it to the index IR.
//!
//! Its state is here; what it does is spread over the files of `check` (compile-time values, modules) and `lower`
//! (`forward`, expressions, functions).

use std::fmt;
use std::rc::Rc;

use foveate_dsl::ast::Span;
use foveate_dsl::{Diagnostic, SourceMap};
use rustc_hash::{FxHashMap, FxHashSet};

use super::axes::{Axis, Kind};
use super::instance::{Instance, ParamDecl};
use super::known::Known;
use super::names::Names;
use super::report::{R, Reported};
use super::spec::{ItemRef, Spec};
use crate::ir;
use crate::lower::builder::Builder;
use crate::lower::call::Callee;
use crate::lower::forward::Frame;

/// The most elements of an axis, or of a tensor that has memory.
pub(crate) const MAX_ELEMENTS: i64 = 1 << 31;

/// The most elements of a definition, in memory or not: nobody would wait for more, and sizes can be multiplied without a second thought.
pub(crate) const MAX_DEFINED: i64 = 1 << 44;

/// The most steps (expressions evaluated, statements unrolled) of one elaboration.
pub(crate) const MAX_STEPS: usize = 1_000_000;

/// The most diagnostics of one elaboration.
const MAX_DIAGNOSTICS: usize = 50;

/// The state of an elaboration.
pub(crate) struct Elaborator<'a> {
    pub spec: &'a Spec,
    pub sources: &'a SourceMap,
    /// Whether the program is for training; asked for by [`Elaborator::training`].
    training: bool,
    /// Whether that has made a difference.
    pub mode_matters: bool,
    /// Whether more of a rate has made one than its band.
    pub exact: bool,
    /// Whether parameters of kind `probability` have their values; if not, they are 0.
    pub random: bool,
    pub diagnostics: Vec<Diagnostic>,
    reported: FxHashSet<(&'static str, Option<Span>, String)>,
    /// How often something was reported, also if it was no news.
    reports: usize,
    /// The constructors and calls that are being elaborated, with what to say about them.
    pub trail: Vec<(Span, Lead)>,
    /// The modules that are being instantiated.
    pub open: Vec<ItemRef>,
    /// How many steps are left before it gives up.
    pub steps_left: usize,
    pub gave_up: bool,
    /// The batch axis.
    pub batch: Axis,
    /// The axes of the program.
    pub axes: Vec<ir::Axis>,
    axis_ids: FxHashMap<ir::Axis, ir::AxisId>,
    /// The same by the address of an axis, which is kept so that no other gets its address.
    axis_ids_at: FxHashMap<usize, (Axis, ir::AxisId)>,
    /// The functions that are done, callees before callers.
    pub functions: Vec<ir::Function>,
    /// Functions that can be called again, by instance and inputs.
    pub callees: FxHashMap<String, Rc<Callee<'a>>>,
    /// Whether only what is wrong is asked for, and no program: what is known of a module is not looked at again then.
    pub sampling: bool,
    /// What is known of modules.
    pub known: Rc<Known<'a>>,
    /// When sampling, the names in the module that is being instantiated and its flat submodules.
    pub names: Names<'a>,
    /// When sampling, what stands before those names in the item: empty or `stage.attn.`.
    pub place: String,
    /// The instances of modules of the checked file whose `forward` went through, by their numbers.
    pub elaborated: FxHashMap<u32, Rc<Instance<'a>>>,
    /// The function being built.
    pub builder: Builder,
    /// The `forward` being elaborated.
    pub frame: Frame<'a>,
}

/// What leads to a place that is elaborated.
#[derive(Clone)]
pub(crate) enum Lead {
    /// A submodule and its module.
    Submodule(String, Rc<str>),
    /// The call of a submodule.
    Call(String),
    Recipe,
}

impl fmt::Display for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lead::Submodule(name, module) => write!(f, "in `{name} = {module}(...)`"),
            Lead::Call(name) => write!(f, "in the call of `{name}`"),
            Lead::Recipe => f.write_str("for this recipe"),
        }
    }
}

/// What a part of an elaboration did.
pub(crate) struct Watched {
    /// Whether it asked for the mode.
    pub asked: bool,
    /// Whether rates made a difference by more than their bands.
    pub exact: bool,
    /// Whether it went through without a word.
    pub quiet: bool,
}

impl<'a> Elaborator<'a> {
    /// An elaborator for one program.
    pub fn new(spec: &'a Spec, sources: &'a SourceMap, training: bool, batch: usize) -> Elaborator<'a> {
        Elaborator {
            spec,
            sources,
            training,
            mode_matters: false,
            exact: false,
            random: true,
            diagnostics: Vec::new(),
            reported: FxHashSet::default(),
            reports: 0,
            trail: Vec::new(),
            open: Vec::new(),
            steps_left: MAX_STEPS,
            gave_up: false,
            batch: Axis::batch(batch),
            axes: Vec::new(),
            axis_ids: FxHashMap::default(),
            axis_ids_at: FxHashMap::default(),
            functions: Vec::new(),
            callees: FxHashMap::default(),
            sampling: false,
            known: Rc::default(),
            names: Names::default(),
            place: String::new(),
            elaborated: FxHashMap::default(),
            builder: Builder::default(),
            frame: Frame::default(),
        }
    }

    /// An elaborator that only tells what is wrong, and takes what is known of modules from others like it.
    pub fn sampling(
        spec: &'a Spec,
        sources: &'a SourceMap,
        training: bool,
        batch: usize,
        known: &Rc<Known<'a>>,
    ) -> Elaborator<'a> {
        let mut out = Elaborator::new(spec, sources, training, batch);
        out.sampling = true;
        out.known = Rc::clone(known);
        out
    }

    /// Whether the program is for training, for what is known in that mode.
    pub fn mode(&self) -> bool {
        self.training
    }

    /// Whether the program is for training.
    pub fn training(&mut self) -> bool {
        self.mode_matters = true;
        self.training
    }

    /// A number that was not used before.
    pub fn fresh(&mut self) -> u32 {
        self.known.fresh()
    }

    /// Does a part of the elaboration and watches it.
    pub fn watched<T>(&mut self, part: impl FnOnce(&mut Self) -> R<T>) -> (R<T>, Watched) {
        let asked = std::mem::replace(&mut self.mode_matters, false);
        let exact = std::mem::replace(&mut self.exact, false);
        let reports = self.reports;
        let out = part(self);
        let quiet = out.is_ok() && self.reports == reports;
        let seen = Watched { asked: self.mode_matters, exact: self.exact, quiet };
        self.mode_matters |= asked;
        self.exact |= exact;
        (out, seen)
    }

    /// Adds a diagnostic, once, with the constructors and calls that led to its place.
    pub fn report(&mut self, mut d: Diagnostic) {
        self.reports += 1;
        for (span, lead) in self.trail.iter().rev().take(3) {
            d = d.secondary(*span, lead.to_string());
        }
        if self.diagnostics.len() < MAX_DIAGNOSTICS && self.reported.insert((d.code, d.span(), d.message.clone())) {
            self.diagnostics.push(d);
        }
    }

    /// Adds a diagnostic and fails.
    pub fn fail<T>(&mut self, d: Diagnostic) -> R<T> {
        self.report(d);
        Err(Reported)
    }

    /// Registers a parameter or state of the function being built; gives the place of another one of that name.
    pub fn declare_slot(&mut self, decl: ParamDecl, dims: &[Axis], state: bool) -> Option<Span> {
        if let Some(first) = self.builder.slots.get(&decl.name) {
            return Some(self.builder.function.tensor(*first).span.unwrap_or(decl.span));
        }
        let ids = self.dims(dims);
        self.builder.declare(decl, ids, state);
        None
    }

    /// The IR dimensions that store axes.
    pub fn dims(&mut self, axes: &[Axis]) -> Vec<ir::AxisId> {
        let mut out = Vec::new();
        for axis in axes {
            match axis.kind() {
                Kind::Atom { .. } | Kind::Sum(_) | Kind::Batch => out.push(self.dim(axis)),
                _ => axis.each_part(&mut |part| out.push(self.dim(part))),
            }
        }
        out
    }

    /// The IR axis of an atom, a sum or the batch.
    pub fn dim(&mut self, axis: &Axis) -> ir::AxisId {
        if let Some((_, id)) = self.axis_ids_at.get(&axis.address()) {
            return *id;
        }
        let id = self.dim_by_look(axis);
        self.axis_ids_at.insert(axis.address(), (axis.clone(), id));
        id
    }

    fn dim_by_look(&mut self, axis: &Axis) -> ir::AxisId {
        let pieces: Vec<(String, usize)> = match axis.kind() {
            Kind::Sum(parts) => parts.iter().map(|p| (axis_name(p), p.size())).collect(),
            _ => Vec::new(),
        };
        let name = axis_name(axis);
        let made = ir::Axis { name, size: axis.size(), pieces };
        if let Some(id) = self.axis_ids.get(&made) {
            return *id;
        }
        let id = ir::AxisId(self.axes.len() as u32);
        self.axes.push(made.clone());
        self.axis_ids.insert(made, id);
        id
    }
}

/// A name for an axis in the IR: its own, or `n768` for one that came out of an expression.
fn axis_name(axis: &Axis) -> String {
    let name = axis.name();
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { format!("n{}", axis.size()) }
}
