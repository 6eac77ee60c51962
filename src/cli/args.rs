//! The command line, as types. Nothing here decides anything.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::replay::Way;

mod binlog;
mod standby;

pub use binlog::{
    BinlogCaptureArgs, BinlogCommand, BinlogExportArgs, BinlogFindArgs, BinlogListArgs, ChangeArg, DaemonArgs,
};
pub use standby::{StandbyArgs, StandbyCommand, StandbyPromoteArgs, StandbyStartArgs, StandbyStatusArgs};

/// Exit codes, for the end of `--help` and the manual.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  ok                          13  damaged: bytes do not hash right
  1  failed                      14  an objective (RTO or RPO) is breached
  2  usage or policy             15  a guard refused the source
  3  incomplete                  16  a drill's check failed
 10  no repository there         17  the network policy refused a peer
 11  locked by another run       18  protected by the store's own lock
 12  wrong password              130, 143  stopped by SIGINT, SIGTERM";

/// The heading of the options that are about recovery kits.
const KIT: &str = "Recovery kit";

/// Backs up MySQL/MariaDB and image trees, and proves that they come back.
#[derive(Debug, Parser)]
#[command(name = "bkp", version, about, max_term_width = 100, after_help = EXIT_CODES)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Looks up policies by name in this directory
    ///
    /// Without it: /etc/bkp/policies, then ./policies.
    #[arg(long = "policies", global = true, value_name = "DIR", env = "BKP_POLICIES")]
    pub policies_dir: Option<PathBuf>,
    /// Works from this recovery kit alone, as on a bare machine: restore, export, binlog, verify, snapshots, drill
    #[arg(long, global = true, value_name = "DIR", env = "BKP_KIT", help_heading = KIT)]
    pub kit: Option<PathBuf>,
    /// File with the kit's passphrase, that only its owner can read; without it, it is typed at the terminal
    #[arg(long, global = true, value_name = "FILE", env = "BKP_PASSPHRASE_FILE", help_heading = KIT)]
    pub passphrase_file: Option<PathBuf>,
    /// Command that prints the kit's passphrase (`sh -c`)
    #[arg(long, global = true, value_name = "COMMAND", help_heading = KIT, conflicts_with = "passphrase_file")]
    pub passphrase_command: Option<String>,
    /// Prints one JSON document on standard output instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Prints nothing but errors and the result
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Prints more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a repository, and its key file where that is missing
    #[command(after_help = "Example:\n  bkp init mall")]
    Init(PolicyArg),
    /// Checks policies, or prints what they may say
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Checks everything that a run needs, one line for each assertion; sends no backup, but tries a bucket's Object Lock out
    #[command(after_help = "Example:\n  bkp doctor mall")]
    Doctor(PolicyArg),
    /// Does what is due: backup, capture of binlogs, copies, retention, verify, prune, drill
    #[command(
        after_help = "Examples:\n  bkp run              every policy, what is due (the cron line)\n  bkp run mall --now   all of it at once"
    )]
    Run(RunArgs),
    /// Backs up now, whatever the schedule says, with copy and retention
    #[command(after_help = "Examples:\n  bkp backup mall\n  bkp backup mall --source images")]
    Backup(BackupArgs),
    /// Makes the running dump of a database pause, and every dump that begins, until `bkp resume`
    #[command(after_help = "\
Example:
  bkp pause mall

A dump that pauses keeps its moment and loses nothing; it holds no lock that writers wait for. The server keeps old rows for it
all the while, so a dump whose pauses together take longer than the policy's `throttle.pause_max` (1h) is given up (exit 1).
The command only makes the file `pause` in the state directory: `touch` does the same.")]
    Pause(PolicyArg),
    /// Lets dumps that pause go on
    #[command(after_help = "Example:\n  bkp resume mall")]
    Resume(PolicyArg),
    /// Lists snapshots
    #[command(after_help = "Examples:\n  bkp snapshots mall\n  bkp snapshots mall --source db1 --from offsite")]
    Snapshots(SnapshotsArgs),
    /// Shows on one screen whether backups are good
    #[command(after_help = "\
Examples:
  bkp status
  bkp status mall --json

Exit code 14 where an objective is breached; 1 where anything else is bad: the newest backup failed, a scheduled one was
missed by five minutes, a copy lags by more than the RPO, a run goes on for longer than a day and the RPO.")]
    Status(StatusArgs),
    /// Restores snapshots into a server and a directory
    #[command(after_help = "\
Examples:
  bkp restore mall --to-mysql mysql://root@10.0.30.20:3306 --to-dir /srv/images --dry-run
  bkp restore mall --point-in-time '2026-05-01 03:00' --to-mysql 'mysql://root@localhost?socket=/run/mysqld/mysqld.sock'
  bkp restore mall --point-in-time '2026-05-01 03:00' --binlogs /srv/binlogs --to-mysql mysql://root@10.0.30.20:3306 --dry-run
  bkp restore mall --source db1 --tables mall.orders,mall.order_items --to-mysql mysql://root@db2
  bkp restore mall --source db1 --tables mall.orders --as orders_restored --to-mysql mysql://root@10.0.30.10 \
                   --in-place --confirm-host 10.0.30.10
  bkp restore mall --source images --paths shop0001 --to-dir /tmp/look
  bkp restore mall --from offsite --to-dir /srv/images")]
    Restore(Box<RestoreArgs>),
    /// Writes a database out for other tools: a directory for `myloader`, or SQL for the plain client
    #[command(after_help = "\
Examples:
  bkp export mall --format mydumper /srv/out && cd /srv/out && myloader --directory . --host db2
  bkp export mall --format sql --tables mall.orders,mall.order_items /srv/out
  cat /srv/out/*.sql | mysql --binary-mode --comments --default-character-set=utf8mb4 --max-allowed-packet=1G
  bkp export mall --format sql --point-in-time '2026-05-01 03:00' --from offsite /srv/out

What is written is plaintext: whoever reads it reads the rows, and in 4-accounts.sql the accounts' hashes. Directory and files are
their owner's alone (0700, 0600); what becomes of them afterwards is up to you. Without the client's flags above,
routines lose comments and carriage returns, and large rows do not load. What breaks off leaves nothing that looks whole.")]
    Export(ExportArgs),
    /// Proves that what is stored is whole, and mends what is not
    #[command(after_help = "\
Examples:
  bkp verify mall
  bkp verify mall --level data --subset 1/7 --copy offsite
  bkp verify mall --level restore
  bkp verify mall --against-source --source db1
  bkp verify mall --heal --dry-run
  bkp verify mall --level data --heal
  bkp verify mall --heal --copy offsite

--level restore is a drill without the policy's checks and objectives, and with every file compared: in the sandbox that [drill.sandbox]
says. Exit code 13 where what is stored is damaged or a row or a file is not as it was stored, 16 where a table, an object or a file
could not be made, 3 where something could not be compared.

--against-source reads the source as a backup does, with the same rights and the same short lock, and writes nothing. Exit code 0
where every row is as in the snapshot; 3 where rows differ that may have changed since; 13 where they differ although the source's
binlog stands where it stood (or somebody wrote past it). Tables that changed are named with the range of their keys.

--heal mends what the verify finds, as deep as --level looks: the repository and then each copy, every one from all the
others; with --copy that store alone. Bytes are put back only where they hash right; where no store has a pack, its blobs
are gathered from other packs, in new ones; a lost index is made anew from the packs. Other stores are opened only where
something is to be mended. Nothing is deleted that could not be replaced, unless --salvage says so: that moves what still reads of a damaged
pack into a new one and deletes it, once every other store has answered; run `bkp backup` after it. Exit code 0 where all is whole afterwards, 13 where damage is left,
18 where that is worth nothing to any snapshot and locked by the store, 11 where another run's lock is all that stands in the way. Copies that nobody here can read are left out.
At the level data every byte of every store that is looked at is read: from a bucket that costs what it costs.")]
    Verify(VerifyArgs),
    /// Brings snapshots into the copies
    #[command(after_help = "Examples:\n  bkp copy mall\n  bkp copy mall --copy offsite --dry-run")]
    Copy(CopyArgs),
    /// Drops snapshots that no keep rule holds
    #[command(after_help = "Example:\n  bkp forget mall --dry-run")]
    Forget(ForgetArgs),
    /// Frees what no snapshot needs
    #[command(after_help = "\
Examples:
  bkp prune mall --dry-run
  bkp prune mall
  bkp prune mall --copy offsite

`bkp forget` drops snapshots; this frees the packs that none of the others needs. Nothing old is deleted before the new
packs and the new index have been read back. It rests while retention rests, and stops where anything is damaged.
What a copy's store keeps by its own lock is listed with its date (exit 18); a later prune frees it.")]
    Prune(PruneArgs),
    /// Rehearses the recovery in a sandbox and measures it
    #[command(after_help = "Example:\n  bkp drill mall --from offsite")]
    Drill(DrillArgs),
    /// Shows the report of a drill
    #[command(after_help = "Examples:\n  bkp report mall\n  bkp report mall --format html -o drill.html")]
    Report(ReportArgs),
    /// Lists, adds, removes and changes the passwords of a repository
    #[command(subcommand)]
    Key(KeyCommand),
    /// Exports or checks the recovery kit: for the day on which this machine is gone too
    #[command(subcommand)]
    Kit(KitCommand),
    /// Captures, lists, searches or exports the binlogs of databases
    #[command(subcommand)]
    Binlog(BinlogCommand),
    /// Keeps a server that follows the capture and can take over in seconds: starts, shows, promotes it
    #[command(subcommand)]
    Standby(Box<StandbyCommand>),
    /// Follows the binlogs of all policies until it is told to stop, and seals what is new each interval
    #[command(after_help = "\
Examples:
  bkp daemon
  bkp daemon mall

It tells systemd that it is ready and alive (Type=notify, WatchdogSec). SIGTERM ends it with 0 once what has come is durable.")]
    Daemon(DaemonArgs),
    /// Installs, shows or removes the crontab line or systemd timer
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Prints completions for a shell
    #[command(after_help = "Example:\n  bkp completions bash > /etc/bash_completion.d/bkp")]
    Completions { shell: clap_complete::Shell },
    /// Writes the manual pages into a directory
    #[command(after_help = "Example:\n  bkp man /usr/local/share/man/man1")]
    Man {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub struct PolicyArg {
    /// A policy file, or a name to look up
    #[arg(value_name = "POLICY")]
    pub policy: String,
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Reads policies and says what is wrong, with file, line, key and remedy
    #[command(after_help = "Examples:\n  bkp policy check\n  bkp policy check mall ./new.toml")]
    Check {
        /// Policy files or names; none: every one in the policies' directory
        #[arg(value_name = "POLICY")]
        policies: Vec<String>,
    },
    /// Prints the JSON Schema of a policy
    #[command(after_help = "Example:\n  bkp policy schema > bkp-policy.json")]
    Schema,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Policy files or names; none: every one in the policies' directory
    #[arg(value_name = "POLICY")]
    pub policies: Vec<String>,
    /// Does all that the policy can, whatever the schedule says: backup, copies, retention, verify, a prune where one
    /// is scheduled, and the drill where one is scheduled or has checks
    #[arg(long)]
    pub now: bool,
    /// Waits so long for another run of the policy to end (`30s`, `10m`) instead of exiting with 11
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "0s")]
    pub lock_wait: Duration,
    /// Exits with 0 where another run of the policy goes on: for a crontab that fires every minute
    #[arg(long, conflicts_with = "lock_wait")]
    pub skip_locked: bool,
    /// Dumps a database even if the account may take no lock; its tables may then be of different moments
    #[arg(long)]
    pub allow_inconsistent: bool,
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Only this source (may be given again)
    #[arg(long = "source", value_name = "NAME")]
    pub sources: Vec<String>,
    /// Leaves the copies for the next backup, or for `bkp copy`
    #[arg(long)]
    pub no_copy: bool,
    /// Waits so long for another run of the policy to end
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "0s")]
    pub lock_wait: Duration,
    /// Dumps a database even if the account may take no lock; its tables may then be of different moments
    #[arg(long)]
    pub allow_inconsistent: bool,
    /// Dumps databases as fast as can be, whatever the policy's `throttle` says; `bkp pause` is still heard
    #[arg(long)]
    pub no_throttle: bool,
}

#[derive(Debug, Args)]
pub struct SnapshotsArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Lists those of this copy
    #[arg(long, value_name = "COPY")]
    pub from: Option<String>,
    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Policy files or names; none: every one in the policies' directory
    #[arg(value_name = "POLICY")]
    pub policies: Vec<String>,
    /// Looks into the repository and fills the catalog anew from it and from the copies
    #[arg(long)]
    pub rebuild: bool,
}

/// How binlogs come to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReplayBy {
    Auto,
    Replica,
    Session,
}

impl ReplayBy {
    /// Returns the way that is asked for, if one is.
    pub(super) fn way(self) -> Option<Way> {
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
fn listen(text: &str) -> Result<SocketAddr, String> {
    let bare = || text.trim_matches(['[', ']']).parse().map(|address: IpAddr| SocketAddr::new(address, 0));
    let parsed: Option<SocketAddr> = text.parse().or_else(|_| bare()).ok();
    // The target is told the address: it must be one.
    let address = parsed.filter(|address| !address.ip().is_unspecified());
    address.ok_or_else(|| "write an address of this machine, with or without a port".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormArg {
    /// Files as `mydumper --load-data` writes them; without accounts
    Mydumper,
    /// Statements for the plain client, a file for each table
    Sql,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Directory to write into: one that is new or empty
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The form to write
    #[arg(long, value_enum)]
    pub format: FormArg,
    /// The moment to go back to: the newest snapshot at or before it (as `bkp restore` has it)
    #[arg(long, value_name = "TIME", conflicts_with = "snapshot")]
    pub point_in_time: Option<String>,
    /// This snapshot (an id or the beginning of one)
    #[arg(long, value_name = "ID")]
    pub snapshot: Option<String>,
    /// The database, where the policy has several
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Exports from this copy alone
    #[arg(long, value_name = "COPY")]
    pub from: Option<String>,
    /// Only these tables (`schema.table,…`), with their triggers
    #[arg(long, value_name = "TABLES", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Leaves users and grants out
    #[arg(long)]
    pub no_users: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// All that is named exists, with the right size
    Structure,
    /// Every byte hashes right
    Data,
    /// Structure, and the newest snapshot of each source restored into a throwaway server and directory, every row and file compared
    Restore,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// How deep to look
    #[arg(long, value_enum, default_value_t = LevelArg::Structure)]
    pub level: LevelArg,
    /// Reads a part of the packs: `k/n`; all k from 1 to n together read everything (with `--level data`)
    #[arg(long, value_name = "K/N", requires = "level")]
    pub subset: Option<String>,
    /// Looks at this copy instead of the repository
    #[arg(long, value_name = "NAME")]
    pub copy: Option<String>,
    /// Compares the newest snapshot of each database with the living source instead, within one moment as a dump sees it
    #[arg(long, conflicts_with_all = ["level", "subset", "heal"])]
    pub against_source: bool,
    /// Compares only this database with its source (may be given again)
    #[arg(long = "source", value_name = "NAME", requires = "against_source")]
    pub sources: Vec<String>,
    /// Compares this snapshot (an id or the beginning of one) with its source
    #[arg(long, value_name = "ID", requires = "against_source")]
    pub snapshot: Option<String>,
    /// Puts back what is damaged or missing from any other store that holds it whole: without --copy in every store
    #[arg(long)]
    pub heal: bool,
    /// Gives up what no store holds whole: keeps what still reads, and lets the next backup store the rest again
    #[arg(long, requires = "heal", conflicts_with = "dry_run")]
    pub salvage: bool,
    /// Says what would be put back, and from where, and changes nothing
    #[arg(long, requires = "heal")]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct CopyArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Only this copy (may be given again)
    #[arg(long = "copy", value_name = "NAME")]
    pub copies: Vec<String>,
    /// Says what would be sent
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ForgetArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Says which snapshots stay, why, and which would go
    #[arg(long)]
    pub dry_run: bool,
    /// Forgets in this copy instead of the repository
    #[arg(long, value_name = "NAME")]
    pub copy: Option<String>,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Says what would be freed and rewritten, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Prunes this copy instead of the repository
    #[arg(long, value_name = "NAME")]
    pub copy: Option<String>,
    /// Leaves so much unused in packs that are needed, in hundredths of what is needed: less costs more rewriting
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub max_unused: u64,
    /// Waits so long for another run of the policy to end
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "0s")]
    pub lock_wait: Duration,
}

#[derive(Debug, Args)]
pub struct DrillArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Restores from this copy instead of what the policy says
    #[arg(long, value_name = "COPY")]
    pub from: Option<String>,
    /// Rehearses a mistake made at this moment: what there was then is to come back (default: all is lost now)
    ///
    /// In the policy's time zone unless it names another. Databases whose binlogs are captured come back to the transaction.
    #[arg(long, value_name = "TIME")]
    pub point_in_time: Option<String>,
    /// Makes a standby of each captured database as well, promotes it, and sets its downtime beside the restore's
    ///
    /// On the machine of `bkp daemon`, whose spool the standby follows. It is restored once more, in a second sandbox.
    #[arg(long, conflicts_with = "point_in_time")]
    pub standby: bool,
    /// Leaves the restored files for a look; the sandbox's databases go
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    Text,
    Json,
    Markdown,
    Html,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// The drill's run id (default: the newest)
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    pub format: FormatArg,
    /// Writes to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WithArg {
    Cron,
    Systemd,
}

#[derive(Debug, Args)]
pub struct ScheduleArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// What starts the runs
    #[arg(long, value_enum, default_value_t = WithArg::Systemd)]
    pub with: WithArg,
    /// Treats this directory as the root of the file system
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Installs it
    #[command(after_help = "Examples:\n  bkp schedule install mall\n  bkp schedule install mall --with cron --dry-run")]
    Install {
        #[command(flatten)]
        args: ScheduleArgs,
        /// Prints what would be written
        #[arg(long)]
        dry_run: bool,
    },
    /// Says whether it is installed, and the next runs
    #[command(after_help = "Example:\n  bkp schedule status mall --with cron")]
    Status {
        #[command(flatten)]
        args: ScheduleArgs,
    },
    /// Removes it
    #[command(after_help = "Example:\n  bkp schedule remove mall --with cron")]
    Remove {
        #[command(flatten)]
        args: ScheduleArgs,
        /// Prints what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(flatten)]
    pub policy: PolicyArg,
    /// Acts on this copy alone
    #[arg(long, value_name = "NAME")]
    pub copy: Option<String>,
}

/// Where a new password comes from. Never the command line: every user of the machine can read that.
#[derive(Debug, Args)]
pub struct NewPassword {
    /// File with the new password, that only its owner can read; without it, it is typed twice at the terminal
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// Command that prints the new password (`sh -c`); it is asked twice, and must print the same
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_password_file")]
    pub new_password_command: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Lists the key files, one for each password; `*` marks the one that opened it
    #[command(after_help = "Examples:\n  bkp key list mall\n  bkp key list mall --copy offsite")]
    List(KeyArgs),
    /// Adds a password
    #[command(after_help = "\
Examples:
  bkp key add mall
  bkp key add mall --new-password-file /root/second.pw

The old ones go on to open. The copies get the new key file at once; one that cannot be reached is named (exit 3), and gets
it with the next `bkp copy`.")]
    Add {
        #[command(flatten)]
        args: KeyArgs,
        #[command(flatten)]
        new: NewPassword,
    },
    /// Takes a password away, from the repository and from each copy
    #[command(after_help = "\
Examples:
  bkp key remove mall 1f0c9a2e --dry-run
  bkp key remove mall 1f0c9a2e --yes

Keeps out who comes later. Who had the password and could read the key file may have the repository's own key, and keeps
it for ever: then make a new repository, back up into it, and destroy the old one.")]
    Remove {
        #[command(flatten)]
        args: KeyArgs,
        /// The id of a key, or the beginning of one
        #[arg(value_name = "ID")]
        id: String,
        /// Says what would be removed, and from where
        #[arg(long)]
        dry_run: bool,
        /// Does not ask before it removes
        #[arg(long)]
        yes: bool,
    },
    /// Changes the password that the policy uses, in the repository and in each copy
    #[command(after_help = "\
Examples:
  bkp key passwd mall
  bkp key passwd mall --new-password-file /root/new.key

The new password is added everywhere and proved before the old one is removed. Afterwards the policy must read the new one:
the command that does it is printed. A copy that cannot be reached is named (exit 3): keep the old password until `bkp copy`
has brought it the new one. To leave no moment without a valid policy, use `bkp key add` until it ends with 0, change the
policy's password, and then `bkp key remove` the old key.")]
    Passwd {
        #[command(flatten)]
        policy: PolicyArg,
        #[command(flatten)]
        new: NewPassword,
    },
}

#[derive(Debug, Subcommand)]
pub enum KitCommand {
    /// Makes a kit in a directory, or brings an older one up to date
    #[command(after_help = "\
Examples:
  bkp kit export /media/usb/kit mall
  bkp kit export /media/usb/kit --passphrase-file /root/kit.pw --binary ./bkp-static

In it: this program, the policies, a key file that only the passphrase opens, and RUNBOOK.md with the steps of the
recovery. With the kit, its passphrase and the credentials of a copy everything comes back on a bare machine. The
passphrase is a further password of the repository and its copies, so that `restic` opens them too; with `--apart` it
opens nothing without the kit. Exit code 3 where a copy could not be given the key.")]
    Export(KitExportArgs),
    /// Hashes a kit's files and sets it beside this program and the policies of this machine
    #[command(after_help = "\
Example:
  bkp kit check /media/usb/kit

Exit code 13 where bytes have changed, those of kit.json included, 3 where the kit is whole but of another policy or another
build of the program.")]
    Check {
        /// Directory of the kit
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct KitExportArgs {
    /// Directory of the kit: one that is new or empty, or that of an older kit
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Policy files or names; none: every one in the policies' directory
    #[arg(value_name = "POLICY")]
    pub policies: Vec<String>,
    /// Puts this program into the kit instead of the one that runs, as a static build of it; it is asked for its version
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Leaves the kit's key out of the repository and its copies: `restic` then opens them only once it was put there
    #[arg(long)]
    pub apart: bool,
}

/// Parses a span of time: digits and one of `s`, `m`, `h`, `d`.
fn span(text: &str) -> Result<Duration, String> {
    let refusal = || format!("`{text}` is no span of time: write `30s`, `10m` or `2h`");
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refusal)?;
    let (digits, unit) = text.split_at(at);
    let count: u64 = digits.parse().map_err(|_| refusal())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(refusal()),
    };
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_span_needs_a_unit() {
        assert_eq!(span("10m"), Ok(Duration::from_mins(10)));
        assert!(span("10").is_err());
        assert!(span("m").is_err());
        assert!(span("99999999999999999999d").is_err());
    }
}
