//! Applies a change set in one transaction: each statement changes one row as it was reviewed, or nothing is changed.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::event::Unit;
use crate::human;
use crate::mysql::server::Server;
use crate::restore::part::changes::file::{Lines, SESSION, is_statement};
use crate::restore::part::changes::{ChangeSet, ChangesError};
use crate::run::Run;
use crate::source::mysql::changes::footing;

/// What of a statement an error shows.
const SHOWN_CHARS: usize = 300;

/// What was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// One row each.
    pub statements: u64,
    pub took: Duration,
}

impl ChangeSet {
    /// Changes the rows, all or none.
    ///
    /// # Errors
    /// [`ChangesError`]; unless it says that the outcome is not known, nothing was changed.
    pub async fn apply(&self, server: &Server, run: &Run) -> Result<Applied, ChangesError> {
        let began = run.clock.instant();
        if self.header.conflicting > 0 {
            return Err(ChangesError::Conflicts { path: self.path.clone(), count: self.header.conflicting });
        }
        self.stands(server, run).await?;
        let mut conn = server.connect().await?;
        for statement in SESSION {
            sql(&mut conn, "prepare the session", statement).await?;
        }
        sql(&mut conn, "begin the transaction", "START TRANSACTION").await?;
        match self.run_statements(&mut conn, run).await {
            Ok(()) => conn.query_drop("COMMIT").await.map_err(|error| ChangesError::Unknown(Box::new(error)))?,
            Err(error) => {
                // A connection that is gone has rolled back.
                conn.query_drop("ROLLBACK").await.ok();
                return Err(error);
            }
        }
        conn.disconnect().await.ok();
        Ok(Applied { statements: self.statements, took: run.clock.instant().duration_since(began) })
    }

    /// Proves that the set was made for this server and these definitions.
    async fn stands(&self, server: &Server, run: &Run) -> Result<(), ChangesError> {
        let (live, tables, of_thread) = (server.clone(), self.header.order.clone(), run.clone());
        let asked = tokio::task::spawn_blocking(move || footing(&live, &tables, &of_thread)).await;
        let (found, digest) = asked.map_err(|error| ChangesError::Thread(error.to_string()))??;
        if found != self.header.server {
            return Err(ChangesError::OtherServer { wanted: self.header.server.clone(), found });
        }
        if digest == self.header.footing { Ok(()) } else { Err(ChangesError::Altered) }
    }

    async fn run_statements(&self, conn: &mut Conn, run: &Run) -> Result<(), ChangesError> {
        let task = run.events.task("change rows", Unit::Rows, self.statements);
        let mut lines = Lines::open(&self.path)?;
        while let Some(line) = lines.next()? {
            run.check()?;
            if is_statement(&line) {
                change_one(conn, lines.statements, line.trim_end().trim_end_matches(';')).await?;
                task.add(1);
            }
        }
        // Somebody may have put another file in its place since it was read.
        if lines.sha256() == self.sha256 {
            return Ok(());
        }
        Err(ChangesError::NotOurs { path: self.path.clone(), why: "it has been replaced meanwhile" })
    }
}

async fn change_one(conn: &mut Conn, number: u64, statement: &str) -> Result<(), ChangesError> {
    let shown = || human::cut(&human::printable(statement), SHOWN_CHARS);
    if let Err(error) = conn.query_drop(statement).await {
        return Err(ChangesError::Refused { number, statement: shown(), source: Box::new(error) });
    }
    match conn.affected_rows() {
        1 => Ok(()),
        rows => Err(ChangesError::Stale { number, rows, statement: shown() }),
    }
}

async fn sql(conn: &mut Conn, act: &'static str, statement: &str) -> Result<(), ChangesError> {
    let done = conn.query_drop(statement.trim_end_matches(';')).await;
    done.map_err(|source| ChangesError::Sql { act, source: Box::new(source) })
}
