//! A spec with everything it imports, read and parsed.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use foveate_dsl::ast::{self, ImportSource, Span};
use foveate_dsl::{Diagnostic, SourceMap, parse};

use super::report::{closest, suggest};

/// The most items that a message points at.
const MOST_PLACES: usize = 8;

/// The prelude's files, part of the compiler.
const PRELUDE: &[(&str, &str)] = &[
    ("prelude/activation.fov", include_str!("../../../specs/prelude/activation.fov")),
    ("prelude/conv.fov", include_str!("../../../specs/prelude/conv.fov")),
    ("prelude/dropout.fov", include_str!("../../../specs/prelude/dropout.fov")),
    ("prelude/linear.fov", include_str!("../../../specs/prelude/linear.fov")),
    ("prelude/losses.fov", include_str!("../../../specs/prelude/losses.fov")),
    ("prelude/mlp.fov", include_str!("../../../specs/prelude/mlp.fov")),
    ("prelude/norm.fov", include_str!("../../../specs/prelude/norm.fov")),
    ("prelude/optim.fov", include_str!("../../../specs/prelude/optim.fov")),
    ("prelude/pool.fov", include_str!("../../../specs/prelude/pool.fov")),
];

/// Where the texts of spec files come from.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// One sentence on why it cannot be read.
    fn read(&self, path: &Path) -> Result<String, String>;
}

/// Files on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<String, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        // A byte order mark is no part of the text.
        Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
    }
}

/// Files in memory, by path.
impl Files for HashMap<PathBuf, String> {
    fn read(&self, path: &Path) -> Result<String, String> {
        self.get(path).cloned().ok_or_else(|| "there is no such file".to_owned())
    }
}

/// Which item of which file a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ItemRef {
    pub file: usize,
    pub item: usize,
}

/// A loaded file: its number among the texts, its tree and what its names mean.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub id: u32,
    pub tree: Arc<ast::File>,
    pub names: HashMap<String, ItemRef>,
}

/// A spec file with all files it imports, parsed, with every import resolved.
#[derive(Debug)]
pub struct Spec {
    files: Vec<Loaded>,
    root: usize,
}

/// An item of a spec, for those who list or choose items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemInfo {
    /// Its name.
    pub name: String,
    /// `module`, `model`, `loss`, `optimizer`, `fn` or `recipe`.
    pub keyword: &'static str,
    /// Its documentation comment.
    pub doc: String,
    /// Where it stands.
    pub span: Span,
}

impl Spec {
    /// Reads a file from disk with everything it imports. The texts are added to `sources`.
    ///
    /// # Errors
    /// All syntax errors of all files, files that cannot be read, imports that go in a circle, names that a file does not
    /// have.
    pub fn load(path: &Path, sources: &mut SourceMap) -> Result<Spec, Vec<Diagnostic>> {
        Spec::load_from(path, &Disk, sources)
    }

    /// Like [`Spec::load`], with files from anywhere.
    ///
    /// # Errors
    /// As [`Spec::load`].
    pub fn load_from(path: &Path, files: &dyn Files, sources: &mut SourceMap) -> Result<Spec, Vec<Diagnostic>> {
        let mut loader = Loader {
            provider: files,
            sources,
            files: Vec::new(),
            by_path: HashMap::new(),
            prelude: HashMap::new(),
            stack: Vec::new(),
            diagnostics: Vec::new(),
        };
        let root = loader.file(&normalise(path), None);
        let Loader { files, diagnostics, .. } = loader;
        match root {
            Some(root) if !diagnostics.iter().any(Diagnostic::is_error) => Ok(Spec { files, root }),
            _ => Err(diagnostics),
        }
    }

    /// The items of the file itself, in the order of the text.
    pub fn items(&self) -> Vec<ItemInfo> {
        self.files[self.root].tree.items.iter().map(info).collect()
    }

    /// The module, model, loss or optimizer of that name, the file's own or imported; without a name, the only one of the file (or its only model, or
    /// its only loss, where there are several items).
    ///
    /// # Errors
    /// A diagnostic that lists what there is.
    pub fn item(&self, name: Option<&str>) -> Result<ItemInfo, Box<Diagnostic>> {
        self.find(name).map(|r| info(self.ast_item(r)))
    }

    pub(crate) fn find(&self, name: Option<&str>) -> Result<ItemRef, Box<Diagnostic>> {
        let modules: Vec<(ItemRef, &ast::Module)> = (self.files[self.root].tree.items.iter().enumerate())
            .filter_map(|(item, i)| match i {
                ast::Item::Module(m) => Some((ItemRef { file: self.root, item }, m)),
                _ => None,
            })
            .collect();
        let list = || modules.iter().map(|(_, m)| format!("`{}`", m.name.text)).collect::<Vec<_>>().join(", ");
        match name {
            Some(name) => {
                if let Some((r, _)) = modules.iter().find(|(_, m)| m.name.text == name) {
                    return Ok(*r);
                }
                // An imported item can be meant too; it is not listed.
                if let Some((r, _)) = self.module(self.root, name) {
                    return Ok(r);
                }
                let mut d =
                    Diagnostic::error("E0101", format!("the file has no module, model, loss or optimizer `{name}`"));
                if !modules.is_empty() {
                    d = d.note(format!("it has {}", list()));
                }
                d = self.here(d, modules.iter().map(|(_, m)| &m.name), Some(name));
                Err(Box::new(suggest(d, name, modules.iter().map(|(_, m)| m.name.text.as_str()))))
            }
            None => {
                let only = |kind: Option<ast::ModuleKind>| {
                    let mut found = modules.iter().filter(|(_, m)| kind.is_none_or(|k| m.kind == k));
                    found.next().filter(|_| found.next().is_none()).map(|(r, _)| *r)
                };
                only(None)
                    .or_else(|| only(Some(ast::ModuleKind::Model)))
                    .or_else(|| only(Some(ast::ModuleKind::Loss)))
                    .ok_or_else(|| {
                        let message = match modules.len() {
                            0 => "the file has no module, model, loss or optimizer".to_owned(),
                            n => format!("the file has {n} items: say which one is meant"),
                        };
                        let d = Diagnostic::error("E0102", message);
                        let d = self.here(d, modules.iter().map(|(_, m)| &m.name), None);
                        Box::new(if modules.is_empty() {
                            d
                        } else {
                            d.help(format!("write `FILE:ITEM`, with one of {}", list()))
                        })
                    })
            }
        }
    }

    /// Gives what is said about the names that a file has, or has not, its places: that of the closest one or else all of them, or, where there are
    /// none, the first line.
    pub(super) fn here<'n>(
        &self,
        d: Diagnostic,
        names: impl Iterator<Item = &'n ast::Name> + Clone,
        wanted: Option<&str>,
    ) -> Diagnostic {
        let close = wanted.and_then(|wanted| closest(wanted, names.clone().map(|n| n.text.as_str())));
        let mut places = names.filter(|n| close.is_none_or(|c| c == n.text)).peekable();
        if places.peek().is_none() {
            let start = Span { file: self.files[self.root].id, start: 0, end: 0 };
            return d.primary(start, "this file");
        }
        places.take(MOST_PLACES).fold(d, |d, name| d.primary(name.span, ""))
    }

    /// The number of the file itself.
    pub(crate) fn root(&self) -> usize {
        self.root
    }

    /// What the file itself imports from other files than the prelude's.
    pub(crate) fn imported(&self) -> Vec<(&str, ItemRef)> {
        let root = &self.files[self.root];
        let imports = root.tree.imports.iter().filter(|i| matches!(i.source, ImportSource::Path(_)));
        let names = imports.flat_map(|i| &i.names).map(|name| name.text.as_str());
        names.filter_map(|name| Some((name, *root.names.get(name)?))).collect()
    }

    /// The items of the file itself, as written.
    pub(crate) fn root_items(&self) -> &[ast::Item] {
        &self.files[self.root].tree.items
    }

    pub(crate) fn file(&self, file: usize) -> &Loaded {
        &self.files[file]
    }

    pub(crate) fn ast_item(&self, r: ItemRef) -> &ast::Item {
        &self.files[r.file].tree.items[r.item]
    }

    /// The module a name stands for in a file.
    pub(crate) fn module(&self, file: usize, name: &str) -> Option<(ItemRef, &ast::Module)> {
        let r = *self.files[file].names.get(name)?;
        match self.ast_item(r) {
            ast::Item::Module(m) => Some((r, m)),
            _ => None,
        }
    }

    /// The scalar function a name stands for in a file.
    pub(crate) fn function(&self, file: usize, name: &str) -> Option<(ItemRef, &ast::ScalarFn)> {
        let r = *self.files[file].names.get(name)?;
        match self.ast_item(r) {
            ast::Item::Function(f) => Some((r, f)),
            _ => None,
        }
    }
}

/// An item of the prelude that no file has imported.
pub(crate) fn prelude_item(name: &str) -> Option<ast::Module> {
    let (_, text) = PRELUDE.iter().find(|(_, text)| defined_names(text).any(|n| n == name))?;
    parse(0, text).0.items.into_iter().find_map(|item| match item {
        ast::Item::Module(m) if m.name.text == name => Some(m),
        _ => None,
    })
}

/// The names of the prelude's items.
pub(crate) fn prelude_names() -> Vec<String> {
    PRELUDE.iter().flat_map(|(_, text)| defined_names(text)).map(str::to_owned).collect()
}

fn item_name(item: &ast::Item) -> &ast::Name {
    match item {
        ast::Item::Module(m) => &m.name,
        ast::Item::Function(f) => &f.name,
        ast::Item::Recipe(r) => &r.name,
    }
}

fn info(item: &ast::Item) -> ItemInfo {
    let (keyword, doc, span) = match item {
        ast::Item::Module(m) => (m.kind.keyword(), &m.doc, m.span),
        ast::Item::Function(f) => ("fn", &f.doc, f.span),
        ast::Item::Recipe(r) => ("recipe", &r.doc, r.span),
    };
    ItemInfo { name: item_name(item).text.clone(), keyword, doc: doc.clone(), span }
}

/// The path without `.` and, where possible, without `..`, so that one file has one path.
fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

struct Loader<'a> {
    provider: &'a dyn Files,
    sources: &'a mut SourceMap,
    files: Vec<Loaded>,
    by_path: HashMap<PathBuf, Option<usize>>,
    prelude: HashMap<usize, usize>,
    stack: Vec<PathBuf>,
    diagnostics: Vec<Diagnostic>,
}

impl Loader<'_> {
    fn file(&mut self, path: &Path, from: Option<Span>) -> Option<usize> {
        if let Some(start) = self.stack.iter().position(|p| p == path) {
            let mut circle: Vec<String> = self.stack[start..].iter().map(|p| p.display().to_string()).collect();
            circle.push(path.display().to_string());
            let d = Diagnostic::error("E0104", "files import each other in a circle").note(circle.join(" imports "));
            self.diagnostics.push(at(d, from).help("move what both need into a third file"));
            return None;
        }
        if let Some(known) = self.by_path.get(path) {
            return *known;
        }
        let loaded = match self.provider.read(path) {
            Ok(text) => {
                self.stack.push(path.to_owned());
                let directory = path.parent().unwrap_or(Path::new("")).to_owned();
                let loaded = self.text(&path.display().to_string(), &text, Some(&directory));
                self.stack.pop();
                Some(loaded)
            }
            Err(error) => {
                let d = Diagnostic::error("E0105", format!("`{}` cannot be read: {error}", path.display()));
                self.diagnostics.push(at(d, from));
                None
            }
        };
        self.by_path.insert(path.to_owned(), loaded);
        loaded
    }

    /// Parses a text, resolves its imports and returns its number. Prelude files have no directory.
    fn text(&mut self, name: &str, text: &str, directory: Option<&Path>) -> usize {
        let id = self.sources.add(name, text);
        let (tree, mut diagnostics) = parse(id, text);
        let tree = Arc::new(tree);
        self.diagnostics.append(&mut diagnostics);
        let number = self.files.len();
        self.files.push(Loaded { id, tree: Arc::clone(&tree), names: HashMap::new() });
        // Prelude files may import each other; so a file's own names are known before its imports are read.
        let mut names = HashMap::new();
        for (item, i) in tree.items.iter().enumerate() {
            let name = item_name(i);
            if let Some(ItemRef { item: first, .. }) = names.insert(name.text.clone(), ItemRef { file: number, item }) {
                let d = Diagnostic::error("E0103", format!("`{}` is defined twice", name.text))
                    .primary(name.span, "again here")
                    .secondary(item_name(&tree.items[first]).span, "first here");
                self.diagnostics.push(d);
            }
        }
        self.files[number].names = names;
        for import in &tree.imports {
            self.import(number, import, directory);
        }
        number
    }

    fn import(&mut self, into: usize, import: &ast::Import, directory: Option<&Path>) {
        let source = match (&import.source, directory) {
            (ImportSource::Path(path), Some(directory)) => {
                let Some(file) = self.file(&normalise(&directory.join(path)), Some(import.span)) else { return };
                Some(file)
            }
            _ => None,
        };
        for name in &import.names {
            let found = match source {
                Some(file) => self.files[file].names.get(&name.text).copied().filter(|r| r.file == file),
                None => self.prelude_item(&name.text),
            };
            let Some(found) = found else {
                let place = match &import.source {
                    ImportSource::Prelude => "the prelude".to_owned(),
                    ImportSource::Path(path) => format!("`{path}`"),
                };
                let d = Diagnostic::error("E0106", format!("{place} has no `{}`", name.text)).primary(name.span, "");
                let candidates: Vec<String> = match source {
                    Some(file) => self.files[file].tree.items.iter().map(|i| item_name(i).text.clone()).collect(),
                    None => prelude_names(),
                };
                self.diagnostics.push(suggest(d, &name.text, candidates.iter().map(String::as_str)));
                continue;
            };
            if let Some(own) = self.files[into].names.insert(name.text.clone(), found).filter(|own| *own != found) {
                let mut d = Diagnostic::error(
                    "E0103",
                    format!("`{}` is both imported and defined or imported elsewhere", name.text),
                )
                .primary(name.span, "imported here");
                if own.file == into {
                    d = d.secondary(item_name(&self.files[into].tree.items[own.item]).span, "defined here");
                }
                self.diagnostics.push(d);
            }
        }
    }

    fn prelude_item(&mut self, name: &str) -> Option<ItemRef> {
        let at = PRELUDE.iter().position(|(_, text)| defined_names(text).any(|n| n == name))?;
        let file = match self.prelude.get(&at) {
            Some(file) => *file,
            None => {
                // Known before it is read: prelude files may need each other.
                self.prelude.insert(at, self.files.len());
                let stack = std::mem::take(&mut self.stack);
                let file = self.text(PRELUDE[at].0, PRELUDE[at].1, None);
                self.stack = stack;
                file
            }
        };
        self.files[file].names.get(name).copied()
    }
}

fn at(d: Diagnostic, span: Option<Span>) -> Diagnostic {
    match span {
        Some(span) => d.primary(span, "imported here"),
        None => d,
    }
}

/// The names of the items of a text, found without parsing it.
fn defined_names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = ["module ", "model ", "loss ", "optimizer ", "fn "].iter().find_map(|k| line.strip_prefix(k))?;
        rest.split('(').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prelude_is_whole_and_parses() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs/prelude");
        let mut on_disk: Vec<String> = std::fs::read_dir(directory)
            .expect("the prelude's directory")
            .map(|entry| format!("prelude/{}", entry.expect("an entry").file_name().to_string_lossy()))
            .collect();
        on_disk.sort();
        assert_eq!(on_disk, PRELUDE.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
        for (name, text) in PRELUDE {
            let (tree, diagnostics) = parse(0, text);
            assert!(diagnostics.is_empty(), "{name}: {diagnostics:?}");
            let names: Vec<&str> = tree.items.iter().map(|i| item_name(i).text.as_str()).collect();
            assert_eq!(names, defined_names(text).collect::<Vec<_>>(), "{name}");
        }
    }
}
