//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks; short beside anything waited for, long beside one look.
const INTERVAL: Duration = Duration::from_millis(5);

/// Asks `condition` until it gives a value; its error says what is still missing.
///
/// # Errors
/// It gave none within `deadline`. The message holds what was missing last.
pub async fn wait_until<T, E: Display>(
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(missing) if Instant::now() >= end => bail!("not within {deadline:?}: {missing}"),
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
