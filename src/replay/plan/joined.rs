//! Two plans, of which one goes on where the other ends.

use crate::replay::feed::Feed;
use crate::replay::plan::{ReplayPlan, bytes};
use crate::replay::segments::Segment;

impl ReplayPlan {
    /// Goes on with a plan that begins where this one ends.
    #[must_use]
    pub fn followed_by(self, next: Self) -> Self {
        let is_before = |segment: &&Segment| next.feed.segments.iter().all(|other| other.name != segment.name);
        let mut segments: Vec<Segment> = self.feed.segments.iter().filter(is_before).cloned().collect();
        segments.extend(next.feed.segments);
        let bytes = bytes(&segments, self.feed.begin, next.feed.end);
        Self {
            feed: Feed { segments, end: next.feed.end, ..self.feed },
            transactions: self.transactions + next.transactions,
            later: self.later + next.later,
            last: next.last.or(self.last),
            server_ids: self.server_ids.union(&next.server_ids).copied().collect(),
            bytes,
            begin: self.begin,
            dumped: self.dumped,
            version: self.version,
            filter: self.filter,
            way: self.way,
            way_why: self.way_why,
            events_fire: self.events_fire,
            varying: [self.varying, next.varying].concat(),
            end: next.end,
            first_excluded: next.first_excluded,
            has_gtids: next.has_gtids,
            executed: next.executed,
            known: next.known,
            falls_short: next.falls_short,
        }
    }
}
