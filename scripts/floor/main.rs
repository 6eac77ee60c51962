//! The floors that `scripts/bench` measures against: the same work with nothing round it.
//!
//! ```text
//! cargo run --release --example floor -- rows   --socket S --connections 4      rows as the server sends them
//! cargo run --release --example floor -- encode --policy P --source db1         the dump of `bkp`, its files thrown away
//! cargo run --release --example floor -- seal   --policy P --source db1         its packs thrown away
//! cargo run --release --example floor -- primitives [--compress] [--to DIR] DIR   a tree's bytes cut, hashed and sealed, thrown away
//! cargo run --release --example floor -- hardware                               bytes a second of each primitive on one thread
//! cargo run --release --example floor -- index make --blobs 10000000 DIR        a repository of index files only
//! cargo run --release --example floor -- index open DIR                         its index loaded, looked up in and gone through
//! ```

mod dump;
mod hardware;
mod index;
mod primitives;
mod seal;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    stage: Stage,
}

#[derive(Debug, Subcommand)]
enum Stage {
    /// Read every row in the binary protocol and drop it
    Rows {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long, default_value = "root")]
        user: String,
        #[arg(long, default_value = "mall")]
        schema: String,
        #[arg(long, default_value_t = 4)]
        connections: usize,
    },
    /// Dump as `bkp` does, and drop the files
    Encode {
        #[arg(long)]
        policy: PathBuf,
        #[arg(long)]
        source: String,
    },
    /// Dump as `bkp` does, and drop the packs
    Seal {
        #[arg(long)]
        policy: PathBuf,
        #[arg(long)]
        source: String,
    },
    /// Read files, cut, hash and seal them as a repository needs it, and drop the result
    Primitives {
        dir: PathBuf,
        /// Compress every chunk: for bytes that are known to shrink
        #[arg(long)]
        compress: bool,
        /// Write packs there, and read each back
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Measure each primitive, and fail where one does not use what the processor has
    Hardware,
    /// Make or measure a large index
    Index {
        #[command(subcommand)]
        act: index::Act,
    },
}

fn main() -> anyhow::Result<()> {
    let bytes = match Cli::parse().stage {
        Stage::Rows { socket, user, schema, connections } => {
            dump::rows(&dump::server(socket, user), &schema, connections)?
        }
        Stage::Encode { policy, source } => dump::encode(&policy, &source)?,
        Stage::Seal { policy, source } => seal::run(&policy, &source)?,
        Stage::Primitives { dir, compress, to } => primitives::run(&dir, compress, to.as_deref())?,
        Stage::Hardware => return hardware::check(),
        Stage::Index { act } => return index::run(&act),
    };
    println!("{bytes} bytes");
    Ok(())
}
