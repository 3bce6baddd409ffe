//! Memory of a device, in arenas.

use crate::checkpoint::Data;
use crate::device::{Compiled, Device};
use crate::error::{Error, Result};
use foveate_compiler::ir::Elem;
use foveate_compiler::loops::eval::{self, BufferData};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Elements (of 4 bytes) that tensors in an arena are aligned to: 256 bytes, which every device accepts.
pub const ALIGN: usize = 64;

/// Elements that are converted at a time on their way to and from a device: whole tensors would be in memory three times.
#[cfg(feature = "kernels")]
const PIECE: usize = 1 << 18;

/// An arena of a [`Memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArenaId(usize);

/// Some elements of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The arena.
    pub arena: ArenaId,
    /// The first element.
    pub offset: usize,
    /// How many.
    pub len: usize,
}

/// All memory that programs of one device use. Every element has 4 bytes on a device (bool as u32); the interpreter's are f64.
pub struct Memory {
    device: Device,
    arenas: Vec<Storage>,
    /// How many changes there had been when an arena was last changed.
    changed: Vec<u64>,
    changes: u64,
    /// Name and time of every launch, while they are measured.
    times: Option<Vec<(String, Duration)>>,
}

enum Storage {
    /// The interpreter's values.
    Values(Vec<f64>),
    /// The loop evaluator's bits.
    Words(Vec<u32>),
    #[cfg(feature = "kernels")]
    Device(foveate_codegen::BufferHandle),
}

/// The arena that temporaries of all programs share: programs run one after the other.
pub(super) const SCRATCH: ArenaId = ArenaId(0);

impl Memory {
    /// No memory yet.
    pub fn new(device: Device) -> Result<Memory> {
        let mut memory = Memory { device, arenas: Vec::new(), changed: Vec::new(), changes: 0, times: None };
        let scratch = memory.add(ALIGN)?;
        debug_assert_eq!(scratch, SCRATCH);
        Ok(memory)
    }
    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }
    /// A new arena of zeros.
    pub fn add(&mut self, len: usize) -> Result<ArenaId> {
        let storage = self.storage(len)?;
        self.arenas.push(storage);
        self.changed.push(self.changes);
        let id = ArenaId(self.arenas.len() - 1);
        #[cfg(feature = "kernels")]
        if let (Device::Kernels(d), Storage::Device(b)) = (&self.device, &self.arenas[id.0])
            && !d.allocates_zeros()
        {
            let zeros = vec![0; PIECE.min(len.max(1).next_multiple_of(ALIGN)) * 4];
            for place in pieces(self.whole(id)) {
                d.upload(&slice(b, place)?, &zeros[..place.len * 4]).map_err(Error::Device)?;
            }
        }
        Ok(id)
    }
    /// Makes the scratch arena at least so large. Its contents are lost.
    pub(super) fn reserve_scratch(&mut self, len: usize) -> Result<()> {
        if self.len(SCRATCH) < len {
            self.arenas[SCRATCH.0] = self.storage(len)?;
        }
        Ok(())
    }
    /// All of an arena.
    pub fn whole(&self, arena: ArenaId) -> Place {
        Place { arena, offset: 0, len: self.len(arena) }
    }
    /// Elements of an arena.
    pub fn len(&self, arena: ArenaId) -> usize {
        match &self.arenas[arena.0] {
            Storage::Values(v) => v.len(),
            Storage::Words(v) => v.len(),
            #[cfg(feature = "kernels")]
            Storage::Device(b) => b.bytes() / 4,
        }
    }
    /// Whether there is no arena but the empty scratch one.
    pub fn is_empty(&self) -> bool {
        self.arenas.len() == 1
    }
    /// Bytes of all arenas together.
    pub fn bytes(&self) -> usize {
        let size = if matches!(self.device, Device::Interpreter) { 8 } else { 4 };
        (0..self.arenas.len()).map(|n| self.len(ArenaId(n)) * size).sum()
    }
    /// Gives each of two arenas the other's contents; nothing is copied.
    pub fn swap(&mut self, a: ArenaId, b: ArenaId) {
        self.arenas.swap(a.0, b.0);
        [a, b].into_iter().for_each(|arena| self.note_change(arena));
    }
    /// Takes note that something wrote to an arena.
    pub(super) fn note_change(&mut self, arena: ArenaId) {
        self.changes += 1;
        self.changed[arena.0] = self.changes;
    }
    /// A number that is another one after every change of the arena.
    pub(super) fn version(&self, arena: ArenaId) -> u64 {
        self.changed[arena.0]
    }
    fn storage(&self, len: usize) -> Result<Storage> {
        let len = len.max(1).next_multiple_of(ALIGN);
        Ok(match &self.device {
            Device::Interpreter => Storage::Values(vec![0.0; len]),
            Device::Loops => Storage::Words(vec![0; len]),
            #[cfg(feature = "kernels")]
            Device::Kernels(d) => Storage::Device(d.allocate(len * 4)),
        })
    }

    /// Writes elements; there must be as many as the place has. Integers go into integer tensors, floats into float ones.
    pub fn write(&mut self, place: Place, data: &Data) -> Result<()> {
        if data.len() != place.len {
            return Err(Error::Device(format!("{} elements for a tensor of {}", data.len(), place.len)));
        }
        self.note_change(place.arena);
        let range = place.offset..place.offset + place.len;
        match &mut self.arenas[place.arena.0] {
            Storage::Values(v) => v[range].copy_from_slice(&data.to_f64()),
            Storage::Words(v) => v[range].copy_from_slice(&words(data, 0..place.len)),
            #[cfg(feature = "kernels")]
            Storage::Device(b) => {
                let Device::Kernels(d) = &self.device else { unreachable!("only devices have device buffers") };
                for piece in pieces(place) {
                    let first = piece.offset - place.offset;
                    let words = words(data, first..first + piece.len);
                    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                    d.upload(&slice(b, piece)?, &bytes).map_err(Error::Device)?;
                }
            }
        }
        Ok(())
    }
    /// Reads elements as f64, after everything that was launched so far.
    pub fn read_f64(&self, place: Place, elem: Elem) -> Result<Vec<f64>> {
        if let Storage::Values(v) = &self.arenas[place.arena.0] {
            return Ok(v[place.offset..place.offset + place.len].to_vec());
        }
        Ok(self
            .read_words(place)?
            .into_iter()
            .map(|w| match elem {
                Elem::I32 => f64::from(w as i32),
                Elem::U32 | Elem::Bool => f64::from(w),
                _ => f64::from(f32::from_bits(w)),
            })
            .collect())
    }
    /// Reads f32 elements (rounded, in the interpreter), after everything that was launched so far.
    pub fn read_f32(&self, place: Place) -> Result<Vec<f32>> {
        if let Storage::Values(v) = &self.arenas[place.arena.0] {
            return Ok(v[place.offset..place.offset + place.len].iter().map(|&x| x as f32).collect());
        }
        Ok(self.read_words(place)?.into_iter().map(f32::from_bits).collect())
    }
    fn read_words(&self, place: Place) -> Result<Vec<u32>> {
        match &self.arenas[place.arena.0] {
            Storage::Values(_) => unreachable!("the interpreter's values have no bits to read"),
            Storage::Words(v) => Ok(v[place.offset..place.offset + place.len].to_vec()),
            #[cfg(feature = "kernels")]
            Storage::Device(b) => {
                let Device::Kernels(d) = &self.device else { unreachable!("only devices have device buffers") };
                let mut out = Vec::with_capacity(place.len);
                for piece in pieces(place) {
                    let bytes = d.download(&slice(b, piece)?).map_err(Error::Device)?;
                    out.extend(bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])));
                }
                Ok(out)
            }
        }
    }

    /// Rounds the interpreter's values to f32, as a checkpoint would; other devices hold nothing else.
    pub(crate) fn round_to_f32(&mut self, arena: ArenaId) {
        if let Storage::Values(v) = &mut self.arenas[arena.0] {
            v.iter_mut().for_each(|x| *x = f64::from(*x as f32));
            self.note_change(arena);
        }
    }
    /// Copies inside the interpreter's memory.
    pub(super) fn copy_values(&mut self, from: Place, to: Place) {
        self.note_change(to.arena);
        if let Storage::Values(v) = &self.arenas[from.arena.0] {
            let data = v[from.offset..from.offset + from.len].to_vec();
            if let Storage::Values(out) = &mut self.arenas[to.arena.0] {
                out[to.offset..to.offset + to.len].copy_from_slice(&data);
            }
        }
    }

    /// Measures every launch from now on; each is waited for.
    pub fn measure(&mut self) {
        self.times = Some(Vec::new());
    }
    /// Name and time of every launch since [`Memory::measure`]; no more are measured.
    pub fn measured(&mut self) -> Vec<(String, Duration)> {
        self.times.take().unwrap_or_default()
    }

    /// Runs a kernel on tensors of the arenas.
    pub(crate) fn launch(&mut self, kernel: &Compiled, places: &[Place]) -> Result<()> {
        if self.times.is_none() {
            return self.run(kernel, places);
        }
        let begin = Instant::now();
        self.run(kernel, places)?;
        self.device.sync()?;
        let time = (kernel.name().to_owned(), begin.elapsed());
        self.times.iter_mut().for_each(|times| times.push(time.clone()));
        Ok(())
    }
    fn run(&mut self, kernel: &Compiled, places: &[Place]) -> Result<()> {
        match kernel {
            Compiled::Loops(k) => {
                let mut buffers = Vec::with_capacity(places.len());
                for (place, buffer) in places.iter().zip(&k.buffers) {
                    let words = self.read_words(*place)?;
                    buffers.push(match buffer.elem {
                        Elem::I32 => BufferData::I32(words.into_iter().map(|w| w as i32).collect()),
                        Elem::U32 | Elem::Bool => BufferData::U32(words),
                        _ => BufferData::F32(words.into_iter().map(f32::from_bits).collect()),
                    });
                }
                eval::run(k, &mut buffers).map_err(Error::Device)?;
                for ((place, data), buffer) in places.iter().zip(buffers).zip(&k.buffers) {
                    let Storage::Words(v) = &mut self.arenas[place.arena.0] else { continue };
                    if buffer.written {
                        let out = &mut v[place.offset..place.offset + place.len];
                        match data {
                            BufferData::F32(d) => out.iter_mut().zip(d).for_each(|(o, x)| *o = x.to_bits()),
                            BufferData::I32(d) => out.iter_mut().zip(d).for_each(|(o, x)| *o = x as u32),
                            BufferData::U32(d) => out.copy_from_slice(&d),
                        }
                    }
                }
                Ok(())
            }
            #[cfg(feature = "kernels")]
            Compiled::Kernel(k) => {
                let Device::Kernels(d) = &self.device else { unreachable!("only devices have compiled kernels") };
                let mut handles = Vec::with_capacity(places.len());
                for place in places {
                    match &self.arenas[place.arena.0] {
                        Storage::Device(b) => handles.push(slice(b, *place)?),
                        _ => unreachable!("only devices have compiled kernels"),
                    }
                }
                d.launch(k, &handles.iter().collect::<Vec<_>>()).map_err(Error::Device)
            }
        }
    }
}

#[cfg(feature = "kernels")]
fn slice(buffer: &foveate_codegen::BufferHandle, place: Place) -> Result<foveate_codegen::BufferHandle> {
    buffer.slice(place.offset * 4, place.len * 4).map_err(Error::Device)
}

/// The place in pieces of [`PIECE`] elements.
#[cfg(feature = "kernels")]
fn pieces(place: Place) -> impl Iterator<Item = Place> {
    let end = place.offset + place.len;
    let piece = move |offset: usize| Place { offset, len: PIECE.min(end - offset), ..place };
    (place.offset..end).step_by(PIECE).map(piece)
}

/// The bits of a range of a device's elements.
fn words(data: &Data, range: Range<usize>) -> Vec<u32> {
    match data {
        Data::F32(v) => v[range].iter().map(|x| x.to_bits()).collect(),
        Data::F64(v) => v[range].iter().map(|&x| (x as f32).to_bits()).collect(),
        Data::I64(v) => v[range].iter().map(|&x| x as u32).collect(),
    }
}
