//! One lowering from the loop IR to CubeCL, and the device that runs what comes out.
//!
//! A [`Device`] is opened for a [`Backend`], reports its [`Facts`], holds buffers, compiles [`Kernel`]s and launches them in order.
//! Kernels are data: nothing is generated as source text and no Rust compiler runs. `walk` goes through a kernel's statements
//! and writes CubeCL's IR, which CubeCL then lowers for the device (LLVM on the CPU, WGSL through wgpu).
//!
//! [`Kernel`]: foveate_compiler::loops::Kernel
//! [`Facts`]: foveate_compiler::schedule::Facts

#[cfg(all(feature = "cpu", target_arch = "x86_64"))]
mod avx512;
#[cfg(feature = "wgpu")]
mod client;
pub mod device;
mod emit;
mod functions;
#[cfg(feature = "cpu")]
mod host;
mod kernel;
#[cfg(feature = "cpu")]
mod llvm;
mod memory;
#[cfg(feature = "cpu")]
mod pool;
mod strides;
mod walk;
// Processors read vectors anywhere.
#[cfg_attr(not(feature = "wgpu"), allow(dead_code))]
mod wide;

pub use device::{Backend, BufferHandle, CompiledKernel, Device};
