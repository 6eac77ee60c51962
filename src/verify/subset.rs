//! A share of the packs, so that many short verifies cover all of them over time.

use std::fmt;
use std::str::FromStr;

use crate::id::ObjectId;

/// The `part`-th of `of` shares, counted from one. A pack's own name decides which share it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subset {
    part: u32,
    of: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no share: write k/n, with k from 1 to n")]
pub struct SubsetError {
    text: String,
}

impl Subset {
    /// Returns the share whose turn it is: `of` turns in a row cover all, whichever is the first.
    #[must_use]
    pub fn of_turn(turn: u32, of: u32) -> Self {
        let of = of.max(1);
        Self { part: turn % of + 1, of }
    }

    #[must_use]
    pub fn covers(&self, pack: &ObjectId) -> bool {
        let first = pack.as_bytes().first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        first % self.of == self.part - 1
    }
}

impl FromStr for Subset {
    type Err = SubsetError;

    fn from_str(text: &str) -> Result<Self, SubsetError> {
        let parsed = text.split_once('/').and_then(|(part, of)| {
            let subset = Self { part: part.parse().ok()?, of: of.parse().ok()? };
            (1..=subset.of).contains(&subset.part).then_some(subset)
        });
        parsed.ok_or_else(|| SubsetError { text: text.to_owned() })
    }
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl serde::Serialize for Subset {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs() -> impl Iterator<Item = ObjectId> {
        (0..500u32).map(|number| ObjectId::of(&number.to_le_bytes()))
    }

    #[test]
    fn the_shares_of_as_many_turns_cover_every_pack_once() {
        for pack in packs() {
            let turns = 19..19 + 7;
            let covering = turns.filter(|turn| Subset::of_turn(*turn, 7).covers(&pack));
            assert_eq!(covering.count(), 1);
        }
    }

    #[test]
    fn a_share_is_written_k_of_n() {
        assert_eq!("3/7".parse::<Subset>().map(|subset| subset.to_string()), Ok("3/7".to_owned()));
        assert!("1/1".parse::<Subset>().is_ok_and(|all| packs().all(|pack| all.covers(&pack))));
        for text in ["", "1", "0/7", "8/7", "1/0", "a/b", "-1/7", "1/7/2"] {
            assert!(text.parse::<Subset>().is_err(), "{text}");
        }
    }
}
