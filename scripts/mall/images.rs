//! The image tree: small files that do not compress, under the paths that rows name.

use crate::dice::Dice;
use crate::dice::Thing;
use crate::dice::mix;
use crate::rows::image_time;
use crate::shape::Shape;
use anyhow::Context as _;
use sha2::Digest as _;
use sha2::Sha256;
use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

const BYTES_MIN: u64 = 2_000;
const BYTES_MAX: u64 = 60_000;
/// What tells a JPEG file.
const HEAD: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00";

/// What a row says of its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

/// Returns an image's path below the tree: `shop0001/1b/0000000042.jpg`.
pub(crate) fn path_of(seed: u64, shop: u64, id: u64) -> String {
    let fan = mix(seed ^ (shop << 40) ^ id) & 0x1f;
    format!("shop{shop:04}/{fan:02x}/{id:010}.jpg")
}

/// Writes an image in its `edition`: a file that is there gets new bytes in place.
pub(crate) fn write(dir: &Path, seed: u64, shop: u64, id: u64, edition: u64) -> anyhow::Result<Written> {
    let path = dir.join(path_of(seed, shop, id));
    let mut dice = Dice::new(seed ^ (edition << 32), Thing::Image, shop, id);
    let length = dice.between(BYTES_MIN, BYTES_MAX);
    let bytes = [HEAD, &dice.bytes(length)].concat();
    let time = u64::try_from(image_time(id).and_utc().timestamp()).unwrap_or_default() + edition * 86_400;
    save(&path, &bytes, SystemTime::UNIX_EPOCH + Duration::from_secs(time))
        .with_context(|| format!("write image `{}`", path.display()))?;
    Ok(Written { bytes: bytes.len() as u64, sha256: Sha256::digest(&bytes).into() })
}

fn save(path: &Path, bytes: &[u8], time: SystemTime) -> std::io::Result<()> {
    let mut file = match File::create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            File::create(path)?
        }
        opened => opened?,
    };
    file.write_all(bytes)?;
    file.set_modified(time)
}

pub(crate) fn delete(dir: &Path, seed: u64, shop: u64, id: u64) -> anyhow::Result<()> {
    let path = dir.join(path_of(seed, shop, id));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("delete image `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes every image of the mall on all cores; returns what was written, by shop and then by id from 1.
pub(crate) fn write_all(dir: &Path, shape: &Shape) -> anyhow::Result<Vec<Vec<Written>>> {
    fs::create_dir_all(dir).with_context(|| format!("create `{}`", dir.display()))?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut written = Vec::new();
    for (shop, counts) in shape.shops() {
        let ids: Vec<u64> = (1..=counts.images).collect();
        let part = ids.len().div_ceil(cores).max(1);
        let parts: Vec<anyhow::Result<Vec<Written>>> = thread::scope(|scope| {
            let start = |ids: &'_ [u64]| ids.iter().map(|&id| write(dir, shape.seed, shop, id, 0)).collect();
            let threads: Vec<_> = ids.chunks(part).map(|ids| scope.spawn(move || start(ids))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a writer panicked")))
                .collect()
        });
        let parts: Vec<Vec<Written>> = parts.into_iter().collect::<anyhow::Result<_>>()?;
        written.push(parts.concat());
    }
    Ok(written)
}
