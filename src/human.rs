//! Figures, spans and moments as people read them. Everything that prints uses these, so that one thing looks one way.

mod ink;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub use ink::Ink;

/// Writes a count of bytes with a binary unit: `912 B`, `1.4 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut power = 0;
    // In tenths and rounded, so that 1,048,575 bytes are 1.0 MiB and never 1024.0 KiB.
    while power + 1 < UNITS.len() && in_tenths(count, power) >= 10_240 {
        power += 1;
    }
    let tenths = in_tenths(count, power);
    if tenths >= 1000 {
        format!("{} {}", (tenths + 5) / 10, UNITS[power])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power])
    }
}

/// Returns a count of bytes in tenths of the unit of that power (0: KiB), rounded.
fn in_tenths(count: u64, power: usize) -> u64 {
    let unit = 1024_u128 << (10 * power);
    let tenths = (u128::from(count) * 10 + unit / 2) / unit;
    u64::try_from(tenths).unwrap_or(u64::MAX)
}

/// Writes a rate in bytes: `81.3 MiB/s`; `–` where the span is too short to tell.
#[must_use]
pub fn rate(count: u64, span: Duration) -> String {
    per_second(count, span).map_or_else(|| "–".to_owned(), |rate| format!("{}/s", bytes(rate)))
}

/// Writes a rate in things: `12,400/s`; `–` where the span is too short to tell.
#[must_use]
pub fn count_rate(things: u64, span: Duration) -> String {
    per_second(things, span).map_or_else(|| "–".to_owned(), |rate| format!("{}/s", count(rate)))
}

fn per_second(count: u64, span: Duration) -> Option<u64> {
    let millis = span.as_millis();
    let rate = (u128::from(count) * 1000).checked_div(millis)?;
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// Writes a whole number with its thousands apart: `1,204,331`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number and its noun: `1 file`, `12,400 files`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Writes a span with its two largest units: `450 ms`, `3.2 s`, `4 min 12 s`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn duration(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let seconds = millis / 1000;
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..10_000 => format!("{seconds}.{} s", millis % 1000 / 100),
        10_000..60_000 => format!("{seconds} s"),
        60_000..3_600_000 => two_units(seconds / 60, "min", seconds % 60, "s"),
        3_600_000..86_400_000 => two_units(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two_units(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// Writes a span given in milliseconds, as [`duration`] does.
#[must_use]
pub fn millis(span: u64) -> String {
    duration(Duration::from_millis(span))
}

fn two_units(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
}

/// Writes how long ago a moment was: `just now`, `3 h ago`, or, ahead of us, `in 14 h`.
#[must_use]
pub fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let span = now.signed_duration_since(then);
    let text = coarse(span.abs());
    match text {
        None => "just now".to_owned(),
        Some(text) if span < TimeDelta::zero() => format!("in {text}"),
        Some(text) => format!("{text} ago"),
    }
}

/// Writes the largest unit of a span alone; `None` under five seconds.
fn coarse(span: TimeDelta) -> Option<String> {
    let seconds = span.num_seconds();
    Some(match seconds {
        i64::MIN..5 => return None,
        5..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    })
}

/// Writes a moment in a zone to the minute: `2026-03-01 02:15 KST`.
#[must_use]
pub fn time(moment: DateTime<Utc>, zone: Tz) -> String {
    moment.with_timezone(&zone).format("%Y-%m-%d %H:%M %Z").to_string()
}

/// Writes a moment in a zone to the second, with the offset that names it without doubt: `2026-03-01 02:15:07 +09:00`.
#[must_use]
pub fn exact_time(moment: DateTime<Utc>, zone: Tz) -> String {
    moment.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// Returns how many columns a text takes on a terminal: a Korean syllable takes two.
#[must_use]
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// Cuts or pads a text to exactly that many columns; what was cut off shows as `…`.
#[must_use]
pub fn fit(text: &str, columns: usize) -> String {
    let mut text = cut(text, columns);
    text.push_str(&" ".repeat(columns.saturating_sub(width(&text))));
    text
}

/// Cuts a text to at most that many columns; what was cut off shows as `…`.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used > columns {
            break;
        }
        short.push(letter);
    }
    short.push('…');
    short
}

/// Replaces what would steer a terminal (escape, newline, bell, …) by a visible sign: names come from outside.
#[must_use]
pub fn printable(text: &str) -> String {
    let sign = |letter: char| if letter.is_control() { '�' } else { letter };
    text.chars().map(sign).collect()
}

/// Does the same to each line of a text that has several.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Lists names in a sentence: `` `db1` and `images` ``.
#[must_use]
pub fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
}

/// Quotes a word for the shell where that is needed.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:,@".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Wraps a text at spaces to lines of at most that many columns; a longer word is cut.
#[must_use]
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = cut(word, columns);
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(&word) <= columns => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// Tells an error with all its causes: `dump database: connect to the server: connection refused`.
///
/// A cause that the text before it already ends with is not told twice.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap_or_default()
    }

    #[test]
    fn a_word_reaches_the_shell_as_it_is() {
        assert_eq!(shell_word("s3:https://host:9000/bucket/dr"), "s3:https://host:9000/bucket/dr");
        assert_eq!(shell_word("/mnt/a b's $HOME"), r"'/mnt/a b'\''s $HOME'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn bytes_keep_three_digits_and_never_show_1024_of_a_unit() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (105 * 1024 * 1024, "105 MiB"),
            (1_500_000_000, "1.4 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in table {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        let table = [
            (0, "0 ms"),
            (999, "999 ms"),
            (3_250, "3.2 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (252_000, "4 min 12 s"),
            (7_200_000, "2 h"),
            (7_500_000, "2 h 5 min"),
            (273_600_000, "3 d 4 h"),
        ];
        for (span, text) in table {
            assert_eq!(millis(span), text);
        }
    }

    #[test]
    fn an_age_looks_back_and_ahead() {
        let now = at("2026-03-01T12:00:00Z");
        let table = [
            ("2026-03-01T11:59:58Z", "just now"),
            ("2026-03-01T11:59:20Z", "40 s ago"),
            ("2026-03-01T08:30:00Z", "3 h ago"),
            ("2026-02-01T12:00:00Z", "28 d ago"),
            ("2026-03-02T02:15:00Z", "in 14 h"),
        ];
        for (then, text) in table {
            assert_eq!(age(at(then), now), text);
        }
    }

    #[test]
    fn times_are_in_the_zone_of_the_policy() {
        let moment = at("2026-02-28T17:15:07Z");
        assert_eq!(time(moment, chrono_tz::Asia::Seoul), "2026-03-01 02:15 KST");
        assert_eq!(exact_time(moment, chrono_tz::Asia::Seoul), "2026-03-01 02:15:07 +09:00");
    }

    #[test]
    fn wide_letters_count_two_columns() {
        assert_eq!(width("주문"), 4);
        assert_eq!(fit("주문", 6), "주문  ");
        assert_eq!(fit("주문과상품", 6), "주문… ");
        assert_eq!(cut("abcdef", 4), "abc…");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a�[2Jb�c");
    }

    #[test]
    fn wrapped_lines_fit_and_lose_no_word() {
        let text = "the newest backup of `db1` is older than the RPO of 5 min";
        let lines = wrap(text, 20);
        assert!(lines.iter().all(|line| width(line) <= 20), "{lines:?}");
        assert_eq!(lines.join(" "), text);
    }

    #[test]
    fn numbers_and_rates_read_easily() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1_204_331), "1,204,331");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(rate(104_857_600, Duration::from_secs(2)), "50.0 MiB/s");
        assert_eq!(rate(1, Duration::ZERO), "–");
        assert_eq!(count_rate(24_800, Duration::from_secs(2)), "12,400/s");
    }
}
