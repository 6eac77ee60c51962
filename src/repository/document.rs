//! Objects other than packs: fetched whole, named by their hash, sealed JSON.

use bytes::Bytes;

use crate::id::ObjectId;
use crate::repository::error::RepositoryError;
use crate::seal::{self, MasterKey};
use crate::store::{FileKind, Key, SharedStore, Store, StoreError};

/// A bit that flipped on its way once does not flip again; a disk that fails twice is for a person.
const PUTS_MAX: usize = 2;

/// Fetches a document and proves that its bytes are the ones its name says.
pub(super) async fn load(
    store: &dyn Store,
    master: &MasterKey,
    kind: FileKind,
    name: &str,
) -> Result<Vec<u8>, RepositoryError> {
    let key = Key::new(kind, name);
    let sealed = store.get(&key).await?;
    check_name(&key, &sealed)?;
    seal::open_document(master, &sealed).map_err(|error| RepositoryError::damaged(&key, error))
}

/// Seals a document and says under which name it is to be put.
pub(super) fn seal(master: &MasterKey, kind: FileKind, json: &[u8]) -> Result<(ObjectId, Key, Bytes), RepositoryError> {
    let sealed = seal::seal_document(master, json).map_err(|error| RepositoryError::refused("document", error))?;
    let id = ObjectId::of(&sealed);
    Ok((id, Key::new(kind, id.to_string()), sealed.into()))
}

/// Seals a document, makes it durable and proves it.
pub(super) async fn save(
    store: &SharedStore,
    master: &MasterKey,
    kind: FileKind,
    json: &[u8],
) -> Result<ObjectId, RepositoryError> {
    let (id, key, bytes) = seal(master, kind, json)?;
    put_proved(store, &key, id, bytes).await?;
    Ok(id)
}

/// What becomes of an object that did not come back as it was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unproved {
    Goes,
    /// What lay there before may still hold more than nothing does.
    Stays,
}

/// Puts an object and has the store hash it: what does not come back as it was sent is deleted and put once more.
pub(super) async fn put_proved(
    store: &SharedStore,
    key: &Key,
    id: ObjectId,
    bytes: Bytes,
) -> Result<(), RepositoryError> {
    put_tried(store, key, id, bytes, Unproved::Goes).await
}

/// Like [`put_proved`], over an object that is there, and deletes nothing.
pub(super) async fn put_over(
    store: &SharedStore,
    key: &Key,
    id: ObjectId,
    bytes: Bytes,
) -> Result<(), RepositoryError> {
    put_tried(store, key, id, bytes, Unproved::Stays).await
}

async fn put_tried(
    store: &SharedStore,
    key: &Key,
    id: ObjectId,
    bytes: Bytes,
    unproved: Unproved,
) -> Result<(), RepositoryError> {
    let mut reason = String::new();
    for _ in 0..PUTS_MAX {
        match put_hashed(store, key, id, bytes.clone()).await? {
            None => return Ok(()),
            Some(fault) => reason = fault,
        }
        if unproved == Unproved::Goes {
            store.delete(key).await?;
        }
    }
    Err(RepositoryError::Unproved { thing: key.to_string(), reason })
}

/// Puts an object and has the store hash it; returns what is wrong with what came back.
async fn put_hashed(
    store: &SharedStore,
    key: &Key,
    id: ObjectId,
    bytes: Bytes,
) -> Result<Option<String>, RepositoryError> {
    store.put(key, bytes).await?;
    match store.hash(key).await {
        Ok(actual) if actual == id => Ok(None),
        Ok(actual) => Ok(Some(format!("it came back with the hash {}", actual.short()))),
        Err(error @ (StoreError::Missing { .. } | StoreError::Unreadable { .. })) => Ok(Some(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Proves that bytes hash to the name they lie under.
pub(super) fn check_name(key: &Key, bytes: &[u8]) -> Result<(), RepositoryError> {
    let actual = ObjectId::of(bytes);
    if actual.to_string() == key.name {
        Ok(())
    } else {
        Err(RepositoryError::damaged(key, format!("its bytes hash to {}", actual.short())))
    }
}
