//! The commands that do work: run, backup, copy, verify, forget, drill.

use serde_json::json;

use crate::backup;
use crate::catalog::Outcome;
use crate::cli::args::{BackupArgs, CopyArgs, DrillArgs, ForgetArgs, Global, LevelArg, RunArgs, VerifyArgs};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::{policies, render};
use crate::copy;
use crate::cycle;
use crate::cycle::steps;
use crate::cycle::{Agenda, Step};
use crate::exit::{Exit, Failure};
use crate::forget::{ForgetPlan, Freeze};
use crate::place;
use crate::policy::Policy;
use crate::run::Run;
use crate::verify;

/// Does what is due. While nothing is, no runtime is started and nothing is opened.
pub(super) fn run(global: &Global, args: &RunArgs) -> Answered {
    let policies = policies::all(global, &args.policies)?;
    let now = chrono::Utc::now();
    let mut due: Vec<(Policy, Agenda)> = Vec::new();
    let mut next = None;
    for policy in policies {
        let agenda = if args.now { cycle::everything(&policy) } else { cycle::agenda(&policy, now)? };
        next = [next, agenda.next].into_iter().flatten().min();
        if !agenda.verbs.is_empty() {
            due.push((policy, agenda));
        }
    }
    if due.is_empty() {
        return Ok(Answer::new("", json!({ "ran": [], "next": next })));
    }
    wait(global, |run| run_all(due, args, run))
}

/// Runs one policy after the other; one that fails does not keep the next from being tried.
async fn run_all(due: Vec<(Policy, Agenda)>, args: &RunArgs, run: Run) -> Answered {
    let options = backup::Options { allow_inconsistent: args.allow_inconsistent, ..backup::Options::default() };
    let (mut exit, mut text, mut ran) = (Exit::Ok, String::new(), Vec::new());
    for (policy, agenda) in due {
        match cycle::run(&policy, &agenda, args.lock_wait, &options, &run).await {
            Ok(steps) => {
                exit = exit.max(cycle::exit_of(&steps));
                text.push_str(&render::steps(&policy, &steps));
                ran.push(json!({ "policy": policy.name, "steps": render::steps_json(&steps) }));
            }
            Err(failure) if args.skip_locked && failure.exit == Exit::Locked => {
                run.events.detail(format!("{}: {}", policy.name, failure.message));
                ran.push(json!({ "policy": policy.name, "skipped": failure.message }));
            }
            Err(failure) if run.cancel.is_cancelled() => return Err(failure),
            Err(failure) => {
                exit = exit.max(failure.exit);
                text.push_str(&render::failure(&format!("{}: ", policy.name), &failure));
                ran.push(json!({ "policy": policy.name, "failure": failure }));
            }
        }
    }
    Ok(Answer::new(text, json!({ "ran": ran, "exit": exit.code() })).with(exit))
}

pub(super) fn backup(global: &Global, args: &BackupArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let options = backup::Options {
        sources: args.sources.clone(),
        lock_wait: args.lock_wait,
        allow_inconsistent: args.allow_inconsistent,
    };
    wait(global, |run| async move {
        let lock = cycle::lock(&policy, args.lock_wait, &run).await?;
        let done = steps::back_up(&policy, &options, !args.no_copy, &run).await;
        drop(lock);
        run.check()?;
        Ok(answer_step(&policy, cycle::journal::Verb::Backup, steps::Done::Backup(Box::new(done?))))
    })
}

fn answer_step(policy: &Policy, verb: cycle::journal::Verb, done: steps::Done) -> Answer {
    let steps = [Step { verb, result: Ok(done) }];
    let exit = cycle::exit_of(&steps);
    let json = json!({ "policy": policy.name, "steps": render::steps_json(&steps), "exit": exit.code() });
    Answer::new(render::steps(policy, &steps), json).with(exit)
}

pub(super) fn copy(global: &Global, args: &CopyArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    if policy.copies.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("copy `{}`: the policy names no copy", policy.name))
            .hinting("add a [[copy]] table to the policy"));
    }
    wait(global, |run| async move {
        if args.dry_run {
            return plan_copies(&policy, &args.copies, &run).await;
        }
        let lock = cycle::lock(&policy, std::time::Duration::ZERO, &run).await?;
        let done = steps::copy_all(&policy, &args.copies, &run).await;
        drop(lock);
        run.check()?;
        Ok(answer_step(&policy, cycle::journal::Verb::Copy, steps::Done::Copy(done?)))
    })
}

async fn plan_copies(policy: &Policy, names: &[String], run: &Run) -> Answered {
    let (mut text, mut plans) = (String::new(), Vec::new());
    for copy in policy.copies.iter().filter(|copy| names.is_empty() || names.contains(&copy.name)) {
        let store = place::copy_store(policy, copy, run).await?;
        let plan = copy::plan(&place::store(policy), &store, run).await?;
        text.push_str(&render::copy_plan(&copy.name, &plan));
        plans.push(json!({ "copy": copy.name, "objects": plan.count(), "bytes": plan.bytes(), "there": plan.skipped }));
    }
    Ok(Answer::new(text, json!({ "dry_run": true, "copies": plans })))
}

pub(super) fn verify(global: &Global, args: &VerifyArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let level = match args.level {
        LevelArg::Structure => verify::Level::Structure,
        LevelArg::Data => verify::Level::Data,
    };
    let subset = args.subset.as_deref().map(str::parse::<verify::Subset>).transpose();
    let subset = subset.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    wait(global, |run| async move {
        let report = steps::verify_store(&policy, args.copy.as_deref(), level, subset, &run).await?;
        Ok(answer_step(&policy, cycle::journal::Verb::Verify, steps::Done::Verify(Box::new(report))))
    })
}

pub(super) fn forget(global: &Global, args: &ForgetArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    wait(global, |run| async move {
        let lock = cycle::lock(&policy, std::time::Duration::ZERO, &run).await?;
        let repository = place::repository_in(&policy, args.copy.as_deref(), &run).await?;
        let catalog = crate::catalog::Catalog::open(&policy.state_dir, &run.events)?;
        let freeze = freeze(&catalog)?;
        let plan = ForgetPlan::new(&repository.snapshots().await?, &policy, freeze, run.now());
        let text = render::forget_plan(&policy, &plan);
        let json = json!({ "dry_run": args.dry_run, "plan": render::forget_plan_json(&plan) });
        if args.dry_run || plan.forgotten().next().is_none() {
            return Ok(Answer::new(text, json));
        }
        let catalog = args.copy.is_none().then_some(&catalog);
        let forgotten = steps::apply_forget(&repository, &plan, catalog, &run).await?;
        drop(lock);
        let exit = steps::exit_of_forgotten(&forgotten);
        let json = json!({ "dry_run": false, "plan": render::forget_plan_json(&plan), "forgotten": render::forgotten_json(&forgotten) });
        Ok(Answer::new(format!("{text}{}", render::forgotten(&forgotten)), json).with(exit))
    })
}

/// Retention rests while the newest backup did not succeed.
fn freeze(catalog: &crate::catalog::Catalog) -> Result<Option<Freeze>, Failure> {
    let runs = catalog.runs(RUNS_LOOKED_AT)?;
    let newest = runs.iter().find(|run| run.verb == "backup");
    Ok(newest
        .filter(|run| !matches!(run.outcome, Outcome::Ok | Outcome::Incomplete))
        .map(|run| Freeze::RunFailed { source: format!("run {}", run.id) }))
}

/// Enough to hold the newest backup among drills and verifies.
const RUNS_LOOKED_AT: u32 = 200;

pub(super) fn drill(global: &Global, args: &DrillArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    wait(global, |run| async move {
        let done = steps::rehearse(&policy, args.from.as_deref(), args.keep, &run).await?;
        run.check()?;
        Ok(answer_step(&policy, cycle::journal::Verb::Drill, steps::Done::Drill(Box::new(done))))
    })
}
