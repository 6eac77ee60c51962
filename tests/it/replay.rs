//! Binlogs of a real server are replayed on another, up to a point, and the rows are those that were there at that point.

use std::path::Path;
use std::time::Duration;

use bkp::mysql::gtid::Gtid;
use bkp::mysql::manifest::{Position, Product as Dumped};
use bkp::replay::{Point, ReplayError, ReplayPlan, Replayed, Start, Target, segments};
use bkp::run::Run;

use crate::load::address;
use crate::servers::{Product, Server};

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
    Start { product: of(server.product()), position, gtid: Some(gtid) }
}

/// What every table of `mall` holds, by its checksum.
pub(crate) fn state(server: &Server) -> Vec<Vec<Option<String>>> {
    let tables = server.query(
        "SELECT CONCAT('mall.', table_name) FROM information_schema.tables WHERE table_schema = 'mall' ORDER BY 1",
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

fn target(server: &Server) -> Target {
    Target { server: address(server), product: of(server.product()), threads: 4, listen: None, skip_binlog: false }
}

async fn replay(
    server: &Server,
    start: &Start,
    dir: &Path,
    point: &Point,
) -> Result<(ReplayPlan, Replayed), ReplayError> {
    let plan = ReplayPlan::new(start, segments::in_dir(dir, &start.position.file)?, point, false, &Run::silent())?;
    let target = target(server);
    target.check(&plan, None).await?;
    target.prepare(&plan, "test").await?;
    let replayed = target.replay(&plan, &Run::silent()).await?;
    Ok((plan, replayed))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn binlogs_bring_a_server_to_the_transaction() {
    for product in [Product::MySql, Product::MariaDb] {
        let source = Server::start(product, &[]);
        let start = here(&source);
        source.execute(
            "CREATE DATABASE mall; CREATE TABLE mall.orders (id INT PRIMARY KEY AUTO_INCREMENT, note LONGTEXT)",
        );
        std::thread::scope(|scope| {
            for nth in 0..3 {
                let source = &source;
                scope.spawn(move || {
                    let inserts = format!("INSERT INTO mall.orders (note) VALUES (REPEAT('{nth}', 100));").repeat(40);
                    source.execute(&inserts);
                });
            }
        });
        source.execute("SET TIMESTAMP = UNIX_TIMESTAMP() + 86400; UPDATE mall.orders SET note = 'late' WHERE id = 3");
        source.execute("FLUSH BINARY LOGS; INSERT INTO mall.orders (note) VALUES (REPEAT('x', 20000000))");
        let (wanted, last) = (state(&source), last_gtid(&source));
        source.execute("DROP TABLE mall.orders");
        let dir = source.dir().join("data");

        let server = Server::start(product, &[]);
        let settings = "SELECT @@server_id, @@event_scheduler";
        let before = server.query(settings);
        let (plan, replayed) = replay(&server, &start, &dir, &Point::Gtid(last.clone())).await.unwrap();
        assert_eq!(state(&server), wanted, "{product:?}");
        assert_eq!(plan.last.unwrap().gtid, Some(last));
        println!("{product:?}: {replayed:?}");
        assert_eq!(server.query(settings), before);
    }
}
