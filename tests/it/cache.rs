//! The cache of a faraway repository: what it spares, and that nothing that becomes of it does harm.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bkp::event::{Event, Events, Listener};
use bkp::place;
use bkp::policy::Policy;
use bkp::repository::{Repository, StoredSnapshot};
use bkp::run::Run;
use bkp::store::cache::{BYTES_MAX, Cache};
use bkp::store::faulty::{Asked, Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};

use crate::repository::{PASSWORD, made, memory, noise, opened, read_all, save, secret};
use crate::servers::S3;

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![("/images/1/a.jpg", noise(1, 3000)), ("/images/2/b.jpg", noise(2, 5000)), ("/images/empty", Vec::new())]
}

/// A store that counts what it is asked, a repository in it, and a directory for a cache.
struct Far {
    inner: SharedStore,
    faulty: Arc<Faulty>,
    snapshot: StoredSnapshot,
    dir: tempfile::TempDir,
}

impl Far {
    async fn new(inner: SharedStore) -> Self {
        let snapshot = save(&made(&inner).await, &files()).await;
        let (faulty, dir) = (Arc::new(Faulty::new(Arc::clone(&inner))), tempfile::tempdir().unwrap());
        Self { inner, faulty, snapshot, dir }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache/offsite")
    }

    /// Opens the repository as another process would.
    async fn open_at(&self, cache: &Path, bytes_max: u64, events: Events) -> Arc<Repository> {
        let (store, run): (SharedStore, _) = (self.faulty.clone(), Run::silent());
        let repository = Repository::open(Arc::clone(&store), &secret(), &run).await.unwrap();
        repository.read_through(Cache::new(store, cache, bytes_max, events));
        self.faulty.take_log();
        let snapshots = repository.list_snapshots().await.unwrap();
        assert_eq!((snapshots.found, snapshots.damaged.len()), (vec![self.snapshot.clone()], 0));
        repository.load_index(&run).await.unwrap();
        assert!(repository.index_faults().is_empty());
        repository
    }

    async fn open(&self) -> Arc<Repository> {
        self.open_at(&self.cache(), BYTES_MAX, Events::silent()).await
    }

    /// Opens it, proves that every file comes back, and returns what the store was asked to get of indexes, snapshots and trees.
    async fn read(&self) -> Vec<Asked> {
        let repository = self.open().await;
        self.prove(&repository).await;
        self.asked(&repository)
    }

    async fn prove(&self, repository: &Repository) {
        let read = read_all(repository, self.snapshot.snapshot.tree).await;
        let expected: BTreeMap<PathBuf, Vec<u8>> =
            files().into_iter().map(|(path, bytes)| (path.into(), bytes)).collect();
        let read: BTreeMap<PathBuf, Vec<u8>> = read.into_iter().map(|(path, bytes)| (path, bytes.unwrap())).collect();
        assert!(read == expected);
    }

    fn asked(&self, repository: &Repository) -> Vec<Asked> {
        let data = repository.packs().into_iter().filter(|pack| pack.blobs[0].kind == bkp::repository::BlobKind::Data);
        let data: Vec<_> = data.map(|pack| pack.id.to_string()).collect();
        let mut asked = self.faulty.take_log();
        asked.retain(|it| matches!(it.operation, Operation::Get | Operation::GetRange) && !data.contains(&it.name));
        asked
    }

    fn files(&self) -> Vec<PathBuf> {
        let dirs = ["index", "snapshots", "packs"].map(|dir| self.cache().join(dir));
        let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[tokio::test]
async fn what_was_read_once_is_not_fetched_again() {
    let s3 = S3::start();
    for inner in [memory(), Arc::new(crate::s3::open(&s3).await)] {
        let far = Far::new(inner).await;
        let first = far.read().await;
        let kinds = [FileKind::Index, FileKind::Snapshot, FileKind::Pack];
        assert!(kinds.iter().all(|kind| first.iter().any(|asked| asked.kind == *kind)), "{first:?}");
        assert!(far.read().await.is_empty());
        assert_eq!(far.files().len(), first.len());
    }
}

#[tokio::test]
async fn everything_in_it_is_as_it_lies_in_the_store() {
    let far = Far::new(memory()).await;
    far.read().await;
    for file in far.files() {
        let (bytes, name) = (fs::read(&file).unwrap(), file.file_name().unwrap().to_str().unwrap());
        let dir = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let there = match (dir, &name.split('-').collect::<Vec<_>>()[..]) {
            ("index", [name]) => far.inner.get(&Key::new(FileKind::Index, *name)).await,
            ("snapshots", [name]) => far.inner.get(&Key::new(FileKind::Snapshot, *name)).await,
            ("packs", [pack, start, end]) => {
                let range = start.parse().unwrap()..end.parse().unwrap();
                far.inner.get_range(&Key::new(FileKind::Pack, *pack), range).await
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(there.unwrap(), bytes);
    }
}

#[tokio::test]
async fn bytes_that_rot_in_it_are_dropped_and_fetched_again() {
    let far = Far::new(memory()).await;
    let first = far.read().await;
    let flip = |bytes: &mut Vec<u8>| bytes.iter_mut().for_each(|byte| *byte ^= 1);
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let rots: [fn(&mut Vec<u8>); 3] = [flip, cut, Vec::clear];
    for rot in rots {
        for file in far.files() {
            let before = fs::read(&file).unwrap();
            let mut bytes = before.clone();
            rot(&mut bytes);
            assert_ne!(bytes, before);
            fs::write(&file, bytes).unwrap();
        }
        // Of a stretch that does not open, the tree that was wanted is fetched alone, and the stretch the next time.
        assert!(!far.read().await.is_empty());
        far.read().await;
        assert!(far.read().await.is_empty());
        assert_eq!(far.files().len(), first.len());
    }
}

#[tokio::test]
async fn damage_that_came_from_the_store_does_not_stay() {
    let far = Far::new(memory()).await;
    far.faulty.add(Rule::every(Operation::GetRange, Fault::Flip).of(FileKind::Pack));
    let repository = far.open().await;
    assert!(read_all(&repository, far.snapshot.snapshot.tree).await.values().any(Result::is_err));
    far.faulty.heal();
    far.read().await;
    far.read().await;
    assert!(far.read().await.is_empty());
}

#[tokio::test]
async fn it_may_be_deleted_at_any_moment() {
    let far = Far::new(memory()).await;
    let repository = far.open().await;
    fs::remove_dir_all(far.cache()).unwrap();
    far.prove(&repository).await;
    assert!(!far.files().is_empty(), "it is made anew");
    fs::remove_dir_all(far.cache()).unwrap();
    assert!(!far.read().await.is_empty());
    assert!(far.read().await.is_empty());
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Listener for Warnings {
    fn hear(&self, event: &Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

#[tokio::test]
async fn one_that_cannot_be_written_is_told_once_and_done_without() {
    let far = Far::new(memory()).await;
    // Not even root makes a directory below a file.
    let file = far.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let heard = Arc::new(Warnings::default());
    let repository = far.open_at(&file.join("cache"), BYTES_MAX, Events::new(heard.clone())).await;
    far.prove(&repository).await;
    let heard = heard.0.lock().unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].starts_with("nothing more is kept in the cache `"), "{heard:?}");
}

#[tokio::test]
async fn the_oldest_go_when_it_is_full() {
    let far = Far::new(memory()).await;
    far.read().await;
    let sizes = |files: &[PathBuf]| files.iter().map(|file| fs::metadata(file).unwrap().len()).collect::<Vec<_>>();
    let (bytes, longest): (u64, u64) = (sizes(&far.files()).iter().sum(), *sizes(&far.files()).iter().max().unwrap());
    let bytes_max = bytes.max(longest * 4);
    let old = far.cache().join("packs").join("0".repeat(64) + "-0-1");
    let older = far.cache().join("packs").join("1".repeat(64) + "-0-1");
    for (path, age) in [(&old, 1000), (&older, 2000)] {
        fs::write(path, vec![0; usize::try_from(bytes_max / 3).unwrap()]).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
    }
    let snapshot = far.files().into_iter().find(|file| file.parent().unwrap().ends_with("snapshots")).unwrap();
    fs::remove_file(&snapshot).unwrap();
    let (store, name): (SharedStore, _) = (far.faulty.clone(), snapshot.file_name().unwrap().to_str().unwrap());
    let cache = Cache::new(store, far.cache(), bytes_max, Events::silent());
    bkp::store::Store::get(&cache, &Key::new(FileKind::Snapshot, name)).await.unwrap();
    assert!(snapshot.exists() && !older.exists());
    assert!(sizes(&far.files()).iter().sum::<u64>() <= bytes_max);
}

#[tokio::test]
async fn what_the_store_has_no_longer_leaves_it() {
    let far = Far::new(memory()).await;
    far.read().await;
    let before = far.files().len();
    let repository = opened(&far.inner).await;
    let later = save(&repository, &[("/new", b"new".to_vec())]).await;
    far.inner.delete(&Key::new(FileKind::Snapshot, far.snapshot.id.to_string())).await.unwrap();
    let far = Far { snapshot: later, ..far };
    let repository = far.open().await;
    repository.tree(&far.snapshot.snapshot.tree).await.unwrap();
    // A snapshot, an index file and a stretch of trees came; the snapshot that is gone went.
    assert_eq!(far.files().len(), before + 3 - 1);
    for listed in far.inner.list(FileKind::Index).await.unwrap() {
        far.inner.delete(&Key::new(FileKind::Index, listed.name)).await.unwrap();
    }
    far.open().await;
    assert_eq!(far.files().len(), 1, "the snapshot alone: {:?}", far.files());
}

#[tokio::test]
async fn many_processes_may_use_it_at_once() {
    let far = Arc::new(Far::new(memory()).await);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let far = Arc::clone(&far);
        readers.spawn(async move { far.prove(&*far.open().await).await });
    }
    readers.join_all().await;
    assert!(far.read().await.is_empty());
    assert!(far.files().iter().all(|file| !file.to_string_lossy().contains(".tmp-")));
}

/// A policy whose only copy lies in an S3 server, and secrets for both.
fn policy(dir: &Path, s3: &S3) -> Policy {
    for (name, secret) in [("s3.key", S3::SECRET_KEY), ("repo.key", PASSWORD)] {
        fs::write(dir.join(name), secret).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (dir, endpoint) = (dir.display(), s3.endpoint());
    let text = format!(
        r#"
version = 1
name = "mall"
state_dir = "{dir}/state"
repository = {{ path = "{dir}/repository", password_file = "{dir}/repo.key" }}
files.images = {{ path = "/images" }}
retention = {{ last = 1 }}
network = {{ peers = ["127.0.0.0/8"] }}
[[copy]]
name = "offsite"
s3 = {{ bucket = "{}", prefix = "dr/mall", region = "us-east-1", endpoint = "{endpoint}", path_style = true, access_key_id = "{}", secret_access_key_file = "{dir}/s3.key" }}
"#,
        S3::BUCKET,
        S3::ACCESS_KEY,
    );
    Policy::parse(&text, Path::new("mall.toml")).unwrap()
}

#[tokio::test]
async fn a_restore_from_a_copy_reads_through_it_and_a_verify_does_not() {
    let (s3, dir, run) = (S3::start(), tempfile::tempdir().unwrap(), Run::silent());
    let store: SharedStore = Arc::new(crate::s3::open(&s3).await);
    save(&made(&store).await, &files()).await;
    let policy = policy(dir.path(), &s3);
    let read = |repository: Arc<Repository>| async move {
        repository.load_index(&Run::silent()).await.unwrap();
        repository.index_faults().len()
    };
    assert_eq!(read(place::repository_in(&policy, Some("offsite"), &run).await.unwrap()).await, 0);
    assert_eq!(fs::read_dir(dir.path().join("state/cache/offsite/index")).unwrap().count(), 1);

    // The copy's index rots after it was read: a restore still can, and a verify still sees it.
    let index = store.list(FileKind::Index).await.unwrap().remove(0).name;
    let path = s3.objects().join("dr/mall").join(Key::new(FileKind::Index, index).path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(read(place::repository_in(&policy, Some("offsite"), &run).await.unwrap()).await, 0);
    assert_eq!(read(place::repository_to_prove(&policy, Some("offsite"), &run).await.unwrap()).await, 1);
}
