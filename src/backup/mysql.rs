//! The dump of a database as a snapshot: row files and statements go straight from the source into the repository.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use chrono::{DateTime, Utc};

use crate::backup::Backed;
use crate::backup::BackupError;
use crate::backup::Draft;
use crate::backup::Job;
use crate::backup::Kind;
use crate::backup::STOP_GRACE;
use crate::backup::joined;
use crate::entry;
use crate::entry::Metadata;
use crate::id::BlobId;
use crate::mysql::manifest::Consistency;
use crate::mysql::manifest::Manifest;
use crate::mysql::server::Server;
use crate::mysql::server::ServerError;
use crate::net;
use crate::policy::MysqlSource;
use crate::repository::BlobKind;
use crate::repository::Content;
use crate::repository::FileWriter;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::repository::StoredSnapshot;
use crate::repository::Writer;
use crate::repository::tree::Node;
use crate::repository::tree::Tree;
use crate::source::FileSink;
use crate::source::Sink;
use crate::source::SinkError;
use crate::source::mysql::MysqlSourceError;
use crate::source::mysql::Snapshot;
use crate::source::mysql::Unheld;

/// Saves one database: a window in which all connections see one moment, the rows, the proof, the snapshot.
pub(super) async fn save(job: &Job<'_>, name: &str) -> Result<Backed, BackupError> {
    let run = job.run;
    run.check()?;
    let (began, started) = (run.clock.instant(), run.now());
    let place = place(job, name)?;
    let previous = bounds_of_parent(job, name).await?;
    let lost = if previous.is_some() { Some(Arc::new(lost_of_parent(job, name).await?)) } else { None };
    let server = Server::of(&place, &job.policy.network)?;
    let writer = job.repository.writer(run);
    let dumped = {
        let (writer, run) = (writer.clone(), run.clone());
        let unheld = if job.options.allow_inconsistent { Unheld::Allow } else { Unheld::Refuse };
        tokio::task::spawn_blocking(move || {
            let mut window = Snapshot::open(&server, &place, unheld, &run)?;
            check_way_back(&mut window, &server)?;
            let (sink, throttle) = (TreeSink::new(writer, lost), window.throttle());
            let manifest = window.dump(&sink, previous.as_ref(), &run)?;
            Ok::<_, BackupError>((manifest, sink, throttle.pauses()))
        })
    };
    let (manifest, sink, pauses) = joined(dumped, STOP_GRACE, run).await?;
    let root = format!("mysql/{name}");
    let tree = sink.into_tree(&writer, &root, manifest.taken_at)?;
    let written = writer.finish().await?;
    let draft = Draft {
        source: name,
        kind: Kind::Mysql,
        time: manifest.taken_at,
        tree,
        path: format!("/{root}"),
        is_incomplete: false,
        is_inconsistent: manifest.consistency == Consistency::Inconsistent,
        summary: job.summary(
            started,
            &written,
            u64::try_from(manifest.tables.len()).unwrap_or(u64::MAX),
            manifest.bytes(),
        ),
    };
    let id = job.repository.save_snapshot(&job.snapshot(draft)).await?;
    Ok(Backed {
        source: name.to_owned(),
        kind: Kind::Mysql,
        id,
        time: manifest.taken_at,
        bytes: manifest.bytes(),
        bytes_read: manifest.bytes(),
        bytes_stored: written.added.stored,
        items: manifest.rows(),
        items_changed: manifest.rows(),
        millis: crate::backup::millis(began.elapsed()),
        write_stall_ms: Some(manifest.write_stall_ms),
        pauses,
        incomplete: Vec::new(),
    })
}

/// Returns the source as the policy and the operator of this run want it dumped.
fn place(job: &Job<'_>, name: &str) -> Result<MysqlSource, BackupError> {
    let place = job.policy.mysql.get(name).ok_or_else(|| BackupError::NoSource(name.to_owned()))?;
    let mut place = place.clone();
    if job.options.no_throttle {
        place.throttle.lift();
    }
    Ok(place)
}

/// Refuses a server that sees us come from elsewhere than the policy says: something in between takes the bytes another way.
pub(crate) fn check_way_back(window: &mut Snapshot, server: &Server) -> Result<(), MysqlSourceError> {
    let Some(seen) = window.seen_as()? else {
        return Ok(());
    };
    let checked = tokio::runtime::Handle::current().block_on(net::check_seen(&server.network, &seen));
    checked.map_err(|error| ServerError::Network { server: server.name(), error }.into())
}

/// Returns the dump before, whose bounds are used again where they fit. It is only a hint: where it cannot be read, all is cut anew.
async fn bounds_of_parent(job: &Job<'_>, name: &str) -> Result<Option<Manifest>, BackupError> {
    let Some(stored) = job.parent(name) else {
        return Ok(None);
    };
    let read = manifest(job.repository, stored, name).await;
    job.run.check()?;
    Ok(read
        .inspect_err(|error| {
            let reason = crate::human::chain(error);
            job.run
                .events
                .warn(format!("{name}: the dump before cannot be read, and all rows are stored anew: {reason}"));
        })
        .ok())
}

/// Returns the blobs that the dump before names and no index does: where the source still has their rows, this dump stores them.
async fn lost_of_parent(job: &Job<'_>, name: &str) -> Result<HashSet<BlobId>, BackupError> {
    let mut lost = HashSet::new();
    let mut trees: Vec<BlobId> = job.parent(name).map(|stored| stored.snapshot.tree).into_iter().collect();
    while let Some(id) = trees.pop() {
        job.run.check()?;
        // A tree that cannot be read names nothing; verify tells of it.
        let Ok(tree) = job.repository.tree(&id).await else { continue };
        for node in tree.nodes {
            trees.extend(node.subtree);
            lost.extend(node.content.into_iter().filter(|blob| !job.repository.has(BlobKind::Data, blob)));
        }
    }
    Ok(lost)
}

/// Reads the manifest of a dump out of its snapshot.
///
/// # Errors
/// [`BackupError`] where the tree or the file does not open, or the text is of a newer format.
pub async fn manifest(repository: &Repository, stored: &StoredSnapshot, source: &str) -> Result<Manifest, BackupError> {
    let refusal = |reason: String| BackupError::Manifest(stored.id.short(), reason);
    let mut id = stored.snapshot.tree;
    for name in ["mysql", source] {
        let tree = repository.tree(&id).await?;
        let node = tree.nodes.into_iter().find(|node| node.name == name);
        id = node.and_then(|node| node.subtree).ok_or_else(|| refusal(format!("no directory `{name}`")))?;
    }
    let tree = repository.tree(&id).await?;
    let node = tree.nodes.into_iter().find(|node| node.name == "manifest.json");
    let node = node.ok_or_else(|| refusal("no manifest.json".to_owned()))?;
    let mut text = Vec::new();
    for blob in &node.content {
        text.extend(repository.blob(crate::repository::BlobKind::Data, blob).await?);
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| refusal(error.to_string()))?;
    if manifest.format > crate::mysql::manifest::FORMAT {
        return Err(refusal(format!("its format {} is newer than this program", manifest.format)));
    }
    Ok(manifest)
}

/// A sink whose files become the nodes of a tree.
struct TreeSink {
    writer: Writer,
    /// Where most of the rows were saved before, what is lost of them.
    lost: Option<Arc<HashSet<BlobId>>>,
    files: Mutex<BTreeMap<String, Content>>,
}

impl TreeSink {
    fn new(writer: Writer, lost: Option<Arc<HashSet<BlobId>>>) -> Self {
        Self { writer, lost, files: Mutex::default() }
    }

    /// Saves the trees from the leaves up and returns the root's id.
    fn into_tree(self, writer: &Writer, root: &str, time: DateTime<Utc>) -> Result<BlobId, RepositoryError> {
        let mut dir = Dir::default();
        for (path, content) in self.files.into_inner().unwrap_or_else(PoisonError::into_inner) {
            dir.add(&format!("{root}/{path}"), content);
        }
        dir.save(writer, time)
    }
}

impl Sink for TreeSink {
    fn file(&self, path: &str) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let writer = match &self.lost {
            Some(lost) => self.writer.file_again(lost),
            None => self.writer.file(),
        };
        Ok(Box::new(TreeFile { sink: self, path: path.to_owned(), writer }))
    }
}

struct TreeFile<'a> {
    sink: &'a TreeSink,
    path: String,
    writer: FileWriter,
}

impl io::Write for TreeFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl FileSink for TreeFile<'_> {
    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        let content =
            self.writer.finish().map_err(|error| SinkError { path: self.path.clone(), error: Box::new(error) })?;
        let mut files = self.sink.files.lock().unwrap_or_else(PoisonError::into_inner);
        match files.entry(self.path) {
            Entry::Vacant(place) => {
                place.insert(content);
                Ok(())
            }
            Entry::Occupied(taken) => {
                let error = io::Error::new(io::ErrorKind::AlreadyExists, "the dump has a file of this name already");
                Err(SinkError { path: taken.key().clone(), error: Box::new(error) })
            }
        }
    }
}

#[derive(Default)]
struct Dir {
    dirs: BTreeMap<OsString, Dir>,
    files: BTreeMap<OsString, Content>,
}

impl Dir {
    fn add(&mut self, path: &str, content: Content) {
        match path.split_once('/') {
            Some((dir, rest)) => self.dirs.entry(dir.into()).or_default().add(rest, content),
            None => {
                self.files.insert(path.into(), content);
            }
        }
    }

    fn save(self, writer: &Writer, time: DateTime<Utc>) -> Result<BlobId, RepositoryError> {
        let mut nodes = Vec::with_capacity(self.dirs.len() + self.files.len());
        for (name, dir) in self.dirs {
            let subtree = dir.save(writer, time)?;
            nodes.push(Node {
                name,
                metadata: made(entry::Kind::Dir, 0, time),
                content: Vec::new(),
                subtree: Some(subtree),
            });
        }
        for (name, content) in self.files {
            let metadata = made(entry::Kind::File, content.size, time);
            nodes.push(Node { name, metadata, content: content.blobs, subtree: None });
        }
        nodes.sort_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
        writer.save_tree(&Tree { nodes })
    }
}

/// Returns the metadata of an entry that bkp itself made.
pub(crate) fn made(kind: entry::Kind, size: u64, time: DateTime<Utc>) -> Metadata {
    let mode = if kind == entry::Kind::Dir { 0o700 } else { 0o600 };
    Metadata {
        kind,
        mode,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        user: String::new(),
        group: String::new(),
        size,
        mtime: time,
        atime: time,
        ctime: time,
        device: 0,
        inode: 0,
        links: 1,
        xattrs: Vec::new(),
    }
}
