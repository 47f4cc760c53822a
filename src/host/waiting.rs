//! Streams that are held, in the order in which their times come.
//!
//! This list is the authority on who waits: a stream is on it from the moment it is paused until it is asked about again or
//! ends, whichever comes first. Only who was on it is ever resumed, and nobody twice.
//!
//! The host's timer is set for the first of them. It counts in whole milliseconds, so a stream goes on up to one
//! millisecond after its time, or as much later as the worker is busy; never before.

use std::collections::BTreeSet;

use crate::control::Nanos;

/// How many streams of a worker can wait. Each keeps its connection and buffers in the proxy, so there has to be an end.
pub const MOST: usize = 8192;

/// How many streams go on in one callback. Where the proxy answers a stream itself as it goes on, it does so within the
/// resumption of the one before: without a bound that many calls would nest.
pub const AT_ONCE: usize = 16;

const MILLISECOND: Nanos = 1_000_000;

/// The streams of a worker that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    // Contexts are numbered in the order in which they begin: so go those of the same time.
    due: BTreeSet<(Nanos, u32)>,
}

impl Waiting {
    /// Whether another stream may wait.
    pub fn has_room(&self) -> bool {
        self.due.len() < MOST
    }

    /// A stream waits from now on.
    pub fn add(&mut self, until: Nanos, stream: u32) {
        self.due.insert((until, stream));
    }

    /// A stream waits no longer.
    pub fn remove(&mut self, until: Nanos, stream: u32) {
        self.due.remove(&(until, stream));
    }

    /// Takes the first stream whose time has come.
    pub fn take_due(&mut self, now: Nanos) -> Option<u32> {
        let &(until, stream) = self.due.first()?;
        if until > now {
            return None;
        }
        self.due.pop_first();
        Some(stream)
    }

    /// In how many milliseconds the next time comes, at least 1 and at most `most`.
    pub fn next_in_ms(&self, now: Nanos, most: u32) -> u32 {
        let Some((until, _)) = self.due.first() else { return most };
        let wait = until.saturating_sub(now).div_ceil(MILLISECOND);
        u32::try_from(wait).unwrap_or(most).clamp(1, most)
    }
}
