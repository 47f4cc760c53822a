//! Both ends of the proxy, client and upstream, in one thread that costs little: a handful of kept connections, and no
//! parsing beyond what tells where a message ends. One thread, because waking another costs more than all it would do.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long an answer may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
/// How every whole good answer ends.
const END: &[u8] = b"\r\n\r\nok";

/// The upstream: it answers every request without looking at it, while a [`Client`] runs.
pub struct Upstream {
    listener: TcpListener,
    connections: Vec<Connection>,
}

/// A client of one listener.
pub struct Client {
    lanes: Vec<Lane>,
}

/// A client's connection, with at most one request on its way.
struct Lane {
    connection: Connection,
    /// When the request on its way was meant to leave, since the start of the run.
    intended: Option<Duration>,
}

/// One end of a connection, and what has come so far of a message.
struct Connection {
    stream: TcpStream,
    message: Vec<u8>,
    open: bool,
}

impl Upstream {
    /// Listens on a port of the kernel's choice.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: Vec::new() })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.connections.push(Connection::new(stream)?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the upstream cannot accept"),
            }
        }
    }
}

impl Client {
    /// Connects so many times.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(address: SocketAddr, connections: usize) -> Result<Self> {
        let lanes = (0..connections).map(|_| {
            let stream = TcpStream::connect(address).context("cannot connect to Envoy")?;
            Ok(Lane { connection: Connection::new(stream)?, intended: None })
        });
        Ok(Self { lanes: lanes.collect::<Result<_>>()? })
    }

    /// Sends request `n`, as `write` puts it, at the time `due` gives for it, or when a connection is free after that;
    /// `done` hears how long after its time each was answered. Requests that are all due at once keep every connection busy.
    /// `gather` is how long to let messages gather before they are looked at: the proxy then works on many at a time, as it
    /// does under load, in place of being woken for each.
    ///
    /// # Errors
    /// A connection broke, an answer was not a 200, or there was none in time.
    pub fn run(
        &mut self,
        upstream: &mut Upstream,
        requests: usize,
        gather: Duration,
        due: impl Fn(usize) -> Duration,
        mut write: impl FnMut(&mut Vec<u8>),
        mut done: impl FnMut(Duration),
    ) -> Result<()> {
        let start = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        let mut request = Vec::with_capacity(1024);
        while answered < requests {
            for lane in self.lanes.iter_mut().filter(|lane| lane.intended.is_none()) {
                if sent == requests || due(sent) > start.elapsed() {
                    break;
                }
                request.clear();
                write(&mut request);
                lane.connection.stream.write_all(&request).context("cannot send a request")?;
                lane.intended = Some(due(sent));
                sent += 1;
            }
            // Only a free connection makes the next request's time one to wake up for.
            let free = self.lanes.iter().any(|lane| lane.intended.is_none());
            let next = (free && sent < requests).then(|| due(sent));
            let wait = next.map_or(PATIENCE, |next| next.saturating_sub(start.elapsed()));
            if !gather.is_zero() {
                std::thread::sleep(gather);
            }
            let ready = self.wait(upstream, wait)?;
            if ready.is_empty() && next.is_none() {
                bail!("no answer within {PATIENCE:?}");
            }
            let served = upstream.connections.len();
            for at in ready {
                if at == 0 {
                    upstream.accept()?;
                } else if let Some(connection) = upstream.connections.get_mut(at - 1).filter(|_| at <= served) {
                    if connection.received(|request| request.ends_with(b"\r\n\r\n"))? {
                        connection.stream.write_all(ANSWER).context("cannot answer a request")?;
                    }
                } else if let Some(lane) = self.lanes.get_mut(at - 1 - served)
                    && lane.connection.received(whole_answer)?
                    && let Some(intended) = lane.intended.take()
                {
                    answered += 1;
                    done(start.elapsed().saturating_sub(intended));
                }
            }
            if self.lanes.iter().any(|lane| !lane.connection.open) {
                bail!("Envoy closed a connection");
            }
            upstream.connections.retain(|connection| connection.open);
        }
        Ok(())
    }

    /// Waits until something has come, and says where: 0 is a new connection to the upstream, then come the upstream's
    /// connections, then the client's.
    fn wait(&self, upstream: &Upstream, time: Duration) -> Result<Vec<usize>> {
        let lanes = self.lanes.iter().map(|lane| &lane.connection);
        let connections = upstream.connections.iter().chain(lanes).map(|one| PollFd::new(&one.stream, PollFlags::IN));
        let mut all: Vec<_> =
            std::iter::once(PollFd::new(&upstream.listener, PollFlags::IN)).chain(connections).collect();
        poll(&mut all, Some(&Timespec::try_from(time)?))?;
        Ok((0..all.len()).filter(|&at| all.get(at).is_some_and(|fd| !fd.revents().is_empty())).collect())
    }
}

/// Whether this is a whole good answer; anything but a 200 is an error.
fn whole_answer(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(END)
}

impl Connection {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, message: Vec::with_capacity(4096), open: true })
    }

    /// Reads what there is; true once it is whole, and forgotten then.
    fn received(&mut self, whole: impl Fn(&[u8]) -> bool) -> Result<bool> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.open = false,
            Ok(read) => self.message.extend(chunk.iter().take(read)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot read"),
        }
        let whole = whole(&self.message);
        if whole {
            self.message.clear();
        } else if self.message.starts_with(b"HTTP/1.1 ") && !self.message.starts_with(b"HTTP/1.1 200") {
            bail!("not a 200: {}", String::from_utf8_lossy(&self.message));
        }
        Ok(whole)
    }
}
