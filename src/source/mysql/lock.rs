//! Locks of the dump: definitions are held for all of it, writers for a moment only.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::mysql::sql::qualified;
use crate::mysql::wire::Wire;
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::session::{Capabilities, rows, run_sql};

/// How often a lock is asked for before the dump gives way to the shop. The waits between double from a second.
const TRIES_MAX: u32 = 5;

/// A server drops a session that holds the global lock and says nothing for so long: we may be gone.
const LOCKED_SILENCE_SECONDS: u64 = 60;

/// How definitions are kept from changing while rows are read.
#[derive(Debug)]
pub(crate) enum DefinitionLock {
    /// MySQL's `LOCK INSTANCE FOR BACKUP`, on the control connection.
    Instance,
    /// MariaDB's `BACKUP STAGE BLOCK_DDL`, in a session of its own.
    Stage(Wire),
    /// The account may take neither; changes are noticed where they hit a read view.
    None,
}

impl DefinitionLock {
    /// Takes the product's own lock on definitions; `None` where the account may not.
    pub(crate) fn take(
        control: &mut Wire,
        spare: Wire,
        capabilities: &Capabilities,
        patience: &Patience<'_>,
    ) -> Result<Self, MysqlSourceError> {
        if capabilities.is_mariadb() {
            return Self::take_stage(spare, patience);
        }
        let taken = patience.ask(control, "LOCK INSTANCE FOR BACKUP", "LOCK INSTANCE FOR BACKUP");
        match taken {
            Ok(_) => Ok(Self::Instance),
            Err(MysqlSourceError::Query { error, .. }) if error.is_denied() => Ok(Self::None),
            Err(error) => Err(error),
        }
    }

    fn take_stage(mut session: Wire, patience: &Patience<'_>) -> Result<Self, MysqlSourceError> {
        match patience.ask(&mut session, "BACKUP STAGE START", "BACKUP STAGE START") {
            Ok(_) => {}
            Err(MysqlSourceError::Query { error, .. }) if error.is_denied() => {
                return Ok(Self::None);
            }
            Err(error) => return Err(error),
        }
        // A stage that could not be reached is begun anew: a session keeps the stages before it.
        patience.ask(&mut session, "BACKUP STAGE BLOCK_DDL", "BACKUP STAGE BLOCK_DDL")?;
        Ok(Self::Stage(session))
    }
}

/// How long, how often and before whom a lock gives way.
pub(crate) struct Patience<'a> {
    pub(crate) wait: Duration,
    pub(crate) run: &'a Run,
}

impl Patience<'_> {
    fn seconds(&self) -> u64 {
        self.wait.as_secs().max(1)
    }

    /// Asks for a lock, backs off where it is held, and names who holds it.
    pub(crate) fn ask(&self, wire: &mut Wire, statement: &str, name: &str) -> Result<Held, MysqlSourceError> {
        run_sql(wire, "set up the connection", &format!("SET SESSION lock_wait_timeout = {}", self.seconds()))?;
        let mut wasted = Duration::ZERO;
        for attempt in 1..=TRIES_MAX {
            let start = Instant::now();
            match wire.run(statement) {
                Ok(()) => {
                    return Ok(Held { since: start, wasted });
                }
                Err(error) if error.code() == Some(1205) => wasted += start.elapsed(),
                Err(error) => return Err(MysqlSourceError::query(format!("take {name}"))(error)),
            }
            let blocker = blocker(wire)?;
            if attempt == TRIES_MAX {
                return Err(self.gave_up(&blocker));
            }
            let seconds = self.seconds();
            self.run.events.note(format!("{name} was not free within {seconds} s{blocker}; trying again"));
            self.pause(Duration::from_secs(1 << (attempt - 1)))?;
        }
        Err(self.gave_up(""))
    }

    fn gave_up(&self, blocker: &str) -> MysqlSourceError {
        MysqlSourceError::Locked { tries: TRIES_MAX, seconds: self.seconds(), blocker: blocker.to_owned() }
    }

    /// Waits with nothing locked, and hears the signal to stop.
    fn pause(&self, time: Duration) -> Result<(), MysqlSourceError> {
        let slice = Duration::from_millis(100);
        let start = Instant::now();
        while start.elapsed() < time {
            self.run.check().map_err(|_| MysqlSourceError::Stopped)?;
            std::thread::sleep(slice);
        }
        Ok(())
    }
}

/// Names the statement or transaction that is most likely in the way, as `; held up by …`.
fn blocker(wire: &mut Wire) -> Result<String, MysqlSourceError> {
    let act = "look for who holds the lock";
    let own = wire.id().to_string();
    let sessions = rows(wire, act, "SHOW FULL PROCESSLIST")?;
    let busy = sessions.iter().filter(|row| {
        let is_waiting = row.text(6).starts_with("Waiting for");
        row.text(0) != own && matches!(row.text(4), "Query" | "Execute") && !is_waiting
    });
    if let Some(row) = busy.max_by_key(|row| row.number(5)) {
        let statement: String = row.text(7).chars().take(80).collect();
        return Ok(format!(
            "; held up by session {} of {} for {} s: {statement}",
            row.text(0),
            row.text(1),
            row.text(5)
        ));
    }
    Ok(open_transaction(wire, &own))
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

/// Stops all writers. Where the account may not, says which privilege it lacks.
pub(crate) fn lock_all(wire: &mut Wire, patience: &Patience<'_>, grants: &Grants) -> Result<Held, MysqlSourceError> {
    // The server frees the lock by itself if we are gone.
    let silence = format!("SET SESSION wait_timeout = {LOCKED_SILENCE_SECONDS}");
    run_sql(wire, "set up the connection", &silence)?;
    match patience.ask(wire, "FLUSH TABLES WITH READ LOCK", "the global read lock") {
        Err(MysqlSourceError::Query { error, .. }) if error.is_denied() => {
            Err(grants.lacks("RELOAD, which stops writers for a moment", "RELOAD"))
        }
        asked => asked,
    }
}

/// Lets writers go on. Returns how long they were held up, in milliseconds.
pub(crate) fn free_all(wire: &mut Wire, held: &Held) -> Result<f64, MysqlSourceError> {
    run_sql(wire, "free the global read lock", "UNLOCK TABLES")?;
    let stall = held.stall_ms();
    run_sql(wire, "set up the connection", "SET SESSION wait_timeout = 2147483")?;
    Ok(stall)
}

/// Locks tables against writers, in a session of its own, until that session ends or unlocks.
pub(crate) fn lock_tables<'a>(
    session: &mut Wire,
    tables: impl Iterator<Item = (&'a str, &'a str)>,
    patience: &Patience<'_>,
    grants: &Grants,
) -> Result<Held, MysqlSourceError> {
    let mut statement = "LOCK TABLES".to_owned();
    for (at, (schema, name)) in tables.enumerate() {
        let comma = if at > 0 { "," } else { "" };
        // Writing into a String does not fail.
        let _infallible = write!(statement, "{comma} {} READ", qualified(schema, name));
    }
    match patience.ask(session, &statement, "the tables' read locks") {
        Err(MysqlSourceError::Query { error, .. }) if error.is_denied() => {
            Err(grants.lacks("both RELOAD and LOCK TABLES, one of which stops writers for a moment", "RELOAD"))
        }
        asked => asked,
    }
}
