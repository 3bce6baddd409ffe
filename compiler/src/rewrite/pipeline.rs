//! The order of the passes, and how they are run: each result is verified, and the pass that broke it is named.

use super::{
    Pass, Report, dead, duplicates, fold, forward, hoist, linearise, narrow, regroup, relative, restrict, split, window,
};
use crate::ir::{Program, verify};

const FOLD: Pass = Pass { name: "fold", description: "constants and provable conditions vanish", run: fold::run };
const FORWARD: Pass = Pass { name: "forward", description: "copies are read through", run: forward::run };
const SPLIT: Pass = Pass { name: "split", description: "divided variables become pairs", run: split::run };
const DUPLICATES: Pass = Pass { name: "duplicates", description: "equal definitions become one", run: duplicates::run };
const DEAD: Pass = Pass { name: "dead", description: "what nothing reads goes", run: dead::run };
const LINEARISE: Pass =
    Pass { name: "linearise", description: "sums over separable products turn inside out", run: linearise::run };
const RELATIVE: Pass =
    Pass { name: "relative", description: "functions of a difference become tables", run: relative::run };
const RESTRICT: Pass = Pass { name: "restrict", description: "single rows are computed alone", run: restrict::run };
const WINDOW: Pass = Pass { name: "window", description: "bands become windows", run: window::run };
const TELL: Pass = Pass { name: "tell", description: "windows as written are told", run: window::tell };
const NARROW: Pass =
    Pass { name: "narrow", description: "sums that are 0 but for a part are computed there", run: narrow::run };
const REGROUP: Pass = Pass {
    name: "regroup",
    description: "values of short indices are summed first where that is less",
    run: regroup::run,
};
const FACTORS: Pass = Pass { name: "factors", description: "invariant factors leave sums", run: hoist::factors };
const HOIST: Pass = Pass {
    name: "hoist",
    description: "costly subexpressions of fewer variables become definitions",
    run: hoist::subexpressions,
};

/// Before differentiation: what changes the algorithm, so that the gradient is that of the better program.
pub const BEFORE: &[Pass] = &[
    FOLD, FORWARD, SPLIT, FOLD, DUPLICATES, DEAD, // one form for all that follows
    RESTRICT, FORWARD, DEAD, // before anything is spent on rows that nobody reads
    TELL, FACTORS, LINEARISE, RELATIVE, // tables of what did not become linear
    FOLD, FORWARD, SPLIT, WINDOW, HOIST, FOLD, FORWARD, DUPLICATES, DEAD,
];

/// After it, or without it: gradients are comprehensions like any other.
pub const AFTER: &[Pass] =
    &[FOLD, FORWARD, SPLIT, FOLD, NARROW, REGROUP, FACTORS, RELATIVE, WINDOW, HOIST, FOLD, FORWARD, DUPLICATES, DEAD];

/// How far to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Run only so many passes.
    pub stop_after: Option<usize>,
}

/// Runs the passes in order; `watch` sees the program after each.
///
/// # Errors
/// Names the first pass whose result does not verify, with what is wrong: a fault of the compiler, not of the program.
pub fn run(
    program: &mut Program,
    passes: &[Pass],
    options: Options,
    watch: &mut dyn FnMut(&Pass, &Program),
) -> Result<Report, String> {
    let mut report = Report::default();
    for pass in passes.iter().take(options.stop_after.unwrap_or(usize::MAX)) {
        (pass.run)(program, &mut report);
        verify::verify(program)
            .map_err(|e| format!("internal error: the program does not verify after pass `{}`: {e}", pass.name))?;
        watch(pass, program);
    }
    Ok(report)
}
