//! The form before PyTorch 1.6: five pickles, and behind them the storages.

use super::super::pickle::Pickle;
use super::storage::Storage;
use std::collections::HashMap;
use std::ops::Range;

/// How the first pickle ends: a number of ten bytes that stands for PyTorch.
const NUMBER: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The value of a file of the older form, and where its storages lie.
pub struct Old<'a> {
    /// The value's pickle.
    pub value: Pickle<'a>,
    /// The bytes of every storage, by its key.
    pub places: HashMap<String, Range<usize>>,
}

impl<'a> Old<'a> {
    /// Reads the pickles: the number, the protocol's version, the system, the value, the storages' keys.
    pub fn read(bytes: &'a [u8]) -> Result<Old<'a>, String> {
        let mut at = 0;
        let mut next = || {
            let pickle = Pickle::read(&bytes[at..])?;
            at += pickle.length;
            Ok::<_, String>(pickle)
        };
        let first = next().ok().filter(|p| bytes[..p.length].ends_with(NUMBER));
        if first.is_none() {
            // Whatever it is, what it would run is worth saying.
            Pickle::read(bytes)?;
            return Err("it is a pickle of something else; expected what `torch.save(model.state_dict(), ...)` writes"
                .to_owned());
        }
        next()?;
        next()?;
        let value = next()?;
        let keys = next()?;
        let places = places(bytes, at, &value, &keys)?;
        Ok(Old { value, places })
    }
}

/// Where the storages lie. Each is a count of elements and then the elements, whose type the value's pickle names.
fn places(
    bytes: &[u8],
    mut at: usize,
    value: &Pickle<'_>,
    keys: &Pickle<'_>,
) -> Result<HashMap<String, Range<usize>>, String> {
    let mut sizes = HashMap::new();
    for id in value.persistent() {
        let storage = Storage::of(value, id)?;
        if sizes.insert(storage.key, storage.size).is_some_and(|size| size != storage.size) {
            return Err(format!("storage `{}` has elements of two sizes", storage.key));
        }
    }
    let list = keys.sequence(keys.root).ok_or("expected a list of storages, found something else")?;
    let mut out = HashMap::new();
    for &key in list {
        let key = keys.text(key).ok_or("a storage's key is no text")?;
        let size = sizes.get(key).ok_or_else(|| format!("nothing says which type of elements storage `{key}` has"))?;
        let truncated = || format!("it is truncated: storage `{key}` is not all there");
        let count = bytes.get(at..at + 8).ok_or_else(truncated)?;
        let count = u64::from_le_bytes(count.try_into().expect("eight bytes"));
        let length = usize::try_from(count).ok().and_then(|n| n.checked_mul(*size)).ok_or_else(truncated)?;
        let end = (at + 8).checked_add(length).filter(|&end| end <= bytes.len()).ok_or_else(truncated)?;
        out.insert(key.to_owned(), at + 8..end);
        at = end;
    }
    Ok(out)
}
