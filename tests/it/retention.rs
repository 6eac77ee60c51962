//! Forget drops what no rule keeps, and nothing else: not another policy's, not while frozen, not a pack.

use std::collections::BTreeSet;

use bkp::copy::copy;
use bkp::forget::{Alone, ForgetPlan, Forgotten, Freeze};
use bkp::id::SnapshotId;
use bkp::policy::{CatchUp, DrillPlan, Keep, Network, Objectives, Policy, RepositoryPlace, Schedule};
use bkp::repository::Repository;
use bkp::run::Run;
use bkp::secret::SecretSource;
use bkp::store::FileKind;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use chrono::{DateTime, TimeDelta, Utc};

use crate::copy::{memory, repository, save};

const IMAGES: [&str; 2] = ["policy=mall", "source=images"];
const DATABASE: [&str; 2] = ["policy=mall", "source=db1"];

fn mall(last: u32) -> Policy {
    Policy {
        file: "mall.toml".into(),
        hash: String::new(),
        name: "mall".to_owned(),
        timezone: chrono_tz::Tz::Asia__Seoul,
        objectives: Objectives::default(),
        network: Network::default(),
        repository: RepositoryPlace {
            path: "/backup/mall".into(),
            password: SecretSource::File("/etc/bkp/mall.key".into()),
            from_kit: None,
        },
        state_dir: "/var/lib/bkp/mall".into(),
        copies: Vec::new(),
        mysql: std::collections::BTreeMap::new(),
        files: std::collections::BTreeMap::new(),
        schedule: Schedule { catch_up: CatchUp::One, ..Schedule::default() },
        verify: bkp::policy::VerifyPlan { heal: true },
        restore: bkp::policy::RestorePlan::default(),
        retention: Keep { last, ..Keep::default() },
        drill: DrillPlan::default(),
    }
}

/// A moment after all snapshots that `save` makes.
fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(30_000)
}

async fn ids(repository: &Repository) -> BTreeSet<SnapshotId> {
    let snapshots = repository.snapshots().await.unwrap();
    snapshots.iter().map(|stored| stored.id).collect()
}

async fn planned(repository: &Repository, freeze: Option<Freeze>) -> ForgetPlan {
    let snapshots = repository.snapshots().await.unwrap();
    ForgetPlan::new(&snapshots, &mall(1), freeze, now())
}

async fn applied(plan: &ForgetPlan, repository: &Repository) -> Forgotten {
    let run = Run::silent();
    let lock = Alone::take(repository, &run).await.unwrap();
    let forgotten = plan.apply(repository, &lock, &run).await;
    lock.into_guard().release().await.unwrap();
    forgotten
}

#[tokio::test]
async fn what_concerns_binlogs_alone_drops_no_dump() {
    const BINLOG: [&str; 3] = ["policy=mall", "source=db1", "kind=binlog"];
    let repository = repository(memory()).await;
    let (old_dump, old_binlog) = (save(&repository, 1, &DATABASE).await, save(&repository, 2, &BINLOG).await);
    save(&repository, 3, &DATABASE).await;
    save(&repository, 4, &BINLOG).await;
    let plan = planned(&repository, None).await;
    let gone = |plan: &ForgetPlan| plan.forgotten().map(|it| it.id).collect::<BTreeSet<_>>();
    assert_eq!(gone(&plan), BTreeSet::from([old_dump, old_binlog]));
    assert_eq!(gone(&plan.of_binlogs()), BTreeSet::from([old_binlog]));
}

#[tokio::test]
async fn each_source_keeps_its_own_and_others_snapshots_are_not_touched() {
    let repository = repository(memory()).await;
    let foreign = save(&repository, 1, &["policy=other", "source=images"]).await;
    let nobodys = save(&repository, 2, &[]).await;
    let old = save(&repository, 3, &IMAGES).await;
    let database = save(&repository, 4, &DATABASE).await;
    let new = save(&repository, 5, &IMAGES).await;

    let plan = planned(&repository, None).await;
    assert_eq!(plan.others, 2);
    assert_eq!(plan.forgotten().map(|it| it.id).collect::<Vec<_>>(), [old]);
    assert_eq!(applied(&plan, &repository).await.done, [old]);
    assert_eq!(ids(&repository).await, [foreign, nobodys, database, new].into());
    assert_eq!(planned(&repository, None).await.forgotten().count(), 0);
}

#[tokio::test]
async fn while_frozen_nothing_is_forgotten_and_the_plan_says_why() {
    let repository = repository(memory()).await;
    for seed in 1..=3 {
        save(&repository, seed, &IMAGES).await;
    }
    let before = ids(&repository).await;
    let freeze = Freeze::GuardTripped { source: "images".to_owned() };
    let plan = planned(&repository, Some(freeze)).await;
    assert!(applied(&plan, &repository).await.done.is_empty());
    assert_eq!(ids(&repository).await, before);
    assert_eq!(plan.frozen.unwrap().to_string(), "a guard of `images` has tripped");
}

#[tokio::test]
async fn an_incomplete_snapshot_does_not_push_out_the_last_complete_one() {
    let repository = repository(memory()).await;
    let old = save(&repository, 1, &IMAGES).await;
    let good = save(&repository, 2, &IMAGES).await;
    let partial = save(&repository, 3, &["policy=mall", "source=images", "incomplete=true"]).await;
    applied(&planned(&repository, None).await, &repository).await;
    assert_eq!(ids(&repository).await, [good, partial].into());
    assert!(!ids(&repository).await.contains(&old));
}

#[tokio::test]
async fn a_held_snapshot_stays() {
    let repository = repository(memory()).await;
    let one = save(&repository, 1, &["policy=mall", "source=images", "hold"]).await;
    let two = save(&repository, 2, &["policy=mall", "source=images", "hold=lawsuit"]).await;
    let new = save(&repository, 3, &IMAGES).await;
    applied(&planned(&repository, None).await, &repository).await;
    assert_eq!(ids(&repository).await, [one, two, new].into());
}

#[tokio::test]
async fn forget_removes_snapshots_only_and_what_stays_is_read_whole() {
    let repository = repository(memory()).await;
    save(&repository, 1, &IMAGES).await;
    let new = save(&repository, 2, &IMAGES).await;
    let packs = repository.store().list(FileKind::Pack).await.unwrap();
    applied(&planned(&repository, None).await, &repository).await;
    assert_eq!(repository.store().list(FileKind::Pack).await.unwrap(), packs);
    let stored = repository.snapshots().await.unwrap().remove(0);
    assert_eq!(stored.id, new);
    repository.tree(&stored.snapshot.tree).await.unwrap();
}

#[tokio::test]
async fn a_copy_forgets_by_itself_under_the_same_rules() {
    let here = repository(memory()).await;
    save(&here, 1, &IMAGES).await;
    let new = save(&here, 2, &IMAGES).await;
    let to = memory();
    let run = Run::silent();
    assert!(copy(&here, &to, 4, &run).await.unwrap().is_complete());
    let there = Repository::open(to.clone(), &crate::copy::password(), &run).await.unwrap();

    applied(&planned(&here, None).await, &here).await;
    assert!(copy(&here, &to, 4, &run).await.unwrap().is_complete());
    assert_eq!(ids(&there).await.len(), 2, "a copy deletes nothing");
    applied(&planned(&there, None).await, &there).await;
    assert_eq!(ids(&there).await, [new].into());
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_removed_does_not_spare_the_next() {
    let faulty = std::sync::Arc::new(Faulty::new(memory()));
    let repository = repository(faulty.clone()).await;
    let stuck = save(&repository, 1, &IMAGES).await;
    let old = save(&repository, 2, &IMAGES).await;
    save(&repository, 3, &IMAGES).await;
    faulty.add(Rule::nth(Operation::Delete, 1, Fault::Denied).of(FileKind::Snapshot));
    let forgotten = applied(&planned(&repository, None).await, &repository).await;
    assert_eq!(forgotten.done, [old]);
    assert_eq!(forgotten.failed[0].0, stuck);
}

#[tokio::test]
async fn a_signal_ends_a_forget_between_two_snapshots() {
    let repository = repository(memory()).await;
    for seed in 1..=3 {
        save(&repository, seed, &IMAGES).await;
    }
    let run = Run::silent();
    let lock = Alone::take(&repository, &run).await.unwrap();
    run.cancel.cancel();
    let forgotten = planned(&repository, None).await.apply(&repository, &lock, &run).await;
    assert!(forgotten.stopped && forgotten.done.is_empty());
    assert_eq!(ids(&repository).await.len(), 3);
    lock.into_guard().release().await.unwrap();
}
