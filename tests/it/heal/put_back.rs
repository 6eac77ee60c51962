//! Objects come back under their own names, by bytes that hash right, wherever a heal is cut.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bkp::cycle::done::Done;
use bkp::exit::Exit;
use bkp::heal::{Heal, heal};
use bkp::repository::{LockMode, Repository};
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::Object;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::damage::{DATA, flip, lost, names, objects, only, pack_of, tree_pack, verified};
use crate::heal::{
    Hurt, copied, files, healed, healed_in_time, planned, shop, shop_with_copy, sources, stored, ward, without_indexes,
};
use crate::repository::{local, made, memory, noise, opened, secret};
use crate::restic;

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
    assert_eq!(Done::Heal(Box::new(beside)).exit(), Exit::Locked);
    lock.release().await.unwrap();
    assert!(healed(&store, &[("copy", &copy)], DATA).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_cannot_be_read_is_exit_11_and_endangers_nothing() {
    let (store, copy, _) = shop_with_copy().await;
    let holder = opened(&store).await;
    let lock = holder.lock(LockMode::Shared, Duration::ZERO, &Run::silent()).await.unwrap();
    flip(&store, &names(&store, FileKind::Lock).await[0]).await;
    let left = healed(&store, &[("copy", &copy)], DATA).await;
    assert!(!left.is_sound() && left.is_harmless() && left.left[0].is_locked, "{left:#?}");
    assert_eq!(Done::Heal(Box::new(left)).exit(), Exit::Locked);
    drop(lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_deleted_since_the_look_does_not_come_back() {
    let (store, copy, snapshots) = shop_with_copy().await;
    let key = Key::new(FileKind::Snapshot, snapshots[0].id.to_string());
    flip(&store, &key).await;
    let (patient, run) = (ward(&store, &[("copy", &copy)]).await, Run::silent());
    let mut heal = Heal::begin(&patient.name, &patient.repository, DATA, &run).await.unwrap();
    assert_eq!(objects(&heal.so_far().report), only(&key));
    store.delete(&key).await.unwrap();
    heal.mend(&patient, &run).await.unwrap();
    let healed = heal.end();
    assert!(healed.mended.is_empty() && healed.left[0].why.contains("deleted it meanwhile"), "{healed:#?}");
    assert_eq!(store.size(&key).await.unwrap(), None);
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
async fn a_plan_tells_what_comes_from_where_and_changes_nothing() {
    let (store, copy, snapshots) = shop_with_copy().await;
    let snapshot = Key::new(FileKind::Snapshot, snapshots[0].id.to_string());
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    let size = store.size(&pack).await.unwrap().unwrap();
    flip(&store, &snapshot).await;
    store.delete(&pack).await.unwrap();
    let before = stored(&store).await;
    let (report, plan) = planned(&ward(&store, &[("copy", &copy)]).await, DATA).await;
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
