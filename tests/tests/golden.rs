//! Every golden tensor, outputs and gradients, on the interpreter and on the processor.

use foveate_tests::golden::{CASES, MODELS};

#[test]
fn on_the_interpreter() {
    for case in CASES.iter().chain(MODELS.iter()) {
        case.passes_on("interpreter");
    }
}

#[test]
fn on_the_processor() {
    for case in CASES.iter().chain(MODELS.iter()) {
        case.passes_on("cpu");
    }
}
