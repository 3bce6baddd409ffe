//! Helpers for diagnostics: the marker of a reported error, and suggestions for misspelt names.

use foveate_dsl::Diagnostic;

/// The problem is already among the diagnostics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported;

/// A result whose error has been reported.
pub(crate) type R<T> = Result<T, Reported>;

/// Adds a help line with the candidate that is closest to `name`, if one is close.
pub(crate) fn suggest<'n>(d: Diagnostic, name: &str, candidates: impl Iterator<Item = &'n str>) -> Diagnostic {
    match closest(name, candidates) {
        Some(candidate) => d.help(format!("did you mean `{candidate}`?")),
        None => d,
    }
}

/// The candidate that is closest to a misspelt name, if one is close.
pub fn closest<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let letters = |name: &str| name.chars().count();
    let limit = 1 + letters(name) / 4;
    // Between names of one letter any distance is as good as none.
    candidates
        .filter(|c| *c != name && (letters(name) > 1 || c.eq_ignore_ascii_case(name)))
        .map(|c| (distance(name, c), c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, c)| (*d, c.len()))
        .map(|(_, candidate)| candidate)
}

/// `1 input`, `2 inputs`.
pub(crate) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Edit distance, two neighbouring letters that changed places being one edit, where a change of case counts as nothing but breaks ties against equality.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (row[j] + usize::from(x != y)).min(next[j] + 1).min(row[j + 1] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}
