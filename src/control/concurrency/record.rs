//! The shared page of a limit that is measured: its algorithm's state, and where the window began.

use std::cmp::Ordering;

use crate::control::Nanos;
use crate::share::{Pages, ShareError, SharedState, Version};

use super::limit::{WORDS, Words};

/// Words of the page before those of the algorithm.
const HEAD: usize = 10;
/// The length of a page.
pub(super) const BYTES: usize = (HEAD + WORDS) * 8;

/// What has been added up since the beginning: samples, their microseconds, drops, requests that found no place, those turned away,
/// clients that left.
pub(super) type Sums = [i64; 6];

/// Which page of which row, in which epoch of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub pages: Pages,
    pub index: u32,
    /// Which of the row's owners this is; 0 where it has no other.
    pub epoch: u64,
}

/// What is in it.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// In which epoch it was written.
    epoch: u64,
    /// By how much the shared number of the limit was more than the limit when this epoch began.
    pub base: i64,
    pub start: Nanos,
    /// Sums at the window's start.
    pub samples: i64,
    pub microseconds: i64,
    pub dropped: i64,
    pub full: i64,
    pub refused: i64,
    pub left: i64,
    /// Mean latency of the last window with samples; 0 if there was none.
    pub usual: Nanos,
    pub words: Words,
}

/// Pages for so many limits.
pub(super) fn pages(share: &dyn SharedState, name: &str, count: u32) -> Result<Pages, ShareError> {
    share.pages(&format!("{name}.limits"), count, &[0; BYTES])
}

/// What a number that only grows has grown by.
pub(super) fn since(now: i64, then: i64) -> u64 {
    u64::try_from(now.saturating_sub(then)).unwrap_or(0)
}

impl Page {
    /// What is in it: of an earlier epoch nothing counts, and one of a later epoch is another's by now.
    pub fn load(&self, share: &dyn SharedState) -> Result<(Record, Version), ShareError> {
        let mut bytes = [0; BYTES];
        let version = share.load(self.pages, self.index, &mut bytes)?;
        let record = Record::decode(&bytes);
        match record.epoch.cmp(&self.epoch) {
            Ordering::Equal => Ok((record, version)),
            Ordering::Less => Ok((Record { epoch: self.epoch, ..Record::default() }, version)),
            Ordering::Greater => Err(ShareError::Unavailable),
        }
    }

    pub fn store(&self, share: &dyn SharedState, record: &Record, version: Version) -> Result<(), ShareError> {
        share.store(self.pages, self.index, &record.encode(), version)
    }
}

impl Record {
    /// A window begins.
    pub fn begin(&mut self, now: Nanos, [samples, microseconds, dropped, full, refused, left]: Sums) {
        (self.start, self.samples, self.microseconds, self.dropped) = (now, samples, microseconds, dropped);
        (self.full, self.refused, self.left) = (full, refused, left);
    }

    fn decode(bytes: &[u8; BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut words = words.iter().copied().map(u64::from_le_bytes);
        let mut next = || words.next().unwrap_or(0);
        let (epoch, base, start) = (next(), next().cast_signed(), next());
        let (samples, microseconds) = (next().cast_signed(), next().cast_signed());
        let (dropped, full, refused) = (next().cast_signed(), next().cast_signed(), next().cast_signed());
        let (left, usual) = (next().cast_signed(), next());
        let words = std::array::from_fn(|_| next());
        Self { epoch, base, start, samples, microseconds, dropped, full, refused, left, usual, words }
    }

    fn encode(&self) -> [u8; BYTES] {
        let sums = [self.samples, self.microseconds, self.dropped, self.full, self.refused, self.left];
        let head = [self.epoch, self.base.cast_unsigned(), self.start];
        let words = head.into_iter().chain(sums.map(i64::cast_unsigned)).chain([self.usual]).chain(self.words);
        let mut bytes = [0; BYTES];
        let (chunks, _) = bytes.as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }
}
