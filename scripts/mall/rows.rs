//! What a row says, from nothing but the seed and its key.

use crate::dice::Dice;
use crate::dice::Thing;
use crate::images::Written;
use crate::images::path_of;
use crate::shape::ShopShape;
use crate::words;
use chrono::DateTime;
use chrono::Duration;
use chrono::NaiveDateTime;
use serde_json::json;

/// One value; text also stands for decimals, dates and JSON.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Int(u64),
    Single(f32),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

pub(crate) type Row = Vec<Cell>;

/// An order with all that belongs to it.
#[derive(Debug)]
pub(crate) struct Sale {
    pub(crate) order: Row,
    pub(crate) items: Vec<Row>,
    pub(crate) payment: Option<Row>,
}

/// Ids of order items and of images leave room for as many to each order.
const ITEMS_MAX: u64 = 4;

/// One shop of one mall: who makes its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maker<'a> {
    pub(crate) seed: u64,
    pub(crate) shop: u64,
    pub(crate) shape: &'a ShopShape,
}

impl Maker<'_> {
    fn dice(&self, thing: Thing, id: u64) -> Dice {
        Dice::new(self.seed, thing, self.shop, id)
    }

    pub(crate) fn shop(&self) -> Row {
        let dice = &mut self.dice(Thing::Shop, 0);
        let settings = json!({
            "theme": { "colour": dice.pick(words::COLOURS), "dark": dice.percent(30) },
            "delivery": { "free_from": dice.between(2, 6) * 10_000, "ratio": ratio(dice), "note": words::letter(dice, 1) },
            "banks": ["국민", "신한", "카카오"],
        });
        vec![
            Cell::Int(self.shop),
            words::shop(dice).into(),
            format!("shop{:04}.mall.example", self.shop).into(),
            dice.pick(&["basic", "pro", "enterprise"]).into(),
            format!("0.{:04}", dice.between(80, 350)).into(),
            settings.to_string().into(),
            some_bytes(dice, 400, 3000),
            text(moment(dice.below(3000), 0).format("%Y-%m-%d")),
            text(moment(dice.below(3000), 0)),
        ]
    }

    pub(crate) fn customer(&self, id: u64) -> Row {
        let dice = &mut self.dice(Thing::Customer, id);
        let name = words::person(dice);
        let profile = json!({
            "height": dice.between(150, 190), "sizes": [dice.pick(words::SIZES), dice.between(23, 29) * 10],
            "likes": words::goods(dice), "ratio": ratio(dice),
        });
        vec![
            Cell::Int(self.shop),
            Cell::Int(id),
            format!("user{id}@shop{:04}.mall.example", self.shop).into(),
            name.clone().into(),
            format!("010-{:04}-{:04}", dice.below(10_000), dice.below(10_000)).into(),
            maybe(dice, 70, |dice| text(birthday(dice).format("%Y-%m-%d"))),
            words::address(dice).into(),
            maybe(dice, 40, |_| name.into()),
            Cell::Int(dice.below(10)),
            Cell::Int(dice.below(100_000)),
            dice.pick(&["", "sms", "email", "sms,email", "sms,email,push"]).into(),
            Cell::Bytes(vec![u8::from(dice.percent(95))]),
            maybe(dice, 60, |_| profile.to_string().into()),
            text(moment(id, dice.number()).format("%Y-%m-%d %H:%M:%S%.3f")),
        ]
    }

    /// Returns a product's price in won; orders ask for it too.
    fn price(&self, product: u64) -> u64 {
        let dice = &mut self.dice(Thing::Price, product);
        dice.between(10, 900) * dice.pick(&[&10, &100, &1000])
    }

    pub(crate) fn product(&self, id: u64) -> Row {
        let dice = &mut self.dice(Thing::Product, id);
        let price = self.price(id);
        let attributes = json!({
            "colours": [dice.pick(words::COLOURS), dice.pick(words::COLOURS)], "size": dice.pick(words::SIZES),
            "origin": "대한민국", "volume": ratio(dice), "barcode": dice.below(1 << 40),
        });
        vec![
            Cell::Int(self.shop),
            Cell::Int(id),
            format!("S{:03}-{id:07}", self.shop % 1000).into(),
            words::goods(dice).into(),
            maybe(dice, 90, |dice| words::letter(dice, 6).into()),
            won(price * 100),
            won(price * dice.between(40, 90)),
            Cell::Int(dice.below(500)),
            maybe(dice, 80, |dice| Cell::Double(ratio(dice) * 7.0)),
            maybe(dice, 60, |dice| Cell::Single(single(dice) * 5.0)),
            attributes.to_string().into(),
            maybe(dice, 50, |dice| some_bytes(dice, 40, 255)),
            dice.pick(&["on_sale", "on_sale", "on_sale", "sold_out", "hidden", "draft"]).into(),
            text(moment(id, dice.number()).format("%Y-%m-%d %H:%M:%S%.6f")),
        ]
    }

    pub(crate) fn image(&self, id: u64, written: &Written) -> Row {
        let dice = &mut self.dice(Thing::Image, id);
        vec![
            Cell::Int(self.shop),
            Cell::Int(id),
            Cell::Int(id % self.shape.products + 1),
            path_of(self.seed, self.shop, id).into(),
            Cell::Int(written.bytes),
            Cell::Bytes(written.sha256.to_vec()),
            words::goods(dice).into(),
            text(image_time(id)),
        ]
    }

    pub(crate) fn sale(&self, id: u64) -> Sale {
        let dice = &mut self.dice(Thing::Order, id);
        let items: Vec<_> = (0..dice.between(1, ITEMS_MAX)).map(|nth| self.item(dice, id, nth)).collect();
        let total: u64 = items.iter().map(|(_, cost)| cost).sum();
        let state = dice.pick(&["pending", "paid", "shipped", "delivered", "delivered", "cancelled", "returned"]);
        let at = moment(id * 1000 / self.shape.orders.max(1), dice.number());
        let shipping = json!({
            "name": words::person(dice), "address": words::address(dice), "zip": format!("{:05}", dice.below(100_000)),
            "gift": dice.percent(8), "weight": ratio(dice),
        });
        let order = vec![
            Cell::Int(self.shop),
            Cell::Int(id),
            format!("{}-{id:010}", at.format("%Y%m%d")).into(),
            Cell::Int(dice.below(self.shape.customers) + 1),
            state.into(),
            won(total * 100),
            shipping.to_string().into(),
            maybe(dice, 30, |dice| words::letter(dice, 3).into()),
            maybe(dice, 50, |dice| format!("{}:{:02}:00", dice.between(1, 96), dice.below(60)).into()),
            text(at),
            text((at + Duration::microseconds(id.cast_signed() % 1_000_000)).format("%Y-%m-%d %H:%M:%S%.6f")),
        ];
        let payment = (state != "pending").then(|| self.payment(dice, id, total, at));
        Sale { order, items: items.into_iter().map(|(row, _)| row).collect(), payment }
    }

    fn item(&self, dice: &mut Dice, order: u64, nth: u64) -> (Row, u64) {
        let product = dice.below(self.shape.products) + 1;
        let (quantity, price) = (dice.between(1, 3), self.price(product));
        let options = json!({ "colour": dice.pick(words::COLOURS), "size": dice.pick(words::SIZES) });
        let row = vec![
            Cell::Int(self.shop),
            Cell::Int(order * ITEMS_MAX + nth),
            Cell::Int(order),
            Cell::Int(product),
            Cell::Int(quantity),
            won(price * 100),
            maybe(dice, 70, |_| options.to_string().into()),
        ];
        (row, quantity * price)
    }

    #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^52")]
    fn payment(&self, dice: &mut Dice, order: u64, total: u64, at: NaiveDateTime) -> Row {
        let gateway =
            json!({ "tid": format!("T{:016x}", dice.number()), "installment": dice.below(12), "card": "**** 1234" });
        vec![
            Cell::Int(self.shop),
            Cell::Int(order),
            Cell::Int(order),
            dice.pick(&["card", "card", "card", "transfer", "kakao", "naver", "points"]).into(),
            won(total * 100),
            Cell::Double(total as f64 * 0.0275),
            maybe(dice, 50, |dice| some_bytes(dice, 40, 300)),
            gateway.to_string().into(),
            text(at.format("%Y")),
            text((at + Duration::microseconds(90_000_001)).format("%Y-%m-%d %H:%M:%S%.6f")),
        ]
    }

    /// Returns a page view; each comes twice or so, equal in every column.
    pub(crate) fn view(&self, nth: u64) -> Row {
        let dice = &mut self.dice(Thing::View, nth / 2);
        vec![
            Cell::Int(self.shop),
            format!("/products/{}", dice.below(self.shape.products) + 1).into(),
            maybe(dice, 90, |dice| Cell::Bytes(dice.bytes(8))),
            Cell::Single(single(dice) * 900.0),
            text(moment(nth / 2 * 500 / self.shape.views.max(1), dice.number())),
        ]
    }
}

/// Returns when an image was put there; the file's own time says the same.
pub(crate) fn image_time(id: u64) -> NaiveDateTime {
    moment(id % 1000, id * 7919)
}

/// Returns a moment so many days after the mall opened, at a time of day by `chance`.
fn moment(day: u64, chance: u64) -> NaiveDateTime {
    // 2023-01-01, and no later than a TIMESTAMP can say.
    let seconds = 1_672_531_200 + (day % 5000) * 86_400 + chance % 86_400;
    DateTime::from_timestamp(seconds.cast_signed(), 0).unwrap_or_default().naive_utc()
}

fn birthday(dice: &mut Dice) -> NaiveDateTime {
    // From 1950 on, fifty-five years.
    let days = dice.below(20_000).cast_signed() - 7_305;
    DateTime::from_timestamp(days * 86_400, 0).unwrap_or_default().naive_utc()
}

/// Returns a DECIMAL of two places.
fn won(hundredths: u64) -> Cell {
    format!("{}.{:02}", hundredths / 100, hundredths % 100).into()
}

fn some_bytes(dice: &mut Dice, least: u64, most: u64) -> Cell {
    let length = dice.between(least, most);
    Cell::Bytes(dice.bytes(length))
}

/// Returns a number from 0 to 1 whose decimal digits do not end soon.
#[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
fn ratio(dice: &mut Dice) -> f64 {
    dice.below(1 << 52) as f64 / (1_u64 << 52) as f64
}

#[expect(clippy::cast_precision_loss, reason = "23 bits fit")]
fn single(dice: &mut Dice) -> f32 {
    dice.below(1 << 23) as f32 / (1_u64 << 23) as f32
}

fn maybe(dice: &mut Dice, percent: u64, cell: impl FnOnce(&mut Dice) -> Cell) -> Cell {
    if dice.percent(percent) { cell(dice) } else { Cell::Null }
}

fn text(value: impl std::fmt::Display) -> Cell {
    Cell::Text(value.to_string())
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::Cell;
    use super::Maker;
    use crate::schema::Table;
    use crate::shape::Shape;
    use sha2::Digest as _;

    /// Backups of a released version are compared with the mall of today: a change here is a change of format.
    #[test]
    fn the_same_seed_makes_the_same_rows_in_every_version() {
        let shape = Shape::new(7, 1_000_000, 100);
        let maker = Maker { seed: 7, shop: 1, shape: &shape.shops[0] };
        let sale = maker.sale(3);
        let made =
            format!("{:?}{:?}{:?}{sale:?}{:?}", maker.shop(), maker.customer(3), maker.product(3), maker.view(3));
        assert_eq!(
            hex::encode(sha2::Sha256::digest(made)),
            "4cccedcf50d7d967347b03976b0528fbd890103d9fc45a99cc1dbc01384f1490"
        );
    }

    #[test]
    fn a_row_has_a_value_for_each_column_and_bytes_only_where_the_table_says_so() {
        let shape = Shape::new(1, 1_000_000, 0);
        let maker = Maker { seed: 1, shop: 2, shape: &shape.shops[1] };
        for id in 1..50 {
            let sale = maker.sale(id);
            let mut rows = vec![
                (Table::Shops, maker.shop()),
                (Table::Customers, maker.customer(id)),
                (Table::Products, maker.product(id)),
                (Table::Orders, sale.order),
                (Table::PageViews, maker.view(id)),
            ];
            rows.extend(sale.items.into_iter().map(|row| (Table::OrderItems, row)));
            rows.extend(sale.payment.into_iter().map(|row| (Table::Payments, row)));
            for (table, row) in rows {
                assert_eq!(row.len(), table.columns().len(), "{table:?}");
                for (column, cell) in table.columns().iter().zip(row) {
                    let holds_bytes = table.binary_columns().contains(column);
                    assert!(cell == Cell::Null || matches!(cell, Cell::Bytes(_)) == holds_bytes, "{table:?}.{column}");
                }
            }
        }
    }

    #[test]
    fn an_order_costs_what_its_items_cost() {
        let shape = Shape::new(1, 1_000_000, 0);
        let maker = Maker { seed: 1, shop: 1, shape: &shape.shops[0] };
        let won = |cell: &Cell| match cell {
            Cell::Text(text) => text.parse::<f64>().unwrap(),
            Cell::Int(number) => u32::try_from(*number).unwrap().into(),
            other => panic!("{other:?} is no amount"),
        };
        for id in 1..100 {
            let sale = maker.sale(id);
            let items: f64 = sale.items.iter().map(|item| won(&item[4]) * won(&item[5])).sum();
            assert!((won(&sale.order[5]) - items).abs() < 0.001, "order {id}");
        }
    }
}
