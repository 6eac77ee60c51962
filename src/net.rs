//! The way out: backup bytes leave by the interface and address that the policy names, to the peers that it allows, or not at all.
//!
//! [`check`] asks the kernel which way it would take, without sending a packet: a connected UDP socket tells the local
//! address, and a route request over netlink the interface. [`resolve`] and [`ways`] do so for each address of a name.
//! [`check_seen`] compares what a database server sees as our address, which finds a network translation in between.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::policy::Network;

mod netlink;
#[cfg(test)]
mod tests;

/// The way that the kernel takes to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub local: IpAddr,
    /// The interface that holds the way out; `None` where the kernel does not tell and the policy does not ask.
    pub interface: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("connect to {peer}: {found}, and the policy wants {wanted}")]
    Refused { peer: String, found: String, wanted: String },
    #[error("find the way to {peer}")]
    NoRoute {
        peer: SocketAddr,
        #[source]
        error: io::Error,
    },
    #[error("look up the host `{host}`")]
    Lookup {
        host: String,
        #[source]
        error: io::Error,
    },
    #[error("read the addresses of interface `{interface}`")]
    Interface {
        interface: String,
        #[source]
        error: io::Error,
    },
    #[error("stopped by a signal")]
    Stopped,
}

impl NetError {
    /// Tells whether the policy forbids the way (exit 17), as against a way that is not there.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { .. } => Some(
                "nothing was sent; see `ip route get ADDRESS`, then correct the route or [network] in the policy"
                    .to_owned(),
            ),
            Self::NoRoute { .. } => Some("see `ip route get ADDRESS` and `ip address`".to_owned()),
            Self::Lookup { .. } => Some("name the host by its address, or correct the name service".to_owned()),
            Self::Interface { interface, .. } => Some(format!("see `ip address show {interface}`")),
            Self::Stopped => None,
        }
    }
}

/// Refuses a peer that the policy does not allow, or to which the kernel would not go by the policy's interface and address.
/// Sends nothing.
///
/// # Errors
/// [`NetError::Refused`] says what was found and what the policy wants.
pub fn check(network: &Network, peer: SocketAddr) -> Result<Route, NetError> {
    check_peer(network, peer)?;
    let no_route = |error| NetError::NoRoute { peer, error };
    let local = local_address(peer).map_err(no_route)?;
    if let Some(source) = network.source
        && source != local
    {
        let found = format!("the kernel would leave from {local}");
        return Err(refused(peer, found, format!("source {source}")));
    }
    let interface = match (&network.interface, interface_to(peer.ip(), local)) {
        (_, Ok(found)) => Some(found),
        (Some(_), Err(error)) => return Err(no_route(error)),
        (None, Err(_)) => None,
    };
    match (&network.interface, &interface) {
        (Some(wanted), Some(found)) if wanted != found => {
            let found = format!("the kernel would leave by `{found}` from {local}");
            Err(refused(peer, found, format!("interface `{wanted}`")))
        }
        _ => Ok(Route { local, interface }),
    }
}

/// An address of a host, and the one of ours that the policy lets us leave from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub peer: SocketAddr,
    pub local: IpAddr,
}

/// Returns the addresses of a host, each of them checked: one that the policy refuses, refuses the name. Who drops it gives the
/// look-up up.
///
/// An address without a route is left out where another is left (a name often has an IPv6 address on a network that has none).
pub async fn resolve(network: &Network, host: &str, port: u16) -> Result<Vec<SocketAddr>, NetError> {
    let ways = allowed(network, &lookup(host, port).await?)?;
    Ok(ways.iter().map(|way| way.peer).collect())
}

/// Returns the ways to a host, as [`resolve`] does, to one who blocks; given up when told to stop.
///
/// # Errors
/// [`NetError::Stopped`] after a signal.
pub fn ways(network: &Network, host: &str, port: u16, cancel: &CancellationToken) -> Result<Vec<Way>, NetError> {
    allowed(network, &lookup_blocking(host, port, cancel)?)
}

fn allowed(network: &Network, peers: &[SocketAddr]) -> Result<Vec<Way>, NetError> {
    let mut ways = Vec::new();
    let mut dead = None;
    for &peer in peers {
        match check(network, peer) {
            Ok(route) => ways.push(Way { peer, local: route.local }),
            Err(error @ NetError::NoRoute { .. }) => dead = Some(error),
            Err(error) => return Err(error),
        }
    }
    match dead {
        Some(error) if ways.is_empty() => Err(error),
        _ => Ok(ways),
    }
}

/// Compares the address that a server sees us come from (`10.0.30.5`, `10.0.30.5:40112` or a name) with the policy.
///
/// # Errors
/// [`NetError::Refused`] where it is another: then something in between takes the bytes another way.
pub async fn check_seen(network: &Network, seen: &str) -> Result<(), NetError> {
    let wanted = match (network.source, &network.interface) {
        (Some(source), _) => vec![source],
        (None, Some(interface)) => addresses_of(interface)?,
        (None, None) => return Ok(()),
    };
    let found = match seen_address(seen) {
        Ok(address) => vec![address],
        Err(name) => lookup(name, 0).await?.iter().map(SocketAddr::ip).collect(),
    };
    if found.iter().any(|address| wanted.contains(address)) {
        return Ok(());
    }
    let wanted: Vec<String> = wanted.iter().map(IpAddr::to_string).collect();
    Err(NetError::Refused {
        peer: "the server".to_owned(),
        found: format!("it sees us as `{seen}`"),
        wanted: wanted.join(" or "),
    })
}

fn check_peer(network: &Network, peer: SocketAddr) -> Result<(), NetError> {
    let address = peer.ip().to_canonical();
    let is_allowed = network.peers.iter().any(|range| range.contains(&address));
    if network.peers.is_empty() || is_allowed {
        return Ok(());
    }
    let ranges: Vec<String> = network.peers.iter().map(ToString::to_string).collect();
    let found = "its address is not among the peers".to_owned();
    Err(refused(peer, found, format!("one in {}", ranges.join(", "))))
}

fn refused(peer: SocketAddr, found: String, wanted: String) -> NetError {
    NetError::Refused { peer: peer.to_string(), found, wanted }
}

/// Returns the address that the kernel would send from. Connecting a UDP socket looks the route up and sends nothing.
fn local_address(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

/// Returns the interface by which the bytes leave.
///
/// To an address of our own the kernel goes by `lo` whatever the address; then the interface that has the address counts,
/// because the bytes leave by none.
fn interface_to(peer: IpAddr, local: IpAddr) -> io::Result<String> {
    let found = netlink::interface_to(peer)?;
    if found != "lo" || local.is_loopback() {
        return Ok(found);
    }
    let owner = netlink::addresses()?.into_iter().find(|(_, address)| *address == local);
    Ok(owner.map_or(found, |(name, _)| name))
}

fn addresses_of(interface: &str) -> Result<Vec<IpAddr>, NetError> {
    let failed = |error| NetError::Interface { interface: interface.to_owned(), error };
    let all = netlink::addresses().map_err(failed)?;
    let own: Vec<IpAddr> = all.into_iter().filter(|(name, _)| name == interface).map(|(_, address)| address).collect();
    if own.is_empty() {
        return Err(failed(io::ErrorKind::AddrNotAvailable.into()));
    }
    Ok(own)
}

/// Returns the address in `10.0.30.5`, `10.0.30.5:40112`, `::1` or `[::1]:40112`; else the name without its port.
fn seen_address(seen: &str) -> Result<IpAddr, &str> {
    let seen = seen.trim();
    let whole = seen.parse().or_else(|_| seen.parse().map(|peer: SocketAddr| peer.ip()));
    if let Ok(address) = whole {
        return Ok(address.to_canonical());
    }
    // MySQL writes an IPv6 address and its port without brackets, so the part before the last colon is tried too.
    let host = seen.rsplit_once(':').map_or(seen, |(host, _)| host);
    host.parse().map_err(|_| host)
}

/// A name service that has not answered by then will not: its own clients give up after 5 s a try.
const LOOKUP_S_MAX: Duration = Duration::from_secs(15);

/// How often one who waits for the name service looks whether to stop.
const LOOKUP_POLL: Duration = Duration::from_millis(50);

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, NetError> {
    let found = tokio::time::timeout(LOOKUP_S_MAX, tokio::net::lookup_host((host, port))).await;
    let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    addresses_found(host, found.map(Iterator::collect))
}

fn lookup_blocking(host: &str, port: u16, cancel: &CancellationToken) -> Result<Vec<SocketAddr>, NetError> {
    let (tell, told) = mpsc::sync_channel(1);
    let name = host.to_owned();
    // The name service cannot be interrupted: a thread of its own waits for it, to the end if need be.
    std::thread::spawn(move || tell.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect)).ok());
    addresses_found(host, answer(&told, LOOKUP_S_MAX, cancel)?)
}

/// Waits for the answer of another thread.
fn answer<T>(
    told: &mpsc::Receiver<io::Result<T>>,
    wait_max: Duration,
    cancel: &CancellationToken,
) -> Result<io::Result<T>, NetError> {
    let deadline = Instant::now() + wait_max;
    loop {
        match told.recv_timeout(LOOKUP_POLL) {
            Ok(answer) => return Ok(answer),
            Err(_) if cancel.is_cancelled() => return Err(NetError::Stopped),
            Err(_) if Instant::now() > deadline => return Ok(Err(io::ErrorKind::TimedOut.into())),
            Err(_) => {}
        }
    }
}

fn addresses_found(host: &str, found: io::Result<Vec<SocketAddr>>) -> Result<Vec<SocketAddr>, NetError> {
    let failed = |error| NetError::Lookup { host: host.to_owned(), error };
    let mut found = found.map_err(failed)?;
    found.dedup();
    if found.is_empty() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    Ok(found)
}
