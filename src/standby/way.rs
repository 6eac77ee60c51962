//! The captured segments that a standby still needs, and what stands in their way. Pure.

use chrono::{DateTime, Utc};

use crate::capture::Chain;
use crate::capture::chain::{Epoch, Segment};
use crate::mysql::gtid::{Executed, Gtid, GtidError, MariaDbGtid};
use crate::mysql::manifest::Product;
use crate::standby::StandbyError;

/// The segments of one epoch from the first that holds something a standby has not executed, up to a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) product: Product,
    pub(super) version: String,
    pub(super) segments: Vec<Segment>,
    pub(super) end: Option<End>,
    /// All that the source had committed by then is in the segments.
    pub(super) as_of: Option<DateTime<Utc>>,
}

/// Why nothing leads on from the last segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The last file before it, and the first behind it.
    pub(super) between: (String, String),
    pub(super) why: String,
}

impl Way {
    /// Finds what a standby needs that follows an epoch and has executed this.
    pub(super) fn new(chain: &Chain, number: u32, executed: &Executed) -> Result<Self, StandbyError> {
        let no_way = || StandbyError::NoWay { source_name: chain.source.clone(), executed: executed.to_string() };
        let epoch = chain.epochs.iter().find(|epoch| epoch.number == number).ok_or_else(no_way)?;
        let product = epoch.server.product;
        let mut first = None;
        for (nth, segment) in epoch.segments.iter().enumerate().rev() {
            let Some(before) = &segment.before else { continue };
            if holds(executed, &Executed::parse(product, before)?) {
                first = Some(nth);
                break;
            }
        }
        let first = first.ok_or_else(|| match epoch.segments.last() {
            Some(last) if last.before.is_none() => StandbyError::NotNext(last.file.clone()),
            _ => no_way(),
        })?;
        let (segments, end) = up_to_gap(chain, epoch, first);
        let as_of = chain.as_of.filter(|_| end.is_none());
        Ok(Self { product, version: epoch.server.version.clone(), segments, end, as_of })
    }

    /// Returns all that the segments hold, and what their server had executed before them.
    pub(super) fn known(&self) -> Result<Executed, GtidError> {
        let mut known = Executed::new(self.product);
        for segment in &self.segments {
            known.add_all(&Executed::parse(self.product, segment.before.as_deref().unwrap_or_default())?);
            known.add_all(&segment.executed(self.product)?);
        }
        Ok(known)
    }

    /// Leaves out of what a MariaDB has applied the domains that the segments do not know: their server has been told to forget
    /// them, and nothing leads up to there.
    pub(super) fn known_of(&self, applied: &Executed) -> Result<Executed, GtidError> {
        let Executed::MariaDb(state) = applied else { return Ok(applied.clone()) };
        let known = self.known()?;
        let is_known = |gtid: &MariaDbGtid| matches!(&known, Executed::MariaDb(known) if known.position().get(gtid.domain).is_some());
        Ok(Executed::MariaDb(state.iter().filter(is_known).collect()))
    }
}

/// Returns the segments from one on that follow each other, and why there are no more.
fn up_to_gap(chain: &Chain, epoch: &Epoch, first: usize) -> (Vec<Segment>, Option<End>) {
    let mut segments = Vec::new();
    for segment in &epoch.segments[first..] {
        let gap = epoch.gaps.iter().find(|gap| gap.before == segment.file);
        if let (Some(gap), false) = (gap, segments.is_empty()) {
            let missing = gap.missing.as_ref().map(|set| format!(": {set} are in neither")).unwrap_or_default();
            let why = format!("between `{}` and `{}` there is a gap{missing}", gap.after, gap.before);
            return (segments, Some(End { between: (gap.after.clone(), gap.before.clone()), why }));
        }
        segments.push(segment.clone());
    }
    let next = chain.epochs.iter().find(|next| next.number > epoch.number && !next.segments.is_empty());
    let end = next.zip(segments.last()).map(|(next, last)| End {
        between: (last.file.clone(), next.segments[0].file.clone()),
        why: format!("a new epoch begins behind `{}`, because {}", last.file, next.why.words()),
    });
    (segments, end)
}

/// Tells whether a standby has all of what the source had executed, every server of each domain told.
pub(super) fn holds(executed: &Executed, before: &Executed) -> bool {
    match (executed, before) {
        // Within a domain numbers may go back, where another server writes: what the source had executed and was not its last,
        // others came behind.
        (Executed::MariaDb(executed), Executed::MariaDb(before)) => {
            let executed = executed.position();
            let is_held =
                |last: MariaDbGtid| executed.get(last.domain).is_some_and(|at| at == last || !before.contains(at));
            before.position().iter().all(is_held)
        }
        _ => before.is_subset(executed),
    }
}

/// Tells whether one has come as far as another, of which the last of each domain is known.
pub(super) fn is_as_far_as(executed: &Executed, other: &Executed) -> bool {
    match (executed, other) {
        // The last number of a domain alone tells, whichever server wrote it.
        (Executed::MariaDb(executed), Executed::MariaDb(before)) => {
            let executed = executed.position();
            let is_held = |domain, sequence| executed.get(domain).is_some_and(|last| last.sequence >= sequence);
            before.position().iter().all(|gtid| is_held(gtid.domain, gtid.sequence))
        }
        _ => other.is_subset(executed),
    }
}

/// Tells whether a standby has a transaction.
pub(super) fn has(executed: &Executed, gtid: &Gtid) -> bool {
    match (executed, gtid) {
        (Executed::MariaDb(state), Gtid::MariaDb(gtid)) => {
            state.position().get(gtid.domain).is_some_and(|last| gtid.sequence <= last.sequence)
        }
        _ => executed.contains(gtid),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::capture::chain::{Beginning, Gap, Origin};

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn segment(number: u64, before: String) -> Segment {
        Segment {
            file: format!("b.{number:06}"),
            bytes: 9,
            sha256: String::new(),
            created: 0,
            first: None,
            last: None,
            transactions: 1,
            before: Some(before),
            after: String::new(),
            is_closed: true,
        }
    }

    fn epoch(number: u32, product: Product, segments: Vec<Segment>) -> Epoch {
        let server = Origin { product, version: "9.7.0".to_owned(), server: "a".to_owned() };
        let mut epoch = Epoch::new(number, DateTime::UNIX_EPOCH, Beginning::WentBack, server);
        epoch.segments = segments;
        epoch
    }

    fn chain(epochs: Vec<Epoch>) -> Chain {
        Chain { epochs, as_of: Some(DateTime::UNIX_EPOCH), ..Chain::new("db1") }
    }

    fn files(way: &Way) -> Vec<&str> {
        way.segments.iter().map(|segment| segment.file.as_str()).collect()
    }

    #[test]
    fn a_standby_goes_on_with_the_last_file_before_which_it_has_everything() {
        let mysql = |last: u64| Executed::parse(Product::MySql, &format!("{SERVER}:1-{last}")).unwrap();
        let segments = (1..=3).map(|nth| segment(nth, format!("{SERVER}:1-{}", nth * 10))).collect();
        let chain = chain(vec![epoch(1, Product::MySql, segments)]);
        let way = Way::new(&chain, 1, &mysql(25)).unwrap();
        assert_eq!(files(&way), ["b.000002", "b.000003"]);
        assert_eq!((way.end, way.as_of), (None, Some(DateTime::UNIX_EPOCH)));
        assert_eq!(files(&Way::new(&chain, 1, &mysql(30)).unwrap()), ["b.000003"]);
        assert!(matches!(Way::new(&chain, 1, &mysql(9)), Err(StandbyError::NoWay { .. })), "the window has passed it");
        assert!(matches!(Way::new(&chain, 2, &mysql(25)), Err(StandbyError::NoWay { .. })));
        let mut young = chain;
        young.epochs[0].segments.truncate(1);
        young.epochs[0].segments[0].before = None;
        assert!(matches!(Way::new(&young, 1, &mysql(25)), Err(StandbyError::NotNext(_))), "its head comes yet");
    }

    #[test]
    fn on_mariadb_the_last_number_of_each_domain_counts_whichever_server_wrote_it() {
        let segments = vec![segment(1, "0-1-5".to_owned()), segment(2, "0-1-7,0-2-9,3-1-4".to_owned())];
        let chain = chain(vec![epoch(1, Product::MariaDb, segments)]);
        let way = |executed: &str| Way::new(&chain, 1, &Executed::parse(Product::MariaDb, executed).unwrap());
        assert_eq!(files(&way("0-2-9,3-1-4").unwrap()), ["b.000002"]);
        assert_eq!(files(&way("0-3-12,3-1-5").unwrap()), ["b.000002"]);
        assert_eq!(files(&way("0-2-9,3-1-3").unwrap()), ["b.000001", "b.000002"]);
        assert_eq!(files(&way("0-2-8,3-1-4").unwrap()), ["b.000001", "b.000002"]);
        let segments = vec![segment(1, "0-1-5".to_owned()), segment(2, "0-1-100,0-2-9".to_owned())];
        let chain = self::chain(vec![epoch(1, Product::MariaDb, segments)]);
        let way = |executed: &str| Way::new(&chain, 1, &Executed::parse(Product::MariaDb, executed).unwrap());
        assert_eq!(files(&way("0-1-50").unwrap()), ["b.000001", "b.000002"], "a number that went back");
        assert_eq!(files(&way("0-2-9").unwrap()), ["b.000002"]);
    }

    #[test]
    fn a_domain_that_the_source_was_told_to_forget_is_waited_for_no_more() {
        let mariadb = |text: &str| Executed::parse(Product::MariaDb, text).unwrap();
        let mut last = segment(2, "0-1-7".to_owned());
        last.after = "0-1-8,5-1-1".to_owned();
        let chain = chain(vec![epoch(1, Product::MariaDb, vec![segment(1, "0-1-5,3-1-4".to_owned()), last])]);
        let way = Way::new(&chain, 1, &mariadb("0-1-7,3-1-4,5-1-1")).unwrap();
        assert_eq!(files(&way), ["b.000002"]);
        assert_eq!(way.known_of(&mariadb("0-1-7,3-1-4,5-1-1")).unwrap(), mariadb("0-1-7,5-1-1"));
        let way = Way::new(&chain, 1, &mariadb("0-1-6,3-1-4")).unwrap();
        assert_eq!(way.known_of(&mariadb("0-1-6,3-1-4")).unwrap(), mariadb("0-1-6,3-1-4"), "it was known on the way");
    }

    #[test]
    fn a_gap_and_a_new_epoch_end_the_way_and_are_named() {
        let all = || (1..=3).map(|nth| segment(nth, format!("{SERVER}:1-{}", nth * 10))).collect::<Vec<_>>();
        let executed = Executed::parse(Product::MySql, &format!("{SERVER}:1-15")).unwrap();
        let mut gapped = epoch(1, Product::MySql, all());
        let missing = Some(format!("{SERVER}:28-29"));
        gapped.gaps.push(Gap { after: "b.000002".to_owned(), before: "b.000003".to_owned(), missing });
        let way = Way::new(&chain(vec![gapped.clone()]), 1, &executed).unwrap();
        assert_eq!(files(&way), ["b.000001", "b.000002"]);
        assert!(way.as_of.is_none() && way.end.unwrap().why.contains("28-29"));
        let behind = Executed::parse(Product::MySql, &format!("{SERVER}:1-30")).unwrap();
        assert_eq!(Way::new(&chain(vec![gapped]), 1, &behind).unwrap().end, None, "it has what is missing");
        // After a reset the same numbers come again, and would be taken for known.
        let reset = epoch(2, Product::MySql, vec![segment(1, String::new())]);
        let way = Way::new(&chain(vec![epoch(1, Product::MySql, all()), reset]), 1, &executed).unwrap();
        assert_eq!(way.segments.len(), 3);
        assert!(way.end.unwrap().why.contains("reset"));
    }
}
