//! The command line of `bkp binlog` and `bkp daemon`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::PolicyArg;

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
