//! The verbs on passwords: one is added everywhere, a key file is planned away, and a change is safe to kill at any point.
//!
//! A copy is a repository with the same key files, so each of these acts on the repository first and then on the copies. Adding
//! goes on beside others, as a backup does. Taking away wants the exclusive lock, as restic does it: a `bkp copy` that listed the
//! keys before would bring the old one back, and two who each remove the other's key would leave none.
//!
//! Where a record is kept of what was sent to a copy, it is told of each key: noted once it is there, struck off before it goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::copy::{LedgerError, LedgerFile};
use crate::forget::Alone;
use crate::human;
use crate::id::ObjectId;
use crate::place::{self, PlaceError};
use crate::policy::Policy;
use crate::repository::key::Cost;
use crate::repository::{KeyList, KeyRecord, Repository, RepositoryError};
use crate::run::Run;
use crate::secret::Secret;
use crate::store::{FileKind, Key};

/// The repository or a copy, opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// As catalog and reports call it: `repository`, or the copy's name.
    pub name: String,
    pub repository: Arc<Repository>,
    /// Of a copy of which a record is kept.
    pub ledger: Option<LedgerFile>,
}

impl Opened {
    /// Opens a copy of a policy.
    ///
    /// # Errors
    /// As [`place::repository_in`].
    pub async fn copy(policy: &Policy, name: &str, run: &Run) -> Result<Self, PlaceError> {
        let repository = place::repository_in(policy, Some(name), run).await?;
        let ledger = LedgerFile::of(policy, place::find_copy(policy, name)?);
        Ok(Self { name: name.to_owned(), repository, ledger })
    }

    /// Puts a key file and proves that it opens.
    async fn put(&self, file: &Bytes, password: &Secret, run: &Run) -> Result<ObjectId, RepositoryError> {
        let id = self.repository.put_key(file, password).await?;
        if let Err(error) = self.note(id, file.len() as u64) {
            let (name, error) = (&self.name, human::chain(&error));
            run.events.warn(format!("{name}: the next copy sends key {} once more: {error}", id.short()));
        }
        Ok(id)
    }

    fn note(&self, id: ObjectId, size: u64) -> Result<(), LedgerError> {
        let Some(file) = &self.ledger else { return Ok(()) };
        let (ledger, key) = (file.open(self.repository.id())?, key_object(id));
        // What is known of its lock stays known.
        if ledger.has(&key) { Ok(()) } else { ledger.note(&key, size, None) }
    }

    fn strike(&self, gone: &BTreeSet<ObjectId>) -> Result<(), LedgerError> {
        let Some(file) = &self.ledger else { return Ok(()) };
        let keys: Vec<Key> = gone.iter().map(|id| key_object(*id)).collect();
        file.open(self.repository.id())?.strike(&keys)
    }
}

fn key_object(id: ObjectId) -> Key {
    Key::new(FileKind::Key, id.to_string())
}

/// Where a verb on passwords acts.
#[derive(Debug, Clone)]
pub struct Places {
    /// The repository, or the one copy that was named.
    pub first: Opened,
    pub copies: Vec<Opened>,
}

impl Places {
    pub fn all(&self) -> impl Iterator<Item = &Opened> {
        std::iter::once(&self.first).chain(&self.copies)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("choose a key: no id begins with `{0}`")]
    UnknownId(String),
    #[error("choose a key: more than one id begins with `{0}`")]
    AmbiguousId(String),
    #[error("remove key {}: it is the one that opens {place} for us", id.short())]
    InUse { id: ObjectId, place: String },
    #[error("remove key {}: no other in {place} is proved to open it", id.short())]
    Last { id: ObjectId, place: String },
    #[error("remove key {} from copy `{copy}` alone: the repository has it too, and the next `bkp copy` would bring it back", id.short())]
    Listed { id: ObjectId, copy: String },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl KeysError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownId(_) | Self::AmbiguousId(_) => "`bkp key list` lists the ids",
            Self::InUse { .. } => "change it with `bkp key passwd`, or let the policy use another password first",
            Self::Last { .. } => "add another with `bkp key add` first: without a key nothing opens any more",
            Self::Listed { .. } => "leave `--copy` out: it is removed from the repository and from each copy",
            Self::Repository(error) => return error.hint(),
            Self::Ledger(error) => return error.hint(),
        };
        Some(text.to_owned())
    }
}

/// The key files of one place, and which of them opened it.
#[derive(Debug, Clone)]
pub struct PlaceKeys {
    pub name: String,
    pub used: ObjectId,
    pub list: KeyList,
}

impl PlaceKeys {
    /// Lists the key files of a place.
    ///
    /// # Errors
    /// Where its store cannot be read.
    pub async fn of(place: &Opened) -> Result<Self, RepositoryError> {
        let list = place.repository.keys().await?;
        Ok(Self { name: place.name.clone(), used: place.repository.key(), list })
    }

    /// Returns the ids of all key files, those included that cannot be read.
    pub fn ids(&self) -> impl Iterator<Item = ObjectId> {
        let damaged = self.list.damaged.iter().filter_map(|fault| fault.object.name.parse().ok());
        self.list.found.iter().map(|record| record.id).chain(damaged)
    }

    /// Refuses to take a key away where that would shut us out.
    fn spares(&self, id: ObjectId) -> Result<(), KeysError> {
        let place = self.name.clone();
        if self.used == id {
            return Err(KeysError::InUse { id, place });
        }
        if self.has_whole(self.used) { Ok(()) } else { Err(KeysError::Last { id, place }) }
    }

    /// Tells whether a key file is there with the bytes that it was written with. One that is damaged may open nothing.
    fn has_whole(&self, id: ObjectId) -> bool {
        self.list.found.iter().any(|record| record.id == id)
    }
}

/// Which key file goes, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub id: ObjectId,
    /// `None` for one that cannot be read.
    pub record: Option<KeyRecord>,
    /// The names of the places that have it.
    pub places: Vec<String>,
}

impl Removal {
    /// Finds the key file whose id begins so, in all places at once: one that a copy was not rid of is found there.
    ///
    /// # Errors
    /// [`KeysError`] where the id means none or several, or where a place would be left without the key that opens it.
    pub fn plan(prefix: &str, all: &[PlaceKeys]) -> Result<Self, KeysError> {
        let fits = |id: &ObjectId| id.to_string().starts_with(&prefix.to_lowercase());
        let found: BTreeSet<ObjectId> = all.iter().flat_map(PlaceKeys::ids).filter(fits).collect();
        let mut found = found.into_iter();
        let id = match (found.next(), found.next()) {
            (Some(id), None) => id,
            (None, _) => return Err(KeysError::UnknownId(prefix.to_owned())),
            (Some(_), Some(_)) => return Err(KeysError::AmbiguousId(prefix.to_owned())),
        };
        let having: Vec<&PlaceKeys> = all.iter().filter(|place| place.ids().any(|found| found == id)).collect();
        having.iter().try_for_each(|place| place.spares(id))?;
        let record = having.iter().flat_map(|place| &place.list.found).find(|record| record.id == id).cloned();
        Ok(Self { id, record, places: having.iter().map(|place| place.name.clone()).collect() })
    }

    /// Takes the key file away, from the repository first: a copy would get it again. Where that fails, the copies keep theirs.
    pub async fn apply(&self, places: &Places, run: &Run) -> Removed {
        let mut removed = Removed::default();
        for place in places.all().filter(|place| self.places.contains(&place.name)) {
            match remove(place, self.id, run).await {
                Ok(()) => removed.done.push(place.name.clone()),
                Err(error) => {
                    removed.failed.push((place.name.clone(), error));
                    if place.name == places.first.name {
                        break;
                    }
                }
            }
        }
        removed
    }
}

/// From where a key file was taken away, and where that failed.
#[derive(Debug, Default)]
pub struct Removed {
    pub done: Vec<String>,
    pub failed: Vec<(String, KeysError)>,
}

/// What an addition of a password did.
#[derive(Debug)]
pub struct Added {
    pub new: ObjectId,
    /// The places that the password opens.
    pub done: Vec<String>,
    pub failed: Vec<(String, KeysError)>,
}

/// Adds a password everywhere, and proves that it opens.
///
/// # Errors
/// Where it could not be added to the first place.
pub async fn add(places: &Places, password: &Secret, cost: Cost, run: &Run) -> Result<Added, RepositoryError> {
    let first = &places.first;
    let file = first.repository.seal_key(password, cost, run).await?;
    let new = put(first, &file, password, run).await?;
    let mut added = Added { new, done: vec![first.name.clone()], failed: Vec::new() };
    for copy in &places.copies {
        match put(copy, &file, password, run).await {
            Ok(_) => added.done.push(copy.name.clone()),
            Err(error) => added.failed.push((copy.name.clone(), error.into())),
        }
    }
    Ok(added)
}

/// Puts a key file into a place and proves that it opens, while nobody takes keys away there.
///
/// # Errors
/// Where another works alone on the place, or its store refuses.
pub async fn put(to: &Opened, file: &Bytes, password: &Secret, run: &Run) -> Result<ObjectId, RepositoryError> {
    let lock = place::lock_to_read(&to.repository, run).await?;
    let put = to.put(file, password, run).await;
    place::unlock(lock, run).await;
    put
}

/// What a change of password did.
#[derive(Debug)]
pub struct Changed {
    pub new: ObjectId,
    /// The places whose old password opens nothing any more.
    pub done: Vec<String>,
    /// The places that only the old password opens: the new one could not be added.
    pub lacking: Vec<(String, KeysError)>,
    /// The places that both passwords open: the old one could not be removed.
    pub failed: Vec<(String, KeysError)>,
}

/// Changes the password: the new key file is put everywhere and proved to open, and only then every key file that the old password
/// opens goes, from the repository first. At any point one of the two passwords opens each place.
///
/// # Errors
/// [`KeysError`] where nothing was changed but perhaps the new password added.
pub async fn change(places: &Places, old: &Secret, new: &Secret, cost: Cost, run: &Run) -> Result<Changed, KeysError> {
    let file = places.first.repository.seal_key(new, cost, run).await?;
    // Before the first key is put: a change that is refused for another's work leaves nothing behind, however often it is tried.
    let lock = Alone::take(&places.first.repository, run).await?;
    let changed = change_alone(places, old, (&file, new), run).await;
    place::unlock(lock.into_guard(), run).await;
    changed
}

async fn change_alone(
    places: &Places,
    old: &Secret,
    (file, new): (&Bytes, &Secret),
    run: &Run,
) -> Result<Changed, KeysError> {
    let id = places.first.put(file, new, run).await?;
    let mut changed = Changed { new: id, done: Vec::new(), lacking: Vec::new(), failed: Vec::new() };
    let mut ready = Vec::new();
    for copy in &places.copies {
        match copy.put(file, new, run).await {
            Ok(_) => ready.push(copy),
            Err(error) => changed.lacking.push((copy.name.clone(), error.into())),
        }
    }
    // The last moment at which a signal leaves all as it was.
    run.check().map_err(RepositoryError::from)?;
    retire_alone(&places.first, old, id).await?;
    changed.done.push(places.first.name.clone());
    for copy in ready {
        match retire(copy, old, id, run).await {
            Ok(()) => changed.done.push(copy.name.clone()),
            Err(error) => changed.failed.push((copy.name.clone(), error)),
        }
    }
    Ok(changed)
}

async fn retire(copy: &Opened, old: &Secret, new: ObjectId, run: &Run) -> Result<(), KeysError> {
    let lock = Alone::take(&copy.repository, run).await?;
    let retired = retire_alone(copy, old, new).await;
    place::unlock(lock.into_guard(), run).await;
    retired
}

/// Deletes every key file that the old password opens: a change that broke off leaves two for one password.
async fn retire_alone(place: &Opened, old: &Secret, new: ObjectId) -> Result<(), KeysError> {
    let mut gone: BTreeSet<ObjectId> = place.repository.keys_opened_by(old).await?.into_iter().collect();
    gone.insert(place.repository.key());
    gone.remove(&new);
    remove_alone(place, &gone, new).await
}

async fn remove(place: &Opened, id: ObjectId, run: &Run) -> Result<(), KeysError> {
    let lock = Alone::take(&place.repository, run).await?;
    let removed = remove_alone(place, &BTreeSet::from([id]), place.repository.key()).await;
    place::unlock(lock.into_guard(), run).await;
    removed
}

/// Deletes key files alone on the place, as long as the one that is to open it from then on is whole; sees that they are gone.
async fn remove_alone(place: &Opened, gone: &BTreeSet<ObjectId>, kept: ObjectId) -> Result<(), KeysError> {
    let Some(&any) = gone.first() else { return Ok(()) };
    // Listed again: only now does nobody else take keys away.
    if !PlaceKeys::of(place).await?.has_whole(kept) {
        return Err(KeysError::Last { id: any, place: place.name.clone() });
    }
    place.strike(gone)?;
    for id in gone {
        place.repository.remove_key(*id).await?;
    }
    match PlaceKeys::of(place).await?.ids().find(|id| gone.contains(id)) {
        None => Ok(()),
        Some(id) => {
            let (thing, reason) = (format!("key {}", id.short()), "it is still listed after its delete".to_owned());
            Err(RepositoryError::Unproved { thing, reason }.into())
        }
    }
}
