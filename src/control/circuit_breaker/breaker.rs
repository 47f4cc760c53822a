//! One breaker as one worker sees it: a copy of the shared record, and the cells that all workers add to.

use super::machine::{Admission, Ending};
use super::record::page::{self, Content};
use super::record::{Calls, Phase, Record};
use super::settings::{Settings, Window};
use super::state::{Counts, Denied, Grant, Heard, Probe, Transition, TripReason, Unjudged};
use super::window::{BUCKETS, Totals, judge};
use crate::control::{Nanos, Random};
use crate::share::{Cell, Pages, ShareError, SharedState, Version};

/// How often a change is tried against other workers'. One of them succeeds each time, so with fewer workers than
/// this a change fails only when the others keep changing the same page.
pub(super) const MAX_TRIES: u32 = 64;

/// Everything of one request or tick that a breaker needs: what is shared, the time, chance.
pub(super) struct At<'a> {
    pub settings: &'a Settings,
    pub share: &'a dyn SharedState,
    pub now: Nanos,
    pub rng: &'a mut dyn Random,
}

/// A grant with its generation or a refusal, and what changed on the way.
pub(super) type Decision = (Result<(u64, Grant), Denied>, Option<Transition>);

/// One breaker as one worker sees it.
#[derive(Debug)]
pub(super) struct Breaker {
    pub label: String,
    /// The key's; `None` for the breaker that many keys share.
    pub key_hash: Option<u64>,
    place: Place,
    cells: Cells,
    /// What `cells.changes` said before `record` was read; `None` before the first time.
    seen: Option<i64>,
    record: Record,
}

/// Where a breaker's page is, and the epoch it is to be written in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub pages: Pages,
    pub index: u32,
    pub epoch: u64,
}

impl Place {
    /// The record, and whether the page has been written in this epoch.
    fn load(self, settings: &Settings, share: &dyn SharedState) -> Result<(Record, bool, Version), ShareError> {
        let mut bytes = vec![0; page::length(settings)];
        let version = share.load(self.pages, self.index, &mut bytes)?;
        match page::read(&bytes, self.epoch, settings) {
            Some(Content::Record(record)) => Ok((record, true, version)),
            Some(Content::Nothing) => Ok((Record::new(settings), false, version)),
            Some(Content::Later) | None => Err(ShareError::Unavailable),
        }
    }
}

/// Numbers that only ever grow.
#[derive(Debug)]
struct Cells {
    /// Grows when a worker that goes by an old copy of the record could decide wrongly.
    changes: Cell,
    /// Totals of judged calls, in time windows only.
    totals: Option<TotalCells>,
}

#[derive(Debug)]
struct TotalCells {
    ok: Cell,
    failed: Cell,
    slow: Cell,
}

fn total(share: &dyn SharedState, cell: Cell) -> u64 {
    u64::try_from(share.read(cell)).unwrap_or(0)
}

impl TotalCells {
    fn read(&self, share: &dyn SharedState) -> Totals {
        Totals { ok: total(share, self.ok), failed: total(share, self.failed), slow: total(share, self.slow) }
    }

    /// What is in the window; `None` when the totals were reset from outside since it began. Other workers add while
    /// this one reads: what counts against the upstream is read before what it is divided by, so that a rate is never
    /// above the true one. What was missed, its own worker judges.
    fn window(&self, share: &dyn SharedState, base: Totals) -> Option<Counts> {
        let (failed, slow) = (total(share, self.failed), total(share, self.slow));
        let all = Totals { ok: total(share, self.ok), failed: total(share, self.failed), slow }.since(base)?;
        let failures = failed.checked_sub(base.failed)?;
        Some(Counts { failures: failures.min(all.calls), slow: all.slow.min(all.calls), ..all })
    }
}

impl Breaker {
    pub fn open(
        settings: &Settings,
        share: &dyn SharedState,
        (name, place): (&str, Place),
        (key_hash, label): (Option<u64>, String),
    ) -> Result<Self, ShareError> {
        let cell = |what: &str| share.cell(&format!("{name}.{}.{what}", place.index));
        let totals = match settings.window {
            Window::Time(_) => Some(TotalCells { ok: cell("ok")?, failed: cell("failed")?, slow: cell("slow")? }),
            Window::Count(_) => None,
        };
        let cells = Cells { changes: cell("changes")?, totals };
        Ok(Self { label, key_hash, place, cells, seen: None, record: Record::new(settings) })
    }

    /// The record, read again if it has changed since.
    pub fn record(&mut self, settings: &Settings, share: &dyn SharedState) -> Result<&Record, ShareError> {
        // Read before the page: a change in between is then seen at the next request.
        let changes = share.read(self.cells.changes);
        if self.seen != Some(changes) {
            (self.record, ..) = self.place.load(settings, share)?;
            self.seen = Some(changes);
        }
        Ok(&self.record)
    }

    /// Changes the record on behalf of all workers. `change` may run several times; only its last result counts.
    #[inline(never)]
    fn update<T>(
        &mut self,
        at: &mut At<'_>,
        mut change: impl FnMut(&mut Record, &mut At<'_>) -> T,
    ) -> Result<(T, Option<Transition>), ShareError> {
        for _ in 0..MAX_TRIES {
            let (before, written, version) = self.place.load(at.settings, at.share)?;
            let mut after = before.clone();
            let value = change(&mut after, at);
            let changed = after != before;
            if changed {
                let bytes = page::write(&after, self.place.epoch, page::length(at.settings));
                match at.share.store(self.place.pages, self.place.index, &bytes, version) {
                    Ok(()) => {}
                    Err(ShareError::Conflict) => continue,
                    Err(unavailable) => return Err(unavailable),
                }
            }
            let transition = after.transition_from(&before, at.now);
            self.record = after;
            // Also at the first change of an epoch: a worker that holds on to the one before learns that it is over.
            if transition.is_some() || (changed && !written) {
                self.tell(at.share);
            }
            return Ok((value, transition));
        }
        Err(ShareError::Conflict)
    }

    /// Makes every other worker read the record again. This one has just stored it, and need not if nobody else told too.
    fn tell(&mut self, share: &dyn SharedState) {
        share.add(self.cells.changes, 1);
        let before = self.seen.map(|seen| seen.wrapping_add(1));
        let now = Some(share.read(self.cells.changes));
        if now == before {
            self.seen = now;
        }
    }

    pub fn acquire(&mut self, at: &mut At<'_>) -> Result<Decision, ShareError> {
        let record = self.record(at.settings, at.share)?;
        match record.admission(at.settings, at.now, at.rng) {
            Admission::Admit => Ok((Ok((record.generation(), Grant::Call)), None)),
            Admission::Deny(denied) => Ok((Err(denied), None)),
            Admission::Ask => self.update(at, |record, at| {
                let grant = record.acquire(at.settings, at.now, at.rng);
                grant.map(|grant| (record.generation(), grant))
            }),
        }
    }

    /// Gives a probe's place back.
    pub fn give_back(
        &mut self,
        at: &mut At<'_>,
        probe: (u64, Probe),
        why: Unjudged,
    ) -> Result<Option<Transition>, ShareError> {
        let (given_back, transition) =
            self.update(at, |record, at| record.give_back(at.settings, probe, why, at.now, at.rng))?;
        if given_back && transition.is_none() {
            // Workers that had seen all places taken reject without looking.
            self.tell(at.share);
        }
        Ok(transition)
    }

    /// Notes what has been heard of a probe. Whether it was still out.
    pub fn hear(
        &mut self,
        at: &mut At<'_>,
        probe: (u64, Probe),
        heard: Heard,
    ) -> Result<(bool, Option<Transition>), ShareError> {
        // Nobody needs telling: whose copy is older asks the page when the probe's time is over.
        self.update(at, |record, at| record.hear(at.settings, probe, heard, at.now, at.rng))
    }

    /// A probe was answered.
    pub fn answer(
        &mut self,
        at: &mut At<'_>,
        probe: (u64, Probe),
        ending: Ending,
    ) -> Result<Option<Transition>, ShareError> {
        Ok(self.update(at, |record, at| record.answer(at.settings, probe, ending, at.now, at.rng))?.1)
    }

    /// A call through the closed breaker ended.
    pub fn settle(
        &mut self,
        at: &mut At<'_>,
        generation: u64,
        ending: Ending,
    ) -> Result<Option<Transition>, ShareError> {
        match at.settings.window {
            // The cells have no generation: look whether it is still the permit's before adding to them.
            Window::Time(_) if self.record(at.settings, at.share)?.generation() != generation => Ok(None),
            Window::Time(duration) => self.settle_by_time(at, generation, ending, duration),
            Window::Count(length) => self.settle_by_count(at, generation, ending, length),
        }
    }

    /// One compare-and-set: the ring is in the record, so the last calls are those of all workers, exactly.
    fn settle_by_count(
        &mut self,
        at: &mut At<'_>,
        generation: u64,
        ending: Ending,
        length: u32,
    ) -> Result<Option<Transition>, ShareError> {
        let settled = self.update(at, |record, at| {
            let Some(closed) = record.closed(generation) else { return };
            let Calls::Count(window) = &mut closed.calls else { return };
            window.record(length, ending.outcome.failed(), ending.slow);
            let counts = window.counts;
            closed.count_run(ending.outcome);
            closed.heed(at.settings, ending.outcome, at.now);
            if let Some(reason) = run_trips(at.settings, closed.run).or_else(|| judge(at.settings, counts)) {
                record.trip(at.settings, generation, (reason, counts), at.now, at.rng);
            }
        });
        Ok(settled?.1)
    }

    /// The workers add to cells, and the record says what the totals were when each bucket began.
    fn settle_by_time(
        &mut self,
        at: &mut At<'_>,
        generation: u64,
        ending: Ending,
        duration: Nanos,
    ) -> Result<Option<Transition>, ShareError> {
        let Some(base) = self.roll(at, generation, duration)? else { return Ok(None) };
        let Some(cells) = &self.cells.totals else { return Ok(None) };
        at.share.add(if ending.outcome.failed() { cells.failed } else { cells.ok }, 1);
        if ending.slow {
            at.share.add(cells.slow, 1);
        }
        // While nothing in the window is bad there is nothing to judge: a success costs one read more. A total below the
        // window's beginning is no window at all.
        let none = |cell, base| total(at.share, cell) == base;
        if none(cells.failed, base.failed) && (!at.settings.judges_slow() || none(cells.slow, base.slow)) {
            return Ok(None);
        }
        let Some(counts) = cells.window(at.share, base) else {
            return Ok(self.update(at, |record, _| record.forget_calls(generation))?.1);
        };
        let reason = judge(at.settings, counts);
        let runs = at.settings.consecutive_failures > 0 && ending.outcome.failed();
        let asked = at.settings.honor_retry_after && ending.outcome.retry_after().is_some();
        if !runs && !asked && reason.is_none() {
            return Ok(None);
        }
        let ok = cells.ok;
        let settled = self.update(at, |record, at| {
            let Some(closed) = record.closed(generation) else { return };
            closed.heed(at.settings, ending.outcome, at.now);
            // A success of any worker since the run's last failure has changed the total, and so ended the run.
            let ok = total(at.share, ok);
            if closed.run_ok != ok {
                closed.run = 0;
                closed.run_ok = ok;
            }
            closed.count_run(ending.outcome);
            if let Some(reason) = run_trips(at.settings, closed.run).or(reason) {
                record.trip(at.settings, generation, (reason, counts), at.now, at.rng);
            }
        });
        Ok(settled?.1)
    }

    /// Rolls the window to the bucket of `now` and says where it begins; `None` when the breaker has moved on.
    fn roll(&mut self, at: &mut At<'_>, generation: u64, duration: Nanos) -> Result<Option<Totals>, ShareError> {
        let bucket = at.now / (duration / BUCKETS as u64).max(1);
        if let Some(Calls::Time(window)) = self.record.closed(generation).map(|closed| &closed.calls)
            && !window.is_behind(bucket)
        {
            return Ok(Some(window.base()));
        }
        let Some(cells) = &self.cells.totals else { return Ok(None) };
        let totals = cells.read(at.share);
        let (base, _) = self.update(at, |record, _| match &mut record.closed(generation)?.calls {
            Calls::Time(window) => {
                window.roll(bucket, totals);
                Some(window.base())
            }
            Calls::Count(_) => None,
        })?;
        Ok(base)
    }

    /// Ends a half-open state whose probes are past their timeout. The page is read each time: which probes are out is known
    /// to the worker that let them through, and it may be gone.
    pub fn expire(&mut self, at: &mut At<'_>) -> Result<Option<Transition>, ShareError> {
        match self.record(at.settings, at.share)?.phase() {
            Phase::HalfOpen(_) => Ok(self.update(at, |record, at| record.expire(at.settings, at.now, at.rng))?.1),
            Phase::Closed(_) | Phase::Open(_) => Ok(None),
        }
    }
}

fn run_trips(settings: &Settings, run: u32) -> Option<TripReason> {
    (settings.consecutive_failures > 0 && run >= settings.consecutive_failures)
        .then_some(TripReason::ConsecutiveFailures)
}
