//! A server whose every answer a test scripts, and which remembers what it saw.
//!
//! For each request the first of these that has an answer decides: a failure switched on for all, the queue of single
//! answers, the `x-upstream-*` headers of the request (see [`Behaviour`]), the script. It speaks HTTP/1.1, and HTTP/2 with prior
//! knowledge. Every answer carries `x-harness-upstream`, so that a client can tell it from the proxy's own.

mod behaviour;
mod model;
mod seen;
mod serve;

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::{HeaderMap, Method};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use behaviour::Behaviour;
pub use model::Model;
pub use seen::{End, Seen};

use crate::wait::wait_until;
use seen::Book;

/// The header that marks the upstream's answers; its value is the request's [`Seen::index`].
pub const MARK: &str = "x-harness-upstream";

/// What a script is told of a request.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Its place in the order of arrival.
    pub index: usize,
    /// Its method.
    pub method: &'a Method,
    /// Its path with the query.
    pub path: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

type Script = Arc<dyn Fn(&Asked<'_>) -> Behaviour + Send + Sync>;

/// A running upstream; it ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Accepting>,
}

/// Whether somebody listens at the address.
#[derive(Debug)]
enum Accepting {
    Yes(JoinHandle<()>),
    /// The socket is kept bound, so that nobody else is given the port.
    No(Socket),
}

/// What the connections share.
struct Shared {
    book: Arc<Book>,
    /// Held while a request is decided about and counted.
    arriving: Mutex<()>,
    script: Mutex<Script>,
    queue: Mutex<VecDeque<Behaviour>>,
    failing: Mutex<Option<Behaviour>>,
    model: Mutex<Option<Arc<model::Server>>>,
    connections: AtomicU64,
    /// Counts up to end all connections.
    epoch: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("book", &self.book).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Starts an upstream on a loopback port the kernel chooses.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start() -> Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into(), true).await
    }

    /// Starts an upstream at this address; one that keeps no records only counts, and may run for ever.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start_at(address: SocketAddr, keeps_records: bool) -> Result<Self> {
        let socket = bind(address).with_context(|| format!("cannot bind {address}"))?;
        let address = socket.local_addr()?.as_socket().context("not an internet address")?;
        let shared = Arc::new(Shared {
            book: Arc::new(Book::new(keeps_records)),
            arriving: Mutex::default(),
            script: Mutex::new(Arc::new(|_: &Asked<'_>| Behaviour::default())),
            queue: Mutex::default(),
            failing: Mutex::default(),
            model: Mutex::default(),
            connections: AtomicU64::new(0),
            epoch: watch::Sender::new(0),
        });
        let accepting = Mutex::new(listen(socket, &shared)?);
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does with each request from now on.
    pub fn script(&self, script: impl Fn(&Asked<'_>) -> Behaviour + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// Does the same with every request from now on.
    pub fn always(&self, behaviour: Behaviour) {
        self.script(move |_| behaviour.clone());
    }

    /// What it does with the next requests, one each; the script decides again afterwards.
    pub fn enqueue(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        lock(&self.shared.queue).extend(behaviours);
    }

    /// Does this with every request, whatever else was set, until [`Upstream::recover`].
    pub fn fail(&self, behaviour: Behaviour) {
        *lock(&self.shared.failing) = Some(behaviour);
    }

    /// Ends [`Upstream::fail`].
    pub fn recover(&self) {
        *lock(&self.shared.failing) = None;
    }

    /// Puts a queue and slots in front of all answers from now on; requests that wait in the one before are let go at once.
    /// None: answers at once.
    pub fn model(&self, model: Option<Model>) {
        let old = std::mem::replace(&mut *lock(&self.shared.model), model.map(model::Server::new));
        if let Some(old) = old {
            old.stop();
        }
    }

    /// Gives the model so many slots from now on. Whoever is being served is served to the end, and whoever waits goes on waiting.
    pub fn slots(&self, number: usize) {
        if let Some(model) = &*lock(&self.shared.model) {
            model.resize(number);
        }
    }

    /// Resets all connections; new ones are accepted.
    pub fn reset_connections(&self) {
        self.shared.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Resets all connections and refuses new ones.
    ///
    /// # Errors
    /// The port was taken by somebody else meanwhile.
    pub async fn kill(&self) -> Result<()> {
        let listening = match &mut *lock(&self.accepting) {
            Accepting::Yes(task) => {
                task.abort();
                std::mem::replace(task, tokio::spawn(async {}))
            }
            Accepting::No(_) => return Ok(()),
        };
        // The listener is closed when the task has ended.
        let _ = listening.await;
        let socket = bind(self.address).with_context(|| format!("cannot hold {}", self.address))?;
        *lock(&self.accepting) = Accepting::No(socket);
        self.reset_connections();
        Ok(())
    }

    /// Accepts connections again after [`Upstream::kill`].
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub fn revive(&self) -> Result<()> {
        let mut accepting = lock(&self.accepting);
        if let Accepting::No(socket) = &*accepting {
            *accepting = listen(socket.try_clone()?, &self.shared)?;
        }
        Ok(())
    }

    /// Every request it has seen, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.book.seen()
    }

    /// How many requests it has seen.
    pub fn total(&self) -> usize {
        self.shared.book.total()
    }

    /// How many requests are there now.
    pub fn concurrent(&self) -> usize {
        self.shared.book.concurrent()
    }

    /// The most requests that were there at a time.
    pub fn max_concurrent(&self) -> usize {
        self.shared.book.max_concurrent()
    }

    /// How many connections were opened to it.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The distinct values of a header over all requests it has seen.
    pub fn header_values(&self, name: &str) -> HashSet<String> {
        self.shared.book.header_values(name)
    }

    /// Waits until so many requests are there at a time.
    ///
    /// # Errors
    /// They were not within `deadline`.
    pub async fn wait_for_concurrent(&self, requests: usize, deadline: Duration) -> Result<()> {
        wait_until(deadline, async || match self.concurrent() {
            now if now == requests => Ok(()),
            now => Err(format!("{now} requests are at the upstream, not {requests}")),
        })
        .await
    }

    /// Waits until it has seen so many requests, or more.
    ///
    /// # Errors
    /// It had not within `deadline`.
    pub async fn wait_for_total(&self, requests: usize, deadline: Duration) -> Result<()> {
        wait_until(deadline, async || match self.total() {
            now if now >= requests => Ok(()),
            now => Err(format!("the upstream has seen {now} requests, not {requests}")),
        })
        .await
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Accepting::Yes(task) = &*lock(&self.accepting) {
            task.abort();
        }
        self.reset_connections();
    }
}

/// A bound socket. The address may be reused, so that a killed upstream can come back while old connections linger.
fn bind(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(socket: Socket, shared: &Arc<Shared>) -> Result<Accepting> {
    socket.listen(4096)?;
    let listener = TcpListener::from_std(socket.into())?;
    Ok(Accepting::Yes(tokio::spawn(serve::accept(listener, shared.clone()))))
}
