//! Where the binlogs of a replay come from: a directory of raw files, or what was captured of the source.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::capture::CaptureError;
use crate::capture::chain::{Chain, Epoch, Segment as Captured};
use crate::capture::stored::{self, Stored};
use crate::event::Unit;
use crate::mysql::manifest::{Manifest, Position, Product};
use crate::policy::Policy;
use crate::replay::segments::{self, Segment};
use crate::replay::{Point, ReplayError};
use crate::repository::{Repository, StoredSnapshot};
use crate::restore::replay::ReplayRequest;
use crate::restore::{Request, RestoreError};
use crate::run::Run;
use crate::sandbox;

/// Where binlogs are.
#[derive(Debug)]
pub(super) enum Binlogs {
    Dir(PathBuf),
    /// They are fetched into a directory that is made in `dir`.
    Captured {
        stored: Box<Stored>,
        dir: PathBuf,
    },
}

/// Segments that can be read, for as long as the directory stands that they were fetched into.
pub(super) struct Fetched {
    pub(super) run: segments::Run,
    pub(super) scratch: Option<Arc<TempDir>>,
}

impl Binlogs {
    /// Finds the binlogs of a source: those that the operator names, or those that were captured; `None` where there are none, or
    /// none are wanted.
    pub(super) async fn of(
        policy: &Policy,
        repository: &Repository,
        snapshots: &[StoredSnapshot],
        source: &str,
        request: &Request,
    ) -> Result<Option<Self>, RestoreError> {
        let Some(asked) = &request.replay else { return Ok(None) };
        if let Some(dir) = &asked.binlogs {
            return Ok(Some(Self::Dir(dir.clone())));
        }
        let Some(snapshot) = stored::newest(snapshots, &policy.name, source) else { return Ok(None) };
        Self::captured(repository, snapshot, &policy.state_dir).await.map(Some)
    }

    /// Takes those of one snapshot.
    pub(super) async fn captured(
        repository: &Repository,
        snapshot: &StoredSnapshot,
        dir: &Path,
    ) -> Result<Self, RestoreError> {
        let stored = Box::new(stored::open(repository, snapshot).await.map_err(Box::new)?);
        Ok(Self::Captured { stored, dir: dir.to_owned() })
    }

    /// Brings those that follow a dump up to a point where they can be read.
    pub(super) async fn fetch(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        asked: &ReplayRequest,
        run: &Run,
    ) -> Result<Fetched, RestoreError> {
        let position = manifest.position.as_ref().ok_or_else(|| Box::new(ReplayError::NoPosition))?;
        match self {
            Self::Dir(dir) => {
                let run = segments::in_dir(dir, &position.file).map_err(Box::new)?;
                Ok(Fetched { run, scratch: None })
            }
            Self::Captured { stored, dir } => {
                let mut way = Way::from(stored, manifest).ok_or_else(|| Box::new(not_captured(stored, manifest)))?;
                way.shorten(&asked.point, manifest.product);
                let scratch = scratch(dir, run)?;
                refuse_full(dir, way.bytes())?;
                let segments = way.fetch(repository, stored, &scratch, run).await?;
                let run = segments::Run { segments, gap: way.gap, as_of: way.as_of };
                Ok(Fetched { run, scratch: Some(Arc::new(scratch)) })
            }
        }
    }
}

fn not_captured(stored: &Stored, manifest: &Manifest) -> ReplayError {
    let position = manifest.position.as_ref();
    let name = position.map(|position| position.file.clone()).unwrap_or_default();
    ReplayError::NotCaptured { name, snapshot: stored.snapshot.id.short() }
}

/// What the directories of fetched binlogs are called, before the number of their process.
const SCRATCH: &str = "replay-";

/// Makes a directory of our own: binlogs hold rows. Those of runs that were killed go.
pub(crate) fn scratch(dir: &Path, run: &Run) -> Result<TempDir, RestoreError> {
    let fault = |error| RestoreError::from(Box::new(ReplayError::Dir { dir: dir.to_owned(), error }));
    std::fs::create_dir_all(dir).map_err(fault)?;
    for entry in std::fs::read_dir(dir).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        if is_left(&entry.file_name().to_string_lossy()) {
            // Somebody else's may stay: it stands in nobody's way.
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                run.events.warn(format!("`{}` is left of an earlier replay: {error}", entry.path().display()));
            }
        }
    }
    let prefix = format!("{SCRATCH}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(dir).map_err(fault)
}

/// Refuses to fill a filesystem, on which the catalog may lie, too.
pub(crate) fn refuse_full(dir: &Path, wanted: u64) -> Result<(), RestoreError> {
    let asked = sandbox::free_bytes(dir);
    let free = asked.map_err(|error| Box::new(ReplayError::Dir { dir: dir.to_owned(), error }))?;
    if free > wanted { Ok(()) } else { Err(Box::new(ReplayError::NoRoom { dir: dir.to_owned(), wanted, free }).into()) }
}

/// Tells whether a name is one of ours whose process is gone.
fn is_left(name: &str) -> bool {
    let process = name.strip_prefix(SCRATCH).and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
    process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
}

/// Finds the epoch that goes on from a dump: the newest of its server whose file had been begun by then.
pub(crate) fn epoch_of<'a>(chain: &'a Chain, manifest: &Manifest) -> Option<&'a Epoch> {
    let is_it = |epoch: &&Epoch| {
        epoch.server.server == manifest.server && epoch.segments.iter().any(|segment| holds(segment, manifest))
    };
    chain.epochs.iter().rev().find(is_it)
}

/// Tells whether a segment of its server's holds a dump's position.
fn holds(segment: &Captured, manifest: &Manifest) -> bool {
    let was_begun = i64::from(segment.created) <= manifest.taken_at.timestamp();
    let is_there = |place: &Position| segment.file == place.file && segment.bytes >= place.offset;
    was_begun && manifest.position.as_ref().is_some_and(is_there)
}

/// The captured segments from a dump's position on.
struct Way<'a> {
    epoch: &'a Epoch,
    segments: &'a [Captured],
    gap: Option<(String, String)>,
    as_of: Option<chrono::DateTime<chrono::Utc>>,
}

impl<'a> Way<'a> {
    /// Finds the stretch that holds a dump's position: of the newest epoch of its server whose file had been begun by then.
    fn from(stored: &'a Stored, manifest: &Manifest) -> Option<Self> {
        let epoch = epoch_of(&stored.chain, manifest)?;
        let epochs = &stored.chain.epochs;
        let holds = |segment: &Captured| holds(segment, manifest);
        let stretch = epoch.stretches().into_iter().find(|stretch| stretch.segments.iter().any(holds))?;
        let first = stretch.segments.iter().position(holds)?;
        let segments = &stretch.segments[first..];
        let last = &segments.last()?.file;
        let after = epoch.gaps.iter().find(|gap| gap.after == *last).map(|gap| gap.before.clone());
        let next_epoch = || epochs.iter().find(|next| next.number > epoch.number && !next.segments.is_empty());
        let before = after.or_else(|| next_epoch().map(|next| next.segments[0].file.clone()));
        let as_of = stored.chain.as_of.filter(|_| before.is_none());
        Some(Self { epoch, segments, gap: before.map(|before| (last.clone(), before)), as_of })
    }

    /// Leaves out what surely lies behind the point; a segment behind the last that is needed stays, to name what comes first in it.
    fn shorten(&mut self, point: &Point, product: Product) {
        let is_behind = |segment: &Captured| match point {
            Point::Position(place) => segments::is_before(&place.file, &segment.file) == Some(true),
            // Times of MariaDB are the sessions': one of them proves nothing.
            Point::At(time) => product == Product::MySql && segment.first.is_none_or(|first| first > *time),
            Point::Latest | Point::Gtid(_) | Point::Before(_) => false,
        };
        // A clock that ran ahead in one segment leads on to earlier times in the next.
        let behind = self.segments.iter().rposition(|segment| !is_behind(segment)).map_or(0, |last| last + 1);
        let names_one = |segment: &Captured| matches!(point, Point::Position(_)) || segment.first.is_some();
        let first = self.segments[behind..].iter().position(names_one);
        if let Some(first) = first.map(|first| behind + first)
            && first + 1 < self.segments.len()
        {
            self.segments = &self.segments[..=first];
            self.gap = None;
        }
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    async fn fetch(
        &self,
        repository: &Repository,
        stored: &Stored,
        scratch: &TempDir,
        run: &Run,
    ) -> Result<Vec<Segment>, RestoreError> {
        let task = run.events.task("fetch the binlogs", Unit::Bytes, self.bytes());
        let mut fetched = Vec::new();
        for segment in self.segments {
            let path = scratch.path().join(&segment.file);
            let taken = stored.fetch(repository, self.epoch.number, segment, &path, run).await;
            taken.map_err(Box::<CaptureError>::new)?;
            task.add(segment.bytes);
            fetched.push(Segment { name: segment.file.clone(), path, bytes: segment.bytes });
        }
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_begins_late_is_the_last_only_where_none_behind_it_begins_earlier() {
        let at = |second: i64| chrono::DateTime::from_timestamp(second, 0);
        let kept = |firsts: &[Option<i64>]| {
            let segment = |first: &Option<i64>| {
                let text = serde_json::json!({
                    "file": "b.000001", "bytes": 9, "sha256": "", "created": 0, "first": first.and_then(at), "last": null,
                    "transactions": 1, "before": null, "after": "", "is_closed": true,
                });
                serde_json::from_value::<Captured>(text).ok()
            };
            let segments: Vec<Captured> = firsts.iter().filter_map(segment).collect();
            let epoch = Epoch {
                number: 1,
                began: chrono::DateTime::UNIX_EPOCH,
                why: crate::capture::chain::Beginning::FirstCapture,
                server: crate::capture::chain::Origin {
                    product: Product::MySql,
                    version: String::new(),
                    server: String::new(),
                },
                segments: Vec::new(),
                gaps: Vec::new(),
            };
            let mut way = Way { epoch: &epoch, segments: &segments, gap: None, as_of: None };
            way.shorten(&Point::At(at(50).unwrap_or_default()), Product::MySql);
            way.segments.len()
        };
        assert_eq!(kept(&[Some(10), Some(40), Some(60), Some(70), Some(80)]), 3);
        assert_eq!(kept(&[Some(10), Some(99), Some(40), Some(60), Some(70)]), 4);
        assert_eq!(kept(&[Some(10), Some(60), None, Some(70)]), 2);
        assert_eq!(kept(&[Some(10), Some(20)]), 2);
    }

    #[test]
    fn only_directories_of_processes_that_are_gone_are_left_ones() {
        assert!(is_left("replay-4194305-aBc"), "no process has a number past the kernel's largest");
        assert!(!is_left(&format!("replay-{}-aBc", std::process::id())));
        assert!(!is_left("replay-x-aBc"));
        assert!(!is_left("catalog-1-2"));
    }
}
