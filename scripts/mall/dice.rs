//! Chance that is the same every time: each thing of the mall has dice of its own, seeded by what it is.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::RngCore as _;

/// What is drawn for; two things of one number never share their dice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Thing {
    Shop = 1,
    Customer,
    Product,
    Price,
    Order,
    Image,
    View,
    Change,
    Busy,
}

#[derive(Debug)]
pub(crate) struct Dice(Pcg64Mcg);

impl Dice {
    pub(crate) fn new(seed: u64, thing: Thing, a: u64, b: u64) -> Self {
        let high = mix(mix(seed ^ ((thing as u64) << 56)) ^ a);
        let low = mix(high ^ b);
        Self(Pcg64Mcg::new(u128::from(high) << 64 | u128::from(low)))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a number from 0 up to, not including, `end`; 0 where `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The high half of a product is as even as a remainder, and cheaper.
        let wide = u128::from(self.number()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or_default()
    }

    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.index(from.len())]
    }

    pub(crate) fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or_default()
    }
}

/// Spreads the bits of a number over all of its places (splitmix64's last step).
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
