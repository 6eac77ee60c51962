//! How the way to a target is covered: what the load sent it under TLS does not go after it in the clear.

use std::net::IpAddr;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::manifest::Product;
use crate::mysql::server::Server;
use crate::policy::{MysqlAddress, Tls, TlsMode};
use crate::replay::ReplayError;
use crate::replay::channel::Secure;
use crate::replay::guard::{Guard, GuardError};

/// The first MariaDB that knows a certificate which no authority has signed by the password: major and minor number.
const VOUCHED: (u32, u32) = (11, 4);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cover<'a> {
    /// It stays on this machine, or the network may see it.
    Clear,
    /// Nobody can listen; whose certificate the other side should have, nobody knows.
    Encrypted,
    /// Nobody is let in but who has this host's certificate.
    Known { host: &'a str, tls: &'a Tls },
}

impl<'a> Cover<'a> {
    /// Chooses for a target that we reach in one way, and that reaches us at `listen`.
    pub(super) fn of(server: &'a Server, listen: IpAddr) -> Self {
        match (&server.address, server.tls.mode) {
            (MysqlAddress::Tcp { host, .. }, TlsMode::Verify) => Self::Known { host, tls: &server.tls },
            // That it goes without TLS to another machine, the operator has said.
            (address, TlsMode::Off) if !address.is_local() => Self::Clear,
            _ if listen.is_loopback() => Self::Clear,
            // By a tunnel, or from one address of ours to another.
            _ => Self::Encrypted,
        }
    }

    pub(super) fn guard(&self, here: IpAddr) -> Result<Option<Guard>, GuardError> {
        match self {
            Self::Clear => Ok(None),
            Self::Encrypted => Guard::new(here, None).map(Some),
            Self::Known { host, tls } => Guard::new(here, Some((host, tls))).map(Some),
        }
    }

    /// Returns how the target is to speak TLS; refuses one that has no certificate to show.
    pub(super) async fn secure(&self, conn: &mut Conn, product: Product) -> Result<Option<Secure>, ReplayError> {
        let at = || ReplayError::at("ask the target for its certificate");
        let certificate = match self {
            Self::Clear => return Ok(None),
            Self::Encrypted => None,
            Self::Known { host, .. } => {
                let asked = "SELECT COALESCE(@@GLOBAL.ssl_cert, ''), COALESCE(@@GLOBAL.ssl_key, '')";
                let files: Option<(String, String)> = conn.query_first(asked).await.map_err(at())?;
                Some(files.filter(|(file, _)| !file.is_empty()).ok_or_else(|| nothing_to_show(host))?)
            }
        };
        let version: Option<String> = conn.query_first("SELECT VERSION()").await.map_err(at())?;
        let verifies = product == Product::MariaDb && numbers(&version.unwrap_or_default()) >= VOUCHED;
        Ok(Some(Secure { certificate, verifies }))
    }
}

fn nothing_to_show(host: &str) -> ReplayError {
    ReplayError::Unfit {
        why: format!("is reached by TLS at `{host}`, and has no certificate of its own by which bkp would know it"),
        hint: "name its certificate and key to the target (`ssl_cert`, `ssl_key`); on a network that may see the binlogs, \
            `--to-mysql-plain` does without"
            .to_owned(),
    }
}

fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|char: char| !char.is_ascii_digit()).map(|text| text.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Network;

    #[test]
    fn what_the_load_hid_from_the_network_the_replay_hides_too() {
        let tcp = |host: &str| MysqlAddress::Tcp { host: host.to_owned(), port: 3306 };
        let of = |address: MysqlAddress, mode, listen: [u8; 4]| {
            let tls = Tls { mode, ca_file: None };
            let server = Server { address, user: "root".to_owned(), password: None, tls, network: Network::default() };
            match Cover::of(&server, listen.into()) {
                Cover::Clear => "clear",
                Cover::Encrypted => "encrypted",
                Cover::Known { .. } => "known",
            }
        };
        let (off, verify, socket) = (TlsMode::Off, TlsMode::Verify, || MysqlAddress::Socket("/run/s".into()));
        let (here, out) = ([127, 0, 0, 1], [10, 0, 30, 5]);
        assert_eq!(of(tcp("db1"), verify, out), "known");
        assert_eq!(of(tcp("127.0.0.1"), verify, here), "known");
        assert_eq!(of(tcp("db1"), off, out), "clear");
        assert_eq!(of(tcp("127.0.0.1"), off, here), "clear");
        assert_eq!(of(socket(), verify, here), "clear");
        assert_eq!(of(tcp("127.0.0.1"), off, out), "encrypted");
        assert_eq!(of(tcp("localhost"), off, out), "encrypted");
        assert_eq!(of(socket(), off, out), "encrypted");
    }

    #[test]
    fn a_version_begins_with_two_numbers() {
        assert!(numbers("11.8.9-MariaDB-4 from Debian") >= VOUCHED);
        assert!(numbers("11.4") >= VOUCHED);
        assert!(numbers("10.11.19-MariaDB-0+deb12u1") < VOUCHED);
        assert!(numbers("") < VOUCHED);
    }
}
