//! What goes into a repository comes out of it, whatever happens between; words for tests of repositories.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bkp::clock::FixedClock;
use bkp::entry::{Kind, Metadata, Xattr};
use bkp::event::Events;
use bkp::id::BlobId;
use bkp::repository::key::Cost;
use bkp::repository::writer::Limits;
use bkp::repository::{BlobKind, LockMode, Node, Repository, RepositoryError, Snapshot, StoredSnapshot, Tree, Writer};
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::local::LocalStore;
use bkp::store::memory::MemoryStore;
use bkp::store::{FileKind, Key, SharedStore, Store, StoreError};
use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngCore, SeedableRng};

use crate::wrapper::{Wrapped, Wrapper};

pub(crate) const PASSWORD: &str = "correct horse";

/// Deriving the key takes a millisecond instead of a tenth of a second.
const CHEAP: Cost = Cost { log_n: 10, r: 8, p: 1 };

pub(crate) fn secret() -> Secret {
    Secret::new(PASSWORD.to_owned())
}

pub(crate) fn memory() -> SharedStore {
    Arc::new(MemoryStore::new())
}

pub(crate) fn local(dir: &Path) -> SharedStore {
    Arc::new(LocalStore::new(dir))
}

pub(crate) async fn made(store: &SharedStore) -> Arc<Repository> {
    let made = Repository::init_with(Arc::clone(store), &secret(), CHEAP, &Run::silent()).await;
    made.unwrap()
}

pub(crate) async fn opened(store: &SharedStore) -> Arc<Repository> {
    let run = Run::silent();
    let repository = Repository::open(Arc::clone(store), &secret(), &run).await.unwrap();
    repository.load_index(&run).await.unwrap();
    repository
}

pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand_pcg::Pcg64Mcg::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A node of a file, with the metadata that does not matter left plain.
pub(crate) fn file_node(name: &str, content: Vec<BlobId>, size: u64) -> Node {
    Node { content, ..node(name, Kind::File, size) }
}

pub(crate) fn dir_node(name: &str, subtree: BlobId) -> Node {
    Node { subtree: Some(subtree), ..node(name, Kind::Dir, 0) }
}

fn node(name: &str, kind: Kind, size: u64) -> Node {
    let time: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().unwrap();
    let links = u64::from(kind == Kind::File);
    Node {
        name: name.into(),
        metadata: Metadata {
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            size,
            mtime: time,
            atime: time,
            ctime: time,
            device: 0,
            inode: 1,
            links,
            xattrs: Vec::new(),
        },
        content: Vec::new(),
        subtree: None,
    }
}

pub(crate) fn snapshot(tree: BlobId, path: &str) -> Snapshot {
    Snapshot {
        time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        tree,
        parent: None,
        paths: vec![path.to_owned()],
        hostname: "shop".to_owned(),
        username: "root".to_owned(),
        tags: vec!["policy=mall".to_owned(), "kind=files".to_owned()],
        program_version: Some("bkp 0.1.0".to_owned()),
        summary: None,
    }
}

/// Saves files by path, `/a/b.jpg` → bytes, as one snapshot.
pub(crate) async fn save(repository: &Arc<Repository>, files: &[(&str, Vec<u8>)]) -> StoredSnapshot {
    let writer = repository.writer(&Run::silent());
    let mut root = Dir::default();
    for (path, bytes) in files {
        let mut stream = writer.file();
        stream.write_all(bytes).unwrap();
        let content = stream.finish().unwrap();
        root.add(path.trim_start_matches('/'), content.blobs, content.size);
    }
    let tree = root.save(&writer);
    writer.finish().await.unwrap();
    let snapshot = snapshot(tree, "/");
    let id = repository.save_snapshot(&snapshot).await.unwrap();
    StoredSnapshot { id, snapshot }
}

#[derive(Default)]
struct Dir {
    files: BTreeMap<String, (Vec<BlobId>, u64)>,
    dirs: BTreeMap<String, Dir>,
}

impl Dir {
    fn add(&mut self, path: &str, blobs: Vec<BlobId>, size: u64) {
        match path.split_once('/') {
            Some((dir, rest)) => self.dirs.entry(dir.to_owned()).or_default().add(rest, blobs, size),
            None => {
                self.files.insert(path.to_owned(), (blobs, size));
            }
        }
    }

    fn save(self, writer: &Writer) -> BlobId {
        let files = self.files.into_iter().map(|(name, (blobs, size))| file_node(&name, blobs, size));
        let dirs = self.dirs.into_iter().map(|(name, dir)| dir_node(&name, dir.save(writer)));
        let mut nodes: Vec<_> = files.chain(dirs).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        writer.save_tree(&Tree { nodes }).unwrap()
    }
}

/// Saves a real directory as one snapshot, with the directories above it as restic has them.
pub(crate) async fn save_dir(repository: &Arc<Repository>, dir: &Path) -> StoredSnapshot {
    let writer = repository.writer(&Run::silent());
    let mut tree = save_tree_of(&writer, dir);
    let mut place = dir.to_owned();
    while let Some(name) = place.file_name().map(OsStr::to_owned) {
        let mut node = bare_node(&place);
        (node.name, node.subtree) = (name, Some(tree));
        tree = writer.save_tree(&Tree { nodes: vec![node] }).unwrap();
        place.pop();
    }
    writer.finish().await.unwrap();
    let snapshot = snapshot(tree, dir.to_str().unwrap());
    let id = repository.save_snapshot(&snapshot).await.unwrap();
    StoredSnapshot { id, snapshot }
}

fn save_tree_of(writer: &Writer, dir: &Path) -> BlobId {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    let nodes = paths.iter().map(|path| read_node(writer, path));
    let tree = Tree { nodes: nodes.collect() };
    writer.save_tree(&tree).unwrap()
}

/// Returns a node without what is below or in it.
fn bare_node(path: &Path) -> Node {
    Node {
        name: path.file_name().unwrap().to_owned(),
        metadata: metadata_of(path, &fs::symlink_metadata(path).unwrap()),
        content: Vec::new(),
        subtree: None,
    }
}

fn read_node(writer: &Writer, path: &Path) -> Node {
    let mut node = bare_node(path);
    let found = fs::symlink_metadata(path).unwrap();
    if found.is_dir() {
        node.subtree = Some(save_tree_of(writer, path));
    }
    if found.is_file() {
        let mut stream = writer.file();
        stream.write_all(&fs::read(path).unwrap()).unwrap();
        let content = stream.finish().unwrap();
        (node.content, node.metadata.size) = (content.blobs, content.size);
    }
    node
}

fn metadata_of(path: &Path, found: &fs::Metadata) -> Metadata {
    let time = |seconds, nanos| DateTime::from_timestamp(seconds, u32::try_from(nanos).unwrap()).unwrap();
    let kind = match found.file_type() {
        kind if kind.is_dir() => Kind::Dir,
        kind if kind.is_symlink() => Kind::Symlink { target: fs::read_link(path).unwrap() },
        kind if kind.is_fifo() => Kind::Fifo,
        _ => Kind::File,
    };
    let names = xattr::list(path).into_iter().flatten();
    let xattrs = names.filter(|_| !found.is_symlink()).filter_map(|name| {
        let value = xattr::get(path, &name).ok()??;
        Some(Xattr { name, value })
    });
    Metadata {
        kind,
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        user: "root".to_owned(),
        group: "root".to_owned(),
        size: 0,
        mtime: time(found.mtime(), found.mtime_nsec()),
        atime: time(found.atime(), found.atime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
        device: found.dev(),
        inode: found.ino(),
        links: found.nlink(),
        xattrs: xattrs.collect(),
    }
}

/// Reads all files of a snapshot back, by path; those that cannot be read with their error.
pub(crate) async fn read_all(
    repository: &Repository,
    tree: BlobId,
) -> BTreeMap<PathBuf, Result<Vec<u8>, RepositoryError>> {
    let mut files = BTreeMap::new();
    let mut to_do = vec![(PathBuf::from("/"), tree)];
    while let Some((path, id)) = to_do.pop() {
        let tree = match repository.tree(&id).await {
            Ok(tree) => tree,
            Err(error) => {
                files.insert(path, Err(error));
                continue;
            }
        };
        for node in tree.nodes {
            let path = path.join(&node.name);
            match node.subtree {
                Some(subtree) => to_do.push((path, subtree)),
                None => {
                    files.insert(path, read_content(repository, &node.content).await);
                }
            }
        }
    }
    files
}

async fn read_content(repository: &Repository, content: &[BlobId]) -> Result<Vec<u8>, RepositoryError> {
    let mut bytes = Vec::new();
    for id in content {
        bytes.extend(repository.blob(BlobKind::Data, id).await?);
    }
    Ok(bytes)
}

/// Some files of each size that matters.
pub(crate) fn shop_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("/images/1/a.jpg", noise(1, 30_000)),
        ("/images/1/b.jpg", noise(2, 700_000)),
        ("/images/2/copy of a.jpg", noise(1, 30_000)),
        ("/images/2/empty", Vec::new()),
        ("/images/한글 상품.png", noise(3, 10)),
        ("/mysql/db1/orders.tsv", b"17\tKim\t12.50\t2026-01-02\n".repeat(200_000)),
        ("/video", noise(4, 9 << 20)),
    ]
}

fn small_limits() -> Limits {
    Limits { in_flight_bytes_max: 1 << 20, pack_size_target: 1 << 20, sealers: 3, uploads: 2 }
}

async fn keys(store: &SharedStore, kind: FileKind) -> Vec<Key> {
    let listed = store.list(kind).await.unwrap();
    listed.into_iter().map(|listed| Key::new(kind, listed.name)).collect()
}

#[tokio::test]
async fn what_was_saved_is_read_back_by_another_process() {
    let dir = tempfile::tempdir().unwrap();
    for store in [memory(), local(dir.path())] {
        let saved = save(&made(&store).await, &shop_files()).await;
        let repository = opened(&store).await;
        let snapshots = repository.snapshots().await.unwrap();
        assert_eq!(snapshots, [saved]);
        assert_eq!(snapshots[0].snapshot.tag("policy"), Some("mall"));
        assert_eq!(snapshots[0].snapshot.tag("poli"), None);
        let read = read_all(&repository, snapshots[0].snapshot.tree).await;
        let read: BTreeMap<_, _> = read.into_iter().map(|(path, bytes)| (path, bytes.unwrap())).collect();
        let expected: BTreeMap<_, _> =
            shop_files().into_iter().map(|(path, bytes)| (PathBuf::from(path), bytes)).collect();
        assert_eq!(read, expected);
    }
}

#[tokio::test]
async fn what_is_there_is_not_stored_again() {
    let store = memory();
    save(&made(&store).await, &shop_files()).await;
    let packs = keys(&store, FileKind::Pack).await;
    let repository = opened(&store).await;
    let writer = repository.writer(&Run::silent());
    for (_, bytes) in shop_files() {
        let mut stream = writer.file();
        stream.write_all(&bytes).unwrap();
        assert_eq!(stream.finish().unwrap().added.blobs, 0);
    }
    let saved = writer.finish().await.unwrap();
    assert_eq!(saved, bkp::repository::Saved::default());
    assert_eq!(keys(&store, FileKind::Pack).await, packs);
}

#[tokio::test]
async fn of_the_same_blob_from_many_threads_one_is_stored() {
    let store = memory();
    let repository = made(&store).await;
    let writer = repository.writer_with(&Run::silent(), small_limits());
    let new = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let writer = writer.clone();
                scope.spawn(move || {
                    let put = |number| writer.put(BlobKind::Data, noise(number, 10_000)).unwrap();
                    let tickets: Vec<_> = (0..50).map(put).collect();
                    tickets.into_iter().map(|ticket| ticket.wait().unwrap()).filter(|saved| saved.is_new).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    let saved = writer.finish().await.unwrap();
    assert_eq!((new, saved.added.blobs, saved.added.plain), (50, 50, 500_000));
    let stored: usize = opened(&store).await.packs().iter().map(|pack| pack.blobs.len()).sum();
    assert_eq!(stored, 50);
}

#[tokio::test]
async fn packs_are_of_one_kind_and_of_the_size_asked_for() {
    let store = memory();
    let repository = made(&store).await;
    let writer = repository.writer_with(&Run::silent(), small_limits());
    for number in 0..60 {
        writer.put(BlobKind::Data, noise(number, 100_000)).unwrap();
        writer.save_tree(&Tree { nodes: vec![file_node(&number.to_string(), Vec::new(), 0)] }).unwrap();
    }
    let saved = writer.finish().await.unwrap();
    let packs = opened(&store).await.packs();
    assert_eq!(saved.packs.len(), packs.len());
    assert_eq!(packs.len(), 7, "six of data and one of trees");
    for pack in packs.iter() {
        assert!(pack.blobs.windows(2).all(|pair| pair[0].kind == pair[1].kind));
        assert!(pack.size() < 1_200_000);
    }
}

#[tokio::test]
async fn a_writer_may_be_finished_more_than_once() {
    let store = memory();
    let repository = made(&store).await;
    let writer = repository.writer(&Run::silent());
    assert_eq!(writer.finish().await.unwrap().packs.len(), 0);
    writer.put(BlobKind::Data, noise(1, 10)).unwrap();
    assert_eq!(writer.finish().await.unwrap().packs.len(), 1);
    assert!(!writer.put(BlobKind::Data, noise(1, 10)).unwrap().wait().unwrap().is_new);
    writer.put(BlobKind::Data, noise(2, 10)).unwrap();
    let again = writer.finish().await.unwrap();
    assert_eq!((again.packs.len(), again.indexes.len(), again.added.blobs), (1, 1, 1));
}

#[tokio::test]
async fn a_store_that_refuses_a_pack_breaks_the_writer_and_no_index_is_written() {
    let inner = memory();
    made(&inner).await;
    let faulty = Arc::new(Faulty::new(Arc::clone(&inner)));
    let store: SharedStore = faulty.clone();
    let repository = opened(&store).await;
    faulty.add(Rule::nth(Operation::Put, 2, Fault::Full));
    let writer = repository.writer_with(&Run::silent(), small_limits());
    let put = |number| writer.put(BlobKind::Data, noise(number, 100_000)).and_then(bkp::repository::Ticket::wait);
    let told = (0..200).map(put).find_map(Result::err);
    let finished = writer.finish().await;
    assert!(matches!(told, Some(RepositoryError::Store(StoreError::Full { .. }))), "{told:?}");
    assert!(matches!(finished, Err(RepositoryError::Store(StoreError::Full { .. }))), "{finished:?}");
    assert!(keys(&inner, FileKind::Index).await.is_empty());
}

#[tokio::test]
async fn where_the_queue_is_full_whoever_saves_seals_and_nothing_is_lost() {
    let store = memory();
    let repository = made(&store).await;
    let limits = Limits { in_flight_bytes_max: 1, sealers: 1, ..small_limits() };
    let writer = repository.writer_with(&Run::silent(), limits);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let writer = writer.clone();
            // Each blob is brought by two threads.
            scope.spawn(move || {
                for number in 0..50 {
                    writer.save(BlobKind::Data, noise(thread / 2 * 50 + number, 10_000)).unwrap();
                }
            });
        }
    });
    let saved = writer.finish().await.unwrap();
    assert_eq!((saved.added.blobs, saved.added.plain), (200, 2_000_000));
    let repository = opened(&store).await;
    for number in 0..200 {
        let plain = noise(number, 10_000);
        assert_eq!(repository.blob(BlobKind::Data, &BlobId::of(&plain)).await.unwrap(), plain);
    }
}

#[tokio::test]
async fn a_store_that_refuses_a_pack_is_told_to_whoever_seals_for_himself() {
    let (inner, faulty, repository) = on_faulty().await;
    faulty.add(Rule::nth(Operation::Put, 2, Fault::Full));
    let limits = Limits { in_flight_bytes_max: 1, sealers: 1, ..small_limits() };
    let writer = repository.writer_with(&Run::silent(), limits);
    let told = (0..200).find_map(|number| writer.save(BlobKind::Data, noise(number, 100_000)).err());
    assert!(matches!(told, Some(RepositoryError::Store(StoreError::Full { .. }))), "{told:?}");
    let finished = writer.finish().await;
    assert!(matches!(finished, Err(RepositoryError::Store(StoreError::Full { .. }))), "{finished:?}");
    assert!(keys(&inner, FileKind::Index).await.is_empty());
}

#[tokio::test]
async fn a_signal_stops_a_writer_that_waits() {
    let store = memory();
    let repository = made(&store).await;
    let run = Run::silent();
    let writer = repository.writer(&run);
    writer.put(BlobKind::Data, noise(1, 100)).unwrap();
    run.cancel.cancel();
    assert!(matches!(writer.put(BlobKind::Data, noise(2, 100)), Err(RepositoryError::Stopped(_))));
    assert!(matches!(writer.finish().await, Err(RepositoryError::Stopped(_))));
    assert!(keys(&store, FileKind::Index).await.is_empty());
}

#[tokio::test]
async fn a_ticket_of_a_writer_that_is_gone_does_not_wait_for_ever() {
    let store = memory();
    let repository = made(&store).await;
    let limits = Limits { in_flight_bytes_max: 1 << 30, sealers: 1, ..small_limits() };
    let writer = repository.writer_with(&Run::silent(), limits);
    let tickets: Vec<_> = (0..100).map(|number| writer.put(BlobKind::Data, noise(number, 1 << 20)).unwrap()).collect();
    drop(writer);
    let outcomes: Vec<_> = tickets.into_iter().map(bkp::repository::Ticket::wait).collect();
    assert!(outcomes.last().unwrap().is_err());
}

#[tokio::test]
async fn a_place_holds_one_repository() {
    let store = memory();
    made(&store).await;
    let again = Repository::init_with(Arc::clone(&store), &secret(), CHEAP, &Run::silent()).await;
    assert!(matches!(again, Err(RepositoryError::AlreadyThere { .. })));
}

#[tokio::test]
async fn the_wrong_password_and_the_wrong_place_are_told_apart() {
    let (store, run) = (memory(), Run::silent());
    let none = Repository::open(Arc::clone(&store), &secret(), &run).await.unwrap_err();
    assert!(matches!(none, RepositoryError::NoRepository { .. }) && none.hint().is_some());
    made(&store).await;
    let wrong = Repository::open(store, &Secret::new("guess".to_owned()), &run).await.unwrap_err();
    assert!(matches!(wrong, RepositoryError::WrongPassword { .. }) && wrong.hint().is_some());
    assert!(!format!("{wrong} {wrong:?}").contains("guess"));
}

#[tokio::test]
async fn an_init_that_was_killed_before_its_config_is_taken_up() {
    let store = memory();
    made(&store).await;
    store.delete(&Key::config()).await.unwrap();
    let made_again = made(&store).await;
    assert_eq!(keys(&store, FileKind::Key).await.len(), 1);
    save(&made_again, &shop_files()).await;
    store.delete(&Key::config()).await.unwrap();
    let headless = Repository::init_with(store, &secret(), CHEAP, &Run::silent()).await;
    assert!(matches!(headless, Err(RepositoryError::Refused { .. })), "its snapshots would be orphaned");
}

#[tokio::test]
async fn a_lost_lock_keeps_the_repository_from_publishing() {
    let store = memory();
    let repository = made(&store).await;
    let run = Run::silent();
    let held = repository.lock(LockMode::Shared, Duration::ZERO, &run).await.unwrap();
    let tree = save(&repository, &[("/a", noise(1, 1000))]).await.snapshot.tree;
    let lock = keys(&store, FileKind::Lock).await;
    assert_eq!(lock.len(), 1);
    // As `restic unlock --remove-all` on another machine does, long before the next refresh would notice.
    store.delete(&lock[0]).await.unwrap();
    let refused = repository.save_snapshot(&snapshot(tree, "/b")).await;
    assert!(matches!(refused, Err(RepositoryError::LockLost { .. })), "{refused:?}");
    let writer = repository.writer(&run);
    assert!(matches!(writer.put(BlobKind::Data, noise(2, 10)), Err(RepositoryError::LockLost { .. })));
    assert_eq!(repository.snapshots().await.unwrap().len(), 1);
    held.release().await.unwrap();
}

#[tokio::test]
async fn a_lock_that_is_given_back_leaves_nothing_and_hinders_nothing() {
    let store = memory();
    let repository = made(&store).await;
    let held = repository.lock(LockMode::Shared, Duration::ZERO, &Run::silent()).await.unwrap();
    assert_eq!(keys(&store, FileKind::Lock).await.len(), 1);
    held.release().await.unwrap();
    assert!(keys(&store, FileKind::Lock).await.is_empty());
    save(&repository, &[("/a", noise(1, 1000))]).await;
}

#[tokio::test]
async fn a_machine_that_slept_has_lost_its_lock_when_it_wakes() {
    let store = memory();
    let repository = made(&store).await;
    let clock = FixedClock::at("2026-01-02T03:04:05Z".parse().unwrap());
    let run = Run::new(Arc::new(clock.clone()), Events::silent());
    let held = repository.lock(LockMode::Shared, Duration::ZERO, &run).await.unwrap();
    let writer = repository.writer(&run);
    clock.advance(TimeDelta::minutes(22));
    writer.put(BlobKind::Data, noise(1, 10)).unwrap();
    clock.advance(TimeDelta::minutes(1));
    assert!(matches!(writer.put(BlobKind::Data, noise(2, 10)), Err(RepositoryError::LockLost { .. })));
    assert!(writer.finish().await.is_err());
    assert!(keys(&store, FileKind::Index).await.is_empty());
    held.release().await.unwrap();
}

/// A repository on a store that can fail.
async fn on_faulty() -> (SharedStore, Arc<Faulty>, Arc<Repository>) {
    let inner = memory();
    made(&inner).await;
    let faulty = Arc::new(Faulty::new(Arc::clone(&inner)));
    let store: SharedStore = faulty.clone();
    let repository = opened(&store).await;
    (inner, faulty, repository)
}

#[tokio::test]
async fn what_comes_back_damaged_once_is_put_again() {
    for kind in [FileKind::Pack, FileKind::Index, FileKind::Snapshot] {
        for fault in [Fault::Flip, Fault::Cut, Fault::Swallowed] {
            let (inner, faulty, repository) = on_faulty().await;
            faulty.add(Rule::nth(Operation::Put, 1, fault.clone()).of(kind));
            save(&repository, &[("/a", noise(1, 1000))]).await;
            let puts = faulty.take_log().into_iter().filter(|it| it.operation == Operation::Put && it.kind == kind);
            assert_eq!(puts.count(), if kind == FileKind::Pack { 3 } else { 2 }, "{kind:?} {fault:?}");
            let report = bkp::verify::verify(&opened(&inner).await, DATA, &Run::silent()).await.unwrap();
            assert!(report.is_sound() && report.orphans.is_empty(), "{kind:?} {fault:?}: {report:#?}");
        }
    }
}

#[tokio::test]
async fn what_comes_back_damaged_twice_fails_the_run_and_nothing_builds_on_it() {
    for (kind, operation, fault) in [
        (FileKind::Pack, Operation::Put, Fault::Flip),
        (FileKind::Pack, Operation::Put, Fault::Swallowed),
        (FileKind::Pack, Operation::Get, Fault::Unreadable),
        (FileKind::Index, Operation::Put, Fault::Cut),
        (FileKind::Snapshot, Operation::Put, Fault::Flip),
    ] {
        let (inner, faulty, repository) = on_faulty().await;
        faulty.add(Rule::every(operation, fault).of(kind));
        let lines = [("/a", noise(1, 1000))];
        let told = try_save(&repository, &lines).await.unwrap_err();
        assert!(matches!(told, RepositoryError::Unproved { .. }), "{kind:?}: {told}");
        assert!(told.hint().is_some());
        assert!(keys(&inner, FileKind::Snapshot).await.is_empty());
        if kind != FileKind::Snapshot {
            assert!(keys(&inner, FileKind::Index).await.is_empty());
        }
        // The next run, in this process or another, saves all of it again.
        faulty.heal();
        for repository in [repository, opened(&inner).await] {
            try_save(&repository, &lines).await.unwrap();
            let report = bkp::verify::verify(&opened(&inner).await, DATA, &Run::silent()).await.unwrap();
            assert!(report.is_sound(), "{kind:?}: {report:#?}");
        }
    }
}

async fn try_save(repository: &Arc<Repository>, files: &[(&str, Vec<u8>)]) -> Result<(), RepositoryError> {
    let writer = repository.writer(&Run::silent());
    let nodes = files.iter().map(|(name, bytes)| {
        let blob = writer.save(BlobKind::Data, bytes.clone())?;
        Ok(file_node(name.trim_start_matches('/'), vec![blob], bytes.len() as u64))
    });
    let tree = writer.save_tree(&Tree { nodes: nodes.collect::<Result<_, RepositoryError>>()? })?;
    writer.finish().await?;
    repository.save_snapshot(&snapshot(tree, "/")).await.map(drop)
}

#[tokio::test]
async fn what_a_broken_source_had_put_is_not_built_on_by_the_next_source() {
    let store = memory();
    let repository = made(&store).await;
    let first = repository.writer_with(&Run::silent(), small_limits());
    for number in 0..12 {
        first.put(BlobKind::Data, noise(number, 200_000)).unwrap();
    }
    // One pack is durable by then, and no index names it.
    while keys(&store, FileKind::Pack).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(first);
    assert!(keys(&store, FileKind::Index).await.is_empty());
    let files: Vec<_> = (0..12).map(|number| (format!("/{number:02}"), noise(number, 200_000))).collect();
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let saved = save(&repository, &files).await;
    let read = read_all(&*opened(&store).await, saved.snapshot.tree).await;
    let unread: Vec<_> = read.iter().filter(|(_, bytes)| bytes.is_err()).collect();
    assert!(unread.is_empty() && read.len() == 12, "{unread:?}");
}

#[tokio::test]
async fn bytes_that_are_there_go_past_no_queue() {
    let store = memory();
    let repository = made(&store).await;
    save(&repository, &[("/a", noise(1, 1000))]).await;
    let run = Run::silent();
    let writer = repository.writer(&run);
    // Nothing can be queued any more, and what is known is still answered.
    run.cancel.cancel();
    assert_eq!(writer.save(BlobKind::Data, noise(1, 1000)).unwrap(), BlobId::of(&noise(1, 1000)));
    assert!(matches!(writer.save(BlobKind::Data, noise(2, 1000)), Err(RepositoryError::Stopped(_))));
}

#[tokio::test]
async fn a_key_that_cannot_be_read_does_not_shut_out_the_next() {
    let (_, faulty, repository) = on_faulty().await;
    let store: SharedStore = faulty.clone();
    let good = keys(&store, FileKind::Key).await.remove(0);
    // Both orders: the damaged key is tried before the good one, and after it.
    for name in ["00".repeat(32), "ff".repeat(32)] {
        let bad = Key::new(FileKind::Key, name);
        store.put(&bad, bytes::Bytes::from_static(b"{}")).await.unwrap();
        faulty.add(Rule::nth(Operation::Get, u64::from(bad > good) + 1, Fault::Unreadable).of(FileKind::Key));
        let opened = Repository::open(Arc::clone(&store), &secret(), &Run::silent()).await.unwrap();
        assert_eq!(opened.id(), repository.id());
        store.delete(&bad).await.unwrap();
        faulty.heal();
    }
}

#[tokio::test]
async fn an_index_that_a_prune_replaced_under_our_eyes_is_no_damage() {
    let (inner, faulty, repository) = on_faulty().await;
    let saved = save(&repository, &[("/a", noise(1, 1000))]).await;
    let before = keys(&inner, FileKind::Index).await;
    let replacing = Replacing { inner: faulty.clone(), before: before[0].clone(), is_done: AtomicBool::new(false) };
    let repository = Repository::open(Arc::new(Wrapped(replacing)), &secret(), &Run::silent()).await.unwrap();
    repository.load_index(&Run::silent()).await.unwrap();
    assert_eq!(keys(&inner, FileKind::Index).await.len(), 1);
    assert_ne!(keys(&inner, FileKind::Index).await, before);
    assert!(repository.index_faults().is_empty());
    assert!(read_all(&repository, saved.snapshot.tree).await.values().all(Result::is_ok));
}

/// A store on which another process replaces an index file as soon as that was listed.
struct Replacing {
    inner: Arc<Faulty>,
    before: Key,
    is_done: AtomicBool,
}

#[async_trait::async_trait]
impl Wrapper for Replacing {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn list(&self, kind: FileKind) -> Result<Vec<bkp::store::Listed>, StoreError> {
        let listed = self.inner.list(kind).await?;
        if kind == FileKind::Index && !self.is_done.swap(true, Ordering::Relaxed) {
            // What it names is sealed anew, under a new nonce and so a new name.
            let shared: SharedStore = self.inner.clone();
            let other = opened(&shared).await;
            let faults = (other.packs().len(), other.index_faults().len());
            assert_eq!(faults, (2, 0));
            reindex(&shared, &self.before).await;
        }
        Ok(listed)
    }
}

/// Puts an index file like one that is there, and deletes that one.
async fn reindex(store: &SharedStore, before: &Key) {
    let whole = store.get(before).await.unwrap();
    store.put(before, whole.slice(..whole.len() - 1)).await.unwrap();
    opened(store).await.save_recovered_index().await.unwrap();
    store.delete(before).await.unwrap();
}

#[tokio::test]
async fn many_blobs_of_a_pack_are_read_with_few_requests() {
    let inner = memory();
    let repository = made(&inner).await;
    let writer = repository.writer(&Run::silent());
    let plain: BTreeMap<_, _> =
        (0..300u64).map(|number| noise(number, 5000)).map(|bytes| (BlobId::of(&bytes), bytes)).collect();
    for bytes in plain.values() {
        writer.put(BlobKind::Data, bytes.clone()).unwrap();
    }
    writer.finish().await.unwrap();
    let faulty = Arc::new(Faulty::new(Arc::clone(&inner)));
    let store: SharedStore = faulty.clone();
    let repository = opened(&store).await;
    let before = faulty.count(Operation::Get) + faulty.count(Operation::GetRange);
    let wanted = plain.keys().map(|id| (repository.locate(BlobKind::Data, id).unwrap(), ())).collect();
    let reading = Arc::clone(&repository);
    let read = tokio::task::spawn_blocking(move || {
        let read = Mutex::new(BTreeMap::new());
        let fetched = reading.fetch_blocking(wanted, &Run::silent(), |same, bytes| {
            read.lock().unwrap().insert(same[0].0.blob.id, bytes.unwrap());
            Ok::<_, bkp::run::Stopped>(())
        });
        fetched.unwrap();
        read.into_inner().unwrap()
    });
    assert_eq!(read.await.unwrap(), plain);
    assert_eq!(faulty.count(Operation::Get) + faulty.count(Operation::GetRange) - before, 1);
}

#[tokio::test]
async fn a_save_that_is_cut_at_any_operation_leaves_the_old_state_or_the_new_one() {
    let mut cuts = 0;
    for nth in 1.. {
        let inner = memory();
        let old = save(&made(&inner).await, &[("/old", noise(1, 1000))]).await;
        let faulty = Arc::new(Faulty::new(Arc::clone(&inner)));
        let store: SharedStore = faulty.clone();
        faulty.add(Rule::nth(Operation::Any, nth, Fault::Dead));
        let saved = save_lines(&store).await;
        let repository = opened(&inner).await;
        let report = bkp::verify::verify(&repository, DATA, &Run::silent()).await.unwrap();
        assert!(report.is_sound(), "cut at operation {nth}: {report:#?}");
        let snapshots = repository.snapshots().await.unwrap();
        assert!(snapshots.contains(&old));
        // Once it is put, the snapshot is there, although a run that is cut while it reads it back says that it failed.
        let is_whole = snapshots.len() == 2;
        assert!(is_whole || saved.is_err(), "cut at operation {nth}");
        assert_eq!(snapshots.len(), 1 + usize::from(is_whole), "cut at operation {nth}");
        // The next run succeeds, with what the cut one left lying about.
        save_lines(&inner).await.unwrap();
        cuts += 1;
        if saved.is_ok() {
            break;
        }
    }
    assert!(cuts > 10, "{cuts}");
}

const DATA: bkp::verify::Options = bkp::verify::Options { level: bkp::verify::Level::Data, subset: None };

async fn save_lines(store: &SharedStore) -> Result<(), RepositoryError> {
    let run = Run::silent();
    let repository = Repository::open(Arc::clone(store), &secret(), &run).await?;
    repository.load_index(&run).await?;
    let writer = repository.writer_with(&run, small_limits());
    let mut nodes = Vec::new();
    for number in 0..4 {
        let mut stream = writer.file();
        stream.write_all(&noise(number, 900_000)).ok();
        let content = stream.finish()?;
        nodes.push(file_node(&number.to_string(), content.blobs, content.size));
    }
    let tree = writer.save_tree(&Tree { nodes })?;
    writer.finish().await?;
    repository.save_snapshot(&snapshot(tree, "/")).await.map(|_| ())
}
