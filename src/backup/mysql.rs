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
            Ok::<_, BackupError>((Dumped::of(&manifest), sink, throttle.pauses()))
        })
    };
    let (dumped, sink, pauses) = joined(dumped, STOP_GRACE, run).await?;
    let root = format!("mysql/{name}");
    let tree = sink.into_tree(&writer, &root, dumped.taken_at)?;
    let written = writer.finish().await?;
    let draft = Draft {
        source: name,
        kind: Kind::Mysql,
        time: dumped.taken_at,
        tree,
        path: format!("/{root}"),
        is_incomplete: false,
        is_inconsistent: dumped.consistency == Consistency::Inconsistent,
        summary: job.summary(started, &written, dumped.tables, dumped.bytes),
    };
    let id = job.repository.save_snapshot(&job.snapshot(draft)).await?;
    Ok(Backed {
        source: name.to_owned(),
        kind: Kind::Mysql,
        id,
        time: dumped.taken_at,
        bytes: dumped.bytes,
        bytes_read: dumped.bytes,
        bytes_stored: written.added.stored,
        items: dumped.rows,
        items_changed: dumped.rows,
        millis: crate::backup::millis(began.elapsed()),
        write_stall_ms: Some(dumped.write_stall_ms),
        pauses,
        incomplete: Vec::new(),
    })
}

/// What is told of a dump once it is written; its manifest, which may be large, is not kept for that.
struct Dumped {
    taken_at: DateTime<Utc>,
    consistency: Consistency,
    write_stall_ms: f64,
    tables: u64,
    rows: u64,
    bytes: u64,
}

impl Dumped {
    fn of(manifest: &Manifest) -> Self {
        Self {
            taken_at: manifest.taken_at,
            consistency: manifest.consistency,
            write_stall_ms: manifest.write_stall_ms,
            tables: u64::try_from(manifest.tables.len()).unwrap_or(u64::MAX),
            rows: manifest.rows(),
            bytes: manifest.bytes(),
        }
    }
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
        let mut trees = TreeStack { writer, time, root: Vec::new(), open: Vec::new() };
        for (path, content) in self.files.into_inner().unwrap_or_else(PoisonError::into_inner) {
            trees.add(&format!("{root}/{path}"), content)?;
        }
        trees.finish()
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

/// Saves the trees of files that come in the order of their paths, where those of a directory come one after the other: only the
/// entries of directories that are open are held.
struct TreeStack<'a> {
    writer: &'a Writer,
    time: DateTime<Utc>,
    root: Vec<Node>,
    /// Below the root, from the outermost in.
    open: Vec<(OsString, Vec<Node>)>,
}

impl TreeStack<'_> {
    fn add(&mut self, path: &str, content: Content) -> Result<(), RepositoryError> {
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dirs: Vec<&str> = dirs.split('/').filter(|dir| !dir.is_empty()).collect();
        let common = self.open.iter().zip(&dirs).take_while(|((open, _), dir)| open.as_os_str() == **dir).count();
        while self.open.len() > common {
            self.close()?;
        }
        self.open.extend(dirs[common..].iter().map(|dir| (dir.into(), Vec::new())));
        let metadata = made(entry::Kind::File, content.size, self.time);
        self.push(Node { name: name.into(), metadata, content: content.blobs, subtree: None });
        Ok(())
    }

    /// Notes an entry in the innermost directory.
    fn push(&mut self, node: Node) {
        self.open.last_mut().map_or(&mut self.root, |(_, nodes)| nodes).push(node);
    }

    /// Saves the innermost directory and notes it in the one around it.
    fn close(&mut self) -> Result<(), RepositoryError> {
        if let Some((name, nodes)) = self.open.pop() {
            let subtree = Some(self.save(nodes)?);
            let metadata = made(entry::Kind::Dir, 0, self.time);
            self.push(Node { name, metadata, content: Vec::new(), subtree });
        }
        Ok(())
    }

    fn save(&self, mut nodes: Vec<Node>) -> Result<BlobId, RepositoryError> {
        nodes.sort_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
        self.writer.save_tree(&Tree { nodes })
    }

    /// Saves what is open and returns the root's id.
    fn finish(mut self) -> Result<BlobId, RepositoryError> {
        while !self.open.is_empty() {
            self.close()?;
        }
        let root = std::mem::take(&mut self.root);
        self.save(root)
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
