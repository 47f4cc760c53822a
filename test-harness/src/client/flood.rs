//! Requests at a small fraction of what whole responses cost, for what only great numbers or exact times show.
//!
//! HTTP/1.1, one request at a time on each connection, and of the answers only the status lines are read: one core is enough
//! to keep a proxy busy. [`flood`] sends as fast as the proxy takes them. [`steady`] keeps to a rate, and says of each
//! request between which moments it was decided; where the proxy is too slow, it falls behind and then catches up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

/// Sends `requests` requests for `/` over so many connections at once, each with the header line that `header` makes of its
/// number, and counts the answers by status. No body may hold what looks like a status line.
///
/// # Errors
/// A connection ended before all answers were there.
pub async fn flood(
    address: SocketAddr,
    requests: usize,
    connections: usize,
    header: impl Fn(usize) -> String + Clone + Send + 'static,
) -> Result<BTreeMap<u16, usize>> {
    let mut running = JoinSet::new();
    for lane in 0..connections.max(1) {
        let (header, numbers) = (header.clone(), (lane..requests).step_by(connections.max(1)));
        running.spawn(async move {
            let mut lane = Lane::open(address).await?;
            let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
            for number in numbers {
                *statuses.entry(lane.ask(&header(number)).await?).or_default() += 1;
            }
            Ok::<_, anyhow::Error>(statuses)
        });
    }
    let mut statuses = BTreeMap::new();
    while let Some(lane) = running.join_next().await {
        for (status, count) in lane.context("a connection's task failed")?? {
            *statuses.entry(status).or_default() += count;
        }
    }
    Ok(statuses)
}

/// One request of [`steady`]: decided after it was sent and before it was answered, both counted from the same moment.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// When it began to be sent.
    pub sent: Duration,
    /// When its status was there.
    pub answered: Duration,
    /// The status.
    pub status: u16,
}

/// Sends `rate` requests a second for this long over so many connections in turn, all with this header line. The connections
/// stand before the first request is sent.
///
/// # Errors
/// A connection ended before all answers were there.
pub async fn steady(
    address: SocketAddr,
    rate: f64,
    time: Duration,
    connections: usize,
    header: &str,
) -> Result<Vec<Asked>> {
    let mut lanes = Vec::new();
    for _ in 0..connections {
        lanes.push(Lane::open(address).await?);
    }
    let (start, requests) = (Instant::now(), (rate * time.as_secs_f64()) as usize);
    let mut running = JoinSet::new();
    for (number, mut lane) in lanes.into_iter().enumerate() {
        let header = header.to_owned();
        running.spawn(async move {
            let mut all = Vec::new();
            for number in (number..requests).step_by(connections) {
                tokio::time::sleep_until(start + Duration::from_secs_f64(number as f64 / rate)).await;
                let sent = start.elapsed();
                let status = lane.ask(&header).await?;
                all.push(Asked { sent, answered: start.elapsed(), status });
            }
            Ok::<_, anyhow::Error>(all)
        });
    }
    let mut all = Vec::new();
    while let Some(lane) = running.join_next().await {
        all.extend(lane.context("a connection's task failed")??);
    }
    Ok(all)
}

/// A connection, and what was read from it and not yet understood.
struct Lane {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Lane {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: Vec::new() })
    }

    /// Sends a request with this header line and waits for the status.
    async fn ask(&mut self, header: &str) -> Result<u16> {
        let address = self.address;
        let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\n{header}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        // What is left of the answer before stands in front of this one's status line.
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("{address} closed the connection instead of answering");
            }
            if let Some(status) = status(&self.buffer) {
                let status = std::str::from_utf8(status)?.parse().context("not a status")?;
                self.buffer.clear();
                return Ok(status);
            }
        }
    }
}

/// The three digits after the first complete status line's version.
fn status(answer: &[u8]) -> Option<&[u8]> {
    let at = answer.windows(STATUS_LINE.len()).position(|window| window == STATUS_LINE)? + STATUS_LINE.len();
    answer.get(at..at + 3)
}
