//! The command line of `bkp restore`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::PolicyArg;
use crate::replay::Way;

/// How binlogs come to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReplayBy {
    Auto,
    Replica,
    Session,
}

impl ReplayBy {
    /// Returns the way that is asked for, if one is.
    pub(in crate::cli) fn way(self) -> Option<Way> {
        match self {
            Self::Auto => None,
            Self::Replica => Some(Way::Replica),
            Self::Session => Some(Way::Session),
        }
    }
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// The moment to go back to: the newest snapshot at or before it, and where binlogs were captured every transaction from then on
    ///
    /// `latest`, RFC 3339 (`2026-05-01T03:00:00+09:00`), or without an offset in the policy's time zone (`2026-05-01 03:00`): what was
    /// committed until then. With captured binlogs, or those of --binlogs, also `gtid:GTID` (that transaction is the last), `before:GTID` (it
    /// is the first that does not come) or `position:FILE:OFFSET`.
    #[arg(long, value_name = "POINT", conflicts_with = "snapshot")]
    pub point_in_time: Option<String>,
    /// This snapshot (an id or the beginning of one)
    #[arg(long, value_name = "ID")]
    pub snapshot: Option<String>,
    /// Directory with the source's raw binlogs, which are replayed after the dump up to --point-in-time
    ///
    /// Every file from the one of the dump's position on, under the names that the server gave them. The target follows this machine
    /// as a replica until it is there, so its account needs the rights for that; it goes on where it stopped if it is interrupted.
    #[arg(long, value_name = "DIR", requires_all = ["point_in_time", "to_mysql"])]
    pub binlogs: Option<PathBuf>,
    /// Goes as near to --point-in-time as the binlogs lead, where they end before it or have a gap
    #[arg(long, requires = "point_in_time")]
    pub up_to_gap: bool,
    /// Goes on from an earlier recovery on the same target to a later --point-in-time, without loading again
    ///
    /// By GTIDs alone. Nobody may have written to the target since.
    #[arg(long, requires_all = ["point_in_time", "to_mysql"], conflicts_with_all = ["overwrite", "verify"])]
    pub go_further: bool,
    /// How the binlogs come to the target
    ///
    /// `replica`: it follows this machine, with its own parallel threads. `session`: bkp applies them one after the other in a session of the
    /// account, which is slower, and wants fewer rights and no way from the target to this machine. `auto`: as a replica, or in a session where
    /// the account lacks the rights for that.
    #[arg(long, value_name = "WAY", requires_all = ["point_in_time", "to_mysql"], value_enum, default_value_t = ReplayBy::Auto)]
    pub replay_by: ReplayBy,
    /// Where to serve the binlogs to the target, if not at this machine's address on the way to it
    #[arg(long, value_name = "ADDRESS[:PORT]", requires = "point_in_time", value_parser = listen)]
    pub replay_listen: Option<SocketAddr>,
    /// Only this source (may be given again)
    #[arg(long = "source", value_name = "NAME")]
    pub sources: Vec<String>,
    /// Restores from this copy alone
    #[arg(long, value_name = "COPY")]
    pub from: Option<String>,
    /// The server to load into: `mysql://USER@HOST[:PORT]` or `mysql://USER@localhost?socket=PATH`
    #[arg(long, value_name = "URL")]
    pub to_mysql: Option<String>,
    /// File with the password of that server's account
    #[arg(long, value_name = "FILE", requires = "to_mysql")]
    pub to_mysql_password_file: Option<PathBuf>,
    /// Certificate authority of that server (PEM); TLS is verified where it is given or the host is not this machine
    #[arg(long, value_name = "FILE", requires = "to_mysql")]
    pub to_mysql_ca: Option<PathBuf>,
    /// Talks to that server without TLS although it is not this machine, and sends it binlogs in the clear
    #[arg(long, requires = "to_mysql", conflicts_with = "to_mysql_ca")]
    pub to_mysql_plain: bool,
    /// The directory to restore files into
    #[arg(long, value_name = "DIR")]
    pub to_dir: Option<PathBuf>,
    /// Only these tables (`schema.table,…`)
    #[arg(long, value_name = "TABLES", value_delimiter = ',', requires = "to_mysql")]
    pub tables: Vec<String>,
    /// Only the rows of --tables that are of this one shop, by the policy's column (`shop_id=shop042`)
    ///
    /// The policy says which column tells whose a row is (`tenant.column`); no other is taken. The value is a value, never SQL.
    #[arg(long = "where", value_name = "COLUMN=VALUE", requires_all = ["tables", "point_in_time"], conflicts_with = "overwrite")]
    pub of: Option<String>,
    /// Compares --tables as they were at --point-in-time with those of the living server, and writes the row changes as SQL
    ///
    /// The tables are recovered in a sandbox; the living server is only read. Review the file, then apply it: `bkp restore mall --to-mysql
    /// URL --point-in-time '2026-05-01 14:02' --tables mall.orders,mall.order_items --where shop_id=shop042 --changes shop042.sql`, and
    /// then `bkp restore mall --to-mysql URL --changes shop042.sql --apply --in-place --confirm-host 10.0.30.10`.
    #[arg(long, value_name = "FILE", requires = "to_mysql", conflicts_with_all = ["as_name", "rename_schemas", "overwrite", "to_dir"])]
    pub changes: Option<PathBuf>,
    /// Applies the reviewed file of --changes in one transaction: each statement changes one row as it was, or nothing is changed
    #[arg(long, requires = "changes", conflicts_with_all = ["point_in_time", "snapshot", "tables", "of", "binlogs", "up_to_gap", "replay_listen", "replay_by", "verify"])]
    pub apply: bool,
    /// Brings the one table of --tables back under this name (`table` or `schema.table`), beside the one that is there
    ///
    /// It comes without its foreign keys and triggers: they would bind it to the tables beside it.
    #[arg(long = "as", value_name = "NAME", requires = "tables", conflicts_with = "rename_schemas")]
    pub as_name: Option<String>,
    /// Brings a schema back under another name (`OLD=NEW`; may be given again): its tables and rows alone
    ///
    /// The other schemas of the dump do not come. Views, routines, triggers, events, sequences and accounts name the old schema, and
    /// stay behind, as do foreign keys into other schemas.
    #[arg(long = "rename-schema", value_name = "OLD=NEW", requires = "to_mysql")]
    pub rename_schemas: Vec<String>,
    /// Only these paths or globs, relative to the source's directory
    #[arg(long, value_name = "PATHS", value_delimiter = ',', requires = "to_dir")]
    pub paths: Vec<String>,
    /// Prints the plan and writes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Overwrites tables and files that are in the target
    #[arg(long)]
    pub overwrite: bool,
    /// Allows the target to be the source itself
    #[arg(long, requires = "confirm_hosts")]
    pub in_place: bool,
    /// The name of the host whose data is to be overwritten, typed out (again for each other host)
    ///
    /// A server's is the host in its URL; this machine's, for its sockets and directories, is what `hostname` prints.
    #[arg(long = "confirm-host", value_name = "NAME", requires = "in_place")]
    pub confirm_hosts: Vec<String>,
    /// Leaves users and grants out
    #[arg(long)]
    pub no_users: bool,
    /// Keeps the restored rows and objects out of the target's binlog, and so from its replicas
    #[arg(long)]
    pub no_binlog: bool,
    /// Compares every chunk and file with the snapshot afterwards
    #[arg(long)]
    pub verify: bool,
    /// Looks afterwards whether every restored row's foreign keys point to rows that are there (exit 3 where not)
    ///
    /// Rows come back as they were, also those that pointed to nothing in the source.
    #[arg(long, requires = "to_mysql", conflicts_with = "as_name")]
    pub check_foreign_keys: bool,
    /// Connections or threads that load
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Does not ask before it writes
    #[arg(long)]
    pub yes: bool,
}

/// Reads `10.0.30.5`, `10.0.30.5:4000` or `[::1]:4000`.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let bare = || text.trim_matches(['[', ']']).parse().map(|address: IpAddr| SocketAddr::new(address, 0));
    let parsed: Option<SocketAddr> = text.parse().or_else(|_| bare()).ok();
    // The target is told the address: it must be one.
    let address = parsed.filter(|address| !address.ip().is_unspecified());
    address.ok_or_else(|| "write an address of this machine, with or without a port".to_owned())
}
