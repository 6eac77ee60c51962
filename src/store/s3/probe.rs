//! What a bucket really does with locks. A server may take a header and not heed it, so it is tried out.

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::id::ObjectId;
use crate::store::s3::error::Act;
use crate::store::s3::{S3Store, SMALL_TIMEOUT, checksum, date_of, time_of};
use crate::store::{FileKind, Key, StoreError};

/// What is tried out lies there, beside the repository's own directories, where no reader of a repository looks.
const DIR: &str = "bkp-probe";

/// The probe is locked for so long: enough for two clocks that differ by half a minute, and nothing that stays for years.
const LOCKED: TimeDelta = TimeDelta::minutes(1);

/// What became of a small object that was put with a lock, and what the bucket says of itself.
#[derive(Debug)]
pub struct Probe {
    /// Where the small object lies now, and until when: nothing deletes it before.
    pub left: (String, DateTime<Utc>),
    /// Whether the bucket locks by itself whatever is put, a repository's lock files included.
    pub locks_all: Result<bool, StoreError>,
    /// The end of the lock, as the server tells it.
    pub reads_back: Result<Option<DateTime<Utc>>, StoreError>,
    /// Whether the server refused to delete the locked version, and said that it is for the lock; `None` where it told of no version: the bucket keeps none, and without
    /// them no lock holds.
    pub refuses: Option<Result<bool, StoreError>>,
}

impl Probe {
    /// Puts a small object with a lock of a minute by one store, looks at it by another, and tries to delete that version.
    ///
    /// # Errors
    /// Where it cannot be put, or the policy has no lock for it.
    pub async fn of(writer: &S3Store, reader: &S3Store) -> Result<Self, StoreError> {
        let (name, until, version) = writer.put_probe().await?;
        let refuses = match &version {
            Some(version) => Some(writer.is_refused(&name, version).await),
            None => None,
        };
        Ok(Self {
            left: (format!("{}/{DIR}", writer.place_text()), until),
            locks_all: reader.locks_all().await,
            reads_back: reader.end_of(&name).await,
            refuses,
        })
    }
}

impl S3Store {
    fn place_text(&self) -> String {
        crate::store::Store::location(self)
    }

    async fn put_probe(&self) -> Result<(String, DateTime<Utc>, Option<String>), StoreError> {
        let body = Bytes::from_static(b"bkp doctor tried whether this bucket keeps what it locks\n");
        // One name for all probes: the versions pile up under it, and a rule of the bucket can clear them away.
        let name = self.name(&format!("{DIR}/{}", ObjectId::of(&body)));
        let act = Act::new("put", format!("{}/{DIR}", self.place_text()));
        let Some((mode, _)) = self.object_lock(FileKind::Pack) else {
            return Err(act.failed("the policy has no object_lock for it"));
        };
        let until = self.clock.now() + LOCKED;
        let (encryption, kms_key) = self.encryption();
        let request = self
            .client
            .put_object()
            .bucket(&self.place.bucket)
            .key(&name)
            .checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Sha256)
            .checksum_sha256(checksum(&Key::new(FileKind::Pack, ObjectId::of(&body).to_string()), &body))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .object_lock_mode(mode)
            .object_lock_retain_until_date(date_of(until))
            .body(ByteStream::from(body));
        let sent = Box::pin(act.within(SMALL_TIMEOUT, request.send())).await?;
        let answer = sent.map_err(|error| act.of_sdk(&error))?;
        // A bucket whose versioning was suspended calls each version so.
        let version = answer.version_id().filter(|version| *version != "null");
        Ok((name, until, version.map(str::to_owned)))
    }

    /// Tries to delete a version, and is glad when that fails. Tells whether the server says that it is for the lock: a key that may
    /// delete no version is refused as well.
    async fn is_refused(&self, name: &str, version: &str) -> Result<bool, StoreError> {
        let act = Act::new("delete", format!("{}/{DIR}", self.place_text()));
        let request = self.client.delete_object().bucket(&self.place.bucket).key(name).version_id(version);
        match act.within(SMALL_TIMEOUT, request.send()).await? {
            Ok(_) => Err(act.failed("the server deleted a locked version")),
            Err(error) => match act.of_sdk(&error) {
                StoreError::Protected { .. } => Ok(true),
                StoreError::Denied { .. } | StoreError::Failed { .. } => Ok(false),
                error => Err(error),
            },
        }
    }

    async fn end_of(&self, name: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        let act = Act::new("look at", format!("{}/{DIR}", self.place_text()));
        let request = self.client.head_object().bucket(&self.place.bucket).key(name);
        let head = act.within(SMALL_TIMEOUT, request.send()).await?.map_err(|error| act.of_sdk(&error))?;
        Ok(head.object_lock_retain_until_date().and_then(time_of))
    }

    async fn locks_all(&self) -> Result<bool, StoreError> {
        let act = Act::new("ask for the lock settings of", self.place_text());
        let request = self.client.get_object_lock_configuration().bucket(&self.place.bucket);
        let answer = act.within(SMALL_TIMEOUT, request.send()).await?.map_err(|error| act.of_sdk(&error))?;
        let rule = answer.object_lock_configuration().and_then(|settings| settings.rule());
        Ok(rule.is_some_and(|rule| rule.default_retention().is_some()))
    }
}
