//! The tables, and the steps that bring an older file up to them.

use rusqlite::Connection;
use rusqlite::TransactionBehavior;

/// One script for each schema version, in order; `user_version` counts those applied. A published script never changes.
const STEPS: [&str; 4] = [
    "
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        policy TEXT NOT NULL,
        verb TEXT NOT NULL,
        started TEXT NOT NULL,
        ended TEXT,
        outcome TEXT,
        exit_code INTEGER,
        error TEXT,
        phases TEXT NOT NULL DEFAULT '[]',
        bytes_read INTEGER NOT NULL DEFAULT 0,
        bytes_stored INTEGER NOT NULL DEFAULT 0,
        bytes_copied INTEGER NOT NULL DEFAULT 0,
        holder TEXT
    ) STRICT;
    CREATE INDEX runs_by_time ON runs (started);
    CREATE INDEX runs_by_verb ON runs (verb, started);

    CREATE TABLE run_snapshots (
        run TEXT NOT NULL,
        source TEXT NOT NULL,
        id TEXT NOT NULL,
        PRIMARY KEY (run, source, id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE snapshots (
        store TEXT NOT NULL,
        id TEXT NOT NULL,
        source TEXT NOT NULL,
        kind TEXT NOT NULL,
        time TEXT NOT NULL,
        run TEXT,
        incomplete INTEGER NOT NULL,
        PRIMARY KEY (store, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX snapshots_by_time ON snapshots (store, time);

    CREATE TABLE copies (
        name TEXT PRIMARY KEY,
        completed TEXT,
        snapshot TEXT,
        snapshot_time TEXT
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE drills (
        run TEXT PRIMARY KEY,
        started TEXT NOT NULL,
        outcome TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX drills_by_time ON drills (started);
",
    "
    CREATE TABLE run_sources (
        run TEXT NOT NULL,
        source TEXT NOT NULL,
        exit_code INTEGER,
        PRIMARY KEY (source, run)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE verifies (
        run TEXT PRIMARY KEY,
        started TEXT NOT NULL,
        store TEXT NOT NULL,
        is_deep INTEGER NOT NULL,
        subset TEXT,
        is_sound INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX verifies_by_time ON verifies (store, started);

    CREATE TABLE marks (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    INSERT INTO marks (name) VALUES ('unfilled');
",
    "
    CREATE TABLE heals (
        run TEXT PRIMARY KEY,
        started TEXT NOT NULL,
        store TEXT NOT NULL,
        mended TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        left_over TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX heals_by_time ON heals (started);
",
    "
    ALTER TABLE verifies RENAME TO verifies_by_run;
    CREATE TABLE verifies (
        run TEXT NOT NULL,
        started TEXT NOT NULL,
        store TEXT NOT NULL,
        is_deep INTEGER NOT NULL,
        subset TEXT,
        is_sound INTEGER NOT NULL,
        PRIMARY KEY (run, is_deep)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO verifies (run, started, store, is_deep, subset, is_sound)
        SELECT run, started, store, is_deep, subset, is_sound FROM verifies_by_run;
    DROP TABLE verifies_by_run;
    CREATE INDEX verifies_by_time ON verifies (store, started);
",
];

/// Whether the file now has the tables that this program knows.
pub(super) enum Migrated {
    Done,
    Newer { found: i64, known: i64 },
}

/// Applies the steps that the file lacks, all or none.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<Migrated> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if version(connection)? == known {
        return Ok(Migrated::Done);
    }
    // Another process may migrate at this moment: the version is read again under the lock.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    let Some(missing) = usize::try_from(found).ok().and_then(|done| STEPS.get(done..)) else {
        return Ok(Migrated::Newer { found, known });
    };
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(Migrated::Done)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn verifies(connection: &Connection) -> Vec<(String, i64, Option<String>, i64)> {
        let mut statement =
            connection.prepare("SELECT run, is_deep, subset, is_sound FROM verifies ORDER BY run, is_deep").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn verifies_of_an_older_file_stay_and_a_run_may_have_one_of_each_level() {
        let mut connection = Connection::open_in_memory().unwrap();
        STEPS[..3].iter().for_each(|step| connection.execute_batch(step).unwrap());
        connection.pragma_update(None, "user_version", 3).unwrap();
        let insert = "INSERT INTO verifies (run, started, store, is_deep, subset, is_sound) VALUES";
        connection.execute_batch(&format!("{insert} ('a', 't', 'repository', 1, '3/7', 0)")).unwrap();

        assert!(matches!(migrate(&mut connection).unwrap(), Migrated::Done));
        connection.execute_batch(&format!("{insert} ('a', 't', 'repository', 2, NULL, 1)")).unwrap();
        let found = verifies(&connection);
        assert_eq!(found, [("a".to_owned(), 1, Some("3/7".to_owned()), 0), ("a".to_owned(), 2, None, 1)]);
    }
}
