//! Does what a plan says: fetches, proves, puts back, and proves again.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::event::Unit;
use crate::heal::donors::Donors;
use crate::heal::plan::{Gather, HealPlan, Left, PutBack};
use crate::heal::{HealError, Healed, How, Mended, Tried, Ward};
use crate::human;
use crate::id::BlobId;
use crate::repository::{BlobKind, LockGuard, RepositoryError};
use crate::run::Run;
use crate::store::{FileKind, Key, StoreError};
use crate::verify::{Finding, Object};

/// Objects on their way at once: each is a pack in memory, of 16 MiB as a rule and of 128 MiB where restic was told so.
const OBJECTS_IN_FLIGHT_MAX: usize = 4;

/// Puts objects back, and then what of others lies elsewhere; tells whether the store takes anything. Under a lock.
pub(super) async fn put(
    ward: &Ward,
    plan: &HealPlan,
    donors: &mut Donors<'_>,
    healed: &mut Healed,
    tried: &mut Tried,
    run: &Run,
) -> Result<bool, HealError> {
    let takes = put_back(ward, &plan.put_back, healed, tried, run).await?;
    if takes {
        gather(ward, &plan.gathered, donors, healed, tried, run).await?;
    }
    Ok(takes)
}

/// Puts objects back, kind by kind in the order of publishing; tells whether the store takes anything.
async fn put_back(
    ward: &Ward,
    objects: &[PutBack],
    healed: &mut Healed,
    tried: &mut Tried,
    run: &Run,
) -> Result<bool, HealError> {
    let task = run.events.task(format!("heal {}", ward.name), Unit::Bytes, objects.iter().map(|one| one.bytes).sum());
    let mut is_refused = false;
    // One that was here is put only in its own place: who deleted it since meant to.
    let was_here = |object: &Key| {
        let is = |finding: &Finding| matches!(&finding.object, Object::Stored(key) if key == object);
        matches!(object.kind, FileKind::Snapshot | FileKind::Key) && healed.report.damaged.iter().any(is)
    };
    let was_here: HashSet<Key> = objects.iter().map(|one| one.object.clone()).filter(was_here).collect();
    for kind in objects.chunk_by(|a, b| a.object.kind == b.object.kind) {
        // A store that is full, or lets nobody write, says so to every object.
        if is_refused {
            healed.left.extend(kind.iter().map(|one| left(one, "not tried: the store takes nothing")));
            continue;
        }
        // Owned: a closure over borrowed items would make the future of a heal impossible to spawn.
        let kind: Vec<_> = kind.iter().map(|one| (was_here.contains(&one.object), one.clone())).collect();
        let puts = kind.into_iter().map(|(was_here, one)| async move {
            let put = put_one(ward, &one, was_here, run).await;
            (one, put)
        });
        let mut puts = stream::iter(puts).buffer_unordered(OBJECTS_IN_FLIGHT_MAX);
        while let Some((one, put)) = puts.next().await {
            task.add(one.bytes);
            match put {
                Ok(mended) => healed.mended.push(mended),
                Err(Unmended::Fatal(error)) => return Err(error.into()),
                Err(Unmended::Refused(error)) => {
                    is_refused = true;
                    healed.left.push(left(&one, &error.to_string()));
                }
                Err(Unmended::NotGiven(why, away)) => {
                    tried.ungiven.insert(one.object.to_string());
                    healed.left.push(left(&one, &why));
                    healed.away.extend(away);
                }
                Err(Unmended::NotTaken(why)) => healed.left.push(left(&one, &why)),
            }
        }
    }
    Ok(!is_refused)
}

/// Brings blobs over that lie in other packs of the donors, and says of each pack that lost some how many came.
async fn gather(
    ward: &Ward,
    gathers: &[Gather],
    donors: &mut Donors<'_>,
    healed: &mut Healed,
    tried: &mut Tried,
    run: &Run,
) -> Result<(), HealError> {
    tried.gathered.extend(gathers.iter().map(|gather| gather.object.to_string()));
    let mut open: HashSet<(BlobKind, BlobId)> = gathers.iter().flat_map(|gather| &gather.blobs).copied().collect();
    let (mut came, mut faults) = (HashMap::new(), Vec::new());
    for donor in donors.places() {
        if open.is_empty() {
            break;
        }
        let Some(repository) = donors.open(donor).await? else { continue };
        match ward.repository.gather(&repository, open.iter().copied(), run).await {
            Ok(gathered) => {
                for (kind, id, length) in gathered.blobs {
                    open.remove(&(kind, id));
                    came.insert((kind, id), (donor, u64::from(length)));
                }
                if let Some(error) = gathered.broken {
                    donors.lose(donor, &format!("{error}: nothing more can be taken from there"));
                }
            }
            Err(error @ (RepositoryError::LockLost { .. } | RepositoryError::Stopped(_))) => return Err(error.into()),
            Err(error) => {
                faults.push(error.to_string());
                break;
            }
        }
    }
    healed.away.extend(donors.away());
    for gather in gathers {
        let got: Vec<_> = gather.blobs.iter().filter_map(|blob| came.get(blob)).collect();
        let (blobs, bytes) = (got.len() as u64, got.iter().map(|(_, length)| length).sum());
        let why = match faults.first() {
            Some(fault) => Some(fault.clone()),
            // Where nothing came, the reason is that for which the pack itself did not.
            None if blobs == 0 || blobs == gather.lost => None,
            None => {
                let rest = gather.lost - blobs;
                Some(format!("no store that answers holds {rest} of its {} lost blobs; the others came", gather.lost))
            }
        };
        healed.left.extend(why.map(|why| Left::new(&gather.object, &why)));
        if blobs > 0 {
            let from = got.iter().map(|(donor, _)| donors.name(*donor).to_owned()).collect();
            let how = How::Gathered { blobs, lost: gather.lost, from };
            healed.mended.push(Mended { what: gather.object.to_string(), how, bytes });
        }
    }
    Ok(())
}

fn left(one: &PutBack, why: &str) -> Left {
    Left::new(&Object::Stored(one.object.clone()), why)
}

/// Why an object is not back.
enum Unmended {
    /// No store gave good bytes; these did not answer.
    NotGiven(String, Vec<String>),
    /// It was given, and is not here nevertheless.
    NotTaken(String),
    /// The store takes nothing.
    Refused(RepositoryError),
    /// A signal, or a lock that was lost.
    Fatal(RepositoryError),
}

async fn put_one(ward: &Ward, one: &PutBack, was_here: bool, run: &Run) -> Result<Mended, Unmended> {
    let (bytes, from) = fetch(ward, one, run).await?;
    if was_here && is_gone(ward, &one.object).await? {
        return Err(Unmended::NotTaken("somebody deleted it meanwhile".to_owned()));
    }
    let length = bytes.len() as u64;
    match ward.repository.put_back(&one.object, bytes).await {
        Ok(()) => Ok(Mended { what: one.object.to_string(), how: How::From(from), bytes: length }),
        Err(error @ (RepositoryError::LockLost { .. } | RepositoryError::Stopped(_))) => Err(Unmended::Fatal(error)),
        Err(RepositoryError::Store(error)) if error.is_final() => Err(Unmended::Refused(error.into())),
        Err(error) => Err(Unmended::NotTaken(error.to_string())),
    }
}

async fn is_gone(ward: &Ward, key: &Key) -> Result<bool, Unmended> {
    let size = ward.repository.store().size(key).await;
    size.map(|size| size.is_none()).map_err(|error| Unmended::NotTaken(error.to_string()))
}

/// Fetches an object from the first store whose bytes of it are good.
async fn fetch(ward: &Ward, one: &PutBack, run: &Run) -> Result<(Bytes, String), Unmended> {
    let (mut faults, mut away) = (Vec::new(), Vec::new());
    for donor in ward.donors.iter().filter(|donor| one.from.contains(&donor.name)) {
        let got = run.cancel.run_until_cancelled(donor.store.get(&one.object)).await;
        let got = got.ok_or_else(|| Unmended::Fatal(crate::run::Stopped.into()))?;
        let proved = match got {
            Ok(bytes) => prove(ward, one, bytes).await,
            Err(error) => Err(error.into()),
        };
        match proved {
            Ok(bytes) => return Ok((bytes, donor.name.clone())),
            Err(error) => {
                // What cannot be read there now may lie there whole.
                if !error.is_damage() || matches!(error, RepositoryError::Store(StoreError::Unreadable { .. })) {
                    away.push(donor.name.clone());
                }
                faults.push(format!("{}: {}", donor.name, human::chain(&error)));
            }
        }
    }
    Err(Unmended::NotGiven(format!("no other store holds it whole: {}", faults.join("; ")), away))
}

async fn prove(ward: &Ward, one: &PutBack, bytes: Bytes) -> Result<Bytes, RepositoryError> {
    let (repository, key) = (ward.repository.clone(), one.object.clone());
    // A pack takes tens of milliseconds to hash, too long for the threads that wait.
    let proved = tokio::task::spawn_blocking(move || repository.check_bytes(&key, &bytes).map(|()| bytes)).await;
    proved.map_err(|error| RepositoryError::refused("an object", error))?
}

/// Names packs that have no index, and removes what is worth nothing any more. The lock is exclusive.
pub(super) async fn change_index(
    ward: &Ward,
    plan: &HealPlan,
    tried: &Tried,
    lock: &LockGuard,
    healed: &mut Healed,
    run: &Run,
) -> Result<(), HealError> {
    let repository = &ward.repository;
    if plan.rebuilds_index {
        repository.load_index_and_headers(run).await?;
        let lost = |object: &Object| match object {
            Object::Blob(kind, id) => Some((*kind, *id)),
            Object::Stored(_) => None,
        };
        let lost = healed.report.findings().filter_map(|finding| lost(&finding.object)).collect();
        let named = repository.save_index_for(&lost).await?;
        if named > 0 {
            let packs = human::counted(named as u64, "pack", "packs");
            healed.mended.push(Mended { what: format!("an index of {packs}"), how: How::Rebuilt, bytes: 0 });
        }
    } else {
        // Only now does nobody else change what index files and packs there are.
        repository.load_index(run).await?;
    }
    let twins = plan.removed.iter().filter(|key| key.kind != FileKind::Index).cloned();
    let indexes =
        repository.worthless_index_files().into_iter().filter(|key| !tried.removed.contains(&key.to_string()));
    for key in twins.chain(indexes) {
        if remove(ward, &key, lock, healed, run).await? {
            healed.mended.push(Mended { what: key.to_string(), how: How::Removed, bytes: 0 });
        }
    }
    Ok(())
}

/// Deletes an object, and tells whether the store did so.
pub(super) async fn remove(
    ward: &Ward,
    key: &Key,
    lock: &LockGuard,
    healed: &mut Healed,
    run: &Run,
) -> Result<bool, HealError> {
    run.check()?;
    lock.prove().await?;
    let deleted = ward.repository.store().delete(key).await;
    let is_gone = deleted.is_ok();
    healed.kept.extend(deleted.err().map(|error| (key.clone(), error)));
    Ok(is_gone)
}
