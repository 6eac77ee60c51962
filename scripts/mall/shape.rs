//! How large the mall is: how many shops, and how much of everything each of them has.

use anyhow::Context as _;
use serde::Deserialize;
use serde::Serialize;

/// What one order brings along in rows of its own and of the other tables, as LOAD DATA text [measured].
const BYTES_PER_ORDER: u64 = 900;
/// Sizes of shops fall with their rank to this power: the largest of 50 has a quarter of all orders.
const SKEW: f64 = 1.1;

/// Kept in the mall's own schema, so that `change` and `busy` find what `fill` made.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) shops: Vec<ShopShape>,
}

/// Ids of each kind run from 1 to these numbers.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct ShopShape {
    pub(crate) customers: u64,
    pub(crate) products: u64,
    pub(crate) images: u64,
    pub(crate) orders: u64,
    pub(crate) views: u64,
}

impl Shape {
    pub(crate) fn new(seed: u64, bytes: u64, images: u64) -> Self {
        let orders = (bytes / BYTES_PER_ORDER).max(20);
        let shop_count = 8 + orders.isqrt().isqrt();
        let orders = shares(orders, shop_count);
        let images = shares(images, shop_count);
        let shop = |(orders, images): (u64, u64)| ShopShape {
            customers: orders / 4 + 1,
            products: orders / 12 + 1,
            images,
            orders,
            views: orders * 2,
        };
        let shops = orders.into_iter().zip(images).map(shop).collect();
        Self { seed, shops }
    }

    /// Returns every shop with its id.
    pub(crate) fn shops(&self) -> impl Iterator<Item = (u64, &ShopShape)> {
        (1..).zip(&self.shops)
    }

    pub(crate) fn shop(&self, id: u64) -> Option<&ShopShape> {
        self.shops().find(|(shop, _)| *shop == id).map(|(_, shape)| shape)
    }
}

/// Splits `total` by rank; the sum is exact.
fn shares(total: u64, count: u64) -> Vec<u64> {
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-SKEW)).collect();
    let sum: f64 = weights.iter().sum();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share need not be exact: the largest takes the rest"
    )]
    let mut shares: Vec<u64> = weights.iter().map(|weight| (total as f64 * weight / sum) as u64).collect();
    let given: u64 = shares.iter().sum();
    shares[0] += total - given;
    shares
}

/// Parses `50MB`, `1.5GB`, `4096`; units are powers of 1000.
pub(crate) fn bytes_of(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: f64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "KB" | "K" => 1e3,
        "MB" | "M" => 1e6,
        "GB" | "G" => 1e9,
        other => anyhow::bail!("`{other}` is no unit: B, KB, MB or GB"),
    };
    let number: f64 = digits.parse().with_context(|| format!("`{digits}` is no number"))?;
    anyhow::ensure!((0.0..1e6).contains(&number) || unit < 2.0, "`{text}` is out of range");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok((number * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::Shape;
    use super::bytes_of;

    #[test]
    fn shops_differ_by_far_and_add_up_to_the_whole() {
        let shape = Shape::new(1, 900_000_000, 60_000);
        let orders: Vec<u64> = shape.shops.iter().map(|shop| shop.orders).collect();
        let images: u64 = shape.shops.iter().map(|shop| shop.images).sum();
        assert_eq!(orders.iter().sum::<u64>(), 1_000_000);
        assert_eq!(images, 60_000);
        assert!(orders[0] > orders[orders.len() - 1] * 20);
        assert!(orders.iter().all(|&orders| orders > 0));
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let sizes = ["4096", "50MB", "1.5GB", "20g"].map(|text| bytes_of(text).unwrap());
        assert_eq!(sizes, [4096, 50_000_000, 1_500_000_000, 20_000_000_000]);
        for wrong in ["", "GB", "5 parsecs", "-1MB", "1TB"] {
            assert!(bytes_of(wrong).is_err(), "{wrong}");
        }
    }
}
