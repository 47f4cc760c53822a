//! What is seen of the requests of all workers, and the limit that an algorithm makes of it.
//!
//! Samples are summed up in each worker and added to shared numbers every few milliseconds, or every few requests.
//! When a window is over, whichever worker notices first takes the difference to the window's start, held in a shared
//! page, through the algorithm, and stores page and limit by compare-and-set. A worker that loses finds the work
//! done. So a request costs five additions and two reads at most, a worker one page each window.

use crate::control::{Nanos, Random};
use crate::share::{Cell, ShareError, SharedState};

use super::Ended;
use super::limit::{Algorithm, LONGEST, Limit, SAMPLES, WORDS, Window, Words};
use super::record::{Page, Record, Sums, since};

/// Samples are added to the shared numbers when so many are there, or the first of them is so old.
const BATCH: u64 = 16;
const BATCH_AGE: Nanos = 5_000_000;

/// A sample counts as so many times what is usual at most: a stream that ends after hours tells nothing of how long work
/// takes, and work that takes longer by then is so known some windows later.
const MOST: u64 = 10;

/// Numbers that all workers add to.
#[derive(Debug, Clone, Copy)]
struct Totals {
    limit: Cell,
    samples: Cell,
    microseconds: Cell,
    dropped: Cell,
    full: Cell,
    refused: Cell,
    left: Cell,
}

impl Totals {
    fn read(&self, share: &dyn SharedState) -> Sums {
        [self.samples, self.microseconds, self.dropped, self.full, self.refused, self.left].map(|cell| share.read(cell))
    }
}

/// A limit that is measured.
#[derive(Debug)]
pub(super) struct Measured {
    totals: Totals,
    page: Page,
    /// See [`Record::base`].
    base: i64,
    algorithm: Algorithm,
    /// When this worker looks at the page again.
    look_at: Nanos,
    /// As of the last look.
    pub limit: u32,
    /// The limit for those who are spared when it is lowered for a moment.
    pub spared: u32,
    stretches: bool,
    /// Mean latency of the last window with samples; 0 if there was none.
    usual: Nanos,
    /// Nothing was measured in this window, which has lasted as long as windows do, nor at the end of the one before.
    silent: bool,
    /// When this worker may let a request through again for what it can tell.
    try_at: Nanos,
    /// Mean latency of those few that were answered since nothing had been measured for long; 0 if there were none, or a
    /// whole window has told since. No sample is judged by it.
    lately: Nanos,
    /// The most this worker has read in flight in this window.
    pub peak: i64,
    batch: Batch,
}

/// Samples not yet added to the shared numbers.
#[derive(Debug, Default)]
struct Batch {
    samples: u64,
    microseconds: u64,
    dropped: i64,
    left: i64,
    since: Nanos,
}

impl Batch {
    fn flush(&mut self, share: &dyn SharedState, totals: &Totals) {
        let batch = std::mem::take(self);
        if batch.samples > 0 {
            share.add(totals.samples, i64::try_from(batch.samples).unwrap_or(i64::MAX));
            share.add(totals.microseconds, i64::try_from(batch.microseconds).unwrap_or(i64::MAX));
        }
        if batch.dropped > 0 {
            share.add(totals.dropped, batch.dropped);
        }
        if batch.left > 0 {
            share.add(totals.left, batch.left);
        }
    }
}

impl Measured {
    /// Hands on what this worker has seen.
    pub fn flush(&mut self, share: &dyn SharedState) {
        self.batch.flush(share, &self.totals);
    }

    /// A request found no place.
    pub fn refused(&self, share: &dyn SharedState) {
        share.add(self.totals.full, 1);
        share.add(self.totals.refused, 1);
    }

    /// Opens what is seen of the limit of this name, whose state is this page in this epoch.
    pub fn open(algorithm: Algorithm, share: &dyn SharedState, name: &str, page: Page) -> Result<Self, ShareError> {
        let cell = |what: &str| share.cell(&format!("{name}.{what}"));
        let totals = Totals {
            limit: cell("limit")?,
            samples: cell("samples")?,
            microseconds: cell("microseconds")?,
            dropped: cell("dropped")?,
            full: cell("full")?,
            refused: cell("refused")?,
            left: cell("left")?,
        };
        let mut measured = Self {
            totals,
            page,
            base: 0,
            algorithm,
            look_at: 0,
            limit: 0,
            spared: 0,
            stretches: false,
            usual: 0,
            silent: false,
            try_at: 0,
            lately: 0,
            peak: 0,
            batch: Batch::default(),
        };
        measured.begin(share)?;
        Ok(measured)
    }

    /// Writes the algorithm's first state if nobody has.
    fn begin(&mut self, share: &dyn SharedState) -> Result<(), ShareError> {
        loop {
            let (mut record, version) = self.page.load(share)?;
            let state = self.algorithm.restore(&record.words);
            if record.words == [0; WORDS] {
                record.words = state.words();
                record.base = share.read(self.totals.limit).saturating_sub(i64::from(state.limit()));
                match self.page.store(share, &record, version) {
                    Ok(()) => {}
                    Err(ShareError::Conflict) => continue,
                    Err(error) => return Err(error),
                }
            }
            self.base = record.base;
            self.heed(&record, &*state);
            return Ok(());
        }
    }

    fn heed(&mut self, record: &Record, state: &dyn Limit) {
        self.limit = state.limit();
        self.spared = state.spared();
        self.stretches = state.stretches();
        if self.usual != record.usual {
            (self.usual, self.lately) = (record.usual, 0);
        }
        self.look_at = record.start.saturating_add(state.period());
    }

    /// How long requests take, as far as known; 0 if nothing is.
    pub const fn latency(&self) -> Nanos {
        if self.lately > 0 { self.lately } else { self.usual }
    }

    /// Whether a request is to be let through for what it can tell, since nothing tells how long requests take now: one a second
    /// at each worker.
    pub fn tries(&mut self, now: Nanos) -> bool {
        let tries = self.silent && now >= self.try_at;
        if tries {
            self.try_at = now.saturating_add(super::WINDOW);
        }
        tries
    }

    /// A request has ended.
    pub fn sample(&mut self, share: &dyn SharedState, ended: Ended, took: Nanos, now: Nanos) {
        let counts = match ended {
            Ended::Success => true,
            // What fails faster than work is done says nothing of how long work takes.
            Ended::Failure => took >= self.usual,
            Ended::Dropped => {
                self.batch.dropped = self.batch.dropped.saturating_add(1);
                took >= self.usual
            }
            Ended::Left => {
                self.batch.left = self.batch.left.saturating_add(1);
                false
            }
            Ended::Ignored => false,
        };
        if self.batch.since == 0 {
            self.batch.since = now;
        }
        if counts {
            let most = if self.usual == 0 { Nanos::MAX } else { self.usual.saturating_mul(MOST) };
            let took = took.min(most);
            self.batch.samples = self.batch.samples.saturating_add(1);
            self.batch.microseconds = self.batch.microseconds.saturating_add(took / 1_000);
        }
        if self.batch.samples >= BATCH || now.saturating_sub(self.batch.since) >= BATCH_AGE {
            self.batch.flush(share, &self.totals);
        }
    }

    /// Ends the window if it is over, and goes by what the page says then.
    pub fn look(
        &mut self,
        share: &dyn SharedState,
        inflight: impl FnOnce() -> i64,
        now: Nanos,
        random: &mut dyn Random,
    ) -> Result<(), ShareError> {
        if now < self.look_at {
            return Ok(());
        }
        self.flush(share);
        let (mut record, version) = self.page.load(share)?;
        let mut state = self.algorithm.restore(&record.words);
        let before = record.words;
        let totals = self.totals.read(share);
        let period = state.period();
        let lasted = now.saturating_sub(record.start);
        // A first window, or one that nobody ended for long because nothing came, starts now.
        if record.start == 0 || lasted > period.saturating_mul(LONGEST).saturating_mul(2) {
            record.begin(now, totals);
            self.silent = true;
        } else {
            let samples = since(totals[0], record.samples);
            // Who is refused at once by the upstream is no sample. Of a drop that took as long as work does there is one, too.
            let drops = if state.heeds_drops() { since(totals[2], record.dropped) } else { 0 };
            let told = samples.max(drops) >= SAMPLES;
            let over = lasted >= period && (told || lasted >= period.saturating_mul(LONGEST));
            if !over {
                let was_silent = self.silent;
                self.silent = samples == 0 && (was_silent || lasted >= period);
                if was_silent && !self.silent {
                    // What few have shown is better than what was so long ago.
                    self.lately = self.window(&record, totals, lasted, 0, 0).rtt;
                }
                self.heed(&record, &*state);
                // Samples are few: no need to look for them at every request.
                self.look_at =
                    now.saturating_add(period / 8).max(self.look_at.min(record.start.saturating_add(period)));
                return Ok(());
            }
            let window = self.window(&record, totals, lasted, inflight(), state.limit());
            state.update(&window, random);
            record.begin(now, totals);
            self.silent = window.rtt == 0;
            if !self.silent {
                record.usual = window.rtt;
            }
            record.words = state.words();
        }
        match self.page.store(share, &record, version) {
            Ok(()) => {
                self.publish(share, &before, &*state);
                self.peak = 0;
                self.heed(&record, &*state);
                Ok(())
            }
            // Somebody ended the window: the next request looks at what it came to.
            Err(ShareError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What was seen since the window began.
    fn window(&self, record: &Record, totals: Sums, duration: Nanos, inflight: i64, limit: u32) -> Window {
        let [samples, microseconds, dropped, full, refused, left] = totals;
        let samples = since(samples, record.samples);
        let microseconds = since(microseconds, record.microseconds);
        let full = full > record.full;
        let inflight = u32::try_from(inflight).unwrap_or(0);
        let seen = u32::try_from(self.peak).unwrap_or(0).max(inflight);
        Window {
            duration,
            samples,
            rtt: microseconds.saturating_mul(1_000).checked_div(samples).unwrap_or(0),
            peak: if full { seen.max(limit) } else { seen },
            inflight,
            dropped: dropped > record.dropped,
            full,
            refused: refused > record.refused,
            left: left > record.left,
        }
    }

    /// The change of limit, told by the worker that stored it: the sum of all changes is the last limit.
    fn publish(&self, share: &dyn SharedState, before: &Words, state: &dyn Limit) {
        let before = self.algorithm.restore(before).limit();
        let change = i64::from(state.limit()).saturating_sub(i64::from(before));
        if change != 0 {
            share.add(self.totals.limit, change);
        }
    }

    /// Whether the limit is higher than this worker thought, or was raised now for a request that found so many in
    /// flight.
    pub fn raised(&mut self, share: &dyn SharedState, inflight: i64, now: Nanos) -> Result<bool, ShareError> {
        let limit = share.read(self.totals.limit).saturating_sub(self.base);
        let limit = u32::try_from(limit).unwrap_or(0).max(1);
        let before = std::mem::replace(&mut self.limit, limit);
        if limit > before {
            return Ok(true);
        }
        if !self.stretches {
            return Ok(false);
        }
        let (mut record, version) = self.page.load(share)?;
        let mut state = self.algorithm.restore(&record.words);
        let before = record.words;
        let lasted = now.saturating_sub(record.start);
        let so_far = self.window(&record, self.totals.read(share), lasted, inflight, state.limit());
        state.stretch(&so_far);
        record.words = state.words();
        if record.words == before {
            self.stretches = false;
            return Ok(false);
        }
        match self.page.store(share, &record, version) {
            Ok(()) => {
                self.publish(share, &before, &*state);
                let raised = state.limit() > limit;
                if raised {
                    share.add(self.totals.full, 1);
                }
                (self.limit, self.spared, self.stretches) = (state.limit(), state.spared(), state.stretches());
                Ok(raised)
            }
            // Somebody else changed the limit: try with what it is now.
            Err(ShareError::Conflict) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
