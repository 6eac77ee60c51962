//! How dumps make way for the application.

use std::time::Duration;

use chrono::NaiveTime;

use crate::policy::check::fields::Checker;
use crate::policy::raw::{RawHours, RawThrottle};
use crate::policy::units;
use crate::policy::{Hours, Limits, Policy, Throttle};

/// The server drops a session whose rows nobody takes for a day; half of it is far from that, and no dump is worth as much.
const PAUSE_MAX_LIMIT: Duration = Duration::from_hours(12);

/// No server runs more threads, whatever its `max_connections`.
const THREADS_MAX: i64 = 100_000;

/// Gives each source the policy's zone and pause file.
pub(super) fn hand_down(policy: &mut Policy) {
    let (timezone, pause_file) = (policy.timezone, policy.pause_file());
    for source in policy.mysql.values_mut() {
        source.throttle.timezone = timezone;
        source.throttle.pause_file = Some(pause_file.clone());
    }
}

impl Checker<'_> {
    /// Zone and pause file follow in [`hand_down`].
    pub(super) fn throttle(&mut self, key: &str, raw: &RawThrottle) -> Throttle {
        let hours: Vec<Hours> =
            raw.hours.iter().enumerate().map(|(rank, raw)| self.hours(&format!("{key}.hours[{rank}]"), raw)).collect();
        Throttle {
            usual: self.limits(key, raw.threads_running_max, raw.bandwidth.as_deref()),
            hours,
            pause_max: self.pause_max(&format!("{key}.pause_max"), raw.pause_max.as_deref()),
            ..Throttle::default()
        }
    }

    fn limits(&mut self, key: &str, threads: Option<i64>, bandwidth: Option<&str>) -> Limits {
        let threads_key = format!("{key}.threads_running_max");
        Limits {
            threads_running_max: threads
                .map(|threads| self.number(&threads_key, Some(threads), 1_u32, 1..=THREADS_MAX)),
            bandwidth: bandwidth.and_then(|text| self.unit(&format!("{key}.bandwidth"), text, units::rate)),
        }
    }

    fn hours(&mut self, key: &str, raw: &RawHours) -> Hours {
        if raw.threads_running_max.is_none() && raw.bandwidth.is_none() {
            self.fault(key, "limits nothing", "add `bandwidth = \"20MB/s\"` or `threads_running_max = 20`");
        }
        let mut time = |field: &str, text: &str| {
            self.unit(&format!("{key}.{field}"), text, units::time_of_day).unwrap_or(NaiveTime::MIN)
        };
        let (from, to) = (time("from", &raw.from), time("to", &raw.to));
        Hours { from, to, limits: self.limits(key, raw.threads_running_max, raw.bandwidth.as_deref()) }
    }

    fn pause_max(&mut self, key: &str, text: Option<&str>) -> Duration {
        let pause_max = self.span(key, text).unwrap_or(Throttle::PAUSE_MAX_DEFAULT);
        if pause_max > PAUSE_MAX_LIMIT {
            let remedy = "write 12h or less: all the while the server keeps old rows for the dump";
            self.fault(key, format!("is out of its limits: {:?}", text.unwrap_or_default()), remedy);
        }
        pause_max
    }
}
