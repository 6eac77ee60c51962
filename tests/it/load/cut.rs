//! The line to the target is cut at any byte: what was loaded stays, and no row comes twice.

use std::sync::Arc;

use bkp::exit::{Exit, Failure};
use bkp::mysql::manifest::ObjectKind;
use bkp::mysql::server::Server as Address;
use bkp::run::Run;
use bkp::target::mysql::plan::Selection;
use bkp::target::mysql::{DirDump, DumpReader, LoadError, LoadPlan, Loaded, inspect, load};
use tokio_util::sync::CancellationToken;

use super::{BOTH, assert_tidy, dumps, options};
use crate::dump::cut::{Cut, Dice, Line, cuts, wait_until_alone};
use crate::servers::{Product, Server, block_on};
use dumps::Dump;

async fn bring(to: &Address, dump: &Arc<DirDump>) -> Result<Loaded, LoadError> {
    let state = inspect(to, &CancellationToken::new()).await?;
    let plan = LoadPlan::new(dump.manifest(), &Selection::everything(), &state, false)?;
    load(&plan, dump.clone(), to, options(), &Run::silent()).await
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_load_whose_line_is_cut_at_any_byte_comes_through_or_goes_on_when_started_again() {
    let dice = Dice::seeded();
    std::thread::scope(|scope| {
        for product in BOTH {
            scope.spawn(move || cut_loads(product, dice));
        }
    });
}

/// Cuts that are made in the last bytes of a load.
const LAST_CUTS: u32 = 16;

fn cut_loads(product: Product, mut dice: Dice) {
    let view = ["CREATE VIEW whole AS SELECT * FROM plain"];
    let dump = Dump::new(product)
        .numbers("plain", 3, 400)
        .without_key("loose", 3, 400)
        .object(ObjectKind::View, Some("shop"), None, "whole", &view)
        .open();
    let server = Server::start(product, &[]);
    let line = Line::to(&server);
    let to = line.address(&server);
    line.cut_at(u64::MAX, Cut::Close);
    block_on(bring(&to, &dump)).unwrap();
    let (bytes, _) = line.mend();
    let (mut broken, mut survived) = (0, 0);
    for trial in 0..cuts() {
        server.execute("DROP DATABASE shop");
        // The last packets of all are few, and seldom hit by chance.
        let at = if trial < LAST_CUTS { bytes - u64::from(trial) * 16 - 1 } else { dice.up_to(bytes) };
        let cut = dice.cut();
        let what = format!("{product:?}, cut {trial}: {cut:?} at byte {at} of {bytes}");
        line.cut_at(at, cut);
        let loaded = block_on(bring(&to, &dump));
        let (_, was_cut) = line.mend();
        match loaded {
            Ok(loaded) => {
                assert!(loaded.failed.is_empty(), "{what}: {:?}", loaded.failed);
                survived += u32::from(was_cut);
            }
            Err(error) => {
                assert!(was_cut, "{what}: {error:?}");
                let failure = Failure::from(error);
                assert_eq!(failure.exit, Exit::Failed, "{what}: {failure:?}");
                block_on(bring(&to, &dump)).unwrap_or_else(|error| panic!("{what}, again: {error:?}"));
                broken += 1;
            }
        }
        dumps::assert_numbers(&server, "plain", 1_200);
        dumps::assert_numbers(&server, "loose", 1_200);
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.whole"), "1200", "{what}");
        assert_tidy(&server);
    }
    println!("{product:?}: {survived} loads came through a cut, {broken} were started again");
    assert!(broken + survived > cuts() / 2, "{product:?}: only {} loads met their cut", broken + survived);
    wait_until_alone(&server);
}
