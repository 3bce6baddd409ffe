//! Storages as the pickle names them.

use super::super::pickle::{Pickle, Value};
use super::super::tensors::ElementType;

/// Classes of storages with the bytes of an element and the elements, where those are read.
const TYPES: [(&str, usize, Option<ElementType>); 17] = [
    ("torch.DoubleStorage", 8, Some(ElementType::F64)),
    ("torch.FloatStorage", 4, Some(ElementType::F32)),
    ("torch.HalfStorage", 2, Some(ElementType::F16)),
    ("torch.BFloat16Storage", 2, Some(ElementType::BF16)),
    ("torch.LongStorage", 8, Some(ElementType::I64)),
    ("torch.IntStorage", 4, Some(ElementType::I32)),
    ("torch.ShortStorage", 2, Some(ElementType::I16)),
    ("torch.CharStorage", 1, Some(ElementType::I8)),
    ("torch.ByteStorage", 1, Some(ElementType::U8)),
    ("torch.BoolStorage", 1, Some(ElementType::U8)),
    // It has bytes; the tensor says what they are.
    ("torch.storage.UntypedStorage", 1, Some(ElementType::U8)),
    ("torch.UntypedStorage", 1, Some(ElementType::U8)),
    ("torch.ComplexFloatStorage", 8, None),
    ("torch.ComplexDoubleStorage", 16, None),
    ("torch.QInt8Storage", 1, None),
    ("torch.QUInt8Storage", 1, None),
    ("torch.QInt32Storage", 4, None),
];

/// Whether a class is one of storages.
pub fn is_storage(class: &str) -> bool {
    TYPES.iter().any(|(name, ..)| *name == class)
}

/// A storage, or a part of one.
pub struct Storage<'a> {
    /// Its name.
    pub key: &'a str,
    /// Its class.
    pub class: &'a str,
    /// Bytes of an element.
    pub size: usize,
    /// Its elements, where those are read.
    pub elements: Option<ElementType>,
    /// First element and number of elements of the part that is meant; all of it where nothing is said. Only the form before PyTorch 1.6
    /// has parts.
    pub part: Option<(usize, usize)>,
}

impl<'a> Storage<'a> {
    /// From `('storage', class, key, place, count)`, in the older form with `None` or `(key, offset, count)` at its end.
    pub fn of(pickle: &'a Pickle<'_>, id: Value) -> Result<Storage<'a>, String> {
        let parts = pickle.sequence(id).unwrap_or_default();
        let [kind, class, key, rest @ ..] = parts else {
            return Err("a storage that is not described as PyTorch does".to_owned());
        };
        if pickle.text(*kind) != Some("storage") {
            return Err("a storage that is not described as PyTorch does".to_owned());
        }
        let (Some(class), Some(key)) = (pickle.global(*class), pickle.text(*key)) else {
            return Err("a storage without a type or a key".to_owned());
        };
        let known = TYPES.iter().find(|(name, ..)| *name == class);
        let &(_, size, elements) = known.ok_or_else(|| format!("a storage of type `{class}`, which is not read"))?;
        let part = match rest {
            [_, _, view, ..] if *view != Value::None => {
                let part = match pickle.sequence(*view) {
                    Some([_, offset, count]) => whole(*offset).zip(whole(*count)),
                    _ => None,
                };
                Some(part.ok_or("a part of a storage that is not described as PyTorch does")?)
            }
            _ => None,
        };
        Ok(Storage { key, class, size, elements, part })
    }
}

/// A number that is no less than zero.
pub fn whole(value: Value) -> Option<usize> {
    match value {
        Value::Int(n) => usize::try_from(n).ok(),
        _ => None,
    }
}
