//! An earlier run in the directory of a new one.

use crate::checkpoint;
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where an earlier run is moved to, in the same directory.
const PREVIOUS: &str = "previous";
/// What a run may leave in its directory, the checkpoints last: as long as there are any, the run is not wholly moved.
const FILES: [&str; 8] = [
    "metrics.jsonl",
    "report.html",
    "loss.svg",
    "accuracy.svg",
    "learning_rate.svg",
    "losses.svg",
    "model.safetensors",
    checkpoint::DIRECTORY,
];

/// Moves what an earlier run left out of the way of a new one, and says where to: its checkpoints would be taken for the new run's,
/// and a forgotten `--resume` should cost nothing. One earlier run is kept; a run that came to no checkpoint is not worth it.
pub fn set_aside(out: &Path) -> Result<Option<PathBuf>> {
    let checkpoints = checkpoint::latest(&out.join(checkpoint::DIRECTORY))?;
    let worth = checkpoints.is_some() || out.join("model.safetensors").is_file();
    let left = FILES.map(|name| out.join(name)).into_iter().filter(|path| path.symlink_metadata().is_ok());
    if !worth {
        for path in left {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(Error::io("remove", &path))?;
        }
        return Ok(None);
    }
    let to = out.join(PREVIOUS);
    if to.exists() {
        fs::remove_dir_all(&to).map_err(Error::io("remove", &to))?;
    }
    fs::create_dir(&to).map_err(Error::io("create", &to))?;
    for path in left {
        if let Some(name) = path.file_name() {
            fs::rename(&path, to.join(name)).map_err(Error::io("move", &path))?;
        }
    }
    Ok(Some(to))
}
