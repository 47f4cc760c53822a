//! Rows of pages under one name, used again by one owner after another.
//!
//! What a host keeps under a name it keeps for good. A control whose settings change needs pages of its own beside those of
//! the settings before, which requests under way still use; if each change left its pages behind, a proxy would grow with
//! every update of its configuration. So there are at most [`ROWS`] rows under a name. Which is whose stands in a register:
//! the owner's digest, and until when somebody has said that it is in use. An owner finds its row again; a new one takes a
//! row that nobody uses any more, or never did, and none if there is no such row: a row in use is never taken.
//!
//! A row that is taken over is not wiped. Each page says in which epoch it was written, and the register which epoch the row
//! is in: a page of an earlier epoch counts as empty, and one of a later epoch tells whoever reads it that its row is gone.
//! That happens to an owner that has been silent for as long as a lease, say in a process that stood still, and to no other.

use super::{Pages, ShareError, SharedState};

/// How many rows there are under a name: as many settings of one control can be in use at once, over all listeners of a
/// plugin and those that still drain.
pub const ROWS: usize = 16;

/// For how long a row counts as used after its owner was last heard of, in nanoseconds.
pub const LEASE: u64 = 60 * SECOND;

/// How long before the register is looked at again, to see whether the row is still the owner's and somebody else has given
/// it up.
const LOOK: u64 = SECOND;

/// For how long a row that one worker has given up is kept for the others: several times as long as it takes one that still
/// uses it to notice.
pub const GRACE: u64 = 5 * SECOND;

const SECOND: u64 = 1_000_000_000;

/// How often taking a row is tried. A proxy's workers configure themselves a handful at a time; a host that always says that
/// another was first must not keep one for ever.
const ATTEMPTS: usize = 1_000;

const FIELDS: usize = 3;
const WORD: usize = size_of::<u64>();
const BYTES: usize = ROWS * FIELDS * WORD;

/// A row that is in use, as its owner keeps it.
#[derive(Debug)]
pub struct Lease {
    register: Pages,
    /// The row's number.
    pub row: usize,
    /// Which of its owners this is; at least 1.
    pub epoch: u64,
    owner: u64,
    on_return: Return,
    look_at: u64,
}

/// What an owner finds that comes back to a row which nobody has used for a while, and nobody else has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// What it left: for state that is right at any later time, as a bucket's is.
    Resumes,
    /// Empty pages.
    BeginsAnew,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    owner: u64,
    epoch: u64,
    until: u64,
}

impl Entry {
    /// What taking the row over costs: nothing if nobody uses it any more, memory if nobody has yet. None if it is in use.
    fn price(&self, now: u64) -> Option<(u8, u64)> {
        match self.epoch {
            0 => Some((1, 0)),
            _ => (self.until <= now).then_some((0, self.until)),
        }
    }
}

impl Lease {
    /// Finds the row of an owner under this name, or takes one; none if all are in use by others.
    ///
    /// # Errors
    /// Those of [`SharedState::pages`] and [`SharedState::load`], and [`ShareError::Conflict`] if others were always first.
    pub fn take(
        share: &dyn SharedState,
        name: &str,
        owner: u64,
        on_return: Return,
        now: u64,
    ) -> Result<Option<Self>, ShareError> {
        let register = share.pages(&format!("{name}/{ROWS} rows"), 1, &[0; BYTES])?;
        let until = now.saturating_add(LEASE);
        for _ in 0..ATTEMPTS {
            let mut bytes = [0; BYTES];
            let version = share.load(register, 0, &mut bytes)?;
            let entries = (0..ROWS).map(|row| (row, get(&bytes, row)));
            let own = entries.clone().find(|(_, entry)| entry.epoch > 0 && entry.owner == owner);
            let cheapest = || {
                let free = entries.filter_map(|(row, entry)| Some((entry.price(now)?, row, entry)));
                free.min_by_key(|(price, ..)| *price).map(|(_, row, entry)| (row, entry))
            };
            let Some((row, entry)) = own.or_else(cheapest) else { return Ok(None) };
            let resumes = own.is_some() && (entry.until > now || on_return == Return::Resumes);
            // At a change each nanosecond an epoch would be the last after five centuries.
            let epoch = if resumes { entry.epoch } else { entry.epoch.saturating_add(1) };
            set(&mut bytes, row, Entry { owner, epoch, until: until.max(entry.until) });
            match share.store(register, 0, &bytes, version) {
                Ok(()) => {
                    let look_at = now.saturating_add(LOOK);
                    return Ok(Some(Self { register, row, epoch, owner, on_return, look_at }));
                }
                // Whoever was first has made progress.
                Err(ShareError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ShareError::Conflict)
    }

    /// Says that the row is in use, and whether it still is the owner's as far as can be told. A call that comes early does
    /// nothing.
    pub fn renew(&mut self, share: &dyn SharedState, now: u64) -> bool {
        if now < self.look_at {
            return true;
        }
        let mut bytes = [0; BYTES];
        let Ok(version) = share.load(self.register, 0, &mut bytes) else { return true };
        let entry = get(&bytes, self.row);
        if !self.owns(entry) {
            return false;
        }
        let mut said = true;
        if entry.until <= now.saturating_add(LEASE / 2) {
            set(&mut bytes, self.row, Entry { until: now.saturating_add(LEASE), ..entry });
            said = share.store(self.register, 0, &bytes, version).is_ok();
        }
        // Lost against another's change, it is tried again the next time.
        if said {
            self.look_at = now.saturating_add(LOOK);
        }
        true
    }

    /// Has the next [`renew`](Self::renew) look, however early it comes.
    pub fn doubt(&mut self) {
        self.look_at = 0;
    }

    fn owns(&self, entry: Entry) -> bool {
        entry.owner == self.owner && entry.epoch == self.epoch
    }

    /// Whether the owner, elsewhere, has begun anew in this row; if so this lease has followed.
    pub fn follow(&mut self, share: &dyn SharedState) -> bool {
        let mut bytes = [0; BYTES];
        if share.load(self.register, 0, &mut bytes).is_err() {
            return false;
        }
        let entry = get(&bytes, self.row);
        let moved = entry.owner == self.owner && entry.epoch != self.epoch;
        if moved {
            self.epoch = entry.epoch;
        }
        moved
    }

    /// Says that the row is not used any more, as far as this holder knows: others that do use it say so again. What resumes
    /// is kept for them for a moment; what begins anew is over at once.
    pub fn release(&self, share: &dyn SharedState, now: u64) {
        let mut bytes = [0; BYTES];
        let Ok(version) = share.load(self.register, 0, &mut bytes) else { return };
        let entry = get(&bytes, self.row);
        let until = match self.on_return {
            Return::Resumes => now.saturating_add(GRACE),
            Return::BeginsAnew => now,
        };
        if self.owns(entry) && entry.until > until {
            set(&mut bytes, self.row, Entry { until, ..entry });
            // Lost against another worker's change, the row is free when its time is over.
            let _ = share.store(self.register, 0, &bytes, version);
        }
    }
}

fn get(bytes: &[u8; BYTES], row: usize) -> Entry {
    let word = |field: usize| {
        let at = (row * FIELDS + field) * WORD;
        let word = bytes.get(at..at + WORD).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_le_bytes)
    };
    Entry { owner: word(0), epoch: word(1), until: word(2) }
}

fn set(bytes: &mut [u8; BYTES], row: usize, entry: Entry) {
    for (field, value) in [entry.owner, entry.epoch, entry.until].into_iter().enumerate() {
        let at = (row * FIELDS + field) * WORD;
        if let Some(word) = bytes.get_mut(at..at + WORD) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}
