//! What was tuned on a device, on disk: a file a device, in JSON.
//!
//! ```json
//! {
//!   "format": "foveate tuning", "version": 1,
//!   "device": { "name": "cpu", "model": "...", "facts": { "lanes": 16, ... } },
//!   "programs": ["<digest>"],
//!   "units": { "<digest>": { "variant": "half-lanes", "default_us": 120.5, "us": 96.1, "tried": true } }
//! }
//! ```
//!
//! Nothing depends on it but time, so nothing fails with it: what cannot be read is said and measured again, what cannot be written is said.

use crate::checkpoint::atomic;
use crate::device::Device;
use crate::error::Error;
use crate::rng::hash_bytes;
use foveate_compiler::loops::digest::Digest;
use foveate_compiler::schedule::Facts;
use foveate_compiler::schedule::variants::Variant;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

const FORMAT: &str = "foveate tuning";
const VERSION: u64 = 1;
/// A file larger than this is none of ours: an entry has some hundred bytes.
const LARGEST: u64 = 64 << 20;

/// A time longer than this, in microseconds, was never measured.
const LONGEST: f64 = 1e12;

/// The environment variable with the directory for what is kept between runs.
pub const DIRECTORY: &str = "FOVEATE_CACHE";

/// What was found out about a unit. Times are microseconds for each launch that it has under the default; the least that were measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// The variant to schedule it with.
    pub variant: Variant,
    /// What it takes under the default.
    pub default_us: f64,
    /// What it takes under the variant.
    pub us: f64,
    /// Whether the variants were tried; not, if its share of the program was too small to matter.
    pub tried: bool,
}

/// What was found out about programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Their units.
    pub units: BTreeMap<Digest, Entry>,
    /// The programs themselves: nothing is left to try in them, whatever their units would take if they were measured again.
    pub programs: BTreeSet<Digest>,
}

/// What is known about the units of a device.
pub struct Cache {
    /// Where it is kept, if anywhere.
    path: Option<PathBuf>,
    device: Value,
    known: Found,
}

/// The directory for what is kept between runs: `$FOVEATE_CACHE`, or `foveate` in `$XDG_CACHE_HOME` or in `~/.cache`.
pub fn directory() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // A relative path in this variable means nothing, says its specification.
    let caches = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    set(DIRECTORY).or_else(|| Some(caches.or_else(|| Some(set("HOME")?.join(".cache")))?.join("foveate")))
}

impl Cache {
    /// Reads what is known about a device from its file in a directory; without one nothing is known or kept. A file that is not as it should be
    /// counts as none, with a warning.
    pub fn open(directory: Option<&Path>, device: &Device, facts: &Facts) -> (Cache, Option<String>) {
        let (name, device) = (device.name(), describe(device, facts));
        let file = |d: &Path| d.join(format!("tuning-{name}-{:016x}.json", hash_bytes(device.to_string().as_bytes())));
        let mut cache = Cache { path: directory.map(file), device, known: Found::default() };
        let warning = match cache.read() {
            Ok(known) => {
                cache.known = known;
                None
            }
            Err(e) => Some(format!("{e}; tuning goes on without what was known, and replaces the file")),
        };
        (cache, warning)
    }

    /// Where it is kept.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What is known about a unit.
    pub fn get(&self, unit: Digest) -> Option<&Entry> {
        self.known.units.get(&unit)
    }

    /// Whether a program was tuned as a whole.
    pub fn has_program(&self, program: Digest) -> bool {
        self.known.programs.contains(&program)
    }

    /// Keeps what was found out, together with what others have put there meanwhile; says what went wrong. Two that write at the very same
    /// moment may lose what one of them found, which is measured again when it is wanted.
    pub fn add(&mut self, found: Found) -> Option<String> {
        // What is damaged was told when it was opened, or is replaced without a word.
        let mut all = self.read().unwrap_or_default();
        for more in [std::mem::take(&mut self.known), found] {
            all.units.extend(more.units);
            all.programs.extend(more.programs);
        }
        self.known = all;
        let path = self.path.as_ref()?;
        let units: BTreeMap<String, &Entry> = self.known.units.iter().map(|(unit, e)| (unit.to_string(), e)).collect();
        let programs: Vec<String> = self.known.programs.iter().map(Digest::to_string).collect();
        let device = &self.device;
        let content =
            json!({ "format": FORMAT, "version": VERSION, "device": device, "programs": programs, "units": units });
        let written = atomic::write_file(path, format!("{content:#}\n").as_bytes());
        written.err().map(|e| format!("what was tuned is not kept: {e}; set {DIRECTORY} to a directory for it"))
    }

    /// What the file says; nothing if there is no file.
    fn read(&self) -> Result<Found, Error> {
        let Some(path) = &self.path else { return Ok(Found::default()) };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Found::default()),
            Err(e) => return Err(Error::io("read", path)(e)),
        };
        let mut text = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut text).map_err(Error::io("read", path))?;
        if text.len() as u64 > LARGEST {
            return Err(Error::file(path, format!("larger than {} MiB", LARGEST >> 20)));
        }
        self.parse(&text).map_err(|message| Error::file(path, message))
    }

    /// What a file's text says. What an entry of another release may have (other variants, other keys) is passed over.
    fn parse(&self, text: &[u8]) -> Result<Found, String> {
        let content: Value = serde_json::from_slice(text).map_err(|e| format!("not valid JSON: {e}"))?;
        let expect = |key: &str, expected: &Value| match content.get(key) {
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(format!("expected {expected} as `{key}`, found {found}")),
            None => Err(format!("expected {expected} as `{key}`, found nothing")),
        };
        expect("format", &json!(FORMAT))?;
        expect("version", &json!(VERSION))?;
        expect("device", &self.device)?;
        let units = content.get("units").and_then(Value::as_object).ok_or("expected an object of units")?;
        let units = units.iter().filter_map(|(unit, e)| Some((unit.parse().ok()?, entry(e)?))).collect();
        let programs = content.get("programs").and_then(Value::as_array).ok_or("expected a list of programs")?;
        let programs = programs.iter().filter_map(|program| program.as_str()?.parse().ok()).collect();
        Ok(Found { units, programs })
    }
}

/// An entry, if it is one that this release knows and that makes sense.
fn entry(value: &Value) -> Option<Entry> {
    let time = |key: &str| value.get(key)?.as_f64().filter(|t| (0.0..=LONGEST).contains(t));
    let variant = Variant::by_name(value.get("variant")?.as_str()?)?;
    let tried = value.get("tried")?.as_bool()?;
    Some(Entry { variant, default_us: time("default_us")?, us: time("us")?, tried })
}

/// What times depend on.
fn describe(device: &Device, facts: &Facts) -> Value {
    json!({ "name": device.name(), "model": device.model(), "facts": facts })
}

#[cfg(test)]
mod tests;
