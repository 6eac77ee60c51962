//! What an operator does, with the real program on real servers.

use std::collections::BTreeSet;
use std::fs;
use std::process::Child;

use crate::servers::{Product, Server, program};
use crate::world::{DATABASE_PASSWORD, Ended, REPOSITORY_PASSWORD, World, files, rows};

/// Backs up twice, loses everything, and gets it back.
fn a_disaster_and_the_way_back(product: Product) {
    let world = World::ready(product);
    if product == Product::MySql {
        // On Debian `mysqld` is MariaDB's, and no drill can be until the policy names another.
        let doctor = world.bkp(&["doctor", "mall"]).expect(1);
        assert!(doctor.out.contains("BAD     drill: a server for db1 can be started"), "{}", doctor.out);
        world.write_policy(&format!("sandbox = {{ mysqld = \"{}\" }}", program("MYSQLD").display()));
    }
    world.bkp(&["doctor", "mall"]).expect(0);
    world.bkp(&["backup", "mall"]).expect(0);
    let status = world.bkp(&["status", "--json"]).expect(0).json();
    assert_eq!(status["policies"][0]["copies"][0]["behind"], 0, "{status}");
    world.settle();

    world.order(3, 300, 25);
    world.add_image(2, 77);
    let second = world.bkp(&["backup", "mall", "--json"]).expect(0).json();
    let snapshots = &second["steps"][0]["result"]["snapshots"];
    assert_eq!(snapshots[1]["source"], "images");
    assert_eq!(snapshots[1]["items_changed"], 1, "an unchanged image was read again: {snapshots}");

    let (rows_before, files_before) = (rows(&world.source), files(&world.images()));
    world.source.execute("DROP DATABASE mall");
    fs::remove_dir_all(world.images()).unwrap();

    let target = Server::start(product, &[]);
    let url = format!("mysql://root@localhost?socket={}", target.socket().display());
    let dir = world.path("restored");
    let dir_text = dir.display().to_string();
    let plan = world.bkp(&["restore", "mall", "--to-mysql", &url, "--to-dir", &dir_text, "--dry-run"]).expect(0);
    assert!(plan.out.contains("recovery point"), "{}", plan.out);
    assert!(!dir.exists(), "a dry run wrote files");
    world.bkp(&["restore", "mall", "--to-mysql", &url, "--to-dir", &dir_text, "--yes", "--verify"]).expect(0);

    assert_eq!(rows(&target), rows_before);
    assert_eq!(files(&dir), files_before);
    let view = target.value("SELECT COUNT(*) FROM mall.turnover");
    assert_eq!(view, "5");

    // What is there already is not written over without saying so.
    let again = world.bkp(&["restore", "mall", "--to-mysql", &url, "--source", "db1", "--yes"]).expect(2);
    assert!(again.err.contains("not empty"), "{}", again.err);
    world.restic(&["check", "--read-data"]).expect(0);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_was_lost_comes_back_row_by_row_and_file_by_file_on_mariadb() {
    a_disaster_and_the_way_back(Product::MariaDb);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn what_was_lost_comes_back_row_by_row_and_file_by_file_on_mysql() {
    a_disaster_and_the_way_back(Product::MySql);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_source_is_known_by_another_address_too_and_is_not_written_over() {
    for product in [Product::MariaDb, Product::MySql] {
        let world = World::ready(product);
        world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
        let before = rows(&world.source);
        // The policy names a port, the operator the socket.
        let refused = world.restore_into(&world.source, &["--overwrite", "--yes"]).expect(2);
        assert!(refused.err.contains("is the source itself"), "{refused:?}");
        // A source that lets the policy's account in no more is MySQL's to name all the same.
        if product == Product::MySql {
            world.source.execute("ALTER USER 'dumper'@'%' ACCOUNT LOCK");
            let refused = world.restore_into(&world.source, &["--overwrite", "--yes"]).expect(2);
            assert!(refused.err.contains("is the source itself"), "{refused:?}");
        }
        assert_eq!(rows(&world.source), before);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let consent = ["--overwrite", "--yes", "--in-place", "--confirm-host", &host];
        world.source.execute("DELETE FROM mall.orders WHERE shop_id = 1");
        world.restore_into(&world.source, &consent).expect(0);
        assert_eq!(rows(&world.source), before);
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_table_that_the_target_does_not_take_is_exit_3_and_all_else_is_there() {
    let world = World::ready(Product::MariaDb);
    let before = rows(&world.source);
    world.source.execute("CREATE TABLE mall.words (id INT PRIMARY KEY, w VARCHAR(9), CHECK (SFORMAT('{}', w) <> 'b'))");
    world.source.execute("INSERT INTO mall.words VALUES (1, 'a')");
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    // MySQL does not know the function, which no plan looks at.
    let target = Server::start(Product::MySql, &[]);
    let ended = world.restore_into(&target, &["--yes", "--verify"]).expect(3);
    assert!(ended.out.contains("not restored: table `mall`.`words`"), "{ended:?}");
    assert_eq!(rows(&target), before);
    assert_eq!(target.value("SELECT COUNT(*) FROM mall.turnover"), "5");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_restore_stays_out_of_the_targets_binlog_on_request() {
    let world = World::ready(Product::MySql);
    world.bkp(&["backup", "mall", "--source", "db1", "--no-copy"]).expect(0);
    let written = |more: &[&str]| {
        let target = Server::start(Product::MySql, &[]);
        let executed = || target.value("SELECT @@gtid_executed");
        let before = executed();
        world.restore_into(&target, more).expect(0);
        assert_eq!(target.value("SELECT COUNT(*) FROM mall.orders"), "1500");
        executed() != before
    };
    assert!(written(&["--yes"]));
    assert!(!written(&["--yes", "--no-binlog"]));
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn the_copy_alone_brings_everything_back() {
    let world = World::ready(Product::MariaDb);
    world.bkp(&["backup", "mall"]).expect(0);
    let (rows_before, files_before) = (rows(&world.source), files(&world.images()));
    fs::remove_dir_all(world.path("repository")).unwrap();
    fs::remove_dir_all(world.path("state")).unwrap();

    let target = Server::start(Product::MariaDb, &[]);
    let url = format!("mysql://root@localhost?socket={}", target.socket().display());
    let dir = world.path("restored");
    let args = ["restore", "mall", "--from", "offsite", "--to-mysql", &url, "--to-dir", dir.to_str().unwrap(), "--yes"];
    world.bkp(&args).expect(0);
    assert_eq!(rows(&target), rows_before);
    assert_eq!(files(&dir), files_before);

    // A part of a tree is compared too, and a verdict is only on what was restored.
    let part = world.path("part");
    let args = ["restore", "mall", "--from", "offsite", "--source", "images", "--paths", "shop0001", "--to-dir"];
    let answer = world.bkp(&[&args[..], &[part.to_str().unwrap(), "--yes", "--verify", "--json"]].concat()).expect(0);
    assert_eq!(answer.json()["verified"], true);
    let restored: Vec<_> = files(&part).into_keys().collect();
    let chosen = files_before.into_keys().filter(|path| path.starts_with("shop0001")).collect::<Vec<_>>();
    assert!(!chosen.is_empty());
    assert_eq!(restored, chosen);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_drill_measures_the_recovery_and_runs_the_policys_checks_on_mariadb() {
    a_drill_and_one_that_fails(Product::MariaDb);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_drill_measures_the_recovery_and_runs_the_policys_checks_on_mysql() {
    a_drill_and_one_that_fails(Product::MySql);
}

fn a_drill_and_one_that_fails(product: Product) {
    let world = World::ready(product);
    // On Debian `mysqld` is MariaDB's, so the policy names the programs.
    let (mariadbd, mysqld) = (program("MARIADBD"), program("MYSQLD"));
    let programs = format!("sandbox = {{ mariadbd = \"{}\", mysqld = \"{}\" }}", mariadbd.display(), mysqld.display());
    world.write_policy(&format!("{programs}\n[restore]\nfirst = [\"mall.shops\", \"mall.orders\"]\n"));
    world.bkp(&["backup", "mall"]).expect(0);
    let drill = world.bkp(&["drill", "mall", "--json"]).expect(0).json();
    let outcome = &drill["steps"][0]["result"]["outcome"];
    let server = &outcome["place"]["sandboxes"][0];
    let version = world.source.value("SELECT VERSION()");
    assert!(version.starts_with(server["version"].as_str().unwrap()), "{version}: {server}");
    assert!(outcome["rta_ms"].as_u64().unwrap() > 0);
    let first = &outcome["first_order"];
    assert_eq!(first["tables"], serde_json::json!(["mall.shops", "mall.orders"]));
    let ms = |value: &serde_json::Value| value.as_u64().unwrap();
    let load = outcome["phases"].as_array().unwrap().iter().find(|phase| phase["name"] == "load").unwrap();
    assert!(ms(&first["ms"]) > ms(&load["start_ms"]) && ms(&first["ms"]) < ms(&outcome["rta_ms"]), "{outcome}");
    assert_eq!(outcome["verdict"]["rto"], "met");
    assert_eq!(outcome["verdict"]["checks"], "passed");
    for file in ["html", "json", "markdown"] {
        let path = drill["steps"][0]["result"]["files"][file].as_str().unwrap();
        let words = if file == "json" { "first_order" } else { "time to first order (mall.shops, mall.orders)" };
        assert!(fs::read_to_string(path).unwrap().contains(words), "{path}");
    }

    // A row that names an image which no snapshot holds: the drill says so, with its own code.
    world.source.execute("INSERT INTO mall.product_images VALUES (9, 9, 'shop0009/gone.jpg')");
    world.bkp(&["backup", "mall"]).expect(0);
    let failed = world.bkp(&["drill", "mall"]).expect(16);
    assert!(failed.out.contains("shop0009/gone.jpg"), "{}", failed.out);
    let status = world.bkp(&["status"]);
    assert_ne!(status.code, Some(0), "{}", status.out);
    assert!(status.out.contains("time to first order"), "{}", status.out);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn an_objective_that_the_drill_misses_is_exit_14() {
    let world = World::ready(Product::MariaDb);
    world.bkp(&["backup", "mall"]).expect(0);
    let policy = fs::read_to_string(world.path("policies/mall.toml")).unwrap();
    let tight = policy
        .replace("rto = \"1h\"", "rto = \"1s\"")
        .replace("min = 1 }", "min = 1 }, { sql = \"SELECT SLEEP(2)\", equals = \"0\" }");
    assert_ne!(policy, tight);
    // The sleeping check must be the first that is green.
    let tight = tight.replace("{ sql = \"SELECT COUNT(*) FROM mall.orders\", min = 1 }, ", "");
    fs::write(world.path("policies/mall.toml"), tight).unwrap();
    let drill = world.bkp(&["drill", "mall", "--json"]).expect(14).json();
    assert_eq!(drill["steps"][0]["result"]["outcome"]["verdict"]["rto"], "breached");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_guard_that_trips_means_no_snapshot_and_no_forgetting() {
    let world = World::ready(Product::MariaDb);
    for _ in 0..3 {
        world.bkp(&["backup", "mall", "--source", "images", "--no-copy"]).expect(0);
    }
    let count = |world: &World| {
        world.bkp(&["snapshots", "mall", "--json"]).expect(0).json()["snapshots"].as_array().unwrap().len()
    };
    let before = count(&world);
    fs::remove_file(world.images().join(".bkp-ok")).unwrap();
    let tripped = world.bkp(&["backup", "mall", "--source", "images", "--no-copy"]).expect(15);
    assert!(tripped.err.contains("sentinel") || tripped.out.contains("sentinel"), "{tripped:?}");
    assert_eq!(count(&world), before);
    let plan = world.bkp(&["forget", "mall", "--dry-run"]).expect(0);
    assert!(plan.out.contains("retention rests"), "{}", plan.out);
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn no_secret_is_in_any_output_file_or_process_list() {
    // What a process was started with, arguments and environment, is what others may see of it.
    let world = World::ready(Product::MariaDb);
    let mut said = String::new();
    let mut seen = BTreeSet::new();
    for args in [
        vec!["doctor", "mall", "-v"],
        vec!["backup", "mall", "-v"],
        vec!["drill", "mall", "-v"],
        vec!["status", "--json"],
        vec!["policy", "check", "mall"],
        vec!["snapshots", "mall", "--json"],
        vec!["verify", "mall", "--level", "data", "--copy", "offsite"],
    ] {
        let child = world.spawn(&args);
        let ended = watched(child, &mut seen).expect(0);
        said.push_str(&ended.out);
        said.push_str(&ended.err);
    }
    fs::write(world.path("db.pw"), "wrong-pw-Ab3dEf6\n").unwrap();
    let refused = watched(world.spawn(&["backup", "mall", "--source", "db1", "-v"]), &mut seen).expect(12);
    said.push_str(&refused.out);
    said.push_str(&refused.err);
    for name in ["bkp", "mariadbd", "bkp-sandbox-guard"] {
        assert!(seen.iter().any(|line| line.contains(name)), "`{name}` was never seen at work");
    }
    said.extend(seen);

    let secrets = [DATABASE_PASSWORD, REPOSITORY_PASSWORD, crate::servers::S3::SECRET_KEY, "wrong-pw-Ab3dEf6"];
    for secret in secrets {
        assert!(!said.contains(secret), "printed: {secret}");
    }
    for (path, (bytes, ..)) in files(&world.path("state")).into_iter().chain(files(&world.path("repository"))) {
        for secret in secrets {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} is in {}", path.display());
        }
    }
}

/// Waits for a program, and collects the command lines and environments of it and its children meanwhile.
fn watched(child: Child, seen: &mut BTreeSet<String>) -> Ended {
    let pid = child.id();
    let ended = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| child.wait_with_output().unwrap());
        while !waiting.is_finished() {
            collect(pid, seen);
        }
        waiting.join().unwrap()
    });
    ended.into()
}

fn collect(pid: u32, seen: &mut BTreeSet<String>) {
    let text = |path: String| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\0', " ");
    // A process may be gone by now, and then there is nothing to be seen of it.
    seen.insert(text(format!("/proc/{pid}/cmdline")) + &text(format!("/proc/{pid}/environ")));
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(|child| collect(child, seen));
    }
}
