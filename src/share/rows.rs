//! Rows of pages under one name, used again by one owner after another.
//!
//! What a host keeps under a name it keeps for good. A control whose settings change needs pages of its own beside those of
//! the settings before, which requests under way still use; if each change left its pages behind, a proxy would grow with
//! every update of its configuration. So there are at most [`ROWS`] rows under a name. Which is whose stands in a register:
//! the owner's digest, and until when somebody has said that it is in use. An owner finds its row again; a new one takes a
//! row that nobody uses any more, or never did.
//!
//! A row that is taken over is not wiped. Each page says in which epoch it was written, and the register which epoch the row
//! is in: a page of an earlier epoch counts as empty, and one of a later epoch tells whoever reads it that its row is gone.

use super::{Pages, ShareError, SharedState};

/// How many rows there are under a name. Should more owners be in use at once, the one longest silent loses its row.
pub const ROWS: usize = 8;

/// For how long a row counts as used after its owner was last heard of, in nanoseconds.
pub const LEASE: u64 = 60 * 1_000_000_000;

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
    until: u64,
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
    /// What taking the row over costs: nothing if nobody uses it any more, memory if nobody has yet, else its owner's state.
    fn price(&self, now: u64) -> (u8, u64) {
        let price = match self.epoch {
            0 => 1,
            _ if self.until <= now => 0,
            _ => 2,
        };
        (price, self.until)
    }
}

impl Lease {
    /// Finds the row of an owner under this name, or takes one. At configure time only.
    ///
    /// # Errors
    /// Those of [`SharedState::pages`] and [`SharedState::load`], and [`ShareError::Conflict`] if others were always first.
    pub fn take(
        share: &dyn SharedState,
        name: &str,
        owner: u64,
        on_return: Return,
        now: u64,
    ) -> Result<Self, ShareError> {
        let register = share.pages(name, 1, &[0; BYTES])?;
        let until = now.saturating_add(LEASE);
        for _ in 0..ATTEMPTS {
            let mut bytes = [0; BYTES];
            let version = share.load(register, 0, &mut bytes)?;
            let entries = (0..ROWS).map(|row| (row, get(&bytes, row)));
            let own = entries.clone().find(|(_, entry)| entry.epoch > 0 && entry.owner == owner);
            // The register is never empty, so there is one.
            let (row, entry) = own.or_else(|| entries.min_by_key(|(_, entry)| entry.price(now))).unwrap_or_default();
            let resumes = own.is_some() && (entry.until > now || on_return == Return::Resumes);
            // At a change each nanosecond an epoch would be the last after five centuries.
            let epoch = if resumes { entry.epoch } else { entry.epoch.saturating_add(1) };
            set(&mut bytes, row, Entry { owner, epoch, until: until.max(entry.until) });
            match share.store(register, 0, &bytes, version) {
                Ok(()) => return Ok(Self { register, row, epoch, owner, until }),
                // Whoever was first has made progress.
                Err(ShareError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ShareError::Conflict)
    }

    /// Says that the row is in use. Once in a while: a call that comes early does nothing.
    pub fn renew(&mut self, share: &dyn SharedState, now: u64) {
        if self.until > now.saturating_add(LEASE / 2) {
            return;
        }
        let mut bytes = [0; BYTES];
        let Ok(version) = share.load(self.register, 0, &mut bytes) else { return };
        let entry = get(&bytes, self.row);
        let until = now.saturating_add(LEASE);
        if entry.owner == self.owner && entry.epoch == self.epoch && entry.until < until {
            set(&mut bytes, self.row, Entry { until, ..entry });
            if share.store(self.register, 0, &bytes, version).is_err() {
                // Tried again the next time.
                return;
            }
        }
        self.until = until;
    }
}

impl Lease {
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

    /// Says that the row is not used any more, as far as this holder knows: others that do use it say so again.
    pub fn release(&mut self, share: &dyn SharedState, now: u64) {
        let mut bytes = [0; BYTES];
        let Ok(version) = share.load(self.register, 0, &mut bytes) else { return };
        let entry = get(&bytes, self.row);
        if entry.owner == self.owner && entry.epoch == self.epoch && entry.until > now {
            set(&mut bytes, self.row, Entry { until: now, ..entry });
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
