//! MySQL's compressed transactions: all events of one, within one.

use std::io::{self, BufReader, Read};

use crate::mysql::binlog::fields::Fields;

/// What zstd may need to unpack: its highest levels, which `binlog_transaction_compression_level_zstd` allows, look so far back.
const WINDOW_LOG_MAX: u32 = 27;

mod field {
    pub(super) const END: u64 = 0;
    pub(super) const COMPRESSION: u64 = 2;
    pub(super) const PLAIN_BYTES: u64 = 3;
}

mod compression {
    pub(super) const ZSTD: u64 = 0;
    pub(super) const NONE: u64 = 255;
}

/// Reads what stands before the events, and returns the events as a stream.
pub(super) fn open<'a>(body: &'a mut dyn Read) -> io::Result<Box<dyn Read + 'a>> {
    let (mut compression, mut plain_bytes) = (compression::NONE, None);
    let mut fields = Fields(body);
    loop {
        let kind = fields.length()?;
        if kind == field::END {
            break;
        }
        let bytes = fields.length()?;
        match kind {
            field::COMPRESSION => compression = fields.length()?,
            field::PLAIN_BYTES => plain_bytes = Some(fields.length()?),
            _ => fields.skip(bytes)?,
        }
    }
    match compression {
        compression::NONE => Ok(Box::new(fields.0)),
        compression::ZSTD => {
            let mut plain = zstd::Decoder::with_buffer(BufReader::new(fields.0))?;
            plain.window_log_max(WINDOW_LOG_MAX)?;
            Ok(Box::new(plain.take(plain_bytes.unwrap_or(u64::MAX))))
        }
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "its compression is unknown")),
    }
}
