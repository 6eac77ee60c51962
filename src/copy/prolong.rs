//! Lengthens the store's own locks on what the repository still holds.
//!
//! A lock that was set once runs out under the oldest objects first, though the newest snapshot needs them as much as their newest. So
//! each copy lengthens them, all that the repository here holds: what no snapshot needs any more leaves it with the next prune, and
//! its lock in the copy then runs out by itself. A pack that is lost here is lengthened as long as the index names it: the copy's may be
//! the last. To find out sooner which packs nobody needs would mean to read every tree each time.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};

use crate::copy::plan::CopyPlan;
use crate::copy::{Copied, CopyError, LOCK_SLACK, ObjectError, Terms};
use crate::event::Unit;
use crate::repository::Repository;
use crate::run::{Run, Stopped};
use crate::store::{FileKind, Key, SharedStore, StoreError};

/// Each is a round trip or two and moves no bytes.
const AT_ONCE: usize = 16;
/// A store that failed so many in a row, each after its retries, is away: the next copy asks again.
const FAILED_MAX: usize = 8;
/// A store that refused so many in a row refuses all. Fewer may be those whose locks others have made; they must not keep the rest
/// waiting, for the next copy would meet them first again.
const REFUSED_MAX: usize = 64;

/// Lengthens what ends too soon, and returns how many were looked after. What fails is in [`Copied::failed`].
///
/// # Errors
/// [`CopyError::Stopped`], or where the record cannot be written.
pub(super) async fn prolong(
    from: &Repository,
    plan: &CopyPlan,
    to: &SharedStore,
    terms: &Terms<'_>,
    copied: &mut Copied,
    run: &Run,
) -> Result<(), CopyError> {
    let Some(retain) = terms.retain else { return Ok(()) };
    let until = run.now() + retain;
    let least = until - retain / LOCK_SLACK;
    let due = due(from, plan, terms, copied, least);
    if due.is_empty() {
        return Ok(());
    }
    let task = run.events.task(format!("lengthen locks in {}", to.location()), Unit::Objects, due.len() as u64);
    let one = |(key, size): (Key, u64)| async move { (to.keep_immutable(&key, least, until).await, key, size) };
    let mut prolonging = stream::iter(due).map(one).buffer_unordered(AT_ONCE);
    let mut in_a_row = InARow::default();
    while let Some((end, key, size)) = run.cancel.run_until_cancelled(prolonging.next()).await.ok_or(Stopped)? {
        task.add(1);
        match end {
            Ok(end) => {
                copied.prolonged += 1;
                in_a_row = InARow::default();
                // A longer end may be a legal hold's, which can be lifted any day: it is looked at again in time.
                terms.note(&key, size, Some(end.min(until)))?;
            }
            Err(StoreError::Missing { .. }) => {
                in_a_row = InARow::default();
                if let Some(ledger) = terms.only_word() {
                    ledger.strike([&key])?;
                    copied.failed.push((key, ObjectError::Vanished));
                }
                // Else the listing before it said so already, or the next copy's will.
            }
            Err(error) => {
                in_a_row.count(&error);
                copied.failed.push((key, ObjectError::Lock(error)));
            }
        }
        if in_a_row.is_enough() {
            break;
        }
    }
    Ok(())
}

/// How many objects failed since the last one that did not.
#[derive(Default)]
struct InARow {
    failed: usize,
    refused: usize,
}

impl InARow {
    fn count(&mut self, error: &StoreError) {
        let is_away = error.is_transient() || matches!(error, StoreError::Refused { .. });
        *(if is_away { &mut self.failed } else { &mut self.refused }) += 1;
    }

    fn is_enough(&self) -> bool {
        self.failed >= FAILED_MAX || self.refused >= REFUSED_MAX
    }
}

/// Returns what is there, and is here or should be, and whose lock, as far as is known here, ends before `least`.
fn due(
    from: &Repository,
    plan: &CopyPlan,
    terms: &Terms<'_>,
    copied: &Copied,
    least: DateTime<Utc>,
) -> Vec<(Key, u64)> {
    let is_long = |key: &Key| terms.ledger.and_then(|ledger| ledger.until(key)).is_some_and(|until| until >= least);
    let (mut due, missing) = (plan.here(), copied.known_missing());
    due.retain(|(key, _)| !missing.contains(key));
    due.extend(lost_here(from, &due, terms));
    due.retain(|(key, _)| !is_long(key));
    due
}

/// Returns the packs that the index names and that are not here; of a store that nobody can look at, those that were sent.
fn lost_here(from: &Repository, here: &[(Key, u64)], terms: &Terms<'_>) -> Vec<(Key, u64)> {
    let here: HashSet<&Key> = here.iter().map(|(key, _)| key).collect();
    let was_sent = |key: &Key| terms.only_word().is_none_or(|ledger| ledger.has(key));
    let named = from.pack_sizes().into_iter().map(|(id, size)| (Key::new(FileKind::Pack, id.to_string()), size));
    named.filter(|(key, _)| !here.contains(key) && was_sent(key)).collect()
}
