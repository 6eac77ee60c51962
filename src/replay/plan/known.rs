//! Where a target stands beside a plan: short of its end, at it, or past it. Pure.

use crate::mysql::gtid::{Executed, GtidSet, Position};
use crate::replay::plan::ReplayPlan;

impl ReplayPlan {
    /// Tells whether a position of MariaDB is the plan's end, in every domain of the source.
    #[must_use]
    pub fn is_end(&self, position: &str) -> bool {
        let found: Option<Position> = position.parse().ok();
        let Executed::MariaDb(state) = &self.executed else { return false };
        found.is_some_and(|found| self.of_source(&found) == state.position())
    }

    /// Tells whether a target has executed more than is planned of what the binlogs are known to hold.
    #[must_use]
    pub fn is_exceeded_by(&self, executed: &Executed) -> bool {
        is_exceeded(executed, &self.executed, &self.known)
    }

    /// Leaves out the domains that neither the plan nor the binlogs know: the source has been told to forget them.
    pub(in crate::replay) fn of_source(&self, position: &Position) -> Position {
        let mut of_source = Position::default();
        let is_known = |domain| has_domain(&self.executed, domain) || has_domain(&self.known, domain);
        position.iter().filter(|gtid| is_known(gtid.domain)).for_each(|gtid| of_source.add(gtid));
        of_source
    }
}

/// What the source never did is a target's own, whatever name it bears.
fn is_exceeded(executed: &Executed, planned: &Executed, known: &Executed) -> bool {
    match (executed, planned, known) {
        (Executed::MySql(executed), Executed::MySql(planned), Executed::MySql(known)) => {
            let more = executed.subtract(planned);
            // Where an origin is the source's, so is a number that no binlog holds yet.
            has_origin_of(&more, planned) || more.subtract(known) != more
        }
        (Executed::MariaDb(executed), Executed::MariaDb(planned), _) => {
            let planned = planned.position();
            executed.iter().any(|gtid| match planned.get(gtid.domain) {
                Some(last) => last.sequence < gtid.sequence,
                None => has_domain(known, gtid.domain),
            })
        }
        _ => false,
    }
}

fn has_origin_of(set: &GtidSet, other: &GtidSet) -> bool {
    set.iter().any(|(origin, _)| other.iter().any(|(other, _)| origin == other))
}

fn has_domain(executed: &Executed, domain: u32) -> bool {
    matches!(executed, Executed::MariaDb(state) if state.iter().any(|gtid| gtid.domain == domain))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::manifest::Product;

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const OTHER: &str = "aaaaaaaa-71ca-11e1-9e33-c80aa9429562";

    fn mysql(text: &str) -> Executed {
        Executed::parse(Product::MySql, text).unwrap()
    }

    fn mariadb(text: &str) -> Executed {
        Executed::parse(Product::MariaDb, text).unwrap()
    }

    #[test]
    fn a_target_is_past_a_point_only_by_transactions_of_the_source() {
        let set = |last: u64| mysql(&format!("{SERVER}:1-{last}"));
        let own = mysql(&format!("{SERVER}:1-7,{OTHER}:1-3"));
        let is_past = |executed: &Executed, planned: &Executed| is_exceeded(executed, planned, planned);
        assert!(!is_past(&set(7), &set(7)) && !is_past(&set(7), &set(9)) && !is_past(&own, &set(7)));
        assert!(is_past(&set(8), &set(7)) && is_past(&own, &set(6)));
        assert!(!is_past(&mariadb("0-1-7"), &mariadb("0-1-7,3-1-2")) && !is_past(&mariadb("0-1-7"), &mariadb("0-2-9")));
        assert!(is_past(&mariadb("0-1-7,3-1-3"), &mariadb("0-1-7,3-1-2")));
    }

    #[test]
    fn the_first_transaction_of_a_new_origin_is_past_the_point_before_it() {
        let (planned, known) = (mysql(&format!("{SERVER}:1-7")), mysql(&format!("{SERVER}:1-9,{OTHER}:1-2")));
        assert!(is_exceeded(&mysql(&format!("{SERVER}:1-7,{OTHER}:1")), &planned, &known));
        assert!(!is_exceeded(&mysql(&format!("{SERVER}:1-7,{OTHER}:3")), &planned, &known), "the target's own");
        let tagged = mysql(&format!("{SERVER}:1-7:app:1"));
        assert!(is_exceeded(&tagged, &planned, &tagged) && !is_exceeded(&tagged, &planned, &planned));
    }

    #[test]
    fn a_domain_that_the_source_has_forgotten_is_not_past_the_point_and_a_new_one_is() {
        let (executed, planned) = (mariadb("0-1-7,3-1-3"), mariadb("0-1-7"));
        assert!(is_exceeded(&executed, &planned, &mariadb("0-1-9,3-1-3")));
        assert!(!is_exceeded(&executed, &planned, &mariadb("0-1-9")));
    }
}
