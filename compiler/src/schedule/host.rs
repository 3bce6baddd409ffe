//! Runs a graph on the host through the loop evaluator, which checks every access: how schedules are tested without a device.

use super::{BufferRole, KernelGraph};
use crate::ir::{ArgRole, ResultRole};
use crate::loops::eval::{self, BufferData};

/// Runs the graph; `arg` gives the contents of each argument. The results' buffers come with their roles.
///
/// # Errors
/// A kernel that does not verify or that reads or writes outside its buffers, with what it computes and its text: a fault of the compiler.
pub fn run(
    graph: &KernelGraph,
    arg: &dyn Fn(&ArgRole) -> BufferData,
) -> Result<Vec<(Vec<ResultRole>, BufferData)>, String> {
    let mut data: Vec<BufferData> = graph
        .buffers
        .iter()
        .map(|b| match &b.role {
            BufferRole::Arg(role) => arg(role),
            _ => BufferData::zeros(b.elem, b.shape.iter().product()),
        })
        .collect();
    for l in &graph.launches {
        let kernel = &graph.kernels[l.kernel];
        let guilty = |e: String| format!("{}: {e}\n{kernel}", l.site);
        crate::loops::verify::verify(kernel).map_err(guilty)?;
        let mut args: Vec<BufferData> = l.buffers.iter().map(|&b| data[b].clone()).collect();
        eval::run(kernel, &mut args).map_err(guilty)?;
        for (&b, d) in l.buffers.iter().zip(args) {
            data[b] = d;
        }
    }
    let results = graph.buffers.iter().zip(data).filter_map(|(b, d)| match &b.role {
        BufferRole::Result(roles) => Some((roles.clone(), d)),
        _ => None,
    });
    Ok(results.collect())
}
