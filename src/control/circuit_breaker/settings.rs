//! What a policy sets about its breakers, within bounds that the algorithm relies on.

use crate::control::Nanos;

/// The most breakers of a policy: each has a page of a few hundred bytes from the start.
pub const MAX_KEYS: u32 = 65_536;

/// The longest count window: two bits a call, in a page that every call rewrites.
pub const MAX_COUNT_WINDOW: u32 = 10_000;

/// The most probes of a round: nine bytes each, in the breaker's page.
pub const MAX_PROBES: u32 = 256;

/// Over which calls the rates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// Those that ended within this time, in ten buckets.
    Time(Nanos),
    /// The last so many, at most [`MAX_COUNT_WINDOW`].
    Count(u32),
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// The breaker.
    #[default]
    Auto,
    /// Every request is rejected.
    ForcedOpen,
    /// Every request passes, nothing is counted.
    Disabled,
}

/// What a policy sets about its breakers. Rates are in basis points (10 000 is all), times in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Breakers tracked at once, at most [`MAX_KEYS`]; the keys beyond share one.
    pub max_keys: u32,
    /// Over which calls the rates are taken.
    pub window: Window,
    /// Rates are not judged before so many calls are in the window; a count window caps it at its own length.
    pub minimum_calls: u32,
    /// Trips when the share of failures reaches it; 0 is off.
    pub failure_rate_threshold: u32,
    /// A call is slow when its response headers took longer than this.
    pub slow_call_duration: Option<Nanos>,
    /// Trips when the share of slow calls reaches it; 0 is off.
    pub slow_call_rate_threshold: u32,
    /// Trips at this many failures in a row; 0 is off.
    pub consecutive_failures: u32,
    /// How long the first trip lasts.
    pub open_duration: Nanos,
    /// The longest a trip lasts, jitter and `Retry-After` included; never below `open_duration`.
    pub open_duration_max: Nanos,
    /// Requests let through while half-open, over all workers: 1 to [`MAX_PROBES`].
    pub probes: u32,
    /// A probe unanswered for so long counts as failed.
    pub probe_timeout: Nanos,
    /// After closing, re-admit linearly over this time.
    pub recovery_ramp: Option<Nanos>,
    /// A failure's `Retry-After` lengthens the open time.
    pub honor_retry_after: bool,
    /// Who decides.
    pub mode: Mode,
}

impl Default for Settings {
    fn default() -> Self {
        const SECOND: Nanos = 1_000_000_000;
        Self {
            max_keys: 256,
            window: Window::Time(10 * SECOND),
            minimum_calls: 20,
            failure_rate_threshold: 5_000,
            slow_call_duration: None,
            slow_call_rate_threshold: 10_000,
            consecutive_failures: 0,
            open_duration: 5 * SECOND,
            open_duration_max: 60 * SECOND,
            probes: 5,
            probe_timeout: 10 * SECOND,
            recovery_ramp: None,
            honor_retry_after: true,
            mode: Mode::Auto,
        }
    }
}

impl Settings {
    /// The same within the documented bounds: without them a window or a probe round could be empty and never judged.
    pub(super) fn bounded(mut self) -> Self {
        self.max_keys = self.max_keys.min(MAX_KEYS);
        self.window = match self.window {
            Window::Time(duration) => Window::Time(duration.max(10)),
            Window::Count(calls) => Window::Count(calls.clamp(1, MAX_COUNT_WINDOW)),
        };
        self.minimum_calls = match self.window {
            Window::Time(_) => self.minimum_calls.max(1),
            Window::Count(calls) => self.minimum_calls.clamp(1, calls),
        };
        self.probes = self.probes.clamp(1, MAX_PROBES);
        self.open_duration_max = self.open_duration_max.max(self.open_duration);
        self
    }

    /// Whether a call that took so long is slow.
    pub(super) fn is_slow(&self, took: Nanos) -> bool {
        self.judges_slow() && self.slow_call_duration.is_some_and(|limit| took > limit)
    }

    /// Whether slow calls are counted at all.
    pub(super) fn judges_slow(&self) -> bool {
        self.slow_call_duration.is_some() && self.slow_call_rate_threshold > 0
    }
}
