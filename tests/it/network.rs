//! The wrong way out is refused before a byte is sent: proved in network namespaces, which the kernel keeps apart.
//!
//! Two cables join us to the peer: `bkp-lan` and `bkp-san`. The tests run again inside our namespace, as children of
//! themselves, and the peer's interfaces count what arrives.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bkp::net::{NetError, check, check_seen, resolve};
use bkp::policy::Network;

/// Our addresses, and the peer's, on the two cables.
const LAN: (&str, &str) = ("10.77.1.1", "10.77.1.2");
const SAN: (&str, &str) = ("10.77.2.1", "10.77.2.2");
/// An address of the peer that is reached by either cable, as routes say.
pub(crate) const PEER: &str = "10.77.9.9";
/// The variable that tells a child its part.
const SIDE: &str = "BKP_TEST_SIDE";

#[test]
#[ignore = "needs root and ip netns; scripts/test runs it"]
fn the_policys_way_is_taken_and_another_is_refused_before_a_byte_is_sent() {
    let test = "the_policys_way_is_taken_and_another_is_refused_before_a_byte_is_sent";
    match side().as_deref() {
        Some("right") => return inside_the_right_way(),
        Some(_) => return inside_the_wrong_way(),
        None => {}
    }
    let world = World::up("way");
    world.route(PEER, "bkp-san", None);
    world.child(test, "right");
    let before = world.arrived();
    world.route(PEER, "bkp-lan", None);
    world.child(test, "wrong");
    assert_eq!(world.arrived(), before, "a packet reached the peer");
}

/// The real program: by the right way it knocks at the peer, by the wrong one it exits with 17 and not a packet leaves.
#[test]
#[ignore = "needs root and ip netns; scripts/test runs it"]
fn the_program_sends_nothing_to_a_server_or_a_store_by_the_wrong_way() {
    let world = World::up("prog");
    let dir = tempfile::tempdir().unwrap();
    write_policy(dir.path());
    world.route(PEER, "bkp-san", None);
    world.bkp(dir.path(), &["init", "far"], 0);
    let commands: [&[&str]; 3] = [
        &["backup", "far", "--source", "db1", "--no-copy"],
        &["snapshots", "far", "--from", "offsite"],
        &["verify", "far", "--copy", "offsite"],
    ];
    for command in commands {
        // Nobody listens there, so it goes on knocking.
        let before = world.arrived();
        let mut knocking = world.command(dir.path(), command).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while world.arrived() == before {
            assert!(Instant::now() < deadline, "{command:?}: nothing was sent by the right way");
        }
        knocking.kill().unwrap();
        knocking.wait().unwrap();
    }
    world.route(PEER, "bkp-lan", None);
    for command in commands {
        let before = world.arrived();
        world.bkp(dir.path(), command, 17);
        assert_eq!(world.arrived(), before, "{command:?}: a packet reached the peer");
    }
}

fn write_policy(dir: &Path) {
    let at = dir.display();
    let text = format!(
        r#"version = 1
name = "far"
timezone = "UTC"
objectives = {{ rpo = "25h", rto = "1h" }}
state_dir = "{at}/state"
[network]
interface = "bkp-san"
[repository]
path = "{at}/repository"
password_file = "{at}/key"
[[copy]]
name = "offsite"
s3 = {{ bucket = "b", region = "us-east-1", endpoint = "http://{PEER}:9000", path_style = true, access_key_id = "a", secret_access_key_file = "{at}/key" }}
[mysql.db1]
host = "{PEER}"
user = "x"
password_file = "{at}/key"
tls = "off"
[schedule]
backup = "15 2 * * *"
[retention]
last = 2
"#
    );
    std::fs::write(dir.join("far.toml"), text).unwrap();
    std::fs::write(dir.join("key"), "secret\n").unwrap();
    std::fs::set_permissions(dir.join("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
#[ignore = "needs root and ip netns; scripts/test runs it"]
fn the_right_source_on_the_wrong_cable_is_refused() {
    if side().is_some() {
        return inside_the_wrong_cable();
    }
    let world = World::up("src");
    // The local address is that of the backup network, and yet the bytes would leave by the other cable.
    world.route(PEER, "bkp-lan", Some(SAN.0));
    let before = world.arrived();
    world.child("the_right_source_on_the_wrong_cable_is_refused", "inside");
    assert_eq!(world.arrived(), before, "a packet reached the peer");
}

#[test]
#[ignore = "needs root and ip netns; scripts/test runs it"]
fn a_peer_without_a_route_is_no_way_and_not_a_refusal() {
    if side().is_some() {
        return inside_without_a_route();
    }
    World::up("none").child("a_peer_without_a_route_is_no_way_and_not_a_refusal", "inside");
}

/// Says which part of a test this process plays, where it runs inside our namespace.
pub(crate) fn side() -> Option<String> {
    std::env::var(SIDE).ok()
}

fn inside_the_right_way() {
    let route = check(&by_interface("bkp-san"), peer()).unwrap();
    assert_eq!(route.local, ip(SAN.0));
    assert_eq!(route.interface.as_deref(), Some("bkp-san"));
    check(&from_source(SAN.0), peer()).unwrap();
    check(&to_peers("10.77.0.0/16"), peer()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!(resolve(&by_interface("bkp-san"), PEER, 3306).await.unwrap(), [peer()]);
        check_seen(&by_interface("bkp-san"), &format!("{}:40112", SAN.0)).await.unwrap();
        assert!(check_seen(&by_interface("bkp-san"), LAN.0).await.unwrap_err().is_refused());
    });
    // An address of our own: the bytes leave by no cable, and the one that has the address counts.
    check(&by_interface("bkp-san"), SocketAddr::new(ip(SAN.0), 3306)).unwrap();
    assert!(check(&by_interface("bkp-san"), SocketAddr::new(ip(LAN.0), 3306)).unwrap_err().is_refused());
    assert!(check(&by_interface("bkp-san"), SocketAddr::new(ip("127.0.0.1"), 3306)).unwrap_err().is_refused());
}

fn inside_the_wrong_way() {
    for (network, wanted) in [
        (by_interface("bkp-san"), "interface `bkp-san`"),
        (from_source(SAN.0), "source 10.77.2.1"),
        (to_peers("10.77.2.0/24"), "one in 10.77.2.0/24"),
    ] {
        let error = reach(&network).unwrap_err();
        assert!(error.is_refused() && error.to_string().ends_with(wanted), "{error}");
    }
}

fn inside_the_wrong_cable() {
    let error = reach(&by_interface("bkp-san")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "connect to 10.77.9.9:3306: the kernel would leave by `bkp-lan` from 10.77.2.1, and the policy wants interface `bkp-san`"
    );
}

fn inside_without_a_route() {
    let error = check(&by_interface("bkp-san"), peer()).unwrap_err();
    assert!(matches!(error, NetError::NoRoute { .. }), "{error}");
    let outside = to_peers("10.77.2.0/24");
    assert!(check(&outside, peer()).unwrap_err().is_refused(), "the peer is judged before the way");
}

/// Connects as every caller does: only over a way that was checked.
fn reach(network: &Network) -> Result<(), NetError> {
    check(network, peer())?;
    let sent = TcpStream::connect_timeout(&peer(), Duration::from_millis(200));
    panic!("the way was allowed: {sent:?}");
}

fn peer() -> SocketAddr {
    SocketAddr::new(ip(PEER), 3306)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn by_interface(name: &str) -> Network {
    Network { interface: Some(name.to_owned()), ..Network::default() }
}

fn from_source(source: &str) -> Network {
    Network { source: Some(ip(source)), ..Network::default() }
}

fn to_peers(range: &str) -> Network {
    Network { peers: vec![range.parse().unwrap()], ..Network::default() }
}

/// Our namespace and the peer's, joined by two cables; gone when dropped.
pub(crate) struct World {
    pub(crate) ours: String,
    theirs: String,
}

impl World {
    pub(crate) fn up(name: &str) -> Self {
        let id = std::process::id();
        let world = Self { ours: format!("bkp-{name}-{id}-a"), theirs: format!("bkp-{name}-{id}-b") };
        for space in [&world.ours, &world.theirs] {
            ip_command(&["netns", "add", space]);
            ip_command(&["-n", space, "link", "set", "lo", "up"]);
            // The kernel would announce its link-local addresses, and the count of what arrived would be of them.
            let quiet =
                ["netns", "exec", space, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 || true"];
            ip_command(&quiet);
        }
        world.cable("bkp-lan", LAN);
        world.cable("bkp-san", SAN);
        ip_command(&["-n", &world.theirs, "address", "add", &format!("{PEER}/32"), "dev", "lo"]);
        world.counts_what_arrives();
        world
    }

    fn cable(&self, name: &str, (ours, theirs): (&str, &str)) {
        ip_command(&[
            "-n",
            &self.ours,
            "link",
            "add",
            name,
            "type",
            "veth",
            "peer",
            "name",
            name,
            "netns",
            &self.theirs,
        ]);
        for (space, address) in [(&self.ours, ours), (&self.theirs, theirs)] {
            ip_command(&["-n", space, "address", "add", &format!("{address}/24"), "dev", name]);
            ip_command(&["-n", space, "link", "set", name, "up"]);
        }
    }

    pub(crate) fn route(&self, peer: &str, cable: &str, source: Option<&str>) {
        let gateway = if cable == "bkp-lan" { LAN.1 } else { SAN.1 };
        let mut arguments = vec!["-n", &self.ours, "route", "replace", peer, "via", gateway, "dev", cable];
        arguments.extend(source.iter().flat_map(|source| ["src", source]));
        ip_command(&arguments);
    }

    /// Runs one part of a test of this file inside our namespace.
    fn child(&self, test: &str, side: &str) {
        let output = part(&self.ours, &format!("network::{test}"), side).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let is_run = told.contains("1 passed");
        assert!(output.status.success() && is_run, "{told}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts one part of a test inside the peer's namespace. It ends when its standard input does.
    pub(crate) fn peer(&self, test: &str) -> Child {
        part(&self.theirs, test, "peer").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Tells whether there is any way from our namespace to an address.
    pub(crate) fn has_way_to(&self, address: &str) -> bool {
        let asked = Command::new("ip").args(["-n", &self.ours, "route", "get", address]).output().unwrap();
        asked.status.success()
    }

    /// Returns the program, to run inside our namespace.
    fn command(&self, policies: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ours, env!("CARGO_BIN_EXE_bkp")]).args(args);
        command.arg("--policies").arg(policies).stdin(Stdio::null());
        command
    }

    pub(crate) fn bkp(&self, policies: &Path, args: &[&str], code: i32) {
        let output = self.command(policies, args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Proves that the count moves when something is sent, or it could not tell that nothing was.
    fn counts_what_arrives(&self) {
        let before = self.arrived();
        let send = format!("echo x > /dev/udp/{}/9", LAN.1);
        ip_command(&["netns", "exec", &self.ours, "bash", "-c", &send]);
        assert!(self.arrived() > before, "the count of packets does not move");
    }

    /// Returns how many packets have come to the peer's ends of the cables.
    pub(crate) fn arrived(&self) -> u64 {
        let cables = ["bkp-lan", "bkp-san"];
        let counts = cables.map(|name| {
            let path = format!("/sys/class/net/{name}/statistics/rx_packets");
            let output = Command::new("ip").args(["netns", "exec", &self.theirs, "cat", &path]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().unwrap()
        });
        counts.iter().sum()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for space in [&self.ours, &self.theirs] {
            // Deleting a namespace takes its ends of the cables along.
            drop(Command::new("ip").args(["netns", "delete", space]).status());
        }
    }
}

/// Returns this very program, to run one part of a test inside a namespace.
fn part(space: &str, test: &str, side: &str) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space, program.to_str().unwrap()]);
    command.args(["--exact", test, "--include-ignored", "--nocapture"]).env(SIDE, side);
    command
}

fn ip_command(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip is installed (Debian package iproute2)");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}
