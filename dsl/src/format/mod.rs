//! The one canonical style.
//!
//! Four spaces a step, one statement a line, at most one empty line, lines of at most 110 columns where they can be
//! broken inside brackets or before an operator, no brackets that binding strength makes superfluous. Comments stay.

mod comments;
mod doc;
mod expressions;
mod items;
mod statements;

use crate::ast::File;
use crate::diagnostic::Diagnostic;
use crate::parse::parse;
use crate::parse::scan::Scan;
use comments::Comments;
use doc::{Doc, layout};

/// The text in canonical style. Formatting again changes nothing, and the tree stays the same but for its spans.
///
/// # Errors
/// The diagnostics of a text that does not parse; their spans are in file 0.
pub fn format(text: &str) -> Result<String, Vec<Diagnostic>> {
    let (file, diagnostics) = parse(0, text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let scan = Scan::new(0, text);
    Ok(Printer { comments: Comments::new(text, &scan) }.print(&file))
}

/// A tree as text in canonical style, with the documentation of its items and no other comments.
///
/// [`parse`] reads it back as the same tree but for the spans, provided that the tree is one that a text can have:
/// numbers are not negative, tuples have two parts or more, names are names.
pub fn print(file: &File) -> String {
    Printer { comments: Comments::none() }.print(file)
}

/// Walks the tree in the order of the text.
struct Printer<'t> {
    comments: Comments<'t>,
}

impl Printer<'_> {
    fn print(mut self, file: &File) -> String {
        let parts = self.file(file);
        layout(&parts)
    }

    /// A bracketed list. `start` gives the places of the parts, `close` that of the closing bracket; broken, each part
    /// has a line of its own.
    fn list<T>(
        &mut self,
        out: &mut Vec<Doc>,
        [open, closing]: [&str; 2],
        parts: &[T],
        close: u32,
        start: impl Fn(&T) -> u32,
        mut print: impl FnMut(&mut Self, &T, &mut Vec<Doc>),
    ) {
        if parts.is_empty() {
            out.push(Doc::text(format!("{open}{closing}")));
            return;
        }
        let mut inner = Vec::new();
        for (position, part) in parts.iter().enumerate() {
            if position > 0 {
                inner.push(Doc::text(","));
            }
            self.comments.inside(start(part), &mut inner);
            inner.push(if position > 0 { Doc::Line } else { Doc::SoftLine });
            print(self, part, &mut inner);
        }
        if parts.len() > 1 {
            inner.push(Doc::IfBroken(",", ""));
        }
        self.comments.inside(close, &mut inner);
        out.push(Doc::group(vec![Doc::text(open), Doc::Indent(inner), Doc::SoftLine, Doc::text(closing)]));
    }

    /// A list of lines, each after a line break, with the comments above and behind them. `place` gives where a line
    /// starts and ends, `close` is where what follows the list starts, `blank` tells whether an empty line stands above.
    fn lines<T>(
        &mut self,
        out: &mut Vec<Doc>,
        parts: &[T],
        close: u32,
        place: impl Fn(&T) -> (u32, u32),
        blank: impl Fn(usize) -> Blank,
        mut print: impl FnMut(&mut Self, &T, &mut Vec<Doc>),
    ) {
        for (position, part) in parts.iter().enumerate() {
            let (start, end) = place(part);
            let commented = self.comments.above(start, blank(position), out);
            let blank = if commented { Blank::Keep } else { blank(position) };
            if blank == Blank::Force || (blank == Blank::Keep && self.comments.blank_above(start)) {
                out.push(Doc::Blank);
            }
            out.push(Doc::HardLine);
            print(self, part, out);
            let next = parts.get(position + 1).map_or(close, |next| place(next).0);
            self.comments.behind(end, next, out);
        }
    }

    /// A block of lines in braces, after a space; `close` is the place of its closing brace.
    fn block<T>(
        &mut self,
        out: &mut Vec<Doc>,
        parts: &[T],
        close: u32,
        place: impl Fn(&T) -> (u32, u32),
        print: impl FnMut(&mut Self, &T, &mut Vec<Doc>),
    ) {
        if parts.is_empty() && !self.comments.pending(close) {
            out.push(Doc::text(" {}"));
            return;
        }
        out.push(Doc::text(" {"));
        self.comments.behind_brace(parts.first().map_or(close, |part| place(part).0), out);
        let mut inner = Vec::new();
        let blank = |position| if position == 0 { Blank::Never } else { Blank::Keep };
        self.lines(&mut inner, parts, close, place, blank, print);
        self.comments.above(close, blank(parts.len()), &mut inner);
        out.extend([Doc::Indent(inner), Doc::HardLine, Doc::text("}")]);
    }
}

/// Whether an empty line stands above a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blank {
    /// None, whatever the text has.
    Never,
    /// One if the text has some.
    Keep,
    /// One in any case.
    Force,
}
