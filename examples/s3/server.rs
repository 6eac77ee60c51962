//! An S3 server over a directory, on loopback: shared by `examples/s3` and the tests.
//!
//! It refuses a body whose SHA-256 is not the one that the request names. Faults come before the real answer: what
//! the given function says about a request is done to it.

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use s3s::Body;
use s3s::HttpError;
use s3s::HttpResponse;
use s3s::auth::SimpleAuth;
use s3s::service::S3Service;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
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
pub(crate) async fn serve(
    listener: TcpListener,
    root: &Path,
    keys: &Keys,
    faults: Faults,
) -> io::Result<()> {
    let files = FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(
        keys.access.clone(),
        keys.secret.clone(),
    ));
    let service = builder.build();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(converse(stream, service.clone(), faults.clone()));
    }
}

async fn converse(stream: TcpStream, service: S3Service, faults: Faults) {
    let answer = service_fn(move |asked: Asked| {
        let (service, fault) = (service.clone(), faults(&asked));
        async move {
            match fault {
                None => service.call(asked.map(Body::from)).await,
                Some(Fault::Status(code)) => status(code),
                Some(Fault::Disconnect) => Err(HttpError::new("disconnected on purpose".into())),
                Some(Fault::Stall) => pending().await,
            }
        }
    });
    // The client hears of a broken connection; the server has nothing to add.
    Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), answer)
        .await
        .ok();
}

fn status(code: u16) -> Result<HttpResponse, HttpError> {
    let response = hyper::Response::builder().status(code).body(Body::empty());
    response.map_err(|error| HttpError::new(error.into()))
}
