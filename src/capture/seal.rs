//! Puts what the spool has into the repository: a snapshot whose tree holds all segments of the window, of which only what is new
//! is read.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};

use crate::backup;
use crate::backup::mysql::made;
use crate::capture::chain::{Chain, Segment};
use crate::capture::expire::{drop_expired, expired};
use crate::capture::scan::Hashing;
use crate::capture::stored::{self, CHAIN, KIND, Stored};
use crate::capture::tail::failed;
use crate::capture::union::{Lost, give_up, lacks, union};
use crate::capture::{Capture, CaptureError, Spool};
use crate::chunk;
use crate::entry;
use crate::id::{BlobId, SnapshotId};
use crate::place;
use crate::repository::{
    BlobKind, Content, LockMode, Node, Repository, RepositoryError, Saved, Snapshot, StoredSnapshot, Summary, Tree,
    Writer,
};
use crate::run::Run;
use crate::store::FileKind;

/// A segment is read from the spool in strides of this size.
const READ_BYTES: usize = 1 << 20;

/// What was put into the repository.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Sealed {
    pub source: String,
    pub id: SnapshotId,
    /// All that the server had committed by then is in it.
    pub time: DateTime<Utc>,
    pub segments: usize,
    pub bytes: u64,
    /// Plain bytes that were read from the spool, and bytes new in the repository.
    pub bytes_read: u64,
    pub bytes_stored: u64,
    /// Segments that the window no longer needs.
    pub expired: usize,
}

/// Seals spools into one repository, again and again.
#[derive(Debug)]
pub struct Sealer {
    repository: Arc<Repository>,
    /// The index files that were there when the index was loaded, and our own since.
    known: HashSet<String>,
}

/// How a segment comes into the tree.
enum Part {
    /// As the snapshot before holds it.
    Kept(Content),
    /// The blobs that the snapshot before has of it, and the rest of the file, from this offset on.
    Grown { content: Content, path: PathBuf },
}

/// A directory's files: the name, and the content.
type Files = Vec<(String, Content)>;

impl Sealer {
    #[must_use]
    pub fn new(repository: &Arc<Repository>) -> Self {
        Self { repository: Arc::clone(repository), known: HashSet::new() }
    }

    /// Takes up what the repository has of a source and its spool knows nothing of: it is new here, was lost, or was put back.
    ///
    /// # Errors
    /// Where the repository cannot be read.
    pub async fn restore_chain(&mut self, capture: &Capture, spool: &Spool, run: &Run) -> Result<(), CaptureError> {
        let snapshots = self.repository.snapshots().await?;
        let Some(newest) = stored::newest(&snapshots, &capture.policy, &capture.source) else { return Ok(()) };
        self.load_index(run).await?;
        let stored = stored::open(&self.repository, newest).await?;
        let own = spool.chain();
        if !lacks(&own, &stored.chain) {
            return Ok(());
        }
        if own.epochs.is_empty() {
            let (source, spool) = (&capture.source, capture.plan.spool.display());
            run.events.warn(format!(
                "{source}: its spool below `{spool}` is empty, and the repository knows the binlog, which is taken up; if a disk should be \
                 mounted there, stop bkp and mount it"
            ));
        } else {
            let source = &capture.source;
            run.events.note(format!("{source}: the repository knows more than the spool, and its chain is taken up"));
        }
        spool.adopt(union(own, &stored.chain)?)
    }

    /// Puts what is new of a spool into the repository, and frees the spool of what is there whole. Returns none where nothing is
    /// new.
    ///
    /// # Errors
    /// Where the repository is locked or cannot be written, or the spool cannot be read. The spool then keeps what it has.
    pub async fn seal(
        &mut self,
        capture: &Capture,
        spool: &Arc<Spool>,
        lock_wait: Duration,
        run: &Run,
    ) -> Result<Option<Sealed>, CaptureError> {
        let lock = self.repository.lock(LockMode::Shared, lock_wait, run).await?;
        let sealed = self.seal_locked(capture, spool, run).await;
        place::unlock(lock, run).await;
        sealed
    }

    async fn seal_locked(
        &mut self,
        capture: &Capture,
        spool: &Arc<Spool>,
        run: &Run,
    ) -> Result<Option<Sealed>, CaptureError> {
        let snapshots = self.repository.snapshots().await?;
        self.load_index(run).await?;
        let before = match stored::newest(&snapshots, &capture.policy, &capture.source) {
            Some(newest) => Some(stored::open(&self.repository, newest).await?),
            None => None,
        };
        let mut chain = spool.chain();
        if let Some(before) = &before {
            chain = union(chain, &before.chain)?;
        }
        let gone = expired(&chain, &dumps(&snapshots, capture), run.now() - capture.plan.window);
        drop_expired(&mut chain, &gone);
        let lost = lost(spool, &chain, before.as_ref());
        tell_lost(capture, &lost, run);
        give_up(&mut chain, &lost)?;
        let as_of = chain.as_of;
        let is_new = chain.segments().next().is_some()
            && before.as_ref().is_none_or(|before| before.chain.epochs != chain.epochs);
        let sealed = if is_new {
            Some(self.save(capture, spool, &chain, before.as_ref(), gone.len(), run).await?)
        } else {
            None
        };
        // Only now may the spool let go of anything.
        release(spool, &chain, &gone, lost)?;
        spool.tell(|progress| progress.sealed = as_of)?;
        Ok(sealed)
    }

    /// Loads the index where files of it went: a prune took away what is believed to be there. What others add meanwhile need not
    /// be known.
    async fn load_index(&mut self, run: &Run) -> Result<(), CaptureError> {
        let names = self.index_names().await?;
        if self.known.is_empty() || !self.known.is_subset(&names) {
            self.repository.load_index(run).await?;
            self.known = names;
        }
        Ok(())
    }

    async fn index_names(&self) -> Result<HashSet<String>, CaptureError> {
        let listed = self.repository.store().list(FileKind::Index).await.map_err(RepositoryError::from)?;
        Ok(listed.into_iter().map(|listed| listed.name).collect())
    }

    async fn save(
        &mut self,
        capture: &Capture,
        spool: &Arc<Spool>,
        chain: &Chain,
        before: Option<&Stored>,
        gone: usize,
        run: &Run,
    ) -> Result<Sealed, CaptureError> {
        let began = run.now();
        let parts = self.parts(spool, chain, before)?;
        let writer = self.repository.writer(run);
        // Later than the one before, whatever the clock says: the newest is the one that counts.
        let least = before.map(|before| before.snapshot.snapshot.time + TimeDelta::microseconds(1));
        let time = chain.as_of.unwrap_or(began).max(least.unwrap_or(DateTime::UNIX_EPOCH));
        let reading = {
            let (writer, chain, source) = (writer.clone(), chain.clone(), capture.source.clone());
            tokio::task::spawn_blocking(move || write(&writer, &source, &chain, parts, time))
        };
        let (tree, bytes_read) = reading.await.map_err(|error| CaptureError::Thread(error.to_string()))??;
        let written = writer.finish().await?;
        let id = self
            .repository
            .save_snapshot(&snapshot(capture, chain, before, tree, (began, time), &written, run))
            .await?;
        self.known.extend(written.indexes.iter().map(ToString::to_string));
        Ok(Sealed {
            source: capture.source.clone(),
            id,
            time,
            segments: chain.segments().count(),
            bytes: chain.bytes(),
            bytes_read,
            bytes_stored: written.added.stored,
            expired: gone,
        })
    }

    /// Plans where each segment's content comes from, in the order of the chain.
    fn parts(&self, spool: &Spool, chain: &Chain, before: Option<&Stored>) -> Result<Vec<Part>, CaptureError> {
        let part = |(epoch, segment): (u32, &Segment)| {
            let path = spool.file(epoch, &segment.file);
            let content =
                before.and_then(|before| before.node(epoch, &segment.file)).map(content_of).unwrap_or_default();
            let is_whole = content.size == segment.bytes;
            match self.known_blobs(content.clone()) {
                Some(content) if is_whole => Ok(Part::Kept(content)),
                _ if is_whole && !path.exists() => Ok(Part::Kept(content)),
                _ if !path.exists() => Err(CaptureError::Lost { file: segment.file.clone() }),
                known => {
                    let content = self.without_small_end(known.unwrap_or_default(), segment.bytes);
                    Ok(Part::Grown { content, path })
                }
            }
        };
        chain.segments().map(part).collect()
    }

    /// Returns the content if the index has all of it.
    fn known_blobs(&self, content: Content) -> Option<Content> {
        let is_known = |id: &BlobId| self.repository.has(BlobKind::Data, id);
        content.blobs.iter().all(is_known).then_some(content)
    }

    /// Drops the small blobs at the end that are no larger than what is written anew with them: a trickle would else be stored again
    /// and again, or in ever more pieces. So each byte is stored anew a few times at most, and the pieces are few.
    fn without_small_end(&self, mut content: Content, bytes: u64) -> Content {
        let mut anew = bytes.saturating_sub(content.size);
        let mut sizes = content.blobs.iter().map(|id| self.repository.blob_size(BlobKind::Data, id));
        let Some(mut sizes) = sizes.by_ref().collect::<Option<Vec<u64>>>() else { return Content::default() };
        while let Some(size) = sizes.pop_if(|size| *size < chunk::MIN as u64 && *size <= anew) {
            content.blobs.pop();
            content.size = content.size.saturating_sub(size);
            anew += size;
        }
        content
    }
}

fn content_of(node: &Node) -> Content {
    Content { blobs: node.content.clone(), size: node.metadata.size, ..Content::default() }
}

/// Returns what neither the spool nor the repository holds whole, with as much of it as the repository holds.
fn lost(spool: &Spool, chain: &Chain, before: Option<&Stored>) -> Lost {
    let mut lost = Lost::new();
    for (epoch, segment) in chain.segments() {
        let sealed = before.and_then(|before| before.chain.segment(epoch, &segment.file));
        let is_sealed = sealed.is_some_and(|sealed| sealed.bytes >= segment.bytes);
        let spooled = fs::metadata(spool.file(epoch, &segment.file)).map_or(0, |metadata| metadata.len());
        if !is_sealed && spooled < segment.bytes {
            lost.insert((epoch, segment.file.clone()), sealed.cloned());
        }
    }
    lost
}

fn tell_lost(capture: &Capture, lost: &Lost, run: &Run) {
    if lost.is_empty() {
        return;
    }
    let files: Vec<&str> = lost.keys().map(|(_, file)| file.as_str()).collect();
    run.events.warn(format!(
        "{}: neither the spool nor the repository holds {}: moments within cannot be recovered",
        capture.source,
        files.join(", ")
    ));
}

/// Returns the moments of the source's dumps.
fn dumps(snapshots: &[StoredSnapshot], capture: &Capture) -> Vec<DateTime<Utc>> {
    let wanted = [("policy", &*capture.policy), ("source", &*capture.source), ("kind", backup::Kind::Mysql.name())];
    let is_dump =
        |stored: &&StoredSnapshot| wanted.iter().all(|(name, value)| stored.snapshot.tag(name) == Some(*value));
    let is_whole = |stored: &&StoredSnapshot| stored.snapshot.tag("incomplete").is_none();
    snapshots.iter().filter(is_dump).filter(is_whole).map(|stored| stored.snapshot.time).collect()
}

/// Writes the segments, the chain and the trees above them. Blocks. Returns the root, and how many bytes were read.
fn write(
    writer: &Writer,
    source: &str,
    chain: &Chain,
    parts: Vec<Part>,
    time: DateTime<Utc>,
) -> Result<(BlobId, u64), CaptureError> {
    let (mut nodes, mut bytes_read) = (Vec::new(), 0);
    let mut parts = parts.into_iter();
    for epoch in &chain.epochs {
        let mut files = Files::new();
        for (segment, part) in epoch.segments.iter().zip(parts.by_ref()) {
            let content = match part {
                Part::Kept(content) => content,
                Part::Grown { content, path } => {
                    bytes_read += segment.bytes - content.size;
                    grow(writer, content, &path, segment)?
                }
            };
            files.push((segment.file.clone(), content));
        }
        let tree = save_dir(writer, files, Vec::new(), time)?;
        nodes.push(dir(&epoch.number.to_string(), tree, time));
    }
    let mut text = writer.file();
    let json = serde_json::to_vec(chain).map_err(io::Error::from);
    let chain_path = Path::new(CHAIN);
    text.write_all(&json.map_err(|error| failed("print", chain_path, error))?)
        .map_err(|error| failed("save", chain_path, error))?;
    let top = save_dir(writer, vec![(CHAIN.to_owned(), text.finish()?)], nodes, time)?;
    let above = save_dir(writer, Files::new(), vec![dir(source, top, time)], time)?;
    Ok((save_dir(writer, Files::new(), vec![dir(KIND, above, time)], time)?, bytes_read))
}

/// Reads what is new of a segment: up to what the chain says is durable and whole, whatever has come since.
fn grow(writer: &Writer, content: Content, path: &Path, segment: &Segment) -> Result<Content, CaptureError> {
    let fault = |error: io::Error| failed("read", path, error);
    let mut file = File::open(path).map_err(fault)?;
    if segment.is_closed && hash_of(&file, segment.bytes).map_err(fault)? != segment.sha256 {
        return Err(CaptureError::Rotten { path: path.to_owned() });
    }
    file.seek(SeekFrom::Start(content.size)).map_err(fault)?;
    let wanted = segment.bytes - content.size;
    let mut rest = writer.file();
    let copied = io::copy(&mut io::BufReader::with_capacity(READ_BYTES, file.take(wanted)), &mut rest);
    // What broke the writer is told by its end.
    let new = rest.finish()?;
    if copied.map_err(fault)? != wanted {
        return Err(CaptureError::Lost { file: segment.file.clone() });
    }
    let blobs = [content.blobs, new.blobs].concat();
    Ok(Content { blobs, size: content.size + new.size, added: new.added })
}

/// Hashes a segment as the spool holds it: what was captured is proved before it is called whole.
fn hash_of(file: &File, bytes: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut io::BufReader::with_capacity(READ_BYTES, file.take(bytes)), &mut Hashing(&mut hash))?;
    Ok(hex::encode(hash.finalize()))
}

fn save_dir(
    writer: &Writer,
    files: Files,
    mut nodes: Vec<Node>,
    time: DateTime<Utc>,
) -> Result<BlobId, RepositoryError> {
    for (name, content) in files {
        let metadata = made(entry::Kind::File, content.size, time);
        nodes.push(Node { name: name.into(), metadata, content: content.blobs, subtree: None });
    }
    nodes.sort_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
    writer.save_tree(&Tree { nodes })
}

fn dir(name: &str, tree: BlobId, time: DateTime<Utc>) -> Node {
    let metadata = made(entry::Kind::Dir, 0, time);
    Node { name: name.into(), metadata, content: Vec::new(), subtree: Some(tree) }
}

fn snapshot(
    capture: &Capture,
    chain: &Chain,
    before: Option<&Stored>,
    tree: BlobId,
    (began, time): (DateTime<Utc>, DateTime<Utc>),
    written: &Saved,
    run: &Run,
) -> Snapshot {
    let Capture { policy, source, .. } = capture;
    let tags =
        [format!("policy={policy}"), format!("source={source}"), format!("run={}", run.id), format!("kind={KIND}")];
    Snapshot {
        time,
        tree,
        parent: before.map(|before| before.snapshot.id),
        paths: vec![format!("/{KIND}/{source}")],
        hostname: backup::hostname(),
        username: String::from("bkp"),
        tags: tags.to_vec(),
        program_version: Some(concat!("bkp ", env!("CARGO_PKG_VERSION")).to_owned()),
        summary: Some(Summary {
            backup_start: began,
            backup_end: run.now(),
            data_blobs: written.added.blobs,
            data_added: written.added.plain,
            data_added_packed: written.added.stored,
            total_files_processed: chain.segments().count() as u64,
            total_bytes_processed: chain.bytes(),
            ..Summary::default()
        }),
    }
}

/// Removes from the spool what the repository holds whole and what no longer counts: first the files, so that a full disk frees
/// itself. The newest segment stays: it grows.
fn release(spool: &Spool, sealed: &Chain, gone: &[(u32, String)], mut lost: Lost) -> Result<(), CaptureError> {
    let own = spool.chain();
    let newest = own.segments().last().map(|(epoch, segment)| (epoch, segment.file.clone()));
    // It may have grown, or been closed, since it was sealed.
    let is_whole = |(epoch, sealed): &(u32, &Segment)| {
        own.segment(*epoch, &sealed.file).is_none_or(|own| own.is_closed && own.bytes <= sealed.bytes)
    };
    let whole = sealed.segments().filter(is_whole).map(|(epoch, segment)| (epoch, segment.file.clone()));
    let whole: Vec<_> = whole.filter(|it| Some(it) != newest.as_ref() && !lost.contains_key(it)).collect();
    for (epoch, file) in whole.into_iter().chain(gone.iter().cloned()) {
        spool.remove(epoch, &file)?;
    }
    // The newest comes again from the server.
    newest.and_then(|newest| lost.remove(&newest));
    if gone.is_empty() && lost.is_empty() {
        return Ok(());
    }
    spool.change(|chain| {
        drop_expired(chain, gone);
        give_up(chain, &lost)
    })??;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
