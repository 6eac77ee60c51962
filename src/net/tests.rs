#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use insta::assert_snapshot;

use tokio_util::sync::CancellationToken;

use crate::net::{NetError, Route, answer, check, check_seen, netlink, resolve, ways};
use crate::policy::Network;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn peer() -> SocketAddr {
    SocketAddr::new(LOOPBACK, 3306)
}

fn by_interface(name: &str) -> Network {
    Network { interface: Some(name.to_owned()), ..Network::default() }
}

fn from_source(source: &str) -> Network {
    Network { source: Some(source.parse().unwrap()), ..Network::default() }
}

fn to_peers(ranges: &[&str]) -> Network {
    Network { peers: ranges.iter().map(|range| range.parse().unwrap()).collect(), ..Network::default() }
}

#[test]
fn a_policy_that_says_nothing_allows_any_way() {
    let route = check(&Network::default(), peer()).unwrap();
    let expected = Route { local: LOOPBACK, interface: Some("lo".to_owned()) };
    assert_eq!(route, expected);
}

#[test]
fn loopback_passes_where_interface_source_or_peers_name_it() {
    for network in [by_interface("lo"), from_source("127.0.0.1"), to_peers(&["10.0.0.0/8", "127.0.0.0/8"])] {
        check(&network, peer()).unwrap();
    }
}

#[test]
fn the_wrong_interface_source_or_peer_is_refused_with_what_was_found_and_wanted() {
    let faults =
        [by_interface("eth7"), from_source("10.0.30.5"), to_peers(&["10.0.30.0/24", "10.0.31.7/32"])].map(|network| {
            let error = check(&network, peer()).unwrap_err();
            assert!(error.is_refused() && error.hint().is_some());
            error.to_string()
        });
    assert_snapshot!(faults.join("\n"), @r"
    connect to 127.0.0.1:3306: the kernel would leave by `lo` from 127.0.0.1, and the policy wants interface `eth7`
    connect to 127.0.0.1:3306: the kernel would leave from 127.0.0.1, and the policy wants source 10.0.30.5
    connect to 127.0.0.1:3306: its address is not among the peers, and the policy wants one in 10.0.30.0/24, 10.0.31.7/32
    ");
}

#[tokio::test]
async fn a_name_with_one_refused_address_is_refused() {
    assert_eq!(resolve(&to_peers(&["127.0.0.0/8"]), "127.0.0.1", 3306).await.unwrap(), [peer()]);
    let error = resolve(&to_peers(&["10.0.0.0/8"]), "127.0.0.1", 3306).await.unwrap_err();
    assert!(error.is_refused());
}

#[tokio::test]
async fn a_host_that_is_none_says_so() {
    let error = resolve(&Network::default(), "no such host", 3306).await.unwrap_err();
    assert!(matches!(error, NetError::Lookup { .. }));
    assert_eq!(error.to_string(), "look up the host `no such host`");
}

#[test]
fn one_who_blocks_gets_the_same_addresses() {
    let cancel = CancellationToken::new();
    assert_eq!(ways(&Network::default(), "127.0.0.1", 3306, &cancel).unwrap()[0].peer, peer());
    let error = ways(&Network::default(), "no such host", 3306, &cancel).unwrap_err();
    assert_eq!(error.to_string(), "look up the host `no such host`");
}

#[test]
fn who_waits_for_the_name_service_hears_the_signal_and_does_not_wait_for_ever() {
    let cancel = CancellationToken::new();
    let (_silent, told) = mpsc::sync_channel::<io::Result<()>>(1);
    let late = answer(&told, Duration::ZERO, &cancel).unwrap().unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    cancel.cancel();
    assert!(matches!(answer(&told, Duration::from_hours(1), &cancel), Err(NetError::Stopped)));
}

#[tokio::test]
async fn what_the_server_sees_must_be_the_source() {
    let network = from_source("10.0.30.5");
    for seen in ["10.0.30.5", "10.0.30.5:40112", "::ffff:10.0.30.5"] {
        check_seen(&network, seen).await.unwrap();
    }
    let error = check_seen(&network, "192.168.1.5:40112").await.unwrap_err();
    assert_snapshot!(error, @"connect to the server: it sees us as `192.168.1.5:40112`, and the policy wants 10.0.30.5");
}

#[test]
fn who_waits_for_the_name_service_hears_the_signal() {
    let cancel = CancellationToken::new();
    assert_eq!(ways(&Network::default(), "127.0.0.1", 3306, &cancel).unwrap()[0].peer, peer());
    let error = ways(&Network::default(), "no such host", 3306, &cancel).unwrap_err();
    assert!(matches!(error, NetError::Lookup { .. }), "{error:?}");
}

#[tokio::test]
async fn what_the_server_sees_must_be_an_address_of_the_interface() {
    for seen in ["127.0.0.1:40112", "localhost", "localhost:40112"] {
        check_seen(&by_interface("lo"), seen).await.unwrap();
    }
    assert!(check_seen(&by_interface("lo"), "10.9.8.7:1").await.unwrap_err().is_refused());
    assert!(matches!(check_seen(&by_interface("eth7"), "10.9.8.7:1").await.unwrap_err(), NetError::Interface { .. }));
    check_seen(&Network::default(), "10.9.8.7:1").await.unwrap();
}

#[test]
fn the_kernel_tells_who_has_which_address() {
    let all = netlink::addresses().unwrap();
    assert!(all.contains(&("lo".to_owned(), LOOPBACK)), "{all:?}");
    assert_eq!(netlink::interface_to(LOOPBACK).unwrap(), "lo");
}
