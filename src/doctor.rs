//! Checks everything that a run needs, one assertion after the other. It reads and connects; it sends no backup and changes
//! nothing, but that it tries out a store's own lock with an object of a few bytes.

mod capture;
mod copies;
mod database;

use std::path::Path;

use mysql_async::prelude::Queryable as _;

use crate::human;
use crate::kit::{Stamp, program};
use crate::mysql::manifest::Product;
use crate::mysql::product;
use crate::mysql::server::Server;
use crate::place;
use crate::policy::{MysqlSource, Policy};
use crate::run::Run;
use crate::sandbox;
use crate::source::files::{FilesError, FilesSource};

/// A repository on a disk with less than this share free is near the night on which a backup does not fit.
const FREE_SHARE_MIN: f64 = 0.1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// A run works, and somebody should look at it.
    Warning,
    /// A run fails, or is worth less than the policy promises.
    Bad,
}

/// Why an assertion does not hold, as far as the exit code tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    Other,
    Guard,
    Network,
    NoRepository,
    Password,
}

/// One assertion and what was found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    pub state: State,
    pub cause: Cause,
    /// What is asserted: `repository: opens with the password`.
    pub what: String,
    pub detail: String,
    pub hint: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { state: State::Ok, cause: Cause::Other, what: what.into(), detail: detail.into(), hint: None }
    }

    fn new(state: State, what: impl Into<String>, detail: impl Into<String>, hint: Option<String>) -> Self {
        Self { state, cause: Cause::Other, what: what.into(), detail: detail.into(), hint }
    }

    fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }
}

/// Examines all that a policy's runs need.
pub async fn examine(policy: &Policy, run: &Run) -> Vec<Finding> {
    let mut findings = vec![writable("state directory", &policy.state_dir)];
    findings.extend(repository(policy, run).await);
    if !policy.mysql.is_empty() {
        findings.push(pause(policy));
    }
    for (name, place) in &policy.mysql {
        findings.extend(database::examine(name, place, policy, run).await);
    }
    for (name, place) in &policy.files {
        findings.push(tree(name, place, run));
    }
    findings.extend(copies::examine(policy, run).await);
    if !policy.copies.is_empty() {
        findings.push(kit(policy));
    }
    findings.extend(drill(policy).await);
    findings
}

/// Checks that a recovery kit was exported since the policy was last changed. Where it lies now, nobody here knows.
fn kit(policy: &Policy) -> Finding {
    let what = "recovery kit: one was exported, of this policy and program";
    let told =
        |stamp: &Stamp| format!("made {} into {}", human::time(stamp.created, policy.timezone), stamp.dir.display());
    let hint = format!(
        "`bkp kit export DIR {}`: without one, who recovers on another machine begins with nothing",
        policy.name
    );
    match Stamp::read(&policy.state_dir) {
        Some(stamp) if stamp.policy_hash == policy.hash && stamp.program == program() => {
            Finding::ok(what, told(&stamp))
        }
        Some(stamp) => {
            let detail = format!("{}; the policy or the program has changed since", told(&stamp));
            Finding::new(State::Warning, what, detail, Some(hint))
        }
        None => Finding::new(State::Warning, what, "none was exported from this machine", Some(hint)),
    }
}

/// Checks that a directory is there, or can be made, and takes files from us.
fn writable(what: &str, dir: &Path) -> Finding {
    let assertion = format!("{what}: can be written");
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(dir);
    match rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
        Ok(()) if existing == dir => Finding::ok(assertion, dir.display().to_string()),
        Ok(()) => Finding::ok(assertion, format!("{} (the first run makes it)", dir.display())),
        Err(error) => {
            let hint = format!("check the rights of {}", existing.display());
            Finding::new(State::Bad, assertion, format!("{}: {error}", existing.display()), Some(hint))
        }
    }
}

/// A pause that nobody ends makes every dump wait for an hour and fail.
fn pause(policy: &Policy) -> Finding {
    let what = "dumps: nobody keeps them paused";
    let file = policy.pause_file();
    if !file.exists() {
        return Finding::ok(what, "none does");
    }
    let hint = format!("`bkp resume {}`, once they may go on", policy.name);
    Finding::new(State::Warning, what, format!("`{}` is there", file.display()), Some(hint))
}

async fn repository(policy: &Policy, run: &Run) -> Vec<Finding> {
    let what = "repository: opens with the password";
    let opened = match place::repository(policy, run).await {
        Ok(repository) => repository,
        Err(error) => {
            let cause = match &error {
                place::PlaceError::Repository(error) => match error {
                    crate::repository::RepositoryError::NoRepository { .. } => Cause::NoRepository,
                    crate::repository::RepositoryError::WrongPassword { .. } => Cause::Password,
                    _ => Cause::Other,
                },
                place::PlaceError::Password(_) => Cause::Password,
                _ => Cause::Other,
            };
            return vec![Finding::new(State::Bad, what, human::chain(&error), error.hint()).because(cause)];
        }
    };
    let mut findings =
        vec![Finding::ok(what, opened.store().location()), writable("repository", &policy.repository.path)];
    findings.push(free_space(&policy.repository.path));
    match opened.snapshots().await {
        Ok(snapshots) => {
            findings.push(Finding::ok("repository: its snapshots can be listed", format!("{}", snapshots.len())));
        }
        Err(error) => {
            findings.push(Finding::new(
                State::Bad,
                "repository: its snapshots can be listed",
                human::chain(&error),
                error.hint(),
            ));
        }
    }
    findings
}

fn free_space(path: &Path) -> Finding {
    let what = "repository: its disk has room";
    match rustix::fs::statvfs(path) {
        Ok(stat) => {
            let (free, total) =
                (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize));
            #[expect(clippy::cast_precision_loss, reason = "a share to one digit")]
            let share = if total == 0 { 0.0 } else { free as f64 / total as f64 };
            let detail = format!("{} of {} free", human::bytes(free), human::bytes(total));
            if share >= FREE_SHARE_MIN {
                Finding::ok(what, detail)
            } else {
                let hint = "free space, or keep fewer snapshots and run `bkp prune`";
                Finding::new(State::Warning, what, detail, Some(hint.to_owned()))
            }
        }
        Err(error) => Finding::new(State::Bad, what, error.to_string(), None),
    }
}

fn tree(name: &str, place: &crate::policy::FilesSource, run: &Run) -> Finding {
    let what = format!("{name}: the tree is what the policy says");
    match FilesSource::open(place, run) {
        Ok(_) => Finding::ok(what, place.path.display().to_string()),
        Err(error) => {
            let cause = if matches!(error, FilesError::Guard(_)) { Cause::Guard } else { Cause::Other };
            Finding::new(State::Bad, what, human::chain(&error), error.hint()).because(cause)
        }
    }
}

/// Checks that scheduled drills find a server of each source's product to start.
async fn drill(policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    if policy.schedule.drill.is_none() {
        return findings;
    }
    for (name, place) in &policy.mysql {
        let what = format!("drill: a server for {name} can be started in a sandbox");
        // A source that cannot be asked has its own line already.
        let Some(product) = product_of(place, policy).await else { continue };
        let named = match product {
            Product::MariaDb => policy.drill.mariadbd.as_deref(),
            Product::MySql => policy.drill.mysqld.as_deref(),
        };
        findings.push(match sandbox::program(product, named) {
            Ok(program) => Finding::ok(what, program.display().to_string()),
            Err(error) => Finding::new(State::Bad, what, human::chain(&error), error.hint()),
        });
    }
    findings
}

/// Asks a source which of the two products it is.
async fn product_of(place: &MysqlSource, policy: &Policy) -> Option<Product> {
    let mut connection = Server::of(place, &policy.network).ok()?.connect().await.ok()?;
    let rows: Vec<mysql_async::Row> = connection.query(product::PROBE).await.ok()?;
    let _closed = connection.disconnect().await;
    Some(product::told_by(rows.len()))
}
