//! Recipes as values: the `key: value` pairs of a training run.

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{self, Expr, ExprKind, RecipeEntry, RecipeValue, UnaryOp};

use super::report::suggest;
use super::spec::Spec;
use super::value::Value;

/// A recipe of a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Its name.
    pub name: String,
    /// Its settings, in the order of the text.
    pub entries: Vec<Entry>,
}

/// One setting of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What it is set to.
    pub value: EntryValue,
}

/// What a recipe's key is set to.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryValue {
    /// A number, word, text, list or tuple.
    Value(Value),
    /// An item with arguments, such as `AdamW(lr: 1e-3)`.
    Call {
        /// The item.
        name: String,
        /// Its arguments, with their names where they have one.
        args: Vec<(Option<String>, Value)>,
    },
    /// `key { ... }`.
    Block(Vec<Entry>),
}

impl Spec {
    /// The recipe of that name; without a name, the only one of the file.
    ///
    /// # Errors
    /// A diagnostic that lists what recipes there are, or that points at a value which is not a constant.
    pub fn recipe(&self, name: Option<&str>) -> Result<Recipe, Box<Diagnostic>> {
        let recipes: Vec<&ast::Recipe> = (self.root_items().iter())
            .filter_map(|item| if let ast::Item::Recipe(r) = item { Some(r) } else { None })
            .collect();
        let list = || recipes.iter().map(|r| format!("`{}`", r.name.text)).collect::<Vec<_>>().join(", ");
        let found = match name {
            Some(name) => recipes.iter().find(|r| r.name.text == name).ok_or_else(|| {
                let d = Diagnostic::error("E0414", format!("the file has no recipe `{name}`"));
                let d = if recipes.is_empty() { d } else { d.note(format!("it has {}", list())) };
                let d = self.here(d, recipes.iter().map(|r| &r.name), Some(name));
                suggest(d, name, recipes.iter().map(|r| r.name.text.as_str()))
            }),
            None => match recipes.as_slice() {
                [one] => Ok(one),
                [] => Err(self
                    .here(Diagnostic::error("E0414", "the file has no recipe"), std::iter::empty(), None)
                    .help("a recipe begins with `recipe NAME {` and says what to train on what")),
                _ => {
                    let d = Diagnostic::error("E0414", format!("the file has {} recipes", recipes.len()));
                    let d = self.here(d, recipes.iter().map(|r| &r.name), None);
                    Err(d.help(format!("write `FILE:RECIPE`, with one of {}", list())))
                }
            },
        }?;
        Ok(Recipe { name: found.name.text.clone(), entries: entries(&found.entries)? })
    }

    /// The names of the arguments of a module, model, loss or optimizer, in order. Names are looked up as in [`Spec::item`].
    ///
    /// # Errors
    /// A diagnostic that lists what items there are.
    pub fn arguments(&self, item: Option<&str>) -> Result<Vec<String>, Box<Diagnostic>> {
        let found = self.find(item)?;
        Ok(match self.ast_item(found) {
            ast::Item::Module(m) => m.params.iter().map(|p| p.name.text.clone()).collect(),
            _ => Vec::new(),
        })
    }
}

fn entries(from: &[RecipeEntry]) -> Result<Vec<Entry>, Box<Diagnostic>> {
    let mut out: Vec<Entry> = Vec::new();
    for (n, entry) in from.iter().enumerate() {
        if let Some(first) = from[..n].iter().find(|e| e.key.text == entry.key.text) {
            let d = Diagnostic::error("E0415", format!("`{}` is set twice", entry.key.text));
            return Err(Box::new(d.primary(entry.key.span, "again here").secondary(first.key.span, "first here")));
        }
        let value = match &entry.value {
            RecipeValue::Block(inner) => EntryValue::Block(entries(inner)?),
            RecipeValue::Expr(e) => match &e.kind {
                ExprKind::Call { callee, args } => {
                    let Some(name) = callee.as_name() else { return Err(no_constant(e)) };
                    let args = args
                        .iter()
                        .map(|a| Ok((a.name.as_ref().map(|n| n.text.clone()), constant(&a.value)?)))
                        .collect::<Result<_, Box<Diagnostic>>>()?;
                    EntryValue::Call { name: name.to_owned(), args }
                }
                _ => EntryValue::Value(constant(e)?),
            },
        };
        out.push(Entry { key: entry.key.text.clone(), value });
    }
    Ok(out)
}

/// The value of a constant as recipes have them.
pub(super) fn constant(e: &Expr) -> Result<Value, Box<Diagnostic>> {
    let all = |parts: &[Expr]| parts.iter().map(constant).collect::<Result<Vec<_>, _>>();
    Ok(match &e.kind {
        ExprKind::Int(n) => Value::Int(*n),
        ExprKind::Float(x) => Value::Float(*x),
        ExprKind::Bool(b) => Value::Bool(*b),
        ExprKind::Str(s) => Value::Str(s.clone()),
        ExprKind::Dims(sizes) => Value::Tuple(sizes.iter().map(|&n| Value::Int(n)).collect()),
        ExprKind::Tuple(parts) => Value::Tuple(all(parts)?),
        ExprKind::List(parts) => Value::List(all(parts)?),
        ExprKind::Path(path) => match path.as_name() {
            Some(name) => Value::Word(name.to_owned()),
            None => return Err(no_constant(e)),
        },
        ExprKind::Unary { op: UnaryOp::Neg, operand } => match constant(operand)? {
            Value::Int(n) => Value::Int(n.saturating_neg()),
            Value::Float(x) => Value::Float(-x),
            _ => return Err(no_constant(e)),
        },
        _ => return Err(no_constant(e)),
    })
}

fn no_constant(e: &Expr) -> Box<Diagnostic> {
    let d = Diagnostic::error("E0415", "a recipe is made of constants").primary(e.span, "this is computed");
    Box::new(d.help("write a number, a word, a text, a tuple, a list, or an item with such arguments"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use foveate_dsl::SourceMap;
    use std::collections::HashMap;
    use std::path::{Path, PathBuf};

    fn spec(text: &str) -> Spec {
        let files = HashMap::from([(PathBuf::from("a.fov"), format!("foveate 1\n\n{text}"))]);
        Spec::load_from(Path::new("a.fov"), &files, &mut SourceMap::new()).expect("parses")
    }

    #[test]
    fn entries_are_values() {
        let r =
            spec("recipe a {\n    n: 3\n    o: AdamW(lr: -1e-3, 2)\n    b { image: 4x4, w: word }\n}\n").recipe(None);
        let r = r.expect("one recipe");
        assert_eq!(r.entries[0].value, EntryValue::Value(Value::Int(3)));
        let args = vec![(Some("lr".to_owned()), Value::Float(-1e-3)), (None, Value::Int(2))];
        assert_eq!(r.entries[1].value, EntryValue::Call { name: "AdamW".to_owned(), args });
        let EntryValue::Block(inner) = &r.entries[2].value else { panic!("a block") };
        assert_eq!(inner[0].value, EntryValue::Value(Value::Tuple(vec![Value::Int(4), Value::Int(4)])));
        assert_eq!(inner[1].value, EntryValue::Value(Value::Word("word".to_owned())));
    }

    #[test]
    fn mistakes_are_told() {
        let message = |text: &str, name| spec(text).recipe(name).map(|_| ()).map_err(|d| d.message);
        assert_eq!(message("recipe a {\n    n: 1 + 2\n}\n", None), Err("a recipe is made of constants".to_owned()));
        assert_eq!(message("recipe a {\n    n: 1\n    n: 2\n}\n", None), Err("`n` is set twice".to_owned()));
        assert_eq!(message("recipe a {\n    n: 1\n}\n", Some("b")), Err("the file has no recipe `b`".to_owned()));
        assert_eq!(message("fn f(x) = x\n", None), Err("the file has no recipe".to_owned()));
    }
}
