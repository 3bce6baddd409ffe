//! Compile-time values: what arguments, settings and recipes are made of.

use std::fmt;
use std::rc::Rc;

use super::axes::{Axis, digits};
use super::rates::band;

/// A compile-time value without any tie to an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A word such as `product`.
    Word(String),
    /// A tuple such as `14x14` or `(a, b)`.
    Tuple(Vec<Value>),
    /// A list such as `[16, 24]`.
    List(Vec<Value>),
    /// A text in quotes.
    Str(String),
}

impl Value {
    /// Reads the value of a setting `NAME=VALUE`: `3`, `1e-4`, `true`, `5x7` (a tuple), `16,24` (a list; `[16, 24]` too), a word, a path
    /// (what has a slash), or any text in quotes.
    ///
    /// # Errors
    /// Says what forms there are when the text has none of them.
    pub fn parse(text: &str) -> Result<Value, String> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            let inner = inner.trim().trim_end_matches(',');
            return if inner.is_empty() { Ok(Value::List(Vec::new())) } else { list(inner) };
        }
        if let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
            return Ok(Value::Str(inner.to_owned()));
        }
        if text.contains(['/', '\\']) {
            return Ok(Value::Str(text.to_owned()));
        }
        if text.contains(',') { list(text.trim_end_matches(',')) } else { single(text) }
    }
    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }
    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }
}

fn list(text: &str) -> Result<Value, String> {
    text.split(',').map(|part| single(part.trim())).collect::<Result<Vec<_>, _>>().map(Value::List)
}

fn single(text: &str) -> Result<Value, String> {
    if let Ok(n) = text.parse::<i64>() {
        return Ok(Value::Int(n));
    }
    let number_like = text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    if let (true, Ok(x)) = (number_like, text.parse::<f64>())
        && x.is_finite()
    {
        return Ok(Value::Float(x));
    }
    match text {
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let sizes: Option<Vec<Value>> = text.split('x').map(|p| p.parse::<i64>().ok().map(Value::Int)).collect();
    if let Some(sizes) = sizes.filter(|s| s.len() > 1) {
        return Ok(Value::Tuple(sizes));
    }
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if word {
        return Ok(Value::Word(text.to_owned()));
    }
    Err(format!("`{text}` is not a value; a value is `3`, `0.1`, `true`, `5x7`, `16,24`, a word or a path (`./data`)"))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |f: &mut fmt::Formatter<'_>, values: &[Value], open: &str, by: &str, close: &str| {
            f.write_str(open)?;
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    f.write_str(by)?;
                }
                write!(f, "{value}")?;
            }
            f.write_str(close)
        };
        match self {
            Value::Int(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x:?}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Word(w) => f.write_str(w),
            Value::Str(s) => write!(f, "{s:?}"),
            Value::Tuple(parts) if parts.len() > 1 && parts.iter().all(|p| matches!(p, Value::Int(n) if *n >= 0)) => {
                many(f, parts, "", "x", "")
            }
            Value::Tuple(parts) => many(f, parts, "(", ", ", ")"),
            Value::List(parts) => many(f, parts, "[", ", ", "]"),
        }
    }
}

/// A compile-time value during elaboration: a size may be tied to an axis.
#[derive(Clone, Debug)]
pub(crate) enum Static {
    Int(i64, Option<Axis>),
    Float(f64),
    Bool(bool),
    Word(String),
    Tuple(Vec<Static>),
    List(Vec<Static>),
    Str(String),
}

impl Static {
    /// An integer without an axis.
    pub fn int(n: i64) -> Static {
        Static::Int(n, None)
    }
    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Static::Int(n, _) => Some(*n as f64),
            Static::Float(x) => Some(*x),
            _ => None,
        }
    }
    /// Whether it is or holds a number with a fraction.
    pub fn has_rate(&self) -> bool {
        match self {
            Static::Float(_) => true,
            Static::Tuple(parts) | Static::List(parts) => parts.iter().any(Static::has_rate),
            _ => false,
        }
    }
    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Static::Int(..) => "an integer",
            Static::Float(_) => "a number",
            Static::Bool(_) => "a truth value",
            Static::Word(_) => "a word",
            Static::Tuple(_) => "a tuple",
            Static::List(_) => "a list",
            Static::Str(_) => "a text",
        }
    }
    /// The value without its axes.
    pub fn value(&self) -> Value {
        match self {
            Static::Int(n, _) => Value::Int(*n),
            Static::Float(x) => Value::Float(*x),
            Static::Bool(b) => Value::Bool(*b),
            Static::Word(w) => Value::Word(w.clone()),
            Static::Str(s) => Value::Str(s.clone()),
            Static::Tuple(parts) => Value::Tuple(parts.iter().map(Static::value).collect()),
            Static::List(parts) => Value::List(parts.iter().map(Static::value).collect()),
        }
    }
    /// Text that is equal exactly for values that a module cannot tell apart, whichever axes they have: an axis counts by its look and by
    /// the first place at which it stands, and goes to `atoms` there. Of a rate only the band counts where `bands` is set.
    pub fn signature(&self, bands: bool, atoms: &mut Vec<Axis>, out: &mut String) {
        use fmt::Write;
        match self {
            Static::Int(n, None) => {
                let _ = write!(out, "{n}");
            }
            Static::Int(_, Some(axis)) => axis.signature(
                &mut |atom, out| {
                    let known = atoms.iter().position(|a| a.id() == atom.id());
                    let at = known.unwrap_or_else(|| {
                        atoms.push(atom.clone());
                        atoms.len() - 1
                    });
                    out.push('@');
                    digits(at as u64, out);
                },
                out,
            ),
            Static::Float(x) if bands => out.push_str(band(*x)),
            Static::Float(x) => {
                let _ = write!(out, "f{:x}", x.to_bits());
            }
            Static::Bool(b) => out.push(if *b { 't' } else { 'f' }),
            Static::Word(w) => out.push_str(w),
            Static::Str(s) => {
                let _ = write!(out, "{s:?}");
            }
            Static::Tuple(parts) | Static::List(parts) => {
                out.push(if matches!(self, Static::Tuple(_)) { '(' } else { '[' });
                for part in parts {
                    part.signature(bands, atoms, out);
                    out.push(',');
                }
                out.push(')');
            }
        }
    }
    /// The value with other atoms in its axes.
    pub fn replaced(&self, f: &mut dyn FnMut(&Axis, bool) -> Option<Axis>) -> Static {
        match self {
            Static::Int(n, Some(axis)) => Static::Int(*n, Some(axis.replaced(f))),
            Static::Tuple(parts) => Static::Tuple(parts.iter().map(|p| p.replaced(f)).collect()),
            Static::List(parts) => Static::List(parts.iter().map(|p| p.replaced(f)).collect()),
            other => other.clone(),
        }
    }
    /// Text that is equal exactly for values that lowering cannot tell apart.
    pub fn identity(&self, out: &mut String) {
        match self {
            Static::Int(_, Some(axis)) => axis.identity(out),
            Static::Tuple(parts) | Static::List(parts) => {
                out.push('(');
                for part in parts {
                    part.identity(out);
                    out.push(',');
                }
                out.push(')');
            }
            other => out.push_str(&other.value().to_string()),
        }
    }
}

impl From<&Value> for Static {
    fn from(value: &Value) -> Static {
        match value {
            Value::Int(n) => Static::int(*n),
            Value::Float(x) => Static::Float(*x),
            Value::Bool(b) => Static::Bool(*b),
            Value::Word(w) => Static::Word(w.clone()),
            Value::Str(s) => Static::Str(s.clone()),
            Value::Tuple(parts) => Static::Tuple(parts.iter().map(Static::from).collect()),
            Value::List(parts) => Static::List(parts.iter().map(Static::from).collect()),
        }
    }
}

impl fmt::Display for Static {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// Names bound to compile-time values; a later binding of a name hides an earlier one. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env(Rc<Vec<(String, Static)>>);

impl Env {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Static> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v)
    }
    /// Binds a name.
    pub fn bind(&mut self, name: &str, value: Static) {
        Rc::make_mut(&mut self.0).push((name.to_owned(), value));
    }
    /// All bound names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(n, _)| n.as_str()).filter(|n| !n.contains(' '))
    }
    /// All bindings, oldest first.
    pub fn entries(&self) -> &[(String, Static)] {
        &self.0
    }
    /// The same names with other atoms in the axes of their values.
    pub fn replaced(&self, f: &mut dyn FnMut(&Axis, bool) -> Option<Axis>) -> Env {
        Env(Rc::new(self.0.iter().map(|(name, value)| (name.clone(), value.replaced(f))).collect()))
    }
    /// How many bindings there are, for [`Env::truncate`].
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Forgets all but the first bindings.
    pub fn truncate(&mut self, len: usize) {
        Rc::make_mut(&mut self.0).truncate(len);
    }
}
