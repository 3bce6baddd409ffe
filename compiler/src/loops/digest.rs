//! What tells kernels apart, in a few bytes.

use super::Kernel;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

/// 128 bits of something structural, which no two different ones share by chance. Written as 32 hexadecimal digits.
///
/// Equal in every run of one build of this program; another release of Rust may hash differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u64; 2]);

impl Digest {
    /// The digest of anything whose hash is complete: two hashes under different seeds.
    pub fn of(what: &(impl Hash + ?Sized)) -> Digest {
        Digest([1u8, 2].map(|seed| {
            let mut hasher = DefaultHasher::new();
            seed.hash(&mut hasher);
            what.hash(&mut hasher);
            hasher.finish()
        }))
    }

    /// The digest of kernels in their order, whatever the names in them.
    pub fn of_kernels<'k>(kernels: impl IntoIterator<Item = &'k Kernel>) -> Digest {
        let each: Vec<Digest> = kernels.into_iter().map(|k| Digest::of(&k.nameless())).collect();
        Digest::of(&each)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let wrong = || format!("`{text}` is no digest: expected 32 hexadecimal digits");
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let half = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| wrong());
        Ok(Digest([half(&text[..16])?, half(&text[16..])?]))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Digest, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str, items: u32) -> Kernel {
        let (values, regs, body) = (Vec::new(), Vec::new(), Vec::new());
        Kernel { name: name.to_owned(), buffers: Vec::new(), locals: Vec::new(), values, regs, items, body }
    }

    #[test]
    fn names_do_not_matter_and_all_else_does() {
        let (a, b, c) = (kernel("a", 1), kernel("b", 1), kernel("a", 2));
        assert_eq!(Digest::of_kernels([&a]), Digest::of_kernels([&b]));
        assert_ne!(Digest::of_kernels([&a]), Digest::of_kernels([&c]));
        assert_ne!(Digest::of_kernels([&a, &c]), Digest::of_kernels([&c, &a]));
        assert_ne!(Digest::of_kernels([&a]), Digest::of_kernels([&a, &a]));
    }

    #[test]
    fn text_comes_back() {
        let digest = Digest::of("anything");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "12", "+2345678901234567890123456789012", "é234567890123456789012345678901"] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
