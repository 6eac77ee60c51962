//! The verb that makes a kit: everything is gathered first, and then written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::id::ObjectId;
use crate::kit::elf::Binary;
use crate::kit::facts::{Facts, ca_file, key_file, policy_file};
use crate::kit::folder::Folder;
use crate::kit::runbook::runbook;
use crate::kit::{FORMAT, Kit, KitError, KitPolicy, PROGRAM, RUNBOOK, STAMP, Stamp, io_error, judge, program};
use crate::place;
use crate::policy::{CopyTarget, Policy};
use crate::repository::Repository;
use crate::repository::key::Cost;
use crate::run::Run;
use crate::secret::Secret;

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
        remember(&part.facts.policy, &kit, dir)?;
    }
    Ok(told(kit, parts))
}

fn told(kit: Kit, parts: Vec<Part>) -> Exported {
    let mut exported = Exported { kit, without_key: Vec::new(), old_keys: Vec::new() };
    for part in parts {
        let name = part.facts.policy.name;
        exported.old_keys.extend(part.old_key.map(|id| (name.clone(), id)));
        let without = part.without_key.into_iter().map(|(copy, why)| (name.clone(), copy, why));
        exported.without_key.extend(without);
    }
    exported
}

/// Refuses to make a kit of some policies out of one of more.
fn refuse_to_drop(policies: &[Policy], folder: &Folder, dir: &Path) -> Result<(), KitError> {
    let older = folder.older.iter().flat_map(|kit| &kit.policies).map(|policy| policy.name.clone());
    let names: Vec<String> = older.filter(|name| policies.iter().all(|policy| policy.name != *name)).collect();
    if names.is_empty() { Ok(()) } else { Err(KitError::Fewer { dir: dir.to_owned(), names }) }
}

/// Finds the program and reads what it needs.
fn binary(given: Option<&Path>) -> Result<(PathBuf, Binary), KitError> {
    // The very file that runs, also where another was installed over it.
    let path = given.unwrap_or(Path::new("/proc/self/exe")).to_owned();
    let bytes = std::fs::read(&path).map_err(io_error("read the program", &path))?;
    let binary = Binary::of(&bytes).map_err(|reason| KitError::Binary { path: path.clone(), reason })?;
    Ok((path, binary))
}

async fn part(policy: &Policy, folder: &Folder, options: &Options, run: &Run) -> Result<Part, KitError> {
    let repository = place::repository(policy, run).await?;
    let mut facts = Facts::gather(policy, &repository, run).await?;
    let text = std::fs::read(&policy.file).map_err(io_error("read", &policy.file))?;
    let (key_file, old_key) = key(policy, &repository, folder, &options.passphrase, run).await?;
    facts.key = ObjectId::of(&key_file).to_string();
    let mut without_key = Vec::new();
    if !options.apart {
        put_key(&repository, &key_file, &options.passphrase, run).await?;
        for copy in &mut facts.copies {
            match put_key_into(policy, &copy.name, &key_file, &options.passphrase, run).await {
                Ok(()) => copy.has_key = true,
                Err(error) => without_key.push((copy.name.clone(), crate::human::chain(&error))),
            }
        }
    }
    Ok(Part { authorities: authorities(&facts)?, facts, text, key_file, without_key, old_key })
}

/// Takes the key file of the older kit if the passphrase opens it, so that a kit that is made each month leaves one key and not
/// twelve; else seals a new one, and names the older kit's.
async fn key(
    policy: &Policy,
    repository: &Repository,
    folder: &Folder,
    passphrase: &Secret,
    run: &Run,
) -> Result<(Bytes, Option<ObjectId>), KitError> {
    let older = folder.older_file(&key_file(&policy.name)).map(Bytes::from);
    if let Some(file) = &older
        // One that is damaged is as good as none.
        && repository.is_opened_by(file, passphrase).await.unwrap_or(false)
    {
        return Ok((file.clone(), None));
    }
    let listed = repository.keys().await?.found;
    let old = older.map(|file| ObjectId::of(&file)).filter(|id| listed.iter().any(|record| record.id == *id));
    Ok((repository.seal_key(passphrase, Cost::STRONG, run).await?, old))
}

async fn put_key(repository: &Arc<Repository>, file: &Bytes, passphrase: &Secret, run: &Run) -> Result<(), KitError> {
    let lock = place::lock_to_read(repository, run).await?;
    let put = repository.put_key(file, passphrase).await;
    place::unlock(lock, run).await;
    Ok(put.map(drop)?)
}

async fn put_key_into(
    policy: &Policy,
    copy: &str,
    file: &Bytes,
    passphrase: &Secret,
    run: &Run,
) -> Result<(), KitError> {
    let repository = place::repository_in(policy, Some(copy), run).await?;
    Ok(repository.put_key(file, passphrase).await.map(drop)?)
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
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(&policy.state_dir)?;
        std::io::Write::write_all(&mut file, &json)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    std::fs::create_dir_all(&policy.state_dir).and_then(|()| write()).map_err(io_error("write", &path))
}
