//! A load that stands still says so, and why.

use std::sync::Arc;
use std::time::Duration;

use bkp::run::Run;
use bkp::target::mysql::plan::Selection;
use bkp::target::mysql::{DumpReader, LoadOptions, LoadPlan, Loaded, inspect, load};
use tokio_util::sync::CancellationToken;

use super::dumps::{self, Dump};
use super::readers::Gate;
use super::{BOTH, address, options};
use crate::dump::world::{Notes, noted};
use crate::servers::{Product, Server};

/// Loads by a bkp that has little patience with silence.
async fn bring(server: &Server, dump: Arc<dyn DumpReader>, run: &Run) -> Loaded {
    let state = inspect(&address(server), &CancellationToken::new()).await.unwrap();
    let plan = LoadPlan::new(dump.manifest(), &Selection::everything(), &state, false).unwrap();
    let options = LoadOptions { silence_max: Duration::from_secs(1), ..options() };
    load(&plan, dump, &address(server), options, run).await.unwrap()
}

/// Returns a load up to its last chunk, and what it notes.
fn gated(product: Product) -> (Arc<Gate>, Run, Arc<Notes>) {
    let gate = Gate::before_chunk(Dump::new(product).numbers("plain", 2, 1_000).open(), "shop/plain/1.tsv");
    let (run, notes) = noted();
    (gate, run, notes)
}

/// Opens the gate, and waits for a line that begins and ends so: on a slow machine others may have been noted before.
async fn told(gate: &Gate, notes: &Notes, begin: &str, end: &str) {
    let before = notes.text().len();
    gate.open();
    let is_told = || notes.text()[before..].lines().any(|line| line.starts_with(begin) && line.ends_with(end));
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        while !is_told() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(waited.await.is_ok(), "{begin}…{end} is not in: {}", notes.text());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn rows_that_wait_for_somebodys_transaction_are_told_and_come() {
    for product in BOTH {
        let (gate, run, notes) = gated(product);
        let server = Server::start(product, &[]);
        let (loaded, ()) = tokio::join!(bring(&server, gate.clone(), &run), async {
            gate.reached().await;
            let mut rival = server.connect().await;
            dumps::run(&mut rival, "START TRANSACTION").await;
            dumps::run(&mut rival, "INSERT INTO shop.plain VALUES (1500, 'rival')").await;
            let state = if product == Product::MariaDb { "Reading file" } else { "executing" };
            let end = format!(" of the target says `{state}`");
            told(&gate, &notes, "no row of `shop`.`plain` has moved for ", &end).await;
            let waits = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
            assert_eq!(server.value(waits), "1", "{product:?}");
            dumps::run(&mut rival, "ROLLBACK").await;
        });

        assert_eq!((loaded.rows, loaded.retries), (2_000, 0), "{product:?}");
        dumps::assert_numbers(&server, "plain", 2_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn indexes_that_wait_for_somebodys_reading_are_told_and_come() {
    for product in BOTH {
        let (gate, run, notes) = gated(product);
        let server = Server::start(product, &[]);
        let (loaded, ()) = tokio::join!(bring(&server, gate.clone(), &run), async {
            gate.reached().await;
            let mut reader = server.connect().await;
            dumps::run(&mut reader, "START TRANSACTION").await;
            dumps::run(&mut reader, "SELECT COUNT(*) FROM shop.plain").await;
            let end = " of the target says `Waiting for table metadata lock`";
            told(&gate, &notes, "the indexes of `shop`.`plain` are not there after ", end).await;
            dumps::run(&mut reader, "ROLLBACK").await;
        });

        assert_eq!((loaded.rows, loaded.retries), (2_000, 0), "{product:?}");
        let indexes = "SELECT COUNT(DISTINCT index_name) FROM information_schema.statistics WHERE table_name = 'plain'";
        assert_eq!(server.value(indexes), "2");
    }
}
