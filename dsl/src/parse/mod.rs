//! From text to syntax tree.
//!
//! A text is read in rounds. Each round scans it (`scan`) for what no grammar would explain well (odd characters,
//! open brackets) and then runs the pest grammar. The first problem of a round is reported, the statement, member or
//! item it is in is blanked (`recovery`), and the next round reads what is left; so one run reports several errors
//! and always returns a tree of what could be read. Blanking keeps every byte offset.

mod cursor;
mod errors;
mod expected;
pub(crate) mod expressions;
mod items;
mod recovery;
pub(crate) mod scan;
mod statements;

use pest::Parser as _;

use crate::ast::{File, Span};
use crate::diagnostic::Diagnostic;
use items::Builder;
use scan::Scan;

/// The pest parser; its rules carry the names of the grammar.
mod grammar {
    #![allow(missing_docs)]

    /// Made from `grammar.pest`.
    #[derive(pest_derive::Parser)]
    #[grammar = "grammar.pest"]
    pub struct Grammar;
}
pub(crate) use grammar::{Grammar, Rule};

/// The language version this compiler reads.
pub const VERSION: u32 = 1;

/// How deep brackets, blocks and expressions may nest; more is an error (`E0006`) and not a crash.
pub const MAX_NESTING: usize = 100;

/// How many operators may follow one another in one expression, counted as depth of the tree.
pub const MAX_DEPTH: usize = 300;

/// How many problems one run reports before it gives up on the rest of the file.
const MAX_ROUNDS: usize = 25;

/// Reads a file; `file_id` is its number in the [`SourceMap`](crate::diagnostic::SourceMap).
///
/// The tree holds whatever could be read, even when there are errors; it is the whole file exactly when no diagnostic
/// is an error. Errors come in the order of the text.
pub fn parse(file_id: u32, text: &str) -> (File, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut blanked: Vec<Span> = Vec::new();
    let original = text;
    let mut text = std::borrow::Cow::Borrowed(text);
    let mut tree = None;
    for _ in 0..MAX_ROUNDS {
        let scan = Scan::new(file_id, &text);
        let (diagnostic, at) = if let Some(problem) = &scan.problem {
            (problem.diagnostic.clone(), problem.at)
        } else {
            match Grammar::parse(Rule::file, &text) {
                Ok(pairs) => {
                    let mut builder = Builder::new(file_id, original, &scan, &blanked);
                    tree = Some(builder.file(pairs));
                    diagnostics.append(&mut builder.diagnostics);
                    break;
                }
                Err(error) => errors::explain(file_id, &text, &scan, &error),
            }
        };
        diagnostics.push(diagnostic);
        let Some(region) = recovery::region(&text, &scan, at) else { break };
        blanked.push(Span { file: file_id, start: region.start as u32, end: region.end as u32 });
        text = std::borrow::Cow::Owned(recovery::blank(&text, region));
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span());
    (tree.unwrap_or(File { version: VERSION, imports: Vec::new(), items: Vec::new() }), diagnostics)
}
