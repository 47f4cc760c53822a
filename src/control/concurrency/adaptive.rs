//! Tidegate's own algorithm: as many as the upstream works on at once, three times.
//!
//! By Little's law an upstream that answers `x` requests a second, each of which takes `base` when it need not wait,
//! works on `x * base` of them at once: the knee. More than that in flight wait. The limit under overload is `GAIN`
//! knees: what is in flight keeps the upstream busy, and waits two times as long as it is worked on.
//!
//! - **Growth.** A request that finds no place raises the limit, there and then: by half in the first window, by less while that
//!   goes on, and while a queue stands to `ROOM` knees at most. A queue *stands* in a window answered in twice `base` or
//!   more (one and a half times while the limit rises) at whose end two knees or more are in flight. A burst that drains,
//!   a load that the upstream can carry, and clients that each wait for their answer, up to `ROOM` knees of them, so find room
//!   from the first request on, however they come.
//! - **Overload** is when a queue stands and requests are refused: once with `ROOM` knees in flight, else in `LASTS` windows
//!   in a row, or after it has stood for `STOOD`. The limit then goes to `GAIN` knees, by three tenths a window at most, about
//!   as fast as the upstream drains, and grows by a quarter a window while the queue is gone but requests find no place.
//!   It is over after `AFTER` windows in which all found one.
//! - **Load alone** never lowers it, however slow answers are: while all requests find a place the limit stays, or
//!   sinks slowly towards twice what was in flight at most, but not below its start.
//! - **`base`** follows the mean latency of windows in which all found a place and no queue stood. Under overload it
//!   cannot be seen, so now and then the limit *dips* below the knee: the queue drains, what had waited leaves, and a
//!   window measures. Was `base` too high, work was waiting all the time: it sinks, and the limit dips again at once.
//!   Was it too low, it is set right. A dip that changes little doubles the time to the next. Requests with the whole share are
//!   spared dips, unless they are so many that nothing drains or more are in flight than the dip allows.
//! - **Doubt**: latency that a queue under this limit cannot explain, or a limit that has been halved, is looked into
//!   at once, with half as many in flight, and half of those. When they take no longer than twice `base` a dip tells the
//!   rest. When half as many take as long as before they do not wait: that is `base` now, and the limit grows from there.
//! - **Stalls**: on a machine that others use the upstream, a worker or the clients stand still for a moment now and then.
//!   Whatever was in flight then took long, and looks like slow work. So before each measurement all leave that were in
//!   flight, one window alone raises `base` by little, and one that saw more answered than Little's law has in flight, or
//!   slower ones than before though fewer, is measured again. After all of that the limit soon dips again.
//! - **A blind start.** What the first answers took is not trusted while requests find no place, or more are in flight than
//!   at the start: they may have waited behind whatever came before anything was known. When requests are refused the limit
//!   goes back to its start until few are in flight, and measures then, each time with half as many in flight (down to a
//!   quarter of the start), until two measurements in a row agree.
//! - **Nobody answered.** While requests are refused, nobody is answered and clients give up, nothing is measured. The limit
//!   goes back to its start, then by halves to its least for as long as those whom it lets in give up too, and the start is
//!   blind again.
//! - **Streams** are in flight until their clients or servers end them. What by Little's law is in flight beyond those that are answered
//!   is taken for streams, slowly while a queue may grow; the knees are of the others, and the limit that, and the streams. A start that is
//!   blind measures them too. If nobody is answered for two seconds, half a second at a blind start or in a dip, though requests are
//!   refused and nobody gives up, all in flight are taken for streams, and a few more are let in: what becomes of them tells.
//!
//! It fails where the mean latency says little of the upstream: where long and short requests alternate in waves much
//! longer than a window, or where one of many servers behind the limit is slow alone. An upstream close to its
//! capacity whose service times scatter much queues by itself; a few per cent of its load is then rejected. More clients
//! than `ROOM` knees that each wait for their answer, and come slowly, look like overload that grows.

mod measuring;
mod streams;

use super::limit::{Bounds, Limit, SAMPLES, Window, Words, pack, unpack, whole};
use crate::control::{Nanos, Random};

/// Knees in flight under overload.
const GAIN: f64 = 3.0;
/// Knees in flight up to which the limit is raised although a queue stands: clients that ask again when they are answered may
/// be so many.
const ROOM: f64 = 7.0;
/// By how much it is raised for a request that finds no place.
const STEP: f64 = 1.5;
/// The same while the load has grown for longer than a burst.
const SMALL_STEP: f64 = 1.15;
/// A queue may stand when latency is so many times `base`.
const STANDING: f64 = 2.0;
/// The same while requests find no place: it grows then, and latency tells of it later.
const GROWING: f64 = 1.5;
/// How fast `base` follows what is seen while nobody waits, down and up. Up is slow: a little waiting is in it.
const DOWN: f64 = 0.03;
const UP: f64 = 0.01;
/// Part of a knee in flight during a dip.
const DIP: f64 = 0.65;
/// Until `base` is the mean of so many windows they are short.
const SURE: f64 = 8.0;
const SHORT: Nanos = 200_000_000;
/// Windows under overload to the next dip, at first.
const DIP_AFTER: f64 = 16.0;
/// Windows in a row in which a queue stands, after which no burst is thought of.
const STOOD: f64 = 4.0;
/// The same of windows in which requests find no place.
const LASTS: f64 = 3.0;
/// Windows in which everybody finds a place, after which an overload is over.
const AFTER: f64 = 10.0;
/// Windows last so many times `base`, within bounds.
const PERIOD: f64 = 2.5;
/// The first window, in which `base` is not known yet.
const FIRST: Nanos = 10_000_000;
/// What was seen of a window that is not over tells something from this age on.
const TELLS: Nanos = 15_000_000;
const SHORTEST: Nanos = 50_000_000;
const LONGEST: Nanos = 2_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Normal,
    /// The queue drains before a measurement.
    Drain,
    /// It has drained; what had waited leaves.
    Clear,
    /// Fewer in flight than the upstream works on.
    Measure,
    /// The limit is up again, and filled.
    Fill,
}

const PHASES: [Phase; 5] = [Phase::Normal, Phase::Drain, Phase::Clear, Phase::Measure, Phase::Fill];

/// Tidegate's own limit algorithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    bounds: Bounds,
    limit: f64,
    /// The limit for those who are spared dips and sudden cuts.
    spared: f64,
    /// Mean latency of a request that does not wait, in nanoseconds; 0 until known.
    base: f64,
    /// Windows in a row in which requests found no place, or the limit was raised for them.
    full: f64,
    /// Windows in a row in which requests were refused; without an answer, as many as they were long.
    refused: f64,
    /// Windows in a row in which a queue stood.
    stood: f64,
    /// Windows that `base` is the mean of, at first.
    seen: f64,
    /// Windows to go, in which everybody finds a place, until the overload counts as over.
    overload: f64,
    phase: Phase,
    /// Nanoseconds left to drain; then how many are still to leave before a measurement.
    drain: f64,
    /// Requests answered in a nanosecond, in the last windows without a dip.
    rate: f64,
    /// If half as many in flight are to show whether requests wait: how long they took before, infinite at first (0 at a blind
    /// start). Else 0.
    before: f64,
    /// In flight when the overload began; 0 once that has led to a dip.
    cut_from: f64,
    /// Windows under overload to the next dip, and to the one after it.
    dip_in: f64,
    dip_after: f64,
    /// So many in flight are not answered for long: streams.
    streams: f64,
}

impl Adaptive {
    /// At its start.
    pub fn new(bounds: Bounds) -> Self {
        let limit = bounds.hold(f64::from(bounds.initial));
        Self {
            bounds,
            limit,
            spared: limit,
            base: 0.0,
            full: 0.0,
            refused: 0.0,
            stood: 0.0,
            seen: 0.0,
            overload: 0.0,
            phase: Phase::Normal,
            drain: 0.0,
            rate: 0.0,
            before: 0.0,
            cut_from: 0.0,
            dip_in: DIP_AFTER,
            dip_after: DIP_AFTER,
            streams: 0.0,
        }
    }

    pub(super) fn restore(bounds: Bounds, words: &Words) -> Self {
        let numbers: [f64; 16] = unpack(words);
        let [limit, spared, base, full, stood, seen, overload, phase, drain, rate, before, cut_from, ..] = numbers;
        let [.., dip_in, dip_after, refused, streams] = numbers;
        if limit == 0.0 {
            return Self::new(bounds);
        }
        Self {
            bounds,
            limit: bounds.hold(limit),
            spared: bounds.hold(spared),
            base,
            full,
            refused,
            stood,
            seen,
            overload,
            phase: PHASES.get(phase as usize).copied().unwrap_or(Phase::Normal),
            drain,
            rate,
            before,
            cut_from,
            dip_in,
            dip_after,
            streams,
        }
    }

    /// Learns from a window without the streams, when the limit is without them too.
    fn learn(&mut self, window: &Window) {
        match self.phase {
            Phase::Normal => self.judge(window),
            Phase::Drain if f64::from(window.inflight) <= 1.1 * self.limit => {
                self.clear(window);
            }
            Phase::Drain => {
                self.drain -= window.duration as f64;
                if self.drain <= 0.0 {
                    self.miss();
                }
            }
            Phase::Clear => {
                self.drain -= window.samples as f64;
                if self.drain <= 0.0 {
                    self.phase = Phase::Measure;
                }
            }
            Phase::Measure => self.measure(window),
            Phase::Fill => self.phase = Phase::Normal,
        }
        let dips = matches!(self.phase, Phase::Drain | Phase::Clear | Phase::Measure);
        self.spared = if dips { self.spared } else { 0.9 * self.spared }.max(self.limit);
    }

    /// Whether latency is `standing` times `base`, with more in flight than that needs.
    fn stands(&self, window: &Window, standing: f64) -> bool {
        let (rtt, knee) = (window.rtt as f64, rate(window) * self.base);
        rtt >= standing * self.base && f64::from(window.inflight) >= STANDING * knee
    }

    fn judge(&mut self, window: &Window) {
        let rtt = window.rtt as f64;
        // An upstream that has just become busy: what it answered before is no measure of what it can.
        let busy = self.overload <= 0.0 && self.stands(window, GROWING);
        let stands = (busy && window.full) || self.stands(window, STANDING);
        let rate = rate(window);
        let pace = if self.rate == 0.0 || (busy && rate > self.rate) { 1.0 } else { 0.5 };
        self.rate += pace * (rate - self.rate);
        self.stood = if stands { self.stood + 1.0 } else { 0.0 };
        self.full = if window.full { self.full + 1.0 } else { 0.0 };
        self.refused = if window.refused { self.refused + 1.0 } else { 0.0 };
        let deep = stands && f64::from(window.inflight) >= ROOM * self.rate.max(rate) * self.base;
        let lasts = deep || self.overload > 0.0 || self.refused >= LASTS || self.stood >= STOOD;
        let too_many = window.refused && lasts;
        let quiet = !(window.full || self.stood > 0.0 || self.overload > 0.0);
        // More than that were let in by a limit that was raised for them, and may wait for one another.
        let few = window.peak <= self.bounds.initial;
        if self.is_blind() && !(quiet && few) {
            self.base = self.base.min(rtt);
            if too_many {
                return self.open_eyes();
            }
        } else if rtt < self.base || quiet {
            self.seen += 1.0;
            let pace = if rtt < self.base { DOWN } else { UP };
            // A machine that stood still for a moment makes one window very slow.
            self.base += pace.max(1.0 / self.seen) * (rtt.min(2.0 * self.base) - self.base);
        }
        if !window.full {
            self.overload -= 1.0;
            let used = 2.0 * f64::from(window.peak);
            if self.limit > used {
                self.limit = (0.98 * self.limit).max(used).max(self.limit.min(f64::from(self.bounds.initial)));
            }
        } else if self.stood > 0.0 && too_many {
            self.shed(window);
        } else if self.overload > 0.0 {
            self.limit = 1.25 * self.limit + 1.0;
        }
    }

    /// How long a window lasts that is to tell what requests take.
    fn usual_period(&self) -> Nanos {
        let longest = if self.seen < SURE { SHORT } else { LONGEST };
        // Casts of f64 saturate.
        ((PERIOD * self.base) as Nanos).clamp(SHORTEST, longest)
    }

    /// `base` has never been seen while nobody waited.
    fn is_blind(&self) -> bool {
        self.seen == 0.0
    }

    /// Requests found no place while a queue stood.
    fn shed(&mut self, window: &Window) {
        let (rtt, rate, inflight) = (window.rtt as f64, rate(window), f64::from(window.inflight));
        if self.overload <= 0.0 {
            self.cut_from = inflight;
        }
        self.overload = AFTER;
        let target = GAIN * rate * self.base;
        let used = self.limit.min(inflight);
        self.limit =
            if target < self.limit { target.max(0.7 * used).min(self.limit) } else { target.min(1.5 * self.limit) };
        // Slower than a queue under this limit would make it, and not because the queue is growing: `base` is in doubt.
        // So it is when the limit has been halved, once each time.
        let doubt = rtt > 1.5 * GAIN * self.base || used < 0.5 * self.cut_from;
        let doubt = doubt && inflight <= 1.3 * rate * rtt;
        self.dip_in -= 1.0;
        if doubt || self.dip_in <= 0.0 {
            self.limit = used;
            if doubt {
                self.halve(f64::INFINITY);
            } else {
                self.dip(DIP);
            }
        }
    }
}

/// Requests answered in a nanosecond.
fn rate(window: &Window) -> f64 {
    window.samples as f64 / window.duration.max(1) as f64
}

impl Limit for Adaptive {
    fn period(&self) -> Nanos {
        if self.base == 0.0 {
            return FIRST;
        }
        if self.is_blind() || matches!(self.phase, Phase::Drain | Phase::Clear) {
            return SHORTEST;
        }
        self.usual_period()
    }

    fn update(&mut self, window: &Window, _: &mut dyn Random) {
        if window.samples == 0 {
            // Before the first answer nobody is refused: the limit is raised for whoever comes.
            if window.left && (window.refused || self.base == 0.0) {
                self.nobody_answered(window);
            }
            self.nobody_tells(window);
            // Nothing was answered: with work in flight that is a queue, as far as anybody can tell.
            self.stood = if self.base > 0.0 && window.inflight > 0 { self.stood + 1.0 } else { 0.0 };
            return;
        }
        if self.base == 0.0 {
            self.base = window.rtt as f64;
        }
        self.count_streams(window);
        let (held, working) = (self.held(), self.working(window));
        (self.limit, self.spared) = (self.limit - held, self.spared - held);
        self.limit = self.bounds.hold(self.limit);
        self.learn(&working);
        // More may be known of streams than before, or all of them may have been forgotten.
        let held = self.held();
        (self.limit, self.spared) = (self.limit + held, self.spared + held);
        self.limit = self.bounds.hold(self.limit);
        self.spared = self.spared.max(self.limit);
    }

    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn spared(&self) -> u32 {
        whole(self.spared)
    }

    fn stretches(&self) -> bool {
        self.overload <= 0.0 && self.phase == Phase::Normal
    }

    fn stretch(&mut self, so_far: &Window) {
        let tells = so_far.samples >= SAMPLES && so_far.duration >= TELLS;
        let lasts = self.full > 0.0 || self.stood > 0.0;
        let stands = self.stood > 0.0 || (self.full > 0.0 && tells && self.stands(&self.working(so_far), GROWING));
        let rate = if tells { self.rate.max(rate(so_far)) } else { self.rate };
        let most = if stands { self.held() + ROOM * rate * self.base } else { f64::INFINITY };
        if self.stretches() && f64::from(so_far.inflight) <= most {
            let step = if lasts { SMALL_STEP } else { STEP };
            self.limit = self.bounds.hold((step * self.limit).min(most).ceil().max(self.limit));
            self.spared = self.spared.max(self.limit);
        }
    }

    fn words(&self) -> Words {
        let phase = PHASES.iter().position(|phase| *phase == self.phase).unwrap_or(0) as f64;
        let Self {
            limit,
            spared,
            base,
            full,
            refused,
            stood,
            seen,
            overload,
            drain,
            rate,
            before,
            cut_from,
            dip_in,
            dip_after,
            streams,
            ..
        } = *self;
        pack([
            limit, spared, base, full, stood, seen, overload, phase, drain, rate, before, cut_from, dip_in, dip_after,
            refused, streams,
        ])
    }
}
