//! How long to follow a server, and what came of it.

use chrono::{DateTime, Utc};

use crate::capture::chain::{Beginning, Gap};

/// How long to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Up to what the server has when it is asked, or to the end of a file once so many bytes came: they are to be sealed before
    /// more come, so that the spool stays small.
    Now { bytes_max: u64 },
    /// Until the run is told to stop, or the connection breaks.
    Stopped,
}

/// What came in.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Followed {
    pub bytes: u64,
    /// The epoch that had to begin, and why.
    pub began: Option<(u32, Beginning)>,
    pub gaps: Vec<Gap>,
    pub as_of: Option<DateTime<Utc>>,
    /// More is there, and has not been asked for yet.
    #[serde(skip)]
    pub has_more: bool,
}

impl Followed {
    /// Adds what came after.
    #[must_use]
    pub fn and(mut self, next: Self) -> Self {
        self.gaps.extend(next.gaps);
        Self { bytes: self.bytes + next.bytes, began: self.began.or(next.began), gaps: self.gaps, ..next }
    }
}
