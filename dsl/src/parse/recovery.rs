//! What to leave out after an error, so that the rest of the file can still be read.

use std::ops::Range;

use super::scan::{Scan, TokenKind, is_keyword, starts_line};

/// The bytes to blank for an error at this byte: the statement, member, recipe entry or item around it.
///
/// `None` if there is nothing to blank.
pub(super) fn region(text: &str, scan: &Scan, at: usize) -> Option<Range<usize>> {
    let tokens = &scan.tokens;
    let last = tokens.len().checked_sub(1)?;
    let blamed = tokens.partition_point(|token| token.end <= at).min(last);
    let (start, outermost) = chunk_start(text, scan, blamed);
    let end = chunk_end(text, scan, start, outermost);
    Some(tokens[start].start..tokens[end].end)
}

/// The same text with every byte of the region but its line breaks made a space.
pub(super) fn blank(text: &str, region: Range<usize>) -> String {
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..region.start]);
    for byte in text[region.clone()].bytes() {
        out.push(if byte == b'\n' { '\n' } else { ' ' });
    }
    out.push_str(&text[region.end..]);
    out
}

/// The first token of the innermost chunk that holds this token, and whether that chunk stands in no block.
fn chunk_start(text: &str, scan: &Scan, blamed: usize) -> (usize, bool) {
    // Per open bracket: whether it is a brace (or the file), and where its current chunk starts.
    let mut open: Vec<(bool, Option<usize>)> = vec![(true, None)];
    for index in 0..=blamed {
        let token = scan.tokens[index];
        let written = &text[token.start..token.end];
        if scan.starts_item(text, index) {
            open.truncate(1);
        }
        // As at a chunk's end, an open round or square bracket does not reach past a line that starts like a statement.
        while open.last().is_some_and(|(brace, _)| !brace) && token.kind == TokenKind::Word {
            let outer = open.iter().rev().find_map(|(brace, start)| brace.then_some(*start).flatten());
            let dedented = outer.is_some_and(|start| {
                starts_line(text, token.start) && column(text, token.start) <= column(text, scan.tokens[start].start)
            });
            if !dedented {
                break;
            }
            open.pop();
        }
        let outermost = open.len() == 1;
        if let Some((true, start)) = open.last_mut()
            && starts_chunk(text, scan, index, outermost)
        {
            *start = Some(index);
        }
        if index == blamed {
            break;
        }
        match written {
            "{" => open.push((true, None)),
            "(" | "[" => open.push((false, None)),
            "}" => {
                // A brace closes every bracket that was left open inside it.
                while open.len() > 1 && open.pop().is_some_and(|(brace, _)| !brace) {}
            }
            ")" | "]" if open.last().is_some_and(|(brace, _)| !brace) => {
                open.pop();
            }
            _ => {}
        }
    }
    let blocks = open.iter().enumerate().rev().filter(|(_, (brace, _))| *brace);
    blocks.filter_map(|(depth, (_, start))| Some(((*start)?, depth == 0))).next().unwrap_or((0, true))
}

/// The last token of the chunk that starts here.
fn chunk_end(text: &str, scan: &Scan, start: usize, outermost: bool) -> usize {
    let mut open: Vec<bool> = Vec::new();
    let indentation = column(text, scan.tokens[start].start);
    for index in start..scan.tokens.len() {
        let token = scan.tokens[index];
        let written = &text[token.start..token.end];
        if index > start {
            // A round or square bracket that was left open does not reach past a line that is indented no more than
            // the statement and starts with a word.
            let dedented = open.last() == Some(&false)
                && token.kind == TokenKind::Word
                && starts_line(text, token.start)
                && column(text, token.start) <= indentation;
            let next = open.is_empty() && starts_chunk(text, scan, index, outermost);
            if dedented || next || scan.starts_item(text, index) {
                return index - 1;
            }
        }
        match written {
            "{" => open.push(true),
            "(" | "[" => open.push(false),
            "}" => {
                if index > start && !outermost && !open.contains(&true) {
                    return index - 1;
                }
                while open.pop().is_some_and(|brace| !brace) {}
            }
            ")" | "]" if open.last() == Some(&false) => {
                open.pop();
            }
            _ => {}
        }
    }
    scan.tokens.len() - 1
}

/// Whether a statement, member, entry or item seems to start at this token. Round brackets are the caller's matter.
fn starts_chunk(text: &str, scan: &Scan, index: usize, outermost: bool) -> bool {
    let word = |index: usize| &text[scan.tokens[index].start..scan.tokens[index].end];
    let written = word(index);
    let Some(before) = index.checked_sub(1).map(word) else { return true };
    if scan.starts_item(text, index) {
        return true;
    }
    if outermost {
        return before == "}" && !matches!(written, "else" | "{" | "}");
    }
    if before == "{" {
        return written != "}";
    }
    const OPERATORS: &[&str] = &[
        "+", "-", "*", "/", "%", "^", "=", "==", "!=", "<", "<=", ">", ">=", ",", ":", "|", "->", ".", "..", "or",
        "and", "not", "div", "if", "then", "else", "in", "where", "return",
    ];
    const STATEMENTS: &[&str] = &["let", "return", "require", "axis", "index", "forward", "expose", "update", "for"];
    let continued = OPERATORS.contains(&before);
    let line = starts_line(text, scan.tokens[index].start);
    // These start a statement even behind an unfinished one, but not where a name should stand.
    if STATEMENTS.contains(&written) && (line || !(continued || is_keyword(before))) {
        return true;
    }
    let inner = matches!(written, "or" | "and" | "div" | "then" | "else" | "in" | "where");
    let starts = (scan.tokens[index].kind == TokenKind::Word && !inner) || written == "(";
    starts && (before == "}" || (line && !continued))
}

/// How far a byte is from the start of its line.
fn column(text: &str, at: usize) -> usize {
    at - text[..at].rfind('\n').map_or(0, |line| line + 1)
}
