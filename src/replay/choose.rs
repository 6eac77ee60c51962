//! Where the stream ends: the last transaction that a recovery point takes in. Pure.

use chrono::{DateTime, Utc};

use crate::mysql::gtid::{Executed, Gtid};
use crate::replay::plan::Mark;
use crate::replay::point::Point;
use crate::replay::segments::is_before;

/// Once so many transactions on end are of a later time, no earlier one is looked for behind them: clocks that jump, and
/// `SET TIMESTAMP` on MariaDB, make few exceptions.
const LATER_MAX: usize = 100_000;

/// What a point takes in of the transactions seen so far.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) transactions: u64,
    pub(super) last: Option<Mark>,
    pub(super) first_excluded: Option<Mark>,
    /// Transactions that are taken in although their time is later than the point's: they stand before others that are not.
    pub(super) later: u64,
    /// What a server has executed that has come so far.
    pub(super) executed: Executed,
}

/// Looks at transactions in the order of the log.
#[derive(Debug)]
pub(super) struct Chooser<'a> {
    point: &'a Point,
    chosen: Chosen,
    seen: u64,
    /// Those of the transactions since the last one taken in.
    pending: Vec<Gtid>,
    /// By how many more transactions are on the wrong side of the point if the stream ended here, rather than at its beginning.
    balance: i64,
    best: i64,
    later: u64,
    is_found: bool,
    is_over: bool,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(point: &'a Point, executed: Executed) -> Self {
        let chosen = Chosen { transactions: 0, last: None, first_excluded: None, later: 0, executed };
        let (pending, is_found, is_over) = (Vec::new(), false, false);
        Self { point, chosen, seen: 0, pending, balance: 0, best: 0, later: 0, is_found, is_over }
    }

    /// Tells whether no further transaction can change anything.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Looks at the next transaction.
    pub(super) fn see(&mut self, mark: &Mark) {
        self.seen += 1;
        self.pending.extend(mark.gtid.clone());
        let is_taken = match self.point {
            Point::Latest => true,
            Point::At(time) => self.takes_by_time(mark, *time),
            Point::Gtid(gtid) => {
                let is_taken = !self.is_found;
                self.is_found |= mark.gtid.as_ref() == Some(gtid);
                is_taken
            }
            Point::Before(gtid) => {
                self.is_found |= mark.gtid.as_ref() == Some(gtid);
                !self.is_found
            }
            Point::Position(place) => {
                let is_earlier = is_before(&mark.end.file, &place.file).unwrap_or(false);
                let is_taken = is_earlier || (mark.end.file == place.file && mark.end.offset <= place.offset);
                self.is_found |= !is_taken;
                is_taken
            }
        };
        if is_taken {
            self.take(mark);
        } else if self.chosen.first_excluded.is_none() {
            self.chosen.first_excluded = Some(mark.clone());
        }
        self.is_over = !is_taken && (!matches!(self.point, Point::At(_)) || self.pending.len() > LATER_MAX);
    }

    /// Takes the prefix of the log with the fewest transactions on the wrong side of a time; of two such, the shorter.
    ///
    /// Commit times stand in order but for clocks that were set back and, on MariaDB, sessions that say `SET TIMESTAMP`: a single
    /// one of a later time must not cut off all that come after it, nor a single earlier one draw in what comes before it.
    fn takes_by_time(&mut self, mark: &Mark, until: DateTime<Utc>) -> bool {
        let is_later = mark.time > until;
        self.balance += if is_later { 1 } else { -1 };
        self.later += u64::from(is_later);
        // Of the last one seen: a single clock that ran ahead in between says nothing of where the log ends.
        self.is_found = is_later;
        if self.balance >= self.best {
            return false;
        }
        self.best = self.balance;
        true
    }

    fn take(&mut self, mark: &Mark) {
        for gtid in self.pending.drain(..) {
            self.chosen.executed.add(&gtid);
        }
        self.chosen.transactions = self.seen;
        self.chosen.later = self.later;
        self.chosen.last = Some(mark.clone());
        self.chosen.first_excluded = None;
    }

    /// Returns what was chosen, and whether the point was met: the log goes on behind it, or it is itself there.
    pub(super) fn finish(self) -> (Chosen, bool) {
        let is_met = self.is_found || *self.point == Point::Latest;
        (self.chosen, is_met)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::binlog::Clock;
    use crate::mysql::manifest::{Position, Product};

    /// Transactions at these seconds, each of ten bytes in one file.
    fn choose(point: &Point, seconds: &[i64]) -> (Chosen, bool) {
        let mut chooser = Chooser::new(point, Executed::new(Product::MariaDb));
        for (nth, second) in seconds.iter().enumerate() {
            let place = |offset: usize| Position { file: "b.000001".to_owned(), offset: offset as u64 };
            chooser.see(&Mark {
                gtid: Some(format!("0-1-{}", nth + 1).parse().unwrap()),
                time: DateTime::from_timestamp(*second, 0).unwrap(),
                clock: Clock::Session,
                begin: place(nth * 10),
                end: place(nth * 10 + 10),
            });
        }
        chooser.finish()
    }

    fn until(second: i64, seconds: &[i64]) -> (u64, u64) {
        let (chosen, _) = choose(&Point::At(DateTime::from_timestamp(second, 0).unwrap()), seconds);
        assert_eq!(
            chosen.executed.to_string(),
            match chosen.transactions {
                0 => String::new(),
                last => format!("0-1-{last}"),
            }
        );
        (chosen.transactions, chosen.later)
    }

    #[test]
    fn a_time_takes_in_what_was_committed_until_then() {
        assert_eq!(until(3, &[1, 2, 3, 3, 4, 5]), (4, 0));
        assert_eq!(until(9, &[1, 2, 3]), (3, 0));
        assert_eq!(until(0, &[1, 2, 3]), (0, 0));
    }

    #[test]
    fn one_transaction_of_another_time_moves_nothing() {
        assert_eq!(until(3, &[1, 2, 99, 3, 3, 4, 5, 6]), (5, 1));
        assert_eq!(until(3, &[1, 2, 3, 4, 5, 1, 6, 7]), (3, 0));
        assert_eq!(until(3, &[99, 1, 2, 3, 4]), (4, 1));
    }

    #[test]
    fn what_is_stamped_early_behind_a_mistake_does_not_draw_it_in() {
        assert_eq!(until(3, &[1, 2, 9, 1, 6]), (2, 0));
        assert_eq!(until(3, &[9, 1]), (0, 0));
    }

    #[test]
    fn a_time_is_met_only_where_the_log_goes_on_behind_it() {
        let is_met = |seconds: &[i64]| choose(&Point::At(DateTime::from_timestamp(3, 0).unwrap()), seconds).1;
        assert!(is_met(&[1, 2, 5]));
        assert!(!is_met(&[1, 2]));
        assert!(!is_met(&[1, 99, 2]), "one clock that ran ahead says nothing of the log's end");
        assert!(!is_met(&[1, 99, 2, 2]));
    }

    #[test]
    fn a_transaction_by_name_is_the_last_one_or_the_first_that_is_left_out() {
        let gtid: Gtid = "0-1-3".parse().unwrap();
        let (through, is_met) = choose(&Point::Gtid(gtid.clone()), &[1, 2, 3, 4]);
        assert_eq!((through.transactions, is_met), (3, true));
        assert_eq!(through.first_excluded.unwrap().gtid.unwrap().to_string(), "0-1-4");
        let (before, _) = choose(&Point::Before(gtid.clone()), &[1, 2, 3, 4]);
        assert_eq!((before.transactions, before.first_excluded.unwrap().gtid), (2, Some(gtid)));
        let (_, is_met) = choose(&Point::Gtid("0-1-9".parse().unwrap()), &[1, 2]);
        assert!(!is_met);
    }

    #[test]
    fn a_position_takes_in_what_ends_before_it() {
        let at = |offset| Point::Position(Position { file: "b.000001".to_owned(), offset });
        assert_eq!(choose(&at(20), &[1, 2, 3]).0.transactions, 2);
        assert_eq!(choose(&at(29), &[1, 2, 3]).0.transactions, 2);
        let (all, is_met) = choose(&at(30), &[1, 2, 3]);
        assert_eq!((all.transactions, is_met), (3, false));
    }
}
