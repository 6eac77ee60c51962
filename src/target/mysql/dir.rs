//! A dump in a directory, as `restic restore` or `bkp restore --to-dir` leaves it.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use futures_util::stream::BoxStream;
use tokio::io::AsyncReadExt;

use crate::mysql::manifest::{FORMAT, Manifest};
use crate::target::mysql::dump::{DumpReadError, DumpReader};

/// Row files are read in blocks of this many bytes; one block is ahead of the server at most.
const BLOCK_BYTES: usize = 256 * 1024;

/// A manifest holds about 200 bytes for each chunk of 64 MiB: this is beyond any real one.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// The files of a dump below one directory.
#[derive(Debug)]
pub struct DirDump {
    root: PathBuf,
    manifest: Manifest,
}

impl DirDump {
    /// Opens the dump whose `manifest.json` lies in a directory.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DumpReadError> {
        let root = root.into();
        let path = "manifest.json";
        let text = read_bounded(&root.join(path)).map_err(|error| failure(path, error))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|source| DumpReadError::Malformed { path: path.to_owned(), source: source.into() })?;
        if manifest.format > FORMAT {
            return Err(DumpReadError::NewerFormat { format: manifest.format, known: FORMAT });
        }
        Ok(Self { root, manifest })
    }

    fn place(&self, path: &str) -> Result<PathBuf, DumpReadError> {
        let is_plain = |part| matches!(part, Component::Normal(_));
        if path.is_empty() || !Path::new(path).components().all(is_plain) {
            return Err(DumpReadError::Outside { path: path.to_owned() });
        }
        Ok(self.root.join(path))
    }
}

#[async_trait]
impl DumpReader for DirDump {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, DumpReadError> {
        tokio::fs::read(self.place(path)?).await.map_err(|error| failure(path, error))
    }

    fn stream(&self, path: &str) -> BoxStream<'static, Result<Bytes, DumpReadError>> {
        let path = path.to_owned();
        let opened = match self.place(&path) {
            Ok(place) => Blocks::Closed { path, place },
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        stream::try_unfold(opened, Blocks::next).boxed()
    }
}

/// A row file that is opened when its first block is asked for.
enum Blocks {
    Closed { path: String, place: PathBuf },
    Open { path: String, file: tokio::fs::File },
}

impl Blocks {
    async fn next(self) -> Result<Option<(Bytes, Self)>, DumpReadError> {
        let (path, mut file) = match self {
            Self::Open { path, file } => (path, file),
            Self::Closed { path, place } => match tokio::fs::File::open(&place).await {
                Ok(file) => (path, file),
                Err(error) => return Err(failure(&path, error)),
            },
        };
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        // Adapters return short reads at will; the limit keeps a block a block.
        let read = (&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut block).await;
        match read {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some((block.into(), Self::Open { path, file }))),
            Err(error) => Err(failure(&path, error)),
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn failure(path: &str, source: io::Error) -> DumpReadError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => DumpReadError::Missing { path },
        _ => DumpReadError::Io { path, source },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dump() -> (tempfile::TempDir, DirDump) {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"format":1,"product":"mariadb","version":"10.11","server":"1","taken_at":"2026-01-01T00:00:00Z",
            "consistency":"lock-free","position":null,"gtid":null,"write_stall_ms":0.0,"variables":{},"schemas":[],
            "tables":[],"objects":[]}"#;
        std::fs::write(dir.path().join("manifest.json"), text).unwrap();
        let dump = DirDump::open(dir.path()).unwrap();
        (dir, dump)
    }

    #[tokio::test]
    async fn a_row_file_streams_whole_in_bounded_blocks() {
        let (dir, dump) = dump();
        let rows: Vec<u8> = (0..700_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        std::fs::write(dir.path().join("rows.tsv"), &rows).unwrap();
        let blocks: Vec<Bytes> = dump.stream("rows.tsv").map(Result::unwrap).collect().await;
        assert!(blocks.iter().all(|block| block.len() <= BLOCK_BYTES));
        assert_eq!(blocks.concat(), rows);
    }

    #[tokio::test]
    async fn a_path_that_leaves_the_dump_is_refused() {
        let (_dir, dump) = dump();
        for path in ["../x", "/etc/passwd", "a/../../x", ""] {
            assert!(matches!(dump.read(path).await, Err(DumpReadError::Outside { .. })), "{path}");
            let first = dump.stream(path).next().await;
            assert!(matches!(first, Some(Err(DumpReadError::Outside { .. }))), "{path}");
        }
    }

    #[tokio::test]
    async fn a_row_file_that_is_gone_is_missing() {
        let (_dir, dump) = dump();
        let first = dump.stream("gone.tsv").next().await;
        assert!(matches!(first, Some(Err(DumpReadError::Missing { .. }))));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let (dir, _) = dump();
        let path = dir.path().join("manifest.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"format\":1", "\"format\":99")).unwrap();
        assert!(matches!(DirDump::open(dir.path()), Err(DumpReadError::NewerFormat { format: 99, .. })));
    }
}
