//! Success-rate throttle: what an upstream that fails would be sent in vain is, by and by, not sent.
//!
//! Of `n` requests sent during the window `s` succeeded. While `s` is at least the threshold's share of `n` all pass;
//! below it a request is rejected with probability `(n - s / threshold) / (n + 1)`, at most `max_rejection`. Rejected
//! requests are not counted: they say nothing of the upstream. Fewer than `minimum_calls` in the window say nothing
//! either, and all pass.
//!
//! After Google's Site Reliability Engineering, "Handling Overload" (where the threshold is 1/K and rejected requests
//! count), in the form of Envoy's admission control filter.
//!
//! Counts are numbers all workers add to; a shared page holds their totals at the starts of ten parts of the window,
//! so that all workers judge the same window. A worker works the probability out anew a hundred times a second at
//! most.
//!
//! Settings change, and a host forgets no name: a throttle whose settings do has its page in a row that others use when it is
//! given up (see [`Tenant`]). The numbers under a row only grow, and whoever takes it over begins with what they are.
//!
//! Limits: a worker sees what others counted up to ten milliseconds late; the window's oldest tenth leaves at once. A request
//! that began before a row was given up, and ends after another has it, counts for that one.

use super::{Nanos, Random};
use crate::share::{Cell, Pages, Return, ShareError, SharedState, Tenant};

/// What a throttle does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// In ten-thousandths: above this success rate nothing is rejected.
    pub success_threshold: u32,
    /// Over which time the rate is taken.
    pub window: Nanos,
    /// In ten-thousandths: the most that is rejected.
    pub max_rejection: u32,
    /// Nothing is rejected before so many calls in the window.
    pub minimum_calls: u64,
}

const ALL: f64 = 10_000.0;

impl Settings {
    /// With which probability a request is rejected when of so many calls so many succeeded.
    pub fn rejection(&self, calls: u64, successes: u64) -> f64 {
        if calls < self.minimum_calls {
            return 0.0;
        }
        let calls = calls as f64;
        let enough = successes as f64 * ALL / f64::from(self.success_threshold.max(1));
        ((calls - enough) / (calls + 1.0)).max(0.0).min(f64::from(self.max_rejection) / ALL)
    }
}

const BUCKETS: usize = 10;
const PAGE: usize = 16 + BUCKETS * 16;
/// The probability is worked out anew after so long.
const FRESH: Nanos = 10_000_000;

/// Totals since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    calls: i64,
    successes: i64,
}

/// The page: which part of the window it is, and the totals at the start of each part, oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ring {
    bucket: u64,
    begins: [Totals; BUCKETS],
}

/// Where the counts are.
#[derive(Debug, Clone, Copy)]
struct Place {
    calls: Cell,
    successes: Cell,
    pages: Pages,
    epoch: u64,
}

/// One throttle, as one worker sees it.
#[derive(Debug)]
pub struct Throttle {
    settings: Settings,
    /// None where the page is nobody else's.
    tenant: Option<Tenant>,
    place: Place,
    ring: Ring,
    rejection: f64,
    stale_at: Nanos,
    errors: u64,
}

impl Throttle {
    /// Opens the throttle of this name. At configure time.
    ///
    /// # Errors
    /// [`ShareError`] where numbers or pages are not shared; open it in [`crate::share::Memory`] then, per worker.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str) -> Result<Self, ShareError> {
        Ok(Self::at(settings, None, Place::open(share, name, 0)?))
    }

    /// The same where settings change and the host never forgets a name: those with the same `owner`, a digest of the
    /// settings, count together, and others under the name have a place of their own. A place that nobody uses any more is
    /// used again. [`keep`](Self::keep) tells that this one is in use.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reusing(
        settings: Settings,
        share: &dyn SharedState,
        name: &str,
        owner: u64,
        now: Nanos,
    ) -> Result<Self, ShareError> {
        let mut tenant = Tenant::settle(share, name.to_owned(), owner, Return::Resumes, now)?;
        let place = Place::open(tenant.share(share), &tenant.name(), tenant.epoch())?;
        let errors = tenant.take_missed();
        Ok(Self { errors, ..Self::at(settings, Some(tenant), place) })
    }

    fn at(settings: Settings, tenant: Option<Tenant>, place: Place) -> Self {
        Self { settings, tenant, place, ring: Ring::default(), rejection: 0.0, stale_at: 0, errors: 0 }
    }

    /// Says that the place is in use, and looks for one where it has none; every second or so, by any worker.
    pub fn keep(&mut self, share: &dyn SharedState, now: Nanos) {
        let Some(tenant) = &mut self.tenant else { return };
        if tenant.keep(share, now)
            && let Ok(place) = tenant.move_in(share, Place::open)
        {
            (self.place, self.ring, self.rejection, self.stale_at) = (place, Ring::default(), 0.0, 0);
        }
        self.errors = self.errors.saturating_add(tenant.take_missed());
    }

    /// Nobody on this worker uses it any more.
    pub fn release(&self, share: &dyn SharedState, now: Nanos) {
        if let Some(tenant) = &self.tenant {
            tenant.release(share, now);
        }
    }

    /// Whether each worker counts by itself, if that has changed since this was last asked.
    pub fn take_news(&mut self) -> Option<bool> {
        self.tenant.as_mut()?.take_news()
    }

    /// Whether a request may pass. One that may is told of at its end by [`settle`](Self::settle), or forgotten.
    pub fn admits(&mut self, share: &dyn SharedState, now: Nanos, random: &mut dyn Random) -> bool {
        self.tick(share, now);
        // Nothing is drawn while all is well.
        self.rejection <= 0.0 || uniform(random) >= self.rejection
    }

    /// Works out anew what is rejected, unless that is fresh. A worker that has no traffic would otherwise go on telling
    /// what was.
    pub fn tick(&mut self, share: &dyn SharedState, now: Nanos) {
        if now < self.stale_at {
            return;
        }
        self.stale_at = now.saturating_add(FRESH);
        self.rejection = self.judge(share, now).unwrap_or_else(|_| {
            self.errors = self.errors.saturating_add(1);
            0.0
        });
    }

    /// A request that was let pass has ended. Those that tell nothing of the upstream are not told of.
    pub fn settle(&self, share: &dyn SharedState, success: bool) {
        let share = Tenant::share_of(&self.tenant, share);
        share.add(self.place.calls, 1);
        if success {
            share.add(self.place.successes, 1);
        }
    }

    /// With which probability requests are rejected, as last worked out.
    pub fn rejection(&self) -> f64 {
        self.rejection
    }

    /// The same in percent, rounded.
    pub fn rejection_percent(&self) -> u64 {
        // From 0 to 100 by its making; a cast would saturate.
        (self.rejection * 100.0).round() as u64
    }

    /// How often shared state failed since the last time this was asked; requests passed meanwhile.
    pub fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors)
    }

    fn judge(&mut self, share: &dyn SharedState, now: Nanos) -> Result<f64, ShareError> {
        let Self { settings, tenant, place, ring, .. } = self;
        let share = Tenant::share_of(tenant, share);
        let bucket = (now / (settings.window / BUCKETS as u64).max(1)).max(1);
        let totals = place.totals(share);
        if ring.bucket < bucket {
            *ring = place.roll(share, bucket, totals)?;
        }
        let [begin, ..] = ring.begins;
        let since = |now: i64, then: i64| u64::try_from(now.saturating_sub(then)).unwrap_or(0);
        let calls = since(totals.calls, begin.calls);
        // A call may have been added between the two reads.
        let successes = since(totals.successes, begin.successes).min(calls);
        Ok(settings.rejection(calls, successes))
    }
}

impl Place {
    fn open(share: &dyn SharedState, name: &str, epoch: u64) -> Result<Self, ShareError> {
        Ok(Self {
            calls: share.cell(&format!("{name}.throttle.calls"))?,
            successes: share.cell(&format!("{name}.throttle.successes"))?,
            pages: share.pages(&format!("{name}.throttle"), 1, &[0; PAGE])?,
            epoch,
        })
    }

    fn totals(&self, share: &dyn SharedState) -> Totals {
        Totals { calls: share.read(self.calls), successes: share.read(self.successes) }
    }

    /// Goes on to another part of the window, unless another worker has.
    fn roll(&self, share: &dyn SharedState, bucket: u64, totals: Totals) -> Result<Ring, ShareError> {
        let mut bytes = [0; PAGE];
        let version = share.load(self.pages, 0, &mut bytes)?;
        let before = Ring::decode(&bytes, self.epoch)?;
        if before.bucket >= bucket {
            return Ok(before);
        }
        let mut next = before;
        next.roll(bucket, totals);
        match share.store(self.pages, 0, &next.encode(self.epoch), version) {
            Ok(()) => Ok(next),
            // Whoever loses reads the winner's ring at its next look, and this one is as good until then.
            Err(ShareError::Conflict) => Ok(before),
            Err(error) => Err(error),
        }
    }
}

impl Ring {
    /// Goes on to another part. Parts in which nobody looked begin where this one does.
    fn roll(&mut self, bucket: u64, totals: Totals) {
        let passed = usize::try_from(bucket.saturating_sub(self.bucket)).unwrap_or(BUCKETS).min(BUCKETS);
        self.begins.rotate_left(passed % BUCKETS);
        for begin in self.begins.iter_mut().rev().take(passed) {
            *begin = totals;
        }
        self.bucket = bucket;
    }

    /// Pages of an earlier epoch are empty; one of a later epoch is another's by now.
    fn decode(bytes: &[u8; PAGE], epoch: u64) -> Result<Self, ShareError> {
        let (words, _) = bytes.as_chunks::<8>();
        let mut words = words.iter().copied().map(u64::from_le_bytes);
        let mut next = || words.next().unwrap_or(0);
        let written = next();
        if written != epoch {
            return if written < epoch { Ok(Self::default()) } else { Err(ShareError::Unavailable) };
        }
        let bucket = next();
        let total = |_| Totals { calls: next().cast_signed(), successes: next().cast_signed() };
        Ok(Self { bucket, begins: std::array::from_fn(total) })
    }

    fn encode(&self, epoch: u64) -> [u8; PAGE] {
        let totals = self.begins.iter().flat_map(|total| [total.calls, total.successes]).map(i64::cast_unsigned);
        let mut bytes = [0; PAGE];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([epoch, self.bucket].into_iter().chain(totals))
        {
            *chunk = word.to_le_bytes();
        }
        bytes
    }
}

/// Uniform from 0 to 1, without 1.
fn uniform(random: &mut dyn Random) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
