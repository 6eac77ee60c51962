//! A store that is to be mended, opened by whatever means, and the others beside it.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::place::{PlaceError, copy_store, find_copy, open, store};
use crate::policy::Policy;
use crate::repository::{Repository, RepositoryError};
use crate::run::Run;
use crate::store::{FileKind, Key, SharedStore, StoreError};

/// A store, and the name of the copy that it is; `None`: the repository.
pub type Named = (Option<String>, SharedStore);

/// The stores of a policy but one. They are opened when they are first asked for: that may cost a network and its time-outs, and as
/// long as nothing is to be mended nobody needs them.
pub struct Others<'a> {
    policy: &'a Policy,
    but: Option<&'a str>,
    opened: OnceCell<Opened>,
}

/// Stores that were opened, the repository first, and the names of those that could not be.
#[derive(Default)]
pub struct Opened {
    pub stores: Vec<Named>,
    pub away: Vec<String>,
}

impl<'a> Others<'a> {
    #[must_use]
    pub fn new(policy: &'a Policy, but: Option<&'a str>) -> Self {
        Self { policy, but, opened: OnceCell::new() }
    }

    /// Opens them, if nobody has yet. One that cannot be opened is a warning.
    ///
    /// # Errors
    /// [`RepositoryError::Stopped`] after a signal.
    pub async fn open(&self, run: &Run) -> Result<&Opened, PlaceError> {
        self.opened.get_or_try_init(|| self.open_all(run)).await
    }

    async fn open_all(&self, run: &Run) -> Result<Opened, PlaceError> {
        let Self { policy, but, .. } = *self;
        let mut opened = Opened::default();
        // With a recovery kit there is none on this machine.
        if but.is_some() && policy.repository.from_kit.is_none() {
            opened.stores.push((None, store(policy)));
        }
        for copy in policy.copies.iter().filter(|copy| Some(copy.name.as_str()) != but) {
            match copy_store(policy, copy, run).await {
                Ok(store) => opened.stores.push((Some(copy.name.clone()), store)),
                Err(error) => {
                    run.check().map_err(RepositoryError::from)?;
                    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                    let error = crate::human::chain(&error);
                    run.events.warn(format!("{}: {error}: nothing can be taken from there{hint}", copy.name));
                    opened.away.push(copy.name.clone());
                }
            }
        }
        Ok(opened)
    }
}

/// Proves that a store holds this repository. An empty directory where a disk is not mounted answers as well, and has nothing: what it
/// does not hold may lie on that disk.
///
/// # Errors
/// [`RepositoryError`] where there is no config, or one that is not this repository's.
pub async fn prove_same(repository: &Repository, store: &SharedStore) -> Result<(), RepositoryError> {
    let config = store.get(&Key::config()).await?;
    repository.check_bytes(&Key::config(), &config)
}

/// Opens the store that the others are not. Where its own config or keys do not let it be opened, but it holds something, it is opened
/// by those of another, if they are of the same repository.
///
/// # Errors
/// [`PlaceError`] where neither opens, or where nothing is there.
pub async fn repository_beside(others: &Others<'_>, run: &Run) -> Result<Arc<Repository>, PlaceError> {
    let policy = others.policy;
    let here = match others.but {
        None => store(policy),
        Some(name) => copy_store(policy, find_copy(policy, name)?, run).await?,
    };
    let error = match open(policy, here.clone(), run).await {
        Ok(repository) => return Ok(repository),
        Err(error) => error,
    };
    if !is_headless(&here, &error).await? {
        return Err(error);
    }
    for (_, store) in &others.open(run).await?.stores {
        if let Ok(repository) = open(policy, store.clone(), run).await {
            let repository = repository.in_store(here.clone(), run);
            if opens_something(&repository, run).await? {
                return Ok(repository);
            }
        }
    }
    Err(error)
}

/// Tells whether the master key opens anything of what lies in the store: a whole snapshot or index file, or else a pack's header.
async fn opens_something(repository: &Repository, run: &Run) -> Result<bool, RepositoryError> {
    for kind in [FileKind::Snapshot, FileKind::Index] {
        for listed in repository.store().list(kind).await? {
            match repository.check_document(&Key::new(kind, listed.name)).await {
                Ok(()) => return Ok(true),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
    }
    repository.load_index_and_headers(run).await?;
    Ok(!repository.packs_without_index().is_empty())
}

/// Tells whether it is the config or the keys that are lost, and not all that they were for. A whole key that the password does
/// not open says that the password is another, and a key of old is not to come back.
async fn is_headless(store: &SharedStore, error: &PlaceError) -> Result<bool, RepositoryError> {
    use StoreError::{Missing, Unreadable};
    let PlaceError::Repository(error) = error else { return Ok(false) };
    let is_lost = match error {
        RepositoryError::WrongPassword { .. } => store.list(FileKind::Key).await?.is_empty(),
        RepositoryError::NoRepository { .. }
        | RepositoryError::Damaged { .. }
        | RepositoryError::Store(Missing { .. } | Unreadable { .. }) => true,
        _ => false,
    };
    Ok(is_lost && (!store.list(FileKind::Pack).await?.is_empty() || !store.list(FileKind::Snapshot).await?.is_empty()))
}
