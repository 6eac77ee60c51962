//! Fills an empty schema and an empty image tree.

use crate::FillArgs;
use crate::images;
use crate::images::Written;
use crate::load::Text;
use crate::rows::Maker;
use crate::schema;
use crate::schema::Table;
use crate::shape::Shape;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::Mutex;

/// Bounds the text of one LOAD DATA to some megabytes.
const IDS_PER_TASK: u64 = 8_000;

/// Ids of one kind in one shop that one connection loads in one go.
#[derive(Debug, Clone)]
struct Task {
    shop: u64,
    kind: Kind,
    ids: RangeInclusive<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Shop,
    Customers,
    Products,
    Images,
    Sales,
    Views,
}

#[derive(Debug)]
struct Mall {
    shape: Shape,
    images: Vec<Vec<Written>>,
}

pub(crate) async fn fill(args: &FillArgs) -> anyhow::Result<()> {
    let shape = Shape::new(args.seed, args.size, args.image_count);
    schema::create(&args.server, &shape, args.replace).await?;
    let images = match &args.images {
        Some(dir) => images::write_all(dir, &shape)?,
        None => Vec::new(),
    };
    let tasks = Arc::new(Mutex::new(tasks(&shape)));
    let mall = Arc::new(Mall { shape, images });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..args.server.connections {
        let mut conn = args.server.connect().await?;
        prepare(&mut conn).await?;
        workers.spawn(work(conn, tasks.clone(), mall.clone()));
    }
    let mut bytes = 0;
    while let Some(done) = workers.join_next().await {
        bytes += done??;
    }
    let shops = mall.shape.shops.len();
    let images: usize = mall.images.iter().map(Vec::len).sum();
    println!("filled {shops} shops with {bytes} bytes of rows and {images} images");
    Ok(())
}

/// Returns the text of all rows but the images', shop by shop.
pub(crate) fn all(shape: Shape) -> impl Iterator<Item = Text> {
    let mut tasks = tasks(&shape);
    tasks.reverse();
    let mall = Mall { shape, images: Vec::new() };
    tasks.into_iter().flat_map(move |task| texts(&mall, &task)).filter(|text| text.len() > 0)
}

/// Returns what there is to load, the last first.
fn tasks(shape: &Shape) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (shop, counts) in shape.shops() {
        let kinds = [
            (Kind::Views, counts.views),
            (Kind::Sales, counts.orders),
            (Kind::Images, counts.images),
            (Kind::Products, counts.products),
            (Kind::Customers, counts.customers),
            (Kind::Shop, 1),
        ];
        for (kind, count) in kinds {
            let starts = (1..=count).step_by(usize::try_from(IDS_PER_TASK).unwrap_or(usize::MAX));
            tasks.extend(starts.map(|first| Task { shop, kind, ids: first..=(first + IDS_PER_TASK - 1).min(count) }));
        }
    }
    tasks
}

/// Makes a session load fast: rows come in any order of tables, and hold together once all are there.
async fn prepare(conn: &mut Conn) -> anyhow::Result<()> {
    conn.query_drop("SET foreign_key_checks = 0, unique_checks = 0").await?;
    // Only a privileged user may; without it the rows go through the binlog too, which is slower but right.
    conn.query_drop("SET sql_log_bin = 0").await.ok();
    Ok(())
}

async fn work(mut conn: Conn, tasks: Arc<Mutex<Vec<Task>>>, mall: Arc<Mall>) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while let Some(task) = take(&tasks) {
        for text in texts(&mall, &task) {
            bytes += text.load(&mut conn).await?;
        }
    }
    conn.disconnect().await?;
    Ok(bytes)
}

fn take(tasks: &Mutex<Vec<Task>>) -> Option<Task> {
    tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop()
}

fn texts(mall: &Mall, task: &Task) -> Vec<Text> {
    let Some(shape) = mall.shape.shop(task.shop) else {
        return Vec::new();
    };
    let maker = Maker { seed: mall.shape.seed, shop: task.shop, shape };
    let ids = task.ids.clone();
    match task.kind {
        Kind::Shop => vec![Text::of(Table::Shops, [maker.shop()])],
        Kind::Customers => vec![Text::of(Table::Customers, ids.map(|id| maker.customer(id)))],
        Kind::Products => vec![Text::of(Table::Products, ids.map(|id| maker.product(id)))],
        Kind::Views => vec![Text::of(Table::PageViews, ids.map(|nth| maker.view(nth)))],
        Kind::Images => vec![Text::of(Table::ProductImages, image_rows(mall, maker, ids))],
        Kind::Sales => sales(maker, ids).into(),
    }
}

fn image_rows(mall: &Mall, maker: Maker<'_>, ids: RangeInclusive<u64>) -> impl Iterator<Item = crate::rows::Row> {
    let shop = usize::try_from(maker.shop - 1).unwrap_or(usize::MAX);
    let written = mall.images.get(shop).map_or(&[][..], Vec::as_slice);
    ids.filter_map(move |id| {
        let written = written.get(usize::try_from(id - 1).ok()?)?;
        Some(maker.image(id, written))
    })
}

/// Returns orders, their items and their payments.
pub(crate) fn sales(maker: Maker<'_>, ids: RangeInclusive<u64>) -> [Text; 3] {
    let [mut orders, mut items, mut payments] = [Table::Orders, Table::OrderItems, Table::Payments].map(Text::new);
    for id in ids {
        let sale = maker.sale(id);
        orders.push(&sale.order);
        sale.items.iter().for_each(|row| items.push(row));
        sale.payment.iter().for_each(|row| payments.push(row));
    }
    [orders, items, payments]
}
