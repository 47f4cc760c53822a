//! Requests as fast as the proxy takes them, for what only great numbers show.
//!
//! HTTP/1.1 with pipelining: requests are written without waiting for answers, of which only the status lines are read. That
//! costs a fraction of what whole responses do, so one core is enough to keep a proxy busy.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many requests are written before their answers are read: few enough that neither side waits for the other to read.
const BATCH: usize = 32;
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
    let (mut buffer, mut text) = (Vec::new(), String::new());
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        text.clear();
        let mut open = 0;
        for number in numbers.by_ref().take(BATCH) {
            // Writing to a String cannot fail.
            let _ = write!(text, "GET / HTTP/1.1\r\nhost: {address}\r\n{}\r\n\r\n", header(number));
            open += 1;
        }
        stream.write_all(text.as_bytes()).await?;
        while open > 0 {
            if stream.read_buf(&mut buffer).await? == 0 {
                bail!("{address} closed the connection with {open} answers missing");
            }
            let mut rest = 0;
            while let Some(at) = find(&buffer[rest..], STATUS_LINE)
                && let Some(status) = buffer.get(rest + at + STATUS_LINE.len()..rest + at + STATUS_LINE.len() + 3)
            {
                let status = std::str::from_utf8(status)?.parse().context("not a status")?;
                *statuses.entry(status).or_default() += 1;
                open -= 1;
                rest += at + STATUS_LINE.len() + 3;
            }
            // What may be the beginning of a status line stays.
            let keep = buffer.len().saturating_sub(STATUS_LINE.len() + 2).max(rest);
            buffer.drain(..keep);
        }
    }
    Ok(statuses)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
