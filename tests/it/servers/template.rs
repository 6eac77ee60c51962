//! Initialised data directories, made once for each product and version and copied for each server.

use super::Product;
use super::Suite;
use super::database::as_root;
use super::programs::lab;
use super::programs::program;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// One more whenever the options below change.
const LAYOUT: u32 = 1;

/// Copies a pristine data directory to `to`.
pub(super) fn copy_to(product: Product, suite: Suite, to: &Path) {
    let template = template(product, suite);
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(template).arg(to));
}

/// Returns the template's path; makes it where it is missing, once for all test processes.
fn template(product: Product, suite: Suite) -> PathBuf {
    let templates = lab().join("templates");
    fs::create_dir_all(&templates).unwrap();
    let lock = File::create(templates.join("lock")).unwrap();
    lock.lock().unwrap();
    let path = templates.join(name(product, suite));
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        fs::remove_dir_all(&unfinished).ok();
        initialise(product, suite, &unfinished);
        fs::rename(&unfinished, &path).unwrap();
    }
    path
}

/// Returns a name that a new version of the program changes.
fn name(product: Product, suite: Suite) -> String {
    let output = Command::new(program(product.server_program(suite))).arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    let version = version.split("Ver ").nth(1).and_then(|rest| rest.split_whitespace().next());
    format!("{product:?}-{}-{LAYOUT}", version.unwrap())
}

fn initialise(product: Product, suite: Suite, dir: &Path) {
    let datadir = format!("--datadir={}", dir.display());
    // A server that starts elsewhere removes temporary tables in a directory that both share.
    let tmp = tempfile::tempdir().unwrap();
    match (product, suite) {
        (Product::MariaDb, suite) => {
            let mut command = match suite {
                Suite::Stable => install_stable(),
                Suite::Newest => install_newest(),
            };
            command.env("TMPDIR", tmp.path());
            command.args([&datadir, "--skip-test-db", "--innodb-log-file-size=64M"]);
            run(command.args(["--auth-root-authentication-method=normal"]).args(as_root()));
        }
        (Product::MySql, _) => {
            run(Command::new(program("MYSQLD"))
                .args(["--no-defaults", "--initialize-insecure", &datadir, "--mysqlx=OFF"])
                .args(["--innodb-redo-log-capacity=8M", "--skip-innodb-doublewrite", "--skip-log-bin"])
                .args(as_root()));
            // Each copy becomes a server with a UUID of its own.
            fs::remove_file(dir.join("auto.cnf")).ok();
        }
    }
}

fn install_stable() -> Command {
    let mut command = Command::new(program("MARIADB_INSTALL_DB"));
    command.arg("--no-defaults");
    command
}

/// Returns the script of a tree of its own, which it has to be told of.
fn install_newest() -> Command {
    let script = program("MARIADB_INSTALL_DB_NEWEST");
    let tree = script.parent().and_then(Path::parent).unwrap();
    let mut command = Command::new(&script);
    command.args(["--no-defaults", &format!("--basedir={}", tree.display())]);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
