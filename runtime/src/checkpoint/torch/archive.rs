//! The zip form: entries that lie in the file as they are.

use std::io::Cursor;
use zip::{CompressionMethod, ZipArchive};

/// An archive whose entries share no byte of the file.
pub struct Archive<'a> {
    bytes: &'a [u8],
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// What stands before the names of all entries.
    folder: String,
}

impl<'a> Archive<'a> {
    /// The archive in a file; its pickle must be there.
    pub fn open(bytes: &'a [u8]) -> Result<Archive<'a>, String> {
        let damaged = |e| format!("its zip archive is damaged: {e}");
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
        if zip.has_overlapping_entries().map_err(damaged)? {
            return Err(
                "entries of its zip archive overlap or reach beyond it; expected each in a place of its own".to_owned()
            );
        }
        let is_pickle = |name: &str| name == "data.pkl" || name.ends_with("/data.pkl");
        let pickle = zip.file_names().filter_map(|n| Some(n.ok()?.into_owned())).find(|n| is_pickle(n));
        let pickle = pickle.ok_or("expected an entry `data.pkl` in the zip archive, found none")?;
        let folder = pickle.trim_end_matches("data.pkl").to_owned();
        Ok(Archive { bytes, zip, folder })
    }

    /// Whether there is an entry of this name.
    pub fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{}{name}", self.folder)).is_some()
    }

    /// The content of an entry, as a part of the file. It must not be compressed: PyTorch compresses none, and what is compressed may grow
    /// without bound.
    pub fn entry(&mut self, name: &str) -> Result<&'a [u8], String> {
        let name = format!("{}{name}", self.folder);
        let index = self.zip.index_for_name(&name).ok_or_else(|| format!("its zip archive has no entry `{name}`"))?;
        let entry = self.zip.by_index_raw(index);
        let entry = entry.map_err(|e| format!("entry `{name}` of its zip archive is damaged: {e}"))?;
        let size = entry.size();
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            let how = if entry.encrypted() {
                "encrypted".to_owned()
            } else {
                format!("compressed ({})", entry.compression())
            };
            return Err(format!(
                "entry `{name}` of its zip archive is {how}; expected it stored as it is, as PyTorch does"
            ));
        }
        let start = entry.data_start().and_then(|n| usize::try_from(n).ok());
        let length = usize::try_from(size).ok().filter(|_| entry.compressed_size() == size);
        let range = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
        range.and_then(|range| self.bytes.get(range)).ok_or_else(|| {
            format!("entry `{name}` of its zip archive claims {size} bytes, more than the file has for it")
        })
    }
}
