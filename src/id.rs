//! Names of things: content hashes and run ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Refuses a text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no id: 64 hexadecimal digits are needed")]
pub struct IdError {
    text: String,
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Hashes bytes with SHA-256.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }

            /// Takes 32 bytes that already are a hash.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Returns the first eight hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                decode(text).map(Self).ok_or_else(|| IdError { text: text.to_owned() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                // Without a copy of the text: an index has millions.
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("64 hexadecimal digits")
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

/// The value of each hexadecimal digit; all other bytes have bits that no digit has.
const DIGITS: [u8; 256] = {
    let (mut digits, mut value) = ([0xff; 256], 0);
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        digits[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// Reads 64 digits by table: an index of ten million blobs has 640 million of them.
fn decode(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let pairs: &[[u8; 2]; 32] = pairs.try_into().ok().filter(|_| rest.is_empty())?;
    let mut seen = 0;
    let bytes = pairs.map(|[high, low]| {
        let (high, low) = (DIGITS[usize::from(high)], DIGITS[usize::from(low)]);
        seen |= high | low;
        high << 4 | low
    });
    (seen < 16).then_some(bytes)
}

hash_id! {
    /// Names a blob by the SHA-256 of its plain bytes.
    BlobId
}
hash_id! {
    /// Names an object of a store (pack, index, snapshot, lock, key) by the SHA-256 of its stored bytes.
    ObjectId
}

/// Names a snapshot: the id of the object that holds it.
pub type SnapshotId = ObjectId;

/// Names one run: its start in UTC and four random bytes, so that run ids sort by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(String);

impl RunId {
    #[must_use]
    pub fn new(start: chrono::DateTime<chrono::Utc>, random: u32) -> Self {
        Self(format!("{}-{random:08x}", start.format("%Y%m%dT%H%M%SZ")))
    }

    /// Takes a run's id as a snapshot's tag tells it.
    #[must_use]
    pub fn named(text: &str) -> Self {
        Self(text.to_owned())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_and_parses_back() {
        let id = BlobId::of(b"bkp");
        assert_eq!(id.to_string().parse::<BlobId>(), Ok(id));
        assert_eq!(id.short(), id.to_string()[..8]);
    }

    #[test]
    fn every_byte_is_a_digit_or_refused() {
        let good = "0123456789abcdefABCDEF";
        for byte in 0..=127u8 {
            let text = format!("{}{}", "0".repeat(63), char::from(byte));
            let parsed = text.parse::<BlobId>();
            assert_eq!(parsed.is_ok(), good.contains(char::from(byte)), "{byte}");
            let value = char::from(byte).to_digit(16);
            assert_eq!(parsed.ok().map(|id| u32::from(id.as_bytes()[31])), value, "{byte}");
        }
    }

    #[test]
    fn a_text_of_another_length_is_no_id() {
        assert!("abcd".parse::<BlobId>().is_err());
        assert!("zz".repeat(32).parse::<BlobId>().is_err());
        assert!("é".repeat(32).parse::<BlobId>().is_err());
        assert!(format!("{}0", "ab".repeat(32)).parse::<BlobId>().is_err());
    }

    #[test]
    fn run_ids_sort_by_time() {
        let at = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap_or_default();
        assert!(RunId::new(at("2026-01-02T00:00:00Z"), 9) < RunId::new(at("2026-01-10T00:00:00Z"), 1));
    }
}
