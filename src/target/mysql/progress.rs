//! How far a load has come, kept on the target itself.
//!
//! A row for each step lies in a table of ours. A chunk's row is written in the transaction of its rows, before them: so the two
//! come to be together, and a second try of a chunk waits for the first and then knows how that ended.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use sha2::{Digest, Sha256};

use crate::mysql::sql;
use crate::target::mysql::fault;
use crate::target::mysql::{LoadError, LoadPlan};

pub(super) const SCHEMA: &str = "bkp_restore";
const TABLE: &str = "`bkp_restore`.`bkp_restore_progress`";

/// What an unfinished load has left on a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Names the manifest and the selection that were being loaded.
    pub token: String,
    /// The snapshot that the dump came from, where the one who loaded told it.
    pub snapshot: Option<String>,
    items: BTreeSet<String>,
}

/// Something that a load does once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The load of this token has begun.
    Load(&'a str),
    /// It loads a dump from this snapshot.
    Snapshot(&'a str),
    /// From here on the table of this name is ours.
    Begun { schema: &'a str, name: &'a str },
    /// It is there, without rows.
    Created { schema: &'a str, name: &'a str },
    /// The rows of this file are there.
    Chunk(&'a str),
    /// A table has its rows and its indexes.
    Finished { schema: &'a str, name: &'a str },
    /// From here on what the statements of this file make is ours.
    Making(&'a str),
    /// It is there.
    Made(&'a str),
}

impl Step<'_> {
    fn word(self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Snapshot(_) => "snapshot",
            Self::Begun { .. } => "begun",
            Self::Created { .. } => "created",
            Self::Chunk(_) => "chunk",
            Self::Finished { .. } => "finished",
            Self::Making(_) => "making",
            Self::Made(_) => "made",
        }
    }

    /// Returns the name for people, and for [`Step::Load`] and [`Step::Snapshot`] what they carry.
    fn label(self) -> String {
        match self {
            Self::Load(text) | Self::Snapshot(text) | Self::Chunk(text) | Self::Making(text) | Self::Made(text) => {
                text.to_owned()
            }
            Self::Begun { schema, name } | Self::Created { schema, name } | Self::Finished { schema, name } => {
                sql::qualified(schema, name)
            }
        }
    }

    /// Returns the key: names can be longer than a key may be.
    fn item(self) -> String {
        let text = format!("{}\0{}", self.word(), self.label());
        hex::encode(Sha256::digest(text))
    }
}

impl Progress {
    pub(super) fn has(&self, step: Step<'_>) -> bool {
        self.items.contains(&step.item())
    }

    #[cfg(test)]
    pub(super) fn of(token: &str, steps: &[Step<'_>]) -> Self {
        Self { token: token.to_owned(), snapshot: None, items: steps.iter().map(|step| step.item()).collect() }
    }
}

/// Reads what an unfinished load has left; `None` where there is none.
pub(super) async fn read(conn: &mut Conn) -> Result<Option<Progress>, LoadError> {
    let asked = format!("SELECT item, step, name FROM {TABLE}");
    let rows: Vec<(String, String, String)> = match conn.query(asked).await {
        Ok(rows) => rows,
        Err(Error::Server(error)) if fault::is_absent(error.code) => return Ok(None),
        Err(error) => return Err(LoadError::at("read the progress of an earlier load")(error)),
    };
    let name = |wanted: &str| {
        let found = rows.iter().find(|(_, step, _)| step == wanted);
        found.map(|(_, _, name)| name.clone())
    };
    let (token, snapshot) = (name("load"), name("snapshot"));
    let items = rows.into_iter().map(|(item, _, _)| item).collect();
    Ok(token.map(|token| Progress { token, snapshot, items }))
}

/// Makes an empty table of progress for a new load. What another load left in it is forgotten.
pub(super) async fn begin(conn: &mut Conn, plan: &LoadPlan) -> Result<(), LoadError> {
    let make = format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (item CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, \
         step VARCHAR(16) CHARACTER SET ascii NOT NULL, name TEXT CHARACTER SET utf8mb4 NOT NULL) ENGINE=InnoDB"
    );
    let statements = [
        format!("CREATE DATABASE IF NOT EXISTS {}", sql::ident(SCHEMA)),
        make,
        format!("DELETE FROM {TABLE}"),
        insert(Step::Load(&plan.token)),
    ];
    let snapshot = plan.snapshot.as_deref().map(|id| insert(Step::Snapshot(id)));
    for statement in statements.into_iter().chain(snapshot) {
        conn.query_drop(statement)
            .await
            .map_err(LoadError::at("keep the load's progress on the target, in schema `bkp_restore`"))?;
    }
    Ok(())
}

/// Returns the statement that notes a step. It fails with a duplicate key if the step is noted already.
pub(super) fn insert(step: Step<'_>) -> String {
    format!(
        "INSERT INTO {TABLE} (item, step, name) VALUES ('{}', '{}', {})",
        step.item(),
        step.word(),
        sql::string(&step.label())
    )
}

/// Notes a step that is no part of a transaction; one that is noted already stays.
pub(super) async fn note(conn: &mut Conn, step: Step<'_>) -> Result<(), LoadError> {
    let statement = insert(step).replacen("INSERT", "INSERT IGNORE", 1);
    conn.query_drop(statement).await.map_err(LoadError::at("note the load's progress"))
}

/// Forgets steps that must be done again.
pub(super) async fn forget(conn: &mut Conn, steps: &[Step<'_>]) -> Result<(), LoadError> {
    for step in steps {
        conn.query_drop(format!("DELETE FROM {TABLE} WHERE item = '{}'", step.item()))
            .await
            .map_err(LoadError::at("note the load's progress"))?;
    }
    Ok(())
}

/// Removes the table, and the schema if it holds nothing else: the load is over.
pub(super) async fn end(conn: &mut Conn) -> Result<(), LoadError> {
    let at = || LoadError::at("remove the load's progress from the target");
    conn.query_drop(format!("DROP TABLE IF EXISTS {TABLE}")).await.map_err(at())?;
    let asked = format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{SCHEMA}'");
    let others: Option<u64> = conn.query_first(asked).await.map_err(at())?;
    if others == Some(0) {
        let drop = format!("DROP DATABASE IF EXISTS {}", sql::ident(SCHEMA));
        conn.query_drop(drop).await.map_err(at())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_the_same_name_are_told_apart() {
        let (schema, name) = ("s", "t");
        let progress = Progress::of("x", &[Step::Begun { schema, name }, Step::Chunk("s/t/0.tsv")]);
        assert!(progress.has(Step::Begun { schema, name }));
        assert!(progress.has(Step::Chunk("s/t/0.tsv")));
        assert!(!progress.has(Step::Made("s/t/0.tsv")));
        assert!(!progress.has(Step::Created { schema, name }));
        assert!(!progress.has(Step::Finished { schema, name }));
    }

    #[test]
    fn a_name_with_dots_and_quotes_is_no_other_name() {
        let step = |schema, name| Step::Finished { schema, name }.item();
        assert_ne!(step("a.b", "c"), step("a", "b.c"));
        assert_ne!(step("a`.`b", "c"), step("a", "b`.`c"));
    }
}
