//! The published exit codes. A code never changes its meaning.

mod table;

use std::process::ExitCode;

/// How a run ended, for whoever called it. In the order of how grave it is: the gravest of several is the run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    Ok,
    /// Something is left out and named; what is there is good.
    Incomplete,
    /// The store's own lock refused a delete.
    Protected,
    /// Another run holds the lock.
    Locked,
    /// RTO or RPO is breached.
    Breached,
    /// A check of a drill failed.
    CheckFailed,
    /// A guard refused the source.
    Guard,
    /// The network policy refused a peer.
    Network,
    /// The policy or the command line is wrong.
    Usage,
    /// There is no repository.
    NoRepository,
    /// The password or the credentials are wrong.
    Password,
    Failed,
    /// Bytes do not hash right, or are gone.
    Damaged,
    Interrupted,
    Terminated,
}

impl Exit {
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Incomplete => 3,
            Self::NoRepository => 10,
            Self::Locked => 11,
            Self::Password => 12,
            Self::Damaged => 13,
            Self::Breached => 14,
            Self::Guard => 15,
            Self::CheckFailed => 16,
            Self::Network => 17,
            Self::Protected => 18,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A failure, ready to be told: its exit code, what failed, what to do.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hinting(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Gives a failure that came of a signal the signal's own code.
    #[must_use]
    pub fn signalled(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}
