//! The other stores of the repository, as long as one round of a heal asks them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::heal::{Donor, HealError, Ward};
use crate::repository::{Repository, RepositoryError};
use crate::run::Run;
use crate::store::FileKind;

/// Names and sizes of the objects of one kind.
pub(super) type Sizes = HashMap<String, u64>;

/// What donors were asked, each question once.
pub(super) struct Donors<'a> {
    ward: &'a Ward,
    run: &'a Run,
    /// What they list, by their place among the donors.
    listed: HashMap<(usize, FileKind), Sizes>,
    /// Those whose index is loaded: it stays in memory until the round is over.
    opened: HashMap<usize, Arc<Repository>>,
    /// Those that did not answer.
    away: HashSet<usize>,
}

impl<'a> Donors<'a> {
    pub(super) fn new(ward: &'a Ward, run: &'a Run) -> Self {
        Self { ward, run, listed: HashMap::new(), opened: HashMap::new(), away: HashSet::new() }
    }

    pub(super) fn places(&self) -> std::ops::Range<usize> {
        0..self.ward.donors.len()
    }

    pub(super) fn name(&self, donor: usize) -> &'a str {
        &self.ward.donors[donor].name
    }

    /// Names those that did not answer, and those that could not be opened.
    pub(super) fn away(&self) -> BTreeSet<String> {
        let silent = self.away.iter().map(|donor| self.name(*donor).to_owned());
        silent.chain(self.ward.away.iter().cloned()).collect()
    }

    pub(super) fn lose(&mut self, donor: usize, why: &str) {
        self.run.events.warn(format!("{}: {why}", self.name(donor)));
        self.away.insert(donor);
    }

    /// Opens a donor with its index; `None` where it does not answer.
    pub(super) async fn open(&mut self, donor: usize) -> Result<Option<Arc<Repository>>, HealError> {
        if self.away.contains(&donor) {
            return Ok(None);
        }
        if let Some(repository) = self.opened.get(&donor) {
            return Ok(Some(Arc::clone(repository)));
        }
        let repository = self.ward.repository.in_store(Arc::clone(&self.ward.donors[donor].store), self.run);
        match repository.load_index(self.run).await {
            Ok(()) => {
                self.opened.insert(donor, Arc::clone(&repository));
                Ok(Some(repository))
            }
            Err(error @ RepositoryError::Stopped(_)) => Err(error.into()),
            Err(error) => {
                self.lose(donor, &format!("its index cannot be read: {error}"));
                Ok(None)
            }
        }
    }

    /// Lists the objects of a kind that a donor has; one that does not answer has none.
    pub(super) async fn list(&mut self, donor: usize, kind: FileKind) -> &Sizes {
        if !self.listed.contains_key(&(donor, kind)) {
            let Donor { store, .. } = &self.ward.donors[donor];
            let listed = if self.away.contains(&donor) { Ok(Vec::new()) } else { store.list(kind).await };
            let listed = listed.unwrap_or_else(|error| {
                self.lose(donor, &format!("{error}: nothing can be taken from there"));
                Vec::new()
            });
            let sizes = listed.into_iter().map(|listed| (listed.name, listed.size)).collect();
            self.listed.insert((donor, kind), sizes);
        }
        &self.listed[&(donor, kind)]
    }
}
