//! A device: its facts, its buffers, and the launch of kernels on it.

use crate::emit::Target;
use crate::kernel::{KernelKey, LoopKernel};
use cubecl::bytes::Bytes;
use cubecl::client::Client;
use cubecl::compute::KernelLauncher;
use cubecl::dry_run::DryRun;
use cubecl::future::block_on;
use cubecl::ir::attributes::BufferIOAttr;
use cubecl::prelude::{BufferArg, CubeCount};
use cubecl::server::Handle;
use foveate_compiler::ir::Elem;
use foveate_compiler::loops::{Kernel, verify::verify};
use foveate_compiler::schedule::Facts;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Launches that may wait in the queue; CubeCL slows down when there are more than about 32.
const QUEUE: usize = 16;
/// Work items of a cube on a GPU.
const GPU_UNITS: u32 = 64;
/// Cubes along one axis of a GPU's grid.
const GPU_CUBES: u32 = 65_535;
/// Alignment of slices of buffers, in bytes.
pub const SLICE_ALIGNMENT: usize = 256;

/// A device that is open. All its work is done in the order it is asked for, from whatever thread.
pub struct Device {
    backend: Backend,
    client: Client,
    target: Target,
    /// Work items of a cube.
    units: u32,
    /// Launches since the last wait.
    queued: AtomicUsize,
    /// An argument of every CPU kernel, see [`Device::launch`].
    misaligned: Option<Handle>,
}

/// A buffer in device memory, or a slice of one. Clones share the memory, which lives as long as one of them.
#[derive(Clone, Debug)]
pub struct BufferHandle {
    handle: Handle,
    bytes: usize,
}

/// A kernel ready to be launched.
#[derive(Clone)]
pub struct CompiledKernel {
    name: String,
    kernel: LoopKernel,
    buffers: Vec<(String, Elem, usize, bool)>,
    items: u32,
    /// Whether a launch has been seen to compile.
    checked: Arc<AtomicBool>,
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

    /// A part of it. `offset` and `len` are in bytes; the offset must be a multiple of [`SLICE_ALIGNMENT`], both of 4, and the
    /// part inside.
    pub fn slice(&self, offset: usize, len: usize) -> Result<BufferHandle, String> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.bytes);
        if !inside || offset % SLICE_ALIGNMENT != 0 || len % 4 != 0 {
            let bytes = self.bytes;
            return Err(format!(
                "no slice of {len} bytes at {offset} of a buffer of {bytes} bytes: it must lie inside, begin at a multiple of {SLICE_ALIGNMENT} and be a multiple of 4 long"
            ));
        }
        let rest = (self.bytes - offset - len) as u64;
        let handle = self.handle.clone().offset_start(offset as u64).offset_end(rest);
        Ok(BufferHandle { handle, bytes: len })
    }
}

/// Compilation without execution is a mode of the whole process in CubeCL, so launches of all devices take turns with it.
static LAUNCHING: Mutex<()> = Mutex::new(());

fn launching() -> MutexGuard<'static, ()> {
    LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// Opens a device. Fails if this build does not have it or the machine has none.
    pub fn open(backend: Backend) -> Result<Device, String> {
        if !Backend::available().contains(&backend) {
            let has = Backend::available().into_iter().map(Backend::name).collect::<Vec<_>>().join(", ");
            let name = backend.name();
            return Err(format!("this build has no device `{name}` (it has: {has}); build with `--features {name}`"));
        }
        let device = match backend {
            Backend::Cpu => cubecl::Device::Cpu(Default::default()),
            Backend::Wgpu => cubecl::Device::Wgpu(Default::default()),
        };
        // Opening panics where there is no adapter.
        let mut client = std::panic::catch_unwind(|| device.client())
            .map_err(|_| format!("device `{}` could not be opened: the machine has none that works", backend.name()))?;
        let stream = client.empty(4).stream;
        // SAFETY: one stream (this thread's) for all threads only means that their work is done in order.
        unsafe { client.set_stream(stream) };
        let cpu = backend == Backend::Cpu;
        let units = if cpu { client.properties().hardware.num_cpu_cores.unwrap_or(1) } else { GPU_UNITS };
        let misaligned = cpu.then(|| client.empty(8).offset_start(4));
        let target = Target { wide_index: cpu, vector_pointers: cpu };
        Ok(Device { backend, client, target, units, queued: AtomicUsize::new(0), misaligned })
    }

    /// Which device it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// What schedules may use of it.
    pub fn facts(&self) -> Facts {
        let hardware = &self.client.properties().hardware;
        match self.backend {
            Backend::Cpu => {
                let lanes = (hardware.load_width as usize / 32).clamp(1, 16);
                // A tile's accumulators and operands leave a few registers free.
                let registers = hardware.vector_register_count.map_or(16, |r| r as usize) * 7 / 8;
                Facts { lanes, units: self.units as usize, local_bytes: 64 << 10, registers }
            }
            Backend::Wgpu => {
                let cores = hardware.num_streaming_multiprocessors.unwrap_or(16) as usize;
                Facts { lanes: 4, units: cores * 256, local_bytes: 4 << 10, registers: 16 }
            }
        }
    }

    /// A buffer of undefined contents; `bytes` is rounded up to a multiple of 4.
    pub fn allocate(&self, bytes: usize) -> BufferHandle {
        let bytes = bytes.next_multiple_of(4).max(4);
        BufferHandle { handle: self.client.empty(bytes), bytes }
    }

    /// Overwrites a buffer with as many bytes as it has.
    pub fn upload(&self, buffer: &BufferHandle, data: &[u8]) -> Result<(), String> {
        if data.len() != buffer.bytes {
            return Err(format!("{} bytes for a buffer of {} bytes", data.len(), buffer.bytes));
        }
        // CubeCL's queue of writes and launches is one, so this lands in order.
        self.client.write(&buffer.handle, Bytes::from_bytes_vec(data.to_vec()));
        Ok(())
    }

    /// The contents of a buffer, after all launches so far.
    pub fn download(&self, buffer: &BufferHandle) -> Result<Vec<u8>, String> {
        self.queued.store(0, Ordering::Relaxed);
        let bytes = self.client.read_one(buffer.handle.clone()).map_err(|e| format!("reading a buffer: {e}"))?;
        Ok(bytes[..buffer.bytes].to_vec())
    }

    /// Checks a kernel and has it compiled in the background, while the caller goes on. Kernels that are equal (but for names)
    /// are compiled once. What the device's compiler rejects is reported by the first [`Device::launch`].
    pub fn compile(&self, kernel: &Kernel) -> Result<CompiledKernel, String> {
        verify(kernel)?;
        let limit = self.facts().lanes;
        let widest = kernel.values.iter().map(|t| t.lanes as usize).max().unwrap_or(1);
        if self.backend != Backend::Cpu && widest > limit {
            let (name, device) = (&kernel.name, self.backend.name());
            return Err(format!("kernel `{name}` has vectors of {widest} lanes; device `{device}` has {limit}"));
        }
        let (x, y) = self.cubes(kernel.items);
        let guarded = x as u64 * y as u64 * self.units as u64 != kernel.items as u64;
        let compiled = CompiledKernel {
            name: kernel.name.clone(),
            kernel: LoopKernel::new(KernelKey::new(kernel), self.target, self.units, guarded),
            buffers: kernel.buffers.iter().map(|b| (b.name.clone(), b.elem, b.len, b.written)).collect(),
            items: kernel.items,
            checked: Arc::new(AtomicBool::new(false)),
        };
        let stand_in = self.allocate(4);
        let buffers = vec![&stand_in; compiled.buffers.len()];
        let _turn = launching();
        let _compile_only = DryRun::new();
        self.submit(&compiled, &buffers);
        Ok(compiled)
    }

    /// Queues a kernel. `buffers` are those of the kernel, in its order, at least as long as it says; what it writes must not be
    /// another of its buffers. The first launch of a kernel waits for its compilation and reports its failure.
    pub fn launch(&self, kernel: &CompiledKernel, buffers: &[&BufferHandle]) -> Result<(), String> {
        if buffers.len() != kernel.buffers.len() {
            let (name, given, want) = (&kernel.name, buffers.len(), kernel.buffers.len());
            return Err(format!("kernel `{name}` takes {want} buffers, {given} given"));
        }
        for (given, (buffer, elem, len, _)) in buffers.iter().zip(&kernel.buffers) {
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
        {
            let _turn = launching();
            self.submit(kernel, buffers);
        }
        if !kernel.checked.load(Ordering::Relaxed) {
            let written = buffers.iter().zip(&kernel.buffers).filter(|(_, b)| b.3).map(|(h, _)| &h.handle);
            self.client.check(written).map_err(|e| format!("kernel `{}` does not compile: {e}", kernel.name))?;
            kernel.checked.store(true, Ordering::Relaxed);
        }
        if self.queued.fetch_add(1, Ordering::Relaxed) + 1 >= QUEUE {
            self.sync()?;
        }
        Ok(())
    }

    /// Waits for everything that was queued.
    pub fn sync(&self) -> Result<(), String> {
        self.queued.store(0, Ordering::Relaxed);
        block_on(self.client.sync()).map_err(|e| format!("device `{}`: {e}", self.backend.name()))
    }

    /// Hands a launch to CubeCL.
    fn submit(&self, kernel: &CompiledKernel, buffers: &[&BufferHandle]) {
        let mut launcher = KernelLauncher::new(kernel.kernel.settings());
        for (given, (_, _, len, written)) in buffers.iter().zip(&kernel.buffers) {
            launcher.declare_io(if *written { BufferIOAttr::ReadWrite } else { BufferIOAttr::ReadOnly });
            // SAFETY: the buffer was checked to be at least as long.
            launcher.register_buffer(unsafe { BufferArg::from_raw_parts(given.handle.clone(), *len) }, 4);
        }
        if let Some(misaligned) = &self.misaligned {
            // The CPU runtime takes the least alignment of a kernel's buffers as that of all its vector accesses. Loop kernels
            // load vectors from anywhere, so one argument, which no kernel touches, has the alignment of an element.
            launcher.declare_io(BufferIOAttr::Dead);
            // SAFETY: it has one element.
            launcher.register_buffer(unsafe { BufferArg::from_raw_parts(misaligned.clone(), 1) }, 4);
        }
        let (x, y) = self.cubes(kernel.items);
        launcher.launch(CubeCount::Static(x, y, 1), kernel.kernel.clone(), &self.client);
    }

    /// The grid of cubes that has at least so many work items.
    fn cubes(&self, items: u32) -> (u32, u32) {
        let cubes = items.div_ceil(self.units);
        if self.backend == Backend::Cpu || cubes <= GPU_CUBES {
            (cubes, 1)
        } else {
            (GPU_CUBES, cubes.div_ceil(GPU_CUBES))
        }
    }
}
