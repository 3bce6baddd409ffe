//! Modules with concrete arguments: their sizes, axes, submodules, parameters and states.

use std::rc::Rc;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{self, Arg, AxisDef, AxisRef, ExprKind, Member, Module, Span};
use rustc_hash::FxHashMap;

use super::axes::{Axis, Kind};
use super::crossing::Crossing;
use super::elaborator::{Elaborator, Lead};
use super::names::Named;
use super::report::{R, Reported, suggest};
use super::spec::ItemRef;
use super::statics::{bare_name, failed_name};
use super::value::{Env, Static};

const FLAT_NAMES: &str = "`flat` submodules keep their names: only one of them may have this one";

/// The steps that a submodule, parameter or state counts for.
const DECLARATION: usize = 20;

/// A module with its arguments.
#[derive(Debug)]
pub(crate) struct Instance<'a> {
    pub module: &'a Module,
    pub item: ItemRef,
    /// Owner of the axes that it declares.
    pub id: u32,
    /// What stands before the names of its parameters, relative to the function being built: empty or `attn.`. Empty where it is shared.
    pub prefix: String,
    /// Where it is shared, the atoms of its arguments, in order.
    pub formals: Vec<Axis>,
    /// The arguments alone, for instantiating it again.
    pub arguments: Env,
    /// All compile-time names.
    pub env: Env,
    /// What index names range over.
    pub indices: Vec<(String, Axis)>,
    /// Submodules by name.
    pub submodules: Vec<(String, Rc<Submodule<'a>>)>,
    /// Parameters and states by name.
    pub slots: Vec<(String, Slot)>,
    pub forward: Option<&'a ast::Forward>,
    /// The names of submodules and slots; of a submodule, where it stands.
    taken: FxHashMap<String, Option<usize>>,
    /// Equal exactly for instances of one module with the same arguments; empty where instances are shared anyway.
    pub identity: String,
}

/// An instance as a part of another.
#[derive(Debug)]
pub(crate) struct Submodule<'a> {
    pub instance: Rc<Instance<'a>>,
    /// What stands before the names of its parameters, relative to the function being built: empty or `attn.`.
    pub prefix: String,
    /// Whether the names of its parameters are those of the module that it is in.
    pub flat: bool,
    /// Its axes and those around it.
    pub crossing: Crossing,
}

impl Submodule<'_> {
    /// One of its axes as seen from outside.
    pub fn outward(&self, axis: &Axis) -> Axis {
        self.crossing.outward(axis, self.instance.id, &[])
    }
}

/// A parameter or a state.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub dims: Rc<[Axis]>,
    pub state: bool,
    /// The name relative to the function being built.
    pub full: String,
}

/// How a parameter's elements start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All the same.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Normal with mean 0 and this standard deviation, cut at -2 and 2.
    TruncNormal(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
}

/// A summand of a dimension of a parameter, or the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Number of indices.
    pub len: usize,
    /// Rows and columns, where it is a grid.
    pub grid: Option<(usize, usize)>,
}

impl Piece {
    /// Those of a dimension.
    pub(crate) fn all(axis: &Axis) -> Vec<Piece> {
        match axis.kind() {
            Kind::Sum(parts) => parts.iter().flat_map(Piece::all).collect(),
            Kind::Product(parts) => {
                let grid = match parts.as_slice() {
                    [rows, columns] => Some((rows.size(), columns.size())),
                    _ => None,
                };
                vec![Piece { len: axis.size(), grid }]
            }
            _ => vec![Piece { len: axis.size(), grid: None }],
        }
    }
}

/// A parameter or state of the whole program.
#[derive(Clone, Debug)]
pub struct ParamDecl {
    /// The full name, as in a PyTorch state dict.
    pub name: String,
    /// The shape of the state dict: product and merged axes count as one dimension.
    pub shape: Vec<usize>,
    /// What each dimension consists of: the summands of a sum axis, or the axis itself.
    pub pieces: Vec<Vec<Piece>>,
    /// How its elements start.
    pub init: Init,
    /// Whether weight decay applies.
    pub decay: bool,
    /// Where it is declared.
    pub span: Span,
}

/// What a declaration of a tensor is.
#[derive(Clone, Copy, PartialEq)]
enum SlotKind {
    Param { decay: bool },
    State,
}

impl<'a> Elaborator<'a> {
    /// An instance of the submodule `name = ctor(args)` of a module.
    fn submodule(
        &mut self,
        out: &Instance<'a>,
        name: &str,
        ctor: &ast::Name,
        args: &[Arg],
        flat: bool,
        span: Span,
    ) -> R<Rc<Submodule<'a>>> {
        let (file, env) = (out.item.file, &out.env);
        let prefix = if flat { out.prefix.clone() } else { [&*out.prefix, name, "."].concat() };
        let Some((item, module)) = self.spec.module(file, &ctor.text) else {
            let names = &self.spec.file(file).names;
            if names.contains_key(&ctor.text) {
                let d = Diagnostic::error("E0401", format!("`{}` is not a module", ctor.text))
                    .primary(ctor.span, "functions and recipes have no parameters to hold");
                return self.fail(d);
            }
            let spec = self.spec;
            let mut d = Diagnostic::error("E0101", format!("unknown module `{}`", ctor.text)).primary(ctor.span, "");
            d = suggest(d, &ctor.text, names.keys().map(String::as_str).filter(|n| spec.module(file, n).is_some()));
            if d.help.is_empty() {
                d = d.help("import it: `import NAME from prelude` or from a file");
            }
            return self.fail(d);
        };
        let given = self.given(module, args, env)?;
        self.trail.push((span, Lead::Submodule(name.to_owned(), ctor.text.as_str().into())));
        // Names of parameters meet where a submodule is flat, so each such one is its own; what has a name of its own in it need not be.
        let shared = self.sampling && !flat;
        let made = if shared {
            self.shared_instance(item, module, given, name, span)
        } else {
            self.instance(item, module, given, prefix.clone(), span).map(|i| (i, Crossing::default()))
        };
        self.trail.pop();
        let (instance, crossing) = made?;
        if shared {
            let full = [&*out.prefix, name].concat();
            let met = self.names.add(&full, span, Named::Module(Rc::clone(&instance)));
            self.unmet(met, span)?;
        }
        Ok(Rc::new(Submodule { instance, prefix, flat, crossing }))
    }

    /// Fails where another parameter has a full name.
    fn unmet(&mut self, met: Option<(String, Span)>, span: Span) -> R<()> {
        let Some((name, first)) = met else { return Ok(()) };
        let d = Diagnostic::error("E0107", format!("two parameters are called `{}{name}`", self.place))
            .primary(span, "again here")
            .secondary(first, "first here");
        self.fail(d.help(FLAT_NAMES))
    }

    /// Instantiates a module: binds its parameters, then runs through its members.
    pub(crate) fn instance(
        &mut self,
        item: ItemRef,
        module: &'a Module,
        given: Vec<Option<(Static, Span)>>,
        prefix: String,
        span: Span,
    ) -> R<Rc<Instance<'a>>> {
        self.not_within(item, module, span)?;
        let id = self.fresh();
        let (arguments, identity) = self.parameters(item, module, given, id, span)?;
        self.instance_with(item, module, arguments, identity, id, prefix)
    }

    /// Fails where a module is being instantiated already.
    pub(crate) fn not_within(&mut self, item: ItemRef, module: &'a Module, span: Span) -> R<()> {
        let Some(first) = self.open.iter().position(|o| *o == item) else { return Ok(()) };
        let mut names: Vec<String> = Vec::new();
        for open in &self.open[first..] {
            if let ast::Item::Module(m) = self.spec.ast_item(*open) {
                names.push(m.name.text.clone());
            }
        }
        names.push(module.name.text.clone());
        let d = Diagnostic::error("E0406", format!("`{}` contains itself", module.name.text));
        self.fail(d.primary(span, "").note(names.join(" contains ")))
    }

    /// Instantiates a module whose parameters are bound.
    pub(crate) fn instance_with(
        &mut self,
        item: ItemRef,
        module: &'a Module,
        arguments: Env,
        identity: String,
        id: u32,
        prefix: String,
    ) -> R<Rc<Instance<'a>>> {
        self.instance_in(item, module, arguments, identity, id, prefix, Vec::new())
    }

    /// The same for one that is shared, with the atoms of its arguments.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn instance_in(
        &mut self,
        item: ItemRef,
        module: &'a Module,
        arguments: Env,
        identity: String,
        id: u32,
        prefix: String,
        formals: Vec<Axis>,
    ) -> R<Rc<Instance<'a>>> {
        self.open.push(item);
        let mut out = Instance {
            module,
            item,
            id,
            prefix,
            formals,
            env: arguments.clone(),
            arguments,
            indices: Vec::new(),
            submodules: Vec::new(),
            slots: Vec::new(),
            forward: None,
            taken: FxHashMap::default(),
            identity,
        };
        let ok = self.members(&mut out, &module.members);
        self.open.pop();
        ok.map(|()| Rc::new(out))
    }

    fn members(&mut self, out: &mut Instance<'a>, members: &'a [Member]) -> R<()> {
        let mut ok = true;
        let mut unmet = false;
        for member in members {
            // With sizes that a module does not take, what else is wrong follows from it.
            if unmet && !matches!(member, Member::Require { .. }) {
                continue;
            }
            let before = self.diagnostics.len();
            if self.member(out, member).is_err() {
                ok = false;
                let of_sizes = self.diagnostics[before..].iter().all(|d| matches!(d.code, "E0301" | "E0303"));
                unmet |= of_sizes && matches!(member, Member::Require { .. }) && !self.sampling;
                // Nor is a name unknown whose value could not be had.
                if let Member::Axis { name, .. } | Member::Let { name, .. } = member {
                    out.env.bind(&failed_name(&name.text), Static::Bool(true));
                }
            }
            if self.gave_up {
                return Err(Reported);
            }
        }
        if ok { Ok(()) } else { Err(Reported) }
    }

    fn member(&mut self, out: &mut Instance<'a>, member: &'a Member) -> R<()> {
        match member {
            Member::Require { cond, span } => {
                if self.condition(&out.env, cond)? {
                    return Ok(());
                }
                let values = self.values_in(&out.env, cond);
                let d = Diagnostic::error("E0301", format!("`{}` does not hold", self.text(cond.span)))
                    .primary(*span, format!("required by `{}`", out.module.name.text));
                self.fail(if values.is_empty() { d } else { d.note(format!("here {values}")) })
            }
            Member::Axis { name, def, span } => {
                let axis = match def {
                    AxisDef::Size(e) => {
                        let size = self.size(&out.env, e)?;
                        let text = self.text(e.span);
                        let text = Some(text).filter(|t| *t != size.to_string());
                        Axis::atom(&name.text, text, size, self.fresh(), out.id)
                    }
                    AxisDef::Product(factors) => {
                        let factors = factors.iter().map(|f| self.axis(&out.env, f)).collect::<R<Vec<_>>>()?;
                        self.elements(factors.iter(), *span)?;
                        Axis::product(&name.text, factors)
                    }
                    AxisDef::Sum(summands) => {
                        let mut axes = Vec::new();
                        for summand in summands {
                            axes.push(self.summand(out, summand)?);
                        }
                        let total: i64 = axes.iter().map(|a| a.size() as i64).sum();
                        self.checked_size(total, *span)?;
                        Axis::sum(&name.text, axes)
                    }
                };
                out.env.bind(&name.text, Static::Int(axis.size() as i64, Some(axis)));
                Ok(())
            }
            Member::Index { names, axis, .. } => {
                let axis = self.axis(&out.env, axis)?;
                for name in names {
                    out.indices.push((name.text.clone(), axis.clone()));
                }
                Ok(())
            }
            Member::Let { name, value, .. } => {
                let bound = self.let_value(&out.env, &name.text, value, out.id)?;
                out.env.bind(&name.text, bound);
                Ok(())
            }
            Member::If { cond, then, otherwise, .. } => {
                if self.condition(&out.env, cond)? {
                    self.members(out, then)
                } else {
                    self.members(out, otherwise)
                }
            }
            Member::For { var, lo, hi, body, span } => {
                for n in self.range(&out.env, lo, hi)? {
                    self.step(*span)?;
                    let len = out.env.len();
                    out.env.bind(&var.text, Static::int(n));
                    let ok = self.members(out, body);
                    out.env.truncate(len);
                    ok?;
                }
                Ok(())
            }
            Member::Submodule { name, ctor, args, flat, span } => {
                let text = self.path_text(&out.env, name)?;
                self.take_name(out, &text, name.span)?;
                let instance = self.submodule(out, &text, ctor, args, *flat, *span)?;
                out.taken.insert(text.clone().into_owned(), Some(out.submodules.len()));
                out.submodules.push((text.into_owned(), instance));
                Ok(())
            }
            Member::Param { name, dims, init, no_decay, span } => {
                let text = self.path_text(&out.env, name)?;
                let dims = self.slot(out, &text, name.span, dims, false, *span)?;
                let init = self.init(&out.env, init)?;
                let decay = !no_decay && dims.len() > 1;
                self.declare(out, &text, dims, init, SlotKind::Param { decay }, *span)
            }
            Member::State { name, dims, init, span } => {
                let text = self.path_text(&out.env, name)?;
                let dims = self.slot(out, &text, name.span, dims, true, *span)?;
                let init = self.init(&out.env, init)?;
                self.declare(out, &text, dims, init, SlotKind::State, *span)
            }
            Member::Forward(forward) => {
                if let Some(first) = out.forward.replace(forward) {
                    let d = Diagnostic::error("E0107", format!("`{}` has two `forward`s", out.module.name.text));
                    return self.fail(d.primary(forward.span, "again here").secondary(first.span, "first here"));
                }
                for (n, input) in forward.inputs.iter().enumerate() {
                    if forward.inputs[..n].iter().any(|other| other.name.text == input.name.text) {
                        let d = Diagnostic::error("E0107", format!("two inputs are called `{}`", input.name.text));
                        return self.fail(d.primary(input.name.span, ""));
                    }
                }
                Ok(())
            }
        }
    }

    /// A summand: a declared axis, or a new name for an axis of one element.
    fn summand(&mut self, out: &mut Instance<'a>, r: &'a AxisRef) -> R<Axis> {
        if let AxisRef::Expr(e) = r
            && let Some(name) = bare_name(e).filter(|n| out.env.get(n).is_none())
        {
            let axis = Axis::atom(name, None, 1, self.fresh(), out.id);
            out.env.bind(name, Static::Int(1, Some(axis.clone())));
            return Ok(axis);
        }
        self.axis(&out.env, r)
    }

    /// The value of a `let`; an integer becomes a size of that name.
    pub(crate) fn let_value(&mut self, env: &Env, name: &str, value: &ast::Expr, owner: u32) -> R<Static> {
        let bound = self.statics(env, value, &[])?;
        self.notice_computed(env, value, &bound);
        match bound {
            Static::Int(n, axis) => {
                let text = self.text(value.span);
                let text = Some(text).filter(|t| *t != n.to_string());
                Ok(self.sized(name, n, axis, owner, text))
            }
            other => Ok(other),
        }
    }

    /// Takes a name that no other submodule, parameter or state of the module has.
    fn take_name(&mut self, out: &mut Instance<'a>, name: &str, span: Span) -> R<()> {
        self.steps(DECLARATION, span)?;
        if out.taken.insert(name.to_owned(), None).is_some() {
            let d = Diagnostic::error("E0107", format!("`{name}` is declared twice in `{}`", out.module.name.text));
            return self.fail(d.primary(span, "again here"));
        }
        Ok(())
    }

    fn slot(
        &mut self,
        out: &mut Instance<'a>,
        name: &str,
        place: Span,
        dims: &'a [AxisRef],
        state: bool,
        span: Span,
    ) -> R<Vec<Axis>> {
        self.take_name(out, name, place)?;
        let dims = dims.iter().map(|d| self.axis(&out.env, d)).collect::<R<Vec<_>>>()?;
        self.elements(dims.iter(), span)?;
        if out.module.kind == ast::ModuleKind::Optimizer {
            let what = if state { "state" } else { "parameters" };
            let d = Diagnostic::error("E0407", format!("an optimizer has no {what} of its own"));
            return self.fail(d.primary(span, "").help("moments and parameters are inputs of its `forward`"));
        }
        Ok(dims)
    }

    fn declare(
        &mut self,
        out: &mut Instance<'a>,
        name: &str,
        dims: Vec<Axis>,
        init: Init,
        kind: SlotKind,
        span: Span,
    ) -> R<()> {
        let (state, decay) = (kind == SlotKind::State, kind == SlotKind::Param { decay: true });
        let full = format!("{}{name}", out.prefix);
        if self.sampling {
            let met = self.names.add(&full, span, Named::Slot);
            self.unmet(met, span)?;
            out.slots.push((name.to_owned(), Slot { dims: dims.into(), state, full }));
            return Ok(());
        }
        let shape = dims.iter().map(Axis::size).collect();
        let pieces = dims.iter().map(Piece::all).collect();
        let decl = ParamDecl { name: full.clone(), shape, pieces, init, decay, span };
        if let Some(first) = self.declare_slot(decl, &dims, state) {
            let d = Diagnostic::error("E0107", format!("two parameters are called `{full}`"))
                .primary(span, "again here")
                .secondary(first, "first here");
            return self.fail(d.help(FLAT_NAMES));
        }
        out.slots.push((name.to_owned(), Slot { dims: dims.into(), state, full }));
        Ok(())
    }

    fn init(&mut self, env: &Env, e: &ast::Expr) -> R<Init> {
        match &e.kind {
            ExprKind::Path(p) => match p.as_name() {
                Some("zeros") => return Ok(Init::Zeros),
                Some("ones") => return Ok(Init::Ones),
                _ => {}
            },
            ExprKind::Call { callee, args } => {
                let make: Option<fn(f64) -> Init> = match callee.as_name() {
                    Some("constant") => Some(Init::Constant),
                    Some("normal") => Some(Init::Normal),
                    Some("trunc_normal") => Some(Init::TruncNormal),
                    Some("uniform") => Some(Init::Uniform),
                    _ => None,
                };
                if let (Some(make), [Arg { value, .. }]) = (make, args.as_slice()) {
                    return Ok(make(self.number(env, value)?));
                }
            }
            _ => {}
        }
        let d =
            Diagnostic::error("E0408", format!("`{}` is not an initialiser", self.text(e.span))).primary(e.span, "");
        self.fail(d.help(
            "initialisers are `zeros`, `ones`, `constant(v)`, `normal(std)`, `trunc_normal(std)` and `uniform(bound)`",
        ))
    }

    /// `C = 10, H = 3`: the values of the names in an expression.
    fn values_in(&self, env: &Env, e: &ast::Expr) -> String {
        let mut names: Vec<String> = Vec::new();
        collect_names(e, &mut |name| {
            if !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        });
        let values: Vec<String> = names.iter().filter_map(|n| env.get(n).map(|v| format!("{n} = {v}"))).collect();
        values.join(", ")
    }
}

/// Hands out the names in an expression.
pub(super) fn collect_names(e: &ast::Expr, f: &mut dyn FnMut(&str)) {
    match &e.kind {
        ExprKind::Path(p) => {
            if let Some(name) = p.as_name() {
                f(name);
            }
        }
        ExprKind::Unary { operand, .. } => collect_names(operand, f),
        ExprKind::Binary { left, right, .. } => {
            collect_names(left, f);
            collect_names(right, f);
        }
        ExprKind::If { cond, then, otherwise } => [cond, then, otherwise].into_iter().for_each(|e| collect_names(e, f)),
        ExprKind::Tuple(parts) | ExprKind::List(parts) => parts.iter().for_each(|e| collect_names(e, f)),
        ExprKind::Call { args, .. } => args.iter().for_each(|a| collect_names(&a.value, f)),
        ExprKind::Read { base, indices } => {
            collect_names(base, f);
            indices.iter().for_each(|e| collect_names(e, f));
        }
        _ => {}
    }
}

impl<'a> Instance<'a> {
    /// The submodule of that name.
    pub fn submodule(&self, name: &str) -> Option<Rc<Submodule<'a>>> {
        let at = (*self.taken.get(name)?)?;
        Some(Rc::clone(&self.submodules[at].1))
    }
    /// Whether a name in it or in a flat submodule begins with this part.
    pub fn begins(&self, part: &str) -> bool {
        self.taken.keys().any(|name| name.split('.').next() == Some(part))
            || self.submodules.iter().any(|(_, sub)| sub.flat && sub.instance.begins(part))
    }
    /// The names of all its parameters and states, after `prefix`.
    pub fn slot_names(&self, prefix: &str, out: &mut Vec<String>) {
        out.extend(self.slots.iter().map(|(name, _)| format!("{prefix}{name}")));
        for (name, sub) in &self.submodules {
            sub.instance.slot_names(&if sub.flat { prefix.to_owned() } else { format!("{prefix}{name}.") }, out);
        }
    }
    /// The sum axes in scope.
    pub fn sum_axes(&self) -> impl Iterator<Item = &Axis> {
        self.env.entries().iter().filter_map(|(_, v)| match v {
            Static::Int(_, Some(axis)) if matches!(axis.kind(), Kind::Sum(_)) => Some(axis),
            _ => None,
        })
    }
}
