//! Each way to rot on each kind of object: verify names exactly it, everything else still reads, and a heal brings it back from a copy.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bkp::heal::heal;
use bkp::id::ObjectId;
use bkp::policy::Network;
use bkp::repository::{BlobKind, LockMode, Repository, StoredSnapshot};
use bkp::run::Run;
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::{Object, Report, verify};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::damage::{DATA, lost, names, objects};
use crate::heal::{Objects, copied, stored, ward};
use crate::prune::{prune, thorough};
use crate::repository::{local, made, memory, noise, opened, read_all, save};
use crate::restic::{Desk, VERSIONS};
use crate::s3;
use crate::servers::S3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Flip,
    Cut,
    Drop,
    /// It changes places with another of its kind.
    Swap,
    /// Its bytes lie under another name as well.
    Duplicate,
    /// An older one is put back.
    Stale,
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Data,
    Trees,
    Index,
    Snapshot,
    Config,
    Key,
    Lock,
}

const WAYS: [Way; 7] = [Way::Flip, Way::Cut, Way::Drop, Way::Swap, Way::Duplicate, Way::Stale, Way::Empty];

const THINGS: [Thing; 7] =
    [Thing::Data, Thing::Trees, Thing::Index, Thing::Snapshot, Thing::Config, Thing::Key, Thing::Lock];

/// Says why a combination cannot be.
fn senseless(way: Way, thing: Thing) -> Option<&'static str> {
    match (way, thing) {
        (Way::Stale, Thing::Index) => None,
        (Way::Stale, Thing::Lock) => Some("an old lock is stale, and the next run clears it away"),
        (Way::Stale, _) => Some("it never changes, so there is no older one"),
        (Way::Duplicate, Thing::Config) => Some("it has only one name"),
        (Way::Drop, Thing::Snapshot) => Some("a snapshot that is gone was forgotten, as far as anyone can tell"),
        (Way::Drop, Thing::Lock) => {
            Some("its holder finds it gone and publishes nothing more: `repository::lock` proves it")
        }
        _ => None,
    }
}

/// A repository with a past, and a copy of it that was made before and after a prune.
struct Template {
    repository: tempfile::TempDir,
    copy: tempfile::TempDir,
    snapshots: [StoredSnapshot; 2],
    /// An index file from before the prune, and the packs that it named and that are gone.
    stale: (Key, Bytes),
    pruned: BTreeSet<Object>,
    /// A key and a config of another repository.
    foreign: Objects,
}

impl Template {
    async fn new() -> Self {
        let (repository, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, there) = (local(repository.path()), local(copy.path()));
        let made_here = made(&store).await;
        let shared = ("/shop1/shared.jpg", noise(1, 60_000));
        let old = save(&made_here, &[shared.clone(), ("/shop1/old.jpg", noise(2, 50_000))]).await;
        let stale = names(&store, FileKind::Index).await.remove(0);
        let stale = (stale.clone(), store.get(&stale).await.unwrap());
        let first = save(&made_here, &[shared.clone(), ("/shop1/a.jpg", noise(3, 70_000))]).await;
        let second = save(&made_here, &[shared, ("/shop2/b.jpg", noise(4, 80_000))]).await;
        copied(&store, &there).await;
        let before = names(&store, FileKind::Pack).await;
        opened(&store).await.remove_snapshot(&old.id).await.unwrap();
        prune(&store, &thorough()).await.unwrap();
        copied(&store, &there).await;
        let after = names(&store, FileKind::Pack).await;
        let named = named_by(&store, &stale).await;
        let pruned = before.into_iter().filter(|key| !after.contains(key) && named.contains(key));
        let pruned: BTreeSet<_> = pruned.map(Object::Stored).collect();
        assert!(!pruned.is_empty() && store.size(&stale.0).await.unwrap().is_none());
        let other = memory();
        made(&other).await;
        Self { repository, copy, snapshots: [first, second], stale, pruned, foreign: stored(&other).await }
    }
}

/// Returns the packs that one index file names.
async fn named_by(store: &SharedStore, (index, bytes): &(Key, Bytes)) -> BTreeSet<Key> {
    let alone = memory();
    for (key, bytes) in stored(store).await {
        if matches!(key.kind, FileKind::Config | FileKind::Key) {
            alone.put(&key, bytes).await.unwrap();
        }
    }
    alone.put(index, bytes.clone()).await.unwrap();
    let packs = opened(&alone).await.packs();
    packs.into_iter().map(|pack| Key::new(FileKind::Pack, pack.id.to_string())).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

/// One combination at work: the store, a back door to its files, and its copy.
struct Case<'a> {
    template: &'a Template,
    way: Way,
    thing: Thing,
    store: SharedStore,
    files: SharedStore,
    copy: SharedStore,
}

impl Case<'_> {
    fn kind(&self) -> FileKind {
        match self.thing {
            Thing::Data | Thing::Trees => FileKind::Pack,
            Thing::Index => FileKind::Index,
            Thing::Snapshot => FileKind::Snapshot,
            Thing::Config => FileKind::Config,
            Thing::Key => FileKind::Key,
            Thing::Lock => FileKind::Lock,
        }
    }

    /// Returns the objects of the kind that is hurt, in an order that is always the same.
    async fn candidates(&self, repository: &Repository) -> Vec<Key> {
        let mut keys = names(&self.files, self.kind()).await;
        if let Some(wanted) = match self.thing {
            Thing::Data => Some(BlobKind::Data),
            Thing::Trees => Some(BlobKind::Tree),
            _ => None,
        } {
            let packs = repository.packs();
            let is_wanted = |pack: &bkp::repository::PackContents| pack.blobs[0].kind == wanted;
            let names: Vec<String> =
                packs.iter().filter(|pack| is_wanted(pack)).map(|pack| pack.id.to_string()).collect();
            keys.retain(|key| names.contains(&key.name));
        }
        keys.sort();
        keys
    }

    /// Hurts the store, and returns what a verify has to name.
    async fn hurt(&self, repository: &Repository) -> BTreeSet<Object> {
        let keys = self.candidates(repository).await;
        let (victim, bytes) = (keys[0].clone(), self.files.get(&keys[0]).await.unwrap());
        let is_alone = matches!(self.thing, Thing::Config | Thing::Key);
        let put = async |key: &Key, bytes: Bytes| self.files.put(key, bytes).await.unwrap();
        match self.way {
            Way::Flip => {
                let mut flipped = bytes.to_vec();
                let middle = flipped.len() / 2;
                flipped[middle] ^= 4;
                put(&victim, flipped.into()).await;
            }
            Way::Cut => put(&victim, bytes.slice(..bytes.len() / 2)).await,
            Way::Empty => put(&victim, Bytes::new()).await,
            Way::Drop => {
                self.files.delete(&victim).await.unwrap();
                return match self.thing {
                    Thing::Key => BTreeSet::from([Object::Stored(Key::new(FileKind::Key, ""))]),
                    _ => BTreeSet::from([Object::Stored(victim)]),
                };
            }
            // There is one of these: another repository's takes its place.
            Way::Swap if is_alone => {
                let foreign = self.template.foreign.iter().find(|(key, _)| key.kind == self.kind()).unwrap().1;
                put(&victim, foreign.clone()).await;
            }
            Way::Swap => {
                let other = keys[1].clone();
                put(&victim, self.files.get(&other).await.unwrap()).await;
                put(&other, bytes).await;
                return BTreeSet::from([Object::Stored(victim), Object::Stored(other)]);
            }
            Way::Duplicate => {
                let twin = Key::new(self.kind(), ObjectId::of(b"another name").to_string());
                put(&twin, bytes).await;
                return BTreeSet::from([Object::Stored(twin)]);
            }
            Way::Stale => {
                put(&self.template.stale.0, self.template.stale.1.clone()).await;
                return self.template.pruned.clone();
            }
        }
        BTreeSet::from([Object::Stored(victim)])
    }

    /// Proves that a verify names what was hurt and nothing else. An index that is gone is known only by the blobs that it named;
    /// a pack under a second name is an orphan.
    fn check_named(&self, report: &Report, expected: &BTreeSet<Object>) {
        match (self.way, self.kind()) {
            (Way::Drop, FileKind::Index) => {
                assert!(!report.is_sound() && !report.orphans.is_empty(), "{report:#?}");
                assert!(objects(report).iter().all(|object| matches!(object, Object::Blob(..))), "{report:#?}");
            }
            (Way::Duplicate, FileKind::Pack) => {
                let orphans: BTreeSet<_> = report.orphans.iter().cloned().map(Object::Stored).collect();
                assert!(report.is_sound() && orphans == *expected, "{report:#?}");
            }
            _ => assert_eq!(objects(report), *expected, "{report:#?}"),
        }
    }

    /// Proves that of every snapshot that can be read exactly that is lost which the verify told.
    async fn check_costs(&self, repository: &Repository, report: &Report) {
        let list = repository.list_snapshots().await.unwrap();
        let unreadable = match (self.thing, self.way) {
            (Thing::Snapshot, Way::Duplicate) => 0,
            (Thing::Snapshot, Way::Swap) => 2,
            (Thing::Snapshot, _) => 1,
            _ => 0,
        };
        assert_eq!(list.found.len(), 2 - unreadable, "{:?} {:?}", self.way, self.thing);
        for snapshot in &list.found {
            let read = read_all(repository, snapshot.snapshot.tree).await;
            let unread: BTreeSet<_> =
                read.iter().filter(|(_, bytes)| bytes.is_err()).map(|(path, _)| path.clone()).collect();
            assert_eq!(unread, lost(report, snapshot), "{:?} {:?}", self.way, self.thing);
        }
    }

    async fn run(&self) {
        let run = Run::silent();
        let before = stored(&self.files).await;
        let holder = opened(&self.store).await;
        let mut locks = Vec::new();
        for _ in 0..if self.thing == Thing::Lock { 2 } else { 0 } {
            locks.push(holder.lock(LockMode::Shared, Duration::ZERO, &run).await.unwrap());
        }
        let held = names(&self.files, FileKind::Lock).await;
        let locks_before = bytes_of(&self.files, &held).await;
        let expected = self.hurt(&holder).await;
        let is_changed = stored(&self.files).await != before
            || bytes_of(&self.files, &names(&self.files, FileKind::Lock).await).await != locks_before;
        assert!(is_changed, "nothing was hurt");

        let patient = ward(&self.store, &[("copy", &self.copy)]).await;
        let report = verify(&patient.repository, DATA, &run).await.unwrap();
        self.check_named(&report, &expected);
        self.check_costs(&patient.repository, &report).await;

        let healed = heal(&patient, DATA, &run).await.unwrap();
        if self.thing == Thing::Lock {
            assert!(!healed.is_sound() && healed.mended.is_empty(), "{healed:#?}");
            assert!(healed.left.iter().all(|left| left.why.contains("restic unlock --remove-all")), "{healed:#?}");
            drop(locks);
            // As `restic unlock --remove-all` does.
            for lock in names(&self.files, FileKind::Lock).await {
                self.files.delete(&lock).await.unwrap();
            }
        } else {
            assert!(healed.is_sound() && healed.left.is_empty(), "{healed:#?}");
        }
        self.check_mended(&before).await;
    }

    /// Proves that the store opens by itself and holds what it held; only an index may be another than before.
    async fn check_mended(&self, before: &Objects) {
        let after = stored(&self.files).await;
        for (key, bytes) in before.iter().filter(|(key, _)| key.kind != FileKind::Index) {
            assert!(after.get(key) == Some(bytes), "{key} is not as it was");
        }
        let repository = opened(&self.store).await;
        let report = verify(&repository, DATA, &Run::silent()).await.unwrap();
        assert!(report.is_sound(), "{report:#?}");
        for snapshot in &self.template.snapshots {
            let read = read_all(&repository, snapshot.snapshot.tree).await;
            assert!(read.len() == 2 && read.values().all(Result::is_ok));
        }
    }
}

async fn bytes_of(store: &SharedStore, keys: &[Key]) -> Vec<Option<Bytes>> {
    let mut all = Vec::new();
    for key in keys {
        all.push(store.get(key).await.ok());
    }
    all
}

/// Tries every combination that makes sense, and counts them. Most of the time is waited for locks to settle: so several at once.
async fn each<F: Future<Output = ()>>(case: impl Fn(Way, Thing) -> F) -> usize {
    let all = THINGS.into_iter().flat_map(|thing| WAYS.into_iter().map(move |way| (way, thing)));
    let all = all.filter(|(way, thing)| senseless(*way, *thing).is_none());
    stream::iter(all).map(|(way, thing)| case(way, thing)).buffer_unordered(8).count().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_combination_is_named_and_mended_in_a_directory_from_a_copy_in_s3() {
    let (template, s3) = (Template::new().await, S3::start());
    let (template, s3) = (&template, &s3);
    let tried = each(|way, thing| async move {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(template.repository.path(), dir.path());
        let copy = in_s3(s3, &format!("{way:?}-{thing:?}"), template.copy.path()).await;
        Case { template, way, thing, store: local(dir.path()), files: local(dir.path()), copy }.run().await;
    });
    assert_eq!(tried.await, 40, "of 49, nine make no sense");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_combination_is_named_and_mended_in_s3_from_a_repository_in_a_directory() {
    let (template, s3) = (Template::new().await, S3::start());
    let copy = local(template.copy.path());
    let before = stored(&copy).await;
    let (template, s3, copy) = (&template, &s3, &copy);
    each(|way, thing| async move {
        let prefix = format!("{way:?}-{thing:?}");
        let store = in_s3(s3, &prefix, template.repository.path()).await;
        let files = local(&s3.objects().join(&prefix));
        Case { template, way, thing, store, files, copy: Arc::clone(copy) }.run().await;
    })
    .await;
    assert_eq!(stored(copy).await, before, "a donor was changed");
}

/// Puts a repository into a bucket, below a prefix.
async fn in_s3(s3: &S3, prefix: &str, from: &Path) -> SharedStore {
    copy_dir(from, &s3.objects().join(prefix));
    let place = bkp::policy::S3Place { prefix: prefix.to_owned(), ..s3::place(s3) };
    Arc::new(s3::open_place(&place, &Network::default()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic; scripts/test runs it"]
async fn restic_finds_no_error_after_any_combination_was_mended() {
    let template = Template::new().await;
    let template = &template;
    each(|way, thing| async move {
        // By turns: each kind of object and each way comes before both of them.
        let desk = Desk::new(VERSIONS[(way as usize + thing as usize) % VERSIONS.len()]);
        copy_dir(template.repository.path(), &desk.repository());
        let store = local(&desk.repository());
        let (files, copy) = (Arc::clone(&store), local(template.copy.path()));
        Case { template, way, thing, store, files, copy }.run().await;
        tokio::task::block_in_place(|| desk.check());
    })
    .await;
}
