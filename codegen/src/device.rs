//! A device: its facts, its buffers, and the launch of kernels on it.

#[cfg(feature = "wgpu")]
use crate::client::{ClientDevice, ClientKernel};
#[cfg(feature = "cpu")]
use crate::host::{HostDevice, HostKernel, HostMemory};
use crate::kernel::KernelKey;
use foveate_compiler::ir::Elem;
use foveate_compiler::loops::{Kernel, verify::verify};
use foveate_compiler::schedule::Facts;
use std::str::FromStr;
use std::sync::Arc;

/// What runs kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// The processor, through LLVM.
    Cpu,
    /// A GPU (or a software one), through WGSL.
    Wgpu,
}

impl Backend {
    /// Those that this build has.
    pub fn available() -> Vec<Backend> {
        let mut out = Vec::new();
        if cfg!(feature = "cpu") {
            out.push(Backend::Cpu);
        }
        if cfg!(feature = "wgpu") {
            out.push(Backend::Wgpu);
        }
        out
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Cpu => "cpu",
            Backend::Wgpu => "wgpu",
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Backend, String> {
        let known = [Backend::Cpu, Backend::Wgpu];
        let found = known.into_iter().find(|b| b.name() == name);
        found.ok_or_else(|| format!("no device `{name}`; there are {}", known.map(Backend::name).join(", ")))
    }
}

/// Alignment of slices of buffers, in bytes.
pub const SLICE_ALIGNMENT: usize = 256;

/// A device that is open. All its work is done in the order it is asked for, from whatever thread.
pub struct Device {
    backend: Backend,
    facts: Facts,
    runtime: Runtime,
}

enum Runtime {
    #[cfg(feature = "cpu")]
    Host(HostDevice),
    #[cfg(feature = "wgpu")]
    Client(ClientDevice),
}

/// A buffer in device memory, or a slice of one. Clones share the memory, which lives as long as one of them.
#[derive(Clone)]
pub struct BufferHandle {
    memory: Memory,
    offset: usize,
    bytes: usize,
}

#[derive(Clone)]
enum Memory {
    #[cfg(feature = "cpu")]
    Host(Arc<HostMemory>),
    /// With the offset applied.
    #[cfg(feature = "wgpu")]
    Client(cubecl::server::Handle),
}

/// A kernel ready to be launched.
#[derive(Clone)]
pub struct CompiledKernel {
    name: String,
    /// Name, element type and length of its buffers.
    buffers: Vec<(String, Elem, usize)>,
    items: u32,
    code: Code,
}

#[derive(Clone)]
enum Code {
    #[cfg(feature = "cpu")]
    Host(Arc<HostKernel>),
    #[cfg(feature = "wgpu")]
    Client(Arc<ClientKernel>),
}

impl CompiledKernel {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl BufferHandle {
    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part of it. `offset` and `len` are in bytes; the offset must be a multiple of [`SLICE_ALIGNMENT`], the length of 4, and
    /// the part inside.
    pub fn slice(&self, offset: usize, len: usize) -> Result<BufferHandle, String> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.bytes);
        if !inside || !offset.is_multiple_of(SLICE_ALIGNMENT) || !len.is_multiple_of(4) {
            return Err(format!(
                "no slice of {len} bytes at {offset} of a buffer of {} bytes: it must lie inside, begin at a multiple of \
                 {SLICE_ALIGNMENT} and be a multiple of 4 long",
                self.bytes
            ));
        }
        let memory = match &self.memory {
            #[cfg(feature = "cpu")]
            Memory::Host(memory) => Memory::Host(memory.clone()),
            #[cfg(feature = "wgpu")]
            Memory::Client(handle) => {
                let rest = (self.bytes - offset - len) as u64;
                Memory::Client(handle.clone().offset_start(offset as u64).offset_end(rest))
            }
        };
        Ok(BufferHandle { memory, offset: self.offset + offset, bytes: len })
    }
}

/// What a buffer or kernel of another device's kind meets.
#[cfg(all(feature = "cpu", feature = "wgpu"))]
const FOREIGN: &str = "it belongs to another device";

impl Device {
    /// Opens a device. Fails if this build does not have it or the machine has none.
    pub fn open(backend: Backend) -> Result<Device, String> {
        match backend {
            #[cfg(feature = "cpu")]
            Backend::Cpu => Ok(Device::processor(std::thread::available_parallelism().map_or(1, |n| n.get()))),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => {
                let device = ClientDevice::open(cubecl::Device::Wgpu(Default::default()));
                let device = device.map_err(|e| format!("device `{}` could not be opened: {e}", backend.name()))?;
                Ok(Device { backend, facts: device.facts(), runtime: Runtime::Client(device) })
            }
            #[allow(unreachable_patterns)]
            other => {
                let has = Backend::available().into_iter().map(Backend::name).collect::<Vec<_>>().join(", ");
                let name = other.name();
                Err(format!("this build has no device `{name}` (it has: {has}); build it with `--features {name}`"))
            }
        }
    }

    /// The processor with so many threads (at least one), whatever the number of its cores.
    #[cfg(feature = "cpu")]
    pub fn processor(threads: usize) -> Device {
        let device = HostDevice::new(threads.max(1));
        Device { backend: Backend::Cpu, facts: device.facts(), runtime: Runtime::Host(device) }
    }

    /// Which device it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The name of the processor or graphics adapter, as far as the system tells it.
    pub fn model(&self) -> String {
        match &self.runtime {
            #[cfg(feature = "cpu")]
            Runtime::Host(device) => device.model(),
            #[cfg(feature = "wgpu")]
            Runtime::Client(device) => device.model(),
        }
    }

    /// What schedules may use of it.
    pub fn facts(&self) -> Facts {
        self.facts.clone()
    }

    /// A buffer of undefined contents, or of zeros where [`Device::allocates_zeros`]; `bytes` is rounded up to a multiple of 4.
    pub fn allocate(&self, bytes: usize) -> BufferHandle {
        let bytes = bytes.next_multiple_of(4).max(4);
        let memory = match &self.runtime {
            #[cfg(feature = "cpu")]
            Runtime::Host(_) => Memory::Host(Arc::new(HostMemory::new(bytes))),
            #[cfg(feature = "wgpu")]
            Runtime::Client(device) => Memory::Client(device.allocate(bytes)),
        };
        BufferHandle { memory, offset: 0, bytes }
    }

    /// Whether the contents of a new buffer are zeros.
    pub fn allocates_zeros(&self) -> bool {
        self.backend == Backend::Cpu
    }

    /// Overwrites a buffer with as many bytes as it has.
    pub fn upload(&self, buffer: &BufferHandle, data: &[u8]) -> Result<(), String> {
        if data.len() != buffer.bytes {
            return Err(format!("{} bytes for a buffer of {} bytes", data.len(), buffer.bytes));
        }
        match (&self.runtime, &buffer.memory) {
            #[cfg(feature = "cpu")]
            (Runtime::Host(device), Memory::Host(memory)) => device.write(memory, buffer.offset, data),
            #[cfg(feature = "wgpu")]
            (Runtime::Client(device), Memory::Client(handle)) => device.write(handle, data),
            #[cfg(all(feature = "cpu", feature = "wgpu"))]
            _ => return Err(format!("cannot write a buffer: {FOREIGN}")),
        }
        Ok(())
    }

    /// The contents of a buffer, after all launches so far.
    pub fn download(&self, buffer: &BufferHandle) -> Result<Vec<u8>, String> {
        match (&self.runtime, &buffer.memory) {
            #[cfg(feature = "cpu")]
            (Runtime::Host(device), Memory::Host(memory)) => Ok(device.read(memory, buffer.offset, buffer.bytes)),
            #[cfg(feature = "wgpu")]
            (Runtime::Client(device), Memory::Client(handle)) => {
                device.read(handle, buffer.bytes).map_err(|e| format!("reading a buffer: {e}"))
            }
            #[cfg(all(feature = "cpu", feature = "wgpu"))]
            _ => Err(format!("cannot read a buffer: {FOREIGN}")),
        }
    }

    /// Checks a kernel and has it compiled in the background, on the CPU several at a time, while the caller goes on. Kernels that
    /// are equal (but for names) are compiled once. What the device's compiler rejects is reported by the first
    /// [`Device::launch`].
    pub fn compile(&self, kernel: &Kernel) -> Result<CompiledKernel, String> {
        verify(kernel)?;
        let widest = kernel.values.iter().map(|t| t.lanes as usize).max().unwrap_or(1);
        // LLVM splits wide vectors, shading languages have none.
        if self.backend != Backend::Cpu && widest > self.facts.lanes {
            let (name, device, limit) = (&kernel.name, self.backend.name(), self.facts.lanes);
            return Err(format!("kernel `{name}` has vectors of {widest} lanes; device `{device}` has {limit}"));
        }
        let key = KernelKey::new(kernel);
        let code = match &self.runtime {
            #[cfg(feature = "cpu")]
            Runtime::Host(device) => Code::Host(device.compile(key)),
            #[cfg(feature = "wgpu")]
            Runtime::Client(device) => Code::Client(Arc::new(device.compile(key, kernel))),
        };
        let buffers = kernel.buffers.iter().map(|b| (b.name.clone(), b.elem, b.len)).collect();
        Ok(CompiledKernel { name: kernel.name.clone(), buffers, items: kernel.items, code })
    }

    /// Lets go of the machine code of kernels of which no [`CompiledKernel`] is left; they are compiled again if they are asked for again.
    pub fn forget_unused(&self) {
        match &self.runtime {
            #[cfg(feature = "cpu")]
            Runtime::Host(device) => device.forget_unused(),
            // CubeCL keeps what it has compiled.
            #[cfg(feature = "wgpu")]
            Runtime::Client(_) => {}
        }
    }

    /// Runs a kernel after everything asked for before. `buffers` are those of the kernel, in its order, at least as long as it
    /// says; what it writes must not overlap another of its buffers. The first launch of a kernel waits for its compilation and
    /// reports its failure.
    pub fn launch(&self, kernel: &CompiledKernel, buffers: &[&BufferHandle]) -> Result<(), String> {
        if buffers.len() != kernel.buffers.len() {
            let (name, given, want) = (&kernel.name, buffers.len(), kernel.buffers.len());
            return Err(format!("kernel `{name}` takes {want} buffers, {given} given"));
        }
        for (given, (buffer, elem, len)) in buffers.iter().zip(&kernel.buffers) {
            if given.bytes < len * 4 {
                let (name, bytes) = (&kernel.name, given.bytes);
                return Err(format!(
                    "kernel `{name}`: buffer `{buffer}` needs {len} elements of {elem:?}, given {bytes} bytes"
                ));
            }
        }
        if kernel.items == 0 {
            return Ok(());
        }
        let outcome = match (&self.runtime, &kernel.code) {
            #[cfg(feature = "cpu")]
            (Runtime::Host(device), Code::Host(code)) => {
                let host = |b: &&BufferHandle| match &b.memory {
                    Memory::Host(memory) => Ok((memory.clone(), b.offset)),
                    #[cfg(feature = "wgpu")]
                    _ => Err(FOREIGN.to_owned()),
                };
                let memory = buffers.iter().map(host).collect::<Result<Vec<_>, String>>();
                memory.and_then(|memory| {
                    let places = memory.iter().map(|(m, offset)| (&**m, *offset)).collect::<Vec<_>>();
                    device.launch(code, kernel.items, &places)
                })
            }
            #[cfg(feature = "wgpu")]
            (Runtime::Client(device), Code::Client(code)) => {
                let handle = |b: &&BufferHandle| match &b.memory {
                    Memory::Client(handle) => Ok(handle.clone()),
                    #[cfg(feature = "cpu")]
                    _ => Err(FOREIGN.to_owned()),
                };
                let handles = buffers.iter().map(handle).collect::<Result<Vec<_>, String>>();
                handles.and_then(|handles| device.launch(code, &handles.iter().collect::<Vec<_>>()))
            }
            #[cfg(all(feature = "cpu", feature = "wgpu"))]
            _ => Err(FOREIGN.to_owned()),
        };
        outcome.map_err(|e| format!("kernel `{}` on device `{}`: {e}", kernel.name, self.backend.name()))
    }

    /// Waits for everything that was asked for.
    pub fn sync(&self) -> Result<(), String> {
        match &self.runtime {
            #[cfg(feature = "cpu")]
            Runtime::Host(_) => Ok(()),
            #[cfg(feature = "wgpu")]
            Runtime::Client(device) => device.sync().map_err(|e| format!("device `{}`: {e}", self.backend.name())),
        }
    }
}
