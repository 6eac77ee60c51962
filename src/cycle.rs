//! What `bkp run` does for one policy: find out what is due, then back up, copy, forget, verify and drill.
//!
//! Each step is recorded in the catalog, begin and end; a stamp is set only after success. While nothing is due, nothing is
//! opened: no connection, no repository, no catalog.

pub mod journal;
pub mod steps;

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::backup;
use crate::cycle::journal::Verb;
use crate::exit::{Exit, Failure};
use crate::policy::Policy;
use crate::run::Run;
use crate::schedule::{Cron, Due, RunLock, Stamps, due};

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
    for (verb, cron) in scheduled(policy) {
        let stamp = stamps.of(verb.name());
        let first_seen = stamps.first_seen.unwrap_or(now);
        match due(cron, policy.timezone, stamp.success, first_seen, now, policy.schedule.catch_up) {
            // A verb that failed is tried again after a while that grows, not each minute.
            Due::Due { .. } => match stamp.failure.map(|failure| failure.retry_at()) {
                Some(retry_at) if retry_at > now => {
                    agenda.next = [agenda.next, Some(retry_at)].into_iter().flatten().min();
                }
                _ => agenda.verbs.push(verb),
            },
            Due::NotDue { next } => agenda.next = [agenda.next, next].into_iter().flatten().min(),
        }
    }
    let owed = stamps.of(Verb::Copy.name()).failure;
    if owed.is_some_and(|failure| failure.retry_at() <= now) && !agenda.verbs.contains(&Verb::Backup) {
        agenda.verbs.push(Verb::Copy);
    }
    if stamps.first_seen.is_none() {
        make_state_dir(policy)?;
        Stamps { first_seen: Some(now), ..stamps }.save(&policy.state_dir)?;
    }
    agenda.verbs.sort();
    Ok(agenda)
}

/// Returns all that a policy schedules: for `bkp run --now`.
#[must_use]
pub fn everything(policy: &Policy) -> Agenda {
    Agenda { verbs: scheduled(policy).map(|(verb, _)| verb).collect(), next: None }
}

fn scheduled(policy: &Policy) -> impl Iterator<Item = (Verb, &Cron)> {
    let schedule = &policy.schedule;
    let all = [(Verb::Backup, &schedule.backup), (Verb::Verify, &schedule.verify), (Verb::Drill, &schedule.drill)];
    all.into_iter().filter_map(|(verb, cron)| Some((verb, cron.as_ref()?)))
}

/// Does what is on the agenda of one policy, step by step; a step that fails does not keep the next from being tried.
///
/// # Errors
/// [`Failure`] with [`Exit::Locked`] where another run of the policy goes on.
pub async fn run(
    policy: &Policy,
    agenda: &Agenda,
    lock_wait: Duration,
    options: &backup::Options,
    run: &Run,
) -> Result<Vec<Step>, Failure> {
    let lock = lock(policy, lock_wait, run).await?;
    let mut steps = Vec::new();
    for verb in &agenda.verbs {
        if run.cancel.is_cancelled() {
            break;
        }
        // Each step is a run of its own in the catalog and in the snapshots' tags.
        let run = run.renewed();
        steps.push(Step { verb: *verb, result: steps::take(*verb, policy, options, &run).await });
    }
    drop(lock);
    run.check()?;
    Ok(steps)
}

/// Takes the lock that keeps two runs of one policy apart.
///
/// # Errors
/// [`Failure`] with [`Exit::Locked`] where another run goes on for longer than `wait`.
pub async fn lock(policy: &Policy, wait: Duration, run: &Run) -> Result<RunLock, Failure> {
    make_state_dir(policy)?;
    Ok(RunLock::take(&policy.state_dir.join("run.lock"), wait, run).await?)
}

fn make_state_dir(policy: &Policy) -> Result<(), Failure> {
    let dir = &policy.state_dir;
    let refusal = |error: std::io::Error| {
        let failure = Failure::new(Exit::Failed, format!("make the state directory `{}`: {error}", dir.display()));
        failure.hinting("check the rights above it, or set `state_dir` in the policy")
    };
    std::fs::create_dir_all(dir).map_err(refusal)
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
