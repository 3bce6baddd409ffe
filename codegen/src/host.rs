//! The processor as a device: CubeCL's LLVM compiler, and threads of our own to run what it makes.
//!
//! CubeCL's own CPU runtime compiles one kernel at a time on its device thread, promises the alignment of a whole vector to every
//! vector access, and splits work items evenly beforehand. Here kernels are compiled on several threads in the background, vectors
//! are loaded from any element, and each thread begins with the same part of the items in every kernel, then helps the others.

use crate::kernel::{HostKernels, KernelKey};
use crate::pool::Pool;
use cubecl::{CompilationError, Compiler, define_kernel};
use cubecl_llvm::{LlvmTarget, PlironCompiler, PlironData, PlironEngine, PlironOptions};
use foveate_compiler::loops::Kernel;
use foveate_compiler::loops::digest::Digest;
use foveate_compiler::schedule::Facts;
use memmap2::MmapMut;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;

/// Work items are handed to threads in about so many chunks a thread.
const CHUNKS: usize = 16;

/// Memory of a buffer: whole pages of its own.
///
/// The system is asked for huge pages: a kernel that goes down a column touches a page a row, more than the translation buffers of a core
/// hold when pages are small.
pub struct HostMemory {
    /// Kept mapped.
    _pages: MmapMut,
    start: *mut u8,
}

// SAFETY: the bytes are only touched by `HostDevice`, which does one thing at a time; threads of one launch write
// disjoint elements (a kernel's contract).
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

/// A huge page of x86-64 and of most Arm systems.
const HUGE_PAGE: usize = 2 << 20;

impl HostMemory {
    /// `bytes` zeros.
    pub fn new(bytes: usize) -> HostMemory {
        // A large buffer begins where a huge page may.
        let slack = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let mut pages = MmapMut::map_anon(bytes.max(1) + slack).unwrap_or_else(|_| {
            let layout = std::alloc::Layout::new::<u8>();
            std::alloc::handle_alloc_error(layout)
        });
        let mut start = pages.as_mut_ptr();
        #[cfg(target_os = "linux")]
        if slack > 0 {
            start = start.wrapping_add(start.align_offset(HUGE_PAGE));
            // Where the system refuses, pages stay small.
            let _ = pages.advise(memmap2::Advice::HugePage);
        }
        HostMemory { _pages: pages, start }
    }

    fn pointer(&self) -> *mut u8 {
        self.start
    }
}

/// A kernel's machine code, now or later.
pub struct HostKernel {
    pack: Arc<Pack>,
    /// Its number in the pack.
    number: u32,
    /// Where its buffers begin among the pack's.
    first: usize,
}

/// Kernels that are compiled as one. LLVM keeps its description of the processor for everything that it has compiled, 0.8 MB: as much
/// as the smaller tensors of a model.
struct Pack {
    state: Mutex<State>,
    done: Condvar,
}

enum State {
    /// The kernels, which are not kept when they are compiled: those of a large model take as much memory as its smaller tensors.
    Waiting(HostKernels),
    Compiling,
    Done(Result<Code, String>),
}

/// What was compiled.
#[derive(Clone)]
struct Code {
    engine: PlironEngine,
    /// How many buffers its kernels have.
    buffers: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pack {
    /// Of no kernels yet.
    fn new() -> Pack {
        Pack { state: Mutex::new(State::Waiting(HostKernels::default())), done: Condvar::new() }
    }

    /// Adds a kernel, as long as nobody has been given them to compile.
    fn add(&self, key: KernelKey) {
        match &mut *lock(&self.state) {
            State::Waiting(kernels) => kernels.0.push(key),
            _ => unreachable!("an open pack is closed before it is compiled"),
        }
    }

    /// The machine code; compiles it if nobody has begun to.
    fn code(&self) -> Result<Code, String> {
        let mut state = lock(&self.state);
        loop {
            match std::mem::replace(&mut *state, State::Compiling) {
                State::Done(result) => {
                    *state = State::Done(result.clone());
                    return result;
                }
                State::Compiling => state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner),
                State::Waiting(kernels) => {
                    drop(state);
                    let buffers = kernels.0.iter().map(|key| key.kernel().buffers.len()).sum();
                    let result = compile(kernels).map(|engine| Code { engine, buffers });
                    state = lock(&self.state);
                    *state = State::Done(result);
                    self.done.notify_all();
                }
            }
        }
    }
}

fn compile(kernels: HostKernels) -> Result<PlironEngine, String> {
    let compile = || -> Result<PlironEngine, CompilationError> {
        // Vectors begin at any element.
        let options = PlironOptions { cpu_buffer_alignment: Some(4), ..PlironOptions::default() };
        let definition = define_kernel(&kernels)?;
        Ok(PlironCompiler { target: LlvmTarget::Cpu }.compile(definition, &options)?.expect_jit())
    };
    match catch_unwind(AssertUnwindSafe(compile)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown reason");
            Err(format!("the compiler stopped: {text}"))
        }
    }
}

/// Threads that compile in the background, those that were asked for first first.
///
/// They end with the device: what they have begun they finish, what waits is given up. A thread that is still inside LLVM when `main`
/// returns would go on while LLVM's own statics are taken down.
struct Compilers {
    most: usize,
    shared: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    /// A kernel has come, or the device ends.
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    packs: VecDeque<Arc<Pack>>,
    /// Threads with nothing to do.
    idle: usize,
    end: bool,
}

impl Compilers {
    fn new(most: usize) -> Compilers {
        Compilers { most, shared: Arc::default(), threads: Mutex::default() }
    }

    /// Has kernels compiled; another thread begins if all have something to do and there may be more.
    fn add(&self, pack: Arc<Pack>) {
        let mut state = lock(&self.shared.state);
        state.packs.push_back(pack);
        let busy = state.packs.len() > state.idle;
        drop(state);
        self.shared.wake.notify_one();
        let mut threads = lock(&self.threads);
        if busy && threads.len() < self.most {
            let shared = self.shared.clone();
            threads.push(std::thread::spawn(move || shared.work()));
        }
    }
}

impl Drop for Compilers {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.end = true;
        state.packs.clear();
        drop(state);
        self.shared.wake.notify_all();
        for thread in lock(&self.threads).drain(..) {
            // Compiling catches panics, so a thread only ends by returning.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn work(&self) {
        let mut state = lock(&self.state);
        while !state.end {
            if let Some(pack) = state.packs.pop_front() {
                drop(state);
                // Whoever launches them sees the outcome.
                let _ = pack.code();
                drop(pack);
                state = lock(&self.state);
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// Turns off what costs LLVM time and gains nothing here. Kernels say themselves what is a vector, so that looking for vectors in scalar
/// code is in vain; their conditions are in their loops' bounds already, and their addresses are few sums that loops share; stores
/// that are dead lie next to what makes them so. The schedules have written out the loops for which that pays: estimating what
/// unrolling the others would cost took a fifth of all compiling.
fn spare_llvm_work() {
    unsafe extern "C" {
        fn LLVMParseCommandLineOptions(count: c_int, arguments: *const *const c_char, overview: *const c_char);
    }
    const OPTIONS: [&CStr; 8] = [
        c"foveate",
        c"-vectorize-loops=false",
        c"-vectorize-slp=false",
        c"-dse-memoryssa-scanlimit=20",
        c"-unswitch-threshold=0",
        c"-disable-lsr",
        c"-unroll-threshold=0",
        c"-unroll-partial-threshold=0",
    ];
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let arguments = OPTIONS.map(CStr::as_ptr);
        // SAFETY: the strings end with NUL and live for ever, the count is theirs, and no overview is allowed.
        unsafe { LLVMParseCommandLineOptions(OPTIONS.len() as c_int, arguments.as_ptr(), std::ptr::null()) }
    });
}

/// The kernels that were asked for.
#[derive(Default)]
struct Known {
    /// By their digests.
    kernels: HashMap<Digest, Arc<HostKernel>>,
    /// The last of them, of which more may come before they are compiled.
    open: Option<Open>,
}

/// How many kernels are compiled as one.
const KERNELS: u32 = 8;
/// How many values they may assign if there are several: what is compiled as one is not compiled on several threads.
const VALUES: usize = 2000;
/// How many bytes their arrays may have if there are several: all of them are on the stack.
const LOCAL_BYTES: usize = 256 << 10;

/// Kernels that will be compiled as one.
struct Open {
    pack: Arc<Pack>,
    kernels: u32,
    buffers: usize,
    values: usize,
    local_bytes: usize,
}

impl Open {
    /// Whether a kernel can be added to them.
    fn takes(&self, kernel: &Kernel) -> bool {
        self.kernels < KERNELS
            && self.values + kernel.values.len() <= VALUES
            && self.local_bytes + local_bytes(kernel) <= LOCAL_BYTES
    }
}

fn local_bytes(kernel: &Kernel) -> usize {
    kernel.locals.iter().map(|l| 4 * l.ty.lanes as usize * l.len as usize).sum()
}

/// The processor.
pub struct HostDevice {
    compilers: Compilers,
    pool: Pool,
    known: Mutex<Known>,
    /// Held while buffers are used.
    memory: Mutex<()>,
}

impl HostDevice {
    /// Starts its threads.
    pub fn new(threads: usize) -> HostDevice {
        spare_llvm_work();
        let (compilers, pool) = (Compilers::new(threads), Pool::new(threads));
        HostDevice { compilers, pool, known: Mutex::default(), memory: Mutex::new(()) }
    }

    /// The processor's name, as Linux tells it; elsewhere its architecture.
    pub fn model(&self) -> String {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
    }

    /// What schedules may use.
    pub fn facts(&self) -> Facts {
        let (lanes, vectors) = vector_unit();
        // A tile's accumulators and operands leave a few registers free.
        Facts {
            lanes,
            units: self.pool.threads(),
            local_bytes: 96 << 10,
            registers: vectors - 1 - vectors / 16,
            tensors: usize::MAX,
            lockstep: false,
            pairs: 0,
        }
    }

    /// Has a kernel compiled in the background; one that is known already is not compiled again.
    pub fn compile(&self, key: KernelKey) -> Arc<HostKernel> {
        let mut known = lock(&self.known);
        if let Some(kernel) = known.kernels.get(&key.digest()) {
            return kernel.clone();
        }
        if !known.open.as_ref().is_some_and(|open| open.takes(key.kernel())) {
            self.close(&mut known);
        }
        let new = || Open { pack: Arc::new(Pack::new()), kernels: 0, buffers: 0, values: 0, local_bytes: 0 };
        let open = known.open.get_or_insert_with(new);
        let kernel = Arc::new(HostKernel { pack: open.pack.clone(), number: open.kernels, first: open.buffers });
        open.kernels += 1;
        open.buffers += key.kernel().buffers.len();
        open.values += key.kernel().values.len();
        open.local_bytes += local_bytes(key.kernel());
        let digest = key.digest();
        open.pack.add(key);
        known.kernels.insert(digest, kernel.clone());
        kernel
    }

    /// Has the last kernels compiled, whether more come or not.
    fn close(&self, known: &mut Known) {
        if let Some(open) = known.open.take() {
            self.compilers.add(open.pack);
        }
    }

    /// Lets go of the kernels that nobody can launch any more.
    pub fn forget_unused(&self) {
        lock(&self.known).kernels.retain(|_, kernel| Arc::strong_count(kernel) > 1);
    }

    /// Runs a kernel. `buffers` are its buffers: the memory and where they begin in it, in bytes; they must be long enough.
    pub fn launch(&self, kernel: &HostKernel, items: u32, buffers: &[(&HostMemory, usize)]) -> Result<(), String> {
        self.close(&mut lock(&self.known));
        let Code { engine, buffers: all } = kernel.pack.code()?;
        let _memory = lock(&self.memory);
        // SAFETY: buffers begin inside their memory.
        let pointers =
            buffers.iter().map(|(m, offset)| unsafe { m.pointer().add(*offset) } as usize).collect::<Vec<_>>();
        let size = items.div_ceil((self.pool.threads() * CHUNKS) as u32).max(1);
        self.pool.run(items.div_ceil(size) as usize, &|chunk| {
            let first = chunk as u32 * size;
            let count = size.min(items - first);
            let mut call = [first, kernel.number];
            let call: *mut c_void = call.as_mut_ptr().cast();
            // The buffers of the others are not touched, but their places are read.
            let mut arguments = vec![call; all + 1];
            for (argument, pointer) in arguments[kernel.first..].iter_mut().zip(&pointers) {
                *argument = *pointer as *mut c_void;
            }
            // The metadata holds the buffers' lengths, which loop kernels do not ask for.
            let metadata = vec![0; 2 * arguments.len() + 2];
            engine.run_kernel(&mut PlironData::new(arguments, metadata, [count, 1, 1], Vec::new()));
        });
        Ok(())
    }

    /// Overwrites part of a memory.
    pub fn write(&self, memory: &HostMemory, offset: usize, data: &[u8]) {
        let _memory = lock(&self.memory);
        // SAFETY: callers stay inside the memory; the lock keeps launches away.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), memory.pointer().add(offset), data.len()) }
    }

    /// Copies part of a memory out.
    pub fn read(&self, memory: &HostMemory, offset: usize, bytes: usize) -> Vec<u8> {
        let _memory = lock(&self.memory);
        // SAFETY: callers stay inside the memory; the lock keeps launches away.
        unsafe { std::slice::from_raw_parts(memory.pointer().add(offset), bytes) }.to_vec()
    }
}

/// Lanes of an f32 vector and number of vector registers.
fn vector_unit() -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return (16, 32);
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return (8, 16);
        }
        (4, 16)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        (4, 32)
    }
}
