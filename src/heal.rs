//! The verb that mends a store of a repository from the others.
//!
//! It begins with a verify and mends what that finds, level by level as deep as it looked: an object that is damaged or missing is put
//! back from any other store that holds it whole, and an index that is lost is made anew from the packs' own headers. Then what was
//! mended is verified; a tree that came back may name what is missing below it, so this goes on until nothing more can be done. It
//! comes to an end: no object is put or deleted twice, and without something new no round follows.
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

use std::collections::{BTreeMap, BTreeSet, HashSet};
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

/// How often a store is looked at once more. Each round brings back one level more of a tree whose packs and index are lost together,
/// and no tree of images is so deep. What is left then is named, and the next heal goes on with it.
const ROUNDS_MAX: usize = 64;

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
    /// What is damaged or missing now, with what it costs; the counts are of all looks together.
    pub report: Report,
    /// Why it could not be mended.
    pub left: Vec<Left>,
    /// Stores that did not answer: they may hold what is left.
    pub away: BTreeSet<String>,
    /// What the store did not delete, and why.
    #[serde(skip)]
    pub kept: BTreeMap<Key, StoreError>,
}

impl Healed {
    /// Tells whether all that was looked at is whole now.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.report.is_sound()
    }

    /// Tells whether all that is left is worth nothing, and stays because the store's own lock protects it.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        let is_protected = |object: &Object| match object {
            Object::Stored(key) => matches!(self.kept.get(key), Some(StoreError::Protected { .. })),
            Object::Blob(..) => false,
        };
        !self.is_sound() && self.report.findings().all(|finding| is_protected(&finding.object))
    }

    /// Takes back what was said of objects that were put back and are faulty again: their bytes are what their name says, so they
    /// are never put twice.
    fn disown(&mut self) {
        let faulty: HashSet<String> = self.report.findings().map(|finding| finding.object.to_string()).collect();
        for mended in std::mem::take(&mut self.mended) {
            match &mended.how {
                How::From(store) if faulty.contains(&mended.what) => {
                    let why = format!(
                        "put back from {store} and faulty again: the other stores hold the same bad bytes, or nothing lasts here"
                    );
                    self.left.push(Left { object: mended.what, why });
                }
                _ => self.mended.push(mended),
            }
        }
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
            let kept = match &finding.object {
                Object::Stored(key) => self.kept.get(key).map(ToString::to_string),
                Object::Blob(..) => None,
            };
            let why = why.or(kept).unwrap_or_else(|| "nothing here or in another store holds it".to_owned());
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
    let mut heal = Heal::begin(ward, options, run).await?;
    heal.mend(run).await?;
    Ok(heal.end())
}

/// A heal that has looked: what it found can be written down before anything is done, and what it did although it then broke.
pub struct Heal<'a> {
    ward: &'a Ward,
    options: verify::Options,
    /// The packs that were read and found whole.
    whole: HashSet<ObjectId>,
    may_write: bool,
    healed: Healed,
}

impl<'a> Heal<'a> {
    /// Verifies a store.
    ///
    /// # Errors
    /// Where the store cannot be read or the run was stopped.
    pub async fn begin(ward: &'a Ward, options: verify::Options, run: &Run) -> Result<Self, HealError> {
        let lock = place::lock_to_read(&ward.repository, run).await?;
        let may_write = lock.is_some();
        let report = verify::verify(&ward.repository, options, run).await;
        place::unlock(lock, run).await;
        let report = report?;
        let whole = whole_packs(&ward.repository, &report);
        let healed = Healed {
            store: ward.name.clone(),
            found: report.findings().count() as u64,
            mended: Vec::new(),
            report,
            left: Vec::new(),
            away: ward.away.iter().cloned().collect(),
            kept: BTreeMap::new(),
        };
        Ok(Self { ward, options, whole, may_write, healed })
    }

    /// Returns what is known so far.
    #[must_use]
    pub fn so_far(&self) -> &Healed {
        &self.healed
    }

    /// Mends what was found.
    ///
    /// # Errors
    /// Like [`Heal::begin`]; what was mended before is known.
    pub async fn mend(&mut self, run: &Run) -> Result<(), HealError> {
        if !self.may_write {
            self.healed.leave_all("no lock could be taken, and without one nothing is put back");
            return Ok(());
        }
        let mut rounds = 0;
        while !self.healed.is_sound() && round(self.ward, &mut self.healed, run).await? {
            if !self.look_again(run).await? {
                return Ok(());
            }
            rounds += 1;
            if rounds == ROUNDS_MAX {
                self.healed.leave_all(&format!("{ROUNDS_MAX} rounds are enough for one run: run it again"));
                return Ok(());
            }
        }
        if self.ward.salvages && !self.healed.is_sound() && salvage(self.ward, &mut self.healed, run).await? {
            self.look_again(run).await?;
        }
        Ok(())
    }

    /// Returns what was found and mended, with one reason for each finding that is left.
    #[must_use]
    pub fn end(mut self) -> Healed {
        self.healed.explain();
        self.healed
    }

    /// Verifies what was mended; tells whether that could be done. Where another works alone on the store by now, what was put back
    /// counts as left until somebody has looked.
    async fn look_again(&mut self, run: &Run) -> Result<bool, HealError> {
        let repository = &self.ward.repository;
        let lock = match place::lock_to_read(repository, run).await {
            Ok(lock) => lock,
            Err(error @ RepositoryError::Locked { .. }) => {
                self.healed.leave_all(&format!("not looked at again: {error}"));
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let report = verify::verify_but(repository, self.options, self.whole.clone(), run).await;
        place::unlock(lock, run).await;
        let report = report?;
        self.healed.report = Report { checked: report.checked.after(self.healed.report.checked), ..report };
        self.healed.disown();
        Ok(true)
    }
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
    let plan = plan::make(ward, &report, &Tried::default(), run).await?;
    Ok((report, plan))
}

/// What was tried in this heal, by paths: whatever it came to, it is not tried twice.
#[derive(Default)]
struct Tried {
    put: HashSet<String>,
    removed: HashSet<String>,
}

impl Tried {
    fn of(healed: &Healed) -> Self {
        let left = healed.left.iter().map(|left| left.object.clone());
        let put = left.chain(healed.mended.iter().map(|mended| mended.what.clone())).collect();
        let removed =
            healed.mended.iter().filter(|mended| mended.how == How::Removed).map(|mended| mended.what.clone());
        Self { put, removed: removed.chain(healed.kept.keys().map(Key::to_string)).collect() }
    }
}

/// Plans and does what can be done by what is known so far; tells whether another round may do more.
async fn round(ward: &Ward, healed: &mut Healed, run: &Run) -> Result<bool, HealError> {
    let tried = Tried::of(healed);
    let plan = plan::make(ward, &healed.report, &tried, run).await?;
    healed.away.extend(plan.away.iter().cloned());
    healed.left.extend(plan.left.iter().cloned());
    let before = (healed.mended.len(), healed.kept.len());
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
        let changed = apply::change_index(ward, &plan, &tried, &lock, healed, run).await;
        place::unlock(lock, run).await;
        changed?;
    }
    // Each object counts once: an index that no store could give is made anew, a blob may be in another pack than the one that no
    // store could give, and a damaged index file that may not be deleted can still be overwritten.
    let seeks_blobs = healed.report.findings().any(|finding| matches!(finding.object, Object::Blob(..)));
    let has_other_way = |one: &&PutBack| match one.object.kind {
        FileKind::Index => true,
        FileKind::Pack => seeks_blobs,
        _ => false,
    };
    let replaceable: HashSet<String> =
        plan.put_back.iter().filter(has_other_way).map(|one| one.object.to_string()).collect();
    let is_replaceable = |left: &Left| replaceable.contains(&left.object);
    Ok(before != (healed.mended.len(), healed.kept.len()) || healed.left.iter().any(is_replaceable))
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
