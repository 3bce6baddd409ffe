//! From the index IR as lowered to the index IR that is scheduled: rewrites, differentiation, rewrites.

use crate::grad::{self, Seeds};
use crate::ir::Program;
use crate::rewrite::{Report, pipeline};

/// What to differentiate, and with respect to which parameters and inputs.
#[derive(Clone, Debug)]
pub struct Gradient {
    /// The scalar: `loss`, or results weighed by cotangents.
    pub seeds: Seeds,
    /// Names of parameters and inputs.
    pub wrt: Vec<String>,
    /// How many calls of the program save nothing for the backward: less memory, more work. See [`grad::differentiate_saving`].
    pub recomputed: usize,
}

/// An optimised program and how it came about.
#[derive(Clone, Debug)]
pub struct Derivation {
    /// Ready to be scheduled.
    pub program: Program,
    /// What the rewrites did, before and after differentiation.
    pub report: Report,
    /// How many calls it makes that might save nothing.
    pub calls: usize,
}

/// Optimises a program, and differentiates it on the way where a gradient is asked for. `watch` sees the program after every stage and
/// pass, with a name such as `rewrite.linearise`.
///
/// # Errors
/// What cannot be differentiated ([`grad::differentiate`]), or the pass whose result does not verify.
pub fn derive(
    mut program: Program,
    gradient: Option<&Gradient>,
    watch: &mut dyn FnMut(&str, &Program),
) -> Result<Derivation, String> {
    watch("lowered", &program);
    let mut report = pipeline::run(&mut program, pipeline::BEFORE, pipeline::Options::default(), &mut |pass, p| {
        watch(&format!("rewrite.{}", pass.name), p);
    })?;
    let calls = grad::calls(&program);
    let mut stage = "rewrite-last";
    if let Some(gradient) = gradient {
        program = grad::differentiate_saving(&program, &gradient.seeds, &gradient.wrt, gradient.recomputed)?;
        watch("differentiated", &program);
        stage = "rewrite-gradient";
    }
    let after = pipeline::run(&mut program, pipeline::AFTER, pipeline::Options::default(), &mut |pass, p| {
        watch(&format!("{stage}.{}", pass.name), p);
    })?;
    for entry in after.entries {
        if !report.entries.contains(&entry) {
            report.entries.push(entry);
        }
    }
    for algorithm in after.algorithms {
        if !report.algorithms.contains(&algorithm) {
            report.algorithms.push(algorithm);
        }
    }
    Ok(Derivation { program, report, calls })
}
