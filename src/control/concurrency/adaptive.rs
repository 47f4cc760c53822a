//! Tidegate's own algorithm: as many as the upstream works on at once, three times.
//!
//! By Little's law an upstream that answers `x` requests a second, each of which takes `base` when it need not wait,
//! works on `x * base` of them at once: the knee. More than that in flight wait. The limit under overload is `GAIN`
//! knees: what is in flight keeps the upstream busy, and waits two times as long as it is worked on.
//!
//! - **Growth.** A request that finds no place raises the limit by half, there and then, unless a queue has been
//!   standing or more than a knee above `GAIN` are in flight. A queue *stands* in a window answered in twice `base`
//!   or more at whose end two knees or more are in flight. A burst that drains, and a load that the upstream can
//!   carry, so find room from the first request on.
//! - **Overload** is when a queue stands and requests have found no place for `LASTS` windows, or do so after it
//!   has stood for `STOOD`. The limit then goes to `GAIN` knees, by three tenths a window at most, about as fast
//!   as the upstream drains, and grows by a quarter a window while the queue is gone but requests find no place. It
//!   is over after `AFTER` windows in which all found one.
//! - **Load alone** never lowers it, however slow answers are: while all requests find a place the limit stays, or
//!   sinks slowly towards twice what was in flight at most, but not below its start.
//! - **`base`** follows the mean latency of windows in which all found a place and no queue stood. Under overload it
//!   cannot be seen, so now and then the limit *dips* below the knee: the queue drains, what had waited leaves, and a
//!   window measures. Was `base` too high, work was waiting all the time: it sinks, and the limit dips again at once.
//!   Was it too low, it is set right. A dip that changes little doubles the time to the next.
//! - **Doubt**: latency that a queue under this limit cannot explain, or a limit that has been halved, is looked into
//!   at once, with half as many in flight, and half of those. When they take no longer than twice `base` a dip tells the
//!   rest. When half as many take as long as before they do not wait: that is `base` now, and the limit grows from there.
//! - **Stalls**: on a machine that others use the upstream, a worker or the clients stand still for a moment now and then.
//!   Whatever was in flight then took long, and looks like slow work. So before each measurement all leave that were in
//!   flight, one window alone raises `base` by little, and one that saw more answered than Little's law has in flight, or
//!   slower ones than before though fewer, is measured again. After all of that the limit soon dips again.
//! - **A blind start.** What the first answers took is not trusted while requests find no place, or more are in flight than
//!   at the start: they may have waited behind whatever came before anything was known. If requests go on finding no place
//!   the limit goes back to its start until few are in flight, and measures then, again and again until two in a row agree.
//! - **Nobody answered.** While requests find no place and all that end do so because their clients gave up, nothing is
//!   measured, and the limit is halved, down to its start.
//!
//! It fails where the mean latency says little of the upstream: where long and short requests alternate in waves much
//! longer than a window, or where one of many servers behind the limit is slow alone. An upstream close to its
//! capacity whose service times scatter much queues by itself; a few per cent of its load is then rejected.

use super::limit::{Bounds, Limit, SAMPLES, Window, Words, pack, unpack, whole};
use crate::control::{Nanos, Random};

/// Knees in flight under overload.
const GAIN: f64 = 3.0;
/// A queue may stand when latency is so many times `base`.
const STANDING: f64 = 2.0;
/// Part of a knee in flight during a dip.
const DIP: f64 = 0.65;
/// The same after one has shown that `base` is too high.
const DIP_ON: f64 = 0.4;
/// Until `base` is the mean of so many windows they are short.
const SURE: f64 = 8.0;
const SHORT: Nanos = 200_000_000;
/// Windows under overload to the next dip, at first.
const DIP_AFTER: f64 = 16.0;
/// The same after `base` has proved much too low.
const DIP_AFTER_DOUBT: f64 = 4.0;
/// And at most.
const DIP_AFTER_MOST: f64 = 512.0;
/// Windows in a row in which a queue stands, after which no burst is thought of.
const STOOD: f64 = 4.0;
/// The same of windows in which requests find no place.
const LASTS: f64 = 3.0;
/// Windows in which everybody finds a place, after which an overload is over.
const AFTER: f64 = 10.0;
/// The longest a queue is given to drain, in windows of the usual length.
const DRAIN: f64 = 20.0;
/// The same at a blind start, when windows are short and the queue may be as long as the largest limit.
const DRAIN_BLIND: f64 = 400.0;
/// Windows last so many times `base`, within bounds.
const PERIOD: f64 = 2.5;
/// The first window, in which `base` is not known yet.
const FIRST: Nanos = 10_000_000;
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
    /// Windows in a row in which requests found no place.
    full: f64,
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
    /// If half as many in flight are to show whether requests wait: how long they took before, infinite at first. Else 0.
    before: f64,
    /// In flight when the overload began; 0 once that has led to a dip.
    cut_from: f64,
    /// Windows under overload to the next dip, and to the one after it.
    dip_in: f64,
    dip_after: f64,
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
        }
    }

    pub(super) fn restore(bounds: Bounds, words: &Words) -> Self {
        let numbers: [f64; 14] = unpack(words);
        let [limit, spared, base, full, stood, seen, overload, phase, drain, rate, before, cut_from, ..] = numbers;
        let [.., dip_in, dip_after] = numbers;
        if limit == 0.0 {
            return Self::new(bounds);
        }
        Self {
            bounds,
            limit: bounds.hold(limit),
            spared: bounds.hold(spared),
            base,
            full,
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
        }
    }

    fn stands(&self, window: &Window) -> bool {
        let (rtt, knee) = (window.rtt as f64, rate(window) * self.base);
        rtt >= STANDING * self.base && f64::from(window.inflight) >= STANDING * knee
    }

    fn judge(&mut self, window: &Window) {
        let rtt = window.rtt as f64;
        self.rate = if self.rate > 0.0 { 0.5 * (self.rate + rate(window)) } else { rate(window) };
        self.stood = if self.stands(window) { self.stood + 1.0 } else { 0.0 };
        self.full = if window.full { self.full + 1.0 } else { 0.0 };
        let lasts = self.full >= LASTS || self.stood >= STOOD;
        let quiet = !(window.full || self.stood > 0.0 || self.overload > 0.0);
        // More than that were let in by a limit that was raised for them, and may wait for one another.
        let few = window.peak <= self.bounds.initial;
        if self.is_blind() && !(quiet && few) {
            self.base = self.base.min(rtt);
            if self.full >= LASTS {
                return self.open_eyes();
            }
        } else if rtt < self.base || quiet {
            self.seen += 1.0;
            let pace: f64 = if rtt < self.base { 0.1 } else { 0.05 };
            // A machine that stood still for a moment makes one window very slow.
            self.base += pace.max(1.0 / self.seen) * (rtt.min(2.0 * self.base) - self.base);
        }
        if !window.full {
            self.overload -= 1.0;
            let used = 2.0 * f64::from(window.peak);
            if self.limit > used {
                self.limit = (0.98 * self.limit).max(used).max(self.limit.min(f64::from(self.bounds.initial)));
            }
        } else if self.stood > 0.0 && lasts {
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

    /// Goes back to the start, to see how long requests take with so few in flight.
    fn open_eyes(&mut self) {
        self.phase = Phase::Drain;
        self.drain = DRAIN_BLIND * SHORTEST as f64;
        self.overload = AFTER;
        self.cut();
    }

    /// At most as many as at the start, for everybody.
    fn cut(&mut self) {
        self.limit = self.limit.min(f64::from(self.bounds.initial));
        self.spared = self.limit;
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

    /// Lowers the limit to a part of the knee.
    fn dip(&mut self, part: f64) {
        self.drain_to(part * self.base * self.rate, 0.0);
    }

    /// Lowers it to half of what it is; requests took so long before.
    fn halve(&mut self, before: f64) {
        self.drain_to(0.5 * self.limit, before);
    }

    fn drain_to(&mut self, inflight: f64, before: f64) {
        self.phase = Phase::Drain;
        self.drain = DRAIN * self.usual_period() as f64;
        self.before = before;
        self.limit = self.bounds.hold(inflight.ceil());
    }

    /// What is in flight now is to leave before the next measurement.
    fn clear(&mut self, window: &Window) {
        self.phase = Phase::Clear;
        self.drain = f64::from(window.inflight);
    }

    fn measure(&mut self, window: &Window) {
        let rtt = window.rtt as f64;
        if self.is_blind() {
            let agrees = rtt >= 0.8 * self.base;
            self.base = rtt;
            self.rate = rate(window);
            self.seen = if agrees { 1.0 } else { 0.0 };
            return self.fill();
        }
        // With more in flight than the dip allows, those who are spared or another proxy keep the upstream busy.
        if (rate(window) * rtt).min(f64::from(window.inflight)) > 1.4 * self.limit {
            return self.fill();
        }
        let less = rtt < 0.8 * self.before;
        if rtt > 2.0 * self.base {
            if self.before == 0.0 || less {
                // Work waits still, or the machine stood still, or `base` has changed: half as many will tell.
                return self.halve(rtt);
            }
            // By Little's law in flight are as many as come in the time that each takes; more do where a stall has ended.
            if rtt > 1.25 * self.before || rate(window) * rtt > 1.8 * self.limit {
                self.before = self.before.max(rtt);
                return self.clear(window);
            }
        } else if less {
            // Fewer wait less: it is a queue, and how long requests take without is to be seen yet.
            return self.dip(DIP);
        }
        let before = self.base;
        if window.full && rtt < 0.82 * before {
            self.base = rtt;
            return self.dip(DIP_ON);
        }
        self.base = if rtt > 2.0 * before { rtt } else { 0.5 * (before + rtt) };
        let confirmed = rtt < 1.5 * before;
        self.dip_after = if confirmed { (2.0 * self.dip_after).min(DIP_AFTER_MOST) } else { DIP_AFTER_DOUBT };
        let most = if self.before > 0.0 { 4.0 * self.limit } else { f64::INFINITY };
        self.fill();
        // What came out of doubt may be wrong still: the limit grows from where it was measured.
        self.limit = self.limit.min(most);
    }

    fn fill(&mut self) {
        self.phase = Phase::Fill;
        self.limit = GAIN * self.rate * self.base;
        self.dip_in = self.dip_after;
        self.cut_from = 0.0;
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
            if window.full && window.left && self.limit > f64::from(self.bounds.initial) {
                self.overload = AFTER;
                self.limit = self.bounds.hold((0.5 * self.limit).max(f64::from(self.bounds.initial)));
                self.spared = self.limit;
            }
            // Nothing was answered: with work in flight that is a queue, as far as anybody can tell.
            self.stood = if self.base > 0.0 && window.inflight > 0 { self.stood + 1.0 } else { 0.0 };
            return;
        }
        if self.base == 0.0 {
            self.base = window.rtt as f64;
        }
        match self.phase {
            Phase::Normal => self.judge(window),
            Phase::Drain if f64::from(window.inflight) <= 1.1 * self.limit => {
                self.clear(window);
            }
            Phase::Drain => {
                self.drain -= window.duration as f64;
                if self.drain <= 0.0 {
                    self.fill();
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
        self.limit = self.bounds.hold(self.limit);
        let dips = matches!(self.phase, Phase::Drain | Phase::Clear | Phase::Measure);
        self.spared = if dips { self.spared } else { 0.9 * self.spared }.max(self.limit);
    }

    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn spared(&self) -> u32 {
        whole(self.spared)
    }

    fn stretches(&self) -> bool {
        self.stood < STOOD && self.overload <= 0.0 && self.phase == Phase::Normal
    }

    fn stretch(&mut self, so_far: &Window) {
        let rate = if so_far.samples >= SAMPLES { rate(so_far) } else { self.rate };
        // One knee more than under overload: chance brings so many at once now and then.
        let enough = rate > 0.0 && f64::from(so_far.inflight) > (GAIN + 1.0) * rate * self.base;
        if self.stretches() && !((self.full > 0.0 || self.stood > 0.0) && enough) {
            self.limit = self.bounds.hold((1.5 * self.limit).ceil());
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
            stood,
            seen,
            overload,
            drain,
            rate,
            before,
            cut_from,
            dip_in,
            dip_after,
            ..
        } = *self;
        pack([
            limit, spared, base, full, stood, seen, overload, phase, drain, rate, before, cut_from, dip_in, dip_after,
        ])
    }
}
