//! The stores that a policy names, opened: the repository on this machine and its copies.

mod others;

pub use crate::place::others::{Named, Opened, Others, prove_same, repository_beside};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::{Access, CopyPlace, CopyTarget, Policy, S3Place};
use crate::repository::{LockGuard, LockMode, Repository, RepositoryError};
use crate::run::Run;
use crate::secret::{Secret, SecretError, SecretSource};
use crate::store::cache::{self, Cache};
use crate::store::limit::Limit;
use crate::store::local::LocalStore;
use crate::store::retry::{Backoff, Retry};
use crate::store::s3::{Line, S3Credentials, S3Store};
use crate::store::{Key, SharedStore, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("read the repository's password")]
    Password(#[source] SecretError),
    #[error("read the credentials of copy `{copy}`")]
    Credentials {
        copy: String,
        #[source]
        error: SecretError,
    },
    #[error("read the key file `{}`: {error}", path.display())]
    KeyFile { path: PathBuf, error: std::io::Error },
    #[error("the policy names no copy `{0}`")]
    NoCopy(String),
    #[error("open copy `{copy}`")]
    Copy {
        copy: String,
        #[source]
        error: StoreError,
    },
    #[error("open copy `{0}`: the policy's credentials for it may only write")]
    WriteOnly(String),
    #[error("open copy `{copy}`: there is no directory `{}`", path.display())]
    NoDir { copy: String, path: PathBuf },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl PlaceError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Password(error) if error.is_missing() => Some(
                "bring the key back from its copy; `bkp init` makes one only where there is no repository yet"
                    .to_owned(),
            ),
            Self::Password(error) | Self::Credentials { error, .. } => error.hint(),
            Self::NoCopy(_) => Some("the names are those of the policy's [[copy]] tables".to_owned()),
            Self::Copy { error, .. } => error.hint(),
            Self::WriteOnly(_) => Some(
                "add [copy.s3.reader] with a key that has s3:GetObject and s3:ListBucket (to forget and prune s3:PutObject and s3:DeleteObject as well)"
                    .to_owned(),
            ),
            Self::NoDir { path, .. } => {
                Some(format!("mount its disk, or make the directory once: `mkdir {}`", path.display()))
            }
            Self::KeyFile { .. } => Some("`bkp kit check DIR` says what else of the kit is missing".to_owned()),
            Self::Repository(error) => error.hint(),
        }
    }
}

impl PlaceError {
    /// Tells whether the network policy refused the way.
    #[must_use]
    pub fn is_network_refused(&self) -> bool {
        matches!(self, Self::Copy { error: StoreError::Refused { .. }, .. })
    }
}

/// Reads the password that opens the repository and its copies.
///
/// # Errors
/// [`PlaceError::Password`].
pub fn password(policy: &Policy) -> Result<Secret, PlaceError> {
    policy.repository.password.read().map_err(PlaceError::Password)
}

/// Returns the store of the repository on this machine.
#[must_use]
pub fn store(policy: &Policy) -> SharedStore {
    Arc::new(LocalStore::new(&policy.repository.path))
}

/// Opens the repository on this machine.
///
/// # Errors
/// [`PlaceError`] where the password cannot be read, or is wrong, or there is no repository.
pub async fn repository(policy: &Policy, run: &Run) -> Result<Arc<Repository>, PlaceError> {
    open(policy, store(policy), run).await
}

async fn open(policy: &Policy, store: SharedStore, run: &Run) -> Result<Arc<Repository>, PlaceError> {
    let password = match password(policy) {
        // Where there is neither key nor repository, nothing is lost: `bkp init` makes both.
        Err(PlaceError::Password(error)) if error.is_missing() && !is_there(&store).await? => {
            return Err(RepositoryError::NoRepository { place: store.location() }.into());
        }
        password => password?,
    };
    let Some(kit) = &policy.repository.from_kit else {
        return Ok(Repository::open(store, &password, run).await?);
    };
    let path = kit.key_file.clone();
    let key_file = std::fs::read(&path).map_err(|error| PlaceError::KeyFile { path, error })?;
    Ok(Repository::open_with_key_file(store, key_file.into(), &password, run).await?)
}

async fn is_there(store: &SharedStore) -> Result<bool, RepositoryError> {
    Ok(store.size(&Key::config()).await?.is_some())
}

/// Names the copy that is meant: the one that is asked for, or with a recovery kit the one that stands for the repository.
#[must_use]
pub fn copy_meant<'a>(policy: &'a Policy, asked: Option<&'a str>) -> Option<&'a str> {
    asked.or(policy.repository.from_kit.as_ref().map(|kit| kit.copy.as_str()))
}

/// Opens the repository on this machine, or the copy of that name. With a recovery kit a copy stands for the repository. Of a copy in
/// an object store, index files, snapshots and trees are kept below `state_dir` once they were read.
///
/// # Errors
/// [`PlaceError`].
pub async fn repository_in(policy: &Policy, copy: Option<&str>, run: &Run) -> Result<Arc<Repository>, PlaceError> {
    let repository = repository_to_prove(policy, copy, run).await?;
    if let Some(dir) = copy.map(|name| find_copy(policy, name)).transpose()?.and_then(|copy| cache_dir(policy, copy)) {
        let store = Arc::clone(repository.store());
        repository.read_through(Cache::new(store, dir, cache::BYTES_MAX, run.events.clone()));
    }
    Ok(repository)
}

/// Like [`repository_in`], but for who is to prove the store or to delete from it: all that is read comes from the store itself.
///
/// # Errors
/// [`PlaceError`].
pub async fn repository_to_prove(
    policy: &Policy,
    copy: Option<&str>,
    run: &Run,
) -> Result<Arc<Repository>, PlaceError> {
    let Some(name) = copy_meant(policy, copy) else { return repository(policy, run).await };
    let store = copy_store(policy, find_copy(policy, name)?, run).await?;
    open(policy, store, run).await
}

/// Returns where what was read of a copy is kept. A copy in a directory is as near as a cache would be, and a machine that recovers
/// with a kit reads everything once.
fn cache_dir(policy: &Policy, copy: &CopyPlace) -> Option<PathBuf> {
    let is_far = matches!(copy.place, CopyTarget::S3(_)) && policy.repository.from_kit.is_none();
    is_far.then(|| policy.state_dir.join("cache").join(&copy.name))
}

/// Finds a copy of a policy by its name.
///
/// # Errors
/// [`PlaceError::NoCopy`].
pub fn find_copy<'a>(policy: &'a Policy, name: &str) -> Result<&'a CopyPlace, PlaceError> {
    let found = policy.copies.iter().find(|copy| copy.name == name);
    found.ok_or_else(|| PlaceError::NoCopy(name.to_owned()))
}

/// Returns the store of a copy, to read it and to delete from it: never faster than the policy allows, and tried again where that
/// may help. A try pays for its bytes as any other, and a wait between two tries keeps nobody else waiting.
///
/// # Errors
/// [`PlaceError`] where its credentials cannot be read or may only write, the network policy refuses it, or a copy's directory is not
/// there.
pub async fn copy_store(policy: &Policy, copy: &CopyPlace, run: &Run) -> Result<SharedStore, PlaceError> {
    match &copy.place {
        CopyTarget::Dir(path) => dir(copy, path),
        CopyTarget::S3(place) => Ok(patient(copy, s3_reader(policy, copy, place, run).await?, run)),
    }
}

/// Returns the store of a copy, to copy to it: with credentials that may only write, nothing else succeeds.
///
/// # Errors
/// As [`copy_store`].
pub async fn copy_target(policy: &Policy, copy: &CopyPlace, run: &Run) -> Result<SharedStore, PlaceError> {
    match &copy.place {
        CopyTarget::Dir(path) => dir(copy, path),
        CopyTarget::S3(place) => Ok(patient(copy, s3_writer(policy, copy, place, run).await?, run)),
    }
}

/// Opens a bucket with the credentials that copies use; bare, without tries and limits.
///
/// # Errors
/// As [`copy_store`].
pub async fn s3_writer(policy: &Policy, copy: &CopyPlace, place: &S3Place, run: &Run) -> Result<S3Store, PlaceError> {
    open_s3(policy, copy, place, credentials(copy, place)?, run).await
}

/// Opens a bucket with the reader's credentials, where the policy names some; bare, without tries and limits.
///
/// # Errors
/// As [`copy_store`].
pub async fn s3_reader(policy: &Policy, copy: &CopyPlace, place: &S3Place, run: &Run) -> Result<S3Store, PlaceError> {
    let Some(reader) = &place.reader else {
        if copy.is_write_only() {
            return Err(PlaceError::WriteOnly(copy.name.clone()));
        }
        return s3_writer(policy, copy, place, run).await;
    };
    let credentials = key(copy, &reader.access_key_id, &reader.secret_access_key)?;
    // Whoever reads may look before he lengthens or deletes.
    let place = S3Place { access: Access::Full, ..place.clone() };
    open_s3(policy, copy, &place, Some(credentials), run).await
}

async fn open_s3(
    policy: &Policy,
    copy: &CopyPlace,
    place: &S3Place,
    credentials: Option<S3Credentials>,
    run: &Run,
) -> Result<S3Store, PlaceError> {
    let opened = S3Store::open(place, credentials, &policy.network, Line::new(copy.bandwidth), run).await;
    opened.map_err(|error| PlaceError::Copy { copy: copy.name.clone(), error })
}

/// The bytes are paced on the wire, so the limit here is one on operations only.
fn patient(copy: &CopyPlace, s3: S3Store, run: &Run) -> SharedStore {
    let limited = Arc::new(Limit::new(Arc::new(s3), None, copy.uploads));
    Arc::new(Retry::new(limited, Backoff::default(), run.cancel.clone()))
}

/// Never made by us: where the disk of a copy is not mounted, bytes would fill the one below.
fn dir(copy: &CopyPlace, path: &Path) -> Result<SharedStore, PlaceError> {
    if path.is_dir() {
        return Ok(Arc::new(Limit::new(Arc::new(LocalStore::within(path)), copy.bandwidth, copy.uploads)));
    }
    Err(PlaceError::NoDir { copy: copy.name.clone(), path: path.to_owned() })
}

/// Takes a shared lock to read under, so that nothing is pruned meanwhile. Where the store cannot take one (credentials that may
/// only read, a full or a read-only disk) it warns and goes on: reading needs no more.
///
/// # Errors
/// [`RepositoryError::Locked`] while another works alone on the repository, [`RepositoryError::Stopped`] after a signal.
pub async fn lock_to_read(repository: &Repository, run: &Run) -> Result<Option<LockGuard>, RepositoryError> {
    lock_to_read_within(repository, LOCK_WAIT, run).await
}

/// As [`lock_to_read`], and waits so long for who works alone on the repository.
///
/// # Errors
/// Those of [`lock_to_read`].
pub async fn lock_to_read_within(
    repository: &Repository,
    wait: Duration,
    run: &Run,
) -> Result<Option<LockGuard>, RepositoryError> {
    match repository.lock(LockMode::Shared, wait, run).await {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ (RepositoryError::Locked { .. } | RepositoryError::Stopped(_))) => Err(error),
        Err(error) => {
            run.events.warn(format!("reading without a lock: {error}; let nobody prune this repository meanwhile"));
            Ok(None)
        }
    }
}

/// A forget holds its exclusive lock for seconds: long enough to wait for one. A prune may take longer, and is not waited for.
const LOCK_WAIT: Duration = Duration::from_mins(1);

/// Gives a lock back. One that stays goes stale by itself, and what was done under it is done: a warning says enough.
pub async fn unlock(lock: impl Into<Option<LockGuard>>, run: &Run) {
    let Some(lock) = lock.into() else { return };
    if let Err(error) = lock.release().await {
        run.events.warn(format!("the repository's lock stays until it is stale: {error}"));
    }
}

/// Reads the credentials that the policy names; `None` leaves them to the SDK's own chain.
fn credentials(copy: &CopyPlace, place: &S3Place) -> Result<Option<S3Credentials>, PlaceError> {
    let (Some(id), Some(secret)) = (&place.access_key_id, &place.secret_access_key) else { return Ok(None) };
    key(copy, id, secret).map(Some)
}

fn key(copy: &CopyPlace, id: &str, secret: &SecretSource) -> Result<S3Credentials, PlaceError> {
    let refusal = |error| PlaceError::Credentials { copy: copy.name.clone(), error };
    let secret_access_key = secret.read().map_err(refusal)?;
    Ok(S3Credentials { access_key_id: id.to_owned(), secret_access_key })
}
