//! The clients: single calls, raw bytes, and open-loop load.

mod call;
mod connection;
mod flood;
mod load;
mod outcome;
mod raw;
mod reason;
mod schedule;

use std::net::SocketAddr;

use anyhow::Result;

pub use call::{Call, Cancel, Response};
pub(crate) use call::{grpc_frame, header};
pub use connection::{Connection, Ended};
pub use flood::{Asked, flood, steady};
pub use load::{ID, Load};
pub use outcome::{Ending, Latencies, Outcome, Outcomes, Tally};
pub use raw::raw;
pub use reason::Reason;
pub use schedule::Schedule;

/// Sends one request on a connection of its own.
///
/// # Errors
/// Nobody listens there, or the connection or the answer broke off.
pub async fn send(address: SocketAddr, call: Call) -> Result<Response> {
    Connection::open(address, call.http2).await?.send(call).await
}

/// `GET path` on a connection of its own.
///
/// # Errors
/// As [`send`].
pub async fn get(address: SocketAddr, path: &str) -> Result<Response> {
    send(address, Call::get(path)).await
}
