//! The stages of the four published systems as text: index IR, what every pass changes in it, derivation, loop IR.

use crate::derive::{Case, FACTS, case};
use foveate_compiler::compile;
use foveate_compiler::ir::Program;
use foveate_compiler::schedule::schedule;
use std::fmt::Write;

fn systems() -> [(&'static str, Case); 4] {
    [
        ("spatial_prior", case("attention/sp_sa.fov", "SpatialPriorAttention", "C=4 H=2 grid=4x3")),
        ("central", case("attention/mcsa.fov", "CentralAttention", "C=4 H=2 grid=4x5")),
        ("vicinity", case("attention/vicinity.fov", "VicinityAttentionQuadratic", "C=4 H=1 grid=5x4")),
        ("spatial_entropy", case("losses/spatial_entropy.fov", "SpatialEntropy", "H=2 grid=4x3")),
    ]
}

/// The definitions of a program: lines that belong together.
fn definitions(program: &Program) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in program.to_string().lines() {
        match out.last_mut() {
            Some(last) if line.starts_with("    ") => {
                last.push('\n');
                last.push_str(line);
            }
            _ => out.push(line.to_owned()),
        }
    }
    out
}

/// What a stage adds to and takes from the one before.
fn changes(before: &[String], after: &[String]) -> String {
    let mut out = String::new();
    let signed = |sign: &str, text: &str| text.lines().map(|l| format!("{sign}{l}\n")).collect::<String>();
    for gone in before.iter().filter(|d| !after.contains(d)) {
        out.push_str(&signed("-", gone.lines().next().unwrap_or_default()));
    }
    for new in after.iter().filter(|d| !before.contains(d)) {
        out.push_str(&signed("+", new));
    }
    out
}

#[test]
fn index_ir_after_every_pass() {
    for (name, case) in systems() {
        let mut text = case.program().to_string();
        let mut last = definitions(&case.program());
        case.watched(&mut |stage, program| {
            let now = definitions(program);
            let changed = changes(&last, &now);
            let _ = match changed.as_str() {
                "" => writeln!(text, "== {stage}: nothing"),
                changed => writeln!(text, "== {stage}\n{}", changed.trim_end()),
            };
            last = now;
        });
        insta::assert_snapshot!(format!("passes_{name}"), text);
    }
}

#[test]
fn derivations() {
    for (name, case) in systems() {
        let explanation = case.derive().explanation();
        let mut text = String::new();
        for a in &explanation.algorithm {
            let _ = writeln!(text, "{}: {}", a.site, a.text);
        }
        for r in &explanation.rewrites {
            let _ = writeln!(text, "{} {} in {}: {}", if r.fired { "+" } else { "-" }, r.rewrite, r.site, r.reason);
        }
        for k in &explanation.kernels {
            let _ = writeln!(text, "{} launches of {} items: {}", k.launches, k.items, k.sites.join("; "));
        }
        insta::assert_snapshot!(format!("derivation_{name}"), text);
    }
}

fn kernels(program: &Program) -> String {
    let graph = schedule(program, &FACTS);
    graph.kernels.iter().map(|k| k.to_string()).collect::<Vec<_>>().join("\n")
}

/// Without the gradient.
#[test]
fn loop_ir() {
    for (name, case) in systems() {
        let derivation = compile::derive(case.program(), None, &mut |_, _| {}).expect("derives");
        insta::assert_snapshot!(format!("loops_{name}"), kernels(&derivation.program));
    }
}
