//! What a schedule keeps in between: memory that launches share by turns, and what depends on parameters alone and stays.

use super::liveness::{Interval, pack};
use super::memory::{ALIGN, Place, SCRATCH};
use foveate_compiler::ir::{ArgRole, ResultRole};
use foveate_compiler::schedule::{BufferRole, KernelGraph, Launch};
use std::collections::{BTreeSet, HashMap};

/// The buffers that a launch writes.
pub(super) fn written<'a>(graph: &'a KernelGraph, launch: &'a Launch) -> impl Iterator<Item = usize> + 'a {
    let declared = &graph.kernels[launch.kernel].buffers;
    launch.buffers.iter().zip(declared).filter(|(_, b)| b.written).map(|(&b, _)| b)
}

/// Elements of a buffer.
pub(super) fn len(graph: &KernelGraph, buffer: usize) -> usize {
    graph.buffers[buffer].shape.iter().product()
}

/// The elements that some buffers need one after the other.
pub(super) fn room(graph: &KernelGraph, buffers: &BTreeSet<usize>) -> usize {
    buffers.iter().map(|&b| len(graph, b).next_multiple_of(ALIGN)).sum()
}

/// The temporaries that are kept from run to run: those that depend on nothing but parameters (weights in another layout, tables of them), as far as
/// they take no more memory than the parameters. None if there are gradients: those are for changing parameters.
pub(super) fn of_parameters(graph: &KernelGraph) -> BTreeSet<usize> {
    let gradient = |role: &ResultRole| matches!(role, ResultRole::Grad(_));
    if graph.buffers.iter().any(|b| matches!(&b.role, BufferRole::Result(roles) if roles.iter().any(gradient))) {
        return BTreeSet::new();
    }
    let temporary = |b: &usize| matches!(graph.buffers[*b].role, BufferRole::Temporary);
    let parameter = |b: &usize| matches!(graph.buffers[*b].role, BufferRole::Arg(ArgRole::Param(_)));
    let parameters = room(graph, &(0..graph.buffers.len()).filter(parameter).collect());
    let mut found: BTreeSet<usize> = graph.launches.iter().flat_map(|l| l.buffers.clone()).filter(temporary).collect();
    loop {
        let before = found.len();
        for launch in &graph.launches {
            let alone = launch.buffers.iter().all(|b| parameter(b) || found.contains(b));
            if !alone {
                written(graph, launch).for_each(|b| {
                    found.remove(&b);
                });
            }
        }
        if found.len() < before {
            continue;
        }
        match found.iter().copied().max_by_key(|&b| len(graph, b)) {
            Some(largest) if room(graph, &found) > parameters => found.remove(&largest),
            _ => return found,
        };
    }
}

/// Places of the temporaries of a schedule in the scratch arena, those that are kept apart, and the elements that this must have.
pub(super) fn temporaries(graph: &KernelGraph, kept: &BTreeSet<usize>) -> (Vec<(usize, Place)>, usize) {
    let shared = |b: &&usize| matches!(graph.buffers[**b].role, BufferRole::Temporary) && !kept.contains(*b);
    let mut lives: HashMap<usize, Interval> = HashMap::new();
    for (time, launch) in graph.launches.iter().enumerate() {
        for &b in launch.buffers.iter().filter(shared) {
            lives.entry(b).or_insert(Interval { first: time, last: time, len: len(graph, b) }).last = time;
        }
    }
    let mut lives: Vec<(usize, Interval)> = lives.into_iter().collect();
    lives.sort_by_key(|(b, _)| *b);
    let (offsets, scratch) = pack(&lives.iter().map(|(_, i)| *i).collect::<Vec<_>>(), graph.threads);
    let place = |((b, interval), offset): (&(usize, Interval), usize)| {
        (*b, Place { arena: SCRATCH, offset, len: interval.len })
    };
    (lives.iter().zip(offsets).map(place).collect(), scratch)
}

/// Bytes of memory that the temporaries of a schedule need on a device, as [`super::Session::new`] lays them out.
pub fn scratch_bytes(graph: &KernelGraph) -> usize {
    let kept = of_parameters(graph);
    (temporaries(graph, &kept).1 + room(graph, &kept)) * 4
}
