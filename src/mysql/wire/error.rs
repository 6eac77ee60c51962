//! What can go wrong between us and a server.

use std::io;

use crate::mysql::tls::TlsError;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server says no. Its words may hold names and values, never a password.
    #[error("{message} (server error {code})")]
    Server { code: u16, message: String },
    #[error("the connection broke: {error}")]
    Lost { error: io::Error },
    #[error("the server closed the connection")]
    Closed,
    #[error("no byte from the server for {seconds} s")]
    Silent { seconds: u64 },
    #[error("stopped by a signal")]
    Stopped,
    #[error("the server's bytes make no sense: {what}")]
    Protocol { what: &'static str },
    #[error("the connection still holds rows of an earlier statement")]
    Busy,
    #[error("the statement is larger than a packet")]
    TooLarge,
    #[error("the protocol cannot ask for a binlog from {offset} on: that is beyond 4 GiB")]
    BeyondOffset { offset: u64 },
    #[error("the account's authentication plugin `{plugin}` is not supported")]
    Plugin { plugin: String },
    #[error("the account's password may not cross the network in the clear, and the connection has no TLS")]
    Insecure,
    #[error("the server offers no TLS")]
    NoTls,
    #[error("set up TLS")]
    Tls(#[from] TlsError),
    #[error("name the server for TLS: `{host}` is no host name")]
    TlsName { host: String },
}

impl WireError {
    /// Returns the server's error number, where it was the server that refused.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Tells whether the connection itself is gone, as against a statement refused.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        // 1053: the server shuts down; 1317: the query was interrupted; 1927, 3169: this connection was killed.
        matches!(self, Self::Lost { .. } | Self::Closed | Self::Silent { .. })
            || matches!(self.code(), Some(1053 | 1317 | 1927 | 3169 | 4031))
    }

    /// Tells whether the server refuses for want of a privilege.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.code(), Some(1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1698 | 3879))
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Server { code: 1044 | 1045 | 1698, .. } => {
                "check user and password in the policy, and from which hosts the account may connect"
            }
            Self::Insecure => "set `tls` in the policy to verify the server's certificate, or connect by its socket",
            Self::NoTls => "give the server a certificate, or say `tls = \"off\"` in the policy",
            Self::Plugin { .. } => "use an account with caching_sha2_password, ed25519 or mysql_native_password",
            Self::Lost { .. } | Self::Closed | Self::Silent { .. } => {
                "see the server's error log and the network between"
            }
            Self::Tls(_) => "check `tls_ca_file` in the policy, or `--to-mysql-ca`",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
