//! A number that workers add to and take from, of which it is known what each of them added: what a worker held whose
//! VM died can be taken back.
//!
//! Beside the number of all, each worker has one of its own. Both are changed one after the other by the same
//! callback; a VM dies in its own code, not between two host calls.

use std::fmt;
use std::rc::Rc;

use crate::share::{Cell, ShareError, SharedState};

/// A number's name: that of a family, and which of it. Of families with many numbers the name is there once.
#[derive(Debug, Clone)]
pub(super) struct Name {
    family: Rc<str>,
    member: Option<u32>,
}

impl Name {
    /// One of these.
    pub fn of(family: &Rc<str>, member: u32) -> Self {
        Self { family: Rc::clone(family), member: Some(member) }
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self { family: name.into(), member: None }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.family)?;
        self.member.map_or(Ok(()), |member| write!(f, ".{member}"))
    }
}

/// What a heartbeat found out about the workers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Workers found dead: what they held is to be taken back, by this worker alone.
    pub dead: Vec<u32>,
    /// This worker was taken for dead, and counts as this one now.
    pub rejoined: Option<u32>,
}

/// The number, as one worker sees it.
#[derive(Debug)]
pub(super) struct Counted {
    name: Name,
    total: Cell,
    own: Option<Cell>,
    held: i64,
}

impl Counted {
    /// Opens the number called `total`; `name` is for the workers' own.
    pub fn open(share: &dyn SharedState, name: Name, total: &str) -> Result<Self, ShareError> {
        Ok(Self { name, total: share.cell(total)?, own: None, held: 0 })
    }

    fn own(&self, share: &dyn SharedState, worker: u32) -> Result<Cell, ShareError> {
        share.cell(&format!("{}.worker.{worker}", self.name))
    }

    /// Makes sure that this worker can add to it: after that [`enter`](Self::enter) does not fail.
    pub fn join(&mut self, share: &dyn SharedState, worker: u32) -> Result<Cell, ShareError> {
        match self.own {
            Some(own) => Ok(own),
            None => Ok(*self.own.insert(self.own(share, worker)?)),
        }
    }

    /// Adds one, as this worker, if `admits` says yes to what the number then is; gives way otherwise. Says what the
    /// number came to, or what it would come to.
    pub fn enter(
        &mut self,
        share: &dyn SharedState,
        worker: u32,
        admits: impl FnOnce(i64) -> bool,
    ) -> Result<Result<i64, i64>, ShareError> {
        let own = self.join(share, worker)?;
        share.add(self.total, 1);
        let total = share.read(self.total);
        if admits(total) {
            share.add(own, 1);
            self.held = self.held.saturating_add(1);
            return Ok(Ok(total));
        }
        share.add(self.total, -1);
        Ok(Err(share.read(self.total).saturating_add(1)))
    }

    /// Takes one away that this worker added.
    pub fn leave(&mut self, share: &dyn SharedState) {
        share.add(self.total, -1);
        if let Some(own) = self.own {
            share.add(own, -1);
        }
        self.held = self.held.saturating_sub(1);
    }

    /// What it is.
    pub fn total(&self, share: &dyn SharedState) -> i64 {
        share.read(self.total)
    }

    /// Takes back what dead workers held, and counts anew what this one holds if it was taken for dead. By how much the
    /// number changed. All of it or, on an error, nothing; a second time it changes nothing more.
    pub fn heed(&mut self, share: &dyn SharedState, beat: &Beat) -> Result<i64, ShareError> {
        let dead = beat.dead.iter().map(|worker| self.own(share, *worker)).collect::<Result<Vec<_>, _>>()?;
        let rejoined = beat.rejoined.map(|worker| self.own(share, worker)).transpose()?;
        let mut change = 0i64;
        for own in dead {
            let held = share.read(own);
            if held != 0 {
                share.add(own, held.saturating_neg());
                share.add(self.total, held.saturating_neg());
                // Nobody holds 2^63 places.
                change = change.saturating_sub(held);
            }
        }
        let (Some(own), Some(before)) = (rejoined, self.own) else { return Ok(change) };
        // What it did since it was taken for dead has changed its old number and the total alike.
        let since = share.read(before);
        share.add(before, since.saturating_neg());
        share.add(own, self.held);
        let forgotten = self.held.saturating_sub(since);
        share.add(self.total, forgotten);
        self.own = Some(own);
        Ok(change.saturating_add(forgotten))
    }
}
