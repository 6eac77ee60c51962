//! The names of time zones, for a server that is thrown away.
//!
//! A new server knows offsets only, and what a dump or a binlog holds may name zones: `SET time_zone = 'Asia/Seoul'`. The tables are
//! those that `mysql_tzinfo_to_sql` fills, which not every server comes with; the zones are those by which bkp itself reckons. They
//! reach as far as `TIMESTAMP` did for most of its life, from 1970 to 2038.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Offset as _, TimeZone};
use chrono_tz::{OffsetComponents as _, OffsetName as _, TZ_VARIANTS, Tz};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::sql;

/// Unix seconds: a month before the first timestamp, and the last one.
const BEGIN: i64 = -31 * DAY;
const END: i64 = i32::MAX as i64;

const DAY: i64 = 86_400;

/// No clock was changed and changed back in less: a test looks at each day.
const STEP: i64 = 5 * DAY;

/// Rows of an INSERT: some 200 KiB, far below what a packet may have.
const INSERT_ROWS_MAX: usize = 10_000;

/// From a second on, an offset: its number among those of the zone.
type Span = (i64, usize);

/// What clocks show in a zone.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Clocks {
    kinds: Vec<Kind>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    /// Seconds east of Greenwich.
    offset: i32,
    is_summer: bool,
    abbreviation: String,
}

impl Kind {
    fn at(zone: Tz, second: i64) -> Self {
        let offset = offset_at(zone, second);
        Self {
            offset: offset.fix().local_minus_utc(),
            is_summer: !offset.dst_offset().is_zero(),
            abbreviation: offset.abbreviation().unwrap_or_default().to_owned(),
        }
    }
}

fn offset_at(zone: Tz, second: i64) -> <Tz as TimeZone>::Offset {
    let at = DateTime::from_timestamp(second, 0).unwrap_or_default();
    zone.offset_from_utc_datetime(&at.naive_utc())
}

impl Clocks {
    fn of(zone: Tz) -> Self {
        Self::by(zone, STEP)
    }

    fn by(zone: Tz, step: i64) -> Self {
        let mut clocks = Self::default();
        clocks.begin(zone, BEGIN);
        let mut second = BEGIN;
        let mut now = offset_at(zone, second);
        while second < END {
            let next = second + step;
            if offset_at(zone, next) == now {
                second = next;
                continue;
            }
            let (mut before, mut after) = (second, next);
            while after - before > 1 {
                let middle = before.midpoint(after);
                if offset_at(zone, middle) == now {
                    before = middle;
                } else {
                    after = middle;
                }
            }
            clocks.begin(zone, after);
            second = after;
            now = offset_at(zone, second);
        }
        clocks
    }

    fn begin(&mut self, zone: Tz, second: i64) {
        let kind = Kind::at(zone, second);
        let known = self.kinds.iter().position(|known| *known == kind);
        let number = known.unwrap_or_else(|| {
            self.kinds.push(kind);
            self.kinds.len() - 1
        });
        self.spans.push((second, number));
    }
}

/// The statements that fill the tables; every sandbox of this process has the same.
static FILL: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut zones: BTreeMap<Clocks, Vec<&str>> = BTreeMap::new();
    for zone in TZ_VARIANTS {
        zones.entry(Clocks::of(zone)).or_default().push(zone.name());
    }
    let [mut ids, mut names, mut kinds, mut spans] = [const { Vec::new() }; 4];
    for (id, (clocks, called)) in (1..).zip(&zones) {
        ids.push(format!("({id}, 'N')"));
        names.extend(called.iter().map(|name| format!("({}, {id})", sql::string(name))));
        for (number, kind) in clocks.kinds.iter().enumerate() {
            let (is_summer, abbreviation) = (u8::from(kind.is_summer), sql::string(&kind.abbreviation));
            kinds.push(format!("({id}, {number}, {}, {is_summer}, {abbreviation})", kind.offset));
        }
        spans.extend(clocks.spans.iter().map(|(second, number)| format!("({id}, {second}, {number})")));
    }
    let tables = [
        ("time_zone (Time_zone_id, Use_leap_seconds)", ids),
        ("time_zone_name (Name, Time_zone_id)", names),
        ("time_zone_transition_type (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation)", kinds),
        ("time_zone_transition (Time_zone_id, Transition_time, Transition_type_id)", spans),
    ];
    let insert = |table: &str, rows: &[String]| format!("INSERT INTO mysql.{table} VALUES {}", rows.join(","));
    tables.iter().flat_map(|(table, rows)| rows.chunks(INSERT_ROWS_MAX).map(|rows| insert(table, rows))).collect()
});

/// Finds the zones, which takes processor time: while a server starts, for example.
pub(super) fn prepare() {
    LazyLock::force(&FILL);
}

/// Fills the tables of a server that knows no zone yet.
pub(super) async fn fill(conn: &mut Conn) -> mysql_async::Result<()> {
    let known: Option<u64> = conn.query_first("SELECT COUNT(*) FROM mysql.time_zone_name").await?;
    if known.is_some_and(|known| known > 0) {
        return Ok(());
    }
    for statement in FILL.iter() {
        conn.query_drop(statement).await?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn told(zone: Tz) -> Vec<(i64, i32, bool, String)> {
        let clocks = Clocks::of(zone);
        let kind = |number: usize| clocks.kinds[number].clone();
        let span =
            |&(second, number): &Span| (second, kind(number).offset, kind(number).is_summer, kind(number).abbreviation);
        clocks.spans.iter().map(span).collect()
    }

    #[test]
    fn clocks_are_changed_to_the_second() {
        let changed = |at: &str| DateTime::parse_from_rfc3339(at).unwrap().timestamp();
        assert_eq!(
            told(Tz::Asia__Seoul),
            [
                (BEGIN, 32_400, false, "KST".to_owned()),
                (changed("1987-05-10T02:00:00+09:00"), 36_000, true, "KDT".to_owned()),
                (changed("1987-10-11T03:00:00+10:00"), 32_400, false, "KST".to_owned()),
                (changed("1988-05-08T02:00:00+09:00"), 36_000, true, "KDT".to_owned()),
                (changed("1988-10-09T03:00:00+10:00"), 32_400, false, "KST".to_owned()),
            ]
        );
        // A day was left out.
        let samoa = told(Tz::Pacific__Apia);
        assert!(
            samoa.iter().any(|span| span.0 == changed("2011-12-31T00:00:00+14:00") && span.1 == 50_400),
            "{samoa:?}"
        );
        assert_eq!(told(Tz::UTC), [(BEGIN, 0, false, "UTC".to_owned())]);
    }

    #[test]
    fn no_change_is_stepped_over() {
        assert!(TZ_VARIANTS.iter().all(|&zone| Clocks::of(zone) == Clocks::by(zone, DAY)));
    }

    #[test]
    fn every_zone_has_its_name_and_those_that_are_the_same_share_their_clocks() {
        let named = FILL.iter().filter(|statement| statement.starts_with("INSERT INTO mysql.time_zone_name "));
        let text: String = named.cloned().collect();
        assert!(TZ_VARIANTS.iter().all(|zone| text.contains(&format!("'{}'", zone.name()))));
        let zones = FILL[0].matches("'N'").count();
        assert!((200..TZ_VARIANTS.len()).contains(&zones), "{zones}");
    }
}
