//! Local arrays that follow one another in the same memory.
//!
//! A stage may take over the array of one that is not read any more. It may even be computed from it, if every element is computed from the element at the
//! same place: softmax's exponentials replace the scores, and the scores' gradient the exponentials.

use super::Facts;
use super::blocks::Block;
use super::expand::View;
use super::steps::{Stage, Step};
use crate::ir::{Elem, Expr, Index, TensorId, VarId};
use std::collections::HashMap;

/// An array in use.
struct Array {
    /// The stage that has it now, and the one that had it first.
    now: TensorId,
    first: TensorId,
    shape: Vec<usize>,
    elem: Elem,
    varies: bool,
    /// The number of the last step that reads it.
    free: usize,
}

/// Lets stages take over arrays, and gives the bytes of those that are left.
pub fn share(view: &View<'_>, steps: &mut [Step], block: Block, vec: VarId) -> usize {
    // The last step that reads each array; strips come back to their first step.
    let mut last: HashMap<TensorId, usize> = HashMap::new();
    let mut number = 0;
    for step in steps.iter() {
        let Step::Strip(strip) = step else {
            reads(step, &mut |t, _| {
                last.insert(t, number);
            });
            number += 1;
            continue;
        };
        let end = number + strip.steps.len();
        for step in &strip.steps {
            reads(step, &mut |t, _| {
                let own = |s: &Step| matches!(s, Step::Stage(s) if s.tensor == t);
                last.insert(t, if strip.steps.iter().any(own) { number } else { end });
            });
            number += 1;
        }
        number += 1;
    }
    let mut arrays: Vec<Array> = Vec::new();
    let (mut bytes, mut number) = (0, 0);
    for step in steps.iter_mut() {
        match step {
            Step::Strip(strip) => {
                for step in &mut strip.steps {
                    if let Step::Turned(t) = step {
                        bytes += t.accumulators(view, block) * block.width * 4;
                    }
                    bytes += place(view, step, number, &last, &mut arrays, block, vec);
                    number += 1;
                }
            }
            step => bytes += place(view, step, number, &last, &mut arrays, block, vec),
        }
        number += 1;
    }
    bytes
}

/// Gives a stage an array that is free, or one of its own, whose bytes are the result.
fn place(
    view: &View<'_>,
    step: &mut Step,
    n: usize,
    last: &HashMap<TensorId, usize>,
    arrays: &mut Vec<Array>,
    block: Block,
    vec: VarId,
) -> usize {
    let Step::Stage(stage) = step else { return 0 };
    let (shape, elem) = (view.shape(stage.tensor), view.elem(stage.tensor));
    let len: usize = shape.iter().product();
    let free = last.get(&stage.tensor).copied().unwrap_or(n);
    let taken = arrays.iter_mut().find(|a| {
        let same = a.elem == elem && a.varies == stage.varies && a.shape.iter().product::<usize>() == len;
        same && (a.free < n || (a.free == n && a.shape == shape && in_place(stage, a.now, vec)))
    });
    match taken {
        Some(array) => {
            stage.array = array.first;
            stage.once = array.free == n;
            (array.now, array.shape, array.free) = (stage.tensor, shape, free);
            0
        }
        None => {
            arrays.push(Array { now: stage.tensor, first: stage.tensor, shape, elem, varies: stage.varies, free });
            len * if stage.varies { block.width * 4 } else { 4 }
        }
    }
}

/// Whether a stage reads an array at its own place only.
fn in_place(stage: &Stage, array: TensorId, vec: VarId) -> bool {
    let own: Vec<Index> = stage.vars.iter().map(|&v| v.into()).chain(stage.varies.then(|| Index::from(vec))).collect();
    let mut fits = true;
    stage.body.visit_reads(&mut |t, at| fits &= t != array || at == own);
    fits
}

fn reads(step: &Step, f: &mut dyn FnMut(TensorId, &[Index])) {
    let all = |body: &Expr, at: &[Index], f: &mut dyn FnMut(TensorId, &[Index])| {
        body.visit_reads(f);
        at.iter().for_each(|i| i.visit_reads(f));
    };
    match step {
        Step::Stage(s) => all(&s.body, &[], f),
        Step::Member { body, at, .. } => all(body, at, f),
        Step::Turned(t) => {
            all(&t.body, &t.at, f);
            t.lanes.iter().for_each(|(array, _)| f(*array, &[]));
        }
        Step::Strip(strip) => strip.steps.iter().for_each(|step| reads(step, f)),
    }
}

/// Bytes that stages may ask for before it is known what they share.
pub fn generous(facts: &Facts) -> Facts {
    Facts { local_bytes: facts.local_bytes * 4, ..facts.clone() }
}
