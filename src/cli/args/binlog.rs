//! The arguments of `bkp binlog`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::mysql::binlog::Verb;

#[derive(Debug, Subcommand)]
pub enum BinlogCommand {
    /// Finds transactions by table, kind of change and time: the DROP, the DELETE without WHERE
    #[command(after_help = "\
Examples:
  bkp binlog find --dir /var/lib/mysql --table mall.orders --type drop,truncate,alter,delete
  bkp binlog find --dir /srv/binlogs --table mall.orders --since '2026-05-01 02:00' --until '2026-05-01 03:00' --json

Each line is one transaction, the newest last: when it was committed, its GTID (before which to stop a recovery), file and position,
rows by table, and the statement where the log has it (MySQL: `binlog_rows_query_log_events`; MariaDB: by default).
`--type drop` finds a DROP DATABASE of the table's schema, too. Rows that triggers and foreign keys change are counted where the log
has rows; where it has statements, only the tables that these name are known.

On MySQL times are the server's at the commit. MariaDB writes none such: its time is the session's as the statement began, and
`SET TIMESTAMP` moves it, so `--since` and `--until` may leave such a transaction out.")]
    Find(BinlogFindArgs),
}

#[derive(Debug, Args)]
pub struct BinlogFindArgs {
    /// Directory of binlog files, as a server keeps them
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Only transactions that touch these tables (`schema.table,…`; a schema alone means all of it)
    #[arg(long = "table", value_name = "TABLES", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Only transactions that do one of these
    #[arg(long = "type", value_name = "TYPES", value_enum, value_delimiter = ',')]
    pub types: Vec<ChangeArg>,
    /// Only transactions committed at or after this time (UTC unless it says another offset)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only transactions committed at or before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Shows no more than so many, the newest
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ChangeArg {
    Drop,
    Truncate,
    Alter,
    Rename,
    Create,
    Insert,
    Update,
    Delete,
}

impl ChangeArg {
    #[must_use]
    pub fn verb(self) -> Verb {
        match self {
            Self::Drop => Verb::Drop,
            Self::Truncate => Verb::Truncate,
            Self::Alter => Verb::Alter,
            Self::Rename => Verb::Rename,
            Self::Create => Verb::Create,
            Self::Insert => Verb::Insert,
            Self::Update => Verb::Update,
            Self::Delete => Verb::Delete,
        }
    }
}
