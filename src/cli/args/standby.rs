//! The command line of `bkp standby`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::restore::listen;
use crate::cli::args::{PolicyArg, span};

#[derive(Debug, Subcommand)]
pub enum StandbyCommand {
    /// Restores a server and keeps it following the capture, until it is told to stop
    #[command(after_help = "\
Examples:
  bkp standby start mall --source db1 --to-mysql mysql://bkp@10.0.30.21 --to-mysql-ca /etc/bkp/db-ca.pem --to-mysql-password-file /etc/bkp/standby.pw
  bkp standby start mall --source db1 --to-mysql mysql://bkp@10.0.30.21 --to-mysql-ca /etc/bkp/db-ca.pem --to-mysql-password-file /etc/bkp/standby.pw --delay 1h

Runs in the foreground, on the machine of `bkp daemon`: as a service, with a unit as the operator's guide shows it. An empty server
is restored first; one that was begun goes on from what it has applied, whatever was killed meanwhile. Nobody else can
write to it (read_only; MySQL: super_read_only). A gap in the capture or a new epoch ends the stream with exit 1, behind the last
transaction before it. Exit code 0 once it was promoted.")]
    Start(StandbyStartArgs),
    /// Shows what the standby has applied, how far it lags, and whether its stream stands
    #[command(after_help = "\
Example:
  bkp standby status mall --source db1 --to-mysql mysql://bkp@10.0.30.21 --to-mysql-ca /etc/bkp/db-ca.pem --to-mysql-password-file /etc/bkp/standby.pw --json

Exit code 1 where the stream does not stand, or nobody knows its lag yet and the policy has an RPO; 14 where it lags by more than the policy's RPO, the delay not counted.")]
    Status(StandbyStatusArgs),
    /// Ends the stream at a point, proves that the standby is there, and opens it to everybody's writes
    #[command(after_help = "\
Examples:
  bkp standby promote mall --source db1 --to-mysql mysql://bkp@10.0.30.21 --to-mysql-ca /etc/bkp/db-ca.pem --to-mysql-password-file /etc/bkp/standby.pw
  bkp standby promote mall … --point-in-time before:3e11fa47-71ca-11e1-9e33-c80aa9429562:8123 --dry-run

First see to it that nobody writes to the source any more: what it commits afterwards is lost. Killed in the middle, the same
command goes on. It prints the time from its start to the server that can be written to, and the last transaction that is there.")]
    Promote(StandbyPromoteArgs),
}

/// Which standby is meant.
#[derive(Debug, Args)]
pub struct StandbyArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// The database that it stands by for
    #[arg(long, value_name = "NAME")]
    pub source: String,
    /// The standby's server: `mysql://USER@HOST[:PORT]` or `mysql://USER@localhost?socket=PATH`
    #[arg(long, value_name = "URL")]
    pub to_mysql: String,
    /// File with the password of that server's account
    #[arg(long, value_name = "FILE")]
    pub to_mysql_password_file: Option<PathBuf>,
    /// Certificate authority of that server (PEM); TLS is verified where it is given or the host is not this machine
    #[arg(long, value_name = "FILE")]
    pub to_mysql_ca: Option<PathBuf>,
    /// Talks to that server without TLS although it is not this machine: the binlogs go there in the clear, too
    #[arg(long, conflicts_with = "to_mysql_ca")]
    pub to_mysql_plain: bool,
    /// Where to serve the binlogs, if not at this machine's address on the way to it
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = listen)]
    pub replay_listen: Option<SocketAddr>,
    /// Connections that load, and threads that apply
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Keeps the load and the record of the stream out of the standby's own binlog
    #[arg(long)]
    pub no_binlog: bool,
}

#[derive(Debug, Args)]
pub struct StandbyStartArgs {
    #[command(flatten)]
    pub standby: StandbyArgs,
    /// Sends no transaction that was committed less than this ago, so that a mistake can be stopped (default: what the policy says)
    ///
    /// On MySQL by the source's clock at the commit; on MariaDB, whose binlog tells only the sessions' clocks, by when the transaction
    /// came to the capture, to a hundredth of the delay.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub delay: Option<Duration>,
    /// Restores from this copy
    #[arg(long, value_name = "COPY")]
    pub from: Option<String>,
}

#[derive(Debug, Args)]
pub struct StandbyStatusArgs {
    #[command(flatten)]
    pub standby: StandbyArgs,
}

#[derive(Debug, Args)]
pub struct StandbyPromoteArgs {
    #[command(flatten)]
    pub standby: StandbyArgs,
    /// Where to end: `latest`, a time, `gtid:GTID` (that transaction is the last), `before:GTID` or `position:FILE:OFFSET`
    ///
    /// Only forward of what it has applied. A time without an offset is in the policy's time zone.
    #[arg(long, value_name = "POINT", default_value = "latest")]
    pub point_in_time: String,
    /// Goes as near to the point as the captured binlogs lead, where they end before it or have a gap
    #[arg(long)]
    pub up_to_gap: bool,
    /// Says what would be done, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
}
