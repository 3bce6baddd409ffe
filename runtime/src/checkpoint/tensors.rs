//! Named tensors on the host, and files of them: safetensors, read and written, and PyTorch's, read.

use super::{atomic, torch};
use crate::error::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions, row-major.
    pub shape: Vec<usize>,
    /// As many elements as the shape says.
    pub data: Data,
}

/// Elements. Half precision is widened to f32, and integers to i64, when a file is read.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I64(v) => v.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements as f64.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(v) => v.clone(),
            Data::I64(v) => v.iter().map(|&x| x as f64).collect(),
        }
    }
    /// Says which element is none of the classes `0..classes`, if there is one.
    pub fn check_labels(&self, classes: usize) -> std::result::Result<(), String> {
        let label = |x: &f64| x.fract() == 0.0 && (0.0..classes as f64).contains(x);
        match self.to_f64().iter().enumerate().find(|(_, x)| !label(x)) {
            None => Ok(()),
            Some((n, x)) => Err(format!("expected labels from 0 to {}, found {x} as element {n}", classes - 1)),
        }
    }
}

/// Tensors by name, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    /// Adds a tensor, or replaces the one of that name.
    pub fn insert(&mut self, name: String, tensor: Tensor) {
        self.0.insert(name, tensor);
    }
    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.0.iter()
    }
    /// Keeps those with a name that passes.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }
    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a safetensors file, or one of `torch.save` (told by its first bytes). Memory is bounded by the file's size: the file itself and
    /// its elements, widened to at most eight times as much; and by what the names and shapes of a pickle may take ([`super::pickle`]).
    /// Overlapping or out-of-range offsets are refused, and nothing in a pickle is ever run.
    pub fn read(path: &Path) -> Result<Tensors> {
        Tensors::of_bytes(path, &std::fs::read(path).map_err(Error::io("read", path))?)
    }

    /// The tensors of a file's content. The path's ending counts, and it is named in errors.
    pub fn of_bytes(path: &Path, bytes: &[u8]) -> Result<Tensors> {
        let safe = path.extension().is_some_and(|e| e == "safetensors");
        if !safe && torch::is_torch(bytes) {
            return torch::read(path, bytes);
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| {
            let what = if safe { "a valid safetensors file" } else { "a valid safetensors or PyTorch file" };
            Error::file(path, format!("not {what} ({} bytes): {e}", bytes.len()))
        })?;
        let mut out = Tensors::default();
        for (name, view) in file.iter() {
            let elements = ElementType::stored(view.dtype()).ok_or_else(|| {
                Error::file(
                    path,
                    format!("tensor `{name}` has elements of type {:?}, which are not read", view.dtype()),
                )
            })?;
            let data = elements.decode(view.data().chunks_exact(elements.size()));
            let shape = view.shape().to_vec();
            let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
            if expected != Some(data.len()) {
                return Err(Error::file(
                    path,
                    format!("tensor `{name}` has shape {shape:?} and {} elements", data.len()),
                ));
            }
            out.insert(name.to_owned(), Tensor { shape, data });
        }
        Ok(out)
    }

    /// The content of a safetensors file; `path` is only for errors.
    pub fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let raw: Vec<(Dtype, Vec<u8>)> = self
            .0
            .values()
            .map(|t| match &t.data {
                Data::F32(v) => (Dtype::F32, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Data::F64(v) => (Dtype::F64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Data::I64(v) => (Dtype::I64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            })
            .collect();
        let bad = |e: safetensors::SafeTensorError| Error::file(path, format!("cannot be written as safetensors: {e}"));
        let views = self
            .0
            .iter()
            .zip(&raw)
            .map(|((name, t), (dtype, bytes))| Ok((name, TensorView::new(*dtype, t.shape.clone(), bytes)?)))
            .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(bad)?;
        safetensors::serialize(views, None).map_err(bad)
    }

    /// Writes a safetensors file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        atomic::write_file(path, &self.to_bytes(path)?)
    }

    /// Checks that these are the tensors of a model: every expected name with its shape and none besides. A scalar may have shape `[]` or `[1]`;
    /// names that end in `num_batches_tracked` (a counter of PyTorch's batch norm) may be there or not. `path` is only for errors.
    pub fn expect<'a>(&self, path: &Path, expected: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Result<()> {
        let mut problems = Vec::new();
        let mut known = std::collections::HashSet::new();
        for (name, shape) in expected {
            known.insert(name);
            match self.get(name) {
                None if is_counter(name) => {}
                None => problems.push(format!("missing `{name}`: expected shape {shape:?}")),
                Some(t) if same_shape(&t.shape, shape) => {}
                Some(t) => problems.push(format!("`{name}`: expected shape {shape:?}, found {:?}", t.shape)),
            }
        }
        for (name, t) in self.iter() {
            if !known.contains(name.as_str()) && !is_counter(name) {
                problems.push(format!("extra `{name}` of shape {:?}: the model has no such tensor", t.shape));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Tensors { path: path.to_owned(), problems }) }
    }
}

impl IntoIterator for Tensors {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Whether two shapes say the same: equal, or both a single element of rank at most one.
pub fn same_shape(a: &[usize], b: &[usize]) -> bool {
    let scalar = |s: &[usize]| matches!(s, [] | [1]);
    a == b || (scalar(a) && scalar(b))
}

/// PyTorch's batch norms count their batches; nothing here reads that.
fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some("num_batches_tracked")
}

/// How elements are stored in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ElementType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U32,
    U16,
    U8,
}

impl ElementType {
    /// That of a safetensors file.
    fn stored(dtype: Dtype) -> Option<ElementType> {
        Some(match dtype {
            Dtype::F64 => ElementType::F64,
            Dtype::F32 => ElementType::F32,
            Dtype::F16 => ElementType::F16,
            Dtype::BF16 => ElementType::BF16,
            Dtype::I64 => ElementType::I64,
            Dtype::I32 => ElementType::I32,
            Dtype::I16 => ElementType::I16,
            Dtype::I8 => ElementType::I8,
            Dtype::U32 => ElementType::U32,
            Dtype::U16 => ElementType::U16,
            Dtype::U8 | Dtype::BOOL => ElementType::U8,
            _ => return None,
        })
    }
    /// By its name in `torch`.
    pub fn named(name: &str) -> Option<ElementType> {
        Some(match name {
            "float64" => ElementType::F64,
            "float32" => ElementType::F32,
            "float16" => ElementType::F16,
            "bfloat16" => ElementType::BF16,
            "int64" => ElementType::I64,
            "int32" => ElementType::I32,
            "int16" => ElementType::I16,
            "int8" => ElementType::I8,
            "uint32" => ElementType::U32,
            "uint16" => ElementType::U16,
            "uint8" | "bool" => ElementType::U8,
            _ => return None,
        })
    }
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            ElementType::F64 | ElementType::I64 => 8,
            ElementType::F32 | ElementType::I32 | ElementType::U32 => 4,
            ElementType::F16 | ElementType::BF16 | ElementType::I16 | ElementType::U16 => 2,
            ElementType::I8 | ElementType::U8 => 1,
        }
    }
    /// Bytes of an element of [`Data`].
    pub fn widened(self) -> usize {
        match self {
            ElementType::F32 | ElementType::F16 | ElementType::BF16 => 4,
            _ => 8,
        }
    }
    /// Little-endian elements, each in a slice of [`ElementType::size`] bytes, widened.
    pub fn decode<'a>(self, elements: impl ExactSizeIterator<Item = &'a [u8]>) -> Data {
        macro_rules! each {
            ($variant:ident, $from:ty, $convert:expr) => {
                Data::$variant(
                    elements
                        .map(|c| $convert(<$from>::from_le_bytes(c.try_into().expect("slices of this size"))))
                        .collect(),
                )
            };
        }
        match self {
            ElementType::F64 => each!(F64, f64, |x| x),
            ElementType::F32 => each!(F32, f32, |x| x),
            ElementType::BF16 => each!(F32, u16, |x| f32::from_bits(u32::from(x) << 16)),
            ElementType::F16 => each!(F32, u16, half_to_f32),
            ElementType::I64 => each!(I64, i64, |x| x),
            ElementType::I32 => each!(I64, i32, i64::from),
            ElementType::I16 => each!(I64, i16, i64::from),
            ElementType::I8 => each!(I64, i8, i64::from),
            ElementType::U32 => each!(I64, u32, i64::from),
            ElementType::U16 => each!(I64, u16, i64::from),
            ElementType::U8 => each!(I64, u8, i64::from),
        }
    }
}

/// The value of an IEEE half-precision number.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1.0 + fraction / 1024.0) * 2f32.powi(e - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tensors {
        let mut t = Tensors::default();
        t.insert("b".into(), Tensor { shape: vec![], data: Data::F32(vec![-0.0]) });
        t.insert("a".into(), Tensor { shape: vec![2, 1], data: Data::F32(vec![1.5, f32::MIN_POSITIVE]) });
        t.insert("c".into(), Tensor { shape: vec![1], data: Data::I64(vec![-7]) });
        t.insert("d".into(), Tensor { shape: vec![1], data: Data::F64(vec![0.1]) });
        t
    }

    #[test]
    fn files_hold_what_was_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("m.safetensors");
        sample().write(&path).expect("writable");
        assert_eq!(Tensors::read(&path).expect("readable"), sample());

        let bytes = std::fs::read(&path).expect("readable");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("writable");
        let message = Tensors::read(&path).unwrap_err().to_string();
        assert!(message.contains("m.safetensors: not a valid safetensors file"), "{message}");
    }

    #[test]
    fn tensors_that_do_not_fit_are_listed() {
        let t = sample();
        t.expect(
            Path::new("m"),
            [("a", &[2, 1][..]), ("b", &[1]), ("c", &[]), ("d", &[1]), ("n.num_batches_tracked", &[])],
        )
        .expect("all fit");
        let e =
            t.expect(Path::new("m"), [("a", &[1, 2][..]), ("b", &[]), ("c", &[1]), ("e.weight", &[3])]).unwrap_err();
        assert_eq!(
            e.to_string(),
            "m: the tensors do not fit\n  `a`: expected shape [1, 2], found [2, 1]\n  missing `e.weight`: expected shape [3]\n  \
             extra `d` of shape [1]: the model has no such tensor"
        );
    }

    #[test]
    fn halves() {
        for (bits, value) in
            [(0x3C00, 1.0), (0xC000, -2.0), (0x0001, 2f32.powi(-24)), (0x7BFF, 65504.0), (0x7C00, f32::INFINITY)]
        {
            assert_eq!(half_to_f32(bits), value);
        }
        assert!(half_to_f32(0x7E00).is_nan());
    }
}
