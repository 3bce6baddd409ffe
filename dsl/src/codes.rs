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
    code(
        "E0101",
        "unknown name",
        "Nothing of this name is in scope here: no index, tensor, parameter, submodule, function or compile-time value. Functions see their own arguments only; modules and functions of other files are imported; what a submodule exposes can be read after its call.",
    ),
    code(
        "E0102",
        "item not chosen",
        "The file has several modules, models, losses or optimizers, or none, and the command does not say which one it is about. Write `FILE:ITEM`.",
    ),
    code(
        "E0103",
        "item defined twice",
        "Two items of a file, or an item and an import, have one name. Rename one of them.",
    ),
    code(
        "E0104",
        "imports in a circle",
        "Files import each other, so that none of them can be read first. Move what both need into a third file.",
    ),
    code(
        "E0105",
        "file cannot be read",
        "An imported file is not there, is not text, or may not be read. Paths are relative to the importing file.",
    ),
    code(
        "E0106",
        "nothing of that name to import",
        "The file, or the prelude, has no item of the imported name of its own. What a file imports itself is not passed on.",
    ),
    code(
        "E0107",
        "declared twice",
        "Two parameters, states, submodules or inputs of a module have one name, or it has two `forward`s. Names are those of the state dict, so they must differ; `flat` submodules put theirs beside the module's own.",
    ),
    code("E0108", "import without use", "Nothing in the file mentions an imported name. Leave it out."),
    code(
        "E0109",
        "definition without use",
        "Nothing mentions a definition of `forward`, a parameter or a submodule. A name is often misspelt where it was meant.",
    ),
    code(
        "E0201",
        "index of the wrong axis",
        "A bare index is used at an axis that it does not range over. Axes are nominal: two of the same size are still different ones. A declared relation between axes is written as an index expression.",
    ),
    code(
        "E0202",
        "axis not merged from these",
        "A tuple of indices stands at an axis that is not the row-major merge of their axes: the product of the sizes differs, or one of them is a window or the batch.",
    ),
    code(
        "E0203",
        "not an axis",
        "A shape, an annotation or the definition of an axis holds something other than an axis or a size, or `..` in another place than first in a shape of `forward`.",
    ),
    code(
        "E0204",
        "shapes differ",
        "A tensor has another number of axes, or other axes, than the place where it is used asks for. Both shapes are given with the sizes that the axes have here.",
    ),
    code(
        "E0205",
        "not an index",
        "Something other than an integer stands as an index, or one index stands at a product axis that takes one for each factor.",
    ),
    code(
        "E0206",
        "no such factor",
        "`.row`, `.col` and `.0` are factors of an index of a product axis. An index of an atom has none, that of a sum axis may be in any summand, and the index of a product is no number itself.",
    ),
    code(
        "E0207",
        "wrong kind of value",
        "A number stands where a condition is asked, or a condition, word or tuple where a number is. `if ... then 1 else 0` makes a number of a condition.",
    ),
    code(
        "E0208",
        "tensor where a number is asked",
        "A whole tensor stands in an expression with indices, or in a function. Give it indices, or define the result without indices too.",
    ),
    code(
        "E0209",
        "summand without a clause",
        "A definition over a sum axis goes by cases, one clause for each summand; one is missing.",
    ),
    code(
        "E0210",
        "clauses that fit no sum axis",
        "The clauses of a definition name summands that no declared sum axis has together, or one summand twice. Declare the axis: `axis Tokens = Cls | Grid`.",
    ),
    code(
        "E0211",
        "clauses that differ at several positions",
        "A definition goes by cases over one sum axis at one position.",
    ),
    code(
        "E0212",
        "state that depends on the image",
        "A state is one for the whole batch, but its new value would be another one for each image. Reduce over `b: Batch`.",
    ),
    code(
        "E0213",
        "`..` or a merged index out of place",
        "`..` repeats the leading axes of an input declared with `..` and stands first; a merged index on the left is made of index names.",
    ),
    code(
        "E0214",
        "batch out of place",
        "An index of `Batch` stands first, once, and at tensors that have a batch. What depends on no image has none.",
    ),
    code("E0215", "index outside the axis", "A constant index is negative or not below the size of its axis."),
    code(
        "E0216",
        "window read elsewhere",
        "A tensor that is defined on a window is read at an index that is not of the same window around the same index.",
    ),
    code(
        "E0217",
        "indices of different axes combined",
        "Indices of two different axes are subtracted or compared; they have nothing to do with each other. Scale or shift one of them if they have.",
    ),
    code(
        "E0218",
        "wrong indices of a reduction or definition",
        "An index is bound twice, a normaliser names an index that is not bound around it, or `argmax` has several.",
    ),
    code(
        "E0219",
        "range of an index not known",
        "An index is not annotated, not declared, is used at no axis that is known, and no axis has its name in capitals. Write `i: AXIS`.",
    ),
    code(
        "E0220",
        "malformed domain",
        "A domain is a window around an index that is bound before it, with a side for each factor and a border: `j in window(i, 3, 3, pad: zero)`. Other domains are predicates after `where`.",
    ),
    code(
        "E0221",
        "tensor taken apart wrongly",
        "`(q[i, d], k[i, d]) = x[i, (2, d)]` takes a tensor apart: on the right exactly one literal counts the targets, and the targets have the same indices.",
    ),
    code(
        "E0222",
        "labels, truth values and numbers confused",
        "A submodule takes numbers, labels or truth values and is given another kind, or labels of another axis.",
    ),
    code(
        "E0223",
        "loss that is not a number",
        "A result of a loss that is trained is a scalar, `[]`: sum it or take its mean.",
    ),
    code(
        "E0301",
        "constraint not met",
        "A `require` does not hold for the sizes given. The note has the values of the names in it.",
    ),
    code("E0302", "division of sizes with a remainder", "Sizes divide exactly. `div` rounds down where that is meant."),
    code(
        "E0303",
        "division by zero",
        "A size or compile-time value is divided by 0, or an index by something that is not above 0.",
    ),
    code("E0304", "empty axis", "Every axis has at least one element."),
    code(
        "E0305",
        "wrong kind of compile-time value",
        "An argument, setting, size or condition is of another kind (integer, number, truth value, word, tuple, list) than the place takes, or a word that it does not know.",
    ),
    code(
        "E0306",
        "not known at compile time",
        "Sizes, conditions of `if` blocks, arguments of constructors and initialisers are known when the program is compiled. They are made of arguments, `let` values, numbers and functions of numbers.",
    ),
    code(
        "E0307",
        "too large",
        "A tensor, an axis, an index expression or a number is larger than the compiler works with. Parameters, inputs, results and whatever \
         else is stored have at most 2^31 elements; a definition that is never stored may have more.",
    ),
    code(
        "E0308",
        "position outside a list",
        "A list or tuple is read at a position that it does not have. Positions count from 0.",
    ),
    code(
        "E0309",
        "unrolls into too much",
        "Loops and functions are expanded at compile time, and this one does not come to an end within the compiler's limit.",
    ),
    code(
        "E0310",
        "window that does not fit",
        "A window has an even side and no offset, so that it has no middle, or it is larger than its axis although `pad: clamp` keeps it inside.",
    ),
    code(
        "E0311",
        "no sample sizes found",
        "`check` tries a module at sizes of its own where arguments have no value, and found none that meet its constraints. Nothing is known to be wrong; give an argument a default to have it checked.",
    ),
    code("E0401", "not a module", "Only modules, models, losses and optimizers can be submodules."),
    code(
        "E0402",
        "too many arguments",
        "A module, function or submodule is given more arguments than it takes, or a function fewer.",
    ),
    code(
        "E0403",
        "no argument of that name",
        "A named argument, setting or option is not one that is declared. Arguments of functions have no names.",
    ),
    code("E0404", "argument missing", "An argument without a default, or an input of `forward`, is not given."),
    code("E0405", "argument given twice", "An argument is given by position and by name, or twice by name."),
    code(
        "E0406",
        "recursion",
        "A module contains itself or a function calls itself. Repetition is written with `for`, which has an end.",
    ),
    code(
        "E0407",
        "optimizer with parameters",
        "An optimizer is one update rule for any parameter: what it keeps are inputs and results of its `forward`.",
    ),
    code(
        "E0408",
        "unknown initialiser",
        "Parameters and states start as `zeros`, `ones`, `constant(v)`, `normal(std)`, `trunc_normal(std)` or `uniform(bound)`.",
    ),
    code(
        "E0409",
        "tensor called like a function",
        "Tensors are read with brackets, `x[i, c]`; only functions and submodules are called.",
    ),
    code(
        "E0410",
        "number of results",
        "A call, `return` or definition has another number of results than is declared or taken apart.",
    ),
    code("E0411", "never reached", "A statement stands behind a `return`."),
    code(
        "E0412",
        "update of what is no state",
        "`update` gives a declared state of the module its value after the step, once a step.",
    ),
    code("E0413", "nothing to return", "A `forward` ends without `return`."),
    code(
        "E0414",
        "recipe not chosen",
        "The file has no recipe of the name, or several and the command does not say which one. Write `FILE:RECIPE`.",
    ),
    code("E0415", "malformed recipe", "A recipe is made of constants, each set once."),
    code(
        "E0416",
        "unknown setting of a recipe",
        "A recipe has no setting of this name. Those there are stand in the reference of the language.",
    ),
    code(
        "E0417",
        "wrong value of a setting",
        "A setting of a recipe has a value of another kind, or outside its range.",
    ),
    code("E0418", "recipe without a setting", "A recipe lacks a setting that has no default."),
    code(
        "E0501",
        "tensors that contradict each other",
        "Two tensors, or a tensor and a setting, give an argument different sizes. The message names both.",
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
