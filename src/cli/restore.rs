//! The command that restores: the request from the arguments, the plan on the screen, the consent, the work.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::catalog::Catalog;
use crate::cli::args::{Global, RestoreArgs};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::part;
use crate::cli::recorded::recorded;
use crate::cli::render::Proofs;
use crate::cli::{ask, policies, render};
use crate::drill::outcome::rate;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::mysql::manifest::Position;
use crate::mysql::server::Server;
use crate::place;
use crate::policy::{MysqlAddress, Policy, Tls, TlsMode};
use crate::replay::Point;
use crate::repository::Repository;
use crate::restore;
use crate::restore::choose::Moment;
use crate::restore::replay::ReplayRequest;
use crate::restore::{Proof, Rates, Request, Restored};
use crate::run::Run;
use crate::secret::SecretSource;
use crate::target::mysql::plan::Names;

pub(super) fn restore(global: &Global, args: &RestoreArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    part::check(args)?;
    let request = request(&policy, args)?;
    if global.json && !args.yes && !args.dry_run {
        return Err(ask::unconfirmed("restore: with `--json` nobody is asked to confirm the plan"));
    }
    let way = Way { asks: !args.yes, is_json: global.json };
    wait(global, |run| async move { work(&policy, args, &request, way, &run).await })
}

/// How a restore talks with its operator.
#[derive(Clone, Copy)]
struct Way {
    asks: bool,
    /// The answer is JSON, with the whole plan in it; made for nobody, the plan of 100,000 tables would take a gigabyte.
    is_json: bool,
}

async fn work(policy: &Policy, args: &RestoreArgs, request: &Request, way: Way, run: &Run) -> Answered {
    if args.dry_run {
        return plan_and_apply(policy, args, request, way, run).await;
    }
    recorded(policy, "restore", run, Box::pin(plan_and_apply(policy, args, request, way, run))).await
}

async fn plan_and_apply(policy: &Policy, args: &RestoreArgs, request: &Request, way: Way, run: &Run) -> Answered {
    if args.apply {
        return part::apply(policy, args, request, way.asks, run).await;
    }
    let repository = place::repository_in(policy, args.from.as_deref(), run).await?;
    // A plan needs no lock: what is gone when it is carried out is found then.
    let lock = if args.dry_run { None } else { place::lock_to_read(&repository, run).await? };
    let answered = plan_and_apply_in(policy, &repository, args, request, way, run).await;
    place::unlock(lock, run).await;
    answered
}

async fn plan_and_apply_in(
    policy: &Policy,
    repository: &Arc<Repository>,
    args: &RestoreArgs,
    request: &Request,
    way: Way,
    run: &Run,
) -> Answered {
    if let Some(part) = part::meant(policy, repository, args, request).await? {
        return part.restore(run, way.asks).await;
    }
    let rates = rates(policy, run);
    let plan = restore::plan(policy, repository, request, rates, run).await?;
    let text = render::restore_plan(policy, &plan, place::copy_meant(policy, args.from.as_deref()));
    let planned = if way.is_json { render::restore_plan_json(&plan) } else { Value::Null };
    if args.dry_run {
        let mut json = json!({ "dry_run": true, "plan": null });
        json["plan"] = planned;
        return Ok(Answer::new(text, json));
    }
    text.lines().for_each(|line| run.events.note(line));
    if !way.asks {
        refuse_later(&plan)?;
    }
    if way.asks {
        ask::consent("restore", format!("Restore into {}?", render::targets(&plan)), run).await?;
    }
    let began = run.clock.instant();
    let mut restored = restore::apply(&plan, repository, request, run).await?;
    let mut exit = exit_of(&restored);
    let mut proof = None;
    if args.verify {
        let found = restore::compare(&plan, &restored, repository, run).await?;
        exit = exit.max(exit_of_proof(&found));
        proof = Some(found);
    }
    // The comparison is with the dumps: what the binlogs bring comes after it.
    let (mut keys, mut errors) = (None, String::new());
    let failure = replay(&plan, &mut restored, exit, run).await.err();
    if let Some(failure) = &failure {
        // What was restored, and found by the comparison, is told all the same.
        exit = exit.max(failure.exit);
        errors = render::failure("", failure);
    }
    if args.check_foreign_keys && failure.is_none() {
        match restore::check_foreign_keys(&plan, &restored, run).await {
            Ok(found) => {
                exit = exit.max(if found.orphans.is_empty() { Exit::Ok } else { Exit::Incomplete });
                keys = Some(found);
            }
            // Likewise.
            Err(error) => {
                let failure = Failure::from(&error);
                exit = exit.max(failure.exit);
                errors = render::failure("", &failure);
            }
        }
    }
    let proofs = Proofs { snapshot: proof.as_ref(), foreign_keys: keys.as_ref() };
    let text = render::restored(policy, &plan, &restored, proofs, began.elapsed());
    let mut json = json!({
        "plan": null,
        "restored": render::restored_json(&restored),
        "verified": proof.as_ref().is_some_and(Proof::is_whole),
        "uncompared": proof.as_ref().map_or(&[][..], |proof| &proof.uncompared),
        "foreign_keys": keys.as_ref().map(|check| check.keys),
        "orphans": keys.as_ref().map(|check| &check.orphans),
        "differences": proof.map(|proof| proof.lines).unwrap_or_default(),
        "replay_error": failure.map(|failure| failure.message),
        "millis": crate::backup::millis(began.elapsed()),
        "exit": exit.code(),
    });
    json["plan"] = planned;
    Ok(Answer::new(text, json).telling(errors).with(exit))
}

/// Refuses to take in unasked what bears a later time than the point.
fn refuse_later(plan: &restore::Plan) -> Result<(), Failure> {
    let replays = plan.databases.iter().filter_map(|database| database.replay.as_ref());
    refuse_many_later(replays.map(|replay| replay.plan.later).sum())
}

pub(super) fn refuse_many_later(later: u64) -> Result<(), Failure> {
    if later == 0 {
        return Ok(());
    }
    let count = human::counted(later, "transaction that would come bears", "transactions that would come bear");
    Err(Failure::new(Exit::Usage, format!("restore: {count} a later time than the point, and nobody is asked"))
        .hinting("look at the plan (`--dry-run`), and name its last transaction: `--point-in-time gtid:GTID` or `position:FILE:OFFSET`"))
}

/// Replays what is planned; on damage nothing is built.
async fn replay(plan: &restore::Plan, restored: &mut Restored, found: Exit, run: &Run) -> Result<(), Failure> {
    let is_planned = plan.databases.iter().any(|database| database.replay.is_some());
    if is_planned && found == Exit::Damaged {
        return Err(Failure::new(
            Exit::Damaged,
            "replay binlogs: what the dump brought is damaged, and nothing is built on it",
        )
        .hinting("drop what was restored and the schema `bkp_restore`, and restore another snapshot"));
    }
    Ok(restore::replay(plan, restored, run).await?)
}

/// What could not be restored is damage where its bytes are, and incompleteness where the target refused.
fn exit_of(restored: &Restored) -> Exit {
    let mut failed = restored.databases.iter().flat_map(|(_, loaded)| &loaded.failed).peekable();
    let mut exit = if failed.peek().is_some() { Exit::Incomplete } else { Exit::Ok };
    if failed.any(|failed| failed.error.is_damage()) {
        exit = exit.max(Exit::Damaged);
    }
    for (_, tree) in &restored.trees {
        if tree.damaged > 0 {
            exit = exit.max(Exit::Damaged);
        } else if tree.failures + tree.reductions > 0 {
            exit = exit.max(Exit::Incomplete);
        }
    }
    exit
}

/// Rows and content that differ are damage; an owner, a mode or a time that could not be given back is not, nor what could not be
/// compared.
fn exit_of_proof(proof: &Proof) -> Exit {
    match proof.damaged {
        0 if proof.is_whole() => Exit::Ok,
        0 => Exit::Incomplete,
        _ => Exit::Damaged,
    }
}

/// Takes the rates of the newest drill that measured them; none where the catalog cannot tell.
fn rates(policy: &Policy, run: &Run) -> Rates {
    if !Catalog::is_in(&policy.state_dir) {
        return Rates::default();
    }
    let drills = Catalog::open(&policy.state_dir, &run.events).and_then(|catalog| catalog.drills(8));
    let drills = drills.unwrap_or_else(|error| {
        run.events.warn(format!("the duration cannot be predicted: {error}"));
        Vec::new()
    });
    Rates { load: rate(&drills, "load"), files: rate(&drills, "files"), replay: rate(&drills, "replay") }
}

fn request(policy: &Policy, args: &RestoreArgs) -> Result<Request, Failure> {
    let point = args.point_in_time.as_deref().map(|text| point(text, policy.timezone)).transpose()?;
    let moment = match (&args.snapshot, &point) {
        (Some(id), _) => Moment::Snapshot(id.clone()),
        (None, Some(Point::At(time))) => Moment::At(*time),
        (None, _) => Moment::Latest,
    };
    let binlogs = args.binlogs.as_deref().map(absolute).transpose()?;
    let replay = |point| {
        let (up_to_gap, further, listen) = (args.up_to_gap, args.go_further, args.replay_listen);
        ReplayRequest { point, binlogs, up_to_gap, further, way: args.replay_by.way(), listen }
    };
    Ok(Request {
        moment,
        replay: point.map(replay),
        sources: args.sources.clone(),
        to_mysql: args.to_mysql.as_deref().map(|url| server(policy, url, Access::of(args))).transpose()?,
        to_dir: args.to_dir.as_deref().map(absolute).transpose()?,
        tables: args.tables.iter().map(|name| table(name)).collect::<Result<_, _>>()?,
        names: names(args)?,
        first: policy.restore.first.clone(),
        paths: args.paths.clone(),
        overwrite: args.overwrite,
        in_place: args.in_place.then(|| args.confirm_hosts.clone()),
        users: !args.no_users,
        skip_binlog: args.no_binlog,
        connections: usize::from(args.connections),
    })
}

pub(super) fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::new(Exit::Usage, format!("find `{}`: {error}", path.display())))
}

pub(super) fn table(name: &str) -> Result<(String, String), Failure> {
    let refusal = || Failure::new(Exit::Usage, format!("`{name}` names no table")).hinting("write `schema.table`");
    let (schema, table) = name.split_once('.').ok_or_else(refusal)?;
    if schema.is_empty() || table.is_empty() { Err(refusal()) } else { Ok((schema.to_owned(), table.to_owned())) }
}

/// Reads the names under which things come back.
fn names(args: &RestoreArgs) -> Result<Names, Failure> {
    let mut names = Names::default();
    if let Some(name) = &args.as_name {
        let [dumped] = args.tables.as_slice() else {
            return Err(Failure::new(Exit::Usage, "`--as` names one table, and `--tables` several")
                .hinting("give it with each table in a command of its own, or `--rename-schema` for them all"));
        };
        let dumped = table(dumped)?;
        let given = if name.contains('.') { table(name)? } else { (dumped.0.clone(), name.clone()) };
        if given == dumped {
            return Err(Failure::new(Exit::Usage, format!("`--as {name}` is the name that the table has")));
        }
        names.table = Some((dumped, given));
    }
    for pair in &args.rename_schemas {
        let refusal =
            || Failure::new(Exit::Usage, format!("`{pair}` gives no schema another name")).hinting("write `OLD=NEW`");
        let (old, new) = pair
            .split_once('=')
            .filter(|(old, new)| !old.is_empty() && !new.is_empty() && old != new)
            .ok_or_else(refusal)?;
        if names.schemas.insert(old.to_owned(), new.to_owned()).is_some() {
            return Err(Failure::new(Exit::Usage, format!("`--rename-schema` gives `{old}` two names")));
        }
    }
    Ok(names)
}

/// Reads a recovery point: a moment, or what names a transaction or a place in the binlog.
pub(super) fn point(text: &str, zone: Tz) -> Result<Point, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("`{text}` is no point: {error}"));
    if let Some(name) = text.strip_prefix("gtid:") {
        return name.parse().map(Point::Gtid).map_err(|error| wrong(&error));
    }
    if let Some(name) = text.strip_prefix("before:") {
        return name.parse().map(Point::Before).map_err(|error| wrong(&error));
    }
    if let Some(place) = text.strip_prefix("position:") {
        let parsed = place.rsplit_once(':').and_then(|(file, offset)| Some((file.to_owned(), offset.parse().ok()?)));
        let (file, offset) = parsed.ok_or_else(|| wrong(&"write `position:binlog.000042:1234`"))?;
        return Ok(Point::Position(Position { file, offset }));
    }
    match moment(text, zone)? {
        Moment::At(time) => Ok(Point::At(time)),
        Moment::Latest | Moment::Snapshot(_) => Ok(Point::Latest),
    }
}

/// Reads a moment: `latest`, RFC 3339, or a date and time in the policy's zone.
pub(super) fn moment(text: &str, zone: Tz) -> Result<Moment, Failure> {
    if text == "latest" {
        return Ok(Moment::Latest);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Moment::At(time.with_timezone(&Utc)));
    }
    let refusal = |reason: &str| {
        Failure::new(Exit::Usage, format!("`{text}` is no moment: {reason}"))
            .hinting("write `2026-05-01T03:00:00+09:00`, or `2026-05-01 03:00` in the policy's time zone, or `latest`")
    };
    let formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"];
    let wall = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let midnight = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    let wall = wall.or_else(midnight).ok_or_else(|| refusal("it is not a date and a time"))?;
    // A time that comes twice means its second coming, so that nothing the operator counts on is left out.
    match wall.and_local_timezone(zone).latest() {
        Some(time) => Ok(Moment::At(time.with_timezone(&Utc))),
        None => Err(refusal(&format!("clocks in {zone} skip it"))),
    }
}

/// How an account gets into a server.
#[derive(Clone, Copy)]
pub(super) struct Access<'a> {
    pub(super) password_file: Option<&'a Path>,
    pub(super) ca: Option<&'a Path>,
    pub(super) plain: bool,
}

impl<'a> Access<'a> {
    fn of(args: &'a RestoreArgs) -> Self {
        let (password_file, ca) = (args.to_mysql_password_file.as_deref(), args.to_mysql_ca.as_deref());
        Self { password_file, ca, plain: args.to_mysql_plain }
    }
}

/// Reads `mysql://USER@HOST[:PORT]` or `mysql://USER@localhost?socket=PATH`. A password in it is refused: others can read it.
pub(super) fn server(policy: &Policy, url: &str, access: Access<'_>) -> Result<Server, Failure> {
    let refusal = |reason: &str| {
        Failure::new(Exit::Usage, format!("`--to-mysql` is no server's URL: {reason}"))
            .hinting("write `mysql://USER@HOST:PORT` or `mysql://USER@localhost?socket=PATH`")
    };
    let rest = url.strip_prefix("mysql://").ok_or_else(|| refusal("it does not begin with `mysql://`"))?;
    let (user, place) = rest.rsplit_once('@').ok_or_else(|| refusal("it names no user"))?;
    if user.contains(':') {
        return Err(Failure::new(
            Exit::Usage,
            "`--to-mysql` carries a password, which every user of this machine can read",
        )
        .hinting(
            "put it into a file of mode 0600 and name that with `--to-mysql-password-file`; change the password",
        ));
    }
    let (host, socket) = match place.split_once("?socket=") {
        Some((host, socket)) => (host, Some(PathBuf::from(socket))),
        None => (place.trim_end_matches('/'), None),
    };
    let address = match socket {
        Some(path) => MysqlAddress::Socket(path),
        None => tcp(host).ok_or_else(|| refusal("its host or port cannot be read"))?,
    };
    let mode = if access.ca.is_none() && (address.is_local() || access.plain) { TlsMode::Off } else { TlsMode::Verify };
    let password = access.password_file.map(|file| SecretSource::File(file.to_owned()).read()).transpose()?;
    Ok(Server {
        address,
        user: user.to_owned(),
        password,
        tls: Tls { mode, ca_file: access.ca.map(Path::to_owned) },
        network: policy.network.clone(),
    })
}

fn tcp(text: &str) -> Option<MysqlAddress> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, 3306),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| MysqlAddress::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<String> {
        match moment(text, chrono_tz::Asia::Seoul) {
            Ok(Moment::At(time)) => Some(time.to_rfc3339()),
            _ => None,
        }
    }

    #[test]
    fn a_time_without_an_offset_is_in_the_policys_zone() {
        assert_eq!(at("2026-05-01 03:00").as_deref(), Some("2026-04-30T18:00:00+00:00"));
        assert_eq!(at("2026-05-01T03:00:00+02:00").as_deref(), Some("2026-05-01T01:00:00+00:00"));
        assert_eq!(at("2026-05-01").as_deref(), Some("2026-04-30T15:00:00+00:00"));
        assert_eq!(at("yesterday"), None);
    }

    #[test]
    fn a_point_is_a_time_a_transaction_or_a_place() {
        let read = |text| point(text, chrono_tz::Asia::Seoul).map(|point| point.to_string());
        assert_eq!(read("2026-05-01 03:00").ok().as_deref(), Some("2026-04-30 18:00:00 UTC"));
        for text in ["latest", "gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:7", "before:0-1-7", "position:b.000042:1234"]
        {
            assert_eq!(read(text).ok().as_deref(), Some(text));
        }
        for text in ["gtid:7", "position:b.000042", "before:", "gtid"] {
            assert!(read(text).is_err_and(|failure| failure.exit == Exit::Usage), "{text}");
        }
    }

    #[test]
    fn a_time_that_clocks_skip_is_refused() {
        let refused = moment("2026-03-29 02:30", chrono_tz::Europe::Berlin);
        assert!(refused.is_err_and(|failure| failure.message.contains("skip")));
    }

    #[test]
    fn a_host_may_carry_a_port() {
        let port = |text| match tcp(text) {
            Some(MysqlAddress::Tcp { host, port }) => Some((host, port)),
            _ => None,
        };
        assert_eq!(port("db"), Some(("db".to_owned(), 3306)));
        assert_eq!(port("db:3307"), Some(("db".to_owned(), 3307)));
        assert_eq!(port("[::1]:3307"), Some(("::1".to_owned(), 3307)));
        assert_eq!(port("db:x"), None);
        assert_eq!(port(""), None);
    }
}
