//! A walk over the parts of a grammar rule.

use pest::iterators::{Pair, Pairs};

use super::Rule;
use crate::ast::{Name, Span};

/// The parts of one rule in order, without the punctuation.
///
/// The grammar has matched before any of this runs, so a part that is not where the grammar puts it is a mistake in
/// this crate and not in the text.
pub(super) struct Cursor<'i> {
    pairs: std::iter::Peekable<Pairs<'i, Rule>>,
    file: u32,
}

impl<'i> Cursor<'i> {
    pub(super) fn new(file: u32, pair: Pair<'i, Rule>) -> Cursor<'i> {
        Cursor { pairs: pair.into_inner().peekable(), file }
    }

    pub(super) fn peek(&mut self) -> Option<Rule> {
        while self.pairs.peek().is_some_and(|pair| is_punctuation(pair.as_rule())) {
            self.pairs.next();
        }
        self.pairs.peek().map(|pair| pair.as_rule())
    }

    /// The text of the next part; empty at the end.
    pub(super) fn peek_str(&mut self) -> &'i str {
        self.peek();
        self.pairs.peek().map_or("", |pair| pair.as_str())
    }

    pub(super) fn next(&mut self) -> Option<Pair<'i, Rule>> {
        self.peek();
        self.pairs.next()
    }

    /// The next part if it is of this rule.
    pub(super) fn maybe(&mut self, rule: Rule) -> Option<Pair<'i, Rule>> {
        if self.peek() == Some(rule) { self.pairs.next() } else { None }
    }

    /// The next part, which the grammar says is of this rule.
    pub(super) fn take(&mut self, rule: Rule) -> Pair<'i, Rule> {
        self.maybe(rule).expect("the grammar puts this rule here")
    }

    /// The next part, whatever it is.
    pub(super) fn any(&mut self) -> Pair<'i, Rule> {
        self.next().expect("the grammar puts another part here")
    }

    /// The next part as a name.
    pub(super) fn name(&mut self) -> Name {
        let file = self.file;
        name(file, &self.take(Rule::name))
    }

    /// All names that follow.
    pub(super) fn names(&mut self) -> Vec<Name> {
        let file = self.file;
        std::iter::from_fn(|| self.maybe(Rule::name)).map(|pair| name(file, &pair)).collect()
    }
}

/// The place of a pair.
pub(super) fn span(file: u32, pair: &Pair<'_, Rule>) -> Span {
    let span = pair.as_span();
    Span { file, start: span.start() as u32, end: span.end() as u32 }
}

/// A pair that is a word, as a name.
pub(super) fn name(file: u32, pair: &Pair<'_, Rule>) -> Name {
    Name { text: pair.as_str().to_owned(), span: span(file, pair) }
}

fn is_punctuation(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::lpar
            | Rule::rpar
            | Rule::lbracket
            | Rule::rbracket
            | Rule::lbrace
            | Rule::rbrace
            | Rule::comma
            | Rule::colon
            | Rule::bar
            | Rule::arrow
            | Rule::eq
            | Rule::dot
            | Rule::range
            | Rule::times
            | Rule::kw_foveate
            | Rule::kw_import
            | Rule::kw_from
            | Rule::kw_fn
            | Rule::kw_recipe
            | Rule::kw_require
            | Rule::kw_axis
            | Rule::kw_index
            | Rule::kw_let
            | Rule::kw_if
            | Rule::kw_then
            | Rule::kw_for
            | Rule::kw_forward
            | Rule::kw_return
            | Rule::kw_expose
            | Rule::kw_update
            | Rule::kw_param
            | Rule::kw_state
            | Rule::kw_label
            | Rule::kw_one_of
            | Rule::EOI
    )
}
