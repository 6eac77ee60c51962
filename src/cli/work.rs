//! The commands that do work: run, backup, copy, verify, forget, prune, drill.

use std::iter;
use std::time::Duration;

use chrono::Utc;
use serde_json::{Value, json};

use crate::backup;
use crate::catalog::{Catalog, REPOSITORY};
use crate::cli::against::against_source;
use crate::cli::args::{BackupArgs, CopyArgs, DrillArgs, ForgetArgs, Global, LevelArg, PruneArgs, RunArgs, VerifyArgs};
use crate::cli::envelope::{Answer, Answered, wait, wait_for};
use crate::cli::render::Told;
use crate::cli::{policies, render, restore};
use crate::copy;
use crate::copy::LedgerFile;
use crate::cycle;
use crate::cycle::task::Task;
use crate::cycle::{Step, Wanted};
use crate::cycle::{done, steps};
use crate::drill::outcome::Scenario;
use crate::exit::{Exit, Failure};
use crate::place;
use crate::policy::{CopyPlace, Policy};
use crate::prune;
use crate::restore::choose::Moment;
use crate::run::Run;
use crate::verify;

/// Does what is due. While nothing is, no runtime is started and nothing is opened.
pub(super) fn run(global: &Global, args: &RunArgs) -> Answered {
    let loaded = policies::all(global, &args.policies)?;
    let now = chrono::Utc::now();
    let mut ran = Ran::default();
    loaded.bad.iter().for_each(|failure| ran.fail(None, failure));
    let mut due = Vec::new();
    let mut next = None;
    for policy in loaded.good {
        match cycle::agenda(&policy, now) {
            Err(failure) => ran.fail(Some(&policy), &failure),
            Ok(agenda) => {
                next = [next, agenda.next].into_iter().flatten().min();
                if args.now || !agenda.verbs.is_empty() {
                    due.push(policy);
                }
            }
        }
    }
    if !due.is_empty() {
        ran = wait_for(global, |run| run_all(due, args, ran, run))?;
    }
    let json = json!({ "ran": ran.json, "next": next, "exit": ran.exit.code() });
    Ok(Answer::new(ran.told.text, json).telling(ran.told.errors).with(ran.exit))
}

/// What became of the policies so far.
struct Ran {
    exit: Exit,
    told: Told,
    json: Vec<Value>,
}

impl Default for Ran {
    fn default() -> Self {
        Self { exit: Exit::Ok, told: Told::default(), json: Vec::new() }
    }
}

impl Ran {
    /// Notes that a policy could not be run, or not even be read.
    fn fail(&mut self, policy: Option<&Policy>, failure: &Failure) {
        self.exit = self.exit.max(failure.exit);
        self.told.fail(&policy.map_or_else(String::new, |policy| format!("{}: ", policy.name)), failure);
        self.json.push(json!({ "policy": policy.map(|policy| &policy.name), "failure": failure }));
    }
}

/// Runs one policy after the other; one that fails does not keep the next from being tried.
async fn run_all(due: Vec<Policy>, args: &RunArgs, mut ran: Ran, run: Run) -> Result<Ran, Failure> {
    let wanted = if args.now { Wanted::Everything } else { Wanted::Due };
    let options = backup::Options { allow_inconsistent: args.allow_inconsistent, ..backup::Options::default() };
    for policy in due {
        match cycle::run(&policy, wanted, &options, args.lock_wait, &run).await {
            Ok(steps) => {
                ran.exit = ran.exit.max(cycle::exit_of(&steps));
                render::steps(&mut ran.told, &policy, &steps);
                ran.json.push(json!({ "policy": policy.name, "steps": render::steps_json(&steps) }));
            }
            Err(failure) if args.skip_locked && failure.exit == Exit::Locked => {
                run.events.detail(format!("{}: {}", policy.name, failure.message));
                ran.json.push(json!({ "policy": policy.name, "skipped": failure.message }));
            }
            Err(failure) if run.cancel.is_cancelled() => return Err(failure),
            Err(failure) => ran.fail(Some(&policy), &failure),
        }
    }
    Ok(ran)
}

pub(super) fn backup(global: &Global, args: &BackupArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let options = backup::Options {
        sources: args.sources.clone(),
        lock_wait: args.lock_wait,
        allow_inconsistent: args.allow_inconsistent,
        no_throttle: args.no_throttle,
    };
    let task = Task::Backup { options, with_copies: !args.no_copy };
    wait(global, |run| async move { step(&policy, &task, args.lock_wait, &run).await })
}

/// Takes one step by hand.
pub(super) async fn step(policy: &Policy, task: &Task, lock_wait: Duration, run: &Run) -> Answered {
    let step = cycle::by_hand(policy, task, lock_wait, run).await?;
    if let Step { result: Err(failure), unrecorded: None, .. } = step {
        return Err(failure);
    }
    Ok(stepped(policy, &[step]))
}

/// Tells what steps came to.
fn stepped(policy: &Policy, steps: &[Step]) -> Answer {
    let exit = cycle::exit_of(steps);
    let mut told = Told::default();
    render::steps(&mut told, policy, steps);
    let json = json!({ "policy": policy.name, "steps": render::steps_json(steps), "exit": exit.code() });
    Answer::new(told.text, json).telling(told.errors).with(exit)
}

pub(super) fn copy(global: &Global, args: &CopyArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    if policy.copies.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("copy `{}`: the policy names no copy", policy.name))
            .hinting("add a [[copy]] table to the policy"));
    }
    let task = Task::Copy { copies: args.copies.clone() };
    wait(global, |run| async move {
        if args.dry_run {
            return plan_copies(&policy, &args.copies, &run).await;
        }
        step(&policy, &task, Duration::ZERO, &run).await
    })
}

async fn plan_copies(policy: &Policy, names: &[String], run: &Run) -> Answered {
    let (mut text, mut plans) = (String::new(), Vec::new());
    for copy in policy.copies.iter().filter(|copy| names.is_empty() || names.contains(&copy.name)) {
        let store = place::copy_target(policy, copy, run).await?;
        let ledger = match LedgerFile::of(policy, copy) {
            Some(file) => Some(file.look(place::repository(policy, run).await?.id())?),
            None => None,
        };
        let terms = steps::terms(copy, ledger.as_ref());
        let plan = copy::plan_under(&terms, &place::store(policy), &store, run).await?;
        text.push_str(&render::copy_plan(&copy.name, &plan));
        plans.push(json!({ "copy": copy.name, "objects": plan.count(), "bytes": plan.bytes(), "there": plan.skipped }));
    }
    Ok(Answer::new(text, json!({ "dry_run": true, "copies": plans })))
}

pub(super) fn verify(global: &Global, args: &VerifyArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    if args.against_source {
        return against_source(global, &policy, args);
    }
    let level = match args.level {
        LevelArg::Structure => verify::Level::Structure,
        LevelArg::Data => verify::Level::Data,
        LevelArg::Restore => verify::Level::Restore,
    };
    let subset = args.subset.as_deref().map(str::parse::<verify::Subset>).transpose();
    let subset = subset.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let options = verify::Options { level, subset };
    if level == verify::Level::Restore && (args.heal || subset.is_some()) {
        let what = if args.heal { "--heal" } else { "--subset" };
        return Err(Failure::new(Exit::Usage, format!("verify: `{what}` does not go with `--level restore`"))
            .hinting("use `--level data`: a restore compares what it brings back, and all of it"));
    }
    if args.heal {
        return heal(global, &policy, args, options);
    }
    let task = Task::Verify { copy: meant(&policy, args.copy.as_deref()), options, heals: false, salvages: false };
    wait(global, |run| async move { step(&policy, &task, Duration::ZERO, &run).await })
}

/// Heals the copy that is named, or every store: the repository first, because what comes back there may be what a copy lacks.
fn heal(global: &Global, policy: &Policy, args: &VerifyArgs, options: verify::Options) -> Answered {
    let can_be_read = |copy: &&CopyPlace| !copy.is_write_only() || copy.s3().is_some_and(|s3| s3.reader.is_some());
    let copies = policy.copies.iter().filter(can_be_read).map(|copy| Some(copy.name.clone()));
    let stores: Vec<Option<String>> = match &args.copy {
        Some(copy) => vec![Some(copy.clone())],
        None if policy.repository.from_kit.is_some() => copies.collect(),
        None => iter::once(None).chain(copies).collect(),
    };
    wait(global, |run| async move {
        if args.copy.is_none() {
            for copy in policy.copies.iter().filter(|copy| !can_be_read(copy)) {
                run.events
                    .note(format!("{} is left out: it has no [copy.s3.reader], so nobody here can read it", copy.name));
            }
        }
        if args.dry_run {
            return plan_heals(policy, &stores, options, &run).await;
        }
        let mut steps = Vec::new();
        for copy in stores {
            let task = Task::Verify { copy, options, heals: true, salvages: args.salvage };
            // Each store is a run of its own in the catalog; one that cannot be reached does not keep the next from being healed.
            steps.push(cycle::by_hand(policy, &task, Duration::ZERO, &run.renewed()).await?);
        }
        Ok(stepped(policy, &steps))
    })
}

async fn plan_heals(policy: &Policy, stores: &[Option<String>], options: verify::Options, run: &Run) -> Answered {
    let (mut told, mut plans, mut exit) = (Told::default(), Vec::new(), Exit::Ok);
    for copy in stores {
        let store = copy.as_deref().unwrap_or(REPOSITORY);
        match steps::plan_heal(policy, copy.as_deref(), options, run).await {
            Ok((report, plan)) => {
                exit = exit.max(done::exit_of_report(&report));
                told.text.push_str(&render::heal_plan(store, &report, &plan));
                plans.push(json!({ "store": store, "report": report, "plan": plan }));
            }
            Err(failure) if run.cancel.is_cancelled() => return Err(failure),
            Err(failure) => {
                exit = exit.max(failure.exit);
                told.fail(&format!("look at {store}: "), &failure);
                plans.push(json!({ "store": store, "failure": failure }));
            }
        }
    }
    let json = json!({ "dry_run": true, "stores": plans, "exit": exit.code() });
    Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
}

pub(super) fn forget(global: &Global, args: &ForgetArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let store = args.copy.as_deref().unwrap_or(REPOSITORY);
    wait(global, |run| async move {
        let lock = cycle::lock(&policy, Duration::ZERO, &run).await?;
        let repository = place::repository_in(&policy, args.copy.as_deref(), &run).await?;
        let catalog = Catalog::open(&policy.state_dir, &run.events)?;
        let (plan, forgotten) = if args.dry_run {
            (steps::plan_forget(&policy, &repository, store, &catalog, &run).await?, None)
        } else {
            let (plan, forgotten) = steps::forget(&policy, &repository, store, &catalog, &run).await?;
            let has_work = plan.forgotten().next().is_some();
            (plan, has_work.then_some(forgotten))
        };
        drop(lock);
        let mut told = Told { text: render::forget_plan(&policy, &plan), ..Told::default() };
        let mut json = json!({ "dry_run": args.dry_run, "plan": render::forget_plan_json(&plan) });
        let mut exit = Exit::Ok;
        if let Some(forgotten) = forgotten {
            render::forgotten(&mut told, &forgotten);
            json["forgotten"] = render::forgotten_json(&forgotten);
            exit = done::exit_of_forgotten(&forgotten);
        }
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

pub(super) fn prune(global: &Global, args: &PruneArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let task = Task::Prune { copy: args.copy.clone(), unused_percent_max: args.max_unused };
    wait(global, |run| async move {
        if args.dry_run {
            return plan_prune(&policy, args, &run).await;
        }
        step(&policy, &task, args.lock_wait, &run).await
    })
}

/// Makes the plan beside whoever else works on the repository: what they add meanwhile is not in it.
async fn plan_prune(policy: &Policy, args: &PruneArgs, run: &Run) -> Answered {
    let copy = args.copy.as_deref();
    let limits = steps::prune_limits(policy, copy, args.max_unused).await?;
    let repository = place::repository_to_prove(policy, copy, run).await?;
    let lock = place::lock_to_read(&repository, run).await?;
    let plan = prune::plan(&repository, &limits, run).await;
    place::unlock(lock, run).await;
    let plan = plan?;
    Ok(Answer::new(render::prune_plan(&plan), json!({ "dry_run": true, "plan": render::prune_plan_json(&plan) })))
}

pub(super) fn drill(global: &Global, args: &DrillArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let scenario = if args.standby { Scenario::Standby } else { scenario(&policy, args.point_in_time.as_deref())? };
    let task = Task::Drill { from: meant(&policy, args.from.as_deref()), scenario, keep: args.keep };
    wait(global, |run| async move { step(&policy, &task, Duration::ZERO, &run).await })
}

/// Reads what a drill is to assume.
fn scenario(policy: &Policy, point: Option<&str>) -> Result<Scenario, Failure> {
    let Some(text) = point else { return Ok(Scenario::Lost) };
    match restore::moment(text, policy.timezone)? {
        Moment::At(at) if at > Utc::now() => {
            Err(Failure::new(Exit::Usage, format!("rehearse a mistake: `{text}` has not come yet")))
        }
        Moment::At(at) => Ok(Scenario::Mistake { at }),
        Moment::Latest | Moment::Snapshot(_) => Ok(Scenario::Lost),
    }
}

/// Names the copy that is read, as outputs and reports are to call it.
fn meant(policy: &Policy, asked: Option<&str>) -> Option<String> {
    place::copy_meant(policy, asked).map(str::to_owned)
}
