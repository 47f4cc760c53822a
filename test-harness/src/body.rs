//! Message bodies that do what a script says: send, wait, end with trailers, or break off.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::HeaderMap;
use hyper::body::Frame;

use crate::gate::Gate;

/// What every body here is.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// One part of a body's script.
#[derive(Debug, Clone)]
pub enum Step {
    /// These bytes, as one chunk.
    Data(Bytes),
    /// Nothing for this long.
    Pause(Duration),
    /// Nothing until the gate is open.
    Hold(Gate),
    /// The end, with these trailers.
    Trailers(HeaderMap),
    /// The stream breaks off here.
    Abort,
}

/// Something a body tells when it has given all it had.
pub(crate) trait Finish: Send + 'static {
    /// The script has come to its end.
    fn finish(&mut self);
    /// The script breaks off here.
    fn abort(&mut self) {}
}

impl Finish for () {
    fn finish(&mut self) {}
}

/// A body that runs `steps`, and holds `observer` until it is dropped.
pub(crate) fn scripted(steps: Vec<Step>, mut observer: impl Finish) -> Body {
    // Complete bodies are given as such: only they can end a stream together with its headers, and have a length.
    match steps.as_slice() {
        [] => {
            observer.finish();
            return Empty::new().map_err(held_by(observer)).boxed_unsync();
        }
        [Step::Data(data)] => {
            observer.finish();
            return Full::new(data.clone()).map_err(held_by(observer)).boxed_unsync();
        }
        _ => {}
    }
    let state = (VecDeque::from(steps), observer);
    let frames = stream::unfold(state, async |(mut steps, mut observer)| {
        loop {
            let frame = match steps.pop_front() {
                None => {
                    observer.finish();
                    return None;
                }
                Some(Step::Pause(time)) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
                Some(Step::Hold(gate)) => {
                    gate.wait().await;
                    continue;
                }
                Some(Step::Data(data)) => Ok(Frame::data(data)),
                Some(Step::Trailers(trailers)) => {
                    observer.finish();
                    Ok(Frame::trailers(trailers))
                }
                Some(Step::Abort) => {
                    observer.abort();
                    steps.clear();
                    Err(io::Error::new(io::ErrorKind::ConnectionReset, "the script breaks off"))
                }
            };
            return Some((frame, (steps, observer)));
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// The error conversion of a body that cannot fail; the body drops the observer with it.
fn held_by(observer: impl Finish) -> impl FnMut(Infallible) -> io::Error + Send + 'static {
    move |never| {
        let _held = &observer;
        match never {}
    }
}
