//! Lowering: from a module with concrete arguments to a program of the index IR. See [`crate::check`] for the other half of the
//! elaborator.

pub(crate) mod builder;
pub(crate) mod call;
mod define;
mod domain;
pub(crate) mod expr;
mod finish;
pub(crate) mod forward;
mod functions;
mod index;
mod reduce;
mod sampled;
mod whole;

use foveate_dsl::ast::{self, AxisRef, Module, ModuleKind, Span};
use foveate_dsl::{Diagnostic, SourceMap};

use crate::check::axes::Axis;
use crate::check::elaborator::{Elaborator, Lead, MAX_ELEMENTS};
use crate::check::instance::Instance;
use crate::check::report::{R, Reported, suggest};
use crate::check::spec::ItemRef;
use crate::check::value::{Env, Static};
use crate::check::{ParamDecl, Piece, Spec, Value};
use crate::ir::{Elem, FnResult, FuncId, Program, ResultRole};
use builder::View;
use forward::result_name;
use std::rc::Rc;

/// What to lower for.
#[derive(Clone, Debug)]
pub struct LowerOptions {
    /// The value of `training`; state updates are part of the program only in training.
    pub training: bool,
    /// Whether parameters of kind `probability` have their values; if not, they are 0 wherever a module has one, and nothing is left to
    /// chance.
    pub random: bool,
    /// Number of images in a batch, at least 1.
    pub batch: usize,
    /// The exposed values that the program gives besides its results, by name. See [`Lowered::exposed`].
    pub exposed: Vec<String>,
}

/// A lowered item.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The program. Its results are those of `forward` in order, then the exposed values asked for, then the new values of the
    /// states that are updated.
    pub program: Program,
    /// All trainable parameters, in the order of their declaration.
    pub params: Vec<ParamDecl>,
    /// All states, in the order of their declaration.
    pub states: Vec<ParamDecl>,
    /// The inputs of `forward`.
    pub inputs: Vec<InputDecl>,
    /// The names of the results of `forward`.
    pub results: Vec<String>,
    /// All values that can be had by [`LowerOptions::exposed`]: of this item and, by dotted path, of its submodules.
    pub exposed: Vec<Exposed>,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
}

/// An input of `forward`.
#[derive(Clone, Debug, PartialEq)]
pub struct InputDecl {
    /// Its name.
    pub name: String,
    /// Its shape without the batch; product and merged axes count as one dimension.
    pub shape: Vec<usize>,
    /// For labels: the number of classes. The elements are i32 then, and f32 otherwise.
    pub label_classes: Option<usize>,
    /// Whether it leads with the batch.
    pub batched: bool,
}

/// A value that can be had besides the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// Its name; of a submodule's value, the dotted path.
    pub name: String,
    /// Whether it leads with the batch.
    pub batched: bool,
    /// What each of its other dimensions consists of.
    pub dims: Vec<Vec<Piece>>,
}

/// The name of the setting that gives the leading axes `..` of an item that is lowered by itself.
pub(crate) const REST: &str = "rest";

/// Checks an item with concrete settings and lowers it. `settings` are its arguments by name; what is left out has its default. For
/// an item whose inputs have leading axes `..`, the setting `rest` gives their sizes (a number or a tuple, 1 if left out).
///
/// # Errors
/// All diagnostics found, errors and warnings.
pub fn lower(
    spec: &Spec,
    item: Option<&str>,
    settings: &[(String, Value)],
    options: &LowerOptions,
    sources: &SourceMap,
) -> Result<Lowered, Vec<Diagnostic>> {
    let run = || {
        let mut elaborator = Elaborator::new(spec, sources, options.training, options.batch.max(1));
        elaborator.random = options.random;
        let out = elaborator.program(item, settings, options);
        let diagnostics = std::mem::take(&mut elaborator.diagnostics);
        match out {
            Ok(mut lowered) if !diagnostics.iter().any(Diagnostic::is_error) => {
                lowered.program = finish::finish(lowered.program);
                lowered.warnings = diagnostics;
                Ok(lowered)
            }
            _ => Err(diagnostics),
        }
    };
    on_a_large_stack(run)
}

/// Runs on a thread whose stack holds the deepest tree that the parser lets through.
pub(crate) fn on_a_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 << 20).spawn_scoped(scope, run);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => panic!("no thread can be started: {error}"),
        }
    })
}

impl<'a> Elaborator<'a> {
    fn program(&mut self, item: Option<&str>, settings: &[(String, Value)], options: &LowerOptions) -> R<Lowered> {
        match self.spec.find(item) {
            Ok(r) => self.item(r, settings, options),
            Err(d) => self.fail(*d),
        }
    }

    /// The program of an item, with calls and bodies as they came about.
    pub(crate) fn item(&mut self, r: ItemRef, settings: &[(String, Value)], options: &LowerOptions) -> R<Lowered> {
        let ast::Item::Module(module) = self.spec.ast_item(r) else { return Err(Reported) };
        if options.batch as u64 > MAX_ELEMENTS as u64 {
            let d = Diagnostic::error("E0307", format!("a batch of {} images is too large", options.batch));
            return self.fail(d.primary(module.name.span, format!("the most is {MAX_ELEMENTS}")));
        }
        let given = self.settings(module, settings)?;
        let rest = self.rest_axes(settings, module.span)?;
        let instance = self.instance(r, module, given, String::new(), module.name.span)?;
        self.entry(&instance, rest, options)
    }

    /// The program of an item with arguments as a recipe writes them.
    pub(crate) fn recipe_item(
        &mut self,
        r: ItemRef,
        module: &'a Module,
        args: &[ast::Arg],
        span: Span,
        options: &LowerOptions,
    ) -> R<Lowered> {
        let given = self.given(module, args, &Env::default())?;
        self.trail.push((span, Lead::Recipe));
        let out = self.instance(r, module, given, String::new(), span);
        self.trail.pop();
        let rest = self.rest_axes(&[], span)?;
        self.entry(&out?, rest, options)
    }

    /// Settings in the order of the parameters.
    pub(crate) fn settings(
        &mut self,
        module: &'a Module,
        settings: &[(String, Value)],
    ) -> R<Vec<Option<(Static, Span)>>> {
        let mut given = vec![None; module.params.len()];
        for (name, value) in settings {
            if name == REST {
                continue;
            }
            match module.params.iter().position(|p| p.name.text == *name) {
                Some(at) => given[at] = Some((Static::from(value), module.params[at].name.span)),
                None => {
                    let d = Diagnostic::error("E0403", format!("`{}` has no parameter `{name}`", module.name.text));
                    let d = suggest(d, name, module.params.iter().map(|p| p.name.text.as_str()));
                    let names: Vec<&str> = module.params.iter().map(|p| p.name.text.as_str()).collect();
                    return self.fail(
                        d.primary(module.name.span, "").note(format!("its parameters are {}", names.join(", "))),
                    );
                }
            }
        }
        Ok(given)
    }

    /// What the parameters of an item are bound to.
    pub(crate) fn bound(
        &mut self,
        r: ItemRef,
        module: &'a Module,
        given: Vec<Option<(Static, Span)>>,
        span: Span,
    ) -> R<Env> {
        let id = self.fresh();
        Ok(self.parameters(r, module, given, id, span)?.0)
    }

    fn rest_axes(&mut self, settings: &[(String, Value)], span: Span) -> R<Vec<Axis>> {
        let sizes = match settings.iter().find(|(n, _)| n == REST).map(|(_, v)| v) {
            None => vec![Value::Int(1)],
            Some(Value::Tuple(parts) | Value::List(parts)) => parts.clone(),
            Some(other) => vec![other.clone()],
        };
        let mut out = Vec::new();
        for (n, size) in sizes.iter().enumerate() {
            let Some(size) = size.as_int() else {
                let d = Diagnostic::error("E0305", format!("`{REST}` is a size or a tuple of sizes, found {size}"));
                return self.fail(d.primary(span, ""));
            };
            let size = self.checked_size(size, span)?;
            let name = if sizes.len() == 1 { "Rest".to_owned() } else { format!("Rest{n}") };
            out.push(Axis::atom(&name, None, size, self.fresh(), 0));
        }
        Ok(out)
    }

    /// The program of an instantiated item.
    pub(crate) fn entry(&mut self, instance: &Rc<Instance<'a>>, rest: Vec<Axis>, options: &LowerOptions) -> R<Lowered> {
        let module = instance.module;
        let Some(forward) = instance.forward else {
            let d = Diagnostic::error("E0413", format!("`{}` has no `forward`", module.name.text));
            return self.fail(d.primary(module.name.span, ""));
        };
        let batched = module.kind != ModuleKind::Optimizer;
        let mut inputs = Vec::new();
        let mut views = Vec::new();
        let mut uses_rest = false;
        for input in &forward.inputs {
            let mut dims = Vec::new();
            for (n, dim) in input.dims.iter().enumerate() {
                match dim {
                    AxisRef::Rest(_) if n == 0 => {
                        uses_rest = true;
                        dims.extend(rest.clone());
                    }
                    _ => dims.push(self.axis(&instance.env, dim)?),
                }
            }
            let batch = self.batch.clone();
            self.elements(dims.iter().chain(batched.then_some(&batch)), input.name.span)?;
            let label = match &input.label_of {
                Some(axis) => Some(self.axis(&instance.env, axis)?),
                None => None,
            };
            let elem = if label.is_some() { Elem::I32 } else { Elem::F32 };
            inputs.push(InputDecl {
                name: input.name.text.clone(),
                shape: dims.iter().map(Axis::size).collect(),
                label_classes: label.as_ref().map(Axis::size),
                batched,
            });
            let dims: Rc<[Axis]> = dims.into();
            let view = View { tensor: crate::ir::TensorId(0), elem, batched, store: Rc::clone(&dims), dims, label };
            views.push(self.input(&input.name.text, input.name.span, view));
        }
        let results = self.run(instance, forward, views, uses_rest.then_some(rest), String::new())?;
        self.builder.function.name.clone_from(&module.name.text);
        let mut names = Vec::new();
        let mut done: Vec<View> = Vec::new();
        for (n, view) in results.into_iter().enumerate() {
            let name = result_name(module.kind, forward.results.get(n).and_then(|r| r.name.as_ref()));
            let view = self.own_result(view, &done, &name, forward.span);
            self.builder
                .function
                .results
                .push(FnResult { tensor: view.tensor, role: ResultRole::Output(name.clone()) });
            done.push(view);
            names.push(name);
        }
        let exposed = std::mem::take(&mut self.builder.exposed);
        for wanted in &options.exposed {
            let Some((name, view)) = exposed.iter().find(|(n, _)| n == wanted) else {
                let d = Diagnostic::error("E0101", format!("`{}` exposes no `{wanted}`", module.name.text))
                    .primary(module.name.span, "");
                let d = suggest(d, wanted, exposed.iter().map(|(n, _)| n.as_str()));
                return self.fail(d);
            };
            let view = self.own_result(view.clone(), &done, name, forward.span);
            self.builder
                .function
                .results
                .push(FnResult { tensor: view.tensor, role: ResultRole::Exposed(name.clone()) });
            done.push(view);
        }
        for (state, tensor, _) in std::mem::take(&mut self.builder.next_states) {
            self.builder.function.results.push(FnResult { tensor, role: ResultRole::NextState(state) });
        }
        let builder = std::mem::take(&mut self.builder);
        let mut functions = std::mem::take(&mut self.functions);
        functions.push(builder.function);
        let entry = FuncId(functions.len() as u32 - 1);
        let program = Program { axes: std::mem::take(&mut self.axes), functions, entry };
        Ok(Lowered {
            program,
            params: builder.params,
            states: builder.states,
            inputs,
            results: names,
            exposed: exposed
                .into_iter()
                .map(|(name, v)| Exposed { name, batched: v.batched, dims: v.dims.iter().map(Piece::all).collect() })
                .collect(),
            warnings: Vec::new(),
        })
    }
}
