//! What of a source's binlog is in a repository: the newest snapshot of it, its chain, and the segments' bytes.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::capture::bytes::SegmentBytes;
use crate::capture::chain::{Chain, FORMAT, Segment};
use crate::capture::{CaptureError, tail::failed};
use crate::repository::{BlobKind, Node, Repository, StoredSnapshot, Tree};
use crate::run::Run;

/// The kind of a snapshot of segments, as its tag says it.
pub const KIND: &str = "binlog";

/// The file beside the epochs that tells of them.
pub const CHAIN: &str = "chain.json";

/// A snapshot of a source's segments.
#[derive(Debug, Clone)]
pub struct Stored {
    pub snapshot: StoredSnapshot,
    pub chain: Chain,
    /// By epoch and file.
    nodes: BTreeMap<(u32, String), Node>,
}

/// Returns the newest snapshot of a source's segments among these.
#[must_use]
pub fn newest<'s>(snapshots: &'s [StoredSnapshot], policy: &str, source: &str) -> Option<&'s StoredSnapshot> {
    let is_wanted = |stored: &&StoredSnapshot| {
        let snapshot = &stored.snapshot;
        snapshot.is_binlog() && snapshot.tag("policy") == Some(policy) && snapshot.tag("source") == Some(source)
    };
    // Of two of one moment, that which goes on from the other.
    let parents: Vec<_> = snapshots.iter().filter(is_wanted).filter_map(|stored| stored.snapshot.parent).collect();
    let order = |stored: &&StoredSnapshot| (stored.snapshot.time, !parents.contains(&stored.id), stored.id);
    snapshots.iter().filter(is_wanted).max_by_key(order)
}

/// Opens a snapshot of segments. The index must be loaded.
///
/// # Errors
/// Where its trees or its chain cannot be read.
pub async fn open(repository: &Repository, snapshot: &StoredSnapshot) -> Result<Stored, CaptureError> {
    let source = snapshot.snapshot.tag("source").unwrap_or_default();
    let mut id = snapshot.snapshot.tree;
    for name in [KIND, source] {
        let tree = repository.tree(&id).await?;
        let below = tree.find(name.as_ref()).and_then(|node| node.subtree);
        id = below.ok_or_else(|| unreadable(snapshot, &format!("no directory `{name}`")))?;
    }
    let top = repository.tree(&id).await?;
    let chain = chain(repository, snapshot, &top).await?;
    let mut nodes = BTreeMap::new();
    for epoch in &chain.epochs {
        let below = top.find(epoch.number.to_string().as_ref()).and_then(|node| node.subtree);
        let Some(below) = below else { continue };
        for node in repository.tree(&below).await?.nodes {
            nodes.insert((epoch.number, node.name.to_string_lossy().into_owned()), node);
        }
    }
    Ok(Stored { snapshot: snapshot.clone(), chain, nodes })
}

async fn chain(repository: &Repository, snapshot: &StoredSnapshot, top: &Tree) -> Result<Chain, CaptureError> {
    let node = top.find(CHAIN.as_ref()).ok_or_else(|| unreadable(snapshot, "no chain.json"))?;
    let mut text = Vec::new();
    for blob in &node.content {
        text.extend(repository.blob(BlobKind::Data, blob).await?);
    }
    let chain: Chain = serde_json::from_slice(&text).map_err(|error| unreadable(snapshot, &error.to_string()))?;
    if chain.format > FORMAT {
        return Err(unreadable(snapshot, &format!("its format {} is newer than this program", chain.format)));
    }
    Ok(chain)
}

fn unreadable(snapshot: &StoredSnapshot, reason: &str) -> CaptureError {
    CaptureError::Chain { place: format!("snapshot {}", snapshot.id.short()), reason: reason.to_owned() }
}

impl Stored {
    pub(crate) fn node(&self, epoch: u32, file: &str) -> Option<&Node> {
        self.nodes.get(&(epoch, file.to_owned()))
    }

    /// Returns a segment's bytes as a stream, for a thread that may block.
    #[must_use]
    pub fn bytes(&self, repository: &Arc<Repository>, epoch: u32, file: &str) -> Option<SegmentBytes> {
        let node = self.node(epoch, file)?;
        Some(SegmentBytes::new(repository.clone(), node.content.clone()))
    }

    /// Writes a segment into a file that is not there yet, durably, and proves that its bytes are those that were captured.
    ///
    /// # Errors
    /// Where the repository cannot be read, the file cannot be written, or the bytes are others.
    pub async fn fetch(
        &self,
        repository: &Repository,
        epoch: u32,
        segment: &Segment,
        path: &Path,
        run: &Run,
    ) -> Result<(), CaptureError> {
        let lost = || CaptureError::Lost { file: segment.file.clone() };
        let node = self.node(epoch, &segment.file).ok_or_else(lost)?;
        // What is not there whole, or not as it was, must not lie there as if it were.
        let beside = PathBuf::from(format!("{}.part", path.display()));
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let fault = |error: io::Error| failed("write", path, error);
        let mut file = made.map_err(fault)?;
        let mut hash = Sha256::new();
        for blob in &node.content {
            run.check()?;
            let bytes = repository.blob(BlobKind::Data, blob).await?;
            hash.update(&bytes);
            file.write_all(&bytes).map_err(fault)?;
        }
        file.sync_all().map_err(fault)?;
        if hex::encode(hash.finalize()) == segment.sha256 {
            return fs::rename(&beside, path).map_err(fault);
        }
        fs::remove_file(&beside).map_err(fault)?;
        Err(CaptureError::Damaged { file: segment.file.clone() })
    }
}

/// Writes all segments of a snapshot into a directory: raw files, as `mysqlbinlog` reads them; of several epochs, each into a
/// directory of its own. Returns what it wrote, by its path in the directory.
///
/// # Errors
/// [`CaptureError::NotEmpty`] where something is in the directory.
pub async fn export(
    repository: &Repository,
    stored: &Stored,
    dir: &Path,
    run: &Run,
) -> Result<Vec<String>, CaptureError> {
    make_empty(dir)?;
    let epochs = stored.chain.epochs.iter().filter(|epoch| !epoch.segments.is_empty());
    let is_one = epochs.clone().count() == 1;
    let mut written = Vec::new();
    for epoch in epochs {
        let below = if is_one { String::new() } else { format!("{}/", epoch.number) };
        let place = dir.join(&below);
        fs::create_dir_all(&place).map_err(|error| failed("make", &place, error))?;
        for segment in &epoch.segments {
            let name = format!("{below}{}", segment.file);
            stored.fetch(repository, epoch.number, segment, &dir.join(&name), run).await?;
            written.push(name);
        }
    }
    Ok(written)
}

fn make_empty(dir: &Path) -> Result<(), CaptureError> {
    fs::create_dir_all(dir).map_err(|error| failed("make", dir, error))?;
    let mut entries = fs::read_dir(dir).map_err(|error| failed("read", dir, error))?;
    if entries.next().is_some() { Err(CaptureError::NotEmpty(dir.to_owned())) } else { Ok(()) }
}
