//! Which key has which place in a control's table, the same on every worker.
//!
//! Shared pages hold the hashes of the keys in the order in which they were first seen; a key's place is the
//! number of its breaker, or of its limit. Places are taken by compare-and-set and never given back, so a worker reads
//! each entry once, into a map of its own: a known key costs no host call, and when all places are taken an unknown one
//! costs none either.
//!
//! Where pages are used again, each says in which epoch it was written: those of an earlier one list nobody.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::share::{Pages, ShareError, SharedState, Version};

/// How often a change is tried that loses against other workers.
const MAX_TRIES: u32 = 64;

const ENTRIES: usize = 64;
const HEADER: usize = 8;
const PAGE: usize = HEADER + ENTRIES * 8;

/// The keys of a policy's control.
#[derive(Debug)]
pub(super) struct Directory {
    pages: Pages,
    max_keys: u32,
    known: Known,
    /// How many places have been read, all of them taken.
    read: u32,
    epoch: u64,
}

/// Places by the hashes of their keys, which nobody can choose: they need no hashing again.
type Known = HashMap<u64, u32, BuildHasherDefault<Hashed>>;

#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A page, and where its first free entry is.
struct Loaded {
    bytes: [u8; PAGE],
    version: Version,
    free: Option<usize>,
}

impl Directory {
    /// What a key takes at most, in bytes, at each worker: when the map has just doubled, and is not half full.
    pub const KEY_BYTES: u64 = (size_of::<(u64, u32)>() as u64 + 1) * 16 / 7;

    /// Opens the directory of this name; 0 is the epoch where its pages are nobody else's.
    pub fn open(share: &dyn SharedState, name: &str, max_keys: u32, epoch: u64) -> Result<Self, ShareError> {
        let pages = share.pages(&format!("{name}.keys"), max_keys.div_ceil(ENTRIES as u32), &[0; PAGE])?;
        Ok(Self { pages, max_keys, known: Known::default(), read: 0, epoch })
    }

    /// Begins anew, in another epoch: no key has a place.
    pub fn move_to(&mut self, epoch: u64) {
        *self = Self { epoch, known: Known::default(), read: 0, ..*self };
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
        self.read_on(share, |_| false)?;
        Ok(self.read)
    }

    /// The place of a key, if it has one already; never the shared one.
    pub fn find(&mut self, share: &dyn SharedState, key_hash: u64) -> Result<Option<u32>, ShareError> {
        let key_hash = key_hash.max(1);
        self.read_on(share, |known| known.contains_key(&key_hash))?;
        Ok(self.known.get(&key_hash).copied())
    }

    /// Reads page after page until it is enough, or there are no more entries.
    fn read_on(&mut self, share: &dyn SharedState, enough: impl Fn(&Known) -> bool) -> Result<(), ShareError> {
        let mut before = None;
        while self.read < self.max_keys && before != Some(self.read) && !enough(&self.known) {
            before = Some(self.read);
            self.load(share)?;
        }
        Ok(())
    }

    /// Reads the page of the first unread place.
    fn load(&mut self, share: &dyn SharedState) -> Result<Loaded, ShareError> {
        let page = self.read / ENTRIES as u32;
        let mut bytes = [0; PAGE];
        let version = share.load(self.pages, page, &mut bytes)?;
        let written = bytes.first_chunk().map_or(0, |epoch| u64::from_le_bytes(*epoch));
        if written > self.epoch {
            return Err(ShareError::Unavailable);
        }
        if written < self.epoch {
            bytes = [0; PAGE];
            if let Some(epoch) = bytes.first_chunk_mut() {
                *epoch = self.epoch.to_le_bytes();
            }
        }
        let free = self.learn(page, &bytes);
        Ok(Loaded { bytes, version, free })
    }

    /// Reads on in the page of the first unread place, and appends the key if that page ends the list without it.
    fn read_or_append(&mut self, share: &dyn SharedState, key_hash: u64) -> Result<(), ShareError> {
        let page = self.read / ENTRIES as u32;
        let Loaded { mut bytes, version, free } = self.load(share)?;
        if let Some(free) = free
            && !self.known.contains_key(&key_hash)
            && let Some(entry) = entries_mut(&mut bytes).get_mut(free)
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
        let entries = bytes.split_at(HEADER).1.as_chunks::<8>().0;
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

fn entries_mut(bytes: &mut [u8; PAGE]) -> &mut [[u8; 8]] {
    bytes.split_at_mut(HEADER).1.as_chunks_mut::<8>().0
}
