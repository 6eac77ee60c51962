//! The floor of a backup: what restic's format asks of every byte, by the same crates at the same settings, on all cores.
//!
//! Each chunk is cut by FastCDC, hashed, compressed where the caller knows that it pays, encrypted and authenticated; what would be
//! stored is hashed once more, because a pack is named by its bytes. Nothing is kept, unless it is to be written: then each pack
//! is synced, read back from the disk and hashed, as `bkp` does it.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aes::cipher::{KeyIvInit, StreamCipher};
use anyhow::Context;
use bkp::chunk::{AVERAGE, MAX, MIN};
use fastcdc::v2020::FastCDC;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use sha2::{Digest, Sha256};
use zstd::bulk::Compressor;

/// A stretch of a long file that one thread takes: long enough that its own end, which is no cut, weighs nothing.
const STRETCH: u64 = 32 << 20;

/// zstd's own default, as `bkp` and restic use it.
const LEVEL: i32 = 3;

struct Stretch {
    path: PathBuf,
    start: u64,
    length: u64,
}

/// One thread's keys, contexts and buffers.
struct Worker {
    compressor: Option<Compressor<'static>>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    pack: Vec<u8>,
    to: Option<PathBuf>,
}

/// As long as `bkp`'s packs.
const PACK: usize = 16 << 20;

/// Does the work and returns how many bytes were read.
pub(crate) fn run(dir: &Path, compress: bool, to: Option<&Path>) -> anyhow::Result<u64> {
    to.map_or(Ok(()), fs::create_dir_all)?;
    let mut stretches = Vec::new();
    list(dir, &mut stretches)?;
    let (work, bytes) = (Mutex::new(stretches), AtomicU64::new(0));
    let take = || work.lock().ok().and_then(|mut work| work.pop());
    let drain = || -> anyhow::Result<()> {
        let mut worker = Worker::new(compress, to)?;
        while let Some(stretch) = take() {
            bytes.fetch_add(worker.stretch(&stretch)?, Ordering::Relaxed);
        }
        worker.close_pack()
    };
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(drain)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread broke down"))?)
    })?;
    Ok(bytes.into_inner())
}

fn list(dir: &Path, stretches: &mut Vec<Stretch>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path()))?;
        let metadata = entry?;
        if metadata.is_dir() {
            list(&path, stretches)?;
        } else if metadata.is_file() {
            let starts = (0..metadata.len()).step_by(usize::try_from(STRETCH)?);
            stretches.extend(starts.map(|start| Stretch {
                path: path.clone(),
                start,
                length: STRETCH.min(metadata.len() - start),
            }));
        }
    }
    Ok(())
}

impl Worker {
    fn new(compress: bool, to: Option<&Path>) -> anyhow::Result<Self> {
        let compressor = compress.then(|| Compressor::new(LEVEL)).transpose()?;
        let (plain, sealed, pack) = (Vec::new(), Vec::new(), Vec::with_capacity(PACK + MAX));
        Ok(Self { compressor, plain, sealed, pack, to: to.map(Path::to_owned) })
    }

    fn stretch(&mut self, stretch: &Stretch) -> anyhow::Result<u64> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(usize::try_from(stretch.length)?, 0);
        File::open(&stretch.path)?.read_exact_at(&mut plain, stretch.start)?;
        if plain.len() <= MIN {
            self.chunk(&plain)?;
        } else {
            for chunk in FastCDC::new(&plain, MIN, AVERAGE, MAX) {
                self.chunk(&plain[chunk.offset..chunk.offset + chunk.length])?;
            }
        }
        self.plain = plain;
        Ok(stretch.length)
    }

    fn chunk(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        let id = Sha256::digest(chunk);
        self.sealed.clear();
        match &mut self.compressor {
            Some(compressor) => {
                self.sealed.reserve(zstd::zstd_safe::compress_bound(chunk.len()));
                compressor.compress_to_buffer(chunk, &mut self.sealed)?;
            }
            None => self.sealed.extend_from_slice(chunk),
        }
        let (key, nonce): ([u8; 32], [u8; 16]) = (id.into(), [7; 16]);
        ctr::Ctr128BE::<aes::Aes256>::new(&key.into(), &nonce.into()).apply_keystream(&mut self.sealed);
        let mac = Poly1305::new(&key.into()).compute_unpadded(&self.sealed);
        self.pack.extend_from_slice(&self.sealed);
        self.pack.extend_from_slice(&mac);
        if self.pack.len() >= PACK { self.close_pack() } else { Ok(()) }
    }

    fn close_pack(&mut self) -> anyhow::Result<()> {
        let id = Sha256::digest(&self.pack);
        if let Some(to) = &self.to {
            let path = to.join(hex::encode(id));
            let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
            file.write_all(&self.pack)?;
            file.sync_all()?;
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            file.rewind()?;
            file.read_exact(&mut self.pack)?;
            anyhow::ensure!(Sha256::digest(&self.pack) == id, "a pack came back changed");
        }
        self.pack.clear();
        Ok(())
    }
}
