//! Times in JSON as Go's `time.Time` has them: RFC 3339, nanoseconds without trailing zeros.

use std::fmt;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserializer, Serializer, de};

/// Prints a time. Years that four digits cannot hold are clamped, as restic does; a leap day that the clamped year does not have is
/// the day after, as Go counts it.
pub(crate) fn print(time: &DateTime<Utc>) -> String {
    let year = time.year().clamp(0, 9999);
    let clamped = time.with_year(year).or_else(|| (*time + TimeDelta::days(1)).with_year(year)).unwrap_or(*time);
    let mut text = format!("{year:04}{}", clamped.format("-%m-%dT%H:%M:%S%.9f"));
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text.push('Z');
    text
}

/// Reads a time with any offset.
pub(crate) fn parse(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

pub(crate) fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&print(time))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    deserializer.deserialize_str(TimeText)
}

struct TimeText;

impl de::Visitor<'_> for TimeText {
    type Value = DateTime<Utc>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time as RFC 3339 has it")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> String {
        print(&parse(text).unwrap_or_default())
    }

    #[test]
    fn trailing_zeros_of_the_fraction_are_left_out() {
        assert_eq!(again("2026-02-03T04:05:06.120000000Z"), "2026-02-03T04:05:06.12Z");
        assert_eq!(again("2026-02-03T04:05:00.000000001Z"), "2026-02-03T04:05:00.000000001Z");
        assert_eq!(again("2026-02-03T04:05:00Z"), "2026-02-03T04:05:00Z");
        assert_eq!(again("2026-02-03T04:05:10+00:00"), "2026-02-03T04:05:10Z");
    }

    #[test]
    fn an_offset_is_the_same_moment_in_utc() {
        assert_eq!(again("2015-01-02T18:10:50.895208559+01:00"), "2015-01-02T17:10:50.895208559Z");
    }

    #[test]
    fn a_year_of_five_digits_is_clamped() {
        let far = DateTime::from_timestamp(400_000_000_000, 0).unwrap_or_default();
        assert!(print(&far).starts_with("9999-"), "{}", print(&far));
        assert!(parse(&print(&far)).is_some());
        let leap_day = DateTime::from_timestamp(316_521_302_400, 5).unwrap_or_default();
        assert_eq!(leap_day.to_rfc3339(), "+12000-02-29T00:00:00.000000005+00:00");
        assert_eq!(print(&leap_day), "9999-03-01T00:00:00.000000005Z");
    }
}
