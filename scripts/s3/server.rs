//! An S3 server over a directory, on loopback: shared by `scripts/s3` and the tests.
//!
//! It refuses a body whose SHA-256 is not the one that the request names, and keeps nothing of it. Faults come before
//! the real answer, in its midst, or in its place: what the given function says about a request is done to it.

#[path = "objects.rs"]
mod objects;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream;
use http_body_util::BodyExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use objects::Objects;
use s3s::Body;
use s3s::HttpError;
use s3s::HttpResponse;
use s3s::S3Request;
use s3s::S3Result;
use s3s::access::S3Access;
use s3s::auth::SimpleAuth;
use s3s::dto::ListObjectsInput;
use s3s::dto::ListObjectsV2Input;
use s3s::service::S3Service;
use s3s::service::S3ServiceBuilder;
use sha2::Digest as _;
use sha2::Sha256;
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

pub(crate) type Asked = hyper::Request<Incoming>;

/// Says what happens to a request instead of the real answer; `None` lets it through.
pub(crate) type Faults = Arc<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An answer with this status and no body.
    Status(u16),
    /// The connection ends without an answer.
    Disconnect,
    /// No answer ever comes.
    Stall,
    /// An answer that it is busy, and for how many seconds.
    Busy(u16),
    /// The connection ends in the midst of what is sent.
    CutUpload,
    /// The connection ends in the midst of the answer.
    CutAnswer,
    /// Nothing more comes in the midst of the answer.
    StallAnswer,
    /// A put is answered as done, and nothing is kept.
    Lie,
    /// Refused as AWS refuses what an object's lock forbids.
    Locked,
    /// The real answer comes later.
    Delay(Duration),
}

#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) access: String,
    pub(crate) secret: String,
}

/// Serves `root`, in which each directory is a bucket, until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, root: &Path, keys: &[Keys], faults: Faults) -> io::Result<()> {
    let mut builder = S3ServiceBuilder::new(Objects::new(root)?);
    let mut auth = SimpleAuth::new();
    for keys in keys {
        auth.register(keys.access.clone(), keys.secret.clone().into());
    }
    builder.set_auth(auth);
    builder.set_access(PlainLists);
    let service = builder.build();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(converse(stream, service.clone(), faults.clone()));
    }
}

/// Reads an empty delimiter as none, as S3 does: restic sends one, and the object store would group by it.
struct PlainLists;

#[async_trait::async_trait]
impl S3Access for PlainLists {
    async fn list_objects(&self, asked: &mut S3Request<ListObjectsInput>) -> S3Result<()> {
        asked.input.delimiter.take_if(|delimiter| delimiter.is_empty());
        Ok(())
    }

    async fn list_objects_v2(&self, asked: &mut S3Request<ListObjectsV2Input>) -> S3Result<()> {
        asked.input.delimiter.take_if(|delimiter| delimiter.is_empty());
        Ok(())
    }
}

async fn converse(stream: TcpStream, service: S3Service, faults: Faults) {
    let service = service_fn(move |asked: Asked| {
        let (service, fault) = (service.clone(), faults(&asked));
        async move {
            match fault {
                None => real_answer(&service, asked).await,
                Some(Fault::Status(code)) => answer(code, ""),
                Some(Fault::Locked) => answer(403, LOCKED),
                Some(Fault::Busy(seconds)) => busy(seconds),
                Some(Fault::Disconnect) => disconnect(),
                Some(Fault::Stall) => pending().await,
                Some(Fault::CutUpload) => {
                    asked.into_body().frame().await;
                    disconnect()
                }
                Some(Fault::CutAnswer) => halved(real_answer(&service, asked).await?, true).await,
                Some(Fault::StallAnswer) => halved(real_answer(&service, asked).await?, false).await,
                Some(Fault::Lie) => lie(asked).await,
                Some(Fault::Delay(span)) => {
                    tokio::time::sleep(span).await;
                    real_answer(&service, asked).await
                }
            }
        }
    });
    // The client hears of a broken connection; the server has nothing to add.
    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
}

/// Checks the body's SHA-256 before the object store sees it: that one checks only after it has replaced the object.
async fn real_answer(service: &S3Service, asked: Asked) -> Result<HttpResponse, HttpError> {
    let Some(named) = asked.headers().get("x-amz-checksum-sha256").cloned() else {
        return service.call(asked.map(Body::from)).await;
    };
    let (head, body) = asked.into_parts();
    let body = body.collect().await.map_err(|error| HttpError::new(error.into()))?;
    let body = body.to_bytes();
    if STANDARD.encode(Sha256::digest(&body)) == named {
        return service.call(hyper::Request::from_parts(head, Body::from(body))).await;
    }
    answer(400, "<Error><Code>BadDigest</Code><Message>the SHA-256 is another</Message></Error>")
}

const LOCKED: &str = "<Error><Code>AccessDenied</Code>\
    <Message>Access Denied because object protected by object lock.</Message></Error>";

fn disconnect() -> Result<HttpResponse, HttpError> {
    Err(HttpError::new("disconnected on purpose".into()))
}

fn busy(seconds: u16) -> Result<HttpResponse, HttpError> {
    let response = hyper::Response::builder().status(503).header("retry-after", seconds);
    response.body(Body::empty()).map_err(|error| HttpError::new(error.into()))
}

/// Takes all that is put, and answers as if it were kept: with the checksum that the client named.
async fn lie(asked: Asked) -> Result<HttpResponse, HttpError> {
    let checksum = asked.headers().get("x-amz-checksum-sha256").cloned();
    asked.into_body().collect().await.map_err(|error| HttpError::new(error.into()))?;
    let mut response = hyper::Response::builder().status(200).header("etag", "\"0\"");
    if let Some(checksum) = checksum {
        response = response.header("x-amz-checksum-sha256", checksum);
    }
    response.body(Body::empty()).map_err(|error| HttpError::new(error.into()))
}

/// Sends the head of an answer whole and half of its body; then the connection ends, or nothing ever comes.
async fn halved(answer: HttpResponse, ends: bool) -> Result<HttpResponse, HttpError> {
    let (mut head, body) = answer.into_parts();
    let whole = BodyExt::collect(body).await.map_err(HttpError::new)?.to_bytes();
    head.headers.insert(hyper::header::CONTENT_LENGTH, whole.len().into());
    let half = whole.slice(..whole.len() / 2);
    let first = stream::once(async move { Ok::<_, io::Error>(Frame::data(half)) });
    let rest = stream::once(async move {
        if !ends {
            pending::<()>().await;
        }
        Err(io::Error::other("cut on purpose"))
    });
    let body = Body::http_body_unsync(StreamBody::new(Box::pin(first.chain(rest))));
    Ok(hyper::Response::from_parts(head, body))
}

fn answer(code: u16, body: &'static str) -> Result<HttpResponse, HttpError> {
    let body = Body::from(body.to_owned());
    let response = hyper::Response::builder().status(code).body(body);
    response.map_err(|error| HttpError::new(error.into()))
}
