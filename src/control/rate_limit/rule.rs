//! What an algorithm is to the limiter: pure functions over the words of one slot.

use std::fmt::Debug;

use crate::control::Nanos;
use crate::share::Words;

/// An algorithm with the numbers of one quota. All of them keep in a slot's first word the time from which on the state
/// equals a fresh one, rounded up to a nanosecond, and treat words of zeros as fresh.
pub(super) trait Rule: Debug + Send {
    /// The most that can be taken at once.
    fn capacity(&self) -> u64;

    /// What could be taken now.
    fn remaining(&self, words: &Words, now: Nanos) -> u64;

    /// How long until `cost` conforms if nobody takes anything before: zero if it does now, none if it never will.
    fn wait(&self, words: &Words, cost: u64, now: Nanos) -> Option<Nanos>;

    /// Takes `cost` for a request that is let through at `admit_at`, whether it conforms or not.
    fn take(&self, words: &mut Words, cost: u64, now: Nanos, admit_at: Nanos) -> Mark;

    /// Whether a charge for the time `at` is no longer one for `now`, which is later: a request that goes through now would
    /// stand beside those of other times.
    fn has_passed(&self, cost: u64, at: Nanos, now: Nanos) -> bool;

    /// Gives back what a request took: exactly, or less where it cannot be told that giving all of it would not add to
    /// the budget. Returns by how many nanoseconds (rounded up) the state went back, zero if nothing changed.
    fn give_back(&self, words: &mut Words, cost: u64, mark: Mark, since: Since) -> Nanos;
}

/// [`Rule::has_passed`] where each charge is one for a window of time.
pub(super) fn window_has_passed(period: Nanos, at: Nanos, now: Nanos) -> bool {
    at / period < now / period
}

/// Where in the algorithm's time a charge lies: the token bucket's tick, or the number of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(pub u128);

/// What happened to a page between a charge and its refund.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    /// The time of the refund.
    pub now: Nanos,
    /// The latest time at which the page let anything through, at least `now`.
    pub latest: Nanos,
    /// How many nanoseconds all other refunds to the page went back together.
    pub refunded: Nanos,
}
