//! One suite of promises, over every store.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bkp::event::Events;
use bkp::id::ObjectId;
use bkp::store::cache::Cache;
use bkp::store::faulty::Faulty;
use bkp::store::limit::Limit;
use bkp::store::local::LocalStore;
use bkp::store::memory::MemoryStore;
use bkp::store::retry::{Backoff, Retry};
use bkp::store::s3::Line;
use bkp::store::{FileKind, Key, SharedStore, Store, StoreError};
use bytes::Bytes;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::servers::S3;
use crate::wrapper::{Wrapped, Wrapper};

const KINDS: [FileKind; 6] =
    [FileKind::Key, FileKind::Config, FileKind::Lock, FileKind::Pack, FileKind::Index, FileKind::Snapshot];

fn key(kind: FileKind, number: u8) -> Key {
    match kind {
        FileKind::Config => Key::config(),
        _ => Key::new(kind, format!("{number:02x}").repeat(32)),
    }
}

/// An object under its right name: S3 refuses another.
fn object(kind: FileKind, bytes: &[u8]) -> (Key, Bytes) {
    let key = match kind {
        FileKind::Config => Key::config(),
        _ => Key::new(kind, ObjectId::of(bytes).to_string()),
    };
    (key, Bytes::copy_from_slice(bytes))
}

type Named = (&'static str, SharedStore);

/// A rate that no test feels.
const FAST: u64 = 1 << 40;

/// Every store round a store, each round one of its own.
fn wrapped(inner: impl Fn() -> SharedStore, dir: &Path) -> [Named; 4] {
    [
        ("Retry", Arc::new(Retry::new(inner(), Backoff::default(), CancellationToken::new()))),
        ("Limit", Arc::new(Limit::new(inner(), Some(FAST), 3))),
        ("Cache", Arc::new(Cache::new(inner(), dir.join("cache"), 1 << 30, Events::silent()))),
        ("Faulty", Arc::new(Faulty::new(inner()))),
    ]
}

/// Every store and every wrapper, empty, and what they live on.
struct All {
    stores: Vec<Named>,
    _dir: TempDir,
    _s3: S3,
}

impl All {
    async fn new() -> Self {
        let (dir, s3) = (tempfile::tempdir().unwrap(), S3::start());
        fs::create_dir(dir.path().join("mounted")).unwrap();
        let mut stores: Vec<Named> = vec![
            ("MemoryStore", Arc::new(MemoryStore::new())),
            ("LocalStore", Arc::new(LocalStore::new(dir.path().join("repository")))),
            ("LocalStore", Arc::new(LocalStore::within(dir.path().join("mounted")))),
        ];
        for (prefix, line) in [("at-once", Line::default()), ("paced", Line::new(Some(FAST)))] {
            stores.push(("S3Store", Arc::new(crate::s3::open_below(&s3, prefix, line).await)));
        }
        stores.extend(wrapped(|| Arc::new(MemoryStore::new()), dir.path()));
        Self { stores, _dir: dir, _s3: s3 }
    }
}

/// Runs one promise over every store and every wrapper.
async fn over_all<F: Future<Output = ()>>(promise: impl Fn(SharedStore) -> F) {
    for (name, store) in All::new().await.stores {
        println!("by {name} at {}", store.location());
        promise(store).await;
    }
}

#[tokio::test]
async fn no_store_of_the_program_is_without_these_promises() {
    let stores = All::new().await.stores;
    let asked: BTreeSet<_> = stores.iter().map(|(name, _)| (*name).to_owned()).collect();
    let (mut there, mut dirs) = (BTreeSet::new(), vec![PathBuf::from("src")]);
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
            } else {
                let text = fs::read_to_string(path).unwrap();
                let named = |line: &str| Some(line.split_once(" Store for ")?.1.trim_end_matches(" {").to_owned());
                // What is indented stands in tests.
                there.extend(text.lines().filter(|line| line.starts_with("impl")).filter_map(named));
            }
        }
    }
    assert_eq!(there, asked, "all that is there, and all that is asked");
}

async fn names(store: &SharedStore, kind: FileKind) -> Vec<String> {
    let listed = store.list(kind).await.unwrap();
    let mut names: Vec<_> = listed.into_iter().map(|listed| listed.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_put_is_got_whole_and_in_part() {
    over_all(|store| async move {
        for kind in KINDS {
            let (key, bytes) = object(kind, b"0123456789");
            store.put(&key, bytes).await.unwrap();
            assert_eq!(store.get(&key).await.unwrap(), "0123456789");
            assert_eq!(store.get_range(&key, 2..5).await.unwrap(), "234");
            assert_eq!(store.get_range(&key, 0..10).await.unwrap(), "0123456789");
            assert_eq!(store.get_range(&key, 10..10).await.unwrap(), "");
            assert_eq!(store.size(&key).await.unwrap(), Some(10));
        }
    })
    .await;
}

#[tokio::test]
async fn a_stretch_past_the_end_is_an_error() {
    over_all(|store| async move {
        let (key, bytes) = object(FileKind::Key, b"0123456789");
        store.put(&key, bytes).await.unwrap();
        for range in [5..11, 11..12] {
            let error = store.get_range(&key, range).await.unwrap_err();
            assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        }
        assert!(store.get_range(&key, u64::MAX - 1..u64::MAX).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_hash_is_that_of_the_bytes_as_they_are_now() {
    over_all(|store| async move {
        let long = vec![7; (3 << 20) + 1];
        let (key, bytes) = object(FileKind::Key, &long);
        store.put(&key, bytes).await.unwrap();
        assert_eq!(store.hash(&key).await.unwrap(), ObjectId::of(&long));
        assert!(matches!(store.hash(&self::key(FileKind::Key, 9)).await, Err(StoreError::Missing { .. })));
    })
    .await;
}

/// A store that knows the hashes of its objects better than a get would tell.
struct Hashing(MemoryStore);

#[async_trait::async_trait]
impl Wrapper for Hashing {
    fn inner(&self) -> &dyn Store {
        &self.0
    }

    async fn hash(&self, _: &Key) -> Result<ObjectId, StoreError> {
        Ok(ObjectId::of(b"from the disk"))
    }
}

#[tokio::test]
async fn a_wrapper_leaves_the_hash_to_the_store_that_reads_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    for (name, store) in wrapped(|| Arc::new(Wrapped(Hashing(MemoryStore::new()))), dir.path()) {
        let (key, bytes) = object(FileKind::Pack, b"as a get tells it");
        store.put(&key, bytes).await.unwrap();
        // A store that fails on purpose fails a hash as it fails a get.
        let expected: &[u8] = if name == "Faulty" { b"as a get tells it" } else { b"from the disk" };
        assert_eq!(store.hash(&key).await.unwrap(), ObjectId::of(expected), "{name}");
    }
}

#[tokio::test]
async fn one_object_that_cannot_be_read_is_told_from_a_store_that_cannot() {
    let (dir, store) = local();
    let (cut, bytes) = object(FileKind::Pack, &[1; 100]);
    store.put(&cut, bytes).await.unwrap();
    let path = dir.path().join(cut.path());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(50).unwrap();
    let error = store.get_range(&cut, 0..100).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");

    let no_file = key(FileKind::Pack, 3);
    fs::create_dir_all(dir.path().join(no_file.path())).unwrap();
    for error in [store.get(&no_file).await.unwrap_err(), store.hash(&no_file).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn what_is_not_there_is_missing_and_deleting_it_is_no_error() {
    over_all(|store| async move {
        for kind in KINDS {
            let key = key(kind, 9);
            assert!(matches!(store.get(&key).await, Err(StoreError::Missing { .. })));
            assert!(matches!(store.get_range(&key, 0..1).await, Err(StoreError::Missing { .. })));
            assert_eq!(store.size(&key).await.unwrap(), None);
            assert!(names(&store, kind).await.is_empty());
            store.delete(&key).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_list_has_each_object_of_its_kind_with_its_size() {
    over_all(|store| async move {
        let (key, bytes) = object(FileKind::Key, b"k");
        store.put(&key, bytes).await.unwrap();
        for length in [1, 2, 0xfe] {
            let (key, bytes) = object(FileKind::Pack, &vec![0; length]);
            store.put(&key, bytes).await.unwrap();
        }
        let mut listed = store.list(FileKind::Pack).await.unwrap();
        listed.sort_by_key(|listed| listed.size);
        assert_eq!(listed.iter().map(|listed| listed.size).collect::<Vec<_>>(), [1, 2, 0xfe]);
        assert_eq!(listed[2].name, object(FileKind::Pack, &[0; 0xfe]).0.name);
        assert_eq!(names(&store, FileKind::Key).await.len(), 1);
        assert!(names(&store, FileKind::Lock).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_deleted_object_is_gone() {
    over_all(|store| async move {
        let (one, other) = (object(FileKind::Key, b"1"), object(FileKind::Key, b"2"));
        for (key, bytes) in [&one, &other] {
            store.put(key, bytes.clone()).await.unwrap();
        }
        store.delete(&one.0).await.unwrap();
        assert_eq!(names(&store, FileKind::Key).await, [other.0.name]);
        assert_eq!(store.size(&one.0).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn what_was_read_before_it_was_deleted_comes_from_nowhere_afterwards() {
    over_all(|store| async move {
        for kind in KINDS {
            let (key, bytes) = object(kind, b"0123456789");
            store.put(&key, bytes).await.unwrap();
            store.get(&key).await.unwrap();
            store.get_range(&key, 2..5).await.unwrap();
            store.delete(&key).await.unwrap();
            assert!(matches!(store.get(&key).await, Err(StoreError::Missing { .. })), "{kind:?}");
            assert!(matches!(store.get_range(&key, 2..5).await, Err(StoreError::Missing { .. })), "{kind:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_put_where_something_lies_takes_its_place() {
    over_all(|store| async move {
        let (root, bytes) = object(FileKind::Key, b"the first makes the root");
        store.put(&root, bytes).await.unwrap();
        // The only object that is not named by its bytes.
        let key = Key::config();
        for bytes in [&b"the first"[..], b"another, and longer", b"third"] {
            store.put(&key, Bytes::copy_from_slice(bytes)).await.unwrap();
            assert_eq!(store.get(&key).await.unwrap(), bytes);
            assert_eq!(store.hash(&key).await.unwrap(), ObjectId::of(bytes));
            assert_eq!(store.size(&key).await.unwrap(), Some(bytes.len() as u64));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_puts_at_once_all_arrive() {
    over_all(|store| async move {
        let (key, bytes) = object(FileKind::Key, b"the first makes the root");
        store.put(&key, bytes).await.unwrap();
        let puts = (0..100).map(|number| {
            let store = Arc::clone(&store);
            let (key, bytes) = object(FileKind::Pack, &[number; 1000]);
            tokio::spawn(async move { store.put(&key, bytes).await })
        });
        for put in puts.collect::<Vec<_>>() {
            put.await.unwrap().unwrap();
        }
        assert_eq!(names(&store, FileKind::Pack).await.len(), 100);
    })
    .await;
}

fn local() -> (tempfile::TempDir, SharedStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::new(dir.path()));
    (dir, store)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn local_files_are_for_their_owner_alone_and_never_written_again() {
    let (dir, store) = local();
    store.put(&key(FileKind::Pack, 0xab), Bytes::from_static(b"x")).await.unwrap();
    let file = dir.path().join("data/ab").join("ab".repeat(32));
    assert_eq!(mode(&file), 0o400);
    assert_eq!(mode(&dir.path().join("data")), 0o700);
    assert_eq!(mode(&dir.path().join("data/ab")), 0o700);
}

#[tokio::test]
async fn what_a_kill_left_is_no_object_and_is_tidied_away_when_old() {
    let (dir, store) = local();
    store.put(&key(FileKind::Snapshot, 1), Bytes::from_static(b"x")).await.unwrap();
    let place = dir.path().join("snapshots");
    let (old, young) = (place.join("02-tmp-aa"), place.join("03-tmp-bb"));
    fs::write(&old, "torn").unwrap();
    fs::write(&young, "torn").unwrap();
    let two_days_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(48);
    fs::File::options().write(true).open(&old).unwrap().set_modified(two_days_ago).unwrap();
    assert_eq!(names(&store, FileKind::Snapshot).await.len(), 1);
    let again = LocalStore::new(dir.path());
    bkp::store::Store::put(&again, &key(FileKind::Snapshot, 4), Bytes::new()).await.unwrap();
    assert!(!old.exists() && young.exists());
}

#[tokio::test]
async fn a_root_that_went_away_is_not_made_again_by_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("mounted");
    let store = LocalStore::new(&root);
    let put = bkp::store::Store::put(&store, &key(FileKind::Pack, 1), Bytes::new()).await;
    assert!(matches!(put, Err(StoreError::Missing { .. })), "{put:?}");
    assert!(!root.exists());
}

#[tokio::test]
async fn a_root_that_another_makes_is_never_made_by_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("mounted");
    let store = LocalStore::within(&root);
    let put = bkp::store::Store::put(&store, &key(FileKind::Key, 1), Bytes::new()).await;
    assert!(matches!(put, Err(StoreError::Missing { .. })), "{put:?}");
    assert!(!root.exists());
    fs::create_dir(&root).unwrap();
    bkp::store::Store::put(&store, &key(FileKind::Key, 1), Bytes::new()).await.unwrap();
}

#[tokio::test]
async fn a_file_where_a_directory_should_be_is_a_clear_error() {
    let (dir, store) = local();
    fs::write(dir.path().join("index"), "").unwrap();
    let error = store.put(&key(FileKind::Index, 1), Bytes::new()).await.unwrap_err();
    assert!(error.to_string().contains("index"), "{error}");
}

#[tokio::test]
#[ignore = "needs root, to mount a tmpfs of its own; scripts/test runs it"]
async fn a_full_disk_is_told_as_one_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).status();
    assert!(mounted.unwrap().success());
    let store = LocalStore::new(dir.path());
    let first = bkp::store::Store::put(&store, &key(FileKind::Pack, 1), vec![1; 600 << 10].into()).await;
    let second = bkp::store::Store::put(&store, &key(FileKind::Pack, 2), vec![2; 600 << 10].into()).await;
    let listed = bkp::store::Store::list(&store, FileKind::Pack).await;
    let third = bkp::store::Store::put(&store, &key(FileKind::Pack, 3), vec![3; 100 << 10].into()).await;
    let unmounted = std::process::Command::new("umount").arg(dir.path()).status();
    assert!(unmounted.unwrap().success());
    first.unwrap();
    assert!(matches!(second, Err(StoreError::Full { .. })), "{second:?}");
    assert_eq!(listed.unwrap().len(), 1);
    third.unwrap();
}

#[tokio::test]
async fn what_is_immutable_is_not_deleted_whatever_stands_round_the_store() {
    let day = Duration::from_hours(24);
    let locking = || -> SharedStore { Arc::new(MemoryStore::immutable(day)) };
    let dir = tempfile::tempdir().unwrap();
    for (name, store) in [("MemoryStore", locking())].into_iter().chain(wrapped(locking, dir.path())) {
        println!("by {name}");
        let before = chrono::Utc::now();
        let (pack, bytes) = object(FileKind::Pack, b"kept");
        store.put(&pack, bytes).await.unwrap();
        let end = store.immutable_until(&pack).await.unwrap().unwrap();
        assert!((before + day..=chrono::Utc::now() + day).contains(&end));
        let error = store.delete(&pack).await.unwrap_err();
        assert!(matches!(error, StoreError::Protected { until, .. } if until == Some(end)), "{error}");
        assert_eq!(store.size(&pack).await.unwrap(), Some(4));

        let later = end + day;
        assert_eq!(store.keep_immutable(&pack, end, later).await.unwrap(), end, "it is long enough");
        assert_eq!(store.keep_immutable(&pack, later, later).await.unwrap(), later);
        assert_eq!(store.immutable_until(&pack).await.unwrap(), Some(later));

        let (lock, bytes) = object(FileKind::Lock, b"lock");
        store.put(&lock, bytes).await.unwrap();
        assert_eq!(store.immutable_until(&lock).await.unwrap(), None);
        store.delete(&lock).await.unwrap();
    }
}
