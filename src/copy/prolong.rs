//! Lengthens the store's own locks on what the repository still holds.
//!
//! A lock that was set once runs out under the oldest objects first, though the newest snapshot needs them as much as their newest. So
//! each copy lengthens them, all that the repository here holds: what no snapshot needs any more leaves it with the next prune, and
//! its lock in the copy then runs out by itself. To find out sooner which packs nobody needs would mean to read every tree each time.

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};

use crate::copy::plan::CopyPlan;
use crate::copy::{Copied, CopyError, LOCK_SLACK, ObjectError, Terms};
use crate::event::Unit;
use crate::run::{Run, Stopped};
use crate::store::{Key, SharedStore, StoreError};

/// Each is a round trip or two and moves no bytes.
const AT_ONCE: usize = 16;
/// A store that failed so many, each after its retries, will fail the rest: the next copy asks again.
const FAILED_MAX: usize = 8;

/// Lengthens what ends too soon, and returns how many were looked after. What fails is in [`Copied::failed`].
///
/// # Errors
/// [`CopyError::Stopped`], or where the record cannot be written.
pub(super) async fn prolong(
    plan: &CopyPlan,
    to: &SharedStore,
    terms: &Terms<'_>,
    copied: &mut Copied,
    run: &Run,
) -> Result<(), CopyError> {
    let Some(retain) = terms.retain else { return Ok(()) };
    let until = run.now() + retain;
    let least = until - retain / LOCK_SLACK;
    let due = due(plan, terms, copied, least);
    if due.is_empty() {
        return Ok(());
    }
    let task = run.events.task(format!("lengthen locks in {}", to.location()), Unit::Objects, due.len() as u64);
    let one = |(key, size): (Key, u64)| async move { (to.keep_immutable(&key, least, until).await, key, size) };
    let mut prolonging = stream::iter(due).map(one).buffer_unordered(AT_ONCE);
    let mut failed = 0;
    while let Some((end, key, size)) = run.cancel.run_until_cancelled(prolonging.next()).await.ok_or(Stopped)? {
        task.add(1);
        match end {
            Ok(end) => {
                copied.prolonged += 1;
                terms.note(&key, size, Some(end))?;
            }
            // The listing before it said so already, or the next copy's will.
            Err(StoreError::Missing { .. }) => {}
            Err(error) => {
                failed += if error.is_final() { FAILED_MAX } else { 1 };
                copied.failed.push((key, ObjectError::Lock(error)));
            }
        }
        if failed >= FAILED_MAX {
            break;
        }
    }
    Ok(())
}

/// Returns what is here and there and whose lock, as far as is known here, ends before `least`.
fn due(plan: &CopyPlan, terms: &Terms<'_>, copied: &Copied, least: DateTime<Utc>) -> Vec<(Key, u64)> {
    let is_long = |key: &Key| terms.ledger.and_then(|ledger| ledger.until(key)).is_some_and(|until| until >= least);
    let here = plan.here().into_iter();
    here.filter(|(key, _)| !copied.knows(key) && !is_long(key)).collect()
}
