//! What the upstream does with one request.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use crate::body::Step;
use crate::client::{grpc_frame, header};
use crate::gate::Gate;

/// What the upstream does with one request.
#[derive(Debug, Clone)]
pub struct Behaviour {
    pub(super) before: Vec<Step>,
    pub(super) answer: Answer,
    pub(super) model: bool,
}

/// The last part of a behaviour.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Respond(Reply),
    /// The request's body and content type, as they came.
    Echo,
    /// 101, then every byte back.
    Upgrade,
    /// The connection (over HTTP/2: the stream) is reset.
    Reset,
}

/// A response.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<Step>,
    /// Whether the request's body is read first.
    pub(super) early: bool,
    /// Whether the connection closes afterwards, without having said so.
    pub(super) close: bool,
}

impl Behaviour {
    fn new(answer: Answer) -> Self {
        Self { before: Vec::new(), answer, model: true }
    }

    /// Answers with this status and an empty body.
    pub fn respond(status: u16) -> Self {
        let (headers, body) = (HeaderMap::new(), Vec::new());
        Self::new(Answer::Respond(Reply { status, headers, body, early: false, close: false }))
    }

    /// Sends the request's body back.
    pub fn echo() -> Self {
        Self::new(Answer::Echo)
    }

    /// Accepts an upgrade and sends every byte back.
    pub fn upgrade() -> Self {
        Self::new(Answer::Upgrade)
    }

    /// Resets the connection (over HTTP/2: the stream) before any header.
    pub fn reset() -> Self {
        Self::new(Answer::Reset)
    }

    /// Sends headers and `sent`, then resets.
    pub fn reset_in_body(sent: impl Into<Bytes>) -> Self {
        // Without the pause the reset would overtake the bytes: it throws away what has not been sent.
        Self::respond(200).steps(vec![Step::Data(sent.into()), Step::Pause(Duration::from_millis(20)), Step::Abort])
    }

    /// Keeps the request and never answers.
    pub fn never() -> Self {
        Self::respond(500).hold(&Gate::new())
    }

    /// A gRPC answer: one message, then the status in trailers.
    pub fn grpc(status: u32, message: &[u8]) -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(status));
        Self::respond(200)
            .header("content-type", "application/grpc")
            .steps(vec![Step::Data(grpc_frame(message)), Step::Trailers(trailers)])
    }

    /// A gRPC answer of headers only, which carry the status.
    pub fn grpc_trailers_only(status: u32) -> Self {
        Self::respond(200).header("content-type", "application/grpc").header("grpc-status", status.to_string())
    }

    /// Does nothing for this long first.
    #[must_use]
    pub fn delay(mut self, time: Duration) -> Self {
        self.before.push(Step::Pause(time));
        self
    }

    /// Does nothing until the gate is open.
    #[must_use]
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.before.push(Step::Hold(gate.clone()));
        self
    }

    /// Does not stand in the queue of the upstream's model.
    #[must_use]
    pub fn outside_model(mut self) -> Self {
        self.model = false;
        self
    }

    /// Adds a header to the response.
    ///
    /// # Panics
    /// It is not a header, or the behaviour has no response.
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = header(name, value.as_ref());
        self.reply(|reply| {
            reply.headers.append(name, value);
        })
    }

    /// A whole body.
    ///
    /// # Panics
    /// The behaviour has no response.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.steps(vec![Step::Data(body.into())])
    }

    /// A body that is sent step by step.
    ///
    /// # Panics
    /// The behaviour has no response.
    #[must_use]
    pub fn steps(self, steps: Vec<Step>) -> Self {
        self.reply(|reply| reply.body = steps)
    }

    /// A body of `chunks` chunks of `size` bytes, one every `interval`.
    ///
    /// # Panics
    /// The behaviour has no response.
    #[must_use]
    pub fn slow_body(self, chunks: usize, size: usize, interval: Duration) -> Self {
        let chunk = [Step::Data(vec![b'.'; size].into()), Step::Pause(interval)];
        self.steps(std::iter::repeat_n(chunk, chunks).flatten().collect())
    }

    /// Answers before the request's body has been read.
    ///
    /// # Panics
    /// The behaviour has no response.
    #[must_use]
    pub fn early(self) -> Self {
        self.reply(|reply| reply.early = true)
    }

    /// Closes the connection after the response, without having said so.
    ///
    /// # Panics
    /// The behaviour has no response.
    #[must_use]
    pub fn close(self) -> Self {
        self.reply(|reply| reply.close = true)
    }

    fn reply(mut self, change: impl FnOnce(&mut Reply)) -> Self {
        match &mut self.answer {
            Answer::Respond(reply) => change(reply),
            other => panic!("{other:?} has no response to change"),
        }
        self
    }

    /// What the request itself asks for: `x-upstream-status: 503`, `x-upstream-delay-ms: 20`, and
    /// `x-upstream-fault: reset | reset-in-body | never | close | echo | upgrade`. None of them: none.
    pub(super) fn asked_for(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (status, delay, fault) = (text("x-upstream-status"), text("x-upstream-delay-ms"), text("x-upstream-fault"));
        if status.is_none() && delay.is_none() && fault.is_none() {
            return None;
        }
        let respond = Self::respond(status.map_or(Some(200), |status| status.parse().ok()).unwrap_or(400));
        let behaviour = match fault {
            None => respond,
            Some("reset") => Self::reset(),
            Some("reset-in-body") => Self::reset_in_body("partial"),
            Some("never") => Self::never(),
            Some("close") => respond.close(),
            Some("echo") => Self::echo(),
            Some("upgrade") => Self::upgrade(),
            Some(unknown) => Self::respond(400).body(format!("unknown x-upstream-fault: {unknown}\n")),
        };
        let delay = delay.and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        Some(delay.map_or(behaviour.clone(), |delay| behaviour.delay(delay)))
    }
}

impl Default for Behaviour {
    /// What an unscripted upstream answers: 200 and a word.
    fn default() -> Self {
        let plain = HeaderValue::from_static("text/plain");
        Self::respond(200).body("ok\n").reply(|reply| {
            reply.headers.insert(CONTENT_TYPE, plain);
        })
    }
}
