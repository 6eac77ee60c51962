//! A small mall with a database, images, an S3 server and a policy, and the real program run on it as an operator would.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::servers::{Product, S3, Server};

/// The secrets of a world; no output, log, report, catalog or snapshot may hold one.
pub(crate) const DATABASE_PASSWORD: &str = "db-pw-Xq7vLm3";
pub(crate) const REPOSITORY_PASSWORD: &str = "repo-pw-Zt9wKc5";

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) source: Server,
    pub(crate) s3: S3,
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl World {
    /// Starts the servers, fills in rows and images, and writes a policy with a repository and an S3 copy.
    pub(crate) fn new(product: Product) -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), source: Server::start(product, &[]), s3: S3::start() };
        world.fill_database();
        world.fill_images();
        world.write_secret("db.pw", DATABASE_PASSWORD);
        world.write_secret("repo.key", REPOSITORY_PASSWORD);
        world.write_secret("s3.key", S3::SECRET_KEY);
        world.write_policy("");
        world
    }

    /// A world with its repository made.
    pub(crate) fn ready(product: Product) -> Self {
        let world = Self::new(product);
        world.bkp(&["init", "mall"]).expect(0);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.path("images")
    }

    fn write_secret(&self, name: &str, secret: &str) {
        fs::write(self.path(name), format!("{secret}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes the policy; `more` is appended to it.
    pub(crate) fn write_policy(&self, more: &str) {
        let dir = self.dir.path().display();
        let (port, endpoint, bucket, access) = (self.source.port(), self.s3.endpoint(), S3::BUCKET, S3::ACCESS_KEY);
        let text = format!(
            r#"version = 1
name = "mall"
timezone = "Asia/Seoul"
objectives = {{ rpo = "25h", rto = "1h" }}
state_dir = "{dir}/state"

[repository]
path = "{dir}/repository"
password_file = "{dir}/repo.key"

[[copy]]
name = "offsite"
s3 = {{ bucket = "{bucket}", prefix = "dr", region = "us-east-1", endpoint = "{endpoint}", path_style = true, access_key_id = "{access}", secret_access_key_file = "{dir}/s3.key" }}

[mysql.db1]
host = "127.0.0.1"
port = {port}
user = "dumper"
password_file = "{dir}/db.pw"
connections = 3
tls = "off"

[files.images]
path = "{dir}/images"
guard = {{ sentinel = ".bkp-ok", files_drop = "50%" }}

[schedule]
backup = "15 2 * * *"
verify = "0 5 * * *"
drill = "0 6 1 * *"

[retention]
last = 2
daily = 7

[drill]
checks = [
  {{ sql = "SELECT COUNT(*) FROM mall.orders", min = 1 }},
  {{ files_in = "images", sql = "SELECT path FROM mall.product_images" }},
]
{more}
"#
        );
        fs::create_dir_all(self.path("policies")).unwrap();
        fs::write(self.path("policies/mall.toml"), text).unwrap();
    }

    fn fill_database(&self) {
        let source = &self.source;
        source.execute("CREATE DATABASE mall CHARACTER SET utf8mb4");
        source.execute("CREATE TABLE mall.shops (id INT PRIMARY KEY, name VARCHAR(80) NOT NULL)");
        source.execute(
            "CREATE TABLE mall.orders (shop_id INT NOT NULL, id INT NOT NULL, total DECIMAL(12,2) NOT NULL, note TEXT, \
             placed DATETIME(3) NOT NULL, PRIMARY KEY (shop_id, id), KEY placed (placed))",
        );
        source.execute(
            "CREATE TABLE mall.product_images (shop_id INT NOT NULL, id INT NOT NULL, path VARCHAR(190) NOT NULL, \
             PRIMARY KEY (shop_id, id))",
        );
        source.execute("CREATE TABLE mall.page_views (at DATETIME NOT NULL, url VARCHAR(200))");
        source.execute(
            "CREATE VIEW mall.turnover AS SELECT shop_id, SUM(total) AS total FROM mall.orders GROUP BY shop_id",
        );
        for shop in 1..=5 {
            source.execute(&format!("INSERT INTO mall.shops VALUES ({shop}, '가게 {shop}')"));
            self.order(shop, 0, 300);
        }
        source.execute(
            "INSERT INTO mall.page_views VALUES ('2026-01-01', '/'), ('2026-01-01', '/'), ('2026-01-02', NULL)",
        );
        source.execute(&format!("CREATE USER 'dumper'@'%' IDENTIFIED BY '{DATABASE_PASSWORD}'"));
        source.execute("GRANT ALL PRIVILEGES ON *.* TO 'dumper'@'%' WITH GRANT OPTION");
    }

    /// Places `count` orders of a shop, with ids from `first + 1` on.
    pub(crate) fn order(&self, shop: u32, first: u32, count: u32) {
        let mut sql = String::from("INSERT INTO mall.orders VALUES ");
        for n in first + 1..=first + count {
            let comma = if n == first + 1 { "" } else { "," };
            write!(sql, "{comma}({shop},{n},{n}.25,'주문 {n}\\t\\\\ \\'q\\'','2026-03-01 10:00:00.123')").unwrap();
        }
        self.source.execute(&sql);
    }

    fn fill_images(&self) {
        fs::create_dir_all(self.images()).unwrap();
        fs::write(self.images().join(".bkp-ok"), "").unwrap();
        for shop in 1..=5 {
            for n in 1..=20 {
                self.add_image(shop, n);
            }
        }
    }

    /// Writes an image and the row that names it.
    pub(crate) fn add_image(&self, shop: u32, n: u32) {
        let name = format!("shop{shop:04}/{n:02}.jpg");
        let path = self.images().join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(u64::from(shop * 1_000 + n), 3_000 + n as usize * 700)).unwrap();
        self.source.execute(&format!("INSERT INTO mall.product_images VALUES ({shop},{n},'{name}')"));
    }

    /// Backs the images up until every file is older than the last run: a file that changed in the same tick as it was read is
    /// read again.
    pub(crate) fn settle(&self) {
        for _ in 0..20 {
            let ended = self.bkp(&["backup", "mall", "--source", "images", "--no-copy", "--json"]).expect(0).json();
            if ended["steps"][0]["result"]["snapshots"][0]["bytes_read"] == 0 {
                return;
            }
        }
        panic!("the images were read again by each of 20 runs");
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bkp"));
        command.args(args).arg("--policies").arg(self.path("policies"));
        command.env_remove("AWS_CA_BUNDLE").env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn bkp(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    /// Starts the program and leaves it running.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Returns the command that restores into a server.
    pub(crate) fn restore_command(&self, target: &Server, more: &[&str]) -> Command {
        let url = format!("mysql://root@localhost?socket={}", target.socket().display());
        self.command(&[&["restore", "mall", "--to-mysql", &url], more].concat())
    }

    /// Restores into a server.
    pub(crate) fn restore_into(&self, target: &Server, more: &[&str]) -> Ended {
        self.restore_command(target, more).output().unwrap().into()
    }

    /// Runs the real `restic` on the repository.
    pub(crate) fn restic(&self, args: &[&str]) -> Ended {
        let mut command = Command::new("restic");
        command.args(args).arg("--no-cache").arg("-r").arg(self.path("repository"));
        command.arg("--password-file").arg(self.path("repo.key"));
        command.output().unwrap().into()
    }
}

/// Returns every row of every table, in order.
pub(crate) fn rows(server: &Server) -> BTreeMap<String, Vec<Vec<Option<String>>>> {
    let tables =
        server.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'mall' ORDER BY 1");
    let mut rows = BTreeMap::new();
    for table in tables {
        let table = table[0].clone().unwrap();
        rows.insert(table.clone(), server.query(&format!("SELECT * FROM mall.`{table}` ORDER BY 1, 2")));
    }
    rows
}

/// Returns every file below a directory: its bytes, its mode and the time it was changed.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                dirs.push(path);
            } else {
                let below = path.strip_prefix(dir).unwrap().to_owned();
                found.insert(
                    below,
                    (fs::read(&path).unwrap(), metadata.permissions().mode(), metadata.modified().unwrap()),
                );
            }
        }
    }
    found
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
