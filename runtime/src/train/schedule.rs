//! Learning rates and loss weights over a run.

use serde::{Deserialize, Serialize};

/// Linear warm-up, then cosine decay (Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningRate {
    /// The highest rate, where the warm-up ends.
    pub peak: f64,
    /// The rate where the cosine ends.
    pub last: f64,
    /// Length of the warm-up in epochs.
    pub warmup_epochs: f64,
}

/// How a loss weight goes on after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    Constant,
    /// It falls to 0 at the end of training, as half a cosine.
    Cosine,
}

/// The weight of one loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weight {
    /// The highest weight.
    pub peak: f64,
    /// Epochs over which it rises linearly from 0.
    pub warmup_epochs: f64,
    /// What it does then.
    pub decay: Decay,
}

impl Weight {
    /// The same weight throughout.
    pub fn constant(peak: f64) -> Weight {
        Weight { peak, warmup_epochs: 0.0, decay: Decay::Constant }
    }
    /// The weight of step `step` of `total` (from 0), at `per_epoch` steps an epoch.
    pub fn at(&self, step: u64, per_epoch: usize, total: u64) -> f64 {
        let warmup = self.warmup_epochs * per_epoch as f64;
        let step = step as f64;
        if step < warmup {
            return self.peak * step / warmup;
        }
        match self.decay {
            Decay::Constant => self.peak,
            Decay::Cosine => self.peak * half_cosine((step - warmup) / (total as f64 - warmup).max(1.0)),
        }
    }
}

impl LearningRate {
    /// The rate of step `step` of `total` (from 0), at `per_epoch` steps an epoch. The first step of a warm-up has a rate above 0.
    pub fn at(&self, step: u64, per_epoch: usize, total: u64) -> f64 {
        let warmup = self.warmup_epochs * per_epoch as f64;
        let step = step as f64;
        if step + 1.0 < warmup {
            return self.peak * (step + 1.0) / warmup;
        }
        let part = half_cosine((step - warmup).max(0.0) / (total as f64 - warmup).max(1.0));
        self.last + (self.peak - self.last) * part
    }
}

/// From 1 at 0 to 0 at 1.
fn half_cosine(part: f64) -> f64 {
    0.5 * (1.0 + libm::cos(std::f64::consts::PI * part.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_decays() {
        let lr = LearningRate { peak: 1.0, last: 0.1, warmup_epochs: 1.0 };
        let at: Vec<f64> = (0..40).map(|s| lr.at(s, 10, 40)).collect();
        assert!((at[0] - 0.1).abs() < 1e-12 && (at[4] - 0.5).abs() < 1e-12 && (at[10] - 1.0).abs() < 1e-12);
        assert!((at[25] - 0.55).abs() < 1e-12 && at[39] > 0.1 && at[39] < 0.11);
        assert!(at[10..].windows(2).all(|w| w[1] < w[0]));
        let none = LearningRate { warmup_epochs: 0.0, ..lr };
        assert_eq!(none.at(0, 10, 40), 1.0);
    }

    #[test]
    fn weights_of_losses() {
        let w = Weight { peak: 0.01, warmup_epochs: 2.0, decay: Decay::Cosine };
        assert_eq!(w.at(0, 10, 100), 0.0);
        assert!((w.at(10, 10, 100) - 0.005).abs() < 1e-12);
        assert!((w.at(20, 10, 100) - 0.01).abs() < 1e-12 && (w.at(60, 10, 100) - 0.005).abs() < 1e-12);
        assert!(w.at(100, 10, 100) < 1e-12);
        assert_eq!(Weight::constant(2.0).at(77, 10, 100), 2.0);
    }
}
