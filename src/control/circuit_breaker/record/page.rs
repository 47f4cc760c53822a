//! A breaker's record as the bytes of a shared page: little-endian, of one length for all states of a policy's
//! breakers. All zeros is a breaker nobody has used, and so is a page of an earlier epoch: breakers of other settings
//! left it behind, or those of the same in another life.

use std::cmp::Ordering;

use super::{Calls, Closed, HalfOpen, Open, Phase, Record};
use crate::control::circuit_breaker::settings::{Settings, Window};
use crate::control::circuit_breaker::state::{Counts, Heard, Probe, State, TripReason};
use crate::control::circuit_breaker::window::{BUCKETS, CountWindow, TimeWindow, Totals};

/// Pages come in few lengths, so that those of one setting can be used again by the next.
const STEP: usize = 512;

/// The length of a page under these settings.
pub(in crate::control::circuit_breaker) fn length(settings: &Settings) -> usize {
    const HEADER: usize = 17;
    const TIME: usize = 9 + BUCKETS * 24;
    let window = match settings.window {
        Window::Time(_) => TIME,
        Window::Count(calls) => 28 + CountWindow::bytes(calls),
    };
    let closed = 29 + window;
    let half_open = 25 + 9 * usize::try_from(settings.probes).unwrap_or(0);
    const OPEN: usize = 37;
    (HEADER + closed.max(half_open).max(OPEN)).next_multiple_of(STEP)
}

/// What a page says to somebody of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control::circuit_breaker) enum Content {
    /// Nothing yet: it was written in an earlier epoch, or never.
    Nothing,
    /// This.
    Record(Record),
    /// It belongs to a later epoch.
    Later,
}

/// What is in these bytes for `epoch`; `None` when they are no page.
pub(in crate::control::circuit_breaker) fn read(bytes: &[u8], epoch: u64, settings: &Settings) -> Option<Content> {
    let from = &mut &*bytes;
    Some(match take(from)?.cmp(&epoch) {
        Ordering::Less => Content::Nothing,
        Ordering::Equal => Content::Record(decode(from, settings)?),
        Ordering::Greater => Content::Later,
    })
}

/// The bytes of a record of this epoch, as long as `length`.
pub(in crate::control::circuit_breaker) fn write(record: &Record, epoch: u64, length: usize) -> Vec<u8> {
    let mut to = Vec::with_capacity(length);
    put(&mut to, epoch);
    encode(&mut to, record);
    to.resize(length, 0);
    to
}

fn encode(to: &mut Vec<u8>, record: &Record) {
    put(to, record.generation);
    to.push(record.state().code());
    match &record.phase {
        Phase::Closed(closed) => encode_closed(to, closed),
        Phase::Open(open) => {
            put(to, open.until);
            put_u32(to, open.round);
            to.push(reason_code(open.reason));
            put_counts(to, open.counts);
        }
        Phase::HalfOpen(half) => {
            for number in [half.round, half.good, half.slow, u32::try_from(half.out.len()).unwrap_or(u32::MAX)] {
                put_u32(to, number);
            }
            to.push(reason_code(half.reason));
            put(to, half.silence);
            for probe in &half.out {
                put(to, probe.at);
                to.push(heard_code(probe.heard));
            }
        }
    }
}

fn encode_closed(to: &mut Vec<u8>, closed: &Closed) {
    put_option(to, closed.since);
    put(to, closed.asked_until);
    put_u32(to, closed.run);
    put(to, closed.run_ok);
    match &closed.calls {
        Calls::Time(window) => {
            put_option(to, window.bucket);
            for begin in &window.begins {
                [begin.ok, begin.failed, begin.slow].into_iter().for_each(|total| put(to, total));
            }
        }
        Calls::Count(window) => {
            put_u32(to, window.next);
            put_counts(to, window.counts);
            to.extend_from_slice(&window.ring);
        }
    }
}

fn decode(from: &mut &[u8], settings: &Settings) -> Option<Record> {
    let generation = take(from)?;
    let phase = match take_u8(from)? {
        code if code == State::Closed.code() => decode_closed(from, settings)?.into(),
        code if code == State::Open.code() => Phase::Open(Open {
            until: take(from)?,
            round: take_u32(from)?,
            reason: reason(take_u8(from)?)?,
            counts: take_counts(from)?,
        }),
        code if code == State::HalfOpen.code() => {
            let (round, good, slow, out) = (take_u32(from)?, take_u32(from)?, take_u32(from)?, take_u32(from)?);
            let reason = reason(take_u8(from)?)?;
            let silence = take(from)?;
            Phase::HalfOpen(HalfOpen {
                round,
                reason,
                good,
                slow,
                silence,
                out: (0..out).map(|_| take_probe(from)).collect::<Option<_>>()?,
            })
        }
        _ => return None,
    };
    Some(Record { generation, phase })
}

fn decode_closed(from: &mut &[u8], settings: &Settings) -> Option<Closed> {
    let since = take_option(from)?;
    let asked_until = take(from)?;
    let run = take_u32(from)?;
    let run_ok = take(from)?;
    let calls = match settings.window {
        Window::Time(_) => {
            let bucket = take_option(from)?;
            let mut begins = [Totals::default(); BUCKETS];
            for begin in &mut begins {
                *begin = Totals { ok: take(from)?, failed: take(from)?, slow: take(from)? };
            }
            Calls::Time(TimeWindow { bucket, begins })
        }
        Window::Count(calls) => {
            let next = take_u32(from)?;
            let counts = take_counts(from)?;
            let ring = from.split_at_checked(CountWindow::bytes(calls))?.0.to_vec();
            Calls::Count(CountWindow { next, counts, ring })
        }
    };
    Some(Closed { since, asked_until, run, run_ok, calls })
}

fn put(to: &mut Vec<u8>, number: u64) {
    to.extend_from_slice(&number.to_le_bytes());
}

fn put_u32(to: &mut Vec<u8>, number: u32) {
    to.extend_from_slice(&number.to_le_bytes());
}

fn put_option(to: &mut Vec<u8>, number: Option<u64>) {
    to.push(u8::from(number.is_some()));
    put(to, number.unwrap_or(0));
}

fn put_counts(to: &mut Vec<u8>, counts: Counts) {
    [counts.calls, counts.failures, counts.slow].into_iter().for_each(|count| put(to, count));
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let (number, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_le_bytes(*number))
}

fn take_u32(from: &mut &[u8]) -> Option<u32> {
    let (number, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u32::from_le_bytes(*number))
}

fn take_u8(from: &mut &[u8]) -> Option<u8> {
    let (number, rest) = from.split_first()?;
    *from = rest;
    Some(*number)
}

fn take_option(from: &mut &[u8]) -> Option<Option<u64>> {
    let some = take_u8(from)? != 0;
    let number = take(from)?;
    Some(some.then_some(number))
}

fn take_counts(from: &mut &[u8]) -> Option<Counts> {
    Some(Counts { calls: take(from)?, failures: take(from)?, slow: take(from)? })
}

fn take_probe(from: &mut &[u8]) -> Option<Probe> {
    Some(Probe { at: take(from)?, heard: heard(take_u8(from)?)? })
}

fn heard_code(heard: Heard) -> u8 {
    match heard {
        Heard::Nothing => 0,
        Heard::Good => 1,
        Heard::Slow => 2,
    }
}

fn heard(code: u8) -> Option<Heard> {
    Some(match code {
        0 => Heard::Nothing,
        1 => Heard::Good,
        2 => Heard::Slow,
        _ => return None,
    })
}

fn reason_code(reason: TripReason) -> u8 {
    match reason {
        TripReason::FailureRate => 0,
        TripReason::SlowCallRate => 1,
        TripReason::ConsecutiveFailures => 2,
        TripReason::ProbeFailed => 3,
        TripReason::ProbeTimeout => 4,
    }
}

fn reason(code: u8) -> Option<TripReason> {
    Some(match code {
        0 => TripReason::FailureRate,
        1 => TripReason::SlowCallRate,
        2 => TripReason::ConsecutiveFailures,
        3 => TripReason::ProbeFailed,
        4 => TripReason::ProbeTimeout,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
