//! A day's changes at once: a share of rows and images inserted, updated and deleted, the same from the same state.

use crate::ChangeArgs;
use crate::dice::Dice;
use crate::dice::Thing;
use crate::fill::sales;
use crate::images;
use crate::load;
use crate::load::Text;
use crate::rows::Maker;
use crate::schema;
use crate::schema::Table;
use anyhow::Context as _;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use std::path::Path;

#[derive(Debug, Default)]
struct Changed {
    orders_inserted: u64,
    rows_updated: u64,
    rows_deleted: u64,
    images_written: u64,
    images_deleted: u64,
}

/// One round of changes in one shop.
struct Round<'a> {
    nth: u64,
    fraction: f64,
    maker: Maker<'a>,
    dice: Dice,
}

pub(crate) async fn change(args: &ChangeArgs) -> anyhow::Result<()> {
    anyhow::ensure!((0.0..=1.0).contains(&args.fraction), "--fraction goes from 0 to 1");
    let mut conn = args.server.connect().await?;
    let shape = schema::shape_of(&mut conn).await?;
    let nth: u64 = schema::noted(&mut conn, "round").await?.parse().context("parse the round")?;
    let mut changed = Changed::default();
    for (shop, counts) in shape.shops() {
        let maker = Maker { seed: shape.seed, shop, shape: counts };
        let dice = Dice::new(shape.seed, Thing::Change, shop, nth);
        let mut round = Round { nth: nth + 1, fraction: args.fraction, maker, dice };
        round.rows(&mut conn, &mut changed).await?;
        if let Some(dir) = &args.images {
            round.images(&mut conn, dir, &mut changed).await?;
        }
    }
    schema::note(&mut conn, "round", &(nth + 1).to_string()).await?;
    conn.disconnect().await?;
    println!(
        "changed: {} orders inserted, {} rows updated, {} rows deleted, {} images written, {} images deleted",
        changed.orders_inserted,
        changed.rows_updated,
        changed.rows_deleted,
        changed.images_written,
        changed.images_deleted
    );
    Ok(())
}

impl Round<'_> {
    async fn rows(&mut self, conn: &mut Conn, changed: &mut Changed) -> anyhow::Result<()> {
        let shop = self.maker.shop;
        conn.query_drop("START TRANSACTION").await?;
        let orders: u64 = max_id(conn, Table::Orders, shop).await?;
        let updates = [
            ("orders", orders, "state = 'returned', updated_at = updated_at + INTERVAL 3 DAY"),
            ("products", self.maker.shape.products, "price = price + 10, stock = stock + 7"),
            ("customers", self.maker.shape.customers, "points = points + 100, grade = (grade + 1) % 10"),
        ];
        for (table, count, set) in updates {
            let ids = self.some_of(count);
            let sql = format!("UPDATE {table} SET {set} WHERE shop_id = {shop} AND id IN ({ids})");
            conn.query_drop(sql).await.with_context(|| format!("update `{table}`"))?;
            changed.rows_updated += conn.affected_rows();
        }
        let ids = self.some_of(orders / 2);
        let deletes = [
            format!("DELETE FROM orders WHERE shop_id = {shop} AND id IN ({ids})"),
            format!("DELETE FROM page_views WHERE shop_id = {shop} AND path = '/products/{}'", self.nth),
        ];
        for sql in deletes {
            conn.query_drop(sql).await.context("delete rows")?;
            changed.rows_deleted += conn.affected_rows();
        }
        let new = self.share_of(self.maker.shape.orders);
        for text in sales(self.maker, orders + 1..=orders + new) {
            text.load(conn).await?;
        }
        let views = (0..new * 2).map(|nth| self.maker.view(self.maker.shape.views * self.nth + nth));
        Text::of(Table::PageViews, views).load(conn).await?;
        conn.query_drop("COMMIT").await?;
        changed.orders_inserted += new;
        Ok(())
    }

    /// A file is there before the row that names it, and goes after it.
    async fn images(&mut self, conn: &mut Conn, dir: &Path, changed: &mut Changed) -> anyhow::Result<()> {
        let (seed, shop) = (self.maker.seed, self.maker.shop);
        let ids = "SELECT id FROM product_images WHERE shop_id = ? ORDER BY id";
        let ids: Vec<u64> = conn.exec(ids, (shop,)).await.context("list images")?;
        let first = ids.last().map_or(1, |last| last + 1);
        let share = self.share_of(ids.len() as u64).min(ids.len() as u64 / 3);
        for id in first..first + share {
            let written = images::write(dir, seed, shop, id, 0)?;
            load::insert(conn, Table::ProductImages, self.maker.image(id, &written)).await?;
        }
        let mut old = Vec::new();
        while (old.len() as u64) < share * 2 {
            let nth = usize::try_from(self.dice.below(ids.len() as u64))?;
            if !old.contains(&ids[nth]) {
                old.push(ids[nth]);
            }
        }
        let (rewritten, deleted) = old.split_at(old.len() / 2);
        for &id in rewritten {
            let written = images::write(dir, seed, shop, id, self.nth)?;
            let update = "UPDATE product_images SET bytes = ?, sha256 = ? WHERE shop_id = ? AND id = ?";
            conn.exec_drop(update, (written.bytes, &written.sha256[..], shop, id)).await?;
        }
        for &id in deleted {
            let delete = "DELETE FROM product_images WHERE shop_id = ? AND id = ?";
            conn.exec_drop(delete, (shop, id)).await?;
            images::delete(dir, seed, shop, id)?;
        }
        changed.images_written += share * 2;
        changed.images_deleted += share;
        changed.rows_updated += share;
        changed.rows_deleted += share;
        Ok(())
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are far below 2^52 and the fraction is at most 1"
    )]
    fn share_of(&self, count: u64) -> u64 {
        (count as f64 * self.fraction).ceil() as u64
    }

    /// Returns a share of the ids from 1 to `count` as SQL.
    fn some_of(&mut self, count: u64) -> String {
        let ids: Vec<String> =
            (0..self.share_of(count).max(1)).map(|_| (self.dice.below(count.max(1)) + 1).to_string()).collect();
        ids.join(",")
    }
}

pub(crate) async fn max_id(conn: &mut Conn, table: Table, shop: u64) -> anyhow::Result<u64> {
    let sql = format!("SELECT COALESCE(MAX(id), 0) FROM {} WHERE shop_id = {shop}", table.name());
    Ok(conn.query_first(sql).await?.unwrap_or_default())
}
