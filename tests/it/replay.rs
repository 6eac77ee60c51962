//! Binlogs of a real server are replayed on another, up to a point, and the rows are those that were there at that point.

mod tls;

use std::path::Path;

use bkp::mysql::gtid::Gtid;
use bkp::mysql::manifest::{Position, Product as Dumped};
use bkp::mysql::server::Server as Address;
use bkp::replay::{Point, ReplayError, ReplayPlan, Replayed, Start, Target, segments};
use bkp::run::Run;
use bkp::secret::Secret;

use crate::load::address;
use crate::servers::{Product, Server};
use crate::world::{Ended, World};

pub(crate) fn of(product: Product) -> Dumped {
    match product {
        Product::MariaDb => Dumped::MariaDb,
        Product::MySql => Dumped::MySql,
    }
}

/// Returns where a server's binlog stands.
pub(crate) fn here(server: &Server) -> Start {
    let shown = match server.product() {
        Product::MariaDb => "SHOW MASTER STATUS",
        Product::MySql => "SHOW BINARY LOG STATUS",
    };
    let row = server.query(shown).remove(0);
    let text = |nth: usize| row[nth].clone().unwrap_or_default();
    let gtid = match server.product() {
        Product::MariaDb => server.value("SELECT @@gtid_binlog_pos"),
        Product::MySql => server.value("SELECT @@gtid_executed"),
    };
    let position = Position { file: text(0), offset: text(1).parse().unwrap() };
    Start { product: of(server.product()), position, gtid: Some(gtid), has_prepared: false, reached: None }
}

/// What every table of `mall` holds, by its checksum.
pub(crate) fn state(server: &Server) -> Vec<Vec<Option<String>>> {
    let tables = server.query(
        "SELECT CONCAT('mall.', table_name) FROM information_schema.tables WHERE table_schema = 'mall' AND table_type = 'BASE TABLE' ORDER BY 1",
    );
    let tables: Vec<String> = tables.into_iter().map(|row| row[0].clone().unwrap()).collect();
    if tables.is_empty() { Vec::new() } else { server.query(&format!("CHECKSUM TABLE {}", tables.join(", "))) }
}

/// Returns the last transaction that a server has written.
pub(crate) fn last_gtid(server: &Server) -> Gtid {
    match server.product() {
        Product::MariaDb => server.value("SELECT @@gtid_binlog_pos").parse().unwrap(),
        Product::MySql => {
            let set = server.value("SELECT @@gtid_executed");
            let (uuid, numbers) = set.rsplit_once(':').unwrap();
            format!("{uuid}:{}", numbers.rsplit('-').next().unwrap()).parse().unwrap()
        }
    }
}

/// Returns the rights that the operator's guide gives to an account that replays.
fn rights(product: Product) -> Vec<&'static str> {
    let guide = include_str!("../../README.md").split_once("The account on the target needs").unwrap().1;
    let mark = if product == Product::MySql { "-- MySQL" } else { "-- MariaDB" };
    let granted = guide.lines().filter(|line| line.ends_with(mark));
    granted.map(|line| line.split_once(" TO ").unwrap().0).collect()
}

/// Returns how an account reaches a server that has these rights and no other, but what keeps the record.
fn target(server: &Server) -> Target {
    let mut sql =
        "SET sql_log_bin = 0; CREATE USER replayer@'%' IDENTIFIED BY 'pw'; GRANT ALL ON bkp_restore.* TO replayer@'%';"
            .to_owned();
    for right in rights(server.product()) {
        sql.push_str(&format!("{right} TO replayer@'%';"));
    }
    server.execute(&sql);
    replayer(server)
}

fn replayer(server: &Server) -> Target {
    let (user, password) = ("replayer".to_owned(), Some(Secret::new("pw".to_owned())));
    let account = Address { user, password, ..address(server) };
    Target { server: account, product: of(server.product()), threads: 4, listen: None, skip_binlog: false }
}

async fn replay(
    server: &Server,
    start: &Start,
    dir: &Path,
    point: &Point,
) -> Result<(ReplayPlan, Replayed), ReplayError> {
    let plan = ReplayPlan::new(start, &segments::in_dir(dir, &start.position.file)?, point, false, &Run::silent())?;
    let target = target(server);
    target.check(&plan, None, false).await?;
    target.prepare(&plan, "test", true, false).await?;
    let replayed = target.replay(&plan, &Run::silent()).await?;
    Ok((plan, replayed))
}

/// Several sessions at once, definitions, a clock that is set forward, a new file, a transaction that no packet holds.
fn work(source: &Server) {
    source.execute("CREATE DATABASE mall; CREATE TABLE mall.orders (id INT PRIMARY KEY AUTO_INCREMENT, note LONGTEXT)");
    std::thread::scope(|scope| {
        for nth in 0..3 {
            let inserts = format!("INSERT INTO mall.orders (note) VALUES (REPEAT('{nth}', 100));").repeat(40);
            scope.spawn(move || source.execute(&inserts));
        }
    });
    source.execute("SET TIMESTAMP = UNIX_TIMESTAMP() + 86400; UPDATE mall.orders SET note = 'late' WHERE id = 3");
    source.execute("FLUSH BINARY LOGS; INSERT INTO mall.orders (note) VALUES (REPEAT('x', 20000000))");
}

/// Without GTIDs, file and position lead the target; one that wants GTIDs makes its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_source_without_gtids_is_replayed_by_file_and_position() {
    let source = Server::start(Product::MySql, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    let start = here(&source);
    work(&source);
    let (wanted, point) = (state(&source), here(&source).position);
    source.execute("DROP TABLE mall.orders");
    let dir = source.dir().join("data");
    let point = Point::Position(point);
    for mode in ["OFF", "ON"] {
        let server = Server::start(Product::MySql, &[&format!("--gtid-mode={mode}"), "--performance-schema=ON"]);
        let (plan, _) = replay(&server, &start, &dir, &point).await.unwrap();
        assert!(!plan.has_gtids && plan.first_excluded.as_ref().is_some_and(|mark| mark.gtid.is_none()));
        assert_eq!(state(&server), wanted, "gtid_mode {mode}");
        let named = server.value("SELECT @@gtid_executed");
        assert_eq!(named.is_empty(), mode == "OFF", "{named}");
        server.execute("CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB = (mall)");
        let refused = replayer(&server).check(&plan, None, false).await.unwrap_err();
        assert!(refused.to_string().contains("REPLICATE_IGNORE_DB"), "{refused:?}");
    }
}

/// Of the rights that the guide names, none is missing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn an_account_with_the_guides_rights_replays_and_one_without_is_told_what_it_lacks() {
    let source = Server::start(Product::MariaDb, &[]);
    let start = here(&source);
    work(&source);
    let (wanted, last) = (state(&source), last_gtid(&source));
    source.execute("DROP TABLE mall.orders");
    let (server, dir) = (Server::start(Product::MariaDb, &[]), source.dir().join("data"));
    let before = server.query("SELECT @@server_id, @@event_scheduler, @@slave_parallel_threads");
    let (plan, _) = replay(&server, &start, &dir, &Point::Gtid(last.clone())).await.unwrap();
    assert_eq!(state(&server), wanted);
    assert_eq!(plan.last.unwrap().gtid, Some(last.clone()));
    assert_eq!(server.query("SELECT @@server_id, @@event_scheduler, @@slave_parallel_threads"), before);

    let run = segments::in_dir(&dir, &start.position.file).unwrap();
    let plan = ReplayPlan::new(&start, &run, &Point::Gtid(last), false, &Run::silent()).unwrap();
    server.execute("SET GLOBAL replicate_ignore_db = 'mall'");
    let refused = replayer(&server).check(&plan, None, false).await.unwrap_err();
    assert!(refused.to_string().contains("replicate_ignore_db = mall"), "{refused:?}");
    server.execute("SET GLOBAL replicate_ignore_db = ''");

    server.execute("REVOKE REPLICATION SLAVE ADMIN, SUPER ON *.* FROM replayer@'%'");
    let refused = replayer(&server).check(&plan, None, false).await.unwrap_err();
    assert!(refused.hint().is_some_and(|hint| hint.contains("REPLICATION SLAVE ADMIN")), "{refused:?}");
}

/// A moment between two transactions, as `--point-in-time` takes it.
fn moment(source: &Server, session_seconds: i64) -> String {
    match source.product() {
        // Commit times are the server's own, to the microsecond.
        Product::MySql => format!("{}Z", source.value("SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%f')")),
        // They are the sessions', to the second.
        Product::MariaDb => chrono::DateTime::from_timestamp(session_seconds, 0).unwrap().to_rfc3339(),
    }
}

/// Makes a target forget what was restored.
pub(crate) fn empty(target: &Server) {
    target.execute("DROP DATABASE IF EXISTS mall; DROP USER IF EXISTS dumper");
    if target.product() == Product::MySql {
        target.execute("RESET BINARY LOGS AND GTIDS");
    }
}

pub(crate) fn is_tidy(target: &Server) -> bool {
    let schemas = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'bkp_restore'";
    let channels = if target.product() == Product::MySql { "SHOW REPLICA STATUS" } else { "SHOW ALL SLAVES STATUS" };
    target.value(schemas) == "0" && target.query(channels).is_empty()
}

/// Restores to several points of one history with the real program, is killed in the middle of one, and refused others.
fn a_shop_comes_back_to_each_point(product: Product) {
    let world = World::ready(product);
    world.write_policy("\n[mysql.db1.binlog]\ncapture = true\n");
    let source = &world.source;
    source.execute(
        "CREATE TABLE mall.promised (id INT PRIMARY KEY); XA START 'kept'; INSERT INTO mall.promised VALUES (1); XA END 'kept'; XA PREPARE 'kept'",
    );
    // The dump is taken while the shop works.
    std::thread::scope(|scope| {
        let shop = scope.spawn(|| (1..=20).for_each(|nth| world.order(1, 1_000 + nth * 10, 10)));
        world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
        shop.join().unwrap();
    });
    let clock: i64 = source.value("SELECT UNIX_TIMESTAMP()").parse().unwrap();
    let at = |seconds: i64| format!("SET TIMESTAMP = {};", clock + seconds);
    work_more(source, &at(10));
    let (first, first_state) = (last_gtid(source), state(source));
    let between = moment(source, clock + 15);
    source.execute(&format!("{} UPDATE mall.orders SET total = total + 1 WHERE shop_id = 2", at(20)));
    // On the target alone this takes a while.
    let pause = format!("INSERT INTO mall.pause SELECT SLEEP(IF(@@port = {}, 0, 3))", source.port());
    let form =
        if product == Product::MySql { "SET binlog_format = STATEMENT;" } else { "SET binlog_format = 'STATEMENT';" };
    source.execute(&format!("{} {form} {pause}", at(21)));
    source.execute(&format!("{} FLUSH BINARY LOGS; DELETE FROM mall.orders WHERE shop_id = 3", at(30)));
    let second_state = state(source);
    source.execute(&format!("{} DROP TABLE mall.orders", at(40)));
    let mistake = last_gtid(source);
    source.execute(&format!("{} INSERT INTO mall.shops (id, name) VALUES (9, 'after')", at(50)));

    let binlogs = source.dir().join("data").display().to_string();
    let target = Server::start(product, &[]);
    let settings = "SELECT @@GLOBAL.server_id, @@GLOBAL.event_scheduler";
    let before = target.query(settings);
    let restore = |point: &str, more: &[&str]| {
        let args = ["--source", "db1", "--binlogs", &binlogs, "--point-in-time", point];
        world.restore_command(&target, &[&args, more].concat())
    };
    let ended = |point: &str, more: &[&str]| Ended::from(restore(point, more).output().unwrap());

    let planned = ended(&between, &["--dry-run", "--json"]).expect(0).json();
    let replay = &planned["plan"]["databases"][0]["replay"];
    assert_eq!(replay["last_included"]["gtid"], first.to_string(), "{planned}");
    assert!(replay["first_excluded"]["time"].is_string(), "{planned}");
    ended(&between, &["--yes", "--verify"]).expect(0);
    assert_eq!(state(&target), first_state);
    assert!(is_tidy(&target));

    // Killed in the middle, it goes on.
    empty(&target);
    let point = format!("before:{mistake}");
    let mut killed = restore(&point, &["--yes"]).spawn().unwrap();
    let is_paused = || {
        target.value("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(IF%' AND id <> CONNECTION_ID()") != "0"
    };
    while !is_paused() {
        assert!(killed.try_wait().unwrap().is_none(), "the restore was over before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_ne!(state(&target), second_state);
    assert!(!is_tidy(&target));
    let alone = world.restore_into(&target, &["--source", "db1", "--yes"]).expect(11);
    assert!(alone.err.contains("in the middle of a replay"), "{alone:?}");
    let resumed = ended(&point, &["--yes"]).expect(0);
    assert!(resumed.err.contains("loaded already"), "{resumed:?}");
    assert_eq!(state(&target), second_state);
    assert!(is_tidy(&target));
    assert_eq!(target.query(settings), before);

    refused(&world, &target, &ended, &first);
    captured(&world, &target, &format!("gtid:{first}"), &first_state);
    split(&world, &target);
}

/// What was prepared before the dump and committed behind it is in neither: that is told before anything is loaded.
fn split(world: &World, target: &Server) {
    empty(target);
    let wanted = state(&world.source);
    world.source.execute("XA COMMIT 'kept'; INSERT INTO mall.shops (id, name) VALUES (10, 'later')");
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    let restore =
        |point: &str| world.restore_into(target, &["--source", "db1", "--yes", "--verify", "--point-in-time", point]);
    let told = restore("latest").expect(2).err;
    assert!(told.contains("was prepared before the dump"), "{told}");
    assert_eq!(target.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'mall'"), "0");
    let (_, point) = told.split_once("go to `").unwrap();
    restore(point.split_once('`').unwrap().0).expect(0);
    assert_eq!(state(target), wanted);
}

/// What was captured is replayed where nothing else is named.
fn captured(world: &World, target: &Server, point: &str, wanted: &[Vec<Option<String>>]) {
    empty(target);
    let restore = |more: &[&str]| world.restore_into(target, &[&["--source", "db1", "--yes"], more].concat());
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    let restored = restore(&["--point-in-time", point, "--json"]).expect(0).json();
    assert_eq!(restored["restored"]["databases"][0]["replayed"]["prepared"], 0, "{restored}");
    assert_eq!(state(target), wanted);
    assert!(is_tidy(target));

    // On from there, without a load; never back.
    let again = restore(&["--point-in-time", "latest"]).expect(2);
    assert!(again.err.contains("not empty"), "{again:?}");
    let further = restore(&["--point-in-time", "latest", "--go-further", "--json"]).expect(0).json();
    assert_eq!(further["restored"]["databases"][0]["rows"], 0, "{further}");
    assert_eq!(state(target), state(&world.source));
    let back = restore(&["--point-in-time", point, "--go-further"]).expect(2);
    assert!(back.err.contains("between the dump and the point"), "{back:?}");
    assert!(is_tidy(target));
    let left = std::fs::read_dir(world.path("state")).unwrap().filter_map(Result::ok);
    assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("replay-")));
}

/// What the binlogs do not hold is refused, and the target stays as it is.
fn refused(world: &World, target: &Server, ended: &dyn Fn(&str, &[&str]) -> Ended, first: &Gtid) {
    empty(target);
    let refused = |point: &str, more: &[&str], why: &str| {
        let told = ended(point, &[&["--yes"], more].concat()).expect(2);
        assert!(told.err.contains(why), "{point}: {told:?}");
    };
    refused("2035-01-01", &[], "the binlogs end at");
    refused("2001-01-01", &[], "none is at or before");
    refused("latest", &["--tables", "mall.orders"], "restore the whole database to the point");
    let foreign = match first {
        Gtid::MySql(_) => "gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:7",
        Gtid::MariaDb(_) => "gtid:77-1-7",
    };
    refused(foreign, &[], "no transaction");
    assert_eq!(target.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'mall'"), "0");
    let told = world
        .restore_into(target, &["--source", "db1", "--point-in-time", &format!("gtid:{first}"), "--yes"])
        .expect(2);
    assert!(told.err.contains("no binlogs lead"), "{told:?}");
    let short = ended("2035-01-01", &["--up-to-gap", "--yes"]).expect(0);
    assert!(
        short.out.contains("do not lead to the point") || short.err.contains("do not lead to the point"),
        "{short:?}"
    );
    assert_eq!(state(target), state(&world.source));
}

/// A policy leaves a table and a schema out of the dump: the binlogs change them all the same, and the target passes that over.
fn what_was_left_out_is_passed_over(product: Product) {
    let world = World::ready(product);
    world.write_policy("\n[mysql.db1.binlog]\ncapture = true\n");
    let policy = world.path("policies/mall.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let exclude = "connections = 3\nexclude = [\"mall.page_views\", \"side_1.*\"]";
    std::fs::write(&policy, text.replace("connections = 3", exclude)).unwrap();
    let source = &world.source;
    source.execute(
        "CREATE TABLE mall.pageXviews (id INT PRIMARY KEY); CREATE DATABASE side_1; CREATE TABLE side_1.ads (id INT PRIMARY KEY)",
    );
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    let work = |id: u32| {
        source.execute(&format!(
            "BEGIN; INSERT INTO mall.shops (id, name) VALUES ({id}, 'more'); INSERT INTO mall.page_views VALUES ('2026-02-01', '/'); \
             INSERT INTO mall.pageXviews VALUES ({id}); INSERT INTO side_1.ads VALUES ({id}); COMMIT; \
             ALTER TABLE mall.page_views COMMENT 'c{id}'; CREATE TRIGGER mall.t{id} AFTER INSERT ON mall.page_views FOR EACH ROW \
             UPDATE mall.shops SET name = 'seen' WHERE id = 1; INSERT INTO mall.page_views VALUES ('2026-02-02', '/'); USE side_1; CREATE TABLE t{id} (id INT); DROP TABLE t{id}; \
             CREATE USER u{id}@localhost"
        ));
        world.bkp(&["binlog", "capture", "mall"]).expect(0);
    };
    let kept = |server: &Server| -> Vec<_> {
        let is_kept = |row: &Vec<Option<String>>| row[0].as_deref() != Some("mall.page_views");
        state(server).into_iter().filter(is_kept).collect()
    };
    work(70);
    let target = Server::start(product, &[]);
    let restore = |more: &[&str]| {
        world.restore_into(&target, &[&["--source", "db1", "--yes", "--point-in-time", "latest"], more].concat())
    };
    let restored = restore(&["--json"]).expect(0).json();
    let passed = &restored["plan"]["databases"][0]["replay"]["passed_over"];
    assert_eq!(*passed, serde_json::json!(["mall.page_views", "side_1.*"]), "{restored}");
    let lacks =
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'side_1' OR table_name = 'page_views'";
    assert_eq!((kept(&target), target.value(lacks)), (kept(source), "0".to_owned()));
    assert_eq!(target.value("SELECT COUNT(*) FROM mysql.user WHERE user = 'u70'"), "1");
    assert!(is_tidy(&target));
    work(71);
    restore(&["--go-further"]).expect(0);
    assert_eq!((kept(&target), target.value(lacks)), (kept(source), "0".to_owned()));
    if product == Product::MariaDb {
        let left = "SET STATEMENT default_master_connection = 'bkp' FOR SELECT @@GLOBAL.replicate_wild_ignore_table";
        assert_eq!(target.value(left), "", "the filter of the connection's name is taken back");
    }

    let form =
        if product == Product::MySql { "SET binlog_format = STATEMENT;" } else { "SET binlog_format = 'STATEMENT';" };
    source.execute(&format!("{form} INSERT INTO mall.page_views VALUES ('2026-02-03', '/')"));
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    let told = restore(&["--go-further"]).expect(2);
    assert!(told.err.contains("triggers may change others"), "{told:?}");

    source.execute(
        "CREATE TABLE mall.clicks (id INT PRIMARY KEY, ad INT, FOREIGN KEY (ad) REFERENCES side_1.ads (id)) ENGINE = InnoDB",
    );
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    work(72);
    empty(&target);
    let told = restore(&[]).expect(2);
    assert!(told.err.contains("`mall`.`clicks` points by a foreign key"), "{told:?}");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_was_left_out_is_passed_over_on_mysql() {
    what_was_left_out_is_passed_over(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_was_left_out_is_passed_over_on_mariadb() {
    what_was_left_out_is_passed_over(Product::MariaDb);
}

/// Definitions, blobs, a table that is made and dropped, savepoints.
fn work_more(source: &Server, at: &str) {
    source.execute(&format!("{at} ALTER TABLE mall.shops ADD COLUMN picture LONGBLOB; UPDATE mall.shops SET picture = REPEAT('\\0b', 300000)"));
    source.execute(&format!("{at} CREATE TABLE mall.pause (slept INT); CREATE TABLE mall.gone (id INT PRIMARY KEY); INSERT INTO mall.gone VALUES (1)"));
    // One that is prepared within a compressed transaction is known as well.
    let packed = if source.product() == Product::MySql { "SET binlog_transaction_compression = ON;" } else { "" };
    source.execute(&format!(
        "{at} {packed} XA START 'paid'; INSERT INTO mall.shops (id, name) VALUES (55, 'paid'); XA END 'paid'; XA PREPARE 'paid'; XA COMMIT 'paid'"
    ));
    source.execute(&format!(
        "{at} BEGIN; INSERT INTO mall.shops (id, name) VALUES (6, 'six'); SAVEPOINT s; DELETE FROM mall.shops WHERE id = 1; \
         ROLLBACK TO SAVEPOINT s; INSERT INTO mall.page_views VALUES ('2026-01-03', '/'); COMMIT; DROP TABLE mall.gone"
    ));
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_shop_on_mysql_comes_back_to_each_point() {
    a_shop_comes_back_to_each_point(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_shop_on_mariadb_comes_back_to_each_point() {
    a_shop_comes_back_to_each_point(Product::MariaDb);
}
