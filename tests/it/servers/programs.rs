//! Where the programs are that live tests start.

use std::env;
use std::path::Path;
use std::path::PathBuf;

/// Returns the path of a program of `scripts/lab env` (`"MYSQLD"` is `BKP_TEST_MYSQLD`), else the place where
/// `scripts/lab install` puts it.
///
/// # Panics
///
/// Where there is none; the message names the remedy.
pub(crate) fn program(name: &str) -> PathBuf {
    let variable = format!("BKP_TEST_{name}");
    let path = env::var_os(&variable).map_or_else(|| usual_place(name), PathBuf::from);
    assert!(path.is_file(), "no program {variable} ({}): run scripts/lab install --for test", path.display());
    path
}

/// Returns the directory that `scripts/lab` installs into.
pub(crate) fn lab() -> PathBuf {
    let cache = || env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    env::var_os("BKP_LAB").map_or_else(|| cache().join("bkp-lab"), PathBuf::from)
}

fn home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from)
}

fn usual_place(name: &str) -> PathBuf {
    match name {
        "MYSQLD" | "MYSQL" | "MYSQLADMIN" | "MYSQLBINLOG" => lab().join("mysql/bin").join(name.to_lowercase()),
        "MYLOADER" => lab().join("mydumper/bin/myloader"),
        "MARIADBD_NEWEST" => lab().join("mariadb/usr/sbin/mariadbd"),
        "MARIADB_INSTALL_DB_NEWEST" => lab().join("mariadb/usr/bin/mariadb-install-db"),
        "MOTO" => lab().join("moto/bin/moto_server"),
        "RESTIC019" => lab().join("restic/bin/restic"),
        other => on_path(&other.to_lowercase().replace('_', "-")),
    }
}

fn on_path(program: &str) -> PathBuf {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| Path::new(program).to_owned())
}
