//! Open-loop load: requests leave when the schedule says, whether or not earlier ones have been answered.
//!
//! Latency counts from the intended moment, so that time a request spent waiting for its turn is not lost from the account
//! (known as coordinated omission). Timers tick in milliseconds, so up to one of those is the client's own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::call::{Call, Cancel, Response};
use super::connection::{Connection, Ended, cut_in_head};
use super::outcome::{Ending, Outcome, Outcomes};
use super::schedule::Schedule;
use crate::upstream::MARK;

/// The header that carries each request's [`Outcome::id`] to the upstream.
pub const ID: &str = "x-harness-id";

type Maker = Box<dyn FnMut(usize, &mut ChaCha8Rng) -> Call + Send>;

/// Load to be sent.
pub struct Load {
    address: SocketAddr,
    name: String,
    schedule: Schedule,
    seed: u64,
    make: Maker,
    http2_connections: usize,
    timeout: Duration,
}

/// The connections requests are sent on.
struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    /// Over HTTP/2, the connections taken in turn; otherwise none.
    lanes: Vec<Lane>,
}

type Lane = tokio::sync::Mutex<Option<Connection>>;

impl Load {
    /// `GET /` on this schedule, over as many HTTP/1.1 connections as are busy at a time.
    pub fn new(address: SocketAddr, schedule: Schedule) -> Self {
        Self {
            address,
            name: "load".into(),
            schedule,
            seed: 1,
            make: Box::new(|_, _| Call::get("/")),
            http2_connections: 0,
            timeout: Duration::from_secs(60),
        }
    }

    /// What each request is, by its number and seeded randomness.
    #[must_use]
    pub fn calls(mut self, make: impl FnMut(usize, &mut ChaCha8Rng) -> Call + Send + 'static) -> Self {
        self.make = Box::new(make);
        self
    }

    /// The seed of jitter and requests; 1 unless set.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Tells this load's requests from those of another in the same run.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Over so many HTTP/2 connections, in turn.
    #[must_use]
    pub fn http2(mut self, connections: usize) -> Self {
        self.http2_connections = connections.max(1);
        self
    }

    /// After this long a request counts as an error; 60 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends everything and waits until the last request has ended.
    pub async fn run(self) -> Outcomes {
        let (name, seed) = (self.name.clone(), self.seed);
        let mut all = Vec::new();
        self.run_into(|outcome| all.push(outcome)).await;
        all.sort_by_key(|outcome| outcome.index);
        Outcomes { name, seed, all }
    }

    /// The same, handing each outcome over when it is known, for loads too long to be kept.
    pub async fn run_into(mut self, mut sink: impl FnMut(Outcome)) {
        let times = self.schedule.times(self.seed);
        let lanes = std::iter::repeat_with(Lane::default).take(self.http2_connections).collect();
        let pool = Arc::new(Pool { address: self.address, idle: Mutex::default(), lanes });
        let (results, mut outcomes) = mpsc::unbounded_channel();
        // Not the stream the schedule draws from: other requests shall not move the times.
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(1);
        let start = Instant::now();
        let sending = async {
            for (index, intended) in times.into_iter().enumerate() {
                let mut call = (self.make)(index, &mut random);
                call.http2 = self.http2_connections > 0;
                let id = format!("{}-{index}", self.name);
                let call = call.header(ID, &id);
                tokio::time::sleep_until(start + intended).await;
                let (pool, results, timeout) = (pool.clone(), results.clone(), self.timeout);
                tokio::spawn(async move {
                    let sent = start.elapsed();
                    let (ending, headers) = match tokio::time::timeout(timeout, pool.send(call, index)).await {
                        Ok(ended) => classify(ended),
                        Err(_) => (Ending::Errored(format!("no answer within {timeout:?}")), HeaderMap::new()),
                    };
                    let latency = start.elapsed().saturating_sub(intended);
                    // Nobody is there to listen only when the load itself was dropped.
                    let _ = results.send(Outcome { index, id, intended, sent, latency, ending, headers });
                });
            }
            drop(results);
        };
        let receiving = async {
            while let Some(outcome) = outcomes.recv().await {
                sink(outcome);
            }
        };
        tokio::join!(sending, receiving);
    }
}

/// What an answer means: the upstream marks its own.
fn classify(ended: anyhow::Result<Ended>) -> (Ending, HeaderMap) {
    match ended {
        Err(error) => (Ending::Errored(format!("{error:#}")), HeaderMap::new()),
        Ok(Ended::Cancelled(status)) => (Ending::Cancelled(status), HeaderMap::new()),
        Ok(Ended::Answered(response)) => {
            let reason = response.reason();
            let Response { status, headers, .. } = *response;
            let ending = match reason {
                Some(reason) => Ending::Rejected { status, reason },
                None if headers.contains_key(MARK) => Ending::Answered(status),
                None => Ending::Local(status),
            };
            (ending, headers)
        }
    }
}

// === impl Pool ===

impl Pool {
    async fn send(&self, call: Call, index: usize) -> anyhow::Result<Ended> {
        if call.cancel == Some(Cancel::InHead) {
            cut_in_head(self.address, &call).await?;
            return Ok(Ended::Cancelled(None));
        }
        if let Some(turn) = index.checked_rem(self.lanes.len()) {
            return self.shared(&self.lanes[turn]).await?.run(call).await;
        }
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(Connection::is_open);
            idle.pop()
        };
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self.address, false).await?,
        };
        let ended = connection.run(call).await?;
        if matches!(&ended, Ended::Answered(response) if response.header("connection") != Some("close")) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(ended)
    }

    /// The connection of a lane, opened anew when it has ended.
    async fn shared(&self, lane: &Lane) -> anyhow::Result<Connection> {
        let mut lane = lane.lock().await;
        if let Some(shared) = lane.as_ref().filter(|connection| connection.is_open()).and_then(Connection::share) {
            return Ok(shared);
        }
        let connection = Connection::open(self.address, true).await?;
        *lane = connection.share();
        Ok(connection)
    }
}
