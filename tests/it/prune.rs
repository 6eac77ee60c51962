//! A prune frees what no snapshot needs, and nothing else: whatever is cut, killed or damaged on its way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bkp::forget::Alone;
use bkp::prune::plan::{Limits, PrunePlan};
use bkp::prune::{self, PruneError, Pruned};
use bkp::repository::{LockMode, Repository, RepositoryError, StoredSnapshot};
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore, StoreError};
use bkp::verify::{Level, Options, verify};

use crate::repository::{local, made, memory, noise, opened, read_all, save};
use crate::restic::Desk;

/// Everything goes that is not needed.
pub(crate) fn thorough() -> Limits {
    Limits { unused_percent_max: 0, ..Limits::default() }
}

/// A repository that holds two snapshots which share a file, and of which the older was forgotten.
async fn with_one_forgotten(store: &SharedStore) -> StoredSnapshot {
    let repository = made(store).await;
    let shared = ("/shop1/shared.jpg", noise(1, 60_000));
    let forgotten = [shared.clone(), ("/shop1/old.jpg", noise(2, 50_000)), ("/gone.jpg", noise(3, 9_000))];
    let old = save(&repository, &forgotten).await;
    let new = save(&repository, &[shared, ("/shop2/new.jpg", noise(4, 70_000))]).await;
    repository.remove_snapshot(&old.id).await.unwrap();
    new
}

async fn plan(repository: &Arc<Repository>, limits: &Limits) -> Result<PrunePlan, PruneError> {
    prune::plan(repository, limits, &Run::silent()).await
}

/// Prunes as the program does: lock, plan, apply.
pub(crate) async fn prune(store: &SharedStore, limits: &Limits) -> Result<Pruned, PruneError> {
    let run = Run::silent();
    let repository = Repository::open(Arc::clone(store), &crate::repository::secret(), &run).await?;
    let lock = Alone::take(&repository, &run).await?;
    let plan = plan(&repository, limits).await?;
    let pruned = prune::apply(&plan, &repository, &lock, &run).await;
    lock.into_guard().release().await?;
    pruned
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

async fn files(store: &SharedStore, snapshot: &StoredSnapshot) -> Files {
    let files = read_all(&*opened(store).await, snapshot.snapshot.tree).await;
    files.into_iter().map(|(path, bytes)| (path, bytes.unwrap())).collect()
}

async fn assert_sound(store: &SharedStore) {
    let repository = opened(store).await;
    let options = Options { level: Level::Data, subset: None };
    let report = verify(&repository, options, &Run::silent()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

async fn stored(store: &SharedStore) -> u64 {
    store.list(FileKind::Pack).await.unwrap().iter().map(|pack| pack.size).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_snapshot_needs_is_freed_and_the_rest_reads_as_before() {
    let store = memory();
    let new = with_one_forgotten(&store).await;
    let (before, bytes_before) = (files(&store, &new).await, stored(&store).await);
    let pruned = prune(&store, &thorough()).await.unwrap();
    assert!(pruned.failed.is_empty() && pruned.packs_written > 0, "{pruned:?}");
    let bytes_after = stored(&store).await;
    assert!(bytes_before - bytes_after > 59_000, "{bytes_before} -> {bytes_after}");
    assert_eq!(bytes_before + pruned.bytes_written - pruned.bytes_deleted, bytes_after);
    assert_eq!(files(&store, &new).await, before);
    assert_sound(&store).await;
    assert!(plan(&opened(&store).await, &thorough()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_reads_and_changes_nothing() {
    let faulty = Arc::new(Faulty::new(memory()));
    let store: SharedStore = faulty.clone();
    with_one_forgotten(&store).await;
    let repository = opened(&store).await;
    faulty.take_log();
    let plan = plan(&repository, &thorough()).await.unwrap();
    assert!(plan.bytes_freed() > 59_000);
    assert_eq!(faulty.count(Operation::Put) + faulty.count(Operation::Delete), 0);
    assert!(faulty.count(Operation::Any) > 0);
}

/// Cuts a prune at its `nth` operation on the store, and tells whether it got so far.
async fn cut_at(nth: u64) -> bool {
    let inner = memory();
    let new = with_one_forgotten(&inner).await;
    let before = files(&inner, &new).await;
    let faulty = Arc::new(Faulty::new(inner.clone()));
    let store: SharedStore = faulty.clone();
    faulty.add(Rule::nth(Operation::Any, nth, Fault::Dead));
    let cut = prune(&store, &thorough()).await;
    // What the killed process would have left: its lock.
    for lock in inner.list(FileKind::Lock).await.unwrap() {
        inner.delete(&Key::new(FileKind::Lock, lock.name)).await.unwrap();
    }
    assert_eq!(files(&inner, &new).await, before, "cut at operation {nth}");
    assert_sound(&inner).await;
    prune(&inner, &thorough()).await.unwrap();
    assert_eq!(files(&inner, &new).await, before, "cut at operation {nth}, and pruned again");
    assert_sound(&inner).await;
    assert!(plan(&opened(&inner).await, &thorough()).await.unwrap().is_empty(), "cut at operation {nth}");
    cut.is_err() || faulty.count(Operation::Any) as u64 >= nth
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_is_killed_at_any_operation_loses_nothing_and_the_next_one_ends_it() {
    let mut cuts = 0;
    while cut_at(cuts + 1).await {
        cuts += 1;
    }
    assert!(cuts > 15, "only {cuts} operations were cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_what_is_to_be_moved_stops_it_before_anything_is_deleted() {
    let faulty = Arc::new(Faulty::new(memory()));
    let store: SharedStore = faulty.clone();
    with_one_forgotten(&store).await;
    let repository = opened(&store).await;
    let lock = Alone::take(&repository, &Run::silent()).await.unwrap();
    let plan = plan(&repository, &thorough()).await.unwrap();
    let packs = stored(&store).await;
    faulty.take_log();
    faulty.add(Rule::every(Operation::GetRange, Fault::Flip).of(FileKind::Pack));
    let error = prune::apply(&plan, &repository, &lock, &Run::silent()).await.unwrap_err();
    assert!(matches!(error, PruneError::Repository(ref error) if error.is_damage()), "{error}");
    assert!(faulty.count(Operation::GetRange) > 0);
    assert_eq!(faulty.count(Operation::Delete), 0);
    assert!(stored(&store).await >= packs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_or_a_pack_that_is_gone_stops_the_plan() {
    let store = memory();
    let new = with_one_forgotten(&store).await;
    let lost = store.list(FileKind::Pack).await.unwrap();
    let repository = opened(&store).await;
    let tree = repository.pack_of(bkp::repository::BlobKind::Tree, &new.snapshot.tree).unwrap();
    let lost = lost.iter().find(|pack| pack.name == tree.to_string()).unwrap();
    let key = Key::new(FileKind::Pack, lost.name.clone());
    let bytes = store.get(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert!(matches!(plan(&repository, &thorough()).await, Err(PruneError::Doubt(_))));
    store.put(&key, bytes).await.unwrap();
    assert!(plan(&repository, &thorough()).await.is_ok());
    let snapshot = Key::new(FileKind::Snapshot, new.id.to_string());
    let mut bytes = store.get(&snapshot).await.unwrap().to_vec();
    bytes[40] ^= 1;
    store.put(&snapshot, bytes.into()).await.unwrap();
    let error = plan(&repository, &thorough()).await.unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    assert!(error.hint().unwrap().contains("nothing was deleted"));
}

/// Names of the packs in a store.
async fn packs(store: &SharedStore) -> Vec<String> {
    store.list(FileKind::Pack).await.unwrap().into_iter().map(|pack| pack.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_places_of_a_blob_the_one_that_rotted_unseen_is_not_the_one_that_stays() {
    for rots_first in [true, false] {
        let store = memory();
        let (one, other) = (made(&store).await, opened(&store).await);
        let images = [("/large.jpg", noise(1, 60_000))];
        save(&one, &images).await;
        let first = packs(&store).await;
        // It was opened before, so it stores everything a second time.
        let new = save(&other, &images).await;
        let before = files(&store, &new).await;
        let rots = |name: &String| first.contains(name) == rots_first;
        let rotten: Vec<String> = packs(&store).await.into_iter().filter(rots).collect();
        assert_eq!(rotten.len(), 2);
        for name in rotten {
            let key = Key::new(FileKind::Pack, name);
            let mut bytes = store.get(&key).await.unwrap().to_vec();
            bytes[40] ^= 1;
            store.put(&key, bytes.into()).await.unwrap();
        }
        let pruned = prune(&store, &Limits::default()).await;
        assert_eq!(files(&store, &new).await, before, "{pruned:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_gone_and_was_saved_again_is_no_reason_to_stop() {
    let store = memory();
    let (one, other) = (made(&store).await, opened(&store).await);
    let images = [("/large.jpg", noise(1, 60_000))];
    save(&one, &images).await;
    let lost = packs(&store).await;
    let new = save(&other, &images).await;
    for name in lost {
        store.delete(&Key::new(FileKind::Pack, name)).await.unwrap();
    }
    let absent = plan(&opened(&store).await, &Limits::default()).await.unwrap().absent;
    assert_eq!(absent.len(), 2);
    prune(&store, &Limits::default()).await.unwrap();
    assert_eq!(files(&store, &new).await.len(), 1);
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_backup_left_is_swept_away() {
    let store = memory();
    let new = with_one_forgotten(&store).await;
    let repository = opened(&store).await;
    // Packs without an index: its writer was dropped before it could finish.
    let writer = repository.writer(&Run::silent());
    writer.put(bkp::repository::BlobKind::Data, noise(9, 17 << 20)).unwrap().wait().unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while store.list(FileKind::Pack).await.unwrap().iter().all(|pack| pack.size < 17 << 20) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    drop(writer);
    let orphans = plan(&opened(&store).await, &Limits::default()).await.unwrap().orphans;
    assert_eq!(orphans.len(), 1);
    prune(&store, &Limits::default()).await.unwrap();
    assert!(stored(&store).await < 17 << 20);
    assert_eq!(files(&store, &new).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_protects_its_packs_is_told_and_loses_nothing() {
    let faulty = Arc::new(Faulty::new(memory()));
    let store: SharedStore = faulty.clone();
    let new = with_one_forgotten(&store).await;
    let before = files(&store, &new).await;
    faulty.add(Rule::every(Operation::Delete, Fault::Transient).of(FileKind::Pack));
    let pruned = prune(&store, &thorough()).await.unwrap();
    assert!(!pruned.failed.is_empty() && pruned.packs_deleted == 0);
    assert!(pruned.failed.iter().all(|(_, error)| matches!(error, StoreError::Transient { .. })));
    faulty.heal();
    assert_eq!(files(&store, &new).await, before);
    assert_sound(&store).await;
    prune(&store, &thorough()).await.unwrap();
    assert!(plan(&opened(&store).await, &thorough()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_waits_for_no_backup_and_none_for_it() {
    let store = memory();
    with_one_forgotten(&store).await;
    let repository = opened(&store).await;
    let backup = repository.lock(LockMode::Shared, Duration::ZERO, &Run::silent()).await.unwrap();
    let error = prune(&store, &thorough()).await.unwrap_err();
    assert!(matches!(error, PruneError::Repository(RepositoryError::Locked { .. })), "{error}");
    backup.release().await.unwrap();
    prune(&store, &thorough()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn index_files_of_many_runs_become_few() {
    let store = memory();
    let repository = made(&store).await;
    let mut newest = None;
    for run in 0..40 {
        newest = Some(save(&repository, &[("/file", noise(run, 20_000))]).await);
    }
    let many = store.list(FileKind::Index).await.unwrap().len();
    assert!(many >= 40, "{many}");
    let newest = newest.unwrap();
    let old = repository.snapshots().await.unwrap().into_iter().filter(|stored| stored.id != newest.id);
    for stored in old.take(10) {
        repository.remove_snapshot(&stored.id).await.unwrap();
    }
    prune(&store, &thorough()).await.unwrap();
    assert_eq!(store.list(FileKind::Index).await.unwrap().len(), 1);
    assert!(store.list(FileKind::Pack).await.unwrap().len() <= 2);
    assert_eq!(files(&store, &newest).await.len(), 1);
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic; scripts/test runs it"]
async fn restic_finds_no_error_after_a_prune_and_prunes_after_it() {
    for version in crate::restic::VERSIONS {
        let desk = Desk::new(version);
        let store = local(&desk.repository());
        let new = with_one_forgotten(&store).await;
        let before = files(&store, &new).await;
        prune(&store, &thorough()).await.unwrap();
        desk.check();
        desk.restic(&["prune", "--max-unused", "0"]);
        desk.check();
        assert_eq!(files(&store, &new).await, before);
        assert!(plan(&opened(&store).await, &thorough()).await.unwrap().is_empty());
    }
}
