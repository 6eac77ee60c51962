//! Sets of numbers as intervals.

/// A set of transaction numbers: sorted intervals that neither overlap nor touch, each from its first number up to, and without, its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    /// Returns the intervals, each from its first number up to, and without, its end.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many numbers are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.iter().fold(0, |sum, (start, end)| sum.saturating_add(end - start))
    }

    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= number);
        after > 0 && number < self.0[after - 1].1
    }

    /// Adds the numbers from `start` up to, and without, `end`.
    pub fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // What touches or overlaps the new interval becomes one with it.
        let first = self.0.partition_point(|(_, other_end)| *other_end < start);
        let last = self.0.partition_point(|(other_start, _)| *other_start <= end);
        let merged = self.0[first..last].iter().fold((start, end), |(low, high), (a, b)| (low.min(*a), high.max(*b)));
        self.0.splice(first..last, [merged]);
    }

    /// Takes out the numbers from `start` up to, and without, `end`.
    pub fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|(_, other_end)| *other_end <= start);
        let last = self.0.partition_point(|(other_start, _)| *other_start < end);
        let overlapped = &self.0[first..last];
        let before = overlapped.first().filter(|(low, _)| *low < start).map(|(low, _)| (*low, start));
        let after = overlapped.last().filter(|(_, high)| *high > end).map(|(_, high)| (end, *high));
        let kept: Vec<_> = before.into_iter().chain(after).collect();
        self.0.splice(first..last, kept);
    }

    /// Tells whether every number of this is in the other, too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        // The other's intervals do not touch, so each of ours must lie within one of them.
        self.iter().all(|(start, end)| {
            let after = other.0.partition_point(|(other_start, _)| *other_start <= start);
            after > 0 && end <= other.0[after - 1].1
        })
    }
}
