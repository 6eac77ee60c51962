//! The command lines of `bkp key` and `bkp kit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::PolicyArg;

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
