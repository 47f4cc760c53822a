//! A queueing model of a server: so many slots, so long a service, and a queue in front of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::lock;

/// How a server of limited capacity behaves. Requests are served in order of arrival; the queue has no bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    /// How many requests are served at a time.
    pub slots: usize,
    /// How long one takes, on average.
    pub service_time: Duration,
    /// The seed of exponentially distributed service times; none: all take the same.
    pub seed: Option<u64>,
    /// Whether a request whose client has gone away is served all the same, as most servers do.
    pub serves_the_gone: bool,
}

/// A model at work.
#[derive(Debug)]
pub(super) struct Server {
    model: Model,
    free: Semaphore,
    slots: Mutex<Slots>,
    random: Mutex<Option<ChaCha8Rng>>,
}

#[derive(Debug)]
struct Slots {
    number: usize,
    /// So many of those in use are to go when they are idle.
    leaving: usize,
    /// Since when each idle slot has been idle.
    idle_since: Vec<Instant>,
}

/// A slot in use. It is idle from `until` on, or from the moment its request went away.
struct Slot<'a> {
    server: &'a Server,
    permit: Option<SemaphorePermit<'a>>,
    until: Option<Instant>,
}

impl Model {
    /// `slots` requests at a time, each for `service_time` exactly; whoever goes away leaves the server at once.
    pub fn new(slots: usize, service_time: Duration) -> Self {
        Self { slots, service_time, seed: None, serves_the_gone: false }
    }

    /// Requests per second this can carry.
    pub fn capacity(&self) -> f64 {
        self.slots as f64 / self.service_time.as_secs_f64()
    }
}

impl Server {
    pub(super) fn new(model: Model) -> Arc<Self> {
        let random = Mutex::new(model.seed.map(ChaCha8Rng::seed_from_u64));
        let slots = Slots { number: model.slots, leaving: 0, idle_since: vec![Instant::now(); model.slots] };
        Arc::new(Self { model, free: Semaphore::new(model.slots), slots: Mutex::new(slots), random })
    }

    /// Lets everybody go who waits or is yet to come.
    pub(super) fn stop(&self) {
        self.free.close();
    }

    /// Has so many slots from now on. Whoever is being served is served to the end, and whoever waits goes on waiting.
    pub(super) fn resize(&self, number: usize) {
        let mut slots = lock(&self.slots);
        let fewer = slots.number.saturating_sub(number);
        let gone = self.free.forget_permits(fewer);
        let idle = slots.idle_since.len().saturating_sub(gone);
        slots.idle_since.truncate(idle);
        slots.leaving += fewer - gone;
        let more = number.saturating_sub(slots.number);
        let stay = more.min(slots.leaving);
        slots.leaving -= stay;
        slots.idle_since.extend(std::iter::repeat_n(Instant::now(), more - stay));
        slots.number = number;
        self.free.add_permits(more - stay);
    }

    /// Returns once the request has been served.
    pub(super) async fn serve(self: Arc<Self>) {
        if self.model.serves_the_gone {
            // A task of its own goes on when this one is dropped.
            let _ = tokio::spawn(async move { self.occupy_a_slot().await }).await;
        } else {
            self.occupy_a_slot().await;
        }
    }

    /// A service follows the one before it without a gap: timers wake up to a millisecond late, and if that added up the server
    /// would carry less than its model.
    async fn occupy_a_slot(&self) {
        let arrival = Instant::now();
        // Stopped: served at once.
        let Ok(permit) = self.free.acquire().await else { return };
        let idle_since = lock(&self.slots).idle_since.pop().unwrap_or(arrival);
        let mut slot = Slot { server: self, permit: Some(permit), until: None };
        let end = idle_since.max(arrival) + self.service_time();
        tokio::time::sleep_until(end).await;
        slot.until = Some(end);
    }

    fn service_time(&self) -> Duration {
        let factor = lock(&self.random).as_mut().map_or(1.0, |random| -(1.0 - random.random::<f64>()).ln());
        self.model.service_time.mul_f64(factor)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut slots = lock(&self.server.slots);
        if slots.leaving == 0 {
            slots.idle_since.push(self.until.unwrap_or_else(Instant::now));
        } else if let Some(permit) = self.permit.take() {
            slots.leaving -= 1;
            permit.forget();
        }
    }
}
