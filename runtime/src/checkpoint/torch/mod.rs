//! Files of `torch.save`: the zip form (since PyTorch 1.6) and the form before it.
//!
//! Both hold a pickle of names, shapes and strides, and storages of raw elements. The pickle is read as data ([`super::pickle`]); the state
//! dict is its value, or an entry of its value: the first of [`WRAPPERS`] that holds tensors.

mod archive;
mod old;
mod storage;

use super::pickle::{Node, Pickle, Value};
use super::tensors::{ElementType, Tensor, Tensors};
use crate::error::{Error, Result};
use archive::Archive;
use old::Old;
use std::path::Path;
pub(super) use storage::is_storage;
use storage::{Storage, whole};

/// Where training scripts put the state dict, in the order in which it is looked for: the weights themselves, then their averages over
/// the steps, then what wraps one of these again.
pub const WRAPPERS: [&str; 11] = [
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "module",
    "net",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "ema",
    "checkpoint",
];
/// Wrappers within wrappers that are looked into.
const NESTED: usize = 2;
/// Bytes that tensors may take in memory for one of the file: what widening makes of the smallest elements. Tensors that share a storage
/// count each, so many of them need not fit.
const GROWTH: usize = 8;
/// Most dimensions of a tensor, as in PyTorch.
const DIMENSIONS: usize = 64;

/// Whether a file looks like one of `torch.save`.
pub fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 1..=5, ..])
}

/// The tensors of a file; `path` is only for errors. Storages stay where they are in `bytes`; the tensors take at most eight times as
/// much, and the pickle what [`super::pickle`] says.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Tensors> {
    let found = if bytes.starts_with(b"PK") { of_archive(bytes) } else { of_old(bytes) };
    found.map_err(|message| Error::file(path, format!("not a PyTorch file that can be read: {message}")))
}

fn of_archive(bytes: &[u8]) -> std::result::Result<Tensors, String> {
    let mut archive = Archive::open(bytes)?;
    if archive.has("constants.pkl") {
        return Err(
            "it is a TorchScript archive; expected a state dict, as `torch.save(model.state_dict(), ...)` writes it"
                .to_owned(),
        );
    }
    if archive.has("byteorder") && archive.entry("byteorder")? != b"little" {
        return Err("its storages are big-endian; expected little-endian ones".to_owned());
    }
    let pickle = Pickle::read(archive.entry("data.pkl")?)?;
    let mut load = |key: &str| archive.entry(&format!("data/{key}"));
    Reader { pickle: &pickle, load: &mut load, left: budget(bytes) }.tensors()
}

fn of_old(bytes: &[u8]) -> std::result::Result<Tensors, String> {
    let old = Old::read(bytes)?;
    let mut load = |key: &str| {
        let place = old.places.get(key).ok_or_else(|| format!("storage `{key}` is missing"))?;
        Ok(&bytes[place.clone()])
    };
    Reader { pickle: &old.value, load: &mut load, left: budget(bytes) }.tensors()
}

fn budget(bytes: &[u8]) -> usize {
    bytes.len().saturating_mul(GROWTH).saturating_add(1 << 20)
}

/// The bytes of a storage.
type Load<'a, 'b> = dyn FnMut(&str) -> std::result::Result<&'a [u8], String> + 'b;

struct Reader<'a, 'b> {
    pickle: &'b Pickle<'a>,
    load: &'b mut Load<'a, 'b>,
    /// Bytes that tensors may still take.
    left: usize,
}

impl Reader<'_, '_> {
    fn tensors(mut self) -> std::result::Result<Tensors, String> {
        let root = self.pickle.root;
        let entries = self.state_dict(root, NESTED).ok_or_else(|| self.nothing(root))?.to_vec();
        let mut out = Tensors::default();
        for (key, value) in entries {
            if !self.is_tensor(value) {
                continue;
            }
            let name = self.pickle.text(key).ok_or("a tensor whose name is no text")?;
            if out.get(name).is_some() {
                return Err(format!("it has two tensors `{name}`"));
            }
            let tensor = self.tensor(value).map_err(|e| format!("tensor `{name}`: {e}"))?;
            out.insert(name.to_owned(), tensor);
        }
        // Models that were trained on several devices at once have all their names under `module.`.
        let inner = |name: &String| name.strip_prefix("module.").map(str::to_owned);
        if out.iter().all(|(name, _)| inner(name).is_some()) {
            let mut plain = Tensors::default();
            for (name, tensor) in out {
                plain.insert(inner(&name).unwrap_or(name), tensor);
            }
            return Ok(plain);
        }
        Ok(out)
    }

    /// The dictionary of tensors in a value. Wrappers come first: beside one there may be tensors that are no weights.
    fn state_dict(&self, value: Value, nested: usize) -> Option<&[(Value, Value)]> {
        let entries = self.pickle.dictionary(value)?;
        let named = |name: &str| entries.iter().find(|(key, _)| self.pickle.text(*key) == Some(name));
        let wrapped = |name: &&str| self.state_dict(named(name)?.1, nested - 1);
        let inner = if nested > 0 { WRAPPERS.iter().find_map(wrapped) } else { None };
        inner.or_else(|| Some(entries).filter(|entries| entries.iter().any(|&(_, value)| self.is_tensor(value))))
    }

    /// What to say of a value without tensors.
    fn nothing(&self, value: Value) -> String {
        let Some(entries) = self.pickle.dictionary(value) else {
            return "expected a dictionary of tensors, found something else".to_owned();
        };
        let names = entries.iter().filter_map(|(key, _)| self.pickle.text(*key));
        let names: Vec<String> = names.take(8).map(|k| format!("`{k}`")).collect();
        let found = match (entries.len(), names.is_empty()) {
            (0, _) => "an empty dictionary".to_owned(),
            (_, true) => "entries whose names are no texts".to_owned(),
            (n, _) => format!("entries {}{}", names.join(", "), if n > names.len() { " and more" } else { "" }),
        };
        format!(
            "expected tensors by name, or a dictionary of them under {}; found {found}",
            WRAPPERS.map(|w| format!("`{w}`")).join(", ")
        )
    }

    fn is_tensor(&self, value: Value) -> bool {
        self.pickle.call(value).is_some_and(|(name, _)| name.starts_with("torch.") && name.contains("_rebuild_"))
    }

    /// A tensor or parameter.
    fn tensor(&mut self, value: Value) -> std::result::Result<Tensor, String> {
        let (mut name, mut arguments) = self.pickle.call(value).ok_or("not a tensor")?;
        // A parameter is a tensor with settings; one that also is something else carries how it was made.
        for _ in 0..4 {
            let inner = match (name, arguments) {
                ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", [inner, ..]) => {
                    self.pickle.call(*inner)
                }
                ("torch._tensor._rebuild_from_type_v2", [function, _, inner, ..]) => {
                    self.pickle.global(*function).zip(self.pickle.sequence(*inner))
                }
                _ => break,
            };
            (name, arguments) = inner.ok_or("a parameter without a tensor")?;
        }
        let strided = name.starts_with("torch._utils._rebuild_tensor");
        let ([storage, offset, shape, strides, ..], true) = (arguments, strided) else {
            return Err(format!("made by `{name}`; expected elements in memory with a shape and strides"));
        };
        let Some(Node::Persistent(id)) = self.pickle.node(*storage) else { return Err("it has no storage".to_owned()) };
        let storage = Storage::of(self.pickle, *id)?;
        let dtype = arguments.get(6).filter(|_| name.ends_with("_v3")).map(|d| self.pickle.global(*d));
        let elements = match dtype {
            Some(dtype) => {
                let dtype = dtype.unwrap_or_default().trim_start_matches("torch.");
                ElementType::named(dtype).ok_or_else(|| unread(dtype))?
            }
            None => storage.elements.ok_or_else(|| unread(storage.class.trim_start_matches("torch.")))?,
        };
        let list = |v: &Value| {
            let items = self.pickle.sequence(*v).ok_or("a shape or strides that are no tuple")?;
            if items.len() > DIMENSIONS {
                return Err(format!("it has {} dimensions; at most {DIMENSIONS} are read", items.len()));
            }
            let all: Option<Vec<usize>> = items.iter().map(|&n| whole(n)).collect();
            all.ok_or_else(|| "a shape or stride that is no whole number".to_owned())
        };
        let (shape, strides) = (list(shape)?, list(strides)?);
        let mut offset = whole(*offset).ok_or("an offset that is no whole number")?;
        if shape.len() != strides.len() {
            return Err(format!("shape {shape:?} and strides {strides:?} do not belong together"));
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let bytes = count.and_then(|n| n.checked_mul(elements.widened())).filter(|&n| n <= self.left);
        let (Some(count), Some(bytes)) = (count, bytes) else {
            return Err(format!("shape {shape:?} needs far more than the file holds"));
        };
        self.left -= bytes;

        let mut content = (self.load)(storage.key)?;
        let size = elements.size();
        if let Some((first, length)) = storage.part {
            let end = first.checked_add(length).and_then(|end| end.checked_mul(storage.size));
            let beyond = || format!("its part of storage `{}` reaches beyond it", storage.key);
            content = end.and_then(|end| content.get(first * storage.size..end)).ok_or_else(beyond)?;
        }
        let last = shape.iter().zip(&strides).try_fold(offset, |at, (&n, &stride)| {
            n.saturating_sub(1).checked_mul(stride).and_then(|far| at.checked_add(far))
        });
        let inside =
            last.and_then(|last| last.checked_add(1)?.checked_mul(size)).is_some_and(|end| end <= content.len());
        if count == 0 {
            offset = 0;
        } else if !inside {
            return Err(format!("shape {shape:?} reaches beyond its storage of {} elements", content.len() / size));
        }
        let data = if count == 0 || is_row_major(&shape, &strides) {
            elements.decode(content[offset * size..(offset + count) * size].chunks_exact(size))
        } else {
            let at = vec![0; shape.len()];
            let places = Places { shape: &shape, strides: &strides, at, next: offset, left: count };
            elements.decode(places.map(|at| &content[at * size..(at + 1) * size]))
        };
        Ok(Tensor { data, shape })
    }
}

fn unread(name: &str) -> String {
    format!("elements of type `{name}`, which are not read: expected floats of 16 to 64 bits, integers or booleans")
}

/// Whether the elements of a view that has some lie one after the other.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&n, &stride)| {
        let fits = n == 1 || stride == expected;
        expected *= n;
        fits
    })
}

/// Where the elements of a strided view lie, in row-major order.
struct Places<'a> {
    shape: &'a [usize],
    strides: &'a [usize],
    at: Vec<usize>,
    next: usize,
    left: usize,
}

impl Iterator for Places<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let now = self.next;
        for d in (0..self.shape.len()).rev() {
            self.at[d] += 1;
            self.next = self.next.wrapping_add(self.strides[d]);
            if self.at[d] < self.shape[d] {
                break;
            }
            self.next = self.next.wrapping_sub(self.strides[d].wrapping_mul(self.shape[d]));
            self.at[d] = 0;
        }
        Some(now)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Places<'_> {}
