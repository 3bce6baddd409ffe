//! Devices by name.

use crate::error::{Error, Result};
use foveate_compiler::loops::Kernel;
use foveate_compiler::schedule::Facts;
use serde::Serialize;
use std::sync::Arc;

#[cfg(feature = "kernels")]
use foveate_codegen::Backend;

/// What runs programs.
#[derive(Clone)]
pub enum Device {
    /// The index IR in float64, as written: the oracle.
    Interpreter,
    /// Kernels in loop IR on the host, every access checked: slow, for tests of schedules.
    Loops,
    /// Compiled kernels.
    #[cfg(feature = "kernels")]
    Kernels(Arc<foveate_codegen::Device>),
}

/// A device and what it can do, for a listing.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceInfo {
    /// What `--device` calls it.
    pub name: String,
    /// Whether this build and this machine have it.
    pub available: bool,
    /// What it is, or why it is not there.
    pub description: String,
    /// Lanes of a float vector; 0 if not available.
    pub lanes: usize,
    /// Units that work at the same time; 0 if not available.
    pub units: usize,
}

/// The names that `--device` takes.
pub const NAMES: [&str; 4] = ["cpu", "interpreter", "loops", "wgpu"];

impl Device {
    /// Opens the device of a name.
    pub fn open(name: &str) -> Result<Device> {
        match name {
            "interpreter" => Ok(Device::Interpreter),
            "loops" => Ok(Device::Loops),
            "cpu" | "wgpu" => kernels(name),
            _ => Err(Error::Setting(format!("no device `{name}`: expected one of {}", NAMES.join(", ")))),
        }
    }
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Device::Interpreter => "interpreter",
            Device::Loops => "loops",
            #[cfg(feature = "kernels")]
            Device::Kernels(d) => d.backend().name(),
        }
    }
    /// The name of the hardware, as far as the system tells it.
    pub fn model(&self) -> String {
        match self {
            Device::Interpreter | Device::Loops => std::env::consts::ARCH.to_owned(),
            #[cfg(feature = "kernels")]
            Device::Kernels(d) => d.model(),
        }
    }
    /// What schedules may use of it; nothing is scheduled for the interpreter.
    pub fn facts(&self) -> Option<Facts> {
        match self {
            Device::Interpreter => None,
            Device::Loops => Some(Facts::USUAL),
            #[cfg(feature = "kernels")]
            Device::Kernels(d) => Some(d.facts()),
        }
    }
    /// Default bounds of `verify` on outputs and on gradients, as relative L2 errors: float64, a CPU, a GPU.
    pub fn bounds(&self) -> (f64, f64) {
        match self {
            Device::Interpreter => (1e-6, 1e-6),
            Device::Loops => (1e-5, 1e-4),
            #[cfg(feature = "kernels")]
            Device::Kernels(d) if d.backend() == Backend::Cpu => (1e-5, 1e-4),
            #[cfg(feature = "kernels")]
            Device::Kernels(_) => (1e-4, 1e-3),
        }
    }
    /// Whether a kernel's result may lie where something lies that it reads, see [`foveate_compiler::loops::in_place`]. Graphics interfaces
    /// forbid to bind memory twice if it is written.
    pub fn works_in_place(&self) -> bool {
        match self {
            Device::Interpreter => false,
            Device::Loops => true,
            #[cfg(feature = "kernels")]
            Device::Kernels(d) => d.backend() == Backend::Cpu,
        }
    }
    /// Waits for everything it was given to do.
    pub fn sync(&self) -> Result<()> {
        match self {
            Device::Interpreter | Device::Loops => Ok(()),
            #[cfg(feature = "kernels")]
            Device::Kernels(d) => d.sync().map_err(Error::Device),
        }
    }
    /// Lets go of what was compiled and can no longer be run.
    pub(crate) fn forget_unused(&self) {
        match self {
            Device::Interpreter | Device::Loops => {}
            #[cfg(feature = "kernels")]
            Device::Kernels(d) => d.forget_unused(),
        }
    }
    pub(crate) fn compile(&self, kernel: &Kernel) -> Result<Compiled> {
        match self {
            Device::Interpreter | Device::Loops => Ok(Compiled::Loops(Arc::new(kernel.clone()))),
            #[cfg(feature = "kernels")]
            Device::Kernels(d) => d.compile(kernel).map(Compiled::Kernel).map_err(Error::Device),
        }
    }
}

/// A kernel that is ready to run.
#[derive(Clone)]
pub(crate) enum Compiled {
    /// To be evaluated as it is.
    Loops(Arc<Kernel>),
    #[cfg(feature = "kernels")]
    Kernel(foveate_codegen::CompiledKernel),
}

impl Compiled {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        match self {
            Compiled::Loops(k) => &k.name,
            #[cfg(feature = "kernels")]
            Compiled::Kernel(k) => k.name(),
        }
    }
}

#[cfg(feature = "kernels")]
fn kernels(name: &str) -> Result<Device> {
    let backend: Backend = name.parse().map_err(Error::Device)?;
    foveate_codegen::Device::open(backend).map(|d| Device::Kernels(Arc::new(d))).map_err(Error::Device)
}
#[cfg(not(feature = "kernels"))]
fn kernels(name: &str) -> Result<Device> {
    Err(Error::Device(format!("this build has no device `{name}`; build with `--features {name}`")))
}

/// All devices, there or not.
pub fn devices() -> Vec<DeviceInfo> {
    NAMES
        .iter()
        .map(|&name| match Device::open(name) {
            Ok(device) => {
                let (lanes, units) = device.facts().map_or((1, 1), |f| (f.lanes, f.units));
                let description = match name {
                    "interpreter" => "float64 interpreter of the index IR: the oracle, slow".to_owned(),
                    "loops" => "checked evaluator of the loop IR on the host: for tests, slow".to_owned(),
                    "cpu" => format!("this machine's processor, {units} threads, vectors of {lanes} floats"),
                    _ => format!("graphics adapter through wgpu, vectors of {lanes} floats"),
                };
                DeviceInfo { name: name.to_owned(), available: true, description, lanes, units }
            }
            Err(e) => {
                DeviceInfo { name: name.to_owned(), available: false, description: e.to_string(), lanes: 0, units: 0 }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let message = Device::open("tpu").err().map(|e| e.to_string());
        assert_eq!(message.as_deref(), Some("no device `tpu`: expected one of cpu, interpreter, loops, wgpu"));
        assert_eq!(Device::open("interpreter").map(|d| d.name()).ok(), Some("interpreter"));
        assert_eq!(devices().len(), NAMES.len());
    }
}
