//! Compression where it pays: zstd, and a look at a sample to tell whether it will.

use std::cell::RefCell;
use std::io::Read;
use std::mem;
use std::sync::{LazyLock, OnceLock};

use zstd::bulk::{Compressor, Decompressor};

use crate::seal::{Compress, SealError};

/// zstd's own default, and what restic calls "auto".
pub(super) const LEVEL: i32 = 3;
/// The level at which zstd is quickest without giving up ratio for it. Level 3 takes 1.7 times its time and saves 12 % on source
/// texts and documents, but nothing on the rows of the mall, whose repetitions are near.
pub(super) const QUICK_LEVEL: i32 = 1;

/// The usual level is worth its time where it saves at least 1/32 of what the quick one leaves.
const WORTH_SHIFT: usize = 5;
/// Shorter chunks teach nothing about the rest of their stream.
const TAUGHT_FROM: usize = 256 << 10;

/// A blob that claims more plain bytes than this is refused. A directory of a million entries is a tree of some 400 MB.
pub const PLAIN_MAX: usize = 1 << 30;

/// Chunks shorter than the sample are tried without a look.
const SAMPLED_FROM: usize = SAMPLES * SAMPLE;
/// Pieces taken evenly over a chunk, and bytes in each.
const SAMPLES: usize = 16;
const SAMPLE: usize = 256;
/// One piece more where the length is no multiple.
const SAMPLES_MAX: usize = SAMPLES + 1;
/// Random bytes show 7.95 bits in 4 KiB; JPEG and zstd's own output lie just below; text, rows and code below 7.
const ENTROPY_BITS_MAX: f64 = 7.85;

/// Compressed bytes are kept only where they save at least 1/32: a restore pays for each decompression.
const SAVES_SHIFT: usize = 5;

/// The level that suits one stream, learnt from its first chunk: rows of one table are alike.
#[derive(Debug, Default)]
pub struct Effort(OnceLock<Level>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Quick,
    Usual,
}

/// Compresses on one thread.
pub(crate) struct Squeezer {
    usual: Compressor<'static>,
    quick: Compressor<'static>,
    squeezed: Vec<u8>,
    /// The same bytes at the quick level, while a stream is learnt about.
    rival: Vec<u8>,
}

impl Squeezer {
    pub(crate) fn new() -> Result<Self, SealError> {
        let compressor = |level| Compressor::new(level).map_err(|error| broken(&error));
        Ok(Self { usual: compressor(LEVEL)?, quick: compressor(QUICK_LEVEL)?, squeezed: Vec::new(), rival: Vec::new() })
    }

    /// Returns the compressed bytes, or `None` where the plain ones are to be stored.
    pub(crate) fn squeeze(&mut self, compress: Compress<'_>, plain: &[u8]) -> Result<Option<&[u8]>, SealError> {
        let must = matches!(compress, Compress::Always);
        if plain.is_empty() || !must && !looks_compressible(plain) {
            return Ok(None);
        }
        match compress {
            Compress::AsLearnt(effort) => self.squeeze_part(effort, plain)?,
            Compress::WherePays | Compress::Always => run(&mut self.usual, plain, &mut self.squeezed)?,
        }
        let pays = self.squeezed.len() < plain.len() - (plain.len() >> SAVES_SHIFT);
        Ok((must || pays).then_some(&self.squeezed))
    }

    /// Compresses a chunk of a stream. Those that come before the first is done, on other threads, learn for themselves.
    fn squeeze_part(&mut self, effort: &Effort, plain: &[u8]) -> Result<(), SealError> {
        match effort.0.get() {
            Some(Level::Quick) => return run(&mut self.quick, plain, &mut self.squeezed),
            None if plain.len() >= TAUGHT_FROM => {}
            Some(Level::Usual) | None => return run(&mut self.usual, plain, &mut self.squeezed),
        }
        run(&mut self.usual, plain, &mut self.squeezed)?;
        run(&mut self.quick, plain, &mut self.rival)?;
        let is_worth = self.squeezed.len() < self.rival.len() - (self.rival.len() >> WORTH_SHIFT);
        if self.rival.len() < self.squeezed.len() {
            mem::swap(&mut self.rival, &mut self.squeezed);
        }
        effort.0.get_or_init(|| if is_worth { Level::Usual } else { Level::Quick });
        Ok(())
    }
}

fn run(compressor: &mut Compressor<'_>, plain: &[u8], squeezed: &mut Vec<u8>) -> Result<(), SealError> {
    squeezed.clear();
    squeezed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
    compressor.compress_to_buffer(plain, squeezed).map(drop).map_err(|error| broken(&error))
}

/// Compresses a document.
pub(crate) fn squeeze_document(json: &[u8]) -> Result<Vec<u8>, SealError> {
    zstd::bulk::compress(json, LEVEL).map_err(|error| broken(&error))
}

/// Decompresses a blob to exactly `length` bytes.
pub(crate) fn expand(squeezed: &[u8], length: usize) -> Result<Vec<u8>, SealError> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    if length > PLAIN_MAX {
        return Err(refused(format!("{length} plain bytes are more than a blob may have")));
    }
    let mut plain = Vec::new();
    plain.try_reserve_exact(length).map_err(|error| refused(error.to_string()))?;
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(|error| refused(error.to_string()))?),
        };
        let expanded = decompressor.decompress_to_buffer(squeezed, &mut plain);
        expanded.map_err(|error| refused(error.to_string()))
    })?;
    if plain.len() == length {
        Ok(plain)
    } else {
        Err(refused(format!("{} plain bytes where {length} were named", plain.len())))
    }
}

/// Decompresses a document of unknown length, up to a limit.
pub(crate) fn expand_document(squeezed: &[u8], limit: usize) -> Result<Vec<u8>, SealError> {
    let decoder = zstd::stream::read::Decoder::with_buffer(squeezed).map_err(|error| refused(error.to_string()))?;
    let mut plain = Vec::new();
    let read = decoder.take(limit as u64 + 1).read_to_end(&mut plain);
    read.map_err(|error| refused(error.to_string()))?;
    if plain.len() > limit {
        return Err(refused(format!("the document is longer than {limit} bytes")));
    }
    Ok(plain)
}

fn looks_compressible(plain: &[u8]) -> bool {
    plain.len() < SAMPLED_FROM || sampled_entropy(plain) < ENTROPY_BITS_MAX
}

/// Returns the bits that a byte of the sample carries, from 0 to 8.
fn sampled_entropy(plain: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    let stride = plain.len() / SAMPLES;
    for piece in plain.chunks_exact(stride.max(SAMPLE)) {
        for byte in &piece[..SAMPLE] {
            counts[usize::from(*byte)] += 1;
        }
    }
    // With n bytes of which each value comes c times: log2(n) - sum of c·log2(c) / n.
    let weighted: f64 = counts.iter().map(|count| WEIGHTED[*count as usize]).sum();
    let total = f64::from(counts.iter().sum::<u32>());
    total.log2() - weighted / total
}

/// `c·log2(c)` for every count that a sample can have: logarithms took longer than counting.
static WEIGHTED: LazyLock<[f64; SAMPLES_MAX * SAMPLE + 1]> = LazyLock::new(|| {
    std::array::from_fn(|count| {
        let count = u32::try_from(count).map_or(0.0, f64::from);
        if count > 0.0 { count * count.log2() } else { 0.0 }
    })
});

fn broken(error: &std::io::Error) -> SealError {
    SealError::Seal { reason: error.to_string() }
}

fn refused(reason: String) -> SealError {
    SealError::Decompress { reason }
}
