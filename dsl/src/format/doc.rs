//! Text that knows where it may be broken, and the choice of breaks.
//!
//! After Wadler's "A prettier printer": a group is set on one line if it fits, and otherwise all its own breaks become
//! line breaks while the groups inside it are tried again.

/// A piece of text with its possible breaks.
#[derive(Clone, Debug)]
pub(super) enum Doc {
    /// Text without a line break.
    Text(String),
    /// A space, or a line break where the group around it is broken.
    Line,
    /// Nothing, or a line break where the group around it is broken.
    SoftLine,
    /// Always a line break.
    HardLine,
    /// An empty line before the next line; stands before a break.
    Blank,
    /// One text where the group is broken, another where it is not.
    IfBroken(&'static str, &'static str),
    /// A comment behind what stands on the line; a break follows.
    Trailing(String),
    /// Breaks inside are indented one step more.
    Indent(Vec<Doc>),
    /// Set on one line if it fits and nothing in it forces a break.
    Group { parts: Vec<Doc>, forced: bool },
}

/// Columns of one step of indentation.
pub(super) const STEP: usize = 4;

/// Columns of a line, without a trailing comment.
pub(super) const WIDTH: usize = 110;

impl Doc {
    pub(super) fn text(text: impl Into<String>) -> Doc {
        Doc::Text(text.into())
    }

    pub(super) fn group(parts: Vec<Doc>) -> Doc {
        let forced = parts.iter().any(Doc::forces);
        Doc::Group { parts, forced }
    }

    /// Whether the group around this must be broken.
    fn forces(&self) -> bool {
        match self {
            Doc::HardLine | Doc::Blank | Doc::Trailing(_) => true,
            Doc::Indent(parts) => parts.iter().any(Doc::forces),
            Doc::Group { forced, .. } => *forced,
            Doc::Text(_) | Doc::Line | Doc::SoftLine | Doc::IfBroken(..) => false,
        }
    }
}

/// What is still to be set: a piece, its indentation and whether the group around it is broken.
type Rest<'d> = Vec<(&'d Doc, usize, bool)>;

/// Sets the text, with one line break at the end.
pub(super) fn layout(parts: &[Doc]) -> String {
    let mut out = String::new();
    // The column is counted apart from the text because a comment takes no width.
    let mut column = 0;
    let mut blank = false;
    let mut rest: Rest = parts.iter().rev().map(|part| (part, 0, true)).collect();
    while let Some((doc, indent, broken)) = rest.pop() {
        let breaks = match doc {
            Doc::Text(text) => {
                out.push_str(text);
                column += text.chars().count();
                false
            }
            Doc::IfBroken(in_broken, in_flat) => {
                let text = if broken { in_broken } else { in_flat };
                out.push_str(text);
                column += text.len();
                false
            }
            Doc::Trailing(text) => {
                out.push_str("  ");
                out.push_str(text);
                false
            }
            Doc::Line if !broken => {
                out.push(' ');
                column += 1;
                false
            }
            Doc::SoftLine if !broken => false,
            Doc::Line | Doc::SoftLine | Doc::HardLine => true,
            Doc::Blank => {
                blank = true;
                false
            }
            Doc::Indent(parts) => {
                rest.extend(parts.iter().rev().map(|part| (part, indent + STEP, broken)));
                false
            }
            Doc::Group { parts, forced } => {
                let broken = *forced || !fits(parts, &rest, column);
                rest.extend(parts.iter().rev().map(|part| (part, indent, broken)));
                false
            }
        };
        if breaks {
            out.truncate(out.trim_end_matches(' ').len());
            out.push_str(if std::mem::take(&mut blank) { "\n\n" } else { "\n" });
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
    }
    format!("{}\n", out.trim_matches(['\n', ' ']))
}

/// Whether the parts, set without breaks, and what follows up to the next break stay within the width.
fn fits(parts: &[Doc], rest: &Rest, column: usize) -> bool {
    let mut left = WIDTH.saturating_sub(column);
    let mut inner: Vec<(&Doc, bool)> = parts.iter().rev().map(|part| (part, false)).collect();
    let mut outer = rest.iter().rev();
    loop {
        let (doc, broken) = match inner.pop() {
            Some(next) => next,
            None => match outer.next() {
                Some(&(doc, _, broken)) => (doc, broken),
                None => return true,
            },
        };
        let width = match doc {
            Doc::Text(text) => text.chars().count(),
            Doc::IfBroken(in_broken, in_flat) => {
                if broken {
                    in_broken.len()
                } else {
                    in_flat.len()
                }
            }
            Doc::Line if !broken => 1,
            Doc::SoftLine if !broken => 0,
            Doc::Line | Doc::SoftLine | Doc::HardLine | Doc::Trailing(_) => return true,
            Doc::Blank => 0,
            Doc::Indent(parts) => {
                inner.extend(parts.iter().rev().map(|part| (part, broken)));
                0
            }
            // A group that follows may still be broken, so only what is before its first break counts; inside the
            // group that is being tried everything is flat.
            Doc::Group { parts, forced } => {
                inner.extend(parts.iter().rev().map(|part| (part, broken || *forced)));
                0
            }
        };
        if width > left {
            return false;
        }
        left -= width;
    }
}
