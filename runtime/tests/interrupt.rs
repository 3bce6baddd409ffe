//! An interrupt (Ctrl-C) ends the step under way, saves, and says so; the run can be resumed.

#![cfg(unix)]

mod common;

use common::{Place, newest, run};
use foveate_compiler::check::Value;
use foveate_runtime::train::TrainOptions;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the process that is interrupted where to train.
const PLACE: &str = "FOVEATE_TEST_PLACE";

fn options(place: &Place) -> TrainOptions {
    let mut options = TrainOptions { quiet: false, ..place.options("loops", "out") };
    options.settings.push(("epochs".to_owned(), Value::Int(2000)));
    options
}

/// Run by the test below in a process of its own.
#[test]
#[ignore = "is the process that is interrupted"]
fn trains_until_interrupted() {
    let Ok(path) = std::env::var(PLACE) else { return };
    let place = Place::at(path.into());
    let outcome = run(&options(&place));
    assert!(outcome.interrupted && outcome.checkpoint.is_some());
    println!("steps {}", outcome.steps);
}

#[test]
fn an_interrupt_saves() {
    let place = Place::new("logits[c]^2");
    let test = std::env::current_exe().expect("this test");
    let mut child = Command::new(test)
        .args(["trains_until_interrupted", "--exact", "--ignored", "--nocapture"])
        .env(PLACE, place.root())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test runs again");
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("text");
    assert!(line.starts_with("recipe tiny on loops"), "{line}");
    std::thread::sleep(Duration::from_millis(300));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()));
    let mut rest = String::new();
    errors.read_to_string(&mut rest).expect("text");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{rest}\n{text}");
    let steps: u64 =
        text.split("steps ").nth(1).and_then(|t| t.split_whitespace().next()?.parse().ok()).expect("a number");
    assert!(rest.contains(&format!("interrupted after step {steps}: saved")), "{rest}");
    assert!(rest.contains("--resume"), "{rest}");
    assert_eq!(newest(&place.out("out")).state.step, steps);

    // It goes on, and ends with the same bits as a run that was not stopped.
    let stop = Some(steps + 3);
    let resumed = run(&TrainOptions { resume: true, max_steps: stop, ..options(&place) });
    assert_eq!((resumed.steps, resumed.steps_now), (steps + 3, 3));
    let mut whole = options(&place);
    whole.out = place.out("whole");
    whole.max_steps = stop;
    run(&whole);
    let (a, b) = (newest(&place.out("out")), newest(&place.out("whole")));
    assert_eq!((a.model, a.optimizer), (b.model, b.optimizer));
}
