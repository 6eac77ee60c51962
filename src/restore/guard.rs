//! Keeps a restore from writing over what it was made from.

use std::path::{Path, PathBuf};

use crate::mysql::server::Server;
use crate::policy::{MysqlAddress, Policy};
use crate::restore::{Request, RestoreError};
use crate::run::Run;
use crate::target::mysql::identity;

/// Refuses to write over a source unless the operator typed the name of each host whose data is overwritten.
pub(super) async fn refuse_source_as_target(policy: &Policy, request: &Request, run: &Run) -> Result<(), RestoreError> {
    if let Some(server) = &request.to_mysql
        && is_source(policy, server, run).await
    {
        confirm(request, server.name(), Some(server))?;
    }
    if let Some(dir) = &request.to_dir
        && policy.files.values().any(|source| overlaps(dir, &source.path))
    {
        confirm(request, dir.display().to_string(), None)?;
    }
    Ok(())
}

/// Tells whether a server is one of the policy's sources, by whatever name it was given.
async fn is_source(policy: &Policy, server: &Server, run: &Run) -> bool {
    if policy.mysql.values().any(|source| same_address(&source.address, &server.address)) {
        return true;
    }
    for (name, source) in &policy.mysql {
        let same = match Server::of(source, &policy.network) {
            Ok(source) => identity::is_same(&source, server).await,
            Err(_) => None,
        };
        if same == Some(true) {
            return true;
        }
        if same.is_none() {
            // After a disaster that is the rule: it is what was lost.
            run.events.detail(format!("`{name}` cannot be asked whether it is the target: their addresses differ"));
        }
    }
    false
}

/// Lets a restore go on over the source itself if the operator typed the name of its host: a server's, or this one's.
pub(super) fn confirm(request: &Request, target: String, server: Option<&Server>) -> Result<(), RestoreError> {
    let Some(typed) = &request.in_place else { return Err(RestoreError::InPlace(target)) };
    let this_host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hosts = server.map_or_else(|| vec![this_host.clone()], |server| hosts_of(&server.address, &this_host));
    if hosts.iter().any(|host| typed.contains(host)) {
        return Ok(());
    }
    Err(RestoreError::WrongHost { target, typed: typed.clone(), hosts })
}

/// Returns the names that the host of a server goes by: the address's, and on this machine the machine's own.
fn hosts_of(address: &MysqlAddress, this_host: &str) -> Vec<String> {
    match address {
        MysqlAddress::Socket(_) => vec![this_host.to_owned()],
        MysqlAddress::Tcp { host, .. } if is_loopback(host) => vec![this_host.to_owned(), host.clone()],
        MysqlAddress::Tcp { host, .. } => vec![host.clone()],
    }
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "::1")
}

/// Compares two addresses; every loopback name of one port is the same server.
fn same_address(a: &MysqlAddress, b: &MysqlAddress) -> bool {
    match (a, b) {
        (MysqlAddress::Tcp { host: a, port: p }, MysqlAddress::Tcp { host: b, port: q }) => {
            p == q && (a == b || (is_loopback(a) && is_loopback(b)))
        }
        (a, b) => a == b,
    }
}

/// Tells whether one directory is the other or in it, wherever links lead.
fn overlaps(a: &Path, b: &Path) -> bool {
    let (a, b) = (resolved(a), resolved(b));
    a.starts_with(&b) || b.starts_with(&a)
}

/// Returns where a path leads; of one that is not there yet, where it would be made.
fn resolved(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|dir| Some((dir, std::fs::canonicalize(dir).ok()?)));
    match there {
        Some((dir, canonical)) => canonical.join(path.strip_prefix(dir).unwrap_or(Path::new(""))),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_below_a_link_into_the_source_is_the_source() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let source = dir.path().join("images");
        std::fs::create_dir(&source)?;
        std::os::unix::fs::symlink(&source, dir.path().join("link"))?;
        assert!(overlaps(&dir.path().join("link/not/there/yet"), &source));
        assert!(overlaps(dir.path(), &source));
        assert!(!overlaps(&dir.path().join("images2/new"), &source));
        Ok(())
    }

    #[test]
    fn a_host_is_called_by_its_address_and_this_one_by_its_name_too() {
        let tcp = |host: &str| MysqlAddress::Tcp { host: host.to_owned(), port: 3306 };
        assert_eq!(hosts_of(&tcp("db1"), "backup"), ["db1"]);
        assert_eq!(hosts_of(&tcp("127.0.0.1"), "backup"), ["backup", "127.0.0.1"]);
        assert_eq!(hosts_of(&MysqlAddress::Socket("/run/s.sock".into()), "backup"), ["backup"]);
    }
}
