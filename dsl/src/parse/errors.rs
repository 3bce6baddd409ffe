//! What a failure of the grammar means, in words.

use pest::error::{Error, ErrorVariant, InputLocation};

use super::expected::{describe, join, starts_statement, words};
use super::scan::{Scan, Token, TokenKind, is_keyword, starts_line};
use super::{MAX_NESTING, Rule};
use crate::ast::Span;
use crate::diagnostic::Diagnostic;

/// The names of the reductions.
pub(crate) const REDUCTIONS: &[&str] =
    &["sum", "mean", "prod", "max", "min", "any", "all", "logsumexp", "argmax", "argmin"];

/// The failure and what stands around it.
struct Failure<'t> {
    file: u32,
    text: &'t str,
    scan: &'t Scan,
    /// The token the grammar stopped at, if not the end of the file.
    found: Option<usize>,
    /// The rules that would have continued.
    expected: &'t [Rule],
}

/// The diagnostic for a failure of the grammar, and the byte of the token to blame for recovery.
pub(super) fn explain(file: u32, text: &str, scan: &Scan, error: &Error<Rule>) -> (Diagnostic, usize) {
    let at = match error.location {
        InputLocation::Pos(at) => at,
        InputLocation::Span((start, _)) => start,
    };
    let ErrorVariant::ParsingError { positives, .. } = &error.variant else {
        // The grammar ran out of stack: the text nests deeper than this thread can read.
        let span = Span { file, start: at as u32, end: at as u32 };
        let message = format!("this nests too deeply to be read; the limit is {MAX_NESTING} or less");
        return (Diagnostic::error("E0006", message).primary(span, ""), at);
    };
    let index = scan.tokens.partition_point(|token| token.end <= at);
    let found = (index < scan.tokens.len()).then_some(index);
    let mut failure = Failure { file, text, scan, found, expected: positives };
    failure.step_back();
    (failure.diagnostic(), failure.blame())
}

impl Failure<'_> {
    /// Moves to where the reader will see the problem.
    ///
    /// A statement may start anywhere, so what wrongly follows an expression on its line is first taken for a left side
    /// (`total(j) x[j]`) or, before an item, for an operand (`x +` above `recipe r`); the grammar stops one step later.
    fn step_back(&mut self) {
        let Some(before) = self.before() else { return };
        if self.scan.starts_item(self.text, before) {
            self.found = Some(before);
            self.expected = &[Rule::expr];
        } else if self.expects(&[Rule::eq])
            && let Some(start) = self.left_side(before)
            && start > 0
            && self.same_line(start - 1, start)
            && self.ends_operand(start - 1)
        {
            self.found = Some(start);
            self.expected = &[Rule::infix, Rule::define];
        } else if !self.expects(&[Rule::infix])
            && !self.expects_operand()
            && let Some(open) = self.found.and_then(|found| self.apart(found))
        {
            self.found = Some(open);
            self.expected = &[Rule::infix, Rule::define];
        }
    }

    /// The round bracket that is open at this token, if it stands apart behind something on its line: a list of left
    /// sides seems to start there, but what was meant is probably a body or arguments.
    fn apart(&self, index: usize) -> Option<usize> {
        let open = self.innermost(index).filter(|&open| self.word(open) == "(")?;
        let before = open.checked_sub(1)?;
        let gap = self.scan.tokens[before].end < self.scan.tokens[open].start;
        (gap && self.ends_operand(before) && self.same_line(before, open)).then_some(open)
    }

    /// Whether an expression can end with this token.
    fn ends_operand(&self, index: usize) -> bool {
        match self.scan.tokens[index].kind {
            TokenKind::Sign => matches!(self.word(index), ")" | "]"),
            _ => !is_keyword(self.word(index)),
        }
    }

    /// Where the left side that ends with this token starts.
    fn left_side(&self, end: usize) -> Option<usize> {
        match self.word(end) {
            ")" => self.opening(end),
            "]" => self.opening(end)?.checked_sub(1),
            _ => (self.scan.tokens[end].kind == TokenKind::Word).then_some(end),
        }
    }

    fn word(&self, index: usize) -> &str {
        let token = self.scan.tokens[index];
        &self.text[token.start..token.end]
    }

    fn before(&self) -> Option<usize> {
        self.found.unwrap_or(self.scan.tokens.len()).checked_sub(1)
    }

    fn span(&self, index: usize) -> Span {
        let token = self.scan.tokens[index];
        Span { file: self.file, start: token.start as u32, end: token.end as u32 }
    }

    fn expects(&self, rules: &[Rule]) -> bool {
        self.expected.iter().any(|rule| rules.contains(rule))
    }

    fn expects_operand(&self) -> bool {
        self.expected.iter().any(|&rule| describe(rule) == "an expression")
    }

    /// The byte of the token whose statement is to be left out: the token before, if that one is incomplete and the
    /// grammar only noticed at the start of what follows.
    fn blame(&self) -> usize {
        let complete = self.expected.iter().any(|&rule| starts_statement(rule));
        let blamed = match (self.found, self.before()) {
            (Some(found), Some(before)) if complete || self.same_line(before, found) => {
                // A closing brace that comes too early is not to blame itself.
                if self.word(found) == "}" { before } else { found }
            }
            (_, Some(before)) => before,
            (Some(found), None) => found,
            (None, None) => return 0,
        };
        self.scan.tokens[blamed].start
    }

    fn same_line(&self, first: usize, second: usize) -> bool {
        let (first, second) = (self.scan.tokens[first], self.scan.tokens[second]);
        !self.text[first.start..second.start].contains('\n')
    }

    /// Whether one of these words stands before this token on its line.
    fn line_has(&self, index: usize, words: &[&str]) -> bool {
        (0..=index).rev().take_while(|&at| self.same_line(at, index)).any(|at| words.contains(&self.word(at)))
    }

    /// The first word of the line that this token is on.
    fn line_word(&self, index: usize) -> &str {
        let mut first = index;
        while first > 0 && !starts_line(self.text, self.scan.tokens[first].start) {
            first -= 1;
        }
        self.word(first)
    }

    fn diagnostic(&self) -> Diagnostic {
        let specific = match (self.found, self.before()) {
            (Some(found), Some(before)) => self
                .misplaced_member(before, found)
                .or_else(|| self.keyword_as_name(found))
                .or_else(|| self.equals(before, found))
                .or_else(|| self.missing_body(before, found))
                .or_else(|| self.spaced_call(before, found))
                .or_else(|| self.unknown_reduction(before, found)),
            (Some(found), None) => Some(self.no_version(found)),
            _ => None,
        };
        specific.unwrap_or_else(|| self.general())
    }

    fn no_version(&self, found: usize) -> Diagnostic {
        Diagnostic::error("E0002", "the file does not start with the language version")
            .primary(self.span(found), format!("expected `foveate {}` here", super::VERSION))
            .help(format!("make `foveate {}` the first line", super::VERSION))
    }

    fn keyword_as_name(&self, found: usize) -> Option<Diagnostic> {
        let word = self.word(found);
        let named = self.expects(&[Rule::name, Rule::target]) && !self.expects_operand();
        (named && is_keyword(word)).then(|| {
            Diagnostic::error("E0014", format!("`{word}` is a keyword and cannot be a name"))
                .primary(self.span(found), "expected a name")
                .help(format!("choose another name, such as `{word}_`"))
        })
    }

    fn equals(&self, before: usize, found: usize) -> Option<Diagnostic> {
        if self.word(found) == "==" && self.expects(&[Rule::eq]) {
            return Some(
                Diagnostic::error("E0012", "`==` compares, it does not define")
                    .primary(self.span(found), "expected `=`")
                    .help("a definition is written with `=`"),
            );
        }
        if self.word(found) != "=" || !self.expects(&[Rule::infix]) {
            return None;
        }
        let inside = matches!(self.line_word(found), "require" | "if")
            || self.innermost(found).is_some_and(|open| self.word(open) != "{");
        let diagnostic = if inside {
            Diagnostic::error("E0012", "`=` defines, it does not compare")
                .primary(self.span(found), "expected `==` here")
                .help("a comparison is written with `==`")
        } else {
            Diagnostic::error("E0001", "a second `=` in one definition")
                .primary(self.span(found), format!("`{}` belongs to the expression before it", self.word(before)))
                .help("define one name with each `=`; if a new definition starts here, finish the one before it")
        };
        Some(diagnostic)
    }

    /// The innermost bracket that is open at this token.
    fn innermost(&self, index: usize) -> Option<usize> {
        let mut closed = 0;
        for at in (0..index).rev() {
            match self.word(at) {
                ")" | "]" | "}" => closed += 1,
                "(" | "[" | "{" if closed == 0 => return Some(at),
                "(" | "[" | "{" => closed -= 1,
                _ => {}
            }
        }
        None
    }

    /// The token that opens the round bracket that closes here.
    fn opening(&self, close: usize) -> Option<usize> {
        let mut open = 0i32;
        for at in (0..=close).rev() {
            match self.word(at) {
                ")" | "]" | "}" => open += 1,
                "(" | "[" | "{" => {
                    open -= 1;
                    if open == 0 {
                        return Some(at);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The word directly before the bracket group that ends at this token.
    fn group_head(&self, close: usize) -> Option<usize> {
        if self.word(close) != ")" {
            return None;
        }
        let opening = self.opening(close)?;
        let head = opening.checked_sub(1)?;
        let (head_token, open_token) = (self.scan.tokens[head], self.scan.tokens[opening]);
        (head_token.kind == TokenKind::Word && head_token.end == open_token.start).then_some(head)
    }

    fn missing_body(&self, before: usize, found: usize) -> Option<Diagnostic> {
        let head = self.group_head(before)?;
        let name = self.word(head);
        if !REDUCTIONS.contains(&name) || !self.expects_operand() {
            return None;
        }
        let group = self.span(head).to(self.span(before));
        let written = &self.text[group.start as usize..group.end as usize];
        let diagnostic = Diagnostic::error("E0009", format!("the reduction `{written}` has no body"))
            .primary(group, format!("expected an expression after it, found `{}`", self.word(found)));
        Some(match name {
            "max" => diagnostic.help("the larger of two values is written `maximum(a, b)`"),
            "min" => diagnostic.help("the smaller of two values is written `minimum(a, b)`"),
            _ => diagnostic.help(format!("write what is reduced after the indices: `{name}(j) x[j]`")),
        })
    }

    fn spaced_call(&self, before: usize, found: usize) -> Option<Diagnostic> {
        let (head, open) = (self.scan.tokens[before], self.scan.tokens[found]);
        let spaced = self.word(found) == "(" && head.kind == TokenKind::Word && head.end < open.start;
        if !spaced || is_keyword(self.word(before)) || !self.expects(&[Rule::infix]) || !self.same_line(before, found) {
            return None;
        }
        let name = self.word(before);
        Some(
            Diagnostic::error("E0001", format!("`(` does not continue `{name}`"))
                .primary(self.span(found), "a space stands before this bracket")
                .help(format!("a call, reduction or normaliser is written without the space: `{name}(...)`")),
        )
    }

    fn unknown_reduction(&self, before: usize, found: usize) -> Option<Diagnostic> {
        let head = self.group_head(before)?;
        let token: Token = self.scan.tokens[found];
        let operand = matches!(token.kind, TokenKind::Word | TokenKind::Number) || self.word(found) == "(";
        if !operand || is_keyword(self.word(found)) || !self.same_line(before, found) || !self.expects(&[Rule::infix]) {
            return None;
        }
        let name = self.word(head);
        Some(
            Diagnostic::error("E0013", format!("`{name}` is not a reduction"))
                .primary(self.span(head), "an expression follows its brackets, as only a reduction's body does")
                .secondary(self.span(found), "this")
                .help(format!("the reductions are {}", REDUCTIONS.join(", ")))
                .help("if it is a function or submodule, put an operator between the call and what follows"),
        )
    }

    /// Statements among members and the other way round.
    fn misplaced_member(&self, before: usize, found: usize) -> Option<Diagnostic> {
        let word = self.word(found);
        let in_forward = self.expected.iter().any(|&rule| describe(rule) == "a statement");
        let in_module = self.expected.iter().any(|&rule| describe(rule) == "a declaration");
        if in_forward && matches!(word, "require" | "axis" | "index" | "forward") {
            return Some(
                Diagnostic::error("E0001", format!("`{word}` stands inside `forward`"))
                    .primary(self.span(found), "expected a statement")
                    .help("declarations come before `forward`, directly in the module"),
            );
        }
        if in_module && matches!(word, "return" | "update" | "expose" | "(") {
            return Some(
                Diagnostic::error("E0001", format!("`{word}` stands outside `forward`"))
                    .primary(self.span(found), "expected a declaration")
                    .help("statements go into the body of `forward`"),
            );
        }
        if self.word(before) == "=" && self.expects(&[Rule::name, Rule::constructor]) && !self.expects_operand() {
            return Some(
                Diagnostic::error("E0001", "a declaration without `let` makes a submodule")
                    .primary(self.span(found), "expected a module and its arguments, such as `Linear(C, C)`")
                    .help(
                        "a compile-time value is written `let name = ...`; what depends on inputs goes into `forward`",
                    ),
            );
        }
        None
    }

    fn general(&self) -> Diagnostic {
        let expected = words(self.expected);
        let found = match self.found {
            Some(found) => match self.scan.tokens[found].kind {
                TokenKind::Text => "a string".to_owned(),
                TokenKind::Number => format!("the number {}", self.word(found)),
                TokenKind::Word if is_keyword(self.word(found)) => format!("the keyword `{}`", self.word(found)),
                _ => format!("`{}`", self.word(found)),
            },
            None => "the end of the file".to_owned(),
        };
        let message = if expected.is_empty() {
            format!("unexpected {found}")
        } else {
            format!("expected {}, found {found}", join(&expected))
        };
        let diagnostic = Diagnostic::error("E0001", message);
        let diagnostic = match (self.found, self.before()) {
            (Some(found), Some(before)) if !self.same_line(before, found) => {
                diagnostic.primary(self.span(found), "found here").secondary(self.span(before), "expected after this")
            }
            (Some(found), _) => diagnostic.primary(self.span(found), ""),
            (None, Some(before)) => diagnostic.primary(self.span(before), "the file ends after this"),
            (None, None) => diagnostic.primary(Span { file: self.file, start: 0, end: 0 }, ""),
        };
        match self.help() {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }

    fn help(&self) -> Option<String> {
        let found = self.found.map(|found| self.word(found)).unwrap_or("");
        let item = self.expected.iter().any(|&rule| describe(rule) == "an item");
        let declared = self.before().is_some_and(|before| self.line_has(before, &["param", "state"]));
        let help = if item {
            "at the top of a file stand imports, modules (`module`, `model`, `loss`, `optimizer`), `fn`s and recipes"
        } else if self.expects(&[Rule::kw_param]) {
            "a parameter is declared as `w: param[C, 1] = zeros`, a state as `m: state[C] = zeros`"
        } else if self.expects(&[Rule::results]) || self.expects(&[Rule::arrow]) {
            "the signature is `forward(x[Grid, C]) -> [Grid, C] { ... }`"
        } else if self.expects(&[Rule::kw_then, Rule::kw_else]) {
            "a choice of values is written `if c then a else b`"
        } else if self.expects(&[Rule::params]) {
            "parameters stand in brackets after the name, also when there are none: `module Name() { ... }`"
        } else if self.expects(&[Rule::range]) {
            "a loop is written `for m in 0..depth { ... }`"
        } else if self.expects(&[Rule::eq]) && declared {
            "parameters and states have an initial value: `w: param[C] = zeros`"
        } else if self.expects(&[Rule::eq]) && found == ":" {
            "in `forward` a definition is written `name[i, j] = ...`; parameters are declared before `forward`"
        } else {
            return None;
        };
        Some(help.to_owned())
    }
}
