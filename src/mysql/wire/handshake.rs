//! The first packets: the server's greeting and our answer.

use crate::mysql::wire::cursor::Cursor;
use crate::mysql::wire::error::WireError;

pub(crate) mod capability {
    pub(crate) const LONG_PASSWORD: u32 = 1;
    pub(crate) const LONG_FLAG: u32 = 1 << 2;
    pub(crate) const PROTOCOL_41: u32 = 1 << 9;
    pub(crate) const SSL: u32 = 1 << 11;
    pub(crate) const TRANSACTIONS: u32 = 1 << 13;
    pub(crate) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(crate) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(crate) const CONNECT_ATTRS: u32 = 1 << 20;
    pub(crate) const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub(crate) const DEPRECATE_EOF: u32 = 1 << 24;
}

/// What we ask for; the server grants what it knows.
const WANTED: u32 = capability::LONG_PASSWORD
    | capability::LONG_FLAG
    | capability::PROTOCOL_41
    | capability::TRANSACTIONS
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH
    | capability::CONNECT_ATTRS
    | capability::PLUGIN_AUTH_LENENC
    | capability::DEPRECATE_EOF;

/// Without these there is no talking: every server since 2004 (4.1) and 2013 (5.5.7 for plugins) has them.
const NEEDED: u32 = capability::PROTOCOL_41 | capability::SECURE_CONNECTION;

/// The largest row that a server may send: the protocol's own limit.
const PACKET_BYTES_MAX: u32 = 1 << 30;

/// `utf8mb4_general_ci`, which both products know.
const UTF8MB4: u8 = 45;

#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub(crate) version: String,
    pub(crate) connection: u32,
    pub(crate) nonce: Vec<u8>,
    pub(crate) capabilities: u32,
    pub(crate) plugin: String,
}

impl Greeting {
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(packet);
        if cursor.u8()? != 10 {
            return Err(WireError::Protocol { what: "the greeting is of another protocol" });
        }
        let version = String::from_utf8_lossy(cursor.until_nul()).into_owned();
        let connection = cursor.u32()?;
        let mut nonce = cursor.take(8)?.to_vec();
        cursor.take(1)?;
        let low = cursor.u16()?;
        let _charset_and_status = (cursor.u8()?, cursor.u16()?);
        let high = cursor.u16()?;
        let nonce_length = usize::from(cursor.u8()?);
        cursor.take(10)?;
        nonce.extend_from_slice(cursor.take(nonce_length.saturating_sub(8).max(13))?);
        let plugin = String::from_utf8_lossy(cursor.until_nul()).into_owned();
        let capabilities = u32::from(low) | u32::from(high) << 16;
        if capabilities & NEEDED != NEEDED {
            return Err(WireError::Protocol { what: "the server is too old" });
        }
        Ok(Self { version, connection, nonce, capabilities, plugin })
    }

    /// Returns what both sides can do.
    pub(crate) fn agreed(&self) -> u32 {
        self.capabilities & WANTED
    }
}

/// Makes the request to go on under TLS.
pub(crate) fn tls_request(capabilities: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(32);
    packet.extend_from_slice(&capabilities.to_le_bytes());
    packet.extend_from_slice(&PACKET_BYTES_MAX.to_le_bytes());
    packet.push(UTF8MB4);
    packet.extend_from_slice(&[0; 23]);
    packet
}

/// Makes the answer to the greeting.
pub(crate) fn response(capabilities: u32, user: &str, plugin: &str, proof: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut packet = tls_request(capabilities);
    packet.extend_from_slice(user.as_bytes());
    packet.push(0);
    push_bytes(&mut packet, proof)?;
    if capabilities & capability::PLUGIN_AUTH != 0 {
        packet.extend_from_slice(plugin.as_bytes());
        packet.push(0);
    }
    if capabilities & capability::CONNECT_ATTRS != 0 {
        let mut attributes = Vec::new();
        for text in ["program_name", "bkp", "_client_version", env!("CARGO_PKG_VERSION")] {
            push_bytes(&mut attributes, text.as_bytes())?;
        }
        push_bytes(&mut packet, &attributes)?;
    }
    Ok(packet)
}

fn push_bytes(packet: &mut Vec<u8>, bytes: &[u8]) -> Result<(), WireError> {
    let length = u8::try_from(bytes.len()).map_err(|_| WireError::TooLarge)?;
    if length > 250 {
        return Err(WireError::TooLarge);
    }
    packet.push(length);
    packet.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn greeting() -> Vec<u8> {
        let mut packet = vec![10];
        packet.extend_from_slice(b"9.7.4\0");
        packet.extend_from_slice(&77_u32.to_le_bytes());
        packet.extend_from_slice(b"12345678\0");
        packet.extend_from_slice(&[0xFF, 0xFF, 45, 2, 0, 0xFF, 0xDF, 21]);
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"abcdefghijkl\0caching_sha2_password\0");
        packet
    }

    #[test]
    fn a_greeting_is_read() {
        let greeting = Greeting::parse(&greeting()).expect("a greeting");
        assert_eq!((greeting.version.as_str(), greeting.connection), ("9.7.4", 77));
        assert_eq!(greeting.nonce, b"12345678abcdefghijkl\0");
        assert_eq!(greeting.plugin, "caching_sha2_password");
    }

    #[test]
    fn a_cut_greeting_is_an_error_at_every_length() {
        let whole = greeting();
        // Only the plugin's name may be missing.
        for length in 0..whole.len() - "caching_sha2_password\0".len() {
            assert!(Greeting::parse(&whole[..length]).is_err(), "{length}");
        }
    }
}
