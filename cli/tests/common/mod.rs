//! Running the command as a user does, from the root of the repository.

use std::path::Path;
use std::process::{Command, Stdio};

/// What a run said.
pub struct Ran {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The command, not yet started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foveate"));
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).stdin(Stdio::null());
    command
}

/// Runs the command to its end.
pub fn foveate(arguments: &[&str]) -> Ran {
    let output = command(arguments).output().expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs what must succeed; gives its standard output.
#[allow(dead_code)]
pub fn succeeds(arguments: &[&str]) -> String {
    let ran = foveate(arguments);
    assert_eq!(ran.code, Some(0), "{arguments:?}: {}{}", ran.out, ran.err);
    ran.out
}

/// Runs what must fail with exit code 1; gives its standard error.
#[allow(dead_code)]
pub fn fails(arguments: &[&str]) -> String {
    let ran = foveate(arguments);
    assert_eq!(ran.code, Some(1), "{arguments:?}: {}{}", ran.out, ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran.err
}
