//! The door of a source: the greeting, TLS where it is wanted, the check of name and password.

use std::io::{self, Write};

use mysql_common::scramble::{scramble_native, scramble_sha256};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::mysql::manifest::Product;
use crate::mysql::wire::WireError;
use crate::mysql::wire::cursor::Cursor;
use crate::replay::feed::FeedError;
use crate::replay::guard::Guard;
use crate::replay::line::Line;
use crate::replay::wire::{AUTOCOMMIT, Packets, UTF8MB4};

const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
const PLUGIN_AUTH_LENENC: u32 = 1 << 21;

const OFFERED: u32 = LONG_PASSWORD | LONG_FLAG | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;

/// Capabilities, the largest packet, a collation, and bytes of no use: a request for TLS is no more, and a login begins with them.
const REQUEST_BYTES: usize = 4 + 4 + 1 + 23;

/// Who may come in: one replica, for this one occasion.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) product: Product,
    /// The version that the source had: replicas look at it.
    pub(super) version: String,
    pub(super) user: String,
    pub(super) password: String,
    /// Whoever comes without TLS is sent away then, and nothing but a greeting is ever in the clear.
    pub(super) guard: Option<Guard>,
}

impl Door {
    fn plugin(&self) -> &'static str {
        match self.product {
            Product::MySql => "caching_sha2_password",
            Product::MariaDb => "mysql_native_password",
        }
    }

    /// Greets a client and lets it in, or not: `false` after a wrong name or password.
    pub(super) fn admit(&self, packets: &mut Packets<Line<'_>>, nonce: &[u8; 20]) -> Result<bool, FeedError> {
        packets.send(&self.greeting(nonce))?;
        let mut answer = packets.packet()?;
        if let Some(guard) = &self.guard {
            if !asks_for_tls(&answer) {
                packets.error(3159, "bkp serves these binlogs under TLS alone")?;
                packets.stream.flush()?;
                // Nobody else has been told the name.
                let is_ours = Login::parse(&answer).is_ok_and(|login| login.user == self.user.as_bytes());
                return if is_ours { Err(FeedError::Tls("it does without".to_owned())) } else { Ok(false) };
            }
            packets.stream.secure(guard.connection()?).map_err(tls_error)?;
            answer = packets.packet()?;
        }
        let Ok(login) = Login::parse(&answer) else {
            packets.error(1043, "Bad handshake")?;
            return Ok(false);
        };
        let mut proof = login.proof.to_vec();
        if login.plugin != self.plugin().as_bytes() {
            packets.send(&self.switch(nonce))?;
            proof = packets.packet()?;
        }
        if login.user != self.user.as_bytes() || !self.is_proof(nonce, &proof) {
            packets.error(1045, "Access denied")?;
            return Ok(false);
        }
        if self.product == Product::MySql {
            packets.send(&[1, 3])?;
        }
        packets.ok_saying(&self.voucher(nonce))?;
        Ok(true)
    }

    fn is_proof(&self, nonce: &[u8], proof: &[u8]) -> bool {
        let password = self.password.as_bytes();
        match self.product {
            Product::MySql => scramble_sha256(nonce, password).is_some_and(|expected| proof == expected),
            Product::MariaDb => scramble_native(nonce, password).is_some_and(|expected| proof == expected),
        }
    }

    /// Makes what tells a MariaDB from 11.4 on that the certificate it was shown is ours: who stands in between has another, and does
    /// not know the password.
    fn voucher(&self, nonce: &[u8; 20]) -> Vec<u8> {
        let Some(guard) = self.guard.as_ref().filter(|_| self.product == Product::MariaDb) else { return Vec::new() };
        let known = Sha1::digest(Sha1::digest(self.password.as_bytes()));
        let bound = Sha256::new().chain_update(known).chain_update(nonce).chain_update(guard.fingerprint);
        let mut voucher = vec![1];
        voucher.extend_from_slice(hex::encode_upper(bound.finalize()).as_bytes());
        voucher
    }

    fn greeting(&self, nonce: &[u8; 20]) -> Vec<u8> {
        let capabilities = (OFFERED | if self.guard.is_some() { SSL } else { 0 }).to_le_bytes();
        let mut packet = vec![10];
        packet.extend_from_slice(self.announced().as_bytes());
        packet.push(0);
        packet.extend_from_slice(&1_u32.to_le_bytes());
        packet.extend_from_slice(&nonce[..8]);
        packet.push(0);
        packet.extend_from_slice(&capabilities[..2]);
        packet.push(UTF8MB4);
        packet.extend_from_slice(&AUTOCOMMIT.to_le_bytes());
        packet.extend_from_slice(&capabilities[2..]);
        packet.push(21);
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(&nonce[8..]);
        packet.push(0);
        packet.extend_from_slice(self.plugin().as_bytes());
        packet.push(0);
        packet
    }

    fn switch(&self, nonce: &[u8; 20]) -> Vec<u8> {
        let mut packet = vec![0xFE];
        packet.extend_from_slice(self.plugin().as_bytes());
        packet.push(0);
        packet.extend_from_slice(nonce);
        packet.push(0);
        packet
    }

    /// MariaDB 10 greets with this prefix, lest old replicas take its first digit for that of a MySQL from the last century.
    fn announced(&self) -> String {
        let is_hidden = self.product == Product::MariaDb && self.version.starts_with("10.");
        format!("{}{}", if is_hidden { "5.5.5-" } else { "" }, self.version)
    }
}

fn asks_for_tls(answer: &[u8]) -> bool {
    answer.len() == REQUEST_BYTES && Cursor::new(answer).u32().is_ok_and(|capabilities| capabilities & SSL != 0)
}

/// Tells a handshake that failed from a replay that has ended meanwhile.
fn tls_error(error: io::Error) -> FeedError {
    use io::ErrorKind::{ConnectionReset, InvalidData, UnexpectedEof};
    match error.kind() {
        InvalidData | UnexpectedEof | ConnectionReset => FeedError::Tls(error.to_string()),
        _ => FeedError::Gone(error),
    }
}

/// The client's answer to the greeting.
#[derive(Debug)]
pub(super) struct Login<'a> {
    user: &'a [u8],
    proof: &'a [u8],
    plugin: &'a [u8],
}

impl<'a> Login<'a> {
    pub(super) fn parse(packet: &'a [u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(packet);
        let capabilities = cursor.u32()?;
        cursor.take(REQUEST_BYTES - 4)?;
        let user = cursor.until_nul();
        let proof = if capabilities & PLUGIN_AUTH_LENENC == 0 {
            let length = cursor.u8()?;
            cursor.take(usize::from(length))?
        } else {
            cursor.bytes()?
        };
        if capabilities & CONNECT_WITH_DB != 0 {
            cursor.until_nul();
        }
        Ok(Self { user, proof, plugin: cursor.until_nul() })
    }
}
