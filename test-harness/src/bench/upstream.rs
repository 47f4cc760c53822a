//! An upstream that costs next to nothing: it answers every request without reading it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Result;

use super::cpu;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";

/// Starts it, on `core` if given. It lives as long as this process.
///
/// # Errors
/// No port is free.
pub fn start(core: Option<usize>) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        if let Some(core) = core {
            // Nobody to tell: without it the run is only noisier.
            let _ = cpu::pin_here(core);
        }
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || serve(connection));
        }
    });
    Ok(address)
}

/// One connection, until the proxy closes it. Requests have no body and come one at a time.
fn serve(mut connection: TcpStream) {
    let _ = connection.set_nodelay(true);
    let (mut buffer, mut kept) = ([0; 4096], 0);
    while let Some(free) = buffer.get_mut(kept..).filter(|free| !free.is_empty()) {
        match connection.read(free) {
            Ok(read) if read > 0 => kept += read,
            _ => return,
        }
        if buffer.get(..kept).is_some_and(|request| request.ends_with(b"\r\n\r\n")) {
            kept = 0;
            if connection.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}
