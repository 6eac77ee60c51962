//! The object store behind the server: `s3s-fs`, but for reading.
//!
//! That one hashes the whole object for each range that is asked of it and sends it in 4 KiB, which makes a restore of small
//! files a hundred times slower than with a real server. Here a range is read at once, and what names the object is its tag.

use s3s::S3;
use s3s::S3Request;
use s3s::S3Response;
use s3s::S3Result;
use s3s::dto::{
    CreateBucketInput, CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, ETag, GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput,
    StreamingBlob, Timestamp,
};
use s3s::s3_error;
use s3s_fs::FileSystem;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

pub(crate) struct Objects {
    inner: FileSystem,
    root: PathBuf,
}

/// A part of an object, or all of it.
struct Part {
    bytes: Vec<u8>,
    range: Range<u64>,
    size: u64,
    modified: Timestamp,
}

impl Objects {
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let inner = FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(Self { inner, root: root.to_owned() })
    }

    /// Returns where an object lies, or `None` for a key that leads out of its bucket.
    fn path(&self, bucket: &str, key: &str) -> Option<PathBuf> {
        let path = Path::new(bucket).join(key);
        let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        is_inside.then(|| self.root.join(path))
    }
}

/// Reads what is asked for at once: no object of a repository is larger than a pack.
fn read(path: &Path, asked: Option<s3s::dto::Range>) -> S3Result<Part> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => s3_error!(error, NoSuchKey),
        _ => s3_error!(error, InternalError),
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(s3_error!(NoSuchKey));
    }
    let size = metadata.len();
    let range = asked.map_or(Ok(0..size), |asked| asked.check(size))?;
    let length = usize::try_from(range.end - range.start).map_err(|error| s3_error!(error, InternalError))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
    let modified = Timestamp::from(metadata.modified().map_err(failed)?);
    Ok(Part { bytes, range, size, modified })
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput { bucket, key, range, .. } = request.input;
        let path = self.path(&bucket, &key).ok_or_else(|| s3_error!(NoSuchKey))?;
        let read = tokio::task::spawn_blocking(move || read(&path, range)).await;
        let part = read.map_err(|error| s3_error!(error, InternalError))??;
        let Range { start, end } = part.range;
        let content_range = range.map(|_| format!("bytes {start}-{}/{}", end.saturating_sub(1), part.size));
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(part.bytes.len()).ok(),
            body: Some(StreamingBlob::from(s3s::Body::from(bytes::Bytes::from(part.bytes)))),
            content_range,
            last_modified: Some(part.modified),
            e_tag: Some(ETag::Strong(key.rsplit('/').next().unwrap_or_default().to_owned())),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.inner.head_object(request).await
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.inner.put_object(request).await
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.inner.delete_object(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.inner.delete_objects(request).await
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        self.inner.list_objects(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.inner.list_objects_v2(request).await
    }

    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        self.inner.list_buckets(request).await
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.inner.create_bucket(request).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.inner.head_bucket(request).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.inner.get_bucket_location(request).await
    }
}
