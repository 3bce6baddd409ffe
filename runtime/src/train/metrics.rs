//! What is measured while training: a record a step and a record an epoch, and the file `metrics.jsonl` of both.

use crate::checkpoint::atomic;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// After a step.
    Step(StepRecord),
    /// After an epoch and its evaluation.
    Epoch(EpochRecord),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps so far, this one included.
    pub step: u64,
    /// Its epoch, from 0.
    pub epoch: usize,
    /// Learning rate.
    pub lr: f64,
    /// The weighted sum of the losses.
    pub loss: f64,
    /// Each loss by itself, unweighted; `null` in the file where it is not finite.
    pub losses: BTreeMap<String, Option<f64>>,
    /// Share of the batch that was classified rightly.
    pub accuracy: f64,
    /// L2 norm of the gradient before clipping, where it is computed.
    pub grad_norm: Option<f64>,
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epochs so far, this one included.
    pub epoch: usize,
    /// Steps so far.
    pub step: u64,
    /// Mean over its training images of the weighted loss.
    pub loss: f64,
    /// Share of its training images that were classified rightly.
    pub accuracy: f64,
    /// Cross-entropy on the test images.
    pub test_loss: f64,
    /// Share of the test images that are classified rightly.
    pub test_accuracy: f64,
    /// Training images a second, evaluation and saving not counted.
    pub images_per_second: f64,
    /// Share of that time in which there was nothing to do but wait for images.
    #[serde(default)]
    pub waiting: f64,
    /// Seconds of training so far, those of resumed runs together.
    pub seconds: f64,
}

/// Sums over the steps of an epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Images seen.
    pub images: usize,
    /// Those classified rightly.
    pub right: usize,
    /// Sum over the images of the weighted loss.
    pub loss: f64,
    /// Seconds spent on them.
    pub seconds: f64,
    /// Those of these in which there was nothing to do but wait for images.
    #[serde(default)]
    pub waited: f64,
}

impl Running {
    /// Adds a step of `images` images.
    pub fn add(&mut self, images: usize, right: usize, loss: f64, seconds: f64) {
        self.images += images;
        self.right += right;
        self.loss += loss * images as f64;
        self.seconds += seconds;
    }
    /// Mean loss an image.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.images.max(1) as f64
    }
    /// Share classified rightly.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.images.max(1) as f64
    }
    /// Share of the time spent waiting for images.
    pub fn waiting(&self) -> f64 {
        if self.seconds > 0.0 { self.waited / self.seconds } else { 0.0 }
    }
    /// Images a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.images as f64 / self.seconds } else { 0.0 }
    }
}

/// `metrics.jsonl`, and its records in memory.
pub struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    /// All records so far.
    pub records: Vec<Record>,
}

impl Log {
    /// Opens the log. A new run begins an empty one; a resumed run keeps the records up to step `keep` and forgets what came after
    /// the checkpoint.
    pub fn open(path: &Path, keep: Option<u64>) -> Result<Log> {
        let records = match keep {
            Some(step) if path.exists() => {
                let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
                // A line that a crash cut short does not parse; nor can what follows it be of interest.
                let all = text.lines().map_while(|l| serde_json::from_str::<Record>(l).ok());
                all.filter(|r| r.step() <= step).collect()
            }
            _ => Vec::new(),
        };
        let mut text = String::new();
        records.iter().for_each(|r| text.push_str(&line(r)));
        atomic::write_file(path, text.as_bytes())?;
        let file = File::options().append(true).open(path).map_err(Error::io("write", path))?;
        Ok(Log { path: path.to_owned(), file: BufWriter::new(file), records })
    }
    /// Adds a record.
    pub fn add(&mut self, record: Record) -> Result<()> {
        self.file.write_all(line(&record).as_bytes()).map_err(Error::io("write", &self.path))?;
        self.records.push(record);
        Ok(())
    }
    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }
    /// The epochs so far.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochRecord> {
        self.records.iter().filter_map(|r| match r {
            Record::Epoch(e) => Some(e),
            Record::Step(_) => None,
        })
    }
    /// The steps so far.
    pub fn steps(&self) -> impl Iterator<Item = &StepRecord> {
        self.records.iter().filter_map(|r| match r {
            Record::Step(s) => Some(s),
            Record::Epoch(_) => None,
        })
    }
}

impl Record {
    fn step(&self) -> u64 {
        match self {
            Record::Step(s) => s.step,
            Record::Epoch(e) => e.step,
        }
    }
}

fn line(record: &Record) -> String {
    let mut text = serde_json::to_string(record).expect("records have only string keys");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Record {
        let losses = BTreeMap::from([("a".to_owned(), Some(0.1)), ("b".to_owned(), None)]);
        Record::Step(StepRecord { step, epoch: 0, lr: 1e-3, loss: 0.1, losses, accuracy: 0.5, grad_norm: None })
    }

    #[test]
    fn a_resumed_log_forgets_what_came_after() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("metrics.jsonl");
        let mut log = Log::open(&path, None).expect("writable");
        (1..=5).for_each(|n| log.add(step(n)).expect("writable"));
        log.flush().expect("writable");
        drop(log);
        let mut text = std::fs::read_to_string(&path).expect("readable");
        text.truncate(text.len() - 10);
        std::fs::write(&path, text).expect("writable");
        let mut log = Log::open(&path, Some(3)).expect("readable");
        assert_eq!(log.records, (1..=3).map(step).collect::<Vec<_>>());
        log.add(step(4)).expect("writable");
        log.flush().expect("writable");
        assert_eq!(std::fs::read_to_string(&path).expect("readable").lines().count(), 4);
        assert_eq!(Log::open(&path, None).expect("writable").records, []);
    }
}
