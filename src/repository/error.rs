//! What can go wrong with a repository, and what to do then.

use crate::id::{BlobId, IdError};
use crate::repository::pack::BlobKind;
use crate::run::Stopped;
use crate::store::StoreError;

/// A failed act on a repository. It is `Clone`, because what breaks a writer is told to each that waits on it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RepositoryError {
    #[error("open repository `{place}`: there is no config object")]
    NoRepository { place: String },
    #[error("make repository `{place}`: there is one already")]
    AlreadyThere { place: String },
    #[error("open repository `{place}`: no key opens with this password")]
    WrongPassword { place: String },
    #[error("open repository `{place}`: format version {version} is not known to this program")]
    Version { place: String, version: u32 },
    #[error("lock repository: {holder} holds a lock{}", if *exclusive { " that shuts all others out" } else { "" })]
    Locked { holder: String, exclusive: bool },
    /// The lock could not be refreshed in time: somebody may have taken it for stale.
    #[error("keep the repository's lock: {reason}")]
    LockLost { reason: String },
    #[error("read `{thing}`: {reason}")]
    Damaged { thing: String, reason: String },
    /// A lock that cannot be read: nobody can tell whether its holder lives.
    #[error("read the lock `{thing}`: {reason}")]
    DamagedLock { thing: String, reason: String },
    /// What was just put did not come back as it was sent, twice.
    #[error("verify what was written: `{thing}`: {reason}")]
    Unproved { thing: String, reason: String },
    #[error("read {kind} blob {}: no index names it", id.short())]
    MissingBlob { kind: BlobKind, id: BlobId },
    #[error("save {thing}: {reason}")]
    Refused { thing: String, reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl RepositoryError {
    pub(crate) fn damaged(thing: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Damaged { thing: thing.to_string(), reason: reason.to_string() }
    }

    pub(crate) fn refused(thing: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Refused { thing: thing.to_string(), reason: reason.to_string() }
    }

    /// Tells whether bytes were lost or changed, as opposed to a store that cannot be reached now.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::MissingBlob { .. }
                | Self::Store(StoreError::Missing { .. } | StoreError::Unreadable { .. })
        )
    }

    /// Gives the next step, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoRepository { .. } => "check the path, or make the repository with `bkp init`".to_owned(),
            Self::AlreadyThere { .. } => "nothing has to be done: use it, or name another place".to_owned(),
            Self::WrongPassword { .. } => {
                "check the policy's password_file or password_command, or the passphrase of the kit".to_owned()
            }
            Self::Version { .. } => "use a newer bkp, or `restic` itself".to_owned(),
            Self::Locked { .. } => {
                "wait for the other run, or remove a lock that nobody holds with `restic unlock`".to_owned()
            }
            Self::LockLost { .. } => "run it again: what was saved so far is reused".to_owned(),
            Self::Damaged { .. } | Self::MissingBlob { .. } => {
                "run `bkp verify --level data --heal`: a copy of the repository may still hold it".to_owned()
            }
            Self::DamagedLock { .. } => {
                "make sure that no other run works on it, then remove all locks with `restic unlock --remove-all`"
                    .to_owned()
            }
            Self::Unproved { .. } => "check the disk under the repository, then run it again".to_owned(),
            Self::Store(error) => return error.hint(),
            Self::Refused { .. } | Self::Stopped(_) => return None,
        };
        Some(text)
    }
}

impl From<IdError> for RepositoryError {
    fn from(error: IdError) -> Self {
        Self::damaged("an id", error)
    }
}
