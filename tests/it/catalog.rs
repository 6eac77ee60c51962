//! The catalog: what is written comes back, and no state of its file stands in the way.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bkp::catalog::{
    Catalog, CatalogError, CopyRecord, HealRecord, Outcome, REPOSITORY, RunEnd, RunSnapshot, RunStart, SnapshotRecord,
    SourceEnd, VerifyRecord,
};
use bkp::drill::outcome::{DrillOutcome, ObjectivesMs, Origin, Phase, Place, Scenario, Verdict};
use bkp::event::{Event, Events, Listener};
use bkp::id::{ObjectId, RunId, SnapshotId};
use bkp::verify::Level;
use chrono::{DateTime, TimeDelta, Utc};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn id(name: &str) -> SnapshotId {
    ObjectId::of(name.as_bytes())
}

fn open(dir: &Path) -> Catalog {
    Catalog::open(dir, &Events::silent()).unwrap()
}

fn start(verb: &str, time: &str) -> RunStart {
    RunStart {
        id: RunId::new(at(time), 7),
        policy: "mall".to_owned(),
        verb: verb.to_owned(),
        started: at(time),
        sources: Vec::new(),
    }
}

/// Writes a whole run of a verb that made a snapshot of a source.
fn run(catalog: &Catalog, verb: &str, time: &str, source: &str, exit_code: u8) {
    let start = start(verb, time);
    catalog.begin(&start).unwrap();
    let made = SnapshotRecord { run: Some(start.id.clone()), ..snapshot(REPOSITORY, source, time) };
    let ended = SourceEnd { source: source.to_owned(), exit_code, snapshot: Some(made) };
    catalog.end_sources(&start.id, &[ended]).unwrap();
    catalog.end(&start.id, &RunEnd::new(start.started + TimeDelta::minutes(5), exit_code)).unwrap();
}

fn snapshot(store: &str, source: &str, time: &str) -> SnapshotRecord {
    SnapshotRecord {
        store: store.to_owned(),
        id: id(&format!("{source} {time}")),
        source: source.to_owned(),
        kind: "mysql".to_owned(),
        time: at(time),
        run: Some(RunId::new(at(time), 9)),
        incomplete: false,
    }
}

fn drill(time: &str) -> DrillOutcome {
    let objectives = ObjectivesMs { rpo_ms: Some(300_000), rto_ms: None };
    DrillOutcome {
        run: RunId::new(at(time), 3),
        policy: "mall".to_owned(),
        policy_hash: "00".repeat(32),
        started: at(time),
        ended: at(time) + TimeDelta::seconds(40),
        place: Place { host: "drill-host".to_owned(), sandboxes: Vec::new(), cores: 2, memory_bytes: 1 << 32 },
        from: Origin::Repository,
        scenario: Scenario::Lost,
        snapshots: Vec::new(),
        phases: vec![Phase { name: "load".to_owned(), duration_ms: 31_000, bytes: Some(9), ..Phase::default() }],
        checks: Vec::new(),
        rta_ms: Some(40_000),
        rpa_ms: None,
        first_order: None,
        standbys: Vec::new(),
        objectives,
        verdict: Verdict::judge(objectives, Some(40_000), None, &[]),
        error: None,
    }
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Listener for Warnings {
    fn hear(&self, event: &Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

#[test]
fn a_run_comes_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let begun = start("backup", "2026-03-01T02:15:00.25Z");
    let end = RunEnd {
        error: Some("upload `data/ab/abcd`: connection reset".to_owned()),
        phases: drill("2026-03-01T02:15:00Z").phases,
        bytes_read: 1 << 40,
        bytes_stored: 12,
        bytes_copied: u64::MAX,
        ..RunEnd::new(at("2026-03-01T02:20:00Z"), 3)
    };
    let catalog = open(dir.path());
    catalog.begin(&begun).unwrap();
    let made = snapshot(REPOSITORY, "db1", "2026-03-01T02:15:00Z");
    let ended = SourceEnd { source: "db1".to_owned(), exit_code: 0, snapshot: Some(made.clone()) };
    catalog.end_sources(&begun.id, &[ended]).unwrap();
    catalog.end(&begun.id, &end).unwrap();
    drop(catalog);

    let catalog = open(dir.path());
    let [found] = &catalog.runs(9).unwrap()[..] else { panic!("not one run") };
    assert_eq!(found.id, begun.id);
    assert_eq!(found.started, begun.started);
    assert_eq!(found.ended, Some(end.ended));
    assert_eq!(found.outcome, Outcome::Incomplete);
    assert_eq!(found.exit_code, Some(3));
    assert_eq!(found.error, end.error);
    assert_eq!(found.phases, end.phases);
    assert_eq!((found.bytes_read, found.bytes_stored), (1 << 40, 12));
    assert_eq!(found.snapshots, [RunSnapshot { source: "db1".to_owned(), id: made.id }]);
    assert_eq!(catalog.snapshots().unwrap(), [made]);
}

#[test]
fn the_newest_runs_come_first_and_a_limit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    run(&catalog, "backup", "2026-03-02T00:00:00Z", "db1", 0);
    run(&catalog, "verify", "2026-03-03T00:00:00Z", "db1", 0);
    run(&catalog, "backup", "2026-03-01T00:00:00Z", "db1", 0);
    let days = catalog.runs(2).unwrap();
    let days: Vec<_> = days.iter().map(|run| run.started).collect();
    assert_eq!(days, [at("2026-03-03T00:00:00Z"), at("2026-03-02T00:00:00Z")]);
}

/// Begins a backup of sources, and ends it for those that have a code.
fn backup(catalog: &Catalog, time: &str, sources: &[(&str, Option<u8>)]) {
    let names = sources.iter().map(|(name, _)| (*name).to_owned()).collect();
    let start = RunStart { sources: names, ..start("backup", time) };
    catalog.begin(&start).unwrap();
    let ended = sources.iter().filter_map(|(source, code)| {
        Some(SourceEnd { source: (*source).to_owned(), exit_code: (*code)?, snapshot: None })
    });
    catalog.end_sources(&start.id, &ended.collect::<Vec<_>>()).unwrap();
}

#[test]
fn the_newest_backup_of_a_source_is_not_hidden_by_one_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    backup(&catalog, "2026-03-01T00:00:00Z", &[("db1", Some(0)), ("images", Some(15))]);
    backup(&catalog, "2026-03-02T00:00:00Z", &[("db1", Some(0))]);
    // It runs: nothing is known yet of what it reads.
    backup(&catalog, "2026-03-03T00:00:00Z", &[("images", None)]);
    let newest = |source| catalog.newest_of_source(source).unwrap().map(|(_, code)| code);
    assert_eq!(newest("db1"), Some(Some(0)));
    assert_eq!(newest("images"), Some(Some(15)));
    assert_eq!(newest("other"), None);
    // It has failed before it came to the images.
    let run = RunId::new(at("2026-03-03T00:00:00Z"), 7);
    catalog.end(&run, &RunEnd::new(at("2026-03-03T00:01:00Z"), 1)).unwrap();
    assert_eq!(newest("images"), Some(None));
}

#[test]
fn what_stands_is_the_newest_end_of_each_verb_and_what_has_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    run(&catalog, "verify", "2026-03-01T00:00:00Z", "db1", 13);
    for day in 2..=9 {
        run(&catalog, "backup", &format!("2026-03-0{day}T00:00:00Z"), "db1", 0);
    }
    catalog.begin(&start("backup", "2026-03-10T00:00:00Z")).unwrap();
    let standing = catalog.standing().unwrap();
    let found: Vec<_> = standing.iter().map(|run| (run.verb.as_str(), run.started, run.outcome)).collect();
    let wanted = [
        ("backup", at("2026-03-10T00:00:00Z"), Outcome::Running),
        ("backup", at("2026-03-09T00:00:00Z"), Outcome::Ok),
        ("verify", at("2026-03-01T00:00:00Z"), Outcome::Failed),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn verifies_come_back_by_store_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let verify = |time: &str, store: &str, subset: Option<&str>| VerifyRecord {
        run: RunId::new(at(time), 2),
        started: at(time),
        store: store.to_owned(),
        level: if subset.is_some() { Level::Data } else { Level::Structure },
        subset: subset.map(|text| text.parse().unwrap()),
        is_sound: subset.is_some(),
    };
    let old = verify("2026-03-01T00:00:00Z", REPOSITORY, None);
    let new = verify("2026-03-03T00:00:00Z", REPOSITORY, Some("3/7"));
    for one in [&new, &old, &verify("2026-03-02T00:00:00Z", "offsite", None)] {
        catalog.record_verify(one).unwrap();
    }
    let restored = VerifyRecord { level: Level::Restore, ..old.clone() };
    catalog.record_verify(&restored).unwrap();
    assert_eq!(catalog.verifies(REPOSITORY).unwrap(), [new, restored, old], "a run may look at two levels");
}

#[test]
fn what_was_mended_is_kept_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let heal = |time: &str, left: &[&str]| HealRecord {
        run: RunId::new(at(time), 2),
        started: at(time),
        store: REPOSITORY.to_owned(),
        mended: vec!["data/ab from usb".to_owned(), "index/cd removed".to_owned()],
        bytes: 17 << 20,
        left: left.iter().map(|&line| line.to_owned()).collect(),
    };
    let (old, new) = (heal("2026-03-01T00:00:00Z", &["data/ef"]), heal("2026-03-03T00:00:00Z", &[]));
    catalog.record_heal(&new).unwrap();
    catalog.record_heal(&old).unwrap();
    drop(catalog);
    assert_eq!(open(dir.path()).heals(9).unwrap(), [new.clone(), old]);
    assert_eq!(open(dir.path()).heals(1).unwrap(), [new]);
}

#[test]
fn a_run_that_was_killed_shows_as_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    catalog.begin(&start("backup", "2026-03-01T00:00:00Z")).unwrap();
    assert_eq!(catalog.runs(1).unwrap()[0].outcome, Outcome::Running);

    let file = rusqlite::Connection::open(dir.path().join("catalog.sqlite")).unwrap();
    let holder: String = file.query_row("SELECT holder FROM runs", [], |row| row.get(0)).unwrap();
    let after_reboot = holder.replacen(|letter: char| letter != ' ', "x", 1);
    file.execute("UPDATE runs SET holder = ?1", [after_reboot]).unwrap();
    assert_eq!(catalog.runs(1).unwrap()[0].outcome, Outcome::Interrupted);
}

#[test]
fn the_end_of_a_run_that_never_began_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let end = RunEnd::new(at("2026-03-01T00:00:00Z"), 0);
    let run = RunId::new(end.ended, 1);
    assert!(open(dir.path()).end(&run, &end).is_err());
}

#[test]
fn drills_come_back_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let (old, new) = (drill("2026-02-01T06:00:00Z"), drill("2026-03-01T06:00:00Z"));
    catalog.record_drill(&new).unwrap();
    catalog.record_drill(&old).unwrap();
    assert_eq!(catalog.drills(9).unwrap(), [new, old]);
}

#[test]
fn a_damaged_file_is_kept_aside_and_a_new_one_begins_with_a_warning() {
    for damage in [&b"this is no database"[..], &[0xff; 8192]] {
        let dir = tempfile::tempdir().unwrap();
        run(&open(dir.path()), "backup", "2026-03-01T00:00:00Z", "db1", 0);
        let file = dir.path().join("catalog.sqlite");
        fs::write(&file, damage).unwrap();

        let heard = Arc::new(Warnings::default());
        let catalog = Catalog::open(dir.path(), &Events::new(heard.clone())).unwrap();
        assert!(catalog.is_unfilled().unwrap());
        assert_eq!(catalog.runs(9).unwrap(), []);
        let warnings = heard.0.lock().unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("catalog.sqlite.damaged-1"), "{warnings:?}");
        let aside = dir.path().join("catalog.sqlite.damaged-1");
        assert_eq!(fs::read(aside).unwrap(), damage);
    }
}

#[test]
fn damage_in_the_middle_of_the_file_is_found_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    for day in 1..=28 {
        run(&catalog, "backup", &format!("2026-02-{day:02}T00:00:00Z"), "db1", 0);
    }
    drop(catalog);
    let file = dir.path().join("catalog.sqlite");
    let mut bytes = fs::read(&file).unwrap();
    bytes[8192..20_480].fill(0xa5);
    fs::write(&file, bytes).unwrap();
    assert_eq!(open(dir.path()).runs(9).unwrap(), []);
    assert!(dir.path().join("catalog.sqlite.damaged-1").exists());
}

#[test]
fn a_file_of_a_newer_bkp_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = dir.path().join("catalog.sqlite");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    let error = Catalog::open(dir.path(), &Events::silent()).unwrap_err();
    assert!(matches!(error, CatalogError::Newer { found: 99, .. }));
    assert!(error.hint().is_some());
}

#[test]
fn a_rebuild_takes_over_what_the_repositories_hold() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let gone = snapshot(REPOSITORY, "db1", "2026-01-01T00:00:00Z");
    catalog.record_snapshots(&[gone]).unwrap();
    let listed = [
        snapshot(REPOSITORY, "db1", "2026-03-01T00:00:00Z"),
        snapshot("offsite", "db1", "2026-03-01T00:00:00Z"),
        snapshot(REPOSITORY, "db1", "2026-03-02T00:00:00Z"),
    ];
    assert!(catalog.is_unfilled().unwrap());
    catalog.rebuild("mall", &listed, &[]).unwrap();
    catalog.rebuild("mall", &listed, &[]).unwrap();
    assert!(!open(dir.path()).is_unfilled().unwrap());

    let mut found = catalog.snapshots().unwrap();
    found.sort_by_key(|snapshot| (snapshot.time, snapshot.store == "offsite"));
    assert_eq!(found, listed);
    assert_eq!(catalog.runs(9).unwrap().len(), 2);
    let newest = catalog.newest_of_source("db1").unwrap();
    assert_eq!(newest, Some((RunId::new(at("2026-03-02T00:00:00Z"), 9), Some(0))));
    let copy = CopyRecord {
        name: "offsite".to_owned(),
        completed: None,
        snapshot: Some(listed[1].id),
        snapshot_time: Some(listed[1].time),
    };
    assert_eq!(catalog.copies().unwrap(), [copy]);
}

#[test]
fn a_rebuild_keeps_what_it_knows_of_a_store_that_was_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let time = "2026-03-01T00:00:00Z";
    let both = [snapshot(REPOSITORY, "db1", time), snapshot("offsite", "db1", time)];
    catalog.record_snapshots(&both).unwrap();
    catalog.rebuild("mall", &[], &[REPOSITORY]).unwrap();
    assert_eq!(catalog.snapshots().unwrap(), both[..1]);
    assert!(catalog.is_unfilled().unwrap(), "the repository was not read");
    catalog.rebuild("mall", &[], &["offsite"]).unwrap();
    assert_eq!(catalog.snapshots().unwrap(), []);
    assert!(!catalog.is_unfilled().unwrap());
}

#[test]
fn a_forgotten_snapshot_leaves_one_store_only() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let time = "2026-03-01T00:00:00Z";
    let both = [snapshot(REPOSITORY, "db1", time), snapshot("offsite", "db1", time)];
    catalog.record_snapshots(&both).unwrap();
    catalog.drop_snapshots(REPOSITORY, &[both[0].id]).unwrap();
    assert_eq!(catalog.snapshots().unwrap(), both[1..]);
}

#[test]
fn the_newest_state_of_a_copy_replaces_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let mut copy = CopyRecord {
        name: "offsite".to_owned(),
        completed: Some(at("2026-03-01T03:00:00Z")),
        snapshot: Some(id("a")),
        snapshot_time: Some(at("2026-03-01T02:15:00Z")),
    };
    catalog.record_copy(&copy).unwrap();
    copy.completed = Some(at("2026-03-02T03:00:00Z"));
    catalog.record_copy(&copy).unwrap();
    assert_eq!(catalog.copies().unwrap(), [copy]);
}

#[test]
fn all_who_open_a_new_catalog_at_once_get_it() {
    for _ in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    open(dir.path());
                });
            }
        });
    }
}

#[test]
fn many_writers_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                let catalog = open(dir);
                for minute in 0..15 {
                    run(&catalog, "backup", &format!("2026-03-0{}T00:{minute:02}:00Z", writer + 1), "db1", 0);
                }
            });
        }
    });
    assert_eq!(open(dir.path()).runs(100).unwrap().len(), 60);
}
