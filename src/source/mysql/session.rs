//! One connection of ours to the server being dumped, and what the server can do.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::mysql::manifest::Product;
use crate::mysql::product;
use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::mysql::wire::{TextRows, Wire};
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;

/// A row of a small result: texts, NULL as `None`.
#[derive(Debug, Clone)]
pub(crate) struct TextRow(Vec<Option<String>>);

impl TextRow {
    /// Returns a column's text, empty for NULL and for a column that is not there.
    pub(crate) fn text(&self, column: usize) -> &str {
        self.option(column).unwrap_or_default()
    }

    pub(crate) fn option(&self, column: usize) -> Option<&str> {
        self.0.get(column).and_then(Option::as_deref)
    }

    pub(crate) fn number(&self, column: usize) -> u64 {
        self.text(column).parse().unwrap_or(0)
    }
}

/// Runs a statement and returns its rows as texts.
pub(crate) fn rows(wire: &mut Wire, act: &str, statement: &str) -> Result<Vec<TextRow>, MysqlSourceError> {
    let rows = wire.query(statement).map_err(MysqlSourceError::query(act))?;
    text_rows(act, rows)
}

/// Runs a statement and hands on its rows as texts: there may be more than one wants to hold.
pub(crate) fn each_row(
    wire: &mut Wire,
    act: &str,
    statement: &str,
    mut take: impl FnMut(TextRow),
) -> Result<(), MysqlSourceError> {
    let mut is_text = true;
    let read = wire.query_each(statement, |row| match text_rows(act, vec![row]) {
        Ok(rows) => rows.into_iter().for_each(&mut take),
        Err(_) => is_text = false,
    });
    read.map_err(MysqlSourceError::query(act))?;
    if is_text { Ok(()) } else { Err(MysqlSourceError::NotText { act: act.to_owned() }) }
}

/// Takes the values for texts. A definition of other bytes than UTF-8 would be another definition when it is written out.
pub(crate) fn text_rows(act: &str, rows: TextRows) -> Result<Vec<TextRow>, MysqlSourceError> {
    let not_text = |_| MysqlSourceError::NotText { act: act.to_owned() };
    let text = |value: Option<Vec<u8>>| value.map(|bytes| String::from_utf8(bytes).map_err(not_text)).transpose();
    rows.into_iter().map(|row| row.into_iter().map(text).collect::<Result<_, _>>().map(TextRow)).collect()
}

pub(crate) fn run_sql(wire: &mut Wire, act: &str, statement: &str) -> Result<(), MysqlSourceError> {
    wire.run(statement).map_err(MysqlSourceError::query(act))
}

/// What a server is and can do: asked, never concluded from a version.
#[derive(Debug, Clone)]
pub(crate) struct Capabilities {
    pub(crate) product: Product,
    pub(crate) version: String,
    variables: BTreeMap<String, String>,
}

impl Capabilities {
    pub(crate) fn probe(wire: &mut Wire) -> Result<Self, MysqlSourceError> {
        let product = product::told_by(rows(wire, "ask for the product", product::PROBE)?.len());
        let version = rows(wire, "ask for the version", "SELECT VERSION()")?;
        let variables = rows(wire, "ask for the server's variables", "SHOW GLOBAL VARIABLES")?;
        Ok(Self {
            product,
            version: version.first().map(|row| row.text(0).to_owned()).unwrap_or_default(),
            variables: variables.iter().map(|row| (row.text(0).to_ascii_lowercase(), row.text(1).to_owned())).collect(),
        })
    }

    pub(crate) fn is_mariadb(&self) -> bool {
        self.product == Product::MariaDb
    }

    pub(crate) fn has(&self, variable: &str) -> bool {
        self.variables.contains_key(variable)
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("ON"))
    }

    pub(crate) fn has_binlog(&self) -> bool {
        self.is_on("log_bin")
    }

    /// Tells whether both are of one server, as far as servers tell: behind one address there may be several.
    pub(crate) fn is_of_same_server(&self, other: &Self) -> bool {
        ["server_uuid", "server_uid", "server_id", "hostname", "port"]
            .iter()
            .all(|name| self.variable(name) == other.variable(name))
    }

    /// Returns all by which a server differs from others: the number of a MariaDB is 1 unless somebody has set it, and a copied
    /// directory brings a UUID along.
    pub(crate) fn evidence(&self) -> String {
        let known = |name: &&str| self.variable(name).map(|value| format!("{name}={value}"));
        EVIDENCE.iter().filter_map(known).collect::<Vec<_>>().join(" ")
    }

    /// Returns MySQL's UUID, or MariaDB's number.
    pub(crate) fn server(&self) -> String {
        let name = if self.is_mariadb() { "server_id" } else { "server_uuid" };
        self.variable(name).unwrap_or_default().to_owned()
    }

    /// Returns the variables that decide how text is read back, for the manifest.
    pub(crate) fn for_manifest(&self) -> BTreeMap<String, String> {
        let known = |name: &&str| self.variable(name).map(|value| ((*name).to_owned(), value.to_owned()));
        MANIFEST_VARIABLES.iter().filter_map(known).collect()
    }
}

const EVIDENCE: [&str; 6] = ["server_uuid", "server_uid", "server_id", "hostname", "port", "datadir"];

const MANIFEST_VARIABLES: [&str; 12] = [
    "character_set_server",
    "collation_server",
    "default_storage_engine",
    "explicit_defaults_for_timestamp",
    "innodb_page_size",
    "lower_case_table_names",
    "sql_mode",
    "time_zone",
    "system_time_zone",
    "server_id",
    "gtid_mode",
    "gtid_domain_id",
];

/// Settings of every connection of a dump, by the server's name for them; those it does not know are left out.
/// Times in UTC, no limit on how long a statement may take or a connection stand still while another works.
const SESSION: [(&str, &str); 16] = [
    ("sql_mode", "''"),
    ("time_zone", "'+00:00'"),
    ("wait_timeout", "2147483"),
    ("net_write_timeout", "86400"),
    ("net_read_timeout", "86400"),
    // A definition that somebody else holds for so long is not waited for.
    ("lock_wait_timeout", "120"),
    ("max_execution_time", "0"),
    // Lists are read in the order of names that may be longer than what an administrator lets sorting look at.
    ("max_sort_length", "1024"),
    ("max_statement_time", "0"),
    ("idle_transaction_timeout", "0"),
    ("idle_readonly_transaction_timeout", "0"),
    ("print_identified_with_as_hex", "ON"),
    ("show_gipk_in_create_table_and_information_schema", "ON"),
    // Estimates as the engine has them, not as a cache of yesterday's.
    ("information_schema_stats_expiry", "0"),
    ("optimizer_switch", "'mrr=off'"),
    // Each statement says which index it takes; MariaDB would look for statistics of each table that it opens.
    ("use_stat_tables", "NEVER"),
];

/// Opens a connection and logs in; its settings are the server's own until [`settle`].
pub(crate) fn connect(server: &Server, run: &Run) -> Result<Wire, MysqlSourceError> {
    let wire = server.open_wire(&run.cancel);
    wire.map_err(|error| if run.check().is_err() { MysqlSourceError::Stopped } else { error.into() })
}

/// Gives a connection the settings of a dump.
pub(crate) fn settle(wire: &mut Wire, capabilities: &Capabilities) -> Result<(), MysqlSourceError> {
    let act = "set up the connection";
    run_sql(wire, act, "SET NAMES utf8mb4")?;
    // What writes nothing cannot be made to.
    run_sql(wire, act, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
    let mut statement = "SET SESSION sql_select_limit = DEFAULT".to_owned();
    for (name, value) in SESSION.iter().filter(|(name, _)| capabilities.has(name)) {
        // Writing into a String does not fail.
        let _infallible = write!(statement, ", SESSION {name} = {value}");
    }
    run_sql(wire, act, &statement)?;
    // A MySQL session begins without the roles that are granted and no default; MariaDB's has its one default role.
    if capabilities.is_mariadb() { Ok(()) } else { run_sql(wire, act, "SET ROLE ALL") }
}

/// Lets texts come as they are stored, in each column's own character set.
pub(crate) fn want_raw_bytes(wire: &mut Wire) -> Result<(), MysqlSourceError> {
    run_sql(wire, "set up the connection", "SET SESSION character_set_results = NULL")
}

/// Writes `IN ('a', 'b')`.
pub(crate) fn in_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(sql::string).collect();
    format!("IN ({})", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_of_one_number_are_two() {
        let server = |host: &str, datadir: &str| {
            let variables = [("server_id", "1"), ("hostname", host), ("port", "3306"), ("datadir", datadir)];
            let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            Capabilities { product: Product::MariaDb, version: String::new(), variables }
        };
        let one = server("db1", "/var/lib/mysql/");
        assert_eq!(one.server(), server("db2", "/var/lib/mysql/").server());
        assert_ne!(one.evidence(), server("db2", "/var/lib/mysql/").evidence());
        assert_ne!(one.evidence(), server("db1", "/srv/mysql/").evidence());
        assert_eq!(one.evidence(), "server_id=1 hostname=db1 port=3306 datadir=/var/lib/mysql/");
    }

    #[test]
    fn a_definition_that_is_no_text_is_refused_and_not_mended() {
        let refused = text_rows("read the definition of `s.v`", vec![vec![None, Some(b"caf\xE9".to_vec())]]);
        assert_eq!(
            refused.map_err(|error| error.to_string()).map(|rows| rows.len()),
            Err("read the definition of `s.v`: the server's answer is not UTF-8".to_owned())
        );
    }
}
