//! Two questions to the kernel's routing tables: by which interface to an address, and who has which address.
//!
//! The messages are those of rtnetlink(7): a header of 16 bytes, a fixed part, then attributes padded to 4 bytes, all in the
//! machine's byte order.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with, sockopt,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const HEADER_BYTES: usize = 16;

/// The kernel answers at once; the limit only keeps a fault from hanging a run.
const ANSWER_MS_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// The kernel's dump messages stay below 32 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Returns the name of the interface by which the kernel would send to an address.
pub(super) fn interface_to(peer: IpAddr) -> io::Result<String> {
    let (family, address) = match peer {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags (u32)
    let bits = u8::try_from(address.len() * 8).unwrap_or(u8::MAX);
    let mut body = vec![family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    push_attribute(&mut body, RTA_DST, &address);
    let socket = open()?;
    let mut index = None;
    ask(&socket, RTM_GETROUTE, 0, &body, |kind, answer| {
        if kind == RTM_NEWROUTE {
            let found = attributes(answer.get(12..).unwrap_or_default()).find(|(kind, _)| *kind == RTA_OIF);
            index = found.and_then(|(_, value)| u32_at(value, 0));
        }
    })?;
    let index = index.ok_or_else(|| io::Error::other("the kernel names no interface"))?;
    Ok(netdevice::index_to_name(&socket, index)?)
}

/// Returns each address of this machine with the name of its interface.
pub(super) fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let socket = open()?;
    let mut found = Vec::new();
    // struct ifaddrmsg: family, prefix length, flags, scope, index (u32)
    ask(&socket, RTM_GETADDR, NLM_F_DUMP, &[0; 8], |kind, answer| {
        if kind == RTM_NEWADDR {
            found.extend(address_in(answer));
        }
    })?;
    let named = found.into_iter().map(|(index, address)| Ok((netdevice::index_to_name(&socket, index)?, address)));
    named.collect()
}

/// Returns interface index and address. On a point-to-point link ADDRESS is the other end, so LOCAL goes first.
fn address_in(answer: &[u8]) -> Option<(u32, IpAddr)> {
    let index = u32_at(answer, 4)?;
    let pick = |wanted| attributes(answer.get(8..)?).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| ip(value));
    Some((index, pick(IFA_LOCAL).or_else(|| pick(IFA_ADDRESS))?))
}

fn open() -> io::Result<OwnedFd> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_MS_MAX))?;
    Ok(socket)
}

/// Sends one request and hands each message of the answer to `hear`: its kind and what follows the header.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8], mut hear: impl FnMut(u16, &[u8])) -> io::Result<()> {
    send(socket, &request(kind, flags, body), SendFlags::empty())?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let (count, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        while let Some((kind, answer, next)) = split_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return refusal(answer),
                _ => hear(kind, answer),
            }
            rest = next;
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    message.extend([0; 8]); // sequence and port: one question a socket needs neither
    message.extend(body);
    message
}

/// Splits the first message off: its kind, what follows its header, and the rest.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let answer = bytes.get(HEADER_BYTES..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, answer, next))
}

fn refusal(answer: &[u8]) -> io::Result<()> {
    match u32_at(answer, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let part = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(part.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(part.try_into().ok()?))
}
