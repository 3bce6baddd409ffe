//! Sizes of memory on the command line.

use std::str::FromStr;

/// A number of bytes, written with or without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub usize);

/// Units, those that end like another one first.
const UNITS: [(&str, f64); 7] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let text = text.trim();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim_end(), *unit)))
            .unwrap_or((text, 1.0));
        let bytes = number.parse::<f64>().map_or(f64::NAN, |n| (n * unit).round());
        // What is larger than this no machine has, and every such number is a whole one.
        if (1.0..=9e15).contains(&bytes) {
            return Ok(Bytes(bytes as usize));
        }
        Err("expected a size such as 4GiB, 1.5GB or 800MiB".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let of = |text: &str| text.parse::<Bytes>().map(|b| b.0);
        assert_eq!(of("4GiB"), Ok(4 << 30));
        assert_eq!(of("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(of("800MiB"), Ok(800 << 20));
        assert_eq!(of("4096"), Ok(4096));
        for bad in ["", "GiB", "-1GiB", "0", "4 gigs", "nan", "inf", "1e30GiB"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
