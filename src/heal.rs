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
//! still read. Only three things go: a damaged index file once every pack that is here is named by another, a file under a wrong
//! name whose bytes are here under their right one, and a pack of which no snapshot needs anything that is not whole in others. A
//! snapshot that is gone without a trace was forgotten: it does not come back.
//!
//! # What no store holds whole
//! A donor that was pruned, or written by itself, may hold what a pack held in packs of other names. So the blobs that open nowhere here are
//! looked up in the donors' indexes and gathered: new packs first, each blob proved, then an index file that names them. That is what a
//! backup does, under a shared lock. What came stays, however little it is; only the rest is lost. Once nothing that a snapshot needs is
//! lost with the old pack, it is replaced: under an exclusive lock, by the trees of all snapshots rather than by what a verify told, what
//! still reads of it moves, new index files take the place of those that name it, and last it is deleted. A kill between any two of these
//! leaves more copies of a blob than are needed, never fewer.
//!
//! A damaged pack that snapshots need more of stays, and a backup goes on to rely on it: whether each byte of a pack reads is not looked
//! at for every file. Only where the operator says so (`--salvage`) is it given up all the same. Then the lost blobs are named as such,
//! and the next backup stores them again.
//!
//! # Locks
//! Putting an object back under its own name changes nothing for who reads or adds beside it, restic's backups included: before it
//! the object was of no use, after it is what it always was. So a shared lock is enough, and needed: it keeps a prune, which deletes
//! packs, from working on a list of what is there that we change. An index file that is made from packs is another matter: a backup
//! beside us has packs on their way that no index names yet, and who has listed an index file expects to find it. So that is done
//! under an exclusive lock, taken for the minute that it needs.

mod apply;
mod donors;
mod give_up;
mod healed;
pub mod plan;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

pub use crate::heal::healed::{Healed, How, Mended};
pub use crate::heal::plan::{Gather, HealPlan, Left, PutBack};

use crate::heal::donors::Donors;
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

/// Verifies a store and mends what is found.
///
/// # Errors
/// Where the store cannot be read or the run was stopped. What cannot be mended is in the result.
pub async fn heal(ward: &Ward, options: verify::Options, run: &Run) -> Result<Healed, HealError> {
    let mut heal = Heal::begin(&ward.name, &ward.repository, options, run).await?;
    if !heal.so_far().is_sound() {
        heal.mend(ward, run).await?;
    }
    Ok(heal.end())
}

/// A heal that has looked: what it found can be written down before anything is done, and what it did although it then broke. Who it
/// may be mended from has to be known only now, where there is something to mend.
pub struct Heal {
    repository: Arc<Repository>,
    options: verify::Options,
    /// The packs that were read and found whole.
    whole: HashSet<ObjectId>,
    may_write: bool,
    tried: Tried,
    healed: Healed,
}

impl Heal {
    /// Verifies a store.
    ///
    /// # Errors
    /// Where the store cannot be read or the run was stopped.
    pub async fn begin(
        name: &str,
        repository: &Arc<Repository>,
        options: verify::Options,
        run: &Run,
    ) -> Result<Self, HealError> {
        let lock = place::lock_to_read(repository, run).await?;
        let may_write = lock.is_some();
        let report = verify::verify(repository, options, run).await;
        place::unlock(lock, run).await;
        let report = report?;
        let (repository, whole) = (Arc::clone(repository), whole_packs(repository, &report));
        let healed = Healed::new(name, report);
        Ok(Self { repository, options, whole, may_write, tried: Tried::default(), healed })
    }

    /// Returns what is known so far.
    #[must_use]
    pub fn so_far(&self) -> &Healed {
        &self.healed
    }

    /// Returns what [`Heal::mend`] would do first. What comes to light once that is done is not in it.
    ///
    /// # Errors
    /// Where the store cannot be read or the run was stopped.
    pub async fn plan(&self, ward: &Ward, run: &Run) -> Result<HealPlan, HealError> {
        plan::make(ward, &mut Donors::new(ward, run), &self.healed.report, &self.tried, run).await
    }

    /// Mends what was found, in the ward where the store lies.
    ///
    /// # Errors
    /// Like [`Heal::begin`]; what was mended before is known.
    pub async fn mend(&mut self, ward: &Ward, run: &Run) -> Result<(), HealError> {
        self.healed.away.extend(ward.away.iter().cloned());
        if !self.may_write {
            self.leave_unlocked();
            return Ok(());
        }
        let mut rounds = 0;
        while !self.healed.is_sound() && round(ward, &mut self.healed, &mut self.tried, run).await? {
            if !self.look_again(run).await? {
                return Ok(());
            }
            rounds += 1;
            if rounds == ROUNDS_MAX {
                self.healed.leave_all(&format!("{ROUNDS_MAX} rounds are enough for one run: run it again"));
                return Ok(());
            }
        }
        if give_up::replaced(ward, &mut self.healed, run).await? && !self.look_again(run).await? {
            return Ok(());
        }
        if ward.salvages && give_up::salvaged(ward, &mut self.healed, run).await? {
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

    /// Notes that no lock could be had to mend anything: one that cannot be read stands in the way, or nobody may put one.
    fn leave_unlocked(&mut self) {
        let why = "no lock could be taken, and without one nothing is put back";
        let is_lock = |object: &Object| matches!(object, Object::Stored(key) if key.kind == FileKind::Lock);
        if self.healed.report.findings().any(|finding| is_lock(&finding.object)) {
            self.healed.leave_locked(why, |_| true);
        } else {
            self.healed.leave_all(why);
        }
    }

    /// Verifies what was mended; tells whether that could be done, or whether another works alone on the store by now.
    async fn look_again(&mut self, run: &Run) -> Result<bool, HealError> {
        let lock = match place::lock_to_read(&self.repository, run).await {
            Ok(lock) => lock,
            Err(error @ RepositoryError::Locked { .. }) => {
                self.healed.leave_unseen(&error);
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let report = verify::verify_but(&self.repository, self.options, self.whole.clone(), run).await;
        place::unlock(lock, run).await;
        let report = report?;
        self.healed.report = Report { checked: report.checked.after(self.healed.report.checked), ..report };
        self.tried.ungiven.extend(self.healed.disown());
        Ok(true)
    }
}

/// What was tried in this heal, by paths: whatever it came to, it is not tried twice.
#[derive(Default)]
struct Tried {
    put: HashSet<String>,
    removed: HashSet<String>,
    /// What no donor gave whole.
    ungiven: HashSet<String>,
    /// Packs whose lost blobs, and blobs that, were looked for in the donors' other packs.
    gathered: HashSet<String>,
}

impl Tried {
    fn note(&mut self, healed: &Healed) {
        self.put.extend(healed.left.iter().map(|left| left.object.clone()));
        self.put.extend(healed.mended.iter().map(|mended| mended.what.clone()));
        let removed = healed.mended.iter().filter(|mended| mended.how == How::Removed);
        self.removed.extend(removed.map(|mended| mended.what.clone()));
        self.removed.extend(healed.kept.keys().map(Key::to_string));
    }
}

/// Plans and does what can be done by what is known so far; tells whether another round may do more.
async fn round(ward: &Ward, healed: &mut Healed, tried: &mut Tried, run: &Run) -> Result<bool, HealError> {
    tried.note(healed);
    let mut donors = Donors::new(ward, run);
    let plan = plan::make(ward, &mut donors, &healed.report, tried, run).await?;
    healed.away.extend(plan.away.iter().cloned());
    healed.left.extend(plan.left.iter().cloned());
    let before = (healed.mended.len(), healed.kept.len());
    let mut takes = true;
    if !plan.put_back.is_empty() || !plan.gathered.is_empty() {
        let meant: HashSet<_> = plan.objects().collect();
        let Some(lock) =
            lock(ward, LockMode::Shared, |object| meant.contains(&object.to_string()), healed, run).await?
        else {
            return Ok(false);
        };
        let put = apply::put(ward, &plan, &mut donors, healed, tried, run).await;
        place::unlock(lock, run).await;
        takes = put?;
    }
    if plan.changes_index() {
        let told = healed.told();
        let is_meant = |object: &Object| match object {
            Object::Stored(key) => key.kind == FileKind::Index || plan.removed.contains(key),
            Object::Blob(..) => !told.contains(&object.to_string()),
        };
        let Some(lock) = lock(ward, LockMode::Exclusive, is_meant, healed, run).await? else {
            return Ok(healed.mended.len() > before.0);
        };
        let changed = apply::change_index(ward, &plan, tried, &lock, healed, run).await;
        place::unlock(lock, run).await;
        changed?;
    }
    // Each object counts once: an index that no store could give is made anew, the blobs of a pack that no store could give may lie in
    // other packs there, and a damaged index file that may not be deleted can still be overwritten.
    let has_other_way = |one: &&PutBack| match one.object.kind {
        FileKind::Index => true,
        FileKind::Pack => takes && tried.ungiven.contains(&one.object.to_string()),
        _ => false,
    };
    let replaceable: HashSet<String> =
        plan.put_back.iter().filter(has_other_way).map(|one| one.object.to_string()).collect();
    let is_replaceable = |left: &Left| replaceable.contains(&left.object);
    Ok(before != (healed.mended.len(), healed.kept.len()) || healed.left.iter().any(is_replaceable))
}

/// Takes a lock; where somebody holds another for longer than a heal waits, that is the reason why what is meant is left.
async fn lock(
    ward: &Ward,
    mode: LockMode,
    is_meant: impl Fn(&Object) -> bool,
    healed: &mut Healed,
    run: &Run,
) -> Result<Option<LockGuard>, HealError> {
    match ward.repository.lock(mode, ward.lock_wait, run).await {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ (RepositoryError::Locked { .. } | RepositoryError::DamagedLock { .. })) => {
            healed.leave_locked(&error.to_string(), is_meant);
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
