//! Makes way for the application: readers pause while the server is busy or an operator says so, and keep to a bandwidth.
//!
//! A pause keeps the dump's moment. The readers take no rows, and the server waits with the next ones: it gives a session a day to
//! be rid of them (`net_write_timeout`), and every connection a longer one to stay silent. What holds locks is spoken up
//! for all the while ([`crate::source::mysql::hold`]).

mod pause;

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::event::Task as Progress;
use crate::human;
use crate::mysql::wire::Wire;
use crate::pace::Pace;
use crate::policy;
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::session::rows;
use crate::source::mysql::throttle::pause::{Change, Look, Pauses};

pub use pause::{Pause, Reason};

/// How often server and pause file are looked at.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// How often a waiting reader looks at the signal to stop.
const SLICE: Duration = Duration::from_millis(500);

/// What all readers of a dump pass on their way.
pub struct Throttle {
    plan: policy::Throttle,
    run: Run,
    /// One for each bandwidth of the plan.
    paces: Vec<(u64, Pace)>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    pauses: Pauses,
    /// Whether the pause file was there.
    is_told: bool,
    /// The bandwidth that was last told.
    bandwidth: Option<u64>,
}

impl Throttle {
    pub(crate) fn new(plan: &policy::Throttle, run: &Run) -> Self {
        let paces = plan.bandwidths().map(|bandwidth| (bandwidth, Pace::new(bandwidth))).collect();
        let state = State { pauses: Pauses::new(plan.pause_max), is_told: false, bandwidth: None };
        Self { plan: plan.clone(), run: run.clone(), paces, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Returns how long the dump has paused, by reason.
    #[must_use]
    pub fn pauses(&self) -> Vec<Pause> {
        self.lock().pauses.told()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the pace of this time of day.
    fn pace(&self) -> Option<&Pace> {
        if self.paces.is_empty() {
            return None;
        }
        let bandwidth = self.plan.limits_at(self.run.now()).bandwidth?;
        self.paces.iter().find(|(of, _)| *of == bandwidth).map(|(_, pace)| pace)
    }

    /// Waits until a dump may begin: nothing is locked yet, and no read view is open.
    pub(crate) fn wait_to_begin(&self, control: &mut Wire) -> Result<(), MysqlSourceError> {
        let own = [control.id()];
        while self.look(control, &own, None)? {
            sleep_until(Instant::now() + LOOK_EACH, &self.run.cancel)?;
        }
        Ok(())
    }

    /// Looks once, and tells what has changed. Returns whether the dump pauses.
    fn look(&self, control: &mut Wire, own: &[u32], progress: Option<&Progress>) -> Result<bool, MysqlSourceError> {
        let limits = self.plan.limits_at(self.run.now());
        // First, and without the server: one that is stuck answers late.
        let is_told = self.heed_operator();
        let threads_running = limits.threads_running_max.map(|_| threads_running(control, own)).transpose()?;
        let look = Look { is_told, threads_running };
        let mut state = self.lock();
        let reason = look.reason(limits.threads_running_max, state.pauses.reason());
        let change = state.pauses.note(reason, self.run.clock.instant());
        self.changed.notify_all();
        if std::mem::replace(&mut state.bandwidth, limits.bandwidth) != limits.bandwidth {
            self.run.events.note(told_bandwidth(limits.bandwidth));
        }
        drop(state);
        let why = reason.map(|reason| self.why(reason, look, limits));
        if let Some(progress) = progress {
            progress.pause(why.clone());
        }
        self.tell(change, why.unwrap_or_default())?;
        Ok(reason.is_some())
    }

    /// Tells whether the operator wants a pause, which begins at once. Where the file cannot be looked for, the last answer stands.
    fn heed_operator(&self) -> bool {
        let Some(file) = self.plan.pause_file.as_deref() else { return false };
        let mut state = self.lock();
        state.is_told = file.try_exists().unwrap_or(state.is_told);
        state.is_told
    }

    fn tell(&self, change: Change, why: String) -> Result<(), MysqlSourceError> {
        let events = &self.run.events;
        let max = human::duration(self.plan.pause_max);
        match change {
            Change::None => {}
            Change::Begun(_) => events.note(format!("paused: {why}")),
            Change::Over { lasted } => events.note(format!("going on after a pause of {}", human::duration(lasted))),
            Change::Long => events.warn(format!(
                "the dump has paused for more than ten minutes: {why}; after {max} it is given up. The server keeps old rows for its read views \
                 (the history list grows)"
            )),
            Change::TooLong(reason) => return Err(MysqlSourceError::PausedTooLong { max, reason, why }),
        }
        Ok(())
    }

    fn why(&self, reason: Reason, look: Look, limits: policy::Limits) -> String {
        match reason {
            Reason::Operator => {
                let file = self.plan.pause_file.as_deref().unwrap_or(Path::new("")).display();
                format!("`{file}` is there; `bkp resume` removes it")
            }
            Reason::ThreadsRunning => {
                let (running, max) = (look.threads_running.unwrap_or(0), limits.threads_running_max.unwrap_or(0));
                format!("{running} threads running on the server, {max} are allowed")
            }
        }
    }
}

/// The throttle of a dump that reads, and what stops it.
#[derive(Clone, Copy)]
pub(crate) struct Passage<'a> {
    pub(crate) throttle: &'a Throttle,
    pub(crate) cancel: &'a CancellationToken,
}

impl Passage<'_> {
    /// Lets a reader go on with so many bytes: waits while the dump pauses, then for the bytes' turn.
    pub(crate) fn pass(self, bytes: u64) -> Result<(), MysqlSourceError> {
        let mut state = self.throttle.lock();
        while state.is_told || state.pauses.reason().is_some() {
            heed(self.cancel)?;
            let waited = self.throttle.changed.wait_timeout(state, SLICE);
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        drop(state);
        match self.throttle.pace() {
            Some(pace) if bytes > 0 => sleep_until(pace.reserve(bytes, Instant::now()), self.cancel),
            _ => Ok(()),
        }
    }

    /// Looks at the server all the while that `read` runs. What keeps it from that stops the readers, and is the reason then.
    pub(crate) fn watching<T>(
        self,
        control: &mut Wire,
        own: &[u32],
        progress: &Progress,
        read: impl FnOnce() -> Result<T, MysqlSourceError>,
    ) -> Result<T, MysqlSourceError> {
        std::thread::scope(|scope| {
            let (is_over, over) = channel();
            let watch = scope.spawn(move || {
                let _ends_readers = EndsReaders(self.cancel);
                // What the server is asked for is not waited for once the readers have stopped.
                control.set_cancel(self.cancel.clone());
                let watched = self.watch(control, own, progress, &over);
                control.set_cancel(self.throttle.run.cancel.clone());
                watched
            });
            let done = read().inspect_err(|_| self.cancel.cancel());
            drop(is_over);
            let watched = watch.join().unwrap_or(Err(MysqlSourceError::BrokeOff));
            match done {
                Err(error) if error.is_stopped() => watched.and(Err(error)),
                done => done,
            }
        })
    }

    /// Looks at the server every second until told that all is read. Whatever keeps it from that stops the dump.
    fn watch(
        self,
        control: &mut Wire,
        own: &[u32],
        progress: &Progress,
        over: &Receiver<()>,
    ) -> Result<(), MysqlSourceError> {
        loop {
            self.throttle.look(control, own, Some(progress)).inspect_err(|_| self.cancel.cancel())?;
            if over.recv_timeout(LOOK_EACH) != Err(RecvTimeoutError::Timeout) {
                return Ok(());
            }
        }
    }
}

/// Stops readers that pause where the thread that would let them go on dies.
struct EndsReaders<'a>(&'a CancellationToken);

impl Drop for EndsReaders<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

fn told_bandwidth(bandwidth: Option<u64>) -> String {
    match bandwidth {
        Some(bandwidth) => format!("rows are read at {}/s at most", human::bytes(bandwidth)),
        None => "rows are read at any speed".to_owned(),
    }
}

/// Asks how many threads the server runs beside those of our own sessions, the asking one included.
fn threads_running(control: &mut Wire, own: &[u32]) -> Result<u32, MysqlSourceError> {
    let act = "ask how busy the server is";
    let all = rows(control, act, "SHOW GLOBAL STATUS LIKE 'Threads_running'")?;
    let all = all.first().and_then(|row| row.text(1).parse::<u64>().ok());
    // None would be no limit.
    let all = all.ok_or(MysqlSourceError::BusynessUntold)?;
    let ids = own.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let statement =
        format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID IN ({ids}) AND COMMAND <> 'Sleep'");
    let ours = rows(control, act, &statement)?.first().map_or(0, |row| row.number(0));
    Ok(u32::try_from(all.saturating_sub(ours)).unwrap_or(u32::MAX))
}

fn sleep_until(moment: Instant, cancel: &CancellationToken) -> Result<(), MysqlSourceError> {
    loop {
        heed(cancel)?;
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
    }
}

fn heed(cancel: &CancellationToken) -> Result<(), MysqlSourceError> {
    if cancel.is_cancelled() { Err(MysqlSourceError::Stopped) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn readers_stand_still_while_the_dump_pauses_and_hear_the_signal() {
        let throttle = Throttle::new(&policy::Throttle::default(), &Run::silent());
        let cancel = CancellationToken::new();
        let passage = Passage { throttle: &throttle, cancel: &cancel };
        let note = |reason| throttle.lock().pauses.note(reason, std::time::Instant::now());
        passage.pass(1 << 30).expect("nothing limits it");
        std::thread::scope(|scope| {
            note(Some(Reason::Operator));
            let reader = scope.spawn(|| passage.pass(1));
            assert!(!reader.is_finished());
            note(None);
            throttle.changed.notify_all();
            reader.join().expect("no panic").expect("it goes on");
        });
        note(Some(Reason::Operator));
        cancel.cancel();
        assert!(matches!(passage.pass(1), Err(MysqlSourceError::Stopped)));
    }

    #[test]
    fn readers_share_the_bandwidth_of_the_hour() {
        let plan = policy::Throttle {
            usual: policy::Limits { bandwidth: Some(1000), ..policy::Limits::default() },
            ..policy::Throttle::default()
        };
        let throttle = Throttle::new(&plan, &Run::silent());
        let pace = throttle.pace().expect("a pace");
        let now = Instant::now();
        assert_eq!([500, 500, 500].map(|bytes| (pace.reserve(bytes, now) - now).as_millis()), [0, 500, 1000]);
        let passage = Passage { throttle: &throttle, cancel: &CancellationToken::new() };
        passage.pass(0).expect("what takes no bytes waits for none");
    }
}
