//! A heal of what a store locks: a good version is laid over a bad one, and nothing that is locked goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::types::ObjectLockMode;
use bkp::cycle::done::Done;
use bkp::exit::Exit;
use bkp::heal::{Donor, How, Ward, heal};
use bkp::policy::{RetainMode, S3Place};
use bkp::store::{FileKind, Key};
use bkp::verify::{Level, Options};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};

use super::{DAY, LOCK, copied, copy_to, ledger, opened, place, standing, store, two_snapshots};
use crate::cli::desk::{Desk, flip};
use crate::outage::restic_check_at;
use crate::servers::{Fault, Moto, S3, Version, block_on};
use crate::world::{files, noise};

/// Returns the objects of the bucket as a reader sees them, but lock files.
async fn newest(moto: &Moto) -> BTreeMap<String, Bytes> {
    let (client, mut objects) = (moto.client(), BTreeMap::new());
    let listed = client.list_objects_v2().bucket(Moto::BUCKET).send().await.unwrap();
    assert_eq!(listed.is_truncated(), Some(false), "more objects than a page holds");
    for key in listed.contents().iter().filter_map(|it| it.key()).filter(|key| !key.starts_with("locks/")) {
        let got = client.get_object().bucket(Moto::BUCKET).key(key).send().await.unwrap();
        objects.insert(key.to_owned(), got.body.collect().await.unwrap().into_bytes());
    }
    objects
}

/// Lays a version over an object whose lock ends in two days.
async fn lay_over(moto: &Moto, key: &str, bytes: Vec<u8>) {
    let until = aws_sdk_s3::primitives::DateTime::from_secs(Utc::now().timestamp() + 2 * 86_400);
    let put = moto.client().put_object().bucket(Moto::BUCKET).key(key).body(bytes.into());
    let put = put.checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Sha256);
    put.object_lock_mode(ObjectLockMode::Governance).object_lock_retain_until_date(until).send().await.unwrap();
}

/// Lays versions over one object of each kind in which one bit is another, all under a lock; returns their keys.
async fn rot(moto: &Moto, kinds: &[&str]) -> Vec<String> {
    let mut rotten = Vec::new();
    for (key, bytes) in newest(moto).await {
        let is_next = kinds.get(rotten.len()).is_some_and(|kind| key.starts_with(kind));
        if is_next {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            lay_over(moto, &key, bytes).await;
            rotten.push(key);
        }
    }
    assert_eq!(rotten.len(), kinds.len());
    rotten
}

/// A desk whose locked copy holds two backups.
fn copied_under_locks(moto: &Moto) -> Desk {
    let desk = Desk::ready();
    copy_to(&desk, &moto.endpoint(), Moto::BUCKET, LOCK);
    desk.bkp(&["backup", "mall"]).expect(0);
    desk.write("images/shop0001/9.jpg", &noise(9, 30_000));
    desk.bkp(&["backup", "mall"]).expect(0);
    desk
}

const HEAL: [&str; 7] = ["verify", "mall", "--level", "data", "--heal", "--copy", "usb"];

#[test]
#[ignore = "needs moto and restic of scripts/lab; scripts/test runs it"]
fn over_what_rots_under_its_lock_a_heal_lays_a_good_version_and_deletes_none() {
    let moto = Moto::start();
    let desk = copied_under_locks(&moto);
    let whole = block_on(newest(&moto));
    let rotten = block_on(rot(&moto, &["data/", "index/", "snapshots/"]));
    // Another pack is hidden, as `restic prune` does it.
    let hidden = whole.keys().rfind(|key| key.starts_with("data/")).unwrap();
    block_on(async {
        moto.client().delete_object().bucket(Moto::BUCKET).key(hidden).send().await.unwrap();
    });
    assert!(!rotten.contains(hidden) && block_on(newest(&moto)) != whole);
    let before = block_on(moto.versions());

    desk.bkp(&["verify", "mall", "--level", "data", "--copy", "usb"]).expect(13);
    let healed = desk.bkp(&HEAL).expect(0);
    assert!(healed.out.contains("usb        healed 4 objects"), "{healed:?}");
    for key in rotten.iter().chain([hidden]) {
        assert!(healed.out.contains(&format!("{key} from repository")), "{key}: {healed:?}");
    }
    assert_eq!(block_on(newest(&moto)), whole);
    let after = block_on(moto.versions());
    assert!(before.iter().all(|version| after.contains(version)), "{before:?} {after:?}");
    let new: Vec<_> = after.iter().filter(|it| !before.contains(it) && !it.key.starts_with("locks/")).collect();
    assert_eq!(new.len(), 4, "{new:?}");
    for version in new {
        let head = moto.client().head_object().bucket(Moto::BUCKET).key(&version.key).version_id(&version.id).send();
        let until = block_on(head).unwrap().object_lock_retain_until_date().unwrap().secs();
        assert!(until > (Utc::now() + DAY * 29).timestamp(), "{version:?} is not locked as the policy says");
    }

    desk.bkp(&["verify", "mall", "--level", "data", "--copy", "usb"]).expect(0);
    restic_check_at(&desk, &format!("{}/{}", moto.endpoint(), Moto::BUCKET));
}

#[test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
fn what_no_store_holds_whole_is_not_given_up_while_it_is_locked() {
    let moto = Moto::start();
    let desk = copied_under_locks(&moto);
    let rotten = block_on(rot(&moto, &["data/"])).remove(0);
    flip(&desk.path("repository").join(&rotten));
    let before = block_on(moto.versions());
    let salvaged = desk.bkp(&[&HEAL[..], &["--salvage"]].concat()).expect(13);
    let told = format!("not healed: {rotten}: not given up: delete ");
    assert!(salvaged.out.contains(&told), "{salvaged:?}");
    assert!(salvaged.out.contains("protected by the store's lock until "), "{salvaged:?}");
    let is_no_lock = |version: &Version| !version.key.starts_with("locks/");
    let after = block_on(moto.versions());
    assert!(after.iter().filter(|it| is_no_lock(it)).eq(before.iter().filter(|it| is_no_lock(it))), "{after:?}");
}

#[tokio::test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
async fn an_index_file_that_is_worth_nothing_stays_until_its_lock_ends() {
    let moto = Moto::start();
    let ((run, clock), dir) = (standing(), tempfile::tempdir().unwrap());
    let place = S3Place { prefix: String::new(), ..place(&moto, RetainMode::Governance) };
    let (from, to) = (two_snapshots().await, store(&place, &run).await);
    copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    let index = Key::new(FileKind::Index, "00".repeat(32));
    lay_over(&moto, &index.path(), b"rot".to_vec()).await;
    let ward = Ward {
        name: "usb".to_owned(),
        repository: opened(&to, &run).await,
        donors: vec![Donor { name: "repository".to_owned(), store: Arc::clone(from.store()) }],
        away: Vec::new(),
        salvages: false,
        lock_wait: Duration::ZERO,
    };
    let options = Options { level: Level::Data, subset: None };
    let protected = heal(&ward, options, &run).await.unwrap();
    assert!(protected.left.len() == 1 && protected.left[0].why.contains("protected by the store's lock until"));
    assert_eq!(Done::Heal(Box::new(protected)).exit(), Exit::Protected);
    assert!(moto.versions().await.iter().all(|it| !it.is_delete_marker || it.key.starts_with("locks/")));
    clock.advance(TimeDelta::days(3));
    let healed = heal(&ward, options, &run).await.unwrap();
    assert_eq!(healed.mended.iter().map(|mended| &mended.how).collect::<Vec<_>>(), [&How::Removed]);
    assert_eq!(Done::Heal(Box::new(healed)).exit(), Exit::Ok);
}

#[test]
#[ignore = "needs restic; scripts/test runs it"]
fn a_server_that_refuses_every_delete_is_healed_and_what_is_worth_nothing_there_is_told_with_18() {
    let refused = Arc::<Mutex<Vec<String>>>::default();
    let log = refused.clone();
    let (is_locked, desk) = (Arc::new(AtomicBool::new(true)), Desk::ready());
    let locks = is_locked.clone();
    let s3 = S3::start_with_faults(move |asked| {
        let path = asked.uri().path();
        let is_refused = asked.method() == "DELETE" && !path.contains("/locks/") && locks.load(Ordering::SeqCst);
        is_refused.then(|| {
            log.lock().unwrap().push(path.to_owned());
            Fault::Locked
        })
    });
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, "prefix = \"mall\"\n");
    desk.bkp(&["backup", "mall"]).expect(0);
    let copy = s3.objects().join("mall");
    let objects = || -> BTreeMap<PathBuf, Vec<u8>> {
        let all = files(&copy).into_iter().filter(|(path, _)| !path.starts_with("locks"));
        all.map(|(path, (bytes, ..))| (path, bytes)).collect()
    };
    let whole = objects();
    for kind in ["data", "index", "snapshots"] {
        let rots = objects().into_keys().find(|path| path.starts_with(kind)).unwrap();
        flip(&copy.join(rots));
    }
    assert_ne!(objects(), whole);
    let healed = desk.bkp(&HEAL).expect(0);
    assert!(healed.out.contains("usb        healed 3 objects"), "{healed:?}");
    assert_eq!(objects(), whole);
    assert!(refused.lock().unwrap().is_empty(), "a delete was tried");
    desk.bkp(&["verify", "mall", "--level", "data", "--copy", "usb"]).expect(0);
    let place = format!("{}/{}/mall", s3.endpoint(), S3::BUCKET);
    restic_check_at(&desk, &place);

    let worthless = format!("index/{}", "00".repeat(32));
    std::fs::write(copy.join(&worthless), b"rot").unwrap();
    let protected = desk.bkp(&HEAL).expect(18);
    let told = format!("not healed: {worthless}: delete `s3://bkp/mall/{worthless}`: protected by the store's lock");
    assert!(protected.out.contains(&told), "{protected:?}");
    assert_eq!(*refused.lock().unwrap(), [format!("/bkp/mall/{worthless}")], "it is tried once");
    is_locked.store(false, Ordering::SeqCst);
    let healed = desk.bkp(&HEAL).expect(0);
    assert!(healed.out.contains(&format!("{worthless} removed")), "{healed:?}");
    restic_check_at(&desk, &place);
}
