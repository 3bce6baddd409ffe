//! The `foveate` command: checks, explains, verifies and trains what `.fov` files describe.

mod args;
mod failure;
mod output;
mod source;
mod verbs;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    match verbs::run(arguments.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::FAILURE
        }
    }
}
