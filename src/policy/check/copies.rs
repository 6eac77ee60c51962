//! The copies: buckets and directories.

use std::path::PathBuf;
use std::time::Duration;

use crate::policy::check::fields::{Checker, RawSecret};
use crate::policy::raw::{RawCopy, RawObjectLock, RawReader, RawS3, RawSse};
use crate::policy::units;
use crate::policy::{Access, AccessKey, CopyPlace, CopyTarget, Encryption, ObjectLock, RetainMode, S3Place};

/// The store counts in days, and a lock that ends before the next copy protects nothing.
const RETAIN_MIN: Duration = Duration::from_hours(24);
/// Ten years, as long as records are kept: more is a slip of the finger, and with compliance there is no way back.
const RETAIN_MAX: Duration = Duration::from_hours(24 * 3650);

/// What catalog, status and reports call the store that is not a copy.
const REPOSITORY: &str = "repository";

impl Checker<'_> {
    pub(super) fn copies(&mut self, raw: Vec<RawCopy>) -> Vec<CopyPlace> {
        let copies = raw.into_iter().enumerate();
        copies.map(|(rank, raw)| self.copy(&format!("copy[{rank}]"), raw)).collect()
    }

    fn copy(&mut self, key: &str, raw: RawCopy) -> CopyPlace {
        self.name(&format!("{key}.name"), &raw.name);
        if raw.name == REPOSITORY {
            self.fault(
                &format!("{key}.name"),
                "is what the repository itself is called",
                "choose another, as \"offsite\"",
            );
        }
        let bandwidth = raw.bandwidth.and_then(|text| self.unit(&format!("{key}.bandwidth"), &text, units::rate));
        CopyPlace {
            name: raw.name,
            bandwidth,
            uploads: self.number(&format!("{key}.uploads"), raw.uploads, 4, 1..=64),
            place: self.copy_target(key, raw.s3, raw.path),
        }
    }

    fn copy_target(&mut self, key: &str, s3: Option<RawS3>, path: Option<String>) -> CopyTarget {
        match (s3, path) {
            (Some(s3), None) => CopyTarget::S3(Box::new(self.s3(&format!("{key}.s3"), s3))),
            (None, Some(path)) => CopyTarget::Dir(self.path(&format!("{key}.path"), &path)),
            (s3, _) => {
                let what = if s3.is_some() { "has both s3 and path" } else { "has no place" };
                let remedy = "write one of `s3 = { bucket = \"…\", region = \"…\" }` and `path = \"/mnt/…\"`";
                self.fault(key, what, remedy);
                CopyTarget::Dir(PathBuf::new())
            }
        }
    }

    fn s3(&mut self, key: &str, raw: RawS3) -> S3Place {
        self.not_empty(&format!("{key}.bucket"), &raw.bucket);
        self.not_empty(&format!("{key}.region"), &raw.region);
        if let Some(endpoint) = &raw.endpoint {
            self.endpoint(&format!("{key}.endpoint"), endpoint);
        }
        let secret = RawSecret {
            file: raw.secret_access_key_file,
            command: raw.secret_access_key_command,
            credential: raw.secret_access_key_credential,
        };
        let secret_access_key = self.secret(&format!("{key}.secret_access_key"), secret);
        if raw.access_key_id.is_some() != secret_access_key.is_some() {
            let remedy =
                "write both access_key_id and secret_access_key_file, or neither to use the environment or a role";
            self.fault(key, "has half of an access key", remedy);
        }
        let words = [("full", Access::Full), ("write-only", Access::WriteOnly)];
        let access = self.word(&format!("{key}.access"), raw.access.as_deref(), &words);
        S3Place {
            encryption: raw.sse.and_then(|sse| self.encryption(&format!("{key}.sse"), sse)),
            object_lock: raw.object_lock.and_then(|lock| self.object_lock(&format!("{key}.object_lock"), &lock)),
            access: access.unwrap_or_default(),
            reader: raw.reader.and_then(|reader| self.reader(&format!("{key}.reader"), reader)),
            bucket: raw.bucket,
            prefix: raw.prefix.trim_matches('/').to_owned(),
            region: raw.region,
            path_style: raw.path_style.unwrap_or(raw.endpoint.is_some()),
            endpoint: raw.endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            ca_file: self.optional_path(&format!("{key}.ca_file"), raw.ca_file.as_deref()),
            access_key_id: raw.access_key_id,
            secret_access_key,
            storage_class: raw.storage_class,
        }
    }

    fn encryption(&mut self, key: &str, raw: RawSse) -> Option<Encryption> {
        match raw {
            RawSse::Word(word) if word == "AES256" => Some(Encryption::Aes256),
            RawSse::Word(word) => {
                self.fault(key, format!("is unknown: {word:?}"), "write \"AES256\" or { kms = \"KEY-ID\" }");
                None
            }
            RawSse::Kms(kms) => {
                self.not_empty(&format!("{key}.kms"), &kms.kms);
                Some(Encryption::Kms { key: kms.kms })
            }
        }
    }

    fn object_lock(&mut self, key: &str, raw: &RawObjectLock) -> Option<ObjectLock> {
        let words = [("governance", RetainMode::Governance), ("compliance", RetainMode::Compliance)];
        let mode = self.word(&format!("{key}.mode"), Some(&raw.mode), &words)?;
        let retain = self.span(&format!("{key}.retain"), Some(&raw.retain))?;
        if retain < RETAIN_MIN || retain > RETAIN_MAX {
            let remedy =
                "write a span from 1d to 3650d: locks are lengthened by copies, and one of years cannot be taken back";
            self.fault(&format!("{key}.retain"), format!("is out of its limits: {:?}", raw.retain), remedy);
            return None;
        }
        Some(ObjectLock { mode, retain })
    }

    fn reader(&mut self, key: &str, raw: RawReader) -> Option<AccessKey> {
        self.not_empty(&format!("{key}.access_key_id"), &raw.access_key_id);
        let secret = RawSecret {
            file: raw.secret_access_key_file,
            command: raw.secret_access_key_command,
            credential: raw.secret_access_key_credential,
        };
        let secret = self.secret(&format!("{key}.secret_access_key"), secret);
        if secret.is_none() {
            self.fault(key, "has no secret key", "add `secret_access_key_file = \"/etc/bkp/NAME.key\"`");
        }
        Some(AccessKey { access_key_id: raw.access_key_id, secret_access_key: secret? })
    }

    /// The value is not repeated in a fault: it may hold a password.
    fn endpoint(&mut self, key: &str, endpoint: &str) {
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        let host = rest.map(|rest| rest.trim_end_matches('/'));
        match host {
            Some(host) if host.contains('@') => {
                self.fault(key, "has a password in it", "write access_key_id and secret_access_key_file instead");
            }
            Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', ' ']) => {}
            _ => self.fault(
                key,
                "is not a server's address",
                "write \"https://HOST\" or \"https://HOST:PORT\", without a path",
            ),
        }
    }
}
