//! How many requests are held, over all workers: a number that a worker's death does not leave too high.

use super::counted::Counted;
use super::workers::Workers;
use super::{Nanos, Random};
use crate::share::{ShareError, SharedState};

/// The number, as one worker sees it.
#[derive(Debug)]
pub struct Waiting {
    workers: Workers,
    count: Counted,
}

impl Waiting {
    /// Opens the number of this name. At configure time: it creates a shared page of 4 KiB.
    ///
    /// # Errors
    /// [`ShareError`] where numbers or pages are not shared.
    pub fn new(share: &dyn SharedState, name: &str) -> Result<Self, ShareError> {
        Ok(Self {
            workers: Workers::open(share, name)?,
            count: Counted::open(share, name.into(), &format!("{name}.total"))?,
        })
    }

    /// A request is held from now on.
    ///
    /// # Errors
    /// [`ShareError`] where it cannot be counted: then [`end`](Self::end) must not be called for it.
    pub fn begin(&mut self, share: &dyn SharedState, random: &mut dyn Random) -> Result<(), ShareError> {
        let worker = self.workers.own(share, random)?;
        // Whatever the number is: who may be held was decided before.
        self.count.enter(share, worker, |_| true).map(|_| ())
    }

    /// A request is held no more.
    pub fn end(&mut self, share: &dyn SharedState) {
        self.count.leave(share);
    }

    /// Takes back what dead workers held. By how much the number changed. To be called every half second by every worker.
    ///
    /// # Errors
    /// Those of shared state; what is left undone then is done at the next call that works.
    pub fn tick(&mut self, share: &dyn SharedState, now: Nanos, random: &mut dyn Random) -> Result<i64, ShareError> {
        let beat = self.workers.beat(share, now, random)?;
        let corrected = self.count.heed(share, &beat)?;
        self.workers.heeded(&beat);
        Ok(corrected)
    }
}
