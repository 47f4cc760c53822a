//! Which key has which place in a control's table, the same on every worker.
//!
//! Shared pages hold the hashes of the keys in the order in which they were first seen; a key's place is the
//! number of its breaker, or of its limit. Places are taken by compare-and-set and never given back, so a worker reads
//! each entry once, into a map of its own: a known key costs no host call, and when all places are taken an unknown one
//! costs none either.

use std::collections::HashMap;

use crate::share::{Pages, ShareError, SharedState};

/// How often a change is tried that loses against other workers.
const MAX_TRIES: u32 = 64;

const ENTRIES: usize = 64;
const PAGE: usize = ENTRIES * 8;

/// The keys of a policy's control.
#[derive(Debug)]
pub(super) struct Directory {
    pages: Pages,
    max_keys: u32,
    known: HashMap<u64, u32>,
    /// How many places have been read, all of them taken.
    read: u32,
}

impl Directory {
    /// Opens the directory of this name.
    pub fn open(share: &dyn SharedState, name: &str, max_keys: u32) -> Result<Self, ShareError> {
        let pages = share.pages(&format!("{name}.keys"), max_keys.div_ceil(ENTRIES as u32), &[0; PAGE])?;
        Ok(Self { pages, max_keys, known: HashMap::new(), read: 0 })
    }

    /// The place of a key; the shared one, numbered `max_keys`, when all places are taken.
    pub fn slot(&mut self, share: &dyn SharedState, key_hash: u64) -> Result<u32, ShareError> {
        // Zero marks a free place. The key that hashes to it shares its place with the one that hashes to 1.
        let key_hash = key_hash.max(1);
        // Besides tries that lose against other workers, a worker that joins late has all pages to read.
        for _ in 0..MAX_TRIES.saturating_add(self.max_keys / ENTRIES as u32) {
            if let Some(&slot) = self.known.get(&key_hash) {
                return Ok(slot);
            }
            if self.read >= self.max_keys {
                return Ok(self.max_keys);
            }
            self.read_or_append(share, key_hash)?;
        }
        Err(ShareError::Conflict)
    }

    /// How many places are taken, over all workers.
    pub fn taken(&mut self, share: &dyn SharedState) -> Result<u32, ShareError> {
        let mut bytes = [0; PAGE];
        let mut before = None;
        while self.read < self.max_keys && before != Some(self.read) {
            before = Some(self.read);
            let page = self.read / ENTRIES as u32;
            share.load(self.pages, page, &mut bytes)?;
            self.learn(page, &bytes);
        }
        Ok(self.read)
    }

    /// Reads on in the page of the first unread place, and appends the key if that page ends the list without it.
    fn read_or_append(&mut self, share: &dyn SharedState, key_hash: u64) -> Result<(), ShareError> {
        let page = self.read / ENTRIES as u32;
        let mut bytes = [0; PAGE];
        let version = share.load(self.pages, page, &mut bytes)?;
        let free = self.learn(page, &bytes);
        if let Some(free) = free
            && !self.known.contains_key(&key_hash)
            && let Some(entry) = bytes.as_chunks_mut::<8>().0.get_mut(free)
        {
            *entry = key_hash.to_le_bytes();
            match share.store(self.pages, page, &bytes, version) {
                // Read again: the map is filled from what is shared only.
                Ok(()) | Err(ShareError::Conflict) => {}
                Err(unavailable) => return Err(unavailable),
            }
        }
        Ok(())
    }

    /// Takes the page's entries into the map; where its first free one is.
    fn learn(&mut self, page: u32, bytes: &[u8; PAGE]) -> Option<usize> {
        let start = page.saturating_mul(ENTRIES as u32);
        let (entries, _) = bytes.as_chunks::<8>();
        for ((at, entry), place) in entries.iter().enumerate().zip(start..self.max_keys) {
            let hash = u64::from_le_bytes(*entry);
            if hash == 0 {
                return Some(at);
            }
            self.known.insert(hash, place);
            self.read = self.read.max(place.saturating_add(1));
        }
        None
    }
}
