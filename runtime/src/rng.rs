//! Random numbers that are functions of a key and a counter.
//!
//! Nothing here has state that must be saved: whoever knows the key (seed, epoch, image, ...) gets the same numbers again, in any order. The
//! mixing function is SplitMix64's (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).

/// A stream of numbers, addressed by a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    key: u64,
    counter: u64,
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A 64-bit hash of bytes that is the same on every machine (FNV-1a, mixed).
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3)))
}

impl Keyed {
    /// The stream of a key; the parts' order matters.
    pub fn new(parts: &[u64]) -> Keyed {
        let key = parts.iter().fold(0, |h, &p| mix(h ^ mix(p.wrapping_add(GOLDEN))).wrapping_add(GOLDEN));
        Keyed { key, counter: 0 }
    }
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }
    /// The next number in [0, 1), of 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// The next integer in `0..n`, without bias (Lemire, "Fast Random Integer Generation in an Interval", 2019). `n` is positive.
    pub fn below(&mut self, n: u64) -> u64 {
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }
    /// The next number of the standard normal distribution (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_decides() {
        let draw = |parts: &[u64]| {
            let mut r = Keyed::new(parts);
            (r.bits(), r.bits())
        };
        assert_eq!(draw(&[1, 2]), draw(&[1, 2]));
        assert_ne!(draw(&[1, 2]), draw(&[2, 1]));
        assert_ne!(draw(&[0]), draw(&[0, 0]));
        assert_ne!(hash_bytes(b"a.weight"), hash_bytes(b"a.bias"));
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut r = Keyed::new(&[7]);
        let n = 100_000;
        let unit: f64 = (0..n).map(|_| r.unit()).sum::<f64>() / f64::from(n);
        let normal: Vec<f64> = (0..n).map(|_| r.normal()).collect();
        let mean = normal.iter().sum::<f64>() / f64::from(n);
        let var = normal.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((unit - 0.5).abs() < 0.005, "{unit}");
        assert!(mean.abs() < 0.015 && (var - 1.0).abs() < 0.02, "{mean} {var}");
        let mut seen = [0; 5];
        (0..5000).for_each(|_| seen[r.below(5) as usize] += 1);
        assert!(seen.iter().all(|&s| (850..1150).contains(&s)), "{seen:?}");
    }
}
