//! The command line of `bkp binlog` and `bkp daemon`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::args::PolicyArg;
use crate::mysql::binlog::Verb;

#[derive(Debug, Subcommand)]
pub enum BinlogCommand {
    /// Captures what is new of the binlogs: into the spool, the repository and the copies
    #[command(after_help = "\
Example:
  bkp binlog capture mall

What `bkp run` does once the policy's `binlog.interval` has passed, and `bkp daemon` without pause.")]
    Capture(BinlogCaptureArgs),
    /// Lists what was captured: epochs, files, GTIDs, commit times, gaps, and which moments can be recovered
    #[command(
        after_help = "Examples:\n  bkp binlog list mall\n  bkp binlog list mall --source db1 --from offsite --json"
    )]
    List(BinlogListArgs),
    /// Finds transactions by table, kind of change and time: the DROP, the DELETE without WHERE
    #[command(after_help = "\
Examples:
  bkp binlog find mall --table mall.orders --type drop,truncate,alter,delete --since '2026-05-01 02:00'
  bkp binlog find --dir /var/lib/mysql --table mall.orders --type drop,truncate,alter,delete
  bkp binlog find mall --from offsite --until '2026-05-01 03:00' --json

Each line is one transaction, the newest last: when it was committed, its GTID (before which to stop a recovery), file and position,
rows by table, and the statement where the log has it (MySQL: `binlog_rows_query_log_events`; MariaDB: by default).
`--type drop` finds a DROP DATABASE of the table's schema, too. Rows that triggers change are counted where the log has rows; where it
has statements, only the tables that these name are known. Rows that foreign keys change (ON DELETE CASCADE) are in the log of MySQL
9.6 and newer alone: elsewhere search for the parent table.

What was not searched is said, and ends with 3 where it may be of the time that was asked for: gaps, missing files, lost events.

On MySQL times are the server's at the commit. MariaDB writes none such: its time is the session's as the statement began, and
`SET TIMESTAMP` moves it, so `--since` and `--until` may leave such a transaction out.")]
    Find(BinlogFindArgs),
    /// Writes captured binlogs as the server's own files, for `mysqlbinlog`
    #[command(after_help = "\
Examples:
  bkp binlog export mall /srv/binlogs
  mysqlbinlog --verify-binlog-checksum /srv/binlogs/binlog.000042

What is written is plaintext: whoever reads it reads the rows. The files are their owner's alone.")]
    Export(BinlogExportArgs),
}

#[derive(Debug, Args)]
pub struct BinlogCaptureArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Only these databases
    #[arg(long = "source", value_name = "NAME")]
    pub sources: Vec<String>,
}

#[derive(Debug, Args)]
pub struct BinlogListArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// What this copy has, instead of the spool and the repository
    #[arg(long, value_name = "COPY")]
    pub from: Option<String>,
}

#[derive(Debug, Args)]
pub struct BinlogExportArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Directory to write into: one that is new or empty
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The database, where the policy captures several
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Exports from this copy alone
    #[arg(long, value_name = "COPY")]
    pub from: Option<String>,
}

#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Policy files or names; none: every one in the policies' directory
    #[arg(value_name = "POLICY")]
    pub policies: Vec<String>,
}

#[derive(Debug, Args)]
pub struct BinlogFindArgs {
    /// The policy whose captured binlogs are searched (a file, or a name to look up)
    #[arg(value_name = "POLICY", required_unless_present = "dir")]
    pub policy: Option<String>,
    /// The database, where the policy captures several
    #[arg(long, value_name = "NAME", requires = "policy")]
    pub source: Option<String>,
    /// Searches what this copy has, instead of the spool and the repository
    #[arg(long, value_name = "COPY", requires = "policy")]
    pub from: Option<String>,
    /// Searches this directory of binlog files instead, as a server keeps them
    #[arg(long, value_name = "DIR", conflicts_with = "policy")]
    pub dir: Option<PathBuf>,
    /// Only transactions that touch these tables (`schema.table,…`; a schema alone means all of it)
    #[arg(long = "table", value_name = "TABLES", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Only transactions that do one of these
    #[arg(long = "type", value_name = "TYPES", value_enum, value_delimiter = ',')]
    pub types: Vec<ChangeArg>,
    /// Only transactions committed at or after this time (in the policy's time zone, else UTC, unless it says an offset)
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
