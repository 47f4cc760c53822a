//! Which workers are alive, so that what a dead one held can be taken back.
//!
//! A shared page has a record for each worker that has held anything: a number of its own, and a count that grows
//! with each of its heartbeats. A worker that sees another's count stand still during `MISSED` heartbeats of its
//! own and for `SILENCE` takes it for dead: it makes the record its own, and having done so, it alone takes back what
//! the dead worker held. Both must hold: when a whole process stands still, all workers' counts do, and none is taken
//! for dead when it goes on.
//!
//! The record is free for another once it has been said that all of it was taken back, at the next heartbeat. Until then each
//! finds the dead worker again, so that nothing is left where taking it back failed; and if the one who was at it dies
//! as well, its own count at that record stands still, and the next one does it.
//!
//! A worker that was only asleep finds its record another's at its next heartbeat, takes a new one and counts what it
//! holds anew.

use super::counted::Beat;
use super::{Nanos, Random};
use crate::share::{Pages, ShareError, SharedState};

/// Records in the page, 4 KiB in all; of more workers those beyond are not watched. A proxy has a worker for each hardware
/// thread by default, and machines have more than 64.
pub(super) const WORKERS: u32 = 256;

/// Heartbeats are so far apart, at least.
const BEAT: Nanos = 500_000_000;
/// How many heartbeats of the observer another worker may miss.
const MISSED: u32 = 6;
/// How long another worker may be silent.
const SILENCE: Nanos = 3_000_000_000;

const RECORD: usize = 16;
const PAGE: usize = RECORD * WORKERS as usize;
const TRIES: u32 = WORKERS;

/// The place of a worker that found the page full: it holds unwatched.
pub(super) const UNWATCHED: u32 = WORKERS;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    /// 0 is a free record.
    id: u64,
    beats: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    record: Record,
    since: Nanos,
    missed: u32,
}

/// All workers' records, as one worker sees them.
#[derive(Debug)]
pub struct Workers {
    pages: Pages,
    own: Option<(u32, u64)>,
    beat_at: Nanos,
    seen: Vec<Option<Seen>>,
    /// Whose places are taken back.
    burials: Vec<Burial>,
    /// Where this worker counts now, until what it holds has been counted there.
    rejoined: Option<u32>,
}

/// A dead worker's record.
#[derive(Debug, Clone, Copy)]
struct Burial {
    place: u32,
    /// What it says while nobody else has it.
    id: u64,
    /// All has been taken back.
    done: bool,
}

impl Workers {
    /// Opens the records of this name.
    ///
    /// # Errors
    /// [`ShareError`] where pages are not shared.
    pub fn open(share: &dyn SharedState, name: &str) -> Result<Self, ShareError> {
        let pages = share.pages(&format!("{name}.workers"), 1, &[0; PAGE])?;
        let seen = vec![None; WORKERS as usize];
        Ok(Self { pages, own: None, beat_at: 0, seen, burials: Vec::new(), rejoined: None })
    }

    /// This worker's place; taken at first use, since workers that serve no traffic need none.
    ///
    /// # Errors
    /// Those of the shared page.
    pub fn own(&mut self, share: &dyn SharedState, random: &mut dyn Random) -> Result<u32, ShareError> {
        match self.own {
            Some((place, _)) => Ok(place),
            None => self.take(share, random),
        }
    }

    fn take(&mut self, share: &dyn SharedState, random: &mut dyn Random) -> Result<u32, ShareError> {
        let id = random.next_u64().max(1);
        let place = self.update(share, |records| {
            // Among the free records, the one least used: a worker that was asleep may still count under its old one.
            let free = (0..).zip(records.iter_mut()).filter(|(_, record)| record.id == 0);
            let (place, record) = free.min_by_key(|(_, record)| record.beats)?;
            *record = Record { id, beats: record.beats.saturating_add(1) };
            Some(place)
        })?;
        let place = place.unwrap_or(UNWATCHED);
        self.own = Some((place, id));
        Ok(place)
    }

    /// Whether it is time for a heartbeat: any other call of [`beat`](Self::beat) does nothing.
    pub fn is_due(&self, now: Nanos) -> bool {
        now >= self.beat_at
    }

    /// Shows that this worker is alive, and looks at the others. Cheap when called too often. What it finds out it does again and
    /// again until [`heeded`](Self::heeded) is called.
    ///
    /// # Errors
    /// Those of the shared page; the next call does what this one did not.
    pub fn beat(&mut self, share: &dyn SharedState, now: Nanos, random: &mut dyn Random) -> Result<Beat, ShareError> {
        if !self.is_due(now) {
            return Ok(Beat::default());
        }
        self.beat_at = now.saturating_add(BEAT);
        let own = self.own.filter(|(place, _)| *place != UNWATCHED);
        let mut seen = self.seen.clone();
        let mut claim = None;
        let (burials, lost) = self.update(share, |records| {
            seen.clone_from(&self.seen);
            let mut burials = Vec::new();
            let mut lost = false;
            for ((place, record), seen) in (0..).zip(records.iter_mut()).zip(&mut seen) {
                if let Some((own, id)) = own
                    && own == place
                {
                    lost = record.id != id;
                    if !lost {
                        record.beats = record.beats.saturating_add(1);
                    }
                    *seen = None;
                } else if let Some(burial) = self.burials.iter().find(|one| (one.place, one.id) == (place, record.id)) {
                    *seen = None;
                    if burial.done {
                        // The count stays: it tells how much a record has been used.
                        record.id = 0;
                    } else {
                        record.beats = record.beats.saturating_add(1);
                        burials.push(*burial);
                    }
                } else if record.id == 0 {
                    *seen = None;
                } else if silent(seen, *record, now) {
                    record.id = *claim.get_or_insert_with(|| random.next_u64().max(1));
                    burials.push(Burial { place, id: record.id, done: false });
                    *seen = None;
                }
            }
            (burials, lost)
        })?;
        (self.seen, self.burials) = (seen, burials);
        if lost {
            self.rejoined = Some(self.take(share, random)?);
        }
        Ok(Beat { dead: self.burials.iter().map(|burial| burial.place).collect(), rejoined: self.rejoined })
    }

    /// What a heartbeat found out has been heeded, everywhere.
    pub fn heeded(&mut self, beat: &Beat) {
        self.rejoined = self.rejoined.filter(|_| beat.rejoined.is_none());
        for burial in self.burials.iter_mut().filter(|burial| beat.dead.contains(&burial.place)) {
            burial.done = true;
        }
    }

    /// Changes the records by compare-and-set.
    fn update<T>(&self, share: &dyn SharedState, mut change: impl FnMut(&mut [Record]) -> T) -> Result<T, ShareError> {
        let mut bytes = [0; PAGE];
        for _ in 0..TRIES {
            let version = share.load(self.pages, 0, &mut bytes)?;
            let (words, _) = bytes.as_chunks::<8>();
            let mut words = words.iter().copied().map(u64::from_le_bytes);
            let mut records = [Record::default(); WORKERS as usize];
            for record in &mut records {
                *record = Record { id: words.next().unwrap_or(0), beats: words.next().unwrap_or(0) };
            }
            let before = records;
            let changed = change(&mut records);
            if records == before {
                return Ok(changed);
            }
            let (chunks, _) = bytes.as_chunks_mut::<8>();
            for (chunk, word) in chunks.iter_mut().zip(records.iter().flat_map(|record| [record.id, record.beats])) {
                *chunk = word.to_le_bytes();
            }
            match share.store(self.pages, 0, &bytes, version) {
                Ok(()) => return Ok(changed),
                Err(ShareError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ShareError::Conflict)
    }
}

/// Notes what is seen of another worker; whether it has been silent for too long.
fn silent(seen: &mut Option<Seen>, record: Record, now: Nanos) -> bool {
    match seen {
        Some(before) if before.record == record => {
            before.missed = before.missed.saturating_add(1);
            before.missed >= MISSED && now.saturating_sub(before.since) >= SILENCE
        }
        _ => {
            *seen = Some(Seen { record, since: now, missed: 0 });
            false
        }
    }
}
