//! A store in a bucket of an S3 server.
//!
//! Every object goes up in one request with its SHA-256 beside it, so that the server refuses bytes which were damaged on the
//! way. All objects of a repository but its config are named by that very hash: the name is the checksum, and none is computed.
//!
//! This store tries nothing twice; [`crate::store::retry`] and [`crate::store::limit`] stand round it. Bytes are paced, and silence is
//! noticed, where they leave and arrive: `wire`.
//!
//! # Object Lock
//! Where the policy says so, each object but a lock file is put with a date before which the server lets nobody delete it. That
//! needs a bucket that keeps versions, and there a plain delete succeeds always: it only hides the object behind a marker. So
//! every delete asks for the date first, whatever the policy says, and refuses by itself: [`StoreError::Protected`].

mod connector;
mod error;
mod probe;
mod way;
mod wire;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode,
    ServerSideEncryption, StorageClass,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::clock::Clock;
use crate::id::ObjectId;
use crate::policy::{Access, Encryption, Network, RetainMode, S3Place};
use crate::run::Run;
use crate::secret::Secret;
use crate::store::s3::error::{Act, is_hidden, of_body};
pub use crate::store::s3::probe::Probe;
use crate::store::s3::way::Way;
pub use crate::store::s3::wire::Line;
use crate::store::{FileKind, Key, Listed, Store, StoreError};

/// A server on the backup network answers within milliseconds; a lost SYN is sent again after 1 s and 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What moves no bytes of weight (lists, heads, deletes) is answered in seconds by a server that is well.
const SMALL_TIMEOUT: Duration = Duration::from_mins(1);
/// What servers answer who have no lock to tell of: on this object, in this bucket, or at all.
const NO_LOCK: [&str; 3] = ["NoSuchObjectLockConfiguration", "InvalidRequest", "NotImplemented"];
/// The largest object that is read whole. restic writes packs of at most 128 MiB; a hostile server must not fill the memory.
const OBJECT_BYTES_MAX: u64 = 512 << 20;

/// Who asks. Without, the SDK's chain is asked: environment, profile, process, instance role.
#[derive(Debug, Clone)]
pub struct S3Credentials {
    pub access_key_id: String,
    pub secret_access_key: Secret,
}

/// The store's own lock on an object.
#[derive(Debug, Clone, Copy)]
struct Lock {
    until: DateTime<Utc>,
    mode: RetainMode,
}

/// Keeps objects below a prefix of a bucket.
pub struct S3Store {
    client: Client,
    place: S3Place,
    way: Way,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({})", self.location())
    }
}

impl S3Store {
    /// Prepares the way to a bucket. It looks up the server's name and checks the route, and sends nothing to the server.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where the policy's network does not let bytes go to one of the server's addresses;
    /// [`StoreError::Failed`] for an endpoint or authority file that cannot be used.
    pub async fn open(
        place: &S3Place,
        credentials: Option<S3Credentials>,
        network: &Network,
        line: Line,
        run: &Run,
    ) -> Result<Self, StoreError> {
        let act = Act::new("open", location(place));
        let way = Way::to(place, network).map_err(|reason| act.failed(reason))?;
        match run.cancel.run_until_cancelled(way.check()).await {
            Some(checked) => checked.map_err(|error| act.of_net(&error))?,
            None => return Err(act.failed("stopped by a signal")),
        }
        let http = connector::client(place.ca_file.as_deref(), network, way.port(), line);
        let http = http.map_err(|reason| act.failed(reason))?;
        let credentials = match credentials {
            Some(given) => SharedCredentialsProvider::new(Credentials::new(
                given.access_key_id,
                given.secret_access_key.reveal(),
                None,
                None,
                "policy",
            )),
            None => connector::chain(&place.region).await,
        };
        let client = Client::from_conf(config(place, http, credentials));
        Ok(Self { client, place: place.clone(), way, clock: run.clock.clone() })
    }

    /// Tells whether the server is this machine, and would be lost with it.
    pub async fn is_here(&self) -> bool {
        self.way.is_here().await
    }

    /// Returns the key in the bucket.
    fn name(&self, path: &str) -> String {
        match self.place.prefix.as_str() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        }
    }

    /// Names an act for its errors, and checks that the way is still the policy's.
    fn act(&self, act: &'static str, key: &Key) -> Result<Act, StoreError> {
        let act = Act::new(act, format!("{}/{key}", self.location()));
        self.way.recheck().map_err(|error| act.of_net(&error))?;
        Ok(act)
    }

    /// Only packs get the storage class: classes that are cheap to keep are dear to read, and the rest is read by every run.
    fn storage_class(&self, kind: FileKind) -> Option<StorageClass> {
        let class = self.place.storage_class.as_deref()?;
        (kind == FileKind::Pack).then(|| StorageClass::from(class))
    }

    /// Returns the mode and the end of the lock that a new object gets. A repository's lock files get none: they must go again.
    fn object_lock(&self, kind: FileKind) -> Option<(ObjectLockMode, DateTime<Utc>)> {
        let lock = self.place.object_lock.filter(|_| kind != FileKind::Lock)?;
        let mode = match lock.mode {
            RetainMode::Governance => ObjectLockMode::Governance,
            RetainMode::Compliance => ObjectLockMode::Compliance,
        };
        Some((mode, self.clock.now() + lock.retain))
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.place.encryption {
            None => (None, None),
            Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::Kms { key }) => (Some(ServerSideEncryption::AwsKms), Some(key.clone())),
        }
    }

    /// Compares the checksum that the server says it has with what was sent. Nobody can look at a store that is only written, so
    /// there the server's word is asked for.
    fn check_echo(&self, act: &Act, sent: &str, echoed: Option<&str>) -> Result<(), StoreError> {
        match echoed {
            Some(echoed) if echoed != sent => Err(act.transient("damaged on the way: the server has another SHA-256")),
            None if self.place.access == Access::WriteOnly => {
                Err(act.failed("the server does not confirm the SHA-256, and nobody may read what it has"))
            }
            _ => Ok(()),
        }
    }

    /// Asks for an object's lock where its head shows none though the policy gives one to each: the right to see it may be missing.
    async fn ask_for_lock(&self, act: &Act, key: &Key) -> Result<Option<Lock>, StoreError> {
        let request = self.client.get_object_retention().bucket(&self.place.bucket).key(self.name(&key.path()));
        match act.within(SMALL_TIMEOUT, request.send()).await? {
            Ok(answer) => Ok(answer.retention().and_then(|it| {
                let mode = mode_of(it.mode() == Some(&ObjectLockRetentionMode::Compliance));
                Some(Lock { until: it.retain_until_date().and_then(time_of)?, mode })
            })),
            Err(error) if error::code(&error).is_some_and(|code| NO_LOCK.contains(&code)) => Ok(None),
            Err(error) => Err(act.of_sdk(&error)),
        }
    }

    /// Asks for an object's lock; `None` where it never had one.
    async fn lock_of(&self, act: &Act, key: &Key) -> Result<Option<Lock>, StoreError> {
        let request = self.client.head_object().bucket(&self.place.bucket).key(self.name(&key.path()));
        let head = act.within(SMALL_TIMEOUT, request.send()).await?.map_err(|error| act.of_sdk(&error))?;
        if head.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On) {
            return Ok(Some(Lock { until: DateTime::<Utc>::MAX_UTC, mode: RetainMode::Governance }));
        }
        match head.object_lock_retain_until_date().and_then(time_of) {
            None if self.place.object_lock.is_some() && key.kind != FileKind::Lock => self.ask_for_lock(act, key).await,
            until => {
                let mode = mode_of(head.object_lock_mode() == Some(&ObjectLockMode::Compliance));
                Ok(until.map(|until| Lock { until, mode }))
            }
        }
    }

    async fn get_with(&self, act: &Act, key: &Key, range: Option<String>) -> Result<Bytes, StoreError> {
        let request = self.client.get_object().bucket(&self.place.bucket).key(self.name(&key.path())).set_range(range);
        let answer = request.send().await.map_err(|error| act.of_sdk(&error))?;
        let size = answer.content_length().and_then(|size| u64::try_from(size).ok());
        if size.is_none_or(|size| size > OBJECT_BYTES_MAX) {
            return Err(act.failed("its size is not told, or over 512 MiB"));
        }
        let body = answer.body.collect().await;
        let bytes = body.map_err(|error| of_body(act, &error))?.into_bytes();
        if Some(bytes.len() as u64) != size {
            return Err(act.transient("the answer ended early"));
        }
        Ok(bytes)
    }

    async fn list_below(&self, act: &Act, dir: &str) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        let request = self.client.list_objects_v2().bucket(&self.place.bucket).prefix(self.name(dir));
        let mut pages = request.into_paginator().send();
        // A page is a body of weight: on a slow line it takes its time, and `wire` notices silence.
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| act.of_sdk(&error))?;
            found.extend(page.contents().iter().filter_map(listed));
        }
        Ok(found)
    }
}

#[async_trait::async_trait]
impl Store for S3Store {
    fn location(&self) -> String {
        location(&self.place)
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        let act = self.act("put", key)?;
        let length = i64::try_from(bytes.len()).map_err(|_| act.failed("too large"))?;
        let checksum = checksum(key, &bytes);
        let (mode, until) = self.object_lock(key.kind).unzip();
        let (encryption, kms_key) = self.encryption();
        let request = self
            .client
            .put_object()
            .bucket(&self.place.bucket)
            .key(self.name(&key.path()))
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&checksum)
            .content_length(length)
            .set_storage_class(self.storage_class(key.kind))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until.map(date_of))
            .body(ByteStream::from(bytes));
        let answer = request.send().await.map_err(|error| act.of_sdk(&error))?;
        self.check_echo(&act, &checksum, answer.checksum_sha256())
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let act = self.act("get", key)?;
        self.get_with(&act, key, None).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let act = self.act("get", key)?;
        // HTTP has no way to ask for nothing.
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = format!("bytes={}-{}", range.start, range.end - 1);
        let bytes = self.get_with(&act, key, Some(wanted)).await?;
        if bytes.len() as u64 != range.end - range.start {
            let reason = format!("bytes {}..{} lie past its end", range.start, range.end);
            return Err(act.unreadable(reason));
        }
        Ok(bytes)
    }

    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError> {
        let dir = match kind {
            FileKind::Config => {
                let size = self.size(&Key::config()).await?;
                let name = String::new();
                return Ok(size.map(|size| Listed { name, size }).into_iter().collect());
            }
            FileKind::Key => "keys/",
            FileKind::Lock => "locks/",
            FileKind::Pack => "data/",
            FileKind::Index => "index/",
            FileKind::Snapshot => "snapshots/",
        };
        let act = Act::new("list", format!("{}/{dir}", self.location()));
        self.way.recheck().map_err(|error| act.of_net(&error))?;
        self.list_below(&act, dir).await
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        let act = self.act("look at", key)?;
        let request = self.client.head_object().bucket(&self.place.bucket).key(self.name(&key.path()));
        match act.within(SMALL_TIMEOUT, request.send()).await? {
            Ok(head) => Ok(head.content_length().and_then(|size| u64::try_from(size).ok())),
            Err(error) => match act.of_sdk(&error) {
                StoreError::Missing { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let act = self.act("delete", key)?;
        if key.kind != FileKind::Lock {
            let until = match self.immutable_until(key).await {
                Err(StoreError::Missing { .. }) => return Ok(()),
                until => until?,
            };
            if until.is_some_and(|until| until > self.clock.now()) {
                return Err(act.protected(until));
            }
        }
        let request = self.client.delete_object().bucket(&self.place.bucket).key(self.name(&key.path()));
        match act.within(SMALL_TIMEOUT, request.send()).await? {
            Ok(_) => Ok(()),
            Err(error) => match act.of_sdk(&error) {
                StoreError::Missing { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn immutable_until(&self, key: &Key) -> Result<Option<DateTime<Utc>>, StoreError> {
        let act = self.act("look at", key)?;
        Ok(self.lock_of(&act, key).await?.map(|lock| lock.until))
    }

    async fn keep_immutable(
        &self,
        key: &Key,
        least: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, StoreError> {
        let act = self.act("make immutable", key)?;
        let Some(lock) = self.place.object_lock else { return Err(act.failed("the policy has no object_lock for it")) };
        // Who may only write cannot look. The server itself refuses to shorten a lock.
        let is_blind = self.place.access == Access::WriteOnly;
        let now = if is_blind { None } else { self.lock_of(&act, key).await? };
        if let Some(now) = now.filter(|now| now.until >= least) {
            return Ok(now.until);
        }
        // The policy's mode may be another since; that of a lock that runs cannot be changed without special rights.
        let mode = match now.filter(|now| now.until > self.clock.now()) {
            Some(now) => now.mode,
            None => lock.mode,
        };
        let mode = match mode {
            RetainMode::Governance => ObjectLockRetentionMode::Governance,
            RetainMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(date_of(until)).build();
        let request = self.client.put_object_retention().bucket(&self.place.bucket).key(self.name(&key.path()));
        let answer = act.within(SMALL_TIMEOUT, request.retention(retention).send()).await?;
        match answer {
            Ok(_) => Ok(until),
            Err(error) if is_hidden(&error) => Err(act.missing()),
            Err(error) => match act.of_sdk(&error) {
                StoreError::Protected { .. } if is_blind => Ok(until),
                error => Err(error),
            },
        }
    }
}

/// A lock ends with a whole second: S3 takes no finer date, and some servers refuse one.
fn date_of(time: DateTime<Utc>) -> aws_sdk_s3::primitives::DateTime {
    aws_sdk_s3::primitives::DateTime::from_secs(time.timestamp())
}

fn time_of(date: &aws_sdk_s3::primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(date.secs(), 0)
}

fn mode_of(is_compliance: bool) -> RetainMode {
    if is_compliance { RetainMode::Compliance } else { RetainMode::Governance }
}

fn location(place: &S3Place) -> String {
    let S3Place { bucket, prefix, .. } = place;
    match prefix.as_str() {
        "" => format!("s3://{bucket}"),
        prefix => format!("s3://{bucket}/{prefix}"),
    }
}

fn config(
    place: &S3Place,
    http: aws_sdk_s3::config::SharedHttpClient,
    credentials: SharedCredentialsProvider,
) -> aws_sdk_s3::Config {
    let mut config = aws_sdk_s3::Config::builder();
    config.set_endpoint_url(place.endpoint.clone());
    config
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(place.region.clone()))
        .force_path_style(place.path_style)
        .credentials_provider(credentials)
        .http_client(http)
        // `Retry` stands round this store: it counts each try, and a limit paces each.
        .retry_config(RetryConfig::disabled())
        // Silence is noticed in `wire`, which knows when a body waits for the policy's own bandwidth.
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // The checksums are ours: sent with each put, and proved by whoever opens what comes back.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build()
}

/// Returns the SHA-256 that the server shall find: the name where it is one, so that bytes under another's name are refused.
fn checksum(key: &Key, bytes: &[u8]) -> String {
    let named = key.name.parse::<ObjectId>();
    let id = named.unwrap_or_else(|_| ObjectId::of(bytes));
    BASE64_STANDARD.encode(id.as_bytes())
}

/// Returns an object of a listing, `None` for what is no object of a repository.
fn listed(object: &aws_sdk_s3::types::Object) -> Option<Listed> {
    let name = object.key()?.rsplit('/').next()?;
    name.parse::<ObjectId>().ok()?;
    Some(Listed { name: name.to_owned(), size: u64::try_from(object.size()?).ok()? })
}
