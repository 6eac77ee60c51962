//! The commands on passwords: list, add, remove, passwd.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::catalog::REPOSITORY;
use crate::cli::args::{Global, KeyArgs, KeyCommand, NewPassword, PolicyArg};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::render::Told;
use crate::cli::table::Times;
use crate::cli::{ask, ink, policies, table};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::id::ObjectId;
use crate::keys;
use crate::keys::{KeysError, Opened, PlaceKeys, Places, Removal};
use crate::place::{self, PlaceError};
use crate::policy::Policy;
use crate::repository::key::Cost;
use crate::repository::{Fault, RepositoryError};
use crate::run::Run;
use crate::secret::{Secret, SecretSource};

pub(super) fn key(global: &Global, command: &KeyCommand) -> Answered {
    match command {
        KeyCommand::List(args) => list(global, args),
        KeyCommand::Add { args, new } => add(global, args, new),
        KeyCommand::Remove { args, id, dry_run, yes } => {
            if global.json && !yes && !dry_run {
                return Err(ask::unconfirmed("remove key: with `--json` nobody is asked to confirm the plan"));
            }
            remove(global, args, id, *dry_run, !yes)
        }
        KeyCommand::Passwd { policy, new } => passwd(global, policy, new),
    }
}

fn list(global: &Global, args: &KeyArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    wait(global, |run| async move {
        let keys = PlaceKeys::of(&open(&policy, args.copy.as_deref(), &run).await?).await?;
        let (mut told, mut exit) = (Told::default(), Exit::Ok);
        told.text = table::keys(&keys, Times { zone: policy.timezone, now: run.now() }, ink());
        for fault in &keys.list.damaged {
            exit = exit.max(Exit::Damaged);
            told.fail("", &Failure::from(&fault.error));
        }
        let damaged = keys.list.damaged.iter().map(damaged_json).collect::<Vec<_>>();
        let json = json!({ "keys": keys_json(&keys), "damaged": damaged, "exit": exit.code() });
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

/// Opens the repository, or the copy of that name.
async fn open(policy: &Policy, copy: Option<&str>, run: &Run) -> Result<Opened, PlaceError> {
    if let Some(name) = copy {
        return Opened::copy(policy, name, run).await;
    }
    let repository = place::repository(policy, run).await?;
    Ok(Opened { name: REPOSITORY.to_owned(), repository, ledger: None })
}

fn keys_json(keys: &PlaceKeys) -> Vec<Value> {
    let key = |record: &crate::repository::KeyRecord| {
        json!({
            "id": record.id.to_string(),
            "user": record.user,
            "host": record.host,
            "created": record.created,
            "in_use": record.id == keys.used,
        })
    };
    keys.list.found.iter().map(key).collect()
}

fn damaged_json(fault: &Fault) -> Value {
    json!({ "id": fault.object.name, "reason": human::chain(&fault.error) })
}

fn add(global: &Global, args: &KeyArgs, new: &NewPassword) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let password = new_password(new)?;
    wait(global, |run| async move {
        let reached = Reached::open(&policy, args.copy.as_deref(), &run).await?;
        let added = keys::add(&reached.places, &password, Cost::DEFAULT, &run).await?;
        let mut told = Told { text: done_text("added key", added.new, &added.done), ..Told::default() };
        let lacking = reached.lacking(&added.failed);
        if !lacking.is_empty() {
            told.text.push_str(&format!("`bkp copy {}` brings it to {}\n", policy.name, human::quoted(&lacking)));
        }
        let mut json = json!({ "key": added.new.to_string() });
        let exit = reached.tell(&mut told, &mut json);
        let exit = exit.max(tell_failed(&mut told, &mut json, &added.done, &added.failed, &run));
        json["exit"] = exit.code().into();
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

fn new_password(new: &NewPassword) -> Result<Secret, Failure> {
    match (&new.new_password_file, &new.new_password_command) {
        (Some(file), _) => Ok(SecretSource::File(file.clone()).read()?),
        (None, Some(command)) => ask::steady("new password", command),
        (None, None) => ask::new_secret("password", "--new-password-file FILE"),
    }
}

fn remove(global: &Global, args: &KeyArgs, id: &str, dry_run: bool, asks: bool) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    wait(global, |run| async move {
        let reached = Reached::open(&policy, args.copy.as_deref(), &run).await?;
        let mut listed = Vec::new();
        for place in reached.places.all() {
            listed.push(PlaceKeys::of(place).await?);
        }
        let removal = Removal::plan(id, &listed)?;
        if let Some(copy) = &args.copy {
            refuse_in_vain(&policy, copy, removal.id, &run).await?;
        }
        let mut told = Told { text: plan_text(&removal, &policy), ..Told::default() };
        let mut json = json!({ "dry_run": dry_run, "key": removal.id.to_string(), "places": removal.places });
        let mut exit = reached.tell(&mut told, &mut json);
        if !dry_run {
            if asks {
                told.text.lines().for_each(|line| run.events.note(line));
                ask::consent("remove key", "Remove it?".to_owned(), &run).await?;
            }
            let removed = removal.apply(&reached.places, &run).await;
            told.text = done_text("removed key", removal.id, &removed.done);
            exit = exit.max(tell_failed(&mut told, &mut json, &removed.done, &removed.failed, &run));
        }
        json["exit"] = exit.code().into();
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

/// Refuses to take from a copy alone what the repository would give it again.
async fn refuse_in_vain(policy: &Policy, copy: &str, id: ObjectId, run: &Run) -> Result<(), Failure> {
    let repository = match open(policy, None, run).await {
        Ok(repository) => repository,
        Err(error) => {
            run.events.warn(format!("if the repository has this key too, the next `bkp copy` brings it back: {error}"));
            return Ok(());
        }
    };
    let listed = PlaceKeys::of(&repository).await?;
    if listed.ids().any(|listed| listed == id) {
        return Err(KeysError::Listed { id, copy: copy.to_owned() }.into());
    }
    Ok(())
}

fn plan_text(removal: &Removal, policy: &Policy) -> String {
    let made = removal.record.as_ref().map_or("it cannot be read".to_owned(), |record| {
        let created = human::time(record.created, policy.timezone);
        human::printable(&format!("made by {} on {} at {created}", record.user, record.host))
    });
    format!("remove key {} ({made}) from {}\n", removal.id.short(), removal.places.join(", "))
}

fn passwd(global: &Global, policy: &PolicyArg, new: &NewPassword) -> Answered {
    let policy = policies::one(global, &policy.policy)?;
    let password = new_password(new)?;
    wait(global, |run| async move {
        let old = place::password(&policy)?;
        let reached = Reached::open(&policy, None, &run).await?;
        let changed = keys::change(&reached.places, &old, &password, Cost::DEFAULT, &run).await?;
        let mut told =
            Told { text: done_text("the password is now that of key", changed.new, &changed.done), ..Told::default() };
        let lacking = reached.lacking(&changed.lacking);
        told.text.push_str(&next_step(&policy, new, &lacking));
        let mut json = json!({ "key": changed.new.to_string(), "lacking": lacking });
        let exit = reached.tell(&mut told, &mut json);
        let failed: Vec<_> = changed.lacking.into_iter().chain(changed.failed).collect();
        let exit = exit.max(tell_failed(&mut told, &mut json, &changed.done, &failed, &run));
        json["exit"] = exit.code().into();
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

/// Says how the policy comes to read the new password: bkp writes no file that it did not make for that. `lacking`: the copies that
/// only the old one opens, and for which it must not be lost.
fn next_step(policy: &Policy, new: &NewPassword, lacking: &[String]) -> String {
    let mut text = String::new();
    if !lacking.is_empty() {
        let (copies, name) = (human::quoted(lacking), &policy.name);
        text.push_str(&format!("KEEP the old password: until `bkp copy {name}` nothing else opens {copies}\n"));
    }
    let now = match (&policy.repository.password, &new.new_password_file) {
        (SecretSource::File(old), Some(file)) => format!("run `{}`", install(file, old, !lacking.is_empty())),
        (SecretSource::File(old), None) => {
            format!("write the new password into `{}` (one line, mode 0600)", old.display())
        }
        (source, _) => format!("let {source} give the new password"),
    };
    text.push_str(&format!("NEXT: {now}; until then every run of this policy ends with exit code 12\n"));
    text
}

/// Returns the command that puts a file into the place of another, for the same owner; where the old one is kept, as `*.old`.
fn install(new: &Path, old: &Path, keeps: bool) -> String {
    let backup = if keeps { " -b -S .old" } else { "" };
    let owner = std::fs::metadata(old).map(|old| format!(" -o {} -g {}", old.uid(), old.gid())).unwrap_or_default();
    let word = |path: &Path| human::shell_word(&path.display().to_string());
    format!("install{backup} -m 600{owner} {} {}", word(new), word(old))
}

fn done_text(what: &str, id: ObjectId, places: &[String]) -> String {
    if places.is_empty() { String::new() } else { format!("{what} {}: {}\n", id.short(), places.join(", ")) }
}

/// Notes what could not be done. Beside what was done it is a part that is left out, and protected where the store's lock holds it;
/// after a signal it is what the signal broke off, whatever the store says.
fn tell_failed(told: &mut Told, json: &mut Value, done: &[String], failed: &[(String, KeysError)], run: &Run) -> Exit {
    let mut exit = Exit::Ok;
    for (name, error) in failed {
        let mut failure = Failure::from(error);
        if run.cancel.is_cancelled() {
            failure.exit = Exit::Interrupted;
        } else if !done.is_empty() && failure.exit != Exit::Protected {
            failure.exit = Exit::Incomplete;
        }
        exit = exit.max(failure.exit);
        told.fail(&format!("{name}: "), &failure);
    }
    let left: Vec<&String> = failed.iter().map(|(name, _)| name).collect();
    json["done"] = json!(done);
    json["failed"] = json!(left);
    exit
}

/// The repository and the copies that could be opened, and why the others could not.
struct Reached {
    places: Places,
    unreachable: Vec<(String, Failure)>,
}

impl Reached {
    /// Opens the copy that is named, or the repository and all copies. The repository must open; what is no repository yet is no copy.
    async fn open(policy: &Policy, copy: Option<&str>, run: &Run) -> Result<Self, Failure> {
        let first = open(policy, copy, run).await?;
        let mut reached = Self { places: Places { first, copies: Vec::new() }, unreachable: Vec::new() };
        if copy.is_some() {
            return Ok(reached);
        }
        for copy in &policy.copies {
            match Opened::copy(policy, &copy.name, run).await {
                Ok(opened) => reached.places.copies.push(opened),
                Err(PlaceError::Repository(RepositoryError::NoRepository { .. })) => {}
                Err(error) => reached.unreachable.push((copy.name.clone(), error.into())),
            }
            run.check()?;
        }
        Ok(reached)
    }

    /// Names the copies that a new key did not reach.
    fn lacking(&self, failed: &[(String, KeysError)]) -> Vec<String> {
        let failed = failed.iter().map(|(name, _)| name);
        self.unreachable.iter().map(|(name, _)| name).chain(failed).cloned().collect()
    }

    /// Notes the copies that nobody could look into: what is removed elsewhere may go on to open them.
    fn tell(&self, told: &mut Told, json: &mut Value) -> Exit {
        let mut exit = Exit::Ok;
        for (name, failure) in &self.unreachable {
            exit = exit.max(Exit::Incomplete);
            told.fail(&format!("{name}: "), failure);
        }
        json["unreachable"] = json!(self.unreachable.iter().map(|(name, _)| name).collect::<Vec<_>>());
        exit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    fn told(done: &[&str], error: StoreError, run: &Run) -> Exit {
        let done: Vec<String> = done.iter().map(|&name| name.to_owned()).collect();
        let failed = [("offsite".to_owned(), KeysError::Repository(error.into()))];
        let (mut told, mut json) = (Told::default(), json!({}));
        let exit = tell_failed(&mut told, &mut json, &done, &failed, run);
        assert!(told.errors.starts_with("error: offsite: delete `keys/ab`"), "{}", told.errors);
        assert_eq!(json["failed"], json!(["offsite"]));
        exit
    }

    #[test]
    fn a_key_that_a_stores_lock_holds_is_protected_and_any_other_is_left_out_beside_what_was_done() {
        let thing = || "keys/ab".to_owned();
        let protected = || StoreError::Protected { act: "delete", thing: thing(), until: None };
        let broken = || StoreError::Failed { act: "delete", thing: thing(), reason: "gone".to_owned() };
        let run = Run::silent();
        assert_eq!(told(&["repository"], protected(), &run), Exit::Protected);
        assert_eq!(told(&["repository"], broken(), &run), Exit::Incomplete);
        assert_eq!(told(&[], broken(), &run), Exit::Failed);
        run.cancel.cancel();
        assert_eq!(told(&["repository"], broken(), &run), Exit::Interrupted);
    }
}
