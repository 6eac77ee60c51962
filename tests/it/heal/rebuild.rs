//! Index files are made anew from the packs' own headers, and damaged ones go once they are worth nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use bkp::cycle::done::Done;
use bkp::exit::Exit;
use bkp::heal::How;
use bkp::id::BlobId;
use bkp::repository::BlobKind;
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::Options;

use crate::damage::{DATA, flip, names, objects, only, pack_of, verified};
use crate::heal::{files, healed, healed_in_time, shop, shop_with_copy, sources};
use crate::repository::{made, memory, noise, opened, save};

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
    let replaced = healed.mended.iter().filter(|mended| mended.how == How::Replaced);
    let replaced: BTreeSet<_> = replaced.map(|mended| mended.what.clone()).collect();
    assert_eq!(replaced, lost.iter().map(Key::path).collect(), "no index names them any more");
    let report = verified(&store, DATA).await;
    assert!(report.is_sound() && report.orphans.is_empty(), "{report:#?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_file_that_is_worth_nothing_and_locked_stops_no_prune() {
    let (store, _) = shop().await;
    let index = Key::new(FileKind::Index, "00".repeat(32));
    store.put(&index, bytes::Bytes::from_static(b"rot")).await.unwrap();
    let until = chrono::Utc::now() + chrono::TimeDelta::days(30);
    store.keep_immutable(&index, until, until).await.unwrap();
    let left = healed(&store, &[], DATA).await;
    assert!(left.is_harmless() && !left.is_sound() && left.is_protected(), "{left:#?}");
    crate::prune::prune(&store, &crate::prune::thorough()).await.unwrap();
    assert!(store.size(&index).await.unwrap().is_some());
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
