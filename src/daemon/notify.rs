//! Tells systemd that the daemon is ready, alive and stopping (`sd_notify(3)`): datagrams to a socket that it names.

use std::convert::Infallible;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Whom to tell, and how often.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How long we may be silent before we are taken for dead.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads who started us; where nobody wants to be told, nothing is.
    pub(crate) fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let micros = variable("WATCHDOG_USEC").and_then(|micros| micros.parse().ok()).map(Duration::from_micros);
        let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        Self::new(variable("NOTIFY_SOCKET").as_deref(), micros.filter(|_| is_ours))
    }

    fn new(place: Option<&str>, watchdog: Option<Duration>) -> Self {
        let address = place.and_then(|place| match place.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(place).ok(),
        });
        Self { socket: address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address))), watchdog }
    }

    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says that we live, twice in each time that we may be silent for. Never ends.
    pub(crate) async fn watch(&self) -> Infallible {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        loop {
            self.tell("WATCHDOG=1");
            tokio::time::sleep(watchdog / 2).await;
        }
    }

    fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // A service manager that does not listen is no reason to stop.
            let _unheard = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_manager_hears_that_we_are_ready_alive_and_stopping() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let notifier = Notifier::new(path.to_str(), Some(Duration::from_secs(30)));
        notifier.ready();
        let watched = tokio::time::timeout(Duration::from_secs(40), notifier.watch());
        assert!(watched.await.is_err(), "it goes on for ever");
        notifier.stopping();
        let told: Vec<_> = (0..5).map(|_| heard(&socket)).collect();
        assert_eq!(told, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
        Notifier::new(None, None).ready();
    }
}
