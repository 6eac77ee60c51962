//! The dump of `bkp` into a repository whose packs are thrown away: what is left are the disk's share and the read-back.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bkp::backup::{self, Options};
use bkp::id::ObjectId;
use bkp::policy::Policy;
use bkp::repository::Repository;
use bkp::repository::key::Cost;
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::store::memory::MemoryStore;
use bkp::store::{FileKind, Key, Listed, Store, StoreError};
use bytes::Bytes;
use chrono::{DateTime, Utc};

/// Dumps a policy's source, and returns the bytes of its row files.
pub(crate) fn run(policy: &Path, source: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(policy)?;
    let policy = Policy::parse(&text, policy)?;
    let options = Options { sources: vec![source.to_owned()], ..Options::default() };
    let run = Run::silent();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let store = Arc::new(Forgetful(MemoryStore::new()));
        let repository = Repository::init_with(store, &Secret::new("thrown away".into()), Cost::DEFAULT, &run).await?;
        let outcome = backup::backup(&policy, &repository, &options, &run).await?;
        if let Some((_, error)) = outcome.failed.into_iter().next() {
            return Err(error.into());
        }
        Ok(outcome.done.first().context("nothing was dumped")?.bytes)
    })
}

/// Keeps all but packs, and vouches for those.
struct Forgetful(MemoryStore);

#[async_trait::async_trait]
impl Store for Forgetful {
    fn location(&self) -> String {
        self.0.location()
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        if key.kind == FileKind::Pack { Ok(()) } else { self.0.put(key, bytes).await }
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.0.get(key).await
    }

    async fn hash(&self, key: &Key) -> Result<ObjectId, StoreError> {
        match key.name.parse() {
            Ok(id) if key.kind == FileKind::Pack => Ok(id),
            _ => self.0.hash(key).await,
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(key, range).await
    }

    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError> {
        self.0.list(kind).await
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        self.0.size(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.0.delete(key).await
    }

    async fn immutable_until(&self, key: &Key) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.0.immutable_until(key).await
    }
}
