//! Calls inside expressions: scalar functions of the language and of the spec, random numbers, submodules.

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{Arg, Expr as Ast, Path, ScalarFn, Span};

use super::expr::Val;
use super::index::IndexVal;
use crate::check::elaborator::Elaborator;
use crate::check::report::{self, R, suggest};
use crate::check::spec::ItemRef;
use crate::check::statics::static_function;
use crate::check::value::Static;
use crate::ir::{BinaryOp, Elem, Expr, Index, Node, UnaryOp};

/// The functions of the language, with the number of their arguments.
const FUNCTIONS: &[(&str, usize)] = &[
    ("exp", 1),
    ("log", 1),
    ("sqrt", 1),
    ("rsqrt", 1),
    ("sin", 1),
    ("cos", 1),
    ("tanh", 1),
    ("erf", 1),
    ("abs", 1),
    ("sign", 1),
    ("floor", 1),
    ("relu", 1),
    ("sigmoid", 1),
    ("stop", 1),
    ("maximum", 2),
    ("minimum", 2),
    ("pow", 2),
    ("clamp", 3),
];

impl<'a> Elaborator<'a> {
    /// The value of a call.
    pub(crate) fn call_value(&mut self, e: &'a Ast, callee: &'a Path, args: &'a [Arg]) -> R<Val> {
        let name = callee.as_name();
        if let Some(name) = name {
            let file = self.frame.file;
            if let Some((item, function)) = self.spec.function(file, name) {
                let names: Vec<&str> = function.args.iter().map(|a| a.text.as_str()).collect();
                let values = self.arguments(name, args, names.len(), e.span)?;
                if self.open.contains(&item) {
                    let d =
                        Diagnostic::error("E0406", format!("the function `{name}` calls itself")).primary(e.span, "");
                    return self.fail(d);
                }
                // What is used several times is not written several times.
                let mut bound = Vec::new();
                for (name, value) in names.iter().zip(values) {
                    let value = match value {
                        Val::Num(x) => Val::Num(self.shared(x, name, e.span)),
                        other => other,
                    };
                    bound.push(((*name).to_owned(), value));
                }
                let outer = self.frame.arguments.replace(bound);
                let outer_file = std::mem::replace(&mut self.frame.file, item.file);
                self.open.push(item);
                let out = self.value(&function.body);
                self.open.pop();
                self.frame.arguments = outer;
                self.frame.file = outer_file;
                return out;
            }
            if name == "uniform" && self.frame.arguments.is_none() {
                return self.random(args, e.span);
            }
            if let Some((_, count)) = FUNCTIONS.iter().find(|(n, _)| *n == name) {
                let values = self.arguments(name, args, *count, e.span)?;
                return self.apply(name, values, args, e.span);
            }
        }
        if self.frame.arguments.is_some() {
            let text = self.text(callee.span);
            return self.unknown_function(&text, callee.span);
        }
        let views = self.call(e, callee, args)?;
        let text = self.text(callee.span);
        match views.as_slice() {
            [view] => self.whole_read(view, &text, e.span),
            _ => {
                let d = Diagnostic::error("E0410", format!("`{text}` has {} results", views.len()));
                self.fail(d.primary(e.span, "").help("take them apart: `(a, b) = ...`"))
            }
        }
    }

    /// The value of a function's body at numbers, for what is wrong with it.
    pub(crate) fn function_alone(&mut self, item: ItemRef, function: &'a ScalarFn) {
        let mut values = Vec::new();
        for arg in &function.args {
            if values.iter().any(|(n, _)| *n == arg.text) {
                let d = Diagnostic::error("E0107", format!("two arguments are called `{}`", arg.text));
                self.report(d.primary(arg.span, "again here"));
            }
            let tensor = self.builder.function.new_tensor(arg.text.clone(), Elem::F32, Vec::new(), Some(arg.span));
            values.push((arg.text.clone(), Val::Num(Expr::read(Elem::F32, tensor, Vec::new()))));
        }
        self.frame.arguments = Some(values);
        self.frame.file = item.file;
        self.open.push(item);
        // What is wrong is among the diagnostics.
        let _ = self.scalar(&function.body);
        self.open.pop();
    }

    pub(crate) fn unknown_function<T>(&mut self, name: &str, span: Span) -> R<T> {
        let file = self.spec.file(self.frame.file);
        let mut names: Vec<String> = FUNCTIONS.iter().map(|(n, _)| (*n).to_owned()).collect();
        names.extend(["uniform", "components"].map(str::to_owned));
        names.extend(file.names.keys().cloned());
        if let Some(instance) = &self.frame.instance {
            names.extend(instance.submodules.iter().map(|(n, _)| n.clone()));
        }
        names.sort();
        let d = Diagnostic::error("E0101", format!("unknown function or submodule `{name}`")).primary(span, "");
        let d = suggest(d, name, names.iter().map(String::as_str));
        self.fail(d)
    }

    fn arguments(&mut self, name: &str, args: &'a [Arg], count: usize, span: Span) -> R<Vec<Val>> {
        if let Some(named) = args.iter().find_map(|a| a.name.as_ref()) {
            let d =
                Diagnostic::error("E0403", format!("the arguments of `{name}` have no names")).primary(named.span, "");
            return self.fail(d);
        }
        if args.len() != count {
            let d = Diagnostic::error(
                "E0402",
                format!("`{name}` takes {}, found {}", report::count(count, "argument"), args.len()),
            );
            return self.fail(d.primary(span, ""));
        }
        let values: Vec<R<Val>> = args.iter().map(|a| self.value(&a.value)).collect();
        values.into_iter().collect()
    }

    fn apply(&mut self, name: &str, values: Vec<Val>, args: &'a [Arg], span: Span) -> R<Val> {
        let known: Option<Vec<Static>> =
            values.iter().map(|v| if let Val::Static(s) = v { Some(s.clone()) } else { None }).collect();
        if let Some(value) = known.and_then(|known| static_function(name, &known)) {
            return Ok(Val::Static(value));
        }
        match (name, values.as_slice()) {
            ("clamp", [Val::Index(iv), Val::Static(Static::Int(lo, _)), Val::Static(Static::Int(hi, _))])
                if lo <= hi =>
            {
                let index = self.integer(iv, span)?;
                self.small(&Index::from(*lo), 1, span)?;
                self.small(&Index::from(*hi), 1, span)?;
                return Ok(Val::Index(IndexVal::computed(index.clamped(*lo, *hi, &self.sizes()))));
            }
            ("abs", [Val::Index(iv)]) => return Ok(Val::Abs(self.integer(iv, span)?)),
            ("stop", [value @ (Val::Index(_) | Val::Abs(_) | Val::Pred(_))]) => return Ok(value.clone()),
            _ => {}
        }
        let mut x = Vec::new();
        for (value, arg) in values.into_iter().zip(args) {
            x.push(self.number_of(value, arg.value.span)?);
        }
        let mut x = x.into_iter();
        let mut next = || x.next().unwrap_or_else(|| Expr::constant(Elem::F32, 0.0));
        let constant = |v: f64| Expr::constant(Elem::F32, v);
        let out = match name {
            "exp" => Expr::unary(UnaryOp::Exp, next()),
            "log" => Expr::unary(UnaryOp::Log, next()),
            "sqrt" => Expr::unary(UnaryOp::Sqrt, next()),
            "rsqrt" => Expr::unary(UnaryOp::Rsqrt, next()),
            "sin" => Expr::unary(UnaryOp::Sin, next()),
            "cos" => Expr::unary(UnaryOp::Cos, next()),
            "tanh" => Expr::unary(UnaryOp::Tanh, next()),
            "erf" => Expr::unary(UnaryOp::Erf, next()),
            "abs" => Expr::unary(UnaryOp::Abs, next()),
            "sign" => Expr::unary(UnaryOp::Sign, next()),
            "floor" => Expr::unary(UnaryOp::Floor, next()),
            "relu" => Expr::binary(BinaryOp::Max, next(), constant(0.0)),
            // By the hyperbolic tangent: neither it nor its derivative overflows.
            "sigmoid" => {
                let tanh = Expr::unary(UnaryOp::Tanh, Expr::mul(constant(0.5), next()));
                Expr::add(constant(0.5), Expr::mul(constant(0.5), tanh))
            }
            "stop" => Expr::stop(next()),
            "maximum" => Expr::binary(BinaryOp::Max, next(), next()),
            "minimum" => Expr::binary(BinaryOp::Min, next(), next()),
            "pow" => Expr::binary(BinaryOp::Pow, next(), next()),
            _ => {
                let (value, lo, hi) = (next(), next(), next());
                Expr::binary(BinaryOp::Min, Expr::binary(BinaryOp::Max, value, lo), hi)
            }
        };
        Ok(Val::Num(out))
    }

    /// A random number at a logical index: the image's, then the author's, row-major.
    fn random(&mut self, args: &'a [Arg], span: Span) -> R<Val> {
        let mut at = match self.frame.batch {
            Some(batch) => Index::from(batch),
            None => Index::default(),
        };
        let mut count = self.batch.size() as u64;
        for arg in args {
            let Val::Index(iv) = self.value(&arg.value)? else {
                let d =
                    Diagnostic::error("E0205", "`uniform` takes indices").primary(arg.value.span, "this is no index");
                return self.fail(d);
            };
            let Some(axis) = iv.axis.clone().filter(|_| iv.window.is_none()) else {
                let d = Diagnostic::error("E0205", "`uniform` takes bare indices").primary(arg.value.span, "");
                return self.fail(d);
            };
            count = count.saturating_mul(axis.size() as u64);
            if count > u64::from(u32::MAX) {
                let d = Diagnostic::error("E0307", "more random numbers at one place than there are counters");
                return self.fail(d.primary(span, format!("the batch and these indices make more than {}", u32::MAX)));
            }
            let flat = self.flat(&iv);
            at = at.scale(axis.size() as i64).add(&flat);
        }
        let key = self.key();
        let place = self.builder.place();
        Ok(Val::Num(Expr::new(Elem::F32, Node::Random { key, place, at })))
    }
}
