//! Where the breakers' state is: the pages, which key has which of them, and whose they are.

use super::record::page;
use super::settings::Settings;
use crate::control::Nanos;
use crate::control::directory::Directory;
use crate::share::{Pages, Return, ShareError, SharedState, Tenant};

/// Where the breakers of one policy are.
#[derive(Debug)]
pub(super) struct Places {
    /// None where the pages are nobody else's.
    tenant: Option<Tenant>,
    pub name: String,
    pub pages: Pages,
    directory: Directory,
}

impl Places {
    /// Pages of this name.
    pub fn new(settings: &Settings, share: &dyn SharedState, name: String) -> Result<Self, ShareError> {
        let (pages, directory) = open(settings, share, &name, 0)?;
        Ok(Self { tenant: None, name, pages, directory })
    }

    /// Pages under this name that are this owner's for as long as it says so.
    pub fn reusing(
        settings: &Settings,
        share: &dyn SharedState,
        name: &str,
        owner: u64,
        now: Nanos,
    ) -> Result<Self, ShareError> {
        // Only pages of the same length can follow each other.
        let name = format!("{name}/{}", page::length(settings));
        let tenant = Tenant::settle(share, name, owner, Return::BeginsAnew, now)?;
        let name = tenant.name();
        let (pages, directory) = open(settings, tenant.share(share), &name, tenant.epoch())?;
        Ok(Self { tenant: Some(tenant), name, pages, directory })
    }

    /// The state to use in the place of what workers share.
    pub fn share<'a>(&'a self, share: &'a dyn SharedState) -> &'a dyn SharedState {
        Tenant::share_of(&self.tenant, share)
    }

    /// The epoch of the pages.
    pub fn epoch(&self) -> u64 {
        self.tenant.as_ref().map_or(0, Tenant::epoch)
    }

    /// Tells these pages, in this epoch, from any others.
    pub fn life(&self) -> u64 {
        self.tenant.as_ref().map_or(0, Tenant::life)
    }

    /// The place of a key, taken if it has none.
    pub fn slot(&mut self, share: &dyn SharedState, key_hash: u64) -> Result<u32, ShareError> {
        let share = Tenant::share_of(&self.tenant, share);
        self.directory.slot(share, key_hash)
    }

    /// The place of a key, if it has one.
    pub fn find(&mut self, share: &dyn SharedState, key_hash: u64) -> Result<Option<u32>, ShareError> {
        let share = Tenant::share_of(&self.tenant, share);
        self.directory.find(share, key_hash)
    }

    /// If other workers have begun anew in these pages, so does this one.
    pub fn follow(&mut self, share: &dyn SharedState) -> bool {
        let moved = self.tenant.as_mut().is_some_and(|tenant| tenant.follow(share));
        if moved {
            self.directory.move_to(self.epoch());
        }
        moved
    }

    /// Says that the pages are in use, or finds others where they are lost; whether they are others now.
    pub fn keep(&mut self, settings: &Settings, share: &dyn SharedState, now: Nanos) -> bool {
        let Some(tenant) = self.tenant.as_mut() else { return false };
        if !tenant.keep(share, now) {
            return false;
        }
        let opened = tenant.move_in(share, |share, name, epoch| open(settings, share, name, epoch));
        let Ok((pages, directory)) = opened else { return false };
        *self = Self { name: tenant.name(), tenant: self.tenant.take(), pages, directory };
        true
    }

    /// Nobody on this worker uses them any more.
    pub fn release(&self, share: &dyn SharedState, now: Nanos) {
        if let Some(tenant) = &self.tenant {
            tenant.release(share, now);
        }
    }

    /// How often there were none to be had among what workers share since this was last asked.
    pub fn take_missed(&mut self) -> u64 {
        self.tenant.as_mut().map_or(0, Tenant::take_missed)
    }

    /// Whether this worker has breakers of its own, if that has changed since this was last asked.
    pub fn take_news(&mut self) -> Option<bool> {
        self.tenant.as_mut()?.take_news()
    }
}

fn open(
    settings: &Settings,
    share: &dyn SharedState,
    name: &str,
    epoch: u64,
) -> Result<(Pages, Directory), ShareError> {
    let count = settings.max_keys.saturating_add(1);
    let pages = share.pages(&format!("{name}.breakers"), count, &vec![0; page::length(settings)])?;
    Ok((pages, Directory::open(share, name, settings.max_keys, epoch)?))
}
