//! What a store locks stays: seen, lengthened, and never hidden behind a delete.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode, StorageClass};
use bkp::clock::{Clock as _, FixedClock};
use bkp::copy::{Copied, Ledger, Listing, ObjectError, Terms, copy_under};
use bkp::event::Events;
use bkp::forget::Alone;
use bkp::policy::{Access, Encryption, Network, ObjectLock, RetainMode, S3Place};
use bkp::prune;
use bkp::prune::plan::Limits;
use bkp::repository::{Repository, RepositoryError};
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::memory::MemoryStore;
use bkp::store::s3::{Line, S3Store};
use bkp::store::{FileKind, Key, SharedStore, StoreError};
use bkp::verify::{Level, Options, verify};
use chrono::{DateTime, TimeDelta, Utc};

use crate::cli::desk::Desk;
use crate::copy::{memory, password, repository, save};
use crate::s3;
use crate::servers::{self, Moto, S3};

mod heal;

const DAY: Duration = Duration::from_hours(24);
const MONTH: Duration = Duration::from_hours(24 * 30);
const KINDS: [FileKind; 5] = [FileKind::Config, FileKind::Key, FileKind::Pack, FileKind::Index, FileKind::Snapshot];

/// A run whose clock moves only when told to. It begins now: the server has a clock of its own.
fn standing() -> (Run, Arc<FixedClock>) {
    let clock = Arc::new(FixedClock::at(DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap()));
    (Run::new(clock.clone(), Events::silent()), clock)
}

fn place(moto: &Moto, mode: RetainMode) -> S3Place {
    let s3 = S3::start();
    S3Place {
        bucket: Moto::BUCKET.to_owned(),
        endpoint: Some(moto.endpoint()),
        object_lock: Some(ObjectLock { mode, retain: MONTH }),
        ..s3::place(&s3)
    }
}

async fn store(place: &S3Place, run: &Run) -> SharedStore {
    let opened = S3Store::open(place, Some(s3::credentials()), &Network::default(), Line::default(), run).await;
    Arc::new(opened.unwrap())
}

fn ledger(dir: &Path, from: &Repository) -> Ledger {
    Ledger::open(&dir.join("there.sent"), from.id(), "there").unwrap()
}

/// Copies as the policy's steps do for a copy that locks.
async fn copied(from: &Repository, to: &SharedStore, ledger: &Ledger, run: &Run) -> Copied {
    let terms = Terms { retain: Some(MONTH), ledger: Some(ledger), ..Terms::plain(4) };
    copy_under(&terms, from, to, run).await.unwrap()
}

/// Returns the end of each object's lock.
async fn ends(store: &SharedStore) -> BTreeMap<Key, Option<DateTime<Utc>>> {
    let mut ends = BTreeMap::new();
    for kind in KINDS {
        for listed in store.list(kind).await.unwrap() {
            let key = Key::new(kind, listed.name);
            let end = store.immutable_until(&key).await.unwrap();
            ends.insert(key, end);
        }
    }
    ends
}

async fn two_snapshots() -> Arc<Repository> {
    let from = repository(memory()).await;
    for seed in 1..=2 {
        save(&from, seed, &[]).await;
    }
    from
}

#[tokio::test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
async fn every_object_but_a_lock_file_arrives_with_mode_date_encryption_and_class() {
    let moto = Moto::start();
    for (mode, named) in
        [(RetainMode::Governance, ObjectLockMode::Governance), (RetainMode::Compliance, ObjectLockMode::Compliance)]
    {
        let (run, clock) = standing();
        let place = S3Place {
            prefix: format!("{mode:?}"),
            encryption: Some(Encryption::Aes256),
            storage_class: Some("STANDARD_IA".to_owned()),
            ..place(&moto, mode)
        };
        let (from, to, dir) = (two_snapshots().await, store(&place, &run).await, tempfile::tempdir().unwrap());
        let done = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
        assert!(done.is_complete(), "{done:?}");
        let lock = Key::new(FileKind::Lock, bkp::id::ObjectId::of(b"lock").to_string());
        to.put(&lock, bytes::Bytes::from_static(b"lock")).await.unwrap();

        let client = moto.client();
        let versions: Vec<_> =
            moto.versions().await.into_iter().filter(|it| it.key.starts_with(&place.prefix)).collect();
        assert_eq!(versions.len(), 11, "config, key, 4 packs, 2 indexes, 2 snapshots, 1 lock: {versions:?}");
        for version in versions {
            let head = client.head_object().bucket(Moto::BUCKET).key(&version.key).version_id(&version.id).send().await;
            let head = head.unwrap();
            assert_eq!(head.server_side_encryption(), Some(&aws_sdk_s3::types::ServerSideEncryption::Aes256));
            let is_pack = version.key.contains("/data/");
            assert_eq!(head.storage_class() == Some(&StorageClass::StandardIa), is_pack, "{}", version.key);
            let until = head.object_lock_retain_until_date().map(aws_sdk_s3::primitives::DateTime::secs);
            let delete = client.delete_object().bucket(Moto::BUCKET).key(&version.key).version_id(&version.id).send();
            if version.key.contains("/locks/") {
                assert_eq!((head.object_lock_mode(), until), (None, None));
                delete.await.unwrap();
            } else {
                assert_eq!(head.object_lock_mode(), Some(&named), "{}", version.key);
                assert_eq!(until, Some((clock.now() + MONTH).timestamp()), "{}", version.key);
                assert!(delete.await.is_err(), "{} was deleted", version.key);
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
async fn a_lock_is_lengthened_while_the_repository_holds_the_object_and_never_shortened() {
    let moto = Moto::start();
    let (run, clock) = standing();
    let (from, to) = (two_snapshots().await, store(&place(&moto, RetainMode::Governance), &run).await);
    let dir = tempfile::tempdir().unwrap();
    copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    let (pack, year) = (to.list(FileKind::Pack).await.unwrap().remove(0), clock.now() + DAY * 365);
    let pack = Key::new(FileKind::Pack, pack.name);
    let by_hand = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .retain_until_date(aws_sdk_s3::primitives::DateTime::from_secs(year.timestamp()))
        .build();
    let name = format!("dr/mall/{}", pack.path());
    moto.client().put_object_retention().bucket(Moto::BUCKET).key(name).retention(by_hand).send().await.unwrap();
    let first = clock.now() + MONTH;

    clock.advance(TimeDelta::days(2));
    let soon = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert_eq!((soon.prolonged, soon.skipped), (0, 10), "a tenth of the span is not over");

    clock.advance(TimeDelta::days(8));
    let later = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert!(later.is_complete() && later.prolonged == 10, "{later:?}");
    let second = clock.now() + MONTH;
    assert!(second > first);
    for (key, end) in ends(&to).await {
        assert_eq!(end, Some(if key == pack { year } else { second }), "{key}");
    }

    // Without the record each object is asked, and none is lengthened that need not be.
    std::fs::remove_file(dir.path().join("there.sent")).unwrap();
    clock.advance(TimeDelta::days(1));
    let asked = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert_eq!(asked.prolonged, 10);
    assert_eq!(ends(&to).await.values().flatten().filter(|end| **end == second).count(), 9);
    let known = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert_eq!(known.prolonged, 0);
}

async fn opened(store: &SharedStore, run: &Run) -> Arc<Repository> {
    let repository = Repository::open(Arc::clone(store), &password(), run).await.unwrap();
    repository.load_index(run).await.unwrap();
    repository
}

#[tokio::test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
async fn what_is_locked_is_not_hidden_by_a_forget_or_a_prune_and_goes_once_its_time_is_over() {
    let moto = Moto::start();
    let (run, clock) = standing();
    let (from, to) = (two_snapshots().await, store(&place(&moto, RetainMode::Compliance), &run).await);
    let dir = tempfile::tempdir().unwrap();
    copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    let there = opened(&to, &run).await;
    let old = there.snapshots().await.unwrap().remove(0);
    let limits = Limits { unused_percent_max: 0, merges_index: false, ..Limits::default() };
    let before = ends(&to).await;

    let refused = there.remove_snapshot(&old.id).await.unwrap_err();
    let RepositoryError::Store(StoreError::Protected { until, .. }) = refused else { panic!("{refused}") };
    assert_eq!(until, Some(clock.now() + MONTH));
    // As if it had been forgotten with a key that may delete: what only it needs is to go.
    let versions = moto.versions().await;
    let hidden = versions.iter().find(|it| it.key.ends_with(&old.id.to_string())).unwrap();
    moto.client().delete_object().bucket(Moto::BUCKET).key(&hidden.key).send().await.unwrap();
    let plan = prune::plan(&there, &limits, &run).await.unwrap();
    assert!(plan.is_empty() && plan.objects_to_delete().is_empty(), "{plan:?}");
    assert_eq!(plan.protected.len(), 2, "a pack of data and one of trees");
    assert!(plan.protected.iter().all(|it| it.until == clock.now() + MONTH && it.pack.size > 0));
    let lock = Alone::take(&there, &run).await.unwrap();
    let pruned = prune::apply(&plan, &there, &lock, &run).await.unwrap();
    lock.into_guard().release().await.unwrap();
    assert_eq!((pruned.packs_deleted, pruned.packs_written, pruned.failed.len()), (0, 0, 0));
    let mut after = ends(&to).await;
    after.insert(Key::new(FileKind::Snapshot, old.id.to_string()), Some(clock.now() + MONTH));
    assert_eq!(after, before, "all is listed as before, but for what the test itself has hidden");

    clock.advance(TimeDelta::days(31));
    let plan = prune::plan(&there, &limits, &run).await.unwrap();
    assert_eq!((plan.protected.len(), plan.unused.len(), plan.objects_to_delete().len()), (0, 2, 3));
    let lock = Alone::take(&there, &run).await.unwrap();
    let pruned = prune::apply(&plan, &there, &lock, &run).await.unwrap();
    lock.into_guard().release().await.unwrap();
    assert_eq!((pruned.packs_deleted, pruned.failed.len()), (2, 0));
    let options = Options { level: Level::Data, subset: None };
    let report = verify(&opened(&to, &run).await, options, &run).await.unwrap();
    assert!(report.is_sound() && report.checked.snapshots == 1, "{report:#?}");
}

#[tokio::test]
async fn an_index_file_that_may_not_go_pins_the_packs_that_it_names() {
    let store: SharedStore = memory();
    let here = repository(Arc::clone(&store)).await;
    save(&here, 1, &[]).await;
    let old = here.snapshots().await.unwrap().remove(0);
    let index = Key::new(FileKind::Index, store.list(FileKind::Index).await.unwrap().remove(0).name);
    save(&here, 2, &[]).await;
    here.remove_snapshot(&old.id).await.unwrap();
    let until = Utc::now() + DAY;
    store.keep_immutable(&index, until, until).await.unwrap();

    let run = Run::silent();
    let limits = Limits { unused_percent_max: 0, merges_index: false, ..Limits::default() };
    let pinned = prune::plan(&opened(&store, &run).await, &limits, &run).await.unwrap();
    assert!(pinned.is_empty() && pinned.protected.len() == 2, "{pinned:?}");
    assert!(pinned.protected.iter().all(|it| it.until == until));
    let (later, clock) = standing();
    clock.advance(TimeDelta::days(2));
    let free = prune::plan(&opened(&store, &run).await, &limits, &later).await.unwrap();
    assert_eq!((free.unused.len(), free.protected.len()), (2, 0));
    assert!(free.objects_to_delete().contains(&index));
}

#[tokio::test]
async fn one_that_cannot_be_lengthened_is_told_and_the_next_copy_tries_again() {
    let from = two_snapshots().await;
    let (run, clock) = standing();
    let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::immutable(MONTH))));
    let (to, dir): (SharedStore, _) = (faulty.clone(), tempfile::tempdir().unwrap());
    let first = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert_eq!((first.is_complete(), first.prolonged), (true, 0));
    assert_eq!(faulty.count(Operation::ImmutableUntil), 1, "only the first object is looked at");

    clock.advance(TimeDelta::days(10));
    faulty.add(Rule::nth(Operation::KeepImmutable, 3, Fault::Denied));
    let denied = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert_eq!((denied.failed.len(), denied.prolonged), (1, 9), "one that is refused does not keep the others waiting");
    let again = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert!(again.is_complete(), "{again:?}");
    assert!(ends(&to).await.values().all(|end| end.unwrap() >= clock.now() + MONTH), "{:?}", ends(&to).await);
}

#[tokio::test]
async fn those_whose_locks_cannot_be_changed_do_not_starve_the_others_and_a_store_that_refuses_all_is_left_alone() {
    let from = repository(memory()).await;
    for seed in 0..30 {
        save(&from, seed, &[]).await;
    }
    let all = 2 + 30 * 4;
    for (fault, asked_max) in [(Fault::Denied, 64 + 16), (Fault::Transient, 8 + 16)] {
        let (run, clock) = standing();
        let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::immutable(MONTH))));
        let (to, dir): (SharedStore, _) = (faulty.clone(), tempfile::tempdir().unwrap());
        copied(&from, &to, &ledger(dir.path(), &from), &run).await;
        clock.advance(TimeDelta::days(10));
        faulty.add(Rule::every(Operation::KeepImmutable, fault.clone()));
        let refused = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
        assert_eq!(refused.prolonged, 0);
        let asked = faulty.count(Operation::KeepImmutable);
        assert!(asked <= asked_max && asked_max < all, "{fault:?}: {asked}");
    }

    let (run, clock) = standing();
    let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::immutable(MONTH))));
    let (to, dir): (SharedStore, _) = (faulty.clone(), tempfile::tempdir().unwrap());
    copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    for listed in from.store().list(FileKind::Pack).await.unwrap().iter().take(20) {
        faulty.add(Rule::every(Operation::KeepImmutable, Fault::Denied).on(&Key::new(FileKind::Pack, &listed.name)));
    }
    clock.advance(TimeDelta::days(10));
    let some = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert_eq!((some.failed.len(), some.prolonged), (20, all as u64 - 20));
}

#[tokio::test]
async fn a_lock_for_ever_may_be_lifted_and_is_looked_at_again_in_time() {
    let (from, to) = (two_snapshots().await, Arc::new(MemoryStore::immutable(MONTH)) as SharedStore);
    let ((run, clock), dir) = (standing(), tempfile::tempdir().unwrap());
    copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    let snapshot = Key::new(FileKind::Snapshot, to.list(FileKind::Snapshot).await.unwrap().remove(0).name);
    to.keep_immutable(&snapshot, DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC).await.unwrap();
    clock.advance(TimeDelta::days(10));
    assert_eq!(copied(&from, &to, &ledger(dir.path(), &from), &run).await.prolonged, 10);
    assert_eq!(ledger(dir.path(), &from).until(&snapshot), Some(clock.now() + MONTH));
}

#[tokio::test]
async fn a_pack_that_is_lost_here_is_lengthened_there() {
    let (from, to) = (two_snapshots().await, Arc::new(MemoryStore::immutable(MONTH)) as SharedStore);
    let ((run, clock), dir) = (standing(), tempfile::tempdir().unwrap());
    // This store locks by the real clock.
    clock.advance(TimeDelta::days(-10));
    copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    let lost = Key::new(FileKind::Pack, from.store().list(FileKind::Pack).await.unwrap().remove(0).name);
    from.store().delete(&lost).await.unwrap();
    save(&from, 3, &[]).await;
    clock.advance(TimeDelta::days(10));
    let done = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert_eq!((done.snapshots.len(), done.prolonged), (1, 10), "{done:?}");
    assert_eq!(ledger(dir.path(), &from).until(&lost), Some(clock.now() + MONTH));
}

/// Copies as the policy's steps do for a copy that locks and that nobody may look at.
async fn copied_blindly(from: &Repository, to: &SharedStore, ledger: &Ledger, run: &Run) -> Copied {
    let terms = Terms { retain: Some(MONTH), ledger: Some(ledger), is_blind: true, ..Terms::plain(4) };
    copy_under(&terms, from, to, run).await.unwrap()
}

#[tokio::test]
async fn what_is_found_missing_when_its_lock_is_lengthened_is_told_and_sent_again_by_the_next_copy() {
    let (from, to) = (two_snapshots().await, memory());
    let ((run, clock), dir) = (standing(), tempfile::tempdir().unwrap());
    assert!(copied_blindly(&from, &to, &ledger(dir.path(), &from), &run).await.is_complete());
    let lost = Key::new(FileKind::Pack, to.list(FileKind::Pack).await.unwrap().remove(0).name);
    to.delete(&lost).await.unwrap();
    clock.advance(TimeDelta::days(10));
    let found = copied_blindly(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert!(matches!(&found.failed[..], [(key, ObjectError::Vanished)] if *key == lost), "{found:?}");
    let again = copied_blindly(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert!(again.is_complete() && again.packs == 1, "{again:?}");
    assert!(to.size(&lost).await.unwrap().is_some());
}

#[tokio::test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
async fn a_copy_that_is_only_written_locks_lengthens_and_sends_what_is_gone() {
    let moto = Moto::start();
    let (run, clock) = standing();
    let place = place(&moto, RetainMode::Governance);
    let reader = store(&place, &run).await;
    let writer = store(&S3Place { access: Access::WriteOnly, ..place }, &run).await;
    let faulty = Arc::new(Faulty::new(writer));
    let (from, to, dir): (_, SharedStore, _) = (two_snapshots().await, faulty.clone(), tempfile::tempdir().unwrap());
    assert!(copied_blindly(&from, &to, &ledger(dir.path(), &from), &run).await.is_complete());
    assert!(ends(&reader).await.values().all(|end| *end == Some(clock.now() + MONTH)));

    let packs = reader.list(FileKind::Pack).await.unwrap();
    let gone = Key::new(FileKind::Pack, &packs[0].name);
    let (client, name) = (moto.client(), format!("dr/mall/{}", gone.path()));
    client.delete_object().bucket(Moto::BUCKET).key(name).send().await.unwrap();
    clock.advance(TimeDelta::days(10));
    // moto answers 500 when asked to lengthen what is not there, so it is found by looking, as a verify does.
    let there = Listing::of(&reader).await.unwrap();
    assert_eq!(ledger(dir.path(), &from).strike_absent(&there).unwrap(), 1);
    let again = copied_blindly(&from, &to, &ledger(dir.path(), &from), &run).await;
    assert!(again.is_complete(), "{again:?}");
    assert_eq!((again.packs, again.prolonged), (1, 9));
    for (key, end) in ends(&reader).await {
        assert_eq!(end, Some(clock.now() + MONTH), "{key}");
    }
    for operation in [Operation::Get, Operation::List, Operation::Size, Operation::ImmutableUntil, Operation::Delete] {
        assert_eq!(faulty.count(operation), 0, "{operation:?}");
    }
}

/// Starts a server that answers so whenever a lock is to be changed, and opens it.
async fn answering(answer: servers::Fault, access: Access, run: &Run) -> (S3, SharedStore) {
    let s3 = S3::start_with_faults(move |asked| {
        let changes_lock =
            asked.method() == "PUT" && asked.uri().query().is_some_and(|query| query.contains("retention"));
        changes_lock.then_some(answer)
    });
    let object_lock = Some(ObjectLock { mode: RetainMode::Governance, retain: MONTH });
    let store = store(&S3Place { object_lock, access, ..s3::place(&s3) }, run).await;
    (s3, store)
}

#[tokio::test]
async fn a_server_that_refuses_to_shorten_a_lock_says_that_it_is_long_enough_to_who_cannot_look() {
    let (run, clock) = standing();
    let until = clock.now() + MONTH;
    for access in [Access::WriteOnly, Access::Full] {
        let (_s3, store) = answering(servers::Fault::Locked, access, &run).await;
        store.put(&Key::config(), bytes::Bytes::from_static(b"config")).await.unwrap();
        match (access, store.keep_immutable(&Key::config(), until, until).await) {
            (Access::WriteOnly, Ok(end)) => assert_eq!(end, until),
            (Access::Full, Err(StoreError::Protected { .. })) => {}
            (_, ended) => panic!("{access:?}: {ended:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_hidden_behind_a_delete_marker_is_missing_when_its_lock_is_to_be_lengthened() {
    let (run, clock) = standing();
    let (_s3, writer) = answering(servers::Fault::Status(405), Access::WriteOnly, &run).await;
    let refused = writer.keep_immutable(&Key::config(), clock.now(), clock.now() + MONTH).await.unwrap_err();
    assert!(matches!(refused, StoreError::Missing { .. }), "{refused:?}");

    // Right after the put it is not the object that the server does not find.
    let (from, dir) = (two_snapshots().await, tempfile::tempdir().unwrap());
    let done = copied_blindly(&from, &writer, &ledger(dir.path(), &from), &run).await;
    assert!(done.is_unlocked(), "{done:?}");
}

#[tokio::test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
async fn a_lock_that_runs_keeps_its_mode_where_the_policys_has_changed() {
    use RetainMode::{Compliance, Governance};

    let moto = Moto::start();
    for (was, is, named) in
        [(Compliance, Governance, ObjectLockMode::Compliance), (Governance, Compliance, ObjectLockMode::Governance)]
    {
        let (run, clock) = standing();
        let (from, dir) = (two_snapshots().await, tempfile::tempdir().unwrap());
        let place = |mode| S3Place { prefix: format!("{was:?}"), ..place(&moto, mode) };
        copied(&from, &store(&place(was), &run).await, &ledger(dir.path(), &from), &run).await;
        clock.advance(TimeDelta::days(10));
        let to = store(&place(is), &run).await;
        let done = copied(&from, &to, &ledger(dir.path(), &from), &run).await;
        assert!(done.is_complete() && done.prolonged == 10, "{done:?}");
        assert!(ends(&to).await.values().all(|end| *end == Some(clock.now() + MONTH)));
        for key in ends(&to).await.into_keys() {
            let name = format!("{was:?}/{}", key.path());
            let head = moto.client().head_object().bucket(Moto::BUCKET).key(name).send().await.unwrap();
            assert_eq!(head.object_lock_mode(), Some(&named), "{key}");
        }
    }
}

#[tokio::test]
async fn a_server_that_takes_the_wish_and_locks_nothing_gets_one_object_and_no_more() {
    let from = two_snapshots().await;
    let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::immutable(MONTH))));
    faulty.add(Rule::every(Operation::ImmutableUntil, Fault::Swallowed));
    let (to, dir): (SharedStore, _) = (faulty.clone(), tempfile::tempdir().unwrap());
    let done = copied(&from, &to, &ledger(dir.path(), &from), &Run::silent()).await;
    assert!(done.is_unlocked() && !done.is_complete(), "{done:?}");
    assert_eq!(faulty.count(Operation::Put), 1);
    assert_eq!(done.snapshots.len(), 0);
}

/// Makes the copy `usb` of a desk a bucket.
pub(crate) fn copy_to(desk: &Desk, endpoint: &str, bucket: &str, more: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    desk.write("s3.key", S3::SECRET_KEY.as_bytes());
    std::fs::set_permissions(desk.path("s3.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let usb = format!("path = \"{}\"", desk.text("usb"));
    let s3 = format!(
        "[copy.s3]\nbucket = \"{bucket}\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\naccess_key_id = \"{}\"\n\
         secret_access_key_file = \"{}\"\n{more}",
        S3::ACCESS_KEY,
        desk.text("s3.key")
    );
    desk.change_policy(&usb, &s3);
}

const LOCK: &str = "object_lock = { mode = \"governance\", retain = \"30d\" }\n";

#[test]
fn the_program_says_that_a_server_ignores_locks_and_ends_with_1() {
    let (s3, desk) = (S3::start(), Desk::ready());
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, LOCK);
    desk.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    let ended = desk.bkp(&["copy", "mall"]).expect(1);
    assert!(ended.err.contains("the server has not locked it"), "{ended:?}");
    assert_eq!(std::fs::read_dir(s3.objects()).unwrap().flatten().filter(|it| it.file_name() != "keys").count(), 0);
    let doctor = desk.bkp(&["doctor", "mall"]).expect(1);
    assert!(doctor.out.contains("BAD     copy usb: tells the end of a lock: the object has no lock"), "{doctor:?}");
}

#[test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
fn the_program_tells_what_is_protected_and_until_when_and_ends_with_18() {
    let (moto, desk) = (Moto::start(), Desk::ready());
    copy_to(&desk, &moto.endpoint(), Moto::BUCKET, LOCK);
    desk.bkp(&["backup", "mall"]).expect(0);
    desk.write("images/shop0001/9.jpg", &crate::world::noise(9, 30_000));
    desk.change_policy("last = 9", "last = 1");
    desk.bkp(&["backup", "mall"]).expect(0);
    assert_eq!(desk.snapshots().len(), 1);

    let forgotten = desk.bkp(&["forget", "mall", "--copy", "usb"]).expect(18);
    assert!(forgotten.out.contains("the store keeps it until"), "{forgotten:?}");
    assert!(!forgotten.err.contains("error"), "{forgotten:?}");
    // A pack that a killed run has left, locked as any other.
    let orphan = bkp::id::ObjectId::of(b"orphan");
    crate::servers::block_on(async {
        let until = aws_sdk_s3::primitives::DateTime::from_secs(Utc::now().timestamp() + 86_400);
        let key = Key::new(FileKind::Pack, orphan.to_string()).path();
        let put = moto.client().put_object().bucket(Moto::BUCKET).key(key).body(b"orphan".to_vec().into());
        let put = put.checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Sha256);
        let put = put.object_lock_mode(ObjectLockMode::Governance).object_lock_retain_until_date(until);
        put.send().await.unwrap();
    });
    let pruned = desk.bkp(&["prune", "mall", "--copy", "usb"]).expect(18);
    assert!(pruned.out.contains("protected  1 pack, 6 B"), "{pruned:?}");
    assert!(pruned.out.contains(&format!("{orphan} until ")), "{pruned:?}");
    let json = desk.bkp(&["prune", "mall", "--copy", "usb", "--json"]).expect(18).json();
    let protected = &json["steps"][0]["result"]["plan"]["protected"];
    assert_eq!(protected[0]["pack"], orphan.to_string(), "{json}");
    let snapshots = desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
    assert!(snapshots.out.contains("2 snapshots"), "{snapshots:?}");
    let hidden = crate::servers::block_on(moto.versions());
    assert!(hidden.iter().all(|it| !it.is_delete_marker || it.key.starts_with("locks/")), "{hidden:?}");
}

#[test]
#[ignore = "needs moto of scripts/lab; scripts/test runs it"]
fn a_doctor_tries_the_lock_out_and_says_what_is_left() {
    let (moto, desk) = (Moto::start(), Desk::ready());
    copy_to(&desk, &moto.endpoint(), Moto::BUCKET, LOCK);
    desk.bkp(&["backup", "mall"]).expect(0);
    let doctor = desk.bkp(&["doctor", "mall"]).expect(0);
    for line in [
        "ok      copy usb: locks no lock files: the bucket has no default retention",
        "ok      copy usb: tells the end of a lock: ",
        "ok      copy usb: refuses to delete what is locked: left in s3://locked-dr/bkp-probe: an object of 57 bytes, locked until ",
        "warning copy usb: outlives what takes the original: its server is on this machine",
        "warning all copies: outlives what takes the original: there is only one",
    ] {
        assert!(doctor.out.contains(line), "{line}\n{}", doctor.out);
    }
    let probes = || {
        let versions = crate::servers::block_on(moto.versions());
        versions.into_iter().filter(|it| it.key.starts_with("bkp-probe/")).collect::<Vec<_>>()
    };
    assert_eq!(probes().len(), 1);

    crate::servers::block_on(async {
        let client = moto.client();
        client.create_bucket().bucket("default-dr").object_lock_enabled_for_bucket(true).send().await.unwrap();
        let days =
            aws_sdk_s3::types::DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance).days(1).build();
        let rule = aws_sdk_s3::types::ObjectLockRule::builder().default_retention(days).build();
        let settings = aws_sdk_s3::types::ObjectLockConfiguration::builder()
            .object_lock_enabled(aws_sdk_s3::types::ObjectLockEnabled::Enabled)
            .rule(rule)
            .build();
        let put = client.put_object_lock_configuration().bucket("default-dr").object_lock_configuration(settings);
        put.send().await.unwrap();
    });
    desk.change_policy("bucket = \"locked-dr\"", "bucket = \"default-dr\"");
    let doctor = desk.bkp(&["doctor", "mall"]).expect(0);
    assert!(
        doctor.out.contains("warning copy usb: locks no lock files: the bucket's default retention locks"),
        "{doctor:?}"
    );
}
