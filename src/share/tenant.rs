//! Where a control whose settings may change keeps its state: in a row of what workers share, or alone.
//!
//! - **In a row** as long as there is one (see [`Lease`]). All workers with the same settings have the same.
//! - **Alone**, in memory of this worker's own, when every row is in use by other settings, or when the row was lost and no
//!   other can be had. The control then holds for each worker by itself, which is weaker than what was asked for and never
//!   nothing.
//! - **Back** in a row at the first [`keep`](Tenant::keep) that finds one. State is not carried from one place to another:
//!   the control begins anew in each.

use super::{Lease, Memory, ROWS, Return, ShareError, SharedState};

/// A control's hold on the place of its state.
#[derive(Debug)]
pub struct Tenant {
    name: String,
    owner: u64,
    on_return: Return,
    /// None while it is alone.
    lease: Option<Lease>,
    own: Memory,
    /// How often it has gone alone.
    alone: u64,
    missed: u64,
    /// Whether it was alone when somebody last asked.
    told: bool,
}

impl Tenant {
    /// Finds the place of an owner, a digest of the settings, under this name.
    ///
    /// # Errors
    /// Those of [`Lease::take`]. That no row is free is none.
    pub fn settle(
        share: &dyn SharedState,
        name: String,
        owner: u64,
        on_return: Return,
        now: u64,
    ) -> Result<Self, ShareError> {
        let lease = Lease::take(share, &name, owner, on_return, now)?;
        let missed = u64::from(lease.is_none());
        Ok(Self { name, owner, on_return, lease, own: Memory::lazy(), alone: 0, missed, told: false })
    }

    /// The state to use in the place of what workers share.
    pub fn share<'a>(&'a self, share: &'a dyn SharedState) -> &'a dyn SharedState {
        if self.lease.is_some() { share } else { &self.own }
    }

    /// The state of one that may be no tenant: its place is in what workers share then, and nobody else's.
    pub fn share_of<'a>(tenant: &'a Option<Self>, share: &'a dyn SharedState) -> &'a dyn SharedState {
        tenant.as_ref().map_or(share, |tenant| tenant.share(share))
    }

    /// The name of the place in there.
    pub fn name(&self) -> String {
        match &self.lease {
            Some(lease) => format!("{}/{}", self.name, lease.row),
            None => self.name.clone(),
        }
    }

    /// The epoch of the pages there.
    pub fn epoch(&self) -> u64 {
        self.lease.as_ref().map_or(0, |lease| lease.epoch)
    }

    /// Tells the place, in its epoch, from any other: what was granted in one means nothing in another.
    pub fn life(&self) -> u64 {
        match &self.lease {
            // Epochs are few (see `Lease::take`); should the product ever wrap, lives that are over look alike. Asked for by
            // every request, where to saturate a product is a call in WebAssembly.
            Some(lease) => lease.epoch.wrapping_mul(ROWS as u64).wrapping_add(lease.row as u64),
            None => u64::MAX.saturating_sub(self.alone),
        }
    }

    /// Whether this worker keeps the state for itself.
    pub fn is_alone(&self) -> bool {
        self.lease.is_none()
    }

    /// Says that the place is in use, and looks for another where it is lost or there is none. Whether it has moved: then
    /// everything there has to be opened anew. Every second or so.
    pub fn keep(&mut self, share: &dyn SharedState, now: u64) -> bool {
        if self.lease.as_mut().is_some_and(|lease| lease.renew(share, now)) {
            return false;
        }
        match Lease::take(share, &self.name, self.owner, self.on_return, now) {
            Ok(Some(lease)) => {
                self.lease = Some(lease);
                self.own = Memory::lazy();
                true
            }
            _ => self.go_alone(),
        }
    }

    /// The same, at once, where pages say that the row is gone.
    pub fn recover(&mut self, share: &dyn SharedState, now: u64) -> bool {
        match &mut self.lease {
            Some(lease) => {
                lease.doubt();
                self.keep(share, now)
            }
            None => false,
        }
    }

    /// No row, or none that can be used. Whether it has moved.
    fn go_alone(&mut self) -> bool {
        self.missed = self.missed.saturating_add(1);
        let moved = self.lease.take().is_some();
        self.alone = self.alone.saturating_add(u64::from(moved));
        moved
    }

    /// Opens what is at the place, with `open(share, name, epoch)`: alone, where the host has a row and refuses its pages.
    ///
    /// # Errors
    /// Those of `open`. Memory of its own refuses nothing.
    pub fn move_in<T>(
        &mut self,
        share: &dyn SharedState,
        open: impl Fn(&dyn SharedState, &str, u64) -> Result<T, ShareError>,
    ) -> Result<T, ShareError> {
        let there = |tenant: &Self| open(tenant.share(share), &tenant.name(), tenant.epoch());
        there(self).or_else(|error| if self.go_alone() { there(self) } else { Err(error) })
    }

    /// Whether the owner, elsewhere, has begun anew in this row; if so it has here.
    pub fn follow(&mut self, share: &dyn SharedState) -> bool {
        self.lease.as_mut().is_some_and(|lease| lease.follow(share))
    }

    /// Nobody on this worker uses the place any more.
    pub fn release(&self, share: &dyn SharedState, now: u64) {
        if let Some(lease) = &self.lease {
            lease.release(share, now);
        }
    }

    /// How often there was no row to be had since this was last asked: once when it went alone, and once for each
    /// [`keep`](Self::keep) since that found none.
    pub fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// Whether it is alone, if that has changed since this was last asked.
    pub fn take_news(&mut self) -> Option<bool> {
        let alone = self.is_alone();
        (std::mem::replace(&mut self.told, alone) != alone).then_some(alone)
    }
}
