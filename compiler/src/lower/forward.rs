//! The statements of `forward`.

use std::rc::Rc;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{Expr as Ast, ModuleKind, Name, Span, Stmt, Target};
use rustc_hash::FxHashMap;

use super::builder::View;
use super::expr::Val;
use super::index::IndexVal;
use crate::check::axes::{Axis, shape};
use crate::check::elaborator::Elaborator;
use crate::check::instance::{Instance, Submodule};
use crate::check::report::{R, Reported, count};
use crate::check::value::{Env, Static};
use crate::ir::{Clause, Elem, Expr, Index, Pred, VarId};

/// An index name in scope.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub name: String,
    pub value: IndexVal,
    pub vars: Vec<VarId>,
    /// Which points of the domain take part.
    pub guard: Pred,
    /// Whether a left side binds it, and not a reduction.
    pub defined: bool,
}

/// A `forward` that is being elaborated.
#[derive(Default)]
pub(crate) struct Frame<'a> {
    pub instance: Option<Rc<Instance<'a>>>,
    /// The file in which names of functions are looked up.
    pub file: usize,
    pub env: Env,
    /// Defined tensors; `None` where the definition had an error.
    pub tensors: Vec<(String, Option<View>)>,
    pub scope: Vec<Bound>,
    /// In a scalar function: its arguments, and nothing else is in scope.
    pub arguments: Option<Vec<(String, Val)>>,
    /// The axes that `..` stands for.
    pub rest: Option<Vec<Axis>>,
    /// The indices that `..` stands for in this definition.
    pub rest_index: Option<Vec<IndexVal>>,
    /// In a whole-tensor expression: the indices at which tensors are read.
    pub whole: Option<Vec<IndexVal>>,
    /// The batch index of this definition.
    pub batch: Option<VarId>,
    /// The results of calls in this statement, by the call's place in the tree.
    pub calls: FxHashMap<usize, Vec<View>>,
    pub returned: Option<Vec<View>>,
    /// The path of this module from the function being built: empty or `attn.`.
    pub path: String,
    /// What is being defined, for the names of intermediate tensors.
    pub defining: String,
}

impl<'a> Frame<'a> {
    /// The index of that name.
    pub fn bound(&self, name: &str) -> Option<&Bound> {
        if self.arguments.is_some() { None } else { self.scope.iter().rev().find(|b| b.name == name) }
    }
    /// The submodule of that name.
    pub fn submodule(&self, name: &str) -> Option<Rc<Submodule<'a>>> {
        self.instance.as_ref()?.submodule(name)
    }
    /// Binds a name to a tensor; an earlier one is hidden.
    pub fn set(&mut self, name: &str, view: Option<View>) {
        match self.tensors.iter_mut().find(|(n, _)| n == name) {
            Some(slot) => slot.1 = view,
            None => self.tensors.push((name.to_owned(), view)),
        }
    }
}

impl<'a> Elaborator<'a> {
    /// The tensor that a name stands for: a definition, an input, a parameter or state, also of a submodule, or what a
    /// submodule has exposed.
    pub(crate) fn find_view(&mut self, name: &str) -> Option<R<View>> {
        if let Some((_, view)) = self.frame.tensors.iter().find(|(n, _)| n == name) {
            return Some(view.clone().ok_or(Reported));
        }
        let instance = self.frame.instance.clone()?;
        if let Some(view) = self.slot_view(&instance, name, name) {
            return Some(Ok(view));
        }
        if self.builder.exposed.is_empty() {
            return None;
        }
        let path = format!("{}{name}", self.frame.path);
        self.builder.exposed.iter().rev().find(|(n, _)| *n == path).map(|(_, view)| Ok(view.clone()))
    }

    /// The parameter or state `name` of an instance, which is `path` from the module at hand.
    fn slot_view(&mut self, instance: &Instance<'a>, name: &str, path: &str) -> Option<View> {
        if let Some((_, slot)) = instance.slots.iter().find(|(n, _)| n == name) {
            let tensor =
                if self.sampling { self.sampled_slot(path, slot) } else { *self.builder.slots.get(&slot.full)? };
            let dims = slot.dims.clone();
            return Some(View { tensor, elem: Elem::F32, batched: false, store: dims.clone(), dims, label: None });
        }
        if !name.contains('.') {
            return None;
        }
        for (sub_name, sub) in &instance.submodules {
            if let Some(rest) = name.strip_prefix(sub_name.as_str()).and_then(|r| r.strip_prefix('.'))
                && let Some(mut view) = self.slot_view(&sub.instance, rest, path)
            {
                view.dims = view.dims.iter().map(|d| sub.outward(d)).collect();
                return Some(view);
            }
        }
        None
    }

    /// Runs through statements.
    pub(crate) fn block(&mut self, body: &'a [Stmt]) -> R<()> {
        let mut ok = true;
        let mut at = 0;
        while at < body.len() {
            if self.frame.returned.is_some() {
                let d = Diagnostic::warning("E0411", "this is never reached")
                    .primary(span_of(&body[at]), "`return` stands before it");
                self.report(d);
                break;
            }
            // Clauses over a sum axis stand one after another.
            let group = match &body[at] {
                Stmt::Define { target: Target { name, indices: Some(_), .. }, .. } => body[at..]
                    .iter()
                    .take_while(|s| matches!(s, Stmt::Define { target: t, .. } if t.name.text == name.text && t.indices.is_some()))
                    .count(),
                _ => 1,
            };
            ok &= if group > 1 || is_indexed(&body[at]) {
                self.definitions(&body[at..at + group]).is_ok()
            } else {
                self.statement(&body[at]).is_ok()
            };
            if self.gave_up {
                return Err(Reported);
            }
            at += group;
        }
        if ok { Ok(()) } else { Err(Reported) }
    }

    fn statement(&mut self, stmt: &'a Stmt) -> R<()> {
        self.frame.calls.clear();
        self.step(span_of(stmt))?;
        match stmt {
            Stmt::Define { target, value, expose, .. } => {
                let out = self.single(value, format_args!("{}", target.name.text));
                self.frame.set(&target.name.text, out.as_ref().ok().cloned());
                let view = out?;
                if *expose {
                    self.expose(&target.name.text, view);
                }
                Ok(())
            }
            Stmt::DefineTuple { targets, value, span } => {
                let out = self.tuple_definition(targets, value, *span);
                if out.is_err() {
                    for target in targets {
                        self.frame.set(&target.name.text, None);
                    }
                }
                out
            }
            Stmt::Update { target, value, span } => self.update(target, value, *span),
            Stmt::Expose { name, .. } => match self.find_view(&name.text) {
                Some(view) => {
                    let view = view?;
                    self.expose(&name.text, view);
                    Ok(())
                }
                None => self.unknown(&name.text, name.span),
            },
            Stmt::Let { name, value, .. } => {
                let env = self.frame.env.clone();
                let owner = self.frame.instance.as_ref().map_or(0, |i| i.id);
                let value = self.let_value(&env, &name.text, value, owner)?;
                self.frame.env.bind(&name.text, value);
                Ok(())
            }
            Stmt::If { cond, then, otherwise, .. } => {
                let env = self.frame.env.clone();
                if self.condition(&env, cond)? { self.block(then) } else { self.block(otherwise) }
            }
            Stmt::For { var, lo, hi, body, span } => {
                let env = self.frame.env.clone();
                let range = self.range(&env, lo, hi)?;
                // Alone, the names of this frame change in place.
                drop(env);
                for n in range {
                    self.step(*span)?;
                    let len = self.frame.env.len();
                    self.frame.env.bind(&var.text, Static::int(n));
                    let ok = self.block(body);
                    self.frame.env.truncate(len);
                    ok?;
                }
                Ok(())
            }
            Stmt::Return { values, span } => self.returns(values, *span),
        }
    }

    fn expose(&mut self, name: &str, view: View) {
        let path = format!("{}{name}", self.frame.path);
        self.builder.exposed.retain(|(n, _)| *n != path);
        self.builder.exposed.push((path, view));
    }

    fn update(&mut self, target: &'a Target, value: &'a Ast, span: Span) -> R<()> {
        let name = &target.name.text;
        let instance = self.frame.instance.clone();
        let slot =
            instance.as_ref().and_then(|i| i.slots.iter().find(|(n, s)| n == name && s.state)).map(|(_, s)| s.clone());
        let Some(slot) = slot else {
            let d = Diagnostic::error("E0412", format!("`{name}` is not a state of this module"))
                .primary(target.name.span, "");
            return self.fail(d.help("declare it: `name: state[AXES] = zeros`"));
        };
        let view = match &target.indices {
            Some(_) => self.indexed(&[(target, value)])?,
            None => self.single(value, format_args!("{name}"))?,
        };
        if view.batched {
            let d = Diagnostic::error("E0212", format!("the new value of the state `{name}` depends on the image"))
                .primary(span, "");
            return self.fail(d.help("a state is one for the whole batch: reduce over `b: Batch`"));
        }
        self.fits(|| format!("the state `{name}`"), &view, &slot.dims, span)?;
        if !self.training() {
            return Ok(());
        }
        if self.builder.next_states.iter().any(|(n, ..)| *n == slot.full) {
            let d = Diagnostic::error("E0412", format!("the state `{}` is updated twice in a step", slot.full));
            return self.fail(d.primary(span, ""));
        }
        let tensor = self.stored_as(&view, &slot.dims, name, span);
        self.builder.next_states.push((slot.full, tensor, span));
        Ok(())
    }

    /// Checks the shape of a tensor; `what` says which one.
    pub(crate) fn fits(&mut self, what: impl Fn() -> String, view: &View, dims: &[Axis], span: Span) -> R<()> {
        if view.dims.len() == dims.len() && view.dims.iter().zip(dims).all(|(a, b)| a.matches(b)) {
            return Ok(());
        }
        let d = Diagnostic::error("E0204", format!("{} has another shape", what()))
            .primary(span, format!("found {}", shape(&view.dims)))
            .note(format!("expected {}", shape(dims)));
        let same_sizes = view.dims.len() == dims.len() && view.dims.iter().zip(dims).all(|(a, b)| a.size() == b.size());
        self.fail(if same_sizes { d.note("the sizes are equal here, but the axes are different ones") } else { d })
    }

    fn returns(&mut self, values: &'a [Ast], span: Span) -> R<()> {
        let Some(instance) = self.frame.instance.clone() else { return Err(Reported) };
        let Some(forward) = instance.forward else { return Err(Reported) };
        let mut views = Vec::new();
        if let ([value], true) = (values, forward.results.len() > 1) {
            views = self.tensors(value, format_args!("y"))?;
        } else {
            for (n, value) in values.iter().enumerate() {
                let name = result_name(instance.module.kind, forward.results.get(n).and_then(|r| r.name.as_ref()));
                views.push(self.single(value, format_args!("{name}"))?);
            }
        }
        if views.len() != forward.results.len() {
            let d = Diagnostic::error(
                "E0410",
                format!("`forward` declares {}, found {}", count(forward.results.len(), "result"), views.len()),
            );
            return self.fail(d.primary(span, ""));
        }
        for ((view, result), n) in views.iter_mut().zip(&forward.results).zip(0..) {
            let dims = self.shape_of(&instance.env, &result.dims)?;
            let what = || match &result.name {
                Some(name) => format!("the result `{}`", name.text),
                None => "the result".to_owned(),
            };
            let place = values.get(n).map_or(span, |v| v.span);
            self.fits(what, view, &dims, place)?;
            view.dims = dims.into();
            if instance.module.kind == ModuleKind::Loss && view.dims.is_empty() && view.batched {
                *view = self.batch_mean(view, place);
            }
        }
        if instance.module.kind == ModuleKind::Loss && views.iter().all(|v| !v.dims.is_empty()) {
            let place = forward.results.first().map_or(span, |r| r.span);
            let d =
                Diagnostic::error("E0223", format!("the loss `{}` has no scalar result", instance.module.name.text))
                    .primary(place, "a loss is a number, `[]`");
            return self.fail(d.help("sum it or take its mean: `loss[] = mean(c) ...`"));
        }
        self.frame.returned = Some(views);
        Ok(())
    }

    /// The axes of a declared shape; `..` stands for the leading axes of this call.
    pub(crate) fn shape_of(&mut self, env: &Env, dims: &'a [foveate_dsl::ast::AxisRef]) -> R<Vec<Axis>> {
        let mut out = Vec::new();
        for (n, dim) in dims.iter().enumerate() {
            match (dim, &self.frame.rest) {
                (foveate_dsl::ast::AxisRef::Rest(_), Some(rest)) if n == 0 => out.extend(rest.clone()),
                _ => out.push(self.axis(env, dim)?),
            }
        }
        Ok(out)
    }

    fn batch_mean(&mut self, view: &View, span: Span) -> View {
        let name = self.builder.function.tensor(view.tensor).name.clone();
        let batch = self.batch.clone();
        let dim = self.dim(&batch);
        let var = self.builder.function.new_var("b", dim);
        let read = Expr::read(view.elem, view.tensor, vec![Index::from(var)]);
        let total = Expr::sum(vec![var], Pred::True, read);
        let total = self.hoist(total, &format!("{name}.total"), span);
        let mean = Expr::div(total, Expr::constant(Elem::F32, batch.size() as f64));
        let tensor = self.builder.function.new_tensor(name, Elem::F32, Vec::new(), Some(span));
        self.define(tensor, vec![Clause { vars: Vec::new(), at: Vec::new(), body: mean }]);
        View { tensor, elem: Elem::F32, batched: false, dims: Rc::from([]), store: Rc::from([]), label: None }
    }

    /// The tensor with the storage of exactly these axes; copied where it is stored otherwise.
    pub(crate) fn stored_as(&mut self, view: &View, dims: &[Axis], name: &str, span: Span) -> crate::ir::TensorId {
        let sizes = |axes: &[Axis]| -> Vec<usize> { axes.iter().flat_map(Axis::part_sizes).collect() };
        if sizes(&view.store) == sizes(dims) {
            return view.tensor;
        }
        let copy = View { dims: dims.into(), ..view.clone() };
        self.copy(&copy, dims, name, span).tensor
    }

    /// A copy of a tensor that is stored by its own axes.
    pub(crate) fn copy(&mut self, view: &View, dims: &[Axis], name: &str, span: Span) -> View {
        let batch = self.batch.clone();
        let dim = self.dim(&batch);
        let b = self.builder.function.new_var("b", dim);
        let (mut values, mut vars) = (Vec::new(), Vec::new());
        for (n, axis) in dims.iter().enumerate() {
            let (value, mut made) = self.new_index(&format!("i{n}"), axis);
            values.push(super::index::At::Index(value, span));
            vars.append(&mut made);
        }
        let outer = self.frame.batch.replace(b);
        let body = self.read(view, name, values, span);
        self.frame.batch = outer;
        let body = match body {
            Ok(value) => self.element_of(value, span),
            Err(Reported) => Err(Reported),
        };
        // The axes are those of the tensor itself, so the read cannot fail.
        let (body, label) = body.unwrap_or((Expr::constant(Elem::F32, 0.0), None));
        let mut dims_ids = self.dims(dims);
        if view.batched {
            vars.insert(0, b);
            dims_ids.insert(0, dim);
        }
        let tensor = self.builder.function.new_tensor(name, body.elem, dims_ids, Some(span));
        let at = vars.iter().map(|v| Index::from(*v)).collect();
        let elem = body.elem;
        self.define(tensor, vec![Clause { vars, at, body }]);
        let dims: Rc<[Axis]> = dims.into();
        View { tensor, elem, batched: view.batched, store: Rc::clone(&dims), dims, label }
    }
}

/// What a result is called that has no name.
pub(crate) fn result_name(kind: ModuleKind, name: Option<&Name>) -> String {
    match (name, kind) {
        (Some(name), _) => name.text.clone(),
        (None, ModuleKind::Loss) => "loss".to_owned(),
        (None, _) => "y".to_owned(),
    }
}

fn is_indexed(stmt: &Stmt) -> bool {
    matches!(stmt, Stmt::Define { target: Target { indices: Some(_), .. }, .. })
}

/// Where a statement stands.
pub(crate) fn span_of(stmt: &Stmt) -> Span {
    match stmt {
        Stmt::Define { span, .. }
        | Stmt::DefineTuple { span, .. }
        | Stmt::Update { span, .. }
        | Stmt::Expose { span, .. }
        | Stmt::Let { span, .. }
        | Stmt::If { span, .. }
        | Stmt::For { span, .. }
        | Stmt::Return { span, .. } => *span,
    }
}
