//! Spec files, and the item of one with its arguments.

use crate::args::{DeviceName, Setting, Target};
use crate::failure::Failure;
use foveate_compiler::check::Value;
use foveate_compiler::schedule::Facts;
use foveate_compiler::schedule::variants::Choices;
use foveate_runtime::device::Device;
use foveate_runtime::driver::{Request, Source, gradient};
use foveate_runtime::tune::{self, TuneOptions};
use std::io::Write;
use std::path::Path;

/// An item of a spec with the arguments of the command line.
pub struct Item {
    source: Source,
    name: Option<String>,
    settings: Vec<(String, Value)>,
    batch: usize,
}

impl Item {
    /// Reads the spec.
    pub fn load(target: &Target, batch: usize) -> Result<Item, Failure> {
        let source = Source::load(&target.item.file)?;
        let settings = values(&target.settings.set)?;
        Ok(Item { source, name: target.item.item.clone(), settings, batch })
    }

    /// Asks `what` of the item's inference program, or of the program that gives its results and their gradients.
    pub fn with<T>(
        &self,
        training: bool,
        what: impl FnOnce(&Source, &Request<'_>) -> foveate_runtime::error::Result<T>,
    ) -> Result<T, Failure> {
        let mut request = Request {
            item: self.name.as_deref(),
            settings: &self.settings,
            training,
            random: true,
            batch: self.batch,
            exposed: Vec::new(),
            gradients: None,
            choices: Choices::NONE,
        };
        if training {
            request.gradients = Some(gradient(&self.source.lower(&request)?));
        }
        Ok(what(&self.source, &request)?)
    }
}

/// The values of settings; the same name twice is an error unless the values agree.
pub fn values(settings: &[Setting]) -> Result<Vec<(String, Value)>, Failure> {
    let mut out: Vec<(String, Value)> = Vec::new();
    for setting in settings {
        let value = Value::parse(&setting.value).map_err(|e| Failure::new(format!("--set {}: {e}", setting.name)))?;
        match out.iter().find(|(name, _)| *name == setting.name) {
            Some((name, first)) if *first != value => {
                return Err(Failure::new(format!("--set gives `{name}` two values, {first} and {value}")));
            }
            Some(_) => {}
            None => out.push((setting.name.clone(), value)),
        }
    }
    Ok(out)
}

/// What schedules may use: the facts of the processor, or those of a usual one where this build has no device.
pub fn facts() -> Facts {
    let facts = Device::open("cpu").ok().and_then(|device| device.facts());
    facts.unwrap_or(Facts::USUAL)
}

/// What schedules for a device may use; of a processor that this build lacks those of a usual one, unless something is `run` on it. `what` is not there
/// for a device that has no schedules.
pub fn facts_of(device: DeviceName, run: bool, what: &str) -> Result<Facts, Failure> {
    match Device::open(device.name()) {
        Ok(open) => open.facts().ok_or_else(|| {
            Failure::new(format!("the interpreter runs the program as it is written: there are no kernels to {what}"))
        }),
        Err(_) if device == DeviceName::Cpu && !run => Ok(facts()),
        Err(error) => Err(error.into()),
    }
}

/// Whether and how to tune, as the command line has it.
pub fn tune(asked: bool, quiet: bool) -> Option<TuneOptions> {
    asked.then(|| TuneOptions { cache: tune::directory(), quiet })
}

/// The text of a file; it must be UTF-8.
pub fn read(path: &Path) -> Result<String, Failure> {
    let raw = std::fs::read(path).map_err(|error| Failure::io("read", path, error))?;
    let text = String::from_utf8(raw).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(format!("{} is not text: byte {at} is not UTF-8; save the file as UTF-8", path.display()))
    })?;
    // A byte order mark is no part of the text.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// Gives a file a new text, whole or not at all; its permissions stay.
pub fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        // A link is followed, so that the file it points at is replaced and not the link.
        let path = path.canonicalize()?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        new.write_all(text.as_bytes())?;
        new.as_file().set_permissions(std::fs::metadata(&path)?.permissions())?;
        new.as_file().sync_all()?;
        new.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| Failure::io("write", path, error))
}
