//! The streams of a worker, and a stream's response as the engine asks for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::engine::held::Held;
use crate::engine::{Engine, Permit, Stream};
use crate::matching::HeaderMap;

use super::abi::{self, HeaderMapKind};
use super::arena::Callback;

/// One stream: the engine that decided about it, which a newer one may have replaced since, and what it holds.
pub struct Open {
    pub engine: Rc<RefCell<Engine>>,
    /// By pointer: it is large, and goes from hand to hand.
    pub permit: Box<Permit>,
    /// For what it is held, if it is.
    pub held: Option<Held>,
}

/// Something for each of some contexts.
pub type ByContext<T> = HashMap<u32, T, BuildHasherDefault<ContextHasher>>;

/// All open streams by context. A stream is among them from when it holds something.
#[derive(Default)]
pub struct Streams {
    open: ByContext<Open>,
    /// Contexts of streams whose requests are still to come, with their roots: the last one, as a rule.
    begun: Vec<(u32, u32)>,
    /// Permits of streams that are gone, for their memory.
    #[expect(clippy::vec_box, reason = "they go into streams and come back by pointer")]
    spare: Vec<Box<Permit>>,
}

/// More spare permits than streams usually begin and end at once would be memory for nothing.
const SPARE: usize = 1024;

impl Streams {
    /// A stream begins under a root.
    pub fn begin(&mut self, context: u32, root: u32) {
        self.begun.push((context, root));
    }

    /// The root of a stream whose request has come; `None` if it came before.
    pub fn take_root(&mut self, context: u32) -> Option<u32> {
        let at = self.begun.iter().rposition(|(begun, _)| *begun == context)?;
        Some(self.begun.swap_remove(at).1)
    }

    /// A permit for a stream that may come to hold something.
    pub fn permit(&mut self, context: u32) -> Box<Permit> {
        let mut permit = self.spare.pop().unwrap_or_default();
        permit.of_stream(context);
        permit
    }

    /// Keeps what a stream holds until it is closed; nothing if it holds nothing.
    pub fn keep(&mut self, context: u32, open: Open) {
        if open.permit.is_empty() {
            self.spare(open.permit);
        } else {
            self.open.insert(context, open);
        }
    }

    pub fn get(&mut self, context: u32) -> Option<&mut Open> {
        self.open.get_mut(&context)
    }

    /// Forgets a stream.
    pub fn close(&mut self, context: u32) {
        self.take_root(context);
        if let Some(stream) = self.open.remove(&context) {
            self.spare(stream.permit);
        }
    }

    fn spare(&mut self, permit: Box<Permit>) {
        // One that still holds something could not be settled: it must not pass that on to another stream.
        if self.spare.len() < SPARE && permit.is_empty() {
            self.spare.push(permit);
        }
    }
}

/// Contexts are numbered by the host, one after the other: spreading the bits is all they need.
#[derive(Default)]
pub struct ContextHasher(u64);

impl Hasher for ContextHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The current stream's response.
pub struct Response<'a>(pub &'a Callback);

const FLAGS: &[u8] = b"response\0flags";
const DETAILS: &[u8] = b"response\0code_details";

impl Stream for Response<'_> {
    fn response_headers(&self) -> Option<HeaderMap<'_>> {
        HeaderMap::parse(self.0.header_map(HeaderMapKind::Response).ok()?)
    }

    fn response_trailer(&self, name: &str) -> Option<&[u8]> {
        self.0.header(HeaderMapKind::ResponseTrailers, name)
    }

    fn add_response_header(&self, name: &str, value: &str) {
        // Refused only when the headers have gone already: then there is nobody to tell.
        let _ = abi::add_header(HeaderMapKind::Response, name, value);
    }

    fn replace_response_header(&self, name: &str, value: &str) {
        // The host's own replacing leaves all but the first of several values.
        let _ = abi::remove_header(HeaderMapKind::Response, name);
        self.add_response_header(name, value);
    }

    fn flags(&self) -> u64 {
        self.0.property_u64(FLAGS).unwrap_or(0)
    }

    fn details(&self) -> Option<&[u8]> {
        self.0.property(DETAILS)
    }
}
