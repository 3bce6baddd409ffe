//! Where temporaries lie: those whose lives do not overlap may share memory.

use super::memory::ALIGN;
use std::ops::Range;

/// A temporary: how large it is and when it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The first launch that uses it.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// Elements.
    pub len: usize,
}

/// Memory beyond the least that tensors may take for threads to keep to their parts of it: a sixteenth is what places are looked for in, an eighth what
/// is taken.
const LOOKED_FOR: usize = 16;
const TAKEN: usize = 8;

/// An offset for each interval, such that two that live at the same time do not overlap, and the elements needed in all. Offsets are multiples of
/// [`ALIGN`].
///
/// Greedy by size: the largest first, each at the lowest offset where it fits (Pisarchyk and Lee, "Efficient Memory Management for Deep
/// Neural Net Inference", 2020).
///
/// With several `threads`, each of which has the same part of every tensor, an interval is rather put where every thread finds what was its part of
/// others, as far as that takes little more memory. A part that another thread had before is in that one's cache, and where the two share none, to write
/// there takes several times as long.
pub fn pack(intervals: &[Interval], threads: usize) -> (Vec<usize>, usize) {
    let least = greedy(intervals, None);
    if threads < 2 {
        return least;
    }
    let parts = Parts { threads, limit: least.1 + least.1 / ALIGN / LOOKED_FOR * ALIGN, runs: Vec::new() };
    let kept = greedy(intervals, Some(parts));
    if kept.1 <= least.1 + least.1 / TAKEN { kept } else { least }
}

/// The offsets, at the lowest place where each fits or, with parts, at the best of them, and the elements needed.
fn greedy(intervals: &[Interval], mut parts: Option<Parts>) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&n| (std::cmp::Reverse(intervals[n].len), intervals[n].first, n));
    let mut offsets = vec![0; intervals.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    let mut total = 0;
    for n in order {
        let this = intervals[n];
        let size = this.len.next_multiple_of(ALIGN);
        let together =
            placed.iter().copied().filter(|&o| this.first <= intervals[o].last && intervals[o].first <= this.last);
        let gaps = gaps(together.map(|o| offsets[o]..offsets[o] + intervals[o].len.next_multiple_of(ALIGN)), size);
        let at = parts.as_ref().and_then(|p| p.best(&gaps, size)).unwrap_or(gaps[0].start);
        if let Some(p) = &mut parts {
            p.claim(at, size);
        }
        offsets[n] = at;
        total = total.max(at + size);
        let position = placed.partition_point(|&p| offsets[p] <= at);
        placed.insert(position, n);
    }
    (offsets, total)
}

/// What is left between some ranges, sorted by where they start, as far as `size` elements fit; the last one has no end.
fn gaps(taken: impl Iterator<Item = Range<usize>>, size: usize) -> Vec<Range<usize>> {
    let (mut out, mut free) = (Vec::new(), 0);
    for range in taken {
        if free + size <= range.start {
            out.push(free..range.start);
        }
        free = free.max(range.end);
    }
    out.push(free..usize::MAX);
    out
}

/// Which thread has what of the memory: the one whose part lay there first.
struct Parts {
    threads: usize,
    /// Elements of all memory that places are looked for in.
    limit: usize,
    /// By offset, apart from each other.
    runs: Vec<(Range<usize>, usize)>,
}

impl Parts {
    /// Where a thread's part of so many elements ends; with 0, where the first one's begins.
    fn end(&self, size: usize, threads: usize) -> usize {
        size / ALIGN * threads / self.threads * ALIGN
    }

    /// Each thread's part of `size` elements at an offset.
    fn of(&self, at: usize, size: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
        (0..self.threads).map(move |t| (at + self.end(size, t)..at + self.end(size, t + 1), t))
    }

    /// The runs that have something of a range.
    fn within(&self, range: &Range<usize>) -> impl Iterator<Item = &(Range<usize>, usize)> {
        let first = self.runs.partition_point(|(run, _)| run.end <= range.start);
        let end = range.end;
        self.runs[first..].iter().take_while(move |(run, _)| run.start < end)
    }

    /// Elements that another thread had before.
    fn foreign(&self, at: usize, size: usize) -> usize {
        let shared = |a: &Range<usize>, b: &Range<usize>| a.end.min(b.end) - a.start.max(b.start);
        let of_part = |(range, t): (Range<usize>, usize)| -> usize {
            self.within(&range).filter(|(_, owner)| *owner != t).map(|(run, _)| shared(run, &range)).sum()
        };
        self.of(at, size).map(of_part).sum()
    }

    /// The place within the limit with the fewest foreign elements, among those where something begins, ends or has its middle where what lay there had.
    fn best(&self, gaps: &[Range<usize>], size: usize) -> Option<usize> {
        // Where parts begin and end: the first, the one in the middle, the last.
        let edges = [0, self.threads / 2, self.threads].map(|t| (t, self.end(size, t)));
        let alike = self.runs.iter().flat_map(|(run, owner)| {
            edges.into_iter().filter_map(move |(t, ahead)| match t {
                t if t == *owner => run.start.checked_sub(ahead),
                t if t == owner + 1 => run.end.checked_sub(ahead),
                _ => None,
            })
        });
        let beside = gaps.iter().flat_map(|gap| [Some(gap.start), gap.end.min(self.limit).checked_sub(size)]).flatten();
        let fits = |&at: &usize| {
            let gap = gaps.partition_point(|gap| gap.start <= at).checked_sub(1);
            at + size <= self.limit && gap.is_some_and(|n| at + size <= gaps[n].end)
        };
        alike.chain(beside).filter(fits).min_by_key(|&at| (self.foreign(at, size), at))
    }

    /// Gives each thread what nobody has of its part.
    fn claim(&mut self, at: usize, size: usize) {
        let mut new = Vec::new();
        for (range, t) in self.of(at, size) {
            let mut free = range.start;
            for (run, _) in self.within(&range) {
                if free < run.start {
                    new.push((free..run.start, t));
                }
                free = run.end;
            }
            if free < range.end {
                new.push((free..range.end, t));
            }
        }
        self.runs.extend(new);
        self.runs.sort_by_key(|(run, _)| run.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lives_apart_share() {
        let i = |first, last, len| Interval { first, last, len };
        let (offsets, total) = pack(&[i(0, 1, ALIGN), i(2, 3, ALIGN), i(1, 2, ALIGN)], 1);
        assert_eq!((offsets[0], offsets[1], total), (0, 0, 2 * ALIGN));
        assert_eq!(pack(&[], 2), (vec![], 0));
    }

    #[test]
    fn threads_keep_to_their_parts() {
        let i = |first, last, len| Interval { first, last, len: len * ALIGN };
        // A small one in the place of a large one: both have their middle there.
        assert_eq!(pack(&[i(0, 1, 8), i(2, 3, 2)], 1).0, [0, 0]);
        assert_eq!(pack(&[i(0, 1, 8), i(2, 3, 2)], 2).0, [0, 3 * ALIGN]);
        // Four threads: what would be the first one's now was the second one's before.
        assert_eq!(pack(&[i(0, 1, 8), i(2, 3, 8), i(2, 3, 4)], 4).0, [0, 0, 8 * ALIGN]);
        // Not for twice the memory.
        assert_eq!(pack(&[i(0, 1, 8), i(2, 3, 4), i(2, 3, 4)], 2).1, 8 * ALIGN);
    }

    proptest! {
        #[test]
        fn nothing_overlaps(
            raw in proptest::collection::vec((0usize..20, 0usize..6, 1usize..400), 0..40),
            threads in 1usize..5,
        ) {
            let all: Vec<Interval> = raw.iter().map(|&(first, d, len)| Interval { first, last: first + d, len }).collect();
            let (offsets, total) = pack(&all, threads);
            prop_assert!(total <= pack(&all, 1).1 * 9 / 8);
            for a in 0..all.len() {
                prop_assert!(offsets[a] + all[a].len <= total && offsets[a] % ALIGN == 0);
                for b in 0..a {
                    let together = all[a].first <= all[b].last && all[b].first <= all[a].last;
                    let apart = offsets[a] + all[a].len <= offsets[b] || offsets[b] + all[b].len <= offsets[a];
                    prop_assert!(!together || apart);
                }
            }
        }
    }
}
