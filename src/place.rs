//! The stores that a policy names, opened: the repository on this machine and its copies.

use std::sync::Arc;

use crate::policy::{CopyPlace, CopyTarget, Policy, S3Place};
use crate::repository::{Repository, RepositoryError};
use crate::run::Run;
use crate::secret::{Secret, SecretError};
use crate::store::limit::Limit;
use crate::store::local::LocalStore;
use crate::store::retry::{Backoff, Retry};
use crate::store::s3::{S3Credentials, S3Store};
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
    #[error("the policy names no copy `{0}`")]
    NoCopy(String),
    #[error("open copy `{copy}`")]
    Copy {
        copy: String,
        #[source]
        error: StoreError,
    },
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
    Ok(Repository::open(store, &password, run).await?)
}

async fn is_there(store: &SharedStore) -> Result<bool, RepositoryError> {
    Ok(store.size(&Key::config()).await?.is_some())
}

/// Opens the repository on this machine, or the copy of that name.
///
/// # Errors
/// [`PlaceError`].
pub async fn repository_in(policy: &Policy, copy: Option<&str>, run: &Run) -> Result<Arc<Repository>, PlaceError> {
    let Some(name) = copy else { return repository(policy, run).await };
    let store = copy_store(policy, find_copy(policy, name)?, run).await?;
    open(policy, store, run).await
}

/// Finds a copy of a policy by its name.
///
/// # Errors
/// [`PlaceError::NoCopy`].
pub fn find_copy<'a>(policy: &'a Policy, name: &str) -> Result<&'a CopyPlace, PlaceError> {
    let found = policy.copies.iter().find(|copy| copy.name == name);
    found.ok_or_else(|| PlaceError::NoCopy(name.to_owned()))
}

/// Returns the store of a copy: tried again where that may help, and never faster than the policy allows.
///
/// # Errors
/// [`PlaceError`] where its credentials cannot be read or the network policy refuses it.
pub async fn copy_store(policy: &Policy, copy: &CopyPlace, run: &Run) -> Result<SharedStore, PlaceError> {
    let store: SharedStore = match &copy.place {
        CopyTarget::Dir(path) => Arc::new(LocalStore::new(path)),
        CopyTarget::S3(place) => {
            let credentials = credentials(copy, place)?;
            let opened = S3Store::open(place, credentials, &policy.network, run).await;
            let s3 = opened.map_err(|error| PlaceError::Copy { copy: copy.name.clone(), error })?;
            Arc::new(Retry::new(Arc::new(s3), Backoff::default(), run.cancel.clone()))
        }
    };
    Ok(Arc::new(Limit::new(store, copy.bandwidth, copy.uploads)))
}

/// Reads the credentials that the policy names; `None` leaves them to the SDK's own chain.
fn credentials(copy: &CopyPlace, place: &S3Place) -> Result<Option<S3Credentials>, PlaceError> {
    let (Some(id), Some(secret)) = (&place.access_key_id, &place.secret_access_key) else { return Ok(None) };
    let refusal = |error| PlaceError::Credentials { copy: copy.name.clone(), error };
    let secret_access_key = secret.read().map_err(refusal)?;
    Ok(Some(S3Credentials { access_key_id: id.clone(), secret_access_key }))
}
