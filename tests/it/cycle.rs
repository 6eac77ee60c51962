//! What `bkp run`, `status` and `forget` make of a day that goes wrong, with the real program on a tree of images.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bkp::catalog::{Catalog, REPOSITORY, SnapshotRecord, VerifyRecord};
use bkp::cycle::steps;
use bkp::event::Events;
use bkp::exit::Exit;
use bkp::place;
use bkp::policy::Policy;
use bkp::repository::Repository;
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore, Store, StoreError};
use bkp::verify::Level;
use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use crate::copy::{memory, password, repository, save};
use crate::world::Ended;
use crate::wrapper::{Wrapped, Wrapper};

/// A directory with a policy `mall`, its images, a repository and a copy; no server is needed.
struct Mall {
    dir: TempDir,
}

impl Mall {
    /// A mall with its repository made; `more` is appended to its policy.
    fn ready(more: &str) -> Self {
        let mall = Self { dir: tempfile::tempdir().unwrap() };
        for dir in ["policies", "images", "logos", "usb"] {
            fs::create_dir(mall.path(dir)).unwrap();
        }
        fs::write(mall.path("images/.bkp-ok"), "").unwrap();
        fs::write(mall.path("images/1.jpg"), "an image").unwrap();
        fs::write(mall.path("logos/1.png"), "a logo").unwrap();
        fs::write(mall.path("repo.key"), "repo-pw\n").unwrap();
        fs::set_permissions(mall.path("repo.key"), fs::Permissions::from_mode(0o600)).unwrap();
        mall.write_policy("mall", more);
        mall.bkp(&["init", "mall"]).expect(0);
        mall
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_policy(&self, name: &str, more: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            r#"version = 1
name = "{name}"
state_dir = "{dir}/state-{name}"
repository = {{ path = "{dir}/repository", password_file = "{dir}/repo.key" }}
copy = [{{ name = "usb", path = "{dir}/usb" }}]
files.images = {{ path = "{dir}/images", guard = {{ sentinel = ".bkp-ok" }} }}
files.logos = {{ path = "{dir}/logos" }}
retention = {{ last = 1 }}
{more}
"#
        );
        fs::write(self.path(&format!("policies/{name}.toml")), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bkp"));
        command.args(args).arg("--policies").arg(self.path("policies")).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    fn bkp(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    fn stamps(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("state-mall/stamps.json")).unwrap()).unwrap()
    }

    fn trip_the_guard(&self) {
        fs::remove_file(self.path("images/.bkp-ok")).unwrap();
    }

    fn status(&self, code: i32) -> Value {
        self.bkp(&["status", "mall", "--json"]).expect(code).json()["policies"][0].clone()
    }

    fn snapshots(&self, store: &[&str]) -> usize {
        let listed = self.bkp(&[&["snapshots", "mall", "--json"], store].concat()).expect(0).json();
        listed["snapshots"].as_array().unwrap().len()
    }
}

#[test]
fn one_wrong_policy_does_not_stop_the_others() {
    let mall = Mall::ready("");
    fs::write(mall.path("policies/shop2.toml"), "version = 1\nnam = \"shop2\"\n").unwrap();
    // An editor's lock is a link to nowhere.
    std::os::unix::fs::symlink("editor@host.1", mall.path("policies/.#mall.toml")).unwrap();
    let ran = mall.bkp(&["run", "--now"]).expect(2);
    assert_eq!(mall.snapshots(&[]), 2);
    assert!(ran.err.contains("shop2.toml") && !ran.err.contains(".#mall"), "{}", ran.err);
    let status = mall.bkp(&["status"]).expect(2);
    assert!(status.out.contains("mall:") && status.err.contains("shop2.toml"), "{status:?}");
}

#[test]
fn damaged_stamps_of_one_policy_do_not_stop_the_others() {
    let mall = Mall::ready("");
    mall.write_policy("another", "");
    fs::create_dir(mall.path("state-another")).unwrap();
    fs::write(mall.path("state-another/stamps.json"), "{\"verbs\":").unwrap();
    let ran = mall.bkp(&["run", "--now"]).expect(1);
    assert!(ran.err.contains("error: another: read the stamps"), "{}", ran.err);
    assert_eq!(mall.snapshots(&[]), 2);
}

#[test]
fn all_of_it_runs_without_a_schedule_and_each_step_is_stamped() {
    let mall = Mall::ready("");
    let ran = mall.bkp(&["run", "mall", "--now", "--json"]).expect(0).json();
    let verbs: Vec<_> = ran["ran"][0]["steps"].as_array().unwrap().iter().map(|step| &step["verb"]).collect();
    assert_eq!(verbs, ["backup", "verify"]);
    assert_eq!(mall.snapshots(&["--from", "usb"]), 2);
    assert_eq!(ran["ran"][0]["steps"][1]["result"]["report"]["subset"], "1/7", "{ran}");
    let again = mall.bkp(&["run", "mall", "--now", "--json"]).expect(0).json();
    assert_eq!(again["ran"][0]["steps"][1]["result"]["report"]["subset"], "2/7", "{again}");
    let stamps = mall.stamps();
    assert_eq!(stamps["verbs"]["verify"]["done"], 2, "{stamps}");

    // By hand is beside the schedule.
    mall.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    assert_eq!(mall.stamps(), stamps);
}

#[test]
fn every_step_that_cannot_even_open_its_store_is_stamped() {
    let mall = Mall::ready("drill = { from = \"usb\", checks = [] }\nschedule = { drill = \"0 6 1 * *\" }");
    fs::rename(mall.path("repository"), mall.path("elsewhere")).unwrap();
    mall.bkp(&["run", "mall", "--now"]).expect(10);
    let stamps = mall.stamps();
    for verb in ["backup", "verify", "drill"] {
        assert_eq!(stamps["verbs"][verb]["failure"]["count"], 1, "{verb}: {stamps}");
    }
}

#[test]
fn a_catalog_that_cannot_be_opened_makes_the_steps_rest() {
    let mall = Mall::ready("");
    fs::create_dir(mall.path("state-mall")).unwrap();
    let newer = rusqlite::Connection::open(mall.path("state-mall/catalog.sqlite")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    mall.bkp(&["run", "mall", "--now"]).expect(1);
    assert_eq!(mall.stamps()["verbs"]["backup"]["failure"]["count"], 1);
}

#[test]
fn a_database_that_never_answers_does_not_outlast_a_signal() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mall =
        Mall::ready(&format!("mysql.db1 = {{ host = \"127.0.0.1\", port = {port}, user = \"x\", tls = \"off\" }}"));
    let mut hanging = mall.command(&["backup", "mall", "--source", "db1"]);
    let child = hanging.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _connection = server.accept().unwrap();
    let signalled = std::time::Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    Ended::from(child.wait_with_output().unwrap()).expect(143);
    assert!(signalled.elapsed() < std::time::Duration::from_secs(30));
    assert_eq!(mall.snapshots(&[]), 0);
    assert_eq!(fs::read_dir(mall.path("repository/locks")).unwrap().count(), 0, "its lock stays");
}

#[test]
fn a_step_that_fails_says_so_on_standard_error() {
    let mall = Mall::ready("");
    mall.trip_the_guard();
    let failed = mall.bkp(&["backup", "mall"]).expect(15);
    assert!(failed.err.contains("error: back up images:") && failed.err.contains("hint:"), "{failed:?}");
    assert!(!failed.out.contains("error") && failed.out.contains("logos"), "{failed:?}");
}

#[test]
fn a_tripped_guard_freezes_retention_until_that_very_source_is_well() {
    let mall = Mall::ready("");
    mall.bkp(&["backup", "mall"]).expect(0);
    fs::write(mall.path("images/2.jpg"), "another image").unwrap();
    mall.trip_the_guard();
    mall.bkp(&["backup", "mall"]).expect(15);
    for _ in 0..2 {
        mall.bkp(&["backup", "mall", "--source", "logos"]).expect(0);
    }
    let forget = mall.bkp(&["forget", "mall"]).expect(0);
    assert!(forget.out.contains("a guard of `images` has tripped"), "{}", forget.out);
    assert_eq!(mall.snapshots(&[]), 5, "something was forgotten");
    assert_eq!(mall.status(1)["retention_freeze"], "a guard of `images` has tripped");

    fs::write(mall.path("images/.bkp-ok"), "").unwrap();
    mall.bkp(&["backup", "mall"]).expect(0);
    assert_eq!(mall.snapshots(&[]), 2);
}

#[test]
fn damage_freezes_retention_until_a_verify_as_deep_is_sound() {
    let mall = Mall::ready("");
    fs::write(mall.path("images/large.jpg"), crate::world::noise(1, 60_000)).unwrap();
    mall.bkp(&["backup", "mall"]).expect(0);
    let packs = crate::world::files(&mall.path("repository/data"));
    // The largest holds the image, and no tree: the structure looks whole.
    let (name, (whole, ..)) = packs.iter().max_by_key(|(_, (bytes, ..))| bytes.len()).unwrap();
    let pack = mall.path("repository/data").join(name);
    let mut rotten = whole.clone();
    rotten[0] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, &rotten).unwrap();
    mall.bkp(&["verify", "mall", "--level", "data"]).expect(13);
    mall.bkp(&["verify", "mall", "--level", "structure"]).expect(0);
    let dry = mall.bkp(&["forget", "mall", "--dry-run"]).expect(0);
    assert!(dry.out.contains("verify found damage in `repository`"), "{}", dry.out);

    fs::write(&pack, whole).unwrap();
    mall.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    let dry = mall.bkp(&["forget", "mall", "--dry-run"]).expect(0);
    assert!(!dry.out.contains("rests"), "{}", dry.out);
}

#[test]
fn status_is_bad_while_backups_fail_or_do_not_come() {
    let mall = Mall::ready("schedule = { backup = \"15 2 * * *\" }");
    mall.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    assert_eq!(mall.status(0)["verdict"], "warning");
    mall.trip_the_guard();
    mall.bkp(&["backup", "mall", "--no-copy"]).expect(15);
    mall.status(1);
    fs::write(mall.path("images/.bkp-ok"), "").unwrap();
    mall.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    mall.status(0);

    // Nobody has started `bkp run` since; and that the last backup ended just now is no excuse for long.
    let stamps = fs::read_to_string(mall.path("state-mall/stamps.json")).unwrap();
    let success = mall.stamps()["verbs"]["backup"]["success"].as_str().unwrap().to_owned();
    fs::write(mall.path("state-mall/stamps.json"), stamps.replace(&success, "2026-01-01T02:15:00Z")).unwrap();
    assert_eq!(mall.status(0)["next_runs"][0]["missed"], Value::Null);
    let catalog = rusqlite::Connection::open(mall.path("state-mall/catalog.sqlite")).unwrap();
    let changed = catalog.execute("UPDATE runs SET ended = replace(ended, '20', '19')", []).unwrap();
    assert!(changed > 0);
    let missed = mall.status(1);
    assert_eq!(missed["next_runs"][0]["missed"], "2026-01-02T02:15:00Z", "{missed}");
}

#[test]
fn a_lost_catalog_is_filled_again_before_it_is_believed() {
    let mall = Mall::ready("objectives = { rpo = \"25h\" }\nschedule = { backup = \"15 2 * * *\" }");
    mall.bkp(&["backup", "mall"]).expect(0);
    mall.status(0);
    for file in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        drop(fs::remove_file(mall.path("state-mall").join(file)));
    }
    // A verify begins a new catalog, and knows nothing of the snapshots.
    mall.bkp(&["verify", "mall"]).expect(0);
    let status = mall.status(0);
    assert_eq!(status["copies"][0]["behind"], 0, "{status}");
}

#[test]
fn a_rebuild_without_a_store_forgets_nothing_of_it() {
    let mall = Mall::ready("");
    mall.bkp(&["backup", "mall"]).expect(0);
    mall.status(0);
    fs::rename(mall.path("repository"), mall.path("elsewhere")).unwrap();
    let rebuilt = mall.bkp(&["status", "mall", "--rebuild", "--json"]).expect(0);
    assert!(rebuilt.err.contains("repository"), "{}", rebuilt.err);
    let sources = &rebuilt.json()["policies"][0]["sources"];
    assert_eq!((&sources[0]["snapshots"], &sources[1]["snapshots"]), (&1.into(), &1.into()), "{sources}");
}

#[test]
fn a_signal_in_the_midst_of_a_rebuild_forgets_nothing() {
    let mall = Mall::ready("");
    mall.bkp(&["backup", "mall"]).expect(0);
    mall.status(0);
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = mall.path("policies/mall.toml");
    let policy = fs::read_to_string(&file).unwrap();
    let place = format!("path = \"{}\"", mall.path("usb").display());
    let s3 = format!(
        "s3 = {{ bucket = \"b\", region = \"r\", endpoint = \"http://{}\", access_key_id = \"k\", \
         secret_access_key_file = \"{}\" }}",
        hanging.local_addr().unwrap(),
        mall.path("repo.key").display()
    );
    assert!(policy.contains(&place));
    fs::write(&file, policy.replace(&place, &s3)).unwrap();

    let child = mall.command(&["status", "mall", "--rebuild"]).stderr(Stdio::piped()).spawn().unwrap();
    let _connection = hanging.accept().unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    Ended::from(child.wait_with_output().unwrap()).expect(130);
    let catalog = rusqlite::Connection::open(mall.path("state-mall/catalog.sqlite")).unwrap();
    let rows: i64 = catalog.query_row("SELECT count(*) FROM snapshots", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 4);
}

#[test]
fn a_forget_in_a_copy_is_known_to_the_catalog() {
    let mall = Mall::ready("");
    for _ in 0..2 {
        mall.bkp(&["backup", "mall"]).expect(0);
    }
    assert_eq!(mall.snapshots(&["--from", "usb"]), 4, "a copy is never forgotten by itself");
    mall.bkp(&["forget", "mall", "--copy", "usb"]).expect(0);
    assert_eq!(mall.snapshots(&["--from", "usb"]), 2);
    let catalog = rusqlite::Connection::open(mall.path("state-mall/catalog.sqlite")).unwrap();
    let rows: i64 =
        catalog.query_row("SELECT count(*) FROM snapshots WHERE store = 'usb'", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2);
}

fn packs(dir: &Path) -> u64 {
    crate::world::files(&dir.join("data")).values().map(|(bytes, ..)| bytes.len() as u64).sum()
}

/// A mall whose older snapshots, with two images of 60,000 bytes in them, were forgotten.
fn with_dead_packs(more: &str) -> Mall {
    let mall = Mall::ready(more);
    for seed in [1, 2, 3] {
        fs::write(mall.path("images/large.jpg"), crate::world::noise(seed, 60_000)).unwrap();
        mall.bkp(&["backup", "mall"]).expect(0);
    }
    mall
}

#[test]
fn a_prune_says_what_it_would_free_and_then_frees_it() {
    let mall = with_dead_packs("");
    let before = packs(&mall.path("repository"));
    let dry = mall.bkp(&["prune", "mall", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(packs(&mall.path("repository")), before);
    let freed = dry["plan"]["bytes_freed"].as_u64().unwrap();
    assert!(freed > 120_000, "{dry}");
    let pruned = mall.bkp(&["prune", "mall", "--max-unused", "0"]).expect(0);
    assert!(pruned.out.contains("deleted") && pruned.out.contains("freed"), "{}", pruned.out);
    let after = packs(&mall.path("repository"));
    assert!(before - after > 119_000 && after > 60_000, "{before} -> {after}");
    mall.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    let restored = mall.path("restored").display().to_string();
    mall.bkp(&["restore", "mall", "--source", "images", "--to-dir", &restored, "--yes"]).expect(0);
    assert_eq!(fs::read(mall.path("restored/large.jpg")).unwrap(), crate::world::noise(3, 60_000));
    let again = mall.bkp(&["prune", "mall"]).expect(0);
    assert!(again.out.contains("nothing to free"), "{}", again.out);
    mall.bkp(&["backup", "mall"]).expect(0);
    mall.bkp(&["verify", "mall", "--level", "data"]).expect(0);
}

#[test]
fn a_copy_is_pruned_alone_and_nothing_is_sent_again() {
    let mall = with_dead_packs("");
    mall.bkp(&["prune", "mall"]).expect(0);
    mall.bkp(&["backup", "mall"]).expect(0);
    mall.bkp(&["forget", "mall", "--copy", "usb"]).expect(0);
    let before = packs(&mall.path("usb"));
    mall.bkp(&["prune", "mall", "--copy", "usb", "--max-unused", "0"]).expect(0);
    assert!(before - packs(&mall.path("usb")) > 119_000);
    let copied = mall.bkp(&["copy", "mall", "--json"]).expect(0).json();
    assert_eq!(copied["steps"][0]["result"]["copies"][0]["packs"], 0, "{copied}");
    mall.bkp(&["verify", "mall", "--level", "data", "--copy", "usb"]).expect(0);
}

#[test]
fn a_prune_rests_while_retention_does() {
    let mall = with_dead_packs("");
    mall.trip_the_guard();
    mall.bkp(&["backup", "mall"]).expect(15);
    let before = packs(&mall.path("repository"));
    let pruned = mall.bkp(&["prune", "mall"]).expect(0);
    assert!(pruned.out.contains("rests: a guard of `images` has tripped"), "{}", pruned.out);
    assert_eq!(packs(&mall.path("repository")), before);
}

#[test]
fn a_run_prunes_on_its_schedule() {
    let mall = with_dead_packs("schedule = { prune = \"30 6 * * sat\" }");
    let before = packs(&mall.path("repository"));
    let ran = mall.bkp(&["run", "mall", "--now", "--json"]).expect(0).json();
    let verbs: Vec<_> = ran["ran"][0]["steps"].as_array().unwrap().iter().map(|step| step["verb"].clone()).collect();
    assert_eq!(verbs, ["backup", "verify", "prune"]);
    assert!(before - packs(&mall.path("repository")) > 119_000);
    assert!(mall.stamps()["verbs"]["prune"]["success"].is_string(), "{}", mall.stamps());
}

#[test]
fn no_state_of_the_catalog_stands_in_a_restores_way() {
    let mall = Mall::ready("");
    mall.bkp(&["backup", "mall"]).expect(0);
    fs::remove_dir_all(mall.path("state-mall")).unwrap();
    let dir = mall.path("restored").display().to_string();
    let restore = ["restore", "mall", "--source", "images", "--to-dir", &dir];
    mall.bkp(&[&restore[..], &["--dry-run"]].concat()).expect(0);
    assert!(!mall.path("state-mall").exists(), "a dry run began a catalog");

    fs::write(mall.path("state-mall"), "in the way").unwrap();
    let restored = mall.bkp(&[&restore[..], &["--yes"]].concat()).expect(0);
    assert!(restored.err.contains("the catalog will not know of it"), "{}", restored.err);
    assert_eq!(fs::read(mall.path("restored/1.jpg")).unwrap(), b"an image");
    assert_eq!(fs::read_dir(mall.path("repository/locks")).unwrap().count(), 0, "its lock stays");
}

#[test]
fn a_copy_that_cannot_be_sent_leaves_the_snapshots_recorded() {
    let mall = Mall::ready("");
    fs::remove_dir(mall.path("usb")).unwrap();
    let failed = mall.bkp(&["backup", "mall"]).expect(3);
    assert!(failed.err.contains("error: copy to usb:"), "{failed:?}");
    let status = mall.status(0);
    assert!(status["sources"][0]["last_good"].is_object(), "{status}");
    let why = status["last_backup"]["error"].as_str().unwrap();
    assert!(why.starts_with("copy usb: "), "{why}");
}

#[test]
fn an_incomplete_backup_says_why_in_the_catalog() {
    let mall = Mall::ready("");
    fs::write(mall.path("images/3.jpg"), "secret").unwrap();
    // What cannot be opened even by root: a name that loops through links is no file, so a tree nested too deep does it.
    let mut deep = mall.path("images");
    for _ in 0..300 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let backup = mall.bkp(&["backup", "mall", "--no-copy"]).expect(3);
    assert!(backup.out.contains("incomplete: d/d/"), "{}", backup.out);
    let why = mall.status(1)["last_backup"]["error"].as_str().unwrap().to_owned();
    assert!(why.starts_with("images: 1 entry is left out"), "{why}");
}

/// A store beside which something happens whenever an object of a kind is put or deleted.
struct Meanwhile<F> {
    inner: SharedStore,
    kind: FileKind,
    act: F,
}

#[async_trait::async_trait]
impl<F: Fn() + Send + Sync> Wrapper for Meanwhile<F> {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        if key.kind == self.kind {
            (self.act)();
        }
        self.inner.put(key, bytes).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if key.kind == self.kind {
            (self.act)();
        }
        self.inner.delete(key).await
    }
}

/// A repository with three snapshots of the images, two of which no rule keeps, opened where `act` happens beside a kind.
async fn crowded(kind: FileKind, act: impl Fn() + Send + Sync + 'static) -> (Arc<Repository>, Policy) {
    let store = memory();
    let made = repository(store.clone()).await;
    for seed in 1..=3 {
        save(&made, seed, &["policy=mall", "source=images", "kind=files"]).await;
    }
    let watched = Arc::new(Wrapped(Meanwhile { inner: store, kind, act }));
    let opened = Repository::open(watched, &password(), &Run::silent()).await.unwrap();
    let text = r#"
        version = 1
        name = "mall"
        repository = { path = "/backup/mall", password_file = "/etc/bkp/mall.key" }
        files.images = { path = "/mnt/images" }
        retention = { last = 1 }"#;
    (opened, Policy::parse(text, Path::new("mall.toml")).unwrap())
}

#[tokio::test]
async fn a_signal_in_the_midst_of_a_forget_is_no_success() {
    let run = Run::silent();
    let cancel = run.cancel.clone();
    let (repository, policy) = crowded(FileKind::Snapshot, move || cancel.cancel()).await;
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path(), &Events::silent()).unwrap();
    let known: Vec<_> = repository.snapshots().await.unwrap();
    let records: Vec<_> = known.iter().filter_map(|stored| SnapshotRecord::of(REPOSITORY, stored)).collect();
    catalog.record_snapshots(&records).unwrap();
    let failure = steps::forget(&policy, &repository, REPOSITORY, &catalog, &run).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Interrupted);
    assert_eq!(repository.snapshots().await.unwrap().len(), 2, "it stops between two snapshots");
    assert_eq!(catalog.snapshots().unwrap().len(), 2, "the catalog knows what went");
}

#[tokio::test]
async fn what_is_forgotten_is_judged_again_under_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Arc::new(Catalog::open(dir.path(), &Events::silent()).unwrap());
    let (seen, run) = (catalog.clone(), Run::silent());
    let verify = VerifyRecord {
        run: run.id.clone(),
        started: run.now(),
        store: REPOSITORY.to_owned(),
        level: Level::Data,
        subset: None,
        is_sound: false,
    };
    // A verify finds damage while the lock is being taken.
    let (repository, policy) = crowded(FileKind::Lock, move || seen.record_verify(&verify).unwrap()).await;
    let before = steps::plan_forget(&policy, &repository, REPOSITORY, &catalog, &run).await.unwrap();
    assert_eq!(before.forgotten().count(), 2);
    let (plan, forgotten) = steps::forget(&policy, &repository, REPOSITORY, &catalog, &run).await.unwrap();
    assert!(forgotten.done.is_empty() && plan.frozen.is_some(), "{plan:?}");
    assert_eq!(repository.snapshots().await.unwrap().len(), 3);
}

#[tokio::test]
async fn whoever_reads_goes_on_where_no_lock_can_be_put() {
    let faulty = Arc::new(Faulty::new(memory()));
    let (repository, run) = (repository(faulty.clone()).await, Run::silent());
    let lock = place::lock_to_read(&repository, &run).await.unwrap();
    assert!(lock.is_some());
    place::unlock(lock, &run).await;
    assert_eq!(repository.store().list(FileKind::Lock).await.unwrap(), []);
    for fault in [Fault::Denied, Fault::Full] {
        faulty.add(Rule::every(Operation::Put, fault).of(FileKind::Lock));
        assert!(place::lock_to_read(&repository, &run).await.unwrap().is_none());
        faulty.heal();
    }
}

#[tokio::test]
async fn a_lock_that_cannot_be_given_back_costs_no_snapshot() {
    let mall = Mall::ready("");
    let faulty = Arc::new(Faulty::new(memory()));
    let (repository, run) = (repository(faulty.clone()).await, Run::silent());
    let policy = Policy::load(&mall.path("policies/mall.toml")).unwrap();
    faulty.add(Rule::every(Operation::Delete, Fault::Denied).of(FileKind::Lock));
    let outcome = bkp::backup::backup(&policy, &repository, &bkp::backup::Options::default(), &run).await.unwrap();
    assert!(faulty.count(Operation::Delete) > 0);
    assert_eq!((outcome.done.len(), outcome.failed.len()), (2, 0));
}
