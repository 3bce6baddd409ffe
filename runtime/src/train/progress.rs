//! The progress bar, and the lines around it.

use super::metrics::{EpochRecord, Running};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a person sees of a run, on standard error. Without a terminal only the lines appear.
pub struct Progress {
    bar: ProgressBar,
    epochs: usize,
    quiet: bool,
    before: u64,
}

impl Progress {
    /// For `steps` steps in all, of which `done` were done by an earlier run.
    pub fn new(epochs: usize, steps: u64, done: u64, quiet: bool) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(5));
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_position(done);
        Progress { bar, epochs, quiet, before: done }
    }
    /// A line above the bar.
    pub fn say(&self, text: &str) {
        match (self.quiet, self.bar.is_hidden()) {
            (true, _) => {}
            (false, true) => eprintln!("{text}"),
            (false, false) => self.bar.println(text),
        }
    }
    /// After a step; `step` counts from the beginning of training, `seconds` from that of this run.
    pub fn step(&self, epoch: usize, step: u64, running: &Running, seconds: f64) {
        let rate = (step - self.before) as f64 / seconds.max(1e-9);
        let left = (self.bar.length().unwrap_or(step).saturating_sub(step)) as f64 / rate.max(1e-9);
        self.bar.set_prefix(format!("epoch {}/{}", epoch + 1, self.epochs));
        self.bar.set_message(format!(
            "loss {:.4}  accuracy {:.1} %  {:.0} images/s  {} left",
            running.mean_loss(),
            100.0 * running.accuracy(),
            running.rate(),
            duration(left)
        ));
        self.bar.set_position(step);
    }
    /// After an epoch.
    pub fn epoch(&self, e: &EpochRecord) {
        self.say(&format!(
            "epoch {:>3}/{}  loss {:.4}  accuracy {:.2} %  test loss {:.4}  test accuracy {:.2} %  {:.0} images/s{}",
            e.epoch,
            self.epochs,
            e.loss,
            100.0 * e.accuracy,
            e.test_loss,
            100.0 * e.test_accuracy,
            e.images_per_second,
            // Only where it is worth a thought.
            if e.waiting >= 0.01 {
                format!(", {:.0} % of the time waiting for images", 100.0 * e.waiting)
            } else {
                String::new()
            }
        ));
    }
    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// `12 s`, `3 min 4 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.clamp(0.0, 1e9).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        assert_eq!([0.4, 59.6, 61.0, 7500.0].map(duration), ["0 s", "1 min 0 s", "1 min 1 s", "2 h 5 min"]);
    }
}
