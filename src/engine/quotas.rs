//! Which quota of a limit a key has. A key with an override is found by its bytes, whatever the number of overrides.

use std::collections::HashMap;

use crate::config::{Quota, RateLimit};
use crate::matching::KeyBuf;

/// The quotas of one limit, numbered as its limiter has them.
#[derive(Debug)]
pub(super) struct Quotas {
    /// The limit's own first.
    all: Vec<Quota>,
    /// The number of each key's own; `None`: unlimited. Keys are clients' to choose, so the map's hash is keyed.
    by_key: HashMap<KeyBuf, Option<usize>>,
}

impl Quotas {
    pub fn new(settings: &RateLimit) -> Self {
        let mut quotas = Self { all: vec![settings.quota], by_key: HashMap::new() };
        for one in &settings.overrides {
            let number = one.quota.map(|quota| {
                quotas.all.push(quota);
                quotas.all.len() - 1
            });
            // The first that matches wins.
            quotas.by_key.entry(KeyBuf::of(&one.key)).or_insert(number);
        }
        quotas
    }

    /// All of them, in order.
    pub fn all(&self) -> impl Iterator<Item = &Quota> {
        self.all.iter()
    }

    /// The number of a key's quota; `None`: unlimited.
    pub fn of(&self, key: &KeyBuf) -> Option<usize> {
        match self.by_key.get(key) {
            Some(number) => *number,
            None => Some(0),
        }
    }

    /// The quota of this number.
    pub fn get(&self, number: usize) -> Option<&Quota> {
        self.all.get(number)
    }
}
