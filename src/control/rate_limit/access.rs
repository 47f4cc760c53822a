//! Where a key's state is, and how it is changed: one page is loaded, and stored if no other worker has in the meantime.

use std::cmp::Ordering;

use super::Nanos;
use super::model::{KeyHash, NotMade};
use crate::share::{Address, Found, Page, ShareError, SharedState, SlotTable, Version, Words};

/// How often a change is tried before other workers' changes to the same page make it give up.
pub const ATTEMPTS: u32 = 128;

/// The slots of a limit as one worker sees them.
#[derive(Debug)]
pub(super) struct Slots {
    table: SlotTable,
    page: Page,
    /// What a check has just found in `page`.
    found: Option<Checked>,
    /// Which of the owners of these pages this is.
    epoch: u64,
}

#[derive(Debug, Clone, Copy)]
struct Checked {
    slot: Slot,
    key: KeyHash,
    at: Nanos,
}

/// Where to look for a key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// In its slot, a free one, or the overflow budget.
    Any,
    /// In its slot or a free one.
    Own,
    /// In the overflow budget.
    Overflow,
}

/// Whose state is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub key: KeyHash,
    pub quota: usize,
    pub scope: Scope,
    pub now: Nanos,
}

/// A slot of the page that is loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    address: Address,
    version: Version,
    pub words: Words,
    pub header: Header,
    pub overflow: bool,
    /// Whether there is one at all: a key that looks for its own may have lost it, and find none that is free.
    pub writable: bool,
}

impl Slot {
    /// The time as of which to decide.
    pub fn time(&self, now: Nanos) -> Nanos {
        self.header.newest.max(now)
    }
}

/// What to do with a slot that was looked at.
pub(super) enum Step<T> {
    Leave(T),
    /// Store the words, and the header.
    Store(T, Words, Header),
}

/// What a page remembers of all its slots together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// The newest reading of the clock that any worker brought.
    pub newest: Nanos,
    /// The latest time for which a request was let through.
    pub latest: Nanos,
    /// How many nanoseconds all refunds together went back, those that changed nothing else by at least one; only
    /// differences count, so it may wrap.
    pub refunded: Nanos,
    /// The epoch the page was written in.
    pub epoch: u64,
}

impl Slots {
    pub fn new(table: SlotTable, epoch: u64) -> Self {
        let page = table.page();
        Self { table, page, found: None, epoch }
    }

    pub fn shared_bytes(&self) -> u64 {
        self.table.shared_bytes()
    }

    /// This slot, just looked at, serves the next look of the same key at the same time. What is in the overflow budget is
    /// not kept: the key may have found a slot.
    pub fn keep(&mut self, slot: Slot, target: Target) {
        self.found = (!slot.overflow).then_some(Checked { slot, key: target.key, at: target.now });
    }

    /// Looks at the target's slot and stores what `decide` makes of it, again for as long as other workers are first.
    pub fn change<T>(
        &mut self,
        share: &dyn SharedState,
        target: Target,
        conflicts: &mut u32,
        decide: impl Fn(&Slot) -> Step<T>,
    ) -> Result<T, NotMade> {
        for _ in 0..ATTEMPTS {
            let slot = self.look(share, target)?;
            let (outcome, words, header) = match decide(&slot) {
                Step::Leave(outcome) => return Ok(outcome),
                Step::Store(outcome, words, header) => (outcome, words, header),
            };
            self.page.set(slot.address.slot, target.key.fingerprint, &words);
            self.page.set_header([slot.time(target.now), header.latest, header.refunded, header.epoch]);
            match self.table.store(share, slot.address.page, &self.page, slot.version) {
                Ok(()) => return Ok(outcome),
                Err(ShareError::Conflict) => *conflicts = conflicts.saturating_add(1),
                Err(ShareError::Unavailable) => return Err(NotMade::Unavailable),
            }
        }
        Err(NotMade::Contended)
    }

    /// Loads the page with the target's slot.
    pub fn look(&mut self, share: &dyn SharedState, target: Target) -> Result<Slot, NotMade> {
        let found = self.found.take();
        if target.scope != Scope::Overflow {
            if let Some(found) = found
                && found.key == target.key
                && found.at == target.now
            {
                return Ok(found.slot);
            }
            let page = self.table.home(target.key.place);
            let version = self.load(share, page)?;
            let header = self.header();
            let found = self.page.find(target.key.fingerprint, header.newest.max(target.now));
            let (slot, words) = match found {
                Found::Own(slot) => (slot, self.page.get(slot)),
                Found::Free(slot) => (slot, Words::default()),
                Found::Full => (usize::MAX, Words::default()),
            };
            let writable = found != Found::Full;
            if writable || target.scope == Scope::Own {
                let address = Address { page, slot };
                return Ok(Slot { address, words, header, version, overflow: false, writable });
            }
        }
        let address = self.table.reserved(u32::try_from(target.quota).unwrap_or(u32::MAX));
        let version = self.load(share, address.page)?;
        let words = self.page.get(address.slot);
        Ok(Slot { address, words, header: self.header(), version, overflow: true, writable: true })
    }

    fn header(&self) -> Header {
        let [newest, latest, refunded, epoch] = self.page.header();
        Header { newest, latest, refunded, epoch }
    }

    fn load(&mut self, share: &dyn SharedState, page: u32) -> Result<Version, NotMade> {
        let version = self.table.load(share, page, &mut self.page).map_err(|_| NotMade::Unavailable)?;
        match self.header().epoch.cmp(&self.epoch) {
            Ordering::Equal => {}
            // Another's, whose row this was.
            Ordering::Less => {
                self.page.clear();
                self.page.set_header([0, 0, 0, self.epoch]);
            }
            // The row was given to another.
            Ordering::Greater => return Err(NotMade::Unavailable),
        }
        Ok(version)
    }
}
