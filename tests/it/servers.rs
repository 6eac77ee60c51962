//! Throwaway servers for live tests: `Server` is a private MariaDB or MySQL, `S3` an object store in this process.
//!
//! Each lives in a temporary directory and ends with its value, and at the latest with this process.
//! `scripts/lab install` gets the programs; `scripts/test` names them in the environment.
#![allow(
    dead_code,
    reason = "not every helper here has a test that needs it yet"
)]

mod database;
mod programs;
mod s3;
mod template;

pub(crate) use database::Product;
pub(crate) use database::Server;
pub(crate) use programs::program;
pub(crate) use s3::Fault;
pub(crate) use s3::S3;

use std::future::Future;
use std::thread;

/// Runs a future to its end, also from within a test's own runtime.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    };
    thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_server_answers_on_socket_and_port_and_is_gone_once_dropped() {
    for product in [Product::MariaDb, Product::MySql] {
        let server = Server::start(product, &["--max-connections=17"]);
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT, b TEXT)");
        server.execute("INSERT INTO shop.t VALUES (1, NULL), (2, '서울')");
        let rows = server.query("SELECT a, b FROM shop.t ORDER BY a");
        let told = server.query("SELECT @@max_connections, @@log_bin, @@local_infile");
        let pid = server.pid();
        let over_tcp = server.run_client("SELECT COUNT(*) FROM shop.t");
        let dir = server.dir().to_owned();
        drop(server);

        assert_eq!(
            rows,
            [
                [Some("1".into()), None],
                [Some("2".into()), Some("서울".into())]
            ]
        );
        assert_eq!(
            told[0],
            ["17", "1", "1"].map(|value| Some(value.to_owned()))
        );
        assert_eq!(over_tcp.trim(), "2");
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        assert!(!dir.exists());
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_killed_server_starts_again_with_its_committed_rows() {
    for product in [Product::MariaDb, Product::MySql] {
        let mut server = Server::start(product, &[]);
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (7)");
        server.kill();
        server.start_again();
        assert_eq!(
            server.query("SELECT a FROM shop.t"),
            [[Some("7".to_owned())]]
        );
        server.shut_down();
        server.start_again();
        assert_eq!(
            server.query("SELECT a FROM shop.t"),
            [[Some("7".to_owned())]]
        );
    }
}
