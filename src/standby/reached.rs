//! How far into the segments everything is known to be whole and applied: a promotion reads on from there, and not from the
//! beginning of a file of any size.

use serde::{Deserialize, Serialize};

use crate::mysql::gtid::{Executed, GtidError};
use crate::mysql::manifest::{Position, Product};
use crate::replay::{Mark, ReplayPlan};

/// A place before which every event was read and proved, in the order of the segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reached {
    pub(super) place: Position,
    /// What had been executed there, every server told.
    executed: String,
    /// The last transaction before it.
    pub(super) last: Option<Mark>,
}

impl Reached {
    pub(super) fn new(place: Position, executed: &Executed, last: Option<Mark>) -> Self {
        Self { place, executed: executed.to_string(), last }
    }

    /// Returns the end of a plan that has read all that there was.
    pub(super) fn of(plan: &ReplayPlan) -> Self {
        Self::new(plan.end.clone(), &plan.known, plan.last.clone())
    }

    pub(super) fn executed(&self, product: Product) -> Result<Executed, GtidError> {
        Executed::parse(product, &self.executed)
    }
}
