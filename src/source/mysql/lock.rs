//! Locks of the dump: definitions are held for all of it, writers for a moment only.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::mysql::sql::qualified;
use crate::mysql::wire::{Wire, WireError};
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::session::{Capabilities, rows, run_sql};

const TABLES: &str = "the tables' read locks";

/// Of a statement in the way: enough to know it by.
const STATEMENT_CHARS_SHOWN: usize = 80;

/// How often a lock is asked for before the dump gives way to the shop. The waits between double from a second.
const TRIES_MAX: u32 = 5;

/// A server drops a session that holds the global lock and says nothing for so long: we may be gone.
const LOCKED_SILENCE_SECONDS: u64 = 60;

/// A server drops a session that holds a lock of the whole dump and says nothing for so long. [`crate::source::mysql::hold`]
/// speaks up well before.
const HELD_SILENCE_SECONDS: u64 = 300;

/// A lock: the statements that take it, one after the other, and what takes the first of them back.
struct Lock<'a> {
    name: &'a str,
    statements: &'a [&'a str],
    undo: Option<&'a str>,
}

/// MariaDB's stages one after the other: a session may not begin with the last. The stage before it stops writers of tables
/// without transactions, so one that was not reached is begun anew after the wait.
const STAGE: Lock<'_> = Lock {
    name: "BACKUP STAGE BLOCK_DDL",
    statements: &["BACKUP STAGE START", "BACKUP STAGE BLOCK_DDL"],
    undo: Some(END_STAGE),
};
const END_STAGE: &str = "BACKUP STAGE END";
const INSTANCE: Lock<'_> =
    Lock { name: "LOCK INSTANCE FOR BACKUP", statements: &["LOCK INSTANCE FOR BACKUP"], undo: None };
const GLOBAL: Lock<'_> =
    Lock { name: "the global read lock", statements: &["FLUSH TABLES WITH READ LOCK"], undo: None };

/// Takes the product's own lock on definitions, in a session of its own that is returned; `None` where the account may not.
pub(crate) fn lock_definitions(
    mut session: Wire,
    capabilities: &Capabilities,
    patience: &Patience<'_>,
) -> Result<Option<Wire>, MysqlSourceError> {
    drop_when_silent(&mut session)?;
    let lock = if capabilities.is_mariadb() { STAGE } else { INSTANCE };
    match patience.ask(&mut session, &lock) {
        Ok(_) => Ok(Some(session)),
        Err(MysqlSourceError::Query { error, .. }) if error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lets definitions be changed again.
pub(crate) fn free_definitions(session: &mut Wire, capabilities: &Capabilities) -> Result<(), MysqlSourceError> {
    let statement = if capabilities.is_mariadb() { END_STAGE } else { "UNLOCK INSTANCE" };
    run_sql(session, "free the definitions", statement)
}

/// Has the server free what a session holds when we are gone without a word.
fn drop_when_silent(session: &mut Wire) -> Result<(), MysqlSourceError> {
    run_sql(session, "set up the connection", &format!("SET SESSION wait_timeout = {HELD_SILENCE_SECONDS}"))
}

/// How long, how often and before whom a lock gives way.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    wait: Duration,
    tries: u32,
    /// Whether a migration that waits for our lock on definitions goes first.
    yields: bool,
    run: &'a Run,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(wait: Duration, run: &'a Run) -> Self {
        Self { wait, tries: TRIES_MAX, yields: false, run }
    }

    pub(crate) fn yielding(self, yields: bool) -> Self {
        Self { yields, ..self }
    }

    /// While another lock is held, nothing is waited for twice.
    fn once(self) -> Self {
        Self { tries: 1, ..self }
    }

    fn seconds(&self) -> u64 {
        self.wait.as_secs().max(1)
    }

    /// Asks for a lock, backs off where it is held, and names who holds it.
    fn ask(&self, wire: &mut Wire, lock: &Lock<'_>) -> Result<Held, MysqlSourceError> {
        run_sql(wire, "set up the connection", &format!("SET SESSION lock_wait_timeout = {}", self.seconds()))?;
        let mut wasted = Duration::ZERO;
        let mut attempt = 1;
        loop {
            let start = Instant::now();
            match take(wire, lock) {
                Ok(()) => return Ok(Held { since: start, wasted }),
                Err(error) if error.code() == Some(1205) => wasted += start.elapsed(),
                Err(error) => return Err(MysqlSourceError::query(format!("take {}", lock.name))(error)),
            }
            if self.yields && lock.name == GLOBAL.name && migration_waits_for_us(wire) {
                return Err(MysqlSourceError::MigrationWaits { stall: wasted });
            }
            let blocker = blocker(wire);
            if attempt >= self.tries {
                return Err(self.gave_up(&blocker));
            }
            self.back_off(lock.name, &blocker, attempt)?;
            attempt += 1;
        }
    }

    fn gave_up(&self, blocker: &str) -> MysqlSourceError {
        MysqlSourceError::Locked { tries: self.tries, seconds: self.seconds(), blocker: blocker.to_owned() }
    }

    /// Waits before the next try with nothing locked, and hears the signal to stop.
    fn back_off(&self, name: &str, blocker: &str, attempt: u32) -> Result<(), MysqlSourceError> {
        let seconds = self.seconds();
        self.run.events.note(format!("{name} was not free within {seconds} s{blocker}; trying again"));
        rest(attempt, self.run)
    }
}

/// Sleeps longer from attempt to attempt, the first of which is 1, and hears the signal to stop.
pub(crate) fn rest(attempt: u32, run: &Run) -> Result<(), MysqlSourceError> {
    let time = Duration::from_secs(1 << (attempt - 1));
    let slice = Duration::from_millis(100);
    let start = Instant::now();
    while start.elapsed() < time {
        run.check().map_err(|_| MysqlSourceError::Stopped)?;
        std::thread::sleep(slice);
    }
    Ok(())
}

/// Takes a lock, or holds nothing of it.
fn take(wire: &mut Wire, lock: &Lock<'_>) -> Result<(), WireError> {
    for (at, statement) in lock.statements.iter().enumerate() {
        if let Err(error) = wire.run(statement) {
            if let Some(undo) = lock.undo.filter(|_| at > 0 && error.code().is_some()) {
                wire.run(undo)?;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Tells whether a change of definitions is stuck behind MySQL's lock on them, which is ours. It holds up the global read lock, and so
/// each waits for the other; the server does not see that, because the locks are of two sessions.
fn migration_waits_for_us(wire: &mut Wire) -> bool {
    rows(wire, "look for who holds the lock", "SHOW PROCESSLIST")
        .is_ok_and(|sessions| sessions.iter().any(|row| row.text(6) == "Waiting for backup lock"))
}

/// Names the statement or transaction that is most likely in the way, as `; held up by …`.
fn blocker(wire: &mut Wire) -> String {
    let own = wire.id().to_string();
    // Others' statements may be no text; then nobody is named.
    let Ok(sessions) = rows(wire, "look for who holds the lock", "SHOW FULL PROCESSLIST") else {
        return String::new();
    };
    let busy = sessions.iter().filter(|row| {
        let is_waiting = row.text(6).starts_with("Waiting for");
        row.text(0) != own && matches!(row.text(4), "Query" | "Execute") && !is_waiting
    });
    if let Some(row) = busy.max_by_key(|row| row.number(5)) {
        let statement: String = outline(row.text(7)).chars().take(STATEMENT_CHARS_SHOWN).collect();
        return format!("; held up by session {} of {} for {} s: {statement}", row.text(0), row.text(1), row.text(5));
    }
    open_transaction(wire, &own)
}

/// Returns a statement without its values, which are the shop's and its customers' and no business of a log.
fn outline(statement: &str) -> String {
    let mut outline = String::with_capacity(statement.len());
    let mut rest = statement.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\'' | '"' => {
                while let Some(inner) = rest.next().filter(|inner| *inner != character) {
                    // Whatever an escape stands before is no end.
                    if inner == '\\' {
                        rest.next();
                    }
                }
                outline.push('?');
            }
            digit if digit.is_ascii_digit() && !outline.ends_with(is_of_name) => {
                while rest.next_if(|next| is_of_name(*next) || *next == '.').is_some() {}
                outline.push('?');
            }
            other => outline.push(other),
        }
    }
    outline
}

fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '`')
}

/// Names the oldest open transaction of another session; nothing where we may not look.
fn open_transaction(wire: &mut Wire, own: &str) -> String {
    let statement = format!(
        "SELECT trx_mysql_thread_id, TIMESTAMPDIFF(SECOND, trx_started, NOW()) FROM information_schema.INNODB_TRX \
         WHERE trx_mysql_thread_id <> {own} ORDER BY trx_started LIMIT 1"
    );
    let Ok(found) = rows(wire, "look for who holds the lock", &statement) else {
        return String::new();
    };
    found.first().map_or_else(String::new, |row| {
        format!("; held up by the open transaction of session {} for {} s", row.text(0), row.text(1))
    })
}

/// A lock that is held, and what it has cost so far.
#[derive(Debug)]
pub(crate) struct Held {
    /// When it was asked for: from then on, writers may wait behind us.
    since: Instant,
    /// What the tries took that failed.
    wasted: Duration,
}

impl Held {
    /// Returns how long writers were held up at most, in milliseconds. Between the tries nobody was.
    pub(crate) fn stall_ms(&self) -> f64 {
        (self.since.elapsed() + self.wasted).as_secs_f64() * 1000.0
    }
}

/// Stops all writers; `None` where the account may not.
pub(crate) fn lock_all(wire: &mut Wire, patience: &Patience<'_>) -> Result<Option<Held>, MysqlSourceError> {
    // The server frees the lock by itself if we are gone.
    let silence = format!("SET SESSION wait_timeout = {LOCKED_SILENCE_SECONDS}");
    run_sql(wire, "set up the connection", &silence)?;
    if_allowed(patience.ask(wire, &GLOBAL))
}

fn if_allowed(asked: Result<Held, MysqlSourceError>) -> Result<Option<Held>, MysqlSourceError> {
    match asked {
        Ok(held) => Ok(Some(held)),
        Err(MysqlSourceError::Query { error, .. }) if error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stops all writers, then those of some tables by a lock that stays in a session of its own when all others go on; `None`
/// where the account may not. Where that lock is not free, everybody goes on before the next try.
pub(crate) fn lock_all_and_tables(
    wire: &mut Wire,
    session: &mut Wire,
    tables: &[(String, String)],
    patience: &Patience<'_>,
) -> Result<Option<Held>, MysqlSourceError> {
    let mut wasted = Duration::ZERO;
    let mut attempt = 1;
    loop {
        let Some(mut held) = lock_all(wire, patience)? else {
            return Ok(None);
        };
        match lock_tables(session, tables, &patience.once()) {
            Ok(Some(_)) => {
                held.wasted += wasted;
                return Ok(Some(held));
            }
            Ok(None) => {
                free_all(wire, &held)?;
                return Ok(None);
            }
            Err(MysqlSourceError::Locked { blocker, .. }) => {
                wasted += Duration::from_secs_f64(free_all(wire, &held)? / 1000.0);
                if attempt >= patience.tries {
                    return Err(patience.gave_up(&blocker));
                }
                patience.back_off(TABLES, &blocker, attempt)?;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lets writers go on. Returns how long they were held up, in milliseconds.
pub(crate) fn free_all(wire: &mut Wire, held: &Held) -> Result<f64, MysqlSourceError> {
    run_sql(wire, "free the global read lock", "UNLOCK TABLES")?;
    let stall = held.stall_ms();
    run_sql(wire, "set up the connection", "SET SESSION wait_timeout = 2147483")?;
    Ok(stall)
}

/// Locks tables against writers, until the session ends or unlocks; `None` where the account may not.
pub(crate) fn lock_tables(
    session: &mut Wire,
    tables: &[(String, String)],
    patience: &Patience<'_>,
) -> Result<Option<Held>, MysqlSourceError> {
    drop_when_silent(session)?;
    let mut statement = "LOCK TABLES".to_owned();
    for (at, (schema, name)) in tables.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        // Writing into a String does not fail.
        let _infallible = write!(statement, "{comma} {} READ", qualified(schema, name));
    }
    if_allowed(patience.ask(session, &Lock { name: TABLES, statements: &[&statement], undo: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_of_others_is_shown_without_their_values() {
        let shown =
            outline(r#"UPDATE t1 SET name = 'O\'Neil', pin=1234, `c2` = "x", h = 0xFF WHERE id IN (7,8.5) -- é"#);
        assert_eq!(shown, "UPDATE t1 SET name = ?, pin=?, `c2` = ?, h = ? WHERE id IN (?,?) -- é");
        assert_eq!(outline("SELECT 'it''s', 'open"), "SELECT ??, ?");
    }
}
