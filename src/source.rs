//! Where data comes from. A source knows no store and no repository.

use std::error::Error;
use std::io::Write;

pub mod files;
pub mod mysql;

/// Where a source writes the entries that it makes; the backup verb stands behind it.
pub trait Sink: Sync {
    /// Opens a new file. Several may be open at once, from several threads.
    ///
    /// # Errors
    /// The file cannot be kept.
    fn file(&self, path: &str) -> Result<Box<dyn FileSink + '_>, SinkError>;
}

/// One file being written. Dropped without [`FileSink::finish`], it is not kept.
pub trait FileSink: Write + Send {
    /// Ends the file; only now does it count.
    ///
    /// # Errors
    /// The file cannot be kept.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;
}

/// What stands behind a sink could not keep a file.
#[derive(Debug, thiserror::Error)]
#[error("keep `{path}`")]
pub struct SinkError {
    /// Relative to the root of what the source makes.
    pub path: String,
    #[source]
    pub error: Box<dyn Error + Send + Sync>,
}
