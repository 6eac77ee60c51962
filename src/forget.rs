//! Drops snapshots that no keep rule needs, and only snapshots: what no other needs of their packs, a prune frees.
//!
//! The same plan works on a repository and on its copies: each store forgets alone, under the same rules.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::id::SnapshotId;
use crate::policy::Policy;
use crate::repository::{LockGuard, LockMode, Repository, RepositoryError, Snapshot, StoredSnapshot};
use crate::retention::{Candidate, judge, judge_binlogs};
use crate::run::Run;

/// Why nothing may be forgotten now. What went wrong may have reached the snapshots that would stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    /// A source looked wrong (too few files, no sentinel, another mount).
    GuardTripped { source: String },
    /// The newest backup of a source failed, or never came to its end.
    RunFailed { source: String },
    /// The newest run of a source was stopped before it came to an end.
    RunStopped { source: String },
    /// A verify found damage, and none that looked as deep has found all whole since.
    Damaged { store: String },
}

impl std::fmt::Display for Freeze {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::GuardTripped { source } => write!(f, "a guard of `{source}` has tripped"),
            Self::RunFailed { source } => write!(f, "the newest backup of `{source}` did not succeed"),
            Self::RunStopped { source } => write!(f, "the newest backup of `{source}` was stopped"),
            Self::Damaged { store } => {
                write!(f, "verify found damage in `{store}`, and none as deep has found it whole since")
            }
        }
    }
}

/// One snapshot, and why it stays or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub id: SnapshotId,
    pub time: DateTime<Utc>,
    /// The value of the tag `source`.
    pub source: String,
    pub is_binlog: bool,
    pub keep: bool,
    pub reasons: Vec<String>,
}

/// What a forget would do. `--dry-run` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForgetPlan {
    /// The policy's snapshots, by source and then from the newest down.
    pub judgements: Vec<Judgement>,
    /// Snapshots of other policies or of nobody: an operator's own `restic backup`. They are never touched.
    pub others: usize,
    /// Nothing is forgotten, whatever the judgements say.
    pub frozen: Option<Freeze>,
}

impl ForgetPlan {
    /// Judges the policy's snapshots, source by source.
    #[must_use]
    pub fn new(snapshots: &[StoredSnapshot], policy: &Policy, freeze: Option<Freeze>, now: DateTime<Utc>) -> Self {
        let (sources, others) = by_source(snapshots, &policy.name);
        let judgements = sources.into_iter().flat_map(|((source, kind), candidates)| {
            let times: BTreeMap<_, _> = candidates.iter().map(|it| (it.id, it.time)).collect();
            let verdicts = match kind {
                Kind::Data => judge(&candidates, &policy.retention, policy.timezone, now),
                Kind::Binlog => judge_binlogs(&candidates),
            };
            verdicts.into_iter().map(move |verdict| Judgement {
                id: verdict.id,
                time: times.get(&verdict.id).copied().unwrap_or(now),
                source: source.to_owned(),
                is_binlog: kind == Kind::Binlog,
                keep: verdict.keep,
                reasons: verdict.reasons,
            })
        });
        Self { judgements: judgements.collect(), others, frozen: freeze }
    }

    /// Leaves of the plan what concerns binlogs.
    #[must_use]
    pub fn of_binlogs(mut self) -> Self {
        self.judgements.retain(|judgement| judgement.is_binlog);
        self
    }

    /// Returns what [`Self::apply`] removes: nothing while frozen.
    pub fn forgotten(&self) -> impl Iterator<Item = &Judgement> {
        let go = self.frozen.is_none();
        self.judgements.iter().filter(move |it| go && !it.keep)
    }

    /// Removes the snapshots that go, the oldest first, so that a forget which is cut leaves the newer ones.
    ///
    /// The exclusive lock is proof that nobody reads or copies meanwhile. A failure with one snapshot does not spare the next.
    pub async fn apply(&self, repository: &Repository, _lock: &Alone, run: &Run) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let mut go: Vec<_> = self.forgotten().collect();
        go.sort_by_key(|it| (it.time, it.id));
        for it in go {
            if run.check().is_err() {
                forgotten.stopped = true;
                break;
            }
            match repository.remove_snapshot(&it.id).await {
                Ok(()) => forgotten.done.push(it.id),
                Err(error) => forgotten.failed.push((it.id, error)),
            }
        }
        forgotten
    }
}

/// An exclusive lock of a repository, as a type of its own: a shared one does not fit where snapshots go.
#[derive(Debug)]
pub struct Alone(LockGuard);

impl Alone {
    /// Takes the lock, or refuses while anybody else holds one.
    ///
    /// # Errors
    /// [`RepositoryError::Locked`], or what the store says.
    pub async fn take(repository: &Repository, run: &Run) -> Result<Self, RepositoryError> {
        Ok(Self(repository.lock(LockMode::Exclusive, Duration::ZERO, run).await?))
    }

    /// Proves that the lock still stands.
    ///
    /// # Errors
    /// [`RepositoryError::LockLost`], or what the store says.
    pub async fn prove(&self) -> Result<(), RepositoryError> {
        self.0.prove().await
    }

    #[must_use]
    pub fn into_guard(self) -> LockGuard {
        self.0
    }
}

/// What a forget did.
#[derive(Debug, Default)]
pub struct Forgotten {
    pub done: Vec<SnapshotId>,
    pub failed: Vec<(SnapshotId, RepositoryError)>,
    /// A signal ended it before its end.
    pub stopped: bool,
}

/// What keep rules count, and what they do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A dump or a tree.
    Data,
    /// The segments of a window: each snapshot holds what the one before held, and what came since.
    Binlog,
}

/// Groups the policy's snapshots by their source and counts all others.
fn by_source<'s>(snapshots: &'s [StoredSnapshot], policy: &str) -> (BTreeMap<(&'s str, Kind), Vec<Candidate>>, usize) {
    let mut sources = BTreeMap::<_, Vec<_>>::new();
    let mut others = 0;
    for stored in snapshots {
        let snapshot = &stored.snapshot;
        let is_ours = snapshot.tag("policy") == Some(policy);
        match snapshot.tag("source").filter(|_| is_ours) {
            Some(source) => {
                let kind = if snapshot.is_binlog() { Kind::Binlog } else { Kind::Data };
                sources.entry((source, kind)).or_default().push(candidate(stored));
            }
            None => others += 1,
        }
    }
    (sources, others)
}

fn candidate(stored: &StoredSnapshot) -> Candidate {
    Candidate {
        id: stored.id,
        time: stored.snapshot.time,
        // A dump of several moments is no substitute for a consistent one either.
        complete: ["incomplete", "inconsistent"].iter().all(|tag| stored.snapshot.tag(tag) != Some("true")),
        held: is_held(&stored.snapshot),
    }
}

/// Tells whether a person marked a snapshot to stay: `restic tag --add hold`, or `hold=` and a reason.
fn is_held(snapshot: &Snapshot) -> bool {
    snapshot.tag("hold").is_some() || snapshot.tags.iter().any(|tag| tag == "hold")
}
