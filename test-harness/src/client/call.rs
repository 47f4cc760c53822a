//! One request to be sent, and the answer to it.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};

use super::reason::Reason;
use crate::body::Step;

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<Step>,
    pub(super) http2: bool,
    pub(super) cancel: Option<Cancel>,
}

/// When the client goes away without waiting for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// After half of the request's head; HTTP/1.1 only.
    InHead,
    /// This long after sending began, unless the answer is complete by then.
    After(Duration),
    /// As soon as the response's headers are there.
    AtHeaders,
    /// As soon as this much of the response's body is there.
    InBody(usize),
}

/// An answer in full.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The trailers, empty when there are none.
    pub trailers: HeaderMap,
}

// === impl Call ===

impl Call {
    /// A request without a body, over HTTP/1.1.
    ///
    /// # Panics
    /// `method` is not a method.
    pub fn new(method: &str, path: impl Into<String>) -> Self {
        let method = method.parse().unwrap_or_else(|_| panic!("not a method: {method:?}"));
        Self { method, path: path.into(), headers: HeaderMap::new(), body: Vec::new(), http2: false, cancel: None }
    }

    /// `GET path`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    /// A unary gRPC call over HTTP/2: `message` in one frame.
    pub fn grpc(path: impl Into<String>, message: &[u8]) -> Self {
        let call = Self::new("POST", path).http2();
        call.header("content-type", "application/grpc").header("te", "trailers").body(grpc_frame(message))
    }

    /// Adds a header; a name may be repeated, a value may hold any bytes a header can.
    ///
    /// # Panics
    /// It is not a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = header(name, value.as_ref());
        self.headers.append(name, value);
        self
    }

    /// A whole body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = vec![Step::Data(body.into())];
        self
    }

    /// A body that is sent step by step.
    #[must_use]
    pub fn body_steps(mut self, steps: Vec<Step>) -> Self {
        self.body = steps;
        self
    }

    /// Over HTTP/2 with prior knowledge.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// The client goes away at this moment.
    #[must_use]
    pub fn cancel(mut self, when: Cancel) -> Self {
        self.cancel = Some(when);
        self
    }
}

/// A header from text.
pub(crate) fn header(name: &str, value: &[u8]) -> (HeaderName, HeaderValue) {
    let parsed = (name.parse(), HeaderValue::from_bytes(value));
    let (Ok(name), Ok(value)) = parsed else {
        panic!("not a header: {name:?}: {:?}", String::from_utf8_lossy(value));
    };
    (name, value)
}

/// A gRPC message with its five bytes of prefix: not compressed, length.
pub(crate) fn grpc_frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

// === impl Response ===

impl Response {
    /// A header's first value, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The gRPC status, from the trailers or from a trailers-only answer.
    pub fn grpc_status(&self) -> Option<u32> {
        let value = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"))?;
        value.to_str().ok()?.parse().ok()
    }

    /// Why Tidegate rejected it, if it did.
    pub fn reason(&self) -> Option<Reason> {
        Reason::of(&self.headers)
    }
}
