//! Compression where it pays: zstd, and a look at a sample to tell whether it will.

use std::cell::RefCell;
use std::io::Read;
use std::sync::LazyLock;

use zstd::bulk::{Compressor, Decompressor};

use crate::seal::{Compress, SealError};

/// zstd's own default, and what restic calls "auto".
const LEVEL: i32 = 3;

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

/// Compresses on one thread.
pub(crate) struct Squeezer {
    compressor: Compressor<'static>,
    squeezed: Vec<u8>,
}

impl Squeezer {
    pub(crate) fn new() -> Result<Self, SealError> {
        Ok(Self { compressor: Compressor::new(LEVEL).map_err(|error| broken(&error))?, squeezed: Vec::new() })
    }

    /// Returns the compressed bytes, or `None` where the plain ones are to be stored.
    pub(crate) fn squeeze(&mut self, compress: Compress, plain: &[u8]) -> Result<Option<&[u8]>, SealError> {
        let must = compress == Compress::Always;
        if plain.is_empty() || !must && !looks_compressible(plain) {
            return Ok(None);
        }
        self.squeezed.clear();
        self.squeezed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.compressor.compress_to_buffer(plain, &mut self.squeezed).map_err(|error| broken(&error))?;
        let pays = self.squeezed.len() < plain.len() - (plain.len() >> SAVES_SHIFT);
        Ok((must || pays).then_some(&self.squeezed))
    }
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
