//! What a restore asks of its store: how often, how much at once, and what it does when the store does not answer.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bkp::entry::{DEPTH_MAX, Kind, Metadata};
use bkp::repository::{Node, Repository, RepositoryError, StoredSnapshot, Tree};
use bkp::restore::files::{Options, RestoreFilesError, What, apply, plan};
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::local::LocalStore;
use bkp::store::memory::MemoryStore;
use bkp::store::{Key, Store, StoreError};
use bytes::Bytes;

use super::told;
use super::world::{PASSWORD, World, noise};
use crate::wrapper::{Wrapped, Wrapper};

/// A world whose store keeps a log, with a thousand small images in a hundred directories.
fn a_thousand_images() -> (Arc<Faulty>, World, StoredSnapshot) {
    let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::new())));
    let world = World::on(faulty.clone());
    for number in 0..1_000_u64 {
        world.write(&format!("{}/{}/{number}.jpg", number % 10, number % 100), &noise(number, 3_000));
    }
    let (_, snapshot) = world.backup(None);
    faulty.take_log();
    (faulty, world, snapshot)
}

#[test]
fn a_thousand_small_files_in_a_hundred_directories_cost_a_handful_of_requests() {
    let (faulty, world, snapshot) = a_thousand_images();
    let restored = world.restore(&snapshot);
    assert_eq!((restored.files, restored.dirs, restored.failures), (1_000, 110, 0));
    // The path to the tree and the trees lie in one pack, the images in another.
    let requests = faulty.count(Operation::Get) + faulty.count(Operation::GetRange);
    assert!((2..=4).contains(&requests), "{requests} requests");
    assert_eq!(told(&world.compare(&snapshot, &world.target())), []);
}

#[test]
fn a_store_that_never_answers_does_not_outlive_a_signal() {
    let (faulty, world, snapshot) = a_thousand_images();
    // First the images, then the trees, whose reading begins anew with another repository.
    let planned = world.plan(&snapshot, world.options(&[])).unwrap();
    faulty.take_log();
    faulty.add(Rule::every(Operation::GetRange, Fault::Stall));
    let stopped = std::thread::scope(|scope| {
        let restore = scope.spawn(|| apply(&planned, &world.repository, &world.run));
        while faulty.count(Operation::GetRange) == 0 {
            std::thread::yield_now();
        }
        world.run.cancel.cancel();
        restore.join().unwrap()
    });
    assert!(matches!(stopped, Err(RestoreFilesError::Stopped(_))), "{stopped:?}");

    let run = Run::silent();
    let repository = world.reopen(&run);
    faulty.take_log();
    let stopped = std::thread::scope(|scope| {
        let planning = scope.spawn(|| plan(&repository, &snapshot.snapshot, world.options(&[]), &run));
        while faulty.count(Operation::GetRange) == 0 {
            std::thread::yield_now();
        }
        run.cancel.cancel();
        planning.join().unwrap()
    });
    assert!(matches!(stopped, Err(RestoreFilesError::Stopped(_))), "{stopped:?}");
}

#[test]
fn a_store_that_is_away_is_not_asked_for_each_file() {
    let (faulty, world, snapshot) = a_thousand_images();
    let planned = world.plan(&snapshot, world.options(&[])).unwrap();
    faulty.take_log();
    faulty.add(Rule::every(Operation::GetRange, Fault::Transient));
    let failed = apply(&planned, &world.repository, &world.run).unwrap_err();
    let RestoreFilesError::Repository(RepositoryError::Store(error)) = failed else { panic!("{failed}") };
    assert!(error.is_transient(), "{error}");
    assert_eq!(faulty.count(Operation::GetRange), 1);
    // Once it is back, the same plan goes through.
    faulty.heal();
    assert_eq!(world.restore(&snapshot).failures, 0);
}

#[test]
fn a_cut_pack_costs_only_the_files_that_lay_past_its_end() {
    let (_, world, snapshot) = a_thousand_images();
    let (key, bytes) = world.lose_pack_of(&snapshot, "0/0/0.jpg");
    let half = bytes.len() / 2;
    world.heal((key.clone(), bytes.slice(..half)));
    let restored = world.restore(&snapshot);
    assert_eq!(restored.files + restored.failures, 1_000);
    // Half of the pack; its header takes some blobs' worth of it.
    assert!((490..=501).contains(&restored.failures), "{} lost", restored.failures);
    assert_eq!(restored.damaged, restored.failures);
    world.heal((key, bytes));
    let restored = world.restore(&snapshot);
    assert_eq!((restored.files, restored.failures), (1_000, 0));
    assert!((499..=510).contains(&restored.skipped), "{} kept", restored.skipped);
    assert_eq!(told(&world.compare(&snapshot, &world.target())), []);
}

/// A store that knows how many of the bytes that it gave out are still held.
struct Lending {
    inner: MemoryStore,
    lent: Arc<AtomicU64>,
    lent_max: AtomicU64,
}

/// Bytes that were lent, and come back when the last who holds them lets go.
struct Lent {
    bytes: Bytes,
    lent: Arc<AtomicU64>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.lent.fetch_sub(self.bytes.len() as u64, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Wrapper for Lending {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get_range(key, range).await?;
        let now = self.lent.fetch_add(bytes.len() as u64, Ordering::SeqCst) + bytes.len() as u64;
        self.lent_max.fetch_max(now, Ordering::SeqCst);
        Ok(Bytes::from_owner(Lent { bytes, lent: Arc::clone(&self.lent) }))
    }
}

#[test]
fn however_fast_a_store_is_no_more_than_64_mib_wait_to_be_written() {
    const BOUND: u64 = 64 << 20;
    let lent = Arc::new(AtomicU64::new(0));
    let lending = Lending { inner: MemoryStore::new(), lent: lent.clone(), lent_max: AtomicU64::new(0) };
    let store = Arc::new(Wrapped(lending));
    let world = World::on(store.clone());
    for number in 0..9_u64 {
        world.write(&format!("{number}.raw"), &noise(number, 8 << 20));
    }
    let (_, snapshot) = world.backup(None);
    let restored = world.restore(&snapshot);
    assert_eq!((restored.files, restored.failures), (9, 0));
    let max = store.0.lent_max.load(Ordering::SeqCst);
    // Several stretches at once, and the trees that are kept beside them.
    assert!((BOUND / 2..=BOUND + (1 << 20)).contains(&max), "{max} bytes at once");
    assert!(lent.load(Ordering::SeqCst) < 1 << 20, "bytes are held for ever");
}

/// A store that kills its own process once a directory has so many files.
struct Killing {
    inner: LocalStore,
    watched: PathBuf,
}

#[async_trait::async_trait]
impl Wrapper for Killing {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    /// Only what begins a pack comes: the restore writes that, and waits for the rest until it is killed.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.start == 0 {
            return self.inner.get_range(key, range).await;
        }
        loop {
            let names = fs::read_dir(&self.watched).into_iter().flatten().flatten();
            let written = names.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count();
            if written >= 10 {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Restores from a repository into a directory beside it, and is killed while it does.
fn be_killed(at: &Path) {
    let target = at.join("restored");
    let killing = Killing { inner: LocalStore::new(at.join("repository")), watched: target.join("shop") };
    let store = Arc::new(Wrapped(killing));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = Run::silent();
    let secret = Secret::new(PASSWORD.to_owned());
    let repository = runtime.block_on(Repository::open(store, &secret, &run)).unwrap();
    runtime.block_on(repository.load_index(&run)).unwrap();
    let snapshot = runtime.block_on(repository.snapshots()).unwrap().remove(0).snapshot;
    let options =
        Options { target, selection: bkp::restore::files::Selection::default(), overwrite: false, threads: 4 };
    let planned = plan(&repository, &snapshot, options, &run).unwrap();
    apply(&planned, &repository, &run).unwrap();
}

#[test]
fn a_restore_that_was_killed_goes_on_where_it_stopped() {
    if let Some(at) = std::env::var_os("BKP_TEST_KILLED_AT") {
        be_killed(Path::new(&at));
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let world = World::on(Arc::new(LocalStore::new(at.path().join("repository"))));
    for number in 0..120_u64 {
        world.write(&format!("shop/{number}.jpg"), &noise(number, 100_000));
    }
    world.write("shop/film", &noise(999, 6 << 20));
    let (_, snapshot) = world.backup(None);
    let killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "files::fetch::a_restore_that_was_killed_goes_on_where_it_stopped"])
        .env("BKP_TEST_KILLED_AT", at.path())
        .output()
        .unwrap();
    assert_eq!(killed.status.signal(), Some(9), "{}", String::from_utf8_lossy(&killed.stdout));

    let target = at.path().join("restored");
    let options = Options { target: target.clone(), ..world.options(&[]) };
    let restored = world.restore_with(&snapshot, options);
    assert_eq!((restored.files, restored.failures), (121, 0));
    assert!((10..121).contains(&restored.skipped), "{} were there", restored.skipped);
    assert_eq!(told(&world.compare(&snapshot, &target)), []);
}

#[test]
fn a_name_whose_first_one_cannot_be_written_is_written_itself() {
    let world = World::new();
    world.write("a/x", &noise(1, 3 << 20));
    for name in ["b/x", "c/x"] {
        fs::create_dir_all(world.path(name).parent().unwrap()).unwrap();
        fs::hard_link(world.path("a/x"), world.path(name)).unwrap();
    }
    let (_, snapshot) = world.backup(None);
    // A directory stands where the first name belongs.
    fs::create_dir_all(world.target().join("a/x/full")).unwrap();
    let restored = world.restore_with(&snapshot, Options { overwrite: true, ..world.options(&[]) });
    assert_eq!((restored.files, restored.failures), (2, 1));
    assert_eq!(restored.failed[0].0, Path::new("a/x"));
    let inode = |name: &str| fs::metadata(world.target().join(name)).unwrap().ino();
    assert_eq!(inode("b/x"), inode("c/x"));
    assert_eq!(fs::read(world.target().join("b/x")).unwrap(), noise(1, 3 << 20));
}

#[test]
fn a_tree_that_is_deeper_than_any_is_a_failure_and_no_crash() {
    let world = World::new();
    let saved = world.save_tree_of(|writer| {
        let mut nodes = Vec::new();
        for level in 0..3_000 {
            let subtree = Some(writer.save_tree(&Tree { nodes }).unwrap());
            let metadata = Metadata { inode: level, ..directory() };
            nodes = vec![Node { name: "d".into(), metadata, content: Vec::new(), subtree }];
        }
        writer.save_tree(&Tree { nodes }).unwrap()
    });
    let planned = world.plan(&saved, world.options(&[])).unwrap();
    assert_eq!(planned.missing.len(), 1);
    let restored = apply(&planned, &world.repository, &world.run).unwrap();
    assert_eq!((restored.failures, restored.damaged), (1, 0));
    assert!(restored.failed[0].1.contains(&format!("deeper than {DEPTH_MAX}")), "{:?}", restored.failed[0]);
}

fn directory() -> Metadata {
    let time = chrono::DateTime::from_timestamp(1_000_000_000, 0).unwrap();
    Metadata {
        kind: Kind::Dir,
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        user: String::new(),
        group: String::new(),
        size: 0,
        mtime: time,
        atime: time,
        ctime: time,
        device: 1,
        inode: 1,
        links: 1,
        xattrs: Vec::new(),
    }
}

#[test]
fn only_the_target_itself_is_closed_while_it_is_filled() {
    let world = World::with_images();
    let (_, snapshot) = world.backup(None);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::create_dir(world.dir.path().join("plain")).unwrap();
    let above = world.dir.path().join("above");
    let options = Options { target: above.join("restored"), ..world.options(&["top.jpg"]) };
    world.restore_with(&snapshot, options);
    assert_eq!(mode(&above), mode(&world.dir.path().join("plain")));
    // Of a part of a tree nothing says what the top's mode is to be.
    assert_eq!(mode(&above.join("restored")), 0o700);
}

#[test]
fn what_was_chosen_is_compared_and_nothing_else() {
    let world = World::with_images();
    world.write("other/deep/3.png", b"3");
    let (_, snapshot) = world.backup(None);
    let planned = world.plan(&snapshot, world.options(&["**/*.png", "shop"])).unwrap();
    apply(&planned, &world.repository, &world.run).unwrap();
    assert_eq!(told(&world.compare_chosen(&planned)), []);
    fs::remove_dir_all(world.target().join("other")).unwrap();
    fs::write(world.target().join("shop/extra"), b"").unwrap();
    fs::write(world.target().join("beside"), b"").unwrap();
    let mut found = world.compare_chosen(&planned);
    let expected = [("other/deep/3.png".into(), What::Missing), ("shop".into(), What::Mtime)];
    assert_eq!(told(&found)[..2], expected);
    assert_eq!(told(&found)[2..], [("shop/extra".into(), What::Extra)]);
    assert_eq!((found.differing, found.damaged), (3, 1));
    found.leave_out_extra();
    assert_eq!((found.differing, told(&found)), (2, expected.to_vec()));
}
