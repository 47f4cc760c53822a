//! Client addresses: read from text, masked, written as text.
//!
//! An address is trusted only as far as the hops in front of the proxy are: entry n from the right of
//! `x-forwarded-for` was written by the n-th hop, everything left of the trusted ones is whatever the client sent.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Request;
use crate::config::ClientIp;

/// The client's masked address, or `None` when the hops asked for are missing or hold no address.
pub(super) fn client(request: &Request<'_>, source: ClientIp) -> Option<IpAddr> {
    let text = match source.trusted_hops {
        0 => request.peer()?,
        hops => forwarded(request, usize::from(hops))?,
    };
    Some(mask(parse(text.trim_ascii())?, source))
}

/// The n-th entry from the right (from 1), counted over all `x-forwarded-for` headers; empty entries count.
fn forwarded<'a>(request: &Request<'a>, hops: usize) -> Option<&'a [u8]> {
    let entries = || request.headers().all(b"x-forwarded-for").flat_map(|value| value.split(|b| *b == b','));
    entries().nth(entries().count().checked_sub(hops)?)
}

/// `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, the first and the last with an optional port. An IPv4 address inside
/// an IPv6 one is the IPv4 address, so that a client has one key whatever socket it arrived on.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

/// Clears the bits beyond the prefix. A prefix beyond the address' own width keeps all of it.
fn mask(address: IpAddr, source: ClientIp) -> IpAddr {
    // Shifting by the full width would overflow; no bits kept means no bits left.
    match address {
        IpAddr::V4(v4) => {
            let cut = 32_u32.saturating_sub(u32::from(source.ipv4_prefix));
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(cut).unwrap_or(0)))
        }
        IpAddr::V6(v6) => {
            let cut = 128_u32.saturating_sub(u32::from(source.ipv6_prefix));
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(cut).unwrap_or(0)))
        }
    }
}

/// Appends the address' canonical text.
pub(super) fn write(address: IpAddr, into: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(into, "{address}");
}
