//! AES-256 in counter mode with Poly1305-AES: `nonce ‖ ciphertext ‖ MAC`, 32 bytes longer than the plain bytes.
//!
//! Keys are wiped when they are dropped: the key itself, AES's expanded keys and Poly1305's state (the crates' feature `zeroize`),
//! the text and JSON between. Out of reach is what the compiler leaves behind where a value was moved or kept in registers, the
//! inside of scrypt (its table and HMAC states are freed as they are), and what the kernel keeps in its own buffers. Against a
//! dump of all that stands [`crate::secret::keep_out_of_dumps`].

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit, KeyIvInit, StreamCipher};
use aes::{Aes128, Aes256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use poly1305::Poly1305;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::seal::SealError;

const NONCE: usize = 16;
const MAC: usize = 16;
/// Bytes that sealing adds.
pub const OVERHEAD: usize = NONCE + MAC;

/// A key as JSON has some 140 bytes.
const JSON_BYTES_MAX: usize = 256;

type Counter = ctr::Ctr128BE<Aes256>;

/// The key of a repository, or the key that a password opens it with.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey {
    encrypt: [u8; 32],
    mac_k: [u8; 16],
    mac_r: [u8; 16],
}

/// A key as JSON has it.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct KeyJson {
    mac: MacJson,
    encrypt: String,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct MacJson {
    k: String,
    r: String,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

impl MasterKey {
    /// Makes a key from the machine's entropy.
    ///
    /// # Errors
    /// Where the machine has none.
    pub fn random() -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; 64]);
        fill(&mut bytes[..])?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Takes 64 bytes, as scrypt derives them: 32 to encrypt, 16 for the MAC's AES, 16 for Poly1305.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut key = Self { encrypt: [0; 32], mac_k: [0; 16], mac_r: [0; 16] };
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac_k.copy_from_slice(&bytes[32..48]);
        key.mac_r.copy_from_slice(&bytes[48..]);
        key
    }

    /// Returns the key as JSON, to be sealed under another.
    ///
    /// # Errors
    /// Where serde refuses.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let text = |bytes: &[u8]| STANDARD.encode(bytes);
        let json =
            KeyJson { mac: MacJson { k: text(&self.mac_k), r: text(&self.mac_r) }, encrypt: text(&self.encrypt) };
        // A buffer that grows leaves its former self behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(JSON_BYTES_MAX));
        serde_json::to_writer(&mut *bytes, &json).map_err(|error| SealError::Seal { reason: error.to_string() })?;
        Ok(bytes)
    }

    /// Reads [`Self::to_json`] back; `None` where it is no key.
    #[must_use]
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let json: KeyJson = serde_json::from_slice(json).ok()?;
        Some(Self { encrypt: bytes_of(&json.encrypt)?, mac_k: bytes_of(&json.mac.k)?, mac_r: bytes_of(&json.mac.r)? })
    }

    /// Encrypts plain bytes under a fresh nonce and appends the result to `out`.
    ///
    /// # Errors
    /// Where the machine has no entropy.
    pub fn encrypt_into(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let mut nonce = [0; NONCE];
        fill(&mut nonce)?;
        out.reserve(plain.len() + OVERHEAD);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        self.counter(&nonce).apply_keystream(&mut out[start..]);
        let mac = self.mac(&nonce, &out[start..]);
        out.extend_from_slice(&mac);
        Ok(())
    }

    /// Checks the MAC and decrypts.
    ///
    /// # Errors
    /// Where the bytes are too short or not what was encrypted under this key.
    pub fn decrypt(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, text) = self.checked(sealed)?;
        let mut plain = text.to_vec();
        self.counter(nonce).apply_keystream(&mut plain);
        Ok(plain)
    }

    /// Like [`Self::decrypt`], for plain bytes that are needed only while `look` runs: they lie in the thread's own buffer.
    ///
    /// # Errors
    /// Like [`Self::decrypt`].
    pub fn decrypt_with<T>(&self, sealed: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<T, SealError> {
        thread_local! {
            static PLAIN: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
        }
        let (nonce, text) = self.checked(sealed)?;
        let mut plain = PLAIN.take();
        plain.clear();
        plain.extend_from_slice(text);
        self.counter(nonce).apply_keystream(&mut plain);
        let seen = look(&plain);
        PLAIN.set(plain);
        Ok(seen)
    }

    /// Splits sealed bytes into nonce and ciphertext, the MAC proved.
    fn checked<'a>(&self, sealed: &'a [u8]) -> Result<(&'a [u8; NONCE], &'a [u8]), SealError> {
        let short = SealError::Short { length: sealed.len() };
        let Some((nonce, rest)) = sealed.split_first_chunk::<NONCE>() else {
            return Err(short);
        };
        let Some((text, mac)) = rest.split_last_chunk::<MAC>() else {
            return Err(short);
        };
        if same(&self.mac(nonce, text), mac) { Ok((nonce, text)) } else { Err(SealError::Forged) }
    }

    fn counter(&self, nonce: &[u8; NONCE]) -> Counter {
        Counter::new((&self.encrypt).into(), nonce.into())
    }

    /// Poly1305-AES: r as it is (the crate masks it), s = AES-128(k, nonce).
    fn mac(&self, nonce: &[u8; NONCE], text: &[u8]) -> [u8; MAC] {
        let mut pad = Array(*nonce);
        Aes128::new((&self.mac_k).into()).encrypt_block(&mut pad);
        let mut key = Zeroizing::new([0; 32]);
        key[..16].copy_from_slice(&self.mac_r);
        key[16..].copy_from_slice(&pad);
        Poly1305::new((&*key).into()).compute_unpadded(text).into()
    }
}

/// Compares without telling by the time taken how much is equal.
fn same(a: &[u8; MAC], b: &[u8; MAC]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

fn fill(bytes: &mut [u8]) -> Result<(), SealError> {
    getrandom::fill(bytes).map_err(|error| SealError::Seal { reason: format!("the machine gives no entropy: {error}") })
}

fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    Zeroizing::new(STANDARD.decode(text).ok()?).as_slice().try_into().ok()
}

/// What holds a key wipes it: this does not compile where a type, or a crate's feature, ceases to. Poly1305 does so too, untold.
const _: () = {
    const fn wipes_itself<T: ZeroizeOnDrop>() {}
    wipes_itself::<MasterKey>();
    wipes_itself::<KeyJson>();
    wipes_itself::<MacJson>();
    wipes_itself::<Aes128>();
    wipes_itself::<Aes256>();
    wipes_itself::<Counter>();
};

#[cfg(test)]
pub(crate) fn mac_for_test(key: &MasterKey, nonce: [u8; NONCE], text: &[u8]) -> [u8; MAC] {
    key.mac(&nonce, text)
}
