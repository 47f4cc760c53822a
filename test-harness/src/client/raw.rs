//! Bytes on a socket, for what no HTTP library would send.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends `bytes`, and reads until the peer closes the connection or says nothing for `quiet`.
///
/// # Errors
/// Nobody listens there, or the connection was reset.
pub async fn raw(address: SocketAddr, bytes: &[u8], quiet: Duration) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.write_all(bytes).await?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(read) = timeout(quiet, stream.read(&mut chunk)).await {
        match read? {
            0 => break,
            length => answer.extend_from_slice(&chunk[..length]),
        }
    }
    Ok(answer)
}
