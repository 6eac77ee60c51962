//! The real `restic`, both versions, as an independent judge of what bkp writes and a source of what it must read.
//!
//! `BKP_TEST_RESTIC` and `BKP_TEST_RESTIC019` name the programs; `scripts/lab` sets them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bkp::backup::{self, backup};
use bkp::clock::FixedClock;
use bkp::event::Events;
use bkp::forget::Alone;
use bkp::id::BlobId;
use bkp::policy::Policy;
use bkp::prune;
use bkp::prune::plan::Limits;
use bkp::repository::{BlobKind, LockMode, Repository, RepositoryError};
use bkp::run::Run;
use bkp::store::{FileKind, Key, SharedStore, Store, StoreError};
use bkp::verify::{Level, Options, verify};
use chrono::TimeDelta;

use crate::repository::{PASSWORD, local, made, noise, opened, read_all, save_dir, secret};
use crate::servers::program;
use crate::wrapper::{Wrapped, Wrapper};

mod heal;

pub(crate) const VERSIONS: [&str; 2] = ["RESTIC", "RESTIC019"];

/// One repository in a temporary directory, and a restic to look at it.
pub(crate) struct Desk {
    dir: tempfile::TempDir,
    restic: PathBuf,
}

impl Desk {
    pub(crate) fn new(version: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), restic: program(version) }
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// Makes a directory with every kind of entry that a user without privileges can make.
    fn source(&self) -> PathBuf {
        let source = self.dir.path().join("source");
        let images = source.join("images/상품 \"1\"");
        fs::create_dir_all(&images).unwrap();
        fs::create_dir(source.join("empty dir")).unwrap();
        fs::write(images.join("small.jpg"), noise(1, 30_000)).unwrap();
        fs::write(images.join("large.jpg"), noise(2, 5 << 20)).unwrap();
        fs::write(source.join("empty"), "").unwrap();
        fs::write(source.join("rows.tsv"), "17\tKim\t12.50\t<b>&amp;\n".repeat(300_000)).unwrap();
        let odd = [
            &b"line\nbreak"[..],
            b"tab\tbell\x07",
            b"latin \xe9\xff",
            b"back\\slash",
            "zero\u{200b}width".as_bytes(),
            b"A",
            b"a",
            b"a b",
            b"a.b",
        ];
        for name in odd {
            fs::write(source.join(OsStr::from_bytes(name)), name).unwrap();
        }
        fs::write(source.join("setuid"), "x").unwrap();
        fs::set_permissions(source.join("setuid"), fs::Permissions::from_mode(0o6751)).unwrap();
        fs::set_permissions(&images, fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(images.join("small.jpg"), source.join("hard link")).unwrap();
        symlink("images/<here>", source.join("link")).unwrap();
        symlink(OsString::from_vec(b"caf\xe9".to_vec()), source.join("raw link")).unwrap();
        // Where the filesystem has none, there is nothing to keep.
        let _ = xattr::set(source.join("empty"), "user.color", b"\x00blue\xff");
        let old = std::time::SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        fs::File::options().write(true).open(source.join("rows.tsv")).unwrap().set_modified(old).unwrap();
        source
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.restic);
        command.args(["--no-cache", "-r"]).arg(self.repository()).args(args);
        command.env("RESTIC_PASSWORD", PASSWORD).env("HOME", self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs restic, which must succeed; returns what it printed.
    pub(crate) fn restic(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "restic {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    pub(crate) fn check(&self) {
        let text = self.restic(&["check", "--read-data"]);
        assert!(text.contains("no errors were found"), "{text}");
    }

    fn restore(&self, snapshot: &str) -> PathBuf {
        let target = self.dir.path().join(format!("restored-{snapshot}"));
        self.restic(&["restore", snapshot, "--target", target.to_str().unwrap()]);
        target
    }
}

/// What of an entry must come back.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    content: Vec<u8>,
    xattr: Option<Vec<u8>>,
    links: u64,
}

fn look(path: &Path) -> Look {
    let found = fs::symlink_metadata(path).unwrap();
    let content = match found.file_type() {
        kind if kind.is_file() => fs::read(path).unwrap(),
        kind if kind.is_symlink() => fs::read_link(path).unwrap().into_os_string().into_vec(),
        _ => Vec::new(),
    };
    Look {
        mode: found.mode(),
        owner: (found.uid(), found.gid()),
        mtime: (found.mtime(), found.mtime_nsec()),
        content,
        xattr: if found.is_symlink() { None } else { xattr::get(path, "user.color").ok().flatten() },
        links: if found.is_dir() { 0 } else { found.nlink() },
    }
}

fn looks(dir: &Path) -> BTreeMap<PathBuf, Look> {
    let mut looks = BTreeMap::new();
    let mut to_do = vec![dir.to_owned()];
    while let Some(path) = to_do.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            to_do.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        looks.insert(path.strip_prefix(dir).unwrap().to_owned(), look(&path));
    }
    looks
}

fn assert_same(source: &Path, restored: &Path, skip: impl Fn(&Path) -> bool) {
    let (mut expected, mut actual) = (looks(source), looks(restored));
    expected.retain(|path, _| !skip(path));
    actual.retain(|path, _| !skip(path));
    let names = |looks: &BTreeMap<PathBuf, Look>| looks.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&actual), names(&expected));
    for (path, look) in expected {
        assert!(actual[&path] == look, "{}: differs", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn restic_finds_no_error_and_restores_what_bkp_saved() {
    for version in VERSIONS {
        let desk = Desk::new(version);
        let source = desk.source();
        let repository = made(&local(&desk.repository())).await;
        let stored = save_dir(&repository, &source).await;
        desk.check();
        let restored = desk.restore(&stored.id.to_string()).join(source.strip_prefix("/").unwrap());
        // Only restic from 0.16 on reads raw link targets.
        assert_same(&source, &restored, |path| version == "RESTIC" && path == Path::new("raw link"));
        let listed = desk.restic(&["ls", &stored.id.to_string()]);
        assert!(listed.contains("/images/상품 \"1\"/large.jpg"), "{listed}");
        let json: serde_json::Value = serde_json::from_str(&desk.restic(&["snapshots", "--json"])).unwrap();
        assert_eq!(json[0]["id"], stored.id.to_string());
        assert_eq!(json[0]["tags"][0], "policy=mall");
        assert_eq!(json[0]["time"], "2026-01-02T03:04:05.678Z");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn bkp_reads_what_restic_saved() {
    for (version, compression) in [("RESTIC", "off"), ("RESTIC", "auto"), ("RESTIC019", "auto"), ("RESTIC019", "max")] {
        let desk = Desk::new(version);
        let source = desk.source();
        desk.restic(&["init", "--repository-version", "2"]);
        desk.restic(&["backup", "--compression", compression, source.to_str().unwrap()]);
        let repository = opened(&local(&desk.repository())).await;
        let report = verify(&repository, DATA, &Run::silent()).await.unwrap();
        assert!(report.is_sound(), "{report:#?}");
        let snapshots = repository.snapshots().await.unwrap();
        let read = read_all(&repository, snapshots[0].snapshot.tree).await;
        let mut files = 0;
        for (path, expected) in looks(&source) {
            let path = source.join(path);
            if path.symlink_metadata().unwrap().is_file() {
                assert!(*read[&path].as_ref().unwrap() == expected.content, "{}", path.display());
                files += 1;
            }
        }
        assert_eq!(files, 15, "all were compared");
        // restic 0.14 keeps no raw link target.
        if version == "RESTIC019" {
            assert_trees_print_alike(&repository).await;
        }
    }
}

/// restic keeps the device of every entry unless told otherwise; bkp only where a hard link needs it.
fn without_devices(json: Vec<u8>) -> String {
    let text = String::from_utf8(json).unwrap();
    let mut parts = text.split(",\"device_id\":");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    first + &rest.collect::<String>()
}

/// Every tree that restic printed parses, and prints to the same bytes.
async fn assert_trees_print_alike(repository: &Arc<Repository>) {
    let blobs = repository.packs().into_iter().flat_map(|pack| pack.blobs);
    let trees: Vec<_> = blobs.filter(|blob| blob.kind == BlobKind::Tree).collect();
    assert!(trees.len() >= 5);
    for blob in trees {
        let printed = repository.blob(BlobKind::Tree, &blob.id).await.unwrap();
        let again = repository.tree(&blob.id).await.unwrap().to_json().unwrap();
        assert_eq!(without_devices(again), without_devices(printed));
    }
}

const DATA: Options = Options { level: Level::Data, subset: None };

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn restic_and_bkp_save_into_one_repository_by_turns() {
    for version in VERSIONS {
        let desk = Desk::new(version);
        let source = desk.source();
        let store = local(&desk.repository());
        save_dir(&made(&store).await, &source).await;
        desk.restic(&["backup", source.to_str().unwrap()]);
        fs::write(source.join("later"), noise(5, 3 << 20)).unwrap();
        let repository = opened(&store).await;
        let last = save_dir(&repository, &source).await;
        assert_eq!(opened(&store).await.snapshots().await.unwrap().len(), 3);
        desk.check();
        let report = verify(&repository, DATA, &Run::silent()).await.unwrap();
        assert!(report.is_sound(), "{report:#?}");
        // A prune by restic rewrites packs and indexes; what bkp saved survives it.
        let snapshots = repository.snapshots().await.unwrap();
        let by_restic = snapshots.iter().find(|stored| stored.snapshot.tags.is_empty());
        desk.restic(&["forget", &by_restic.unwrap().id.to_string()]);
        desk.restic(&["prune", "--max-unused", "0"]);
        desk.check();
        let repository = opened(&store).await;
        let read = read_all(&repository, last.snapshot.tree).await;
        assert!(read.values().all(Result::is_ok));
        assert_eq!(read[&source.join("later")].as_ref().unwrap(), &noise(5, 3 << 20));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn restic_heeds_bkps_locks() {
    for version in VERSIONS {
        let desk = Desk::new(version);
        let source = desk.source();
        let repository = made(&local(&desk.repository())).await;
        let run = Run::silent();
        let exclusive = repository.lock(LockMode::Exclusive, Duration::ZERO, &run).await.unwrap();
        let refused = desk.run(&["backup", source.to_str().unwrap()]);
        assert!(!refused.status.success());
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("already locked exclusively"), "{told}");
        // restic asks whether we live with a SIGHUP, and leaves the lock of the living.
        desk.restic(&["unlock"]);
        assert_eq!(repository.store().list(FileKind::Lock).await.unwrap().len(), 1);
        exclusive.release().await.unwrap();

        let shared = repository.lock(LockMode::Shared, Duration::ZERO, &run).await.unwrap();
        desk.restic(&["backup", source.to_str().unwrap()]);
        assert!(!desk.run(&["prune"]).status.success());
        shared.release().await.unwrap();
        desk.restic(&["prune"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn bkp_heeds_restics_locks_and_clears_those_of_the_dead() {
    for version in VERSIONS {
        let desk = Desk::new(version);
        let repository = made(&local(&desk.repository())).await;
        let run = Run::silent();
        let mut restic = locking_backup(&desk, &repository).await;
        let refused = repository.lock(LockMode::Exclusive, Duration::ZERO, &run).await;
        assert!(matches!(refused, Err(RepositoryError::Locked { exclusive: false, .. })), "{refused:?}");
        repository.lock(LockMode::Shared, Duration::ZERO, &run).await.unwrap().release().await.unwrap();
        drop(restic.stdin.take());
        assert!(restic.wait().unwrap().success());
        assert_eq!(repository.store().list(FileKind::Lock).await.unwrap().len(), 0);

        let mut restic = locking_backup(&desk, &repository).await;
        restic.kill().unwrap();
        restic.wait().unwrap();
        assert_eq!(repository.store().list(FileKind::Lock).await.unwrap().len(), 1);
        // It may live in a container with this host's name, until it misses its refresh.
        let refused = repository.lock(LockMode::Exclusive, Duration::ZERO, &run).await;
        assert!(matches!(refused, Err(RepositoryError::Locked { .. })), "{refused:?}");
        let later = FixedClock::at(run.now() + TimeDelta::minutes(11));
        let run = Run::new(Arc::new(later), Events::silent());
        repository.lock(LockMode::Exclusive, Duration::ZERO, &run).await.unwrap().release().await.unwrap();
        assert_eq!(repository.store().list(FileKind::Lock).await.unwrap().len(), 0);
    }
}

/// A store that has something done beside its user, right after the first object of a kind was put.
struct Beside<F> {
    inner: SharedStore,
    kind: FileKind,
    act: Mutex<Option<F>>,
}

impl<F: FnOnce() + Send + 'static> Beside<F> {
    fn new(inner: SharedStore, kind: FileKind, act: F) -> Arc<Wrapped<Self>> {
        Arc::new(Wrapped(Self { inner, kind, act: Mutex::new(Some(act)) }))
    }

    fn was_done(&self) -> bool {
        self.act.lock().unwrap().is_none()
    }
}

#[async_trait::async_trait]
impl<F: FnOnce() + Send + 'static> Wrapper for Beside<F> {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn put(&self, key: &Key, bytes: bytes::Bytes) -> Result<(), StoreError> {
        self.inner.put(key, bytes).await?;
        let act = if key.kind == self.kind { self.act.lock().unwrap().take() } else { None };
        if let Some(act) = act {
            tokio::task::spawn_blocking(act).await.unwrap();
        }
        Ok(())
    }
}

/// A policy that saves the desk's source into the desk's repository.
fn policy_of(desk: &Desk) -> Policy {
    let dir = desk.dir.path().display();
    let text = format!(
        "version = 1\nname = \"mall\"\ntimezone = \"UTC\"\nstate_dir = \"{dir}/state\"\n\
         [repository]\npath = \"{dir}/repository\"\npassword_file = \"{dir}/key\"\n\
         [files.images]\npath = \"{dir}/source\"\n[retention]\nlast = 3\n"
    );
    Policy::parse(&text, Path::new("mall.toml")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_restic_prune_beside_a_running_backup_is_refused_and_a_restic_backup_is_not() {
    for (version, kind) in [("RESTIC", FileKind::Pack), ("RESTIC019", FileKind::Pack), ("RESTIC019", FileKind::Index)] {
        let desk = Arc::new(Desk::new(version));
        let source = desk.source();
        // Without a snapshot every pack is a prune's to take, those included that no index names yet.
        made(&local(&desk.repository())).await;
        let beside = {
            let (desk, source) = (Arc::clone(&desk), source.clone());
            Beside::new(local(&desk.repository()), kind, move || {
                let prune = desk.run(&["prune", "--max-unused", "0"]);
                let told = String::from_utf8_lossy(&prune.stderr).into_owned();
                assert!(!prune.status.success() && told.contains("already locked"), "{told}");
                desk.restic(&["backup", "--tag", "by-hand", source.to_str().unwrap()]);
            })
        };
        let store: SharedStore = beside.clone();
        let run = Run::silent();
        let repository = Repository::open(store, &secret(), &run).await.unwrap();
        let saved = backup(&policy_of(&desk), &repository, &backup::Options::default(), &run).await.unwrap();
        assert!(saved.is_complete() && beside.0.was_done(), "{saved:?}");
        desk.check();
        desk.restic(&["prune", "--max-unused", "0"]);
        desk.check();
        let repository = opened(&local(&desk.repository())).await;
        let snapshots = repository.snapshots().await.unwrap();
        assert_eq!(snapshots.len(), 2);
        for stored in snapshots {
            let restored = desk.restore(&stored.id.to_string());
            assert_same(&source, &restored.join(source.strip_prefix("/").unwrap()), |path| {
                version == "RESTIC" && path == Path::new("raw link")
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_prune_beside_a_running_restic_backup_is_refused_and_nothing_is_lost() {
    for version in VERSIONS {
        let desk = Desk::new(version);
        let store = local(&desk.repository());
        let repository = made(&store).await;
        let run = Run::silent();
        let mut restic = locking_backup(&desk, &repository).await;
        // Enough for whole packs, which no index names yet.
        let rows = noise(7, 60 << 20);
        restic.stdin.as_mut().unwrap().write_all(&rows).unwrap();
        let start = Instant::now();
        while store.list(FileKind::Pack).await.unwrap().is_empty() {
            assert!(start.elapsed() < Duration::from_mins(1), "restic puts no pack");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(store.list(FileKind::Index).await.unwrap().is_empty());
        let refused = Alone::take(&repository, &run).await;
        assert!(matches!(refused, Err(RepositoryError::Locked { .. })), "{refused:?}");
        drop(restic.stdin.take());
        assert!(restic.wait().unwrap().success());

        let repository = opened(&store).await;
        let lock = Alone::take(&repository, &run).await.unwrap();
        let plan =
            prune::plan(&repository, &Limits { unused_percent_max: 0, ..Limits::default() }, &run).await.unwrap();
        prune::apply(&plan, &repository, &lock, &run).await.unwrap();
        lock.into_guard().release().await.unwrap();
        desk.check();
        let read = read_all(&*opened(&store).await, repository.snapshots().await.unwrap()[0].snapshot.tree).await;
        assert_eq!(read[Path::new("/stdin")].as_ref().unwrap(), &[&b"rows"[..], &rows].concat());
    }
}

/// Starts a backup that holds its lock until its standard input ends.
async fn locking_backup(desk: &Desk, repository: &Repository) -> Child {
    let mut command = desk.command(&["backup", "--stdin"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"rows").unwrap();
    let start = Instant::now();
    // A lock is taken once it has stood a while; before that restic looks at the locks of others.
    while repository.store().list(FileKind::Lock).await.unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_mins(1), "restic takes no lock");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn restic_finds_what_bkp_finds_damaged() {
    let desk = Desk::new("RESTIC019");
    let source = desk.source();
    let store = local(&desk.repository());
    save_dir(&made(&store).await, &source).await;
    let id = BlobId::of(&noise(1, 30_000));
    let pack = opened(&store).await.locate(BlobKind::Data, &id).unwrap();
    let name = pack.pack.to_string();
    let file = desk.repository().join("data").join(&name[..2]).join(&name);
    let mut bytes = fs::read(&file).unwrap();
    bytes[pack.blob.offset as usize + 100] ^= 1;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, bytes).unwrap();
    let report = verify(&opened(&store).await, DATA, &Run::silent()).await.unwrap();
    assert_eq!(report.damaged.len(), 1);
    assert!(report.damaged[0].object.to_string().ends_with(&name));
    assert_eq!(report.costs().len(), 2, "the image and its hard link");
    assert!(!desk.run(&["check", "--read-data"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_second_password_that_restic_added_opens_the_repository_too() {
    let desk = Desk::new("RESTIC019");
    let store = local(&desk.repository());
    made(&store).await;
    let file = desk.dir.path().join("second");
    fs::write(&file, "second password").unwrap();
    desk.restic(&["key", "add", "--new-password-file", file.to_str().unwrap()]);
    let second = bkp::secret::Secret::new("second password".to_owned());
    let run = Run::silent();
    let by_second = Repository::open(Arc::clone(&store), &second, &run).await.unwrap();
    let by_first = Repository::open(store, &secret(), &run).await.unwrap();
    assert_eq!(by_second.id(), by_first.id());
}

/// Ids of keys, short, as both list them, and the one in use first.
fn keys_by_restic(desk: &Desk, password: &str) -> (String, Vec<String>) {
    let output = desk.command(&["key", "list", "--json"]).env("RESTIC_PASSWORD", password).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let id = |key: &serde_json::Value| key["id"].as_str().unwrap()[..8].to_owned();
    let mut ids: Vec<String> = listed.iter().map(id).collect();
    ids.sort();
    (id(listed.iter().find(|key| key["current"] == true).unwrap()), ids)
}

async fn keys_by_bkp(desk: &Desk, password: &str) -> (String, Vec<String>) {
    let password = bkp::secret::Secret::new(password.to_owned());
    let repository = Repository::open(local(&desk.repository()), &password, &Run::silent()).await.unwrap();
    let list = repository.keys().await.unwrap();
    assert!(list.damaged.is_empty());
    let mut ids: Vec<String> = list.found.iter().map(|record| record.id.short()).collect();
    ids.sort();
    (repository.key().short(), ids)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn restic_and_bkp_agree_on_the_keys_whoever_added_changed_or_removed_them() {
    use bkp::keys::{Opened, PlaceKeys, Places, Removal, add, change};
    use bkp::repository::key::Cost;
    let cheap = Cost { log_n: 10, r: 8, p: 1 };
    let run = Run::silent();
    let password = |text: &str| bkp::secret::Secret::new(text.to_owned());
    for version in VERSIONS {
        let desk = Desk::new(version);
        let store = local(&desk.repository());
        let repository = made(&store).await;
        let agree = async |password: &str, count: usize| {
            let (restic, bkp) = (keys_by_restic(&desk, password), keys_by_bkp(&desk, password).await);
            assert_eq!(restic, bkp, "{version}, {password}");
            assert_eq!(bkp.1.len(), count, "{version}, {password}");
        };
        // By bkp, and restic opens with it.
        let first = Opened { name: "repository".to_owned(), repository: Arc::clone(&repository), ledger: None };
        let places = Places { first, copies: Vec::new() };
        let second = add(&places, &password("by bkp"), cheap, &run).await.unwrap().new;
        agree(PASSWORD, 2).await;
        agree("by bkp", 2).await;
        // By restic, and bkp opens with it.
        let file = desk.dir.path().join("third");
        fs::write(&file, "by restic").unwrap();
        desk.restic(&["key", "add", "--new-password-file", file.to_str().unwrap()]);
        agree("by restic", 3).await;
        // What restic added, bkp removes, and the other way round.
        let third = keys_by_bkp(&desk, "by restic").await.0;
        let removal = Removal::plan(&third, &[PlaceKeys::of(&places.first).await.unwrap()]).unwrap();
        assert_eq!(removal.apply(&places, &run).await.done, ["repository"]);
        agree(PASSWORD, 2).await;
        desk.restic(&["key", "remove", &second.short()]);
        agree(PASSWORD, 1).await;
        // A change by each.
        change(&places, &password(PASSWORD), &password("changed"), cheap, &run).await.unwrap();
        assert!(!desk.run(&["snapshots"]).status.success(), "the old password opens");
        agree("changed", 1).await;
        fs::write(&file, PASSWORD).unwrap();
        let args = ["key", "passwd", "--new-password-file", file.to_str().unwrap()];
        assert!(desk.command(&args).env("RESTIC_PASSWORD", "changed").status().unwrap().success());
        agree(PASSWORD, 1).await;
        desk.check();
    }
}
