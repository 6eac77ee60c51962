//! Live: what an account may see and lock, and that it learns which grant it lacks.

use bkp::mysql::manifest::{Consistency, ObjectKind};
use bkp::policy::{MysqlSource, NonTransactional};
use bkp::run::Run;

use super::world::{self, DirSink, Notes, as_user, dump_by, dump_unheld, noted, restore, rows_of, source};
use super::{BOTH, CHUNK_BYTES, fixture};
use crate::servers::{Product, Server};
use crate::world::World;

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn an_account_without_the_privileges_learns_which_grant_to_run() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
        server.execute("CREATE USER poor@'%' IDENTIFIED BY 'x'; GRANT SELECT ON *.* TO poor@'%'");
        let address = as_user(&server, "poor", "x");
        let attempt = || dump_by(&address, &source(1), &DirSink::new(), CHUNK_BYTES, None, &Run::silent());

        let blind = attempt().unwrap_err();
        assert_eq!(blind.to_string(), "dump the server: the account lacks SHOW VIEW, TRIGGER, EVENT on all schemas");
        let grant = "run `GRANT SHOW VIEW, TRIGGER, EVENT ON *.* TO `poor`@`%`` on the server as an administrator";
        assert_eq!(blind.hint().as_deref(), Some(grant));

        server.execute("GRANT SHOW VIEW, TRIGGER, EVENT ON *.* TO poor@'%'");
        let lockless = attempt().unwrap_err();
        assert!(lockless.to_string().contains("lacks both RELOAD and LOCK TABLES"), "{lockless}");
        assert!(lockless.hint().is_some_and(|hint| hint.contains("--allow-inconsistent")));
        assert!(lockless.hint().is_some_and(|hint| hint.contains("GRANT RELOAD ON *.* TO `poor`@`%`")));

        let (run, notes) = noted();
        let unheld = dump_unheld(&address, &DirSink::new(), &run).unwrap();
        assert_eq!((unheld.consistency, unheld.rows(), unheld.position), (Consistency::Inconsistent, 1, None));
        assert!(notes.text().contains("INCONSISTENT, as allowed"), "{}", notes.text());

        // The server's answer counts, and not that one of several privileges is there.
        server.execute(match product {
            Product::MariaDb => "GRANT LOCK TABLES ON *.* TO poor@'%'",
            Product::MySql => "GRANT LOCK TABLES, BACKUP_ADMIN ON *.* TO poor@'%'",
        });
        let locked = attempt().unwrap();
        assert_eq!(locked.consistency, Consistency::TableLocks);
        assert_eq!(locked.rows(), 1);

        let stranger = as_user(&server, "poor", "wrong");
        let refused = dump_by(&stranger, &source(1), &DirSink::new(), CHUNK_BYTES, None, &Run::silent()).unwrap_err();
        assert!(refused.is_access_denied(), "{refused:?}");
    }
}

/// Returns the statements of the operator's guide that make the account, for an account of ours.
fn grants_of_the_guide(product: Product) -> String {
    let guide = include_str!("../../../README.md");
    let section = guide.split("## Rights on the source").nth(1).unwrap().split("\n## ").next().unwrap();
    let heading = if product == Product::MariaDb { "On MariaDB:" } else { "On MySQL:" };
    let block = section.split(heading).nth(1).unwrap().split("```").nth(1).unwrap().strip_prefix("sql\n").unwrap();
    let ours = block.replace("'bkp'@'10.0.30.5'", "least@'%'").replace("'…' REQUIRE SSL", "'x'");
    assert!(ours.contains("CREATE USER least@'%' IDENTIFIED BY 'x';") && ours.contains("GRANT SELECT"), "{ours}");
    ours
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_grants_of_the_guide_are_enough_for_all_that_a_server_holds() {
    for product in BOTH {
        let original = fixture(product);
        original.execute(&grants_of_the_guide(product));
        let (run, notes) = noted();
        let dir = DirSink::new();
        let address = as_user(&original, "least", "x");
        let manifest = dump_by(&address, &source(3), &dir, CHUNK_BYTES, None, &run).unwrap();
        assert_eq!(left_out(&notes), [""; 0], "{product:?}");
        assert!(manifest.position.is_some() && manifest.consistency != Consistency::TableLocks, "{product:?}");

        let restored = Server::start(product, &[]);
        restore(&restored, dir.path());
        for (schema, table) in &world::tables(&original) {
            assert!(
                rows_of(&original, schema, table) == rows_of(&restored, schema, table),
                "{product:?} {schema}.{table}"
            );
        }
        let differing: Vec<String> =
            world::objects(&original).symmetric_difference(&world::objects(&restored)).cloned().collect();
        assert_eq!(differing, [""; 0], "{product:?}");
    }
}

/// Returns the privileges that the guide's statements grant.
fn privileges_of(statements: &str) -> Vec<String> {
    let grants = statements.lines().filter_map(|line| line.strip_prefix("GRANT ")?.split(" ON ").next());
    grants.flat_map(|list| list.split(", ")).map(str::to_owned).collect()
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn each_grant_of_the_guide_is_needed_and_missed_by_its_name() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_shop(&server);
        server.execute("CREATE TABLE shop.old (a INT PRIMARY KEY) ENGINE = MyISAM");
        let statements = grants_of_the_guide(product);
        server.execute(&statements);
        let policy = MysqlSource { non_transactional: NonTransactional::Lock, ..source(1) };
        let address = as_user(&server, "least", "x");
        let told = || {
            let (run, notes) = noted();
            match dump_by(&address, &policy, &DirSink::new(), CHUNK_BYTES, None, &run) {
                Ok(_) => left_out(&notes).join("\n"),
                Err(error) => format!("{error}; {}", error.hint().unwrap()),
            }
        };
        assert_eq!(told(), "", "{product:?}");
        let privileges = privileges_of(&statements);
        assert!(privileges.len() > 7, "{privileges:?}");
        for privilege in privileges {
            server.execute(&format!("REVOKE {privilege} ON *.* FROM least@'%'"));
            assert!(told().contains(&privilege), "{product:?} without {privilege}: {:?}", told());
            server.execute(&format!("GRANT {privilege} ON *.* TO least@'%'"));
        }
    }
}

/// Returns what a dump has warned of, but for an account of the test servers themselves that nobody can log in by.
fn left_out(notes: &Notes) -> Vec<String> {
    let is_news = |line: &&str| !line.starts_with("the server does not know its own account `root@");
    notes.text().lines().filter(is_news).map(str::to_owned).collect()
}

fn make_shop(server: &Server) {
    server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    server.execute("CREATE PROCEDURE shop.fill() SELECT 1");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn an_account_that_would_not_see_the_procedures_is_refused() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_shop(&server);
        server.execute("CREATE USER half@'%' IDENTIFIED BY 'x'");
        server.execute("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON shop.* TO half@'%'");
        let address = as_user(&server, "half", "x");
        let mut policy = source(1);
        policy.schemas = vec!["shop".to_owned()];
        let attempt = || dump_by(&address, &policy, &DirSink::new(), CHUNK_BYTES, None, &Run::silent());
        let refused = attempt().unwrap_err();
        let grant = match product {
            Product::MariaDb => "GRANT SELECT ON `mysql`.* TO `half`@`%`",
            Product::MySql => "GRANT SHOW_ROUTINE ON *.* TO `half`@`%`",
        };
        assert!(refused.to_string().ends_with("on routines"), "{refused}");
        assert!(refused.hint().is_some_and(|hint| hint.contains(grant)), "{:?}", refused.hint());
        server.execute(grant);
        let manifest = attempt().unwrap();
        assert!(manifest.objects.iter().any(|object| object.kind == ObjectKind::Procedure), "{product:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn privileges_that_come_by_a_role_count() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_shop(&server);
        server.execute("CREATE ROLE dumping; CREATE USER by_role@'%' IDENTIFIED BY 'x'; GRANT dumping TO by_role@'%'");
        server.execute("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS ON *.* TO dumping");
        // MySQL's sessions begin without a role that is no default; MariaDB's have one, the default.
        server.execute(match product {
            Product::MariaDb => "GRANT BINLOG MONITOR ON *.* TO dumping; SET DEFAULT ROLE dumping FOR by_role@'%'",
            Product::MySql => "GRANT BACKUP_ADMIN, REPLICATION CLIENT ON *.* TO dumping",
        });
        let (run, notes) = noted();
        let address = as_user(&server, "by_role", "x");
        let manifest = dump_by(&address, &source(1), &DirSink::new(), CHUNK_BYTES, None, &run).unwrap();
        assert_eq!(left_out(&notes), [""; 0], "{product:?}");
        assert!(manifest.objects.iter().any(|object| object.kind == ObjectKind::Procedure), "{product:?}");
        assert!(manifest.position.is_some(), "{product:?}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_no_dump_holds_is_said() {
    for product in BOTH {
        let server = Server::start(product, &[]);
        make_shop(&server);
        server.execute(
            "CREATE TABLE shop.base (a INT); CREATE VIEW shop.broken AS SELECT a FROM shop.base; DROP TABLE shop.base",
        );
        server.execute("CREATE SERVER afar FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'h')");
        server.execute("CREATE TABLE shop.merged (a INT NOT NULL) ENGINE = MRG_MYISAM");
        server.execute("CREATE USER app@'%'; CREATE TABLE shop.gone (a INT); GRANT SELECT ON shop.gone TO app@'%'");
        server.execute("GRANT SELECT ON mysql.user TO app@'%'; DROP TABLE shop.gone");
        if product == Product::MariaDb {
            server.execute(
                "CREATE TABLE shop.by_transactions (a INT PRIMARY KEY, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, \
                 e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
            );
        }
        let (run, notes) = noted();
        let dir = DirSink::new();
        let manifest = dump_by(&as_user(&server, "bkp", "bkp"), &source(1), &dir, CHUNK_BYTES, None, &run).unwrap();
        let said = notes.text();
        let mut wanted = vec![
            "the view `shop.broken` is broken on the server",
            "servers (CREATE SERVER): afar",
            "`shop.merged` keeps its rows elsewhere",
            "`app@%` holds a grant on `shop.gone`, which is not in the dump",
        ];
        if product == Product::MariaDb {
            wanted.push("`shop.by_transactions` is versioned by transactions");
            let table = manifest.tables.iter().find(|table| table.name == "by_transactions").unwrap();
            assert!(table.history_lost);
        }
        for wanted in wanted {
            assert!(said.contains(wanted), "{product:?}: {wanted} in\n{said}");
        }
        let grants = std::fs::read_to_string(dir.path().join("@grants/app%40%25.sql")).unwrap();
        assert!(grants.contains("`mysql`.`user`") && !grants.contains("gone"), "{product:?}: {grants}");
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_dump_without_any_lock_is_made_when_asked_for_and_marked() {
    let world = World::ready(Product::MariaDb);
    world.source.execute("REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'dumper'@'%'");
    world.source.execute("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO 'dumper'@'%'");
    let refused = world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(1);
    assert!(refused.err.contains("--allow-inconsistent"), "{}{}", refused.out, refused.err);
    let made = world.bkp(&["backup", "mall", "--source", "db1", "--no-copy", "--allow-inconsistent"]).expect(0);
    assert!(made.err.contains("INCONSISTENT, as allowed"), "{}", made.err);
    let marked = world.restic(&["snapshots", "--tag", "inconsistent=true", "--json"]).expect(0).json();
    assert_eq!(marked.as_array().unwrap().len(), 1);
}
