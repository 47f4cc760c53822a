//! Requests as a host would hand them over.
#![allow(clippy::unwrap_used, reason = "a failing benchmark or test may panic")]
#![allow(dead_code, reason = "not every test or benchmark uses all of it")]

use std::cell::Cell;

use tidegate::matching::Facts;

/// Serializes headers as the proxy does.
pub fn encode<T: AsRef<[u8]>>(headers: &[(T, T)]) -> Vec<u8> {
    let length = |s: &T| u32::try_from(s.as_ref().len()).unwrap().to_le_bytes();
    let mut raw = u32::try_from(headers.len()).unwrap().to_le_bytes().to_vec();
    for (name, value) in headers {
        raw.extend(length(name));
        raw.extend(length(value));
    }
    for string in headers.iter().flat_map(|(name, value)| [name, value]) {
        raw.extend(string.as_ref());
        raw.push(0);
    }
    raw
}

/// A proxy that knows these properties and counts how often it is asked.
pub struct Proxy<'a> {
    properties: &'a [(&'a str, &'a str)],
    pub asked: Cell<usize>,
}

impl<'a> Proxy<'a> {
    pub fn new(properties: &'a [(&'a str, &'a str)]) -> Self {
        Self { properties, asked: Cell::new(0) }
    }
}

impl<'a> Facts<'a> for Proxy<'a> {
    fn property(&self, path: &[u8]) -> Option<&'a [u8]> {
        self.asked.set(self.asked.get() + 1);
        self.properties.iter().find(|(p, _)| p.as_bytes() == path).map(|(_, value)| value.as_bytes())
    }
}
