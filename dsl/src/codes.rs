//! The registry of diagnostic codes. A code never changes its meaning and is never used again.
//!
//! Ranges: `E00xx` syntax, `E01xx` names, `E02xx` index types and shapes, `E03xx` constraints and sizes,
//! `E04xx` modules and recipes, `E05xx` tensors and data files.

/// A code with what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// The code itself, such as `E0001`.
    pub code: &'static str,
    /// A few words.
    pub title: &'static str,
    /// One paragraph: what is wrong and what to do.
    pub explanation: &'static str,
}

const fn code(code: &'static str, title: &'static str, explanation: &'static str) -> CodeInfo {
    CodeInfo { code, title, explanation }
}

/// Every code, in order.
pub const CODES: &[CodeInfo] = &[code(
    "E0001",
    "unexpected text",
    "The text at this place does not continue what stands before it. The message says what could stand here.",
)];

/// The entry of a code.
pub fn lookup(code: &str) -> Option<&'static CodeInfo> {
    CODES.iter().find(|info| info.code.eq_ignore_ascii_case(code))
}
