//! A client that costs little: one thread, a handful of kept connections, no parsing beyond what tells an answer's end.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long an answer may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of one listener.
pub struct Client {
    lanes: Vec<Lane>,
}

/// A connection with at most one request on its way.
struct Lane {
    stream: TcpStream,
    /// When the request on its way was meant to leave, since the start of the run.
    intended: Option<Duration>,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects so many times.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(address: SocketAddr, connections: usize) -> Result<Self> {
        let lanes = (0..connections).map(|_| {
            let stream = TcpStream::connect(address).context("cannot connect to Envoy")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Lane { stream, intended: None, buffer: Vec::with_capacity(4096) })
        });
        Ok(Self { lanes: lanes.collect::<Result<_>>()? })
    }

    /// Sends request `n`, as `write` puts it, at the time `due` gives for it, or when a connection is free after that;
    /// `done` hears how long after its time each was answered. Requests that are all due at once keep every connection busy.
    ///
    /// # Errors
    /// A connection broke, an answer was not a 200, or there was none in time.
    pub fn run(
        &mut self,
        requests: usize,
        due: impl Fn(usize) -> Duration,
        mut write: impl FnMut(&mut Vec<u8>),
        mut done: impl FnMut(Duration),
    ) -> Result<()> {
        let start = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        let mut request = Vec::with_capacity(1024);
        while answered < requests {
            let now = start.elapsed();
            for lane in self.lanes.iter_mut().filter(|lane| lane.intended.is_none()) {
                if sent == requests || due(sent) > now {
                    break;
                }
                request.clear();
                write(&mut request);
                lane.stream.write_all(&request).context("cannot send a request")?;
                lane.intended = Some(due(sent));
                sent += 1;
            }
            let free = self.lanes.iter().any(|lane| lane.intended.is_none());
            // Only a free connection makes the next request's time one to wake up for.
            let next = (free && sent < requests).then(|| due(sent));
            let wait = next.map_or(PATIENCE, |next| next.saturating_sub(start.elapsed()));
            if self.wait(wait)? == 0 && next.is_none() {
                bail!("no answer within {PATIENCE:?}");
            }
            for lane in &mut self.lanes {
                if let Some(intended) = lane.intended
                    && lane.answered()?
                {
                    lane.intended = None;
                    answered += 1;
                    done(start.elapsed().saturating_sub(intended));
                }
            }
        }
        Ok(())
    }

    /// Waits for any answer, and says on how many connections there is something.
    fn wait(&self, time: Duration) -> Result<usize> {
        let busy = self.lanes.iter().filter(|lane| lane.intended.is_some());
        let mut fds: Vec<_> = busy.map(|lane| PollFd::new(&lane.stream, PollFlags::IN)).collect();
        Ok(poll(&mut fds, Some(&Timespec::try_from(time)?))?)
    }
}

impl Lane {
    /// Reads what there is; true once it is a whole answer.
    fn answered(&mut self) -> Result<bool> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("Envoy closed a connection: {}", String::from_utf8_lossy(&self.buffer)),
            Ok(read) => self.buffer.extend(chunk.iter().take(read)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("cannot read an answer"),
        }
        // Every good answer has the upstream's body.
        if !self.buffer.ends_with(b"\r\n\r\nok") {
            let rejected = !self.buffer.starts_with(b"HTTP/1.1 200");
            if rejected && self.buffer.len() > 12 {
                bail!("not a 200: {}", String::from_utf8_lossy(&self.buffer));
            }
            return Ok(false);
        }
        self.buffer.clear();
        Ok(true)
    }
}
