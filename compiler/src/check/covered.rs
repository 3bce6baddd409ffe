//! What needs no second look: items that went through, with their arguments, alone or inside others.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::arguments::sign;
use super::axes::OWN;
use super::elaborator::Elaborator;
use super::spec::ItemRef;
use super::value::{Env, Static};

/// Items of a file with arguments in which nothing is wrong, for inference and for training.
#[derive(Default)]
pub(crate) struct Covered(RefCell<[HashSet<String>; 2]>);

impl Covered {
    /// Whether the item went through with arguments like these.
    pub fn has(&self, training: bool, item: ItemRef, arguments: &Env) -> bool {
        self.0.borrow()[usize::from(training)].contains(&pattern(item, arguments))
    }

    /// Adds what an elaboration went through, if it found nothing wrong: for its mode, or for both if it never asked which.
    pub fn add(&self, elaborator: &mut Elaborator<'_>) {
        if !elaborator.diagnostics.is_empty() {
            return;
        }
        let both = !elaborator.mode_matters;
        let mode = elaborator.training();
        for instance in elaborator.elaborated.values() {
            let pattern = pattern(instance.item, &instance.arguments);
            let mut sets = self.0.borrow_mut();
            if both {
                sets[usize::from(!mode)].insert(pattern.clone());
            }
            sets[usize::from(mode)].insert(pattern);
        }
    }
}

/// Text that is equal for arguments that a module cannot tell apart: the same values (of a rate, the same sign), and the same axes
/// at the same places, whichever these are.
fn pattern(item: ItemRef, arguments: &Env) -> String {
    let mut text = String::new();
    for (_, value) in arguments.entries() {
        match value {
            Static::Float(x) => text.push_str(sign(*x)),
            _ => value.identity(&mut text),
        }
        text.push(';');
    }
    let mut out = format!("{}.{}:", item.file, item.item);
    let mut numbers = HashMap::new();
    let mut pieces = text.split(OWN);
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (id, rest) = piece.split_at(piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len()));
        let count = numbers.len();
        let _ = write!(out, "{OWN}{}{rest}", numbers.entry(id).or_insert(count));
    }
    out
}
