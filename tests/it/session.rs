//! Binlogs are replayed in one session of the restoring account, where the target may not follow bkp.

use std::collections::BTreeMap;
use std::process::Command;

use crate::replay::{empty, is_tidy, state};
use crate::servers::{Product, Server};
use crate::world::{Ended, World};

/// Returns every row of every table and view, in an order of its own.
fn rows(server: &Server) -> BTreeMap<String, Vec<Vec<Option<String>>>> {
    let tables = server.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'mall'");
    let of = |table: String| {
        let mut rows = server.query(&format!("SELECT * FROM mall.`{table}`"));
        rows.sort();
        (table, rows)
    };
    tables.into_iter().map(|row| of(row[0].clone().unwrap())).collect()
}

/// A world whose binlogs are captured and whose dump is taken.
fn dumped(product: Product) -> World {
    let world = World::ready(product);
    world.write_policy("\n[mysql.db1.binlog]\ncapture = true\n");
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    world
}

fn by_statement(product: Product) -> &'static str {
    if product == Product::MySql { "SET binlog_format = STATEMENT;" } else { "SET binlog_format = 'STATEMENT';" }
}

/// What the binlog has as a statement, in sessions of every kind.
fn statements(world: &World, product: Product) {
    let source = &world.source;
    let by = by_statement(product);
    source.execute(
        "CREATE TABLE mall.notes (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(300), b VARCHAR(300) CHARACTER SET utf8mb4, \
         n DOUBLE, d DECIMAL(40,12), at TIMESTAMP(6) NULL, day VARCHAR(40), u BIGINT UNSIGNED) ENGINE = InnoDB",
    );
    for sql in [
        "SET TIMESTAMP = 1234567890.123456, time_zone = '+05:30'; INSERT INTO mall.notes (a, at) VALUES (NOW(6), NOW(6))",
        "SET time_zone = '-03:00'; INSERT INTO mall.notes (a, at) VALUES ('zone', '2026-01-02 03:04:05.000006')",
        "SET lc_time_names = 'de_DE'; INSERT INTO mall.notes (day) VALUES (DATE_FORMAT('2026-03-01', '%M %W'))",
        "SET @s = 'it''s \\\\ 한글', @r = 0.1e0, @i = -7, @d = 12345678901234567890.123456789, @n = NULL, @`odd ``x` = _latin1 X'E9'; \
         INSERT INTO mall.notes (a, n, d, b) VALUES (@s, @r, @d, @`odd ``x`), (@n, @i, NULL, CONCAT(@s, @i))",
        "INSERT INTO mall.notes (n, a) VALUES (RAND(), 'random'), (RAND(7), 'seeded')",
        "INSERT INTO mall.notes (a) VALUES ('first'); INSERT INTO mall.notes (u, a) VALUES (LAST_INSERT_ID(), 'last')",
        "SET auto_increment_increment = 5, auto_increment_offset = 3; INSERT INTO mall.notes (a) VALUES ('by five'), ('by five')",
        "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'; INSERT INTO mall.notes (\"a\") VALUES ('back\\slash' || 'x')",
        "SET sql_mode = ''; INSERT INTO mall.notes (u, a) VALUES (-5, REPEAT('cut', 200))",
        "SET NAMES latin1; INSERT INTO mall.notes (a, b) VALUES (CHAR(233 USING latin1), _latin1 X'E9')",
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin; INSERT INTO mall.notes (a) SELECT 'bin' FROM DUAL WHERE 'a' <> 'A'",
        "SET foreign_key_checks = 0, unique_checks = 0; INSERT INTO mall.child VALUES (1, 999)",
        "BEGIN; INSERT INTO mall.notes (a) VALUES ('kept'); SAVEPOINT `s p`; INSERT INTO mall.notes (a) VALUES ('gone'); \
         ROLLBACK TO SAVEPOINT `s p`; UPDATE mall.notes SET u = 1 WHERE a = 'kept'; COMMIT",
        "USE mall; INSERT INTO notes (a) SELECT name FROM shops ORDER BY id LIMIT 3; DELETE FROM notes WHERE a LIKE 'by%' ORDER BY id LIMIT 1",
    ] {
        source.execute(&format!("{by} {sql}"));
    }
    // The client's bytes are of another character set: the second of a letter may be a backslash.
    let bytes = [by.as_bytes(), b" SET NAMES sjis; INSERT INTO mall.notes (b) VALUES ('\x83\x5c')"].concat();
    crate::servers::block_on(async {
        use mysql_async::prelude::Queryable as _;
        source.connect().await.query_iter(bytes).await.unwrap().drop_result().await.unwrap();
    });
    if product == Product::MariaDb {
        source.execute(
            "SET binlog_format = 'MIXED'; USE mall; CREATE TEMPORARY TABLE passing (a INT); INSERT INTO passing VALUES (1), (2); \
             INSERT INTO notes (u) SELECT a FROM passing; INSERT INTO notes (a) SELECT UUID() FROM passing; DROP TEMPORARY TABLE passing",
        );
        source.execute(
            "SET check_constraint_checks = 0, binlog_format = 'STATEMENT'; INSERT INTO mall.checked VALUES (-1)",
        );
    }
}

/// Definitions, and rows of every kind.
fn work(world: &World, product: Product) {
    let source = &world.source;
    source.execute(
        "CREATE TABLE mall.parent (id INT PRIMARY KEY) ENGINE = InnoDB; CREATE TABLE mall.child (id INT PRIMARY KEY, parent INT, \
         FOREIGN KEY (parent) REFERENCES mall.parent (id) ON DELETE CASCADE) ENGINE = InnoDB; \
         CREATE TABLE mall.checked (a INT, CHECK (a > 0)) ENGINE = InnoDB; \
         CREATE TABLE mall.large (id INT PRIMARY KEY AUTO_INCREMENT, bytes LONGBLOB, j JSON) ENGINE = InnoDB; CREATE TABLE mall.log (what VARCHAR(90)); \
         CREATE TRIGGER mall.noted AFTER INSERT ON mall.parent FOR EACH ROW INSERT INTO mall.log VALUES (CONCAT('parent ', NEW.id))",
    );
    source.execute("INSERT INTO mall.parent VALUES (1), (2), (3); INSERT INTO mall.child VALUES (10, 1), (20, 2); DELETE FROM mall.parent WHERE id = 2");
    if product == Product::MariaDb {
        source.execute("CREATE TABLE mall.loose (a INT) ENGINE = MyISAM; INSERT INTO mall.loose VALUES (1), (2); UPDATE mall.loose SET a = a + 1");
    }
    // Many events of one statement, and one that is larger than what is sent at once.
    source
        .execute("INSERT INTO mall.orders SELECT shop_id + 100, id, total, REPEAT(note, 30), placed FROM mall.orders");
    source.execute("UPDATE mall.orders SET note = CONCAT(note, '.') WHERE shop_id > 100");
    source.execute("INSERT INTO mall.large (bytes, j) VALUES (REPEAT(X'00FF27', 3000000), '{\"n\": 1, \"text\": \"0123456789\"}'), (NULL, '{}')");
    match product {
        Product::MySql => {
            source.execute("SET binlog_row_value_options = PARTIAL_JSON, binlog_row_image = MINIMAL; UPDATE mall.large SET j = JSON_SET(j, '$.n', 2) WHERE id = 1");
            source.execute("SET binlog_transaction_compression = ON; BEGIN; UPDATE mall.shops SET name = REPEAT('x', 80); INSERT INTO mall.parent VALUES (7); COMMIT");
            source.execute("SET binlog_rows_query_log_events = ON; INSERT INTO mall.parent VALUES (8)");
        }
        Product::MariaDb => {
            source.execute("SET GLOBAL log_bin_compress = 1, GLOBAL log_bin_compress_min_len = 10");
            source.execute("UPDATE mall.shops SET name = REPEAT('x', 80); INSERT INTO mall.parent VALUES (7), (8)");
            source.execute("ALTER TABLE mall.shops COMMENT 'a text that is long enough to be compressed, and that repeats repeats repeats'");
            source
                .execute("SET GLOBAL log_bin_compress = 0; CREATE SEQUENCE mall.numbers; SELECT NEXTVAL(mall.numbers)");
        }
    }
    source.execute("CREATE TABLE mall.copied (PRIMARY KEY (id)) AS SELECT id, name FROM mall.shops; RENAME TABLE mall.copied TO mall.moved; TRUNCATE mall.log");
    source.execute("CREATE DATABASE `가게`; USE `가게`; CREATE TABLE t (id INT); INSERT INTO t VALUES (1); DROP TABLE IF EXISTS nowhere");
    source.execute(&format!(
        "{} USE `가게`; INSERT INTO t VALUES (2); USE mall; DROP DATABASE `가게`",
        by_statement(product)
    ));
    source.execute("CREATE PROCEDURE mall.p() BEGIN INSERT INTO mall.log VALUES ('p'); INSERT INTO mall.log VALUES ('q'); END; CALL mall.p()");
    source.execute("CREATE USER later@localhost IDENTIFIED BY 'pw'; GRANT SELECT ON mall.* TO later@localhost");
    source.execute("XA START 'one'; INSERT INTO mall.parent VALUES (9); XA END 'one'; XA COMMIT 'one' ONE PHASE; FLUSH BINARY LOGS");
    statements(world, product);
}

fn assert_same(world: &World, target: &Server, told: &str) {
    let (found, wanted) = (rows(target), rows(&world.source));
    for (table, wanted) in &wanted {
        assert_eq!(found.get(table), Some(wanted), "{told}: {table}");
    }
    assert_eq!(found.len(), wanted.len(), "{told}");
    assert_eq!(state(target), state(&world.source), "{told}");
    assert!(is_tidy(target), "{told}");
}

fn a_shop_comes_back_by_one_session(product: Product) {
    let world = dumped(product);
    work(&world, product);
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    let target = Server::start(product, &[]);
    let restore = |more: &[&str]| {
        let args = ["--source", "db1", "--yes", "--point-in-time", "latest", "--json"];
        world.restore_into(&target, &[&args, more].concat())
    };
    let before = target.query("SELECT @@GLOBAL.server_id, @@GLOBAL.event_scheduler");
    let restored = restore(&["--replay-by", "session"]).expect(0).json();
    let plan = &restored["plan"]["databases"][0]["replay"];
    assert_eq!(
        (&plan["by"], &plan["by_why"]),
        (&"session".into(), &"`--replay-by session` says so".into()),
        "{restored}"
    );
    assert_same(&world, &target, "latest");
    assert_eq!(target.query("SELECT @@GLOBAL.server_id, @@GLOBAL.event_scheduler"), before);
    assert_eq!(target.value("SELECT COUNT(*) FROM mysql.user WHERE user = 'later'"), "1");
    if product == Product::MySql {
        let executed = "SELECT GTID_SUBTRACT(@@GLOBAL.gtid_executed, CONCAT(@@GLOBAL.server_uuid, ':1-1000000'))";
        assert_eq!(target.value(executed), world.source.value("SELECT @@GLOBAL.gtid_executed"));
    }

    // On from there, in either way: both know where the other has left it.
    world.source.execute("INSERT INTO mall.parent VALUES (70); ALTER TABLE mall.parent ADD COLUMN more INT DEFAULT 5; UPDATE mall.parent SET more = id");
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    restore(&["--go-further", "--replay-by", "session"]).expect(0);
    assert_same(&world, &target, "further");
    world.source.execute("INSERT INTO mall.parent VALUES (71, 1)");
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    restore(&["--go-further", "--replay-by", "replica"]).expect(0);
    assert_same(&world, &target, "further by replication");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_shop_on_mysql_comes_back_by_one_session() {
    a_shop_comes_back_by_one_session(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_shop_on_mariadb_comes_back_by_one_session() {
    a_shop_comes_back_by_one_session(Product::MariaDb);
}

/// Counts the sessions that are in the statement which takes a while.
const PAUSED: &str = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT INTO mall.pause%' AND id <> CONNECTION_ID()";

/// Killed within a transaction, it goes on from the one before; the other way is refused meanwhile.
fn killed_in_the_middle_it_goes_on(product: Product) {
    let world = dumped(product);
    let source = &world.source;
    source.execute("CREATE TABLE mall.pause (id INT PRIMARY KEY AUTO_INCREMENT, slept INT) ENGINE = InnoDB");
    let keyless = "INSERT INTO mall.page_views VALUES ('2026-02-01', '/kill')";
    source.execute(&format!("{keyless}; {keyless}"));
    // On the target alone this takes a while.
    let pause = format!("INSERT INTO mall.pause (slept) SELECT SLEEP(IF(@@port = {}, 0, 3))", source.port());
    source.execute(&format!("{} BEGIN; {keyless}; {pause}; {keyless}; COMMIT", by_statement(product)));
    source.execute(&format!("{keyless}; ALTER TABLE mall.pause ADD COLUMN more INT; {keyless}"));
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    let mut target = Server::start(product, &[]);
    let killed = |target: &Server, server: &dyn Fn()| {
        let args = ["--source", "db1", "--yes", "--point-in-time", "latest", "--replay-by", "session"];
        let mut killed = world.restore_command(target, &args).spawn().unwrap();
        while target.value(PAUSED) == "0" {
            assert!(killed.try_wait().unwrap().is_none(), "the restore was over before it could be killed");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        server();
        killed.kill().unwrap();
        killed.wait().unwrap();
    };
    killed(&target, &|| ());
    // Its statement goes on without it, and holds the lock.
    while target.value(PAUSED) != "0" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let there = target.value("SELECT COUNT(*) FROM mall.page_views WHERE url = '/kill'");
    assert_eq!(there, "2", "it was within the third transaction");
    assert!(!is_tidy(&target));
    let resume = |target: &Server, by: &str| -> Ended {
        world.restore_into(target, &["--source", "db1", "--yes", "--point-in-time", "latest", "--replay-by", by])
    };
    let other = resume(&target, "replica").expect(2);
    assert!(other.err.contains("`--replay-by session`"), "{other:?}");
    let resumed = resume(&target, "auto").expect(0);
    assert!(resumed.err.contains("loaded already") && resumed.err.contains("so it was begun"), "{resumed:?}");
    assert_same(&world, &target, "killed");

    // So it does where the server dies.
    empty(&target);
    killed(&target, &|| {
        let pid = rustix::process::Pid::from_raw(target.pid().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    });
    target.kill();
    target.start_again();
    let there = target.value("SELECT COUNT(*) FROM mall.page_views WHERE url = '/kill'");
    assert_eq!(there, "2");
    resume(&target, "session").expect(0);
    assert_same(&world, &target, "crashed");

    // A definition of which nobody knows whether it took effect is not tried again, nor left out.
    if product == Product::MariaDb {
        in_doubt(&world, &target, &resume);
    }
}

/// A target that was stopped at a definition, and has forgotten it.
fn in_doubt(world: &World, target: &Server, resume: &dyn Fn(&Server, &str) -> Ended) {
    empty(target);
    // It fails within the definition, behind its note.
    target.execute("CREATE DATABASE mall");
    target.execute("DROP DATABASE mall");
    world.source.execute("CREATE TABLE mall.doubtful (id INT)");
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    let args = ["--source", "db1", "--yes", "--point-in-time", "latest", "--replay-by", "session"];
    let mut command = world.restore_command(target, &args);
    let mut child = command.spawn().unwrap();
    let asked = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'mall' AND table_name = 'pause'";
    while target.value(asked) == "0" {
        assert!(child.try_wait().unwrap().is_none());
    }
    // What comes at the end is there already.
    target.execute("CREATE TABLE mall.doubtful (other INT)");
    assert!(!child.wait().unwrap().success());
    let told = resume(target, "session").expect(1);
    assert!(told.err.contains("doubtful") && told.err.contains("1050"), "{told:?}");
    // Its binlog does not tell any more once another process has it.
    target.execute("UPDATE bkp_restore.bkp_replay SET record = JSON_SET(record, '$.started', 7)");
    let told = resume(target, "session").expect(2);
    assert!(told.err.contains("whether it took effect") && told.err.contains("`doing` = NULL"), "{told:?}");
    target.execute("DROP TABLE mall.doubtful; UPDATE bkp_restore.bkp_session SET `doing` = NULL");
    resume(target, "session").expect(0);
    assert_same(world, target, "in doubt");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn killed_in_the_middle_of_a_session_on_mysql_it_goes_on() {
    killed_in_the_middle_it_goes_on(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn killed_in_the_middle_of_a_session_on_mariadb_it_goes_on() {
    killed_in_the_middle_it_goes_on(Product::MariaDb);
}

/// Returns the rights that the operator's guide gives to an account that replays in one session.
fn rights(product: Product) -> String {
    let guide = include_str!("../../README.md").split_once("The account on the target needs").unwrap().1;
    let mark = if product == Product::MySql { "-- MySQL, in one session" } else { "-- MariaDB, in one session" };
    let line = guide.lines().find(|line| line.ends_with(mark)).unwrap();
    line.split_once(" TO ").unwrap().0.to_owned()
}

/// An account that may load and no more, and its command.
fn keeper(world: &World, target: &Server, more: &[&str]) -> Command {
    let url = format!("mysql://keeper@127.0.0.1:{}", target.port());
    let password = world.path("keeper.pw").display().to_string();
    std::fs::write(world.path("keeper.pw"), "keeper-pw\n").unwrap();
    std::fs::set_permissions(world.path("keeper.pw"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let args =
        ["restore", "mall", "--source", "db1", "--no-users", "--to-mysql", &url, "--to-mysql-password-file", &password];
    world.command(&[&args, more].concat())
}

/// `auto` takes the session where rights are missing for a replica, and names what is missing for that.
fn who_may_not_follow_replays_in_a_session(product: Product) {
    let world = dumped(product);
    world.source.execute("CREATE TABLE mall.more (id INT PRIMARY KEY); INSERT INTO mall.more VALUES (1)");
    world
        .source
        .execute(&format!("{} SET TIMESTAMP = 1000000000; INSERT INTO mall.more VALUES (2)", by_statement(product)));
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    let target = Server::start(product, &[]);
    // The mall's view is root's, and needs this of whoever brings it.
    let definer = match product {
        Product::MySql => "SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER, SYSTEM_USER",
        Product::MariaDb => "SET USER",
    };
    target.execute(&format!(
        "SET sql_log_bin = 0; CREATE USER keeper@'%' IDENTIFIED BY 'keeper-pw'; GRANT ALL ON mall.* TO keeper@'%'; GRANT ALL ON bkp_restore.* TO \
         keeper@'%'; GRANT {definer} ON *.* TO keeper@'%'"
    ));
    let restore = |more: &[&str]| -> Ended {
        keeper(&world, &target, &[&["--yes", "--point-in-time", "latest"], more].concat()).output().unwrap().into()
    };
    let told = restore(&[]).expect(2);
    assert!(told.err.contains("replay binlogs in one session") && told.err.contains(&rights(product)), "{told:?}");
    let told = restore(&["--replay-by", "replica"]).expect(1);
    assert!(told.err.contains("REPLICATION"), "{told:?}");
    let schemas = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('mall', 'bkp_restore')";
    assert_eq!(target.value(schemas), "0", "nothing was loaded");

    target.execute(&format!("SET sql_log_bin = 0; {} TO keeper@'%'", rights(product)));
    let restored = restore(&[]).expect(0);
    assert!(restored.err.contains("by one session, slower than as a replica: the account may not"), "{restored:?}");
    assert_eq!(rows(&target), rows(&world.source));
    world.source.execute("INSERT INTO mall.more VALUES (3)");
    world.bkp(&["binlog", "capture", "mall"]).expect(0);
    restore(&["--go-further"]).expect(0);
    assert_eq!(rows(&target), rows(&world.source));
    let kept = target.value("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'bkp_restore'");
    assert_eq!(kept, if product == Product::MySql { "0" } else { "1" }, "a MariaDB keeps where it stands");

    // What keeps a target from both ways is no reason to take the other.
    if product == Product::MySql {
        let told = restore(&["--replay-by", "auto"]).expect(2);
        assert!(told.err.contains("not empty"), "{told:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn who_may_not_make_a_mysql_follow_replays_in_a_session() {
    who_may_not_follow_replays_in_a_session(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn who_may_not_make_a_mariadb_follow_replays_in_a_session() {
    who_may_not_follow_replays_in_a_session(Product::MariaDb);
}

/// What no session can bring is refused before anything is loaded, and brought by replication.
fn what_no_session_can_bring_is_refused_in_the_plan(product: Product) {
    let world = dumped(product);
    let source = &world.source;
    let target = Server::start(product, &["--max-allowed-packet=4M"]);
    let file = world.path("lines.txt");
    std::fs::write(&file, "61\tloaded\n").unwrap();
    let (client, arguments) = source.client();
    let load = || {
        let sql =
            format!("{} LOAD DATA LOCAL INFILE '{}' INTO TABLE mall.shops", by_statement(product), file.display());
        let loaded = Command::new(&client).args(&arguments).args(["--local-infile=1", "-e", &sql]).status().unwrap();
        assert!(loaded.success());
    };
    let refused = |work: &dyn Fn(), why: &str| {
        work();
        world.bkp(&["binlog", "capture", "mall"]).expect(0);
        let args = ["--source", "db1", "--yes", "--point-in-time", "latest", "--replay-by", "session"];
        let told = world.restore_into(&target, &args).expect(2);
        assert!(told.err.contains(why) && told.err.contains("binlog.0"), "{told:?}");
        let there = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('mall', 'bkp_restore')";
        assert_eq!(target.value(there), "0", "{why}");
        // From here on it is in the dump.
        world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    };
    let large = "INSERT INTO mall.shops VALUES (60, 'large'); ALTER TABLE mall.shops ADD COLUMN b LONGBLOB; \
                 UPDATE mall.shops SET b = REPEAT('x', 3500000) WHERE id = 60";
    refused(&|| source.execute(large), "max_allowed_packet");
    source.execute("ALTER TABLE mall.shops DROP COLUMN b");
    refused(&load, "LOAD DATA");
    // MariaDB takes those that one BINLOG brings.
    let loose = "CREATE TABLE mall.loose (a INT, b VARCHAR(9000)) ENGINE = MyISAM; \
                 INSERT INTO mall.loose SELECT id, REPEAT('x', 8000) FROM mall.orders LIMIT 300; DROP TABLE mall.loose";
    refused(&|| source.execute(loose), "tables without transactions");
    let xa = "XA START 'x'; INSERT INTO mall.shops VALUES (62, 'xa'); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'";
    refused(&|| source.execute(xa), "XA transaction");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_no_session_can_bring_to_a_mysql_is_refused_in_the_plan() {
    what_no_session_can_bring_is_refused_in_the_plan(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_no_session_can_bring_to_a_mariadb_is_refused_in_the_plan() {
    what_no_session_can_bring_is_refused_in_the_plan(Product::MariaDb);
}
