//! What the compiler has to say about a text: diagnostics, and the map of the texts they point into.
//!
//! A [`Diagnostic`] is data: a stable code of the registry ([`crate::codes`]), a message, places with
//! remarks, and what to do about it. How it looks is the matter of [`crate::render`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ast::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The program can be compiled, but probably does not do what its author meant.
    Warning,
    /// The program cannot be compiled.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// A place and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The text it points at.
    pub span: Span,
    /// A short remark; may be empty.
    pub text: String,
    /// Whether this is where the problem is, or a place that explains it.
    pub primary: bool,
}

/// One finding about a source text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The stable code, such as `E0101`; every one is in [`crate::codes::CODES`].
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence: what is wrong, what was expected, what was found.
    pub message: String,
    /// Where; the first primary label is the place of the diagnostic.
    pub labels: Vec<Label>,
    /// Facts that explain it (values of sizes, definitions).
    pub notes: Vec<String>,
    /// What to do about it.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error without a place; add one with [`Diagnostic::primary`].
    pub fn error(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Error, code, message)
    }

    /// A warning without a place; add one with [`Diagnostic::primary`].
    pub fn warning(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Warning, code, message)
    }

    fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, severity, message: message.into(), labels: Vec::new(), notes: Vec::new(), help: Vec::new() }
    }

    /// Adds a place where the problem is; `text` may be empty.
    pub fn primary(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push(Label { span, text: text.into(), primary: true });
        self
    }

    /// Adds a place that explains the problem.
    pub fn secondary(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push(Label { span, text: text.into(), primary: false });
        self
    }

    /// Adds a fact.
    pub fn note(mut self, text: impl Into<String>) -> Diagnostic {
        self.notes.push(text.into());
        self
    }

    /// Adds advice.
    pub fn help(mut self, text: impl Into<String>) -> Diagnostic {
        self.help.push(text.into());
        self
    }

    /// Where it is: the first primary label, or else the first label.
    pub fn span(&self) -> Option<Span> {
        self.labels.iter().find(|label| label.primary).or(self.labels.first()).map(|label| label.span)
    }

    /// Whether it stops compilation.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// One text with its name.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// What messages call it: a path, or a name such as `prelude`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// The texts of one compilation; [`Span::file`] is an index into it.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

impl SourceMap {
    /// A map without files.
    pub fn new() -> SourceMap {
        SourceMap::default()
    }

    /// Adds a text and returns its number.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> u32 {
        self.files.push(SourceFile { name: name.into(), text: text.into() });
        (self.files.len() - 1) as u32
    }

    /// The file with this number.
    pub fn file(&self, file: u32) -> Option<&SourceFile> {
        self.files.get(file as usize)
    }

    /// All files in the order of their numbers.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The text under a span, cut to the file; empty where the file is unknown.
    pub fn snippet(&self, span: Span) -> &str {
        let Some(file) = self.file(span.file) else { return "" };
        let range = clamp(&file.text, span);
        &file.text[range]
    }

    /// Line and column of the first byte of a span, both from 1; columns count characters.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        self.file(span.file).map_or((1, 1), |file| line_column(&file.text, span.start as usize))
    }
}

/// The byte range of a span, cut to whole characters of the text.
pub(crate) fn clamp(text: &str, span: Span) -> std::ops::Range<usize> {
    let floor = |at: u32| {
        let mut at = (at as usize).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// Line and column (from 1, in characters) of a byte of a text.
pub(crate) fn line_column(text: &str, byte: usize) -> (usize, usize) {
    let at = Span { file: 0, start: byte as u32, end: byte as u32 };
    let before = &text[..clamp(text, at).start];
    let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    (line, column)
}
