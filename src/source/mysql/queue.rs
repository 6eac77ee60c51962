//! The ranges still to be read, shared by the readers.
//!
//! Tables that are locked come first, so that their writers wait least; then the ranges of large tables, as they are found, a
//! few ahead of the readers (their pages are still warm); then all other tables, largest first.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::source::mysql::range::Range;

/// How often a waiting thread looks at the signal to stop.
const SLICE: Duration = Duration::from_millis(500);

/// One range to read.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// The table's place in the inventory.
    pub(crate) table: usize,
    pub(crate) range: Range,
    /// The range's place in the table.
    pub(crate) number: usize,
    pub(crate) is_locked: bool,
}

#[derive(Debug, Default)]
struct State {
    locked: VecDeque<Task>,
    locked_left: usize,
    large: VecDeque<Task>,
    others: VecDeque<Task>,
    is_filling: bool,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    ahead_max: usize,
    cancel: CancellationToken,
}

impl Queue {
    /// Makes a queue that is being filled until [`Queue::close`].
    pub(crate) fn new(ahead_max: usize, cancel: CancellationToken) -> Self {
        let state = State { is_filling: true, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new(), ahead_max, cancel }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, SLICE);
        waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }

    /// Adds all ranges of locked tables at once: their number tells when the last of them has been read.
    pub(crate) fn push_locked(&self, tasks: Vec<Task>) {
        let mut state = self.lock();
        state.locked_left = tasks.len();
        state.locked.extend(tasks);
        self.changed.notify_all();
    }

    pub(crate) fn push(&self, task: Task) {
        self.lock().others.push_back(task);
        self.changed.notify_one();
    }

    /// Adds a range of a large table once the readers have caught up. Returns false when the dump has been stopped.
    pub(crate) fn push_ahead(&self, task: Task) -> bool {
        let mut state = self.lock();
        while state.large.len() >= self.ahead_max && !self.cancel.is_cancelled() {
            state = self.wait(state);
        }
        state.large.push_back(task);
        self.changed.notify_one();
        !self.cancel.is_cancelled()
    }

    /// Says that nothing more comes.
    pub(crate) fn close(&self) {
        self.lock().is_filling = false;
        self.changed.notify_all();
    }

    /// Returns the next range, or `None` when all are taken or the dump has been stopped.
    pub(crate) fn pop(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if self.cancel.is_cancelled() {
                return None;
            }
            let task = state.locked.pop_front().or_else(|| state.large.pop_front());
            if let Some(task) = task.or_else(|| state.others.pop_front()) {
                self.changed.notify_all();
                return Some(task);
            }
            if !state.is_filling {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Notes that a range has been read. Returns true once, after the last range of a locked table.
    pub(crate) fn done(&self, task: &Task) -> bool {
        if !task.is_locked {
            return false;
        }
        let mut state = self.lock();
        state.locked_left -= 1;
        state.locked_left == 0
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn task(number: usize, is_locked: bool) -> Task {
        Task { table: 0, range: Range::default(), number, is_locked }
    }

    #[test]
    fn locked_tables_come_first_and_their_end_is_told_once() {
        let queue = Queue::new(1, CancellationToken::new());
        queue.push(task(1, false));
        queue.push_locked(vec![task(2, true), task(3, true)]);
        assert!(queue.push_ahead(task(4, false)));
        queue.close();
        let taken: Vec<Task> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(taken.iter().map(|task| task.number).collect::<Vec<_>>(), [2, 3, 4, 1]);
        assert_eq!(taken.iter().map(|task| queue.done(task)).collect::<Vec<_>>(), [false, true, false, false]);
    }

    #[test]
    fn the_scout_does_not_run_away_and_everybody_hears_the_signal() {
        let cancel = CancellationToken::new();
        let queue = Queue::new(1, cancel.clone());
        assert!(queue.push_ahead(task(1, false)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.push_ahead(task(2, false)));
            cancel.cancel();
            assert!(!waiting.join().expect("ends"));
        });
        assert!(queue.pop().is_none());
    }
}
