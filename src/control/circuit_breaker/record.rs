//! What is agreed about one breaker, and the moves that there are.
//!
//! | from | to | when |
//! |---|---|---|
//! | [`Closed`] | [`Open`] | `Closed::trip`: a threshold is reached |
//! | [`Open`] | [`HalfOpen`] | `Open::probe`: a request comes after the open time |
//! | [`HalfOpen`] | [`Closed`] | `HalfOpen::close`: every probe was good, to its end or for as long as a probe may take |
//! | [`HalfOpen`] | [`Open`] | `HalfOpen::reopen`: a probe failed, too many were slow, or the upstream was silent for as long as a probe may take |
//!
//! # What the types guarantee
//!
//! The fields of a [`Record`] are private to this file and to its page. Outside, a record changes its state by
//! [`Record::leave`] alone, which wants to be told which state is left and which entered: a pair for which there is no
//! [`After`], Closed to HalfOpen say, or Open to Closed, does not compile. It is given the state that the record is in, so what was
//! made of another record's state, or of an earlier one, does not get in either. Within a state [`Record::inside`] changes what
//! that state knows, and cannot change which it is. A whole record is made by [`Record::new`], for a breaker that nobody has used,
//! and by the page's reader, which believes what a worker wrote.
//!
//! What types do not say is when a move is made: `tests/circuit_breaker/interleaving.rs` looks for one that comes at a wrong time.

pub(super) mod page;

use super::settings::{Settings, Window};
use super::state::{Counts, Probe, State, TripReason};
use super::window::{CountWindow, TimeWindow};
use crate::control::Nanos;

/// What is agreed about one breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Grows by one at each change of state.
    generation: u64,
    phase: Phase,
}

/// A state with what it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Closed(Box<Closed>),
    Open(Open),
    HalfOpen(HalfOpen),
}

/// Requests pass and are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    /// When the breaker closed; `None` when it has never been open.
    pub since: Option<Nanos>,
    /// Until when failures of this generation asked to be left alone.
    pub asked_until: Nanos,
    /// Failures in a row.
    pub run: u32,
    /// The total of successes at the run's last failure (time windows only): another total means that the run is over.
    pub run_ok: u64,
    pub calls: Calls,
}

/// The window, by its type.
#[allow(
    clippy::large_enum_variant,
    reason = "one per breaker; boxing the larger would allocate at each turn of the window"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Calls {
    Time(TimeWindow),
    Count(CountWindow),
}

/// Requests are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub until: Nanos,
    /// Failed probe rounds since the breaker was last closed.
    pub round: u32,
    pub reason: TripReason,
    /// What was judged.
    pub counts: Counts,
}

/// Probes are out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HalfOpen {
    pub round: u32,
    pub reason: TripReason,
    /// Probes answered, none of them with a failure.
    pub good: u32,
    /// Those of them that were slow.
    pub slow: u32,
    /// For how long probes were out that were cancelled without an answer, since the upstream was last heard of.
    pub silence: Nanos,
    /// The probes that are not answered to their end.
    pub out: Vec<Probe>,
}

// === impl Record ===

impl Record {
    /// A breaker nobody has used.
    pub fn new(settings: &Settings) -> Self {
        Self { generation: 0, phase: Closed::new(settings, None).into() }
    }

    /// Which change of state was the last; 0 before the first.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Closed(_) => State::Closed,
            Phase::Open(_) => State::Open,
            Phase::HalfOpen(_) => State::HalfOpen,
        }
    }

    /// What the state `S` knows, if the record is in it.
    pub fn inside<S: Variant>(&mut self) -> Option<&mut S> {
        S::inside(&mut self.phase)
    }

    /// Leaves the state `F`, if the record is in it, for what `make` makes of it: the one way from a state to another.
    pub fn leave<F: Variant, T: After<F>>(&mut self, make: impl FnOnce(&F) -> T) {
        let Some(left) = F::inside(&mut self.phase) else { return };
        self.phase = make(left).into();
        // Wrapping: at a change each nanosecond the same number would come round after five centuries.
        self.generation = self.generation.wrapping_add(1);
    }
}

// === impl Phase ===

/// One of the states that a record may be in.
pub(super) trait Variant: Into<Phase> {
    /// What the state knows, if the record is in it.
    fn inside(phase: &mut Phase) -> Option<&mut Self>;
}

/// A state that may follow on `F`.
pub(super) trait After<F: Variant>: Variant {}

impl After<Closed> for Open {}
impl After<Open> for HalfOpen {}
impl After<HalfOpen> for Closed {}
impl After<HalfOpen> for Open {}

impl Variant for Closed {
    fn inside(phase: &mut Phase) -> Option<&mut Self> {
        if let Phase::Closed(closed) = phase { Some(closed) } else { None }
    }
}

impl From<Closed> for Phase {
    fn from(closed: Closed) -> Self {
        Self::Closed(Box::new(closed))
    }
}

impl Variant for Open {
    fn inside(phase: &mut Phase) -> Option<&mut Self> {
        if let Phase::Open(open) = phase { Some(open) } else { None }
    }
}

impl From<Open> for Phase {
    fn from(open: Open) -> Self {
        Self::Open(open)
    }
}

impl Variant for HalfOpen {
    fn inside(phase: &mut Phase) -> Option<&mut Self> {
        if let Phase::HalfOpen(half) = phase { Some(half) } else { None }
    }
}

impl From<HalfOpen> for Phase {
    fn from(half: HalfOpen) -> Self {
        Self::HalfOpen(half)
    }
}

// === impl Closed ===

impl Closed {
    /// Nothing has been called. `since`: when the breaker closed.
    pub fn new(settings: &Settings, since: Option<Nanos>) -> Self {
        let calls = match settings.window {
            Window::Time(_) => Calls::Time(TimeWindow::default()),
            Window::Count(length) => Calls::Count(CountWindow::new(length)),
        };
        Self { since, asked_until: 0, run: 0, run_ok: 0, calls }
    }
}

#[cfg(test)]
mod tests;
