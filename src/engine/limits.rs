//! A policy's concurrency limits and queues as its settings have them, and where they are with the host.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::{self, BasisPoints, KeySource, LimitAlgorithm};
use crate::control::concurrency::{Algorithm, Bounds, ConcurrencyLimits, Settings};
use crate::control::queue;

use super::Env;
use super::compile::{digest, nanos};
use super::queues::Queues;

/// What the limits depend on: while all of it stays the same an update leaves them alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MadeOf {
    /// What a trial has in flight takes no place of what is enforced, nor the other way round.
    pub shadow: bool,
    pub limit: config::ConcurrencyLimit,
    pub key: Vec<KeySource>,
    pub max_keys: u32,
    /// Some levels have less than the whole share.
    pub shares: bool,
    pub levels: usize,
    pub queue: Option<config::Queue>,
    /// Latency is measured, whatever the limit.
    pub measure: bool,
}

/// The limits of a policy and their queues, at this worker.
pub(super) struct Opened {
    pub limits: Rc<RefCell<ConcurrencyLimits>>,
    pub queues: Option<Rc<RefCell<Queues>>>,
}

impl MadeOf {
    /// What the limits of these settings depend on.
    pub fn new(settings: &config::LoadShedding, shadow: bool) -> Self {
        let levels = settings.priority.as_ref().map(|priority| &priority.levels);
        Self {
            shadow,
            limit: settings.limit,
            key: settings.key.clone(),
            max_keys: if settings.key.is_empty() { 0 } else { settings.max_keys },
            shares: levels.is_some_and(|levels| levels.iter().any(|level| level.share != BasisPoints::ALL)),
            levels: levels.map_or(1, Vec::len),
            queue: settings.queue,
            measure: settings.deadline_header.is_some(),
        }
    }

    /// How many bytes limits and queues of keys take at most, in each worker.
    pub fn bytes(&self) -> u64 {
        if self.key.is_empty() {
            return 0;
        }
        let queues = self.queue_settings().map_or(0, |queue| queue.bytes(self.max_keys.saturating_add(1)));
        ConcurrencyLimits::bytes(self.settings()).saturating_add(queues)
    }

    /// Opens limits and queues.
    ///
    /// # Errors
    /// A sentence, when the host shares nothing.
    pub fn open(&self, policy: &str, scope: &str, env: &Env<'_>) -> Result<Opened, String> {
        let failed =
            |error| format!("policy {policy}: the host keeps no shared state for the concurrency limit ({error:?})");
        // Whatever the limit, what is in flight stays so. Not the stat itself: plugins of other scopes may have
        // a policy of this name, and add to the same stat.
        let mut inflight = format!("{scope}/{policy}/{}inflight", if self.shadow { "shadow_" } else { "" });
        if !self.key.is_empty() {
            inflight = format!("{inflight}/{:016x}", digest(&(&self.key, self.max_keys)));
        }
        // What is found stays while the limit is the same, whatever changes around it.
        let owner = digest(&self.limit);
        let limits =
            ConcurrencyLimits::reusing(self.settings(), env.share, &inflight, owner, env.now).map_err(failed)?;
        let queues = self.queue_settings().map(|settings| Queues::new(settings, &limits, env)).transpose();
        let queues = queues.map_err(failed)?.map(|queues| Rc::new(RefCell::new(queues)));
        Ok(Opened { limits: Rc::new(RefCell::new(limits)), queues })
    }

    fn settings(&self) -> Settings {
        let algorithm = match self.limit {
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
        Settings { algorithm, max_keys: self.max_keys, measure: self.measure, levels: self.shares }
    }

    fn queue_settings(&self) -> Option<queue::Settings> {
        let config::Queue { max_length, max_wait, order } = self.queue?;
        let order = match order {
            config::QueueOrder::AdaptiveLifo => queue::Order::AdaptiveLifo,
            config::QueueOrder::Fifo => queue::Order::Fifo,
            config::QueueOrder::Lifo => queue::Order::Lifo,
        };
        Some(queue::Settings { max_length, max_wait: nanos(max_wait), order, levels: self.levels })
    }
}
