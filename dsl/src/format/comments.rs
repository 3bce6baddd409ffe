//! Where comments go.
//!
//! Comments are not in the tree. Since everything is printed in the order of the text, the printer keeps a position in
//! the list of comments and sets those that come before the next thing: between statements, and inside a statement
//! at commas, operators and closing brackets. A comment between other tokens moves on to the next such place.

use super::Blank;
use super::doc::Doc;
use crate::ast::Span;
use crate::parse::scan::{Scan, starts_line};

/// A comment of the text that is being formatted.
struct Comment {
    start: u32,
    text: String,
    /// Whether nothing but blanks stands before it on its line.
    own_line: bool,
    /// Whether an empty line stands above it.
    blank_above: bool,
}

/// The comments of a text and how many of them have been set.
pub(super) struct Comments<'t> {
    text: &'t str,
    scan: Option<&'t Scan>,
    all: Vec<Comment>,
    next: usize,
}

impl<'t> Comments<'t> {
    /// For a tree that comes from no text.
    pub(super) fn none() -> Comments<'t> {
        Comments { text: "", scan: None, all: Vec::new(), next: 0 }
    }

    pub(super) fn new(text: &'t str, scan: &'t Scan) -> Comments<'t> {
        let all = scan.comments.iter().map(|range| Comment {
            start: range.start as u32,
            text: text[range.clone()].to_owned(),
            own_line: starts_line(text, range.start),
            blank_above: blank_above(text, range.start),
        });
        Comments { text, scan: Some(scan), all: all.collect(), next: 0 }
    }

    /// Whether the tree comes from a text, so that spans mean something.
    pub(super) fn has_text(&self) -> bool {
        self.scan.is_some()
    }

    fn take(&mut self, before: u32) -> Option<&Comment> {
        let comment = self.all.get(self.next).filter(|comment| comment.start < before)?;
        self.next += 1;
        Some(comment)
    }

    /// Sets the comments before this byte at a place inside a statement where a break follows.
    pub(super) fn inside(&mut self, before: u32, out: &mut Vec<Doc>) {
        let mut first = true;
        while let Some(comment) = self.take(before) {
            if comment.own_line || !first {
                out.push(Doc::HardLine);
                out.push(Doc::Text(plain(&comment.text)));
            } else {
                out.push(Doc::Trailing(plain(&comment.text)));
            }
            first = false;
        }
    }

    /// Sets a comment behind the statement that ends here: one that found no place inside it, or one on its last line,
    /// before what starts at `next`. Other comments from inside will stand above what follows.
    pub(super) fn behind(&mut self, end: u32, next: u32, out: &mut Vec<Doc>) {
        let Some(comment) = self.all.get(self.next) else { return };
        let trailing = comment.start < next && !comment.own_line && self.same_line(end, comment.start);
        if trailing || comment.start < end {
            out.push(Doc::Trailing(plain(&comment.text)));
            self.next += 1;
        }
        for displaced in self.all[self.next..].iter_mut().take_while(|comment| comment.start < end) {
            displaced.text = plain(&displaced.text);
        }
    }

    /// Sets the comment on the line of an opening brace, given where the first thing in the block starts.
    pub(super) fn behind_brace(&mut self, first: u32, out: &mut Vec<Doc>) {
        if self.all.get(self.next).is_some_and(|comment| !comment.own_line)
            && let Some(comment) = self.take(first)
        {
            out.push(Doc::Trailing(plain(&comment.text)));
        }
    }

    /// Sets the comments above something in a list of lines, each after a line break; `blank` is for the
    /// first. Tells whether anything was set.
    pub(super) fn above(&mut self, before: u32, mut blank: Blank, out: &mut Vec<Doc>) -> bool {
        let mut any = false;
        while let Some(comment) = self.take(before) {
            if blank == Blank::Force || (blank == Blank::Keep && comment.blank_above) {
                out.push(Doc::Blank);
            }
            out.push(Doc::HardLine);
            out.push(Doc::Text(comment.text.clone()));
            blank = Blank::Keep;
            any = true;
        }
        any
    }

    /// Whether a comment stands before this byte that has not been set.
    pub(super) fn pending(&self, before: u32) -> bool {
        self.all.get(self.next).is_some_and(|comment| comment.start < before)
    }

    /// Whether an empty line stands directly above this byte.
    pub(super) fn blank_above(&self, at: u32) -> bool {
        self.has_text() && blank_above(self.text, at as usize)
    }

    /// The end of the first two tokens, which are the version line; 0 without a text.
    pub(super) fn version_line(&self) -> (u32, u32) {
        match self.scan.map(|scan| scan.tokens.as_slice()) {
            Some([word, number, ..]) => (word.start as u32, number.end as u32),
            _ => (0, 0),
        }
    }

    /// The place of the bracket that closes the first bracket at or after this byte.
    pub(super) fn close_after(&self, at: u32) -> u32 {
        let Some(scan) = self.scan else { return 0 };
        let first = scan.tokens.partition_point(|token| (token.start as u32) < at);
        let mut open = 0;
        for token in &scan.tokens[first..] {
            match &self.text[token.start..token.end] {
                "(" | "[" | "{" => open += 1,
                ")" | "]" | "}" if open <= 1 => return token.start as u32,
                ")" | "]" | "}" => open -= 1,
                _ => {}
            }
        }
        self.text.len() as u32
    }

    /// The number in this place as it is written.
    pub(super) fn number(&self, span: Span) -> Option<&'t str> {
        let scan = self.scan?;
        let first = scan.tokens.partition_point(|token| (token.start as u32) < span.start);
        // Brackets around a number belong to its place.
        let token = scan.tokens[first..].iter().find(|token| !matches!(&self.text[token.start..token.end], "("))?;
        (token.end as u32 <= span.end).then(|| &self.text[token.start..token.end])
    }

    fn same_line(&self, first: u32, second: u32) -> bool {
        self.text.get(first as usize..second as usize).is_some_and(|between| !between.contains('\n'))
    }
}

/// A comment that is not above an item documents nothing; so that it does not come to stand above one and document it,
/// it loses the third slash.
fn plain(text: &str) -> String {
    match text.strip_prefix("///") {
        Some(rest) => format!("//{rest}"),
        None => text.to_owned(),
    }
}

fn blank_above(text: &str, at: usize) -> bool {
    let before = &text[..at];
    let blanks = &before[before.trim_end_matches([' ', '\t', '\r', '\n']).len()..];
    blanks.bytes().filter(|&byte| byte == b'\n').count() > 1
}
