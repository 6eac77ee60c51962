//! The commands on recovery kits: export, check.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::args::{BinlogCommand, Command, Global, KitCommand, KitExportArgs};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::render::Told;
use crate::cli::{ask, policies};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::id::ObjectId;
use crate::kit;
use crate::kit::{Exported, Kit, Options};
use crate::policy;
use crate::policy::{Policy, PolicyError};
use crate::secret::{Secret, SecretSource};

pub(super) fn kit(global: &Global, command: &KitCommand) -> Answered {
    match command {
        KitCommand::Export(args) => export(global, args),
        KitCommand::Check { dir } => check(global, dir),
    }
}

/// Refuses what a bare machine has nothing for: a kit only reads.
pub(super) fn judge(global: &Global, command: &Command) -> Result<(), Failure> {
    let reads = match command {
        Command::Restore(_) | Command::Export(_) | Command::Snapshots(_) | Command::Drill(_) | Command::Kit(_) => true,
        Command::Binlog(command) => matches!(command, BinlogCommand::List(_) | BinlogCommand::Export(_)),
        Command::Verify(args) => !args.heal,
        _ => false,
    };
    if global.kit.is_none() || reads {
        return Ok(());
    }
    let there = "restore, export, binlog list and export, verify without --heal, snapshots and drill";
    let failure = Failure::new(Exit::Usage, format!("with `--kit` there is {there}"));
    Err(failure
        .hinting("leave `--kit` out; a kit stands for a machine that is lost, and only reads its copies, under a lock"))
}

/// Reads a policy of the kit that is named, with the passphrase from where the arguments say or from the terminal.
pub(super) fn policy_of(global: &Global, dir: &Path, name: &str) -> Result<Policy, Failure> {
    let passphrase = match given(global)? {
        Some(passphrase) => passphrase,
        None => ask::secret("passphrase of the kit", "--passphrase-file FILE")?,
    };
    let has_credentials = std::env::var_os("AWS_ACCESS_KEY_ID").is_some_and(|id| !id.is_empty());
    Ok(kit::policy_of(dir, name, passphrase, has_credentials)?)
}

fn given(global: &Global) -> Result<Option<Secret>, Failure> {
    match (&global.passphrase_file, &global.passphrase_command) {
        (Some(file), _) => Ok(Some(SecretSource::File(file.clone()).read()?)),
        (None, Some(command)) => Ok(Some(SecretSource::Command(command.clone()).read()?)),
        (None, None) => Ok(None),
    }
}

/// Reads the passphrase of a kit that is to be made.
fn new_passphrase(global: &Global) -> Result<Secret, Failure> {
    if let (None, Some(command)) = (&global.passphrase_file, &global.passphrase_command) {
        return ask::steady("passphrase", command);
    }
    match given(global)? {
        Some(passphrase) => Ok(passphrase),
        None => ask::new_secret("passphrase of the kit", "--passphrase-file FILE"),
    }
}

fn export(global: &Global, args: &KitExportArgs) -> Answered {
    let loaded = policies::all(global, &args.policies)?;
    if let Some(failure) = loaded.bad.into_iter().next() {
        return Err(failure);
    }
    let options = Options { passphrase: new_passphrase(global)?, binary: args.binary.clone(), apart: args.apart };
    wait(global, |run| async move {
        let exported = kit::export(&loaded.good, &args.dir, &options, &run).await?;
        let mut told = Told { text: exported_text(&exported, args), ..Told::default() };
        let mut exit = Exit::Ok;
        for (policy, copy, why) in &exported.without_key {
            exit = Exit::Incomplete;
            let failure = Failure::new(exit, format!("{policy}: copy `{copy}` has no key of this kit yet: {why}"));
            told.fail("", &failure.hinting("the next `bkp copy` brings it there; then export again, for the runbook"));
        }
        for (policy, copy) in &exported.unseen {
            run.events.warn(format!(
                "{policy}: this machine may not look into copy `{copy}`: the next `bkp copy` brings the kit's key there"
            ));
        }
        let json = json!({
            "dir": args.dir,
            "kit": exported.kit,
            "without_key": exported.without_key.iter().map(without_key_json).collect::<Vec<_>>(),
            "unseen": exported.unseen.iter().map(unseen_json).collect::<Vec<_>>(),
            "old_keys": exported.old_keys.iter().map(old_key_json).collect::<Vec<_>>(),
            "exit": exit.code(),
        });
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

fn without_key_json((policy, copy, reason): &(String, String, String)) -> Value {
    json!({ "policy": policy, "copy": copy, "reason": reason })
}

fn unseen_json((policy, copy): &(String, String)) -> Value {
    json!({ "policy": policy, "copy": copy })
}

fn old_key_json((policy, id): &(String, ObjectId)) -> Value {
    json!({ "policy": policy, "key": id.to_string() })
}

fn exported_text(exported: &Exported, args: &KitExportArgs) -> String {
    let names: Vec<String> = exported.kit.policies.iter().map(|policy| policy.name.clone()).collect();
    let dir = args.dir.display();
    let mut text = format!("exported {} into {dir}; begin with {dir}/RUNBOOK.md\n", human::quoted(&names));
    text.push_str(&format!("its program runs on {}\n", exported.kit.binary));
    if exported.kit.given.as_deref() == Some("") {
        text.push_str(
            "that program does not run here, so nobody has tried it: run `./bkp kit check .` where it does\n",
        );
    }
    for (policy, id) in &exported.old_keys {
        text.push_str(&format!(
            "the older kit's key still opens {policy}, with its passphrase: `bkp key remove {policy} {}` when no such kit is left\n",
            id.short()
        ));
    }
    text.push_str(
        "KEEP THE KIT OFF THIS SITE, AND ITS PASSPHRASE APART FROM IT; the copies' credentials are not in it\n",
    );
    text
}

/// Hashes the kit, and sets it beside this program and the policies that this machine has.
fn check(global: &Global, dir: &Path) -> Answered {
    let (kit, faults) = kit::check(dir)?;
    let (stale, unknown) = stale(global, &kit);
    let mut told = Told::default();
    let age = human::age(kit.created, chrono::Utc::now());
    let names: Vec<String> = kit.policies.iter().map(|policy| policy.name.clone()).collect();
    told.text.push_str(&format!(
        "kit of {}, made {age} by {} on {}; its program runs on {}\n",
        human::quoted(&names),
        kit.program,
        human::printable(&kit.host),
        kit.binary
    ));
    let mut exit = Exit::Ok;
    for line in &stale {
        exit = exit.max(Exit::Incomplete);
        told.fail("", &Failure::new(exit, line).hinting("export it again: `bkp kit export DIR`"));
    }
    for line in &faults {
        exit = exit.max(Exit::Damaged);
        told.fail("", &Failure::new(exit, line).hinting(kit::DAMAGE_HINT));
    }
    for name in &unknown {
        told.text.push_str(&format!("policy `{name}` is not on this machine: not compared\n"));
    }
    let files = kit.files.len();
    told.text.push_str(&match (faults.len(), stale.len()) {
        (0, 0) => format!("{} as they were written\n", human::counted(files as u64, "file is", "files are")),
        (0, _) => "whole, but stale\n".to_owned(),
        _ => "DAMAGED\n".to_owned(),
    });
    let json = json!({ "kit": kit, "damaged": faults, "stale": stale, "not_compared": unknown, "exit": exit.code() });
    Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
}

/// Says in what the kit is behind, and which of its policies are not here to tell.
fn stale(global: &Global, kit: &Kit) -> (Vec<String>, Vec<String>) {
    let mut stale: Vec<String> = stale_program(kit).into_iter().collect();
    let mut unknown = Vec::new();
    for of_kit in &kit.policies {
        let name = &of_kit.name;
        match here(global, name) {
            Ok(Some(policy)) if policy.hash == of_kit.hash => {}
            Ok(Some(_)) => stale.push(format!("the kit has another text of policy `{name}` than this machine")),
            Ok(None) => unknown.push(name.clone()),
            Err(error) => {
                stale.push(format!("policy `{name}` cannot be set beside the kit's: {}", human::chain(&error)));
            }
        }
    }
    (stale, unknown)
}

/// Sets the kit's program beside this one: by its bytes, or by its answer where it was made to be another.
fn stale_program(kit: &Kit) -> Option<String> {
    let (of_kit, ours) = (kit.given.as_deref().unwrap_or(&kit.program), kit::program());
    if of_kit.is_empty() {
        return None;
    }
    if of_kit != ours {
        return Some(format!("the kit has {of_kit}, and this is {ours}"));
    }
    let is_other = || kit::running_program().is_ok_and(|sum| kit::program_of(kit) != Some(&sum));
    (kit.given.is_none() && is_other()).then(|| format!("the kit has another build of {ours} than this"))
}

/// Loads a policy of this machine by the name that is in it: its file may have another.
fn here(global: &Global, name: &str) -> Result<Option<Policy>, PolicyError> {
    let dirs = policies::dirs(global);
    match policy::find(name, &dirs) {
        Ok(path) => {
            let policy = Policy::load(&path)?;
            if policy.name == name {
                return Ok(Some(policy));
            }
        }
        Err(PolicyError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let named = |path: &PathBuf| Policy::load(path).ok().filter(|policy| policy.name == name);
    Ok(policy::all(&dirs)?.iter().find_map(named))
}
