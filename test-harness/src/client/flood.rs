//! Requests as fast as the proxy takes them, for what only great numbers show.
//!
//! Closed loop, HTTP/1.1, one request at a time on each connection, and of the answers only the status lines are read. That
//! costs a fraction of what whole responses do, so one core is enough to keep a proxy busy.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
    let mut running = Vec::new();
    for lane in 0..connections.max(1) {
        let (header, numbers) = (header.clone(), (lane..requests).step_by(connections.max(1)));
        running.push(tokio::spawn(async move { one(address, numbers, header).await }));
    }
    let mut statuses = BTreeMap::new();
    for lane in running {
        for (status, count) in lane.await.context("a connection's task failed")?? {
            *statuses.entry(status).or_default() += count;
        }
    }
    Ok(statuses)
}

async fn one(
    address: SocketAddr,
    numbers: impl Iterator<Item = usize>,
    header: impl Fn(usize) -> String,
) -> Result<BTreeMap<u16, usize>> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    let mut buffer = Vec::new();
    for number in numbers {
        let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\n{}\r\n\r\n", header(number));
        stream.write_all(request.as_bytes()).await?;
        // What is left of the answer before stands in front of this one's status line.
        let status = loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                bail!("{address} closed the connection instead of answering");
            }
            if let Some(status) = status(&buffer) {
                break std::str::from_utf8(status)?.parse().context("not a status")?;
            }
        };
        *statuses.entry(status).or_default() += 1;
        buffer.clear();
    }
    Ok(statuses)
}

/// The three digits after the first complete status line's version.
fn status(answer: &[u8]) -> Option<&[u8]> {
    let at = answer.windows(STATUS_LINE.len()).position(|window| window == STATUS_LINE)? + STATUS_LINE.len();
    answer.get(at..at + 3)
}
