//! The commands that only look: doctor, snapshots, status, report.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::capture::Spool;
use crate::catalog::{Catalog, Outcome, REPOSITORY, RunRecord, SnapshotRecord};
use crate::cli::args::{FormatArg, Global, PolicyArg, ReportArgs, SnapshotsArgs, StatusArgs};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::render::Told;
use crate::cli::table::Times;
use crate::cli::{ink, policies, table};
use crate::cycle;
use crate::cycle::freeze::{damaged, freeze};
use crate::cycle::journal::Verb;
use crate::cycle::steps;
use crate::doctor;
use crate::doctor::{Cause, Finding, State};
use crate::drill::outcome::{DrillOutcome, Judgement};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::place;
use crate::policy::{CapturePlan, Policy};
use crate::report::Report;
use crate::repository::{Repository, StoredSnapshot};
use crate::run::{Run, Stopped};
use crate::status::{Binlog, Inputs, NextRun, Status, Verdict};

/// Drills that `status` and `report` look back on.
const DRILLS_LOOKED_AT: u32 = 24;

/// Heals that `status` looks back on: more than one a day in the month that it tells of.
const HEALS_LOOKED_AT: u32 = 50;

pub(super) fn doctor(global: &Global, args: &PolicyArg) -> Answered {
    let policy = policies::one(global, &args.policy)?;
    wait(global, |run| async move {
        let findings = doctor::examine(&policy, &run).await;
        run.check()?;
        let exit = findings.iter().filter(|finding| finding.state == State::Bad).map(exit_of).max().unwrap_or(Exit::Ok);
        let json = json!({ "policy": policy.name, "findings": findings, "exit": exit.code() });
        Ok(Answer::new(findings_text(&findings), json).with(exit))
    })
}

fn exit_of(finding: &Finding) -> Exit {
    match finding.cause {
        Cause::Other => Exit::Failed,
        Cause::Guard => Exit::Guard,
        Cause::Network => Exit::Network,
        Cause::NoRepository => Exit::NoRepository,
        Cause::Password => Exit::Password,
    }
}

fn findings_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.state {
            State::Ok => "ok     ",
            State::Warning => "warning",
            State::Bad => "BAD    ",
        };
        // What servers and stores answer is in it.
        text.push_str(&format!("{mark} {}: {}\n", finding.what, human::printable(&finding.detail)));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("        hint: {hint}\n"));
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    text.push_str(&format!(
        "{} assertions: {} hold, {} warnings, {} do not hold\n",
        findings.len(),
        count(State::Ok),
        count(State::Warning),
        count(State::Bad)
    ));
    text
}

pub(super) fn snapshots(global: &Global, args: &SnapshotsArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    wait(global, |run| async move {
        let mut records = records_of(&policy, place::copy_meant(&policy, args.from.as_deref()), &run).await?;
        records.retain(|record| args.source.as_deref().is_none_or(|source| record.source == source));
        let times = Times { zone: policy.timezone, now: run.now() };
        let json = json!({ "snapshots": records.iter().map(snapshot_json).collect::<Vec<Value>>() });
        Ok(Answer::new(table::snapshots(&records, times, ink()), json))
    })
}

fn snapshot_json(record: &SnapshotRecord) -> Value {
    json!({
        "id": record.id,
        "time": record.time,
        "source": record.source,
        "kind": record.kind,
        "run": record.run,
        "incomplete": record.incomplete,
    })
}

pub(super) fn status(global: &Global, args: &StatusArgs) -> Answered {
    let loaded = policies::all(global, &args.policies)?;
    wait(global, |run| async move {
        let (mut told, mut all, mut exit) = (Told::default(), Vec::new(), Exit::Ok);
        let mut failures = loaded.bad;
        for policy in &loaded.good {
            match look(policy, args.rebuild, &run).await {
                Ok(status) => {
                    exit = exit.max(exit_of_status(&status));
                    told.text.push_str(&status.text(ink()));
                    all.push(status);
                }
                Err(failure) if run.cancel.is_cancelled() => return Err(failure),
                Err(failure) => {
                    failures.push(Failure { message: format!("{}: {}", policy.name, failure.message), ..failure });
                }
            }
        }
        for failure in &failures {
            exit = exit.max(failure.exit);
            told.fail("", failure);
        }
        let json = json!({ "policies": all, "failures": failures, "exit": exit.code() });
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

async fn look(policy: &Policy, rebuild: bool, run: &Run) -> Result<Status, Failure> {
    let catalog = Catalog::open(&policy.state_dir, &run.events)?;
    if rebuild || catalog.is_unfilled()? {
        refill(policy, &catalog, run).await?;
    }
    let runs = catalog.standing()?;
    let freeze = freeze(policy, REPOSITORY, &catalog)?;
    Ok(Status::new(&Inputs {
        policy,
        snapshots: &catalog.snapshots()?,
        runs: &runs,
        drills: &catalog.drills(DRILLS_LOOKED_AT)?,
        copies: &catalog.copies()?,
        freeze: freeze.as_ref(),
        damaged: &damaged(policy, &catalog)?,
        heals: &catalog.heals(HEALS_LOOKED_AT)?,
        next_runs: &next_runs(policy, &runs, run)?,
        binlogs: &binlogs(policy)?,
        now: run.now(),
    }))
}

/// Looks at the spools of the binlogs that are captured.
fn binlogs(policy: &Policy) -> Result<Vec<Binlog>, Failure> {
    let plans = policy.mysql.iter().filter_map(|(name, place)| Some((name, place.binlog.as_ref()?)));
    let look = |(source, plan): (&String, &CapturePlan)| {
        let progress = Spool::progress(&plan.spool, source)?.unwrap_or_default();
        Ok(Binlog { source: source.clone(), progress, chain: Spool::chain_at(&plan.spool, source)? })
    };
    plans.map(look).collect()
}

/// Returns when each verb is due, and since when it has been missed: not while a run goes on, or one of that very verb has only just ended.
fn next_runs(policy: &Policy, runs: &[RunRecord], run: &Run) -> Result<Vec<NextRun>, Failure> {
    let now = run.now();
    let is_busy = |verb: Verb| {
        runs.iter().any(|run| match run.ended {
            Some(ended) => run.verb == verb.name() && now - ended < cycle::LATE,
            None => run.outcome == Outcome::Running,
        })
    };
    let missed = cycle::missed(policy, now)?;
    let of = |(verb, at): (Verb, DateTime<Utc>)| {
        let missed = missed.iter().find(|(missed, _)| *missed == verb && !is_busy(verb)).map(|(_, since)| *since);
        NextRun { verb: verb.name().to_owned(), at, missed }
    };
    Ok(cycle::next_runs(policy, now).into_iter().map(of).collect())
}

/// Fills the catalog from the repository and the copies. What is known of a store that cannot be read stays, with a warning.
async fn refill(policy: &Policy, catalog: &Catalog, run: &Run) -> Result<(), Failure> {
    let (mut records, mut unread) = (Vec::new(), Vec::new());
    let stores = std::iter::once(None).chain(policy.copies.iter().map(|copy| Some(copy.name.as_str())));
    for copy in stores {
        let found = run.cancel.run_until_cancelled(records_of(policy, copy, run)).await.ok_or(Stopped)?;
        let store = copy.unwrap_or(REPOSITORY);
        match found {
            Ok(found) => records.extend(found),
            Err(error) => {
                run.events.warn(format!("{store}: {}", error.message));
                unread.push(store);
            }
        }
    }
    Ok(catalog.rebuild(&policy.name, &records, &unread)?)
}

async fn records_of(policy: &Policy, copy: Option<&str>, run: &Run) -> Result<Vec<SnapshotRecord>, Failure> {
    let repository: std::sync::Arc<Repository> = place::repository_in(policy, copy, run).await?;
    let is_ours = |stored: &&StoredSnapshot| stored.snapshot.tag("policy") == Some(&policy.name);
    let record = |stored: &StoredSnapshot| SnapshotRecord::of(copy.unwrap_or(REPOSITORY), stored);
    Ok(repository.snapshots().await?.iter().filter(is_ours).filter_map(record).collect())
}

/// A missed objective has its own code; any other bad verdict is a failure; a warning is none.
fn exit_of_status(status: &Status) -> Exit {
    let is_breached = status.sources.iter().any(|source| source.rpo == Judgement::Breached)
        || status
            .drill
            .as_ref()
            .is_some_and(|drill| drill.verdict.rto == Judgement::Breached || drill.verdict.rpo == Judgement::Breached);
    match status.verdict {
        Verdict::Bad if is_breached => Exit::Breached,
        Verdict::Bad => Exit::Failed,
        Verdict::Warning | Verdict::Ok => Exit::Ok,
    }
}

pub(super) fn report(global: &Global, args: &ReportArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let run = Run::silent();
    let catalog = Catalog::open(&policy.state_dir, &run.events)?;
    // A drill that is named may be older than the history that a report shows.
    let drills = catalog.drills(if args.run.is_some() { u32::MAX } else { DRILLS_LOOKED_AT })?;
    let wanted = |drill: &&DrillOutcome| args.run.as_deref().is_none_or(|id| drill.run.as_str() == id);
    let Some(drill) = drills.iter().find(wanted) else {
        let failure =
            Failure::new(Exit::Failed, format!("report: no such drill of policy `{}` is in the catalog", policy.name));
        return Err(failure.hinting("`bkp drill` makes one; `bkp status` names the newest"));
    };
    let json = serde_json::to_value(drill).unwrap_or_default();
    let report = Report::new(drill.clone(), &drills, steps::context(&policy, &catalog, &run)?);
    let text = match args.format {
        FormatArg::Text => report.text(ink()),
        FormatArg::Json => {
            report.json().map_err(|error| Failure::new(Exit::Failed, format!("print the report: {error}")))?
        }
        FormatArg::Markdown => report.markdown(),
        FormatArg::Html => report.html(),
    };
    let Some(file) = &args.output else { return Ok(Answer::new(text, json)) };
    std::fs::write(file, text)
        .map_err(|error| Failure::new(Exit::Failed, format!("write the report `{}`: {error}", file.display())))?;
    Ok(Answer::new(format!("wrote {}", file.display()), json))
}
