//! An S3 server over a directory, on loopback: shared by `scripts/s3` and the tests.
//!
//! It refuses a body whose SHA-256 is not the one that the request names, and keeps nothing of it. Faults come before
//! the real answer: what the given function says about a request is done to it.

#[path = "objects.rs"]
mod objects;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
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
}

#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) access: String,
    pub(crate) secret: String,
}

/// Serves `root`, in which each directory is a bucket, until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, root: &Path, keys: &Keys, faults: Faults) -> io::Result<()> {
    let mut builder = S3ServiceBuilder::new(Objects::new(root)?);
    builder.set_auth(SimpleAuth::from_single(keys.access.clone(), keys.secret.clone()));
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
                Some(Fault::Disconnect) => Err(HttpError::new("disconnected on purpose".into())),
                Some(Fault::Stall) => pending().await,
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

fn answer(code: u16, body: &'static str) -> Result<HttpResponse, HttpError> {
    let body = Body::from(body.to_owned());
    let response = hyper::Response::builder().status(code).body(body);
    response.map_err(|error| HttpError::new(error.into()))
}
