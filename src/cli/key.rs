//! The commands on passwords: list, add, remove, passwd.

use serde_json::{Value, json};

use crate::catalog::REPOSITORY;
use crate::cli::args::{Global, KeyArgs, KeyCommand, NewPassword};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::render::Told;
use crate::cli::table::Times;
use crate::cli::{ask, ink, policies, table};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::id::ObjectId;
use crate::keys;
use crate::keys::{KeysError, Opened, PlaceKeys, Removal};
use crate::place::{self, PlaceError};
use crate::policy::Policy;
use crate::repository::RepositoryError;
use crate::repository::key::Cost;
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
        KeyCommand::Passwd { args, new } => passwd(global, args, new),
    }
}

fn list(global: &Global, args: &KeyArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    wait(global, |run| async move {
        let repository = place::repository_in(&policy, args.copy.as_deref(), &run).await?;
        let name = args.copy.clone().unwrap_or_else(|| REPOSITORY.to_owned());
        let keys = PlaceKeys::of(&Opened { name, repository }).await?;
        let (mut told, mut exit) = (Told::default(), Exit::Ok);
        told.text = table::keys(&keys, Times { zone: policy.timezone, now: run.now() }, ink());
        for fault in &keys.list.damaged {
            exit = exit.max(Exit::Damaged);
            told.fail("", &Failure::from(&fault.error));
        }
        let json = json!({ "keys": keys_json(&keys), "exit": exit.code() });
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
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

fn add(global: &Global, args: &KeyArgs, new: &NewPassword) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let password = new_password(new)?;
    wait(global, |run| async move {
        let repository = place::repository_in(&policy, args.copy.as_deref(), &run).await?;
        let id = keys::add(&repository, &password, Cost::DEFAULT, &run).await?;
        let mut text = format!("added key {}\n", id.short());
        if args.copy.is_none() && !policy.copies.is_empty() {
            text.push_str("the copies get it with the next `bkp copy`\n");
        }
        Ok(Answer::new(text, json!({ "key": id.to_string() })))
    })
}

fn new_password(new: &NewPassword) -> Result<Secret, Failure> {
    match (&new.new_password_file, &new.new_password_command) {
        (Some(file), _) => Ok(SecretSource::File(file.clone()).read()?),
        (None, Some(command)) => Ok(SecretSource::Command(command.clone()).read()?),
        (None, None) => ask::new_secret("password", "--new-password-file FILE"),
    }
}

fn remove(global: &Global, args: &KeyArgs, id: &str, dry_run: bool, asks: bool) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    wait(global, |run| async move {
        let places = Places::open(&policy, args.copy.as_deref(), &run).await?;
        let mut listed = Vec::new();
        for place in &places.opened {
            listed.push(PlaceKeys::of(place).await?);
        }
        let removal = Removal::plan(id, &listed)?;
        let mut told = Told { text: plan_text(&removal, &policy), ..Told::default() };
        let mut json = json!({ "dry_run": dry_run, "key": removal.id.to_string(), "places": removal.places });
        let mut exit = places.tell(&mut told, &mut json);
        if !dry_run {
            if asks {
                told.text.lines().for_each(|line| run.events.note(line));
                ask::consent("remove key", "Remove it?".to_owned(), &run).await?;
            }
            let removed = removal.apply(&places.opened, &run).await;
            told.text = done_text("removed key", removal.id, &removed.done);
            exit = exit.max(tell_failed(&mut told, &mut json, &removed.done, &removed.failed));
        }
        json["exit"] = exit.code().into();
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

fn plan_text(removal: &Removal, policy: &Policy) -> String {
    let made = removal.record.as_ref().map_or("it cannot be read".to_owned(), |record| {
        let created = human::time(record.created, policy.timezone);
        human::printable(&format!("made by {} on {} at {created}", record.user, record.host))
    });
    format!("remove key {} ({made}) from {}\n", removal.id.short(), removal.places.join(", "))
}

fn passwd(global: &Global, args: &KeyArgs, new: &NewPassword) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let password = new_password(new)?;
    wait(global, |run| async move {
        let places = Places::open(&policy, args.copy.as_deref(), &run).await?;
        let changed = keys::change(&places.opened, &password, Cost::DEFAULT, &run).await?;
        let mut told =
            Told { text: done_text("the password is now that of key", changed.new, &changed.done), ..Told::default() };
        told.text.push_str(&next_step(&policy, new));
        let mut json = json!({ "key": changed.new.to_string() });
        let exit = places.tell(&mut told, &mut json);
        let exit = exit.max(tell_failed(&mut told, &mut json, &changed.done, &changed.failed));
        json["exit"] = exit.code().into();
        Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
    })
}

/// Says how the policy comes to read the new password: bkp writes no file that it did not make for that.
fn next_step(policy: &Policy, new: &NewPassword) -> String {
    let now = match (&policy.repository.password, &new.new_password_file) {
        (SecretSource::File(old), Some(file)) => format!("run `install -m 600 {} {}`", file.display(), old.display()),
        (SecretSource::File(old), None) => {
            format!("write the new password into `{}` (one line, mode 0600)", old.display())
        }
        (source, _) => format!("let {source} give the new password"),
    };
    format!("NEXT: {now}; until then every run of this policy ends with exit code 12\n")
}

fn done_text(what: &str, id: ObjectId, places: &[String]) -> String {
    if places.is_empty() { String::new() } else { format!("{what} {}: {}\n", id.short(), places.join(", ")) }
}

/// Notes what could not be done. Beside what was done it is a part that is left out, and protected where the store's lock holds it.
fn tell_failed(told: &mut Told, json: &mut Value, done: &[String], failed: &[(String, KeysError)]) -> Exit {
    let mut exit = Exit::Ok;
    for (name, error) in failed {
        let mut failure = Failure::from(error);
        if !done.is_empty() && failure.exit != Exit::Protected {
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
struct Places {
    opened: Vec<Opened>,
    unreachable: Vec<(String, Failure)>,
}

impl Places {
    /// Opens the copy that is named, or the repository and all copies. The repository must open; what is no repository yet is no copy.
    async fn open(policy: &Policy, copy: Option<&str>, run: &Run) -> Result<Self, Failure> {
        let name = copy.unwrap_or(REPOSITORY).to_owned();
        let repository = place::repository_in(policy, copy, run).await?;
        let mut places = Self { opened: vec![Opened { name, repository }], unreachable: Vec::new() };
        if copy.is_some() {
            return Ok(places);
        }
        for copy in &policy.copies {
            let name = copy.name.clone();
            match place::repository_in(policy, Some(&name), run).await {
                Ok(repository) => places.opened.push(Opened { name, repository }),
                Err(PlaceError::Repository(RepositoryError::NoRepository { .. })) => {}
                Err(error) => places.unreachable.push((name, error.into())),
            }
            run.check()?;
        }
        Ok(places)
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

    fn told(done: &[&str], error: StoreError) -> Exit {
        let done: Vec<String> = done.iter().map(|&name| name.to_owned()).collect();
        let failed = [("offsite".to_owned(), KeysError::Repository(error.into()))];
        let (mut told, mut json) = (Told::default(), json!({}));
        let exit = tell_failed(&mut told, &mut json, &done, &failed);
        assert!(told.errors.starts_with("error: offsite: delete `keys/ab`"), "{}", told.errors);
        assert_eq!(json["failed"], json!(["offsite"]));
        exit
    }

    #[test]
    fn a_key_that_a_stores_lock_holds_is_protected_and_any_other_is_left_out_beside_what_was_done() {
        let thing = || "keys/ab".to_owned();
        let protected = || StoreError::Protected { act: "delete", thing: thing(), until: None };
        let broken = || StoreError::Failed { act: "delete", thing: thing(), reason: "gone".to_owned() };
        assert_eq!(told(&["repository"], protected()), Exit::Protected);
        assert_eq!(told(&["repository"], broken()), Exit::Incomplete);
        assert_eq!(told(&[], broken()), Exit::Failed);
    }
}
