//! What no store holds whole is given up where the operator says so, and nothing else of it is lost.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bkp::cycle::done::Done;
use bkp::exit::Exit;
use bkp::heal::{How, Ward, heal};
use bkp::id::BlobId;
use bkp::repository::{BlobKind, StoredSnapshot};
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::Object;
use futures_util::{StreamExt, stream};

use crate::damage::{DATA, lost, names, objects, pack_of, verified};
use crate::heal::{Objects, copied, files, shop, stored, ward};
use crate::repository::{memory, noise, opened, read_all, save};

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
    for operation in [Operation::Get, Operation::GetRange] {
        sick.add(Rule::every(operation, Fault::Unreadable).on(&pack));
    }
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
