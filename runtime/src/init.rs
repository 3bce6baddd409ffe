//! Initial values of parameters and states: functions of the seed and the tensor's name, so that adding a layer to a spec
//! does not change the values of the others.

use crate::rng::{Keyed, hash_bytes};
use foveate_compiler::check::Init;

/// `len` initial values of the tensor `name`.
pub fn values(init: Init, seed: u64, name: &str, len: usize) -> Vec<f32> {
    let mut random = Keyed::new(&[seed, hash_bytes(b"init"), hash_bytes(name.as_bytes())]);
    (0..len)
        .map(|_| match init {
            Init::Zeros => 0.0,
            Init::Ones => 1.0,
            Init::Constant(c) => c as f32,
            Init::Normal(std) => (std * random.normal()) as f32,
            Init::TruncNormal(std) => truncated(&mut random, std) as f32, // absolute, as PyTorch's default
            Init::Uniform(bound) => (bound * (2.0 * random.unit() - 1.0)) as f32,
        })
        .collect()
}

/// A normal number of this deviation in [-2, 2]. Rejection needs 1 / P(|x| <= 2) draws on average; where that is a lot (a deviation
/// much larger than the cut) the density is flat and uniform proposals are accepted instead.
fn truncated(random: &mut Keyed, std: f64) -> f64 {
    const CUT: f64 = 2.0;
    if std <= CUT {
        loop {
            let x = std * random.normal();
            if x.abs() <= CUT {
                return x;
            }
        }
    }
    loop {
        let x = CUT * (2.0 * random.unit() - 1.0);
        if random.unit() < libm::exp(-0.5 * (x / std) * (x / std)) {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn std(v: &[f32]) -> f64 {
        let mean = v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len() as f64;
        (v.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / v.len() as f64).sqrt()
    }

    #[test]
    fn seed_and_name_decide() {
        let d = Init::Normal(1.0);
        assert_eq!(values(d, 1, "a", 8), values(d, 1, "a", 8));
        assert_ne!(values(d, 1, "a", 8), values(d, 2, "a", 8));
        assert_ne!(values(d, 1, "a", 8), values(d, 1, "b", 8));
        assert_eq!(values(Init::Constant(0.5), 1, "a", 2), [0.5, 0.5]);
    }

    #[test]
    fn spreads_are_as_asked() {
        assert!((std(&values(Init::Normal(0.02), 3, "w", 20_000)) - 0.02).abs() < 5e-4);
        assert!((std(&values(Init::TruncNormal(0.02), 3, "w", 20_000)) - 0.02).abs() < 5e-4);
        let uniform = values(Init::Uniform(0.3), 3, "w", 20_000);
        assert!(uniform.iter().all(|x| x.abs() <= 0.3));
        assert!((std(&uniform) - 0.3 / 3f64.sqrt()).abs() < 5e-3);
        for s in [1.0, 2.5, 100.0] {
            assert!(values(Init::TruncNormal(s), 3, "w", 5000).iter().all(|x| x.abs() <= 2.0));
        }
        // Cut at one deviation of 2: the standard deviation is 2 * 0.5396.
        assert!((std(&values(Init::TruncNormal(2.0), 3, "w", 50_000)) - 1.0793).abs() < 0.02);
    }
}
