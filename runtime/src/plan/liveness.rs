//! Where temporaries lie: those whose lives do not overlap may share memory.

use super::memory::ALIGN;

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

/// An offset for each interval, such that two that live at the same time do not overlap, and the elements needed in all.
///
/// Greedy by size: the largest first, each at the lowest offset where it fits (Pisarchyk and Lee, "Efficient Memory Management for Deep
/// Neural Net Inference", 2020). Offsets are multiples of [`ALIGN`].
pub fn pack(intervals: &[Interval]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&n| (std::cmp::Reverse(intervals[n].len), intervals[n].first, n));
    let mut offsets = vec![0; intervals.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    let mut total = 0;
    for n in order {
        let this = intervals[n];
        let size = this.len.next_multiple_of(ALIGN);
        let mut at = 0;
        for &other in &placed {
            let o = intervals[other];
            if o.last < this.first || this.last < o.first {
                continue;
            }
            if at + size <= offsets[other] {
                break;
            }
            at = at.max(offsets[other] + o.len.next_multiple_of(ALIGN));
        }
        offsets[n] = at;
        total = total.max(at + size);
        let position = placed.partition_point(|&p| offsets[p] <= at);
        placed.insert(position, n);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lives_apart_share() {
        let i = |first, last, len| Interval { first, last, len };
        let (offsets, total) = pack(&[i(0, 1, ALIGN), i(2, 3, ALIGN), i(1, 2, ALIGN)]);
        assert_eq!((offsets[0], offsets[1], total), (0, 0, 2 * ALIGN));
        assert_eq!(pack(&[]), (vec![], 0));
    }

    proptest! {
        #[test]
        fn nothing_overlaps(raw in proptest::collection::vec((0usize..20, 0usize..6, 1usize..400), 0..40)) {
            let all: Vec<Interval> = raw.iter().map(|&(first, d, len)| Interval { first, last: first + d, len }).collect();
            let (offsets, total) = pack(&all);
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
