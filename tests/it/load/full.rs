//! The disk of the target is full.

use std::process::Command;

use bkp::run::Run;
use bkp::target::mysql::LoadError;

use super::{BOTH, assert_tidy, bring, dumps, plan};
use crate::faults::small_disk;
use crate::servers::Server;
use crate::world::noise;
use dumps::Dump;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root to mount a small disk; scripts/test runs it"]
async fn a_target_without_room_says_so_and_the_load_goes_on_once_there_is_some() {
    for product in BOTH {
        let body = "  `id` int NOT NULL,\n  `text` text,\n  PRIMARY KEY (`id`)";
        let row = |id: u64| format!("{id}\t{}\n", hex::encode(noise(id, 1_000)));
        let mut dump = Dump::new(product).table("large", body, &[("id", None), ("text", None)], &["id"]);
        for chunk in 0..8 {
            dump = dump.chunk("large", (chunk * 500..(chunk + 1) * 500).map(row).collect::<String>(), 500);
        }
        let dump = dump.numbers("small", 1, 10).open();
        let server = Server::start(product, &[]);
        server.execute("CREATE DATABASE shop");
        let disk = server.dir().join("data/shop");
        let unmount = small_disk(&disk, "12m");

        let full = bring(&server, dump.clone(), &Run::silent()).await.unwrap_err();

        assert!(matches!(full, LoadError::Rows { .. } | LoadError::Sql { .. }), "{product:?}: {}", full.in_full());
        assert!(full.hint().unwrap().contains("free space on the target"), "{product:?}: {}", full.in_full());
        let there: u64 = server.value("SELECT COUNT(*) FROM shop.large").parse().unwrap();
        assert!(there < 4_000, "{product:?}: {there}");
        let more = Command::new("mount").args(["-o", "remount,size=128m"]).arg(&disk).status().unwrap();
        assert!(more.success());
        let rest = plan(&server, &dump, false).await.unwrap();
        assert!(rest.resumes && rest.tables[0].pending.len() as u64 == 8 - there / 500, "{product:?}: {there}");
        let loaded = bring(&server, dump, &Run::silent()).await.unwrap();
        assert!(loaded.failed.is_empty(), "{product:?}: {:?}", loaded.failed);
        let whole = "SELECT CONCAT(COUNT(*), ' ', SUM(LENGTH(text))) FROM shop.large";
        assert_eq!(server.value(whole), "4000 8000000", "{product:?}");
        dumps::assert_numbers(&server, "small", 10);
        assert_tidy(&server);
        drop(unmount);
    }
}
