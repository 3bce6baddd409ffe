//! The report of a training run: one HTML file that needs no other, and its curves as SVG files beside it.

mod svg;

use crate::checkpoint::atomic;
use crate::data::Images;
use crate::error::Result;
use crate::picture;
use crate::train::Evaluation;
use crate::train::metrics::{Log, StepRecord};
use std::fmt::Write;
use std::path::Path;
use svg::{Line, escape};

/// Points a curve of steps has at most; more are averaged.
const POINTS: usize = 240;
/// Most classes that are shown against each other.
const CLASSES: usize = 40;
/// Example predictions that are shown.
const EXAMPLES: usize = 24;

/// What a report tells.
pub struct Content<'a> {
    /// The recipe's name.
    pub recipe: &'a str,
    /// Its resolved settings.
    pub settings: &'a serde_json::Value,
    /// The device's name.
    pub device: &'a str,
    /// Number of trained numbers.
    pub parameters: usize,
    /// Number of trained tensors.
    pub tensors: usize,
    /// Distinct kernels, and launches, of a training step.
    pub kernels: (usize, usize),
    /// Bytes of device memory in all.
    pub memory_bytes: usize,
    /// Bytes of those that temporaries need.
    pub scratch_bytes: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// All records.
    pub log: &'a Log,
    /// The last evaluation.
    pub evaluation: &'a Evaluation,
    /// The test images.
    pub test: &'a Images,
}

/// Writes `report.html` and, beside it, `loss.svg`, `accuracy.svg` and `learning_rate.svg`.
pub fn write(path: &Path, content: &Content<'_>) -> Result<()> {
    let curves = curves(content.log);
    for (name, chart) in &curves {
        atomic::write_file(&path.with_file_name(name), chart.as_bytes())?;
    }
    atomic::write_file(path, page(content, &curves)?.as_bytes())
}

fn curves(log: &Log) -> Vec<(&'static str, String)> {
    let steps: Vec<&StepRecord> = log.steps().collect();
    let last_epoch = log.epochs().last();
    let per_epoch = match last_epoch {
        Some(e) if e.epoch > 0 => e.step as f64 / e.epoch as f64,
        _ => steps.iter().filter(|s| s.epoch == 0).count().max(1) as f64,
    };
    let of_steps = |name: &str, value: &dyn Fn(&StepRecord) -> f64| {
        let bin = steps.len().div_ceil(POINTS).max(1);
        let points = steps.chunks(bin).map(|c| {
            let middle = (c[0].step + c[c.len() - 1].step) as f64 / 2.0;
            (middle / per_epoch, c.iter().map(|s| value(s)).sum::<f64>() / c.len() as f64)
        });
        Line { name: name.to_owned(), points: points.collect() }
    };
    let of_epochs = |name: &str, value: &dyn Fn(&crate::train::metrics::EpochRecord) -> f64| Line {
        name: name.to_owned(),
        points: log.epochs().map(|e| (e.epoch as f64, value(e))).collect(),
    };
    let loss = [of_steps("training (weighted)", &|s| s.loss), of_epochs("test (cross-entropy)", &|e| e.test_loss)];
    let accuracy = [of_steps("training", &|s| 100.0 * s.accuracy), of_epochs("test", &|e| 100.0 * e.test_accuracy)];
    let mut out = vec![
        ("loss.svg", svg::chart("Loss", "epoch", &loss)),
        ("accuracy.svg", svg::chart("Accuracy, %", "epoch", &accuracy)),
        ("learning_rate.svg", svg::chart("Learning rate", "epoch", &[of_steps("rate", &|s| s.lr)])),
    ];
    let names: Vec<&String> = steps.first().map_or(Vec::new(), |s| s.losses.keys().collect());
    if names.len() > 1 {
        let value = |s: &StepRecord, n: &str| s.losses.get(n).copied().flatten().unwrap_or(f64::NAN);
        let lines: Vec<Line> = names.iter().map(|n| of_steps(n, &|s| value(s, n))).collect();
        out.push(("losses.svg", svg::chart("Each loss by itself, unweighted", "epoch", &lines)));
    }
    out
}

fn page(c: &Content<'_>, curves: &[(&'static str, String)]) -> Result<String> {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>Training report</title>\n<style>\n\
         body { font: 15px/1.5 sans-serif; max-width: 1360px; margin: 2em auto; padding: 0 1em; color: #222 }\n\
         table { border-collapse: collapse } td, th { padding: 2px 10px; text-align: right; border-bottom: 1px solid #ddd }\n\
         td:first-child, th:first-child { text-align: left } pre { background: #f5f5f5; padding: 1em; overflow-x: auto }\n\
         .curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1em }\n\
         .examples { display: flex; flex-wrap: wrap; gap: 10px } figure { margin: 0; text-align: center; font-size: 12px }\n\
         img { image-rendering: pixelated; width: 72px; height: 72px } .wrong { color: #b00 }\n</style></head><body>\n",
    );
    let _ = writeln!(out, "<h1>Recipe {}</h1>", escape(c.recipe));
    let e = c.evaluation;
    let epochs = c.log.epochs().count();
    let best = c.log.epochs().map(|r| r.test_accuracy).fold(e.accuracy, f64::max);
    let rates: Vec<f64> = c.log.epochs().map(|r| r.images_per_second).collect();
    let rate = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    let waiting = c.log.epochs().map(|r| r.waiting).sum::<f64>() / rates.len().max(1) as f64;
    let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let rows = [
        ("test accuracy", format!("{:.2} %", 100.0 * e.accuracy)),
        ("test accuracy of five guesses", format!("{:.2} %", 100.0 * e.top5)),
        ("best test accuracy of an epoch", format!("{:.2} %", 100.0 * best)),
        ("test cross-entropy", format!("{:.4}", e.loss)),
        ("test images", c.test.len().to_string()),
        ("parameters", format!("{} in {} tensors", c.parameters, c.tensors)),
        ("epochs", epochs.to_string()),
        ("steps", c.log.steps().last().map_or(0, |s| s.step).to_string()),
        ("time of training", format!("{:.1} s", c.seconds)),
        ("training throughput", format!("{rate:.0} images/s")),
        ("time spent waiting for images", format!("{:.1} %", 100.0 * waiting)),
        ("evaluation throughput", format!("{:.0} images/s", e.images_per_second)),
        ("device", c.device.to_owned()),
        ("kernels of a training step", format!("{} distinct, {} launches", c.kernels.0, c.kernels.1)),
        ("device memory", format!("{}, of which {} for temporaries", mib(c.memory_bytes), mib(c.scratch_bytes))),
    ];
    out.push_str("<table>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
    }
    out.push_str("</table>\n<h2>Curves</h2>\n<div class=\"curves\">\n");
    curves.iter().for_each(|(_, chart)| out.push_str(chart));
    out.push_str("</div>\n<h2>Epochs</h2>\n<table>\n<tr><th>epoch</th><th>loss</th><th>accuracy</th><th>test loss</th><th>test accuracy</th><th>images/s</th></tr>\n");
    for r in c.log.epochs() {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{:.4}</td><td>{:.2} %</td><td>{:.4}</td><td>{:.2} %</td><td>{:.0}</td></tr>",
            r.epoch,
            r.loss,
            100.0 * r.accuracy,
            r.test_loss,
            100.0 * r.test_accuracy,
            r.images_per_second
        );
    }
    out.push_str("</table>\n");
    confusion(&mut out, e);
    examples(&mut out, c)?;
    let settings = serde_json::to_string_pretty(c.settings).unwrap_or_default();
    let _ = writeln!(out, "<h2>Configuration</h2>\n<pre>{}</pre>\n</body></html>", escape(&settings));
    Ok(out)
}

fn confusion(out: &mut String, e: &Evaluation) {
    if e.confusion.is_empty() || e.confusion.len() > CLASSES {
        return;
    }
    out.push_str(
        "<h2>Classes of the test images (rows) and what they were taken for (columns)</h2>\n<table>\n<tr><th></th>",
    );
    (0..e.confusion.len()).for_each(|n| {
        let _ = write!(out, "<th>{n}</th>");
    });
    out.push_str("<th>right</th></tr>\n");
    for (n, row) in e.confusion.iter().enumerate() {
        let total = row.iter().sum::<usize>().max(1);
        let _ = write!(out, "<tr><td>{n}</td>");
        for (m, count) in row.iter().enumerate() {
            let share = *count as f64 / total as f64;
            let colour = if n == m { "0,158,115" } else { "213,94,0" };
            let _ = write!(out, "<td style=\"background:rgba({colour},{share:.2})\">{count}</td>");
        }
        let _ = writeln!(out, "<td>{:.1} %</td></tr>", 100.0 * row[n] as f64 / total as f64);
    }
    out.push_str("</table>\n");
}

/// The first test images, then those that were wrong with the most confidence.
fn examples(out: &mut String, c: &Content<'_>) -> Result<()> {
    let mut wrong: Vec<usize> = (0..c.test.len().min(c.evaluation.predictions.len()))
        .filter(|&n| c.evaluation.predictions[n].0 != c.test.label(n))
        .collect();
    wrong.sort_by(|&a, &b| c.evaluation.predictions[b].1.total_cmp(&c.evaluation.predictions[a].1));
    let first: Vec<usize> = (0..c.test.len().min(EXAMPLES)).collect();
    for (title, chosen) in [("First test images", first), ("Most confident mistakes", wrong)] {
        let _ = writeln!(out, "<h2>{title}</h2>\n<div class=\"examples\">");
        for n in chosen.into_iter().take(EXAMPLES) {
            let (class, probability) = c.evaluation.predictions[n];
            let label = c.test.label(n);
            let [channels, rows, cols] = c.test.shape();
            let picture = picture::of_planes(&c.test.image(n)?, channels, rows, cols);
            let _ = writeln!(
                out,
                "<figure{}><img alt=\"test image {n}\" src=\"{}\"><br>is {label}<br>taken for {class} ({:.0} %)</figure>",
                if class == label { "" } else { " class=\"wrong\"" },
                picture::data_uri(&picture),
                100.0 * probability
            );
        }
        out.push_str("</div>\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::train::metrics::{EpochRecord, Record};
    use std::collections::BTreeMap;

    #[test]
    fn a_report_is_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut log = Log::open(&dir.path().join("metrics.jsonl"), None).expect("writable");
        for step in 1..=10 {
            let losses = BTreeMap::from([("ce".to_owned(), Some(1.0)), ("aux".to_owned(), None)]);
            let (lr, loss, accuracy) = (1e-3, 1.0 / step as f64, 0.5);
            let record = StepRecord { step, epoch: 0, lr, loss, losses, accuracy, grad_norm: None };
            log.add(Record::Step(record)).expect("writable");
        }
        let epoch = EpochRecord {
            epoch: 1,
            step: 10,
            loss: 0.5,
            accuracy: 0.5,
            test_loss: 0.4,
            test_accuracy: 0.5,
            images_per_second: 10.0,
            waiting: 0.25,
            seconds: 3.0,
        };
        log.add(Record::Epoch(epoch)).expect("writable");
        let test =
            Dataset { pixels: vec![0, 255, 3, 4, 5, 6, 7, 8], labels: vec![0, 1], channels: 1, rows: 2, cols: 2 };
        let test = Images::Memory(test);
        let evaluation = Evaluation {
            loss: 0.4,
            accuracy: 0.5,
            top5: 1.0,
            confusion: vec![vec![1, 0], vec![1, 0]],
            predictions: vec![(0, 0.9), (0, 0.8)],
            images_per_second: 5.0,
            waiting: 0.0,
        };
        let path = dir.path().join("report.html");
        let content = Content {
            recipe: "a<b",
            settings: &serde_json::json!({"epochs": 1}),
            device: "cpu",
            parameters: 12,
            tensors: 3,
            kernels: (4, 5),
            memory_bytes: 1 << 20,
            scratch_bytes: 1 << 19,
            seconds: 3.0,
            log: &log,
            evaluation: &evaluation,
            test: &test,
        };
        write(&path, &content).expect("writable");
        let page = std::fs::read_to_string(&path).expect("readable");
        for part in [
            "a&lt;b",
            "<svg",
            "50.00 %",
            "data:image/png;base64,",
            "class=\"wrong\"",
            "&quot;epochs&quot;: 1",
            "12 in 3 tensors",
            "25.0 %",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for name in ["loss.svg", "accuracy.svg", "learning_rate.svg", "losses.svg"] {
            assert!(dir.path().join(name).is_file(), "{name}");
        }
    }
}
