//! Diagnostics as text for people and as data for programs.

use codespan_reporting::diagnostic as codespan;
use codespan_reporting::term::{
    self,
    termcolor::{Ansi, NoColor, WriteColor},
};
use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Severity, SourceMap, clamp, line_column};
use crate::excerpt::Excerpts;

/// The diagnostics as text, each with code, file, line, column, excerpt, notes and help; ANSI colours on request.
pub fn render(diagnostics: &[Diagnostic], sources: &SourceMap, color: bool) -> String {
    if color {
        let mut out = Ansi::new(Vec::new());
        emit_all(diagnostics, sources, &mut out);
        String::from_utf8_lossy(&out.into_inner()).into_owned()
    } else {
        let mut out = NoColor::new(Vec::new());
        emit_all(diagnostics, sources, &mut out);
        let text = String::from_utf8_lossy(&out.into_inner()).into_owned();
        // The renderer pads empty gutter lines; nothing of meaning is at a line's end.
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

fn emit_all(diagnostics: &[Diagnostic], sources: &SourceMap, out: &mut dyn WriteColor) {
    let config = term::Config { chars: term::Chars::ascii(), ..term::Config::default() };
    for diagnostic in diagnostics {
        let files = Excerpts::new(sources.files(), &places(diagnostic, sources));
        // A writer into memory does not fail and the spans are cut to their files, so what is left of a failure is
        // a diagnostic without its excerpt.
        if term::emit(out, &config, &files, &convert(diagnostic, sources, &files)).is_err() {
            let _ = writeln!(out, "{}[{}]: {}", diagnostic.severity, diagnostic.code, diagnostic.message);
        }
    }
}

/// The file and first byte of every label, and its last: those where the problem is come first.
fn places(diagnostic: &Diagnostic, sources: &SourceMap) -> Vec<(usize, usize)> {
    let mut labels: Vec<_> = diagnostic.labels.iter().collect();
    labels.sort_by_key(|label| !label.primary);
    let ends = labels.into_iter().filter_map(|label| {
        let range = clamp(&sources.file(label.span.file)?.text, label.span);
        let file = label.span.file as usize;
        Some([(file, range.start), (file, range.end)])
    });
    ends.flatten().collect()
}

fn convert(diagnostic: &Diagnostic, sources: &SourceMap, files: &Excerpts<'_>) -> codespan::Diagnostic<usize> {
    let severity = match diagnostic.severity {
        Severity::Error => codespan::Severity::Error,
        Severity::Warning => codespan::Severity::Warning,
    };
    let labels = diagnostic.labels.iter().filter_map(|label| {
        let file = sources.file(label.span.file)?;
        let range = clamp(&file.text, label.span);
        let style = if label.primary { codespan::LabelStyle::Primary } else { codespan::LabelStyle::Secondary };
        let id = label.span.file as usize;
        Some(codespan::Label::new(style, id, files.range(id, range)).with_message(&label.text))
    });
    let notes = diagnostic.notes.iter().map(|note| indent("note: ", note));
    let help = diagnostic.help.iter().map(|help| indent("help: ", help));
    codespan::Diagnostic::new(severity)
        .with_code(diagnostic.code)
        .with_message(&diagnostic.message)
        .with_labels(labels.collect())
        .with_notes(notes.chain(help).collect())
}

fn indent(word: &str, text: &str) -> String {
    format!("{word}{}", text.replace('\n', &format!("\n{}", " ".repeat(word.len()))))
}

/// A diagnostic as data, with places as lines and columns (from 1; columns count characters).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonDiagnostic {
    /// The stable code.
    pub code: String,
    /// `error` or `warning`.
    pub severity: Severity,
    /// The file's name; empty where the diagnostic has no place.
    pub file: String,
    /// Line of the first character; 0 where the diagnostic has no place.
    pub line: usize,
    /// Column of the first character; 0 where the diagnostic has no place.
    pub column: usize,
    /// Line of the end.
    pub end_line: usize,
    /// Column one past the last character.
    pub end_column: usize,
    /// What is wrong.
    pub message: String,
    /// All places with their remarks.
    pub labels: Vec<JsonLabel>,
    /// Facts that explain it.
    pub notes: Vec<String>,
    /// What to do about it.
    pub help: Vec<String>,
}

/// A label as data; see [`JsonDiagnostic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct JsonLabel {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
    pub text: String,
    pub primary: bool,
}

/// The diagnostics as data that serialises to JSON.
pub fn to_json(diagnostics: &[Diagnostic], sources: &SourceMap) -> Vec<JsonDiagnostic> {
    diagnostics.iter().map(|diagnostic| json_diagnostic(diagnostic, sources)).collect()
}

fn json_diagnostic(diagnostic: &Diagnostic, sources: &SourceMap) -> JsonDiagnostic {
    let labels: Vec<JsonLabel> = diagnostic
        .labels
        .iter()
        .filter_map(|label| {
            let file = sources.file(label.span.file)?;
            let range = clamp(&file.text, label.span);
            let (line, column) = line_column(&file.text, range.start);
            let (end_line, end_column) = line_column(&file.text, range.end);
            let (text, primary) = (label.text.clone(), label.primary);
            Some(JsonLabel { file: file.name.clone(), line, column, end_line, end_column, text, primary })
        })
        .collect();
    let place = labels.iter().find(|label| label.primary).or(labels.first());
    JsonDiagnostic {
        code: diagnostic.code.to_owned(),
        severity: diagnostic.severity,
        file: place.map_or(String::new(), |place| place.file.clone()),
        line: place.map_or(0, |place| place.line),
        column: place.map_or(0, |place| place.column),
        end_line: place.map_or(0, |place| place.end_line),
        end_column: place.map_or(0, |place| place.end_column),
        message: diagnostic.message.clone(),
        labels,
        notes: diagnostic.notes.clone(),
        help: diagnostic.help.clone(),
    }
}
