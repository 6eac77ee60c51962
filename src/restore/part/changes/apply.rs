//! Applies a change set in one transaction: each statement changes one row as it was reviewed, or nothing is changed.

use std::time::Duration;

use crate::event::Unit;
use crate::mysql::server::Server;
use crate::mysql::wire::WireError;
use crate::restore::part::changes::file::{Lines, SESSION, is_statement};
use crate::restore::part::changes::{ChangeSet, ChangesError};
use crate::run::{Run, Stopped};
use crate::source::mysql::changes::Held;

/// Errors by which a server says that it, the connection or the statement was ended: 1053, 1317, 1927 and 3169. A commit may be done.
const ENDED: [u16; 4] = [1053, 1317, 1927, 3169];

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
        let (set, server, of_thread) = (self.clone(), server.clone(), run.clone());
        let applied = tokio::task::spawn_blocking(move || set.apply_here(&server, &of_thread)).await;
        applied.map_err(|error| ChangesError::Thread(error.to_string()))??;
        Ok(Applied { statements: self.statements, took: run.clock.instant().duration_since(began) })
    }

    fn apply_here(&self, server: &Server, run: &Run) -> Result<(), ChangesError> {
        let mut held = Held::open(server, &SESSION, &self.header.order, run)?;
        let changed = self.stands(&held).and_then(|()| self.run_statements(&mut held, run));
        match changed.and_then(|()| held.commit().map_err(not_committed)) {
            Ok(()) => Ok(()),
            Err(error) => {
                held.roll_back();
                Err(error)
            }
        }
    }

    /// Proves that the set was made for this server and these definitions.
    fn stands(&self, held: &Held) -> Result<(), ChangesError> {
        if held.server != self.header.server {
            return Err(ChangesError::OtherServer { wanted: self.header.server.clone(), found: held.server.clone() });
        }
        if held.footing == self.header.footing { Ok(()) } else { Err(ChangesError::Altered) }
    }

    fn run_statements(&self, held: &mut Held, run: &Run) -> Result<(), ChangesError> {
        let task = run.events.task("change rows", Unit::Rows, self.statements);
        let mut lines = Lines::open(&self.path)?;
        while let Some(line) = lines.next()? {
            run.check()?;
            if is_statement(&line) {
                let changed = held.change(line.trim_end().trim_end_matches(';'));
                one_row(changed, Place { number: lines.statements, line: lines.number })?;
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

/// Where a statement stands in the file. Its text holds a row, which is nobody's who reads a log.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: u64,
    line: u64,
}

fn one_row(changed: Result<u64, WireError>, place: Place) -> Result<(), ChangesError> {
    let Place { number, line } = place;
    match changed {
        Ok(1) => Ok(()),
        Ok(rows) => Err(ChangesError::Stale { number, line, rows }),
        Err(WireError::Stopped) => Err(ChangesError::Stopped(Stopped)),
        Err(source) if source.code().is_none() || source.is_lost() => {
            Err(ChangesError::Lost { number, line, source: Box::new(source) })
        }
        Err(source) => Err(ChangesError::Refused { number, line, source: Box::new(without_values(source)) }),
    }
}

/// Returns a server's error without the row's values that it may quote.
fn without_values(error: WireError) -> WireError {
    let WireError::Server { code, message } = error else { return error };
    let quotes = |before: &&str| message.find(*before).map(|at| at + before.len());
    let from = ["entry '", "value: '"].iter().find_map(quotes);
    let until = message.rfind("' for ").or_else(|| message.rfind('\''));
    let message = match from.zip(until).filter(|(from, until)| from < until) {
        Some((from, until)) => format!("{}…{}", &message[..from], &message[until..]),
        None => message,
    };
    WireError::Server { code, message }
}

/// A server that answers with an error has taken all back, unless it was being ended.
fn not_committed(error: WireError) -> ChangesError {
    match error.code() {
        Some(code) if !ENDED.contains(&code) => ChangesError::Uncommitted(Box::new(error)),
        _ => ChangesError::Unknown(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { number: 3, line: 12 };

    fn refused(code: u16) -> WireError {
        WireError::Server { code, message: "no".to_owned() }
    }

    #[test]
    fn a_statement_changes_one_row_no_less_and_no_more() {
        assert!(one_row(Ok(1), PLACE).is_ok());
        for rows in [0, 2] {
            let stale = one_row(Ok(rows), PLACE).map_err(|error| error.to_string());
            let told =
                stale.is_err_and(|told| told.contains(&format!("changed {rows} rows")) && told.contains("line 12"));
            assert!(told, "{rows}");
        }
        assert!(matches!(one_row(Err(refused(1062)), PLACE), Err(ChangesError::Refused { number: 3, .. })));
        assert!(matches!(one_row(Err(refused(1317)), PLACE), Err(ChangesError::Lost { number: 3, .. })));
        assert!(matches!(one_row(Err(WireError::Closed), PLACE), Err(ChangesError::Lost { .. })));
        assert!(matches!(one_row(Err(WireError::Stopped), PLACE), Err(ChangesError::Stopped(_))));
    }

    #[test]
    fn what_a_server_says_of_a_row_comes_without_its_values() {
        let told =
            |message: &str| without_values(WireError::Server { code: 1, message: message.to_owned() }).to_string();
        assert_eq!(
            told("Duplicate entry 'o'hara@x' for key 'mail'"),
            "Duplicate entry '…' for key 'mail' (server error 1)"
        );
        assert_eq!(
            told("Truncated incorrect DECIMAL value: 'x'"),
            "Truncated incorrect DECIMAL value: '…' (server error 1)"
        );
        assert_eq!(told("Column 'a' cannot be null"), "Column 'a' cannot be null (server error 1)");
    }

    #[test]
    fn a_commit_that_the_server_refuses_is_told_from_one_that_nobody_knows_of() {
        assert!(matches!(not_committed(refused(1290)), ChangesError::Uncommitted(_)));
        assert!(matches!(not_committed(refused(1053)), ChangesError::Unknown(_)));
        assert!(matches!(not_committed(WireError::Closed), ChangesError::Unknown(_)));
    }
}
