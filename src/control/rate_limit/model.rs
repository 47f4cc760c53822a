//! What goes into a rate limit and what comes out of it.

use crate::control::Nanos;
use crate::share::Words;

/// A rate and how much of it may be used at once. Zeros count as ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How much per period.
    pub count: u64,
    /// The period.
    pub period: Nanos,
    /// The bucket's capacity; windows do not use it.
    pub burst: u64,
}

/// How a rate is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Continuous refill up to the burst.
    TokenBucket,
    /// Two windows, interpolated.
    SlidingWindow,
    /// One window, aligned to the period on the monotonic clock.
    FixedWindow,
}

/// What a limiter enforces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The quotas keys may have. A key has to be charged by the same one each time.
    pub quotas: Vec<Quota>,
    /// How all of them are measured.
    pub algorithm: Algorithm,
    /// How many keys the table is built for: exactly that many up to [`SLOTS`](crate::share::SLOTS), and beyond at
    /// least that many and at most about twice as many. A limit without a key has 1, and always [`KeyHash::NONE`].
    pub max_keys: u32,
}

/// A key, as 128 bits of a keyed hash of it: whoever sends keys must not be able to foresee it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash {
    pub(super) place: u64,
    pub(super) fingerprint: u64,
}

impl KeyHash {
    /// The only key of a limit that has none.
    pub const NONE: Self = Self { place: 0, fingerprint: 0 };
}

impl From<u128> for KeyHash {
    fn from(hash: u128) -> Self {
        // Two halves, each cut without loss.
        Self { place: (hash >> u64::BITS) as u64, fingerprint: hash as u64 }
    }
}

/// A budget as the client may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The most that `remaining` can be: the burst, or the window's count.
    pub capacity: u64,
    /// What could be taken now, in whole requests of cost 1.
    pub remaining: u64,
    /// How long until `remaining` is larger; none if it is at its largest.
    pub grows_in: Option<Nanos>,
    /// Whether it is the one that keys without a slot share.
    pub overflow: bool,
}

/// A charge that was made. Settle it with [`RateLimiter::refund`](super::RateLimiter::refund) if the request is
/// rejected after all.
#[derive(Debug)]
#[must_use]
pub struct Charged {
    /// The budget after it.
    pub budget: Budget,
    /// How often another worker's change came first.
    pub conflicts: u32,
    /// The time from which the request counts: when it is let through, or, where another worker had already brought a
    /// later reading of the clock than `now`, that.
    pub at: Nanos,
    /// Whose budget it was.
    pub key: KeyHash,
    /// What was taken of it.
    pub cost: u64,
    pub(super) quota: usize,
    /// Which of the limit's places it was taken from.
    pub(super) life: u64,
    /// None if shared state was unavailable: nothing was charged.
    pub(super) trace: Option<Trace>,
}

impl Charged {
    /// Whether it could not be recorded: the request is admitted, and the failure is to be counted.
    pub fn failed(&self) -> bool {
        self.trace.is_none()
    }
}

/// What a refund has to know of its charge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    /// The slot's state before the charge.
    pub before: Words,
    /// The time as of which it was decided.
    pub time: Nanos,
    /// What the page's refunds had come to.
    pub refunded: Nanos,
}

/// Why a refund or a late charge was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotMade {
    /// Shared state is unavailable.
    Unavailable,
    /// Other workers' changes came first too often.
    Contended,
    /// The key has lost its slot, as it was fresh again, and finds no other.
    NoSlot,
}

/// A charge that was not made. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Refused {
    /// How long until this cost conforms if nobody else takes any before; none if it never will, or nobody knows.
    pub wait: Option<Nanos>,
    /// The budget it exceeds.
    pub budget: Budget,
    /// How often another worker's change came first.
    pub conflicts: u32,
    /// Whether it was refused only because other workers' changes came first too often.
    pub contended: bool,
}
