//! How a server waits for the replicas that acknowledge: semi-synchronous replication, as its variables and its status tell of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capture::CaptureError;
use crate::human;
use crate::run::Run;

/// A server's semi-synchronous replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SemiSync {
    /// What the server's variables call itself.
    role: &'static str,
    is_enabled: bool,
    /// Commits wait now: it is enabled, and the server has not fallen back.
    is_on: bool,
    /// How long a commit waits before the server falls back.
    timeout: Duration,
    wait_point: String,
    /// Replicas that acknowledge, and how many of them have to before a commit goes on.
    replicas: u32,
    wanted: u32,
}

/// Whether commits of a server wait until the spool has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitsWait {
    pub is_on: bool,
    /// Why they do not.
    pub reason: Option<String>,
}

impl CommitsWait {
    /// Says why they do not.
    #[must_use]
    pub fn not(reason: &str) -> Self {
        Self { is_on: false, reason: Some(reason.to_owned()) }
    }
}

impl SemiSync {
    /// Reads what a server told, by names in small letters; `None` where it has none.
    pub(super) fn of<'t>(told: impl Fn(&str) -> Option<&'t str>) -> Option<Self> {
        let of = |role: &str, name: &str| told(&format!("rpl_semi_sync_{role}_{name}")).unwrap_or_default().to_owned();
        let has = |role: &&&str| told(&format!("rpl_semi_sync_{role}_enabled")).is_some();
        let role = *["source", "master"].iter().find(has)?;
        let wanted = [of(role, "wait_for_replica_count"), of(role, "wait_for_slave_count")];
        Some(Self {
            role,
            is_enabled: of(role, "enabled") == "ON",
            is_on: of(role, "status") == "ON",
            timeout: Duration::from_millis(of(role, "timeout").parse().unwrap_or(0)),
            wait_point: of(role, "wait_point"),
            replicas: of(role, "clients").parse().unwrap_or(0),
            wanted: wanted.iter().find_map(|count| count.parse().ok()).unwrap_or(1),
        })
    }

    /// Tells whether commits wait for the spool, where a daemon follows. `None` of `server`: it has no such replication.
    fn judge(server: Option<&Self>) -> CommitsWait {
        match server {
            None => CommitsWait::not("the server has no semi-synchronous replication"),
            Some(it) if !it.is_enabled => {
                CommitsWait::not("semi-synchronous replication is switched off at the server")
            }
            Some(it) if !it.is_on => {
                let timeout = human::duration(it.timeout);
                CommitsWait::not(&format!("the server has fallen back after {timeout} without an acknowledgement"))
            }
            Some(_) => CommitsWait { is_on: true, reason: None },
        }
    }

    /// Tells how the server waits, for a person; what is wrong with it and what to do, where something is.
    pub(crate) fn examine(server: Option<&Self>) -> (String, Option<String>) {
        let judged = Self::judge(server);
        let Some(it) = server else {
            let hint = "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so', and enable it";
            return (judged.reason.unwrap_or_default(), Some(hint.to_owned()));
        };
        let role = it.role;
        let hint = if !it.is_enabled {
            format!("SET GLOBAL rpl_semi_sync_{role}_enabled = ON, and write it into the server's configuration")
        } else if it.replicas == 0 {
            "no replica acknowledges: let `bkp daemon` run, for `bkp run` alone never does".to_owned()
        } else if !it.is_on {
            "it goes back by itself once bkp has caught up; see `bkp status`, and the daemon's log".to_owned()
        } else if it.wait_point != "AFTER_SYNC" {
            format!("SET GLOBAL rpl_semi_sync_{role}_wait_point = AFTER_SYNC: else others see what may still be lost")
        } else if it.replicas > it.wanted {
            "another replica may acknowledge before bkp does: have the server wait for as many as there are".to_owned()
        } else {
            return (it.to_string(), None);
        };
        (judged.reason.unwrap_or_else(|| it.to_string()), Some(hint))
    }
}

/// Looks after whether commits wait for whoever follows.
pub(super) struct Watch {
    /// The server could wait when it was asked to.
    was_there: bool,
    told: CommitsWait,
}

impl Watch {
    /// Begins before the stream does: how it goes, the server can tell only later.
    pub(super) fn begin(server: Option<&SemiSync>, source: &str, run: &Run) -> Self {
        let was_there = server.is_some();
        if server.is_some_and(|it| it.is_enabled) {
            return Self { was_there, told: CommitsWait::not("bkp has only just begun to follow") };
        }
        let told = SemiSync::judge(server);
        tell(&told, source, run);
        Self { was_there, told }
    }

    /// Looks again, and tells what has changed.
    pub(super) fn look(&mut self, server: Option<&SemiSync>, source: &str, run: &Run) -> Result<(), CaptureError> {
        if server.is_some() && !self.was_there {
            return Err(CaptureError::SemiSyncCame);
        }
        let found = SemiSync::judge(server);
        if found != self.told {
            tell(&found, source, run);
            self.told = found;
        }
        Ok(())
    }

    pub(super) fn told(&self) -> &CommitsWait {
        &self.told
    }
}

fn tell(found: &CommitsWait, source: &str, run: &Run) {
    match &found.reason {
        Some(reason) => run.events.warn(format!("{source}: commits do not wait for the spool: {reason}")),
        None => run.events.note(format!("{source}: commits wait for the spool")),
    }
}

impl std::fmt::Display for SemiSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let replicas = human::counted(self.replicas.into(), "replica acknowledges", "replicas acknowledge");
        let timeout = human::duration(self.timeout);
        write!(f, "{}, {replicas}, falls back after {timeout}", self.wait_point)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// What a server tells that does all as it should, but for what is told otherwise.
    fn server(role: &str, but: &[(&str, &str)]) -> SemiSync {
        let good =
            [("enabled", "ON"), ("status", "ON"), ("timeout", "10000"), ("clients", "1"), ("wait_point", "AFTER_SYNC")];
        SemiSync::of(|name| {
            let name = name.strip_prefix(&format!("rpl_semi_sync_{role}_"))?;
            but.iter().chain(&good).find(|(other, _)| *other == name).map(|(_, value)| *value)
        })
        .unwrap()
    }

    #[test]
    fn both_products_words_are_understood() {
        for role in ["source", "master"] {
            let good = server(role, &[]);
            assert!(SemiSync::judge(Some(&good)).is_on);
            let told = SemiSync::examine(Some(&good));
            assert_eq!(told, ("AFTER_SYNC, 1 replica acknowledges, falls back after 10 s".to_owned(), None));
        }
        assert_eq!(SemiSync::of(|_| None), None);
    }

    #[test]
    fn what_keeps_commits_from_waiting_is_named_with_what_to_do() {
        let told = |but: &[(&str, &str)]| SemiSync::examine(Some(&server("master", but)));
        let (what, hint) = told(&[("enabled", "OFF"), ("status", "OFF")]);
        assert!(what.contains("switched off") && hint.unwrap().contains("rpl_semi_sync_master_enabled = ON"));
        let (what, hint) = told(&[("status", "OFF")]);
        assert!(what.contains("fallen back after 10 s") && hint.unwrap().contains("caught up"), "{what}");
        assert!(told(&[("clients", "0")]).1.unwrap().contains("bkp daemon"));
        assert!(told(&[("wait_point", "AFTER_COMMIT")]).1.unwrap().contains("AFTER_SYNC"));
        assert!(told(&[("clients", "2")]).1.unwrap().contains("another replica"));
        assert_eq!(told(&[("clients", "2"), ("wait_for_slave_count", "2")]).1, None);
        assert!(SemiSync::examine(None).0.contains("no semi-synchronous replication"));
        assert!(!SemiSync::judge(None).is_on && !SemiSync::judge(Some(&server("source", &[("status", "OFF")]))).is_on);
    }
}
