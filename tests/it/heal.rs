//! A store is mended from the others: by bytes that hash right, in any direction, whatever is cut on the way; and nothing is deleted
//! that could not be replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bkp::catalog::{Catalog, REPOSITORY};
use bkp::copy;
use bkp::cycle::done::Done;
use bkp::event::Events;
use bkp::exit::Exit;
use bkp::heal::{Donor, Heal, Healed, How, Ward, heal};
use bkp::id::BlobId;
use bkp::policy::Policy;
use bkp::repository::{BlobKind, LockMode, Repository, StoredSnapshot};
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::{Object, Options};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::cli::desk::{Desk, flip as flip_file};
use crate::damage::{DATA, flip, lost, names, objects, only, pack_of, tree_pack, verified};
use crate::repository::{local, made, memory, noise, opened, read_all, save, secret};
use crate::restic;
use crate::servers::{Product, block_on};
use crate::world::{Ended, World};

const KINDS: [FileKind; 5] = [FileKind::Config, FileKind::Key, FileKind::Pack, FileKind::Index, FileKind::Snapshot];

/// Every object of a store but locks.
pub(crate) type Objects = BTreeMap<Key, Bytes>;

pub(crate) async fn stored(store: &SharedStore) -> Objects {
    let mut objects = Objects::new();
    for kind in KINDS {
        for key in names(store, kind).await {
            let bytes = store.get(&key).await.unwrap();
            objects.insert(key, bytes);
        }
    }
    objects
}

/// A store with its donors, opened by its own keys or, where these are lost, by those of the first donor.
pub(crate) async fn ward(store: &SharedStore, donors: &[(&str, &SharedStore)]) -> Ward {
    let run = Run::silent();
    let repository = match Repository::open(Arc::clone(store), &secret(), &run).await {
        Ok(repository) => repository,
        Err(_) => opened(donors[0].1).await.in_store(Arc::clone(store), &run),
    };
    let donors = donors.iter().map(|(name, store)| Donor { name: (*name).to_owned(), store: Arc::clone(store) });
    Ward {
        name: "patient".to_owned(),
        repository,
        donors: donors.collect(),
        away: Vec::new(),
        salvages: false,
        lock_wait: Duration::ZERO,
    }
}

pub(crate) async fn healed(store: &SharedStore, donors: &[(&str, &SharedStore)], options: Options) -> Healed {
    heal(&ward(store, donors).await, options, &Run::silent()).await.unwrap()
}

pub(crate) async fn copied(from: &SharedStore, to: &SharedStore) {
    let done = copy::copy(&*opened(from).await, to, 4, &Run::silent()).await.unwrap();
    assert!(done.is_complete(), "{done:?}");
}

/// A repository with two snapshots that share most.
async fn shop() -> (SharedStore, [StoredSnapshot; 2]) {
    let store = memory();
    let repository = made(&store).await;
    let mut images = vec![("/images/1/a.jpg", noise(1, 20_000)), ("/images/2/b.jpg", noise(2, 30_000))];
    let first = save(&repository, &images).await;
    images.push(("/images/1/new.jpg", noise(99, 40_000)));
    let second = save(&repository, &images).await;
    (store, [first, second])
}

/// The same, and a copy of it.
async fn shop_with_copy() -> (SharedStore, SharedStore, [StoredSnapshot; 2]) {
    let (store, snapshots) = shop().await;
    let copy = memory();
    copied(&store, &copy).await;
    (store, copy, snapshots)
}

/// Returns what came back, and from which store.
fn sources(healed: &Healed) -> Vec<(String, &str)> {
    let mut sources = Vec::new();
    for mended in &healed.mended {
        if let How::From(store) = &mended.how {
            sources.push((mended.what.clone(), store.as_str()));
        }
    }
    sources
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_stores_is_mended_from_the_other() {
    let (store, copy, snapshots) = shop_with_copy().await;
    let whole = stored(&store).await;
    let (here, there) = (pack_of(&store, &noise(99, 40_000)).await, tree_pack(&store, &snapshots[0]).await);
    flip(&store, &here).await;
    copy.delete(&there).await.unwrap();
    let first = healed(&store, &[("copy", &copy)], DATA).await;
    assert!(first.is_sound(), "{first:#?}");
    assert_eq!(sources(&first), [(here.to_string(), "copy")]);
    let second = healed(&copy, &[("repository", &store)], DATA).await;
    assert!(second.is_sound() && second.found == 1, "{second:#?}");
    assert_eq!(sources(&second), [(there.to_string(), "repository")]);
    assert_eq!(stored(&store).await, whole);
    assert_eq!(stored(&copy).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_is_looked_at_and_left_alone() {
    let (inner, copy, _) = shop_with_copy().await;
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    let (patient, before) = (ward(&store, &[("copy", &copy)]).await, stored(&store).await);
    faulty.take_log();
    let healed = heal(&patient, DATA, &Run::silent()).await.unwrap();
    assert!(
        healed.is_sound() && healed.found == 0 && healed.mended.is_empty() && healed.left.is_empty(),
        "{healed:#?}"
    );
    let writes = faulty.take_log().into_iter().filter(|asked| asked.kind != FileKind::Lock);
    assert!(writes.into_iter().all(|asked| !matches!(asked.operation, Operation::Put | Operation::Delete)));
    assert_eq!(stored(&store).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_stores_that_each_lost_something_else_every_one_is_mended() {
    let (store, copy, snapshots) = shop_with_copy().await;
    let third = memory();
    copied(&store, &third).await;
    let whole = stored(&store).await;
    let packs = names(&store, FileKind::Pack).await;
    let snapshot = Key::new(FileKind::Snapshot, snapshots[1].id.to_string());
    // One pack is hurt in two of them, in different places.
    for (place, at) in [(&store, 40), (&copy, 90)] {
        let mut bytes = whole[&packs[0]].to_vec();
        bytes[at] ^= 1;
        place.put(&packs[0], bytes.into()).await.unwrap();
    }
    flip(&store, &packs[1]).await;
    flip(&copy, &snapshot).await;
    third.delete(&packs[2]).await.unwrap();
    let stores = [("repository", &store), ("copy", &copy), ("third", &third)];
    for nth in 0..3 {
        let donors: Vec<_> = stores.iter().enumerate().filter(|(other, _)| *other != nth).map(|(_, it)| *it).collect();
        let healed = healed(stores[nth].1, &donors, DATA).await;
        assert!(healed.is_sound() && healed.found > 0, "{healed:#?}");
        assert_eq!(stored(stores[nth].1).await, whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_every_store_is_named_with_its_cost_and_nothing_is_deleted() {
    let (inner, copy, snapshots) = shop_with_copy().await;
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    let (pack, other) = (pack_of(&store, &noise(99, 40_000)).await, pack_of(&store, &noise(2, 30_000)).await);
    let snapshot = Key::new(FileKind::Snapshot, snapshots[0].id.to_string());
    for key in [&pack, &snapshot] {
        flip(&store, key).await;
        flip(&copy, key).await;
    }
    flip(&store, &other).await;
    let before = stored(&store).await;
    faulty.take_log();
    let healed = healed(&store, &[("copy", &copy)], DATA).await;
    assert!(!healed.is_sound() && healed.mended.len() == 1, "partial: {healed:#?}");
    assert_eq!(bkp::cycle::done::exit_of_report(&healed.report), bkp::exit::Exit::Damaged);
    assert_eq!(objects(&healed.report), BTreeSet::from([&pack, &snapshot].map(|key| Object::Stored(key.clone()))));
    assert_eq!(lost(&healed.report, &snapshots[1]), BTreeSet::from(["/images/1/new.jpg".into()]));
    assert!(healed.left.iter().all(|left| left.why.contains("copy: read")), "{:#?}", healed.left);
    let deleted = faulty.take_log().into_iter().filter(|asked| asked.operation == Operation::Delete);
    assert!(deleted.into_iter().all(|asked| asked.kind == FileKind::Lock));
    let after = stored(&store).await;
    assert_eq!((after[&pack].clone(), after[&snapshot].clone()), (before[&pack].clone(), before[&snapshot].clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lies_is_passed_over_for_the_next() {
    let (store, copy, _) = shop_with_copy().await;
    let whole = stored(&store).await;
    let liar = Arc::new(Faulty::new(Arc::clone(&copy)));
    liar.add(Rule::every(Operation::Get, Fault::Flip).of(FileKind::Pack));
    let liar: SharedStore = liar;
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    flip(&store, &pack).await;
    let refused = healed(&store, &[("liar", &liar)], DATA).await;
    assert_eq!(objects(&refused.report), only(&pack));
    assert!(refused.left[0].why.contains("liar: read") && refused.left[0].why.contains("hash to"), "{refused:#?}");
    let healed = healed(&store, &[("liar", &liar), ("copy", &copy)], DATA).await;
    assert!(healed.is_sound(), "{healed:#?}");
    assert_eq!(healed.mended[0].how, How::From("copy".to_owned()));
    assert_eq!(stored(&store).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_mangles_what_is_put_back_loses_nothing_by_it() {
    let (inner, copy, _) = shop_with_copy().await;
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    flip(&store, &pack).await;
    faulty.add(Rule::every(Operation::Put, Fault::Cut).of(FileKind::Pack));
    faulty.take_log();
    let refused = healed(&store, &[("copy", &copy)], DATA).await;
    assert_eq!(objects(&refused.report), only(&pack));
    assert!(refused.left[0].why.contains("it came back with the hash"), "{refused:#?}");
    let asked = faulty.take_log();
    let of_packs = |operation| asked.iter().filter(|it| it.kind == FileKind::Pack && it.operation == operation).count();
    assert_eq!((of_packs(Operation::Put), of_packs(Operation::Delete)), (2, 0));
    faulty.heal();
    assert!(healed(&store, &[("copy", &copy)], DATA).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_not_tried_with_every_object() {
    let (inner, copy, _) = shop_with_copy().await;
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    let (packs, snapshots) = (names(&store, FileKind::Pack).await, names(&store, FileKind::Snapshot).await);
    for key in packs.iter().chain(&snapshots) {
        flip(&store, key).await;
    }
    faulty.add(Rule::every(Operation::Put, Fault::Full).of(FileKind::Pack));
    faulty.take_log();
    let refused = healed(&store, &[("copy", &copy)], DATA).await;
    assert_eq!(objects(&refused.report).len(), packs.len() + snapshots.len());
    assert!(faulty.take_log().iter().all(|it| it.operation != Operation::Put || it.kind != FileKind::Snapshot));
    assert!(refused.left.iter().any(|left| left.why.contains("no space left")), "{refused:#?}");
    faulty.heal();
    assert!(healed(&store, &[("copy", &copy)], DATA).await.is_sound());
}

/// Hurts one object of each kind, so that a heal has all of its work to do: even an index to make and a pack that only the copy knows.
async fn hurt_everywhere(store: &SharedStore, snapshots: &[StoredSnapshot; 2]) {
    let lost = pack_of(store, &noise(99, 40_000)).await;
    flip(store, &tree_pack(store, &snapshots[0]).await).await;
    for index in names(store, FileKind::Index).await {
        store.put(&index, Bytes::new()).await.unwrap();
    }
    store.delete(&lost).await.unwrap();
    flip(store, &Key::new(FileKind::Snapshot, snapshots[1].id.to_string())).await;
    flip(store, &Key::config()).await;
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

async fn files(store: &SharedStore, snapshot: &StoredSnapshot) -> Files {
    let files = read_all(&*opened(store).await, snapshot.snapshot.tree).await;
    files.into_iter().map(|(path, bytes)| (path, bytes.unwrap())).collect()
}

/// A copy that holds no index of what the repository lost: then a new one has to be made.
async fn without_indexes(copy: &SharedStore) -> SharedStore {
    let bare = memory();
    for (key, bytes) in stored(copy).await {
        if key.kind != FileKind::Index {
            bare.put(&key, bytes).await.unwrap();
        }
    }
    let repository = opened(&bare).await;
    repository.load_index_and_headers(&Run::silent()).await.unwrap();
    repository.save_recovered_index().await.unwrap();
    bare
}

/// A small repository that is hurt everywhere, and its copy.
struct Hurt {
    snapshots: [StoredSnapshot; 2],
    expected: [Files; 2],
    objects: Objects,
    copy: SharedStore,
}

impl Hurt {
    async fn new(store: &SharedStore) -> Self {
        let repository = made(store).await;
        let shared = ("/a.jpg", noise(1, 20_000));
        let first = save(&repository, &[shared.clone(), ("/b.jpg", noise(2, 30_000))]).await;
        let second = save(&repository, &[shared, ("/new.jpg", noise(99, 40_000))]).await;
        let copy = memory();
        copied(store, &copy).await;
        let copy = without_indexes(&copy).await;
        let snapshots = [first, second];
        let expected = [files(store, &snapshots[0]).await, files(store, &snapshots[1]).await];
        hurt_everywhere(store, &snapshots).await;
        Self { objects: stored(store).await, snapshots, expected, copy }
    }
}

/// Cuts a heal at its `nth` operation on the store that is mended, and tells whether it got so far.
async fn cut_at(nth: u64, hurt: Arc<Hurt>) -> bool {
    let Hurt { snapshots, expected, objects: before, copy } = &*hurt;
    let inner = memory();
    for (key, bytes) in before {
        inner.put(key, bytes.clone()).await.unwrap();
    }
    let faulty = Arc::new(Faulty::new(Arc::clone(&inner)));
    let store: SharedStore = faulty.clone();
    let patient = ward(&store, &[("copy", copy)]).await;
    faulty.take_log();
    faulty.add(Rule::nth(Operation::Any, nth, Fault::Dead));
    let cut = heal(&patient, DATA, &Run::silent()).await;
    let is_cut = faulty.count(Operation::Any) as u64 >= nth;
    // What the killed process would have left: its lock.
    for lock in names(&inner, FileKind::Lock).await {
        inner.delete(&lock).await.unwrap();
    }
    // The old state or the new one: nothing is worse than it was.
    let whole = stored(copy).await;
    for (key, bytes) in stored(&inner).await {
        assert!(before.get(&key) == Some(&bytes) || whole.get(&key).is_none_or(|good| *good == bytes), "{nth}: {key}");
    }
    let again = healed(&inner, &[("copy", copy)], DATA).await;
    assert!(again.is_sound(), "cut at operation {nth}: {again:#?}");
    for (snapshot, expected) in snapshots.iter().zip(expected) {
        assert_eq!(files(&inner, snapshot).await, *expected, "cut at operation {nth}");
    }
    assert!(is_cut || cut.unwrap().is_sound());
    is_cut
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heal_that_is_killed_at_any_operation_does_no_harm_and_the_next_one_ends_it() {
    // A heal waits for locks to settle more than it works: many at once take hardly longer than one.
    let hurt = Arc::new(Hurt::new(&memory()).await);
    let cuts = stream::iter(1..).map(|nth| tokio::spawn(cut_at(nth, Arc::clone(&hurt)))).buffered(12);
    let cuts = cuts.take_while(|is_cut| std::future::ready(*is_cut.as_ref().unwrap())).count().await;
    assert!(cuts > 40, "only {cuts} operations were cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_lost_every_index_makes_one_from_its_packs_alone() {
    for loss in [Fault::Dead, Fault::Flip] {
        let (inner, snapshots) = shop().await;
        let faulty = Arc::new(Faulty::new(inner));
        let store: SharedStore = faulty.clone();
        let expected = files(&store, &snapshots[1]).await;
        let indexes = names(&store, FileKind::Index).await;
        for index in &indexes {
            match loss {
                Fault::Dead => store.delete(index).await.unwrap(),
                _ => flip(&store, index).await,
            }
        }
        faulty.take_log();
        let healed = healed(&store, &[], Options { level: bkp::verify::Level::Structure, subset: None }).await;
        assert!(healed.is_sound(), "{healed:#?}");
        assert!(healed.mended.iter().any(|mended| mended.how == How::Rebuilt), "{healed:#?}");
        let whole_reads = faulty.take_log().into_iter();
        assert!(
            whole_reads.into_iter().all(|it| it.kind != FileKind::Pack || it.operation != Operation::Get),
            "ranges only"
        );
        assert!(names(&store, FileKind::Index).await.iter().all(|index| !indexes.contains(index)));
        assert_eq!(files(&store, &snapshots[1]).await, expected);
        let report = verified(&store, DATA).await;
        assert!(report.is_sound() && report.orphans.is_empty(), "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lost_index_is_made_anew_beside_what_a_killed_backup_left() {
    let (store, snapshots) = shop().await;
    let expected = files(&store, &snapshots[1]).await;
    // A backup that was killed before its index: packs that nothing names.
    let killed = opened(&store).await;
    let earlier = names(&store, FileKind::Index).await;
    save(&killed, &[("/killed.jpg", noise(7, 80_000))]).await;
    for key in names(&store, FileKind::Index).await.into_iter().filter(|key| !earlier.contains(key)) {
        store.delete(&key).await.unwrap();
    }
    let newest = names(&store, FileKind::Snapshot).await;
    let known = snapshots.iter().map(|stored| stored.id.to_string()).collect::<Vec<_>>();
    for key in newest.into_iter().filter(|key| !known.contains(&key.name)) {
        store.delete(&key).await.unwrap();
    }
    let orphans = verified(&store, DATA).await.orphans;
    assert_eq!(orphans.len(), 2);
    let quiet = healed(&store, &[], DATA).await;
    assert!(quiet.is_sound() && quiet.mended.is_empty(), "orphans alone are none of its business");

    store.delete(&earlier[0]).await.unwrap();
    let healed = healed(&store, &[], DATA).await;
    assert!(healed.is_sound(), "{healed:#?}");
    let report = verified(&store, DATA).await;
    assert!(
        report.is_sound() && report.orphans.is_empty(),
        "the blobs of the killed one are of use again: {report:#?}"
    );
    assert!(opened(&store).await.has(BlobKind::Data, &BlobId::of(&noise(7, 80_000))));
    assert_eq!(files(&store, &snapshots[1]).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_under_a_wrong_name_gets_no_index() {
    for all_lost in [true, false] {
        let (store, _) = shop().await;
        let pack = pack_of(&store, &noise(99, 40_000)).await;
        let twin = Key::new(FileKind::Pack, "00".repeat(32));
        store.put(&twin, store.get(&pack).await.unwrap()).await.unwrap();
        let indexes = names(&store, FileKind::Index).await;
        for index in indexes.iter().take(if all_lost { 2 } else { 1 }) {
            store.delete(index).await.unwrap();
        }
        let healed = healed(&store, &[], DATA).await;
        assert!(healed.is_sound(), "{healed:#?}");
        assert_eq!(verified(&store, DATA).await.orphans, [twin]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_gets_an_index_although_one_that_is_gone_is_said_to_hold_the_same() {
    let store = memory();
    let (one, other) = (made(&store).await, opened(&store).await);
    let images = [("/large.jpg", noise(1, 60_000))];
    save(&one, &images).await;
    let (lost, index) = (names(&store, FileKind::Pack).await, names(&store, FileKind::Index).await);
    // It was opened before, so it stores everything a second time.
    let new = save(&other, &images).await;
    for pack in &lost {
        store.delete(pack).await.unwrap();
    }
    for key in names(&store, FileKind::Index).await.into_iter().filter(|key| !index.contains(key)) {
        flip(&store, &key).await;
    }
    let healed = healed(&store, &[], DATA).await;
    assert!(healed.mended.iter().any(|mended| mended.how == How::Rebuilt), "{healed:#?}");
    let report = verified(&store, DATA).await;
    assert_eq!(objects(&report), lost.into_iter().map(Object::Stored).collect(), "a prune drops their names");
    assert!(report.costs().is_empty() && report.orphans.is_empty());
    assert_eq!(files(&store, &new).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_stays_while_a_pack_that_is_here_may_be_known_only_to_it() {
    let (store, _) = shop().await;
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    // Its header is gone as well.
    let mut bytes = store.get(&pack).await.unwrap().to_vec();
    let end = bytes.len() - 8;
    bytes[end] ^= 1;
    store.put(&pack, bytes.into()).await.unwrap();
    let indexes = names(&store, FileKind::Index).await;
    for index in &indexes {
        flip(&store, index).await;
    }
    let healed = healed(&store, &[], DATA).await;
    assert!(!healed.is_sound());
    assert!(healed.mended.iter().all(|mended| mended.how == How::Rebuilt), "{healed:#?}");
    assert!(names(&store, FileKind::Index).await.iter().filter(|key| indexes.contains(key)).count() == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_was_lost_with_its_index_comes_back_from_a_store_that_knows_it() {
    let (store, copy, snapshots) = shop_with_copy().await;
    let expected = files(&store, &snapshots[1]).await;
    // All of it: trees of the second snapshot are found only once its root is back.
    for kind in [FileKind::Index, FileKind::Pack] {
        for key in names(&store, kind).await {
            store.delete(&key).await.unwrap();
        }
    }
    let healed = healed(&store, &[("copy", &copy)], DATA).await;
    assert!(healed.is_sound(), "{healed:#?}");
    assert_eq!(files(&store, &snapshots[1]).await, expected);
    assert_eq!(names(&store, FileKind::Pack).await.len(), names(&copy, FileKind::Pack).await.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_config_or_keys_gets_them_back_and_opens_by_itself_again() {
    for lost in [FileKind::Config, FileKind::Key] {
        for is_dropped in [true, false] {
            let (store, copy, _) = shop_with_copy().await;
            let whole = stored(&store).await;
            let key = names(&store, lost).await.remove(0);
            if is_dropped {
                store.delete(&key).await.unwrap();
            } else {
                store.put(&key, Bytes::from_static(b"{}")).await.unwrap();
            }
            assert!(Repository::open(Arc::clone(&store), &secret(), &Run::silent()).await.is_err());
            let healed = healed(&store, &[("copy", &copy)], DATA).await;
            assert!(healed.is_sound() && healed.mended.len() == 1, "{lost:?}: {healed:#?}");
            assert_eq!(stored(&store).await, whole);
            assert!(verified(&store, DATA).await.is_sound());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_config_of_another_repository_is_not_put_back() {
    let (store, _) = shop().await;
    let other = memory();
    made(&other).await;
    let patient = ward(&store, &[("other", &other)]).await;
    flip(&store, &Key::config()).await;
    let healed = heal(&patient, DATA, &Run::silent()).await.unwrap();
    assert_eq!(objects(&healed.report), only(&Key::config()));
    assert!(healed.mended.is_empty() && healed.left[0].why.contains("other: read"), "{healed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_removed_does_not_come_back_beside_one_that_is_whole() {
    let (store, copy, _) = shop_with_copy().await;
    let old = Bytes::from_static(b"{}");
    let key = |bytes: &[u8]| Key::new(FileKind::Key, bkp::id::ObjectId::of(bytes).to_string());
    copy.put(&key(&old), old.clone()).await.unwrap();
    let damaged = key(b"a second password");
    store.put(&damaged, Bytes::from_static(b"rot")).await.unwrap();
    let healed = healed(&store, &[("copy", &copy)], DATA).await;
    assert_eq!(objects(&healed.report), only(&damaged));
    assert_eq!(healed.left[0].why, "no other store has it");
    assert_eq!(store.size(&key(&old)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_backup_objects_come_back_and_an_index_waits_for_its_end() {
    let (store, copy, _) = shop_with_copy().await;
    let copy = without_indexes(&copy).await;
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    let index = names(&store, FileKind::Index).await.remove(0);
    let backup = opened(&store).await;
    let lock = backup.lock(LockMode::Shared, Duration::ZERO, &Run::silent()).await.unwrap();
    flip(&store, &pack).await;
    flip(&store, &index).await;
    let beside = healed(&store, &[("copy", &copy)], DATA).await;
    assert_eq!(objects(&beside.report), only(&index), "{beside:#?}");
    assert_eq!(sources(&beside), [(pack.to_string(), "copy")]);
    assert!(beside.left[0].why.contains("holds a lock"), "{beside:#?}");
    lock.release().await.unwrap();
    assert!(healed(&store, &[("copy", &copy)], DATA).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_donor_that_is_away_is_told_and_the_others_are_asked() {
    let (store, copy, _) = shop_with_copy().await;
    let away = Arc::new(Faulty::new(Arc::clone(&copy)));
    away.add(Rule::every(Operation::Any, Fault::Transient));
    let away: SharedStore = away;
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    flip(&store, &pack).await;
    let alone = healed(&store, &[("away", &away)], DATA).await;
    assert!(alone.left[0].why.contains("not asked: away"), "{alone:#?}");
    assert!(healed(&store, &[("away", &away), ("copy", &copy)], DATA).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_a_damaged_index_stopped_works_after_a_heal() {
    let (store, _) = shop().await;
    flip(&store, &names(&store, FileKind::Index).await[0]).await;
    let refused = crate::prune::prune(&store, &crate::prune::thorough()).await.unwrap_err();
    assert!(refused.hint().unwrap().contains("`bkp verify --heal`"), "{refused}");
    for lock in names(&store, FileKind::Lock).await {
        store.delete(&lock).await.unwrap();
    }
    assert!(healed(&store, &[], DATA).await.is_sound());
    crate::prune::prune(&store, &crate::prune::thorough()).await.unwrap();
}

/// Hurts one of two images that lie in one pack; returns the pack and the blob that is lost.
async fn hurt_one_image(store: &SharedStore) -> (Key, Object) {
    let (pack, id) = (pack_of(store, &noise(1, 20_000)).await, BlobId::of(&noise(1, 20_000)));
    assert_eq!(pack, pack_of(store, &noise(2, 30_000)).await);
    let place = opened(store).await.locate(BlobKind::Data, &id).unwrap();
    let mut bytes = store.get(&pack).await.unwrap().to_vec();
    bytes[place.blob.offset as usize + 40] ^= 1;
    store.put(&pack, bytes.into()).await.unwrap();
    (pack, Object::Blob(BlobKind::Data, id))
}

/// Cuts a heal that gives something up at its `nth` operation on the store, and tells whether it got so far.
async fn salvage_cut_at(nth: u64, snapshots: Arc<[StoredSnapshot; 2]>, hurt: Arc<(Objects, Object)>) -> bool {
    let inner = memory();
    for (key, bytes) in &hurt.0 {
        inner.put(key, bytes.clone()).await.unwrap();
    }
    let faulty = Arc::new(Faulty::new(Arc::clone(&inner)));
    let store: SharedStore = faulty.clone();
    let patient = Ward { salvages: true, ..ward(&store, &[]).await };
    faulty.take_log();
    faulty.add(Rule::nth(Operation::Any, nth, Fault::Dead));
    // The process is killed: what it would have said is of no matter.
    let _killed = heal(&patient, DATA, &Run::silent()).await;
    let is_cut = faulty.count(Operation::Any) as u64 >= nth;
    for lock in names(&inner, FileKind::Lock).await {
        inner.delete(&lock).await.unwrap();
    }
    // A heal that may give nothing up leaves it as it is: what was given up does not come back by its header.
    let before = objects(&verified(&inner, DATA).await);
    let plain = heal(&ward(&inner, &[]).await, DATA, &Run::silent()).await.unwrap();
    assert_eq!(objects(&plain.report), before, "cut at operation {nth}");
    for is_again in [false, true] {
        let repository = opened(&inner).await;
        for snapshot in &*snapshots {
            let read = read_all(&repository, snapshot.snapshot.tree).await;
            let unread: Vec<_> =
                read.iter().filter(|(_, bytes)| bytes.is_err()).map(|(path, _)| path.clone()).collect();
            assert_eq!(unread, [PathBuf::from("/images/1/a.jpg")], "cut at operation {nth}, again: {is_again}");
        }
        let patient = Ward { salvages: true, ..ward(&inner, &[]).await };
        let again = heal(&patient, DATA, &Run::silent()).await.unwrap();
        assert_eq!(objects(&again.report), BTreeSet::from([hurt.1.clone()]), "cut at operation {nth}");
    }
    is_cut
}

#[tokio::test(flavor = "multi_thread")]
async fn a_salvage_that_is_killed_at_any_operation_loses_nothing_more_and_the_next_one_ends_it() {
    let (store, snapshots) = shop().await;
    let (_, blob) = hurt_one_image(&store).await;
    let (snapshots, hurt) = (Arc::new(snapshots), Arc::new((stored(&store).await, blob)));
    let cuts = stream::iter(1..);
    let cuts =
        cuts.map(|nth| tokio::spawn(salvage_cut_at(nth, Arc::clone(&snapshots), Arc::clone(&hurt)))).buffered(12);
    let cuts = cuts.take_while(|is_cut| std::future::ready(*is_cut.as_ref().unwrap())).count().await;
    assert!(cuts > 40, "only {cuts} operations were cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_deleted_now_is_not_given_up() {
    let (inner, _) = shop().await;
    let copy = memory();
    copied(&inner, &copy).await;
    let (pack, _) = hurt_one_image(&inner).await;
    let (sick, here) = (Arc::new(Faulty::new(Arc::clone(&copy))), Arc::new(Faulty::new(Arc::clone(&inner))));
    let (donor, store): (SharedStore, SharedStore) = (sick.clone(), here.clone());
    sick.add(Rule::every(Operation::Get, Fault::Unreadable).on(&pack));
    let patient = Ward { salvages: true, ..ward(&store, &[("copy", &donor)]).await };
    let left = heal(&patient, DATA, &Run::silent()).await.unwrap();
    assert!(left.mended.is_empty() && left.left[0].why == "not given up: copy may hold it", "{left:#?}");

    let alone = Ward { salvages: true, ..ward(&store, &[]).await };
    for operation in [Operation::Get, Operation::GetRange] {
        here.add(Rule::every(operation, Fault::Unreadable).on(&pack));
    }
    let before = stored(&inner).await;
    let left = heal(&alone, DATA, &Run::silent()).await.unwrap();
    assert!(left.left[0].why.contains("nothing of it can be read here"), "{left:#?}");
    assert_eq!(stored(&inner).await, before);
    here.heal();

    let until = chrono::Utc::now() + chrono::TimeDelta::days(30);
    inner.keep_immutable(&pack, until, until).await.unwrap();
    let left = heal(&alone, DATA, &Run::silent()).await.unwrap();
    assert!(left.left[0].why.contains("not given up: delete") && left.left[0].why.contains("protected"), "{left:#?}");
    assert_eq!(stored(&inner).await, before, "no pack is written that could take nothing's place");
    assert_eq!(Done::Heal(Box::new(left)).exit(), Exit::Damaged, "what it holds is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_deleted_since_the_look_does_not_come_back() {
    let (store, copy, snapshots) = shop_with_copy().await;
    let key = Key::new(FileKind::Snapshot, snapshots[0].id.to_string());
    flip(&store, &key).await;
    let (patient, run) = (ward(&store, &[("copy", &copy)]).await, Run::silent());
    let mut heal = Heal::begin(&patient, DATA, &run).await.unwrap();
    assert_eq!(objects(&heal.so_far().report), only(&key));
    store.delete(&key).await.unwrap();
    heal.mend(&run).await.unwrap();
    let healed = heal.end();
    assert!(healed.mended.is_empty() && healed.left[0].why.contains("deleted it meanwhile"), "{healed:#?}");
    assert_eq!(store.size(&key).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pack_without_an_index_that_holds_something_gets_one() {
    let store = memory();
    let beside = [made(&store).await, opened(&store).await, opened(&store).await];
    // Each saves what the others do not know of: all that one holds the other two hold together.
    let images = [("/a.jpg", noise(1, 20_000)), ("/b.jpg", noise(2, 20_000)), ("/c.jpg", noise(3, 20_000))];
    for (nth, repository) in beside.iter().enumerate() {
        save(repository, &[images[nth].clone(), images[(nth + 1) % 3].clone()]).await;
    }
    let packs = names(&store, FileKind::Pack).await.len();
    for index in names(&store, FileKind::Index).await {
        store.delete(&index).await.unwrap();
    }
    let healed = healed(&store, &[], DATA).await;
    assert!(healed.is_sound());
    let report = verified(&store, DATA).await;
    assert!(report.is_sound() && report.orphans.is_empty(), "{report:#?}");
    // The first look of the heal knew of no pack; the later ones read them all.
    for checked in [healed.report.checked, report.checked] {
        assert_eq!((checked.packs, checked.packs_read), (packs as u64, packs as u64));
    }
}

/// Heals, and fails where that does not come to an end.
async fn healed_in_time(store: &SharedStore, donors: &[(&str, &SharedStore)], options: Options) -> Healed {
    tokio::time::timeout(Duration::from_mins(1), healed(store, donors, options)).await.expect("a heal that ends")
}

/// Puts a pack in the place of another, with a name that its bytes hash to and a blob that does not open.
async fn hurt_inside(store: &SharedStore, pack: &Key) -> Key {
    let mut bytes = store.get(pack).await.unwrap().to_vec();
    bytes[40] ^= 1;
    let hurt = Key::new(FileKind::Pack, bkp::id::ObjectId::of(&bytes).to_string());
    store.put(&hurt, bytes.into()).await.unwrap();
    store.delete(pack).await.unwrap();
    for index in names(store, FileKind::Index).await {
        store.delete(&index).await.unwrap();
    }
    let repository = opened(store).await;
    repository.load_index_and_headers(&Run::silent()).await.unwrap();
    repository.save_recovered_index().await.unwrap();
    hurt
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_whose_bytes_are_its_names_and_bad_inside_is_put_back_once_and_told() {
    let (inner, snapshots) = shop().await;
    let hurt = hurt_inside(&inner, &pack_of(&inner, &noise(99, 40_000)).await).await;
    let copy = memory();
    for (key, bytes) in stored(&inner).await {
        copy.put(&key, bytes).await.unwrap();
    }
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    assert_eq!(objects(&verified(&store, DATA).await), only(&hurt));
    faulty.take_log();
    let healed = healed_in_time(&store, &[("copy", &copy)], DATA).await;
    assert_eq!(objects(&healed.report), only(&hurt));
    assert_eq!(lost(&healed.report, &snapshots[1]), BTreeSet::from(["/images/1/new.jpg".into()]));
    assert!(healed.mended.is_empty() && healed.left[0].why.contains("the same bad bytes"), "{healed:#?}");
    let puts = faulty.take_log().into_iter().filter(|it| it.kind == FileKind::Pack && it.operation == Operation::Put);
    assert_eq!(puts.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_only_another_store_knows_and_cannot_give_is_asked_for_once() {
    let (store, inner, snapshots) = shop_with_copy().await;
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    store.delete(&pack).await.unwrap();
    for index in names(&store, FileKind::Index).await {
        store.delete(&index).await.unwrap();
    }
    let faulty = Arc::new(Faulty::new(inner));
    faulty.add(Rule::every(Operation::Get, Fault::Flip).on(&pack));
    let copy: SharedStore = faulty.clone();
    let healed = healed_in_time(&store, &[("copy", &copy)], DATA).await;
    assert_eq!(lost(&healed.report, &snapshots[1]), BTreeSet::from(["/images/1/new.jpg".into()]), "{healed:#?}");
    assert!(healed.left.iter().all(|left| left.why.contains(&format!("no store gave {pack} whole"))), "{healed:#?}");
    let gets = faulty.take_log().into_iter().filter(|it| it.operation == Operation::Get && it.name == pack.name);
    assert_eq!(gets.count(), 1);
    faulty.heal();
    assert!(healed_in_time(&store, &[("copy", &copy)], DATA).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_file_that_may_not_be_deleted_is_tried_once_and_told() {
    let (inner, copy, _) = shop_with_copy().await;
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    // Worth nothing: all packs have an index beside it.
    let bytes = copy.get(&names(&copy, FileKind::Index).await[0]).await.unwrap();
    let index = Key::new(FileKind::Index, "00".repeat(32));
    store.put(&index, bytes).await.unwrap();
    faulty.add(Rule::every(Operation::Delete, Fault::Denied).of(FileKind::Index));
    faulty.take_log();
    let denied = healed_in_time(&store, &[("copy", &copy)], DATA).await;
    assert_eq!(objects(&denied.report), only(&index));
    assert!(denied.left[0].why.contains("access denied"), "{denied:#?}");
    let deletes = |log: Vec<bkp::store::faulty::Asked>| {
        log.iter().filter(|it| it.operation == Operation::Delete && it.kind == FileKind::Index).count()
    };
    assert_eq!(deletes(faulty.take_log()), 1);
    assert_eq!(Done::Heal(Box::new(denied)).exit(), Exit::Damaged);

    faulty.heal();
    let until = chrono::Utc::now() + chrono::TimeDelta::days(30);
    store.keep_immutable(&index, until, until).await.unwrap();
    let protected = healed_in_time(&store, &[("copy", &copy)], DATA).await;
    assert!(protected.left[0].why.contains("protected by the store's lock until"), "{protected:#?}");
    assert_eq!(Done::Heal(Box::new(protected)).exit(), Exit::Protected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_file_that_may_not_be_deleted_is_overwritten_with_its_bytes() {
    let (inner, copy, _) = shop_with_copy().await;
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    let index = names(&store, FileKind::Index).await.remove(0);
    // The packs of the one are named by another before it rots.
    let whole = store.get(&index).await.unwrap();
    without_index(&store, &index).await;
    store.put(&index, whole).await.unwrap();
    flip(&store, &index).await;
    faulty.add(Rule::every(Operation::Delete, Fault::Denied).of(FileKind::Index));
    let healed = healed_in_time(&store, &[("copy", &copy)], DATA).await;
    assert!(healed.is_sound(), "{healed:#?}");
    assert_eq!(sources(&healed), [(index.to_string(), "copy")]);
}

/// Names the packs of an index file in a new one.
async fn without_index(store: &SharedStore, index: &Key) {
    store.delete(index).await.unwrap();
    let repository = opened(store).await;
    repository.load_index_and_headers(&Run::silent()).await.unwrap();
    repository.save_recovered_index().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_store_holds_is_given_up_when_told_so_and_what_reads_of_it_is_kept() {
    let (store, snapshots) = shop().await;
    let (pack, blob) = hurt_one_image(&store).await;
    let mut patient = ward(&store, &[]).await;
    patient.salvages = true;
    patient.away = vec!["offsite".to_owned()];
    let waits = heal(&patient, DATA, &Run::silent()).await.unwrap();
    assert!(waits.mended.is_empty() && waits.left[0].why.contains("offsite may hold it"), "{waits:#?}");
    patient.away.clear();
    let salvaged = heal(&patient, DATA, &Run::silent()).await.unwrap();
    assert_eq!(salvaged.mended[0].how, How::Salvaged { blobs: 2, lost: 1 });
    assert_eq!(objects(&salvaged.report), BTreeSet::from([blob]), "{salvaged:#?}");
    assert_eq!(lost(&salvaged.report, &snapshots[0]), BTreeSet::from(["/images/1/a.jpg".into()]));
    assert_eq!(store.size(&pack).await.unwrap(), None);
    assert_eq!(
        opened(&store).await.blob(BlobKind::Data, &BlobId::of(&noise(2, 30_000))).await.unwrap(),
        noise(2, 30_000)
    );
    // The next backup stores it again, and all is whole.
    save(&opened(&store).await, &[("/images/1/a.jpg", noise(1, 20_000))]).await;
    assert!(verified(&store, DATA).await.is_sound());
    assert!(files(&store, &snapshots[0]).await.contains_key(std::path::Path::new("/images/1/a.jpg")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_what_comes_from_where_and_changes_nothing() {
    let (store, copy, snapshots) = shop_with_copy().await;
    let snapshot = Key::new(FileKind::Snapshot, snapshots[0].id.to_string());
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    let size = store.size(&pack).await.unwrap().unwrap();
    flip(&store, &snapshot).await;
    store.delete(&pack).await.unwrap();
    let before = stored(&store).await;
    let (report, plan) = bkp::heal::plan(&ward(&store, &[("copy", &copy)]).await, DATA, &Run::silent()).await.unwrap();
    assert_eq!(objects(&report).len(), 2);
    let planned: Vec<_> = plan.put_back.iter().map(|one| (&one.object, one.from.join(","))).collect();
    assert_eq!(planned, [(&pack, "copy".to_owned()), (&snapshot, "copy".to_owned())]);
    assert_eq!((plan.put_back[0].bytes, plan.rebuilds_index, plan.left.len()), (size, false, 0));
    assert_eq!(stored(&store).await, before);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["put_back"][0]["object"], pack.path());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic; scripts/test runs it"]
async fn restic_finds_no_error_after_a_heal_of_everything() {
    for version in restic::VERSIONS {
        let desk = restic::Desk::new(version);
        let store = local(&desk.repository());
        let Hurt { snapshots, expected, copy, .. } = Hurt::new(&store).await;
        let healed = healed(&store, &[("copy", &copy)], DATA).await;
        assert!(healed.is_sound(), "{healed:#?}");
        desk.check();
        for (snapshot, expected) in snapshots.iter().zip(&expected) {
            assert_eq!(files(&store, snapshot).await, *expected);
        }
        desk.restic(&["prune", "--max-unused", "0"]);
        desk.check();
    }
}

// ------------------------------------------------------------------------------------------------------- the real program

/// Returns the packs of the copy in a directory.
fn packs_of_copy(desk: &Desk) -> Vec<PathBuf> {
    let dirs = fs::read_dir(desk.path("usb/data")).unwrap().map(|dir| dir.unwrap().path());
    dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())).collect()
}

fn healed_by_hand(desk: &Desk) -> (Vec<u8>, Vec<u8>) {
    let mut packs = desk.packs();
    packs.sort();
    let mut there = packs_of_copy(desk);
    there.sort();
    (fs::read(&packs[0]).unwrap(), fs::read(there.last().unwrap()).unwrap())
}

#[test]
fn the_program_mends_every_store_says_so_and_keeps_the_trace() {
    let desk = Desk::backed_up();
    let whole = healed_by_hand(&desk);
    let (mut here, mut there) = (desk.packs(), packs_of_copy(&desk));
    here.sort();
    there.sort();
    flip_file(&here[0]);
    flip_file(there.last().unwrap());
    assert_ne!(healed_by_hand(&desk), whole);

    let planned = desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--dry-run"]).expect(13);
    assert!(planned.out.contains("would put back data/") && planned.out.contains("from usb"), "{}", planned.out);
    assert!(planned.out.contains("from repository"), "{}", planned.out);
    let json = desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--dry-run", "--json"]).expect(13).json();
    assert_eq!(
        (&json["stores"][1]["store"], &json["stores"][1]["plan"]["put_back"][0]["from"][0]),
        (&"usb".into(), &"repository".into())
    );
    assert_ne!(healed_by_hand(&desk), whole, "a dry run changed something");

    let healed = desk.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
    assert!(healed.out.contains("repository healed 1 object"), "{}", healed.out);
    assert!(healed.out.contains("usb        healed 1 object"), "{}", healed.out);
    assert_eq!(healed_by_hand(&desk), whole);
    desk.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    desk.bkp(&["verify", "mall", "--level", "data", "--copy", "usb"]).expect(0);

    let status = desk.bkp(&["status", "mall"]).expect(0);
    assert!(status.out.contains("verify healed 1 object of `repository`"), "{}", status.out);
    let catalog = Catalog::open(&desk.path("state"), &Events::silent()).unwrap();
    let heals = catalog.heals(9).unwrap();
    let stores: BTreeSet<_> = heals.iter().map(|heal| heal.store.as_str()).collect();
    assert_eq!(stores, BTreeSet::from([REPOSITORY, "usb"]));
    assert!(
        heals.iter().all(|heal| heal.left.is_empty() && heal.bytes > 0 && heal.mended[0].contains(" from ")),
        "{heals:?}"
    );
}

#[test]
fn the_program_names_what_no_store_has_and_exits_13() {
    let desk = Desk::backed_up();
    desk.rot();
    let pack = desk.packs().into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let name = pack.file_name().unwrap();
    let there = packs_of_copy(&desk).into_iter().find(|other| other.file_name() == Some(name)).unwrap();
    flip_file(&there);
    let healed = desk.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(13);
    assert!(healed.out.contains("costs /") && healed.out.contains("images/shop0001/"), "{}", healed.out);
    assert!(healed.out.contains("not healed: data/") && healed.out.contains("usb: read"), "{}", healed.out);
    let json = desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--json"]).expect(13).json();
    assert_eq!(json["steps"][0]["result"]["healed"]["left"].as_array().unwrap().len(), 1);
    desk.bkp(&["forget", "mall", "--dry-run"]).expect(0);
    assert!(desk.bkp(&["forget", "mall", "--dry-run"]).out.contains("rests"));
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_dump_is_mended_from_s3_and_what_both_have_lost_is_told_as_rows() {
    let world = World::ready(Product::MariaDb);
    world.bkp(&["backup", "mall", "--source", "db1"]).expect(0);
    let packs = |root: PathBuf| -> Vec<PathBuf> {
        let dirs = fs::read_dir(root.join("data")).unwrap().map(|dir| dir.unwrap().path());
        dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())).collect()
    };
    let here = packs(world.path("repository"));
    let before: Vec<_> = here.iter().map(|pack| fs::read(pack).unwrap()).collect();
    for pack in &here {
        flip_file(pack);
    }
    let told = world.bkp(&["verify", "mall", "--level", "data"]).expect(13);
    assert!(told.out.contains("`bkp verify mall --level data --heal`"), "{}", told.out);
    let healed = world.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
    assert!(healed.out.contains("from offsite"), "{}", healed.out);
    assert_eq!(here.iter().map(|pack| fs::read(pack).unwrap()).collect::<Vec<_>>(), before);
    let checked = world.restic(&["check", "--read-data"]).expect(0);
    assert!(checked.out.contains("no errors were found"), "{}", checked.out);

    // The orders' rows, in both stores.
    let repository = block_on(async {
        let policy = Policy::load(&world.path("policies/mall.toml")).unwrap();
        bkp::place::repository(&policy, &Run::silent()).await.unwrap()
    });
    let place = block_on(async {
        repository.load_index(&Run::silent()).await.unwrap();
        let stored = repository.snapshots().await.unwrap().remove(0);
        let mut tree = stored.snapshot.tree;
        for name in ["mysql", "db1", "mall", "orders"] {
            let node = repository.tree(&tree).await.unwrap().nodes.into_iter().find(|node| node.name == name).unwrap();
            tree = node.subtree.unwrap();
        }
        let rows =
            repository.tree(&tree).await.unwrap().nodes.into_iter().find(|node| node.name == "00000.tsv").unwrap();
        repository.locate(BlobKind::Data, &rows.content[0]).unwrap()
    });
    let pack = Key::new(FileKind::Pack, place.pack.to_string()).path();
    for root in [world.path("repository"), world.s3.objects().join("dr")] {
        let file = root.join(&pack);
        let mut bytes = fs::read(&file).unwrap();
        bytes[place.blob.offset as usize + 20] ^= 1;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
    }
    let left = world.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(13);
    assert!(left.out.contains("costs /mysql/db1/mall/orders/00000.tsv"), "{}", left.out);
    assert!(left.out.contains("which is 1,500 rows of mall.orders"), "{}", left.out);
    assert!(left.out.contains("not healed: data/"), "{}", left.out);
    // Given up, it is stored again by the next backup, as far as the source still has it; and the copy gets it from there.
    let salvaged =
        world.bkp(&["verify", "mall", "--level", "data", "--heal", "--salvage", "--copy", "offsite"]).expect(13);
    assert!(salvaged.out.contains("given up: "), "{}", salvaged.out);
    let salvaged = world.bkp(&["verify", "mall", "--level", "data", "--heal", "--salvage"]).expect(13);
    assert!(salvaged.out.contains("costs /mysql/db1/mall/orders/00000.tsv"), "{}", salvaged.out);
    world.bkp(&["backup", "mall", "--source", "db1"]).expect(0);
    world.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
    let checked = world.restic(&["check", "--read-data"]).expect(0);
    assert!(checked.out.contains("no errors were found"), "{}", checked.out);
}

#[test]
fn a_lost_config_is_brought_back_by_the_program_and_an_empty_place_is_no_repository() {
    let desk = Desk::backed_up();
    fs::remove_file(desk.path("repository/config")).unwrap();
    for dir in fs::read_dir(desk.path("repository/keys")).unwrap() {
        fs::remove_file(dir.unwrap().path()).unwrap();
    }
    desk.bkp(&["verify", "mall"]).expect(10);
    let healed = desk.bkp(&["verify", "mall", "--heal"]).expect(0);
    assert!(healed.out.contains("config from usb") && healed.out.contains("keys/"), "{}", healed.out);
    desk.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    fs::remove_dir_all(desk.path("repository")).unwrap();
    desk.bkp(&["verify", "mall", "--heal"]).expect(10);
    assert!(!desk.path("repository").exists());
}

#[test]
fn a_scheduled_verify_mends_what_it_finds_unless_the_policy_says_no() {
    for heals in [true, false] {
        let desk = Desk::backed_up();
        desk.write_policy(if heals { "" } else { "[verify]\nheal = false" });
        desk.change_policy("backup = \"15 2 * * *\"", "verify = \"0 5 * * *\"");
        let index = fs::read_dir(desk.path("repository/snapshots")).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&index).unwrap();
        flip_file(&index);
        let ran = desk.bkp(&["run", "mall", "--now"]);
        let out = &ran.out;
        assert_eq!(out.contains("healed 1 object"), heals, "{out}{}", ran.err);
        assert_eq!(fs::read(&index).unwrap() == whole, heals);
        assert_eq!(ran.code == Some(0), heals);
    }
}

/// Makes what needs the store alone: a damaged index file that is worth nothing.
fn add_bad_index(desk: &Desk) {
    fs::write(desk.path("repository/index").join("00".repeat(32)), b"rot").unwrap();
}

#[test]
fn damage_is_remembered_although_a_signal_ends_the_heal() {
    let desk = Desk::backed_up();
    add_bad_index(&desk);
    desk.bkp(&["forget", "mall", "--dry-run"]).expect(0);
    // A lock of another, for which the heal waits.
    let store = local(&desk.path("repository"));
    let policy = Policy::load(&desk.path("policies/mall.toml")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lock = runtime.block_on(async {
        let repository = bkp::place::repository(&policy, &Run::silent()).await.unwrap();
        repository.lock(LockMode::Shared, Duration::ZERO, &Run::silent()).await.unwrap()
    });
    let healing =
        desk.command(&["verify", "mall", "--heal"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let catalog = Catalog::open(&desk.path("state"), &Events::silent()).unwrap();
    let is_noted = || catalog.verifies(REPOSITORY).unwrap().iter().any(|verify| !verify.is_sound);
    for _ in 0..200 {
        if is_noted() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(healing.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended: Ended = healing.wait_with_output().unwrap().into();
    ended.expect(143);
    runtime.block_on(lock.release()).unwrap();
    assert!(desk.bkp(&["forget", "mall", "--dry-run"]).expect(0).out.contains("rests"));
    assert!(runtime.block_on(names(&store, FileKind::Index)).iter().any(|key| key.name == "00".repeat(32)));
    desk.bkp(&["verify", "mall", "--heal"]).expect(0);
    assert!(!desk.bkp(&["forget", "mall", "--dry-run"]).expect(0).out.contains("rests"));
}

#[test]
fn an_empty_mount_point_and_a_foreign_repository_may_hold_what_is_lost() {
    for is_foreign in [false, true] {
        let desk = Desk::backed_up();
        desk.rot();
        let before = desk.packs();
        fs::rename(desk.path("usb"), desk.path("unplugged")).unwrap();
        fs::create_dir(desk.path("usb")).unwrap();
        if is_foreign {
            block_on(async { made(&local(&desk.path("usb"))).await });
        }
        let left = desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--salvage"]);
        assert!(left.out.contains("not given up: usb may hold it"), "{}{}", left.out, left.err);
        assert!(left.err.contains("usb: "), "{}", left.err);
        assert_eq!(desk.packs().len(), before.len());
        fs::remove_dir_all(desk.path("usb")).unwrap();
        fs::rename(desk.path("unplugged"), desk.path("usb")).unwrap();
        desk.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
    }
}

#[test]
fn the_config_of_another_repository_does_not_open_this_one() {
    let desk = Desk::backed_up();
    fs::remove_dir_all(desk.path("usb")).unwrap();
    fs::create_dir(desk.path("usb")).unwrap();
    let policy = Policy::load(&desk.path("policies/mall.toml")).unwrap();
    block_on(async {
        let password = bkp::place::password(&policy).unwrap();
        Repository::init(local(&desk.path("usb")), &password, &Run::silent()).await.unwrap();
    });
    fs::remove_file(desk.path("repository/config")).unwrap();
    desk.bkp(&["verify", "mall", "--heal", "--copy", "usb"]).expect(0);
    let refused = desk.bkp(&["verify", "mall", "--heal"]);
    assert!(refused.code != Some(0), "{}", refused.out);
    assert!(!desk.path("repository/config").exists());
}
