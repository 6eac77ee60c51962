//! What an S3 server's answer means to a store: gone, denied, protected, or worth another try.

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use chrono::{DateTime, Utc};

use crate::net::NetError;
use crate::store::StoreError;

/// An act on a thing, which its errors name.
#[derive(Debug)]
pub(super) struct Act {
    act: &'static str,
    thing: String,
}

impl Act {
    pub(super) fn new(act: &'static str, thing: String) -> Self {
        Self { act, thing }
    }

    pub(super) fn failed(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Failed { act: self.act, thing: self.thing.clone(), reason: reason.into() }
    }

    pub(super) fn transient(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Transient { act: self.act, thing: self.thing.clone(), reason: reason.into() }
    }

    pub(super) fn unreadable(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Unreadable { act: self.act, thing: self.thing.clone(), reason: reason.into() }
    }

    pub(super) fn protected(&self, until: Option<DateTime<Utc>>) -> StoreError {
        StoreError::Protected { act: self.act, thing: self.thing.clone(), until }
    }

    pub(super) fn missing(&self) -> StoreError {
        StoreError::Missing { act: self.act, thing: self.thing.clone() }
    }

    fn denied(&self, reason: String) -> StoreError {
        StoreError::Denied { act: self.act, thing: self.thing.clone(), reason }
    }

    /// Gives an operation up after a time.
    pub(super) async fn within<T>(&self, limit: Duration, operation: impl Future<Output = T>) -> Result<T, StoreError> {
        let ended = tokio::time::timeout(limit, operation).await;
        ended.map_err(|_| self.transient(format!("no answer within {} s", limit.as_secs())))
    }

    /// Tells a way that the policy forbids from one that is not there now.
    pub(super) fn of_net(&self, error: &NetError) -> StoreError {
        let reason = chain(error);
        if error.is_refused() {
            let (act, thing) = (self.act, self.thing.clone());
            return StoreError::Refused { act, thing, reason };
        }
        self.transient(reason)
    }

    pub(super) fn of_sdk<E>(&self, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(failure) => {
                let status = failure.raw().status().as_u16();
                let error = self.of_answer(status, failure.err().code(), failure.err().message());
                let after = failure.raw().headers().get("retry-after").and_then(|text| text.trim().parse().ok());
                asked_to_wait(error, after)
            }
            SdkError::TimeoutError(_) => self.transient("no answer in time"),
            SdkError::ResponseError(_) => self.transient(chain(error)),
            SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
                Some(connector) => self.of_connection(connector),
                None => self.failed(chain(error)),
            },
            _ => self.failed(chain(error)),
        }
    }

    /// Reads the cause out of a connection that failed: each layer wraps the one below.
    fn of_connection(&self, error: &(dyn Error + 'static)) -> StoreError {
        if let Some(refused) = find::<NetError>(error) {
            return self.of_net(refused);
        }
        if let Some(tls) = find::<rustls::Error>(error) {
            return self.failed(format!("TLS: {tls}"));
        }
        self.transient(chain(error))
    }

    fn of_answer(&self, status: u16, code: Option<&str>, message: Option<&str>) -> StoreError {
        let (act, thing) = (self.act, self.thing.clone());
        let code = code.unwrap_or_default();
        let reason = reason(status, code, message.unwrap_or_default());
        if is_locked(code, message.unwrap_or_default()) {
            return self.protected(None);
        }
        match code {
            // The object lies in an archive, or its own rights or key shut us out: another object may well come.
            "InvalidObjectState" => return self.unreadable(reason),
            "NotImplemented" => return self.failed(reason),
            "NoSuchBucket" => return self.failed("there is no such bucket"),
            "RequestTimeTooSkewed" => {
                return self.failed("this machine's clock differs from the server's");
            }
            "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" | "EntityTooLarge" => {
                return StoreError::Full { act, thing };
            }
            // The bytes are right here, so another try may bring them through undamaged.
            "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
                return self.transient(format!("damaged on the way: {reason}"));
            }
            "RequestTimeout"
            | "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "InternalError"
            | "ServiceUnavailable"
            | "OperationAborted" => {
                return self.transient(reason);
            }
            _ => {}
        }
        match status {
            404 => self.missing(),
            401 | 403 => self.denied(reason),
            507 => StoreError::Full { act, thing },
            408 | 429 | 500..=599 => self.transient(reason),
            416 => self.unreadable("the stretch lies past its end"),
            _ => self.failed(reason),
        }
    }
}

/// Notes for how many seconds the server asks to be left alone. A date instead of a number is not heeded: clocks differ.
fn asked_to_wait(error: StoreError, after_s: Option<u64>) -> StoreError {
    match (error, after_s) {
        (StoreError::Transient { act, thing, reason }, Some(seconds)) => {
            StoreError::Busy { act, thing, reason, after: Duration::from_secs(seconds) }
        }
        (error, _) => error,
    }
}

/// Tells whether a server says that the object is hidden behind a delete marker, which has no lock to change.
pub(super) fn is_hidden<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|answer| answer.status().as_u16() == 405)
}

/// Returns the code of a server's answer.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// Returns the store error of a body that broke off.
pub(super) fn of_body(act: &Act, error: &ByteStreamError) -> StoreError {
    act.transient(chain(error))
}

/// Tells whether an Object Lock refused. AWS has no code of its own for it and answers `AccessDenied`.
fn is_locked(code: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    code == "ObjectLocked" || ["object lock", "worm protected", "legal hold"].iter().any(|mark| message.contains(mark))
}

fn reason(status: u16, code: &str, message: &str) -> String {
    let parts: Vec<_> = [code, message].into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return format!("the server answered {status}");
    }
    format!("the server answered {status} {}", parts.join(": "))
}

/// Joins an error and its causes into one line. A cause that its wrapper already prints is left out.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Finds a cause of a type. An `io::Error` shows what it carries by `get_ref` only.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref::<T>() {
        return Some(found);
    }
    let carried =
        error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref).and_then(|carried| find::<T>(carried));
    carried.or_else(|| find::<T>(error.source()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(status: u16, code: &str, message: &str) -> StoreError {
        Act::new("put", "s3://b/config".to_owned()).of_answer(status, Some(code), Some(message))
    }

    #[test]
    fn throttling_and_a_servers_own_errors_are_worth_another_try() {
        for (status, code) in [
            (503, "SlowDown"),
            (500, "InternalError"),
            (502, ""),
            (429, ""),
            (400, "RequestTimeout"),
            (400, "BadDigest"),
        ] {
            assert!(of(status, code, "").is_transient(), "{status} {code}");
        }
    }

    #[test]
    fn what_is_gone_denied_or_protected_says_so() {
        assert!(matches!(of(404, "NoSuchKey", ""), StoreError::Missing { .. }));
        assert!(matches!(of(404, "NoSuchBucket", ""), StoreError::Failed { .. }));
        assert!(matches!(of(403, "InvalidAccessKeyId", ""), StoreError::Denied { .. }));
        assert!(matches!(of(507, "", ""), StoreError::Full { .. }));
        let locked = "Access Denied because object protected by object lock.";
        assert!(matches!(of(403, "AccessDenied", locked), StoreError::Protected { .. }));
    }

    #[test]
    fn a_server_that_names_a_time_is_heard_where_another_try_may_help() {
        let busy = asked_to_wait(of(503, "SlowDown", ""), Some(7));
        assert!(matches!(busy, StoreError::Busy { after, .. } if after == Duration::from_secs(7)), "{busy}");
        assert!(matches!(asked_to_wait(of(403, "", ""), Some(7)), StoreError::Denied { .. }));
        assert!(matches!(asked_to_wait(of(503, "", ""), None), StoreError::Transient { .. }));
    }

    #[test]
    fn a_wrapped_cause_is_found() {
        let refused = rustls::Error::DecryptError;
        let wrapped = std::io::Error::other(std::io::Error::other(refused.clone()));
        assert_eq!(find::<rustls::Error>(&wrapped), Some(&refused));
    }
}
