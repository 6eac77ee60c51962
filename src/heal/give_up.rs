//! Packs that no store holds whole, and that the index ceases to name: those of which nothing more is needed, and where the operator
//! says so the others as well.

use std::collections::HashSet;
use std::sync::Arc;

use crate::heal::apply::remove;
use crate::heal::plan::Left;
use crate::heal::{HealError, Healed, How, Mended, Ward, lock, pack_of};
use crate::id::ObjectId;
use crate::place;
use crate::repository::{LockGuard, LockMode, Marks, RepositoryError, SnapshotList};
use crate::run::Run;
use crate::store::{FileKind, Key, StoreError};
use crate::verify::{Finding, Object};

/// What a pack is given up for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Price {
    /// No snapshot loses anything.
    Nothing,
    /// What opens nowhere is lost: the operator says so.
    Whatever,
}

/// Gives up the packs of which all that snapshots need is whole in other packs; tells whether there were any.
pub(super) async fn replaced(ward: &Ward, healed: &mut Healed, run: &Run) -> Result<bool, HealError> {
    let packs = packs_of(healed, ward, |finding| finding.is_superfluous);
    give_up(ward, &packs, Price::Nothing, healed, run).await
}

/// Gives up the packs that no store holds whole; tells whether there were any. A store that does not answer may hold them: then
/// nothing is given up.
pub(super) async fn salvaged(ward: &Ward, healed: &mut Healed, run: &Run) -> Result<bool, HealError> {
    let packs = packs_of(healed, ward, |_| true);
    if !packs.is_empty() && !healed.away.is_empty() {
        healed.leave_all(&format!("not given up: {} may hold it", Vec::from_iter(healed.away.clone()).join(", ")));
        return Ok(false);
    }
    give_up(ward, &packs, Price::Whatever, healed, run).await
}

/// Returns the damaged and missing packs that an index names.
fn packs_of(healed: &Healed, ward: &Ward, is_meant: impl Fn(&Finding) -> bool) -> HashSet<ObjectId> {
    let named: HashSet<ObjectId> = ward.repository.pack_sizes().into_iter().map(|(id, _)| id).collect();
    let meant = healed.report.findings().filter(|finding| is_meant(finding));
    meant.filter_map(|finding| pack_of(&finding.object)).filter(|pack| named.contains(pack)).collect()
}

async fn give_up(
    ward: &Ward,
    packs: &HashSet<ObjectId>,
    price: Price,
    healed: &mut Healed,
    run: &Run,
) -> Result<bool, HealError> {
    if packs.is_empty() {
        return Ok(false);
    }
    let is_meant = |object: &Object| pack_of(object).is_some_and(|pack| packs.contains(&pack));
    let Some(lock) = lock(ward, LockMode::Exclusive, is_meant, healed, run).await? else { return Ok(false) };
    let given_up = give_up_alone(ward, packs, price, &lock, healed, run).await;
    place::unlock(lock, run).await;
    given_up
}

/// New packs and new index files first, then the old index files go, and the packs last; tells whether anything has changed. The lock is
/// exclusive.
async fn give_up_alone(
    ward: &Ward,
    packs: &HashSet<ObjectId>,
    price: Price,
    lock: &LockGuard,
    healed: &mut Healed,
    run: &Run,
) -> Result<bool, HealError> {
    let snapshots = ward.repository.list_snapshots().await?;
    ward.repository.load_index(run).await?;
    if let Some(error) = protection(ward, packs, run).await? {
        for pack in packs {
            leave(healed, pack, &format!("not given up: {error}"));
            healed.kept.insert(key_of(pack), error.clone());
        }
        return Ok(false);
    }
    let needed = match price {
        Price::Whatever => None,
        Price::Nothing => match needed(ward, &snapshots, run).await? {
            Ok(marks) => Some(marks),
            Err(doubt) => {
                let why = format!("nobody can tell whether a snapshot needs it: {doubt}");
                for pack in packs {
                    leave(healed, pack, &why);
                }
                return Ok(false);
            }
        },
    };
    let salvage = ward.repository.salvage(packs, needed.as_ref(), run).await?;
    for pack in &salvage.unread {
        let why = "not given up: nothing of it can be read here; check its rights and its disk, or delete it by hand";
        leave(healed, pack, why);
    }
    for pack in &salvage.needed {
        leave(healed, pack, "snapshots need what opens nowhere: `--level data` names what it costs");
    }
    for name in &salvage.old_indexes {
        // An index file that stays names packs that must stay with it.
        if !remove(ward, &Key::new(FileKind::Index, name), lock, healed, run).await? {
            return Ok(true);
        }
    }
    let changed = !salvage.packs.is_empty();
    let mut bytes = salvage.bytes;
    for pack in salvage.packs {
        let key = key_of(&pack.pack);
        if remove(ward, &key, lock, healed, run).await? {
            let how = match price {
                Price::Nothing => How::Replaced,
                Price::Whatever => How::Salvaged { blobs: pack.blobs, lost: pack.lost },
            };
            healed.mended.push(Mended { what: key.to_string(), how, bytes: std::mem::take(&mut bytes) });
        }
    }
    Ok(changed)
}

/// Marks what snapshots need, or says why nobody can tell.
async fn needed(ward: &Ward, snapshots: &SnapshotList, run: &Run) -> Result<Result<Marks, RepositoryError>, HealError> {
    match Arc::clone(&ward.repository).mark_needed(snapshots, run).await {
        Ok(marks) => Ok(Ok(marks)),
        Err(error) if error.is_damage() => Ok(Err(error)),
        Err(error) => Err(error.into()),
    }
}

fn key_of(pack: &ObjectId) -> Key {
    Key::new(FileKind::Pack, pack.to_string())
}

fn leave(healed: &mut Healed, pack: &ObjectId, why: &str) {
    healed.left.push(Left::new(&Object::Stored(key_of(pack)), why));
}

/// Returns why the store would not delete what becomes superfluous: new packs beside what stays would be written each time.
async fn protection(ward: &Ward, packs: &HashSet<ObjectId>, run: &Run) -> Result<Option<StoreError>, HealError> {
    let store = ward.repository.store();
    for key in ward.repository.index_files_of(packs).into_iter().chain(packs.iter().map(key_of)) {
        run.check()?;
        let until = match store.immutable_until(&key).await {
            Ok(until) => until.filter(|until| *until > run.now()),
            // What is not there is protected by nothing.
            Err(StoreError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if until.is_some() {
            return Ok(Some(StoreError::Protected { act: "delete", thing: key.path(), until }));
        }
    }
    Ok(None)
}
