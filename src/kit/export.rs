//! The verb that makes a kit: everything is gathered first, and then written.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog::REPOSITORY;
use crate::id::ObjectId;
use crate::keys::{self, Opened};
use crate::kit::elf::Binary;
use crate::kit::facts::{Facts, KeyThere, ca_file, key_file, policy_file};
use crate::kit::folder::{Folder, write_beside};
use crate::kit::runbook::runbook;
use crate::kit::{FORMAT, Kit, KitError, KitPolicy, PROGRAM, RUNBOOK, RUNNING, STAMP, Stamp, io_error, judge, program};
use crate::place::{self, PlaceError};
use crate::policy::{CopyTarget, Policy};
use crate::repository::key::Cost;
use crate::repository::{Repository, RepositoryError};
use crate::run::Run;
use crate::secret::Secret;
use crate::store::StoreError;

#[derive(Debug)]
pub struct Options {
    pub passphrase: Secret,
    /// The program to put into the kit; `None`: this one.
    pub binary: Option<PathBuf>,
    /// Leave the kit's key out of the repository and its copies.
    pub apart: bool,
}

/// What was exported, and what a person should know of it.
#[derive(Debug)]
pub struct Exported {
    pub kit: Kit,
    /// Copies that could not be given the kit's key: policy, copy and why.
    pub without_key: Vec<(String, String, String)>,
    /// Copies into which the credentials of this machine may not look: policy and copy.
    pub unseen: Vec<(String, String)>,
    /// Keys of older kits that still open a repository: policy and key.
    pub old_keys: Vec<(String, ObjectId)>,
}

/// One policy's part of a kit, in memory.
struct Part {
    facts: Facts,
    text: Vec<u8>,
    key_file: Bytes,
    /// Names and bytes of certificates.
    authorities: Vec<(String, Vec<u8>)>,
    without_key: Vec<(String, String)>,
    old_key: Option<ObjectId>,
}

/// Makes a kit of some policies in a directory, or brings an older one up to date.
///
/// # Errors
/// [`KitError`]. What is in the directory is then the older kit, or a mixture that [`super::check`] refuses.
pub async fn export(policies: &[Policy], dir: &Path, options: &Options, run: &Run) -> Result<Exported, KitError> {
    judge(&options.passphrase)?;
    let (source, binary) = binary(options.binary.as_deref())?;
    let given = match &options.binary {
        Some(_) => Some(answer_of(&source).await?),
        None => None,
    };
    let mut folder = Folder::open(dir)?;
    refuse_to_drop(policies, &folder, dir)?;
    let mut parts = Vec::new();
    for policy in policies {
        parts.push(part(policy, &folder, options, run).await?);
    }
    let mut kit = Kit {
        format: FORMAT,
        program: program(),
        created: run.now(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        binary,
        given,
        policies: parts.iter().map(|part| listed(&part.facts)).collect(),
        files: std::collections::BTreeMap::new(),
    };
    folder.put_program(PROGRAM, &source)?;
    for part in &parts {
        let name = &part.facts.policy.name;
        folder.put(&policy_file(name), &part.text)?;
        folder.put(&key_file(name), &part.key_file)?;
        for (name, bytes) in &part.authorities {
            folder.put(name, bytes)?;
        }
    }
    let facts: Vec<&Facts> = parts.iter().map(|part| &part.facts).collect();
    folder.put(RUNBOOK, runbook(&kit, &facts).as_bytes())?;
    kit.files.clone_from(&folder.sums);
    folder.finish(&kit)?;
    for part in &parts {
        if let Err(error) = remember(&part.facts.policy, &kit, dir) {
            run.events.warn(format!("`bkp doctor` will not know of this kit: {error}"));
        }
    }
    Ok(told(kit, parts))
}

fn told(kit: Kit, parts: Vec<Part>) -> Exported {
    let mut exported = Exported { kit, without_key: Vec::new(), unseen: Vec::new(), old_keys: Vec::new() };
    for part in parts {
        let name = part.facts.policy.name.clone();
        exported.old_keys.extend(part.old_key.map(|id| (name.clone(), id)));
        let without = part.without_key.into_iter().map(|(copy, why)| (name.clone(), copy, why));
        exported.without_key.extend(without);
        let unseen = part.facts.copies.iter().filter(|copy| copy.key == KeyThere::Unknown);
        exported.unseen.extend(unseen.map(|copy| (name.clone(), copy.name.clone())));
    }
    exported
}

/// Refuses to make a kit of some policies out of one of more.
fn refuse_to_drop(policies: &[Policy], folder: &Folder, dir: &Path) -> Result<(), KitError> {
    let is_dropped = |name: &&String| policies.iter().all(|policy| policy.name != **name);
    let names: Vec<String> = folder.older_policies.iter().filter(is_dropped).cloned().collect();
    if names.is_empty() { Ok(()) } else { Err(KitError::Fewer { dir: dir.to_owned(), names }) }
}

/// Finds the program and reads what it needs.
fn binary(given: Option<&Path>) -> Result<(PathBuf, Binary), KitError> {
    let path = given.unwrap_or(Path::new(RUNNING));
    let path = std::path::absolute(path).map_err(io_error("find the program", path))?;
    let bytes = std::fs::read(&path).map_err(io_error("read the program", &path))?;
    let binary = Binary::of(&bytes).map_err(|reason| KitError::Binary { path: path.clone(), reason })?;
    Ok((path, binary))
}

/// Asks a program for its version; empty where it does not run on this machine, as one for another kind of it.
async fn answer_of(path: &Path) -> Result<String, KitError> {
    /// Far more than it takes to print a line.
    const ANSWER_WAIT: Duration = Duration::from_secs(20);
    let refused = |reason: String| KitError::Binary { path: path.to_owned(), reason };
    let mut command = tokio::process::Command::new(path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let ended = match tokio::time::timeout(ANSWER_WAIT, command.output()).await {
        Err(_) => return Err(refused("`--version` does not come to an end".to_owned())),
        Ok(Err(_)) => return Ok(String::new()),
        Ok(Ok(ended)) => ended,
    };
    let answer = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
    match answer.strip_prefix("bkp ") {
        Some(_) if ended.status.success() && !answer.contains('\n') => Ok(answer),
        _ => Err(refused(format!("it is no bkp: `--version` ends with {} and answers `{answer}`", ended.status))),
    }
}

async fn part(policy: &Policy, folder: &Folder, options: &Options, run: &Run) -> Result<Part, KitError> {
    let repository = place::repository(policy, run).await?;
    let mut facts = Facts::gather(policy, &repository, run).await?;
    let text = std::fs::read(&policy.file).map_err(io_error("read", &policy.file))?;
    let (key_file, old_key) = key(policy, &repository, folder, options, run).await?;
    facts.key = ObjectId::of(&key_file).to_string();
    let mut without_key = Vec::new();
    if !options.apart {
        let ours = Opened { name: REPOSITORY.to_owned(), repository, ledger: None };
        keys::put(&ours, &key_file, &options.passphrase, run).await?;
        for copy in &mut facts.copies {
            match put_key_into(policy, &copy.name, &key_file, &options.passphrase, run).await {
                Ok(()) => copy.key = KeyThere::Yes,
                Err(error) if is_denied(&error) => copy.key = KeyThere::Unknown,
                Err(error) => {
                    run.check().map_err(RepositoryError::from)?;
                    without_key.push((copy.name.clone(), crate::human::chain(&error)));
                }
            }
        }
    }
    Ok(Part { authorities: authorities(&facts)?, facts, text, key_file, without_key, old_key })
}

/// Takes the key file of the older kit if the passphrase opens it, so that a kit that is made each month leaves one key and not
/// twelve; else seals a new one, and names the older kit's. A kit apart takes none that is in the repository already.
async fn key(
    policy: &Policy,
    repository: &Repository,
    folder: &Folder,
    options: &Options,
    run: &Run,
) -> Result<(Bytes, Option<ObjectId>), KitError> {
    let older = folder.older_file(&key_file(&policy.name)).map(Bytes::from);
    let listed = repository.keys().await?.found;
    let old = older.as_ref().map(|file| ObjectId::of(file)).filter(|id| listed.iter().any(|record| record.id == *id));
    if let Some(file) = older
        && !(options.apart && old.is_some())
        // One that is damaged is as good as none.
        && repository.is_opened_by(&file, &options.passphrase).await.unwrap_or(false)
    {
        return Ok((file, None));
    }
    Ok((repository.seal_key(&options.passphrase, Cost::STRONG, run).await?, old))
}

async fn put_key_into(
    policy: &Policy,
    copy: &str,
    file: &Bytes,
    passphrase: &Secret,
    run: &Run,
) -> Result<(), KitError> {
    let copy = Opened::copy(policy, copy, run).await?;
    Ok(keys::put(&copy, file, passphrase, run).await.map(drop)?)
}

/// Tells whether a copy did not let us look: credentials that may only write are no fault, and the next copy brings the key there.
fn is_denied(error: &KitError) -> bool {
    matches!(
        error,
        KitError::Place(
            PlaceError::WriteOnly(_)
                | PlaceError::Copy { error: StoreError::Denied { .. }, .. }
                | PlaceError::Repository(RepositoryError::Store(StoreError::Denied { .. }))
        ) | KitError::Repository(RepositoryError::Store(StoreError::Denied { .. }))
    )
}

/// Reads the certificates of those who sign for the copies' servers.
fn authorities(facts: &Facts) -> Result<Vec<(String, Vec<u8>)>, KitError> {
    let mut authorities = Vec::new();
    for copy in &facts.copies {
        if let CopyTarget::S3(s3) = &copy.place
            && let Some(path) = &s3.ca_file
        {
            let bytes = std::fs::read(path).map_err(io_error("read", path))?;
            authorities.push((ca_file(&facts.policy.name, &copy.name), bytes));
        }
    }
    Ok(authorities)
}

fn listed(facts: &Facts) -> KitPolicy {
    KitPolicy {
        name: facts.policy.name.clone(),
        hash: facts.policy.hash.clone(),
        repository: facts.repository.clone(),
        key: facts.key.clone(),
        from: facts.from.clone(),
        copies: facts.copies.iter().map(|copy| (copy.name.clone(), copy.place.to_string())).collect(),
    }
}

/// Notes beside the policy's state that a kit was made: a change of the policy makes it stale.
fn remember(policy: &Policy, kit: &Kit, dir: &Path) -> Result<(), KitError> {
    let dir = std::path::absolute(dir).map_err(io_error("find", dir))?;
    let stamp = Stamp { created: kit.created, program: kit.program.clone(), policy_hash: policy.hash.clone(), dir };
    let path = policy.state_dir.join(STAMP);
    let json = serde_json::to_vec_pretty(&stamp)?;
    write_beside(&path, 0o600, &mut &*json).map(drop).map_err(io_error("write", &path))
}
