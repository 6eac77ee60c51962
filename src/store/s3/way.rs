//! The way to an S3 server, checked against the policy's network.

use std::net::{IpAddr, SocketAddr};

use crate::net::{self, NetError};
use crate::policy::{Network, S3Place};

/// The server's host and port, and the network that leads there.
#[derive(Debug, Clone)]
pub(super) struct Way {
    network: Network,
    host: String,
    port: u16,
}

impl Way {
    /// Finds out which host and port a place is at.
    pub(super) fn to(place: &S3Place, network: &Network) -> Result<Self, String> {
        let (host, port) = match &place.endpoint {
            Some(endpoint) => host_and_port(endpoint)
                .ok_or_else(|| format!("`{endpoint}` is no endpoint such as https://host:port"))?,
            None => (aws_host(place), 443),
        };
        Ok(Self { network: network.clone(), host, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Checks the way to each address of the server, and sends nothing to it.
    pub(super) async fn check(&self) -> Result<(), NetError> {
        net::resolve(&self.network, &self.host, self.port).await.map(drop)
    }

    /// Tells whether the server is this machine: the kernel would reach an address of it from that very address.
    pub(super) async fn is_here(&self) -> bool {
        let addresses = net::resolve(&self.network, &self.host, self.port).await.unwrap_or_default();
        let is_own = |peer: &SocketAddr| net::check(&self.network, *peer).is_ok_and(|route| route.local == peer.ip());
        addresses.iter().any(is_own)
    }

    /// Checks the way again before an operation, where the server is given by its address. A name is checked by the
    /// connector's resolver at each new connection.
    pub(super) fn recheck(&self) -> Result<(), NetError> {
        match self.host.parse::<IpAddr>() {
            Ok(address) => net::check(&self.network, SocketAddr::new(address, self.port)).map(drop),
            Err(_) => Ok(()),
        }
    }
}

/// Splits `http(s)://host[:port][/]`.
fn host_and_port(endpoint: &str) -> Option<(String, u16)> {
    let (scheme, rest) = endpoint.split_once("://")?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = rest.trim_end_matches('/');
    let is_plain = !authority.is_empty() && !authority.contains(['/', '@', '?', '#', ' ']);
    if !is_plain {
        return None;
    }
    // An IPv6 address stands in brackets; its colons are no port.
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if port.is_empty() => default,
        None => return None,
    };
    Some((host.to_owned(), port))
}

/// Returns the name of AWS's own endpoint, as the SDK makes it.
fn aws_host(place: &S3Place) -> String {
    let S3Place { region, bucket, .. } = place;
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    // A bucket with a dot has no valid certificate as a host of its own.
    if place.path_style || bucket.contains('.') {
        format!("s3.{region}.{domain}")
    } else {
        format!("{bucket}.s3.{region}.{domain}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::host_and_port;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_maybe_a_port() {
        let at = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(host_and_port("https://s3.example"), at("s3.example", 443));
        assert_eq!(host_and_port("http://s3.example/"), at("s3.example", 80));
        assert_eq!(host_and_port("http://10.0.30.9:9000"), at("10.0.30.9", 9000));
        assert_eq!(host_and_port("http://[fd00::9]:9000"), at("fd00::9", 9000));
        assert_eq!(host_and_port("https://[::1]"), at("::1", 443));
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in
            ["s3.example", "ftp://s3.example", "http://", "http://h:x", "http://u@h", "http://h/p", "http://[::1]x"]
        {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }
}
