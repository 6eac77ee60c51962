//! A store is mended from the others: by bytes that hash right, in any direction, whatever is cut on the way; and nothing is deleted
//! that could not be replaced.

mod donors;
mod program;
mod put_back;
mod rebuild;
mod salvage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bkp::copy;
use bkp::heal::{Donor, Heal, HealPlan, Healed, How, Ward, heal};
use bkp::repository::{Repository, StoredSnapshot};
use bkp::run::Run;
use bkp::store::{FileKind, Key, SharedStore};
use bkp::verify::{Options, Report};
use bytes::Bytes;

use crate::damage::{flip, names, pack_of, tree_pack};
use crate::repository::{made, memory, noise, opened, read_all, save, secret};

const KINDS: [FileKind; 5] = [FileKind::Config, FileKind::Key, FileKind::Pack, FileKind::Index, FileKind::Snapshot];

/// Every object of a store but locks.
pub(crate) type Objects = BTreeMap<Key, Bytes>;

pub(crate) async fn stored(store: &SharedStore) -> Objects {
    let mut objects = Objects::new();
    for kind in KINDS {
        for key in names(store, kind).await {
            let bytes = store.get(&key).await.unwrap();
            objects.insert(key, bytes);
        }
    }
    objects
}

/// A store with its donors, opened by its own keys or, where these are lost, by those of the first donor.
pub(crate) async fn ward(store: &SharedStore, donors: &[(&str, &SharedStore)]) -> Ward {
    let run = Run::silent();
    let repository = match Repository::open(Arc::clone(store), &secret(), &run).await {
        Ok(repository) => repository,
        Err(_) => opened(donors[0].1).await.in_store(Arc::clone(store), &run),
    };
    let donors = donors.iter().map(|(name, store)| Donor { name: (*name).to_owned(), store: Arc::clone(store) });
    Ward {
        name: "patient".to_owned(),
        repository,
        donors: donors.collect(),
        away: Vec::new(),
        salvages: false,
        lock_wait: Duration::ZERO,
    }
}

pub(crate) async fn healed(store: &SharedStore, donors: &[(&str, &SharedStore)], options: Options) -> Healed {
    heal(&ward(store, donors).await, options, &Run::silent()).await.unwrap()
}

/// Returns what a look finds, and what a heal would do about it first.
async fn planned(ward: &Ward, options: Options) -> (Report, HealPlan) {
    let run = Run::silent();
    let heal = Heal::begin(&ward.name, &ward.repository, options, &run).await.unwrap();
    let plan = heal.plan(ward, &run).await.unwrap();
    (heal.end().report, plan)
}

pub(crate) async fn copied(from: &SharedStore, to: &SharedStore) {
    let done = copy::copy(&*opened(from).await, to, 4, &Run::silent()).await.unwrap();
    assert!(done.is_complete(), "{done:?}");
}

/// A repository with two snapshots that share most.
async fn shop() -> (SharedStore, [StoredSnapshot; 2]) {
    let store = memory();
    let repository = made(&store).await;
    let mut images = vec![("/images/1/a.jpg", noise(1, 20_000)), ("/images/2/b.jpg", noise(2, 30_000))];
    let first = save(&repository, &images).await;
    images.push(("/images/1/new.jpg", noise(99, 40_000)));
    let second = save(&repository, &images).await;
    (store, [first, second])
}

/// The same, and a copy of it.
async fn shop_with_copy() -> (SharedStore, SharedStore, [StoredSnapshot; 2]) {
    let (store, snapshots) = shop().await;
    let copy = memory();
    copied(&store, &copy).await;
    (store, copy, snapshots)
}

/// Returns what came back, and from which store.
fn sources(healed: &Healed) -> Vec<(String, &str)> {
    let mut sources = Vec::new();
    for mended in &healed.mended {
        if let How::From(store) = &mended.how {
            sources.push((mended.what.clone(), store.as_str()));
        }
    }
    sources
}

/// Hurts one object of each kind, so that a heal has all of its work to do: even an index to make and a pack that only the copy knows.
async fn hurt_everywhere(store: &SharedStore, snapshots: &[StoredSnapshot; 2]) {
    let lost = pack_of(store, &noise(99, 40_000)).await;
    flip(store, &tree_pack(store, &snapshots[0]).await).await;
    for index in names(store, FileKind::Index).await {
        store.put(&index, Bytes::new()).await.unwrap();
    }
    store.delete(&lost).await.unwrap();
    flip(store, &Key::new(FileKind::Snapshot, snapshots[1].id.to_string())).await;
    flip(store, &Key::config()).await;
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

async fn files(store: &SharedStore, snapshot: &StoredSnapshot) -> Files {
    let files = read_all(&*opened(store).await, snapshot.snapshot.tree).await;
    files.into_iter().map(|(path, bytes)| (path, bytes.unwrap())).collect()
}

/// A copy that holds no index of what the repository lost: then a new one has to be made.
async fn without_indexes(copy: &SharedStore) -> SharedStore {
    let bare = memory();
    for (key, bytes) in stored(copy).await {
        if key.kind != FileKind::Index {
            bare.put(&key, bytes).await.unwrap();
        }
    }
    let repository = opened(&bare).await;
    repository.load_index_and_headers(&Run::silent()).await.unwrap();
    repository.save_recovered_index().await.unwrap();
    bare
}

/// A small repository that is hurt everywhere, and its copy.
struct Hurt {
    snapshots: [StoredSnapshot; 2],
    expected: [Files; 2],
    objects: Objects,
    copy: SharedStore,
}

impl Hurt {
    async fn new(store: &SharedStore) -> Self {
        let repository = made(store).await;
        let shared = ("/a.jpg", noise(1, 20_000));
        let first = save(&repository, &[shared.clone(), ("/b.jpg", noise(2, 30_000))]).await;
        let second = save(&repository, &[shared, ("/new.jpg", noise(99, 40_000))]).await;
        let copy = memory();
        copied(store, &copy).await;
        let copy = without_indexes(&copy).await;
        let snapshots = [first, second];
        let expected = [files(store, &snapshots[0]).await, files(store, &snapshots[1]).await];
        hurt_everywhere(store, &snapshots).await;
        Self { objects: stored(store).await, snapshots, expected, copy }
    }
}

/// Heals, and fails where that does not come to an end.
async fn healed_in_time(store: &SharedStore, donors: &[(&str, &SharedStore)], options: Options) -> Healed {
    tokio::time::timeout(Duration::from_mins(1), healed(store, donors, options)).await.expect("a heal that ends")
}
