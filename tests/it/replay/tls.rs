//! To a target that is reached by TLS the binlogs go by TLS, and to nobody else.

use std::fs;
use std::sync::{Arc, Mutex};

use bkp::clock::SystemClock;
use bkp::event::{Event, Events, Listener};
use bkp::policy::{MysqlAddress, Tls, TlsMode};
use bkp::replay::{Point, ReplayError, ReplayPlan, Target, segments};
use bkp::run::Run;
use mysql_async::Row;
use mysql_async::prelude::Queryable as _;

use super::{empty, here, is_tidy, last_gtid, state, target};
use crate::dump::world::Certificates;
use crate::servers::{Product, Server, Suite};

/// What was told in detail.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl Listener for Ear {
    fn hear(&self, event: &Event) {
        if let Event::Detail(text) = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

/// Returns what a server says of TLS on our channel: whether, the file of its own certificate, whether it verifies ours.
async fn channel(server: &Server) -> [String; 3] {
    let (asked, prefix) = match server.product() {
        Product::MySql => ("SHOW REPLICA STATUS", "Source"),
        Product::MariaDb => ("SHOW ALL SLAVES STATUS", "Master"),
    };
    let row: Row = server.connect().await.query_first(asked).await.unwrap().unwrap();
    ["Allowed", "Cert", "Verify_Server_Cert"].map(|name| row.get(format!("{prefix}_SSL_{name}").as_str()).unwrap())
}

async fn by_tls(product: Product, suite: Suite) {
    let keys = Certificates::make();
    let [ca, certificate, key] = keys.options();
    let server = Server::start_of(product, suite, &[&ca, &certificate, &key]);
    let start = here(&server);
    // Only who has the user can drop it.
    let unlogged = "SET sql_log_bin = 0; CREATE USER once@localhost";
    server.execute(unlogged);
    server.execute("DROP USER once@localhost");
    server.execute("CREATE DATABASE mall; CREATE TABLE mall.orders (id INT PRIMARY KEY, note LONGTEXT)");
    server.execute("INSERT INTO mall.orders VALUES (1, REPEAT('x', 1000))");
    let (wanted, point) = (state(&server), Point::Gtid(last_gtid(&server)));
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(server.dir().join("data")).unwrap().filter_map(Result::ok) {
        if file.file_name().to_string_lossy().starts_with("binlog.0") {
            fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
    }
    empty(&server);

    // At 127.0.0.1 a MariaDB takes nobody to stand between, and verifies nothing.
    let listen = Some(([127, 0, 0, 2], 0).into());
    let mut target = Target { listen, skip_binlog: true, ..target(&server) };
    target.server.address = MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: server.port() };
    target.server.tls = Tls { mode: TlsMode::Verify, ca_file: Some(keys.authority()) };
    let ear = Arc::new(Ear::default());
    let run = Run::new(Arc::new(SystemClock), Events::new(ear.clone()));
    let files = segments::in_dir(dir.path(), &start.position.file).unwrap();
    let plan = ReplayPlan::new(&start, &files, &point, false, &run).unwrap();
    target.check(&plan, None, false).await.unwrap();
    let settings = "SELECT @@GLOBAL.server_id, @@GLOBAL.event_scheduler";
    let before = server.query(settings);
    assert!(target.prepare(&plan, "test", true, false).await.unwrap(), "it has begun just now");
    if product == Product::MySql {
        // One who shows another's certificate is not let in, though it knows the password.
        let others = Certificates::make();
        let [_, certificate, key] = others.options().map(|option| option.split_once('=').unwrap().1.to_owned());
        let shown = [server.value("SELECT @@ssl_cert"), server.value("SELECT @@ssl_key")];
        server.execute(&format!("SET GLOBAL ssl_cert = '{certificate}'; SET GLOBAL ssl_key = '{key}'"));
        // That shows before anything is loaded, and leaves the target as it was.
        let tried = target.try_way(&plan, true, &run).await.unwrap_err();
        assert!(matches!(&tried, ReplayError::Insecure { .. }), "{tried:?}");
        assert!(is_tidy(&server));
        assert_eq!(server.query(settings), before);
        target.prepare(&plan, "test", true, false).await.unwrap();
        let refused = target.replay(&plan, &run).await.unwrap_err();
        assert!(refused.to_string().contains("invalid peer certificate"), "{refused:?}");
        assert!(refused.hint().is_some_and(|hint| hint.contains("--to-mysql-plain")));
        server.execute(&format!("SET GLOBAL ssl_cert = '{}'; SET GLOBAL ssl_key = '{}'", shown[0], shown[1]));
    }
    target.try_way(&plan, false, &run).await.unwrap();
    let channels = if product == Product::MySql { "SHOW REPLICA STATUS" } else { "SHOW ALL SLAVES STATUS" };
    assert!(server.query(channels).is_empty() && !is_tidy(&server), "the channel goes, and the record stays");
    let stopped = target.replay(&plan, &run).await.unwrap_err();
    assert!(matches!(&stopped, ReplayError::Apply { .. }), "{stopped:?}");
    let [is_allowed, shown, verifies] = channel(&server).await;
    assert_eq!((is_allowed.as_str(), shown.as_str()), ("Yes", certificate.split_once('=').unwrap().1));
    assert_eq!(verifies, if suite == Suite::Newest { "Yes" } else { "No" });
    let heard = ear.0.lock().unwrap().join("\n");
    assert!(heard.contains("has come in by TLS (TLSv1_3"), "{heard}");

    server.execute(unlogged);
    target.replay(&plan, &run).await.unwrap();
    assert_eq!(state(&server), wanted);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn binlogs_go_by_tls_to_a_mysql_that_shows_its_own_certificate() {
    by_tls(Product::MySql, Suite::Stable).await;
}

/// From 11.4 on it verifies our certificate, too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn binlogs_go_by_tls_to_a_mariadb_that_shows_its_own_certificate() {
    by_tls(Product::MariaDb, Suite::Stable).await;
    by_tls(Product::MariaDb, Suite::Newest).await;
}
