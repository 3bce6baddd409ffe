//! One file a verb. The work is the libraries'; a verb reads its arguments, asks, and shows the answer.

mod bench;
mod check;
mod convert;
mod devices;
mod emit;
mod eval;
mod explain;
mod fmt;
mod info;
mod predict;
mod train;
mod verify;

use crate::args::Verb;
use crate::failure::Failure;

/// Runs a verb.
pub fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Fmt(arguments) => fmt::run(&arguments),
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Emit(arguments) => emit::run(&arguments),
        Verb::Verify(arguments) => verify::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Info(arguments) => info::run(&arguments),
        Verb::Train(arguments) => train::run(&arguments),
        Verb::Eval(arguments) => eval::run(&arguments),
        Verb::Predict(arguments) => predict::run(&arguments),
        Verb::Convert(arguments) => convert::run(&arguments),
        Verb::Devices(arguments) => devices::run(&arguments),
    }
}
