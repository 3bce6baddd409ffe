//! The texts as excerpts show them: long lines are cut around what is pointed at.

use codespan_reporting::files::{Error, Files};
use std::ops::Range;

use crate::diagnostic::SourceFile;

/// The most characters of a line that are shown whole.
const LONGEST: usize = 160;

/// What is kept of a longer one, before what is pointed at and in all.
const BEFORE: usize = 50;
const KEPT: usize = 120;

const LEFT_OUT: &str = "...";

/// One line of a text and of what is shown of it, in bytes.
struct Line {
    /// Where it starts in the text.
    start: usize,
    /// What is kept, from the start of the line.
    kept: Range<usize>,
    /// Where it starts in the shown text.
    shown: usize,
    /// What stands there before what is kept.
    before: usize,
}

/// A file as it is shown.
struct Shown<'a> {
    file: &'a SourceFile,
    text: String,
    lines: Vec<Line>,
}

/// The files of one diagnostic.
pub(crate) struct Excerpts<'a>(Vec<Shown<'a>>);

impl<'a> Excerpts<'a> {
    /// Of files, for places (file and byte) that must be seen.
    pub fn new(files: &'a [SourceFile], places: &[(usize, usize)]) -> Excerpts<'a> {
        let shown = |(n, file): (usize, &'a SourceFile)| {
            let of_file: Vec<usize> = places.iter().filter(|(file, _)| *file == n).map(|(_, at)| *at).collect();
            Shown::new(file, &of_file)
        };
        Excerpts(files.iter().enumerate().map(shown).collect())
    }

    /// A range of a file's text in what is shown of it.
    pub fn range(&self, file: usize, range: Range<usize>) -> Range<usize> {
        let Some(shown) = self.0.get(file) else { return range };
        let start = shown.place(range.start);
        start..shown.place(range.end).max(start)
    }

    fn file(&self, file: usize) -> Result<&Shown<'a>, Error> {
        self.0.get(file).ok_or(Error::FileMissing)
    }
}

impl<'a> Shown<'a> {
    fn new(file: &'a SourceFile, places: &[usize]) -> Shown<'a> {
        let mut out = Shown { file, text: String::new(), lines: Vec::new() };
        // Nothing is shown of a file without places.
        if places.is_empty() {
            out.lines.push(Line { start: 0, kept: 0..0, shown: 0, before: 0 });
            return out;
        }
        let mut start = 0;
        for whole in file.text.split('\n') {
            let place = places.iter().find(|at| (start..=start + whole.len()).contains(at)).map_or(0, |at| at - start);
            let kept = kept(whole, place);
            let shown = out.text.len();
            let before = if kept.start > 0 { LEFT_OUT.len() } else { 0 };
            out.text.push_str(&LEFT_OUT[..before]);
            out.text.push_str(&whole[kept.clone()]);
            if kept.end < whole.len() {
                out.text.push_str(LEFT_OUT);
            }
            out.text.push('\n');
            out.lines.push(Line { start, kept, shown, before });
            start += whole.len() + 1;
        }
        out
    }

    /// Where a byte of the text is shown; what is left out stands at the end that is nearer to it.
    fn place(&self, at: usize) -> usize {
        let line = &self.lines[self.lines.partition_point(|l| l.start <= at).max(1) - 1];
        let within = (at - line.start).clamp(line.kept.start, line.kept.end);
        line.shown + line.before + within - line.kept.start
    }
}

/// What is kept of a line when a byte of it must be seen.
fn kept(line: &str, place: usize) -> Range<usize> {
    // Most lines have fewer bytes than a long one has characters.
    if line.len() <= LONGEST || line.chars().count() <= LONGEST {
        return 0..line.len();
    }
    let byte = |n: usize| line.char_indices().nth(n).map_or(line.len(), |(at, _)| at);
    let column = line.char_indices().take_while(|(at, _)| *at < place).count();
    let first = column.saturating_sub(BEFORE);
    byte(first)..byte(first + KEPT)
}

impl<'f> Files<'f> for Excerpts<'_> {
    type FileId = usize;
    type Name = &'f str;
    type Source = &'f str;

    fn name(&'f self, id: usize) -> Result<&'f str, Error> {
        Ok(&self.file(id)?.file.name)
    }
    fn source(&'f self, id: usize) -> Result<&'f str, Error> {
        Ok(&self.file(id)?.text)
    }
    fn line_index(&'f self, id: usize, byte: usize) -> Result<usize, Error> {
        Ok(self.file(id)?.lines.partition_point(|l| l.shown <= byte).max(1) - 1)
    }
    fn line_range(&'f self, id: usize, line: usize) -> Result<Range<usize>, Error> {
        let shown = self.file(id)?;
        let too_large = Error::LineTooLarge { given: line, max: shown.lines.len().saturating_sub(1) };
        let start = shown.lines.get(line).ok_or(too_large)?.shown;
        Ok(start..shown.lines.get(line + 1).map_or(shown.text.len(), |next| next.shown))
    }
    /// The column in the text, not in the excerpt.
    fn column_number(&'f self, id: usize, line: usize, byte: usize) -> Result<usize, Error> {
        let shown = self.file(id)?;
        let too_large = Error::LineTooLarge { given: line, max: shown.lines.len().saturating_sub(1) };
        let line = shown.lines.get(line).ok_or(too_large)?;
        let within = line.kept.start + byte.saturating_sub(line.shown + line.before);
        let whole = &shown.file.text[line.start..];
        Ok(whole.char_indices().take_while(|(at, _)| *at < within).count() + 1)
    }
}
