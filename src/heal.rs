//! The verb that mends a store of a repository from the others.
//!
//! It begins with a verify and mends what that finds, level by level as deep as it looked: an object that is damaged or missing is put
//! back from any other store that holds it whole, and an index that is lost is made anew from the packs' own headers. Then what was
//! mended is verified; a tree that came back may name what is missing below it, so this goes on until nothing more can be done.
//!
//! # What it never does
//! Nothing is put that was not proved: bytes hash to the name they are put under, and what the store then holds is hashed again. A copy
//! that lies is passed over for the next. Nothing is deleted that could not be replaced: a damaged object is overwritten, never
//! removed first (a store puts whole or not at all), and one that nobody holds whole stays as it is, because its other blobs
//! still read. Only two things go: a damaged index file once every pack that is here is named by another, and a file under a wrong
//! name whose bytes are here under their right one. What no snapshot needs is for a prune to judge, and a snapshot that is gone without
//! a trace was forgotten: neither comes back.
//!
//! # What no store holds whole
//! A damaged pack stays, and a backup goes on to rely on it: whether each byte of a pack reads is not looked at for every file. Only where
//! the operator says so (`--salvage`) is it given up: its blobs that still open move into new packs, the index names it no more, and
//! once that is proved it is deleted. Then the lost blobs are named as such, and the next backup stores them again.
//!
//! # Locks
//! Putting an object back under its own name changes nothing for who reads or adds beside it, restic's backups included: before it
//! the object was of no use, after it is what it always was. So a shared lock is enough, and needed: it keeps a prune, which deletes
//! packs, from working on a list of what is there that we change. An index file that is made from packs is another matter: a backup
//! beside us has packs on their way that no index names yet, and who has listed an index file expects to find it. So that is done
//! under an exclusive lock, taken for the minute that it needs.

mod apply;
pub mod plan;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use crate::heal::plan::{HealPlan, Left, PutBack};

use crate::id::ObjectId;
use crate::place;
use crate::repository::{LockGuard, LockMode, Repository, RepositoryError};
use crate::run::{Run, Stopped};
use crate::store::{FileKind, Key, SharedStore, StoreError};
use crate::verify::{self, Object, Report, VerifyError};

#[derive(Debug, thiserror::Error)]
pub enum HealError {
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl From<StoreError> for HealError {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl From<Stopped> for HealError {
    fn from(stopped: Stopped) -> Self {
        Self::Repository(stopped.into())
    }
}

impl HealError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Verify(error) => error.hint(),
            Self::Repository(error) => error.hint(),
        }
    }
}

/// Another store of the same repository.
#[derive(Clone)]
pub struct Donor {
    pub name: String,
    pub store: SharedStore,
}

/// A store that is to be mended, and those that it may be mended from, the nearest first.
#[derive(Clone)]
pub struct Ward {
    pub name: String,
    pub repository: Arc<Repository>,
    pub donors: Vec<Donor>,
    /// Stores that could not be opened.
    pub away: Vec<String>,
    /// Gives up what no store holds whole, so that a backup stores it again.
    pub salvages: bool,
    /// How long it waits for a lock; where it gets none, what needs it is left.
    pub lock_wait: Duration,
}

/// Something that is whole again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mended {
    /// The object, by its path; of an index made anew how many packs it names.
    pub what: String,
    pub how: How,
    pub bytes: u64,
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::From(store) => write!(f, "{} from {store}", self.what),
            How::Rebuilt => write!(f, "{} made from their headers", self.what),
            How::Removed => write!(f, "{} removed: it was worth nothing any more", self.what),
            How::Salvaged { blobs, lost } => {
                write!(f, "{} given up: {} of its {blobs} blobs are kept", self.what, blobs - lost)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Its bytes came from this store.
    From(String),
    /// An index was made from the headers of packs.
    Rebuilt,
    /// It was worth nothing any more, and is gone.
    Removed,
    /// So many of its blobs still read and are in new packs; it is gone, and the rest with it.
    Salvaged { blobs: u64, lost: u64 },
}

/// What a heal found, what it mended and what is left.
#[derive(Debug, Clone, Serialize)]
pub struct Healed {
    pub store: String,
    /// Objects that the first look found damaged or missing.
    pub found: u64,
    pub mended: Vec<Mended>,
    /// What is damaged or missing now, with what it costs; the counts are those of the first look.
    pub report: Report,
    /// Why it could not be mended.
    pub left: Vec<Left>,
    /// Stores that did not answer: they may hold what is left.
    pub away: BTreeSet<String>,
}

impl Healed {
    /// Tells whether all that was looked at is whole now.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.report.is_sound()
    }

    fn leave_all(&mut self, why: &str) {
        let is_lock = |object: &Object| matches!(object, Object::Stored(key) if key.kind == FileKind::Lock);
        let why = |object: &Object| if is_lock(object) { plan::LOCK_STAYS } else { why };
        self.left.extend(self.report.findings().map(|finding| Left::new(&finding.object, why(&finding.object))));
    }

    /// Keeps one reason for each finding that is left.
    fn explain(&mut self) {
        let mut told = std::mem::take(&mut self.left);
        for finding in self.report.findings() {
            let object = finding.object.to_string();
            let why = told.iter_mut().rfind(|left| left.object == object).map(|left| std::mem::take(&mut left.why));
            let why = why.unwrap_or_else(|| "nothing here or in another store holds it".to_owned());
            self.left.push(Left { object, why });
        }
    }

    /// Returns the bytes that were put back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.mended.iter().map(|mended| mended.bytes).sum()
    }
}

/// Verifies a store and mends what is found.
///
/// # Errors
/// Where the store cannot be read or the run was stopped. What cannot be mended is in the result.
pub async fn heal(ward: &Ward, options: verify::Options, run: &Run) -> Result<Healed, HealError> {
    let repository = &ward.repository;
    let lock = place::lock_to_read(repository, run).await?;
    let may_write = lock.is_some();
    let first = verify::verify(repository, options, run).await;
    place::unlock(lock, run).await;
    let first = first?;
    let whole = whole_packs(repository, &first);
    let mut healed = Healed {
        store: ward.name.clone(),
        found: faults(&first),
        mended: Vec::new(),
        report: first.clone(),
        left: Vec::new(),
        away: ward.away.iter().cloned().collect(),
    };
    if !may_write {
        healed.leave_all("no lock could be taken, and without one nothing is put back");
    }
    while may_write && !healed.is_sound() && round(ward, &mut healed, run).await? {
        let again = look_again(repository, options, whole.clone(), run).await?;
        healed.report = Report { checked: first.checked, ..again };
    }
    if may_write && ward.salvages && !healed.is_sound() && salvage(ward, &mut healed, run).await? {
        let again = look_again(repository, options, whole, run).await?;
        healed.report = Report { checked: first.checked, ..again };
    }
    healed.explain();
    Ok(healed)
}

/// Gives up the packs that no store holds whole; tells whether there were any. A store that does not answer may hold them: then
/// nothing is given up.
async fn salvage(ward: &Ward, healed: &mut Healed, run: &Run) -> Result<bool, HealError> {
    let packs: HashSet<ObjectId> = healed.report.findings().filter_map(|finding| pack_of(&finding.object)).collect();
    if packs.is_empty() {
        return Ok(false);
    }
    if !healed.away.is_empty() {
        healed.leave_all(&format!("not given up: {} may hold it", Vec::from_iter(healed.away.clone()).join(", ")));
        return Ok(false);
    }
    let Some(lock) = lock(ward, LockMode::Exclusive, healed, run).await? else { return Ok(false) };
    let salvaged = apply::salvage(ward, &packs, &lock, healed, run).await;
    place::unlock(lock, run).await;
    salvaged.map(|()| true)
}

/// Verifies a store and returns what [`heal`] would do first. What comes to light once that is done is not in it.
///
/// # Errors
/// Like [`heal`].
pub async fn plan(ward: &Ward, options: verify::Options, run: &Run) -> Result<(Report, HealPlan), HealError> {
    let lock = place::lock_to_read(&ward.repository, run).await?;
    let report = verify::verify(&ward.repository, options, run).await;
    place::unlock(lock, run).await;
    let report = report?;
    let plan = plan::make(ward, &report, &HashSet::new(), run).await?;
    Ok((report, plan))
}

/// Plans and does what can be done by what is known so far; tells whether another round may do more.
async fn round(ward: &Ward, healed: &mut Healed, run: &Run) -> Result<bool, HealError> {
    let failed: HashSet<String> = healed.left.iter().map(|left| left.object.clone()).collect();
    let plan = plan::make(ward, &healed.report, &failed, run).await?;
    healed.away.extend(plan.away.iter().cloned());
    healed.left.extend(plan.left.iter().cloned());
    let before = (healed.mended.len(), healed.left.len());
    if !plan.put_back.is_empty() {
        let Some(lock) = lock(ward, LockMode::Shared, healed, run).await? else { return Ok(false) };
        let put = apply::put_back(ward, &plan.put_back, healed, run).await;
        place::unlock(lock, run).await;
        put?;
    }
    if plan.changes_index() {
        let Some(lock) = lock(ward, LockMode::Exclusive, healed, run).await? else {
            return Ok(healed.mended.len() > before.0);
        };
        let changed = apply::change_index(ward, &plan, &lock, healed, run).await;
        place::unlock(lock, run).await;
        changed?;
    }
    // What no store could give is not asked for again, and an index that none could give is made anew.
    Ok(!plan.is_empty() && before != (healed.mended.len(), healed.left.len()))
}

/// Takes a lock; where somebody holds another for longer than a heal waits, that is the reason why all this is left.
async fn lock(ward: &Ward, mode: LockMode, healed: &mut Healed, run: &Run) -> Result<Option<LockGuard>, HealError> {
    match ward.repository.lock(mode, ward.lock_wait, run).await {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ (RepositoryError::Locked { .. } | RepositoryError::DamagedLock { .. })) => {
            healed.leave_all(&error.to_string());
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn look_again(
    repository: &Arc<Repository>,
    options: verify::Options,
    whole: HashSet<ObjectId>,
    run: &Run,
) -> Result<Report, HealError> {
    let lock = place::lock_to_read(repository, run).await?;
    let report = verify::verify_but(repository, options, whole, run).await;
    place::unlock(lock, run).await;
    Ok(report?)
}

fn faults(report: &Report) -> u64 {
    report.findings().count() as u64
}

/// Returns the packs that a verify has looked at and found no fault with.
fn whole_packs(repository: &Repository, report: &Report) -> HashSet<ObjectId> {
    let mut whole: HashSet<ObjectId> = repository.pack_sizes().into_iter().map(|(id, _)| id).collect();
    for finding in report.findings() {
        if let Some(id) = pack_of(&finding.object) {
            whole.remove(&id);
        }
    }
    whole
}

fn pack_of(object: &Object) -> Option<ObjectId> {
    match object {
        Object::Stored(Key { kind: FileKind::Pack, name }) => name.parse().ok(),
        Object::Stored(_) | Object::Blob(..) => None,
    }
}
