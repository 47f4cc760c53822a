//! Concurrency limit: so many requests in flight at once, over all workers.
//!
//! In-flight is one number that every worker adds to. A request takes its place first and looks second: when the number
//! it then reads is above the limit it gives the place back and is rejected. Two workers can so bump into one another at
//! the last free place; who finds that place free again after giving way tries anew, a few times. The limit is never
//! passed, and a free place is not left empty while somebody asks for it.
//!
//! Limits: a place is held until it is released; whoever takes one must release it exactly once, however the request
//! ends.

use crate::share::{Cell, ShareError, SharedState};

/// How often a request tries for a place that it found free after giving way. Workers are few and the window is two
/// host calls wide, so a second collision is rare and a ninth in a row is not seen.
const ATTEMPTS: u32 = 8;

/// One concurrency limit, as one worker sees it.
#[derive(Debug)]
pub struct Concurrency {
    limit: u32,
    inflight: Cell,
}

/// A place in flight. It must go back through [`Concurrency::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not released is lost"]
pub struct Place(());

impl Concurrency {
    /// A limit of this many, counted under this name.
    ///
    /// # Errors
    /// [`ShareError::Unavailable`] where numbers are not shared.
    pub fn new(limit: u32, share: &dyn SharedState, name: &str) -> Result<Self, ShareError> {
        Ok(Self { limit, inflight: share.cell(name)? })
    }

    /// How many may be in flight.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Takes a place, or none when as many as allowed are taken.
    pub fn acquire(&mut self, share: &dyn SharedState) -> Option<Place> {
        for _ in 0..ATTEMPTS {
            share.add(self.inflight, 1);
            if share.read(self.inflight) <= i64::from(self.limit) {
                return Some(Place(()));
            }
            share.add(self.inflight, -1);
            if share.read(self.inflight) >= i64::from(self.limit) {
                return None;
            }
        }
        None
    }

    /// Gives a place back.
    pub fn release(&mut self, share: &dyn SharedState, place: Place) {
        let Place(()) = place;
        share.add(self.inflight, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Memory;

    #[test]
    fn admits_up_to_the_limit_over_all_workers_and_again_after_release() {
        let share = Memory::new();
        let mut workers: Vec<_> =
            (0..4).map(|_| Concurrency::new(10, &share, "inflight").expect("memory shares numbers")).collect();
        let mut places = Vec::new();
        for turn in 0..40 {
            places.extend(workers[turn % 4].acquire(&share));
        }
        assert_eq!(places.len(), 10);
        workers[0].release(&share, places.pop().expect("ten places"));
        assert!(workers[3].acquire(&share).is_some());
        assert!(workers[2].acquire(&share).is_none());
    }

    #[test]
    fn threads_that_race_for_the_last_places_never_pass_the_limit_and_leave_zero() {
        let share = Memory::new();
        let peak = std::sync::atomic::AtomicI64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (share, peak) = (share.clone(), &peak);
                scope.spawn(move || {
                    let mut worker = Concurrency::new(3, &share, "inflight").expect("memory shares numbers");
                    let holders = share.cell("holders").expect("memory shares numbers");
                    for _ in 0..2_000 {
                        if let Some(place) = worker.acquire(&share) {
                            share.add(holders, 1);
                            peak.fetch_max(share.read(holders), std::sync::atomic::Ordering::SeqCst);
                            share.add(holders, -1);
                            worker.release(&share, place);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&peak.into_inner()));
        assert_eq!(share.read(share.cell("inflight").expect("memory shares numbers")), 0);
    }
}
