//! Tuning: which variants the units of programs are scheduled with, found by measuring on the device that runs them.
//!
//! A program is scheduled as a whole under each [`Variant`], run beside the default with the time of every launch taken, and the times are summed by unit.
//! A variant that clearly beats the default for a unit is a candidate; the candidates, all together, are then measured against the default once more,
//! and only what holds is chosen. What was found is kept in a [`Cache`], so that only what is new is measured.
//!
//! Results depend on what was chosen, as the order of a sum depends on its schedule: whoever needs the same bits again keeps the [`Choices`].

mod cache;
mod measure;

pub use cache::{Cache, DIRECTORY, Entry, Found, directory};

use crate::device::Device;
use crate::driver::Compiled;
use crate::error::{Error, Result};
use foveate_compiler::loops::digest::Digest;
use foveate_compiler::schedule::variants::{Choices, Variant};
use foveate_compiler::schedule::{Facts, KernelGraph, schedule_chosen};
use measure::{Scheduled, Stage, Time};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

/// The share of a program's time that its shortest units, about half of them, may take together without being tried: what could be gained is far below
/// what is measured, and most of the time of tuning goes into compiling.
const SHORT: f64 = 0.01;

/// That something is to be tuned, and where what was found is kept.
#[derive(Clone, Debug, Default)]
pub struct TuneOptions {
    /// The directory, see [`directory`]; without one nothing is known and nothing kept.
    pub cache: Option<PathBuf>,
    /// Print nothing while it lasts.
    pub quiet: bool,
}

/// What tuning came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tuning {
    /// Different units of all programs: kernels or groups of kernels that are scheduled at a time.
    pub units: usize,
    /// Those whose variants were measured now; the others were known, or take so little of the time that nothing could be gained.
    pub measured: usize,
    /// Those that have another variant than the default.
    pub chosen: usize,
    /// How many units have which variant.
    pub variants: BTreeMap<&'static str, usize>,
    /// Milliseconds of a run of all programs' kernels under the default.
    pub default_ms: f64,
    /// With what was chosen.
    pub tuned_ms: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Where what was found is kept.
    pub cache: Option<PathBuf>,
    /// What went wrong, none of which matters to the results. Said at once too, unless nothing is to be printed.
    pub warnings: Vec<String>,
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tuning: {} units, {} of them measured in {:.1} s", self.units, self.measured, self.seconds)?;
        let variants: Vec<String> = self.variants.iter().map(|(name, n)| format!("{name} {n}")).collect();
        if variants.is_empty() {
            return write!(f, "; the usual schedule is the best for all");
        }
        let gain = 100.0 * (1.0 - self.tuned_ms / self.default_ms.max(f64::MIN_POSITIVE));
        write!(
            f,
            "; {} have another schedule ({}): {:.3} ms in kernels instead of {:.3}, {gain:.1} % less",
            self.chosen,
            variants.join(", "),
            self.tuned_ms,
            self.default_ms
        )
    }
}

/// Tunes programs of a device, one after the other.
pub struct Tuner {
    device: Device,
    facts: Facts,
    cache: Cache,
    /// What the programs so far have chosen; units whose choice is the default are not among them.
    choices: Choices,
    /// The units of the programs so far.
    seen: BTreeSet<Digest>,
    report: Tuning,
    /// The schedules that were measured last, a default and one as chosen for every program: their kernels are not compiled again.
    kept: Vec<Scheduled>,
    quiet: bool,
    begin: Instant,
}

impl Tuner {
    /// Begins, with what is known about the device.
    ///
    /// # Errors
    /// A device that has no kernels.
    pub fn new(device: &Device, options: &TuneOptions) -> Result<Tuner> {
        let Some(facts) = device.facts() else {
            let message =
                "there is nothing to tune: the interpreter runs the program as it is written; leave --tune out";
            return Err(Error::Setting(message.to_owned()));
        };
        let begin = Instant::now();
        let (cache, warning) = Cache::open(options.cache.as_deref(), device, &facts);
        let report = Tuning { cache: cache.path().map(PathBuf::from), ..Tuning::default() };
        let (choices, seen, quiet) = (Choices::default(), BTreeSet::new(), options.quiet);
        let (device, kept) = (device.clone(), Vec::new());
        let mut tuner = Tuner { device, facts, cache, choices, seen, report, kept, quiet, begin };
        if options.cache.is_none() {
            tuner.warn(format!("what is tuned is not kept: there is no directory for it; set {DIRECTORY}"));
        }
        warning.into_iter().for_each(|w| tuner.warn(w));
        Ok(tuner)
    }

    /// Tunes the units of a program of which nothing is known yet, and chooses for all of them. `what` it is is said to people.
    pub fn tune(&mut self, compiled: &Compiled, what: &str) -> Result<()> {
        let mut known = Choices::default();
        let default = self.schedule(compiled, Choices::NONE);
        let launches = launches_by_unit(&default);
        for unit in launches.keys() {
            if let Some(entry) = self.cache.get(*unit) {
                known.choose(*unit, entry.variant);
            }
        }
        let program = Digest::of(&launches);
        // Times stir, and with them what is short: a program that was tuned is left as it was found, or its run would never be the same again.
        if !self.cache.has_program(program) || launches.keys().any(|unit| self.cache.get(*unit).is_none()) {
            let new = self.new_units(&launches);
            let units = match new.is_empty() {
                true => BTreeMap::new(),
                false => self.search(compiled, what, &known, &launches, &new)?,
            };
            self.report.measured += units.values().filter(|e| e.tried).count();
            let warning = self.cache.add(Found { units, programs: [program].into() });
            warning.into_iter().for_each(|w| self.warn(w));
        }
        for (unit, kernels) in &launches {
            let Some(entry) = self.cache.get(*unit) else { continue };
            self.report.default_ms += 1e-3 * entry.default_us * kernels.len() as f64;
            self.report.tuned_ms += 1e-3 * entry.us * kernels.len() as f64;
            if self.seen.insert(*unit) && entry.variant != Variant::Default {
                self.choices.choose(*unit, entry.variant);
                *self.report.variants.entry(entry.variant.name()).or_default() += 1;
                self.report.chosen += 1;
            }
        }
        Ok(())
    }

    /// The units whose variants were never tried, unless all are known and those take too little of the time.
    fn new_units(&self, launches: &BTreeMap<Digest, Vec<Digest>>) -> BTreeSet<Digest> {
        let untried = launches.keys().copied().filter(|u| self.cache.get(*u).is_none_or(|e| !e.tried));
        let time =
            |(unit, kernels): (&Digest, &Vec<Digest>)| Some((*unit, self.cache.get(*unit)?.us * kernels.len() as f64));
        match launches.iter().map(time).collect::<Option<Vec<_>>>() {
            Some(times) => {
                let short = short(times, SHORT);
                untried.filter(|u| !short.contains(u)).collect()
            }
            None => untried.collect(),
        }
    }

    /// What was chosen, and what tuning came to.
    pub fn finish(mut self) -> (Choices, Tuning) {
        self.report.units = self.seen.len();
        self.report.seconds = self.begin.elapsed().as_secs_f64();
        (self.choices, self.report)
    }

    fn schedule(&self, compiled: &Compiled, choices: &Choices) -> KernelGraph {
        schedule_chosen(&compiled.program, &self.facts, choices)
    }

    /// Finds out about the new units of a program, whose launches under the default are given; the known ones are as they are known.
    fn search(
        &mut self,
        compiled: &Compiled,
        what: &str,
        known: &Choices,
        launches: &BTreeMap<Digest, Vec<Digest>>,
        new: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<Digest, Entry>> {
        let (mut stage, base) = Stage::new(&self.device, compiled, &self.schedule(compiled, known))?;
        let mut times = stage.times(&base)?;
        let short = short(times.iter().map(|(unit, time)| (*unit, time.least)), SHORT);
        let long = new.iter().filter(|unit| !short.contains(*unit));
        // For each unit the kernels that were tried, and the best variant so far, with its time as a share of the default's.
        let mut tried: BTreeMap<Digest, Vec<Vec<Digest>>> =
            long.map(|unit| (*unit, vec![launches[unit].clone()])).collect();
        let mut best: BTreeMap<Digest, (Variant, f64)> = BTreeMap::new();
        for variant in Variant::OTHERS {
            let Some((graph, units)) = self.untried(compiled, known, variant, &mut tried) else { continue };
            self.say(&format!("tuning {what}: {} of {} units as {}", units.len(), launches.len(), variant.name()));
            let outcome = stage.prepare(&graph, &base).and_then(|s| stage.compare(&base, &s));
            stage.tidy();
            let Some([before, after]) = self.unless_it_failed(outcome, what, variant.name()) else { continue };
            for unit in units {
                let (Some(before), Some(after)) = (before.get(&unit), after.get(&unit)) else { continue };
                let share = after.least / before.least;
                if after.beats(before) && best.get(&unit).is_none_or(|(_, least)| share < *least) {
                    best.insert(unit, (variant, share));
                }
            }
            times = before;
        }

        let mut candidates = known.clone();
        best.iter().for_each(|(unit, (variant, _))| candidates.choose(*unit, *variant));
        let mut tuned: BTreeMap<Digest, Time> = BTreeMap::new();
        if !best.is_empty() {
            self.say(&format!("tuning {what}: {} of {} units chosen, against the default", best.len(), launches.len()));
            let graph = self.schedule(compiled, &candidates);
            if let Some([before, after]) = self.confirm(&mut stage, &base, &graph, what) {
                (times, tuned) = (before, after);
            }
        }
        self.kept.push(base);
        let entry = |unit: &Digest| {
            let before = times.get(unit)?;
            let each = |time: &Time| 1e6 * time.least / launches[unit].len() as f64;
            let holds = tuned.get(unit).filter(|after| best.contains_key(unit) && after.beats(before));
            let variant = holds.map_or(Variant::Default, |_| candidates.of(*unit));
            let (default_us, us, tried) = (each(before), each(holds.unwrap_or(before)), tried.contains_key(unit));
            Some((*unit, Entry { variant, default_us, us, tried }))
        };
        Ok(new.iter().filter_map(entry).collect())
    }

    /// Measures all that is better alone together, and afresh: of six times that are the same but for chance the least looks good. The times of all
    /// units under the default and as chosen; `None` if nothing is gained on the whole, since a unit may leave work to another one (a copy that they
    /// share).
    fn confirm(
        &mut self,
        stage: &mut Stage<'_>,
        base: &Scheduled,
        chosen: &KernelGraph,
        what: &str,
    ) -> Option<[BTreeMap<Digest, Time>; 2]> {
        let outcome = stage.prepare(chosen, base).and_then(|s| Ok((stage.compare(base, &s)?, s)));
        let (times, scheduled) = self.unless_it_failed(outcome, what, "chosen")?;
        self.kept.push(scheduled);
        let [before, after] = times.each_ref().map(|t| t.values().map(|time| time.least).sum::<f64>());
        (after < before).then_some(times)
    }

    /// A schedule with the variant for those units for which it gives kernels that were not tried yet, and these units; `None` if there are none.
    fn untried(
        &self,
        compiled: &Compiled,
        known: &Choices,
        variant: Variant,
        tried: &mut BTreeMap<Digest, Vec<Vec<Digest>>>,
    ) -> Option<(KernelGraph, Vec<Digest>)> {
        let everywhere = self.schedule(compiled, &known.or_else(variant));
        let mut choices = known.clone();
        let mut units = Vec::new();
        for (unit, kernels) in launches_by_unit(&everywhere) {
            let Some(before) = tried.get_mut(&unit) else { continue };
            if !before.contains(&kernels) {
                before.push(kernels);
                choices.choose(unit, variant);
                units.push(unit);
            }
        }
        (!units.is_empty()).then(|| (self.schedule(compiled, &choices), units))
    }

    /// An outcome; a failure is only worth a warning, since there is always the default.
    fn unless_it_failed<T>(&mut self, outcome: Result<T>, what: &str, how: &str) -> Option<T> {
        outcome.map_err(|e| self.warn(format!("tuning {what}: `{how}` is left out: {e}"))).ok()
    }

    fn warn(&mut self, warning: String) {
        self.say(&format!("warning: {warning}"));
        self.report.warnings.push(warning);
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// The shortest units, as many as take no more than this share of the time together.
fn short(times: impl IntoIterator<Item = (Digest, f64)>, share: f64) -> BTreeSet<Digest> {
    let mut times: Vec<(Digest, f64)> = times.into_iter().collect();
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut left = share * times.iter().map(|(_, time)| time).sum::<f64>();
    let fits = |(_, time): &(Digest, f64)| {
        left -= time;
        left >= 0.0
    };
    times.into_iter().take_while(fits).map(|(unit, _)| unit).collect()
}

/// For each unit of a schedule the kernels of its launches, in order.
fn launches_by_unit(graph: &KernelGraph) -> BTreeMap<Digest, Vec<Digest>> {
    let kernels: Vec<Digest> = graph.kernels.iter().map(|k| Digest::of_kernels([k])).collect();
    let mut out: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
    for launch in &graph.launches {
        if let Some(chosen) = launch.chosen {
            out.entry(chosen.unit).or_default().push(kernels[launch.kernel]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_ones_are_few_in_time() {
        let unit = |n: u32| Digest::of(&n);
        let times = || [(unit(0), 90.0), (unit(1), 0.4), (unit(2), 9.0), (unit(3), 0.5), (unit(4), 0.1)];
        assert_eq!(short(times(), 0.01), [1, 3, 4].map(unit).into());
        assert_eq!(short(times(), 0.007), [1, 4].map(unit).into());
        assert_eq!(short(times(), 0.0), BTreeSet::new());
        assert_eq!(short([], 0.01), BTreeSet::new());
    }

    #[test]
    fn what_came_of_it_is_said() {
        let mut tuning =
            Tuning { units: 3, measured: 2, seconds: 1.25, default_ms: 2.0, tuned_ms: 2.0, ..Tuning::default() };
        assert!(tuning.to_string().ends_with("2 of them measured in 1.2 s; the usual schedule is the best for all"));
        tuning.variants.insert("half-lanes", 1);
        (tuning.chosen, tuning.tuned_ms) = (1, 1.5);
        let text = tuning.to_string();
        assert!(
            text.ends_with("1 have another schedule (half-lanes 1): 1.500 ms in kernels instead of 2.000, 25.0 % less")
        );
    }
}
