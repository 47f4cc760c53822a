//! Streams that are held: those that wait for their time, in the order in which it comes, and those that wait for their turn
//! in a queue.
//!
//! What the stream itself says, in the host, is the authority on who waits: it is set from the moment a stream is
//! paused until it is asked about again or ends, whichever comes first. Only who waits is ever resumed, and nobody twice.
//!
//! A process that stands still, stopped or with its machine, lets times pass that nobody could use. That is seen by who is due when
//! it runs again: where nobody was left behind when the timer last went off, the first of them is late by as long as nothing
//! ran. Those whose time passed meanwhile are to be given a new one. A worker that is merely busy, and even one that lets fewer
//! go on than are due, is late by less than [`STOOD`] from one turn to the next, and theirs stand.
//!
//! The host's timer is set for the first of those whose time comes. It counts in whole milliseconds, so a stream goes on up
//! to one millisecond after its time, or as much later as the worker is busy; never before. While anybody waits in a
//! queue it goes off every millisecond: a place that another worker gave back is seen by nothing else.

use std::collections::BTreeSet;

use crate::control::Nanos;

/// How many streams of a worker can wait. Each keeps its connection and buffers in the proxy, so there has to be an end.
pub const MOST: usize = 8192;

/// For what a stream is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Until this time.
    Until(Nanos),
    /// In a queue.
    Queued,
}

/// How many streams go on before the timer goes off again, with nothing on the stack. Where the proxy answers a stream
/// itself as it goes on, it does so within the resumption of the one before, and the end of that stream may let the next one
/// go on within its own: so many calls nest. Not even a new request is a sign that they have ended: where a second Tidegate
/// follows in the same VM, a stream that goes on is its new request. Envoy 1.40 was seen to bear 273 on the stack it gives a VM,
/// with no filter but this one. A worker's timer goes off some 250 times a second.
const AT_ONCE: usize = 64;

const MILLISECOND: Nanos = 1_000_000;

/// A worker on which nothing has run for longer than this stood still.
pub const STOOD: Nanos = 500 * MILLISECOND;

/// The streams of a worker that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    // Contexts are numbered in the order in which they begin: so go those of the same time.
    due: BTreeSet<(Nanos, u32)>,
    queued: usize,
    /// How many have gone on since the timer last went off.
    gone_on: usize,
    /// When those who were due last went on, if not all of them could.
    behind: Option<Nanos>,
    /// When the worker ran again after it had last stood still.
    ran_again: Nanos,
}

impl Waiting {
    /// Whether another stream may wait.
    pub fn has_room(&self) -> bool {
        self.due.len().saturating_add(self.queued) < MOST
    }

    /// Those who are due are about to go on.
    pub fn turn_begins(&mut self, now: Nanos) {
        let since = self.behind.or_else(|| self.due.first().map(|(until, _)| *until));
        if since.is_some_and(|since| now.saturating_sub(since) > STOOD) {
            self.ran_again = now;
        }
    }

    /// As many have gone on as could.
    pub fn turn_ends(&mut self, now: Nanos) {
        self.behind = self.due(now).map(|_| now);
    }

    /// Whether the worker stood still when the time of this one came.
    pub fn has_missed(&self, held: Held) -> bool {
        matches!(held, Held::Until(until) if until < self.ran_again)
    }

    /// Whether another stream may go on in the callbacks that run now.
    pub fn may_go_on(&self) -> bool {
        self.gone_on < AT_ONCE
    }

    /// A stream goes on.
    pub fn goes_on(&mut self) {
        self.gone_on = self.gone_on.saturating_add(1);
    }

    /// It did not: it is held again.
    pub fn stays(&mut self) {
        self.gone_on = self.gone_on.saturating_sub(1);
    }

    /// The timer has gone off: no stream that went on is on the stack any more.
    pub fn unwound(&mut self) {
        self.gone_on = 0;
    }

    /// Whether any stream waits in a queue.
    pub fn any_queued(&self) -> bool {
        self.queued > 0
    }

    /// A stream waits from now on.
    pub fn add(&mut self, held: Held, stream: u32) {
        match held {
            Held::Until(until) => {
                self.due.insert((until, stream));
            }
            Held::Queued => self.queued = self.queued.saturating_add(1),
        }
    }

    /// A stream waits no longer.
    pub fn remove(&mut self, held: Held, stream: u32) {
        match held {
            Held::Until(until) => {
                self.due.remove(&(until, stream));
            }
            Held::Queued => self.queued = self.queued.saturating_sub(1),
        }
    }

    /// The first stream whose time has come.
    pub fn due(&self, now: Nanos) -> Option<u32> {
        self.due.first().filter(|(until, _)| *until <= now).map(|(_, stream)| *stream)
    }

    /// In how many milliseconds the next time comes, at least 1 and at most `most`.
    pub fn next_in_ms(&self, now: Nanos, most: u32) -> u32 {
        if self.any_queued() {
            return 1;
        }
        let Some((until, _)) = self.due.first() else { return most };
        let wait = until.saturating_sub(now).div_ceil(MILLISECOND);
        u32::try_from(wait).unwrap_or(most).clamp(1, most)
    }
}
