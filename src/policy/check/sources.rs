//! The sources: database servers and directory trees.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::policy::check::fields::{Checker, RawSecret};
use crate::policy::raw::{RawFiles, RawGuard, RawMysql, RawTenant};
use crate::policy::units;
use crate::policy::{FilesGuard, FilesSource, MysqlAddress, MysqlSource, NonTransactional, Tenant, Tls, TlsMode};

impl Checker<'_> {
    pub(super) fn mysql(&mut self, raw: BTreeMap<String, RawMysql>) -> BTreeMap<String, MysqlSource> {
        let sources = raw.into_iter();
        sources.map(|(name, raw)| (name.clone(), self.mysql_source(&name, raw))).collect()
    }

    fn mysql_source(&mut self, name: &str, raw: RawMysql) -> MysqlSource {
        let key = format!("mysql.{name}");
        let at = |field: &str| format!("{key}.{field}");
        self.name(&key, name);
        self.not_empty(&at("user"), &raw.user);
        let address = self.address(&key, &raw);
        let standby_delay = self.standby_delay(&key, &raw);
        let secret =
            RawSecret { file: raw.password_file, command: raw.password_command, credential: raw.password_credential };
        let lock_wait = self.lock_wait(&at("lock_wait"), raw.lock_wait.as_deref());
        let words = [("refuse", NonTransactional::Refuse), ("lock", NonTransactional::Lock)];
        let non_transactional = self.word(&at("non_transactional"), raw.non_transactional.as_deref(), &words);
        self.table_names(&key, &raw.schemas, &raw.exclude);
        MysqlSource {
            tls: self.tls(&key, &address, raw.tls.as_deref(), raw.tls_ca_file.as_deref()),
            address,
            user: raw.user,
            password: self.secret(&at("password"), secret),
            connections: self.number(&at("connections"), raw.connections, 4, 1..=64),
            schemas: raw.schemas,
            exclude: raw.exclude,
            lock_wait,
            non_transactional: non_transactional.unwrap_or_default(),
            throttle: self.throttle(&at("throttle"), &raw.throttle),
            binlog: self.binlog(&at("binlog"), &raw.binlog),
            tenant: raw.tenant.map(|raw| self.tenant(&at("tenant"), raw)),
            standby_delay,
        }
    }

    fn tenant(&mut self, key: &str, raw: RawTenant) -> Tenant {
        self.not_empty(&format!("{key}.column"), &raw.column);
        for (table, column) in &raw.tables {
            let at = format!("{key}.tables.{table:?}");
            let is_pair = table.split_once('.').is_some_and(|(schema, table)| !schema.is_empty() && !table.is_empty());
            if !is_pair || table.ends_with(".*") {
                self.fault(&at, format!("is not a table: {table:?}"), "write `\"schema.table\" = \"column\"`");
            }
            self.not_empty(&at, column);
        }
        Tenant { column: raw.column, tables: raw.tables }
    }

    fn address(&mut self, key: &str, raw: &RawMysql) -> MysqlAddress {
        let port = self.number(&format!("{key}.port"), raw.port, 3306_u16, 1..=65535);
        match (&raw.host, &raw.socket) {
            (Some(host), None) => {
                self.host(&format!("{key}.host"), host);
                MysqlAddress::Tcp { host: host.clone(), port }
            }
            (None, Some(socket)) => {
                if raw.port.is_some() {
                    self.fault(&format!("{key}.port"), "goes with host, not with socket", "remove it");
                }
                MysqlAddress::Socket(self.path(&format!("{key}.socket"), socket))
            }
            (host, _) => {
                let what = if host.is_some() { "has both host and socket" } else { "has no address" };
                self.fault(
                    key,
                    what,
                    "write one of `host = \"10.0.30.10\"` and `socket = \"/run/mysqld/mysqld.sock\"`",
                );
                MysqlAddress::Socket(PathBuf::new())
            }
        }
    }

    /// The value is not repeated in a fault where it may hold a password.
    fn host(&mut self, key: &str, host: &str) {
        if host.contains(['@', '/']) {
            self.fault(
                key,
                "is not a host alone",
                "write the host here, and port, user and password_file as keys of their own",
            );
        } else if host.parse::<IpAddr>().is_err() && (host.is_empty() || host.contains([':', ' ', '[', ']'])) {
            self.fault(
                key,
                format!("is not a host: {host:?}"),
                "write a name or an address; the port goes into `port`",
            );
        }
    }

    /// TLS with a verified certificate is what a network gets unless `off` is said in so many words.
    fn tls(&mut self, key: &str, address: &MysqlAddress, mode: Option<&str>, ca_file: Option<&str>) -> Tls {
        let (tls_key, ca_key) = (format!("{key}.tls"), format!("{key}.tls_ca_file"));
        let said = self.word(&tls_key, mode, &[("verify", TlsMode::Verify), ("off", TlsMode::Off)]);
        let is_socket = matches!(address, MysqlAddress::Socket(_));
        if is_socket && said == Some(TlsMode::Verify) {
            self.fault(&tls_key, "has no meaning for a socket", "remove it: bytes do not leave the machine");
        }
        let default = if address.is_local() && ca_file.is_none() { TlsMode::Off } else { TlsMode::Verify };
        let mode = said.unwrap_or(default);
        if ca_file.is_some() && (mode == TlsMode::Off || is_socket) {
            self.fault(&ca_key, "is set, but TLS is off", "remove it, or write `tls = \"verify\"`");
        }
        Tls { mode, ca_file: self.optional_path(&ca_key, ca_file) }
    }

    fn lock_wait(&mut self, key: &str, text: Option<&str>) -> Duration {
        const DEFAULT: Duration = Duration::from_secs(5);
        // Who waits for the lock holds up every writer behind it.
        const MAX: Duration = Duration::from_mins(5);
        let wait = self.span(key, text).unwrap_or(DEFAULT);
        if wait > MAX {
            let remedy = "write 5m or less: while the lock is waited for, writers queue up behind it";
            self.fault(key, format!("is out of its limits: {:?}", text.unwrap_or_default()), remedy);
        }
        wait
    }

    fn table_names(&mut self, key: &str, schemas: &[String], exclude: &[String]) {
        for (rank, schema) in schemas.iter().enumerate() {
            self.not_empty(&format!("{key}.schemas[{rank}]"), schema);
        }
        self.table_patterns(&format!("{key}.exclude"), exclude);
    }

    pub(super) fn table_patterns(&mut self, key: &str, patterns: &[String]) {
        for (rank, table) in patterns.iter().enumerate() {
            let is_pair = table.split_once('.').is_some_and(|(schema, table)| !schema.is_empty() && !table.is_empty());
            if !is_pair {
                let remedy = "write `schema.table`, or `schema.*` for a whole schema";
                self.fault(&format!("{key}[{rank}]"), format!("is not a table: {table:?}"), remedy);
            }
        }
    }

    pub(super) fn files(&mut self, raw: BTreeMap<String, RawFiles>) -> BTreeMap<String, FilesSource> {
        let sources = raw.into_iter();
        sources.map(|(name, raw)| (name.clone(), self.files_source(&name, raw))).collect()
    }

    fn files_source(&mut self, name: &str, raw: RawFiles) -> FilesSource {
        let key = format!("files.{name}");
        self.name(&key, name);
        for (rank, pattern) in raw.exclude.iter().enumerate() {
            if globset::Glob::new(pattern).is_err() || pattern.is_empty() {
                let remedy = "write a glob such as \"cache/**\" or \"*.tmp\"";
                self.fault(&format!("{key}.exclude[{rank}]"), format!("is not a pattern: {pattern:?}"), remedy);
            }
        }
        FilesSource {
            path: self.path(&format!("{key}.path"), &raw.path),
            require_mount: raw.require_mount,
            fs_type: raw.fs_type,
            exclude: raw.exclude,
            threads: self.number(&format!("{key}.threads"), raw.threads, 16, 1..=256),
            guard: self.guard(&format!("{key}.guard"), raw.guard),
        }
    }

    fn guard(&mut self, key: &str, raw: RawGuard) -> FilesGuard {
        if let Some(sentinel) = &raw.sentinel
            && !is_inside(Path::new(sentinel))
        {
            let remedy = "write it relative to the source's path, as \".bkp-ok\"";
            self.fault(&format!("{key}.sentinel"), format!("is not a file of the tree: {sentinel:?}"), remedy);
        }
        let mut share = |field: &str, text: Option<String>| {
            text.and_then(|text| self.unit(&format!("{key}.{field}"), &text, units::share))
        };
        FilesGuard {
            files_drop: share("files_drop", raw.files_drop),
            bytes_drop: share("bytes_drop", raw.bytes_drop),
            files_min: self.number(&format!("{key}.files_min"), raw.files_min, 0, 0..=i64::from(u32::MAX)),
            sentinel: raw.sentinel.map(PathBuf::from),
        }
    }
}

fn is_inside(path: &Path) -> bool {
    let mut parts = path.components();
    !path.as_os_str().is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}
