//! Reading query strings, cookies and path segments in place.

use super::request::split_once;

/// Parameters of a query as encoded names and values, in order.
pub(super) fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| split_once(pair, b'=').unwrap_or((pair, b"")))
}

/// Encoded values of the parameter whose decoded name is this, in order.
pub(super) fn parameter<'q>(query: &'q [u8], name: &'q [u8]) -> impl Iterator<Item = &'q [u8]> {
    parameters(query).filter(move |(n, _)| Decoded(n).eq(name.iter().copied())).map(|(_, value)| value)
}

/// Whether decoding would change nothing.
pub(super) fn is_plain(encoded: &[u8]) -> bool {
    !encoded.iter().any(|b| matches!(b, b'%' | b'+'))
}

/// The bytes of an encoded name or value, decoded one at a time so that nothing need be stored.
pub(super) struct Decoded<'q>(pub(super) &'q [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        match first {
            b'+' => Some(b' '),
            b'%' => match rest.split_first_chunk::<2>() {
                Some((&[high, low], after)) => match (digit(high), digit(low)) {
                    (Some(high), Some(low)) => {
                        self.0 = after;
                        Some(high << 4 | low)
                    }
                    _ => Some(b'%'),
                },
                None => Some(b'%'),
            },
            other => Some(*other),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len().div_ceil(3), Some(self.0.len()))
    }
}

fn digit(hex: u8) -> Option<u8> {
    char::from(hex).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// The value of the first cookie of this name in one `cookie` header.
pub(super) fn cookie<'c>(header: &'c [u8], name: &[u8]) -> Option<&'c [u8]> {
    let value = header.split(|b| *b == b';').find_map(|pair| {
        let (n, value) = split_once(pair, b'=')?;
        (n.trim_ascii() == name).then(|| value.trim_ascii())
    })?;
    Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
}

/// Segments of a path; `None` when it does not start with a slash.
pub(super) fn segments(path: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    path.strip_prefix(b"/").map(|rest| rest.split(|b| *b == b'/'))
}
