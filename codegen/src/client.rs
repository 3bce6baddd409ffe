//! A device behind one of CubeCL's runtimes.

use crate::kernel::{KernelKey, LoopKernel};
use cubecl::bytes::Bytes;
use cubecl::client::Client;
use cubecl::compute::KernelLauncher;
use cubecl::dry_run::DryRun;
use cubecl::future::block_on;
use cubecl::ir::attributes::BufferIOAttr;
use cubecl::prelude::{BufferArg, CubeCount};
use cubecl::server::Handle;
use foveate_compiler::loops::Kernel;
use foveate_compiler::schedule::Facts;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Launches that may wait in the queue. CubeCL itself bounds what the device has before it; this bounds the memory of what has not got there, and is so
/// large that waiting for the last of them costs nothing beside them.
const QUEUE: usize = 2048;
/// Elements of a tensor of all pairs that has memory: a few of them, which are all that there are at a time, take a small part of what such devices have.
const PAIRS: usize = 32 << 20;
/// Work items of a cube.
const UNITS: u32 = 64;
/// Cubes along one axis of the grid.
const CUBES: u32 = 65_535;

/// A device of a CubeCL runtime.
pub struct ClientDevice {
    client: Client,
    /// Launches since the last wait.
    queued: AtomicUsize,
}

/// A kernel for such a device.
pub struct ClientKernel {
    kernel: LoopKernel,
    cubes: (u32, u32),
    /// Length in elements and whether it is written, a buffer.
    buffers: Vec<(usize, bool)>,
    /// Whether a launch has been seen to compile.
    checked: AtomicBool,
}

/// Compilation without execution is a mode of the whole process in CubeCL, so launches of all devices take turns with it.
static LAUNCHING: Mutex<()> = Mutex::new(());

fn launching() -> MutexGuard<'static, ()> {
    LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientDevice {
    /// Opens a device; fails where the machine has none.
    pub fn open(device: cubecl::Device) -> Result<ClientDevice, String> {
        // Opening panics where there is no adapter.
        let mut client = std::panic::catch_unwind(|| device.client()).map_err(|_| "the machine has none that works")?;
        let stream = client.empty(4).stream;
        // SAFETY: one stream (this thread's) for all threads only means that their work is done in order.
        unsafe { client.set_stream(stream) };
        Ok(ClientDevice { client, queued: AtomicUsize::new(0) })
    }

    /// What the adapter calls itself.
    pub fn model(&self) -> String {
        self.client.properties().identity.name.clone()
    }

    /// What schedules may use.
    pub fn facts(&self) -> Facts {
        let hardware = &self.client.properties().hardware;
        // Graphics interfaces do not tell; a large one has so many.
        let cores = hardware.num_streaming_multiprocessors.unwrap_or(128) as usize;
        // CubeCL binds sizes beside a kernel's own buffers.
        let tensors = (hardware.max_bindings as usize).saturating_sub(1);
        Facts {
            lanes: 4,
            units: cores * 256,
            local_bytes: 4 << 10,
            registers: 16,
            tensors,
            lockstep: true,
            pairs: PAIRS,
        }
    }

    /// A buffer of undefined contents.
    pub fn allocate(&self, bytes: usize) -> Handle {
        self.client.empty(bytes)
    }

    /// Overwrites a buffer.
    pub fn write(&self, buffer: &Handle, data: &[u8]) {
        self.client.write(buffer, Bytes::from_bytes_vec(data.to_vec()));
    }

    /// The contents of a buffer, after all launches so far.
    pub fn read(&self, buffer: &Handle, bytes: usize) -> Result<Vec<u8>, String> {
        self.queued.store(0, Ordering::Relaxed);
        let data = self.client.read_one(buffer.clone()).map_err(|e| e.to_string())?;
        data.get(..bytes).map(<[u8]>::to_vec).ok_or_else(|| format!("{} bytes came back, expected {bytes}", data.len()))
    }

    /// Has a kernel compiled in the background.
    pub fn compile(&self, key: KernelKey, kernel: &Kernel) -> ClientKernel {
        let needed = kernel.items.div_ceil(UNITS);
        let cubes = if needed <= CUBES { (needed, 1) } else { (CUBES, needed.div_ceil(CUBES)) };
        let guarded = cubes.0 as u64 * cubes.1 as u64 * UNITS as u64 != kernel.items as u64;
        let compiled = ClientKernel {
            kernel: LoopKernel::new(key, UNITS, guarded),
            cubes,
            buffers: kernel.buffers.iter().map(|b| (b.len, b.written)).collect(),
            checked: AtomicBool::new(false),
        };
        let stand_in = self.client.empty(4);
        let buffers = vec![&stand_in; compiled.buffers.len()];
        let _turn = launching();
        let _compile_only = DryRun::new();
        self.submit(&compiled, &buffers);
        compiled
    }

    /// Queues a kernel. The first launch waits for its compilation and reports its failure.
    pub fn launch(&self, kernel: &ClientKernel, buffers: &[&Handle]) -> Result<(), String> {
        {
            let _turn = launching();
            self.submit(kernel, buffers);
        }
        if !kernel.checked.load(Ordering::Relaxed) {
            let written = buffers.iter().zip(&kernel.buffers).filter(|(_, b)| b.1).map(|(h, _)| *h);
            self.client.check(written).map_err(|e| e.to_string())?;
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
        block_on(self.client.sync()).map_err(|e| e.to_string())
    }

    /// Hands a launch to CubeCL.
    fn submit(&self, kernel: &ClientKernel, buffers: &[&Handle]) {
        let mut launcher = KernelLauncher::new(kernel.kernel.settings());
        for (given, (len, written)) in buffers.iter().zip(&kernel.buffers) {
            launcher.declare_io(if *written { BufferIOAttr::ReadWrite } else { BufferIOAttr::ReadOnly });
            // SAFETY: `Device::launch` has checked that the buffer is as long.
            launcher.register_buffer(unsafe { BufferArg::from_raw_parts((*given).clone(), *len) }, 4);
        }
        launcher.launch(CubeCount::Static(kernel.cubes.0, kernel.cubes.1, 1), kernel.kernel.clone(), &self.client);
    }
}
