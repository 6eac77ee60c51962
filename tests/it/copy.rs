//! A copy is the same repository in another store: byte for byte, whatever was cut in between.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bkp::clock::SystemClock;
use bkp::copy::{Copied, CopyError, ObjectError, copy, plan};
use bkp::entry::{Kind, Metadata};
use bkp::event::{Event, Events, Listener};
use bkp::id::{ObjectId, SnapshotId};
use bkp::place;
use bkp::policy::Policy;
use bkp::repository::key::Cost;
use bkp::repository::{BlobKind, LockMode, Node, Repository, Snapshot, Tree};
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::store::faulty::{Asked, Fault, Faulty, Operation, Rule};
use bkp::store::limit::Limit;
use bkp::store::local::LocalStore;
use bkp::store::memory::MemoryStore;
use bkp::store::{FileKind, Key, SharedStore};
use bytes::Bytes;
use rand::{RngCore, SeedableRng};

use crate::s3;
use crate::servers::S3;

const CHEAP: Cost = Cost { log_n: 4, r: 8, p: 1 };

const KINDS: [FileKind; 5] = [FileKind::Config, FileKind::Key, FileKind::Pack, FileKind::Index, FileKind::Snapshot];

pub(crate) fn memory() -> SharedStore {
    Arc::new(MemoryStore::new())
}

pub(crate) fn password() -> Secret {
    Secret::new("correct horse".to_owned())
}

pub(crate) async fn repository(store: SharedStore) -> Arc<Repository> {
    let run = Run::silent();
    Repository::init_with(store, &password(), CHEAP, &run).await.unwrap()
}

/// Saves a snapshot of one file with contents of its own, in packs of its own.
pub(crate) async fn save(repository: &Arc<Repository>, seed: u64, tags: &[&str]) -> SnapshotId {
    let run = Run::silent();
    let writer = repository.writer(&run);
    let mut bytes = vec![0; 100_000];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    let blob = writer.put(BlobKind::Data, bytes.clone()).unwrap().wait().unwrap();
    let tree = writer.save_tree(&tree(blob.id, &bytes)).unwrap();
    writer.finish().await.unwrap();
    let snapshot = Snapshot {
        time: chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000 + i64::try_from(seed).unwrap()),
        parent: None,
        tree,
        paths: vec!["/data".to_owned()],
        hostname: "here".to_owned(),
        username: "bkp".to_owned(),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        program_version: None,
        summary: None,
    };
    repository.save_snapshot(&snapshot).await.unwrap()
}

fn tree(content: bkp::id::BlobId, bytes: &[u8]) -> Tree {
    let epoch = chrono::DateTime::UNIX_EPOCH;
    let metadata = Metadata {
        kind: Kind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        user: String::new(),
        group: String::new(),
        size: bytes.len() as u64,
        mtime: epoch,
        atime: epoch,
        ctime: epoch,
        device: 1,
        inode: 1,
        links: 1,
        xattrs: Vec::new(),
    };
    let node = Node { name: "file".into(), metadata, content: vec![content], subtree: None };
    Tree { nodes: vec![node] }
}

async fn three_snapshots() -> Arc<Repository> {
    let repository = repository(memory()).await;
    for seed in 1..=3 {
        save(&repository, seed, &[]).await;
    }
    repository
}

/// Returns every object of a store but locks.
async fn objects(store: &SharedStore) -> BTreeMap<Key, Bytes> {
    let mut objects = BTreeMap::new();
    for kind in KINDS {
        for listed in store.list(kind).await.unwrap() {
            let key = Key::new(kind, listed.name);
            let bytes = store.get(&key).await.unwrap();
            objects.insert(key, bytes);
        }
    }
    objects
}

async fn copied(from: &Repository, to: &SharedStore) -> Copied {
    copy(from, to, 4, &Run::silent()).await.unwrap()
}

fn faulty(rules: impl IntoIterator<Item = Rule>) -> (SharedStore, Arc<Faulty>) {
    let faulty = Arc::new(Faulty::new(memory()));
    for rule in rules {
        faulty.add(rule);
    }
    (faulty.clone(), faulty)
}

#[tokio::test]
async fn a_copy_in_s3_has_the_same_bytes_under_the_same_names() {
    let s3 = S3::start();
    let from = three_snapshots().await;
    let to: SharedStore = Arc::new(s3::open(&s3).await);
    let first = copied(&from, &to).await;
    assert!(first.is_complete(), "{first:?}");
    assert_eq!((first.packs, first.indexes, first.snapshots.len()), (6, 3, 3));
    assert_eq!(objects(from.store()).await, objects(&to).await);

    let opened = Repository::open(to, &password(), &Run::silent()).await.unwrap();
    opened.load_index(&Run::silent()).await.unwrap();
    assert_eq!(opened.id(), from.id());
    assert_eq!(opened.snapshots().await.unwrap(), from.snapshots().await.unwrap());
}

#[tokio::test]
async fn a_copy_in_a_directory_is_a_repository_too() {
    let dir = tempfile::tempdir().unwrap();
    let from = three_snapshots().await;
    let to: SharedStore = Arc::new(LocalStore::new(dir.path().join("copy")));
    assert!(copied(&from, &to).await.is_complete());
    assert_eq!(objects(from.store()).await, objects(&to).await);
}

#[tokio::test]
async fn a_second_copy_sends_only_what_is_new() {
    let from = three_snapshots().await;
    let (to, log) = faulty([]);
    copied(&from, &to).await;
    log.take_log();
    let nothing = copied(&from, &to).await;
    assert_eq!((log.count(Operation::Put), nothing.bytes), (0, 0), "not even a lock");
    assert_eq!(nothing.skipped, 14);

    save(&from, 4, &[]).await;
    let one = copied(&from, &to).await;
    assert_eq!((one.packs, one.indexes, one.snapshots.len()), (2, 1, 1));
    assert_eq!(puts(&log), 4);
    assert_eq!(objects(from.store()).await, objects(&to).await);
}

/// Returns how many objects were put, and starts a new log. Locks are no part of a copy.
fn puts(log: &Faulty) -> usize {
    let is_put = |asked: &Asked| asked.operation == Operation::Put && asked.kind != FileKind::Lock;
    log.take_log().iter().filter(|asked| is_put(asked)).count()
}

#[tokio::test]
async fn a_dry_run_tells_what_a_copy_then_sends() {
    let from = three_snapshots().await;
    let to = memory();
    let run = Run::silent();
    let plan = plan(from.store(), &to, &run).await.unwrap();
    assert!(objects(&to).await.is_empty());
    let sent = copied(&from, &to).await;
    assert_eq!((plan.bytes(), plan.packs.len() as u64), (sent.bytes, sent.packs));
    assert_eq!(plan.count(), objects(&to).await.len());
}

#[tokio::test]
async fn a_copy_cut_at_any_put_is_sound_and_resumes_without_sending_twice() {
    let from = three_snapshots().await;
    let all = objects(from.store()).await;
    for nth in 1..=all.len() as u64 {
        let (to, log) = faulty([Rule::nth(Operation::Put, nth, Fault::Dead)]);
        let cut = copy(&from, &to, 3, &Run::silent()).await;
        assert!(!cut.is_ok_and(|copied| copied.is_complete()), "cut at {nth}");
        log.heal();
        assert_sound(&objects(&to).await, &all);

        let there = objects(&to).await.len();
        log.take_log();
        let rest = copied(&from, &to).await;
        assert!(rest.is_complete(), "cut at {nth}: {rest:?}");
        assert_eq!(puts(&log), all.len() - there, "cut at {nth}");
        assert_eq!(objects(&to).await, all, "cut at {nth}");
    }
}

/// Every snapshot that is in the copy finds everything there that was published before it.
fn assert_sound(there: &BTreeMap<Key, Bytes>, all: &BTreeMap<Key, Bytes>) {
    let names = |objects: &BTreeMap<Key, Bytes>, kind| -> BTreeSet<_> {
        let of_kind = objects.keys().filter(|key| key.kind == kind);
        of_kind.cloned().collect()
    };
    let order = [FileKind::Pack, FileKind::Index, FileKind::Snapshot];
    for pair in order.windows(2) {
        if !names(there, pair[1]).is_empty() {
            assert_eq!(names(there, pair[0]), names(all, pair[0]));
        }
    }
}

#[tokio::test]
async fn a_torn_object_is_sent_again() {
    let from = three_snapshots().await;
    let to = memory();
    copied(&from, &to).await;
    let all = objects(&to).await;
    for (key, bytes) in &all {
        if key.kind == FileKind::Config {
            continue; // it is compared whole
        }
        to.put(key, bytes.slice(..bytes.len() - 1)).await.unwrap();
        let again = copied(&from, &to).await;
        assert_eq!(again.bytes, bytes.len() as u64, "{key}");
    }
    assert_eq!(objects(&to).await, all);
}

async fn flip(store: &SharedStore, key: &Key) {
    let mut bytes = store.get(key).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.put(key, Bytes::from(bytes)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_pack_is_never_sent_and_only_its_snapshots_are_held_back() {
    let from = three_snapshots().await;
    let snapshots = from.snapshots().await.unwrap();
    for kind in [BlobKind::Data, BlobKind::Tree] {
        let whole = objects(from.store()).await;
        let victim = &snapshots[1];
        let blob = match kind {
            BlobKind::Tree => victim.snapshot.tree,
            BlobKind::Data => from.tree(&victim.snapshot.tree).await.unwrap().nodes[0].content[0],
        };
        let pack = Key::new(FileKind::Pack, from.pack_of(kind, &blob).unwrap().to_string());
        flip(from.store(), &pack).await;

        let to = memory();
        let partial = copied(&from, &to).await;
        assert!(!partial.is_complete());
        assert_eq!(partial.damaged().collect::<Vec<_>>(), [&pack], "{kind:?}");
        assert_eq!(partial.held_back, [victim.id], "{kind:?}");
        assert_eq!(partial.snapshots.len(), 2);
        assert_eq!(to.size(&pack).await.unwrap(), None);

        from.store().put(&pack, whole[&pack].clone()).await.unwrap();
        let healed = copied(&from, &to).await;
        assert!(healed.is_complete());
        assert_eq!((healed.packs, healed.snapshots), (1, vec![victim.id]));
        assert_eq!(objects(&to).await, whole);
    }
}

#[tokio::test]
async fn a_damaged_index_holds_back_what_only_it_names_until_a_new_one_names_it() {
    let from = three_snapshots().await;
    let index = Key::new(FileKind::Index, from.store().list(FileKind::Index).await.unwrap().remove(0).name);
    flip(from.store(), &index).await;
    let to = memory();
    let partial = copied(&from, &to).await;
    assert_eq!((partial.packs, partial.indexes, partial.held_back.len()), (6, 2, 1));
    assert_eq!(partial.damaged().collect::<Vec<_>>(), [&index]);
    assert_eq!(to.list(FileKind::Snapshot).await.unwrap().len(), 2);

    // As the next backup does.
    let mended = Repository::open(Arc::clone(from.store()), &password(), &Run::silent()).await.unwrap();
    mended.load_index(&Run::silent()).await.unwrap();
    assert_eq!(mended.save_recovered_index().await.unwrap(), 2);
    let rest = copied(&mended, &to).await;
    assert_eq!((rest.snapshots.len(), rest.held_back.len()), (1, 0));
    assert!(!rest.is_complete(), "the damaged index is still told");
    let report = verified(&to).await;
    assert!(report.is_sound() && report.checked.snapshots == 3, "{report:#?}");
}

#[tokio::test]
async fn an_index_that_did_not_arrive_holds_everything_back() {
    let from = three_snapshots().await;
    let (to, _log) = faulty([Rule::nth(Operation::Put, 1, Fault::Denied).of(FileKind::Index)]);
    let partial = copied(&from, &to).await;
    assert_eq!(partial.held_back.len(), 3);
    assert!(to.list(FileKind::Snapshot).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_key_beside_a_good_one_holds_nothing_back() {
    let from = three_snapshots().await;
    let bad = Key::new(FileKind::Key, "ab".repeat(32));
    from.store().put(&bad, Bytes::from_static(b"{}")).await.unwrap();
    let partial = copied(&from, &memory()).await;
    assert_eq!((partial.snapshots.len(), partial.held_back.len()), (3, 0));
    assert!(matches!(&partial.failed[..], [(key, ObjectError::Damaged)] if *key == bad), "{partial:?}");
}

#[tokio::test]
async fn a_snapshot_whose_pack_is_gone_here_is_not_published_there() {
    let from = three_snapshots().await;
    let victim = from.snapshots().await.unwrap().remove(1);
    let blob = from.tree(&victim.snapshot.tree).await.unwrap().nodes[0].content[0];
    let pack = Key::new(FileKind::Pack, from.pack_of(BlobKind::Data, &blob).unwrap().to_string());
    let bytes = from.store().get(&pack).await.unwrap();
    from.store().delete(&pack).await.unwrap();
    let to = memory();
    let partial = copied(&from, &to).await;
    assert_eq!((partial.held_back.clone(), partial.snapshots.len()), (vec![victim.id], 2));
    assert!(matches!(&partial.failed[..], [(key, ObjectError::Gone)] if *key == pack), "{partial:?}");
    assert_eq!(partial.damaged().collect::<Vec<_>>(), [&pack]);

    // What it held is saved again, in another pack, and the snapshot goes.
    let healing = Repository::open(Arc::clone(from.store()), &password(), &Run::silent()).await.unwrap();
    healing.load_index(&Run::silent()).await.unwrap();
    assert_eq!(healing.leave_out_lost_packs().await.unwrap().len(), 1);
    save(&healing, 2, &["again"]).await;
    let healed = copied(&healing, &to).await;
    assert!(healed.is_complete(), "{healed:?}");
    assert_eq!(healed.snapshots.len(), 2);
    let opened = Repository::open(Arc::clone(&to), &password(), &Run::silent()).await.unwrap();
    opened.load_index(&Run::silent()).await.unwrap();
    assert_eq!(opened.blob(BlobKind::Data, &blob).await.unwrap().len(), 100_000);

    // A copy that has the pack needs no pack here.
    to.put(&pack, bytes).await.unwrap();
    assert!(verified(&to).await.is_sound());
}

#[tokio::test]
async fn a_pack_that_the_target_lost_under_our_hands_holds_its_snapshots_back() {
    let from = three_snapshots().await;
    let (to, _log) = faulty([Rule::nth(Operation::Put, 3, Fault::Cut).of(FileKind::Pack)]);
    let partial = copied(&from, &to).await;
    assert_eq!((partial.snapshots.len(), partial.held_back.len()), (2, 1));
    assert!(matches!(partial.failed[..], [(_, ObjectError::Vanished)]), "{partial:?}");
    let whole = copied(&from, &to).await;
    assert!(whole.is_complete() && whole.snapshots.len() == 1, "{whole:?}");
}

async fn verified(store: &SharedStore) -> bkp::verify::Report {
    let repository = Repository::open(Arc::clone(store), &password(), &Run::silent()).await.unwrap();
    let options = bkp::verify::Options { level: bkp::verify::Level::Data, subset: None };
    bkp::verify::verify(&repository, options, &Run::silent()).await.unwrap()
}

#[tokio::test]
async fn a_target_is_locked_while_anything_is_sent() {
    let from = three_snapshots().await;
    let (to, log) = faulty([]);
    copied(&from, &to).await;
    let target = Repository::open(Arc::clone(&to), &password(), &Run::silent()).await.unwrap();
    save(&from, 4, &[]).await;
    let pruning = target.lock(LockMode::Exclusive, std::time::Duration::ZERO, &Run::silent()).await.unwrap();
    let error = copy(&from, &to, 4, &Run::silent()).await.unwrap_err();
    assert!(matches!(error, CopyError::Lock { .. }) && error.hint().is_some(), "{error}");
    pruning.release().await.unwrap();
    log.take_log();
    assert!(copied(&from, &to).await.is_complete());
    let log = log.take_log();
    let at = |operation, kind| log.iter().position(|it| it.operation == operation && it.kind == kind).unwrap();
    assert!(at(Operation::Put, FileKind::Lock) < at(Operation::Put, FileKind::Pack));
    assert!(at(Operation::Delete, FileKind::Lock) > at(Operation::Put, FileKind::Snapshot));
    assert!(to.list(FileKind::Lock).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_target_that_takes_no_lock_is_copied_to_with_a_warning() {
    for operation in [Operation::Put, Operation::Delete] {
        let from = three_snapshots().await;
        let (to, log) = faulty([]);
        copied(&from, &to).await;
        save(&from, 4, &[]).await;
        log.add(Rule::every(operation, Fault::Denied).of(FileKind::Lock));
        let ear = Arc::new(Ear::default());
        let run = Run::new(Arc::new(SystemClock), Events::new(ear.clone()));
        let done = copy(&from, &to, 4, &run).await.unwrap();
        assert!(done.is_complete(), "{done:?}");
        let warned = ear.1.lock().unwrap().iter().any(|text| text.contains("takes no lock from us"));
        assert_eq!(warned, operation == Operation::Put);
    }
}

#[tokio::test]
async fn a_target_that_holds_another_repository_is_refused_untouched() {
    let from = three_snapshots().await;
    let other = repository(memory()).await;
    let before = objects(other.store()).await;
    let error = copy(&from, other.store(), 4, &Run::silent()).await.unwrap_err();
    assert_eq!(error.to_string(), "copy to `memory`: another repository is there");
    assert_eq!(objects(other.store()).await, before);
}

#[tokio::test]
async fn a_source_without_a_config_is_no_repository() {
    let error = plan(&memory(), &memory(), &Run::silent()).await.unwrap_err();
    assert!(matches!(error, CopyError::NoRepository { .. }), "{error}");
}

#[tokio::test]
async fn a_target_that_is_full_is_not_tried_with_every_object() {
    let from = three_snapshots().await;
    let (to, log) = faulty([Rule::every(Operation::Put, Fault::Full).of(FileKind::Pack)]);
    let partial = copy(&from, &to, 1, &Run::silent()).await.unwrap();
    assert_eq!(log.count(Operation::Put), 3, "key, config and one pack");
    assert_eq!((partial.failed.len(), partial.held_back.len()), (9, 3));
    let first = &partial.failed[0].1;
    assert!(matches!(first, ObjectError::Put(_)), "{first}");
}

#[tokio::test]
async fn what_the_target_only_said_to_have_is_a_failure() {
    let from = three_snapshots().await;
    let (to, _log) = faulty([Rule::nth(Operation::Put, 2, Fault::Swallowed).of(FileKind::Pack)]);
    let partial = copied(&from, &to).await;
    assert!(!partial.is_complete());
    assert!(matches!(partial.failed[..], [(_, ObjectError::Vanished)]), "{partial:?}");
    assert!(copied(&from, &to).await.is_complete());
}

#[tokio::test]
async fn a_signal_stops_a_copy_that_hangs() {
    let from = three_snapshots().await;
    let (to, log) = faulty([Rule::every(Operation::Put, Fault::Stall).of(FileKind::Pack)]);
    let run = Run::silent();
    let cancel = run.cancel.clone();
    let hanging = tokio::spawn(async move { copy(&from, &to, 4, &run).await });
    // Until four packs hang, there is nothing to stop.
    while log.count(Operation::Put) < 6 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    let error = hanging.await.unwrap().unwrap_err();
    assert!(matches!(error, CopyError::Stopped(_)), "{error}");
}

#[tokio::test]
async fn a_limited_copy_keeps_to_its_uploads_at_once_and_is_whole() {
    let from = three_snapshots().await;
    let (slow, log) = faulty([Rule::every(Operation::Put, Fault::Stall).of(FileKind::Pack)]);
    let to: SharedStore = Arc::new(Limit::new(slow, Some(1 << 40), 2));
    let run = Run::silent();
    let cancel = run.cancel.clone();
    let puts = |log: &Faulty| log.count(Operation::Put);
    let (ended, ()) = tokio::join!(copy(&from, &to, 16, &run), async {
        // The key, the config, and as many packs as may be under way; the others get every chance to overtake them.
        while puts(&log) < 4 {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!((puts(&log), log.at_once_max()), (4, 2));
        cancel.cancel();
    });
    assert!(matches!(ended, Err(CopyError::Stopped(_))));
    log.heal();
    assert!(copied(&from, &to).await.is_complete());
    assert_eq!(objects(from.store()).await, objects(&to).await);
}

/// A policy with one copy; nothing of it but the copy's place is used.
fn policy_with(copy: &str) -> Policy {
    let text = format!(
        "version = 1\nname = \"mall\"\ntimezone = \"UTC\"\n\
         [repository]\npath = \"/backup/mall\"\npassword_file = \"/etc/key\"\n\
         [files.images]\npath = \"/images\"\n[retention]\nlast = 3\n\
         [[copy]]\nname = \"there\"\nuploads = 1\n{copy}\n"
    );
    Policy::parse(&text, std::path::Path::new("mall.toml")).unwrap()
}

#[tokio::test]
async fn a_copy_whose_disk_is_not_mounted_fails_and_makes_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("usb");
    let policy = policy_with(&format!("path = \"{}\"", root.display()));
    let Err(error) = place::copy_store(&policy, &policy.copies[0], &Run::silent()).await else {
        panic!("a store without its directory");
    };
    assert!(error.hint().unwrap().ends_with(&format!("`mkdir {}`", root.display())), "{error}");
    let found = bkp::doctor::examine(&policy, &Run::silent()).await;
    let found = found.iter().find(|finding| finding.what.starts_with("copy there")).unwrap();
    assert_eq!(found.state, bkp::doctor::State::Bad, "{found:?}");
    assert!(!root.exists());

    std::fs::create_dir(&root).unwrap();
    let from = three_snapshots().await;
    let to = place::copy_store(&policy, &policy.copies[0], &Run::silent()).await.unwrap();
    assert!(copied(&from, &to).await.is_complete());
    // Unplugged while the store is open.
    std::fs::remove_dir_all(&root).unwrap();
    let failed = copied(&from, &to).await;
    assert_eq!(failed.held_back.len(), 3, "{failed:?}");
    assert!(!root.exists());
}

#[tokio::test]
async fn a_copy_that_waits_to_try_again_lets_others_pass() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let policy = policy_with(&format!(
        "[copy.s3]\nbucket = \"b\"\nregion = \"us-east-1\"\nendpoint = \"http://{}\"\n\
         access_key_id = \"k\"\nsecret_access_key_command = \"echo s\"",
        server.local_addr().unwrap()
    ));
    let run = Run::silent();
    let store = place::copy_store(&policy, &policy.copies[0], &run).await.unwrap();
    let keys = [Key::config(), Key::new(FileKind::Key, "ab".repeat(32))];
    let asked = async {
        // Every connection is cut: both operations are tried again and again, and one place is free between two tries.
        let mut asked = Vec::new();
        while asked.len() < 2 {
            let (mut socket, _) = server.accept().await.unwrap();
            let mut line = [0; 16];
            tokio::io::AsyncReadExt::read_exact(&mut socket, &mut line).await.unwrap();
            asked.push(line);
        }
        asked
    };
    let (put, asked) = tokio::join!(
        run.cancel.run_until_cancelled(async {
            tokio::join!(store.put(&keys[0], Bytes::new()), store.put(&keys[1], Bytes::new()))
        }),
        async {
            let asked = asked.await;
            run.cancel.cancel();
            asked
        }
    );
    assert!(put.is_none_or(|(a, b)| a.is_err() && b.is_err()));
    let told: BTreeSet<_> = asked.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    assert_eq!(told.len(), 2, "{told:?}");
}

#[derive(Default)]
struct Ear(Mutex<Vec<(String, u64, u64)>>, Mutex<Vec<String>>);

impl Listener for Ear {
    fn hear(&self, event: &Event) {
        match event {
            Event::TaskEnded(task) => {
                let heard = (task.name().to_owned(), task.done(), task.total());
                self.0.lock().unwrap().push(heard);
            }
            Event::Warning(text) => self.1.lock().unwrap().push(text.clone()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn progress_counts_every_byte_and_old_keys_are_warned_of() {
    let from = three_snapshots().await;
    let to = memory();
    let old = Bytes::from_static(b"{}");
    to.put(&Key::new(FileKind::Key, ObjectId::of(&old).to_string()), old).await.unwrap();
    let ear = Arc::new(Ear::default());
    let run = Run::new(Arc::new(SystemClock), Events::new(ear.clone()));
    let done = copy(&from, &to, 4, &run).await.unwrap();
    let heard = ear.0.lock().unwrap().clone();
    assert!(heard.contains(&("copy to memory".to_owned(), done.bytes, done.bytes)), "{heard:?}");
    assert!(ear.1.lock().unwrap()[0].contains("an old password still opens the copy"));
}

fn restic(repository: &str, args: &[&str]) -> String {
    let ended = Command::new("restic")
        .args(["-r", repository, "--no-cache"])
        .args(args)
        .env("RESTIC_PASSWORD", "correct horse")
        .env("AWS_ACCESS_KEY_ID", S3::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", S3::SECRET_KEY)
        .env_remove("AWS_CA_BUNDLE")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "restic {args:?}: {text}");
    text
}

#[tokio::test]
#[ignore = "needs restic; scripts/test runs it"]
async fn restic_checks_and_restores_a_copy_in_s3_of_a_repository_that_restic_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (here, data, back) = (dir.path().join("here"), dir.path().join("data"), dir.path().join("back"));
    std::fs::create_dir(&data).unwrap();
    for n in 0..40_u64 {
        let mut bytes = vec![0; 1 << 20];
        rand::rngs::SmallRng::seed_from_u64(n).fill_bytes(&mut bytes);
        std::fs::write(data.join(format!("{n}.bin")), bytes).unwrap();
    }
    restic(here.to_str().unwrap(), &["init"]);
    restic(here.to_str().unwrap(), &["backup", data.to_str().unwrap()]);

    let s3 = S3::start();
    let store: SharedStore = Arc::new(LocalStore::new(&here));
    let from = Repository::open(store, &password(), &Run::silent()).await.unwrap();
    let to: SharedStore = Arc::new(s3::open(&s3).await);
    let done = copied(&from, &to).await;
    assert!(done.is_complete(), "{done:?}");
    assert_eq!(objects(from.store()).await, objects(&to).await);

    let url = format!("s3:{}/{}/dr/mall", s3.endpoint(), S3::BUCKET);
    tokio::task::spawn_blocking(move || {
        let text = restic(&url, &["check", "--read-data"]);
        assert!(text.contains("no errors were found"), "{text}");
        restic(&url, &["restore", "latest", "--target", back.to_str().unwrap()]);
        let restored = back.join(data.strip_prefix("/").unwrap());
        let same = Command::new("diff").arg("-r").args([&data, &restored]).status().unwrap();
        assert!(same.success());
    })
    .await
    .unwrap();
}
