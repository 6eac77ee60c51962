//! Two tellings of one history: the spool's chain, and the one that the repository has. Pure.

use std::collections::BTreeMap;

use crate::capture::CaptureError;
use crate::capture::begin::missing;
use crate::capture::chain::{Chain, Epoch, Gap, Segment, is_next};
use crate::mysql::gtid::{Executed, GtidError};
use crate::mysql::manifest::Product;

/// What nobody holds whole of a chain, by epoch and file: as much as is held of it.
pub(crate) type Lost = BTreeMap<(u32, String), Option<Segment>>;

/// Tells whether a chain lacks something that another has.
pub(crate) fn lacks(chain: &Chain, other: &Chain) -> bool {
    other
        .segments()
        .any(|(epoch, segment)| chain.segment(epoch, &segment.file).is_none_or(|own| own.bytes < segment.bytes))
}

/// Returns a chain with all that the repository's holds more: of a spool that was lost and is being filled again, or of one that was
/// put back beside a newer repository.
///
/// # Errors
/// [`CaptureError::Diverged`] where the two are not of one history.
pub(crate) fn union(mut chain: Chain, sealed: &Chain) -> Result<Chain, CaptureError> {
    // An epoch that got no segment tells nothing, and another may have its number by now.
    for theirs in sealed.epochs.iter().filter(|epoch| !epoch.segments.is_empty()) {
        let diverged = || CaptureError::Diverged { source_name: sealed.source.clone(), epoch: theirs.number };
        match chain.epochs.iter_mut().find(|own| own.number == theirs.number) {
            Some(own) if !is_same(own, theirs) => return Err(diverged()),
            Some(own) => add(own, theirs),
            None => {
                let place = chain.epochs.partition_point(|own| own.number < theirs.number);
                chain.epochs.insert(place, theirs.clone());
            }
        }
    }
    chain.as_of = chain.as_of.max(sealed.as_of);
    Ok(chain)
}

/// Tells whether two epochs of one number are the same, and their files as well.
fn is_same(own: &Epoch, theirs: &Epoch) -> bool {
    let is_other = |own: &Segment| {
        let twin = theirs.segments.iter().find(|other| other.file == own.file);
        // A file of which nothing has come says nothing of when it was begun.
        twin.is_some_and(|twin| twin.created != own.created && twin.created != 0 && own.created != 0)
    };
    own.server.server == theirs.server.server && own.began == theirs.began && !own.segments.iter().any(is_other)
}

fn add(own: &mut Epoch, theirs: &Epoch) {
    let mut place = 0;
    for segment in &theirs.segments {
        if let Some(at) = own.segments.iter().position(|other| other.file == segment.file) {
            if own.segments[at].bytes < segment.bytes {
                own.segments[at] = segment.clone();
            }
            place = at + 1;
        } else {
            // Both are in the server's order, so that it stands behind the one before it.
            let later = own.segments[place..].iter().take_while(|other| other.created < segment.created).count();
            own.segments.insert(place + later, segment.clone());
            place += later + 1;
        }
    }
    own.gaps.extend(theirs.gaps.iter().filter(|gap| !own.gaps.contains(gap)).cloned().collect::<Vec<_>>());
    let segments = &own.segments;
    own.gaps.retain(|gap| {
        let follows = |pair: &[Segment]| pair[1].file == gap.before && pair[0].file != gap.after;
        // What lay between is there after all.
        !segments.windows(2).any(|pair| follows(pair) && is_next(&pair[0].file, &pair[1].file))
    });
}

/// Takes what nobody holds out of a chain, and names the gaps that it leaves. At the beginning of an epoch none is left: nothing
/// before it is held.
///
/// # Errors
/// A text of a segment that is no set of GTIDs.
pub(crate) fn give_up(chain: &mut Chain, lost: &Lost) -> Result<(), GtidError> {
    for epoch in &mut chain.epochs {
        give_up_of(epoch, lost)?;
    }
    let newest = chain.epochs.last().map(|epoch| epoch.number);
    chain.epochs.retain(|epoch| !epoch.segments.is_empty() || Some(epoch.number) == newest);
    Ok(())
}

fn give_up_of(epoch: &mut Epoch, lost: &Lost) -> Result<(), GtidError> {
    let (mut kept, mut gaps): (Vec<Segment>, Vec<Gap>) = (Vec::new(), Vec::new());
    let mut is_cut = false;
    for segment in std::mem::take(&mut epoch.segments) {
        let held = match lost.get(&(epoch.number, segment.file.clone())) {
            Some(held) => held.clone(),
            None => Some(segment.clone()),
        };
        let Some(held) = held else {
            is_cut = true;
            continue;
        };
        if let Some(last) = kept.last().filter(|_| is_cut) {
            gaps.push(gap(epoch.server.product, last, &held)?);
        }
        is_cut = held.bytes < segment.bytes;
        kept.push(held);
    }
    let is_new = |gap: &Gap| gaps.iter().any(|new| new.before == gap.before);
    epoch.gaps.retain(|gap| kept.iter().skip(1).any(|segment| segment.file == gap.before) && !is_new(gap));
    epoch.gaps.extend(gaps);
    epoch.segments = kept;
    Ok(())
}

fn gap(product: Product, last: &Segment, next: &Segment) -> Result<Gap, GtidError> {
    let before = next.before.as_deref().map(|text| Executed::parse(product, text)).transpose()?;
    let executed = last.executed(product)?;
    let missing = before.and_then(|before| missing(&executed, &before));
    Ok(Gap { after: last.file.clone(), before: next.file.clone(), missing })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;
    use crate::capture::chain::{Beginning, Origin};

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn segment(number: u32, bytes: u64) -> Segment {
        Segment {
            file: format!("b.{number:06}"),
            bytes,
            sha256: String::new(),
            created: number * 10,
            first: None,
            last: None,
            transactions: 1,
            before: Some(format!("{SERVER}:1-{}", number * 10)),
            after: format!("{SERVER}:1-{}", number * 10 + 10),
            is_closed: true,
        }
    }

    fn chain(segments: &[(u32, u64)]) -> Chain {
        let server = Origin { product: Product::MySql, version: String::new(), server: "a".to_owned() };
        let mut epoch = Epoch::new(1, DateTime::UNIX_EPOCH, Beginning::FirstCapture, server);
        epoch.segments = segments.iter().map(|(number, bytes)| segment(*number, *bytes)).collect();
        Chain { epochs: vec![epoch], ..Chain::new("db1") }
    }

    fn told(chain: &Chain) -> Vec<(&str, u64)> {
        chain.segments().map(|(_, segment)| (segment.file.as_str(), segment.bytes)).collect()
    }

    #[test]
    fn what_the_repository_holds_more_is_in_the_new_chain_as_well() {
        let sealed = chain(&[(2, 9), (3, 9), (4, 7)]);
        let stale = chain(&[(1, 9), (2, 5)]);
        assert!(lacks(&stale, &sealed));
        let whole = [("b.000001", 9), ("b.000002", 9), ("b.000003", 9), ("b.000004", 7)];
        assert_eq!(told(&union(stale, &sealed).unwrap()), whole);
        // It went on by itself, past a gap that is none.
        let mut own = chain(&[(1, 9), (2, 9), (4, 9), (5, 4)]);
        let gap = Gap { after: "b.000002".to_owned(), before: "b.000004".to_owned(), missing: None };
        own.epochs[0].gaps.push(gap);
        let both = union(own, &sealed).unwrap();
        assert_eq!(told(&both), [("b.000001", 9), ("b.000002", 9), ("b.000003", 9), ("b.000004", 9), ("b.000005", 4)]);
        assert_eq!(both.epochs[0].gaps, []);
        assert!(!lacks(&both, &sealed));
        let mut begun = sealed.clone();
        begun.epochs.push(Epoch { number: 2, segments: Vec::new(), ..sealed.epochs[0].clone() });
        let mut anew = begun.clone();
        anew.epochs[1].began += TimeDelta::seconds(9);
        anew.epochs[1].segments.push(segment(7, 9));
        assert_eq!(union(anew.clone(), &begun).unwrap(), anew, "the number of one that got no segment");
        assert_eq!(union(Chain::new("db1"), &sealed).unwrap().epochs, sealed.epochs);
    }

    #[test]
    fn two_histories_are_not_made_one() {
        let sealed = chain(&[(1, 9), (2, 9)]);
        let mut other = chain(&[(1, 9)]);
        other.epochs[0].began += TimeDelta::seconds(1);
        assert!(matches!(union(other, &sealed), Err(CaptureError::Diverged { epoch: 1, .. })));
        let mut other = chain(&[(1, 9)]);
        other.epochs[0].segments[0].created = 5;
        assert!(matches!(union(other, &sealed), Err(CaptureError::Diverged { epoch: 1, .. })));
    }

    #[test]
    fn what_nobody_holds_is_named_as_a_gap_and_the_rest_goes_on() {
        let mut left = chain(&[(1, 9), (2, 9), (3, 9), (4, 9), (5, 9)]);
        let name = |number: u32| (1, format!("b.{number:06}"));
        let shorter = Segment { after: format!("{SERVER}:1-25"), ..segment(2, 5) };
        let lost = Lost::from([(name(1), None), (name(2), Some(shorter)), (name(4), None)]);
        give_up(&mut left, &lost).unwrap();
        assert_eq!(told(&left), [("b.000002", 5), ("b.000003", 9), ("b.000005", 9)]);
        let gap = |after: &str, before: &str, missing: &str| Gap {
            after: after.to_owned(),
            before: before.to_owned(),
            missing: Some(format!("{SERVER}:{missing}")),
        };
        assert_eq!(left.epochs[0].gaps, [gap("b.000002", "b.000003", "26-30"), gap("b.000003", "b.000005", "41-50")]);
    }
}
