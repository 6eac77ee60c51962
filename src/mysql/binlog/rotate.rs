//! Rotate: where the log goes on.

use crate::mysql::binlog::Malformed;
use crate::mysql::wire::cursor::Cursor;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate {
    pub file: String,
    pub position: u64,
}

impl Rotate {
    /// Parses the event's body, without header and checksum.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let position = cursor.u64()?;
        let file = std::str::from_utf8(cursor.rest()).map_err(|_| Malformed("a file's name is no text"))?;
        // A name becomes a path of ours: one that leads elsewhere is refused here, for everybody.
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\0']) {
            return Err(Malformed("a file's name is no name"));
        }
        Ok(Self { file: file.to_owned(), position })
    }
}
