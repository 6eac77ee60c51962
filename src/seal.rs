//! Seals a chunk into a blob and opens it again: hash, compress where it pays, encrypt.
//!
//! What `seal` promises, `open` proves: the MAC, the length and the hash of the plain bytes. Nothing here does I/O.

mod cipher;
mod squeeze;

pub use crate::seal::cipher::{MasterKey, OVERHEAD};
pub use crate::seal::squeeze::{Effort, PLAIN_MAX};

use crate::id::BlobId;
use crate::seal::squeeze::Squeezer;

/// The first byte of a document that is compressed.
const COMPRESSED: u8 = 2;

/// A document (index, snapshot, lock) is refused beyond this: restic keeps its own below 8 MiB, an index of 50,000 blobs is 10.
const DOCUMENT_MAX: usize = 256 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("open sealed bytes: {length} bytes are too short for a nonce and a MAC")]
    Short { length: usize },
    #[error("open sealed bytes: the MAC does not match: other bytes or another key")]
    Forged,
    #[error("open sealed bytes: {reason}")]
    Decompress { reason: String },
    #[error("open blob {}: its bytes hash to {}", expected.short(), actual.short())]
    Damaged { expected: BlobId, actual: BlobId },
    #[error("open document: unknown encoding {0:#04x}")]
    Encoding(u8),
    #[error("seal: {reason}")]
    Seal { reason: String },
}

/// Whether compression may be left out, and how much time it may take.
#[derive(Debug, Clone, Copy)]
pub enum Compress<'a> {
    /// Where a sample says that it pays.
    WherePays,
    /// Likewise, at the level that the stream's chunks before have shown to be worth its time.
    AsLearnt(&'a Effort),
    /// Always: restic rewrites packs whose trees are not compressed.
    Always,
}

/// Seals blobs on one thread, with buffers and a compressor of its own.
pub struct Sealer {
    squeezer: Squeezer,
    sealed: Vec<u8>,
}

/// A sealed blob, as it lies in a pack.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    pub bytes: &'a [u8],
    pub is_compressed: bool,
}

impl Sealer {
    /// # Errors
    /// Where zstd cannot make a context.
    pub fn new() -> Result<Self, SealError> {
        Ok(Self { squeezer: Squeezer::new()?, sealed: Vec::new() })
    }

    /// Seals plain bytes. The result stands until the next call.
    ///
    /// # Errors
    /// Where compression or the machine's entropy fails.
    pub fn seal(&mut self, key: &MasterKey, compress: Compress<'_>, plain: &[u8]) -> Result<Sealed<'_>, SealError> {
        let squeezed = self.squeezer.squeeze(compress, plain)?;
        self.sealed.clear();
        key.encrypt_into(squeezed.unwrap_or(plain), &mut self.sealed)?;
        Ok(Sealed { is_compressed: squeezed.is_some(), bytes: &self.sealed })
    }
}

/// Opens a blob and proves that its plain bytes are the ones that `id` names. `plain` is their length where they are compressed.
///
/// # Errors
/// Where MAC, length or hash do not match.
pub fn open(key: &MasterKey, id: &BlobId, sealed: &[u8], plain: Option<u32>) -> Result<Vec<u8>, SealError> {
    let bytes = match plain {
        None => key.decrypt(sealed)?,
        Some(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            key.decrypt_with(sealed, |squeezed| squeeze::expand(squeezed, length))??
        }
    };
    let actual = BlobId::of(&bytes);
    if actual == *id { Ok(bytes) } else { Err(SealError::Damaged { expected: *id, actual }) }
}

/// Seals a JSON document: index, snapshot or lock.
///
/// # Errors
/// Where compression or the machine's entropy fails.
pub fn seal_document(key: &MasterKey, json: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut plain = vec![COMPRESSED];
    plain.extend_from_slice(&squeeze::squeeze_document(json)?);
    let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
    key.encrypt_into(&plain, &mut sealed)?;
    Ok(sealed)
}

/// Opens a document; one that is plain JSON (as the config is) is taken as it stands.
///
/// # Errors
/// Where the MAC does not match or the document is none.
pub fn open_document(key: &MasterKey, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let plain = key.decrypt(sealed)?;
    match plain.first() {
        Some(b'{' | b'[') => Ok(plain),
        Some(&COMPRESSED) => squeeze::expand_document(&plain[1..], DOCUMENT_MAX),
        Some(&other) => Err(SealError::Encoding(other)),
        None => Err(SealError::Short { length: 0 }),
    }
}

#[cfg(test)]
mod tests;
