//! The assertions about a database server: the way, the login, what it sees of us, the rights, the binlog, the engines.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::doctor::capture;
use crate::doctor::{Cause, Finding, State};
use crate::human;
use crate::mysql::product;
use crate::mysql::server::Server;
use crate::net;
use crate::policy::{MysqlAddress, MysqlSource, NonTransactional, Policy};
use crate::run::Run;
use crate::source::mysql::{self, Survey};

/// The server's clock may differ by this much before moments in reports mislead.
const CLOCK_SECONDS_MAX: i64 = 5;

/// Tables named in a finding.
const NAMES_SHOWN: usize = 5;

pub(super) async fn examine(name: &str, place: &MysqlSource, policy: &Policy, run: &Run) -> Vec<Finding> {
    let what = format!("{name}: connects");
    let server = match Server::of(place, &policy.network) {
        Ok(server) => server,
        Err(error) => {
            return vec![Finding::new(State::Bad, what, human::chain(&error), error.hint()).because(Cause::Password)];
        }
    };
    let mut connection = match server.connect().await {
        Ok(connection) => connection,
        Err(error) => {
            let cause = match (error.is_network_refused(), error.is_access_denied()) {
                (true, _) => Cause::Network,
                (_, true) => Cause::Password,
                _ => Cause::Other,
            };
            return vec![Finding::new(State::Bad, what, human::chain(&error), error.hint()).because(cause)];
        }
    };
    let mut findings = Vec::new();
    match look(name, place, policy, &server, &mut connection, run, &mut findings).await {
        Ok(()) => {}
        Err(error) => findings.push(Finding::new(State::Bad, format!("{name}: answers"), human::chain(&error), None)),
    }
    let _closed = connection.disconnect().await;
    findings
}

async fn look(
    name: &str,
    place: &MysqlSource,
    policy: &Policy,
    server: &Server,
    connection: &mut Conn,
    run: &Run,
    findings: &mut Vec<Finding>,
) -> Result<(), mysql_async::Error> {
    let version: Option<String> = connection.query_first("SELECT VERSION()").await?;
    let rows: Vec<mysql_async::Row> = connection.query(product::PROBE).await?;
    let product = product::told_by(rows.len());
    let version = version.unwrap_or_default();
    findings.push(Finding::ok(
        format!("{name}: connects"),
        format!("{} {version} at {}", product::name(product), server.name()),
    ));
    if matches!(place.address, MysqlAddress::Tcp { .. }) {
        findings.push(seen(name, policy, connection).await?);
    }
    findings.push(clock(name, connection, run).await?);
    findings.push(binlog(name, connection).await?);
    findings.extend(capture::examine(name, policy, run).await);
    findings.extend(survey(name, place, server, run).await);
    Ok(())
}

/// Compares the address that the server sees us come from with the policy.
async fn seen(name: &str, policy: &Policy, connection: &mut Conn) -> Result<Finding, mysql_async::Error> {
    let query = "SELECT host FROM information_schema.processlist WHERE id = CONNECTION_ID()";
    let host: Option<String> = connection.query_first(query).await?;
    let what = format!("{name}: sees us come from the backup network");
    let Some(host) = host else {
        let hint = "grant PROCESS, or check the server's own log".to_owned();
        return Ok(Finding::new(State::Warning, what, "the server does not tell", Some(hint)));
    };
    Ok(match net::check_seen(&policy.network, &host).await {
        Ok(()) => Finding::ok(what, host),
        Err(error) => Finding::new(State::Bad, what, human::chain(&error), error.hint()).because(Cause::Network),
    })
}

async fn clock(name: &str, connection: &mut Conn, run: &Run) -> Result<Finding, mysql_async::Error> {
    let seconds: Option<i64> = connection.query_first("SELECT CAST(UNIX_TIMESTAMP() AS SIGNED)").await?;
    let apart = seconds.map_or(0, |seconds| (run.now().timestamp() - seconds).abs());
    let what = format!("{name}: its clock agrees with ours");
    Ok(if apart <= CLOCK_SECONDS_MAX {
        Finding::ok(what, format!("{apart} s apart"))
    } else {
        let hint = "let both follow the same time server".to_owned();
        Finding::new(State::Warning, what, format!("{apart} s apart"), Some(hint))
    })
}

async fn binlog(name: &str, connection: &mut Conn) -> Result<Finding, mysql_async::Error> {
    let on: Option<u8> = connection.query_first("SELECT @@global.log_bin").await?;
    let what = format!("{name}: writes a binlog");
    Ok(if on == Some(1) {
        Finding::ok(what, "on")
    } else {
        let hint = "set log_bin in the server's configuration: dumps then know their position".to_owned();
        Finding::new(State::Warning, what, "off", Some(hint))
    })
}

/// Looks at the server as a dump does before it takes a lock: rights, schemas, engines.
async fn survey(name: &str, place: &MysqlSource, server: &Server, run: &Run) -> Vec<Finding> {
    let what = format!("{name}: the account has the rights that a consistent dump needs");
    let looking = {
        let (server, place, run) = (server.clone(), place.clone(), run.clone());
        tokio::task::spawn_blocking(move || mysql::survey(&server, &place, &run))
    };
    let survey = match looking.await {
        Ok(Ok(survey)) => survey,
        Ok(Err(error)) => return vec![Finding::new(State::Bad, what, human::chain(&error), error.hint())],
        Err(error) => return vec![Finding::new(State::Bad, what, human::chain(&error), None)],
    };
    let mut findings = Vec::new();
    if survey.gaps.is_empty() {
        findings.push(Finding::ok(what.clone(), "all of them"));
    }
    for gap in &survey.gaps {
        let hint = "see `Rights on the source` in the operator's guide".to_owned();
        findings.push(Finding::new(State::Warning, what.clone(), gap.clone(), Some(hint)));
    }
    findings.push(engines(name, place, &survey));
    findings
}

/// Names tables to dump whose engine has no transactions: they are consistent only while locked.
fn engines(name: &str, place: &MysqlSource, survey: &Survey) -> Finding {
    let what = format!("{name}: every table has transactions");
    let mut some = survey.non_transactional.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if survey.non_transactional.len() > NAMES_SHOWN {
        some.push_str(", …");
    }
    match place.non_transactional {
        _ if some.is_empty() => Finding::ok(what, "yes"),
        NonTransactional::Lock => Finding::new(State::Warning, what, format!("{some}: dumped while locked"), None),
        NonTransactional::Refuse => {
            let hint =
                "convert them to InnoDB, leave them out with `exclude`, or set non_transactional = \"lock\"".to_owned();
            Finding::new(State::Bad, what, some, Some(hint))
        }
    }
}
