//! Each way to rot: verify names it and what it costs, and everything else still reads.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bkp::backup::{self, Outcome};
use bkp::clock::SystemClock;
use bkp::event::{Event, Events, Listener};
use bkp::exit::Exit;
use bkp::id::ObjectId;
use bkp::policy::Policy;
use bkp::repository::{BlobKind, Repository, RepositoryError, StoredSnapshot};
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::{Level, Object, Options, Report, Subset, verify};

use crate::repository::{local, made, memory, noise, opened, read_all, save, secret, shop_files};

mod matrix;

pub(crate) const STRUCTURE: Options = Options { level: Level::Structure, subset: None };
pub(crate) const DATA: Options = Options { level: Level::Data, subset: None };

/// A repository with two snapshots that share most.
async fn shop() -> (SharedStore, [StoredSnapshot; 2]) {
    let store = memory();
    let repository = made(&store).await;
    let first = save(&repository, &shop_files()).await;
    let mut files = shop_files();
    files.push(("/images/1/new.jpg", noise(99, 40_000)));
    let second = save(&repository, &files).await;
    (store, [first, second])
}

pub(crate) async fn verified(store: &SharedStore, options: Options) -> Report {
    let repository = Repository::open(Arc::clone(store), &secret(), &Run::silent()).await.unwrap();
    verify(&repository, options, &Run::silent()).await.unwrap()
}

pub(crate) async fn names(store: &SharedStore, kind: FileKind) -> Vec<Key> {
    let listed = store.list(kind).await.unwrap();
    listed.into_iter().map(|listed| Key::new(kind, listed.name)).collect()
}

/// Flips one bit in the middle.
pub(crate) async fn flip(store: &SharedStore, key: &Key) {
    let mut bytes = store.get(key).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    store.put(key, bytes.into()).await.unwrap();
}

pub(crate) fn objects(report: &Report) -> BTreeSet<Object> {
    let findings = report.damaged.iter().chain(&report.missing);
    findings.map(|finding| finding.object.clone()).collect()
}

pub(crate) fn only(key: &Key) -> BTreeSet<Object> {
    BTreeSet::from([Object::Stored(key.clone())])
}

pub(crate) fn lost(report: &Report, snapshot: &StoredSnapshot) -> BTreeSet<PathBuf> {
    let costs = report.costs().into_iter().filter(|cost| cost.snapshot == snapshot.id);
    costs.map(|cost| cost.path.clone()).collect()
}

/// The pack that holds a file's first blob.
pub(crate) async fn pack_of(store: &SharedStore, bytes: &[u8]) -> Key {
    let id = bkp::id::BlobId::of(bytes);
    let pack = opened(store).await.pack_of(BlobKind::Data, &id).unwrap();
    Key::new(FileKind::Pack, pack.to_string())
}

pub(crate) async fn tree_pack(store: &SharedStore, snapshot: &StoredSnapshot) -> Key {
    let pack = opened(store).await.pack_of(BlobKind::Tree, &snapshot.snapshot.tree).unwrap();
    Key::new(FileKind::Pack, pack.to_string())
}

#[tokio::test]
async fn a_sound_repository_is_found_sound() {
    let (store, _) = shop().await;
    for options in [STRUCTURE, DATA] {
        let report = verified(&store, options).await;
        assert!(report.is_sound(), "{report:#?}");
        assert!(report.orphans.is_empty());
        assert_eq!(report.checked.snapshots, 2);
        // Root, images, images/1, images/2, mysql, mysql/db1; three of them again in the second snapshot.
        assert_eq!(report.checked.trees, 9);
        let reads = if options == DATA { report.checked.packs } else { 0 };
        assert_eq!(report.checked.packs_read, reads);
    }
}

#[tokio::test]
async fn one_bit_in_each_kind_of_file_is_named() {
    for kind in [FileKind::Config, FileKind::Key, FileKind::Lock, FileKind::Index, FileKind::Snapshot, FileKind::Pack] {
        let (store, _) = shop().await;
        let repository = opened(&store).await;
        let lock = repository
            .lock(bkp::repository::LockMode::Shared, std::time::Duration::ZERO, &Run::silent())
            .await
            .unwrap();
        let key = match kind {
            FileKind::Config => Key::config(),
            _ => names(&store, kind).await.remove(0),
        };
        flip(&store, &key).await;
        let report = verify(&repository, DATA, &Run::silent()).await.unwrap();
        assert_eq!(objects(&report), only(&key), "{report:#?}");
        assert_eq!(report.damaged.len(), 1, "{report:#?}");
        lock.release().await.unwrap();
    }
}

#[tokio::test]
async fn one_bit_in_a_pack_costs_the_files_of_one_blob_and_nothing_else() {
    let (store, snapshots) = shop().await;
    let key = pack_of(&store, &noise(1, 30_000)).await;
    // The first blob of the pack is the first file's.
    let mut bytes = store.get(&key).await.unwrap().to_vec();
    bytes[100] ^= 1;
    store.put(&key, bytes.into()).await.unwrap();
    let repository = opened(&store).await;
    let first = repository.packs().into_iter().find(|pack| pack.id.to_string() == key.name).unwrap().blobs[0];

    assert!(verified(&store, STRUCTURE).await.is_sound(), "sizes and names are right");
    let report = verified(&store, DATA).await;
    assert_eq!(objects(&report), only(&key));
    for snapshot in &snapshots {
        let read = read_all(&repository, snapshot.snapshot.tree).await;
        let unread: BTreeSet<_> =
            read.iter().filter(|(_, bytes)| bytes.is_err()).map(|(path, _)| path.clone()).collect();
        assert_eq!(lost(&report, snapshot), unread);
        assert!(!unread.is_empty() && unread.len() <= 2, "{unread:?}");
        assert!(read.len() >= 7);
    }
    assert!(matches!(repository.blob(BlobKind::Data, &first.id).await, Err(RepositoryError::Damaged { .. })));
}

#[tokio::test]
async fn a_pack_that_is_gone_costs_all_that_only_it_held() {
    let (store, snapshots) = shop().await;
    let key = pack_of(&store, &noise(99, 40_000)).await;
    store.delete(&key).await.unwrap();
    for options in [STRUCTURE, DATA] {
        let report = verified(&store, options).await;
        assert_eq!(report.missing[0].object, Object::Stored(key.clone()));
        assert_eq!(objects(&report), only(&key));
        assert!(lost(&report, &snapshots[0]).is_empty());
        assert_eq!(lost(&report, &snapshots[1]), BTreeSet::from(["/images/1/new.jpg".into()]));
    }
}

#[tokio::test]
async fn a_pack_that_is_gone_is_not_asked_for_each_of_its_blobs() {
    let (inner, _) = shop().await;
    let pack = pack_of(&inner, &noise(99, 40_000)).await;
    inner.delete(&pack).await.unwrap();
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    let report = verified(&store, STRUCTURE).await;
    assert_eq!(objects(&report), only(&pack));
    assert!(!report.costs().is_empty());
    let asked = faulty.take_log();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.name != pack.name), "{asked:?}");
}

#[tokio::test]
async fn trees_that_are_gone_cost_whole_directories() {
    let (store, snapshots) = shop().await;
    let key = tree_pack(&store, &snapshots[1]).await;
    store.delete(&key).await.unwrap();
    let report = verified(&store, STRUCTURE).await;
    assert_eq!(objects(&report), only(&key));
    assert!(lost(&report, &snapshots[0]).is_empty());
    assert_eq!(lost(&report, &snapshots[1]), BTreeSet::from(["/".into()]));
}

#[tokio::test]
async fn a_cut_pack_is_named_by_its_size_and_by_its_bytes() {
    let (store, snapshots) = shop().await;
    let key = pack_of(&store, &noise(99, 40_000)).await;
    let bytes = store.get(&key).await.unwrap();
    store.put(&key, bytes.slice(..bytes.len() / 2)).await.unwrap();
    for options in [STRUCTURE, DATA] {
        let report = verified(&store, options).await;
        assert_eq!(report.damaged[0].object, Object::Stored(key.clone()));
        assert!(report.damaged[0].what.contains("where the index needs"), "{report:#?}");
        assert_eq!(lost(&report, &snapshots[1]), BTreeSet::from(["/images/1/new.jpg".into()]));
    }
}

#[tokio::test]
async fn two_packs_that_were_swapped_are_both_named() {
    let (store, snapshots) = shop().await;
    let (a, b) = (pack_of(&store, &noise(99, 40_000)).await, tree_pack(&store, &snapshots[0]).await);
    let (bytes_a, bytes_b) = (store.get(&a).await.unwrap(), store.get(&b).await.unwrap());
    store.put(&a, bytes_b).await.unwrap();
    store.put(&b, bytes_a).await.unwrap();
    let report = verified(&store, DATA).await;
    assert_eq!(objects(&report), BTreeSet::from([Object::Stored(a), Object::Stored(b)]));
}

#[tokio::test]
async fn a_damaged_index_hides_nothing_that_the_packs_say_themselves() {
    let (store, snapshots) = shop().await;
    for key in names(&store, FileKind::Index).await {
        flip(&store, &key).await;
    }
    let repository = opened(&store).await;
    assert_eq!(repository.index_faults().len(), 2);
    for snapshot in &snapshots {
        let read = read_all(&repository, snapshot.snapshot.tree).await;
        assert!(read.values().all(Result::is_ok));
    }
    let report = verified(&store, DATA).await;
    assert_eq!(report.damaged.len(), 2);
    assert!(report.costs().is_empty() && report.orphans.is_empty());
}

#[tokio::test]
async fn an_index_that_is_gone_leaves_orphans_and_unnamed_blobs() {
    let (store, snapshots) = shop().await;
    for key in names(&store, FileKind::Index).await {
        store.delete(&key).await.unwrap();
    }
    let report = verified(&store, STRUCTURE).await;
    assert!(!report.is_sound());
    assert!(report.missing.iter().all(|finding| matches!(finding.object, Object::Blob(BlobKind::Tree, _))));
    assert_eq!(lost(&report, &snapshots[0]), BTreeSet::from(["/".into()]));
    assert_eq!(report.orphans, {
        let mut packs = names(&store, FileKind::Pack).await;
        packs.sort();
        packs
    });
}

#[tokio::test]
async fn a_damaged_snapshot_hides_no_other() {
    let (store, snapshots) = shop().await;
    flip(&store, &Key::new(FileKind::Snapshot, snapshots[0].id.to_string())).await;
    let list = opened(&store).await.list_snapshots().await.unwrap();
    assert_eq!((list.found, list.damaged.len()), (vec![snapshots[1].clone()], 1));
}

#[tokio::test]
async fn an_orphan_is_told_and_does_no_harm() {
    let (store, _) = shop().await;
    let orphan = Key::new(FileKind::Pack, ObjectId::of(b"left by a kill").to_string());
    store.put(&orphan, bytes::Bytes::from_static(b"left by a kill")).await.unwrap();
    let report = verified(&store, DATA).await;
    assert!(report.is_sound());
    assert_eq!(report.orphans, [orphan]);
}

#[tokio::test]
async fn shares_read_each_pack_once() {
    let (store, _) = shop().await;
    let all = verified(&store, DATA).await.checked;
    let mut read = 0;
    for part in 1..=3 {
        let subset: Subset = format!("{part}/3").parse().unwrap();
        let report = verified(&store, Options { subset: Some(subset), ..DATA }).await;
        assert!(report.is_sound());
        read += report.checked.packs_read;
    }
    assert_eq!(read, all.packs);
}

#[tokio::test]
async fn one_bad_sector_is_named_and_everything_else_reads() {
    for kind in [FileKind::Index, FileKind::Snapshot, FileKind::Pack] {
        let (inner, snapshots) = shop().await;
        let bad = match kind {
            FileKind::Pack => pack_of(&inner, &noise(99, 40_000)).await,
            FileKind::Snapshot => Key::new(kind, snapshots[1].id.to_string()),
            _ => names(&inner, kind).await.remove(0),
        };
        let faulty = Faulty::new(inner);
        for operation in [Operation::Get, Operation::GetRange] {
            faulty.add(Rule::every(operation, Fault::Unreadable).on(&bad));
        }
        let store: SharedStore = Arc::new(faulty);
        let report = verified(&store, DATA).await;
        assert_eq!(objects(&report), only(&bad), "{report:#?}");
        assert_eq!(report.damaged.len(), 1);
        assert!(report.damaged[0].what.contains("bad sector"), "{report:#?}");
        let repository = opened(&store).await;
        let list = repository.list_snapshots().await.unwrap();
        assert!(list.found.contains(&snapshots[0]));
        for stored in &list.found {
            let read = read_all(&repository, stored.snapshot.tree).await;
            let unread: Vec<_> = read.iter().filter(|(_, bytes)| bytes.is_err()).map(|(path, _)| path).collect();
            let is_lost = kind == FileKind::Pack && stored.id == snapshots[1].id;
            assert_eq!(unread, if is_lost { vec![Path::new("/images/1/new.jpg")] } else { Vec::new() }, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_pack_that_was_cut_on_a_real_disk_costs_its_own_files_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let repository = made(&store).await;
    save(&repository, &shop_files()).await;
    let second = save(&repository, &[("/old.mp4", noise(4, 9 << 20)), ("/new.jpg", noise(99, 40_000))]).await;
    let key = pack_of(&store, &noise(99, 40_000)).await;
    let path = dir.path().join(key.path());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let length = path.metadata().unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    let report = verified(&store, DATA).await;
    assert_eq!(objects(&report), only(&key), "{report:#?}");
    assert_eq!(lost(&report, &second), BTreeSet::from(["/new.jpg".into()]));
    let read = read_all(&*opened(&store).await, second.snapshot.tree).await;
    assert_eq!(read[Path::new("/old.mp4")].as_ref().unwrap(), &noise(4, 9 << 20));
    assert!(read[Path::new("/new.jpg")].as_ref().unwrap_err().is_damage());
}

#[tokio::test]
async fn a_store_that_is_away_is_an_error_and_no_damage() {
    let (inner, _) = shop().await;
    let faulty = Arc::new(Faulty::new(inner));
    let store: SharedStore = faulty.clone();
    let repository = opened(&store).await;
    faulty.add(Rule::every(Operation::Get, Fault::Denied).of(FileKind::Pack));
    let verified = verify(&repository, DATA, &Run::silent()).await;
    assert!(verified.is_err(), "{verified:#?}");
}

#[tokio::test]
async fn packs_that_only_a_damaged_index_named_get_a_new_one() {
    let (store, snapshots) = shop().await;
    let indexes = names(&store, FileKind::Index).await;
    flip(&store, &indexes[0]).await;
    let repository = opened(&store).await;
    let named = repository.save_recovered_index().await.unwrap();
    assert!(named > 0);
    assert_eq!(repository.save_recovered_index().await.unwrap(), 0, "once");
    store.delete(&indexes[0]).await.unwrap();
    let report = verified(&store, DATA).await;
    assert!(report.is_sound() && report.orphans.is_empty(), "{report:#?}");
    for stored in &snapshots {
        assert!(read_all(&*opened(&store).await, stored.snapshot.tree).await.values().all(Result::is_ok));
    }
}

#[tokio::test]
async fn what_a_lost_pack_held_is_saved_again_while_the_source_has_it() {
    for loss in [Loss::Gone, Loss::Cut] {
        let (store, snapshots) = shop().await;
        let key = pack_of(&store, &noise(99, 40_000)).await;
        let bytes = store.get(&key).await.unwrap();
        match loss {
            Loss::Gone => store.delete(&key).await.unwrap(),
            Loss::Cut => store.put(&key, bytes.slice(..bytes.len() - 1)).await.unwrap(),
        }
        let repository = opened(&store).await;
        let lost = repository.leave_out_lost_packs().await.unwrap();
        assert_eq!(lost.iter().map(ToString::to_string).collect::<Vec<_>>(), [key.name]);
        let mut files = shop_files();
        files.push(("/images/1/new.jpg", noise(99, 40_000)));
        save(&repository, &files).await;
        // The old snapshot has its file back, too.
        let read = read_all(&*opened(&store).await, snapshots[1].snapshot.tree).await;
        assert!(read.values().all(Result::is_ok));
        assert!(verified(&store, DATA).await.costs().is_empty());
    }
}

enum Loss {
    Gone,
    Cut,
}

/// A policy of one tree of files, and the repository that it names.
async fn files_policy(dir: &Path) -> (Policy, Arc<Repository>, Arc<Faulty>) {
    std::fs::create_dir(dir.join("images")).unwrap();
    std::fs::write(dir.join("images/1.jpg"), noise(1, 40_000)).unwrap();
    let dir = dir.display();
    let text = format!(
        "version = 1\nname = \"mall\"\ntimezone = \"UTC\"\nstate_dir = \"{dir}/state\"\n\
         [repository]\npath = \"{dir}/repository\"\npassword_file = \"{dir}/key\"\n\
         [files.images]\npath = \"{dir}/images\"\n[retention]\nlast = 3\n"
    );
    let faulty = Arc::new(Faulty::new(memory()));
    let store: SharedStore = faulty.clone();
    (Policy::parse(&text, Path::new("mall.toml")).unwrap(), made(&store).await, faulty)
}

async fn back_up(policy: &Policy, repository: &Arc<Repository>, run: &Run) -> Outcome {
    backup::backup(policy, repository, &backup::Options::default(), run).await.unwrap()
}

#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl Listener for Ear {
    fn hear(&self, event: &Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

#[tokio::test]
async fn a_backup_that_cannot_prove_what_it_wrote_fails_and_the_next_one_starts_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, repository, faulty) = files_policy(dir.path()).await;
    faulty.add(Rule::every(Operation::Put, Fault::Flip).of(FileKind::Pack));
    let failed = back_up(&policy, &repository, &Run::silent()).await;
    assert_eq!(Exit::from(&failed.failed[0].1), Exit::Damaged, "{failed:?}");
    assert!(failed.done.is_empty() && repository.snapshots().await.unwrap().is_empty());
    faulty.heal();
    let done = back_up(&policy, &repository, &Run::silent()).await;
    assert!(done.is_complete() && done.done[0].bytes_stored >= 40_000, "{done:?}");
    let report = verified(repository.store(), DATA).await;
    assert!(report.is_sound() && report.checked.snapshots == 1, "{report:#?}");
}

#[tokio::test]
async fn a_backup_mends_what_the_repository_has_lost_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, repository, _) = files_policy(dir.path()).await;
    let first = back_up(&policy, &repository, &Run::silent()).await;
    let store = repository.store();
    let pack = pack_of(store, &noise(1, 40_000)).await;
    store.delete(&pack).await.unwrap();
    let ear = Arc::new(Ear::default());
    let run = Run::new(Arc::new(SystemClock), Events::new(ear.clone()));
    assert!(back_up(&policy, &repository, &run).await.is_complete());
    let told = ear.0.lock().unwrap().join("\n");
    assert!(told.contains(&pack.to_string()), "{told}");
    let list = opened(store).await.snapshots().await.unwrap();
    let old = list.iter().find(|stored| stored.id == first.done[0].id).unwrap();
    assert!(read_all(&*opened(store).await, old.snapshot.tree).await.values().all(Result::is_ok));

    let index = names(store, FileKind::Index).await.remove(0);
    flip(store, &index).await;
    assert!(back_up(&policy, &repository, &run).await.is_complete());
    let told = ear.0.lock().unwrap().join("\n");
    assert!(told.contains("a new index names"), "{told}");
    store.delete(&index).await.unwrap();
    assert!(verified(store, DATA).await.costs().is_empty());
}

#[tokio::test]
async fn a_lost_row_file_is_told_as_rows_of_a_table_between_two_keys() {
    let chunk = |file: &str, lower: Option<&str>, upper: Option<&str>| {
        let bound = |id: &str| serde_json::json!(["3", id]);
        serde_json::json!({
            "path": file, "lower": lower.map(bound), "upper": upper.map(bound), "rows": 1_200, "bytes": 50_000, "sha256": "",
        })
    };
    let manifest = serde_json::json!({
        "format": 1, "product": "mariadb", "version": "", "server": "", "taken_at": "2026-01-01T00:00:00Z",
        "consistency": "lock-free", "position": null, "gtid": null, "write_stall_ms": 0.0, "variables": {}, "schemas": [],
        "objects": [], "tables": [{
            "schema": "mall", "name": "orders", "create": "mall/orders/schema.sql", "engine": "InnoDB", "columns": [],
            "key": ["shop_id", "id"], "rows": 2_400, "bytes": 100_000,
            "chunks": [
                chunk("mall/orders/00000.tsv", None, Some("17")),
                chunk("mall/orders/00001.tsv", Some("17"), None),
            ],
        }],
    });
    let store = memory();
    let files = [
        ("/mysql/db1/mall/orders/00000.tsv", noise(5, 50_000)),
        ("/mysql/db1/mall/orders/00001.tsv", noise(6, 50_000)),
        ("/mysql/db1/manifest.json", manifest.to_string().into_bytes()),
    ];
    save(&made(&store).await, &files).await;
    let place = opened(&store).await.locate(BlobKind::Data, &bkp::id::BlobId::of(&noise(6, 50_000))).unwrap();
    let key = Key::new(FileKind::Pack, place.pack.to_string());
    let mut bytes = store.get(&key).await.unwrap().to_vec();
    bytes[place.blob.offset as usize + 100] ^= 1;
    store.put(&key, bytes.into()).await.unwrap();
    let report = verified(&store, DATA).await;
    let told: Vec<String> = report.costs().iter().flat_map(|cost| &cost.rows).map(ToString::to_string).collect();
    assert_eq!(told, ["1,200 rows of mall.orders after shop_id=3, id=17"]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["damaged"][0]["costs"][0]["rows"][0]["after"][1], "id=17");
    store.delete(&key).await.unwrap();
    let told = verified(&store, STRUCTURE).await.costs().iter().flat_map(|cost| cost.rows.clone()).count();
    assert_eq!(told, 0, "the manifest is lost with the rows");
}

#[tokio::test]
async fn a_report_is_plain_json() {
    let (store, _) = shop().await;
    let key = pack_of(&store, &noise(99, 40_000)).await;
    store.delete(&key).await.unwrap();
    let json = serde_json::to_value(verified(&store, STRUCTURE).await).unwrap();
    assert_eq!(json["missing"][0]["object"], key.path());
    assert_eq!(json["missing"][0]["costs"][0]["path"], "/images/1/new.jpg");
    assert_eq!(json["level"], "structure");
}
