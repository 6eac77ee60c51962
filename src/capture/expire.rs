//! Which segments the window no longer needs. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use crate::capture::chain::{Chain, Epoch, Segment};

/// How far a server's clock may lie behind ours; it also tells whole seconds only.
const CLOCKS_APART: TimeDelta = TimeDelta::minutes(1);

/// Returns the epoch and the file of each segment that goes: all its transactions were written before `window_start`, and before
/// the newest dump that is older, so that every moment of the window can be recovered. The newest segment stays, whatever it holds.
pub(crate) fn expired(chain: &Chain, dumps: &[DateTime<Utc>], window_start: DateTime<Utc>) -> Vec<(u32, String)> {
    let anchor = dumps.iter().filter(|dump| **dump <= window_start).max();
    let cutoff = anchor.copied().unwrap_or(window_start);
    let segments: Vec<(&Epoch, &Segment)> =
        chain.epochs.iter().flat_map(|epoch| epoch.segments.iter().map(move |segment| (epoch, segment))).collect();
    // In order, so that no hole comes to be in the midst of what stays.
    let old = segments.windows(2).take_while(|pair| ended(pair[0].0, pair[1]) <= cutoff);
    old.map(|pair| (pair[0].0.number, pair[0].1.file.clone())).collect()
}

/// Returns by when a segment had ended: the server began the next one. A transaction's own time proves nothing, for a session may
/// set its clock; and the clock of an epoch's server may be another's than that of the epoch before.
fn ended(epoch: &Epoch, (next_epoch, next): (&Epoch, &Segment)) -> DateTime<Utc> {
    // A file of which nothing has come yet says nothing of when it was begun.
    if next.created == 0 {
        return DateTime::<Utc>::MAX_UTC;
    }
    if next_epoch.number == epoch.number {
        DateTime::from_timestamp(next.created.into(), 0).unwrap_or_default() + CLOCKS_APART
    } else {
        next_epoch.began
    }
}

/// Takes segments out of a chain, with the gaps and the epochs that are of nothing any more.
pub(crate) fn drop_expired(chain: &mut Chain, expired: &[(u32, String)]) {
    for epoch in &mut chain.epochs {
        let number = epoch.number;
        epoch.segments.retain(|segment| !expired.iter().any(|(of, file)| *of == number && *file == segment.file));
        let first = epoch.segments.first().map(|segment| segment.file.clone());
        // A gap before the first segment that is left divides nothing.
        epoch.gaps.retain(|gap| {
            Some(&gap.before) != first.as_ref() && epoch.segments.iter().any(|segment| segment.file == gap.before)
        });
    }
    let newest = chain.epochs.last().map(|epoch| epoch.number);
    chain.epochs.retain(|epoch| !epoch.segments.is_empty() || Some(epoch.number) == newest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::chain::{Beginning, Gap, Origin};
    use crate::mysql::manifest::Product;

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::TimeDelta::days(day)
    }

    fn segment(number: u32, last: Option<i64>) -> Segment {
        Segment {
            file: format!("b.{number:06}"),
            bytes: 4,
            sha256: String::new(),
            created: number * 86_400,
            first: None,
            last: last.map(at),
            transactions: 1,
            before: None,
            after: String::new(),
            is_closed: true,
        }
    }

    fn chain() -> Chain {
        let server = Origin { product: Product::MySql, version: String::new(), server: "a".to_owned() };
        let mut old = Epoch::new(1, at(0), Beginning::FirstCapture, server.clone());
        old.segments = vec![segment(1, Some(2)), segment(2, None)];
        let mut new = Epoch::new(2, at(3), Beginning::WentBack, server);
        new.segments = vec![segment(3, Some(4)), segment(4, Some(5)), segment(5, Some(6))];
        let gap = Gap { after: "b.000003".to_owned(), before: "b.000004".to_owned(), missing: None };
        new.gaps.push(gap);
        Chain { epochs: vec![old, new], ..Chain::new("db1") }
    }

    fn numbers(dumps: &[i64], window_start: i64) -> Vec<String> {
        let dumps: Vec<_> = dumps.iter().map(|day| at(*day)).collect();
        expired(&chain(), &dumps, at(window_start)).into_iter().map(|(_, file)| file).collect()
    }

    #[test]
    fn what_lies_before_the_window_goes_but_what_a_dump_before_it_needs_stays() {
        assert_eq!(numbers(&[], 5), ["b.000001", "b.000002", "b.000003"]);
        assert_eq!(numbers(&[6], 5), ["b.000001", "b.000002", "b.000003"], "a dump within the window needs no more");
        assert_eq!(numbers(&[3, 6], 5), ["b.000001", "b.000002"], "the window's first moment is recovered from day 3");
        assert_eq!(numbers(&[1, 3], 2), [] as [&str; 0]);
        assert_eq!(numbers(&[], 90), ["b.000001", "b.000002", "b.000003", "b.000004"], "the newest stays");
    }

    #[test]
    fn a_segment_that_an_epoch_left_open_keeps_nothing_from_going() {
        let mut chain = chain();
        chain.epochs[0].segments[1].is_closed = false;
        let gone: Vec<_> = expired(&chain, &[], at(5)).into_iter().map(|(_, file)| file).collect();
        assert_eq!(gone, ["b.000001", "b.000002", "b.000003"]);
    }

    #[test]
    fn a_file_of_which_nothing_has_come_lets_the_one_before_it_not_go() {
        let mut chain = chain();
        chain.epochs.remove(0);
        chain.epochs[0].segments.truncate(2);
        chain.epochs[0].segments[1].created = 0;
        assert_eq!(expired(&chain, &[], at(90)), []);
    }

    #[test]
    fn a_session_that_set_its_clock_ahead_keeps_no_segment_and_one_that_set_it_back_loses_none() {
        let mut chain = chain();
        for (last, day) in [(90, 5), (0, 5)] {
            chain.epochs.iter_mut().flat_map(|epoch| &mut epoch.segments).for_each(|it| it.last = Some(at(last)));
            let gone = expired(&chain, &[], at(day));
            assert_eq!(gone.len(), 3, "{gone:?}");
        }
    }

    #[test]
    fn epochs_and_gaps_go_with_the_last_segment_that_they_are_of() {
        let mut left = chain();
        drop_expired(&mut left, &[(1, "b.000001".to_owned()), (1, "b.000002".to_owned())]);
        assert_eq!(left.epochs.len(), 1);
        assert_eq!((left.epochs[0].segments.len(), left.epochs[0].gaps.len()), (3, 1));
        drop_expired(&mut left, &[(2, "b.000003".to_owned())]);
        assert_eq!((left.epochs[0].segments.len(), left.epochs[0].gaps.len()), (2, 0));
    }
}
