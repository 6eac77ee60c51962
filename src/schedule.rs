//! When a verb is due: cron text in a time zone, what was missed, the stamp of the last success, one run at a time.
//!
//! [`Cron`] and [`due`] are pure: time comes in as an argument. [`Stamps`] and [`RunLock`] are the two small files in a
//! policy's state directory.
//!
//! # When clocks change
//! A schedule that fires in every hour follows the real clock: in the hour that comes twice it fires twice as often, in the
//! hour that is left out it does not fire, so its pace never changes. Any other schedule means times of day, and each of
//! them runs once: a time that is left out runs at the first moment after the gap, a time that comes twice runs at its first.

mod cron;
mod due;
mod fires;
mod gap;
mod lock;
mod stamp;
#[cfg(test)]
mod tests;

pub use crate::schedule::cron::{Cron, CronError};
pub use crate::schedule::due::{CatchUp, Due, MISSED_MAX, due};
pub use crate::schedule::gap::Gap;
pub use crate::schedule::lock::{Holder, LockError, RunLock};
pub use crate::schedule::stamp::{Failure, Stamp, StampError, Stamps};
