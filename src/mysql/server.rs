//! A database server: where it is, who we are to it, and how to connect.
//!
//! Both ways to connect ask [`crate::net`] first: a peer that the policy does not allow never sees a byte.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mysql_async::{Conn, OptsBuilder, SslOpts};
use socket2::{Domain, Protocol, SockAddr, TcpKeepalive, Type};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::mysql::tls::{TlsError, authorities, client_config};
use crate::mysql::wire::{Credentials, Socket, Wire, WireError};
use crate::net::{self, NetError, Way};
use crate::policy::{MysqlAddress, MysqlSource, Network, Tls, TlsMode};
use crate::secret::{Secret, SecretError, SecretSource};

/// A server on a backup network answers in milliseconds; past this, it does not answer.
const CONNECT_SECONDS_MAX: u64 = 15;

/// A connection that a router or a crash has cut without a word is noticed within minutes.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Nine unanswered questions at this distance end it. (`mysql_async` knows no such setting: there the kernel's 75 s hold.)
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The largest packet that the protocol knows: one row or one statement.
const PACKET_BYTES_MAX: usize = 1 << 30;

#[derive(Debug, Clone)]
pub struct Server {
    pub address: MysqlAddress,
    pub user: String,
    /// `None`: an account without a password (socket authentication).
    pub password: Option<Secret>,
    pub tls: Tls,
    pub network: Network,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("reach the database server {server} by the backup network")]
    Network {
        server: String,
        #[source]
        error: NetError,
    },
    #[error("look up the database server's host `{host}`")]
    Lookup {
        host: String,
        #[source]
        error: io::Error,
    },
    #[error("connect to the database server {server}")]
    Connect {
        server: String,
        #[source]
        error: Box<mysql_async::Error>,
    },
    #[error("connect to the database server {server}: no answer within {CONNECT_SECONDS_MAX} s")]
    NoAnswer { server: String },
    #[error("connect to the database server {server}")]
    Dial {
        server: String,
        #[source]
        error: io::Error,
    },
    #[error("log in to the database server {server}")]
    Login {
        server: String,
        #[source]
        error: WireError,
    },
    #[error("connect to the database server {server} with TLS")]
    Tls {
        server: String,
        #[source]
        error: TlsError,
    },
    #[error("connect to the database server {server}: the task that looked it up broke off")]
    BrokeOff { server: String },
}

impl ServerError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Network { error, .. } => error.hint(),
            Self::Lookup { host, .. } => {
                Some(format!("check that `{host}` resolves on this machine (getent hosts {host})"))
            }
            Self::Connect { error, .. } => connect_hint(error),
            Self::Login { error, .. } => error.hint(),
            Self::NoAnswer { .. } | Self::Dial { .. } => {
                Some("check that the server runs and that no firewall stands between".to_owned())
            }
            Self::Tls { .. } => Some("check `tls_ca_file` in the policy, or `--to-mysql-ca`".to_owned()),
            Self::BrokeOff { .. } => None,
        }
    }

    /// Tells whether the policy's network rules forbid the way.
    #[must_use]
    pub fn is_network_refused(&self) -> bool {
        matches!(self, Self::Network { error, .. } if error.is_refused())
    }

    /// Tells whether the server knows us but not this user with this password.
    #[must_use]
    pub fn is_access_denied(&self) -> bool {
        match self {
            Self::Connect { error, .. } => {
                matches!(&**error, mysql_async::Error::Server(error) if is_denied(error.code))
            }
            Self::Login { error, .. } => error.code().is_some_and(is_denied),
            _ => false,
        }
    }
}

/// 1044, 1045 and 1698: access denied to the database, with the password, without one.
fn is_denied(code: u16) -> bool {
    matches!(code, 1044 | 1045 | 1698)
}

fn connect_hint(error: &mysql_async::Error) -> Option<String> {
    match error {
        mysql_async::Error::Server(error) if is_denied(error.code) => {
            Some("check user and password in the policy, and from which hosts the account may connect".to_owned())
        }
        mysql_async::Error::Io(_) => Some("check that the server runs and listens at this address".to_owned()),
        _ => None,
    }
}

impl Server {
    /// Names the server of a policy's source; its password is read now.
    ///
    /// # Errors
    /// [`SecretError`] where the password cannot be read.
    pub fn of(source: &MysqlSource, network: &Network) -> Result<Self, SecretError> {
        let password = source.password.as_ref().map(SecretSource::read).transpose()?;
        Ok(Self {
            address: source.address.clone(),
            user: source.user.clone(),
            password,
            tls: source.tls.clone(),
            network: network.clone(),
        })
    }

    /// Names the server for people: `10.0.30.10:3306` or the socket's path.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.address {
            MysqlAddress::Socket(path) => path.display().to_string(),
            MysqlAddress::Tcp { host, port } => format!("{host}:{port}"),
        }
    }

    /// Connects for control, metadata or loading, once the way there is found to be allowed.
    pub async fn connect(&self) -> Result<Conn, ServerError> {
        if self.needs_gate().await? {
            self.pass_gate().await?;
        }
        let options = self.options().await?;
        match timeout(Duration::from_secs(CONNECT_SECONDS_MAX), Conn::new(options)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(ServerError::Connect { server: self.name(), error: Box::new(error) }),
            Err(_elapsed) => Err(ServerError::NoAnswer { server: self.name() }),
        }
    }

    /// Tells whether `mysql_async` could be talked into handing the password over: by TCP without TLS to another machine.
    /// It takes the key of `caching_sha2_password` from whoever answers.
    async fn needs_gate(&self) -> Result<bool, ServerError> {
        if self.tls.mode != TlsMode::Off || self.password.is_none() {
            return Ok(false);
        }
        Ok(self.checked_addresses().await?.iter().any(|address| !address.is_loopback()))
    }

    /// Logs in by our own client first, which refuses to send the password in such a case; where it gets in without, the
    /// server knows the account and will not ask for more.
    async fn pass_gate(&self) -> Result<(), ServerError> {
        let server = self.clone();
        let given_up = CancellationToken::new();
        let cancel = given_up.clone();
        // Whoever drops this waits no longer: then neither does the thread.
        let _stops_it = given_up.drop_guard();
        let gate = tokio::task::spawn_blocking(move || server.open_wire(&cancel));
        let broke_off = |_| ServerError::BrokeOff { server: self.name() };
        gate.await.map_err(broke_off)?.map(drop)
    }

    /// Opens a connection that reads rows. Blocks.
    pub fn open_wire(&self, cancel: &CancellationToken) -> Result<Wire, ServerError> {
        match &self.address {
            MysqlAddress::Socket(path) => {
                let socket = UnixStream::connect(path).map_err(|error| self.dial_error(error))?;
                self.log_in(Socket::Unix(socket), false, cancel)
            }
            MysqlAddress::Tcp { host, port } => {
                let ways = net::ways(&self.network, host, *port, cancel).map_err(|error| self.net_error(error))?;
                let (socket, way) = self.dial_first(&ways)?;
                self.log_in(socket, way.peer.ip().is_loopback(), cancel)
            }
        }
    }

    fn dial_first(&self, ways: &[Way]) -> Result<(Socket, Way), ServerError> {
        let mut last = ServerError::NoAnswer { server: self.name() };
        for way in ways {
            match self.dial(*way) {
                Ok(socket) => return Ok((socket, *way)),
                Err(error) => last = self.dial_error(error),
            }
        }
        Err(last)
    }

    fn dial(&self, way: Way) -> io::Result<Socket> {
        let socket = socket2::Socket::new(Domain::for_address(way.peer), Type::STREAM, Some(Protocol::TCP))?;
        if self.network.source.is_some() || self.network.interface.is_some() {
            socket.bind(&SockAddr::from(SocketAddr::new(way.local, 0)))?;
        }
        socket.connect_timeout(&SockAddr::from(way.peer), Duration::from_secs(CONNECT_SECONDS_MAX))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))?;
        Ok(Socket::Tcp(socket.into()))
    }

    fn dial_error(&self, error: io::Error) -> ServerError {
        ServerError::Dial { server: self.name(), error }
    }

    fn log_in(&self, socket: Socket, is_loopback: bool, cancel: &CancellationToken) -> Result<Wire, ServerError> {
        let tls = match &self.address {
            MysqlAddress::Tcp { host, .. } if self.tls.mode == TlsMode::Verify => {
                let config = client_config(&self.tls).map_err(|error| self.tls_error(error))?;
                Some((config, host.as_str()))
            }
            _ => None,
        };
        let credentials = Credentials {
            user: &self.user,
            password: self.password.as_ref().map_or("", Secret::reveal),
            tls,
            is_socket: matches!(self.address, MysqlAddress::Socket(_)),
            is_loopback,
        };
        Wire::login(socket, &credentials, cancel.clone())
            .map_err(|error| ServerError::Login { server: self.name(), error })
    }

    async fn options(&self) -> Result<OptsBuilder, ServerError> {
        let options = OptsBuilder::default()
            .user(Some(&self.user))
            .pass(self.password.as_ref().map(Secret::reveal))
            .prefer_socket(false)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEPALIVE))
            .max_allowed_packet(Some(PACKET_BYTES_MAX))
            .wait_timeout(Some(28_800));
        match &self.address {
            MysqlAddress::Socket(path) => Ok(options.socket(Some(path.display().to_string()))),
            MysqlAddress::Tcp { host, port } => {
                let addresses: Vec<IpAddr> = self.checked_addresses().await?;
                Ok(options
                    .ip_or_hostname(host)
                    .tcp_port(*port)
                    .resolved_ips(Some(addresses))
                    .ssl_opts(self.ssl_options()?))
            }
        }
    }

    async fn checked_addresses(&self) -> Result<Vec<IpAddr>, ServerError> {
        let MysqlAddress::Tcp { host, port } = &self.address else {
            return Ok(Vec::new());
        };
        let peers = net::resolve(&self.network, host, *port).await.map_err(|error| self.net_error(error))?;
        Ok(peers.iter().map(SocketAddr::ip).collect())
    }

    fn ssl_options(&self) -> Result<Option<SslOpts>, ServerError> {
        if self.tls.mode == TlsMode::Off {
            return Ok(None);
        }
        // mysql_async asks for the process's default; a second call finds it there.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let roots = authorities(&self.tls).map_err(|error| self.tls_error(error))?;
        let roots = roots.iter().map(|certificate| certificate.to_vec().into());
        Ok(Some(SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots.collect())))
    }

    fn tls_error(&self, error: TlsError) -> ServerError {
        ServerError::Tls { server: self.name(), error }
    }

    fn net_error(&self, error: NetError) -> ServerError {
        match error {
            NetError::Lookup { host, error } => ServerError::Lookup { host, error },
            error => ServerError::Network { server: self.name(), error },
        }
    }
}
