//! Turns what the file says into a policy that holds together, or into the list of its faults.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::policy::check::fields::{Checker, RawSecret};
use crate::policy::error::Fault;
use crate::policy::locate::Places;
use crate::policy::raw::{RawNetwork, RawObjectives, RawPolicy, RawRepository, RawRestore, RawRetention, RawSchedule};
use crate::policy::{CatchUp, Keep, Network, Objectives, Policy, RepositoryPlace, RestorePlan, Schedule, VerifyPlan};
use crate::secret::SecretSource;

mod agree;
mod binlog;
mod copies;
mod drill;
pub(super) mod fields;
mod rpo;
mod sources;
mod throttle;

/// Checks each value by itself, then the values against each other.
pub(super) fn policy(raw: RawPolicy, file: &Path, hash: String, places: &Places) -> Result<Policy, Vec<Fault>> {
    let mut check = Checker { places, faults: Vec::new() };
    check.name("name", &raw.name);
    let state_dir = check.optional_path("state_dir", raw.state_dir.as_deref());
    let mut policy = Policy {
        file: file.to_owned(),
        hash,
        timezone: check.timezone("timezone", raw.timezone.as_deref()),
        objectives: check.objectives(&raw.objectives),
        network: check.network(raw.network),
        repository: check.repository(raw.repository),
        state_dir: state_dir.unwrap_or_else(|| PathBuf::from("/var/lib/bkp").join(&raw.name)),
        copies: check.copies(raw.copy),
        mysql: check.mysql(raw.mysql),
        files: check.files(raw.files),
        schedule: check.schedule(&raw.schedule),
        verify: VerifyPlan { heal: raw.verify.heal.unwrap_or(true) },
        retention: check.retention(&raw.retention),
        restore: check.restore(raw.restore),
        drill: check.drill(raw.drill),
        name: raw.name,
    };
    throttle::hand_down(&mut policy);
    binlog::hand_down(&mut policy);
    // Values that are wrong by themselves would only seem to disagree.
    if check.faults.is_empty() {
        check.agreement(&policy);
    }
    if check.faults.is_empty() {
        return Ok(policy);
    }
    check.faults.sort_by_key(|fault| fault.line);
    Err(check.faults)
}

impl Checker<'_> {
    fn objectives(&mut self, raw: &RawObjectives) -> Objectives {
        Objectives {
            rpo: self.span("objectives.rpo", raw.rpo.as_deref()),
            rto: self.span("objectives.rto", raw.rto.as_deref()),
        }
    }

    fn network(&mut self, raw: RawNetwork) -> Network {
        if let Some(interface) = &raw.interface {
            self.interface("network.interface", interface);
        }
        let source = raw.source.and_then(|source| {
            let parsed = source.parse().ok();
            if parsed.is_none() {
                self.fault(
                    "network.source",
                    format!("is not an address: {source:?}"),
                    "write the local IP address, as \"10.0.30.5\"",
                );
            }
            parsed
        });
        let mut peers = Vec::new();
        for (rank, peer) in raw.peers.iter().enumerate() {
            let address = || peer.parse::<IpAddr>().ok().map(IpNet::from);
            let range = peer.parse().ok().or_else(address);
            if range.is_none() {
                let remedy = "write an address or a range, as \"10.0.30.0/24\"";
                self.fault(&format!("network.peers[{rank}]"), format!("is not a range of addresses: {peer:?}"), remedy);
            }
            peers.extend(range.map(|range| range.trunc()));
        }
        Network { interface: raw.interface, source, peers }
    }

    fn interface(&mut self, key: &str, name: &str) {
        /// The kernel's IFNAMSIZ without the zero byte.
        const CHARS_MAX: usize = 15;
        if name.is_empty() || name.len() > CHARS_MAX || name.contains(['/', ' ']) {
            self.fault(key, format!("is not the name of an interface: {name:?}"), "write a name that `ip link` lists");
        }
    }

    fn repository(&mut self, raw: RawRepository) -> RepositoryPlace {
        let path = self.path("repository.path", &raw.path);
        let secret =
            RawSecret { file: raw.password_file, command: raw.password_command, credential: raw.password_credential };
        let password = self.secret("repository.password", secret).unwrap_or_else(|| {
            let remedy = "add `password_file = \"/etc/bkp/NAME.key\"`; `bkp init` makes the file";
            self.fault("repository", "has no password", remedy);
            SecretSource::File(PathBuf::new())
        });
        RepositoryPlace { path, password, from_kit: None }
    }

    fn schedule(&mut self, raw: &RawSchedule) -> Schedule {
        let words = [("one", CatchUp::One), ("none", CatchUp::None)];
        let catch_up = self.word("schedule.catch_up", raw.catch_up.as_deref(), &words);
        Schedule {
            backup: self.cron("schedule.backup", raw.backup.as_deref()),
            verify: self.cron("schedule.verify", raw.verify.as_deref()),
            prune: self.cron("schedule.prune", raw.prune.as_deref()),
            drill: self.cron("schedule.drill", raw.drill.as_deref()),
            catch_up: catch_up.unwrap_or_default(),
        }
    }

    fn restore(&mut self, raw: RawRestore) -> RestorePlan {
        self.table_patterns("restore.first", &raw.first);
        RestorePlan { first: raw.first }
    }

    fn retention(&mut self, raw: &RawRetention) -> Keep {
        let mut count =
            |key: &str, value| self.number(&format!("retention.{key}"), Some(value), 0_u32, 0..=i64::from(u32::MAX));
        let keep = Keep {
            last: count("last", raw.last),
            daily: count("daily", raw.daily),
            weekly: count("weekly", raw.weekly),
            monthly: count("monthly", raw.monthly),
            yearly: count("yearly", raw.yearly),
        };
        let sum = raw.last | raw.daily | raw.weekly | raw.monthly | raw.yearly;
        if sum == 0 {
            self.fault("retention", "keeps nothing: every rule is zero", "add a rule, as `daily = 7`");
        }
        keep
    }
}
