//! The other stores are asked in their order: one that lies, is away or cannot give stands in nobody's way.

use std::collections::BTreeSet;
use std::sync::Arc;

use bkp::heal::How;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, SharedStore};

use crate::damage::{DATA, flip, lost, names, objects, only, pack_of};
use crate::heal::{files, healed, healed_in_time, shop_with_copy, stored};
use crate::repository::noise;

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
