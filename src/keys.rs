//! The verbs on passwords: which key file a removal takes away and where, and a change that is safe to kill at any point.
//!
//! A copy is a repository with the same key files, so each of these acts on the repository first and then on the copies. Adding
//! goes on beside others, as a backup does. Taking away wants the exclusive lock, as restic does it: a `bkp copy` that listed the
//! keys before would bring the old one back, and two who each remove the other's key would leave none.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::forget::Alone;
use crate::id::ObjectId;
use crate::place;
use crate::repository::key::Cost;
use crate::repository::{KeyList, KeyRecord, Repository, RepositoryError};
use crate::run::Run;
use crate::secret::Secret;

/// The repository or a copy, opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// As catalog and reports call it: `repository`, or the copy's name.
    pub name: String,
    pub repository: Arc<Repository>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum KeysError {
    #[error("choose a key: no id begins with `{0}`")]
    UnknownId(String),
    #[error("choose a key: more than one id begins with `{0}`")]
    AmbiguousId(String),
    #[error("remove key {}: it is the one that opens {place} for us", id.short())]
    InUse { id: ObjectId, place: String },
    #[error("remove key {}: no other in {place} is proved to open it", id.short())]
    Last { id: ObjectId, place: String },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl KeysError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownId(_) | Self::AmbiguousId(_) => "`bkp key list` lists the ids",
            Self::InUse { .. } => "change it with `bkp key passwd`, or let the policy use another password first",
            Self::Last { .. } => "add another with `bkp key add` first: without a key nothing opens any more",
            Self::Repository(error) => return error.hint(),
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

    fn ids(&self) -> impl Iterator<Item = ObjectId> {
        let damaged = self.list.damaged.iter().filter_map(|fault| fault.object.name.parse().ok());
        self.list.found.iter().map(|record| record.id).chain(damaged)
    }

    /// Refuses to take a key away where that would shut us out.
    fn spares(&self, id: ObjectId) -> Result<(), KeysError> {
        let place = self.name.clone();
        if self.used == id {
            return Err(KeysError::InUse { id, place });
        }
        let has_ours = self.list.found.iter().any(|record| record.id == self.used);
        if has_ours { Ok(()) } else { Err(KeysError::Last { id, place }) }
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
    pub async fn apply(&self, places: &[Opened], run: &Run) -> Removed {
        let mut removed = Removed::default();
        for (rank, place) in places.iter().enumerate().filter(|(_, place)| self.places.contains(&place.name)) {
            match remove(place, [self.id; 2], place.repository.key(), run).await {
                Ok(()) => removed.done.push(place.name.clone()),
                Err(error) => {
                    removed.failed.push((place.name.clone(), error));
                    if rank == 0 {
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

/// Adds a password, and proves that it opens.
///
/// # Errors
/// Where another works alone on the repository, or the store refuses.
pub async fn add(to: &Repository, password: &Secret, cost: Cost, run: &Run) -> Result<ObjectId, RepositoryError> {
    let file = to.seal_key(password, cost, run).await?;
    let lock = place::lock_to_read(to, run).await?;
    let added = to.put_key(&file, password).await;
    place::unlock(lock, run).await;
    added
}

/// What a change of password did.
#[derive(Debug)]
pub struct Changed {
    pub new: ObjectId,
    /// The places whose old password opens nothing any more.
    pub done: Vec<String>,
    /// The places whose old password still opens them.
    pub failed: Vec<(String, KeysError)>,
}

/// Changes the password: the new key file is put everywhere and proved to open, and only then the old one goes, from the repository
/// first. At any point one of the two passwords opens each place.
///
/// # Errors
/// [`KeysError`] where nothing was changed but perhaps the new password added.
pub async fn change(places: &[Opened], password: &Secret, cost: Cost, run: &Run) -> Result<Changed, KeysError> {
    let Some((first, copies)) = places.split_first() else {
        return Err(KeysError::UnknownId(String::new()));
    };
    let file = first.repository.seal_key(password, cost, run).await?;
    let mut changed =
        Changed { new: add_file(first, &file, password, run).await?, done: Vec::new(), failed: Vec::new() };
    let mut ready = vec![first];
    for copy in copies {
        match add_file(copy, &file, password, run).await {
            Ok(_) => ready.push(copy),
            Err(error) => changed.failed.push((copy.name.clone(), error)),
        }
    }
    let old = first.repository.key();
    for place in ready {
        // A copy may have been opened by another key file with the same password.
        let gone = [old, place.repository.key()];
        match remove(place, gone, changed.new, run).await {
            Ok(()) => changed.done.push(place.name.clone()),
            Err(error) if place.name == first.name => return Err(error),
            Err(error) => changed.failed.push((place.name.clone(), error)),
        }
    }
    Ok(changed)
}

async fn add_file(place: &Opened, file: &Bytes, password: &Secret, run: &Run) -> Result<ObjectId, KeysError> {
    run.check().map_err(RepositoryError::from)?;
    Ok(place.repository.put_key(file, password).await?)
}

/// Deletes key files alone on the place, as long as the one that is to open it from then on is there; sees that they are gone.
async fn remove(place: &Opened, gone: [ObjectId; 2], kept: ObjectId, run: &Run) -> Result<(), KeysError> {
    let lock = Alone::take(&place.repository, run).await?;
    let removed = remove_alone(place, gone, kept).await;
    place::unlock(lock.into_guard(), run).await;
    removed
}

async fn remove_alone(place: &Opened, gone: [ObjectId; 2], kept: ObjectId) -> Result<(), KeysError> {
    // Listed again: only now does nobody else take keys away.
    if !PlaceKeys::of(place).await?.ids().any(|id| id == kept) {
        return Err(KeysError::Last { id: gone[0], place: place.name.clone() });
    }
    for id in gone {
        place.repository.remove_key(id).await?;
    }
    match PlaceKeys::of(place).await?.ids().find(|id| gone.contains(id)) {
        None => Ok(()),
        Some(id) => {
            let (thing, reason) = (format!("key {}", id.short()), "it is still listed after its delete".to_owned());
            Err(RepositoryError::Unproved { thing, reason }.into())
        }
    }
}
