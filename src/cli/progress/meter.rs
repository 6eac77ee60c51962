//! How fast a task goes and how long it will still take.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::event::{Task, Unit};
use crate::human;

/// A rate over this long follows changes and does not jump.
const WINDOW: Duration = Duration::from_secs(10);

/// Ten a second for the window.
const SAMPLES_MAX: usize = 100;

/// Watches one task.
pub(super) struct Meter {
    pub(super) task: Task,
    started: Instant,
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    pub(super) fn new(task: Task, now: Instant) -> Self {
        let samples = VecDeque::from([(now, task.done())]);
        Self { task, started: now, samples }
    }

    pub(super) fn sample(&mut self, now: Instant) {
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) > WINDOW;
        while self.samples.len() >= SAMPLES_MAX || self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, self.task.done()));
    }

    /// Writes the state: `2.1 GiB of 5.0 GiB (42 %), 11.9 MiB/s, 4 min 3 s left`.
    pub(super) fn state(&self) -> String {
        let (done, total) = (self.task.done(), self.task.total());
        let (count, span) = self.recent();
        let mut parts = vec![self.of_total(done, total)];
        if let Some(why) = self.paused() {
            parts.push(why);
            return parts.join(", ");
        }
        if count > 0 {
            parts.push(rate(self.task.unit(), count, span));
        }
        parts.extend(self.left());
        parts.join(", ")
    }

    /// Writes the state for a narrow place, what matters most first: `42 %, 4 min 3 s left, 11.9 MiB/s, 2.1 GiB of 5.0 GiB`.
    pub(super) fn short_state(&self) -> String {
        let (done, total) = (self.task.done(), self.task.total());
        let (count, span) = self.recent();
        let unit = self.task.unit();
        let percent = done.saturating_mul(100).checked_div(total);
        let rate = (count > 0).then(|| rate(unit, count, span));
        let amount = match total {
            0 => amount(unit, done),
            _ => format!("{} of {}", without_noun(unit, &amount(unit, done)), amount(unit, total)),
        };
        let percent = percent.map(|percent| format!("{:>3} %", percent.min(100)));
        let paused = self.paused();
        let left = self.left().filter(|_| paused.is_none());
        let parts = [percent, paused, left, rate, Some(amount)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn paused(&self) -> Option<String> {
        self.task.paused().map(|why| human::printable(&format!("paused: {why}")))
    }

    fn left(&self) -> Option<String> {
        let (count, span) = self.recent();
        let rest = self.task.total().saturating_sub(self.task.done());
        left(rest, count, span).map(|seconds| match seconds {
            0..60 => format!("{seconds} s left"),
            _ => format!("{} left", human::duration(Duration::from_secs(seconds))),
        })
    }

    fn of_total(&self, done: u64, total: u64) -> String {
        let unit = self.task.unit();
        match done.saturating_mul(100).checked_div(total) {
            None => amount(unit, done),
            Some(percent) => {
                let (done, total) = (amount(unit, done), amount(unit, total));
                format!("{} of {total} ({} %)", without_noun(unit, &done), percent.min(100))
            }
        }
    }

    /// Writes the end: `5.0 GiB in 7 min 11 s, 11.9 MiB/s`, or how far it came.
    pub(super) fn end(&self, now: Instant) -> String {
        let (done, total) = (self.task.done(), self.task.total());
        let span = now.duration_since(self.started);
        let took = human::duration(span);
        let unit = self.task.unit();
        if done < total {
            return format!("ended after {took} at {}", self.of_total(done, total));
        }
        format!("{} in {took}, {}", amount(unit, done), rate(unit, done, span))
    }

    /// Returns what was done within the window, and in how long. Counters may go back: work that must be done again.
    fn recent(&self) -> (u64, Duration) {
        match (self.samples.front(), self.samples.back()) {
            (Some((from, before)), Some((to, after))) => (after.saturating_sub(*before), to.duration_since(*from)),
            _ => (0, Duration::ZERO),
        }
    }
}

/// Returns how many seconds the rest takes at that pace; `None` where there is no rest or no pace.
fn left(rest: u64, count: u64, span: Duration) -> Option<u64> {
    if rest == 0 {
        return None;
    }
    let millis = (u128::from(rest) * span.as_millis()).checked_div(u128::from(count))?;
    u64::try_from(millis.div_ceil(1000)).ok()
}

pub(super) fn amount(unit: Unit, count: u64) -> String {
    match unit {
        Unit::Bytes => human::bytes(count),
        Unit::Rows => human::counted(count, "row", "rows"),
        Unit::Files => human::counted(count, "file", "files"),
        Unit::Objects => human::counted(count, "object", "objects"),
        Unit::Tables => human::counted(count, "table", "tables"),
    }
}

/// `120 of 60,000 files` reads better than `120 files of 60,000 files`.
fn without_noun(unit: Unit, amount: &str) -> &str {
    match unit {
        Unit::Bytes => amount,
        Unit::Rows | Unit::Files | Unit::Objects | Unit::Tables => amount.split(' ').next().unwrap_or(amount),
    }
}

fn rate(unit: Unit, count: u64, span: Duration) -> String {
    match unit {
        Unit::Bytes => human::rate(count, span),
        Unit::Rows | Unit::Files | Unit::Objects | Unit::Tables => human::count_rate(count, span),
    }
}
