//! The commands that set things up: init, policy, schedule, completions, man.

use std::path::Path;

use clap::CommandFactory as _;
use serde_json::json;

use crate::cli::args::{Cli, Global, PolicyArg, PolicyCommand, ScheduleArgs, ScheduleCommand, WithArg};
use crate::cli::envelope::{Answer, Answered, wait_for};
use crate::cli::{policies, render};
use crate::cycle;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::install;
use crate::install::{Setup, With};
use crate::place;
use crate::policy;
use crate::policy::Policy;
use crate::repository::{Repository, RepositoryError};
use crate::secret::SecretSource;
use crate::store::Key;

/// Makes the repository, and before it the key file where the policy names one that is missing and there is no repository yet.
pub(super) fn init(global: &Global, args: &PolicyArg) -> Answered {
    let policy = policies::one(global, &args.policy)?;
    let made = wait_for(global, |run| async move {
        let store = place::store(&policy);
        // Before a key is made: a fresh key beside an old repository opens nothing, and hides that the right one is lost.
        if store.size(&Key::config()).await?.is_some() {
            return Err(there_already(&policy, &store.location()));
        }
        let made_key = make_key(&policy)?;
        let password = place::password(&policy)?;
        let repository = match Repository::init(store.clone(), &password, &run).await {
            Err(RepositoryError::AlreadyThere { place }) => return Err(there_already(&policy, &place)),
            made => made?,
        };
        Ok((repository.id().to_owned(), store.location(), made_key))
    });
    let (id, location, made_key) = made?;
    let mut text = format!("made repository {} at {location}\n", id.get(..8).unwrap_or(&id));
    if let Some(file) = &made_key {
        let file = file.display();
        text.push_str(&format!(
            "made key file {file} (mode 0600)\n\n\
             KEEP A COPY OF {file} OFF THIS MACHINE, NOW: without it no snapshot opens,\n\
             neither here nor in the copies, and nobody can help.\n"
        ));
    }
    Ok(Answer::new(text, json!({ "repository": id, "location": location, "made_key_file": made_key })))
}

fn there_already(policy: &Policy, location: &str) -> Failure {
    match &policy.repository.password {
        SecretSource::File(key) if !key.exists() => {
            let key = key.display();
            let what =
                format!("make repository `{location}`: there is one already, and its key file `{key}` is missing");
            Failure::new(Exit::Password, what)
                .hinting("bring the key back from its copy; a new one would not open the repository")
        }
        SecretSource::File(_) | SecretSource::Command(_) | SecretSource::Credential(_) | SecretSource::Given(_) => {
            let failure = Failure::new(Exit::Failed, format!("make repository `{location}`: there is one already"));
            failure.hinting("nothing has to be done; `bkp doctor` checks it")
        }
    }
}

fn make_key(policy: &Policy) -> Result<Option<std::path::PathBuf>, Failure> {
    match &policy.repository.password {
        SecretSource::File(path) if !path.exists() => {
            SecretSource::create_key_file(path)?;
            Ok(Some(path.clone()))
        }
        SecretSource::File(_) | SecretSource::Command(_) | SecretSource::Credential(_) | SecretSource::Given(_) => {
            Ok(None)
        }
    }
}

pub(super) fn policy(global: &Global, command: &PolicyCommand) -> Answered {
    match command {
        PolicyCommand::Check { policies } => check(global, policies),
        PolicyCommand::Schema => {
            let schema = policy::schema();
            Ok(Answer::new(serde_json::to_string_pretty(&schema).unwrap_or_default(), schema))
        }
    }
}

/// Reads each policy; goes on past one that is wrong, and says all that is.
fn check(global: &Global, names: &[String]) -> Answered {
    let (mut text, mut found, mut exit) = (String::new(), Vec::new(), Exit::Ok);
    let now = chrono::Utc::now();
    for path in policies::paths(global, names)? {
        match Policy::load(&path) {
            Ok(policy) => {
                let next = cycle::next_runs(&policy, now);
                let lints = policy::lints(&policy);
                text.push_str(&render::policy(&policy, &path, &next, &lints));
                found.push(json!({ "file": path, "policy": policy.name, "ok": true, "next": next, "warnings": lints }));
            }
            Err(error) => {
                let failure = Failure::from(error);
                exit = exit.max(failure.exit);
                text.push_str(&render::failure("", &failure));
                found.push(json!({ "file": path, "ok": false, "error": failure.message, "hint": failure.hint }));
            }
        }
    }
    Ok(Answer::new(text, json!({ "policies": found, "exit": exit.code() })).with(exit))
}

pub(super) fn schedule(global: &Global, command: &ScheduleCommand) -> Answered {
    let args = match command {
        ScheduleCommand::Install { args, .. }
        | ScheduleCommand::Remove { args, .. }
        | ScheduleCommand::Status { args } => args,
    };
    let file = policy::find(&args.policy.policy, &policies::dirs(global))?;
    let policy = Policy::load(&file)?;
    let setup = setup(&policy, &file, args)?;
    let with = match args.with {
        WithArg::Cron => With::Cron,
        WithArg::Systemd => With::Systemd,
    };
    match command {
        ScheduleCommand::Install { dry_run, .. } => act_on(&install::install(&setup, with)?, with, *dry_run),
        ScheduleCommand::Remove { dry_run, .. } => act_on(&install::remove(&setup, with)?, with, *dry_run),
        ScheduleCommand::Status { .. } => Ok(installed(&policy, &install::status(&setup, with)?)),
    }
}

fn setup<'a>(policy: &'a Policy, file: &Path, args: &ScheduleArgs) -> Result<Setup<'a>, Failure> {
    let refusal = |error: std::io::Error| Failure::new(Exit::Failed, format!("find this program's own file: {error}"));
    let policy_file = std::path::absolute(file).map_err(refusal)?;
    let program = std::env::current_exe().map_err(refusal)?;
    Ok(Setup { policy, policy_file, program, root: args.root.clone() })
}

fn act_on(plan: &install::Plan, with: With, dry_run: bool) -> Answered {
    let text = plan.to_string();
    if !dry_run {
        plan.apply(with)?;
    }
    Ok(Answer::new(
        text.clone(),
        json!({ "dry_run": dry_run, "steps": plan.steps.len(), "notes": plan.notes, "plan": text }),
    ))
}

fn installed(policy: &Policy, state: &install::State) -> Answer {
    let (word, mut text) = match state {
        install::State::Installed => ("installed", "installed\n".to_owned()),
        install::State::Absent => ("absent", "not installed\n".to_owned()),
        install::State::Differs(paths) => {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            ("differs", format!("installed, but not as this program and policy would: {}\n", paths.join(", ")))
        }
    };
    let next = cycle::next_runs(policy, chrono::Utc::now());
    for (verb, time) in &next {
        text.push_str(&format!("next {verb}: {}\n", human::time(*time, policy.timezone)));
    }
    Answer::new(text, json!({ "state": word, "next": next }))
}

pub(super) fn completions(shell: clap_complete::Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bkp", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new(script.clone(), json!({ "completions": script }))
}

pub(super) fn man(dir: &Path) -> Answered {
    let refusal = |error: std::io::Error| {
        Failure::new(Exit::Failed, format!("write manual pages into `{}`: {error}", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(refusal)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(refusal)?;
    Ok(Answer::new(format!("wrote the manual pages into {}", dir.display()), json!({ "dir": dir.to_string_lossy() })))
}
