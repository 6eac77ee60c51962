//! A dump in a repository, read for loading.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use futures_util::stream::BoxStream;

use crate::id::BlobId;
use crate::mysql::manifest::Manifest;
use crate::repository::BlobKind;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::repository::tree::Tree;
use crate::target::mysql::DumpReadError;
use crate::target::mysql::DumpReader;

/// Blobs of one row file that are fetched ahead of the server: at about 1 MiB each a connection holds a few MiB.
const BLOBS_AHEAD: usize = 3;

/// A dump whose files lie in a snapshot.
pub struct RepositoryDump {
    repository: Arc<Repository>,
    manifest: Manifest,
    files: HashMap<String, Vec<BlobId>>,
}

impl RepositoryDump {
    /// Reads the manifest and the trees of a dump; row files are read when they are asked for.
    ///
    /// # Errors
    /// [`RepositoryError`] where a tree does not open.
    pub async fn open(
        repository: &Arc<Repository>,
        root: &BlobId,
        source: &str,
        manifest: Manifest,
    ) -> Result<Self, RepositoryError> {
        let mut files = HashMap::new();
        let prefix = format!("mysql/{source}/");
        let mut open = vec![(String::new(), *root)];
        while let Some((dir, id)) = open.pop() {
            let tree: Tree = repository.tree(&id).await?;
            for node in tree.nodes {
                let path = format!("{dir}{}", node.name.to_string_lossy());
                if let Some(subtree) = node.subtree {
                    open.push((format!("{path}/"), subtree));
                } else {
                    let below = path.strip_prefix(&prefix).unwrap_or(&path).to_owned();
                    files.insert(below, node.content);
                }
            }
        }
        Ok(Self { repository: repository.clone(), manifest, files })
    }

    fn blobs(&self, path: &str) -> Result<Vec<BlobId>, DumpReadError> {
        self.files.get(path).cloned().ok_or_else(|| DumpReadError::Missing { path: path.to_owned() })
    }
}

#[async_trait::async_trait]
impl DumpReader for RepositoryDump {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, DumpReadError> {
        let mut bytes = Vec::new();
        for id in self.blobs(path)? {
            let blob = self.repository.blob(BlobKind::Data, &id).await;
            bytes.extend(blob.map_err(|error| unreadable(path, error))?);
        }
        Ok(bytes)
    }

    fn stream(&self, path: &str) -> BoxStream<'static, Result<Bytes, DumpReadError>> {
        let blobs = match self.blobs(path) {
            Ok(blobs) => blobs,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let (repository, path) = (self.repository.clone(), path.to_owned());
        let fetch = move |id: BlobId| {
            let (repository, path) = (repository.clone(), path.clone());
            // A task of its own, so that opening blobs runs on other threads than the connection that sends them.
            async move {
                let opened = tokio::spawn(async move { repository.blob(BlobKind::Data, &id).await }).await;
                match opened {
                    Ok(Ok(bytes)) => Ok(Bytes::from(bytes)),
                    Ok(Err(error)) => Err(unreadable(&path, error)),
                    Err(error) => Err(DumpReadError::Other { path, source: Box::new(error) }),
                }
            }
        };
        stream::iter(blobs).map(fetch).buffered(BLOBS_AHEAD).boxed()
    }
}

/// Tells damage, which no new try mends, from a store that cannot be reached now.
fn unreadable(path: &str, error: RepositoryError) -> DumpReadError {
    let path = path.to_owned();
    if error.is_damage() {
        DumpReadError::Damaged { path, source: Some(Box::new(error)) }
    } else {
        DumpReadError::Other { path, source: Box::new(error) }
    }
}
