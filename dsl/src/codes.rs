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
pub const CODES: &[CodeInfo] = &[
    code(
        "E0001",
        "unexpected text",
        "The text at this place does not continue what stands before it. The message says what could stand here; a second label shows the text it would belong to.",
    ),
    code(
        "E0002",
        "no language version",
        "The first line of a file is the version of the language it is written in, `foveate 1`, so that a later compiler can still read it as it was meant.",
    ),
    code(
        "E0003",
        "character outside the language",
        "Outside strings and comments a file holds ASCII letters, digits, `_`, white space and the operators of the language. Typographic signs and the operators of other languages have a spelling here that the help names.",
    ),
    code(
        "E0004",
        "bracket not closed",
        "An opening bracket has no closing one. Where a block is left open, the indentation of the braces that follow shows which one it probably is.",
    ),
    code("E0005", "bracket closes nothing", "A closing bracket has no opening one before it."),
    code(
        "E0006",
        "nested too deeply",
        "Brackets, blocks and expressions nest deeper than the compiler reads. Give a part a name: a definition costs nothing, since storing it is the compiler's choice.",
    ),
    code(
        "E0007",
        "malformed number",
        "A number runs into letters (`10k`), or is larger than its type can hold. Integers have 64 bits, floating-point numbers double precision; sizes are written `14x14`.",
    ),
    code(
        "E0008",
        "malformed string",
        "A string does not end on its line, or holds an escape other than \\n, \\t, \\\" and \\\\.",
    ),
    code(
        "E0009",
        "reduction without a body",
        "A reduction is written `sum(j) body`. The body is missing or starts with a minus sign, which could as well be a subtraction. The larger of two values is `maximum(a, b)`; `max(j)` runs over an index.",
    ),
    code(
        "E0010",
        "import after an item",
        "Imports stand at the top of a file, between the version line and the first item.",
    ),
    code(
        "E0011",
        "module without `forward`",
        "Every module, model, loss and optimizer says what it computes in a `forward`.",
    ),
    code(
        "E0012",
        "`=` and `==` confused",
        "`=` defines a name, `==` compares two values. Conditions of `require`, `if` and `where` compare.",
    ),
    code(
        "E0013",
        "not a reduction",
        "An expression directly follows a call, as if the call were a reduction. Either the reduction's name is wrong, or an operator is missing.",
    ),
    code("E0014", "keyword used as a name", "The words of the language itself cannot name anything."),
    code(
        "E0015",
        "operators that do not combine",
        "Comparisons do not chain (`a < b < c`), and `not` needs brackets as an operand of an operator that binds more tightly.",
    ),
    code(
        "E0016",
        "input without a shape",
        "An input of `forward` is written with its axes (`x[Grid, C]`, `x[]` for a scalar) or as a label (`target: label[classes]`).",
    ),
    code(
        "E0017",
        "`flat` on something other than a submodule",
        "Only a submodule puts its name before those of its parameters, so only there has `flat` a meaning.",
    ),
];

/// The entry of a code.
pub fn lookup(code: &str) -> Option<&'static CodeInfo> {
    CODES.iter().find(|info| info.code.eq_ignore_ascii_case(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/diagnostics.md");

    #[test]
    fn codes_are_in_order_and_unique() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(CODES.iter().all(|info| info.code.len() == 5 && info.code.starts_with('E')));
    }

    #[test]
    fn the_page_explains_every_code_and_no_other() {
        let entry = |info: &CodeInfo| format!("### {}: {}\n\n{}\n", info.code, info.title, info.explanation);
        for info in CODES {
            let entry = entry(info);
            assert!(PAGE.contains(&entry), "docs/diagnostics.md lacks this entry:\n{entry}");
        }
        assert_eq!(PAGE.matches("\n### ").count(), CODES.len(), "docs/diagnostics.md has entries of unknown codes");
    }
}
