//! The rows of the catalog as values.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::drill::outcome::Phase;
use crate::id::RunId;
use crate::id::SnapshotId;
use crate::repository::StoredSnapshot;
use crate::verify::{Level, Subset};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has not ended, and its process lives.
    Running,
    Ok,
    /// Some of its work was done and some was not (exit code 3).
    Incomplete,
    Failed,
    /// A signal told it to stop (exit codes 130 and 143).
    Stopped,
    /// It never said how it ended: killed, or the machine went down.
    Interrupted,
}

impl Outcome {
    /// Reads a published exit code.
    #[must_use]
    pub fn of_exit(code: u8) -> Self {
        match code {
            0 => Self::Ok,
            3 => Self::Incomplete,
            130 | 143 => Self::Stopped,
            _ => Self::Failed,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
        }
    }

    /// Reads what [`Self::as_str`] wrote; what no release ever wrote counts as interrupted.
    pub(super) fn parse(text: &str) -> Self {
        let all = [Self::Ok, Self::Incomplete, Self::Failed, Self::Stopped];
        let found = all.into_iter().find(|outcome| outcome.as_str() == text);
        found.unwrap_or(Self::Interrupted)
    }
}

/// What is known of a run when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStart {
    pub id: RunId,
    pub policy: String,
    /// `backup`, `copy`, `restore`, `verify`, `forget`, `drill`, …
    pub verb: String,
    pub started: DateTime<Utc>,
    /// The sources that a backup is to read.
    pub sources: Vec<String>,
}

/// How a backup ended for one of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEnd {
    pub source: String,
    pub exit_code: u8,
    /// The snapshot that it made, where it made one.
    pub snapshot: Option<SnapshotRecord>,
}

/// What a verify looked at, and whether that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyRecord {
    pub run: RunId,
    pub started: DateTime<Utc>,
    /// [`super::REPOSITORY`] or a copy's name.
    pub store: String,
    pub level: Level,
    /// The share of the packs that was read; `None`: all.
    pub subset: Option<Subset>,
    pub is_sound: bool,
}

/// What a verify mended in a store: kept for auditors, and for whoever asks how often a disk rots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealRecord {
    pub run: RunId,
    pub started: DateTime<Utc>,
    /// [`super::REPOSITORY`] or a copy's name.
    pub store: String,
    /// What is whole again and by which means, one line for each object.
    pub mended: Vec<String>,
    /// Bytes that were put back.
    pub bytes: u64,
    /// What could not be mended.
    pub left: Vec<String>,
}

/// What is known of a run when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnd {
    pub ended: DateTime<Utc>,
    pub exit_code: u8,
    pub error: Option<String>,
    pub phases: Vec<Phase>,
    /// Plain bytes read from the sources.
    pub bytes_read: u64,
    /// Bytes that the repository grew by.
    pub bytes_stored: u64,
    /// Bytes sent to copies.
    pub bytes_copied: u64,
}

impl RunEnd {
    #[must_use]
    pub fn new(ended: DateTime<Utc>, exit_code: u8) -> Self {
        Self { ended, exit_code, error: None, phases: Vec::new(), bytes_read: 0, bytes_stored: 0, bytes_copied: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSnapshot {
    pub source: String,
    pub id: SnapshotId,
}

/// A run as the catalog lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    pub id: RunId,
    pub policy: String,
    pub verb: String,
    pub started: DateTime<Utc>,
    pub ended: Option<DateTime<Utc>>,
    pub outcome: Outcome,
    pub exit_code: Option<u8>,
    pub error: Option<String>,
    pub phases: Vec<Phase>,
    pub bytes_read: u64,
    pub bytes_stored: u64,
    pub bytes_copied: u64,
    pub snapshots: Vec<RunSnapshot>,
}

/// One snapshot in one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// [`super::REPOSITORY`] or a copy's name.
    pub store: String,
    pub id: SnapshotId,
    pub source: String,
    /// `mysql` or `files`.
    pub kind: String,
    pub time: DateTime<Utc>,
    /// The run that made it, where its tag says so.
    pub run: Option<RunId>,
    pub incomplete: bool,
}

impl SnapshotRecord {
    /// Reads the tags of a stored snapshot; `None` for one that bkp did not make.
    #[must_use]
    pub fn of(store: &str, stored: &StoredSnapshot) -> Option<Self> {
        let tag = |name| stored.snapshot.tag(name);
        Some(Self {
            store: store.to_owned(),
            id: stored.id,
            source: tag("source")?.to_owned(),
            kind: tag("kind")?.to_owned(),
            time: stored.snapshot.time,
            run: tag("run").map(RunId::named),
            incomplete: tag("incomplete").is_some(),
        })
    }
}

/// What a copy held when it was last complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    pub name: String,
    /// When the copy last held all that the repository held; `None` after a rebuild, until the next copy.
    pub completed: Option<DateTime<Utc>>,
    /// The newest snapshot it holds, and the moment that one is of.
    pub snapshot: Option<SnapshotId>,
    pub snapshot_time: Option<DateTime<Utc>>,
}
