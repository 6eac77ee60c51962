//! The config: the one object that makes a place a repository.

use serde::{Deserialize, Serialize};

use crate::repository::error::RepositoryError;
use crate::repository::polynomial;

/// The format version that bkp reads and writes.
const VERSION: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    version: u32,
    /// 32 random bytes as hexadecimal digits.
    pub(super) id: String,
    #[serde(with = "hexadecimal")]
    pub(super) chunker_polynomial: u64,
}

impl Config {
    /// Draws the config of a new repository.
    pub(super) fn draw() -> Result<Self, RepositoryError> {
        let mut id = [0; 32];
        fill(&mut id)?;
        let chunker_polynomial = polynomial::draw(|| {
            let mut bytes = [0; 8];
            fill(&mut bytes)?;
            Ok::<_, RepositoryError>(u64::from_le_bytes(bytes))
        })?;
        Ok(Self { version: VERSION, id: hex::encode(id), chunker_polynomial })
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, RepositoryError> {
        serde_json::to_vec(self).map_err(|error| RepositoryError::refused("config", error))
    }

    /// Reads the config of the repository at a place.
    pub(super) fn from_json(json: &[u8], place: &str) -> Result<Self, RepositoryError> {
        let config: Self = serde_json::from_slice(json).map_err(|error| RepositoryError::damaged("config", error))?;
        if config.version == VERSION {
            Ok(config)
        } else {
            Err(RepositoryError::Version { place: place.to_owned(), version: config.version })
        }
    }
}

pub(super) fn fill(bytes: &mut [u8]) -> Result<(), RepositoryError> {
    getrandom::fill(bytes).map_err(|error| RepositoryError::refused("random bytes", error))
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_reads_as_restic_prints_it() {
        let json = br#"{"version":2,"id":"5956a3f6","chunker_polynomial":"25b468838dcb75"}"#;
        let config = Config::from_json(json, "here");
        assert!(config.as_ref().is_ok_and(|config| config.chunker_polynomial == 0x25_b468_838d_cb75));
        assert_eq!(config.and_then(|config| config.to_json()).ok().as_deref(), Some(&json[..]));
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let json = br#"{"version":1,"id":"5956a3f6","chunker_polynomial":"25b468838dcb75"}"#;
        let error = Config::from_json(json, "here");
        assert!(matches!(error, Err(RepositoryError::Version { version: 1, .. })));
    }
}
