//! Whether somebody may wait at a limit, without a number for each limit: there may be many of them, and somebody waits at
//! few. They share [`NUMBERS`]: where one of these is 0, nobody waits at any of its limits.

use std::rc::Rc;

use crate::control::counted::{Beat, Counted, Name};
use crate::share::{ShareError, SharedState};

/// How many numbers there are at most.
pub const NUMBERS: u32 = 1024;

/// How many wait at each so many limits, over all workers.
#[derive(Debug)]
pub struct Crowd {
    name: Rc<str>,
    counts: Vec<Option<Counted>>,
}

impl Crowd {
    /// None that has been asked for yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), counts: Vec::new() }
    }

    /// Whether somebody may wait at this limit, at any worker.
    ///
    /// # Errors
    /// [`ShareError`] where numbers are not shared.
    pub fn may_wait(&mut self, share: &dyn SharedState, slot: u32) -> Result<bool, ShareError> {
        Ok(self.open(share, slot)?.total(share) > 0)
    }

    /// Somebody waits at this limit from now on, at this worker.
    ///
    /// # Errors
    /// [`ShareError`] where it cannot be counted: then [`leave`](Self::leave) must not be called for it.
    pub fn enter(&mut self, share: &dyn SharedState, worker: u32, slot: u32) -> Result<(), ShareError> {
        self.open(share, slot)?.enter(share, worker, |_| true).map(|_| ())
    }

    /// So many of those who waited at this limit here do so no more.
    pub fn leave(&mut self, share: &dyn SharedState, slot: u32, many: usize) {
        if let Some(count) = self.counts.get_mut(place(slot)).and_then(Option::as_mut) {
            (0..many).for_each(|_| count.leave(share));
        }
    }

    /// Corrects the numbers by what [`super::super::Workers::beat`] found.
    ///
    /// # Errors
    /// [`ShareError`] where numbers are not shared. To be called again then.
    pub fn heed(&mut self, share: &dyn SharedState, beat: &Beat) -> Result<(), ShareError> {
        self.counts.iter_mut().flatten().try_for_each(|count| count.heed(share, beat).map(|_| ()))
    }

    fn open(&mut self, share: &dyn SharedState, slot: u32) -> Result<&mut Counted, ShareError> {
        let at = place(slot);
        if self.counts.len() <= at {
            self.counts.resize_with(at.saturating_add(1), || None);
        }
        match self.counts.get_mut(at).ok_or(ShareError::Unavailable)? {
            Some(count) => Ok(count),
            none => {
                let name = Name::of(&self.name, slot % NUMBERS);
                let total = format!("{name}.total");
                Ok(none.insert(Counted::open(share, name, &total)?))
            }
        }
    }
}

fn place(slot: u32) -> usize {
    usize::try_from(slot % NUMBERS).unwrap_or(0)
}
