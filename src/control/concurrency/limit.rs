//! What a limit algorithm is: a window of samples in, a new limit out. No algorithm knows how samples are taken or
//! how a limit is enforced.

use std::ops::{Deref, DerefMut};

use crate::control::{Nanos, Random};

use super::adaptive::Adaptive;
use super::aimd::Aimd;
use super::gradient2::Gradient2;
use super::vegas::Vegas;

/// Words that hold the state of any algorithm.
pub const WORDS: usize = 16;

/// An algorithm's state as it lies in a shared page; fractions as the bits of an `f64`. All zeros is no state.
pub type Words = [u64; WORDS];

/// What was seen of the requests of all workers during a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// How long it lasted; above 0.
    pub duration: Nanos,
    /// Requests that ended in it and tell something of the upstream.
    pub samples: u64,
    /// Their mean time in flight; 0 without samples.
    pub rtt: Nanos,
    /// The most requests in flight.
    pub peak: u32,
    /// Requests in flight at its end.
    pub inflight: u32,
    /// A request was refused by the upstream for overload, or timed out.
    pub dropped: bool,
    /// A request found no place, or found one because the limit was raised for it.
    pub full: bool,
    /// A request was turned away for want of a place.
    pub refused: bool,
    /// A client gave up before its request was answered.
    pub left: bool,
}

/// Bounds of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// To start with.
    pub initial: u32,
    /// The least it becomes, at least 1.
    pub min: u32,
    /// The most it becomes, at least `min`.
    pub max: u32,
}

impl Bounds {
    /// The nearest limit within bounds.
    pub(super) fn hold(&self, limit: f64) -> f64 {
        limit.max(f64::from(self.min.max(1))).min(f64::from(self.max.max(self.min)))
    }
}

/// An algorithm that finds a limit.
pub trait Limit {
    /// How long the next window is to last at least. It goes on until it has [`SAMPLES`] samples, or as many drops where
    /// those are heeded.
    fn period(&self) -> Nanos;

    /// Whether drops tell as much as answers do: so many of them make a window, too.
    fn heeds_drops(&self) -> bool {
        false
    }

    /// Learns from a window.
    fn update(&mut self, window: &Window, random: &mut dyn Random);

    /// The present limit, at least 1.
    fn limit(&self) -> u32;

    /// The limit for requests that are spared when it is lowered for a moment only.
    fn spared(&self) -> u32 {
        self.limit()
    }

    /// Whether the limit may be raised at once for a request that finds no place.
    fn stretches(&self) -> bool {
        false
    }

    /// A request finds no place: raises the limit for it unless the window, so far, says that the upstream is slow
    /// and not the load growing.
    fn stretch(&mut self, so_far: &Window) {
        let _ = so_far;
    }

    /// The state, to be kept.
    fn words(&self) -> Words;
}

/// A window with fewer samples is lengthened, up to [`LONGEST`] times its period.
pub const SAMPLES: u64 = 10;

/// How much a window is lengthened at most while samples are few.
pub const LONGEST: u64 = 10;

/// Which algorithm, and its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The same always.
    Fixed(u32),
    /// Tidegate's own.
    Adaptive(Bounds),
    /// Latency gradient against a long-term average.
    Gradient2(Bounds),
    /// Estimated queue length.
    Vegas(Bounds),
    /// Additive increase, multiplicative decrease.
    Aimd(Bounds),
}

impl Algorithm {
    /// The limit that it begins with.
    pub fn initial(self) -> u32 {
        match self {
            Self::Fixed(limit) => limit.max(1),
            Self::Adaptive(bounds) | Self::Gradient2(bounds) | Self::Vegas(bounds) | Self::Aimd(bounds) => {
                bounds.initial
            }
        }
    }

    /// The algorithm with a state kept earlier, or at its start when that is all zeros.
    pub fn restore(self, words: &Words) -> State {
        match self {
            Self::Fixed(limit) => State::Fixed(Fixed(limit.max(1))),
            Self::Adaptive(bounds) => State::Adaptive(Adaptive::restore(bounds, words)),
            Self::Gradient2(bounds) => State::Gradient2(Gradient2::restore(bounds, words)),
            Self::Vegas(bounds) => State::Vegas(Vegas::restore(bounds, words)),
            Self::Aimd(bounds) => State::Aimd(Aimd::restore(bounds, words)),
        }
    }
}

/// An algorithm and what it has learnt, without an allocation: it is read from its page at the end of each window.
#[derive(Debug)]
pub enum State {
    /// See [`Algorithm::Fixed`], and so on.
    Fixed(Fixed),
    /// Tidegate's own.
    Adaptive(Adaptive),
    /// Latency gradient against a long-term average.
    Gradient2(Gradient2),
    /// Estimated queue length.
    Vegas(Vegas),
    /// Additive increase, multiplicative decrease.
    Aimd(Aimd),
}

impl Deref for State {
    type Target = dyn Limit;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Fixed(limit) => limit,
            Self::Adaptive(limit) => limit,
            Self::Gradient2(limit) => limit,
            Self::Vegas(limit) => limit,
            Self::Aimd(limit) => limit,
        }
    }
}

impl DerefMut for State {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Fixed(limit) => limit,
            Self::Adaptive(limit) => limit,
            Self::Gradient2(limit) => limit,
            Self::Vegas(limit) => limit,
            Self::Aimd(limit) => limit,
        }
    }
}

/// A limit that learns nothing, measured for the latency.
#[derive(Debug)]
pub struct Fixed(u32);

impl Limit for Fixed {
    fn period(&self) -> Nanos {
        super::WINDOW
    }

    fn update(&mut self, _: &Window, _: &mut dyn Random) {}

    fn limit(&self) -> u32 {
        self.0
    }

    fn words(&self) -> Words {
        pack([f64::from(self.0)])
    }
}

/// A limit as a whole number: the part after the point is credit for later. Casts of `f64` saturate.
pub(super) fn whole(limit: f64) -> u32 {
    (limit as u32).max(1)
}

/// Words from the numbers of a state.
pub(super) fn pack<const N: usize>(numbers: [f64; N]) -> Words {
    let mut words = [0; WORDS];
    for (word, number) in words.iter_mut().zip(numbers) {
        *word = number.to_bits();
    }
    words
}

/// The numbers of a state from words.
pub(super) fn unpack<const N: usize>(words: &Words) -> [f64; N] {
    let mut numbers = [0.0; N];
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = f64::from_bits(*word);
    }
    numbers
}
