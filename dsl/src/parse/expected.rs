//! The rules of the grammar in words.

use super::Rule;

/// What could stand at a place, each once.
pub(super) fn words(expected: &[Rule]) -> Vec<&'static str> {
    let mut words = Vec::new();
    for &rule in expected {
        let word = describe(rule);
        if !word.is_empty() && !words.contains(&word) {
            words.push(word);
        }
    }
    if words.contains(&"an expression") {
        // Whatever begins an expression is covered by the word.
        words.retain(|word| !matches!(*word, "a name" | "a string" | "`[`" | "`(`" | "`-`"));
    }
    if words.len() > 1 {
        // Every expression may be continued; say so only if nothing else could follow.
        words.retain(|word| *word != "an operator" && *word != "`[`" || expected.len() < 3);
    }
    words.truncate(5);
    words
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn join(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// Whether what can stand here begins something new, so that what stands before is complete.
pub(super) fn starts_statement(rule: Rule) -> bool {
    matches!(describe(rule), "a statement" | "a declaration" | "an item" | "a recipe entry")
}

/// A rule in words; empty for what needs no mention.
pub(super) fn describe(rule: Rule) -> &'static str {
    match rule {
        Rule::version | Rule::kw_foveate => "`foveate 1`",
        Rule::import
        | Rule::module
        | Rule::function
        | Rule::recipe
        | Rule::module_kind
        | Rule::kw_import
        | Rule::kw_fn
        | Rule::kw_recipe => "an item",
        Rule::require
        | Rule::axis
        | Rule::index
        | Rule::member_if
        | Rule::member_for
        | Rule::forward
        | Rule::declaration
        | Rule::kw_require
        | Rule::kw_axis
        | Rule::kw_index
        | Rule::kw_forward => "a declaration",
        Rule::if_stmt
        | Rule::for_stmt
        | Rule::return_stmt
        | Rule::expose
        | Rule::update
        | Rule::tuple_def
        | Rule::define
        | Rule::kw_return
        | Rule::kw_expose
        | Rule::kw_update => "a statement",
        Rule::entry => "a recipe entry",
        Rule::key => "a key",
        Rule::expr
        | Rule::static_expr
        | Rule::if_expr
        | Rule::neg
        | Rule::kw_not
        | Rule::reduce_head
        | Rule::reduce_op
        | Rule::normalise
        | Rule::normalise_head
        | Rule::normalise_op
        | Rule::reference
        | Rule::int
        | Rule::float
        | Rule::sizes
        | Rule::boolean
        | Rule::list
        | Rule::paren => "an expression",
        Rule::infix => "an operator",
        Rule::name | Rule::target | Rule::binder | Rule::input | Rule::param_decl | Rule::path => "a name",
        Rule::arg => "an argument",
        Rule::string => "a string",
        Rule::lpar | Rule::params | Rule::fn_args | Rule::inputs | Rule::args | Rule::name_group => "`(`",
        Rule::rpar => "`)`",
        Rule::lbracket | Rule::dims | Rule::indices | Rule::target_indices => "`[`",
        Rule::rbracket => "`]`",
        Rule::lbrace | Rule::block | Rule::member_block | Rule::entry_block => "`{`",
        Rule::rbrace => "`}`",
        Rule::comma => "`,`",
        Rule::colon => "`:`",
        Rule::eq | Rule::submodule => "`=`",
        Rule::parameter | Rule::state => "`:`",
        Rule::arrow => "`->`",
        Rule::range => "`..`",
        Rule::result | Rule::results => "a result shape",
        Rule::kw_from => "`from`",
        Rule::kw_prelude => "`prelude`",
        Rule::kw_then => "`then`",
        Rule::kw_else => "`else`",
        Rule::kw_in => "`in`",
        Rule::kw_param => "`param[...]`",
        Rule::kw_state => "`state[...]`",
        Rule::kw_label => "`label[...]`",
        Rule::kw_no_decay => "`no_decay`",
        Rule::constructor => "a module with arguments",
        Rule::one_of | Rule::tuple_type | Rule::scalar_type => "a parameter type",
        _ => "",
    }
}
