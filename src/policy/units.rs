//! Spans, rates and shares as a policy writes them.

use std::time::Duration;

use chrono::NaiveTime;

/// What is wrong with a value, and how it is written.
pub(super) type Wrong = (&'static str, &'static str);

const SPAN: Wrong = ("is not a span of time", "write a number and s, m, h, d or w: \"90s\", \"5m\", \"1h30m\", \"7d\"");
const RATE: Wrong = ("is not a rate", "write bytes a second: \"80MiB/s\", \"500KB/s\"");
const TIME_OF_DAY: Wrong = ("is not a time of day", "write hours and minutes: \"09:00\", \"23:30\"");
const SHARE: Wrong = ("is not a share", "write a percentage from 0% to 100%: \"20%\"");

/// A hundred years are a slip of the finger, and more would overflow the calendar.
const S_MAX: u64 = 100 * 366 * 86400;

/// Reads `90s`, `5m`, `2h`, `7d`, `1h30m`; never zero.
pub(super) fn span(text: &str) -> Result<Duration, Wrong> {
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or(SPAN)?;
        let unit = after.chars().next().ok_or(SPAN)?;
        let unit_s = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            'w' => 7 * 86400,
            _ => return Err(SPAN),
        };
        seconds = number.checked_mul(unit_s).and_then(|part| seconds.checked_add(part)).ok_or(SPAN)?;
        rest = after.get(unit.len_utf8()..).unwrap_or_default();
    }
    if seconds == 0 || seconds > S_MAX { Err(SPAN) } else { Ok(Duration::from_secs(seconds)) }
}

/// Reads `80MiB/s` as bytes a second; never zero.
pub(super) fn rate(text: &str) -> Result<u64, Wrong> {
    let (number, unit) = number(text.trim()).ok_or(RATE)?;
    let factor: u64 = match unit.trim_start().strip_suffix("/s").ok_or(RATE)? {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(RATE),
    };
    number.checked_mul(factor).filter(|rate| *rate > 0).ok_or(RATE)
}

/// Reads `09:00`; `24:00` is the midnight at the day's end.
pub(super) fn time_of_day(text: &str) -> Result<NaiveTime, Wrong> {
    let is_plain = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let text = if text == "24:00" { "00:00" } else { text };
    NaiveTime::parse_from_str(text, "%H:%M").ok().filter(|_| is_plain).ok_or(TIME_OF_DAY)
}

/// Reads `20%` as 0.2.
pub(super) fn share(text: &str) -> Result<f64, Wrong> {
    let number = text.strip_suffix('%').ok_or(SHARE)?;
    let percent: f64 = number.trim_end().parse().map_err(|_| SHARE)?;
    if (0.0..=100.0).contains(&percent) { Ok(percent / 100.0) } else { Err(SHARE) }
}

/// Splits the whole number off that a text begins with.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]

    use std::time::Duration;

    use chrono::NaiveTime;

    use crate::policy::units::{rate, share, span, time_of_day};

    #[test]
    fn values_mean_what_they_say() {
        for (text, seconds) in
            [("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1w", 604_800), ("1h30m", 5400)]
        {
            assert_eq!(span(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for (text, bytes) in [("80MiB/s", 80 << 20), ("500KB/s", 500_000), ("1 GB/s", 1_000_000_000), ("7B/s", 7)] {
            assert_eq!(rate(text).unwrap(), bytes, "{text}");
        }
        for (text, hour, minute) in [("09:00", 9, 0), ("23:59", 23, 59), ("00:00", 0, 0), ("24:00", 0, 0)] {
            assert_eq!(time_of_day(text).ok(), NaiveTime::from_hms_opt(hour, minute, 0), "{text}");
        }
        for (text, part) in [("20%", 0.2), ("0%", 0.0), ("100%", 1.0), ("2.5 %", 0.025)] {
            assert_eq!(share(text).unwrap(), part, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in ["", "5", "m", "5x", "0s", "-5m", "5m3", "1.5h", "99999999999999999999s", "500w500w500000w", "5 m"]
        {
            assert!(span(text).is_err(), "{text}");
        }
        for text in ["", "80", "80MiB", "80Mbit/s", "MiB/s", "0MiB/s", "-1MB/s", "99999999999GiB/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for text in ["", "9:00", "09", "24:01", "09:60", "09:00:00", " 9:00", "+9:00", "9 am"] {
            assert!(time_of_day(text).is_err(), "{text}");
        }
        for text in ["", "20", "0.2", "101%", "-1%", "NaN%", "inf%", "%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
