//! A repository of index files only, as large as one likes, and what it costs to open.
//!
//! The ids are those that a seed gives, so that whoever measures knows which blobs are there without a list of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use bkp::id::{BlobId, ObjectId};
use bkp::repository::{BlobKind, PackContents, PackedBlob, Repository};
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::store::local::LocalStore;
use clap::Subcommand;
use rand::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;

#[derive(Debug, Subcommand)]
pub(crate) enum Act {
    /// Write a repository whose index names so many blobs in packs that are not there; its password is `bench`
    Make {
        dir: PathBuf,
        #[arg(long, default_value_t = 10_000_000)]
        blobs: u64,
    },
    /// Load the index, look blobs up, and go through all packs
    Open {
        dir: PathBuf,
        #[arg(long, default_value_t = 10_000_000)]
        blobs: u64,
    },
}

/// Blobs in a pack, as of images of 130 KB; one in fifty packs holds trees.
const BLOBS_IN_PACK: u64 = 125;
const TREE_PACKS_EVERY: u64 = 50;

/// Packs in an index file: 50,000 blobs, as many as `bkp` and restic put into one.
const PACKS_IN_FILE: u64 = 400;

/// Look-ups that are timed.
const LOOKS: u64 = 1_000_000;

pub(crate) fn run(act: &Act) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match act {
        Act::Make { dir, blobs } => runtime.block_on(make(dir, *blobs)),
        Act::Open { dir, blobs } => {
            let repository = runtime.block_on(open(dir))?;
            measure(&repository, *blobs)
        }
    }
}

fn password() -> Secret {
    Secret::new("bench".to_owned())
}

async fn make(dir: &Path, blobs: u64) -> anyhow::Result<()> {
    let run = Run::silent();
    let repository = Repository::init(Arc::new(LocalStore::new(dir)), &password(), &run).await?;
    let packs = blobs.div_ceil(BLOBS_IN_PACK);
    for first in (0..packs).step_by(usize::try_from(PACKS_IN_FILE)?) {
        let packs: Vec<_> = (first..packs.min(first + PACKS_IN_FILE)).map(pack).collect();
        repository.reindex(&HashSet::new(), &packs, false, &run).await?;
    }
    println!("{} blobs in {packs} packs", packs * BLOBS_IN_PACK);
    Ok(())
}

fn pack(number: u64) -> PackContents {
    let mut dice = Pcg64Mcg::seed_from_u64(number);
    let kind = if number.is_multiple_of(TREE_PACKS_EVERY) { BlobKind::Tree } else { BlobKind::Data };
    let mut offset = 0;
    let blobs = (0..BLOBS_IN_PACK).map(|_| {
        let id = draw(&mut dice);
        let length = 4096 + dice.next_u32() % (256 << 10);
        let blob = PackedBlob { kind, id, offset, length, plain: Some(length * 2) };
        offset += length;
        blob
    });
    let blobs = blobs.collect();
    PackContents { id: ObjectId::from_bytes(*draw(&mut dice).as_bytes()), blobs }
}

fn draw(dice: &mut Pcg64Mcg) -> BlobId {
    let mut id = [0; 32];
    dice.fill_bytes(&mut id);
    BlobId::from_bytes(id)
}

async fn open(dir: &Path) -> anyhow::Result<Arc<Repository>> {
    let run = Run::silent();
    let repository = Repository::open(Arc::new(LocalStore::new(dir)), &password(), &run).await?;
    let (start, before) = (Instant::now(), resident("VmRSS")?);
    repository.load_index(&run).await?;
    let took = start.elapsed().as_secs_f64();
    let (now, peak) = (resident("VmRSS")?, resident("VmHWM")?);
    println!("index loaded in {took:.2} s: {} MiB resident, {} MiB at the peak", (now - before) >> 20, peak >> 20);
    Ok(repository)
}

fn measure(repository: &Repository, blobs: u64) -> anyhow::Result<()> {
    let packs = blobs.div_ceil(BLOBS_IN_PACK);
    // The packs are taken in no order, so that no look-up is in the processor's cache because of the one before.
    let step = (packs / 3 * 2 + 1).max(1);
    let known = (0..LOOKS / BLOBS_IN_PACK).flat_map(|nth| pack(nth * step % packs).blobs);
    let known: Vec<_> = known.map(|blob| (blob.kind, blob.id)).collect();
    let mut dice = Pcg64Mcg::seed_from_u64(u64::MAX);
    let unknown: Vec<_> = known.iter().map(|(kind, _)| (*kind, draw(&mut dice))).collect();
    for (what, ids, expected) in [("hits", &known, known.len()), ("misses", &unknown, 0)] {
        let start = Instant::now();
        let found = ids.iter().filter(|(kind, id)| repository.has(*kind, id)).count();
        let nanoseconds = start.elapsed().as_nanos() / ids.len() as u128;
        anyhow::ensure!(found == expected, "{found} {what} where {expected} were expected");
        println!("{what}: {nanoseconds} ns each");
    }
    let (start, before) = (Instant::now(), resident("VmHWM")?);
    let gone_through: u64 = repository.packs().iter().map(|pack| pack.blobs.len() as u64).sum();
    anyhow::ensure!(gone_through >= blobs, "{gone_through} blobs in all packs where {blobs} were expected");
    let more = (resident("VmHWM")? - before) >> 20;
    println!("all packs gone through in {:.2} s, at {more} MiB more", start.elapsed().as_secs_f64());
    Ok(())
}

/// Reads this process's own memory, in bytes.
fn resident(field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).context("the kernel tells no memory")?;
    Ok(kibibytes.parse::<u64>()? << 10)
}
