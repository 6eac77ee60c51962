//! Key files: the repository's key, sealed under one that scrypt derives from a password.
//!
//! A repository has one key and as many key files as passwords. Who once had a password and its key file has the key for ever: taking
//! the file away keeps out whoever comes later, and nobody else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use scrypt::Params;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::id::ObjectId;
use crate::repository::config::fill;
use crate::repository::error::RepositoryError;
use crate::repository::holder::Holder;
use crate::repository::time;
use crate::seal::MasterKey;
use crate::secret::Secret;

const SALT: usize = 64;

/// A key file that asks for more memory than this is refused; restic's own calibration stays below 60 MB.
const MEMORY_MAX: u64 = 1 << 30;

/// What deriving a key from a password costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub log_n: u8,
    pub r: u32,
    pub p: u32,
}

impl Cost {
    /// 32 MiB and a tenth of a second: what restic's calibration finds on a common server.
    pub const DEFAULT: Self = Self { log_n: 15, r: 8, p: 1 };

    /// 128 MiB and half a second, for a password that a person can type: each guess costs a thief four times as much.
    pub const STRONG: Self = Self { log_n: 17, r: 8, p: 1 };

    fn of_n(n: u64, r: u32, p: u32) -> Option<Self> {
        let log_n = u8::try_from(n.checked_ilog2()?).ok()?;
        let memory = n.checked_mul(128)?.checked_mul(u64::from(r))?;
        let fits = n.is_power_of_two() && memory <= MEMORY_MAX && u64::from(r) * u64::from(p) <= 1 << 20;
        fits.then_some(Self { log_n, r, p })
    }

    /// Steps of scrypt, to compare costs by.
    fn steps(self) -> u64 {
        (1_u64 << self.log_n).saturating_mul(u64::from(self.r)).saturating_mul(u64::from(self.p))
    }

    fn derive(self, password: &Secret, salt: &[u8]) -> Option<MasterKey> {
        let mut bytes = Zeroizing::new([0; 64]);
        let params = Params::new(self.log_n, self.r, self.p).ok()?;
        scrypt::scrypt(password.reveal().as_bytes(), salt, &params, &mut bytes[..]).ok()?;
        Some(MasterKey::from_bytes(&bytes))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyFile {
    #[serde(with = "time")]
    created: DateTime<Utc>,
    #[serde(default)]
    username: String,
    #[serde(default)]
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

/// What a key file tells anybody: who made it, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    pub id: ObjectId,
    pub user: String,
    pub host: String,
    pub created: DateTime<Utc>,
}

impl KeyRecord {
    /// Reads a key file without a password.
    pub(super) fn of(id: ObjectId, json: &[u8]) -> Result<Self, String> {
        let file: KeyFile = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        Ok(Self { id, user: file.username, host: file.hostname, created: file.created })
    }
}

/// Returns how many steps of scrypt a key file asks for; the most there are where it does not say.
pub(super) fn steps_of(json: &[u8]) -> u64 {
    parse(json).map_or(u64::MAX, |(cost, ..)| cost.steps())
}

/// What a key file said to a password.
pub(super) enum Opened {
    Key(MasterKey),
    /// It is another password's.
    Refused,
    /// It is no key file, and why.
    Damaged(String),
}

/// Seals a repository's key under a password; returns the key file's bytes. Takes the time that `cost` asks for.
pub(super) fn save(
    key: &MasterKey,
    password: &Secret,
    cost: Cost,
    created: DateTime<Utc>,
) -> Result<Vec<u8>, RepositoryError> {
    let fault = |reason: &dyn std::fmt::Display| RepositoryError::refused("key", reason);
    let mut salt = [0; SALT];
    fill(&mut salt)?;
    let user = cost.derive(password, &salt).ok_or_else(|| fault(&"scrypt refuses its parameters"))?;
    let mut data = Vec::new();
    let json = key.to_json().map_err(|error| fault(&error))?;
    user.encrypt_into(&json, &mut data).map_err(|error| fault(&error))?;
    let holder = Holder::of_this_process();
    let file = KeyFile {
        created,
        username: holder.username,
        hostname: holder.hostname,
        kdf: "scrypt".to_owned(),
        n: 1 << cost.log_n,
        r: cost.r,
        p: cost.p,
        salt: STANDARD.encode(salt),
        data: STANDARD.encode(data),
    };
    serde_json::to_vec(&file).map_err(|error| fault(&error))
}

/// Tries a password on a key file. Takes the time that the file asks for.
pub(super) fn open(json: &[u8], password: &Secret) -> Opened {
    match parse(json) {
        Err(reason) => Opened::Damaged(reason),
        Ok((cost, salt, data)) => match cost.derive(password, &salt) {
            None => Opened::Damaged("scrypt refuses its parameters".to_owned()),
            Some(user) => unseal(&user, &data),
        },
    }
}

fn unseal(user: &MasterKey, data: &[u8]) -> Opened {
    let Ok(json) = user.decrypt(data).map(Zeroizing::new) else {
        return Opened::Refused;
    };
    MasterKey::from_json(&json).map_or_else(|| Opened::Damaged("it seals no key".to_owned()), Opened::Key)
}

/// Reads a key file: what opening it costs, its salt and the sealed key.
pub(super) fn parse(json: &[u8]) -> Result<(Cost, Vec<u8>, Vec<u8>), String> {
    let file: KeyFile = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if file.kdf != "scrypt" {
        return Err(format!("its kdf `{}` is not known", file.kdf));
    }
    let cost = Cost::of_n(file.n, file.r, file.p).ok_or("its scrypt parameters are out of bounds")?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|error| error.to_string());
    Ok((cost, decode(&file.salt)?, decode(&file.data)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const CHEAP: Cost = Cost { log_n: 4, r: 1, p: 1 };

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn saved(key: &MasterKey) -> Vec<u8> {
        save(key, &secret("right"), CHEAP, DateTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn the_right_password_opens_and_another_does_not() {
        let key = MasterKey::random().unwrap();
        let file = saved(&key);
        let Opened::Key(again) = open(&file, &secret("right")) else {
            panic!("the right password is refused");
        };
        assert_eq!(*again.to_json().unwrap(), *key.to_json().unwrap());
        assert!(matches!(open(&file, &secret("wrong")), Opened::Refused));
    }

    #[test]
    fn hostile_costs_are_refused_before_memory_is_taken() {
        let text = String::from_utf8(saved(&MasterKey::random().unwrap())).unwrap();
        for (from, to) in [
            ("\"N\":16", "\"N\":1099511627776"),
            ("\"N\":16", "\"N\":0"),
            ("\"N\":16", "\"N\":17"),
            ("\"r\":1", "\"r\":4294967295"),
            ("\"p\":1", "\"p\":4294967295"),
            ("\"p\":1", "\"p\":0"),
            ("scrypt", "argon2"),
        ] {
            let hostile = text.replacen(from, to, 1);
            assert_ne!(hostile, text);
            assert!(matches!(open(hostile.as_bytes(), &secret("right")), Opened::Damaged(_)), "{to}");
        }
    }
}
