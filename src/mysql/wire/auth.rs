//! Proofs of a password: what each authentication plugin wants to see.

use mysql_common::scramble::{create_response_for_ed25519, scramble_native, scramble_sha256};

use crate::mysql::wire::error::WireError;
use crate::mysql::wire::key;
use crate::mysql::wire::stream::PacketStream;

/// Whether what we send can be read on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// TLS or a Unix socket: nobody between.
    Private,
    /// TCP on this machine: readable, but nobody between can pretend to be the server.
    Loopback,
    /// TCP without TLS.
    Open,
}

const NATIVE: &str = "mysql_native_password";
const SHA2: &str = "caching_sha2_password";
const ED25519: &str = "client_ed25519";

/// Returns the plugin to answer the greeting with: the server's own choice where we know it.
pub(crate) fn first_plugin(offered: &str) -> &str {
    if matches!(offered, NATIVE | SHA2) { offered } else { NATIVE }
}

/// Returns what proves the password to a plugin.
pub(crate) fn proof(plugin: &str, nonce: &[u8], password: &str) -> Result<Vec<u8>, WireError> {
    let password = password.as_bytes();
    let short = &nonce[..nonce.len().min(20)];
    match plugin {
        NATIVE => Ok(scramble_native(short, password).map_or_else(Vec::new, Vec::from)),
        SHA2 => Ok(scramble_sha256(short, password).map_or_else(Vec::new, Vec::from)),
        ED25519 => Ok(create_response_for_ed25519(password, &nonce[..nonce.len().min(32)]).to_vec()),
        // The server looks at the socket's owner.
        "auth_socket" | "unix_socket" => Ok(Vec::new()),
        other => Err(WireError::Plugin { plugin: other.to_owned() }),
    }
}

/// An exchange with the server until it says yes or no.
pub(crate) struct Login<'a> {
    pub(crate) stream: &'a mut PacketStream,
    pub(crate) privacy: Privacy,
    pub(crate) password: &'a str,
    pub(crate) plugin: String,
    pub(crate) nonce: Vec<u8>,
}

/// What the server says next.
enum Reply {
    Welcome,
    /// Another plugin and its nonce.
    Switch(String, Vec<u8>),
    /// `caching_sha2_password`: it knows us; its welcome follows.
    Known,
    /// `caching_sha2_password`: it wants the password itself.
    Full,
}

impl Login<'_> {
    pub(crate) fn finish(&mut self) -> Result<(), WireError> {
        loop {
            match self.reply()? {
                Reply::Welcome => return Ok(()),
                Reply::Known => {}
                Reply::Full => self.send_password()?,
                Reply::Switch(plugin, nonce) => self.switch(plugin, nonce)?,
            }
        }
    }

    fn reply(&mut self) -> Result<Reply, WireError> {
        let packet = self.stream.packet()?;
        match packet {
            [0x00, ..] => Ok(Reply::Welcome),
            [0xFF, rest @ ..] => Err(server_error(rest)),
            [0x01, 0x03] => Ok(Reply::Known),
            [0x01, 0x04] => Ok(Reply::Full),
            [0xFE] => Err(WireError::Plugin { plugin: "mysql_old_password".to_owned() }),
            [0xFE, rest @ ..] => {
                let mut cursor = crate::mysql::wire::cursor::Cursor::new(rest);
                let plugin = String::from_utf8_lossy(cursor.until_nul()).into_owned();
                Ok(Reply::Switch(plugin, cursor.rest().to_vec()))
            }
            _ => Err(WireError::Protocol { what: "the login has an unknown step" }),
        }
    }

    fn switch(&mut self, plugin: String, nonce: Vec<u8>) -> Result<(), WireError> {
        let proof = proof(&plugin, &nonce, self.password)?;
        (self.plugin, self.nonce) = (plugin, nonce);
        self.stream.send(&proof)
    }

    /// Sends the password itself: in the clear where nobody can read it, under the server's key on this machine, and
    /// elsewhere not at all, for anybody on the way could hand us a key of their own.
    fn send_password(&mut self) -> Result<(), WireError> {
        let mut password = self.password.as_bytes().to_vec();
        password.push(0);
        match self.privacy {
            Privacy::Private => self.stream.send(&password),
            Privacy::Open => Err(WireError::Insecure),
            Privacy::Loopback => {
                let key = self.fetch_key(password.len())?;
                let nonce = &self.nonce[..self.nonce.len().min(20)];
                for (byte, mask) in password.iter_mut().zip(nonce.iter().cycle()) {
                    *byte ^= mask;
                }
                self.stream.send(&mysql_common::crypto::encrypt(&password, &key))
            }
        }
    }

    /// Asks for a key that so many bytes can be sealed with.
    fn fetch_key(&mut self, bytes: usize) -> Result<Vec<u8>, WireError> {
        const NO_KEY: WireError = WireError::Protocol { what: "the server sent no key that the password fits into" };
        self.stream.send(&[0x02])?;
        match self.stream.packet()? {
            [0x01, pem @ ..] => key::sealing(pem, bytes).ok_or(NO_KEY),
            [0xFF, rest @ ..] => Err(server_error(rest)),
            _ => Err(NO_KEY),
        }
    }
}

/// Reads an error packet without its first byte.
pub(crate) fn server_error(rest: &[u8]) -> WireError {
    let [low, high, text @ ..] = rest else {
        return WireError::Protocol { what: "an error without a number" };
    };
    // Most carry an SQL state before the text; one from before the login does not.
    let text = if let [b'#', _, _, _, _, _, text @ ..] = text { text } else { text };
    WireError::Server { code: u16::from_le_bytes([*low, *high]), message: String::from_utf8_lossy(text).into_owned() }
}
