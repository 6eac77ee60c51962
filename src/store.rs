//! A place that keeps bytes by key: put whole, get, list, delete.
//!
//! A store knows nothing of what it keeps. Retries, limits, a cache and injected faults are each a store round a store.

pub mod cache;
pub mod faulty;
pub mod limit;
pub mod local;
pub mod memory;
pub mod retry;
pub mod s3;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::id::ObjectId;

/// The kinds of object of a repository, each with a place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    Config,
    Key,
    Lock,
    Pack,
    Index,
    Snapshot,
}

/// Names one object: its kind and its name (64 hexadecimal digits; empty for the config).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: FileKind,
    pub name: String,
}

impl Key {
    pub fn new(kind: FileKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    #[must_use]
    pub fn config() -> Self {
        Self::new(FileKind::Config, "")
    }

    /// Returns the key of a path below the repository's root, `None` for what is no object of a repository.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let kind = match dir.split('/').next() {
            Some("") if path == "config" => return Some(Self::config()),
            Some("keys") => FileKind::Key,
            Some("locks") => FileKind::Lock,
            Some("data") => FileKind::Pack,
            Some("index") => FileKind::Index,
            Some("snapshots") => FileKind::Snapshot,
            _ => return None,
        };
        let key = Self::new(kind, name);
        (name.parse::<ObjectId>().is_ok() && key.path() == path).then_some(key)
    }

    /// Returns the path below the repository's root, as restic lays it out (`data/ab/abcd…`).
    #[must_use]
    pub fn path(&self) -> String {
        let dir = match self.kind {
            FileKind::Config => return "config".to_owned(),
            FileKind::Pack => {
                return format!("data/{}/{}", self.name.get(..2).unwrap_or_default(), self.name);
            }
            FileKind::Key => "keys",
            FileKind::Lock => "locks",
            FileKind::Index => "index",
            FileKind::Snapshot => "snapshots",
        };
        format!("{dir}/{}", self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// An object that a listing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// Bytes as stored.
    pub size: u64,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("{act} `{thing}`: not found")]
    Missing { act: &'static str, thing: String },
    /// Another try may succeed: a reset, a time-out, throttling, a server's own error.
    #[error("{act} `{thing}`: {reason}")]
    Transient { act: &'static str, thing: String, reason: String },
    /// Another try will not succeed.
    #[error("{act} `{thing}`: {reason}")]
    Failed { act: &'static str, thing: String, reason: String },
    /// The object is there and does not come back whole, while the store itself answers: a bad sector, a cut, an object that only
    /// others may read. It is lost as far as the reader is concerned; the objects beside it are not.
    #[error("{act} `{thing}`: {reason}")]
    Unreadable { act: &'static str, thing: String, reason: String },
    #[error("{act} `{thing}`: no space left on the device")]
    Full { act: &'static str, thing: String },
    #[error("{act} `{thing}`: its file system is read-only")]
    ReadOnly { act: &'static str, thing: String },
    #[error("{act} `{thing}`: access denied: {reason}")]
    Denied { act: &'static str, thing: String, reason: String },
    /// The store's own lock (Object Lock) refuses to delete it.
    #[error("{act} `{thing}`: protected by the store's lock{}", until_text(*until))]
    Protected {
        act: &'static str,
        thing: String,
        /// `None`: the store does not say.
        until: Option<DateTime<Utc>>,
    },
    /// The server asks to be left alone for a while, and says for how long.
    #[error("{act} `{thing}`: {reason}")]
    Busy { act: &'static str, thing: String, reason: String, after: Duration },
    /// The policy's network does not let these bytes go that way; nothing was sent.
    #[error("{act} `{thing}`: network refused: {reason}")]
    Refused { act: &'static str, thing: String, reason: String },
}

impl StoreError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Full { .. } => "free space there and run it again: nothing is lost",
            Self::ReadOnly { .. } => {
                "see `dmesg`: Linux turns a disk that fails read-only; `bkp restore` and `bkp verify` still read it"
            }
            Self::Denied { .. } => "check the credentials and what they may do, or the rights of the directory",
            Self::Protected { .. } => "nothing is wrong: what asks for it again after that time succeeds",
            Self::Refused { .. } => "see `ip route get ADDRESS`, then correct the route or [network] in the policy",
            Self::Transient { .. } | Self::Busy { .. } => "run it again: what was sent is not sent twice",
            Self::Unreadable { .. } => {
                "check the disk and the object's rights; a copy of the repository may still hold it"
            }
            Self::Missing { .. } | Self::Failed { .. } => return None,
        };
        Some(text.to_owned())
    }

    /// Tells whether the same operation may succeed when it is tried again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Busy { .. })
    }

    /// Tells whether every other object would fare the same, so that going on is of no use.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::ReadOnly { .. } | Self::Denied { .. } | Self::Refused { .. })
    }
}

/// Says until when, as far as it is known.
fn until_text(until: Option<DateTime<Utc>>) -> String {
    match until {
        None => String::new(),
        Some(until) if until == DateTime::<Utc>::MAX_UTC => " for as long as it has a legal hold".to_owned(),
        Some(until) => format!(" until {}", until.format("%Y-%m-%d %H:%M:%S UTC")),
    }
}

/// Keeps objects. All methods may be called at once from many tasks; dropping a future gives the operation up.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// Says where it is, for people (`/backup/mall`, `s3://bucket/prefix`), without secrets.
    fn location(&self) -> String;

    /// Puts an object whole: afterwards it is there durably with all its bytes, or not at all.
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError>;

    /// Gets an object whole.
    async fn get(&self, key: &Key) -> Result<Bytes, StoreError>;

    /// Returns the hash of an object's bytes as the store now has them: what was just put is not believed to be there because this
    /// machine still remembers it, as far as that can be.
    async fn hash(&self, key: &Key) -> Result<ObjectId, StoreError> {
        let bytes = self.get(key).await?;
        let hashed = tokio::task::spawn_blocking(move || ObjectId::of(&bytes)).await;
        hashed.map_err(|error| StoreError::Failed { act: "hash", thing: key.path(), reason: error.to_string() })
    }

    /// Gets a stretch of an object; a stretch past its end is [`StoreError::Unreadable`].
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Lists all objects of a kind, in no order.
    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError>;

    /// Returns the size of an object in bytes, `None` where there is none.
    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError>;

    /// Deletes an object; one that is not there is no error, and one that the store's own lock keeps is [`StoreError::Protected`].
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Returns until when the store's own lock keeps an object, also when that time is over; `None` for a store without such a lock
    /// and for an object that never had one. A store round a store passes it on: a prune plans by it.
    async fn immutable_until(&self, key: &Key) -> Result<Option<DateTime<Utc>>, StoreError>;

    /// Lengthens an object's lock up to `until` where it ends before `least`, and returns when it ends now. It is never shortened.
    async fn keep_immutable(
        &self,
        key: &Key,
        least: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, StoreError> {
        let _ = (least, until);
        let reason = "this store has no lock of its own".to_owned();
        Err(StoreError::Failed { act: "make immutable", thing: key.path(), reason })
    }
}

/// A store that many parts share.
pub type SharedStore = Arc<dyn Store>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_back_to_its_key_and_another_to_none() {
        let name = "ab".repeat(32);
        for kind in [FileKind::Key, FileKind::Lock, FileKind::Pack, FileKind::Index, FileKind::Snapshot] {
            let key = Key::new(kind, &name);
            assert_eq!(Key::at(&key.path()), Some(key));
        }
        assert_eq!(Key::at("config"), Some(Key::config()));
        for path in
            ["", "data", "data/ab/cd", &format!("data/cd/{name}"), &format!("other/{name}"), &name, "keys/config"]
        {
            assert_eq!(Key::at(path), None, "{path}");
        }
    }
}
