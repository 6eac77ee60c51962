//! A dump to load from: a snapshot in a repository, or a directory.

use std::error::Error;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::mysql::manifest::Manifest;

/// Reads the files of one dump. Paths are those of the manifest, relative to the dump's root.
#[async_trait]
pub trait DumpReader: Send + Sync {
    fn manifest(&self) -> &Manifest;

    /// Reads a small file (`schema.sql`, the statements of an object) whole.
    async fn read(&self, path: &str) -> Result<Vec<u8>, DumpReadError>;

    /// Streams a row file. How far it reads ahead, in bytes, is bounded by the reader.
    fn stream(&self, path: &str) -> BoxStream<'static, Result<Bytes, DumpReadError>>;
}

/// Refuses to give out a file of a dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpReadError {
    #[error("read `{path}` of the dump: there is no such file")]
    Missing { path: String },
    #[error("read `{path}` of the dump: its bytes are damaged")]
    Damaged {
        path: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    #[error("read `{path}` of the dump: it is no path inside it")]
    Outside { path: String },
    #[error("read `{path}` of the dump")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("read `{path}` of the dump: it is not what a dump holds there")]
    Malformed {
        path: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("read the dump: its format is {format}, newer than this program's {known}")]
    NewerFormat { format: u32, known: u32 },
    /// What another kind of reader met.
    #[error("read `{path}` of the dump")]
    Other {
        path: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl DumpReadError {
    /// Tells whether the dump itself is damaged, so that no new try will help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Damaged { .. } | Self::Malformed { .. })
    }

    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } | Self::Damaged { .. } | Self::Malformed { .. } => {
                Some("run `bkp verify --level data --heal`, or restore from a copy or an older snapshot".to_owned())
            }
            Self::NewerFormat { .. } => {
                Some("use a newer `bkp`, or load the dump with its own `restore.sql`".to_owned())
            }
            Self::Outside { .. } | Self::Io { .. } | Self::Other { .. } => None,
        }
    }
}
