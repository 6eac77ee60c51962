//! The edge that people touch: arguments in, text or JSON out, an exit code. Only this module prints.

mod against;
pub mod args;
mod ask;
mod binlog;
mod daemon;
mod envelope;
mod export;
mod key;
mod kit;
mod look;
mod pause;
mod part;
mod policies;
mod progress;
mod recorded;
mod render;
mod restore;
mod setup;
mod standby;
mod table;
mod work;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::args::{Cli, Command};
use crate::cli::envelope::Answered;
use crate::secret;

/// Runs the program: parses, dispatches, prints, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    secret::keep_out_of_dumps();
    // clap prints help to standard output and usage errors to standard error, with the codes 0 and 2.
    let cli = Cli::parse();
    let answered = dispatch(&cli);
    envelope::print(&cli.global, answered).into()
}

fn dispatch(cli: &Cli) -> Answered {
    let global = &cli.global;
    kit::judge(global, &cli.command)?;
    match &cli.command {
        Command::Init(args) => setup::init(global, args),
        Command::Policy(command) => setup::policy(global, command),
        Command::Schedule(command) => setup::schedule(global, command),
        Command::Completions { shell } => Ok(setup::completions(*shell)),
        Command::Man { dir } => setup::man(dir),
        Command::Run(args) => work::run(global, args),
        Command::Backup(args) => work::backup(global, args),
        Command::Pause(args) => pause::pause(global, args),
        Command::Resume(args) => pause::resume(global, args),
        Command::Copy(args) => work::copy(global, args),
        Command::Verify(args) => work::verify(global, args),
        Command::Forget(args) => work::forget(global, args),
        Command::Prune(args) => work::prune(global, args),
        Command::Drill(args) => work::drill(global, args),
        Command::Restore(args) => restore::restore(global, args),
        Command::Export(args) => export::export(global, args),
        Command::Binlog(command) => binlog::binlog(global, command),
        Command::Standby(command) => standby::standby(global, command),
        Command::Daemon(args) => daemon::daemon(global, args),
        Command::Key(command) => key::key(global, command),
        Command::Kit(command) => kit::kit(global, command),
        Command::Doctor(args) => look::doctor(global, args),
        Command::Snapshots(args) => look::snapshots(global, args),
        Command::Status(args) => look::status(global, args),
        Command::Report(args) => look::report(global, args),
    }
}

/// Colours only where a person looks and did not decline them (`NO_COLOR`).
fn ink() -> crate::human::Ink {
    use std::io::IsTerminal as _;
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    crate::human::Ink::new(is_wanted && std::io::stdout().is_terminal())
}
