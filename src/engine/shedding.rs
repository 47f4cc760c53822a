//! A policy's concurrency limit: places taken and given back, the limit told.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::{self, LimitAlgorithm, Outcomes};
use crate::control::Nanos;
use crate::control::concurrency::{Algorithm, Bounds, ConcurrencyLimits, Ended, Place, Settings, Share, SlotId};
use crate::share::ShareError;

use super::Env;
use super::compile::{Policy, digest};
use super::outcome::Ending;
use super::stats::{self, MetricId};

/// A policy's concurrency limit.
#[derive(Debug)]
pub(super) struct Concurrency {
    limit: config::ConcurrencyLimit,
    limits: Rc<RefCell<ConcurrencyLimits>>,
    inflight: Option<MetricId>,
    gauge: Option<MetricId>,
    /// What this worker told last of the limit.
    told: Option<u32>,
    failures: Outcomes,
}

impl Concurrency {
    /// Opens the limit of a policy, or takes it over from the engine before: a worker that left its records while its
    /// requests are in flight would be taken for dead by the others, and what it holds for free.
    pub fn new(
        settings: &config::LoadShedding,
        policy: &str,
        scope: &str,
        before: Option<&Policy>,
        env: &mut Env<'_>,
    ) -> Result<Self, ShareError> {
        let limit = settings.limit;
        let kept = before.and_then(|before| before.concurrency.as_ref()).filter(|kept| kept.limit == limit);
        let limits = match kept {
            Some(kept) => Rc::clone(&kept.limits),
            None => {
                let place = format!("{scope}/{policy}/load_shedding/{:016x}", digest(&limit));
                // Whatever the limit, what is in flight stays so. Not the stat itself: plugins of other scopes may have
                // a policy of this name, and add to the same stat.
                let inflight = format!("{scope}/{policy}/inflight");
                let opened = ConcurrencyLimits::new(limit_settings(limit), env.share, &place, &inflight)?;
                Rc::new(RefCell::new(opened))
            }
        };
        let inflight = env.stats.id(env.metrics, stats::INFLIGHT, &[policy]);
        let gauge = env.stats.id(env.metrics, stats::CONCURRENCY_LIMIT, &[policy]);
        let mut concurrency = Self { limit, limits, inflight, gauge, told: None, failures: Outcomes::failures() };
        concurrency.tell(env);
        Ok(concurrency)
    }

    /// A place in flight, or none when all are taken.
    pub fn enter(&self, env: &mut Env<'_>) -> Option<Place> {
        let place =
            self.limits.try_borrow_mut().ok()?.acquire(env.share, SlotId::ONLY, Share::ALL, env.now, env.random)?;
        self.count(1, env);
        Some(place)
    }

    /// Gives a place back that was held for `took`. `ending` is how its request ended, if that is known and of use.
    pub fn leave(&self, place: Place, ending: Option<&Ending>, took: Nanos, env: &mut Env<'_>) {
        let ended = ending.map_or(Ended::Ignored, |ending| ending.ended(&self.failures));
        if let Ok(mut limits) = self.limits.try_borrow_mut() {
            limits.release(env.share, place, ended, took, env.now, env.random);
        }
        self.count(-1, env);
    }

    /// Whether it learns from how requests end. What a response says is read for those that do only.
    pub fn learns(&self) -> bool {
        matches!(self.limit, config::ConcurrencyLimit::Dynamic { .. })
    }

    /// What time alone changes.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        let Ok(mut limits) = self.limits.try_borrow_mut() else { return };
        // What it found is for queues.
        let _beat = limits.tick(env.share, env.now, env.random);
        let (corrected, errors) = (limits.take_corrected(), limits.take_errors());
        drop(limits);
        if corrected != 0 {
            self.count(corrected, env);
        }
        if errors > 0 {
            let errors = i64::try_from(errors).unwrap_or(i64::MAX);
            env.stats.add(env.metrics, stats::ERRORS, &["load_shedding"], errors);
        }
        self.tell(env);
    }

    fn tell(&mut self, env: &Env<'_>) {
        let Ok(limits) = self.limits.try_borrow() else { return };
        let limit = limits.limit(SlotId::ONLY);
        if let Some(gauge) = self.gauge
            && self.told != Some(limit)
        {
            env.metrics.record(gauge, u64::from(limit));
            self.told = Some(limit);
        }
    }

    /// Counts places taken and given back, over all workers.
    fn count(&self, delta: i64, env: &Env<'_>) {
        if let Some(id) = self.inflight {
            env.metrics.add(id, delta);
        }
    }
}

fn limit_settings(limit: config::ConcurrencyLimit) -> Settings {
    let algorithm = match limit {
        config::ConcurrencyLimit::Fixed(limit) => Algorithm::Fixed(limit),
        config::ConcurrencyLimit::Dynamic { algorithm, initial, min, max } => {
            let bounds = Bounds { initial, min, max };
            match algorithm {
                LimitAlgorithm::Adaptive => Algorithm::Adaptive(bounds),
                LimitAlgorithm::Gradient2 => Algorithm::Gradient2(bounds),
                LimitAlgorithm::Vegas => Algorithm::Vegas(bounds),
                LimitAlgorithm::Aimd => Algorithm::Aimd(bounds),
            }
        }
    };
    Settings { algorithm, max_keys: 0, measure: false, levels: false }
}
