//! Single values: read into their types, each fault noted with its key.
//!
//! A faulty value becomes some value of its type, so that the rest is checked too; nobody sees it, for faults refuse the whole.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};

use crate::policy::error::Fault;
use crate::policy::locate::Places;
use crate::policy::units;
use crate::schedule::Cron;
use crate::secret::SecretSource;

/// Notes the faults of one file.
pub(super) struct Checker<'a> {
    pub(super) places: &'a Places,
    pub(super) faults: Vec<Fault>,
}

/// The three keys of which at most one says where a secret is.
pub(super) struct RawSecret {
    pub(super) file: Option<String>,
    pub(super) command: Option<String>,
    pub(super) credential: Option<String>,
}

impl Checker<'_> {
    pub(super) fn fault(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault {
            line: self.places.line_of(key),
            key: key.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    /// A name goes into file names, tags and unit names, so it is kept plain.
    pub(super) fn name(&mut self, key: &str, name: &str) {
        const CHARS_MAX: usize = 64;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let starts_well = !name.starts_with(['-', '_']) && !name.is_empty();
        if !starts_well || !name.chars().all(is_plain) || name.len() > CHARS_MAX {
            let remedy = "use up to 64 small letters, digits, `-` and `_`, with a letter or digit first";
            self.fault(key, format!("is not a name: {name:?}"), remedy);
        }
    }

    /// A path is absolute: cron and systemd start bkp elsewhere than the shell in which the policy was tried, and `~` is
    /// another home for another user.
    pub(super) fn path(&mut self, key: &str, text: &str) -> PathBuf {
        let path = Path::new(text);
        if !path.is_absolute() {
            let remedy = "write it from `/` on: cron and systemd start bkp in another directory than your shell";
            self.fault(key, format!("is not an absolute path: {text:?}"), remedy);
        } else if path.components().any(|part| part == Component::ParentDir) {
            self.fault(key, format!("has `..` in it: {text:?}"), "write the path without it");
        }
        path.components().collect()
    }

    pub(super) fn optional_path(&mut self, key: &str, text: Option<&str>) -> Option<PathBuf> {
        text.map(|text| self.path(key, text))
    }

    pub(super) fn span(&mut self, key: &str, text: Option<&str>) -> Option<Duration> {
        text.and_then(|text| self.unit(key, text, units::span))
    }

    pub(super) fn unit<T>(&mut self, key: &str, text: &str, read: fn(&str) -> Result<T, units::Wrong>) -> Option<T> {
        match read(text) {
            Ok(value) => Some(value),
            Err((what, remedy)) => {
                self.fault(key, format!("{what}: {text:?}"), remedy);
                None
            }
        }
    }

    /// Reads a whole number within limits.
    pub(super) fn number<T: TryFrom<i64> + TryInto<i64> + Copy>(
        &mut self,
        key: &str,
        value: Option<i64>,
        default: T,
        limits: RangeInclusive<i64>,
    ) -> T {
        let Some(value) = value else { return default };
        if limits.contains(&value) {
            return T::try_from(value).unwrap_or(default);
        }
        let (least, most) = (limits.start(), limits.end());
        let remedy = if *most == i64::from(u32::MAX) {
            format!("write {least} or more")
        } else {
            format!("write a number from {least} to {most}")
        };
        self.fault(key, format!("is out of its limits: {value}"), remedy);
        default
    }

    pub(super) fn timezone(&mut self, key: &str, text: Option<&str>) -> Tz {
        let Some(text) = text else { return Tz::UTC };
        text.parse().unwrap_or_else(|_| {
            let names = TZ_VARIANTS.iter().map(|zone| zone.name());
            let remedy = match near(text, names) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "write the zone's IANA name, as `timedatectl list-timezones` lists them".to_owned(),
            };
            self.fault(key, format!("is not a time zone: {text:?}"), remedy);
            Tz::UTC
        })
    }

    pub(super) fn cron(&mut self, key: &str, text: Option<&str>) -> Option<Cron> {
        match Cron::parse(text?) {
            Ok(cron) => Some(cron),
            Err(error) => {
                let what = error.to_string();
                let what = what.split_once("`: ").map_or(what.as_str(), |(_, what)| what);
                self.fault(key, format!("is not a schedule: {what}"), error.hint());
                None
            }
        }
    }

    /// Reads one of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, text: Option<&str>, words: &[(&str, T)]) -> Option<T> {
        let text = text?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.fault(key, format!("is unknown: {text:?}"), format!("write {}", words.join(" or ")));
        None
    }

    /// Reads `…_file`, `…_command` or `…_credential`.
    pub(super) fn secret(&mut self, key: &str, raw: RawSecret) -> Option<SecretSource> {
        let file = raw.file.map(|file| SecretSource::File(self.path(&format!("{key}_file"), &file)));
        let command = raw.command.map(SecretSource::Command);
        let credential = raw.credential.map(SecretSource::Credential);
        if let Some(SecretSource::Credential(name)) = &credential
            && (name.is_empty() || name.contains(['/', ':', ' ']))
        {
            self.fault(&format!("{key}_credential"), "is not a credential's name", "write a file name without a slash");
        }
        if let Some(SecretSource::Command(command)) = &command
            && command.trim().is_empty()
        {
            self.fault(&format!("{key}_command"), "is empty", "write the command that prints the secret");
        }
        let mut sources = [file, command, credential].into_iter().flatten();
        let first = sources.next();
        if sources.next().is_some() {
            let remedy = format!("keep one of {key}_file, {key}_command and {key}_credential");
            self.fault(&format!("{key}_command"), "is one of several places for one secret", remedy);
        }
        first
    }

    pub(super) fn not_empty(&mut self, key: &str, text: &str) {
        if text.trim().is_empty() {
            self.fault(key, "is empty", "write a value, or leave the key out");
        }
    }
}

/// Returns the word that a misspelled one is most like.
pub(in crate::policy) fn near<'a>(wrong: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LIKENESS_MIN: f64 = 0.8;
    let lower = wrong.to_lowercase();
    let likeness = |word: &str| strsim::jaro_winkler(&lower, &word.to_lowercase());
    words
        .map(|word| (likeness(word), word))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, word)| word)
}
