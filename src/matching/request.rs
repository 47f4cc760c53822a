//! One request as the proxy knows it.

use std::cell::Cell;

use super::HeaderMap;

/// What the proxy knows beside the headers. A read costs a host call, so it is asked for only when needed.
pub trait Facts<'a> {
    /// The property at this path (parts joined by a zero byte), or `None` when the proxy has none.
    fn property(&self, path: &[u8]) -> Option<&'a [u8]>;
}

/// A request, borrowed from the host's header map.
pub struct Request<'a> {
    headers: HeaderMap<'a>,
    facts: &'a dyn Facts<'a>,
    method: &'a [u8],
    raw_path: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    host: &'a [u8],
    scheme: &'a [u8],
    is_grpc: bool,
    route: Fact<'a>,
    cluster: Fact<'a>,
    peer: Fact<'a>,
}

/// Outer `None`: not asked for yet. Inner `None`: asked for, and absent.
type Fact<'a> = Cell<Option<Option<&'a [u8]>>>;

impl<'a> Request<'a> {
    /// Reads what most policies ask for in one pass over the headers. A repeated pseudo-header counts the first time.
    #[must_use]
    pub fn new(headers: HeaderMap<'a>, facts: &'a dyn Facts<'a>) -> Self {
        let (mut method, mut raw_path, mut scheme) = (None, None, None);
        let (mut authority, mut host, mut content_type) = (None, None, None);
        for (name, value) in headers.of_length(|length| matches!(length, 4 | 5 | 7 | 10 | 12)) {
            let place = match name {
                b":method" => &mut method,
                b":path" => &mut raw_path,
                b":scheme" => &mut scheme,
                b":authority" => &mut authority,
                b"host" => &mut host,
                b"content-type" => &mut content_type,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        let raw_path: &[u8] = raw_path.unwrap_or_default();
        let (path, query) = split_once(raw_path, b'?').unwrap_or((raw_path, b""));
        Self {
            headers,
            facts,
            method: method.unwrap_or_default(),
            raw_path,
            path,
            query,
            host: host_of(authority.or(host).unwrap_or_default()),
            scheme: scheme.unwrap_or_default(),
            is_grpc: content_type.is_some_and(is_grpc),
            route: Cell::new(None),
            cluster: Cell::new(None),
            peer: Cell::new(None),
        }
    }

    /// All headers, pseudo-headers included.
    #[must_use]
    pub fn headers(&self) -> HeaderMap<'a> {
        self.headers
    }

    /// The method as sent; empty when absent.
    #[must_use]
    pub fn method(&self) -> &'a [u8] {
        self.method
    }

    /// The path with its query; empty when absent.
    #[must_use]
    pub fn raw_path(&self) -> &'a [u8] {
        self.raw_path
    }

    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// The query without its question mark; empty when absent.
    #[must_use]
    pub fn query(&self) -> &'a [u8] {
        self.query
    }

    /// The authority as sent, without its port and without a trailing dot; empty when absent.
    #[must_use]
    pub fn host(&self) -> &'a [u8] {
        self.host
    }

    /// The scheme as sent; empty when absent.
    #[must_use]
    pub fn scheme(&self) -> &'a [u8] {
        self.scheme
    }

    /// Whether the content type is gRPC's.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// The name of the route. Costs one host call the first time, two on a host that does not know the first name.
    #[must_use]
    pub fn route(&self) -> Option<&'a [u8]> {
        self.fact(&self.route, &[b"xds\0route_name", b"route_name"])
    }

    /// The name of the upstream cluster. Costs as [`route`](Self::route) does.
    #[must_use]
    pub fn cluster(&self) -> Option<&'a [u8]> {
        self.fact(&self.cluster, &[b"xds\0cluster_name", b"cluster_name"])
    }

    /// The connection's peer, `ip:port` or `[ip]:port`. Costs one host call the first time.
    #[must_use]
    pub fn peer(&self) -> Option<&'a [u8]> {
        self.fact(&self.peer, &[b"source\0address"])
    }

    /// Any property, asked for each time.
    pub(super) fn property(&self, path: &[u8]) -> Option<&'a [u8]> {
        self.facts.property(path)
    }

    fn fact(&self, kept: &Fact<'a>, paths: &[&[u8]]) -> Option<&'a [u8]> {
        if let Some(known) = kept.get() {
            return known;
        }
        let found = paths.iter().find_map(|path| self.facts.property(path)).filter(|value| !value.is_empty());
        kept.set(Some(found));
        found
    }
}

/// Splits at the first such byte, which belongs to neither part.
pub(super) fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|b| *b == at)?;
    let (head, tail) = bytes.split_at_checked(position)?;
    Some((head, tail.get(1..)?))
}

/// Cuts off the port and the root's dot. Several colons outside brackets are no port.
fn host_of(authority: &[u8]) -> &[u8] {
    let host = if authority.first() == Some(&b'[') {
        match authority.iter().position(|b| *b == b']') {
            Some(end) => authority.get(..=end).unwrap_or(authority),
            None => authority,
        }
    } else {
        match split_once(authority, b':') {
            Some((name, port)) if port.iter().all(u8::is_ascii_digit) => name,
            _ => authority,
        }
    };
    host.strip_suffix(b".").unwrap_or(host)
}

fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    match content_type.split_at_checked(GRPC.len()) {
        Some((head, tail)) => {
            head.eq_ignore_ascii_case(GRPC) && matches!(tail.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_loses_its_port_and_its_final_dot_only() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com:", "example.com"),
            ("example.com.", "example.com"),
            ("Example.COM.:443", "Example.COM"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::1", "[::1"),
            ("::1", "::1"),
            ("a:b", "a:b"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(host_of(authority.as_bytes()), host.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn grpc_is_told_from_grpc_web_by_what_follows_the_media_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("Application/gRPC ; a=b", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(content_type.as_bytes()), expected, "{content_type}");
        }
    }
}
