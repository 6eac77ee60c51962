//! Objects other than packs: fetched whole, named by their hash, sealed JSON.

use bytes::Bytes;

use crate::id::ObjectId;
use crate::repository::error::RepositoryError;
use crate::seal::{self, MasterKey};
use crate::store::{FileKind, Key, SharedStore};

/// Fetches a document and proves that its bytes are the ones its name says.
pub(super) async fn load(
    store: &SharedStore,
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

/// Seals a document and makes it durable.
pub(super) async fn save(
    store: &SharedStore,
    master: &MasterKey,
    kind: FileKind,
    json: &[u8],
) -> Result<ObjectId, RepositoryError> {
    let (id, key, bytes) = seal(master, kind, json)?;
    store.put(&key, bytes).await?;
    Ok(id)
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
