//! A sandbox works, and nothing of it is left whatever happens to us.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bkp::event::Events;
use bkp::mysql::manifest::Product;
use bkp::run::Run;
use bkp::sandbox::{Sandbox, SandboxError, SandboxPlan, sweep};
use mysql_async::prelude::Queryable;

use crate::servers::program;

fn plan(product: Product, dir: &Path) -> SandboxPlan {
    let name = match product {
        Product::MariaDb => "MARIADBD",
        Product::MySql => "MYSQLD",
    };
    SandboxPlan {
        product,
        program: Some(program(name)),
        dir: Some(dir.to_owned()),
        buffer_pool_bytes: 64 << 20,
        page_bytes: 16 << 10,
        room_bytes: 0,
        lower_case_table_names: 1,
        has_gtids: false,
        start_max: Duration::from_mins(3),
        options: Vec::new(),
    }
}

fn is_alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; it only waits for somebody to ask how.
    !state.is_empty() && !state.contains(") Z ")
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_sandbox_of_each_product_answers_and_leaves_nothing_behind() {
    for product in [Product::MariaDb, Product::MySql] {
        let parent = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(&plan(product, parent.path()), &Run::silent()).await.unwrap();
        let pid = sandbox.pid();
        let mut conn = sandbox.server().connect().await.unwrap();
        let told: Option<(u8, u8, u8, String, u8)> = conn
            .query_first(
                "SELECT @@skip_networking, @@log_bin, @@local_infile, @@event_scheduler, @@lower_case_table_names",
            )
            .await
            .unwrap();
        conn.query_drop("CREATE DATABASE shop; CREATE TABLE shop.t (a INT)").await.unwrap();
        conn.disconnect().await.unwrap();

        assert_eq!(told, Some((1, 0, 1, "OFF".to_owned(), 1)), "{product:?}");
        assert!(is_alive(pid));
        sandbox.stop().unwrap();
        assert!(!is_alive(pid));
        assert!(is_empty(parent.path()));
    }
}

/// What a source may have been asked in by name; the hours are those of the IANA's database.
#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_sandbox_knows_the_zones_by_name() {
    let hours = [
        ("'2024-07-01 12:00:00', 'UTC', 'Asia/Seoul'", "2024-07-01 21:00:00"),
        // Summer time, which Seoul last had in 1988.
        ("'1988-07-01 12:00:00', 'UTC', 'Asia/Seoul'", "1988-07-01 22:00:00"),
        ("'2024-03-31 00:59:59', '+00:00', 'Europe/Berlin'", "2024-03-31 01:59:59"),
        ("'2024-03-31 01:00:00', '+00:00', 'Europe/Berlin'", "2024-03-31 03:00:00"),
        ("'2024-11-03 06:00:00', '+00:00', 'America/New_York'", "2024-11-03 01:00:00"),
        ("'2030-01-15 00:00:00', 'Australia/Sydney', '+00:00'", "2030-01-14 13:00:00"),
        ("'1970-01-02 00:00:00', '+00:00', 'Australia/Lord_Howe'", "1970-01-02 10:00:00"),
        ("'2037-12-31 00:00:00', '+00:00', 'Asia/Kathmandu'", "2037-12-31 05:45:00"),
    ];
    for product in [Product::MariaDb, Product::MySql] {
        let parent = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(&plan(product, parent.path()), &Run::silent()).await.unwrap();
        let mut conn = sandbox.server().connect().await.unwrap();
        for (asked, expected) in hours {
            let told: Option<Option<String>> = conn.query_first(format!("SELECT CONVERT_TZ({asked})")).await.unwrap();
            assert_eq!(told.flatten().as_deref(), Some(expected), "{product:?}: {asked}");
        }
        conn.query_drop("SET time_zone = 'Asia/Seoul'; CREATE DATABASE shop").await.unwrap();
        conn.query_drop("CREATE EVENT shop.nightly ON SCHEDULE EVERY 1 DAY DO DO 1").await.unwrap();
        conn.disconnect().await.unwrap();
        sandbox.stop().unwrap();
    }
}

#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_sandbox_has_the_pages_of_the_source_and_does_not_last() {
    let parent = tempfile::tempdir().unwrap();
    let plugin = "SELECT plugin_name, plugin_status FROM information_schema.plugins WHERE plugin_name = 'ed25519'";
    let redo_log = "SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'";
    for (product, asked, wanted) in [(Product::MariaDb, plugin, "ACTIVE"), (Product::MySql, redo_log, "OFF")] {
        let plan = SandboxPlan { page_bytes: 8 << 10, ..plan(product, parent.path()) };
        let sandbox = Sandbox::start(&plan, &Run::silent()).await.unwrap();
        let mut conn = sandbox.server().connect().await.unwrap();
        let page: Option<u32> = conn.query_first("SELECT @@innodb_page_size").await.unwrap();
        let told: Option<(String, String)> = conn.query_first(asked).await.unwrap();
        assert_eq!((page, told.unwrap().1.as_str()), (Some(8192), wanted), "{product:?}");
    }
}

#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_disk_without_room_is_refused_before_anything_is_made() {
    let parent = tempfile::tempdir().unwrap();
    let plan = SandboxPlan { room_bytes: 1 << 60, ..plan(Product::MariaDb, parent.path()) };
    let error = Sandbox::start(&plan, &Run::silent()).await.unwrap_err();
    assert!(error.to_string().contains("EiB, and ") && error.hint().is_some(), "{error}");
    assert!(is_empty(parent.path()));
}

#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_panic_takes_the_sandbox_along() {
    let parent = tempfile::tempdir().unwrap();
    let plan = plan(Product::MariaDb, parent.path());
    let (told, pid) = tokio::sync::oneshot::channel();
    let panicked = tokio::spawn(async move {
        let sandbox = Sandbox::start(&plan, &Run::silent()).await.unwrap();
        told.send(sandbox.pid()).unwrap();
        panic!("on purpose");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert!(!is_alive(pid.await.unwrap()));
    assert!(is_empty(parent.path()));
}

#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_server_that_cannot_start_says_why_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let plan = SandboxPlan { buffer_pool_bytes: 1 << 60, ..plan(Product::MariaDb, parent.path()) };
    let error = Sandbox::start(&plan, &Run::silent()).await.unwrap_err();
    let SandboxError::Ended { log, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(log.contains("innodb_buffer_pool") && !log.contains("[Note]"), "{log}");
    assert!(is_empty(parent.path()));
}

#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_start_that_is_stopped_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let run = Run::silent();
    let plan = plan(Product::MySql, parent.path());
    let (stopped, ()) = tokio::join!(Sandbox::start(&plan, &run), async {
        while is_empty(parent.path()) {
            tokio::task::yield_now().await;
        }
        run.cancel.cancel();
    });
    assert!(matches!(stopped, Err(SandboxError::Stopped)), "{stopped:?}");
    assert!(is_empty(parent.path()));
}

#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_program_of_the_other_product_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let plan = SandboxPlan { program: Some(program("MARIADBD")), ..plan(Product::MySql, parent.path()) };
    let error = Sandbox::start(&plan, &Run::silent()).await.unwrap_err();
    assert!(matches!(error, SandboxError::OtherProgram { .. }), "{error:?}");
}

/// Plays two parts: the owner, when it finds the directory in its environment, and who kills it.
#[tokio::test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn an_owner_killed_by_force_takes_its_server_along() {
    if let Some(dir) = std::env::var_os("BKP_TEST_SANDBOX_DIR") {
        let sandbox = Sandbox::start(&plan(Product::MariaDb, Path::new(&dir)), &Run::silent()).await.unwrap();
        println!("\nserver {}", sandbox.pid());
        std::future::pending::<()>().await;
    }
    let parent = tempfile::tempdir().unwrap();
    let (mut owner, pid) = owner(parent.path());
    assert!(is_alive(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until(|| !is_alive(pid) && is_empty(parent.path()));
}

/// Starts this very test as an owner, and returns it with the process id of its server.
fn owner(dir: &Path) -> (Child, u32) {
    let test = "sandbox::an_owner_killed_by_force_takes_its_server_along";
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env("BKP_TEST_SANDBOX_DIR", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pid = lines.find_map(|line| line.strip_prefix("server ")?.parse().ok());
    (owner, pid.expect("the owner ended before its server was up"))
}

#[test]
fn a_server_left_behind_is_swept_up_by_the_next_sandbox() {
    let parent = tempfile::tempdir().unwrap();
    let dir: PathBuf = parent.path().join("bkp-sandbox-left");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join(".owner"), "4194304").unwrap();
    // Waits at its input, with the directory among its arguments as a server has it.
    let mut server = Command::new("sh").args(["-c", "read -r _"]).arg(&dir).stdin(Stdio::piped()).spawn().unwrap();
    let pid = server.id();
    std::fs::write(dir.join("server.pid"), format!("{pid}\n")).unwrap();
    let name = dir.display().to_string();
    wait_until(|| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains(&name));

    sweep(parent.path(), &Events::silent());

    assert_eq!(server.wait().unwrap().signal(), Some(9));
    assert!(is_empty(parent.path()));
}
