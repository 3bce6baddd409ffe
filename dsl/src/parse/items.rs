//! Files, imports, items and the members of modules.

use pest::iterators::{Pair, Pairs};

use super::cursor::{Cursor, name, span};
use super::scan::Scan;
use super::{Rule, VERSION};
use crate::ast::*;
use crate::diagnostic::Diagnostic;

/// Builds the tree from the grammar's pairs.
pub(super) struct Builder<'t> {
    pub(super) file_id: u32,
    /// The text without blanked parts, for documentation comments.
    text: &'t str,
    scan: &'t Scan,
    blanked: &'t [Span],
    pub(super) diagnostics: Vec<Diagnostic>,
    /// How many prefixes (`-`, `not`, reductions) and powers are being read, one inside the other.
    pub(super) open_prefixes: usize,
    /// Whether an expression of this item was too deep; said once.
    pub(super) found_too_deep: bool,
}

impl<'t> Builder<'t> {
    pub(super) fn new(file_id: u32, text: &'t str, scan: &'t Scan, blanked: &'t [Span]) -> Builder<'t> {
        Builder { file_id, text, scan, blanked, diagnostics: Vec::new(), open_prefixes: 0, found_too_deep: false }
    }

    pub(super) fn cursor<'i>(&self, pair: Pair<'i, Rule>) -> Cursor<'i> {
        Cursor::new(self.file_id, pair)
    }

    /// The place of a pair without the blanks and comments behind it, which the grammar counts to what they follow.
    pub(super) fn span(&self, pair: &Pair<'_, Rule>) -> Span {
        let span = span(self.file_id, pair);
        let tokens = &self.scan.tokens;
        let last = tokens.partition_point(|token| (token.start as u32) < span.end).checked_sub(1);
        Span { end: last.map_or(span.end, |last| span.end.min(tokens[last].end as u32)), ..span }
    }

    pub(super) fn file(&mut self, mut pairs: Pairs<'_, Rule>) -> File {
        let root = pairs.next().expect("a successful parse has one root");
        let mut parts = self.cursor(root);
        let version = match parts.maybe(Rule::version) {
            Some(pair) => self.version(pair),
            None => self.missing_version(),
        };
        let mut file = File { version, imports: Vec::new(), items: Vec::new() };
        while let Some(pair) = parts.next() {
            self.found_too_deep = false;
            match pair.as_rule() {
                Rule::import => {
                    let import = self.import(pair);
                    if let Some(first) = file.items.first() {
                        let first = first.span();
                        self.diagnostics.push(
                            Diagnostic::error("E0010", "this import stands after an item")
                                .primary(import.span, "imports come first")
                                .secondary(first, "the first item")
                                .help("move the import to the top of the file, below the version line"),
                        );
                    }
                    file.imports.push(import);
                }
                Rule::module => {
                    let module = self.module(pair);
                    file.items.push(Item::Module(module));
                }
                Rule::function => {
                    let function = self.function(pair);
                    file.items.push(Item::Function(function));
                }
                rule => {
                    debug_assert_eq!(rule, Rule::recipe);
                    let recipe = self.recipe(pair);
                    file.items.push(Item::Recipe(recipe));
                }
            }
        }
        file
    }

    fn version(&mut self, pair: Pair<'_, Rule>) -> u32 {
        let at = self.span(&pair);
        let digits = self.cursor(pair).take(Rule::int);
        let found = digits.as_str().parse::<u32>().ok();
        if found != Some(VERSION) {
            self.diagnostics.push(
                Diagnostic::error("E0002", format!("language version {} is not known", digits.as_str()))
                    .primary(at, format!("this compiler reads version {VERSION}"))
                    .help(format!("write `foveate {VERSION}`, or use a compiler that reads this version")),
            );
        }
        VERSION
    }

    fn missing_version(&mut self) -> u32 {
        let start = self.scan.tokens.first().map_or(0, |token| token.start as u32);
        let at = Span { file: self.file_id, start, end: start };
        // A blanked version line has been reported already.
        if !self.blanked.iter().any(|span| span.start <= start) {
            self.diagnostics.push(
                Diagnostic::error("E0002", "the file does not start with the language version")
                    .primary(at, format!("expected `foveate {VERSION}` before this"))
                    .help(format!("make `foveate {VERSION}` the first line")),
            );
        }
        VERSION
    }

    fn import(&mut self, pair: Pair<'_, Rule>) -> Import {
        let at = self.span(&pair);
        let mut parts = self.cursor(pair);
        let names = parts.names();
        let source = match parts.maybe(Rule::string) {
            Some(path) => ImportSource::Path(self.string(&path)),
            None => ImportSource::Prelude,
        };
        Import { names, source, span: at }
    }

    fn module(&mut self, pair: Pair<'_, Rule>) -> Module {
        let at = self.span(&pair);
        let mut parts = self.cursor(pair);
        let kind = match parts.take(Rule::module_kind).as_str() {
            "module" => ModuleKind::Module,
            "model" => ModuleKind::Model,
            "loss" => ModuleKind::Loss,
            _ => ModuleKind::Optimizer,
        };
        let name = parts.name();
        let params = self.params(parts.take(Rule::params));
        let mut members = Vec::new();
        while let Some(pair) = parts.next() {
            members.push(self.member(pair));
        }
        let hurt = self.blanked.iter().any(|span| span.start < at.end && at.start < span.end);
        if !hurt && !has_forward(&members) {
            self.diagnostics.push(
                Diagnostic::error("E0011", format!("`{}` has no `forward`", name.text))
                    .primary(name.span, "what does it compute?")
                    .help("add `forward(x[...]) -> [...] { ... return ... }` after the declarations"),
            );
        }
        Module { doc: self.doc(at), kind, name, params, members, span: at }
    }

    fn params(&mut self, pair: Pair<'_, Rule>) -> Vec<Param> {
        let mut params = Vec::new();
        let mut parts = self.cursor(pair);
        while let Some(pair) = parts.maybe(Rule::param_decl) {
            let mut parts = self.cursor(pair);
            let name = parts.name();
            let ty = match parts.peek() {
                Some(Rule::one_of) => ParamType::OneOf(self.name_group(parts.any())),
                Some(Rule::tuple_type) => ParamType::Tuple(self.name_group(parts.any())),
                Some(Rule::scalar_type) => match parts.any().as_str() {
                    "list" => ParamType::List,
                    "float" => ParamType::Float,
                    "probability" => ParamType::Probability,
                    "int" => ParamType::Int,
                    _ => ParamType::Bool,
                },
                _ => ParamType::Infer,
            };
            let default = parts.next().map(|pair| self.expr(pair));
            params.push(Param { name, ty, default });
        }
        params
    }

    /// The names of a `name_group`, which is the only part of this rule.
    pub(super) fn name_group(&self, pair: Pair<'_, Rule>) -> Vec<Name> {
        let group = self.cursor(pair).take(Rule::name_group);
        self.cursor(group).names()
    }

    fn function(&mut self, pair: Pair<'_, Rule>) -> ScalarFn {
        let at = self.span(&pair);
        let mut parts = self.cursor(pair);
        let name = parts.name();
        let args = self.cursor(parts.take(Rule::fn_args)).names();
        let body = self.expr(parts.any());
        ScalarFn { doc: self.doc(at), name, args, body, span: at }
    }

    fn recipe(&mut self, pair: Pair<'_, Rule>) -> Recipe {
        let at = self.span(&pair);
        let mut parts = self.cursor(pair);
        let name = parts.name();
        let entries = self.entries(parts.take(Rule::entry_block));
        Recipe { doc: self.doc(at), name, entries, span: at }
    }

    fn entries(&mut self, pair: Pair<'_, Rule>) -> Vec<RecipeEntry> {
        let mut entries = Vec::new();
        let mut parts = self.cursor(pair);
        while let Some(pair) = parts.maybe(Rule::entry) {
            let mut parts = self.cursor(pair);
            let key = name(self.file_id, &parts.take(Rule::key));
            let value = match parts.maybe(Rule::entry_block) {
                Some(block) => RecipeValue::Block(self.entries(block)),
                None => RecipeValue::Expr(self.expr(parts.any())),
            };
            entries.push(RecipeEntry { key, value });
        }
        entries
    }

    fn member(&mut self, pair: Pair<'_, Rule>) -> Member {
        let at = self.span(&pair);
        let rule = pair.as_rule();
        let mut parts = self.cursor(pair);
        match rule {
            Rule::require => Member::Require { cond: self.expr(parts.any()), span: at },
            Rule::axis => {
                let name = parts.name();
                let first = parts.any();
                let def = match parts.next() {
                    None => AxisDef::Size(self.expr(first)),
                    Some(more) => {
                        let product = more.as_rule() == Rule::axis_product;
                        let mut operands = vec![self.axis_ref(first)];
                        let mut rest = self.cursor(more);
                        while let Some(pair) = rest.next() {
                            operands.push(self.axis_ref(pair));
                        }
                        if product { AxisDef::Product(operands) } else { AxisDef::Sum(operands) }
                    }
                };
                Member::Axis { name, def, span: at }
            }
            Rule::index => {
                let names = parts.names();
                Member::Index { names, axis: self.axis_ref(parts.any()), span: at }
            }
            Rule::let_value => {
                let name = parts.name();
                Member::Let { name, value: self.expr(parts.any()), span: at }
            }
            Rule::member_if => self.member_if(parts, at),
            Rule::member_for => {
                let var = parts.name();
                parts.take(Rule::kw_in);
                let (lo, hi) = (self.expr(parts.any()), self.expr(parts.any()));
                let body = self.member_block(parts.take(Rule::member_block));
                Member::For { var, lo, hi, body, span: at }
            }
            Rule::forward => Member::Forward(self.forward(parts, at)),
            _ => {
                let flat = parts.maybe(Rule::kw_flat).map(|pair| self.span(&pair));
                let path = parts.take(Rule::path);
                let path = self.path(path).0;
                self.declaration(flat, path, parts.any(), at)
            }
        }
    }

    fn declaration(&mut self, flat: Option<Span>, name: Path, pair: Pair<'_, Rule>, span: Span) -> Member {
        let rule = pair.as_rule();
        if let Some(flat) = flat.filter(|_| rule != Rule::submodule) {
            self.diagnostics.push(
                Diagnostic::error("E0017", "only a submodule can be `flat`")
                    .primary(flat, "")
                    .help("remove `flat`: parameters and states keep their own names anyway"),
            );
        }
        let mut parts = self.cursor(pair);
        if rule == Rule::submodule {
            let mut parts = self.cursor(parts.take(Rule::constructor));
            let ctor = parts.name();
            let args = self.args(parts.take(Rule::args)).0;
            return Member::Submodule { name, ctor, args, flat: flat.is_some(), span };
        }
        let dims = self.dims(parts.take(Rule::dims));
        let init = self.expr(parts.any());
        if rule == Rule::state {
            return Member::State { name, dims, init, span };
        }
        let no_decay = parts.maybe(Rule::kw_no_decay).is_some();
        Member::Param { name, dims, init, no_decay, span }
    }

    fn member_if(&mut self, mut parts: Cursor<'_>, at: Span) -> Member {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        while let Some(pair) = parts.next() {
            match pair.as_rule() {
                Rule::kw_else => {}
                Rule::member_block => otherwise = self.member_block(pair),
                _ => {
                    let start = self.span(&pair);
                    let cond = self.expr(pair);
                    arms.push((cond, self.member_block(parts.take(Rule::member_block)), start));
                }
            }
        }
        self.limit_chain(&mut arms, at);
        let mut result = None;
        for (cond, then, start) in arms.into_iter().rev() {
            if let Some(next) = result.take() {
                otherwise = vec![next];
            }
            let otherwise = std::mem::take(&mut otherwise);
            result = Some(Member::If { cond, then, otherwise, span: Span { start: start.start, ..at } });
        }
        let mut result = result.expect("an `if` has a condition");
        if let Member::If { span, .. } = &mut result {
            *span = at;
        }
        result
    }

    fn member_block(&mut self, pair: Pair<'_, Rule>) -> Vec<Member> {
        let mut members = Vec::new();
        let mut parts = self.cursor(pair);
        while let Some(pair) = parts.next() {
            members.push(self.member(pair));
        }
        members
    }

    /// The text of the `///` lines that stand directly above an item.
    fn doc(&self, item: Span) -> String {
        let mut lines = Vec::new();
        for comment in self.scan.doc_comments_above(self.text, item.start as usize) {
            let line = &self.text[comment.start + 3..comment.end];
            lines.push(line.strip_prefix(' ').unwrap_or(line).trim_end());
        }
        lines.join("\n")
    }
}

fn has_forward(members: &[Member]) -> bool {
    members.iter().any(|member| match member {
        Member::Forward(_) => true,
        Member::If { then, otherwise, .. } => has_forward(then) || has_forward(otherwise),
        Member::For { body, .. } => has_forward(body),
        _ => false,
    })
}
