//! Results that take the place of what they are computed from.

use foveate_compiler::ir::{ArgRole, ResultRole};
use foveate_compiler::loops::in_place::in_place;
use foveate_compiler::schedule::{BufferRole, KernelGraph};

/// Whether a result may lie where an argument of a program lies: the kernel that computes it works in place, and nothing reads the argument
/// afterwards.
pub fn replaces(graph: &KernelGraph, result: &ResultRole, arg: &ArgRole) -> bool {
    let find = |f: &dyn Fn(&BufferRole) -> bool| graph.buffers.iter().position(|b| f(&b.role));
    let written = find(&|role| matches!(role, BufferRole::Result(roles) if roles.len() == 1 && roles[0] == *result));
    let read = find(&|role| matches!(role, BufferRole::Arg(role) if role == arg));
    let (Some(written), Some(read)) = (written, read) else { return false };
    let uses = |b: usize| graph.launches.iter().enumerate().filter(move |(_, l)| l.buffers.contains(&b));
    let (Some((first, launch)), Some((last, _))) = (uses(written).next(), uses(read).next_back()) else { return false };
    let at = |b: usize| launch.buffers.iter().position(|&x| x == b);
    let pairs = in_place(&graph.kernels[launch.kernel]);
    first == last
        && pairs.iter().any(|p| at(read) == Some(p.read.0 as usize) && at(written) == Some(p.written.0 as usize))
}
