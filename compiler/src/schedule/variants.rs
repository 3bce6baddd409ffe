//! Other ways to schedule, and the choice among them.
//!
//! The schedules weigh operations, loads and registers by rules that are right on the whole. A single kernel may still be faster by a tenth or
//! more with a smaller tile or a larger array, and only a measurement tells. A [`Variant`] changes the [`Facts`] that a *unit* (what is
//! scheduled at a time: a group of definitions with common rows, or a definition by itself) is scheduled with, and nothing else: the schedules are
//! right whatever the facts, so every variant of every unit is.

use super::Facts;
use crate::loops::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A way to schedule a unit, by what it is told of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The facts as they are.
    #[default]
    Default,
    /// Three quarters of the registers: smaller register tiles.
    FewerRegisters,
    /// Half the registers.
    HalfRegisters,
    /// Vectors of half the lanes.
    HalfLanes,
    /// Half the local memory: shorter arrays, more passes.
    HalfLocal,
    /// Three times the local memory.
    MoreLocal,
    /// Work items for three times as many units: smaller ones.
    MoreItems,
}

impl Variant {
    /// All but the default, in the order in which they are tried.
    pub const OTHERS: [Variant; 6] = [
        Variant::FewerRegisters,
        Variant::HalfRegisters,
        Variant::HalfLanes,
        Variant::HalfLocal,
        Variant::MoreLocal,
        Variant::MoreItems,
    ];

    /// Its name, in files and for people.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Default => "default",
            Variant::FewerRegisters => "fewer-registers",
            Variant::HalfRegisters => "half-registers",
            Variant::HalfLanes => "half-lanes",
            Variant::HalfLocal => "half-local",
            Variant::MoreLocal => "more-local",
            Variant::MoreItems => "more-items",
        }
    }

    /// The variant of that name, if there is one.
    pub fn by_name(name: &str) -> Option<Variant> {
        std::iter::once(Variant::Default).chain(Variant::OTHERS).find(|v| v.name() == name)
    }

    /// What schedules may use under it of a device with these facts.
    pub fn facts(self, facts: &Facts) -> Facts {
        let Facts { lanes, units, local_bytes, registers, .. } = *facts;
        match self {
            Variant::Default => facts.clone(),
            Variant::FewerRegisters => Facts { registers: (registers * 3 / 4).max(1), ..*facts },
            Variant::HalfRegisters => Facts { registers: (registers / 2).max(1), ..*facts },
            Variant::HalfLanes => Facts { lanes: (lanes / 2).max(1), ..*facts },
            Variant::HalfLocal => Facts { local_bytes: local_bytes / 2, ..*facts },
            Variant::MoreLocal => Facts { local_bytes: local_bytes * 3, ..*facts },
            Variant::MoreItems => Facts { units: units * 3, ..*facts },
        }
    }
}

/// The variants that units are scheduled with.
///
/// A unit is known by the digest of the kernels that it has under the default, so that equal work shares a choice, wherever in a model or in
/// which model it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Choices {
    chosen: BTreeMap<Digest, Variant>,
    #[serde(skip)]
    otherwise: Variant,
}

impl Choices {
    /// The default for every unit.
    pub const NONE: &'static Choices = &Choices { chosen: BTreeMap::new(), otherwise: Variant::Default };

    /// One variant for all units.
    pub fn everywhere(variant: Variant) -> Choices {
        Choices { otherwise: variant, ..Choices::default() }
    }

    /// The same choices, but with this variant for units of which nothing is said.
    pub fn or_else(&self, variant: Variant) -> Choices {
        Choices { otherwise: variant, ..self.clone() }
    }

    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.otherwise == Variant::Default && self.chosen.values().all(|v| *v == Variant::Default)
    }

    /// The variant of a unit.
    pub fn of(&self, unit: Digest) -> Variant {
        self.chosen.get(&unit).copied().unwrap_or(self.otherwise)
    }

    /// Says what is chosen for a unit.
    pub fn choose(&mut self, unit: Digest, variant: Variant) {
        self.chosen.insert(unit, variant);
    }

    /// The units of which something is said, with what.
    pub fn iter(&self) -> impl Iterator<Item = (Digest, Variant)> + '_ {
        self.chosen.iter().map(|(unit, variant)| (*unit, *variant))
    }
}

/// A unit of a schedule and the variant it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The digest of the kernels that it has under the default.
    pub unit: Digest,
    /// How it was scheduled.
    pub variant: Variant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for variant in Variant::OTHERS {
            assert_eq!(Variant::by_name(variant.name()), Some(variant));
            let json = serde_json::to_value(variant).expect("a name");
            assert_eq!(json.as_str(), Some(variant.name()));
        }
        assert_eq!(Variant::by_name("other"), None);
    }

    #[test]
    fn the_least_device_stays_one() {
        let least = Facts { lanes: 1, units: 1, local_bytes: 0, registers: 1, ..Facts::USUAL };
        for variant in Variant::OTHERS {
            let facts = variant.facts(&least);
            assert!(facts.lanes >= 1 && facts.units >= 1 && facts.registers >= 1, "{variant:?}");
        }
    }
}
