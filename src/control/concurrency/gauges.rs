//! The limits of one policy by slot, and where the state is of those that are found.
//!
//! What is in flight is so whatever the limit: its numbers have a name that does not change with settings. What was found belongs
//! to the settings it was found with. Those change, and a host forgets no name: so it is in a row that others use when it is
//! given up (see [`Tenant`]).

use std::rc::Rc;

use super::gauge::Gauge;
use super::measured::Measured;
use super::record::{self, Page};
use super::{Settings, SlotId};
use crate::control::Nanos;
use crate::control::counted::Name;
use crate::share::{Names, Pages, Return, ShareError, SharedState, Tenant};

use super::limit::Algorithm;

/// What workers share, and where what was found is: the same, unless this worker has it alone.
#[derive(Clone, Copy)]
pub(super) struct Shares<'a> {
    pub all: &'a dyn SharedState,
    pub found: &'a dyn SharedState,
}

impl<'a> Shares<'a> {
    fn of(tenant: &'a Option<Tenant>, share: &'a dyn SharedState) -> Self {
        Self { all: share, found: Tenant::share_of(tenant, share) }
    }
}

/// Where the limits' state is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    name: String,
    pages: Pages,
    epoch: u64,
}

/// All limits of a policy that this worker has seen.
#[derive(Debug)]
pub(super) struct Gauges {
    pub settings: Settings,
    /// The name of the number in flight; of each slot's, if there is a key.
    inflight: Rc<str>,
    /// None where the state is nobody else's.
    tenant: Option<Tenant>,
    /// None where nothing is measured.
    found: Option<Found>,
    /// By slot; `None` where this worker has not seen the key.
    all: Vec<Option<Box<Gauge>>>,
}

impl Found {
    fn open(settings: Settings, share: &dyn SharedState, name: &str, epoch: u64) -> Result<Self, ShareError> {
        let pages = record::pages(share, name, settings.max_keys.saturating_add(1))?;
        Ok(Self { name: name.to_owned(), pages, epoch })
    }

    fn measured(&self, settings: Settings, share: &dyn SharedState, slot: SlotId) -> Result<Measured, ShareError> {
        let name = format!("{}.{}", self.name, slot.0);
        Measured::open(settings.algorithm, share, &name, Page { pages: self.pages, index: slot.0, epoch: self.epoch })
    }
}

fn measures(settings: Settings) -> bool {
    settings.measure || !matches!(settings.algorithm, Algorithm::Fixed(_))
}

/// The numbers of a limit: how many are in flight, and at this worker; what is measured.
const NUMBERS: u64 = 2;
const MEASURED: u64 = 7;
/// What the allocator keeps beside a block, or memory of its own beside a page.
const BLOCK: usize = 32;

impl Gauges {
    /// How many bytes they take at most at a worker that has seen all of them, and finds limits by itself.
    pub fn bytes(settings: Settings) -> u64 {
        let own = size_of::<Gauge>() + BLOCK + size_of::<Option<Box<Gauge>>>() * 2;
        let (pages, numbers) =
            if measures(settings) { (record::BYTES + BLOCK, NUMBERS + MEASURED) } else { (0, NUMBERS) };
        let each = u64::try_from(own.saturating_add(pages)).unwrap_or(u64::MAX).saturating_add(numbers * Names::BYTES);
        // Keys are 65 536 at most: it comes nowhere near 2^64.
        each.saturating_mul(u64::from(settings.max_keys).saturating_add(1))
    }

    /// Limits whose state has this name.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str, inflight: &str) -> Result<Self, ShareError> {
        let found = if measures(settings) { Some(Found::open(settings, share, name, 0)?) } else { None };
        Ok(Self { settings, inflight: inflight.into(), tenant: None, found, all: Vec::new() })
    }

    /// Limits whose state is this owner's, under this name, for as long as it says so.
    pub fn reusing(
        settings: Settings,
        share: &dyn SharedState,
        (name, owner): (String, u64),
        inflight: &str,
        now: Nanos,
    ) -> Result<Self, ShareError> {
        let tenant = Some(Tenant::settle(share, name, owner, Return::Resumes, now)?);
        let mut gauges = Self { settings, inflight: inflight.into(), tenant, found: None, all: Vec::new() };
        gauges.move_in(share)?;
        Ok(gauges)
    }

    /// The name of the number in flight.
    pub fn inflight(&self) -> &str {
        &self.inflight
    }

    /// The name of the place, which others of the same settings have too. For what goes with the limits.
    pub fn place(&self) -> String {
        self.tenant.as_ref().map_or_else(|| self.inflight.to_string(), Tenant::name)
    }

    /// The limit of a slot, and what to ask it with.
    pub fn open<'a>(
        &'a mut self,
        share: &'a dyn SharedState,
        slot: SlotId,
    ) -> Result<(&'a mut Gauge, Shares<'a>), ShareError> {
        let at = usize::try_from(slot.0).unwrap_or(usize::MAX);
        if self.all.len() <= at {
            self.all.resize_with(at.saturating_add(1), || None);
        }
        let shares = Shares::of(&self.tenant, share);
        let Some(place) = self.all.get_mut(at) else { return Err(ShareError::Unavailable) };
        let gauge = match place {
            Some(gauge) => gauge,
            None => {
                let Self { settings, found, .. } = self;
                let measured = found.as_ref().map(|found| found.measured(*settings, shares.found, slot)).transpose()?;
                let inflight = match settings.max_keys {
                    0 => Name::from(&*self.inflight),
                    _ => Name::of(&self.inflight, slot.0),
                };
                place.insert(Box::new(Gauge::open(*settings, share, inflight, measured)?))
            }
        };
        Ok((gauge, shares))
    }

    /// All that this worker has seen, and what to ask them with.
    pub fn each<'a>(&'a mut self, share: &'a dyn SharedState) -> (impl Iterator<Item = &'a mut Gauge>, Shares<'a>) {
        let shares = Shares::of(&self.tenant, share);
        (self.all.iter_mut().flatten().map(|gauge| &mut **gauge), shares)
    }

    /// The same, to look at only.
    pub fn iter(&self) -> impl Iterator<Item = &Gauge> {
        self.all.iter().flatten().map(|gauge| &**gauge)
    }

    pub fn get(&self, slot: SlotId) -> Option<&Gauge> {
        self.all.get(usize::try_from(slot.0).ok()?)?.as_deref()
    }

    pub fn get_mut(&mut self, slot: SlotId) -> Option<&mut Gauge> {
        self.all.get_mut(usize::try_from(slot.0).ok()?)?.as_deref_mut()
    }

    /// One that this worker has seen, and what to ask it with.
    pub fn seen<'a>(&'a mut self, share: &'a dyn SharedState, slot: SlotId) -> Option<(&'a mut Gauge, Shares<'a>)> {
        let shares = Shares::of(&self.tenant, share);
        let gauge = self.all.get_mut(usize::try_from(slot.0).ok()?)?.as_deref_mut()?;
        Some((gauge, shares))
    }

    /// Says that the place of what was found is in use, and looks for one where there is none.
    pub fn keep(&mut self, share: &dyn SharedState, now: Nanos) -> Result<(), ShareError> {
        let moved = self.tenant.as_mut().is_some_and(|tenant| tenant.keep(share, now));
        if moved { self.move_in(share) } else { Ok(()) }
    }

    /// The same, at once, where the pages are of no use. Whether they are others now.
    pub fn recover(&mut self, share: &dyn SharedState, now: Nanos) -> bool {
        self.tenant.as_mut().is_some_and(|tenant| tenant.recover(share, now)) && self.move_in(share).is_ok()
    }

    /// What is found begins anew at the tenant's place; what is in flight stays so.
    fn move_in(&mut self, share: &dyn SharedState) -> Result<(), ShareError> {
        let settings = self.settings;
        let Some(tenant) = self.tenant.as_mut().filter(|_| measures(settings)) else { return Ok(()) };
        let seen = || (0..).map(SlotId).zip(&self.all).filter(|(_, gauge)| gauge.is_some()).map(|(slot, _)| slot);
        // All of them or none: with what cannot be opened there this worker is alone, where all can be.
        let (found, measured) = tenant.move_in(share, |share, name, epoch| {
            let found = Found::open(settings, share, name, epoch)?;
            let measured = seen().map(|slot| found.measured(settings, share, slot)).collect::<Result<Vec<_>, _>>()?;
            Ok((found, measured))
        })?;
        for (gauge, measured) in self.all.iter_mut().flatten().zip(measured) {
            gauge.measure_with(measured);
        }
        self.found = Some(found);
        Ok(())
    }

    /// Nobody on this worker uses the place any more.
    pub fn release(&self, share: &dyn SharedState, now: Nanos) {
        if let Some(tenant) = &self.tenant {
            tenant.release(share, now);
        }
    }

    /// How often there was no place to find limits in together since this was last asked. Where nothing is found none is missed.
    pub fn take_missed(&mut self) -> u64 {
        self.tenant.as_mut().filter(|_| self.found.is_some()).map_or(0, Tenant::take_missed)
    }

    /// Whether this worker finds limits of its own, if that has changed since this was last asked.
    pub fn take_news(&mut self) -> Option<bool> {
        self.tenant.as_mut().filter(|_| self.found.is_some())?.take_news()
    }
}
