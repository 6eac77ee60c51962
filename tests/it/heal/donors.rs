//! The other stores are asked in their order: one that lies, is away or cannot give stands in nobody's way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bkp::cycle::done::Done;
use bkp::exit::Exit;
use bkp::heal::{How, heal};
use bkp::id::BlobId;
use bkp::repository::{BlobKind, StoredSnapshot};
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use futures_util::{StreamExt, stream};

use crate::damage::{DATA, STRUCTURE, flip, lost, names, objects, only, pack_of, verified};
use crate::heal::{Objects, copied, files, healed, healed_in_time, planned, shop_with_copy, stored, ward};
use crate::prune::{prune, thorough};
use crate::repository::{local, made, memory, noise, opened, read_all, save};
use crate::restic;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lies_is_passed_over_for_the_next() {
    let (store, copy, _) = shop_with_copy().await;
    let whole = stored(&store).await;
    let liar = Arc::new(Faulty::new(Arc::clone(&copy)));
    for operation in [Operation::Get, Operation::GetRange] {
        liar.add(Rule::every(operation, Fault::Flip).of(FileKind::Pack));
    }
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
async fn a_pack_that_only_another_store_knows_and_cannot_give_is_asked_for_once() {
    let (store, inner, snapshots) = shop_with_copy().await;
    let pack = pack_of(&store, &noise(99, 40_000)).await;
    store.delete(&pack).await.unwrap();
    for index in names(&store, FileKind::Index).await {
        store.delete(&index).await.unwrap();
    }
    let faulty = Arc::new(Faulty::new(inner));
    for operation in [Operation::Get, Operation::GetRange] {
        faulty.add(Rule::every(operation, Fault::Flip).on(&pack));
    }
    let copy: SharedStore = faulty.clone();
    let healed = healed_in_time(&store, &[("copy", &copy)], DATA).await;
    assert_eq!(lost(&healed.report, &snapshots[1]), BTreeSet::from(["/images/1/new.jpg".into()]), "{healed:#?}");
    assert!(healed.left.iter().all(|left| left.why.contains(&format!("no store gave {pack} whole"))), "{healed:#?}");
    let gets = faulty.take_log().into_iter().filter(|it| it.operation == Operation::Get && it.name == pack.name);
    assert_eq!(gets.count(), 1);
    faulty.heal();
    assert!(healed_in_time(&store, &[("copy", &copy)], DATA).await.is_sound());
}

/// A repository with two snapshots that need two images of one pack and one of another, and a copy that was pruned since: there they lie
/// in other packs, and what only a forgotten snapshot needed is gone.
async fn shop_with_pruned_copy(store: SharedStore, copy: SharedStore) -> Pair {
    let repository = made(&store).await;
    let mut images = vec![("/images/1/a.jpg", noise(1, 20_000)), ("/images/2/b.jpg", noise(2, 30_000))];
    let dead = [images[0].clone(), images[1].clone(), ("/images/3/dead.jpg", noise(3, 25_000))];
    let forgotten = save(&repository, &dead).await;
    let first = save(&repository, &images).await;
    images.push(("/images/1/new.jpg", noise(99, 40_000)));
    let second = save(&repository, &images).await;
    copied(&store, &copy).await;
    for place in [&store, &copy] {
        opened(place).await.remove_snapshot(&forgotten.id).await.unwrap();
    }
    prune(&copy, &thorough()).await.unwrap();
    let here = names(&store, FileKind::Pack).await;
    let pack = pack_of(&store, &noise(1, 20_000)).await;
    assert!(here.contains(&pack) && !names(&copy, FileKind::Pack).await.contains(&pack));
    assert_eq!(pack_of(&store, &noise(3, 25_000)).await, pack, "what is dead lies beside what lives");
    Pair { store, copy, snapshots: [first, second] }
}

struct Pair {
    store: SharedStore,
    copy: SharedStore,
    snapshots: [StoredSnapshot; 2],
}

impl Pair {
    async fn new() -> Self {
        shop_with_pruned_copy(memory(), memory()).await
    }

    /// Proves that the store holds both snapshots, and that no index and no store names the pack.
    async fn check(&self, store: &SharedStore, pack: &Key) {
        let report = verified(store, DATA).await;
        assert!(report.is_sound() && report.orphans.is_empty(), "{report:#?}");
        let packs = opened(store).await.packs();
        assert!(packs.iter().all(|one| one.id.to_string() != pack.name));
        assert_eq!(store.size(pack).await.unwrap(), None);
        for (snapshot, count) in self.snapshots.iter().zip([2, 3]) {
            let files = files(store, snapshot).await;
            assert_eq!(files.len(), count);
            assert_eq!(files[Path::new("/images/1/a.jpg")], noise(1, 20_000));
            assert_eq!(files[Path::new("/images/2/b.jpg")], noise(2, 30_000));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pack_held_comes_from_other_packs_of_a_store_that_has_not_the_pack() {
    for is_reverse in [false, true] {
        for is_dropped in [true, false] {
            let pair = Pair::new().await;
            let (store, donor) = if is_reverse { (&pair.copy, &pair.store) } else { (&pair.store, &pair.copy) };
            let pack = pack_of(store, &noise(1, 20_000)).await;
            assert_eq!(donor.size(&pack).await.unwrap(), None);
            if is_dropped {
                store.delete(&pack).await.unwrap();
            } else {
                flip(store, &pack).await;
            }
            let before = stored(donor).await;
            let healed = healed_in_time(store, &[("donor", donor)], DATA).await;
            assert!(healed.is_sound() && healed.left.is_empty(), "{healed:#?}");
            // Of a pack that is gone all is lost; of one that is hurt in one place one blob, and the rest moves.
            let (blobs, lost) = match (is_dropped, is_reverse) {
                (true, false) => (2, 3),
                (true, true) => (2, 2),
                (false, _) => (1, 1),
            };
            let from = BTreeSet::from(["donor".to_owned()]);
            let hows: Vec<_> = healed.mended.iter().map(|mended| (mended.what.clone(), mended.how.clone())).collect();
            let path = pack.path();
            assert_eq!(hows, [(path.clone(), How::Gathered { blobs, lost, from }), (path, How::Replaced)]);
            pair.check(store, &pack).await;
            assert_eq!(stored(donor).await, before, "a donor was changed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_come_from_other_packs_as_well_and_what_is_lost_below_them_after_them() {
    let pair = Pair::new().await;
    // All of it, and no pack of the copy has one of these names.
    let packs = names(&pair.store, FileKind::Pack).await;
    let there = names(&pair.copy, FileKind::Pack).await;
    let gone: Vec<_> = packs.into_iter().filter(|pack| !there.contains(pack)).collect();
    assert!(gone.len() > 1, "a pack of images and one of trees");
    for pack in &gone {
        pair.store.delete(pack).await.unwrap();
    }
    let healed = healed_in_time(&pair.store, &[("copy", &pair.copy)], STRUCTURE).await;
    assert!(healed.is_sound(), "{healed:#?}");
    for pack in &gone {
        pair.check(&pair.store, pack).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_some_packs_of_a_donor_give_comes_and_only_the_rest_is_named_as_lost() {
    let pair = Pair::new().await;
    let pack = pack_of(&pair.store, &noise(1, 20_000)).await;
    pair.store.delete(&pack).await.unwrap();
    let hurt = opened(&pair.copy).await.locate(BlobKind::Data, &BlobId::of(&noise(2, 30_000))).unwrap();
    let there = Key::new(FileKind::Pack, hurt.pack.to_string());
    let mut bytes = pair.copy.get(&there).await.unwrap().to_vec();
    bytes[hurt.blob.offset as usize + 40] ^= 1;
    pair.copy.put(&there, bytes.into()).await.unwrap();
    let healed = healed_in_time(&pair.store, &[("copy", &pair.copy)], DATA).await;
    assert_eq!(objects(&healed.report), only(&pack), "the index still names it: {healed:#?}");
    for snapshot in &pair.snapshots {
        assert_eq!(lost(&healed.report, snapshot), BTreeSet::from(["/images/2/b.jpg".into()]));
    }
    assert_eq!(healed.left[0].why, "no store that answers holds 2 of its 3 lost blobs; the others came");
    assert_eq!(Done::Heal(Box::new(healed)).exit(), Exit::Damaged);
    let packs = names(&pair.store, FileKind::Pack).await;
    let again = healed_in_time(&pair.store, &[("copy", &pair.copy)], DATA).await;
    assert!(again.mended.is_empty() && names(&pair.store, FileKind::Pack).await == packs, "it came twice: {again:#?}");
    // Once the donor is whole, the rest comes.
    bytes = pair.copy.get(&there).await.unwrap().to_vec();
    bytes[hurt.blob.offset as usize + 40] ^= 1;
    pair.copy.put(&there, bytes.into()).await.unwrap();
    assert!(healed_in_time(&pair.store, &[("copy", &pair.copy)], DATA).await.is_sound());
    pair.check(&pair.store, &pack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_that_lost_different_blobs_of_one_pack_mend_each_other() {
    let (store, copy, snapshots) = shop_with_copy().await;
    let pack = pack_of(&store, &noise(1, 20_000)).await;
    for (place, image) in [(&store, noise(1, 20_000)), (&copy, noise(2, 30_000))] {
        let at = opened(place).await.locate(BlobKind::Data, &BlobId::of(&image)).unwrap();
        assert_eq!(at.pack.to_string(), pack.name);
        let mut bytes = place.get(&pack).await.unwrap().to_vec();
        bytes[at.blob.offset as usize + 40] ^= 1;
        place.put(&pack, bytes.into()).await.unwrap();
    }
    let expected =
        BTreeSet::from([("/images/1/a.jpg".into(), noise(1, 20_000)), ("/images/2/b.jpg".into(), noise(2, 30_000))]);
    for (place, donor) in [(&store, &copy), (&copy, &store)] {
        let healed = healed_in_time(place, &[("other", donor)], DATA).await;
        assert!(healed.is_sound(), "{healed:#?}");
        assert_eq!(files(place, &snapshots[0]).await.into_iter().collect::<BTreeSet<(PathBuf, Vec<u8>)>>(), expected);
        assert_eq!(place.size(&pack).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_what_would_come_from_other_packs() {
    let pair = Pair::new().await;
    let pack = pack_of(&pair.store, &noise(1, 20_000)).await;
    pair.store.delete(&pack).await.unwrap();
    let before = stored(&pair.store).await;
    let (_, plan) = planned(&ward(&pair.store, &[("copy", &pair.copy)]).await, STRUCTURE).await;
    let gather = &plan.gathered[0];
    assert_eq!((gather.object.to_string(), gather.lost, gather.blobs.len()), (pack.path(), 3, 2));
    assert!(plan.bytes() > 50_000 && plan.bytes() < 52_000 && plan.put_back.is_empty() && plan.left.is_empty());
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!((&json["gathered"][0]["blobs"], &json["gathered"][0]["from"][0]), (&2.into(), &"copy".into()));
    assert_eq!(stored(&pair.store).await, before, "a plan changed something");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_donor_that_breaks_off_leaves_what_came_and_is_told() {
    let pair = Pair::new().await;
    let pack = pack_of(&pair.store, &noise(1, 20_000)).await;
    pair.store.delete(&pack).await.unwrap();
    let inner = Arc::new(Faulty::new(Arc::clone(&pair.copy)));
    inner.add(Rule::every(Operation::GetRange, Fault::Transient));
    let breaking: SharedStore = inner.clone();
    let left = healed_in_time(&pair.store, &[("breaking", &breaking)], DATA).await;
    assert!(left.away.contains("breaking") && left.mended.is_empty(), "{left:#?}");
    assert_eq!(objects(&left.report), only(&pack));
    let healed = healed_in_time(&pair.store, &[("breaking", &breaking), ("copy", &pair.copy)], DATA).await;
    assert!(healed.is_sound(), "the next one is asked: {healed:#?}");
    pair.check(&pair.store, &pack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_gets_no_new_packs_and_keeps_what_it_has() {
    let pair = Pair::new().await;
    let pack = pack_of(&pair.store, &noise(1, 20_000)).await;
    flip(&pair.store, &pack).await;
    let before = stored(&pair.store).await;
    let faulty = Arc::new(Faulty::new(Arc::clone(&pair.store)));
    faulty.add(Rule::every(Operation::Put, Fault::Full).of(FileKind::Pack));
    let store: SharedStore = faulty.clone();
    let left = healed_in_time(&store, &[("copy", &pair.copy)], DATA).await;
    assert!(left.left[0].why.contains("no space left"), "{left:#?}");
    assert_eq!(stored(&pair.store).await, before);
}

/// Cuts a heal that gathers at its `nth` operation on the store, and tells whether it got so far.
async fn gather_cut_at(nth: u64, pair: Arc<(Pair, Objects, Key)>) -> bool {
    let (pair, before, pack) = &*pair;
    let inner = memory();
    for (key, bytes) in before {
        inner.put(key, bytes.clone()).await.unwrap();
    }
    let faulty = Arc::new(Faulty::new(Arc::clone(&inner)));
    let store: SharedStore = faulty.clone();
    let patient = ward(&store, &[("copy", &pair.copy)]).await;
    faulty.take_log();
    faulty.add(Rule::nth(Operation::Any, nth, Fault::Dead));
    // The process is killed: what it would have said is of no matter.
    let _killed = heal(&patient, DATA, &Run::silent()).await;
    let is_cut = faulty.count(Operation::Any) as u64 >= nth;
    for lock in names(&inner, FileKind::Lock).await {
        inner.delete(&lock).await.unwrap();
    }
    // Nothing that still reads is lost: the old state, or more of the new one.
    let repository = opened(&inner).await;
    for snapshot in &pair.snapshots {
        let read = read_all(&repository, snapshot.snapshot.tree).await;
        assert!(read[Path::new("/images/1/a.jpg")].is_ok(), "cut at operation {nth}");
        assert!(read.values().filter(|bytes| bytes.is_err()).count() <= 1, "cut at operation {nth}");
    }
    let again = healed_in_time(&inner, &[("copy", &pair.copy)], DATA).await;
    assert!(again.is_sound(), "cut at operation {nth}: {again:#?}");
    // Packs that were on their way are orphans for a prune.
    prune(&inner, &thorough()).await.unwrap();
    pair.check(&inner, pack).await;
    is_cut
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gather_that_is_killed_at_any_operation_loses_nothing_and_the_next_one_ends_it() {
    let pair = Pair::new().await;
    let pack = pack_of(&pair.store, &noise(1, 20_000)).await;
    // The second image is lost; the first one lies in the same pack and still reads.
    flip(&pair.store, &pack).await;
    let before = stored(&pair.store).await;
    let pair = Arc::new((pair, before, pack));
    let cuts = stream::iter(1..).map(|nth| tokio::spawn(gather_cut_at(nth, Arc::clone(&pair)))).buffered(12);
    let cuts = cuts.take_while(|is_cut| std::future::ready(*is_cut.as_ref().unwrap())).count().await;
    assert!(cuts > 50, "only {cuts} operations were cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_locked_stays_and_endangers_nothing_once_its_blobs_are_back() {
    let pair = Pair::new().await;
    let pack = pack_of(&pair.store, &noise(1, 20_000)).await;
    flip(&pair.store, &pack).await;
    let until = chrono::Utc::now() + chrono::TimeDelta::days(30);
    for index in names(&pair.store, FileKind::Index).await {
        pair.store.keep_immutable(&index, until, until).await.unwrap();
    }
    let healed = healed_in_time(&pair.store, &[("copy", &pair.copy)], DATA).await;
    assert_eq!(objects(&healed.report), only(&pack), "{healed:#?}");
    assert!(healed.left[0].why.contains("protected by the store's lock until"), "{healed:#?}");
    assert!(healed.is_harmless() && !healed.is_sound());
    assert_eq!(Done::Heal(Box::new(healed)).exit(), Exit::Protected);
    for snapshot in &pair.snapshots {
        assert_eq!(files(&pair.store, snapshot).await[Path::new("/images/2/b.jpg")], noise(2, 30_000));
    }
    let packs = names(&pair.store, FileKind::Pack).await;
    healed_in_time(&pair.store, &[("copy", &pair.copy)], DATA).await;
    assert_eq!(names(&pair.store, FileKind::Pack).await, packs, "each heal writes it anew");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic; scripts/test runs it"]
async fn restic_finds_no_error_after_blobs_were_gathered() {
    for version in restic::VERSIONS {
        let desk = restic::Desk::new(version);
        let pair = shop_with_pruned_copy(local(&desk.repository()), memory()).await;
        let packs = names(&pair.store, FileKind::Pack).await;
        let there = names(&pair.copy, FileKind::Pack).await;
        for pack in packs.iter().filter(|pack| !there.contains(pack)) {
            pair.store.delete(pack).await.unwrap();
        }
        assert!(healed_in_time(&pair.store, &[("copy", &pair.copy)], DATA).await.is_sound());
        desk.check();
        for pack in packs.iter().filter(|pack| !there.contains(pack)) {
            pair.check(&pair.store, pack).await;
        }
    }
}
