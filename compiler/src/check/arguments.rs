//! Arguments of modules: assigned to parameters by name or place, converted to what each asks for, and bound.

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{self, Arg, ExprKind, Module, ParamType, Span};

use super::axes::Axis;
use super::elaborator::Elaborator;
use super::report::{R, Reported, count, suggest};
use super::spec::ItemRef;
use super::statics::bare_name;
use super::value::{Env, Static};

/// What kind of value a parameter takes.
enum Asked<'m> {
    Int,
    Float,
    Probability,
    Bool,
    Word(Vec<&'m str>),
    Tuple(&'m [ast::Name]),
    AnyTuple,
    List,
    Str,
}

impl<'a> Elaborator<'a> {
    /// Evaluates arguments and assigns them to parameters.
    pub(crate) fn given(&mut self, module: &'a Module, args: &[Arg], env: &Env) -> R<Vec<Option<(Static, Span)>>> {
        let mut given: Vec<Option<(Static, Span)>> = vec![None; module.params.len()];
        let mut ok = true;
        for (n, arg) in args.iter().enumerate() {
            let at = match &arg.name {
                Some(name) => match module.params.iter().position(|p| p.name.text == name.text) {
                    Some(at) => at,
                    None => {
                        let d = Diagnostic::error(
                            "E0403",
                            format!("`{}` has no parameter `{}`", module.name.text, name.text),
                        )
                        .primary(name.span, "")
                        .note(signature(module));
                        let d = suggest(d, &name.text, module.params.iter().map(|p| p.name.text.as_str()));
                        self.report(d);
                        ok = false;
                        continue;
                    }
                },
                None if n < module.params.len() => n,
                None => {
                    let d = Diagnostic::error(
                        "E0402",
                        format!(
                            "`{}` takes {}, found {}",
                            module.name.text,
                            count(module.params.len(), "argument"),
                            args.len()
                        ),
                    );
                    self.report(d.primary(arg.value.span, "this is one too many").note(signature(module)));
                    return Err(Reported);
                }
            };
            if given[at].is_some() {
                let d = Diagnostic::error("E0405", format!("`{}` is given twice", module.params[at].name.text));
                self.report(d.primary(arg.value.span, "again here"));
                ok = false;
                continue;
            }
            let words: Vec<&str> = match &module.params[at].ty {
                ParamType::OneOf(words) => words.iter().map(|w| w.text.as_str()).collect(),
                _ => Vec::new(),
            };
            // A word parameter that is handed on is a name here and not a word.
            let handed_on = bare_name(&arg.value).is_some_and(|n| env.get(n).is_some());
            match self.statics(env, &arg.value, if handed_on { &[] } else { &words }) {
                Ok(value) => {
                    self.notice_computed(env, &arg.value, &value);
                    given[at] = Some((value, arg.value.span));
                }
                Err(Reported) => ok = false,
            }
        }
        if ok { Ok(given) } else { Err(Reported) }
    }

    /// Binds parameters to values, defaults included; each size is also an axis.
    pub(crate) fn parameters(
        &mut self,
        item: ItemRef,
        module: &'a Module,
        mut given: Vec<Option<(Static, Span)>>,
        id: u32,
        span: Span,
    ) -> R<(Env, String)> {
        let mut env = Env::default();
        let mut identity = if self.sampling { String::new() } else { format!("{}.{}:", item.file, item.item) };
        let mut ok = true;
        for (param, value) in module.params.iter().zip(given.iter_mut()) {
            let name = &param.name.text;
            let (value, place) = match value.take() {
                Some((value, place)) => (value, place),
                None => match &param.default {
                    Some(default) => {
                        let words: Vec<&str> = match &param.ty {
                            ParamType::OneOf(words) => words.iter().map(|w| w.text.as_str()).collect(),
                            _ => Vec::new(),
                        };
                        match self.statics(&env, default, &words) {
                            // The default's axis is not the parameter's.
                            Ok(Static::Int(n, _)) => (Static::int(n), default.span),
                            Ok(value) => (value, default.span),
                            Err(Reported) => {
                                ok = false;
                                continue;
                            }
                        }
                    }
                    None => {
                        let d =
                            Diagnostic::error("E0404", format!("`{}` needs a value for `{name}`", module.name.text))
                                .primary(span, "")
                                .note(signature(module));
                        let d = if self.trail.is_empty() {
                            d.help(format!("give it with `--set {name}=VALUE`"))
                        } else {
                            d
                        };
                        self.report(d);
                        ok = false;
                        continue;
                    }
                },
            };
            let value = match value {
                Static::Int(..) | Static::Float(_) if !self.random && matches!(param.ty, ParamType::Probability) => {
                    Static::Float(0.0)
                }
                value => value,
            };
            if !self.sampling {
                value.identity(&mut identity);
                identity.push(';');
            }
            if self.bind_one(&mut env, param, value, id, place).is_err() {
                ok = false;
            }
        }
        if ok { Ok((env, identity)) } else { Err(Reported) }
    }

    fn bind_one(&mut self, env: &mut Env, param: &'a ast::Param, value: Static, id: u32, place: Span) -> R<()> {
        let name = &param.name.text;
        let asked = match &param.ty {
            ParamType::Tuple(names) => Asked::Tuple(names),
            ParamType::OneOf(words) => Asked::Word(words.iter().map(|w| w.text.as_str()).collect()),
            ParamType::List => Asked::List,
            ParamType::Float => Asked::Float,
            ParamType::Probability => Asked::Probability,
            ParamType::Int => Asked::Int,
            ParamType::Bool => Asked::Bool,
            ParamType::Infer => match param.default.as_ref().map(|d| &d.kind) {
                Some(ExprKind::Bool(_)) => Asked::Bool,
                Some(ExprKind::Float(_)) => Asked::Float,
                Some(ExprKind::Dims(_) | ExprKind::Tuple(_)) => Asked::AnyTuple,
                Some(ExprKind::List(_)) => Asked::List,
                Some(ExprKind::Str(_)) => Asked::Str,
                Some(ExprKind::Path(p)) if p.as_name().is_some_and(|n| matches!(n, "pi" | "inf")) => Asked::Float,
                _ => Asked::Int,
            },
        };
        let bound = match (&asked, value) {
            (Asked::Int, Static::Int(n, axis)) => self.sized(name, n, axis, id, None),
            (Asked::Float, Static::Int(n, _)) => Static::Float(n as f64),
            (Asked::Probability, value) if value.as_number().is_some_and(|p| (0.0..=1.0).contains(&p)) => {
                Static::Float(value.as_number().unwrap_or_default())
            }
            (Asked::Float, value @ Static::Float(_))
            | (Asked::Bool, value @ Static::Bool(_))
            | (Asked::Str, value @ Static::Str(_))
            | (Asked::List, value @ Static::List(_))
            | (Asked::AnyTuple, value @ Static::Tuple(_)) => value,
            (Asked::List, value @ Static::Int(..)) => Static::List(vec![value]),
            (Asked::Word(words), Static::Word(w)) => {
                if !words.contains(&w.as_str()) {
                    let d = Diagnostic::error("E0305", format!("`{name}` cannot be `{w}`"))
                        .primary(place, format!("expected one of {}", words.join(", ")));
                    return self.fail(suggest(d, &w, words.iter().copied()));
                }
                let options = words.iter().map(|w| Static::Word((*w).to_owned())).collect();
                env.bind(&options_name(name), Static::List(options));
                Static::Word(w)
            }
            (Asked::Tuple(names), value) => {
                let parts = match value {
                    Static::Tuple(parts) => parts,
                    // An axis that is a product serves as the tuple of its factors.
                    Static::Int(_, Some(axis)) if axis.factors().is_some() => axis
                        .factors()
                        .unwrap_or_default()
                        .iter()
                        .map(|f| Static::Int(f.size() as i64, Some(f.clone())))
                        .collect(),
                    other => return self.misfit(param, &format!("a tuple of {} sizes", names.len()), &other, place),
                };
                if parts.len() != names.len() {
                    let value = Static::Tuple(parts);
                    return self.misfit(param, &format!("a tuple of {} sizes", names.len()), &value, place);
                }
                let mut bound = Vec::new();
                for (part_name, part) in names.iter().zip(parts) {
                    let Static::Int(n, axis) = part else {
                        return self.misfit(param, "a tuple of sizes", &part, place);
                    };
                    let part = self.sized(&part_name.text, n, axis, id, None);
                    env.bind(&part_name.text, part.clone());
                    bound.push(part);
                }
                Static::Tuple(bound)
            }
            (asked, value) => {
                let expected = match asked {
                    Asked::Int => "an integer",
                    Asked::Float => "a number",
                    Asked::Probability => "a probability from 0 to 1",
                    Asked::Bool => "`true` or `false`",
                    Asked::Word(_) => "a word",
                    Asked::List => "a list",
                    Asked::Str => "a text",
                    Asked::Tuple(_) | Asked::AnyTuple => "a tuple",
                };
                return self.misfit(param, expected, &value, place);
            }
        };
        env.bind(name, bound);
        Ok(())
    }

    fn misfit<T>(&mut self, param: &ast::Param, expected: &str, found: &Static, place: Span) -> R<T> {
        let what = match found {
            Static::Tuple(parts) => format!("a tuple of {}", parts.len()),
            other => other.kind().to_owned(),
        };
        let mut d = Diagnostic::error("E0305", format!("`{}` is {expected}, found {what}", param.name.text))
            .primary(place, format!("this is {found}"));
        if let ParamType::Tuple(names) = &param.ty {
            let sizes: Vec<&str> = names.iter().map(|n| n.text.as_str()).collect();
            let such = ["14", "7", "3", "2"].iter().cycle().take(names.len()).copied().collect::<Vec<_>>().join("x");
            d = d.help(format!("write the sizes {} with `x` between them, such as {such}", sizes.join(" and ")));
        }
        self.fail(d)
    }

    /// An integer as a size: with an axis of that name unless it has one.
    pub(crate) fn sized(&mut self, name: &str, n: i64, axis: Option<Axis>, owner: u32, text: Option<String>) -> Static {
        let axis = match axis {
            Some(axis) => Some(axis),
            None if (1..=super::elaborator::MAX_ELEMENTS).contains(&n) => {
                Some(Axis::atom(name, text, n as usize, self.fresh(), owner))
            }
            None => None,
        };
        Static::Int(n, axis)
    }
}

/// A module's parameter list as a note.
fn signature(module: &Module) -> String {
    let params: Vec<String> = module
        .params
        .iter()
        .map(|p| if p.default.is_some() { format!("{} = ...", p.name.text) } else { p.name.text.clone() })
        .collect();
    format!("it is declared as {}({})", module.name.text, params.join(", "))
}

/// The hidden name that holds the words a parameter may be.
pub(crate) fn options_name(param: &str) -> String {
    format!("{param} is one of")
}

/// Stands for a number where only its sign matters.
pub(super) fn sign(x: f64) -> &'static str {
    if x > 0.0 {
        "positive"
    } else if x < 0.0 {
        "negative"
    } else {
        "zero"
    }
}
