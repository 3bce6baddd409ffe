//! Tensor files and resumable checkpoints.
//!
//! A checkpoint is a directory `checkpoint-NNNNNN` (the number is the step) of three files:
//!
//! | file | holds |
//! |---|---|
//! | `model.safetensors` | parameters and states under their state-dict names: what `eval`, `predict` and PyTorch read |
//! | `optimizer.safetensors` | the optimiser's moments, as `NAME.m`, `NAME.v` |
//! | `state.json` | [`State`]: where training stands and how it was set up |
//!
//! It is written into a hidden directory beside it, flushed to the disk and then renamed, so a crash or a full disk at any time leaves
//! the older checkpoint as it was.

pub mod atomic;
pub mod fit;
pub mod pickle;
pub mod tensors;
pub mod torch;

pub use fit::{Fit, Fitted};
pub use tensors::{Data, Tensor, Tensors};

use crate::error::{Error, Result};
use foveate_compiler::schedule::variants::Choices;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version of [`State`] that is written.
pub const VERSION: u32 = 1;
/// Checkpoints that are kept, the newest ones.
const KEPT: usize = 2;
/// Where a training run keeps its checkpoints, in its own directory.
pub const DIRECTORY: &str = "checkpoints";
const PREFIX: &str = "checkpoint-";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// Where training stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// The recipe's name.
    pub recipe: String,
    /// The recipe's settings, as resolved; `--resume` demands the same ones.
    pub settings: serde_json::Value,
    /// Hash of the spec's text and all it imports, as hexadecimal digits.
    pub spec_hash: String,
    /// Seed of everything random.
    pub seed: u64,
    /// The epoch that the next step belongs to, from 0.
    pub epoch: usize,
    /// Optimiser steps so far.
    pub step: u64,
    /// Steps so far in that epoch.
    pub step_in_epoch: usize,
    /// Sums over those steps, from which the epoch's mean values come.
    pub running: serde_json::Value,
    /// What each finished epoch came to.
    pub history: Vec<serde_json::Value>,
    /// How units are scheduled, where that was tuned: other schedules give other bits.
    #[serde(default, skip_serializing_if = "Choices::is_empty")]
    pub choices: Choices,
}

/// Everything that training needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Parameters and states.
    pub model: Tensors,
    /// Optimiser moments.
    pub optimizer: Tensors,
    /// Where training stands.
    pub state: State,
}

impl Checkpoint {
    /// Writes the checkpoint into `directory`, whole or not at all, and removes all others but the newest few. Gives its path.
    pub fn save(&self, directory: &Path) -> Result<PathBuf> {
        let state = serde_json::to_vec_pretty(&self.state)
            .map_err(|e| Error::file(directory.join(STATE), format!("cannot be written as JSON: {e}")))?;
        let path = directory.join(format!("{PREFIX}{:06}", self.state.step));
        atomic::write_directory(
            &path,
            &[(MODEL, self.model.to_bytes(&path)?), (OPTIMIZER, self.optimizer.to_bytes(&path)?), (STATE, state)],
        )?;
        for old in list(directory)?.iter().rev().filter(|old| **old != path).skip(KEPT - 1) {
            std::fs::remove_dir_all(old).map_err(Error::io("remove", old))?;
        }
        Ok(path)
    }

    /// Reads a checkpoint. The tensors are those of the files: whoever uses them checks them with [`Tensors::expect`].
    pub fn load(path: &Path) -> Result<Checkpoint> {
        let file = path.join(STATE);
        let text = std::fs::read(&file).map_err(Error::io("read", &file))?;
        // The version first: another one may have other fields.
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|e| Error::file(&file, format!("not valid JSON: {e}")))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(v) if v == u64::from(VERSION) => {}
            found => {
                let found = found.map_or("none".to_owned(), |v| v.to_string());
                return Err(Error::file(&file, format!("expected a checkpoint of version {VERSION}, found {found}")));
            }
        }
        let state = serde_json::from_value(value)
            .map_err(|e| Error::file(&file, format!("not the state of a training run: {e}")))?;
        let model = Tensors::read(&path.join(MODEL))?;
        let optimizer = Tensors::read(&path.join(OPTIMIZER))?;
        Ok(Checkpoint { model, optimizer, state })
    }
}

/// The newest checkpoint of a directory.
pub fn latest(directory: &Path) -> Result<Option<PathBuf>> {
    Ok(list(directory)?.pop())
}

/// The model's tensors of a safetensors or PyTorch file, of a checkpoint, of the newest checkpoint of a directory, or of a training run's
/// directory: its last word, or its newest checkpoint.
pub fn read_model(path: &Path) -> Result<(PathBuf, Tensors)> {
    let file = if path.is_dir() && path.join(MODEL).is_file() {
        path.join(MODEL)
    } else if path.is_dir() {
        let newest = latest(path)?.or(latest(&path.join(DIRECTORY))?);
        newest
            .ok_or_else(|| {
                Error::file(path, format!("expected {MODEL} or a checkpoint in this directory, found none"))
            })?
            .join(MODEL)
    } else {
        path.to_owned()
    };
    let tensors = Tensors::read(&file)?;
    Ok((file, tensors))
}

/// The checkpoints of a directory, oldest first. What a crash left unfinished has another name and is not among them.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.parse::<u64>().ok());
        if let Some(step) = number {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, p)| p).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(step: u64) -> Checkpoint {
        let mut model = Tensors::default();
        model.insert("w".into(), Tensor { shape: vec![2], data: Data::F32(vec![1.0, step as f32]) });
        let mut optimizer = Tensors::default();
        optimizer.insert("w.m".into(), Tensor { shape: vec![2], data: Data::F32(vec![0.25, -1e-30]) });
        let state = State {
            version: VERSION,
            recipe: "r".into(),
            settings: serde_json::json!({"batch": 4}),
            spec_hash: "00".into(),
            seed: 1,
            epoch: 2,
            step,
            step_in_epoch: 3,
            running: serde_json::json!({}),
            history: vec![serde_json::json!({"loss": 0.1f32})],
            choices: Choices::default(),
        };
        Checkpoint { model, optimizer, state }
    }

    #[test]
    fn comes_back_as_it_was_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let out = dir.path().join("not/yet/there");
        assert_eq!(latest(&out).expect("readable"), None);
        for step in [5, 90, 1_000_000] {
            checkpoint(step).save(&out).expect("writable");
        }
        assert_eq!(list(&out).expect("readable").len(), KEPT);
        let newest = latest(&out).expect("readable").expect("there is one");
        assert_eq!(Checkpoint::load(&newest).expect("readable"), checkpoint(1_000_000));
        assert_eq!(read_model(&out).expect("readable").1, checkpoint(1_000_000).model);
        // Saving the same step again replaces it.
        checkpoint(1_000_000).save(&out).expect("writable");
        let names = std::fs::read_dir(&out).expect("readable").count();
        assert_eq!(names, KEPT, "nothing else is left behind");
        // What was just written stays, whatever its number.
        let path = checkpoint(7).save(&out).expect("writable");
        assert_eq!(Checkpoint::load(&path).expect("readable"), checkpoint(7));
    }

    #[test]
    fn what_a_crash_left_is_not_taken() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        checkpoint(5).save(dir.path()).expect("writable");
        std::fs::create_dir(dir.path().join(".checkpoint-000009.partial")).expect("writable");
        assert!(latest(dir.path()).expect("readable").expect("there is one").ends_with("checkpoint-000005"));
    }

    #[test]
    fn damaged_checkpoints_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = checkpoint(5).save(dir.path()).expect("writable");
        let message = |p: &Path| Checkpoint::load(p).unwrap_err().to_string();
        std::fs::write(path.join(STATE), r#"{"version": 9}"#).expect("writable");
        assert!(message(&path).contains("expected a checkpoint of version 1, found 9"), "{}", message(&path));
        std::fs::write(path.join(STATE), "{").expect("writable");
        assert!(message(&path).contains("not valid JSON"));
        std::fs::remove_file(path.join(STATE)).expect("writable");
        assert!(message(&path).starts_with("cannot read "));
    }
}
