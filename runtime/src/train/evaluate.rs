//! Measuring a model on labelled images.

use super::model::{Model, largest};
use crate::data::Loader;
use crate::error::{Error, Result};
use std::time::Instant;

/// Most classes that are counted against each other.
const CONFUSED: usize = 1024;

/// How a model does on a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy, without label smoothing.
    pub loss: f64,
    /// Share classified rightly.
    pub accuracy: f64,
    /// Share whose class is among the five likeliest.
    pub top5: f64,
    /// How often images of a class (row) were taken for a class (column); empty with more than 1,024 classes.
    pub confusion: Vec<Vec<usize>>,
    /// Class and probability given to each image, in the data set's order.
    pub predictions: Vec<(u32, f32)>,
    /// Images a second.
    pub images_per_second: f64,
    /// Share of the time in which there was nothing to do but wait for images.
    pub waiting: f64,
}

/// Runs the model over all images of the loader, in inference mode.
pub fn evaluate(model: &mut Model<'_>, loader: &Loader) -> Result<Evaluation> {
    let mut feed = loader.start(0, 0);
    let begin = Instant::now();
    let (mut loss, mut right, mut among, mut waited) = (0.0, 0, 0, 0.0);
    let mut confusion = Vec::new();
    let mut predictions = Vec::with_capacity(loader.data.len());
    while let Some(batch) = timed(&mut waited, || feed.next_batch())? {
        let (logits, classes) = model.infer(&batch)?;
        if classes <= CONFUSED {
            confusion.resize(classes, vec![0; classes]);
        }
        for (row, &label) in logits.chunks_exact(classes).zip(&batch.labels) {
            let label = label as usize;
            let log_sum = log_sum_exp(row);
            let predicted = largest(row);
            loss += log_sum - f64::from(row[label]);
            right += usize::from(predicted == label);
            among += usize::from(row.iter().filter(|&&x| x > row[label]).count() < 5);
            if let Some(row) = confusion.get_mut(label) {
                row[predicted] += 1;
            }
            predictions.push((predicted as u32, libm::exp(f64::from(row[predicted]) - log_sum) as f32));
        }
        feed.give_back(batch);
    }
    let n = loader.data.len() as f64;
    if predictions.len() < loader.data.len() {
        return Err(Error::Device("preparing the test images failed".to_owned()));
    }
    let seconds = begin.elapsed().as_secs_f64().max(1e-9);
    Ok(Evaluation {
        loss: loss / n,
        accuracy: right as f64 / n,
        top5: among as f64 / n,
        confusion,
        predictions,
        images_per_second: n / seconds,
        waiting: waited / seconds,
    })
}

/// Adds the seconds of some work.
pub fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let out = work();
    *seconds += begin.elapsed().as_secs_f64();
    out
}

/// `log(sum(exp(x)))`.
fn log_sum_exp(row: &[f32]) -> f64 {
    let most = row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let most = f64::from(most);
    most + libm::log(row.iter().map(|&x| libm::exp(f64::from(x) - most)).sum::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_is_safe() {
        assert!((log_sum_exp(&[0.0, 0.0]) - 2f64.ln()).abs() < 1e-12);
        assert!((log_sum_exp(&[1000.0, 1000.0]) - 1000.0 - 2f64.ln()).abs() < 1e-9);
    }
}
