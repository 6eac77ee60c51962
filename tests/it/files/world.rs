//! An image tree, a repository in memory and a clock, in words that read as a story.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bkp::backup::files::{BackupFilesError, FilesSaved, save};
use bkp::clock::FixedClock;
use bkp::event::Events;
use bkp::id::{BlobId, SnapshotId};
use bkp::policy;
use bkp::repository::{Repository, Snapshot, StoredSnapshot, Summary, Writer};
use bkp::restore::files::{
    Comparison, FilesPlan, Options, Place, RestoreFilesError, Restored, Selection, apply, compare, plan,
};
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::source::files::{FilesError, FilesSource};
use bkp::store::memory::MemoryStore;
use bkp::store::{FileKind, Key, SharedStore};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) policy: policy::FilesSource,
    pub(crate) run: Run,
    pub(crate) clock: FixedClock,
    pub(crate) store: SharedStore,
    pub(crate) repository: Arc<Repository>,
    runtime: Runtime,
}

impl World {
    /// An empty tree. The run's clock is an hour ahead, so that what was just written counts as written long ago.
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    pub(crate) fn on(store: SharedStore) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = FixedClock::at(Utc::now() + TimeDelta::hours(1));
        let run = Run::new(Arc::new(clock.clone()), Events::silent());
        let runtime = Runtime::new().unwrap();
        let password = Secret::new(PASSWORD.to_owned());
        let opened = runtime.block_on(Repository::init(store.clone(), &password, &run));
        let policy = policy_of(&dir.path().join("images"));
        fs::create_dir(&policy.path).unwrap();
        Self { policy, run, clock, store, repository: opened.unwrap(), runtime, dir }
    }

    /// A tree of one directory with three files.
    pub(crate) fn with_images() -> Self {
        let world = Self::new();
        world.write("shop/1.jpg", &noise(1, 40_000));
        world.write("shop/2.jpg", &noise(2, 60_000));
        world.write("top.jpg", &noise(3, 10));
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.policy.path.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn open(&self) -> Result<FilesSource, FilesError> {
        FilesSource::open(&self.policy, &self.run)
    }

    pub(crate) fn try_save(&self, parent: Option<&StoredSnapshot>) -> Result<FilesSaved, BackupFilesError> {
        let source = self.open()?;
        let writer = self.runtime.block_on(async { self.repository.writer(&self.run) });
        let saved = save(&source, parent, &self.repository, &writer, &self.run)?;
        self.runtime.block_on(writer.finish()).unwrap();
        self.runtime.block_on(self.repository.load_index(&self.run)).unwrap();
        Ok(saved)
    }

    /// Saves the tree and names it by a snapshot, as a run does.
    pub(crate) fn backup(&self, parent: Option<&StoredSnapshot>) -> (FilesSaved, StoredSnapshot) {
        self.clock.advance(TimeDelta::hours(1));
        let saved = self.try_save(parent).unwrap();
        let snapshot = self.snapshot_of(&saved);
        let id = self.runtime.block_on(self.repository.save_snapshot(&snapshot)).unwrap();
        (saved, StoredSnapshot { id, snapshot })
    }

    /// Names a tree of no source by a snapshot.
    pub(crate) fn save_tree_of(&self, save: impl FnOnce(&Writer) -> BlobId) -> StoredSnapshot {
        let writer = self.runtime.block_on(async { self.repository.writer(&self.run) });
        let tree = save(&writer);
        self.runtime.block_on(writer.finish()).unwrap();
        self.runtime.block_on(self.repository.load_index(&self.run)).unwrap();
        let snapshot = Snapshot { paths: Vec::new(), ..self.snapshot(tree) };
        StoredSnapshot { id: SnapshotId::of(b"no source"), snapshot }
    }

    /// The same world to a process that begins: nothing of the repository is in its memory.
    pub(crate) fn begun_anew(self) -> Self {
        Self { repository: self.reopen(&self.run), ..self }
    }

    /// Opens the repository once more, for another run.
    pub(crate) fn reopen(&self, run: &Run) -> Arc<Repository> {
        let password = Secret::new(PASSWORD.to_owned());
        let repository = self.runtime.block_on(Repository::open(self.store.clone(), &password, run)).unwrap();
        self.runtime.block_on(repository.load_index(run)).unwrap();
        repository
    }

    fn snapshot_of(&self, saved: &FilesSaved) -> Snapshot {
        let summary = Summary {
            total_files_processed: saved.counts.files,
            total_bytes_processed: saved.counts.bytes,
            ..Summary::default()
        };
        Snapshot { summary: Some(summary), ..self.snapshot(saved.tree) }
    }

    fn snapshot(&self, tree: BlobId) -> Snapshot {
        Snapshot {
            time: self.run.now(),
            parent: None,
            tree,
            paths: vec![self.policy.path.to_str().unwrap().to_owned()],
            hostname: "test".into(),
            username: "root".into(),
            tags: vec!["kind=files".into()],
            program_version: None,
            summary: None,
        }
    }

    /// Where restores go: `restored` beside the tree.
    pub(crate) fn target(&self) -> PathBuf {
        self.dir.path().join("restored")
    }

    pub(crate) fn options(&self, paths: &[&str]) -> Options {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        Options { target: self.target(), selection: Selection::new(&paths).unwrap(), overwrite: false, threads: 4 }
    }

    pub(crate) fn plan(&self, of: &StoredSnapshot, options: Options) -> Result<FilesPlan, RestoreFilesError> {
        plan(&self.repository, &of.snapshot, options, &self.run)
    }

    pub(crate) fn restore(&self, of: &StoredSnapshot) -> Restored {
        self.restore_with(of, self.options(&[]))
    }

    pub(crate) fn restore_with(&self, of: &StoredSnapshot, options: Options) -> Restored {
        let plan = self.plan(of, options).unwrap();
        apply(&plan, &self.repository, &self.run).unwrap()
    }

    pub(crate) fn place(&self, of: &StoredSnapshot) -> Place {
        Place::of(&self.repository, &of.snapshot).unwrap()
    }

    pub(crate) fn compare(&self, of: &StoredSnapshot, directory: &Path) -> Comparison {
        let place = self.place(of);
        compare(&self.repository, &place, &Selection::default(), directory, 4, &self.run).unwrap()
    }

    /// Compares what was chosen by a plan with where it went.
    pub(crate) fn compare_chosen(&self, plan: &FilesPlan) -> Comparison {
        let options = &plan.options;
        compare(&self.repository, &plan.place, &options.selection, &options.target, 4, &self.run).unwrap()
    }

    /// Takes away the pack that holds a file's first blob, or a directory's tree.
    pub(crate) fn lose_pack_of(&self, of: &StoredSnapshot, name: &str) -> (Key, Bytes) {
        let (kind, blob) = self.blob_of(of, name);
        let pack = self.repository.pack_of(kind, &blob).unwrap();
        let key = Key::new(FileKind::Pack, pack.to_string());
        let bytes = self.runtime.block_on(self.store.get(&key)).unwrap();
        self.runtime.block_on(self.store.delete(&key)).unwrap();
        (key, bytes)
    }

    pub(crate) fn heal(&self, (key, bytes): (Key, Bytes)) {
        self.runtime.block_on(self.store.put(&key, bytes)).unwrap();
    }

    /// Returns the newest snapshot that another program wrote.
    pub(crate) fn newest(&self) -> StoredSnapshot {
        self.runtime.block_on(self.repository.load_index(&self.run)).unwrap();
        let snapshots = self.runtime.block_on(self.repository.snapshots()).unwrap();
        snapshots.into_iter().find(|stored| stored.snapshot.hostname != "test").unwrap()
    }

    fn blob_of(&self, of: &StoredSnapshot, name: &str) -> (bkp::repository::BlobKind, bkp::id::BlobId) {
        // By a look that leaves no tree in the memory of the repository under test.
        let repository = self.reopen(&self.run);
        let mut tree = Place::of(&repository, &of.snapshot).unwrap().tree;
        let mut found = None;
        for part in Path::new(name) {
            let nodes = repository.tree_blocking(&tree).unwrap();
            let node = nodes.find(part).unwrap().clone();
            tree = node.subtree.unwrap_or(tree);
            found = Some(node);
        }
        let node = found.unwrap();
        match node.subtree {
            Some(tree) => (bkp::repository::BlobKind::Tree, tree),
            None => (bkp::repository::BlobKind::Data, node.content[0]),
        }
    }
}

pub(crate) fn policy_of(path: &Path) -> policy::FilesSource {
    policy::FilesSource {
        path: path.to_owned(),
        require_mount: false,
        fs_type: None,
        exclude: Vec::new(),
        threads: 4,
        guard: policy::FilesGuard::default(),
    }
}

/// Bytes that no compression shortens, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Sets the modification time of an entry, links included.
pub(crate) fn touch(path: &Path, time: DateTime<Utc>) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let stamp = Timespec { tv_sec: time.timestamp(), tv_nsec: time.timestamp_subsec_nanos().into() };
    let times = Timestamps { last_access: stamp, last_modification: stamp };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes an entry of every kind and every oddity that a filesystem takes.
pub(crate) fn write_everything(world: &World) {
    let at = |second: i64| DateTime::from_timestamp(second, 123_456_789).unwrap();
    world.write("a/b/c/deep.jpg", &noise(1, 5_000));
    world.write("empty", b"");
    world.write("big", &noise(2, 9 << 20));
    fs::create_dir_all(world.path("empty dir")).unwrap();
    for name in
        [&b"line\nbreak"[..], b"\xff\xfe\x80", b"-rf", b" ", "사진.jpg".as_bytes(), b"quo\"te\\", b"...", &[b'x'; 255]]
    {
        fs::write(world.policy.path.join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink(OsStr::from_bytes(b"nowhere/\xff\n"), world.path("dangling")).unwrap();
    symlink("a/b", world.path("to dir")).unwrap();
    fs::create_dir_all(world.path("links")).unwrap();
    fs::hard_link(world.path("big"), world.path("links/big again")).unwrap();
    fs::hard_link(world.path("big"), world.path("a/big too")).unwrap();
    fs::hard_link(world.path("empty"), world.path("links/empty again")).unwrap();
    let sparse = fs::File::create(world.path("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(b"island", 20 << 20).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, world.path("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    drop(std::os::unix::net::UnixListener::bind(world.path("socket")).unwrap());
    rustix::fs::setxattr(world.path("big"), "user.shop", b"seven\0\xff", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(world.path("empty dir"), "user.empty", b"", rustix::fs::XattrFlags::empty()).unwrap();
    for (name, mode) in
        [("a/b", 0o2755), ("a/b/c/deep.jpg", 0o4711), ("empty", 0o1666), ("empty dir", 0o500), ("big", 0o400)]
    {
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, second) in [
        ("big", -5),
        ("dangling", 1),
        ("fifo", 4_000_000_000),
        ("a/b/c/deep.jpg", 951_000_000),
        ("a/b/c", 7),
        ("a/b", 8),
        ("a", 9),
        ("empty dir", 10),
    ] {
        touch(&world.path(name), at(second));
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(world.path("dangling"), Some(12_345), Some(54_321)).unwrap();
        std::os::unix::fs::chown(world.path("a"), Some(33), Some(33)).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            world.path("null"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
    }
}

/// Runs this very test again within other surroundings (`unshare -m`, `setpriv …`); tells whether this is that run.
///
/// The outer run returns `false` once the inner one has passed.
pub(crate) fn is_within(test: &str, surroundings: &[&str]) -> bool {
    if std::env::var_os("BKP_TEST_WITHIN").is_some_and(|within| within == test) {
        return true;
    }
    let output = Command::new(surroundings[0])
        .args(&surroundings[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("BKP_TEST_WITHIN", test)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "within {surroundings:?}:\n{told}");
    false
}
