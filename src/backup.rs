//! The verb that makes snapshots: one for each source of a policy, the databases first.
//!
//! Files are read after the database's snapshot of the same run, so each image that a row names should be there.
//! A source that breaks leaves no snapshot; the others go on.

pub mod files;
pub mod mysql;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task::{JoinError, JoinHandle};

use crate::backup::files::FilesSaved;
use crate::id::SnapshotId;
use crate::place;
use crate::policy::Policy;
use crate::repository::LockMode;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::repository::Saved;
use crate::repository::StoredSnapshot;
use crate::repository::Summary;
use crate::repository::snapshot::Snapshot;
use crate::run::Run;
use crate::run::Stopped;
use crate::secret::SecretError;
use crate::source::files::FilesError;
use crate::source::files::FilesSource;
use crate::source::mysql::MysqlSourceError;
use crate::source::mysql::Pause;
use crate::store::{FileKind, Key};

/// What an operator may ask of a backup beside the policy.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Sources by name; empty: all.
    pub sources: Vec<String>,
    /// How long to wait for the repository's lock.
    pub lock_wait: Duration,
    /// Take tables of different moments over no dump at all, where the account may take no lock.
    pub allow_inconsistent: bool,
    /// Keep to no limit of the policy that makes way for the application.
    pub no_throttle: bool,
}

/// One new snapshot.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Backed {
    pub source: String,
    pub kind: Kind,
    pub id: SnapshotId,
    /// The moment the data is true of.
    pub time: DateTime<Utc>,
    /// Plain bytes that the snapshot holds.
    pub bytes: u64,
    /// Plain bytes that were read from the source.
    pub bytes_read: u64,
    /// Bytes new in the repository, as stored.
    pub bytes_stored: u64,
    /// Rows of a dump, or files of a tree.
    pub items: u64,
    pub items_changed: u64,
    pub millis: u64,
    /// How long writers of a database were held up, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_stall_ms: Option<f64>,
    /// How long the dump made way for the application, by reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
    /// What is left out, a line each; empty for a whole snapshot.
    pub incomplete: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Mysql,
    Files,
}

impl Kind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Files => "files",
        }
    }
}

/// What a backup made and what it could not.
#[derive(Debug, Default)]
pub struct Outcome {
    pub done: Vec<Backed>,
    pub failed: Vec<(String, BackupError)>,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("dump the database")]
    Mysql(#[from] MysqlSourceError),
    #[error("read the files")]
    Files(#[from] FilesError),
    #[error("save the files")]
    SaveFiles(#[from] files::BackupFilesError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("read the password of the database's account")]
    Password(#[from] SecretError),
    #[error("read the manifest of snapshot {0}: {1}")]
    Manifest(String, String),
    #[error("no source is named `{0}`")]
    NoSource(String),
    #[error("a thread of the backup broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl BackupError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mysql(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::SaveFiles(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            Self::Password(error) => error.hint(),
            Self::NoSource(_) => Some("name a [mysql.…] or [files.…] table of the policy".to_owned()),
            Self::Manifest(..) | Self::Thread(_) | Self::Stopped(_) => None,
        }
    }
}

/// Backs up the sources of a policy.
///
/// # Errors
/// [`BackupError`] where nothing could be begun: the repository is locked or its index does not load. What happens to one source
/// afterwards is in the [`Outcome`].
pub async fn backup(
    policy: &Policy,
    repository: &Arc<Repository>,
    options: &Options,
    run: &Run,
) -> Result<Outcome, BackupError> {
    refuse_unknown(policy, &options.sources)?;
    let lock = repository.lock(LockMode::Shared, options.lock_wait, run).await?;
    let snapshots = repository.snapshots().await?;
    repository.load_index(run).await?;
    mend(repository, run).await?;
    let job = Job { policy, repository, snapshots: &snapshots, options, run };
    let mut outcome = Outcome::default();
    for name in policy.mysql.keys().filter(|name| options.wants(name)) {
        outcome.add(name, mysql::save(&job, name).await);
    }
    for name in policy.files.keys().filter(|name| options.wants(name)) {
        outcome.add(name, save_files(&job, name).await);
    }
    // The snapshots are made, whatever becomes of the lock.
    place::unlock(lock, run).await;
    Ok(outcome)
}

/// Mends what can be mended while the source still has the bytes: packs whose index is damaged get a new one, and those that are gone
/// or cut are left out of what is known, so that this run saves what they held again.
async fn mend(repository: &Repository, run: &Run) -> Result<(), RepositoryError> {
    let named = repository.save_recovered_index().await?;
    if named > 0 {
        run.events.warn(format!("a new index names the {named} packs that only a damaged one had named"));
    }
    let lost = repository.leave_out_lost_packs().await?;
    if let Some(first) = lost.first() {
        run.events.warn(format!(
            "{} packs that the index names are gone or cut, the first is {}; what they held is read and saved again. \
             `bkp verify` tells what is lost; `bkp prune` then drops their names",
            lost.len(),
            Key::new(FileKind::Pack, first.to_string()),
        ));
    }
    Ok(())
}

fn refuse_unknown(policy: &Policy, sources: &[String]) -> Result<(), BackupError> {
    let known = |name: &String| policy.mysql.contains_key(name) || policy.files.contains_key(name);
    sources.iter().find(|name| !known(name)).map_or(Ok(()), |name| Err(BackupError::NoSource(name.clone())))
}

impl Options {
    /// Tells whether a source is to be backed up.
    #[must_use]
    pub fn wants(&self, source: &str) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|name| name == source)
    }
}

impl Outcome {
    fn add(&mut self, source: &str, result: Result<Backed, BackupError>) {
        match result {
            Ok(backed) => self.done.push(backed),
            Err(error) => self.failed.push((source.to_owned(), error)),
        }
    }

    /// Tells whether every source has a whole snapshot.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.done.iter().all(|backed| backed.incomplete.is_empty())
    }
}

/// What the backup of one source works with.
pub(crate) struct Job<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) repository: &'a Arc<Repository>,
    pub(crate) snapshots: &'a [StoredSnapshot],
    pub(crate) options: &'a Options,
    pub(crate) run: &'a Run,
}

impl Job<'_> {
    /// Returns the newest snapshot of a source of this policy: a dump or a tree, not its binlog.
    pub(crate) fn parent(&self, source: &str) -> Option<&StoredSnapshot> {
        let is_of = |stored: &&StoredSnapshot| {
            stored.snapshot.tag("policy") == Some(&self.policy.name)
                && stored.snapshot.tag("source") == Some(source)
                && !stored.snapshot.is_binlog()
        };
        self.snapshots.iter().filter(is_of).max_by_key(|stored| stored.snapshot.time)
    }

    pub(crate) fn snapshot(&self, draft: Draft<'_>) -> Snapshot {
        let mut tags = vec![
            format!("policy={}", self.policy.name),
            format!("source={}", draft.source),
            format!("run={}", self.run.id),
            format!("kind={}", draft.kind.name()),
        ];
        if draft.is_incomplete {
            tags.push("incomplete=true".to_owned());
        }
        if draft.is_inconsistent {
            tags.push("inconsistent=true".to_owned());
        }
        Snapshot {
            time: draft.time,
            tree: draft.tree,
            parent: self.parent(draft.source).map(|stored| stored.id),
            paths: vec![draft.path],
            hostname: hostname(),
            username: String::from("bkp"),
            tags,
            program_version: Some(concat!("bkp ", env!("CARGO_PKG_VERSION")).to_owned()),
            summary: Some(draft.summary),
        }
    }

    /// Begins the summary that restic's tools show, and that the next run's guards compare with.
    pub(crate) fn summary(&self, began: DateTime<Utc>, written: &Saved, files: u64, bytes: u64) -> Summary {
        Summary {
            backup_start: began,
            backup_end: self.run.now(),
            files_new: 0,
            files_changed: 0,
            files_unmodified: 0,
            dirs_new: 0,
            dirs_changed: 0,
            dirs_unmodified: 0,
            data_blobs: written.added.blobs,
            tree_blobs: 0,
            data_added: written.added.plain,
            data_added_packed: written.added.stored,
            total_files_processed: files,
            total_bytes_processed: bytes,
        }
    }
}

/// What differs from snapshot to snapshot.
pub(crate) struct Draft<'a> {
    pub(crate) source: &'a str,
    pub(crate) kind: Kind,
    pub(crate) time: DateTime<Utc>,
    pub(crate) tree: crate::id::BlobId,
    pub(crate) path: String,
    pub(crate) is_incomplete: bool,
    /// Its tables are of different moments.
    pub(crate) is_inconsistent: bool,
    pub(crate) summary: Summary,
}

pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Saves one tree of files: guards, walk, guards again, proof, snapshot.
async fn save_files(job: &Job<'_>, name: &str) -> Result<Backed, BackupError> {
    let run = job.run;
    run.check()?;
    let began = run.clock.instant();
    let time = run.now();
    let place = job.policy.files.get(name).ok_or_else(|| BackupError::NoSource(name.to_owned()))?;
    let parent = job.parent(name).cloned();
    let writer = job.repository.writer(run);
    let reading = {
        let (place, repository, writer, run) = (place.clone(), job.repository.clone(), writer.clone(), run.clone());
        tokio::task::spawn_blocking(move || {
            let source = FilesSource::open(&place, &run)?;
            Ok::<_, BackupError>(files::save(&source, parent.as_ref(), &repository, &writer, &run)?)
        })
    };
    let saved = joined(reading, STOP_GRACE, run).await?;
    let written = writer.finish().await?;
    let incomplete = left_out(&saved);
    let path = place.path.to_string_lossy().into_owned();
    let counts = saved.counts;
    let summary = Summary {
        files_new: counts.files_new,
        files_changed: counts.files_changed,
        files_unmodified: counts.files_unmodified,
        dirs_new: counts.dirs_new,
        dirs_changed: counts.dirs_changed,
        dirs_unmodified: counts.dirs_unmodified,
        ..job.summary(time, &written, counts.files, counts.bytes)
    };
    let is_incomplete = !incomplete.is_empty();
    let draft = Draft {
        source: name,
        kind: Kind::Files,
        time,
        tree: saved.tree,
        path,
        is_incomplete,
        is_inconsistent: false,
        summary,
    };
    let id = job.repository.save_snapshot(&job.snapshot(draft)).await?;
    Ok(Backed {
        source: name.to_owned(),
        kind: Kind::Files,
        id,
        time,
        bytes: saved.counts.bytes,
        bytes_read: saved.counts.bytes_read,
        bytes_stored: written.added.stored,
        items: saved.counts.files,
        items_changed: saved.counts.files_new + saved.counts.files_changed,
        millis: millis(began.elapsed()),
        write_stall_ms: None,
        pauses: Vec::new(),
        incomplete,
    })
}

/// How long a thread that reads a source gets to stop by itself.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// Waits for a thread that reads a source. After a signal it has a while to stop by itself; one that hangs, in a dead file
/// server's or database's hands, is left behind. It cannot publish anything: only the caller saves snapshots.
pub(crate) async fn joined<T>(
    mut thread: JoinHandle<Result<T, BackupError>>,
    grace: Duration,
    run: &Run,
) -> Result<T, BackupError> {
    let broke = |error: JoinError| BackupError::Thread(error.to_string());
    tokio::select! {
        done = &mut thread => return done.map_err(broke)?,
        () = run.cancel.cancelled() => {}
    }
    if let Ok(done) = tokio::time::timeout(grace, thread).await {
        return done.map_err(broke)?;
    }
    run.events.warn("the source does not answer; its reader is left behind");
    Err(Stopped.into())
}

/// Names what a snapshot of files does not hold, or holds as it changed while it was read.
fn left_out(saved: &FilesSaved) -> Vec<String> {
    let unreadable = saved.unreadable.iter().map(|(path, reason)| format!("{}: {reason}", path.display()));
    let fuzzy = saved.fuzzy.iter().map(|path| format!("{}: it changed on every reading", path.display()));
    let nested = saved
        .other_filesystems
        .iter()
        .map(|path| format!("{}: another filesystem; exclude it, or name it as a source of its own", path.display()));
    let mut lines: Vec<String> = unreadable.chain(fuzzy).chain(nested).collect();
    let listed = (saved.unreadable.len() + saved.fuzzy.len()) as u64;
    let unlisted = (saved.counts.unreadable + saved.counts.fuzzy).saturating_sub(listed);
    if unlisted > 0 {
        lines.push(format!("and {unlisted} more, which are only counted"));
    }
    lines
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;

    #[tokio::test]
    async fn a_source_that_hangs_does_not_outlast_the_signal() {
        let run = Run::silent();
        let (unblock, hanging) = std::sync::mpsc::channel::<()>();
        let thread = tokio::task::spawn_blocking(move || {
            let _hung_up = hanging.recv();
            Ok(())
        });
        run.cancel.cancel();
        let left = joined(thread, Duration::from_millis(20), &run).await;
        assert!(matches!(left, Err(BackupError::Stopped(_))), "{left:?}");
        drop(unblock);
    }

    #[tokio::test]
    async fn a_source_that_stops_by_itself_says_how() {
        let run = Run::silent();
        run.cancel.cancel();
        let thread = tokio::task::spawn_blocking(|| Err::<(), _>(BackupError::NoSource("images".to_owned())));
        let stopped = joined(thread, Duration::from_mins(1), &run).await;
        assert!(matches!(stopped, Err(BackupError::NoSource(_))), "{stopped:?}");
    }

    #[test]
    fn what_is_left_out_is_named_and_the_rest_counted() {
        let counts = files::Counts { unreadable: 7, fuzzy: 1, ..files::Counts::default() };
        let saved = FilesSaved {
            tree: BlobId::of(b""),
            counts,
            unreadable: vec![("a.jpg".into(), "permission denied".to_owned())],
            fuzzy: vec!["b.log".into()],
            other_filesystems: vec!["inner".into()],
        };
        let lines = left_out(&saved);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[2], "inner: another filesystem; exclude it, or name it as a source of its own");
        assert_eq!(lines[3], "and 6 more, which are only counted");
    }
}
