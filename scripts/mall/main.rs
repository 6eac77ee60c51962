//! A mall to back up: shops, customers, products, orders and an image tree, the same from the same seed.
//!
//! ```text
//! cargo run --example mall -- fill     --socket S --size 200MB --images DIR --image-count 5000
//! cargo run --example mall -- images   --dir DIR --count 60000
//! cargo run --example mall -- text     --dir DIR --size 2GB
//! cargo run --example mall -- change   --socket S --images DIR --fraction 0.01
//! cargo run --example mall -- busy     --socket S --images DIR --seconds 60
//! cargo run --example mall -- checksum --socket S
//! cargo run --example mall -- checksum --images DIR
//! ```
//!
//! It knows nothing of `bkp`, so that its checksums are an opinion of their own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod busy;
mod change;
mod checksum;
mod dice;
mod fill;
mod images;
mod load;
mod rows;
mod schema;
mod server;
mod shape;
mod text;
mod words;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use server::ServerArgs;
use std::path::PathBuf;
use std::time::Instant;

/// Makes, changes, keeps busy and fingerprints a mall's database and images.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create the schema and fill it and the image tree
    Fill(FillArgs),
    /// Make an image tree alone, without a database
    Images(ImagesArgs),
    /// Write the rows as a dump's text files, without a database
    Text(TextArgs),
    /// Insert, update and delete a share of rows and images
    Change(ChangeArgs),
    /// Keep writing orders and images until the time is up or SIGTERM comes
    Busy(BusyArgs),
    /// Print a fingerprint of every row, or of every file
    Checksum(ChecksumArgs),
}

#[derive(Debug, Args)]
struct FillArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Bytes of rows to make, about: 50MB, 2GB
    #[arg(long, value_parser = shape::bytes_of, default_value = "50MB")]
    size: u64,
    /// Directory to make the images in
    #[arg(long)]
    images: Option<PathBuf>,
    #[arg(long, default_value_t = 0, requires = "images")]
    image_count: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Drop a schema of that name first
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
struct ImagesArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    count: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct TextArgs {
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of rows to write, about: 50MB, 2GB
    #[arg(long, value_parser = shape::bytes_of, default_value = "50MB")]
    size: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Directory that holds the images
    #[arg(long)]
    images: Option<PathBuf>,
    /// Share of orders, products, customers and images to touch
    #[arg(long, default_value_t = 0.01)]
    fraction: f64,
}

#[derive(Debug, Args)]
struct BusyArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Directory that holds the images
    #[arg(long)]
    images: Option<PathBuf>,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[derive(Debug, Args)]
struct ChecksumArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Fingerprint this tree instead of the database
    #[arg(long)]
    images: Option<PathBuf>,
    /// Print what goes into the fingerprint: a line for each file, or each object's definition
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    match Cli::parse().verb {
        Verb::Fill(args) => fill::fill(&args).await?,
        Verb::Images(args) => {
            images::write_all(&args.dir, &shape::Shape::new(args.seed, 0, args.count))?;
        }
        Verb::Text(args) => text::write(&args)?,
        Verb::Change(args) => change::change(&args).await?,
        Verb::Busy(args) => busy::busy(&args).await?,
        Verb::Checksum(ChecksumArgs { images: Some(dir), list, .. }) => checksum::files::print(&dir, list)?,
        Verb::Checksum(args) => checksum::print(&args.server, args.list).await?,
    }
    eprintln!("mall: done in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
