//! The five fields of crontab(5), and the days and times that they name.
//!
//! The `cron` crate reads the fields, after what it takes otherwise than crontab(5) has been rewritten: it wants seconds,
//! and its week begins with Sunday as 1. It is not asked for dates: it ANDs the two day fields and loses times where clocks change.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use cron::TimeUnitSpec;

/// A schedule in the five fields of crontab(5), or one of its `@` names.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    /// Bit n stands for minute n; likewise below.
    pub(super) minutes: u64,
    pub(super) hours: u64,
    days: u64,
    months: u64,
    /// Bit 0 stands for Sunday.
    weekdays: u64,
    /// One of the day fields begins with `*`, so a day must satisfy both; otherwise either is enough.
    is_both: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error("read the schedule `{text}`: it has {count} fields and not five")]
    Fields { text: String, count: usize },
    #[error("read the schedule `{text}`: {field} `{item}` is no value, range or step of {wanted}")]
    Item { text: String, field: &'static str, item: String, wanted: &'static str },
    #[error("read the schedule `{text}`: crontab has no such name")]
    Name { text: String },
    #[error("read the schedule `{text}`: no day is ever like this")]
    Never { text: String },
}

impl CronError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Fields { count: 6, .. } => {
                "write minute, hour, day, month and weekday; there are no seconds".to_owned()
            }
            Self::Fields { .. } => {
                "write minute, hour, day, month and weekday: \"15 2 * * *\" is daily at 02:15".to_owned()
            }
            Self::Item { item, .. } => match item.split_once('/') {
                Some((start, step)) if start.parse::<u8>().is_ok() => {
                    format!("a step wants a range: `*/{step}`, or from {start} on `{start}-LAST/{step}`")
                }
                _ => "a field is `*`, values, ranges `a-b` and steps `*/n`, joined by commas".to_owned(),
            },
            Self::Name { .. } => "there are @hourly, @daily, @weekly, @monthly and @yearly".to_owned(),
            Self::Never { .. } => "choose a day that the month has".to_owned(),
        }
    }
}

impl Cron {
    /// Reads five fields or an `@` name.
    ///
    /// # Errors
    /// What crontab(5) does not allow, and what never fires (30 February).
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let text = text.trim();
        let fields = unalias(text)?;
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            let (text, count) = (text.to_owned(), fields.len());
            return Err(CronError::Fields { text, count });
        };
        let read = |field: &Field, value: &str| field.read(value).map_err(|item| field.fault(text, item));
        let cron = Self {
            text: text.to_owned(),
            minutes: read(&MINUTE, minute)?,
            hours: read(&HOUR, hour)?,
            days: read(&DAY, day)?,
            months: read(&MONTH, month)?,
            weekdays: read(&WEEKDAY, weekday)?,
            is_both: day.starts_with('*') || weekday.starts_with('*'),
        };
        if cron.has_a_day() { Ok(cron) } else { Err(CronError::Never { text: text.to_owned() }) }
    }

    /// Returns the text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Tells whether it fires in every hour of its days, and so follows the real clock where clocks change.
    #[must_use]
    pub fn is_hourly(&self) -> bool {
        self.hours.count_ones() == 24
    }

    pub(super) fn is_on(&self, date: NaiveDate) -> bool {
        let has = |bits: u64, bit: u32| bits >> bit & 1 == 1;
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().num_days_from_sunday());
        has(self.months, date.month()) && if self.is_both { day && weekday } else { day || weekday }
    }

    fn has_a_day(&self) -> bool {
        // The Gregorian calendar repeats its weekdays after 400 years; 29 February on each weekday comes within 40.
        const DAYS_MAX: usize = 40 * 366;
        let mut dates = NaiveDate::default().iter_days().take(DAYS_MAX);
        dates.any(|date| self.is_on(date))
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.text)
    }
}

fn unalias(text: &str) -> Result<Vec<&str>, CronError> {
    let fields = match text.to_ascii_lowercase().as_str() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        name if name.starts_with('@') => {
            return Err(CronError::Name { text: text.to_owned() });
        }
        _ => text,
    };
    Ok(fields.split_whitespace().collect())
}

/// One of the five fields: what it is called, what it may hold, and how the crate is asked for it.
struct Field {
    name: &'static str,
    wanted: &'static str,
    names: &'static [&'static str],
    /// The value of the first name.
    names_from: u32,
    /// The largest value that crontab(5) allows.
    max: u32,
    /// The crate's expression round this field.
    around: (&'static str, &'static str),
    set: fn(&cron::Schedule) -> u64,
}

static MINUTE: Field = Field {
    name: "minute",
    wanted: "0-59",
    names: &[],
    names_from: 0,
    max: 59,
    around: ("0 ", " * * * *"),
    set: |schedule| bits(schedule.minutes()),
};
static HOUR: Field = Field {
    name: "hour",
    wanted: "0-23",
    names: &[],
    names_from: 0,
    max: 23,
    around: ("0 0 ", " * * *"),
    set: |schedule| bits(schedule.hours()),
};
static DAY: Field = Field {
    name: "day of month",
    wanted: "1-31",
    names: &[],
    names_from: 0,
    max: 31,
    around: ("0 0 0 ", " * *"),
    set: |schedule| bits(schedule.days_of_month()),
};
static MONTH: Field = Field {
    name: "month",
    wanted: "1-12 or jan-dec",
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    names_from: 1,
    max: 12,
    around: ("0 0 0 * ", " *"),
    set: |schedule| bits(schedule.months()),
};
static WEEKDAY: Field = Field {
    name: "weekday",
    wanted: "0-7 or sun-sat (Sunday is 0 and 7)",
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    names_from: 0,
    max: 7,
    around: ("0 0 0 * * ", ""),
    // The crate's Sunday is 1.
    set: |schedule| bits(schedule.days_of_week()) >> 1,
};

impl Field {
    /// Returns the values as bits, or the item that is none.
    fn read<'a>(&self, value: &'a str) -> Result<u64, &'a str> {
        let mut items = Vec::new();
        for item in value.split(',') {
            items.push(self.rewrite(item).ok_or(item)?);
        }
        let (before, after) = self.around;
        let expression = format!("{before}{}{after}", items.join(","));
        let schedule = cron::Schedule::from_str(&expression).map_err(|_| value)?;
        Ok((self.set)(&schedule))
    }

    /// Returns an item as the crate takes it: numbers instead of names, weekdays one by one.
    fn rewrite(&self, item: &str) -> Option<String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.min(), if self.is_weekday() { 6 } else { self.max }),
            Some((first, last)) => (self.value(first)?, self.range_end(last)?),
            // crontab(5) gives a step to ranges only; what `5/15` does differs from one cron to the next.
            None if step.is_some() => return None,
            None => (self.value(range)?, self.value(range)?),
        };
        if first > last {
            return None;
        }
        let step = step.unwrap_or(1);
        if !self.is_weekday() {
            return Some(format!("{first}-{last}/{step}"));
        }
        let days = (first..=last).step_by(usize::try_from(step).ok()?);
        let days: Vec<String> = days.map(|day| (day % 7 + 1).to_string()).collect();
        Some(days.join(","))
    }

    fn min(&self) -> u32 {
        u32::from(self.name == DAY.name || self.name == MONTH.name)
    }

    fn is_weekday(&self) -> bool {
        self.name == WEEKDAY.name
    }

    fn value(&self, text: &str) -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        if let Some(rank) = self.names.iter().position(|name| *name == lower) {
            return Some(self.names_from + u32::try_from(rank).ok()?);
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse().ok().filter(|_| is_number)?;
        (self.min()..=self.max).contains(&value).then_some(value)
    }

    /// In `sat-sun` Sunday is the seventh day.
    fn range_end(&self, text: &str) -> Option<u32> {
        match self.value(text)? {
            0 if self.is_weekday() && !text.starts_with('0') => Some(7),
            value => Some(value),
        }
    }

    fn fault(&self, text: &str, item: &str) -> CronError {
        CronError::Item { text: text.to_owned(), field: self.name, item: item.to_owned(), wanted: self.wanted }
    }
}

fn bits(values: &impl TimeUnitSpec) -> u64 {
    values.iter().fold(0, |bits, value| bits | 1 << value)
}
