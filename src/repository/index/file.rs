//! Index files: JSON that lists packs and the blobs in them.

use serde::{Deserialize, Serialize};

use crate::id::{BlobId, ObjectId};
use crate::repository::index::PackContents;
use crate::repository::pack::{BlobKind, PackedBlob};

/// Blobs in one index file: some 10 MB of JSON, as restic's own.
pub(crate) const BLOBS_MAX: usize = 50_000;

/// Splits packs over index files. A pack is never split: one of more blobs than a file should have gets a file alone.
pub(crate) fn files_of(packs: &[PackContents]) -> impl Iterator<Item = &[PackContents]> {
    let mut blobs = 0;
    packs.chunk_by(move |_, next| {
        blobs += next.blobs.len();
        let fits = blobs < BLOBS_MAX;
        if !fits {
            blobs = 0;
        }
        fits
    })
}

#[derive(Serialize)]
struct FileOut<'a> {
    packs: Vec<PackOut<'a>>,
}

#[derive(Serialize)]
struct PackOut<'a> {
    id: &'a ObjectId,
    blobs: Vec<BlobOut<'a>>,
}

#[derive(Serialize)]
struct BlobOut<'a> {
    id: &'a BlobId,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    uncompressed_length: Option<u32>,
}

/// Prints an index file.
pub(crate) fn print(packs: &[PackContents]) -> Result<Vec<u8>, serde_json::Error> {
    let packs = packs.iter().map(|pack| PackOut { id: &pack.id, blobs: pack.blobs.iter().map(blob_out).collect() });
    serde_json::to_vec(&FileOut { packs: packs.collect() })
}

fn blob_out(blob: &PackedBlob) -> BlobOut<'_> {
    BlobOut { id: &blob.id, kind: blob.kind, offset: blob.offset, length: blob.length, uncompressed_length: blob.plain }
}

#[derive(Deserialize)]
struct FileIn {
    #[serde(default)]
    packs: Option<Vec<PackIn>>,
}

#[derive(Deserialize)]
struct PackIn {
    id: ObjectId,
    #[serde(default)]
    blobs: Option<Vec<BlobIn>>,
}

#[derive(Deserialize)]
struct BlobIn {
    id: BlobId,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default)]
    uncompressed_length: u32,
}

/// Reads an index file.
pub(crate) fn parse(json: &[u8]) -> Result<Vec<PackContents>, serde_json::Error> {
    let file: FileIn = serde_json::from_slice(json)?;
    let packs = file
        .packs
        .unwrap_or_default()
        .into_iter()
        .map(|pack| PackContents { id: pack.id, blobs: pack.blobs.unwrap_or_default().iter().map(blob_in).collect() });
    Ok(packs.collect())
}

fn blob_in(blob: &BlobIn) -> PackedBlob {
    PackedBlob {
        kind: blob.kind,
        id: blob.id,
        offset: blob.offset,
        length: blob.length,
        plain: (blob.uncompressed_length != 0).then_some(blob.uncompressed_length),
    }
}
