//! Where a target stands beside a plan: short of its end, at it, or past it. Pure.

use crate::mysql::gtid::{Executed, GtidSet, Position, Uuid};
use crate::replay::plan::ReplayPlan;

impl ReplayPlan {
    /// Tells whether a position of MariaDB is the plan's end, in every domain of the source.
    #[must_use]
    pub fn is_end(&self, position: &str) -> bool {
        let found: Option<Position> = position.parse().ok();
        let Executed::MariaDb(state) = &self.executed else { return false };
        found.is_some_and(|found| self.of_source(&found) == state.position())
    }

    /// Tells whether a target, which writes under a name of its own, has executed more than is planned of what the binlogs are known
    /// to hold.
    #[must_use]
    pub fn is_exceeded_by(&self, executed: &Executed, own: Option<Uuid>) -> bool {
        is_exceeded(executed, &self.executed, &self.known, own)
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
fn is_exceeded(executed: &Executed, planned: &Executed, known: &Executed, own: Option<Uuid>) -> bool {
    match (executed, planned, known) {
        (Executed::MySql(executed), Executed::MySql(planned), Executed::MySql(known)) => {
            let more = executed.subtract(planned);
            // Where an origin is the source's, so is a number that no binlog holds yet: but for a former primary, which goes on
            // counting under the name that it had.
            has_origin_of(&more, planned, own) || more.subtract(known) != more
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

fn has_origin_of(set: &GtidSet, other: &GtidSet, own: Option<Uuid>) -> bool {
    let mut origins = set.iter().map(|(origin, _)| origin).filter(|origin| Some(origin.uuid()) != own);
    origins.any(|origin| other.iter().any(|(other, _)| origin == other))
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
        let is_past = |executed: &Executed, planned: &Executed| is_exceeded(executed, planned, planned, None);
        assert!(!is_past(&set(7), &set(7)) && !is_past(&set(7), &set(9)) && !is_past(&own, &set(7)));
        assert!(is_past(&set(8), &set(7)) && is_past(&own, &set(6)));
        assert!(!is_past(&mariadb("0-1-7"), &mariadb("0-1-7,3-1-2")) && !is_past(&mariadb("0-1-7"), &mariadb("0-2-9")));
        assert!(is_past(&mariadb("0-1-7,3-1-3"), &mariadb("0-1-7,3-1-2")));
    }

    #[test]
    fn the_first_transaction_of_a_new_origin_is_past_the_point_before_it() {
        let (planned, known) = (mysql(&format!("{SERVER}:1-7")), mysql(&format!("{SERVER}:1-9,{OTHER}:1-2")));
        assert!(is_exceeded(&mysql(&format!("{SERVER}:1-7,{OTHER}:1")), &planned, &known, None));
        assert!(!is_exceeded(&mysql(&format!("{SERVER}:1-7,{OTHER}:3")), &planned, &known, None), "the target's own");
        let tagged = mysql(&format!("{SERVER}:1-7:app:1"));
        assert!(is_exceeded(&tagged, &planned, &tagged, None) && !is_exceeded(&tagged, &planned, &planned, None));
    }

    #[test]
    fn what_a_former_primary_writes_as_a_target_is_not_past_the_point() {
        let (planned, own) = (mysql(&format!("{SERVER}:1-7,{OTHER}:1-3")), OTHER.parse().ok());
        let known = mysql(&format!("{SERVER}:1-9,{OTHER}:1-4"));
        assert!(!is_exceeded(&mysql(&format!("{SERVER}:1-7,{OTHER}:1-3:5-6")), &planned, &known, own));
        assert!(is_exceeded(&mysql(&format!("{SERVER}:1-7,{OTHER}:1-4")), &planned, &known, own), "the source has it");
        assert!(is_exceeded(&mysql(&format!("{SERVER}:1-10,{OTHER}:1-3")), &planned, &known, own));
    }

    #[test]
    fn a_domain_that_the_source_has_forgotten_is_not_past_the_point_and_a_new_one_is() {
        let (executed, planned) = (mariadb("0-1-7,3-1-3"), mariadb("0-1-7"));
        assert!(is_exceeded(&executed, &planned, &mariadb("0-1-9,3-1-3"), None));
        assert!(!is_exceeded(&executed, &planned, &mariadb("0-1-9"), None));
    }
}
