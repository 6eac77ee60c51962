//! What must hold between values: places apart, names that exist, objectives that the schedule can meet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::policy::check::fields::{Checker, near};
use crate::policy::{Check, CopyTarget, MysqlAddress, Policy, S3Place};
use crate::secret::SecretSource;

impl Checker<'_> {
    pub(super) fn agreement(&mut self, policy: &Policy) {
        self.some_source(policy);
        self.repository_apart(policy);
        self.key_apart(policy);
        self.copies_apart(policy);
        self.peers_allowed(policy);
        self.drill_names(policy);
        self.rpo(policy);
    }

    fn some_source(&mut self, policy: &Policy) {
        if policy.mysql.is_empty() && policy.files.is_empty() {
            let remedy = "add `[mysql.NAME]` or `[files.NAME]`; policies/full.toml explains their keys";
            self.fault("", "there is no source, so nothing to back up", remedy);
        }
        for name in policy.mysql.keys().filter(|name| policy.files.contains_key(*name)) {
            let remedy = "rename one: `--source NAME` must mean one source";
            self.fault(&format!("files.{name}"), "has the name of a database source", remedy);
        }
    }

    /// A source that holds the repository would back up its own backup, and one inside would be lost with it.
    fn repository_apart(&mut self, policy: &Policy) {
        let repository = &policy.repository.path;
        for (name, source) in &policy.files {
            let key = format!("files.{name}.path");
            for (what, place) in kept_places(policy) {
                if overlap(&source.path, place) {
                    let remedy = "keep sources and backups in separate directories, best on separate disks";
                    self.fault(&key, format!("overlaps {what} `{}`", place.display()), remedy);
                }
            }
        }
        let reports = policy.drill.report_dir.as_ref().map(|dir| ("drill.report_dir", dir));
        let work = policy.drill.work_dir.as_ref().map(|dir| ("drill.sandbox.work_dir", dir));
        for (key, dir) in [Some(("state_dir", &policy.state_dir)), reports, work].into_iter().flatten() {
            for (what, place) in kept_places(policy) {
                if dir.starts_with(place) {
                    self.fault(
                        key,
                        format!("lies inside {what} `{}`", place.display()),
                        "choose a directory outside: restic knows only its own files there",
                    );
                }
            }
        }
        if *repository == policy.state_dir {
            self.fault("repository.path", "is the state directory", "choose a directory of its own");
        }
    }

    fn key_apart(&mut self, policy: &Policy) {
        let SecretSource::File(file) = &policy.repository.password else {
            return;
        };
        for (what, place) in kept_places(policy) {
            if file.starts_with(place) {
                let remedy = "keep the key elsewhere: it would be lost with what it opens, and copied beside it";
                self.fault("repository.password_file", format!("lies inside {what} `{}`", place.display()), remedy);
            }
        }
    }

    fn copies_apart(&mut self, policy: &Policy) {
        let copies: Vec<_> = policy.copies.iter().enumerate().collect();
        for (rank, copy) in &copies {
            let key = format!("copy[{rank}]");
            if let CopyTarget::Dir(dir) = &copy.place
                && overlap(dir, &policy.repository.path)
            {
                let remedy = "choose a directory on another disk: a copy beside the original is lost with it";
                self.fault(
                    &format!("{key}.path"),
                    format!("overlaps the repository `{}`", policy.repository.path.display()),
                    remedy,
                );
            }
            for (_, earlier) in copies.iter().take(*rank) {
                if earlier.name == copy.name {
                    self.fault(
                        &format!("{key}.name"),
                        format!("is the name of an earlier copy: {:?}", copy.name),
                        "give each copy its own name",
                    );
                }
                if is_same_place(&earlier.place, &copy.place) {
                    let remedy = "give each copy its own bucket, prefix or directory";
                    self.fault(&key, format!("lies where the copy `{}` lies", earlier.name), remedy);
                }
            }
        }
    }

    /// A host that is written as an address can be held against the network's peers at once.
    fn peers_allowed(&mut self, policy: &Policy) {
        let peers = &policy.network.peers;
        for (name, source) in &policy.mysql {
            let MysqlAddress::Tcp { host, .. } = &source.address else {
                continue;
            };
            let Ok(address) = host.parse::<IpAddr>() else {
                continue;
            };
            if !peers.is_empty() && !peers.iter().any(|range| range.contains(&address)) {
                let remedy = "add it to network.peers, or name the server by its address in the backup network";
                self.fault(&format!("mysql.{name}.host"), format!("is not among network.peers: {host}"), remedy);
            }
        }
    }

    fn drill_names(&mut self, policy: &Policy) {
        if let Some(from) = &policy.drill.from {
            let names: Vec<&str> = policy.copies.iter().map(|copy| copy.name.as_str()).collect();
            self.known("drill.from", from, "copy", &names);
        }
        for (rank, check) in policy.drill.checks.iter().enumerate() {
            let key = format!("drill.checks[{rank}]");
            let (Check::Sql { mysql, .. } | Check::FilesIn { mysql, .. }) = check;
            self.check_server(&key, mysql.as_deref(), policy);
            if let Check::FilesIn { source, .. } = check {
                self.known(&format!("{key}.files_in"), source, "files source", &names_of(&policy.files));
            }
        }
    }

    fn check_server(&mut self, key: &str, asked: Option<&str>, policy: &Policy) {
        match (asked, policy.mysql.len()) {
            (Some(name), _) => self.known(&format!("{key}.mysql"), name, "mysql source", &names_of(&policy.mysql)),
            (None, 0) => self.fault(key, "has no server to ask", "add a `[mysql.NAME]` source, or remove the check"),
            (None, 1) => {}
            (None, _) => self.fault(key, "does not say which server to ask", "add `mysql = \"NAME\"`"),
        }
    }

    fn known(&mut self, key: &str, name: &str, what: &str, names: &[&str]) {
        if names.contains(&name) {
            return;
        }
        let remedy = match near(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => format!("there is no {what} in this policy"),
            None => format!("there is {}", names.join(", ")),
        };
        self.fault(key, format!("is no {what} of this policy: {name:?}"), remedy);
    }
}

/// Returns the directories that belong to repositories.
fn kept_places(policy: &Policy) -> Vec<(String, &Path)> {
    let copies = policy.copies.iter().filter_map(|copy| match &copy.place {
        CopyTarget::Dir(dir) => Some((format!("the copy `{}`", copy.name), dir.as_path())),
        CopyTarget::S3(_) => None,
    });
    let repository = ("the repository".to_owned(), policy.repository.path.as_path());
    std::iter::once(repository).chain(copies).collect()
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn is_same_place(one: &CopyTarget, other: &CopyTarget) -> bool {
    match (one, other) {
        (CopyTarget::Dir(one), CopyTarget::Dir(other)) => overlap(one, other),
        (CopyTarget::S3(one), CopyTarget::S3(other)) => {
            one.bucket == other.bucket && one.endpoint == other.endpoint && overlap(&prefix_of(one), &prefix_of(other))
        }
        _ => false,
    }
}

fn prefix_of(place: &S3Place) -> PathBuf {
    Path::new("/").join(&place.prefix)
}

fn names_of<T>(sources: &BTreeMap<String, T>) -> Vec<&str> {
    sources.keys().map(String::as_str).collect()
}
