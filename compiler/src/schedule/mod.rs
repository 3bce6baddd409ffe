//! From the index IR to a graph of kernels: what is stored, what is fused, and the loop nest of each kernel.

use crate::ir::{ArgRole, Elem, ResultRole};
use crate::loops::Kernel;

/// What a schedule may use of a device.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Lanes of a float vector (a power of two; 1 for none).
    pub lanes: usize,
    /// Units that run at the same time; fewer work items than these leave some idle.
    pub units: usize,
    /// Bytes of private memory a work item may use.
    pub local_bytes: usize,
    /// Vector registers that a register tile may fill.
    pub registers: usize,
}

/// A program as kernels and launches.
#[derive(Clone, Debug)]
pub struct KernelGraph {
    /// All device buffers.
    pub buffers: Vec<GraphBuffer>,
    /// The distinct kernels.
    pub kernels: Vec<Kernel>,
    /// What to run, in order.
    pub launches: Vec<Launch>,
}

/// A device buffer of a graph.
#[derive(Clone, Debug)]
pub struct GraphBuffer {
    /// For people.
    pub name: String,
    /// Element type (bool is stored as u32).
    pub elem: Elem,
    /// Dimensions, row-major.
    pub shape: Vec<usize>,
    /// Where it comes from and goes to.
    pub role: BufferRole,
}

/// What a buffer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BufferRole {
    /// An argument of the entry function.
    Arg(ArgRole),
    /// One or more results of the entry function.
    Result(Vec<ResultRole>),
    /// Only lives inside the graph.
    Temporary,
}

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Which kernel.
    pub kernel: usize,
    /// Its buffers, in the kernel's order, as indices into the graph's.
    pub buffers: Vec<usize>,
    /// For people: what it computes, and where in the model.
    pub site: String,
}
