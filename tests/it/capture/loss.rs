//! How much is lost with a server that is killed at full load: what the lag says at most, and nothing where commits wait for the
//! spool.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use mysql_async::prelude::Queryable as _;
use serde_json::Value;

use super::{Daemon, Desk, until};
use crate::servers::{Product, Server, block_on};

const WRITERS: usize = 8;

/// When each writer was told that its commits are done.
type Acknowledged = Vec<Vec<DateTime<Utc>>>;

impl Desk {
    /// A server that can wait for acknowledgements, and does not yet.
    fn with_semi_sync(product: Product) -> Self {
        let options: &[&str] = match product {
            Product::MySql => &["--plugin-load-add=semisync_source.so"],
            Product::MariaDb => &["--rpl-semi-sync-master-wait-point=AFTER_SYNC"],
        };
        let desk = Self::with(product, options, "ack = \"spool\"");
        for table in
            ["v", "w"].iter().flat_map(|series| (0..WRITERS).map(move |writer| format!("shop.{series}{writer}")))
        {
            desk.server.execute(&format!("CREATE TABLE {table} (a INT PRIMARY KEY AUTO_INCREMENT, b TEXT)"));
        }
        desk
    }

    fn semi_sync(&self, name: &str) -> String {
        let role = if self.server.product() == Product::MySql { "source" } else { "master" };
        format!("rpl_semi_sync_{role}_{name}")
    }

    pub(super) fn follow(&self) -> Daemon {
        Daemon(self.command(&["daemon", "mall"]).stderr(std::process::Stdio::null()).spawn().unwrap())
    }

    pub(super) fn binlog_status(&self) -> Value {
        self.bkp(&["status", "mall", "--json"]).json()["policies"][0]["sources"][0]["binlog"].clone()
    }

    /// Has all writers commit, one row each, until `kill` has ended the server, and returns what they were told.
    fn load(&self, series: &str, time: Duration, kill: impl FnOnce()) -> Acknowledged {
        thread::scope(|scope| {
            let writer = |number| scope.spawn(move || commit(&self.server, &format!("shop.{series}{number}")));
            let writers: Vec<_> = (0..WRITERS).map(writer).collect();
            thread::sleep(time);
            kill();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        })
    }

    /// Counts by writer the commits that were captured.
    fn captured(&self, series: &str) -> Vec<usize> {
        let found =
            self.bkp(&["binlog", "find", "mall", "--type", "insert", "--limit", "100000", "--json"]).expect(0).json();
        let mut counts = BTreeMap::new();
        for found in found["found"].as_array().unwrap() {
            *counts.entry(found["tables"][0]["table"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        (0..WRITERS).map(|writer| counts.get(&format!("{series}{writer}")).copied().unwrap_or(0)).collect()
    }
}

/// Commits row after row until the server is gone.
fn commit(server: &Server, table: &str) -> Vec<DateTime<Utc>> {
    block_on(async {
        let (mut session, mut acknowledged) = (server.connect().await, Vec::new());
        let insert = format!("INSERT INTO {table} (b) VALUES (REPEAT('x', 100))");
        while session.query_drop(&insert).await.is_ok() {
            acknowledged.push(Utc::now());
        }
        acknowledged
    })
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn lost(acknowledged: &Acknowledged, captured: &[usize]) -> usize {
    acknowledged.iter().zip(captured).map(|(told, captured)| told.len().saturating_sub(*captured)).sum()
}

/// The server is killed, and what is lost is younger than the lag.
fn killed_without_waiting(desk: &mut Desk) {
    let off = |wait: &Value| wait["reason"].as_str().is_some_and(|reason| reason.contains("switched off"));
    until("the daemon says that no commit waits", || off(&desk.binlog_status()["commits_wait"]));
    let pid = desk.server.pid();
    let acknowledged = desk.load("v", Duration::from_millis(6_500), || kill(pid));
    let killed = Utc::now();
    desk.server.kill();
    until("the daemon notices", || !desk.binlog_status()["error"].is_null());
    let as_of: DateTime<Utc> = desk.binlog_status()["spool"].as_str().unwrap().parse().unwrap();
    let captured = desk.captured("v");
    let old: Vec<usize> = acknowledged.iter().map(|told| told.iter().filter(|at| **at <= as_of).count()).collect();
    println!(
        "{} commits, lost {}; the lag was {}",
        acknowledged.iter().map(Vec::len).sum::<usize>(),
        lost(&acknowledged, &captured),
        killed - as_of
    );
    assert!(old.iter().sum::<usize>() > 100, "the lag tells nothing: {as_of}, killed at {killed}");
    for (old, captured) in old.iter().zip(&captured) {
        assert!(old <= captured, "{old} commits were older than the lag, {captured} were captured");
    }
}

/// Where commits wait, whoever follows may be killed first: no commit is acknowledged any more, and none that was is missing.
fn killed_while_commits_wait(desk: &mut Desk, daemon: Daemon) {
    desk.server.start_again();
    desk.server.execute(&format!("SET GLOBAL {} = ON", desk.semi_sync("enabled")));
    until("commits wait for the spool", || desk.binlog_status()["commits_wait"]["is_on"] == true);
    let not_waited =
        || desk.server.query(&format!("SHOW GLOBAL STATUS LIKE '{}'", desk.semi_sync("no_tx")))[0][1].clone();
    let before = not_waited();
    let doctor = desk.bkp(&["doctor", "mall"]).out;
    assert!(doctor.contains("ok      db1: its commits wait for the spool"), "{doctor}");
    let (server, mut after) = (desk.server.pid(), None);
    let acknowledged = desk.load("w", Duration::from_secs(2), || {
        after = Some(not_waited());
        drop(daemon);
        thread::sleep(Duration::from_millis(100));
        kill(server);
    });
    let captured = desk.captured("w");
    let commits: usize = acknowledged.iter().map(Vec::len).sum();
    println!("{commits} commits that waited");
    assert_eq!(after, Some(before), "the server has fallen back");
    assert!(commits > 20, "{commits}");
    assert_eq!(lost(&acknowledged, &captured), 0, "{commits} commits, captured {captured:?}");
    desk.server.kill();
    let told = desk.bkp(&["status", "mall"]).out;
    assert!(told.contains("binlog: spool"), "{told}");
}

fn a_killed_server_loses_no_more_than_was_told(product: Product) {
    let mut desk = Desk::with_semi_sync(product);
    let daemon = desk.follow();
    killed_without_waiting(&mut desk);
    killed_while_commits_wait(&mut desk, daemon);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_killed_server_loses_no_more_than_the_lag_and_nothing_where_commits_wait_on_mariadb() {
    a_killed_server_loses_no_more_than_was_told(Product::MariaDb);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_killed_server_loses_no_more_than_the_lag_and_nothing_where_commits_wait_on_mysql() {
    a_killed_server_loses_no_more_than_was_told(Product::MySql);
}
