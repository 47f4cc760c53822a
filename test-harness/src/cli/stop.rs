//! Ctrl-C and its relatives.

use std::process::ExitCode;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// Returns when the process is asked to end, with the code it should end with.
pub(super) async fn asked_to() -> Result<ExitCode> {
    let [mut interrupt, mut terminate, mut hangup] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    // As shells report a process that such a signal ended: 128 and the signal's number.
    let code = tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
        _ = hangup.recv() => 129,
    };
    Ok(ExitCode::from(code))
}
