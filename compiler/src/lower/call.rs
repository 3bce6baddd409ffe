//! Calls of submodules: put in place, or made functions of the program where the same module is used again.

use std::rc::Rc;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{Arg, AxisRef, Expr as Ast, Forward, Path, Span};

use super::builder::View;
use super::forward::{Frame, result_name};
use crate::check::axes::{Axis, shape};
use crate::check::elaborator::{Elaborator, Lead};
use crate::check::instance::{Instance, Submodule};
use crate::check::report::{R, Reported, count, suggest};
use crate::ir::{Arg as IrArg, ArgRole, Call, Components, Elem, FnResult, FuncId, ResultRole, Stmt, TensorId};

/// A function of the program that may be called again.
#[derive(Debug)]
pub(crate) struct Callee<'a> {
    function: FuncId,
    instance: Rc<Instance<'a>>,
    /// The arguments, in order.
    roles: Vec<ArgRole>,
    /// The results of `forward`; their tensors are those of the function.
    results: Vec<View>,
    /// What it exposes, by path from the callee.
    exposed: Vec<(String, View)>,
    /// The states that it updates, by name relative to the callee.
    states: Vec<String>,
}

impl<'a> Elaborator<'a> {
    /// The results of a call; made once a statement, also where they are asked for repeatedly.
    pub(crate) fn call(&mut self, e: &'a Ast, callee: &'a Path, args: &'a [Arg]) -> R<Vec<View>> {
        let site = std::ptr::from_ref(e) as usize;
        if let Some(views) = self.frame.calls.get(&site) {
            return Ok(views.clone());
        }
        let env = self.frame.env.clone();
        let name = self.path_text(&env, callee)?;
        let views = match self.frame.submodule(&name) {
            Some(sub) => self.submodule_call(&name, &sub, args, e.span)?,
            None if name == "components" => vec![self.components(args, e.span)?],
            None => {
                if self.find_view(&name).is_some() {
                    let d = Diagnostic::error("E0409", format!("`{name}` is a tensor and cannot be called"));
                    return self.fail(d.primary(e.span, "").help("tensors are read with brackets: `x[i, c]`"));
                }
                return self.unknown_function(&name, callee.span);
            }
        };
        self.frame.calls.insert(site, views.clone());
        Ok(views)
    }

    fn components(&mut self, args: &'a [Arg], span: Span) -> R<View> {
        let mut connectivity = None;
        let mut mask = None;
        for arg in args {
            match arg.name.as_ref().map(|n| n.text.as_str()) {
                None if mask.is_none() => mask = Some(self.single(&arg.value, format_args!("mask"))?),
                Some("connectivity") => {
                    let env = self.frame.env.clone();
                    connectivity = Some((self.int(&env, &arg.value)?, arg.value.span));
                }
                _ => {
                    let d = Diagnostic::error("E0403", "`components` takes a mask and `connectivity`")
                        .primary(arg.value.span, "");
                    return self.fail(d);
                }
            }
        }
        let connectivity = match connectivity {
            Some((4, _)) => 4,
            Some((8, _)) => 8,
            other => {
                let place = other.map_or(span, |(_, span)| span);
                let d = Diagnostic::error("E0305", "`connectivity` is 4 or 8").primary(place, "");
                return self.fail(d.help("write `components(mask, connectivity: 8)`"));
            }
        };
        let Some(mask) = mask else {
            return self.fail(Diagnostic::error("E0404", "`components` needs a mask").primary(span, ""));
        };
        let last = mask.dims.last().cloned();
        let grid = last.filter(|axis| axis.factors().is_some_and(|f| f.len() == 2) && axis.parts().len() == 2);
        let (Some(grid), Elem::Bool) = (grid, mask.elem) else {
            let d = Diagnostic::error("E0222", "`components` takes truth values over a product of two axes").primary(
                span,
                format!(
                    "found {} of {}",
                    shape(&mask.dims),
                    if mask.elem == Elem::Bool { "truth values" } else { "numbers" }
                ),
            );
            return self.fail(d);
        };
        let dims = mask.dims.clone();
        let stored = self.stored_as(&mask, &dims, "mask", span);
        let ids = self.builder.function.tensor(stored).dims.clone();
        let labels = self.builder.function.new_tensor("components", Elem::I32, ids, Some(span));
        self.builder.function.body.push(Stmt::Components(Components { mask: stored, labels, connectivity }));
        Ok(View {
            tensor: labels,
            elem: Elem::I32,
            batched: mask.batched,
            store: dims.clone(),
            dims,
            label: Some(grid),
        })
    }

    fn submodule_call(&mut self, name: &str, sub: &Rc<Submodule<'a>>, args: &'a [Arg], span: Span) -> R<Vec<View>> {
        let instance = &sub.instance;
        let Some(forward) = instance.forward else {
            let d = Diagnostic::error("E0413", format!("`{}` has no `forward`", instance.module.name.text));
            return self.fail(d.primary(span, ""));
        };
        let given = self.inputs(name, instance, forward, args, span)?;
        self.trail.push((span, Lead::Call(name.to_owned())));
        let out = self.bound_inputs(sub, forward, &given, span).and_then(|(inputs, rest)| {
            if self.sampling {
                return self.sampled_call(name, sub, forward, inputs, rest);
            }
            let views = if instance.submodules.is_empty() {
                self.in_place(name, instance, forward, inputs, rest)?
            } else {
                self.by_function(name, instance, forward, inputs, rest, span)?
            };
            Ok(views.into_iter().map(|view| outside(view, instance.id)).collect())
        });
        self.trail.pop();
        out
    }

    /// The arguments in the order of the inputs.
    fn inputs(
        &mut self,
        name: &str,
        sub: &Instance<'a>,
        forward: &'a Forward,
        args: &'a [Arg],
        span: Span,
    ) -> R<Vec<View>> {
        let mut given: Vec<Option<View>> = vec![None; forward.inputs.len()];
        for (n, arg) in args.iter().enumerate() {
            let at = match &arg.name {
                Some(wanted) => {
                    let Some(at) = forward.inputs.iter().position(|i| i.name.text == wanted.text) else {
                        let d = Diagnostic::error("E0403", format!("`{name}` has no input `{}`", wanted.text))
                            .primary(wanted.span, "");
                        let d = suggest(d, &wanted.text, forward.inputs.iter().map(|i| i.name.text.as_str()));
                        return self.fail(d);
                    };
                    at
                }
                None => n,
            };
            if at >= given.len() || given[at].is_some() {
                let names: Vec<&str> = forward.inputs.iter().map(|i| i.name.text.as_str()).collect();
                let d = Diagnostic::error(
                    "E0402",
                    format!("`{name}` takes {}, found {}", count(names.len(), "input"), args.len()),
                )
                .primary(arg.value.span, "")
                .note(format!("the inputs of `{}` are {}", sub.module.name.text, names.join(", ")));
                return self.fail(d);
            }
            let input = &forward.inputs[at].name.text;
            given[at] = Some(self.single(&arg.value, format_args!("{name}.{input}"))?);
        }
        let mut out = Vec::new();
        for (input, view) in forward.inputs.iter().zip(given) {
            match view {
                Some(view) => out.push(view),
                None => {
                    let d =
                        Diagnostic::error("E0404", format!("the input `{}` of `{name}` is not given", input.name.text));
                    return self.fail(d.primary(span, ""));
                }
            }
        }
        Ok(out)
    }

    /// The inputs by the callee's types, and what its `..` stands for.
    fn bound_inputs(
        &mut self,
        sub: &Submodule<'a>,
        forward: &'a Forward,
        given: &[View],
        span: Span,
    ) -> R<(Vec<View>, Option<Vec<Axis>>)> {
        let mut rest: Option<Vec<Axis>> = None;
        let mut out = Vec::new();
        for (input, view) in forward.inputs.iter().zip(given) {
            let what = || format!("the input `{}` of `{}`", input.name.text, sub.instance.module.name.text);
            if let Some(label) = &input.label_of {
                let axis = sub.outward(&self.axis(&sub.instance.env, label)?);
                match &view.label {
                    Some(found) if found.matches(&axis) => {}
                    Some(found) => {
                        let d = Diagnostic::error("E0201", format!("{} is a label of {axis}", what()));
                        return self.fail(d.primary(span, format!("found a label of {found}")));
                    }
                    None => {
                        let d =
                            Diagnostic::error("E0222", format!("{} is a label", what())).primary(span, "found numbers");
                        return self.fail(d);
                    }
                }
            } else if view.elem != Elem::F32 {
                let d = Diagnostic::error("E0222", format!("{} holds numbers", what()))
                    .primary(span, "found labels or truth values");
                return self.fail(d.help("write `if ... then 1 else 0` in a definition"));
            }
            let mut dims = Vec::new();
            for (n, dim) in input.dims.iter().enumerate() {
                if let (AxisRef::Rest(_), 0) = (dim, n) {
                    let count = (view.dims.len() + 1).saturating_sub(input.dims.len());
                    let found = view.dims[..count.min(view.dims.len())].to_vec();
                    let leading = rest.get_or_insert(found);
                    dims.extend(leading.clone());
                } else {
                    dims.push(self.axis(&sub.instance.env, dim)?);
                }
            }
            let leading =
                if let Some(AxisRef::Rest(_)) = input.dims.first() { rest.as_ref().map_or(0, Vec::len) } else { 0 };
            let own = dims[leading..].iter().map(|d| sub.outward(d));
            let seen: Vec<Axis> = dims[..leading].iter().cloned().chain(own).collect();
            self.fits(what, view, &seen, span)?;
            out.push(View { dims: dims.into(), ..view.clone() });
        }
        Ok((out, rest))
    }

    /// Elaborates a `forward` in a frame of its own and gives its results.
    pub(crate) fn run(
        &mut self,
        instance: &Rc<Instance<'a>>,
        forward: &'a Forward,
        inputs: Vec<View>,
        rest: Option<Vec<Axis>>,
        path: String,
    ) -> R<Vec<View>> {
        let mut tensors = Vec::new();
        for (input, view) in forward.inputs.iter().zip(inputs) {
            tensors.push((input.name.text.clone(), Some(view)));
        }
        let frame = Frame {
            instance: Some(Rc::clone(instance)),
            file: instance.item.file,
            env: instance.env.clone(),
            tensors,
            rest,
            path,
            ..Frame::default()
        };
        let outer = std::mem::replace(&mut self.frame, frame);
        let out = self.block(&forward.body);
        let frame = std::mem::replace(&mut self.frame, outer);
        out?;
        match frame.returned {
            Some(views) => {
                if instance.item.file == self.spec.root() {
                    self.elaborated.insert(instance.id, Rc::clone(instance));
                }
                Ok(views)
            }
            None => {
                let d = Diagnostic::error(
                    "E0413",
                    format!("the `forward` of `{}` returns nothing", instance.module.name.text),
                );
                self.fail(d.primary(forward.span, "").help("end it with `return ...`"))
            }
        }
    }

    fn in_place(
        &mut self,
        name: &str,
        sub: &Rc<Instance<'a>>,
        forward: &'a Forward,
        inputs: Vec<View>,
        rest: Option<Vec<Axis>>,
    ) -> R<Vec<View>> {
        let path = format!("{}{name}.", self.frame.path);
        let views = self.run(sub, forward, inputs, rest, path.clone())?;
        for (exposed, view) in &mut self.builder.exposed {
            if exposed.starts_with(&path) {
                *view = outside(view.clone(), sub.id);
            }
        }
        Ok(views)
    }

    fn by_function(
        &mut self,
        name: &str,
        sub: &Rc<Instance<'a>>,
        forward: &'a Forward,
        inputs: Vec<View>,
        rest: Option<Vec<Axis>>,
        span: Span,
    ) -> R<Vec<View>> {
        // Arguments arrive stored by the axes of their declaration, so that equal calls have equal types.
        let mut tensors: Vec<(TensorId, View)> = Vec::new();
        for (input, view) in forward.inputs.iter().zip(inputs) {
            let outside = Rc::clone(&view.dims);
            let tensor = self.stored_as(&view, &outside, &format!("{name}.{}", input.name.text), span);
            tensors.push((tensor, View { store: view.dims.clone(), ..view }));
        }
        let views: Vec<View> = tensors.iter().map(|(_, view)| view.clone()).collect();
        let key = call_key(sub, rest.as_deref(), &views);
        let callee = match self.callees.get(&key) {
            Some(callee) => Rc::clone(callee),
            None => {
                let callee = Rc::new(self.build(sub, forward, views, rest)?);
                self.callees.insert(key, Rc::clone(&callee));
                callee
            }
        };
        self.emit_call(name, sub, &callee, forward, &tensors)
    }

    /// Makes a function of a module.
    fn build(
        &mut self,
        sub: &Rc<Instance<'a>>,
        forward: &'a Forward,
        inputs: Vec<View>,
        rest: Option<Vec<Axis>>,
    ) -> R<Callee<'a>> {
        let outer = std::mem::take(&mut self.builder);
        let out = self.build_inside(sub, forward, inputs, rest);
        let builder = std::mem::replace(&mut self.builder, outer);
        let (instance, results) = out?;
        let mut function = builder.function;
        let same = self.functions.iter().filter(|f| f.name.split('#').next() == Some(&sub.module.name.text)).count();
        function.name = match same {
            0 => sub.module.name.text.clone(),
            n => format!("{}#{}", sub.module.name.text, n + 1),
        };
        for (n, view) in results.iter().enumerate() {
            let role =
                ResultRole::Output(result_name(sub.module.kind, forward.results.get(n).and_then(|r| r.name.as_ref())));
            function.results.push(FnResult { tensor: view.tensor, role });
        }
        for (path, view) in &builder.exposed {
            function.results.push(FnResult { tensor: view.tensor, role: ResultRole::Exposed(path.clone()) });
        }
        let mut states = Vec::new();
        for (state, tensor, _) in builder.next_states {
            function.results.push(FnResult { tensor, role: ResultRole::NextState(state.clone()) });
            states.push(state);
        }
        let roles = function.args.iter().map(|a| a.role.clone()).collect();
        let id = FuncId(self.functions.len() as u32);
        self.functions.push(function);
        Ok(Callee { function: id, instance, roles, results, exposed: builder.exposed, states })
    }

    fn build_inside(
        &mut self,
        sub: &Rc<Instance<'a>>,
        forward: &'a Forward,
        inputs: Vec<View>,
        rest: Option<Vec<Axis>>,
    ) -> R<(Rc<Instance<'a>>, Vec<View>)> {
        // The same instance again, with names from the callee.
        let instance = self.instance_with(
            sub.item,
            sub.module,
            sub.arguments.clone(),
            sub.identity.clone(),
            sub.id,
            String::new(),
        )?;
        let mut views = Vec::new();
        for (input, view) in forward.inputs.iter().zip(inputs) {
            // By the axes that this instance declares.
            let mut dims = Vec::new();
            for (n, dim) in input.dims.iter().enumerate() {
                match dim {
                    AxisRef::Rest(_) if n == 0 => dims.extend(rest.iter().flatten().cloned()),
                    _ => dims.push(self.axis(&instance.env, dim)?),
                }
            }
            views.push(self.input(&input.name.text, input.name.span, View { dims: dims.into(), ..view }));
        }
        let results = self.run(&instance, forward, views, rest, String::new())?;
        let mut out: Vec<View> = Vec::new();
        for (n, view) in results.into_iter().enumerate() {
            let name = result_name(sub.module.kind, forward.results.get(n).and_then(|r| r.name.as_ref()));
            let view = self.own_result(view, &out, &name, forward.span);
            out.push(view);
        }
        Ok((instance, out))
    }

    /// Adds an input to the function being built.
    pub(crate) fn input(&mut self, name: &str, span: Span, view: View) -> View {
        let mut ids = self.dims(&view.dims);
        if view.batched {
            let batch = self.batch.clone();
            ids.insert(0, self.dim(&batch));
        }
        let tensor = self.builder.function.new_tensor(name, view.elem, ids, Some(span));
        self.builder.function.args.push(IrArg { tensor, role: ArgRole::Input(name.to_owned()) });
        View { tensor, store: view.dims.clone(), ..view }
    }

    /// A result that is an argument, or a result twice, becomes a tensor of its own.
    pub(crate) fn own_result(&mut self, view: View, before: &[View], name: &str, span: Span) -> View {
        let argument = self.builder.function.args.iter().any(|a| a.tensor == view.tensor);
        if argument || before.iter().any(|v| v.tensor == view.tensor) {
            let dims = view.dims.clone();
            self.copy(&view, &dims, name, span)
        } else {
            view
        }
    }

    fn emit_call(
        &mut self,
        name: &str,
        sub: &Rc<Instance<'a>>,
        callee: &Callee<'a>,
        forward: &'a Forward,
        inputs: &[(TensorId, View)],
    ) -> R<Vec<View>> {
        let path = format!("{}{name}", self.frame.path);
        let count = self.builder.calls.entry(path.clone()).or_default();
        *count += 1;
        let site = if *count > 1 { format!("{path}#{count}") } else { path.clone() };
        let mut args = Vec::new();
        for role in &callee.roles {
            let tensor = match role {
                ArgRole::Param(p) | ArgRole::State(p) => self.builder.slots.get(&format!("{}{p}", sub.prefix)).copied(),
                ArgRole::Input(input) => {
                    let at = forward.inputs.iter().position(|i| i.name.text == *input);
                    at.and_then(|n| inputs.get(n)).map(|(tensor, _)| *tensor)
                }
                ArgRole::Key => Some(self.derived_key(&site)),
                ArgRole::Cotangent(_) | ArgRole::Saved(_) => None,
            };
            match tensor {
                Some(tensor) => args.push(tensor),
                // Callee and caller declare the same slots; a missing one was reported when it was declared.
                None => return Err(Reported),
            }
        }
        let mut results = Vec::new();
        let mut fresh = |x: &mut Elaborator<'a>, view: &View| {
            let callee_tensor = x.functions[callee.function.index()].tensor(view.tensor).clone();
            let tensor = x.builder.function.new_tensor(
                format!("{site}.{}", callee_tensor.name),
                callee_tensor.elem,
                callee_tensor.dims,
                callee_tensor.span,
            );
            results.push(tensor);
            View { tensor, ..view.clone() }
        };
        let views: Vec<View> = callee.results.iter().map(|v| fresh(self, v)).collect();
        let mut exposed = Vec::new();
        for (rest, view) in &callee.exposed {
            exposed.push((format!("{path}.{rest}"), outside(fresh(self, view), callee.instance.id)));
        }
        for state in &callee.states {
            let full = format!("{}{state}", sub.prefix);
            let Some(slot) = self.builder.slots.get(&full).copied() else { return Err(Reported) };
            let tensor = self.builder.function.tensor(slot).clone();
            let next = self.builder.function.new_tensor(format!("{full}.next"), tensor.elem, tensor.dims, tensor.span);
            results.push(next);
            let span = tensor.span.unwrap_or(forward.span);
            if self.builder.next_states.iter().any(|(n, ..)| *n == full) {
                let d = Diagnostic::error("E0412", format!("the state `{full}` is updated twice in a step"))
                    .primary(span, "");
                return self.fail(d);
            }
            self.builder.next_states.push((full, next, span));
        }
        for (path, view) in exposed {
            self.builder.exposed.retain(|(n, _)| *n != path);
            self.builder.exposed.push((path, view));
        }
        let call = Call { function: callee.function, args, results, site };
        self.builder.function.body.push(Stmt::Call(call));
        Ok(views.into_iter().map(|v| outside(v, callee.instance.id)).collect())
    }
}

/// A tensor as seen by the caller of the module that made it.
fn outside(view: View, owner: u32) -> View {
    View { dims: view.dims.iter().map(|d| d.seen_from_outside(owner)).collect(), ..view }
}

/// Text that is equal exactly for calls that make the same function: of instances with equal arguments, on inputs of equal types.
fn call_key(sub: &Instance<'_>, rest: Option<&[Axis]>, inputs: &[View]) -> String {
    let mut key = sub.identity.clone();
    for axis in rest.into_iter().flatten() {
        key.push('.');
        axis.identity(&mut key);
    }
    for view in inputs {
        key.push_str(if view.batched { "|b" } else { "|-" });
    }
    key
}
