//! A run cut at each store operation in turn: the old state or the new one, never between; then `restic` finds no error, and the
//! next run succeeds.
//!
//! A single save and a prune are cut in the same way in `repository.rs` and `prune.rs`, beside what else they promise.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bkp::backup::{self, Outcome};
use bkp::copy::copy;
use bkp::forget::{Alone, ForgetPlan};
use bkp::policy::Policy;
use bkp::repository::{LockMode, Repository, StoredSnapshot};
use bkp::run::Run;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::{Level, Options, verify};

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

    /// Asks restic, by turns the older and the newer.
    fn assert_restic_finds_no_error(&self, name: &str, nth: u64) {
        let version = VERSIONS[usize::try_from(nth).unwrap() % VERSIONS.len()];
        let mut restic = Command::new(program(version));
        restic.args(["--no-cache", "check", "--read-data", "-r"]).arg(self.place(name));
        let output = restic.env("RESTIC_PASSWORD", PASSWORD).env("HOME", self.dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("no errors were found"), "cut at operation {nth}: {text}");
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
