//! A quick look at the characters before the grammar runs: tokens, comments, brackets.
//!
//! The grammar decides what is well formed. The scan finds what the grammar would explain badly: characters that are
//! not in the language, numbers and strings that do not end well, and brackets that do not pair up.

use std::ops::Range;

use super::MAX_NESTING;
use crate::ast::Span;
use crate::diagnostic::Diagnostic;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name or keyword.
    Word,
    /// A number or sizes (`14x14`).
    Number,
    /// A string.
    Text,
    /// An operator or bracket.
    Sign,
}

/// A token's kind and byte range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What is wrong, and the byte where recovery starts.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) diagnostic: Diagnostic,
    pub(crate) at: usize,
}

/// Tokens and comments of a text, and its first lexical problem.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) tokens: Vec<Token>,
    /// Byte ranges of the comments, from the slashes to the line's end.
    pub(crate) comments: Vec<Range<usize>>,
    pub(crate) problem: Option<Problem>,
}

/// Signs of two characters; the longest match wins.
const PAIRS: [&str; 6] = ["==", "!=", "<=", ">=", "->", ".."];

impl Scan {
    /// Scans a text; tokens are complete even when there is a problem.
    pub(crate) fn new(file: u32, text: &str) -> Scan {
        let mut scan = Scan { tokens: Vec::new(), comments: Vec::new(), problem: None };
        let bytes = text.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let rest = &text[at..];
            let length = match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    at += 1;
                    continue;
                }
                b'/' if rest.starts_with("//") => {
                    let length = rest.find('\n').unwrap_or(rest.len());
                    scan.comments.push(at..at + rest[..length].trim_end().len());
                    at += length;
                    continue;
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => scan.push(TokenKind::Word, at, word_length(bytes, at)),
                b'0'..=b'9' => {
                    // After a dot or a computed piece digits belong to a path (`se_fc.0`), and letters may follow them.
                    let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
                    let segment = before == b'}' || (before == b'.' && !text[..at].ends_with(".."));
                    let length = if segment { word_length(bytes, at) } else { scan.number(file, text, at) };
                    scan.push(TokenKind::Number, at, length)
                }
                b'"' => {
                    let length = scan.string(file, text, at);
                    scan.push(TokenKind::Text, at, length)
                }
                _ if PAIRS.iter().any(|pair| rest.starts_with(pair)) => scan.push(TokenKind::Sign, at, 2),
                b'(' | b')' | b'[' | b']' | b'{' | b'}' | b',' | b':' | b'|' | b'=' | b'.' | b'+' | b'-' | b'*'
                | b'/' | b'%' | b'^' | b'<' | b'>' => {
                    scan.wrong_sign(file, rest, at);
                    scan.push(TokenKind::Sign, at, 1)
                }
                _ => scan.odd_character(file, rest, at),
            };
            at += length;
        }
        if scan.problem.is_none() {
            scan.brackets(file, text);
        }
        scan
    }

    fn push(&mut self, kind: TokenKind, start: usize, length: usize) -> usize {
        self.tokens.push(Token { kind, start, end: start + length });
        length
    }

    fn report(&mut self, at: usize, diagnostic: Diagnostic) {
        if self.problem.is_none() {
            self.problem = Some(Problem { diagnostic, at });
        }
    }

    /// The length of a number, with the letters that wrongly follow it.
    fn number(&mut self, file: u32, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = start + digits(start);
        if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
            end += 1 + digits(end + 1);
        } else {
            while bytes.get(end) == Some(&b'x') && digits(end + 1) > 0 {
                end += 1 + digits(end + 1);
            }
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if end + 1 + sign < bytes.len() && digits(end + 1 + sign) > 0 {
                end += 1 + sign + digits(end + 1 + sign);
            }
        }
        let tail = word_length(bytes, end);
        let sizes_then_exponent = text[start..end].contains('x') && text[start..end].contains(['e', 'E']);
        if tail > 0 || sizes_then_exponent {
            let written = &text[start..end + tail];
            let number = &text[start..end];
            let letters = &text[end..end + tail];
            let help = if letters.starts_with('x') {
                "write sizes as `14x14`, a product of axes as `A x B` with spaces".to_owned()
            } else {
                format!("for a product write `{number} * {letters}`; a name cannot start with a digit")
            };
            let span = Span { file, start: start as u32, end: (end + tail) as u32 };
            self.report(
                start,
                Diagnostic::error("E0007", format!("`{written}` is neither a number nor a name"))
                    .primary(span, "a number ends before this letter or is followed by an operator")
                    .help(help),
            );
        }
        end + tail - start
    }

    /// The length of a string; an open one ends with its line.
    fn string(&mut self, file: u32, text: &str, start: usize) -> usize {
        let mut escaped = false;
        for (offset, character) in text[start + 1..].char_indices() {
            match character {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return offset + 2,
                _ => {}
            }
        }
        let length = text[start..].find('\n').unwrap_or(text.len() - start);
        self.report(
            start,
            Diagnostic::error("E0008", "this string does not end on its line")
                .primary(Span { file, start: start as u32, end: (start + length) as u32 }, "opened here")
                .help("close it with `\"`; a line break inside is written \\n"),
        );
        length
    }

    /// Reports operators of other languages that are made of signs this one has.
    fn wrong_sign(&mut self, file: u32, rest: &str, at: usize) {
        let (found, help) = match rest.as_bytes() {
            [b'*', b'*', ..] => ("**", "a power is written `x ^ 2`"),
            [b'|', b'|', ..] => ("||", "write `or`"),
            [b'+' | b'-' | b'*' | b'/' | b'%', b'=', ..] => {
                (&rest[..2], "names are defined once; write the whole definition, or `update` for a state")
            }
            _ => return,
        };
        let span = Span { file, start: at as u32, end: at as u32 + 2 };
        self.report(
            at,
            Diagnostic::error("E0003", format!("`{found}` is not an operator")).primary(span, "").help(help),
        );
    }

    /// Reports a character that is in no token and returns its length.
    fn odd_character(&mut self, file: u32, rest: &str, at: usize) -> usize {
        let character = rest.chars().next().unwrap_or(' ');
        let help = match character {
            ';' => "statements need no terminator; remove it",
            '#' => "comments start with `//`",
            '\'' | '‘' | '’' | '“' | '”' | '„' => "strings stand in straight double quotes: \"text\"",
            '&' => "write `and`",
            '!' => "write `not`; unequal is `!=`",
            '×' => "a product of axes is written `A x B`, a product of numbers `a * b`",
            '·' | '∙' | '⋅' => "a product is written `a * b`",
            '−' | '–' | '—' => "the minus sign is `-`",
            '≤' => "write `<=`",
            '≥' => "write `>=`",
            '≠' => "write `!=`",
            '∑' | 'Σ' => "a sum is written `sum(j) ...`",
            '∏' | 'Π' => "a product over an index is written `prod(j) ...`",
            '√' => "write `sqrt(x)`",
            '→' => "write `->`",
            '∞' => "write `inf`",
            'π' => "write `pi`",
            '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{feff}' | '\u{200b}' => {
                "it looks like a space but is not one; replace it by a plain space"
            }
            '@' => "a matrix product is written with its indices: `sum(d) a[i, d] * b[d, j]`",
            '?' => "a choice is written `if c then a else b`",
            character if character.is_alphabetic() => "names are made of the letters a to z, digits and `_`",
            _ => "remove it",
        };
        let shown = if character.is_control() || character.is_whitespace() || character == '\u{feff}' {
            format!("U+{:04X}", u32::from(character))
        } else {
            character.to_string()
        };
        let span = Span { file, start: at as u32, end: (at + character.len_utf8()) as u32 };
        self.report(
            at,
            Diagnostic::error("E0003", format!("the character `{shown}` is not part of the language"))
                .primary(span, "")
                .help(help),
        );
        character.len_utf8()
    }

    /// Checks that brackets pair up and do not nest too deeply.
    fn brackets(&mut self, file: u32, text: &str) {
        // The open brackets, each with the number of `if`s read since (an `if` nests without a bracket).
        let mut open: Vec<(Token, usize)> = Vec::new();
        let mut ifs = 0;
        let mut depth = 0;
        let mut found = None;
        // The first block that ends with less indentation than it began: where a brace is missing, most likely.
        let mut dedented = None;
        for (index, &token) in self.tokens.iter().enumerate() {
            let span = Span { file, start: token.start as u32, end: token.end as u32 };
            let written = &text[token.start..token.end];
            match written {
                // No item stands inside another, so the start of one ends whatever is open.
                _ if !open.is_empty() && self.starts_item(text, index) => break,
                "(" | "[" | "{" => {
                    depth += 1 + ifs;
                    open.push((token, std::mem::take(&mut ifs)));
                }
                ")" | "]" | "}" => {
                    let in_block =
                        written != "}" && open.last().is_some_and(|(token, _)| &text[token.start..token.end] == "{");
                    let Some((opening, outer_ifs)) = open.pop().filter(|_| !in_block) else {
                        let diagnostic = Diagnostic::error("E0005", format!("`{written}` closes nothing"))
                            .primary(span, "no bracket is open here")
                            .help("remove it, or open the bracket before it");
                        found = Some(Problem { diagnostic, at: token.start });
                        break;
                    };
                    let sign = &text[opening.start..opening.end];
                    if closing(sign) != written {
                        let diagnostic = unclosed(file, opening, sign)
                            .secondary(span, format!("`{written}` comes before `{}`", closing(sign)));
                        found = Some(Problem { diagnostic, at: opening.start });
                        break;
                    }
                    let closes_line = written == "}" && starts_line(text, token.start);
                    if dedented.is_none()
                        && closes_line
                        && indentation(text, token.start) < indentation(text, opening.start)
                    {
                        dedented = Some((opening, span));
                    }
                    depth -= 1 + outer_ifs;
                    ifs = if written == "}" { 0 } else { outer_ifs };
                }
                "if" => ifs += 1,
                "=" | ":" | "," => ifs = 0,
                _ => {}
            }
            if depth + ifs > MAX_NESTING {
                let diagnostic =
                    Diagnostic::error("E0006", format!("brackets and `if`s nest more than {MAX_NESTING} deep"))
                        .primary(span, "too deep from here")
                        .help("define a part of it under a name of its own");
                found = Some(Problem { diagnostic, at: open.first().map_or(token.start, |(token, _)| token.start) });
                break;
            }
        }
        if found.is_none()
            && let Some(&(opening, _)) = open.last()
        {
            let sign = &text[opening.start..opening.end];
            let diagnostic = match dedented.filter(|(inner, _)| sign == "{" && inner.start > opening.start) {
                Some((inner, close)) => {
                    unclosed(file, inner, sign).secondary(close, "by its indentation this closes something further out")
                }
                None => unclosed(file, opening, sign),
            };
            found = Some(Problem { diagnostic, at: opening.start });
        }
        self.problem = found;
    }

    /// Whether an item or import starts at this token: an item's word at the start of a line, a name, and what follows
    /// an item's name.
    pub(crate) fn starts_item(&self, text: &str, index: usize) -> bool {
        let word = |index: usize| self.tokens.get(index).map_or("", |token| &text[token.start..token.end]);
        let named = self.tokens.get(index + 1).is_some_and(|next| next.kind == TokenKind::Word)
            && !is_keyword(word(index + 1))
            && starts_line(text, self.tokens[index].start);
        match word(index) {
            "import" => named && matches!(word(index + 2), "," | "from"),
            "module" | "model" | "loss" | "optimizer" | "fn" | "recipe" => {
                named && matches!(word(index + 2), "(" | "{")
            }
            _ => false,
        }
    }

    /// The `///` lines that stand directly above the item at this byte, first line first.
    pub(crate) fn doc_comments_above(&self, text: &str, item: usize) -> Vec<Range<usize>> {
        let mut lines = Vec::new();
        let mut below = item;
        let upto = self.comments.partition_point(|comment| comment.end <= item);
        for comment in self.comments[..upto].iter().rev() {
            let gap = &text[comment.end..below];
            let directly = gap.bytes().filter(|&byte| byte == b'\n').count() == 1 && gap.trim().is_empty();
            if !directly || !text[comment.clone()].starts_with("///") || !starts_line(text, comment.start) {
                break;
            }
            below = comment.start;
            lines.push(comment.clone());
        }
        lines.reverse();
        lines
    }
}

fn unclosed(file: u32, opening: Token, sign: &str) -> Diagnostic {
    let span = Span { file, start: opening.start as u32, end: opening.end as u32 };
    Diagnostic::error("E0004", format!("this `{sign}` is not closed"))
        .primary(span, format!("expected a `{}` for it", closing(sign)))
        .help(format!("add `{}` where it ends", closing(sign)))
}

/// The bracket that closes this one.
pub(crate) fn closing(sign: &str) -> &'static str {
    match sign {
        "(" => ")",
        "[" => "]",
        _ => "}",
    }
}

/// Whether only blanks stand before this byte on its line.
pub(crate) fn starts_line(text: &str, at: usize) -> bool {
    text[..at].bytes().rev().find(|byte| !matches!(byte, b' ' | b'\t')).is_none_or(|byte| byte == b'\n')
}

/// How far the line of this byte is indented.
fn indentation(text: &str, at: usize) -> usize {
    let start = text[..at].rfind('\n').map_or(0, |line| line + 1);
    text[start..].bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// Whether a word is one of the language's own everywhere.
pub(crate) fn is_keyword(word: &str) -> bool {
    const KEYWORDS: &[&str] = &[
        "if", "then", "else", "or", "and", "not", "true", "false", "div", "for", "in", "where", "let", "return",
        "require", "axis", "index", "forward", "expose", "update", "import", "fn",
    ];
    KEYWORDS.contains(&word)
}

fn word_length(bytes: &[u8], start: usize) -> usize {
    bytes[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}
