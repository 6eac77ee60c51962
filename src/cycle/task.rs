//! What a step of a run is asked to do.

use crate::backup;
use crate::cycle::journal::Verb;
use crate::drill::outcome::Scenario;
use crate::policy::Policy;
use crate::verify;

/// What a step is asked to do.
#[derive(Debug, Clone)]
pub enum Task {
    Backup {
        options: backup::Options,
        with_copies: bool,
    },
    Capture {
        /// Empty: all whose binlog the policy wants.
        sources: Vec<String>,
    },
    Copy {
        /// Empty: all.
        copies: Vec<String>,
    },
    Verify {
        /// `None`: the repository.
        copy: Option<String>,
        options: verify::Options,
        /// Mends what it finds from the policy's other stores.
        heals: bool,
        /// And gives up what none of them holds whole.
        salvages: bool,
    },
    Prune {
        /// `None`: the repository.
        copy: Option<String>,
        /// See [`prune::plan::Limits`].
        unused_percent_max: u64,
    },
    Drill {
        /// `None`: what the policy says.
        from: Option<String>,
        scenario: Scenario,
        keep: bool,
    },
}

impl Task {
    #[must_use]
    pub fn verb(&self) -> Verb {
        match self {
            Self::Backup { .. } => Verb::Backup,
            Self::Capture { .. } => Verb::Capture,
            Self::Copy { .. } => Verb::Copy,
            Self::Verify { .. } => Verb::Verify,
            Self::Prune { .. } => Verb::Prune,
            Self::Drill { .. } => Verb::Drill,
        }
    }

    /// Returns the sources that it backs up.
    #[must_use]
    pub fn sources(&self, policy: &Policy) -> Vec<String> {
        let Self::Backup { options, .. } = self else { return Vec::new() };
        let all = policy.mysql.keys().chain(policy.files.keys());
        all.filter(|name| options.wants(name)).cloned().collect()
    }
}
