use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

#[test]
fn a_set_prints_as_the_server_prints_it() {
    for (text, printed) in [
        (String::new(), String::new()),
        (format!("{A}:1"), format!("{A}:1")),
        (format!("{A}:3-5:1:2,\n{B}:7"), format!("{A}:1-5,{B}:7")),
        (format!("{A}:1-77:79:drill:1-5:9"), format!("{A}:1-77:79:drill:1-5:9")),
        (format!("{A}:Drill:1,{A}:4"), format!("{A}:4:drill:1")),
        (format!(" {} : 1 - 3 ", A.to_uppercase()), format!("{A}:1-3")),
        (format!("{A}:5-3"), String::new()),
    ] {
        assert_eq!(set(&text).to_string(), printed, "{text}");
    }
}

#[test]
fn a_text_that_is_no_set_names_itself() {
    for text in [
        A.to_owned(),
        format!("{A}:"),
        format!("{A}:0"),
        format!("{A}:+1"),
        format!("{A}:1-"),
        format!("{A}:tag"),
        format!("{A}:1:tag"),
        format!("{A}:ta g:1"),
        format!("{A}:{}:1", "t".repeat(33)),
        format!("{A}:9223372036854775807"),
        "1:1".to_owned(),
        "0-1-5".to_owned(),
    ] {
        let error = text.parse::<GtidSet>().unwrap_err().to_string();
        assert_eq!(error, format!("`{text}` is no GTID set of MySQL (`uuid:1-77:79`)"));
    }
}

#[test]
fn a_gtid_of_either_product_is_told_by_its_form() {
    for text in [format!("{A}:7"), format!("{A}:drill:7"), "0-4294967295-18446744073709551615".to_owned()] {
        assert_eq!(text.parse::<Gtid>().unwrap().to_string(), text);
    }
    for text in ["", "0-1", "0-1-2-3", "0-+1-2", "-1-1-1", "1-4294967296-1", &format!("{A}:1-2"), A] {
        assert!(text.parse::<Gtid>().is_err(), "{text}");
    }
}

#[test]
fn a_state_of_mariadb_keeps_the_last_of_each_server_and_the_last_of_all() {
    let mut state: BinlogState = "0-1-7,0-2-9,5-1-3".parse().unwrap();
    assert_eq!(state.position().to_string(), "0-2-9,5-1-3");
    state.add("0-1-10".parse().unwrap());
    assert_eq!(state.to_string(), "0-2-9,0-1-10,5-1-3");
    assert_eq!(state.position().get(0), Some("0-1-10".parse().unwrap()));
    for (gtid, is_in) in [("0-2-9", true), ("0-2-1", true), ("0-2-10", false), ("0-3-1", false), ("7-1-1", false)] {
        assert_eq!(state.contains(gtid.parse().unwrap()), is_in, "{gtid}");
    }
    assert_ne!(state, "0-1-10,0-2-9,5-1-3".parse().unwrap(), "which server wrote last is a part of the state");
    assert!("0-1-7,0-2-9".parse::<Position>().is_err());
}

#[test]
fn values_go_through_json_as_their_text() {
    let text = format!("\"{A}:1-77:79\"");
    let value: GtidSet = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
    assert!(serde_json::from_str::<Position>("\"0-1\"").is_err());
}

/// Names of the few transactions that the properties below are about: three origins, numbers to thirty.
fn names() -> impl Strategy<Value = BTreeSet<(u8, u64)>> {
    prop::collection::btree_set((0..3_u8, 1..30_u64), 0..40)
}

fn gtid((origin, number): (u8, u64)) -> MySqlGtid {
    let (uuid, tag) = [(A, ""), (A, "drill"), (B, "")][usize::from(origin)];
    MySqlGtid { tsid: Tsid::new(uuid.parse().unwrap(), tag).unwrap(), number }
}

fn set_of(names: &BTreeSet<(u8, u64)>) -> GtidSet {
    let mut set = GtidSet::default();
    // Not in their order, so that intervals grow together from both sides.
    names.iter().rev().step_by(2).chain(names.iter().rev().skip(1).step_by(2)).for_each(|name| set.add(&gtid(*name)));
    set
}

proptest! {
    #[test]
    fn the_algebra_is_that_of_sets(a in names(), b in names()) {
        let (set_a, set_b) = (set_of(&a), set_of(&b));
        prop_assert_eq!(set_a.union(&set_b), set_of(&(&a | &b)));
        prop_assert_eq!(set_a.subtract(&set_b), set_of(&(&a - &b)));
        prop_assert_eq!(set_a.is_subset(&set_b), a.is_subset(&b));
        prop_assert_eq!(set_a.count(), a.len() as u64);
        for name in (0..3).flat_map(|origin| (1..30).map(move |number| (origin, number))) {
            prop_assert_eq!(set_a.contains(&gtid(name)), a.contains(&name));
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same(a in names()) {
        let set = set_of(&a);
        prop_assert_eq!(set.to_string().parse::<GtidSet>().unwrap(), set);
    }

    #[test]
    fn intervals_never_touch(spans in prop::collection::vec((1..60_u64, 0..9_u64, any::<bool>()), 0..30)) {
        let (mut intervals, mut model) = (Intervals::default(), BTreeSet::new());
        for (start, length, is_added) in spans {
            if is_added {
                intervals.add(start, start + length);
                model.extend(start..start + length);
            } else {
                intervals.remove(start, start + length);
                (start..start + length).for_each(|number| { model.remove(&number); });
            }
        }
        let numbers: BTreeSet<_> = intervals.iter().flat_map(|(start, end)| start..end).collect();
        prop_assert_eq!(numbers, model);
        let all: Vec<_> = intervals.iter().collect();
        prop_assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", all);
    }

    #[test]
    fn a_state_contains_what_was_added(gtids in prop::collection::vec((0..2_u32, 1..4_u32), 0..20)) {
        let mut state = BinlogState::default();
        let gtids: Vec<_> = gtids.into_iter().zip(1..).map(|((domain, server), sequence)| MariaDbGtid { domain, server, sequence }).collect();
        let mut before = state.clone();
        for gtid in &gtids {
            state.add(*gtid);
            prop_assert!(state.contains(*gtid) && !before.contains(*gtid));
            prop_assert!(before.is_subset(&state) && !state.is_subset(&before));
            prop_assert_eq!(state.position().get(gtid.domain), Some(*gtid));
            before = state.clone();
        }
        prop_assert!(gtids.iter().all(|gtid| state.contains(*gtid)));
        prop_assert_eq!(state.to_string().parse::<BinlogState>().unwrap(), state);
    }
}
