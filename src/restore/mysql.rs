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

/// Plain bytes of a row file that are fetched together: neighbours in a pack come with one request.
const STRETCH_BYTES: u64 = 4 << 20;

/// Such stretches that each connection has fetched or in flight, beside the one that it sends.
const STRETCHES_AHEAD: usize = 2;

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
        let stretches = stretches(&blobs, |id| repository.blob_size(BlobKind::Data, id));
        let fetch = move |ids: Vec<BlobId>| {
            let (repository, path) = (repository.clone(), path.clone());
            // A task of its own, so that opening blobs runs on other threads than the connection that sends them.
            async move {
                let opened = tokio::spawn(async move { repository.data_blobs(&ids).await }).await;
                match opened {
                    Ok(Ok(plain)) => plain.into_iter().map(|bytes| Ok(Bytes::from(bytes))).collect(),
                    Ok(Err(error)) => vec![Err(unreadable(&path, error))],
                    Err(error) => vec![Err(DumpReadError::Other { path, source: Box::new(error) })],
                }
            }
        };
        stream::iter(stretches).map(fetch).buffered(STRETCHES_AHEAD).flat_map(stream::iter).boxed()
    }
}

/// Groups a file's blobs, in their order, into stretches of some MiB. A blob that nobody knows the size of is found missing later.
fn stretches(blobs: &[BlobId], size: impl Fn(&BlobId) -> Option<u64>) -> Vec<Vec<BlobId>> {
    let mut stretches: Vec<Vec<BlobId>> = Vec::new();
    let mut bytes = 0;
    for id in blobs {
        let more = size(id).unwrap_or_default();
        match stretches.last_mut() {
            Some(stretch) if bytes + more <= STRETCH_BYTES => stretch.push(*id),
            _ => {
                bytes = 0;
                stretches.push(vec![*id]);
            }
        }
        bytes += more;
    }
    stretches
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_keep_the_order_and_the_bound() {
        let blobs: Vec<BlobId> = (0..10_u8).map(|number| BlobId::of(&[number])).collect();
        let sizes = [1, 1, 2, 9, 1, 3, 1, 0, 4, 1_u64];
        let size = |id: &BlobId| blobs.iter().position(|blob| blob == id).map(|at| sizes[at] << 20);
        let cut = stretches(&blobs, size);
        assert_eq!(cut.concat(), blobs);
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 2, 2, 1, 1]);
    }
}
