//! What `bkp run` does for one policy: find out what is due, then back up, copy, forget, verify and drill.
//!
//! Each step is recorded in the catalog, begin and end; a stamp is set only after success. While nothing is due, nothing is
//! opened: no connection, no repository, no catalog.

pub mod journal;
pub mod steps;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::cycle::journal::Verb;
use crate::exit::{Exit, Failure};
use crate::policy::{CatchUp, CronText, Policy};
use crate::run::Run;
use crate::schedule::{Cron, Due, RunLock, Stamps, due};

/// How long a failed copy is left alone before the next run tries again: long enough to spare a store that is down, short
/// enough that the copy is behind by minutes, not by a night.
const COPY_AGAIN: TimeDelta = TimeDelta::minutes(15);

/// What is to be done for a policy now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agenda {
    pub verbs: Vec<Verb>,
    /// The next moment at which anything is due.
    pub next: Option<DateTime<Utc>>,
}

/// One step of a policy's run.
#[derive(Debug)]
pub struct Step {
    pub verb: Verb,
    pub result: Result<steps::Done, Failure>,
}

impl Step {
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.result {
            Ok(done) => done.exit(),
            Err(failure) => failure.exit,
        }
    }
}

/// Finds out what is due, from the schedule and the stamps alone.
///
/// # Errors
/// [`Failure`] where the stamps cannot be read.
pub fn agenda(policy: &Policy, now: DateTime<Utc>) -> Result<Agenda, Failure> {
    let stamps = Stamps::load(&policy.state_dir)?;
    let mut agenda = Agenda { verbs: Vec::new(), next: None };
    for (verb, text) in scheduled(policy) {
        let cron = parse(text)?;
        let last = stamps.last_success(verb.name());
        match due(&cron, policy.timezone, last, stamps.first_seen(verb.name()), now, policy.schedule.catch_up) {
            Due::Now { .. } => agenda.verbs.push(verb),
            Due::Later { next } => agenda.next = [agenda.next, next].into_iter().flatten().min(),
        }
    }
    let is_owed = stamps.last_failure(Verb::Copy.name()).is_some_and(|failed| now - failed >= COPY_AGAIN);
    if is_owed && !agenda.verbs.contains(&Verb::Backup) {
        agenda.verbs.push(Verb::Copy);
    }
    agenda.verbs.sort();
    Ok(agenda)
}

/// Returns all that a policy schedules: for `bkp run --now`.
#[must_use]
pub fn everything(policy: &Policy) -> Agenda {
    Agenda { verbs: scheduled(policy).map(|(verb, _)| verb).collect(), next: None }
}

fn scheduled(policy: &Policy) -> impl Iterator<Item = (Verb, &CronText)> {
    let schedule = &policy.schedule;
    let all = [(Verb::Backup, &schedule.backup), (Verb::Verify, &schedule.verify), (Verb::Drill, &schedule.drill)];
    all.into_iter().filter_map(|(verb, text)| Some((verb, text.as_ref()?)))
}

fn parse(text: &CronText) -> Result<Cron, Failure> {
    Ok(Cron::parse(&text.0)?)
}

/// Does what is on the agenda of one policy, step by step; a step that fails does not keep the next from being tried.
///
/// # Errors
/// [`Failure`] with [`Exit::Locked`] where another run of the policy goes on.
pub async fn run(policy: &Policy, agenda: &Agenda, lock_wait: Duration, run: &Run) -> Result<Vec<Step>, Failure> {
    let lock = RunLock::take(&policy.state_dir, lock_wait, &run.cancel)?;
    let mut steps = Vec::new();
    for verb in &agenda.verbs {
        if run.cancel.is_cancelled() {
            break;
        }
        // Each step is a run of its own in the catalog and in the snapshots' tags.
        let run = run.renewed();
        steps.push(Step { verb: *verb, result: steps::take(*verb, policy, &run).await });
    }
    drop(lock);
    run.check()?;
    Ok(steps)
}

/// Returns the exit code of several steps: the gravest.
#[must_use]
pub fn exit_of(steps: &[Step]) -> Exit {
    steps.iter().map(Step::exit).max().unwrap_or(Exit::Ok)
}

/// Returns when each verb of a policy runs next.
#[must_use]
pub fn next_runs(policy: &Policy, now: DateTime<Utc>) -> Vec<(Verb, DateTime<Utc>)> {
    let next = |(verb, text): (Verb, &CronText)| Some((verb, Cron::parse(&text.0).ok()?.next_after(now, policy.timezone)?));
    scheduled(policy).filter_map(next).collect()
}

/// Tells whether a policy makes up for missed runs.
#[must_use]
pub fn catches_up(policy: &Policy) -> bool {
    policy.schedule.catch_up == CatchUp::One
}
