//! Makes a repository, or opens one with a password.

use std::sync::Arc;

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
    Opened(MasterKey),
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
        let master = match find_key(&store, password).await? {
            Keys::None => save_key(&store, password, cost, run).await?,
            // An init that was killed before its config: its key is as good as new.
            Keys::Opened(master) if is_bare(&store).await? => master,
            Keys::Opened(_) | Keys::Refused(_) => return Err(headless(&store)),
        };
        let config = Config::draw()?;
        let mut sealed = Vec::new();
        let encrypted = master.encrypt_into(&config.to_json()?, &mut sealed);
        encrypted.map_err(|error| RepositoryError::refused("config", error))?;
        // Last, because its presence is what makes the place a repository.
        store.put(&Key::config(), sealed.into()).await?;
        Ok(Arc::new(Self::assemble(store, config, master, run)))
    }

    /// Opens a repository. The index is not loaded yet.
    ///
    /// # Errors
    /// [`RepositoryError::NoRepository`], [`RepositoryError::WrongPassword`], or what the store says.
    pub async fn open(store: SharedStore, password: &Secret, run: &Run) -> Result<Arc<Self>, RepositoryError> {
        run.check()?;
        let place = store.location();
        let sealed = match store.get(&Key::config()).await {
            Err(StoreError::Missing { .. }) => return Err(RepositoryError::NoRepository { place }),
            sealed => sealed?,
        };
        let master = match find_key(&store, password).await? {
            Keys::Opened(master) => master,
            Keys::Refused(damaged) if !damaged.is_empty() => return Err(damaged[0].clone()),
            Keys::None | Keys::Refused(_) => return Err(RepositoryError::WrongPassword { place }),
        };
        let json = open_document(&master, &sealed).map_err(|error| RepositoryError::damaged(Key::config(), error))?;
        let config = Config::from_json(&json, &place)?;
        Ok(Arc::new(Self::assemble(store, config, master, run)))
    }

    /// Returns this repository as it lies in another store, whatever became of the config and the keys there. The index is not
    /// loaded yet.
    #[must_use]
    pub fn in_store(&self, store: SharedStore, run: &Run) -> Arc<Self> {
        Arc::new(Self::assemble(store, self.config.clone(), Arc::clone(&self.master), run))
    }

    fn assemble(store: SharedStore, config: Config, master: impl Into<Arc<MasterKey>>, run: &Run) -> Self {
        Self {
            store,
            config,
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

async fn find_key(store: &SharedStore, password: &Secret) -> Result<Keys, RepositoryError> {
    let mut keys = store.list(FileKind::Key).await?;
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    let mut found = Keys::None;
    for listed in keys {
        let name = Key::new(FileKind::Key, listed.name);
        let file = match store.get(&name).await.map_err(RepositoryError::from) {
            Ok(file) => file,
            // One key that rots must not shut out those who have another.
            Err(error) if error.is_damage() => {
                found = found.and(Some(error));
                continue;
            }
            Err(error) => return Err(error),
        };
        let password = password.clone();
        let bytes = file.clone();
        let opened = tokio::task::spawn_blocking(move || key::open(&bytes, &password)).await;
        let fault = match opened.map_err(|error| RepositoryError::refused("key", error))? {
            Opened::Key(master) => return Ok(Keys::Opened(master)),
            Opened::Damaged(reason) => Some(RepositoryError::damaged(&name, reason)),
            Opened::Refused => check_name(&name, &file).err(),
        };
        found = found.and(fault);
    }
    Ok(found)
}

impl Keys {
    fn and(self, fault: Option<RepositoryError>) -> Self {
        let mut faults = match self {
            Self::Refused(faults) => faults,
            Self::None | Self::Opened(_) => Vec::new(),
        };
        faults.extend(fault);
        Self::Refused(faults)
    }
}

async fn save_key(store: &SharedStore, password: &Secret, cost: Cost, run: &Run) -> Result<MasterKey, RepositoryError> {
    let refused = |error: &dyn std::fmt::Display| RepositoryError::refused("key", error);
    let master = MasterKey::random().map_err(|error| refused(&error))?;
    let (sealed, password, created) = (master.clone(), password.clone(), run.now());
    let saved = tokio::task::spawn_blocking(move || key::save(&sealed, &password, cost, created)).await;
    let file = saved.map_err(|error| refused(&error))??;
    let name = Key::new(FileKind::Key, ObjectId::of(&file).to_string());
    store.put(&name, file.into()).await?;
    Ok(master)
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
