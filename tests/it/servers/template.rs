//! Initialised data directories, made once for each product and version and copied for each server.

use super::Product;
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
pub(super) fn copy_to(product: Product, to: &Path) {
    let template = template(product);
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(template).arg(to));
}

/// Returns the template's path; makes it where it is missing, once for all test processes.
fn template(product: Product) -> PathBuf {
    let templates = lab().join("templates");
    fs::create_dir_all(&templates).unwrap();
    let lock = File::create(templates.join("lock")).unwrap();
    lock.lock().unwrap();
    let path = templates.join(name(product));
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        fs::remove_dir_all(&unfinished).ok();
        initialise(product, &unfinished);
        fs::rename(&unfinished, &path).unwrap();
    }
    path
}

/// Returns a name that a new version of the program changes.
fn name(product: Product) -> String {
    let output = Command::new(program(product.server_program())).arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    let version = version.split("Ver ").nth(1).and_then(|rest| rest.split_whitespace().next());
    format!("{product:?}-{}-{LAYOUT}", version.unwrap())
}

fn initialise(product: Product, dir: &Path) {
    let datadir = format!("--datadir={}", dir.display());
    // A server that starts elsewhere removes temporary tables in a directory that both share.
    let tmp = tempfile::tempdir().unwrap();
    match product {
        Product::MariaDb => run(Command::new(program("MARIADB_INSTALL_DB"))
            .env("TMPDIR", tmp.path())
            .args(["--no-defaults", &datadir, "--skip-test-db", "--innodb-log-file-size=64M"])
            .args(["--auth-root-authentication-method=normal"])
            .args(as_root())),
        Product::MySql => {
            run(Command::new(program("MYSQLD"))
                .args(["--no-defaults", "--initialize-insecure", &datadir, "--mysqlx=OFF"])
                .args(["--innodb-redo-log-capacity=8M", "--skip-innodb-doublewrite", "--skip-log-bin"])
                .args(as_root()));
            // Each copy becomes a server with a UUID of its own.
            fs::remove_file(dir.join("auto.cnf")).ok();
        }
    }
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
