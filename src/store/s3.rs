//! A store in a bucket of an S3 server.
//!
//! Every object goes up in one request with its SHA-256 beside it, so that the server refuses bytes which were damaged on the
//! way. All objects of a repository but its config are named by that very hash: the name is the checksum, and none is computed.
//!
//! This store tries nothing twice and paces nothing; [`crate::store::retry`] and [`crate::store::limit`] stand round it.

mod connector;
mod error;
mod way;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::StorageClass;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::id::ObjectId;
use crate::policy::{Network, S3Place};
use crate::run::Run;
use crate::secret::Secret;
use crate::store::s3::error::{Act, of_body};
use crate::store::s3::way::Way;
use crate::store::{FileKind, Key, Listed, Store, StoreError};

/// A server on the backup network answers within milliseconds; a lost SYN is sent again after 1 s and 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Covers a whole upload up to its answer: 16 MiB at 64 KiB/s take 256 s.
const READ_TIMEOUT: Duration = Duration::from_mins(5);
/// One try of an operation, with connecting and the answer's head.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(6);
/// What moves no bytes of weight (lists, heads, deletes) is answered in seconds by a server that is well.
const SMALL_TIMEOUT: Duration = Duration::from_mins(1);
/// A body that stands still for so long is given up. The SDK's 5 s are less than a failover takes.
const STALL_GRACE: Duration = Duration::from_secs(30);
/// The largest object that is read whole. restic writes packs of at most 128 MiB; a hostile server must not fill the memory.
const OBJECT_BYTES_MAX: u64 = 512 << 20;

/// Who asks. Without, the SDK's chain is asked: environment, profile, process, instance role.
#[derive(Debug, Clone)]
pub struct S3Credentials {
    pub access_key_id: String,
    pub secret_access_key: Secret,
}

/// Keeps objects below a prefix of a bucket.
pub struct S3Store {
    client: Client,
    place: S3Place,
    way: Way,
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
        run: &Run,
    ) -> Result<Self, StoreError> {
        let act = Act::new("open", location(place));
        let way = Way::to(place, network).map_err(|reason| act.failed(reason))?;
        match run.cancel.run_until_cancelled(way.check()).await {
            Some(checked) => checked.map_err(|error| act.of_net(&error))?,
            None => return Err(act.failed("stopped by a signal")),
        }
        let http =
            connector::client(place.ca_file.as_deref(), network, way.port()).map_err(|reason| act.failed(reason))?;
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
        Ok(Self { client, place: place.clone(), way })
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
        while let Some(page) = act.within(SMALL_TIMEOUT, pages.next()).await? {
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
        let request = self
            .client
            .put_object()
            .bucket(&self.place.bucket)
            .key(self.name(&key.path()))
            .checksum_sha256(checksum(key, &bytes))
            .content_length(length)
            .set_storage_class(self.storage_class(key.kind))
            .body(ByteStream::from(bytes));
        let answer = request.send().await;
        answer.map(drop).map_err(|error| act.of_sdk(&error))
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
        let request = self.client.delete_object().bucket(&self.place.bucket).key(self.name(&key.path()));
        match act.within(SMALL_TIMEOUT, request.send()).await? {
            Ok(_) => Ok(()),
            Err(error) => match act.of_sdk(&error) {
                StoreError::Missing { .. } => Ok(()),
                error => Err(error),
            },
        }
    }
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
    let stalls = StalledStreamProtectionConfig::enabled()
        .upload_enabled(true)
        .download_enabled(true)
        .grace_period(STALL_GRACE)
        .build();
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
        .timeout_config(timeouts())
        .stalled_stream_protection(stalls)
        // The checksums are ours: sent with each put, and proved by whoever opens what comes back.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build()
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
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
