//! A living server whose rows are about to change: in a transaction that holds the definitions of the tables still.

use tokio_util::sync::CancellationToken;

use crate::mysql::server::Server;
use crate::mysql::sql::qualified;
use crate::mysql::wire::{Wire, WireError};
use crate::run::Run;
use crate::source::mysql::changes::{Wanted, comparand, field, footing_of, inventory, prepare, uncomparable};
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::session::{Capabilities, connect, run_sql, want_raw_bytes};

/// Refuses tables that no row changes can be made for. Blocks.
///
/// # Errors
/// Those of the connection; what is in the way.
pub fn check(live: &Server, tables: &[(String, String)], run: &Run) -> Result<(), MysqlSourceError> {
    let mut live = connect(live, run)?;
    let capabilities = prepare(&mut live)?;
    footing(&mut live, &capabilities, tables).map(drop)
}

/// Returns the digest of the definitions that row changes of some tables rely on.
fn footing(
    live: &mut Wire,
    capabilities: &Capabilities,
    tables: &[(String, String)],
) -> Result<String, MysqlSourceError> {
    Grants::read(live, capabilities.product)?.check_sees_ties()?;
    let wanted =
        |(schema, name): &(String, String)| Wanted { schema: schema.clone(), name: name.clone(), condition: None };
    let wanted: Vec<Wanted> = tables.iter().map(wanted).collect();
    let inventory = inventory(live, &wanted)?;
    let mut found = Vec::new();
    for one in &wanted {
        let table = inventory.tables.iter().find(|table| table.place() == (one.schema.as_str(), one.name.as_str()));
        let table = table.ok_or_else(|| uncomparable(one, "the living server has no such table"))?;
        let fields = field::read(live, one)?;
        found.push(comparand(one, table, fields, live, &wanted)?);
    }
    Ok(footing_of(&found))
}

/// A living server within the transaction that changes it. Dropped, it has changed nothing.
#[derive(Debug)]
pub struct Held {
    wire: Wire,
    /// By what the server differs from others.
    pub server: String,
    /// The digest of the definitions, which nobody can change until the end.
    pub footing: String,
}

impl Held {
    /// Begins the transaction and takes hold of the tables: only then are the server and the definitions asked for, on the connection
    /// that makes the changes. Blocks.
    ///
    /// # Errors
    /// Those of the connection; a table that is gone, or has a trigger by now.
    pub fn open(
        live: &Server,
        session: &[&str],
        tables: &[(String, String)],
        run: &Run,
    ) -> Result<Self, MysqlSourceError> {
        let mut wire = connect(live, run)?;
        let capabilities = prepare(&mut wire)?;
        let act = "prepare the session";
        run_sql(&mut wire, act, "SET SESSION TRANSACTION READ WRITE")?;
        for statement in session {
            run_sql(&mut wire, act, statement.trim_end_matches(';'))?;
        }
        want_raw_bytes(&mut wire)?;
        run_sql(&mut wire, "begin the transaction", "START TRANSACTION")?;
        for (schema, name) in tables {
            let hold = format!("SELECT 1 FROM {} LIMIT 0", qualified(schema, name));
            run_sql(&mut wire, &format!("take hold of `{schema}.{name}`"), &hold)?;
        }
        let footing = footing(&mut wire, &capabilities, tables)?;
        Ok(Self { wire, server: capabilities.evidence(), footing })
    }

    /// Runs one statement, which the protocol keeps to be one, and returns how many rows it changed. Blocks.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn change(&mut self, statement: &str) -> Result<u64, WireError> {
        self.wire.change(statement)
    }

    /// Commits. A signal to stop is not heard any more: its outcome would not be known. Blocks.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn commit(&mut self) -> Result<(), WireError> {
        self.wire.set_cancel(CancellationToken::new());
        self.wire.run("COMMIT")
    }

    /// Takes all back. A connection that is gone has done so. Blocks.
    pub fn roll_back(&mut self) {
        self.wire.set_cancel(CancellationToken::new());
        let _gone_already = self.wire.run("ROLLBACK");
    }
}
