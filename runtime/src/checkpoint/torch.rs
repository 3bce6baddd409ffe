//! Files of `torch.save`: the zip form (since PyTorch 1.6) and the form before it.
//!
//! Both hold a pickle of names, shapes and strides, and storages of raw elements. The pickle is read as data ([`super::pickle`]); the state
//! dict is its value, or the entry of its value that holds tensors: `state_dict`, `model` and the like.

use super::pickle::{Node, Pickle, Value};
use super::tensors::{Data, ElementType, Tensor, Tensors};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Where training scripts put the state dict, in the order in which it is looked for.
const WRAPPERS: [&str; 6] = ["state_dict", "model", "model_state_dict", "module", "model_state", "net"];
/// What the older form begins with: protocol 2 and a number of ten bytes that stands for PyTorch.
const OLD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// Tensors may share storages, so they can be larger together than the file; by this factor at most.
const SHARING: usize = 4;

/// Whether a file looks like one of `torch.save`.
pub fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 1..=5, ..])
}

/// The tensors of a file; `path` is only for errors. Memory is bounded by a small multiple of the file's size.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Tensors> {
    let bad = |message: String| Error::file(path, format!("not a PyTorch file that can be read: {message}"));
    if bytes.starts_with(b"PK") {
        let mut archive =
            ZipArchive::new(Cursor::new(bytes)).map_err(|e| bad(format!("its zip archive is damaged: {e}")))?;
        let names: Vec<String> = archive.file_names().filter_map(|n| Some(n.ok()?.into_owned())).collect();
        let pickle = names.iter().find(|n| *n == "data.pkl" || n.ends_with("/data.pkl"));
        let pickle =
            pickle.ok_or_else(|| bad("expected an entry `data.pkl` in the zip archive, found none".to_owned()))?;
        let folder = pickle.trim_end_matches("data.pkl").to_owned();
        if names.contains(&format!("{folder}constants.pkl")) {
            return Err(bad("it is a TorchScript archive; expected a state dict, as `torch.save(model.state_dict(), ...)` writes it".to_owned()));
        }
        if let Ok(order) = entry(&mut archive, &format!("{folder}byteorder"), bytes.len())
            && order != b"little"
        {
            return Err(bad("its storages are big-endian; expected little-endian ones".to_owned()));
        }
        let text = entry(&mut archive, pickle, bytes.len()).map_err(bad)?;
        let pickle = Pickle::read(&text).map_err(bad)?;
        let mut load = |key: &str| entry(&mut archive, &format!("{folder}data/{key}"), bytes.len());
        return Reader { pickle: &pickle, load: &mut load, storages: HashMap::new(), left: budget(bytes) }
            .tensors()
            .map_err(bad);
    }
    if !bytes.starts_with(OLD) {
        return Err(bad(
            "it is a pickle of something else; expected what `torch.save(model.state_dict(), ...)` writes".to_owned(),
        ));
    }
    // The number, the protocol's version, the system, the value, the storages' keys; then the storages.
    let mut at = 0;
    let mut next = || {
        let pickle = Pickle::read(&bytes[at..])?;
        at += pickle.length;
        Ok::<_, String>(pickle)
    };
    for _ in 0..3 {
        next().map_err(bad)?;
    }
    let value = next().map_err(bad)?;
    let keys = next().map_err(bad)?;
    let mut places = old_storages(bytes, at, &value, &keys).map_err(bad)?;
    let mut load = |key: &str| {
        places.remove(key).map(|range| bytes[range].to_vec()).ok_or_else(|| format!("storage `{key}` is missing"))
    };
    Reader { pickle: &value, load: &mut load, storages: HashMap::new(), left: budget(bytes) }.tensors().map_err(bad)
}

fn budget(bytes: &[u8]) -> usize {
    bytes.len().saturating_mul(SHARING).saturating_add(1 << 20)
}

/// The content of an entry, which must not be compressed: PyTorch compresses none, and what is compressed may grow without bound.
fn entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, file: usize) -> std::result::Result<Vec<u8>, String> {
    let index = archive.index_for_name(name).ok_or_else(|| format!("its zip archive has no entry `{name}`"))?;
    let entry =
        archive.by_index_raw(index).map_err(|e| format!("entry `{name}` of its zip archive is damaged: {e}"))?;
    let size = entry.size();
    if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
        let how =
            if entry.encrypted() { "encrypted".to_owned() } else { format!("compressed ({})", entry.compression()) };
        return Err(format!(
            "entry `{name}` of its zip archive is {how}; expected it stored as it is, as PyTorch does"
        ));
    }
    if size > file as u64 || entry.compressed_size() != size {
        return Err(format!("entry `{name}` of its zip archive claims {size} bytes, more than the file has for it"));
    }
    let mut content = Vec::with_capacity(size as usize);
    entry
        .take(size)
        .read_to_end(&mut content)
        .map_err(|e| format!("entry `{name}` of its zip archive is damaged: {e}"))?;
    if content.len() as u64 != size {
        return Err(format!("it is truncated: entry `{name}` has {} of {size} bytes", content.len()));
    }
    Ok(content)
}

/// Where the storages of the older form lie. Each is a count of elements and then the elements, whose type the value's pickle names.
fn old_storages(
    bytes: &[u8],
    mut at: usize,
    value: &Pickle<'_>,
    keys: &Pickle<'_>,
) -> std::result::Result<HashMap<String, std::ops::Range<usize>>, String> {
    let mut types = HashMap::new();
    for id in value.persistent() {
        let storage = Storage::of(value, id)?;
        types.insert(storage.key, storage.elements);
    }
    let keys = keys
        .sequence(keys.root)
        .ok_or("expected a list of storages, found something else")?
        .iter()
        .map(|&k| keys.text(k));
    let mut out = HashMap::new();
    for key in keys {
        let key = key.ok_or("a storage's key is no text")?;
        let elements =
            types.get(key).ok_or_else(|| format!("nothing says which type of elements storage `{key}` has"))?;
        let truncated = || format!("it is truncated: storage `{key}` is not all there");
        let count = bytes.get(at..at + 8).ok_or_else(truncated)?;
        let count = u64::from_le_bytes(count.try_into().expect("eight bytes"));
        let length = usize::try_from(count).ok().and_then(|n| n.checked_mul(elements.size())).ok_or_else(truncated)?;
        let end = (at + 8).checked_add(length).filter(|&end| end <= bytes.len()).ok_or_else(truncated)?;
        out.insert(key.to_owned(), at + 8..end);
        at = end;
    }
    Ok(out)
}

/// A storage as the pickle names it.
struct Storage<'a> {
    key: &'a str,
    elements: ElementType,
}

impl<'a> Storage<'a> {
    /// From `('storage', class, key, place, count)`.
    fn of(pickle: &'a Pickle<'_>, id: Value) -> std::result::Result<Storage<'a>, String> {
        let parts = pickle.sequence(id).unwrap_or_default();
        let [kind, class, key, ..] = parts else {
            return Err("a storage that is not described as PyTorch does".to_owned());
        };
        if pickle.text(*kind) != Some("storage") {
            return Err("a storage that is not described as PyTorch does".to_owned());
        }
        let (Some(class), Some(key)) = (pickle.global(*class), pickle.text(*key)) else {
            return Err("a storage without a type or a key".to_owned());
        };
        let elements = match class.trim_start_matches("torch.") {
            "DoubleStorage" => ElementType::F64,
            "FloatStorage" => ElementType::F32,
            "HalfStorage" => ElementType::F16,
            "BFloat16Storage" => ElementType::BF16,
            "LongStorage" => ElementType::I64,
            "IntStorage" => ElementType::I32,
            "ShortStorage" => ElementType::I16,
            "CharStorage" => ElementType::I8,
            // An untyped one has bytes; the tensor says what they are.
            "ByteStorage" | "BoolStorage" | "storage.UntypedStorage" => ElementType::U8,
            other => return Err(format!("a storage of type `{other}`, which is not read")),
        };
        Ok(Storage { key, elements })
    }
}

/// The bytes of a storage.
type Load<'a> = dyn FnMut(&str) -> std::result::Result<Vec<u8>, String> + 'a;

struct Reader<'a, 'b> {
    pickle: &'a Pickle<'a>,
    load: &'b mut Load<'b>,
    storages: HashMap<String, Vec<u8>>,
    /// Bytes that tensors may still take.
    left: usize,
}

impl Reader<'_, '_> {
    fn tensors(mut self) -> std::result::Result<Tensors, String> {
        let root =
            self.pickle.dictionary(self.pickle.root).ok_or("expected a dictionary of tensors, found something else")?;
        let holds = |entries: &[(Value, Value)]| entries.iter().any(|&(_, value)| self.is_tensor(value));
        let wrapped = |name: &&str| {
            let value = root.iter().find(|(key, _)| self.pickle.text(*key) == Some(name))?.1;
            self.pickle.dictionary(value).filter(|entries| holds(entries))
        };
        let entries = if holds(root) { Some(root) } else { WRAPPERS.iter().find_map(wrapped) };
        let entries = entries.ok_or_else(|| {
            let keys: Vec<String> =
                root.iter().filter_map(|(key, _)| self.pickle.text(*key)).take(8).map(|k| format!("`{k}`")).collect();
            format!(
                "expected tensors by name, or a dictionary of them under `state_dict` or `model`; found entries {}",
                keys.join(", ")
            )
        })?;
        let mut out = Tensors::default();
        for &(key, value) in entries {
            if !self.is_tensor(value) {
                continue;
            }
            let name = self.pickle.text(key).ok_or("a tensor whose name is no text")?;
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
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err(format!("made by `{name}`, which is not read"));
        };
        let Some(Node::Persistent(id)) = self.pickle.node(*storage) else { return Err("it has no storage".to_owned()) };
        let storage = Storage::of(self.pickle, *id)?;
        let mut elements = storage.elements;
        if name.ends_with("_v3") {
            let dtype = arguments.get(6).and_then(|d| self.pickle.global(*d)).unwrap_or_default();
            elements = ElementType::named(dtype.trim_start_matches("torch."))
                .ok_or_else(|| format!("elements of type `{dtype}`, which are not read"))?;
        }
        let whole = |v: &Value| match v {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        };
        let list = |v: &Value| self.pickle.sequence(*v)?.iter().map(whole).collect::<Option<Vec<usize>>>();
        let (Some(offset), Some(shape), Some(strides)) = (whole(offset), list(shape), list(strides)) else {
            return Err("a shape, stride or offset that is no whole number".to_owned());
        };
        if shape.len() != strides.len() {
            return Err(format!("shape {shape:?} and strides {strides:?} do not belong together"));
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let count = count.filter(|n| n.checked_mul(elements.size()).is_some_and(|bytes| bytes <= self.left));
        let count = count.ok_or_else(|| format!("shape {shape:?} needs far more than the file holds"))?;
        self.left -= count * elements.size();

        let key = storage.key.to_owned();
        if !self.storages.contains_key(&key) {
            let bytes = (self.load)(&key)?;
            self.storages.insert(key.clone(), bytes);
        }
        let bytes = &self.storages[&key];
        let last = shape.iter().zip(&strides).try_fold(offset, |at, (&n, &stride)| {
            n.saturating_sub(1).checked_mul(stride).and_then(|far| at.checked_add(far))
        });
        let size = elements.size();
        let inside = last.and_then(|last| last.checked_add(1)?.checked_mul(size)).is_some_and(|end| end <= bytes.len());
        if count > 0 && !inside {
            return Err(format!("shape {shape:?} reaches beyond its storage of {} elements", bytes.len() / size));
        }
        Ok(Tensor { data: gather(bytes, elements, offset, &shape, &strides, count), shape })
    }
}

/// The elements of a strided view in row-major order.
fn gather(
    bytes: &[u8],
    elements: ElementType,
    offset: usize,
    shape: &[usize],
    strides: &[usize],
    count: usize,
) -> Data {
    let size = elements.size();
    let mut expected = 1;
    let row_major = shape.iter().zip(strides).rev().all(|(&n, &stride)| {
        let fits = n == 1 || stride == expected;
        expected *= n;
        fits
    });
    if row_major || count == 0 {
        let start = if count == 0 { 0 } else { offset * size };
        return elements.decode(&bytes[start..start + count * size]);
    }
    let mut packed = Vec::with_capacity(count * size);
    let mut at = vec![0; shape.len()];
    for _ in 0..count {
        let place = (offset + at.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>()) * size;
        packed.extend_from_slice(&bytes[place..place + size]);
        for d in (0..shape.len()).rev() {
            at[d] += 1;
            if at[d] < shape[d] {
                break;
            }
            at[d] = 0;
        }
    }
    elements.decode(&packed)
}
