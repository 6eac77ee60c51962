//! When a dump pauses, why, and for how long. Nothing here looks at a clock or at a server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After so long, somebody should look at the server: it has kept old rows for the dump all the while.
const LONG: Duration = Duration::from_mins(10);

/// Why the readers pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The pause file is there.
    Operator,
    /// The server runs more threads than the policy allows.
    ThreadsRunning,
}

impl Reason {
    /// Names the reason for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "as told",
            Self::ThreadsRunning => "for running threads",
        }
    }
}

/// How long a dump paused for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Pause {
    pub reason: Reason,
    pub millis: u64,
}

/// What a look at server and pause file shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    pub(crate) is_told: bool,
    /// Without our own; `None` where nobody asked.
    pub(crate) threads_running: Option<u32>,
}

impl Look {
    /// Decides whether to pause. Whoever pauses for a busy server goes on only well below the limit: at the limit itself, the
    /// readers would stop and go every second.
    pub(crate) fn reason(self, threads_running_max: Option<u32>, before: Option<Reason>) -> Option<Reason> {
        if self.is_told {
            return Some(Reason::Operator);
        }
        let (running, max) = self.threads_running.zip(threads_running_max)?;
        let limit = if before == Some(Reason::ThreadsRunning) { max - max.div_ceil(4) } else { max };
        (running > limit).then_some(Reason::ThreadsRunning)
    }
}

/// What a look has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Begun(Reason),
    Over {
        lasted: Duration,
    },
    /// All pauses together have become long; said once.
    Long,
    /// They have reached their limit.
    TooLong(Reason),
}

/// The pauses of one dump.
#[derive(Debug)]
pub(crate) struct Pauses {
    max: Duration,
    open: Option<Open>,
    done: BTreeMap<Reason, Duration>,
    is_long: bool,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    reason: Reason,
    begun: Instant,
    /// Up to here it has been counted.
    counted: Instant,
}

impl Pauses {
    pub(crate) fn new(max: Duration) -> Self {
        Self { max, open: None, done: BTreeMap::new(), is_long: false }
    }

    /// Returns why the dump pauses; `None` while it goes on.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.open.map(|open| open.reason)
    }

    /// Takes in that from now on the dump pauses for this reason, or for none.
    pub(crate) fn note(&mut self, reason: Option<Reason>, now: Instant) -> Change {
        if let Some(open) = &self.open {
            *self.done.entry(open.reason).or_default() += now.duration_since(open.counted);
        }
        let before = self.open;
        let begun = before.map_or(now, |open| open.begun);
        self.open = reason.map(|reason| Open { reason, begun, counted: now });
        match (before, reason) {
            (None, None) => Change::None,
            // Pauses of one look each count, too.
            (None, Some(reason)) => self.judge(reason).unwrap_or(Change::Begun(reason)),
            (Some(_), None) => Change::Over { lasted: now.duration_since(begun) },
            (Some(_), Some(reason)) => self.judge(reason).unwrap_or(Change::None),
        }
    }

    fn judge(&mut self, reason: Reason) -> Option<Change> {
        let all: Duration = self.done.values().sum();
        if all >= self.max {
            return Some(Change::TooLong(reason));
        }
        let is_news = all >= LONG && !self.is_long;
        self.is_long |= is_news;
        is_news.then_some(Change::Long)
    }

    /// Returns how long the dump paused, by reason.
    pub(crate) fn told(&self) -> Vec<Pause> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.done.iter().map(|(reason, span)| Pause { reason: *reason, millis: millis(*span) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Option<Reason> = Some(Reason::ThreadsRunning);

    fn judged(running: u32, max: u32, before: Option<Reason>) -> Option<Reason> {
        Look { is_told: false, threads_running: Some(running) }.reason(Some(max), before)
    }

    #[test]
    fn a_busy_server_is_left_alone_until_it_is_well_below_the_limit() {
        assert_eq!([29, 30, 31].map(|running| judged(running, 30, None)), [None, None, BUSY]);
        assert_eq!([31, 23, 22, 0].map(|running| judged(running, 30, BUSY)), [BUSY, BUSY, None, None]);
        // The lowest limit can be come below, too.
        assert_eq!([2, 1].map(|running| judged(running, 1, None)), [BUSY, None]);
        assert_eq!([1, 0].map(|running| judged(running, 1, BUSY)), [BUSY, None]);
    }

    #[test]
    fn an_operators_word_comes_first_and_no_limit_is_never_passed() {
        let told = Look { is_told: true, threads_running: Some(99) };
        assert_eq!(told.reason(Some(30), BUSY), Some(Reason::Operator));
        assert_eq!(told.reason(None, None), Some(Reason::Operator));
        assert_eq!(Look { threads_running: Some(99), ..Look::default() }.reason(None, None), None);
        assert_eq!(Look::default().reason(Some(30), BUSY), None);
    }

    #[test]
    fn pauses_are_counted_by_reason_and_end_the_dump_together() {
        let start = Instant::now();
        let at = |minutes| start + Duration::from_mins(minutes);
        let mut pauses = Pauses::new(Duration::from_mins(30));
        assert_eq!(pauses.note(None, at(0)), Change::None);
        assert_eq!(pauses.note(BUSY, at(1)), Change::Begun(Reason::ThreadsRunning));
        assert_eq!(pauses.note(BUSY, at(5)), Change::None);
        assert_eq!(pauses.note(Some(Reason::Operator), at(9)), Change::None, "one pause, another reason");
        assert_eq!(pauses.note(None, at(10)), Change::Over { lasted: Duration::from_mins(9) });
        assert_eq!(pauses.note(BUSY, at(50)), Change::Begun(Reason::ThreadsRunning));
        assert_eq!(pauses.note(BUSY, at(52)), Change::Long, "ten minutes, together with the first");
        assert_eq!(pauses.note(BUSY, at(70)), Change::None, "that is said once");
        assert_eq!(pauses.note(BUSY, at(71)), Change::TooLong(Reason::ThreadsRunning));
        let told = pauses.told().into_iter().map(|pause| (pause.reason, pause.millis / 60_000));
        assert_eq!(told.collect::<Vec<_>>(), [(Reason::Operator, 1), (Reason::ThreadsRunning, 29)]);
    }
}
