//! Damage to texts and files, at random.

use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;
use std::path::Path;

/// A place, what is done there, and another place.
pub type Damage = (Index, usize, Index);

/// A few damages.
pub fn damages() -> impl Strategy<Value = Vec<Damage>> {
    prop::collection::vec((any::<Index>(), 0usize..6, any::<Index>()), 1..4)
}

/// Removes, repeats, moves and cuts off characters or bytes; something is left.
pub fn damage<T: Clone>(list: &mut Vec<T>, damages: &[Damage]) {
    for (at, how, other) in damages {
        let (at, other) = (at.index(list.len()), other.index(list.len()));
        let item = list[other].clone();
        match how {
            0 => drop(list.remove(at)),
            1 => list.insert(at, item.clone()),
            2 => list[at] = item.clone(),
            3 => list.truncate(at.max(20)),
            4 => drop(list.drain(at..(at + other % 20).min(list.len()))),
            _ => {
                let piece = list[at..(at + other % 30).min(list.len())].to_vec();
                list.splice(other..other, piece);
            }
        }
        if list.is_empty() {
            list.push(item);
        }
    }
}

/// Damages the text of a file.
pub fn damage_text(path: &Path, damages: &[Damage]) {
    let mut text: Vec<char> = fs::read_to_string(path).expect("read").chars().collect();
    damage(&mut text, damages);
    fs::write(path, text.into_iter().collect::<String>()).expect("written");
}

/// Copies a folder of specs, so that what a damaged one imports lies beside it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("copied");
        }
    }
}
