//! Reverse-mode differentiation of the index IR.
//!
//! One rule gives adjoints: if the definition of `T` reads `R` at `f(v)`, element `k` of `R`'s adjoint gains the sum over the points `v` with `f(v) = k` of `T`'s
//! adjoint times the derivative of the body with respect to the read. [`solve`] turns "the points with f(v) = k" into loops. Gradients are
//! ordinary definitions after those of the program.
//!
//! A function that is called becomes two: a forward one that also gives what the backward needs, and the backward. Saved are the results of
//! reductions that are no larger than the largest argument or result and of long sums with a parameter; everything else is computed again. Calls that save nothing at all
//! can be asked for ([`differentiate_saving`]): their backward begins with the whole forward.

mod derivatives;
mod functions;
mod reverse;
pub mod solve;
#[cfg(test)]
mod tests;

use crate::ir::{Arg, ArgRole, Elem, FnResult, Program, ResultRole, Stmt, TensorId};
use functions::Variants;
use reverse::Reverse;

/// What is differentiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// The sum over the named results of result times cotangent, each cotangent being an argument of the new program.
    Cotangents(Vec<String>),
    /// The scalar result `loss`.
    Loss,
}

/// How many calls of functions a program makes directly.
pub fn calls(program: &Program) -> usize {
    program.entry().body.iter().filter(|stmt| matches!(stmt, Stmt::Call(_))).count()
}

/// The program with the gradients with respect to the named parameters and inputs as further results.
///
/// # Errors
/// A name that is no float parameter or input, or a seed that is no float result.
pub fn differentiate(program: &Program, seeds: &Seeds, wrt: &[String]) -> Result<Program, String> {
    differentiate_saving(program, seeds, wrt, 0)
}

/// Like [`differentiate`], but the first `recomputed` calls of the program save nothing; see [`calls`].
///
/// Those that come first are the ones to take: what they save lives longest, and when their backward computes it again, what later calls
/// saved is gone already.
///
/// # Errors
/// As [`differentiate`].
pub fn differentiate_saving(
    program: &Program,
    seeds: &Seeds,
    wrt: &[String],
    recomputed: usize,
) -> Result<Program, String> {
    let mut out = program.clone();
    let entry = out.functions.remove(out.entry.index());
    // The entry comes last in any program: nothing calls it.
    let callees = std::mem::take(&mut out.functions);
    let mut targets: Vec<(String, TensorId)> = Vec::new();
    for name in wrt {
        let found = entry.args.iter().find(|a| match &a.role {
            ArgRole::Param(n) | ArgRole::Input(n) => n == name,
            _ => false,
        });
        let tensor = found.ok_or_else(|| format!("there is no parameter or input `{name}`"))?.tensor;
        if !matches!(entry.tensor(tensor).elem, Elem::F32 | Elem::F64 | Elem::F16 | Elem::Bf16) {
            return Err(format!("`{name}` holds integers and has no gradient"));
        }
        targets.push((name.clone(), tensor));
    }
    let tensors: Vec<TensorId> = targets.iter().map(|(_, t)| *t).collect();
    let mut variants = Variants::new(callees);
    let mut walk = Reverse::new(&mut out.axes, entry, &tensors);
    variants.save_in_calls(&mut walk, recomputed);

    let result = |walk: &Reverse<'_>, name: &str| {
        walk.function.results.iter().find_map(|r| match &r.role {
            ResultRole::Output(n) | ResultRole::Exposed(n) if n == name => Some(r.tensor),
            _ => None,
        })
    };
    match seeds {
        Seeds::Loss => {
            let loss = result(&walk, "loss").ok_or("there is no result `loss` to differentiate")?;
            walk.add_constant(loss, 1.0);
        }
        Seeds::Cotangents(names) => {
            for name in names {
                let t = result(&walk, name).ok_or_else(|| format!("there is no result `{name}` to differentiate"))?;
                let ty = walk.function.tensor(t).clone();
                let seed = walk.function.new_tensor(format!("cotangent.{name}"), ty.elem, ty.dims, None);
                walk.function.args.push(Arg { tensor: seed, role: ArgRole::Cotangent(name.clone()) });
                walk.add_whole(t, seed);
            }
        }
    }
    let gradients = variants.walk(&mut walk, &tensors);
    for ((name, _), grad) in targets.into_iter().zip(gradients) {
        walk.function.results.push(FnResult { tensor: grad, role: ResultRole::Grad(name) });
    }
    let entry = walk.function;
    out.functions = variants.into_functions();
    out.functions.push(entry);
    out.entry = crate::ir::FuncId(out.functions.len() as u32 - 1);
    Ok(out)
}
