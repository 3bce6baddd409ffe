//! The times of units, under one schedule beside another.

use crate::bench::fill;
use crate::device::Device;
use crate::driver::Compiled;
use crate::error::Result;
use crate::plan::{Bindings, Memory, Session};
use foveate_compiler::ir::{ArgRole, Program, ResultRole};
use foveate_compiler::loops::digest::Digest;
use foveate_compiler::schedule::KernelGraph;
use std::collections::BTreeMap;
use std::time::Instant;

/// Rounds that are measured at least and at most.
const ROUNDS: (usize, usize) = (5, 25);
/// Seconds after which a comparison ends, if it has had the least number of rounds.
const SECONDS: f64 = 1.0;
/// By how much a time must be less to count as less: what is less by chance is hardly ever less by that, and what is less by no more is no loss.
const MARGIN: f64 = 0.03;

/// Seconds of a unit's launches in a run, over some rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// Each launch as fast as it ever was.
    pub least: f64,
    /// Each launch at its median.
    pub median: f64,
}

impl Time {
    /// Whether it is clearly less than another: other programs, which use the machine too, only ever add to the least, and stir the median.
    pub fn beats(&self, other: &Time) -> bool {
        self.least < (1.0 - MARGIN) * other.least && self.median < (1.0 - MARGIN) * other.median
    }
}

/// A program on tensors of its own, to be run under several schedules.
pub struct Stage<'a> {
    program: &'a Program,
    memory: Memory,
}

/// A schedule of the program, ready to run.
pub struct Scheduled {
    session: Session,
    /// The unit of each launch.
    units: Vec<Option<Digest>>,
}

impl<'a> Stage<'a> {
    /// Makes memory, compiles a first schedule and gives all arguments values as `bench` does.
    pub fn new(device: &Device, compiled: &'a Compiled, graph: &KernelGraph) -> Result<(Stage<'a>, Scheduled)> {
        let mut stage = Stage { program: &compiled.program, memory: Memory::new(device.clone())? };
        let first = stage.bind(graph, &Bindings::NONE)?;
        fill(&mut stage.memory, &first.session, compiled, None)?;
        Ok((stage, first))
    }

    /// Another schedule, on the arguments and results of the first.
    pub fn prepare(&mut self, graph: &KernelGraph, first: &Scheduled) -> Result<Scheduled> {
        let args = |role: &ArgRole| first.session.arg(role);
        let results = |role: &ResultRole| first.session.result(role).map(|(place, ..)| place);
        self.bind(graph, &Bindings { args: &args, results: &results })
    }

    /// Has the kernels compiled, all at once, and waits for them.
    fn bind(&mut self, graph: &KernelGraph, bindings: &Bindings<'_>) -> Result<Scheduled> {
        let session = Session::new(&mut self.memory, self.program, Some(graph), bindings)?;
        session.run(&mut self.memory)?;
        self.memory.device().sync()?;
        Ok(Scheduled { session, units: graph.launches.iter().map(|l| l.chosen.map(|c| c.unit)).collect() })
    }

    /// Runs two schedules by turns, so that what slows the machine down meets both, and gives the times of all units of both.
    pub fn compare(&mut self, a: &Scheduled, b: &Scheduled) -> Result<[BTreeMap<Digest, Time>; 2]> {
        let mut rounds: [Vec<Vec<f64>>; 2] = [Vec::new(), Vec::new()];
        let clock = Instant::now();
        for round in 0..ROUNDS.1 {
            if round >= ROUNDS.0 && clock.elapsed().as_secs_f64() > SECONDS {
                break;
            }
            for (scheduled, times) in [a, b].into_iter().zip(&mut rounds) {
                times.extend(scheduled.session.measure(&mut self.memory, 1)?);
            }
        }
        let [of_a, of_b] = rounds;
        Ok([a.by_unit(&of_a), b.by_unit(&of_b)])
    }

    /// The times of all units of one schedule.
    pub fn times(&mut self, scheduled: &Scheduled) -> Result<BTreeMap<Digest, Time>> {
        let rounds = scheduled.session.measure(&mut self.memory, ROUNDS.0)?;
        Ok(scheduled.by_unit(&rounds))
    }

    /// Lets go of machine code that no schedule uses.
    pub fn tidy(&self) {
        self.memory.device().forget_unused();
    }
}

impl Scheduled {
    fn by_unit(&self, rounds: &[Vec<f64>]) -> BTreeMap<Digest, Time> {
        let mut out: BTreeMap<Digest, Time> = BTreeMap::new();
        for (n, unit) in self.units.iter().enumerate() {
            let Some(unit) = unit else { continue };
            let mut of_launch: Vec<f64> = rounds.iter().map(|round| round[n]).collect();
            of_launch.sort_by(f64::total_cmp);
            let time = out.entry(*unit).or_default();
            time.least += of_launch[0];
            time.median += of_launch[of_launch.len() / 2];
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_by_chance_is_not_less() {
        let time = |least, median| Time { least, median };
        let before = time(1.0, 1.2);
        assert!(time(0.9, 1.1).beats(&before));
        for other in [time(0.99, 1.1), time(0.9, 1.19), time(0.9, 1.3), before, Time { least: f64::NAN, median: 0.0 }] {
            assert!(!other.beats(&before), "{other:?}");
        }
    }
}
