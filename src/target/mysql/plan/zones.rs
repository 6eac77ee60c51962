//! Events are made in the time zone that they were made in, and a server may not know it by its name.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};

use crate::mysql::manifest::ObjectKind;
use crate::target::mysql::dump::DumpReader;
use crate::target::mysql::objects::dumped;
use crate::target::mysql::plan::{LoadPlan, objects};
use crate::target::mysql::state::TargetState;
use crate::target::mysql::tables::DEFINITIONS_IN_FLIGHT_MAX;

impl LoadPlan {
    /// Notes which events the target will refuse. Of one that cannot be read the load will tell, once the rows are there.
    pub(super) async fn note_unknown_zones(&mut self, dump: &dyn DumpReader, state: &TargetState) {
        let Some(known) = &state.abilities.zones else { return };
        let events = || self.objects.iter().map(|step| &step.object).filter(|object| object.kind == ObjectKind::Event);
        let paths: Vec<String> = events().map(|event| event.statements.clone()).collect();
        let reading = stream::iter(paths).map(|path| dumped(dump, path)).buffered(DEFINITIONS_IN_FLIGHT_MAX);
        let read: Vec<Vec<String>> = reading.map(Result::unwrap_or_default).collect().await;
        let mut wanting: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (event, statements) in events().zip(&read) {
            let zone = zone(statements).filter(|zone| is_named(zone) && !known.contains(&zone.to_lowercase()));
            if let Some(zone) = zone {
                wanting.entry(zone.to_owned()).or_default().insert(objects::describe(event));
            }
        }
        for (zone, events) in wanting {
            let first = events.first().map_or("", String::as_str);
            let more = if events.len() > 1 { format!(" and {} more", events.len() - 1) } else { String::new() };
            self.notes.push(format!(
                "the target does not know the time zone {zone}: {first}{more} will not come, and the restore ends with 3, unless its tables of \
                 zones are loaded first (mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql)"
            ));
        }
    }
}

/// Returns the zone that the statements of a dump set before anything else.
fn zone(statements: &[String]) -> Option<&str> {
    let mut set = statements.iter().filter_map(|statement| statement.strip_prefix("SET SESSION time_zone = '"));
    set.next()?.strip_suffix('\'')
}

/// Offsets and the machine's own zone are known to all.
fn is_named(zone: &str) -> bool {
    !zone.starts_with(['+', '-']) && !zone.eq_ignore_ascii_case("SYSTEM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_is_the_first_that_is_set() {
        let all = [
            "USE `shop`",
            "SET SESSION time_zone = 'Asia/Seoul'",
            "CREATE EVENT e DO DO 1",
            "SET SESSION time_zone = '+00:00'",
        ];
        let event: Vec<String> = all.map(str::to_owned).into();
        assert_eq!(zone(&event), Some("Asia/Seoul"));
        assert_eq!(zone(&event[2..]), Some("+00:00"));
        assert_eq!(zone(&event[..1]), None);
    }

    #[test]
    fn offsets_and_the_machines_own_zone_have_no_name() {
        assert!(["+09:00", "-03:30", "SYSTEM", "system"].iter().all(|zone| !is_named(zone)));
        assert!(["UTC", "Asia/Seoul", "MET"].iter().all(|zone| is_named(zone)));
    }
}
