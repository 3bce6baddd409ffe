//! Arguments that follow from the shapes of tensors.
//!
//! An argument that is the whole length of an axis (`C` of an input `x[Grid, C]`, `classes` of a parameter `param[classes]`) is what that
//! dimension of the tensor is. Submodules pass theirs on: `Linear(C, classes)` says both by the shape of its weight. Products are never
//! taken apart, and what divides another size (a number of heads) is never inferred.

use std::collections::{HashMap, HashSet};

use foveate_dsl::ast::{
    self, AxisDef, AxisRef, BinaryOp, Expr, ExprKind, Forward, Member, Module, ModuleKind, ParamType, Path, Span,
};
use foveate_dsl::{Diagnostic, SourceMap};

use super::elaborator::Elaborator;
use super::spec::{ItemRef, Spec};
use super::statics::bare_name;
use super::value::{Env, Static, Value};

/// How deep submodules are looked into; a module that contains itself is an error found later.
const DEPTH: usize = 32;

/// How often the tree is walked: what one walk finds may decide an `if` in the next.
const WALKS: usize = 4;

/// Named shapes.
type Shapes = [(String, Vec<usize>)];

/// A size of an argument with the tensor it comes from.
#[derive(Clone)]
struct Found {
    argument: String,
    size: usize,
    tensor: String,
    shape: Vec<usize>,
    /// Where the tensor is declared.
    place: Span,
}

impl Spec {
    /// The settings, and those arguments of the item that follow from the shapes of its inputs (batch first; a product axis may have
    /// its factors as dimensions) and of its parameters and states.
    ///
    /// # Errors
    /// There is no such item; two tensors, or a tensor and a setting, do not agree on a size (`E0501`, with both places and shapes).
    pub fn infer(
        &self,
        item: Option<&str>,
        settings: &[(String, Value)],
        inputs: &[(String, Vec<usize>)],
        params: &[(String, Vec<usize>)],
    ) -> Result<Vec<(String, Value)>, Box<Diagnostic>> {
        let found = self.find(item)?;
        let ast::Item::Module(module) = self.ast_item(found) else { return Ok(settings.to_vec()) };
        let mut known = settings.to_vec();
        for _ in 0..WALKS {
            let sources = SourceMap::new();
            let mut walk =
                Walk { elaborator: Elaborator::new(self, &sources, true, 1), inputs, params, found: Vec::new() };
            let env = walk.arguments(module, &known);
            walk.module(found, module, env, "", true, DEPTH);
            // Inputs are named first where tensors disagree.
            walk.found.sort_by_key(|f| !f.tensor.starts_with("input "));
            let next = agreed(module, settings, &walk.found)?;
            if next == known {
                break;
            }
            known = next;
        }
        Ok(known)
    }
}

/// The settings with what was found; all must agree.
fn agreed(
    module: &Module,
    settings: &[(String, Value)],
    found: &[Found],
) -> Result<Vec<(String, Value)>, Box<Diagnostic>> {
    let size_of = |name: &str, given: Option<&Value>| -> Result<Option<i64>, Box<Diagnostic>> {
        let mut all = found.iter().filter(|f| f.argument == name);
        let Some(first) = all.next() else { return Ok(None) };
        if let Some(Value::Int(n)) = given.filter(|v| **v != Value::Int(first.size as i64)) {
            let message = format!("`{name}` is set to {n}, but is {} in {}", first.size, first.tensor);
            let d = Diagnostic::error("E0501", message).primary(first.place, "declared here").note(shape_of(first));
            return Err(Box::new(d.help(format!("leave `--set {name}=...` out, or check the tensors"))));
        }
        match all.find(|f| f.size != first.size) {
            None => Ok(Some(first.size as i64)),
            Some(other) => {
                let message =
                    format!("`{name}` is {} in {}, but {} in {}", first.size, first.tensor, other.size, other.tensor);
                let d = Diagnostic::error("E0501", message)
                    .primary(other.place, format!("`{name}` = {} here", other.size))
                    .secondary(first.place, format!("`{name}` = {} here", first.size));
                Err(Box::new(d.note(shape_of(first)).note(shape_of(other))))
            }
        }
    };
    let mut out = settings.to_vec();
    for param in &module.params {
        let name = param.name.text.as_str();
        let given = settings.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        match &param.ty {
            ParamType::Infer | ParamType::Int => {
                if let (Some(size), None) = (size_of(name, given)?, given) {
                    out.push((name.to_owned(), Value::Int(size)));
                }
            }
            ParamType::Tuple(parts) => {
                let mut whole = Vec::new();
                for (at, part) in parts.iter().enumerate() {
                    let set = match given {
                        Some(Value::Tuple(set)) => set.get(at),
                        _ => None,
                    };
                    whole.extend(size_of(&part.text, set)?.map(Value::Int));
                }
                if given.is_none() && whole.len() == parts.len() {
                    out.push((name.to_owned(), Value::Tuple(whole)));
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

fn shape_of(found: &Found) -> String {
    let sizes: Vec<String> = found.shape.iter().map(usize::to_string).collect();
    format!("{} has the shape [{}]", found.tensor, sizes.join(", "))
}

/// A walk through a module and its submodules with those compile-time values that are known.
struct Walk<'a> {
    elaborator: Elaborator<'a>,
    inputs: &'a Shapes,
    params: &'a Shapes,
    found: Vec<Found>,
}

/// The module that is walked.
struct Scope<'m> {
    item: ItemRef,
    module: &'m Module,
    env: Env,
    prefix: String,
    /// Arguments that are lengths and divide nothing.
    lengths: HashSet<&'m str>,
    /// The factors of product axes.
    products: HashMap<&'m str, &'m [AxisRef]>,
    depth: usize,
}

impl<'a> Walk<'a> {
    /// The arguments whose values are known: those given, or else defaults.
    fn arguments(&mut self, module: &Module, given: &[(String, Value)]) -> Env {
        let mut env = Env::default();
        for param in &module.params {
            let name = &param.name.text;
            let value = match given.iter().find(|(n, _)| n == name) {
                Some((_, value)) => Some(Static::from(value)),
                None => param.default.as_ref().and_then(|d| self.known(&env, d, &words(&param.ty))),
            };
            bind(&mut env, &param.ty, name, value);
        }
        env
    }

    fn known(&mut self, env: &Env, e: &Expr, words: &[&str]) -> Option<Static> {
        self.elaborator.statics(env, e, words).ok()
    }

    fn module(&mut self, item: ItemRef, module: &'a Module, env: Env, prefix: &str, whole: bool, depth: usize) {
        let mut lengths: HashSet<&str> = HashSet::new();
        for param in &module.params {
            match &param.ty {
                ParamType::Infer | ParamType::Int => {
                    lengths.insert(&param.name.text);
                }
                ParamType::Tuple(parts) => lengths.extend(parts.iter().map(|p| p.text.as_str())),
                _ => {}
            }
        }
        for member in &module.members {
            let mut divisors = |e: &Expr| {
                divisors(e, &mut |name| {
                    lengths.remove(name);
                })
            };
            match member {
                Member::Require { cond, .. } => divisors(cond),
                Member::Let { value, .. } => divisors(value),
                Member::Axis { def: AxisDef::Size(e), .. } => divisors(e),
                _ => {}
            }
        }
        let mut scope =
            Scope { item, module, env, prefix: prefix.to_owned(), lengths, products: HashMap::new(), depth };
        self.members(&mut scope, &module.members, whole);
    }

    fn members(&mut self, scope: &mut Scope<'a>, members: &'a [Member], whole: bool) {
        for member in members {
            match member {
                Member::Let { name, value, .. } | Member::Axis { name, def: AxisDef::Size(value), .. } => {
                    if let Some(value) = self.known(&scope.env, value, &[]) {
                        scope.env.bind(&name.text, value);
                    }
                }
                Member::Axis { name, def: AxisDef::Product(factors), .. } => {
                    scope.products.insert(&name.text, factors);
                }
                Member::If { cond, then, otherwise, .. } => match self.known(&scope.env, cond, &[]) {
                    Some(Static::Bool(true)) => self.members(scope, then, whole),
                    Some(Static::Bool(false)) => self.members(scope, otherwise, whole),
                    _ => {}
                },
                Member::For { var, lo, hi, body, span } => {
                    let (lo, hi) = (self.known(&scope.env, lo, &[]), self.known(&scope.env, hi, &[]));
                    let (Some(Static::Int(lo, _)), Some(Static::Int(hi, _))) = (lo, hi) else { continue };
                    for n in lo..hi {
                        if self.elaborator.step(*span).is_err() {
                            return;
                        }
                        let len = scope.env.len();
                        scope.env.bind(&var.text, Static::int(n));
                        self.members(scope, body, whole);
                        scope.env.truncate(len);
                    }
                }
                Member::Forward(forward) if whole => self.forward(scope, forward),
                Member::Param { name, dims, span, .. } | Member::State { name, dims, span, .. } => {
                    let Some(name) = self.name(scope, name) else { continue };
                    let Some((_, shape)) = self.params.iter().find(|(n, _)| *n == name) else { continue };
                    if shape.len() == dims.len() {
                        for (dim, &size) in dims.iter().zip(shape) {
                            self.say(scope, dim, size, &format!("parameter `{name}`"), shape, *span);
                        }
                    }
                }
                Member::Submodule { name, ctor, args, flat, .. } if scope.depth > 0 => {
                    self.submodule(scope, name, ctor, args, *flat);
                }
                _ => {}
            }
        }
    }

    fn forward(&mut self, scope: &Scope<'a>, forward: &'a Forward) {
        for input in &forward.inputs {
            let Some((_, shape)) = self.inputs.iter().find(|(n, _)| *n == input.name.text) else { continue };
            let batched = usize::from(scope.module.kind != ModuleKind::Optimizer);
            let Some(sizes) = shape.get(batched..) else { continue };
            let tensor = format!("input `{}`", input.name.text);
            let dims: Vec<&AxisRef> = if sizes.len() == input.dims.len() {
                input.dims.iter().collect()
            } else {
                // Product axes as their factors.
                let factors = |d: &'a AxisRef| match d {
                    AxisRef::Expr(e) => {
                        bare_name(e).and_then(|n| scope.products.get(n).copied()).unwrap_or(std::slice::from_ref(d))
                    }
                    _ => std::slice::from_ref(d),
                };
                input.dims.iter().flat_map(factors).collect()
            };
            if sizes.len() == dims.len() && !dims.iter().any(|d| matches!(d, AxisRef::Rest(_))) {
                for (dim, &size) in dims.iter().zip(sizes) {
                    self.say(scope, dim, size, &tensor, shape, input.name.span);
                }
            } else if let Some(leading) = sizes.len().checked_sub(input.dims.len().saturating_sub(1)) {
                // `..` first: what follows it counts from the end.
                if let Some((AxisRef::Rest(_), rest)) = input.dims.split_first() {
                    for (dim, &size) in rest.iter().zip(&sizes[leading..]) {
                        self.say(scope, dim, size, &tensor, shape, input.name.span);
                    }
                }
            }
        }
    }

    /// A dimension of this size, if it is the whole length of an argument.
    fn say(&mut self, scope: &Scope<'_>, dim: &AxisRef, size: usize, tensor: &str, shape: &[usize], place: Span) {
        let AxisRef::Expr(e) = dim else { return };
        if let Some(name) = bare_name(e).filter(|n| scope.lengths.contains(n)) {
            let (argument, tensor, shape) = (name.to_owned(), tensor.to_owned(), shape.to_vec());
            self.found.push(Found { argument, size, tensor, shape, place });
        }
    }

    fn submodule(&mut self, scope: &Scope<'a>, name: &Path, ctor: &ast::Name, args: &'a [ast::Arg], flat: bool) {
        if self.elaborator.step(ctor.span).is_err() {
            return;
        }
        let Some(name) = self.name(scope, name) else { return };
        let Some((item, child)) = self.elaborator.spec.module(scope.item.file, &ctor.text) else { return };
        let given = |at: usize| given_argument(args, at, &child.params[at].name.text);
        let mut env = Env::default();
        for (at, param) in child.params.iter().enumerate() {
            let value = match given(at) {
                Some(e) => self.known(&scope.env, e, &words(&param.ty)),
                None => param.default.as_ref().and_then(|d| self.known(&env, d, &words(&param.ty))),
            };
            bind(&mut env, &param.ty, &param.name.text, value);
        }
        let outer = std::mem::take(&mut self.found);
        let prefix = if flat { scope.prefix.clone() } else { format!("{name}.") };
        // The inputs of a submodule are not those of the item.
        self.module(item, child, env, &prefix, false, scope.depth - 1);
        let inner = std::mem::replace(&mut self.found, outer);
        for (at, param) in child.params.iter().enumerate() {
            let mut pass = |of: &str, own: &Expr| {
                let Some(own) = bare_name(own).filter(|n| scope.lengths.contains(n)) else { return };
                let found = inner.iter().filter(|f| f.argument == of);
                self.found.extend(found.map(|f| Found { argument: own.to_owned(), ..f.clone() }));
            };
            match (given(at), &param.ty) {
                (Some(Expr { kind: ExprKind::Tuple(own), .. }), ParamType::Tuple(parts)) => {
                    parts.iter().zip(own).for_each(|(part, own)| pass(&part.text, own));
                }
                (Some(own), ParamType::Tuple(parts)) => {
                    // A tuple argument that is handed on whole.
                    let same = |p: &&ast::Param| bare_name(own) == Some(p.name.text.as_str());
                    if let Some(ParamType::Tuple(owns)) = scope.module.params.iter().find(same).map(|p| &p.ty) {
                        for (part, own) in parts.iter().zip(owns) {
                            let found = inner.iter().filter(|f| f.argument == part.text);
                            let found = found.filter(|_| scope.lengths.contains(own.text.as_str()));
                            self.found.extend(found.map(|f| Found { argument: own.text.clone(), ..f.clone() }));
                        }
                    }
                }
                (Some(own), _) => pass(&param.name.text, own),
                (None, _) => {}
            }
        }
    }

    /// The full name of a parameter or submodule, if what it is computed from is known.
    fn name(&mut self, scope: &Scope<'_>, path: &Path) -> Option<String> {
        let text = self.elaborator.path_text(&scope.env, path).ok()?;
        Some(format!("{}{text}", scope.prefix))
    }
}

/// The names of a module's arguments that something is divided by, in the module or in submodules that they are handed to.
pub(super) fn divisors_of(spec: &Spec, r: ItemRef) -> HashSet<String> {
    let mut known = HashMap::new();
    collect_divisors(spec, r, &mut known);
    known.remove(&r).unwrap_or_default()
}

fn collect_divisors(spec: &Spec, r: ItemRef, known: &mut HashMap<ItemRef, HashSet<String>>) {
    // A module that contains itself has none of its own yet; that is an error found later.
    if known.contains_key(&r) {
        return;
    }
    known.insert(r, HashSet::new());
    let ast::Item::Module(module) = spec.ast_item(r) else { return };
    let mut out = HashSet::new();
    let mut stack: Vec<&Member> = module.members.iter().collect();
    while let Some(member) = stack.pop() {
        let mut add = |e: &Expr| {
            divisors(e, &mut |name| {
                out.insert(name.to_owned());
            });
        };
        match member {
            Member::Require { cond, .. } => add(cond),
            Member::Let { value, .. } | Member::Axis { def: AxisDef::Size(value), .. } => add(value),
            Member::If { then, otherwise, .. } => stack.extend(then.iter().chain(otherwise)),
            Member::For { body, .. } => stack.extend(body),
            Member::Submodule { ctor, args, .. } => {
                args.iter().for_each(|a| add(&a.value));
                let Some((item, child)) = spec.module(r.file, &ctor.text) else { continue };
                collect_divisors(spec, item, known);
                let Some(inner) = known.get(&item) else { continue };
                for (at, param) in child.params.iter().enumerate().filter(|(_, p)| inner.contains(&p.name.text)) {
                    if let Some(value) = given_argument(args, at, &param.name.text) {
                        names(value, &mut |name| {
                            out.insert(name.to_owned());
                        });
                    }
                }
            }
            _ => {}
        }
    }
    known.insert(r, out);
}

/// The argument for a parameter, by name or by position.
fn given_argument<'e>(args: &'e [ast::Arg], at: usize, name: &str) -> Option<&'e Expr> {
    let by_name = args.iter().find(|a| a.name.as_ref().is_some_and(|n| n.text == name));
    by_name.or_else(|| args.get(at).filter(|a| a.name.is_none())).map(|a| &a.value)
}

fn words(ty: &ParamType) -> Vec<&str> {
    match ty {
        ParamType::OneOf(words) => words.iter().map(|w| w.text.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn bind(env: &mut Env, ty: &ParamType, name: &str, value: Option<Static>) {
    let Some(value) = value else { return };
    if let (ParamType::Tuple(names), Static::Tuple(parts)) = (ty, &value) {
        names.iter().zip(parts).for_each(|(name, part)| env.bind(&name.text, part.clone()));
    }
    env.bind(name, value);
}

/// The names that something is divided by.
fn divisors(e: &Expr, found: &mut dyn FnMut(&str)) {
    match &e.kind {
        ExprKind::Binary { op, left, right } => {
            if let BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Mod = op {
                names(right, found);
            }
            divisors(left, found);
            divisors(right, found);
        }
        ExprKind::Unary { operand, .. } => divisors(operand, found),
        _ => {}
    }
}

fn names(e: &Expr, found: &mut dyn FnMut(&str)) {
    match &e.kind {
        ExprKind::Path(p) => p.as_name().into_iter().for_each(found),
        ExprKind::Binary { left, right, .. } => {
            names(left, found);
            names(right, found);
        }
        ExprKind::Unary { operand, .. } => names(operand, found),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const TEXT: &str = "foveate 1

import Linear, LayerNorm from prelude

module Block(K, H, mid: (My, Mx)) {
    require K % H == 0
    norm = LayerNorm(K)
    table: param[My, Mx] = zeros
    forward(x[.., K]) -> [.., K] {
        return norm(x)
    }
}

module Net(C, H, grid: (Gy, Gx), classes = 9, depth = 2, bias = true, W = 5) {
    require C % H == 0
    axis Grid = Gy x Gx
    axis D = C / H
    scale: param[H] = ones
    for m in 0..depth {
        block.{m} = Block(C, H, grid)
    }
    if bias {
        extra: param[W] = zeros
    }
    head = Linear(C, classes)

    forward(x[Grid, C]) -> [Grid, classes] {
        return head(x)
    }
}
";

    fn infer(
        settings: &[(&str, &str)],
        inputs: &[(&str, &[usize])],
        params: &[(&str, &[usize])],
    ) -> Result<String, String> {
        let files = HashMap::from([(PathBuf::from("a.fov"), TEXT.to_owned())]);
        let spec = Spec::load_from(std::path::Path::new("a.fov"), &files, &mut SourceMap::new()).expect("parses");
        let own =
            |list: &[(&str, &[usize])]| list.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect::<Vec<_>>();
        let settings: Vec<(String, Value)> =
            settings.iter().map(|(n, v)| ((*n).to_owned(), Value::parse(v).expect("a value"))).collect();
        let found = spec.infer(Some("Net"), &settings, &own(inputs), &own(params)).map_err(|d| d.message)?;
        Ok(found.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn whole_lengths_follow() {
        let params: &[(&str, &[usize])] = &[("head.weight", &[7, 8]), ("scale", &[2])];
        assert_eq!(infer(&[], &[("x", &[2, 3, 5, 8])], params).as_deref(), Ok("C=8 grid=3x5 classes=7"));
        // A merged grid says its channels only, and heads are never inferred.
        assert_eq!(infer(&[], &[("x", &[2, 15, 8])], &[("scale", &[2])]).as_deref(), Ok("C=8"));
        // Through loops, computed names and branches.
        assert_eq!(infer(&[], &[], &[("block.1.norm.weight", &[6])]).as_deref(), Ok("C=6"));
        assert_eq!(infer(&[("depth", "1")], &[], &[("block.1.norm.weight", &[6])]).as_deref(), Ok("depth=1"));
        assert_eq!(infer(&[], &[], &[("block.0.table", &[3, 4])]).as_deref(), Ok("grid=3x4"));
        assert_eq!(infer(&[], &[], &[("extra", &[3])]).as_deref(), Ok("W=3"));
        assert_eq!(infer(&[("bias", "false")], &[], &[("extra", &[3])]).as_deref(), Ok("bias=false"));
    }

    #[test]
    fn contradictions_are_named() {
        let say = |settings: &[(&str, &str)], x: &[usize], weight: &[usize]| {
            infer(settings, &[("x", x)], &[("head.weight", weight)]).expect_err("a contradiction")
        };
        assert_eq!(say(&[("C", "4")], &[2, 15, 8], &[9, 8]), "`C` is set to 4, but is 8 in input `x`");
        assert_eq!(say(&[], &[2, 15, 8], &[7, 9]), "`C` is 8 in input `x`, but 9 in parameter `head.weight`");
        assert_eq!(say(&[("grid", "4x5")], &[2, 3, 5, 8], &[9, 8]), "`Gy` is set to 4, but is 3 in input `x`");
    }
}
