//! How a server's binlog is captured.

use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::policy::check::fields::Checker;
use crate::policy::raw::{RawBinlog, RawMysql};
use crate::policy::{Ack, CapturePlan, Policy};

const WINDOW: Duration = Duration::from_hours(7 * 24);
const INTERVAL: Duration = Duration::from_mins(1);

/// What is not in the repository is lost with this machine.
const INTERVAL_MAX: Duration = Duration::from_hours(24);

/// Operators number their replicas from below.
const SERVER_ID_MIN: u32 = 1 << 31;

impl Checker<'_> {
    pub(super) fn binlog(&mut self, key: &str, raw: &RawBinlog) -> Option<CapturePlan> {
        let at = |field: &str| format!("{key}.{field}");
        let window = self.span(&at("window"), raw.window.as_deref()).unwrap_or(WINDOW);
        let interval = self.span(&at("interval"), raw.interval.as_deref()).unwrap_or(INTERVAL);
        if interval > INTERVAL_MAX {
            let what = format!("is out of its limits: {:?}", raw.interval.as_deref().unwrap_or_default());
            self.fault(
                &at("interval"),
                what,
                "write 1d or less: what is not in the repository is lost with this machine",
            );
        }
        let spool = self.optional_path(&at("spool"), raw.spool.as_deref()).unwrap_or_default();
        // Zero stands for the default until the names are known.
        let server_id = self.number(&at("server_id"), raw.server_id, 0_u32, 1..=i64::from(u32::MAX));
        let ack = self.word(&at("ack"), raw.ack.as_deref(), &[("off", Ack::Off), ("spool", Ack::Spool)]);
        raw.capture.then_some(CapturePlan { window, interval, spool, server_id, ack: ack.unwrap_or_default() })
    }

    /// What a standby has not got yet must still be captured.
    pub(super) fn standby_delay(&mut self, key: &str, raw: &RawMysql) -> Duration {
        let at = format!("{key}.standby.delay");
        let delay = self.span(&at, raw.standby.delay.as_deref()).unwrap_or_default();
        let window = self.span(&format!("{key}.binlog.window"), raw.binlog.window.as_deref()).unwrap_or(WINDOW);
        if delay >= window {
            let what =
                format!("is not within the capture's window: {:?}", raw.standby.delay.as_deref().unwrap_or_default());
            self.fault(&at, what, "make it shorter, or `binlog.window` longer");
        }
        delay
    }
}

/// Gives each capture what comes from the policy: a place in its state directory, and a number that no other of ours has.
pub(super) fn hand_down(policy: &mut Policy) {
    for (name, source) in &mut policy.mysql {
        let Some(plan) = &mut source.binlog else { continue };
        if plan.spool == PathBuf::new() {
            plan.spool = policy.state_dir.join("binlog");
        } else {
            // Another policy may name the same directory, and a source of its own by the same name.
            plan.spool.push(&policy.name);
        }
        if plan.server_id == 0 {
            plan.server_id = server_id(&policy.name, name);
        }
    }
}

fn server_id(policy: &str, source: &str) -> u32 {
    let digest = Sha256::digest(format!("{policy}/{source}"));
    let [a, b, c, d, ..] = digest[..] else { return SERVER_ID_MIN };
    u32::from_be_bytes([a, b, c, d]) | SERVER_ID_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_captures_of_one_server_have_numbers_of_their_own_in_the_upper_range() {
        let numbers = [server_id("mall", "db1"), server_id("mall", "db2"), server_id("mail", "db1")];
        assert!(numbers.iter().all(|number| *number >= SERVER_ID_MIN), "{numbers:?}");
        assert!(numbers[0] != numbers[1] && numbers[0] != numbers[2] && numbers[1] != numbers[2]);
        assert_eq!(server_id("mall", "db1"), server_id("mall", "db1"));
    }
}
