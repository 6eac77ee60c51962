//! The tables that come before all others.

use std::sync::Arc;

use bkp::mysql::manifest::Manifest;
use bkp::run::Run;
use bkp::target::mysql::plan::{Names, Selection};
use bkp::target::mysql::{DumpReader as _, LoadOptions, LoadPlan, inspect, load};
use tokio_util::sync::CancellationToken;

use super::readers::Gate;
use super::{BOTH, address, dumps, options};
use crate::servers::Server;
use dumps::Dump;

async fn planned(server: &Server, manifest: &Manifest, first: &[&str]) -> LoadPlan {
    let state = inspect(&address(server), &CancellationToken::new()).await.unwrap();
    let mut plan = LoadPlan::new(manifest, &Selection::everything(), &state, false).unwrap();
    let first: Vec<String> = first.iter().map(|&name| name.to_owned()).collect();
    plan.bring_first(&first, manifest, &Names::default());
    plan
}

/// With one connection, the larger table would come first, and its indexes before the next one's rows.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn what_comes_first_can_be_read_with_its_indexes_before_a_row_of_the_rest_is_there() {
    for product in BOTH {
        let dump =
            Dump::new(product).numbers("big", 4, 1_000).numbers("vital", 2, 1_000).numbers("small", 1, 10).open();
        let server = Server::start(product, &[]);
        let plan = planned(&server, dump.manifest(), &["shop.small", "shop.vital", "shop.gone"]).await;
        let told = "`shop.gone` is to come first, and the dump holds no such table";
        assert!(plan.notes.iter().any(|note| note == told), "{:?}", plan.notes);
        assert_eq!(plan.first_named(), "`shop`.`small`, `shop`.`vital`");
        let gate = Gate::before_chunk(dump, "shop/big/0.tsv");
        let (to, run) = (address(&server), Run::silent());
        let options = LoadOptions { connections: 1, ..options() };
        let (loaded, ()) = tokio::join!(load(&plan, gate.clone(), &to, options, &run), async {
            gate.reached().await;
            dumps::assert_numbers(&server, "small", 10);
            dumps::assert_numbers(&server, "vital", 2_000);
            let indexed = "SELECT GROUP_CONCAT(DISTINCT table_name ORDER BY 1) FROM information_schema.statistics WHERE index_name = 'by_word'";
            assert_eq!(server.value(indexed), "small,vital", "{product:?}");
            gate.open();
        });
        let loaded = loaded.unwrap();
        dumps::assert_numbers(&server, "big", 4_000);
        assert!(loaded.first_took.is_some_and(|first| first < loaded.rows_took), "{product:?}: {loaded:?}");
    }
}

/// What was there before an interruption counts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn a_load_that_goes_on_has_its_first_tables_at_once_and_one_that_lacks_one_has_no_time_to_first_order() {
    let product = crate::servers::Product::MariaDb;
    let dump = Dump::new(product).numbers("big", 2, 1_000).numbers("vital", 1, 10).open();
    let server = Server::start(product, &[]);
    let plan = planned(&server, dump.manifest(), &["shop.vital"]).await;
    let gate = Gate::before_chunk(dump.clone(), "shop/big/0.tsv");
    let (to, run) = (address(&server), Run::silent());
    let (stopped, ()) = tokio::join!(load(&plan, gate.clone(), &to, options(), &run), async {
        gate.reached().await;
        // Not the table itself: MariaDB 10.11.19 hangs for ever, now and then, where one session reads a table into which another puts
        // the first rows.
        let finished = "SELECT COUNT(*) FROM bkp_restore.bkp_restore_progress WHERE step = 'finished'";
        super::readers::until(|| server.value(finished) == "1").await;
        run.cancel.cancel();
    });
    assert!(stopped.is_err());
    let plan = planned(&server, dump.manifest(), &["shop.vital"]).await;
    assert!(plan.resumes);
    let loaded = load(&plan, dump, &to, options(), &Run::silent()).await.unwrap();
    assert!(loaded.first_took.is_some() && loaded.failed.is_empty(), "{loaded:?}");

    let broken = Dump::new(product).numbers("other", 1, 10).numbers("vital_too", 1, 10);
    broken.damage("shop/vital_too/0.tsv");
    let broken: Arc<_> = broken.open();
    let plan = planned(&server, broken.manifest(), &["shop.*"]).await;
    let loaded = load(&plan, broken, &to, options(), &Run::silent()).await.unwrap();
    assert_eq!((loaded.first_took, loaded.failed.len()), (None, 1), "{loaded:?}");
}
