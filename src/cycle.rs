//! What `bkp run` does for one policy: find out what is due, then back up, capture, copy, forget, verify, prune and drill.
//!
//! Each step is recorded in the catalog, begin and end, and stamped once it has ended: with a success, or with a failure after
//! which it rests for a while. While nothing is due, nothing is opened: no connection, no repository, no catalog.

pub(crate) mod capture;
pub mod done;
pub mod freeze;
pub mod journal;
pub mod steps;
pub mod task;
#[cfg(test)]
mod tests;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::backup;
use crate::cycle::done::{Done, exit_of_copies};
use crate::cycle::journal::{Journal, Verb};
use crate::cycle::task::Task;
use crate::drill::outcome::Scenario;
use crate::exit::{Exit, Failure};
use crate::policy::{Policy, VERIFY_SHARES};
use crate::prune::plan::Limits;
use crate::run::Run;
use crate::schedule::{CatchUp, Cron, Due, RunLock, Stamps, due};
use crate::verify;

/// A run this late was missed: cron starts within the minute, and a busy machine in the next.
pub const LATE: TimeDelta = TimeDelta::minutes(5);

/// A capture that failed is tried again no later than this.
const CAPTURE_REST_MAX: TimeDelta = TimeDelta::minutes(5);

/// What is to be done for a policy now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agenda {
    pub verbs: Vec<Verb>,
    /// The next moment at which anything is due.
    pub next: Option<DateTime<Utc>>,
}

/// Which verbs a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those that are due.
    Due,
    /// All that the policy can do, whatever the time.
    Everything,
}

/// One step of a policy's run.
#[derive(Debug)]
pub struct Step {
    pub verb: Verb,
    pub result: Result<Done, Failure>,
    /// Why the catalog or the stamps do not know of it.
    pub unrecorded: Option<Failure>,
}

impl Step {
    #[must_use]
    pub fn exit(&self) -> Exit {
        let exit = match &self.result {
            Ok(done) => done.exit(),
            Err(failure) => failure.exit,
        };
        self.unrecorded.as_ref().map_or(exit, |failure| exit.max(failure.exit))
    }
}

/// Finds out what is due, from the schedule and the stamps alone.
///
/// # Errors
/// [`Failure`] where the stamps cannot be read.
pub fn agenda(policy: &Policy, now: DateTime<Utc>) -> Result<Agenda, Failure> {
    let stamps = Stamps::load(&policy.state_dir)?;
    if stamps.first_seen.is_none() {
        make_state_dir(policy)?;
        Stamps::update(&policy.state_dir, |stamps| {
            stamps.first_seen.get_or_insert(now);
        })?;
    }
    Ok(agenda_of(policy, &stamps, now))
}

fn agenda_of(policy: &Policy, stamps: &Stamps, now: DateTime<Utc>) -> Agenda {
    let mut agenda = Agenda { verbs: Vec::new(), next: None };
    let rests_until = |verb: Verb| stamps.of(verb.name()).failure.and_then(|failure| failure.rests_until(now));
    for (verb, cron) in scheduled(policy) {
        let stamp = stamps.of(verb.name());
        let first_seen = stamps.first_seen.unwrap_or(now);
        match due(cron, policy.timezone, stamp.success, first_seen, now, policy.schedule.catch_up) {
            // A verb that failed is tried again after a while that grows, not each minute.
            Due::Due { .. } => match rests_until(verb) {
                Some(until) => agenda.wait_for(Some(until)),
                None => agenda.verbs.push(verb),
            },
            Due::NotDue { next } => agenda.wait_for(next),
        }
    }
    let owes_copies = stamps.of(Verb::Copy.name()).failure.is_some();
    if owes_copies && !agenda.verbs.contains(&Verb::Backup) {
        match rests_until(Verb::Copy) {
            Some(until) => agenda.wait_for(Some(until)),
            None => agenda.verbs.push(Verb::Copy),
        }
    }
    match capture_due(policy, stamps) {
        // One sick source must not keep the others' binlogs waiting: a server forgets what is not captured.
        Some(at) if at <= now => match capture_rests_until(stamps, now) {
            Some(until) => agenda.wait_for(Some(until)),
            None => agenda.verbs.push(Verb::Capture),
        },
        at => agenda.wait_for(at),
    }
    agenda.verbs.sort();
    agenda
}

fn capture_rests_until(stamps: &Stamps, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    stamps.of(Verb::Capture.name()).failure?.rests_until_within(CAPTURE_REST_MAX, now)
}

/// Returns when the binlogs that a policy captures are to be looked at again.
fn capture_due(policy: &Policy, stamps: &Stamps) -> Option<DateTime<Utc>> {
    let interval = policy.mysql.values().filter_map(|source| source.binlog.as_ref()).map(|plan| plan.interval).min()?;
    // Cron looks each minute, but not to the second: an interval of a minute must not become one of two.
    let interval = interval.saturating_sub(interval / 10);
    let success = stamps.of(Verb::Capture.name()).success;
    Some(success.map_or(DateTime::UNIX_EPOCH, |success| success + interval))
}

impl Agenda {
    fn wait_for(&mut self, moment: Option<DateTime<Utc>>) {
        self.next = [self.next, moment].into_iter().flatten().min();
    }
}

/// Returns all that a policy can do: for `bkp run --now`.
#[must_use]
pub fn everything(policy: &Policy) -> Vec<Verb> {
    let mut verbs = vec![Verb::Backup, Verb::Verify];
    if policy.mysql.values().any(|source| source.binlog.is_some()) {
        verbs.insert(1, Verb::Capture);
    }
    if policy.schedule.prune.is_some() {
        verbs.push(Verb::Prune);
    }
    if policy.schedule.drill.is_some() || !policy.drill.checks.is_empty() {
        verbs.push(Verb::Drill);
    }
    verbs
}

fn scheduled(policy: &Policy) -> impl Iterator<Item = (Verb, &Cron)> {
    let schedule = &policy.schedule;
    let all = [
        (Verb::Backup, &schedule.backup),
        (Verb::Verify, &schedule.verify),
        (Verb::Prune, &schedule.prune),
        (Verb::Drill, &schedule.drill),
    ];
    all.into_iter().filter_map(|(verb, cron)| Some((verb, cron.as_ref()?)))
}

/// Does what is wanted of one policy, step by step; a step that fails does not keep the next from being tried.
///
/// # Errors
/// [`Failure`] with [`Exit::Locked`] where another run of the policy goes on.
pub async fn run(
    policy: &Policy,
    wanted: Wanted,
    options: &backup::Options,
    lock_wait: Duration,
    run: &Run,
) -> Result<Vec<Step>, Failure> {
    let lock = lock(policy, lock_wait, run).await?;
    let verbs = match wanted {
        // Judged under the lock: whoever held it may have done what was due.
        Wanted::Due => agenda(policy, run.now())?.verbs,
        Wanted::Everything => everything(policy),
    };
    let (stamps, mut steps) = (Stamps::load(&policy.state_dir)?, Vec::new());
    for verb in verbs {
        if run.cancel.is_cancelled() {
            break;
        }
        // Each step is a run of its own in the catalog and in the snapshots' tags.
        let run = run.renewed();
        steps.push(stamped(policy, &task_of(policy, verb, options, &stamps), &run).await);
    }
    drop(lock);
    run.check()?;
    Ok(steps)
}

/// Does one step by hand. A backup, a copy or a prune of the repository is what the schedule would have done, so it waits for the
/// lock and is stamped; a verify or a drill by hand takes nothing off the schedule.
///
/// # Errors
/// [`Failure`] with [`Exit::Locked`] where another run of the policy goes on.
pub async fn by_hand(policy: &Policy, task: &Task, lock_wait: Duration, run: &Run) -> Result<Step, Failure> {
    let step = match task {
        Task::Backup { .. } | Task::Capture { .. } | Task::Copy { .. } | Task::Prune { .. } => {
            let _lock = lock(policy, lock_wait, run).await?;
            stamped(policy, task, run).await
        }
        Task::Verify { .. } | Task::Drill { .. } => recorded(policy, task, run).await,
    };
    run.check()?;
    Ok(step)
}

/// Returns what the schedule asks of a verb.
fn task_of(policy: &Policy, verb: Verb, options: &backup::Options, stamps: &Stamps) -> Task {
    match verb {
        Verb::Backup => Task::Backup { options: options.clone(), with_copies: true },
        Verb::Capture => Task::Capture { sources: Vec::new() },
        Verb::Copy => Task::Copy { copies: Vec::new() },
        Verb::Verify => {
            let subset = verify::Subset::of_turn(stamps.of(verb.name()).done, VERIFY_SHARES);
            let options = verify::Options { level: verify::Level::Data, subset: Some(subset) };
            Task::Verify { copy: None, options, heals: policy.verify.heal, salvages: false }
        }
        Verb::Prune => Task::Prune { copy: None, unused_percent_max: Limits::default().unused_percent_max },
        Verb::Drill => Task::Drill { from: None, scenario: Scenario::Lost, keep: false },
    }
}

/// Does a step, records it and stamps it, whatever became of it. The caller holds the policy's lock.
async fn stamped(policy: &Policy, task: &Task, run: &Run) -> Step {
    let started = run.now();
    let mut step = recorded(policy, task, run).await;
    let stamps = stamps_of(task, &step.result);
    let written = Stamps::update(&policy.state_dir, |all| {
        for (verb, is_success) in stamps {
            // The start, so that what came due meanwhile is still due.
            if is_success { all.succeed(verb.name(), started) } else { all.fail(verb.name(), run.now()) }
        }
    });
    step.unrecorded = step.unrecorded.or(written.err().map(Failure::from));
    step
}

/// Does a step and records it.
async fn recorded(policy: &Policy, task: &Task, run: &Run) -> Step {
    let verb = task.verb();
    let journal = match Journal::begin(policy, verb.name(), task.sources(policy), run) {
        Ok(journal) => journal,
        Err(failure) => return Step { verb, result: Err(failure), unrecorded: None },
    };
    let result = steps::work(task, policy, &journal, run).await;
    let unrecorded = journal.close(task, &result).err();
    Step { verb, result, unrecorded }
}

/// Returns the verbs that a step says something of, and whether they are done.
fn stamps_of(task: &Task, result: &Result<Done, Failure>) -> Vec<(Verb, bool)> {
    match (task, result) {
        (Task::Backup { options, .. }, Ok(Done::Backup(done))) => {
            // Incomplete sources made their snapshots: another run would say the same again. One that failed did not.
            let is_whole = options.sources.is_empty();
            let backup = is_whole.then_some((Verb::Backup, done.outcome.failed.is_empty()));
            let has_copies = !done.copies.is_empty();
            let copy = has_copies.then(|| (Verb::Copy, exit_of_copies(&done.copies) == Exit::Ok));
            backup.into_iter().chain(copy).collect()
        }
        (Task::Backup { options, .. }, _) if !options.sources.is_empty() => Vec::new(),
        (Task::Capture { sources }, _) if !sources.is_empty() => Vec::new(),
        (Task::Capture { .. }, Ok(Done::Capture(done))) => {
            let copy = (!done.copies.is_empty()).then(|| (Verb::Copy, exit_of_copies(&done.copies) == Exit::Ok));
            std::iter::once((Verb::Capture, done.is_whole())).chain(copy).collect()
        }
        (Task::Copy { copies }, _) if !copies.is_empty() => Vec::new(),
        (Task::Copy { .. }, Ok(Done::Copy(copies))) => vec![(Verb::Copy, exit_of_copies(copies) == Exit::Ok)],
        (Task::Prune { copy: Some(_), .. }, _) => Vec::new(),
        // A drill that measured a breach has done its work; one that broke has not.
        (_, Ok(Done::Drill(done))) => vec![(Verb::Drill, done.failure.is_none())],
        // So has a verify that found damage; it is the report that is bad.
        (_, result) => vec![(task.verb(), result.is_ok())],
    }
}

/// Takes the lock that keeps two runs of one policy apart.
///
/// # Errors
/// [`Failure`] with [`Exit::Locked`] where another run goes on for longer than `wait`.
pub async fn lock(policy: &Policy, wait: Duration, run: &Run) -> Result<RunLock, Failure> {
    make_state_dir(policy)?;
    Ok(RunLock::take(&policy.state_dir.join("run.lock"), wait, run).await?)
}

/// Makes the directory in which a policy keeps its state.
///
/// # Errors
/// [`Failure`] where that is not allowed.
pub fn make_state_dir(policy: &Policy) -> Result<(), Failure> {
    let dir = &policy.state_dir;
    let refusal = |error: std::io::Error| {
        let failure = Failure::new(Exit::Failed, format!("make the state directory `{}`: {error}", dir.display()));
        failure.hinting("check the rights above it, or set `state_dir` in the policy")
    };
    std::fs::create_dir_all(dir).map_err(refusal)
}

/// Makes the policy's dumps pause, the running one included.
///
/// # Errors
/// [`Failure`] where the pause file cannot be made.
pub fn pause(policy: &Policy) -> Result<(), Failure> {
    make_state_dir(policy)?;
    let file = policy.pause_file();
    let made = std::fs::OpenOptions::new().create(true).append(true).open(&file);
    made.map(drop).map_err(|error| Failure::new(Exit::Failed, format!("make `{}`: {error}", file.display())))
}

/// Lets the policy's dumps go on. Returns whether anything kept them.
///
/// # Errors
/// [`Failure`] where the pause file cannot be removed.
pub fn resume(policy: &Policy) -> Result<bool, Failure> {
    let file = policy.pause_file();
    match std::fs::remove_file(&file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::new(Exit::Failed, format!("remove `{}`: {error}", file.display()))),
    }
}

/// Returns the exit code of several steps: the gravest.
#[must_use]
pub fn exit_of(steps: &[Step]) -> Exit {
    steps.iter().map(Step::exit).max().unwrap_or(Exit::Ok)
}

/// Returns when each verb of a policy runs next.
#[must_use]
pub fn next_runs(policy: &Policy, now: DateTime<Utc>) -> Vec<(Verb, DateTime<Utc>)> {
    let next = |(verb, cron): (Verb, &Cron)| Some((verb, cron.next_after(now, policy.timezone)?));
    scheduled(policy).filter_map(next).collect()
}

/// Returns the verbs that should have been done by now and have not been, and since when; whatever `catch_up` makes of it.
///
/// # Errors
/// [`Failure`] where the stamps cannot be read.
pub fn missed(policy: &Policy, now: DateTime<Utc>) -> Result<Vec<(Verb, DateTime<Utc>)>, Failure> {
    let stamps = Stamps::load(&policy.state_dir)?;
    Ok(missed_of(policy, &stamps, now))
}

fn missed_of(policy: &Policy, stamps: &Stamps, now: DateTime<Utc>) -> Vec<(Verb, DateTime<Utc>)> {
    let first_seen = stamps.first_seen.unwrap_or(now);
    let missed = |(verb, cron): (Verb, &Cron)| {
        let success = stamps.of(verb.name()).success;
        let is_due = due(cron, policy.timezone, success, first_seen, now, CatchUp::One);
        let Due::Due { scheduled_at, .. } = is_due else { return None };
        let first = cron.next_after(success.unwrap_or(first_seen), policy.timezone);
        let since = first.filter(|first| *first <= scheduled_at).unwrap_or(scheduled_at);
        (now - since > LATE).then_some((verb, since))
    };
    scheduled(policy).filter_map(missed).collect()
}
