//! Which key has which breaker, the same on every worker.
//!
//! Shared pages hold the hashes of the keys in the order in which they were first seen; a key's place is its breaker.
//! Places are taken by compare-and-set and never given back, so a worker reads each entry once, into a map of its
//! own: a known key costs no host call, and when all places are taken an unknown one costs none either.

use std::collections::HashMap;

use super::breaker::MAX_TRIES;
use super::state::SlotId;
use crate::share::{Pages, ShareError, SharedState};

const ENTRIES: usize = 64;
const PAGE: usize = ENTRIES * 8;

/// The keys of a policy's breakers.
#[derive(Debug)]
pub(super) struct Directory {
    pages: Pages,
    max_keys: u32,
    known: HashMap<u64, SlotId>,
    /// How many places have been read, all of them taken.
    read: u32,
}

impl Directory {
    /// Opens the directory of this name.
    pub fn open(share: &dyn SharedState, name: &str, max_keys: u32) -> Result<Self, ShareError> {
        let pages = share.pages(&format!("{name}.keys"), max_keys.div_ceil(ENTRIES as u32), &[0; PAGE])?;
        Ok(Self { pages, max_keys, known: HashMap::new(), read: 0 })
    }

    /// The breaker of a key; the shared one, numbered `max_keys`, when all places are taken.
    pub fn slot(&mut self, share: &dyn SharedState, key_hash: u64) -> Result<SlotId, ShareError> {
        // Zero marks a free place. The key that hashes to it shares a breaker with the one that hashes to 1.
        let key_hash = key_hash.max(1);
        // Besides tries that lose against other workers, a worker that joins late has all pages to read.
        for _ in 0..MAX_TRIES.saturating_add(self.max_keys / ENTRIES as u32) {
            if let Some(&slot) = self.known.get(&key_hash) {
                return Ok(slot);
            }
            if self.read >= self.max_keys {
                return Ok(SlotId(self.max_keys));
            }
            self.read_or_append(share, key_hash)?;
        }
        Err(ShareError::Conflict)
    }

    /// Reads on in the page of the first unread place, and appends the key if that page ends the list without it.
    fn read_or_append(&mut self, share: &dyn SharedState, key_hash: u64) -> Result<(), ShareError> {
        let page = self.read / ENTRIES as u32;
        let mut bytes = [0; PAGE];
        let version = share.load(self.pages, page, &mut bytes)?;
        let (entries, _) = bytes.as_chunks_mut::<8>();
        let start = page.saturating_mul(ENTRIES as u32);
        let mut appended = false;
        for (place, entry) in (start..self.max_keys).zip(entries) {
            let hash = u64::from_le_bytes(*entry);
            if hash != 0 {
                self.known.insert(hash, SlotId(place));
                self.read = self.read.max(place.saturating_add(1));
            } else {
                appended = !self.known.contains_key(&key_hash);
                *entry = key_hash.to_le_bytes();
                break;
            }
        }
        if appended {
            match share.store(self.pages, page, &bytes, version) {
                // Read again: the map is filled from what is shared only.
                Ok(()) | Err(ShareError::Conflict) => {}
                Err(unavailable) => return Err(unavailable),
            }
        }
        Ok(())
    }
}
