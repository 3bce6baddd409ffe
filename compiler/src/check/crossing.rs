//! Axes on both sides of a module's border: an instance that several modules share has axes of its own where each of them has others.

use super::axes::{Axis, Kind};

/// The first number of the axes that stand for those of `..`; no other axis has a number from here on.
const GUEST: u32 = u32::MAX - 0x1_0000;

/// Owner of those axes.
const NOBODY: u32 = u32::MAX - 3;

/// Which axes inside an instance stand for which outside, at one of its uses: pairs of atoms, inside and outside.
///
/// Empty where an instance is made for its use alone: the axes of its arguments are those outside then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crossing(Vec<(Axis, Axis)>);

impl Crossing {
    /// From pairs of atoms, inside and outside.
    pub fn new(pairs: Vec<(Axis, Axis)>) -> Crossing {
        Crossing(pairs)
    }

    /// The atom inside that stands for one outside.
    pub fn inner(&self, outer: &Axis) -> Option<&Axis> {
        self.0.iter().find(|(_, o)| o.id() == outer.id()).map(|(inner, _)| inner)
    }

    /// An axis that comes in with a tensor, as seen inside. Atoms that are no argument's get a number by their order, and go to `guests`.
    pub fn inward(&self, axis: &Axis, guests: &mut Vec<Axis>) -> Axis {
        axis.replaced(&mut |atom, _| {
            if let Some(inner) = self.inner(atom) {
                return Some(inner.clone());
            }
            let known = guests.iter().position(|g| g.id() == atom.id());
            let at = known.unwrap_or_else(|| {
                guests.push(atom.clone());
                guests.len() - 1
            });
            Some(atom.renumbered(GUEST + at as u32, NOBODY))
        })
    }

    /// An axis of the instance `owner` as seen outside: that of its argument, a guest, or else weak.
    pub fn outward(&self, axis: &Axis, owner: u32, guests: &[Axis]) -> Axis {
        if self.0.is_empty() && guests.is_empty() {
            return axis.seen_from_outside(owner);
        }
        axis.replaced(&mut |atom, in_window| {
            let Kind::Atom { owner: of, .. } = atom.kind() else { return None };
            // What a window is around keeps its axes, as where nothing is shared.
            self.met(atom, guests).or_else(|| (*of == owner && !in_window).then(|| atom.weakened()))
        })
    }

    /// The axis of a label that goes out: nothing of it becomes weak.
    pub fn outward_label(&self, axis: &Axis, guests: &[Axis]) -> Axis {
        axis.replaced(&mut |atom, _| self.met(atom, guests))
    }

    /// The atom outside for an argument's or a guest's inside.
    fn met(&self, atom: &Axis, guests: &[Axis]) -> Option<Axis> {
        let id = atom.id()?;
        if let Some(at) = id.checked_sub(GUEST) {
            return guests.get(at as usize).cloned();
        }
        self.0.iter().find(|(inner, _)| inner.id() == Some(id)).map(|(_, outer)| outer.clone())
    }
}
