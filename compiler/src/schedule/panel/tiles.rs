//! How many register tiles an item goes through with its panel.
//!
//! The more, the less it matters what the panel costs to fill; but there are to be items for all units, and at the end some wait for the others.

use super::rows::{MULTIPLY, NEAR};

/// How long units wait for the last items, in items.
const WAIT: f64 = 0.5;

/// What there is to do, and with what.
pub struct Task {
    /// Register tiles of a panel.
    pub tiles: usize,
    /// The fewest for which a panel pays, and the most whose rows stay near.
    pub least: usize,
    pub most: usize,
    /// Panels.
    pub panels: usize,
    /// Steps of a register tile.
    pub unroll: usize,
    /// What a vector of the panel costs to load, beside one as it is.
    pub cost: f64,
    /// Units that run at the same time.
    pub units: usize,
}

impl Task {
    /// The number with which all is done soonest.
    pub fn each(&self) -> usize {
        let fill = NEAR * self.cost.max(1.0) / (MULTIPLY * self.unroll as f64);
        let time = |each: usize| {
            let items = self.panels * self.tiles.div_ceil(each);
            (items.div_ceil(self.units) as f64 + WAIT) * (each as f64 + fill)
        };
        let parts = self.tiles.div_ceil(self.most)..=(self.tiles / self.least).max(self.tiles.div_ceil(self.most));
        let all = parts.map(|n| self.tiles.div_ceil(n));
        all.min_by(|&a, &b| time(a).total_cmp(&time(b))).unwrap_or(self.tiles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_as_many_items_as_each_other() {
        let task = Task { tiles: 131, least: 6, most: 60, panels: 5, unroll: 6, cost: 1.0, units: 2 };
        let each = task.each();
        let items = 5 * task.tiles.div_ceil(each);
        assert!(items.is_multiple_of(2), "{items} items of {each} tiles");
        for most in 6..=60 {
            let each = Task { most, ..task }.each();
            assert!((6..=most).contains(&each), "{each} of at most {most}");
        }
        assert_eq!(Task { tiles: 3, ..task }.each(), 3);
    }
}
