//! Makes a repository, or opens one with a password.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::id::ObjectId;
use crate::repository::config::Config;
use crate::repository::document::check_name;
use crate::repository::error::RepositoryError;
use crate::repository::key::{self, Cost, Opened};
use crate::repository::trees::TreeCache;
use crate::repository::{LiveIndex, Repository};
use crate::run::Run;
use crate::seal::{MasterKey, open_document};
use crate::secret::Secret;
use crate::store::{FileKind, Key, SharedStore, StoreError};

/// What trying a password on all keys found.
enum Keys {
    None,
    Opened(ObjectId, MasterKey),
    /// No key opens; the damaged ones by name.
    Refused(Vec<RepositoryError>),
}

impl Repository {
    /// Makes a repository at a store that holds none.
    ///
    /// # Errors
    /// [`RepositoryError::AlreadyThere`] where there is one; [`RepositoryError::Refused`] where there is a part of one.
    pub async fn init(store: SharedStore, password: &Secret, run: &Run) -> Result<Arc<Self>, RepositoryError> {
        Self::init_with(store, password, Cost::DEFAULT, run).await
    }

    /// Like [`Repository::init`], at another cost of deriving the key.
    ///
    /// # Errors
    /// Like [`Repository::init`].
    pub async fn init_with(
        store: SharedStore,
        password: &Secret,
        cost: Cost,
        run: &Run,
    ) -> Result<Arc<Self>, RepositoryError> {
        if store.size(&Key::config()).await?.is_some() {
            return Err(RepositoryError::AlreadyThere { place: store.location() });
        }
        let (key, master) = match find_key(&store, password).await? {
            Keys::None => save_key(&store, password, cost, run).await?,
            // An init that was killed before its config: its key is as good as new.
            Keys::Opened(key, master) if is_bare(&store).await? => (key, master),
            Keys::Opened(..) | Keys::Refused(_) => return Err(headless(&store)),
        };
        let config = Config::draw()?;
        let mut sealed = Vec::new();
        let encrypted = master.encrypt_into(&config.to_json()?, &mut sealed);
        encrypted.map_err(|error| RepositoryError::refused("config", error))?;
        // Last, because its presence is what makes the place a repository.
        store.put(&Key::config(), sealed.into()).await?;
        Ok(Arc::new(Self::assemble(store, config, key, master, run)))
    }

    /// Opens a repository. The index is not loaded yet.
    ///
    /// # Errors
    /// [`RepositoryError::NoRepository`], [`RepositoryError::WrongPassword`], or what the store says.
    pub async fn open(store: SharedStore, password: &Secret, run: &Run) -> Result<Arc<Self>, RepositoryError> {
        let sealed = sealed_config(&store, run).await?;
        let (key, master) = match find_key(&store, password).await? {
            Keys::Opened(key, master) => (key, master),
            Keys::Refused(damaged) if !damaged.is_empty() => return Err(damaged[0].clone()),
            Keys::None | Keys::Refused(_) => return Err(RepositoryError::WrongPassword { place: store.location() }),
        };
        Self::unsealed(store, &sealed, key, master, run)
    }

    /// Returns this repository as it lies in another store, whatever became of the config and the keys there. The index is not
    /// loaded yet.
    #[must_use]
    pub fn in_store(&self, store: SharedStore, run: &Run) -> Arc<Self> {
        Arc::new(Self::assemble(store, self.config.clone(), self.key, Arc::clone(&self.master), run))
    }

    /// Opens a repository with a key file that lies elsewhere, whatever keys are in the store. The index is not loaded yet.
    ///
    /// # Errors
    /// Like [`Repository::open`].
    pub async fn open_with_key_file(
        store: SharedStore,
        key_file: Bytes,
        password: &Secret,
        run: &Run,
    ) -> Result<Arc<Self>, RepositoryError> {
        let sealed = sealed_config(&store, run).await?;
        let key = ObjectId::of(&key_file);
        match try_key(key_file, password).await? {
            Opened::Key(master) => Self::unsealed(store, &sealed, key, master, run),
            Opened::Refused => Err(RepositoryError::WrongPassword { place: store.location() }),
            Opened::Damaged(reason) => Err(RepositoryError::damaged("the key file", reason)),
        }
    }

    fn unsealed(
        store: SharedStore,
        sealed: &[u8],
        key: ObjectId,
        master: MasterKey,
        run: &Run,
    ) -> Result<Arc<Self>, RepositoryError> {
        let place = store.location();
        let json = open_document(&master, sealed).map_err(|error| RepositoryError::damaged(Key::config(), error))?;
        let config = Config::from_json(&json, &place)?;
        Ok(Arc::new(Self::assemble(store, config, key, master, run)))
    }

    fn assemble(
        store: SharedStore,
        config: Config,
        key: ObjectId,
        master: impl Into<Arc<MasterKey>>,
        run: &Run,
    ) -> Self {
        Self {
            store,
            cache: OnceLock::new(),
            config,
            key,
            master: master.into(),
            index: LiveIndex::default().into(),
            index_faults: Vec::new().into(),
            trees: TreeCache::default(),
            cancel: run.cancel.clone(),
            unnamed: Vec::new().into(),
            locks: Arc::default(),
            runtime: Handle::current(),
        }
    }
}

async fn sealed_config(store: &SharedStore, run: &Run) -> Result<Bytes, RepositoryError> {
    run.check()?;
    match store.get(&Key::config()).await {
        Err(StoreError::Missing { .. }) => Err(RepositoryError::NoRepository { place: store.location() }),
        sealed => Ok(sealed?),
    }
}

/// Tries a password on all keys, the cheapest first: a costly one beside it must not make every opening slow.
async fn find_key(store: &SharedStore, password: &Secret) -> Result<Keys, RepositoryError> {
    let (mut files, mut found) = (Vec::new(), Keys::None);
    for listed in store.list(FileKind::Key).await? {
        let name = Key::new(FileKind::Key, listed.name);
        match store.get(&name).await.map_err(RepositoryError::from) {
            Ok(file) => files.push((name, file)),
            // One key that rots must not shut out those who have another.
            Err(error) if error.is_damage() => found = found.and(Some(error)),
            Err(error) => return Err(error),
        }
    }
    files.sort_by_cached_key(|(name, file)| (key::steps_of(file), name.name.clone()));
    for (name, file) in files {
        let fault = match try_key(file.clone(), password).await? {
            Opened::Key(master) => return Ok(Keys::Opened(ObjectId::of(&file), master)),
            Opened::Damaged(reason) => Some(RepositoryError::damaged(&name, reason)),
            Opened::Refused => check_name(&name, &file).err(),
        };
        found = found.and(fault);
    }
    Ok(found)
}

/// Tries a password on a key file, on a thread that may be busy for a second.
pub(super) async fn try_key(file: Bytes, password: &Secret) -> Result<Opened, RepositoryError> {
    let password = password.clone();
    let opened = tokio::task::spawn_blocking(move || key::open(&file, &password)).await;
    opened.map_err(|error| RepositoryError::refused("key", error))
}

/// Seals a key under a password, on a thread that may be busy for a second.
pub(super) async fn seal_key(
    master: &MasterKey,
    password: &Secret,
    cost: Cost,
    run: &Run,
) -> Result<Bytes, RepositoryError> {
    let (master, password, created) = (master.clone(), password.clone(), run.now());
    let sealed = tokio::task::spawn_blocking(move || key::save(&master, &password, cost, created)).await;
    Ok(sealed.map_err(|error| RepositoryError::refused("key", error))??.into())
}

impl Keys {
    fn and(self, fault: Option<RepositoryError>) -> Self {
        let mut faults = match self {
            Self::Refused(faults) => faults,
            Self::None | Self::Opened(..) => Vec::new(),
        };
        faults.extend(fault);
        Self::Refused(faults)
    }
}

async fn save_key(
    store: &SharedStore,
    password: &Secret,
    cost: Cost,
    run: &Run,
) -> Result<(ObjectId, MasterKey), RepositoryError> {
    let master = MasterKey::random().map_err(|error| RepositoryError::refused("key", error))?;
    let file = seal_key(&master, password, cost, run).await?;
    let id = ObjectId::of(&file);
    store.put(&Key::new(FileKind::Key, id.to_string()), file).await?;
    Ok((id, master))
}

/// Tells whether nothing lies there that a new config would orphan.
async fn is_bare(store: &SharedStore) -> Result<bool, RepositoryError> {
    for kind in [FileKind::Snapshot, FileKind::Index, FileKind::Pack] {
        if !store.list(kind).await?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn headless(store: &SharedStore) -> RepositoryError {
    let place = store.location();
    RepositoryError::refused(
        format!("a new repository at `{place}`"),
        "it holds the keys of one whose config is gone; `bkp verify --heal` brings the config back from a copy; or name another place",
    )
}
