//! The command line, as types. Nothing here decides anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

mod binlog;
mod keys;
mod restore;
mod standby;

pub use binlog::{
    BinlogCaptureArgs, BinlogCommand, BinlogExportArgs, BinlogFindArgs, BinlogListArgs, ChangeArg, DaemonArgs,
};
pub use keys::{KeyArgs, KeyCommand, KitCommand, KitExportArgs, NewPassword};
pub use restore::{ReplayBy, RestoreArgs};
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
