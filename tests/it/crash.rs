//! A run cut at each store operation in turn: the old state or the new one, never between; then `restic` finds no error, and the
//! next run succeeds.
//!
//! A single save, a prune and a heal are cut in the same way in `repository.rs`, `prune.rs` and `heal.rs`, without restic, beside what
//! else they promise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bkp::backup::{self, Outcome};
use bkp::copy::copy;
use bkp::forget::{Alone, ForgetPlan};
use bkp::heal::heal;
use bkp::id::BlobId;
use bkp::policy::Policy;
use bkp::repository::{BlobKind, LockMode, Repository, StoredSnapshot};
use bkp::run::Run;
use bkp::store::faulty::{Asked, Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::{Level, Options, verify};
use futures_util::{StreamExt, stream};

use crate::damage::{DATA, flip, names};
use crate::heal::{healed, ward};
use crate::prune::{prune, thorough};
use crate::repository::{PASSWORD, local, made, noise, opened, read_all, secret};
use crate::restic::VERSIONS;
use crate::servers::program;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A tree of images, a policy for it, and places for a repository and a copy.
struct Shop {
    dir: tempfile::TempDir,
    policy: Policy,
}

impl Shop {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let text = format!(
            "version = 1\nname = \"mall\"\ntimezone = \"UTC\"\nstate_dir = \"{root}/state\"\n\
             [repository]\npath = \"{root}/repository\"\npassword_file = \"{root}/key\"\n\
             [files.images]\npath = \"{root}/images\"\n[retention]\nlast = 1\n"
        );
        let policy = Policy::parse(&text, Path::new("mall.toml")).unwrap();
        fs::create_dir_all(dir.path().join("images/shop1")).unwrap();
        let shop = Self { dir, policy };
        shop.write("shop1/stays.jpg", 1);
        shop.write("shop1/changes.jpg", 2);
        shop.write("goes.jpg", 3);
        shop
    }

    fn write(&self, name: &str, seed: u64) {
        fs::write(self.dir.path().join("images").join(name), noise(seed, 40_000)).unwrap();
    }

    fn change(&self) {
        self.write("shop1/changes.jpg", 4);
        self.write("new.jpg", 5);
        fs::remove_file(self.dir.path().join("images/goes.jpg")).unwrap();
    }

    fn images(&self) -> Files {
        let root = self.dir.path().join("images");
        let mut files = Files::new();
        for dir in [root.join("shop1"), root] {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self, name: &str) -> SharedStore {
        local(&self.place(name))
    }

    async fn back_up(&self, store: &SharedStore) -> Result<Outcome, String> {
        let run = Run::silent();
        let repository = Repository::open(store.clone(), &secret(), &run).await.map_err(|error| error.to_string())?;
        let outcome = backup::backup(&self.policy, &repository, &backup::Options::default(), &run).await;
        outcome.map_err(|error| error.to_string())
    }

    /// Backs up twice, with a change between, and returns what the images were at each.
    async fn backed_up_twice(&self) -> [Files; 2] {
        made(&self.store("repository")).await;
        let old = self.images();
        assert!(self.back_up(&self.store("repository")).await.unwrap().is_complete());
        self.change();
        assert!(self.back_up(&self.store("repository")).await.unwrap().is_complete());
        [old, self.images()]
    }

    /// Proves what each snapshot of a store holds, oldest first, and that nothing in it is damaged.
    async fn assert_holds(&self, name: &str, expected: &[&Files], what: &str) {
        let repository = opened(&self.store(name)).await;
        let options = Options { level: Level::Data, subset: None };
        let report = verify(&repository, options, &Run::silent()).await.unwrap();
        assert!(report.is_sound(), "{what}: {report:#?}");
        let snapshots = repository.snapshots().await.unwrap();
        assert_eq!(snapshots.len(), expected.len(), "{what}");
        for (stored, expected) in snapshots.iter().zip(expected) {
            assert_eq!(&files(&repository, stored).await, *expected, "{what}");
        }
    }

    /// Makes a repository of its own of a repository's directory.
    fn duplicate(&self, name: &str, to: &str) -> SharedStore {
        assert!(Command::new("cp").arg("-a").args([self.place(name), self.place(to)]).status().unwrap().success());
        self.store(to)
    }

    /// Asks restic, by turns the older and the newer.
    fn restic(&self, name: &str, args: &[&str], nth: u64) -> Output {
        let version = VERSIONS[usize::try_from(nth).unwrap() % VERSIONS.len()];
        let mut restic = Command::new(program(version));
        restic.args(["--no-cache", "-r"]).arg(self.place(name)).args(args);
        restic.env("RESTIC_PASSWORD", PASSWORD).env("HOME", self.dir.path()).output().unwrap()
    }

    fn assert_restic_finds_no_error(&self, name: &str, nth: u64) {
        let output = self.restic(name, &["check", "--read-data"], nth);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("no errors were found"), "cut at operation {nth}: {text}");
    }

    /// Returns which of the files that a snapshot should hold restic restores as they were.
    fn restored_by_restic(&self, name: &str, stored: &StoredSnapshot, files: &Files, nth: u64) -> BTreeSet<PathBuf> {
        let target = tempfile::tempdir_in(self.dir.path()).unwrap();
        // It fails where it misses one, and restores the others.
        self.restic(name, &["restore", &stored.id.to_string(), "--target", target.path().to_str().unwrap()], nth);
        let is_there = |path: &Path, bytes: &[u8]| {
            fs::read(target.path().join(path.strip_prefix("/").unwrap())).is_ok_and(|read| read == bytes)
        };
        files.iter().filter(|(path, bytes)| is_there(path, bytes)).map(|(path, _)| path.clone()).collect()
    }
}

async fn files(repository: &Repository, stored: &StoredSnapshot) -> Files {
    let files = read_all(repository, stored.snapshot.tree).await;
    files.into_iter().map(|(path, bytes)| (path, bytes.unwrap())).collect()
}

/// A store that is dead from its `nth` operation on.
fn dying(inner: SharedStore, nth: u64) -> (SharedStore, Arc<Faulty>) {
    let faulty = Arc::new(Faulty::new(inner));
    faulty.add(Rule::nth(Operation::Any, nth, Fault::Dead));
    (faulty.clone(), faulty)
}

/// Tells whether the store lived to its end, and takes away what only this process keeps of a killed one: its lock.
async fn buried(faulty: &Faulty, nth: u64) -> bool {
    faulty.heal();
    let lived = (faulty.count(Operation::Any) as u64) < nth;
    let store: &dyn bkp::store::Store = faulty;
    for lock in store.list(FileKind::Lock).await.unwrap() {
        store.delete(&Key::new(FileKind::Lock, lock.name)).await.unwrap();
    }
    lived
}

/// Knows what restic was asked about: a cut at a read leaves what the cut at the write before it left.
#[derive(Default)]
struct Judge(Mutex<BTreeSet<usize>>);

impl Judge {
    /// Tells whether no run before had written as much as one that died at its `nth` operation.
    fn is_new(&self, faulty: &Faulty, nth: u64) -> bool {
        let done = faulty.take_log().into_iter().take(usize::try_from(nth).unwrap() - 1);
        let is_write = |asked: &Asked| {
            asked.kind != FileKind::Lock && matches!(asked.operation, Operation::Put | Operation::Delete)
        };
        self.0.lock().unwrap().insert(done.filter(is_write).count())
    }

    /// Returns after how many writes restic was asked.
    fn asked(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_backup_that_is_killed_at_any_operation_leaves_the_old_state_or_the_new_one() {
    let mut cuts = 0;
    for nth in 1.. {
        let shop = Shop::new();
        let old = shop.images();
        made(&shop.store("repository")).await;
        assert!(shop.back_up(&shop.store("repository")).await.unwrap().is_complete());
        shop.change();
        let new = shop.images();
        let (store, faulty) = dying(shop.store("repository"), nth);
        let told = shop.back_up(&store).await.is_ok_and(|outcome| outcome.is_complete());
        if buried(&faulty, nth).await {
            assert!(told);
            break;
        }
        let what = format!("cut at operation {nth}");
        let is_new = opened(&shop.store("repository")).await.snapshots().await.unwrap().len() == 2;
        assert!(is_new || !told, "{what}: it says that it succeeded");
        let held: &[&Files] = if is_new { &[&old, &new] } else { &[&old] };
        shop.assert_holds("repository", held, &what).await;
        shop.assert_restic_finds_no_error("repository", nth);
        assert!(shop.back_up(&shop.store("repository")).await.unwrap().is_complete(), "{what}: the next run");
        let held = [held, &[&new]].concat();
        shop.assert_holds("repository", &held, &format!("{what}, and backed up again")).await;
        cuts += 1;
    }
    assert!(cuts > 20, "only {cuts} operations were cut");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_forget_that_is_killed_at_any_operation_leaves_the_old_state_or_the_new_one() {
    let mut cuts = 0;
    for nth in 1.. {
        let shop = Shop::new();
        let [old, new] = shop.backed_up_twice().await;
        let (store, faulty) = dying(shop.store("repository"), nth);
        let told = forget(&shop.policy, &store).await;
        if buried(&faulty, nth).await {
            assert_eq!(told, Ok(1));
            break;
        }
        let what = format!("cut at operation {nth}");
        let is_new = opened(&shop.store("repository")).await.snapshots().await.unwrap().len() == 1;
        let held: &[&Files] = if is_new { &[&new] } else { &[&old, &new] };
        shop.assert_holds("repository", held, &what).await;
        shop.assert_restic_finds_no_error("repository", nth);
        forget(&shop.policy, &shop.store("repository")).await.unwrap();
        shop.assert_holds("repository", &[&new], &format!("{what}, and forgotten again")).await;
        cuts += 1;
    }
    assert!(cuts > 5, "only {cuts} operations were cut");
}

/// Forgets as the program does; returns how many snapshots are said to be gone.
async fn forget(policy: &Policy, store: &SharedStore) -> Result<usize, String> {
    let run = Run::silent();
    let repository = Repository::open(store.clone(), &secret(), &run).await.map_err(|error| error.to_string())?;
    let lock = Alone::take(&repository, &run).await.map_err(|error| error.to_string())?;
    let snapshots = repository.snapshots().await.map_err(|error| error.to_string())?;
    let plan = ForgetPlan::new(&snapshots, policy, None, run.now());
    let forgotten = plan.apply(&repository, &lock, &run).await;
    let released = lock.into_guard().release().await;
    match forgotten.failed.first() {
        Some((_, error)) => Err(error.to_string()),
        None => released.map(|()| forgotten.done.len()).map_err(|error| error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_copy_whose_target_dies_at_any_operation_is_sound_and_the_next_one_ends_it() {
    let mut cuts = 0;
    for nth in 1.. {
        let shop = Shop::new();
        let [old, new] = shop.backed_up_twice().await;
        fs::create_dir(shop.place("copy")).unwrap();
        let (to, faulty) = dying(shop.store("copy"), nth);
        let told = copied(&shop.store("repository"), &to).await;
        let lived = buried(&faulty, nth).await;
        let what = format!("target cut at operation {nth}");
        if lived {
            assert!(told);
            shop.assert_holds("copy", &[&old, &new], &what).await;
            break;
        }
        assert!(!told, "{what}: it says that it succeeded");
        assert_copy_is_sound_and_ends(&shop, [&old, &new], nth, &what).await;
        cuts += 1;
    }
    assert!(cuts > 15, "only {cuts} operations were cut");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_copy_whose_repository_dies_at_any_operation_is_sound_and_the_next_one_ends_it() {
    let mut cuts = 0;
    for nth in 1.. {
        let shop = Shop::new();
        let [old, new] = shop.backed_up_twice().await;
        fs::create_dir(shop.place("copy")).unwrap();
        let (from, faulty) = dying(shop.store("repository"), nth);
        let told = copied(&from, &shop.store("copy")).await;
        if buried(&faulty, nth).await {
            assert!(told);
            break;
        }
        let what = format!("repository cut at operation {nth}");
        assert_copy_is_sound_and_ends(&shop, [&old, &new], nth, &what).await;
        shop.assert_holds("repository", &[&old, &new], &what).await;
        cuts += 1;
    }
    assert!(cuts > 15, "only {cuts} operations were cut");
}

/// Whatever snapshot has arrived has arrived whole, and the next copy brings the rest.
async fn assert_copy_is_sound_and_ends(shop: &Shop, all: [&Files; 2], nth: u64, what: &str) {
    let to = shop.store("copy");
    let is_repository = to.size(&Key::config()).await.unwrap().is_some();
    let published = to.list(FileKind::Snapshot).await.unwrap().len();
    assert!(is_repository || published == 0, "{what}: snapshots without a config");
    if is_repository {
        let repository = opened(&to).await;
        for stored in repository.snapshots().await.unwrap() {
            assert!(all.contains(&&files(&repository, &stored).await), "{what}");
        }
        shop.assert_restic_finds_no_error("copy", nth);
    }
    assert!(copied(&shop.store("repository"), &to).await, "{what}: the next copy");
    shop.assert_holds("copy", &all, what).await;
    shop.assert_restic_finds_no_error("copy", nth);
}

/// Copies as the program does, and tells whether all has arrived.
async fn copied(from: &SharedStore, to: &SharedStore) -> bool {
    let run = Run::silent();
    let Ok(repository) = Repository::open(from.clone(), &secret(), &run).await else {
        return false;
    };
    let Ok(lock) = repository.lock(LockMode::Shared, Duration::ZERO, &run).await else {
        return false;
    };
    let copied = copy(&repository, to, 2, &run).await;
    lock.release().await.ok();
    copied.is_ok_and(|copied| copied.is_complete())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_prune_that_is_killed_at_any_operation_loses_nothing_and_the_next_one_ends_it() {
    let shop = Shop::new();
    let [_, new] = shop.backed_up_twice().await;
    assert_eq!(forget(&shop.policy, &shop.store("repository")).await, Ok(1));
    let (mut cuts, judge) = (0, Judge::default());
    for nth in 1.. {
        let (what, name) = (format!("cut at operation {nth}"), format!("cut-{nth}"));
        let (store, faulty) = dying(shop.duplicate("repository", &name), nth);
        let told = prune(&store, &thorough()).await;
        if buried(&faulty, nth).await {
            assert!(told.is_ok_and(|pruned| pruned.packs_deleted > 0 && pruned.failed.is_empty()));
            break;
        }
        let is_new = judge.is_new(&faulty, nth);
        shop.assert_holds(&name, &[&new], &what).await;
        if is_new {
            shop.assert_restic_finds_no_error(&name, nth);
        }
        prune(&shop.store(&name), &thorough()).await.unwrap();
        let repository = opened(&shop.store(&name)).await;
        let plan = bkp::prune::plan(&repository, &thorough(), &Run::silent()).await.unwrap();
        assert!(plan.is_empty(), "{what}, and pruned again: {plan:?}");
        shop.assert_holds(&name, &[&new], &format!("{what}, and pruned again")).await;
        if is_new {
            shop.assert_restic_finds_no_error(&name, nth);
        }
        cuts += 1;
    }
    assert!(cuts > 15 && judge.asked() > 5, "{cuts} operations were cut, after {} writes", judge.asked());
}

/// Hurts a repository of two backups so that restic still opens it and reads on: a file of the older snapshot; and the newer one, its
/// index and its files. Returns the older one.
async fn hurt(store: &SharedStore) -> StoredSnapshot {
    let repository = opened(store).await;
    let place = repository.locate(BlobKind::Data, &BlobId::of(&noise(3, 40_000))).unwrap();
    let pack = Key::new(FileKind::Pack, place.pack.to_string());
    let mut bytes = store.get(&pack).await.unwrap().to_vec();
    bytes[place.blob.offset as usize + 40] ^= 1;
    store.put(&pack, bytes.into()).await.unwrap();

    let [old, new] = repository.snapshots().await.unwrap().try_into().unwrap();
    let is_new = BlobId::of(&noise(5, 40_000));
    let lost = repository.pack_of(BlobKind::Data, &is_new).unwrap();
    assert_ne!(lost, place.pack);
    store.delete(&Key::new(FileKind::Pack, lost.to_string())).await.unwrap();
    flip(store, &Key::new(FileKind::Snapshot, new.id.to_string())).await;
    for index in names(store, FileKind::Index).await {
        let bytes = store.get(&index).await.unwrap();
        store.delete(&index).await.unwrap();
        if !opened(store).await.has(BlobKind::Data, &is_new) {
            break;
        }
        store.put(&index, bytes).await.unwrap();
    }
    assert_eq!(names(store, FileKind::Index).await.len(), 1);
    old
}

/// A shop whose repository is hurt, the copy that has it whole, and what restic still reads.
struct Hurt {
    shop: Shop,
    images: [Files; 2],
    copy: SharedStore,
    older: StoredSnapshot,
    read: BTreeSet<PathBuf>,
    judge: Judge,
}

impl Hurt {
    async fn new() -> Self {
        let shop = Shop::new();
        let images = shop.backed_up_twice().await;
        fs::create_dir(shop.place("copy")).unwrap();
        let copy = shop.store("copy");
        assert!(copied(&shop.store("repository"), &copy).await);
        let older = hurt(&shop.store("repository")).await;
        let [read, also] = [0, 1].map(|nth| shop.restored_by_restic("repository", &older, &images[0], nth));
        assert!(read == also && read.len() == images[0].len() - 1, "one file is lost: {read:?} {also:?}");
        Self { shop, images, copy, older, read, judge: Judge::default() }
    }
}

/// Cuts a heal at its `nth` operation on the store that is mended, and tells whether it got so far.
async fn heal_cut_at(nth: u64, hurt: Arc<Hurt>) -> bool {
    let Hurt { shop, images, copy, older, read, judge } = &*hurt;
    let (what, name) = (format!("cut at operation {nth}"), format!("cut-{nth}"));
    let faulty = Arc::new(Faulty::new(shop.duplicate("repository", &name)));
    let store: SharedStore = faulty.clone();
    let patient = ward(&store, &[("copy", copy)]).await;
    // Opening is no work of the heal's.
    faulty.take_log();
    faulty.add(Rule::nth(Operation::Any, nth, Fault::Dead));
    let told = heal(&patient, DATA, &Run::silent()).await;
    if buried(&faulty, nth).await {
        assert!(told.unwrap().is_sound());
        return false;
    }
    let is_new = judge.is_new(&faulty, nth);
    if is_new {
        let still = shop.restored_by_restic(&name, older, &images[0], nth);
        assert!(still.is_superset(read), "{what}: restic read {read:?} before, and now {still:?}");
    }
    let again = healed(&shop.store(&name), &[("copy", copy)], DATA).await;
    assert!(again.is_sound(), "{what}, and healed again: {again:#?}");
    shop.assert_holds(&name, &[&images[0], &images[1]], &format!("{what}, and healed again")).await;
    if is_new {
        shop.assert_restic_finds_no_error(&name, nth);
    }
    fs::remove_dir_all(shop.place(&name)).unwrap();
    true
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_heal_that_is_killed_at_any_operation_takes_nothing_from_restic_and_the_next_one_ends_it() {
    // A heal waits for locks to settle more than it works: many at once take hardly longer than one.
    let hurt = Arc::new(Hurt::new().await);
    let cuts = stream::iter(1..).map(|nth| tokio::spawn(heal_cut_at(nth, Arc::clone(&hurt)))).buffered(16);
    let cuts = cuts.take_while(|is_cut| std::future::ready(*is_cut.as_ref().unwrap())).count().await;
    let asked = hurt.judge.asked();
    assert!(cuts > 40 && asked > 3, "{cuts} operations were cut, after {asked} writes");
}
