//! A busy day: orders, stock, states and images change in transactions for as long as it is told.

use crate::BusyArgs;
use crate::change::max_id;
use crate::dice::Dice;
use crate::dice::Thing;
use crate::images;
use crate::load::insert;
use crate::rows::Maker;
use crate::schema;
use crate::schema::Table;
use crate::shape::Shape;
use anyhow::Context as _;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A deadlock, or a lock that a backup holds for a moment, is tried again: as a shop would.
const DEADLOCK: u16 = 1213;
const LOCK_WAIT: u16 = 1205;

#[derive(Debug)]
struct Day {
    shape: Shape,
    images: Option<PathBuf>,
    orders: Vec<AtomicU64>,
    image_ids: Vec<AtomicU64>,
    stop: CancellationToken,
}

#[derive(Debug, Default, Clone, Copy)]
struct Done {
    committed: u64,
    images: u64,
    retried: u64,
}

pub(crate) async fn busy(args: &BusyArgs) -> anyhow::Result<()> {
    let mut conn = args.server.connect().await?;
    let day = Arc::new(Day::open(&mut conn, args).await?);
    let mut workers = JoinSet::new();
    for worker in 0..args.server.connections {
        workers.spawn(day.clone().work(args.server.connect().await?, worker));
    }
    println!("busy");
    let until = day.stop.clone();
    let seconds = Duration::from_secs(args.seconds);
    tokio::spawn(async move {
        wait(seconds).await;
        until.cancel();
    });
    let mut total = Done::default();
    while let Some(done) = workers.join_next().await {
        let done = done??;
        total.committed += done.committed;
        total.images += done.images;
        total.retried += done.retried;
    }
    conn.disconnect().await?;
    println!("committed {} transactions, {} images, {} tried again", total.committed, total.images, total.retried);
    Ok(())
}

/// Returns once the time is up or a signal asks to stop.
async fn wait(time: Duration) {
    let term = async {
        match signal(SignalKind::terminate()) {
            Ok(mut stream) => drop(stream.recv().await),
            Err(error) => eprintln!("mall: cannot hear SIGTERM: {error}"),
        }
    };
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = term => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

impl Day {
    async fn open(conn: &mut Conn, args: &BusyArgs) -> anyhow::Result<Self> {
        let shape = schema::shape_of(conn).await?;
        let (mut orders, mut image_ids) = (Vec::new(), Vec::new());
        for (shop, _) in shape.shops() {
            orders.push(AtomicU64::new(max_id(conn, Table::Orders, shop).await? + 1));
            image_ids.push(AtomicU64::new(max_id(conn, Table::ProductImages, shop).await? + 1));
        }
        Ok(Self { shape, images: args.images.clone(), orders, image_ids, stop: CancellationToken::new() })
    }

    async fn work(self: Arc<Self>, mut conn: Conn, worker: u64) -> anyhow::Result<Done> {
        let mut done = Done::default();
        // A run after this one writes other orders than this one did.
        let start = self.orders.iter().map(|id| id.load(Ordering::Relaxed)).sum();
        let mut dice = Dice::new(self.shape.seed, Thing::Busy, worker, start);
        while !self.stop.is_cancelled() {
            match self.sell(&mut conn, &mut dice).await {
                Ok(()) => done.committed += 1,
                Err(mysql_async::Error::Server(error)) if [DEADLOCK, LOCK_WAIT].contains(&error.code) => {
                    done.retried += 1;
                }
                Err(error) => return Err(error).context("write an order"),
            }
            if done.committed % 5 == 4 {
                done.images += self.photograph(&mut conn, &mut dice).await?;
            }
        }
        conn.disconnect().await?;
        Ok(done)
    }

    /// Writes one transaction, whole or not at all.
    async fn sell(&self, conn: &mut Conn, dice: &mut Dice) -> Result<(), mysql_async::Error> {
        conn.query_drop("START TRANSACTION").await?;
        let written = self.sale(conn, dice).await;
        let end = if written.is_ok() { "COMMIT" } else { "ROLLBACK" };
        conn.query_drop(end).await?;
        written
    }

    /// An order with its items and payment, the stock that they take, and an older order's next state.
    async fn sale(&self, conn: &mut Conn, dice: &mut Dice) -> Result<(), mysql_async::Error> {
        let (maker, nth) = self.any_shop(dice);
        let id = self.orders[nth].fetch_add(1, Ordering::Relaxed);
        let shop = maker.shop;
        insert_all(conn, maker.sale(id)).await?;
        let product = dice.below(maker.shape.products) + 1;
        let sold =
            "UPDATE products SET stock = stock - 1, updated_at = CURRENT_TIMESTAMP(6) WHERE shop_id = ? AND id = ?";
        conn.exec_drop(sold, (shop, product)).await?;
        let older = dice.below(id) + 1;
        let state = dice.pick(&["paid", "shipped", "delivered", "returned"]);
        let moved = "UPDATE orders SET state = ?, updated_at = CURRENT_TIMESTAMP(6) WHERE shop_id = ? AND id = ?";
        conn.exec_drop(moved, (state, shop, older)).await?;
        for nth in 0..2 {
            insert(conn, Table::PageViews, maker.view(id * 2 + nth)).await?;
        }
        Ok(())
    }

    /// Puts up a new image: the file first, then the row that names it.
    async fn photograph(&self, conn: &mut Conn, dice: &mut Dice) -> anyhow::Result<u64> {
        let Some(dir) = &self.images else {
            return Ok(0);
        };
        let (maker, nth) = self.any_shop(dice);
        let id = self.image_ids[nth].fetch_add(1, Ordering::Relaxed);
        let written = images::write(dir, maker.seed, maker.shop, id, 0)?;
        insert(conn, Table::ProductImages, maker.image(id, &written)).await.context("insert an image")?;
        Ok(1)
    }

    fn any_shop(&self, dice: &mut Dice) -> (Maker<'_>, usize) {
        let nth = usize::try_from(dice.below(self.shape.shops.len() as u64)).unwrap_or_default();
        let maker = Maker { seed: self.shape.seed, shop: nth as u64 + 1, shape: &self.shape.shops[nth] };
        (maker, nth)
    }
}

async fn insert_all(conn: &mut Conn, sale: crate::rows::Sale) -> Result<(), mysql_async::Error> {
    insert(conn, Table::Orders, sale.order).await?;
    for item in sale.items {
        insert(conn, Table::OrderItems, item).await?;
    }
    if let Some(payment) = sale.payment {
        insert(conn, Table::Payments, payment).await?;
    }
    Ok(())
}
