//! A queueing model of a server: so many slots, so long a service, and a queue in front of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::Semaphore;

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
    slots: Arc<Semaphore>,
    random: Mutex<Option<ChaCha8Rng>>,
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
    pub(super) fn new(model: Model) -> Self {
        let random = Mutex::new(model.seed.map(ChaCha8Rng::seed_from_u64));
        Self { model, slots: Arc::new(Semaphore::new(model.slots)), random }
    }

    /// Lets everybody go who waits or is yet to come.
    pub(super) fn stop(&self) {
        self.slots.close();
    }

    /// Returns once the request has been served.
    pub(super) async fn serve(&self) {
        let (slots, time) = (self.slots.clone(), self.service_time());
        let service = async move {
            // Stopped: served at once.
            if let Ok(_slot) = slots.acquire().await {
                tokio::time::sleep(time).await;
            }
        };
        if self.model.serves_the_gone {
            // A task of its own goes on when this one is dropped.
            let _ = tokio::spawn(service).await;
        } else {
            service.await;
        }
    }

    fn service_time(&self) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let factor = random.as_mut().map_or(1.0, |random| -(1.0 - random.random::<f64>()).ln());
        self.model.service_time.mul_f64(factor)
    }
}
